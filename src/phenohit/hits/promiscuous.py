"""Frequent hitters: compounds that are active in more of their assays than those assays' hit rates explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import beta

from phenohit.hits.rank import same_assay

if TYPE_CHECKING:
    from phenohit.data.labels import Labels
    from phenohit.hits.filter import Evidence

__all__ = ["activity", "lower_bound", "promiscuous"]

LEAST_ASSAYS = 5  # measured in fewer, nothing can be said
CONFIDENCE = 0.95
ODDS = 2.0  # how many times the population's odds the lower end must exceed
LEAST_SHARE = 0.1  # and the share it must exceed, however rare hits are


def lower_bound(k: NDArray[np.int64], m: NDArray[np.int64], confidence: float = CONFIDENCE) -> NDArray[np.float64]:
    """Exact lower end of a share, k of m, one-sided (Clopper and Pearson 1934); 0 where k is 0."""
    k, m = np.asarray(k), np.asarray(m)
    return np.where(k > 0, beta.ppf(1 - confidence, np.maximum(k, 1), m - k + 1), 0.0)


def activity(labels: Labels | None, task: str) -> pd.DataFrame:
    """Count assays per compound, without the assay of `task`.

    Parameters
    ----------
    labels : Labels or None
    task : str
        A binary task; '' counts all assays.

    Returns
    -------
    DataFrame
        Index: compound key. ``measured`` (assays with a label), ``active`` (active in any task of the assay) and
        ``expected`` (mean active share, over all compounds, of the assays that this one was measured in; NaN
        where there is none). No rows without labels.
    """
    if labels is None:
        return pd.DataFrame({"measured": [], "active": [], "expected": []}, index=pd.Index([], dtype=object))
    tasks = labels.tasks
    own = same_assay(labels, task) if task else np.zeros(0, dtype=np.intp)
    name = tasks["assay"].fillna("").astype(str).str.strip()
    code = pd.factorize(name.where(name != "", "task " + tasks["task"].astype(str)))[0]
    use = (tasks["kind"] != "value").to_numpy(copy=True)
    use[own] = False
    row = np.repeat(np.arange(len(labels)), np.diff(labels.Y.indptr))
    kept = use[labels.Y.indices]
    assay, row, hit = code[labels.Y.indices[kept]], row[kept], labels.Y.data[kept] > 0
    shape = (len(labels), int(code.max(initial=-1)) + 1)
    # Entries of one assay are one: repeats are added up and only their presence counts.
    there = sparse.csr_matrix((np.ones(len(row), np.float32), (row, assay)), shape=shape)
    active = sparse.csr_matrix((np.ones(int(hit.sum()), np.float32), (row[hit], assay[hit])), shape=shape)
    there.data[:], active.data[:] = 1, 1
    measured, n_active = np.diff(there.indptr), np.diff(active.indptr)
    share = np.asarray(active.sum(axis=0)).ravel() / np.maximum(np.asarray(there.sum(axis=0)).ravel(), 1)
    expected = np.where(measured > 0, there @ share / np.maximum(measured, 1), np.nan)
    index = pd.Index(labels.compounds["compound"].astype(str))
    return pd.DataFrame({"measured": measured, "active": n_active, "expected": expected}, index=index)


def promiscuous(table: pd.DataFrame, evidence: Evidence) -> NDArray[np.object_]:
    """Say which candidates are frequent hitters, shape (N,).

    A compound is one if it was measured in at least 5 other assays and the lower end of the exact one-sided 95 %
    interval of its active share is above 10 % and has more than twice the odds of the share expected of those
    assays. One of one never is. Measured in fewer: ``not known``, which passes.

    Notes
    -----
    Assays count as independent, so many assays of one target count too much. Rules on structure alone are the
    filters ``pains`` and ``reactive``.
    """
    from phenohit.hits.filter import NOT_KNOWN

    known = evidence.activity
    at = known.index.get_indexer(pd.Index(table["compound"].astype(str)))
    seen = known.iloc[np.maximum(at, 0)] if len(known) else known.reindex(range(len(table))).fillna(0)
    m = np.where(at >= 0, seen["measured"], 0).astype(np.int64)
    k, expected = seen["active"].to_numpy(np.int64), seen["expected"].fillna(0).to_numpy(np.float64)
    low = lower_bound(np.minimum(k, m), m)
    bar = ODDS * expected / np.maximum(1 - expected, 1e-12)
    bar = np.maximum(bar / (1 + bar), LEAST_SHARE)
    out = np.where(m >= LEAST_ASSAYS, "", NOT_KNOWN).astype(object)
    for i in np.flatnonzero((m >= LEAST_ASSAYS) & (low > bar)):
        out[i] = f"active in {k[i]} of {m[i]} other assays: at least {low[i]:.0%}, where {expected[i]:.0%} are expected"
    return out
