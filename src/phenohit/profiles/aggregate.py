"""Wells become compounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, nearest

__all__ = ["to_compounds"]

_BLOCK = 1 << 24  # values gathered at once: 64 MB of float32
_JOINED = ("Metadata_Plate", "Metadata_Batch", "Metadata_compound_id")


def to_compounds(profiles: Profiles, *, how: Literal["median", "mean"] = "median") -> Profiles:
    """Aggregate the wells of each compound to one row.

    Parameters
    ----------
    profiles : Profiles, P rows
        With ``Metadata_compound`` in every row.
    how : {'median', 'mean'}
        Over the values that are present; a feature that no well of a compound has stays NaN.

    Returns
    -------
    Profiles, N rows
        Compounds in order of first appearance. Metadata that is the same in all wells of a
        compound is kept, else it becomes ''; differing plates, batches and ids are joined by ';';
        ``Metadata_cell_count`` is the mean; ``Metadata_n_wells`` is added.

    Raises
    ------
    ConfigError, ColumnError

    Notes
    -----
    Median over the wells of a compound as in [1]_, which takes it over cells.

    References
    ----------
    .. [1] Simm et al., Cell Chemical Biology 25, 611 (2018), feature extraction.
    """
    if how not in ("median", "mean"):
        raise ConfigError(f"profiles.aggregate: '{how}' is not known. {nearest(how, ['median', 'mean'])}")
    codes, keys = pd.factorize(pd.Series(profiles.compounds))
    sizes = np.bincount(codes, minlength=len(keys))
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp)
    X = np.empty((len(keys), len(profiles.features)), dtype=np.float32)
    middle = _median if how == "median" else _mean
    for groups, columns in _blocks(sizes, X.shape[1]):
        wells = order[starts[groups][:, None] + np.arange(sizes[groups[0]])]
        X[groups, columns] = middle(profiles.X[wells, columns])
    rows = _rows(profiles, codes, order, starts, keys)
    rows["Metadata_n_wells"] = sizes.astype(str)
    return replace(profiles, X=X, rows=rows, history=(*profiles.history, f"{how}[compound]"))


def _blocks(sizes: NDArray[np.intp], n_features: int) -> Iterator[tuple[NDArray[np.intp], slice]]:
    """Yield compounds with the same number of wells together, so that one array operation serves them all."""
    for size in np.unique(sizes):
        groups = np.flatnonzero(sizes == size)
        width = max(1, min(n_features, _BLOCK // int(size)))
        height = max(1, _BLOCK // (int(size) * width))
        for top in range(0, len(groups), height):
            for left in range(0, n_features, width):
                yield groups[top : top + height], slice(left, left + width)


def _median(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median over axis 1 of the values that are not NaN, shape (n, wells, F) -> (n, F)."""
    block = np.sort(block, axis=1)  # NaN sort to the end
    n = block.shape[1] - np.isnan(block).sum(axis=1, keepdims=True)
    low = np.take_along_axis(block, np.maximum(n - 1, 0) // 2, axis=1)
    high = np.take_along_axis(block, np.minimum(n // 2, block.shape[1] - 1), axis=1)
    return ((low.astype(np.float64) + high) / 2)[:, 0].astype(np.float32)


def _mean(block: NDArray[np.float32]) -> NDArray[np.float32]:
    present = ~np.isnan(block)
    total = np.where(present, block, 0).sum(axis=1, dtype=np.float64)
    n = present.sum(axis=1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan).astype(np.float32)


def _rows(
    profiles: Profiles, codes: NDArray[np.intp], order: NDArray[np.intp], starts: NDArray[np.intp], keys: pd.Index
) -> pd.DataFrame:
    """Metadata of the compounds."""
    out: dict[str, NDArray[np.object_]] = {}
    for name in profiles.rows.columns:
        column = profiles.rows[name].astype(str)
        if name == "Metadata_cell_count":
            counts = pd.Series(profiles.numbers(name)).groupby(codes).mean()
            out[name] = counts.map("{:.6g}".format).where(counts.notna(), "").to_numpy(object)
            continue
        values, texts = pd.factorize(column)
        sorted_values = values[order]
        same = np.minimum.reduceat(sorted_values, starts) == np.maximum.reduceat(sorted_values, starts)
        kept = np.where(same, np.asarray(texts, dtype=object)[sorted_values[starts]], "")
        if name in _JOINED and not same.all():
            kept[~same] = _joined(column, codes)[~same]
        if same.any() or name in _JOINED:
            out[name] = kept
    return pd.DataFrame({**out, "Metadata_compound": np.asarray(keys, dtype=object)}).astype(str)


def _joined(column: pd.Series, codes: NDArray[np.intp]) -> NDArray[np.object_]:
    """Distinct texts of every compound, in order of appearance, joined by ';'."""
    pairs = pd.DataFrame({"code": codes, "text": column.to_numpy(object)}).drop_duplicates()
    filled = pairs[pairs["text"] != ""].groupby("code")["text"].agg(";".join)
    return filled.reindex(range(codes.max() + 1)).fillna("").to_numpy(object)
