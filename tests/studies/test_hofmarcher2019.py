"""The benchmark as one command, on files in the published form: views, index, label matrix, three splits."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import io, sparse

from phenohit.cli import main
from phenohit.config import ActivitySource, Config, ImageSource, SplitConfig
from phenohit.data.labels import Labels
from phenohit.errors import ColumnError, ConfigError, FileError, PlateError
from phenohit.evaluate.splits import TEST, TRAIN, VALID, Folds
from phenohit.files import read_table
from phenohit.images.store import open_store
from phenohit.imaging import MeasureConfig
from phenohit.models import find_model
from phenohit.models.vision import PRESETS, RELEASED, make
from phenohit.models.vision_count import count
from phenohit.studies.hofmarcher2019 import hofmarcher2019, presets, published_files
from phenohit.studies.hofmarcher2019_files import platemaps_of_index, tasks_of_index
from phenohit.studies.hofmarcher2019_paper import COSTS, FIGURE_4, P_VALUES, RESULTS
from phenohit.studies.hofmarcher2019_tables import NETWORKS, costs, gapnet_against_fnn, pairs, performance

# --- settings ---------------------------------------------------------------------------------


def test_what_is_left_open_is_set_as_in_the_paper_and_what_is_said_stands():
    filled = presets(Config())
    (split,) = filled.splits
    assert (split.kind, split.folds, split.repeats, split.fractions) == ("compound", 1, 3, (0.7, 0.1, 0.2))
    assert set(filled.models) == set(RESULTS) - {"sccnn"}
    crops = presets(Config(images=ImageSource(measure=MeasureConfig(crops=96))))
    assert set(crops.models) == set(RESULTS)
    for name, settings in crops.models.items():
        made = find_model(name)(**settings).settings
        preset = PRESETS["fnn" if name == "network" else name]
        for key in ("learning_rate", "momentum", "weight_decay", "clip", "batch", "epochs"):
            assert getattr(made, key) == getattr(preset, key), (name, key)
        if name != "network":
            assert (made.flips, made.rotations, made.select) == (False, False, "auroc")
        else:
            assert (made.layers, made.units, made.dropout_schedule, made.patience) == (3, 2048, False, 0)
    own = Config(splits=[SplitConfig(folds=4)], models={"gapnet": {"epochs": 2}})
    assert presets(own) == own


def test_the_released_code_differs_where_it_says():
    config = Config(images=ImageSource(measure=MeasureConfig(crops=96)))
    paper, released = presets(config).models, presets(config, "released").models
    assert {name for name in paper if paper[name] != released[name]} == set(RELEASED) - {"fnn"} | {"network"}
    made = {name: find_model(name)(**released[name]).settings for name in ("sccnn", "network")}
    assert (made["sccnn"].momentum, made["sccnn"].subset) == (0.9, 1.0)
    assert (made["network"].learning_rate, made["network"].momentum, made["network"].epochs) == (0.01, 0.9, 100)
    own = presets(replace(config, models={"network": {"epochs": 3}, "gapnet": {}}), "released").models
    assert (own["network"]["epochs"], own["network"]["learning_rate"], own["gapnet"]["flips"]) == (3, 0.01, False)
    with pytest.raises(ConfigError, match=r"Expected paper or released\. Nearest: released"):
        presets(config, "release")


def test_printed_numbers_fit_together():
    assert len(P_VALUES) == 21  # every pair of seven methods once, the better one first
    order = list(RESULTS)
    assert all(order.index(a) < order.index(b) for a, b in P_VALUES)
    assert FIGURE_4["better"] + FIGURE_4["worse"] + FIGURE_4["same"] == 209
    assert all(r.above[0] < r.above[1] < r.above[2] for r in RESULTS.values())


# --- published files --------------------------------------------------------------------------

HEADS = ["O", "N", "S", "Cl", "Br", "F", "C#N", "C(=O)O"]
SMILES = ["C" * n + head for head in HEADS for n in range(3, 8)]
HANDS = ["C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"]
H, W = 40, 44


def place(i: int) -> tuple[str, str]:
    return ("24294", "24295")[i % 2], f"{'ABCDEFGH'[i // 12]}{i % 12 + 1:02d}"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Write files in the form of hti-cnn: npz, index, splits and labels, with simulated content."""
    from phenohit.chem.standardise import standardise

    folder, rng = tmp_path_factory.mktemp("hti-cnn"), np.random.default_rng(0)
    compounds = [*SMILES, *HANDS]
    n = len(compounds)
    active = rng.random((n, 3)) < 0.5
    (folder / "npzs").mkdir()
    rows, features = [], []
    for i, smiles in enumerate(compounds):
        plate, well = place(i)
        for site in (1, 2):
            pixels = rng.integers(1, 255, (H, W, 5), dtype=np.uint8)
            pixels[..., :3][:, :, ~active[i]] //= np.uint8(8)
            pixels[0, 0] = (i, site, 3, 4, 5)
            np.savez_compressed(folder / "npzs" / f"{plate}-{well}-{site}.npz", sample=pixels)
            rows.append({"PLATE_ID": plate, "WELL_POSITION": well, "SITE": site,
                         "SAMPLE_KEY": f"{plate}-{well}-{site}", "SMILES": smiles, "ROW_NR_LABEL_MAT": i})  # fmt: skip
        features.append({"Metadata_Plate": plate, "Metadata_Well": well.lower(),
                         **dict(zip("abcd", rng.normal(size=4) + np.append(active[i], 0), strict=True))})  # fmt: skip
    index = pd.DataFrame(rows)
    pd.DataFrame(features).to_csv(folder / "wells.csv", index=False)
    for repeat in (1, 2, 3):
        part = rng.permutation(np.repeat(["train", "val", "test"], [n - 16, 4, 12]))
        part[-2:] = ("train", "test")  # both hands of alanine
        part[5] = "" if repeat > 1 else part[5]
        for name in ("train", "val", "test"):
            own = index[part[index["ROW_NR_LABEL_MAT"]] == name]
            if name == "test":  # a compound whose images were not fetched
                own = pd.concat(
                    [own, own.iloc[:1].assign(PLATE_ID="24296", SAMPLE_KEY="24296-A01-1", SMILES="CCCCCCCC")]
                )
            own.to_csv(folder / f"datasplit{repeat}-{name}.csv", index=False)
    matrix = sparse.coo_matrix(np.where(rng.random((n, 3)) < 0.9, 2 * active.astype(int) - 1, 0))
    io.mmwrite(folder / "label-matrix.mtx", matrix)
    keys = standardise(compounds)["inchikey"]
    pd.DataFrame({"INDEX": range(n), "INCHIKEY": keys}).to_csv(folder / "row-compound-index.csv", index=False)
    pd.DataFrame({"ASSAY_ID": [600885, 737822, 600885]}).to_csv(folder / "column-assay-index.csv", index=False)
    return folder


