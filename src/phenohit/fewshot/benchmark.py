"""Every method on the same episodes: scores of every episode, and what they come to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.evaluate.compare import compare, holm
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS
from phenohit.fewshot.contract import Method, check_scores
from phenohit.fewshot.episodes import Episodes

__all__ = ["SHOWN", "compare_sizes", "episode_metrics", "gains", "score_episodes", "summary", "task_means"]

SHOWN = ("auroc", "delta_auprc", "f1", "balanced_accuracy", "kappa")  # Ha's thesis, chapter 2
_REPLICATES = 2000  # resamples of tasks or episodes


def score_episodes(
    method: Method, data: Any, episodes: Sequence[Episodes], *, seed: int, jobs: int
) -> tuple[pd.DataFrame, dict[int, float]]:
    """Score all episodes with a method that has been pretrained.

    Parameters
    ----------
    method : Method
    data : Profiles or ImageRows, N rows
    episodes : sequence of Episodes
    seed, jobs : int

    Returns
    -------
    metrics : DataFrame
        From `episode_metrics`.
    seconds : dict of int to float
        By support size.

    Raises
    ------
    ShapeError
        If scores are calls or no probabilities.
    """
    tables, seconds = [], {}
    for size in sorted({one.size for one in episodes}):
        part = [one for one in episodes if one.size == size]
        start = time.perf_counter()
        scores = method.score(data, part, seed=seed, jobs=jobs)
        seconds[size] = time.perf_counter() - start
        check_scores(method.name, scores, part)
        tables.append(episode_metrics(part, scores))
    return pd.concat(tables, ignore_index=True), seconds


def episode_metrics(episodes: Sequence[Episodes], scores: Sequence[NDArray[np.floating]]) -> pd.DataFrame:
    """Compute the metrics of every episode.

    Parameters
    ----------
    episodes : sequence of Episodes
    scores : sequence of float array, shape (E, Q)

    Returns
    -------
    DataFrame, one row per episode
        ``task, size, episode`` and the metrics of `SHOWN`; balanced accuracy is the plain mean of both classes.
    """
    shapes = [one.query.shape for one in episodes]
    part = np.repeat(np.arange(len(episodes)), [E * Q for E, Q in shapes]).astype(np.int32)
    number = np.concatenate([np.repeat(np.arange(E), Q) for E, Q in shapes]).astype(np.int32)
    entries = Entries(
        part, number, np.concatenate([one.y_query.ravel() for one in episodes]),
        np.concatenate([s.ravel() for s in scores]), np.concatenate([one.query.ravel() for one in episodes]),
        [f"{one.task} {one.size}" for one in episodes], np.full(len(episodes), 0.5),
    )  # fmt: skip
    tables = []
    values = {name: METRICS[name](entries, "fold") for name in SHOWN}
    for i, one in enumerate(episodes):
        table = pd.DataFrame({"task": one.task, "size": one.size, "episode": np.arange(len(one))})
        tables.append(table.assign(**{name: v[i, : len(one)] for name, v in values.items()}))
    return pd.concat(tables, ignore_index=True)


def task_means(metrics: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Average every task over its episodes.

    Parameters
    ----------
    metrics : mapping of method to DataFrame
        From `episode_metrics`.

    Returns
    -------
    DataFrame
        ``method, task, size``, the metrics, and ``every_size`` (bool: the task was drawn at every support size).
    """
    tables = [t.groupby(["task", "size"], sort=False)[list(SHOWN)].mean().reset_index() for t in metrics.values()]
    table = pd.concat([t.assign(method=m) for m, t in zip(metrics, tables, strict=True)], ignore_index=True)
    n_sizes = table.groupby("task")["size"].transform("nunique")
    table["every_size"] = n_sizes == table["size"].nunique()
    return table[["method", "task", "size", *SHOWN, "every_size"]]


