"""A campaign replayed: what a method would have found, beside the same model on chemistry alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.errors import ShapeError
from phenohit.evaluate.enrichment import ALPHA, FRACTIONS, bedroc_of, enrichment, n_taken
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.seeds import task_stream
from phenohit.progress import track

__all__ = ["average", "paired_differences", "replay", "shared_entries"]

_CELLS = 1 << 19  # weights held at a time
_WORK = 2_000_000  # weights drawn for one task: larger tasks get fewer replicates,
_LEAST = 200  # but not fewer than this

Values = NDArray[np.float64]


def replay(
    entries: Entries,
    other: Entries | None,
    group: NDArray[np.integer],
    *,
    reference: str = "",
    top: int = 342,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Replay the picking of one method, and compare it with another on the same compounds.

    Parameters
    ----------
    entries : Entries
        Held-out scores.
    other : Entries or None
        Of the method to compare with, on the same labels and folds.
    group : int array, shape (compounds of the labels,)
        Compounds resampled together, e.g. chemical series.
    reference : str
        Name of the other method.
    top : int
        Picks of a campaign.
    replicates, confidence, seed
        Of the intervals.

    Returns
    -------
    DataFrame, one row per task and measure
        As from `enrichment`, with ``reference``, ``difference`` (value minus that of the reference, over
        the compounds that both scored), ``difference_low`` and ``difference_high``.
    """
    table = enrichment(entries, top=top, confidence=confidence)
    if other is None:
        none = {"difference": np.nan, "difference_low": np.nan, "difference_high": np.nan}
        return table.assign(reference="", **none)
    found = paired_differences(
        entries, other, group, top=top, replicates=replicates, confidence=confidence, seed=seed, title=reference
    )
    return table.merge(found.assign(reference=reference), on=["task", "measure"], how="left", validate="1:1")


