"""Folders of weights: read as the reference wrote them, written as it reads them, and refused where they are not safe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runs.build.errors import ConfigError
from runs.build.model import build_model
from runs.published import folder as weights
from tests.pretrained import peers
from tests.pretrained.ours import built, close, made, our_state

every_family = pytest.mark.parametrize("family", peers.FAMILIES)


def logits(peer: Any) -> torch.Tensor:
    text = torch.arange(2, 12)[None]
    inputs = {"decoder_input_ids": text} if peer.config.is_encoder_decoder else {}
    with torch.no_grad():
        found: torch.Tensor = peer(input_ids=text, **inputs)[0]
    return found


@every_family
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_a_folder_of_the_reference(family: str, shard: str, tmp_path: Path) -> None:
    peer = peers.FAMILIES[family]()
    peer.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    read, expected = weights.load(tmp_path), our_state(peer)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], expected[name]) for name in read)
    words = weights.overrides(weights.read_config(tmp_path))  # the file leaves out what is the reference's default
    model = build_model(made(tuple(words)).model, vocab_size=2, seed=0)
    model.load_state_dict({name: tensor for name, tensor in read.items() if not name.startswith("heads.")})


@every_family
def test_a_folder_for_the_reference(family: str, tmp_path: Path) -> None:
    peer = peers.FAMILIES[family]()
    weights.save(tmp_path / "new" / "folder", our_state(peer), peer.config.to_dict())
    loaded, loading = type(peer).from_pretrained(tmp_path / "new" / "folder", local_files_only=True, output_loading_info=True)
    assert not any(loading.values()), loading
    close(logits(loaded.eval()), logits(peer))


def test_read_and_written_again_it_is_the_same_file(tmp_path: Path) -> None:
    peers.qwen2().save_pretrained(tmp_path / "a")
    weights.save(tmp_path / "b", weights.load(tmp_path / "a"), weights.read_config(tmp_path / "a"))
    a, b = (load_file(tmp_path / side / "model.safetensors") for side in "ab")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_half_precision_stays_and_is_recorded(tmp_path: Path) -> None:
    peer = peers.llama()
    weights.save(tmp_path, {name: t.bfloat16() for name, t in our_state(peer).items()}, peer.config.to_dict())
    assert weights.read_config(tmp_path)["torch_dtype"] == "bfloat16"
    assert {t.dtype for t in weights.load(tmp_path).values()} == {torch.bfloat16}
    assert type(peer).from_pretrained(tmp_path, local_files_only=True, torch_dtype="auto").dtype == torch.bfloat16
    model = built(peer)
    model.load_state_dict(weights.load(tmp_path))
    peer.load_state_dict({name: t.bfloat16() for name, t in peer.state_dict().items()})
    with torch.no_grad():
        close(model(torch.arange(2, 12)[None]), logits(peer))


def folder(tmp_path: Path, **changes: Any) -> Path:
    peer = peers.llama()
    peer.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in {**settings, **changes}.items() if v != "absent"}))
    return tmp_path


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickled_weights_are_refused_unread(name: str, tmp_path: Path) -> None:
    place = folder(tmp_path)
    (place / "model.safetensors").unlink()
    (place / name).write_bytes(b"\x80\x04this would run")
    with pytest.raises(ConfigError, match=rf"{name} is pickled, and unpickling runs whatever code.*convert it") as caught:
        weights.load(place)
    assert "\n" not in str(caught.value)


def test_a_pickle_beside_safetensors_does_not_matter(tmp_path: Path) -> None:
    place = folder(tmp_path)
    (place / "pytorch_model.bin").write_bytes(b"\x80\x04this would run")
    assert weights.load(place).keys() == our_state(peers.llama()).keys()


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.safetensors: no such folder"):
        weights.load(folder(tmp_path) / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ConfigError, match=r"pytorch_model.bin is pickled"):
        weights.load(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "absent"}, "names no model_type"),
        ({"model_type": "t5"}, "model_type='t5': no name map for this family; there are bert, deepseek_v2, gpt2"),
        ({"model_type": ["llama"]}, r"model_type=\['llama'\]: no name map for this family"),
        ({"model_type": "rope"}, "model_type='rope': no name map for this family"),  # a file of the room, but no family
        ({"model_type": "os"}, "model_type='os': no name map for this family"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, r"rope_scaling of type 'dynamic' is not expressed here"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not expressed here; only 'silu' is"),
        ({"hidden_size": "48"}, "config.json of a llama: d_model would be '48'; a whole number from 1 is expected"),
        ({"hidden_size": "48", "head_dim": "absent"}, "config.json of a llama: d_model would be '48'; a whole number from 1"),
        ({"rms_norm_eps": "1e-5"}, "config.json of a llama: norm_eps would be '1e-5'; a number is expected"),
        ({"hidden_size": "absent"}, "config.json of a llama: hidden_size is missing"),
        ({"num_hidden_layers": 1}, "no such tensor in this layout"),
        ({"num_hidden_layers": 3}, "model.layers.2.* missing from these weights"),
    ],
)
def test_what_cannot_be_loaded_is_reported_in_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    place = folder(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        weights.load(place)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(str(place)) == 1


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path)
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ConfigError, match="not whole"):
        weights.load(place)
    (place / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"a JSON object is expected, not list"):
        weights.load(place)
    (place / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config.json there"):
        weights.load(place)
    (place / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"no model.safetensors there"):
        weights.load(place)


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "missing.safetensors"])
def test_shards_lie_in_the_folder_itself(name: str, tmp_path: Path) -> None:
    place = folder(tmp_path / "here")
    (place / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(ConfigError, match="names files that are not in the folder"):
        weights.load(place)


def test_weights_are_never_overwritten(tmp_path: Path) -> None:
    place = folder(tmp_path)
    with pytest.raises(ConfigError, match=r"holds model.safetensors already"):
        weights.save(place, weights.load(place), weights.read_config(place))
