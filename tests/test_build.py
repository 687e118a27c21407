"""Config to code: what may be built, and what is said of what cannot."""

from __future__ import annotations

import pytest
import torch

from arch import RMSNorm
from runs.build.errors import ConfigError
from runs.build.objects import build, check_arguments, fits


def test_a_node_becomes_its_target() -> None:
    norm = build({"_target_": "arch.RMSNorm", "d_model": 8, "eps": 1e-5}, "norm")
    assert isinstance(norm, RMSNorm)
    assert build({"a": 1}, "plain") == {"a": 1}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "os.system", "command": "true"}, r"norm._target_=os.system: only arch, runs.tokenizer, .* may be built"),
        ({"_target_": "torch.hub.load", "repo_or_dir": "x"}, r"norm._target_=torch.hub.load: only arch"),
        ({"_target_": "arch.RMSNorn", "d_model": 8}, r"arch has no RMSNorn; did you mean RMSNorm\?"),
        ({"_target_": "arch.nothing.X"}, r"norm._target_=arch.nothing.X: No module named"),
        ({"_target_": "arch.RMSNorm", "d_modle": 8}, r"norm.d_modle: unknown key; did you mean d_model\?"),
        ({"_target_": "arch.RMSNorm", "d_model": "8"}, r"norm.d_model='8': int is expected, not str"),
        ({"_target_": "arch.RMSNorm", "d_model": True}, r"norm.d_model=True: int is expected, not bool"),
        ({"_target_": "arch.RMSNorm"}, r"norm: d_model is missing"),
        ({"_target_": "arch.Attention", "d_model": 8, "n_heads": 3}, r"norm: .*3.*8"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(node: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(node, "norm")
    assert "\n" not in str(caught.value)


def test_a_package_that_the_user_names_may_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"_target_": "collections.Counter"}
    with pytest.raises(ConfigError, match="ARCHLAB_PACKAGES=collections"):
        build(node, "x")
    monkeypatch.setenv("ARCHLAB_PACKAGES", "collections")
    assert build(node, "x") == {}


def test_types() -> None:
    assert fits(1, float) and fits(None, int | None) and fits([1, 2], list[int]) and fits(torch.nn.ReLU(), torch.nn.Module)
    assert not fits(1.5, int) and not fits("x", int | None) and not fits(["a"], list[int]) and not fits(True, float)


def test_given_arguments_cannot_be_set_by_config() -> None:
    def f(*, a: int, model: object) -> None: ...

    with pytest.raises(ConfigError, match=r"t.model: unknown key; did you mean|t.model: unknown key; known: a"):
        check_arguments(f, {"a": 1, "model": 2}, "t", ("model",))
