"""How many actives the top of a ranking holds: enrichment factors, BEDROC, hits against random picks.

Every held-out compound is ranked among those of its fold, and the folds of a task are laid into one
ranking by the share of their fold that scores higher: folds need no common scale, and the top 1 % takes
about 1 % of each. Equal places are taken in random order, and the mean over all such orders is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from phenohit.errors import ConfigError, LabelError, ShapeError
from phenohit.evaluate.entries import Entries

__all__ = [
    "ALPHA",
    "FRACTIONS",
    "MEASURES",
    "Ranked",
    "bedroc",
    "bedroc_of",
    "enrichment",
    "enrichment_factor",
    "n_taken",
]

FRACTIONS = (0.01, 0.05, 0.1)
ALPHA = 20.0  # 80 % of BEDROC comes from the first 8 % of the ranking (Truchon and Bayly 2007)
MEASURES = ("top 1 %", "top 5 %", "top 10 %", "top n", "bedroc")

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ranked:
    """Runs of equal places in the ranking of every task, best first.

    Attributes
    ----------
    task : int64 array, shape (R,)
        Ascending.
    size, active : float64 arrays, shape (R,)
        Compounds and actives of a run; weights are allowed.
    n_tasks : int
    """

    task: NDArray[np.int64]
    size: Values
    active: Values
    n_tasks: int

    @classmethod
    def of(cls, entries: Entries) -> Ranked:
        """Rank within folds and lay the folds of every task into one ranking."""
        runs, K = entries.runs("fold"), len(entries.folds)
        size = runs.active + runs.inactive
        total = runs.total(size)[runs.segment]
        # (2 * above + size) / (2 n) is the same float for equal shares of folds of different size.
        above = total - runs.below(size) - size
        place = (2 * above + size) / np.maximum(2 * total, 1)
        task = runs.segment.astype(np.int64) // max(K, 1)
        order = np.lexsort((place, task))
        task, place = task[order], place[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (task[1:] != task[:-1]) | (place[1:] != place[:-1])
        start = np.flatnonzero(new)
        if not len(start):
            return cls(task, np.zeros(0), np.zeros(0), len(entries.tasks))
        sums = (np.add.reduceat(counts[order], start).astype(np.float64) for counts in (size, runs.active))
        return cls(task[start], *sums, len(entries.tasks))

    def total(self, values: Values) -> Values:
        """Sum over the runs of every task, shape (T,)."""
        return np.bincount(self.task, weights=values, minlength=self.n_tasks)

    @property
    def before(self) -> Values:
        """Compounds that stand above each run, shape (R,)."""
        cumulated = np.concatenate([[0.0], np.cumsum(self.size)])
        return cumulated[:-1] - cumulated[np.searchsorted(self.task, self.task)]

    def found(self, taken: NDArray[np.number]) -> Values:
        """Actives expected among the first `taken` (T,) compounds of every task, shape (T,)."""
        inside = np.clip(np.asarray(taken, np.float64)[self.task] - self.before, 0, self.size)
        return self.total(self.active * inside / self.size)

    def exponential(self, alpha: float) -> Values:
        """Sum of exp(-alpha * rank / N) over the actives of every task, ranks from 1, shape (T,)."""
        N = self.total(self.size)[self.task]
        before, step = self.before, -alpha / N
        # The mean of a geometric series over the ranks of a run.
        spread = np.expm1(step * self.size) / np.expm1(step)
        return self.total(self.active / self.size * np.exp(step * (before + 1)) * spread)


def n_taken(n: ArrayLike, fraction: float) -> NDArray[np.int64]:
    """Compounds that a fraction of `n` takes, rounded up: 1 % of 250 is 3."""
    return np.ceil(np.round(np.asarray(n, np.float64) * fraction, 9)).astype(np.int64)


def bedroc_of(exponential: Values, n: Values, n_active: Values, alpha: float) -> Values:
    """Boltzmann-enhanced discrimination of ROC from the sum over actives (Truchon and Bayly 2007); NaN without a class.

    The sum is scaled so that the worst ranking has 0 and the best 1.
    """
    n, n_active = np.broadcast_arrays(np.asarray(n, np.float64), np.asarray(n_active, np.float64))
    whole = (n_active > 0) & (n_active < n)
    n, n_active = np.where(whole, n, 2.0), np.where(whole, n_active, 1.0)
    step, share = alpha / n, n_active / n
    best = np.exp(-step) * np.expm1(-alpha * share) / np.expm1(-step)
    worst = best * np.exp(-alpha * (1 - share))
    return np.where(whole, (exponential - worst) / (best - worst), np.nan)


def _random_sum(n: Values, n_active: Values, alpha: float) -> Values:
    """Return the expected sum of exp(-alpha * rank / n) over actives in random order."""
    n = np.maximum(n, 1)
    return n_active / n * np.exp(-alpha / n) * np.expm1(-alpha) / np.expm1(-alpha / n)


def enrichment(
    entries: Entries,
    *,
    top: int = 342,
    fractions: Sequence[float] = FRACTIONS,
    alpha: float = ALPHA,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Replay picking from a task's measured compounds, held out of the model that ranks them.

    Parameters
    ----------
    entries : Entries
        Held-out scores of measured compounds.
    top : int
        Picks of a campaign, e.g. ``hits.n``.
    fractions : sequence of float
        Shares of the ranking, each 0 to 1.
    alpha : float
        How early BEDROC looks.
    confidence : float
        Central range of what random picks find.

    Returns
    -------
    DataFrame, one row per task and measure
        ``task``; ``measure`` ('top 1 %', ..., 'top n', 'bedroc'); ``n_scored, n_active`` of the task;
        ``n_taken`` compounds picked (a share is rounded up); ``found`` actives among them, ``expected``
        of random picks with ``random_low, random_high`` (hypergeometric); ``value`` the enrichment factor
        ``(found / n_taken) / (n_active / n_scored)`` or BEDROC, ``random`` what random order gives,
        ``best`` what a perfect one gives. ``value`` is NaN where a class is absent, or everything is
        picked; BEDROC has no counts.

    Raises
    ------
    ConfigError
        If `top`, a fraction or `alpha` is impossible.

    Notes
    -----
    The measured compounds of an assay are often enriched in actives already, and they are few: factors
    of a screen of hundreds of thousands can be larger, and 1 % of it is more than a handful.

    References
    ----------
    Truchon and Bayly 2007, doi:10.1021/ci600426e (BEDROC).
    """
    if top < 1 or not alpha > 0 or not all(0 < f <= 1 for f in fractions) or not 0 < confidence < 1:
        raise ConfigError(
            f"top is {top}, alpha {alpha}, confidence {confidence} and fractions {list(fractions)}: needed are at "
            "least 1, above 0, between 0 and 1, and shares above 0 and at most 1."
        )
    ranked = Ranked.of(entries)
    N, A = ranked.total(ranked.size), ranked.total(ranked.active)
    both = (A > 0) & (A < N)
    tasks = np.asarray(entries.tasks, dtype=object)
    sides = ((1 - confidence) / 2, (1 + confidence) / 2)
    counts = {"n_scored": N.astype(np.int64), "n_active": A.astype(np.int64)}
    parts = []
    for name, taken in [*((f"top {100 * f:g} %", n_taken(N, f)) for f in fractions), ("top n", np.minimum(top, N))]:
        taken = taken.astype(np.int64)
        found, expected = ranked.found(taken), A * _ratio(taken, N)
        low, high = (hypergeom.ppf(side, counts["n_scored"], counts["n_active"], taken) for side in sides)
        defined = both & (taken < N)
        numbers = {
            "n_taken": taken,
            "found": found,
            "expected": expected,
            "random_low": low,
            "random_high": high,
            "value": np.where(defined, _ratio(found, expected), np.nan),
            "random": np.where(defined, 1.0, np.nan),
            "best": np.where(defined, _ratio(np.minimum(taken, A), expected), np.nan),
        }
        parts.append(pd.DataFrame({"task": tasks, "measure": name, **counts, **numbers}))
    open_ended = dict.fromkeys(("found", "expected", "random_low", "random_high"), np.nan)
    scaled = {
        "value": bedroc_of(ranked.exponential(alpha), N, A, alpha),
        "random": bedroc_of(_random_sum(N, A, alpha), N, A, alpha),
        "best": np.where(both, 1.0, np.nan),
    }
    parts.append(
        pd.DataFrame(
            {"task": tasks, "measure": "bedroc", **counts, "n_taken": counts["n_scored"], **open_ended, **scaled}
        )
    )
    return pd.concat(parts, ignore_index=True)


