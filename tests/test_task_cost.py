"""What training costs, by the task: heads, what is frozen, and real tokens instead of padded ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from arch.lora import add_lora
from runs.data.contract import Batch
from runs.job.execute import execute
from runs.job.start import build_task, load_data
from runs.objective import Task
from tests.lab import TINY, config

SEQ = 64
SMALL = (*TINY, "size.n_layers=6", "size.d_model=64", "train.batch_size=4", f"train.seq_len={SEQ}", "train.device=cpu")


def made(*words: str) -> tuple[Task, Any]:
    run = config(*SMALL, *words)
    data = load_data(run)
    return build_task(run, data), data


def counted(task: Task, batch: Batch, *, backward: bool) -> float:
    """FLOPs of one pass over a batch, as torch counts them."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        logits = [answer.logits() for answer in task(batch).values()]
        if backward:
            sum(one.float().square().sum() for one in logits).backward()
    return float(counter.get_total_flops())


def hidden_pairs(task: Task, seq: int) -> float:
    """FLOPs per token of the scores above the diagonal, which torch counts and which are no work."""
    return 6 * 4 * 64 * (seq - (seq + 1) / 2) if task.model.causal else 0.0


TASKS = {
    "next token": (),
    "untied": ("model.tied=false",),
    "class": ("objective=classification", "data=packages"),
    "class and next token": ("objective=classification_lm", "data=packages"),
    "hidden tokens": ("model=encoder", "position=learned"),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_reports_the_flops_that_torch_counts(name: str) -> None:
    task, data = made(*TASKS[name])
    batch = data.batch(seed=0, step=0, batch_size=2, seq_len=SEQ)
    n, seq = batch.tokens.numel(), batch.tokens.shape[1]
    above = hidden_pairs(task, seq)
    assert counted(task, batch, backward=False) / n == pytest.approx(task.cost(seq).flops + above, rel=1e-3)
    assert counted(task, batch, backward=True) / n == pytest.approx(task.train_flops(seq) + 3 * above, rel=0.01)


def test_frozen_weights_get_no_gradient_and_cost_none() -> None:
    task, data = made()
    whole = task.train_flops(SEQ)
    add_lora(task.model, ["q_proj", "v_proj"], rank=2, alpha=4)
    batch = data.batch(seed=0, step=0, batch_size=2, seq_len=SEQ)
    assert task.train_flops(SEQ) < 0.75 * whole
    assert counted(task, batch, backward=True) / batch.tokens.numel() == pytest.approx(
        task.train_flops(SEQ) + 3 * hidden_pairs(task, SEQ), rel=0.05
    )


def test_heads_and_adapters_count_as_parameters() -> None:
    task, _ = made("objective=classification", "data=packages")
    assert task.cost(SEQ).params == sum(p.numel() for p in task.parameters())
    add_lora(task.model, ["up_proj"], rank=2, alpha=4)
    assert task.cost(SEQ).params == sum(p.numel() for p in task.parameters())
    assert any(type(module).__name__ == "LoRA" for module in task.model.modules())  # they were put back


def test_padding_is_no_work(tmp_path: Path) -> None:
    run = config(*SMALL, "model=encoder_decoder", "train.steps=3", "train.log_every=1", f"out={tmp_path}")
    task, data = build_task(run, load_data(run)), load_data(run)
    summary = execute(run, peak=(1.0, "given"))
    batches = [data.batch(seed=0, step=step, batch_size=4, seq_len=SEQ) for step in range(3)]
    real = sum((int((b.positions >= 0).sum()) + int((b.source_positions >= 0).sum())) / 2 for b in batches)
    padded = sum(b.tokens.numel() for b in batches)
    assert summary["tokens"] == real < padded
    assert summary["cost"]["train_flops"] == pytest.approx(task.train_flops(SEQ) * real)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["split"] == "train"][-1]
    assert last["tokens"] == real and last["flops"] == pytest.approx(summary["cost"]["train_flops"])


def test_a_full_row_counts_as_it_did() -> None:
    task, data = made()
    batch = data.batch(seed=0, step=0, batch_size=2, seq_len=SEQ)
    assert task.tokens(batch) == 2 * SEQ
    assert task.train_flops(SEQ) == 3 * task.cost(SEQ).flops == 3 * task.model.cost(SEQ).flops
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
