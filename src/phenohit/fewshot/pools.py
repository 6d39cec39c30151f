"""Episodes to train on: every step draws some compounds of some tasks and forms many episodes among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.errors import LabelError, ShapeError
from phenohit.fewshot.episodes import Episodes

__all__ = ["Group", "Pool", "Pools", "episode_auroc"]

LEAST_QUERY = 8  # with fewer compounds left for its query a task takes no part
STAGE = "pretrain"


@dataclass(frozen=True, eq=False)
class Group:
    """K episodes of one task among P of its compounds.

    Attributes
    ----------
    rows : intp array, shape (P,)
        Rows of the feature table, one per compound.
    support, query : int64 arrays, shapes (K, M) and (K, Q)
        Positions in `rows`.
    y_support, y_query : bool arrays, shapes (K, M) and (K, Q)
    """

    rows: NDArray[np.intp]
    support: NDArray[np.int64]
    query: NDArray[np.int64]
    y_support: NDArray[np.bool_]
    y_query: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pool:
    """The compounds of one task.

    Attributes
    ----------
    rows : intp array, shape (P,)
        Measured rows, those of a compound together.
    start, count : int arrays, shape (n,)
        Where in `rows` a compound's are, and how many.
    active : bool array, shape (n,)
    """

    rows: NDArray[np.intp]
    start: NDArray[np.intp]
    count: NDArray[np.intp]
    active: NDArray[np.bool_]

    def parts(self, size: int, query: int) -> tuple[int, int, int, int] | None:
        """Return actives and inactives of a support, then of a query; None where there are too few compounds.

        Stratified by the task's share, at least one of each class. A query is as large as the compounds allow, from
        8 to `query`.
        """
        n_active, n = int(self.active.sum()), len(self.active)
        n_inactive, share = n - n_active, n_active / max(n, 1)
        least = min(query, LEAST_QUERY)
        query = min(query, n - size)
        if query < least or min(n_active, n_inactive) < 2:
            return None
        in_support = int(np.clip(np.floor(size * share + 0.5), 1, size - 1))
        lowest = max(1, query - (n_inactive - (size - in_support)))
        highest = min(query - 1, n_active - in_support)
        if lowest > highest or n_inactive - (size - in_support) < 1:
            return None
        in_query = int(np.clip(np.floor(query * share + 0.5), lowest, highest))
        return in_support, size - in_support, in_query, query - in_query

    def draw(self, stream: np.random.Generator, parts: tuple[int, int, int, int], n: int, pool: int) -> Group:
        """Return `n` episodes among about `pool` compounds (at least those of one episode), one row of each."""
        support, query = parts[:2], parts[2:]
        need = (support[0] + query[0], support[1] + query[1])
        items = (np.flatnonzero(self.active), np.flatnonzero(~self.active))
        wanted = max(pool, sum(need))
        first = int(np.clip(round(wanted * self.active.mean()), need[0], len(items[0])))
        sizes = (first, int(np.clip(wanted - first, need[1], len(items[1]))))
        chosen = np.concatenate([stream.choice(i, k, replace=False) for i, k in zip(items, sizes, strict=True)])
        row = self.rows[self.start[chosen] + stream.integers(self.count[chosen])]
        order = [stream.random((n, k)).argsort(axis=1) for k in sizes]
        order[1] += sizes[0]
        ends = (query[0] + support[0], query[1] + support[1])
        q = np.hstack([o[:, :k] for o, k in zip(order, query, strict=True)])
        s = np.hstack([o[:, k:end] for o, k, end in zip(order, query, ends, strict=True)])
        y = [np.tile(np.arange(sum(k)) < k[0], (n, 1)) for k in (support, query)]
        return Group(row, s, q, *y)


@dataclass(frozen=True, eq=False)
class Pools:
    """The training tasks.

    Attributes
    ----------
    pools : list of Pool
    parts : dict of int to list
        Support size -> (number of the pool, `Pool.parts`) of the tasks that have enough compounds.
    dropped : DataFrame
        Tasks that no episode can be drawn from, with the reason.
    """

    pools: list[Pool]
    parts: dict[int, list[tuple[int, tuple[int, int, int, int]]]]
    dropped: pd.DataFrame

    @classmethod
    def of(cls, labels: Labels, compounds: NDArray[np.object_], sizes: Sequence[int], query: int) -> Pools:
        """Collect the compounds of every task.

        Raises
        ------
        ShapeError
            If rows of a compound have different labels in a task.
        LabelError
            If no task serves a support size.
        """
        code = pd.factorize(compounds)[0]
        Y = labels.Y.tocsc()
        pools, lost, why = [], [], []
        for task, (a, b) in zip(labels.task_names, zip(Y.indptr[:-1], Y.indptr[1:], strict=True), strict=True):
            order = np.argsort(code[Y.indices[a:b]], kind="stable")
            rows, y = Y.indices[a:b][order].astype(np.intp), Y.data[a:b][order] != 0
            _, start, count = np.unique(code[rows], return_index=True, return_counts=True)
            if (np.repeat(y[start], count) != y).any():
                raise ShapeError(f"Task '{task}' has compounds whose rows have different labels: merge them first.")
            pool = Pool(rows, start, count, y[start])
            if any(pool.parts(size, query) for size in sizes):
                pools.append(pool)
            else:
                lost.append(task)
                n = int(pool.active.sum())
                why.append(
                    f"has {n} active and {len(pool.active) - n} inactive compounds; the smallest support "
                    f"({min(sizes)}) and {min(query, LEAST_QUERY)} to ask for need more"
                )
        parts = {
            size: [(i, found) for i, pool in enumerate(pools) if (found := pool.parts(size, query))] for size in sizes
        }
        if not pools:
            raise LabelError(
                f"None of the {len(labels.task_names)} training tasks has the compounds for a support of {min(sizes)} "
                "and a query, with both classes in each. Give more tasks, or smaller support sizes."
            )
        return cls(pools, parts, dropped(STAGE, "task", lost, why))

    def draw(
        self, stream: np.random.Generator, sizes: Sequence[int], *, tasks: int, episodes: int, pool: int
    ) -> list[Group]:
        """Return the groups of one step: a size for each of `tasks` draws, then a task that serves it."""
        groups, sizes = [], [size for size in sizes if self.parts[size]]
        for share in np.diff(np.linspace(0, episodes, tasks + 1).round().astype(int)):
            served = self.parts[int(stream.choice(sizes))]
            number, parts = served[stream.integers(len(served))]
            groups.append(self.pools[number].draw(stream, parts, int(share), pool))
        return groups


def episode_auroc(scores: Sequence[NDArray[np.floating]], episodes: Sequence[Episodes]) -> float:
    """Return the AUROC averaged over episodes, then over the items of `episodes`.

    Parameters
    ----------
    scores : sequence of float array, shape (E, Q)
    episodes : sequence of Episodes
    """
    means = []
    for score, one in zip(scores, episodes, strict=True):
        rank, y = rankdata(score, axis=1), one.y_query
        n = y.sum(1)
        means.append((((rank * y).sum(1) - n * (n + 1) / 2) / (n * (y.shape[1] - n))).mean())
    return float(np.mean(means))
