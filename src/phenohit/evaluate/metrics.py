"""The metrics: each one function over all tasks and folds at once, named in `METRICS`.

A metric of a set that lacks one of the two classes is undefined and NaN, whatever its formula would
give: the area under the ROC curve has no value there, an average precision of 1 would say nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phenohit.errors import ConfigError, LabelError, ShapeError, nearest
from phenohit.evaluate.entries import Entries, Groups

__all__ = ["METRICS", "mean_over_folds", "metric"]

Values = NDArray[np.float64]


def auroc(entries: Entries, groups: Groups = "fold") -> Values:
    """Area under the ROC curve: share of active-inactive pairs in the right order, ties one half.

    Parameters
    ----------
    entries : Entries
    groups : {'fold', 'task'}
        Per task and fold, or per task with the folds pooled.

    Returns
    -------
    float64 array, shape (T, K) or (T,)
        0 to 1, 0.5 for random scores; NaN where a class is absent.
    """
    runs = entries.runs(groups)
    held = np.flatnonzero(runs.active)
    won = (runs.below(runs.inactive) + 0.5 * runs.inactive)[held] * runs.active[held]
    won = np.bincount(runs.segment[held], weights=won, minlength=runs.n_segments)
    return _ratio(won, runs.total(runs.active) * runs.total(runs.inactive)).reshape(entries.shape(groups))


def average_precision(entries: Entries, groups: Groups = "fold") -> Values:
    """Precision averaged over the recall gained at each distinct score, highest first.

    This is scikit-learn's definition (no interpolation; equal scores enter together). Parameters
    and shape as in `auroc`; 0 to 1, about the active share for random scores.
    """
    runs = entries.runs(groups)
    held = np.flatnonzero(runs.active)
    segment = runs.segment[held]
    n_active, n_inactive = runs.total(runs.active), runs.total(runs.inactive)
    hits = n_active[segment] - runs.below(runs.active)[held]
    called = hits + n_inactive[segment] - runs.below(runs.inactive)[held]
    gained = np.bincount(segment, weights=runs.active[held] * hits / called, minlength=runs.n_segments)
    precision = np.where(n_inactive > 0, _ratio(gained, n_active), np.nan)
    return precision.reshape(entries.shape(groups))


def delta_auprc(entries: Entries, groups: Groups = "fold") -> Values:
    """Average precision minus the active share: 0 for random scores (Stanley et al. 2021, FS-Mol)."""
    return average_precision(entries, groups) - _active_share(entries, groups)


def riptop_auprc(entries: Entries, groups: Groups = "fold") -> Values:
    """Share of the possible improvement over random that is reached, for average precision.

    ``(x - b) / (1 - b)`` with b the active share: 0 random, 1 perfect, negative worse than random.
    """
    share = _active_share(entries, groups)
    return _ratio(average_precision(entries, groups) - share, 1 - share)


def f1(entries: Entries, groups: Groups = "fold") -> Values:
    """Harmonic mean of precision and recall of the called actives, 0 to 1; 0 if none is found."""
    _, fp, fn, tp = _confusion(entries, groups)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def balanced_accuracy(entries: Entries, groups: Groups = "fold") -> Values:
    """Mean of the shares of actives and of inactives called rightly, 0 to 1; 0.5 for random calls."""
    tn, fp, fn, tp = _confusion(entries, groups)
    return (_ratio(tp, tp + fn) + _ratio(tn, tn + fp)) / 2


def adjusted_balanced_accuracy(entries: Entries, groups: Groups = "fold") -> Values:
    """Balanced accuracy on the scale where random calls are 0 and perfect ones 1; -1 to 1."""
    return 2 * balanced_accuracy(entries, groups) - 1


def kappa(entries: Entries, groups: Groups = "fold") -> Values:
    """Cohen's kappa of the calls, by the closed formula for a 2 x 2 table; -1 to 1, random 0."""
    tn, fp, fn, tp = _confusion(entries, groups)
    return _ratio(2 * (tp * tn - fn * fp), (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn))


