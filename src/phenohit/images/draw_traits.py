"""What simulated cells look like: the traits of a cell, and how mechanisms, wells and plates change them.

A trait is a quantity a microscopist would name, such as the size of nuclei or the brightness of the actin at a cell's
edge. Every mechanism of the simulated screen changes a few of them in proportion to its response.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.simulate import Latents, expected_cells, plate_responses, position_field
from phenohit.data.simulate_files import CHANNELS
from phenohit.data.simulate_settings import SimulateSettings
from phenohit.errors import ConfigError, nearest

__all__ = ["TRAITS", "PlateLook", "Trait", "channel_names", "draw_loadings", "look_of_plates", "seen_traits"]

_MOVED = 5  # traits that a mechanism changes
_WELL_SD = 0.7  # spread of wells that were treated alike, in units of `effect`
_MOST = 5.0  # units of `effect` that a trait can move: tanh beyond


@dataclass(frozen=True)
class Trait:
    """One quantity of a cell; its logarithm is what varies.

    Parameters
    ----------
    name : str
    channel : str
        Where it can be seen; empty: in every channel or in the shapes.
    usual : float
        Value of an untreated cell.
    span : float
        Change of the logarithm for one unit of the setting `effect`.
    spread : float
        Standard deviation of the logarithm between the cells of a well.
    dying : float
        Change at full response to cell death, in units of `effect`.
    """

    name: str
    channel: str
    usual: float
    span: float
    spread: float
    dying: float = 0.0


TRAITS = (
    Trait("nucleus_size", "", 9.2, 0.050, 0.10, -1.5),  # radius, pixels
    Trait("nucleus_elongation", "", 1.28, 0.060, 0.10),  # long axis over short axis
    Trait("nucleus_brightness", "DNA", 7000.0, 0.090, 0.16, 1.5),  # counts
    Trait("chromatin_grain", "DNA", 0.14, 0.160, 0.15, 1.0),  # contrast
    Trait("cell_size", "", 29.0, 0.060, 0.13, -1.2),  # radius, pixels
    Trait("cell_elongation", "", 1.55, 0.080, 0.18, -0.8),
    Trait("nucleoli", "", 3.0, 0.160, 0.20, -0.5),  # per nucleus
    Trait("er_brightness", "ER", 6000.0, 0.090, 0.15, -0.5),
    Trait("er_grain", "ER", 1.40, 0.120, 0.10),  # size of the speckles, pixels
    Trait("er_gathering", "ER", 1.5, 0.130, 0.15, 0.5),  # fall from the nucleus to the edge
    Trait("rna_brightness", "RNA", 5500.0, 0.090, 0.15, -0.5),
    Trait("actin_edge", "AGP", 2400.0, 0.140, 0.20),  # counts
    Trait("actin_fibres", "AGP", 1000.0, 0.160, 0.25, -0.5),
    Trait("golgi_granules", "AGP", 6000.0, 0.140, 0.25),
    Trait("mito_brightness", "Mito", 8000.0, 0.100, 0.18, -1.0),
    Trait("mito_gathering", "Mito", 1.6, 0.130, 0.15, 0.8),
)
"""Every trait, in the order of all arrays."""


def channel_names(settings: SimulateSettings) -> tuple[str, ...]:
    """Names of the channels that are drawn."""
    return CHANNELS[settings.image_channels]


def seen_traits(settings: SimulateSettings) -> NDArray[np.bool_]:
    """Tell which traits the channels show, and the settings let mechanisms change, shape (traits,).

    Raises
    ------
    ConfigError
        If the settings name a trait that there is not, or that no channel shows.
    """
    seen = np.array([trait.channel in ("", *channel_names(settings)) for trait in TRAITS])
    names = [trait.name for trait in TRAITS]
    for name in settings.traits:
        if name not in names or not seen[names.index(name)]:
            there = [n for n, s in zip(names, seen, strict=True) if s]
            raise ConfigError(f"settings.traits: no channel shows '{name}'. {nearest(name, there)}")
    return seen & (np.isin(names, settings.traits) if settings.traits else True)


def draw_loadings(settings: SimulateSettings) -> NDArray[np.float64]:
    """Draw which traits each mechanism changes, and how much at full response.

    Returns
    -------
    float64 array, shape (K + 1, traits)
        In units of the well-to-well spread that `effect` is given in; the last row is cell death. Every mechanism
        changes five traits that can be seen (all, where there are fewer), with a root mean square of `effect`.
    """
    rng = np.random.default_rng([settings.seed, 11])
    seen = np.flatnonzero(seen_traits(settings))
    loading = np.zeros((settings.n_mechanisms + 1, len(TRAITS)))
    for mechanism in loading[:-1]:
        amount = rng.normal(size=min(_MOVED, len(seen)))
        mechanism[rng.permutation(seen)[:_MOVED]] = amount / np.sqrt((amount**2).mean())
    loading[-1] = [trait.dying for trait in TRAITS]
    return settings.effect * loading


@dataclass(frozen=True, eq=False)
class PlateLook:
    """What the wells of one plate look like.

    Attributes
    ----------
    rows : slice
        Rows of the wells on the plate.
    number : int
        Of the plate, from 0.
    shift : float64 array, shape (wells, traits)
        Departure of each trait from the usual, in units of `effect`.
    cells : float64 array, shape (wells,)
        Cells, as a multiple of the usual number.
    brightness : float64 array, shape (C,)
        How bright each channel's stain and lamp are on this plate; about 1.
    """

    rows: slice
    number: int
    shift: NDArray[np.float64]
    cells: NDArray[np.float64]
    brightness: NDArray[np.float64]


def look_of_plates(settings: SimulateSettings, latents: Latents, wells: pd.DataFrame) -> Iterator[PlateLook]:
    """Tell plate after plate what each well looks like.

    Parameters
    ----------
    settings : SimulateSettings
    latents : Latents of N compounds
    wells : DataFrame, P rows
        From `phenohit.data.simulate_layout.plan_wells`.
    """
    rng = np.random.default_rng([settings.seed, 12])
    loading = draw_loadings(settings)
    gain = np.exp(rng.normal(0, settings.batch_effect, (settings.n_batches, len(TRAITS))))
    sensitivity = rng.normal(size=len(TRAITS))  # of each trait to where the well is
    for rows, plate, responses in plate_responses(settings, latents, wells):
        field = position_field(settings, rng, plate)
        is_bad = rng.random(len(plate)) < settings.bad_wells
        noise = rng.normal(0, _WELL_SD, (len(plate), len(TRAITS))) * np.where(is_bad, 5.0, 1.0)[:, None]
        of_plate = settings.plate_effect * rng.normal(size=len(TRAITS))
        shift = (responses @ loading) * gain[int(plate["batch"].iloc[0])] + np.outer(field, sensitivity)
        shift = _MOST * np.tanh((shift + noise + of_plate) / _MOST)
        yield PlateLook(
            rows=rows,
            number=int(plate["plate"].iloc[0]),
            shift=shift,
            cells=expected_cells(rng, field, responses[:, -1], is_bad),
            brightness=np.exp(0.2 * settings.plate_effect * rng.normal(size=settings.image_channels)),
        )
