"""Whatever a command line says, a run is trained, or refused before training in one line that names what was said."""

from __future__ import annotations

import functools
import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from omegaconf import OmegaConf

from runs.build.groups import KEYS
from runs.build.objects import locate, same
from runs.compose.compose import of_words
from runs.compose.explain import CONF, EXPECTED, explain, leaves
from runs.compose.overrides import group_of, key_of, normal
from runs.job import record
from runs.job.check import check_here
from runs.job.execute import execute
from runs.job.run import Run
from tests.lab import TINY, options

BASE = (*TINY, "train.seq_len=32", "train.batch_size=2", "train.steps=3", "train.eval_batches=1", "study.memory=0.25")
GROUPS = [group for group in KEYS if options(group) and group != "study"]
LEAVES = [leaf for leaf in leaves() if leaf not in ("data.name", "train.compile")]  # one asks the network, one takes minutes
HABITS = {"out", "stack", "layers", *(f"train.{key}" for key in (*record.HABITS, "eval_every", "device", "precision"))}

ODD = [
    *("nan", "inf", "-inf", "-1", "0", "1", "2", "1.5", "1e-30", "1e30", "1e300", f"{2**31}", f"{10**12}", f"{10**40}"),
    *("null", "true", "text", "''", "[]", "{}", "[1,2]", "[a,b]", "[[1],[2]]", "{a:1}", "{1:2}", "{a:{b:[1,{c:2}]}}"),
    *("${seed}", "${size}", "${size.d_model}", "${train.seq_len}", "${foo}", "${foo:1}", "${oc.env:HOME}", "${quotient:3,2}"),
    *("'!!python/object/apply:os.system [ls]'", "!!python/name:os.system", "../../x", "/", ".", "a b", "a=b", "'a,b'", "a,b"),
    *(
        "\u6f22\u5b57",
        "\U0001f525",
        "'\"'",
        "x" * 300,
        "'two\nlines'",
        "(",
        "1_000",
        "0x10",
        "-0.0",
        "+1",
        "~",
        "@",
        "$",
        "%s",
        "\\",
    ),
]
STACKS = [
    *(
        "mha",
        "2*mha",
        "mha,gqa",
        "mha, 2*(gru, mqa)",
        "a",
        "mha+gqa",
        "0*mha",
        "(mha",
        "mha,,gqa",
        "99999*mha",
        "-1*mha",
        "mha*2",
    ),
    *("dense", "null", "2*(2*(2*(2*mamba)))", "\u6f22", "(((((mha)))))", "1000*mha", "gla,gated_deltanet,mamba2,nsa,mla,lstm"),
]
NAMES = [
    "a",
    ".a",
    "..",
    "a/b",
    "../x",
    "'a b'",
    "\U0001f525",
    "x" * 99,
    "x" * 101,
    "null",
    "3",
    "'two\nlines'",
    "'\"'",
    "-",
    "[a]",
]


@functools.cache
def default(leaf: str) -> Any:
    """What an option of conf/ has there, the first that has it."""
    group, _, rest = leaf.partition(".")
    for path in (CONF / "config.yaml", *sorted((CONF / group).glob("*.yaml")), *sorted(CONF.glob("*/*.yaml"))):
        content = OmegaConf.to_container(OmegaConf.load(path))
        for key in (leaf, rest):
            node: Any = content
            for part in key.split("."):
                node = node.get(part) if isinstance(node, dict) else None
            if node is not None:
                return node
    return None


