"""What --help answers, before anything is imported that takes time: the standard library alone."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from pathlib import Path

from .build.groups import KEYS

CONF = Path(__file__).resolve().parents[1] / "conf"
FLAGS = {"-h", "--help"}
WELL_KNOWN = (  # keys that one may rely on, as config.yaml writes them
    "seed",
    "out",
    "run",
    "weights",
    "match",
    "stack",
    *(f"train.{name}" for name in ("steps", "batch_size", "seq_len", "device", "precision", "compile", "checkpoint_every")),
    *(f"study.{name}" for name in ("name", "arm", "slots", "timeout", "memory")),
)
LINE = re.compile(r"( *)(\w+): *([^#]*?) *(?:# *(.*))?$")


def answer_help(doc: str | None, *, composes: bool = False) -> None:
    """Where the command line asks for help, say what a door does and leave. composes: its words are those of conf/."""
    if not FLAGS & set(sys.argv[1:]):
        return
    lines = [(doc or "").rstrip()]
    if composes:
        lines += ["", "Groups and their options, as in ffn=moe (the first is taken where none is said):", *groups()]
        lines += ["", "Keys, and what they are where nothing is said:", *keys()]
        lines += [
            "",
            "So is every argument of a chosen class, as in optim.lr=1e-3 or norm.bias=false; conf/config.yaml has all keys.",
        ]
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # as of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)


def groups() -> list[str]:
    chosen = dict(re.findall(r"^  - (\w+): (\w+)", (CONF / "config.yaml").read_text(), re.MULTILINE))
    return [entry(name, ", ".join(dict.fromkeys((chosen[name], *options(name))))) for name in KEYS if name in chosen]


def options(group: str) -> list[str]:
    """The names of a group's files; of a folder below it, how many there are."""
    folder = CONF / group
    below = [f"{one.name}/... ({len(list(one.glob('*.yaml')))})" for one in sorted(folder.iterdir()) if one.is_dir()]
    return [*sorted(file.stem for file in folder.glob("*.yaml")), *below]


def keys() -> list[str]:
    found, section = {}, ""
    for line in (CONF / "config.yaml").read_text().splitlines():
        if match := LINE.fullmatch(line):
            indent, name, value, remark = match.groups()
            section = name if not indent else section
            found[f"{section}.{name}" if indent else name] = (value, remark or "")
    return [entry(f"{name}={found[name][0]}", found[name][1], width=28) for name in WELL_KNOWN]


def entry(name: str, text: str, width: int = 10) -> str:
    return (
        textwrap.fill(text, 118, initial_indent=f"  {name:{width}} ", subsequent_indent=" " * (width + 3))
        if text
        else f"  {name}"
    )
