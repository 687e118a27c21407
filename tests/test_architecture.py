"""docs/architecture.md, held against the code: arrows point down, and what is added touches the files that its table names."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
TABLE = {
    row[1]: re.findall(r"`([\w/.*]+)`", row[2]) for row in re.finditer(r"^\| ([a-z ]+) \| (`.*) \|$", PAGE, flags=re.MULTILINE)
}
# from the door down; rooms on one line do not know each other
FLOORS = [
    ["runs.train", "runs.check", "runs.sample", "runs.look", "runs.export", "runs.bench"],
    ["runs.command", "runs.trained", "runs.usage", "runs.sweep", "runs.benchmark"],
    ["runs.compose"],
    ["runs.job"],
    ["runs.training"],
    ["runs.objective"],
    ["runs.data", "runs.published", "runs.inspection"],
    ["runs.tokenizer"],
    ["runs.build", "runs.cache_folder"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SHARED_WITH_ANALYSIS = {"runs.job.record", "runs.job.question", "runs.build.groups", "runs.cache_folder"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """The modules of this repository that a file imports, by their full names."""
    package = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join((*package[: len(package) - node.level + 1], *filter(None, [node.module])))
                if node.level
                else node.module
            )
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return {name for name in found if name.split(".")[0] in ("arch", "runs", "analysis")}


def room(name: str) -> str:
    return ".".join(name.split(".")[:2])


FILES = [path for top in ("arch", "runs", "analysis") for path in sorted((ROOT / top).rglob("*.py")) if "out" not in path.parts]


def test_no_arrow_points_upward() -> None:
    upward = []
    for path in FILES:
        here = module_name(path)
        for name in imports(path):
            top = name.split(".")[0]
            if here.startswith("arch"):
                wrong = top != "arch"
            elif here.startswith("analysis"):
                known = top == "analysis" or any(name == leaf or name.startswith(f"{leaf}.") for leaf in SHARED_WITH_ANALYSIS)
                wrong = not known
            else:
                floors = FLOOR.get(room(here)), FLOOR.get(room(name))
                wrong = top == "analysis" or (None not in floors and room(here) != room(name) and floors[0] >= floors[1])  # type: ignore[operator]
            if wrong:
                upward.append((here, name))
    assert not upward


def test_every_room_has_a_floor_and_a_line_on_the_page() -> None:
    rooms = {room(module_name(path)) for path in FILES if path.is_relative_to(ROOT / "runs")} - {"runs"}
    assert rooms == FLOOR.keys()
    for name in rooms:
        leaf = name.split(".")[1]
        assert f"{leaf}/" in PAGE or f"{leaf}.py" in PAGE, name


def test_files_do_not_import_each_other_in_a_circle() -> None:
    known = {module_name(path): path for path in FILES}
    arrows = {here: {name for name in imports(path) if name in known and name != here} for here, path in known.items()}
    done: set[str] = set()

    def walk(here: str, above: tuple[str, ...]) -> None:
        assert here not in above, " -> ".join((*above[above.index(here) :], here))
        if here not in done:
            for name in arrows[here]:
                if known[name].name != "__init__.py":  # a package's list of names
                    walk(name, (*above, here))
            done.add(here)

    for here in arrows:
        walk(here, ())


def test_the_page_is_short_and_no_row_names_more_than_two_files() -> None:
    assert len(PAGE.splitlines()) <= 60
    wanted = {"norm", "mixer", "router", "pattern", "data set", "probe", "objective", "optimiser", "published model"}
    assert wanted | {"published family", "figure", "cost column"} <= TABLE.keys()
    for thing, files in TABLE.items():
        named = [file for file in files if "*" not in file]
        assert 1 <= len(named) <= 2, thing
        for file in named:
            assert (ROOT / file).parent.is_dir() and ((ROOT / file).exists() or Path(file).stem == "mine"), (thing, file)


MINE = {
    "arch/norm/mine.py": """
from torch import Tensor, nn
import torch
from ..contracts import Norm

class Mine(Norm):
    def __init__(self, *, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x / x.abs().mean(-1, keepdim=True).clamp_min(1e-5) * self.weight
""",
    "arch/mixer/mine.py": """
import torch
from torch import Tensor, nn
from ..contracts import Cost, SequenceMixer, parameters_only

class Mine(SequenceMixer):
    outputs = ("o_proj.weight",)

    def __init__(self, *, d_model: int) -> None:
        super().__init__()
        self.o_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, *, positions=None, cache=None) -> Tensor:
        return self.o_proj(x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None])

    def cost(self, seq: int) -> Cost:
        return parameters_only(self) + Cost(flops=2 * self.o_proj.weight.numel())
""",
    "arch/ffn/mine.py": """
from torch import Tensor, nn
from ..contracts import ChannelMixer, Cost, parameters_only

class Mine(ChannelMixer):
    outputs = ("down_proj.weight",)

    def __init__(self, *, d_model: int) -> None:
        super().__init__()
        self.down_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, *, positions=None) -> Tensor:
        return self.down_proj(x.relu())

    def cost(self, seq: int) -> Cost:
        return parameters_only(self) + Cost(flops=2 * self.down_proj.weight.numel())
""",
    "arch/router/mine.py": """
