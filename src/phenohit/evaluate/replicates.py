"""Repeated splits: metrics averaged per task before methods are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from phenohit.errors import ColumnError, ShapeError, nearest, some
from phenohit.evaluate.metrics import METRICS

__all__ = ["mean_over_splits", "median_split"]

_ABOUT = ("assay", "kind", "threshold")  # what a score table says of a task, whatever the split


def mean_over_splits(
    tables: Mapping[str, pd.DataFrame], *, metrics: Sequence[str] | None = None, least: int = 1
) -> pd.DataFrame:
    """Average the metrics of every task over repeated splits.

    Parameters
    ----------
    tables : mapping of split to the score table of one method on it
        Tasks are matched by name.
    metrics : sequence of str, optional
        Columns to average. Default: those of `METRICS` that all tables have.
    least : int
        A metric of a task that is defined on fewer splits than this becomes NaN. With the number of splits, only tasks
        count that are defined on all of them.

    Returns
    -------
    DataFrame, one row per task that occurs
        ``task``, ``assay, kind, threshold`` where given, ``n_splits`` tables that hold the task; for every metric its
        mean over the splits where it is defined, and ``<metric>_defined``, their number. Fit for `compare`.

    Raises
    ------
    ShapeError
        If there is no table, or one names a task twice.
    ColumnError
        If a metric is missing from a table.

    Notes
    -----
    Hofmarcher 2019 trains every method on three splits, averages all metrics per task, and tests methods against each
    other on these means. Repeated splits share compounds: their spread is no standard error.
    """
    tables = _checked(tables)
    if metrics is None:
        metrics = [m for m in METRICS if all(m in table for table in tables.values())]
    for split, table in tables.items():
        for name in metrics:
            if name not in table:
                raise ColumnError(
                    f"The scores on split '{split}' have no column '{name}'. {nearest(name, map(str, table.columns))}"
                )
    rows = pd.concat(tables.values(), ignore_index=True)
    tasks = rows.groupby("task", sort=False)
    about = tasks[[c for c in _ABOUT if c in rows]].first()
    result = about.assign(n_splits=tasks.size())
    for name in metrics:
        values = rows[name].astype(np.float64).groupby(rows["task"], sort=False)
        result[name] = values.mean().where(values.count() >= least)
        result[f"{name}_defined"] = values.count()
    return result.reset_index()


def median_split(tables: Mapping[str, pd.DataFrame], *, column: str = "auroc") -> str:
    """Find the split of median performance, the one that Hofmarcher 2019 gives intervals for.

    Parameters
    ----------
    tables : mapping of split to the score table of one method on it
    column : str
        Metric, averaged over the tasks that are defined on every split.

    Returns
    -------
    str
        Name of the split; of an even number of splits, the lower of the two in the middle.

    Raises
    ------
    ShapeError
        If there is no table, one names a task twice, or no task is defined on every split.
    ColumnError
        If the metric is missing from a table.
    """
    all_defined = mean_over_splits(tables, metrics=[column], least=len(tables)).dropna(subset=[column])["task"]
    if all_defined.empty:
        raise ShapeError(f"No task has a defined '{column}' on every one of the splits {some(tables)}.")
    mean = pd.Series({s: table.set_index("task")[column][all_defined].mean() for s, table in tables.items()})
    return str(mean.sort_values(kind="stable").index[(len(mean) - 1) // 2])


def _checked(tables: Mapping[str, pd.DataFrame]) -> Mapping[str, pd.DataFrame]:
    """Return the tables if there are some and each names a task once."""
    if not tables:
        raise ShapeError("There are no splits to average over. Give at least one score table.")
    for split, table in tables.items():
        doubled = table["task"][table["task"].duplicated()]
        if len(doubled):
            raise ShapeError(
                f"The scores on split '{split}' hold tasks twice: {some(doubled)}. Give one method at a time."
            )
    return tables
