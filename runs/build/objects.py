"""The only config -> object code: a node with a `_target_` becomes a call, and what does not fit is refused in one line.

A target must lie under one of PACKAGES or under a package that the user names in $ARCHLAB_PACKAGES: reading somebody
else's config builds blocks and runs nothing else.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from .errors import ConfigError
from .groups import PACKAGES

LARGEST_FP32 = 3.4e38  # nan and infinity are not below it either
PLAIN = (type(None), bool, int, float, str, list, dict)


def build(node: Any, path: str, **given: Any) -> Any:
    """Turn a resolved config node into what it describes, children first; a node without a `_target_` stays as it is.

    Args:   path: the node's place in the config, for messages. given: further arguments, already built.
    Raises: ConfigError: unknown target or key, wrong type, or whatever the target itself refuses.
    """
    if isinstance(node, list):
        return [build(child, f"{path}.{i}") for i, child in enumerate(node)]
    if not isinstance(node, dict) or "_target_" not in node:
        return node
    kwargs = {key: build(value, f"{path}.{key}") for key, value in node.items() if key != "_target_"}
    return call(locate(node["_target_"], path), kwargs, path, **given)


def call(target: Callable[..., Any], kwargs: dict[str, Any], path: str, **given: Any) -> Any:
    """target(**kwargs, **given), after a check of every key and type."""
    check_arguments(target, kwargs, path, tuple(given))
    try:
        return target(**kwargs, **given)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


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
            raise ConfigError(f"{path}.{key}={_shown(value)}: a finite number is expected")
        if key in hints and not fits(value, hints[key]):
            raise ConfigError(f"{path}.{key}={_shown(value)}: {expected(hints[key])} is expected, not {type(value).__name__}")
    missing = [k for k, p in known.items() if p.default is p.empty and k not in (*kwargs, *given)]
    if missing:
        raise ConfigError(f"{path}: {', '.join(missing)} is missing")


def locate(target: str, path: str) -> Callable[..., Any]:
    """The class or function that a dotted name stands for."""
    allowed = (*PACKAGES, *filter(None, os.environ.get("ARCHLAB_PACKAGES", "").split(",")))
    if not any(target.startswith(f"{package}.") for package in allowed):
        raise ConfigError(
            f"{path}._target_={target}: only {', '.join(allowed)} may be built; "
            f"name your own package in the environment: ARCHLAB_PACKAGES={target.split('.', maxsplit=1)[0]}"
        )
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{path}._target_={target}: {error}") from None
    except AttributeError:
        names = [n for n in dir(importlib.import_module(module)) if not n.startswith("_")]
        raise ConfigError(f"{path}._target_={target}: {module} has no {name}; {nearest(name, names)}") from None


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
    defaults = {key: p.default for key, p in inspect.signature(target).parameters.items()}
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


def nearest(word: str, known: Iterable[str]) -> str:
    """A closing remark: the known word that was probably meant, or all of them."""
    known = sorted(set(known) - {word})
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


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


def _shown(value: Any) -> str:
    text = type(value).__name__ if isinstance(value, nn.Module) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
