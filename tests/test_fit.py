"""The loop: what it counts, and when it calls a run diverged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from runs.data.contract import Batch
from runs.objective import CausalLM
from runs.training import fit as training_fit
from runs.training.evaluation import pieces
from runs.training.fit import Outcome, Progress, Settings, fit
from runs.training.schedule import constant
from tests.lab import VOCAB, options, tiny_model, tokens

NUMBERS: dict[str, Any] = {
    "steps": 4,
    "batch_size": 4,
    "seq_len": 16,
    "accumulate": 1,
    "clip": 1.0,
    "log_every": 1,
    "eval_every": 2,
    "eval_batches": 2,
    "checkpoint_every": None,
    "load_balance": 0.01,
    "router_z": 0.001,
}


class Words:
    """Random tokens; token t stands for t % 3 + 1 bytes."""

    vocab_size, sha256 = VOCAB, "0" * 64
    token_bytes = torch.arange(VOCAB) % 3 + 1

    def check(self, *, seq_len: int) -> None: ...

    def batch(self, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
        text = tokens(batch_size, seq_len + 1, seed=1000 * seed + step)
        return Batch(text[:, :-1], text[:, 1:])

    def evaluation(self, *, n_batches: int, batch_size: int, seq_len: int) -> Iterator[Batch]:
        for step in range(n_batches):
            yield self.batch(seed=77, step=step, batch_size=batch_size, seq_len=seq_len)


class Rows(list[dict[str, Any]]):
    def log(self, row: dict[str, Any]) -> None:
        self.append(row)

    def save(self, progress: Progress) -> None:
        self.append({"split": "save", "step": progress.step})

    def asked_to_stop(self) -> bool:
        self.steps += 1
        return self.steps == self.stop_after

    steps, stop_after = 0, None


def trained(
    *overrides: str, lr: float = 1e-3, stop_after: int | None = None, **changes: Any
) -> tuple[torch.nn.Module, Rows, Outcome]:
    model, rows = tiny_model(*overrides), Rows()
    rows.stop_after = stop_after
    outcome = fit(
        task=CausalLM().task(model, Words()),
        data=Words(),
        optimiser=torch.optim.SGD(model.parameters(), lr=lr),
        schedule=constant(),
        settings=Settings(**{**NUMBERS, **changes}),
        recorder=rows,
        device=torch.device("cpu"),
        bf16=False,
        seed=0,
    )
    return model, rows, outcome


def test_the_logged_loss_is_the_cross_entropy_alone() -> None:
    expected_model = tiny_model("ffn=moe")
    batch = Words().batch(seed=0, step=0, batch_size=4, seq_len=16)
    expected = cross_entropy(expected_model(batch.tokens).flatten(0, 1), batch.targets.flatten()).item()
    _, rows, _ = trained("ffn=moe", load_balance=5.0, router_z=5.0)
    assert rows[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_bits_per_byte_divide_by_the_bytes_of_the_targets() -> None:
    model, rows, outcome = trained()
    nats = n_bytes = 0.0
    with torch.no_grad():
        for batch in Words().evaluation(n_batches=2, batch_size=4, seq_len=16):
            nats += cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten(), reduction="sum").item()
            n_bytes += (batch.targets % 3 + 1).sum().item()
    assert outcome.metrics["bits_per_byte"] == pytest.approx(nats / n_bytes / 0.6931472, rel=1e-5)
    assert outcome.metrics["bytes_per_token"] == n_bytes / (2 * 4 * 16)
    assert [row["step"] for row in rows if row["split"] == "val"] == [2, 4]


def test_rows_come_when_they_are_due_and_count_everything() -> None:
    model, rows, outcome = trained("ffn=moe", log_every=3, eval_every=4, checkpoint_every=2)
    assert [row["step"] for row in rows if row["split"] == "train"] == [2, 3, 4]
    assert [row["step"] for row in rows if row["split"] == "save"] == [2, 4]
    routing = [row for row in rows if row["split"] == "routing"]
    assert {row["layer"] for row in routing} == {"layers.0.ffn", "layers.1.ffn"}
    assert all(sum(row["load"]) == pytest.approx(1, abs=1e-5) for row in routing)
    assert rows[0]["tokens"] == 2 * 4 * 16 and rows[0]["flops"] == 2 * 4 * 16 * 3 * model.cost(16).flops
    assert outcome.status == "done"


@pytest.mark.parametrize("checkpoint_every", [None, 0, 2])
def test_a_run_that_is_asked_to_stop_says_so_and_saves_what_it_has(checkpoint_every: int | None) -> None:
    _, rows, outcome = trained(stop_after=3, log_every=4, eval_every=4, checkpoint_every=checkpoint_every)
    assert (outcome.status, outcome.error, outcome.progress.step) == ("unfinished", "stopped at step 3 of 4", 3)
    saved = [row["step"] for row in rows if row["split"] == "save"]
    assert saved == {None: [], 0: [3], 2: [2, 3]}[checkpoint_every]
    assert [row["step"] for row in rows if row["split"] == "train"][-1] == 3


@pytest.mark.parametrize("steps", [1, 4])
def test_a_loss_that_explodes_or_is_no_number_ends_the_run_before_it_is_saved(steps: int) -> None:
    _, rows, outcome = trained(lr=1e30, clip=None, steps=steps, checkpoint_every=0)
    assert outcome.status == "diverged"
    assert outcome.error is not None and "times a uniform guess" in outcome.error
    assert not [row for row in rows if row["split"] == "save"]


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_divergence_is_found_however_seldom_rows_are_due(log_every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))
    plain = training_fit.losses

    def spiked(*words: Any) -> dict[str, torch.Tensor]:
        factor = 10 if next(calls) == 1 else 1  # of one step; the mean of four stays below the limit
        return {name: factor * loss for name, loss in plain(*words).items()}

    monkeypatch.setattr(training_fit, "losses", spiked)
    _, _, outcome = trained(lr=0.0, steps=4, log_every=log_every, eval_every=4)
    assert outcome.status == "diverged"


@pytest.mark.parametrize("held_out", [1e3, float("nan")])
def test_a_model_that_fails_on_held_out_rows_alone_has_not_diverged(held_out: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_fit, "evaluate", lambda *task, **sizes: {"loss": held_out})
    _, _, outcome = trained("ffn=moe", steps=4, eval_every=2)
    assert (outcome.status, outcome.progress.step) == ("done", 4)


def test_a_position_past_the_table_is_told_before_a_kernel_meets_it() -> None:
    model = tiny_model("position=learned")  # 128 places
    text = tokens(1, 9)
    batch = Batch(text[:, :-1], text[:, 1:], torch.arange(121, 129)[None])
    with pytest.raises(ValueError, match="position 128 is past the end of the position table: max_seq is 128, not 129"):
        next(pieces(CausalLM().task(model, Words()), batch, 1, torch.device("meta")))
    batch = batch._replace(positions=torch.arange(120, 128)[None])
    assert next(pieces(CausalLM().task(model, Words()), batch, 1, torch.device("cpu")))[1] == {"": 8}


def test_self_balancing_routers_get_no_balance_loss() -> None:
    weights = []
    for weight in (0.0, 10.0):
        model, _, _ = trained("ffn=moe", "router=balanced", load_balance=weight, lr=0.1)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps=0: at least 1"),
        ({"accumulate": 3}, "accumulate=3 does not divide batch_size=4"),
        ({"clip": 0.0}, "clip=0.0: a norm above 0"),
        ({"router_z": -1.0}, "router_z=-1.0: at least 0"),
    ],
)
def test_impossible_settings_are_told(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**{**NUMBERS, **change})


def test_tokens_a_second_are_those_of_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Words.batch

    def narrow(self: Words, **sizes: int) -> Batch:  # as examples are that are shorter than seq_len
        tokens, targets, *_ = full(self, **sizes)
        return Batch(tokens[:, :5], targets[:, :5])

    monkeypatch.setattr(Words, "batch", narrow)
    _, rows, _ = trained(log_every=2)
    row = next(row for row in rows if row["split"] == "train")
    assert row["tokens_per_s"] * row["step_ms"] / 1000 == pytest.approx(4 * 5)


@pytest.mark.parametrize("router", options("router"))
@pytest.mark.parametrize("loss", ["load_balance", "router_z"])
def test_a_router_is_trained_with_the_losses_that_it_asks_for_and_no_other(router: str, loss: str) -> None:
    words, weights = ("ffn=moe", f"router={router}", "size.n_layers=1"), {"load_balance": 0.0, "router_z": 0.0}
    (without, _, _), (with_it, _, _) = (trained(*words, **weights | {loss: weight}) for weight in (0.0, 5.0))
    wanted = {"balanced": ("router_z",), "expert_choice": ("router_z",), "hash": ()}.get(router, ("load_balance", "router_z"))
    pairs = zip(without.state_dict().values(), with_it.state_dict().values(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs) == (loss in wanted)
