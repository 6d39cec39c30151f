"""Which method to trust with a handful of labels, and how well it will do, without counting the choice as skill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.errors import ShapeError

__all__ = ["Estimate", "estimate", "out_of_support"]


@dataclass(frozen=True, eq=False)
class Estimate:
    """What is to be expected of the chosen method on compounds that were not measured.

    Attributes
    ----------
    chosen : str
        Method with the highest AUROC.
    auroc, low, high : float
        Of choosing the best method and using it, with the interval.
    by_method : DataFrame
        ``method, auroc, low, high, times_chosen`` (share of resamples in which it was best); intervals are each
        method's own.
    """

    chosen: str
    auroc: float
    low: float
    high: float
    by_method: pd.DataFrame


def out_of_support(
    query: NDArray[np.integer], scores: NDArray[np.floating], n: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Average each compound's scores over the draws in which it was not learned from.

    Parameters
    ----------
    query : int array, shape (E, Q)
        Positions of compounds, below `n`.
    scores : float array, shape (E, Q)
    n : int

    Returns
    -------
    mean : float64 array, shape (n,)
        NaN for a compound that was never asked.
    times : int64 array, shape (n,)
    """
    times = np.bincount(query.ravel(), minlength=n)
    total = np.bincount(query.ravel(), weights=scores.ravel().astype(np.float64), minlength=n)
    return np.divide(total, times, out=np.full(n, np.nan), where=times > 0), times


def estimate(
    y: NDArray[np.bool_],
    scores: Mapping[str, NDArray[np.floating]],
    *,
    replicates: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Estimate the AUROC of "choose the best method, then use it".

    Parameters
    ----------
    y : bool array, shape (n,)
    scores : mapping of method to float array, shape (n,)
        Each compound's score by a model that did not learn from it; from `out_of_support`.
    replicates : int
        Bootstrap resamples of compounds.
    confidence : float
    seed : int

    Returns
    -------
    Estimate

    Raises
    ------
    ShapeError
        If a class has fewer than 2 compounds, or a score is missing.

    Notes
    -----
    Bootstrap bias corrected cross-validation (Tsamardinos, Greasidou, Borboudakis 2018, Machine Learning 107, 1895):
    in every resample of compounds the best method is chosen on the compounds drawn and scored on those left out, so
    that the winner's luck is not counted. Resamples that leave a class out on either side are drawn again by being
    skipped.
    """
    names = list(scores)
    values = np.stack([np.asarray(scores[name], dtype=np.float64) for name in names])
    if y.sum() < 2 or (~y).sum() < 2 or not np.isfinite(values).all():
        raise ShapeError(
            f"An estimate needs at least 2 active and 2 inactive compounds, each scored by every method; there are "
            f"{int(y.sum())} and {int((~y).sum())}, and {int(np.isnan(values).any(axis=0).sum())} without a score."
        )
    rng = np.random.default_rng([seed, 77])
    drawn = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), size=replicates).astype(np.float64)
    out = (drawn == 0).astype(np.float64)
    both = [(w[:, y].sum(1) > 0) & (w[:, ~y].sum(1) > 0) for w in (drawn, out)]
    usable = both[0] & both[1]
    drawn, out = drawn[usable], out[usable]
    inside = np.stack([_auroc(v, y, drawn) for v in values])  # (methods, resamples)
    outside = np.stack([_auroc(v, y, out) for v in values])
    best = inside.argmax(axis=0)
    honest = outside[best, np.arange(len(best))]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    whole = np.array([_auroc(v, y, np.ones((1, len(y))))[0] for v in values])
    low, high = np.quantile(inside, tails, axis=1)
    table = pd.DataFrame(
        {"method": names, "auroc": whole, "low": low, "high": high,
         "times_chosen": np.bincount(best, minlength=len(names)) / max(len(best), 1)}
    )  # fmt: skip
    table = table.sort_values("auroc", ascending=False, kind="stable").reset_index(drop=True)
    ends = np.quantile(honest, tails)
    return Estimate(str(table["method"].iloc[0]), float(honest.mean()), float(ends[0]), float(ends[1]), table)


def _auroc(score: NDArray[np.float64], y: NDArray[np.bool_], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUROC with weights of compounds, shape (resamples,), for weights (resamples, n)."""
    a, b = score[y][:, None], score[~y][None, :]
    won = (a > b) + 0.5 * (a == b)
    pairs = ((weight[:, y] @ won) * weight[:, ~y]).sum(axis=1)
    return pairs / (weight[:, y].sum(axis=1) * weight[:, ~y].sum(axis=1))
