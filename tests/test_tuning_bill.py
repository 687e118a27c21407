"""The bill of tuning: what the trials of a study say of its arms' learning rates, and what they cost."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import plots_tuning, read, report, tuning
from analysis.comparison import compare
from analysis.findings import of_tuning
from analysis.terminal import terminal_table
from runs.job.record import TRIALS
from runs.sweep.tune import LR
from tests import records

RATES = [0.0005 * 2**i for i in range(6)]
BEST = {"baseline": 0.002, "moe": 0.004}
STEP = 16 * 256  # tokens


def loss(arm: str, rate: float, seed: int) -> float:
    """A valley, the same for each arm but for its place and how steep it is."""
    steep = {"baseline": 0.01, "moe": 0.03}.get(arm, 0.01)
    return 1.4 + steep * math.log2(rate / BEST.get(arm, 0.002)) ** 2 + 0.001 * seed


def trial(out: Path, arm: str, rate: float, seed: int, *, lost: bool = False, steps: int = 100, **changes: object) -> Path:
    content = records.config(
        arm, seed, records.ARMS[arm].choices, study=f"demo{TRIALS}", label=f"{arm}{LR}{rate:g}", steps=steps
    )
    content["optim"]["lr"] = rate
    done = steps // 2 if lost else steps
    row = {"step": done, "split": "val", "loss": 2.0, "tokens": done * STEP, "seconds": done / 10, "flops": done * 1e10}
    summary = records.summary("diverged" if lost else "done", val_loss=None if lost else loss(arm, rate, seed))
    folder = out / f"demo{TRIALS}" / f"{arm}-{rate:g}-s{seed}-{steps}"
    records.write_run(folder, content | changes, summary, [row])
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two arms, each tuned by the same rates; the larger ones diverge for moe with one of the two seeds."""
    arms = {arm: records.ARMS[arm] for arm in ("baseline", "moe")}
    folder = records.write_study(tmp_path, arms=arms, seeds=(0, 1, 2))
    for run in folder.iterdir():
        arm = run.name.split("-")[0]
        records.change(run, "config.json", optim={"lr": 1.1 * BEST[arm], "betas": [0.9, 0.95]})
    for arm in arms:
        for rate in RATES:
            for seed in (100, 101):
                trial(tmp_path, arm, rate, seed, lost=arm == "moe" and rate > 0.01 and seed == 101, steps=400)
    return tmp_path


def bill(out: Path) -> tuning.Bill | None:
    trials, _ = tuning.read_trials(out / "demo")
    assert trials is not None
    return tuning.bill(read(out / "demo"), trials)


def test_words_that_the_trials_are_known_by() -> None:
    assert tuning.OF_TRIAL.fullmatch(f"a, lr 3{LR}0.001")[1] == "a, lr 3"  # type: ignore[index]


def test_the_bill_holds_grid_choice_sensitivity_and_cost(out: Path) -> None:
    found = bill(out)
    assert found is not None and found.others == 0
    arms = found.arms.set_index("arm")
    for arm in ("baseline", "moe"):
        trained = [rate for rate in RATES if arm == "baseline" or rate < 0.01]
        grid = found.grid[found.grid["arm"] == arm].set_index("rate")["loss"]
        assert grid[trained].tolist() == pytest.approx(
            [np.mean([loss(arm, rate, seed) for seed in (100, 101)]) for rate in trained]
        )
        assert arms.loc[arm, "sensitivity"] == pytest.approx(np.mean([grid[rate] - grid[BEST[arm]] for rate in trained]))
        assert arms.loc[arm, "chosen"] == pytest.approx(1.1 * BEST[arm]) and arms.loc[arm, "trials"] == 12
    assert np.isinf(found.grid.set_index(["arm", "rate"]).loc[("moe", RATES[-1]), "loss"])
    assert arms["diverged"].tolist() == [0, 1]
    assert arms["tokens"].tolist() == [12 * 400 * STEP, (11 * 400 + 200) * STEP]  # a diverged run stopped at half
    spent = float(arms["flops"].sum())
    whole = float(read(out / "demo").curves.groupby("run")["flops"].max().sum())
    assert found.share == pytest.approx(spent / (spent + whole))


def test_sensitivity_is_over_the_rates_that_every_arm_has_tried(out: Path) -> None:
    before = bill(out)
    trial(out, "baseline", 0.064, 100, steps=400)  # a grid that has grown, where the loss is high
    after = bill(out)
    assert before is not None and after is not None
    assert after.arms["sensitivity"].tolist() == before.arms["sensitivity"].tolist()
    assert after.arms["rates"].tolist() == [7, 6] and after.trials == before.trials + 1


