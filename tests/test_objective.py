"""Objectives: what they make of the data, what they ask, and that each is learnt at toy size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arch.contracts import Memory, documents, real
from arch.init import initialise
from arch.mixer import CrossAttention
from runs.data import MarkovChain
from runs.data.contract import IGNORED, Batch, Data
from runs.data.draws import HELD_OUT, generator
from runs.objective import CausalLM, CausalLMDrawn, Classification, MaskedLM, Seq2Seq, Task
from runs.objective.classification import SingleSegment
from runs.objective.masked_text import MaskedText
from runs.objective.pool import pooled
from runs.training.evaluation import evaluate, losses, pieces, weighted
from runs.training.fit import Progress, Settings, fit
from runs.training.optim import adamw
from runs.training.schedule import constant
from tests.lab import TINY, config, model_of

LETTERS, TOPICS = 24, 4


class Made:
    """Rows made up from a generator; a subclass says how."""

    vocab_size, sha256, token_bytes = LETTERS, "0" * 64, None
    tokenizer: Any = None

    def rows(self, rng: np.random.Generator, b: int, s: int) -> Batch:
        raise NotImplementedError

    def check(self, *, seq_len: int) -> None: ...

    def batch(self, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
        return self.rows(generator(seed, step), batch_size, seq_len)

    def evaluation(self, *, n_batches: int, batch_size: int, seq_len: int) -> Iterator[Batch]:
        for i in range(n_batches):
            yield self.rows(generator(HELD_OUT - 1, i), batch_size, seq_len)


class Topics(Made):
    """Each row goes up by one letter at a time inside the six letters of its topic, which is its label too."""

    n_classes = TOPICS

    def rows(self, rng: np.random.Generator, b: int, s: int) -> Batch:
        topic, start = rng.integers(0, TOPICS, b), rng.integers(0, 6, b)
        text = torch.from_numpy(6 * topic[:, None] + (start[:, None] + np.arange(s + 1)) % 6)
        return Batch(text[:, :-1], text[:, 1:], labels=torch.from_numpy(topic))


class Backwards(Made):
    """A word of two to four letters, padding after it; the target is the word reversed."""

    bos, eos, pad = range(LETTERS, LETTERS + 3)
    vocab_size = LETTERS + 3

    def rows(self, rng: np.random.Generator, b: int, s: int) -> Batch:
        source, tokens, targets = (np.full((b, s), fill) for fill in (self.pad, self.pad, IGNORED))
        places, written = np.full((b, s), -1), np.full((b, s), -1)
        for row, n in enumerate(rng.integers(2, 5, b)):
            word = rng.integers(0, LETTERS, n)
            source[row, :n], places[row, :n] = word, np.arange(n)
            tokens[row, : n + 1], written[row, : n + 1] = [self.bos, *word[::-1]], np.arange(n + 1)
            targets[row, : n + 1] = [*word[::-1], self.eos]
        row = [torch.from_numpy(table) for table in (tokens, targets, written, source, places)]
        return Batch(row[0], row[1], row[2], source=row[3], source_positions=row[4])


def made_task(objective: Any, data: Data, *words: str) -> tuple[Task, Data]:
    """A tiny model with the objective's heads, drawn from a seed, and the data as the objective lays it out."""
    laid_out = objective.data(data, seq_len=16)
    task = objective.task(model_of(config(*TINY, *words), laid_out.vocab_size), laid_out)
    initialise(nn.ModuleDict({"heads": task.heads}), seed=0)
    return task, laid_out


