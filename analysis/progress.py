"""How far the runs of a study are, read off their files while they run: nothing is locked, asked or waited for."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.kinds import printable
from runs.job.record import CONFIG, ENDED, METRICS, PLAN, SUMMARY, RecordError, read_json, status

TAIL = 2**16  # bytes at the end of the metrics in which the last row of training is looked for
QUIET = 120.0  # seconds without a row, from which a run that has not ended counts as stopped, or
ROWS = 10  # as many times as its rows take


@dataclass(frozen=True)
class Standing:
    """state: waiting, running, stopped (begun, not ended, and nothing moves), done, diverged, failed or unreadable.

    left: seconds until it ends, where it runs; silent: since it last wrote anything.
    """

    run: str
    arm: str
    seed: int
    state: str
    step: int
    steps: int
    loss: float | None = None
    tokens_per_s: float | None = None
    left: float | None = None
    silent: float | None = None
    why: str = ""


def standings(study: Path) -> list[Standing]:
    """All runs that were asked for or have begun, in the order in which they were asked for.

    Raises: RecordError: no run lies there.
    """
    asked = planned(study)
    begun = (
        sorted(entry.name for entry in os.scandir(study) if (study / entry.name / CONFIG).is_file()) if study.is_dir() else []
    )
    found = [standing(study / name, asked.get(name)) for name in dict.fromkeys([*asked, *begun])]
    if not found:
        raise RecordError(f"{study}: no run was asked for here; runs leave their records in runs/out/<study>/")
    return found


def planned(study: Path) -> dict[str, dict[str, Any]]:
    try:
        return dict(read_json(study / PLAN)["runs"])
    except (RecordError, OSError, KeyError):
        return {}


def standing(folder: Path, asked: dict[str, Any] | None) -> Standing:
    """Of one run; whatever its files say, this does not fail."""
    try:
        if asked is None:
            config = read_json(folder / CONFIG)
            asked = {"arm": config["label"], "seed": config["seed"], "steps": config["train"]["steps"]}
        known: dict[str, Any] = {"run": printable(folder.name), "arm": printable(asked["arm"]), "seed": int(asked["seed"])}
        steps, (before, row) = int(asked["steps"]), last_rows(folder / METRICS)
        known |= {"steps": steps, "step": row.get("step", 0), "loss": row.get("loss"), "tokens_per_s": row.get("tokens_per_s")}
        state = status(folder)
        if state != "unfinished":
            error = read_json(folder / SUMMARY).get("error")
            return Standing(state=state, why=printable(error) if error else "", **known)
        if not (folder / CONFIG).is_file():
            return Standing(state="waiting", **known)
        written = max((folder / name).stat().st_mtime for name in (CONFIG, METRICS) if (folder / name).exists())
        silent = max(0.0, time.time() - written)
        left = (steps - row["step"]) * row["step_ms"] / 1000 if row else None
        between = row.get("seconds", 0) - before.get("seconds", 0)
        running = silent < (max(QUIET, ROWS * between) if row else ROWS * QUIET)
        return Standing(state="running" if running else "stopped", left=left if running else None, silent=silent, **known)
    except (RecordError, OSError, ValueError, KeyError, TypeError) as error:
        arm, seed = (asked or {}).get("arm", folder.name), (asked or {}).get("seed", 0)
        return Standing(printable(folder.name), printable(str(arm)), seed, "unreadable", 0, 0, why=printable(str(error)))


def last_rows(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last two of training, as far as they were written whole; empty where there is none."""
    try:
        with open(file, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return {}, {}
    found = [json.loads(line) for line in lines if line.startswith("{") and '"split": "train"' in line and line.endswith("}")]
    before, last = [{}, {}, *found][-2:]
    return before, last


def ended(found: list[Standing]) -> bool:
    return all(one.state in (*ENDED, "failed") for one in found)
