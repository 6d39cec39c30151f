"""Leave out candidates that chemistry advises against, looking no further down the ranking than needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped
from phenohit.registry import resolve

__all__ = ["FILTERS", "NOT_CHECKED", "NO_STRUCTURE", "drop_pains", "flag", "pains", "survivors"]

# name (also the column) -> function(table, *, jobs) -> text per row, empty where nothing speaks against it.
FILTERS = {"pains": "phenohit.hits.filter:pains"}
GROUP = "phenohit.filters"

NOT_CHECKED = "not checked"  # ranked too low to matter
NO_STRUCTURE = "no structure"  # nothing to check; passes, and the summary counts it
_PASSES = ("", NO_STRUCTURE)
_BLOCK = 64  # fewest rows per look: one call has a fixed cost


def pains(table: pd.DataFrame, *, jobs: int = 1) -> NDArray[np.object_]:
    """Return the names of each row's PAINS alerts, shape (N,).

    Parameters
    ----------
    table : DataFrame
        Column ``smiles``.
    jobs : int
        Processes.

    Notes
    -----
    Alert sets A, B and C of Baell and Holloway 2010 (doi:10.1021/jm901137j).
    """
    from phenohit.chem.alerts import pains as alerts

    return alerts(table["smiles"].tolist(), jobs=jobs)


def flag(table: pd.DataFrame, name: str, *, jobs: int = 1) -> NDArray[np.object_]:
    """Run one filter of `FILTERS` on the rows that have a structure; text per row, shape (N,)."""
    found = np.full(len(table), NO_STRUCTURE, dtype=object)
    known = np.flatnonzero(table["smiles"].to_numpy() != "")
    if len(known):
        found[known] = resolve(name, FILTERS, GROUP)(table.iloc[known], jobs=jobs)
    return found


def drop_pains(table: pd.DataFrame, jobs: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a whole table into rows without a PAINS alert and a list of the others.

    Parameters
    ----------
    table : DataFrame
        Columns ``compound_id`` and ``smiles``.

    Returns
    -------
    kept : DataFrame
        The passing rows with the column ``pains`` added (empty, or ``no structure``).
    dropped : DataFrame
        The others, each with its alert names.
    """
    found = flag(table, "pains", jobs=jobs)
    passed = np.isin(found, _PASSES)
    return table.assign(pains=found)[passed], list_dropped(table[~passed], "pains", found[~passed])


def list_dropped(table: pd.DataFrame, name: str, found: NDArray[np.object_], task: str = "") -> pd.DataFrame:
    """List rows that a filter rejected, each with what it found."""
    title = {"pains": "PAINS alert"}.get(name, name)
    stage = f"filter hits for {task}" if task else "filter hits"
    return dropped(stage, "hit", table["compound_id"], [f"{title}: {text}" for text in found])


def survivors(
    table: pd.DataFrame, enough: int, *, drop: Sequence[str] = ("pains",), jobs: int = 1
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Go down the ranking, block by block, until `enough` rows have passed every filter.

    Parameters
    ----------
    table : DataFrame
        Ranked, best first; columns ``compound_id`` and ``smiles``.
    enough : int
        Rows wanted. What is below the last of them is never looked at: half a million candidates
        cost no more than the few hundred at the top.
    drop : sequence of str
        Filters whose finding rejects a row; the others only mark it.

    Returns
    -------
    table : DataFrame
        With one column per filter: what it found, empty where nothing, ``not checked`` below.
    passed : bool array, shape (N,)
        True for the first `enough` rows that passed.
    """
    found = {name: np.full(len(table), NOT_CHECKED, dtype=object) for name in FILTERS}
    passed = np.zeros(len(table), dtype=bool)
    start = n = 0
    while start < len(table) and n < enough:
        share = max(n / start, 0.05) if start else 1.0
        stop = min(len(table), start + max(_BLOCK, int(np.ceil((enough - n) / share))))
        ok = np.ones(stop - start, dtype=bool)
        for name, column in found.items():
            column[start:stop] = flag(table.iloc[start:stop], name, jobs=jobs)
            if name in drop:
                ok &= np.isin(column[start:stop], _PASSES)
        passed[start:stop] = ok
        start, n = stop, int(passed[:stop].sum())
    passed[np.flatnonzero(passed)[enough:]] = False
    return table.assign(**found), passed
