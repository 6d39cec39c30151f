"""Files are written whole or not at all, and read with a limit on what they may unpack to.

A write goes to a temporary name beside its target, is flushed to the disk and then renamed, so that
a killed process or a full disk never leaves half a file under the real name.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from phenohit.errors import FileError

__all__ = [
    "LONGEST_LINE",
    "atomic",
    "check_file",
    "hash_file",
    "open_bytes",
    "open_parquet",
    "parquet_meta",
    "read_json",
    "read_table",
    "text_lines",
    "unreadable",
    "write_json",
    "write_table",
    "write_text",
]

LONGEST_LINE = 1 << 26  # bytes, or signs: the widest tables have lines of a few million
_LEAST, _MOST = 1 << 28, 1 << 32  # bytes that any gzipped table may unpack to, and that none may beyond that growth
_GROWTH = 200  # times its size that a gzipped table may unpack to; measured: 2 to 60, a sparse matrix 100


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` if the block succeeds, and vanishes if not.

    Raises
    ------
    FileError
        If the disk is full or the folder cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        message = f"Cannot write '{path}': {error.strerror or error}. Nothing was left half-written. "
        if error.errno == errno.ENOSPC:
            message += "Free some space on that disk and run again; finished steps are kept."
        else:
            message += "Check that the folder exists and that you may write to it."
        raise FileError(message) from error
    finally:
        with suppress(OSError):  # the folder itself may be what failed
            partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises
    ------
    FileError
        If the file is absent or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(f"'{path}' does not exist.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"'{path}' is not JSON ({error}). It may be damaged: make it again.") from error


def write_table(path: str | os.PathLike[str], table: pd.DataFrame, *, meta: dict[str, str] | None = None) -> None:
    """Write a table as Parquet, or as CSV where the name ends so; whole or not at all.

    Parameters
    ----------
    path : path
        Ends in ``.parquet`` or ``.csv``.
    table : DataFrame
        Its index is not written.
    meta : dict of str, optional
        Kept in the Parquet schema's key-value metadata under ``phenohit``.
    """
    path = Path(path)
    with atomic(path) as partial:
        if path.suffix == ".csv":
            table.to_csv(partial, index=False)
            return
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        if meta is not None:
            kept = dict(arrow.schema.metadata or {})
            arrow = arrow.replace_schema_metadata({**kept, b"phenohit": json.dumps(meta).encode()})
        pq.write_table(arrow, partial, compression="zstd")


def read_table(
    path: str | os.PathLike[str],
    columns: list[str] | None = None,
    *,
    where: tuple[str, Sequence[str]] | None = None,
    dictionary: list[str] | None = None,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read a Parquet file written by `write_table`: the table and its metadata.

    Parameters
    ----------
    path : path
    columns : list of str, optional
        Only these.
    where : pair of column and list of values, optional
        Only rows with one of these values; row groups whose statistics exclude them are not read.
    dictionary : list of str, optional
        Text columns that come back as categories.

    Raises
    ------
    FileError
        If the file is absent, truncated or not Parquet.
    """
    with open_parquet(path, dictionary) as file:
        groups = range(file.num_row_groups) if where is None else _groups_with(file, *where)
        arrow = file.read_row_groups(list(groups), columns=columns)
        if where is not None:
            arrow = arrow.filter(pc.is_in(arrow[where[0]].cast(pa.string()), pa.array(list(where[1]))))
        meta = parquet_meta(file)
    return arrow.to_pandas(), meta


@contextmanager
def open_parquet(path: str | os.PathLike[str], dictionary: list[str] | None = None) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file to read it in parts.

    Parameters
    ----------
    path : path
    dictionary : list of str, optional
        Text columns that come back as categories.

    Raises
    ------
    FileError
        If the file is absent, truncated or not Parquet, be it found out only while it is read.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"'{path}' does not exist.")
    try:
        with pq.ParquetFile(path, read_dictionary=dictionary, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileError):
            raise
        message = (
            f"'{path}' cannot be read as Parquet ({error}). It is {path.stat().st_size:,} bytes long and "
            "may be truncated or of another kind: copy or make it again."
        )
        raise FileError(message) from error


def parquet_meta(file: pq.ParquetFile) -> dict[str, Any]:
    """Return what `write_table` kept in the schema."""
    return json.loads((file.schema_arrow.metadata or {}).get(b"phenohit", b"{}"))


