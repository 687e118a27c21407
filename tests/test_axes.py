"""Main effects and interactions of a grid: found as they were planted, and never where the runs do not tell them apart."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import load, report
from analysis.axes import axis_effects
from analysis.comparison import Comparison, compare
from analysis.digits import MINUS
from analysis.findings import findings
from tests import records

AXES = {"norm": ["layernorm", "rmsnorm"], "block": ["pre_norm", "post_norm", "sandwich"], "position": ["learned", "rotary"]}
PLANTED = {"rmsnorm": -0.01, "post_norm": 0.05, "sandwich": 0.02, "rotary": -0.1, "rmsnorm post_norm": -0.03}


def value(cell: tuple[str, ...], seed: int) -> float:
    pairs = [f"{one} {two}" for one, two in itertools.combinations(cell, 2)]
    noise = random.Random(f"{cell} {seed}").gauss(0, 0.001)
    return 2.0 + 0.02 * seed + sum(PLANTED.get(name, 0.0) for name in (*cell, *pairs)) + noise


def write(out: Path, cells: list[tuple[str, ...]], seeds: int) -> Path:
    for cell, seed in itertools.product(cells, range(seeds)):
        content = records.config(None, seed, dict(zip(AXES, cell, strict=True)), label=", ".join(cell))
        folder = out / "grid" / f"{'-'.join(cell)}-{seed}"
        records.write_run(folder, content, records.summary(val_bits_per_byte=value(cell, seed)), [])
    return out / "grid"


def effects(study: Comparison) -> pd.DataFrame:
    return axis_effects(study).assign(other=lambda table: table["other_level"].fillna("")).set_index(["level", "other"])


FULL = list(itertools.product(*AXES.values()))
BASE = ", ".join(FULL[0])


def test_a_full_grid_gives_what_was_planted(tmp_path: Path) -> None:
    table = effects(compare(load(write(tmp_path, FULL, 9)), BASE))
    assert len(table) == 4 + 5 and (table["n"] == 9).all()
    # averaged over three blocks, one of which adds -0.03
    wanted = {("rmsnorm", ""): -0.02, ("post_norm", ""): 0.035, ("sandwich", ""): 0.02, ("rotary", ""): -0.1}
    wanted |= {("rmsnorm", "post_norm"): -0.03, ("rmsnorm", "sandwich"): 0.0, ("post_norm", "rotary"): 0.0}
    pair = ("rmsnorm", "post_norm") if ("rmsnorm", "post_norm") in table.index else ("post_norm", "rmsnorm")
    for (level, other), effect in wanted.items():
        found = table.loc[(level, other) if (level, other) in table.index else (other, level)]
        assert found["difference"] == pytest.approx(effect, abs=0.003)
    assert table.loc[pair, "verdict"] == "lower"
    unplanted = [at for at in table.index if at[1] and at != pair]
    assert table.loc[unplanted, "verdict"].tolist() == ["inconclusive"] * 4


def test_interactions_are_the_plain_differences_of_differences(tmp_path: Path) -> None:
    cells = [cell for cell in FULL if cell[1] != "sandwich"]
    runs = load(write(tmp_path, cells, 3))
    table = effects(compare(runs, BASE))
    by_seed = []
    for seed in range(3):
        y = {cell: value(cell, seed) for cell in cells}
        gap = {
            (block, position): y["rmsnorm", block, position] - y["layernorm", block, position]
            for block in ("pre_norm", "post_norm")
            for position in AXES["position"]
        }
        by_seed.append(np.mean([gap["post_norm", p] - gap["pre_norm", p] for p in AXES["position"]]))
    found = table.loc[("rmsnorm", "post_norm")]
    assert found["difference"] == pytest.approx(np.mean(by_seed))
    half = 4.302653 * np.std(by_seed, ddof=1) / np.sqrt(3)
    assert (found["low"], found["high"]) == pytest.approx((np.mean(by_seed) - half, np.mean(by_seed) + half))


def test_a_sentence_says_whether_one_matters_more_beside_the_other(tmp_path: Path) -> None:
    cells = [cell for cell in FULL if cell[1] != "sandwich"]
    study = compare(load(write(tmp_path, cells, 9)), BASE)
    text = " ".join(findings(study, axis_effects(study)))
    assert f"Beside post_norm, rmsnorm for layernorm does {MINUS}0.0399, and {MINUS}0.0095" in text
    assert "apart, so it matters more." in text and "rotary" in text
    page, _ = report.build(tmp_path / "grid", BASE)
    assert "post_norm, not pre_norm" in page.read_text()
    found = json.loads(page.with_name("verdicts.json").read_text())["axes"]
    assert {row["verdict"] for row in found if row["other_level"] == "post_norm"} == {"lower"}


def test_a_fraction_of_a_grid_says_what_it_cannot_tell_apart(tmp_path: Path) -> None:
    """Half of 2 x 2 x 2: each option looks the same as the other two together."""
    cells = [cell for cell in FULL if cell[1] != "sandwich"]
    half = [cell for cell in cells if sum(level in ("rmsnorm", "post_norm", "rotary") for level in cell) % 2 == 0]
    study = compare(load(write(tmp_path, half, 7)), BASE)
    table = effects(study)
    assert (table["n"] == 0).all() and table["difference"].isna().all() and table["verdict"].isna().all()
    assert table.loc[("rmsnorm", ""), "aliases"] in ("post_norm with rotary", "rotary with post_norm")
    assert "6 effects cannot be told from others in this part of a grid" in " ".join(findings(study, axis_effects(study)))
    page, _ = report.build(tmp_path / "grid", BASE)
    text = page.read_text()
    assert (
        "these runs cannot tell it from" in text and '<td class="left">all settings</td>' in text and "nan, not nan" not in text
    )


def test_a_grid_with_a_hole_still_tells_its_effects_apart(tmp_path: Path) -> None:
    table = effects(compare(load(write(tmp_path, FULL[:-1], 9)), BASE))
    assert (table["n"] == 9).all() and table.loc[("rotary", ""), "difference"] == pytest.approx(-0.1, abs=0.003)


def test_an_option_that_only_some_runs_read_is_no_axis(tmp_path: Path) -> None:
    runs = load(write(tmp_path, FULL, 2))
    runs["router"] = runs["router"].where(runs["norm"] == "rmsnorm", None)
    assert set(axis_effects(compare(runs, BASE))["axis"]) == {"norm", "block", "position"}
