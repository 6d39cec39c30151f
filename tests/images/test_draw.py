"""Simulated images: reproducible, and everything said to be in them is in the pixels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, gaussian_filter, laplace
from scipy.ndimage import label as connected
from skimage.measure import regionprops

from phenohit.config import Config, ProfileSource
from phenohit.data.finish import finish_rows
from phenohit.data.platemaps import read_platemaps
from phenohit.data.simulate_files import write_platemaps
from phenohit.data.simulate_layout import plan_wells
from phenohit.data.simulate_settings import SimulateSettings
from phenohit.errors import ConfigError
from phenohit.images.draw import FAULTS, DrawnView, draw_view, illumination
from phenohit.images.draw_camera import OFFSET
from phenohit.images.draw_screen import plant_faults
from phenohit.images.draw_shapes import place_cells, smooth_noise
from phenohit.images.draw_traits import TRAITS, draw_loadings, seen_traits
from phenohit.images.layouts import find_views
from phenohit.settings import read_config
from phenohit.simulate import command, simulate

MICRO = SimulateSettings(
    n_compounds=24, plate_wells=96, images=1, image_size=128, n_replicates=1, dose_series_share=0.0, bad_views=0.25
)
TINY = dataclasses.replace(MICRO, n_compounds=4, image_size=64)
VIEW = SimulateSettings(images=1, image_size=192, image_channels=5)
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
NAMES = [trait.name for trait in TRAITS]
Measure = Callable[[DrawnView], float]
KEY = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]


@dataclasses.dataclass
class Screen:
    """What a simulation wrote, read back with pandas alone."""

    folder: Path
    counts: dict[str, int]

    def __post_init__(self) -> None:
        self.views = pd.read_csv(self.folder / "simulated_images.csv", keep_default_na=False, dtype={KEY[2]: str})
        self.nuclei = pd.read_parquet(self.folder / "simulated_nuclei.parquet")
        self.files = sorted((self.folder / "simulated_images").rglob("*"))

    def pixels(self, row: pd.Series) -> np.ndarray:
        stem = self.folder / "simulated_images" / row[KEY[0]] / f"{row[KEY[1]]}_s{row[KEY[2]]}"
        return np.stack([tifffile.imread(f"{stem}_w{w}.tif") for w in (1, 2, 3)])


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Screen:
    folder = tmp_path_factory.mktemp("micro")
    return Screen(folder, simulate(folder, MICRO))


def _view(seed: int = 0, n: int = 12, fault: str = "none", **shift: float) -> DrawnView:
    moved = np.array([shift.get(name, 0.0) for name in NAMES])
    return draw_view(np.random.default_rng(seed), VIEW, n, shift=moved, fault=fault)


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in (".tif", ".csv", ".txt"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def test_same_seed_same_pixels_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        simulate(tmp_path / name, dataclasses.replace(TINY, seed=seed))
    one, again, other = (_digests(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again
    images = [name for name in one if name.endswith(".tif")]
    assert len(images) == 60
    assert not any(other[name] == one[name] for name in images)


def test_files_are_as_the_settings_say(micro: Screen) -> None:
    tiffs = [p for p in micro.files if p.is_file()]
    assert len(tiffs) == micro.counts["views"] * 3 == 40 * 3
    assert {p.suffix for p in tiffs} == {".tif"}
    with tifffile.TiffFile(tiffs[0]) as file:
        page = file.pages[0]
        assert (page.shape, page.dtype, page.compression.name) == ((128, 128), np.uint16, "ADOBE_DEFLATE")
        assert page.description.startswith("SIMULATED")
    assert all(tifffile.imread(p).shape == (128, 128) for p in tiffs)


def test_truth_adds_up(micro: Screen) -> None:
    views, nuclei = micro.views, micro.nuclei
    assert not views.duplicated(KEY).any()
    found = nuclei.groupby(KEY).agg(n=("x", "size"), cut=("cut", "sum"))
    told = views.set_index(KEY)
    assert (found["n"].reindex(told.index, fill_value=0) == told["n_nuclei"]).all()
    assert (found["cut"].reindex(told.index, fill_value=0) == told["n_cut"]).all()
    assert micro.counts["nuclei"] == len(nuclei) == views["n_nuclei"].sum()
    assert views["fault"].value_counts().to_dict() == {"none": 30, **dict.fromkeys(FAULTS, 2)}
    assert micro.counts["bad_views"] == 10
    assert (views.loc[views["fault"] == "empty", "n_nuclei"] == 0).all()
    assert ((views["fault_channel"] != "") == views["fault"].isin(["saturated", "debris"])).all()
    assert nuclei[["x", "y"]].min().min() >= 0
    assert nuclei[["x", "y"]].max().max() <= 127


def test_what_is_told_of_pixels_is_in_the_files(micro: Screen) -> None:
    for row in micro.views.to_dict("records"):
        pixels = micro.pixels(row)
        assert (pixels == 65535).mean(axis=(1, 2)).max() == pytest.approx(row["saturated_share"], abs=1e-5)
        if row["fault"] not in ("none", "blurred") or not row["n_nuclei"]:
            continue
        mine = micro.nuclei[(micro.nuclei[KEY] == [row[k] for k in KEY]).all(axis=1)]
        at = mine[["y", "x"]].round().astype(int).to_numpy()
        dna = pixels[0].astype(float)
        assert np.median(dna[at[:, 0], at[:, 1]]) > 3 * np.median(dna) or row["fault"] == "blurred"
        assert np.median(dna[at[:, 0], at[:, 1]]) > 1.5 * np.median(dna)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_as_many_nuclei_as_asked_all_inside(n: int, seed: int) -> None:
    view = draw_view(np.random.default_rng(seed), MICRO if n < 16 else VIEW, n)
    assert view.pixels.dtype == np.uint16
    assert len(view.objects) == len(np.unique(view.nuclei[view.nuclei > 0])) == n
    size = view.nuclei.shape[0]
    assert view.objects[["x", "y"]].ge(0).all(axis=None)
    assert view.objects[["x", "y"]].le(size - 1).all(axis=None)
    inside = view.nuclei > 0
    assert (view.cells[inside] == view.nuclei[inside]).all()
    assert (view.objects["cell_area"] >= view.objects["area"]).all()
    assert view.objects["area"].sum() == inside.sum()


def test_nuclei_keep_apart_but_for_touching_pairs() -> None:
    radius = np.full(40, 9.0)
    xy = place_cells(np.random.default_rng(0), radius, 400)
    distance = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)) + 1e9 * np.eye(40)
    nearest = distance.min(axis=1)
    assert (nearest < 18).sum() == 6  # three pairs
    assert (nearest[nearest >= 18] > 1.2 * 18).all()
    touching = [_view(seed, 20).objects["touching"].mean() for seed in range(10)]
    assert 0.03 < np.mean(touching) < 0.3


def test_segmentation_of_the_drawn_picture_finds_the_drawn_nuclei() -> None:
    for seed in range(3):
        view = _view(seed, 10)
        dna = gaussian_filter(view.pixels[0].astype(float), 1)
        blobs, found = connected(dna > 2000)
        apart = view.objects[~view.objects["touching"]]
        hit = blobs[apart["y"].round().astype(int), apart["x"].round().astype(int)]
        assert (hit > 0).mean() > 0.9
        assert abs(found - 10) <= view.objects["touching"].sum() / 2 + 1


def _mean(measure: Measure, **shift: float) -> float:
    return float(np.mean([measure(_view(seed, 10, **shift)) for seed in range(4)]))


def _part(view: DrawnView, channel: str, *, of: str = "cytoplasm") -> np.ndarray:
    inside = {
        "cytoplasm": (view.cells > 0) & (view.nuclei == 0),
        "nuclei": binary_erosion(view.nuclei > 0, iterations=3),
    }
    return view.pixels[CHANNELS.index(channel)][inside[of]] - OFFSET


def _band(view: DrawnView, channel: str, low: float, high: float) -> np.ndarray:
    """Structures between two sizes, as a share of the light."""
    image = view.pixels[CHANNELS.index(channel)].astype(float) - OFFSET
    return (gaussian_filter(image, low) - gaussian_filter(image, high)) / gaussian_filter(image, high)


def _gathering(view: DrawnView, channel: str) -> float:
    """Brightness beside the nucleus against the rest of the cytoplasm."""
    near = gaussian_filter((view.nuclei > 0).astype(float), 4) > 0.15
    cell, image = (view.cells > 0) & (view.nuclei == 0), view.pixels[CHANNELS.index(channel)] - OFFSET
    return float(image[cell & near].mean() / image[cell & ~near].mean())


def _elongation(labels: np.ndarray) -> float:
    return float(np.median([r.axis_major_length / r.axis_minor_length for r in regionprops(labels)]))


def _grain(view: DrawnView) -> float:
    deep = binary_erosion(view.cells > 0, iterations=3) & (view.nuclei == 0)
    return float(_band(view, "ER", 1.5, 4)[deep].std() / _band(view, "ER", 0.01, 1.5)[deep].std())


MEASURES: dict[str, Measure] = {
    "nucleus_size": lambda v: v.objects.loc[~v.objects["cut"], "area"].mean(),
    "nucleus_elongation": lambda v: _elongation(v.nuclei),
    "nucleus_brightness": lambda v: _part(v, "DNA", of="nuclei").mean(),
    "chromatin_grain": lambda v: _band(v, "DNA", 0.7, 3)[binary_erosion(v.nuclei > 0, iterations=3)].std(),
    "cell_size": lambda v: v.objects["cell_area"].mean(),
    "cell_elongation": lambda v: _elongation(v.cells),
    "nucleoli": lambda v: _part(v, "RNA", of="nuclei").mean() / _part(v, "RNA").mean(),
    "er_brightness": lambda v: _part(v, "ER").mean(),
    "er_grain": _grain,
    "er_gathering": lambda v: _gathering(v, "ER"),
    "rna_brightness": lambda v: _part(v, "RNA").mean(),
    "actin_edge": lambda v: _part(v, "AGP").mean(),
    "actin_fibres": lambda v: _part(v, "AGP").std(),
    "golgi_granules": lambda v: np.percentile(_part(v, "AGP"), 99.5),
    "mito_brightness": lambda v: _part(v, "Mito").mean(),
    "mito_gathering": lambda v: _gathering(v, "Mito"),
}


def test_every_trait_is_measured_here() -> None:
    assert list(MEASURES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_trait_shows_in_the_pixels_in_its_direction(name: str) -> None:
    more, less = (_mean(MEASURES[name], **{name: by}) for by in (3.0, -3.0))
    assert more > 1.05 * less


def test_mean_nuclear_area_follows_size_as_planted() -> None:
    span = TRAITS[NAMES.index("nucleus_size")].span
    ratio = _mean(MEASURES["nucleus_size"], nucleus_size=3.0) / _mean(MEASURES["nucleus_size"])
    assert ratio == pytest.approx(np.exp(2 * 3 * span), rel=0.05)


def test_mechanisms_move_five_visible_traits_by_effect() -> None:
    config = SimulateSettings(images=1, effect=2.0)
    loading = draw_loadings(config)
    moved = loading[:-1] != 0
    assert loading.shape == (config.n_mechanisms + 1, len(TRAITS))
    assert (moved.sum(axis=1) == 5).all()
    assert not moved[:, ~seen_traits(config)].any()
    np.testing.assert_allclose(np.sqrt((loading[:-1] ** 2).sum(axis=1) / 5), 2.0)
    assert not draw_loadings(dataclasses.replace(config, effect=0.0)).any()


def test_toxic_wells_lose_cells_and_controls_differ(micro: Screen) -> None:
    maps = pd.read_csv(micro.folder / "simulated_platemaps" / "platemap" / "SIM-M001.txt", sep="\t")
    views = micro.views[micro.views["fault"] != "empty"].merge(maps, left_on=KEY[1], right_on="well_position")
    mean = views.groupby("compound_id")["n_nuclei"].mean()
    assert mean["SIM-POSCON-TOXIC"] < 0.5 * mean["DMSO"]
    assert mean["DMSO"] == pytest.approx(28 / 4, rel=0.4)


def test_illumination_is_in_the_pixels() -> None:
    config = dataclasses.replace(VIEW, image_channels=3, image_size=96, shading=0.6)
    planted = illumination(config, 0)
    assert planted.shape == (3, 96, 96)
    np.testing.assert_allclose(np.median(planted, axis=(1, 2)), 1, rtol=1e-5)
    assert np.abs(illumination(config, 1) - planted).max() > 0.05
    views = np.stack([draw_view(np.random.default_rng(i), config, 1, lamp=planted).pixels - OFFSET for i in range(30)])
    for seen, function in zip(np.median(views, axis=0), planted, strict=True):
        assert np.corrcoef(gaussian_filter(seen, 6).ravel(), function.ravel())[0, 1] > 0.8
    empty = draw_view(np.random.default_rng(0), config, 0, lamp=planted).pixels - OFFSET
    for seen, function in zip(empty, planted, strict=True):  # nothing but background: the function itself
        smooth = gaussian_filter(seen.astype(float), 5)
        assert np.corrcoef(smooth.ravel(), function.ravel())[0, 1] > 0.97
    flat = illumination(dataclasses.replace(config, shading=0.0), 0)
    np.testing.assert_allclose(flat, 1)


def test_every_fault_is_there() -> None:
    for seed in (3, 4):
        views = {fault: _view(seed, fault=fault) for fault in FAULTS}
        good = _view(seed)
        for sharp, blurred in zip(good.pixels.astype(float), views["blurred"].pixels.astype(float), strict=True):
            assert laplace(gaussian_filter(blurred, 1)).std() < 0.4 * laplace(gaussian_filter(sharp, 1)).std()
        at = CHANNELS.index(views["saturated"].fault_channel)
        assert (views["saturated"].pixels[at] == 65535).mean() > 0.03
        assert (good.pixels == 65535).mean() == 0
        at = CHANNELS.index(views["debris"].fault_channel)
        assert np.percentile(views["debris"].pixels[at], 99.5) > 2 * good.pixels[at].max()
        assert len(views["empty"].objects) == 0
        assert views["empty"].pixels.max() < 1000
        assert len(views["dark"].objects) == 12
        assert views["dark"].pixels.max() < OFFSET + 200


def test_faults_are_planted_in_the_share_wished() -> None:
    planted = plant_faults(dataclasses.replace(MICRO, bad_views=0.1), 1000)
    assert (planted != "none").sum() == 100
    assert (np.unique(planted, return_counts=True)[1] == [20, 20, 20, 20, 900, 20]).all()
    assert (plant_faults(dataclasses.replace(MICRO, bad_views=0.0), 50) == "none").all()


def test_noise_grows_with_light() -> None:
    a, b = (draw_view(np.random.default_rng(0), VIEW, 0, lamp=np.full((5, 192, 192), k, np.float32)) for k in (1, 16))
    dim, bright = (float(v.pixels[0].var()) for v in (a, b))
    assert (bright - 81) / (dim - 81) == pytest.approx(16, rel=0.1)  # variance = gain x light + read noise squared


def test_five_channels_and_sizes_that_are_no_multiple_of_anything() -> None:
    config = dataclasses.replace(VIEW, image_size=101)
    view = draw_view(np.random.default_rng(0), config, 6, lamp=illumination(config, 0))
    assert view.pixels.shape == (5, 101, 101)
    assert all(channel.std() > 50 for channel in view.pixels)
    r = np.corrcoef(view.pixels.reshape(5, -1).astype(float))
    assert np.abs(r[np.triu_indices(5, 1)]).max() < 0.99


@pytest.mark.parametrize("sigma", [1.0, 2.4, 11.0])
def test_smooth_noise_has_unit_variance(sigma: float) -> None:
    fields = np.stack([smooth_noise(np.random.default_rng(i), 160, sigma) for i in range(20)])
    assert fields.shape == (20, 160, 160)
    assert np.sqrt((fields**2).mean()) == pytest.approx(1.0, abs=0.12)


def test_settings_and_plate_maps_are_read_as_they_are(micro: Screen) -> None:
    config = read_config([str(micro.folder / "simulated.yaml")], prog="phenohit run", description="", kind=Config)
    assert config.simulated
    assert config.images.path == str(micro.folder / "simulated_images")
    assert config.images.channels == {"DNA": "1", "ER": "2", "AGP": "3"}
    assert (config.images.segment.nuclei, config.profiles.path) == ("DNA", "")
    views, missing = find_views(config.images)
    assert missing.empty
    assert views.channels == ["DNA", "ER", "AGP"]
    assert sorted(views.names()) == sorted(micro.views[KEY].agg("/".join, axis=1))
    assert views.files["AGP"].str.endswith("_w3.tif").all()
    source = ProfileSource(path="wells", platemaps=config.profiles.platemaps)
    rows, lost = finish_rows(source, micro.views[KEY[:2]].astype(str))
    assert lost.empty
    assert rows["Metadata_pert_type"].value_counts().to_dict() == {"trt": 24, "negcon": 12, "poscon": 4}
    assert (rows["Metadata_compound_id"] != "").all()
    assert (rows["Metadata_Batch"] == "SIM-B1").all()


def test_replicates_share_a_plate_map(tmp_path: Path) -> None:
    config = dataclasses.replace(MICRO, n_replicates=2, n_compounds=100)
    write_platemaps(tmp_path, config, [f"C{i}" for i in range(100)], plan_wells(config, 100))
    barcodes = pd.read_csv(tmp_path / "barcode_platemap.csv")
    assert barcodes["Plate_Map_Name"].tolist() == ["SIM-M001", "SIM-M001", "SIM-M002", "SIM-M002"]
    maps, lost = read_platemaps(tmp_path)
    assert lost.empty
    treated = maps[maps["pert_type"] == "trt"]
    assert treated.groupby("compound_id")["Metadata_Plate"].nunique().eq(2).all()
    assert treated["compound_id"].nunique() == 100


def test_a_smaller_screen_leaves_no_images_of_a_larger_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(tmp_path, dataclasses.replace(TINY, images=2))
    mine = tmp_path / "simulated_images" / "SIM-P001" / "my notes.tif"
    mine.write_text("kept")
    (tmp_path / "simulated_profiles.parquet").write_text("of an earlier simulation without images")
    command(str(tmp_path), TINY)
    assert "20 views of 3 channels (5 of them bad)" in capsys.readouterr().out
    assert len(list((tmp_path / "simulated_images").rglob("*_w?.tif"))) == 60
    assert mine.exists()
    readme = (tmp_path / "README.txt").read_text()
    assert "simulated_images.csv" in readme
    assert "simulated_profiles.parquet" not in readme
    assert not (tmp_path / "simulated_profiles.parquet").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"images": -1}, "settings.images is -1"),
        ({"image_size": 32}, "settings.image_size is 32. Expected: 64 to 4,096 pixels"),
        ({"image_channels": 4}, "settings.image_channels is 4. Expected: 3 or 5"),
        ({"plate_wells": 1536}, "settings.plate_wells is 1536. Expected: 96 or 384"),
        ({"bad_views": 1.2}, "settings.bad_views is 1.2"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        SimulateSettings(**wrong)
