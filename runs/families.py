"""What a published config.json means here: the command line that builds the model, and the names of its tensors.

One function per model_type. A setting that our blocks do not express is refused; what only training reads is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from arch.position import YaRNScaling
from arch.pretrained import NameMap, bert, deepseek_v2, gpt2, llama, mamba, marian, mixtral, olmoe, phi3, qwen2

from .errors import ConfigError

MLPS = {
    "gelu": "dense",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

SCALING = "position.relative.scaling"

Config = dict[str, Any]
Names = Callable[[Collection[str]], NameMap]


@dataclass(frozen=True)
class Family:
    """overrides: of the command line that builds the model. names: the map for tensors of the given names, theirs or ours."""

    overrides: list[str]
    names: Names


def family(config: Config) -> Family:
    kind = config["model_type"]
    if kind not in FAMILIES:
        raise ConfigError(f"model_type={kind!r}: no name map for this family; there are {', '.join(FAMILIES)}")
    try:
        return FAMILIES[kind](_older(config))
    except KeyError as error:
        raise ConfigError(f"config.json of a {kind}: {error.args[0]} is missing") from None
    except ConfigError as error:
        raise ConfigError(f"config.json of a {kind}: {error}") from None


def _gpt2(config: Config) -> Family:
    _only(config, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    _only(config, tie_word_embeddings=True)
    d_model, n_layers = config["n_embd"], config["n_layer"]
    sizes = _sizes(
        d_model=d_model,
        n_layers=n_layers,
        n_heads=config["n_head"],
        d_ff=config.get("n_inner") or 4 * d_model,
        vocab_size=config["vocab_size"],
        max_seq=config["n_positions"],
    )
    shared = _shared(norm_eps=config.get("layer_norm_epsilon", 1e-5))
    return Family(
        ["model=gpt2", _mlp(config, "activation_function", "gelu_new"), *shared, *sizes],
        lambda _: gpt2.names(n_layers=n_layers),
    )


def _bert(config: Config) -> Family:
    _only(config, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False, tie_word_embeddings=True)
    _only(config, hidden_act="gelu")  # that of objective=masked_lm, whose head has one too
    n_layers = config["num_hidden_layers"]
    sizes = _sizes(
        d_model=config["hidden_size"],
        n_layers=n_layers,
        n_heads=config["num_attention_heads"],
        d_ff=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        max_seq=config["max_position_embeddings"],
    )
    more = [f"model.embedding.n_types={config['type_vocab_size']}", *_shared(norm_eps=config.get("layer_norm_eps", 1e-12))]

    def names(given: Collection[str]) -> NameMap:
        heads = [o for o, t in bert.HEADS.items() if any(name.startswith((f"heads.{o}.", f"{t}.")) for name in given)]
        return bert.names(n_layers=n_layers, heads=heads)

    return Family(["model=bert_base", *more, *sizes], names)


def _llama(config: Config) -> Family:
    _only(config, hidden_act="silu", pretraining_tp=1)
    attention_bias, ffn_bias = config.get("attention_bias", False), config.get("mlp_bias", False)
    n_layers, tied = config["num_hidden_layers"], config.get("tie_word_embeddings", False)
    more = [f"shared.attention_bias={_word(attention_bias)}", f"shared.ffn_bias={_word(ffn_bias)}"]
    return Family(
        ["model=llama2_7b", *_rotary(config), *_stretch(config), *more, f"size.d_gated={config['intermediate_size']}"],
        lambda _: llama.names(n_layers=n_layers, tied=tied, attention_bias=attention_bias, ffn_bias=ffn_bias),
    )


def _phi3(config: Config) -> Family:
    _only(config, hidden_act="silu")
    if (kind := _scaling(config)[1]) != "default":
        raise ConfigError(f"rope_scaling of type {kind!r} is not expressed here: models of this family load unstretched only")
    n_heads, d_head = config["num_attention_heads"], _d_head(config)
    n_kv_heads = config.get("num_key_value_heads") or n_heads
    n_layers, tied = config["num_hidden_layers"], config.get("tie_word_embeddings", False)
    return Family(
        [
            "model=phi3_mini",
            *_rotary(config),
            *_window(config),
            *_sizes(d_gated=config["intermediate_size"], d_rotary=int(d_head * config.get("partial_rotary_factor", 1.0))),
        ],
        lambda _: phi3.names(n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_kv_heads, d_head=d_head, tied=tied),
    )


def _qwen2(config: Config) -> Family:
    _only(config, hidden_act="silu", use_sliding_window=False)
    n_layers, tied = config["num_hidden_layers"], config.get("tie_word_embeddings", False)
    return Family(
        ["model=qwen2_5_0_5b", *_rotary(config), *_stretch(config), f"size.d_gated={config['intermediate_size']}"],
        lambda _: qwen2.names(n_layers=n_layers, tied=tied),
    )


def _mixtral(config: Config) -> Family:
    _only(config, hidden_act="silu")
    n_experts, top_k = config["num_local_experts"], config["num_experts_per_tok"]
    n_layers, tied = config["num_hidden_layers"], config.get("tie_word_embeddings", False)
    experts = _sizes(n_experts=n_experts, top_k=top_k, d_gated=top_k * config["intermediate_size"])
    return Family(
        ["model=mixtral_8x7b", *_rotary(config, theta=1e6, eps=1e-5), *_stretch(config), *_window(config), *experts],
        lambda _: mixtral.names(n_layers=n_layers, n_experts=n_experts, tied=tied),
    )


def _olmoe(config: Config) -> Family:
    _only(config, hidden_act="silu", clip_qkv=None)
    n_experts, top_k = config["num_experts"], config["num_experts_per_tok"]
    n_layers, tied = config["num_hidden_layers"], config.get("tie_word_embeddings", False)
    bias = config.get("attention_bias", False)
    experts = _sizes(n_experts=n_experts, top_k=top_k, d_gated=top_k * config["intermediate_size"])
    router = "topk_normalised" if config.get("norm_topk_prob", False) else "topk"
    more = [f"router={router}", f"shared.attention_bias={_word(bias)}"]
    return Family(
        ["model=olmoe_1b_7b", *_rotary(config, eps=1e-5), *_stretch(config), *more, *experts],
        lambda _: olmoe.names(n_layers=n_layers, n_experts=n_experts, tied=tied, attention_bias=bias),
    )


def _deepseek_v2(config: Config) -> Family:
    _only(config, hidden_act="silu", attention_bias=False, mlp_bias=False, tie_word_embeddings=False)
    _only(config, topk_method="greedy", norm_topk_prob=False, routed_scaling_factor=1.0, moe_layer_freq=1)
    _only(config, scoring_func="softmax")
    n_layers, n_dense_layers = config["num_hidden_layers"], config.get("first_k_dense_replace", 0)
    n_experts, top_k, n_shared = config["n_routed_experts"], config["num_experts_per_tok"], config["n_shared_experts"]
    n_heads, d_nope, d_rope = config["num_attention_heads"], config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    d_latent, d_q_latent = config["kv_lora_rank"], config.get("q_lora_rank")
    _only(config, num_key_value_heads=n_heads)
    sizes = _sizes(
        d_model=config["hidden_size"],
        n_layers=n_layers,
        n_heads=n_heads,
        n_shared_experts=n_shared,
        d_gated=(top_k + (n_shared or 0)) * config["moe_intermediate_size"],
        d_dense=config["intermediate_size"],
        n_experts=n_experts,
        top_k=top_k,
        d_latent=d_latent,
        d_rope=d_rope,
        vocab_size=config["vocab_size"],
        max_seq=config["max_position_embeddings"],
    )
    # Norms inside the attention ignore their rms_norm_eps.
    heads = {"d_nope": d_nope, "d_v": config["v_head_dim"], "d_q_latent": _word(d_q_latent), "eps": "1e-06"}
    shared = _shared(norm_eps=config.get("rms_norm_eps", 1e-6), rope_theta=config.get("rope_theta", 10000.0))
    n_dense_layers = min(n_dense_layers, n_layers)
    routed = [f"{n_layers - n_dense_layers}*routed"] if n_layers > n_dense_layers else []
    stack = ["dense"] * n_dense_layers + routed
    return Family(
        [
            "model=deepseek_v2_lite",
            *_deepseek_stretch(config),
            *(f"mixer.{key}={value}" for key, value in heads.items()),
            *shared,
            *sizes,
            f'stack="{", ".join(stack)}"',
        ],
        lambda _: deepseek_v2.names(
            n_layers=n_layers,
            n_dense_layers=n_dense_layers,
            n_experts=n_experts,
            n_heads=n_heads,
            d_nope=d_nope,
            d_rope=d_rope,
            d_latent=d_latent,
            q_latent=d_q_latent is not None,
        ),
    )


def _mamba(config: Config) -> Family:
    _only(config, hidden_act="silu", use_bias=False, use_conv_bias=True)
    n_layers, tied = config["num_hidden_layers"], config.get("tie_word_embeddings", True)
    rank = config.get("time_step_rank", "auto")
    mixer = {"d_state": config["state_size"], "d_conv": config["conv_kernel"], "expand": config["expand"]}
    more = [f"mixer.{key}={value}" for key, value in mixer.items()]
    more += [
        f"++mixer.dt_rank={'null' if rank == 'auto' else rank}",
        *_shared(norm_eps=config.get("layer_norm_epsilon", 1e-5)),
    ]
    sizes = _sizes(d_model=config["hidden_size"], n_layers=n_layers, vocab_size=config["vocab_size"])
    return Family(
        ["model=mamba_130m", f"model.tied={_word(tied)}", *more, *sizes],
        lambda _: mamba.names(n_layers=n_layers, tied=tied),
    )


def _marian(config: Config) -> Family:
    _only(config, share_encoder_decoder_embeddings=True, tie_word_embeddings=True, normalize_before=False)
    _only(config, normalize_embedding=False, add_final_layer_norm=False, decoder_vocab_size=config["vocab_size"])
    for ours in ("layers", "attention_heads", "ffn_dim"):
        _only(config, **{f"decoder_{ours}": config[f"encoder_{ours}"]})
    d_model, n_layers, max_seq = config["d_model"], config["encoder_layers"], config["max_position_embeddings"]
    sizes = _sizes(
        d_model=d_model,
        n_layers=n_layers,
        n_heads=config["encoder_attention_heads"],
        d_ff=config["encoder_ffn_dim"],
        vocab_size=config["vocab_size"],
        max_seq=max_seq,
    )
    more = ["++position.absolute.layout=halves", "++model.decoder.logit_bias=true", "shared.norm_eps=1e-05"]
    if not config.get("scale_embedding", False):
        more.append("model.decoder.embedding.scale=1.0")
    return Family(
        ["model=transformer_base", _mlp(config, "activation_function", "gelu"), *more, *sizes],
        lambda _: marian.names(n_layers=n_layers, n_decoder_layers=n_layers, d_model=d_model, max_seq=max_seq),
    )


FAMILIES: dict[str, Callable[[Config], Family]] = {
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


def _older(config: Config) -> Config:
    """A config as it was written before transformers 5 gathered all about rotary positions in one place."""
    if "rope_parameters" not in config:
        return config
    rope = dict(config["rope_parameters"] or {})
    moved = {key: rope.pop(key) for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    return {**config, **moved, "rope_scaling": rope}


def _rotary(config: Config, *, theta: float = 10000.0, eps: float = 1e-6) -> list[str]:
    """What Llama and its descendants share. theta, eps: where the config does not tell them."""
    sizes = _sizes(
        d_model=config["hidden_size"],
        n_layers=config["num_hidden_layers"],
        n_heads=config["num_attention_heads"],
        n_kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
        d_head=_d_head(config),
        vocab_size=config["vocab_size"],
        max_seq=config["max_position_embeddings"],
    )
    shared = _shared(norm_eps=config.get("rms_norm_eps", eps), rope_theta=config.get("rope_theta", theta))
    return ["mixer=gqa", f"model.tied={_word(config.get('tie_word_embeddings', False))}", *shared, *sizes]


RAMP = {"factor": "factor", "trained_seq": "original_max_position_embeddings"}
LLAMA3 = {**RAMP, "slow": "low_freq_factor", "fast": "high_freq_factor"}  # of ours -> theirs
YARN = {**RAMP, "slow": "beta_slow", "fast": "beta_fast"}
TURNS = {"beta_slow": 1, "beta_fast": 32}  # where YaRN's are not told


def _stretch(config: Config) -> list[str]:
    """How the rotary frequencies are stretched, in all families but DeepSeek's."""
    scaling, kind = _scaling(config)
    if kind != "yarn":
        return _stretch_but_yarn(scaling, kind, {"linear": {"factor": "factor"}, "llama3": LLAMA3})
    scaling = {**TURNS, RAMP["trained_seq"]: config["max_position_embeddings"], **scaling}
    mscale, mscale_all_dim = scaling.pop("mscale", None), scaling.pop("mscale_all_dim", None)
    temperature = scaling.pop("attention_factor", None)
    if scaling.pop("truncate", True) is not True:
        raise ConfigError("rope_scaling.truncate=false is not expressed here; only true is")
    words = _stretched(scaling, "rotary_yarn", YARN)
    if temperature is None and mscale and mscale_all_dim:  # one of them alone is not read
        both = YaRNScaling(factor=scaling["factor"], trained_seq=1, mscale=mscale, mscale_all_dim=mscale_all_dim)
        temperature = both.temperature / both.unrotated_temperature
    return [*words, f"{SCALING}.ramp=channels", f"{SCALING}.temperature={_word(temperature)}"]


