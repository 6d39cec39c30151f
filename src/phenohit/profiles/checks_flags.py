"""Rules that flag a plate or a well."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from phenohit.config import ChecksConfig
from phenohit.data.profiles import Profiles
from phenohit.profiles.checks_layout import Layout
from phenohit.profiles.checks_reference import LEAST_OFF, MOST_OFF, References

__all__ = ["RULES", "flag"]

RULES = {
    "few_cells": "a control well, or a plate's controls, with far fewer cells than others",
    "no_controls": "a plate without negative controls",
    "position": "a plate whose controls differ by row and column",
    "replicates": "a plate whose wells resemble their replicates far less than on other plates",
    "outlier": "a control well far from the plate's other controls",
    "reference": "a reference well far from the history of its compound and dose, or a plate with many of them",
}

_COLUMNS = ["what", "plate", "well", "rule", "value", "limit", "text"]
_P = 0.001  # of position effects, corrected for all plates and both measurements
_MADS = 4.0  # spreads below the median plate at which replicates are flagged
_FAR = 5.0  # spreads, on a log scale, at which a control well is flagged


def flag(
    plates: pd.DataFrame,
    wells: Layout,
    before: Profiles,
    after: Profiles,
    distance: NDArray[np.float64],
    config: ChecksConfig,
    references: References,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Apply all rules.

    Parameters
    ----------
    plates : DataFrame
        As in `phenohit.profiles.checks.Checks.plates`, without outliers and rules.
    wells : Layout
        Of `before`.
    before, after : Profiles
    distance : float64 array, shape (rows of after,)
        Of control wells from their plate's median.
    config : ChecksConfig
    references : References
        Of `after`.

    Returns
    -------
    flags, plates : DataFrame
        `plates` with ``n_outliers``, ``n_reference``, ``n_reference_off`` and ``rules``.
    """
    found = [
        *_few_cells(plates, wells, before, config.few_cells),
        *_no_controls(plates),
        *_position(plates, config.position),
        *_replicates(plates),
        *_outliers(after, distance),
        *_references(after, references),
    ]
    flags = pd.DataFrame(found, columns=_COLUMNS).astype({"value": np.float64, "limit": np.float64})
    text = [c for c in _COLUMNS if c not in ("value", "limit")]
    flags[text] = flags[text].astype(str)
    outliers = flags[flags["rule"] == "outlier"]["plate"].value_counts()
    rules: dict[str, list[str]] = {p: [] for p in plates["plate"]}
    for plate, rule in flags.loc[flags["what"] == "plate", ["plate", "rule"]].drop_duplicates().to_numpy():
        rules[plate].append(rule)
    plates = plates.assign(
        n_outliers=[int(outliers.get(p, 0)) for p in plates["plate"]],
        n_reference=_per_plate(references, references.judged).reindex(plates["plate"], fill_value=0).to_numpy(),
        n_reference_off=_per_plate(references, references.off).reindex(plates["plate"], fill_value=0).to_numpy(),
        rules=pd.Series([";".join(rules[p]) for p in plates["plate"]], index=plates.index, dtype=str),
    )
    return flags, plates


_Row = tuple[str, str, str, str, float, float, str]


def _few_cells(plates: pd.DataFrame, wells: Layout, before: Profiles, least: float) -> Iterable[_Row]:
    usual = plates["control_cells"].to_numpy()
    typical = np.nanmedian(usual) if np.isfinite(usual).any() else np.nan
    for plate, count in zip(plates["plate"], usual, strict=True):
        if count < least * typical:
            text = f"median control has {count:g} cells; of all plates {typical:g}"
            yield "plate", plate, "", "few_cells", count / typical, least, text
    median = usual[wells.plate]
    low = np.flatnonzero(wells.control & (wells.cells < least * median))
    names = _wells(before, low)
    for i, well in zip(low, names, strict=True):
        text = f"control well has {wells.cells[i]:g} cells; the plate's median control {median[i]:g}"
        yield "well", wells.plates[wells.plate[i]], well, "few_cells", wells.cells[i] / median[i], least, text


