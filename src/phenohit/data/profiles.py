"""`Profiles`: a feature table whose rows are wells or compounds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phenohit.data.matrix import RowMatrix, take_rows
from phenohit.errors import ColumnError, FileError, ShapeError, some
from phenohit.files import atomic, open_parquet, parquet_meta

__all__ = ["Profiles", "write_profiles"]

_ROW_GROUP = 16_384  # rows per Parquet row group: bounded memory when half a million wells stream


@dataclass(frozen=True, eq=False)
class Profiles:
    """Features of wells or compounds, with what is known about each row.

    Attributes
    ----------
    X : float32 array or `RowMatrix`, shape (N, F)
        One row per well or compound. NaN is "not measured" and must be dealt with before a model.
    rows : DataFrame, N rows
        Columns ``Metadata_*``, all text (empty text = unknown). ``Metadata_compound`` is the key by
        which labels, folds and predictions find a row.
    features : list of str, length F
        Unique column names, e.g. ``Cells_Texture_Entropy_ER_3_00_256``.
    history : tuple of str
        What was done to the features, with the scope it was fitted on, e.g. ``standardise[fold]``.

    Raises
    ------
    ShapeError, ColumnError
        If the parts do not fit together.
    """

    X: NDArray[np.float32]
    rows: pd.DataFrame
    features: list[str]
    history: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.X.ndim != 2 or self.X.dtype != np.float32:
            raise ShapeError(f"Profiles.X must be a 2-D float32 array, not {self.X.ndim}-D {self.X.dtype}.")
        if self.X.shape != (len(self.rows), len(self.features)):
            raise ShapeError(
                f"Profiles.X has shape {self.X.shape}, but there are {len(self.rows)} rows and "
                f"{len(self.features)} feature names."
            )
        doubled = pd.Index(self.features)[pd.Index(self.features).duplicated()].unique()
        if len(doubled):
            raise ColumnError(f"Feature names occur more than once: {some(doubled)}. Rename or drop them.")
        odd = [c for c in self.rows.columns if not str(c).startswith("Metadata_")]
        if odd:
            raise ColumnError(f"Row columns must begin with 'Metadata_', unlike {some(odd)}.")
        object.__setattr__(self, "rows", self.rows.reset_index(drop=True))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def compounds(self) -> NDArray[np.object_]:
        """Compound key of every row, shape (N,)."""
        if "Metadata_compound" not in self.rows:
            raise ColumnError("These profiles have no 'Metadata_compound' column yet: identify compounds first.")
        return self.rows["Metadata_compound"].to_numpy(dtype=object)

    def numbers(self, column: str) -> NDArray[np.float64]:
        """Return a metadata column as numbers, shape (N,); empty text becomes NaN.

        Raises
        ------
        ColumnError
            If the column is absent or holds text that is no number; names the first rows.
        """
        if column not in self.rows:
            raise ColumnError(f"Profiles have no column '{column}'. They have: {some(self.rows.columns)}.")
        text = self.rows[column].astype(str).str.strip()
        values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
        bad = np.flatnonzero(np.isnan(values) & ~text.str.lower().isin(["", "nan", "none", "<na>"]).to_numpy())
        if len(bad):
            shown = some(f"row {i}: {text.iloc[i]!r}" for i in bad)
            raise ColumnError(f"Column '{column}' must hold numbers. It does not in {shown}.")
        return values

    def take(self, rows: Any) -> Profiles:
        """Return the given rows (positions or a boolean mask), in that order."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.intp)
        return replace(self, X=take_rows(self.X, rows), rows=self.rows.iloc[rows])

    def with_features(self, X: NDArray[np.float32], features: Sequence[str], step: str) -> Profiles:
        """Return the same rows with other features, and `step` added to the history."""
        if not isinstance(X, RowMatrix):
            X = np.ascontiguousarray(X, dtype=np.float32)
        return replace(self, X=X, features=list(features), history=(*self.history, step))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one Parquet file: ``Metadata_*`` columns as text, then the features."""
        with write_profiles(path, list(self.rows.columns), self.features, self.history) as write:
            for start in range(0, max(len(self), 1), _ROW_GROUP):
                part = slice(start, start + _ROW_GROUP)
                write(self.rows.iloc[part], self.X[part])

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, features: bool = True) -> Profiles:
        """Read a file written by `save`, block by block; reading never executes anything.

        Parameters
        ----------
        path : path
        features : bool
            False reads what is known about the rows alone: X is then (N, 0).

        Raises
        ------
        FileError
            If the file is absent, damaged, or not one of ours.
        """
        with open_parquet(path) as file:
            meta = parquet_meta(file)
            if meta.get("kind") != "profiles":
                raise FileError(
                    f"'{path}' holds no profiles written by PhenoHit. Read a table from elsewhere with "
                    "phenohit.data.read_profiles."
                )
            columns = file.schema_arrow.names
            known = [c for c in columns if c.startswith("Metadata_")]
            names = [c for c in columns if not c.startswith("Metadata_")] if features else []
            rows = file.read(columns=known).to_pandas().astype(str)
            X = np.empty((len(rows), len(names)), np.float32)
            start = 0
            for group in range(file.num_row_groups if names else 0):
                block = file.read_row_group(group, columns=names)
                X[start : start + len(block)] = block.to_pandas().to_numpy(np.float32)
                start += len(block)
        return cls(X, rows, names, tuple(meta["history"]))


@contextmanager
def write_profiles(
    path: str | os.PathLike[str], columns: Sequence[str], features: Sequence[str], history: Sequence[str] = ()
) -> Iterator[Callable[[pd.DataFrame, NDArray[np.float32]], None]]:
    """Write a profile file block by block, whole or not at all; for screens larger than memory.

    Parameters
    ----------
    path : path
    columns : sequence of str
        ``Metadata_*`` columns.
    features : sequence of str, length F
    history : sequence of str

    Yields
    ------
    function
        Takes ``rows`` (n rows with at least `columns`) and ``X`` float32 (n, F), and writes them as one
        row group. Blocks in the order of plates let a reader fetch one plate without the rest.

    Raises
    ------
    FileError
        If the disk is full or the folder cannot be written.
    """
    meta = {b"phenohit": json.dumps({"kind": "profiles", "history": list(history)}).encode()}
    fields = [pa.field(str(c), pa.string()) for c in columns]
    fields += [pa.field(f, pa.float32()) for f in features]
    schema = pa.schema(fields, metadata=meta)
    with atomic(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:

        def write(rows: pd.DataFrame, X: NDArray[np.float32]) -> None:
            arrays = [pa.array(rows[c].astype(str), pa.string()) for c in columns]
            arrays += [pa.array(column) for column in X.T]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

        yield write
