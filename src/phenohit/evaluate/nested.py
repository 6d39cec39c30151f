"""Nested cross-validation: settings are chosen on folds within the training rows, which no test row ever enters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, nearest
from phenohit.evaluate.balance import balance, group_counts
from phenohit.evaluate.splits import TEST, UNUSED, Folds, group_folds
from phenohit.models import find_model

__all__ = ["GRIDS", "best_cell", "grid_cells", "inner_folds", "share_of_groups"]

# Grids of Simm 2018: network, Table S1 (108 settings); forest, Table S2 (6).
GRIDS: dict[str, dict[str, dict[str, list[Any]]]] = {
    "network": {
        "simm2018": {
            "layers": [1, 2, 3],
            "units": [1024, 2048, 4096],
            "learning_rate": [0.01, 0.05, 0.1],
            "dropout": [
                {"dropout_input": 0.0, "dropout_hidden": 0.0},
                {"dropout_input": 0.1, "dropout_hidden": 0.5},
            ],
            "dropout_schedule": [False, True],
        }
    },
    "forest": {"simm2018": {"criterion": ["gini", "entropy"], "max_features": [1.0, 2.0, 3.0]}},
}


def grid_cells(model: str, settings: Mapping[str, Any], grid: str | Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return every combination of a grid, as settings of the model.

    Parameters
    ----------
    model : str
        Name in the MODELS table.
    settings : mapping
        What all of them share.
    grid : str or mapping
        Name of a grid in `GRIDS`, or setting -> list of values. A value that is a mapping sets what it names, for
        settings that change together: ``{dropout: [{dropout_input: 0.1, dropout_hidden: 0.5}]}``.

    Raises
    ------
    ConfigError
        For an unknown grid or an impossible setting.
    """
    if isinstance(grid, str):
        known = GRIDS.get(model, {})
        if grid not in known:
            raise ConfigError(f"tune.grids: '{grid}' is not a grid of '{model}'. {nearest(grid, known)}")
        grid = known[grid]
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"tune.grids: '{name}' of '{model}' is {values!r}, but must be a list of values to try.")
    cells = []
    for chosen in itertools.product(*grid.values()):
        cell = dict(settings)
        for name, value in zip(grid, chosen, strict=True):
            cell |= value if isinstance(value, Mapping) else {name: value}
        find_model(model)(**cell)  # refuses what cannot be set
        cells.append(cell)
    return cells


def inner_folds(folds: Folds, split: int, n: int, labels: Labels, *, seed: int) -> Folds:
    """Make folds of the training and validation rows of one outer split, by the same groups.

    Parameters
    ----------
    folds : Folds over R rows
    split : int
        Column of ``folds.part``.
    n : int
        Inner folds.
    labels : Labels, R rows
    seed : int

    Returns
    -------
    Folds
        Over the same R rows; the outer test rows, and those that the outer split does not use, are UNUSED.
    """
    rows = np.flatnonzero(folds.part[:, split] < TEST)
    inside = group_folds(
        folds.rows["group"].to_numpy()[rows], n, labels=labels.take(rows), rows=folds.rows.iloc[rows], seed=seed,
        kind=f"{folds.kind}, within fold {folds.names[split]}",
    )  # fmt: skip
    part = np.full((len(folds.rows), n), UNUSED, dtype=np.int8)
    part[rows] = inside.part
    return Folds(part, folds.rows, inside.names, inside.fold, inside.kind)


def share_of_groups(folds: Folds, share: float, labels: Labels, *, seed: int) -> Folds:
    """Keep a share of the groups that train or validate, balanced in labels; test rows stay as they are.

    For successive halving (Jamieson & Talwalkar 2016, AISTATS): many settings are first compared on few rows.
    """
    if share >= 1:
        return folds
    part = folds.part.copy()
    for column in part.T:
        rows = np.flatnonzero(column < TEST)
        unique, code = np.unique(folds.rows["group"].to_numpy()[rows], return_inverse=True)
        counts = group_counts(code, len(unique), labels.take(rows))
        chosen = balance(counts, np.array([share, 1 - share]), np.random.default_rng(seed))
        column[rows[chosen[code] == 1]] = UNUSED
    return Folds(part, folds.rows, folds.names, folds.fold, folds.kind)


def best_cell(auroc: NDArray[np.floating]) -> tuple[int, pd.DataFrame]:
    """Choose among settings by their AUROC on inner folds.

    Parameters
    ----------
    auroc : float array, shape (cells, inner folds, T)
        NaN where a fold lacks a class of a task.

    Returns
    -------
    best : int
        The cell with the highest mean over tasks of the mean over inner folds; the first among equals. Tasks that are
        undefined in every fold count for none.
    table : DataFrame
        One row per cell: ``cell``, ``auroc`` and ``sd`` (over inner folds).
    """
    defined = np.isfinite(auroc).all(axis=0)  # the same tasks and folds for all cells
    if not defined.any():
        mean = np.full(len(auroc), np.nan)
        return 0, pd.DataFrame({"cell": np.arange(len(auroc)), "auroc": mean, "sd": mean})
    kept = np.where(defined, auroc, 0.0)
    n = defined.sum(axis=0)
    of_task = kept.sum(axis=1)[:, n > 0] / n[n > 0]
    mean = of_task.mean(axis=1)
    per_fold = kept.sum(axis=2)[:, defined.any(axis=1)] / defined.sum(axis=1)[defined.any(axis=1)]
    table = pd.DataFrame({"cell": np.arange(len(auroc)), "auroc": mean, "sd": per_fold.std(axis=1)})
    return int(np.argmax(mean)), table
