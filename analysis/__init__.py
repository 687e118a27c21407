"""The records of runs as tables, comparisons, figures and a report. Never imports torch, never instantiates a record."""

from .scaling import fit_power_law, fit_routed_law, fit_scaling_law

__all__ = ["fit_power_law", "fit_routed_law", "fit_scaling_law"]
