"""The tokenizer of a run as the files that transformers reads: tokenizer.json and tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..tokenizer import Tokenizer
from ..tokenizer.file import NAMES
from ..tokenizer.library import library


def save(place: Path, tokenizer: Tokenizer | None, specials: Mapping[str, int], *, longest: int) -> bool:
    """Write both, with special tokens that follow the vocabulary; whether there is a tokenizer.json that says the same.

    Args:   longest: tokens that the model reads at once.
    """
    if tokenizer is None or not (state := content(tokenizer)):
        return False
    form = library().Tokenizer.from_str(state)
    size = form.get_vocab_size(with_added_tokens=True)
    for role, token in sorted(specials.items(), key=lambda item: item[1]):
        if token >= size:
            form.add_special_tokens([NAMES[role][0]])
            if form.token_to_id(NAMES[role][0]) != token:
                return False
    (place / "tokenizer.json").write_text(form.to_str() if form.get_vocab_size() > size else state)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": longest,
        **{f"{role}_token": form.id_to_token(token) for role, token in specials.items()},
    }
    (place / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return True


def content(tokenizer: Tokenizer) -> str:
    """A tokenizer.json, or nothing. Bytes are the BPE that has merged nothing."""
    if tokenizer.settings == "bytes":
        tokenizers = library()
        form = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=byte_names(), merges=[]))
        form.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        form.decoder = tokenizers.decoders.ByteLevel()
        return str(form.to_str())
    try:
        text = tokenizer.state().decode()
        return text if "model" in json.loads(text) else ""
    except ValueError:
        return ""


def byte_names() -> dict[str, int]:
    """Each byte as its character in GPT-2's alphabet: its own where that can be printed, else one from 256 on."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {**{chr(byte): byte for byte in printed}, **{chr(256 + i): byte for i, byte in enumerate(others)}}
