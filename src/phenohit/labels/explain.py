"""Say why a compound has the label it has in a task, or why it has none, down to the rows of the source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from phenohit.data.labels import Labels
from phenohit.errors import FileError, LabelError, nearest
from phenohit.files import read_table
from phenohit.labels.join import matches
from phenohit.labels.rules import REASONS

__all__ = ["explain", "records_of"]

_SHOWN = ["compound", "matched", "record", "row", "type", "relation", "value", "units", "pchembl", "comment",
          "validity", "fate", "used", "vote"]  # fmt: skip
_MOST = 40  # records printed


def explain(path: str | Path, question: str, *, skeleton: bool = True) -> str:
    """Answer ``COMPOUND in TASK``.

    Parameters
    ----------
    path : path
        ``labels.parquet`` of a run folder; the tables written beside it are read too.
    question : str
        The compound by id or InChIKey; the task, or an assay for all its tasks.
    skeleton : bool
        Whether labels were also joined by the first block of the InChIKey.

    Returns
    -------
    str
        Label, rule and records, a line each.

    Raises
    ------
    LabelError
        If the question has another form, or no imaged compound is called so.
    FileError
        If the tables are not there.
    """
    path = Path(path)
    labels = Labels.load(path)
    row, name, task = _ask(labels.compounds, question)
    found = records_of(path, labels.compounds, row, skeleton=skeleton)
    tasks, assay = _tasks(labels, found, task)
    lines = [f"{labels.compounds['compound_id'].iloc[row] or name} ({labels.compounds['compound'].iloc[row]})"]
    for t in tasks:
        cell = labels.Y[row, [t]]
        told = "not measured" if not cell.nnz else f"{cell.data[0]:g}"
        kind, value = labels.tasks["kind"].iloc[t], float(cell.data[0]) if cell.nnz else np.nan
        if cell.nnz and kind != "value":
            told = "active" if value else "inactive"
        lines.append(f"  {labels.tasks['task'].iloc[t]}: {told}")
    if not tasks:
        lines.append(f"  no task of '{task}' is left: see {path.with_name('dropped')}/labels.csv for why")
    here = found[found["assay"] == assay]
    lines += _story(here)
    others = found["assay"].nunique() - (len(here) > 0)
    lines.append(f"  records of this compound in other assays: {len(found) - len(here)} in {others} assays")
    return "\n".join(lines)


def _ask(compounds: pd.DataFrame, question: str) -> tuple[int, str, str]:
    """Split the question at the ' in ' before which a compound stands."""
    names = pd.concat([compounds["compound"], compounds["compound_id"].astype(str).str.split(";").explode(),
                       compounds["compound_id"].astype(str)])  # fmt: skip
    names = names[names != ""]
    pieces = question.split(" in ")
    if len(pieces) < 2:
        raise LabelError(f"'{question}' is no question of the form \"COMPOUND in TASK\".")
    for k in range(1, len(pieces)):
        name, task = " in ".join(pieces[:k]).strip(), " in ".join(pieces[k:]).strip()
        hit = names.index[names == name]
        if len(hit):
            return int(hit[0]), name, task
    raise LabelError(f"No imaged compound is called '{pieces[0]}'. {nearest(pieces[0], names.unique()[:200_000])}")


def _tasks(labels: Labels, found: pd.DataFrame, asked: str) -> tuple[list[int], str]:
    """Return the tasks that are asked for, and their assay."""
    tasks = labels.tasks
    hit = np.flatnonzero((tasks["task"] == asked).to_numpy())
    if len(hit):
        return hit.tolist(), str(tasks["assay"].iloc[hit[0]])
    hit = np.flatnonzero((tasks["assay"] == asked).to_numpy())
    if len(hit):
        return hit.tolist(), asked
    # A task that was left out: its assay may still have records.
    stem = asked.rsplit(" >= ", 1)[0].removesuffix(" comment")
    known = {*tasks["task"], *tasks["assay"], *found["assay"]}
    if stem not in known:
        raise LabelError(f"There is no task or assay '{asked}'. {nearest(asked, sorted(known))}")
    return np.flatnonzero((tasks["assay"] == stem).to_numpy()).tolist(), stem


def _story(records: pd.DataFrame) -> list[str]:
    """Tell what the records of one compound in one assay amount to."""
    if not len(records):
        return ["  no record of this compound in this assay: it was never measured there"]
    lines = []
    for name, part in records.groupby(["source", "compound"], sort=False):
        exact = part["used"][part["fate"].isin(["value", "value and comment"])]
        votes = part["vote"][part["vote"] >= 0]
        bounds = part["fate"].str.startswith("bound").sum()
        how = [f"matched by {part['matched'].iloc[0]}"]
        if len(exact) > 0:
            spread = f", from {exact.min():g} to {exact.max():g}" if len(exact) > 1 else ""
            how.append(f"mean of {len(exact)} exact value{'s' if len(exact) > 1 else ''}: {exact.mean():.4g}{spread}")
        if bounds:
            how.append(f"{bounds} bound{'s' if bounds > 1 else ''} put to the vote")
        if len(votes):
            how.append(f"{int((votes == 1).sum())} of {len(votes)} votes say active")
        if not (len(exact) or bounds or len(votes)):
            how.append("nothing that can be used")
        lines.append(f"  {', '.join(map(str, name))}: {'; '.join(how)}")
    for fate, n in records["fate"].value_counts().items():
        lines.append(f"    {n} x {fate}: {REASONS.get(str(fate), '')}")
    shown = records[_SHOWN].head(_MOST).copy()
    shown["vote"] = shown["vote"].map({1: "active", 0: "inactive"}).fillna("")
    nothing = shown.isna() | (shown == "") | (shown == -1)
    shown = shown.loc[:, ~nothing.all(axis=0).to_numpy()]
    lines += ["    " + line for line in shown.to_string(index=False, na_rep="").splitlines()]
    if len(records) > _MOST:
        lines.append(f"    ... and {len(records) - _MOST} more records")
    return lines


def records_of(path: str | Path, compounds: pd.DataFrame, row: int, *, skeleton: bool = True) -> pd.DataFrame:
    """Return all records of an imaged compound, whatever became of them.

    Parameters
    ----------
    path : path
        ``labels.parquet``.
    compounds : DataFrame
        ``compound``, ``compound_id``, ``inchikey``, ``skeleton`` of all imaged compounds.
    row : int
        The one that is asked for.
    skeleton : bool
        Whether the first block of the InChIKey counts.

    Returns
    -------
    DataFrame
        The columns of `phenohit.labels.trace.COLUMNS` and ``matched`` (id, inchikey or skeleton). Only the row
        groups that may hold the compound are read.
    """
    file = Path(path).with_suffix(".records.parquet")
    if not file.exists():
        raise FileError(f"'{file}' does not exist: run `phenohit labels` again to write it.")
    known, _ = read_table(file.with_suffix(".compounds.parquet"))
    how = matches(known, compounds.reset_index(drop=True), row, skeleton=skeleton)
    rows = np.flatnonzero(how != "")
    with pq.ParquetFile(file) as parquet:
        groups = [g for g in range(parquet.num_row_groups) if _may_hold(parquet.metadata.row_group(g), rows)]
        table = parquet.read_row_groups(groups).to_pandas()
    table = table[table["compound_row"].isin(rows)].reset_index(drop=True)
    text = table.select_dtypes("category").columns
    table[text] = table[text].astype(str)
    return table.assign(matched=how[table["compound_row"]])


def _may_hold(group: object, rows: np.ndarray) -> bool:
    statistics = group.column(0).statistics  # pyright: ignore[reportAttributeAccessIssue]
    at = np.searchsorted(rows, statistics.min) if statistics is not None else 0
    return statistics is None or (at < len(rows) and rows[at] <= statistics.max)
