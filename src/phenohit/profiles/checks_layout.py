"""Does the place of a well, or the plate it is on, show in its profile? Asked of control wells only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg, stats

from phenohit.data.profiles import Profiles
from phenohit.profiles.controls import ROUNDING

__all__ = [
    "Layout",
    "cell_map",
    "control_distance",
    "each",
    "explained_by_place",
    "leading_components",
    "neighbour_shares",
    "plate_position",
    "position_map",
    "trends",
]

_GAPS = 0.05  # share of control wells that may lack a feature
_BLOCK = 2048
_FAR = 20.0  # one feature counts no more than this many spreads in a well's distance


@dataclass(frozen=True, eq=False)
class Layout:
    """Where every well is, as numbers, shape (P,) each.

    Attributes
    ----------
    plate : int array
        Index into `plates`.
    plates : list of str
        In order of appearance.
    row, column : int array
        From 1 (A is 1, AA is 27); 0 where the well is not known.
    batch : int array
        -1 where not known.
    control : bool array
        Negative controls.
    cells : float array
        Cell counts; NaN where not known.
    """

    plate: NDArray[np.intp]
    plates: list[str]
    row: NDArray[np.intp]
    column: NDArray[np.intp]
    batch: NDArray[np.intp]
    control: NDArray[np.bool_]
    cells: NDArray[np.float64]

    @classmethod
    def of(cls, profiles: Profiles) -> Layout:
        """Read the layout from the rows; plate and pert_type must be there."""
        rows = profiles.rows
        codes, plates = pd.factorize(rows["Metadata_Plate"].astype(str))
        written = rows["Metadata_Well"].astype(str) if "Metadata_Well" in rows else pd.Series("", index=rows.index)
        wells, names = pd.factorize(written)
        parts = pd.Series(names, dtype=str).str.extract(r"^([A-Z]{1,2})(\d{2})$").fillna("")
        letters = [sum((ord(c) - 64) * 26**i for i, c in enumerate(reversed(t))) for t in parts[0]]
        numbers = [int(t or 0) for t in parts[1]]
        batch = pd.factorize(rows["Metadata_Batch"].replace("", np.nan))[0] if "Metadata_Batch" in rows else None
        cells = profiles.numbers("Metadata_cell_count") if "Metadata_cell_count" in rows else None
        return cls(
            codes.astype(np.intp),
            [str(p) for p in plates],
            np.array(letters, dtype=np.intp)[wells],
            np.array(numbers, dtype=np.intp)[wells],
            np.full(len(rows), -1) if batch is None else batch.astype(np.intp),
            (rows["Metadata_pert_type"] == "negcon").to_numpy(dtype=bool),
            np.full(len(rows), np.nan) if cells is None else cells,
        )

    @property
    def place(self) -> NDArray[np.intp]:
        """One number per position on the plate; 0 where not known."""
        return np.where(self.row > 0, self.row * 100 + self.column, 0)


def leading_components(
    X: NDArray[np.float32], k: int, groups: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.float64], float]:
    """Scores of rows on their leading principal components.

    Parameters
    ----------
    X : float32 array, shape (n, F)
        Features with gaps in more than 5 % of the rows, or constant, are passed over; other gaps are
        filled with the mean.
    k : int
    groups : int array, shape (n,), optional
        Means of these are removed first, e.g. of plates.

    Returns
    -------
    scores : float64 array, shape (n, at most k)
    share : float
        Of the standardised features' variance on these components.
    """
    usable = np.isnan(X).mean(axis=0) <= _GAPS if len(X) else np.zeros(X.shape[1], dtype=bool)
    Z = X[:, usable].astype(np.float32)
    gaps = np.isnan(Z)
    if gaps.any():
        Z[gaps] = np.broadcast_to(np.nanmean(Z, axis=0), Z.shape)[gaps]
    mean = Z.mean(axis=0, dtype=np.float64)
    if groups is None:
        Z -= mean.astype(np.float32)
    else:
        count = np.bincount(groups)
        order = np.argsort(groups, kind="stable")
        starts = np.concatenate([[0], np.cumsum(count[count > 0])[:-1]])
        means = np.add.reduceat(Z[order].astype(np.float64), starts, axis=0) / count[count > 0, None]
        Z -= means[np.unique(groups, return_inverse=True)[1]].astype(np.float32)
    sd = np.sqrt((Z.astype(np.float64) ** 2).mean(axis=0))
    varies = sd > ROUNDING * np.abs(mean)
    Z = Z[:, varies] / sd[varies].astype(np.float32)
    n, F = Z.shape
    k = min(k, F, n)
    if not k:
        return np.zeros((len(X), 0)), np.nan
    if n >= F:
        values, vectors = linalg.eigh((Z.T @ Z).astype(np.float64), subset_by_index=[F - k, F - 1])
        scores = Z @ vectors[:, ::-1]
    else:
        values, vectors = linalg.eigh((Z @ Z.T).astype(np.float64), subset_by_index=[n - k, n - 1])
        scores = vectors[:, ::-1] * np.sqrt(np.maximum(values[::-1], 0))
    return scores, float(np.maximum(values, 0).sum() / (n * F))


def trends(row: NDArray[np.intp], column: NDArray[np.intp], last: tuple[int, int]) -> NDArray[np.float64]:
    """Slopes and bends along rows and columns, and the outermost wells: what a plate's controls can show.

    Five effects in place of one per row and column, which two dozen controls could not tell apart.

    Parameters
    ----------
    row, column : int arrays, shape (n,)
    last : tuple of int
        Last row and last column of the plate.

    Returns
    -------
    float64 array, shape (n, 5)
    """
    r = 2 * (row - 1) / max(last[0] - 1, 1) - 1
    c = 2 * (column - 1) / max(last[1] - 1, 1) - 1
    edge = (np.abs(r) == 1) | (np.abs(c) == 1)
    return np.column_stack([r, r**2, c, c**2, edge]).astype(np.float64)


def each(row: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.float64]:
    """One effect per row and one per column, shape (n, rows + columns): for the wells of many plates."""
    return np.hstack([row[:, None] == np.unique(row), column[:, None] == np.unique(column)]).astype(np.float64)


def explained_by_place(
    Y: NDArray[np.float64], effects: NDArray[np.float64], *, shuffles: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Share of variance that additive effects of row and column explain.

    Parameters
    ----------
    Y : float64 array, shape (n, k)
        Some measurements of n wells.
    effects : float64 array, shape (n, any)
        From `trends` or `each`; a constant is taken out.
    shuffles : int
        Permutations of the wells for the p-value: their mean and variance give a beta distribution
        (exact for one normal measurement), so that p may be far below 1 / shuffles.

    Returns
    -------
    share, expected, p : float
        `expected` is the mean share over all permutations of the wells, which is exactly the rank of
        the effects over n - 1. NaN where the effects could explain anything, or nothing.
    """
    n = len(Y)
    Y = Y - Y.mean(axis=0)
    total = float((Y**2).sum())
    U, size, _ = linalg.svd(effects - effects.mean(axis=0), full_matrices=False)
    U = U[:, size > 1e-8 * max(n, 1)]
    rank = U.shape[1]
    if rank == 0 or rank >= n - 1 or not total > 0:
        return np.nan, np.nan, np.nan
    share = float(((U.T @ Y) ** 2).sum()) / total
    order = rng.permuted(np.broadcast_to(np.arange(n), (shuffles, n)), axis=1)
    drawn = (np.einsum("nr,snk->srk", U, Y[order], optimize=True) ** 2).sum(axis=(1, 2)) / total
    expected, variance = rank / (n - 1), float(drawn.var())
    size = max(expected * (1 - expected) / max(variance, 1e-12) - 1, 1e-3)
    p = float(stats.beta.sf(share, expected * size, (1 - expected) * size))
    return share, expected, max(p, 1e-300)


