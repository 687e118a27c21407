"""Equal budgets: one width of an arm is solved until the arm costs what its baseline costs.

A budget grows with a width along a line or a parabola, so secant steps over whole numbers find it in a few looks. A look is
one config resolved anew and its model on the meta device; Hydra does not compose again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ..build.errors import ConfigError
from ..job.run import Run
from ..job.start import begin, build_task, load_data
from .explain import COMPOSING
from .overrides import key_of

BUDGETS = {  # and what they are called
    "flops": "FLOPs per token",
    "active_params": "active parameters",
    "total_params": "parameters",
    "train_flops": "FLOPs to train",
    "state_bytes": "bytes of state",
}
SECONDS = "seconds"  # no formula has them: ``sweep.pace`` solves the number of steps instead of a width
TRIAD = ("flops", "active_params", "total_params")
WITHIN = 0.01  # of the baseline's
WIDTHS = {
    "size.d_ff": 8,
    "size.d_gated": 8,
    "size.d_model": 8,
    "size.n_layers": 1,
}  # in turn, and the multiples that suit hardware
WIDEST = 64  # times what is written, and no wider
APART = 32  # steps to the next width that can be built: what divides it may be a count of heads or experts
NOT_BUILT = (*COMPOSING, TypeError, RuntimeError, IndexError, ArithmeticError)

Resolve = Callable[[DictConfig], Run]


@dataclass
class Equal:
    """The arms of a study, its baseline first, or the points of a grid as they come: all are made equal to the first.

    costs, words: of the first. found: the hash of an arm as it is written -> what came of it, which all its seeds share.
    """

    costs: Mapping[str, float] = field(default_factory=dict)
    words: Sequence[str] = ()
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, config: DictConfig, words: Sequence[str], resolve: Resolve) -> None:
        """Solve a width of a composed config in place; its ``match`` is then what a record says of it.

        Args:   words: that it was composed from.
        Raises: ConfigError: no width reaches the budget, or a word of its own fixes the width.
        """
        budget, run = config.match, resolve(config)
        if run.arm_hash not in self.found:
            own = costs(run)
            if not self.found:
                self.costs, self.words = own, words
            if budget != SECONDS and not self.costs[budget]:
                raise ConfigError(f"match={budget}: the baseline has no {BUDGETS[budget]}; take another budget")
            fixed = {key_of(word) for word in words if word not in self.words}
            close = budget == SECONDS or off(own[budget], self.costs[budget]) <= WITHIN
            solved = {} if close else solve(config, resolve, run, own[budget], self.costs[budget], fixed)
            reached = costs(resolve(put(config, {"solved": solved}, solved))) if solved else own
            self.found[run.arm_hash] = {"budget": budget, "solved": solved, "target": self.costs, "reached": reached}
        record = self.found[run.arm_hash]
        put(config, record, record["solved"])


def solve(config: DictConfig, resolve: Resolve, run: Run, own: float, target: float, fixed: set[str]) -> dict[str, int]:
    """The first width that reaches the target: the multiple that suits hardware if that does, else a whole number.

    Args:   run, own: the arm as it is written, and what it has of the budget. fixed: keys that a word of its own has set.
    """
    budget = config.match
    if run.run is not None or run.weights is not None:
        start = f"weights={run.weights}" if run.run is None else f"run={run.run}"
        raise missed(budget, target, own, f"and its widths are those of {start}")
    best, how = own, "as it is written"
    for key, step in WIDTHS.items():
        look = functools.cache(functools.partial(with_width, config, resolve, key))
        width = written = int(OmegaConf.select(config, key))
        for unit in dict.fromkeys((math.lcm(step, run.size["n_heads"]) if key == "size.d_model" else step, 1)):
            found = search(look, width, unit, WIDEST * written, target)
            if found is None:
                break  # this width has no say in the budget
            if key in fixed:
                raise ConfigError(
                    f"{key}={written} fixes the width that match={budget} would solve: the arm has {own:,.0f}, and the "
                    f"baseline {target:,.0f} ({own / target - 1:+.2%}); leave one of the two out"
                )
            width, reached = found, look(found) or own
            if off(reached, target) < off(best, target):
                best, how = reached, f"with {key}={width}"
            if off(best, target) <= WITHIN:
                return {key: width}
    raise missed(budget, target, best, how)


def costs(run: Run) -> dict[str, float]:
    """Budget -> what the run's model with its objective's heads has of it, as its record will say."""
    with torch.device("meta"):
        task = build_task(run, load_data(run))
    begin(task, run)
    seq, settings = run.settings.seq_len, run.settings
    cost = task.cost(seq)
    return {
        "flops": cost.flops,
        "active_params": cost.active_params,
        "total_params": cost.params,
        "train_flops": task.train_flops(seq) * settings.steps * settings.tokens,
        "state_bytes": cost.state_bytes,
    }


def with_width(config: DictConfig, resolve: Resolve, key: str, width: int) -> float | None:
    """What an arm has of the budget with another width, which is taken back; None: such a model cannot be built."""
    sizes: Any = OmegaConf.to_container(config.size, resolve=False)
    budget, written = config.match, sizes[key.partition(".")[2]]
    try:
        return costs(resolve(put(config, {"solved": {key: width}}, {key: width})))[budget]
    except NOT_BUILT:
        return None
    finally:
        put(config, budget, {key: written})


def put(config: DictConfig, match: Any, widths: Mapping[str, Any]) -> DictConfig:
    """A config with other widths, in place; ``solved_words`` says them to the layers of a stack, which are composed apart."""
    for key, width in widths.items():
        OmegaConf.update(config, key, width)
    config.match = match
    return config


def search(cost: Callable[[int], float | None], start: int, unit: int, widest: int, target: float) -> int | None:
    """The width, a multiple of unit, whose cost lies nearest to the target; None: the cost does not grow with it.

    Args:   cost: of a width, kept by the caller; None where none can be built.
    """
    most = widest // unit
    tried: dict[int, float] = {}

    def there(n: int) -> int | None:
        """The number of units nearest to n of which a model can be built."""
        for away in range(APART):
            for near in (n - away, n + away):
                if 1 <= near <= most and (found := cost(near * unit)) is not None:
                    tried[near] = found
                    return near
        return None

    one = there(max(1, round(start / unit)))
    other = None if one is None else there(2 * one)
    for _ in range(APART):
        if one is None or other is None or one == other or (slope := (tried[other] - tried[one]) / (other - one)) <= 0:
            break
        one, other = other, there(min(max(round(other + (target - tried[other]) / slope), 1), most))
    if len(set(tried.values())) < 2:
        return None
    n = min(tried, key=lambda n: off(tried[n], target))
    ahead = 1 if tried[n] < target else -1
    for near in range(n + ahead, n + ahead * APART, ahead):  # over widths that cannot be built, or are rounded to one
        if not 1 <= near <= most or (tried[n] - target) * ahead >= 0:
            break
        if (found := cost(near * unit)) is not None:
            tried[near], n = found, near
    return unit * min(tried, key=lambda n: off(tried[n], target))


def off(reached: float, target: float) -> float:
    return abs(reached / target - 1)


def missed(budget: str, target: float, reached: float, how: str) -> ConfigError:
    return ConfigError(
        f"match={budget}: no width comes within {WITHIN:.0%} of the baseline's {target:,.0f} {BUDGETS[budget]}; the nearest is "
        f"{reached:,.0f} ({reached / target - 1:+.2%}), {how}"
    )


def alone(budget: Any) -> ConfigError:
    return ConfigError(
        f"match={budget}: there is one arm, and no other to make equal; take a grid (-m ffn=dense,swiglu) or a study with arms"
    )


def solved_words(config: DictConfig) -> list[str]:
    """The widths that were solved, as a command line would say them."""
    found = config.match
    return [f"{key}={width}" for key, width in found.solved.items()] if isinstance(found, DictConfig) else []


def of_seconds(run: Run) -> bool:
    """Whether its steps are still to be solved, once the arms are timed."""
    return run.match is not None and run.match["budget"] == SECONDS


def told(runs: Iterable[Run]) -> Iterator[str]:
    """For each arm that was made equal, a line: the width that was solved, and what it differs by in each budget."""
    seen = set()
    for run in runs:
        if run.match is None or (run.label, run.arm_hash) in seen:
            continue
        seen.add((run.label, run.arm_hash))
        solved = "".join(f"{key}={width}; " for key, width in run.match["solved"].items())
        target, reached = run.match["target"], run.match["reached"]
        parts = (
            f"{BUDGETS[name]} {reached[name]:,.0f}" + (f" ({reached[name] / target[name] - 1:+.2%})" if target[name] else "")
            for name in dict.fromkeys((*({run.match["budget"]} - {SECONDS}), *TRIAD))
        )
        yield f"match={run.match['budget']}: {run.label or run.name}: {solved}{', '.join(parts)}"
