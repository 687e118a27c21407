"""The words of a command line, before Hydra reads them."""

from __future__ import annotations

from collections.abc import Sequence


def key_of(override: str) -> str:
    return override.lstrip("+~").split("=")[0]


def changed(overrides: Sequence[str], changes: Sequence[str]) -> list[str]:
    """The overrides with some of them replaced: no key is given twice."""
    keys = set(map(key_of, changes))
    return [*(o for o in overrides if key_of(o) not in keys), *map(quoted, changes)]


def quoted(override: str) -> str:
    """Stacks are full of commas, which Hydra would take for a list of choices."""
    key, _, value = override.partition("=")
    bare = value[:1] not in ("'", '"', "") and value != "null"
    return f'{key}="{value}"' if key.lstrip("+") == "stack" and bare else override
