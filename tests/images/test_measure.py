"""Features of cells: closed forms, cp_measure's and scikit-image's own values, CellProfiler's tables."""

import gzip
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from scipy.spatial import KDTree
from skimage import draw, feature, measure, segmentation

from phenohit.errors import ConfigError, ShapeError
from phenohit.images import measure as under_test
from phenohit.images.measure_names import columns
from phenohit.images.measure_pixels import correlations, granularity, pixels_of, radial
from phenohit.imaging import MeasureConfig

FAST, STANDARD, FULL = (MeasureConfig(features=s) for s in ("fast", "standard", "full"))


def objects(nuclei, cells=None):
    nuclei = np.asarray(nuclei, np.int32)
    cells = nuclei if cells is None else np.asarray(cells, np.int32)
    return SimpleNamespace(nuclei=nuclei, cells=cells, cytoplasm=np.where(nuclei == 0, cells, 0).astype(np.int32))


def blobs(seed=0, n=6, shape=(90, 110)):
    """Disks of random size in cells that touch, and a textured view of two channels."""
    rng = np.random.default_rng(seed)
    nuclei = np.zeros(shape, np.int32)
    for k, (y, x) in enumerate([(20, 18), (22, 55), (20, 92), (65, 20), (66, 56), (64, 90)][:n], 1):
        nuclei[draw.disk((y, x), rng.uniform(5, 9), shape=shape)] = k
    view = np.stack([ndimage.gaussian_filter(rng.random(shape), s) for s in (1, 2)])
    view = (view - view.min()) / np.ptp(view)
    return view, objects(nuclei, segmentation.expand_labels(nuclei, 12))


def one(mask, image=None, config=FAST):
    """Row of features of a view's single object, without the compartment."""
    image = np.full(mask.shape, 0.5) if image is None else image
    table, _ = under_test.measure(image[None], ["DNA"], objects(mask), config, 1.0)
    return {c.removeprefix("Nuclei_"): v for c, v in table.iloc[0].items() if str(c).startswith("Nuclei_")}


def test_a_rectangle_has_the_shape_of_a_rectangle():
    mask = np.zeros((60, 70), int)
    mask[10:30, 20:50] = 1
    row = one(mask)
    exact = {"Area": 600, "Extent": 1, "Solidity": 1, "EulerNumber": 1, "BoundingBoxArea": 600, "MaximumRadius": 10}
    exact |= {"Center_X": 34.5, "Center_Y": 19.5, "BoundingBoxMinimum_X": 20, "BoundingBoxMaximum_X": 50}
    exact |= {"EquivalentDiameter": np.sqrt(4 * 600 / np.pi), "Perimeter": 2 * (29 + 19)}  # through pixels' middles
    # variance of n evenly spaced pixels: (n^2 - 1) / 12; axes are four standard deviations
    exact |= {"MajorAxisLength": 4 * np.sqrt((30**2 - 1) / 12), "MinorAxisLength": 4 * np.sqrt((20**2 - 1) / 12)}
    exact |= {"Eccentricity": np.sqrt(1 - (20**2 - 1) / (30**2 - 1)), "Orientation": 90.0}
    for name, value in exact.items():
        found = abs(row[f"AreaShape_{name}"]) if name == "Orientation" else row[f"AreaShape_{name}"]
        assert found == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize(("a", "b"), [(25, 25), (40, 20), (30, 15)])
