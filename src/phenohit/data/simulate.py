"""The simulated screen, numerical part: latent biology of compounds and what the microscope makes of it.

Every compound has a potency on each of K mechanisms, inherited from its chemical series, and one as a cell
killer. At a dose the response to a mechanism saturates (Hill, slope 1); responses move groups of correlated
features, cell death moves many of them and lowers the cell count. Plates, batches, positions and wells add
their own. Nothing here knows chemistry beyond the series and core numbers it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.simulate_layout import SHAPES
from phenohit.data.simulate_settings import SimulateSettings

__all__ = [
    "ACTIVE",
    "INACTIVE",
    "Latents",
    "draw_latents",
    "expected_cells",
    "measure_plates",
    "plate_responses",
    "position_field",
    "response",
]

ACTIVE = (6.5, 0.7)  # mean and SD of the potency of a series on a mechanism it hits, log units
INACTIVE = (4.2, 0.4)  # and of a compound on one it does not
_MOST_MECHANISMS = 4
_CELLS_PER_WELL = 2_500
_KILLED = 0.85  # share of cells lost at full toxic response
_TOXIC_MODULES = 0.6  # share of feature groups that cell death moves; a mechanism moves the next share
_MECHANISM_MODULES = 0.35


@dataclass(frozen=True, eq=False)
class Latents:
    """What is true of each compound and cannot be measured directly.

    Attributes
    ----------
    potency : float64 array, shape (N, K)
        pIC50 on each mechanism.
    toxicity : float64 array, shape (N,)
        pIC50 as a cell killer.
    """

    potency: NDArray[np.float64]
    toxicity: NDArray[np.float64]


def draw_latents(settings: SimulateSettings, series: NDArray[np.int64], core: NDArray[np.int64]) -> Latents:
    """Draw potencies: those of a series first, then its members around them.

    Parameters
    ----------
    settings : SimulateSettings
    series : int array, shape (N,)
        Series of each compound, numbered from 0; a singleton is a series of one.
    core : int array, shape (N,)
        Core of each compound, below 0 for none. With the chance `settings.core_mechanism` a series hits
        the mechanism typical of its core.
    """
    rng = np.random.default_rng([settings.seed, 4])
    K = settings.n_mechanisms
    n_series = int(series.max()) + 1
    n_hit = np.minimum(rng.poisson(settings.mechanisms_per_series, n_series), _MOST_MECHANISMS)
    keys = rng.random((n_series, K))
    first = np.unique(series, return_index=True)[1]
    follows = (rng.random(n_series) < settings.core_mechanism) & (core[first] >= 0)
    typical = rng.integers(K, size=max(int(core.max()), 0) + 1)[np.maximum(core[first], 0)]
    keys[np.flatnonzero(follows), typical[follows]] = -1.0  # comes first among the mechanisms that are hit
    hit = keys.argsort(axis=1).argsort(axis=1) < n_hit[:, None]
    toxic = rng.random((n_series, 1)) < settings.toxic_share
    potency = _potencies(settings, rng, np.hstack([hit, toxic]), series)
    return Latents(potency[:, :K], potency[:, K])


def _potencies(
    settings: SimulateSettings, rng: np.random.Generator, hit: NDArray[np.bool_], series: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Potencies of compounds (N, columns of `hit`) from which series hit what."""
    of_series = rng.normal(*ACTIVE, hit.shape)
    shape = (len(series), hit.shape[1])
    active = of_series[series] + rng.normal(0, settings.series_sd, shape)
    keeps = hit[series] & (rng.random(shape) >= settings.cliff)
    return np.where(keeps, active, rng.normal(*INACTIVE, shape))


def response(potency: NDArray[np.float64], dose_uM: NDArray[np.float64], cell_shift: float) -> NDArray[np.float64]:
    """Return the share of full response at a dose: Hill equation with slope 1.

    Parameters
    ----------
    potency : float array, shape (P, K) or (P,)
        pIC50 in a biochemical assay.
    dose_uM : float array, shape (P,)
    cell_shift : float
        Log units by which the cell needs more compound than the assay does.

    Returns
    -------
    float64 array, shape of `potency`, in [0, 1)
    """
    half_uM = 10.0 ** (6.0 - (potency - cell_shift))
    dose = dose_uM.reshape((-1,) + (1,) * (potency.ndim - 1))
    return dose / (dose + half_uM)


