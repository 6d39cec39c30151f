"""Open tables made elsewhere: Parquet column by column, CSV whole; damage is reported with the file's name."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from phenohit.data.columns import MISSING
from phenohit.errors import ColumnError, FileError, nearest, some

__all__ = ["BATCH", "TableFile", "as_text", "read_any"]

BATCH = 8192  # rows held as Arrow columns at a time
_AT_ONCE = 64  # columns read together: opening a wide Parquet file for each is slow
_CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
_BLOCK = 1 << 25  # bytes of CSV parsed at once: some thousand rows of a wide table
_NULLS = ["", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "None", "null", "NULL"]


class TableFile:
    """A Parquet file read column by column, or a CSV file read whole.

    Attributes
    ----------
    path : Path
    schema : pyarrow.Schema
        Names and kinds of the columns, known without reading the rows of a Parquet file.

    Raises
    ------
    FileError
        If the file is absent, damaged or of an unknown kind.
    ColumnError
        If two columns have the same name.
    """

    def __init__(self, path: str | os.PathLike[str], text: Sequence[str] = (), *, single: bool = False) -> None:
        self.path = Path(path)
        name = self.path.name.lower()
        if not self.path.is_file():
            raise FileError(f"'{self.path}' does not exist. Give the path of an existing file.")
        self._table: Any = None
        if name.endswith(_CSV):
            self._table = _read_csv(self.path, text, pa.float32() if single else pa.float64())
            self.schema = self._table.schema
        elif name.endswith((".parquet", ".pq")):
            with self._guard():
                self.schema = pq.read_schema(self.path)
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

    def _guard(self) -> _Damaged:
        return _Damaged(self.path)

    def need(self, columns: Sequence[str], setting: str = "") -> None:
        """Raise ColumnError for the first column that is not there."""
        for column in columns:
            if column not in self.schema.names:
                asked = f" ({setting})" if setting else ""
                raise ColumnError(
                    f"'{self.path}' has no column '{column}'{asked}. {nearest(column, self.names)} "
                    "Correct the name in the settings."
                )

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return some columns."""
        if self._table is not None:
            return self._table.select(list(columns))
        with self._guard():
            return pq.read_table(self.path, columns=list(columns))

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
        with self._guard(), pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(batch_size=BATCH, columns=list(columns))


class _Damaged:
    """Turn what Arrow raises on a damaged file into a FileError that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        damage = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, pd.errors.ParserError)
        if isinstance(error, FileError) or not isinstance(error, damage):
            return
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        message = (
            f"'{self.path}' cannot be read ({said}). It is {self.path.stat().st_size:,} bytes long and may be "
            "truncated, of another kind or not UTF-8: copy or make it again."
        )
        raise FileError(message) from error


def _read_csv(path: Path, text: Sequence[str], number: pa.DataType) -> pa.Table:
    """Read a CSV file; `text` columns and all Metadata ones stay text, numbers become `number`."""
    with _Damaged(path):
        opener = gzip.open if path.name.lower().endswith(".gz") else open
        with opener(path, "rb") as handle:
            header = handle.readline().decode("utf-8-sig")
        if not header.strip():
            raise FileError(f"'{path}' is empty. Expected a table whose first line names the columns.")
        separator = max(",;\t", key=header.count)
        parse = pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True)
        nulls = {"null_values": _NULLS, "strings_can_be_null": True}
        # The kinds are guessed on the first block only: integers there may be fractions further down.
        with pa_csv.open_csv(path, parse_options=parse, convert_options=pa_csv.ConvertOptions(**nulls)) as start:
            guess = start.schema
        types = {f.name: _csv_type(f, text, number) for f in guess}
        convert = pa_csv.ConvertOptions(column_types=types, **nulls)
        try:
            read = pa_csv.ReadOptions(block_size=_BLOCK)
            return pa_csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)
        except pa.ArrowInvalid as error:
            if "conversion error" not in str(error):
                raise
        # A column has text among its numbers. Slower, but it tells which.
        frame = pd.read_csv(
            path,
            sep=separator,
            low_memory=False,
            keep_default_na=False,
            na_values=_NULLS,
            dtype={name: str for name, kind in types.items() if pa.types.is_string(kind)},
        )
        mixed = frame.select_dtypes(exclude=["number", "bool"]).columns
        frame = frame.astype({c: object for c in mixed})
        return pa.Table.from_pandas(frame, preserve_index=False)


def _csv_type(field: pa.Field, text: Sequence[str], number: pa.DataType) -> pa.DataType:
    if field.name in text or field.name.startswith(("Metadata_", "Image_Metadata_")):
        return pa.string()
    if pa.types.is_floating(field.type) or pa.types.is_integer(field.type) or pa.types.is_null(field.type):
        return number
    return pa.bool_() if pa.types.is_boolean(field.type) else pa.string()


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


def as_text(column: pa.ChunkedArray) -> pd.Series:
    """Return an Arrow column as text; missing values and their usual spellings become ''.

    Whole numbers that were stored as fractions because some are missing lose their ``.0``: plate
    1053597806 stays plate 1053597806.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    if pa.types.is_list(column.type) or pa.types.is_struct(column.type):
        return pd.Series([""] * len(column), dtype=str)
    text = column.cast(pa.string()).to_pandas().fillna("").astype(str).str.strip()
    return text.mask(text.str.lower().isin(MISSING), "").astype(str)
