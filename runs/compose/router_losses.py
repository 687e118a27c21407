"""Which of the routers' auxiliary losses a run is trained with: the others have no weight, and a word about them no effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from arch.contracts import Router

from ..build.targets import locate
from ..job.run import Run
from ..training.fit import Settings
from .overrides import key_of


def without_idle_losses(settings: Settings, model: Any) -> Settings:
    """Weights of losses that no router wants are 0, so that they make no two runs of one."""
    wanted = wanted_losses(model)
    return replace(
        settings,
        load_balance=settings.load_balance if "load_balance" in wanted else 0.0,
        router_z=settings.router_z if "router_z" in wanted else 0.0,
    )


def idle_losses(run: Run, words: Sequence[str]) -> set[str]:
    """The words that weigh a loss which no router of the run wants."""
    idle = {"train.load_balance", "train.router_z"} - {f"train.{loss}" for loss in wanted_losses(run.model)}
    return {word for word in words if key_of(word) in idle}


def wanted_losses(node: Any) -> set[str]:
    """The auxiliary losses that the routers of a model want."""
    if isinstance(node, list):
        return set().union(*map(wanted_losses, node))
    if not isinstance(node, dict):
        return set()
    own: set[str] = set()
    if "_target_" in node and isinstance(target := locate(node["_target_"], "model"), type) and issubclass(target, Router):
        own = set(target.losses)
    return own.union(*map(wanted_losses, node.values()))