def learnt(task: Task, data: Data, *, steps: int, lr: float = 1e-2, accumulate: int = 1) -> dict[str, float]:
    """The held-out metrics after some steps."""

    class Nobody:
        def log(self, row: dict[str, Any]) -> None: ...
        def save(self, progress: Progress) -> None: ...
        def asked_to_stop(self) -> bool:
            return False

    numbers: dict[str, Any] = {"clip": 1.0, "checkpoint_every": None, "load_balance": 0.0, "router_z": 0.0}
    sizes = {"steps": steps, "batch_size": 32, "seq_len": 16, "accumulate": accumulate}
    outcome = fit(
        task=task,
        data=data,
        optimiser=adamw(task, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
        schedule=constant(),
        settings=Settings(**numbers, **sizes, log_every=steps, eval_every=steps, eval_batches=8),
        recorder=Nobody(),
        device=torch.device("cpu"),
        bf16=False,
        seed=0,
    )
    assert outcome.status == "done", outcome.error
    return outcome.metrics


# what is drawn --------------------------------------------------------------------------------------------------------


def test_the_distance_between_what_is_drawn_and_the_source_is_that_of_all_probabilities() -> None:
    chain = MarkovChain(vocab_size=5)
    by_hand = {
        "as it is": (CausalLMDrawn(), lambda q: q),
        "sharper": (CausalLMDrawn(temperature=0.5), lambda q: q**2 / (q**2).sum()),
        "the likeliest": (CausalLMDrawn(top_k=1), lambda q: (q == q.max()).double()),
        "the nucleus": (CausalLMDrawn(top_p=0.5), nucleus),
    }
    for name, (objective, change) in by_hand.items():
        task = objective.task(model_of(config(*TINY), 7), objective.data(chain, seq_len=16))  # two tokens that never come
        (batch,) = chain.evaluation(n_batches=1, batch_size=3, seq_len=16)
        found = evaluate(task, chain, n_batches=1, batch_size=3, seq_len=16, device=torch.device("cpu"))
        with torch.no_grad():
            q = task.eval()(batch)[""].logits().double().softmax(-1).flatten(0, 1)
        source = np.pad(chain.transitions, ((0, 0), (0, 2)))[batch.tokens.flatten()]
        expected = sum(float((change(row) - torch.from_numpy(p)).abs().sum()) / 2 for row, p in zip(q, source, strict=True))
        assert found["tv"] == pytest.approx(expected / 48, rel=1e-4), name


def nucleus(q: Tensor) -> Tensor:
    """The fewest tokens that have half of it together."""
    order = q.argsort(descending=True)
    kept = order[: int((q[order].cumsum(0) < 0.5).sum()) + 1]
    inside = torch.zeros_like(q).scatter(0, kept, q[kept])
    return inside / inside.sum()


def test_a_chain_that_is_learnt_is_drawn_from_best_as_it_is() -> None:
    found = {}
    for name, settings in {"plain": {}, "sharper": {"temperature": 0.5}}.items():
        task, data = made_task(CausalLMDrawn(**settings), MarkovChain(vocab_size=8), "position=none")
        found[name] = learnt(task, data, steps=60)
    assert found["plain"]["loss"] == found["sharper"]["loss"]  # what is drawn changes no training
    assert found["plain"]["tv"] < 0.15 < found["sharper"]["tv"]


# masked language models -----------------------------------------------------------------------------------------------


def masked(pairs: bool = True, rate: float = 0.15, batch_size: int = 400, seq_len: int = 103) -> tuple[MaskedText, Batch]:
    data = MaskedText(Topics(), rate=rate, pairs=pairs)
    return data, data.batch(seed=0, step=0, batch_size=batch_size, seq_len=seq_len)


def original(batch: Batch) -> Tensor:
    """The rows before anything was hidden."""
    return torch.where(batch.targets == IGNORED, batch.tokens, batch.targets)


@pytest.mark.parametrize("pairs", [True, False])
def test_each_row_is_asked_for_its_share_of_tokens_and_never_for_a_special_one(pairs: bool) -> None:
    data, batch = masked(pairs)
    predicted = batch.targets != IGNORED
    assert set(predicted.sum(1).tolist()) == {15}
    assert int(batch.targets[predicted].max()) < LETTERS
    row = original(batch)
    special = torch.isin(row, torch.tensor(list(data.specials.values())))
    assert set(special.sum(1).tolist()) == {data.n_special}
    assert not (predicted & special).any()
    share = predicted.float().mean(0)[1:-1]  # at each position: none is preferred
    assert share.min() > 0.05 and share.max() < 0.25


def test_of_what_is_asked_for_most_is_hidden_some_replaced_some_left() -> None:
    data, batch = masked()
    predicted = batch.targets != IGNORED
    shown, right = batch.tokens[predicted], batch.targets[predicted]
    n = len(right)
    hidden, left = (shown == data.specials["mask"]), (shown == right)
    deviation = math.sqrt(0.8 * 0.2 / n)
    assert abs(hidden.float().mean() - 0.8) < 4 * deviation
    assert abs(left.float().mean() - (0.1 + 0.1 / LETTERS)) < 4 * deviation  # another token may be the same
    other = shown[~hidden & ~left]
    assert set(other.tolist()) == set(range(LETTERS))
    assert torch.equal(batch.tokens[~predicted], original(batch)[~predicted])


def test_the_second_segment_follows_half_of_the_time_and_the_label_says_when() -> None:
    data, batch = masked()
    row, types, labels = original(batch), batch.types, batch.labels
    assert types is not None and labels is not None
    cls, sep = data.specials["cls"], data.specials["sep"]
    assert (row[:, 0] == cls).all() and (row[:, -1] == sep).all()
    assert abs(labels.float().mean() - 0.5) < 0.1
    for tokens, kinds, label in zip(row, types, labels, strict=True):
        middle = int((tokens == sep).nonzero()[0])
        assert kinds.tolist() == [0] * (middle + 1) + [1] * (103 - middle - 1)
        first, second = tokens[1:middle], tokens[middle + 1 : -1]
        assert len(first) >= 25 and len(second) >= 25
        last = int(first[-1])
        follows = int(second[0]) == last - last % 6 + (last + 1) % 6
        assert follows or label == 1
        if label == 1 and int(second[0]) // 6 == last // 6:
            continue  # another row of the same topic
        assert follows == (label == 0)


def test_masks_are_a_function_of_seed_and_step_alone() -> None:
    data, batch = masked()
    torch.manual_seed(1)
    again = MaskedText(Topics(), rate=0.15, pairs=True).batch(seed=0, step=0, batch_size=400, seq_len=103)
    assert all(a is None or torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    for seed, step in ((0, 1), (1, 0)):
        other = data.batch(seed=seed, step=step, batch_size=400, seq_len=103)
        assert not torch.equal(other.targets != IGNORED, batch.targets != IGNORED)
    held_out = [list(data.evaluation(n_batches=2, batch_size=4, seq_len=40)) for _ in range(2)]
    assert torch.equal(held_out[0][1].tokens, held_out[1][1].tokens)


def test_special_tokens_are_the_tokenizers_own_where_it_has_them() -> None:
    class Some:
        specials = {"cls": 3, "mask": 5}  # noqa: RUF012

    data = Topics()
    data.tokenizer = Some()
    own = MaskedText(data, rate=0.5, pairs=False)
    assert own.specials == {"pad": LETTERS, "cls": 3, "sep": LETTERS + 1, "mask": 5}
    assert own.vocab_size == LETTERS + 2
    batch = own.batch(seed=0, step=0, batch_size=64, seq_len=40)
    predicted = batch.targets != IGNORED
    assert not torch.isin(batch.targets[predicted], torch.tensor([3, 5])).any()
    assert 3 not in batch.tokens[:, 1:][predicted[:, 1:]]
    assert MaskedText(Topics(), rate=0.5, pairs=False).vocab_size == LETTERS + 4


@pytest.mark.parametrize(
    "words", [["model=bert_base", "size=micro"], ["model=encoder", "position=rotary"]], ids=["bert", "plain"]
)
def test_hidden_tokens_and_pairs_are_learnt(words: list[str]) -> None:
    task, data = made_task(MaskedLM(), Topics(), *words)
    metrics = learnt(task, data, steps=150, lr=3e-3)
    assert metrics["loss"] < 0.6 * math.log(LETTERS)
    assert metrics["nsp_accuracy"] > 0.7  # at most 7/8: a quarter of the others are of the same topic
    assert metrics["nsp_loss"] < math.log(2) and "bits_per_byte" not in metrics


def test_logits_are_those_of_the_places_that_are_asked_for() -> None:
    task, data = made_task(MaskedLM(), Topics(), "model=bert_base", "size=micro")
    batch = data.batch(seed=0, step=0, batch_size=4, seq_len=40)
    task.eval()
    with torch.no_grad():
        x = task.model(batch.tokens, types=batch.types)
        every = task.heads["mlm"](x, task.model.embedding.weight)
        torch.testing.assert_close(task(batch)[""].logits().flatten(0, 1), every[batch.targets != IGNORED])
    assert torch.equal(task.targets(batch)[""].flatten(), batch.targets[batch.targets != IGNORED])


def test_without_pairs_nothing_is_asked_of_them() -> None:
    task, data = made_task(MaskedLM(nsp_weight=0.0), Topics(), "model=bert_base", "size=micro")
    batch = data.batch(seed=0, step=0, batch_size=2, seq_len=16)
    assert set(task(batch)) == set(task.targets(batch)) == {""}
    assert list(task.heads) == ["mlm"] and batch.labels is None


@pytest.mark.parametrize("pairs", [True, False])
def test_held_out_rows_are_asked_at_a_rate_of_their_own_whatever_that_of_training(pairs: bool) -> None:
    def held_out(rate: float, own: float | None) -> Batch:
        rows = MaskedText(Topics(), rate=rate, held_out_rate=own, pairs=pairs)
        (batch,) = rows.evaluation(n_batches=1, batch_size=8, seq_len=43)
        return batch

    one, other, as_trained = held_out(0.4, 0.1), held_out(0.1, None), held_out(0.4, None)
    assert torch.equal(one.tokens, other.tokens) and torch.equal(one.targets, other.targets)
    assert (as_trained.targets != IGNORED).sum() == 4 * (one.targets != IGNORED).sum()


def test_a_loss_at_a_rate_of_its_own_is_that_of_all_held_out_targets() -> None:
    sizes = {"n_batches": 2, "batch_size": 8, "seq_len": 40}
    found = []
    for rate, own in ((0.1, 0.5), (0.5, None), (0.8, 0.5)):
        task, data = made_task(MaskedLM(mask_rate=rate, held_out_rate=own), Topics(), "model=bert_base", "size=micro")
        found.append(evaluate(task, data, **sizes, device=torch.device("cpu")))
        batch = data.batch(seed=0, step=0, batch_size=4, seq_len=40)
        assert task(batch)[""].logits().shape[1] == (batch.targets != IGNORED).sum(1)[0] == round(rate * 37)
    assert found[0] == found[1] == found[2]


def test_an_encoder_of_causal_mixers_learns_hidden_tokens_from_the_left_alone() -> None:
    words = ("model=encoder", "causal=true", "position=rotary")
    task, data = made_task(MaskedLM(nsp_weight=0.0), Topics(), *words)
    metrics = learnt(task, data, steps=100, lr=3e-3)
    assert metrics["loss"] < 0.8 * math.log(LETTERS)
    batch = data.batch(seed=0, step=0, batch_size=4, seq_len=16)
    changed = batch._replace(tokens=torch.cat((batch.tokens[:, :8], batch.tokens[:, 8:].flip(1)), 1))
    with torch.no_grad():
        one, other = (task.model.eval()(rows.tokens) for rows in (batch, changed))
    torch.testing.assert_close(one[:, :8], other[:, :8])
    assert not torch.allclose(one[:, 8:], other[:, 8:])


# sequence to sequence -------------------------------------------------------------------------------------------------


def test_a_word_is_written_backwards() -> None:
    task, data = made_task(Seq2Seq(), Backwards(), "model=encoder_decoder")
    metrics = learnt(task, data, steps=100)
    unigram = (3 * math.log(LETTERS) + 1) / 4  # three letters and a sign at the end, on average
    assert metrics["loss"] < 0.25 * unigram and metrics["accuracy"] > 0.8


def test_padding_of_the_source_and_the_target_changes_nothing() -> None:
    task, data = made_task(Seq2Seq(), Backwards(), "model=transformer_base", "size=micro")
    short = data.batch(seed=0, step=0, batch_size=8, seq_len=5)
    long = data.batch(seed=0, step=0, batch_size=8, seq_len=16)
    with torch.no_grad():
        torch.testing.assert_close(task.eval()(short)[""].logits(), task(long)[""].logits()[:, :5])


# classification -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (Classification(), ["model=decoder"]),
        (Classification(pool="mean"), ["model=gru"]),
        (Classification(causal=False), ["model=bert_base", "size=micro"]),
        (Classification(causal=False, pool="mean"), ["model=encoder"]),
    ],
    ids=["last", "mean", "pooler", "both sides"],
)
def test_classes_are_learnt(objective: Classification, words: list[str]) -> None:
    task, data = made_task(objective, Topics(), *words)
    metrics = learnt(task, data, steps=40)
    assert set(metrics) == {"loss", "accuracy"}
    assert metrics["accuracy"] > 0.8 and metrics["loss"] < 0.5 * math.log(TOPICS)


