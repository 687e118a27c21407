"""The files of a record: how they are written, read and told whole. Standard library only; nothing is executed.

config.yaml (people)  config.json (resolved)  metrics.jsonl (append-only)  summary.json (atomic)  env.json  checkpoint/

Every JSON file ends with a digest of its own text, and the summary of a run that ended lists its other files with theirs.
So damage is found; forgery is not, since whoever can write the files can write their digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA = 3  # of the files below; records of another one are trained anew
CONFIG, SUMMARY, METRICS, ENV = "config.json", "summary.json", "metrics.jsonl", "env.json"
TIMING = "timing.json"  # beside them, where a run was timed: in turns with the others of its study
PLAN = "plan.json"  # of a study: the runs that were asked for, whether they have begun or not
CHECKPOINT = "checkpoint/state.safetensors"
FILES = (CONFIG, ENV, METRICS, CHECKPOINT)  # those that the summary lists
STATUSES = ("done", "failed", "diverged", "unfinished")
ENDED = ("done", "diverged")  # nothing is left to do
# Train keys that change how a run is watched, or beside what else, and not what it learns.
HABITS = ("log_every", "checkpoint_every", "decode_tokens", "stack")
SEAL = ',\n  "digest": "'  # what stands between the content of a file and the SHA-256 of the text before it
COSTS = ("total_params", "active_params", "flops_per_token", "train_flops", "state_bytes")  # of summary.json, computed
SPEEDS = ("tokens_per_s", "step_ms", "mfu", "peak_memory_bytes", "decode_ms")  # and measured
TIMED = ("tokens_per_s", "step_ms", "mfu", "decode_ms")  # those that timing.json has
TRIALS = "-tuning"  # ends the name of the study that an arm's trials belong to


class RecordError(Exception):
    """A file of a record that cannot be read or written: one line, with what to do."""


class Record(NamedTuple):
    """What a run has written but its rows and weights; an empty object stands for a file that is not there yet."""

    config: dict[str, Any]
    env: dict[str, Any]
    summary: dict[str, Any]

    @property
    def status(self) -> str:
        return str(self.summary.get("status", "unfinished"))


def read(path: Path, *, weights: bool = False) -> Record:
    """A run's record, held against its digests. weights: the checkpoint's bytes too, else its size alone.

    Raises: RecordError: the first thing that is damaged, missing, or of another version or run.
    """
    folder, there = str(path), refuse_links(path)  # text: of thousands of runs the Paths would take longer than the files
    texts = {CONFIG: _bytes(f"{folder}/{CONFIG}")}
    config = _of_this_version(folder, texts[CONFIG])
    texts |= {name: _bytes(f"{folder}/{name}") for name in (ENV, SUMMARY) if name in there}
    env, summary = (_unsealed(f"{folder}/{name}", texts[name]) if name in texts else {} for name in (ENV, SUMMARY))
    found = Record(config, env, summary)
    if not summary:
        return found
    if found.status not in STATUSES or summary.get("identity") != config.get("identity"):
        raise _damaged(f"{folder}/{SUMMARY}", "it is not this run's")
    listed = summary.get("files")
    if not isinstance(listed, dict):
        raise _damaged(f"{folder}/{SUMMARY}", "it lists no files")
    for name in FILES:
        file, told = f"{folder}/{name}", listed.get(name)
        if told is None and (name == CHECKPOINT or found.status not in ENDED):
            continue
        if not os.path.isfile(file) or not isinstance(told, dict):
            raise _damaged(file, "it is gone" if told else f"{SUMMARY} does not list it")
        size = len(texts[name]) if name in texts else os.stat(file).st_size
        if size != told.get("bytes"):
            raise _damaged(file, f"it has {size:,} bytes, and had {told.get('bytes')}")
        if (weights or name != CHECKPOINT) and told.get("sha256") != (_digest(texts[name]) if name in texts else sha256(file)):
            raise _damaged(file, "its bytes are not those that were written")
    return found


def read_config(path: Path) -> dict[str, Any]:
    """Raises RecordError: damaged, of another version, or beside a link."""
    refuse_links(path)
    return _of_this_version(str(path), _bytes(f"{path}/{CONFIG}"))


def _of_this_version(folder: str, text: bytes) -> dict[str, Any]:
    config = _unsealed(f"{folder}/{CONFIG}", text)
    if config.get("schema") != SCHEMA:
        raise RecordError(f"{folder}/{CONFIG}: an earlier version of this program has made it; train the run anew")
    return config


def status(path: Path) -> str:
    """One of STATUSES, as the summary says; unfinished where none was written."""
    if not (path / SUMMARY).exists():
        return "unfinished"
    found = read_json(path / SUMMARY).get("status")
    if found not in STATUSES:
        raise _damaged(path / SUMMARY, f"its status is {found!r}")
    return str(found)


def mend(path: Path) -> list[str]:
    """Put aside what is damaged in a run's record, so that the run is done again from its last good state. What it was, a
    line each. Raises RecordError: a link, or another process in the folder."""
    if not path.is_dir():
        return []
    with claim(path):
        return put_aside_damage(path)


def put_aside_damage(path: Path) -> list[str]:
    """As ``mend``, for who holds the folder."""
    found = []
    for name in (CONFIG, ENV, SUMMARY):
        try:
            if (path / name).exists():
                read_json(path / name)
        except RecordError as error:
            found.append(f"{error}; put aside")
            put_aside(path / name)
    try:
        if status(path) in ENDED:
            read(path, weights=True)
    except RecordError as error:
        found.append(f"{error}; put aside with the summary")
        put_aside(path / SUMMARY)
    return found


def put_aside(file: Path) -> None:
    """Under a name that nothing reads."""
    file.replace(file.with_name(f"{file.name}.damaged"))


def labels(study: Path) -> dict[tuple[str | None, str], str]:
    """What the arms in a study's folder are called: (given name, hash) -> label. A record that cannot be read has no say."""
    found = {}
    for file in sorted(study.glob(f"*/{CONFIG}")):
        with contextlib.suppress(RecordError, OSError, KeyError, TypeError):
            config = read_json(file)
            found[config["study"]["arm"], config["arm_hash"]] = str(config["label"])
    return found


