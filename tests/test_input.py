"""What a command line must not say: each is refused before training, in one line that names the key and the value."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from analysis.kinds import printable
from analysis.load import load
from runs.build.errors import ConfigError
from runs.build.stack import parse
from runs.compose.explain import EXPECTED, explain
from runs.job.check import check, check_here
from runs.job.execute import execute
from runs.job.start import build_task, load_data
from runs.training.evaluation import losses, pieces
from runs.training.memory import control_group_limits
from runs.training.optim import hidden_matrices
from tests.lab import TINY, config

ROOT = Path(__file__).resolve().parent.parent
TAG = "!!python/object/apply:os.system ['touch executed']"
SMALL = (*TINY, "train.seq_len=64")
REFUSED = {
    # numbers that cannot be computed with, wherever they stand
    "nan": (["optim.lr=nan"], r"optim\.lr=nan: a finite number is expected"),
    "infinity": (["optim.weight_decay=-inf"], r"optim\.weight_decay=-inf: a finite number"),
    "a number beyond fp32": (["optim.lr=1e300"], r"optim\.lr=1e\+300: a finite number"),
    "nan in a list": (["optim.betas=[nan,0.9]"], r"optim\.betas\.0=nan: a finite number"),
    "infinity by reference": (["shared.norm_eps=inf"], r"shared\.norm_eps=inf: a finite number"),
    "nan of a setting": (["train.clip=nan"], r"train\.clip=nan: a finite number"),
    "nan of the study": (["study.timeout=nan"], r"study\.timeout=nan: a finite number"),
    "nan in a layer": (["layers={a:['shared.norm_eps=nan']}", "stack=a"], r"layer a: shared\.norm_eps=nan: a finite number"),
    "more than 64 bits": (["seed=100000000000000000000"], "seed=100000000000000000000: a finite number"),
    # numbers that a class does not allow
    "no base": (["position=rotary", "shared.rope_theta=0"], "theta=0: more than 0 is needed"),
    "all dropped": (["shared.dropout=1.0"], r"dropout=1\.0: a share from 0 to below 1"),
    "a negative share": (["shared.dropout=-0.1"], r"dropout=-0\.1: a share"),
    "a negative epsilon": (["shared.norm_eps=-1"], "eps=-1: more than 0"),
    "no window": (["mixer=sparse", "size.window=0"], r"size\.window=0: a whole number from 1"),
    "no room": (["ffn=moe", "router=switch", "router.capacity_factor=0"], "capacity_factor=0: choose a positive number"),
    "no cap": (["score=soft_cap", "score.cap=0"], "cap=0: more than 0"),
    "no temperature": (["mixer=gla", "position=none", "mixer.tau=0"], "tau=0: more than 0"),
    "no state": (["mixer=mamba", "position=none", "mixer.d_state=0"], "d_state=0: at least 1"),
    "no taps": (["mixer=mamba", "position=none", "mixer.d_conv=0"], "d_conv=0: at least 1"),
    "no groups": (["mixer=mamba2", "position=none", "mixer.n_groups=0"], "n_groups=0: at least 1"),
    "no stretch": (["position=rotary_ntk", "position.relative.scaling.factor=0"], "factor=0: more than 0"),
    "a cold position": (["position=rotary_yarn", "position.relative.scaling.temperature=0"], "temperature=0: more than 0"),
    "no slope": (["norm=dynamic_tanh", "norm.alpha=0"], "alpha=0: more than 0"),
    "no scale": (["model.embedding.scale=0"], "scale=0: more than 0"),
    "segments below none": (["model.embedding.n_types=-1"], "n_types=-1: at least 0"),
    "a step beyond the scores": (["ffn=moe", "router=balanced", "router.bias_rate=2"], "bias_rate=2: from 0 to 1"),
    "all momentum": (["optim=muon", "optim.momentum=1"], "momentum=1: from 0 to below 1"),
    "a table of all pairs": (["data=modular_addition", "data.modulus=1000000"], "modulus=1000000: at least 2 and at most"),
    "a vocabulary of everything": (["tokenizer=bpe", "tokenizer.vocab_size=4000000000"], "vocab_size=4000000000: BPE starts"),
    "a decoder without places": (
        ["train.decode_tokens=8", "size.max_seq=64"],
        r"train\.decode_tokens=8: behind train\.seq_len=64 they end at 72, and .* has 64 places; take size\.max_seq=72",
    ),
    "an encoder that writes": (["model=encoder", "train.decode_tokens=8"], "only a causal decoder .* is of the kind Encoder"),
    "who sees what is to be written": (["ffn=moe", "router=expert_choice", "train.decode_tokens=8"], "this model sees later"),
    "fewer tokens than none": (["train.decode_tokens=-1"], "decode_tokens=-1: at least 0"),
    # values of another kind
    "a list for a tokenizer": (["data.tokenizer=[a,b]"], r"data\.tokenizer=\[\"a\", \"b\"\]: a Tokenizer is expected"),
    "layers by number": (["layers={1: []}"], "layers: the key 1 is no text"),
    "a number of layers": (["layers=3"], "layers=3: keys with values or null"),
    "two sizes": (["size=[nano,micro]"], r"size=\[nano,micro\]: the name of an option"),
    "keys for an option": (["optim={lr: 1}"], r"optim=\{lr: 1\}: the name of an option"),
    "null for an option": (["mixer=null"], "mixer=null: the name of an option"),
    "a number for keys": (["train=3"], "train=3: keys with values"),
    "a seed that is true": (["seed=true"], "seed=True: a whole number from 0"),
    "half a seed": (["seed=1.5"], r"seed=1\.5: a whole number from 0"),
    "a seed below 0": (["seed=-1"], "seed=-1: a whole number from 0"),
    "no slots": (["study.slots=0"], "slots=0: at least 1"),
    "no name": (["study.name=null"], r"study\.name=None: str is expected"),
    "a width that is null": (["size.d_model=null"], r"size\.d_model=None: a whole number from 1"),
    "text for a width": (["size.d_model=wide"], r"size\.d_model='wide': a whole number from 1"),
    "null for a rate": (["optim.lr=null"], r"optim\.lr=None: float is expected"),
    "a truth in a list": (["optim.betas=[true,0.9]"], r"optim\.betas=.*: a list of float is expected"),
    "keys by reference": (["shared.attention_bias=${size}"], r"shared\.attention_bias=.*: bool or qkv is expected"),
    "null by reference": (["shared.norm_eps=null"], r"shared\.norm_eps=None: float is expected"),
    "a number for a run": (["run=3"], "run=3: str or null"),
    "a number for causal": (["causal=3"], "causal=3: bool is expected"),
    "a part without a class": (
        ["position=rotary", "position.relative.scaling=3"],
        "scaling=3: a RotaryScaling is expected",
    ),
    "no count of experts": (["ffn=moe", "router.top_k=null"], "None is no whole number"),
    "a class of another kind": (["norm._target_=arch.MLP"], "norm"),
    "itself": (["size.d_model=${size.d_model}"], r"size\.d_model"),
    "what is not there": (["size.d_model=${foo}"], "foo"),
    "a resolver that is none": (["size.d_model=${os.system:ls}"], r"size\.d_model.*os\.system"),
    "a tag for text": (["data=text", f'data.path="{TAG}"'], "there is no such file"),
    "a tag in a layer": (["stack=a", f'layers={{a: ["norm.eps={TAG}"]}}'], "layer a: norm.eps"),
    # words that would have no effect, or take something away
    "an unknown size": (["++size.foo=3"], r"size\.foo: unknown key"),
    "an unknown shared key": (["++shared.foo=3"], r"shared\.foo: unknown key"),
    "an unknown key of the study": (["++study.foo=1"], r"study\.foo: unknown key"),
    "an unknown key of the loop": (["++train.foo=1"], r"train\.foo: unknown key"),
    "an unknown argument": (["++mixer.foo=1"], r"mixer\.foo: unknown key"),
    "a size left out": (["~size.d_model"], r"~size\.d_model: a run needs it"),
    "an argument left out": (["~optim.lr"], r"~optim\.lr: a run needs it"),
    "a name left out": (["~study.name"], r"~study\.name: a run needs it"),
    "nothing": (["=3"], "'=3': not of the form key=value"),
    # names that climb
    **{
        f"the name {name!r}": ([f"study.name={name}"], r"study\.name=.*: a plain folder name is expected")
        for name in ("../../x", "/tmp/x", "a/b", "'a\\\\b'", "''", ".", "..", ".a", "a" * 101)
    },
    # more than anybody can mean
    "layers by the billion": (["stack='999999999*mha'"], "stack='999999999.mha': 999,999,999 layers; at most 1,000"),
    "layers by layers": (["stack='999*(999*(999*mha))'"], "998,001 layers; at most 1,000"),
    "digits": ([f"stack='{'9' * 5000}*mha'"], "layers; at most 1,000"),
    "brackets": ([f"stack='{'(' * 5000}mha{')' * 5000}'"], "brackets stand more than 20 deep"),
    "counts of counts": ([f"stack='{'1*' * 5000}mha'"], "more than 20 deep"),
    "depth": (["size.n_layers=100000"], r"size\.n_layers=100000: at most 1,000"),
    "a width of 100 bits": ([f"size.d_model={10**30}"], r"size\.d_model=1000+: at most 1,048,576"),
    "a width that nothing divides": (["size.d_model=999983", "size.n_heads=3"], "3 does not divide 999983"),
    "a head of a part": (["mixer.d_head=100000000000"], r"mixer\.d_head=100000000000: at most 1,048,576"),
    # more than the machine has
    "a wide ffn": (
        ["ffn.d_ff=1000000", "train.batch_size=4096"],
        r"training this takes at least [\d.,]+ GiB .*, cpu has [\d.,]+ GiB; .* study\.memory=null",
    ),
    "experts": (["ffn=moe", "size.n_experts=1000000", "study.memory=1"], "training this takes at least"),
    "more than is allowed": (["study.memory=0.001"], r"training this takes at least .* study\.memory allows 0\.00 GiB"),
    "rows": (["train.batch_size=10000000000"], r"train\.batch_size=10000000000 .* a batch alone takes"),
    "held-out rows": (["train.eval_batches=10000000000"], r"train\.eval_batches=10000000000 of"),
    "what is written": (
        ["position=rotary", "train.decode_tokens=10000000000"],
        r"train\.decode_tokens=10000000000 in .* they alone",
    ),
    "no memory": (["study.memory=0"], "memory=0: more than 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_run_cannot_be_is_refused_in_one_line(case: str) -> None:
    words, message = REFUSED[case]
    with pytest.raises(EXPECTED) as error:
        check_here(config(*SMALL, *words))
    line = explain(error.value)
    assert re.search(message, line) and "\n" not in line, line


def test_a_stack_that_is_refused_is_never_laid_out() -> None:
    tracemalloc.start()
    with pytest.raises(ConfigError, match="at most 1,000"):
        parse("999*(999*(999*mha))")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


ARMS = [
    ".hidden",
    "../../up",
    "a/b",
    "two\nlines",
    'it\'s "quoted"',
    "\U0001f525 fire",
    "\u6f22" * 200,
    "a" * 300,
    "-",
    "\\",
]


def test_a_folder_stays_in_its_study_and_a_report_finds_it_whatever_the_arm_is_called(tmp_path: Path) -> None:
    small = ("train.steps=1", "train.batch_size=1", "train.eval_batches=1", "data=induction", f"out={tmp_path}")
    run = config(*SMALL, *small)
    for arm in ARMS:
        named = replace(run, study=replace(run.study, arm=arm))
        assert named.folder.parent == tmp_path / "default" and not named.folder.name.startswith(".")
        assert execute(named)["status"] == "done"
    assert sorted(load(tmp_path / "default")["given_name"]) == sorted(printable(arm) for arm in ARMS)


@pytest.mark.parametrize("name", ["plain", "two words", "moe+gqa", "\u6f22\u5b57", "v1.2", "-x"])
def test_a_plain_name_is_one(name: str) -> None:
    assert config(f"study.name='{name}'").folder.parent.name == name


def shell(*words: str, cwd: Path, module: str = "runs.train") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study=tagged"], "python/object/apply:os.system"),
        ([f'data.path="{TAG}"', "data=text"], "there is no such file"),
        ([f'study.arms={{a: ["data.path={TAG}"]}}'], "arm a"),
        (["stack=a", f'layers={{a: ["norm.eps={TAG}"]}}'], "layer a"),
        (["study.name=../up"], "study.name='../up': a plain folder name"),
        (["-m", "study.name=../up,../over"], "a plain folder name"),
        ([b"study.arm=\xff".decode(errors="surrogateescape")], "study.arm='\\udcff': text in UTF-8"),
    ],
)
def test_a_command_that_is_refused_runs_nothing_and_leaves_nothing(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "tagged.yaml").write_text(f"name: {TAG}\n")
    here = tmp_path / "here"
    here.mkdir()
    done = shell(*words, f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "out=out", cwd=here)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr and said in done.stderr, done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.name in ("executed", "up", "over", "default")]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["ffn=moe"],
        ["mixer=mamba", "position=none"],
        ["mixer=gru", "position=none"],
        ["mixer=lstm", "position=none"],
        ["mixer=sparse", "size.window=8"],
        ["model=encoder"],
        ["data=copy"],
    ],
)
def test_the_memory_of_activations_is_no_more_than_what_is_kept_and_not_much_less(words: list[str]) -> None:
    run = config(*SMALL, "train.batch_size=8", *words)
    data = load_data(run)
    task, kept = build_task(run, data), dict[int, torch.UntypedStorage]()
    weights = {p.untyped_storage()._cdata for p in task.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    ((batch, counts),) = pieces(task, data.batch(seed=0, step=0, batch_size=8, seq_len=64), 1, torch.device("cpu"))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _ = losses(task, batch, counts)
    measured = sum(storage.nbytes() for number, storage in kept.items() if number not in weights)
    least = check(run).memory.activations
    assert 0.5 * measured < least < 1.02 * measured  # the meta device copies a few views that a CPU does not


def test_the_optimiser_says_what_it_keeps() -> None:
    adamw, muon = (config(*SMALL, f"optim={name}") for name in ("adamw", "muon"))
    needed = {run.optim["_target_"][-5:]: check(run).memory for run in (adamw, muon)}
    learning = needed["adamw"].gradients
    assert needed["adamw"].optimiser == 2 * learning
    hidden = sum(p.numel() * p.element_size() for p in hidden_matrices(check(muon).task))
    assert needed[".muon"].optimiser == 2 * learning - hidden


def test_a_control_group_may_allow_less_than_the_machine_has(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/outer/inner\n")
    (tmp_path / "root" / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "root" / "outer" / "memory.max").write_text("1024\n")
    (tmp_path / "root" / "outer" / "inner" / "memory.max").write_text("max\n")
    assert control_group_limits(tmp_path / "root", tmp_path / "own") == [1024]


def test_memory_may_be_left_unlooked_at() -> None:
    check_here(config(*SMALL, "ffn.d_ff=1000000", "train.batch_size=4096", "study.memory=null"))
    check_here(config(*SMALL, "study.memory=1"))
    assert config(*SMALL, "study.memory=1").identity == config(*SMALL).identity
