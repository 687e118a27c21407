"""A run as a value: what its identity is made of, what it is called, and that a record gives it back."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from runs.build.errors import ConfigError
from runs.compose.compose import Point
from runs.compose.labels import labelled
from runs.job.record import write_json
from runs.job.run import Run
from tests.lab import config


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["stack='mha,gqa'"], ["stack='2*(mha,gqa)'"]),
        (["stack='mha,gqa'"], ["stack='mha, gqa, mha, gqa'"]),
        ([], ["train.log_every=7", "train.checkpoint_every=0", "train.decode_tokens=3"]),
        (["model=encoder"], ["model=encoder", "objective.held_out_rate=0.15"]),  # as in training, said aloud
        ([], ["out=elsewhere", "study.name=other", "study.arm=x"]),
        ([], ["norm.bias=true"]),  # a default, said aloud
        (["ffn=dense"], ["ffn=dense", "ffn.activation=gelu"]),
        (["optim.lr=1"], ["optim.lr=1.0"]),
        (["train.steps=5"], ["train.steps=5", "train.eval_every=50"]),
        (["data=text", "data.path=README.md"], ["data=text", f"data.path={os.path.abspath('README.md')}"]),
        (["data=text", "data.path=README.md"], ["data=text", "data.path=./tests/../README.md"]),
    ],
)
def test_two_spellings_of_one_run_have_one_identity(one: list[str], other: list[str]) -> None:
    assert config(*one).identity == config(*other).identity


@pytest.mark.parametrize(
    "words", [["seed=1"], ["train.steps=7"], ["optim.lr=0.1"], ["norm.bias=false"], ["ffn=relu"], ["stack='mha,gqa'"]]
)
def test_what_changes_the_numbers_changes_the_identity(words: list[str]) -> None:
    assert config(*words).identity != config().identity
    assert (config(*words).arm_hash == config().arm_hash) == (words == ["seed=1"])


def test_the_folder_is_readable_and_its_own() -> None:
    run = config("ffn=moe", "position=rotary", "seed=3")
    assert run.folder == Path("runs/out/default") / f"moe-mha-layernorm-pre_norm-rotary-s3-{run.identity[:8]}"
    named = replace(run, study=replace(run.study, arm="moe + sparse"))
    assert named.folder.name.startswith("moe_+_sparse-s3-")
    assert "/" not in replace(run, study=replace(run.study, arm="a/b" * 99)).folder.name


def test_a_record_gives_the_run_back() -> None:
    run = config("ffn=moe", "stack='mha, gqa'", "finetune=full").labelled("mine")
    content = json.loads(json.dumps(run.to_json()))
    assert Run.from_json(content, Path("there")) == run
    with pytest.raises(ConfigError, match="optim is missing"):
        Run.from_json({key: value for key, value in content.items() if key != "optim"}, Path("there"))


def point(*words: str, out: Path) -> Point:
    run = config(*words, f"out={out}")
    return Point(run, words, frozenset(words))


def test_an_arm_is_called_by_what_varies_in_its_command(tmp_path: Path) -> None:
    def names(*lines: list[str]) -> list[str]:
        return [run.label for run in labelled([point(*words, out=tmp_path) for words in lines])]

    grid = [["ffn=dense", "norm=rmsnorm", "size=micro"], ["ffn=moe", "norm=rmsnorm", "size=micro"]]
    assert names(*grid) == ["dense", "moe"]
    assert names(["ffn=moe", "size=micro", "optim.lr=0.01"]) == ["moe, micro"]
    assert names([]) == names(["seed=1"]) == ["dense, mha, layernorm, pre_norm, learned"]
    assert names(["study.arm=mine", "ffn=moe"]) == ["mine"]
    assert names(["study.arm=mine", "optim.lr=0.1"], ["study.arm=mine", "optim.lr=0.2"]) == ["mine, lr 0.1", "mine, lr 0.2"]
    assert names(["stack='2*(mha,gqa)'"], ["stack='gqa'"]) == ["mha, gqa", "gqa"]


def test_a_label_that_another_arm_of_the_study_has_is_made_longer(tmp_path: Path) -> None:
    first = labelled([point("ffn=moe", "optim.lr=0.1", out=tmp_path), point("ffn=dense", "optim.lr=0.1", out=tmp_path)])
    for run in first:
        run.folder.mkdir(parents=True)
        write_json(run.folder / "config.json", run.to_json())
    assert [run.label for run in first] == ["moe", "dense"]
    later = labelled([point("ffn=moe", "optim.lr=0.3", out=tmp_path), point("ffn=relu", "optim.lr=0.3", out=tmp_path)])
    assert [run.label for run in later] == ["moe, lr 0.3", "relu"]


def test_an_arm_keeps_the_label_that_it_has(tmp_path: Path) -> None:
    (first,) = labelled([point("ffn=moe", "optim.weight_decay=0.1", out=tmp_path)])
    first.folder.mkdir(parents=True)
    write_json(first.folder / "config.json", first.to_json())
    (again,) = labelled([point("ffn=moe", "optim.lr=0.003", "seed=1", out=tmp_path)])  # the default rate, said aloud
    assert first.arm_hash == again.arm_hash and again.label == first.label == "moe"
