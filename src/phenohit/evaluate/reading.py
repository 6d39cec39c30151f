"""How one task's result is read: a single word that keeps chance and confounders in view."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["PREDICTABLE", "READINGS", "read_tasks"]

GOOD = 0.7  # AUROC from which a task counts as moderately predictable (Simm 2018)
MARGIN = 0.02  # AUROC by which the image method must beat a baseline to count as more than it

# Order is the order of the filter list and, for sorting, from best to worst.
READINGS: list[dict[str, str]] = [
    {
        "name": "predictable",
        "tone": "good",
        "text": "AUROC of at least 0.7, above the chance range, and its interval lies above cell count and plate.",
    },
    {
        "name": "baseline comes close",
        "tone": "fair",
        "text": "AUROC of at least 0.7 and above the chance range, but the AUROC of cell count or plate, itself above "
        "chance, lies inside its interval: look before you trust it.",
    },
    {
        "name": "explained by cell count",
        "tone": "warn",
        "text": "Above the chance range, but cell count alone does as well (within 0.02): most likely cytotoxicity.",
    },
    {
        "name": "explained by plate",
        "tone": "warn",
        "text": "Above the chance range, but knowing the plate alone does as well (within 0.02): most likely layout.",
    },
    {"name": "weak signal", "tone": "fair", "text": "Above the chance range, but AUROC below 0.7."},
    {"name": "not above chance", "tone": "none", "text": "Random scores on the same labels reach this AUROC."},
    {
        "name": "too few labels",
        "tone": "none",
        "text": "Within the chance range, which itself reaches 0.7: with so few labels the data cannot tell.",
    },
    {"name": "undefined", "tone": "none", "text": "No fold has both an active and an inactive test compound."},
]
_CODE = {reading["name"]: i for i, reading in enumerate(READINGS)}
PREDICTABLE = _CODE["predictable"]


def read_tasks(
    method: pd.DataFrame, cell_count: pd.DataFrame | None = None, plate: pd.DataFrame | None = None
) -> NDArray[np.int64]:
    """Read every task's result for one method.

    Parameters
    ----------
    method : DataFrame, T rows
        Columns ``auroc, auroc_low, auroc_high, chance_low, chance_high`` (NaN where undefined).
    cell_count, plate : DataFrame, T rows in the same order, optional
        The same columns of these baselines, where they were run.

    Returns
    -------
    codes : int array, shape (T,)
        Positions in `READINGS`.

    Notes
    -----
    The rules are those printed in `READINGS`. A baseline only counts where it is itself above its
    chance range: otherwise a lucky baseline would explain away a real signal.
    """
    auroc = _column(method, "auroc")
    chance = np.nan_to_num(_column(method, "chance_high"), nan=0.5)
    codes = np.full(len(auroc), _CODE["predictable"])
    close = np.zeros(len(auroc), dtype=bool)
    explained: dict[str, NDArray[np.bool_]] = {}
    for name, table in (("explained by plate", plate), ("explained by cell count", cell_count)):
        level = _above_chance(table, len(auroc))
        close |= level >= np.fmin(_column(method, "auroc_low"), auroc)
        explained[name] = level >= auroc - MARGIN
    codes[close] = _CODE["baseline comes close"]
    codes[auroc < GOOD] = _CODE["weak signal"]
    for name, mask in explained.items():  # cell count last, so that it wins where both explain
        codes[mask] = _CODE[name]
    by_chance = auroc <= chance
    codes[by_chance] = _CODE["not above chance"]
    codes[by_chance & (chance >= GOOD)] = _CODE["too few labels"]
    codes[np.isnan(auroc)] = _CODE["undefined"]
    return codes


def _column(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Return a column as numbers, NaN throughout where it is absent."""
    if name not in table:
        return np.full(len(table), np.nan)
    return table[name].to_numpy(dtype=np.float64)


def _above_chance(table: pd.DataFrame | None, n: int) -> NDArray[np.float64]:
    """AUROC of a baseline where it beats its own chance range, -inf elsewhere."""
    if table is None:
        return np.full(n, -np.inf)
    auroc = _column(table, "auroc")
    chance = np.nan_to_num(_column(table, "chance_high"), nan=0.5)
    return np.where(auroc > chance, auroc, -np.inf)
