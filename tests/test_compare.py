"""The statistics, against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch
from scipy import stats

from analysis import RecordError, load
from analysis.axes import axis_effects
from analysis.cautions import cautions
from analysis.comparison import compare, pareto_front, short_names
from analysis.digits import MINUS
from analysis.findings import findings
from analysis.metric import METRICS
from analysis.noise import checkpoint_noise
from analysis.plots import forest
from analysis.sample import sign_flip_p, t_interval, welch_interval
from analysis.style import Drawing
from analysis.verdict import decide, holm, seeds_needed
from tests import records


def test_t_interval_by_hand() -> None:
    # mean 2, sd 1, n 3: t(0.975, 2) = 4.302653, so 2 +- 4.302653 / sqrt(3)
    assert t_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx((2.0, -0.484138, 4.484138), abs=1e-6)


def test_no_interval_from_one_seed_and_no_mean_from_none() -> None:
    assert t_interval(np.array([0.5]))[0] == 0.5 and math.isnan(t_interval(np.array([0.5]))[1])
    assert all(map(math.isnan, t_interval(np.array([]))))


def test_welch_interval_by_hand() -> None:
    # variances 1 and 4, three values each: 5/3 squared over (1/9 + 16/9) / 2 = 50/17 degrees of freedom
    first, second = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])
    half = stats.t.ppf(0.975, 50 / 17) * math.sqrt(5 / 3)
    assert welch_interval(first, second) == pytest.approx((2.0, 2 - half, 2 + half))
    assert welch_interval(np.ones(3), np.ones(3)) == (0.0, 0.0, 0.0)
    assert math.isnan(welch_interval(first, second[:1])[1])


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.3], 1.0),
        ([1.0, 2.0, 3.0], 2 / 8),  # only all plus and all minus reach 6
        ([4.0, 1.0, -2.0], 6 / 8),  # 3 is reached by +-7, +-3, +-5 and missed by +-1
        ([1.0, -1.0], 1.0),
        ([0.0, 0.0], 1.0),
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 2 / 64),
    ],
)
def test_sign_flip_p_by_hand(differences: list[float], p: float) -> None:
    assert sign_flip_p(np.array(differences)) == pytest.approx(p)


def test_sign_flip_p_is_the_count_over_all_patterns() -> None:
    values = np.random.default_rng(0).normal(0.4, 1.0, 9).round(1)  # rounded: ties must count
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in itertools.product((1, -1), repeat=9)]
    assert sign_flip_p(values) == pytest.approx(np.mean(np.array(sums) >= abs(values.sum()) - 1e-9))


def test_sign_flip_p_knows_its_limits() -> None:
    assert sign_flip_p(np.full(24, 0.1)) == 2 / 2**24
    assert math.isnan(sign_flip_p(np.array([]))) and sign_flip_p(np.ones(41)) == 0.0


def test_holm_by_hand() -> None:
    p = pd.Series([0.01, 0.04, math.nan, 0.03])
    assert holm(p).tolist()[:2] == pytest.approx([0.03, 0.06]) and holm(p)[3] == pytest.approx(0.06)
    assert math.isnan(holm(p)[2])


def test_pareto_front_by_hand() -> None:
    cost = pd.Series([1.0, 2.0, 3.0, 2.0, 4.0, math.nan])
    loss = pd.Series([5.0, 3.0, 3.0, 4.0, 1.0, 0.0])
    assert pareto_front(cost, loss, lower_cost=True, lower_result=True).tolist() == [True, True, False, False, True, False]
    assert pareto_front(cost, loss, lower_cost=False, lower_result=True).tolist() == [False, False, False, False, True, False]


def test_equal_arms_share_the_front() -> None:
    same = pd.Series([1.0, 1.0])
    assert pareto_front(same, same, lower_cost=True, lower_result=False).all()


def write(out: Path, table: dict[str, dict[int, float | None]]) -> pd.DataFrame:
    """arm -> seed -> value; None: that run diverged."""
    for arm, values in table.items():
        for seed, value in values.items():
            records.run(out, arm, seed, value, status="diverged" if value is None else "done")
    return load(out)


def test_pairs_are_made_by_seed_and_a_missing_seed_is_left_out(tmp_path: Path) -> None:
    runs = write(tmp_path, {"baseline": {0: 2.0, 1: 3.0, 2: 4.0}, "moe": {0: 1.5, 2: 3.7, 5: 9.0}})
    study = compare(runs)
    assert study.pairs[["seed", "difference"]].to_numpy() == pytest.approx(np.array([[0, -0.5], [2, -0.3]]))
    row = study.differences.iloc[0]
    assert (row["n"], row["difference"]) == (2, pytest.approx(-0.4))
    half = 12.706205 * 0.141421 / math.sqrt(2)  # t(0.975, 1) times sd over sqrt(n)
    assert (row["low"], row["high"]) == (pytest.approx(-0.4 - half, abs=1e-5), pytest.approx(-0.4 + half, abs=1e-5))
    assert row["note"] == "n = 2 seeds: an interval, not a verdict (6 needed)"
    assert row["reading"] == "unclear"


def test_diverged_runs_are_counted_and_named(tmp_path: Path) -> None:
    study = compare(write(tmp_path, {"baseline": {0: 2.0, 1: 2.1}, "moe": {0: 1.5, 1: None}, "hot": {0: None, 1: None}}))
    assert study.arms.loc["moe", ["n", "done", "diverged"]].tolist() == [1, 1, 1]
    assert study.arms.loc["hot", ["n", "done", "diverged"]].tolist() == [0, 0, 2]
    notes = study.differences.set_index("arm")["note"]
    assert notes["moe"].startswith("1 of 2 runs diverged: the difference counts each as the worst result of the study")
    assert notes["hot"].startswith("2 of 2 runs diverged: the difference counts each as the worst")
    found = study.differences.set_index("arm")["difference"]
    assert found["hot"] == pytest.approx(0.05) and found["moe"] == pytest.approx(-0.25)  # 2.1 for a run that has none


def test_dense_arms_survive_though_their_expert_columns_are_missing(tmp_path: Path) -> None:
    records.run(tmp_path, "baseline", 0, 2.0)
    records.run(tmp_path, "moe", 0, 1.9, choices={"ffn": "moe"})
    runs = load(tmp_path)
    assert runs.set_index("arm")["ffn.n_experts"].isna().to_dict() == {"baseline": True, "moe": False}
    runs.loc[runs["arm"] == "baseline", ["state_bytes", "peak_memory_bytes", "mfu"]] = math.nan
    study = compare(runs)
    assert sorted(study.arms.index) == ["baseline", "moe"] and study.arms["n"].tolist() == [1, 1]
    assert study.arms["mean"].tolist() == [1.9, 2.0]


def test_spread_over_seeds_and_noise_floor_by_hand(tmp_path: Path) -> None:
    study = compare(write(tmp_path, {"baseline": {0: 2.0, 1: 2.2}, "moe": {0: 1.0, 1: 1.3, 2: 1.6}, "gqa": {0: 5.0}}))
    assert study.arms.loc["moe", ["mean", "sd", "n"]].tolist() == pytest.approx([1.3, 0.3, 3])
    # squares: 0.02 with 1 degree of freedom, 0.18 with 2; one lone run has none
    assert (study.noise["sd"], study.noise["df"]) == (pytest.approx(math.sqrt(0.2 / 3)), 3)


def test_arms_of_one_config_measure_the_noise(tmp_path: Path) -> None:
    write(tmp_path, {"baseline": {0: 2.0, 1: 2.2}, "moe": {0: 1.9, 1: 2.0}})
    for seed, value in ((10, 2.1), (11, 2.5)):
        records.run(tmp_path, "again", seed, value, same_as="baseline")
    study = compare(load(tmp_path))
    (twins,) = study.noise["twins"]
    assert (twins["arm"], twins["twin"], twins["difference"]) == ("baseline", "again", pytest.approx(0.2))
    assert study.noise["band"] == (twins["low"], twins["high"]) and twins["low"] < 0.2 < twins["high"]
    control = study.differences.set_index("arm").loc["again"]
    assert control["note"] == "the baseline's own config once more: its interval is chance alone"
    assert study.needed == 6 and study.seeds == [0, 1]  # for one arm, at its seeds: the control is no claim


def test_the_band_of_chance_is_drawn_where_the_controls_say_it_is(tmp_path: Path) -> None:
    write(tmp_path, arms("moe", seeds=6))
    for seed, noise in enumerate(NOISE[:6]):
        records.run(tmp_path, "again", 10 + seed, 2.001 + noise, same_as="baseline")
    study = compare(load(tmp_path))
    drawing = forest(study)
    assert drawing is not None and "its own config once more" in drawing.caption
    low, high = study.noise["band"]
    spans = [patch.get_extents().transformed(drawing.figure.axes[0].transData.inverted()) for patch in band(drawing)]
    assert [(span.x0, span.x1) for span in spans] == [pytest.approx((low, high))] and low < 0 < high


def band(drawing: Drawing) -> list[Patch]:
    return [patch for patch in drawing.figure.axes[0].patches if patch.get_facecolor() == to_rgba("#eef1f4")]


def test_noise_between_checkpoints_by_hand() -> None:
    steady = [3.0 - 0.1 * step for step in range(6)]
    jagged = [2.0, 2.0, 2.1, 2.0, 2.1, 2.0]  # the last five bend by -0.2, 0.2, -0.2
    rows = [
        {"run": run, "status": "done", "split": "val", "step": step, "loss": value, "bits_per_byte": value}
        for run, values in (("steady", steady), ("jagged", jagged))
        for step, value in enumerate(values)
    ]
    curves = pd.DataFrame(rows)
    assert checkpoint_noise(curves, METRICS[0]) == pytest.approx(math.sqrt(3 * 0.04 / 6 / 6))
    assert checkpoint_noise(curves[curves["run"] == "steady"], METRICS[0]) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(checkpoint_noise(curves[curves["step"] < 2], METRICS[0]))


def test_the_correlation_that_pairing_gains_from(tmp_path: Path) -> None:
    study = compare(write(tmp_path, {"baseline": {0: 2.0, 1: 2.1, 2: 2.2}, "moe": {0: 1.0, 1: 1.3, 2: 1.1}}))
    assert study.differences["correlation"].tolist() == pytest.approx([np.corrcoef([2.0, 2.1, 2.2], [1.0, 1.3, 1.1])[0, 1]])
    assert any("correlation 0.33" in line for line in cautions(study))


def test_an_arm_at_the_seeds_of_the_baseline_once_more_is_a_run_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, arms("moe", seeds=6))
    for seed, noise in enumerate(NOISE[:6]):
        records.run(tmp_path, "again", seed, 2.0 + noise, same_as="baseline")
    study = compare(load(tmp_path))
    control = study.differences.set_index("arm").loc["again"]
    assert (control["n"], control["difference"], control["verdict"], control["twin"]) == (6, 0.0, None, True)
    assert study.differences.set_index("arm").loc["moe", "verdict"] == "lower"  # one claim: the control is none


NOISE = [0.00, 0.01, -0.01, 0.02, -0.02, 0.0, 0.01, -0.01, 0.0]


def arms(*names: str, seeds: int) -> dict[str, dict[int, float | None]]:
    """A baseline, and arms that are lower than it at every seed."""
    better = {name: {seed: 1.9 + 0.5 * noise for seed, noise in enumerate(NOISE[:seeds])} for name in names}
    return {"baseline": {seed: 2.0 + noise for seed, noise in enumerate(NOISE[:seeds])}, **better}


def test_six_agreeing_seeds_are_a_verdict_on_one_arm(tmp_path: Path) -> None:
    row = compare(write(tmp_path, arms("moe", seeds=6))).differences.iloc[0]
    assert (row["reading"], row["verdict"], row["kind"], row["n"], row["note"]) == ("lower", "lower", "good", 6, "")
    assert row["p"] == row["p_holm"] == 2 / 64


def test_more_arms_need_more_seeds(tmp_path: Path) -> None:
    assert [seeds_needed(claims) for claims in (0, 1, 2, 4, 8, 9, 47)] == [6, 6, 7, 8, 9, 9, 11]
    study = compare(write(tmp_path, arms("moe", "gqa", seeds=6)))
    assert study.needed == 7 and study.differences["p"].tolist() == [2 / 64] * 2
    assert study.differences["verdict"].tolist() == [None, None] and set(study.differences["kind"]) == {"open"}
    assert study.differences["note"].tolist() == ["n = 6 seeds: an interval, not a verdict (7 needed)"] * 2


def test_without_a_verdict_no_sentence_claims_one(tmp_path: Path) -> None:
    text = " ".join(findings(compare(write(tmp_path / "few", arms("moe", "gqa", seeds=6)))))
    assert "Measured, without a verdict yet (7 seeds needed): " in text and "Against the baseline" not in text
    assert f"gqa {MINUS}0.100 [{MINUS}0.107, {MINUS}0.093]" in text
    text = " ".join(findings(compare(write(tmp_path / "enough", arms("moe", "gqa", seeds=7)))))
    assert re.search(r"Against the baseline, \w+ is 0\.10\d bits per byte lower \[.*\] at .* Lower as well: \w+ \(", text)
    assert "without a verdict" not in text


def claims(draws: np.ndarray) -> pd.DataFrame:
    """A null study: what each arm (row) differs from a shared baseline (the last row), seed by seed, decided."""
    rows = []
    for values in draws[:-1] - draws[-1]:
        _, low, high = t_interval(values)
        rows.append({"n": len(values), "p": sign_flip_p(values), "low": low, "high": high})
    return decide(pd.DataFrame(rows), lower_is_better=True)


def test_studies_without_any_effect_seldom_end_with_a_verdict() -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, (200, 9, seeds_needed(8)))  # 200 studies of 8 arms and a baseline
    studies = [claims(draws) for draws in noise]
    false = sum(table["verdict"].isin(["lower", "higher"]).any() for table in studies)
    assert 0 < false <= 0.05 * len(studies)
    assert sum((table["p"] < 0.05).any() for table in studies) > 0.15 * len(studies)  # what p alone would have called


def test_eight_seeds_are_no_verdict_on_eight_arms() -> None:
    for draws in np.random.default_rng(1).normal(0, 0.02, (60, 9, 8)):
        table = claims(draws)
        assert table["verdict"].isna().all() and (table["kind"] == "open").all()


def test_the_verdict_goes_by_the_corrected_p() -> None:
    table = pd.DataFrame({"n": 9, "p": [0.004, 0.03, 0.04, 0.9], "low": -2.0, "high": [-1.0, -1.0, -1.0, 1.0]})
    decided = decide(table, lower_is_better=False)
    assert decided["p_holm"].tolist() == pytest.approx([0.016, 0.09, 0.09, 0.9])
    assert decided["verdict"].tolist() == ["lower", "inconclusive", "inconclusive", "inconclusive"]
    assert decided["kind"].tolist() == ["bad", "open", "open", "open"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"steps": 800}, "different steps (800, baseline 400)"),
        ({"batch_size": 32}, "different training tokens (3276800, baseline 1638400)"),
        ({"data_sha256": "b" * 64}, "different data (bbbbbbbb, baseline a3f1c900)"),
    ],
)
def test_other_data_or_another_budget_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    for seed in (0, 1):
        records.run(tmp_path, "baseline", seed, 2.0)
        train = {name: value for name, value in change.items() if name != "data_sha256"}
        folder = records.run(tmp_path, "moe", seed, 1.5, **train)
        records.change(folder, "env.json", **{name: value for name, value in change.items() if name not in train})
    row = compare(load(tmp_path)).differences.iloc[0]
    assert (row["reading"], row["refused"], row["n"]) == ("refused", reason, 0)
    assert math.isnan(row["difference"]) and row["note"] == f"refused: {reason}"


def test_a_loss_per_token_does_not_compare_between_tokenizers(tmp_path: Path) -> None:
    for arm, tokenizer in (("baseline", "bytes"), ("bpe", "bpe")):
        content = records.config(arm, 0, {"tokenizer": tokenizer})
        records.write_run(tmp_path / "demo" / arm, content, records.summary(val_loss=2.0), [])
    assert compare(load(tmp_path)).differences["refused"].tolist() == ["different tokenizer (bpe, baseline bytes)"]


def test_accuracy_is_the_measure_of_probes_and_higher_is_better(tmp_path: Path) -> None:
    for arm, value in (("baseline", 0.5), ("moe", 0.7)):
        for seed in range(6):
            summary = records.summary(val_accuracy=value + 0.01 * seed * (arm == "moe"), val_loss=1.0)
            records.write_run(tmp_path / "demo" / f"{arm}{seed}", records.config(arm, seed, {}), summary, [])
    study = compare(load(tmp_path))
    assert (study.metric.column, study.arms.index[0]) == ("val_accuracy", "moe")
    assert study.differences[["verdict", "kind"]].iloc[0].tolist() == ["higher", "good"]


def test_an_arm_that_sees_later_tokens_is_marked_and_never_better(tmp_path: Path) -> None:
    runs = write(tmp_path, arms("expert_choice", seeds=6))
    runs.loc[runs["arm"] == "expert_choice", "causal"] = False
    study = compare(runs)
    row = study.differences.iloc[0]
    assert (row["ahead"], row["verdict"], row["kind"], row["reading"]) == (True, None, "open", "lower")
    assert row["note"].startswith("sees later tokens") and short_names(study)["expert_choice"] == "expert_choice †"


def test_the_baseline_is_the_one_asked_for_or_named_or_the_most_common(tmp_path: Path) -> None:
    runs = write(tmp_path, {"baseline": {0: 2.0}, "moe": {0: 1.9, 1: 1.9}, "gqa": {0: 2.1}})
    assert compare(runs).baseline == "baseline"
    assert compare(runs, "gqa").baseline == "gqa"
    assert compare(runs.assign(baseline=None)).baseline == "moe"
    with pytest.raises(RecordError, match='no arm is called "gpa"; the arms are: baseline; gqa; moe'):
        compare(runs, "gpa")


def test_mismatch_is_told_in_percent_of_the_baseline(tmp_path: Path) -> None:
    runs = write(tmp_path, {"baseline": {0: 2.0}, "moe": {0: 1.9}})
    runs.loc[runs["arm"] == "moe", ["total_params", "active_params"]] = [2.1e6, 1.005e6]
    row = compare(runs).differences.iloc[0]
    assert row["total_params_percent"] == pytest.approx(110.0) and row["active_params_percent"] == pytest.approx(0.5)
    assert row["flops_per_token_percent"] == 0.0


def test_two_studies_at_once_and_no_result_at_all_are_refused(tmp_path: Path) -> None:
    runs = write(tmp_path, {"baseline": {0: None}, "moe": {0: None}})
    with pytest.raises(RecordError, match=r"no finished run with a result among 2 \(2 diverged\)"):
        compare(runs)
    records.write_study(tmp_path, name="other", arms={"baseline": records.Arm()}, seeds=(0,))
    with pytest.raises(RecordError, match=r"2 studies lie here \(demo, other\)"):
        compare(load(tmp_path))


def test_axis_effects_of_a_grid_by_hand(tmp_path: Path) -> None:
    effect = {"dense": 0.0, "moe": -0.2, "learned": 0.0, "rotary": -0.1}
    for ffn, position, seed in itertools.product(("dense", "moe"), ("learned", "rotary"), (0, 1, 2)):
        together = -0.04 * (ffn == "moe" and position == "rotary")
        value = 2.0 + effect[ffn] + effect[position] + together + 0.1 * seed + 0.01 * seed * (ffn == "moe")
        content = records.config(None, seed, {"ffn": ffn, "position": position}, label=f"{ffn}, {position}")
        records.write_run(tmp_path / "g" / f"{ffn}-{position}-{seed}", content, records.summary(val_bits_per_byte=value), [])
    study = compare(load(tmp_path), "dense, learned")
    effects = axis_effects(study)
    pair = effects[effects["other_axis"].notna()].iloc[0]
    assert (pair["level"], pair["other_level"], pair["n"], pair["difference"]) == ("moe", "rotary", 3, pytest.approx(-0.04))
    assert pair["effect_there"] == pytest.approx(-0.23)
    table = effects[effects["other_axis"].isna()].set_index("level")
    # moe: -0.2 alone, -0.24 with rotary, and 0.01 more each seed: seeds -0.22, -0.21, -0.20
    assert table.loc["moe", ["contexts", "n", "difference"]].tolist() == pytest.approx([2, 3, -0.21])
    assert table.loc["moe", "low"] == pytest.approx(-0.21 - 4.302653 * 0.01 / math.sqrt(3), abs=1e-6)
    assert table.loc["moe", ["smallest", "largest"]].tolist() == pytest.approx([-0.23, -0.19])
    assert table.loc["rotary", "difference"] == pytest.approx(-0.12)
    assert table["p_holm"].tolist() == [0.75, 0.75] and table["verdict"].isna().all() and set(table["kind"]) == {"open"}
    assert short_names(study) == {
        "dense, learned": "baseline",
        "moe, learned": "moe",
        "dense, rotary": "rotary",
        "moe, rotary": "moe + rotary",
    }


def test_one_axis_at_a_time_is_not_a_grid(tmp_path: Path) -> None:
    assert axis_effects(compare(load(records.write_study(tmp_path, seeds=(0, 1))))).empty


def test_the_baseline_is_found_by_its_given_name_and_its_absence_is_said(tmp_path: Path) -> None:
    for seed in (0, 1):
        for arm, value in (("base", 2.0), ("other", 1.9)):
            content = records.config(arm, seed, {}, label=f"{arm}, lr 0.1", lr=arm)
            content["study"]["baseline"] = "base"
            summary = records.summary(val_bits_per_byte=value + seed / 100)
            records.write_run(tmp_path / "demo" / f"{arm}{seed}", content, summary, [])
    runs = load(tmp_path)
    assert compare(runs).baseline == "base, lr 0.1"
    assert not [line for line in cautions(compare(runs)) if "as its baseline" in line]
    lost = compare(runs.assign(baseline="nobody"))
    assert any("names nobody as its baseline, and no arm is called so" in line for line in cautions(lost))


def test_speeds_are_compared_only_where_they_were_taken_in_turns(tmp_path: Path) -> None:
    runs = write(tmp_path, {"baseline": {0: 2.0, 1: 2.0}, "moe": {0: 1.9, 1: 1.9}, "gqa": {0: 2.1, 1: 2.1}})
    assert compare(runs).differences["speed"].isna().all() and not compare(runs).in_turns
    timed = runs.assign(timed=[f"session {seed}" for seed in runs["seed"]])
    assert compare(timed).differences["speed"].tolist() == [1.0, 1.0] and compare(timed).in_turns
    timed.loc[timed["arm"] == "moe", "timed"] = None
    ratios = compare(timed).differences.set_index("arm")["speed"]
    assert math.isnan(ratios["moe"]) and ratios["gqa"] == 1.0


def test_where_threads_differ_it_is_said(tmp_path: Path) -> None:
    runs = write(tmp_path, {"baseline": {0: 2.0, 1: 2.0}, "moe": {0: 1.9, 1: 1.9}, "gqa": {0: 2.1, 1: 2.1}})
    assert not [line for line in cautions(compare(runs)) if "threads" in line]
    runs.loc[runs["arm"] == "moe", "threads"] = "1"
    (caution,) = [line for line in cautions(compare(runs)) if "threads (1, 2): results of equal seeds differ" in line]
    assert "speed" not in " ".join(findings(compare(runs), None)).replace(caution, "")
