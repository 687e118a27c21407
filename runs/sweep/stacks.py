"""Stacks: runs of a sweep that one process trains at once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace

from ..job.run import Run

NOT_RUN = 3  # exit code of a process that could not use its folder, or one of its folders
ALONE = 5  # of one whose runs cannot be trained at once
FREE = ("lr", "weight_decay")  # arguments of an optimiser in which the runs of a stack may differ


def stacks(runs: Sequence[Run]) -> list[list[Run]]:
    """What one process trains: runs of one kind, up to train.stack of them and about as many in each, in the order of the
    first ones."""
    kinds: dict[object, list[Run]] = {}
    for i, run in enumerate(runs):
        kinds.setdefault(kind(run) if run.machine.stack > 1 else i, []).append(run)
    found = []
    for alike in kinds.values():
        n = -(-len(alike) // alike[0].machine.stack)
        found += [alike[i::n] for i in range(n)]
    return found


def kind(run: Run) -> tuple[str, str, str]:
    """What runs have in common that can be trained at once: all but seed and rates."""
    optim = {key: 0.0 if key in FREE else value for key, value in run.optim.items()}
    return run.out, run.study.name, replace(run, optim=optim, identity="").arm_hash


def train_stack(runs: Sequence[Run], peak: tuple[float, str] | None) -> None:
    """The body of a stack's process. What it prints lands in the log of the first run, which those of the others name."""
    from ..compose.explain import explain
    from ..job.together import execute_together, obstacle

    why = obstacle(runs)
    if why is not None:
        print(why, flush=True)
        os._exit(ALONE)
    for run in runs[1:]:
        note(run, f"trained at once with others, see {runs[0].folder.name}/log.txt")
    ends = zip(runs, execute_together(runs, peak), strict=True)
    errors = [(run, end) for run, end in ends if isinstance(end, Exception)]
    for run, error in errors:
        note(run, explain(error))
    if errors:
        os._exit(NOT_RUN)


def note(run: Run, line: str) -> None:
    """In the log of a run."""
    with contextlib.suppress(OSError):  # its folder may be the trouble
        run.folder.mkdir(parents=True, exist_ok=True)
        with open(run.folder / "log.txt", "a", encoding="utf-8") as log:
            print(line, file=log)


def last_words(run: Run) -> str:
    """Of its log."""
    log = run.folder / "log.txt"
    return log.read_text(errors="replace").splitlines()[-1] if log.is_file() else "see above"
