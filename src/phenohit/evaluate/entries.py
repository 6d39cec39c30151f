"""`Entries`: every measured label that has a score, as flat arrays that metrics reduce by segment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.errors import LabelError, ShapeError, some
from phenohit.evaluate.ranks import Runs

__all__ = ["Entries", "Groups"]

Groups = Literal["fold", "task"]

_BLOCK = 4_000_000  # entries looked up at a time


@dataclass(frozen=True, eq=False)
class Entries:
    """Measured and scored entries.

    Attributes
    ----------
    task : int32 array, shape (n,)
        Position in `tasks`.
    fold : int32 array, shape (n,)
        Fold in which the entry was held out.
    y : bool array, shape (n,)
        True where active.
    score : float array, shape (n,)
        Higher means more active.
    compound : int32 array, shape (n,)
        Row of the labels; an entry of one task in one fold occurs once.
    tasks : list of str, length T
    cut : float64 array, shape (T,)
        At or above this score a compound is called active: 0.5 for probabilities.
    """

    task: NDArray[np.int32]
    fold: NDArray[np.int32]
    y: NDArray[np.bool_]
    score: NDArray[np.floating]
    compound: NDArray[np.int32]
    tasks: list[str]
    cut: NDArray[np.float64]
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        lengths = {k: len(getattr(self, k)) for k in ("task", "fold", "y", "score", "compound")}
        if len(set(lengths.values())) > 1:
            raise ShapeError(f"Entries need arrays of one length, not {lengths}.")
        if len(self.cut) != len(self.tasks):
            raise ShapeError(f"There are {len(self.cut)} cuts for {len(self.tasks)} tasks.")

    def __len__(self) -> int:
        return len(self.task)

    @property
    def folds(self) -> NDArray[np.int32]:
        """Numbers of the K folds that occur, ascending."""
        if "folds" not in self._kept:
            self._kept["folds"] = np.unique(self.fold)
        return self._kept["folds"]

    def shape(self, groups: Groups) -> tuple[int, ...]:
        """Shape of a metric: (T, K) by fold, (T,) with the folds pooled."""
        return (len(self.tasks), len(self.folds)) if groups == "fold" else (len(self.tasks),)

    def segment(self, groups: Groups) -> NDArray[np.int64]:
        """Segment of every entry, numbered along `shape`."""
        if groups == "task":
            return self.task.astype(np.int64)
        return self.task.astype(np.int64) * len(self.folds) + np.searchsorted(self.folds, self.fold)

    def runs(self, groups: Groups) -> Runs:
        """Return the runs of equal scores in every segment; sorted when first asked for."""
        if groups not in self._kept:
            n_segments = int(np.prod(self.shape(groups)))
            self._kept[groups] = Runs.of(self.segment(groups), self.score, self.y, n_segments)
        return self._kept[groups]

    def counts(self, groups: Groups) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Actives and inactives of every segment, each of `shape`."""
        n_segments = int(np.prod(self.shape(groups)))
        both = np.bincount(self.segment(groups) * 2 + self.y, minlength=2 * n_segments).reshape(-1, 2)
        return both[:, 1].reshape(self.shape(groups)), both[:, 0].reshape(self.shape(groups))

    def take(self, at: NDArray[np.intp]) -> Entries:
        """Return the entries at some positions, of the same tasks."""
        return Entries(
            self.task[at], self.fold[at], self.y[at], self.score[at], self.compound[at], self.tasks, self.cut
        )

    @classmethod
    def of(cls, labels: Labels, predictions: Predictions) -> Entries:
        """Look up the score of every measured label.

        Parameters
        ----------
        labels : Labels
            One row per compound. Tasks of kind ``value`` have no classes and get no entries.
        predictions : Predictions
            Rows may be wells or repeat in several folds: several rows of one compound in one fold
            are averaged. Rows of fold -1 or of compounds without labels are left out. Tasks are
            found by name; scores of kind pIC50 are also found by the task's assay, and are called
            active at the task's threshold.

        Raises
        ------
        LabelError
            If a compound has two rows in `labels`.
        ShapeError
            If no task of the labels was predicted.
        """
        keys = pd.Index(labels.compounds["compound"])
        if not keys.is_unique:
            raise LabelError(f"Labels must have one row per compound; these repeat: {some(keys[keys.duplicated()])}.")
        compound = keys.get_indexer(pd.Index(predictions.compounds))
        fold = np.zeros(len(predictions), np.int64) if predictions.fold is None else predictions.fold.astype(np.int64)
        used = np.flatnonzero((compound >= 0) & (fold >= 0))
        parts = list(_lookup(labels, predictions, used, compound[used], fold[used]))
        task, fold, y, score, compound = (np.concatenate(p) for p in zip(*parts, strict=True))
        return cls(task, fold, y, score, compound, labels.task_names, _cuts(labels, predictions))