def _no_controls(plates: pd.DataFrame) -> Iterable[_Row]:
    for plate in plates.loc[plates["n_negcon"] == 0, "plate"]:
        yield "plate", plate, "", "no_controls", 0.0, 1.0, "no well is a negative control"


def _position(plates: pd.DataFrame, limit: float) -> Iterable[_Row]:
    names = {"position": "the profiles", "cells_position": "cell counts"}
    p = plates[[f"{name}_p" for name in names]].to_numpy(dtype=np.float64)
    known = np.isfinite(p)
    p[known] = stats.false_discovery_control(p[known]) if known.any() else p[known]
    for i, (name, of) in enumerate(names.items()):
        bad = (plates[f"{name}_excess"] > limit) & (p[:, i] < _P)
        for row in plates[bad].to_dict("records"):
            text = (
                f"row and column explain {row[f'{name}_share']:.0%} of the variance of {of} among the controls; "
                f"{row[f'{name}_expected']:.0%} expected by chance"
            )
            yield "plate", row["plate"], "", "position", row[f"{name}_excess"], limit, text


def _replicates(plates: pd.DataFrame) -> Iterable[_Row]:
    r = plates["replicate_r"].to_numpy()
    known = r[np.isfinite(r)]
    if len(known) < 3 or not (typical := float(np.median(known))) > 0:
        return
    spread = 1.4826 * float(np.median(np.abs(known - typical)))
    limit = min(typical / 2, typical - _MADS * spread)
    for plate, value in zip(plates["plate"], r, strict=True):
        if value < limit:
            text = f"its wells correlate with their replicates by {value:.2f}; on the median plate by {typical:.2f}"
            yield "plate", plate, "", "replicates", float(value), limit, text


def _outliers(after: Profiles, distance: NDArray[np.float64]) -> Iterable[_Row]:
    known = np.isfinite(distance) & (distance > 0)
    if known.sum() < 10:
        return
    log_distance = np.log(distance[known])
    centre = np.median(log_distance)
    limit = float(np.exp(centre + _FAR * 1.4826 * np.median(np.abs(log_distance - centre))))
    far = np.flatnonzero(known & (np.nan_to_num(distance) > limit))
    plates = after.rows["Metadata_Plate"].astype(str).to_numpy()[far]
    for i, plate, well in zip(far, plates, _wells(after, far), strict=True):
        usual = float(np.exp(centre))
        text = f"control well is {distance[i]:.1f} robust spreads from its plate's median; the usual is {usual:.1f}"
        yield "well", plate, well, "outlier", float(distance[i]), limit, text


def _references(after: Profiles, references: References) -> Iterable[_Row]:
    off, judged = (_per_plate(references, mask) for mask in (references.off, references.judged))
    for plate in off.index[(off > MOST_OFF * judged) & (off >= LEAST_OFF)]:
        text = f"{off[plate]} of {judged[plate]} reference wells are not as in their history"
        yield "plate", str(plate), "", "reference", off[plate] / judged[plate], MOST_OFF, text
    far = references.wells[references.off]
    names = _wells(after, far["row"].to_numpy())
    for row, well in zip(far.to_dict("records"), names, strict=True):
        dose = f" at {row['concentration']} uM" if row["concentration"] else ""
        text = (
            f"reference {row['reference']}{dose} is {row['distance']:.1f} spreads from {row['n_history']} historic "
            f"wells; about 1 in 1,000 is beyond {row['limit']:.1f}"
        )
        yield "well", row["plate"], well, "reference", row["distance"], row["limit"], text


def _per_plate(references: References, mask: NDArray[np.bool_]) -> pd.Series:
    """Count reference wells per plate; 0 on plates where none is counted."""
    return pd.Series(mask.astype(np.intp)).groupby(references.wells["plate"].to_numpy()).sum()


def _wells(profiles: Profiles, rows: NDArray[np.intp]) -> list[str]:
    if "Metadata_Well" not in profiles.rows:
        return [""] * len(rows)
    return profiles.rows["Metadata_Well"].iloc[rows].astype(str).tolist()
