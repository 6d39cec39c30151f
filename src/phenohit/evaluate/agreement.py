"""Which assays each method predicts: sets above an AUROC, what they share, and how far methods agree.

Simm et al. 2018 counted assays above 0.9 and 0.7 for three methods and drew what they share as a Venn diagram: 11 of 34
and 182 of 225 were common to all three, hence the images and not the method carried the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom, rankdata

from phenohit.errors import ShapeError

__all__ = [
    "FEW", "LEVELS", "UNITS", "by_assay", "by_task", "chance_of_sets", "intersections", "kappa", "pair", "sets",
    "unit_of",
]  # fmt: skip

LEVELS = (0.9, 0.7)
UNITS = ("assay", "task")
FEW = 10  # assays with enough labels, below which tasks say more
_NEVER = 1e-12  # chances below move no range

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def by_task(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """AUROC of every task and method.

    Parameters
    ----------
    tables : mapping of method to its score table
        All over the same tasks.

    Returns
    -------
    DataFrame, T rows (index: the task's name) and one float64 column per method
        NaN where undefined.

    Raises
    ------
    ShapeError
        If the tables are not over the same tasks.
    """
    first = next(iter(tables.values()))["task"].astype(str)
    for name, table in tables.items():
        if not np.array_equal(table["task"].astype(str).to_numpy(), first.to_numpy()):
            raise ShapeError(f"The table of '{name}' is over other tasks than the first. Give one split at a time.")
    columns = {name: table["auroc"].to_numpy(np.float64) for name, table in tables.items()}
    return pd.DataFrame(columns, index=pd.Index(first, name="task"))


def by_assay(auroc: pd.DataFrame | Floats, tasks: pd.DataFrame, *, simm_min: int = 25) -> pd.DataFrame:
    """Value of every assay under the rule of Simm 2018: that of its best threshold.

    Parameters
    ----------
    auroc : DataFrame or float array with T rows
        One column per method (or per draw).
    tasks : DataFrame, T rows
        Columns ``assay, n_active, n_inactive``.
    simm_min : int
        Actives and inactives a task needs to count.

    Returns
    -------
    DataFrame, one row per assay with a task that counts (index: the assay's name), the columns of `auroc`
        NaN where no counted task is defined.
    """
    values = auroc if isinstance(auroc, pd.DataFrame) else pd.DataFrame(auroc)
    enough = (tasks["n_active"].to_numpy() >= simm_min) & (tasks["n_inactive"].to_numpy() >= simm_min)
    assay = pd.Index(tasks["assay"].astype(str), name="assay")[enough]
    return values[enough].set_axis(assay, axis=0).groupby(level=0, sort=False).max()


def unit_of(n_assays: int, n_tasks: int) -> str:
    """Say what is best counted: assays by Simm's rule, or tasks where hardly any assay has labels enough for it."""
    return "assay" if n_assays >= min(FEW, n_tasks) else "task"


def intersections(member: Bools) -> list[tuple[tuple[int, ...], NDArray[np.int64]]]:
    """Sort items by the exact combination of sets they lie in.

    Parameters
    ----------
    member : bool array, shape (n, M)
        Whether each item lies in each set.

    Returns
    -------
    list of (sets, items)
        Positions of the sets that these items lie in, and in no other, and positions of the items; most items first.
        Items in no set are left out. Every other item occurs once, so that the counts add up to the union.
    """
    if not member.any():
        return []
    inside = np.flatnonzero(member.any(1))
    kinds, kind = np.unique(member[inside], axis=0, return_inverse=True)
    found = [(tuple(np.flatnonzero(row).tolist()), inside[kind.ravel() == i]) for i, row in enumerate(kinds)]
    return sorted(found, key=lambda pair: (-len(pair[1]), len(pair[0]), pair[0]))


def chance_of_sets(p: Floats, n_methods: int, *, confidence: float = 0.95) -> dict[str, Any]:
    """Count what methods that know nothing, and nothing of each other, would have in their sets.

    Parameters
    ----------
    p : float array, shape (n,)
        Chance that random scores bring each item above the level.
    n_methods : int
    confidence : float

    Returns
    -------
    dict
        ``union`` and ``common``: for 1, 2, .. `n_methods` methods a dict ``expected, low, high``; ``exclusive``: for k
        methods a list, for s = 1 .. k the items expected in exactly s given sets and none of the others.

    Notes
    -----
    An item is in the union of k such methods with the chance 1 - (1 - p)^k, common to all with p^k, and in exactly s
    given ones with p^s (1 - p)^(k - s). Items are taken as independent: counts are Poisson-binomial. Real methods are
    trained on the same labels and err alike, so that chance gives them less to the union and more to what is common:
    were they all the same, both would be the count of a single method.
    """
    k = np.arange(1, n_methods + 1)
    return {
        "union": [_range(1 - (1 - p) ** int(i), confidence) for i in k],
        "common": [_range(p ** int(i), confidence) for i in k],
        "exclusive": [[float((p**s * (1 - p) ** (i - s)).sum()) for s in range(1, i + 1)] for i in k.tolist()],
    }


def _range(p: Floats, confidence: float) -> dict[str, float]:
    """Mean and central range of a sum of independent events, exact: equal chances make a binomial, and these add."""
    pmf = np.ones(1)
    chances, times = np.unique(p[p > _NEVER], return_counts=True)
    for chance, n in zip(chances.tolist(), times.tolist(), strict=True):
        pmf = np.convolve(pmf, binom.pmf(np.arange(n + 1), n, min(chance, 1.0)))
    low, high = np.searchsorted(pmf.cumsum(), [(1 - confidence) / 2, (1 + confidence) / 2])
    return {"expected": float(p.sum()), "low": float(low), "high": float(min(high, len(pmf) - 1))}


def sets(
    auroc: pd.DataFrame,
    above: float,
    groups: Mapping[str, Sequence[str]],
    p: Floats | None = None,
    *,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Find the items that each method brings above an AUROC, and all exclusive intersections.

    Parameters
    ----------
    auroc : DataFrame, n rows (index: names of the items) and one column per method
        As made by `by_task` or `by_assay`.
    above : float
        Strictly above counts; undefined does not.
    groups : mapping of str to list of method
        Methods to join; intersections are over those of the first group.
    p : float array, shape (n,), optional
        As for `chance_of_sets`; without it nothing is said of chance.

    Returns
    -------
    dict, ready for JSON
        ``above, n`` (items), ``n_defined``, ``chance`` (of `chance_of_sets`, or None), ``counts``: method -> count;
        ``groups``: name -> ``methods, union, common, best, best_count``; ``intersections``: list of ``methods, count,
        expected, members``.
    """
    names = auroc.index.astype(str).to_numpy(object)
    member = auroc.to_numpy(np.float64) > above  # NaN is not above
    place = {name: i for i, name in enumerate(auroc.columns)}
    chance = None if p is None else chance_of_sets(p, max(len(place), 1), confidence=confidence)
    found = {}
    for group, methods in groups.items():
        own = member[:, [place[m] for m in methods]]
        counts = own.sum(0)
        best = int(np.argmax(counts)) if len(methods) else -1
        found[group] = {
            "methods": list(methods),
            "union": int(own.any(1).sum()) if len(methods) else 0,
            "common": int(own.all(1).sum()) if len(methods) else 0,
            "best": methods[best] if len(methods) else "",
            "best_count": int(counts[best]) if len(methods) else 0,
        }
    first = list(next(iter(groups.values()), []))
    rows = []
    for which, items in intersections(member[:, [place[m] for m in first]]):
        expected = None if chance is None else chance["exclusive"][len(first) - 1][len(which) - 1]
        methods, members = [first[i] for i in which], names[items].tolist()
        rows.append({"methods": methods, "count": len(items), "expected": expected, "members": members})
    return {
        "above": above,
        "n": len(names),
        "n_defined": int(auroc.notna().any(axis=1).sum()),
        "counts": {name: int(member[:, i].sum()) for name, i in place.items()},
        "groups": found,
        "intersections": rows,
        "chance": chance,
    }


def kappa(one: Bools, other: Bools) -> float:
    """Cohen's kappa of two yes-or-no calls of the same items: 1 agree, 0 as by chance.

    NaN where both call everything the same, or there is nothing to call.
    """
    if not len(one):
        return float("nan")
    a, b = one.mean(), other.mean()
    expected = a * b + (1 - a) * (1 - b)
    return float(((one == other).mean() - expected) / (1 - expected)) if expected < 1 else float("nan")


def pair(one: Floats, other: Floats, *, above: float = 0.7) -> dict[str, Any]:
    """Say how far two methods agree on which tasks can be predicted.

    Parameters
    ----------
    one, other : float array, shape (T,)
        AUROC of each task; compared where both are defined.
    above : float
        Level of the calls.

    Returns
    -------
    dict
        ``n_tasks, n_both, n_first, n_second, n_neither`` (tasks above the level), ``kappa`` of these calls,
        ``auroc_spearman`` (NaN with fewer than 3 tasks or a method that is constant).
    """
    both = ~(np.isnan(one) | np.isnan(other))
    a, b = one[both], other[both]
    left, right = a > above, b > above
    spearman = float("nan")
    if len(a) >= 3 and np.ptp(a) > 0 and np.ptp(b) > 0:
        spearman = float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
    return {
        "n_tasks": len(a),
        "n_both": int((left & right).sum()),
        "n_first": int((left & ~right).sum()),
        "n_second": int((right & ~left).sum()),
        "n_neither": int((~left & ~right).sum()),
        "kappa": kappa(left, right),
        "auroc_spearman": spearman,
    }
