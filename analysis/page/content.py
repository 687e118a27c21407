"""What the page draws, as plain data: arms, runs, learning curves, routing. Text is made here where the tables elsewhere have
the same; the page's own script does the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis import digits, speed
from analysis.comparison import Comparison, short_names
from analysis.files import plain
from analysis.load import Records, choices
from analysis.metric import MATCHED
from analysis.style import layer_names
from analysis.terminal import outcome

POINTS = 120  # of a curve: more than a screen tells apart
CELLS = 60_000  # of all heat maps together
COSTS = (  # column, head, what of it, unit, whether more is better
    ("flops_per_token", "FLOPs", "per token", "", False),
    ("total_params", "parameters", "", "", False),
    ("active_params", "active", "of a token", "", False),
    ("state_bytes", "state", "per sequence", "B", False),
    ("tokens_per_s", "tokens/s", "", "", True),
    ("mfu", "MFU", "", "", True),
    ("decode_ms", "decode", "ms per token", "", False),
    ("peak_memory_bytes", "memory", "peak", "B", False),
)
SPEEDS = ("tokens_per_s", "mfu", "decode_ms")
NOT_CONFIG = ("optim._target_", "config.run", "config.match")


def content(study: Comparison, records: Records) -> dict[str, Any]:
    """Everything that the page's script reads, in plain numbers and text; unknown numbers are null."""
    arms = [str(arm) for arm in study.arms.index]
    runs = study.runs.sort_values(["arm", "seed"], kind="stable")
    place = {run: index for index, run in enumerate(runs["run"])}
    grids: dict[tuple[int, ...], int] = {}
    return plain(
        {
            "metric": {
                "unit": study.metric.unit,
                "name": study.metric.name,
                "lower": study.metric.lower_is_better,
                "decimals": study.decimals,
            },
            "baseline": short_names(study)[study.baseline],
            "noise": study.noise["sd"],
            "chance": study.chance,
            "axes": varied(study.runs),
            "costs": costs(study),
            "timed": study.in_turns,
            "arms": of_arms(study, arms),
            "runs": of_runs(study, runs, arms),
            "curves": of_curves(study, records.curves, place, grids),
            "grids": list(grids),
            "routing": of_routing(records.routing, arms),
        }
    )


def varied(runs: pd.DataFrame) -> list[str]:
    return [axis for axis in choices(runs) if runs[axis].nunique(dropna=False) > 1]


def costs(study: Comparison) -> list[dict[str, Any]]:
    """Those that any arm has. higher: more of it is better. speed: it depends on what else the machine did."""
    known = [cost for cost in COSTS if cost[0] in study.arms and (study.arms[cost[0]].fillna(0) > 0).any()]
    return [
        {
            **dict(zip(("key", "head", "small", "unit", "higher"), cost, strict=True)),
            "speed": cost[0] in SPEEDS,
            "varies": study.arms[cost[0]].nunique() > 1,
        }
        for cost in known
    ]


def of_arms(study: Comparison, arms: list[str]) -> list[dict[str, Any]]:
    names, differences = short_names(study), {row["arm"]: row for row in study.differences.to_dict("records")}
    chosen, settings, rates = varied(study.runs), settings_of(study.runs), study.speeds.to_dict("index")
    found = []
    for arm, (_, ended), line in zip(arms, study.arms.iterrows(), study.arms.to_dict("records"), strict=True):
        row, first = differences.get(arm), study.runs[study.runs["arm"] == arm].iloc[0]
        base = arm == study.baseline
        one = {"id": arm, "name": names[arm], "base": base, "mean": line["mean"], "sd": line["sd"], "n": line["n"]}
        one |= {"choices": {axis: first[axis] for axis in chosen}, "config": settings[arm]}
        one |= {"verdict": word(row), "kind": "base" if row is None else row["kind"]}
        one |= {key: line[key] for key, *_ in COSTS if key in line}
        one["ended"] = outcome(ended)
        rate = rates[arm]
        if math.isfinite(rate["rate"]):  # as fast as it was beside the baseline, with its interval
            one |= {"tokens_per_s": rate["rate"], "around": {"tokens_per_s": [rate["rate_low"], rate["rate_high"]]}}
        if row is not None:
            one |= {key: row[key] for key in ("difference", "low", "high", "p", "p_holm", "note")}
            one["refused"] = row["reading"] == "refused"
            one["beside"] = beside(row, rate)
        found.append(one)
    return found


def word(row: dict[Any, Any] | None) -> str:
    """The verdict, or why there is none."""
    if row is None:
        return "baseline"
    if row["twin"]:
        return "A/A"
    if row["reading"] == "refused":
        return "refused"
    if row["claimed"] and row["kind"] != "open":
        return f"{'lower' if row['difference'] < 0 else 'higher'}, {row['verdict']}"
    return row["verdict"] or "too few seeds"


