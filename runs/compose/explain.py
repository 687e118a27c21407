"""What went wrong with a command, in one line: the key, the value, and what would be right."""

from __future__ import annotations

import difflib
import errno
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from ..build.groups import KEYS
from ..build.objects import nearest
from ..job.record import RecordError

CONF = Path(__file__).resolve().parents[2] / "conf"
COMPOSING = (ValueError, HydraException, OmegaConfBaseException, yaml.YAMLError, RecursionError)  # ConfigErrors are ValueErrors
FOLDERS = [CONF]  # where options may be: see ``search``
EXPECTED = (*COMPOSING, RecordError, OSError)


def explain(error: BaseException) -> str:
    """One line for an expected error. Hydra's own messages get the nearest real key or option."""
    return " ".join(_explained(error).split())


def _explained(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if found := re.search(r"Could not override '([^']+)'", text):
        return f"{found[1]}: unknown key; {did_you_mean(found[1])}"
    if found := re.search(r"Could not (?:find|load) '([^'/]+)/([^']*)'", text):
        group, option = found[1], found[2]
        listed = re.search(rf"Available options in '{group}': (.*?)(?: Config search path:|$)", text)
        options = listed[1].split() if listed else sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        below = [f"{path.parent.name}/{path.stem}" for folder in FOLDERS for path in (folder / group).glob("*/*.yaml")]
        return f"{group}={option}: no such option; {nearest(option, [*options, *below])}; all: {', '.join(options)}"
    if isinstance(error, OverrideParseException):
        word = str(error.override).removeprefix("++")
        return f"{word}: not of the form key=value; quote values that hold =, commas or brackets: 'key=\"a=b\"'"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {str(error).splitlines()[0]}"
    if isinstance(error, RecursionError):
        return "a file of conf/ or a value refers to itself, or is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        hint = {errno.ENOSPC: "free some space, or ", errno.EACCES: "", errno.EROFS: "", errno.ENOENT: ""}.get(error.errno or 0)
        return f"{place}{error.strerror}" + ("" if hint is None else f"; {hint}choose another folder with out=...")
    return text


def did_you_mean(key: str) -> str:
    """A closing remark on an unknown key: the one that was probably meant, first in its own group, then anywhere."""
    group, _, name = key.rpartition(".")
    every = known_leaves()
    own = [leaf for leaf in every if group and leaf.startswith(f"{group}.")]
    for candidates, cutoff in ((own, 0.6), ([*every, *top_level_keys()], 0.75)):
        names = {leaf.rpartition(".")[2] for leaf in candidates}
        if close := difflib.get_close_matches(name, names, n=1, cutoff=cutoff):
            found = sorted({leaf for leaf in candidates if leaf.rpartition(".")[2] == close[0]}, key=_widest)
            return f"did you mean {' or '.join(found[: 1 + ('.' in found[0])])}?"
    return f"known: {', '.join(own or top_level_keys())}"


def _widest(leaf: str) -> tuple[int, bool, str]:
    """Short keys first, then those that many parts refer to."""
    return leaf.count("."), leaf.split(".", maxsplit=1)[0] not in ("train", "size", "shared", "optim"), leaf


def top_level_keys() -> list[str]:
    """The groups of conf/ and the keys of its config.yaml."""
    return sorted(KEYS)


def search(words: Iterable[str]) -> None:
    """Let hints know the options of the folders that a command names in hydra.searchpath."""
    named = [
        word.partition("=")[2].strip("[]").split(",") for word in words if word.lstrip("+").startswith("hydra.searchpath=")
    ]
    paths = [path.strip(" '\"").removeprefix("file://") for one in named for path in one]
    FOLDERS[:] = [CONF, *(Path(path) for path in paths if path and "://" not in path)]


def known_leaves() -> list[str]:
    """Those of the command's own folders too."""
    return sorted({leaf for folder in FOLDERS for leaf in leaves(folder)})


@functools.cache
def leaves(folder: Path = CONF) -> list[str]:
    """Every key of conf/ that holds a value, under the name that a command line gives it."""
    main = folder / "config.yaml"
    found = set(_leaves(_load(main.read_text()))) if main.is_file() else set()
    for path in folder.glob("*/*.yaml"):
        text = path.read_text()
        whole = text.startswith("# @package _global_")
        found |= set(_leaves(_load(text), "" if whole else f"{path.parent.name}."))
    return sorted(found)


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if key in ("defaults", "hydra", "_target_"):
            continue
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _load(text: str) -> dict[str, Any]:
    """Only its keys are asked for, so libyaml may read it where it is installed, in a tenth of the time."""
    content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
