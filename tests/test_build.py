"""Config to code: what may be built, and what is said of what cannot."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
import torch

import runs.job.check as run_check
from arch import (
    Attention,
    Block,
    ChannelMixer,
    Decoder,
    Embedding,
    Encoder,
    Experts,
    Model,
    Norm,
    Pattern,
    Pooler,
    Position,
    PreNorm,
    RMSNorm,
    Rotary,
    Router,
    Score,
    SequenceMixer,
)
from arch.position.scaling import RotaryScaling
from runs.build.errors import ConfigError
from runs.build.groups import PACKAGES
from runs.build.objects import build, check, check_arguments, fits
from runs.build.slots import slot_of
from runs.build.targets import hints
from runs.compose.explain import CONF
from runs.data import Data
from runs.job import record
from runs.job.execute import execute
from runs.objective import Objective
from runs.tokenizer import Tokenizer
from runs.training import optim, schedule
from runs.training.finetune import Finetune
from runs.training.optim import Optimiser
from runs.training.param import Param
from runs.training.schedule import Schedule
from tests.lab import config

NORM = {"_target_": "arch.RMSNorm", "d_model": 8}
MIXER = {"_target_": "arch.Attention", "d_model": 8, "n_heads": 2}


def test_a_node_becomes_its_target() -> None:
    norm = build({"_target_": "arch.RMSNorm", "d_model": 8, "eps": 1e-5}, "norm", Norm)
    assert isinstance(norm, RMSNorm)
    block = build({"_target_": "arch.PreNorm", "mixer": MIXER, "ffn": None, "mixer_norm": NORM}, "block", Block)
    assert isinstance(block, PreNorm) and isinstance(block.mixer, Attention) and block.ffn is None


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "os.system", "command": "true"}, r"norm._target_=os.system: only arch, runs.tokenizer, .* may be built"),
        ({"_target_": "torch.hub.load", "repo_or_dir": "x"}, r"norm._target_=torch.hub.load: only arch"),
        ({"_target_": "torch.nn.LayerNorm", "normalized_shape": 8}, r"norm._target_=torch.nn.LayerNorm: only arch"),
        ({"_target_": "arch.RMSNorn", "d_model": 8}, r"arch has no RMSNorn; did you mean RMSNorm\?"),
        ({"_target_": "arch.nothing.X"}, r"norm._target_=arch.nothing.X: No module named"),
        (
            {"_target_": "arch.MLP", "d_model": 8},
            r"norm._target_=arch.MLP: a Norm is expected; .* inherits arch.contracts.Norm",
        ),
        ({"_target_": "arch.RMSNorm", "d_modle": 8}, r"norm.d_modle: unknown key; did you mean d_model\?"),
        ({"_target_": "arch.RMSNorm", "d_modle": NORM}, r"norm.d_modle: unknown key; did you mean d_model\?"),
        ({"_target_": "arch.RMSNorm", "d_model": "8"}, r"norm.d_model='8': int is expected, not str"),
        ({"_target_": "arch.RMSNorm", "d_model": True}, r"norm.d_model=True: int is expected, not bool"),
        ({"_target_": "arch.RMSNorm"}, r"norm: d_model is missing"),
        (
            {"_target_": "arch.RMSNorm", "d_model": NORM},
            r"norm.d_model: nothing is built here; .* arch.norm.rmsnorm.RMSNorm has to annotate d_model",
        ),
        ({"_target_": "arch.RMSNorm", "d_model": 10**30}, r"norm.d_model=10+: a finite number is expected"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(node: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(node, "norm", Norm)
    assert "\n" not in str(caught.value)


def test_what_a_constructor_refuses_is_told_in_its_words() -> None:
    with pytest.raises(ConfigError, match=r"^mixer: n_heads=3 .*8|^mixer: .*3.*8"):
        build(MIXER | {"n_heads": 3}, "mixer", SequenceMixer)


@pytest.mark.parametrize(
    "target", [3, None, True, [], {}, "", "arch", ".", "arch.", "arch..X", ".arch.X", "arch.RMSNorm\n", "arch.X y"]
)
def test_a_target_that_is_no_dotted_name(target: object) -> None:
    with pytest.raises(ConfigError, match=r"norm._target_=.*: the dotted name of a class is expected") as caught:
        build({"_target_": target}, "norm", Norm)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("arch.decode", "a class is expected, not a module"),
        ("arch.decode.torch", "a class is expected, not a module"),
        ("arch.decode.torch.load", "No module named"),
        ("arch.contracts.Block.forward", "No module named"),
        ("arch.ops.activation.ACTIVATIONS", "a class is expected, not a dict"),
        ("runs.data.contract.IGNORED", "a class is expected, not a int"),
    ],
)
def test_a_target_that_is_no_class(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"norm._target_={target}: {message}"):
        build({"_target_": target}, "norm", Norm)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("mixer", None, "block.mixer=null: a SequenceMixer is expected"),
        ("mixer", {}, "block.mixer={}: a SequenceMixer is expected"),
        ("mixer", 3, "block.mixer=3: a SequenceMixer is expected"),
        ("mixer", [MIXER], r"block.mixer=\[.*: a SequenceMixer is expected"),
        ("mixer", NORM, "block.mixer._target_=arch.RMSNorm: a SequenceMixer is expected"),
        ("ffn", "arch.MLP", 'block.ffn="arch.MLP": a ChannelMixer is expected'),
        ("ffn", MIXER, "block.ffn._target_=arch.Attention: a ChannelMixer is expected"),
        ("mixer", MIXER | {"pattern": NORM}, "block.mixer.pattern._target_=arch.RMSNorm: a Pattern is expected"),
        ("dropout", {"_target_": "arch.RMSNorm", "d_model": 8}, "block.dropout: nothing is built here"),
    ],
)
def test_a_part_of_another_kind(part: str, value: object, message: str) -> None:
    whole = {"_target_": "arch.PreNorm", "mixer": MIXER, "ffn": None, "mixer_norm": NORM, part: value}
    with pytest.raises(ConfigError, match=message) as caught:
        build(whole, "block", Block)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layers", [None, {}, 3, MIXER, [MIXER], [None], [[]]])
def test_layers_are_a_list_of_blocks(layers: object) -> None:
    embedding = {"_target_": "arch.Embedding", "d_model": 8, "vocab_size": 8}
    with pytest.raises(ConfigError, match=r"model\.layers.*(a list is expected, each a Block|a Block is expected)"):
        build({"_target_": "arch.Decoder", "embedding": embedding, "layers": layers}, "model", Model)


def test_types() -> None:
    assert fits(1, float) and fits(None, int | None) and fits([1, 2], list[int]) and fits(torch.nn.ReLU(), torch.nn.Module)
    assert not fits(1.5, int) and not fits("x", int | None) and not fits(["a"], list[int]) and not fits(True, float)


def test_given_arguments_cannot_be_set_by_config() -> None:
    def f(*, a: int, model: object) -> None: ...

    with pytest.raises(ConfigError, match=r"t.model: unknown key; did you mean|t.model: unknown key; known: a"):
        check_arguments(f, {"a": 1, "model": 2}, "t", ("model",))


RUN = {
    "model": Model,
    "data": Data,
    "objective": Objective,
    "param": Param,
    "finetune": Finetune,
    "optim": Optimiser,
    "schedule": Schedule,
}
PARTS = {Norm, SequenceMixer, ChannelMixer, Position, Pattern, Router, Block, Score, Tokenizer, Embedding, RotaryScaling}
FUNCTIONS = {
    Optimiser: {optim.adamw, optim.muon},
    Schedule: {schedule.constant, schedule.cosine, schedule.wsd, schedule.inverse_sqrt},
}


@functools.cache
def everything() -> dict[str, Any]:
    """Dotted name -> what it stands for: all that is in the modules which a config may name, imports included."""
    found: dict[str, Any] = {}
    for package in map(importlib.import_module, PACKAGES):
        below = pkgutil.walk_packages(getattr(package, "__path__", []), f"{package.__name__}.")
        for module in (package, *(importlib.import_module(module.name) for module in below)):
            found |= {f"{module.__name__}.{name}": value for name, value in vars(module).items()}
    return found


def below(contract: type) -> set[Any]:
    return {contract}.union(*map(below, type.__subclasses__(contract)))


def asked_for(contract: type) -> set[type]:
    """The contracts of the arguments of all that keeps this one."""
    members = {value for value in everything().values() if inspect.isclass(value) and value in below(contract)}
    slots = [slot_of(hint) for member in members for hint in hints(member).values()]
    return {slot.contract for slot in slots if slot is not None}


def contracts() -> set[type]:
    """Those of a run's own nodes, and of all that can stand below them."""
    found, waiting = set[type](), set(RUN.values())
    while waiting:
        found |= waiting
        waiting = set().union(*map(asked_for, waiting)) - found
    return found


