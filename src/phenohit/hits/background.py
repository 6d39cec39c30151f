"""How bright the background of every well is: what shines there without a stain is the compound."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.profiles import Profiles

__all__ = ["BRIGHT", "background_columns", "compound_background", "well_background"]

BRIGHT = 5.0  # robust SD above the reference from which a compound counts as shining
_LEAST_WELLS = 4  # reference wells of a plate: fewer have no spread to speak of
_LEAST_FEATURES = 2  # of a channel: a single one moves with the biology
# The dim end of an intensity distribution, or what a pipeline measured as background itself.
_DIM = re.compile(r"_Intensity_(?:LowerQuartileIntensity|MinIntensity(?:Edge)?)_(?P<channel>.+)$")
_NAMED = re.compile(r"_Intensity_(?:[A-Za-z]+_)?(?P<channel>[A-Za-z0-9]*?)_?Background(?:_(?P<after>.+))?$", re.I)


def background_columns(features: list[str]) -> dict[str, list[int]]:
    """Find the features that hold background intensities.

    Returns
    -------
    dict
        Channel -> positions in `features`: lower quartiles, minima and minima along the edge of the intensity in
        any compartment, and features called background. Channels with a single one are left out.
    """
    found: dict[str, list[int]] = {}
    for place, name in enumerate(features):
        dim, named = _DIM.search(name), _NAMED.search(name)
        if dim:
            found.setdefault(dim["channel"], []).append(place)
        elif named:
            found.setdefault(named["after"] or named["channel"] or "all", []).append(place)
    return {channel: places for channel, places in found.items() if len(places) >= _LEAST_FEATURES}


def well_background(profiles: Profiles) -> pd.DataFrame:
    """Compare the background of every treated well with the DMSO wells of its plate.

    Parameters
    ----------
    profiles : Profiles, N rows
        Wells with ``Metadata_Plate``, where known ``Metadata_Well`` and ``Metadata_pert_type``; features as read,
        before steps mix them.

    Returns
    -------
    DataFrame
        One row per treated well: ``plate, well, channel`` (the brightest), ``z`` (float32: robust standard
        deviations above the reference; of the background features of a channel the least raised counts,
        so that all of them must be) and ``reference`` (``DMSO``, or ``its plate`` where a plate has fewer than
        4 negative controls). No rows where there are no such features or plates.
    """
    channels = background_columns(profiles.features)
    rows = profiles.rows
    columns = ["plate", "well", "channel", "z", "reference"]
    if not channels or "Metadata_Plate" not in rows:
        return pd.DataFrame({c: pd.Series(dtype=np.float32 if c == "z" else object) for c in columns})
    kind = rows["Metadata_pert_type"] if "Metadata_pert_type" in rows else pd.Series("trt", index=rows.index)
    negcon, treated = (kind == "negcon").to_numpy(), (kind == "trt").to_numpy()
    names = np.array(list(channels), dtype=object)
    z = np.full((len(rows), len(names)), np.nan, dtype=np.float32)
    reference = np.full(len(rows), "DMSO", dtype=object)
    for at in rows.groupby("Metadata_Plate", sort=False).indices.values():
        base = at[negcon[at]]
        if len(base) < _LEAST_WELLS:
            base, reference[at] = at, "its plate"
        for j, places in enumerate(channels.values()):
            z[at, j] = _least_raised(profiles.X[at][:, places], profiles.X[base][:, places])
    known = treated & ~np.isnan(z).all(axis=1)
    brightest = np.argmax(np.where(np.isnan(z[known]), -np.inf, z[known]), axis=1)
    return pd.DataFrame(
        {
            "plate": rows["Metadata_Plate"].astype(str)[known],
            "well": rows["Metadata_Well"].astype(str)[known] if "Metadata_Well" in rows else "",
            "channel": names[brightest],
            "z": z[known][np.arange(len(brightest)), brightest],
            "reference": reference[known],
        }
    )[columns].reset_index(drop=True)


def _least_raised(values: NDArray[np.float32], base: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the lowest robust z of n wells over the features, shape (n,); NaN where no feature has a spread."""
    enough = np.isfinite(base).sum(axis=0) >= _LEAST_WELLS
    if not enough.any():
        return np.full(len(values), np.nan, dtype=np.float32)
    here, wells = values[:, enough].astype(np.float64), base[:, enough].astype(np.float64)
    middle = np.nanmedian(wells, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(wells - middle), axis=0)
    usable = spread > 4 * np.finfo(np.float32).eps * np.abs(middle)
    if usable.sum() < _LEAST_FEATURES:
        return np.full(len(values), np.nan, dtype=np.float32)
    z = (here[:, usable] - middle[usable]) / spread[usable]
    return z.min(axis=1).astype(np.float32)  # NaN if any feature is missing


def compound_background(wells: pd.DataFrame, background: pd.DataFrame) -> pd.DataFrame:
    """Bring the background of wells to compounds.

    Parameters
    ----------
    wells : DataFrame
        ``compound, plate, well``.
    background : DataFrame
        As from `well_background`.

    Returns
    -------
    DataFrame
        ``compound, channel, z, reference``: the well with the median z of each compound (the lower of the two
        in the middle), so that one bright well of three does not count.
    """
    keys = ["plate", "well"]
    once = background.sort_values("z", kind="stable").drop_duplicates(keys)  # sites of one well: the dimmest
    joined = wells[["compound", *keys]].drop_duplicates().merge(once, on=keys)
    joined = joined.sort_values(["compound", "z"], kind="stable", ignore_index=True)
    size = joined.groupby("compound", sort=False)["z"].size().to_numpy()
    first = np.concatenate([[0], np.cumsum(size)[:-1]]).astype(np.intp) if len(size) else np.zeros(0, np.intp)
    return joined.iloc[first + (size - 1) // 2][["compound", "channel", "z", "reference"]].reset_index(drop=True)
