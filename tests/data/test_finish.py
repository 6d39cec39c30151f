from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenohit.data.finish import UNITS_UM, choose_plates, finish_rows, matching
from phenohit.errors import ColumnError, ConfigError, PlateError
from phenohit.sources import ProfileSource


def rows(**columns) -> pd.DataFrame:
    n = len(next(iter(columns.values()))) if columns else 3
    base = {"Metadata_Plate": ["P"] * n, "Metadata_Well": [f"A{i + 1}" for i in range(n)]}
    return pd.DataFrame({**base, **columns}, dtype=str)


@pytest.mark.parametrize(("unit", "factor"), UNITS_UM.items())
def test_a_concentration_has_the_unit_that_is_stated(unit, factor):
    frame = rows(mmoles_per_liter=["", "0.5", "10"])
    out, _ = finish_rows(ProfileSource(columns={unit: "mmoles_per_liter"}), frame)
    found = pd.to_numeric(out["Metadata_concentration_uM"])
    np.testing.assert_allclose(found, [np.nan, 0.5 * factor, 10 * factor], rtol=1e-8)
    assert "Metadata_mmoles_per_liter" not in out


def test_no_unit_is_read_off_a_name():
    out, _ = finish_rows(ProfileSource(), rows(Metadata_concentration_nM=["1", "2", "3"]))
    assert "Metadata_concentration_uM" not in out


def test_slips_with_concentrations():
    with pytest.raises(ColumnError, match=r"'dose' \(profiles.columns: concentration_nM\) holds '1,5', 'high'"):
        finish_rows(ProfileSource(columns={"concentration_nM": "dose"}), rows(dose=["1,5", "high", "2"]))
    columns = {"concentration_nM": "dose", "concentration_uM": "dose"}
    with pytest.raises(ConfigError, match="Give the concentration once"):
        finish_rows(ProfileSource(columns=columns), rows(dose=["1", "2", "3"]))
    with pytest.raises(ConfigError, match=r"'concentration_uM_' is not known. Nearest: concentration_uM"):
        finish_rows(ProfileSource(columns={"concentration_uM_": "dose"}), rows(dose=["1", "2", "3"]))


def test_what_the_settings_name_wins_and_nothing_is_kept_twice():
    frame = rows(plate=["q", "q", "r"], Plate=["x", "x", "x"], site=["1", "1", "1"])
    out, _ = finish_rows(ProfileSource(columns={"plate": "plate"}), frame)
    assert out["Metadata_Plate"].tolist() == ["q", "q", "r"]
    assert out["Metadata_Site"].tolist() == ["1", "1", "1"]
    assert list(out) == ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_pert_type"]


def test_plates_are_text_however_a_number_was_written():
    frame = rows(Metadata_Plate=["1053597806.0", "1053597806", "007.5"])
    out, _ = finish_rows(ProfileSource(plates=["1053597806"]), frame)
    assert out["Metadata_Plate"].tolist() == ["1053597806"] * 2


def test_the_index_says_which_rows_were_kept():
    frame = rows(Metadata_Plate=["a", "b", "a"], Metadata_Batch=["x", "x", "y"], note=["0", "1", "2"])
    out, lost = finish_rows(ProfileSource(batches=["x"], plates=["a"]), frame)
    assert out.index.tolist() == [0]
    assert lost[["what", "id"]].to_numpy().tolist() == [["batch", "y"], ["plate", "b"]]


def test_a_batch_that_only_a_joined_table_tells(tmp_path):
    from phenohit.sources import Join

    (tmp_path / "j.csv").write_text("plate,batch\na,x\nb,y\n")
    join = Join(str(tmp_path / "j.csv"), "Metadata_Plate", "plate")
    frame = rows(Metadata_Plate=["a", "b", "a"])
    out, lost = finish_rows(ProfileSource(batches=["x"], joins=[join]), frame)
    assert out.index.tolist() == [0, 2]
    assert out["Metadata_Batch"].tolist() == ["x", "x"]
    assert lost["id"].tolist() == ["y"]
    with pytest.raises(ColumnError, match="no column tells the batch"):
        finish_rows(ProfileSource(batches=["x"]), frame)
    with pytest.raises(ColumnError, match="no column tells the plate"):
        finish_rows(ProfileSource(plates=["x"]), frame.drop(columns="Metadata_Plate"))


def test_a_pattern_that_matches_nothing_is_a_slip():
    with pytest.raises(PlateError, match=r"profiles.plates has 'BR001', which matches none of 2 names. Nearest: BR00"):
        matching(["BR00117035", "BR00117036"], ["BR00117035", "BR001"], "profiles.plates")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), min_size=1, max_size=40),
    st.lists(st.sampled_from(["a", "b", "[ab]", "*"]), max_size=2),
    st.lists(st.sampled_from(["x", "y", "?"]), max_size=2),
)
def test_every_row_is_kept_or_counted(places, plates, batches):
    frame = pd.DataFrame(places, columns=["Metadata_Plate", "Metadata_Batch"], dtype=str)
    try:
        keep, lost = choose_plates(ProfileSource(plates=plates, batches=batches), frame)
    except PlateError:
        return
    counted = lost["reason"].str.extract(r"(\d+) rows$")[0].astype(int).sum()
    assert keep.sum() + counted == len(frame)
