"""Which assays the image screen could stand in for."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phenohit.evaluate.reading import PREDICTABLE, READINGS, read_tasks

__all__ = ["COLUMNS", "replaceable"]

COLUMNS = [
    "task", "assay", "method", "auroc", "auroc_low", "auroc_high", "chance_high", "cell_count_auroc", "plate_auroc",
    "n_active", "n_inactive", "reading",
]  # fmt: skip
_ALLOWED = ("predictable", "baseline comes close")  # neither chance, nor cell count, nor layout


def replaceable(metrics: pd.DataFrame, method: str, *, bar: float = 0.9) -> pd.DataFrame:
    """List the tasks that images predict so well that the assay itself may not be needed to rank compounds.

    Parameters
    ----------
    metrics : DataFrame
        Score table of a split: one row per method and task (``metrics.parquet``).
    method : str
        A method on the profiles.
    bar : float
        What the lower end of the AUROC interval must exceed.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`, highest lower end first: tasks above the bar and above chance that neither cell count
        nor plate explains (see `phenohit.evaluate.reading`). The AUROC of the two baselines stand beside it, NaN
        where they were not run.

    Notes
    -----
    Hofmarcher et al. 2019 (doi:10.1021/acs.jcim.8b00670) count assays with AUROC above 0.9 as those that
    an image assay could replace. Here the interval must lie above it. Many tasks are looked at, so some of them
    pass by luck: confirm before an assay is given up.
    """
    tables = {str(name): part.reset_index(drop=True) for name, part in metrics.groupby("method", sort=False)}
    if method not in tables:
        return pd.DataFrame({c: pd.Series(dtype=object) for c in COLUMNS})
    mine = tables[method]
    aligned = {
        name: tables[name].set_index("task").reindex(mine["task"]).reset_index() if name in tables else None
        for name in ("logistic-cell_count", "rate-plate")
    }
    count, plate = aligned["logistic-cell_count"], aligned["rate-plate"]
    codes = read_tasks(mine, count, plate)
    table = mine.assign(
        reading=[READINGS[code]["name"] for code in codes],
        cell_count_auroc=np.nan if count is None else count["auroc"],
        plate_auroc=np.nan if plate is None else plate["auroc"],
    )
    table = table[(table["auroc_low"] > bar) & table["reading"].isin(_ALLOWED)]
    order = np.lexsort((-table["auroc_low"].to_numpy(), (table["reading"] != READINGS[PREDICTABLE]["name"]).to_numpy()))
    return table.reindex(columns=COLUMNS).iloc[order].reset_index(drop=True)
