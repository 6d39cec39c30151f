"""Bring labels and imaged compounds together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from phenohit.config import ActivitySource, LabelsConfig
from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.errors import LabelError, some
from phenohit.files import write_table
from phenohit.labels.curate import Merged, contradictions, merge_repeats, read_activities, to_labels
from phenohit.labels.curate_records import RecordLabels, read_records
from phenohit.labels.overlap import prune_overlap, prune_promiscuous, task_overlap, warn_duplicates
from phenohit.labels.sources import check_format
from phenohit.labels.trace import Trace

__all__ = ["assemble", "join", "matches"]

log = logging.getLogger("phenohit")

_STAGE = "join labels"
REPORT_COLUMNS = ["source", "match", "n_label_compounds", "n_imaged_compounds", "n_labels"]


def assemble(
    sources: Sequence[ActivitySource],
    compounds: pd.DataFrame,
    config: LabelsConfig,
    *,
    jobs: int = 1,
    trace: Path | None = None,
) -> tuple[Labels, pd.DataFrame, pd.DataFrame]:
    """Read all activities and join them to the imaged compounds.

    Parameters
    ----------
    sources : sequence of ActivitySource
    compounds : DataFrame, N rows
        From `phenohit.profiles.identify.identify`.
    config : LabelsConfig
    jobs : int
        Processes for standardising structures; 0: all cores.
    trace : path, optional
        Of the labels (``run/labels.parquet``): every record is written beside it
        (`phenohit.labels.trace`), with ``labels.values.parquet`` (means, counts and spreads),
        ``labels.fates.csv`` (records per rule) and ``tasks.overlap.parquet``.

    Returns
    -------
    labels, report, dropped
        As from `join`.

    Raises
    ------
    LabelError
        If there is no source, two tasks have the same name, or no task is left.
    """
    if not sources:
        raise LabelError("No activities are given. Name at least one table under activities.")
    labels, minimum, lost, curated = [], [], [], []
    with ExitStack() as stack:
        writer = stack.enter_context(Trace(trace)) if trace else None
        for source in sources:
            check_format(source)
            if source.format in ("chembl", "records"):
                records = read_records(source, imaged=compounds, trace=writer, jobs=jobs)
                curated.append(records)
                found, lost_here = records.labels, [records.dropped]
            else:
                activities, lost_rows = read_activities(source, jobs=jobs)
                found, lost_repeats = to_labels(activities)
                lost_here = [lost_rows, lost_repeats]
                if writer:
                    writer.add(activities)
            labels.append(found)
            lost += lost_here
            least = (source.min_active, source.min_inactive)
            defaults = (config.min_active, config.min_inactive)
            minimum.append(tuple(d if m is None else m for m, d in zip(least, defaults, strict=True)))
    joined, report, lost_join = join(labels, compounds, config, minimum=minimum)
    overlap = task_overlap(joined)
    warn_duplicates(overlap)
    if trace:
        _write_beside(trace, curated, overlap)
    return joined, report, pd.concat([*lost, lost_join], ignore_index=True)


def _write_beside(trace: Path, curated: list[RecordLabels], overlap: pd.DataFrame) -> None:
    columns = {"values": ["source", "compound", "assay", "value", "n", "sd", "low", "high", "used"],
               "fates": ["source", "fate", "reason", "used", "n"]}  # fmt: skip
    for name, ending in (("values", ".values.parquet"), ("fates", ".fates.csv")):
        tables = [getattr(c, name) for c in curated]
        table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns[name])
        write_table(trace.with_suffix(ending), table)
    write_table(trace.with_name("tasks.overlap.parquet"), overlap)


def join(
    sources: Sequence[Labels],
    compounds: pd.DataFrame,
    config: LabelsConfig,
    *,
    minimum: Sequence[tuple[int, int]] | None = None,
) -> tuple[Labels, pd.DataFrame, pd.DataFrame]:
    """Give every imaged compound the labels that were measured on it.

    A label compound is matched by id, else by full InChIKey, else (``join: skeleton``) by the first
    block of the key, to every imaged compound that shares it. Matches of an earlier pass win over
    those of a later one, entry by entry; within a pass repeats are averaged (values) or vote, a tie
    being unmeasured.

    Parameters
    ----------
    sources : sequence of Labels
        ``compounds`` has at least one of ``id``, ``inchikey``, ``skeleton``.
    compounds : DataFrame, N rows
        ``compound`` (unique), ``compound_id`` (several joined by ';'), ``inchikey``, ``skeleton``.
    config : LabelsConfig
    minimum : sequence of (int, int), optional
        Actives and inactives a task of each source needs, instead of `config`'s.

    Returns
    -------
    labels : Labels
        Rows exactly those of `compounds`, in order; a compound without labels has an empty row.
    report : DataFrame
        ``source``, ``match`` (id, inchikey, skeleton or unmatched), ``n_label_compounds``,
        ``n_imaged_compounds``, ``n_labels`` (entries gained).
    dropped : DataFrame
        Compounds measured but not imaged, contradictions, tasks with too few labels.

    Raises
    ------
    LabelError
        If two tasks have the same name, nothing matches, or no task is left.
    """
    compounds = compounds.reset_index(drop=True)
    N = len(compounds)
    blocks, tables, least, reports, lost = [], [], [], [], []
    for i, source in enumerate(sources):
        Y, report, lost_here = _join_one(source, compounds, config)
        blocks.append(Y)
        tables.append(source.tasks)
        least += [minimum[i] if minimum else (config.min_active, config.min_inactive)] * len(source.tasks)
        reports.append(report)
        lost += lost_here
    report = pd.concat(reports, ignore_index=True)
    tasks = pd.concat(tables, ignore_index=True)
    text = [c for c in tasks if not pd.api.types.is_numeric_dtype(tasks[c].dtype)]
    tasks[text] = tasks[text].fillna("")
    if not tasks["task"].is_unique:
        doubled = some(tasks["task"][tasks["task"].duplicated()].unique())
        raise LabelError(f"Two sources have tasks of the same name: {doubled}. Give one a prefix in activities.")
    if not report.loc[report["match"] != "unmatched", "n_labels"].sum():
        known = pd.concat([s.compounds["compound"] for s in sources])
        raise LabelError(
            f"No measured compound was imaged. Measured: {some(known, 3)}; "
            f"imaged: {some(compounds['compound_id'], 3)}. Check which column "
            "identifies compounds (activities: id, smiles or inchikey)."
        )
    Y = sparse.csr_matrix(sparse.hstack(blocks, format="csr")) if blocks else sparse.csr_matrix((N, 0))
    joined = Labels(Y, compounds, tasks)
    joined = Labels(joined.Y, compounds, joined.tasks.assign(**joined.counts()))
    if config.max_active_tasks is not None:
        joined, lost_compounds = prune_promiscuous(joined, config.max_active_tasks)
        lost.append(lost_compounds)
    keep, reasons = _enough(joined.tasks, np.asarray(least).reshape(-1, 2))
    lost.append(
        dropped(_STAGE, "task", joined.tasks["task"][~keep], [r for r, k in zip(reasons, keep, strict=True) if not k])
    )
    if not keep.any():
        raise LabelError(_no_task(joined.tasks, len(compounds)))
    for line in report.itertuples(index=False):
        if line.n_label_compounds:
            how = "not imaged" if line.match == "unmatched" else f"matched by {line.match}"
            log.info("labels: %s: %d compounds %s", line.source, line.n_label_compounds, how)
    joined = joined.take_tasks(keep)
    if config.max_overlap is not None:
        joined, lost_tasks = prune_overlap(joined, config.max_overlap)
        lost.append(lost_tasks)
    return joined, report, pd.concat(lost, ignore_index=True)


def matches(labels: pd.DataFrame, compounds: pd.DataFrame, row: int, *, skeleton: bool = True) -> NDArray[np.object_]:
    """Tell by what each label compound was joined to one imaged compound.

    Parameters
    ----------
    labels : DataFrame, n rows
        ``id``, ``inchikey``, ``skeleton`` of the compounds of one source.
    compounds : DataFrame
        All imaged compounds.
    row : int
        The imaged compound.
    skeleton : bool
        Whether the first block counts.

    Returns
    -------
    ndarray of str, shape (n,)
        ``id``, ``inchikey``, ``skeleton`` or ''.
    """
    how, left = np.full(len(labels), "", dtype=object), np.ones(len(labels), dtype=bool)
    for by in ["id", "inchikey", "skeleton"] if skeleton else ["id", "inchikey"]:
        label, imaged = _pairs(labels, compounds, by, left)
        how[label[imaged == row]] = by
        left[label] = False
    return how


def _join_one(
    source: Labels, compounds: pd.DataFrame, config: LabelsConfig
) -> tuple[sparse.csr_matrix, pd.DataFrame, list[pd.DataFrame]]:
    """Return the source's labels on the imaged compounds, how they were found, and what was lost."""
    name = str(source.tasks["source"].iloc[0]) if "source" in source.tasks and len(source.tasks) else ""
    N, T = len(compounds), len(source.tasks)
    left = np.ones(len(source), dtype=bool)
    taken = np.zeros(0, dtype=np.int64)  # cells (row * T + column) that an earlier pass has filled
    parts, report, lost = [], [], []
    passes = ["id", "inchikey", "skeleton"] if config.join == "skeleton" else ["id", "inchikey"]
    for how in passes:
        label, imaged = _pairs(source.compounds, compounds, how, left)
        merged = _merged(source, label, imaged)
        lost.append(contradictions(merged[0], compounds["compound"], source.tasks["task"], f"{_STAGE} by {how}"))
        row, column, value = _entries(merged)
        cell = row * T + column
        # A hash table: sorting ten million cells for numpy to compare takes ten times as long.
        new = ~pd.Series(cell).isin(taken).to_numpy() & ~np.isnan(value)
        lost.append(_superseded(row, column, ~new & ~np.isnan(value), compounds, source, how))
        taken = np.concatenate([taken, cell])  # a tie of closer matches is not decided by a farther one
        parts.append((row[new], column[new], value[new]))
        report.append((name, how, len(np.unique(label)), len(np.unique(imaged)), int(new.sum())))
        left[label] = False
    lost.append(dropped(_STAGE, "compound", source.compounds["compound"][left], "measured but not imaged"))
    report.append((name, "unmatched", int(left.sum()), 0, int(np.diff(source.Y.indptr)[left].sum())))
    row, column, value = (np.concatenate([p[k] for p in parts]) for k in range(3))
    Y = sparse.csr_matrix((value.astype(np.float32), (row, column)), shape=(N, T))
    return Y, pd.DataFrame(report, columns=REPORT_COLUMNS), [t for t in lost if len(t)]


