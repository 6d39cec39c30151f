"""Headline numbers of one method over all tasks, each count beside what random scores reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.evaluate.chance import chance_draws
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS

__all__ = ["COUNTED", "SIMM_HIGH", "SIMM_MODERATE", "summarise"]

COUNTED = (0.9, 0.8, 0.7)  # AUROC above which tasks are counted
SIMM_HIGH, SIMM_MODERATE = 0.9, 0.7

_REPLICATES = 1000  # resamples of the tasks


def summarise(
    table: pd.DataFrame,
    labels: Labels,
    predictions: Predictions | Entries,
    *,
    chance: int = 200,
    simm_min: int = 25,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Count what can be predicted, beside what chance would count.

    Parameters
    ----------
    table : DataFrame
        What `score_table` gave for these labels and predictions.
    labels : Labels
    predictions : Predictions or Entries
        Only their labels and folds matter here: random scores are drawn on them.
    chance : int
        Repeats of random scores over all tasks.
    simm_min : int
        Actives and inactives a task needs under the rule of Simm 2018.
    confidence : float
    seed : int

    Returns
    -------
    dict, ready for JSON (undefined numbers are None)
        ``n_tasks, n_undefined, auroc_mean, auroc_sd, auroc_mean_low, auroc_mean_high`` (tasks
        resampled), ``means`` of the other metrics; ``above``: {'0.9', '0.8', '0.7'} each with
        ``count, expected, low, high``; ``beyond_chance``: the tasks above their own chance range,
        in the same form; ``simm``: ``minimum, n_tasks, n_assays`` that qualify, ``high`` and
        ``moderate`` assays in the same form; ``chance_repeats``, ``confidence``.

    Notes
    -----
    Simm 2018: AUROC of a task (assay, threshold) = mean over folds; tasks with at least 25 actives
    and 25 inactives count; an assay is as good as its best task, high above 0.9, moderate above 0.7
    (the high ones included). Random scores are drawn independently for every task, so that the
    expected count of assays is what the best of several independent tasks reaches.
    """
    entries = predictions if isinstance(predictions, Entries) else Entries.of(labels, predictions)
    sides = ((1 - confidence) / 2, (1 + confidence) / 2)
    auroc = table["auroc"].to_numpy(np.float64)
    drawn = _drawn(entries, chance, seed)
    low, high = _mean_interval(auroc, sides, seed)
    defined = auroc[~np.isnan(auroc)]

    def counted(reached: NDArray[np.float64], random: NDArray[np.float64], above: float) -> dict[str, Any]:
        return _counted(int((reached > above).sum()), (random > above).sum(0), sides)

    enough = ((table["n_active"] >= simm_min) & (table["n_inactive"] >= simm_min)).to_numpy()
    assay, n_assays = pd.factorize(table["assay"].astype(str)[enough])[0], table["assay"][enough].astype(str).nunique()
    best, best_drawn = _best(auroc[enough, None], assay, n_assays)[:, 0], _best(drawn[enough], assay, n_assays)
    beyond = (auroc > table["chance_high"].to_numpy(np.float64)).sum()
    return {
        "n_tasks": len(table),
        "n_undefined": int(np.isnan(auroc).sum()),
        "auroc_mean": _number(defined.mean()) if len(defined) else None,
        "auroc_sd": _number(defined.std(ddof=1)) if len(defined) > 1 else None,
        "auroc_mean_low": _number(low),
        "auroc_mean_high": _number(high),
        "means": {m: _number(table[m].mean()) for m in METRICS if m != "auroc"},
        "above": {str(x): counted(auroc, drawn, x) for x in COUNTED},
        "beyond_chance": _counted(int(beyond), _exceeding(drawn, sides[1]), sides),
        "simm": {
            "minimum": simm_min,
            "n_tasks": int(enough.sum()),
            "n_assays": int(n_assays),
            "high": counted(best, best_drawn, SIMM_HIGH),
            "moderate": counted(best, best_drawn, SIMM_MODERATE),
        },
        "chance_repeats": chance,
        "confidence": confidence,
    }


def _drawn(entries: Entries, chance: int, seed: int) -> NDArray[np.float64]:
    """AUROC of random scores, (T, chance)."""
    if not len(entries.tasks):
        return np.zeros((0, chance))
    return np.stack(list(chance_draws(entries, repeats=chance, seed=seed)))


def _counted(count: int, random: NDArray[np.integer], sides: tuple[float, float]) -> dict[str, Any]:
    """Return a count with mean and central range of the same count under random scores."""
    if not len(random):
        return {"count": count, "expected": None, "low": None, "high": None}
    low, high = np.quantile(random, sides)
    return {"count": count, "expected": float(random.mean()), "low": float(low), "high": float(high)}


def _exceeding(drawn: NDArray[np.float64], side: float) -> NDArray[np.integer]:
    """In each repeat, tasks above the upper end of their own chance range."""
    drawn = drawn[~np.isnan(drawn).any(1)]
    if not drawn.size:
        return np.zeros(drawn.shape[1], np.int64)
    return (drawn > np.quantile(drawn, side, axis=1, keepdims=True)).sum(0)


def _best(values: NDArray[np.float64], assay: NDArray[np.intp], n_assays: int) -> NDArray[np.float64]:
    """Best value over the tasks of each assay, (tasks, b) -> (assays, b); undefined counts as lowest."""
    best = np.full((n_assays, values.shape[1]), -np.inf)
    np.maximum.at(best, assay, np.where(np.isnan(values), -np.inf, values))
    return best


def _mean_interval(auroc: NDArray[np.float64], sides: tuple[float, float], seed: int) -> tuple[float, float]:
    """Percentile interval of the mean over tasks, tasks resampled."""
    values = np.sort(auroc[~np.isnan(auroc)])  # sorted: the order of tasks has no influence
    if len(values) < 2:
        return np.nan, np.nan
    stream = np.random.default_rng(seed)
    means = [values[stream.integers(0, len(values), len(values))].mean() for _ in range(_REPLICATES)]
    low, high = np.quantile(means, sides)
    return float(low), float(high)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
