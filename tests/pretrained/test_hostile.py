"""Folders of weights that are damaged, or lie: each ends in one line that names the folder, and takes no memory first."""

from __future__ import annotations

import functools
import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from runs.build.errors import ConfigError
from runs.compose.compose import composed
from runs.published import folder as weights
from runs.published import tokenizer_json
from runs.published.family import families
from runs.tokenizer import Bytes
from runs.trained import load
from tests.pretrained import peers
from tests.pretrained.ours import our_state

ROOT = Path(__file__).parents[2]
MEMORY = 2**30  # bytes that a refusal may take: what the folders lie about is much larger
GONE = object()
Break = Callable[[Path], object]


class Case(NamedTuple):
    """A way to break a folder. message: part of the line. early: whether config.json and headers tell it, without a number."""

    message: str
    change: Break
    family: str = "llama"
    early: bool = True


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @functools.cache
    def made(family: str) -> Path:
        place = tmp_path_factory.mktemp(family)
        peer = peers.FAMILIES[family](vocab_size=300)
        weights.save(place, our_state(peer), peer.config.to_dict())
        tokenizer_json.save(place, Bytes(), {}, longest=40)
        return place

    return made


@pytest.fixture
def little_memory() -> Iterator[None]:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


# ways to break one ---------------------------------------------------------------------------------------------------


def content(name: str, raw: bytes) -> Break:
    return lambda place: (place / name).write_bytes(raw)


def entries(**changes: Any) -> Break:
    def change(place: Path) -> None:
        file = place / "config.json"
        known = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({key: value for key, value in known.items() if value is not GONE}))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Break:
    def rewrite(place: Path) -> None:
        found = load_file(place / "model.safetensors")
        change(found)
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, place / "model.safetensors")

    return rewrite


def one(change: Callable[[torch.Tensor], torch.Tensor], name: str = "model.layers.0.self_attn.q_proj.weight") -> Break:
    return tensors(lambda found: found.update({name: change(found[name])}))


def header(change: Callable[[dict[str, Any]], object]) -> Break:
    """Another header before the same numbers."""

    def rewrite(place: Path) -> None:
        raw = (place / "model.safetensors").read_bytes()
        end = 8 + int.from_bytes(raw[:8], "little")
        told = json.loads(raw[8:end])
        told.pop("__metadata__", None)
        change(told)
        text = json.dumps(told).encode()
        (place / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + raw[end:])

    return rewrite


def norm(**lies: Any) -> Break:
    return header(lambda told: told["model.norm.weight"].update(lies))


def index(table: Any) -> Break:
    return lambda place: (place / "model.safetensors.index.json").write_text(json.dumps(table))


def shards(place: Path) -> None:
    """Two files, the same tensor in both."""
    found = load_file(place / "model.safetensors")
    for name in ("a", "b"):
        save_file(found if name == "a" else {"model.norm.weight": torch.zeros(48)}, place / f"{name}.safetensors")
    index({"weight_map": {**dict.fromkeys(found, "a.safetensors"), "model.norm.weight": "b.safetensors"}})(place)


def linked(name: str) -> Break:
    def change(place: Path) -> None:
        away = place.parent / f"away-{name}"
        (place / name).rename(away)
        (place / name).symlink_to(away)

    return change


def pipe(name: str) -> Break:
    def change(place: Path) -> None:
        (place / name).unlink()
        os.mkfifo(place / name)

    return change


def longer(name: str, by: int) -> Break:
    return lambda place: os.truncate(place / name, (place / name).stat().st_size + by)


def sparse(name: str, size: int) -> Break:
    return lambda place: os.truncate(place / name, size)


def only_a_pickle(place: Path) -> None:
    (place / "model.safetensors").unlink()
    (place / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def vocabulary(change: Callable[[dict[str, Any]], object]) -> Break:
    def rewrite(place: Path) -> None:
        form = json.loads((place / "tokenizer.json").read_text())
        change(form)
        (place / "tokenizer.json").write_text(json.dumps(form))

    return rewrite


def deep(depth: int) -> Any:
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


A_NUMBER = "a whole number from 1 is expected"
YARN = {"rope_type": "yarn", "factor": 5.0, "original_max_position_embeddings": 64}
LLAMA3 = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}

