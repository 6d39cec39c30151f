from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.data.profiles import Profiles
from phenohit.hits.background import BRIGHT, background_columns, compound_background, well_background

FEATURES = [
    "Cells_Intensity_LowerQuartileIntensity_DNA", "Nuclei_Intensity_MinIntensity_DNA",
    "Cytoplasm_Intensity_MinIntensityEdge_DNA", "Cells_Intensity_LowerQuartileIntensity_ER",
    "Nuclei_Intensity_MinIntensity_ER", "Cells_Intensity_MeanIntensity_ER", "Cells_AreaShape_Area",
    "Cells_Intensity_MinIntensity_Mito",
]  # fmt: skip


def plates(rng, n_plates=2, n_control=20, n_treated=30) -> Profiles:
    """Plates with offsets and spreads of their own, controls first."""
    blocks, rows = [], []
    for p in range(n_plates):
        n = n_control + n_treated
        blocks.append(100 * p + (p + 1) * rng.normal(size=(n, len(FEATURES))))
        kind = ["negcon"] * n_control + ["trt"] * n_treated
        rows += [
            {"Metadata_Plate": f"P{p}", "Metadata_Well": f"W{i}", "Metadata_pert_type": k} for i, k in enumerate(kind)
        ]
    return Profiles(np.concatenate(blocks).astype(np.float32), pd.DataFrame(rows).astype(str), FEATURES)


def test_background_features_are_found_by_name():
    assert background_columns(FEATURES) == {"DNA": [0, 1, 2], "ER": [3, 4]}  # a single one of Mito says nothing
    named = [
        "Image_Intensity_MeanIntensity_DNA_Background",
        "Cells_Intensity_DNABackground",
        "Cells_Texture_Background_ER",
    ]
    assert background_columns(named) == {"DNA": [0, 1]}


def test_what_shines_on_every_measure_of_a_channel_is_found():
    profiles = plates(np.random.default_rng(0))
    shining, stained = 25, 50 + 25  # a treated well of each plate
    profiles.X[shining, [0, 1, 2]] += 12
    profiles.X[stained, 3] += 50  # only one measure of ER: biology
    profiles.X[stained, 5] += 50
    table = well_background(profiles)
    assert len(table) == 60
    bright = table[table["z"] >= BRIGHT]
    assert bright[["plate", "well", "channel", "reference"]].to_numpy().tolist() == [["P0", "W25", "DNA", "DMSO"]]
    # Against a plain computation of one value.
    base = profiles.X[:20].astype(float)
    middle = np.median(base, axis=0)
    z = (profiles.X[shining] - middle) / (1.4826 * np.median(np.abs(base - middle), axis=0))
    assert bright["z"].iloc[0] == pytest.approx(min(z[[0, 1, 2]]), rel=1e-5)


def test_without_controls_the_plate_is_the_reference_and_without_features_there_is_nothing():
    profiles = plates(np.random.default_rng(1), n_control=2)
    assert set(well_background(profiles)["reference"]) == {"its plate"}
    bare = profiles.with_features(profiles.X[:, 5:7], FEATURES[5:7], "fewer")
    assert len(well_background(bare)) == 0
    unplaced = Profiles(profiles.X, profiles.rows[["Metadata_Well"]], FEATURES)
    assert len(well_background(unplaced)) == 0
    gaps = plates(np.random.default_rng(1))
    gaps.X[:] = np.nan
    assert len(well_background(gaps)) == 0


def test_one_bright_well_of_three_does_not_make_a_bright_compound():
    wells = pd.DataFrame({"compound": list("aaabbc"), "plate": "P", "well": list("123456")})
    background = pd.DataFrame(
        {"plate": "P", "well": list("12345"), "channel": "DNA", "z": np.float32([0, 9, 1, 7, 8]), "reference": "DMSO"}
    )
    got = compound_background(wells, background).set_index("compound")["z"]
    assert got.to_dict() == {"a": 1.0, "b": 7.0}
    assert len(compound_background(wells, background.iloc[:0])) == 0
