"""What random scores reach on the same labels and folds.

With random scores the AUROC of a fold is a Mann-Whitney statistic under its null hypothesis, divided
by the number of active-inactive pairs. It depends on the two class sizes only, so it is drawn from
that distribution instead of ranking random numbers:

* up to 4,000 pairs: from the exact distribution (by its generating function);
* above, with at most 12 in the smaller class: as a sum of uniform numbers with the exact variance;
* above, otherwise: from the normal distribution with the exact variance.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.evaluate.entries import Entries
from phenohit.evaluate.seeds import task_stream

__all__ = ["chance_draws", "chance_table", "null_auroc"]

_EXACT_PAIRS = 4_000
_FEW = 12  # a sum of more uniform numbers than this is as good as normal


def null_auroc(n_active: int, n_inactive: int, size: int, stream: np.random.Generator) -> NDArray[np.float64]:
    """Draw AUROCs of random scores without ties.

    Parameters
    ----------
    n_active, n_inactive : int
    size : int
        Number of draws.
    stream : numpy Generator

    Returns
    -------
    float64 array, shape (size,)
        NaN if a class is empty.
    """
    few, many = sorted((n_active, n_inactive))
    pairs = few * many
    if pairs == 0:
        return np.full(size, np.nan)
    if pairs <= _EXACT_PAIRS:
        return np.searchsorted(_null_cdf(few, many), stream.random(size), side="right") / pairs
    sd = np.sqrt((few + many + 1) / (12 * pairs))
    if few <= _FEW:
        standard = (stream.random((size, few)).sum(1) - few / 2) / np.sqrt(few / 12)
    else:
        standard = stream.standard_normal(size)
    return np.clip(0.5 + sd * standard, 0, 1)


@lru_cache(maxsize=2_048)
def _null_cdf(few: int, many: int) -> NDArray[np.float64]:
    """P(U <= u) for u = 0 .. few * many: coefficients of the Gaussian binomial (few + many over few)."""
    top = few * many
    p = np.zeros(top + 1)
    p[0] = 1.0
    for i in range(1, few + 1):
        # times (1 - q^(many + i)), divided by (1 - q^i): a cumulated sum with stride i
        shift = many + i
        if shift <= top:
            p[shift:] -= p[:-shift].copy()
        padded = np.concatenate([p, np.zeros(-len(p) % i)]).reshape(-1, i)
        p = padded.cumsum(0).ravel()[: top + 1]
        p[many * i + 1 :] = 0  # beyond the degree only rounding is left
        p /= p.sum()
    cdf = p.cumsum()
    cdf[-1] = 1.0
    return cdf


def chance_draws(entries: Entries, *, repeats: int = 1000, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """Draw, task by task, the mean AUROC over folds that random scores reach.

    Parameters
    ----------
    entries : Entries
        Labels and folds; the scores are not looked at.
    repeats : int
    seed : int

    Yields
    ------
    float64 array, shape (repeats,)
        NaN for a task with no fold that holds both classes.

    Notes
    -----
    Every task has scores of its own: the thresholds of one assay are drawn independently.
    """
    for task, active, inactive in zip(entries.tasks, *entries.counts("fold"), strict=True):
        folds = [(a, i) for a, i in zip(active.tolist(), inactive.tolist(), strict=True) if a and i]
        if not folds:
            yield np.full(repeats, np.nan)
            continue
        stream = task_stream(seed, task, "chance")
        yield sum(null_auroc(a, i, repeats, stream) for a, i in folds) / len(folds)


def chance_table(
    entries: Entries, auroc: NDArray[np.float64], *, repeats: int = 1000, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Central range of random scores for every task, and how often they reach the task's own AUROC.

    Parameters
    ----------
    entries : Entries
    auroc : float64 array, shape (T,)
        What the model reached: mean over folds.
    repeats : int
    confidence : float
    seed : int

    Returns
    -------
    DataFrame, T rows
        ``chance_low``, ``chance_high`` and ``p_chance``: (1 + draws that reach `auroc`) /
        (1 + repeats), one-sided. NaN where undefined.
    """
    result = np.full((len(auroc), 3), np.nan)
    sides = [(1 - confidence) / 2, (1 + confidence) / 2]
    for row, reached, draws in zip(result, auroc, chance_draws(entries, repeats=repeats, seed=seed), strict=True):
        if repeats and not np.isnan(reached):
            row[:2] = np.quantile(draws, sides)
            row[2] = (1 + np.count_nonzero(draws >= reached - 1e-12)) / (1 + repeats)
    return pd.DataFrame(result, columns=["chance_low", "chance_high", "p_chance"])
