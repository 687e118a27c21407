"""Stacks of different layers: the line that describes them, and the models that come out."""

from __future__ import annotations

import pytest
import torch

from arch import GRU, Attention, Mamba, SlidingWindow
from runs.build.errors import ConfigError
from runs.build.stack import parse, tiled
from tests.lab import config, tiny_model, tokens


@pytest.mark.parametrize(
    ("line", "layers"),
    [
        ("gqa", [("gqa",)]),
        ("3*mamba2, gqa", [("mamba2",)] * 3 + [("gqa",)]),
        ("2*(mamba, 2*attn_moe)", [("mamba",), ("attn_moe",), ("attn_moe",)] * 2),
        ("write+look", [("write", "look")]),
        (" a ,2 * ( b+c ) ", [("a",), ("b", "c"), ("b", "c")]),
    ],
)
def test_a_line_is_read(line: str, layers: list[tuple[str, ...]]) -> None:
    assert parse(line) == layers


@pytest.mark.parametrize(
    ("line", "place"), [("", 1), ("a,", 3), ("3*", 3), ("(a, b", 6), ("a b", 3), ("a++b", 1), ("a, $", 4), ("2 a", 1)]
)
def test_a_line_that_cannot_be_read_says_where(line: str, place: int) -> None:
    with pytest.raises(ConfigError, match=f"character {place};"):
        parse(line)


def test_a_count_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="repeats nothing"):
        parse("0*gqa, mha")


def test_a_line_is_repeated_and_cut_to_the_depth() -> None:
    assert tiled(parse("a, b"), 5) == ["a", "b", "a", "b", "a"]
    assert tiled(parse("a, 27*b"), 3) == ["a", "b", "b"]
    assert tiled(parse("a+b"), 2) == ["a", "b", "a", "b"]  # two blocks a layer


def test_layers_are_mixers_by_their_own_names() -> None:
    model = tiny_model("stack='2*mamba, gru, gqa'", "size.n_layers=5", "position=none")
    kinds = [type(layer.mixer) for layer in model.blocks]
    assert kinds == [Mamba, Mamba, GRU, Attention, Mamba]
    assert model.blocks[3].mixer.n_kv_heads == 2


def test_a_layer_may_be_any_list_of_overrides() -> None:
    local = "layers={local:['mixer=mha','pattern=sliding_window','size.window=4'],wide:['ffn=swiglu','mixer=mqa']}"
    model = tiny_model("stack='local, wide'", local)
    first, second = model.blocks
    assert isinstance(first.mixer.pattern, SlidingWindow)
    assert first.mixer.pattern.window == 4
    assert not isinstance(second.mixer.pattern, SlidingWindow)
    assert second.mixer.n_kv_heads == 1
    assert hasattr(second.ffn, "gate_proj")


def test_a_hybrid_decodes_as_it_reads() -> None:
    model = tiny_model("stack='mamba, gqa'", "position=rotary")
    text = tokens(2, 19)
    cache = model.init_cache(2, 19)
    steps = [model(part, cache=cache) for part in text.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(text), atol=2e-5, rtol=1e-4)


def test_what_a_stack_leaves_unused_is_refused() -> None:
    with pytest.raises(ConfigError, match="mixer=mqa: no part of this run uses a mixer"):
        config("stack='2*gru, mamba'", "mixer=mqa", "position=none")
    with pytest.raises(ConfigError, match="pattern=strided: no part"):
        config("stack='2*gru, mamba'", "pattern=strided", "position=none")
    assert config("stack='gru, mqa'", "pattern=strided", "position=none").choices["mixer"] == "gru, mqa"
    with pytest.raises(ConfigError, match="no part of this run uses a stack"):
        config("model=encoder_decoder", "stack='gru, mqa'")


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(ConfigError, match=r"layer mamba3: mixer=mamba3: no such option; did you mean mamba"):
        config("stack='mamba3, gqa'")


def test_a_stack_of_the_default_is_the_default() -> None:
    plain, stacked = tiny_model(), tiny_model("stack=mha")
    for (name, weight), (other, same) in zip(plain.named_parameters(), stacked.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(weight, same)


def test_what_is_said_of_a_replaced_block_is_said_of_the_others_alone() -> None:
    dense = "layers={dense:['ffn=relu']}"
    model = tiny_model("stack='dense, mha'", dense, "ffn=swiglu", "ffn.d_ff=40")
    assert [layer.ffn.up_proj.out_features for layer in model.blocks] == [48, 40]
    with pytest.raises(ConfigError, match=r"ffn\.d_ff=40: no part"):
        config("stack=dense", dense, "ffn.d_ff=40")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("layers={a:['optim=muon']}", "stack=a"), "layers.a: optim is no part of a layer"),
        (("layers={a:['mixer=gru','pattern=strided']}", "stack=a", "position=none"), "layer a: pattern=strided: no part"),
        (("layers={a:['mixer=gru'],b:[]}", "stack=a", "position=none"), "layers: b is in no stack"),
        (("layers={a:['mixer=gru']}",), "layers: a is in no stack"),
        (("layers={a:'mixer=gru'}", "stack=a"), "a list of overrides is expected"),
        (("layers={a:['block=post_norm']}", "stack=a"), "layer a: its block and the model's block= do not end alike"),
    ],
)
def test_what_a_layer_cannot_say_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        config(*words)


def test_layers_may_have_another_block_where_the_model_ends_alike() -> None:
    model = tiny_model("layers={a:['block=output_norm']}", "stack='a, mha'")
    assert [type(layer).__name__ for layer in model.blocks] == ["OutputNorm", "PreNorm"]
    assert model.final_norm is not None
