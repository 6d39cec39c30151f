"""Activity records become labels: exact values averaged, comments and bounds put to the vote, thresholds applied."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from phenohit.config import ActivitySource, CurateConfig
from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, LabelError, some
from phenohit.labels.curate import Merged, contradictions, merge_repeats
from phenohit.labels.records import Records, Wanted
from phenohit.labels.rules import FATES, REASONS, USED, Judged, bound_votes, code, judge
from phenohit.labels.trace import Trace
from phenohit.progress import track

__all__ = ["THRESHOLDS", "RecordLabels", "label_records", "read_records"]

log = logging.getLogger("phenohit")

THRESHOLDS = (5.5, 6.5, 7.5)
_STAGE = "curate records"
_LISTED = 1000  # contradictions listed one by one


@dataclass(frozen=True, eq=False)
class RecordLabels:
    """What the records of one source became.

    Attributes
    ----------
    labels : Labels
        Tasks ``<assay> >= <threshold>`` (kind ``threshold``) and ``<assay> comment`` (kind ``comment``).
    values : DataFrame
        One row per compound and assay with exact values: ``source``, ``compound``, ``assay``,
        ``value`` (arithmetic mean, -log10 M), ``n``, ``sd`` (ddof 1; NaN for one), ``low``, ``high``,
        ``used`` (False where the spread is too large).
    fates : DataFrame
        ``source``, ``fate``, ``reason``, ``used`` (bool), ``n``: adds up to the records read.
    dropped : DataFrame
    n_salts : int
        Records used that were measured on a salt or another form of the compound.
    """

    labels: Labels
    values: pd.DataFrame
    fates: pd.DataFrame
    dropped: pd.DataFrame
    n_salts: int


def read_records(
    source: ActivitySource, *, imaged: pd.DataFrame | None = None, trace: Trace | None = None, jobs: int = 1
) -> RecordLabels:
    """Read the activity records of a database or an export and curate them.

    Parameters
    ----------
    source : ActivitySource
        ``format`` chembl or records.
    imaged : DataFrame, optional
        ``compound``, ``compound_id``, ``inchikey``, ``skeleton``: only records of compounds that may
        be one of these are kept; the others are counted. Without it, all are.
    trace : Trace, optional
        Where every record of a kept compound is written.
    jobs : int
        Processes for standardising structures; 0: all cores.

    Raises
    ------
    FileError, ConfigError, ColumnError, LabelError, StructureError
        As from `phenohit.labels.chembl.read_chembl` and `phenohit.labels.exports.read_export`; if the
        settings contradict themselves; if no record can be used.
    """
    check(source.curate)
    wanted = None if imaged is None else Wanted(imaged)
    thresholds = source.thresholds or list(THRESHOLDS)
    with ExitStack() as stack:
        if source.format == "chembl":
            from phenohit.labels.chembl import read_chembl

            records = read_chembl(source, wanted, stack, jobs=jobs)
        else:
            from phenohit.labels.exports import read_export

            records = read_export(source, wanted, jobs=jobs)
        return label_records(records, source.curate, thresholds, prefix=source.prefix, trace=trace)


def check(how: CurateConfig) -> None:
    """Find settings of the curation that cannot be meant.

    Raises
    ------
    ConfigError
    """
    if not how.low <= how.high:
        raise ConfigError(f"curate.low ({how.low:g}) is above curate.high ({how.high:g}): nothing would be left.")
    if not how.types and not how.comments:
        raise ConfigError("curate.types is empty and curate.comments is off: no record could be used.")
    odd = sorted(set(how.assay_types) - set("BFATPU"))
    if odd:
        raise ConfigError(f"curate.assay_types holds {some(odd)}; ChEMBL has B, F, A, T, P and U.")
    if not 0 <= how.min_confidence <= 9:
        raise ConfigError(f"curate.min_confidence is {how.min_confidence}; ChEMBL's scores run from 0 to 9.")
    if how.max_spread is not None and how.max_spread < 0:
        raise ConfigError(f"curate.max_spread is {how.max_spread:g}; it cannot be negative.")


class _Gathered:
    """What is kept of the records that count, block after block; cells are compound * A + assay."""

    def __init__(self) -> None:
        self.parts: dict[str, list[tuple[NDArray, ...]]] = {"value": [], "bound": [], "comment": []}

    def add(self, cell: NDArray[np.int64], judged: Judged) -> None:
        fate = judged.fate
        exact = (fate == code("value")) | (fate == code("value and comment"))
        bound = (fate == code("bound")) | (fate == code("bound and comment"))
        votes = (judged.vote >= 0) & (fate < USED)
        self.parts["value"].append((cell[exact], judged.p[exact], votes[exact]))
        self.parts["bound"].append((cell[bound], judged.p[bound], judged.bound[bound], votes[bound]))
        self.parts["comment"].append((cell[votes], judged.vote[votes].astype(np.float64)))

    def take(self, name: str) -> tuple[NDArray, ...]:
        """Return what was kept under a name, and forget it."""
        parts = self.parts.pop(name)
        return tuple(np.concatenate(p) for p in zip(*parts, strict=True))

    def bounds(self, settled: NDArray[np.int64]) -> tuple[tuple[NDArray, ...], NDArray[np.bool_]]:
        """Return the bounds of cells without an exact value, and of each other one whether it votes as well."""
        cell, p, bound, also = self.take("bound")
        beside = _isin(cell, settled)
        return (cell[~beside], p[~beside], bound[~beside]), also[beside]


def label_records(
    records: Records, how: CurateConfig, thresholds: list[float], *, prefix: str = "", trace: Trace | None = None
) -> RecordLabels:
    """Curate the records of one source; see `read_records`."""
    if prefix:
        records.assays = np.array([prefix + str(a) for a in records.assays], dtype=object)
    levels, A = np.unique(np.asarray(thresholds, dtype=np.float64)), len(records.assays)
    gathered, n_salts = _Gathered(), 0
    counts = np.zeros(len(FATES), dtype=np.int64)
    for rule, n in records.excluded.items():
        counts[rule] += n
    n_read = int(counts.sum())
    sorter = trace.begin(records) if trace else None
    for block in track(records.blocks, f"records of {records.source}"):
        judged = judge(records, block, how, levels)
        n_read += len(judged.fate)
        counts += np.bincount(judged.fate, minlength=len(FATES))
        n_salts += int((block.salt & (judged.fate < USED)).sum())
        gathered.add(block.compound.astype(np.int64) * A + block.assay, judged)
        if sorter:
            sorter.add(block, judged)
    if not n_read:
        raise LabelError(
            f"'{records.source}' holds no activity record. Load a release into it, or give the whole table."
        )
    cell, p, also = gathered.take("value")
    values = _average(cell, p, how.max_spread)
    settled, wide = values["cell"].to_numpy(), values.loc[~values["used"], "cell"].to_numpy()
    _move(counts, _CONTRADICTED, also[_isin(cell, wide)])
    bounds, also = gathered.bounds(settled)
    _move(counts, _BESIDE_EXACT, also)
    assert counts.sum() == n_read, "every record has exactly one fate"
    if trace and sorter:
        trace.end(sorter, records, _last_word(settled, wide))
    fates = _fates(records, counts)
    if not counts[:USED].sum():
        raise LabelError(_nothing(records, fates))
    labels, ties = _labels(records, values, bounds, gathered.take("comment"), levels)
    lost = [_left_out(records, fates), ties, nothing_dropped() if records.dropped is None else records.dropped]
    lost.append(_contradictory(records, values))
    log.info(
        "%s%s: %s records read, %s used (%s of a salt or other form), %s tasks", records.source,
        f" ({records.release})" if records.release else "", f"{n_read:,}", f"{counts[:USED].sum():,}", f"{n_salts:,}",
        f"{len(labels.tasks):,}",
    )  # fmt: skip
    return RecordLabels(labels, _named(records, values), fates, pd.concat(lost, ignore_index=True), n_salts)


def _average(cell: NDArray, p: NDArray, max_spread: float | None) -> pd.DataFrame:
    """Average exact values per cell; cells in rising order."""
    order = np.lexsort((p, cell))  # one order of summation, whatever the order of the records
    cell, p = cell[order], p[order]
    start = np.flatnonzero(np.diff(cell, prepend=-1))
    distinct, n = cell[start], np.diff(start, append=len(cell))
    if not len(cell):
        start = np.zeros(0, dtype=np.intp)
    mean = np.add.reduceat(p, start) / n if len(p) else p
    low, high = p[start], p[start + n - 1]
    deviation = p - np.repeat(mean, n)
    square = np.add.reduceat(deviation**2, start) if len(p) else p
    sd = np.where(n > 1, np.sqrt(square / np.maximum(n - 1, 1)), np.nan)
    used = np.ones(len(n), dtype=bool) if max_spread is None else high - low <= max_spread + 1e-9
    table = pd.DataFrame({"cell": distinct, "value": np.round(mean, 9), "n": n, "sd": sd, "low": low, "high": high})
    return table.assign(used=used)


def _move(counts: NDArray[np.int64], how: dict[str, str], also: NDArray[np.bool_]) -> None:
    """Move records to another fate in the counts; `also` has one element each: whether it votes as well."""
    for (old, new), n in zip(how.items(), (int((~also).sum()), int(also.sum())), strict=True):
        counts[code(old)] -= n
        counts[code(new)] += n


# What becomes of a record beside the others of its compound and assay: plain, and with a vote.
_BESIDE_EXACT = {"bound": "settled", "bound and comment": "comment"}
_CONTRADICTED = {"value": "spread", "value and comment": "comment"}


def _last_word(settled: NDArray[np.int64], wide: NDArray[np.int64]) -> Callable[[NDArray, NDArray], NDArray]:
    def last(cell: NDArray[np.int64], fate: NDArray[np.int8]) -> NDArray[np.int8]:
        out = fate.copy()
        for cells, how in ((settled, _BESIDE_EXACT), (wide, _CONTRADICTED)):
            there = _isin(cell, cells)
            for old, new in how.items():
                out[there & (fate == code(old))] = code(new)
        return out

    return last


def _isin(cell: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which cells are in a sorted list."""
    if not len(known):
        return np.zeros(len(cell), dtype=bool)
    at = np.searchsorted(known, cell).clip(max=len(known) - 1)
    return known[at] == cell