def test_the_language_models_question_is_asked_on_the_same_rows() -> None:
    task, data = made_task(Classification(lm_weight=0.5), Topics(), "model=decoder")
    batch = data.batch(seed=0, step=0, batch_size=4, seq_len=16)
    logits = task.model(batch.tokens)
    expected = cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    ((piece, counts),) = pieces(task, batch, 1, torch.device("cpu"))
    parts = losses(task, piece, counts)
    torch.testing.assert_close(parts["lm"], expected)
    torch.testing.assert_close(weighted(task, parts), parts[""] + 0.5 * expected)
    metrics = learnt(task, data, steps=40)
    assert metrics["lm_loss"] < 0.5 * math.log(LETTERS) and metrics["accuracy"] > 0.8


def test_the_last_real_token_speaks_for_a_padded_row() -> None:
    x = torch.arange(12.0).view(2, 6, 1)
    positions = torch.tensor([[0, 1, 2, -1, -1, -1], [-2, -1, 0, 1, 2, 3]])
    assert pooled(nn.Identity(), x, positions, "last").flatten().tolist() == [2, 11]
    assert pooled(nn.Identity(), x, positions, "mean").flatten().tolist() == [1, 9.5]
    assert pooled(nn.Identity(), x, positions, "first").flatten().tolist() == [0, 8]
    assert pooled(nn.Identity(), x, None, "last").flatten().tolist() == [5, 11]
    assert pooled(nn.Identity(), x, None, "mean").flatten().tolist() == [2.5, 8.5]


