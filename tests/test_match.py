"""Equal budgets: one width of an arm is solved, and the run is the one that the same width typed by hand makes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from runs import check as door_of_check
from runs.build.errors import ConfigError
from runs.command import Command, collect
from runs.compose.match import BUDGETS, WITHIN
from runs.job.check import check
from runs.job.record import COSTS
from runs.job.run import Run
from tests.door import SMALL, runs, summary, train, write_text
from tests.lab import TINY, config, options

WORDS = ("size=micro", "train.seq_len=64", "train.device=cpu")
AS_RECORDED = dict(zip(("total_params", "active_params", "flops", "train_flops", "state_bytes"), COSTS, strict=True))


def collected(monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> Command:
    monkeypatch.setattr(sys, "argv", ["train", "-m", *words, f"out={out}"])
    return collect()


def arms(**changes: list[str]) -> tuple[str, str]:
    """A study's words: arm -> its own."""
    written = ", ".join(f"{arm}: [{', '.join(repr(word) for word in words)}]" for arm, words in changes.items())
    return f"study.arms={{{written}}}", f"study.baseline={next(iter(changes))}"


def named(command: Command) -> dict[str, Run]:
    return {run.label: run for run in command.runs}


def budget_of(run: Run, budget: str) -> float:
    """By the task that is built from the run."""
    task, seq = check(run).task, run.settings.seq_len
    if budget == "train_flops":
        return task.train_flops(seq) * run.settings.steps * run.settings.tokens
    return float(getattr(task.cost(seq), {"flops": "flops", "total_params": "params"}.get(budget, budget)))


COMPANIONS = {"mla": ["position=rotary"], "sparse": ["pattern.window=16"], "sliding_window": ["pattern.window=16"]}
COMPANIONS |= {"block_sparse": ["pattern.block=4", "pattern.n_global=4"]}
COARSE = {  # where an arm may be refused: one step of every width there is changes the budget by more than 2 %
    ("mixer", "state_bytes"): "a state of fixed size grows by whole heads and layers, and by the square of a head",
    ("router", "total_params"): "a step of d_ff widens every expert",
}
CASES = [
    ("mixer", "flops"),
    ("mixer", "state_bytes"),
    ("ffn", "active_params"),
    ("router", "total_params"),
    ("pattern", "train_flops"),
    ("position", "active_params"),
]


