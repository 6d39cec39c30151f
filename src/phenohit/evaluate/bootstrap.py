"""Intervals of a task's AUROC: percentile bootstrap, or DeLong's variance where a task is large."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from phenohit.evaluate.entries import Entries
from phenohit.evaluate.ranks import Runs
from phenohit.evaluate.seeds import task_stream
from phenohit.progress import track

__all__ = ["auroc_intervals", "bootstrap_auroc"]

DELONG_ENTRIES = 2_000  # more entries than this, and
DELONG_CLASS = 100  # at least so many of each class in every defined fold: both intervals agree

_CELLS = 2_000_000  # weights held at a time


def auroc_intervals(
    entries: Entries,
    *,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    delong: bool = True,
    title: str = "bootstrap",
) -> pd.DataFrame:
    """Interval of the mean AUROC over folds, for every task.

    Parameters
    ----------
    entries : Entries
    replicates : int
        Bootstrap replicates (Hofmarcher 2019: 1,000); 0 gives no intervals.
    confidence : float
        Coverage, e.g. 0.95.
    seed : int
        A task's interval depends on this, its name and its entries alone.
    delong : bool
        Use DeLong's variance for tasks with more than 2,000 entries and at least 100 of each class
        in every fold that counts.
    title : str
        Shown with the progress.

    Returns
    -------
    DataFrame, T rows
        ``auroc_low``, ``auroc_high`` and ``interval``: 'bootstrap', 'delong', or '' where the AUROC
        is undefined.

    Notes
    -----
    Compounds are resampled within each fold. Folds are taken as independent, so that intervals over
    repeated hold-outs, in which a compound occurs several times, are somewhat too narrow. DeLong,
    DeLong and Clarke-Pearson 1988.
    """
    runs = entries.runs("fold").merged()
    active, inactive = entries.counts("fold")
    defined = (active > 0) & (inactive > 0)
    smaller = np.where(defined, np.minimum(active, inactive), np.iinfo(np.int64).max).min(1, initial=1 << 62)
    large = (np.where(defined, active + inactive, 0).sum(1) > DELONG_ENTRIES) & (smaller >= DELONG_CLASS)
    start = runs.starts().reshape(-1)
    K = len(entries.folds)
    result = np.full((len(entries.tasks), 2), np.nan)
    kind = np.full(len(entries.tasks), "", dtype=object)
    if replicates and len(entries):
        by_delong = np.flatnonzero(large & delong)
        result[by_delong] = _delong(runs, entries.shape("fold"), confidence)[by_delong]
        kind[by_delong] = "delong"
        sides = [(1 - confidence) / 2, (1 + confidence) / 2]
        for t in track(np.flatnonzero(defined.any(1) & ~(large & delong)), title):
            parts = [slice(start[t * K + k], start[t * K + k + 1]) for k in np.flatnonzero(defined[t])]
            stream = task_stream(seed, entries.tasks[t], "bootstrap")
            drawn = [bootstrap_auroc(runs.active[p], runs.inactive[p], replicates, stream) for p in parts]
            result[t] = _percentiles(np.stack(drawn), sides)
            kind[t] = "bootstrap"
    return pd.DataFrame({"auroc_low": result[:, 0], "auroc_high": result[:, 1], "interval": kind})


def bootstrap_auroc(
    active: NDArray[np.int64], inactive: NDArray[np.int64], replicates: int, stream: np.random.Generator
) -> NDArray[np.float64]:
    """AUROC of resamples of one set of compounds.

    Parameters
    ----------
    active, inactive : int64 arrays, shape (R,)
        Actives and inactives in each run of equal scores, ascending in score.
    replicates : int
    stream : numpy Generator

    Returns
    -------
    float64 array, shape (replicates,)
        NaN where a resample lacks a class.

    Notes
    -----
    Drawing n compounds with replacement gives multinomial counts of actives and inactives in each
    run, and a weighted AUROC by one cumulative sum. The counts are drawn directly where there are few
    runs, and otherwise by drawing compounds and counting.
    """
    R = len(active)
    counts = np.concatenate([inactive, active])
    cells = np.flatnonzero(counts)
    n = int(counts.sum())
    of_compound = np.repeat(np.arange(2 * R), counts)
    step = max(1, _CELLS // max(2 * R, n))
    result = np.empty(replicates)
    for done in range(0, replicates, step):
        b = min(step, replicates - done)
        if len(cells) * 8 < n:
            weight = np.zeros((b, 2 * R))
            weight[:, cells] = stream.multinomial(n, counts[cells] / n, size=b)
        else:
            drawn = of_compound[stream.integers(0, n, size=(b, n), dtype=np.int32)]
            drawn += (np.arange(b) * 2 * R)[:, None]
            weight = np.bincount(drawn.ravel(), minlength=b * 2 * R).reshape(b, 2 * R).astype(np.float64)
        low, high = weight[:, :R], weight[:, R:]
        below = np.cumsum(low, axis=1)
        pairs = below[:, -1] * high.sum(1)
        below -= 0.5 * low
        won = np.einsum("br,br->b", below, high)
        result[done : done + b] = np.divide(won, pairs, out=np.full(b, np.nan), where=pairs > 0)
    return result


def _percentiles(drawn: NDArray[np.float64], sides: list[float]) -> NDArray[np.float64]:
    """Percentiles of the mean over folds (K, B), leaving out what is undefined in a replicate."""
    defined = ~np.isnan(drawn)
    folds = defined.sum(0)
    mean = np.where(defined, drawn, 0).sum(0)[folds > 0] / folds[folds > 0]
    return np.quantile(mean, sides) if len(mean) else np.full(2, np.nan)


def _delong(runs: Runs, shape: tuple[int, ...], confidence: float) -> NDArray[np.float64]:
    """Return the normal interval of the mean over defined folds, from DeLong's variance of each; (T, 2)."""
    n_active, n_inactive = runs.total(runs.active), runs.total(runs.inactive)
    with np.errstate(divide="ignore", invalid="ignore"):  # folds without both classes become NaN
        # Placement values: share of the other class that a compound is ranked above (below).
        above = (runs.below(runs.inactive) + 0.5 * runs.inactive) / n_inactive[runs.segment]
        under = 1 - (runs.below(runs.active) + 0.5 * runs.active) / n_active[runs.segment]
        auroc = runs.total(runs.active * above) / n_active
        spread_active = runs.total(runs.active * (above - auroc[runs.segment]) ** 2) / (n_active - 1) / n_active
        spread_inactive = runs.total(runs.inactive * (under - auroc[runs.segment]) ** 2) / (n_inactive - 1) / n_inactive
    auroc, variance = auroc.reshape(shape), (spread_active + spread_inactive).reshape(shape)
    defined = ~np.isnan(auroc)
    folds = np.maximum(defined.sum(1), 1)
    mean = np.where(defined, auroc, 0).sum(1) / folds
    half = ndtri((1 + confidence) / 2) * np.sqrt(np.where(defined, variance, 0).sum(1)) / folds
    return np.clip(np.stack([mean - half, mean + half], axis=1), 0, 1)
