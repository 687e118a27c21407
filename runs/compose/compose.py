"""From words to runs: Hydra composes, a study's arms are unfolded, every node comes out with no reference left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ..build.errors import ConfigError
from ..build.groups import KEYS, NODES
from ..build.objects import nearest
from ..build.sizes import refuse_other_size
from ..build.stack import parse, spelt
from ..job.run import Run, settings_of
from ..job.study import Study
from ..published import folder as published
from ..training.device import pick_device, pick_precision
from . import resolvers  # noqa: F401  conf/ calls them
from .effect import Part, by_name, drop_foreign, read_words, refuse_idle
from .explain import COMPOSING, CONF, did_you_mean, explain, leaves
from .inherit import inherit, inherited, inherited_choices
from .layers import compose_layers, plain, stacked
from .match import BUDGETS, MEASURED, Equal, alone, solved_words
from .overrides import changed, group_of, key_of, normal
from .router_losses import idle_losses, without_idle_losses
from .values import refuse_other_keys, refuse_other_shared

STUDY_ALONE = ("arms", "seeds", "again")  # what is said of a study and of none of its runs


@dataclass(frozen=True)
class Point:
    """A run that a command asks for. words: of the command, without those of its arm. read: those of them that it reads."""

    run: Run
    words: Sequence[str]
    read: frozenset[str]


def of_words(words: Sequence[str], folder: Path = CONF) -> Run:
    """The run of a command line, where Hydra itself has not been called. Raises ConfigError: also for words without effect."""
    point = composed(words, folder)
    refuse_idle(word for word in point.words if word not in point.read)
    return point.run


def composed(words: Sequence[str], folder: Path = CONF) -> Point:
    words = [normal(word) for word in words]
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        config = hydra.compose("config", overrides=words, return_hydra_config=True)
        if "match" in config and config.match is not None:
            raise alone(config.match)
        return resolve(config, config.hydra.runtime.choices, words)


def points(config: DictConfig, refuse: Callable[[ConfigError], None], grid: Equal) -> list[Point]:
    """All runs that one Hydra job stands for: one, or every arm with every seed of a study. Call inside Hydra.

    Seeds turn slowest: the arms of one seed are neighbours in time, so that a slow hour of the machine meets all of them.
    Args:   refuse: takes each arm that does not compose; the others stay. grid: the points of the command so far, for
            ``match``.
    """
    given = said()
    words = [*(o for o in given["hydra"] if key_of(o) == "hydra.searchpath"), *given["task"]]
    refuse_other_keys(config)
    study = plain(config.study, "study")
    arms, seeds = arms_and_seeds(study)
    if config.match is not None:
        refuse_other_match(config, arms, grid)
    again, shift = f"{study['baseline']} again", study["again"]
    if shift is not None:
        arms = {**(arms or {}), again: (arms or {})[study["baseline"]]}
    if not arms and seeds is None:
        choices = HydraConfig.get().runtime.choices
        if config.match is not None:
            grid.take(config, words, lambda own: resolve(own, choices, words).run)
        return [resolve(config, choices, words)]
    seeds = seeds if seeds and not any(key_of(word) == "seed" for word in words) else [config.seed]
    equal, first = (Equal(), config.study.baseline) if arms else (grid, config.study.arm)
    arms = arms or {config.study.arm: []}
    made = {arm: compose_arm(arm, changes, words, refuse) for arm, changes in arms.items()}
    if config.match is not None:
        match_arms(made, first, equal, refuse)
    found = []
    for seed in seeds:
        for arm, (own, own_words) in ((arm, pair) for arm, pair in made.items() if pair is not None):
            own.seed = seed + (shift if arm == again and shift is not None else 0)
            try:
                point = resolve(own, own.hydra.runtime.choices, own_words)
                refuse_idle((word for word in map(normal, arms[arm]) if word not in point.read), "this arm")
                found.append(replace(point, words=[word for word in words if word in own_words]))
            except COMPOSING as error:
                refuse(ConfigError(f"arm {arm} seed {own.seed}: {explain(error)}"))
    return found


def said() -> dict[str, list[str]]:
    """The words of this Hydra job as they were said, references and all, by whom they are for: hydra, or the task."""
    found: Any = OmegaConf.to_container(HydraConfig.get().overrides, resolve=False)
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


def refuse_other_match(config: DictConfig, arms: Mapping[Any, Any] | None, grid: Equal) -> None:
    """Raises ConfigError: no budget, or nothing to make equal to something."""
    if config.match not in (*BUDGETS, *MEASURED):
        raise ConfigError(f"match={config.match}: no such budget; {nearest(str(config.match), [*BUDGETS, *MEASURED])}")
    if arms and config.study.baseline is None:
        raise ConfigError(f"match={config.match}: study.baseline=null; name the arm that the others are made equal to")
    if arms and len(arms) == 1:
        raise alone(config.match)
    job = HydraConfig.get()
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


def resolve(config: DictConfig, choices: Any, words: Sequence[str]) -> Point:
    """One composed config as a run, with the words that it reads."""
    said = words
    refuse_other_keys(config)
    words = changed(words, solved_words(config))
    if config.weights is not None:
        config, choices, words = of_published(config, words)
    drop_foreign(config, words)
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    for key in STUDY_ALONE:
        own.study[key] = None  # this run has its own arm and seed
    groups = {str(key): str(option) for key, option in choices.items() if key in KEYS and key != "study"}
    part = Part(OmegaConf.to_container(config, resolve=False), words)
    run, parts = from_words(own, groups, part) if own.run is None else from_run(own, groups, part)
    read = read_words(parts, said) | {word for word in said if by_name(word) or word not in words}
    if run.run is not None:  # what is inherited has been held against the words
        read |= {word for word in said if inherited(word)}
    return Point(run, said, frozenset(read - idle_losses(run, said)))


def from_words(config: DictConfig, groups: dict[str, str], part: Part) -> tuple[Run, list[Part]]:
    """A run whose model the words describe, and what it was composed from: the config, and each layer of its stacks."""
    resolved = plain(config)
    refuse_other_size("n_layers", resolved["size"]["n_layers"])  # it may have been a reference
    blocks, layers = compose_layers(part.raw, resolved, part.words)
    n_layers = resolved["size"]["n_layers"]
    parts = [part, *layers]
    chosen = read_choices(groups, parts)
    if resolved["stack"] is not None:
        chosen["mixer"] = spelt(parse(resolved["stack"]), n_layers)
    return run_of({**resolved, "model": stacked(resolved["model"], blocks, n_layers)}, chosen), parts


def from_run(config: DictConfig, groups: dict[str, str], part: Part) -> tuple[Run, list[Part]]:
    """A run that takes its model over from another."""
    theirs = inherit(config, part.words)
    chosen = inherited_choices(read_choices(groups, [part]), theirs.choices)
    return run_of({**plain(config), "model": theirs.model}, chosen), [part]


def read_choices(groups: Mapping[str, str], parts: Sequence[Part]) -> dict[str, str]:
    return {key: option for key, option in groups.items() if key in NODES or any(part.reads(key) for part in parts)}


def run_of(resolved: dict[str, Any], choices: Mapping[str, str]) -> Run:
    for name in NODES:
        if "_target_" not in resolved[name]:
            raise ConfigError(f"{name}={resolved[name]}: a _target_ is missing, the class or function to build it with")
    for group in ("size", "shared"):  # a study's file may hold anything
        for key in resolved[group]:
            if f"{group}.{key}" not in leaves():
                raise ConfigError(f"{group}.{key}: unknown key; {did_you_mean(f'{group}.{key}')}")
    refuse_other_shared(resolved["shared"])
    for key in ("device", "precision"):
        if key not in resolved["train"]:
            raise ConfigError(f"train: {key} is missing")
    device = pick_device(resolved["train"]["device"])  # what auto stands for is part of what the run computes
    precision = pick_precision(resolved["train"]["precision"], device)
    settings, machine = settings_of({**resolved["train"], "device": str(device), "precision": precision})
    study = Study.of({key: value for key, value in resolved["study"].items() if key not in STUDY_ALONE})
    own = ("seed", "out", "size", "shared", "causal", "family", "run", "weights", "match", *NODES)
    values = {key: resolved[key] for key in own}
    return Run(**values, study=study, choices=choices, settings=without_idle_losses(settings, values["model"]), machine=machine)


def of_published(config: DictConfig, words: Sequence[str]) -> tuple[DictConfig, Any, list[str]]:
    """The config composed anew for the model of the weights that it names, with the choices and the words that did it."""
    if config.run is not None:
        raise ConfigError(f"run={config.run} and weights={config.weights}: a run starts from one of them")
    model = [normal(word) for word in published.overrides(published.read_config(Path(config.weights)))]
    for word in words:
        if key_of(word) in ("model", "size") and word not in model:
            raise ConfigError(f"{word}: weights={config.weights} says which model they belong to; leave it out")
    both = changed(model, words)
    anew = hydra.compose("config", overrides=both, return_hydra_config=True)
    chosen = any(group_of(word) == "tokenizer" for word in words)
    data: Any = OmegaConf.to_container(anew.data, resolve=False)
    if not chosen and data.get("tokenizer") is not None:  # the model knows the tokens of its own
        both = [*both, *map(normal, published.tokenizer(Path(config.weights)))]
        anew = hydra.compose("config", overrides=both, return_hydra_config=True)
    anew.study.arm, anew.seed, anew.match = config.study.arm, config.seed, config.match
    return anew, anew.hydra.runtime.choices, both
