"""What stands between a command and its first step: what is imported, and when."""

from __future__ import annotations

import contextlib
import importlib
import json
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
import yaml
from omegaconf import OmegaConf
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from runs.command import collect
from runs.compose.compose import resolve
from runs.compose.grid import each_point
from runs.compose.once import parse_once
from runs.job.check import check
from runs.objective.causal_lm import NextToken
from runs.training.memory import FusedKernels
from runs.usage import WELL_KNOWN, groups, keys
from tests.door import ROOT, small, summary, write_text
from tests.lab import config

HEAVY = {"torch._dynamo", "sympy", "pandas", "scipy", "matplotlib", "transformers", "tokenizers", "datasets"}

AS_CHILD = """
import importlib, json, pickle, sys
from runs.sweep.launcher import SHARED
for module in SHARED:
    importlib.import_module(module)
before = set(sys.modules)
from runs.job.execute import execute
execute(pickle.load(open(sys.argv[1], "rb")))
print(json.dumps(sorted(set(sys.modules) - before)))
"""
AS_DOOR = """
import json, sys
from runs.train import main
assert main() == 0
print(json.dumps(sorted(sys.modules)))
"""


def modules(code: str, *words: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_arch_brings_in_einops_and_what_torch_has_already() -> None:
    new = modules(
        "import json, sys, torch; before = set(sys.modules); import arch; print(json.dumps([*set(sys.modules) - before]))"
    )
    assert {name.split(".")[0] for name in new} == {"arch", "einops"}


def test_a_child_of_a_sweep_finds_all_imported_and_a_finished_run_asks_for_less(tmp_path: Path) -> None:
    words = small(write_text(tmp_path / "story.txt"), tmp_path, "ffn=moe", "train.steps=2")
    run = config(*words)
    (tmp_path / "run.pickle").write_bytes(pickle.dumps(run))
    new = modules(AS_CHILD, str(tmp_path / "run.pickle"))
    assert summary(run.folder)["status"] == "done"
    assert not {name for name in new if name.split(".")[0] in {"runs", "arch", *HEAVY} or name.startswith("torch._dynamo")}
    assert not HEAVY & modules(AS_DOOR, *words)


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["ffn=moe"], [0]),
        (["-m", "ffn=dense,moe", "seed=range(2)"], [0, 1, 2, 3]),
        (["-m", "ffn=dense,moe", "hydra.sweeper.params={seed:'0,1'}"], None),
        (["--cfg", "job"], None),
    ],
)
def test_what_is_more_than_to_compose_is_left_to_hydra(words: list[str], numbers: list[int] | None) -> None:
    found: list[Any] = []
    assert each_point(words, lambda config, job: found.append((job.job.num, job.mode.name))) is (numbers is not None)
    assert found == [(number, "MULTIRUN" if "-m" in words else "RUN") for number in numbers or []]


def test_a_sweep_that_a_file_describes_is_swept_by_hydra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    plan = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '3,4'}}}\n"
    (tmp_path / "study" / "swept.yaml").write_text(plan)
    words = (f"hydra.searchpath=[file://{tmp_path}]", "study=swept", f"out={tmp_path}")
    monkeypatch.setattr(sys, "argv", ["train", *words])
    assert [run.seed for run in collect().runs] == [3, 4]


@pytest.mark.parametrize(("batch_size", "sizes"), [("8", [8, 8, 8, 8]), ("${plus:${seed},1}", [4, 4, 5, 5])])
def test_what_refers_to_the_seed_differs_among_an_arms_runs(
    batch_size: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "study").mkdir()
    plan = f"study: {{arms: {{dense: [], moe: [ffn=moe]}}, seeds: [3, 4]}}\ntrain:\n  batch_size: {batch_size}\n"
    (tmp_path / "study" / "asked.yaml").write_text(f"# @package _global_\n{plan}")
    words = (f"hydra.searchpath=[file://{tmp_path}]", "study=asked", f"out={tmp_path}")
    monkeypatch.setattr(sys, "argv", ["train", *words])
    found = collect().runs
    assert [(run.seed, run.study.arm) for run in found] == [(3, "dense"), (3, "moe"), (4, "dense"), (4, "moe")]
    assert [run.settings.batch_size for run in found] == sizes
    assert [run.identity for run in found] == [replace(run, identity="").identity for run in found]


