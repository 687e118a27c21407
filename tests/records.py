"""Fake records for the tests of analysis/: a study on disk with plausible numbers, and any of its ways to go wrong."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runs.job import record

BASE = {"ffn": "dense", "mixer": "mha", "norm": "layernorm", "block": "pre_norm", "position": "learned"}
REST = {"pattern": "full", "router": "topk", "data": "python_source", "size": "nano", "optim": "adamw", "tokenizer": "bytes"}


@dataclass(frozen=True)
class Arm:
    """What an arm does to the numbers: bits per byte added, speed and memory and parameters multiplied."""

    effect: float = 0.0
    speed: float = 1.0
    memory: float = 1.0
    total: float = 1.0
    active: float = 1.0
    state: float = 1.0
    causal: bool = True
    choices: dict[str, str] = field(default_factory=dict)


ARMS = {
    "baseline": Arm(),
    "moe": Arm(-0.055, 0.62, 1.35, 2.12, 1.01, choices={"ffn": "moe"}),
    "fine_grained_moe": Arm(-0.081, 0.51, 1.4, 2.13, 1.02, choices={"ffn": "moe_fine"}),
    "swiglu": Arm(-0.024, 0.96, 1.04, 1.0, 1.0, choices={"ffn": "swiglu"}),
    "gqa": Arm(0.006, 1.04, 0.97, 0.96, 0.96, 0.5, choices={"mixer": "gqa"}),
    "sparse": Arm(0.031, 0.91, 0.9, 1.0, 1.0, 0.25, choices={"mixer": "sparse"}),
    "rmsnorm": Arm(-0.002, 1.02, 0.99, 0.999, 0.999, choices={"norm": "rmsnorm"}),
    "post_norm": Arm(0.047, 1.0, 1.0, 1.0, 1.0, choices={"block": "post_norm"}),
    "rotary": Arm(-0.112, 0.94, 1.02, 0.98, 0.98, choices={"position": "rotary"}),
    "moe_sparse": Arm(-0.022, 0.57, 1.25, 2.12, 1.01, 0.25, choices={"ffn": "moe", "mixer": "sparse"}),
}


def config(
    arm: str | None,
    seed: int,
    choices: dict[str, str],
    *,
    study: str = "demo",
    label: str = "",
    same_as: str | None = None,
    question: dict[str, Any] | None = None,
    **train: Any,
) -> dict[str, Any]:
    """A config.json as a run leaves it: nested, with lists, nulls, and a key that follows the seed. same_as: the arm whose
    config this one is once more, under another name; else every name is a config of its own."""
    chosen = BASE | REST | choices
    moe = {"n_experts": 8, "top_k": 2} if chosen["ffn"].startswith("moe") else {}
    own = {key: value for key, value in train.items() if key not in ("log_every", "checkpoint_every")}
    label = label or arm or ", ".join(chosen[axis] for axis in BASE)
    return {
        "schema": record.SCHEMA,
        "label": label,
        "arm_hash": _hash([chosen, own, same_as or label]),
        "identity": _hash([chosen, own, same_as or label, seed]),
        "seed": seed,
        "out": "runs/out",
        "causal": True,
        "size": {"d_model": 96, "n_layers": 3, "n_heads": 4, "d_ff": 384},
        "train": {"steps": 400, "batch_size": 16, "seq_len": 256, "eval_every": 40, "clip": None, "checkpoint_every": 200}
        | train,
        "optim": {"lr": 0.003, "betas": [0.9, 0.95]},
        "ffn": {"_target_": f"arch.{chosen['ffn']}", "d_model": 96} | moe,
        "mixer": {"_target_": f"arch.{chosen['mixer']}", "n_heads": 4},
        "data": {"_target_": "runs.data.PythonSource", "seed": seed, "roots": []},
        "study": {"name": study, "arm": arm, "baseline": "baseline" if arm else None, "question": question},
        "choices": chosen,
    }


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_run(
    folder: Path, content: dict[str, Any], summary: dict[str, Any] | None, rows: list[dict[str, Any]], **env: Any
) -> None:
    """One run's folder: config.json, env.json, metrics.jsonl and, where the run came to an end, summary.json."""
    folder.mkdir(parents=True)
    machine = {
        "python": "3.11.2",
        "torch": "2.13.0",
        "device": "cpu",
        "threads": 2,
        "git_commit": "02fc14e1",
        "git_dirty": False,
    }
    machine |= {"data_sha256": "a3f1c9" + "0" * 58, "peak_flops": 9.1e10, "started": "2026-01-01T00:00:00"} | env
    record.write_json(folder / record.CONFIG, content)
    record.write_json(folder / record.ENV, machine)
    (folder / record.METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    if summary is not None:
        record.write_summary(folder, summary | {"identity": content["identity"]})


def change(folder: Path, file: str, **values: Any) -> None:
    """Other values in a file of a run, as if the run had written them."""
    content = record.read_json(folder / file) | values
    record.write_json(folder / file, content)
    if (folder / record.SUMMARY).exists():
        record.write_summary(folder, record.read_json(folder / record.SUMMARY))


def summary(status: str = "done", **metrics: float | None) -> dict[str, Any]:
    """A summary with these metrics, and a plain cost."""
    cost = {"total_params": 1_000_000, "active_params": 1_000_000, "flops_per_token": 2e6, "train_flops": 1e13}
    cost |= {"state_bytes": 4096, "tokens_per_s": 25000.0, "step_ms": 160.0, "mfu": 0.3, "peak_memory_bytes": 4e8}
    return {"status": status, "error": None, "causal": True, "metrics": metrics, "cost": cost}


def run(out: Path, arm: str, seed: int, value: float | None, *, status: str = "done", choices: Any = None, **rest: Any) -> Path:
    """The smallest run of a study with one number in it."""
    folder = out / "demo" / f"{arm}-s{seed}-{len(list((out / 'demo').glob('*'))) if (out / 'demo').exists() else 0:08x}"
    write_run(folder, config(arm, seed, choices or {}, **rest), summary(status, val_bits_per_byte=value), [])
    return folder


def write_study(
    out: Path, *, name: str = "demo", arms: dict[str, Arm] = ARMS, seeds: tuple[int, ...] = (0, 1, 2), named: bool = True
) -> Path:
    """A study of these arms with losses that fall, seeds that agree between arms, MoE rows, and numbers of a small CPU run."""
    for place, (arm, kind) in enumerate(arms.items()):
        for seed in seeds:
            short = re.sub(r"[^\w.+-]+", "_", arm)[:80]
            folder = out / name / f"{short}-s{seed}-{place * 100 + seed:08x}"
            content = config(arm if named else None, seed, kind.choices, study=name, label=arm)
            rows, end = _rows(kind, content, random.Random(f"{arm} {seed}"), shared=random.Random(seed).gauss(0, 0.012))
            write_run(folder, content, end, rows, started=f"2026-01-01T{place:02d}:{seed:02d}:00")
    return out / name


def timed(study: Path) -> Path:
    """The study, as if its arms had been timed in turns, a session for each seed."""
    for file in study.glob(f"*/{record.SUMMARY}"):
        folder, cost = file.parent, record.read_json(file)["cost"]
        seed = record.read_config(folder)["seed"]
        speeds = {name: cost.get(name) for name in record.TIMED}
        record.write_json(folder / record.TIMING, {**speeds, "turns": 20, "session": f"session {seed}", "beside": []})
    return study


OWNED = "owned"  # what a page's title becomes if any of these is more than text
HOSTILE = (
    f"<script>document.title='{OWNED}'</script>",
    f"\"><img src=x onerror=document.title='{OWNED}'>",
    f"</title></style><svg onload=document.title='{OWNED}'>--><!--",
    "{{ 7 * 7 }} {% raw %} $\\frac{$ \u4f60\u597d \U0001f600",
    '=HYPERLINK("x")',
)


def hostile(out: Path) -> Path:
    """A study whose every name is markup, a formula or a format: labels, choices, errors, folders, its own name."""
    study = out / HOSTILE[0].replace("/", "|")
    for seed in (0, 1):
        for place, label in enumerate((*HOSTILE, "damaged")):
            content = config(label, seed, {"ffn": label, "data": HOSTILE[place % 4]}, study=HOSTILE[0])
            content["study"]["baseline"] = HOSTILE[1]
            rows, end = _rows(Arm(0.01 * place), content, random.Random(place), shared=0.01 * seed)
            folder = study / f"{label.replace('/', '|')} {seed}"
            failed = {"status": "failed", "error": label, "metrics": {}} if (place, seed) == (2, 1) else {}
            write_run(folder, content, end | failed, rows, device=label, torch=label, git_commit=label)
    (folder / record.ENV).write_text("")
    return study


def _rows(
    arm: Arm, content: dict[str, Any], noise: random.Random, shared: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    train = content["train"]
    per_step, wiggle = train["batch_size"] * train["seq_len"], noise.gauss(0, 0.005)
    params, speed = 420_000 * arm.active, 24_000 * arm.speed * noise.uniform(0.97, 1.03)
    rows: list[dict[str, Any]] = []
    bits = math.nan
    for step in range(20, train["steps"] + 1, 20):
        tokens = step * per_step
        done = {"tokens": tokens, "seconds": tokens / speed, "flops": 6 * params * tokens}
        late = min(1.0, step / 150)
        bits = 2.05 + 5.2 * (1 + step / 12) ** -0.75 + late * (arm.effect + shared + wiggle) + noise.gauss(0, 0.002)
        loss = bits * math.log(2) + noise.gauss(0, 0.04)
        rows.append(
            {"step": step, "split": "train", "loss": loss, "lr": 0.003, "grad_norm": 0.8, **done, "tokens_per_s": speed}
        )
        if step % train["eval_every"] == 0:
            val = {"loss": bits * math.log(2), "bits_per_byte": bits, "accuracy": 0.62 - bits / 20}
            rows.append({"step": step, "split": "val", **val, **done})
        if "n_experts" in content["ffn"]:
            rows += [_routing(step, layer, content["ffn"]["n_experts"], noise) for layer in range(content["size"]["n_layers"])]
    metrics = {"val_bits_per_byte": bits, "val_loss": bits * math.log(2), "val_accuracy": 0.62 - bits / 20}
    if routed := [row for row in rows if row["split"] == "routing" and row["step"] == train["steps"]]:
        metrics |= {f"routing_{key}": sum(row[key] for row in routed) / len(routed) for key in ("entropy", "dropped", "dead")}
    cost = {"total_params": round(420_000 * arm.total), "active_params": round(params), "flops_per_token": 2 * params}
    cost |= {
        "train_flops": rows[-1].get("flops", 6 * params * train["steps"] * per_step),
        "state_bytes": round(589_824 * arm.state),
    }
    cost |= {"tokens_per_s": speed, "step_ms": 1e3 * per_step / speed, "mfu": 6 * params * speed / 9.1e10}
    cost |= {"peak_memory_bytes": round(4.1e8 * arm.memory * noise.uniform(0.99, 1.01))}
    return rows, summary() | {"metrics": metrics, "cost": cost, "causal": arm.causal}


def _routing(step: int, layer: int, n_experts: int, noise: random.Random) -> dict[str, Any]:
    spread = 1.2 * math.exp(-step / 120) + 0.12 * (layer + 1)
    weights = [math.exp(spread * math.sin(1.7 * expert + 2.3 * layer) + noise.gauss(0, 0.05)) for expert in range(n_experts)]
    load = [weight / sum(weights) for weight in weights]
    entropy = -sum(share * math.log(share) for share in load)
    return {
        "step": step,
        "split": "routing",
        "layer": f"layers.{layer}.ffn",
        "load": load,
        "entropy": entropy,
        "dropped": 0.0,
        "dead": 0,
    }


def factorial(axes: dict[str, dict[str, float]]) -> dict[str, Arm]:
    """Every combination of the options, effects added up: the arms of a plain multirun."""
    arms = {"": Arm()}
    for axis, options in axes.items():
        arms = {
            f"{label}, {option}".strip(", "): Arm(
                arm.effect + effect, arm.speed * (0.6 if option == "moe" else 1.0), choices=arm.choices | {axis: option}
            )
            for label, arm in arms.items()
            for option, effect in options.items()
        }
    return arms
