"""The hit list as files: Parquet, CSV, SD file, pick lists, summary."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenohit.files import write_json, write_table

__all__ = ["CSV_ROWS", "HIT_COLUMNS", "LIST_COLUMNS", "Hits", "neutralise"]

CSV_ROWS = 10  # hits.csv holds the top of the ranking, this many times the number of picks

# Columns of every hit table. Those of the other filters in use follow `pains`; `off_target_score` follows them.
HIT_COLUMNS = [
    "task", "rank", "picked", "pick_order", "compound", "compound_id", "smiles", "score", "percentile", "pains",
    "series", "cluster", "scaffold", "new_scaffold", "nearest_active", "nearest_active_smiles",
    "nearest_similarity", "plate", "well", "reason",
]  # fmt: skip

LIST_COLUMNS = [
    "source_plate", "source_well", "destination_plate", "destination_well", "compound_id", "smiles", "volume_nl",
    "concentration_uM",
]  # fmt: skip

# What a spreadsheet takes for a formula at the start of a cell; the wide forms are taken alike in some locales.
_FORMULA = r"^(?:[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])"


def neutralise(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with text that a spreadsheet would run as a formula made harmless.

    Text cells that begin with ``=``, ``+``, ``-``, ``@``, a tab or a line break get an apostrophe in
    front. Numbers, also those written as text (``-5.2``), stay as they are.

    Examples
    --------
    >>> neutralise(pd.DataFrame({"id": ["=1+1", "-5.2", "A1"]}))["id"].tolist()
    ["'=1+1", '-5.2', 'A1']
    """
    safe = table.copy()
    for column in safe.columns:
        values = safe[column]
        if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            continue
        text = values.astype(object)
        words = text.where(text.map(lambda v: isinstance(v, str)), "")
        risky = words.str.contains(_FORMULA, regex=True) & pd.to_numeric(words, errors="coerce").isna()
        if risky.any():
            safe[column] = text.where(~risky, "'" + words)
    return safe


@dataclass(frozen=True, eq=False)
class Hits:
    """What to test next for one task.

    Attributes
    ----------
    table : DataFrame
        All ranked candidates, best first, columns `HIT_COLUMNS` and one per filter in use.
    picklist : DataFrame
        Transfers of the picks, columns `LIST_COLUMNS`.
    echo : DataFrame
        The same for an Echo (`phenohit.hits.picklist.ECHO_COLUMNS`).
    dropped : DataFrame
        Everything left out on the way, with reasons.
    summary : dict
        Counts, settings, ``warnings`` and ``notes``; ready for JSON.
    """

    table: pd.DataFrame
    picklist: pd.DataFrame
    echo: pd.DataFrame
    dropped: pd.DataFrame
    summary: dict[str, Any]

    @property
    def picked(self) -> pd.DataFrame:
        """The picks, in pick order."""
        return self.table[self.table["picked"]].sort_values("pick_order", ignore_index=True)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write the six files of a hit list; each whole or not at all.

        ``hits.parquet`` (all candidates), ``hits.csv`` (the top ``10 * n`` of the ranking and every
        pick), ``hits.sdf`` (the picks that have a structure), ``picklist.csv``, ``echo.csv`` and
        ``summary.json``. Text in the CSV files is made safe for spreadsheets (see `neutralise`).

        Raises
        ------
        FileError
            If the disk is full or the folder cannot be written.
        """
        from phenohit.chem.sdf_write import write_sdf

        folder = Path(folder)
        write_table(folder / "hits.parquet", self.table, meta={"kind": "hits", "task": str(self.summary["task"])})
        top = (self.table["rank"] <= CSV_ROWS * self.summary["n_asked"]) | self.table["picked"]
        write_table(folder / "hits.csv", neutralise(self.table[top]))
        picked = self.picked
        write_sdf(
            folder / "hits.sdf",
            picked["smiles"].tolist(),
            picked["compound_id"].tolist(),
            picked.drop(columns=["picked"]),
        )
        write_table(folder / "picklist.csv", neutralise(self.picklist))
        write_table(folder / "echo.csv", neutralise(self.echo))
        write_json(folder / "summary.json", plain(self.summary))


def plain(value: Any) -> Any:
    """Return the value in types that JSON knows; what is not a finite number becomes None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
