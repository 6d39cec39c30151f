"""Replicate mean average precision by copairs: how well wells are told apart from negative controls."""

from __future__ import annotations

import tempfile

import numpy as np
import pandas as pd

from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError
from phenohit.profiles.checks_layout import Layout
from phenohit.profiles.checks_replicates import treatment_codes

__all__ = ["COLUMNS", "mean_average_precision"]

COLUMNS = ["compound_id", "concentration", "n_wells", "map", "normalised_map", "p_value", "corrected_p_value"]
_DRAWS = 10_000  # of the null distribution; p-values end at 1 in 10,001


def mean_average_precision(profiles: Profiles, layout: Layout, *, seed: int) -> tuple[pd.DataFrame, str]:
    """Rank replicates of each treatment among the negative controls of the same plate.

    For every treated well, its replicates (on any plate) and the negative controls of its own plate
    are ranked by cosine similarity; the average precision of the replicates is averaged over the
    treatment's wells (Kalinin et al. 2025). Features with gaps are left out.

    Parameters
    ----------
    profiles : Profiles
    layout : Layout
    seed : int

    Returns
    -------
    table : DataFrame
        Columns `COLUMNS`; p-values against random ranks, corrected by Benjamini-Hochberg.
    note : str
        Why there is nothing, or ''.

    Raises
    ------
    ConfigError
        If copairs is not installed.
    """
    try:
        from copairs import map as copairs_map
    except ImportError as error:
        raise ConfigError(
            "checks.map needs the package copairs, which is not installed. Install it with: "
            "pip install 'phenohit[qc]', or set checks.map: false."
        ) from error
    nothing = pd.DataFrame(columns=COLUMNS)
    codes, names = treatment_codes(profiles)
    with_controls = np.bincount(layout.plate[layout.control], minlength=len(layout.plates)) > 0
    size = np.bincount(codes[codes >= 0], minlength=len(names))
    treated = (codes >= 0) & (size[codes] >= 2) & with_controls[layout.plate]
    chosen = np.flatnonzero(treated | layout.control)
    whole = ~np.isnan(profiles.X[chosen]).any(axis=0)
    if not treated.any():
        return nothing, "no treatment has two wells on plates with controls"
    if not whole.any():
        return nothing, "no feature is without gaps"
    meta = pd.DataFrame(
        {
            # every control its own treatment: two controls are no pair of replicates
            "treatment": np.where(layout.control, -1 - np.arange(len(codes)), codes)[chosen],
            "kind": np.where(layout.control, "control", "treated")[chosen],
            "plate": layout.plate[chosen],
        }
    )
    found = copairs_map.average_precision(
        meta,
        profiles.X[np.ix_(chosen, whole)],
        pos_sameby=["treatment"],
        pos_diffby=[],
        neg_sameby=["plate"],
        neg_diffby=["kind"],
        progress_bar=False,
    )
    found = found[found["kind"] == "treated"].reset_index(drop=True)
    with tempfile.TemporaryDirectory() as folder:  # else it keeps null distributions below the user's home
        table = copairs_map.mean_average_precision(
            found, ["treatment"], null_size=_DRAWS, threshold=0.05, seed=seed, progress_bar=False, cache_dir=folder
        )
    order = table["treatment"].to_numpy(dtype=np.intp)
    out = names.iloc[order].reset_index(drop=True)
    out["n_wells"] = size[order]
    out["map"] = table["mean_average_precision"].to_numpy(dtype=np.float64)
    out["normalised_map"] = table["mean_normalized_average_precision"].to_numpy(dtype=np.float64)
    out["p_value"] = table["p_value"].to_numpy(dtype=np.float64)
    out["corrected_p_value"] = table["corrected_p_value"].to_numpy(dtype=np.float64)
    return out[COLUMNS], ""
