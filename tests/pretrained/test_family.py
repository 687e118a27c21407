"""Families are found, not listed: two new files make one, in both directions."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import arch.pretrained
from runs import published
from runs.export import write
from runs.job.start import Restored, begin, build_task, load_data
from runs.published import folder as weights
from runs.published.family import families
from tests.lab import config, options
from tests.pretrained import peers
from tests.pretrained.ours import close

ROOMS = {arch.pretrained: Path(arch.pretrained.__file__).parent, published: Path(published.__file__).parent}


@pytest.fixture
def cousin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Qwen 2 under another name, with tensors of other names, as two files in folders that extend the two rooms."""
    for room, folder in ROOMS.items():
        code = (folder / "qwen2.py").read_text().replace("qwen2", "cousin").replace("cousin_5_0_5b", "qwen2_5_0_5b")
        code = code.replace("model.layers.{i}.mlp.", "model.layers.{i}.cousins_mlp.").replace('("qwen2_5_0_5b",)', "()")
        place = tmp_path / room.__name__
        place.mkdir()
        (place / "cousin.py").write_text(code)
        monkeypatch.setattr(room, "__path__", [*room.__path__, str(place)])
    importlib.invalidate_caches()
    yield
    for room in ROOMS:
        sys.modules.pop(f"{room.__name__}.cousin", None)
        vars(room).pop("cousin", None)


def write_cousin(folder: Path) -> dict[str, torch.Tensor]:
    """A folder with small random weights, its tensors."""
    peer = peers.qwen2(vocab_size=300)
    theirs = {name.replace(".mlp.", ".cousins_mlp."): tensor for name, tensor in peer.state_dict().items()}
    del theirs["lm_head.weight"]  # tied
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in theirs.items()}, folder / "model.safetensors")
    settings = {**peer.config.to_dict(), "model_type": "cousin"}
    (folder / "config.json").write_text(json.dumps(settings))
    return theirs


@torch.no_grad()
def test_a_family_is_two_new_files(cousin: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = write_cousin(tmp_path / "theirs")
    small = ("train.batch_size=2", "train.seq_len=32", "train.device=cpu")
    point = config(f"weights={tmp_path / 'theirs'}", "data=mqar", "data.vocab_size=256", *small)
    data = load_data(point)
    task = build_task(point, data)
    begin(task, point)
    text = torch.arange(2, 40).view(2, 19)
    close(task.model.eval()(text), peers.qwen2(vocab_size=300)(text).logits)

    write(Restored(point, data, task), tmp_path / "away")
    assert "a model of the family cousin" in capsys.readouterr().out
    again = load_file(tmp_path / "away" / "model.safetensors")
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)
    before, after = (weights.read_config(tmp_path / side) for side in ("theirs", "away"))
    assert after["model_type"] == "cousin"
    assert sorted(weights.overrides(after)) == sorted(weights.overrides(before))


def test_without_its_files_it_is_none(tmp_path: Path) -> None:
    write_cousin(tmp_path / "theirs")
    with pytest.raises(ValueError, match=r"model_type='cousin': no name map for this family; there are bert, deepseek_v2"):
        weights.load(tmp_path / "theirs")


def test_a_family_stands_in_the_file_of_its_name() -> None:
    assert families().keys() >= peers.FAMILIES.keys()
    for model_type, family in families().items():
        assert vars(importlib.import_module(f"runs.published.{model_type}"))["FAMILY"] is family


def test_a_named_model_names_a_family_that_is_there() -> None:
    named = {name: config(f"model={name}").family for name in options("model")}
    assert {family for family in named.values() if family is not None} == families().keys()
    assert named["llama3_8b"] == "llama" and named["mamba2_130m"] is None and named["decoder"] is None
