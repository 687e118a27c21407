"""The words of a command line, before Hydra reads them."""

from __future__ import annotations

from collections.abc import Sequence


def key_of(override: str) -> str:
    return override.lstrip("+~").split("=")[0]


def group_of(override: str) -> str:
    """The top-level key of an override."""
    return key_of(override).split(".", maxsplit=1)[0]


def changed(overrides: Sequence[str], changes: Sequence[str]) -> list[str]:
    """The overrides with some of them replaced: no key is given twice."""
    keys = set(map(key_of, changes))
    return [*(o for o in overrides if key_of(o) not in keys), *map(normal, changes)]


def normal(override: str) -> str:
    """An override as Hydra needs it to do what it says.

    A stack is full of commas, which Hydra would take for a list of choices. A key with dots may name an argument that the
    class takes and its yaml leaves at the default: with ++ Hydra adds it, and whether the class takes it is checked later.
    """
    key, _, value = override.partition("=")
    if "." in key and key[0] not in "+~" and not key.startswith("hydra."):
        return f"++{override}"
    bare = value not in ("", "null") and not set("'\"") & set(value)
    return f'{key}="{value}"' if key.lstrip("+") == "stack" and bare else override
