from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage as ndi

from phenohit.data import remote
from phenohit.data.simulate_settings import SimulateSettings
from phenohit.errors import ColumnError, ConfigError, FileError, PlateError, ShapeError
from phenohit.images.draw import draw_view, usual_cells
from phenohit.images.segment import Objects, estimate_diameter, read_masks, segment
from phenohit.imaging import SegmentConfig

KEEP = SegmentConfig(border="keep")


def _disks(places, radius=10, size=120, bright=1000.0, noise=10.0):
    y, x = np.ogrid[:size, :size]
    image = np.full((size, size), 100.0)
    for cy, cx in places:
        image[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = bright
    return (ndi.gaussian_filter(image, 1) + np.random.default_rng(0).normal(0, noise, image.shape))[None]


def _check(objects: Objects):
    """What every result holds."""
    n = len(objects)
    for image in (objects.nuclei, objects.cells, objects.cytoplasm):
        assert image.dtype == np.int32
        assert image.shape == objects.nuclei.shape
    assert set(np.unique(objects.nuclei)) | {0} == set(range(n + 1))
    assert set(np.unique(objects.cells)) | {0} == set(range(n + 1))
    within = objects.nuclei > 0
    assert (objects.cells[within] == objects.nuclei[within]).all()
    assert (objects.cytoplasm == np.where(within, 0, objects.cells)).all()


def _iou(one, other):
    """Overlap over union of every pair of labels, shape (n, m)."""
    pairs = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(pairs, (one.ravel(), other.ravel()), 1)
    return (pairs / (pairs.sum(1)[:, None] + pairs.sum(0) - pairs))[1:, 1:]


def test_planted_cells_are_found():
    simulate, rng = SimulateSettings(image_size=256), np.random.default_rng(1)
    channels = ["DNA", "ER", "AGP"]
    views = [draw_view(rng, simulate, int(usual_cells(256) * f)) for f in (0.5, 1, 1, 1.5, 2)]
    diameter = estimate_diameter((v.pixels for v in views), channels, "DNA")
    true = np.median(np.concatenate([np.sqrt(4 / np.pi * v.objects["area"]) for v in views]))
    assert diameter == pytest.approx(true, rel=0.15)
    planted = found = matched = 0
    for view in views:
        objects = segment(view.pixels, channels, SegmentConfig(cells="ER", border="keep"), diameter)
        _check(objects)
        planted, found = planted + view.nuclei.max(), found + len(objects)
        matched += (_iou(view.nuclei, objects.nuclei).max(axis=1) > 0.6).sum()
    assert found == pytest.approx(planted, rel=0.05)
    assert matched > 0.92 * planted


def test_touching_nuclei_are_parted_and_lobed_ones_are_not():
    assert len(segment(_disks([(60, 51), (60, 69)]), ["DNA"], KEEP, 20)) == 2
    assert len(segment(_disks([(60, 56), (60, 64)]), ["DNA"], KEEP, 20)) == 1
    assert len(segment(_disks([(60, 40), (60, 60), (60, 80), (77, 50)]), ["DNA"], KEEP, 20)) == 4


def test_area_and_place_of_a_disk():
    objects = segment(_disks([(60, 50)], radius=12), ["DNA"], KEEP, 24)
    assert (objects.nuclei == 1).sum() == pytest.approx(np.pi * 144, rel=0.08)
    assert ndi.center_of_mass(objects.nuclei) == pytest.approx((60, 50), abs=0.3)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64)),
        np.full((64, 64), 4095),
        np.random.default_rng(0).normal(500, 20, (200, 200)),
        np.random.default_rng(0).normal(500, 20, (200, 200)) * np.linspace(0.5, 1.5, 200),
    ],
    ids=["black", "full", "noise", "shaded noise"],
)
@pytest.mark.parametrize("cells", ["", "ER"])
def test_no_cells_is_a_result(image, cells):
    objects = segment(np.stack([image, image]), ["DNA", "ER"], SegmentConfig(cells=cells), 15)
    _check(objects)
    assert len(objects) == 0


