"""How much tasks repeat each other, which compounds are active everywhere, and how full the matrix is."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.labels import Labels
from phenohit.errors import some

__all__ = [
    "label_statistics",
    "near_duplicates",
    "prune_overlap",
    "prune_promiscuous",
    "task_overlap",
    "warn_duplicates",
]

log = logging.getLogger("phenohit")

_BLOCK = 512  # tasks whose overlaps with all others are held at once
_DUPLICATE = 0.5  # share of the smaller task's labels that another task repeats
_COMMON_HITS = 0.25  # and intersection over union of the actives
_COLUMNS = [
    "task_a", "task_b", "same_assay", "n_a", "n_b", "n_both", "jaccard", "n_equal", "equal_share", "equal_jaccard",
    "hits_iou", "kappa",
]  # fmt: skip


def _parts(labels: Labels) -> tuple[sparse.csc_matrix, sparse.csc_matrix]:
    """Return where compounds are active and where inactive, (N, T) of 0/1; tasks of numbers are empty."""
    Y = labels.Y.tocsc()
    column = np.repeat(np.arange(len(labels.tasks)), np.diff(Y.indptr))
    binary = (labels.tasks["kind"] != "value").to_numpy()[column]
    parts = []
    for one in (binary & (Y.data != 0), binary & (Y.data == 0)):
        indptr = np.append(0, np.cumsum(np.bincount(column[one], minlength=len(labels.tasks))))
        ones = np.ones(int(one.sum()), dtype=np.float32)
        parts.append(sparse.csc_matrix((ones, Y.indices[one], indptr), shape=labels.Y.shape))
    return parts[0], parts[1]


def task_overlap(labels: Labels, *, top: int = 10_000, least: float = 0.05) -> pd.DataFrame:
    """Compare every two binary tasks.

    Parameters
    ----------
    labels : Labels, shape (N, T)
    top : int
        Pairs returned, the most alike first.
    least : float
        Pairs whose compounds overlap less (Jaccard index) are not listed.

    Returns
    -------
    DataFrame
        ``task_a``, ``task_b``, ``same_assay`` (bool: thresholds of one assay are alike by nature),
        ``n_a``, ``n_b`` (compounds), ``n_both``, ``jaccard`` (of the compound sets), ``n_equal``
        (compounds with the same label in both), ``equal_share`` (of the smaller task's labels),
        ``equal_jaccard`` (of the sets of (compound, label) pairs), ``hits_iou`` (intersection over
        union of the actives, Moshkov et al. 2023; NaN where neither has one), ``kappa`` (Cohen's, of the labels
        of the common compounds: agreement beyond chance; NaN where one of the two is all of one class there).
    """
    active, inactive = _parts(labels)
    both = (active + inactive).tocsc()
    n, hits = (np.asarray(m.sum(axis=0)).ravel() for m in (both, active))
    found = []
    T = len(labels.tasks)
    for start in range(0, T, _BLOCK):
        block = slice(start, min(start + _BLOCK, T))
        shared = (both[:, block].T @ both).tocoo()
        i, j = shared.row + start, shared.col
        keep = (i < j) & (shared.data >= least * (n[i] + n[j] - shared.data))
        i, j, n_both = i[keep], j[keep], shared.data[keep]
        n_hits = _at(active[:, block].T @ active, i - start, j)
        n_misses = _at(inactive[:, block].T @ inactive, i - start, j)
        mine = _at(active[:, block].T @ both, i - start, j)  # actives of i among the common compounds
        theirs = _at(both[:, block].T @ active, i - start, j)
        found.append(np.stack([i, j, n_both, n_hits, n_misses, mine, theirs]))
    i, j, n_both, n_hits, n_misses, mine, theirs = np.concatenate(found, axis=1) if found else np.zeros((7, 0))
    i, j = i.astype(np.intp), j.astype(np.intp)
    equal = n_hits + n_misses
    union = hits[i] + hits[j] - n_hits
    assay = labels.tasks["assay"].to_numpy(object)
    names = labels.tasks["task"].to_numpy(object)
    table = pd.DataFrame(
        {
            "task_a": names[i], "task_b": names[j], "same_assay": assay[i] == assay[j],
            "n_a": n[i].astype(int), "n_b": n[j].astype(int), "n_both": n_both.astype(int),
            "jaccard": n_both / (n[i] + n[j] - n_both), "n_equal": equal.astype(int),
            "equal_share": equal / np.minimum(n[i], n[j]), "equal_jaccard": equal / (n[i] + n[j] - equal),
            "hits_iou": np.divide(n_hits, union, out=np.full(len(i), np.nan), where=union > 0),
            "kappa": _kappa(n_both, equal, mine, theirs),
        },
        columns=_COLUMNS,
    )  # fmt: skip
    order = np.lexsort((j, i, -table["jaccard"].to_numpy(), -table["equal_jaccard"].to_numpy()))
    return table.iloc[order[:top]].reset_index(drop=True)


def _at(table: sparse.spmatrix, i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.float64]:
    """Entries of a sparse table."""
    return np.asarray(sparse.csr_matrix(table)[i, j], dtype=np.float64).ravel() if len(i) else np.zeros(0)


def _kappa(
    n: NDArray[np.float64], equal: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cohen's kappa of n pairs of labels of which `equal` agree, with a and b actives."""
    by_chance = a * b + (n - a) * (n - b)
    return np.divide(n * equal - by_chance, n**2 - by_chance, out=np.full(len(n), np.nan), where=n**2 > by_chance)


def near_duplicates(overlap: pd.DataFrame, *, n: int = 20) -> pd.Series:
    """Tell which pairs of tasks of different assays are nearly the same.

    Parameters
    ----------
    overlap : DataFrame
        From `task_overlap`.
    n : int
        Labels the smaller task needs to count.

    Returns
    -------
    Series of bool, one per row

    Notes
    -----
    Half of the smaller task's labels stand in the other as well, and a quarter of the actives are common:
    tasks with few actives agree on the inactives whatever they measure (classes of one table, say). In
    Ha's thesis three cytochrome tasks of 779 to 840 compounds share 450 to 580 labels.
    """
    smaller = overlap[["n_a", "n_b"]].min(axis=1)
    alike = (overlap["equal_share"] >= _DUPLICATE) & (overlap["hits_iou"] >= _COMMON_HITS)
    return ~overlap["same_assay"].astype(bool) & alike & (smaller >= n)


def warn_duplicates(overlap: pd.DataFrame, *, n: int = 20) -> pd.DataFrame:
    """Warn of tasks that are `near_duplicates`, and return them."""
    alike = overlap[near_duplicates(overlap, n=n)]
    if len(alike):
        shown = some((f"{r.task_a} and {r.task_b} ({r.n_equal} of {r.n_a} and {r.n_b})" for r in alike.itertuples()), 5)
        log.warning(
            "%d pairs of tasks repeat each other's labels: %s. Results on them are not independent; labels.max_overlap "
            "leaves one of each pair out", len(alike), shown.replace("'", ""),
        )  # fmt: skip
    return alike.reset_index(drop=True)


def prune_overlap(labels: Labels, max_overlap: float) -> tuple[Labels, pd.DataFrame]:
    """Leave out tasks whose actives are mostly those of a fuller task.

    Parameters
    ----------
    labels : Labels
    max_overlap : float
        Largest intersection over union of the actives of two tasks that are both kept.

    Returns
    -------
    labels : Labels
    dropped : DataFrame
        One row per task with the task it repeats.

    Notes
    -----
    Tasks are gone through from the fullest on; one is kept if it overlaps no kept one too much. Thresholds
    of one assay are tasks like others.
    """
    active, _ = _parts(labels)
    hits = np.asarray(active.sum(axis=0)).ravel()
    n = np.diff(labels.Y.tocsc().indptr)
    kept: list[int] = []
    by: dict[int, tuple[int, float]] = {}
    for t in np.argsort(-n, kind="stable"):
        if kept and hits[t]:
            common = np.asarray((active[:, [t]].T @ active).todense()).ravel()[kept]
            iou = common / (hits[t] + hits[kept] - common)
            worst = int(np.argmax(iou))
            if iou[worst] > max_overlap:
                by[int(t)] = (kept[worst], float(iou[worst]))
                continue
        kept.append(int(t))
    names = labels.tasks["task"].to_numpy(object)
    reasons = [f"{v:.2f} of its actives and those of '{names[k]}' are common (labels.max_overlap {max_overlap:g})"
               for k, v in (by[t] for t in sorted(by))]  # fmt: skip
    return labels.take_tasks(sorted(kept)), dropped("prune tasks", "task", names[sorted(by)], reasons)


def prune_promiscuous(labels: Labels, max_active: int) -> tuple[Labels, pd.DataFrame]:
    """Take all labels from compounds that are active in more than `max_active` assays.

    Returns
    -------
    labels : Labels
        Same rows and tasks; promiscuous compounds have empty rows.
    dropped : DataFrame
        One row per compound.
    """
    active, _ = _parts(labels)
    assay, _ = pd.factorize(labels.tasks["assay"])
    of_assay = sparse.csr_matrix((np.ones(len(assay)), (np.arange(len(assay)), assay)))
    n = np.diff((active.tocsr() @ of_assay).tocsr().indptr) if len(assay) else np.zeros(len(labels), dtype=int)
    out = n > max_active
    if not out.any():
        return labels, nothing_dropped()
    keep = np.repeat(~out, np.diff(labels.Y.indptr))
    indptr = np.append(0, np.cumsum(np.where(out, 0, np.diff(labels.Y.indptr))))
    Y = sparse.csr_matrix((labels.Y.data[keep], labels.Y.indices[keep], indptr), shape=labels.Y.shape)
    pruned = Labels(Y, labels.compounds, labels.tasks)
    pruned = Labels(Y, labels.compounds, pruned.tasks.assign(**pruned.counts()))
    reasons = [f"active in {k} assays (labels.max_active_tasks {max_active}): its labels are not used" for k in n[out]]
    return pruned, dropped("prune compounds", "compound", labels.compounds["compound"][out], reasons)


def label_statistics(labels: Labels, values: pd.DataFrame | None = None) -> dict[str, pd.DataFrame]:
    """Count what the report shows of the label matrix (Hofmarcher 2019, Fig. S4; Ha's thesis, Fig. 2.2).

    Parameters
    ----------
    labels : Labels, shape (N, T)
    values : DataFrame, optional
        Of `phenohit.labels.curate_records.RecordLabels`: tells how often each pair was measured.

    Returns
    -------
    dict of DataFrame
        ``tasks`` (``task``, ``assay``, ``kind``, ``n_labels``, ``n_active``, ``active_share``; T rows),
        ``per_compound`` (``n_labels``, ``n_compounds``: a histogram, 0 included), ``repeats`` (``n``
        measurements, ``n_pairs``, ``mean_spread`` of high - low), ``matrix`` (one row: ``n_compounds``
        with a label, ``n_tasks``, ``n_labels``, ``active``, ``inactive``, ``missing`` as shares).
    """
    counts = labels.counts()
    tasks = labels.tasks[["task", "assay", "kind"]].copy()
    tasks["n_labels"] = counts.sum(axis=1).to_numpy()
    tasks["n_active"] = counts["n_active"].to_numpy()
    tasks["active_share"] = tasks["n_active"] / tasks["n_labels"].where(tasks["n_labels"] > 0)
    tasks.loc[tasks["kind"] == "value", "active_share"] = np.nan
    return {"tasks": tasks, "per_compound": _histogram(np.diff(labels.Y.indptr)), "repeats": _repeats(values),
            "matrix": _matrix(labels, counts)}  # fmt: skip


def _histogram(n: NDArray[np.integer]) -> pd.DataFrame:
    levels, counts = np.unique(n, return_counts=True)
    return pd.DataFrame({"n_labels": levels, "n_compounds": counts})


def _repeats(values: pd.DataFrame | None) -> pd.DataFrame:
    if values is None or not len(values):
        return pd.DataFrame({"n": pd.Series(dtype=int), "n_pairs": pd.Series(dtype=int), "mean_spread": []})
    spread = (values["high"] - values["low"]).groupby(values["n"]).agg(["size", "mean"])
    return pd.DataFrame(
        {"n": spread.index, "n_pairs": spread["size"].to_numpy(), "mean_spread": spread["mean"].to_numpy()}
    )


def _matrix(labels: Labels, counts: pd.DataFrame) -> pd.DataFrame:
    n = int((np.diff(labels.Y.indptr) > 0).sum())
    cells = max(n * len(labels.tasks), 1)
    active, inactive = int(counts["n_active"].sum()), int(counts["n_inactive"].sum())
    return pd.DataFrame(
        {"n_compounds": [n], "n_tasks": [len(labels.tasks)], "n_labels": [active + inactive],
         "active": [active / cells], "inactive": [inactive / cells], "missing": [1 - (active + inactive) / cells]}
    )  # fmt: skip
