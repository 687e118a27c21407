"""Writing with a trained run, from its folder to the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from arch.decode import generate
from runs.build.errors import ConfigError
from runs.command import guarded, parse
from runs.job.execute import execute
from runs.job.record import read_json, write_json
from runs.job.start import restore
from runs.sample import TextStream, main, sample
from runs.tokenizer import Bytes, Tokenizer
from runs.trained import of_run
from tests.lab import config

SMALL = (
    "size=micro",
    "size.d_model=24",
    "size.d_ff=48",
    "size.max_seq=64",
    "train.steps=2",
    "train.batch_size=2",
    "train.seq_len=32",
    "train.eval_batches=1",
    "train.device=cpu",
)
Trained = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trains a run of two steps and gives its folder."""
    out = tmp_path_factory.mktemp("out")
    text = out / "story.txt"
    text.write_text("".join(f"The {n}th line tells of {n * n} sheep.\n" for n in range(300)))

    def train(*words: str) -> Path:
        data = () if any(word.startswith("data=") for word in words) else ("data=text", f"data.path={text}")
        point = config(*SMALL, f"out={out}", *data, *words)
        assert execute(point, peak=(1.0, "given"))["status"] == "done", point.folder
        return point.folder

    return train


@pytest.fixture(scope="module")
def run(trained: Trained) -> Path:
    return trained()