def _cuts(labels: Labels, predictions: Predictions) -> NDArray[np.float64]:
    """Score from which on a task's compound is called active."""
    threshold = labels.tasks["threshold"].to_numpy(dtype=np.float64)
    return threshold if predictions.kind == "pIC50" else np.full(len(labels.tasks), 0.5)


def _columns(labels: Labels, predictions: Predictions) -> NDArray[np.int64]:
    """Column of the predictions for every task, -1 where there is none."""
    names = pd.Index(predictions.tasks)
    column = names.get_indexer(labels.tasks["task"])
    if predictions.kind == "pIC50":
        column = np.where(column < 0, names.get_indexer(labels.tasks["assay"]), column)
    if len(column) and (column < 0).all():
        raise ShapeError(
            f"None of the {len(column)} tasks was predicted. Tasks: {some(labels.task_names, 3)}; "
            f"predicted: {some(predictions.tasks, 3)}."
        )
    return np.where((labels.tasks["kind"] == "value").to_numpy(), -1, column)


def _lookup(
    labels: Labels,
    predictions: Predictions,
    rows: NDArray[np.int64],
    compound: NDArray[np.int64],
    fold: NDArray[np.int64],
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield (task, fold, y, score, compound) in blocks of whole (compound, fold) pairs."""
    Y = labels.Y
    indptr = Y.indptr.astype(np.int64)
    column, score = _columns(labels, predictions), _Scores(predictions.score)
    span = int(fold.max()) + 1 if len(fold) else 1
    pairs, pair = np.unique(compound * span + fold, return_inverse=True)
    order = np.argsort(pair, kind="stable")
    rows, pair = rows[order], pair[order]
    first_row = np.searchsorted(pair, np.arange(len(pairs) + 1))
    who = pairs // span
    width = np.diff(indptr)[who]  # labels of each pair's compound
    for a, b in _blocks(np.cumsum(width * np.diff(first_row))):
        # `entry` are the labels of the block's pairs; every row of a pair repeats its pair's labels.
        entry = _spans(indptr[who[a:b]], width[a:b])
        within = slice(first_row[a], first_row[b])
        n_labels = width[pair[within]]
        slot = _spans((np.cumsum(width[a:b]) - width[a:b])[pair[within] - a], n_labels)
        value, known = score.at(np.repeat(rows[within], n_labels), column[Y.indices[entry]][slot])
        total = np.bincount(slot, weights=np.where(known, value, 0), minlength=len(entry))
        found = np.bincount(slot, weights=known, minlength=len(entry))
        has = np.flatnonzero(found)
        owner = np.repeat(np.arange(a, b), width[a:b])[has]
        yield (
            Y.indices[entry[has]].astype(np.int32),
            (pairs[owner] % span).astype(np.int32),
            Y.data[entry[has]] != 0,
            (total[has] / found[has]).astype(np.float32),
            who[owner].astype(np.int32),
        )


def _blocks(load: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Cut pairs with the given cumulated work into blocks; at least one, though it be empty."""
    edges = [0]
    while edges[-1] < len(load):
        before = int(load[edges[-1] - 1]) if edges[-1] else 0
        edges.append(max(edges[-1] + 1, int(np.searchsorted(load, before + _BLOCK, side="right"))))
    return list(pairwise(edges)) or [(0, 0)]


def _spans(start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate ``start[i], start[i] + 1, ... start[i] + length[i] - 1``."""
    shift = start - (np.cumsum(length) - length)
    return np.repeat(shift, length) + np.arange(int(length.sum()))


class _Scores:
    """Scores by row and column, from a block or from the entries that were asked for."""

    def __init__(self, score: Any) -> None:
        self.score = score
        if sparse.issparse(score):
            score = score.tocsr() if score.has_sorted_indices else score.tocsr().sorted_indices()
            row = np.repeat(np.arange(score.shape[0]), np.diff(score.indptr))
            self.keys = row * score.shape[1] + score.indices
            self.score = score

    def at(self, row: NDArray[np.int64], column: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Score, and whether there is one."""
        known = column >= 0
        column = np.where(known, column, 0)
        if not sparse.issparse(self.score):
            return self.score[row, column], known
        if not len(self.keys):
            return np.zeros(len(row), np.float32), np.zeros(len(row), bool)
        key = row * self.score.shape[1] + column
        at = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        return self.score.data[at], known & (self.keys[at] == key)
