"""The findings of a study in sentences."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.comparison import Comparison, short_names
from analysis.digits import count, delta, fixed, listed, share, si, signed, times
from analysis.metric import Metric
from analysis.speed import told


def findings(study: Comparison, effects: pd.DataFrame | None = None) -> list[str]:
    """What was explored, as sentences; every number in them stands in the tables too. effects: what each axis does, in a grid.
    Registered claims have sentences of their own (``answer``)."""
    metric, table = study.metric, study.explored
    seeds, base = len(study.seeds), study.arms.to_dict("index")[study.baseline]
    name = "The baseline" if study.baseline == "baseline" else f"The baseline ({study.baseline})"
    spread = (
        f", with a standard deviation of {fixed(base['sd'], study.decimals)} over seeds" if math.isfinite(base["sd"]) else ""
    )
    sentences = [
        f"{count(len(study.arms), 'arm')}, {count(seeds, 'seed')}, {study.arms['train.steps'].max():.0f} steps "
        f"({si(base['tokens'])} tokens) each.",
        f"{name} reaches {_value(fixed(base['mean'], study.decimals), metric)}{spread}.",
    ]
    sentences += of_tuning(study)
    fair = table[(table["reading"] != "refused") & (table["n"] > 0) & ~table["ahead"].astype(bool)]
    better, worse = (fair[fair["kind"] == kind] for kind in ("good", "bad"))
    unclear, waiting = fair[fair["verdict"] == "inconclusive"], fair[fair["verdict"].isna()]
    if len(better):
        sentences.append(_against_baseline(better.to_dict("records")[0], study))
    elif len(fair) > len(waiting):
        sentences.append("No arm is better than the baseline by its verdict.")
    if effects is not None and len(effects):
        sentences += of_axes(study, effects)
        sentences.append(
            f"Of {count(len(fair), 'arm')}, {len(better)} did better and {len(worse)} worse than the baseline by their "
            f"verdicts; {len(unclear)} cannot be distinguished from it, and {len(waiting)} have too few seeds to say."
        )
        return sentences
    good, bad = ("Lower", "Higher") if metric.lower_is_better else ("Higher", "Lower")
    for rows, beginning in (
        (better.iloc[1:], f"{good} as well"),
        (worse.iloc[::-1], f"{bad}, that is worse"),
        (unclear, "Not distinguishable from the baseline"),
    ):
        if len(rows):
            sentences.append(f"{beginning}: {_with_numbers(rows, study)}.")
    if len(waiting):
        sentences.append(f"Measured, without a verdict yet ({study.needed} seeds needed): {_with_intervals(waiting, study)}.")
    return sentences


def of_tuning(study: Comparison) -> list[str]:
    """What finding the learning rates has cost, and which arm suffers most from a wrong one; nothing where none was sought."""
    if study.tuning is None:
        return []
    arms, names = study.tuning.arms, short_names(study)
    told = f"Each arm's learning rate was found first, in {count(study.tuning.trials, 'trial')}"
    told += f": {share(study.tuning.share)} of all training FLOPs" if math.isfinite(study.tuning.share) else ""
    known = arms.dropna(subset="sensitivity").sort_values(["diverged", "sensitivity"], kind="stable").to_dict("records")
    if len(known) > 1:
        most, least = ((names.get(row["arm"], row["arm"]), fixed(row["sensitivity"])) for row in (known[-1], known[0]))
        lost = int(known[-1]["diverged"])
        told += f"; {most[0]} minds it most ({most[1]} nats above its best in the mean over the rates that all arms tried"
        told += f", and {count(lost, 'rate')} diverged" if lost else ""
        told += f"), {least[0]} least ({least[1]})"
    others = study.tuning.others
    left_out = f"{count(others, 'trial')} of other data, budgets or blocks {'is' if others == 1 else 'are'} not counted."
    return [f"{told}."] + [left_out] * bool(others)


def of_axes(study: Comparison, effects: pd.DataFrame) -> list[str]:
    """What each option of a grid does, and which of two change each other's effect."""
    known, lost = effects[effects["n"] > 0], effects[effects["n"] == 0]
    main, pairs = known[known["other_axis"].isna()], known[known["other_axis"].notna()]
    swaps = [f"{row['level']} for {row['base']} {delta(row, study.decimals)}" for row in main.to_dict("records")]
    sentences = [f"Axis by axis, all else the same: {'; '.join(swaps)}."] if swaps else []
    decided = pairs[pairs["verdict"].isin(["lower", "higher"])]
    sentences += [matters_more(study, row) for row in decided.to_dict("records")]
    if len(pairs) and decided.empty:
        sentences.append(f"No two options change each other's effect by their verdicts ({count(len(pairs), 'pair')}).")
    if len(lost):
        sentences.append(f"{count(len(lost), 'effect')} cannot be told from others in this part of a grid, and has no number.")
    return sentences


