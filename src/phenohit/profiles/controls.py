"""Which wells a step learns from, and what it may learn: groups, reference wells, usable features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, PlateError, some

__all__ = [
    "ROUNDING",
    "Usable",
    "group_codes",
    "reference_rows",
    "refuse_infinite",
    "require_reference",
    "usable_features",
    "well_names",
]

# A spread below four steps of float32 at the centre's size is rounding, not biology.
ROUNDING = 4 * float(np.finfo(np.float32).eps)
_BLOCK = 4096  # rows per block in float64: 59 MB at 1,800 features
_MAX_GAPS = 0.05  # share of wells that may lack a feature, as in `Prepare`
_MAX_LOST = 0.5  # share of features that a well may lack


def well_names(profiles: Profiles, rows: NDArray[np.intp]) -> list[str]:
    """Name wells for the list of dropped things: plate and well where known, else the row."""
    known = [c for c in ("Metadata_Plate", "Metadata_Well") if c in profiles.rows]
    if not known:
        return [f"row {i}" for i in rows]
    parts = profiles.rows[known].iloc[rows].astype(str).to_numpy()
    return [" ".join(p).strip() or f"row {i}" for p, i in zip(parts, rows, strict=True)]


def refuse_infinite(profiles: Profiles, step: str) -> None:
    """Raise if a value is infinite: no centre or spread can be learned beside it.

    Raises
    ------
    ColumnError
        Names the features.
    """
    found = np.zeros(len(profiles.features), dtype=bool)
    for start in range(0, len(profiles), _BLOCK):
        found |= np.isinf(profiles.X[start : start + _BLOCK]).any(axis=0)
    if found.any():
        raise ColumnError(
            f"{step}: {found.sum()} features hold infinite values: "
            f"{some(profiles.features[j] for j in np.flatnonzero(found))}. Set them to NaN (missing); "
            "read_profiles does so."
        )


def group_codes(profiles: Profiles, by: Literal["plate", "batch", "all"]) -> tuple[NDArray[np.intp], list[str]]:
    """Return the group of every row, shape (N,), and the groups' names in order of appearance.

    Raises
    ------
    PlateError
        If rows have no plate (or batch).
    """
    if by == "all":
        return np.zeros(len(profiles), dtype=np.intp), ["all wells"]
    column = "Metadata_Plate" if by == "plate" else "Metadata_Batch"
    if column not in profiles.rows:
        raise PlateError(
            f"A step works by {by}, but the profiles have no '{column}'. Name the column in profiles.columns "
            f"({by}: ...), or set by: all in the step."
        )
    names = profiles.rows[column].astype(str).str.strip()
    lost = np.flatnonzero((names == "").to_numpy())
    if len(lost):
        raise PlateError(
            f"{len(lost)} of {len(profiles)} wells have no {by} ('{column}' is empty): "
            f"{some(well_names(profiles, lost[:11]))}. Fill it in, leave the wells out, or set by: all in the step."
        )
    codes, groups = pd.factorize(names)
    return codes.astype(np.intp), [str(g) for g in groups]


def reference_rows(profiles: Profiles, reference: Literal["negcon", "plate"]) -> NDArray[np.bool_]:
    """Return which rows a step learns from, shape (N,).

    Raises
    ------
    ColumnError
        If controls are wanted and the rows do not say which they are.
    """
    if reference == "plate":
        return np.ones(len(profiles), dtype=bool)
    if "Metadata_pert_type" not in profiles.rows:
        raise ColumnError(
            "A step learns from negative controls, but the profiles have no 'Metadata_pert_type'. Name the "
            "controls in profiles.controls, or set reference: plate in the step."
        )
    return (profiles.rows["Metadata_pert_type"] == "negcon").to_numpy(dtype=bool)


def require_reference(
    profiles: Profiles,
    codes: NDArray[np.intp],
    groups: list[str],
    is_reference: NDArray[np.bool_],
    *,
    by: str,
    reference: str,
    least: int,
    doing: str,
) -> None:
    """Raise if a group has fewer than `least` reference wells.

    Raises
    ------
    PlateError
        Says what the first such group has instead, names the others and says what to set.
    """
    count = np.bincount(codes[is_reference], minlength=len(groups))
    short = np.flatnonzero(count < least)
    if not len(short):
        return
    first = int(short[0])
    name = "the whole table" if by == "all" else f"{by} '{groups[first]}'"
    if reference == "plate":
        raise PlateError(
            f"{name} has {count[first]} wells. {doing} needs at least {least}. Leave the {by} out, "
            f"or lower min_controls{_others(groups, short, by)}."
        )
    kinds = profiles.rows["Metadata_pert_type"][codes == first]
    others = kinds[kinds != "negcon"].value_counts()
    has = ", ".join(f"{n} '{kind or 'of no kind'}'" for kind, n in others.items()) or "no other wells"
    raise PlateError(
        f"{name} has {count[first]} wells with Metadata_pert_type == 'negcon' (it has {has}). {doing} to controls "
        f"needs at least {least}. Set reference: plate in this step, lower min_controls, leave the {by} out, or fix "
        f"profiles.controls{_others(groups, short, by)}."
    )


def _others(groups: list[str], short: NDArray[np.intp], by: str) -> str:
    if len(short) == 1:
        return ""
    return f". The same holds for {len(short) - 1} more ({by}): {some((groups[g] for g in short[1:]), 9)}"


@dataclass(frozen=True, eq=False)
class Usable:
    """Columns without larger gaps that vary among the reference wells of every group.

    Attributes
    ----------
    kept : int64 array, shape (K,)
    mean, sd : float64 arrays, shape (G, K)
        Of the reference wells of each group (divisor n). Gaps become the mean.
    """

    kept: NDArray[np.int64]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]

    def blocks(self, X: NDArray[np.float32], rows: NDArray[np.intp], g: int, scale: bool) -> Iterator[NDArray]:
        """Yield rows of group `g` in float64: gaps filled, centred, scaled if asked."""
        for start in range(0, len(rows), _BLOCK):
            block = X[rows[start : start + _BLOCK]][:, self.kept].astype(np.float64)
            block -= self.mean[g]
            block[np.isnan(block)] = 0.0  # as the mean of the controls
            if scale:
                block /= self.sd[g]
            yield block

    def lost(self, X: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Rows that lack too much to be filled in, shape (N,)."""
        found = np.zeros(len(X), dtype=bool)
        for start in range(0, len(X), _BLOCK):
            gaps = np.isnan(X[start : start + _BLOCK][:, self.kept]).sum(axis=1)
            found[start : start + _BLOCK] = gaps > _MAX_LOST * len(self.kept)
        return found