@dataclass(frozen=True, eq=False)
class _Assembly:
    """How latents, positions and noise reach the F features through M groups of correlated features."""

    module: NDArray[np.int64]  # (F,) group of each feature
    weight: NDArray[np.float64]  # (F,) signed weight of the group's signal in the feature
    shared: NDArray[np.float64]  # (F,) share of noise variance in common with the group
    loading: NDArray[np.float64]  # (K + 1, M) effect of each mechanism, and of cell death, on each group
    position: NDArray[np.float64]  # (M,) sensitivity of each group to where the well is
    gain: NDArray[np.float64]  # (batches, M) strength of the response in each batch
    level: NDArray[np.float64]  # (F,) mean before normalisation
    spread: NDArray[np.float64]  # (F,) SD before normalisation; 0 for constant features


def _assemble(settings: SimulateSettings, rng: np.random.Generator) -> _Assembly:
    """Draw the fixed part of the imaging model."""
    F, K = settings.n_features, settings.n_mechanisms
    M = max(F // 4, 2)
    module = rng.permutation(np.arange(F) % M)
    share = np.full((K + 1, 1), _MECHANISM_MODULES)
    share[K] = _TOXIC_MODULES
    loading = rng.normal(size=(K + 1, M)) * (rng.random((K + 1, M)) < share)
    # Every mechanism is equally visible: the same root mean square over the groups it is expected to move.
    norm = np.maximum(np.sqrt((loading**2).sum(axis=1, keepdims=True) / (share * M)), 1e-9)
    spread = rng.lognormal(0, 1, F)
    spread[rng.permutation(F)[: settings.n_constant]] = 0.0
    return _Assembly(
        module=module,
        weight=rng.choice([-1.0, 1.0], F) * rng.uniform(0.6, 1.4, F),
        shared=np.clip(rng.normal(settings.redundancy, 0.25, F), 0.0, 0.99),
        loading=settings.effect * loading / norm,
        position=rng.normal(size=M),
        gain=np.exp(rng.normal(0, settings.batch_effect, (settings.n_batches, M))),
        level=rng.normal(0, 10, F),
        spread=spread,
    )


def measure_plates(
    settings: SimulateSettings, latents: Latents, wells: pd.DataFrame
) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.int64]]]:
    """Image plate after plate and scale each to its DMSO wells.

    Parameters
    ----------
    settings : SimulateSettings
    latents : Latents of N compounds
    wells : DataFrame, P rows
        From `plan_wells`, ordered by plate.

    Yields
    ------
    rows : slice
        Rows of `wells` that are on the plate.
    X : float32 array, shape (wells of the plate, F)
        Features in standard deviations of the DMSO wells of the plate; constant features are 0. Position
        effects, and what of the plate effect the DMSO wells in the outer columns do not show, are left in.
    cell_count : int array, shape (wells of the plate,)
    """
    rng = np.random.default_rng([settings.seed, 5])
    assembly = _assemble(settings, rng)
    for rows, plate, responses in plate_responses(settings, latents, wells):
        raw, cell_count = _image_plate(settings, rng, assembly, plate, responses)
        X = _normalise(raw, (plate["pert_type"] == "negcon").to_numpy(), settings.normalise)
        yield rows, X.astype(np.float32), cell_count


def plate_responses(
    settings: SimulateSettings, latents: Latents, wells: pd.DataFrame
) -> Iterator[tuple[slice, pd.DataFrame, NDArray[np.float64]]]:
    """Tell plate after plate how far each well responds to each mechanism, and dies.

    Parameters
    ----------
    settings : SimulateSettings
    latents : Latents of N compounds
    wells : DataFrame, P rows
        From `plan_wells`, ordered by plate.

    Yields
    ------
    rows : slice
        Rows of `wells` that are on the plate.
    plate : DataFrame
        Those rows.
    responses : float64 array, shape (wells of the plate, K + 1), in [0, 1)
        To the K mechanisms; the last column is cell death.
    """
    potency = np.column_stack([latents.potency, latents.toxicity])
    # Positive controls follow the compounds: one kills, one hits the first mechanism. The last row, -1, is DMSO.
    control = np.full((3, potency.shape[1]), INACTIVE[0])
    control[0, -1] = control[1, 0] = 8.0
    control[2] = -np.inf
    potency = np.vstack([potency, control])
    starts = np.flatnonzero(np.diff(wells["plate"].to_numpy(), prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(wells)], strict=True):
        plate = wells.iloc[start:stop]
        responses = response(potency[plate["compound"]], plate["dose_uM"].to_numpy(), settings.cell_shift)
        yield slice(int(start), int(stop)), plate, responses