def test_trials_of_another_budget_are_not_counted_and_arms_that_no_rate_trained_are(out: Path) -> None:
    trial(out, "baseline", 0.002, 100, steps=300)
    for rate in RATES:
        trial(out, "gqa", rate, 100, lost=True)
    found = bill(out)
    assert found is not None and found.others == 1 and found.trials == 24 + 6
    gqa = found.arms.set_index("arm").loc["gqa"]
    assert math.isnan(gqa["chosen"]) and math.isinf(gqa["best"]) and math.isnan(gqa["sensitivity"]) and gqa["diverged"] == 6
    page, study = report.build(out / "demo")
    assert "1 trial of other data, budgets or blocks is not counted." in page.read_text()
    assert "gqa" not in terminal_table(study)


def test_page_terminal_and_file_tell_it(out: Path) -> None:
    page, study = report.build(out / "demo")
    text, content = page.read_text(), json.loads(page.with_name("verdicts.json").read_text())
    told = content["tuning"]
    assert told["trials"] == 24 and {row["arm"]: row["chosen"] for row in told["arms"]} == pytest.approx(
        {"baseline": 0.0022, "moe": 0.0044}
    )
    assert [row["loss"] for row in told["grid"]].count(None) == 1  # inf, which JSON has not
    percent = f"{100 * told['share']:.0f} %"
    assert f"found first, in 24 trials: {percent} of all training FLOPs; moe minds it most" in text
    assert 'id="bill"' in text and "1 rate diverged" in text and 'href="figures/rates.png"' in text
    assert f"tuning: 24 trials, {percent} of all training FLOPs; optim.lr baseline 0.0022 and moe 0.0044" in terminal_table(
        study
    )


def test_the_csv_of_the_rates_is_what_is_plotted(out: Path) -> None:
    drawing = plots_tuning.rates(report.build(out / "demo")[1])
    assert drawing is not None
    data = pd.read_csv(out / "demo" / "report" / "figures" / "rates.csv")
    drawn = [np.column_stack(line.get_data()).astype(float) for line in drawing.figure.axes[0].get_lines()]
    for _, line in data[np.isfinite(data["loss"])].groupby("arm"):
        wanted = line[["rate", "loss"]].to_numpy(float)
        assert any(one.shape == wanted.shape and np.allclose(one, wanted) for one in drawn)
        assert any(len(one) == 1 and one[0, 0] == pytest.approx(line["chosen"].iloc[0]) for one in drawn)


def test_nothing_is_said_where_nothing_was_tuned(out: Path) -> None:
    shutil.rmtree(out / f"demo{TRIALS}")
    page, study = report.build(out / "demo")
    assert study.tuning is None and of_tuning(study) == [] and "tuning:" not in terminal_table(study)
    assert json.loads(page.with_name("verdicts.json").read_text())["tuning"] is None
    assert not {"tuning", "bill"} & set(page.read_text().split('"')) and not list(page.parent.glob("figures/rates*"))


def test_a_study_whose_name_ends_like_one_of_trials_is_no_bill(out: Path) -> None:
    shutil.rmtree(out / f"demo{TRIALS}")
    records.write_study(out, name=f"demo{TRIALS}", arms={"baseline": records.Arm()}, seeds=(0,))
    assert report.build(out / "demo")[1].tuning is None


def test_a_damaged_trial_is_set_aside_and_the_page_stands(out: Path) -> None:
    trials = sorted((out / f"demo{TRIALS}").iterdir())
    (trials[0] / "metrics.jsonl").write_text("{")
    page, study = report.build(out / "demo")
    assert study.tuning is not None and study.tuning.trials == 23
    assert any(run == trials[0].name for run, _ in study.set_aside) and trials[0].name in page.read_text()
    for folder in trials:
        (folder / "env.json").write_text("")
    _, study = report.build(out / "demo")
    assert study.tuning is None and "no whole record among 24" in study.set_aside[-1].reason


@pytest.mark.parametrize("rate", ["=1+1", [1], -1, 1e99])
def test_whatever_stands_where_a_rate_should_is_no_rate_or_a_number(out: Path, rate: object) -> None:
    chosen = random.Random(0).choice(sorted((out / f"demo{TRIALS}").iterdir()))
    for folder in (chosen, next((out / "demo").glob("moe-s0-*"))):
        records.change(folder, "config.json", optim={"lr": rate})
    page, study = report.build(out / "demo")
    assert study.tuning is not None and study.tuning.trials in (23, 24) and page.is_file()


def test_names_that_are_markup_are_text(out: Path) -> None:
    for folder in (out / f"demo{TRIALS}").glob("moe-*"):
        content = json.loads((folder / "config.json").read_text())
        records.change(folder, "config.json", label=content["label"].replace("moe", records.HOSTILE[0]))
    page, _ = report.build(out / "demo")
    assert records.HOSTILE[0] not in page.read_text() and "&lt;script&gt;document.title" in page.read_text()


def test_a_study_alone_has_no_trials(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "baseline", 0, 2.0).parent
    assert tuning.read_trials(folder) == (None, []) and compare(read(folder).runs).tuning is None
