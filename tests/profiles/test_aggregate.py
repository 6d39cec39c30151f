from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError
from phenohit.profiles import aggregate
from phenohit.profiles.aggregate import to_compounds
from phenohit.profiles.verbs import pycytominer


def wells(X, compounds, **metadata) -> Profiles:
    X = np.asarray(X, dtype=np.float32)
    rows = pd.DataFrame({"Metadata_compound": compounds, **{f"Metadata_{k}": v for k, v in metadata.items()}})
    return Profiles(X, rows.astype(str), [f"Cells_{j}" for j in range(X.shape[1])])


@pytest.mark.parametrize("how", ["median", "mean"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_same_as_pandas_group_by_group(how, data):
    n = data.draw(st.integers(1, 12))
    keys = data.draw(st.lists(st.sampled_from("abcd"), min_size=n, max_size=n))
    values = st.one_of(st.floats(-1e6, 1e6, width=32), st.just(np.nan))
    X = data.draw(arrays(np.float32, (n, 3), elements=values))
    got = to_compounds(wells(X, keys), how=how)
    expected = pd.DataFrame(X.astype(np.float64)).groupby(keys, sort=False).agg(how)
    assert got.compounds.tolist() == expected.index.tolist()  # order of first appearance
    np.testing.assert_allclose(got.X, expected.to_numpy(), rtol=1e-6, atol=1e-6)
    assert got.history == (f"{how}[compound]",)


def test_small_blocks_give_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    given = wells(rng.normal(size=(60, 7)), rng.integers(0, 9, 60).astype(str))
    whole = to_compounds(given).X
    monkeypatch.setattr(aggregate, "_BLOCK", 16)
    np.testing.assert_array_equal(to_compounds(given).X, whole)


def test_metadata_of_a_compound():
    given = wells(
        np.zeros((4, 1)), ["a", "b", "a", "a"],
        Plate=["p2", "p1", "p1", "p2"], Well=["A01", "A02", "A03", "A04"], moa=["x", "y", "x", "x"],
        cell_count=["10", "7", "", "11"], dose=["1", "2", "3", "4"], empty=["1", "1", "2", "2"],
    )  # fmt: skip
    rows = to_compounds(given).rows
    assert rows["Metadata_Plate"].tolist() == ["p2;p1", "p1"]
    assert rows["Metadata_Well"].tolist() == ["", "A02"]
    assert rows["Metadata_moa"].tolist() == ["x", "y"]
    assert rows["Metadata_cell_count"].tolist() == ["10.5", "7"]
    assert rows["Metadata_n_wells"].tolist() == ["3", "1"]


def test_cell_count_is_empty_where_unknown():
    given = wells(np.zeros((2, 1)), ["a", "b"], cell_count=["", "3"])
    assert to_compounds(given).rows["Metadata_cell_count"].tolist() == ["", "3"]


def test_no_features_is_fine():
    assert to_compounds(wells(np.zeros((3, 0)), ["a", "b", "a"])).X.shape == (2, 0)


def test_unknown_way_lists_the_nearest():
    with pytest.raises(ConfigError, match=r"'medain'.*Nearest: median"):
        to_compounds(wells(np.zeros((1, 1)), ["a"]), how="medain")


def replicates(n_compounds: int, seed: int = 0) -> Profiles:
    rng = np.random.default_rng(seed)
    keys = np.repeat(np.arange(n_compounds), rng.integers(1, 7, n_compounds))
    rng.shuffle(keys)
    signal = rng.normal(size=(n_compounds, 60))[keys]
    return wells((0.6 * signal + rng.normal(size=signal.shape)).round(1), keys.astype(str))


@pytest.mark.filterwarnings("ignore:DataFrameGroupBy.apply:FutureWarning")  # pycytominer's own, under pandas 2
@pytest.mark.parametrize(("precision", "tolerance"), [(12, 1e-6), (4, 2e-3)])
def test_modz_as_pycytominer_does_it(precision, tolerance):
    given = replicates(40)
    frame = pd.DataFrame(given.X.astype(float), columns=given.features)
    frame["Metadata_compound"] = given.compounds
    expected = pycytominer().consensus(
        frame, replicate_columns=["Metadata_compound"], operation="modz", features=given.features,
        modz_args={"method": "spearman", "min_weight": 0.01, "precision": precision},
    )  # fmt: skip
    got = to_compounds(given, how="modz")
    expected = expected.set_index("Metadata_compound").loc[got.compounds, given.features]
    np.testing.assert_allclose(got.X, expected, atol=tolerance)
    assert got.history == ("modz[compound]",)


def test_modz_in_small_blocks_gives_the_same(monkeypatch):
    given = replicates(20)
    gappy = wells(np.where(np.random.default_rng(1).random(given.X.shape) < 0.1, np.nan, given.X), given.compounds)
    for profiles in (given, gappy):
        whole = to_compounds(profiles, how="modz").X
        with monkeypatch.context() as patch:
            patch.setattr(aggregate, "_BLOCK", 64)
            np.testing.assert_allclose(to_compounds(profiles, how="modz").X, whole, rtol=1e-5, atol=1e-6)


def test_modz_with_gaps_takes_no_missing_value_for_zero():
    given = replicates(10, seed=3)
    rows = np.flatnonzero(np.isin(given.compounds, [k for k in given.compounds if (given.compounds == k).sum() > 2]))
    X = given.X.copy()
    X[:, 5] = np.nan  # nobody has it: the weights are those of the other features
    X[rows[0], 7] = np.nan
    got = to_compounds(wells(X, given.compounds), how="modz")
    assert np.isnan(got.X[:, 5]).all()
    rest = np.delete(np.arange(60), [5, 7])
    np.testing.assert_allclose(got.X[:, rest], to_compounds(given, how="modz").X[:, rest], atol=0.05)
    mine = X[given.compounds == given.compounds[rows[0]], 7]
    here = got.X[got.compounds == given.compounds[rows[0]], 7]
    assert np.nanmin(mine) - 1e-6 <= here <= np.nanmax(mine) + 1e-6


def test_modz_gives_a_stray_well_little_weight():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=200)
    X = np.stack([signal, signal + 0.1 * rng.normal(size=200), signal + 0.1 * rng.normal(size=200), -3 * signal])
    got = to_compounds(wells(X, list("aaaa")), how="modz").X[0]
    share = (got - X[:3].mean(axis=0)) / (X[3] - X[:3].mean(axis=0))
    assert np.median(share) == pytest.approx(0.01 / (0.01 + 3 * 2 / 3), abs=0.003)
    flat = to_compounds(wells(np.ones((3, 5)), list("aaa")), how="modz").X  # correlates with nothing
    np.testing.assert_allclose(flat, 1, rtol=1e-6)
