"""Whole decoders, dense and routed, a training step each: ours, one written by hand, and those that others would take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from arch.model import Decoder
from arch.ops.linear import linear

from ..build.model import build_model
from ..compose.compose import composed
from ..published import family
from ..training.compiling import compile_layers
from .by_hand import ByHand
from .case import Bar, Case, Measured, times
from .steps import drawn, step

SMALL = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "seq": 256, "batch": 8}
MEDIUM = {
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "seq": 512,
    "batch": 4,
}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "seq": 128, "batch": 8}
VOCAB = 4096


def cases() -> Iterator[Case]:
    yield dense("dense decoder, 4 layers of 256", SMALL, d_ff=688, by_hand=0.95, llama=1.25, x_transformers=1.2)
    yield dense("dense decoder, 8 layers of 512", MEDIUM, d_ff=1376, llama=1.1, matmul=0.65)
    yield routed("decoder of 8 experts, 2 chosen, 4 layers of 256", SMALL, mixtral(SMALL, d_ff=344), at_least=1.3)
    yield routed("decoder of 64 experts, 8 chosen, 4 layers of 256", SMALL, olmoe(SMALL, d_ff=86), at_least=1.4)
    yield routed("decoder of 8 experts, 2 chosen, 2 layers of 64", TINY, mixtral(TINY, d_ff=86), at_least=1.0)
    yield routed("decoder of 64 experts, 8 chosen, 2 layers of 64", TINY, olmoe(TINY, d_ff=22), at_least=1.0)


def ours(config: dict[str, Any]) -> Decoder:
    """The lab's model of a config.json."""
    run = composed(family.overrides(config)).run
    return cast(Decoder, build_model(run.model, vocab_size=run.size["vocab_size"], seed=0))


def theirs(kind: str, config: Any, model: nn.Module) -> nn.Module:
    """transformers' model of the same config, with the weights of ours."""
    import transformers

    given = config.to_dict()
    peer: nn.Module = getattr(transformers, kind)(config)
    weights = model.state_dict()
    weights = family.names(given, weights).to_theirs({name: tensor.clone() for name, tensor in weights.items()})
    peer.load_state_dict(weights, strict=False)  # what is tied is listed once, what is fixed not at all
    return peer.train()


def tokens(size: dict[str, int]) -> Tensor:
    return torch.randint(VOCAB, (size["batch"], size["seq"] + 1), generator=drawn(1))


def shape(size: dict[str, int]) -> dict[str, Any]:
    return {"vocab_size": VOCAB, **{key: value for key, value in size.items() if key not in ("seq", "batch")}}


def dense(
    name: str,
    size: dict[str, int],
    *,
    d_ff: int,
    llama: float,
    by_hand: float | None = None,
    x_transformers: float | None = None,
    matmul: float | None = None,
) -> Case:
    import transformers

    entries = {**shape(size), "intermediate_size": d_ff, "tie_word_embeddings": True, "max_position_embeddings": 1024}
    config = transformers.LlamaConfig(**entries, use_cache=False)
    model, batch = ours(config.to_dict()), tokens(size)
    n_heads, n_kv_heads = size["num_attention_heads"], size["num_key_value_heads"]
    hand = ByHand(model, n_heads=n_heads, n_kv_heads=n_kv_heads, theta=config.rope_theta, eps=config.rms_norm_eps)
    peer, compiled_peer = (theirs("LlamaForCausalLM", config, model) for _ in range(2))
    compiled = ours(config.to_dict())
    compile_layers(compiled)
    for layer in compiled_peer.model.layers:  # type: ignore[union-attr]
        layer.compile()
    side = 1024
    a, b = torch.randn(2, side, side, generator=drawn(0))
    contenders = {
        "by hand": step(hand, batch),
        "the lab's": step(model, batch),
        "transformers": step(peer, batch, logits=lambda t: peer(t).logits),
        "the lab's, compiled": step(compiled, batch),
        "transformers, compiled": step(compiled_peer, batch, logits=lambda t: compiled_peer(t).logits),
        "matrix product": lambda: [linear(a, b)],
    }
    bars = [
        Bar("transformers' time over the lab's", times("transformers", "the lab's"), at_least=llama),
        Bar("the same, both compiled", times("transformers, compiled", "the lab's, compiled"), at_least=llama),
    ]
    if by_hand is not None:
        bars.append(Bar("the lab's time over one written by hand", times("the lab's", "by hand"), at_most=by_hand))
    if x_transformers is not None:
        contenders["x-transformers"] = step(of_x_transformers(size, d_ff), batch)
        bars.append(Bar("x-transformers' time over the lab's", times("x-transformers", "the lab's"), at_least=x_transformers))
    if matmul is not None:
        flops = 3 * model.cost(size["seq"]).flops * size["batch"] * size["seq"]

        def rate(m: Measured) -> list[float]:
            pairs = zip(m.seconds["the lab's"], m.seconds["matrix product"], strict=True)
            return [flops / one / (2 * side**3 / other) for one, other in pairs]

        bars.append(Bar("FLOP/s over those of a matrix product", rate, at_least=matmul))
    twins = dict.fromkeys(("the lab's", "transformers", "the lab's, compiled", "transformers, compiled"), "by hand")
    return Case(name, contenders, bars, twins)


def of_x_transformers(size: dict[str, int], d_ff: int) -> nn.Module:
    """The same sizes and parts; its weights are its own."""
    from x_transformers import Decoder as Layers
    from x_transformers import TransformerWrapper

    width, heads = size["hidden_size"], size["num_attention_heads"]
    layers = Layers(
        dim=width,
        depth=size["num_hidden_layers"],
        heads=heads,
        attn_dim_head=width // heads,
        attn_kv_heads=size["num_key_value_heads"],
        attn_flash=True,
        rotary_pos_emb=True,
        use_rmsnorm=True,
        ff_glu=True,
        ff_swish=True,
        ff_no_bias=True,
        ff_mult=d_ff / width,
    )
    return TransformerWrapper(num_tokens=VOCAB, max_seq_len=1024, attn_layers=layers, use_abs_pos_emb=False, tie_embedding=True)


def mixtral(size: dict[str, int], *, d_ff: int) -> Any:
    import transformers

    return transformers.MixtralConfig(
        **shape(size), intermediate_size=d_ff, num_local_experts=8, num_experts_per_tok=2, use_cache=False, sliding_window=None
    )


def olmoe(size: dict[str, int], *, d_ff: int) -> Any:
    import transformers

    return transformers.OlmoeConfig(
        **shape(size), intermediate_size=d_ff, num_experts=64, num_experts_per_tok=8, use_cache=False, norm_topk_prob=False
    )


def routed(name: str, size: dict[str, int], config: Any, *, at_least: float) -> Case:
    model, batch = ours(config.to_dict()), tokens(size)
    peer = theirs(f"{type(config).__name__.removesuffix('Config')}ForCausalLM", config, model)
    contenders = {"transformers": step(peer, batch, logits=lambda t: peer(t).logits), "the lab's": step(model, batch)}
    bar = Bar("transformers' time over the lab's", times("transformers", "the lab's"), at_least=at_least)
    return Case(name, contenders, [bar], {"the lab's": "transformers"})