def test_padding_is_a_document_of_its_own_wherever_it_stands() -> None:
    positions = torch.tensor([[0, 1, 2, -1, -1], [-2, -1, 0, 1, 2], [-1, 0, -1, 0, 1], [0, -1, -1, -1, -1]])
    expected = [[1, 1, 1, -1, -1], [-1, -1, 1, 1, 1], [-1, 1, -1, 2, 2], [1, -1, -1, -1, -1]]
    assert documents(positions).tolist() == expected
    assert real(positions).tolist() == [[d > 0 for d in row] for row in expected]
    mixer = CrossAttention(d_model=4, n_heads=1)
    mask = mixer.project(Memory(x=torch.zeros(4, 5, 4), positions=positions)).mask
    assert mask is not None and torch.equal(mask[:, 0, 0], real(positions))


def test_an_encoder_reads_a_class_off_a_token_of_its_own() -> None:
    data = SingleSegment(Topics())
    batch = data.batch(seed=0, step=0, batch_size=4, seq_len=16)
    plain = Topics().batch(seed=0, step=0, batch_size=4, seq_len=14)
    assert torch.equal(batch.tokens[:, 1:-1], plain.tokens)
    assert set(batch.tokens[:, 0].tolist()) == {data.specials["cls"]}
    assert set(batch.tokens[:, -1].tolist()) == {data.specials["sep"]}
    assert data.specials == MaskedText(Topics(), rate=0.15, pairs=True).specials
    assert Classification(causal=False).data(Topics(), seq_len=16).vocab_size == LETTERS + 4


