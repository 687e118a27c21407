"""Train one run, or sweep many.

python -m runs.train ffn=moe mixer=gqa                      one run
python -m runs.train -m ffn=dense,moe norm=layernorm,rmsnorm seed=0,1,2 study.name=mine     a grid
python -m runs.train -m study=demo                          the arms of a study

The same command again does what is left: done runs stay, cut-off runs go on, failed ones are tried again.
"""

from __future__ import annotations

import sys
from typing import Any

from .build.errors import ConfigError
from .command import collect, guarded
from .compose.explain import explain
from .job import record


def main() -> int:
    """Check every point before the first is trained, then run them: one in this process, many as a sweep. An exit code."""
    from .job.check import check

    asked = collect()
    total = len(asked.points) + len(asked.refused)
    if total == 1 and asked.refused:
        raise asked.refused[0]
    points = []
    for point in asked.points:
        try:
            check(point)
            points.append(point)
        except (ValueError, OSError, record.RecordError) as error:
            if total == 1:
                raise
            asked.refused.append(ConfigError(f"{record.arm_name(point)} seed {point['seed']}: {explain(error)}"))
    for refusal in asked.refused:
        print(f"refused: {refusal}", file=sys.stderr)
    if not points:
        return 1
    statuses = single(points[0]) if total == 1 else sweep(points)
    good = sum(status in ("done", "diverged") for status in statuses)
    print(f"{good} of {total} runs done; report: python -m analysis.report {record.folder(points[0]).parent}")
    return 0 if good == total else 1


def single(config: dict[str, Any]) -> list[str]:
    from tqdm import tqdm

    from .job.job import run

    with tqdm(total=config["train"]["steps"], unit="step", disable=None) as bar:

        def watch(row: dict[str, Any]) -> None:
            bar.update(row["step"] - bar.n)
            if row["split"] == "train":
                bar.set_postfix_str(f"loss {row['loss']:.3f} {row['tokens_per_s'] / 1000:.1f}k tok/s")

        summary = run(config, watch)
    print(f"{record.folder(config)}: {summary['status']}", summary["error"] or "")
    for key, value in {**summary["metrics"], **summary["cost"]}.items():
        print(f"  {key:20} {value:,.4g}" if isinstance(value, (int, float)) else f"  {key:20} {value}")
    return [summary["status"]]


def sweep(points: list[dict[str, Any]]) -> list[str]:
    from .sweep.launcher import launch

    study = points[0]["study"]
    return launch(points, slots=study["slots"], timeout=study["timeout"])


if __name__ == "__main__":
    sys.exit(guarded(main))
