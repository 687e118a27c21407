"""Records on disk become tables, and what is broken in them is named."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import RecordError, columns, kept, load, load_curves, load_routing, read, sorting
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
    assert row["routing_entropy"] == written["metrics"]["routing_entropy"] > 0
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
    log(folder, *map(json.dumps, rows), "")
    assert load_curves(folder)["loss"].tolist() == [2.5]


def test_steps_come_in_their_order_whatever_that_of_the_lines(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1)
    log(folder, *(json.dumps({"step": step, "split": "train", "loss": 1.0}) for step in (40, 20, 60)), "")
    assert load_curves(folder)["step"].tolist() == [20, 40, 60]


def log(folder: Path, *lines: str) -> None:
    """Other lines in metrics.jsonl, as if the run had written them."""
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    records.change(folder, "config.json")


def reason(path: Path) -> str:
    """Why the only run that cannot be read is set aside; the table without steps leaves it out as well."""
    found = read(path)
    ((run, why),) = found.set_aside
    assert run not in set(found.runs["run"]) and "\n" not in why
    return why


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A study of two runs; the second is there to be broken."""
    records.run(tmp_path, "baseline", 0, 2.0)
    return tmp_path / "demo", records.run(tmp_path, "moe", 0, 2.1)


ROW = json.dumps({"step": 20, "split": "train", "loss": 3.0})


def test_a_half_written_last_line_is_forgiven_only_where_a_run_was_cut_off(pair: tuple[Path, Path]) -> None:
    study, folder = pair
    log(folder, ROW, '{"step": 40, "spl')
    assert reason(study).startswith("metrics.jsonl: line 2: not JSON (Unterminated string starting at")
    (folder / "summary.json").unlink()
    assert load_curves(folder)["step"].tolist() == [20]


def test_garbage_in_the_middle_sets_a_run_aside_even_if_it_was_cut_off(pair: tuple[Path, Path]) -> None:
    study, folder = pair
    (folder / "summary.json").unlink()
    log(folder, "garbage", ROW, "")
    assert "metrics.jsonl: line 1: not JSON" in reason(study)
    assert load(study)["arm"].tolist() == ["baseline"]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def link(file: Path) -> None:
    file.rename(file.with_suffix(".real"))
    file.symlink_to(file.with_suffix(".real"))


DAMAGE = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": cut,
    "one bit": flip,
    "no text": lambda file: file.write_bytes(b"\xff\xfe{}"),
    "nested": lambda file: file.write_text("[" * 100_000),
    "gone": Path.unlink,
    "a link": link,
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["config.json", "env.json", "metrics.jsonl", "summary.json"])
def test_a_damaged_file_costs_one_run_and_no_more(tmp_path: Path, name: str, damage: str) -> None:
    rows = [json.loads(ROW)]
    for seed in (0, 1):
        content = records.config("moe", seed, {})
        records.write_run(tmp_path / "demo" / f"moe-{seed}", content, records.summary(val_bits_per_byte=2.0), rows)
    study, folder = tmp_path / "demo", tmp_path / "demo" / "moe-1"
    assert len(load(study)) == 2  # what is remembered of a run must not outlive it
    DAMAGE[damage](folder / name)
    if (name, damage) == ("summary.json", "gone"):
        assert load(study)["status"].tolist() == ["done", "unfinished"]
        return
    why = reason(study)
    assert name in why and str(tmp_path) not in why
    assert load(study)["seed"].tolist() == [0]


