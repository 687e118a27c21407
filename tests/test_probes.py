"""Each probe is solved by a few lines that know its rule, and by nothing that does not look at the row."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from runs.data import MQAR, Copying, InductionHeads, MarkovChain, ModularAddition, SelectiveCopying
from runs.data.contract import IGNORED
from runs.data.draws import distinct, generator
from runs.data.probes.probe import Probe

Answers = dict[int, int]  # place -> token
Solver = Callable[[list[int]], Answers]


def solve_mqar(pairs: int) -> Solver:
    def solve(row: list[int]) -> Answers:
        value = dict(zip(row[0 : 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
        return {place: value[token] for place, token in enumerate(row) if place >= 2 * pairs and token in value}

    return solve


def solve_selective_copying(row: list[int]) -> Answers:
    marker = row[-1]
    data = [token for token in row if token not in (0, marker)]
    return dict(zip(range(row.index(marker), len(row)), data, strict=True))


def solve_induction(row: list[int]) -> Answers:
    return {len(row) - 1: row[row.index(row[-1]) + 1]}


def solve_copying(row: list[int]) -> Answers:
    text = "".join("abcdefghijklmnopqrstuvwxyz$|.*"[token] for token in row)
    answers = {}
    for match in re.finditer(r"\$([a-z]+)\|", text):
        for i, sign in enumerate(match[1] + "."):
            if match.end() - 1 + len(match[1]) < len(text):  # an example that is cut off is not asked
                answers[match.end() - 1 + i] = "abcdefghijklmnopqrstuvwxyz$|.*".index(sign)
    return answers


def solve_addition(row: list[int]) -> Answers:
    return {i: (row[i - 2] + row[i - 1]) % 97 for i, token in enumerate(row) if token == 97}


PROBES: dict[str, tuple[Probe, Solver, list[int]]] = {
    "mqar": (MQAR(vocab_size=64, pairs=4), solve_mqar(4), [16, 64, 101]),
    "mqar as published": (MQAR(), solve_mqar(8), [128]),
    "selective_copy": (SelectiveCopying(), solve_selective_copying, [32, 63, 256]),
    "induction": (InductionHeads(), solve_induction, [3, 64, 256]),
    "copy": (Copying(), solve_copying, [43, 64, 220]),
    "copy, longer when tested": (Copying(test_min_length=30, test_max_length=40), solve_copying, [83, 100]),
    "copy, each a document": (Copying(test_min_length=30, test_max_length=40, documents=True), solve_copying, [83, 100]),
    "modular_addition": (ModularAddition(), solve_addition, [3, 64, 65, 66]),
}
CASES = [pytest.param(probe, solve, n, id=f"{name}-{n}") for name, (probe, solve, sizes) in PROBES.items() for n in sizes]
WITHOUT_RULE = {"markov": MarkovChain()}  # nothing but probabilities can be known of its answers
EACH = pytest.mark.parametrize(
    "probe",
    [
        pytest.param(probe, id=name)
        for name, probe in ({n: probe for n, (probe, _, _) in PROBES.items()} | WITHOUT_RULE).items()
    ],
)


def asked(row: list[int]) -> Answers:
    return {place: target for place, target in enumerate(row) if target != IGNORED}


@pytest.mark.parametrize(("probe", "solve", "seq_len"), CASES)
def test_who_knows_the_rule_answers_everything(probe: Probe, solve: Solver, seq_len: int) -> None:
    probe.check(seq_len=seq_len)
    batches = [probe.batch(seed=1, step=step, batch_size=20, seq_len=seq_len) for step in range(3)]
    batches += probe.evaluation(n_batches=3, batch_size=20, seq_len=seq_len)
    for batch in batches:
        assert batch.tokens.shape == batch.targets.shape == (20, seq_len)
        for row, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            assert solve(row) == asked(targets)
        assert (batch.targets != IGNORED).any()


@pytest.mark.parametrize(("probe", "solve", "seq_len"), CASES)
def test_tokens_and_targets_are_in_the_vocabulary(probe: Probe, solve: Solver, seq_len: int) -> None:
    batch = probe.batch(seed=0, step=0, batch_size=50, seq_len=seq_len)
    answers = batch.targets[batch.targets != IGNORED]
    for tokens in (batch.tokens, answers):
        assert tokens.dtype == torch.int64
        assert tokens.min() >= 0
        assert tokens.max() < probe.vocab_size
    assert batch.tokens.is_contiguous()
    assert batch.targets.is_contiguous()


@EACH
def test_a_batch_is_a_function_of_seed_and_step(probe: Probe) -> None:
    def tokens(seed: int, step: int) -> Tensor:
        return probe.batch(seed=seed, step=step, batch_size=8, seq_len=100).tokens

    first = tokens(3, 7)
    torch.manual_seed(5)
    np.random.seed(5)
    tokens(0, 0)
    assert torch.equal(tokens(3, 7), first)
    assert not torch.equal(tokens(3, 8), first)
    assert not torch.equal(tokens(4, 7), first)


@EACH
def test_held_out_rows_are_the_same_each_time_and_differ_among_themselves(probe: Probe) -> None:
    first, again = (list(probe.evaluation(n_batches=2, batch_size=8, seq_len=100)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.tokens, b.tokens)
        assert torch.equal(a.targets, b.targets)
    assert not torch.equal(first[0].tokens, first[1].tokens)


@EACH
def test_chance_is_the_best_single_answer(probe: Probe) -> None:
    batches = probe.evaluation(n_batches=40, batch_size=64, seq_len=100)
    answers = torch.cat([batch.targets[batch.targets != IGNORED] for batch in batches])
    counts = torch.bincount(answers, minlength=probe.vocab_size)
    spread = (probe.chance * len(answers)) ** 0.5  # of a count of that mean
    assert counts.max() >= probe.chance * len(answers) - 4 * spread
    assert counts.max() <= probe.chance * len(answers) + 6 * spread


def test_padding_behind_a_held_out_string_is_at_negative_positions() -> None:
    (batch,) = Copying().evaluation(n_batches=1, batch_size=8, seq_len=100)
    assert batch.positions is not None
    padding = batch.tokens == Copying().vocab_size - 1
    assert torch.equal(batch.positions < 0, padding) and padding.any()
    assert torch.equal(batch.positions.where(~padding, -1), torch.arange(100).where(~padding, -1))
    assert Copying().batch(seed=0, step=0, batch_size=2, seq_len=100).positions is None  # those to learn from are packed


@EACH
def test_the_hash_is_that_of_the_definition(probe: Probe) -> None:
    assert len(probe.sha256) == 64
    assert probe.sha256 == type(probe)(**{f: getattr(probe, f) for f in probe.__dataclass_fields__}).sha256  # type: ignore[attr-defined]
    assert len({other.sha256 for other, _, _ in PROBES.values()}) == len(PROBES)


@pytest.mark.parametrize(
    ("probe", "seq_len", "needed"),
    [
        (MQAR(pairs=8), 31, 32),
        (SelectiveCopying(n_data=16), 31, 32),
        (InductionHeads(), 2, 3),
        (Copying(max_length=20), 42, 43),
        (Copying(test_max_length=50), 102, 103),
        (ModularAddition(), 2, 3),
    ],
)
def test_a_row_that_is_too_short_is_refused_with_both_numbers(probe: Probe, seq_len: int, needed: int) -> None:
    with pytest.raises(ValueError, match=f"train.seq_len={seq_len} is too short, at least {needed} is needed"):
        probe.check(seq_len=seq_len)
    with pytest.raises(ValueError, match="too short"):
        probe.batch(seed=0, step=0, batch_size=2, seq_len=seq_len)
    probe.check(seq_len=needed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MQAR(vocab_size=16, pairs=8), "pairs=8: from 1 to .* = 7"),
        (lambda: MQAR(pairs=0), "pairs=0"),
        (lambda: MQAR(power=0.0), "power=0.0: more than 0"),
        (lambda: SelectiveCopying(vocab_size=3), "vocab_size=3: at least 4"),
        (lambda: SelectiveCopying(n_data=0), "n_data=0: at least 1"),
        (lambda: InductionHeads(vocab_size=2), "vocab_size=2: at least 3"),
        (lambda: Copying(letters=1), "letters=1"),
        (lambda: Copying(min_length=9, max_length=8), "min_length=9, max_length=8"),
        (lambda: Copying(test_min_length=30), "test_min_length=30, test_max_length=20"),
        (lambda: MarkovChain(vocab_size=1), "vocab_size=1: at least 2"),
        (lambda: MarkovChain(concentration=0.0), "concentration=0.0: at least 0.1"),
        (lambda: ModularAddition(modulus=1), "modulus=1: at least 2"),
        (lambda: ModularAddition(train_share=1.0), "train_share=1.0: 9409 of 9409 pairs"),
        (lambda: ModularAddition(train_share=0.0), "train_share=0.0: 0 of 9409 pairs"),
    ],
)
def test_an_impossible_definition_is_refused(make: Callable[[], Probe], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_mqar_is_laid_out_as_zoology_defines_it() -> None:
    batch = MQAR(vocab_size=64, pairs=4).batch(seed=0, step=0, batch_size=200, seq_len=64)
    keys, values = batch.tokens[:, 0:8:2], batch.tokens[:, 1:8:2]
    assert keys.min() == 1
    assert keys.max() == 31
    assert values.min() == 32
    assert values.max() == 63
    assert (keys.sort(dim=1).values.diff(dim=1) > 0).all()
    assert (values.sort(dim=1).values.diff(dim=1) > 0).all()
    places = batch.targets != IGNORED
    assert (places.sum(1) == 4).all()
    assert not places[:, :8].any()
    assert not places[:, 1::2].any()
    assert (batch.tokens[:, 8:][~places[:, 8:]] == 0).all()


def test_mqar_gaps_follow_the_power_law_one_after_the_other() -> None:
    n, space, power = 40_000, 8, 0.3
    batch = MQAR(vocab_size=64, pairs=2, power=power).batch(seed=0, step=0, batch_size=n, seq_len=4 + 2 * space)
    gap = torch.stack([(batch.tokens[:, 4:] == batch.tokens[:, [k]]).long().argmax(1) // 2 for k in (0, 2)])
    p = torch.arange(1, space + 1, dtype=torch.float64) ** (power - 1)
    p = p / p.sum()
    joint = p[:, None] * p / (1 - p)[:, None] * (1 - torch.eye(space))  # the second is drawn from what the first leaves
    found = torch.bincount(gap[0] * space + gap[1], minlength=space**2).view(space, space) / n
    assert (found - joint).abs().max() < 4 * (joint.max() / n) ** 0.5


def test_mqar_filler_may_be_any_token() -> None:
    plain, filled = (
        MQAR(vocab_size=64, pairs=4, random_non_queries=r).batch(seed=0, step=0, batch_size=200, seq_len=64)
        for r in (False, True)
    )
    given = plain.tokens != 0
    assert torch.equal(filled.targets, plain.targets)
    assert torch.equal(filled.tokens[given], plain.tokens[given])
    assert torch.bincount(filled.tokens[~given], minlength=64).min() > 0


def test_selective_copying_spreads_its_data_everywhere() -> None:
    batch = SelectiveCopying(n_data=4).batch(seed=0, step=0, batch_size=500, seq_len=24)
    data = (batch.tokens[:, :20] != 0).sum(0)
    assert data.sum() == 4 * 500
    assert data.min() > 60  # 100 on average
    assert (batch.tokens[:, 20:] == 15).all()
    assert batch.tokens[:, :20].max() == 14


def test_induction_heads_show_the_special_token_twice() -> None:
    batch = InductionHeads().batch(seed=0, step=0, batch_size=500, seq_len=12)
    special = batch.tokens == 15
    assert (special.sum(1) == 2).all()
    assert special[:, -1].all()
    assert special[:, :10].any(0).all()
    assert not special[:, 10].any()


def test_copying_draws_every_length_and_tests_on_others() -> None:
    probe = Copying(min_length=2, max_length=4, test_min_length=6, test_max_length=7)
    stop, bar, padding = 28, 27, 29
    batch = probe.batch(seed=0, step=0, batch_size=50, seq_len=60)
    lengths = {len(word) for row in batch.tokens.tolist() for word in re.findall(r"\$([a-z]+)\|", spelled(row))}
    assert lengths == {2, 3, 4}
    assert not (batch.tokens == padding).any()
    assert ((batch.tokens == bar).sum(1) >= 60 // 11).all()
    (held_out,) = probe.evaluation(n_batches=1, batch_size=50, seq_len=60)
    assert {len(spelled(row).split("|")[0]) - 1 for row in held_out.tokens.tolist()} == {6, 7}
    assert ((held_out.tokens == stop).sum(1) == 1).all()
    assert (held_out.tokens[:, -1] == padding).all()


def test_copying_in_documents_trains_no_position_that_only_longer_strings_reach() -> None:
    probe = Copying(min_length=2, max_length=4, test_min_length=6, test_max_length=7, documents=True)
    plain, batch = (one.batch(seed=0, step=0, batch_size=50, seq_len=60) for one in (replace(probe, documents=False), probe))
    assert torch.equal(batch.tokens, plain.tokens) and torch.equal(batch.targets, plain.targets)
    assert batch.positions is not None and int(batch.positions.max()) == 2 * 4 + 2
    assert torch.equal(batch.positions == 0, batch.tokens == 26)  # at each $
    (held_out,) = probe.evaluation(n_batches=1, batch_size=50, seq_len=60)
    assert held_out.positions is not None and int(held_out.positions.max()) == 2 * 7 + 2


def spelled(row: list[int]) -> str:
    return "".join("abcdefghijklmnopqrstuvwxyz$|.*"[token] for token in row)


def test_modular_addition_holds_out_a_fixed_part_of_the_table() -> None:
    probe = ModularAddition(modulus=11, train_share=0.5)

    def pairs(batch_tokens: list[Tensor]) -> set[tuple[int, ...]]:
        return {tuple(pair) for tokens in batch_tokens for pair in tokens.reshape(-1, 3)[:, :2].tolist()}

    learnt = pairs([probe.batch(seed=seed, step=0, batch_size=50, seq_len=30).tokens for seed in range(5)])
    held_out = pairs([batch.tokens for batch in probe.evaluation(n_batches=5, batch_size=50, seq_len=30)])
    assert not learnt & held_out
    assert len(learnt) == 60
    assert len(held_out) == 61
    other = ModularAddition(modulus=11, train_share=0.5, split_seed=1)
    assert pairs([batch.tokens for batch in other.evaluation(n_batches=5, batch_size=50, seq_len=30)]) != held_out


def test_modular_addition_makes_each_problem_a_document() -> None:
    batch = ModularAddition().batch(seed=0, step=0, batch_size=2, seq_len=8)
    assert batch.positions is not None
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 2, 0, 1]] * 2
    assert all(
        probe.batch(seed=0, step=0, batch_size=2, seq_len=64).positions is None
        for probe in (MQAR(), InductionHeads(), Copying())
    )


def test_a_chain_goes_on_as_its_matrix_says_from_a_stationary_start() -> None:
    probe = MarkovChain(vocab_size=6)
    matrix, stationary = torch.from_numpy(probe.transitions), torch.from_numpy(probe.stationary)
    torch.testing.assert_close(matrix.sum(1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(stationary @ matrix, stationary)
    batch = probe.batch(seed=0, step=0, batch_size=4000, seq_len=10)
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    for place in (0, 9):  # as often at the start as later on
        share = torch.bincount(batch.tokens[:, place], minlength=6) / 4000
        assert ((share - stationary).abs() <= 4 * (stationary * (1 - stationary) / 4000) ** 0.5).all()
    pairs = torch.bincount(6 * batch.tokens.flatten() + batch.targets.flatten(), minlength=36).view(6, 6).double()
    n = pairs.sum(1, keepdim=True)
    assert ((pairs / n - matrix).abs() <= 4.5 * (matrix * (1 - matrix) / n) ** 0.5 + 1 / n).all()
    assert not np.array_equal(probe.transitions, MarkovChain(vocab_size=6, matrix_seed=1).transitions)


@pytest.mark.parametrize(("count", "below"), [(1, 1), (3, 3), (4, 9), (5, 1000)])
def test_distinct_numbers_differ_and_are_equally_likely(count: int, below: int) -> None:
    drawn = distinct(generator(0, 0), rows=20_000, count=count, below=below)
    assert drawn.shape == (20_000, count)
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    for column in drawn.T:  # the order is random too
        counts = np.bincount(column, minlength=below)
        assert len(counts) == below
        assert np.abs(counts - 20_000 / below).max() <= 6 * (20_000 / below) ** 0.5