def test_border_and_sizes_are_rules_that_count():
    image = _disks([(0, 50), (60, 60), (100, 20)])
    image += _disks([(30, 90)], radius=4, noise=0) - 100
    kept = segment(image, ["DNA"], KEEP, 20)
    dropped = segment(image, ["DNA"], SegmentConfig(), 20)
    assert (len(kept), len(dropped)) == (3, 2)
    assert dropped.left_out["touching the border"] == 1
    assert dropped.left_out["too small"] == kept.left_out["too small"] == 1
    assert segment(image, ["DNA"], KEEP, 7).left_out["too large"] == 2


def test_dim_smears_are_no_nuclei():
    image = _disks([(30, 30), (90, 90), (30, 90)])
    image += _disks([(90, 30)], bright=220.0, noise=0) - 100
    objects = segment(image, ["DNA"], KEEP, 20)
    assert len(objects) == 3
    assert objects.nuclei[90, 30] == 0


def test_cells_without_a_stain_are_grown_nuclei():
    image = _disks([(60, 60)])
    objects = segment(image, ["DNA"], SegmentConfig(reach=0.5), 20)
    distance = ndi.distance_transform_edt(objects.nuclei == 0)
    assert ((objects.cells > 0) == (distance <= 10)).all()
    _check(objects)


def test_cells_follow_their_stain_and_no_farther_than_reach():
    dna = _disks([(60, 40), (60, 80)])[0]
    stain = np.full(dna.shape, 100.0)
    stain[40:80, 20:100] = 800  # two cells side by side
    stain[40:80, 59:61] = 500
    view = np.stack([dna, ndi.gaussian_filter(stain, 1)])
    objects = segment(view, ["DNA", "ER"], SegmentConfig(cells="ER", reach=3), 20)
    _check(objects)
    truth = np.zeros(dna.shape, int)
    truth[40:80, 20:60], truth[40:80, 60:100] = 1, 2
    assert (_iou(truth, objects.cells).max(axis=1) > 0.85).all()
    near = segment(view, ["DNA", "ER"], SegmentConfig(cells="ER", reach=0.2), 20)
    assert ndi.distance_transform_edt(near.nuclei == 0)[near.cells > 0].max() <= 0.2 * 20 + 2


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from(["", "ER"]), st.sampled_from(["keep", "drop"]))
def test_labels_are_consistent(seed, cells, border):
    view = draw_view(np.random.default_rng(seed), SimulateSettings(image_size=96), seed % 12)
    _check(segment(view.pixels, ["DNA", "ER", "AGP"], SegmentConfig(cells=cells, border=border), 18))


def test_result_does_not_depend_on_the_unit():
    view = draw_view(np.random.default_rng(5), SimulateSettings(image_size=128), 10).pixels.astype(np.float32)
    config = SegmentConfig(cells="ER")
    one, other = (segment(v, ["DNA", "ER", "AGP"], config, 18) for v in (view, view / 65535))
    assert len(one) == len(other)
    assert (one.nuclei != other.nuclei).mean() < 1e-3


def test_what_is_wrong_is_said():
    view = np.zeros((1, 20, 20))
    with pytest.raises(ColumnError, match="No channel is called 'DNA'"):
        segment(view, ["Hoechst"], SegmentConfig(), 10)
    with pytest.raises(ConfigError, match="above 0"):
        segment(view, ["DNA"], SegmentConfig(), 0)
    with pytest.raises(PlateError, match=r"segment\.diameter"):
        estimate_diameter([view], ["DNA"], "DNA")
    with pytest.raises(PlateError, match="of 0 views"):
        estimate_diameter([], ["DNA"], "DNA")
    with pytest.raises(ShapeError, match="differ in size"):
        Objects(np.zeros((2, 2), np.int32), np.zeros((2, 3), np.int32), np.zeros((2, 2), np.int32))


