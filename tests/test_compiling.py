"""torch.compile, layer by layer: of a stack of many kinds every one is compiled, and nothing falls back in silence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch._dynamo as dynamo

from runs.training import compiling
from runs.training.compiling import compilations, compile_layers
from tests.lab import tiny_model, tokens

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile itself asks inputs of layers for it
KINDS = 10
LAYERS = ",".join(f"w{n}:['pattern=sliding_window','pattern.window={n}']" for n in range(2, 2 + KINDS))
STACK = ", ".join(f"w{n}" for n in range(2, 2 + KINDS))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    with dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):
        yield
    torch.compiler.reset()


def stack() -> torch.nn.Module:
    return tiny_model(f"layers={{{LAYERS}}}", f'stack="{STACK}"', f"size.n_layers={KINDS}")


def test_every_kind_of_a_long_stack_is_compiled() -> None:
    plain, compiled, text, before = stack(), stack(), tokens(2, 12), compilations()
    compile_layers(compiled, backend="eager")
    for training in (True, False):
        for model in (plain, compiled):
            model.train(training)
        torch.testing.assert_close(compiled(text), plain(text))
    assert compilations() - before >= 2 * KINDS
    settled = compilations()
    compiled(tokens(2, 12, seed=1))
    assert compilations() == settled


def test_what_does_not_fit_is_an_error_and_no_slow_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "KINDS", 3)
    model = stack()
    compile_layers(model, backend="eager")
    with pytest.raises(Exception, match="recompile_limit"):
        model(tokens(2, 12))
