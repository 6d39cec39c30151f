from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.errors import ColumnError
from phenohit.profiles.sites import Site, group_sites, site_of
from phenohit.sources import ProfileSource


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/x/BR00121431-A01-1", ("", "BR00121431", "A01", "1")),
        ("/x/b/BR00121431/analysis/BR00121431-A01-1", ("b", "BR00121431", "A01", "1")),
        ("/x/2021_04_20/P 7/AF48-12", ("2021_04_20", "P 7", "AF48", "12")),
        ("/x/P1/B2", ("", "P1", "B2", "")),
        ("/x/P1/B2/s3", ("", "P1", "B2", "3")),
        ("/x/P1/B2/3/embedding", ("", "P1", "B2", "3")),
        ("/x/P1_B2_site3", ("", "P1", "B2", "3")),
        ("/x/P1/MyExpt", None),
        ("/x/MyExpt", None),
        ("", None),
    ],
)
def test_paths(path, expected):
    assert site_of(path, "/x") == (None if expected is None else Site(*expected))


def images(**columns) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame({"run": np.arange(n), "key": "1", "name": "x", **columns})


def test_wells_keep_what_their_images_agree_on():
    table = images(
        Metadata_Plate=["p", "p", "p"], Metadata_Well=["a1", "A02", "A01"], Metadata_Site=["1", "1", "2"],
        Metadata_dose=["5", "6", "5"],
    )  # fmt: skip
    sites = group_sites(ProfileSource(), table, [None] * 3, None)
    assert sites.wells["Metadata_Well"].tolist() == ["A01", "A02"]
    assert sites.wells["Metadata_dose"].tolist() == ["5", "6"]
    assert sites.wells["Metadata_Site"].tolist() == ["", "1"]
    assert sites.wells["Metadata_site_count"].tolist() == ["2", "1"]
    assert sites.images["code"].tolist() == [0, 1, 0]


def test_a_well_ends_with_its_last_run():
    table = images(Metadata_Plate=["p"] * 4, Metadata_Well=["A01", "A02", "A01", "A03"])
    sites = group_sites(ProfileSource(), table, [None] * 4, None)
    assert [(run, ending.tolist()) for run, ending in sites.order()] == [(0, []), (2, [0]), (1, [1]), (3, [2])]
    sites.leave_out([2, 3])
    assert [(run, ending.tolist()) for run, ending in sites.order()] == [(0, [0]), (1, [1])]


def test_an_image_without_a_well_is_named():
    with pytest.raises(
        ColumnError, match=r"'x': 1 of 2 images have no well. Expected Metadata_Well in the Image table"
    ):
        group_sites(ProfileSource(), images(Metadata_Plate=["p", "p"], Metadata_Well=["A01", ""]), [None] * 2, None)
    with pytest.raises(ColumnError, match=r"have no plate. Expected files in folders called"):
        group_sites(ProfileSource(), pd.DataFrame({"run": [0], "key": "", "name": "x"}), [None], None)
