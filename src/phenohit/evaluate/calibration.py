"""Whether probabilities are right: of what was given 70 %, about 70 % should have been active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.errors import ConfigError, LabelError, ShapeError, some
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.splits import TRAIN, VALID, Folds

__all__ = ["ALL", "GROUPS", "Training", "calibration", "wilson"]

ALL = "all"
GROUPS = ("0 to 10", "11 to 30", "over 30")  # labels of a task
_EDGES = (10.5, 30.5)
_BLOCK = 1 << 20  # entries added up at a time


@dataclass(frozen=True, eq=False)
class Training:
    """Labels that every task had in the training part of every fold.

    Attributes
    ----------
    folds : int array, shape (K,)
        Fold numbers, ascending.
    active, measured : float64 arrays, shape (T, K)
        Compounds of the training and validation rows; where several splits are evaluated under one
        fold number (left-out plates), their mean.
    """

    folds: NDArray[np.int64]
    active: NDArray[np.float64]
    measured: NDArray[np.float64]

    @classmethod
    def of(cls, labels: Labels, folds: Folds) -> Training:
        """Count the labels of the compounds whose rows train or validate.

        Parameters
        ----------
        labels : Labels
            One row per compound.
        folds : Folds
            Over compounds or wells; compounds without labels count nothing.

        Raises
        ------
        LabelError
            If a compound has two rows in `labels`.
        """
        keys = pd.Index(labels.compounds["compound"])
        if not keys.is_unique:
            raise LabelError(f"Labels must have one row per compound; these repeat: {some(keys[keys.duplicated()])}.")
        Y, T = labels.Y, len(labels.tasks)
        width = np.diff(Y.indptr)
        at = keys.get_indexer(pd.Index(folds.rows["compound"]))
        numbers, place = np.unique(np.asarray(folds.fold, dtype=np.int64), return_inverse=True)
        active, measured = np.zeros((T, len(numbers))), np.zeros((T, len(numbers)))
        for split, k in enumerate(place):
            known = np.zeros(len(labels), dtype=bool)
            known[at[(at >= 0) & np.isin(folds.part[:, split], (TRAIN, VALID))]] = True
            entry = np.repeat(known, width)
            column = Y.indices[entry]
            measured[:, k] += np.bincount(column, minlength=T)
            active[:, k] += np.bincount(column[Y.data[entry] != 0], minlength=T)
        splits = np.bincount(place, minlength=len(numbers))
        return cls(numbers, active / splits, measured / splits)


def calibration(
    labels: Labels,
    predictions: Predictions,
    *,
    entries: Entries | None = None,
    training: Training | None = None,
    bins: int = 10,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Compare predicted probabilities with what was observed, over all measured and scored entries.

    Entries are pooled over tasks and folds: a task counts by its labels.

    Parameters
    ----------
    labels : Labels
        One row per compound.
    predictions : Predictions
        Scores of held-out rows, with the fold of each.
    entries : Entries, optional
        What ``Entries.of(labels, predictions)`` gives, if it is at hand.
    training : Training, optional
        Gives the reference (each task's active share in training, with one added to both classes:
        Laplace's rule) and the groups of tasks (labels in training). Without it the reference is
        each task's observed share among the scored entries, which knows more than any prediction,
        and groups are by all labels of a task.
    bins : int
        Bins of the probability, of equal width; a value on an edge belongs to the bin below it.
    confidence : float
        Coverage of the intervals of the observed shares (Wilson; takes entries as independent).

    Returns
    -------
    DataFrame, `bins` rows per group
        ``group`` ('all', then each of `GROUPS` that has entries), ``grouped_by`` and ``reference``
        (in words), ``n_tasks, n_entries``, ``brier``, ``brier_reference``, ``brier_skill`` (1 - brier
        / brier_reference), ``ece`` (expected calibration error: mean distance of score and observed
        share, bins weighted by entries) and ``ece_calibrated`` (what that many entries would give if
        every probability were right) of the group; and of each bin ``bin, low, high`` (its
        edges), ``n, n_active, score_mean, share, share_low, share_high`` (NaN where empty).
        ``skipped`` says why there is nothing: then one row with ``bin`` -1.

    Raises
    ------
    ConfigError
        If `bins` or `confidence` is impossible.
    ShapeError
        If entries lie in a fold that `training` does not know.

    Notes
    -----
    ``ece_calibrated`` is the normal approximation sqrt(2 / pi) / n * sum over bins of
    sqrt(sum p (1 - p)): few entries alone make an expected calibration error.

    References
    ----------
    Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; Wilson 1927,
    doi:10.1080/01621459.1927.10502953; Naeini, Cooper and Hauskrecht 2015 (expected calibration error).
    """
    if bins < 1 or not 0 < confidence < 1:
        raise ConfigError(f"bins is {bins} and confidence {confidence}: at least 1, and between 0 and 1, are needed.")
    entries = Entries.of(labels, predictions) if entries is None else entries
    why = _unusable(predictions, entries)
    by = "labels in training" if training is not None else "labels"
    reference = "active share of each task in training" if training is not None else "observed share of each task"
    if why:
        return _table([_skipped(why)], by, reference)
    edges = np.linspace(0, 1, bins + 1)
    sums, n_tasks = _sums(entries, *_known(labels, entries, training), edges)
    parts = [
        _group(name, n_tasks[g], {key: value[g] for key, value in sums.items()}, edges, confidence)
        for g, name in enumerate((ALL, *GROUPS))
        if sums["n"][g].any()
    ]
    return _table(parts, by, reference)