@st.composite
def near(draw: st.DrawFn, leaf: str) -> str:
    """A value like the one that conf/ has."""
    value = default(leaf)
    if isinstance(value, bool):
        return draw(st.sampled_from(["true", "false"]))
    if isinstance(value, int):
        return str(draw(st.sampled_from([value, value + 1, value // 2, value * 2, max(1, value - 1), 1, 2, 3, 4, 8])))
    if isinstance(value, float):
        return repr(value * draw(st.sampled_from([1.0, 0.5, 2.0, 0.1, 10.0])))
    return draw(st.sampled_from(ODD)) if value is None or "${" in str(value) else str(value).replace(" ", "")


def leaf_words(values: Any) -> st.SearchStrategy[str]:
    prefix = st.sampled_from(["", "", "", "", "++", "+"])
    return st.sampled_from(LEAVES).flatmap(lambda leaf: st.builds("{}{}={}".format, prefix, st.just(leaf), values(leaf)))


def typo(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key}x{equals}{value}"


GROUP_WORDS = st.sampled_from([f"{group}={option}" for group in GROUPS for option in options(group) if group != "size"])
PAIRS = st.sampled_from(  # an option and an argument of its own
    [
        (f"{group}={option}", f"{group}.{key}")
        for group in GROUPS
        for option in options(group)
        for key in [leaf.partition(".")[2] for leaf in leaves() if leaf.startswith(f"{group}.")]
        if group not in ("size", "model") and f"\n{key.rpartition('.')[2]}: " in (CONF / group / f"{option}.yaml").read_text()
        if f"{group}.{key}" != "data.name"
    ]
).flatmap(
    lambda pair: st.builds(
        lambda value: [pair[0], f"{pair[1]}={value}"], st.one_of(near(pair[1]), near(pair[1]), st.sampled_from(ODD))
    )
)
TOP = [key for key in KEYS if key not in GROUPS]
ONE = st.one_of(
    GROUP_WORDS,
    GROUP_WORDS,
    leaf_words(near),
    leaf_words(near),
    leaf_words(lambda leaf: st.sampled_from(ODD)),
    leaf_words(near).map(typo),
    st.builds("stack='{}'".format, st.sampled_from(STACKS)),
    st.builds("study.{}={}".format, st.sampled_from(["name", "arm"]), st.sampled_from(NAMES)),
    st.builds("{}={}".format, st.sampled_from([*TOP, *GROUPS]), st.sampled_from(ODD)),
    st.builds("~{}".format, st.sampled_from([*LEAVES, *KEYS])),
    st.builds("layers={{a:['{}']}}".format, st.one_of(GROUP_WORDS, leaf_words(near))),
    st.text(max_size=20),
)
LINES = {
    "an option and an argument": PAIRS,
    "a word": st.lists(ONE, min_size=1, max_size=1),
    "words": st.lists(ONE, min_size=2, max_size=3),
}


def sayable(words: list[str]) -> bool:
    return len({key_of(word) for word in words}) == len(words) and not any(word.startswith("hydra") for word in words)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "text.txt"
    path.write_text("".join(f"{i}: the quick brown fox jumps over the lazy dog {i * i}.\n" for i in range(2000)))
    return path


def line(words: list[str], text: Path) -> list[str]:
    """The words of a small run: on a small text, where they say nothing of the data."""
    said = {key_of(word) for word in words}
    data = () if {"data", "model", "objective"} & {group_of(word) for word in words} else ("data=text", f"data.path={text}")
    return [*(word for word in (*BASE, *data, f"out={text.parent / 'out'}") if key_of(word) not in said), *words]


def composed(words: list[str], text: Path) -> Run:
    return of_words(line(words, text))


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=mark) for mark in ((), pytest.mark.torture) for kind in LINES])
@given(data=st.data())
def test_whatever_is_said_is_trained_or_refused_in_one_line(kind: str, data: st.DataObject, text: Path) -> None:
    words = data.draw(LINES[kind].filter(sayable))
    try:
        run = composed(words, text)
        small = replace(run.settings, steps=min(run.settings.steps, 3))
        check_here(run)
    except EXPECTED as error:
        answer = explain(error)
        note(answer)
        assert answer and "\n" not in answer and names_what_was_said(answer, words)
        return
    summary = execute(replace(run, settings=small, identity=""), peak=(1e9, "none"))
    assert summary["status"] in ("done", "diverged"), summary["error"]
    has_an_effect(words[-1], words, run, text)


def names_what_was_said(answer: str, words: list[str]) -> bool:
    """The key, its last part, its group or its value; or the memory that there is."""
    if "study.memory" in answer:
        return True
    for word in words:
        key, value = key_of(word), word.partition("=")[2]
        parts = (word, repr(word), key, key.rpartition(".")[2], group_of(word), value.strip("'"), *re.findall(r"\w{3,}", value))
        if any(part and " ".join(part.split()) in answer for part in parts):
            return True
    return False


def has_an_effect(word: str, words: list[str], run: Run, text: Path) -> None:
    """Raises AssertionError: a word whose run is that without it, though it says something else than what is there."""
    key, others = key_of(word), [other for other in words if other is not word]
    if key in HABITS or group_of(word) in ("study", "hydra", *(group_of(other) for other in others)):
        return  # of two words on one group the one may say what the other takes back
    try:
        without = composed(others, text)
    except EXPECTED:
        return
    if without.identity == run.identity:
        before, after = value_at(key, line(others, text)), value_at(key, line(words, text))
        assert before is IMPLIED or same(before, after), f"{word} has no effect: {key} was {before!r}"


IMPLIED = object()


def value_at(key: str, words: list[str]) -> Any:
    """What a composed config holds at a key: of a group its option, of an argument that is left out its default."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", overrides=list(map(normal, words)), return_hydra_config=True)
    if key in GROUPS:
        return config.hydra.runtime.choices[key]
    value, owner = OmegaConf.select(config, key), OmegaConf.select(config, key.rpartition(".")[0] or "size")
    if value is None and owner is not None and "_target_" in owner:
        target, name = locate(owner["_target_"], key), key.rpartition(".")[2]
        if name in getattr(target, "implied", {}):
            return IMPLIED
        return inspect.signature(target).parameters[name].default
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
