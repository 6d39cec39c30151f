"""Measure every cell of a view: cp_measure's functions under CellProfiler's names.

cp_measure (Carpenter-Singh lab) holds CellProfiler's algorithms as functions. Its names and calls change between
minor versions, so that only this module and `phenohit.images.measure_pixels` know them. Intensities are scaled to
0-1 and quartiles taken as CellProfiler takes them (`legacy`), so that values compare with those of its tables.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phenohit.errors import ShapeError
from phenohit.images.measure_names import (
    COMPARTMENTS,
    REACHES,
    SCALES,
    SHAPES,
    columns,
    measured_channels,
    parts_of,
)
from phenohit.images.measure_pixels import correlations, granularity, pixels_of, radial
from phenohit.imaging import MeasureConfig

if TYPE_CHECKING:
    from phenohit.images.objects import Objects

__all__ = ["FAILURE_COLUMNS", "measure"]

FAILURE_COLUMNS = ["family", "compartment", "channel", "cells", "reason"]
_PARTED = {"1": "Within a specified distance", "5": "Within a specified distance", "Adjacent": "Adjacent"}
_REASONS = {
    "AreaShape": "too few pixels for a shape",
    "Neighbors": "fewer than two other cells in the view",
    "Intensity": "no intensity in this channel",
    "Location": "no intensity in this channel",
    "RadialDistribution": "no intensity in this channel, or too few pixels",
    "Texture": "no two pixels at this distance with intensity above 1/510 of the full scale",
    "Granularity": "image too small for its steps",
    "Correlation": "one value only, or no intensity, in one of the channels",
    "Costes": "no threshold: no background within the cell",
}


def measure(
    view: np.ndarray, channels: Sequence[str], objects: Objects, config: MeasureConfig, full_scale: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure the cells of a view.

    Parameters
    ----------
    view : number, shape (C, H, W)
        Intensities, corrected for illumination or not.
    channels : sequence of str
        Names of the C channels.
    objects : Objects
        Label images of nuclei, cells and cytoplasm with the same labels, int32, shape (H, W).
    config : MeasureConfig
    full_scale : float
        Intensity that becomes 1: the largest that the camera could give. Brighter pixels become 1, as CellProfiler
        makes them after illumination correction.

    Returns
    -------
    cells : DataFrame, one row per label
        ``Metadata_ObjectNumber`` (int32), then features as float32 in the order of
        `phenohit.images.measure_names.columns`. NaN: not defined for that cell.
    failures : DataFrame
        Columns ``family, compartment, channel, cells, reason``: for how many cells features are NaN. Channel is
        ``A/B`` for a pair, empty for none.

    Raises
    ------
    ShapeError
        If view, channels and label images do not fit together.
    ConfigError
        If `config` names a channel that the view has not.
    """
    kept = measured_channels(channels, config)
    _check(view, channels, objects, full_scale)
    names = columns(kept, config.features)
    labels = np.unique(objects.cells)
    labels = labels[labels > 0]
    table = np.full((len(labels), len(names)), np.nan, np.float32)
    lacking: dict[str, np.ndarray] = {}
    if len(labels):
        pixels = np.clip(np.asarray(view)[[list(channels).index(c) for c in kept]] / float(full_scale), 0.0, 1.0)
        masks = [getattr(objects, name.lower()) for name in COMPARTMENTS]
        places = {name: k for k, name in enumerate(names)}
        compact = [_compact(mask, labels) for mask in masks]
        spectra = _spectra(pixels, [mask for mask, _ in compact], config.features)
        for compartment, (mask, rows), spectrum in zip(COMPARTMENTS, compact, spectra, strict=True):
            lacking[compartment] = ~np.isin(np.arange(len(labels)), rows)
            if not len(rows):
                continue
            found = _compartment(compartment, mask, pixels, kept, config.features, full_scale)
            found |= {
                f"Granularity_{i + 1}_{c}": s
                for c, steps in zip(kept, spectrum, strict=True)
                for i, s in enumerate(steps)
            }
            wanted = [name for name in names if name.startswith(f"{compartment}_")]
            block = np.stack([np.asarray(found[name.split("_", 1)[1]], np.float64) for name in wanted], axis=1)
            block[~np.isfinite(block)] = np.nan
            table[np.ix_(rows, [places[name] for name in wanted])] = block
    cells = pd.DataFrame(table, columns=pd.Index(names))
    cells.insert(0, "Metadata_ObjectNumber", labels.astype(np.int32))
    return cells, _failures(table, names, kept, lacking)