def test_an_ellipse_has_the_shape_of_an_ellipse(a, b):
    mask = np.zeros((100, 100), int)
    mask[draw.ellipse(50, 50, b, a)] = 1
    row = one(mask)
    assert row["AreaShape_Area"] == pytest.approx(np.pi * a * b, rel=0.02)
    assert row["AreaShape_Eccentricity"] == pytest.approx(np.sqrt(1 - (b / a) ** 2), abs=0.02)
    assert row["AreaShape_MajorAxisLength"] == pytest.approx(2 * a, rel=0.02)
    assert row["AreaShape_MinorAxisLength"] == pytest.approx(2 * b, rel=0.02)
    h = ((a - b) / (a + b)) ** 2
    around = np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))  # Ramanujan's second approximation
    assert row["AreaShape_Perimeter"] == pytest.approx(around, rel=0.05)
    assert row["AreaShape_FormFactor"] == pytest.approx(4 * np.pi * np.pi * a * b / around**2, rel=0.1)
    assert row["AreaShape_Compactness"] == pytest.approx(1 / row["AreaShape_FormFactor"], rel=1e-5)
    assert row["AreaShape_Extent"] == pytest.approx(np.pi / 4, rel=0.05)
    assert row["AreaShape_Solidity"] > 0.95
    assert row["AreaShape_MaxFeretDiameter"] == pytest.approx(2 * a, rel=0.06)
    # a disk fills its enclosing circle: Zernike 0,0 is 1/pi of pi r^2 over pi r^2, and 1,1 vanishes by symmetry
    if a == b:
        assert row["AreaShape_Zernike_0_0"] == pytest.approx(1, abs=0.05)
        assert row["AreaShape_Zernike_1_1"] == pytest.approx(0, abs=0.01)


def test_intensities_are_those_of_the_pixels():
    view, what = blobs()
    table, failures = under_test.measure(view, ["DNA", "ER"], what, FAST, 1.0)
    for k in range(1, 7):
        inside = what.cells == k
        values, (y, x) = view[1][inside], np.nonzero(inside)
        edge = view[1][inside & segmentation.find_boundaries(what.cells, mode="inner")]
        centre = np.array([np.average(y, weights=values) - y.mean(), np.average(x, weights=values) - x.mean()])
        exact = {"IntegratedIntensity": values.sum(), "MeanIntensity": values.mean(), "StdIntensity": values.std()}
        exact |= {"MinIntensity": values.min(), "MaxIntensity": values.max(), "MeanIntensityEdge": edge.mean()}
        exact |= {"MassDisplacement": np.hypot(*centre), "StdIntensityEdge": edge.std()}
        for name, value in exact.items():
            assert table.loc[k - 1, f"Cells_Intensity_{name}_ER"] == pytest.approx(value, rel=1e-5), name
        assert table.loc[k - 1, "Cells_Intensity_MedianIntensity_ER"] == pytest.approx(np.median(values), abs=0.01)
    assert failures.empty


def test_texture_is_that_of_scikit_images_co_occurrence():
    levels = np.random.default_rng(1).integers(1, 256, (40, 50)).astype(np.uint8)
    mask = np.zeros((60, 70), int)
    mask[5:45, 10:60] = 1
    image = np.zeros(mask.shape)
    image[5:45, 10:60] = levels / 255
    row = one(mask, image, STANDARD)
    for way, angle in ((0, 0), (2, np.pi / 2)):
        glcm = feature.graycomatrix(levels, [3], [angle], 256, symmetric=True, normed=True)
        p = glcm[:, :, 0, 0]
        exact = {
            "AngularSecondMoment": feature.graycoprops(glcm, "ASM")[0, 0],
            "Contrast": feature.graycoprops(glcm, "contrast")[0, 0],
            "Correlation": feature.graycoprops(glcm, "correlation")[0, 0],
            "InverseDifferenceMoment": feature.graycoprops(glcm, "homogeneity")[0, 0],
            "Entropy": -(p[p > 0] * np.log2(p[p > 0])).sum(),
            "SumAverage": (p * np.add.outer(np.arange(256), np.arange(256))).sum(),
        }
        for name, value in exact.items():
            assert row[f"Texture_{name}_DNA_3_{way:02d}_256"] == pytest.approx(value, rel=1e-4), (name, way)


