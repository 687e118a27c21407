"""A trained run given away: transformers reads the folder, and computes the same logits."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runs.build.errors import ConfigError
from runs.command import guarded
from runs.export import export, main, write
from runs.job import record
from runs.job.execute import execute
from runs.job.start import Restored, build_task, load_data, restore
from runs.published import folder as weights
from tests.lab import TINY, config
from tests.pretrained import peers
from tests.pretrained.ours import close
from tests.pretrained.peers import transformers

SMALL = (
    TINY[0],
    "size=exported",
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
        data = (
            () if any(word.startswith(("data=", "model=transformer")) for word in words) else ("data=text", f"data.path={text}")
        )
        sizes = SMALL[2:] if any(word.startswith("weights=") for word in words) else SMALL
        point = config(*sizes, f"out={out}", "optim.lr=0.05", *data, *words)
        with torch.enable_grad():
            assert execute(point, peak=(1.0, "given"))["status"] == "done", point.folder
        return point.folder

    return train


def written(run: Path | Restored, place: Path, **more: Any) -> Any:
    """The model that transformers makes of a run's folder; nothing is missing in it."""
    if isinstance(run, Restored):
        write(run, place, **more)
    else:
        export(run=str(run), to=str(place), **more)
    name = json.loads((place / "config.json").read_text())["architectures"][0]
    kind = getattr(transformers, name)
    model, loading = kind.from_pretrained(place, local_files_only=True, output_loading_info=True, attn_implementation="eager")
    assert not loading["missing_keys"] and not loading["mismatched_keys"], loading
    assert all("pooler" in key for key in loading["unexpected_keys"]), loading
    return model.eval()


