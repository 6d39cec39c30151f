"""Which plates are drawn, and the colour of every well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.profiles.checks import Checks
from phenohit.report.heatmaps import CELL_BOUNDS, plate_shape, well_name

__all__ = ["ALL_DRAWN", "choose_plates", "drawn_plates", "mean_maps"]

ALL_DRAWN = 12  # so many plates or fewer are all drawn
_FLAGGED = 20  # else these of the flagged ones, the worst first
_OTHERS = 4  # and these of the others, spread over the screen, to compare with
_OPEN = 8  # of these, drawn without a click
_TOLD = 4000  # wells with a tooltip; each costs 50 bytes
_WELLS = 25_000  # wells drawn at all
_STEPS = (0.005, 0.01, 0.02, 0.025, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0)


def choose_plates(plates: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Choose the plates that are drawn.

    Parameters
    ----------
    plates : DataFrame
        The worst first, with ``rules`` and ``order``.

    Returns
    -------
    plates : DataFrame
        All in their own order, up to 12; else flagged ones, then others.
    n_open : int
        How many of them need no click.
    """
    if len(plates) <= ALL_DRAWN:
        return plates.sort_values("order"), len(plates)
    flagged = plates[plates["rules"] != ""].head(_FLAGGED)
    calm = plates[plates["rules"] == ""].sort_values("order")
    others = calm.iloc[np.unique(np.linspace(0, len(calm) - 1, _OTHERS).astype(int))] if len(calm) else calm
    if len(flagged) > _OPEN - 1 and len(others):  # one of the others stands among the first, to compare with
        chosen = [flagged.head(_OPEN - 1), others.head(1), flagged.iloc[_OPEN - 1 :], others.iloc[1:]]
        return pd.concat(chosen), _OPEN
    return pd.concat([flagged, others]), _OPEN


def drawn_plates(checks: Checks, plates: pd.DataFrame) -> list[dict[str, Any]]:
    """Colour the wells of some plates by cell count.

    Parameters
    ----------
    checks : Checks
    plates : DataFrame
        Rows of `Checks.plates`, in the order in which they are drawn.

    Returns
    -------
    list of dict
        As `phenohit.report.heatmaps.plate_map` takes them, with ``plate``, ``rules`` and ``note``; plates
        without a known well are left out.
    """
    cells = checks.cells[checks.cells["plate"].isin(plates["plate"])]
    cells = cells[cells["row"] > 0]
    groups = dict(tuple(cells.groupby("plate", sort=False)))
    flags = checks.flags[checks.flags["what"] == "well"]
    bad = {str(plate): set(part["well"].astype(str)) for plate, part in flags.groupby("plate")}
    found, n_wells = [], 0
    for row in plates.to_dict("records"):
        wells = groups.get(row["plate"])
        if wells is None or np.isnan(wells["cell_count"].to_numpy(np.float64)).all() or n_wells + len(wells) > _WELLS:
            continue
        n_wells += len(wells)
        found.append(_plate(row, wells, bad.get(str(row["plate"]), set()), told=n_wells <= _TOLD))
    return found


