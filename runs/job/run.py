"""A run as a value: what it computes, what it is called, where its record lies."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..build.errors import ConfigError
from ..build.groups import AXES, NODES, USUAL
from ..build.model import filled
from ..build.objects import call, essence, nearest
from ..training.fit import Settings
from . import record
from .study import Study

Node = dict[str, Any]

STANDARD: Node = {"_target_": "runs.training.param.Standard"}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """device: as torch names it. precision: fp32 or bf16. compile: whether layers go through torch.compile. stack: how many
    runs of a sweep that differ in nothing but seed and rates are trained at once by one process."""

    device: str
    precision: str
    compile: bool
    stack: int = 1

    def __post_init__(self) -> None:
        if self.stack < 1:
            raise ValueError(f"stack={self.stack}: at least 1 run at a time is needed")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, resolved once and recorded as it is.

    label: what tables call its arm. choices: group -> option, of the groups that it reads. model ... param: the nodes that
    it is built from, with no reference left and every ``layers`` a list with one node per block. size, shared, causal: what
    the nodes were made from. family: the published layout that its weights can be written in. run, weights: the folder that
    it starts from, if any. match: the budget in which its arm was made equal, the widths that were solved for it, and what the
    baseline and the arm have of every budget; None: it is as it was written. identity: 64 hex digits that name what it
    computes, seed included; two spellings of one run share them.
    """

    seed: int
    out: str
    study: Study
    label: str = ""
    choices: Mapping[str, str]
    size: Mapping[str, Any]
    shared: Mapping[str, Any]
    causal: bool
    family: str | None
    run: str | None
    weights: str | None
    model: Node
    data: Node
    objective: Node
    finetune: Node
    optim: Node
    schedule: Node
    settings: Settings
    machine: Machine
    param: Node = field(default_factory=STANDARD.copy)
    match: Mapping[str, Any] | None = None
    identity: str = field(default="")

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise ConfigError(f"seed={self.seed!r}: a whole number from 0 is expected")
        if self.weights is not None and self.param != STANDARD:
            raise ConfigError(f"weights={self.weights}: they were trained without its scales; leave param= out")
        if not self.identity:
            object.__setattr__(self, "identity", _digest({"seed": self.seed, **self._computed()}))

    def _computed(self) -> dict[str, Any]:
        """All that decides the numbers, but for the seed."""
        start = {key: None if path is None else os.path.abspath(path) for key, path in self.start.items()}
        loop, machine = (
            {k: v for k, v in vars(part).items() if k not in record.HABITS} for part in (self.settings, self.machine)
        )
        loop["eval_every"] = min(loop["eval_every"], loop["steps"])  # the last step is evaluated in any case
        nodes = {name: essence(getattr(self, name), name) for name in NODES}
        if self.param == STANDARD:
            del nodes["param"]  # runs were identified before there was another
        return {**start, **essence(loop, "train"), **machine, **nodes}

    @property
    def start(self) -> dict[str, str | None]:
        return {"run": self.run, "weights": self.weights}

    @property
    def arm_hash(self) -> str:
        """64 hex digits that the runs of one arm share: the identity but for the seed."""
        return _digest(self._computed())

    @property
    def name(self) -> str:
        """The arm's given name, else what it is made of."""
        return self.study.arm or "-".join(self.made_of)

    @property
    def made_of(self) -> list[str]:
        """The model and the score where they are not the usual ones, and between them the five axes."""
        shown = [key for key in ("model", *AXES, "score") if self.choices.get(key) != USUAL.get(key)]
        return [self.choices[key] for key in shown if key in self.choices]

    @property
    def title(self) -> str:
        return f"{self.label or self.name} seed {self.seed}"

    @property
    def folder(self) -> Path:
        """<out>/<study>/<short-name>-<hash8>: readable, and no two runs share one."""
        short = re.sub(r"^\.|[^\w.+-]+", "_", f"{self.name}-s{self.seed}").encode()[:160].decode(errors="ignore")
        return Path(self.out) / self.study.name / f"{short}-{self.identity[:8]}"

    def of_vocabulary(self, vocab_size: int) -> Run:
        """The same with what the data left open filled in: its record stays where it is."""
        size = {**self.size, "vocab_size": vocab_size}
        return replace(self, model=filled(self.model, vocab_size), size=size)

    def labelled(self, label: str) -> Run:
        return replace(self, label=label)

    def to_json(self) -> dict[str, Any]:
        """What config.json holds: keys as on the command line."""
        own = {key: value for key, value in vars(self).items() if key not in ("settings", "machine", "study")}
        train = {**vars(self.settings), **vars(self.machine)}
        return {"schema": record.SCHEMA, "arm_hash": self.arm_hash, **own, "study": self.study.to_json(), "train": train}

    @staticmethod
    def from_json(content: Mapping[str, Any], source: Path) -> Run:
        """The run of a config.json. Raises ConfigError: an unknown key or a wrong value; KeyError and others: one that no run
        has written (see ``start.reading``)."""
        own = {key: value for key, value in content.items() if key not in ("schema", "arm_hash", "train", "study")}
        settings, machine = settings_of(content["train"])
        study = Study.of(content["study"])
        run = call(Run, own, str(source), settings=settings, machine=machine, study=study)
        return run


def settings_of(train: Mapping[str, Any]) -> tuple[Settings, Machine]:
    """The train node: the loop's settings, and where it computes. Raises ConfigError: an unknown key or a wrong value."""
    known = [*Settings.__annotations__, *Machine.__annotations__]
    for key in train:
        if key not in known:
            raise ConfigError(f"train.{key}: unknown key; {nearest(key, known)}")
    here = [key for key in Machine.__annotations__ if key in train]
    settings: Settings = call(Settings, {key: value for key, value in train.items() if key not in here}, "train")
    machine: Machine = call(Machine, {key: train[key] for key in here}, "train")
    return settings, machine


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
