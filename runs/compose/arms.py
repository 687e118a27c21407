"""A study's arms unfolded: each is composed from words of its own, made equal to the baseline, and run with every seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import hydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ..build.errors import ConfigError, nearest
from .compose import Point, resolve
from .effect import REFERENCE, refuse_idle
from .explain import COMPOSING, explain
from .layers import plain
from .match import BUDGETS, SECONDS, Equal, alone
from .overrides import changed, group_of, key_of, normal
from .values import refuse_other_keys


def points(config: DictConfig, job: DictConfig, refuse: Callable[[ConfigError], None], grid: Equal) -> list[Point]:
    """All runs that one Hydra job stands for: one, or every arm with every seed of a study. Call inside Hydra.

    Seeds turn slowest: the arms of one seed are neighbours in time, so that a slow hour of the machine meets all of them.
    Args:   job: Hydra's own part of the config. refuse: takes each arm that does not compose; the others stay. grid: the points
            of the command so far, for ``match``.
    """
    given = said(job)
    words = [*(o for o in given["hydra"] if key_of(o) == "hydra.searchpath"), *given["task"]]
    refuse_other_keys(config)
    study = plain(config.study, OmegaConf.to_container(config.study, resolve=False), "study")
    arms, seeds = arms_and_seeds(study)
    if config.match is not None:
        refuse_other_match(config, job, arms, grid)
    again, shift = f"{study['baseline']} again", study["again"]
    if shift is not None:
        arms = {**(arms or {}), again: (arms or {})[study["baseline"]]}
    if not arms and seeds is None:
        choices = job.runtime.choices
        if config.match is not None:
            grid.take(config, words, lambda own: resolve(own, choices, words).run)
        return [resolve(config, choices, words)]
    seeds = seeds if seeds and not any(key_of(word) == "seed" for word in words) else [config.seed]
    equal, first = (Equal(), config.study.baseline) if arms else (grid, config.study.arm)
    arms = arms or {config.study.arm: []}
    made = {arm: compose_arm(arm, changes, words, refuse) for arm, changes in arms.items()}
    if config.match is not None:
        match_arms(made, first, equal, refuse)
    found, of_any_seed = [], dict[Any, Point]()
    for seed in seeds:
        for arm, (own, own_words) in ((arm, pair) for arm, pair in made.items() if pair is not None):
            own.seed = seed + (shift if arm == again and shift is not None else 0)
            try:
                if arm in of_any_seed:
                    found.append(with_seed(of_any_seed[arm], own.seed))
                    continue
                point = resolve(own, own.hydra.runtime.choices, own_words)
                refuse_idle((word for word in map(normal, arms[arm]) if word not in point.read), "this arm")
                found.append(replace(point, words=[word for word in words if word in own_words]))
                if not refers_to_seed(own):
                    of_any_seed[arm] = found[-1]
            except COMPOSING as error:
                refuse(ConfigError(f"arm {arm} seed {own.seed}: {explain(error)}"))
    return found


def with_seed(point: Point, seed: int) -> Point:
    return replace(point, run=replace(point.run, seed=seed, identity=""))


def refers_to_seed(config: DictConfig) -> bool:
    """Whether anything but the seed itself depends on it."""
    return "seed" in REFERENCE.findall(str(OmegaConf.to_container(config, resolve=False)))


def said(job: DictConfig) -> dict[str, list[str]]:
    """The words of a Hydra job as they were said, references and all, by whom they are for: hydra, or the task."""
    found: Any = OmegaConf.to_container(job.overrides, resolve=False)
    return found


def compose_arm(
    arm: str | None, changes: Sequence[str], words: Sequence[str], refuse: Callable[[ConfigError], None]
) -> tuple[DictConfig, list[str]] | None:
    """An arm's config, which serves all its seeds, and the words that it was composed from; None: it was refused."""
    try:
        own_words = changed(words, changes)
        own = hydra.compose("config", overrides=own_words, return_hydra_config=True)
    except COMPOSING as error:
        refuse(ConfigError(f"arm {arm}: {explain(error)}"))
        return None
    own.study.arm = arm
    return own, own_words


def match_arms(
    made: dict[Any, tuple[DictConfig, list[str]] | None], baseline: Any, equal: Equal, refuse: Callable[[ConfigError], None]
) -> None:
    """Make the arms equal to the baseline, in place; one that cannot be is refused, and None then."""
    for arm, pair in sorted(made.items(), key=lambda item: item[0] != baseline):
        if pair is None and arm == baseline:
            raise ConfigError(f"match: the baseline {arm} does not compose, so no arm can be equal to it")
        if pair is None:
            continue
        own, words = pair
        try:
            equal.take(own, words, lambda own, words=words: resolve(own, own.hydra.runtime.choices, words).run)  # type: ignore[misc]
        except COMPOSING as error:
            if arm == baseline:
                raise
            refuse(ConfigError(f"arm {arm}: {explain(error)}"))
            made[arm] = None


