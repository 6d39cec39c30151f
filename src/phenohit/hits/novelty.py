"""How new a candidate is: the nearest known active, and whether its scaffold is among theirs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.errors import ShapeError

__all__ = ["novelty"]


def novelty(
    table: pd.DataFrame,
    fingerprints: NDArray[np.uint8],
    actives: pd.DataFrame,
    active_fingerprints: NDArray[np.uint8],
    *,
    jobs: int = 1,
) -> pd.DataFrame:
    """Compare candidates with the known actives of a task.

    Parameters
    ----------
    table : DataFrame, N rows
        Columns ``compound``, ``smiles`` and, where known, ``scaffold`` (else computed).
    fingerprints : uint8 array, shape (N, B)
        Packed fingerprints of `table`; a row without any bit has no structure.
    actives : DataFrame, M rows
        Columns ``compound``, ``compound_id``, ``smiles`` and, where known, ``scaffold``.
    active_fingerprints : uint8 array, shape (M, B)
    jobs : int
        Processes for the scaffolds.

    Returns
    -------
    DataFrame
        `table` with ``scaffold``; ``new_scaffold`` (True, False, or None for a compound without a
        ring or structure); ``nearest_active`` (its compound id), ``nearest_active_smiles`` and
        ``nearest_similarity`` (float32; NaN where there is nothing to compare).

    Notes
    -----
    Simm et al. 2018 measure novelty with ECFP of radius 4; here it is the fingerprint given, in a
    run ECFP6 (radius 3), the same that defines series. Among equally near actives the one with the
    first compound key is named.
    """
    if len(fingerprints) != len(table) or len(active_fingerprints) != len(actives):
        message = (
            f"Fingerprints do not fit: {len(fingerprints)} for {len(table)} candidates, "
            f"{len(active_fingerprints)} for {len(actives)} actives."
        )
        raise ShapeError(message)
    table, actives = _with_scaffolds(table, jobs), _with_scaffolds(actives, jobs)
    scaffold = table["scaffold"].to_numpy(dtype=object)
    new = np.where(np.isin(scaffold, actives["scaffold"].unique()), False, True).astype(object)
    new[scaffold == ""] = None
    index, similarity = _nearest(fingerprints, actives["compound"], active_fingerprints)
    columns = {}
    for name, source in (("nearest_active", "compound_id"), ("nearest_active_smiles", "smiles")):
        text = np.append(actives[source].to_numpy(dtype=object), "")  # the last stands for "none"
        columns[name] = text[index]
    return table.assign(new_scaffold=new, **columns, nearest_similarity=similarity)


def _with_scaffolds(table: pd.DataFrame, jobs: int) -> pd.DataFrame:
    """Return the table with Murcko scaffolds, kept where the column is there and filled."""
    from phenohit.chem.scaffolds import scaffolds

    known = table["scaffold"].to_numpy(dtype=object).copy() if "scaffold" in table else np.full(len(table), "", object)
    if len(table) and not (known != "").any():
        rows = np.flatnonzero(table["smiles"].to_numpy() != "")
        if len(rows):
            known[rows] = scaffolds(table["smiles"].iloc[rows].tolist(), jobs=jobs)
    return table.assign(scaffold=known)


def _nearest(
    queries: NDArray[np.uint8], keys: pd.Series, targets: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the nearest target of each query (-1: none) and the similarity (NaN: none)."""
    from phenohit.chem.similarity import nearest

    index = np.full(len(queries), -1, dtype=np.int64)
    similarity = np.full(len(queries), np.nan, dtype=np.float32)
    order = np.argsort(keys.astype(str).to_numpy(dtype=object), kind="stable")
    order = order[targets[order].any(axis=1)]
    known = np.flatnonzero(queries.any(axis=1))
    if len(order) and len(known):
        found, similarity[known] = nearest(queries[known], targets[order])
        index[known] = order[found]
    return index, similarity
