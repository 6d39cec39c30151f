"""The assays of the simulated screen: true values, sparse noisy measurements, and the best reachable AUROC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.simulate import ACTIVE, INACTIVE, Latents
from phenohit.data.simulate_settings import KINDS, SimulateSettings
from phenohit.progress import track

__all__ = ["Assays", "auroc", "draw_assays", "measure_assays"]

_ACTIVE_RANGE = (0.12, 0.38)  # share of the library that is active, kept within 10-40 % with room for chance
_SEEN_BY = {
    "morphology": "profiles",
    "invisible": "nothing",
    "cytotoxicity": "profiles and cell count",
    "chemistry": "structures",
}


@dataclass(frozen=True, eq=False)
class Assays:
    """The T assays; their true values are made one assay at a time, because N x T of them may not fit in memory.

    Attributes
    ----------
    table : DataFrame, T rows
        ``assay``, ``kind``, ``seen_by``, ``description``.
    settings : SimulateSettings
    latents : list of T functions
        Each gives the part of the value that is not the assay's own, float64 (N,).
    """

    table: pd.DataFrame
    settings: SimulateSettings
    latents: list[Callable[[], NDArray[np.float64]]]

    def __len__(self) -> int:
        return len(self.table)

    def visible(self, column: int) -> NDArray[np.float64]:
        """Part of the value that the data of the assay's kind can show at best, (N,); 0 where nothing can."""
        latent = self.latents[column]()
        return np.zeros_like(latent) if self.table["kind"].iloc[column] == "invisible" else latent

    def value(self, column: int) -> NDArray[np.float64]:
        """Return the true pIC50, (N,): what endless repeats of the measurement would average to."""
        rng = np.random.default_rng([self.settings.seed, 6, 1, column])
        latent = self.latents[column]()
        true = latent + rng.normal(0, self.settings.unseen_sd, len(latent))
        return true + _shift(self.settings, true)


def draw_assays(
    settings: SimulateSettings,
    latents: Latents,
    groups: NDArray[np.bool_],
    group_names: list[str],
    logp: NDArray[np.float64],
) -> Assays:
    """Make the assays of each kind.

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
        "invisible": [
            (partial(_hidden, settings, latents, j), "Independent per compound.") for j in range(settings.n_invisible)
        ],
        "cytotoxicity": [(lambda: latents.toxicity, "Cell death alone.")] * settings.n_cytotoxicity,
        "chemistry": _chemistry(settings, rng, groups, group_names, logp),
    }
    rows: list[dict[str, str]] = []
    functions: list[Callable[[], NDArray[np.float64]]] = []
    for kind in KINDS:
        for number, (latent, description) in enumerate(made[kind], start=1):
            name = f"sim_{kind}_{number:0{max(2, len(str(len(made[kind]))))}d}"
            rows.append({"assay": name, "kind": kind, "seen_by": _SEEN_BY[kind], "description": description})
            functions.append(latent)
    table = pd.DataFrame(rows, columns=["assay", "kind", "seen_by", "description"])
    return Assays(table, settings, functions)


_Latent = tuple[Callable[[], NDArray[np.float64]], str]


def _hidden(settings: SimulateSettings, latents: Latents, number: int) -> NDArray[np.float64]:
    """Potencies that nothing shows, independent of everything else."""
    rng = np.random.default_rng([settings.seed, 6, 2, number])
    N = len(latents.toxicity)
    return np.where(rng.random(N) < settings.hidden_share, rng.normal(*ACTIVE, N), rng.normal(*INACTIVE, N))


def _morphology(settings: SimulateSettings, rng: np.random.Generator, potency: NDArray[np.float64]) -> list[_Latent]:
    """Assays that respond to whichever of two or three mechanisms a compound hits at the lower concentration."""
    K = potency.shape[1]
    sizes = [size for size in (2, 3) if size <= K] or [1]
    sets = [chosen for size in sizes for chosen in combinations(range(K), size)]
    # No two assays read the same mechanisms while there are enough different sets.
    order = [sets[i] for i in _by_turns(rng, len(sets), settings.n_morphology)]
    return [
        (
            partial(_either, potency, chosen),
            f"Mechanisms {', '.join(str(k + 1) for k in chosen)}.",
        )
        for chosen in order
    ]


def _either(potency: NDArray[np.float64], chosen: tuple[int, ...]) -> NDArray[np.float64]:
    """Potency of a compound that acts through any of some mechanisms."""
    return np.log10((10.0 ** potency[:, list(chosen)]).sum(axis=1))


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
) -> list[_Latent]:
    """Assays that respond to either of two functional groups and a little to logP."""
    pairs = list(combinations(range(groups.shape[1]), 2))
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    low, high = _ACTIVE_RANGE
    # Pairs that are neither too rare nor too common come first.
    pairs.sort(key=lambda pair: not low < groups[:, pair].any(axis=1).mean() < high)
    z = (logp - logp.mean()) / max(float(logp.std()), 1e-9)
    made: list[_Latent] = []
    for number in range(settings.n_chemistry):
        a, b = pairs[number % len(pairs)]
        made.append((partial(_holds, groups, a, b, z), f"Holds {names[a]} or {names[b]}; a little logP."))
    return made


def _holds(groups: NDArray[np.bool_], a: int, b: int, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Potency of compounds by two functional groups and logP."""
    return 4.6 + 1.9 * (groups[:, a] | groups[:, b]) + 0.3 * z


