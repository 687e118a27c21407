"""The speeds of a study's arms, once its runs have ended: the first seed of every arm beside each other, then the second."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Sequence
from itertools import zip_longest

from ..job import record
from ..job.run import Run
from .launcher import as_child, status_of


def timed(runs: Sequence[Run], turns: int) -> None:
    """Time every run that is done, a process for each seed, and nothing else meanwhile. What was timed together before stays.

    A process that fails leaves its runs without speeds, and says so; the same command tries again.
    """
    rounds = [[run for run in group if run and status_of(run) == "done"] for group in zip_longest(*by_arm(runs))]
    left = [group for group in rounds if group and not is_timed(group, turns)]
    context = multiprocessing.get_context("forkserver")
    for number, group in enumerate(left, start=1):
        begun, first = time.monotonic(), group[0].title
        told = f"{len(group)} runs beside {first}" if len(group) > 1 else first
        process = context.Process(target=_child, args=(group, turns))
        process.start()
        try:
            process.join()
        finally:
            process.kill()
            process.join()
        if process.exitcode:
            print(f"not timed: {told} (exit code {process.exitcode})", file=sys.stderr)
        else:
            seconds = time.monotonic() - begun
            print(
                f"[{number}/{len(left)}] timed in turns: {told} ({seconds:.0f} s)",
                flush=True,
            )


def by_arm(runs: Sequence[Run]) -> list[list[Run]]:
    """Each arm's runs, in the order of their seeds."""
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(run.label or run.name, []).append(run)
    return list(arms.values())


def is_timed(runs: Sequence[Run], turns: int) -> bool:
    """Whether these runs, and no others beside them, have speeds of one session of so many turns."""
    try:
        found = [record.read_json(run.folder / record.TIMING) for run in runs]
    except (record.RecordError, OSError):
        return False
    wanted = (sorted(run.identity for run in runs), turns, found[0].get("session"))
    return all((sorted(one.get("beside", ())), one.get("turns"), one.get("session")) == wanted for one in found)


def _child(runs: Sequence[Run], turns: int) -> None:
    from ..compose.explain import explain
    from ..job.timing import time_in_turns
    from ..training.device import cores

    as_child(threads=cores())
    try:
        time_in_turns(runs, turns)
    except Exception as error:
        sys.exit(f"{runs[0].folder.parent}: {explain(error)}")