def _deepseek_stretch(config: Config) -> list[str]:
    """As in DeepSeek's own code, which warms all scores; the reference implementation does not, in 4.57."""
    scaling, kind = _scaling(config)
    if kind != "yarn":
        return _stretch_but_yarn(scaling, kind, {"linear": {"factor": "factor"}}) or ["position=rotary"]
    scaling = {**TURNS, "mscale": 1.0, "mscale_all_dim": 0.0, **scaling}
    return _stretched(scaling, "rotary_deepseek", {**YARN, "mscale": "mscale", "mscale_all_dim": "mscale_all_dim"})


def _scaling(config: Config) -> tuple[Config, str]:
    """What a config says of stretching, and the name of the way."""
    scaling = {key: value for key, value in (config.get("rope_scaling") or {}).items() if value is not None}
    kind = scaling.pop("type", "default")
    return scaling, scaling.pop("rope_type", kind)


def _stretch_but_yarn(scaling: Config, kind: str, keys: dict[str, dict[str, str]]) -> list[str]:
    if kind == "default":
        return []
    if kind not in keys:
        raise ConfigError(f"rope_scaling of type {kind!r} is not expressed here; {', '.join(keys)} and yarn are")
    return _stretched(scaling, f"rotary_{kind}", keys[kind])


def _stretched(scaling: Config, option: str, keys: dict[str, str]) -> list[str]:
    if unknown := scaling.keys() - {*keys.values(), "finetuned"}:
        raise ConfigError(f"rope_scaling.{min(unknown)}={scaling[min(unknown)]!r} is not expressed here")
    words = [f"position={option}"]
    for ours, theirs in keys.items():
        if not isinstance(value := scaling[theirs], (int, float)) or value < 0:
            raise ConfigError(f"rope_scaling.{theirs} is {value!r}; a number is expected")
        words.append(f"{SCALING}.{ours}={value}")
    return words


