"""Read what the lab measured and find the imaged compounds it belongs to, as labels are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from phenohit.config import ActivitySource, LabelsConfig
from phenohit.data.columns import parse_numbers
from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.data.tables import TableFile, as_text
from phenohit.errors import ColumnError, ConfigError, nearest, some

__all__ = ["Columns", "Results", "reaches", "read_results"]

STAGE = "review results"
# What columns are usually called, compared without capitals, spaces and underscores; the first that is there.
_ID = ("compoundid", "compound", "id", "compoundname", "molecule", "sampleid", "name")
_SMILES = ("smiles", "canonicalsmiles", "structure")
_INCHIKEY = ("inchikey",)
_VALUE = ("outcome", "active", "activity", "hit", "result", "value", "pic50", "pchembl", "pchemblvalue")
_TASK = ("task",)


@dataclass
class Columns:
    """Which columns of the results hold what; '' looks for a usual name.

    Parameters
    ----------
    id, smiles, inchikey : str
        Name the compound.
    value : str
        Active or inactive (also 0/1, true/false), or a number.
    """

    id: str = ""
    smiles: str = ""
    inchikey: str = ""
    value: str = ""


@dataclass(frozen=True, eq=False)
class Results:
    """What was measured, per imaged compound.

    Attributes
    ----------
    outcome : float array, shape (N,)
        1 active, 0 inactive, NaN not measured (or contradictory); aligned with the compounds.
    value : float32 array, shape (N,)
        The mean value where numbers were measured, else NaN.
    threshold : float
        At or above it a value is active; NaN for outcomes.
    matched : dict of str to int
        Compounds of the table by how they were found: id, inchikey, skeleton, unmatched.
    columns : Columns
        As used.
    dropped : DataFrame
        Every row and compound that could not be used, with the reason.
    """

    outcome: np.ndarray
    value: np.ndarray
    threshold: float
    matched: dict[str, int]
    columns: Columns
    dropped: pd.DataFrame


def read_results(
    path: str,
    task: str,
    compounds: pd.DataFrame,
    *,
    columns: Columns | None = None,
    threshold: float | None = None,
    task_threshold: float = float("nan"),
    join: str = "skeleton",
    jobs: int = 1,
) -> Results:
    """Read a table of results for one task.

    Parameters
    ----------
    path : str
        CSV, TSV or Parquet. With a column ``task``, only rows of this task are used.
    task : str
    compounds : DataFrame, N rows
        The imaged compounds of the run.
    columns : Columns, optional
    threshold : float, optional
        At or above it a number is active; default: the task's own.
    task_threshold : float
        The task's own threshold, NaN where it has none.
    join : {'skeleton', 'key'}
        As ``labels.join``.
    jobs : int

    Returns
    -------
    Results

    Raises
    ------
    FileError, ColumnError, LabelError, StructureError
        If the table does not hold what is needed, an entry is impossible, or no compound was imaged.
    ConfigError
        If numbers were measured and no threshold is known.
    """
    from phenohit.labels.curate import read_activities, to_labels
    from phenohit.labels.join import join as join_labels

    table = TableFile(path, None)
    used, by_task = _columns(table, columns or Columns())
    numbers = _are_numbers(table, used.value)
    level = (task_threshold if threshold is None else threshold) if numbers else float("nan")
    if numbers and np.isnan(level):
        raise ConfigError(
            f"Column '{used.value}' of '{path}' holds numbers, and task '{task}' has no threshold. Say from which "
            "value on a compound is active: --threshold 6"
        )
    source = ActivitySource(
        path, format="long" if by_task else "wide", id=used.id, smiles=used.smiles, inchikey=used.inchikey,
        assay=by_task, value=used.value, assays=[_literal(task if by_task else used.value)],
        kind="value" if numbers else "binary",
    )  # fmt: skip
    lost = [_other_tasks(table, by_task, task)]
    activities, lost_rows = read_activities(source, jobs=jobs)
    labels, lost_repeats = to_labels(activities, thresholds=())
    # Joined as values, so that one class alone is no obstacle; a mean over several is a vote.
    values = Labels(labels.Y, labels.compounds, labels.tasks.assign(kind="value"))
    config = LabelsConfig(min_active=0, min_inactive=0, join="key" if join == "key" else "skeleton")
    joined, report, lost_join = join_labels([values], compounds, config)
    value = _dense(joined.Y)
    outcome = reaches(value, level if numbers else 0.5)
    if not numbers:
        tie = value == 0.5
        outcome[tie] = np.nan
        ids = compounds["compound_id"].astype(str).to_numpy()[tie]
        lost.append(dropped(STAGE, "compound", ids, "two measured compounds match it and contradict each other"))
    matched = {str(how): int(n) for how, n in zip(report["match"], report["n_label_compounds"], strict=True)}
    lost_all = pd.concat([*lost, lost_rows, lost_repeats, lost_join], ignore_index=True)
    lost_all.loc[lost_all["reason"] == "measured but not imaged", "reason"] = "was not imaged in this run"
    value = value if numbers else np.full(len(value), np.nan, dtype=np.float32)
    return Results(outcome, value, level, matched, used, lost_all)


def reaches(value: np.ndarray, level: float) -> np.ndarray:
    """Return 1 where a value is at or above a level, 0 where below, NaN where there is none.

    Both are compared in the precision in which values are kept, so that a measured 6.7 reaches 6.7.
    """
    return np.where(np.isnan(value), np.nan, value.astype(np.float32) >= np.float32(level))


def _dense(Y: sparse.csr_matrix) -> np.ndarray:
    """Return the only column, NaN where nothing is stored."""
    out = np.full(len(Y.indptr) - 1, np.nan, dtype=np.float32)
    entries = Y.tocoo()
    out[entries.row] = entries.data
    return out


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _find(names: Sequence[str], usual: Sequence[str]) -> str:
    by_plain = {_plain(n): n for n in reversed(names)}
    return next((by_plain[u] for u in usual if u in by_plain), "")


def _columns(table: TableFile, asked: Columns) -> tuple[Columns, str]:
    """Return the columns to use and the one that names tasks ('' where there is none)."""
    for role in ("id", "smiles", "inchikey", "value"):
        name = getattr(asked, role)
        if name and name not in table.names:
            raise ColumnError(f"'{table.path}' has no column '{name}' (--{role}). {nearest(name, table.names)}")
    found = Columns(
        asked.id or _find(table.names, _ID),
        asked.smiles or _find(table.names, _SMILES),
        asked.inchikey or _find(table.names, _INCHIKEY),
        asked.value or _find(table.names, _VALUE),
    )
    has = f"'{table.path}' has the columns {some(table.names)}."
    if not (found.id or found.smiles or found.inchikey):
        raise ColumnError(f"{has} Which one names the compound? Say --id, --smiles or --inchikey and its name.")
    if not found.value:
        raise ColumnError(f"{has} Which one holds what was measured? Say --value and its name.")
    return found, _find(table.names, _TASK)


def _are_numbers(table: TableFile, column: str) -> bool:
    """Whether a column holds measured numbers, not outcomes."""
    text = as_text(table.read([column])[column])
    numbers, words = parse_numbers(text)
    known = ~np.isnan(numbers)
    return bool(known.any() and not np.isin(numbers[known], (0.0, 1.0)).all() and known.sum() > words.sum())


def _literal(name: str) -> str:
    """Write a name so that no sign of it is a wildcard."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _other_tasks(table: TableFile, by_task: str, task: str) -> pd.DataFrame:
    """List the tasks of the table that this review is not about."""
    if not by_task:
        return dropped(STAGE, "row", [], "")
    counts = as_text(table.read([by_task])[by_task]).value_counts()
    if task not in counts.index:
        raise ColumnError(
            f"'{table.path}' has a column '{by_task}', but no row of task '{task}'. {nearest(task, counts.index)}"
        )
    others = counts[(counts.index != task) & (counts.index != "")]
    return dropped(STAGE, "row", others.index, [f"{n} rows of another task: review it with --task" for n in others])
