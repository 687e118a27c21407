"""What a command line comes to: points that are one run, words without effect, hints, and how doors are opened."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from runs.build.errors import ConfigError
from runs.build.groups import KEYS, USUAL
from runs.command import Command, collect, guarded
from runs.compose.explain import CONF, did_you_mean, leaves
from runs.job.check import check
from runs.train import main
from tests.lab import config, options

ROOT = Path(__file__).resolve().parent.parent
OUT = Path(tempfile.gettempdir()) / "archlab-tests"  # Hydra makes a folder for each command; no run is made


def collected(monkeypatch: pytest.MonkeyPatch, *words: str) -> Command:
    monkeypatch.setattr(sys, "argv", ["train", *words, f"out={OUT}"])
    return collect()


def test_points_that_are_one_run_run_once_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = collected(monkeypatch, "-m", "ffn=dense,moe", "router=topk,switch")
    assert [run.label for run in command.runs] == ["dense", "moe, topk", "moe, switch"]
    assert not command.refused
    assert capsys.readouterr().out == "1 of 4 points come out as runs that are there already: dense seed 0\n"


def test_two_names_for_one_run_are_two_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    command = collected(monkeypatch, "-m", "study.arms={a: [], b: ['ffn=dense']}", "study.seeds=[0,1]")
    assert [(run.label, run.seed) for run in command.runs] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert len({run.folder for run in command.runs}) == 4 and len({run.arm_hash for run in command.runs}) == 1


IDLE = {
    "a size": (
        ["mixer=mha", "size.n_kv_heads=1"],
        "size.n_kv_heads=1: no part of this run reads it; .*read by mixer=gqa, mixer=nsa",
    ),
    "a size that a yaml fixes": (
        ["mixer=mamba", "position=none", "size.d_state=128"],
        "size.d_state=128: .*read by mixer=mamba2",
    ),
    "experts of a dense ffn": (["ffn=dense", "size.n_experts=64"], "size.n_experts=64: no part"),
    "a base without rotation": (["position=learned", "shared.rope_theta=5e5"], "shared.rope_theta=5e5: no part"),
    "a loss that the router does without": (
        ["ffn=moe", "router=balanced", "train.load_balance=0.5"],
        "train.load_balance=0.5: no",
    ),
    "a loss without routers": (["train.router_z=0.5"], "train.router_z=0.5: no part"),
    "a group": (["router=switch"], "router=switch: no part of this run uses a router"),
    "a position of a mixer without one": (["mixer=gru", "position=rotary"], "position=rotary: no part"),
    "an axis": (["-m", "ffn=dense,swiglu", "router=topk,switch"], "router=topk: no part"),
    "a word of an arm": (
        ["-m", "study.arms={a: [], b: ['router=switch']}"],
        "arm b seed 0: router=switch: no part of this arm",
    ),
    "a key that is none": (["++size.foo=3"], "size.foo: unknown key"),
    "a shared key that is none": (["shared.ffn_biass=true"], r"shared.ffn_biass: unknown key; did you mean shared.ffn_bias\?"),
    "a key of a study": (["study.foo=1"], "study.foo: unknown key"),
    "an argument that the class has not": (["norm=rmsnorm", "norm.bias=true"], "norm.bias: unknown key"),
    "an argument of another option": (
        ["mixer=mha", "mixer.d_conv=4"],
        "mixer.d_conv=4: .*read by mixer=gated_deltanet, mixer=mamba",
    ),
    "an argument that no class of a grid has": (["-m", "norm=layernorm,rmsnorm", "norm.beta=1,2"], "norm.beta: unknown key"),
    "a context that no table has": (["position=rotary", "size.max_seq=64"], "size.max_seq=64: no part"),
    "a key given twice": (["mixer=mha", "mixer=gqa"], "mixer: given twice, as mixer=mha and as mixer=gqa"),
    "a key of the loop": (["train.devise=cpu"], r"train.devise: unknown key; did you mean device\?"),
    "a seed of an arm": (["-m", "study.arms={a: ['seed=3']}"], "study.arms.a: seed=3 is no part of an arm"),
    "an arm that is no override": (["-m", "study.arms={a: [1]}"], "study.arms.a=.1.: a list of overrides is expected"),
    "no slots": (["study.slots=0"], "slots=0: at least 1"),
    "no time": (["study.timeout=-1"], "timeout=-1: more than 0"),
    "a group left out": (["~schedule"], "~schedule: a run needs it"),
    "an empty path": (["data=text", "data.path="], "data=text needs your text"),
}


@pytest.mark.parametrize("case", IDLE)
def test_a_word_without_effect_is_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words, message = IDLE[case]
    try:
        command = collected(monkeypatch, *words)
        for run in command.runs:
            check(run)
        refused = command.refused
    except (ConfigError, ValueError) as error:
        refused = [ConfigError(str(error))]
    assert len(refused) == 1
    with pytest.raises(ConfigError, match=message):
        raise refused[0]


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["optim=adamw,muon", "optim.momentum=0.9"], ["adamw", "muon, momentum 0.9"]),
        (["norm=layernorm,rmsnorm", "norm.bias=true,false"], ["layernorm, bias true", "layernorm, bias false", "rmsnorm"]),
        (["pattern=full,sliding_window", "pattern.window=8"], ["full", "sliding_window, window 8"]),
        (["mixer=mha,mamba", "mixer.d_state=8,32"], ["mha", "mamba, d_state 8", "mamba, d_state 32"]),
        (["train.clip=1,1.0"], ["clip 1"]),
        (["mixer=mha,gqa", "size.n_kv_heads=4"], ["mha"]),
        (["norm.bias=true,false", "ffn.bias=true,false"], ["norm.bias true, ffn.bias true"]),
        (["stack=null,'mha,gqa'"], ["mha", "mha, gqa"]),
        (["causal=true,false", "objective=classification"], ["causal true", "causal false"]),
    ],
)
def test_a_grid_over_what_some_classes_have_loses_no_point(
    words: list[str], labels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = collected(monkeypatch, "-m", *words)
    assert not command.refused
    found = [run.label for run in command.runs]
    assert found[: len(labels)] == labels and len(set(found)) == len(found)


def test_a_study_file_is_held_against_the_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "odd.yaml").write_text("# @package _global_\nstudy: {name: odd}\nsize: {foo: 3}\n")
    (refused,) = collected(monkeypatch, "study=odd", f"hydra.searchpath=[file://{tmp_path}]").refused
    assert "size.foo: unknown key" in str(refused)


def test_arms_whose_names_make_one_folder_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "odd.yaml").write_text("arms: {A/A: [], A A: []}\n")
    with pytest.raises(ConfigError, match="A/A and A A are one run and make one folder"):
        collected(monkeypatch, "-m", "study=odd", f"hydra.searchpath=[file://{tmp_path}]")


def test_a_word_that_some_point_reads_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    command = collected(monkeypatch, "-m", "ffn=dense,moe", "size.n_experts=4", "train.load_balance=0.1")
    dense, routed = command.runs
    assert (dense.settings.load_balance, routed.settings.load_balance) == (0.0, 0.1)
    assert dense.identity == config().identity


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("steps", "train.steps"),
        ("lr", "optim.lr"),
        ("n_heads", "size.n_heads"),
        ("mixr", "mixer"),
        ("train.stepz", "train.steps"),
        ("size.d_modle", "size.d_model"),
        ("dropuot", "shared.dropout"),
    ],
)
def test_a_hint_searches_the_whole_tree(key: str, meant: str) -> None:
    assert f"did you mean {meant}" in did_you_mean(key)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("steps=3", "steps: unknown key; did you mean train.steps?"),
        ("lr=0.1", "lr: unknown key; did you mean optim.lr"),
        ("size.n_heads=5", "5 does not divide 96; 4 or 6 would do"),
        ("norm.epz=1", "norm.epz: unknown key; did you mean norm.eps?"),
    ],
)
def test_a_wrong_word_ends_in_one_line_that_helps(
    word: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["train", f"out={OUT}", word])
    assert guarded(main) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_an_argument_that_a_yaml_leaves_out_needs_no_plus() -> None:
    assert config("model.logit_bias=true").model["logit_bias"] is True
    assert config("norm.bias=false").model["final_norm"]["bias"] is False
    pattern = config("mixer=sparse", "pattern.window=8").model["layers"][0]["mixer"]["pattern"]
    assert pattern["window"] == 8 and pattern["_target_"] == "arch.SlidingWindow"


def test_the_table_of_keys_is_that_of_conf() -> None:
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert groups <= KEYS.keys()
    assert {leaf.split(".")[0] for leaf in leaves()} <= KEYS.keys()
    for name, key in KEYS.items():
        for option in options(name) if key.package else ():
            text = (CONF / name / f"{option}.yaml").read_text()
            assert key.package in text or "defaults:" in text, (name, option)


@pytest.mark.parametrize("door", ["train", "check", "sample", "look", "export"])
def test_a_door_started_as_a_file_says_how_it_is_started(door: str) -> None:
    done = subprocess.run([sys.executable, f"runs/{door}.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"start it as a module, from the top of the repository: python -m runs.{door}\n"


def test_hints_know_the_options_of_a_folder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ffn").mkdir()
    (tmp_path / "ffn" / "mine.yaml").write_text("_target_: arch.MLP\nd_model: ${size.d_model}\nd_ff: 8\nswirl: 3\n")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    search = f"hydra.searchpath=[file://{tmp_path}]"
    for words, message in {
        (search, "ffn=mien"): "ffn=mien: no such option; did you mean mine?; all: dense, geglu, gelu_tanh, mine, moe,",
        (search, "ffn.swril=2"): "ffn.swril: unknown key; did you mean ffn.swirl?",
        (
            search,
            "ffn.swirl=2",
        ): "ffn.swirl=2: no part of this run reads it; leave it out, or choose what does; read by ffn=mine",
        ("ffn.swirl=2",): "ffn.swirl: unknown key; known: ",
        ("study=claims/gqaa",): "study=claims/gqaa: no such option; did you mean claims/gqa?; all: demo,",
    }.items():
        monkeypatch.setattr(sys, "argv", ["train", *words])
        assert guarded(main) == 2
        assert message in capsys.readouterr().err


def test_a_name_leads_with_the_model_and_tells_a_score_where_they_are_not_the_usual_ones() -> None:
    assert config().name == "dense-mha-layernorm-pre_norm-learned"
    assert config("score=qk_norm").name == "dense-mha-layernorm-pre_norm-learned-qk_norm"
    assert config("model=gpt2", "size=nano").name == "gpt2-gelu_tanh-mha-layernorm-pre_norm-learned"
    assert config("model=gpt2", "size=nano", "study.arm=mine").name == "mine"
    usual = OmegaConf.load(CONF / "config.yaml").defaults
    assert all(OmegaConf.create({key: option}) in usual for key, option in USUAL.items())
