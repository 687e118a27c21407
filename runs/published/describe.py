"""A model of ours in the words of its family's config.json: the inverse of runs.published.families.

What is described need not be all that the model is: build the described model, and see whether it is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..build.errors import ConfigError
from ..build.stack import parse, tiled
from .families import FAMILIES, LLAMA3, MLPS, YARN

Config = dict[str, Any]
ARCHITECTURES = {
    "bert": "BertModel",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mamba": "MambaForCausalLM",
    "marian": "MarianMTModel",
    "mixtral": "MixtralForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
NAMED = {"transformer": "marian"}  # models here that are named otherwise than their family


def family_of(model: str) -> str:
    """The model_type of one of the models in conf/model. Raises ConfigError: it is of no family that has a name map."""
    for beginning, kind in {**{kind: kind for kind in FAMILIES}, **NAMED}.items():
        if model.startswith(beginning):
            return kind
    raise ConfigError(f"model={model} belongs to no published layout; name the one to write, as in family=llama")


def describe(kind: str, config: Config) -> Config:
    """The config.json of a family for the model of a resolved config whose size.vocab_size is told."""
    if kind not in DESCRIBED:
        raise ConfigError(f"family={kind}: no name map for this family; there are {', '.join(DESCRIBED)}")
    return {
        "model_type": kind,
        "architectures": [ARCHITECTURES[kind]],
        **DESCRIBED[kind](config, stacked(config, readers(config))),
    }


def readers(config: Config) -> str | None:
    """The line that tells the layers; of an encoder-decoder, those that read."""
    line: str | None = _at(config["model"], "encoder.layers", config["model"].get("layers"))
    return line


def stacked(config: Config, line: str | None) -> list[Config]:
    """What each layer of such a line is made of, first to last."""
    n_layers = config["size"]["n_layers"]
    names = [None] * n_layers if line is None else tiled(parse(line), n_layers)
    return [config["block"] if name is None else config["layers"][name] for name in names]


def _gpt2(config: Config, layers: list[Config]) -> Config:
    size = config["size"]
    return {
        "n_embd": size["d_model"],
        "n_layer": size["n_layers"],
        "n_head": size["n_heads"],
        "n_inner": _at(layers[0], "ffn.d_ff", size["d_ff"]),
        "n_positions": size["max_seq"],
        "vocab_size": size["vocab_size"],
        "layer_norm_epsilon": _eps(config, layers),
        "activation_function": _activation(layers[0]),
        "tie_word_embeddings": True,
    }


def _bert(config: Config, layers: list[Config]) -> Config:
    size = config["size"]
    return {
        "hidden_size": size["d_model"],
        "num_hidden_layers": size["n_layers"],
        "num_attention_heads": size["n_heads"],
        "intermediate_size": _at(layers[0], "ffn.d_ff", size["d_ff"]),
        "max_position_embeddings": size["max_seq"],
        "vocab_size": size["vocab_size"],
        "type_vocab_size": _at(config, "model.embedding.n_types") or 1,
        "layer_norm_eps": _eps(config, layers),
        "hidden_act": "gelu",
    }


def _llama(config: Config, layers: list[Config]) -> Config:
    biases = {"attention_bias": _at(layers[0], "mixer.bias") is True, "mlp_bias": _at(layers[0], "ffn.bias") is True}
    return {**_rotary(config, layers), **biases}


def _phi3(config: Config, layers: list[Config]) -> Config:
    d_head, d_rotary = (_at(layers[0], f"mixer.position.{key}") or config["size"]["d_head"] for key in ("d_head", "d_rotary"))
    share = d_rotary / d_head
    share = share if int(share * d_head) == d_rotary else math.nextafter(share, 1)  # they cut off what is behind the point
    window = {"sliding_window": _at(layers[0], "mixer.pattern.window")}
    return {**_rotary(config, layers), **window, "partial_rotary_factor": share}


def _qwen2(config: Config, layers: list[Config]) -> Config:
    return {**_rotary(config, layers), "use_sliding_window": False}


def _mixtral(config: Config, layers: list[Config]) -> Config:
    experts = _experts(config, layers[0].get("ffn"), "num_local_experts", "intermediate_size")
    return {**_rotary(config, layers), **experts, "sliding_window": _at(layers[0], "mixer.pattern.window")}


def _olmoe(config: Config, layers: list[Config]) -> Config:
    return {
        **_rotary(config, layers),
        **_experts(config, layers[0].get("ffn"), "num_experts", "intermediate_size"),
        "norm_topk_prob": _at(layers[0], "ffn.router.softmax") == "after",
        "attention_bias": _at(layers[0], "mixer.bias") is True,
        "clip_qkv": None,
    }


def _deepseek_v2(config: Config, layers: list[Config]) -> Config:
    size, mixer = config["size"], layers[0]["mixer"]
    routed = ["experts" in (layer.get("ffn") or {}) for layer in layers]
    n_dense = routed.index(True) if True in routed else len(layers)
    ffn = layers[n_dense]["ffn"] if True in routed else _at(config, "layers.routed.ffn", {})  # where there is but one layer
    experts = _experts(config, ffn, "n_routed_experts", "moe_intermediate_size")
    common = _rotary(config, layers)
    common.pop("head_dim", None)  # of no channels of theirs
    return {
        **common,
        **experts,
        "num_key_value_heads": common["num_attention_heads"],
        "rope_scaling": _stretch(mixer, {"mscale": "mscale", "mscale_all_dim": "mscale_all_dim"}),
        "intermediate_size": _at(layers[0], "ffn.d_ff", size["d_dense"]),
        "first_k_dense_replace": n_dense,
        "n_shared_experts": _at(ffn, "shared.d_ff", experts["moe_intermediate_size"]) // experts["moe_intermediate_size"],
        "kv_lora_rank": _at(mixer, "d_latent", size["d_latent"]),
        "q_lora_rank": _at(mixer, "d_q_latent"),
        "qk_nope_head_dim": _at(mixer, "d_nope", size["d_head"]),
        "qk_rope_head_dim": _at(mixer, "d_rope", size["d_rope"]),
        "v_head_dim": _at(mixer, "d_v", size["d_head"]),
        "moe_layer_freq": 1,
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "scoring_func": "softmax",
        "topk_method": "greedy",
    }


def _mamba(config: Config, layers: list[Config]) -> Config:
    size, mixer = config["size"], layers[0]["mixer"]
    return {
        "hidden_size": size["d_model"],
        "num_hidden_layers": size["n_layers"],
        "vocab_size": size["vocab_size"],
        "layer_norm_epsilon": _eps(config, layers),
        "tie_word_embeddings": config["model"].get("tied", True),
        "state_size": _at(mixer, "d_state", 16),
        "conv_kernel": _at(mixer, "d_conv", 4),
        "expand": _at(mixer, "expand", 2),
        "time_step_rank": _at(mixer, "dt_rank") or "auto",
        "hidden_act": "silu",
        "use_bias": False,
        "use_conv_bias": True,
    }


def _marian(config: Config, layers: list[Config]) -> Config:
    size = config["size"]
    halves = {
        "layers": size["n_layers"],
        "attention_heads": size["n_heads"],
        "ffn_dim": _at(layers[0], "ffn.d_ff", size["d_ff"]),
    }
    return {
        **{f"{half}_{key}": value for half in ("encoder", "decoder") for key, value in halves.items()},
        "d_model": size["d_model"],
        "vocab_size": size["vocab_size"],
        "decoder_vocab_size": size["vocab_size"],
        "max_position_embeddings": size["max_seq"],
        "scale_embedding": _at(config, "model.decoder.embedding.scale", 1.0) != 1.0,
        "activation_function": _activation(layers[0]),
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "forced_eos_token_id": None,
    }


DESCRIBED: dict[str, Callable[[Config, list[Config]], Config]] = {
    "bert": _bert,
    "deepseek_v2": _deepseek_v2,
    "gpt2": _gpt2,
    "llama": _llama,
    "mamba": _mamba,
    "marian": _marian,
    "mixtral": _mixtral,
    "olmoe": _olmoe,
    "phi3": _phi3,
    "qwen2": _qwen2,
}


def _rotary(config: Config, layers: list[Config]) -> Config:
    """What Llama and its descendants share."""
    size, mixer = config["size"], layers[0]["mixer"]
    n_heads, d_head = _at(mixer, "n_heads", size["n_heads"]), _at(mixer, "d_head") or size["d_head"]
    usual = d_head * n_heads == size["d_model"]
    return {
        "hidden_act": "silu",
        "hidden_size": size["d_model"],
        "intermediate_size": _at(layers[0], "ffn.d_ff", size["d_gated"]),
        "num_hidden_layers": size["n_layers"],
        "num_attention_heads": n_heads,
        "num_key_value_heads": _at(mixer, "n_kv_heads") or n_heads,
        **({} if usual else {"head_dim": d_head}),
        "vocab_size": size["vocab_size"],
        "max_position_embeddings": size["max_seq"],
        "rms_norm_eps": _eps(config, layers),
        "rope_theta": _at(mixer, "position.theta", config["shared"]["rope_theta"]),
        "rope_scaling": _stretch(mixer, {"temperature": "attention_factor"}),
        "tie_word_embeddings": config["model"].get("tied", True),
    }


def _stretch(mixer: Config, warmth: dict[str, str]) -> Config | None:
    """rope_scaling. warmth: what YaRN's temperatures are called, ours -> theirs."""
    scaling = _at(mixer, "position.scaling") or {}
    name = scaling.get("_target_", "").rpartition(".")[2]
    kinds = {"LinearScaling": ("linear", {"factor": "factor"}), "Llama3Scaling": ("llama3", LLAMA3)}
    kind, keys = {**kinds, "YaRNScaling": ("yarn", YARN | warmth)}.get(name, ("", {}))
    told = {theirs: scaling.get(ours) for ours, theirs in keys.items()}
    return {"rope_type": kind, **{key: value for key, value in told.items() if value is not None}} if kind else None


def _experts(config: Config, ffn: Any, count: str, width: str) -> Config:
    size = config["size"]
    return {
        count: _at(ffn, "experts.n_experts", size["n_experts"]),
        "num_experts_per_tok": _at(ffn, "router.top_k", size["top_k"]),
        width: _at(ffn, "experts.d_ff", size["d_gated"]),
    }


def _activation(layer: Config) -> str:
    activation = _at(layer, "ffn.activation", "gelu")
    names = {"gelu_tanh": "gelu_new", **{ours: theirs for theirs, ours in MLPS.items() if ours not in ("dense", "gelu_tanh")}}
    return {**names, "gelu": "gelu", "silu": "silu"}.get(activation, activation)


def _eps(config: Config, layers: list[Config]) -> float:
    eps: float = _at(layers[0], "mixer_norm.eps", config["shared"]["norm_eps"])
    return eps


def _at(node: Any, path: str, default: Any = None) -> Any:
    """What lies at a dotted path, where there is such a place."""
    for key in path.split("."):
        if not isinstance(node, dict) or key not in node:
            return default
        node = node[key]
    return node
