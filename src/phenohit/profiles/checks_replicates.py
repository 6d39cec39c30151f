"""Replicate correlation: do wells with the same treatment look more alike than unrelated wells do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.profiles import Profiles
from phenohit.profiles.checks_layout import Layout

__all__ = ["Replicates", "pair_correlation", "replicate_checks", "treatment_codes"]

_BLOCK = 1 << 22  # values gathered at once
_LEAST_FEATURES = 3  # with fewer, a correlation over features says nothing
_MOST_WELLS = 8  # wells per treatment that are compared; drawn at random where there are more
_DRAWS = 1000  # groups of unrelated wells per group size


@dataclass(frozen=True, eq=False)
class Replicates:
    """Replicate correlations.

    Attributes
    ----------
    treatments : DataFrame
        Columns as in `phenohit.profiles.checks.Checks.replicates`.
    per_plate : float64 array, shape (plates,)
        Median over the plate's treated wells of their mean correlation with their replicates.
    null : float64 array
        Median correlations of groups of unrelated wells, as many per group size as `draws`.
    note : str
        What was drawn or relaxed, or why there is nothing.
    """

    treatments: pd.DataFrame
    per_plate: NDArray[np.float64]
    null: NDArray[np.float64]
    note: str


COLUMNS = ["compound_id", "concentration", "n_wells", "median_r", "null_q95", "replicating", "same_position"]


def treatment_codes(profiles: Profiles) -> tuple[NDArray[np.intp], pd.DataFrame]:
    """Return the treatment (compound and concentration) of every well, -1 for none, and their names.

    Only wells of pert_type trt that name their compound (Metadata_compound_id, or InChIKey or SMILES
    where there is no id) have one.
    """
    rows = profiles.rows
    names = [c for c in ("Metadata_compound_id", "Metadata_InChIKey", "Metadata_SMILES")]
    names = [c for c in names if c in rows and (rows[c] != "").to_numpy().any()]
    if not names:
        return np.full(len(rows), -1, dtype=np.intp), pd.DataFrame(columns=["compound_id", "concentration"])
    dose = rows["Metadata_concentration_uM"] if "Metadata_concentration_uM" in rows else pd.Series("", rows.index)
    table = pd.DataFrame({"compound_id": rows[names[0]].astype(str), "concentration": dose.astype(str)})
    treated = ((rows["Metadata_pert_type"] == "trt") & (table["compound_id"] != "")).to_numpy(dtype=bool)
    codes = np.full(len(rows), -1, dtype=np.intp)
    found = table[treated].groupby(["compound_id", "concentration"], sort=False).ngroup().to_numpy()
    codes[treated] = found
    return codes, table[treated].drop_duplicates().reset_index(drop=True)


def pair_correlation(X: NDArray[np.float32], a: NDArray[np.intp], b: NDArray[np.intp]) -> NDArray[np.float64]:
    """Pearson correlation over features of rows a[i] and b[i]; missing features count as the row's mean."""
    r = np.empty(len(a))
    step = max(1, _BLOCK // max(X.shape[1], 1))
    for start in range(0, len(a), step):
        part = slice(start, start + step)
        A, B = _centred(X[a[part]]), _centred(X[b[part]])
        size = np.sqrt((A**2).sum(axis=1) * (B**2).sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            r[part] = np.where(size > 0, np.einsum("ij,ij->i", A, B) / size, np.nan)
    return r


def _centred(values: NDArray[np.float32]) -> NDArray[np.float64]:
    block = values.astype(np.float64)
    gaps = np.isnan(block)
    count = (~gaps).sum(axis=1)
    block[gaps] = 0.0
    block -= (block.sum(axis=1) / np.maximum(count, 1))[:, None]
    block[gaps] = 0.0
    return block


def replicate_checks(profiles: Profiles, layout: Layout, *, most: int, seed: int) -> Replicates:
    """Correlate replicates, and unrelated wells for comparison.

    Parameters
    ----------
    profiles : Profiles
    layout : Layout
    most : int
        Treatments compared; with more, so many are drawn at random.
    seed : int

    Notes
    -----
    A treatment replicates if the median correlation of its pairs of wells is above the 95th percentile
    of medians over as many unrelated wells ("percent replicating", Way et al. 2022). Unrelated wells
    have different compounds, different positions and, where there are enough plates, different plates.
    """
    rng = np.random.default_rng(seed)
    nothing = Replicates(pd.DataFrame(columns=COLUMNS), np.full(len(layout.plates), np.nan), np.zeros(0), "")
    if len(profiles.features) < _LEAST_FEATURES:
        return Replicates(*_parts(nothing), "fewer than 3 features: no correlation between wells")
    codes, names = treatment_codes(profiles)
    size = np.bincount(codes[codes >= 0], minlength=len(names))
    several = np.flatnonzero(size >= 2)
    if not len(several):
        return Replicates(*_parts(nothing), "no treatment has two wells")
    notes = []
    if len(several) > most:
        notes.append(f"{most:,} of {len(several):,} treatments with replicates were drawn at random")
        several = np.sort(rng.choice(several, most, replace=False))
    wells, group = _wells_of(codes, several, rng)
    if (size[several] > _MOST_WELLS).any():
        notes.append(f"at most {_MOST_WELLS} wells of a treatment were compared")
    a, b, pair_group = _pairs(group)
    r = pair_correlation(profiles.X, wells[a], wells[b])
    place = layout.place[wells]
    same = np.where((place[a] > 0) & (place[b] > 0), place[a] == place[b], np.nan)
    table = pd.DataFrame({"g": pair_group, "r": r, "same": same}).groupby("g").agg({"r": "median", "same": "mean"})
    found = names.iloc[several].reset_index(drop=True)
    found["n_wells"] = size[several]
    found["median_r"] = table["r"].to_numpy()
    compared = np.bincount(group, minlength=len(several))
    limits, nulls = _null(profiles, layout, codes, names, np.unique(compared), rng, notes)
    found["null_q95"] = [limits[m] for m in compared]
    found["replicating"] = found["median_r"] > found["null_q95"]
    found["same_position"] = table["same"].to_numpy()
    both = pd.Series(np.concatenate([r, r])).groupby(np.concatenate([wells[a], wells[b]])).mean()
    per_plate = both.groupby(layout.plate[both.index.to_numpy()]).median()
    per_plate = per_plate.reindex(range(len(layout.plates))).to_numpy(dtype=np.float64)
    return Replicates(found[COLUMNS], per_plate, nulls, "; ".join(notes))


def _parts(nothing: Replicates) -> tuple[pd.DataFrame, NDArray[np.float64], NDArray[np.float64]]:
    return nothing.treatments, nothing.per_plate, nothing.null


def _wells_of(
    codes: NDArray[np.intp], chosen: NDArray[np.intp], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Wells of the chosen treatments, at most 8 each, sorted by treatment, and their treatment."""
    place = np.full(codes.max() + 1, -1, dtype=np.intp)
    place[chosen] = np.arange(len(chosen))
    wells = np.flatnonzero((codes >= 0) & (place[codes] >= 0))
    wells = wells[np.lexsort([rng.random(len(wells)), place[codes[wells]]])]
    group = place[codes[wells]]
    starts = np.searchsorted(group, np.arange(len(chosen)))
    keep = np.arange(len(wells)) - starts[group] < _MOST_WELLS
    return wells[keep], group[keep]


def _pairs(group: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """All pairs of positions with the same group; `group` is sorted."""
    first, second = [], []
    for shift in range(1, _MOST_WELLS):
        at = np.flatnonzero(group[shift:] == group[:-shift]) if len(group) > shift else np.zeros(0, dtype=np.intp)
        first.append(at)
        second.append(at + shift)
    a, b = np.concatenate(first), np.concatenate(second)
    return a, b, group[a]


def _null(
    profiles: Profiles,
    layout: Layout,
    codes: NDArray[np.intp],
    names: pd.DataFrame,
    sizes: NDArray[np.intp],
    rng: np.random.Generator,
    notes: list[str],
) -> tuple[dict[int, float], NDArray[np.float64]]:
    """95th percentile of the median correlation of unrelated wells, for every group size."""
    treated = np.flatnonzero(codes >= 0)
    compound = pd.factorize(names["compound_id"])[0][codes[treated]]
    place, plate = layout.place[treated], layout.plate[treated]
    limits, nulls = {}, []
    for m in (int(s) for s in sizes):
        group = _unrelated(m, [compound, place, plate], rng)
        if len(group) < _DRAWS // 4:
            group = _unrelated(m, [compound, place], rng)
            notes.append(f"unrelated groups of {m} wells may share plates")
        if len(group) < _DRAWS // 4:
            group = _unrelated(m, [compound], rng)
            notes.append(f"unrelated groups of {m} wells may share positions")
        if not len(group):
            limits[m] = np.nan
            continue
        i, j = np.triu_indices(m, 1)
        r = pair_correlation(profiles.X, treated[group[:, i].ravel()], treated[group[:, j].ravel()])
        medians = np.median(r.reshape(len(group), -1), axis=1)
        medians = medians[np.isfinite(medians)]
        limits[m] = float(np.quantile(medians, 0.95)) if len(medians) else np.nan
        nulls.append(medians)
    return limits, np.concatenate(nulls) if nulls else np.zeros(0)


def _unrelated(m: int, apart: list[NDArray[np.intp]], rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw groups of m wells that differ in all of `apart`, shape (at most 1000, m)."""
    found = np.zeros((0, m), dtype=np.intp)
    for _ in range(20):
        group = rng.integers(0, len(apart[0]), size=(_DRAWS * 2, m))
        good = np.ones(len(group), dtype=bool)
        for codes in apart:
            ordered = np.sort(codes[group], axis=1)
            good &= (np.diff(ordered, axis=1) != 0).all(axis=1)
        found = np.vstack([found, group[good]])[:_DRAWS]
        if len(found) == _DRAWS:
            break
    return found
