"""The blocks outside the lab: no other package needed, under any folder name, inside somebody else's model."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from tests.lab import TINY, VOCAB, config, model_of

ROOT = Path(__file__).resolve().parent.parent

BLOCKED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"hydra", "omegaconf", "pandas", "matplotlib", "numpy", "runs", "analysis", "safetensors"}:
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Refuse())
"""

USE = """
import torch
from NAME import Attention, Decoder, Embedding, Experts, LayerNorm, MLP, MoE, PreNorm, RMSNorm, Rotary, TopK
moe = MoE(d_model=16, router=TopK(d_model=16, n_experts=4, top_k=2), experts=Experts(d_model=16, d_ff=8, n_experts=4))
attention = Attention(d_model=16, n_heads=4, n_kv_heads=2, position=Rotary(d_head=4))
block = PreNorm(mixer=attention, ffn=moe, mixer_norm=RMSNorm(d_model=16), ffn_norm=LayerNorm(d_model=16))
model = Decoder(embedding=Embedding(d_model=16, vocab_size=11), layers=[block], final_norm=RMSNorm(d_model=16))
model(torch.arange(10)[None]).sum().backward()
print("fine")
"""


def python(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_arch_needs_torch_and_einops_alone() -> None:
    assert python(BLOCKED + USE.replace("NAME", "arch"), ROOT) == "fine"


def test_the_folder_works_under_another_name(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "arch", tmp_path / "vendored")
    assert python(BLOCKED + USE.replace("NAME", "vendored"), tmp_path) == "fine"


def readme_code(title: str) -> str:
    """The first python block of the README under a heading that holds the title."""
    section = re.split(r"^## ", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.splitlines()[0].lower().startswith(title.lower())]
    found = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert found, title
    return found[1]


def test_the_readmes_moe_runs_in_somebody_elses_layer() -> None:
    code = readme_code("Reuse a block")
    assert len([line for line in code.split("class Layer")[1].splitlines() if line.strip()]) < 10
    scope: dict[str, object] = {}
    exec(code, scope)  # the README's own text
    layer = scope["Layer"](64, 4)  # type: ignore[operator]
    x = torch.randn(2, 7, 64)
    layer(x).square().sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    trained = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), trained)


MIXER = '''
import torch
from torch import Tensor
from arch.contracts import Cache, Cost, SequenceMixer, parameters_only


class CumulativeMean(SequenceMixer):
    """Every token becomes a projection of the mean of all tokens up to it."""

    outputs = ("o_proj.weight",)

    def __init__(self, *, d_model: int) -> None:
        super().__init__()
        self.o_proj = torch.nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        count = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        return self.o_proj(x.cumsum(1) / count)

    def cost(self, seq: int) -> Cost:
        return parameters_only(self) + Cost(flops=2 * self.o_proj.weight.numel())
'''

ROUTER = '''
import torch
from torch import Tensor
from arch.contracts import Cost, Router, Routing


class RoundRobin(Router):
    """Token t goes to the top_k experts from t mod n_experts on, with weight 1 / top_k; padding to none."""

    def __init__(self, *, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.n_experts, self.top_k = n_experts, top_k

    def forward(self, x: Tensor, real: Tensor | None = None) -> Routing:
        token = torch.arange(x.shape[0], device=x.device).repeat_interleave(self.top_k)
        expert = (token + torch.arange(self.top_k, device=x.device).repeat(x.shape[0])) % self.n_experts
        logits = torch.zeros(x.shape[0], self.n_experts, device=x.device)
        gate = torch.full(token.shape, 1 / self.top_k, device=x.device)
        if real is not None:
            expert, gate = expert.where(real[token], self.n_experts), gate.where(real[token], 0)
        return Routing(logits, token, expert, gate, real)

    def cost(self, seq: int) -> Cost:
        return Cost()
'''


@pytest.mark.parametrize(
    ("group", "name", "source", "sizes"),
    [
        ("mixer", "CumulativeMean", MIXER, ("d_model",)),
        ("router", "RoundRobin", ROUTER, ("n_experts", "top_k")),
    ],
    ids=["mixer", "router"],
)
def test_a_new_block_is_one_py_and_one_yaml(
    group: str, name: str, source: str, sizes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(textwrap.dedent(source))
    (tmp_path / "conf" / group).mkdir(parents=True)
    lines = [f"_target_: mine.{name}", *(f"{size}: ${{size.{size}}}" for size in sizes)]
    (tmp_path / "conf" / group / "mine.yaml").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ARCHLAB_PACKAGES", "mine")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    overrides = [
        f"{TINY[0][:-1]},file://{tmp_path / 'conf'}]",
        *TINY[1:],
        f"{group}=mine",
        *(["ffn=moe"] if group == "router" else []),
    ]
    model = model_of(config(*overrides))
    tokens = torch.randint(VOCAB, (2, 16))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert any(type(module).__name__ == name for module in model.modules())
