"""Wells become compounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, nearest

__all__ = ["to_compounds"]

_BLOCK = 1 << 24  # values gathered at once: 64 MB of float32
_MIN_WEIGHT = 0.01  # of a well in modz
_JOINED = ("Metadata_Plate", "Metadata_Batch", "Metadata_compound_id")


def to_compounds(profiles: Profiles, *, how: Literal["median", "mean", "modz"] = "median") -> Profiles:
    """Aggregate the wells of each compound to one row.

    Parameters
    ----------
    profiles : Profiles, P rows
        With ``Metadata_compound`` in every row.
    how : {'median', 'mean', 'modz'}
        Over the values that are present; a feature that no well of a compound has stays NaN. With
        `modz`, a mean in which each well weighs as much as it resembles the other wells of its compound.

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

    The moderated z-score of [2]_ (there for z-scores of replicates): a well's weight is its mean Spearman
    correlation with the other wells, negative ones counted as 0, and at least 0.01. Two wells weigh the
    same. pycytominer rounds the weights to four digits and takes a missing value for 0; here weights add
    up to 1 whatever the number of wells, and missing values have no part in the mean.

    References
    ----------
    .. [1] Simm et al., Cell Chemical Biology 25, 611 (2018), feature extraction.
    .. [2] Subramanian et al., Cell 171, 1437 (2017), level 5 signatures.
    """
    known = ["median", "mean", "modz"]
    if how not in known:
        raise ConfigError(f"profiles.aggregate: '{how}' is not known. {nearest(how, known)}")
    codes, keys = pd.factorize(pd.Series(profiles.compounds))
    sizes = np.bincount(codes, minlength=len(keys))
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp)
    X = np.empty((len(keys), len(profiles.features)), dtype=np.float32)
    middle = {"median": _median, "mean": _mean, "modz": _modz}[how]
    for groups, columns in _blocks(sizes, X.shape[1], whole=how == "modz"):
        wells = order[starts[groups][:, None] + np.arange(sizes[groups[0]])]
        X[groups, columns] = middle(profiles.X[wells, columns])
    rows = _rows(profiles, codes, order, starts, keys)
    rows["Metadata_n_wells"] = sizes.astype(str)
    return replace(profiles, X=X, rows=rows, history=(*profiles.history, f"{how}[compound]"))


def _blocks(sizes: NDArray[np.intp], n_features: int, whole: bool = False) -> Iterator[tuple[NDArray[np.intp], slice]]:
    """Yield compounds with the same number of wells together, so that one array operation serves them all.

    With `whole`, the features of a compound stay together.
    """
    for size in np.unique(sizes):
        groups = np.flatnonzero(sizes == size)
        width = max(1, n_features if whole else min(n_features, _BLOCK // int(size)))
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


def _modz(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over axis 1, weighted by how well the wells agree, shape (n, wells, F) -> (n, F)."""
    weights = _weights(block)[:, None, :]
    present = ~np.isnan(block)
    total = np.matmul(weights, np.where(present, block, 0))[:, 0]
    weight = np.matmul(weights, present)[:, 0]
    with np.errstate(invalid="ignore"):
        return (total / weight).astype(np.float32)


def _weights(block: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of each well in its compound, shape (n, wells)."""
    n, wells, _ = block.shape
    if wells < 3:
        return np.full((n, wells), 1 / wells)
    ranks, present = _ranks(block)
    raw = np.empty((n, wells))
    step = max(1, _BLOCK // (n * wells))  # controls may have thousands of wells: never all pairs at once
    for top in range(0, wells, step):
        part = slice(top, top + step)
        r = _correlation(ranks, present, part)
        own = np.arange(top, min(top + step, wells))
        r[:, own - top, own] = np.nan
        known = ~np.isnan(r)
        raw[:, part] = np.where(known, np.maximum(r, 0), 0).sum(axis=2) / np.maximum(known.sum(axis=2), 1)
    raw = np.maximum(raw, _MIN_WEIGHT)
    return raw / raw.sum(axis=1, keepdims=True)


def _ranks(block: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Ranks of the features within each well, centred, 0 where missing; and 1 where present, if any is not."""
    flat = block.reshape(-1, block.shape[2])
    ranks = np.empty_like(flat)
    step = max(1, _BLOCK // (8 * flat.shape[1]))
    for top in range(0, len(flat), step):  # ranking needs several times the room of its input
        part = flat[top : top + step]
        gap = np.isnan(part)
        rank = rankdata(np.where(gap, np.inf, part), axis=1)  # missing ones rank last and do not disturb
        middle = ((~gap).sum(axis=1, keepdims=True) + 1) / 2
        ranks[top : top + step] = np.where(gap, 0, (rank - middle) / flat.shape[1])
    present = ~np.isnan(block)
    return ranks.reshape(block.shape), None if present.all() else present.astype(np.float32)


def _correlation(ranks: NDArray[np.float32], present: NDArray[np.float32] | None, part: slice) -> NDArray[np.float64]:
    """Correlation of some wells with all wells of a compound over the features both have; NaN if undefined."""
    across = ranks.transpose(0, 2, 1)
    product = np.matmul(ranks[:, part], across).astype(np.float64)
    if present is None:
        square = np.einsum("nwf,nwf->nw", ranks, ranks, dtype=np.float64)
        spread = square[:, part, None] * square[:, None, :]
    else:
        both = present.transpose(0, 2, 1)
        count = np.maximum(np.matmul(present[:, part], both), 1).astype(np.float64)
        left, right = np.matmul(ranks[:, part], both), np.matmul(present[:, part], across)
        product -= left * (right / count)
        spread = (np.matmul(ranks[:, part] ** 2, both) - left**2 / count) * (
            np.matmul(present[:, part], across**2) - right**2 / count
        )
    tiny = 1e-9 * ranks.shape[2] ** 2  # a well whose features are all alike correlates with nothing
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > tiny, product / np.sqrt(np.maximum(spread, 0)), np.nan)


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
