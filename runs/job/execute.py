"""One run, from its resolved config to its record: built, trained or resumed, and written down however it ends."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from arch import Decoder

from ..build.objects import build
from ..data.contract import Data
from ..objective import Task
from ..training import measure
from ..training.compiling import compilations, compile_layers
from ..training.decoding import decode_ms
from ..training.device import keep_memory, pick_device
from ..training.fit import Course, Progress, alone, course
from ..training.schedule import Schedule
from . import checkpoint, record
from .metrics import NONE, Metrics
from .record import RecordError
from .run import Run
from .start import begin, build_optimiser, build_task, load_data, tokenizer_sha256, vocab_size
from .stop import Patience, Stopped

Watch = Callable[[dict[str, Any]], None]
Peak = tuple[float, str]


def execute(run: Run, watch: Watch = lambda row: None, peak: Peak | None = None) -> dict[str, Any]:
    """Do what is left of a run and return its summary. Done or diverged: nothing is left; cut off: on from the checkpoint.

    Args:   watch: sees every row of metrics. peak: the device's FLOP/s and where that is from; None: found out here.
    Raises: RecordError: somebody else is in the folder, or a link. OSError: nothing can be written. Stopped: by a signal, after
        what there was has been saved; the same call goes on from there.
    """
    patience = Patience()
    summary = alone(work)(run, watch, peak, patience)
    refuse_to_go_on(patience, [summary])
    return summary


def refuse_to_go_on(patience: Patience, summaries: Iterable[dict[str, Any]]) -> None:
    """Raises Stopped: a signal has cut one of these runs off."""
    if patience.asked is not None and any(summary["status"] == "unfinished" for summary in summaries):
        raise Stopped(patience.asked)


def work(run: Run, watch: Watch, peak: Peak | None, patience: Patience, n_stacked: int = 1) -> Course[dict[str, Any]]:
    """``execute``, for who takes its steps. n_stacked: runs whose steps are taken at once, this one among them."""
    path = run.folder
    with record.claim(path), record.named(path):
        for line in record.put_aside_damage(path):
            print(line, file=sys.stderr, flush=True)
        if record.status(path) in record.ENDED:
            return record.read_json(path / record.SUMMARY)
        for stale in (record.SUMMARY, "error.txt"):  # of an attempt that failed
            (path / stale).unlink(missing_ok=True)
        write_config(run)
        try:
            outcome = yield from train(run, watch, peak, patience, n_stacked)
            summary = record.write_summary(path, {"identity": run.identity, **outcome})
        except RecordError:
            raise
        except Exception as error:
            (path / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            return failed(run, one_line(error))
        if summary["status"] in record.ENDED:
            checkpoint.forget_the_one_before(path)
        return summary


def failed(run: Run, why: str) -> dict[str, Any]:
    """The record of a run that came to nothing, for who holds its folder. Its summary."""
    nothing: dict[str, Any] = {"metrics": {}, "cost": {}}
    return record.write_summary(run.folder, {"identity": run.identity, "status": "failed", "error": why, **nothing})


def train(run: Run, watch: Watch, peak_known: Peak | None, patience: Patience, n_stacked: int) -> Course[dict[str, Any]]:
    """Build, fit, and say what came out: status, error, causal, metrics, cost, recompiles."""
    keep_memory()
    path, settings, device = run.folder, run.settings, pick_device(run.machine.device)
    data = load_data(run)
    task = build_task(run, data)
    start_from = begin(task, run)
    task.to(device)
    optimiser = build_optimiser(run, task)
    peak, source = peak_known or measure.peak_flops(device, run.machine.precision)
    metrics = Metrics(path / record.METRICS)
    start = resume(path, task, optimiser, metrics)
    facts = {
        "data_sha256": data.sha256,
        "tokenizer_sha256": tokenizer_sha256(data),
        "vocab_size": vocab_size(run, data),
        "start": None if start_from is None else {"path": start_from.path, "sha256": start_from.sha256},
        "chance": data.chance,
        "peak_flops": peak,
        "peak_flops_source": source,
        "begun_at_step": start.step,
        "stack": n_stacked,
    }
    sessions = [facts, *earlier(path)]
    stacked = any(session.get("stack", 1) > 1 for session in sessions)
    record.write_json(path / record.ENV, {**environment(device), **facts, "earlier": sessions[1:]})
    memory = measure.PeakMemory(device)
    if run.machine.compile:
        compile_layers(task)

    class Recorder:
        compiled: int | None = None  # graphs, once training and evaluation have both been met

        def log(self, row: dict[str, Any]) -> None:
            if run.machine.compile and row["split"] == "val" and self.compiled is None:
                self.compiled = compilations()
            metrics.append(row)
            watch(row)

        def save(self, progress: Progress) -> None:
            metrics.sync()  # a checkpoint on the disk means that its rows are there too
            checkpoint.save(path, task=task, optimiser=optimiser, progress=progress, rows=metrics.extent)

        def asked_to_stop(self) -> bool:
            return patience.asked is not None

    recorder = Recorder()
    with patience:
        outcome = yield from course(
            task=task,
            data=data,
            optimiser=optimiser,
            schedule=build(run.schedule, "schedule", Schedule),
            settings=settings,
            recorder=recorder,
            device=device,
            bf16=run.machine.precision == "bf16",
            seed=run.seed,
            start=start,
            n_stacked=n_stacked,
        )
    metrics.sync()
    cost = costs(task, settings.seq_len, outcome.progress, metrics, peak) | {"peak_memory_bytes": memory.bytes()}
    if stacked:  # what the clock and the memory showed was of all of them
        cost |= {key: None for key in cost if key in record.SPEEDS}
    if settings.decode_tokens and outcome.status == "done":
        cost["decode_ms"] = writing_ms(task, data, run, device)
    return {
        "status": outcome.status,
        "error": outcome.error,
        "causal": task.model.causal,
        "steps": settings.steps,
        "seconds": outcome.progress.seconds,
        "tokens": outcome.progress.tokens,
        "metrics": {f"val_{key}": record.finite(value) for key, value in outcome.metrics.items()} | routing(metrics),
        "cost": cost,
        "recompiles": None if recorder.compiled is None else compilations() - recorder.compiled,
    }


def resume(path: Path, task: Task, optimiser: Any, metrics: Metrics) -> Progress:
    """Back to the last checkpoint that is whole and whose rows are all there; to the start where there is none. What is
    damaged is put aside, and a line says so."""
    for file in checkpoint.kept(path):
        try:
            state = checkpoint.read(file)
            if not metrics.begins_with(state.rows):
                raise RecordError(f"{metrics.path}: rows up to step {state.progress.step} are damaged or gone")
        except RecordError as error:
            print(f"{error}; put aside: {file.name}", file=sys.stderr, flush=True)
            record.put_aside(file)
            continue
        state.put(task, optimiser)
        metrics.keep(state.rows)
        return state.progress
    metrics.keep(NONE)
    return Progress()


def costs(task: Task, seq: int, progress: Progress, metrics: Metrics, peak: float) -> dict[str, Any]:
    """The cost columns of a report, of the model with its objective's heads. FLOPs per token: forward. Training: forward and
    backward, of the real tokens that there were."""
    cost, train_flops, rate = task.cost(seq), task.train_flops(seq), usual(metrics, "tokens_per_s")
    return {
        "total_params": cost.params,
        "active_params": cost.active_params,
        "flops_per_token": cost.flops,
        "train_flops": train_flops * progress.tokens,
        "state_bytes": cost.state_bytes,
        "tokens_per_s": rate,
        "step_ms": usual(metrics, "step_ms"),
        "mfu": None if rate is None else train_flops * rate / peak,
    }


def writing_ms(task: Task, data: Data, run: Run, device: torch.device) -> float:
    """How long the trained decoder takes for a step that writes a token behind each of a batch of held-out rows. As it is
    used: not compiled, since every step has another length."""
    sizes = {"batch_size": run.settings.batch_size, "seq_len": run.settings.seq_len}
    (held_out,) = data.evaluation(n_batches=1, **sizes)
    eager = torch.compiler.set_stance("force_eager") if run.machine.compile else contextlib.nullcontext()
    with eager, torch.autocast(device.type, torch.bfloat16, enabled=run.machine.precision == "bf16"):
        return decode_ms(cast(Decoder, task.model), held_out.tokens, run.settings.decode_tokens)


def routing(metrics: Metrics) -> dict[str, float | None]:
    """What the routers did in the last window of training, the mean over layers (see ``routing_rows``); empty without any.
    busiest: the load of the expert with most work, in even shares."""
    rows = [row for row in metrics.rows() if row["split"] == "routing"]
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    found = {f"routing_{key}": [row[key] for row in last] for key in ("entropy", "dropped", "dead") if last}
    if last:
        found["routing_busiest"] = [max(row["load"]) * len(row["load"]) for row in last]
    return {key: None if None in values else statistics.fmean(values) for key, values in found.items()}


def write_config(run: Run) -> None:
    content = run.to_json()
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)  # equal layers are written once
    (run.folder / "config.yaml").write_text(text, encoding="utf-8")
    record.write_json(run.folder / record.CONFIG, content)


def environment(device: torch.device) -> dict[str, Any]:
    """Where and with what a run was made."""
    code = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            return subprocess.run(["git", *words], cwd=code, capture_output=True, text=True, check=True, timeout=20).stdout
        except (OSError, subprocess.SubprocessError):
            return None

    diff = git("diff", "HEAD")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "git_commit": (git("rev-parse", "HEAD") or "").strip() or None,
        "git_dirty": bool(diff),
        "git_diff": (diff or "")[:50_000] or None,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def earlier(path: Path) -> list[dict[str, Any]]:
    """Where the run was worked on before it came here: one entry per session, oldest first."""
    file = path / record.ENV
    if not file.exists():
        return []
    last = record.read_json(file)
    return [*last.pop("earlier", []), {key: value for key, value in last.items() if key != "git_diff"}]


def usual(metrics: Metrics, key: str) -> float | None:
    """The median of all windows of training but the first, which compiles and warms up; None if it is alone."""
    values = [row[key] for row in metrics.rows() if row["split"] == "train" and key in row]
    return statistics.median(values[1:]) if len(values) > 1 else None


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    plain = isinstance(error, (ValueError, OSError, RecordError))
    return text if plain and text else f"{type(error).__name__}: {text}"[:500]
