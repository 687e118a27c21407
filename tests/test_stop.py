"""Runs and sweeps that are asked to end, hang, or leave nonsense behind: real processes, real signals."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runs.job.stop import Patience, Stopped
from tests.door import ROOT, begin, rows, runs, small, summary, train, until, weights, write_text

LONG = ("train.steps=400", "train.checkpoint_every=100", "train.eval_every=200")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "story.txt")


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert train(text, out, *LONG).returncode == 0
    return runs(out)[0]


def begin_with(constants: str, text: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    """A sweep whose limits of time are those of a test."""
    code = (
        f"import sys, runs.sweep.launcher as sweep; {constants}\nfrom runs.train import main, guarded\nsys.exit(guarded(main))"
    )
    arguments = [sys.executable, "-c", code, *small(text, out, *words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(arguments, cwd=ROOT, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload]


def owner(out: Path, seed: int) -> int:
    """The process that runs a seed, once it has logged a row."""
    found = next((path for path in out.glob(f"*/*-s{seed}-*") if (path / "metrics.jsonl").exists() and list(rows(path))), None)
    return int((found / ".lock").read_text()) if found else 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_end_saves_and_goes_on_later(
    whole: Path, text: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = begin(text, tmp_path, *LONG)
    until(lambda: owner(tmp_path, 0))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.strip().splitlines() == [f"stopped by {number.name}; the same command goes on from here"]
    (folder,) = runs(tmp_path)
    told, last = summary(folder), list(rows(folder))[-1]["step"]
    assert (told["status"], told["error"]) == ("unfinished", f"stopped at step {last} of 400")
    assert train(text, tmp_path, *LONG).returncode == 0
    assert summary(folder)["status"] == "done" and last > 0
    ours, theirs = weights(folder), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [row for row in rows(folder) if row["split"] == "val"] == [row for row in rows(whole) if row["split"] == "val"]
    steps = [row["step"] for row in rows(folder) if row["split"] == "train"]
    assert steps == sorted({*range(2, 401, 2), last})  # the row of the stop stands beside those that were due


def test_a_second_interrupt_does_not_wait() -> None:
    with pytest.raises(Stopped) as caught, Patience() as patience:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert patience.asked == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.code == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_asked_to_end_lets_its_runs_save(text: Path, tmp_path: Path, number: signal.Signals) -> None:
    words = ("-m", "seed=0,1", "study.slots=2", *LONG)
    process = begin(text, tmp_path, *words)
    until(lambda: owner(tmp_path, 0) and owner(tmp_path, 1))
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)  # a terminal tells all of them
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number and f"stopped by {number.name}" in errors and "Traceback" not in errors
    for folder in runs(tmp_path):
        assert summary(folder)["status"] == "unfinished" and (folder / "checkpoint/state.safetensors").exists()
    assert train(text, tmp_path, *words).returncode == 0
    assert {summary(folder)["status"] for folder in runs(tmp_path)} == {"done"}


def test_a_sweep_ends_although_a_run_was_frozen(text: Path, tmp_path: Path) -> None:
    words = ("-m", "seed=0,1", "study.slots=2", "train.steps=100000")
    process = begin_with("sweep.GRACE = 1", text, tmp_path, *words)
    frozen = until(lambda: owner(tmp_path, 0))
    os.kill(frozen, signal.SIGSTOP)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(frozen, 0)


def test_a_frozen_run_is_found_by_its_own_speed_and_costs_itself_alone(text: Path, tmp_path: Path) -> None:
    """With no study.timeout at all."""
    words = ("-m", "seed=0,1", "train.steps=1000")
    process = begin_with("sweep.SILENCE = 2; sweep.PATIENCE = 1", text, tmp_path, *words)
    os.kill(until(lambda: owner(tmp_path, 0)), signal.SIGSTOP)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    told = [summary(folder) for folder in runs(tmp_path)]
    assert [one["status"] for one in told] == ["failed", "done"]
    assert "hung: no row for 2 s, 2 s were allowed (study.timeout=SECONDS" in told[0]["error"] and told[0]["error"] in output
    assert train(text, tmp_path, *words).returncode == 0


def test_a_run_without_enough_memory_costs_itself_alone(text: Path, tmp_path: Path) -> None:
    """The guard on size is off, and the processes may have little: the first allocation that is too large ends the run."""
    words = ("-m", "size.d_ff=48,1000000", "train.batch_size=64", "train.steps=2", "study.memory=null")
    done = train(text, tmp_path, *words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30)))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    told = {summary(folder)["status"]: summary(folder)["error"] for folder in runs(tmp_path)}
    assert told.keys() == {"done", "failed"} and "allocate" in told["failed"]
    guarded = train(text, tmp_path / "guarded", "size.d_ff=1000000", "train.batch_size=64", "study.memory=6")
    assert guarded.returncode == 2 and "study.memory=null, which does not look" in guarded.stderr
    assert len(guarded.stderr.splitlines()) == 1 and not runs(tmp_path / "guarded")


def test_what_one_run_leaves_behind_never_ends_a_sweep(text: Path, tmp_path: Path) -> None:
    words = ("-m", "seed=0,1,2,3,4,5", "train.steps=4", "study.slots=2")
    assert train(text, tmp_path, *words).returncode == 0
    folders = runs(tmp_path)
    (folders[0] / "summary.json").write_text("{}")
    (folders[1] / "summary.json").write_text("[" * 100_000)
    (folders[2] / "summary.json").unlink()
    with open(folders[2] / "metrics.jsonl", "a") as file:
        file.write('{"step": "x", "split": "train"}\n{"split": "train", "loss": [}')
    (folders[3] / "config.json").write_bytes(b"\xff\xfe")
    (folders[4] / "summary.json").unlink()
    (folders[4] / "metrics.jsonl").unlink()
    (folders[4] / "metrics.jsonl").mkdir()  # nothing can be written there: this run alone fails
    (folders[4] / "checkpoint" / "state.safetensors").unlink()
    again = train(text, tmp_path, *words)
    assert again.returncode == 1 and "Traceback" not in again.stderr
    assert "5 of 6 runs done" in again.stdout
    assert [summary(folder)["status"] for folder in folders] == ["done"] * 4 + ["failed", "done"]
    assert str(folders[4] / "metrics.jsonl") in summary(folders[4])["error"]