def matters_more(study: Comparison, row: dict[Any, Any]) -> str:
    """Whether the one swap does more beside the other one: "Under post_norm, rmsnorm for layernorm does -0.020, ..."."""
    there, here = row["effect_there"], row["effect_there"] - row["difference"]
    swap = f"{row['level']} for {row['base']}"
    if not math.isfinite(there):
        return f"Beside {row['other_level']}, {swap} does {delta(row, study.decimals)} more than beside {row['other_base']}."
    return (
        f"Beside {row['other_level']}, {swap} does {signed(there, study.decimals)}, and {signed(here, study.decimals)} beside "
        f"{row['other_base']}: {delta(row, study.decimals)} apart, so it matters {'more' if abs(there) > abs(here) else 'less'}"
        f"{'' if there * here > 0 else ', and with another sign'}."
    )


def _against_baseline(row: dict[Any, Any], study: Comparison) -> str:
    direction = "lower" if row["difference"] < 0 else "higher"
    ends = sorted((abs(row["low"]), abs(row["high"])))
    mean, low, high = (fixed(value, study.decimals) for value in (abs(row["difference"]), *ends))
    size = (
        f"{mean} {direction} in accuracy"
        if study.metric.column == "val_accuracy"
        else f"{mean} {study.metric.unit} {direction}"
    )
    return f"Against the baseline, {short_names(study)[row['arm']]} is {size} [{low}, {high}]{_at_cost(row)}."


def _at_cost(row: dict[Any, Any]) -> str:
    """ " at 0.62x [0.60, 0.64] the speed ..." for the ratios that may be stated: of a speed, those of arms timed in turns."""
    total, active = 1 + row["total_params_percent"] / 100, 1 + row["active_params_percent"] / 100
    ratios = [("parameters", total)] + ([("active ones", active)] if active != total else [])
    costs = [f"{told(row)} the speed"] if math.isfinite(row["speed_low"]) else []
    cost = listed(costs + [f"{times(ratio)} the {what}" for what, ratio in ratios if math.isfinite(ratio)])
    return f" at {cost}" if cost else ""


def _with_numbers(rows: pd.DataFrame, study: Comparison) -> str:
    names = short_names(study)
    return listed(
        [f"{names[arm]} ({signed(d, study.decimals)})" for arm, d in zip(rows["arm"], rows["difference"], strict=True)]
    )


def _with_intervals(rows: pd.DataFrame, study: Comparison) -> str:
    """The first with its costs: it heads the table."""
    names, lines = short_names(study), rows.to_dict("records")
    texts = [f"{names[row['arm']]} {delta(row, study.decimals)}" for row in lines]
    return listed([texts[0] + _at_cost(lines[0]), *texts[1:]])


def _value(number: str, metric: Metric) -> str:
    return f"an accuracy of {number}" if metric.column == "val_accuracy" else f"{number} {metric.unit}"
