"""Comparisons over the table of runs: spread over seeds, same-seed differences, noise floor, Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis.load import SetAside
from analysis.verdict import decide, seeds_needed, too_few
from runs.job.record import SPEEDS, STATUSES, RecordError

MATCHED = ("total_params", "active_params", "flops_per_token", "state_bytes")  # what a fair arm holds equal with its baseline
CONFIDENCE = 0.95


class Metric(NamedTuple):
    """A result: its column among the runs, its column in the curves, and its name and unit in text."""

    column: str
    curve: str
    name: str
    unit: str
    lower_is_better: bool


METRICS = (
    Metric("val_bits_per_byte", "bits_per_byte", "validation bits per byte", "bits per byte", True),
    Metric("val_accuracy", "accuracy", "validation accuracy", "accuracy", False),
    Metric("val_loss", "loss", "validation loss", "nats per token", True),
)
MASKED_TOKENS = Metric("val_loss", "loss", "validation loss on masked tokens", "nats per masked token", True)


@dataclass(frozen=True)
class Comparison:
    """A study's arms side by side. arms: a row per arm; pairs: a row per arm and seed; differences: a row per other arm;
    set_aside: the runs that none of these holds, since their records are damaged."""

    runs: pd.DataFrame
    metric: Metric
    baseline: str
    arms: pd.DataFrame
    pairs: pd.DataFrame
    differences: pd.DataFrame
    noise: dict[str, Any]
    set_aside: Sequence[SetAside]

    @property
    def needed(self) -> int:
        """Seeds for a verdict, where so many arms are compared."""
        return seeds_needed(int(self.differences["p"].notna().sum()))

    @property
    def decimals(self) -> int:
        """Decimals of a result: two digits of the seed noise."""
        sd = self.noise["sd"]
        return min(5, max(2, round(-math.log10(sd)) + 1)) if sd > 0 else 3


def compare(runs: pd.DataFrame, baseline: str | None = None, set_aside: Sequence[SetAside] = ()) -> Comparison:
    """The comparison of one study from its table of runs; ``baseline`` names an arm, None: as the study's config has it."""
    studies = sorted(runs["study"].unique())
    if len(studies) > 1:
        raise RecordError(f"{len(studies)} studies lie here ({', '.join(studies)}): name the folder of one of them")
    metric = choose_metric(runs)
    chosen = choose_baseline(runs, baseline)
    arms = summarise(runs, metric)
    pairs = same_seed_pairs(runs, metric, chosen)
    differences = paired_differences(runs, pairs, arms, metric, chosen)
    return Comparison(runs, metric, chosen, arms, pairs, differences, noise_floor(runs, metric), set_aside)


def short_names(study: Comparison) -> dict[str, str]:
    """A name for each arm beside its baseline: in a grid, only the options that differ ("moe + rotary"), else its own name.

    A dagger marks an arm that sees later tokens where the baseline does not.
    """
    base, arms = study.baseline.split(", "), [str(arm) for arm in study.arms.index]
    names = {arm: arm for arm in arms}
    if len(base) > 1 and all(len(arm.split(", ")) == len(base) for arm in arms):
        parts = {arm: [part for part, default in zip(arm.split(", "), base, strict=True) if part != default] for arm in arms}
        short = {arm: " + ".join(differing) or "baseline" for arm, differing in parts.items()}
        names = short if len(set(short.values())) == len(arms) else names
    ahead = non_causal_arms(study)
    return {arm: f"{name} †" if arm in ahead else name for arm, name in names.items()}


def non_causal_arms(study: Comparison) -> list[str]:
    """The arms that see later tokens where the baseline does not, and so cannot be compared with it."""
    causal = study.arms["causal"]
    return [str(arm) for arm in study.arms.index[~causal]] if causal[study.baseline] else []


