"""The records of runs as tables, comparisons, figures and a report. Never imports torch, never instantiates a record."""

from analysis.load import load, load_curves, load_routing, read
from analysis.scaling import fit_power_law, fit_routed_law, fit_scaling_law
from runs.job.record import RecordError

__all__ = [
    "RecordError",
    "fit_power_law",
    "fit_routed_law",
    "fit_scaling_law",
    "load",
    "load_curves",
    "load_routing",
    "read",
]
