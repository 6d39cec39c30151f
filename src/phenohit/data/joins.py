"""Join what is known about the wells: tables of compounds, doses, annotations."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.columns import METADATA, metadata_name
from phenohit.data.dropped import dropped, listed, nothing_dropped
from phenohit.data.remote import Place
from phenohit.data.tables import read_text
from phenohit.errors import ColumnError, nearest, some
from phenohit.sources import Join

__all__ = ["fill_in", "find_column", "join_tables", "one_row_per_key"]

log = logging.getLogger("phenohit")

_STAGE = "join tables"


def join_tables(
    rows: pd.DataFrame, joins: Sequence[Join], storage: Mapping[str, Any] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join tables onto the rows, one after another.

    Parameters
    ----------
    rows : DataFrame, P rows
        Text columns under the names of their file, or ``Metadata_*``.
    joins : sequence of Join
    storage : mapping, optional
        Options for tables at an address.

    Returns
    -------
    rows : DataFrame, P rows
        The same rows in the same order, with further text columns.
    dropped : DataFrame
        Keys of the rows that the table lacks, rows without a key, keys that no row has, repeated keys, and
        values that were not taken. No row is left out.

    Raises
    ------
    FileError, ColumnError
        If a table or column is absent, or a key is described twice with different values.

    Notes
    -----
    A column that the rows have already keeps its values; the table fills in the empty ones. Where both
    hold a value and they differ, the count is listed.
    """
    lost = [nothing_dropped()]
    for join in joins:
        path = Place(join.path, storage).local()
        table = read_text(path)
        on = find_column(rows, join.by)
        if on is None:
            raise ColumnError(
                f"profiles.joins: '{join.path}' is joined on '{join.by}', which the profiles do not have. "
                f"{nearest(join.by, rows.columns)} Correct `by`."
            )
        key = join.key or (join.by if join.by in table else "")
        if not key and on in table:
            key = on
        if key not in table:
            raise ColumnError(
                f"'{join.path}' has no column '{join.key or join.by}' (profiles.joins: key). "
                f"{nearest(join.key or join.by, table.columns)} Correct `key`."
            )
        table, repeated = one_row_per_key(table, [key], join.path, _STAGE)
        at = pd.Index(table[key]).get_indexer(pd.Index(rows[on]))
        lost += [repeated, _unmatched(rows[on], at, table[key], join)]
        rows, differing = fill_in(rows, table.drop(columns=key), at, join.path, _STAGE)
        lost.append(differing)
        log.info("joined '%s' on %s: %d of %d rows found", join.path, join.by, int((at >= 0).sum()), len(rows))
    return rows, pd.concat(lost, ignore_index=True)


def find_column(rows: pd.DataFrame, name: str) -> str | None:
    """Return the column of `rows` that a setting means: as written, with Metadata_, or without."""
    plain = name.removeprefix("Metadata_")
    for spelling in (name, METADATA.get(name, name), metadata_name(name), plain, f"Image_Metadata_{plain}"):
        if spelling in rows:
            return spelling
    return None


def one_row_per_key(table: pd.DataFrame, keys: list[str], path: str, stage: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep one row per key; rows without a key are useless and listed, equal repeats are counted.

    Raises
    ------
    ColumnError
        If rows with the same key hold different values.
    """
    empty = (table[keys] == "").any(axis=1)
    lost = [listed(stage, "row", [f"{path}: row {i}" for i in np.flatnonzero(empty)], f"no {' and '.join(keys)}")]
    table = table.loc[~empty].drop_duplicates()
    n_equal = int((~empty).sum()) - len(table)
    if n_equal:
        lost.append(dropped(stage, "row", [path], f"{n_equal} rows repeat another one exactly"))
    again = table.duplicated(keys, keep=False)
    if again.to_numpy().any():
        group = table[again]
        varying = [c for c in table if c not in keys and int(group.groupby(keys)[c].nunique().max()) > 1]
        names = group[keys].drop_duplicates().agg(" ".join, axis=1)
        raise ColumnError(
            f"'{path}' describes {len(names)} keys ({', '.join(keys)}) more than once with different values in "
            f"{some(varying, 5)}: {some(names)}. Keep one row for each."
        )
    return table.reset_index(drop=True), pd.concat(lost, ignore_index=True)


def fill_in(
    rows: pd.DataFrame, table: pd.DataFrame, at: NDArray[np.intp], path: str, stage: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add the columns of `table` to `rows`: row ``i`` gets row ``at[i]``, or '' where that is -1.

    A value that a row has already stays; the number of values that differ from it is listed.
    """
    known = {metadata_name(str(c)): c for c in rows.columns}
    found = at >= 0
    new, lost = {}, [nothing_dropped()]
    for column in table.columns:
        values = np.full(len(rows), "", dtype=object)
        values[found] = table[column].to_numpy(dtype=object)[at[found]]
        there = known.get(metadata_name(str(column)))
        if there is None:
            new[column] = values
            continue
        old = rows[there].to_numpy(dtype=object)
        differ = (old != "") & (values != "") & (old != values)
        if differ.any():
            first = int(np.flatnonzero(differ)[0])
            reason = (
                f"{int(differ.sum())} rows hold another value than '{path}' (row {first}: {str(old[first])!r}, there "
                f"{str(values[first])!r}); theirs was kept"
            )
            lost.append(dropped(stage, "column", [str(column)], reason))
        new[there] = np.where(old == "", values, old)
    added = pd.DataFrame(new, index=rows.index).astype(str)
    kept = rows.drop(columns=[c for c in added if c in rows])
    return pd.concat([kept, added], axis=1), pd.concat(lost, ignore_index=True)


def _unmatched(keys: pd.Series, at: NDArray[np.intp], known: pd.Series, join: Join) -> pd.DataFrame:
    """List the keys that only one side has."""
    absent = keys[at < 0]
    counts = absent[absent != ""].value_counts()
    reasons = [f"not in '{join.path}'; {n} rows are kept without what it says" for n in counts]
    lost = [listed(_STAGE, "key", counts.index, reasons)]
    n_empty = int((absent == "").sum())
    if n_empty:
        reason = f"{n_empty} rows have no {join.by} and are kept without what the table says"
        lost.append(dropped(_STAGE, "key", [join.path], reason))
    n_unused = len(known) - len(np.unique(at[at >= 0]))
    if n_unused:
        lost.append(dropped(_STAGE, "key", [join.path], f"{n_unused} of its {len(known)} keys occur in no row"))
    return pd.concat(lost, ignore_index=True)
