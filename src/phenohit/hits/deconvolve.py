"""Which targets may stand behind a phenotype: assays in which its actives score higher than its inactives."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import fisher_exact, rankdata

from phenohit.data.labels import Labels
from phenohit.errors import LabelError, ShapeError
from phenohit.evaluate.compare import holm
from phenohit.hits.rank import same_assay

__all__ = ["COLUMNS", "deconvolve"]

COLUMNS = [
    "rank", "task", "assay", "auroc", "p", "p_holm", "n_active_series", "n_inactive_series", "active_measured",
    "active_hits", "inactive_measured", "inactive_hits", "p_labels", "p_labels_holm",
]  # fmt: skip
LEAST = 3  # series of each kind


def deconvolve(
    labels: Labels,
    task: str,
    compounds: NDArray[np.object_],
    score: NDArray[np.floating],
    tasks: list[str],
    series: NDArray[np.integer],
) -> pd.DataFrame:
    """Rank assays by how well their scores and labels tell the actives of a task from its inactives.

    Parameters
    ----------
    labels : Labels
        One row per compound.
    task : str
        A binary task, e.g. of a phenotypic screen.
    compounds : array of str, shape (N,)
        Compounds with scores; those without a label in `task` are ignored.
    score : float array, shape (N, T)
        Predicted activity in `tasks`.
    tasks : list of str, length T
        Candidate assays; those of the assay of `task` itself are left out.
    series : int array, shape (N,)
        Chemical series of each compound. Analogues score alike, so each series counts once per class: with its
        mean score.

    Returns
    -------
    DataFrame
        One row per candidate, best first (by ``p``), columns `COLUMNS`. ``auroc`` of the scores: 0.5 says that
        actives and inactives do not differ. ``p``: one-sided Mann-Whitney test over series, normal approximation
        with ties; ``p_holm`` after Holm's correction for the number of candidates. Then the measured labels alone:
        of the actives and of the inactives, how many were measured in the candidate and how many of these are
        active, with Fisher's exact one-sided test over compounds (``p_labels``; NaN where one side was never
        measured).

    Raises
    ------
    LabelError
        If the task is unknown, not binary, or has fewer than 3 active or inactive series with scores.
    ShapeError

    Notes
    -----
    The scores also hold what the model learned from labels of these very compounds, so that scores and labels are
    not two independent witnesses. A shared score shows that the phenotype goes with the target's, not that the
    target causes it: toxicity is shared by many assays.
    """
    score = np.asarray(score, dtype=np.float64)
    if score.shape != (len(compounds), len(tasks)) or len(series) != len(compounds):
        raise ShapeError(
            f"Scores have shape {score.shape}, for {len(compounds)} compounds, {len(tasks)} tasks and "
            f"{len(series)} series."
        )
    names = labels.task_names
    own = {names[i] for i in same_assay(labels, task)}
    kept = [j for j, name in enumerate(tasks) if name not in own]
    at = pd.Index(labels.compounds["compound"].astype(str)).get_indexer(pd.Index(compounds).astype(str))
    y = _column(labels, names.index(task))[at]
    y[(at < 0) | ~np.isfinite(score).all(axis=1)] = np.nan
    means, active = _by_series(score[:, kept], series, y)
    n_active, n_inactive = int(active.sum()), int((~active).sum())
    if min(n_active, n_inactive) < LEAST:
        raise LabelError(
            f"Task '{task}' has {n_active} active and {n_inactive} inactive series with scores; at least {LEAST} of "
            "each are needed to tell anything."
        )
    auroc, p = _mann_whitney(means, active)
    shown = [tasks[j] for j in kept]
    assay = labels.tasks.set_index("task")["assay"]
    table = pd.DataFrame(
        {
            "task": shown,
            "assay": [str(assay.get(name, "")) for name in shown],
            "auroc": auroc,
            "p": p,
            "p_holm": holm(p),
            "n_active_series": n_active,
            "n_inactive_series": n_inactive,
        }
    )
    counts = pd.DataFrame([_labels_of(labels, name, names, at[y == 1], at[y == 0]) for name in shown])
    table = pd.concat([table, counts.reindex(columns=COLUMNS[8:13])], axis=1)
    table["p_labels_holm"] = holm(table["p_labels"].to_numpy(np.float64))
    table = table.sort_values(["p", "auroc"], ascending=[True, False], kind="stable", ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table[COLUMNS]


def _column(labels: Labels, column: int) -> NDArray[np.float64]:
    """Return a task's labels, shape (N,); NaN where not measured."""
    out = np.full(len(labels), np.nan)
    part = labels.Y[:, [column]].tocoo()
    out[part.row] = part.data
    return out


def _by_series(
    score: NDArray[np.float64], series: NDArray[np.integer], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Average scores within series and class, (S, T), and the class, (S,); without a series a compound stands alone."""
    rows = np.flatnonzero(~np.isnan(y))
    group = np.where(series[rows] >= 0, series[rows], -2 - rows).astype(np.int64)
    cells, code = np.unique(np.column_stack([group, y[rows].astype(np.int64)]), axis=0, return_inverse=True)
    code = code.ravel()
    total = np.zeros((len(cells), score.shape[1]))
    np.add.at(total, code, score[rows])
    return total / np.bincount(code, minlength=len(cells))[:, None], cells[:, 1] > 0


def _mann_whitney(
    score: NDArray[np.float64], active: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return AUROC and one-sided p (actives higher) of every column, with ties and continuity, each (T,)."""
    n1, n0 = int(active.sum()), int((~active).sum())
    n = n1 + n0
    rank = rankdata(score, axis=0)
    u = rank[active].sum(axis=0) - n1 * (n1 + 1) / 2
    # Sum of t^3 - t over groups of t equal scores.
    ties = np.array([(np.unique(c, return_counts=True)[1].astype(np.float64) ** 3).sum() - n for c in score.T])
    spread = np.sqrt(n1 * n0 / 12 * (n + 1 - ties / (n * (n - 1))))
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (u - n1 * n0 / 2 - 0.5) / spread
    return u / (n1 * n0), np.where(spread > 0, ndtr(-z), 1.0)


def _labels_of(
    labels: Labels, name: str, names: list[str], actives: NDArray[np.intp], inactives: NDArray[np.intp]
) -> dict[str, float]:
    """Count the labels that both classes have in one candidate, and test them."""
    if name not in names:
        return {}
    y = _column(labels, names.index(name))
    a, b = y[actives], y[inactives]
    a, b = a[~np.isnan(a)] > 0, b[~np.isnan(b)] > 0
    p = np.nan
    if len(a) and len(b):
        table = [[a.sum(), (~a).sum()], [b.sum(), (~b).sum()]]
        p = float(fisher_exact(table, alternative="greater")[1])  # pyright: ignore[reportArgumentType]
    return {
        "active_measured": len(a),
        "active_hits": int(a.sum()),
        "inactive_measured": len(b),
        "inactive_hits": int(b.sum()),
        "p_labels": p,
    }
