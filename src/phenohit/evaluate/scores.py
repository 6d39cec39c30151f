"""The table of results: one row per task, every metric with its interval and its chance level."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.evaluate.bootstrap import auroc_intervals
from phenohit.evaluate.chance import chance_table
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS, mean_over_folds

__all__ = ["score_table"]


def score_table(
    labels: Labels,
    predictions: Predictions | Entries,
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    chance: int = 1000,
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
        the mean over folds where it is defined. Undefined is NaN.

    Notes
    -----
    The mean over folds is the rule of Simm 2018. A score that is constant within each fold has AUROC
    0.5 there but not when pooled: read ``auroc_pooled`` only where folds share a scale.
    """
    entries = predictions if isinstance(predictions, Entries) else Entries.of(labels, predictions)
    columns = [c for c in ("task", "assay", "kind", "threshold") if c in labels.tasks]
    per_fold = METRICS["auroc"](entries, "fold")
    auroc = mean_over_folds(per_fold)
    interval = auroc_intervals(entries, replicates=bootstrap, confidence=confidence, seed=seed, title=title)
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
