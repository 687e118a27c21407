"""A sweep on one machine: a process per run, or per stack of them, a few at a time. One that crashes, hangs or is killed costs
itself alone."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import torch
from tqdm import tqdm

from ..job import record
from ..job.run import Run
from ..job.stop import Stopped, at_once
from .stacks import ALONE, NOT_RUN, last_words, stacks, train_stack

POLL = 0.2  # seconds between two looks at the runs
TAIL = 2**18  # bytes at the end of its metrics that a run is followed by: a row of each expert may come after that of the step
BEGINNING = 3600.0  # seconds for a run's first row of metrics, before which its speed is unknown
SILENCE = 300.0  # seconds without a row that no run is blamed for
PATIENCE = 20  # a run counts as hung where a row takes this many times as long as its own speed explains
GRACE = 30.0  # seconds for a run to save and end in order
# What every child imports before its first step, once for all of them: what executes a run, torch's compiler, which every
# optimiser of torch asks for, and what a door imports, since a child begins with its parent's main module.
SHARED = ["runs.job.execute", "torch._dynamo", "runs.command"]
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGINT)  # exit codes of a process that has done so


@dataclass
class Active:
    """A run under way, and how far it was when last looked at. Those of a stack share their process.

    size: of its metrics. heard: when they last grew. allowed: seconds until they grow again, after which it counts as hung.
    ended: why it was ended from here. n_stacked: runs of its process.
    """

    run: Run
    process: BaseProcess
    since: float
    heard: float
    allowed: float = BEGINNING
    size: int = 0
    step: int = 0
    news: str = ""
    ended: str = ""
    n_stacked: int = 1

    def seconds(self) -> float:
        return time.monotonic() - self.since


def launch(runs: Sequence[Run], *, slots: int, timeout: float | None) -> list[str]:
    """Run all that is not done yet; the status of each run, in order. A live line shows arm, seed, step, loss and time left.

    Args:   slots: processes at a time. timeout: seconds for a run; for a stack as many times as many as it has runs.
    """
    from ..training import device, measure

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SHARED)
    open_runs = [run for run in runs if status_of(run) not in record.ENDED]
    waiting = deque(stacks(open_runs))
    threads = max(1, device.cores() // slots)
    total, left = len(runs), sum(run.settings.steps for run in open_runs)
    finished = total - len(open_runs)
    if finished:
        print(f"{finished} of {total} runs were done before", flush=True)
    peak = None
    if open_runs and open_runs[0].machine.device == "cpu":  # measured once, so that the arms' MFU share a denominator
        torch.set_num_threads(threads)
        peak = measure.peak_flops(torch.device("cpu"), open_runs[0].machine.precision)
    running: list[Active] = []
    bar = tqdm(
        total=left, unit="step", disable=None, bar_format="{desc} {percentage:3.0f}% |{bar:16}| {remaining} left{postfix}"
    )
    try:
        while waiting or running:
            while waiting and len(_processes(running)) < slots:
                stack, now = waiting.popleft(), time.monotonic()
                process = context.Process(target=_child, args=(stack, threads, peak))
                process.start()
                running += [Active(run, process, since=now, heard=now, n_stacked=len(stack)) for run in stack]
            wait([process.sentinel for process in _processes(running)], timeout=POLL)
            for active in running:
                bar.update(_look(active))
                _end_if_hung(active, timeout)
            for ended in [process for process in _processes(running) if not process.is_alive()]:
                over = [active for active in running if active.process is ended]
                running = [active for active in running if active.process is not ended]
                if ended.exitcode == ALONE:
                    arm, why = over[0].run.label or over[0].run.name, last_words(over[0].run)
                    tqdm.write(f"{arm}: {len(over)} runs one by one, train.stack does not do: {why}", file=sys.stdout)
                    waiting.extendleft([active.run] for active in reversed(over))
                    continue
                why = next((active.ended for active in over if active.ended), "")
                for active in over:
                    active.ended = why
                    finished += 1
                    bar.update(active.run.settings.steps - active.step)
                    tqdm.write(f"[{finished}/{total}] {active.run.title}: {_ending(active)}", file=sys.stdout)
                    sys.stdout.flush()
            bar.set_description_str(f"{finished}/{total} runs", refresh=False)
            bar.set_postfix_str(" | ".join(active.news for active in running if active.news))
    finally:
        bar.close()
        _end_all(_processes(running))
    return [status_of(run) for run in runs]


def status_of(run: Run) -> str:
    """As its record says; a record that cannot be read is this run's trouble, not the sweep's."""
    try:
        return record.status(run.folder)
    except Exception:
        return "unreadable"


def _processes(running: Sequence[Active]) -> list[BaseProcess]:
    return list(dict.fromkeys(active.process for active in running))


def _child(runs: Sequence[Run], threads: int, peak: tuple[float, str] | None) -> None:
    """The body of a process: what it prints lands in the folder of its run, and it ends with its parent."""
    from ..compose.explain import explain
    from ..job.execute import execute

    as_child(threads)
    first, *others = runs
    try:
        first.folder.mkdir(parents=True, exist_ok=True)
        log = os.open(first.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if others:
            train_stack(runs, peak)
        else:
            execute(first, peak=peak)
    except Stopped as stopped:
        os._exit(stopped.code)
    except (record.RecordError, OSError) as error:
        print(explain(error), file=sys.stderr, flush=True)
        os._exit(NOT_RUN)


def as_child(threads: int) -> None:
    """A process of a sweep ends with its parent, and at once where it is asked to."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, at_once)
    signal.signal(signal.SIGINT, at_once)
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(4)


