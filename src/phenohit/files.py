"""Files are written whole or not at all.

A write goes to a temporary name beside its target, is flushed to the disk and then renamed, so that
a killed process or a full disk never leaves half a file under the real name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from phenohit.errors import FileError

__all__ = [
    "atomic",
    "hash_file",
    "read_json",
    "read_table",
    "write_json",
    "write_table",
    "write_text",
]


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


def read_table(path: str | os.PathLike[str], columns: list[str] | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read a Parquet file written by `write_table`: the table and its metadata.

    Raises
    ------
    FileError
        If the file is absent, truncated or not Parquet.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"'{path}' does not exist.")
    try:
        arrow = pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        message = (
            f"'{path}' cannot be read as Parquet ({error}). It is {path.stat().st_size:,} bytes long and "
            "may be truncated or of another kind: copy or make it again."
        )
        raise FileError(message) from error
    meta = (arrow.schema.metadata or {}).get(b"phenohit", b"{}")
    return arrow.to_pandas(), json.loads(meta)


def hash_file(path: str | os.PathLike[str]) -> str:
    """Return a content hash of a file (BLAKE2b, 16 bytes, hexadecimal)."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with Path(path).open("rb") as handle:
            while block := handle.read(1 << 22):
                digest.update(block)
    except FileNotFoundError as error:
        raise FileError(f"'{path}' does not exist. Give the path of an existing file.") from error
    return digest.hexdigest()
