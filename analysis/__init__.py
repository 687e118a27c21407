"""The records of runs as tables, comparisons, figures and a report. Never imports torch, never instantiates a record."""

from analysis.load import load, load_curves, load_routing, read
from runs.job.record import RecordError

__all__ = ["RecordError", "load", "load_curves", "load_routing", "read"]