# --- labels -----------------------------------------------------------------------------------


def _labels(
    records: Records, values: pd.DataFrame, bounds: tuple[NDArray, ...], votes: tuple[NDArray, ...],
    levels: NDArray[np.float64],
) -> tuple[Labels, pd.DataFrame]:  # fmt: skip
    """Put exact values, bounds and votes together; column of a task: assay * (K + 1) + threshold, K for the comment."""
    K, A = len(levels), len(records.assays)
    width = A * (K + 1)
    used = values[values["used"]]
    cell, mean = used["cell"].to_numpy(), used["value"].to_numpy()
    row, column = np.repeat(cell // A, K), ((cell % A)[:, None] * (K + 1) + np.arange(K)).ravel()
    parts = [(row, column, (mean[:, None] >= levels).ravel())]
    which, level, class_ = bound_votes(*bounds[1:], levels)
    at = bounds[0][which]
    merged = [merge_repeats(at // A, (at % A) * (K + 1) + level, class_, mean=False, n_columns=width)]
    at = votes[0]
    merged.append(merge_repeats(at // A, (at % A) * (K + 1) + K, votes[1], mean=False, n_columns=width))
    for m in merged:
        kept = ~np.isnan(m.value)
        parts.append((m.row[kept], m.column[kept], m.value[kept] == 1))
    row, column, active = (np.concatenate(c) for c in zip(*parts, strict=True))
    tasks, column = np.unique(column, return_inverse=True)
    rows, row = np.unique(row, return_inverse=True)
    shape = (len(rows), len(tasks))
    Y = sparse.csr_matrix((active.astype(np.float32), (row.astype(np.int32), column.astype(np.int32))), shape=shape)
    compounds = records.compounds.iloc[rows].reset_index(drop=True)
    labels = Labels(Y, compounds, _tasks(records, tasks, levels))
    labels = Labels(labels.Y, labels.compounds, labels.tasks.assign(**labels.counts()))
    return labels, _ties(records, merged, levels)


def _tasks(records: Records, columns: NDArray[np.int64], levels: NDArray[np.float64]) -> pd.DataFrame:
    K = len(levels)
    assay, kind = columns // (K + 1), columns % (K + 1)
    used, where = np.unique(assay, return_inverse=True)
    about = records.describe(used).iloc[where].reset_index(drop=True)
    name = pd.Series(records.assays[assay], dtype=str)
    suffix = np.array([*(f" >= {t:g}" for t in levels), " comment"], dtype=object)
    tasks = pd.DataFrame({"task": name + pd.Series(suffix[kind], dtype=str), "assay": name})
    tasks["kind"] = np.where(kind < K, "threshold", "comment")
    tasks["threshold"] = np.append(levels, np.nan)[kind]
    return pd.concat([tasks.assign(source=records.source, release=records.release), about], axis=1)


def _ties(records: Records, merged: list[Merged], levels: NDArray[np.float64]) -> pd.DataFrame:
    """List contradicting votes: in full up to a thousand, beyond that as one number."""
    K, lost = len(levels), []
    for m, what in zip(merged, ("bounds", "comments"), strict=True):
        against = np.flatnonzero((m.n_active > 0) & (m.n_active < m.n))
        if len(against) > _LISTED:
            tie = int((2 * m.n_active[against] == m.n[against]).sum())
            reason = (
                f"{what} of a pair contradict each other: {tie:,} ties are taken as not measured, else the majority"
            )
            lost.append(dropped(_STAGE, "activity", [f"{len(against):,} pairs of '{records.source}'"], reason))
            continue
        m = Merged(m.row[against], m.column[against], m.value[against], m.n[against], m.n_active[against])
        columns, at = np.unique(m.column, return_inverse=True)
        assay = records.assays[columns // (K + 1)] if len(columns) else np.zeros(0, dtype=object)
        suffix = [*(f" >= {t:g}" for t in levels), " comment"]
        names = [f"{a}{suffix[k]}" for a, k in zip(assay, columns % (K + 1), strict=True)]
        m = Merged(m.row, at, m.value, m.n, m.n_active)
        lost.append(contradictions(m, records.compounds["compound"], pd.Series(names, dtype=object), _STAGE))
    return pd.concat(lost, ignore_index=True)


# --- what was used and what was not -----------------------------------------------------------


def _fates(records: Records, counts: NDArray[np.int64]) -> pd.DataFrame:
    table = pd.DataFrame({"source": records.source, "fate": FATES, "reason": [REASONS[f] for f in FATES]})
    return table.assign(used=np.arange(len(FATES)) < USED, n=counts)[counts > 0].reset_index(drop=True)


def _left_out(records: Records, fates: pd.DataFrame) -> pd.DataFrame:
    """One line per rule with its count; the records themselves are in the trace."""
    out = fates[~fates["used"]]
    ids = [f"{n:,} records of '{records.source}'" for n in out["n"]]
    return dropped(
        _STAGE, "activity", ids, [f"{r} [rule: {f}]" for r, f in zip(out["reason"], out["fate"], strict=True)]
    )


def _contradictory(records: Records, values: pd.DataFrame) -> pd.DataFrame:
    wide, A = values[~values["used"]], len(records.assays)
    if len(wide) > _LISTED:
        return dropped(_STAGE, "activity", [f"{len(wide):,} pairs of '{records.source}'"], REASONS["spread"])
    names, assays = records.compounds["compound"].to_numpy(object), records.assays
    ids = [f"{names[c // A]} in {assays[c % A]}" for c in wide["cell"]]
    reasons = [f"{n} exact values from {a:g} to {b:g}: more than curate.max_spread apart"
               for n, a, b in zip(wide["n"], wide["low"], wide["high"], strict=True)]  # fmt: skip
    return dropped(_STAGE, "activity", ids, reasons)


def _named(records: Records, values: pd.DataFrame) -> pd.DataFrame:
    """Replace cells by names (as categories: names repeat)."""
    cell, A = values["cell"].to_numpy(), max(len(records.assays), 1)
    named = {}
    for column, codes, texts in (
        ("compound", cell // A, records.compounds["compound"].to_numpy(object)),
        ("assay", cell % A, records.assays),
    ):
        used, where = np.unique(codes, return_inverse=True)
        named[column] = pd.Categorical.from_codes(where, categories=pd.Index(texts[used], dtype=object))
    table = pd.DataFrame({"source": pd.Categorical.from_codes(np.zeros(len(cell), np.int8), [records.source]), **named})
    return pd.concat([table, values.drop(columns="cell")], axis=1)


def _nothing(records: Records, fates: pd.DataFrame) -> str:
    shown = "; ".join(f"{n:,}: {r}" for n, r in zip(fates["n"], fates["reason"], strict=True))
    return (
        f"No record of '{records.source}' can be used ({shown}). Check activities.curate and how compounds are named."
    )