def _plate(row: dict[str, Any], wells: pd.DataFrame, bad: set[str], *, told: bool) -> dict[str, Any]:
    count = wells["cell_count"].to_numpy(dtype=np.float64)
    usual, of = float(row["control_cells"]), "median control"
    if not usual > 0:
        usual, of = float(np.nanmedian(count)), "median well"
    ratio = count / usual if usual > 0 else np.full(len(count), np.nan)
    names = [well_name(int(r), int(c)) for r, c in zip(wells["row"], wells["column"], strict=True)]
    kinds = wells["pert_type"].astype(str).tolist()
    flagged = [name in bad for name in names]
    few = int((ratio < 0.5).sum())
    texts = [
        f"{name}: " + (f"{n:,.0f} cells, {r:.2f} of {of}" if np.isfinite(n) else "no count")
        + ("" if kind == "trt" else f", {kind}") + ", flagged" * flag
        for name, n, r, kind, flag in zip(names, count, ratio, kinds, flagged, strict=True)
    ]  # fmt: skip
    label = (
        f"Plate {row['plate']}: cell counts of {len(wells)} wells; {of} {usual:,.0f} cells; "
        f"{few} wells below half of it; {sum(flagged)} flagged"
    )
    return {
        "plate": str(row["plate"]),
        "note": f"{of} {usual:,.0f} cells" + (f"; {few:,} wells below half" if few else ""),
        "rules": [rule for rule in str(row["rules"]).split(";") if rule],
        "label": label,
        "shape": plate_shape(int(wells["row"].max()), int(wells["column"].max())),
        "row": wells["row"].astype(int).tolist(),
        "column": wells["column"].astype(int).tolist(),
        "level": _levels(ratio, CELL_BOUNDS),
        "mark": [kind if kind in ("negcon", "poscon") else "" for kind in kinds],
        "flagged": flagged,
        "text": texts if told else [],
    }


def mean_maps(positions: pd.DataFrame) -> list[dict[str, Any]]:
    """Colour every position by its mean over all plates: cells, cells of controls, first component of controls.

    Returns
    -------
    list of dict
        As `plate_map` takes them, with ``title``, ``unit``, ``bounds``, ``digits``, ``low`` and ``high`` (words
        for the ends of the scale) and ``extreme`` (the position furthest from the middle).
    """
    asked = [
        ("cells", "Cells, all wells", "cell count / the plate's median control", 1.0, "fewer cells", "more cells"),
        ("control_cells", "Cells, controls only", "cell count / the plate's median control", 1.0, "fewer cells",
         "more cells"),
        ("control_pc1", "Profiles of controls", "first principal component, in SD", 0.0, "below average",
         "above average"),
    ]  # fmt: skip
    found = []
    for column, title, unit, centre, low, high in asked:
        table = positions[positions[column].notna()]
        if not len(table):
            continue
        values = table[column].to_numpy(dtype=np.float64)
        bounds, digits = _linear(values, centre)
        shape = plate_shape(int(positions["row"].max()), int(positions["column"].max()))
        names = [well_name(int(r), int(c)) for r, c in zip(table["row"], table["column"], strict=True)]
        n = table["n_wells" if column == "cells" else "n_control"].astype(int)
        worst = int(np.abs(values - centre).argmax())
        extreme = f"{names[worst]}: {values[worst]:.2f}".replace("-", "−")
        found.append(
            {"title": title, "unit": unit, "bounds": bounds, "digits": digits, "low": low, "high": high}
            | {"extreme": extreme, "shape": shape, "row": table["row"].astype(int).tolist()}
            | {"column": table["column"].astype(int).tolist(), "level": _levels(values, bounds)}
            | {"mark": [""] * len(table), "flagged": [False] * len(table)}
            | {"label": f"{title}, mean over plates by position ({unit}); furthest from {centre:g} is {extreme}"}
            | {"text": [f"{a}: {v:.2f}, mean of {k:,} wells" for a, v, k in zip(names, values, n, strict=True)]}
        )
    return found


def _linear(values: NDArray[np.float64], centre: float) -> tuple[tuple[float, ...], int]:
    """Eight bounds around the centre, wide enough for nearly all values, and their decimals."""
    reach = float(np.quantile(np.abs(values - centre), 0.98))
    step = next((s for s in _STEPS if 4.5 * s >= reach), _STEPS[-1])
    bounds = tuple(round(centre + (k - 3.5) * step, 6) for k in range(8))
    return bounds, next(d for d in range(7) if all(round(b, d) == b for b in bounds))


def _levels(values: NDArray[np.float64], bounds: tuple[float, ...]) -> list[int]:
    level = np.searchsorted(np.asarray(bounds), values, side="right")
    return np.where(np.isfinite(values), level, -1).tolist()