STRANGE = {
    "no label": ("config.json", {"label": None}, '"label" is None, text was expected'),
    "a label that is a list": ("config.json", {"label": ["a"]}, '"label" is a list, text was expected'),
    "seed is text": ("config.json", {"seed": "zero"}, "\"seed\" is 'zero', a whole number from 0 was expected"),
    "seed is huge": ("config.json", {"seed": 10**30}, "a whole number from 0 was expected"),
    "seed is true": ("config.json", {"seed": True}, '"seed" is True, a whole number from 0 was expected'),
    "study is text": ("config.json", {"study": "demo"}, "\"study\" is 'demo', an object was expected"),
    "baseline is a list": ("config.json", {"study": {"baseline": []}}, '"baseline" is a list, text or null was expected'),
    "steps without end": (
        "config.json",
        {"train": {"steps": 10**18, "batch_size": 16, "seq_len": 256}},
        "4,096,000,000,000,000,000,000 tokens of training, fewer than 2^63 were expected",
    ),
    "steps are missing": ("config.json", {"train": {}}, '"steps" is None, a whole number from 0 was expected'),
    "choices are numbers": ("config.json", {"choices": {"ffn": 3}}, '"ffn" is 3, text or null was expected'),
    "another version": ("config.json", {"schema": 2}, "config.json: "),
    "another run's summary": ("summary.json", {"identity": "f" * 64}, "summary.json: "),
    "unknown status": ("summary.json", {"status": "fine"}, "summary.json: "),
    "metric is text": (
        "summary.json",
        {"metrics": {"val_loss": "low"}},
        "\"val_loss\" is 'low', a number or null was expected",
    ),
    "metric is huge": ("summary.json", {"metrics": {"val_loss": 10**400}}, "a number or null was expected"),
    "metric is true": ("summary.json", {"metrics": {"val_loss": True}}, '"val_loss" is True, a number or null was expected'),
    "cost is a list": ("summary.json", {"cost": [1]}, '"cost" is a list, an object was expected'),
    "causal is text": ("summary.json", {"causal": "no"}, "\"causal\" is 'no', true, false or null was expected"),
    "error is an object": ("summary.json", {"error": {}}, '"error" is a dict, text or null was expected'),
    "device is a list": ("env.json", {"device": ["cpu"]}, '"device" is a list, text or null was expected'),
    "earlier is a number": ("env.json", {"earlier": 3}, '"earlier" is 3, a list of objects or null was expected'),
    "threads are text": ("env.json", {"threads": "2"}, "\"threads\" is '2', a whole number from 0 was expected"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_value_of_the_wrong_type_sets_its_run_aside_and_says_what_was_expected(pair: tuple[Path, Path], name: str) -> None:
    study, folder = pair
    file, change, message = STRANGE[name]
    records.change(folder, file, **change)
    why = reason(study)
    assert message in why and why.startswith(file) and len(why) < 300
    assert load(study)["arm"].tolist() == ["baseline"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": 20, "split": "routing", "layer": "layers.0.ffn"}', 'line 2: "load" is None, a list of numbers was expected'),
        ('{"step": 20, "split": "routing", "layer": 3, "load": [1.0]}', 'line 2: "layer" is 3, text was expected'),
        ('{"step": 20.5, "split": "val"}', 'line 2: "step" is 20.5, a whole number from 0 was expected'),
        ('{"step": 20, "split": "val", "loss": "low"}', "line 2: \"loss\" is 'low', a number or null was expected"),
        ('{"step": 20, "split": "val", "loss": NaN}', 'line 2: "loss" is nan, a number or null was expected'),
        ('{"step": 20, "split": "val", "loss": 1e999}', 'line 2: "loss" is inf, a number or null was expected'),
        ('{"step": 20, "split": "val", "loss": 1%s}' % ("0" * 5000), "line 2: not JSON"),
        ("[20]", "line 2 holds a list, an object was expected"),
        ("[" * 100_000, "line 2: nested too deeply"),
    ],
)
def test_a_strange_row_sets_its_run_aside(pair: tuple[Path, Path], line: str, message: str) -> None:
    log(pair[1], ROW, line, ROW)
    assert reason(pair[0]).startswith(f"metrics.jsonl: {message}")


def test_numbers_that_json_does_not_have_set_their_run_aside(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    study, folder = pair
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda content, **words: dumps(content, **words | {"allow_nan": True}))
    for value in (math.nan, math.inf):
        records.change(folder, "summary.json", metrics={"val_bits_per_byte": value})
        assert reason(study).startswith("summary.json: ")


def test_a_clock_that_goes_backwards_harms_nothing(pair: tuple[Path, Path]) -> None:
    study, folder = pair
    records.change(folder, "env.json", started="1969-12-31T23:59:59")
    lines = [{"step": step, "split": "val", "loss": 1.0, "seconds": -step} for step in (20, 40)]
    log(folder, *map(json.dumps, lines))
    assert load_curves(study)["seconds"].tolist() == [-20.0, -40.0]


def test_a_copied_run_counts_once(pair: tuple[Path, Path]) -> None:
    study, folder = pair
    shutil.copytree(folder, study / "the_same")
    assert reason(study) == f"a copy of {folder.name}, and a run counts once; delete one of the two"
    assert sorted(load(study)["arm"]) == ["baseline", "moe"]


def test_a_run_of_another_study_does_not_count(pair: tuple[Path, Path]) -> None:
    study, folder = pair
    records.run(study.parent, "gqa", 0, 2.2)
    records.change(folder, "config.json", study={"name": "other"})
    assert reason(study) == "of study other, not demo as the others"
    assert sorted(load(study)["arm"]) == ["baseline", "gqa"]


def test_odd_text_becomes_one_printable_line(pair: tuple[Path, Path]) -> None:
    study, folder = pair
    records.change(folder, "config.json", label="a\nb\x00c\ud800d\u202ee")
    assert load(study)["arm"].tolist() == ["baseline", "a b\ufffdc\ufffdd\ufffde"]


def test_a_folder_keeps_its_name_however_odd(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1).rename(tmp_path / "demo" / "a\u200bb")
    assert load(tmp_path)[["run", "folder"]].to_numpy().tolist() == [["a\ufffdb", str(folder)]]


def test_an_error_only_where_no_run_is_whole(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1)
    (folder / "config.json").write_text("{")
    for function in (load, read):
        with pytest.raises(
            RecordError, match=rf"no whole record among 1; the first is {folder.name}, config\.json: "
        ) as caught:
            function(tmp_path)
        assert "\n" not in str(caught.value)


def test_all_sessions_of_a_run_tell_their_threads(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1)
    assert load(tmp_path)["threads"].tolist() == ["2"]
    records.change(folder, "env.json", threads=1, earlier=[{"threads": 16}, {"threads": 1}, {}])
    assert load(tmp_path)["threads"].tolist() == ["1, 16"]


def test_what_has_changed_is_read_anew(tmp_path: Path) -> None:
    folder = records.run(tmp_path, "moe", 0, 2.1)
    for value in (2.1, 2.2, 2.3):  # at once: faster than the clock of the disk
        records.change(folder, "summary.json", metrics={"val_bits_per_byte": value})
        assert load(tmp_path)["val_bits_per_byte"].tolist() == [value]


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


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study large enough to be kept, whose files have not changed for a while."""
    monkeypatch.setenv("ARCHLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "FEWEST", 12)
    for number in range(12):
        records.run(tmp_path, "baseline" if number % 2 else "moe", number // 2, number / 100)
    monkeypatch.setattr(kept, "COARSE", 0)
    return tmp_path / "demo"


def read_now(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose records are read from here on."""
    found: list[str] = []
    reader = sorting.read_run
    monkeypatch.setattr(
        sorting, "read_run", lambda folder, steps: found.append(Path(folder).name) or reader(folder, steps=steps)
    )
    return found


def test_a_kept_table_is_the_one_that_was_read(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(many)
    again = read_now(monkeypatch)
    pd.testing.assert_frame_equal(load(many), first)
    assert again == [] and len(list((many.parent / "cache").iterdir())) == 1
    assert load(many)["optim.betas"].tolist() == first["optim.betas"].tolist()


def test_of_a_kept_table_only_what_has_changed_is_read(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = sorted(many.iterdir())
    load(many)
    again = read_now(monkeypatch)
    new = records.run(many.parent, "gqa", 7, 9.0)
    shutil.rmtree(folders[3])
    records.change(folders[5], "env.json", threads=4)
    (folders[8] / "config.json").write_text("{")
    runs = load(many)
    assert sorted(again) == sorted([new.name, folders[5].name, folders[8].name])
    assert runs["run"].tolist() == sorted({*(folder.name for folder in folders), new.name} - {folders[3].name, folders[8].name})
    assert runs.set_index("run").loc[folders[5].name, "threads"] == "4"
    monkeypatch.setenv("ARCHLAB_CACHE", str(many.parent / "another"))
    pd.testing.assert_frame_equal(load(many), runs)


def test_a_cache_that_is_damaged_or_cannot_be_written_costs_time_alone(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(many)
    (file,) = (many.parent / "cache").iterdir()
    for content in ("", "[]", '{"lists": {"state": [1]}, "shared": {}, "names": ["gone"]}', '{"lists": [], "names": 3}'):
        file.write_text(content)
        pd.testing.assert_frame_equal(load(many), first)
    shutil.rmtree(file.parent)
    file.parent.write_text("no folder")
    pd.testing.assert_frame_equal(load(many), first)


def test_rows_become_columns_of_the_type_that_their_values_have() -> None:
    rows = [{"a": 1, "b": True, "d": "x", "e": 0.5}, {"a": 1, "b": 1, "c": None, "d": "x", "e": 0.5, "f": 2}]
    found = columns.table(columns.by_column(rows, ["d"]))
    assert list(found) == ["d", "a", "b", "e", "c", "f"]
    assert found.dtypes.astype(str).tolist() == ["object", "int64", "object", "float64", "object", "float64"]
    assert found.loc[0, "b"] is True and found["c"].tolist() == [None, None]