def refuse_other_match(config: DictConfig, job: DictConfig, arms: Mapping[Any, Any] | None, grid: Equal) -> None:
    """Raises ConfigError: no budget, or nothing to make equal to something."""
    if config.match not in (*BUDGETS, SECONDS):
        raise ConfigError(f"match={config.match}: no such budget; {nearest(str(config.match), [*BUDGETS, SECONDS])}")
    if arms and config.study.baseline is None:
        raise ConfigError(f"match={config.match}: study.baseline=null; name the arm that the others are made equal to")
    if arms and len(arms) == 1:
        raise alone(config.match)
    if not arms and job.mode is RunMode.MULTIRUN and job.job.num and not grid.found:
        raise ConfigError(
            f"match={config.match}: the first point of the grid, its baseline, is not there; give one that can be built, or "
            "name the arms in a study"
        )


def arms_and_seeds(study: Mapping[str, Any]) -> tuple[dict[Any, list[str]] | None, list[int] | None]:
    """Raises ConfigError: arms that are no lists of overrides, a baseline that is no arm, seeds that are none."""
    arms, seeds, baseline = study["arms"], study["seeds"], study["baseline"]
    if seeds is not None and (not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) for seed in seeds)):
        raise ConfigError(f"study.seeds={seeds}: a list of at least 1 whole number is expected")
    if arms is not None and not isinstance(arms, dict):
        raise ConfigError(f"study.arms={arms!r}: arms with a list of overrides each are expected")
    for arm, changes in (arms or {}).items():
        if not isinstance(changes, list) or not all(isinstance(change, str) for change in changes):
            raise ConfigError(f"study.arms.{arm}={changes!r}: a list of overrides is expected, such as [ffn=moe]")
        for change in changes:
            if group_of(change) in ("seed", "study", "out", "match", "hydra"):
                raise ConfigError(f"study.arms.{arm}: {change} is no part of an arm; say it of the whole study")
    if arms and baseline is not None and baseline not in arms:
        raise ConfigError(f"study.baseline={baseline}: no such arm; {nearest(baseline, arms)}")
    refuse_other_plans(study, arms or {}, seeds or [])
    return arms, seeds


def refuse_other_plans(study: Mapping[str, Any], arms: Mapping[str, Any], seeds: Sequence[int]) -> None:
    """Raises ConfigError: a question about arms that there are not, seeds that are used twice."""
    baseline, question, tuning, again = (study[key] for key in ("baseline", "question", "tuning", "again"))
    if isinstance(question, dict):
        refuse_other_arms(question, arms, baseline, again)
    if again is not None and (
        baseline not in arms or not isinstance(again, int) or not seeds or again <= max(seeds) - min(seeds)
    ):
        raise ConfigError(
            f"study.again={again}: what is added to the seeds to run the baseline once more, beyond the {len(seeds)} seeds "
            "that there are; it takes study.baseline, study.arms and study.seeds"
        )
    if again is not None and f"{baseline} again" in arms:
        raise ConfigError(f"study.again={again}: its arm is called {baseline} again, as one of study.arms is; rename that one")
    trials = tuning["seeds"] if isinstance(tuning, dict) and isinstance(tuning.get("seeds"), list) else []
    for seed in [*seeds, *(seed + again for seed in seeds if again is not None)]:
        if seed in trials:
            raise ConfigError(f"study.tuning.seeds={trials}: {seed} is a seed of the study itself; take others")


def refuse_other_arms(question: Mapping[str, Any], arms: Mapping[str, Any], baseline: Any, again: Any) -> None:
    """Raises ConfigError: a question about arms that there are not, or about the baseline against itself."""
    known = [*arms, *([] if again is None else [f"{baseline} again"])]
    for key in ("predicted", "against"):
        asked = question.get(key) if isinstance(question.get(key), dict) else None
        for arm, what in (asked or {}).items():
            for name in (arm, what) if key == "against" else (arm,):
                if name not in known:
                    raise ConfigError(f"study.question.{key}.{arm}: {name} is no arm; {nearest(str(name), known)}")
    for arm, metrics in question["predicted"].items() if isinstance(question.get("predicted"), dict) else ():
        other = (question.get("against") or {}).get(arm, baseline)
        if arm == other and isinstance(metrics, dict) and any(isinstance(side, str) for side in metrics.values()):
            raise ConfigError(f"study.question.predicted.{arm}: it would be held against itself; name another arm in against")
