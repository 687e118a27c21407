"""The command line from outside: runs, sweeps, resumption, and what is said of bad input."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from runs.command import guarded
from runs.job.record import RecordError
from runs.train import main
from tests.door import ROOT, SMALL, assert_same, command, runs, summary, train, weights, write_text


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "story.txt")


def test_one_run_leaves_a_whole_record_and_a_second_call_does_nothing(text: Path, tmp_path: Path) -> None:
    words = ("ffn=moe", "train.steps=6", "train.decode_tokens=2", "size.max_seq=34")
    first = train(text, tmp_path, *words)
    assert first.returncode == 0, first.stderr
    (path,) = runs(tmp_path)
    names = {p.name for p in path.iterdir()}
    assert {"config.yaml", "config.json", "metrics.jsonl", "summary.json", "env.json", "checkpoint"} <= names
    told = summary(path)
    assert told["status"] == "done" and told["error"] is None and told["causal"] is True
    of_text, of_routers = {"loss", "accuracy", "bits_per_byte", "bytes_per_token"}, ("entropy", "dropped", "dead")
    routed = {f"routing_{name}" for name in (*of_routers, "busiest")}
    assert set(told["metrics"]) == {f"val_{name}" for name in of_text} | routed
    costs = {"total_params", "active_params", "flops_per_token", "train_flops", "state_bytes"}
    assert costs | {"tokens_per_s", "step_ms", "mfu", "peak_memory_bytes", "decode_ms"} == set(told["cost"])
    assert told["cost"]["decode_ms"] > 0
    assert told["cost"]["active_params"] < told["cost"]["total_params"]
    env = json.loads((path / "env.json").read_text())
    assert len(env["data_sha256"]) == 64 and env["threads"] >= 1 and env["torch"] == torch.__version__
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "val", "routing"}
    routers = [row for row in rows if row["split"] == "routing" and row["step"] == 6]
    for name in of_routers:
        assert told["metrics"][f"routing_{name}"] == pytest.approx(sum(row[name] for row in routers) / len(routers))
    busiest = sum(8 * max(row["load"]) for row in routers) / len(routers)
    assert told["metrics"]["routing_busiest"] == pytest.approx(busiest) and 1 <= busiest <= 8
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file() and p.name != ".lock"}
    again = train(text, tmp_path, *words)
    assert again.returncode == 0
    assert before == {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(text: Path, tmp_path: Path) -> None:
    words = (
        "ffn=moe",
        "router=noisy",
        "block.dropout=0.1",
        "train.steps=60",
        "train.checkpoint_every=10",
        "train.eval_every=30",
    )
    assert train(text, tmp_path / "whole", *words).returncode == 0
    arguments = [*words, *SMALL, "data=text", f"data.path={text}", f"out={tmp_path / 'cut'}"]
    process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("cut/*/*/checkpoint/state.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (cut,) = runs(tmp_path / "cut")
    assert not (cut / "summary.json").exists(), "the run ended before it could be cut off"
    with open(cut / "metrics.jsonl", "a") as file:
        file.write('{"step": 59, "spl')
    resumed = train(text, tmp_path / "cut", *words)
    assert resumed.returncode == 0, resumed.stderr
    assert_same(runs(tmp_path / "whole")[0], cut)


def test_accumulated_pieces_give_the_gradient_of_the_whole_batch(text: Path, tmp_path: Path) -> None:
    assert train(text, tmp_path / "a", "train.steps=3").returncode == 0
    assert train(text, tmp_path / "b", "train.steps=3", "train.accumulate=2").returncode == 0
    one, two = (weights(runs(tmp_path / name)[0]) for name in "ab")
    for name in one:
        if name.startswith("model."):
            torch.testing.assert_close(one[name], two[name], atol=2e-4, rtol=1e-3)


def test_a_sweep_survives_a_point_that_cannot_be_built_and_one_that_diverges(text: Path, tmp_path: Path) -> None:
    done = train(
        text, tmp_path, "-m", "size.n_heads=4,5", "optim.lr=0.001,1e18", "train.clip=null", "train.steps=30", "study.slots=2"
    )
    assert done.returncode == 1
    assert "refused" in done.stderr and "5 does not divide 24" in done.stderr
    statuses = sorted(str(summary(path)["status"]) for path in runs(tmp_path))
    assert statuses == ["diverged", "done"]
    diverged = next(summary(path) for path in runs(tmp_path) if summary(path)["status"] == "diverged")
    assert "training loss" in str(diverged["error"])


def test_a_killed_child_costs_only_itself_and_is_tried_again(text: Path, tmp_path: Path) -> None:
    words = ["-m", "seed=0,1", "train.steps=400", "study.name=kill"]
    arguments = [*words, *SMALL, "data=text", f"data.path={text}", f"out={tmp_path}"]
    process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    owner = 0
    while not owner and time.monotonic() < deadline:
        for lock in tmp_path.glob("kill/*-s0-*/.lock"):
            owner = int(lock.read_text() or 0)
        time.sleep(0.01)
    os.kill(owner, signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "signal 9" in output
    statuses = {path.name.split("-s")[-1][0]: summary(path)["status"] for path in runs(tmp_path)}
    assert statuses == {"0": "failed", "1": "done"}
    again = train(text, tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert {summary(path)["status"] for path in runs(tmp_path)} == {"done"}


def test_a_run_that_was_trained_but_not_told_is_told_at_the_next_call(text: Path, tmp_path: Path) -> None:
    assert train(text, tmp_path, "train.steps=4").returncode == 0
    (path,) = runs(tmp_path)
    first = summary(path)
    (path / "summary.json").unlink()
    assert train(text, tmp_path, "train.steps=4").returncode == 0
    second = summary(path)
    assert second["metrics"] == first["metrics"]
    assert second["cost"]["tokens_per_s"] == first["cost"]["tokens_per_s"]
    assert len(json.loads((path / "env.json").read_text())["earlier"]) == 1


def test_a_record_is_not_continued_on_other_data(text: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text(text.read_text())
    assert train(own, tmp_path, "train.steps=2").returncode == 0
    own.write_text(text.read_text().replace("sheep", "goats"))
    again = train(own, tmp_path, "train.steps=2")
    assert again.returncode == 2 and "was begun on other data" in again.stderr


def test_a_point_that_is_asked_twice_runs_once_and_a_hung_one_is_ended(text: Path, tmp_path: Path) -> None:
    words = ("-m", "ffn=dense,dense", "seed=0,1", "train.steps=100000", "study.timeout=6", "study.slots=2")
    done = train(text, tmp_path, *words)
    assert done.returncode == 1
    assert [summary(path)["error"] for path in runs(tmp_path)] == ["the process was ended: still going after 6 s"] * 2


def test_a_studys_arms_and_seeds_unfold_and_one_that_does_not_compose_is_refused(text: Path, tmp_path: Path) -> None:
    arms = "{baseline: [], gqa: [mixer=gqa], typo: [mixer=gqaa], moe + sparse: [ffn=moe, mixer=sparse, pattern.window=8]}"
    rest = "baseline: baseline, seeds: [0, 1], slots: 2"
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "mine.yaml").write_text(f"{{arms: {arms}, {rest}}}\n")
    done = train(text, tmp_path, "-m", "study=mine", f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "train.steps=2")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("refused: arm typo") == 1 and "did you mean gqa?" in done.stderr
    found = [json.loads((path / "config.json").read_text()) for path in runs(tmp_path)]
    names = sorted((config["study"]["arm"], config["seed"]) for config in found)
    assert names == [(arm, seed) for arm in ("baseline", "gqa", "moe + sparse") for seed in (0, 1)]
    report = [sys.executable, "-m", "analysis.report", str(tmp_path / "default")]
    page = subprocess.run(report, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert "moe + sparse" in page.stdout and (tmp_path / "default" / "report" / "index.html").exists()


BAD = {
    "unknown key": (["train.stepz=5"], "train.stepz: unknown key; did you mean steps?"),
    "unknown group": (["mixr=gqa"], "mixr: unknown key; did you mean mixer?"),
    "unknown option": (["mixer=gqaa"], "mixer=gqaa: no such option; did you mean gqa?"),
    "unknown constructor key": (["+norm.epz=1"], "norm.epz: unknown key; did you mean norm.eps?"),
    "wrong type": (["train.steps=many"], "train.steps='many': int is expected"),
    "wrong type in a block": (["optim.weight_decay=small"], "optim.weight_decay='small': float is expected"),
    "heads and width": (["size.n_heads=5"], "5 does not divide 24"),
    "kv heads": (["mixer=gqa", "size.n_kv_heads=3"], "n_kv_heads"),
    "top_k": (["ffn=moe", "size.top_k=16"], "top_k"),
    "window 0": (["mixer=sparse", "pattern.window=0"], "window"),
    "idle window": (["mixer=sparse", "pattern.window=32"], "pattern: SlidingWindow hides none of the 528 pairs of 32 tokens"),
    "steps 0": (["train.steps=0"], "steps=0: at least 1"),
    "unused router": (["router=switch"], "router=switch: no part of this run uses a router"),
    "foreign target": (["norm._target_=os.system"], "_target_=os.system: only arch"),
    "accumulate": (["train.accumulate=3"], "accumulate=3 does not divide batch_size=2"),
    "negative seed": (["seed=-1"], "seed=-1"),
    "no gpu": (["train.device=cuda:99"], "train.device=cuda:99"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_line_before_training(
    name: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = BAD[name]
    if name == "no gpu" and torch.cuda.is_available():
        words, expected = ["train.device=tpu9"], "train.device=tpu9"
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["train", *SMALL, "data=text", f"data.path={text}", f"out={tmp_path}", *words])
    assert guarded(main) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1
    assert not runs(tmp_path)


BAD_TEXT = {
    "missing": (None, "there is no such file or folder"),
    "empty": (b"", "empty"),
    "short": (b"a few words", "33"),
    "not UTF-8": (b"caf\xe9 " * 500, "UTF-8"),
}


@pytest.mark.parametrize("name", BAD_TEXT)
def test_bad_text_ends_in_one_line_and_exit_code_two(name: str, tmp_path: Path) -> None:
    content, expected = BAD_TEXT[name]
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    done = train(path, tmp_path / "out", "train.steps=2")
    assert done.returncode == 2
    assert str(path) in done.stderr and expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not runs(tmp_path / "out")


def test_an_out_folder_that_cannot_be_written_is_named(text: Path) -> None:
    done = train(text, Path("/proc/nowhere"), "train.steps=2")
    assert done.returncode == 2
    assert "/proc/nowhere" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_disk_that_takes_no_more_ends_the_run_and_keeps_what_is_recorded(text: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands for the full disk: the checkpoint is the one file that exceeds it."""
    words = [*SMALL, "data=text", f"data.path={text}", f"out={tmp_path}", "train.steps=8", "train.checkpoint_every=4"]

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    done = subprocess.run(
        command(*words), cwd=ROOT, capture_output=True, text=True, preexec_fn=limited, check=False, timeout=300
    )
    assert done.returncode != 0
    (path,) = runs(tmp_path)
    assert "free some space" in str(summary(path)["error"])
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert train(text, tmp_path, "train.steps=8", "train.checkpoint_every=4").returncode == 0


def test_two_processes_in_one_folder_do_not_meet(text: Path, tmp_path: Path) -> None:
    from runs.job.record import claim

    assert train(text, tmp_path, "train.steps=2").returncode == 0
    (path,) = runs(tmp_path)
    with claim(path):
        second = train(text, tmp_path, "train.steps=2")
    assert second.returncode == 2
    assert f"process {os.getpid()} is running this very run" in second.stderr
    with pytest.raises(RecordError), claim(path), claim(path):
        pass
