"""A sweep on one machine: one process per run, a few at a time. A run that crashes, hangs or is killed costs only itself."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
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

POLL = 0.2  # seconds between two looks at the runs
NOT_RUN = 3  # exit code of a process that could not use its folder


@dataclass
class Active:
    """A run under way, and how far it was when last looked at."""

    run: Run
    process: BaseProcess
    since: float
    step: int = 0
    news: str = ""


def launch(runs: Sequence[Run], *, slots: int, timeout: float | None) -> list[str]:
    """Run all that is not done yet; the status of each run, in order. A live line shows arm, seed, step, loss and time left."""
    from ..training import device, measure

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["runs.job.execute"])  # torch is imported once, not once per run
    waiting = deque(run for run in runs if status_of(run) not in record.ENDED)
    threads = max(1, device.cores() // slots)
    total, left = len(runs), sum(run.settings.steps for run in waiting)
    finished = total - len(waiting)
    if finished:
        print(f"{finished} of {total} runs were done before", flush=True)
    peak = None
    if waiting and waiting[0].machine.device == "cpu":  # measured once, so that the arms' MFU share a denominator
        torch.set_num_threads(threads)
        peak = measure.peak_flops(torch.device("cpu"), waiting[0].machine.precision)
    running: list[Active] = []
    bar = tqdm(
        total=left, unit="step", disable=None, bar_format="{desc} {percentage:3.0f}% |{bar:16}| {remaining} left{postfix}"
    )
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                run = waiting.popleft()
                process = context.Process(target=_child, args=(run, threads, peak))
                process.start()
                running.append(Active(run, process, time.monotonic()))
            wait([active.process.sentinel for active in running], timeout=POLL)
            for active in list(running):
                bar.update(_look(active))
                if timeout is not None and time.monotonic() - active.since > timeout:
                    active.process.kill()
                if not active.process.is_alive():
                    running.remove(active)
                    finished += 1
                    bar.update(active.run.settings.steps - active.step)
                    tqdm.write(f"[{finished}/{total}] {_ending(active, timeout)}", file=sys.stdout)
                    sys.stdout.flush()
            bar.set_description_str(f"{finished}/{total} runs", refresh=False)
            bar.set_postfix_str(" | ".join(active.news for active in running if active.news))
    finally:
        for active in running:
            active.process.terminate()
        bar.close()
    return [status_of(run) for run in runs]


def status_of(run: Run) -> str:
    """As its record says; a record that cannot be read is this run's trouble, not the sweep's."""
    try:
        return record.status(run.folder)
    except (record.RecordError, OSError):
        return "unreadable"


def _child(run: Run, threads: int, peak: tuple[float, str] | None) -> None:
    """The body of a run's own process: what it prints lands in its folder, and it ends with its parent."""
    from ..compose.explain import explain
    from ..job.execute import execute

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        log = os.open(run.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        execute(run, peak=peak)
    except (record.RecordError, OSError) as error:
        print(explain(error), file=sys.stderr, flush=True)
        os._exit(NOT_RUN)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(4)


def _look(active: Active) -> int:
    """Steps taken since the last look, read off the tail of the run's metrics."""
    try:
        with open(active.run.folder / record.METRICS, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        if line.endswith("}") and '"split": "train"' in line and line.startswith("{"):
            row = json.loads(line)
            moved, active.step = row["step"] - active.step, row["step"]
            loss = "nan" if row["loss"] is None else f"{row['loss']:.3f}"
            steps = active.run.settings.steps
            active.news = f"{active.run.title} step {row['step']}/{steps} loss {loss} {row['tokens_per_s'] / 1000:.1f}k tok/s"
            return max(0, moved)
    return 0


def _ending(active: Active, timeout: float | None) -> str:
    """One line on how a run ended; one that left no word of its own gets a summary here."""
    active.process.join()
    code, seconds = active.process.exitcode, time.monotonic() - active.since
    try:
        if code == NOT_RUN:
            log = active.run.folder / "log.txt"
            return f"{active.run.title}: not run: {log.read_text().splitlines()[-1] if log.is_file() else 'see above'}"
        if code != 0:
            late = timeout is not None and seconds > timeout
            _write_failure(active, f"still going after {timeout:g} s" if late else _cause(code))
        summary = record.read_json(active.run.folder / record.SUMMARY)
    except (record.RecordError, OSError) as error:
        return f"{active.run.title}: {error}"
    value = summary["metrics"].get("val_bits_per_byte")
    loss, accuracy = (summary["metrics"].get(key) or math.nan for key in ("val_loss", "val_accuracy"))
    what = f"{value:.3f} bits/byte" if value is not None else f"loss {loss:.3f}, accuracy {accuracy:.3f}"
    what = what if summary["status"] == "done" else summary["error"]
    return f"{active.run.title}: {summary['status']}, {what} ({seconds:.0f} s)"


def _write_failure(active: Active, cause: str) -> None:
    """For a process that was ended from outside; a result that it had already written stays."""
    from ..job.execute import write_config

    with record.claim(active.run.folder):
        if record.status(active.run.folder) not in record.ENDED:
            write_config(active.run)  # it may have died before it could
            failed = {"status": "failed", "error": f"the process was ended: {cause}", "metrics": {}, "cost": {}}
            record.write_json(active.run.folder / record.SUMMARY, {"identity": active.run.identity, **failed})


def _cause(code: int | None) -> str:
    if code == -9:
        return "killed by signal 9; out of memory?"
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