def test_texture_of_a_checkerboard_and_of_nothing():
    board = np.where(np.indices((40, 40)).sum(0) % 2, 100, 200) / 255
    mask = np.zeros((40, 40), int)
    mask[4:36, 4:36] = 1
    row = one(mask, board, STANDARD)  # three pixels along is always the other colour, three by three the same
    assert row["Texture_Contrast_DNA_3_00_256"] == pytest.approx(100**2)
    assert row["Texture_Correlation_DNA_3_00_256"] == pytest.approx(-1)
    assert row["Texture_AngularSecondMoment_DNA_3_00_256"] == pytest.approx(0.5)
    assert row["Texture_Entropy_DNA_3_00_256"] == pytest.approx(1)
    row = one(mask, np.full(mask.shape, 0.5), STANDARD)
    assert row["Texture_Contrast_DNA_3_01_256"] == 0
    assert row["Texture_AngularSecondMoment_DNA_3_01_256"] == 1
    assert row["Texture_Entropy_DNA_3_01_256"] == 0


def test_shared_work_gives_what_cp_measure_gives():
    """Rings, pairs and granularity are worked out once for all channels or compartments, and must not differ."""
    view, what = blobs(3)
    run = under_test._functions()
    ring = what.cytoplasm
    found = radial(view, ring, ["DNA", "ER"]) | correlations(view, pixels_of(ring), ["ER", "DNA"])
    spectra = granularity(run["granularity"], view, [what.nuclei, what.cells, ring])
    with under_test._quiet():
        for name, value in run["radial_distribution"](ring, view[1]).items():
            np.testing.assert_allclose(found[under_test._after(name, "ER")], value, rtol=1e-9)
        pairs = run["pearson"](view[1], view[0], ring) | run["rwc"](view[1], view[0], ring)
        pairs |= run["manders_fold"](view[1], view[0], ring)
        for mask, spectrum in zip((what.nuclei, what.cells, ring), spectra, strict=True):
            np.testing.assert_allclose(spectrum[0], list(run["granularity"](mask, view[0]).values()), atol=1e-9)
    np.testing.assert_allclose(found["Correlation_Correlation_DNA_ER"], pairs["Correlation_Pearson"], rtol=1e-9)
    for kind in ("RWC", "Manders"):
        # channels were named ER and DNA in the order of the view
        np.testing.assert_allclose(found[f"Correlation_{kind}_DNA_ER"], pairs[f"Correlation_{kind}_1"], rtol=1e-9)
        np.testing.assert_allclose(found[f"Correlation_{kind}_ER_DNA"], pairs[f"Correlation_{kind}_2"], rtol=1e-9)
    product = [(view[0] * view[1])[ring == k].sum() for k in range(1, 7)]
    assert (np.array(product) > 0).all()


def test_neighbours_of_three_squares():
    mask = np.zeros((40, 90), int)
    mask[10:20, 10:20] = 1
    mask[10:20, 20:30] = 2  # touches 1 with one of its four sides
    mask[10:20, 60:70] = 3
    table, _ = under_test.measure(np.ones((1, 40, 90)), ["DNA"], objects(mask), FAST, 1.0)
    assert table["Cells_Neighbors_NumberOfNeighbors_Adjacent"].tolist() == [1, 1, 0]
    assert table["Cells_Neighbors_FirstClosestDistance_Adjacent"].tolist() == [10, 10, 40]
    assert table["Cells_Neighbors_SecondClosestDistance_Adjacent"].tolist() == [50, 40, 50]
    np.testing.assert_allclose(table["Cells_Neighbors_PercentTouching_Adjacent"], [100 * 10 / 36] * 2 + [0], rtol=1e-5)
    np.testing.assert_allclose(table["Cells_Neighbors_AngleBetweenNeighbors_5"], [0, 180, 0], atol=1e-4)


