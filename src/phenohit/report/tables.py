"""Read the text tables of a run folder; an absent one is an empty one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from phenohit.errors import FileError

__all__ = ["number", "read_csv", "records"]


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV as text, an empty table where the file is absent or empty.

    Raises
    ------
    FileError
        If it is there and is no CSV.
    """
    if not path.is_file():
        return pd.DataFrame()
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise FileError(f"'{path}' cannot be read as CSV ({error}). Run again to make it anew.") from error


def records(table: pd.DataFrame) -> list[dict[str, str]]:
    """Return the rows as dicts of text."""
    return [{str(k): str(v) for k, v in row.items()} for row in table.to_dict("records")]


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else (text that is a number counts as one)."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None