@pytest.mark.parametrize(("group", "budget"), CASES)
def test_every_option_comes_within_a_hundredth_of_the_baseline(
    group: str, budget: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    beside = ["ffn=moe"] if group == "router" else []
    changes = {option: [*beside, f"{group}={option}", *COMPANIONS.get(option, [])] for option in options(group)}
    command = collected(monkeypatch, tmp_path, *arms(base=[], **changes), f"match={budget}", *WORDS)
    target = budget_of(command.runs[0], budget)
    for run in command.runs:
        assert budget_of(run, budget) == pytest.approx(target, rel=WITHIN), run.match
    assert len(command.refused) <= (len(changes) // 2 if (group, budget) in COARSE else 0), command.refused
    for error in command.refused:
        said, nearest = re.findall(r"[\d,]{2,}(?= \(|" + f" {BUDGETS[budget]})", str(error))
        assert float(said.replace(",", "")) == target
        assert abs(float(nearest.replace(",", "")) / target - 1) > WITHIN


def test_what_grouped_queries_save_goes_to_the_ffn_exactly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two projections of 48 x 24 less: two matrices of 48 x 24 more."""
    command = collected(monkeypatch, tmp_path, "mixer=mha,gqa", "seed=0,1", "match=total_params", *WORDS)
    base, again, gqa, other = command.runs
    assert [run.label for run in command.runs] == ["mha", "mha", "gqa", "gqa"]  # what was solved names no arm
    assert gqa.size["d_ff"] == 192 + 24 and other.arm_hash == gqa.arm_hash and again.size["d_ff"] == 192
    assert budget_of(gqa, "total_params") == budget_of(base, "total_params")
    assert gqa.match is not None and base.match is not None
    assert gqa.match["solved"] == {"size.d_ff": 216} and not base.match["solved"]
    assert gqa.match["reached"]["total_params"] == gqa.match["target"]["total_params"] == budget_of(base, "total_params")
    assert gqa.match["reached"] == {name: budget_of(gqa, name) for name in BUDGETS}


def test_the_run_is_the_one_that_the_width_typed_by_hand_makes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = collected(monkeypatch, tmp_path, "mixer=mha,gqa", "match=flops", *WORDS)
    base, gqa = command.runs
    assert gqa.identity == config("mixer=gqa", "size.d_ff=216", *WORDS).identity
    assert base.identity == config("mixer=mha", *WORDS).identity  # that it is a baseline is no part of what it computes
    typed = collected(monkeypatch, tmp_path, *arms(a=[], b=["mixer=gqa", "size.d_ff=216"]), "match=flops", *WORDS)
    assert [run.identity for run in typed.runs] == [base.identity, gqa.identity]
    assert typed.runs[1].match is not None and not typed.runs[1].match["solved"]


def test_a_record_gives_the_run_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for run in collected(monkeypatch, tmp_path, "mixer=mha,mqa", "match=flops", *WORDS).runs:
        assert Run.from_json(json.loads(json.dumps(run.to_json())), tmp_path) == run


def test_the_same_command_comes_to_the_same_runs_and_seeds_share_a_width(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = (*arms(base=[], lstm=["mixer=lstm"], glu=["ffn=geglu", "mixer=mqa"]), "study.seeds=[0,1]", "match=flops", *WORDS)
    once, twice = (collected(monkeypatch, tmp_path, *words).runs for _ in range(2))
    assert [run.folder for run in once] == [run.folder for run in twice]
    assert len({run.identity for run in once}) == 6 and len({run.arm_hash for run in once}) == 3
    assert all(run.match == named(Command(once))[run.label].match for run in once)


def test_every_point_of_a_grid_of_studies_has_its_own_baseline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = (*arms(base=[], gqa=["mixer=gqa"]), "size.d_model=48,96", "match=total_params", *WORDS)
    small, less, large, more = collected(monkeypatch, tmp_path, *words).runs
    for base, arm in ((small, less), (large, more)):
        assert arm.match is not None and arm.match["target"]["total_params"] == budget_of(base, "total_params")
        assert arm.size["d_ff"] == 192 + base.size["d_model"] / 2


def test_a_width_of_the_whole_command_is_where_the_solution_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base, gqa = collected(monkeypatch, tmp_path, "mixer=mha,gqa", "size.d_ff=64", "match=flops", *WORDS).runs
    assert (base.size["d_ff"], gqa.size["d_ff"]) == (64, 88)
    assert (base.label, gqa.label) == ("mha", "gqa")


def test_tables_of_other_tokenizers_and_layers_that_differ_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    changes = {
        "base": [],
        "bpe": ["tokenizer=bpe", "tokenizer.vocab_size=320"],
        "stack": ['stack="mamba2, gqa"'],
        "half": ["layers={routed: ['ffn=moe']}", 'stack="routed, mha"'],
    }
    command = collected(monkeypatch, tmp_path, *arms(**changes), "match=total_params", *WORDS)
    assert not command.refused
    target = budget_of(command.runs[0], "total_params")
    for run in command.runs[1:]:
        assert run.match is not None and list(run.match["solved"]) == ["size.d_ff"]
        assert budget_of(run, "total_params") == pytest.approx(target, rel=WITHIN)


def test_a_width_that_suits_hardware_is_taken_where_it_comes_near_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, lstm, gru = collected(monkeypatch, tmp_path, "mixer=mha,lstm,gru", "match=total_params", *WORDS).runs
    assert (gru.size["d_ff"] % 8, lstm.size["d_ff"] % 8) == (0, 4)  # eight more would be 1.1 % of the LSTM
    _, alone = collected(monkeypatch, tmp_path, "ffn=dense,none", "match=active_params", *WORDS).runs
    assert alone.match is not None and list(alone.match["solved"]) == ["size.d_model"]  # no ffn whose width there is


REFUSED = {
    "a width said": (
        [*arms(base=[], a=["mixer=gqa", "size.d_ff=100"]), "match=flops"],
        r"arm a: size.d_ff=100 fixes the width that match=flops would solve: .* \(-30.17%\); leave one of the two out",
    ),
    "a width swept": (
        ["size.d_ff=64,96", "match=flops"],
        "size.d_ff=96 fixes the width that match=flops would solve",
    ),
    "one run": (["match=flops"], "match=flops: there is one arm, and no other to make equal"),
    "seeds alone": (["seed=0,1", "match=flops"], "match=flops: there is one arm"),
    "one arm": ([*arms(base=[]), "match=flops"], "match=flops: there is one arm"),
    "no baseline": ([arms(base=[], a=[])[0], "match=flops"], "match=flops: study.baseline=null; name the arm"),
    "no budget": ([*arms(base=[], a=[]), "match=flop"], r"match=flop: no such budget; did you mean flops\?"),
    "no text": ([*arms(base=[], a=[]), "match={solved: {size.d_ff: 8}}"], "match=.*: no such budget"),
    "a budget of an arm": ([*arms(base=[], a=["match=flops"])], "study.arms.a: match=flops is no part of an arm"),
    "out of reach": (
        [*arms(base=[], a=["mixer=gru"]), "match=state_bytes"],
        r"arm a: match=state_bytes: no width comes within 1% of the baseline's 49,152 bytes of state; the nearest is 24,576 "
        r"\(-50.00%\), with size.d_model=3072",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_made_equal_is_refused_in_one_line(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words, message = REFUSED[case]
    with pytest.raises(Exception, match=message):
        command = collected(monkeypatch, tmp_path, *words, *WORDS)
        raise command.refused[0]


def test_where_a_grid_has_no_first_point_no_other_stands_in_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = collected(monkeypatch, tmp_path, "size.n_heads=5,4,2", "match=flops", *WORDS)
    assert not command.runs and len(command.refused) == 3
    assert "the first point of the grid, its baseline, is not there" in str(command.refused[-1])


def test_one_run_alone_is_refused_however_it_is_made() -> None:
    for said in ("flops", "{solved: 3}"):
        with pytest.raises(ConfigError, match=r"match=.*: there is one arm"):
            config(*TINY, f"match={said}")


def test_a_dry_run_tells_the_width_and_what_is_left_of_each_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*arms(base=[], moe=["ffn=moe"]), "study.seeds=[0,1]", "match=active_params", *WORDS)
    monkeypatch.setattr(sys, "argv", ["check", "-m", *words, f"out={tmp_path}"])
    assert door_of_check.main() == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("match=")]
    assert len(told) == 2  # a line for an arm, not for each of its seeds
    assert re.fullmatch(
        r"match=active_params: moe: size.d_ff=188; active parameters 71,136 \(\+0.00%\), "
        r"FLOPs per token [\d,]+ \([+-]\d\.\d\d%\), parameters [\d,]+ \(\+\d+\.\d\d%\)",
        told[1],
    )


def test_the_records_of_a_sweep_are_equal_in_the_budget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt")
    words = ("-m", *arms(base=[], gru=["mixer=gru"]), "match=train_flops", "train.steps=2", "study.name=s")
    done = train(text, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "match=train_flops: gru: size.d_ff=" in done.stdout
    base, gru = runs(tmp_path)
    costs = summary(base)["cost"], summary(gru)["cost"]
    assert costs[1]["train_flops"] == pytest.approx(costs[0]["train_flops"], rel=WITHIN)
    for folder, cost in zip((base, gru), costs, strict=True):
        match = json.loads((folder / "config.json").read_text())["match"]
        assert match["budget"] == "train_flops"
        assert {AS_RECORDED[name]: value for name, value in match["reached"].items()} == {name: cost[name] for name in COSTS}
    small = [*SMALL, "data=text", f"data.path={text}"]
    again = collected(monkeypatch, tmp_path, *words[1:], *small).runs
    assert [run.folder for run in again] == [base, gru]  # which are done, so the same command has nothing left to do

    grid = (*arms(base=["mixer=mqa"], other=[f"run={base}"]), "match=state_bytes", *small)
    (refused,) = collected(monkeypatch, tmp_path, *grid).refused  # a run that starts from another has its widths
    assert "and its widths are those of run=" in str(refused)
