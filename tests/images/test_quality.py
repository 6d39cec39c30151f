from __future__ import annotations

import centrosome.radial_power_spectrum as peer
import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from phenohit.data.simulate_settings import SimulateSettings
from phenohit.errors import ColumnError, ShapeError
from phenohit.images.draw import FAULTS, draw_view, usual_cells
from phenohit.images.quality import FLAG_COLUMNS, flag_views, measure_quality, power_slope
from phenohit.imaging import QualityConfig

FULL = 65535.0


class _Old(np.ndarray):
    """An array that still has the method that the peer calls, gone from numpy 2."""

    def ptp(self):
        return np.ptp(np.asarray(self))


@given(st.integers(0, 1000), st.integers(40, 90), st.integers(40, 90), st.floats(0, 3))
def test_slope_is_cellprofilers(seed, height, width, blur):
    image = gaussian_filter(np.random.default_rng(seed).random((height, width)), blur) * 1000
    radii, _, power = peer.rps(image.view(_Old))
    wanted = np.polyfit(np.log(radii), np.log(np.asarray(power)), 1)[0]
    assert power_slope(image) == pytest.approx(float(wanted), abs=1e-3)


def test_slope_of_noise_is_one_and_falls_with_blur():
    noise = np.random.default_rng(0).normal(500, 50, (400, 400))
    slopes = [power_slope(gaussian_filter(noise, s)) for s in (0, 1, 2, 4)]
    assert slopes[0] == pytest.approx(1, abs=0.1)
    assert slopes == sorted(slopes, reverse=True)
    assert power_slope(np.ones((50, 50))) == 0


def test_intensities_of_a_known_image():
    image = np.zeros((1, 20, 20), np.uint16)
    image[0, :2] = 1000  # a tenth
    image[0, 0, :4] = 4095  # a hundredth
    row = measure_quality(image, ["DNA"], 4095)
    assert row["ImageQuality_PercentMaximal_DNA"] == pytest.approx(1)
    assert row["ImageQuality_PercentMinimal_DNA"] == pytest.approx(90)
    assert row["ImageQuality_PercentSaturated_DNA"] == pytest.approx(1)
    assert row["ImageQuality_MeanIntensity_DNA"] == pytest.approx(image.mean() / 4095)
    assert row["ImageQuality_StdIntensity_DNA"] == pytest.approx(image.std() / 4095)
    assert row["ImageQuality_MADIntensity_DNA"] == 0
    assert row["ImageQuality_MaxIntensity_DNA"] == 1
    assert measure_quality(image, ["DNA"], 65535)["ImageQuality_PercentSaturated_DNA"] == 0


def test_mad_does_not_overflow():
    image = np.array([[[0, 65535, 0, 65535, 40000] * 4]] * 1, np.uint16).reshape(1, 4, 5)
    wanted = np.median(np.abs(image.astype(float) - np.median(image)))
    assert measure_quality(image, ["A"], 1)["ImageQuality_MADIntensity_A"] == pytest.approx(wanted)


def test_one_image_per_channel():
    with pytest.raises(ShapeError, match="2 channels"):
        measure_quality(np.zeros((1, 9, 9)), ["DNA", "ER"], 255)


@pytest.fixture(scope="module")
def drawn():
    """Simulated views of one plate with planted faults, and what was planted."""
    settings = SimulateSettings(image_size=192)
    rng = np.random.default_rng(11)
    faults = ["none"] * 40 + [f for f in FAULTS for _ in range(3)]
    views = [draw_view(rng, settings, int(usual_cells(192) * rng.uniform(0.5, 1.8)), fault=f) for f in faults]
    channels = ["DNA", "ER", "AGP"]
    return pd.DataFrame([measure_quality(v.pixels, channels, FULL) for v in views]), faults, channels


def test_planted_faults_are_found_and_nothing_else(drawn):
    table, faults, channels = drawn
    flags = flag_views(table, QualityConfig(), channels, "DNA")
    found = set(zip(flags["view"], flags["rule"], strict=True))
    planted = {(i, f) for i, f in enumerate(faults) if f != "none"}
    assert planted <= found  # recall 1
    assert {i for i, _ in found} == {i for i, _ in planted}  # no good view is flagged