def wilson(
    n_active: NDArray[np.float64], n: NDArray[np.float64], confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's score interval of a share (Wilson 1927); NaN where `n` is 0."""
    z = float(ndtri((1 + confidence) / 2))
    m = np.where(n > 0, n, np.nan)
    middle = (n_active + z * z / 2) / (m + z * z)
    half = z / (m + z * z) * np.sqrt(n_active * (m - n_active) / m + z * z / 4)
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def _unusable(predictions: Predictions, entries: Entries) -> str:
    """Why these scores cannot be compared with shares; '' where they can."""
    if predictions.kind != "probability":
        return f"its scores are of kind {predictions.kind}, not probabilities"
    if not len(entries):
        return "no measured entry was scored"
    low, high = float(entries.score.min()), float(entries.score.max())
    if low < 0 or high > 1:
        return f"its scores run from {low:.2g} to {high:.2g}, which are no probabilities"
    return ""


def _known(
    labels: Labels, entries: Entries, training: Training | None
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.float64]]:
    """Say what was known of each task before: fold numbers (K,), its group (T, K), and its active share (T, K)."""
    if training is None:
        active, inactive = entries.counts("task")
        number = labels.counts().sum(axis=1).to_numpy(np.float64)
        number = np.repeat(number[:, None], len(entries.folds), axis=1)
        share = np.repeat((active / np.maximum(active + inactive, 1))[:, None], len(entries.folds), axis=1)
        return entries.folds.astype(np.int64), np.searchsorted(_EDGES, number), share
    unknown = np.setdiff1d(entries.folds, training.folds)
    if len(unknown) or len(training.measured) != len(entries.tasks):
        raise ShapeError(
            f"Training labels are of folds {some(training.folds.tolist())} and {len(training.measured)} tasks, the "
            f"scores of folds {some(entries.folds.tolist())} and {len(entries.tasks)} tasks: they are of another split."
        )
    share = (training.active + 1) / (training.measured + 2)
    return training.folds, np.searchsorted(_EDGES, training.measured), share