def _image_plate(
    settings: SimulateSettings,
    rng: np.random.Generator,
    assembly: _Assembly,
    plate: pd.DataFrame,
    responses: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features before normalisation (wells, F) and cell counts of one plate."""
    P, F, M = len(plate), settings.n_features, len(assembly.position)
    field = position_field(settings, rng, plate)
    signal = (responses @ assembly.loading) * assembly.gain[int(plate["batch"].iloc[0])]
    signal += np.outer(field, assembly.position)
    is_bad = rng.random(P) < settings.bad_wells
    noise = np.where(is_bad, 5.0, 1.0)[:, None]
    in_common = rng.normal(size=(P, M))[:, assembly.module] * np.sqrt(assembly.shared) * np.sign(assembly.weight)
    own = rng.normal(size=(P, F)) * np.sqrt(1 - assembly.shared)
    z = signal[:, assembly.module] * assembly.weight + noise * (in_common + own)
    scale = np.exp(0.3 * settings.plate_effect * rng.normal(size=F))
    offset = settings.plate_effect * rng.normal(size=F)
    raw = assembly.level + assembly.spread * (scale * z + offset)
    return raw, rng.poisson(_CELLS_PER_WELL * expected_cells(rng, field, responses[:, -1], is_bad))


def expected_cells(
    rng: np.random.Generator, field: NDArray[np.float64], death: NDArray[np.float64], is_bad: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Cells of each well of a plate, as a multiple of the usual number.

    Parameters
    ----------
    rng : Generator
    field : float array, shape (P,)
        From `position_field`.
    death : float array, shape (P,)
        Response to cell death.
    is_bad : bool array, shape (P,)
        Wells that went wrong have fewer cells.

    Returns
    -------
    float64 array, shape (P,)
    """
    P = len(field)
    expected = np.exp(0.1 * rng.normal() + 0.08 * field + 0.08 * rng.normal(size=P))
    return expected * (1 - _KILLED * death) * np.where(is_bad, rng.uniform(0.3, 0.8, P), 1.0)


def position_field(settings: SimulateSettings, rng: np.random.Generator, plate: pd.DataFrame) -> NDArray[np.float64]:
    """Edge, centre, row and column effect at each well of one plate, about `settings.position_effect` in size."""
    n_rows, n_columns = SHAPES[settings.plate_wells]
    y = plate["row"].to_numpy() / (n_rows - 1) * 2 - 1
    x = plate["column"].to_numpy() / (n_columns - 1) * 2 - 1
    edge = (np.abs(y) == 1) | (np.abs(x) == 1)
    # Direction is shared by all plates (the incubator), strength is the plate's own.
    shape = np.column_stack([edge, x**2, y, x])
    return settings.position_effect * (shape @ (np.array([1.0, 0.5, 0.5, 0.3]) + rng.normal(0, 0.5, 4)))


def _normalise(raw: NDArray[np.float64], is_dmso: NDArray[np.bool_], how: str) -> NDArray[np.float64]:
    """Scale one plate to its DMSO wells; features that do not vary there become 0."""
    dmso = raw[is_dmso]
    if how == "robust":
        centre = np.median(dmso, axis=0)
        spread = 1.4826 * np.median(np.abs(dmso - centre), axis=0)
    else:
        centre, spread = dmso.mean(axis=0), dmso.std(axis=0, ddof=1)
    varies = spread > 1e-9
    return np.where(varies, (raw - centre) / np.where(varies, spread, 1.0), 0.0)