def _check(view: np.ndarray, channels: Sequence[str], objects: Objects, full_scale: float) -> None:
    if np.ndim(view) != 3 or len(view) != len(channels):
        raise ShapeError(
            f"A view of {len(channels)} channels ({', '.join(channels)}) needs the shape ({len(channels)}, height, "
            f"width), not {np.shape(view)}."
        )
    for name in COMPARTMENTS:
        shape = getattr(objects, name.lower()).shape
        if shape != np.shape(view)[1:]:
            raise ShapeError(f"Labels of {name.lower()} are {shape} pixels, the view {np.shape(view)[1:]}.")
    if not full_scale > 0:
        raise ShapeError(f"The full scale of a view is above 0, not {full_scale}.")


def _compact(mask: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Relabel the objects that are there to 1..k: labels (H, W) and rows of the table (k,).

    What has no cell (a label that `labels` lacks) has no row, and is not measured.
    """
    count = np.bincount(mask.ravel(), minlength=int(labels.max()) + 1)[labels]
    rows = np.flatnonzero(count)
    fresh = np.zeros(max(int(mask.max()), int(labels.max())) + 1, np.int32)
    fresh[labels[rows]] = np.arange(1, len(rows) + 1)
    return fresh[mask], rows


@cache
def _functions() -> dict[str, Callable[..., dict[str, np.ndarray]]]:
    """cp_measure's functions; those it has in compiled form (texture, intensity, feret) in that form."""
    with warnings.catch_warnings():
        # its documentation has backslashes that Python warns of whenever it compiles the files anew
        warnings.simplefilter("ignore")
        import cp_measure
        from cp_measure import bulk

        before = cp_measure._ACCELERATOR
        cp_measure.set_accelerator("numba")
        try:
            core = bulk.get_core_measurements(legacy=True, sanitize=False)
        finally:
            cp_measure.set_accelerator(before)
        return {**core, **bulk.get_correlation_measurements(sanitize=False), **bulk.get_multimask_measurements()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what cp_measure says of objects that a feature is not defined for: they become NaN and are counted."""
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        # Costes' threshold of a cell without background, and means over nothing in a cell of one pixel
        warnings.filterwarnings("ignore", "Undefined Costes result|Mean of empty slice|invalid value", RuntimeWarning)
        # hulls of cells that are a single line of pixels
        warnings.filterwarnings("ignore", "Failed to get convex hull image", UserWarning)
        yield


def _spectra(pixels: np.ndarray, masks: list[np.ndarray], features: str) -> list[np.ndarray]:
    """Granularity of all compartments, (C, 16, k) each; nothing where the set has none."""
    if "Granularity" not in parts_of(features):
        return [np.empty((len(pixels), 0, 0))] * len(masks)
    with _quiet():
        return granularity(_functions()["granularity"], pixels, masks)


def _compartment(
    name: str, mask: np.ndarray, pixels: np.ndarray, channels: list[str], features: str, full_scale: float
) -> dict[str, np.ndarray]:
    """Measure one label image 1..k: feature names without the compartment, float64 (k,) each."""
    run, families = _functions(), parts_of(features)
    found: dict[str, np.ndarray] = {}
    with _quiet():
        shape = run["sizeshape"](mask, None, calculate_advanced=False) | run["feret"](mask, None)
        found |= {f"AreaShape_{s}": shape[s] for s in SHAPES}
        found |= {f"AreaShape_{z}": v for z, v in run["zernike"](mask, None).items()}
        found |= {f"Location_{c}": shape[c] for c in ("Center_X", "Center_Y")}
        found |= _neighbors(name, mask)
        for channel, image in zip(channels, pixels, strict=True):
            found |= {f"{k}_{channel}": v for k, v in run["intensity"](mask, image).items()}
            for scale in SCALES[features]:
                found |= {f"Texture_{_between(k, channel)}": v for k, v in run["texture"](mask, image, scale).items()}
            if "Zernike" in families:
                found |= {
                    _after(k, channel): v
                    for k, v in run["radial_zernikes"](mask, image).items()
                    if "Magnitude" in k  # the phase is an angle: means and deviations of it mean nothing
                }
    found |= radial(pixels, mask, channels)
    if "Correlation" in families:
        found |= correlations(pixels, pixels_of(mask), channels)
    if "Costes" in families:
        found |= _costes(pixels, mask, channels, full_scale)
    return found


def _between(name: str, channel: str) -> str:
    """``Entropy_3_00_256`` to ``Entropy_DNA_3_00_256``."""
    kind, rest = name.split("_", 1)
    return f"{kind}_{channel}_{rest}"


def _after(name: str, channel: str) -> str:
    """``RadialDistribution_ZernikeMagnitude_2_0`` to ``RadialDistribution_ZernikeMagnitude_DNA_2_0``."""
    group, rest = name.split("_", 1)
    return f"{group}_{_between(rest, channel)}"


def _neighbors(compartment: str, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Neighbours of the objects of a label image; angle and distances are NaN where there are too few others.

    CellProfiler writes 0 for the distance to a cell that does not exist. Numbers of neighbours' objects are left out.
    """
    n, found = int(mask.max()), {}
    for reach in REACHES[compartment]:
        names = [f"Neighbors_{f}_{reach}" for f in ("NumberOfNeighbors", "PercentTouching")]
        if n == 1:  # cp_measure cannot do one object
            values = dict.fromkeys(names, np.zeros(1))
        else:
            distance = int(reach) if reach.isdigit() else 1
            values = _functions()["neighbors"](mask, mask, _PARTED[reach], distance)
        nothing = np.full(n, np.nan)
        for feature, least in (("FirstClosestDistance", 2), ("SecondClosestDistance", 3), ("AngleBetweenNeighbors", 3)):
            key = f"Neighbors_{feature}_{reach}"
            found[key] = values[key] if n >= least else nothing
        found |= {key: values[key] for key in names}
    return found


def _costes(pixels: np.ndarray, mask: np.ndarray, channels: list[str], full_scale: float) -> dict[str, np.ndarray]:
    """Costes' coefficients of all pairs, both ways."""
    found, ordered = {}, sorted(range(len(channels)), key=channels.__getitem__)
    for k, i in enumerate(ordered):
        for j in ordered[k + 1 :]:
            with _quiet():
                both = _functions()["costes"](pixels[i], pixels[j], mask, scale_max=max(round(full_scale), 2))
            for way, (a, b) in enumerate(((i, j), (j, i)), 1):
                found[f"Correlation_Costes_{channels[a]}_{channels[b]}"] = np.asarray(both[f"Correlation_Costes_{way}"])
    return found


def _failures(table: np.ndarray, names: list[str], channels: list[str], lacking: dict[str, np.ndarray]) -> pd.DataFrame:
    """Count cells that have no value in some feature, by family, compartment, channel and reason."""
    lost = np.isnan(table)
    groups: dict[tuple[str, str, str], list[int]] = {}
    for k in np.flatnonzero(lost.any(0)):
        compartment, family, rest = names[k].split("_", 2)
        family = "Costes" if rest.startswith("Costes_") else family
        groups.setdefault((family, compartment, _channel(rest, channels)), []).append(int(k))
    rows = []
    for (family, compartment, channel), at in groups.items():
        failed = lost[:, at].any(1)
        for cells, reason in (
            (failed & lacking[compartment], f"the cell has no {compartment.lower()}"),
            (failed & ~lacking[compartment], _REASONS[family]),
        ):
            if cells.any():
                rows.append((family, compartment, channel, int(cells.sum()), reason))
    return pd.DataFrame(rows, columns=pd.Index(FAILURE_COLUMNS))


def _channel(rest: str, channels: list[str]) -> str:
    """Channels that the end of a feature's name holds: '', one, or two with a slash."""
    padded = f"_{rest}_"
    held = sorted((c for c in channels if f"_{c}_" in padded), key=lambda c: padded.index(f"_{c}_"))
    return "/".join(held)
