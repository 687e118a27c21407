"""Tables as CSV that a spreadsheet opens without executing any of it."""

from __future__ import annotations

import re

import pandas as pd
from pandas.api.types import is_numeric_dtype

FORMULA = re.compile(r"""[\s"']*[=+\-@]|\s*[\t\r]""")  # how a cell begins that a spreadsheet would execute


def csv(table: pd.DataFrame) -> bytes:
    """The table's bytes; text that would be a formula gets a leading apostrophe, numbers stay numbers."""
    safe = {name: values if is_numeric_dtype(values) else values.map(_cell) for name, values in table.items()}
    return pd.DataFrame(safe).rename(columns=_cell).to_csv(index=False, lineterminator="\n").encode()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("\r", "\n")  # which is quoted; a bare \r is not, and would begin a row
    return f"'{text}" if FORMULA.match(value) else text
