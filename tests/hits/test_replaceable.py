from __future__ import annotations

import numpy as np
import pandas as pd

from phenohit.hits.replaceable import COLUMNS, replaceable


def metrics(method: str, auroc, low, chance=0.6, tasks=None) -> pd.DataFrame:
    tasks = tasks or ["good", "better", "wide", "cells", "layout", "luck", "undefined"]
    table = pd.DataFrame({"task": tasks, "assay": tasks, "method": method, "auroc": auroc, "auroc_low": low})
    return table.assign(auroc_high=0.99, chance_low=0.4, chance_high=chance, n_active=50, n_inactive=50)


MINE = metrics(
    "forest-profiles",
    [0.95, 0.97, 0.95, 0.95, 0.95, 0.95, np.nan],
    [0.92, 0.94, 0.80, 0.92, 0.92, 0.92, np.nan],
    [0.6, 0.6, 0.6, 0.6, 0.6, 0.96, 0.6],
)
COUNT = metrics("logistic-cell_count", [0.5, 0.5, 0.5, 0.94, 0.5, 0.5, 0.5], 0.4)
PLATE = metrics("rate-plate", [0.5, 0.5, 0.5, 0.5, 0.94, 0.5, 0.5], 0.4)


def test_only_what_nothing_else_explains_is_listed():
    table = replaceable(pd.concat([PLATE, MINE, COUNT]), "forest-profiles")
    assert table.columns.tolist() == COLUMNS
    assert table["task"].tolist() == ["better", "good"]
    assert table["reading"].eq("predictable").all()
    assert table["cell_count_auroc"].tolist() == [0.5, 0.5]
    alone = replaceable(MINE, "forest-profiles")
    assert alone["task"].tolist() == ["better", "good", "cells", "layout"]
    assert alone["cell_count_auroc"].isna().all()
    assert replaceable(MINE, "forest-profiles", bar=0.93)["task"].tolist() == ["better"]


def test_baselines_are_matched_by_task_not_by_place():
    mixed = COUNT.iloc[::-1]
    assert replaceable(pd.concat([MINE, mixed]), "forest-profiles")["task"].tolist() == ["better", "good", "layout"]


def test_an_unknown_method_and_no_good_task_give_an_empty_table():
    for table in (replaceable(MINE, "other"), replaceable(MINE, "forest-profiles", bar=0.99)):
        assert len(table) == 0
        assert table.columns.tolist() == COLUMNS
