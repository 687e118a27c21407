"""Reading what runs leave behind: tables, comparisons, figures, a page. Never imports torch, never instantiates a record."""

from analysis.load import RecordError, load, load_curves, load_routing

__all__ = ["RecordError", "load", "load_curves", "load_routing"]
