"""Galleries of predictions: the view of compound k is bright in its first k rows, so that pixels tell whose it is."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse

from phenohit import gallery
from phenohit.config import Config, HitsConfig
from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.data.views import Views
from phenohit.files import write_table
from phenohit.gallery import step_gallery
from phenohit.images.samples import view_rows
from phenohit.images.store import open_store, write_store
from phenohit.imaging import ImageSource
from phenohit.models import find_model
from phenohit.runs import Run, slug
from phenohit.study import Study

N = 24  # compounds: 0 to 11 measured, the others candidates
SIDE = 32
TASK = "assay: a/b >= 6"  # not a name of a folder
FOREST = {"method": "forest-profiles", "model": "forest", "input": "profiles"}
GAPNET = {"method": "gapnet-views", "model": "gapnet", "input": "views"}
CELLS = [40.0, 90.0, 70.0]  # of the controls: the third is the median, the second is nearest to it


def wells() -> pd.DataFrame:
    """Two plates of 12 compounds and 3 controls each, two sites per well."""
    names = [f"{'ABC'[i // 5]}{i % 5 + 1:02d}" for i in range(15)]
    table = pd.DataFrame({"plate": np.repeat(["P1", "P 2"], 15), "well": names * 2})
    compound = [f"K{i:02d}" for i in range(N)]
    table["compound"] = [*compound[:12], "", "", "", *compound[12:], "", "", ""]
    table["cell_count"] = np.where(table["compound"] == "", CELLS * 10, 60.0)
    table["pert_type"] = np.where(table["compound"] == "", "negcon", "trt")
    return table


def bright_rows(compound: str, site: int) -> int:
    """Return how many rows of a view are bright; controls: none but one."""
    return int(compound[1:]) + 2 + 4 * (site - 1) if compound else 1


def write_views(folder: Path) -> None:
    rows, files = [], []
    for well in wells().to_dict("records"):
        for site in (1, 2):
            pixels = np.full((SIDE, SIDE), 20, np.uint8)
            pixels[: bright_rows(well["compound"], site)] = 250
            pixels += np.random.default_rng(len(rows)).integers(0, 5, pixels.shape, np.uint8)
            path = folder / f"v{len(rows)}.tif"
            Image.fromarray(pixels).save(path)
            rows.append({"Metadata_Plate": well["plate"], "Metadata_Well": well["well"], "Metadata_Site": str(site)})
            files.append({"DNA": str(path), "ER": str(path)})
    write_store(Views(pd.DataFrame(rows), pd.DataFrame(files)), ImageSource(), folder / "run" / "images" / "store")


def held_out() -> np.ndarray:
    """Scores of the measured compounds in cross-validation: K00 highest."""
    return np.linspace(0.9, 0.1, 12).astype(np.float32)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder as the steps before leave it. In the final scores K23 is highest, K00 lowest."""
    folder = tmp_path_factory.mktemp("gallery")
    run, keys = folder / "run", np.array([f"K{i:02d}" for i in range(N)], object)
    run.mkdir()
    write_views(folder)
    table = wells()
    write_table(run / "checks" / "cells.parquet", table.drop(columns="compound"))
    write_table(run / "wells.parquet", table.loc[table["compound"] != "", ["compound", "plate", "well"]])
    write_table(run / "compounds.parquet", pd.DataFrame({"compound": keys, "compound_id": "id " + keys}))
    active = np.array([1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1], np.float32)
    Y = sparse.csr_matrix((active, (np.arange(12), np.zeros(12, int))), shape=(N, 1))
    tasks = pd.DataFrame({"task": [TASK], "assay": ["a"], "kind": "threshold", "threshold": 6.0})
    labels = Labels(Y, pd.DataFrame({"compound": keys}), tasks)
    labels.save(run / "labels.parquet")
    cross = sparse.csr_matrix(held_out()[:, None])
    scored = Predictions(cross, keys[:12], [TASK], "m", fold=np.arange(12, dtype=np.int32) % 3)
    for method in (FOREST, GAPNET):
        path = run / "splits" / "series" / "predictions" / f"{method['method']}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        scored.save(path)
    (run / "predictions").mkdir()
    final = np.linspace(0, 1, N, dtype=np.float32)
    Predictions(final[:, None], keys, [TASK], "m").save(run / "predictions" / "final.parquet")
    hits = pd.DataFrame({"compound": keys[:11:-1], "score": final[:11:-1], "rank": np.arange(1, 13), "picked": True})
    write_table(run / "hits" / slug(TASK) / "hits.parquet", hits.assign(picked=hits["rank"] != 2))
    store = open_store(run / "images" / "store")
    data, _ = view_rows(pd.DataFrame({"Metadata_compound": keys}), pd.read_parquet(run / "wells.parquet"), store)
    model = find_model("gapnet")(epochs=1, batch=16, network={"units": 16}, crop=[28, 24])
    model.fit(data, labels, seed=1).save(run / "models" / "final" / "model")
    return run


