"""Text to tokens and back: nothing is lost, every byte is counted, the same text always teaches the same tokens."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from runs.tokenizer import BPE, Bytes, File, Tokenizer, WordPiece
from runs.tokenizer.likelihood import learn

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
    "## # ### ##a #a a## ##### #!# #\n##\n (## a#b##c",
    "x" * 200_000,
    "line\n" * 40_000,
]


def bpe(vocab_size: int = 400) -> BPE:
    tokenizer = BPE(vocab_size=vocab_size)
    tokenizer.fit([PROSE])
    return tokenizer


def wordpiece(vocab_size: int = 700, min_count: int | None = None) -> WordPiece:
    tokenizer = WordPiece(vocab_size=vocab_size, min_count=min_count)
    tokenizer.fit([PROSE])
    return tokenizer


def saved(folder: Path, content: bytes | str) -> File:
    (folder / "tokenizer.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    return File(path=str(folder / "tokenizer.json"))


KINDS = ["bytes", "bpe", "wordpiece", "file"]


def unlearnt(kind: str, folder: Path) -> Tokenizer:
    """One that knows nothing of the text yet, if it can."""
    made = {"bytes": Bytes, "bpe": lambda: BPE(vocab_size=400), "wordpiece": lambda: WordPiece(vocab_size=700)}
    return saved(folder, bpe(300).state()) if kind == "file" else made[kind]()


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    tokenizer = unlearnt(request.param, tmp_path_factory.mktemp("tokenizer"))
    tokenizer.fit([PROSE])
    return tokenizer


@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_any_text_comes_back_exactly(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", [PROSE, *AWKWARD], ids=range(len(AWKWARD) + 1))
def test_token_bytes_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,)
    assert tokenizer.token_bytes[tokens].sum() == len(text.encode())
    assert tokenizer.is_lossless(text)


def test_what_is_learnt_from_text_has_no_special_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.specials == {}


def test_tokens_take_the_smallest_type(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(PROSE)
    assert tokens.dtype == (np.uint8 if tokenizer.vocab_size == 256 else np.uint16)
    assert tokens.max() < tokenizer.vocab_size


def test_a_cut_character_decodes_to_a_replacement(tokenizer: Tokenizer) -> None:
    assert "\ufffd" in tokenizer.decode(tokenizer.encode("日")[:1])


@pytest.mark.parametrize("tokenizer,kind", zip(KINDS, KINDS, strict=True), indirect=["tokenizer"])
def test_restored_tokenizer_is_the_same(tokenizer: Tokenizer, kind: str, tmp_path: Path) -> None:
    other = unlearnt(kind, tmp_path)
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


@pytest.mark.parametrize("learner", [bpe, wordpiece])
def test_training_is_the_same_in_every_process(learner: Callable[[], Tokenizer]) -> None:
    code = f"import hashlib, tests.test_tokenizer as t; print(hashlib.sha256(t.{learner.__name__}().state()).hexdigest())"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    assert {run.stdout.strip() for run in runs} == {hashlib.sha256(learner().state()).hexdigest()}


def test_settings_tell_apart_what_encodes_differently(tmp_path: Path) -> None:
    learnt = [Bytes(), BPE(vocab_size=300), BPE(vocab_size=600), WordPiece(vocab_size=600), WordPiece(vocab_size=700)]
    others = [WordPiece(vocab_size=600, min_count=1), saved(tmp_path, bpe(300).state()), saved(tmp_path, bpe(400).state())]
    assert len({tokenizer.settings for tokenizer in [*learnt, *others]}) == 8


@pytest.mark.parametrize("vocab_size", [0, 256, -1])
def test_bpe_needs_more_than_the_bytes(vocab_size: int) -> None:
    with pytest.raises(ValueError, match=f"vocab_size={vocab_size}.*257 or more"):
        BPE(vocab_size=vocab_size)


@pytest.mark.parametrize("vocab_size", [0, 512, -1])
def test_wordpiece_needs_more_than_the_bytes_in_both_places(vocab_size: int) -> None:
    with pytest.raises(ValueError, match=f"vocab_size={vocab_size}.*513 or more"):
        WordPiece(vocab_size=vocab_size)
    with pytest.raises(ValueError, match="min_count=0: at least 1"):
        WordPiece(vocab_size=600, min_count=0)


@pytest.mark.parametrize(("kind", "found"), [(BPE, 258), (WordPiece, 514)])
def test_a_vocabulary_that_the_text_cannot_fill_is_refused(kind: Any, found: int) -> None:
    with pytest.raises(
        ValueError, match=f"tokenizer.vocab_size=1000: this text yields only {found} tokens; give at most {found}"
    ):
        kind(vocab_size=1000).fit(["abc"])


@pytest.mark.parametrize("kind", [BPE, WordPiece])
def test_missing_package_is_told_with_its_command(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match="pip install tokenizers"):
        kind(vocab_size=600).fit([PROSE])


@pytest.mark.parametrize("kind", [BPE, WordPiece])
def test_an_untrained_tokenizer_says_so(kind: Any) -> None:
    with pytest.raises(RuntimeError, match=f"this {kind.__name__} is not trained yet"):
        kind(vocab_size=600).encode("text")


# WordPiece ----------------------------------------------------------------------------------------------------------

HUGS = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
# Frequencies at first: h 15, p 17, b 4, ##u 36, ##g 20, ##n 16, ##s 5. By hand, the score of every pair before each merge:
#  1. h+u 15/(15*36) = p+u 17/(17*36) = b+u 4/(4*36) = u+g 20/(36*20) = u+n 16/(36*16) = 1/36; g+s 5/(20*5) = 1/20: ##gs
#  2. now g 15, gs 5, s 0: all that is left, u+gs 5/(36*5) too, has 1/36; the commonest is p+u, 17 times: pu
#  3. now u 19, pu 17: h+u 15/(15*19), b+u 4/(4*19), u+gs 5/(19*5) have 1/19; u+g 10/(19*15) = 2/57, u+n 4/(19*16) = 1/76,
#     pu+g 5/(17*15) = 1/51, pu+n 12/(17*16) = 3/68 have less; the commonest is h+u, 15 times: hu
#  4. now u 4, hu 15: b+u 4/(4*4) = 1/4; u+n 4/(4*16) = 1/16, hu+g 10/(15*15) = 2/45, hu+gs 5/(15*5) = 1/15: bu
#  5. now u 0, bu 4: bu+n 4/(4*16) = 1/16, hu+gs 1/15, hu+g 2/45, pu+g 1/51, pu+n 3/68: hugs
#  6. now hu 10, gs 0: hu+g 10/(10*15) = 1/15, bu+n 1/16, pu+g 1/51, pu+n 3/68: hug
#  7. now hu 0, g 5: bu+n 1/16, pu+g 5/(17*5) = 1/17, pu+n 3/68: bun
BY_HAND = ["##gs", "pu", "hu", "bu", "hugs", "hug", "bun"]


def test_the_worked_example_is_learnt_as_by_hand() -> None:
    learnt = learn(HUGS, vocab_size=14, min_count=1)
    assert sorted(learnt[:7]) == ["##g", "##n", "##s", "##u", "b", "h", "p"]
    assert learnt[7:] == BY_HAND


def test_the_worked_example_is_read_by_the_longest_match() -> None:
    tokenizer = WordPiece(vocab_size=512 + 7, min_count=1)
    tokenizer.fit(["".join(f"{word}\n" * n for word, n in HUGS.items())])

    def read(word: str) -> list[str]:
        return [tokenizer.decode([token]) for token in tokenizer.encode(word)]

    assert [tokenizer.decode([512 + i]) for i in range(7)] == [token.removeprefix("##") for token in BY_HAND]
    assert [read(word) for word in ("hug", "hugs", "bun")] == [["hug"], ["hugs"], ["bun"]]
    assert read("pug") == ["pu", "g"]
    assert read("bugs") == ["bu", "gs"]
    assert read("hugsun") == ["hugs", "u", "n"]
    assert read("gs") == ["g", "s"]  # ##gs goes on a word and begins none


def test_by_default_the_common_pairs_come_first() -> None:
    # u+g alone occurs 20 times; of those that then occur 10 times, h+ug has 15/(15*20), p+u 12/(17*16), u+n 16/(16*16)
    assert learn(HUGS, vocab_size=9)[7:] == ["##ug", "##un"]


def plainly(words: dict[str, int], steps: int, floor: int) -> list[str]:
    """The symbols that so many merges make, each found by counting everything anew."""
    spelt = {word: [("##" if i else "") + letter for i, letter in enumerate(word)] for word in words}
    made: list[str] = []
    while len(made) < steps:
        freqs: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        for word, row in spelt.items():
            for symbol in row:
                freqs[symbol] += words[word]
            for pair in pairwise(row):
                pairs[pair] += words[word]
        rows = [(-Fraction(n, freqs[a] * freqs[b]), -n, a, b) for (a, b), n in pairs.items() if n >= floor]
        if not rows:
            break
        *_, a, b = min(rows)
        new = a + b[2:]
        if new not in made:
            made.append(new)
        for word, row in spelt.items():
            i = 0
            while i < len(row) - 1:
                if row[i : i + 2] == [a, b]:
                    row[i : i + 2] = [new]
                i += 1
            spelt[word] = row
    return made


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("floor", [1, 7])
def test_counting_as_one_goes_equals_counting_anew(seed: int, floor: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = {"".join(rng.choice(list("aab"), size=rng.integers(1, 9))): int(rng.integers(1, 9)) for _ in range(30)}
    alphabet = ["a", "b", "##a", "##b"]
    learnt = learn(drawn, vocab_size=64, alphabet=alphabet, min_count=floor)
    assert learnt == [*alphabet, *plainly(drawn, 60, floor)]
    backwards = dict(reversed(list(drawn.items())))
    assert learn(backwards, vocab_size=64, alphabet=alphabet, min_count=floor) == learnt


def test_more_tokens_of_the_same_text_read_it_in_fewer() -> None:
    lengths = [len(wordpiece(size).encode(PROSE)) for size in (530, 560, 620, 700)]
    assert lengths == sorted(lengths, reverse=True)
    assert len(wordpiece(min_count=1).encode(PROSE)) > lengths[-1]


def test_words_do_not_depend_on_how_the_text_is_cut() -> None:
    tokenizer = wordpiece()
    lines = (PROSE + "#" * 70_000 + "\n" + PROSE).splitlines(keepends=True)
    cut = [token for line in "".join(lines).split("\n\n") for token in tokenizer.encode(line)]
    whole = tokenizer.encode("".join(lines)).tolist()
    newlines = tokenizer.encode("\n\n").tolist()
    assert [token for token in whole if token not in newlines] == [token for token in cut if token not in newlines]


# tokenizer.json -----------------------------------------------------------------------------------------------------


def llama(*, fallback: bool = True) -> tokenizers.Tokenizer:
    """In the manner of Llama: a mark for each space and one before the text, and a token for each byte that no other has."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz_=+:()[],.0123456789", "▁d", "▁de", "▁def", "in", "an", "▁▁"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for token in ([f"<0x{byte:02X}>" for byte in range(256)] if fallback else []) + letters:
        vocab[token] = len(vocab)
    merges = [("▁", "d"), ("▁d", "e"), ("▁de", "f"), ("i", "n"), ("a", "n"), ("▁", "▁")]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=fallback))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def bert() -> tokenizers.Tokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "sheep", "##s", "sleep", "."]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(words[:5])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def gpt2(**changes: Any) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_str(bpe().state().decode())
    tokenizer.add_special_tokens(["<|endoftext|>"])
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


