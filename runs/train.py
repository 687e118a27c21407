"""Train one run, or sweep many.

python -m runs.train ffn=moe mixer=gqa                      one run
python -m runs.train model=gpt2 size=nano train.steps=200   a published model's blocks, at a small size
python -m runs.train stack="3*mamba2, gqa" position=none    layers that differ
python -m runs.train -m ffn=dense,moe norm=layernorm,rmsnorm seed=0,1,2 study.name=mine     a grid
python -m runs.train -m study=demo                          the arms of a study

The same command again does what is left: done runs stay, cut-off runs go on, failed ones are tried again. What a command would
train and cost is said by python -m runs.check with the same words.
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("start it as a module, from the top of the repository: python -m runs.train")
if __name__ == "__main__":
    from .usage import answer_help

    answer_help(__doc__, composes=True)  # before torch is imported

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

from .build.errors import ConfigError
from .command import collect, guarded
from .compose.explain import explain
from .compose.match import of_seconds, told
from .job import record
from .job.run import Run


def main() -> int:
    """Check every point before the first is trained, then run them: one in this process, many as a sweep. An exit code."""
    command = collect()
    total = command.total
    if total == 1 and command.refused:
        raise command.refused[0]
    for error in command.refused:
        refuse(error)
    runs = ready(command.runs, alone=total == 1)
    for line in told(runs):
        print(line)
    if any(map(of_seconds, runs)):
        from .sweep.pace import paced

        runs = ready(paced(runs, sweep, refuse), alone=total == 1)
    if any(run.study.tuning for run in runs):
        from .sweep.tune import tuned

        runs = ready(tuned(runs, sweep, refuse), alone=total == 1)
    if not runs:
        return 1
    statuses = single(runs[0]) if total == 1 else sweep(runs)
    good = sum(status in record.ENDED for status in statuses)
    print(f"{good} of {total} runs done; report: python -m analysis.report {runs[0].folder.parent}")
    return 0 if good == total else 1


def refuse(error: ConfigError) -> None:
    print(f"refused: {error}", file=sys.stderr)


def ready(runs: Sequence[Run], alone: bool) -> list[Run]:
    """Those that can be trained here, their records mended; a line says why the others cannot. alone: it is raised instead."""
    from .job.check import check_here, refuse_other_data
    from .job.start import load_data

    found: list[Run] = []
    checked = set()  # arms: what can be known of one holds for all its seeds
    for run in runs:
        try:
            with contextlib.suppress(record.RecordError):  # another process is in the folder
                for line in record.mend(run.folder):
                    print(line, file=sys.stderr)
            if record.status(run.folder) in record.ENDED or run.arm_hash in checked:
                refuse_other_data(run, load_data(run))  # where nothing is left to train, it must be this run still
            else:
                check_here(run)
                checked.add(run.arm_hash)
            found.append(run)
        except (ValueError, OSError, record.RecordError) as error:
            if alone:
                raise
            refuse(ConfigError(f"{run.title}: {explain(error)}"))
    return found


def single(run: Run) -> list[str]:
    from tqdm import tqdm

    from .job.execute import execute

    with tqdm(total=run.settings.steps, unit="step", disable=None) as bar:

        def watch(row: dict[str, Any]) -> None:
            bar.update(row["step"] - bar.n)
            if row["split"] == "train":
                bar.set_postfix_str(f"loss {row['loss']:.3f} {row['tokens_per_s'] / 1000:.1f}k tok/s")

        summary = execute(run, watch)
    print(f"{run.folder}: {summary['status']}", summary["error"] or "")
    for key, value in {**summary["metrics"], **summary["cost"]}.items():
        print(f"  {key:20} {value:,.4g}" if isinstance(value, (int, float)) else f"  {key:20} {value}")
    time_in_turns([run])
    return [summary["status"]]


def sweep(runs: list[Run]) -> list[str]:
    from .sweep.launcher import launch

    study = runs[0].folder.parent
    asked = {run.folder.name: {"arm": run.label or run.name, "seed": run.seed, "steps": run.settings.steps} for run in runs}
    record.write_plan(study, asked)
    print(f"{len(runs)} runs; from another shell: python -m analysis.watch {study}", flush=True)
    statuses = launch(runs, slots=runs[0].study.slots, timeout=runs[0].study.timeout)
    time_in_turns(runs)
    return statuses


def time_in_turns(runs: Sequence[Run]) -> None:
    if (turns := runs[0].study.timing) is not None:
        from .sweep.timing import timed

        timed(runs, turns)


if __name__ == "__main__":
    sys.exit(guarded(main))
