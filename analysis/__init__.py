"""The records of runs as tables, comparisons, figures and a report. Never imports torch, never instantiates a record."""

from analysis.load import load, load_curves, load_routing, read
from analysis.multiplier import compute_multiplier
from analysis.scaling import fit_power_law, fit_routed_law, fit_scaling_law
from analysis.step_law import fit_step_law, fit_surface
from runs.job.record import RecordError

__all__ = [
    "RecordError",
    "compute_multiplier",
    "fit_power_law",
    "fit_routed_law",
    "fit_scaling_law",
    "fit_step_law",
    "fit_surface",
    "load",
    "load_curves",
    "load_routing",
    "read",
]
