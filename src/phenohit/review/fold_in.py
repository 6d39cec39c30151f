"""Fold results into the labels: a table that the settings can read, and settings that read it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.errors import FileError
from phenohit.files import write_table, write_text
from phenohit.hits.rank import same_assay
from phenohit.review.results import reaches

__all__ = ["fold_in", "refit_settings", "write_activities"]

STAGE = "fold results into labels"


def fold_in(
    labels: Labels, task: str, outcome: NDArray[np.floating], value: NDArray[np.floating]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put the labels of an assay and new results into one table.

    Parameters
    ----------
    labels : Labels
        Of the run, one row per imaged compound.
    task : str
        The task that was measured.
    outcome, value : float arrays, shape (N,)
        Of the imaged compounds; see `phenohit.review.results.Results`.

    Returns
    -------
    table : DataFrame
        ``compound, task, outcome, origin`` ('run' or 'results') for every task of the same assay. Numbers decide
        the tasks of other thresholds as well; outcomes decide this task only.
    dropped : DataFrame
        Labels of the run that a result contradicts: the result is kept.
    """
    keys = labels.compounds["compound"].astype(str).to_numpy(object)
    parts, lost = [], []
    for column in same_assay(labels, task):
        name, level = str(labels.tasks["task"].iloc[column]), float(labels.tasks["threshold"].iloc[column])
        Y = labels.Y[:, [column]].tocoo()
        before = np.full(len(keys), np.nan)
        before[Y.row] = Y.data
        if name == task:
            after = outcome
        else:
            after = reaches(value, level) if not np.isnan(level) else np.full(len(keys), np.nan)
        against = ~np.isnan(before) & ~np.isnan(after) & (before != after)
        words = np.array(["inactive", "active"], dtype=object)
        reasons = [
            f"{words[int(b)]} in {name} before, {words[int(a)]} now: the result is kept"
            for b, a in zip(before[against], after[against], strict=True)
        ]
        lost.append(dropped(STAGE, "activity", labels.compounds["compound"][against], reasons))
        both = np.where(np.isnan(after), before, after)
        rows = np.flatnonzero(~np.isnan(both))
        origin = np.where(np.isnan(after[rows]), "run", "results")
        parts.append(
            pd.DataFrame({"compound": keys[rows], "task": name, "outcome": both[rows].astype(int), "origin": origin})
        )
    return pd.concat(parts, ignore_index=True), pd.concat(lost, ignore_index=True)


def write_activities(folder: Path, table: pd.DataFrame, labels: Labels, task: str) -> None:
    """Write ``activities.csv`` and ``tasks.csv``, which says that its tasks are of one assay."""
    write_table(folder / "activities.csv", table)
    columns = same_assay(labels, task)
    names = labels.tasks["task"].astype(str).to_numpy(object)[columns]
    assay = labels.tasks["assay"].fillna("").astype(str).to_numpy(object)[columns]
    write_table(folder / "tasks.csv", pd.DataFrame({"task": names, "assay": np.where(assay == "", names, assay)}))


def refit_settings(run: Path, folder: Path, labels: Labels, task: str) -> list[str]:
    """Write ``refit.yaml``: the run's settings with this assay read from ``activities.csv``.

    Parameters
    ----------
    run : Path
        The run folder; its ``config.yaml`` is read.
    folder : Path
        Holds the activities; the settings go there.
    labels : Labels
    task : str

    Returns
    -------
    list of str
        What the user must see to before the settings can be used.

    Raises
    ------
    FileError
        If the run's settings cannot be read.
    """
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        sources = list(config["activities"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise FileError(f"'{run / 'config.yaml'}' cannot be read ({error}). Run again to make it anew.") from error
    columns = same_assay(labels, task)
    mine = labels.tasks.iloc[columns]
    origin = str(mine["source"].iloc[0]) if "source" in mine else ""
    others = labels.tasks.drop(index=labels.tasks.index[columns])
    notes, kept = [], []
    for source in map(copy.deepcopy, sources):
        if str(source["path"]) == origin or len(sources) == 1:
            if "source" in others and str(source["path"]) not in set(others["source"].astype(str)):
                continue  # it has no other task
            source["ignore"] = [*(source.get("ignore") or []), *_raw_names(mine, source)]
            if source.get("format") == "classes":
                notes.append(f"'{source['path']}' holds classes: compounds of this class alone leave it altogether.")
        kept.append(source)
    added = {
        "path": (folder / "activities.csv").as_posix(), "format": "long", "id": "compound", "assay": "task",
        "value": "outcome", "tasks": (folder / "tasks.csv").as_posix(), "min_active": 1, "min_inactive": 1,
    }  # fmt: skip
    name = str(config.get("name", run.name))
    out = run.with_name(f"{run.name}-next")
    config |= {"name": f"{name}, with results", "out": out.as_posix(), "activities": [*kept, added]}
    config["hits"] = {**(config.get("hits") or {}), "tasks": [task]}
    config.pop("images", None)  # they are measured: profiles.path names this run's wells
    text = yaml.safe_dump(config, sort_keys=False)
    if "(not shown)" in text or ":***@" in text:
        notes.append("The run's settings hold a secret that is not written anywhere: put it into refit.yaml.")
    title = "# The settings of the run, with this assay read from activities.csv. Paths as in the run's settings.\n"
    write_text(folder / "refit.yaml", title + text)
    return notes


def _raw_names(tasks: pd.DataFrame, source: dict[str, Any]) -> list[str]:
    """Names of the assay as the source writes them: no threshold, no prefix."""
    prefix = str(source.get("prefix") or "")
    if source.get("format") in ("chembl", "records"):
        names = tasks["assay"].astype(str)
    else:
        level = tasks["threshold"].to_numpy(np.float64)
        ends = np.where(np.isnan(level), "", [f" >= {v:g}" for v in level])
        names = [str(n).removesuffix(str(e)) for n, e in zip(tasks["task"], ends, strict=True)]
    return sorted({str(n).removeprefix(prefix) for n in names})