@pytest.mark.parametrize("learner", [bpe, wordpiece])
def test_a_file_of_what_was_learnt_here_is_the_same(learner: Callable[[], Tokenizer], tmp_path: Path) -> None:
    learnt = learner()
    file = saved(tmp_path, learnt.state())
    np.testing.assert_array_equal(file.encode(PROSE), learnt.encode(PROSE))
    np.testing.assert_array_equal(file.token_bytes, learnt.token_bytes)
    assert file.vocab_size == learnt.vocab_size


def test_a_file_is_known_by_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    a, b = (saved(folder, llama().to_str()) for folder in (tmp_path, tmp_path / "other"))
    assert a.settings == b.settings != saved(tmp_path, bert().to_str()).settings
    b.restore(bert().to_str().encode())
    assert b.specials["cls"] == 2
    assert b.token_bytes.shape == (10,)


def test_added_tokens_count_and_are_read_as_they_are_spelt(tmp_path: Path) -> None:
    tokenizer = saved(tmp_path, gpt2().to_str())
    assert tokenizer.vocab_size == 401
    text = "def<|endoftext|>walk"
    tokens = tokenizer.encode(text).tolist()
    assert tokens.count(400) == 1
    assert tokenizer.decode(tokens) == text
    assert tokenizer.token_bytes[400] == 13
    assert tokenizer.is_lossless(text)


