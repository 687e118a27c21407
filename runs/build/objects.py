"""The only config -> object code: a node with a `_target_` becomes a call, and what does not fit is refused in one line.

A place in the config takes only what keeps its contract. That of a run's parts is named by who asks for them, that of their
own parts by the annotation of the argument: reading somebody else's config builds blocks and runs nothing else.
"""

from __future__ import annotations

import inspect
import json
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from .errors import ConfigError, nearest
from .slots import Slot, keeps, slot_of
from .targets import hints, in_one_line, locate, parameters

T = TypeVar("T")

LARGEST_FP32 = 3.4e38  # nan and infinity are not below it either
PLAIN = (type(None), bool, int, float, str, list, dict)


def build(node: Any, path: str, contract: type[T], **given: Any) -> T:
    """Turn a resolved config node into the object that it describes, parts first.

    Args:   path: the node's place in the config, for messages. contract: what the object has to be.
            given: further arguments, already built.
    Raises: ConfigError: a class that does not keep its place's contract, an unknown key, a wrong type, or whatever the class
            itself refuses. All but the last is found before anything is called.
    """
    check(node, path, contract, tuple(given))
    built: T = _built(node, path, **given)
    return built


def check(node: Any, path: str, contract: type, given: Sequence[str] = ()) -> None:
    """Hold a node, and all below it, against contracts and signatures; nothing is called. given: arguments beside it."""
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(f"{path}={_shown(node)}: a {contract.__name__} is expected, that is a node whose _target_ names one")
    target = locate(node["_target_"], path)
    if not keeps(target, contract):
        raise ConfigError(
            f"{path}._target_={node['_target_']}: a {contract.__name__} is expected; this is no class that inherits "
            f"{contract.__module__}.{contract.__name__}, and no function that declares to return one"
        )
    accepted, annotated = parameters(target, path), hints(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    slots = {key: slot for key in node if key not in given and (slot := slot_of(annotated.get(key)))}
    plain = {key: value for key, value in node.items() if key != "_target_" and key not in slots}
    for key, value in plain.items():
        if _holds_target(value) and (key in accepted or open_ended):
            raise ConfigError(
                f"{path}.{key}: nothing is built here; to take a part, {target.__module__}.{target.__name__} has to annotate "
                f"{key} with the part's contract, such as arch.Norm"
            )
    check_arguments(target, plain, path, (*given, *slots))
    for key, slot in slots.items():
        _check_part(node[key], f"{path}.{key}", slot)


def _check_part(value: Any, path: str, slot: Slot) -> None:
    if value is None and slot.optional:
        return
    if not slot.many:
        check(value, path, slot.contract)
    elif isinstance(value, list):
        for i, part in enumerate(value):
            check(part, f"{path}.{i}", slot.contract)
    else:
        raise ConfigError(f"{path}={_shown(value)}: a list is expected, each a {slot.contract.__name__}")


def _built(node: Any, path: str, **given: Any) -> Any:
    if isinstance(node, list):
        return [_built(child, f"{path}.{i}") for i, child in enumerate(node)]
    if not isinstance(node, dict) or "_target_" not in node:
        return node
    kwargs = {key: _built(value, f"{path}.{key}") for key, value in node.items() if key != "_target_"}
    return _called(locate(node["_target_"], path), path, **kwargs, **given)


def call(target: Callable[..., T], kwargs: Mapping[str, Any], path: str, **given: Any) -> T:
    """target(**kwargs, **given), after a check of every key and type."""
    check_arguments(target, dict(kwargs), path, tuple(given))
    return _called(target, path, **kwargs, **given)


def _called(target: Callable[..., T], path: str, /, **kwargs: Any) -> T:
    try:
        return target(**kwargs)
    except ConfigError:
        raise
    except (ValueError, OSError) as error:  # they speak to the reader of a config
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:
        raise ConfigError(f"{path}: {in_one_line(error)}") from error


def check_arguments(target: Callable[..., Any], kwargs: dict[str, Any], path: str, given: Sequence[str] = ()) -> None:
    """Hold a config node against a signature: no unknown key, no wrong type, nothing missing."""
    signature = inspect.signature(target).parameters
    known = {k: p for k, p in signature.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.values())  # a user's class may be; none of ours is
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    for key, value in kwargs.items():
        if (key not in known and not open_ended) or key in given:
            raise ConfigError(f"{path}.{key}: unknown key; {nearest(key, [k for k in known if k not in given])}")
        if not finite(value):
            raise ConfigError(f"{path}.{key}={value!r:.80}: a finite number is expected")
        if key in hints and not fits(value, hints[key]):
            raise ConfigError(f"{path}.{key}={value!r:.80}: {expected(hints[key])} is expected, not {type(value).__name__}")
    missing = [k for k, p in known.items() if p.default is p.empty and k not in (*kwargs, *given)]
    if missing:
        raise ConfigError(f"{path}: {', '.join(missing)} is missing")


def essence(node: Any, path: str) -> Any:
    """What a config node says beside the defaults, in one spelling: two nodes that build the same object have one essence.

    Left out: arguments at their defaults, and at those that a class declares in ``implied`` (argument -> the one whose value
    None stands for). Absolute: paths, which a class declares by name in ``path_arguments``.
    """
    if isinstance(node, list):
        return [essence(child, f"{path}.{i}") for i, child in enumerate(node)]
    if isinstance(node, float) and node.is_integer():
        return int(node)  # 1.0 is 1
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {key: essence(value, f"{path}.{key}") for key, value in node.items()}
    target = locate(node["_target_"], path)
    defaults = {key: p.default for key, p in parameters(target, path).items()}
    found = {"_target_": node["_target_"]}
    paths = getattr(target, "path_arguments", ())
    spelled = {key: absolute(value) if key in paths else value for key, value in node.items()}
    for key, other in getattr(target, "implied", {}).items():
        if key in spelled and spelled[key] == spelled.get(other):
            del spelled[key]
    for key, value in spelled.items():
        if key != "_target_" and (key not in defaults or not same(value, defaults[key])):
            found[key] = essence(value, f"{path}.{key}")
    return found


def same(value: Any, default: Any) -> bool:
    """1 is 1.0 but not True."""
    return bool(value == default) and isinstance(value, bool) == isinstance(default, bool)


def absolute(path: Any) -> Any:
    if isinstance(path, list):
        return [absolute(part) for part in path]
    return os.path.abspath(os.path.expanduser(path)) if isinstance(path, str) else path


def fits(value: Any, hint: Any) -> bool:
    """Whether a config value is of an annotated type; what cannot be checked (modules, protocols) passes."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is typing.Literal:
        return value in args
    if hint in (None, type(None)):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float, str):
        return isinstance(value, (int, float) if hint is float else hint) and not isinstance(value, bool)
    if origin in (list, tuple, Sequence):
        return isinstance(value, (list, tuple)) and all(fits(v, args[0]) for v in value) if args else True
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(v, args[-1]) for v in value.values())
    if inspect.isclass(hint) and issubclass(hint, nn.Module):
        return isinstance(value, nn.Module)
    if inspect.isclass(hint) and isinstance(value, PLAIN):  # what a node may hold that was not built is no object of a class
        return hint in (Any, object) or (not getattr(hint, "_is_protocol", False) and isinstance(value, hint))
    return True


def finite(value: Any) -> bool:
    """Whether all numbers in a value can be computed with: whole ones in 64 bits, others in fp32."""
    if isinstance(value, (list, tuple)):
        return all(map(finite, value))
    if isinstance(value, Mapping):
        return all(map(finite, value.values()))
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not isinstance(value, float) or abs(value) <= LARGEST_FP32


def expected(hint: Any) -> str:
    if hint in (None, type(None)):
        return "null"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(expected(arg) for arg in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (list, tuple, Sequence):
        return f"a list of {expected(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) in (dict, Mapping):
        return "keys with values"
    return str(getattr(hint, "__name__", hint))


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:80]


def _holds_target(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_holds_target, value))
    return isinstance(value, dict) and ("_target_" in value or any(map(_holds_target, value.values())))
