"""Ranks of several methods on held-out entries: how alike they are, and what their mean adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.errors import ShapeError, nearest, some
from phenohit.evaluate.compare import compare
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS, mean_over_folds

__all__ = ["NEEDS_CUT", "HeldOut", "gain", "ranks_within"]

# Metrics that count calls at a cut; a mean of ranks has none.
NEEDS_CUT = ("f1", "balanced_accuracy", "adjusted_balanced_accuracy", "kappa")
_FEWEST = 3  # entries of a task and fold from which two rankings can be correlated
_EXACT = 1 << 22  # whole numbers up to here stay distinct as float32 whatever they are divided by


def ranks_within(start: NDArray[np.int64], score: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rank scores within segments that lie one after the other.

    Parameters
    ----------
    start : int array, shape (S,)
        First entry of every segment, ascending from 0; none is empty.
    score : float array, shape (n,)

    Returns
    -------
    int64 array, shape (n,)
        Twice the mid-rank, counted from 1: whole numbers, so that sums of them tie where they should.
    """
    n = len(score)
    size = np.diff(start, append=n)
    segment = np.repeat(np.arange(len(start)), size)
    order = np.lexsort((score, segment))
    new = np.ones(n, dtype=bool)
    new[1:] = (score[order[1:]] != score[order[:-1]]) | (segment[order[1:]] != segment[order[:-1]])
    first = np.flatnonzero(new)
    length = np.diff(first, append=n)
    # A run at positions a .. a + m - 1 of its segment has ranks a + 1 .. a + m, whose mean twice is 2 a + m + 1.
    twice = 2 * (first - start[segment[order[first]]]) + length + 1 if n else np.zeros(0, np.int64)
    ranks = np.empty(n, np.int64)
    ranks[order] = np.repeat(twice, length)
    return ranks


@dataclass(frozen=True, eq=False)
class _Frame:
    """Entries in the order of task, fold and compound, without scores."""

    task: NDArray[np.int32]
    fold: NDArray[np.int32]
    compound: NDArray[np.int32]
    y: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.task)

    def start(self) -> NDArray[np.int64]:
        """First entry of every pair of task and fold that occurs."""
        new = np.ones(len(self), dtype=bool)
        new[1:] = (self.task[1:] != self.task[:-1]) | (self.fold[1:] != self.fold[:-1])
        return np.flatnonzero(new)

    def same(self, other: _Frame) -> bool:
        columns = ("task", "fold", "compound")
        return all(np.array_equal(getattr(self, c), getattr(other, c)) for c in columns)

    def at(self, rows: NDArray[np.int64]) -> _Frame:
        return _Frame(self.task[rows], self.fold[rows], self.compound[rows], self.y[rows])

    def keys(self, n_folds: int, n_compounds: int) -> NDArray[np.int64]:
        return (self.task.astype(np.int64) * n_folds + self.fold) * n_compounds + self.compound


