"""What the published config.json of each model says is what model=<name> builds, and what we do not express is refused."""

from __future__ import annotations

from typing import Any

import pytest

from runs.build.errors import ConfigError
from runs.published.family import config_of, families, overrides
from tests.lab import config
from tests.pretrained.ours import made

LLAMA = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-05,
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 1024,
        "vocab_size": 50257,
    },
    "bert_base": {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "type_vocab_size": 2,
        "vocab_size": 30522,
    },
    "llama2_7b": LLAMA,
    "llama3_8b": LLAMA
    | {
        "intermediate_size": 14336,
        "max_position_embeddings": 8192,
        "num_key_value_heads": 8,
        "rope_theta": 500000.0,
        "vocab_size": 128256,
    },
    "phi3_mini": LLAMA
    | {
        "model_type": "phi3",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "rope_theta": 10000.0,
        "sliding_window": 2047,
        "vocab_size": 32064,
    },
    "qwen2_5_0_5b": {
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "max_window_layers": 24,
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "mixtral_8x7b": LLAMA
    | {
        "model_type": "mixtral",
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "num_experts_per_tok": 2,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "rope_theta": 1000000.0,
        "sliding_window": None,
    },
    "olmoe_1b_7b": {
        "model_type": "olmoe",
        "clip_qkv": None,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 1024,
        "max_position_embeddings": 4096,
        "norm_topk_prob": False,
        "num_attention_heads": 16,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 16,
        "num_key_value_heads": 16,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": 50304,
    },
    "deepseek_v2_lite": {
        "model_type": "deepseek_v2",
        "first_k_dense_replace": 1,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "kv_lora_rank": 512,
        "max_position_embeddings": 163840,
        "moe_intermediate_size": 1408,
        "moe_layer_freq": 1,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "norm_topk_prob": False,
        "num_attention_heads": 16,
        "num_experts_per_tok": 6,
        "num_hidden_layers": 27,
        "num_key_value_heads": 16,
        "q_lora_rank": None,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "beta_fast": 32,
            "beta_slow": 1,
            "factor": 40,
            "mscale": 0.707,
            "mscale_all_dim": 0.707,
            "original_max_position_embeddings": 4096,
            "type": "yarn",
        },
        "rope_theta": 10000,
        "routed_scaling_factor": 1.0,
        "scoring_func": "softmax",
        "tie_word_embeddings": False,
        "topk_method": "greedy",
        "v_head_dim": 128,
        "vocab_size": 102400,
    },
    "mamba_130m": {
        "model_type": "mamba",
        "conv_kernel": 4,
        "expand": 2,
        "hidden_act": "silu",
        "hidden_size": 768,
        "layer_norm_epsilon": 1e-05,
        "num_hidden_layers": 24,
        "state_size": 16,
        "time_step_rank": 48,
        "use_bias": False,
        "use_conv_bias": True,
        "vocab_size": 50280,
    },
}
YARN = PUBLISHED["deepseek_v2_lite"]["rope_scaling"]


