"""Rows as columns, which thousands of them take less time and room as."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

Columns = dict[str, list[Any]]


def by_column(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> Columns:
    """Rows that need not have the same columns; None where one has not. names: columns to begin with."""
    order = dict.fromkeys(names)
    for one in rows:
        order.update(dict.fromkeys(one))
    return {name: [one.get(name) for one in rows] for name in order}


def table(columns: Columns) -> pd.DataFrame:
    """Column by column with the type that pandas finds in its values; of those that all rows share it looks at one."""
    n = len(next(iter(columns.values()), []))
    plain = {
        name: values[0] if is_shared(values) and type(values[0]) is not int else values for name, values in columns.items()
    }
    return pd.DataFrame(plain, index=range(n))


def is_shared(values: list[Any]) -> bool:
    """Whether all are the same, in type too: True is no 1."""
    return bool(values) and values.count(values[0]) == len(values) and len(set(map(type, values))) == 1


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Without the search for circles of objects: tables have none, and would be searched again and again as they grow."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