@dataclass(eq=False)
class HeldOut:
    """Held-out scores of several methods, kept as ranks within task and fold.

    Methods usually score the same entries; then the entries are held once. Where they do not (wells were split and an
    input knows compounds only), methods are put together on the entries they share.

    Attributes
    ----------
    tasks : list of str, length T
        The same for every method.
    """

    tasks: list[str]
    _frames: list[_Frame] = field(default_factory=list, init=False, repr=False)
    _held: dict[str, tuple[int, NDArray[np.int32]]] = field(default_factory=dict, init=False, repr=False)

    @property
    def names(self) -> list[str]:
        """Methods in the order they came."""
        return list(self._held)

    def add(self, name: str, entries: Entries) -> None:
        """Take in the scores of one method.

        Raises
        ------
        ShapeError
            If its tasks are others, or the name is taken.
        """
        if entries.tasks != self.tasks:
            raise ShapeError(
                f"Method '{name}' was scored on other tasks ({some(entries.tasks, 3)}) than the split has "
                f"({some(self.tasks, 3)}). Score every method on the same labels."
            )
        if name in self._held:
            raise ShapeError(f"Method '{name}' was added twice. Give each method a name of its own.")
        order = np.lexsort((entries.compound, entries.fold, entries.task))
        frame = _Frame(entries.task[order], entries.fold[order], entries.compound[order], entries.y[order])
        number = next((i for i, kept in enumerate(self._frames) if kept.same(frame)), len(self._frames))
        if number == len(self._frames):
            self._frames.append(frame)
        ranks = ranks_within(frame.start(), entries.score[order])
        self._held[name] = (number, ranks.astype(np.int32))

    def n_entries(self, name: str) -> int:
        """Held-out entries of one method."""
        return len(self._frames[self._at(name)[0]])

    def mean_of_ranks(self, names: Sequence[str]) -> Entries:
        """Average the ranks that methods give within every task and fold.

        Parameters
        ----------
        names : sequence of str
            At least one method.

        Returns
        -------
        Entries
            On the entries that all of them score. The score is the mean over methods of (rank - 1/2) / n, between 0 and
            1, where n is the number of entries of the task and fold. ``cut`` is NaN: half-way up a ranking is no
            boundary between active and inactive, so that metrics of `NEEDS_CUT` do not apply.

        Notes
        -----
        Only held-out scores of one fold are ranked together and no label is looked at, so nothing leaks. It needs the
        scores of all compounds that are ranked together, hence it is no model that scores a single new compound.
        """
        frame, ranks = self._together(names)
        total = np.sum(ranks, axis=0, dtype=np.int64) - len(ranks)
        start = frame.start()
        size = np.diff(start, append=len(frame))
        # Whole numbers, divided once: equal means are equal numbers, whatever the rounding.
        score = total / np.repeat(2.0 * len(ranks) * size, size)
        exact = np.float32 if total.max(initial=0) < _EXACT else np.float64
        cut = np.full(len(self.tasks), np.nan)
        return Entries(frame.task, frame.fold, frame.y, score.astype(exact), frame.compound, self.tasks, cut)

    def correlation(self, one: str, other: str) -> NDArray[np.float64]:
        """Correlate two methods' rankings of the same held-out entries.

        Returns
        -------
        float64 array, shape (T,)
            Spearman's correlation in every fold with at least 3 entries, mean over folds as for AUROC. NaN where no
            fold has one, e.g. because a method gives all compounds the same score.
        """
        frame, ranks = self._together([one, other])
        start = frame.start()
        if not len(start):
            return np.full(len(self.tasks), np.nan)
        size = np.diff(start, append=len(frame))
        a, b = (r - np.repeat(size + 1.0, size) for r in ranks)  # twice the mid-ranks have the mean n + 1
        both, left, right = (np.add.reduceat(v, start) for v in (a * b, a * a, b * b))
        usable = (size >= _FEWEST) & (left > 0) & (right > 0)
        r = both[usable] / np.sqrt(left[usable] * right[usable])
        task, T = frame.task[start][usable], len(self.tasks)
        n = np.bincount(task, minlength=T)
        total = np.bincount(task, weights=r, minlength=T)
        return np.divide(total, n, out=np.full(T, np.nan), where=n > 0)

    def auroc(self, name: str, among: Sequence[str]) -> NDArray[np.float64]:
        """AUROC of one method on the entries that all methods of `among` score, mean over folds; shape (T,)."""
        frame, ranks = self._together([name, *among])
        score = ranks[0].astype(np.float32 if ranks[0].max(initial=0) < _EXACT else np.float64)
        cut = np.full(len(self.tasks), np.nan)
        entries = Entries(frame.task, frame.fold, frame.y, score, frame.compound, self.tasks, cut)
        return mean_over_folds(METRICS["auroc"](entries, "fold"))

    def _at(self, name: str) -> tuple[int, NDArray[np.int32]]:
        if name not in self._held:
            raise ShapeError(f"There are no scores of '{name}'. {nearest(name, self.names)}")
        return self._held[name]

    def _together(self, names: Sequence[str]) -> tuple[_Frame, list[NDArray[np.int32]]]:
        """Return the shared entries and every method's ranks on them; ranked anew where some entries fall away."""
        if not names:
            raise ShapeError("No method is named. Give at least one.")
        held = [self._at(name) for name in names]
        numbers = dict.fromkeys(number for number, _ in held)
        if len(numbers) == 1:
            return self._frames[held[0][0]], [ranks for _, ranks in held]
        used = [self._frames[n] for n in numbers]
        n_folds, n_compounds = (max(int(getattr(f, c).max(initial=0)) for f in used) + 1 for c in ("fold", "compound"))
        keys = {n: self._frames[n].keys(n_folds, n_compounds) for n in numbers}
        shared = next(iter(keys.values()))
        for own in keys.values():
            shared = np.intersect1d(shared, own, assume_unique=True)
        rows = {n: np.searchsorted(own, shared) for n, own in keys.items()}
        frame = self._frames[held[0][0]].at(rows[held[0][0]])
        start = frame.start()
        # Fewer entries keep their order, so that ranks are as good as scores here.
        return frame, [ranks_within(start, ranks[rows[n]]).astype(np.int32) for n, ranks in held]


def gain(held: HeldOut, table: pd.DataFrame, members: Sequence[str]) -> list[dict[str, Any]]:
    """Compare a mean of ranks with each of its members, task by task.

    Parameters
    ----------
    held : HeldOut
    table : DataFrame
        Score table of the mean of ranks.
    members : sequence of str

    Returns
    -------
    list of dict, one per member, the best by mean AUROC first
        ``method, n_tasks, mean, mean_ensemble, difference, share_better`` (tasks in which the mean of ranks is strictly
        better), ``p_value`` (Wilcoxon signed-rank, one-sided, that it is better; see `compare`), ``p_worse`` (that it
        is worse), ``p_holm`` (`p_value` corrected over the members). NaN where there are too few tasks.

    Notes
    -----
    Members are scored on the entries of the mean of ranks, so that both see the same. The best member is known to be
    best only from these very results, which favours it a little.
    """
    rows = []
    for member in members:
        other = pd.DataFrame({"task": held.tasks, "auroc": held.auroc(member, members)})
        better, worse = compare({"ensemble": table, member: other}).to_dict("records")
        rows.append(
            {
                "method": member,
                "n_tasks": int(better["n_tasks"]),
                "mean": float(better["mean_other"]),
                "mean_ensemble": float(better["mean"]),
                "difference": float(better["mean_difference"]),
                "share_better": float(better["share_better"]),
                "p_value": float(better["p_value"]),
                "p_worse": float(worse["p_value"]),
            }
        )
    ranked = sorted(rows, key=lambda row: -np.nan_to_num(row["mean"], nan=-1.0))
    return _corrected(ranked)


def _corrected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add Holm's correction over the rows whose p is known."""
    known = sorted((row for row in rows if not np.isnan(row["p_value"])), key=lambda row: row["p_value"])
    reached = 0.0
    for place, row in enumerate(known):
        reached = max(reached, min(row["p_value"] * (len(known) - place), 1.0))
        row["p_holm"] = reached
    return [{"p_holm": float("nan"), **row} for row in rows]