def agrees(built: Any, named: Any) -> bool:
    """Everything that the named model sets is set alike; what is set besides are values that it leaves at their defaults."""
    if isinstance(named, dict) and isinstance(built, dict):
        return all(key in built and agrees(built[key], value) for key, value in named.items())
    if isinstance(named, list) and isinstance(built, list):
        return len(built) == len(named) and all(map(agrees, built, named))
    return bool(built == named)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_the_model_of_that_name(name: str) -> None:
    built, named = made(tuple(overrides(PUBLISHED[name]))), config(f"model={name}")
    assert agrees(built.model, named.model)
    assert agrees(built.shared, named.shared)
    assert all(built.size[key] == named.size[key] for key in ("d_model", "n_layers", "max_seq", "vocab_size"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_is_described_as_its_published_config_does(name: str) -> None:
    published = PUBLISHED[name]
    run = made(tuple(overrides(published)))
    built = config_of(families()[run.family], run.model, run.size)
    assert built["model_type"] == published["model_type"]
    assert published.keys() - built.keys() <= {"pretraining_tp", "max_window_layers"} | ({"sliding_window"} & published.keys())
    if scaling := published.get("rope_scaling"):
        published = published | {
            "rope_scaling": {"rope_type": scaling["type"], **{k: scaling[k] for k in scaling if k != "type"}}
        }
    assert {key: built[key] for key in built.keys() & published.keys()} == {
        key: published[key] for key in built.keys() & published.keys()
    }


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "only False is"),
        ("gpt2", {"activation_function": "tanh"}, "activation_function='tanh' is not expressed here; gelu, gelu_new"),
        ("bert_base", {"position_embedding_type": "relative_key"}, "only 'absolute' is"),
        ("bert_base", {"hidden_act": "gelu_new"}, "only 'gelu' is"),
        ("llama2_7b", {"rope_scaling": {"rope_type": "dynamic", "factor": 8.0}}, "'dynamic' is not .* linear, llama3 and yarn"),
        ("llama2_7b", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "original_max_position_embeddings is missing"),
        ("llama2_7b", {"rope_scaling": {"rope_type": "linear", "factor": "8"}}, "rope_scaling.factor would be '8'; a number"),
        ("llama2_7b", {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3}}, "rope_scaling.beta_fast=3 is"),
        ("llama2_7b", {"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "truncate": False}}, "truncate=false is not"),
        ("phi3_mini", {"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "'longrope' is not .* unscaled only"),
        ("qwen2_5_0_5b", {"use_sliding_window": True}, "only False is"),
        ("olmoe_1b_7b", {"clip_qkv": 8.0}, "only None is"),
        ("deepseek_v2_lite", {"topk_method": "group_limited_greedy"}, "only 'greedy' is"),
        ("deepseek_v2_lite", {"routed_scaling_factor": 16.0}, "only 1.0 is"),
        ("deepseek_v2_lite", {"n_shared_experts": None}, "n_shared_experts would be None; a whole number from 1"),
        ("deepseek_v2_lite", {"rope_scaling": {"type": "llama3", "factor": 8.0}}, "'llama3' is not .* linear and yarn"),
        (
            "deepseek_v2_lite",
            {"rope_scaling": YARN | {"attention_factor": 2.0}},
            "rope_scaling.attention_factor=2.0 is not",
        ),
        ("llama2_7b", {"attention_bias": "qkv"}, "attention_bias is 'qkv'; true or false is expected"),
        ("llama2_7b", {"tie_word_embeddings": "${seed}"}, "tie_word_embeddings is '\\${seed}'; true or false is expected"),
        ("mamba_130m", {"state_size": "${size.n_layers}"}, "d_state would be '\\${size.n_layers}'; a whole number from 1"),
        ("phi3_mini", {"partial_rotary_factor": "0.5"}, "partial_rotary_factor would be '0.5'; a number is expected"),
        ("deepseek_v2_lite", {"first_k_dense_replace": "1"}, "first_k_dense_replace would be '1'; a whole number"),
        ("mixtral_8x7b", {"intermediate_size": None}, "the width of an expert would be None; a whole number from 1"),
        ("mamba_130m", {"use_bias": True}, "only False is"),
        ("mamba_130m", {"hidden_act": "relu"}, "only 'silu' is"),
    ],
)
def test_a_setting_that_is_not_expressed_is_refused(name: str, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        overrides(PUBLISHED[name] | setting)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["llama3_8b", "qwen2_5_0_5b", "deepseek_v2_lite"])
def test_what_transformers_5_gathers_in_one_place_is_read_alike(name: str) -> None:
    old = PUBLISHED[name]
    new = {key: value for key, value in old.items() if key not in ("rope_theta", "rope_scaling")}
    new["rope_parameters"] = {"rope_type": "default", **(old.get("rope_scaling") or {}), "rope_theta": old["rope_theta"]}
    if "type" in new["rope_parameters"]:
        new["rope_parameters"]["rope_type"] = new["rope_parameters"].pop("type")
    assert overrides(new) == overrides(old)
