"""Other people's kernels: the right one is taken, a wrong or a broken one falls back with a line, a missing one without."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from arch.mixer import GatedDeltaNet, GatedLinearAttention, Mamba2
from arch.ops import kernels, linear_attention
from arch.ops.kernels import agreeing

INPUTS = [torch.arange(1.0, 5.0), torch.arange(2.0, 6.0)]


def plain(a: Tensor, b: Tensor) -> tuple[Tensor]:
    return (a * b,)


def almost(a: Tensor, b: Tensor) -> tuple[Tensor]:
    return (a * b * (1 + 1e-3),)


def wrong(a: Tensor, b: Tensor) -> tuple[Tensor]:
    return (a * b * 1.2,)


def wrong_gradient(a: Tensor, b: Tensor) -> tuple[Tensor]:
    return (a.detach() * b + 0 * a,)


def no_number(a: Tensor, b: Tensor) -> tuple[Tensor]:
    return (a * b * torch.nan,)


def broken(a: Tensor, b: Tensor) -> tuple[Tensor]:
    raise RuntimeError("no kernel\nimage")


def missing(a: Tensor, b: Tensor) -> tuple[Tensor]:
    import not_installed  # type: ignore[import-not-found]

    return (not_installed(a, b),)


@pytest.fixture(autouse=True)
def untried() -> Iterator[None]:
    linear_attention.tried.cache_clear()
    kernels.RUNNING.clear()
    yield
    linear_attention.tried.cache_clear()
    kernels.RUNNING.clear()


@pytest.mark.parametrize(
    ("other", "taken", "said"),
    [
        (almost, "other", None),
        (wrong, "torch", "product: other is not taken: its numbers are 4.4e-01 from the plain ones, and 5e-02 is allowed"),
        (wrong_gradient, "torch", "product: other is not taken: its numbers are 1.0e+00 from the plain ones"),
        (no_number, "torch", "product: other is not taken: its numbers are inf from the plain ones"),
        (broken, "torch", "product: other is not taken: RuntimeError: no kernel image"),
        (missing, "torch", None),
    ],
)
def test_what_gives_the_plain_numbers_is_taken_and_nothing_else(
    other: Callable[..., tuple[Tensor]], taken: str, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), torch.no_grad():
        assert agreeing("product", plain, {"other": other}, INPUTS) == taken
    assert {"product": taken} == kernels.RUNNING
    assert [message[: len(said or "")] for message in caplog.messages] == ([said] if said else [])


def test_the_first_that_agrees_is_taken() -> None:
    assert (
        agreeing("product", plain, {"missing": missing, "wrong": wrong, "almost": almost, "plain": plain}, INPUTS) == "almost"
    )


MIXERS = {
    "decays by channel": lambda: GatedLinearAttention(d_model=24, n_heads=3),
    "decays by head": lambda: Mamba2(d_model=24, d_state=8, d_head=8, n_groups=2),
    "delta rule": lambda: GatedDeltaNet(d_model=24, n_heads=3),
}


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("way", MIXERS)
def test_a_mixer_runs_by_the_kernel_that_was_taken(way: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that adds one to the output, once it has been believed."""
    torch.manual_seed(0)
    mixer, x = MIXERS[way](), torch.randn(2, 70, 24)
    own = linear_attention.WAYS[way][0]

    def kernel(*inputs: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        assert dtype == torch.bfloat16
        y, last = own(*inputs, chunk=16)
        return (y + 1 if len(inputs[0]) == 2 else y), last  # it is tried with one row

    half = torch.autocast("cpu", torch.bfloat16)
    exact = mixer(x)
    with half:
        expected = mixer(x)
    monkeypatch.setattr(linear_attention, "may_ask", lambda x: True)
    monkeypatch.setitem(linear_attention.WAYS, way, (own, kernel))
    torch.compiler.reset()
    run = torch.compile(mixer, backend="aot_eager", fullgraph=True) if compiled else mixer
    torch.testing.assert_close(run(x), exact)  # fp32 is for the plain one
    assert not kernels.RUNNING
    with half:
        assert not torch.allclose(run(x), expected, atol=0.1)
        (name,) = kernels.RUNNING
        assert kernels.RUNNING[name] == "fla" and name.startswith(f"linear attention, {way}, heads of ")
        packed = torch.arange(70).expand(2, -1)
        torch.testing.assert_close(run(x, positions=packed), expected, atol=2e-2, rtol=0)  # and so are documents
        torch.testing.assert_close(run(x[:, :1]), expected[:, :1], atol=2e-2, rtol=0)  # and a single token


@pytest.mark.parametrize("way", MIXERS)
def test_without_the_package_the_plain_one_runs_and_nothing_is_said(
    way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mixer, x = MIXERS[way](), torch.randn(2, 70, 24)
    with torch.autocast("cpu", torch.bfloat16):
        expected = mixer(x)
    monkeypatch.setitem(sys.modules, "fla", None)  # as if it were not there, whatever is installed
    monkeypatch.setattr(linear_attention, "may_ask", lambda x: True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixer(x), expected)
    assert [*kernels.RUNNING.values()] == ["torch"] and not caplog.messages


@pytest.mark.gpu
@pytest.mark.parametrize("way", MIXERS)
def test_on_a_gpu_the_kernels_of_fla_agree(way: str) -> None:
    pytest.importorskip("fla")
    assert linear_attention.tried(way, torch.device("cuda", 0), torch.bfloat16, 1, 64, 64) == "fla"
