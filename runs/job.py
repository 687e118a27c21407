"""One run, from its resolved config to its record: built, trained or resumed, and written down however it ends."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from arch.contracts import Block
from arch.model import Decoder

from . import checkpoint, measure, record
from .build import ConfigError, build, build_model, call
from .data.contract import Data
from .fit import Outcome, Settings, fit
from .record import RecordError

Watch = Callable[[dict[str, Any]], None]


def run(config: dict[str, Any], watch: Watch = lambda row: None) -> dict[str, Any]:
    """Do what is left of a run and return its summary. Done or diverged: nothing is left; cut off: on from the checkpoint.

    Args:   watch: sees every row of metrics.
    Raises: RecordError: somebody else is in the folder, or what lies there is damaged. OSError: nothing can be written.
    """
    path = record.folder(config)
    with record.claim(path):
        if record.status(path) in ("done", "diverged"):
            return record.read_json(path / "summary.json")
        summary: dict[str, Any] = {"identity": record.identity(config)}
        write_config(path, config)
        try:
            return finish(path, {**summary, **train(config, path, watch)})
        except RecordError:
            raise
        except Exception as error:
            (path / "error.txt").write_text(traceback.format_exc())
            return finish(path, {**summary, "status": "failed", "error": one_line(error), "metrics": {}, "cost": {}})


def finish(path: Path, summary: dict[str, Any]) -> dict[str, Any]:
    record.write_json(path / "summary.json", summary)
    return summary


def train(config: dict[str, Any], path: Path, watch: Watch) -> dict[str, Any]:
    """Build, fit, and say what came out: status, error, causal, metrics, cost."""
    device, bf16, settings = read_train(config["train"])
    data = load_data(config)
    model = build_model(config, data.vocab_size).to(device)
    optimiser = build(config["optim"], "optim", model=model)
    peak, source = measure.peak_flops(device, "bf16" if bf16 else "fp32")
    peak_facts = {"peak_flops": peak, "peak_flops_source": source}
    record.write_json(path / "env.json", {**environment(device), "data_sha256": data.sha256, **peak_facts})

    metrics = record.Metrics(path / "metrics.jsonl")
    file = path / "checkpoint" / "state.safetensors"
    start, seconds = checkpoint.load(file, model=model, optimiser=optimiser) if file.exists() else (0, 0.0)
    metrics.keep_until(start)
    memory = measure.PeakMemory(device)
    if config["train"]["compile"]:
        compile_layers(model)

    class Keeper:
        def log(self, row: dict[str, Any]) -> None:
            metrics.append(row)
            watch(row)

        def save(self, step: int, seconds: float) -> None:
            checkpoint.save(file, model=model, optimiser=optimiser, step=step, seconds=seconds)

    outcome = fit(
        model=model,
        data=data,
        optimiser=optimiser,
        schedule=build(config["schedule"], "schedule"),
        settings=settings,
        keeper=Keeper(),
        device=device,
        bf16=bf16,
        seed=config["seed"],
        start=start,
        seconds=seconds,
    )
    return {
        "status": outcome.status,
        "error": outcome.error,
        "causal": model.causal,
        "steps": settings.steps,
        "seconds": outcome.seconds,
        "metrics": {f"val_{key}": record.finite(value) for key, value in outcome.metrics.items()},
        "cost": costs(model, outcome, settings, peak, memory.bytes()),
    }


def costs(model: Decoder, outcome: Outcome, settings: Settings, peak: float, memory: int) -> dict[str, Any]:
    """The cost columns of a report. FLOPs per token: forward. Training: forward and backward, of all tokens."""
    cost = model.cost(settings.seq_len)
    rate = outcome.tokens_per_s
    return {
        "total_params": cost.params,
        "active_params": cost.active_params,
        "flops_per_token": cost.flops,
        "train_flops": measure.train_flops(cost.flops) * settings.tokens * settings.steps,
        "state_bytes": cost.state_bytes,
        "tokens_per_s": rate,
        "step_ms": None if rate is None else 1000 * settings.tokens / rate,
        "mfu": None if rate is None else measure.train_flops(cost.flops) * rate / peak,
        "peak_memory_bytes": memory,
    }


def check(config: dict[str, Any]) -> Decoder:
    """Everything that can be known before training: keys, types, sizes, data, device. The model, on the meta device.

    Raises: ConfigError, ValueError or OSError, in one line.
    """
    if not isinstance(config["seed"], int) or config["seed"] < 0:
        raise ConfigError(f"seed={config['seed']!r}: a whole number from 0 is expected")
    _, _, settings = read_train(config["train"])
    build(config["schedule"], "schedule")
    data = load_data(config)
    with torch.device("meta"):
        model = build_model(config, data.vocab_size)
        build(config["optim"], "optim", model=model)
        model(torch.zeros(1, settings.seq_len, dtype=torch.long))
    return model


def read_train(node: dict[str, Any]) -> tuple[torch.device, bool, Settings]:
    """The train node: where, in which precision (bf16 or not), and the rest."""
    rest = {key: value for key, value in node.items() if key not in ("device", "precision", "compile")}
    if not isinstance(node["compile"], bool):
        raise ConfigError(f"train.compile={node['compile']!r}: true or false is expected")
    device = pick_device(node["device"])
    return device, pick_bf16(node["precision"], device), call(Settings, rest, "train")


def compile_layers(model: nn.Module) -> None:
    """torch.compile, a layer at a time: equal layers share their code, so a deep model compiles as fast as a shallow one."""
    for module in model.modules():
        if isinstance(module, Block):
            module.compile()


def load_data(config: dict[str, Any]) -> Data:
    """The run's data, checked against its sequence length; kept, since many runs of a sweep share it."""
    data = _data(json.dumps(config["data"], sort_keys=True))
    data.check(seq_len=config["train"]["seq_len"])
    return data


@functools.lru_cache(maxsize=1)
def _data(node: str) -> Data:
    data: Data = build(json.loads(node), "data")
    return data


def pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"train.device={name}: known: auto, cpu, cuda, mps") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"train.device={name}: torch {torch.__version__} sees no CUDA device here; use auto or cpu")
    return device


def pick_bf16(precision: str, device: torch.device) -> bool:
    if precision not in ("auto", "fp32", "bf16"):
        raise ConfigError(f"train.precision={precision}: known: auto, fp32, bf16")
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def write_config(path: Path, config: dict[str, Any]) -> None:
    (path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    record.write_json(path / "config.json", config)


def environment(device: torch.device) -> dict[str, Any]:
    """Where and with what a run was made."""
    code = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            return subprocess.run(["git", *words], cwd=code, capture_output=True, text=True, check=True, timeout=20).stdout
        except (OSError, subprocess.SubprocessError):
            return None

    diff = git("diff", "HEAD")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "git_commit": (git("rev-parse", "HEAD") or "").strip() or None,
        "git_dirty": bool(diff),
        "git_diff": (diff or "")[:50_000] or None,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    plain = isinstance(error, (ValueError, OSError, RecordError))
    return text if plain and text else f"{type(error).__name__}: {text}"[:500]
