"""The top-level keys of a config and what each means to a run: the one table that all rooms go by. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Key:
    """A group of conf/, or a key of conf/config.yaml.

    node: a run is built from it directly; by_name: it is a setting of the run itself; other keys have an effect only where a
    node refers to them. layer: a layer of a stack may say otherwise. inherited: it comes with the run that another one starts
    from. axis: it names an arm. package: where the classes of its options live; None: in arch, or it has none.
    """

    node: bool = False
    by_name: bool = False
    layer: bool = False
    inherited: bool = False
    axis: bool = False
    package: str | None = None


KEYS = {
    # the order of the axes is the order in which a name says them
    "ffn": Key(layer=True, inherited=True, axis=True),
    "mixer": Key(layer=True, inherited=True, axis=True),
    "norm": Key(layer=True, inherited=True, axis=True),
    "block": Key(layer=True, inherited=True, axis=True),
    "position": Key(layer=True, inherited=True, axis=True),
    "pattern": Key(layer=True, inherited=True),
    "score": Key(layer=True, inherited=True),
    "router": Key(layer=True, inherited=True),
    "cross": Key(layer=True, inherited=True),
    "size": Key(layer=True, inherited=True),
    "shared": Key(layer=True, inherited=True),
    "causal": Key(layer=True, inherited=True),
    "final_norm": Key(inherited=True),
    "family": Key(inherited=True),
    "stack": Key(inherited=True),
    "layers": Key(inherited=True),
    "model": Key(node=True, inherited=True),
    "tokenizer": Key(inherited=True, package="runs.tokenizer"),
    "data": Key(node=True, package="runs.data"),
    "objective": Key(node=True, package="runs.objective"),
    "param": Key(node=True, inherited=True, package="runs.training.param"),
    "finetune": Key(node=True, package="runs.training.finetune"),
    "optim": Key(node=True, package="runs.training.optim"),
    "schedule": Key(node=True, package="runs.training.schedule"),
    "train": Key(by_name=True),
    "study": Key(by_name=True),
    "match": Key(by_name=True),
    "seed": Key(by_name=True),
    "out": Key(by_name=True),
    "run": Key(by_name=True),
    "weights": Key(by_name=True),
}

AXES = tuple(name for name, key in KEYS.items() if key.axis)
USUAL = {"model": "decoder", "score": "dot"}  # what names say of a run only where it is another
NODES = tuple(name for name, key in KEYS.items() if key.node)
BY_NAME = tuple(name for name, key in KEYS.items() if key.by_name)
PACKAGES = ("arch", *dict.fromkeys(key.package for key in KEYS.values() if key.package))