class Short(Topics):
    """Topics whose rows end early."""

    def rows(self, rng: np.random.Generator, b: int, s: int) -> Batch:
        batch, length = super().rows(rng, b, s), torch.from_numpy(rng.integers(2, s, b))[:, None]
        place = torch.arange(s)
        return batch._replace(positions=torch.where(place < length, place, -1))


def test_a_frame_closes_behind_the_text_and_before_the_padding() -> None:
    data = SingleSegment(Short())
    batch, plain = (d.batch(seed=0, step=0, batch_size=8, seq_len=n) for d, n in ((data, 16), (Short(), 14)))
    assert batch.positions is not None and plain.positions is not None
    for row, positions, text, inside in zip(batch.tokens, batch.positions, plain.tokens, plain.positions >= 0, strict=True):
        words, n = text[inside].tolist(), int(inside.sum())
        cls, sep, pad = (data.specials[role] for role in ("cls", "sep", "pad"))
        assert row.tolist() == [cls, *words, sep, *[pad] * (14 - n)]
        assert positions.tolist() == [*range(n + 2), *[-1] * (14 - n)]


@pytest.mark.parametrize("pool", ["first", "mean", "last"])
def test_the_class_of_a_padded_row_is_that_of_its_text(pool: Any) -> None:
    task, data = made_task(Classification(causal=False, pool=pool), Short(), "model=encoder", "position=rotary")
    batch = data.batch(seed=0, step=0, batch_size=8, seq_len=16)
    assert batch.positions is not None
    with torch.no_grad():
        logits = task.eval()(batch)[""].logits()
        for row, inside in enumerate(batch.positions >= 0):
            alone = Batch(batch.tokens[row, inside][None], batch.targets[row, inside][None])
            torch.testing.assert_close(task(alone)[""].logits()[0], logits[row], atol=1e-5, rtol=1e-4)


