"""Starting from weights that are there: whose model it is, what is taken over, what learns, and what a checkpoint keeps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runs.build.errors import ConfigError
from runs.check import costs
from runs.job import record, start
from runs.job.check import check
from runs.job.execute import execute
from runs.job.start import load_data, read_run, restore
from runs.published import folder as weights
from runs.sample import main
from runs.tokenizer import BPE
from runs.trained import load, of_run
from runs.training.optim import adamw, hidden_matrices, muon
from tests.lab import config, tokens

SMALL = (
    "train.batch_size=4",
    "train.seq_len=32",
    "train.eval_batches=1",
    "train.log_every=1",
    "train.device=cpu",
)
MODEL = ("size=micro", "size.d_model=24", "size.d_ff=48", "mixer=gqa", "position=rotary")
CLASSES = ("objective=classification_lm", "data=packages", "data.n_classes=3")
Trained = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trains a run of a few steps and gives its folder."""
    out = tmp_path_factory.mktemp("out")
    text = out / "story.txt"
    text.write_text("".join(f"The {n}th line tells of {n * n} sheep.\n" for n in range(300)))

    def train(*words: str, steps: int = 3) -> Path:
        data = () if any(word.startswith("data=") for word in words) else ("data=text", f"data.path={text}")
        point = config(*SMALL, f"out={out}", f"train.steps={steps}", *data, *words)
        check(point)
        summary = execute(point, peak=(1.0, "given"))
        assert summary["status"] == "done", summary["error"]
        return point.folder

    return train


@pytest.fixture(scope="module")
def base(trained: Trained) -> Path:
    return trained(*MODEL)


def state(folder: Path) -> dict[str, torch.Tensor]:
    kept = load_file(folder / "checkpoint" / "state.safetensors")
    return {name: tensor for name, tensor in kept.items() if not name.startswith("optimiser.")}


def test_a_run_begins_with_the_model_and_the_weights_of_another(trained: Trained, base: Path) -> None:
    tuned = trained(f"run={base}", *CLASSES, "optim.lr=1e-9", "optim.weight_decay=0.0", steps=1)
    theirs, ours = record.read_json(base / "config.json"), record.read_json(tuned / "config.json")
    assert all(theirs[key] == ours[key] for key in ("shared", "causal"))
    assert ours["model"]["layers"] == theirs["model"]["layers"] and ours["data"]["tokenizer"] == theirs["data"]["tokenizer"]
    assert ours["choices"]["mixer"] == "gqa" and ours["choices"]["data"] == "packages"
    before, after = state(base), state(tuned)
    assert after.keys() - before.keys() == {"heads.classifier.weight", "heads.classifier.bias"}
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-7, rtol=0, msg=name)
    begun = record.read_json(tuned / "env.json")["start"]
    assert begun["path"] == f"run={base}" and len(begun["sha256"]) == 64


def test_another_start_is_another_run(base: Path) -> None:
    points = [
        config(*SMALL, *MODEL),
        config(*SMALL, *MODEL, f"run={base}"),
        config(*SMALL, *MODEL, f"run={base}", "finetune=lora"),
        config(*SMALL, *MODEL, f"run={base}", "finetune=lora", "finetune.rank=2"),
    ]
    assert len({point.identity for point in points}) == 4


