"""Tables as CSV that a spreadsheet opens without executing any of it."""

from __future__ import annotations

import re

import pandas as pd
from pandas.api.types import is_numeric_dtype

FORMULA = re.compile(r"""[\s"']*[=+\-@]|\s*[\t\r]""")  # how a cell begins that a spreadsheet would execute


def csv(table: pd.DataFrame) -> bytes:
    """The table's bytes; text that would be a formula gets a leading apostrophe, numbers stay numbers."""
    safe = {name: values if is_numeric_dtype(values) else _cells(values) for name, values in table.items()}
    return pd.DataFrame(safe).rename(columns=_cell).to_csv(index=False, lineterminator="\n").encode()


def _cells(values: pd.Series) -> pd.Series:
    """Each text is looked at once: a column names a few things many times."""
    unsafe = {text: cell for text in values.unique() if (cell := _cell(text)) is not text}
    return values.map(lambda value: unsafe.get(value, value)) if unsafe else values


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("\r", "\n")  # which is quoted; a bare \r is not, and would begin a row
    return f"'{text}" if FORMULA.match(value) else text