def make(
    folder: Path, plan: dict[str, Any], *, shown: bool = True, simulated: bool = False, anew: bool = False
) -> pd.DataFrame:
    """Do the step on an open run; return the table of pictures."""
    if anew:
        shutil.rmtree(folder / "stamps", ignore_errors=True)
    config = Config(out=str(folder), simulated=simulated, jobs=1, hits=HitsConfig(gallery=shown))
    study = Study(Run(folder), config)
    for step in (f"hits/{TASK}", f"gather/series/{plan['method']}"):
        study.run.step(step, lambda: None, outputs=[])
    step_gallery(study, {**plan, "tasks": [TASK]}, TASK)
    path = folder / "hits" / slug(TASK) / "gallery" / "gallery.csv"
    return pd.read_csv(path, keep_default_na=False, dtype={"site": str}) if path.exists() else pd.DataFrame()


def picture(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "hits" / slug(TASK) / "gallery" / name).convert("L"), float)


def test_examples_are_the_ends_of_the_held_out_scores(stored):
    table = make(stored, FOREST)
    ends = table[table["part"].str.startswith("predicted")]
    assert ends["compound"].tolist() == ["K00", "K01", "K02", "K03", "K11", "K10", "K09", "K08"]
    assert ends["label"].tolist() == ["active", "active", "inactive", "active", "active", *["inactive"] * 3]
    assert ends["verdict"].tolist() == ["right", "right", "wrong", "right", "wrong", "right", "right", "right"]
    np.testing.assert_allclose(ends["score"].astype(float), held_out()[[0, 1, 2, 3, 11, 10, 9, 8]], atol=1e-6)
    assert ends["compound_id"].tolist() == ("id " + ends["compound"]).tolist()
    assert not (table["part"] == "evidence").any()  # the picks follow no network on views


def test_pictures_show_what_the_table_says(stored):
    table = make(stored, FOREST)
    assert sorted(table["file"]) == sorted(p.name for p in stored.glob("hits/*/gallery/*.jpg"))
    for row in table.to_dict("records"):
        seen = (picture(stored, row["file"]).mean(axis=1) > 60).sum()
        assert seen == pytest.approx(bright_rows(row["compound"], 1), abs=1), row


def test_the_montage_goes_evenly_down_the_final_score(stored):
    montage = make(stored, FOREST).query("part == 'montage'")
    number = montage["compound"].str[1:].astype(int).to_numpy()
    assert len(number) == 18
    assert (number[0], number[-1]) == (23, 0)
    assert set(-np.diff(number)) == {1, 2}
    np.testing.assert_allclose(montage["score"].astype(float), number / 23, atol=1e-6)
    assert (montage["label"].eq("") == (number >= 12)).all()


def test_controls_are_typical_ones_of_the_plates_shown(stored):
    controls = make(stored, FOREST).query("part == 'control'")
    assert controls[["plate", "well"]].to_numpy().tolist() == [["P1", "C05"], ["P1", "C04"]]  # examples are all on P1


def test_rejected_views_are_not_shown(stored):
    flags = [{"view": f"P1/A01/{site}", "rejected": site == 1, "reason": "blurred"} for site in (1, 2)]
    flags += [{"view": f"P1/A02/{site}", "rejected": True, "reason": "blurred"} for site in (1, 2)]
    path = stored / "images" / "P1" / "flags.csv"
    write_table(path, pd.DataFrame(flags))
    try:
        table = make(stored, FOREST, anew=True).query("part == 'predicted active'")
    finally:
        path.unlink()
        (stored / "hits" / slug(TASK) / "gallery" / "gallery.csv").unlink()
    assert table["compound"].tolist() == ["K00", "K02", "K03"]
    assert table["site"].tolist() == ["2", "1", "1"]


