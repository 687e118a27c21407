"""What went wrong with a command, in one line: the key, the value, and what would be right."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..build.errors import ConfigError
from ..build.objects import nearest
from ..job.record import RecordError

CONF = Path(__file__).resolve().parents[2] / "conf"
EXPECTED = (ConfigError, RecordError, HydraException, OmegaConfBaseException, ValueError, OSError)


def explain(error: BaseException) -> str:
    """One line for an expected error. Hydra's own messages get the nearest real key or option."""
    text = " ".join(str(error).split())
    if found := re.search(r"Could not override '([^']+)'", text):
        return f"{found[1]}: unknown key; {nearest(found[1], known_keys(found[1]))}"
    if found := re.search(r"Could not find '([^'/]+)/([^']*)'", text):
        group, option = found[1], found[2]
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        return f"{group}={option}: no such option; {nearest(option, options)}; all: {', '.join(options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not of the form key=value; quote values that hold =, commas or brackets: 'key=\"a=b\"'"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {str(error).splitlines()[0]}"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        hint = {errno.ENOSPC: "free some space, or ", errno.EACCES: "", errno.EROFS: "", errno.ENOENT: ""}.get(error.errno or 0)
        return f"{place}{error.strerror}" + ("" if hint is None else f"; {hint}choose another folder with out=...")
    return text


def known_keys(like: str) -> list[str]:
    """The keys of conf/ at the depth of the given one: groups and root keys, or what the options of its group hold."""
    root = _load(CONF / "config.yaml")
    if "." not in like:
        return top_level_keys()
    group = like.split(".", maxsplit=1)[0]
    nodes = [root.get(group), *(_load(path) for path in (CONF / group).glob("*.yaml"))]
    keys = {f"{group}.{key}" for node in nodes if isinstance(node, dict) for key in node}
    return sorted(keys) or top_level_keys()


def top_level_keys() -> list[str]:
    """The groups of conf/ and the keys of its config.yaml."""
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    return sorted(groups | {str(key) for key in OmegaConf.load(CONF / "config.yaml")} - {"defaults", "hydra"})


def _load(path: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path))
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