def is_taken(target: str, contract: type) -> bool:
    """Whether the class that a node names may stand in the place; what else it lacks is another matter."""
    try:
        check({"_target_": target}, "place", contract)
    except ConfigError as error:
        assert "\n" not in str(error)
        return not str(error).startswith(f"place._target_={target}: ")
    return True


def test_every_part_of_a_run_has_a_contract() -> None:
    assert contracts() == {*RUN.values(), *PARTS, Experts, Pooler, Encoder, Decoder, Rotary}


def test_of_all_that_can_be_named_a_place_takes_only_what_keeps_its_contract() -> None:
    names = everything()
    assert {"runs.data.cache.store", "arch.decode.torch", "runs.data.text.Path", "runs.training.optim.AdamW"} <= names.keys()
    for contract in contracts():
        keeping = below(contract) | FUNCTIONS.get(contract, set())
        wanted = {name for name, value in names.items() if isinstance(value, Hashable) and value in keeping}
        assert {name for name in names if is_taken(name, contract)} == wanted, contract
        assert len(wanted) > 1, contract


@pytest.mark.parametrize("target", ["arch.decode.torch.load", "runs.data.text.Path.write_text", "runs.data.cache.os.system"])
def test_what_lies_below_an_import_is_no_target(target: str) -> None:
    assert not any(is_taken(target, contract) for contract in contracts())


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    file = tmp_path / "victim"
    file.write_text("mine")
    return file