METRICS: dict[str, Callable[[Entries, Groups], Values]] = {
    "auroc": auroc,
    "average_precision": average_precision,
    "delta_auprc": delta_auprc,
    "riptop_auprc": riptop_auprc,
    "f1": f1,
    "balanced_accuracy": balanced_accuracy,
    "adjusted_balanced_accuracy": adjusted_balanced_accuracy,
    "kappa": kappa,
}


def metric(name: str, y_true: ArrayLike, score: ArrayLike, *, cut: float = 0.5) -> float:
    """Compute one metric of one set.

    Parameters
    ----------
    name : str
        A key of `METRICS`.
    y_true : array-like of 0 and 1, shape (n,)
    score : array-like of float, shape (n,)
    cut : float
        At or above this score an entry is called active (F1, balanced accuracies, kappa).

    Returns
    -------
    float
        NaN where a class is absent.

    Raises
    ------
    ConfigError, LabelError, ShapeError
        If the metric is unknown, labels are not 0 or 1, or lengths differ.

    Examples
    --------
    >>> metric("auroc", [0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    if name not in METRICS:
        raise ConfigError(f"Metric '{name}' is not known. {nearest(name, METRICS)}")
    y, score = np.asarray(y_true), np.asarray(score)
    if y.ndim != 1 or y.shape != score.shape:
        raise ShapeError(f"Labels of shape {y.shape} and scores of shape {score.shape} must be two equal lists.")
    if not np.isin(y, (0, 1)).all():
        raise LabelError("Labels must be 0 (inactive) or 1 (active); leave unmeasured entries out.")
    none = np.zeros(len(y), np.int32)
    compound = np.arange(len(y), dtype=np.int32)
    return float(METRICS[name](Entries(none, none, y.astype(bool), score, compound, [""], np.array([cut])), "task")[0])


def mean_over_folds(values: Values, *, undefined: float = np.nan) -> Values:
    """Average a metric over folds: the rule of Simm 2018 for a task's AUROC.

    Parameters
    ----------
    values : float64 array, shape (T, K)
        NaN where a fold lacks a class.
    undefined : float
        NaN leaves undefined folds out. A number counts them as that: some published results take
        0.5, which pulls tasks with few labels towards chance.

    Returns
    -------
    float64 array, shape (T,)
        NaN for a task that is defined in no fold, unless `undefined` is a number.
    """
    values = np.where(np.isnan(values), undefined, values)
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(1), defined.sum(1))


def _ratio(above: NDArray[np.number], below: NDArray[np.number]) -> Values:
    """``above / below``, NaN where `below` is 0 or either is NaN."""
    out = np.full(np.shape(above), np.nan)
    return np.divide(above, below, out=out, where=below != 0)


def _active_share(entries: Entries, groups: Groups) -> Values:
    """Active share of every segment, NaN where it is empty."""
    active, inactive = entries.counts(groups)
    return _ratio(active, active + inactive)


def _confusion(entries: Entries, groups: Groups) -> tuple[Values, Values, Values, Values]:
    """Count true negatives, false positives, false negatives, true positives; NaN where a class is absent."""
    # Compared in the precision of the scores, so that a float32 score can reach a cut it stands for.
    called = entries.score >= entries.cut.astype(entries.score.dtype)[entries.task]
    shape = entries.shape(groups)
    cell = entries.segment(groups) * 4 + 2 * entries.y + called
    table = np.bincount(cell, minlength=4 * int(np.prod(shape))).reshape(*shape, 4).astype(np.float64)
    known = ~np.isnan(entries.cut) if groups == "task" else ~np.isnan(entries.cut)[:, None]
    table[~((table[..., :2].sum(-1) > 0) & (table[..., 2:].sum(-1) > 0) & known)] = np.nan
    return table[..., 0], table[..., 1], table[..., 2], table[..., 3]
