"""One plate of SIMULATED images: counts, exclusions with reasons, and a killed run that goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import tifffile

from phenohit.data import remote
from phenohit.data.simulate_settings import SimulateSettings
from phenohit.data.views import Views
from phenohit.errors import ColumnError, ConfigError, FileError, PlateError
from phenohit.files import read_json
from phenohit.images import plate as plate_module
from phenohit.images.draw import DrawnView, draw_view
from phenohit.images.layouts import find_views
from phenohit.images.plate import OUTPUTS, measure_plate
from phenohit.imaging import ImageSource, MeasureConfig, QualityConfig, SegmentConfig

LOOK = SimulateSettings(images=1, image_size=128)
WELLS = ["A01", "A02", "A03", "B01", "B02", "B03"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, dict[str, DrawnView]]:
    """Six views of about eight cells; A02 is empty, and B03 is black."""
    folder = tmp_path_factory.mktemp("screen")
    rng = np.random.default_rng(0)
    views = {}
    for well in WELLS:
        view = draw_view(rng, LOOK, 8, fault="empty" if well == "A02" else "none")
        pixels = np.zeros_like(view.pixels) if well == "B03" else view.pixels
        views[well] = view
        for c, image in enumerate(pixels):
            path = folder / "P1" / f"{well}_s1_w{c + 1}.tif"
            path.parent.mkdir(exist_ok=True)
            tifffile.imwrite(path, image)
    return folder, views


def source_of(folder: Path, **changed: object) -> ImageSource:
    given = ImageSource(
        path=str(folder),
        layout="pattern",
        pattern="{plate}/{well}_s{site}_w{channel}.tif",
        channels={"DNA": "1", "ER": "2", "AGP": "3"},
        quality=QualityConfig(illumination="none"),
        segment=SegmentConfig(cells="ER", diameter=19.0, border="keep"),
        measure=MeasureConfig(features="fast", thumbnails=False),
    )
    return replace(given, **changed)


def views_of(source: ImageSource) -> Views:
    views, lost = find_views(source)
    assert lost.empty
    return views


@pytest.fixture(scope="module")
def measured(drawn, tmp_path_factory) -> tuple[Path, dict]:
    source = source_of(drawn[0], measure=MeasureConfig(features="fast", thumbnails=True, crops=32))
    out = tmp_path_factory.mktemp("out") / "P1"
    return out, measure_plate(views_of(source), source, out)


def test_cells_are_those_that_were_drawn_and_every_loss_is_listed(drawn, measured):
    out, counted = measured
    assert all((out / name).exists() for name in OUTPUTS)
    cells = pd.read_parquet(out / "cells.parquet")
    views = pd.read_parquet(out / "views.parquet").set_index("Metadata_Well")
    lost = pd.read_csv(out / "dropped.csv").set_index("id")["reason"]
    assert counted["views"] == 6
    assert set(views.index) == set(WELLS)
    assert set(views.index[views["cells"].isna()]) == {"A02", "B03"}  # empty, black
    assert counted["measured"] == 4
    assert {"P1/A02/1", "P1/B03/1"} <= set(lost.index)
    full = ["A01", "A03", "B01", "B02"]
    assert abs(views.loc[full, "cells"].sum() - sum(len(drawn[1][well].objects) for well in full)) <= 3
    for well in full:
        assert (cells["Metadata_Well"] == well).sum() == views.loc[well, "cells"]
    assert counted["cells"] == len(cells)
    assert cells.filter(regex="^Cells_Intensity_MeanIntensity_").shape[1] == 3
    assert cells["Nuclei_AreaShape_Area"].between(50, 1200).all()
    assert not list(out.glob("parts-*"))


def test_pictures_and_crops_are_of_the_measured_views(measured):
    out, counted = measured
    thumbs = pd.read_parquet(out / "thumbnails.parquet")
    assert set(thumbs["channel"]) == {"DNA", "ER", "AGP", "composite"}
    assert len(thumbs) == 4 * counted["measured"]
    assert all(png.startswith(b"\x89PNG") for png in thumbs["png"])
    assert (out / "overlay.jpg").stat().st_size > 1000
    from phenohit.images.crops import read_crops

    crops, rows = read_crops(out / "crops", "P1")
    assert crops.shape == (len(rows), 3, 32, 32)
    cut = pd.read_csv(out / "dropped.csv")["reason"].str.extract(r"^(\d+) cells are nearer to the border")[0]
    assert len(rows) + cut.astype(float).sum() == counted["cells"]


def test_a_killed_plate_goes_on_and_gives_the_same(drawn, tmp_path, monkeypatch):
    source = source_of(drawn[0])
    views = views_of(source)
    monkeypatch.setattr(plate_module, "_PIECE", 2)
    measure_plate(views, source, tmp_path / "whole")

    def dies(work):
        for i, (function, a, k) in enumerate(work):
            if function.__name__ == "_measure_piece" and i == 1:
                raise KeyboardInterrupt
            yield function(*a, **k)

    with pytest.raises(KeyboardInterrupt):
        measure_plate(views, source, tmp_path / "killed", do=dies)
    (parts,) = (tmp_path / "killed").glob("parts-*")
    done = {p.name: p.stat().st_mtime_ns for p in parts.glob("c*-0.*")}
    assert len(done) == 2
    seen = []

    def watches(work):
        for function, a, k in work:
            function(*a, **k)
            seen.extend(p.stat().st_mtime_ns == done[p.name] for p in parts.glob("c*-0.*"))
            yield None

    measure_plate(views, source, tmp_path / "killed", do=watches)
    assert seen
    assert all(seen)  # what was done is not done again
    for name in ("cells.parquet", "views.parquet"):
        one, other = (pd.read_parquet(tmp_path / run / name) for run in ("whole", "killed"))
        pd.testing.assert_frame_equal(one, other)
    for name in ("flags.csv", "failures.csv", "dropped.csv", "plate.json"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "killed" / name).read_text()


def test_pieces_of_other_settings_are_not_taken(drawn, tmp_path):
    source = source_of(drawn[0])
    views = views_of(source).take([0])

    def stops(work):
        for function, a, k in work:
            function(*a, **k)
            if function.__name__ == "_measure_piece":
                raise KeyboardInterrupt
            yield None

    with pytest.raises(KeyboardInterrupt):
        measure_plate(views, source, tmp_path / "run", do=stops)
    other = replace(source, segment=replace(source.segment, threshold=1.2))
    measure_plate(views, other, tmp_path / "run")
    alone = measure_plate(views, other, tmp_path / "alone")
    assert read_json(tmp_path / "run" / "plate.json") == alone
    one, two = (pd.read_parquet(tmp_path / n / "cells.parquet") for n in ("run", "alone"))
    pd.testing.assert_frame_equal(one, two)


@pytest.fixture
def damaged(drawn, tmp_path):
    """Like `drawn`, but one channel of B01 is cut short."""
    folder = tmp_path / "screen" / "P1"
    folder.mkdir(parents=True)
    for path in (drawn[0] / "P1").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    bad = folder / "B01_s1_w2.tif"
    bad.write_bytes(bad.read_bytes()[:4000])
    return tmp_path / "screen"


@pytest.mark.parametrize("checked", [True, False], ids=["quality", "no quality"])
def test_a_damaged_file_is_listed_with_its_name(damaged, tmp_path, checked):
    source = source_of(damaged, quality=QualityConfig(enabled=checked, illumination="none"))
    found = measure_plate(views_of(source).take([0, 3]), source, tmp_path / "out")
    lost = pd.read_csv(tmp_path / "out" / "dropped.csv").set_index("id")["reason"]
    assert "B01_s1_w2.tif" in lost["P1/B01/1"]
    assert found["cells"] > 0


def test_a_damaged_file_is_fatal_where_the_settings_say_so(damaged, tmp_path):
    source = source_of(damaged, missing="fail")
    with pytest.raises(FileError, match=r"B01_s1_w2\.tif"):
        measure_plate(views_of(source), source, tmp_path / "out")


def test_a_plate_without_a_usable_view_is_refused_with_the_rules(drawn, tmp_path):
    source = source_of(drawn[0])
    with pytest.raises(PlateError, match="dark"):
        measure_plate(views_of(source).take([5]), source, tmp_path / "out")


def test_a_view_without_cells_gives_an_empty_table_with_every_column(drawn, measured, tmp_path):
    source = source_of(drawn[0], quality=QualityConfig(enabled=False, illumination="none"))
    found = measure_plate(views_of(source).take([1]), source, tmp_path / "out")
    assert found == {"views": 1, "measured": 1, "cells": 0, "diameter": 19.0}
    empty = pd.read_parquet(tmp_path / "out" / "cells.parquet")
    full = pd.read_parquet(measured[0] / "cells.parquet")
    assert empty.columns.tolist() == full.columns.tolist()


def test_masks_of_another_program_are_used(drawn, tmp_path):
    folder, views = drawn
    for what in ("nuclei", "cells"):
        tifffile.imwrite(tmp_path / f"P1_A01_1_{what}.tif", getattr(views["A01"], what).astype(np.uint16))
    masks = {what: str(tmp_path / ("{plate}_{well}_{site}_" + what + ".tif")) for what in ("nuclei", "cells")}
    source = source_of(folder, segment=SegmentConfig(masks=masks, border="keep"))
    measure_plate(views_of(source).take([0]), source, tmp_path / "out")
    cells = pd.read_parquet(tmp_path / "out" / "cells.parquet")
    areas = np.bincount(views["A01"].nuclei.ravel())[1:]
    assert sorted(cells["Nuclei_AreaShape_Area"]) == sorted(areas[areas > 0])


def test_the_storage_of_images_is_that_of_masks(drawn, tmp_path, monkeypatch):
    monkeypatch.setitem(remote._KINDS, "memory", "fsspec")
    monkeypatch.setenv("PHENOHIT_CACHE", str(tmp_path / "cache"))
    made = []
    monkeypatch.setattr(remote, "_file_system", lambda kind, given: made.append(given) or fsspec.filesystem(kind))
    store = f"memory://{tmp_path.name}"
    changed = {"storage": {"anon": True}, "quality": QualityConfig(enabled=False, illumination="none")}
    source = source_of(
        drawn[0], segment=SegmentConfig(masks={"nuclei": store + "/{plate}_{well}_{site}.npy"}), **changed
    )
    one = views_of(source).take([0])
    mask = np.zeros((128, 128), np.uint8)
    mask[20:40, 20:40], mask[60:80, 60:80] = 1, 2
    np.save(tmp_path / "mask.npy", mask)
    place = "_".join(one.rows.loc[0, ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]])
    fsspec.filesystem("memory").pipe(f"{store}/{place}.npy", (tmp_path / "mask.npy").read_bytes())
    assert measure_plate(one, source, tmp_path / "out")["cells"] == 2
    assert {"anon": True} in made
    source.segment.masks["nuclei"] = store + "/{plate}_{wel}.npy"
    with pytest.raises(ConfigError, match=r"segment\.masks has a field \('wel'\) that is none of"):
        measure_plate(one, source, tmp_path / "other")


def test_illumination_is_taken_out(tmp_path):
    """Cells under half the light read as bright as the others once the plate's function is divided out."""
    shade = np.linspace(1.0, 0.5, 128)[None, :]
    rng = np.random.default_rng(1)
    (tmp_path / "shaded" / "P1").mkdir(parents=True)
    for i in range(12):
        view = draw_view(rng, LOOK, 8)
        for c, image in enumerate(view.pixels):
            name = f"{'AB'[i // 6]}{i % 6 + 1:02d}_s1_w{c + 1}.tif"
            tifffile.imwrite(tmp_path / "shaded" / "P1" / name, (image * shade).astype(np.uint16))
    slope = {}
    for how in ("none", "estimate"):
        source = source_of(tmp_path / "shaded", quality=QualityConfig(enabled=False, illumination=how))
        measure_plate(views_of(source), source, tmp_path / how)
        cells = pd.read_parquet(tmp_path / how / "cells.parquet")
        x, y = cells["Nuclei_Location_Center_X"], cells["Nuclei_Intensity_MeanIntensity_DNA"]
        slope[how] = np.polyfit(x / 128, y / y.mean(), 1)[0]
    assert slope["none"] < -0.4
    assert abs(slope["estimate"]) < 0.15
    assert len(list((tmp_path / "estimate" / "illumination").glob("*.npy"))) == 3


def test_illumination_from_files_that_are_not_named_is_refused(drawn, tmp_path):
    source = source_of(drawn[0], quality=QualityConfig(enabled=False, illumination="files"))
    with pytest.raises(FileError, match="FileName_Illum"):
        measure_plate(views_of(source).take([0]), source, tmp_path / "out")


def test_a_channel_that_is_not_there_is_refused(drawn, tmp_path):
    source = source_of(drawn[0], segment=SegmentConfig(nuclei="Hoechst", diameter=19.0))
    with pytest.raises(ColumnError, match="Hoechst"):
        measure_plate(views_of(source).take([0]), source, tmp_path / "out")