def _real(shared_data, path):
    file = shared_data / "raw-images" / path
    if not file.exists():
        pytest.skip(f"{file.name} not found")
    return file


def test_same_nuclei_as_cellprofiler_on_its_example(shared_data):
    dna = tifffile.imread(_real(shared_data, "examplehuman/AS_09125_050116030001_D03f00d0.tif"))[None]
    table = pd.read_csv(_real(shared_data, "examplehuman/Nuclei.csv"))
    diameter = estimate_diameter([dna], ["DNA"], "DNA")
    ours = segment(dna, ["DNA"], SegmentConfig(), diameter)
    assert len(ours) == pytest.approx(len(table), rel=0.05)
    nuclei = segment(dna, ["DNA"], KEEP, diameter).nuclei
    y, x = (table[f"AreaShape_Center_{c}"].round().astype(int).clip(0, 511) for c in "YX")
    hit = nuclei[y, x]
    assert (hit > 0).mean() > 0.98
    labels, times = np.unique(hit[hit > 0], return_counts=True)
    alone = np.isin(hit, labels[times == 1])
    assert alone.mean() > 0.95
    area = pd.Series(np.bincount(nuclei.ravel())[hit[alone]])
    assert area.corr(table["AreaShape_Area"][alone].reset_index(drop=True)) > 0.85


@pytest.mark.parametrize(
    ("image", "outlines", "least"),
    [
        (
            "JUMP_plate_BR00117006/images/orig/r01c01f01p01-ch5sk1fk1fl1.tiff",
            "JUMP_plate_BR00117006/images/outlines/r01c01f01p01-ch5sk1fk1fl1_nuclei_outlines.png",
            0.96,
        ),
        (
            "pediatric_cancer_atlas_profiling/images/orig/r03c03f03p01-ch5sk1fk1fl1.tiff",
            "pediatric_cancer_atlas_profiling/images/outlines/NucleiOutlines_BR00143976_C03_3.tiff",
            0.92,
        ),
    ],
)
def test_same_nuclei_as_cellprofilers_outlines(shared_data, image, outlines, least):
    dna = tifffile.imread(_real(shared_data, f"cytodataframe/{image}"))[None]
    file = _real(shared_data, f"cytodataframe/{outlines}")
    lines = tifffile.imread(file) if file.suffix == ".tiff" else np.asarray(Image.open(file))
    lines = lines.reshape(*lines.shape[:2], -1).max(axis=2) > 0
    parts, _ = ndi.label(~lines)
    size = np.bincount(parts.ravel())
    size[0] = 0
    true = np.cumsum((size > 60) & (size < 5000)) * ((size > 60) & (size < 5000))
    filled = true[parts]
    filled = np.where(filled == 0, np.where(lines, ndi.grey_dilation(filled, 3), 0), filled)
    ours = segment(dna, ["DNA"], KEEP, estimate_diameter([dna], ["DNA"], "DNA"))
    best = _iou(filled, ours.nuclei).max(axis=1)
    assert (best > 0.5).mean() > least
    assert np.median(best) > 0.85
    assert len(ours) == pytest.approx(len(best), rel=0.12)  # ours with those at the border


def _save(path, image):
    if path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix == ".png":
        Image.fromarray(image.astype(np.uint16)).save(path)
    else:
        tifffile.imwrite(path, image)
    return str(path)


@pytest.mark.parametrize("kind", [".tif", ".png", ".npy"])
def test_masks_of_other_programs(tmp_path, kind):
    nuclei, cells = np.zeros((2, 40, 40), np.uint16)
    nuclei[5:10, 5:10], nuclei[20:25, 20:25], nuclei[21:24, 30:33], nuclei[35:38, 5:8] = 7, 3, 9, 12
    cells[3:14, 3:14], cells[18:28, 18:36], cells[2:9, 30:38] = 4, 2, 5
    files = {"nuclei": _save(tmp_path / f"n{kind}", nuclei), "cells": _save(tmp_path / f"c{kind}", cells)}
    objects = read_masks(files, SegmentConfig(), (40, 40))
    _check(objects)
    assert len(objects) == 2
    assert objects.left_out["nuclei without a cell of their own"] == 2  # one shares a cell, one has none
    assert objects.left_out["cells without a nucleus"] == 1
    assert (objects.nuclei == 1).sum() == (objects.nuclei == 2).sum() == 25
    assert (objects.cells == objects.cells[5, 5]).sum() == 121
    alone = read_masks({"nuclei": files["nuclei"]}, SegmentConfig(reach=0.5))
    _check(alone)
    assert len(alone) == 4


