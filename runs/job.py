"""One run, from its resolved config to its record: built, trained or resumed, and written down however it ends."""

from __future__ import annotations

import functools
import json
import os
import platform
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from arch import Attention, Full
from arch.contracts import Block
from arch.init import refuse_undrawable
from arch.model import Decoder

from . import checkpoint, measure, record
from .build import ConfigError, build, build_model, call
from .data.contract import Data
from .device import pick_device
from .fit import Settings, fit
from .record import RecordError

Watch = Callable[[dict[str, Any]], None]
Peak = tuple[float, str]


def run(config: dict[str, Any], watch: Watch = lambda row: None, peak: Peak | None = None) -> dict[str, Any]:
    """Do what is left of a run and return its summary. Done or diverged: nothing is left; cut off: on from the checkpoint.

    Args:   watch: sees every row of metrics. peak: the device's FLOP/s and where that is from; None: found out here.
    Raises: RecordError: somebody else is in the folder, or what lies there is damaged. OSError: nothing can be written.
    """
    path = record.folder(config)
    with record.claim(path):
        if record.status(path) in ("done", "diverged"):
            return record.read_json(path / "summary.json")
        summary: dict[str, Any] = {"identity": record.identity(config)}
        for stale in ("summary.json", "error.txt"):  # of an attempt that failed
            (path / stale).unlink(missing_ok=True)
        write_config(path, config)
        try:
            return finish(path, {**summary, **train(config, path, watch, peak)})
        except RecordError:
            raise
        except Exception as error:
            (path / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            return finish(path, {**summary, "status": "failed", "error": one_line(error), "metrics": {}, "cost": {}})


def finish(path: Path, summary: dict[str, Any]) -> dict[str, Any]:
    record.write_json(path / "summary.json", summary)
    return summary


def train(config: dict[str, Any], path: Path, watch: Watch, peak_known: Peak | None) -> dict[str, Any]:
    """Build, fit, and say what came out: status, error, causal, metrics, cost."""
    settings, device = read_settings(config["train"]), pick_device(config["train"]["device"])
    bf16 = config["train"]["precision"] == "bf16"
    data = load_data(config)
    model = build_model(config, data.vocab_size).to(device)
    optimiser = build(config["optim"], "optim", model=model)
    peak, source = peak_known or measure.peak_flops(device, config["train"]["precision"])
    facts = {"data_sha256": data.sha256, "peak_flops": peak, "peak_flops_source": source}
    record.write_json(path / "env.json", {**environment(device), **facts, "earlier": earlier(path)})

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
        "cost": costs(model, settings, usual_rate(metrics), peak, memory.bytes()),
    }


def costs(model: Decoder, settings: Settings, rate: float | None, peak: float, memory: int) -> dict[str, Any]:
    """The cost columns of a report. FLOPs per token: forward. Training: forward and backward, of all tokens."""
    cost = model.cost(settings.seq_len)
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
    settings = read_settings(config["train"])
    if config["seed"] is True or config["seed"] is False:
        raise ConfigError(f"seed={config['seed']}: a whole number from 0 is expected")
    for key, size in config["size"].items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ConfigError(f"size.{key}={size!r}: a whole number from 1 is expected")
    build(config["schedule"], "schedule")
    data = load_data(config)
    refuse_other_data(config, data)
    try:
        with torch.device("meta"):
            model = build_model(config, data.vocab_size)
            build(config["optim"], "optim", model=model)
            model(torch.zeros(1, settings.seq_len, dtype=torch.long))
        refuse_undrawable(model)
    except (TypeError, RuntimeError, IndexError) as error:
        raise ConfigError(f"this model cannot be built: {one_line(error)}") from error
    refuse_idle_patterns(model, settings.seq_len)
    told, built = model.cost(settings.seq_len).params, sum(p.numel() for p in model.parameters())
    if told != built:
        raise ConfigError(f"a block's cost() is wrong: the parts tell {told:,} parameters, the model has {built:,}")
    return model


def refuse_idle_patterns(model: Decoder, seq: int) -> None:
    """A sparse pattern that hides nothing at this length would be full attention under another name."""
    for module in model.modules():
        if isinstance(module, Attention) and not isinstance(module.pattern, Full):
            pairs = module.pattern.pairs(seq)
            if pairs == Full(causal=module.causal).pairs(seq):
                kind = type(module.pattern).__name__
                raise ConfigError(
                    f"pattern: {kind} hides none of the {pairs:,} pairs of {seq} tokens; take a smaller window or a longer text"
                )


def refuse_other_data(config: dict[str, Any], data: Data) -> None:
    """A run's identity names its data; should the text behind the name have changed, its record must not be mixed."""
    file = record.folder(config) / "env.json"
    if file.exists() and (before := record.read_json(file).get("data_sha256")) != data.sha256:
        raise ConfigError(
            f"{file.parent}: was begun on other data (SHA-256 {str(before)[:8]}..., now {data.sha256[:8]}...); "
            "bring the old text back, or take another study.name"
        )


def read_settings(node: dict[str, Any]) -> Settings:
    """The train node without what is said about the device."""
    rest = {key: value for key, value in node.items() if key not in ("device", "precision", "compile")}
    if not isinstance(node["compile"], bool):
        raise ConfigError(f"train.compile={node['compile']!r}: true or false is expected")
    settings: Settings = call(Settings, rest, "train")
    return settings


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


def write_config(path: Path, config: dict[str, Any]) -> None:
    (path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)), encoding="utf-8")
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


def earlier(path: Path) -> list[dict[str, Any]]:
    """Where the run was worked on before it came here: one entry per session, oldest first."""
    file = path / "env.json"
    if not file.exists():
        return []
    last = record.read_json(file)
    return [*last.pop("earlier", []), {key: value for key, value in last.items() if key != "git_diff"}]


def usual_rate(metrics: record.Metrics) -> float | None:
    """The median tokens/s of all windows but the first, which compiles and warms up; None if it is alone."""
    rates = [row["tokens_per_s"] for row in metrics.rows() if row["split"] == "train"]
    return statistics.median(rates[1:]) if len(rates) > 1 else None


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    plain = isinstance(error, (ValueError, OSError, RecordError))
    return text if plain and text else f"{type(error).__name__}: {text}"[:500]
