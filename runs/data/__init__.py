"""What a run learns from: the user's text, token files, data sets, and probes made on the fly."""

from .contract import Batch, Data
from .huggingface import HuggingFace
from .probes import MQAR, Copying, InductionHeads, ModularAddition, SelectiveCopying
from .python_source import PythonSource
from .shards import Shards
from .text import Text

__all__ = [
    "MQAR",
    "Batch",
    "Copying",
    "Data",
    "HuggingFace",
    "InductionHeads",
    "ModularAddition",
    "PythonSource",
    "SelectiveCopying",
    "Shards",
    "Text",
]
