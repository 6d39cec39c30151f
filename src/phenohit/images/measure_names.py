"""Names of what is measured, as CellProfiler writes them, and which set holds which."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

from phenohit.errors import ConfigError, nearest
from phenohit.imaging import MeasureConfig

__all__ = ["COMPARTMENTS", "FAMILIES", "SCALES", "SHAPES", "columns", "measured_channels", "parts_of"]

COMPARTMENTS = ("Nuclei", "Cells", "Cytoplasm")

# Families by set; a set holds those before it.
FAMILIES = {
    "fast": ("AreaShape", "Location", "Neighbors", "Intensity", "RadialDistribution"),
    "standard": ("Texture", "Granularity", "Correlation"),
    "full": ("Zernike", "Costes"),
}
# Distances in pixels at which texture is measured; those of the JUMP consortium in the full set.
SCALES = {"fast": (), "standard": (3,), "full": (3, 5, 10)}

SHAPES = (
    "Area",
    "BoundingBoxArea",
    "BoundingBoxMaximum_X",
    "BoundingBoxMaximum_Y",
    "BoundingBoxMinimum_X",
    "BoundingBoxMinimum_Y",
    "Center_X",
    "Center_Y",
    "Compactness",
    "ConvexArea",
    "Eccentricity",
    "EquivalentDiameter",
    "EulerNumber",
    "Extent",
    "FormFactor",
    "MajorAxisLength",
    "MaxFeretDiameter",
    "MaximumRadius",
    "MeanRadius",
    "MedianRadius",
    "MinFeretDiameter",
    "MinorAxisLength",
    "Orientation",
    "Perimeter",
    "Solidity",
)
_INTENSITIES = (
    "IntegratedIntensity",
    "IntegratedIntensityEdge",
    "LowerQuartileIntensity",
    "MADIntensity",
    "MassDisplacement",
    "MaxIntensity",
    "MaxIntensityEdge",
    "MeanIntensity",
    "MeanIntensityEdge",
    "MedianIntensity",
    "MinIntensity",
    "MinIntensityEdge",
    "StdIntensity",
    "StdIntensityEdge",
    "UpperQuartileIntensity",
)
_PLACES = ("CenterMassIntensity_X", "CenterMassIntensity_Y", "MaxIntensity_X", "MaxIntensity_Y")
_TEXTURES = (
    "AngularSecondMoment",
    "Contrast",
    "Correlation",
    "DifferenceEntropy",
    "DifferenceVariance",
    "Entropy",
    "InfoMeas1",
    "InfoMeas2",
    "InverseDifferenceMoment",
    "SumAverage",
    "SumEntropy",
    "SumVariance",
    "Variance",
)
_NEIGHBORS = (
    "AngleBetweenNeighbors",
    "FirstClosestDistance",
    "NumberOfNeighbors",
    "PercentTouching",
    "SecondClosestDistance",
)
# How far neighbours are looked for, in CellProfiler's words: as in the pipelines of JUMP.
REACHES = {"Nuclei": ("1",), "Cells": ("Adjacent", "5"), "Cytoplasm": ()}
ZERNIKES = [(n, m) for n in range(10) for m in range(n % 2, n + 1, 2)]


def measured_channels(channels: Sequence[str], config: MeasureConfig) -> list[str]:
    """Return the channels to measure, in the order of the view.

    Raises
    ------
    ConfigError
        If the settings name a channel that the view has not.
    """
    for name in config.channels:
        if name not in channels:
            raise ConfigError(
                f"measure.channels names '{name}', but the images have {', '.join(channels)}. {nearest(name, channels)}"
            )
    return [c for c in channels if not config.channels or c in config.channels]


def parts_of(features: str) -> list[str]:
    """Return the families of a set: fast, standard or full."""
    sets = list(FAMILIES)
    return [family for name in sets[: sets.index(features) + 1] for family in FAMILIES[name]]


def columns(channels: Sequence[str], features: str) -> list[str]:
    """Return the names of all features of a set, for all compartments, in their order.

    Parameters
    ----------
    channels : sequence of str
        Those measured.
    features : {"fast", "standard", "full"}

    Returns
    -------
    list of str
        ``<Compartment>_<Family>_<Feature>[_<Channel>...]``. Features of two channels that are the same both ways
        name them in alphabetical order.
    """
    families = parts_of(features)
    named = []
    for compartment in COMPARTMENTS:
        for family in families:
            named += [f"{compartment}_{name}" for name in _NAMES[family](compartment, list(channels), features)]
    return named


def _shape(compartment: str, channels: list[str], features: str) -> list[str]:
    return [f"AreaShape_{s}" for s in SHAPES] + [f"AreaShape_Zernike_{n}_{m}" for n, m in ZERNIKES]


def _location(compartment: str, channels: list[str], features: str) -> list[str]:
    return ["Location_Center_X", "Location_Center_Y"] + [f"Location_{p}_{c}" for p in _PLACES for c in channels]


def _neighbors(compartment: str, channels: list[str], features: str) -> list[str]:
    return [f"Neighbors_{name}_{reach}" for reach in REACHES[compartment] for name in _NEIGHBORS]


def _intensity(compartment: str, channels: list[str], features: str) -> list[str]:
    return [f"Intensity_{i}_{c}" for i in _INTENSITIES for c in channels]


def _radial(compartment: str, channels: list[str], features: str) -> list[str]:
    kinds = ("FracAtD", "MeanFrac", "RadialCV")
    return [f"RadialDistribution_{k}_{c}_{ring}of4" for k in kinds for c in channels for ring in range(1, 5)]


def _texture(compartment: str, channels: list[str], features: str) -> list[str]:
    return [
        f"Texture_{name}_{c}_{scale}_{way:02d}_256"
        for name in _TEXTURES
        for c in channels
        for scale in SCALES[features]
        for way in range(4)
    ]


def _granularity(compartment: str, channels: list[str], features: str) -> list[str]:
    return [f"Granularity_{step}_{c}" for step in range(1, 17) for c in channels]


def _correlation(compartment: str, channels: list[str], features: str) -> list[str]:
    both, one = list(combinations(sorted(channels), 2)), list(permutations(sorted(channels), 2))
    return [f"Correlation_{k}_{a}_{b}" for k in ("Correlation", "Overlap") for a, b in both] + [
        f"Correlation_{k}_{a}_{b}" for k in ("K", "Manders", "RWC") for a, b in one
    ]


def _zernike(compartment: str, channels: list[str], features: str) -> list[str]:
    return [f"RadialDistribution_ZernikeMagnitude_{c}_{n}_{m}" for c in channels for n, m in ZERNIKES]


def _costes(compartment: str, channels: list[str], features: str) -> list[str]:
    return [f"Correlation_Costes_{a}_{b}" for a, b in permutations(sorted(channels), 2)]


_NAMES = {
    "AreaShape": _shape,
    "Location": _location,
    "Neighbors": _neighbors,
    "Intensity": _intensity,
    "RadialDistribution": _radial,
    "Texture": _texture,
    "Granularity": _granularity,
    "Correlation": _correlation,
    "Zernike": _zernike,
    "Costes": _costes,
}