def weapons(victim: Path) -> list[dict[str, Any]]:
    """Nodes that would overwrite the file, or make another, if anything called what they name."""
    beside = str(victim.with_name("new"))
    return [
        {"_target_": "runs.data.cache.store", "name": str(victim), "arrays": {}, "facts": {}},
        {"_target_": "runs.data.text.Path.write_text", "self": str(victim), "data": "x"},
        {"_target_": "runs.data.cache.tempfile.mkdtemp", "dir": str(victim.parent)},
        {"_target_": "arch.decode.torch.save", "obj": 1, "f": beside},
        {"_target_": "torch.hub.load", "repo_or_dir": str(victim.parent), "model": "x", "source": "local"},
        {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1},
        {"_target_": "os.mkdir", "path": beside},
    ]


@pytest.mark.parametrize("contract", [Norm, Model, Data, Optimiser, Schedule, Tokenizer], ids=lambda c: c.__name__)
def test_nothing_is_called_that_keeps_no_contract(contract: type, victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHLAB_CACHE", str(victim.parent))
    for node in weapons(victim):
        with pytest.raises(ConfigError, match=f"^part._target_={node['_target_']}: "):
            build(node, "part", contract)
    assert victim.read_text() == "mine" and list(victim.parent.iterdir()) == [victim]


def test_all_of_a_node_is_checked_before_anything_in_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "telltale.py").write_text(
        "from arch import LayerNorm\n\n\nclass Telltale(LayerNorm):\n    def __init__(self) -> None:\n"
        "        super().__init__(d_model=8)\n        print('built')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ARCHLAB_PACKAGES", "telltale")
    said: list[str] = []
    monkeypatch.setattr("builtins.print", said.append)
    block = {"_target_": "arch.PreNorm", "mixer_norm": {"_target_": "telltale.Telltale"}, "mixer": MIXER, "ffn": None}
    with pytest.raises(ConfigError, match=r"block.ffn._target_=arch.RMSNorm"):
        build(block | {"ffn": NORM}, "block", Block)
    assert not said
    build(block, "block", Block)
    assert said == ["built"]


USERS = """
from __future__ import annotations
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from torch import nn
from arch import LayerNorm, Norm

if TYPE_CHECKING:
    from decimal import Decimal

class Mine(LayerNorm): pass
class Another(nn.Module): pass
def mine(*, d_model: int) -> Norm: return Mine(d_model=d_model)
def another(*, d_model: int): return Mine(d_model=d_model)
class Around(Norm):
    def __init__(self, *, inner: Norm, more: Sequence[Norm] = (), other=None, some: Any = None, child: nn.Module | None = None):
        super().__init__()
        self.inner, self.more = inner, nn.ModuleList(more)
class Unread(Norm):
    def __init__(self, *, eps: Decimal): pass
class Broken(Norm):
    def __init__(self): raise KeyError("first" + chr(10) + "second")
"""


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the user's own."""
    (tmp_path / "users.py").write_text(USERS)
    (tmp_path / "users_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users", raising=False)
    monkeypatch.setenv("ARCHLAB_PACKAGES", "users,users_broken")