def tokens(*shape: int, below: int = 250) -> torch.Tensor:
    return torch.randint(2, below, shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def same_logits(run: Path | Restored, place: Path, **more: Any) -> Any:
    ours = run if isinstance(run, Restored) else restore(run)
    theirs, text = written(run, place, **more), tokens(2, 23)
    close(ours.task.model.eval()(text), theirs(text, use_cache=False).logits)
    return theirs


def untrained(*words: str) -> Restored:
    """What a run would be whose weights have gone anywhere."""
    point = config(*SMALL, "data=mqar", "data.vocab_size=256", *words)
    data = load_data(point)
    restored = Restored(point, data, build_task(point, data))
    peers.randomise(restored.task, seed=3)
    return restored


SCRATCH = {
    "gpt2, another size and activation": ["model=gpt2_medium", "ffn=relu", "ffn.d_ff=100", "shared.norm_eps=0.001"],
    "gpt2, fewer heads than its size says": ["model=gpt2", "mixer.n_heads=2", "mixer.d_head=24"],
    "llama 3, wide heads": ["model=llama3_8b", "size.d_head=16"],
    "llama 3.1": ["model=llama3_8b", "position=rotary_llama3", "position.relative.scaling.trained_seq=32"],
    "llama, linear": ["model=llama2_7b", "position=rotary_linear", "shared.attention_bias=true", "model.tied=true"],
    "llama, yarn": ["model=llama3_8b", "position=rotary_yarn", "position.relative.scaling.ramp=channels"],
    "phi3": ["model=phi3_mini", "size.window=9", "size.d_rotary=6"],
    "qwen2": ["model=qwen2_5_0_5b"],
    "mixtral": ["model=mixtral_8x7b"],
    "olmoe": ["model=olmoe_1b_7b", "router=topk_normalised"],
    "deepseek_v2": [
        "model=deepseek_v2_lite", "position=rotary", "size.n_layers=3", "size.n_shared_experts=1", "size.d_gated=126",
        "size.d_rope=6",
    ],
    "deepseek_v2, one layer, latent queries": [
        "model=deepseek_v2_lite", "position=rotary_linear", "size.n_layers=1", "mixer.d_q_latent=10",
    ],
    "mamba": ["model=mamba_130m", "mixer.d_state=8"],
}  # fmt: skip


@pytest.mark.parametrize("name", SCRATCH)
def test_a_model_with_a_published_name(name: str, tmp_path: Path) -> None:
    same_logits(untrained(*SCRATCH[name]), tmp_path / "away")


def test_a_trained_run(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same_logits(run := trained("model=llama3_8b"), tmp_path / "away")
    line = (
        f"{tmp_path / 'away'}: a model of the family llama, {record.read_json(run / 'summary.json')['cost']['total_params']:,}"
    )
    assert line in capsys.readouterr().out


@torch.no_grad()
def test_deepseeks_own_scale_is_written_though_this_release_does_not_read_it(tmp_path: Path) -> None:
    run = untrained("model=deepseek_v2_lite")
    theirs, text = written(run, tmp_path / "away"), tokens(2, 23)
    assert theirs.config.rope_scaling["mscale_all_dim"] == 0.707
    for layer in theirs.model.layers:
        layer.self_attn.scaling *= (0.1 * 0.707 * math.log(40) + 1) ** 2
    close(run.task.model.eval()(text), theirs(text, use_cache=False).logits)


@torch.no_grad()
@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_an_encoder_with_its_heads(weight: float, trained: Trained, tmp_path: Path) -> None:
    run = trained("model=bert_base", f"objective.nsp_weight={weight}")
    task, theirs, text = restore(run).task.eval(), written(run, tmp_path / "away"), tokens(2, 23)
    x, answers = task.model(text), theirs(text)
    close(task.heads["mlm"](x, task.model.embedding.weight), answers.prediction_logits if weight else answers.logits)
    if weight:
        close(task.heads["nsp"](task.model.pooled(x)), answers.seq_relationship_logits)
    again = weights.load(tmp_path / "away")
    assert all(torch.equal(again[name.removeprefix("model.")], t) for name, t in task.state_dict().items())


@torch.no_grad()
def test_a_classifier_of_texts(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained("model=bert_base", "objective=classification", "data=packages", "train.seq_len=48")
    task, theirs, text = restore(run).task.eval(), written(run, tmp_path / "away"), tokens(2, 23)
    close(task.heads["classifier"](task.model.pooled(task.model(text))), theirs(text).logits)
    run = trained("model=gpt2", "objective=classification", "data=packages", "train.seq_len=48")
    capsys.readouterr()
    same_logits(run, tmp_path / "body")
    assert "left out: heads.classifier; this layout has no place for it" in capsys.readouterr().out


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "finetune"), [("phi3", "full"), ("olmoe", "full"), ("llama", "lora"), ("gpt2", "lora"), ("deepseek_v2", "lora")]
)
def test_a_run_from_published_weights_keeps_its_family(family: str, finetune: str, trained: Trained, tmp_path: Path) -> None:
    peer = peers.FAMILIES[family](**({"vocab_size": 300, "eos_token_id": 7}))
    peer.save_pretrained(tmp_path / "published")
    adapters = ["finetune.names=[q_proj,o_proj]", "finetune.rank=2"] if finetune == "lora" else []
    run = trained(f"weights={tmp_path / 'published'}", "tokenizer=bytes", f"finetune={finetune}", *adapters)
    theirs, text = written(run, tmp_path / "away"), tokens(2, 23)
    assert type(theirs) is type(peer)
    assert theirs.config.eos_token_id == 7
    close(restore(run).task.model.eval()(text), theirs(text, use_cache=False).logits)
    assert (theirs(text).logits - peer(text).logits).abs().max() > 1e-3
    before, after = (weights.overrides(weights.read_config(tmp_path / side)) for side in ("published", "away"))
    assert sorted(before) == sorted(after)
    assert not [name for name in weights.load(tmp_path / "away") if "lora" in name]


def test_a_run_that_went_on_from_another(trained: Trained, tmp_path: Path) -> None:
    run = trained("model=qwen2_5_0_5b")
    point = config(*SMALL[2:], f"out={tmp_path}", f"run={run}", "data=text", f"data.path={run.parents[1] / 'story.txt'}")
    execute(point, peak=(1.0, "given"))
    same_logits(point.folder, tmp_path / "away")


@torch.no_grad()
def test_an_encoder_decoder(trained: Trained, tmp_path: Path) -> None:
    words = ["++position.absolute.layout=halves", "++model.decoder.logit_bias=true"]
    run = trained("model=transformer_base", *words)
    model, theirs = restore(run).task.model.eval(), written(run, tmp_path / "away")
    source, target = tokens(2, 13), tokens(2, 9)
    close(model(source, target), theirs(input_ids=source, decoder_input_ids=target).logits)
    assert (theirs.config.pad_token_id, theirs.config.decoder_start_token_id) == tuple(
        restore(run).data.specials[role] for role in ("pad", "bos")
    )


@pytest.mark.parametrize(
    "tokenizer", [["tokenizer=bytes"], ["tokenizer=bpe", "tokenizer.vocab_size=280"]], ids=["bytes", "bpe"]
)
def test_the_tokenizer_comes_along(tokenizer: list[str], trained: Trained, tmp_path: Path) -> None:
    run = trained("model=llama2_7b", *tokenizer)
    export(run=str(run), to=str(tmp_path / "away"))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "away", local_files_only=True)
    ours = restore(run).data.tokenizer
    assert set(theirs("a")) == {"input_ids", "attention_mask"}  # all that generate() takes
    for text in ("The 17th line", "  two\n\n spaces, é, 羊 and \t\x00 ", "def f(x):\n    return x"):
        assert theirs(text)["input_ids"] == ours.encode(text).tolist()
        assert theirs.decode(ours.encode(text)) == text