def test_an_index_of_views_becomes_plate_maps(published, tmp_path):
    platemaps_of_index(str(published / "datasplit1-*.csv"), tmp_path)
    assert set(pd.read_csv(tmp_path / "barcode_platemap.csv", dtype=str)["Assay_Plate_Barcode"]) == {
        "24294",
        "24295",
        "24296",
    }
    maps = [pd.read_csv(tmp_path / "platemap" / f"{p}.csv") for p in ("24294", "24295")]
    assert pd.read_csv(tmp_path / "platemap" / "24296.csv")["smiles"].tolist() == ["CCCCCCCC"]
    found = {
        (p, r.well_position): r.smiles for p, m in zip(("24294", "24295"), maps, strict=True) for r in m.itertuples()
    }
    assert found == {place(i): smiles for i, smiles in enumerate([*SMILES, *HANDS])}
    table = pd.read_csv(published / "datasplit1-test.csv", dtype=str)
    keyed = table[["SAMPLE_KEY", "SMILES"]]
    keyed.to_csv(tmp_path / "keys.csv", index=False)
    platemaps_of_index(str(tmp_path / "keys.csv"), tmp_path / "again")
    again = pd.read_csv(tmp_path / "again" / "platemap" / f"{table['PLATE_ID'][0]}.csv")
    assert again["well_position"][0] == table["WELL_POSITION"][0]
    pd.concat([keyed, keyed.assign(SMILES="CCO")]).to_csv(tmp_path / "twice.csv", index=False)
    n = len(table.drop_duplicates("ROW_NR_LABEL_MAT")) + 1
    with pytest.raises(PlateError, match=f"puts different compounds into {n} wells"):
        platemaps_of_index(str(tmp_path / "twice.csv"), tmp_path / "twice")
    keyed[["SAMPLE_KEY"]].to_csv(tmp_path / "bare.csv", index=False)
    with pytest.raises(ColumnError, match="is no index of views: its columns are 'SAMPLE_KEY'"):
        platemaps_of_index(str(tmp_path / "bare.csv"), tmp_path / "bare")
    with pytest.raises(FileError, match="No index is called"):
        platemaps_of_index(str(tmp_path / "none-*.csv"), tmp_path / "none")


