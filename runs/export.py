"""Give a trained run away: in the layout of its family, which transformers reads.

python -m runs.export run=runs/out/plain/<run> to=FOLDER      config.json, model.safetensors, tokenizer.json

transformers.AutoModelForCausalLM.from_pretrained(FOLDER) gives the same logits. A run with model=<published name> or from
weights=FOLDER is written in that family's layout; any other in the one that family= names, if that expresses it.
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("start it as a module, from the top of the repository: python -m runs.export")
if __name__ == "__main__":
    from .usage import answer_help

    answer_help(__doc__)  # before torch is imported

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arch.lora import merge

from .build.errors import ConfigError
from .command import guarded, parse
from .compose.compose import composed
from .job.run import Run
from .job.start import Restored, restore, run_folder, vocab_size
from .published import folder as weights
from .published import tokenizer_json
from .published.family import Family, config_of, family_named, family_of_config, overrides
from .published.nodes import Node, completed, first_difference
from .published.settings import Config
from .tokenizer import Tokenizer


def export(*, run: str, to: str, family: str | None = None) -> None:
    """Write the model of a run, its adapters merged, and its tokenizer.

    Args:   run: folder of a run. to: folder that holds no model yet. family: a model_type such as llama; null = that of the
            weights that the run started from, else that of model=.
    Raises: ConfigError, RecordError: in one line, what the family does not express, or why there is nothing to write.
    """
    restored = restore(run_folder(Path(run)))
    try:
        write(restored, Path(to), family=family)
    except ConfigError as error:
        raise ConfigError(f"run={run}: {error}") from None


def write(restored: Restored, place: Path, *, family: str | None = None) -> None:
    """Write a restored run's model and tokenizer to a folder, and print what was written and what was not."""
    data, task = restored.data, restored.task
    merge(task.model)
    run = restored.run.of_vocabulary(vocab_size(restored.run, data))
    model, size = run.model, run.size
    start = start_config(run.weights)
    layout = family_of_run(run, start) if family is None else family_named(family, f"family={family}")
    published = config_of(layout, model, size)
    refuse_another(model, published)

    state, left_out = weights.of_task(task.state_dict(), layout.heads(run.objective))
    heads = {name: tensor for name, tensor in state.items() if name.startswith("heads.")}
    tokenizer: Tokenizer | None = getattr(data, "tokenizer", None)
    specials = specials_of(data, tokenizer)
    weights.save(place, state, {**published, **layout.head_config(heads), **token_ids(layout, specials, start)})
    print(f"{place}: a model of the family {layout.model_type}, {sum(t.numel() for t in task.model.parameters()):,} parameters")
    if left_out:
        print(f"left out: {', '.join(left_out)}; this layout has no place for it")
    if not tokenizer_json.save(place, tokenizer, specials, longest=size["max_seq"]):
        print("no tokenizer.json: the tokens of this run stand for no text, or no such file expresses them")


def start_config(folder: str | None) -> Config:
    """The config.json of the published weights that the run started from, where it is still there."""
    return weights.read_config(Path(folder)) if folder is not None and (Path(folder) / weights.CONFIG).is_file() else {}


def family_of_run(run: Run, start: Config) -> Family:
    """Raises ConfigError: the run's model is none that is published."""
    if start:
        return family_of_config(start)
    if run.family is None:
        model = run.choices["model"]
        raise ConfigError(f"model={model} belongs to no published layout; name the one to write, as in family=llama")
    return family_named(run.family, f"family={run.family}")


def refuse_another(model: Node, published: Config) -> None:
    """Raises ConfigError: what the published config.json builds is another model."""
    theirs = composed(overrides(published)).run.model
    if difference := first_difference(completed(model), completed(theirs)):
        where, here, there = difference
        raise ConfigError(f"family={published['model_type']} does not express it: {where} is {here} here and {there} there")


def specials_of(data: Any, tokenizer: Tokenizer | None) -> dict[str, int]:
    """The special tokens, by what they are for: those of the data where it has laid out rows with its own."""
    own: dict[str, int] = {} if tokenizer is None else tokenizer.specials
    return {**own, **getattr(data, "specials", {})}


def token_ids(layout: Family, specials: Mapping[str, int], start: Config) -> Config:
    """What generation reads: of the published weights that the run started from, else the special tokens, else null."""
    entries = {**{f"{role}_token_id": role for role in ("pad", "bos", "eos")}, **layout.token_ids}
    own = {entry: specials.get(role) for entry, role in entries.items()}
    theirs = {key: value for key, value in start.items() if key.endswith("_token_id")}
    for key in theirs:
        weights.token_ids(start, key)  # refuses what numbers no token
    return own | theirs


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    export(**parse(words, export))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