def _d_head(config: Config) -> int:
    d_head: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return d_head


def _window(config: Config) -> list[str]:
    window = config.get("sliding_window")
    return ["pattern=full"] if window is None else ["pattern=sliding_window", f"size.window={window}"]


def _mlp(config: Config, key: str, default: str) -> str:
    activation = config.get(key, default)
    if activation not in MLPS:
        raise ConfigError(f"{key}={activation!r} is not expressed here; {', '.join(MLPS)} are")
    return f"ffn={MLPS[activation]}"


def _only(config: Config, **expressed: Any) -> None:
    """Refuse settings of which only one value is expressed; a config that does not name them has that one."""
    for key, value in expressed.items():
        if config.get(key, value) != value:
            raise ConfigError(f"{key}={config[key]!r} is not expressed here; only {value!r} is")


def _sizes(**sizes: Any) -> list[str]:
    for key, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{key} would be {value!r}; a whole number from 1 is expected")
    return [f"size.{key}={value}" for key, value in sizes.items()]


def _shared(**numbers: Any) -> list[str]:
    for key, value in numbers.items():
        if not isinstance(value, (int, float)):
            raise ConfigError(f"{key} would be {value!r}; a number is expected")
    return [f"shared.{key}={value}" for key, value in numbers.items()]


def _word(value: Any) -> str:
    """As a config file writes it."""
    return json.dumps(value)
