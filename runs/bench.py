"""Time the parts beside what else one would take, in turns, and hold the ratios against their bars.

python -m runs.bench cpu                    all that a CPU shows; nothing else should run meanwhile
python -m runs.bench moe turns=20           one subject: analysis, attention, commands, decoders, loop, loss, moe, recurrent

Each contender's numbers are held against its plain twin's first; one that gives others is not timed. A bar holds where the 95 %
interval of the median of the paired ratios does. The table is also written to runs/out/bench/<name>.json.
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("start it as a module, from the top of the repository: python -m runs.bench")
if __name__ == "__main__":
    from .usage import answer_help

    answer_help(__doc__)  # before torch is imported

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from . import benchmark
from .benchmark.case import Case
from .benchmark.clock import measure
from .benchmark.table import line, rows
from .build.errors import ConfigError
from .command import guarded, parse
from .job.execute import environment
from .job.record import write_json
from .training.device import keep_memory

TURNS = 10
SUITES = {"cpu": ("moe", "loss", "attention", "recurrent", "decoders", "loop", "commands", "analysis")}


def bench(*, subject: str, turns: int = TURNS, threads: int | None = None, to: str = "runs/out/bench") -> None:
    """Measure a subject, or several one after the other, each case alone in memory; its rows are printed and written at once.

    Args:   subject: one of the room's, or a suite of them. turns: that count. threads: of torch; null = as many as it takes.
            to: folder for <subject>.json.
    Raises: ConfigError: there is no such subject.
    """
    if subject not in SUITES and subject not in known():
        raise ConfigError(f"{subject}: no such benchmark; there are {', '.join([*SUITES, *known()])}")
    if threads is not None:
        torch.set_num_threads(threads)
    keep_memory()
    device = torch.device("cpu")
    found: list[dict[str, object]] = []
    env = environment(device)
    print(f"{env['device']}, {torch.get_num_threads()} threads, torch {torch.__version__}, {turns} turns")
    for part in SUITES.get(subject, (subject,)):
        for case in cases(part):
            print(case.name, flush=True)
            for row in rows(case, *measure(case, turns=turns, device=device)):
                found.append({"subject": part, **row})
                print(line(row), flush=True)
            Path(to).mkdir(parents=True, exist_ok=True)
            write_json(Path(to) / f"{subject}.json", {"env": env, "turns": turns, "rows": found})


def cases(subject: str) -> Iterator[Case]:
    found: Iterator[Case] = importlib.import_module(f"{benchmark.__name__}.{subject}").cases()
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
