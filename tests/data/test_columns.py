from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenohit.data.columns import kind_of, match, normalise_wells, parse_numbers, split_columns
from phenohit.errors import ColumnError, PlateError

NOT_FEATURES = [
    "Cells_Location_Center_X",
    "Cells_AreaShape_Center_Y",
    "Nuclei_AreaShape_BoundingBoxArea",
    "AreaShape_BoundingBoxMaximum_X",
    "Cells_Parent_Nuclei",
    "Nuclei_Children_Cells_Count",
    "Cells_Number_Object_Number",
    "Cells_Neighbors_FirstClosestObjectNumber_5",
    "ObjectNumber",
    "ImageNumber",
    "Image_Granularity_1_DNA",
    "FileName_DNA",
    "PathName_Illum",
    "ExecutionTime_01LoadData",
    "Unnamed: 0",
]
FEATURES = ["Cells_AreaShape_Area", "Cytoplasm_Texture_Entropy_ER_3_00_256", "Nuclei_Neighbors_NumberOfNeighbors_1"]


def table(names, value=1.0):
    return pd.DataFrame({n: [value, 2.0] for n in names})


def test_positions_counts_and_file_names_are_no_features():
    split = split_columns(table([*NOT_FEATURES, *FEATURES]))
    assert split.features == FEATURES
    assert split.ignored["column"].tolist() == NOT_FEATURES
    assert (split.ignored["reason"].str.len() > 10).all()


def test_every_column_is_accounted_for_once():
    wells = table([*FEATURES, "purity", "Metadata_dose"]).assign(name=["a", "b"], is_dmso=[True, False])
    split = split_columns(wells)
    assert split.metadata == ["Metadata_dose", "name", "is_dmso"]
    assert sorted([*split.features, *split.ignored["column"], "Metadata_dose"]) == sorted(wells.columns)


def test_other_numbers_are_features_only_where_no_cellprofiler_column_is():
    embedding = table(["efficientnet_0", "efficientnet_1"])
    assert split_columns(embedding).features == ["efficientnet_0", "efficientnet_1"]
    mixed = split_columns(pd.concat([embedding, table(FEATURES)], axis=1))
    assert mixed.features == FEATURES
    assert mixed.ignored["column"].tolist() == ["efficientnet_0", "efficientnet_1"]


def test_patterns_choose_and_a_full_name_overrules():
    wells = table([*FEATURES, *NOT_FEATURES, "purity"])
    split = split_columns(wells, features=["Cells_*", "Cells_AreaShape_Center_Y", "purity"], ignore=["*_Area"])
    assert split.features == ["Cells_AreaShape_Center_Y", "purity"]


def test_unknown_full_name_lists_the_nearest():
    with pytest.raises(ColumnError, match=r"'purty'.*Nearest: purity"):
        split_columns(table(["purity"]), features=["purty"])
    assert match(["a1", "b1"], ["c*"], "x") == set()


def test_text_in_a_feature_column_names_rows_and_values():
    wells = table(FEATURES).iloc[[0] * 12].reset_index(drop=True)
    wells[FEATURES[0]] = ["1", "nan", "NA", "", "n.d.", "2", "3", "4", "5", "6", "7", "?"]
    with pytest.raises(ColumnError, match=r"'Cells_AreaShape_Area' holds text in 2 of 12 rows \(row 4: 'n.d.', row 11"):
        split_columns(wells)


def test_missing_spellings_are_no_text():
    column = pd.Series(["1.5", "nan", " NA ", "", None, "N/A", "-2e3"])
    numbers, odd = parse_numbers(column)
    np.testing.assert_array_equal(numbers, [1.5, np.nan, np.nan, np.nan, np.nan, np.nan, -2000])
    assert not odd.any()
    assert kind_of(column) == "number"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "number"),
        ([True, False], "bool"),
        (["a", "b"], "text"),
        (["1", "b", "c"], "text"),
        (["1", "2", "c"], "mixed"),
        (["", "nan"], "empty"),
        (pd.array([1, None], dtype="Int8"), "number"),
        (pd.Categorical(["x", "y"]), "text"),
    ],
)
def test_kinds(values, kind):
    assert kind_of(pd.Series(values)) == kind


@given(row=st.integers(0, 31), column=st.integers(1, 48), zeros=st.integers(0, 1), lower=st.booleans())
def test_wells_of_every_plate_size_have_one_spelling(row, column, zeros, lower):
    letters = chr(65 + row) if row < 26 else "A" + chr(65 + row - 26)
    written = f"{letters}{'0' * zeros if column < 10 else ''}{column}"
    read = normalise_wells(pd.Series([written.lower() if lower else written]))
    assert read.tolist() == [f"{letters}{column:02d}"]


@pytest.mark.parametrize("well", ["A00", "A49", "AG01", "12", "ZZ1", "A1_s2", "A001x"])
def test_unreadable_wells_are_named(well):
    with pytest.raises(PlateError, match=f"'{well}'"):
        normalise_wells(pd.Series(["A01", well]))


def test_unknown_wells_stay_unknown():
    assert normalise_wells(pd.Series(["", "b3"])).tolist() == ["", "B03"]
