"""Give a trained run away: in the layout of its family, which transformers reads.

python -m runs.export run=runs/out/plain/<run> to=FOLDER      config.json, model.safetensors, tokenizer.json

transformers.AutoModelForCausalLM.from_pretrained(FOLDER) gives the same logits. A run with model=<published name> or from
weights=FOLDER is written in that family's layout; any other in the one that family= names, if that expresses it.
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("start it as a module, from the top of the repository: python -m runs.export")

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from arch import Attention
from arch.lora import merge
from arch.position import Rotary

from .build.errors import ConfigError
from .build.objects import locate
from .command import guarded, parse
from .compose.compose import of_words
from .job.start import Restored, restore
from .published import folder as weights
from .published.describe import describe, family_of, stacked
from .published.families import family as family_named
from .tokenizer import Tokenizer
from .tokenizer.file import NAMES
from .tokenizer.library import library

UNTOLD = ("dropout",)  # what only training reads
IMPLIED = {Attention: {"n_kv_heads": "n_heads"}, Rotary: {"d_rotary": "d_head"}}  # None stands for the value of another


def export(*, run: str, to: str, family: str | None = None) -> None:
    """Write the model of a run, its adapters merged, and its tokenizer.

    Args:   run: folder of a run. to: folder that holds no model yet. family: a model_type such as llama; null = that of model=.
    Raises: ConfigError, RecordError: in one line, what the family does not express, or why there is nothing to write.
    """
    restored = restore(Path(run))
    try:
        write(restored, Path(to), family=family)
    except ConfigError as error:
        raise ConfigError(f"run={run}: {error}") from None


def write(restored: Restored, place: Path, *, family: str | None = None) -> None:
    task, data, size = restored.task, restored.data, restored.config["size"]
    merge(task.model)
    config = {**restored.config, "size": {**size, "vocab_size": size["vocab_size"] or data.vocab_size}}
    kind = family_of(config["choices"].get("model", "decoder")) if family is None else family
    told = describe(kind, config)
    refuse_another(kind, config, told)
    state, left_out = in_layout(kind, task.state_dict(), config)
    tokenizer: Tokenizer | None = getattr(data, "tokenizer", None)
    specials = specials_of(data, tokenizer)
    weights.save(place, state, {**told, **heads_told(kind, state), **token_ids(kind, config["weights"], specials)})
    print(f"{place}: a model of the family {kind}, {sum(t.numel() for t in task.model.parameters()):,} parameters")
    if left_out:
        print(f"left out: {', '.join(left_out)}; this layout has no place for it")
    if not save_tokenizer(place, tokenizer, specials, longest=size["max_seq"]):
        print("no tokenizer.json: the tokens of this run stand for no text, or cannot be told in one")


def refuse_another(kind: str, config: dict[str, Any], told: dict[str, Any]) -> None:
    """Raises ConfigError: what is described is another model than that of the run."""
    theirs = of_words(family_named(told).overrides)
    if difference := first_difference(model_of(config), model_of(theirs)):
        where, ours, expected = difference
        raise ConfigError(f"family={kind} does not express it: {where} is {ours} here and {expected} there")


def model_of(config: dict[str, Any]) -> Any:
    """A run's model as one tree, with what each of its parts leaves at a default."""

    def filled(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        open_size = {"vocab_size": config["size"]["vocab_size"]} if "vocab_size" in node else {}
        own = {"layers": stacked(config, node["layers"])} if "layers" in node else {}
        return {key: filled(value) for key, value in node.items()} | open_size | own

    return spelt_out(filled(config["model"]))


def spelt_out(node: Any) -> Any:
    if isinstance(node, list):
        return [spelt_out(child) for child in node]
    if not isinstance(node, dict) or "_target_" not in node:
        return node
    target = locate(node["_target_"], "model")
    defaults = {key: p.default for key, p in inspect.signature(target).parameters.items() if p.default is not p.empty}
    given = {key: spelt_out(value) for key, value in node.items() if key not in ("_target_", *UNTOLD)}
    full = {key: value for key, value in {**defaults, **given}.items() if key not in UNTOLD}
    for key, other in IMPLIED.get(target, {}).items():  # type: ignore[call-overload]
        full[key] = full[other] if full[key] is None else full[key]
    return {"_target_": target, **full}


def first_difference(a: Any, b: Any, path: str = "") -> tuple[str, str, str] | None:
    """Where two trees differ, and what stands there."""
    if isinstance(a, dict) and isinstance(b, dict) and a.get("_target_") == b.get("_target_"):
        pairs = [(f"{path}.{key}", a.get(key), b.get(key)) for key in a | b]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(f"{path}.{i}", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return None if a == b else (path.removeprefix(".") or "model", named(a), named(b))
    return next((found for where, x, y in pairs if (found := first_difference(x, y, where))), None)


def named(node: Any) -> str:
    if isinstance(node, dict) and "_target_" in node:
        return str(node["_target_"].__name__)
    return f"a list of {len(node)}" if isinstance(node, list) else json.dumps(node, default=str)


def in_layout(kind: str, state: Mapping[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under our names, and the objective's heads that the layout has no place for."""
    heads = {name.split(".")[1] for name in state if name.startswith("heads.")}
    pool = config["objective"].get("pool")
    kept = heads if kind == "bert" else set()
    if pool not in (None, "first"):  # theirs reads the first token
        kept = kept - {"classifier"}
    ours = {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
    with_heads = {name: tensor for name, tensor in state.items() if name.startswith("heads.") and name.split(".")[1] in kept}
    return ours | with_heads, sorted(f"heads.{head}" for head in heads - kept)


def heads_told(kind: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the heads add to a BERT's config.json."""
    heads = {name.split(".")[1] for name in state if name.startswith("heads.")}
    if kind != "bert" or not heads:
        return {}
    if "classifier" in heads:
        labels = [f"LABEL_{i}" for i in range(len(state["heads.classifier.bias"]))]
        numbers = {label: i for i, label in enumerate(labels)}
        return {"architectures": ["BertForSequenceClassification"], "id2label": dict(enumerate(labels)), "label2id": numbers}
    return {"architectures": ["BertForPreTraining" if "nsp" in heads else "BertForMaskedLM"]}


def specials_of(data: Any, tokenizer: Tokenizer | None) -> dict[str, int]:
    """The special tokens, by what they are for: those of the data where it has laid out rows with its own."""
    own: dict[str, int] = {} if tokenizer is None else tokenizer.specials
    return {**own, **getattr(data, "specials", {})}


def token_ids(kind: str, start: str | None, specials: Mapping[str, int]) -> dict[str, Any]:
    """What generation reads: of the published weights that the run started from, else the special tokens, else none."""
    ids: dict[str, Any] = {f"{role}_token_id": specials.get(role) for role in ("pad", "bos", "eos")}
    if kind == "marian":
        ids["decoder_start_token_id"] = specials.get("bos")
    if start is not None and (Path(start) / weights.CONFIG).is_file():
        ids |= {key: value for key, value in weights.read_config(Path(start)).items() if key.endswith("_token_id")}
    return ids


def save_tokenizer(place: Path, tokenizer: Tokenizer | None, specials: Mapping[str, int], *, longest: int) -> bool:
    """Write tokenizer.json, with special tokens that follow the vocabulary; whether there is one to write."""
    if tokenizer is None or not (state := as_json(tokenizer)):
        return False
    form = library().Tokenizer.from_str(state)
    size = form.get_vocab_size(with_added_tokens=True)
    for role, token in sorted(specials.items(), key=lambda item: item[1]):
        if token >= size:
            form.add_special_tokens([NAMES[role][0]])
            if form.token_to_id(NAMES[role][0]) != token:
                return False
    (place / "tokenizer.json").write_text(form.to_str() if form.get_vocab_size() > size else state)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": longest,
        **{f"{role}_token": form.id_to_token(token) for role, token in specials.items()},
    }
    (place / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return True


def as_json(tokenizer: Tokenizer) -> str:
    """A tokenizer.json, or nothing. Bytes are the BPE that has merged nothing."""
    if tokenizer.settings == "bytes":
        tokenizers = library()
        form = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=byte_names(), merges=[]))
        form.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        form.decoder = tokenizers.decoders.ByteLevel()
        return str(form.to_str())
    try:
        text = tokenizer.state().decode()
        return text if "model" in json.loads(text) else ""
    except ValueError:
        return ""


def byte_names() -> dict[str, int]:
    """Each byte as the one character that GPT-2's alphabet writes it as: itself where it can be seen, else one from 256 on."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {**{chr(byte): byte for byte in seen}, **{chr(256 + i): byte for i, byte in enumerate(unseen)}}


def main(words: Sequence[str] | None = None) -> int:
    export(**parse(sys.argv[1:] if words is None else words, export))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