def beside(row: dict[Any, Any], rate: Mapping[Any, Any]) -> dict[str, str]:
    """Below a cost: its ratio to, or its mismatch with, the baseline's. Of a speed only where it was measured in turns."""
    found = {cost: digits.percent(row[f"{cost}_percent"]) for cost in MATCHED}
    found["peak_memory_bytes"] = digits.times(row["peak_memory_bytes_ratio"])
    found["tokens_per_s"] = speed.told(rate) if math.isfinite(rate["speed"]) else speed.UNFIT
    return found


def settings_of(runs: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Of every arm: what all its runs share among options and settings, where arms differ at all."""
    keys = [*choices(runs), *(name for name in runs.columns if "." in name and name not in NOT_CONFIG)]
    differing = [key for key in dict.fromkeys(keys) if runs[key].astype(str).nunique() > 1]
    return {
        str(arm): {key: _text(mine[key].iloc[0]) for key in differing if mine[key].astype(str).nunique() == 1}
        for arm, mine in runs.groupby("arm", dropna=False)
    }


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def of_runs(study: Comparison, runs: pd.DataFrame, arms: list[str]) -> list[dict[str, Any]]:
    keys = [key for key, *_ in COSTS if key in runs]
    return [
        {
            "arm": arms.index(str(run["arm"])),
            "name": run["run"],
            "seed": run["seed"],
            "status": run["status"],
            "error": run["error"] if isinstance(run["error"], str) else None,
            "metric": run[study.metric.column],
            **{key: run[key] for key in keys},
        }
        for run in runs.to_dict("records")
    ]


def of_curves(
    study: Comparison, curves: pd.DataFrame, place: dict[str, int], grids: dict[tuple[int, ...], int]
) -> list[dict[str, Any]]:
    """A run's results at its evaluations and its losses in training; the steps are shared, as are tokens and FLOPs per step."""
    held_out = study.metric.column.removeprefix("val_")
    found = []
    for (run, split), logged in curves[curves["step"] > 0].groupby(["run", "split"], sort=False):
        column = held_out if split == "val" else "loss"
        whole = logged.dropna(subset=[column])
        if whole.empty or run not in place:
            continue
        rows = whole.iloc[np.unique(np.linspace(0, len(whole) - 1, min(POINTS, len(whole))).round().astype(int))]
        last = rows.iloc[-1]
        found.append(
            {
                "run": place[run],
                "split": split,
                "grid": grids.setdefault(tuple(rows["step"].astype(int)), len(grids)),
                "y": _short(rows[column]),
                "seconds": _seconds(rows),
                "tokens": last["tokens"] / last["step"],
                "flops": last["flops"] / last["step"],
            }
        )
    return found


def _seconds(rows: pd.DataFrame) -> float | list[float]:
    """At each step; where they pass evenly, to a hundredth of them all, how many a step takes."""
    even = rows["seconds"].iloc[-1] / rows["step"].iloc[-1]
    apart = (rows["seconds"] - even * rows["step"]).abs().max()
    return float(even) if apart < 0.01 * rows["seconds"].iloc[-1] else _short(rows["seconds"], 4)


def _short(values: pd.Series, places: int = 5) -> list[float]:
    return [float(f"{value:.{places}g}") for value in values]


def of_routing(routing: pd.DataFrame, arms: list[str]) -> list[dict[str, Any]]:
    """Of the first seed of every routed arm: the loads in even shares, layer by layer, and the routers' health."""
    if routing.empty:
        return []
    first = routing[routing["seed"] == routing.groupby("arm")["seed"].transform("min")]
    first = first[first["run"] == first.groupby("arm")["run"].transform("first")]
    every = math.ceil(len(first) / CELLS)
    return [_loads(arms.index(str(arm)), mine, every) for arm, mine in first.groupby("arm", sort=False)]


def _loads(arm: int, routing: pd.DataFrame, every: int) -> dict[str, Any]:
    """Of one run, at every so many of the steps that were logged."""
    steps = np.unique(routing["step"])[::-1][::every][::-1]  # the last one is kept
    kept = routing[routing["step"].isin(steps)]
    kept = kept.assign(load=kept["share"] * kept["n_experts"])
    layers = []
    for layer, name in layer_names(kept["layer"]).items():
        loads = kept[kept["layer"] == layer].pivot(index="step", columns="expert", values="load")
        layers.append({"name": name, "load": loads.round(2).to_numpy().tolist()})
    health = kept.groupby("step")[["entropy", "dropped", "dead"]].mean()
    last = kept[kept["step"] == steps[-1]]
    shown: dict[str, Any] = {str(key): _short(health[key], 4) for key in health}
    shown |= {"arm": arm, "steps": steps.tolist(), "layers": layers}
    return shown | {"silent": int((last["load"] == 0).sum()), "experts": len(last)}