# all of them ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "words"), [(MaskedLM(), ["model=bert_base", "size=micro"]), (Classification(lm_weight=0.5), [])]
)
def test_pieces_give_the_gradient_of_the_whole_batch(objective: Any, words: list[str]) -> None:
    gradients = []
    for n in (1, 4):
        task, data = made_task(objective, Topics(), *words)
        batch = data.batch(seed=0, step=0, batch_size=8, seq_len=16)
        targets = batch.targets.clone()
        targets[:3, :8] = IGNORED  # pieces have unequal numbers of targets
        for piece, counts in pieces(task.double(), batch._replace(targets=targets), n, torch.device("cpu")):
            parts = losses(task, piece, counts)
            weighted(task, parts).backward()
        gradients.append({name: p.grad for name, p in task.named_parameters()})
    for name, gradient in gradients[0].items():
        if gradient is not None:
            torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-5, msg=name)  # logits are fp32


def test_what_is_held_out_is_measured_as_a_mean_over_all_targets() -> None:
    task, data = made_task(MaskedLM(), Topics(), "model=bert_base", "size=micro")
    sizes = {"n_batches": 3, "batch_size": 4, "seq_len": 16}
    metrics = evaluate(task, data, **sizes, device=torch.device("cpu"))
    task.eval()
    logits, targets = [], []
    with torch.no_grad():
        for batch in data.evaluation(**sizes):
            logits.append(task(batch)[""].logits().flatten(0, 1))
            targets.append(task.targets(batch)[""].flatten())
    expected = cross_entropy(torch.cat(logits), torch.cat(targets), ignore_index=IGNORED)
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert set(metrics) == {"loss", "accuracy", "nsp_loss", "nsp_accuracy"}