def test_a_mask_without_labels_is_labelled(tmp_path):
    image = np.zeros((30, 30), np.uint8)
    image[5:9, 5:9] = image[20:24, 10:20] = 255
    objects = read_masks({"nuclei": _save(tmp_path / "n.png", image)}, SegmentConfig(reach=0.1))
    assert len(objects) == 2
    empty = read_masks({"nuclei": _save(tmp_path / "e.npy", image * 0)}, SegmentConfig())
    assert len(empty) == 0
    _check(empty)


def test_masks_may_be_at_an_address(tmp_path, monkeypatch):
    monkeypatch.setitem(remote._KINDS, "memory", "fsspec")  # a store within this process
    monkeypatch.setenv("PHENOHIT_CACHE", str(tmp_path / "cache"))
    image = np.zeros((30, 30), np.uint16)
    image[5:9, 5:9], image[20:24, 10:20] = 1, 2
    files = {}
    for kind in (".npy", ".tif", ".png"):
        path = _save(tmp_path / f"n{kind}", image)
        files[kind] = f"memory://masks-of-{tmp_path.name}/n{kind}"
        fsspec.filesystem("memory").pipe(files[kind], Path(path).read_bytes())
        here = read_masks({"nuclei": path}, SegmentConfig(reach=0.1))
        there = read_masks({"nuclei": files[kind], "cells": files[kind]}, SegmentConfig(), (30, 30), storage={})
        np.testing.assert_array_equal(there.nuclei, here.nuclei)
        assert len(there) == 2
    fsspec.filesystem("memory").rm(files[".png"])
    with pytest.raises(FileError, match=r"n\.png' is not there"):
        read_masks({"nuclei": files[".png"]}, SegmentConfig())
    fsspec.filesystem("memory").pipe(files[".tif"], b"damaged")
    with pytest.raises(FileError, match=r"'memory://.*n\.tif' cannot be read as a label image"):
        read_masks({"nuclei": files[".tif"]}, SegmentConfig())


def test_bad_masks_are_refused(tmp_path):
    good = _save(tmp_path / "good.npy", np.ones((4, 5), int))
    with pytest.raises(ConfigError, match="no label image of nuclei"):
        read_masks({"cells": good}, SegmentConfig())
    with pytest.raises(FileError, match="does not exist"):
        read_masks({"nuclei": str(tmp_path / "none.tif")}, SegmentConfig())
    with pytest.raises(FileError, match="is no label image"):
        read_masks({"nuclei": _save(tmp_path / "f.npy", np.ones((4, 5)))}, SegmentConfig())
    with pytest.raises(FileError, match="negative"):
        read_masks({"nuclei": _save(tmp_path / "m.npy", -np.ones((4, 5), int))}, SegmentConfig())
    (tmp_path / "t.tif").write_bytes(b"no image")
    with pytest.raises(FileError, match="cannot be read as a label image"):
        read_masks({"nuclei": str(tmp_path / "t.tif")}, SegmentConfig())
    with pytest.raises(ShapeError, match=r"expected \(9, 9\)"):
        read_masks({"nuclei": good}, SegmentConfig(), (9, 9))
    with pytest.raises(ShapeError, match=r"expected \(4, 5\)"):
        read_masks({"nuclei": good, "cells": _save(tmp_path / "c.npy", np.ones((4, 6), int))}, SegmentConfig())