def test_a_number_without_a_token_stands_for_nothing(tmp_path: Path) -> None:
    form = json.loads(gpt2().to_str())
    form["model"]["vocab"] = {token: i + 5 * (i == 399) for token, i in form["model"]["vocab"].items()}
    form["added_tokens"] = []
    tokenizer = saved(tmp_path, json.dumps(form))
    assert tokenizer.vocab_size == 405
    assert tokenizer.token_bytes[399:404].tolist() == [0] * 5
    assert tokenizer.is_lossless(PROSE)


def test_special_tokens_are_found_by_what_they_are_for(tmp_path: Path) -> None:
    assert saved(tmp_path, llama().to_str()).specials == {"bos": 1, "eos": 2, "unk": 0}
    assert saved(tmp_path, bert().to_str()).specials == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert saved(tmp_path, gpt2().to_str()).specials == {"eos": 400}


def test_no_special_token_is_added_and_nothing_is_cut_or_padded(tmp_path: Path) -> None:
    made = llama()
    made.enable_truncation(max_length=8)
    made.enable_padding(length=100)
    tokenizer = saved(tmp_path, made.to_str())
    made.no_truncation()
    made.no_padding()
    text = "def walk in an inn"
    assert tokenizer.encode(text).tolist() == made.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text


LONG = "".join(f"def walk_{i}(tree, depth = {i}):\n  return  [Walk(é) 日 in an\t inn]\n" for i in range(4000))  # several pieces


