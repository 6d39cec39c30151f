"""Rank the imaged compounds that nobody has measured in an assay yet."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.errors import ColumnError, LabelError, ShapeError, nearest, some

__all__ = ["active_in", "candidates", "excluded", "measured_in", "same_assay"]


def same_assay(labels: Labels, task: str) -> NDArray[np.intp]:
    """Return the columns of all tasks that share the assay of `task`, itself included.

    Tasks of one assay differ only in their threshold, so a compound measured for one of them was
    measured for all. A task without an assay name stands alone.

    Raises
    ------
    LabelError
        If the task is unknown (names the nearest) or is not binary.
    """
    names = labels.task_names
    if task not in names:
        raise LabelError(f"Task '{task}' is not among the {len(names)} tasks. {nearest(task, names)}")
    column = names.index(task)
    if labels.tasks["kind"].iloc[column] == "value":
        message = (
            f"Task '{task}' holds measured values, not active or inactive, so there is nothing to rank for. "
            "Give its activity table `thresholds`, then name one of the tasks these make."
        )
        raise LabelError(message)
    assays = labels.tasks["assay"].fillna("").astype(str).to_numpy(dtype=object)
    if not assays[column].strip():
        return np.array([column])
    return np.flatnonzero(assays == assays[column])


def _rows_with(
    labels: Labels, columns: NDArray[np.intp], compounds: pd.DataFrame, *, active: bool
) -> NDArray[np.bool_]:
    """Mark the compounds that have a stored entry (or a stored 1) in any of the columns, shape (N,)."""
    wanted = np.isin(labels.Y.indices, columns)
    if active:
        wanted &= labels.Y.data > 0
    row = np.repeat(np.arange(len(labels)), np.diff(labels.Y.indptr))[wanted]
    keys = pd.Index(labels.compounds["compound"].astype(str))
    if not keys.is_unique:
        doubled = some(keys[keys.duplicated()].unique())
        raise LabelError(f"Labels must have one row per compound; these occur more than once: {doubled}.")
    return compounds["compound"].astype(str).isin(keys[np.unique(row)]).to_numpy()


def measured_in(labels: Labels, task: str, compounds: pd.DataFrame) -> NDArray[np.bool_]:
    """Mark compounds measured in any task of the assay of `task`; True where measured, shape (N,)."""
    return _rows_with(labels, same_assay(labels, task), compounds, active=False)


def active_in(labels: Labels, task: str, compounds: pd.DataFrame) -> NDArray[np.bool_]:
    """Mark compounds measured as active in `task` itself; True where active, shape (N,)."""
    same_assay(labels, task)  # for its checks
    return _rows_with(labels, np.array([labels.task_names.index(task)]), compounds, active=True)


def _checked(score: NDArray[np.floating], compounds: pd.DataFrame) -> pd.DataFrame:
    """Return the compound table with every column that a ranking needs, and the score."""
    if "compound" not in compounds:
        raise ColumnError(f"The compound table needs the column 'compound'; it has {some(compounds.columns)}.")
    if score.shape != (len(compounds),):
        raise ShapeError(f"There are {len(compounds)} compounds, but the scores have shape {score.shape}.")
    keys = compounds["compound"].astype(str)
    if not keys.is_unique:
        doubled = some(keys[keys.duplicated()].unique())
        raise ShapeError(f"Compounds occur more than once: {doubled}. Average the scores of their wells first.")

    def text(column: str, instead: object) -> pd.Series:
        if column not in compounds:
            return pd.Series(instead, index=keys.index, dtype=object)
        return compounds[column].fillna("").astype(str).astype(object)

    ids = text("compound_id", "")
    table = pd.DataFrame(
        {
            "compound": keys.astype(object),
            "compound_id": ids.where(ids != "", keys.astype(object)),
            "smiles": text("smiles", ""),
            "series": compounds["series"].astype(np.int32) if "series" in compounds else np.int32(-1),
            "scaffold": text("scaffold", ""),
            "score": np.asarray(score, dtype=np.float32),
            "row": np.arange(len(compounds)),
        }
    )
    return table.reset_index(drop=True)


def candidates(labels: Labels, task: str, score: NDArray[np.floating], compounds: pd.DataFrame) -> pd.DataFrame:
    """Rank the compounds that have a score and no measurement in the assay of `task`.

    Parameters
    ----------
    labels : Labels
        One row per compound; matched to `compounds` by key. A compound without a row counts as
        unmeasured.
    task : str
        A binary task of `labels`.
    score : float array, shape (N,)
        Predicted activity in `task`, aligned with `compounds`; higher is more active. NaN: no score.
    compounds : DataFrame, N rows
        Column ``compound`` (unique); optionally ``compound_id``, ``smiles``, ``series``, ``scaffold``.

    Returns
    -------
    DataFrame
        Best first, columns ``rank`` (1 = best), ``compound``, ``compound_id``, ``smiles``, ``series``
        (-1: unknown), ``scaffold``, ``score`` (float32), ``percentile`` and ``row`` (position in
        `compounds`). ``percentile`` is the share of candidates, in percent, that score strictly
        lower, so tied compounds share it; their rank follows the compound key, whatever the order
        of the input.

    Raises
    ------
    LabelError, ShapeError, ColumnError
        If the task is unknown or not binary, or the parts do not fit.

    Notes
    -----
    Simm et al. 2018 rank the imaged compounds that were not in the original screen. Tasks that
    differ only in their threshold share one assay, so a measurement in any of them excludes.
    """
    table = _checked(np.asarray(score), compounds)
    free = ~measured_in(labels, task, table) & np.isfinite(table["score"].to_numpy())
    table = table[free].sort_values(["score", "compound"], ascending=[False, True], ignore_index=True)
    values = table["score"].to_numpy()
    below = np.searchsorted(values[::-1], values, side="left")
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    table.insert(7, "percentile", 100.0 * below / max(len(table), 1))
    return table


def excluded(labels: Labels, task: str, score: NDArray[np.floating], compounds: pd.DataFrame) -> pd.DataFrame:
    """List the compounds that `candidates` leaves out, with the reason (see `data.dropped`)."""
    table = _checked(np.asarray(score), compounds)
    measured = measured_in(labels, task, table)
    unscored = ~measured & ~np.isfinite(table["score"].to_numpy())
    assay = labels.tasks["assay"].iloc[labels.task_names.index(task)]
    reasons = np.where(measured, f"already measured in assay '{assay}'", "has no finite score")
    out = measured | unscored
    ids = table["compound_id"].to_numpy()
    return dropped(f"rank hits for {task}", "compound", ids[out], reasons[out])