def _pairs(
    labels: pd.DataFrame, compounds: pd.DataFrame, how: str, left: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of label compounds that are still unmatched and of the imaged compounds they are matched to."""
    if how not in labels:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    if how == "id":
        # An id may itself hold ';', so the whole text counts as well; so does the key of the compound.
        ids = compounds["compound_id"].astype(str)
        known = pd.concat([ids, ids.str.split(";").explode(), compounds["compound"]])
    else:
        known = compounds[how].astype(str)
    imaged = pd.DataFrame({"key": known, "imaged": known.index})  # the index is the position in compounds
    imaged = imaged[imaged["key"] != ""].drop_duplicates()
    wanted = pd.DataFrame({"key": labels[how].astype(str).to_numpy(object), "label": np.arange(len(labels))})
    pairs = wanted[left & (wanted["key"] != "").to_numpy()].merge(imaged, on="key")
    return pairs["label"].to_numpy(np.intp), pairs["imaged"].to_numpy(np.intp)


def _merged(source: Labels, label: NDArray[np.intp], imaged: NDArray[np.intp]) -> tuple[Merged, Merged]:
    """Merge the entries of all label compounds of each imaged one: binary tasks by vote, values by mean."""
    Y = source.Y
    n = np.diff(Y.indptr)[label]
    row = np.repeat(imaged, n)
    within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    at = np.repeat(Y.indptr[label], n) + within
    column, value = Y.indices[at], Y.data[at].astype(np.float64)
    is_value = (source.tasks["kind"] == "value").to_numpy()[column]
    T = len(source.tasks)
    binary = merge_repeats(row[~is_value], column[~is_value], value[~is_value], mean=False, n_columns=T)
    return binary, merge_repeats(row[is_value], column[is_value], value[is_value], mean=True, n_columns=T)


def _entries(merged: tuple[Merged, Merged]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    binary, value = merged
    return (
        np.concatenate([binary.row, value.row]),
        np.concatenate([binary.column, value.column]),
        np.concatenate([binary.value, value.value]),
    )


def _superseded(
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    mask: NDArray[np.bool_],
    compounds: pd.DataFrame,
    source: Labels,
    how: str,
) -> pd.DataFrame:
    names = compounds["compound"].to_numpy(object)[row[mask]]
    tasks = source.tasks["task"].to_numpy(object)[column[mask]]
    ids = [f"{c} in {t}" for c, t in zip(names, tasks, strict=True)]
    return dropped(_STAGE, "activity", ids, f"matched by {how} only; a closer match was measured")


def _enough(tasks: pd.DataFrame, least: NDArray[np.int64]) -> tuple[NDArray[np.bool_], list[str]]:
    """Tell which tasks have enough labels, and why the others have not."""
    active, inactive = tasks["n_active"].to_numpy(), tasks["n_inactive"].to_numpy()
    value = (tasks["kind"] == "value").to_numpy()
    keep = (active >= least[:, 0]) & (inactive >= least[:, 1]) & (active > 0) & (inactive > 0)
    keep = np.where(value, active >= np.maximum(least.sum(axis=1), 1), keep)
    reasons = []
    for a, i, v, (m, k) in zip(active, inactive, value, least, strict=True):
        if a + i == 0:
            reasons.append("no imaged compound was measured")
        elif v:
            reasons.append(f"{a} measured; at least {m + k} are needed")
        elif a == 0 or i == 0:
            reasons.append(f"one class only: all {a + i} imaged compounds are {'active' if a else 'inactive'}")
        else:
            reasons.append(f"{a} active and {i} inactive; at least {m} and {k} are needed")
    return keep.astype(bool), reasons


def _no_task(tasks: pd.DataFrame, N: int) -> str:
    best = tasks.assign(least=tasks[["n_active", "n_inactive"]].min(axis=1)).nlargest(3, "least")
    shown = ", ".join(f"'{t.task}' ({t.n_active} active, {t.n_inactive} inactive)" for t in best.itertuples())
    return (
        f"None of {len(tasks)} tasks has enough labels among {N} imaged compounds. The fullest: {shown}. "
        "Lower labels.min_active and labels.min_inactive, or give more activities."
    )
