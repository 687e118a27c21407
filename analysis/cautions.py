"""The caveats of a study in sentences: how large chance is, what is missing, and what the arms do not share."""

from __future__ import annotations

import math

import pandas as pd

from analysis.comparison import Comparison, non_causal_arms, short_names
from analysis.digits import count, delta, fixed, listed
from analysis.fairness import CONDITIONS, thread_counts
from analysis.verdict import too_few


def cautions(study: Comparison, jitter: float = math.nan) -> list[str]:
    """The caveats of the numbers. jitter: how far a result moves from one evaluation to the next (``checkpoint_noise``)."""
    names, table, sentences = short_names(study), study.differences, list(study.asked_before)
    seeds, compared = len(study.seeds), int((table["n"] > 1).sum())
    for wanted in study.runs["baseline"].dropna().unique():
        base = study.runs[study.runs["arm"] == study.baseline]
        if wanted not in (study.baseline, *base["given_name"]):
            sentences.append(
                f"The study names {wanted} as its baseline, and no arm is called so: {study.baseline} stands for it."
            )
    sentences += _chance(study, jitter)
    if too_few(seeds, study.needed):
        sentences.append(f"{too_few(seeds, study.needed)}.")
    if compared >= 20:
        sentences.append(f"Of {compared} intervals at 95 %, about {round(0.05 * compared)} leave zero out by chance alone.")
    uneven = table.loc[table["total_params_percent"].abs() > 1, "arm"]
    if len(uneven):
        sentences.append(f"Not at equal parameters: {listed([names[arm] for arm in uneven])}.")
    for status in ("diverged", "failed", "unfinished"):
        ended = study.arms.loc[study.arms[status] > 0, status]
        if len(ended):
            sentences.append(
                f"{count(int(ended.sum()), 'run')} {status}, in {listed([names[str(arm)] for arm in ended.index])}."
            )
    refused = table.loc[table["reading"] == "refused", "arm"]
    if len(refused):
        sentences.append(f"Refused, since data or budget differ: {listed([names[arm] for arm in refused])}.")
    ahead = [names[arm] for arm in non_causal_arms(study)]
    if ahead:
        sentences.append(f"\u2020 sees later tokens, so it is no language model: {listed(ahead)}.")
    if study.set_aside:
        what = count(len(study.set_aside), "run")
        sentences.append(f"{what} set aside, since the record is damaged: the numbers are those of the others only.")
    return sentences + _unshared(study, names) + _machines(study.runs)


def _chance(study: Comparison, jitter: float) -> list[str]:
    """How large chance is here: over seeds, checkpoints, and arms of one config."""
    table, sentences = study.differences, []
    if study.noise["df"]:
        sd, df = fixed(study.noise["sd"], study.decimals), study.noise["df"]
        sentences.append(f"The seed alone moves a run by {sd} (pooled sd, {df} degrees of freedom).")
    if math.isfinite(jitter):
        moved = fixed(jitter, study.decimals)
        sentences.append(f"From one of its last evaluations to the next a run moves by {moved}, beside its trend.")
    together = table["correlation"].dropna()
    if len(together):
        ends = list(dict.fromkeys(fixed(value, 2) for value in (together.min(), together.max())))
        sentences.append(
            f"Over seeds, an arm moves with the baseline: correlation {' to '.join(ends)}; the nearer to 1, the more the "
            "pairing gains."
        )
    if math.isfinite(study.chance):
        sentences.append(f"Guessing reaches an accuracy of {fixed(study.chance, study.decimals)}.")
    for pair in study.noise["twins"]:
        sentences.append(f"{pair['twin']} is {pair['arm']} once more: {delta(pair, study.decimals)} of pure noise.")
    return sentences


def _unshared(study: Comparison, names: dict[str, str]) -> list[str]:
    """What the arms do not share with the baseline though results may depend on it; machines have sentences of their own."""
    sentences, table = [], study.differences
    for condition in CONDITIONS:
        found = table[table["caution"].str.contains(f"different {condition.what} (", regex=False)]
        if len(found) and condition.column not in ("device", "threads"):
            example = next(part for part in found["caution"].iloc[0].split("; ") if f"different {condition.what} (" in part)
            sentences.append(f"With care: {listed([names[arm] for arm in found['arm']])}, {example}.")
    return sentences


def _machines(runs: pd.DataFrame) -> list[str]:
    """What it means where the runs were not all made alike."""
    sentences, threads = [], thread_counts(runs)
    if len(threads) > 1:
        sentences.append(
            f"Not all sessions had the same number of threads ({', '.join(threads)}): results of equal seeds differ by "
            "rounding, and speeds are compared only where it was the same."
        )
    if runs["device"].dropna().nunique() > 1:
        sentences.append("The runs come from different devices: speeds are compared only where it was the same.")
    return sentences
