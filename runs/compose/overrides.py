"""The words of a command line, before Hydra reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..build.errors import ConfigError
from ..build.groups import KEYS
from .explain import CONF, did_you_mean, leaves

NO_OPTION = re.compile(r"|null|true|false|nan|[-+]?(inf|[\d._]+(e[-+]?\d+)?)|[\[{].*", re.IGNORECASE)
DEEPEST = 20  # brackets in one another: Hydra's parser calls itself for each


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
    Raises ConfigError: what Hydra would answer without a word about the key.
    """
    key, _, value = override.partition("=")
    refuse_what_hydra_mistakes(override)
    if "." in key and key[0] not in "+~" and not key.startswith("hydra."):
        return f"++{override}"
    bare = value not in ("", "null") and not set("'\"") & set(value)
    return f'{key}="{value}"' if key.lstrip("+") == "stack" and bare else override


def refuse_what_hydra_mistakes(override: str) -> None:
    key, _, value = override.partition("=")
    bare, depth = key.lstrip("+~"), 0
    if override != override.encode(errors="replace").decode():
        raise ConfigError(f"{bare}={value!a}: text in UTF-8 is expected")
    if not bare:
        raise ConfigError(f"{override!r}: not of the form key=value")
    for letter in value:
        depth += (letter in "([{") - (letter in ")]}")
        if depth > DEEPEST:
            raise ConfigError(f"{bare}={value[:40]}...: brackets stand more than {DEEPEST} deep")
    if key.startswith("~") and group_of(bare) != "hydra":
        known = bare in (*KEYS, *leaves())
        raise ConfigError(f"~{bare}: a run needs it; leave it in" if known else f"~{bare}: unknown key; {did_you_mean(bare)}")
    if (CONF / bare).is_dir() and bare in KEYS:
        for option in value.split(","):
            if NO_OPTION.fullmatch(option.strip()):
                raise ConfigError(f"{bare}={value}: the name of an option is expected")