def plate_position(
    layout: Layout, scores: NDArray[np.float64], controls: NDArray[np.intp], *, shuffles: int, seed: int
) -> pd.DataFrame:
    """Position effect among the controls of every plate, in features and in cell counts.

    Parameters
    ----------
    layout : Layout
    scores : float64 array, shape (n, k)
        Leading components of the control wells, plate means removed.
    controls : int array, shape (n,)
        Rows of the control wells.

    Returns
    -------
    DataFrame, one row per plate
        ``position_share, position_expected, position_excess, position_p`` and the same with ``cells_``
        before; excess is (share - expected) / (1 - expected).
    """
    rng = np.random.default_rng(seed)
    known = layout.row[controls] > 0
    found = np.full((len(layout.plates), 6), np.nan)
    log_cells = np.log(np.where(layout.cells > 0, layout.cells, np.nan))[controls]
    for g in range(len(layout.plates)):
        here = known & (layout.plate[controls] == g)
        whole = layout.plate == g
        last = (int(layout.row[whole].max()), int(layout.column[whole].max()))
        for first, Y, use in ((0, scores, here), (3, log_cells[:, None], here & np.isfinite(log_cells))):
            if use.sum() > 3 and Y.shape[1]:
                effects = trends(layout.row[controls[use]], layout.column[controls[use]], last)
                found[g, first : first + 3] = explained_by_place(Y[use], effects, shuffles=shuffles, rng=rng)
    table = pd.DataFrame(index=range(len(layout.plates)))
    for first, name in ((0, "position"), (3, "cells_position")):
        share, expected, p = found[:, first : first + 3].T
        table[f"{name}_share"], table[f"{name}_expected"] = share, expected
        table[f"{name}_excess"], table[f"{name}_p"] = (share - expected) / (1 - expected), p
    return table


