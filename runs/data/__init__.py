"""What a run trains on: the user's text, token files, data sets, and probes made on the fly."""

from .contract import Batch, Data
from .docstrings import Docstrings
from .huggingface import HuggingFace
from .packages import Packages
from .probes import MQAR, Copying, InductionHeads, MarkovChain, ModularAddition, SelectiveCopying
from .python_source import PythonSource
from .shards import Shards
from .text import Text

__all__ = [
    "MQAR",
    "Batch",
    "Copying",
    "Data",
    "Docstrings",
    "HuggingFace",
    "InductionHeads",
    "MarkovChain",
    "ModularAddition",
    "Packages",
    "PythonSource",
    "SelectiveCopying",
    "Shards",
    "Text",
]