def usable_features(
    profiles: Profiles, codes: NDArray[np.intp], n_groups: int, is_reference: NDArray[np.bool_], stage: str
) -> tuple[Usable, NDArray[np.bool_], pd.DataFrame]:
    """Find the columns that a rotation can be learned on.

    Returns
    -------
    usable : Usable
    fitted : bool array, shape (N,)
        Reference rows that are complete enough to learn from.
    dropped : DataFrame
        Features left out; features kept with gaps filled, with the count.

    Raises
    ------
    ColumnError
        If no feature is usable.
    """
    X, features = profiles.X, profiles.features
    gaps = np.zeros((len(X), 1), dtype=np.int64)
    for start in range(0, len(X), _BLOCK):
        gaps[start : start + _BLOCK, 0] = np.isnan(X[start : start + _BLOCK]).sum(axis=1)
    whole = gaps[:, 0] <= _MAX_LOST * len(features)
    missing, n_whole = np.zeros(len(features), dtype=np.int64), int(whole.sum())
    for start in range(0, len(X), _BLOCK):
        missing += np.isnan(X[start : start + _BLOCK][whole[start : start + _BLOCK]]).sum(axis=0)
    gappy = missing > _MAX_GAPS * n_whole
    fitted = is_reference & whole
    kept = np.flatnonzero(~gappy).astype(np.int64)
    mean, sd = np.zeros((n_groups, len(kept))), np.zeros((n_groups, len(kept)))
    for g in range(n_groups):
        mean[g], sd[g] = _moments(X, np.flatnonzero(fitted & (codes == g)), kept)
    flat = ~(sd > ROUNDING * np.abs(mean)).all(axis=0) | ~np.isfinite(sd).all(axis=0)
    filled = ~gappy & (missing > 0)
    filled[kept[flat]] = False
    where = "the controls" if n_groups == 1 else "the controls of a batch"
    lists = [
        dropped(
            stage, "feature", _names(features, gappy), [f"missing in {k} of {n_whole} wells" for k in missing[gappy]]
        ),
        dropped(stage, "feature", [features[j] for j in kept[flat]], f"no spread among {where}"),
        dropped(
            stage,
            "feature",
            _names(features, filled),
            [f"{k} missing values were set to the controls' mean; the feature is kept" for k in missing[filled]],
        ),
    ]
    if flat.all():
        raise ColumnError(
            f"{stage}: none of the {len(features)} features can be used: {gappy.sum()} have gaps in more than "
            f"{_MAX_GAPS:.0%} of the wells, {flat.sum()} do not vary among {where}."
        )
    table = pd.concat(lists, ignore_index=True)
    return Usable(kept[~flat], mean[:, ~flat], sd[:, ~flat]), fitted, table


def _names(features: list[str], mask: NDArray[np.bool_]) -> list[str]:
    return [features[j] for j in np.flatnonzero(mask)]


def _moments(X: NDArray[np.float32], rows: NDArray[np.intp], kept: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """Mean and SD (divisor n) over the values that are present, in two passes of blocks."""
    n, total, square = np.zeros(len(kept)), np.zeros(len(kept)), np.zeros(len(kept))
    for start in range(0, len(rows), _BLOCK):
        block = X[rows[start : start + _BLOCK]][:, kept].astype(np.float64)
        n += (~np.isnan(block)).sum(axis=0)
        total += np.nansum(block, axis=0)
    with np.errstate(invalid="ignore"):  # a feature without any value has no mean: NaN, left out above
        mean = total / n
    for start in range(0, len(rows), _BLOCK):
        block = X[rows[start : start + _BLOCK]][:, kept].astype(np.float64)
        square += np.nansum((block - mean) ** 2, axis=0)
    with np.errstate(invalid="ignore"):
        return mean, np.sqrt(square / n)
