"""One word per task: each rule on numbers that only it decides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.evaluate.reading import READINGS, read_tasks

NAN = np.nan


def row(auroc, low=None, high=None, chance=0.6):
    low, high = auroc - 0.05 if low is None else low, auroc + 0.05 if high is None else high
    return {"auroc": auroc, "auroc_low": low, "auroc_high": high, "chance_low": 1 - chance, "chance_high": chance}


def read(image, cell=None, plate=None) -> str:
    frames = [None if r is None else pd.DataFrame([r]) for r in (image, cell, plate)]
    return READINGS[read_tasks(*frames)[0]]["name"]


@pytest.mark.parametrize(
    ("image", "cell", "plate", "expected"),
    [
        (row(0.85), row(0.60), row(0.55), "predictable"),
        (row(0.85), None, None, "predictable"),
        (row(0.70), None, None, "predictable"),
        (row(0.85), row(0.84), None, "explained by cell count"),
        (row(0.85), row(0.95), None, "explained by cell count"),
        (row(0.85), row(0.82), None, "baseline comes close"),
        (row(0.85), None, row(0.84), "explained by plate"),
        (row(0.85), row(0.84), row(0.99), "explained by cell count"),
        (row(0.66), row(0.50), None, "weak signal"),
        (row(0.66), row(0.66), None, "explained by cell count"),
        (row(0.58), row(0.58), None, "not above chance"),
        (row(0.60), None, None, "not above chance"),
        (row(0.75, chance=0.78), None, None, "too few labels"),
        (row(0.95, chance=0.78), None, None, "predictable"),
        (row(NAN), row(0.9), None, "undefined"),
    ],
)
def test_rules(image, cell, plate, expected):
    assert read(image, cell, plate) == expected


def test_a_baseline_within_its_own_chance_range_explains_nothing():
    assert read(row(0.80), row(0.79, chance=0.80)) == "predictable"


def test_missing_intervals_and_chance_do_not_break():
    bare = {"auroc": 0.8, "auroc_low": NAN, "auroc_high": NAN, "chance_low": NAN, "chance_high": NAN}
    assert read(bare) == "predictable"
    assert read(bare, row(0.81)) == "explained by cell count"
    assert READINGS[read_tasks(pd.DataFrame({"auroc": [0.4, 0.9]}))[0]]["name"] == "not above chance"
