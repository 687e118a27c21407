"""Initial weights: common random numbers for arms that share a tensor."""

from __future__ import annotations

import math

import pytest
import torch

from arch import Attention, Decoder, Embedding, LayerNorm, PreNorm
from arch.contracts import Block, Cost, SequenceMixer
from arch.init import initialise, refuse_undrawable, stream
from tests.lab import tiny_model


def weights(*overrides: str) -> dict[str, torch.Tensor]:
    return dict(tiny_model(*overrides).named_parameters())


def test_arms_share_every_tensor_that_both_have() -> None:
    dense, moe = weights("ffn=dense"), weights("ffn=moe", "norm=rmsnorm")
    shared = [name for name in dense if "mixer." in name and "norm" not in name]
    assert shared
    assert all(torch.equal(dense[name], moe[name]) for name in shared)
    assert torch.equal(dense["embedding.weight"], moe["embedding.weight"])


def test_layers_and_seeds_differ_and_the_same_seed_repeats() -> None:
    zero, one = weights("seed=0"), weights("seed=1")
    name, other = "layers.0.mixer.q_proj.weight", "layers.1.mixer.q_proj.weight"
    assert torch.equal(zero[name], weights("seed=0")[name])
    assert not torch.equal(zero[name], one[name])
    assert not torch.equal(zero[name], zero[other])


def test_drawing_leaves_the_global_generator_alone() -> None:
    model = tiny_model()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    initialise(model, seed=5)
    assert torch.equal(torch.rand(2), expected)


def test_scales() -> None:
    drawn = weights("size.d_model=96", "size.n_layers=8", "size.d_ff=384", "size.n_heads=4")
    assert abs(drawn["embedding.weight"].std() * math.sqrt(96) - 1) < 0.05
    assert abs(drawn["layers.3.mixer.q_proj.weight"].std() * math.sqrt(96) - 1) < 0.05
    assert abs(drawn["layers.3.mixer.o_proj.weight"].std() * math.sqrt(96) * math.sqrt(16) - 1) < 0.05


def test_streams_depend_on_seed_and_names() -> None:
    assert stream(0, "a") == stream(0, "a") != stream(1, "a")
    assert stream(0, "a", 1) != stream(0, "a", 2)
    assert 0 <= stream(0, "x") < 2**63


def test_a_module_that_cannot_draw_its_weights_is_refused() -> None:
    class Mine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

    with pytest.raises(ValueError, match=r"Mine \(inner\) owns weights but has no reset_parameters"):
        initialise(torch.nn.ModuleDict({"inner": Mine()}), seed=0)


def test_outputs_are_scaled_by_the_sublayers_that_write_to_their_stream() -> None:
    sizes = ("size.d_model=96", "size.n_layers=4")

    def output(*overrides: str, name: str = "layers.1.mixer.o_proj.weight") -> float:
        weight = weights(*sizes, *overrides)[name]
        return weight.std().item() * math.sqrt(weight.shape[1])

    assert output() == pytest.approx(8**-0.5, rel=0.05)
    assert output("mixer=mamba", "ffn=none") == pytest.approx(4**-0.5, rel=0.05)
    assert output("block=parallel") == pytest.approx(8**-0.5, rel=0.05)
    for block in ("plain", "post_norm", "output_norm", "sandwich"):  # nothing adds up un-normalised
        assert output(f"block={block}") == pytest.approx(1, rel=0.05), block
    both = ("model=encoder_decoder",)
    assert output(*both, name="decoder.layers.1.mixer.o_proj.weight") == pytest.approx(12**-0.5, rel=0.05)
    assert output(*both, name="encoder.layers.1.mixer.o_proj.weight") == pytest.approx(8**-0.5, rel=0.05)


class Renamed(SequenceMixer):
    """A mixer whose last projection has a name of its own."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.out_proj = torch.nn.Linear(d_model, d_model)

    def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        return self.out_proj(x)

    def cost(self, seq: int) -> Cost:
        return Cost()


class Declared(Renamed):
    outputs = ("out_proj.weight",)


class Doubled(Renamed):
    """Its output is no matrix product."""

    scale = 1.0

    def scale_output(self, factor: float) -> None:
        self.scale = factor


def decoder(*mixers: SequenceMixer) -> Decoder:
    layers: list[Block] = [PreNorm(mixer=mixer, mixer_norm=LayerNorm(d_model=96)) for mixer in mixers]
    return Decoder(embedding=Embedding(d_model=96, vocab_size=5), layers=layers)


def test_the_output_is_what_a_mixer_declares_whatever_its_name() -> None:
    one, two = Declared(96), Doubled(96)
    initialise(decoder(one, two, Attention(d_model=96, n_heads=2), Declared(96)), seed=0)
    assert one.out_proj.weight.std().item() * math.sqrt(96) == pytest.approx(1 / 2, rel=0.05)
    assert one.out_proj.bias.eq(0).all()
    assert two.scale == pytest.approx(1 / 2)
    assert two.out_proj.weight.std().item() * math.sqrt(96) == pytest.approx(1, rel=0.05)


def test_a_sublayer_that_does_not_say_what_its_output_is_is_refused() -> None:
    with pytest.raises(ValueError, match=r'Renamed \(layers.1.mixer\) .* declare outputs = \("o_proj.weight",\), or \(\)'):
        initialise(decoder(Declared(96), Renamed(96)), seed=0)
    with torch.device("meta"), pytest.raises(ValueError, match="Renamed"):  # where nothing is drawn, as in a check
        refuse_undrawable(decoder(Renamed(96)))


def test_every_output_of_a_routed_ffn_is_scaled() -> None:
    sizes = ("size.d_model=96", "size.d_ff=384", "size.n_layers=4")
    drawn = weights(*sizes, "ffn=moe_shared")
    for name in ("experts.down_proj", "shared.down_proj.weight"):
        weight = drawn[f"layers.2.ffn.{name}"]
        assert weight.std().item() * math.sqrt(weight.shape[-1]) == pytest.approx(8**-0.5, rel=0.05), name


def test_a_table_under_two_names_is_drawn_as_the_first() -> None:
    shared, apart = (weights("model=encoder_decoder", f"model.shared={word}") for word in ("true", "false"))
    assert torch.equal(shared["encoder.embedding.weight"], apart["encoder.embedding.weight"])
    assert not torch.equal(apart["encoder.embedding.weight"], apart["decoder.embedding.weight"])


def test_a_compiled_layer_starts_from_the_weights_of_the_plain_one() -> None:
    plain, compiled = tiny_model(), tiny_model()
    compiled.layers[1] = torch.compile(compiled.layers[1], backend="eager")
    initialise(compiled, seed=0)
    for (name, weight), other in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        assert torch.equal(weight, other), name