@settings(max_examples=4)
@given(st.permutations(range(1, 7)), st.integers(1, 60000))
def test_neither_numbers_of_cells_nor_units_change_a_value(order, gain):
    view, what = blobs(5)
    first, _ = under_test.measure(view, ["DNA", "ER"], what, STANDARD, 1.0)
    fresh = np.array([0, *order], np.int32)
    other = objects(fresh[what.nuclei], fresh[what.cells])
    second, _ = under_test.measure(view * gain, ["DNA", "ER"], other, STANDARD, float(gain))
    np.testing.assert_allclose(second.iloc[np.array(order) - 1, 1:], first.iloc[:, 1:], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("config", [FAST, STANDARD, FULL])
def test_no_cells_give_an_empty_table_with_all_columns(config):
    none = np.zeros((50, 60), int)
    table, failures = under_test.measure(np.ones((2, 50, 60)), ["A", "B"], objects(none), config, 1.0)
    assert table.columns.tolist() == ["Metadata_ObjectNumber", *columns(["A", "B"], config.features)]
    assert table.shape[0] == 0
    assert failures.columns.tolist() == under_test.FAILURE_COLUMNS
    assert failures.empty


def test_cells_of_a_pixel_a_line_and_without_cytoplasm_are_counted():
    view, what = blobs()
    nuclei, cells = what.nuclei.copy(), what.cells.copy()
    nuclei[nuclei == 1] = 0
    cells[cells == 1] = 0
    nuclei[5, 5] = cells[5, 5] = 1  # one pixel
    nuclei[cells == 2] = 2  # no cytoplasm
    nuclei[nuclei == 3] = cells[cells == 3] = 0
    nuclei[15:25, 100] = cells[15:25, 100] = 3  # a line
    table, failures = under_test.measure(view, ["DNA", "ER"], objects(nuclei, cells), FULL, 1.0)
    assert table["Metadata_ObjectNumber"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table.drop(columns="Metadata_ObjectNumber").dtypes.eq(np.float32).all()
    assert not np.isinf(table.to_numpy()).any()
    cytoplasm = table[[c for c in table if c.startswith("Cytoplasm_")]]
    assert cytoplasm.isna().all(axis=1).tolist() == [True, True, True, False, False, False]
    rows = failures.drop_duplicates(["family", "compartment", "channel"]).set_index(
        ["family", "compartment", "channel"]
    )
    assert rows.loc[("Intensity", "Cytoplasm", "ER")].tolist() == [3, "the cell has no cytoplasm"]
    assert rows.loc[("Texture", "Nuclei", "DNA"), "cells"] >= 2
    assert rows.loc[("AreaShape", "Nuclei", ""), "cells"] >= 1
    pieces = [c.split("_", 2) for c in table.columns[1:][table.iloc[:, 1:].isna().any()]]
    assert {(f, c) for c, f, _ in pieces} <= {
        ("Correlation" if f == "Costes" else f, c) for f, c in zip(failures.family, failures.compartment, strict=True)
    }


def test_one_cell_has_no_neighbours_and_no_distance():
    mask = np.zeros((40, 40), int)
    mask[10:30, 10:30] = 7
    table, failures = under_test.measure(np.ones((1, 40, 40)), ["DNA"], objects(mask), FAST, 1.0)
    assert table["Metadata_ObjectNumber"].tolist() == [7]
    assert table["Cells_Neighbors_NumberOfNeighbors_Adjacent"].item() == 0
    assert np.isnan(table["Cells_Neighbors_FirstClosestDistance_Adjacent"].item())
    assert "fewer than two other cells in the view" in set(failures.reason)


def test_only_the_channels_asked_for():
    view, what = blobs()
    table, _ = under_test.measure(view, ["DNA", "ER"], what, MeasureConfig("fast", ["ER"]), 1.0)
    assert table.columns.tolist() == ["Metadata_ObjectNumber", *columns(["ER"], "fast")]
    both, _ = under_test.measure(view, ["DNA", "ER"], what, FAST, 1.0)
    pd.testing.assert_frame_equal(table, both[table.columns])
    with pytest.raises(ConfigError, match=r"measure\.channels names 'Er'.*DNA, ER"):
        under_test.measure(view, ["DNA", "ER"], what, MeasureConfig("fast", ["Er"]), 1.0)


def test_what_does_not_fit_is_told():
    view, what = blobs()
    with pytest.raises(ShapeError, match="needs the shape \\(1, height"):
        under_test.measure(view, ["DNA"], what, FAST, 1.0)
    with pytest.raises(ShapeError, match="Labels of nuclei"):
        under_test.measure(view[:, :-1], ["DNA", "ER"], what, FAST, 1.0)
    with pytest.raises(ShapeError, match="full scale"):
        under_test.measure(view, ["DNA", "ER"], what, FAST, 0.0)


def test_names_are_those_of_real_tables(shared_data):
    """All but three (ConvexArea, of newer CellProfiler) are in a JUMP table."""
    known = set()
    for part in ("Nuclei", "Cells", "Cytoplasm"):
        path = shared_data / "jump-target2-singlecell" / f"BR00121431-A01-1_{part}.csv.gz"
        with gzip.open(path, "rt") as file:
            known |= {f"{part}_{name}" for name in file.readline().strip().split(",")}
    named = columns(["DNA", "ER", "RNA", "AGP", "Mito"], "standard")
    assert len(named) == len(set(named)) == 1911
    assert {n.split("_", 1)[1] for n in set(named) - known} == {"AreaShape_ConvexArea"}
    more = set(columns(["DNA", "ER", "RNA", "AGP", "Mito"], "full")) - known
    assert {n.split("_")[2] for n in more} == {"ConvexArea", "ZernikeMagnitude", "Costes"}


def test_shapes_are_cellprofilers_on_a_jump_plate(shared_data):
    """Five nuclei that CellProfiler outlined; its version then gave radians and another hull."""
    folder = shared_data / "raw-images" / "cytodataframe" / "JUMP_plate_BR00117006"
    theirs = pd.read_parquet(folder / "BR00117006_shrunken.parquet")
    outline = np.asarray(Image.open(next((folder / "images" / "outlines").glob("*nuclei_outlines.png")))) > 0
    inner = measure.label(~outline, connectivity=1)
    y, x = (theirs[f"Nuclei_AreaShape_Center_{a}"].to_numpy(float).round().astype(int) for a in "YX")
    mask = np.zeros(outline.shape, np.int32)
    for k, (i, j) in enumerate(zip(y, x, strict=True), 1):
        within = inner == inner[i, j]
        mask[within | (outline & ndimage.binary_dilation(within, np.ones((3, 3))))] = k
    dna = tifffile.imread(next((folder / "images" / "orig").glob("*ch5*.tiff")))
    ours, _ = under_test.measure(dna[None], ["DNA"], objects(mask), FAST, 65535.0)
    shapes = [c for c in ours if c.startswith("Nuclei_AreaShape_") and c in theirs]
    for name in shapes:
        if name.endswith("Solidity"):
            continue
        expected = theirs[name].to_numpy(float) * (180 / np.pi if name.endswith("Orientation") else 1)
        np.testing.assert_allclose(ours[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    assert len(shapes) == 54


def test_intensities_are_cellprofilers_on_the_human_example(shared_data):
    """CellProfiler's own threshold gives most of its nuclei to the pixel; their intensities must be equal."""
    folder = shared_data / "raw-images" / "examplehuman"
    theirs = pd.read_csv(folder / "Nuclei.csv")
    view = np.stack([tifffile.imread(next(folder.glob(f"*d{i}.tif"))) for i in (0, 1)])
    threshold = pd.read_csv(folder / "Image.csv")["Threshold_FinalThreshold_Nuclei"].item() * 255
    mask = ndimage.binary_fill_holes(ndimage.gaussian_filter(view[0].astype(float), 1) > threshold)
    labels = measure.label(mask, connectivity=1)
    ours, _ = under_test.measure(view, ["DNA", "PH3"], objects(labels), FAST, 255.0)
    ours.columns = [c.removeprefix("Nuclei_") for c in ours.columns]
    keys = ["AreaShape_Area", "Location_Center_Y", "Location_Center_X"]
    distance, nearest = KDTree(ours[keys]).query(theirs[keys])
    same = distance < 0.01
    assert same.sum() > 100
    both = ours.iloc[nearest[same]].reset_index(drop=True), theirs[same].reset_index(drop=True)
    for name in [c for c in theirs if c.startswith(("Intensity_", "AreaShape_Zernike", "Location_CenterMass"))]:
        if name in ours:
            equal = np.isclose(both[0][name], both[1][name], rtol=1e-3, atol=1e-6)
            assert equal.mean() > 0.97, name
