"""CellProfiler's tables of objects, in CSV files or SQLite databases, read block by block; and how they join.

Only what is asked for is read. Rows come in the order of the file, the same in every pass.
"""

from __future__ import annotations

import csv
import re
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from phenohit.data.columns import MISSING, Kind, kind_of, parse_numbers
from phenohit.data.delimited import NULLS, damage, header_of, quotes_in
from phenohit.errors import ColumnError, FileError, some
from phenohit.files import check_file, text_lines

__all__ = ["CsvObjects", "Objects", "SqliteObjects", "csv_images", "image_key", "join_objects", "sqlite_tables"]

_BLOCK = 1 << 24  # bytes of CSV parsed at once
_VALUES = 1 << 19  # values taken from SQLite at once: Python objects, some 30 bytes each
_SMALL = 1 << 25  # bytes of a CSV file that is kept between the two passes instead of read twice
_MOST_IMAGES = 1 << 21  # rows of an Image table, which are held as text; a plate has some thousand
_SAMPLE = 200  # rows by which the kind of a column is told


class Objects(Protocol):
    """A table with one row per object."""

    path: Path
    columns: list[str]

    def kinds(self) -> dict[str, Kind]:
        """Tell what each column holds, from the first rows."""
        ...

    def texts(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return some columns whole, as text: keys."""
        ...

    def blocks(self, columns: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks (rows, columns) in the order of the file; NaN where there is no value."""
        ...


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what damaged files raise into a FileError that names the file."""
    try:
        yield
    except (FileError, ColumnError):
        raise
    except sqlite3.Error as error:
        size = f"It is {path.stat().st_size:,} bytes long and" if path.is_file() else "It"
        hint = f"{size} may be truncated or of another kind: copy or make it again."
        if "locked" in str(error):
            hint = "Another program is writing to it: wait, or copy it."
        elif "readonly" in str(error):  # a journal lies beside it
            hint = "A program was stopped while it wrote: open it once with that program or sqlite3, then run again."
        raise FileError(f"'{path}' cannot be read ({error}). {hint}") from error
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise damage(path, error) from error


def _no_number(path: Path, column: str, shown: str) -> ColumnError:
    return ColumnError(
        f"'{path}': feature column '{column}' holds text ({shown}). Features must be numbers or empty. Correct these "
        "cells, or name the column in profiles.ignore."
    )


def _header(path: Path) -> tuple[list[str], str]:
    """Return column names and separator."""
    check_file(path)
    line, separator = header_of(path)
    with _reading(path):
        names = next(csv.reader([line], delimiter=separator, strict=True))
    doubled = pd.Index(names)[pd.Index(names).duplicated()].unique()
    if len(doubled):
        raise ColumnError(f"'{path}' has columns of the same name: {some(doubled)}. Rename or remove them.")
    return names, separator


class CsvObjects:
    """A CSV file of objects, also gzipped.

    Parameters
    ----------
    path : Path
    features : sequence of str
        Columns that `blocks` will be asked for; a small file is then parsed once, with its keys.
    """

    def __init__(self, path: Path, features: Sequence[str] = ()) -> None:
        self.path = path
        self.columns, self._separator = _header(path)
        large = 4 if path.name.lower().endswith(".gz") else 1
        there = set(self.columns) if path.stat().st_size * large <= _SMALL else set()
        self._features = [c for c in features if c in there]
        self._kept: list[pa.RecordBatch] | None = None

    def _stream(self, texts: Sequence[str], numbers: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        convert = pa_csv.ConvertOptions(
            include_columns=[*texts, *numbers],
            column_types={**dict.fromkeys(numbers, pa.float32()), **dict.fromkeys(texts, pa.string())},
            null_values=NULLS,
            strings_can_be_null=True,
        )
        parse = pa_csv.ParseOptions(delimiter=self._separator, newlines_in_values=False)
        read = pa_csv.ReadOptions(block_size=_BLOCK)
        with pa_csv.open_csv(self.path, read_options=read, parse_options=parse, convert_options=convert) as reader:
            yield from reader

    def kinds(self) -> dict[str, Kind]:
        """Tell what each column holds, from the first rows."""
        with _reading(self.path):
            first = next(self._stream(self.columns), None)
        if first is None:
            return dict.fromkeys(self.columns, "empty")
        first = first.slice(0, _SAMPLE)
        return {name: _text_kind(first.column(j)) for j, name in enumerate(self.columns)}

    def texts(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return some columns whole, as text: keys."""
        with self._explained(self._features):
            if quotes_in(self.path) % 2:
                raise FileError(
                    f"'{self.path}' has a quote that is not closed, so that rows below it would be lost. Remove it, or "
                    "make the file again."
                )
            parts = list(self._stream(columns, self._features))
        if self._features:
            self._kept = parts
        text = [pa.RecordBatch.from_arrays(p.columns[: len(columns)], names=list(columns)).to_pandas() for p in parts]
        frame = pd.concat(text, ignore_index=True) if text else pd.DataFrame({c: [] for c in columns}, dtype=str)
        return frame.astype("string").fillna("").astype(str)

    def blocks(self, columns: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks (rows, columns) in the order of the file; NaN where there is no value."""
        kept, self._kept = self._kept, None
        if kept is not None and list(columns) == self._features:
            yield from (_floats(batch, len(columns)) for batch in kept)
            return
        with self._explained(columns):
            yield from (_floats(batch, len(columns)) for batch in self._stream([], columns))

    @contextmanager
    def _explained(self, columns: Sequence[str]) -> Iterator[None]:
        """Say where the text is, if there is text among numbers."""
        try:
            with _reading(self.path):
                yield
        except FileError as error:
            if re.search("conver|parse string", str(error.__cause__)):
                raise self._text_in(columns) or error from error
            raise

    def _text_in(self, columns: Sequence[str]) -> ColumnError | None:
        """Find the first column with text; slow, for the error only."""
        for name in columns:
            found = pd.concat([b.to_pandas()[name] for b in self._stream([name])], ignore_index=True)
            odd = np.flatnonzero(parse_numbers(found)[1])
            if len(odd):
                shown = some(f"row {i}: {found.iloc[i]!r}" for i in odd).replace('"', "")
                return _no_number(self.path, name, shown)
        return None


def _text_kind(column: pa.Array) -> Kind:
    """Tell what text says; numbers, by far the most frequent, are told fast."""
    if column.null_count == len(column):
        return "empty"
    try:
        column.cast(pa.float64())
    except pa.ArrowInvalid:
        return kind_of(column.to_pandas())
    return "number"


def _floats(batch: pa.RecordBatch, n: int) -> NDArray[np.float32]:
    """Return the last `n` columns of a batch."""
    block = np.empty((batch.num_rows, n), dtype=np.float32)
    for j, column in enumerate(batch.columns[batch.num_columns - n :]):
        block[:, j] = column.to_numpy(zero_copy_only=False)
    return block


def csv_images(path: Path) -> pd.DataFrame:
    """Read keys and metadata of an Image table in CSV, as text.

    Returns
    -------
    DataFrame
        ``ImageNumber``, ``TableNumber`` where there is one, and ``Metadata_*``; a database (and some CSV)
        puts ``Image_`` before some of them.
    """
    names, separator = _header(path)
    wanted = [i for i, name in enumerate(names) if _is_image_column(name)]
    rows = []
    with _reading(path):
        limit = csv.field_size_limit(1 << 27)  # thumbnails inside the table
        try:
            for number, row in enumerate(csv.reader(text_lines(path), delimiter=separator, strict=True)):
                if len(row) != len(names):
                    raise FileError(
                        f"'{path}' is damaged: row {number} has {len(row)} of {len(names)} columns. Copy it again."
                    )
                if number:
                    rows.append([row[i] for i in wanted])
                if number > _MOST_IMAGES:
                    raise FileError(
                        f"'{path}' has more than {_MOST_IMAGES:,} rows. Expected one per image: check that it is one "
                        "run's Image table, and keep the runs apart."
                    )
        finally:
            csv.field_size_limit(limit)
    return _tidy(pd.DataFrame(rows, columns=[names[i] for i in wanted], dtype=str))


def _is_image_column(name: str) -> bool:
    short = name.removeprefix("Image_")
    return short in ("ImageNumber", "TableNumber") or short.startswith("Metadata_")


def _tidy(images: pd.DataFrame) -> pd.DataFrame:
    """Text without blanks at its ends; what says "no value" becomes ''."""
    out = {}
    for name in images.columns:
        text = images[name].astype("string").fillna("").astype(str).str.strip()
        out[name] = text.where(~text.str.lower().isin(list(MISSING)), "").astype(str)
    return pd.DataFrame(out, index=images.index)


@contextmanager
def _connect(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading only; nothing is written beside it."""
    check_file(path)
    # What is not in the file yet, or must be undone in it: SQLite has to see to that.
    logged = any(path.with_name(path.name + end).exists() for end in ("-wal", "-journal"))
    address = f"{path.absolute().as_uri()}?mode=ro{'' if logged else '&immutable=1'}"
    with _reading(path), closing(sqlite3.connect(address, uri=True)) as connection:
        connection.text_factory = lambda b: b.decode("utf-8", errors="replace")
        yield connection


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class SqliteObjects:
    """A table of objects in an SQLite database."""

    def __init__(self, path: Path, table: str) -> None:
        self.path, self.table = path, table
        with _connect(path) as connection:
            found = connection.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
        self.columns = [str(row[1]) for row in found]

    def _rows(self, columns: Sequence[str], at_once: int, limit: int = -1) -> Iterator[list[tuple]]:
        names = ", ".join(map(_quoted, columns))
        # By rowid: through an index SQLite may return keys and features in different orders.
        query = f"SELECT {names} FROM {_quoted(self.table)} ORDER BY rowid LIMIT {limit}"  # noqa: S608 - quoted names
        with _connect(self.path) as connection:
            cursor = connection.execute(query)
            while rows := cursor.fetchmany(at_once):
                yield rows

    def kinds(self) -> dict[str, Kind]:
        """Tell what each column holds, from the first rows."""
        rows = next(self._rows(self.columns, _SAMPLE, _SAMPLE), [])
        values = [[None if row[j] is None else str(row[j]) for row in rows] for j in range(len(self.columns))]
        return {name: _text_kind(pa.array(values[j], pa.string())) for j, name in enumerate(self.columns)}

    def texts(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return some columns whole, as text: keys."""
        rows = [row for part in self._rows(columns, 1 << 16) for row in part]
        return _key_text(pd.DataFrame(rows, columns=list(columns), dtype=object))

    def blocks(self, columns: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks (rows, columns) in the order of the file; NaN where there is no value."""
        for rows in self._rows(columns, max(1, _VALUES // max(len(columns), 1))):
            try:
                block = np.array(rows, dtype=np.float64)  # reads 'nan' and None as NaN
            except (ValueError, TypeError):
                block = self._parsed(rows, columns)
            with np.errstate(over="ignore"):
                yield block.astype(np.float32)

    def _parsed(self, rows: list[tuple], columns: Sequence[str]) -> NDArray[np.float64]:
        """Read text in any of its spellings, or say which column holds something else."""
        block = np.empty((len(rows), len(columns)))
        for j, name in enumerate(columns):
            found = pd.Series([repr(v) if isinstance(v := row[j], bytes) else v for row in rows], dtype=object)
            block[:, j], odd = parse_numbers(found)
            if odd.any():
                raise _no_number(self.path, name, some(found[odd].unique()))
        return block


def _key_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as text; 3.0 is 3."""
    return (
        frame.astype("string")
        .fillna("")
        .astype(str)
        .apply(lambda c: c.str.strip().str.replace(r"\.0$", "", regex=True))
    )


def sqlite_tables(path: Path) -> tuple[pd.DataFrame | None, dict[str, str]]:
    """Read the Image table of a database, and list its other tables.

    Returns
    -------
    images : DataFrame or None
        As `csv_images`; None if there is no Image table.
    tables : dict
        Name of the objects (``Cells`` of ``Cells``, ``Per_Cells`` or ``MyExpt_Per_Cells``) -> table.
    """
    with _connect(path) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        names = {re.sub(r"^.*?Per_", "", str(row[0])): str(row[0]) for row in found}
        images = next((names.pop(n) for n in list(names) if n.lower() == "image"), None)
        if images is None:
            return None, names
        columns = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({_quoted(images)})")]
        columns = [c for c in columns if _is_image_column(c)]
        query = f"SELECT {', '.join(map(_quoted, columns))} FROM {_quoted(images)} ORDER BY rowid"  # noqa: S608
        frame = pd.DataFrame(connection.execute(query).fetchall(), columns=columns, dtype=object)
    return _tidy(_key_text(frame)), names


def image_key(table: pd.Series | None, image: pd.Series) -> pd.Series:
    """Name an image within a run: its number, after the number of its table where there is one."""
    image = image.str.replace(r"\.0$", "", regex=True)
    return image if table is None else table.str.cat(image, sep="|")


def join_objects(keys: dict[str, pd.DataFrame]) -> tuple[dict[str, NDArray[np.intp]], str]:
    """Find the rows of each table that make up a cell.

    Parameters
    ----------
    keys : dict
        ``Cells``, ``Cytoplasm``, ``Nuclei`` (any of them) -> DataFrame with ``image`` (code of the image, -1
        unknown), ``object`` and ``parent_<other>`` where the table names one; all int64.

    Returns
    -------
    rows : dict
        Table -> rows, one for each cell that has all its parts.
    how : str
        How the tables were joined, for the log.
    """
    anchor = next(name for name in ("Cytoplasm", "Cells", "Nuclei") if name in keys)
    start = keys[anchor]
    rows = {anchor: np.arange(len(start))}
    whole = start["image"].to_numpy() >= 0
    how = []
    for other in [name for name in ("Cells", "Nuclei") if name in keys and name != anchor]:
        image, via = start["image"].to_numpy(), "object number"
        wanted = start["object"].to_numpy()
        if f"parent_{other}" in start:
            via, wanted = f"Parent_{other} of {anchor}", start[f"parent_{other}"].to_numpy()
        elif other == "Nuclei" and anchor == "Cytoplasm" and "parent_Nuclei" in keys.get("Cells", ()):
            via = "Parent_Nuclei of Cells"
            known = rows["Cells"] >= 0
            wanted = np.where(known, keys["Cells"]["parent_Nuclei"].to_numpy()[rows["Cells"]], 0)
        rows[other] = _lookup(keys[other], image, wanted)
        whole &= rows[other] >= 0
        how.append(f"{other} by {via}")
    return {name: found[whole] for name, found in rows.items()}, ", ".join(how)


def _lookup(table: pd.DataFrame, image: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.intp]:
    """Row of each object, -1 where there is none."""
    if not len(table):
        return np.full(len(image), -1)
    width = max(int(table["object"].max()), int(number.max(initial=0))) + 1
    index = pd.Index(table["image"].to_numpy() * width + table["object"].to_numpy())
    found = index.get_indexer(image * width + number)
    return np.where((image >= 0) & (number > 0), found, -1)
