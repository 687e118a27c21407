"""A dotted name in a config -> the class or function that it stands for, and what its signature says. Nothing is called here:
somebody else's config imports at most a module of an allowed package."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import typing
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ConfigError, nearest
from .groups import PACKAGES


def allowed() -> tuple[str, ...]:
    """The packages whose classes may be built: the lab's own, and those that the user names in $ARCHLAB_PACKAGES."""
    return (*PACKAGES, *filter(None, os.environ.get("ARCHLAB_PACKAGES", "").split(",")))


def is_allowed(module: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in allowed())


def locate(target: Any, path: str) -> Callable[..., Any]:
    """The class or function of an allowed package that a dotted name stands for. Raises ConfigError: anything else."""
    if not isinstance(target, str) or "." not in target or not all(part.isidentifier() for part in target.split(".")):
        raise ConfigError(f"{path}._target_={target!r}: the dotted name of a class is expected, such as arch.RMSNorm")
    module, _, name = target.rpartition(".")
    if not is_allowed(module):
        raise ConfigError(
            f"{path}._target_={target}: only {', '.join(allowed())} may be built; "
            f"name your own package in the environment: ARCHLAB_PACKAGES={target.split('.', maxsplit=1)[0]}"
        )
    try:
        home = importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{path}._target_={target}: {error}") from None
    except Exception as error:  # whatever a module of the user's own may raise
        raise ConfigError(f"{path}._target_={target}: {module} cannot be imported: {in_one_line(error)}") from error
    if not hasattr(home, name):
        names = [n for n in dir(home) if not n.startswith("_")]
        raise ConfigError(f"{path}._target_={target}: {module} has no {name}; {nearest(name, names)}")
    found: Callable[..., Any] = getattr(home, name)
    if not is_class(found) and not inspect.isfunction(found):
        raise ConfigError(f"{path}._target_={target}: a class is expected, not a {type(found).__name__}")
    return found


def is_class(found: Any) -> bool:
    """Python 3.10 calls list[int] a class as well."""
    return inspect.isclass(found) and typing.get_origin(found) is None


def parameters(target: Callable[..., Any], path: str) -> Mapping[str, inspect.Parameter]:
    """The arguments of a class or function. Raises ConfigError: it is one of Python's own, which tell none."""
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        raise ConfigError(f"{path}._target_: {target.__name__} says nothing of its arguments; take another class") from None


@functools.cache
def hints(target: Callable[..., Any]) -> Mapping[str, Any]:
    """The annotations of its arguments, and of what it returns. Raises ConfigError: a name in them is not known."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception as error:  # a name that is imported for type checkers only, a text that is no expression ...
        raise ConfigError(
            f"{target.__module__}.{target.__name__}: its annotations cannot be read: {in_one_line(error)}"
        ) from None


def in_one_line(error: Exception) -> str:
    """The first line of an error that was not meant for the reader of a config."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:300]
