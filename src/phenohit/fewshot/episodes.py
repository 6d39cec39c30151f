"""Episodes: a few labelled compounds to learn from, others to be scored on, drawn many times from one task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, ShapeError
from phenohit.evaluate.seeds import task_stream

__all__ = ["SIZES", "Episodes", "draw_episodes", "draw_tasks"]

SIZES = (8, 16, 32, 64, 96)  # Ha's thesis, chapter 2
_TRIES = 50  # orders of the series tried for an episode before its task is given up
STAGE = "draw episodes"


@dataclass(frozen=True, eq=False)
class Episodes:
    """E episodes of one task with one support size M.

    Attributes
    ----------
    task : str
    support : intp array, shape (E, M)
        Rows of the feature table to learn from.
    query : intp array, shape (E, Q)
        Rows to score. Number e has the same query at every support size, and larger supports hold the smaller.
    y_support, y_query : bool arrays, shapes (E, M) and (E, Q)
        True where active. All episodes have as many actives as each other, at least one of each class.
    """

    task: str
    support: NDArray[np.intp]
    query: NDArray[np.intp]
    y_support: NDArray[np.bool_]
    y_query: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.support.shape != self.y_support.shape or self.query.shape != self.y_query.shape:
            raise ShapeError(f"Episodes of '{self.task}' have rows and labels of different shapes.")

    def __len__(self) -> int:
        return len(self.support)

    @property
    def size(self) -> int:
        """Compounds in a support, M."""
        return self.support.shape[1]

    def take(self, at: NDArray[np.intp] | slice) -> Episodes:
        """Return some of the episodes."""
        return Episodes(self.task, self.support[at], self.query[at], self.y_support[at], self.y_query[at])


def draw_tasks(
    labels: Labels,
    compounds: NDArray[np.object_],
    tasks: Sequence[str],
    *,
    sizes: Sequence[int] = SIZES,
    query: int = 32,
    n: int = 100,
    unit: str = "compound",
    series: NDArray[np.integer] | None = None,
    seed: int = 0,
) -> tuple[list[Episodes], pd.DataFrame]:
    """Draw the episodes of several tasks; parameters as in `draw_episodes`.

    Parameters
    ----------
    labels : Labels, N rows
        Rows of the feature table, wells or compounds.
    compounds : array of str, shape (N,)
        Compound of every row.
    tasks : sequence of str

    Returns
    -------
    episodes : list of Episodes
        By task, then by support size.
    dropped : DataFrame
        Tasks, or tasks at a support size, that cannot be drawn, with the reason.
    """
    Y = labels.Y.tocsc()
    column = {task: i for i, task in enumerate(labels.task_names)}
    drawn, lost = [], [nothing_dropped()]
    for task in tasks:
        part = slice(Y.indptr[column[task]], Y.indptr[column[task] + 1])
        rows, y = Y.indices[part].astype(np.intp), Y.data[part] != 0
        made, missing = draw_episodes(
            task, rows, y, compounds[rows], sizes=sizes, query=query, n=n, unit=unit, seed=seed,
            series=None if series is None else series[rows],
        )  # fmt: skip
        drawn += made
        lost.append(missing)
    return drawn, pd.concat(lost, ignore_index=True)


def draw_episodes(
    task: str,
    rows: NDArray[np.intp],
    y: NDArray[np.bool_],
    compounds: NDArray[np.object_],
    *,
    sizes: Sequence[int] = SIZES,
    query: int = 32,
    n: int = 100,
    unit: str = "compound",
    series: NDArray[np.integer] | None = None,
    seed: int = 0,
) -> tuple[list[Episodes], pd.DataFrame]:
    """Draw stratified episodes of one task.

    Parameters
    ----------
    task : str
    rows : intp array, shape (P,)
        Measured rows of the feature table; a compound may have several (wells, doses).
    y : bool array, shape (P,)
        Labels; rows of one compound have the same.
    compounds : array of str, shape (P,)
    sizes : sequence of int
        Support sizes M.
    query : int
        Compounds of a query, Q.
    n : int
        Episodes, E.
    unit : {"compound", "well"}
        What is drawn. A drawn compound is represented by one of its rows, anew in every episode; no compound is on both
        sides. With ``well`` rows are drawn as if they were compounds, as in the published code: replicates
        of one compound get into support and query. It is there to show how much that flatters.
    series : int array, shape (P,), optional
        Series of every row. With it no series is on both sides.
    seed : int

    Returns
    -------
    episodes : list of Episodes
        Support sizes ascending; those for which there are too few compounds are missing.
    dropped : DataFrame
        What is missing, with the reason.

    Raises
    ------
    ConfigError
        If a size, `query`, `n` or `unit` is impossible.

    Notes
    -----
    Stratified: actives of support and query are the task's share, rounded, at least 1 of each class. Supports are
    nested, the query of an episode is the same for all of them, and neither depends on which sizes are asked for
    (with `series`, a support that leaves too few series for the query begins anew with another order).
    """
    _check(sizes, query, n, unit)
    if unit == "well":
        items, of_row = np.arange(len(rows)), np.arange(len(rows))
    else:
        items, first, of_row = np.unique(compounds.astype(str), return_index=True, return_inverse=True)
        if (y != y[first][of_row]).any():
            raise ShapeError(f"Task '{task}' has compounds whose rows have different labels: merge them first.")
    active = np.zeros(len(items), bool)
    active[of_row] = y
    share, n_items, word = active.mean() if len(items) else np.nan, len(items), f"{unit}s"
    if active.all() or not active.any():
        return [], dropped(STAGE, "task", [task], f"has one class only ({n_items} {word}); an episode needs both")
    group = None
    if series is not None:
        group = np.zeros(len(items), np.int64)
        group[of_row] = np.unique(series, return_inverse=True)[1]
    stream = task_stream(seed, task, "episodes")
    of_query = _stratum(query, share)
    made, lost = [], []
    drawer = _Drawer(active, group, stream, n)
    for size in sorted(sizes):
        need = (of_query[0] + _stratum(size, share)[0], of_query[1] + _stratum(size, share)[1])
        reason = ""
        if n_items < size + query:
            reason = f"has {n_items} {word}; a support of {size} and a query of {query} need {size + query}"
        elif active.sum() < need[0] or (~active).sum() < need[1]:
            reason = (
                f"has {active.sum()} active and {(~active).sum()} inactive {word}; a support of {size} and a query of "
                f"{query} need {need[0]} and {need[1]}"
            )
        else:
            drawn = drawer.draw(of_query, _stratum(size, share))
            if drawn is None:
                reason = (
                    f"its series are too large: none of {_TRIES} orders gives a support of {size} apart from a query"
                )
            else:
                made.append((size, *drawn))
        if reason:
            lost.append((f"{task} (support {size})", reason))
    at = drawer.rows(rows, of_row, stream)
    episodes = [Episodes(task, at(s), at(q), active[s], active[q]) for _, s, q in made]
    return episodes, dropped(STAGE, "task", [name for name, _ in lost], [reason for _, reason in lost])


def _check(sizes: Sequence[int], query: int, n: int, unit: str) -> None:
    if not sizes or min(sizes) < 2 or len(set(sizes)) < len(sizes):
        raise ConfigError(f"Support sizes are {list(sizes)}: give different numbers, each at least 2.")
    if query < 2 or n < 1:
        raise ConfigError(f"A query of {query} in {n} episodes: query must be at least 2, episodes at least 1.")
    if unit not in ("compound", "well"):
        raise ConfigError(f"unit is '{unit}'. Expected compound or well.")


def _stratum(n: int, share: float) -> tuple[int, int]:
    """Actives and inactives among `n`, at least one of each."""
    active = int(np.clip(np.floor(n * share + 0.5), 1, n - 1))
    return active, n - active


class _Drawer:
    """Orders of the items of one task, drawn once: query first, then ever larger supports."""

    def __init__(
        self, active: NDArray[np.bool_], group: NDArray[np.int64] | None, stream: np.random.Generator, n: int
    ) -> None:
        self.active, self.group, self.n = active, group, n
        self.keys = stream.random((n, len(active)))  # an item's place in the order of its episode
        self.seeds = stream.integers(2**63, size=n)  # of the orders of series, tried anew at every support size

    def draw(
        self, query: tuple[int, int], support: tuple[int, int]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
        """Return items of supports (E, M) and queries (E, Q); None where series cannot be kept apart."""
        if self.group is None:
            parts = []
            for wanted, which in zip(range(2), (self.active, ~self.active), strict=True):
                items = np.flatnonzero(which)
                order = items[np.argsort(self.keys[:, items], axis=1)]
                end = query[wanted]
                parts.append((order[:, end : end + support[wanted]], order[:, :end]))
            return np.hstack([p[0] for p in parts]), np.hstack([p[1] for p in parts])
        pairs = [self._apart(e, query, support) for e in range(self.n)]
        if any(p is None for p in pairs):
            return None
        return np.stack([p[0] for p in pairs if p]), np.stack([p[1] for p in pairs if p])

    def _apart(
        self, e: int, query: tuple[int, int], support: tuple[int, int]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
        """Fill the query from whole series in a random order, the support from the others."""
        assert self.group is not None
        classes = (self.active, ~self.active)
        stream, n_series = np.random.default_rng(self.seeds[e]), int(self.group.max()) + 1
        for _ in range(_TRIES):
            place = stream.permutation(n_series)[self.group]  # of the item's series in a random order
            by_place = np.argsort(place, kind="stable")
            enough = [np.cumsum(which[by_place]) >= q for which, q in zip(classes, query, strict=True)]
            last = place[by_place[np.flatnonzero(enough[0] & enough[1])[0]]]
            mine, others = place <= last, place > last
            ranked = np.argsort(self.keys[e])
            sides = []
            for side, wanted in ((others, support), (mine, query)):
                picks = [ranked[(side & which)[ranked]][:k] for which, k in zip(classes, wanted, strict=True)]
                if any(len(p) < k for p, k in zip(picks, wanted, strict=True)):
                    break
                sides.append(np.concatenate(picks))
            if len(sides) == 2:
                return sides[0], sides[1]
        return None

    def rows(
        self, rows: NDArray[np.intp], of_row: NDArray[np.intp], stream: np.random.Generator
    ) -> Callable[[NDArray[np.intp]], NDArray[np.intp]]:
        """Return a function from items (E, M) to rows: one row of each item, the same in the whole episode."""
        order = np.argsort(of_row, kind="stable")
        start = np.searchsorted(of_row[order], np.arange(len(self.active)))
        count = np.bincount(of_row, minlength=len(self.active))
        chosen = start + np.floor(stream.random((self.n, len(self.active))) * count).astype(np.intp)
        table = rows[order[chosen]]  # (E, items)
        return lambda items: np.take_along_axis(table, items, axis=1)
