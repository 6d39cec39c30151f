"""The table of results: one row per task, every metric with its interval and its chance level."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.evaluate.bootstrap import auroc_intervals
from phenohit.evaluate.chance import chance_table
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS, mean_over_folds
from phenohit.evaluate.replicates import median_split

__all__ = ["median_repeat", "score_table"]


def score_table(
    labels: Labels,
    predictions: Predictions | Entries,
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    chance: int = 1000,
    repeated: bool = False,
    seed: int = 0,
    title: str = "scores",
) -> pd.DataFrame:
    """Score predictions on the measured entries, task by task.

    Parameters
    ----------
    labels : Labels
        One row per compound.
    predictions : Predictions or Entries
        Scores of held-out rows, with the fold of each; wells of one compound are averaged.
    bootstrap : int
        Replicates for the intervals; 0 leaves them NaN.
    confidence : float
        Coverage of the intervals and of the chance range.
    chance : int
        Draws of random scores; 0 leaves the chance columns NaN.
    repeated : bool
        The folds are hold-outs drawn anew, which share compounds: the interval is that of the repeat with the median
        performance (Hofmarcher 2019), for the spread of resampled compounds would not add up over them.
    seed : int
    title : str
        Shown with the progress.

    Returns
    -------
    DataFrame, T rows in the order of `labels.tasks`
        ``task, assay, kind, threshold``; ``n_active, n_inactive`` in the labels; ``n_scored``
        entries with a score, ``n_folds`` folds where the AUROC is defined; ``auroc`` the mean over
        those folds, ``auroc_low, auroc_high, interval`` its interval and how it was made,
        ``auroc_pooled`` over all folds' entries in one ranking, ``chance_low, chance_high,
        p_chance`` what random scores reach on the same labels and folds; then every other metric as
        the mean over folds where it is defined. Undefined is NaN. Where `repeated`, also ``interval_repeat``, the fold
        number of that repeat (-1: no task is defined in every repeat, and the interval is of the mean over them), and
        ``interval_auroc``, the AUROC there, which the interval is of.

    Notes
    -----
    The mean over folds is the rule of Simm 2018. A score that is constant within each fold has AUROC
    0.5 there but not when pooled: read ``auroc_pooled`` only where folds share a scale.
    """
    entries = predictions if isinstance(predictions, Entries) else Entries.of(labels, predictions)
    columns = [c for c in ("task", "assay", "kind", "threshold") if c in labels.tasks]
    per_fold = METRICS["auroc"](entries, "fold")
    auroc = mean_over_folds(per_fold)
    repeat = median_repeat(entries, per_fold) if repeated else -1
    of = entries if repeat < 0 else entries.take(np.flatnonzero(entries.fold == repeat))
    interval = auroc_intervals(of, replicates=bootstrap, confidence=confidence, seed=seed, title=title)
    if repeated:
        at = np.searchsorted(entries.folds, repeat)
        interval["interval_repeat"], interval["interval_auroc"] = repeat, auroc if repeat < 0 else per_fold[:, at]
    numbers = pd.DataFrame(
        {
            "n_scored": np.bincount(entries.task, minlength=len(entries.tasks)),
            "n_folds": (~np.isnan(per_fold)).sum(1),
            "auroc": auroc,
        }
    )
    pooled = pd.DataFrame({"auroc_pooled": METRICS["auroc"](entries, "task")})
    chances = chance_table(entries, auroc, repeats=chance, confidence=confidence, seed=seed)
    others = pd.DataFrame({name: mean_over_folds(f(entries, "fold")) for name, f in METRICS.items() if name != "auroc"})
    return pd.concat([labels.tasks[columns], labels.counts(), numbers, interval, pooled, chances, others], axis=1)


def median_repeat(entries: Entries, per_fold: NDArray[np.float64]) -> int:
    """Find the repeat of a hold-out with the median performance, see `median_split`.

    Parameters
    ----------
    entries : Entries
        Every fold a repeat.
    per_fold : float64 array, shape (T, K)
        AUROC of every task in every fold.

    Returns
    -------
    int
        Fold number; -1 where no task is defined in every repeat.
    """
    if np.isnan(per_fold).any(1).all():
        return -1
    tables = {
        str(k): pd.DataFrame({"task": entries.tasks, "auroc": per_fold[:, i]}) for i, k in enumerate(entries.folds)
    }
    return int(median_split(tables))
