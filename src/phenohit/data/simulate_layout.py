"""Where everything of the simulated screen sits: wells on plates, and feature names in CellProfiler's style."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd

from phenohit.data.simulate_settings import SimulateSettings
from phenohit.errors import ConfigError

__all__ = ["POSITIVE_CONTROLS", "SHAPES", "barcodes", "feature_names", "plan_wells"]

SHAPES = {96: (8, 12), 384: (16, 24)}
"""Rows and columns of a plate by its number of wells."""
POSITIVE_CONTROLS = ("SIM-POSCON-TOXIC", "SIM-POSCON-MECHANISM")
_DMSO_COLUMNS = {96: (12,), 384: (2, 23)}
_OUTER_COLUMNS = {96: (1,), 384: (1, 24)}  # DMSO in odd rows, positive controls by turns in even rows

_CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
_SHAPES = "Area Compactness Eccentricity EulerNumber Extent FormFactor MajorAxisLength MeanRadius Perimeter Solidity"
_INTENSITIES = "IntegratedIntensity LowerQuartileIntensity MADIntensity MassDisplacement MaxIntensity MeanIntensity"
_TEXTURES = "AngularSecondMoment Contrast Correlation DifferenceVariance Entropy InfoMeas1 SumAverage Variance"


def plan_wells(settings: SimulateSettings, n_compounds: int) -> pd.DataFrame:
    """Place compounds and controls on plates.

    Of 384 wells, columns 2 and 23 hold DMSO, columns 1 and 24 DMSO and positive controls; of 96 wells, column 12
    holds DMSO and column 1 DMSO and positive controls. The rest hold compounds in random order. The replicates of a
    plate are exact copies, as acoustic dispensers make them, so position effects do not average out.

    Parameters
    ----------
    settings : SimulateSettings
    n_compounds : int

    Returns
    -------
    DataFrame, P rows ordered by plate and well
        ``compound`` int (row of the library; ``n_compounds`` and the next are the positive controls, -1 is
        DMSO), ``plate``, ``batch``, ``replicate``, ``row``, ``column`` int from 0, ``well`` such as A01,
        ``pert_type`` (trt, negcon, poscon) and ``dose_uM`` (0 for DMSO).
    """
    rng = np.random.default_rng([settings.seed, 2])
    with_series = rng.permutation(n_compounds)[: round(settings.dose_series_share * n_compounds)]
    compound = np.concatenate([np.arange(n_compounds), np.repeat(with_series, len(settings.dose_series_uM))])
    dose = np.concatenate([np.full(n_compounds, settings.dose_uM), np.tile(settings.dose_series_uM, len(with_series))])
    order = rng.permutation(len(compound))
    grid = _grid(settings.plate_wells, n_compounds, settings.dose_uM)
    free = np.flatnonzero(grid["pert_type"] == "trt")
    controls = np.flatnonzero(grid["pert_type"] != "trt")
    plates: list[pd.DataFrame] = []
    for source, start in enumerate(range(0, len(order), len(free))):
        mine = order[start : start + len(free)]
        used = np.sort(np.concatenate([controls, free[: len(mine)]]))  # a last plate is filled from the left
        one = grid.copy()
        one.loc[free[: len(mine)], "compound"] = compound[mine]
        one.loc[free[: len(mine)], "dose_uM"] = dose[mine]
        one = one.iloc[used]
        for replicate in range(settings.n_replicates):
            number = source * settings.n_replicates + replicate
            plates.append(one.assign(plate=number, replicate=replicate, batch=source % settings.n_batches))
    return pd.concat(plates, ignore_index=True)


def barcodes(wells: pd.DataFrame) -> pd.Series:
    """Name the plate of every well, such as SIM-P001."""
    width = max(3, len(str(int(wells["plate"].max()) + 1)))
    return "SIM-P" + (wells["plate"] + 1).astype(str).str.zfill(width)


def _grid(plate_wells: int, n_compounds: int, dose_uM: float) -> pd.DataFrame:
    """Return the wells of a plate with its controls in place, column by column from the left."""
    n_rows, n_columns = SHAPES[plate_wells]
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(n_columns), np.arange(n_rows), indexing="ij"))
    outer = np.isin(column + 1, _OUTER_COLUMNS[plate_wells])
    positive = outer & (row % 2 == 1)
    negative = np.isin(column + 1, _DMSO_COLUMNS[plate_wells]) | (outer & ~positive)
    compound = np.where(positive, n_compounds + (row // 2) % len(POSITIVE_CONTROLS), -1)
    return pd.DataFrame(
        {
            "compound": compound,
            "row": row,
            "column": column,
            "well": [f"{chr(65 + r)}{c + 1:02d}" for r, c in zip(row, column, strict=True)],
            "pert_type": np.where(negative, "negcon", np.where(positive, "poscon", "trt")),
            "dose_uM": np.where(negative, 0.0, dose_uM),
        }
    )


def feature_names(settings: SimulateSettings) -> list[str]:
    """Draw feature names in CellProfiler's style, e.g. ``Cells_Texture_Entropy_ER_3_00_256``.

    Raises
    ------
    ConfigError
        If more features are wanted than there are names.
    """
    names = _all_names()
    if settings.n_features > len(names):
        raise ConfigError(f"settings.n_features is {settings.n_features:,}. Expected: {len(names):,} or fewer.")
    drawn = np.random.default_rng([settings.seed, 3]).permutation(len(names))[: settings.n_features]
    return [names[i] for i in np.sort(drawn)]


def _all_names() -> list[str]:
    """List every name in CellProfiler's order: compartment, group, feature, channel, scale."""
    names: list[str] = []
    for compartment in ("Cells", "Cytoplasm", "Nuclei"):
        names += [f"{compartment}_AreaShape_{shape}" for shape in _SHAPES.split()]
        names += [f"{compartment}_AreaShape_Zernike_{n}_{m}" for n in range(10) for m in range(n % 2, n + 1, 2)]
        names += [f"{compartment}_Correlation_Correlation_{a}_{b}" for a, b in combinations(_CHANNELS, 2)]
        names += [f"{compartment}_Granularity_{i}_{c}" for i, c in product(range(1, 17), _CHANNELS)]
        names += [f"{compartment}_Intensity_{i}_{c}" for i, c in product(_INTENSITIES.split(), _CHANNELS)]
        names += [
            f"{compartment}_RadialDistribution_{kind}_{c}_{ring}of4"
            for kind, c, ring in product(("FracAtD", "MeanFrac", "RadialCV"), _CHANNELS, range(1, 5))
        ]
        names += [
            f"{compartment}_Texture_{kind}_{c}_{scale}_{angle:02d}_256"
            for kind, c, scale, angle in product(_TEXTURES.split(), _CHANNELS, (3, 5, 10), range(4))
        ]
    return names
