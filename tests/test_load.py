"""Records on disk become tables, and what is broken in them is named."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import RecordError, load, load_curves, load_routing
from analysis.load import choices
from tests import records


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return records.write_study(tmp_path_factory.mktemp("out"), seeds=(0, 1))


def test_one_row_per_run_holds_result_cost_machine_and_config(study: Path) -> None:
    runs = load(study)
    assert len(runs) == 2 * len(records.ARMS)
    row = runs[(runs["arm"] == "moe") & (runs["seed"] == 1)].iloc[0]
    written = json.loads(Path(row["folder"], "summary.json").read_text())
    assert row["val_bits_per_byte"] == written["metrics"]["val_bits_per_byte"]
    assert row["total_params"] == written["cost"]["total_params"]
    assert (row["study"], row["status"], row["ffn"], row["mixer"], row["size"]) == ("demo", "done", "moe", "mha", "nano")
    assert (row["device"], row["torch"], row["data_sha256"][:6], row["causal"]) == ("cpu", "2.13.0", "a3f1c9", True)
    assert (row["train.steps"], row["tokens"], row["ffn.n_experts"]) == (400, 400 * 16 * 256, 8)


def test_lists_are_text_so_that_tables_can_be_grouped(study: Path) -> None:
    runs = load(study)
    assert runs["optim.betas"].unique().tolist() == ["[0.9, 0.95]"]
    assert len(runs.groupby(list(runs.columns), dropna=False)) == len(runs)


def test_the_path_may_be_a_study_a_folder_of_studies_or_one_run(study: Path) -> None:
    one = next(path for path in sorted(study.iterdir()) if path.name.startswith("gqa-s1"))
    records.write_study(study.parent, name="other", arms={"baseline": records.Arm()}, seeds=(0,))
    assert load(one)[["run", "arm", "seed"]].to_numpy().tolist() == [[one.name, "gqa", 1]]
    assert sorted(load(study.parent)["study"].unique()) == ["demo", "other"]


def test_an_unfinished_run_is_a_row_too(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1)
    (folder / "summary.json").unlink()
    row = load(folder).iloc[0]
    assert row["status"] == "unfinished"
    assert math.isnan(row["tokens_per_s"])


def test_an_arm_is_called_as_its_launch_has_named_it(tmp_path: Path) -> None:
    arms = records.factorial({"ffn": {"dense": 0.0, "moe": 0.0}, "position": {"learned": 0.0, "rotary": 0.0}})
    runs = load(records.write_study(tmp_path, arms=arms, seeds=(0, 1, 2), named=False))
    assert sorted(runs["arm"].unique()) == ["dense, learned", "dense, rotary", "moe, learned", "moe, rotary"]
    assert runs.groupby("arm")["seed"].apply(sorted).tolist() == [[0, 1, 2]] * 4
    assert runs["config"].nunique() == 4


def test_one_name_for_two_configs_is_split(tmp_path: Path) -> None:
    records.run(tmp_path, "moe", 0, 2.1)
    records.run(tmp_path, "moe", 1, 2.1, steps=800)
    records.run(tmp_path, "gqa", 0, 2.1)
    gqa, *moe = sorted(load(tmp_path)["arm"])
    assert gqa == "gqa" and len(set(moe)) == 2 and all(re.fullmatch(r"moe \([0-9a-f]{8}\)", name) for name in moe)


def test_how_often_a_run_was_saved_does_not_make_another_arm(tmp_path: Path) -> None:
    records.run(tmp_path, "moe", 0, 2.1)
    records.run(tmp_path, "moe", 1, 2.1, checkpoint_every=7)
    assert load(tmp_path)["arm"].unique().tolist() == ["moe"]


def test_curves_have_one_row_per_logged_step(study: Path) -> None:
    curves = load_curves(study)
    mine = curves[(curves["arm"] == "sparse") & (curves["seed"] == 0)]
    assert mine.loc[mine["split"] == "train", "step"].tolist() == list(range(20, 401, 20))
    assert mine.loc[mine["split"] == "val", "step"].tolist() == list(range(40, 401, 40))
    assert mine["tokens"].max() == 400 * 16 * 256
    final = load(study).set_index("run")["val_bits_per_byte"]
    last = curves[curves["split"] == "val"].groupby("run")["bits_per_byte"].last()
    pd.testing.assert_series_equal(last, final[last.index], check_names=False)


def test_routing_has_one_row_per_expert_and_shares_sum_to_one(study: Path) -> None:
    routing = load_routing(study)
    assert sorted(routing["arm"].unique()) == ["fine_grained_moe", "moe", "moe_sparse"]
    sums = routing.groupby(["run", "step", "layer"])["share"].agg(["sum", "count"])
    assert sums["sum"].round(9).eq(1.0).all() and sums["count"].eq(8).all()


def test_a_step_logged_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1)
    rows = [{"step": 20, "split": "train", "loss": 3.0}, {"step": 20, "split": "train", "loss": 2.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_curves(folder)["loss"].tolist() == [2.5]


def test_a_half_written_last_line_is_forgiven_only_where_a_run_was_cut_off(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1)
    (folder / "metrics.jsonl").write_text('{"step": 20, "split": "train", "loss": 3.0}\n{"step": 40, "spl')
    with pytest.raises(RecordError, match=r"metrics\.jsonl: not JSON at line 2 column 14"):
        load_curves(folder)
    (folder / "summary.json").unlink()
    assert load_curves(folder)["step"].tolist() == [20]


def test_garbage_in_the_middle_is_an_error_even_in_a_run_that_was_cut_off(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1)
    (folder / "summary.json").unlink()
    (folder / "metrics.jsonl").write_text('garbage\n{"step": 20, "split": "train", "loss": 3.0}\n')
    with pytest.raises(RecordError, match="not JSON at line 1 column 1"):
        load_curves(folder)


def test_the_error_of_a_broken_record_is_one_line_with_file_place_and_remedy(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1)
    (folder / "summary.json").write_text('{\n  "status": "done",\n  "metrics": {"val_')
    with pytest.raises(RecordError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"{folder}/summary.json: not JSON at line 3 column 15 (Unterminated string starting at); "
        f"delete the folder {folder} and give the same command again to run it anew"
    )


BROKEN = {
    "no label": ("config.json", {"label": None}, '"label" is None, text was expected'),
    "seed is text": ("config.json", {"seed": "zero"}, "\"seed\" is 'zero', a whole number was expected"),
    "study is text": ("config.json", {"study": "demo"}, '"study" is a str, an object was expected'),
    "unknown status": ("summary.json", {"status": "fine"}, "\"status\" is 'fine', one of done, failed, diverged, unfinished"),
    "metric is text": (
        "summary.json",
        {"metrics": {"val_loss": "low"}},
        "\"val_loss\" is 'low', a number or null was expected",
    ),
    "cost is a list": ("summary.json", {"cost": [1]}, '"cost" is a list, an object was expected'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_schema_says_what_was_expected(tmp_path: Path, name: str) -> None:
    file, change, message = BROKEN[name]
    folder = records.run(tmp_path, "moe", 0, 2.1)
    content = json.loads((folder / file).read_text()) | change
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(RecordError) as caught:
        load(tmp_path)
    assert message in str(caught.value) and file in str(caught.value) and "\n" not in str(caught.value)


def test_other_ways_to_be_broken(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1)
    (folder / "env.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(RecordError, match=r"env\.json: not UTF-8 at byte 0"):
        load(tmp_path)
    (folder / "env.json").write_text("[1, 2]")
    with pytest.raises(RecordError, match="line 1 holds a list, an object was expected"):
        load(tmp_path)
    (folder / "env.json").write_text("[" * 100_000)
    with pytest.raises(RecordError, match=r"env\.json: "):
        load(tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(RecordError, match=r"config\.json: missing"):
        load(tmp_path)


def test_a_routing_row_without_its_load_is_an_error(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1)
    (folder / "metrics.jsonl").write_text('{"step": 20, "split": "routing", "layer": "layers.0.ffn"}\n')
    with pytest.raises(RecordError, match='line 1 has no usable "load"'):
        load_routing(folder)


def test_a_missing_and_an_empty_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="no run has left a record"):
        load(tmp_path)


def test_reading_changes_nothing_on_disk(tmp_path: Path) -> None:
    study = records.write_study(tmp_path, arms={"moe": records.ARMS["moe"]}, seeds=(0,))
    before = {path: path.read_bytes() for path in sorted(study.rglob("*")) if path.is_file()}
    load(study), load_curves(study), load_routing(study)
    assert {path: path.read_bytes() for path in sorted(study.rglob("*")) if path.is_file()} == before


def test_missing_values_mean_the_same_with_the_strings_of_pandas_3(study: Path) -> None:
    runs = load(study)
    with pd.option_context("future.infer_string", True):
        again = load(study)
    assert again["ffn"].dtype == "str"
    assert (
        again[["arm", "config", *choices(runs)]].to_numpy().tolist()
        == runs[["arm", "config", *choices(runs)]].to_numpy().tolist()
    )


def test_analysis_needs_neither_torch_nor_hydra() -> None:
    code = """
import sys
for name in ("torch", "hydra", "omegaconf", "arch", "runs.job.run", "runs.build.objects", "pickle5"):
    sys.modules[name] = None
import analysis.load, analysis.report
assert callable(analysis.load)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
