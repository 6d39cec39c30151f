"""Methods against each other, over the tasks that both could be scored on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import permutations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from phenohit.errors import ShapeError, some

__all__ = ["compare"]

MIN_DIFFERENT = 5  # with fewer tasks that differ, no one-sided p-value can fall below 0.05


def compare(tables: Mapping[str, pd.DataFrame], *, column: str = "auroc") -> pd.DataFrame:
    """Compare every ordered pair of methods by a paired one-sided test over tasks.

    Parameters
    ----------
    tables : mapping of method to its score table
        Tasks are matched by name; a pair is compared on the tasks where both are defined.
    column : str
        Metric compared.

    Returns
    -------
    DataFrame, one row per ordered pair
        ``method, other, n_tasks, mean, mean_other, mean_difference, share_better`` (tasks where
        `method` is strictly better), ``p_value`` of the Wilcoxon signed-rank test that `method` is
        better, ``p_holm`` corrected over all rows, ``pearson_r``. NaN where too few tasks are left:
        5 that differ for p, 3 for r.

    Raises
    ------
    ShapeError
        If a table names a task twice.

    Notes
    -----
    Hofmarcher 2019 compares at 0.01 without correction. Tasks that share compounds are not
    independent, as the test takes them to be: read p as a description.
    """
    values = {}
    for name, table in tables.items():
        doubled = table["task"][table["task"].duplicated()]
        if len(doubled):
            raise ShapeError(f"The table of '{name}' holds tasks twice: {some(doubled)}. Give one split at a time.")
        values[name] = table.set_index("task")[column].astype(np.float64)
    rows = []
    for method, other in permutations(values, 2):
        both = pd.concat([values[method], values[other]], axis=1, join="inner", keys=["a", "b"]).dropna()
        a, b = both["a"].to_numpy(), both["b"].to_numpy()
        rows.append((method, other, *_pair(a, b)))
    columns = [
        "method", "other", "n_tasks", "mean", "mean_other", "mean_difference",
        "share_better", "p_value", "pearson_r",
    ]  # fmt: skip
    result = pd.DataFrame(rows, columns=columns)
    result.insert(8, "p_holm", _holm(result["p_value"].to_numpy(np.float64)))
    return result


def _pair(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, ...]:
    """Numbers of one ordered pair; see `compare`."""
    n = len(a)
    if n == 0:
        return (0, *[np.nan] * 6)
    p = r = np.nan
    if np.count_nonzero(a != b) >= MIN_DIFFERENT:
        with warnings.catch_warnings():  # some SciPy versions warn of ties among few tasks
            warnings.simplefilter("ignore")
            p = float(wilcoxon(a, b, alternative="greater").pvalue)
    if n >= 3 and np.ptp(a) > 0 and np.ptp(b) > 0:
        r = float(np.corrcoef(a, b)[0, 1])
    return n, a.mean(), b.mean(), (a - b).mean(), (a > b).mean(), p, r


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's correction; NaN stays NaN and is not counted."""
    result = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(order) else []
    return result
