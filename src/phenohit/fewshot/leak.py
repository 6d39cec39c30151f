"""How much it flatters to draw wells in the place of compounds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phenohit.fewshot.benchmark import SHOWN

__all__ = ["leak_table"]

_REPLICATES = 2000  # resamples of the tasks


def leak_table(wells: pd.DataFrame, compounds: pd.DataFrame, *, seed: int, confidence: float = 0.95) -> pd.DataFrame:
    """Compare the same methods on episodes of wells and on episodes of compounds.

    Parameters
    ----------
    wells, compounds : DataFrame
        From `phenohit.fewshot.benchmark.task_means`. Tasks that one of them lacks at a support size are left out.
    seed : int
    confidence : float

    Returns
    -------
    DataFrame
        ``method, size, metric, n_tasks, wells, compounds`` (means over tasks), ``difference`` (wells minus
        compounds) with ``low`` and ``high`` from resampled tasks.

    Notes
    -----
    Where replicates or doses of one compound are on both sides of an episode, the method recognises the compound: the
    difference is what an episode of wells gains by that. With the same number of rows, an episode of wells holds fewer
    compounds, which by itself would make it harder.
    """
    keys = ["method", "task", "size"]
    both = wells.merge(compounds, on=keys, suffixes=("_wells", "_compounds"))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    rows = []
    for _, part in both.groupby(["method", "size"], sort=False):
        method, size = str(part["method"].iloc[0]), int(part["size"].iloc[0])
        draws = np.random.default_rng([seed, size]).integers(0, len(part), (_REPLICATES, len(part)))
        for metric in SHOWN:
            a, b = (part[f"{metric}_{side}"].to_numpy(np.float64) for side in ("wells", "compounds"))
            low, high = np.quantile((a - b)[draws].mean(axis=1), tails)
            rows.append((method, size, metric, len(part), a.mean(), b.mean(), (a - b).mean(), low, high))
    columns = ["method", "size", "metric", "n_tasks", "wells", "compounds", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
