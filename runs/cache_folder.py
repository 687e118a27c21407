"""Where what may be lost is kept between commands."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path | None:
    """$ARCHLAB_CACHE, else ~/.cache/archlab; None on a machine without a home."""
    named = os.environ.get("ARCHLAB_CACHE")
    try:
        return Path(named) if named else Path.home() / ".cache" / "archlab"
    except RuntimeError:
        return None
