"""Toy models of the reference implementation, with weights far from any special value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers", reason="the reference implementation comes with the extra 'peers'")
transformers.logging.set_verbosity_error()  # it reports the kernels it lacks

VOCAB = 61
LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}


def toy(name: str, config: str, seed: int = 0, **settings: Any) -> Any:
    """A model of that class in evaluation mode; every number of it is drawn, those of norms and biases too."""
    model = getattr(transformers, name)(getattr(transformers, config)(**settings)).eval()
    randomise(model, seed)
    return model


def randomise(model: nn.Module, seed: int) -> None:
    """Draw all that is learnt anew, ours or theirs; A_log is a rate, which stays near where it starts."""
    generator = torch.Generator().manual_seed(seed)
    biases = ((name, tensor) for name, tensor in model.named_buffers() if name == "final_logits_bias")
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *biases):
            if "embed_positions" in name:  # what a formula gives
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.dim() < 2 or tensor.shape[0] == 1 or "A_log" in name:
                tensor.add_(noise, alpha=0.2)
            else:
                tensor.copy_(noise * tensor.shape[-1] ** -0.5)


def gpt2(**more: Any) -> Any:
    sizes = {"vocab_size": VOCAB, "n_embd": 48, "n_layer": 2, "n_head": 3, "n_positions": 40, "n_inner": 100}
    return toy("GPT2LMHeadModel", "GPT2Config", **{**sizes, "attn_implementation": "eager", **more})


def bert(name: str = "BertForPreTraining", **more: Any) -> Any:
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 50,
        "max_position_embeddings": 40,
        "attn_implementation": "eager",
    }
    return toy(name, "BertConfig", **{**sizes, **more})


def llama(**more: Any) -> Any:
    return toy("LlamaForCausalLM", "LlamaConfig", **{**LLAMA, "rope_theta": 500.0, "rms_norm_eps": 1e-5, **more})


LINEAR = {"rope_type": "linear", "factor": 3.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 5.0, "original_max_position_embeddings": 64, "beta_fast": 7.0, "beta_slow": 0.3}


def phi3(**more: Any) -> Any:
    settings = {**LLAMA, "sliding_window": 7, "bos_token_id": 1, "eos_token_id": 2, **more}
    return toy("Phi3ForCausalLM", "Phi3Config", **settings)


def qwen2(**more: Any) -> Any:
    return toy("Qwen2ForCausalLM", "Qwen2Config", **{**LLAMA, "tie_word_embeddings": True, "rope_theta": 1e6, **more})


def mixtral(**more: Any) -> Any:
    experts = {"num_local_experts": 5, "num_experts_per_tok": 2}
    return toy("MixtralForCausalLM", "MixtralConfig", **{**LLAMA, **experts, "sliding_window": None, **more})


def olmoe(**more: Any) -> Any:
    experts = {"num_experts": 7, "num_experts_per_tok": 3}
    return toy("OlmoeForCausalLM", "OlmoeConfig", **{**LLAMA, **experts, "num_key_value_heads": 6, "eos_token_id": 2, **more})


def deepseek_v2(**more: Any) -> Any:
    settings = {
        **LLAMA,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "first_k_dense_replace": 1,
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "n_shared_experts": 2,
        "moe_intermediate_size": 20,
        "kv_lora_rank": 20,
        "q_lora_rank": None,
        "qk_nope_head_dim": 10,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        **more,
    }
    return toy("DeepseekV2ForCausalLM", "DeepseekV2Config", **settings)


def warmed_deepseek_v2(**more: Any) -> Any:
    """All scores warmed, as in DeepSeek's own code: softmax_scale * (0.1 * mscale_all_dim * ln(factor) + 1)^2.

    Release 4.57 of the reference lacks the square; cos and sin it scales as they do."""
    model = deepseek_v2(rope_scaling={**YARN, "mscale": 0.707, "mscale_all_dim": 1.3, **more})
    for layer in model.model.layers:
        assert layer.self_attn.scaling == 18**-0.5, "this release scales all scores itself"
        layer.self_attn.scaling *= (0.1 * 1.3 * math.log(5.0) + 1) ** 2
    return model


def mamba(**more: Any) -> Any:
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 36,
        "num_hidden_layers": 2,
        "state_size": 6,
        "conv_kernel": 3,
        "pad_token_id": 0,
    }
    return toy("MambaForCausalLM", "MambaConfig", **{**sizes, **more})


def marian(**more: Any) -> Any:
    settings = {
        "vocab_size": VOCAB,
        "d_model": 36,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 3,
        "decoder_attention_heads": 3,
        "encoder_ffn_dim": 50,
        "decoder_ffn_dim": 50,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
        "forced_eos_token_id": None,
        "scale_embedding": True,
        "activation_function": "relu",
        "attn_implementation": "eager",
        **more,
    }
    return toy("MarianMTModel", "MarianConfig", **settings)


FAMILIES: dict[str, Callable[..., Any]] = {
    make.__name__: make for make in (gpt2, bert, llama, phi3, qwen2, mixtral, olmoe, deepseek_v2, mamba, marian)
}