def test_special_tokens_come_along(trained: Trained, tmp_path: Path) -> None:
    run = trained("model=bert_base")
    export(run=str(run), to=str(tmp_path / "away"))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "away", local_files_only=True)
    specials = restore(run).data.specials
    assert (theirs.mask_token_id, theirs.cls_token_id, theirs.pad_token_id) == tuple(
        specials[role] for role in ("mask", "cls", "pad")
    )
    assert theirs("a[MASK]b")["input_ids"] == [ord("a"), specials["mask"], ord("b")]


def test_a_run_on_no_text_has_no_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(untrained("model=llama2_7b"), tmp_path / "away")
    assert "no tokenizer.json" in capsys.readouterr().out
    assert {file.name for file in (tmp_path / "away").iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("words", "more", "message"),
    [
        (["model=llama2_7b", "norm=layernorm"], None, "final_norm is LayerNorm here and RMSNorm there"),
        (["model=llama2_7b", "stack='gqa, mamba'"], None, "layers.1.mixer is Mamba here and Attention there"),
        (["model=llama2_7b", "position=rotary_ntk"], None, "position.scaling is NTKScaling here and null there"),
        (["model=llama2_7b", "position=rotary_yarn"], None, 'position.scaling.ramp is "turns" here and "channels" there'),
        (["model=llama2_7b", "shared.attention_bias=qkv"], None, 'layers.0.mixer.bias is "qkv" here and false there'),
        (["model=gpt2", "ffn=relu2"], None, "activation_function='relu2' is not expressed here"),
        (["model=mixtral_8x7b", "router=noisy"], None, "layers.0.ffn.router is NoisyTopK here and TopK there"),
        (["model=mamba2_130m"], None, "model=mamba2_130m belongs to no published layout; name the one to write"),
        (["model=mamba2_130m"], "mamba", "family=mamba does not express it: layers.0.mixer is Mamba2 here and Mamba there"),
        (["model=gpt1"], None, "model=gpt1 belongs to no published layout; name the one to write, as in family=llama"),
        (["model=decoder"], "llama", "final_norm is LayerNorm here and RMSNorm there"),
        (["model=decoder"], "t5", "family=t5: no name map for this family; there are bert, deepseek_v2, gpt2"),
    ],
)  # fmt: skip
def test_what_a_family_does_not_express_is_refused_in_one_line(
    words: list[str], more: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        write(untrained(*words), tmp_path / "away", family=more)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "away").exists()


def test_a_refusal_is_one_line(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained("model=gpt2", "norm=rmsnorm")
    capsys.readouterr()
    assert guarded(lambda: main([f"run={run}", f"to={tmp_path / 'away'}"])) == 2
    printed = capsys.readouterr().err
    assert (
        printed.startswith(f"error: run={run}: family=gpt2 does not express it: final_norm is RMSNorm")
        and printed.count("\n") == 1
    )


def test_a_family_may_be_named(tmp_path: Path) -> None:
    words = ["mixer=gqa", "position=rotary", "ffn=swiglu", "norm=rmsnorm"]
    theirs = same_logits(untrained(*words), tmp_path / "away", family="llama")
    assert theirs.config.tie_word_embeddings


def test_nothing_is_overwritten(trained: Trained) -> None:
    run = trained("model=llama2_7b")
    before = (run / "config.json").read_text()
    with pytest.raises(ConfigError, match=r"holds config.json already; choose another folder"):
        export(run=str(run), to=str(run))
    assert (run / "config.json").read_text() == before


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize("there", ["file", "link", "link to nothing"])
def test_no_file_is_overwritten_and_no_link_written_through(name: str, there: str, tmp_path: Path) -> None:
    place, mine = tmp_path / "away", tmp_path / "mine"
    place.mkdir()
    if there == "file":
        (place / name).write_text("mine")
    else:
        (place / name).symlink_to(mine)
    if there == "link":
        mine.write_text("mine")
    with pytest.raises(ConfigError, match=f"holds {name} already; choose another folder"):
        write(untrained("model=llama2_7b"), place)
    assert [file.name for file in place.iterdir()] == [name]
    assert not mine.exists() if there == "link to nothing" else (place / name).read_text() == "mine"


def test_a_file_is_no_place_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "away").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for name in ("away", "nowhere"):
        with pytest.raises(ConfigError, match=f"{name} is there already and no folder; choose another place"):
            write(untrained("model=llama2_7b"), tmp_path / name)
    assert (tmp_path / "away").read_text() == "mine" and not (tmp_path / "gone").exists()


def test_a_run_may_keep_its_export_in_its_folder(trained: Trained) -> None:
    run = trained("model=llama2_7b")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    export(run=str(run), to=str(run / "checkpoint" / "away"))
    assert {file: file.read_bytes() for file in before} == before
    assert (run / "checkpoint" / "away" / "model.safetensors").is_file()
