"""Linear maps by oneDNN are torch's own, their gradients too, at any size and layout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from arch.ops import linear as fast
from arch.routing import pop_routings
from tests.lab import tiny_model, tokens

pytestmark = pytest.mark.skipif(not fast.BUILT_IN, reason="this torch was built without oneDNN")
SHAPES = ((1, 1, 1), (1, 7, 5), (63, 16, 24), (100, 33, 7), (256, 64, 64))  # rows, d_in, d_out


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "LEAST", 0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_large_goes_to_onednn_and_only_what_it_computes_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = drawn(1024, 32), drawn(32, 32)
    assert fast.pays(x, weight)
    assert not fast.pays(x.double(), weight.double()) and not fast.pays(x.bfloat16(), weight.bfloat16())
    assert not fast.pays(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not fast.pays(x, weight)
    monkeypatch.setattr(fast, "LEAST", 1024 * 32 * 32 + 1)
    assert not fast.pays(x, weight)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_linear_map_and_its_gradients_are_those_of_torch(shape: tuple[int, int, int], biased: bool) -> None:
    rows, d_in, d_out = shape

    def found(how: Callable[..., Tensor], learns: bool, dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
        x, weight, bias, factor = (
            drawn(*size, seed=seed).to(dtype)
            for seed, size in enumerate(((2, rows, d_in), (d_out, d_in), (d_out,), (2, rows, d_out)))
        )
        leaves = [x.requires_grad_(), weight.requires_grad_(learns), *([bias.requires_grad_()] if biased else [])]
        y = how(*leaves)
        (y * factor).sum().backward()
        return [y.detach(), *(leaf.grad for leaf in leaves)]

    for learns in (True, False):
        exact = found(F.linear, learns, torch.float64)
        for one, truth in zip(found(fast.linear, learns), exact, strict=True):
            assert (one is None) == (truth is None)
            assert one is None or truth is None or (one - truth).norm() <= 1e-6 * truth.norm()


def test_any_layout_is_read_as_it_is() -> None:
    x, weight = drawn(40, 24), drawn(16, 24)
    for one in (x, x.t().contiguous().t(), drawn(40, 48)[:, ::2], drawn(1, 24).expand(40, 24), drawn(24).expand(2, 20, 24)):
        for other in (weight, weight.t().contiguous().t(), drawn(16, 48)[:, :24], drawn(24).expand(16, 24)):
            torch.testing.assert_close(fast.linear(one, other), F.linear(one, other))
    given = drawn(3, 40, 24).requires_grad_()
    fast.linear(given, weight).sum().backward()  # whose gradient is one number, said once
    torch.testing.assert_close(given.grad, weight.sum(0).expand(3, 40, 24))


def test_gradients_have_gradients() -> None:
    def penalty(how: Callable[..., Tensor]) -> Tensor:
        x = drawn(8, 6).requires_grad_()
        (grad,) = torch.autograd.grad(how(x, drawn(5, 6)).square().sum(), x, create_graph=True)
        grad.square().sum().backward()
        assert x.grad is not None
        return x.grad

    torch.testing.assert_close(penalty(fast.linear), penalty(F.linear))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # a row after the other: torch has no rule for oneDNN's
def test_it_is_mapped_over_models_as_torchs_own() -> None:
    x, weights = drawn(8, 6), drawn(3, 5, 6)
    torch.testing.assert_close(
        torch.func.vmap(lambda w: fast.linear(x, w))(weights), torch.func.vmap(lambda w: F.linear(x, w))(weights)
    )


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 100, 128])
def test_products_of_varying_rows(rows: int) -> None:
    a, b, c = drawn(rows, 24), drawn(24, 16), drawn(rows, 16)
    torch.testing.assert_close(fast.product(a, b), a @ b)
    torch.testing.assert_close(fast.product_of_rows(a, c), a.mT @ c)


WORDS = {
    "dense": ("ffn=swiglu", "norm=rmsnorm"),
    "experts": ("ffn=moe_swiglu",),
    "latent": ("mixer=mla",),
    "recurrent": ("stack='mamba, gru'", "position=none"),
    "biases": ("model=gpt2", "size=tiny"),
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_a_model_is_the_same_by_either_library(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for least in (0, float("inf")):
        monkeypatch.setattr(fast, "LEAST", least)
        model = tiny_model(*words)
        logits = model(tokens(3, 70))
        logits.square().mean().backward()
        pop_routings(model)
        found.append([logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile itself asks inputs of layers for it
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_it_is_the_same(backend: str) -> None:
    torch.compiler.reset()
    layer = fast.Linear(24, 16)
    found = []
    for how in (layer, torch.compile(layer, backend=backend, fullgraph=True)):
        x = drawn(40, 24).requires_grad_()
        layer.zero_grad()
        y = how(x)
        y.square().sum().backward()
        assert layer.weight.grad is not None and layer.bias.grad is not None
        found.append([y.detach(), x.grad, layer.weight.grad.clone(), layer.bias.grad.clone()])
    torch.testing.assert_close(found[0], found[1])
    torch.compiler.reset()