def _groups_with(file: pq.ParquetFile, column: str, values: Sequence[str]) -> list[int]:
    """Row groups that may hold one of the values."""
    place = file.schema_arrow.names.index(column)
    found = []
    for group in range(file.num_row_groups):
        seen = file.metadata.row_group(group).column(place).statistics
        if seen is None or not seen.has_min_max or any(seen.min <= v <= seen.max for v in values):
            found.append(group)
    return found


def hash_file(path: str | os.PathLike[str]) -> str:
    """Return a content hash of a file (BLAKE2b, 16 bytes, hexadecimal).

    Raises
    ------
    FileError
        If it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    check_file(path)
    try:
        with Path(path).open("rb") as handle:
            while block := handle.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise FileError unless there is an ordinary file: no folder, no pipe, no link that leads nowhere."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if stat.S_ISDIR(mode):
        raise FileError(f"'{path}' is a folder. Give the path of a file.")
    if not stat.S_ISREG(mode):
        raise FileError(f"'{path}' is a device or a pipe. Give the path of an ordinary file.")


def unreadable(path: str | os.PathLike[str], error: OSError | ValueError) -> FileError:
    """Return the error for a file that the system does not open or read, in plain words."""
    shown = str(path).replace("\0", "\\0")
    shown = shown if len(shown) < 1000 else f"{shown[:100]}..."
    number = getattr(error, "errno", None)
    if isinstance(error, ValueError) and not isinstance(error, OSError):  # a zero byte in the name
        return FileError(f"'{shown}' is no name of a file. Correct the path.")
    said = {
        errno.ENOENT: "does not exist. Give the path of an existing file.",
        errno.ENOTDIR: "does not exist: a part of its path is a file, not a folder. Correct the path.",
        errno.EISDIR: "is a folder. Give the path of a file.",
        errno.EACCES: "may not be read by you. Change its permissions, or copy it to a place of your own.",
        errno.EPERM: "may not be read by you. Change its permissions, or copy it to a place of your own.",
        errno.ELOOP: "is a link that leads back to itself. Give the path of the file itself.",
        errno.ENAMETOOLONG: "is too long to be the name of a file. Correct the path.",
    }
    cause = getattr(error, "strerror", None) or error
    return FileError(f"'{shown}' {said.get(number, f'cannot be read ({cause}). Check the disk, and copy it again.')}")


class _Counted(io.RawIOBase):
    """The bytes of a file, unpacked where it is gzipped, counted on the way.

    A gzipped file may hold a thousand times its size. What is read from one becomes numbers in memory, four
    bytes or more for two of text; so it is refused where it is both large and much larger than its file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self._file = path.open("rb", buffering=1 << 16)
        self._gzip = gzip.GzipFile(fileobj=self._file) if path.name.lower().endswith(".gz") else None
        self._limit = min(max(_memory() // 64, _LEAST), _MOST)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = (self._gzip or self._file).readinto(buffer)
        self.size += n
        if self._gzip is not None and self.size > self._limit and self.size > _GROWTH * self._file.tell():
            raise FileError(
                f"'{self.path}' unpacks to more than {self.size / 1e6:,.0f} MB, over {_GROWTH} times what was read of "
                "it: tables do not shrink so much, files made to fill a memory do. If it is a table all the same, "
                "unpack it yourself (gunzip) and give the unpacked file."
            )
        return n

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def open_bytes(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a file for its bytes, unpacked where its name ends in .gz.

    Raises
    ------
    FileError
        While it is read, if a gzipped file unpacks to more than 1/64 of the memory (at least 256 MiB, at
        most 4 GiB) and to more than 200 times its size.
    OSError, EOFError, zlib.error
        If it cannot be read, or is damaged.
    """
    return io.BufferedReader(_Counted(Path(path)), 1 << 18)


def text_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the lines of a UTF-8 text, gzipped or not, each with its end.

    Raises
    ------
    FileError
        If a line is longer than `LONGEST_LINE`; else as `open_bytes`.
    UnicodeDecodeError
    """
    with open_bytes(path) as handle, io.TextIOWrapper(handle, encoding="utf-8-sig", newline="") as text:
        while line := text.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:
                raise FileError(f"'{path}' has a line of more than {LONGEST_LINE:,} signs. {_NO_TABLE}")
            yield line


_NO_TABLE = "Expected a table with a line per row: check that it is one, and that line ends were not lost."


def _memory() -> int:
    """Bytes of memory that there are, or that this process may have."""
    found = 1 << 34
    with suppress(AttributeError, ValueError, OSError):  # not every system tells
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(ValueError, OSError):
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found
