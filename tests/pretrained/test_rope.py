"""The rotary frequencies of published configs against the reference implementation's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from arch import Position
from runs.build.objects import build
from runs.published.folder import overrides
from tests.pretrained.ours import made
from tests.pretrained.peers import transformers
from tests.pretrained.test_published import PUBLISHED

LLAMA31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN4 = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
CONFIGS: dict[str, dict[str, Any]] = {
    "Llama 3": PUBLISHED["llama3_8b"],
    "Llama 3.1": PUBLISHED["llama3_8b"]
    | {"max_position_embeddings": 131072, "rope_scaling": {**LLAMA31, "original_max_position_embeddings": 8192}},
    "Llama 3.2": PUBLISHED["llama3_8b"]
    | {"rope_scaling": {**LLAMA31, "factor": 32.0, "original_max_position_embeddings": 8192}, "hidden_size": 2048},
    "Llama 2, 32k": PUBLISHED["llama2_7b"] | {"rope_scaling": {"type": "linear", "factor": 8.0}},
    "Llama 2, 128k": PUBLISHED["llama2_7b"]
    | {"rope_scaling": {"type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "finetuned": True}},
    "Qwen 2.5, long": PUBLISHED["qwen2_5_0_5b"] | {"rope_scaling": YARN4},
    "Qwen 2.5, longer than its ramp": PUBLISHED["qwen2_5_0_5b"] | {"rope_scaling": {**YARN4, "beta_slow": 1e-9}},
    "Phi-4-mini, unstretched": PUBLISHED["phi3_mini"] | {"partial_rotary_factor": 0.75, "hidden_size": 4096},
    "DeepSeek-V2-Lite": PUBLISHED["deepseek_v2_lite"],
}


def rotary(name: str) -> Any:
    return build(made(tuple(overrides(CONFIGS[name]))).model["layers"][0]["mixer"]["position"], "position", Position)


@pytest.mark.parametrize("name", CONFIGS)
def test_frequencies_and_temperature_are_the_references(name: str) -> None:
    settings = (
        CONFIGS[name]
        if CONFIGS[name].get("rope_scaling") is None
        else {**CONFIGS[name], "rope_scaling": {**CONFIGS[name]["rope_scaling"]}}
    )
    theirs = transformers.AutoConfig.for_model(**settings)
    kind = (theirs.rope_scaling or {}).get("rope_type", "default")
    expected, temperature = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[kind](theirs, "cpu")
    ours = rotary(name)
    frequencies = ours.frequencies.tensor
    torch.testing.assert_close(frequencies[len(frequencies) // 2 :], expected, rtol=2e-6, atol=0)
    assert ours.temperature / ours.unrotated_temperature == pytest.approx(temperature)


def test_all_scores_of_deepseek_v2_lite_are_warmed_as_in_its_own_code() -> None:
    ours = rotary("DeepSeek-V2-Lite")
    factor = (0.1 * 0.707 * math.log(40) + 1) ** 2
    assert factor == pytest.approx(1.5896, abs=1e-4)
    assert ours.unrotated_temperature**2 == pytest.approx(factor)
    assert ours.temperature == ours.unrotated_temperature
