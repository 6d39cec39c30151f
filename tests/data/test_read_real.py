"""Real files of the field through the public reader: nothing lost without a word."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phenohit.data.read import read_profiles
from phenohit.sources import Join, ProfileSource


def test_cell_counts_of_270_plates(shared_data):
    folder = shared_data / "lincs-a549-dose-cellcount"
    source = ProfileSource(
        path=str(folder / "well_cell_counts.parquet"),
        columns={
            "plate": "plate",
            "well": "well",
            "batch": "batch",
            "compound_id": "broad_sample",
            "smiles": "smiles",
            "concentration_uM": "mmoles_per_liter",  # it holds uM, whatever it is called
            "cell_count": "cell_count",
        },
        joins=[Join(str(folder / "compounds.csv"), "broad_sample")],
        controls={"is_dmso": ["true"]},
        features=["cell_count"],
    )
    profiles, lost = read_profiles(source)
    truth = pd.read_parquet(folder / "well_cell_counts.parquet")
    compounds = pd.read_csv(folder / "compounds.csv").set_index("broad_sample")
    assert profiles.X.shape == (103_670, 1) == (len(truth), 1)
    np.testing.assert_array_equal(profiles.X[:, 0], truth["cell_count"].to_numpy())
    np.testing.assert_array_equal(profiles.numbers("Metadata_cell_count"), truth["cell_count"].to_numpy())
    doses = profiles.numbers("Metadata_concentration_uM")
    np.testing.assert_allclose(doses, truth["mmoles_per_liter"], rtol=1e-12)  # pandas 2 reads the last bit otherwise
    assert ((profiles.rows["Metadata_pert_type"] == "negcon") == truth["is_dmso"]).all()
    assert profiles.rows["Metadata_Plate"].tolist() == truth["plate"].tolist()
    expected = truth["broad_sample"].map(compounds["smiles"]).fillna("").tolist()
    assert profiles.rows["Metadata_SMILES"].tolist() == expected
    # What the table of compounds does not know is listed, key by key, and the counts add up.
    unknown = lost[lost["reason"].str.startswith("not in")]
    absent = truth.loc[truth["broad_sample"].notna() & ~truth["broad_sample"].isin(compounds.index), "broad_sample"]
    assert set(unknown["id"]) == set(absent)
    assert unknown["reason"].str.extract(r"(\d+) rows")[0].astype(int).sum() == len(absent)
    assert lost["reason"].str.contains(f"{truth['broad_sample'].isna().sum()} rows have no broad_sample").sum() == 1
    assert not (lost["what"] == "well").any()


def test_one_plate_of_the_same(shared_data):
    folder = shared_data / "lincs-a549-dose-cellcount"
    source = ProfileSource(
        path=str(folder / "well_cell_counts.parquet"),
        columns={"compound_id": "broad_sample"},
        controls={"solvent": ["DMSO"]},
        features=["cell_count"],
        plates=["SQ00014812"],
    )
    profiles, lost = read_profiles(source)
    assert len(profiles) == 384
    left_out = lost[lost["what"] == "plate"]["reason"].str.extract(r"(\d+) rows")[0].astype(int)
    assert left_out.sum() + len(profiles) == 103_670
    # Every well of these plates has the solvent DMSO, treated or not: a rule that is stated is followed.
    assert set(profiles.rows["Metadata_pert_type"]) == {"negcon"}


def test_well_means_of_bbbc021(shared_data):
    path = shared_data / "bbbc021" / "per_well_mean.parquet"
    source = ProfileSource(
        path=str(path),
        columns={"compound_id": "Image_Metadata_Compound", "concentration_uM": "Image_Metadata_Concentration"},
        controls={"moa": ["DMSO"]},
    )
    profiles, lost = read_profiles(source)
    truth = pd.read_parquet(path)
    positions = [c for c in truth if "Center_" in c or "Location_" in c]
    numbers = [c for c in truth.columns if truth[c].dtype == np.float32]
    assert len(profiles) == 632
    assert set(numbers) - set(profiles.features) <= set(lost["id"])
    assert set(positions) <= set(lost["id"])
    np.testing.assert_array_equal(profiles.X, truth[profiles.features].to_numpy())
    assert (profiles.rows["Metadata_pert_type"] == "negcon").sum() == 330
    assert profiles.rows["Metadata_Plate"].tolist() == truth["Image_Metadata_Plate"].tolist()
    kept = set(profiles.rows) | set(profiles.features) | set(lost["id"])
    known = {"Image_Metadata_Plate", "Image_Metadata_Well", "Image_Metadata_Compound", "Image_Metadata_Concentration"}
    for column in set(truth) - known:  # every column is somewhere
        assert column in kept or f"Metadata_{column}" in kept or column.removeprefix("Image_") in kept, column


def test_cell_injury(shared_data):
    folder = shared_data / "cell-injury-u2os"
    source = ProfileSource(
        path=str(folder / "profiles.parquet"),
        columns={"compound_id": "broad_id", "cell_count": "relative_cell_count", "batch": "experimental_batch"},
        controls={"is_dmso": ["true"]},
    )
    profiles, lost = read_profiles(source)
    truth = pd.read_parquet(folder / "profiles.parquet")
    assert profiles.X.shape == (6925, 344)
    np.testing.assert_array_equal(profiles.X, truth[profiles.features].to_numpy())
    assert ((profiles.rows["Metadata_pert_type"] == "negcon") == truth["is_dmso"]).all()
    np.testing.assert_allclose(profiles.numbers("Metadata_concentration_uM"), truth["concentration_uM"], rtol=1e-12)
    assert not (lost["what"] == "well").any()
