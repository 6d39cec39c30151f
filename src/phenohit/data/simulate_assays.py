"""The assays of the simulated screen: true values, sparse noisy measurements, and the best reachable AUROC."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.simulate import Latents
from phenohit.data.simulate_settings import KINDS, SimulateSettings

__all__ = ["Assays", "auroc", "draw_assays", "measure_assays", "true_auroc"]

_ACTIVE_RANGE = (0.12, 0.38)  # share of the library that is active, kept within 10-40 % with room for chance
_SEEN_BY = {
    "morphology": "profiles",
    "invisible": "nothing",
    "cytotoxicity": "profiles and cell count",
    "chemistry": "structures",
}


@dataclass(frozen=True, eq=False)
class Assays:
    """The T assays and their true values.

    Attributes
    ----------
    table : DataFrame, T rows
        ``assay``, ``kind``, ``seen_by``, ``description``.
    visible : float64 array, shape (N, T)
        The part of the value that the data of the assay's kind can show at best; constant where nothing can.
    value : float64 array, shape (N, T)
        The true pIC50: what endless repeats of the measurement would average to.
    """

    table: pd.DataFrame
    visible: NDArray[np.float64]
    value: NDArray[np.float64]


def draw_assays(
    settings: SimulateSettings,
    latents: Latents,
    groups: NDArray[np.bool_],
    group_names: list[str],
    logp: NDArray[np.float64],
) -> Assays:
    """Make the assays of each kind and the true value of every compound in them.

    Parameters
    ----------
    settings : SimulateSettings
    latents : Latents of N compounds
    groups : bool array, shape (N, G)
        True where a compound holds a functional group.
    group_names : list of str, length G
    logp : float array, shape (N,)
    """
    rng = np.random.default_rng([settings.seed, 6])
    made = {
        "morphology": _morphology(settings, rng, latents.potency),
        "invisible": [(latents.hidden[:, j], "Independent per compound.") for j in range(settings.n_invisible)],
        "cytotoxicity": [(latents.toxicity, "Cell death alone.")] * settings.n_cytotoxicity,
        "chemistry": _chemistry(settings, rng, groups, group_names, logp),
    }
    rows: list[dict[str, str]] = []
    visible: list[NDArray[np.float64]] = []
    value: list[NDArray[np.float64]] = []
    for kind in KINDS:
        for number, (latent, description) in enumerate(made[kind], start=1):
            name = f"sim_{kind}_{number:02d}"
            rows.append({"assay": name, "kind": kind, "seen_by": _SEEN_BY[kind], "description": description})
            true = latent + rng.normal(0, settings.unseen_sd, len(latent))
            value.append(true + _shift(settings, true))
            visible.append(np.zeros_like(latent) if kind == "invisible" else latent)
    N = len(logp)
    table = pd.DataFrame(rows, columns=["assay", "kind", "seen_by", "description"])
    stack = [np.column_stack(block) if block else np.empty((N, 0)) for block in (visible, value)]
    return Assays(table, stack[0], stack[1])


def _morphology(
    settings: SimulateSettings, rng: np.random.Generator, potency: NDArray[np.float64]
) -> list[tuple[NDArray[np.float64], str]]:
    """Assays that respond to whichever of two or three mechanisms a compound hits at the lower concentration."""
    K = potency.shape[1]
    sizes = [size for size in (2, 3) if size <= K] or [1]
    sets = [chosen for size in sizes for chosen in combinations(range(K), size)]
    # No two assays read the same mechanisms while there are enough different sets.
    order = [sets[i] for i in _by_turns(rng, len(sets), settings.n_morphology)]
    return [
        (
            np.log10((10.0 ** potency[:, chosen]).sum(axis=1)),
            f"Mechanisms {', '.join(str(k + 1) for k in chosen)}.",
        )
        for chosen in order
    ]


def _by_turns(rng: np.random.Generator, n: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` numbers below `n` in random order, none twice before all were used."""
    rounds = -(-wanted // n)
    return np.concatenate([rng.permutation(n) for _ in range(rounds)] or [np.empty(0, np.int64)])[:wanted]


def _chemistry(
    settings: SimulateSettings,
    rng: np.random.Generator,
    groups: NDArray[np.bool_],
    names: list[str],
    logp: NDArray[np.float64],
) -> list[tuple[NDArray[np.float64], str]]:
    """Assays that respond to either of two functional groups and a little to logP."""
    pairs = list(combinations(range(groups.shape[1]), 2))
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    low, high = _ACTIVE_RANGE
    # Pairs that are neither too rare nor too common come first.
    pairs.sort(key=lambda pair: not low < groups[:, pair].any(axis=1).mean() < high)
    z = (logp - logp.mean()) / max(float(logp.std()), 1e-9)
    made: list[tuple[NDArray[np.float64], str]] = []
    for number in range(settings.n_chemistry):
        a, b = pairs[number % len(pairs)]
        has = groups[:, a] | groups[:, b]
        made.append((4.6 + 1.9 * has + 0.3 * z, f"Holds {names[a]} or {names[b]}; a little logP."))
    return made


def _shift(settings: SimulateSettings, true: NDArray[np.float64]) -> float:
    """Log units to add so that the active share lies in range; 0 where it does already."""
    share = float((true >= settings.threshold).mean())
    low, high = _ACTIVE_RANGE
    if low <= share <= high:
        return 0.0
    return settings.threshold - float(np.quantile(true, 1 - (low if share < low else high)))


def measure_assays(settings: SimulateSettings, assays: Assays) -> pd.DataFrame:
    """Measure some compounds in some assays, now and then twice.

    Returns
    -------
    DataFrame
        One row per measurement: ``compound`` int row of the library, ``column`` int assay, ``value`` pIC50
        with two decimals. Ordered by compound, then assay.
    """
    rng = np.random.default_rng([settings.seed, 7])
    is_measured = rng.random(assays.value.shape) < _chance_measured(settings, assays.value)
    compound, column = np.nonzero(is_measured)
    again = rng.random(len(compound)) < settings.repeats
    compound = np.concatenate([compound, compound[again]])
    column = np.concatenate([column, column[again]])
    value = assays.value[compound, column] + rng.normal(0, settings.measurement_sd, len(compound))
    order = np.lexsort((column, compound))
    value = np.clip(value, 3.0, 10.0).round(2)
    return pd.DataFrame({"compound": compound[order], "column": column[order], "value": value[order]})


def _chance_measured(settings: SimulateSettings, value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chance that each pair is measured: `fill` on average in every assay, more for actives if so wished."""
    if settings.fill_bias == 0 or settings.fill in (0.0, 1.0):
        return np.full(value.shape, settings.fill)
    z = settings.fill_bias * (value - value.mean(axis=0)) / np.maximum(value.std(axis=0), 1e-9)
    low, high = np.full(value.shape[1], -50.0), np.full(value.shape[1], 50.0)
    for _ in range(60):  # bisection for the intercept of each assay
        middle = (low + high) / 2
        is_low = (1 / (1 + np.exp(-(z + middle)))).mean(axis=0) < settings.fill
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    return 1 / (1 + np.exp(-(z + (low + high) / 2)))


def true_auroc(settings: SimulateSettings, assays: Assays, measured: pd.DataFrame) -> pd.DataFrame:
    """Say what is true of each assay: its kind, the AUROC that can be reached at best, and its counts.

    The ceiling is the AUROC of the visible part of the true value, before noise, on the very labels that the
    measurements give (repeats averaged, active at or above the threshold). Scores of a model can pass it by
    chance only. It is 0.5 where nothing is visible.

    Returns
    -------
    DataFrame, T rows
        ``assay, kind, threshold, ceiling_auroc, active_share, n_active, n_inactive, seen_by, description``.
    """
    mean = measured.groupby(["column", "compound"], as_index=False)["value"].mean()
    table = assays.table.copy()
    ceiling, n_active, n_inactive = np.full(len(table), np.nan), np.zeros(len(table), int), np.zeros(len(table), int)
    for column, rows in mean.groupby("column"):
        is_active = rows["value"].to_numpy() >= settings.threshold
        ceiling[column] = auroc(is_active, assays.visible[rows["compound"].to_numpy(), column])
        n_active[column], n_inactive[column] = is_active.sum(), (~is_active).sum()
    with np.errstate(invalid="ignore"):
        active_share = n_active / (n_active + n_inactive)
    table = table.assign(
        threshold=settings.threshold,
        ceiling_auroc=ceiling.round(4),
        active_share=active_share.round(4),
        n_active=n_active,
        n_inactive=n_inactive,
    )
    first = ["assay", "kind", "threshold", "ceiling_auroc", "active_share", "n_active", "n_inactive"]
    return table[[*first, "seen_by", "description"]]


def auroc(is_active: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Area under the ROC curve from average ranks (Mann-Whitney); NaN with one class only."""
    from scipy.stats import rankdata

    n_active = int(is_active.sum())
    n_inactive = len(is_active) - n_active
    if not n_active or not n_inactive:
        return float("nan")
    ranks = rankdata(score)[is_active].sum()
    return float((ranks - n_active * (n_active + 1) / 2) / (n_active * n_inactive))