from .topk import TopK

class Mine(TopK):
    pass
""",
    "arch/pattern/mine.py": """
from torch import Tensor
from ..contracts import Pattern

class Mine(Pattern):
    causal = True

    def allows(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        back = q_positions[..., :, None] - k_positions[..., None, :]
        return (back >= 0) & (back % 2 == 0)
""",
    "arch/position/mine.py": """
from torch import Tensor
from ..contracts import Position

class Mine(Position):
    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + positions[..., None] / 100
""",
    "runs/data/mine.py": """
import numpy as np
from .stream import StreamData, TokenStream

class Mine(StreamData):
    vocab_size, sha256, token_bytes, origin = 7, "0" * 64, None, "data=mine"
    train = validation = TokenStream([np.arange(5000) % 7])
""",
    "runs/data/probes/mine.py": """
from dataclasses import dataclass
import numpy as np
from .probe import Probe, as_batch

@dataclass(frozen=True)
class Mine(Probe):
    vocab_size = 5
    chance = 0.2

    def check(self, *, seq_len: int) -> None:
        pass

    def draw(self, rng, *, batch_size: int, seq_len: int, held_out: bool):
        rows = rng.integers(0, 5, size=(batch_size, seq_len))
        return as_batch(rows, rows)
""",
    "runs/objective/mine.py": """
from .causal_lm import CausalLM

class Mine(CausalLM):
    pass
""",
    "conf/norm/mine.yaml": "_target_: arch.norm.mine.Mine\nd_model: ${size.d_model}\n",
    "conf/mixer/mine.yaml": "_target_: arch.mixer.mine.Mine\nd_model: ${size.d_model}\n",
    "conf/ffn/mine.yaml": "_target_: arch.ffn.mine.Mine\nd_model: ${size.d_model}\n",
    "conf/router/mine.yaml": "_target_: arch.router.mine.Mine\n"
    "d_model: ${size.d_model}\nn_experts: ${size.n_experts}\ntop_k: ${size.top_k}\n",
    "conf/pattern/mine.yaml": "_target_: arch.pattern.mine.Mine\n",
    "conf/position/mine.yaml": "absolute:\n  _target_: arch.position.mine.Mine\nrelative: null\n",
    "conf/data/mine.yaml": "_target_: runs.data.mine.Mine\n",
    "conf/objective/mine.yaml": "_target_: runs.objective.mine.Mine\n",
    "conf/optim/mine.yaml": "_target_: runs.training.optim.mine\nlr: 0.1\n",
    "conf/schedule/mine.yaml": "_target_: runs.training.schedule.mine\n",
    "conf/size/mine.yaml": "d_model: 32\nn_layers: 2\nn_heads: 2\nd_ff: 64\n",
    "conf/model/mine.yaml": """# @package _global_
defaults:
  - llama2_7b
  - override /size: mine
  - _self_
""",
}
APPENDED = {
    "runs/training/optim.py": """

def mine(model, *, lr: float) -> Optimiser:
    return torch.optim.SGD(model.parameters(), lr=lr)
""",
    "runs/training/schedule.py": """

def mine() -> Schedule:
    return lambda step, steps: 0.5
""",
}
WORDS = {
    "norm": ["norm=mine"],
    "mixer": ["mixer=mine", "position=none"],
    "ffn": ["ffn=mine"],
    "router": ["ffn=moe", "router=mine"],
    "pattern": ["pattern=mine"],
    "position": ["position=mine"],
    "data set": ["data=mine"],
    "objective": ["objective=mine"],
    "optimiser": ["optim=mine"],
    "schedule": ["schedule=mine"],
    "published model": ["model=mine"],
    "probe": ["data=mine"],
}
TRAIN = """
import json, sys
from pathlib import Path
import torch
from runs.compose.compose import of_words
from runs.job.check import check
from runs.job.execute import execute

torch.set_num_threads(1)
small = ["train.steps=2", "train.batch_size=2", "train.seq_len=32", "train.eval_batches=1", "train.device=cpu", "out=out"]
for thing, words in json.loads(sys.argv[1]).items():
    if thing == "probe":
        Path("conf/data/mine.yaml").write_text("_target_: runs.data.probes.mine.Mine\\n")
    size = [] if thing == "published model" else ["size=micro"]
    run = of_words([*words, *size, *small, "study.name=" + thing.replace(" ", "_")])
    check(run)
    print(thing, execute(run, peak=(1.0, "given"))["status"], sep=": ")
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with the files of MINE in it."""
    place = tmp_path_factory.mktemp("copy")
    for top in ("arch", "conf"):
        shutil.copytree(ROOT / top, place / top)
    shutil.copytree(ROOT / "runs", place / "runs", ignore=shutil.ignore_patterns("out", "reference"))
    for name, text in MINE.items():
        (place / name).write_text(text)
    for name, text in APPENDED.items():
        (place / name).write_text((ROOT / name).read_text() + text)
    return place


def test_what_the_table_names_is_all_that_is_touched(copied: Path) -> None:
    for thing in WORDS:
        assert all(file in MINE or file in APPENDED for file in TABLE[thing]), thing
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, json.dumps(WORDS)], cwd=copied, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{thing}: done" for thing in WORDS]
