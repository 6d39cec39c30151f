"""Measurements become labels: repeats merged, thresholds applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.labels.activities import Activities, read_activities

__all__ = ["Activities", "Merged", "merge_repeats", "read_activities", "to_labels"]

_STAGE = "merge repeats"


@dataclass(frozen=True, eq=False)
class Merged:
    """Repeated entries of a matrix, merged; one element per distinct (row, column).

    Attributes
    ----------
    row, column : int64 arrays
    value : float64 array
        Arithmetic mean, or 0/1 by majority with NaN for a tie.
    n : int64 array
        Entries merged.
    n_active : int64 array
        Of these, entries that are not 0.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    value: NDArray[np.float64]
    n: NDArray[np.int64]
    n_active: NDArray[np.int64]


def merge_repeats(
    row: NDArray[np.integer], column: NDArray[np.integer], value: NDArray[np.floating], *, mean: bool, n_columns: int
) -> Merged:
    """Merge entries of the same row and column.

    Parameters
    ----------
    row, column : int arrays, shape (n,)
    value : float array, shape (n,)
        0 or 1 unless `mean`.
    mean : bool
        Take the arithmetic mean; else vote, equal votes giving NaN.
    n_columns : int

    Notes
    -----
    Means and majority votes as in Hofmarcher et al. (2019); a published script that adds repeated
    values up instead of averaging them is not followed.

    Examples
    --------
    >>> ones = np.zeros(3, dtype=int)
    >>> merge_repeats(ones, ones, np.array([1.0, 1.0, 0.0]), mean=False, n_columns=1).value
    array([1.])
    """
    cell = row.astype(np.int64) * n_columns + column
    distinct, where = np.unique(cell, return_inverse=True)
    n = np.bincount(where, minlength=len(distinct))
    n_active = np.bincount(where, weights=value != 0, minlength=len(distinct)).astype(np.int64)
    if mean:
        merged = np.bincount(where, weights=value, minlength=len(distinct)) / n
    else:
        merged = np.select([2 * n_active > n, 2 * n_active < n], [1.0, 0.0], np.nan)
    return Merged(distinct // n_columns, distinct % n_columns, merged, n, n_active)


def to_labels(activities: Activities, thresholds: Sequence[float] | None = None) -> tuple[Labels, pd.DataFrame]:
    """Turn measurements into labels.

    Parameters
    ----------
    activities : Activities
    thresholds : sequence of float, optional
        Instead of those of `activities`; only for values.

    Returns
    -------
    labels : Labels
        ``compounds`` as in `activities` (those with a label left), ``tasks`` with ``task``,
        ``assay``, ``kind``, ``threshold``, ``source``, what is known about the assay,
        ``n_active`` and ``n_inactive``. Tasks of a threshold are called ``<assay> >= <threshold>``.
    dropped : DataFrame
        Contradicting repeats: ties, which become unmeasured, and measurements that were outvoted.

    Notes
    -----
    Values are averaged first and compared with the threshold afterwards (at or above: active). The
    mean is rounded to 9 decimals, so that 6.5 measured three times is not below 6.5.
    """
    thresholds = activities.thresholds if thresholds is None else tuple(thresholds)
    table, T = activities.table, len(activities.assays)
    merged = merge_repeats(
        table["compound"].to_numpy(), table["assay"].to_numpy(), table["value"].to_numpy(),
        mean=activities.kind == "value", n_columns=T,
    )  # fmt: skip
    lost = contradictions(
        merged, activities.compounds["compound"], activities.assays["name"], _STAGE, mean=activities.kind == "value"
    )
    kept = ~np.isnan(merged.value)
    row, column, value = merged.row[kept], merged.column[kept], merged.value[kept]
    if activities.kind == "value" and thresholds:
        levels = np.asarray(thresholds, dtype=np.float64)
        value = (np.round(value, 9)[:, None] >= levels).astype(np.float64).ravel()
        column = (column[:, None] * len(levels) + np.arange(len(levels))).ravel()
        row = np.repeat(row, len(levels))
    tasks = _tasks(activities, thresholds)
    used, row = np.unique(row, return_inverse=True)
    Y = sparse.csr_matrix((value.astype(np.float32), (row, column)), shape=(len(used), len(tasks)))
    labels = Labels(Y, activities.compounds.iloc[used], tasks)
    return Labels(Y, labels.compounds, labels.tasks.assign(**labels.counts())), lost


def contradictions(
    merged: Merged, compounds: pd.Series, tasks: pd.Series, stage: str, *, mean: bool = False
) -> pd.DataFrame:
    """List the entries whose repeats disagree (binary only): ties and votes that were overruled."""
    against = (merged.n_active > 0) & (merged.n_active < merged.n) & (not mean)
    names = compounds.to_numpy(object)[merged.row[against]]
    where = tasks.to_numpy(object)[merged.column[against]]
    ids = [f"{c} in {t}" for c, t in zip(names, where, strict=True)]
    votes = zip(merged.n_active[against], merged.n[against], strict=True)
    reasons = [
        f"{a} of {n} repeats are active: " + ("a tie, taken as not measured" if 2 * a == n else "the majority is kept")
        for a, n in votes
    ]
    return dropped(stage, "activity", ids, reasons)


def _tasks(activities: Activities, thresholds: Sequence[float]) -> pd.DataFrame:
    assays = activities.assays.rename(columns={"name": "task"})
    if activities.kind == "value" and thresholds:
        K = len(thresholds)
        tasks = assays.loc[assays.index.repeat(K)].reset_index(drop=True)
        level = np.tile(np.asarray(thresholds, dtype=np.float64), len(assays))
        tasks["task"] = [f"{a} >= {t:g}" for a, t in zip(tasks["task"], level, strict=True)]
        kind = "threshold"
    else:
        tasks, level, kind = assays.copy(), np.full(len(assays), np.nan), activities.kind
    tasks.insert(2, "kind", kind)
    tasks.insert(3, "threshold", level)
    tasks.insert(4, "source", activities.source)
    return tasks