def _end_if_hung(active: Active, timeout: float | None) -> None:
    """timeout: seconds for the whole run; None: as many for each row as the run's own speed explains, many times over."""
    silent = time.monotonic() - active.heard
    if timeout is not None and active.seconds() > timeout * active.n_stacked:
        active.ended = f"still going after {timeout * active.n_stacked:g} s"
    elif timeout is None and silent > active.allowed and status_of(active.run) not in record.ENDED:
        active.ended = (
            f"hung: no row for {silent:.0f} s, {active.allowed:.0f} s were allowed (study.timeout=SECONDS for a run as a whole)"
        )
    if active.ended:
        active.process.kill()
        active.process.join()


def _end_all(processes: Sequence[BaseProcess]) -> None:
    """In order, with time to save; what is left then, as a process that was stopped, is killed."""
    try:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + GRACE
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:  # also where a second signal asks for it at once
        for process in processes:
            process.kill()
            process.join()


def _look(active: Active) -> int:
    """Steps taken since the last look, read off the tail of the run's metrics, whatever stands there."""
    try:
        with open(active.run.folder / record.METRICS, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size == active.size:
                return 0
            active.size, active.heard = size, time.monotonic()
            file.seek(max(0, size - TAIL))
            lines = file.read().decode(errors="replace").splitlines()
        row = json.loads(next(line for line in reversed(lines) if '"split": "train"' in line and line.endswith("}")))
        step, settings = row["step"], active.run.settings
        loss = "nan" if row["loss"] is None else f"{row['loss']:.3f}"
        news = f"{active.run.title} step {step}/{settings.steps} loss {loss} {row['tokens_per_s'] / 1000:.1f}k tok/s"
        seconds = active.n_stacked * (settings.log_every + settings.eval_batches) * row["step_ms"] / 1000
        active.allowed = max(SILENCE, PATIENCE * seconds)
    except Exception:  # no row yet, half a row, or nonsense: no news
        return 0
    moved, active.step, active.news = step - active.step, step, news
    return max(0, moved)


def _ending(active: Active) -> str:
    """How a run ended; one that left no word of its own gets a summary here. Nothing that it leaves behind ends the sweep."""
    active.process.join()
    code, folder = active.process.exitcode, active.run.folder
    try:
        over = status_of(active.run) in record.ENDED  # whatever its process made of others
        if code == NOT_RUN and not over:
            return f"not run: {last_words(active.run)}"
        if code in STOPPED and not over:
            return "stopped; the same command goes on from there"
        if code != 0:
            _write_failure(active.run, active.ended or _cause(code))
        summary = record.read_json(folder / record.SUMMARY)
        value = summary["metrics"].get("val_bits_per_byte")
        loss, accuracy = (summary["metrics"].get(key) or math.nan for key in ("val_loss", "val_accuracy"))
        what = f"{value:.3f} bits/byte" if value is not None else f"loss {loss:.3f}, accuracy {accuracy:.3f}"
        what = what if summary["status"] == "done" else summary["error"]
        return f"{summary['status']}, {what} ({active.seconds():.0f} s)"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _write_failure(run: Run, cause: str) -> None:
    """For a process that was ended from outside; a result that it had already written stays."""
    from ..job.execute import failed, write_config

    with record.claim(run.folder):
        if status_of(run) not in record.ENDED:
            write_config(run)  # it may have died before it could
            failed(run, f"the process was ended: {cause}")


def _cause(code: int | None) -> str:
    if code == -9:
        return "killed by signal 9; out of memory?"
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