def test_a_start_is_found_beside_a_search_path(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = config(*SMALL, f"run={base}", f"hydra.searchpath=[file://{tmp_path}]")
    assert searched.identity == config(*SMALL, f"run={base}").identity
    monkeypatch.chdir(base.parent)
    assert config(*SMALL, f"run={base.name}").identity == searched.identity


def test_a_studys_folder_stands_for_the_only_run_in_it(trained: Trained) -> None:
    base = trained(*MODEL, "study.name=base")
    named = config(*SMALL, f"out={base.parents[1]}", "run=${out}/base")
    assert named == config(*SMALL, f"out={base.parents[1]}", f"run={base}") and named.run == str(base)
    assert load(run=str(base.parent), weights=None).source == f"run={base}"
    trained(*MODEL, "study.name=base", "seed=1")
    with pytest.raises(
        ConfigError, match=f"run={base.parent}: 2 runs are in this folder; name one of them, such as run={base}"
    ):
        config(*SMALL, f"run={base.parent}")


def test_adapters_learn_beside_a_frozen_model_and_are_all_that_is_kept(trained: Trained, base: Path) -> None:
    tuned = trained(f"run={base}", *CLASSES, "finetune=lora", "finetune.rank=2")
    names = {name.rsplit(".", 1)[-1] if name.startswith("model.") else name for name in state(tuned)}
    assert names == {"lora_a", "lora_b", "heads.classifier.weight", "heads.classifier.bias"}
    whole, before = restore(tuned).task.state_dict(), state(base)
    assert all(torch.equal(whole[name], tensor) for name, tensor in before.items())
    moved = [name for name, tensor in whole.items() if name.endswith("lora_b") and tensor.any()]
    assert len(moved) == 4  # two projections in each of two layers
    cost, plain = (record.read_json(folder / "summary.json")["cost"] for folder in (tuned, base))
    added = sum(t.numel() for name, t in state(tuned).items() if "lora" in name)
    head = sum(t.numel() for n, t in state(tuned).items() if n.startswith("heads."))
    assert cost["total_params"] == plain["total_params"] + added + head


def test_a_run_with_adapters_writes_and_can_be_started_from(
    trained: Trained, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = trained(f"run={base}", "finetune=lora", "optim.lr=0.1")
    merged = trained(f"run={tuned}", "optim.lr=1e-9", "optim.weight_decay=0.0", steps=1)
    text = tokens(2, 16)
    with torch.no_grad():
        expected = of_run(tuned).model(text)
        assert not torch.allclose(expected, of_run(base).model(text), atol=1e-2)
        torch.testing.assert_close(of_run(merged).model(text), expected, atol=1e-4, rtol=1e-4)
    assert main([f"run={tuned}", "prompt=The ", "max_tokens=5"]) == 0
    assert capsys.readouterr().out.startswith("The ")


@pytest.mark.parametrize("finetune", ["full", "lora"])
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(trained: Trained, base: Path, finetune: str) -> None:
    words = (f"run={base}", *CLASSES, f"finetune={finetune}", "optim=muon", "train.checkpoint_every=2")
    if finetune == "lora":
        words = (*words, "finetune.dropout=0.1")
    whole = trained(*words, "study.name=whole", steps=5)

    def stop(row: dict[str, Any]) -> None:
        if row["step"] == 4:
            raise KeyboardInterrupt

    theirs = read_run(whole)
    point = replace(theirs, study=replace(theirs.study, name="cut"))
    with pytest.raises(KeyboardInterrupt):
        execute(point, watch=stop, peak=(1.0, "given"))
    execute(point, peak=(1.0, "given"))
    cut = point.folder
    assert record.read_json(cut / "env.json")["earlier"], "it was not cut off"
    one, two = (load_file(folder / "checkpoint" / "state.safetensors") for folder in (whole, cut))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_encoder_passes_on_its_weights_and_its_heads(trained: Trained) -> None:
    bert = ("model=bert_base", "size=micro", "size.d_model=24", "size.d_ff=48")
    first = trained(*bert)
    before = state(first)
    classes = ("objective=classification", *CLASSES[1:])
    again = trained(f"run={first}", "objective=masked_lm", "optim.lr=1e-9", "optim.weight_decay=0.0", "seed=1", steps=1)
    for name, tensor in before.items():
        torch.testing.assert_close(state(again)[name], tensor, atol=1e-7, rtol=0, msg=name)
    tuned = trained(f"run={first}", *classes)
    assert {name for name in state(tuned) if name.startswith("heads.")} == {
        "heads.classifier.weight",
        "heads.classifier.bias",
    }


def test_a_learnt_tokenizer_goes_with_the_model(trained: Trained) -> None:
    pytest.importorskip("tokenizers")
    first = trained(*MODEL, "tokenizer=bpe", "tokenizer.vocab_size=300", "study.name=bpe")
    tuned = trained(f"run={first}", *CLASSES, "study.name=bpe")
    theirs, ours = (restore(folder).data.tokenizer for folder in (first, tuned))
    text = "The sheep tells of a line"
    assert ours.encode(text).tolist() == theirs.encode(text).tolist()
    assert len(ours.encode(text)) < 25
    assert load_data(read_run(tuned)).vocab_size == 300


def test_a_shared_table_is_kept_once(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained("model=transformer_base", "data=docstrings", "size=micro", "size.d_model=24", "size.d_ff=48")
    tables = [name for name in state(run) if name.endswith("embedding.weight")]
    assert len(tables) == 1
    task = restore(run).task
    assert task.model.encoder.embedding.weight is task.model.decoder.embedding.weight
    assert main([f"run={run}", "prompt=def close(self)", "prompt=def f(x) -> int", "max_tokens=20", "temperature=1"]) == 0
    first, second = capsys.readouterr().out.split("== 2 of 2\n")
    assert first.startswith("== 1 of 2\n") and "def close" not in first + second
    tuned = trained(f"run={run}", "objective=seq2seq", "data=docstrings", "finetune=lora")
    assert len(state(tuned)) == 2 * 2 * 6  # q and v, of six attentions: two in each layer that writes, one in each that reads


def test_an_encoder_does_not_write(trained: Trained) -> None:
    run = trained("model=bert_base", "size=micro", "size.d_model=24", "size.d_ff=48")
    with pytest.raises(ConfigError, match="its model is of the kind Encoder, which does not generate text"):
        main([f"run={run}", "prompt=a"])


@pytest.fixture(scope="module")
def gpt2(trained: Trained) -> Path:
    return trained("model=gpt2", "size=micro", "size.d_model=24", "size.d_ff=48", "size.vocab_size=300")


def published(run: Path, folder: Path, **tokenizer: Any) -> Path:
    """The weights of a run of gpt2 as a published folder with a tokenizer.json of its own."""
    told = {
        "model_type": "gpt2",
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 4,
        "n_inner": 48,
        "n_positions": 32,
        "vocab_size": 300,
    }
    weights.save(folder, {name.removeprefix("model."): tensor for name, tensor in state(run).items()}, told)
    write_tokenizer(folder / "tokenizer.json", **tokenizer)
    return folder


def write_tokenizer(file: Path, *, vocab_size: int = 280) -> None:
    tokenizer = BPE(vocab_size=vocab_size)
    tokenizer.fit(["The 1st line tells of 1 sheep and of another line.\n" * 9])
    file.write_bytes(tokenizer.state())


def test_published_weights_bring_their_model_and_its_tokens(trained: Trained, base: Path, gpt2: Path, tmp_path: Path) -> None:
    folder = published(gpt2, tmp_path / "gpt2, the first (mine)")
    tuned = trained(f"weights='{folder}'", *CLASSES, "optim.lr=1e-9", "optim.weight_decay=0.0", steps=1)
    choices = record.read_json(tuned / "config.json")["choices"]
    assert (choices["model"], choices["tokenizer"]) == ("gpt2", "file")
    assert restore(tuned).data.tokenizer.state() == (folder / "tokenizer.json").read_bytes()
    for name, tensor in state(gpt2).items():
        torch.testing.assert_close(state(tuned)[name], tensor, atol=1e-7, rtol=0, msg=name)
    adapted = trained(f"weights='{folder}'", "finetune=lora")
    assert set(state(adapted)) < set(restore(adapted).task.state_dict())
    with pytest.raises(ConfigError, match=r"size=nano: weights=.* says which model they belong to; leave it out"):
        config(*SMALL, f"weights='{folder}'", "size=nano")
    with pytest.raises(ConfigError, match="a run starts from one of them"):
        config(*SMALL, f"weights='{folder}'", f"run={base}")


def test_published_weights_read_other_tokens_only_where_they_are_told_to(gpt2: Path, tmp_path: Path) -> None:
    folder = published(gpt2, tmp_path / "gpt2")
    words = (*SMALL, f"weights={folder}")
    assert config(*words, "data=copy").choices.get("tokenizer") is None  # data without text takes none
    assert load_data(config(*words)).vocab_size == 280
    assert load_data(config(*words, "tokenizer=bytes")).vocab_size == 256
    other = tmp_path / "other.json"
    write_tokenizer(other, vocab_size=270)
    assert load_data(config(*words, "tokenizer=file", f"tokenizer.path={other}")).vocab_size == 270
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json there, so nobody knows which tokens its model reads") as caught:
        config(*words)
    assert "\n" not in str(caught.value)
    assert config(*words, "tokenizer=bytes").choices["tokenizer"] == "bytes"


def test_a_tokenizer_that_was_replaced_is_refused(trained: Trained, gpt2: Path, tmp_path: Path) -> None:
    folder = published(gpt2, tmp_path / "gpt2")
    run = trained(f"weights={folder}")
    assert len(record.read_json(run / "env.json")["tokenizer_sha256"]) == 64
    assert record.read_json(gpt2 / "env.json")["tokenizer_sha256"] is None  # bytes
    write_tokenizer(folder / "tokenizer.json", vocab_size=279)
    start._data.cache_clear()  # as another process would find it
    with pytest.raises(ConfigError, match="its tokenizer was another") as caught:
        of_run(run)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="its tokenizer was another"):
        check(read_run(run))


def test_a_base_that_has_changed_is_refused(trained: Trained, tmp_path: Path) -> None:
    base = trained(*MODEL, "seed=3")
    tuned = trained(f"run={base}", "finetune=lora", "seed=3")
    file = base / "checkpoint" / "state.safetensors"
    shutil.copy(trained(*MODEL, "seed=4") / "checkpoint" / "state.safetensors", file)
    with pytest.raises(ConfigError, match="was begun with other weights of run="):
        of_run(tuned)
    with pytest.raises(ConfigError, match="was begun with other weights of run="):
        check(read_run(tuned))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mixer=mha"], "mixer=mha: the run that this one starts from has mixer=gqa; leave it out"),
        (["size.n_layers=4"], "size.n_layers=4: the run that this one starts from has size.n_layers=2; leave it out"),
        (["tokenizer=bpe"], "tokenizer=bpe: the run that this one starts from has tokenizer=bytes"),
        (["data=docstrings"], "size.vocab_size=256: the data has 259 different tokens, so at least as many"),
        (["objective=masked_lm"], "size.vocab_size=256: the data has 260 different tokens|trains a model of the kind Encoder"),
        (["finetune=lora", "finetune.names=[w_proj]"], "finetune: names=.'w_proj'.: this model's projections are"),
        (["finetune=lora", "finetune.rank=99"], "finetune: rank=99: from 1 to"),
    ],
)
def test_what_contradicts_the_start_is_told(words: list[str], message: str, base: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        check(config(*SMALL, f"run={base}", *words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune=lora"], "finetune=lora adapts weights that are there: say which"),
        (["run=/nowhere"], "run=/nowhere: there is no run"),
        (["weights=/nowhere"], "weights=/nowhere: no such folder"),
    ],
)
def test_a_start_that_is_not_there_is_told(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(config(*SMALL, *MODEL[3:], *words))


def test_a_run_without_a_checkpoint_is_no_start(trained: Trained) -> None:
    run = trained(*MODEL, "train.checkpoint_every=null", "study.name=forgetful")
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        check(config(*SMALL, f"run={run}"))


def test_a_frozen_router_does_not_rebalance_itself(trained: Trained) -> None:
    base = trained(*MODEL, "ffn=moe", "router=balanced", "size.n_experts=4")
    assert state(base)["model.layers.0.ffn.router.bias"].any()
    whole = restore(trained(f"run={base}", "finetune=lora")).task.state_dict()
    assert torch.equal(whole["model.layers.0.ffn.router.bias"], state(base)["model.layers.0.ffn.router.bias"])


def test_what_answers_is_no_hidden_matrix(trained: Trained) -> None:
    task = restore(trained("model=bert_base", "size=micro", "size.d_model=24", "size.d_ff=48")).task
    names = {id(p): name for name, p in task.named_parameters()}
    hidden = {names[id(p)] for p in hidden_matrices(task)}
    assert "heads.mlm.proj.weight" in hidden and "model.pooler.proj.weight" in hidden
    assert "heads.nsp.weight" not in hidden and "model.embedding.weight" not in hidden


@pytest.mark.parametrize("make", [adamw, muon])
def test_optimisers_leave_out_what_is_frozen(make: Any, base: Path) -> None:
    task = restore(base).task
    task.model.requires_grad_(False)
    task.model.layers[0].mixer.q_proj.requires_grad_(True)
    optimiser = make(task, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, **({"momentum": 0.95} if make is muon else {}))
    chosen = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert chosen == {id(p) for p in task.parameters() if p.requires_grad}


def test_the_dry_run_tells_heads_and_adapters_beside_the_model(base: Path) -> None:
    point = config(*SMALL, f"run={base}", *CLASSES, "finetune=lora", "finetune.rank=2")
    told = costs(point, check(point))
    plain = costs(point, check(config(*SMALL, f"run={base}")))
    assert told["parameters"] == plain["parameters"]
    assert told["parameters besides"].startswith("75 of the objective's head classifier; ")
    assert "of the adapters, which alone learn with the heads" in told["parameters besides"]
    assert json.dumps(told)
