"""Which contract an argument asks for, and who keeps it."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .targets import hints, is_allowed, is_class


class Slot(NamedTuple):
    """What an argument takes: an object that keeps the contract, or a list of them. optional: or None."""

    contract: type
    many: bool
    optional: bool


def keeps(target: Callable[..., Any], contract: type) -> bool:
    """A class keeps the contracts that it inherits, a function the one that it declares to return: likeness is not enough,
    since what is built may come from somebody else's config."""
    if is_class(target):
        return contract in inspect.getmro(typing.cast(type, target))
    return hints(target).get("return") is contract


def slot_of(hint: Any) -> Slot | None:
    """The slot that an annotation describes: a contract of an allowed package, ``| None``, ``Sequence[...]``; None: no slot."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        others = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        slot = slot_of(others[0]) if len(others) == 1 else None
        return None if slot is None else slot._replace(optional=True)
    if typing.get_origin(hint) in (list, Sequence):
        slot = slot_of(typing.get_args(hint)[0])
        return None if slot is None or slot != (slot.contract, False, False) else slot._replace(many=True)
    return Slot(hint, many=False, optional=False) if is_class(hint) and is_allowed(hint.__module__) else None