def summary(means: pd.DataFrame, *, seed: int, confidence: float = 0.95) -> pd.DataFrame:
    """Average over tasks, with intervals from resampled tasks.

    Parameters
    ----------
    means : DataFrame
        From `task_means`.
    seed : int
    confidence : float

    Returns
    -------
    DataFrame
        ``method, size, tasks`` ('all' that were drawn at this size, or those drawn at 'every size', which alone can be
        compared between sizes), ``n_tasks``, and per metric its mean, ``_sd`` over tasks, ``_low`` and ``_high``.

    Notes
    -----
    All methods are resampled with the same tasks. The interval tells how far the mean would move with other tasks of
    the kind, not with other episodes.
    """
    rows = []
    for which, table in (("all", means), ("every size", means[means["every_size"]])):
        for size, part in table.groupby("size"):
            wide = part.pivot(index="task", columns="method", values=list(SHOWN))
            n = len(wide)
            draws = np.random.default_rng([seed, int(size)]).integers(0, n, (_REPLICATES, n))  # type: ignore[call-overload]
            for method in pd.unique(part["method"]):
                row: dict[str, Any] = {"method": method, "size": size, "tasks": which, "n_tasks": n}
                for name in SHOWN:
                    values = wide[(name, method)].to_numpy(np.float64)
                    low, high = np.nanquantile(np.nanmean(values[draws], axis=1), _tails(confidence))
                    spread = np.nanstd(values, ddof=1) if n > 1 else np.nan
                    row |= {name: np.nanmean(values), f"{name}_sd": spread, f"{name}_low": low, f"{name}_high": high}
                rows.append(row)
    return pd.DataFrame(rows)


def _tails(confidence: float) -> list[float]:
    return [(1 - confidence) / 2, (1 + confidence) / 2]


def compare_sizes(means: pd.DataFrame, *, columns: Sequence[str] = ("auroc", "delta_auprc")) -> pd.DataFrame:
    """Compare every pair of methods at every support size by paired Wilcoxon tests over tasks.

    Returns
    -------
    DataFrame
        As `phenohit.evaluate.compare.compare`, with ``size`` and ``metric``; Holm's correction is within both.
    """
    tables = []
    for metric in columns:
        for size, part in means.groupby("size"):
            by_method = {m: t[["task", metric]] for m, t in part.groupby("method", sort=False)}
            tables.append(compare(by_method, column=metric).assign(size=size, metric=metric))
    return pd.concat(tables, ignore_index=True)


def gains(metrics: Mapping[str, pd.DataFrame], reference: str, *, column: str = "auroc") -> pd.DataFrame:
    """Tell which tasks gain or lose by a method, against another on the same episodes.

    Parameters
    ----------
    metrics : mapping of method to DataFrame
        From `episode_metrics`.
    reference : str
        Method compared with, e.g. a network that saw no other assay.
    column : str

    Returns
    -------
    DataFrame
        ``method, reference, task, size, gain`` (mean difference over episodes), ``low, high`` (95 %, of the mean over
        episodes), ``p_value`` (two-sided, normal), ``p_holm`` (over the tasks of a method and size).

    Notes
    -----
    Episodes of a task share compounds: the interval tells how sure the mean over draws from these compounds is, and
    nothing about other compounds.
    """
    from scipy.stats import norm

    keys = ["task", "size", "episode"]
    base = metrics[reference].set_index(keys)[column]
    rows = []
    for method, table in metrics.items():
        if method == reference:
            continue
        ahead = (table.set_index(keys)[column] - base).groupby(level=["task", "size"], sort=False)
        part = pd.DataFrame({"gain": ahead.mean(), "error": ahead.sem()}).reset_index()
        rows.append(part.assign(method=method, reference=reference))
    columns = ["method", "reference", "task", "size", "gain", "low", "high", "p_value", "p_holm"]
    if not rows:
        return pd.DataFrame(columns=columns)
    table = pd.concat(rows, ignore_index=True)
    error = table["error"].where(table["error"] > 0)
    table["low"], table["high"] = table["gain"] - 1.96 * error, table["gain"] + 1.96 * error
    table["p_value"] = 2 * norm.sf((table["gain"] / error).abs())
    corrected = table.groupby(["method", "size"])["p_value"].transform(lambda p: holm(p.to_numpy(np.float64)))
    return table.assign(p_holm=corrected)[columns]