@pytest.mark.parametrize(
    ("objective", "data", "message"),
    [
        (Seq2Seq(), Topics(), "the rows of Topics have no source: take data=docstrings"),
        (Classification(), Backwards(), "the rows of Backwards have no labels: take data=packages"),
        (MaskedLM(), Backwards(), "the rows of Backwards are examples: take data=python_source"),
    ],
)
def test_data_without_what_is_asked_for_is_refused(objective: Any, data: Data, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objective.data(data, seq_len=16)


@pytest.mark.parametrize(
    ("objective", "model", "message"),
    [
        (CausalLM(), "encoder", "objective=causal_lm trains a model of the kind Decoder, .* Encoder: take objective=masked_lm"),
        (MaskedLM(), "decoder", "objective=masked_lm .* kind Encoder, .* Decoder: take objective=causal_lm"),
        (Seq2Seq(), "decoder", "objective=seq2seq .* kind EncoderDecoder, .* Decoder: take objective=causal_lm"),
        (Classification(), "encoder_decoder", "Decoder or Encoder, .* EncoderDecoder: take objective=seq2seq"),
        (
            Classification(lm_weight=0.5),
            "encoder",
            "objective=classification_lm .* kind Decoder, .* Encoder: take objective=masked",
        ),
    ],
)
def test_a_model_of_another_kind_is_refused(objective: Any, model: str, message: str) -> None:
    built = model_of(config(*TINY, f"model={model}"), LETTERS)
    with pytest.raises(ValueError, match=message):
        objective.task(built, Topics())


LEFT_TO_RIGHT = "no mixer of this model sees later tokens"
LEAK = r"predicts the next token, but this decoder sees it \(Attention is not causal\)"


@pytest.mark.parametrize(
    ("objective", "words", "message"),
    [
        (Classification(pool="first"), ["model=decoder"], f"pool=first: {LEFT_TO_RIGHT}, .*: take objective.pool=last"),
        (Classification(causal=False), ["model=encoder", "mixer=gru"], f"pool=first: {LEFT_TO_RIGHT}"),
        (Classification(causal=False), ["model=encoder", "mixer=mla"], f"pool=first: {LEFT_TO_RIGHT}"),
        (MaskedLM(), ["model=encoder", "mixer=mamba"], f"nsp_weight=1.0: .*{LEFT_TO_RIGHT}: take objective.nsp_weight=0"),
        (Classification(lm_weight=0.5), ["causal=false"], f"objective=classification_lm {LEAK}"),
        (CausalLM(), ["causal=false"], f"objective=causal_lm {LEAK}"),
        (CausalLM(), ["pattern=sliding_window", "pattern.causal=false"], f"objective=causal_lm {LEAK}"),
        (CausalLM(), ["causal=false", "stack='gru, mha'"], f"objective=causal_lm {LEAK}"),
        (Seq2Seq(), ["model=encoder_decoder", "pattern.causal=false"], f"objective=seq2seq {LEAK}"),
    ],
)
def test_a_model_that_sees_too_little_or_too_much_is_refused(objective: Any, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        objective.task(model_of(config(*TINY, *words), LETTERS), Topics())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (Classification(causal=False, pool="last"), ["model=encoder", "mixer=gru"]),
        (Classification(causal=False), ["model=encoder", "stack='gru, mha'"]),
        (Classification(pool="first"), ["pattern.causal=false"]),
        (Classification(causal=False, pool="mean", lm_weight=0.5), ["mixer=mamba"]),
        (MaskedLM(nsp_weight=0.0), ["model=encoder", "mixer=mamba"]),
        (CausalLM(), ["ffn=moe", "router=expert_choice"]),  # flagged in the report
        (CausalLM(), ["mixer=gru"]),
        (Seq2Seq(), ["model=encoder_decoder", "causal=false"]),
        (Seq2Seq(), ["model=gru_seq2seq"]),
    ],
)
def test_what_a_model_sees_is_told_by_its_mixers(objective: Any, words: list[str]) -> None:
    task, _ = made_task(objective, Backwards() if isinstance(objective, Seq2Seq) else Topics(), *words)
    if isinstance(objective, Seq2Seq):
        assert task.model.causal and (words[-1] == "model=gru_seq2seq" or not task.model.encoder.causal)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CausalLMDrawn(top_k=0), "top_k=0: at least 1 token"),
        (lambda: CausalLMDrawn(temperature=0.0), "temperature=0.0: a positive number"),
        (lambda: CausalLMDrawn().data(Topics(), seq_len=16), "those of Topics are not: take data=markov"),
        (lambda: MaskedLM(held_out_rate=0.0), "held_out_rate=0.0: a share above 0 and below 1"),
        (lambda: MaskedLM(mask_rate=1.5), "mask_rate=1.5: a share above 0 and below 1"),
        (lambda: MaskedLM(nsp_weight=-1.0), "nsp_weight=-1.0: at least 0"),
        (lambda: Classification(lm_weight=-1.0), "lm_weight=-1.0: at least 0"),
        (lambda: MaskedLM().data(Topics(), seq_len=10), "train.seq_len=10: 3 tokens of a row are special here, so take 11"),
    ],
)
def test_impossible_settings_are_told(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
