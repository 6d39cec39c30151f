"""Are two methods' ROC curves the same? Venkatraman and Begg's paired permutation test, task by task.

The area under a curve can be equal where the curves are not. This test compares them at every cut-off: two rankings of
the same compounds are called at rank k, the errors of both are counted, and the differences are summed over all k.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from phenohit.errors import ConfigError, LabelError, ShapeError, some
from phenohit.evaluate.compare import holm
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS, mean_over_folds
from phenohit.evaluate.replay import shared_entries
from phenohit.evaluate.roc_loops import sum_between
from phenohit.evaluate.seeds import task_stream
from phenohit.progress import track

__all__ = ["VERDICTS", "RocTest", "roc_test", "roc_tests", "verdicts"]

VERDICTS = ("better", "worse", "same", "undefined")

_CELLS = 1_000_000  # ranks permuted at a time


class RocTest(NamedTuple):
    """Statistic and p-value; NaN where a class is absent."""

    statistic: float
    p_value: float


def roc_test(
    y_true: ArrayLike,
    score_a: ArrayLike,
    score_b: ArrayLike,
    *,
    permutations: int = 2000,
    seed: int = 0,
    plus_one: bool = True,
) -> RocTest:
    """Test whether two scores of the same compounds have the same ROC curve.

    Parameters
    ----------
    y_true : array-like of 0 and 1, shape (n,)
    score_a, score_b : array-like of float, shape (n,)
        Higher means more active. Only their order matters.
    permutations : int
        Hofmarcher 2019: 2,000.
    seed : int
    plus_one : bool
        p = (c + 1) / (permutations + 1), where c permutations reach the statistic: valid, and never 0. False gives
        c / permutations, as published and as in R's pROC.

    Returns
    -------
    RocTest
        ``statistic`` is the sum over k = 1 .. n of the absolute difference in errors (actives ranked at most k plus
        inactives ranked above k, ranks from 1 for the lowest score): a whole number, twice the area between the curves
        times actives times inactives, hence at least that multiple of the difference in AUROC. ``p_value`` is
        two-sided: which curve is higher is not asked.

    Raises
    ------
    ShapeError
        If lengths differ or a score is NaN.
    LabelError
        If labels are not 0 or 1.
    ConfigError
        If `permutations` is below 1.

    Notes
    -----
    Venkatraman and Begg 1996, Biometrika 83, 835-848. A permutation tosses a coin for every compound and swaps its two
    ranks on heads; then each side is ranked anew, equal ranks in random order. Equal scores get ranks in one random
    order, the same for both sides, so that equal rankings have statistic 0 and p = 1. With many equal scores
    the statistic depends on that order, hence on the seed.

    Examples
    --------
    >>> roc_test([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], seed=1).statistic
    8.0
    """
    y, a, b = np.asarray(y_true), np.asarray(score_a), np.asarray(score_b)
    if y.ndim != 1 or not y.shape == a.shape == b.shape:
        raise ShapeError(
            f"Labels of shape {y.shape} and scores of shapes {a.shape} and {b.shape} must be three equal lists."
        )
    if not np.isin(y, (0, 1)).all():
        raise LabelError("Labels must be 0 (inactive) or 1 (active); leave unmeasured entries out.")
    _check_permutations(permutations)
    stream = np.random.default_rng(seed)
    return _tested(y.astype(bool), a, b, np.zeros(len(y), np.int32), permutations, stream, plus_one)


def roc_tests(
    entries_a: Entries,
    entries_b: Entries,
    *,
    permutations: int = 2000,
    seed: int = 0,
    plus_one: bool = True,
    most: int | None = None,
    title: str = "ROC curves",
) -> pd.DataFrame:
    """Test for every task whether two methods have the same ROC curve.

    Parameters
    ----------
    entries_a, entries_b : Entries
        Of the same labels. Compared on the entries (task, fold, compound) that both score.
    permutations, plus_one
        As in `roc_test`.
    seed : int
        A task's p depends on this, its name and its entries alone.
    most : int, optional
        Of a task with more entries this many are drawn at random for the test, half of each class where there are as
        many; its AUROCs are of all.
    title : str
        Shown with the progress.

    Returns
    -------
    DataFrame, T rows in the order of the tasks
        ``task``; ``n_active, n_inactive`` compared; ``n_tested`` of them drawn for the test; ``only_a, only_b``
        entries left out because only one method scores them; ``auroc_a, auroc_b`` on the entries compared, mean over
        folds, and ``difference`` a - b; ``statistic``, ``p_value``, and ``p_holm`` corrected over the tasks. NaN where
        no fold has both classes.

    Raises
    ------
    ShapeError
        If the two are of different tasks, or a score is NaN.
    LabelError
        If the two do not agree on a label.
    ConfigError
        If `permutations` is below 1.

    Notes
    -----
    Scores of different folds are not on one scale: ranks are formed within each fold and the statistic is summed over
    folds. Compounds held out in several folds are taken as independent there, which makes p somewhat too small; give
    one split at a time, as Hofmarcher 2019 did.
    """
    _check_permutations(permutations)
    if entries_a.tasks != entries_b.tasks:
        raise ShapeError("Two methods can only be compared on the same tasks; these are of different labels.")
    at, other = shared_entries(entries_a, entries_b)  # in the order of task, fold and compound
    a, b = entries_a.take(at), entries_b.take(other)
    differ = np.flatnonzero(a.y != b.y)
    if len(differ):
        names = [a.tasks[t] for t in np.unique(a.task[differ])]
        raise LabelError(
            f"{len(differ)} labels differ between the two methods, in tasks {some(names, 3)}. "
            "Score both methods on the same labels."
        )
    T = len(a.tasks)
    start = np.searchsorted(a.task, np.arange(T + 1))
    result, n_tested = np.full((T, 2), np.nan), np.diff(start)
    for t in track(range(T), title):
        rows = np.arange(start[t], start[t + 1])
        if most is not None and len(rows) > most:
            rows = rows[_sampled(a.y[rows], most, task_stream(seed, a.tasks[t], "roc sample"))]
            n_tested[t] = most
        stream = task_stream(seed, a.tasks[t], "roc test")
        result[t] = _tested(a.y[rows], a.score[rows], b.score[rows], a.fold[rows], permutations, stream, plus_one)
    auroc_a, auroc_b = (mean_over_folds(METRICS["auroc"](e, "fold")) for e in (a, b))
    n_active, n_inactive = a.counts("task")
    return pd.DataFrame(
        {
            "task": a.tasks,
            "n_active": n_active,
            "n_inactive": n_inactive,
            "n_tested": n_tested,
            "only_a": np.bincount(entries_a.task, minlength=T) - np.diff(start),
            "only_b": np.bincount(entries_b.task, minlength=T) - np.diff(start),
            "auroc_a": auroc_a,
            "auroc_b": auroc_b,
            "difference": auroc_a - auroc_b,
            "statistic": result[:, 0],
            "p_value": result[:, 1],
            "p_holm": holm(result[:, 1]),
        }
    )


def verdicts(tests: pd.DataFrame, *, alpha: float = 0.05, column: str = "p_value") -> pd.Series:
    """Say of every task which method is significantly better: ``value_counts()`` of it gives the published counts.

    Parameters
    ----------
    tests : DataFrame
        What `roc_tests` gave.
    alpha : float
        Curves differ at or below this p. Hofmarcher 2019 does not state the level of its Figure 4 (29 better, 3
        worse); its Table 2 is read at 0.01.
    column : {'p_value', 'p_holm'}

    Returns
    -------
    Series of categories `VERDICTS`, shape (T,)
        'better' and 'worse' are about method a and follow the difference in AUROC. 'same' is not significant, or
        different curves with one and the same area.
    """
    p, difference = tests[column].to_numpy(np.float64), tests["difference"].to_numpy(np.float64)
    apart = p <= alpha
    found = np.select(
        [np.isnan(p), apart & (difference > 0), apart & (difference < 0)], ["undefined", "better", "worse"], "same"
    )
    return pd.Series(pd.Categorical(found, categories=VERDICTS), index=tests.index, name="verdict")


def _check_permutations(permutations: int) -> None:
    if permutations < 1:
        raise ConfigError(f"The number of permutations is {permutations}, but must be at least 1; 2,000 are usual.")


def _sampled(y: NDArray[np.bool_], most: int, stream: np.random.Generator) -> NDArray[np.intp]:
    """Draw at most so many entries, half of each class where there are as many; ascending.

    A ROC curve does not depend on how many there are of each class, and the rarer class says most about it.
    """
    few, many = sorted((np.flatnonzero(y), np.flatnonzero(~y)), key=len)
    n_few = min(len(few), most // 2)
    drawn = [stream.choice(at, n, replace=False) for at, n in ((few, n_few), (many, most - n_few))]
    return np.sort(np.concatenate(drawn))


def _tested(
    y: NDArray[np.bool_],
    a: NDArray[np.number],
    b: NDArray[np.number],
    fold: NDArray[np.integer],
    permutations: int,
    stream: np.random.Generator,
    plus_one: bool,
) -> RocTest:
    """Test one task; ranks are formed within folds and the statistic is summed over them."""
    for score in (a, b):
        bad = np.flatnonzero(np.isnan(score))
        if len(bad):
            raise ShapeError(f"Scores must be numbers; they are NaN at {some(bad.tolist())}. Leave such entries out.")
    if not len(np.intersect1d(fold[y], fold[~y])):
        return RocTest(np.nan, np.nan)
    # Ranked fold after fold: the lines of errors meet at the end of every fold, so that one sum is the sum over folds.
    tie = stream.permutation(len(y))
    by_a = np.lexsort((tie, a, fold))
    y = y[by_a]
    by_b = np.lexsort((tie[by_a], b[by_a], fold[by_a]))
    statistic = int(_between(y[None], y[by_b][None])[0])
    step = max(1, _CELLS // len(y))
    reached = 0
    for done in range(0, permutations, step):
        shape = (min(step, permutations - done), len(y))
        permuted = _permuted(y, by_b, _coins(shape, stream), _coins(shape, stream))
        reached += int((permuted >= statistic).sum())
    return RocTest(float(statistic), (reached + plus_one) / (permutations + plus_one))


def _permuted(
    y: NDArray[np.bool_], by_b: NDArray[np.intp], swap: NDArray[np.bool_], tie: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Statistics after swaps.

    Parameters
    ----------
    y : bool array, shape (n,)
        Labels in ascending order of the first ranking.
    by_b : int array, shape (n,)
        Compounds (numbered in that order) in ascending order of the second ranking.
    swap : bool array, shape (B, n)
        Whether the ranks of a compound change sides.
    tie : bool array, shape (B, n)
        How compounds that come to share a rank r on one side are ordered.

    Notes
    -----
    Rank r is held by one compound on either side. Swapping moves holders between sides, so that a side has none, one or
    two of rank r: ranking anew means closing up the 2 n places in order, and nothing is sorted.
    """
    found = np.empty(len(swap), np.int64)
    sum_between(y.view(np.uint8), by_b, swap.view(np.uint8), tie.view(np.uint8), found)
    return found


def _between(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Sum of absolute differences in errors over all cut-offs, of labels (B, n) in ascending order of two ranks.

    With A actives up to rank k, the errors are A missed actives and (inactives - (k - A)) false alarms: 2 A plus what
    is the same for both.
    """
    ahead = np.cumsum(first.view(np.int8) - second.view(np.int8), axis=1, dtype=np.int32)
    return 2 * np.abs(ahead, out=ahead).sum(1, dtype=np.int64)


def _coins(shape: tuple[int, int], stream: np.random.Generator) -> NDArray[np.bool_]:
    """Fair coins, one bit each."""
    n = shape[0] * shape[1]
    return np.unpackbits(np.frombuffer(stream.bytes(-(-n // 8)), np.uint8), count=n).reshape(shape).view(bool)
