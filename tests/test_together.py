"""Runs that are trained at once: the numbers, the records and the ends that they have alone."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runs.build.objects import build
from runs.data.contract import Batch
from runs.job import record
from runs.job.execute import execute
from runs.job.run import Run
from runs.job.stop import Stopped
from runs.job.together import execute_together, obstacle
from runs.objective import CausalLM
from runs.sweep.stacks import stacks
from runs.training.fit import Outcome, Settings, course, fit
from runs.training.optim import Optimiser
from runs.training.together import together
from tests import test_fit
from tests.door import CLOCK, rows, runs, train, until, weights, write_text
from tests.lab import BLOCK_GROUPS, COMPANIONS, TINY, config, model_of, options

MANY = {**test_fit.NUMBERS, "steps": 100, "batch_size": 2, "log_every": 20, "eval_every": 100, "eval_batches": 1}
RATES = (1e-3, 3e-3)


class Ragged(test_fit.Words):
    """Rows as long as the step and the seed will have them, and now and then equally long."""

    def batch(self, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
        text = super().batch(seed=seed, step=step, batch_size=batch_size, seq_len=seq_len)
        return Batch(*(t[:, : seq_len - (seed + 1) * step % 3] for t in text[:2]))


def asked(words: Sequence[str], seed: int, rate: float, data: Any, **changes: Any) -> tuple[dict[str, Any], test_fit.Rows]:
    """What a course takes, of a run with this seed and rate, and where its rows go."""
    run, left = config(*TINY, *words), test_fit.Rows()
    task = CausalLM().task(model_of(replace(run, seed=seed, identity="")), data)
    taken = {
        "task": task,
        "data": data,
        "optimiser": build({**run.optim, "lr": rate}, "optim", Optimiser, model=task),
        "schedule": lambda step, steps: 1.0,
        "settings": Settings(**{**MANY, **changes}),
        "recorder": left,
        "device": torch.device("cpu"),
        "bf16": False,
        "seed": seed,
    }
    return taken, left


def both_ways(*words: str, data: Any = None, **changes: Any) -> Iterator[tuple[test_fit.Rows, test_fit.Rows]]:
    """Of a seed for every rate the rows that it leaves alone and at once with the others."""
    data = test_fit.Words() if data is None else data
    one_by_one, at_once = ([asked(words, seed, rate, data, **changes) for seed, rate in enumerate(RATES)] for _ in range(2))
    for taken, _ in one_by_one:
        assert fit(**taken).status == "done"
    for outcome in together([course(**taken) for taken, _ in at_once]):
        assert isinstance(outcome, Outcome) and outcome.status == "done", outcome
    for (_, expected), (_, found) in zip(one_by_one, at_once, strict=True):
        yield expected, found


@pytest.mark.parametrize(
    "words",
    [
        "ffn=dense",
        "mixer=gqa position=rotary norm=rmsnorm ffn=swiglu",
        "ffn=moe router=balanced",
        "mixer=mamba optim=muon",
    ],
)
def test_a_hundred_steps_at_once_are_those_of_each_alone(words: str) -> None:
    for expected, found in both_ways(*words.split()):
        assert [row.keys() for row in found] == [row.keys() for row in expected]
        for row, other in zip(found, expected, strict=True):
            shown = {key: value for key, value in row.items() if key not in CLOCK}
            assert shown == pytest.approx({key: other[key] for key in shown}, abs=1e-4, rel=1e-3), words
            assert row.get("loss", 0) == pytest.approx(other.get("loss", 0), abs=1e-4)


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"data": Ragged()}], ids=["pieces", "ragged"])
def test_batches_in_pieces_and_of_several_lengths_come_to_the_same(changes: dict[str, Any]) -> None:
    for expected, found in both_ways(**changes, steps=12, eval_every=6):
        losses = [[row["loss"] for row in of if row["split"] == "val"] for of in (found, expected)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)


# Step by step a kind either has the gradients that it has alone, or says that it is trained alone.
ALONE = {
    "mixer=gru": "written for one model",
    "mixer=lstm": "torch has no rule",
    "router=noisy": "random numbers",
    "shared.dropout=0.1": "random numbers",
    "train.compile=true": "train.compile",
}
KINDS = [f"{group}={option}" for group in BLOCK_GROUPS if group != "shared" for option in options(group)]
KNOWN = json.loads(Path(__file__).with_name("golden.json").read_text())


@pytest.mark.parametrize("kind", dict.fromkeys([*KINDS, *ALONE]))
def test_every_kind_is_trained_at_once_or_says_why_it_is_not(kind: str, tmp_path: Path) -> None:
    why = obstacle(small(tmp_path, kind, *COMPANIONS.get(kind.partition("=")[0], ())))
    if kind in ALONE:
        assert why is not None and ALONE[kind] in why
    elif kind in KNOWN:
        assert why is None
    else:
        assert why is None or "gradients come out otherwise" not in why


def small(out: Path, *words: str, rates: Sequence[float] = RATES) -> list[Run]:
    """Runs of twenty steps, a seed for every rate."""
    size = ("train.batch_size=2", "train.seq_len=24", "train.steps=20", "train.eval_batches=1", "train.log_every=5")
    run = config(*TINY, "data=markov", *size, "train.eval_every=10", "train.checkpoint_every=10", "train.device=cpu", *words)
    return [
        replace(run, out=str(out), seed=seed, optim={**run.optim, "lr": rate}, identity="") for seed, rate in enumerate(rates)
    ]


def one(run: Run) -> dict[str, Any]:
    return execute(run, peak=(1.0, "given"))


def all_of(runs: Sequence[Run]) -> list[Any]:
    return execute_together(runs, peak=(1.0, "given"))


def test_the_records_are_those_of_single_runs_without_speeds(tmp_path: Path) -> None:
    expected, found = (small(tmp_path / way, "ffn=moe") for way in ("alone", "at_once"))
    summaries = all_of(found)
    for mine, theirs, summary in zip(found, expected, summaries, strict=True):
        other = one(theirs)
        assert mine.identity == theirs.identity and mine.folder.name == theirs.folder.name
        assert sorted(p.name for p in mine.folder.rglob("*")) == sorted(p.name for p in theirs.folder.rglob("*"))
        assert summary == record.read(mine.folder, weights=True).summary
        assert summary.keys() == other.keys() and summary["cost"].keys() == other["cost"].keys()
        assert summary["metrics"] == pytest.approx(other["metrics"], abs=1e-4)
        speeds = {"tokens_per_s", "step_ms", "mfu", "peak_memory_bytes"}
        assert {key for key, value in summary["cost"].items() if value is None} == speeds
        environments = [record.read_json(run.folder / record.ENV) for run in (mine, theirs)]
        assert environments[0].keys() == environments[1].keys()
        assert [env["stack"] for env in environments] == [2, 1]


def test_a_run_that_diverges_or_cannot_write_costs_itself_alone(tmp_path: Path) -> None:
    expected, found = (small(tmp_path / way, "train.clip=null", rates=(1e-3, 1e30, 2e-3, 3e-3)) for way in ("alone", "at_once"))
    (found[3].folder / record.METRICS).mkdir(parents=True)  # nothing can be written there
    summaries = all_of(found)
    assert [summary["status"] for summary in summaries] == ["done", "diverged", "done", "failed"]
    assert str(found[3].folder / record.METRICS) in summaries[3]["error"]
    for i in (0, 1, 2):
        other = one(expected[i])
        assert (summaries[i]["status"], summaries[i]["error"]) == (other["status"], other["error"])
    with record.claim(found[3].folder):  # as another process would
        done, *_, refused = all_of(found)
    assert done == summaries[0] and isinstance(refused, record.RecordError)


def test_runs_that_are_stopped_go_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, cut = (small(tmp_path / way, "train.steps=60") for way in ("whole", "cut"))
    assert [summary["status"] for summary in all_of(whole)] == ["done", "done"]

    def stop() -> None:
        until(lambda: (cut[1].folder / record.METRICS).is_file() and (cut[1].folder / record.METRICS).stat().st_size)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Stopped):
        all_of(cut)
    thread.join()
    assert [record.status(run.folder) for run in cut] == ["unfinished", "unfinished"]
    assert [summary["status"] for summary in all_of(cut)] == ["done", "done"]
    for mine, other in zip(cut, whole, strict=True):
        kept, expected = weights(mine.folder), weights(other.folder)
        assert all(torch.equal(kept[name], expected[name]) for name in expected)
        held_out = [[row for row in rows(run.folder) if row["split"] == "val"] for run in (mine, other)]
        assert held_out[0] == held_out[1]


def test_runs_at_different_steps_go_on_together(tmp_path: Path) -> None:
    whole, late = (small(tmp_path / way, "schedule=constant") for way in ("whole", "late"))
    all_of(whole)
    first = replace(late[0], settings=replace(late[0].settings, steps=10))  # the same folder: its first half
    one(replace(first, identity=late[0].identity))
    (late[0].folder / record.SUMMARY).unlink()
    found = all_of(late)
    assert [summary["status"] for summary in found] == ["done", "done"]
    assert record.read_json(late[0].folder / record.ENV)["begun_at_step"] == 10
    for mine, other in zip(found, all_of(whole), strict=True):
        assert mine["metrics"] == pytest.approx(other["metrics"], abs=1e-4)
    assert [summary["cost"]["step_ms"] for summary in found] == [None, None]


def test_a_stack_holds_what_differs_in_seed_and_rates_alone(tmp_path: Path) -> None:
    runs = [run for words in ((), ("ffn=moe",)) for run in small(tmp_path, *words, "train.stack=3", rates=(1, 2, 3, 4))]
    decayed = replace(runs[0], optim={**runs[0].optim, "weight_decay": 0.5}, identity="")
    found = stacks([*runs[::-1], decayed])
    assert [len(stack) for stack in found] == [2, 2, 3, 2]
    assert {run.choices["ffn"] for run in found[0] + found[1]} == {"moe"}
    assert decayed in found[2] + found[3]
    single = [replace(run, machine=replace(run.machine, stack=1)) for run in runs]
    assert stacks(single) == [[run] for run in single]
    assert [run.identity for run in single] == [run.identity for run in runs]


def test_a_sweep_trains_stacks_and_says_which_runs_it_does_not(tmp_path: Path) -> None:
    text = write_text(tmp_path / "story.txt")
    words = ("-m", "mixer=mha,gru", "seed=0,1,2", "train.steps=4", "train.stack=3")
    done = train(text, tmp_path, *words)
    assert done.returncode == 0 and "6 of 6 runs done" in done.stdout, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "one by one" in line)
    assert line.startswith("gru: 3 runs one by one") and line.endswith("written for one model at a time")
    stacked = {path.name.split("-")[1]: record.read_json(path / record.ENV)["stack"] for path in runs(tmp_path)}
    assert stacked == {"mha": 3, "gru": 1}
