"""Open tables made elsewhere: Parquet column by column, CSV whole; damage is reported with the file's name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phenohit.data.columns import MISSING
from phenohit.data.delimited import Damaged, damage, header_of, read_delimited
from phenohit.errors import ColumnError, FileError, nearest, some
from phenohit.files import check_file

__all__ = ["BATCH", "Damaged", "TableFile", "as_text", "damage", "header_of", "read_any", "read_text"]

BATCH = 8192  # rows held as Arrow columns at a time
_AT_ONCE = 64  # columns read together: opening a wide Parquet file for each is slow
_CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")


class TableFile:
    """A Parquet file read column by column, or a CSV file read whole.

    Attributes
    ----------
    path : Path
    schema : pyarrow.Schema
        Names and kinds of the columns, known without reading the rows of a Parquet file.
    n_rows : int
        Rows that are read: all, or those kept by `keep`.
    decimal : str
        What divides whole numbers from fractions in a text table: ``.`` or ``,``.

    Raises
    ------
    FileError
        If the file is absent, damaged or of an unknown kind.
    ColumnError
        If two columns have the same name.
    """

    def __init__(self, path: str | os.PathLike[str], text: Sequence[str] | None = (), *, single: bool = False) -> None:
        self.path = Path(path)
        name = self.path.name.lower()
        check_file(self.path)
        self._table: Any = None
        self._groups: list[int] | None = None  # row groups of a Parquet file that hold the rows that are kept
        self._mask: NDArray[np.bool_] | None = None  # which rows of these groups
        self.decimal = "."
        if name.endswith(_CSV):
            self._table, self.decimal = read_delimited(self.path, text, pa.float32() if single else pa.float64())
            self.schema, self.n_rows = self._table.schema, self._table.num_rows
        elif name.endswith((".parquet", ".pq")):
            with self._guard(), self._parquet() as file:
                self.schema, self.n_rows = file.schema_arrow, file.metadata.num_rows
                sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
            self._starts = np.cumsum([0, *sizes])
        else:
            raise FileError(
                f"'{self.path}' is of an unknown kind. Expected .parquet, .csv, .csv.gz or .tsv: rename or convert it."
            )
        index = pd.Index(self.schema.names)
        if index.has_duplicates:
            doubled = some(index[index.duplicated()].unique())
            raise ColumnError(f"'{self.path}' has columns of the same name: {doubled}. Rename or remove them.")

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    def _parquet(self) -> pq.ParquetFile:
        # Arrow's own reading ahead keeps the bytes of the whole file in memory.
        return pq.ParquetFile(self.path, pre_buffer=False)

    def _guard(self) -> Damaged:
        return Damaged(self.path)

    def need(self, columns: Sequence[str], setting: str = "") -> None:
        """Raise ColumnError for the first column that is not there."""
        for column in columns:
            if column not in self.schema.names:
                asked = f" ({setting})" if setting else ""
                raise ColumnError(
                    f"'{self.path}' has no column '{column}'{asked}. {nearest(column, self.names)} "
                    "Correct the name in the settings."
                )

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Read only some of the rows from now on: ``rows`` is True for those, of the rows read until now.

        Row groups of a Parquet file that hold none of them are not read at all.
        """
        if rows.all():
            return
        self.n_rows = int(rows.sum())
        if self._table is not None:
            self._table = self._table.filter(pa.array(rows))
            return
        whole = np.zeros(self._starts[-1], dtype=bool)
        whole[self._positions()] = rows
        bounds = list(zip(self._starts[:-1], self._starts[1:], strict=True))
        self._groups = [g for g, (start, end) in enumerate(bounds) if whole[start:end].any()]
        parts = [whole[bounds[g][0] : bounds[g][1]] for g in self._groups]
        self._mask = np.concatenate(parts) if parts else np.zeros(0, dtype=bool)

    def _positions(self) -> NDArray[np.intp]:
        """Rows of the file that are kept."""
        if self._groups is None or self._mask is None:
            return np.arange(self._starts[-1])
        spans = [np.arange(self._starts[g], self._starts[g + 1]) for g in self._groups]
        return np.concatenate(spans)[self._mask] if spans else np.zeros(0, dtype=np.intp)

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return some columns."""
        if self._table is not None:
            return self._table.select(list(columns))
        with self._guard(), self._parquet() as file:
            if self._groups is None:
                return file.read(columns=list(columns))
            return file.read_row_groups(self._groups, columns=list(columns)).filter(pa.array(self._mask))

    def columns(self, names: Sequence[str]) -> Iterator[tuple[str, pa.ChunkedArray]]:
        """Yield columns with their names, a few of them in memory at a time."""
        for start in range(0, len(names), _AT_ONCE):
            part = self.read(names[start : start + _AT_ONCE])
            yield from zip(part.column_names, part.columns, strict=True)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield blocks of rows of some columns."""
        if self._table is not None:
            yield from self._table.select(list(columns)).to_batches(max_chunksize=BATCH)
            return
        with self._guard(), self._parquet() as file:
            if self._groups == []:
                return
            done = 0
            for batch in file.iter_batches(batch_size=BATCH, row_groups=self._groups, columns=list(columns)):
                if self._mask is None:
                    yield batch
                    continue
                yield batch.filter(pa.array(self._mask[done : done + len(batch)]))
                done += len(batch)

    def history(self) -> tuple[str, ...]:
        """Return the history of a table that `Profiles.save` wrote; empty for any other."""
        try:
            meta = json.loads((self.schema.metadata or {}).get(b"phenohit", b"{}"))
            found = meta.get("history", [])
        except (ValueError, AttributeError):
            return ()
        return tuple(map(str, found)) if isinstance(found, list) else ()


def read_any(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None, *, text: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a Parquet, CSV, CSV.gz or TSV table.

    Parameters
    ----------
    path : path
        The separator of a text table (comma, semicolon or tab) is taken from its first line.
    columns : sequence of str, optional
        Only these.
    text : sequence of str
        Columns of a text table that stay text although they look like numbers (ids).

    Raises
    ------
    FileError
        If the file is absent, damaged or of an unknown kind.
    ColumnError
        If a column is absent, or two have the same name.
    """
    table = TableFile(path, text)
    if columns is not None:
        table.need(columns)
    return table.read(table.names if columns is None else columns).to_pandas(ignore_metadata=True)


def read_text(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table with every column as text: '' where there is no value, plate 0017 with its zeros.

    Raises
    ------
    FileError, ColumnError
        As `read_any`.
    """
    table = TableFile(path, None)
    arrow = table.read(table.names)
    return pd.DataFrame({name: as_text(arrow[name]) for name in table.names}, index=range(arrow.num_rows))


def as_text(column: pa.ChunkedArray) -> pd.Series:
    """Return an Arrow column as text; missing values and their usual spellings become ''.

    Whole numbers that were stored as fractions because some are missing lose their ``.0``: plate
    1053597806 stays plate 1053597806.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    if pa.types.is_nested(column.type):
        return pd.Series([""] * len(column), dtype=str)
    try:
        text = column.cast(pa.string()).to_pandas()
    except pa.ArrowException:  # bytes that are no text, a kind without a spelling of its own
        text = column.to_pandas().map(lambda v: v.decode(errors="replace") if isinstance(v, bytes) else v)
    text = text.fillna("").astype(str).str.strip()
    return text.mask(text.str.lower().isin(MISSING), "").astype(str)