def _shift(settings: SimulateSettings, true: NDArray[np.float64]) -> float:
    """Log units to add so that the active share lies in range; 0 where it does already."""
    share = float((true >= settings.threshold).mean())
    low, high = _ACTIVE_RANGE
    if low <= share <= high:
        return 0.0
    return settings.threshold - float(np.quantile(true, 1 - (low if share < low else high)))


def measure_assays(settings: SimulateSettings, assays: Assays) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure some compounds in some assays, now and then twice, and say what can be known of each assay.

    Works assay by assay: beyond the result, memory is that of a few vectors of length N.

    Returns
    -------
    measured : DataFrame
        One row per measurement: ``compound`` int32 row of the library, ``column`` int32 assay, ``value``
        float32 pIC50 with two decimals. Ordered by compound, then assay.
    truth : DataFrame, T rows
        ``assay, kind, threshold, ceiling_auroc, active_share, n_active, n_inactive, seen_by, description``.
        The ceiling is the AUROC of the visible part of the true value, before noise, on the very labels
        that the measurements give (repeats averaged, active at or above the threshold). Scores of a model
        can pass it by chance only. It is 0.5 where nothing is visible.
    """
    T = len(assays)
    compounds: list[NDArray[np.int32]] = []
    values: list[NDArray[np.float32]] = []
    ceiling, n_active, n_inactive = np.full(T, np.nan), np.zeros(T, int), np.zeros(T, int)
    for column in track(range(T), "simulate assays") if T > 100 else range(T):
        rng = np.random.default_rng([settings.seed, 7, column])
        true = assays.value(column)
        once = np.flatnonzero(rng.random(len(true)) < _chance_measured(settings, true))
        again = once[rng.random(len(once)) < settings.repeats]
        compound = np.concatenate([once, again])
        value = true[compound] + rng.normal(0, settings.measurement_sd, len(compound))
        value = np.clip(value, 3.0, 10.0).round(2)
        compounds.append(compound.astype(np.int32))
        values.append(value.astype(np.float32))
        total = np.bincount(np.searchsorted(once, compound), weights=value, minlength=len(once))
        n = np.bincount(np.searchsorted(once, compound), minlength=len(once))
        # Rounded as labels are, so that 6.0 measured twice is not below 6.0.
        is_active = np.round(total / np.maximum(n, 1), 9) >= settings.threshold
        ceiling[column] = auroc(is_active, assays.visible(column)[once])
        n_active[column], n_inactive[column] = is_active.sum(), (~is_active).sum()
    columns = np.repeat(np.arange(T, dtype=np.int32), [len(c) for c in compounds])
    compound = np.concatenate(compounds or [np.zeros(0, np.int32)])
    order = np.lexsort((columns, compound))
    value = np.concatenate(values or [np.zeros(0, np.float32)])[order]
    measured = pd.DataFrame({"compound": compound[order], "column": columns[order], "value": value})
    with np.errstate(invalid="ignore"):
        active_share = n_active / (n_active + n_inactive)
    truth = assays.table.assign(
        threshold=settings.threshold,
        ceiling_auroc=ceiling.round(4),
        active_share=active_share.round(4),
        n_active=n_active,
        n_inactive=n_inactive,
    )
    first = ["assay", "kind", "threshold", "ceiling_auroc", "active_share", "n_active", "n_inactive"]
    return measured, truth[[*first, "seen_by", "description"]]


def _chance_measured(settings: SimulateSettings, value: NDArray[np.float64]) -> NDArray[np.float64] | float:
    """Chance that each compound is measured: `fill` on average, more for actives if so wished; (N,) or one number."""
    if settings.fill_bias == 0 or settings.fill in (0.0, 1.0):
        return settings.fill
    z = settings.fill_bias * (value - value.mean()) / max(float(value.std()), 1e-9)
    low, high = -50.0, 50.0
    for _ in range(60):  # bisection for the intercept
        middle = (low + high) / 2
        is_low = (1 / (1 + np.exp(-(z + middle)))).mean() < settings.fill
        low, high = (middle, high) if is_low else (low, middle)
    return 1 / (1 + np.exp(-(z + (low + high) / 2)))


def auroc(is_active: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Area under the ROC curve from average ranks (Mann-Whitney); NaN with one class only."""
    from scipy.stats import rankdata

    n_active = int(is_active.sum())
    n_inactive = len(is_active) - n_active
    if not n_active or not n_inactive:
        return float("nan")
    ranks = rankdata(score)[is_active].sum()
    return float((ranks - n_active * (n_active + 1) / 2) / (n_active * n_inactive))