@pytest.mark.parametrize("door", ["bench", "check", "export", "look", "sample", "train"])
def test_help_says_what_a_door_does_before_anything_heavy_is_imported(door: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{door}', 'ffn=moe', '--help']\n"
        "try:\n"
        f"    runpy.run_module('runs.{door}', run_name='__main__')\n"
        "except SystemExit as left:\n"
        "    print([left.code, *{'torch', 'hydra', 'numpy'} & set(sys.modules)])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    doc = str(importlib.import_module(f"runs.{door}").__doc__).strip()
    assert done.stdout.startswith(f"{doc}\n")
    assert done.stdout.endswith("\n[0]\n")
    assert ("\n  router     topk_normalised, " in done.stdout) == (door in ("check", "look", "train"))


def test_help_names_every_group_and_says_what_config_yaml_does() -> None:
    config = OmegaConf.load(ROOT / "conf" / "config.yaml")
    assert {line.split()[0] for line in groups()} >= {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()}
    said = dict(line.split()[0].split("=") for line in keys() if line.startswith("  ") and "=" in line.split()[0])
    assert said.keys() == set(WELL_KNOWN)
    assert said == {key: str(yaml.safe_dump(OmegaConf.select(config, key)).split("\n")[0]) for key in said}


def test_files_are_read_and_references_parsed_once_for_all_points(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Counter[str]()
    load = OmegaConf.load

    def count(file: Any) -> Any:
        read[file.name] += 1
        return load(file)

    monkeypatch.setattr(OmegaConf, "load", count)
    grid = ["-m", "ffn=dense,moe", "norm=layernorm,rmsnorm"]
    found: list[Any] = []
    parsed = []
    for words in (grid, [*grid, "seed=0,1,2"]):
        assert each_point(words, lambda config, job: found.append(OmegaConf.to_container(config, resolve=False)))
        points = [resolve(OmegaConf.create(config), config["hydra"]["runtime"]["choices"], []) for config in found]
        parsed.append(parse_once.cache_info().misses)
        assert set(read.values()) == {1}
        read.clear()
    assert len({point.run.arm_hash for point in points}) == 4 and len(points) == 16
    assert parsed[0] == parsed[1]


def test_a_defaults_list_may_still_refer_to_a_choice(tmp_path: Path) -> None:
    for path, text in {
        "config.yaml": "defaults: [_self_, kind: a, size: of_a, part: '${kind}_${size}']\nlast: ${part.name}\n",
        "kind/a.yaml": "name: a",
        "kind/b.yaml": "name: b",
        "size/of_a.yaml": "name: small",
        "part/a_of_a.yaml": "name: one",
        "part/b_of_a.yaml": "name: other",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert [hydra.compose("config", overrides=words).last for words in ([], ["kind=b"])] == ["one", "other"]


def test_a_model_is_run_through_twice_and_no_recurrence_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Counter[str]()
    forward = NextToken.forward
    monkeypatch.setattr(NextToken, "forward", lambda task, batch: passes.update(["task"]) or forward(task, batch))
    steps = Counter[str]()

    class Counted(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            steps.update([str(func)])
            return func(*args, **(kwargs or {}))

    with Counted():
        check(config("mixer=gru", "position=none", "size=micro", "train.seq_len=64"))
    assert passes["task"] == 2
    assert steps["aten.sigmoid.default"] == 0


@pytest.mark.parametrize(
    ("q", "k", "v", "mask"),
    [
        ((2, 4, 8, 16), (2, 4, 8, 15), (2, 4, 8, 16), None),
        ((2, 4, 8, 16), (2, 3, 8, 16), (2, 3, 8, 16), None),
        ((2, 4, 8, 16), (2, 4, 8, 16), (2, 4, 8, 16), (7, 8)),
    ],
)
def test_the_stand_in_for_attention_refuses_what_attention_refuses(q: Any, k: Any, v: Any, mask: Any) -> None:
    for device, mode in (("cpu", contextlib.nullcontext()), ("meta", FusedKernels())):
        tensors = [torch.zeros(shape, device=device) for shape in (q, k, v)]
        bias = None if mask is None else torch.zeros(mask, device=device)
        with mode, pytest.raises(RuntimeError):
            F.scaled_dot_product_attention(*tensors, attn_mask=bias, enable_gqa=True)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_stand_in_for_a_recurrence_gives_what_it_gives(kind: Any, bidirectional: bool) -> None:
    module = kind(6, 5, batch_first=True, bidirectional=bidirectional)
    real, states = module(torch.zeros(2, 7, 6))
    with FusedKernels():
        given, kept = module.to("meta")(torch.zeros(2, 7, 6, device="meta"))
    assert given.shape == real.shape
    assert pytree.tree_map(lambda t: t.shape, kept) == pytree.tree_map(lambda t: t.shape, states)