def position_map(layout: Layout, scores: NDArray[np.float64], controls: NDArray[np.intp]) -> pd.DataFrame:
    """Mean over plates by position: cell counts relative to the plate's controls, and first component."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = layout.cells / _plate_median(layout)[layout.plate]
    first = np.full(len(layout.plate), np.nan)
    if scores.shape[1]:
        first[controls] = scores[:, 0] / max(scores[:, 0].std(), 1e-12)
    table = pd.DataFrame({"row": layout.row, "column": layout.column, "cells": ratio, "pc1": first})
    table["control_cells"] = np.where(layout.control, ratio, np.nan)
    table["control"] = layout.control
    grouped = table[table["row"] > 0].groupby(["row", "column"], sort=True)
    return grouped.agg(
        n_wells=("control", "size"), n_control=("control", "sum"), cells=("cells", "mean"),
        control_cells=("control_cells", "mean"), control_pc1=("pc1", "mean"),
    ).reset_index()  # fmt: skip


def _plate_median(layout: Layout) -> NDArray[np.float64]:
    """Median control cell count of every plate; NaN where there is none."""
    counts = pd.Series(np.where(layout.control, layout.cells, np.nan)).groupby(layout.plate).median()
    return counts.reindex(range(len(layout.plates))).to_numpy(dtype=np.float64)


def cell_map(profiles: Profiles, layout: Layout) -> pd.DataFrame:
    """Cell count of every well with its place, for heat maps."""
    return pd.DataFrame(
        {
            "plate": profiles.rows["Metadata_Plate"].astype(str),
            "well": profiles.rows["Metadata_Well"].astype(str) if "Metadata_Well" in profiles.rows else "",
            "row": layout.row,
            "column": layout.column,
            "pert_type": profiles.rows["Metadata_pert_type"].astype(str),
            "cell_count": layout.cells,
        }
    )


def control_distance(X: NDArray[np.float32], plate: NDArray[np.intp]) -> NDArray[np.float64]:
    """Distance of control wells from their plate's median control, in robust spreads.

    Parameters
    ----------
    X : float32 array, shape (n, F)
        Control wells.
    plate : int array, shape (n,)

    Returns
    -------
    float64 array, shape (n,)
        Root mean square over features of deviation / (1.4826 MAD of all such deviations), each counted
        as at most 20; NaN on plates with fewer than 4 controls.
    """
    total, count = np.zeros(len(X)), np.zeros(len(X))
    groups = [np.flatnonzero(plate == g) for g in np.unique(plate)]
    groups = [rows for rows in groups if len(rows) >= 4]
    if not groups:
        return np.full(len(X), np.nan)
    rows_used = np.concatenate(groups)
    for first in range(0, X.shape[1], 64):
        deviation = np.full((len(X), len(range(first, min(first + 64, X.shape[1])))), np.nan)
        for rows in groups:
            block = X[rows, first : first + 64].astype(np.float64)
            present = ~np.isnan(block).all(axis=0)
            deviation[np.ix_(rows, np.flatnonzero(present))] = block[:, present] - np.nanmedian(block[:, present], 0)
        used = deviation[rows_used]
        some_value = ~np.isnan(used).all(axis=0)
        spread = np.zeros(used.shape[1])
        spread[some_value] = 1.4826 * np.nanmedian(np.abs(used[:, some_value]), axis=0)
        good = spread > 0
        z = np.minimum(np.abs(deviation[:, good]) / spread[good], _FAR)
        total += np.nansum(z**2, axis=1)
        count += (~np.isnan(z)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, np.sqrt(total / count), np.nan)


def neighbour_shares(profiles: Profiles, layout: Layout, stage: str, *, most: int, seed: int) -> pd.DataFrame:
    """Count what control wells share with the nearest control well.

    Parameters
    ----------
    profiles : Profiles
    layout : Layout
    stage : str
        Text for the column ``stage``.
    most : int
        Control wells compared; with more, whole plates are drawn at random.
    seed : int

    Returns
    -------
    DataFrame
        ``stage, what, share, expected, n, n_plates``: `share` of control wells whose nearest neighbour
        (Euclidean, 50 leading components of standardised features) is on the same plate (among all
        controls), in the same batch (among controls of other plates), at the same position (among
        controls of other plates); `expected` is the share of all candidates that are.
    """
    rng = np.random.default_rng(seed)
    controls = np.flatnonzero(layout.control & ~np.isnan(profiles.X).all(axis=1))
    if len(controls) > most:
        plates = rng.permutation(np.unique(layout.plate[controls]))
        size = np.bincount(layout.plate[controls], minlength=len(layout.plates))[plates]
        chosen = plates[: max(2, int((np.cumsum(size) <= most).sum()))]
        controls = controls[np.isin(layout.plate[controls], chosen)]
    columns = ["stage", "what", "share", "expected", "n", "n_plates"]
    plate, batch, place = layout.plate[controls], layout.batch[controls], layout.place[controls]
    n_plates = len(np.unique(plate))
    scores, _ = leading_components(profiles.X[controls], 50)
    if n_plates < 2 or not scores.shape[1]:
        return pd.DataFrame(columns=columns)
    questions = [("plate", plate, plate >= 0, False)]
    if len(np.unique(batch[batch >= 0])) > 1:
        questions.append(("batch", batch, batch >= 0, True))
    if len(np.unique(place[place > 0])) > 1:
        questions.append(("position", place, place > 0, True))
    counts = {what: np.zeros(3) for what, *_ in questions}
    square = (scores**2).sum(axis=1)
    for start in range(0, len(scores), _BLOCK):
        part = np.arange(start, min(start + _BLOCK, len(scores)))
        distance = square[part, None] + square - 2 * scores[part] @ scores.T
        distance[np.arange(len(part)), part] = np.inf
        away = np.where(plate[part, None] == plate, np.inf, distance)
        for what, codes, known, elsewhere in questions:
            d = np.where(known, away if elsewhere else distance, np.inf)
            candidates = np.isfinite(d)
            asked = known[part] & candidates.any(axis=1)
            same = codes[part, None] == codes
            hit = same[np.arange(len(part)), d.argmin(axis=1)]
            chance = (same & candidates).sum(axis=1) / np.maximum(candidates.sum(axis=1), 1)
            counts[what] += [hit[asked].sum(), chance[asked].sum(), asked.sum()]
    rows = [
        (stage, what, hit / max(n, 1), chance / max(n, 1), int(n), n_plates)
        for what, (hit, chance, n) in counts.items()
    ]
    return pd.DataFrame(rows, columns=columns)
