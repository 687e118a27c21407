"""python -m analysis.watch runs/out/<study>: what a sweep is doing, from another shell or another machine."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analysis.digits import fixed, listed, si
from analysis.progress import Standing, ended, standings
from runs.job.record import RecordError

STYLES = {"done": "green", "running": "bold", "failed": "bold red", "diverged": "red", "stopped": "yellow", "waiting": "dim"}
EVERY = 2.0  # seconds


def table(found: list[Standing]) -> Table:
    """A row for each arm, a column for each seed, and what a cell cannot say below."""
    seeds = sorted({one.seed for one in found})
    shown = Table(box=None, pad_edge=False, header_style="bold", caption=Text("\n".join(told(found))), caption_justify="left")
    shown.add_column("arm", overflow="fold")
    for seed in seeds:
        shown.add_column(f"seed {seed}", justify="right", no_wrap=True)
    shown.add_column("tokens/s", justify="right")
    of_arm: dict[str, dict[int, Standing]] = {}
    for one in found:
        of_arm.setdefault(one.arm, {})[one.seed] = one
    for arm, runs in of_arm.items():
        speeds = [one.tokens_per_s for one in runs.values() if one.state == "running" and one.tokens_per_s]
        cells = [cell(runs[seed]) if seed in runs else Text("") for seed in seeds]
        shown.add_row(Text(arm), *cells, si(sum(speeds) / len(speeds)) if speeds else "")
    return shown


def cell(one: Standing) -> Text:
    """41 % 3.127: how far, and the last loss in training; or how it ended."""
    loss = fixed(one.loss, 3) if isinstance(one.loss, float) else ""
    if one.state == "running":
        share = 100 * one.step / one.steps if one.steps else 0
        return Text(f"{share:.0f} % {loss}".strip(), STYLES["running"])
    return Text(f"{one.state} {loss}" if one.state in ("done", "stopped") and loss else one.state, STYLES.get(one.state, "red"))


def told(found: list[Standing]) -> list[str]:
    """How many are in which state, when all will have ended, and why some have failed."""
    counts = Counter(one.state for one in found)
    lines = [f"{len(found)} runs: " + listed([f"{number} {state}" for state, number in counts.most_common()], 8)]
    if (left := time_left(found)) is not None:
        lines.append(f"about {duration(left)} left")
    lines += [f"{one.run}: {one.state}, {one.why}" for one in found if one.why][:10]
    lines += [f"{one.run}: nothing written for {duration(one.silent or 0)}" for one in found if one.state == "stopped"][:10]
    return lines


def time_left(found: list[Standing]) -> float | None:
    """Seconds, if as many run at a time as now, each as fast as those that run."""
    running = [one for one in found if one.state == "running" and one.left is not None and one.steps > one.step]
    if not running:
        return None
    pace = sum((one.left or 0) / (one.steps - one.step) for one in running) / len(running)  # seconds of a step
    steps = sum(one.steps - one.step for one in found if one.state in ("running", "waiting"))
    return max(pace * steps / len(running), *(one.left or 0 for one in running))


def duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.watch",
        description="A sweep's arms and seeds as they go: how far, the loss in training, what failed, the time left. In a "
        "terminal until all have ended or Ctrl-C; elsewhere once.",
    )
    parser.add_argument("study", type=Path, help="the study's folder, runs/out/<study>; a shared folder will do")
    parser.add_argument("--once", action="store_true", help="one table, and no more")
    parsed = parser.parse_args(arguments)
    console = Console()
    try:
        found = standings(parsed.study)
        if parsed.once or not console.is_terminal:
            Console(width=max(console.width, 100)).print(table(found))
            return 0
        with Live(table(found), console=console, auto_refresh=False) as live:
            while not ended(found):
                time.sleep(EVERY)
                found = standings(parsed.study)
                live.update(table(found), refresh=True)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
