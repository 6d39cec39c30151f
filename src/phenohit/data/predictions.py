"""`Predictions`: scores for the entries that were asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from phenohit.errors import FileError, ShapeError, some
from phenohit.files import atomic, read_table

__all__ = ["Predictions"]

Kind = Literal["probability", "pIC50", "p-value"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores of rows in tasks: a full block, or only the entries that were asked for.

    Attributes
    ----------
    score : float32 array (N, T), or CSR matrix (N, T)
        A dense block holds every entry; in a CSR matrix the *stored* entries are those asked for
        (a stored 0 is a score of 0). All finite. Higher means more active.
    compounds : array of str, shape (N,)
        Compound key of each row; repeats where rows are wells.
    tasks : list of str, length T
    spread : same form as `score`, optional
        Standard deviation of the score where the model knows one.
    fold : int array, shape (N,), optional
        Fold in which the row was held out; -1 where it was not.
    model : str
        What made the scores, e.g. ``forest:profiles``.
    kind : {'probability', 'pIC50', 'p-value'}
    """

    score: NDArray[np.float32] | sparse.csr_matrix
    compounds: NDArray[np.object_]
    tasks: list[str]
    model: str
    spread: NDArray[np.float32] | sparse.csr_matrix | None = None
    fold: NDArray[np.int32] | None = None
    kind: Kind = "probability"

    def __post_init__(self) -> None:
        expected = (len(self.compounds), len(self.tasks))
        for name in ("score", "spread"):
            block = getattr(self, name)
            if block is None:
                continue
            if block.shape != expected:
                raise ShapeError(f"Predictions.{name} has shape {block.shape}, expected {expected}.")
            stored = block.data if sparse.issparse(block) else block
            if not np.isfinite(stored).all():
                bad = "some rows" if sparse.issparse(block) else some(np.flatnonzero(~np.isfinite(block).all(1)))
                raise ShapeError(f"Predictions.{name} must be finite; model '{self.model}' gave otherwise in {bad}.")
        if self.fold is not None and self.fold.shape != expected[:1]:
            raise ShapeError(f"Predictions.fold has shape {self.fold.shape}, expected {expected[:1]}.")

    def __len__(self) -> int:
        return len(self.compounds)

    def take(self, rows: Any) -> Predictions:
        """Return the given rows (positions or a boolean mask), in that order."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.intp)
        return replace(
            self,
            score=self.score[rows],
            compounds=self.compounds[rows],
            spread=None if self.spread is None else self.spread[rows],
            fold=None if self.fold is None else self.fold[rows],
        )

    def at(self, Y: sparse.csr_matrix) -> Predictions:
        """Keep only the entries stored in `Y` (N, T), e.g. the measured ones."""
        if Y.shape != self.score.shape:
            raise ShapeError(f"The entries asked for have shape {Y.shape}, the scores {self.score.shape}.")

        def pick(block: Any) -> sparse.csr_matrix:
            rows = np.repeat(np.arange(len(self)), np.diff(Y.indptr))
            data = np.asarray(block[rows, Y.indices], dtype=np.float32).ravel()
            return sparse.csr_matrix((data, Y.indices, Y.indptr), shape=Y.shape)

        return replace(self, score=pick(self.score), spread=None if self.spread is None else pick(self.spread))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write long Parquet (row, compound, task, score, spread, fold), one row group per block of rows."""
        import json

        meta = {
            "kind": "predictions", "score": self.kind, "model": self.model, "tasks": self.tasks,
            "rows": len(self), "dense": not sparse.issparse(self.score),
        }  # fmt: skip
        fields = [pa.field("row", pa.int32()), pa.field("compound", pa.string()), pa.field("task", pa.string())]
        fields += [pa.field("score", pa.float32())]
        fields += [pa.field("spread", pa.float32())] if self.spread is not None else []
        fields += [pa.field("fold", pa.int32())] if self.fold is not None else []
        schema = pa.schema(fields, metadata={b"phenohit": json.dumps(meta).encode()})
        names = np.asarray(self.tasks, dtype=object)
        step = max(1, 1_000_000 // max(len(self.tasks), 1))
        with atomic(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for start in range(0, len(self), step):
                rows = np.arange(start, min(start + step, len(self)))
                row, column, score = _entries(self.score, rows)
                columns: list[Any] = [row.astype(np.int32), self.compounds[row].astype(str), names[column], score]
                if self.spread is not None:
                    columns.append(_entries(self.spread, rows)[2])
                if self.fold is not None:
                    columns.append(self.fold[row].astype(np.int32))
                arrays = [pa.array(c, type=f.type) for c, f in zip(columns, fields, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Predictions:
        """Read what `save` wrote. Rows without any entry come back with an empty compound key.

        Raises
        ------
        FileError
            If the file is absent, damaged or not ours.
        """
        long, meta = read_table(path)
        if meta.get("kind") != "predictions":
            raise FileError(f"'{path}' holds no predictions written by PhenoHit.")
        tasks: list[str] = list(meta["tasks"])
        shape = (int(meta["rows"]), len(tasks))
        row = long["row"].to_numpy()
        column = pd.Index(tasks).get_indexer(long["task"])

        def build(values: pd.Series) -> Any:
            data = values.to_numpy(np.float32)
            if meta["dense"]:
                return data.reshape(shape)
            return sparse.csr_matrix((data, (row, column)), shape=shape)

        compounds = np.full(shape[0], "", dtype=object)
        compounds[row] = long["compound"].to_numpy(object)
        fold = None
        if "fold" in long:
            fold = np.full(shape[0], -1, dtype=np.int32)
            fold[row] = long["fold"].to_numpy()
        spread = build(long["spread"]) if "spread" in long else None
        return cls(build(long["score"]), compounds, tasks, meta["model"], spread, fold, meta["score"])


def _entries(block: Any, rows: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """Row, column and value of the stored entries of `block` in the given rows."""
    if sparse.issparse(block):
        part = block[rows].tocoo()
        return part.row + rows[0], part.col, part.data.astype(np.float32)
    T = block.shape[1]
    return np.repeat(rows, T), np.tile(np.arange(T), len(rows)), block[rows].ravel()
