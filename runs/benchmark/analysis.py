"""What reading costs: the table of thousands of runs, anew and after one more, and the page of a large study."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..job import record
from .case import Bar, Case, Measured, Turn, exponent
from .commands import ROOT, called, train

RUN = (
    "size=micro train.steps=100 train.batch_size=2 train.seq_len=32 train.log_every=5 train.eval_every=10 train.eval_batches=1"
)
KINDS = ("ffn=dense", "ffn=moe")  # of the runs whose records are copied
ARMS = 10
MANY, FEWER, PAGE = 10_000, 1_000, 500  # runs


def cases() -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        yield reading(Path(folder))


def reading(place: Path) -> Case:
    for kind in KINDS:
        subprocess.run(train(place / "models", f"{RUN} {kind} study.name=models"), cwd=ROOT, check=True, capture_output=True)
    models = [_record(folder) for folder in sorted((place / "models" / "models").iterdir())]
    studies = {n: study(place / str(n), models, n) for n in (FEWER, MANY, PAGE)}
    more, caches = itertools.count(MANY), (str(place / f"cache-{number}") for number in itertools.count())

    def table(n: int) -> Turn:
        return lambda: called(_load(studies[n]), ARCHLAB_CACHE=next(caches))

    def one_more() -> Sequence[Tensor]:
        copy(studies[MANY], models, next(more))
        return called(_load(studies[MANY]), ARCHLAB_CACHE=str(place / "cache"))

    called(_load(studies[MANY]), ARCHLAB_CACHE=str(place / "cache"))
    fewer, many, again, nothing = f"table of {FEWER:,}", f"table of {MANY:,}", "the same, after one new run", "import analysis"
    contenders = {
        fewer: table(FEWER),
        many: table(MANY),
        again: one_more,
        nothing: lambda: called([sys.executable, "-c", "from analysis import load"]),
        f"page of {PAGE} runs": lambda: called([sys.executable, "-m", "analysis.report", str(studies[PAGE])]),
    }

    def beside(one: str) -> Callable[[Measured], Sequence[float]]:
        """Without the import; of a busy machine the one may seem to take longer than both."""
        return lambda m: [max(both - alone, 1e-3) for both, alone in zip(m.seconds[one], m.seconds[nothing], strict=True)]

    def growth(m: Measured) -> Sequence[float]:
        alone = {name: beside(name)(m) for name in (fewer, many)}
        return exponent({FEWER: fewer, MANY: many})(Measured(alone, {}))

    bars = [
        Bar(f"seconds for the table of {MANY:,} runs, read for the first time", beside(many), at_most=5),
        Bar("seconds for it after one new run", beside(again), at_most=0.5),
        Bar(f"power of growth from {FEWER:,} to {MANY:,} runs", growth, at_most=1.1),
        Bar(f"seconds for the page of {PAGE} runs, as a command", lambda m: m.seconds[f"page of {PAGE} runs"], at_most=4),
    ]
    return Case("reading records", contenders, bars)


def study(out: Path, models: Sequence[dict[str, Any]], n: int) -> Path:
    for number in range(n):
        copy(out, models, number)
    return out


def copy(out: Path, models: Sequence[dict[str, Any]], number: int) -> None:
    """One more run: the record of a real one, under an arm and with a seed, an identity and a result of its own."""
    arm, seed = number % ARMS, number // ARMS
    model, noise = models[arm % len(models)], random.Random(number).gauss(0.01 * arm, 0.01)
    folder = out / f"arm{arm}-s{seed}-{number:08x}"
    folder.mkdir(parents=True)
    names = {"name": out.name, "arm": f"arm{arm}", "baseline": "arm0"}
    own = {"seed": seed, "label": f"arm{arm}", "arm_hash": f"{arm:064x}", "identity": f"{number:064x}"}
    record.write_json(folder / record.CONFIG, model["config"] | own | {"study": model["config"]["study"] | names})
    record.write_json(folder / record.ENV, model["env"])
    (folder / record.METRICS).write_bytes(model["rows"])
    metrics = {name: value + noise if name.startswith("val_") else value for name, value in model["summary"]["metrics"].items()}
    record.write_summary(folder, model["summary"] | {"identity": own["identity"], "metrics": metrics})


def _record(folder: Path) -> dict[str, Any]:
    return {**record.read(folder)._asdict(), "rows": (folder / record.METRICS).read_bytes()}


def _load(path: Path) -> list[str]:
    return [sys.executable, "-c", "import sys; from analysis import load; load(sys.argv[1])", str(path)]