CASES = {
    # config.json
    "config is a list": Case("config.json: a JSON object is expected, not list", content("config.json", b"[]")),
    "config is a number": Case("config.json: a JSON object is expected, not int", content("config.json", b"7")),
    "config is empty": Case("config.json: not readable as JSON", content("config.json", b"")),
    "config is cut": Case("config.json: not readable as JSON", content("config.json", b'{"model_type": "lla')),
    "config is binary": Case("config.json: not readable as JSON", content("config.json", b"\xff\xfe\x00\x81" * 9)),
    "config is nested": Case("config.json: not readable as JSON .nested too deep", content("config.json", b"[" * 100_000)),
    "config is nested in objects": Case("nested too deep", content("config.json", b'{"a":' * 100_000)),
    "config has a number of 10,000 digits": Case(
        "config.json: not readable as JSON", content("config.json", b'{"model_type": ' + b"9" * 10_000 + b"}")
    ),
    "config is enormous": Case("config.json has 1,099,511,627,776 bytes", sparse("config.json", 2**40)),
    "config is a folder": Case("no config.json there", lambda p: ((p / "config.json").unlink(), (p / "config.json").mkdir())),
    "config is a pipe": Case("no config.json there", pipe("config.json")),
    "config is a link away": Case("config.json is a link out of the folder", linked("config.json")),
    "config is missing": Case("no config.json there", lambda p: (p / "config.json").unlink()),
    "no model type": Case("names no model_type", entries(model_type=GONE)),
    **{
        f"model type {str(value)[:20]!r}": Case("no name map for this family", entries(model_type=value))
        for value in ({"a": 1}, ["llama"], 7, None, True, "__init__", "family", "../llama", "", "a\nb\x1b[2J", "x" * 10**6)
    },
    # sizes
    **{
        f"hidden_size {value!r}": Case(f"d_model would be .*; {A_NUMBER}", entries(hidden_size=value))
        for value in (1e12, 10**30, -48, 0, 48.0, True, "48", float("nan"), float("inf"), None, [48], {"a": {"b": 48}})
    },
    "hidden_size missing": Case("config.json of a llama: hidden_size is missing", entries(hidden_size=GONE)),
    "a size nested deep": Case(f"d_model would be .*; {A_NUMBER}", entries(hidden_size=deep(900))),
    "a million layers": Case("1,000,000 layers, but its files hold 21 tensors", entries(num_hidden_layers=10**6)),
    "two billion layers": Case("2,147,483,647 layers, but its files", entries(num_hidden_layers=2**31 - 1)),
    "one layer too few": Case("no such tensor in this layout", entries(num_hidden_layers=1)),
    "one layer too many": Case("missing from these weights", entries(num_hidden_layers=3)),
    "as many layers as tensors": Case("missing from these weights", entries(num_hidden_layers=21)),
    "heads that do not divide": Case("n_kv_heads 2 does not divide n_heads 5", entries(num_attention_heads=5), early=False),
    "a key head too many": Case("n_kv_heads 4 does not divide n_heads 6", entries(num_key_value_heads=4), early=False),
    "a billion heads": Case("n_heads is 1,000,000,000, but its files hold no side", entries(num_attention_heads=10**9)),
    "wide heads": Case("d_head is 2,000,000,000, but its files hold no side", entries(head_dim=2 * 10**9)),
    "odd heads": Case("rotary channels come in pairs", entries(head_dim=7), early=False),
    "wider than its tensors": Case("is .*, .* is wanted", entries(intermediate_size=57), early=False),
    "enormous ffn": Case("at most 1,048,576 is possible", entries(intermediate_size=2**31 - 1), early=False),
    "another width": Case("d_model is 480, but its files hold no side over 300", entries(hidden_size=480, head_dim=8)),
    "fewer heads": Case("of another model than its config.json says", entries(num_attention_heads=4, head_dim=8), early=False),
    "half the width": Case("is .*, .* is wanted", entries(hidden_size=24, head_dim=8), early=False),
    "a large vocabulary": Case("vocab_size is 2,000,000,000, but", entries(vocab_size=2 * 10**9)),
    "a small vocabulary": Case("is .300, 48., .200, 48. is wanted", entries(vocab_size=200), early=False),
    "tied, though there is a head": Case("but this layout ties them", entries(tie_word_embeddings=True), early=False),
    "tied by a word": Case("tie_word_embeddings is 'no'; true or false", entries(tie_word_embeddings="no")),
    "eps is not a number": Case("norm_eps would be nan; a number", entries(rms_norm_eps=float("nan"))),
    "eps is infinite": Case("norm_eps would be inf; a number", entries(rms_norm_eps=float("inf"))),
    "eps is negative": Case("norm_eps would be -1.0; a number", entries(rms_norm_eps=-1.0)),
    "eps is true": Case("norm_eps would be True; a number", entries(rms_norm_eps=True)),
    "eps is an integer of 400 digits": Case("norm_eps would be .*; a number", entries(rms_norm_eps=10**400)),
    "an activation in a list": Case("hidden_act=.* is not expressed here", entries(hidden_act=["silu"])),
    "gpt2, an activation in a list": Case(
        "activation_function=.* is not expressed here", entries(activation_function=["gelu"]), "gpt2"
    ),
    "gpt2, places beyond the table": Case("is .40, 48., .41, 48. is wanted", entries(n_positions=41), "gpt2", early=False),
    "gpt2, a table of many places": Case("at most 1,048,576 is possible", entries(n_positions=2**31 - 1), "gpt2", early=False),
    "gpt2, heads that do not divide": Case("n_heads is 5, which does not divide", entries(n_head=5), "gpt2"),
    # rotary positions
    "theta is 0": Case("rope_theta would be 0; a number from 2", entries(rope_theta=0)),
    "theta is 1": Case("rope_theta would be 1; a number from 2", entries(rope_theta=1)),
    "theta is a word": Case("rope_theta would be 'x'; a number", entries(rope_theta="x")),
    "scaling is a list": Case("rope_scaling is .*; an object", entries(rope_scaling=[1])),
    "scaling is a word": Case("rope_scaling is 'linear'; an object", entries(rope_scaling="linear")),
    "scaling of a kind in a dict": Case("rope_scaling of type", entries(rope_scaling={"type": {"a": 1}})),
    "scaling of no known kind": Case("rope_scaling of type 'longrope' is not", entries(rope_scaling={"rope_type": "longrope"})),
    "scaling by 0": Case("rope_scaling.factor would be 0; a number", entries(rope_scaling={"type": "linear", "factor": 0})),
    "scaling without a factor": Case("rope_scaling.factor is missing", entries(rope_scaling={"type": "linear"})),
    "scaling with a line end": Case(
        r"rope_scaling.a\\x1b b=1 is not", entries(rope_scaling={"type": "linear", "factor": 2.0, "a\x1b\nb": 1})
    ),
    "a ramp of words": Case("low_freq_factor would be 'x'", entries(rope_scaling={**LLAMA3, "low_freq_factor": "x"})),
    "a ramp without a slope": Case("there is no ramp", entries(rope_scaling={**LLAMA3, "low_freq_factor": 4.0}), early=False),
    "a temperature of words": Case("mscale would be 'x'; a number", entries(rope_scaling={**YARN, "mscale": "x"})),
    "a temperature in a list": Case(
        "attention_factor would be .*; a number", entries(rope_scaling={**YARN, "attention_factor": [1]})
    ),
    # experts
    "a million experts": Case("and 2,000,000 experts, but", entries(num_local_experts=10**6), "mixtral"),
    "an expert too few": Case("no such tensor in this layout", entries(num_local_experts=4), "mixtral"),
    "more chosen than there are": Case("top_k", entries(num_experts_per_tok=6), "mixtral", early=False),
    "chosen by a word": Case(f"top_k would be 'x'; {A_NUMBER}", entries(num_experts_per_tok="x"), "mixtral"),
    "no window": Case(f"window would be -1; {A_NUMBER}", entries(sliding_window=-1), "mixtral"),
    "dense layers by a list": Case("first_k_dense_replace would be", entries(first_k_dense_replace=[]), "deepseek_v2"),
    "two billion dense layers": Case(
        "layers", entries(num_hidden_layers=2**31 - 1, first_k_dense_replace=2**31 - 1), "deepseek_v2"
    ),
    "enormous rotated part": Case("d_rope is 2,000,000,000, but", entries(qk_rope_head_dim=2 * 10**9), "deepseek_v2"),
    "enormous unrotated part": Case("rows are expected", entries(qk_nope_head_dim=2 * 10**9), "deepseek_v2"),
    "enormous state": Case("model.layers.0.mixer", entries(state_size=2**31 - 1, expand=2**31 - 1), "mamba", early=False),
    "decoder of floats": Case(
        f"encoder_layers would be 2.0; {A_NUMBER}", entries(encoder_layers=2.0, decoder_layers=2), "marian"
    ),
    "another decoder": Case("decoder_layers=2.5 is not expressed here", entries(decoder_layers=2.5), "marian"),
    "an encoder-decoder that cannot begin": Case(
        "says which token is bos", entries(decoder_start_token_id=None, bos_token_id=None), "marian", early=False
    ),
    # tokens
    **{
        f"eos {value!r}": Case(
            "config.json: eos_token_id would be .*; a whole number from 0", entries(eos_token_id=value), early=False
        )
        for value in ([[2]], ["</s>"], "2", 2.0, True, -7, 10**30, {"a": 1})
    },
    # index
    "index is a list": Case("index.json: a JSON object is expected", index([])),
    "index has no map": Case("index.json: weight_map is None", index({})),
    "index has an empty map": Case("index.json: weight_map is {}", index({"weight_map": {}})),
    "index with a list": Case("index.json: weight_map is", index({"weight_map": ["a.safetensors"]})),
    "index with a number": Case("index.json: weight_map is", index({"weight_map": {"model.norm.weight": 7}})),
    **{
        f"index names {name[:30]!r}": Case(
            "names files that are not in the folder", index({"weight_map": {"model.norm.weight": name}})
        )
        for name in ("../up.safetensors", "/dev/zero", "nowhere.safetensors", "", "..", "a\0b", "x" * 9000)
    },
    "index is cut": Case("index.json: not readable as JSON", content("model.safetensors.index.json", b'{"weight_map": {')),
    "a tensor in two shards": Case("model.norm.weight is in another of its files too", shards),
    # safetensors
    "weights are empty": Case("model.safetensors: not whole", content("model.safetensors", b"")),
    "weights are cut": Case("not whole", longer("model.safetensors", -9)),
    "weights have a tail": Case("not whole", longer("model.safetensors", 9)),
    "a header of 2**63 bytes": Case("not whole", content("model.safetensors", (2**63).to_bytes(8, "little") + b"{}")),
    "a header that is a list": Case("not whole", content("model.safetensors", (2).to_bytes(8, "little") + b"[]")),
    "a header that is nested": Case("not whole", content("model.safetensors", (9000).to_bytes(8, "little") + b"[" * 9000)),
    "offsets that are negative": Case("not whole", norm(data_offsets=[-192, 0])),
    "offsets beyond the end": Case("not whole", norm(data_offsets=[2**40, 2**40 + 192])),
    "offsets that overlap": Case("not whole", norm(data_offsets=[0, 192])),
    "a shape that is no list": Case("not whole", norm(shape="48")),
    "a shape that overflows": Case("not whole", norm(shape=[2**63, 2**63])),
    "a negative side": Case("not whole", norm(shape=[-48])),
    "no known kind of number": Case("not whole", norm(dtype="F33")),
    "numbers of half the size": Case("not whole", norm(dtype="F16")),
    "weights that are whole numbers": Case("final_norm.weight is no weight", norm(dtype="I32")),
    "weights that are bytes": Case("is no weight", one(lambda t: t.to(torch.float8_e4m3fn))),
    "weights are a pipe": Case("no model.safetensors there", pipe("model.safetensors")),
    "weights are a link away": Case("model.safetensors is a link out of the folder", linked("model.safetensors")),
    "weights are a pickle": Case("pytorch_model.bin is pickled", only_a_pickle),
    "a weight is NaN": Case("q_proj.weight is not finite", one(lambda t: t.fill_(float("nan"))), early=False),
    "a weight is infinite": Case(
        "q_proj.weight is not finite", one(lambda t: t.index_fill(1, torch.tensor([3]), float("inf"))), early=False
    ),
    "a weight too large for fp32": Case("q_proj.weight is not finite", one(lambda t: t.double() + 1e300), early=False),
    "a weight of another shape": Case("is .49, 48., .48, 48. is wanted", one(lambda t: torch.zeros(49, 48)), early=False),
    "a weight without a dimension": Case("is wanted", one(lambda t: torch.tensor(1.0)), early=False),
    "a weight without numbers": Case("is wanted", one(lambda t: torch.zeros(0, 48)), early=False),
    "a weight is missing": Case("missing from these weights", tensors(lambda found: found.pop("model.norm.weight"))),
    "a weight too many": Case(r"evil\\x1b: no such", tensors(lambda found: found.update({"evil\x1b": torch.zeros(1)}))),
    "no weights": Case("0 tensors", tensors(dict.clear)),
    "an expert of another shape": Case(
        "does not become", one(lambda t: torch.zeros(3, 3), "model.layers.0.block_sparse_moe.experts.2.w1.weight"), "mixtral"
    ),
    # tokenizer
    "tokenizer is empty": Case("tokenizer.json: not a tokenizer.json", content("tokenizer.json", b""), early=False),
    "tokenizer is a list": Case("tokenizer.json: not a tokenizer.json", content("tokenizer.json", b"[]"), early=False),
    "tokenizer is cut": Case("not a tokenizer.json", lambda p: os.truncate(p / "tokenizer.json", 300), early=False),
    "tokenizer is binary": Case("not a tokenizer.json", content("tokenizer.json", b"\xff\xfe"), early=False),
    "tokenizer is nested": Case("not a tokenizer.json", content("tokenizer.json", b"[" * 100_000), early=False),
    "tokenizer is enormous": Case("tokenizer.json: has 1,099,511,627,776 bytes", sparse("tokenizer.json", 2**40), early=False),
    "tokenizer is a pipe": Case("no tokenizer.json there", pipe("tokenizer.json")),
    "tokenizer is a link away": Case("tokenizer.json is a link out of the folder", linked("tokenizer.json")),
    "tokenizer is missing": Case("no tokenizer.json there", lambda p: (p / "tokenizer.json").unlink()),
    "a token with a huge number": Case(
        "the number 4,294,967,294", vocabulary(lambda form: form["model"]["vocab"].update({"huge": 2**32 - 2})), early=False
    ),
    "a token with a negative number": Case(
        "not a tokenizer.json", vocabulary(lambda form: form["model"]["vocab"].update({"low": -1})), early=False
    ),
    "tokens beyond the embedding": Case(
        "has 301 tokens, but its model knows 300",
        vocabulary(lambda form: form["model"]["vocab"].update({"more": 300})),
        early=False,
    ),
    "no vocabulary": Case("vocabulary is empty", vocabulary(lambda form: form["model"].update(vocab={})), early=False),
    "a normaliser that is none": Case(
        "not a tokenizer.json",
        vocabulary(lambda form: form.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        early=False,
    ),
}


@pytest.fixture
def broken(whole: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        case = CASES[name]
        place = tmp_path / "folder"
        shutil.copytree(whole(case.family), place)
        case.change(place)
        return place

    return make


def refused(use: Callable[[], object], place: Path, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        use()
    line = str(caught.value)
    assert line.isprintable() and len(line) < 1500
    assert line.startswith(f"weights={place}: ") and line.count(f"weights={place}") == 1
    assert "do not go together" not in line, "an entry was read as what it is not"


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", CASES)
def test_a_broken_folder_is_refused_in_one_line(name: str, broken: Callable[[str], Path]) -> None:
    place, case = broken(name), CASES[name]
    refused(lambda: load(run=None, weights=str(place)), place, case.message)
    if case.early:
        refused(lambda: composed([f"weights={place}"]), place, case.message)


@pytest.mark.parametrize("family", sorted({case.family for case in CASES.values()}))
def test_as_it_was_the_folder_is_read(family: str, whole: Callable[[str], Path]) -> None:
    assert load(run=None, weights=str(whole(family))).model.training is False


@pytest.mark.parametrize("name", ["config is nested", "tokens beyond the embedding", "a weight is NaN"])
def test_a_command_ends_with_one_line_and_code_2(name: str, broken: Callable[[str], Path]) -> None:
    place = broken(name)
    command = [sys.executable, "-m", "runs.sample", f"weights={place}", "prompt=a"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: weights={place}: ") and done.stderr.count("\n") == 1
    assert re.search(CASES[name].message, done.stderr)


def test_a_link_within_the_store_of_a_hub_is_no_link_away(whole: Callable[[str], Path], tmp_path: Path) -> None:
    """As huggingface_hub lays out what it fetched: each version of a folder links to files that versions share."""
    version = tmp_path / "snapshots" / "1f0a"
    shutil.copytree(whole("llama"), version)
    (tmp_path / "blobs").mkdir()
    for file in list(version.iterdir()):
        file.rename(tmp_path / "blobs" / file.name)
        file.symlink_to(Path("../../blobs") / file.name)
    assert load(run=None, weights=str(version)).stop_tokens == [2]


def test_what_failed_in_a_family_is_the_cause_of_its_line(
    monkeypatch: pytest.MonkeyPatch, whole: Callable[[str], Path]
) -> None:
    def mistaken(config: dict[str, Any]) -> list[str]:
        raise TypeError("a slip of ours")

    found = {**families(), "llama": replace(families()["llama"], overrides=mistaken)}
    monkeypatch.setattr("runs.published.family.families", lambda: found)
    with pytest.raises(ConfigError, match=r"its entries do not go together \(TypeError: a slip of ours\)") as caught:
        weights.read_config(whole("llama"))
    assert isinstance(caught.value.__cause__, ConfigError)
    assert isinstance(caught.value.__cause__.__cause__, TypeError)
