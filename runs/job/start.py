"""What a run is before its first step: its data, its model with the objective's heads, and weights taken from elsewhere."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from arch.init import initialise
from arch.lora import merge

from ..build.errors import ConfigError
from ..build.model import build_model
from ..build.objects import build
from ..build.targets import in_one_line
from ..data.contract import Data
from ..objective import Objective, Task
from ..published import folder as published
from ..tokenizer import Tokenizer
from ..tokenizer.frozen import Frozen
from ..training.finetune import Finetune
from ..training.optim import Optimiser
from ..training.param import Param
from . import checkpoint, record
from .run import Run


def load_data(run: Run) -> Data:
    """The run's data as its objective lays it out, checked against its sequence length."""
    objective = build(run.objective, "objective", Objective)
    data = _data(json.dumps(run.data, sort_keys=True), run.run)
    return objective.data(data, seq_len=run.settings.seq_len)


@functools.lru_cache(maxsize=2)  # many runs of a sweep share it, and perhaps that of the run they start from
def _data(node: str, run: str | None) -> Data:
    found: dict[str, Any] = json.loads(node)
    learnt = tokenizer_of(Path(run)) if run is not None and found.get("tokenizer") is not None else None
    if learnt is None or not learnt.state():
        data = build(found, "data", Data)
    else:  # the tokens of the run that this one starts from, not others of the new text
        data = build({key: value for key, value in found.items() if key != "tokenizer"}, "data", Data, tokenizer=Frozen(learnt))
    return data


def build_task(run: Run, data: Data) -> Task:
    """The model and its heads, with weights drawn from the run's seed."""
    objective = build(run.objective, "objective", Objective)
    model = build_model(run.model, vocab_size=vocab_size(run, data), seed=run.seed)
    task = objective.task(model, data)
    if next(model.parameters()).device.type != "meta":
        initialise(nn.ModuleDict({"heads": task.heads}), seed=run.seed)
    build(run.param, "param", Param).scale_weights(task)
    return task


def build_optimiser(run: Run, task: Task) -> Optimiser:
    """Of a task that has begun, each tensor at the rate that the run's param= gives it."""
    optimiser = build(run.optim, "optim", Optimiser, model=task)
    build(run.param, "param", Param).scale_rates(optimiser, task)
    return optimiser


def vocab_size(run: Run, data: Data) -> int:
    return run.size["vocab_size"] or data.vocab_size


class Start(NamedTuple):
    """Weights to begin with. tensors: named as in a checkpoint; sha256: of the files that they are from."""

    path: str
    sha256: str
    tensors: dict[str, Tensor]

    def put(self, task: Task) -> None:
        """All weights of the model, and those of heads of the same name and shape. Raises ConfigError: they do not fit."""
        wanted = checkpoint.contents(task)
        second_names = task.state_dict().keys() - wanted.keys()
        given = {name: t for name, t in self.tensors.items() if name.startswith("model.") and name not in second_names}
        if difference := checkpoint.misfit(given, {name: t for name, t in wanted.items() if name.startswith("model.")}):
            raise ConfigError(f"{self.path}: its weights are of another model: {difference}")
        heads = {n: t for n, t in self.tensors.items() if n.startswith("heads.") and n in wanted and t.shape == wanted[n].shape}
        if next(task.parameters()).device.type != "meta":
            task.load_state_dict(given | heads, strict=False)


def begin(task: Task, run: Run) -> Start | None:
    """Put in the weights that the run starts from, if any, and freeze and add what finetune= asks for."""
    start, finetune = load_start(run), _finetune(run)
    if start is not None:
        start.put(task)
    elif finetune.needs_start:
        raise ConfigError("finetune=lora adapts weights that are there: say which, with run=FOLDER or weights=FOLDER")
    try:
        finetune.prepare(task.model, seed=run.seed)
    except ValueError as error:
        raise ConfigError(f"finetune: {error}") from None
    return start


def load_start(run: Run) -> Start | None:
    if run.run is not None:
        task = restore(Path(run.run)).task
        merge(task.model)
        return Start(f"run={run.run}", record.sha256(Path(run.run) / record.CHECKPOINT), task.state_dict())
    if run.weights is not None:
        folder = Path(run.weights)
        ours = {n if n.startswith("heads.") else f"model.{n}": t for n, t in published.load(folder).items()}
        files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
        return Start(f"weights={folder}", record.sha256(*files), ours)
    return None