def usable(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """The finished runs with a finite value."""
    return runs[(runs["status"] == "done") & np.isfinite(runs[column].astype(float))]


def choose_metric(runs: pd.DataFrame) -> Metric:
    """Bits per byte where text was modelled, the loss where tokens were masked, else accuracy (probes), else the loss."""
    masked = "objective" in runs and (runs["objective"] == "masked_lm").all()
    for metric in (MASKED_TOKENS,) if masked else METRICS:
        if metric.column in runs and len(usable(runs, metric.column)):
            return metric
    counts = ", ".join(f"{count} {status}" for status, count in runs["status"].value_counts().items())
    raise RecordError(f"no finished run with a result among {len(runs)} ({counts}): give the study's command again to continue")


def choose_baseline(runs: pd.DataFrame, wanted: str | None = None) -> str:
    """The wanted arm, else the one that the study's config names, else the one with most finished runs, the oldest first."""
    done = (runs["status"] == "done").groupby(runs["arm"], dropna=False).sum()
    started = runs["started"].astype(str).groupby(runs["arm"], dropna=False).min()
    order = sorted(done.index, key=lambda arm: (-done[arm], started[arm], arm))
    named = [str(name) for name in runs["baseline"].dropna().unique()]
    given = runs.groupby("arm", dropna=False)["given_name"].first()
    for name in [wanted] if wanted else named:
        found = [arm for arm in order if arm == name] or [arm for arm in order if given[arm] == name]
        if found:
            return str(found[0])
        if wanted:
            raise RecordError(f'no arm is called "{wanted}"; the arms are: {"; ".join(sorted(order))}')
    return str(order[0])


def summarise(runs: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Per arm, best first: mean, sd and n over seeds, how its runs ended, mean costs, mean and sd of the speeds."""
    arm = runs["arm"]
    good = usable(runs, metric.column)
    table = good.groupby("arm", dropna=False)[metric.column].agg(["mean", "std", "count"])
    table = table.set_axis(["mean", "sd", "n"], axis=1).reindex(arm.unique())
    table["n"] = table["n"].fillna(0).astype(int)
    for status in STATUSES:
        table[status] = (runs["status"] == status).groupby(arm, dropna=False).sum()
    table = table.join(runs.groupby("arm", dropna=False)[[*MATCHED, "train_flops", "tokens", "train.steps"]].mean())
    speeds = runs[runs["status"] == "done"].groupby("arm", dropna=False)[list(SPEEDS)]
    table = table.join(speeds.mean()).join(speeds.std().add_suffix("_sd"))
    table["causal"] = ~(runs["causal"] == False).groupby(arm, dropna=False).any()  # noqa: E712 (None is neither)
    return table.sort_values("mean", ascending=metric.lower_is_better, kind="stable", na_position="last")


def same_seed_pairs(runs: pd.DataFrame, metric: Metric, baseline: str) -> pd.DataFrame:
    """One row per arm and seed that both the arm and the baseline finished: value, baseline_value, difference, refused.

    ``refused`` is the reason why the two numbers must not be subtracted (other data, other budget), empty where they may.
    """
    budget = {"data_sha256": "data", "data": "data", "train.steps": "steps", "tokens": "training tokens"}
    if metric.column == "val_loss":
        budget["tokenizer"] = "tokenizer"
    columns = [column for column in budget if column in runs]
    good = usable(runs, metric.column)[["arm", "seed", metric.column, *columns]].rename(columns={metric.column: "value"})
    good = good.drop_duplicates(["arm", "seed"], keep="last")
    base = good[good["arm"] == baseline].drop(columns="arm").add_prefix("baseline_").rename(columns={"baseline_seed": "seed"})
    pairs = good[good["arm"] != baseline].merge(base, on="seed")
    refused = pd.Series("", index=pairs.index, dtype=object)
    for column in columns:
        mine, theirs = pairs[column], pairs[f"baseline_{column}"]
        for row in pairs.index[(mine != theirs) & ~(mine.isna() & theirs.isna()) & (refused == "")]:
            refused[row] = f"different {budget[column]} ({_as_text(mine[row])}, baseline {_as_text(theirs[row])})"
    pairs = pairs.assign(difference=pairs["value"] - pairs["baseline_value"], refused=refused)
    return pairs[["arm", "seed", "value", "baseline_value", "difference", "refused"]]


def paired_differences(
    runs: pd.DataFrame, pairs: pd.DataFrame, arms: pd.DataFrame, metric: Metric, baseline: str
) -> pd.DataFrame:
    """One row per other arm: mean same-seed difference, its t interval, exact sign-flip p, verdict, and the costs beside it."""
    rows = []
    base, machines = arms.to_dict("index")[baseline], speed_conditions(runs)
    for arm, costs in arms.drop(index=baseline).to_dict("index").items():
        mine = pairs[pairs["arm"] == arm]
        reasons = [reason for reason in mine["refused"] if reason]
        values = np.array([]) if reasons else mine["difference"].to_numpy(float)
        mean, low, high = t_interval(values)
        row: dict[str, Any] = {"arm": arm, "n": len(values), "difference": mean, "low": low, "high": high}
        row |= {"sd": values.std(ddof=1) if len(values) > 1 else math.nan, "p": sign_flip_p(values)}
        row["refused"] = reasons[0] if reasons else ""
        row["reading"] = _reading(row)
        row["ahead"] = bool(base["causal"]) and not costs["causal"]
        row |= {f"{cost}_percent": 100 * (_ratio(costs[cost], base[cost]) - 1) for cost in MATCHED}
        row |= {f"{cost}_ratio": _ratio(costs[cost], base[cost]) for cost in ("tokens_per_s", "peak_memory_bytes")}
        if not comparable_speeds(machines, str(arm), baseline):
            row["tokens_per_s_ratio"] = math.nan
        rows.append(row)
    names = ["arm", "n", "difference", "low", "high", "sd", "p", "refused", "reading", "ahead"]
    names += [f"{cost}_percent" for cost in MATCHED] + ["tokens_per_s_ratio", "peak_memory_bytes_ratio"]
    table = decide(pd.DataFrame(rows, columns=names), lower_is_better=metric.lower_is_better)
    table.loc[table["ahead"].astype(bool), ["verdict", "kind"]] = [None, "open"]
    needed, by_arm = seeds_needed(int(table["p"].notna().sum())), dict(iter(runs.groupby("arm", dropna=False)))
    table["note"] = [_note(row, by_arm[row["arm"]], needed) for row in table.to_dict("records")]
    return table.sort_values("difference", ascending=metric.lower_is_better, kind="stable", ignore_index=True)


def speed_conditions(runs: pd.DataFrame) -> dict[str, set[tuple[Any, Any]]]:
    """arm -> (device, threads) of its finished runs: what a speed depends on beside the model."""
    done = runs[runs["status"] == "done"]
    found: dict[str, set[tuple[Any, Any]]] = {}
    for arm, device, threads in zip(done["arm"], done["device"], done["threads"], strict=True):
        found.setdefault(arm, set()).add((device, threads))
    return found


def thread_counts(runs: pd.DataFrame) -> list[str]:
    """The numbers of threads that all sessions of these runs had."""
    return sorted({count for counts in runs["threads"].dropna() for count in counts.split(", ")}, key=int)


def comparable_speeds(conditions: dict[str, set[tuple[Any, Any]]], *arms: str) -> bool:
    """Whether the runs of these arms had one device and one number of threads, from beginning to end."""
    found = set().union(*(conditions.get(arm, set()) for arm in arms))
    return len(found) == 1 and not any(pd.isna(threads) or "," in threads for _, threads in found)


def t_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval, mean +- t(n - 1) sd / sqrt(n); no interval from fewer than two values."""
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


def welch_interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Mean of the second minus mean of the first, and its 95 % interval where seeds are not shared (Welch's)."""
    difference = float(np.mean(second) - np.mean(first))
    if min(len(first), len(second)) < 2:
        return difference, math.nan, math.nan
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
    if not sum(parts):
        return difference, difference, difference
    df = sum(parts) ** 2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, df)) * math.sqrt(sum(parts))
    return difference, difference - half, difference + half


def sign_flip_p(differences: np.ndarray) -> float:
    """Exact two-sided p: the share of the 2^n sign patterns whose sum is at least as far from zero as the observed one.

    Counted through the sums of two halves, so that 40 seeds take a second; nan for none and for more.
    """
    n = len(differences)
    if not 0 < n <= 40:
        return math.nan
    left, right = (_signed_sums(half) for half in (differences[: n // 2], differences[n // 2 :]))
    right = np.sort(right)
    observed = abs(float(np.sum(differences))) * (1 - 1e-12) - 1e-15  # a tie counts, whatever the rounding
    below = np.searchsorted(right, -observed - left, side="right")
    above = len(right) - np.searchsorted(right, observed - left, side="left")
    return min(1.0, float(np.sum(below + above)) / 2**n)


def _signed_sums(values: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def pareto_front(cost: pd.Series[float], result: pd.Series[float], *, lower_cost: bool, lower_result: bool) -> pd.Series[bool]:
    """Whether nothing else is at least as good on both and better on one; a missing number is never on the front."""
    x = cost.to_numpy(float) * (1 if lower_cost else -1)
    y = result.to_numpy(float) * (1 if lower_result else -1)
    beaten = [bool(((x <= a) & (y <= b) & ((x < a) | (y < b))).any()) for a, b in zip(x, y, strict=True)]
    return pd.Series(~np.array(beaten, dtype=bool) & np.isfinite(x) & np.isfinite(y), index=cost.index)


def noise_floor(runs: pd.DataFrame, metric: Metric) -> dict[str, Any]:
    """The seed's own effect: sd pooled over arms with its degrees of freedom, and the gap between arms of one same config."""
    good = usable(runs, metric.column)
    groups = [values.to_numpy(float) for _, values in good.groupby("arm", dropna=False)[metric.column] if len(values) > 1]
    df = sum(len(values) - 1 for values in groups)
    squares = sum(float(np.var(values, ddof=1)) * (len(values) - 1) for values in groups)
    twins = []
    for _, same in good.groupby("config", dropna=False):
        for one, other in combinations(sorted(same["arm"].unique()), 2):
            a, b = (same.loc[same["arm"] == arm, metric.column].to_numpy(float) for arm in (one, other))
            difference, low, high = welch_interval(a, b)
            twins.append({"arm": one, "twin": other, "difference": difference, "low": low, "high": high})
    return {"sd": math.sqrt(squares / df) if df else math.nan, "df": df, "twins": twins}


def _reading(row: dict[str, Any]) -> str:
    if row["refused"]:
        return "refused"
    if row["high"] < 0:
        return "lower"
    return "higher" if row["low"] > 0 else "unclear"


def _note(row: dict[Any, Any], runs: pd.DataFrame, needed: int) -> str:
    """Caveats of the row, the most damaging first."""
    notes = [f"refused: {row['refused']}"] if row["refused"] else []
    if row["ahead"]:
        notes.append("sees later tokens: not comparable as a language model")
    for status in ("diverged", "failed", "unfinished"):
        count = int((runs["status"] == status).sum())
        if count:
            notes.append(
                f"{count} of {len(runs)} runs {status}" + (": the numbers are those of the others only" if row["n"] else "")
            )
    if not row["refused"] and not row["n"]:
        notes.append("no seed that both this arm and the baseline finished")
    elif not row["refused"]:
        notes.append(too_few(row["n"], needed))
    return "; ".join(filter(None, notes))


def _ratio(value: float, base: float) -> float:
    if value == base:  # 0 state bytes against 0 state bytes is no mismatch
        return 1.0
    return float(value / base) if base else math.nan


def _as_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(value)[:8] if len(str(value)) == 64 else str(value)
