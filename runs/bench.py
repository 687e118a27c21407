"""Time the parts beside what else one would take, in turns, and hold the ratios against their bars.

python -m runs.bench cpu                    all that a CPU shows; nothing else should run meanwhile
python -m runs.bench moe turns=20           one subject: analysis, attention, commands, decoders, loop, loss, moe, recurrent
python -m runs.bench gpu                    all that a GPU shows, in bf16: about four minutes of an H100 are reckoned with
python -m runs.bench gpu_moe                one of its subjects: gpu_attention, gpu_bank, gpu_decoders, gpu_moe, gpu_recurrent,
                                            gpu_routing, gpu_stack; device=cpu: at sizes that only show that it runs

Each contender's numbers are held against its plain twin's first; one that gives others is not timed. A bar holds where the 95 %
interval of the median of the paired ratios does. What fails is left out with its reason, and the rest goes on. The table is
also written to runs/out/bench/<name>.json.
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("start it as a module, from the top of the repository: python -m runs.bench")
if __name__ == "__main__":
    from .usage import answer_help

    answer_help(__doc__)  # before torch is imported

import gc
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from . import benchmark
from .benchmark.case import Case
from .benchmark.clock import DeviceLost, measure
from .benchmark.table import line, rows
from .build.errors import ConfigError
from .command import guarded, parse
from .job.execute import environment, one_line
from .job.record import read_json, write_json
from .training.device import keep_memory, pick_device

TURNS = 10
SUITES = {
    "cpu": ("moe", "loss", "attention", "recurrent", "decoders", "loop", "commands", "analysis"),
    # What matters most comes first: it is there where time runs out. Seconds of an H100 at turns=6, reckoned and not measured:
    # 85 (40 for the one by hand to compile, 25 for ours, 15 for the loop), 25, 60 (45 compiling, 15 to draw 1.5 billion
    # weights), 10, 10, 35 (a third of it the GRU, which walks token by token).
    "gpu": ("gpu_decoders", "gpu_bank", "gpu_moe", "gpu_routing", "gpu_attention", "gpu_recurrent", "gpu_stack"),
}


def bench(
    *,
    subject: str,
    turns: int = TURNS,
    threads: int | None = None,
    device: str | None = None,
    to: str = "runs/out/bench",
    begin: int = 0,
) -> None:
    """Measure a subject, or several one after the other, each case alone in memory; its rows are printed and written at once.

    Args:   subject: one of the room's, or a suite of them. turns: that count. threads: of torch; null = as many as it takes.
            device: null = cuda for what is called gpu, else cpu. to: folder for <subject>.json. begin: cases that are left
            out; their rows stay as the file has them.
    Raises: ConfigError: there is no such subject, or no such device.
    """
    if subject not in SUITES and subject not in known():
        raise ConfigError(f"{subject}: no such benchmark; there are {', '.join([*SUITES, *known()])}")
    if device not in (None, "cpu") and not subject.startswith("gpu"):
        raise ConfigError(f"device={device}: {subject} is measured on a CPU; on a GPU: {', '.join(SUITES['gpu'])}")
    place = pick_device(device or ("cuda" if subject.startswith("gpu") else "cpu"))
    if threads is not None:
        torch.set_num_threads(threads)
    keep_memory()
    file, env = Path(to) / f"{subject}.json", environment(place)
    found: list[dict[str, object]] = read_json(file)["rows"] if begin else []
    print(f"{env['device']}, {torch.get_num_threads()} threads, torch {torch.__version__}, {turns} turns")

    def report(part: str, lines: Iterable[dict[str, object]]) -> None:
        for row in lines:
            found.append({"subject": part, **row})
            print(line(row), flush=True)
        Path(to).mkdir(parents=True, exist_ok=True)
        write_json(file, {"env": env, "turns": turns, "rows": found})

    number = 0  # of cases met
    for part in SUITES.get(subject, (subject,)):
        try:
            for case in cases(part, place):
                number += 1
                if number <= begin:
                    continue
                print(case.name, flush=True)
                report(part, rows(case, *measure(case, turns=turns, device=place)))
                let_go()
        except DeviceLost as lost:
            report(part, [failure(case.name, lost)])
            again = [sys.executable, "-m", __spec__.name, subject, f"turns={turns}", f"to={to}", f"begin={number}"]
            raise SystemExit(subprocess.call([*again, *([] if device is None else [f"device={device}"])])) from lost
        except Exception as error:
            report(part, [failure(part, error)])


def failure(what: str, error: Exception) -> dict[str, object]:
    return {"case": what, "what": what, "left_out": f"failed: {one_line(error)}"}


def let_go() -> None:
    """What a case has compiled and held is no use to the next one, whose sizes differ."""
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def cases(subject: str, device: torch.device) -> Iterator[Case]:
    module = importlib.import_module(f"{benchmark.__name__}.{subject}")
    found: Iterator[Case] = module.cases(device) if subject.startswith("gpu") else module.cases()
    return found


def known() -> list[str]:
    """The modules of the room that offer cases."""
    offered = (importlib.import_module(f"{benchmark.__name__}.{one.name}") for one in pkgutil.iter_modules(benchmark.__path__))
    return sorted(module.__name__.rpartition(".")[2] for module in offered if hasattr(module, "cases"))


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else list(words)
    if not words:
        print(__doc__)
        return 0
    bench(**parse([f"subject={words[0]}", *words[1:]], bench))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
