"""What Llama and its descendants share: grouped heads that rotate, RMSNorm, perhaps a window; both ways."""

from __future__ import annotations

from . import rope
from .nodes import Node, Size, at, layers, norm_eps, vocab_size
from .settings import Config, flag, literal, shared, sizes, whole


def overrides(config: Config, *, theta: float = 10000.0, eps: float = 1e-6) -> list[str]:
    """theta, eps: where the config does not name them."""
    return [
        "mixer=gqa",
        f"model.tied={literal(tied(config))}",
        *shared(norm_eps=config.get("rms_norm_eps", eps), rope_theta=rope.theta(config, theta)),
        *sizes(
            d_model=config["hidden_size"],
            n_layers=config["num_hidden_layers"],
            n_heads=config["num_attention_heads"],
            n_kv_heads=n_kv_heads(config),
            d_head=d_head(config),
            vocab_size=config["vocab_size"],
            max_seq=config["max_position_embeddings"],
        ),
    ]


def config(model: Node, size: Size) -> Config:
    layer = layers(model)[0]
    mixer = layer.get("mixer")
    n_heads, d_head = at(mixer, "n_heads", size["n_heads"]), at(mixer, "d_head") or size["d_head"]
    usual = d_head * n_heads == size["d_model"]
    return {
        "hidden_act": "silu",
        "hidden_size": size["d_model"],
        "intermediate_size": at(layer, "ffn.d_ff", size["d_gated"]),
        "num_hidden_layers": len(layers(model)),
        "num_attention_heads": n_heads,
        "num_key_value_heads": at(mixer, "n_kv_heads", n_heads),
        **({} if usual else {"head_dim": d_head}),
        "vocab_size": vocab_size(model),
        "max_position_embeddings": size["max_seq"],
        "rms_norm_eps": norm_eps(layer),
        "rope_theta": at(mixer, "position.theta", 10000.0),
        "rope_scaling": rope.rope_scaling(at(mixer, "position")),
        "tie_word_embeddings": at(model, "tied", True),
    }


def window_overrides(config: Config) -> list[str]:
    window = config.get("sliding_window")
    return ["pattern=full"] if window is None else ["pattern=sliding_window", *sizes(window=window)]


def sliding_window(model: Node) -> int | None:
    window: int | None = at(layers(model)[0], "mixer.pattern.window")
    return window


def tied(config: Config) -> bool:
    return flag(config, "tie_word_embeddings")


def n_kv_heads(config: Config) -> int:
    return whole("n_kv_heads", config.get("num_key_value_heads") or config["num_attention_heads"])


def d_head(config: Config) -> int:
    if config.get("head_dim"):
        return whole("d_head", config["head_dim"])
    return whole("d_model", config["hidden_size"]) // whole("n_heads", config["num_attention_heads"])