@pytest.mark.parametrize("made", [llama(), gpt2(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))])
def test_a_space_before_the_text_is_put_there_once(made: tokenizers.Tokenizer, tmp_path: Path) -> None:
    tokenizer = saved(tmp_path, made.to_str())
    tokens = tokenizer.encode(LONG)
    np.testing.assert_array_equal(tokens, made.encode(LONG, add_special_tokens=False).ids)
    assert tokenizer.token_bytes[tokens].sum() == len(LONG.encode()) + 1
    assert tokenizer.decode(tokens).removeprefix(" ") == LONG
    assert tokenizer.is_lossless(LONG)


@pytest.mark.parametrize("text", [*AWKWARD, " ", "\n", " a", "a " * 70_000], ids=range(len(AWKWARD) + 4))
def test_a_file_that_falls_back_to_bytes_spells_any_text(text: str, tmp_path: Path) -> None:
    tokenizer = saved(tmp_path, llama().to_str())
    assert tokenizer.is_lossless(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("made", "kept", "lost"),
    [
        (bert(), [], ["The sheep", "the sheep", "thé", "the goat"]),  # spaces are nobody's, so even small letters are lost
        (llama(), ["a b", "é"], ["a▁b"]),
        (llama(fallback=False), ["a b"], ["é", "A"]),
        (gpt2(normalizer=normalizers.NFC()), ["\u00e9", PROSE], ["e\u0301"]),
        (gpt2(normalizer=normalizers.Lowercase()), ["the é", PROSE], ["The", PROSE * 20 + "A"]),
        (
            gpt2(pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel()])),
            ["a b"],
            ["a  b"],
        ),
    ],
    ids=["bert", "llama", "llama without bytes", "nfc", "lowercase", "runs of spaces"],
)
def test_a_text_that_does_not_come_back_is_told(
    made: tokenizers.Tokenizer, kept: list[str], lost: list[str], tmp_path: Path
) -> None:
    tokenizer = saved(tmp_path, made.to_str())
    assert [text for text in kept if not tokenizer.is_lossless(text)] == []
    assert [text for text in lost if tokenizer.is_lossless(text)] == []


