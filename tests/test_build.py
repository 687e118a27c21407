"""Config to code: what may be built, and what is said of what cannot."""

from __future__ import annotations

import pytest
import torch

from arch import Attention, Norm, PreNorm, RMSNorm, SequenceMixer
from arch.contracts import Block, Model
from runs.build.errors import ConfigError
from runs.build.objects import build, check_arguments, fits

NORM = {"_target_": "arch.RMSNorm", "d_model": 8}
MIXER = {"_target_": "arch.Attention", "d_model": 8, "n_heads": 2}


def test_a_node_becomes_its_target() -> None:
    norm = build({"_target_": "arch.RMSNorm", "d_model": 8, "eps": 1e-5}, "norm", Norm)
    assert isinstance(norm, RMSNorm)
    block = build({"_target_": "arch.PreNorm", "mixer": MIXER, "ffn": None, "mixer_norm": NORM}, "block", Block)
    assert isinstance(block, PreNorm) and isinstance(block.mixer, Attention) and block.ffn is None


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "os.system", "command": "true"}, r"norm._target_=os.system: only arch, runs.tokenizer, .* may be built"),
        ({"_target_": "torch.hub.load", "repo_or_dir": "x"}, r"norm._target_=torch.hub.load: only arch"),
        ({"_target_": "torch.nn.LayerNorm", "normalized_shape": 8}, r"norm._target_=torch.nn.LayerNorm: only arch"),
        ({"_target_": "arch.RMSNorn", "d_model": 8}, r"arch has no RMSNorn; did you mean RMSNorm\?"),
        ({"_target_": "arch.nothing.X"}, r"norm._target_=arch.nothing.X: No module named"),
        (
            {"_target_": "arch.MLP", "d_model": 8},
            r"norm._target_=arch.MLP: a Norm is expected; .* inherits arch.contracts.Norm",
        ),
        ({"_target_": "arch.RMSNorm", "d_modle": 8}, r"norm.d_modle: unknown key; did you mean d_model\?"),
        ({"_target_": "arch.RMSNorm", "d_model": "8"}, r"norm.d_model='8': int is expected, not str"),
        ({"_target_": "arch.RMSNorm", "d_model": True}, r"norm.d_model=True: int is expected, not bool"),
        ({"_target_": "arch.RMSNorm"}, r"norm: d_model is missing"),
        ({"_target_": "arch.RMSNorm", "d_model": NORM}, r"norm.d_model=.*: int is expected, not dict"),
        ({"_target_": "arch.RMSNorm", "d_model": 10**30}, r"norm: (RuntimeError|TypeError|OverflowError): "),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(node: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(node, "norm", Norm)
    assert "\n" not in str(caught.value)


def test_what_a_constructor_refuses_is_told_in_its_words() -> None:
    with pytest.raises(ConfigError, match=r"^mixer: n_heads=3 .*8|^mixer: .*3.*8"):
        build(MIXER | {"n_heads": 3}, "mixer", SequenceMixer)


@pytest.mark.parametrize(
    "target", [3, None, True, [], {}, "", "arch", ".", "arch.", "arch..X", ".arch.X", "arch.RMSNorm\n", "arch.X y"]
)
def test_a_target_that_is_no_dotted_name(target: object) -> None:
    with pytest.raises(ConfigError, match=r"norm._target_=.*: the dotted name of a class is expected") as caught:
        build({"_target_": target}, "norm", Norm)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("arch.decode", "a class is expected, not a module"),
        ("arch.decode.torch", "a class is expected, not a module"),
        ("arch.decode.torch.load", "No module named"),
        ("arch.contracts.Block.forward", "No module named"),
        ("arch.ffn.activation.ACTIVATIONS", "a class is expected, not a dict"),
        ("runs.data.contract.IGNORED", "a class is expected, not a int"),
    ],
)
def test_a_target_that_is_no_class(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"norm._target_={target}: {message}"):
        build({"_target_": target}, "norm", Norm)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("mixer", None, "block.mixer=null: a SequenceMixer is expected"),
        ("mixer", {}, "block.mixer={}: a SequenceMixer is expected"),
        ("mixer", 3, "block.mixer=3: a SequenceMixer is expected"),
        ("mixer", [MIXER], r"block.mixer=\[.*: a SequenceMixer is expected"),
        ("mixer", NORM, "block.mixer._target_=arch.RMSNorm: a SequenceMixer is expected"),
        ("ffn", "arch.MLP", 'block.ffn="arch.MLP": a ChannelMixer is expected'),
        ("ffn", MIXER, "block.ffn._target_=arch.Attention: a ChannelMixer is expected"),
        ("mixer", MIXER | {"pattern": NORM}, "block.mixer.pattern._target_=arch.RMSNorm: a Pattern is expected"),
        ("dropout", {"_target_": "arch.RMSNorm", "d_model": 8}, "block.dropout=.*: float is expected, not dict"),
    ],
)
def test_a_part_of_another_kind(part: str, value: object, message: str) -> None:
    whole = {"_target_": "arch.PreNorm", "mixer": MIXER, "ffn": None, "mixer_norm": NORM, part: value}
    with pytest.raises(ConfigError, match=message) as caught:
        build(whole, "block", Block)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layers", [None, {}, 3, MIXER, [MIXER], [None], [[]]])
def test_layers_are_a_list_of_blocks(layers: object) -> None:
    embedding = {"_target_": "arch.Embedding", "d_model": 8, "vocab_size": 8}
    with pytest.raises(ConfigError, match=r"model\.layers.*(a list is expected, each a Block|a Block is expected)"):
        build({"_target_": "arch.Decoder", "embedding": embedding, "layers": layers}, "model", Model)


def test_types() -> None:
    assert fits(1, float) and fits(None, int | None) and fits([1, 2], list[int]) and fits(torch.nn.ReLU(), torch.nn.Module)
    assert not fits(1.5, int) and not fits("x", int | None) and not fits(["a"], list[int]) and not fits(True, float)


def test_given_arguments_cannot_be_set_by_config() -> None:
    def f(*, a: int, model: object) -> None: ...

    with pytest.raises(ConfigError, match=r"t.model: unknown key; did you mean|t.model: unknown key; known: a"):
        check_arguments(f, {"a": 1, "model": 2}, "t", ("model",))
