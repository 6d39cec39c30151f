"""`Labels`: what was measured on which compound, mostly nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from phenohit.errors import ColumnError, FileError, LabelError, ShapeError, nearest, some
from phenohit.files import atomic, read_table, write_table

__all__ = ["Labels"]

_ROW_GROUP = 65_536  # labels: some tasks of a large screen


@dataclass(frozen=True, eq=False)
class Labels:
    """A sparse compounds x tasks matrix whose *stored* entries are the measured ones.

    A stored 0 is a measured inactive; what is not stored was never measured. Never call
    ``eliminate_zeros`` on ``Y`` and never do arithmetic that drops explicit zeros.

    Attributes
    ----------
    Y : CSR matrix, float32, shape (N, T)
        1 active, 0 inactive for binary tasks; the value itself (e.g. pIC50) where the task's kind
        is ``value``.
    compounds : DataFrame, N rows
        Column ``compound`` (text) says whose row it is; others such as ``smiles`` may follow.
        Keys are unique in a label matrix; after `to_rows` (one row per well) they repeat.
    tasks : DataFrame, T rows
        Columns ``task`` (unique text), ``assay``, ``kind`` (``binary``, ``threshold``, ``comment``
        or ``value``) and ``threshold`` (NaN where there is none); others may follow.
    """

    Y: sparse.csr_matrix
    compounds: pd.DataFrame
    tasks: pd.DataFrame

    def __post_init__(self) -> None:
        Y = self.Y if isinstance(self.Y, sparse.csr_matrix) else sparse.csr_matrix(self.Y)
        if Y.shape != (len(self.compounds), len(self.tasks)):
            raise ShapeError(
                f"Labels.Y has shape {Y.shape}, but there are {len(self.compounds)} compounds and "
                f"{len(self.tasks)} tasks."
            )
        for table, columns in ((self.compounds, ["compound"]), (self.tasks, ["task", "assay", "kind", "threshold"])):
            absent = [c for c in columns if c not in table]
            if absent:
                raise ColumnError(f"Labels need the columns {some(absent)}; there are {some(table.columns)}.")
        if not self.tasks["task"].is_unique:
            doubled = self.tasks["task"][self.tasks["task"].duplicated()].unique()
            raise LabelError(f"Task names must be unique; these are not: {some(doubled)}.")
        if not Y.has_canonical_format:
            counted = Y.copy()
            counted.sum_duplicates()
            if counted.nnz != Y.nnz:
                raise LabelError("A compound has two entries for one task. Merge repeats before making Labels.")
            Y = counted
        if Y.data.dtype != np.float32:
            Y = Y.astype(np.float32)
        if not np.isfinite(Y.data).all():
            raise LabelError("Stored labels must be finite numbers; leave an unmeasured entry out instead.")
        binary = (self.tasks["kind"] != "value").to_numpy()
        if len(Y.data) and not np.isin(Y.data[binary[Y.indices]], (0.0, 1.0)).all():
            raise LabelError("Labels of binary tasks must be 0 (inactive) or 1 (active).")
        object.__setattr__(self, "Y", Y)
        object.__setattr__(self, "compounds", self.compounds.reset_index(drop=True))
        object.__setattr__(self, "tasks", self.tasks.reset_index(drop=True))

    def __len__(self) -> int:
        return len(self.compounds)

    @property
    def task_names(self) -> list[str]:
        """Names of the T tasks."""
        return self.tasks["task"].astype(str).tolist()

    def counts(self) -> pd.DataFrame:
        """Return ``n_active`` and ``n_inactive`` per task, T rows (value tasks: all in n_active)."""
        T = len(self.tasks)
        measured = np.bincount(self.Y.indices, minlength=T)
        active = np.bincount(self.Y.indices, weights=self.Y.data != 0, minlength=T).astype(int)
        value = (self.tasks["kind"] == "value").to_numpy()
        active = np.where(value, measured, active)
        return pd.DataFrame({"n_active": active, "n_inactive": measured - active})

    def take(self, rows: Any) -> Labels:
        """Return the given compounds (positions or a boolean mask), in that order."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.intp)
        return replace(self, Y=self.Y[rows], compounds=self.compounds.iloc[rows])

    def take_tasks(self, tasks: Any) -> Labels:
        """Return the given tasks (positions or a boolean mask), in that order."""
        tasks = np.asarray(tasks)
        tasks = np.flatnonzero(tasks) if tasks.dtype == bool else tasks.astype(np.intp)
        return replace(self, Y=self.Y[:, tasks].tocsr(), tasks=self.tasks.iloc[tasks])

    def to_rows(self, compounds: NDArray[np.object_]) -> Labels:
        """Repeat each compound's labels for every given row, shape (P, T).

        Parameters
        ----------
        compounds : array of str, shape (P,)
            Compound key of each row of a profile table. A key without labels gets an empty row.
        """
        where = pd.Index(self.compounds["compound"]).get_indexer(pd.Index(compounds))
        # An extra empty row stands for every compound that has no labels.
        empty = sparse.csr_matrix((1, len(self.tasks)), dtype=np.float32)
        padded = sparse.vstack([self.Y, empty], format="csr")
        Y = sparse.csr_matrix(padded[np.where(where < 0, len(self), where)])
        return Labels(Y, pd.DataFrame({"compound": compounds}), self.tasks)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``path`` (long Parquet: compound, task, value) and ``<stem>.tasks/.compounds.parquet`` beside it.

        Rows are in the order of the tasks, in small row groups: one task can be read without the others.
        """
        path = Path(path)
        Y = self.Y.tocsc()
        column = np.repeat(np.arange(len(self.tasks), dtype=np.int32), np.diff(Y.indptr))
        compounds, tasks = pa.array(self._keys(), pa.string()), pa.array(self.task_names, pa.string())
        write_table(path.with_suffix(".compounds.parquet"), self.compounds)
        write_table(path.with_suffix(".tasks.parquet"), self.tasks)
        meta = {b"phenohit": json.dumps({"kind": "labels"}).encode()}
        fields = [("compound", pa.string()), ("task", pa.string()), ("value", pa.float32())]
        schema = pa.schema(fields, metadata=meta)
        with atomic(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for start in range(0, max(Y.nnz, 1), _ROW_GROUP):
                part = slice(start, start + _ROW_GROUP)
                names = [compounds.take(pa.array(Y.indices[part])), tasks.take(pa.array(column[part]))]
                writer.write_table(pa.Table.from_arrays([*names, pa.array(Y.data[part])], schema=schema))

    def _keys(self) -> list[str]:
        keys = self.compounds["compound"]
        if not keys.is_unique:
            raise LabelError("Only labels with one row per compound can be saved; these repeat compounds.")
        return keys.astype(str).tolist()

    @classmethod
    def load(cls, path: str | os.PathLike[str], tasks: Sequence[str] | None = None) -> Labels:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path
        tasks : sequence of str, optional
            Only these, in the order of the file; the others are not read.

        Raises
        ------
        FileError
            If one of the three files is absent, damaged or not ours.
        LabelError
            If a task is not there; names the nearest.
        """
        path = Path(path)
        _, meta = read_table(path, columns=[])
        if meta.get("kind") != "labels":
            raise FileError(f"'{path}' holds no labels written by PhenoHit.")
        compounds, _ = read_table(path.with_suffix(".compounds.parquet"))
        table, _ = read_table(path.with_suffix(".tasks.parquet"))
        wanted = None
        if tasks is not None:
            known = table["task"].astype(str)
            for task in tasks:
                if task not in set(known):
                    raise LabelError(f"'{path}' has no task '{task}'. {nearest(task, known)}")
            table = table[known.isin(list(tasks))].reset_index(drop=True)
            wanted = ("task", list(tasks))
        long, _ = read_table(path, where=wanted, dictionary=["compound", "task"])
        row = _places(compounds["compound"], long["compound"])
        column = _places(table["task"], long["task"])
        if (row < 0).any() or (column < 0).any():
            raise FileError(f"'{path}' names compounds or tasks that the tables beside it lack: make it again.")
        shape = (len(compounds), len(table))
        Y = sparse.csr_matrix((long["value"].to_numpy(np.float32), (row, column)), shape=shape)
        return cls(Y, compounds, table)


def _places(names: pd.Series, used: pd.Series) -> NDArray[np.intp]:
    """Position in `names` of every name that is used, -1 if absent; each different name is looked up once."""
    used = used.astype("category")
    where = pd.Index(names.astype(str)).get_indexer(used.cat.categories.astype(str))
    codes = used.cat.codes.to_numpy()
    return np.where(codes < 0, -1, where[codes])
