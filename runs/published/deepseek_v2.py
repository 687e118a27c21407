"""DeepSeek-V2, its models that choose experts without groups (V2-Lite)."""

from __future__ import annotations

from collections.abc import Collection

from arch.pretrained import NameMap, deepseek_v2

from . import experts, rope
from .family import Family
from .nodes import Node, Size, at, layers, norm_eps, vocab_size
from .settings import Config, only, shared, sizes, whole, wholes

TEMPERATURES = {"mscale": "mscale", "mscale_all_dim": "mscale_all_dim"}


def overrides(config: Config) -> list[str]:
    n_heads, n_layers, n_dense = config["num_attention_heads"], config["num_hidden_layers"], n_dense_layers(config)
    only(config, hidden_act="silu", attention_bias=False, mlp_bias=False, tie_word_embeddings=False)
    only(config, topk_method="greedy", norm_topk_prob=False, routed_scaling_factor=1.0, moe_layer_freq=1)
    only(config, scoring_func="softmax", num_key_value_heads=n_heads)
    d_q_latent = config.get("q_lora_rank")
    kinds = {"dense": n_dense, "routed": n_layers - n_dense}
    return [
        "model=deepseek_v2_lite",
        *scaling_overrides(config),
        *wholes("mixer", d_nope=config["qk_nope_head_dim"], d_v=config["v_head_dim"]),
        *(["mixer.d_q_latent=null"] if d_q_latent is None else wholes("mixer", d_q_latent=d_q_latent)),
        "mixer.eps=1e-06",  # of the norms inside the attention, whatever rms_norm_eps says of the others
        *shared(norm_eps=config.get("rms_norm_eps", 1e-6), rope_theta=rope.theta(config)),
        *sizes(
            d_model=config["hidden_size"],
            n_layers=n_layers,
            n_heads=n_heads,
            n_shared_experts=config["n_shared_experts"],
            d_dense=config["intermediate_size"],
            d_latent=config["kv_lora_rank"],
            d_rope=config["qk_rope_head_dim"],
            vocab_size=config["vocab_size"],
            max_seq=config["max_position_embeddings"],
        ),
        *experts.overrides(
            n_experts=config["n_routed_experts"],
            top_k=config["num_experts_per_tok"],
            d_ff=config["moe_intermediate_size"],
            n_shared=config["n_shared_experts"],
        ),
        f'stack="{", ".join(f"{n}*{kind}" for kind, n in kinds.items() if n)}"',
    ]


def scaling_overrides(config: Config) -> list[str]:
    """As in DeepSeek's own code, where a temperature scales all scores; the reference implementation lacks it, in 4.57."""
    found, kind = rope.scaling(config)
    if kind != "yarn":
        return rope.overrides_but_yarn(found, kind, {"linear": rope.LINEAR}) or ["position=rotary"]
    found = {**rope.BETAS, "mscale": 1.0, "mscale_all_dim": 0.0, **found}
    return rope.scaled(found, "rotary_deepseek", {**rope.YARN, **TEMPERATURES})


def n_dense_layers(config: Config) -> int:
    found = whole("first_k_dense_replace", config.get("first_k_dense_replace", 0), least=0)
    return min(found, whole("n_layers", config["num_hidden_layers"]))


def n_matrices(config: Config) -> int:
    return (config["num_hidden_layers"] - n_dense_layers(config)) * int(config["n_routed_experts"])


def names(config: Config, tensors: Collection[str]) -> NameMap:
    return deepseek_v2.names(
        n_layers=config["num_hidden_layers"],
        n_dense_layers=n_dense_layers(config),
        n_experts=config["n_routed_experts"],
        n_heads=config["num_attention_heads"],
        d_nope=config["qk_nope_head_dim"],
        d_rope=config["qk_rope_head_dim"],
        d_latent=config["kv_lora_rank"],
        q_latent=config.get("q_lora_rank") is not None,
    )


def config(model: Node, size: Size) -> Config:
    stack = layers(model)
    mixer = stack[0].get("mixer")
    routed = [i for i, layer in enumerate(stack) if at(layer, "ffn.experts") is not None]
    ffn = stack[routed[0]]["ffn"] if routed else None
    moe = experts.config(
        ffn, size, n_experts="n_routed_experts", d_ff="moe_intermediate_size", n_shared=size["n_shared_experts"]
    )
    d_ff = moe["moe_intermediate_size"]
    return {
        "hidden_act": "silu",
        "hidden_size": size["d_model"],
        "intermediate_size": at(stack[0], "ffn.d_ff", size["d_dense"]),
        "num_hidden_layers": len(stack),
        "num_attention_heads": at(mixer, "n_heads", size["n_heads"]),
        "num_key_value_heads": at(mixer, "n_heads", size["n_heads"]),
        "vocab_size": vocab_size(model),
        "max_position_embeddings": size["max_seq"],
        "rms_norm_eps": norm_eps(stack[0]),
        "rope_theta": at(mixer, "position.theta", 10000.0),
        "rope_scaling": rope.rope_scaling(at(mixer, "position"), TEMPERATURES),
        "tie_word_embeddings": at(model, "tied", True),
        "kv_lora_rank": at(mixer, "d_latent", size["d_latent"]),
        "q_lora_rank": at(mixer, "d_q_latent"),
        "qk_nope_head_dim": at(mixer, "d_nope", size["d_head"]),
        "qk_rope_head_dim": at(mixer, "d_rope", size["d_rope"]),
        "v_head_dim": at(mixer, "d_v", size["d_head"]),
        "first_k_dense_replace": routed[0] if routed else len(stack),
        **moe,
        "n_shared_experts": at(ffn, "shared.d_ff", size["n_shared_experts"] * d_ff) // d_ff,
        "moe_layer_freq": 1,
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "scoring_func": "softmax",
        "topk_method": "greedy",
    }


FAMILY = Family(
    model_type="deepseek_v2",
    architecture="DeepseekV2ForCausalLM",
    overrides=overrides,
    names=names,
    n_matrices=n_matrices,
    config=config,
)
