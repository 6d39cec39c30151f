"""Off-targets: activities that a hit must not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.hits.rank import same_assay

if TYPE_CHECKING:
    from phenohit.data.labels import Labels
    from phenohit.hits.filter import Evidence

__all__ = ["highest", "off_targets"]


def _measured(labels: Labels | None, tasks: list[str], compounds: pd.Series) -> NDArray[np.float32]:
    """Return measured labels of the compounds in the tasks, shape (N, T); NaN where not measured."""
    out = np.full((len(compounds), len(tasks)), np.nan, dtype=np.float32)
    if labels is None:
        return out
    at = pd.Index(labels.compounds["compound"].astype(str)).get_indexer(pd.Index(compounds.astype(str)))
    names = labels.task_names
    known = np.flatnonzero(at >= 0)
    for column, task in enumerate(tasks):
        if task in names:
            Y = labels.Y[:, [names.index(task)]].tocoo()
            dense = np.full(len(labels), np.nan, dtype=np.float32)
            dense[Y.row] = Y.data
            out[known, column] = dense[at[known]]
    return out


def _scores(table: pd.DataFrame, evidence: Evidence) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    """Return the off-target tasks, what is predicted and what is measured in them, each (N, T)."""
    scores = evidence.off_scores
    tasks = [] if scores is None else [str(c) for c in scores.columns]
    if evidence.labels is not None and evidence.task:  # a task is no off-target of its own assay
        names = evidence.labels.task_names
        own = {names[i] for i in same_assay(evidence.labels, evidence.task)}
        tasks = [t for t in tasks if t not in own]
    if scores is None or not tasks:
        return [], *(np.zeros((len(table), 0), dtype=np.float32),) * 2
    predicted = scores[tasks].reindex(table["compound"].astype(str)).to_numpy(np.float32)
    return tasks, predicted, _measured(evidence.labels, tasks, table["compound"])


def off_targets(table: pd.DataFrame, evidence: Evidence) -> NDArray[np.object_]:
    """Say in which off-target tasks each candidate is active, shape (N,).

    A measurement outweighs a prediction: measured active rejects whatever the score, measured inactive
    passes whatever the score.
    """
    tasks, predicted, measured = _scores(table, evidence)
    out = np.full(len(table), "", dtype=object)
    bad = np.where(np.isnan(measured), predicted > evidence.off_target_max, measured > 0)
    for i in np.flatnonzero(bad.any(axis=1)):
        out[i] = "; ".join(
            f"{tasks[j]} measured active" if measured[i, j] > 0 else f"{tasks[j]} score {predicted[i, j]:.2f}"
            for j in np.flatnonzero(bad[i])
        )
    return out


def highest(table: pd.DataFrame, evidence: Evidence) -> NDArray[np.float32]:
    """Return each candidate's highest predicted off-target score, shape (N,); NaN where there is none."""
    _, predicted, _ = _scores(table, evidence)
    if not predicted.shape[1]:
        return np.full(len(table), np.nan, dtype=np.float32)
    return np.nanmax(np.where(np.isnan(predicted), -np.inf, predicted), axis=1, initial=-np.inf).astype(np.float32)
