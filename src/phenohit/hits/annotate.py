"""Annotate a whole imaged library: every compound, every task that can be predicted, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phenohit.data.labels import Labels
from phenohit.errors import ConfigError
from phenohit.evaluate.calibration import ALL
from phenohit.files import atomic
from phenohit.hits.export import neutralise

__all__ = ["COLUMNS", "Sureness", "blocks_of_compounds", "write_annotation"]

COLUMNS = [
    "compound", "compound_id", "task", "score", "call", "sureness", "sureness_low", "sureness_n", "measured",
]  # fmt: skip
LEAST = 10  # held-out entries of a bin: with fewer it says nothing
_ENTRIES = 1 << 21  # rows of the output per block: about 100 MB


class Sureness:
    """How often a call at a score was right, from held-out compounds.

    Parameters
    ----------
    calibration : DataFrame or None
        Rows of one method of ``calibration.parquet`` (see `phenohit.evaluate.calibration`): the group ``all`` and
        groups of tasks by their number of labels.
    n_labels : int array, shape (T,)
        Labels of each task.
    call_at : float
        Score from which a compound is called active.
    """

    def __init__(self, calibration: pd.DataFrame | None, n_labels: NDArray[np.integer], call_at: float = 0.5) -> None:
        self.call_at = call_at
        table = pd.DataFrame() if calibration is None else calibration
        table = table[table["bin"] >= 0] if len(table) else table
        self.known = len(table) > 0
        groups = {str(g): part.sort_values("bin") for g, part in table.groupby("group")} if self.known else {}
        whole = groups.get(ALL)
        if whole is None:
            self.known = False
            return
        self.edges = whole["high"].to_numpy()[:-1]
        # The bin of the task's own group of label counts; of all tasks where that one holds too few entries.
        shape = (len(n_labels), len(whole))
        self._share, self._low, self._high, self._n = (np.full(shape, np.nan) for _ in range(4))
        for t, n in enumerate(n_labels):
            own = groups.get(_group(int(n)), whole)
            few = own["n"].to_numpy() < LEAST
            for kept, column in ((self._share, "share"), (self._low, "share_low"), (self._high, "share_high"),
                                 (self._n, "n")):  # fmt: skip
                kept[t] = np.where(few, whole[column].to_numpy(), own[column].to_numpy())

    def of(self, score: NDArray[np.float32]) -> tuple[NDArray[np.object_], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return call, sureness, its lower end, and held-out entries behind it, each (N, T), of scores (N, T).

        Sureness is the share of held-out entries with such a score whose label was the call: the active share for
        ``active``, the rest for ``inactive``. NaN where fewer than `LEAST` such entries are known.
        """
        active = score >= self.call_at
        call = np.where(active, "active", "inactive").astype(object)
        if not self.known:
            nothing = np.full(score.shape, np.nan, dtype=np.float32)
            return call, nothing, nothing, np.zeros(score.shape, dtype=np.int64)
        b = np.searchsorted(self.edges, score)
        t = np.broadcast_to(np.arange(score.shape[1]), score.shape)
        n = np.nan_to_num(self._n[t, b]).astype(np.int64)
        sure = np.where(active, self._share[t, b], 1 - self._share[t, b])
        low = np.where(active, self._low[t, b], 1 - self._high[t, b])
        few = n < LEAST
        sure[few] = low[few] = np.nan
        return call, sure.astype(np.float32), low.astype(np.float32), n


def _group(n: int) -> str:
    """Name the group of a task with n labels, as `phenohit.evaluate.calibration` does."""
    from phenohit.evaluate.calibration import GROUPS

    return GROUPS[0 if n <= 10 else 1 if n <= 30 else 2]


def blocks_of_compounds(row_compound: NDArray[np.intp], n_compounds: int, size: int) -> Iterator[NDArray[np.intp]]:
    """Yield the rows of a profile table in blocks that hold whole compounds.

    Parameters
    ----------
    row_compound : int array, shape (P,)
        Compound of each row (well or compound).
    n_compounds : int
    size : int
        Compounds per block.
    """
    order = np.argsort(row_compound, kind="stable")
    ordered = row_compound[order]
    for start in range(0, n_compounds, size):
        low, high = np.searchsorted(ordered, [start, min(start + size, n_compounds)])
        yield order[low:high]


