"""Learning the vocabulary of WordPiece: which pair of symbols is merged into a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

PREFIX = "##"  # of a symbol inside a word


def learn(
    words: Mapping[str, int], *, vocab_size: int, alphabet: Sequence[str] = (), min_count: int | None = None
) -> list[str]:
    """Merge the pair of the highest freq(pair) / (freq(a) * freq(b)), over and over; the symbols, in the order learnt.

    All frequencies are those of the words as they are spelt by then. Of equal scores the commoner pair is merged first,
    then the one that is first in the alphabet, so the order of the words does not matter.

    Args: words: word -> how often it occurs. vocab_size: symbols at most; fewer if no pair is left.
          alphabet: symbols to begin with, before those that the words are written in.
          min_count: pairs that occur less often are left alone; 1: none is; None: as many as the commonest pair at first,
          and half as many whenever no pair is left.
    """
    spelling = Spelling(words, alphabet)
    floor = min_count or spelling.commonest()
    while len(spelling.symbols) < vocab_size:
        pair = spelling.best(floor)
        if pair is not None:
            spelling.merge(pair)
        elif min_count is None and floor > 1:
            floor //= 2
        else:
            break
    return spelling.symbols


class Spelling:
    """Words as rows of symbols, with the up-to-date counts of all symbols and all pairs.

    Counts are arrays, so that one division scores every pair; a merge touches only the words that it is in.
    """

    def __init__(self, words: Mapping[str, int], alphabet: Sequence[str]) -> None:
        self.symbols: list[str] = []
        self._ids: dict[str, int] = {}
        self._freqs = np.zeros(1024, dtype=np.int64)  # of symbols
        self._pairs: dict[tuple[int, int], int] = {}  # -> its index in the two arrays
        self._ends = np.zeros((2, 1024), dtype=np.int64)  # the two symbols of each pair
        self._counts = np.zeros(1024, dtype=np.int64)  # of pairs
        self._where: list[set[int]] = []  # the words that each pair is in
        for symbol in alphabet:
            self._id(symbol)
        self._times = list(words.values())
        self._words = [[self._id(PREFIX * (i > 0) + letter) for i, letter in enumerate(word)] for word in words]
        for word in range(len(self._words)):
            self._count(word, +1)

    def commonest(self) -> int:
        """How often the commonest pair occurs."""
        return int(self._counts.max())

    def best(self, floor: int) -> tuple[int, int] | None:
        """The pair of the highest score among those that occur at least ``floor`` times."""
        candidates = np.flatnonzero(self._counts[: len(self._where)] >= max(floor, 1))
        if not len(candidates):
            return None
        a, b = self._ends[:, candidates]
        scores = self._counts[candidates] / (self._freqs[a] * self._freqs[b])
        ties = candidates[scores == scores.max()]
        left, right = min(self._order(i) for i in ties.tolist())[1:]
        return self._ids[left], self._ids[right]

    def merge(self, pair: tuple[int, int]) -> None:
        """Write the pair as one symbol wherever it is, from left to right."""
        merged = self._id(self.symbols[pair[0]] + self.symbols[pair[1]].removeprefix(PREFIX))
        for word in list(self._where[self._pairs[pair]]):
            self._count(word, -1)
            self._words[word] = rewritten(self._words[word], pair, merged)
            self._count(word, +1)

    def _order(self, index: int) -> tuple[int, str, str]:
        left, right = self._ends[:, index].tolist()
        return -int(self._counts[index]), self.symbols[left], self.symbols[right]

    def _count(self, word: int, sign: int) -> None:
        row, times = self._words[word], sign * self._times[word]
        for symbol in row:
            self._freqs[symbol] += times
        for pair in pairwise(row):
            index = self._index_of(pair)
            self._counts[index] += times
            if sign > 0:
                self._where[index].add(word)
            else:
                self._where[index].discard(word)

    def _index_of(self, pair: tuple[int, int]) -> int:
        index = self._pairs.setdefault(pair, len(self._where))
        if index == len(self._where):
            self._where.append(set())
            if index == len(self._counts):
                self._counts, self._ends = doubled(self._counts), doubled(self._ends)
            self._ends[:, index] = pair
        return index

    def _id(self, symbol: str) -> int:
        """Two ways to the same symbol are one: a + ##bc is ab + ##c."""
        found = self._ids.setdefault(symbol, len(self.symbols))
        if found == len(self.symbols):
            self.symbols.append(symbol)
            if found == len(self._freqs):
                self._freqs = doubled(self._freqs)
        return found


def doubled(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, np.zeros_like(array)], axis=-1)


def rewritten(row: list[int], pair: tuple[int, int], merged: int) -> list[int]:
    new: list[int] = []
    for symbol in row:
        if new and (new[-1], symbol) == pair:
            new[-1] = merged
        else:
            new.append(symbol)
    return new