@pytest.mark.parametrize("made", [bert(), llama()], ids=["bert", "llama"])
def test_bits_per_byte_are_told_only_where_the_text_comes_back(
    made: tokenizers.Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runs.data import Text

    monkeypatch.setenv("ARCHLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("The sheep sleep. " * 100)
    for _ in ("made", "kept"):
        data = Text(tokenizer=saved(tmp_path, made.to_str()), path=str(tmp_path / "text.txt"))
        assert len(data.train) > 100
        assert (data.token_bytes is None) == ("[MASK]" in made.get_vocab())


def form(**changes: Any) -> bytes:
    """A tokenizer.json of three words, changed."""
    made = json.loads(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="c")).to_str())
    return json.dumps({**made, **changes}).encode()


def words_of(**vocab: Any) -> dict[str, Any]:
    return {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}


HOSTILE = {
    "empty": (b"", "EOF"),
    "a list": (b"[]", "invalid type"),
    "cut": (form()[:90], "EOF"),
    "not text": (b"\xff\xfe", "codec"),
    "nested": (form(decoder=0).replace(b'"decoder": 0', b'"decoder": ' + b"[" * 100_000), "recursion limit"),
    "no vocabulary": (form(model=words_of()), "its vocabulary is empty"),
    "a vocabulary of words": (form(model=words_of(a="b")), "not a tokenizer.json"),
    "a negative number": (form(model=words_of(a=-1)), "not a tokenizer.json"),
    "a number of 33 bits": (form(model=words_of(a=2**32)), "not a tokenizer.json"),
    "the largest number": (
        form(model=words_of(a=0, b=2**32 - 1)),
        "its token 'b' has the number 4,294,967,295, but there are only 2 tokens",
    ),
    "a panic": (form(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "not a tokenizer.json"),
    "no such normaliser": (form(normalizer={"type": "os.system"}), "not a tokenizer.json"),
    "no such pattern": (
        form(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}),
        "not a token",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, message = HOSTILE[name]
    with pytest.raises(ValueError, match=rf"tokenizer\.path=.*: .*{message}") as caught:
        saved(tmp_path, content)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_what_is_no_plain_file_or_endless_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "zeros", "loop", "."):
        with pytest.raises(FileNotFoundError, match=r"tokenizer\.path=.*: there is no such file"):
            File(path=str(tmp_path / name))
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 2**40)
    with pytest.raises(ValueError, match=r"tokenizer\.path=.*: has 1,099,511,627,776 bytes; at most"):
        File(path=str(tmp_path / "large"))


def test_a_text_that_a_file_cannot_read_is_told_in_one_line(tmp_path: Path) -> None:
    tokenizer = saved(tmp_path, form(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "gone"}))
    for use in (tokenizer.encode, tokenizer.encode_with_specials, tokenizer.is_lossless):
        with pytest.raises(ValueError, match=r"the tokenizer cannot read this text \(.*UNK") as caught:
            use("strange")
        assert "\n" not in str(caught.value)


def test_what_is_no_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs a tokenizer\.json: tokenizer\.path=FILE"):
        File(path=None)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.path=.*: there is no such file"):
        File(path=str(tmp_path / "nowhere.json"))
    for content in (b"", b"{}", b"\xff\xfe", b"[1, 2]"):
        with pytest.raises(ValueError, match=r"tokenizer\.path=.*: not a tokenizer\.json") as caught:
            saved(tmp_path, content)
        assert "\n" not in str(caught.value)
