from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phenohit.errors import ColumnError, ConfigError, FileError, PlateError
from phenohit.profiles import cells
from phenohit.profiles.cells import WellTable, check_statistics, summarise
from phenohit.profiles.verbs import pycytominer

STATISTICS = ["median", "mean", "sd", "mad", "q10", "q90", "q2.5"]


def pandas_statistics(frame: pd.DataFrame, by: np.ndarray) -> dict[str, pd.DataFrame]:
    group = frame.astype(np.float64).groupby(by)
    spread = (frame.astype(np.float64) - group.transform("median")).abs().groupby(by).median()
    quantiles = {f"q{100 * q:g}": group.quantile(q) for q in (0.1, 0.9, 0.025)}
    return {"median": group.median(), "mean": group.mean(), "sd": group.std(), "mad": spread, **quantiles}


def rows_of(n: int) -> pd.DataFrame:
    return pd.DataFrame({"Metadata_Plate": "p", "Metadata_Well": [f"A{i + 1:02d}" for i in range(n)]}, dtype=str)


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(1, 4)),
        elements=st.one_of(st.floats(-1e6, 1e6, width=32), st.just(np.nan)),
    )
)
def test_a_well_as_pandas_does_it(block):
    expected = pandas_statistics(pd.DataFrame(block), np.zeros(len(block)))
    got = summarise(block, STATISTICS)
    for s, name in enumerate(STATISTICS):
        np.testing.assert_allclose(got[s], expected[name].to_numpy()[0], rtol=1e-5, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("hold", [1 << 28, 4000], ids=["memory", "file"])
@pytest.mark.parametrize("close", [True, False])
def test_cells_in_any_order_and_any_blocks(hold, close):
    rng = np.random.default_rng(0)
    well = rng.integers(0, 20, 3000)
    X = rng.normal(size=(3000, 9)).astype(np.float32)
    X[rng.random(X.shape) < 0.05] = np.nan
    X[0, 3] = np.inf
    table = WellTable(20, [f"Cells_{j}" for j in range(9)], STATISTICS, hold=hold)
    parts = [table.collector(slice(0, 4)), table.collector(slice(4, 9))]
    table.count(well)
    left = np.bincount(well)
    for start in range(0, 3000, 137):
        at = slice(start, start + 137)
        left -= np.bincount(well[at], minlength=20)
        for part in parts:
            part.add(well[at], X[at, part.columns].copy())
            if close:
                part.close(np.flatnonzero(left == 0))
    for part in parts:
        part.finish()
    assert table.held == 0
    profiles, lost = table.finish(rows_of(20), 1)
    X[0, 3] = np.nan
    expected = pandas_statistics(pd.DataFrame(X), well)
    for name in STATISTICS:
        suffix = "" if name == "median" else f"__{name}"
        got = profiles.X[:, [profiles.features.index(f"Cells_{j}{suffix}") for j in range(9)]]
        np.testing.assert_allclose(got, expected[name], rtol=1e-5, atol=1e-6)
    assert profiles.history == ("+".join(STATISTICS) + "[cells]",)
    assert table.n_gaps.sum() == np.isnan(X).sum()
    infinite = lost[lost["id"] == "Cells_3"]["reason"].item()
    assert "(1 infinite)" in infinite
    assert "kept" in infinite


@pytest.mark.parametrize("how", ["median", "mean"])
def test_as_pycytominer_aggregates(how):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        rng.normal(size=(500, 6)).astype(np.float32), columns=[f"Cells_AreaShape_{j}" for j in range(6)]
    )
    well = rng.integers(0, 7, 500)
    frame["Metadata_Well"] = [f"A{i + 1:02d}" for i in well]
    expected = pycytominer().aggregate(frame, strata=["Metadata_Well"], operation=how, features="infer")
    table = WellTable(7, [c for c in frame if c.startswith("Cells_")], [how])
    collector = table.collector()
    table.count(well)
    collector.add(well, frame[table.features].to_numpy())
    collector.finish()
    profiles, _ = table.finish(rows_of(7), 1)
    np.testing.assert_allclose(profiles.X, expected[table.features].to_numpy(), rtol=1e-5)


def test_small_wells_and_features_without_values_are_listed():
    table = WellTable(3, ["Cells_a", "Cells_b", "Cells_c"], ["mean", "sd"])
    well = np.array([0, 0, 1])
    table.count(well)
    collector = table.collector()
    collector.add(well, np.array([[1, np.nan, np.nan], [3, np.nan, 1], [5, np.nan, 1]], dtype=np.float32))
    collector.finish()
    profiles, lost = table.finish(rows_of(3), 2)
    assert profiles.features == ["Cells_a", "Cells_c", "Cells_a__sd", "Cells_c__sd"]
    np.testing.assert_allclose(profiles.X, [[2, 1, np.sqrt(2), np.nan]])
    assert profiles.rows["Metadata_Well"].tolist() == ["A01"]
    reasons = dict(zip(lost["id"], lost["reason"], strict=True))
    assert reasons["p A02"] == "1 cells, fewer than 2"
    assert reasons["p A03"] == "0 cells, fewer than 2"
    assert reasons["Cells_b"] == "no value in any cell"
    assert reasons["Cells_c"].startswith("1 of 3 cells have no value")


def test_nothing_left_is_an_error():
    table = WellTable(1, ["Cells_a"], ["median"])
    with pytest.raises(PlateError, match=r"None of the 1 wells has 5 cells: the fullest has 0"):
        table.finish(rows_of(1), 5)
    table.count(np.zeros(5, dtype=int))
    with pytest.raises(ColumnError, match=r"None of the 1 features has a value"):
        table.finish(rows_of(1), 5)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["medain"], "'medain' is not known"),
        ([], "empty"),
        (["q0"], "not known"),
        (["sd", "sd"], "twice"),
        (["q100"], "q99"),
    ],
)
def test_statistics_are_checked(names, said):
    with pytest.raises(ConfigError, match=said):
        check_statistics(names)


def test_a_full_disk_is_said(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cells.tempfile, "TemporaryFile", full)
    collector = WellTable(1, ["Cells_a"], ["median"], hold=8).collector()
    with pytest.raises(FileError, match=r"No space left.*TMPDIR"):
        collector.add(np.zeros(9, dtype=int), np.zeros((9, 1), dtype=np.float32))
