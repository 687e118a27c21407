"""Name maps: how the tensors of a published layout and ours are the same numbers under other names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

Tensors = list[Tensor]
State = dict[str, Tensor]


class Operation(NamedTuple):
    """A change of layout that loses nothing: a list of their tensors -> a list of ours, and back."""

    forward: Callable[[Tensors], Tensors]
    backward: Callable[[Tensors], Tensors]


def rearranged(theirs: str, ours: str) -> Operation:
    """Axes of each tensor, as einops spells them."""
    return Operation(
        lambda ts: [rearrange(t, f"{theirs} -> {ours}") for t in ts],
        lambda ts: [rearrange(t, f"{ours} -> {theirs}") for t in ts],
    )


TRANSPOSE = rearranged("i o", "o i")  # matrices of a Conv1D
SQUEEZE = rearranged("1 n", "n")
STACK = Operation(lambda ts: [torch.stack(ts)], lambda ts: list(ts[0].unbind()))  # one matrix per expert -> a bank


def split(*rows: int) -> Operation:
    """One tensor -> several, cut between rows: as many in each as given."""
    return Operation(lambda ts: list(ts[0].split(rows)), lambda ts: [torch.cat(ts)])


def chunks(n: int) -> Operation:
    """One tensor -> n of equally many rows."""
    return Operation(lambda ts: list(ts[0].chunk(n)), lambda ts: [torch.cat(ts)])


def reorder(there: Tensor, dim: int = 0) -> Operation:
    """Row (or column) i of ours is row there[i] of theirs; each row exactly once."""
    back = there.argsort()

    def picked(t: Tensor, rows: Tensor) -> Tensor:
        if t.shape[dim] != len(rows):
            raise ValueError(f"{len(rows)} rows are expected")
        return t.index_select(dim, rows.to(t.device))

    return Operation(lambda ts: [picked(t, there) for t in ts], lambda ts: [picked(t, back) for t in ts])


class Rule(NamedTuple):
    """These tensors of theirs, through these operations one after the other, are those tensors of ours."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    operations: tuple[Operation, ...] = ()


def rule(theirs: str | Sequence[str], ours: str | Sequence[str], *operations: Operation) -> Rule:
    return Rule(_tuple(theirs), _tuple(ours), operations)


def _tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def renames(theirs: str, ours: str, table: Mapping[str, str], leaves: Iterable[str] = ("weight",)) -> list[Rule]:
    """A rule per module of a table (their name under the prefix theirs -> our name under ours) and leaf."""
    return [rule(f"{theirs}{t}.{leaf}", f"{ours}{o}.{leaf}") for t, o in table.items() for leaf in leaves]


@dataclass(frozen=True)
class NameMap:
    """All tensors of one model, each in exactly one rule. Tensors on the meta device have shapes to check and no numbers.

    Args:   rules: what is what. their_copies, our_copies: copy -> original, of a tensor that goes by several names;
            theirs may be left out of a file. fixed: tensors of theirs that a formula gives; they may be left out too.
            spellings: (pattern, replacement) for names of theirs that older files write otherwise; None = not a weight.
    Raises: ValueError: a name without a rule, a rule without a tensor, a copy that differs, a shape that does not fit.
    """

    rules: Sequence[Rule]
    their_copies: Mapping[str, str] = field(default_factory=dict)
    our_copies: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)
    spellings: Sequence[tuple[str, str | None]] = ()

    def to_ours(self, theirs: Mapping[str, Tensor]) -> State:
        state = self._respelled(theirs)
        for name in [name for name in state if name in self.fixed]:
            if not _follows(self.fixed[name], state.pop(name)):
                raise ValueError(f"{name} holds other numbers than its formula gives, so it cannot be left out")
        ours = _apply([(r.theirs, r.ours, [o.forward for o in r.operations]) for r in self.rules], state, self.their_copies)
        return ours | {copy: ours[original] for copy, original in self.our_copies.items()}

    def to_theirs(self, ours: Mapping[str, Tensor]) -> State:
        inverse = [(r.ours, r.theirs, [o.backward for o in reversed(r.operations)]) for r in self.rules]
        theirs = _apply(inverse, dict(ours), self.our_copies)
        return (
            theirs
            | {copy: theirs[original] for copy, original in self.their_copies.items()}
            | {name: formula() for name, formula in self.fixed.items()}
        )

    def _respelled(self, theirs: Mapping[str, Tensor]) -> State:
        state: State = {}
        for name, tensor in theirs.items():
            today = self._spelling(name)
            if today in state:
                raise ValueError(f"{name}: these weights hold {today} twice")
            if today is not None:
                state[today] = tensor
        return state

    def _spelling(self, name: str) -> str | None:
        for pattern, replacement in self.spellings:
            if re.search(pattern, name):
                if replacement is None:
                    return None
                name = re.sub(pattern, replacement, name)
        return name


Step = tuple[tuple[str, ...], tuple[str, ...], list[Callable[[Tensors], Tensors]]]


def _apply(steps: Sequence[Step], state: State, copies: Mapping[str, str]) -> State:
    """Take every tensor out of the state by its rule; what is left over or missing is an error."""
    wanted = {name for sources, _, _ in steps for name in sources}
    missing, unknown = wanted - state.keys(), state.keys() - wanted - copies.keys()
    if unknown:
        raise ValueError(f"{_some(unknown, missing or wanted)}: no such tensor in this layout")
    if missing:
        raise ValueError(f"{_some(missing, ())}: missing from these weights")
    for copy, original in copies.items():
        if copy in state and not _equal(state[copy], state[original]):
            raise ValueError(f"{copy} differs from {original}, but this layout ties them")
    done: State = {}
    for sources, targets, functions in steps:
        tensors = [state[name] for name in sources]
        try:
            for function in functions:
                tensors = function(tensors)
            done.update(zip(targets, tensors, strict=True))
        except (RuntimeError, IndexError, ValueError) as error:
            shapes = ", ".join(f"{name} {tuple(state[name].shape)}" for name in sources)
            why = " ".join(str(error).split())
            raise ValueError(f"{shapes}: does not become {', '.join(targets)} ({why})") from None
    return done


def _follows(formula: Callable[[], Tensor], given: Tensor) -> bool:
    with torch.device("meta"):  # what it says may be of any size
        shape = formula().shape
    return given.shape == shape and (given.is_meta or torch.allclose(given, formula().to(given), atol=1e-4))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and (a.is_meta or torch.equal(a, b))


def _some(names: Iterable[str], known: Iterable[str]) -> str:
    """The first names, each with the known one that was probably meant, and how many more there are."""
    ordered = sorted(names)
    first = []
    for name in ordered[:3]:
        close = difflib.get_close_matches(name, sorted(known), n=1)
        first.append(f"{name} (did you mean {close[0]}?)" if close else name)
    return ", ".join(first) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")
