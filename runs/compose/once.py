"""What Hydra and OmegaConf work out anew for every config, worked out once: half of what a grid takes to compose.

Both stand-ins give what they stand for gives, and tests hold them against it.
"""

from __future__ import annotations

import functools
from typing import Any

import omegaconf._utils
import omegaconf.base
from hydra._internal import defaults_list
from hydra._internal.defaults_list import _create_interpolation_map
from omegaconf.grammar_parser import parse

parse_once = functools.cache(parse)  # a tree is only read, and the files of conf/ say the same few references again and again


def choices_to_refer_to(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
    """A map of all choices made so far, for defaults such as `${ffn}_of_${size}`; where there are none nobody reads it."""
    asked = any(not one.is_self() and one.is_interpolation() for one in defaults)
    return _create_interpolation_map(overrides, defaults, self_added) if asked else None


for module in (omegaconf.base, omegaconf._utils):
    module.parse = parse_once  # type: ignore[attr-defined]
defaults_list._create_interpolation_map = choices_to_refer_to  # type: ignore[assignment]
