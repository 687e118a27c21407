"""Folders in a published layout, used as they are: decoded from, looked into, trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runs import look
from runs.sample import main
from runs.trained import of_weights
from tests.pretrained.peers import llama, marian, transformers

tokenizers = pytest.importorskip("tokenizers")
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "sees", "another", "one"]


def tokenizer() -> object:
    """Words as tokens; <s> begins every text."""
    specials = ["<pad>", "<s>", "</s>", "<unk>"]
    vocab = {word: i for i, word in enumerate([*specials, *WORDS])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(specials)
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def folder(model: object, path: Path) -> Path:
    model.save_pretrained(path)  # type: ignore[attr-defined]
    tokenizer().save(str(path / "tokenizer.json"))  # type: ignore[attr-defined]
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(llama(bos_token_id=1, eos_token_id=2), tmp_path_factory.mktemp("llama"))


def test_a_published_model_writes_as_the_reference_does(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"weights={published}", "prompt=the lazy fox", "max_tokens=12", "temperature=0"]) == 0
    peer = transformers.LlamaForCausalLM.from_pretrained(published).eval()
    given = torch.tensor([[1, *(4 + WORDS.index(word) for word in ("the", "lazy", "fox"))]])
    theirs = peer.generate(given, max_new_tokens=12, do_sample=False, pad_token_id=0)[0].tolist()
    words = [WORDS[token - 4] for token in theirs if 4 <= token < 4 + len(WORDS)]
    assert capsys.readouterr().out.split() == words


def test_the_tokens_around_a_text_are_those_of_the_file(published: Path) -> None:
    loaded = of_weights(published)
    assert loaded.encode_prompt("lazy dog") == [1, 4 + WORDS.index("lazy"), 4 + WORDS.index("dog")]
    assert loaded.stop_tokens == [2]
    assert loaded.specials["bos"] == 1


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no tokenizer\.json there"):
        of_weights(tmp_path)


def test_an_encoder_decoder_writes_as_the_reference_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder(marian(eos_token_id=2, decoder_start_token_id=0, pad_token_id=0, forced_eos_token_id=None), tmp_path)
    assert main([f"weights={place}", "prompt=the lazy fox", "max_tokens=9", "temperature=0"]) == 0
    peer = transformers.MarianMTModel.from_pretrained(place).eval()
    source = torch.tensor([[1, *(4 + WORDS.index(word) for word in ("the", "lazy", "fox"))]])
    tokens = [0]
    for _ in range(9):
        logits = peer(input_ids=source, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]
        tokens.append(int(logits.argmax()))
        if tokens[-1] == 2:
            break
    words = [WORDS[token - 4] for token in tokens if 4 <= token < 4 + len(WORDS)]
    assert capsys.readouterr().out.split() == words


def test_a_published_model_can_be_looked_into(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look.main([f"weights={published}", "text=the lazy fox", "token=lazy", "k=3", f"out={tmp_path}"])
    printed = capsys.readouterr().out
    assert "q_proj" in printed
    assert "nearest to 'lazy'" in printed
    assert (tmp_path / "attention.png").is_file()
