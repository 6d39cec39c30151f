from __future__ import annotations

import pandas as pd
import pytest

from phenohit.data.views import Views
from phenohit.errors import ColumnError, PlateError, ShapeError


def _views():
    rows = pd.DataFrame(
        {"Metadata_Plate": ["P1", "P1", "P2"], "Metadata_Well": ["A01", "A01", "A01"], "Metadata_Site": ["1", "2", "1"]}
    )
    return Views(rows, pd.DataFrame({"DNA": ["a#0", "b", "c"], "ER": ["a#1", "", "d"]}))


def test_views_come_back_from_disk_as_they_were(tmp_path):
    views = _views()
    views.save(tmp_path / "views.parquet")
    back = Views.load(tmp_path / "views.parquet")
    pd.testing.assert_frame_equal(back.rows, views.rows, check_dtype=False)
    pd.testing.assert_frame_equal(back.files, views.files, check_dtype=False)
    assert back.channels == ["DNA", "ER"]
    assert back.plates == ["P1", "P2"]


def test_views_are_taken_by_rows_plates_and_channels():
    views = _views()
    assert views.complete().tolist() == [True, False, True]
    assert views.take([2, 0]).names().tolist() == ["P2/A01/1", "P1/A01/1"]
    assert len(views.of_plate("P1")) == 2
    assert views.with_channels(["ER"]).files["ER"].tolist() == ["a#1", "", "d"]
    with pytest.raises(ColumnError, match="AGP"):
        views.with_channels(["AGP"])


def test_a_site_that_occurs_twice_is_named():
    views = _views()
    rows = views.rows.assign(Metadata_Site="1")
    with pytest.raises(PlateError, match="P1/A01/1"):
        Views(rows, views.files)


def test_parts_that_do_not_fit_are_refused():
    views = _views()
    with pytest.raises(ShapeError):
        Views(views.rows, views.files.iloc[:2])
    with pytest.raises(ColumnError, match="Metadata_Site"):
        Views(views.rows.drop(columns="Metadata_Site"), views.files)