def test_an_assay_that_comes_again_gets_a_name_of_its_own(published, tmp_path):
    path = tasks_of_index(str(published / "column-assay-index.csv"), tmp_path / "tasks.csv")
    table = pd.read_csv(path, dtype=str)
    assert table["task"].tolist() == ["600885", "737822", "600885 (2)"]
    assert table["ASSAY_ID"].tolist() == ["600885", "737822", "600885"]
    assert tasks_of_index(str(path), tmp_path / "again.csv") == path
    assert not (tmp_path / "again.csv").exists()
    # The activities that need no such table stay as they are.
    config = Config(activities=[ActivitySource(path="a.csv"), ActivitySource(path="m.mtx", format="matrix_market")])
    assert published_files(config) == config


# --- the whole --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(published, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hofmarcher2019")
    config = {
        "name": "SIMULATED views in the published form",
        "out": str(folder / "run"),
        "simulated": True,
        "images": {"path": str(published / "npzs"), "layout": "npz", "store": True},
        "profiles": {"path": str(published / "wells.csv"), "unit": "well"},
        "activities": [{
            "path": str(published / "label-matrix.mtx"), "format": "matrix_market", "kind": "plus_minus",
            "inchikey": "INCHIKEY", "rows": str(published / "row-compound-index.csv"),
            "tasks": str(published / "column-assay-index.csv"),
        }],
        "labels": {"min_active": 5, "min_inactive": 5},
        "splits": [{"name": "published", "kind": "given", "path": str(published / "datasplit{repeat}-{part}.csv")}],
        "models": {"gapnet": {"epochs": 1, "batch": 16, "network": {"units": 8}}, "network": {"epochs": 2, "units": 8}},
        "chemistry": False,
        "evaluate": {"bootstrap": 20, "chance": 20, "roc_permutations": 50},
        "hits": {"n": 2, "best": 1},
        "jobs": 1,
    }  # fmt: skip
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    try:
        assert main(["hofmarcher2019", str(folder / "c.yaml"), "--index", str(published / "datasplit1-*.csv")]) == 0
    finally:
        logging.getLogger("phenohit").setLevel(logging.NOTSET)
    return folder / "run"


def test_views_become_a_store_with_their_pixels(study, published):
    store = open_store(study / "images" / "store")
    assert store.shapes == {"24294": (5, H, W), "24295": (5, H, W)}
    names = store.views.names().tolist()
    for i, site in ((0, 1), (7, 2), (41, 1)):
        plate, well = place(i)
        sample = np.load(published / "npzs" / f"{plate}-{well}-{site}.npz")["sample"]
        (view,) = store.read([names.index(f"{plate}/{well}/{site}")])
        np.testing.assert_array_equal(view, np.moveaxis(sample, -1, 0))
        assert view[:, 0, 0].tolist() == [i, site, 3, 4, 5]


def test_rows_labels_and_folds_are_those_of_the_files(study, published):
    wells = read_table(study / "wells.parquet")[0]
    keys = pd.read_csv(published / "row-compound-index.csv")["INCHIKEY"]
    assert dict(zip(zip(wells["plate"], wells["well"], strict=True), wells["compound"], strict=True)) == {
        place(i): key for i, key in enumerate(keys)
    }
    labels = Labels.load(study / "labels.parquet")
    assert labels.tasks["task"].tolist() == ["600885", "737822", "600885 (2)"]
    matrix = np.asarray(io.mmread(published / "label-matrix.mtx").todense())
    at = pd.Index(labels.compounds["compound"]).get_indexer(keys)
    for j in range(3):
        known = matrix[:, j] != 0
        np.testing.assert_array_equal(labels.Y[at][:, [j]].toarray().ravel()[known], (matrix[known, j] + 1) / 2)
    assert labels.Y.nnz == (matrix != 0).sum()
    folds = Folds.load(study / "splits" / "published" / "folds.parquet")
    assert folds.names == ["1", "2", "3"]
    smiles = [*SMILES, *HANDS]
    for r, repeat in enumerate(folds.names):
        for name, role in (("train", TRAIN), ("val", VALID), ("test", TEST)):
            table = pd.read_csv(published / f"datasplit{repeat}-{name}.csv")
            members = {keys[smiles.index(s)] for s in table["SMILES"] if s in smiles}
            assert set(folds.rows["compound"][folds.part[:, r] == role]) == members
    lost = pd.read_csv(study / "splits" / "published" / "folds.left_out.csv")
    assert lost["id"].tolist() == ["CCCCCCCC"] * 3 + [keys[5]]
    assert "(2 of 3 repeats)" in lost["reason"].iloc[-1]
    dropped = pd.read_csv(study / "dropped.csv")
    assert dropped.loc[dropped["stage"] == "split", "id"].tolist() == lost["id"].tolist()
    leaks = pd.read_csv(study / "splits" / "published" / "leaks.csv")
    failed = leaks[leaks["passed"].astype(str) == "False"]
    assert set(failed["check"]) == {"shared skeleton"}  # both hands of alanine, as published; the run went on
    assert (study / "report.html").exists()