def _sums(
    entries: Entries,
    folds: NDArray[np.int64],
    group: NDArray[np.intp],
    share: NDArray[np.float64],
    edges: NDArray[np.float64],
) -> tuple[dict[str, NDArray[np.float64]], list[int]]:
    """Add up entries by group and bin, each (1 + groups, bins) with all first; and count the tasks of each."""
    n_bins, n_groups, K = len(edges) - 1, len(GROUPS), len(folds)
    n_cells = n_groups * n_bins
    names = ("n", "n_active", "score", "variance", "error", "reference")
    total = {name: np.zeros(n_cells) for name in names}
    held = np.zeros(len(entries.tasks) * K, dtype=np.int64)
    group, share = group.ravel(), share.ravel()
    place = np.zeros(int(folds.max(initial=0)) + 1, dtype=np.int64)
    place[folds] = np.arange(K)
    for start in range(0, len(entries), _BLOCK):
        part = slice(start, start + _BLOCK)
        pair = entries.task[part] * np.int64(K) + place[entries.fold[part]]
        score, y = entries.score[part].astype(np.float64), entries.y[part].astype(np.float64)
        cell = group[pair] * n_bins + np.searchsorted(edges[1:-1], score)
        of = (None, y, score, score * (1 - score), (score - y) ** 2, (share[pair] - y) ** 2)
        for name, weights in zip(names, of, strict=True):
            total[name] += np.bincount(cell, weights, minlength=n_cells)
        held += np.bincount(pair, minlength=len(held))
    shaped = {name: value.reshape(n_groups, n_bins) for name, value in total.items()}
    sums = {name: np.vstack([value.sum(0), value]) for name, value in shaped.items()}
    # A task's labels in training differ between folds, so that it may be in two groups.
    there = held.reshape(-1, K) > 0
    tasks = [there.any(1).sum(), *(((group.reshape(-1, K) == g) & there).any(1).sum() for g in range(n_groups))]
    return sums, [int(n) for n in tasks]


def _group(
    name: str, n_tasks: int, sums: dict[str, NDArray[np.float64]], edges: NDArray[np.float64], confidence: float
) -> dict[str, Any]:
    """Return the columns of one group, `bins` values each."""
    n, n_active = sums["n"], sums["n_active"]
    total = n.sum()
    low, high = wilson(n_active, n, confidence)
    at = np.where(n > 0, n, np.nan)
    brier, reference = sums["error"].sum() / total, sums["reference"].sum() / total
    return {
        "group": name,
        "n_tasks": n_tasks,
        "n_entries": int(total),
        "brier": brier,
        "brier_reference": reference,
        "brier_skill": 1 - brier / reference if reference > 0 else np.nan,
        "ece": np.abs(n_active - sums["score"]).sum() / total,
        "ece_calibrated": np.sqrt(2 / np.pi) * np.sqrt(sums["variance"]).sum() / total,
        "bin": np.arange(len(n)),
        "low": edges[:-1],
        "high": edges[1:],
        "n": n.astype(np.int64),
        "n_active": n_active.astype(np.int64),
        "score_mean": sums["score"] / at,
        "share": n_active / at,
        "share_low": low,
        "share_high": high,
        "skipped": "",
    }


def _skipped(why: str) -> dict[str, Any]:
    """Return the one row of a method without probabilities."""
    numbers = (
        "brier", "brier_reference", "brier_skill", "ece", "ece_calibrated", "low", "high", "score_mean", "share",
        "share_low", "share_high",
    )  # fmt: skip
    counts = {"n_tasks": 0, "n_entries": 0, "bin": np.array([-1]), "n": 0, "n_active": 0}
    return {"group": ALL, **dict.fromkeys(numbers, np.nan), **counts, "skipped": why}


_COLUMNS = [
    "group", "grouped_by", "reference", "n_tasks", "n_entries", "brier", "brier_reference", "brier_skill", "ece",
    "ece_calibrated", "bin", "low", "high", "n", "n_active", "score_mean", "share", "share_low", "share_high",
    "skipped",
]  # fmt: skip


def _table(parts: list[dict[str, Any]], by: str, reference: str) -> pd.DataFrame:
    table = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
    return table.assign(grouped_by=by, reference=reference)[_COLUMNS]