class Restored(NamedTuple):
    """A run as its last checkpoint left it, on the CPU."""

    run: Run
    data: Data
    task: Task


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Somebody else's record may say anything: what it leads to is said of the record, in one line."""
    try:
        yield
    except (ConfigError, record.RecordError, OSError):
        raise
    except Exception as error:
        raise ConfigError(f"run={folder}: its record describes no run that can be built: {in_one_line(error)}") from error


def restore(folder: Path) -> Restored:
    """Raises ConfigError, RecordError: in one line, why there is nothing to go on with."""
    run = read_run(folder)
    if not checkpoint.kept(folder):
        every = run.settings.checkpoint_every
        why = "train.checkpoint_every=null keeps none" if every is None else f"status: {record.status(folder)}"
        raise ConfigError(f"run={folder}: there is no checkpoint ({why}); train it with train.checkpoint_every=0 or more")
    with reading(folder):
        return _restored(folder, run)


def _restored(folder: Path, run: Run) -> Restored:
    state = checkpoint.read(checkpoint.kept(folder)[0])
    data = load_data(run)
    refuse_other_tokenizer(folder, data)
    adapted = _finetune(run).needs_start  # else the checkpoint holds all of it
    if not adapted:
        with torch.device("meta"):  # no memory is taken for weights that are not there
            state.refuse_other_model(build_task(run, data))
    task = build_task(run, data)
    if adapted:
        start = begin(task, run)
        refuse_other_start(folder, start)
    state.put(task)
    if not all(parameter.isfinite().all() for parameter in task.parameters()):
        raise ConfigError(f"run={folder}: its weights are not finite, the run has diverged; take another")
    return Restored(run, data, task)


def run_folder(named: Path) -> Path:
    """The folder of the run that run=FOLDER names: a run's own, or that of a study which holds one run alone.

    Raises: ConfigError: several runs, or none.
    """
    found = [named] if (named / record.CONFIG).is_file() else sorted(file.parent for file in named.glob(f"*/{record.CONFIG}"))
    if not found:
        raise ConfigError(
            f"run={named}: there is no run (no config.json), neither there nor one folder below; give one's folder"
        )
    if len(found) > 1:
        raise ConfigError(f"run={named}: {len(found)} runs are in this folder; name one of them, such as run={found[0]}")
    return found[0]


def read_run(folder: Path) -> Run:
    """Raises ConfigError, RecordError: no run there, or one that an earlier version made."""
    if not (folder / record.CONFIG).is_file():
        raise ConfigError(f"run={folder}: there is no run (no config.json); give a folder that runs.train has made")
    content = record.read_config(folder)
    if "${" in json.dumps(content):
        raise ConfigError(f"run={folder}: its record refers to something outside it (${{...}}), as no run writes it")
    with reading(folder):
        return Run.from_json(content, folder)


def tokenizer_of(folder: Path) -> Tokenizer | None:
    """The tokenizer that a run has learnt with; None where its tokens stand for no text."""
    data = load_data(read_run(folder))
    tokenizer: Tokenizer | None = getattr(data, "tokenizer", None)
    refuse_other_tokenizer(folder, data)
    return tokenizer


def tokenizer_sha256(data: Data) -> str | None:
    """Of what the data's tokenizer knows; None where it knows nothing, as bytes do, or tokens stand for no text."""
    tokenizer: Tokenizer | None = getattr(data, "tokenizer", None)
    _ = data.sha256  # it may have to learn first
    state = b"" if tokenizer is None else tokenizer.state()
    return hashlib.sha256(state).hexdigest() if state else None


def refuse_other_tokenizer(folder: Path, data: Data) -> None:
    """A run's identity names where its tokenizer is from; should that teach other tokens now, the old weights know nothing."""
    file, now = folder / record.ENV, tokenizer_sha256(data)
    before = record.read_json(file).get("tokenizer_sha256", now) if file.exists() else now
    if before != now:
        raise ConfigError(
            f"{folder}: its tokenizer was another, or was learnt from other text (SHA-256 {str(before)[:8]}..., now "
            f"{str(now)[:8]}...); bring the old file or text back, or take another study.name"
        )


def refuse_other_start(folder: Path, start: Start | None) -> None:
    """A run's identity names where its first weights are; should they have changed, its record must not be mixed."""
    file = folder / record.ENV
    before = (record.read_json(file).get("start") or {}) if file.exists() else {}
    if start is not None and before and before["sha256"] != start.sha256:
        raise ConfigError(
            f"{folder}: was begun with other weights of {start.path} (SHA-256 {before['sha256'][:8]}..., now "
            f"{start.sha256[:8]}...); bring the old ones back, or take another study.name"
        )


def _finetune(run: Run) -> Finetune:
    finetune = build(run.finetune, "finetune", Finetune)
    return finetune