def read_json(path: Path | str) -> dict[str, Any]:
    """The content of a sealed file. Raises RecordError: it is not there, or not as it was written."""
    return _unsealed(str(path), _bytes(str(path)))


def _bytes(file: str) -> bytes:
    try:
        with open(file, "rb", buffering=0) as content:
            return content.read()
    except FileNotFoundError:
        raise _damaged(file, "it is gone") from None


def _unsealed(file: str, sealed: bytes) -> dict[str, Any]:
    try:
        body, _, seal = sealed.decode().rpartition(SEAL)
        if not seal:
            raise ValueError("it has no digest: it was cut, or an earlier version of this program has made it")
        whole = f"{body}\n}}"
        if seal != f'{_digest(whole)}"\n}}\n':
            raise ValueError("its text is not the one that was written")
        content = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, "nested too deeply" if isinstance(error, RecursionError) else str(error)) from None
    if not isinstance(content, dict):
        raise _damaged(file, f"an object was expected, not {type(content).__name__}")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, and sealed: a reader never sees half a file."""
    text = json.dumps(content, indent=2, allow_nan=False)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with named(path), open(scratch, "w", encoding="utf-8") as file:
            file.write(text.removesuffix("\n}") + f'{SEAL}{_digest(text)}"\n}}\n')
            file.flush()
            os.fsync(file.fileno())
        replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_plan(study: Path, runs: dict[str, dict[str, Any]]) -> None:
    """Note which runs a study is to have, by folder, beside those of earlier commands. runs: arm, seed and steps of each."""
    study.mkdir(parents=True, exist_ok=True)
    try:
        earlier = read_json(study / PLAN)["runs"]
    except (RecordError, OSError, KeyError):
        earlier = {}
    if earlier | runs != earlier:
        write_json(study / PLAN, {"runs": earlier | runs})


def replace(scratch: Path, path: Path) -> None:
    """One file for another at once, also where the power fails."""
    os.replace(scratch, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_summary(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """How a run ended, with what its other files are then. The summary."""
    there = {name: path / name for name in FILES if (path / name).is_file()}
    files = {name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for name, file in there.items()}
    summary = {**content, "files": files}
    write_json(path / SUMMARY, summary)
    return summary


def sha256(*files: Path | str) -> str:
    """Of the files' bytes, one after the other."""
    found = hashlib.sha256()
    for file in files:
        with open(file, "rb") as content:
            while part := content.read(2**22):
                found.update(part)
    return found.hexdigest()


def refuse_links(path: Path) -> set[str]:
    """A run's folder holds plain files alone: a link in somebody else's would lead what is written to another place. Their
    names."""
    names = _plain(str(path))
    if "checkpoint" in names:
        _plain(f"{path}/checkpoint")
    return names


def _plain(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    for entry in entries:
        if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            kind = "a link" if entry.is_symlink() else "no plain file"
            raise RecordError(f"{entry.path}: it is {kind}, and a run's folder holds none; remove it, or put the file there")
    return {entry.name for entry in entries}


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity: they become null."""
    return value if math.isfinite(value) else None


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """An error of the system meanwhile says which file it was about, as it does not where a disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def claim(path: Path) -> Iterator[None]:
    """Hold a run's folder; a second process in it is refused. The claim ends with the process, however it ends."""
    import fcntl

    path.mkdir(parents=True, exist_ok=True)
    refuse_links(path)
    with open(path / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise RecordError(
                f"{path}: process {file.read().strip()} is running this very run; wait for it, or end it"
            ) from None
        with named(path / ".lock"):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def _digest(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def _damaged(file: Path | str, why: str) -> RecordError:
    return RecordError(f"{file}: damaged ({why}); give the run's command again, or delete its folder")