def paired_differences(
    entries: Entries,
    other: Entries,
    group: NDArray[np.integer],
    *,
    top: int = 342,
    fractions: Sequence[float] = FRACTIONS,
    alpha: float = ALPHA,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    title: str = "replay",
) -> pd.DataFrame:
    """Difference of two methods in every measure, with paired bootstrap intervals.

    Parameters
    ----------
    entries, other : Entries
        Of the same labels; pairs of task, fold and compound that only one has are left out.
    group : int array, shape (compounds of the labels,)
        Groups are resampled with replacement, so that the members of a series come and go together.
    top, fractions, alpha
        As for `enrichment`.
    replicates : int
        Fewer, but at least 200, for tasks of more than 2,000 compounds; 0 leaves the intervals NaN.
    confidence : float
    seed : int
        The interval of a task depends on this, its name and its entries alone.
    title : str
        Shown with the progress.

    Returns
    -------
    DataFrame, one row per task and measure
        ``task, measure, difference, difference_low, difference_high``; NaN where a class is absent or
        everything is picked. Intervals need two groups.

    Raises
    ------
    ShapeError
        If the two are of different tasks.

    Notes
    -----
    A compound's place in the ranking is kept and its weight is drawn; percentile intervals.
    """
    if entries.tasks != other.tasks:
        raise ShapeError("Two methods can only be compared on the same tasks; these are of different labels.")
    mine, theirs = shared_entries(entries, other)
    order = np.argsort(entries.task[mine], kind="stable")
    mine, theirs = mine[order], theirs[order]
    start = np.searchsorted(entries.task[mine], np.arange(len(entries.tasks) + 1))
    names = [*(f"top {100 * f:g} %" for f in fractions), "top n", "bedroc"]
    cuts = (tuple(fractions), top, alpha)
    result = np.full((len(entries.tasks), len(names), 3), np.nan)
    sides = [(1 - confidence) / 2, (1 + confidence) / 2]
    for t in track(range(len(entries.tasks)), f"replay against {title}"):
        a, b = mine[start[t] : start[t + 1]], theirs[start[t] : start[t + 1]]
        y = entries.y[a]
        if not 0 < y.sum() < len(y):
            continue
        ways = [_Way.of(e.score[at], e.fold[at], y) for e, at in ((entries, a), (other, b))]
        once = np.ones((1, len(y)))
        result[t, :, 0] = (ways[0].measures(once, *cuts) - ways[1].measures(once, *cuts))[0]
        member = np.unique(group[entries.compound[a]], return_inverse=True)[1]
        stream = task_stream(seed, entries.tasks[t], "replay")
        drawn = _drawn(ways, member, cuts, min(replicates, max(_LEAST, _WORK // len(y))), stream)
        known = ~np.isnan(result[t, :, 0]) & ~np.isnan(drawn).all(0)
        if known.any():
            result[t, known, 1:] = np.nanquantile(drawn[:, known], sides, axis=0).T
    table = {"task": np.repeat(np.asarray(entries.tasks, object), len(names)), "measure": names * len(entries.tasks)}
    columns = ("difference", "difference_low", "difference_high")
    return pd.DataFrame(table | {c: result[:, :, i].ravel() for i, c in enumerate(columns)})


def average(table: pd.DataFrame, *, confidence: float = 0.95, replicates: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Average a replay over tasks.

    Parameters
    ----------
    table : DataFrame
        Of `replay`, for one or more methods (column ``method``).
    confidence : float
    replicates : int
        Tasks are resampled.
    seed : int

    Returns
    -------
    DataFrame, one row per method and measure, in the order of the table
        ``method, measure, n_tasks`` (with a value), ``mean, low, high`` of the value, ``random, best`` its
        mean for random and for perfect order; ``found, expected`` in sum over these tasks; ``reference,
        difference, difference_low, difference_high`` of the mean difference, and ``n_better, n_worse``:
        tasks whose own interval lies above, or below, 0.
    """
    rows = []
    for key, part in table.groupby(["method", "measure"], sort=False):
        method, measure = tuple(key)  # pyright: ignore[reportGeneralTypeIssues]
        known = part[part["value"].notna()]
        low, high = _mean_interval(known["value"].to_numpy(np.float64), confidence, replicates, seed)
        difference = known["difference"].dropna().to_numpy(np.float64)
        difference_low, difference_high = _mean_interval(difference, confidence, replicates, seed)
        rows.append(
            {
                "method": method,
                "measure": measure,
                "n_tasks": len(known),
                "mean": known["value"].mean(),
                "low": low,
                "high": high,
                "random": known["random"].mean(),
                "best": known["best"].mean(),
                "found": known["found"].sum(min_count=1),
                "expected": known["expected"].sum(min_count=1),
                "reference": str(part["reference"].iloc[0]),
                "difference": difference.mean() if len(difference) else np.nan,
                "difference_low": difference_low,
                "difference_high": difference_high,
                "n_better": int((known["difference_low"] > 0).sum()),
                "n_worse": int((known["difference_high"] < 0).sum()),
            }
        )
    return pd.DataFrame(rows)


def _mean_interval(values: Values, confidence: float, replicates: int, seed: int) -> tuple[float, float]:
    """Percentile interval of the mean, values resampled; NaN for fewer than two."""
    if len(values) < 2:
        return np.nan, np.nan
    values, stream = np.sort(values), np.random.default_rng(seed)  # sorted: the order of tasks has no influence
    means = [values[stream.integers(0, len(values), len(values))].mean() for _ in range(replicates)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def shared_entries(entries: Entries, other: Entries) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions in both of the entries of one task, fold and compound that both have."""
    folds = int(max(e.fold.max(initial=0) for e in (entries, other))) + 1
    width = int(max(e.compound.max(initial=0) for e in (entries, other))) + 1
    keys = [(e.task.astype(np.int64) * folds + e.fold) * width + e.compound for e in (entries, other)]
    _, mine, theirs = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    return mine, theirs


def _drawn(
    ways: list[_Way], member: NDArray[np.intp], cuts: tuple, replicates: int, stream: np.random.Generator
) -> Values:
    """Difference of two ways in resamples of groups, (replicates, measures)."""
    G, n = int(member.max()) + 1, len(member)
    drawn = np.full((replicates if G > 1 else 0, len(cuts[0]) + 2), np.nan)
    step = max(1, _CELLS // n)
    for done in range(0, len(drawn), step):
        b = min(step, len(drawn) - done)
        counts = stream.multinomial(G, np.full(G, 1 / G), size=b)
        weight = counts[:, member].astype(np.float64)
        drawn[done : done + b] = ways[0].measures(weight, *cuts) - ways[1].measures(weight, *cuts)
    return drawn


class _Way:
    """One method's ranking of the compounds of one task, ready for weights."""

    def __init__(self, order: NDArray[np.intp], start: NDArray[np.intp], y: NDArray[np.bool_]) -> None:
        self.order, self.start, self.y = order, start, y

    @classmethod
    def of(cls, score: NDArray[np.floating], fold: NDArray[np.integer], y: NDArray[np.bool_]) -> _Way:
        """Rank within folds and lay the folds into one ranking, as `Ranked.of` does."""
        by = np.lexsort((-score, fold))
        s, f = score[by], fold[by]
        new = np.ones(len(by), dtype=bool)
        new[1:] = (s[1:] != s[:-1]) | (f[1:] != f[:-1])
        run = np.cumsum(new) - 1
        first = np.flatnonzero(new)
        size = np.diff(first, append=len(by))
        total = np.bincount(np.unique(f, return_inverse=True)[1])[np.unique(f[first], return_inverse=True)[1]]
        above = first - np.searchsorted(f, f[first])
        place = np.empty(len(by))
        place[by] = ((2 * above + size) / (2 * total))[run]
        order = np.argsort(place, kind="stable")
        changed = np.flatnonzero(np.diff(place[order], prepend=-1.0))
        return cls(order, changed, y[order])

    def measures(self, weight: Values, fractions: tuple[float, ...], top: int, alpha: float) -> Values:
        """Enrichment factors and BEDROC under weights (B, n); (B, measures), NaN where undefined."""
        ordered = weight[:, self.order]
        size = np.add.reduceat(ordered, self.start, axis=1)
        active = np.add.reduceat(ordered * self.y, self.start, axis=1)
        upto, held = np.cumsum(size, axis=1), np.cumsum(active, axis=1)
        N, A = upto[:, -1], held[:, -1]
        both = (A > 0) & (A < N)
        out = np.full((len(weight), len(fractions) + 2), np.nan)
        rows = np.arange(len(weight))
        for i, taken in enumerate([*(n_taken(N, f) for f in fractions), np.full(len(N), top)]):
            at = np.minimum((upto <= taken[:, None]).sum(1), size.shape[1] - 1)
            before, there = upto[rows, at] - size[rows, at], np.maximum(size[rows, at], 1)
            part = np.clip(taken - before, 0, there) / there
            found = held[rows, at] - active[rows, at] * (1 - part)
            use = both & (taken < N)
            out[use, i] = found[use] / taken[use] * (N / np.maximum(A, 1))[use]
        step = -alpha / N[:, None]
        fall = np.exp(step * np.hstack([np.zeros((len(N), 1)), upto]))
        mean = active / np.maximum(size, 1) * (fall[:, :-1] - fall[:, 1:])
        exponential = mean.sum(1) * np.exp(step[:, 0]) / -np.expm1(step[:, 0])
        out[:, -1] = bedroc_of(exponential, N, A, alpha)
        return out
