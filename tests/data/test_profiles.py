from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, FileError, ShapeError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def make(X, **metadata) -> Profiles:
    X = np.asarray(X, dtype=np.float32)
    return Profiles(X, pd.DataFrame(metadata, index=range(len(X))), [f"Cells_{j}" for j in range(X.shape[1])])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), X=arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_round_trip_is_exact(tmp_path_factory, data, X):
    rows = pd.DataFrame({"Metadata_compound": data.draw(st.lists(TEXT, min_size=len(X), max_size=len(X)))}, dtype=str)
    before = Profiles(X, rows, [f"f{j}" for j in range(X.shape[1])], ("median[compound]",))
    path = tmp_path_factory.mktemp("round") / "p.parquet"
    before.save(path)
    after = Profiles.load(path)
    assert after.X.tobytes() == before.X.tobytes()  # NaN and -0.0 included
    assert after.rows["Metadata_compound"].tolist() == rows["Metadata_compound"].tolist()
    assert (after.features, after.history) == (before.features, before.history)


def test_rows_beyond_one_row_group_survive(tmp_path):
    many = make(np.arange(40_000).reshape(-1, 2), Metadata_Plate=[str(i) for i in range(20_000)])
    many.save(tmp_path / "p.parquet")
    after = Profiles.load(tmp_path / "p.parquet")
    np.testing.assert_array_equal(after.X, many.X)
    assert after.rows["Metadata_Plate"].iloc[-1] == "19999"


def test_no_rows_round_trip(tmp_path):
    empty = make(np.empty((0, 3)), Metadata_Plate=[])
    empty.save(tmp_path / "p.parquet")
    assert Profiles.load(tmp_path / "p.parquet").X.shape == (0, 3)


def test_take_keeps_rows_and_features_together():
    profiles = make([[0, 1], [2, 3], [4, 5]], Metadata_compound=["a", "b", "c"])
    for rows in ([2, 0], np.array([True, False, True])[[2, 1, 0]]):
        part = profiles.take(rows)
        assert [part.X[i, 0] / 2 for i in range(2)] == ["abc".index(c) for c in part.compounds]


def test_numbers_parses_text_and_names_the_rows_that_are_none():
    profiles = make(np.zeros((3, 1)), Metadata_cell_count=["12", "", "nan"], Metadata_dose=["1", "high", "3"])
    np.testing.assert_array_equal(profiles.numbers("Metadata_cell_count"), [12, np.nan, np.nan])
    with pytest.raises(ColumnError, match=r"'Metadata_dose'.*row 1: 'high'"):
        profiles.numbers("Metadata_dose")
    with pytest.raises(ColumnError, match="no column 'Metadata_x'"):
        profiles.numbers("Metadata_x")


def test_compounds_must_be_identified_first():
    with pytest.raises(ColumnError, match="identify compounds first"):
        _ = make(np.zeros((1, 1))).compounds


def test_parts_that_do_not_fit_are_refused():
    rows = pd.DataFrame({"Metadata_Well": ["A01", "A02"]})
    with pytest.raises(ShapeError, match="float32"):
        Profiles(np.zeros((2, 1)), rows, ["a"])
    with pytest.raises(ShapeError, match=r"\(3, 1\).*2 rows"):
        Profiles(np.zeros((3, 1), np.float32), rows, ["a"])
    with pytest.raises(ColumnError, match="more than once: 'a'"):
        Profiles(np.zeros((2, 2), np.float32), rows, ["a", "a"])
    with pytest.raises(ColumnError, match="'Well'"):
        Profiles(np.zeros((2, 1), np.float32), rows.rename(columns={"Metadata_Well": "Well"}), ["a"])


def test_truncated_file_is_named(tmp_path):
    path = tmp_path / "screen.parquet"
    make(np.zeros((50, 4)), Metadata_Plate=["p"] * 50).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"screen\.parquet.*truncated"):
        Profiles.load(path)


def test_taking_nothing_gives_nothing():
    profiles = Profiles(np.ones((2, 1), np.float32), pd.DataFrame({"Metadata_compound": ["a", "b"]}), ["x"])
    assert len(profiles.take([])) == 0
    assert profiles.take(np.array([], dtype=int)).X.shape == (0, 1)


def test_a_table_from_elsewhere_is_not_taken_for_ours(tmp_path):
    pd.DataFrame({"Cells_A": [1.0]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(FileError, match="read_profiles"):
        Profiles.load(tmp_path / "t.parquet")