def write_annotation(
    path: str | Path,
    tasks: list[str],
    compounds: pd.DataFrame,
    row_compound: NDArray[np.intp],
    predict: Callable[[NDArray[np.intp]], NDArray[np.float32]],
    labels: Labels,
    sureness: Sureness | None,
) -> dict[str, int]:
    """Write one row per compound and task, block by block.

    Parameters
    ----------
    path : path
        Ends in ``.parquet`` or ``.csv``.
    tasks : list of str, length T
    compounds : DataFrame, N rows
        ``compound`` and ``compound_id``.
    row_compound : int array, shape (P,)
        Compound of each row that `predict` scores.
    predict : function
        Takes rows (n,), returns their scores (n, T).
    labels : Labels
        What was measured; matched by key.
    sureness : Sureness or None
        None: scores are no probabilities, nothing is called.

    Returns
    -------
    dict
        ``rows, compounds, tasks`` and ``active`` (calls).

    Raises
    ------
    ConfigError
        If the name has another ending.
    FileError
        If the file cannot be written.

    Notes
    -----
    Memory holds one block of about 2 million rows, whatever the library: 524,371 compounds x 200 tasks are 105
    million rows. Wells become compounds by the mean of their scores. In ``measured`` stands what is known:
    ``active``, ``inactive`` or nothing; such a score is no prediction, the model has learned the label.
    """
    path = Path(path)
    if path.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"'{path.name}': the name of an annotation must end in .parquet or .csv.")
    size = max(1, _ENTRIES // max(len(tasks), 1))
    schema = _schema()
    total = {"rows": 0, "compounds": len(compounds), "tasks": len(tasks), "active": 0}
    known = labels.take_tasks(np.array([labels.task_names.index(task) for task in tasks], dtype=np.intp))
    keys = pd.Index(compounds["compound"].astype(str))
    at = pd.Index(known.compounds["compound"].astype(str)).get_indexer(keys)
    csv, shown = path.suffix == ".csv", tasks
    if csv:  # spreadsheets would run some names as formulas
        compounds = neutralise(compounds[["compound", "compound_id"]])
        shown = neutralise(pd.DataFrame({"task": tasks}))["task"].astype(str).tolist()
    with atomic(path) as partial, _writer(partial, schema, csv=csv) as write:
        starts = range(0, len(compounds), size)
        for start, rows in zip(starts, blocks_of_compounds(row_compound, len(compounds), size), strict=True):
            n = min(size, len(compounds) - start)
            score = _means(predict(rows), row_compound[rows] - start, n, len(tasks))
            measured = _measured(known, at[start : start + n])
            table, active = _block(compounds.iloc[start : start + n], shown, score, measured, sureness, schema)
            write(table)
            total["rows"] += table.num_rows
            total["active"] += active
    return total


@contextmanager
def _writer(path: Path, schema: pa.Schema, *, csv: bool) -> Iterator[Callable[[pa.Table], None]]:
    """Open a file that takes one table after the other."""
    if csv:
        plain = pa.schema([pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in schema])
        with pacsv.CSVWriter(path, plain) as writer:
            yield lambda table: writer.write_table(table.cast(plain))
    else:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            yield writer.write_table


def _means(score: NDArray[np.float32], compound: NDArray[np.intp], n: int, T: int) -> NDArray[np.float32]:
    """Average the scores of each compound's rows, (n, T); NaN for a compound without rows."""
    count = np.bincount(compound, minlength=n)
    out = np.zeros((n, T), dtype=np.float64)
    if len(compound):
        first = np.flatnonzero(np.diff(compound, prepend=-1))  # rows come ordered by compound
        out[compound[first]] = np.add.reduceat(score.astype(np.float64), first, axis=0)
    out[count == 0] = np.nan
    return (out / np.maximum(count, 1)[:, None]).astype(np.float32)


def _measured(labels: Labels, at: NDArray[np.intp]) -> NDArray[np.int8]:
    """Return 0 not measured, 1 inactive, 2 active, shape (n, T)."""
    out = np.zeros((len(at), len(labels.tasks)), dtype=np.int8)
    known = np.flatnonzero(at >= 0)
    Y = labels.Y[at[known]].tocoo()
    out[known[Y.row], Y.col] = 1 + (Y.data > 0)
    return out


def _schema() -> pa.Schema:
    text = pa.dictionary(pa.int32(), pa.string())
    kinds = [text, text, text, pa.float32(), text, pa.float32(), pa.float32(), pa.int32(), text]
    return pa.schema(list(zip(COLUMNS, kinds, strict=True)))


def _block(
    compounds: pd.DataFrame,
    tasks: list[str],
    score: NDArray[np.float32],
    measured: NDArray[np.int8],
    sureness: Sureness | None,
    schema: pa.Schema,
) -> tuple[pa.Table, int]:
    """Make the rows of n compounds; those without a score are left out."""
    n, T = score.shape
    keep = np.isfinite(score).ravel()
    if sureness is None:
        call = np.full(score.shape, "", dtype=object)
        sure = low = np.full(score.shape, np.nan, dtype=np.float32)
        count = np.zeros(score.shape, dtype=np.int64)
    else:
        call, sure, low, count = sureness.of(np.nan_to_num(score))
    row, column = np.repeat(np.arange(n, dtype=np.int32), T)[keep], np.tile(np.arange(T, dtype=np.int32), n)[keep]

    def coded(codes: NDArray[Any], words: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words, pa.string()))

    calls = np.searchsorted(["", "active", "inactive"], call.ravel()[keep].astype(str))
    arrays = [
        coded(row, compounds["compound"].astype(str).tolist()),
        coded(row, compounds["compound_id"].fillna("").astype(str).tolist()),
        coded(column, tasks),
        pa.array(score.ravel()[keep]),
        coded(calls, ["", "active", "inactive"]),
        pa.array(sure.ravel()[keep], from_pandas=True),
        pa.array(low.ravel()[keep], from_pandas=True),
        pa.array(count.ravel()[keep].astype(np.int32)),
        coded(measured.ravel()[keep], ["", "inactive", "active"]),
    ]
    return pa.Table.from_arrays(arrays, schema=schema), int((calls == 1).sum())
