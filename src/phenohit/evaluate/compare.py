"""Methods against each other, over the tasks that both could be scored on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import permutations
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from phenohit.errors import ShapeError, some

__all__ = ["ZeroMethod", "compare", "holm"]

ZeroMethod = Literal["wilcox", "pratt", "zsplit"]

MIN_DIFFERENT = 5  # with fewer tasks that differ, no one-sided p-value can fall below 0.05

_DIGITS = 12  # of a difference: what is equal but for rounding, as means over folds or splits are, counts as equal


def compare(
    tables: Mapping[str, pd.DataFrame], *, column: str = "auroc", zero_method: ZeroMethod = "wilcox"
) -> pd.DataFrame:
    """Compare every ordered pair of methods by a paired one-sided test over tasks.

    Parameters
    ----------
    tables : mapping of method to its score table
        Tasks are matched by name; a pair is compared on the tasks where both are defined.
    column : str
        Metric compared.
    zero_method : {'wilcox', 'pratt', 'zsplit'}
        What `scipy.stats.wilcoxon` does with tasks where the two are equal: leave them out, rank them but drop their
        ranks, or share their ranks between both sides.

    Returns
    -------
    DataFrame, one row per ordered pair
        ``method, other, n_tasks, n_left_out`` (tasks of either that are not defined in both), ``mean, mean_other,
        mean_difference, share_better`` (tasks where `method` is strictly better), ``p_value`` of the Wilcoxon
        signed-rank test that `method` is better, ``p_holm`` corrected over all rows, ``pearson_r``. NaN where too few
        tasks are left: 5 that differ for p, 3 for r.

    Raises
    ------
    ShapeError
        If a table names a task twice.

    Notes
    -----
    Hofmarcher 2019 compares at 0.01 without correction. Tasks that share compounds are not
    independent, as the test takes them to be: read p as a description. SciPy's p is exact for up to 50 tasks that
    differ, or 13 where some differ equally (SciPy 1.17), and a normal approximation for more. Differences that are
    equal but for rounding (12 digits) are equal.
    """
    values = {}
    for name, table in tables.items():
        doubled = table["task"][table["task"].duplicated()]
        if len(doubled):
            raise ShapeError(f"The table of '{name}' holds tasks twice: {some(doubled)}. Give one split at a time.")
        values[name] = table.set_index("task")[column].astype(np.float64)
    rows = []
    for method, other in permutations(values, 2):
        either = pd.concat([values[method], values[other]], axis=1, keys=["a", "b"])
        both = either.dropna()
        a, b = both["a"].to_numpy(), both["b"].to_numpy()
        rows.append((method, other, len(a), len(either) - len(a), *_pair(a, b, zero_method)))
    columns = [
        "method", "other", "n_tasks", "n_left_out", "mean", "mean_other",
        "mean_difference", "share_better", "p_value", "pearson_r",
    ]  # fmt: skip
    result = pd.DataFrame(rows, columns=columns)
    result.insert(9, "p_holm", holm(result["p_value"].to_numpy(np.float64)))
    return result


def _pair(a: NDArray[np.float64], b: NDArray[np.float64], zero_method: ZeroMethod) -> tuple[float, ...]:
    """Numbers of one ordered pair; see `compare`."""
    n = len(a)
    if n == 0:
        return (np.nan,) * 6
    p = r = np.nan
    ahead = np.round(a - b, _DIGITS)
    if np.count_nonzero(ahead) >= MIN_DIFFERENT:
        # Left out here already, for SciPy would count zeros among the tasks when it chooses between exact and normal.
        ranked = ahead[ahead != 0] if zero_method == "wilcox" else ahead
        with warnings.catch_warnings():  # some SciPy versions warn of ties among few tasks
            warnings.simplefilter("ignore")
            p = float(wilcoxon(ranked, zero_method=zero_method, alternative="greater").pvalue)
    if n >= 3 and np.ptp(a) > 0 and np.ptp(b) > 0:
        r = float(np.corrcoef(a, b)[0, 1])
    return a.mean(), b.mean(), (a - b).mean(), (ahead > 0).mean(), p, r


def holm(p: NDArray[np.floating]) -> NDArray[np.float64]:
    """Correct p-values for their number (Holm 1979), shape (n,); NaN stays NaN and is not counted."""
    result = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(order) else []
    return result