def test_flags_say_why(drawn):
    table, faults, channels = drawn
    flags = flag_views(table, QualityConfig(reject=["blurred"]), channels, "DNA")
    assert list(flags.columns) == FLAG_COLUMNS
    assert (flags["rejected"] == (flags["rule"] == "blurred")).all()
    one = flags[(flags["view"] == faults.index("blurred")) & (flags["channel"] == "DNA")].iloc[0]
    assert one["reason"].startswith("DNA: slope of the power spectrum")
    assert f"{one['value']:.2f}" in one["reason"]
    assert one["value"] < one["limit"]


def test_even_plates_flag_nothing(drawn):
    table, _, channels = drawn
    even = pd.concat([table.iloc[[0]]] * 30, ignore_index=True)
    flags = flag_views(even, QualityConfig(), channels, "DNA")
    assert flags.empty
    assert list(flags.columns) == FLAG_COLUMNS
    # a little noise around one value is no fault either, however small the MAD
    even *= np.random.default_rng(0).normal(1, 0.01, even.shape)
    assert flag_views(even, QualityConfig(), channels, "DNA").empty
    assert flag_views(table.iloc[:0], QualityConfig(), channels, "DNA").empty


def test_small_plates_are_held_to_absolute_limits(drawn):
    table, faults, channels = drawn
    for fault in ("saturated", "empty"):
        rows = table.iloc[[0, faults.index(fault)]].reset_index(drop=True)
        flags = flag_views(rows, QualityConfig(), channels, "DNA")
        assert set(flags["view"]) == {1}
        assert fault in set(flags["rule"])


def test_plates_are_judged_apart(drawn):
    table, _, channels = drawn
    good = table.iloc[:20].reset_index(drop=True)
    other = good.copy()
    slopes = [c for c in good if "Slope" in c]
    other[slopes] -= 0.8  # another objective: every view of that plate
    both = pd.concat([good.assign(Metadata_Plate="A"), other.assign(Metadata_Plate="B")], ignore_index=True)
    assert flag_views(both, QualityConfig(), channels, "DNA").empty
    mixed = pd.concat([good, other.iloc[:2]], ignore_index=True)
    assert set(flag_views(mixed, QualityConfig(), channels, "DNA")["view"]) == {20, 21}


def test_black_and_constant_images_are_dark(drawn):
    _, _, channels = drawn
    for value in (0, 3000):
        row = measure_quality(np.full((3, 64, 64), value, np.uint16), channels, FULL)
        flags = flag_views(pd.DataFrame([row]), QualityConfig(), channels, "DNA")
        assert set(flags.loc[flags["rule"] == "dark", "channel"]) == set(channels)
        assert "empty" in set(flags["rule"])


def test_columns_and_channels_are_checked(drawn):
    table, _, channels = drawn
    with pytest.raises(ColumnError, match="No channel is called 'Hoechst'"):
        flag_views(table, QualityConfig(), channels, "Hoechst")
    with pytest.raises(ColumnError, match="lacks 'ImageQuality_Debris_DNA'"):
        flag_views(table.drop(columns="ImageQuality_Debris_DNA"), QualityConfig(), channels, "DNA")


def test_faults_planted_in_real_fields(shared_data):
    folder = shared_data / "raw-images"
    files = [
        folder / "jump_r01c02f01/r01c02f01p01-ch4sk1fk1fl1.tiff",
        folder / "cytodataframe/JUMP_plate_BR00117006/images/orig/r01c01f01p01-ch5sk1fk1fl1.tiff",
    ]
    rng = np.random.default_rng(1)
    for file in files:
        if not file.exists():
            pytest.skip(f"{file.name} not found")
        whole = tifffile.imread(file)
        good = [whole[y : y + 540, x : x + 540] for y in range(0, 541, 180) for x in range(0, 541, 180)]
        middle = good[5]
        debris = middle.copy()
        debris[100:200, 150:270] = 60000
        noise = rng.normal(whole.min() + 200, 20, middle.shape)
        bad = {
            "blurred": gaussian_filter(middle.astype(float), 4),
            "saturated": np.clip(middle.astype(float) * 80, 0, FULL),
            "dark": np.zeros(middle.shape),
            "debris": debris,
            "empty": noise,
        }
        table = pd.DataFrame([measure_quality(v[None], ["DNA"], FULL) for v in good])
        assert flag_views(table, QualityConfig(), ["DNA"], "DNA").empty
        for rule, view in bad.items():
            row = pd.DataFrame([measure_quality(view[None].astype(np.uint16), ["DNA"], FULL)])
            flags = flag_views(pd.concat([table, row], ignore_index=True), QualityConfig(), ["DNA"], "DNA")
            assert set(flags["view"]) == {len(good)}
            assert rule in set(flags["rule"])
