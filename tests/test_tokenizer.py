"""Text to tokens and back: nothing is lost, every byte is counted, the same text always teaches the same tokens."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runs.tokenizer import BPE, Bytes, Tokenizer

ROOT = Path(__file__).parent.parent
PROSE = "".join(
    f"def walk_{i}(tree, depth={i}):\n    return [walk_{i}(branch, depth + {i}) for branch in tree]\n\n" for i in range(200)
)
AWKWARD = [
    "",
    "plain",
    "  leading and trailing \n\n\n",
    "tabs\t\tand\r\nreturns\r\r\n",
    "naïve café, 日本語, עברית, 🎉👩‍👩‍👧, e\u0301 against é",
    "\x00\x01\x7f\ufeff\ufffd<|endoftext|>",
    "x" * 200_000,
    "line\n" * 40_000,
]


def bpe(vocab_size: int = 400) -> BPE:
    tokenizer = BPE(vocab_size=vocab_size)
    tokenizer.fit([PROSE])
    return tokenizer


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Bytes() if request.param == "bytes" else bpe()


@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_any_text_comes_back_exactly(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", [PROSE, *AWKWARD], ids=range(len(AWKWARD) + 1))
def test_token_bytes_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,)
    assert tokenizer.token_bytes[tokens].sum() == len(text.encode())


def test_tokens_take_the_smallest_type(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(PROSE)
    assert tokens.dtype == (np.uint8 if tokenizer.vocab_size == 256 else np.uint16)
    assert tokens.max() < tokenizer.vocab_size


def test_a_cut_character_decodes_to_a_replacement(tokenizer: Tokenizer) -> None:
    assert "\ufffd" in tokenizer.decode(tokenizer.encode("日")[:1])


def test_restored_tokenizer_is_the_same(tokenizer: Tokenizer) -> None:
    other = Bytes() if isinstance(tokenizer, Bytes) else BPE(vocab_size=tokenizer.vocab_size)
    other.restore(tokenizer.state())
    np.testing.assert_array_equal(other.encode(PROSE), tokenizer.encode(PROSE))
    np.testing.assert_array_equal(other.token_bytes, tokenizer.token_bytes)


def test_the_commonest_pair_is_merged_first() -> None:
    tokenizer = BPE(vocab_size=258)
    tokenizer.fit(["qz " * 50 + "qzu " * 40])
    assert [tokenizer.decode([token]) for token in (256, 257)] == ["qz", " qz"]


def test_more_merges_never_make_more_tokens() -> None:
    lengths = [len(bpe(size).encode(PROSE)) for size in (257, 280, 320, 400)]
    assert len(PROSE) > lengths[0]
    assert lengths == sorted(lengths, reverse=True)


def test_training_is_the_same_in_every_process() -> None:
    code = "import hashlib, tests.test_tokenizer as t; print(hashlib.sha256(t.bpe().state()).hexdigest())"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    assert {run.stdout.strip() for run in runs} == {hashlib.sha256(bpe().state()).hexdigest()}


def test_settings_tell_apart_what_encodes_differently() -> None:
    assert len({Bytes().settings, BPE(vocab_size=300).settings, BPE(vocab_size=400).settings}) == 3


@pytest.mark.parametrize("vocab_size", [0, 256, -1])
def test_bpe_needs_more_than_the_bytes(vocab_size: int) -> None:
    with pytest.raises(ValueError, match=f"vocab_size={vocab_size}.*257 or more"):
        BPE(vocab_size=vocab_size)


def test_a_vocabulary_that_the_text_cannot_fill_is_refused() -> None:
    tokenizer = BPE(vocab_size=1000)
    with pytest.raises(ValueError, match=r"tokenizer.vocab_size=1000: this text yields only 25\d tokens; give at most 25\d"):
        tokenizer.fit(["abc"])


def test_missing_package_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match="pip install tokenizers"):
        BPE(vocab_size=300).fit([PROSE])


def test_bpe_that_has_learnt_nothing_says_so() -> None:
    with pytest.raises(RuntimeError, match="has learnt nothing yet"):
        BPE(vocab_size=300).encode("text")