def test_evidence_is_of_picks_at_their_best_view(stored):
    table = make(stored, GAPNET)
    shown = table.query("part == 'evidence'").reset_index(drop=True)
    assert shown["compound"].tolist() == ["K23", "K21", "K20", "K19", "K18", "K17"]  # K22 was not picked
    model: Any = find_model("gapnet").load(stored / "models" / "final" / "model")
    store = open_store(stored / "images" / "store")
    data, _ = view_rows(
        pd.DataFrame({"Metadata_compound": shown["compound"]}), pd.read_parquet(stored / "wells.parquet"), store
    )
    scores = model.view_scores(data, TASK).reshape(-1, 2)
    assert shown["site"].astype(int).tolist() == (scores.argmax(axis=1) + 1).tolist()
    np.testing.assert_allclose(shown["view_score"].astype(float), scores.max(axis=1), atol=1e-6)
    for row in shown.to_dict("records"):
        pixels = picture(stored, row["file"])
        assert pixels.shape == (28, 24 + 4 + 24)  # what the network sees is the middle of the view
        left = (pixels[:, :20].mean(axis=1) > 60).sum()
        assert left == pytest.approx(bright_rows(row["compound"], int(row["site"])) - 2, abs=2)


def test_evidence_colours_grey_where_it_is():
    grey = Image.new("RGB", (40, 20), (90, 90, 90))
    bright = np.zeros((10, 20), np.float32)
    bright[:, 14:] = 1
    both = np.asarray(gallery._beside(grey, bright)).astype(int)
    assert both.shape == (20, 84, 3)
    assert (both[:, :40] == 90).all()
    assert (np.ptp(both[:, 44:64], axis=2) == 0).all()  # no evidence, no colour
    assert (np.ptp(both[:, 76:], axis=2) > 80).all()


def test_it_is_done_once_and_can_be_switched_off(stored):
    make(stored, FOREST)
    path = stored / "hits" / slug(TASK) / "gallery" / "gallery.csv"
    before = path.stat().st_mtime_ns
    make(stored, FOREST)
    assert path.stat().st_mtime_ns == before
    simulated = make(stored, FOREST, simulated=True)
    assert simulated["file"].str.startswith("SIMULATED-").all()
    assert {p.name for p in path.parent.glob("*.jpg")} == set(simulated["file"])  # nothing of the other run is left
    assert make(stored, FOREST, shown=False).empty
    assert not path.parent.exists()


def test_a_damaged_view_costs_one_picture(stored, caplog):
    chunk = stored / "images" / "store" / "plates.zarr" / "P1" / "c.0.0.0.0"
    kept = chunk.read_bytes()
    chunk.write_bytes(kept[:20])
    try:
        table = make(stored, FOREST, anew=True)
    finally:
        chunk.write_bytes(kept)
        (stored / "hits" / slug(TASK) / "gallery" / "gallery.csv").unlink()  # to be made again with that view
    assert "K00" not in set(table["compound"])
    assert {"K01", "K02", "K11"} < set(table["compound"])
    assert "View 0 of the store" in caplog.text


def test_thumbnails_stand_in_for_a_store(stored, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(stored, run, ignore=shutil.ignore_patterns("store", "stamps", "gallery"))
    assert make(run, FOREST).empty  # neither store nor thumbnails
    for plate, own in wells().groupby("plate"):
        rows = []
        for well in own.to_dict("records"):
            pixels = np.full((SIDE, SIDE), 20, np.uint8)
            pixels[: bright_rows(well["compound"], 1)] = 250
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            place = {"Metadata_Plate": plate, "Metadata_Well": well["well"], "Metadata_Site": "1"}
            rows += [{**place, "channel": c, "png": buffer.getvalue()} for c in ("DNA", "composite")]
        write_table(run / "images" / slug(str(plate)) / "thumbnails.parquet", pd.DataFrame(rows))
    table = make(run, FOREST)
    assert table["part"].value_counts().to_dict() == {
        "montage": 18, "predicted active": 4, "predicted inactive": 4, "control": 2,
    }  # fmt: skip
    for row in table.to_dict("records"):
        seen = (picture(run, row["file"]).mean(axis=1) > 60).sum()
        assert seen == pytest.approx(bright_rows(row["compound"], 1), abs=1), row


def test_a_task_of_values_has_a_montage_with_values(stored, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(stored, run, ignore=shutil.ignore_patterns("stamps", "gallery"))
    labels = Labels.load(run / "labels.parquet")
    Y = labels.Y.copy()
    Y.data[:] = 6.25
    replace(labels, Y=Y, tasks=labels.tasks.assign(kind="value", threshold=np.nan)).save(run / "labels.parquet")
    table = make(run, FOREST)
    assert set(table["part"]) == {"montage", "control"}
    assert set(table["label"]) == {"", "6.25"}


def test_no_picture_is_large(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (400, 804, 3), np.uint8)
    gallery._write(tmp_path / "p.jpg", Image.fromarray(pixels))
    assert 20_000 < (tmp_path / "p.jpg").stat().st_size <= 200_000