def test_tables_hold_what_the_run_found_beside_the_paper(study):
    folder, split = study / "hofmarcher2019", study / "splits" / "published"
    first = pd.read_csv(folder / "table1.csv").set_index("method")
    metrics = read_table(split / "metrics.parquet")[0]
    summary = json.loads((split / "summary.json").read_text())
    for method in ("gapnet-views", "network-profiles", "rate-base"):
        own = metrics[metrics["method"] == method]
        assert first.loc[method, "auroc"] == pytest.approx(own["auroc"].mean())
        assert first.loc[method, "auroc_sd"] == pytest.approx(np.std(own["auroc"].dropna(), ddof=1))
        assert first.loc[method, "f1"] == pytest.approx(own["f1"].mean(), nan_ok=True)
        for level in ("0.9", "0.8", "0.7"):
            assert first.loc[method, f"above_{level}"] == (own["auroc"] > float(level)).sum()
            assert first.loc[method, f"above_{level}_chance"] == summary[method]["above"][level]["expected"]
    assert first.loc["gapnet-views", "paper_auroc"] == 0.725
    assert first.loc["resnet101-views", "tasks"] == 0
    assert np.isnan(first.loc["resnet101-views", "auroc"])
    second = pd.read_csv(folder / "table2.csv").set_index(["method", "other"])
    compared = pd.read_csv(split / "compare.csv").set_index(["method", "other"])
    assert len(second) == 21
    pair = ("gapnet-views", "network-profiles")
    assert second.loc[pair, "paper_p_value"] == 3.23e-8
    assert second.loc[pair, "mean_difference"] == pytest.approx(compared.loc[pair, "mean_difference"])
    tests = pd.read_csv(folder / "gapnet_against_fnn.csv")
    assert len(tests) == 3
    assert tests["repeat"].eq(0).all()  # the first of three, as in the paper
    text = (folder / "study.md").read_text()
    for said in (
        "SIMULATED",
        "| *ResNet, the paper* | *209* | *0.731 ± 0.19* |",
        "| *the paper* | *29* | *3* | *177* |",
    ):
        assert said in text


def test_costs_are_those_of_the_paper_where_they_can_be(study):
    third = pd.read_csv(study / "hofmarcher2019" / "table3.csv").set_index("method")
    for model, printed in COSTS.items():
        row = third.loc[NETWORKS[model]]
        assert row["published_parameters"] == printed.parameters == row["paper_parameters"]
        assert 0.97 < row["published_gmac"] / printed.gmac < 1  # the paper counts additions too, at 696 pixels
    measured = third.loc["gapnet-views"]
    here = make("gapnet", 5, 3, (H, W), {"units": 8})
    assert (measured["parameters"], 1e9 * measured["gmac"]) == pytest.approx(count(here, (5, H, W)))
    assert measured["seconds_epoch"] > 0
    assert np.isnan(third.loc["mcnn-views", "seconds_epoch"])


def test_the_page_on_image_models_has_these_numbers(study):
    third = pd.read_csv(study / "hofmarcher2019" / "table3.csv").set_index("method")
    page = (Path(__file__).parents[2] / "docs" / "image-models.md").read_text()
    for model in set(RESULTS) - {"network"}:
        (line,) = [x for x in page.splitlines() if x.startswith(f"| `{model}` |")]
        cells = [c.strip() for c in line.strip("|").split("|")]
        row = third.loc[NETWORKS[model]]
        assert cells[3:5] == [f"{row['published_parameters']:,}", f"{row['published_gmac']:.3f}"]
        preset = PRESETS[model]
        assert cells[5:7] == [f"{preset.learning_rate:g}", f"{preset.batch:,}"]


def test_tables_do_without_what_was_not_run(study, tmp_path):
    split = study / "splits" / "published"
    for name in ("metrics.parquet", "summary.json", "compare.csv"):
        (tmp_path / name).write_bytes((split / name).read_bytes())
    assert len(performance(tmp_path)) == len(performance(split))
    assert pairs(tmp_path)["p_value"].isna().all()  # three tasks are too few
    assert costs(tmp_path)["gmac"].isna().all()
    assert gapnet_against_fnn(study, tmp_path) is None


def test_settings_are_checked_before_anything_is_done(tmp_path):
    with pytest.raises(ConfigError, match="--settings is 'both'"):
        hofmarcher2019(Config(out=str(tmp_path / "none")), settings="both")
    assert not (tmp_path / "none").exists()