def enrichment_factor(y_true: ArrayLike, score: ArrayLike, fraction: float) -> float:
    """Compute the enrichment factor of one ranking.

    Parameters
    ----------
    y_true : array-like of 0 and 1, shape (n,)
    score : array-like of float, shape (n,)
        Higher means more active; the mean over random orders of equal scores is taken.
    fraction : float
        Share of the ranking that is picked, rounded up to whole compounds.

    Returns
    -------
    float
        NaN where a class is absent, or everything is picked.

    Raises
    ------
    ConfigError, LabelError, ShapeError

    Examples
    --------
    >>> enrichment_factor([1, 0, 0, 1, 0, 0, 0, 0, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0], 0.2)
    2.5
    """
    table = enrichment(_one(y_true, score), fractions=(fraction,))
    return float(table["value"].iloc[0])


def bedroc(y_true: ArrayLike, score: ArrayLike, *, alpha: float = ALPHA) -> float:
    """Compute BEDROC of one ranking, 0 to 1; parameters as for `enrichment_factor`.

    Examples
    --------
    >>> bedroc([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1])
    1.0
    """
    return float(enrichment(_one(y_true, score), fractions=(), alpha=alpha)["value"].iloc[-1])


def _one(y_true: ArrayLike, score: ArrayLike) -> Entries:
    y, score = np.asarray(y_true), np.asarray(score)
    if y.ndim != 1 or y.shape != score.shape:
        raise ShapeError(f"Labels of shape {y.shape} and scores of shape {score.shape} must be two equal lists.")
    if not np.isin(y, (0, 1)).all():
        raise LabelError("Labels must be 0 (inactive) or 1 (active); leave unmeasured entries out.")
    none, compound = np.zeros(len(y), np.int32), np.arange(len(y), dtype=np.int32)
    return Entries(none, none, y.astype(bool), score, compound, [""], np.array([0.5]))


def _ratio(above: NDArray[np.number], below: NDArray[np.number]) -> Values:
    """``above / below``, NaN where `below` is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)
