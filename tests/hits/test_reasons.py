from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from phenohit.hits.reasons import cautions, performance, reasons

GOOD = {"auroc": 0.86, "auroc_low": 0.80, "auroc_high": 0.91, "chance_high": 0.58, "cell_count_auroc": 0.61}


def table(n=5_812, **changes) -> pd.DataFrame:
    """A ranking of n candidates whose first row is picked."""
    row = {
        "score": np.float32(0.83), "percentile": 99.6, "pains": "", "cluster": 0, "picked": True, "smiles": "CCO",
        "nearest_similarity": np.float32(0.31), "nearest_active": "BRD-1", "new_scaffold": True,
    } | changes  # fmt: skip
    rest = {**row, "cluster": -1, "picked": False, "pains": "not checked"}
    return pd.DataFrame([row] + [rest] * (n - 1))


def test_the_whole_sentence():
    assert reasons(table(), GOOD)[0] == (
        "Score 0.83, top 0.4 % of 5,812 candidates; task AUROC 0.86 [0.80, 0.91] (chance 0.5, cell count 0.61); "
        "nearest known active is 0.31 similar: new chemotype."
    )


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"nearest_similarity": np.float32(0.7)}, "0.70 similar: close analogue of BRD-1."),
        ({"new_scaffold": False}, "0.31 similar: known scaffold."),
        ({"nearest_similarity": np.float32(0.5)}, "0.50 similar: new scaffold."),
        ({"nearest_similarity": np.float32(0.5), "new_scaffold": None}, "0.50 similar: no ring system."),
        ({"nearest_similarity": math.nan}, "no known active to compare with."),
        ({"nearest_similarity": math.nan, "smiles": ""}, "no structure to compare with known actives."),
        ({"pains": "quinone_A(370)"}, "new chemotype; PAINS alert quinone_A(370)."),
    ],
)
def test_what_is_said_of_novelty(changes, end):
    assert reasons(table(3, **changes), GOOD, filters=())[0].endswith(end)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"auroc_low": 0.48}, "interval includes chance"),
        ({"auroc_low": 0.5}, "interval includes chance"),
        ({"auroc": 0.3, "auroc_low": 0.1, "auroc_high": 0.4}, "interval includes chance"),
        ({"chance_high": 0.87}, "random scores reach an AUROC of 0.87"),
        ({"auroc": math.nan}, "could not be evaluated"),
        ({"auroc_low": math.nan, "chance_high": math.nan}, "no interval"),
        ({"cell_count_auroc": 0.9}, "cell count alone ranks as well (AUROC 0.90)"),
    ],
)
def test_doubt_is_spelled_out(changes, text):
    metrics = GOOD | changes
    assert any(text in c for c in cautions(metrics))
    sentence = reasons(table(3), metrics)[0]
    assert "; caution: " in sentence
    assert text in sentence


def test_a_good_task_has_no_caution():
    assert cautions(GOOD) == []
    assert cautions({k: v for k, v in GOOD.items() if k not in ("chance_high", "cell_count_auroc")}) == []


def test_missing_metrics_are_unknown_not_zero():
    assert performance({}) == "task AUROC unknown"
    assert performance({"auroc": 0.7}) == "task AUROC 0.70 (chance 0.5)"
    assert performance({"auroc": None}) == "task AUROC unknown"


def test_rows_that_are_not_picked_say_why():
    rows = pd.concat([table(1), table(3).iloc[1:], table(1, picked=False), table(1, picked=False, cluster=9)])
    rows.iloc[1, rows.columns.get_loc("pains")] = "quinone_A(370)"
    said = reasons(rows.reset_index(drop=True), GOOD).tolist()
    assert said[1:] == [
        "Not picked: PAINS alert: quinone_A(370).",
        "Not picked: ranked below the compounds that were clustered.",
        "Not picked: others of its cluster were drawn.",
        "Not picked: the list was full before its cluster had its turn.",
    ]


@pytest.mark.parametrize(("percentile", "text"), [(99.9998, "0.0002 %"), (97.44, "2.6 %"), (0, "100 %"), (75, "25 %")])
def test_shares_are_readable(percentile, text):
    assert f"top {text} of" in reasons(table(3, percentile=percentile), GOOD)[0]