def test_a_package_that_the_user_names_may_be_built(users: None, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"_target_": "users.Mine", "d_model": 8}
    assert type(build(mine, "norm", Norm)).__name__ == "Mine"
    assert type(build(mine | {"_target_": "users.mine"}, "norm", Norm)).__name__ == "Mine"
    around = build({"_target_": "users.Around", "inner": mine, "more": [NORM, mine]}, "norm", Norm)
    assert [type(module).__name__ for module in around.modules()][1:] == ["Mine", "ModuleList", "RMSNorm", "Mine"]
    monkeypatch.delenv("ARCHLAB_PACKAGES")
    with pytest.raises(ConfigError, match="name your own package in the environment: ARCHLAB_PACKAGES=users"):
        build(mine, "norm", Norm)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "users.Another"}, r"norm._target_=users.Another: a Norm is expected; .* inherits arch.contracts.Norm"),
        (
            {"_target_": "users.another", "d_model": 8},
            r"norm._target_=users.another: a Norm is expected; .* declares to return one",
        ),
        ({"_target_": "users.Around", "inner": NORM, "other": NORM}, r"norm.other: .* users.Around has to annotate other with"),
        (
            {"_target_": "users.Around", "inner": NORM, "some": [{"a": NORM}]},
            r"norm.some: .* users.Around has to annotate some",
        ),
        (
            {"_target_": "users.Around", "inner": NORM, "child": NORM},
            r"norm.child: .* users.Around has to annotate child",
        ),
        ({"_target_": "users.Around", "inner": NORM, "more": NORM}, r"norm.more=.*: a list is expected, each a Norm"),
        ({"_target_": "users.Unread", "eps": 1}, r"users.Unread: its annotations cannot be read: NameError: name 'Decimal'"),
        ({"_target_": "users.Broken"}, r"norm: KeyError: 'first\\nsecond'"),
        (
            {"_target_": "users_broken.Any"},
            r"norm._target_=users_broken.Any: users_broken cannot be imported: ZeroDivisionError",
        ),
    ],
)
def test_what_a_users_class_lacks_is_told_in_one_line(users: None, node: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(node, "norm", Norm)
    assert "\n" not in str(caught.value)


SMALL = ("size=micro", "data=mqar", "train.steps=1", "train.batch_size=1", "train.seq_len=32", "train.device=cpu")


def test_a_yaml_that_names_no_block_is_refused_before_training(victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHLAB_CACHE", str(victim.parent))
    conf = victim.parent / "conf" / "ffn"
    conf.mkdir(parents=True)
    (conf / "store.yaml").write_text(f"_target_: runs.data.cache.store\nname: {victim}\narrays: {{}}\nfacts: {{}}\n")
    run = config(f"hydra.searchpath=[file://{conf.parent}]", "ffn=store", *SMALL)
    with pytest.raises(ConfigError, match=r"model.layers.0.ffn._target_=runs.data.cache.store: a ChannelMixer is expected"):
        run_check.check(run)
    assert victim.read_text() == "mine" and len(list(victim.parent.iterdir())) == 2


def test_a_class_may_be_named_in_a_word() -> None:
    layer = config(*SMALL, "ffn._target_=arch.GLU").model["layers"][0]
    assert layer["ffn"]["_target_"] == "arch.GLU"


@pytest.mark.parametrize("place", ["data", "ffn"])
def test_a_strangers_run_is_refused_by_the_command_that_opens_it(place: str, victim: Path) -> None:
    run = config(*SMALL, "train.eval_batches=1", f"out={victim.parent / 'out'}")
    assert execute(run, peak=(1.0, "given"))["status"] == "done"
    content = record.read_json(run.folder / record.CONFIG)
    (content if place == "data" else content["model"]["layers"][-1])[place] = weapons(victim)[0]
    record.write_json(run.folder / record.CONFIG, content)
    done = subprocess.run(
        [sys.executable, "-m", "runs.sample", f"run={run.folder}", "prompt=x"],
        cwd=CONF.parent,
        env=os.environ | {"ARCHLAB_CACHE": str(victim.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"error: [\w.]+_target_=runs.data.cache.store: a \w+ is expected.*\n", done.stderr), done.stderr
    assert victim.read_text() == "mine" and sorted(victim.parent.iterdir()) == [victim.parent / "out", victim]
