"""Text tables (CSV, TSV; gzipped or not): what separates them, whether they are whole, and their columns.

A file that is damaged, no table, or made to fill the memory is refused by name, with what to do.
"""

from __future__ import annotations

import csv
import re
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from phenohit.errors import FileError
from phenohit.files import LONGEST_LINE, open_bytes, unreadable

__all__ = ["NULLS", "Damaged", "damage", "header_of", "quotes_in", "read_delimited"]

NULLS = ["", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "None", "null", "NULL"]
_BLOCK = 1 << 25  # bytes of CSV parsed at once: some thousand rows of a wide table; no row may be longer
_WIDEST = 1 << 20  # columns; more are no table but something to fill the memory


class Damaged:
    """Turn what Arrow raises on a damaged file into a FileError that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        kinds = (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error)
        if isinstance(error, kinds) and not isinstance(error, FileError):
            raise damage(self.path, error) from error


def damage(path: Path, error: Exception) -> FileError:
    """Return the error for a table that cannot be read: what is wrong with it as far as can be told, and what to do."""
    if isinstance(error, OSError) and error.errno is not None and not path.is_file():  # it was there before
        return unreadable(path, error)
    if isinstance(error, PermissionError):
        return unreadable(path, error)
    lines = str(error).strip().splitlines()
    said = re.sub(r"[^\x20-\x7e\u00a0-\uffff]+", "?", lines[0])[:300] if lines else "it ends too early"
    message = f"'{path}' cannot be read ({said}). "
    if "\0" in str(error):
        return FileError(message + "It holds zero bytes, as after a crash or a full disk: copy or make it again.")
    if "Expected " in said and " columns, got " in said:
        message += (
            "A row has another number of values than the first line has names. Remove lines before the header and "
            "after the table, and put values that hold the separator in quotes; the file may also be truncated."
        )
    elif "UTF8" in said or "utf-8" in said:
        message += f"{_not_utf8(path)} Save it as UTF-8 (in a spreadsheet: CSV UTF-8)."
    elif "unexpected end of data" in said or "expected after" in said:
        message += "A quote in it is not closed: close it, or remove it."
    elif "straddl" in said:
        message = (
            f"'{path}' has a row that is too long to be one (up to {_BLOCK >> 20} MiB are read). Expected a table with "
            "a line per row: check that it is one, that line ends were not lost, and that no quote stays open."
        )
    else:
        size = f"It is {path.stat().st_size:,} bytes long and" if path.is_file() else "It"
        message += f"{size} may be truncated, of another kind or not UTF-8: copy or make it again."
    return FileError(message)


def _not_utf8(path: Path) -> str:
    """Say where a text is not UTF-8."""
    with open_bytes(path) as handle:
        number = 0
        while line := handle.readline(LONGEST_LINE):
            number += 1
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                odd = line[max(0, error.start - 10) : error.start + 10].decode("latin-1")
                return f"Line {number} is not UTF-8 but another encoding: {odd!r}, read as Latin-1."
    return "It is not UTF-8."


# What a file begins with that is not what its name says -> what it is.
_BEGINNINGS = {
    b"PK\x03\x04": "a zip archive or a spreadsheet: unpack it, or save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of an older kind: save the sheet as CSV UTF-8",
    b"\x1f\x8b": "gzipped: let its name end in .gz",
    b"BZh": "packed with bzip2: unpack it",
    b"\xfd7zXZ": "packed with xz: unpack it",
    b"\x28\xb5\x2f\xfd": "packed with zstd: unpack it",
    b"PAR1": "Parquet: let its name end in .parquet",
    b"SQLite format 3": "an SQLite database: let its name end in .sqlite",
    b"\x89HDF": "an HDF5 file: let its name end in .h5ad if it is AnnData, else export a table",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8 (in a spreadsheet: CSV UTF-8)",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8 (in a spreadsheet: CSV UTF-8)",
}


def header_of(path: Path) -> tuple[str, str]:
    """Return the first line of a text table and its separator: the most frequent of comma, semicolon and tab.

    Raises
    ------
    FileError
        If the file is empty, damaged, not text, or its first line is longer than any table's.
    """
    with Damaged(path):
        with open_bytes(path) as handle:
            first = handle.readline(LONGEST_LINE)
        known = next((what for start, what in _BEGINNINGS.items() if first.startswith(start)), None)
        if known:
            raise FileError(f"'{path}' is no text table but {known}.")
        first = re.split(rb"[\r\n]", first, maxsplit=1)[0]  # some programs end lines with \r alone
        if b"\0" in first:
            raise FileError(
                f"'{path}' has zero bytes in its first line: it is UTF-16 text without a mark, damaged, or no table. "
                "Save it as UTF-8 (in a spreadsheet: CSV UTF-8), or copy it again."
            )
        header = first.decode("utf-8-sig")
    if not header.strip():
        raise FileError(f"'{path}' is empty. Expected a table whose first line names the columns.")
    separator = max(",;\t", key=header.count)
    if len(first) >= LONGEST_LINE - 1 or header.count(separator) >= _WIDEST:
        raise FileError(
            f"'{path}' has a first line of {len(first):,} bytes or more and {header.count(separator) + 1:,} columns. "
            f"Expected at most {LONGEST_LINE:,} and {_WIDEST:,}: check that it is a table, and that line ends were not "
            "lost."
        )
    return header, separator


def _guess(path: Path, header: str, parse: pa_csv.ParseOptions) -> tuple[pa.Schema, str]:
    """Guess the kinds of the columns on the first block, and whether fractions are written 1.5 or 1,5."""
    found = {}
    read = pa_csv.ReadOptions(block_size=min(_BLOCK, max(1 << 20, 8 * len(header))))
    for point in (".",) if parse.delimiter == "," else (".", ","):
        convert = pa_csv.ConvertOptions(null_values=NULLS, strings_can_be_null=True, decimal_point=point)
        with pa_csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as start:
            found[point] = start.schema
    # A comma only where it makes numbers of columns that are text with a point.
    best = max(found, key=lambda point: sum(not pa.types.is_string(f.type) for f in found[point]))
    return found[best], best


def read_delimited(path: Path, text: Sequence[str] | None, number: pa.DataType) -> tuple[pa.Table, str]:
    """Read a text table whole.

    Parameters
    ----------
    path : Path
    text : sequence of str or None
        Columns that stay text, besides Metadata ones; None: all.
    number : pyarrow.DataType
        What numbers become: float32 or float64.

    Returns
    -------
    table : pyarrow.Table
        A column that is not all numbers stays text.
    point : str
        What divides whole numbers from fractions.

    Raises
    ------
    FileError
        If the file is damaged, no table, or unpacks to more than `phenohit.files.open_bytes` allows.
    """
    header, separator = header_of(path)
    parse = pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True)

    def read(kinds: dict[str, pa.DataType], point: str) -> pa.Table:
        nulls = {"null_values": NULLS, "strings_can_be_null": True}
        convert = pa_csv.ConvertOptions(column_types=kinds, decimal_point=point, **nulls)
        how = pa_csv.ReadOptions(block_size=_BLOCK)
        try:
            table = pa_csv.read_csv(path, read_options=how, parse_options=parse, convert_options=convert)
        except (pa.ArrowException, OSError):
            _settle()
            raise
        _refuse_odd_text(path, table)
        return table

    with Damaged(path):
        if path.name.lower().endswith(".gz"):
            quotes_in(path)  # reads it through: refused here if it would fill the memory
        # The kinds are guessed on the first block only: integers there may be fractions further down.
        guess, point = _guess(path, header, parse)
        kinds = {f.name: pa.string() if text is None else _csv_type(f, text, number) for f in guess}
        try:
            return read(kinds, point), point
        except pa.ArrowInvalid as error:
            if "conversion error" not in str(error):
                raise
        # A column has text among its numbers. Slower, but it tells which.
        table = read(dict.fromkeys(kinds, pa.string()), point)
        names = table.column_names  # of two columns of one name both are kept: who opens the table refuses them
        columns = [_as_kind(column, kinds[name], point) for name, column in zip(names, table.columns, strict=True)]
        return pa.table(columns, names=names), point


def _as_kind(column: pa.ChunkedArray, kind: pa.DataType, point: str) -> pa.ChunkedArray:
    """Return a column of text as numbers, or as it is if not all of it is one."""
    if pa.types.is_string(kind):
        return column
    trimmed = pc.utf8_trim_whitespace(column)
    try:
        return (pc.replace_substring(trimmed, point, ".") if point != "." else trimmed).cast(kind)
    except pa.ArrowInvalid:
        return column


def quotes_in(path: Path) -> int:
    """Count the double quotes in a file, gzipped or not; that reads it through.

    Raises
    ------
    FileError
        As `phenohit.files.open_bytes`.
    """
    n = 0
    with open_bytes(path) as handle:
        while block := handle.read(1 << 22):
            n += block.count(b'"')
    return n


def _settle() -> None:
    """Wait until Arrow's threads are done with the blocks they were at when reading failed.

    If the process ends while some of them wait for their turn, it hangs for ever (Arrow 26).
    """
    small, held = pa.BufferOutputStream(), -1
    small.write(b"a\n1\n")
    text = small.getvalue()  # memory of Arrow's own: a thread that lets go of Python's may abort an ending process
    for _ in range(500):
        pa_csv.read_csv(pa.BufferReader(text))  # has to wait for its turn behind them
        if pa.total_allocated_bytes() == held:
            return
        held = pa.total_allocated_bytes()
        time.sleep(0.01)


def _refuse_odd_text(path: Path, table: pa.Table) -> None:
    """Refuse values with zero bytes, and those that swallowed the rows below because a quote was not closed."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        if not pa.types.is_string(column.type):
            continue
        zero = pc.match_substring(column, "\0")
        if pc.any(zero).as_py():
            raise FileError(
                f"'{path}' has zero bytes in column '{name}', row {pc.index(zero, True).as_py()}: it is damaged, as "
                "after a crash or a full disk, or not UTF-8. Copy or make it again."
            )
        broken = pc.match_substring(column, "\n")
        if not pc.any(broken).as_py():
            continue
        # Of a value with line breaks: half a pair of quotes is left in it, or it goes on to the end of the file.
        half = pc.equal(pc.bit_wise_and(pc.count_substring(column, '"'), 1), 1)
        odd = pc.fill_null(pc.and_(broken, half), False)
        last = broken[-1].as_py() and quotes_in(path) % 2 == 1
        if pc.any(odd).as_py() or last:
            row = pc.index(odd, True).as_py() if pc.any(odd).as_py() else table.num_rows - 1
            raise FileError(
                f"'{path}' has a quote that is not closed: column '{name}' of row {row} goes on over "
                f"{str(column[row].as_py()).count(chr(10)) + 1} lines. Close it, or remove the quote."
            )


def _csv_type(field: pa.Field, text: Sequence[str], number: pa.DataType) -> pa.DataType:
    if field.name in text or field.name.startswith(("Metadata_", "Image_Metadata_")):
        return pa.string()
    if pa.types.is_floating(field.type) or pa.types.is_integer(field.type) or pa.types.is_null(field.type):
        return number
    return pa.bool_() if pa.types.is_boolean(field.type) else pa.string()
