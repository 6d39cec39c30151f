import numpy as np
import pandas as pd
import pytest

from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, ShapeError
from phenohit.fewshot.inputs import beside, dense, parts_of, prepared, rows_to_scale
from phenohit.profiles.inputs import fingerprint_table


def wells(n, *, seed=0, F=3, plate="P1"):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "Metadata_compound": [f"c{i // 2}" for i in range(n)],
            "Metadata_Plate": plate,
            "Metadata_Well": [f"A{i:02d}" for i in range(n)],
        }
    )
    return Profiles(rng.normal(5, 2, (n, F)).astype(np.float32), rows, [f"f{j}" for j in range(F)])


def test_scaling_is_learned_on_rows_that_are_learned_from(caplog):
    trained, tested = np.arange(300) < 120, np.arange(300) >= 100
    assert rows_to_scale(trained, tested).tolist() == list(range(120))
    assert rows_to_scale(np.arange(300) < 20, tested).tolist() == list(range(100))
    assert len(rows_to_scale(np.arange(300) < 20, np.ones(300, bool))) == 300
    assert "scaled on all 300 rows" in caplog.text
    table = wells(300)
    ready = prepared(table, np.arange(120), kind="profiles", clip=None)
    np.testing.assert_allclose(ready.X[:120].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(ready.X[:120].std(axis=0), 1, atol=1e-4)
    moved = Profiles(np.vstack([table.X[:120], table.X[120:] + 100]), table.rows, table.features)
    np.testing.assert_array_equal(prepared(moved, np.arange(120), kind="profiles", clip=None).X[:120], ready.X[:120])


def test_fingerprints_stay_bits():
    packed = np.random.default_rng(0).integers(0, 256, (40, 8)).astype(np.uint8)
    table = dense(fingerprint_table(np.array([f"c{i}" for i in range(40)], object), packed), np.array([3, 3, 0]))
    np.testing.assert_array_equal(table.X[0], np.unpackbits(packed[3]))
    ready = prepared(
        dense(fingerprint_table(np.array([f"c{i}" for i in range(40)], object), packed), np.arange(40)),
        np.arange(40), kind="ecfp", clip=None,
    )  # fmt: skip
    assert set(np.unique(ready.X)) == {0.0, 1.0}


def test_an_added_table_is_matched_by_well_and_gaps_are_told():
    table, other = wells(20), wells(20, seed=1, F=2)
    order = np.random.default_rng(2).permutation(20)[:18]
    found, missing = beside(table, other.take(order))
    there = np.setdiff1d(np.arange(20), missing)
    assert sorted([*there, *missing]) == list(range(20))
    assert set(missing) == set(range(20)) - set(order)
    np.testing.assert_array_equal(found.X[there], other.X[there])
    assert np.isnan(found.X[missing]).all()
    assert found.features == ["added_f0", "added_f1"]


def test_an_added_table_of_compounds_is_matched_by_compound():
    table = wells(6)
    other = Profiles(
        np.arange(3, dtype=np.float32)[:, None], pd.DataFrame({"Metadata_compound": ["c2", "c0", "c1"]}), ["e"]
    )
    found, missing = beside(table, other)
    assert not len(missing)
    assert found.X[:, 0].tolist() == [1, 1, 2, 2, 0, 0]
    with pytest.raises(ShapeError, match="twice"):
        beside(table, other.take([0, 0]))
    with pytest.raises(ShapeError, match="No row of the added table"):
        beside(wells(4, plate="P9"), wells(4))


def test_names_of_inputs():
    assert parts_of("profiles+embedding") == ["profiles", "embedding"]
    with pytest.raises(ConfigError, match="'profile'"):
        parts_of("profile")
    with pytest.raises(ConfigError, match="each table once"):
        parts_of("ecfp+ecfp")