def load_run(folder: Path) -> tuple[torch.nn.Module, Tokenizer]:
    loaded = of_run(folder)
    assert loaded.tokenizer is not None
    return loaded.model, loaded.tokenizer


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on stderr of a command that ends with exit code 2 and prints nothing else."""
    assert guarded(lambda: main(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_run_writes_what_its_model_decodes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"run={run}", "prompt=The ", "max_tokens=30", "temperature=0"]) == 0
    model, tokenizer = load_run(run)
    prompt = tokenizer.encode("The ").tolist()
    new = generate(model, [prompt], max_tokens=30, temperature=0, cache=False)[0]
    assert capsys.readouterr().out == tokenizer.decode(prompt + new) + "\n"


def test_the_weights_are_those_of_the_checkpoint(run: Path) -> None:
    from safetensors.torch import load_file

    model, _ = load_run(run)
    kept = load_file(run / "checkpoint" / "state.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, kept[f"model.{name}"]), name


def test_a_seed_is_a_text(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def text(*words: str) -> str:
        assert main([f"run={run}", "prompt=sheep", "max_tokens=20", *words]) == 0
        return capsys.readouterr().out

    assert text("seed=1") == text("seed=1")
    assert text("seed=1") != text("seed=2")
    assert text("top_k=1", "seed=1") == text("top_k=1", "seed=2") == text("temperature=0") == text("top_p=1e-6", "top_k=null")


def test_several_prompts_are_told_apart_and_go_on_as_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"run={run}", "max_tokens=20", "temperature=0"]
    alone = []
    for prompt in ("The ", "s"):
        main([*words, f"prompt={prompt}"])
        alone.append(capsys.readouterr().out)
    main([*words, "prompt=The ", "prompt=s"])
    assert capsys.readouterr().out == f"== 1 of 2\n{alone[0]}== 2 of 2\n{alone[1]}"


def test_a_stop_ends_the_text(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"run={run}", "prompt=The ", "max_tokens=60", "temperature=5"]
    main(words)
    whole = capsys.readouterr().out
    letter = next(c for c in whole[10:] if c.isascii() and c.isprintable() and c not in "The ")
    main([*words, f"stop={letter}"])
    assert capsys.readouterr().out == whole[: whole.index(letter, 4) + 1] + "\n"


def test_characters_are_written_whole_and_as_soon_as_they_are() -> None:
    heard: list[str] = []
    stream = TextStream(Bytes(), list(b"a"), heard.append)
    for byte in "é€😀b".encode():
        stream.add(byte)
    stream.close()
    assert heard == ["a", "é", "", "", "€", "", "", "", "😀", "b", ""]


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_of_any_bytes_is_the_text_of_them_all(seed: int) -> None:
    sequence = np.random.default_rng(seed).choice([0x41, 0x80, 0xBF, 0xC3, 0xE2, 0x82, 0xF0, 0x9F, 0xFF], size=300).tolist()
    heard: list[str] = []
    stream = TextStream(Bytes(), [], heard.append)
    for token in sequence:
        stream.add(token)
    stream.close()
    assert "".join(heard) == Bytes().decode(sequence)


def test_a_learnt_tokenizer_writes_and_is_held_to_its_text(trained: Trained, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    run = trained("tokenizer=bpe", "tokenizer.vocab_size=300")
    _, tokenizer = load_run(run)
    assert tokenizer.decode(tokenizer.encode("The sheep")) == "The sheep"
    other = tmp_path / "other"
    shutil.copytree(run, other)
    env = read_json(other / "env.json")
    write_json(other / "env.json", {**env, "tokenizer_sha256": "0" * 64})
    with pytest.raises(ConfigError, match="learnt from other text"):
        load_run(other)


def test_words_become_typed_arguments() -> None:
    words = ["run=a", "prompt=x=1, y", "prompt=", "max_tokens=3", "temperature=1", "top_k=null", "top_p=.5", "stop=;", "seed=7"]
    assert parse(words, sample) == {
        "run": "a",
        "prompt": ["x=1, y", ""],
        "max_tokens": 3,
        "temperature": 1.0,
        "top_k": None,
        "top_p": 0.5,
        "stop": [";"],
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run=x", "promt=a"], "sample.promt: unknown key; did you mean prompt?"),
        (["run=x"], "sample: prompt is missing"),
        (["help"], "help: not of the form key=value; keys: run, weights, prompt, max_tokens"),
        (["run=x", "prompt=a", "max_tokens=many"], "sample.max_tokens='many': int is expected, not str"),
        (["run=x", "prompt=a", "seed=1.5"], "sample.seed='1.5': int is expected, not str"),
        (["run=x", "prompt=a", "seed=1", "seed=2"], "seed: given twice"),
        (["run=/nowhere", "prompt=a"], "run=/nowhere: there is no run"),
        (["weights=/nowhere", "prompt=a"], "weights=/nowhere: no config.json there"),
        (["run=x", "weights=y", "prompt=a"], "one of them"),
        (["prompt=a"], "give run=FOLDER (of a run) or weights=FOLDER"),
    ],
)
def test_a_wrong_word_is_told_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *words)


def test_what_a_run_cannot_do_is_told_in_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "do not fit into the position table: max_seq is 64" in refused(capsys, f"run={run}", "prompt=a", "max_tokens=99")
    assert "prompt 0 is empty" in refused(capsys, f"run={run}", "prompt=")
    assert "top_k=0" in refused(capsys, f"run={run}", "prompt=a", "max_tokens=3", "top_k=0")
    assert "sample.stop='ab': 2 tokens; exactly 1 is expected" in refused(capsys, f"run={run}", "prompt=a", "stop=ab")


def test_a_run_without_a_checkpoint_is_refused(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained("train.checkpoint_every=null", "study.name=forgetful")
    assert "there is no checkpoint (train.checkpoint_every=null keeps none)" in refused(capsys, f"run={run}", "prompt=a")


def test_a_probe_has_no_text(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained("data=copy", "train.seq_len=43")
    assert "the tokens of its data are no text" in refused(capsys, f"run={run}", "prompt=a")


def test_a_model_that_looks_ahead_does_not_write(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained("ffn=moe", "router=expert_choice")
    assert "sees later tokens (MoE with ExpertChoice)" in refused(capsys, f"run={run}", "prompt=a")


def test_weights_that_are_not_finite_do_not_write(run: Path, tmp_path: Path) -> None:
    from runs.job.checkpoint import save
    from runs.job.metrics import NONE
    from runs.training.fit import Progress

    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    task = restore(broken).task
    torch.nn.init.constant_(task.model.embedding.weight, torch.nan)
    optimiser = torch.optim.SGD(task.parameters(), lr=0.0)
    save(broken, task=task, optimiser=optimiser, progress=Progress(2), rows=NONE)
    with pytest.raises(ConfigError, match="not finite"):
        load_run(broken)


def test_an_encoder_decoder_writes_about_what_it_has_read(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained("model=encoder_decoder", "data=docstrings", "train.steps=8", "train.log_every=8")
    signature = "def close(self)"
    assert main([f"run={run}", f"prompt={signature}", "max_tokens=20", "temperature=0"]) == 0
    model, tokenizer = load_run(run)
    specials = restore(run).data.specials
    conditioned = model.condition(torch.from_numpy(tokenizer.encode(signature).astype(np.int64))[None])
    stop = [specials["eos"]]
    new = generate(conditioned, [[specials["bos"]]], max_tokens=20, temperature=0, stop=stop, cache=False)[0]
    assert new
    assert capsys.readouterr().out == tokenizer.decode([token for token in new if token < 256]) + "\n"
    with pytest.raises(ValueError, match="prompt 0 is empty: a source needs at least 1 token"):
        sample(run=str(run), prompt=[""])
