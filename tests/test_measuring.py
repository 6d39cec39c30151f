"""From SIMULATED images to a run: `phenohit images` makes wells, and the steps after it take them as profiles."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from phenohit.cli import main
from phenohit.config import Config, ImageSource, ProfileSource
from phenohit.data.profiles import Profiles
from phenohit.data.simulate_settings import SimulateSettings
from phenohit.errors import ConfigError
from phenohit.files import read_json
from phenohit.measuring import with_images
from phenohit.simulate import simulate

MICRO = SimulateSettings(
    n_compounds=8, plate_wells=96, images=2, image_size=96, n_replicates=1, dose_series_share=0.0, bad_views=0.15
)


pytestmark = pytest.mark.xdist_group("measuring")  # what all of them need is made once


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screen")
    simulate(folder, MICRO)
    config = yaml.safe_load((folder / "simulated.yaml").read_text()) | {"out": str(folder / "run"), "jobs": 1}
    config["images"]["measure"] = {"features": "fast", "thumbnails": False}
    config["images"]["segment"] |= {"diameter": 19.0, "border": "keep"}
    config["workers"] = {"kind": "threads"}
    (folder / "screen.yaml").write_text(yaml.safe_dump(config))
    assert main(["images", str(folder / "screen.yaml")]) == 0
    return folder


def test_wells_are_the_medians_of_their_cells(screen):
    wells = Profiles.load(screen / "run" / "images" / "wells.parquet")
    (plate,) = (p for p in (screen / "run" / "images").iterdir() if (p / "cells.parquet").exists())
    cells = pd.read_parquet(plate / "cells.parquet")
    views = pd.read_parquet(plate / "views.parquet")
    assert not [f for f in wells.features if "_Location_" in f]  # where a cell lies is no biology
    for i in (0, len(wells) - 1):
        well = wells.rows.loc[i, "Metadata_Well"]
        own = cells.loc[cells["Metadata_Well"] == well, wells.features].to_numpy(np.float64)
        np.testing.assert_allclose(wells.X[i], np.nanmedian(own, axis=0), rtol=1e-5)
        counted = views.loc[views["Metadata_Well"] == well, "cells"].dropna()
        assert float(wells.rows.loc[i, "Metadata_cell_count"]) == pytest.approx(counted.mean(), rel=1e-4)
        assert int(wells.rows.loc[i, "Metadata_n_views"]) == len(counted)
    every = set(views["Metadata_Well"])
    lost = pd.read_csv(screen / "run" / "dropped" / "images.csv")
    named = set(lost.loc[lost["what"] == "well", "id"].str.split(" ").str[-1])
    assert every == set(wells.rows["Metadata_Well"]) | named
    assert not named & set(wells.rows["Metadata_Well"])


def test_bad_views_are_found_and_good_ones_kept(screen):
    truth = pd.read_csv(screen / "simulated_images.csv", dtype=str)
    views = pd.concat(pd.read_parquet(p) for p in (screen / "run" / "images").glob("*/views.parquet"))
    key = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    both = truth.merge(views, on=key, validate="one_to_one")
    assert len(both) == len(truth)
    left_out = both["cells"].isna()
    assert left_out[both["fault"].isin(["empty", "dark", "saturated"])].all()
    alive = both["n_nuclei"].astype(int) >= 2  # where the compound killed all cells there is nothing to measure
    assert not left_out[(both["fault"] == "none") & alive].any()


def test_a_second_call_does_nothing_and_a_changed_image_is_measured_again(screen, caplog):
    out = screen / "run"
    before = {p: p.stat().st_mtime_ns for p in out.glob("images/*/cells.parquet")}
    assert main(["images", str(screen / "screen.yaml")]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    image = next((screen / "simulated_images").rglob("*.tif"))
    image.touch()
    assert main(["images", str(screen / "screen.yaml")]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} != before


def test_the_run_goes_on_with_wells_from_images(screen):
    assert main(["data", str(screen / "screen.yaml")]) == 0
    steps = read_json(screen / "run" / "manifest.json")["steps"]
    assert steps["data"]["compounds"] > 0
    assert steps["data"]["features"] > 300
    assert (screen / "run" / "steps" / "steps.json").exists()  # raw features were normalised
    resolved = screen / "run" / "config.yaml"
    assert main(["data", str(resolved)]) == 0  # a run's own config can be run again


def test_profiles_beside_images_are_refused():
    config = Config(images=ImageSource(path="images"), profiles=ProfileSource(path="table.parquet"))
    with pytest.raises(ConfigError, match=r"table\.parquet"):
        with_images(config)


def test_raw_features_are_normalised_to_controls_where_there_are_any():
    config = Config(images=ImageSource(path="images"))
    (step,) = with_images(config).profiles.steps
    assert (step.step, step.reference) == ("normalise", "plate")
    named = replace(config, profiles=ProfileSource(controls={"pert_type": ["negcon"]}))
    assert with_images(named).profiles.steps[0].reference == "negcon"
    assert with_images(Config()) == Config()


Change = Callable[[pd.DataFrame], pd.DataFrame]


def changed_maps(screen: Path, folder: Path, *, names: Change = lambda t: t, wells: Change = lambda t: t) -> str:
    """Copy the plate maps of the screen, its list of plates and its only map changed; return the setting."""
    maps = Path(shutil.copytree(screen / "simulated_platemaps", folder / "maps"))
    for path, change in [(maps / "barcode_platemap.csv", names), (next((maps / "platemap").iterdir()), wells)]:
        separator = "," if path.suffix == ".csv" else "\t"
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
        change(table).to_csv(path, sep=separator, index=False)
    return f"--profiles.platemaps={maps}"


def beyond(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(well_position=[f"{w[0]}{int(w[1:]) + 30}" for w in table.well_position])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": lambda t: t.assign(Assay_Plate_Barcode="SIM-P01")}, ["None of the 1 plates 'SIM-P001'", "SIM-P01"]),
        ({"names": lambda t: t.assign(Plate_Map_Name="M7")}, ["plate map 'M7'", "Put it there"]),
        ({"wells": beyond}, ["map of 'SIM-P001' does not fit", "plate of 96, the map's of one of 1536"]),
        ({"wells": lambda t: pd.concat([t, t.iloc[:1].assign(pert_type="trt")])}, ["more than once", "Keep one row"]),
    ],
)
def test_maps_of_other_plates_are_refused_before_anything_is_measured(screen, tmp_path, capsys, change, words):
    maps = changed_maps(screen, tmp_path, **change)
    assert main(["images", str(screen / "screen.yaml"), maps, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert not list((tmp_path / "run" / "images").glob("*/"))


def test_wells_that_only_images_or_only_maps_have_are_listed(screen, tmp_path, capsys):
    kept = Profiles.load(screen / "run" / "images" / "wells.parquet").rows
    treated = pd.read_csv(screen / "simulated_platemaps" / "platemap" / "SIM-M001.txt", sep="\t", dtype=str)
    treated = treated.loc[treated["pert_type"] == "trt", "well_position"]
    gone = next(w for w in kept["Metadata_Well"] if w in set(treated))
    free = next(w for w in (f"{r}05" for r in "ABCDEFGH") if w not in set(kept["Metadata_Well"]))

    def change(table: pd.DataFrame) -> pd.DataFrame:
        rest = table[~table["well_position"].isin([gone, free])]
        return pd.concat([rest, table.iloc[:1].assign(well_position=free)])

    maps = changed_maps(screen, tmp_path, wells=change)
    run = Path(shutil.copytree(screen / "run", tmp_path / "run"))
    assert main(["data", str(screen / "screen.yaml"), maps, "--out", str(run)]) == 0
    lost = pd.read_csv(run / "dropped" / "data.csv")
    of_map = lost[lost["stage"] == "plate maps"].set_index("id")["reason"]
    assert of_map[f"SIM-P001 {gone}"] == "not in its plate map; kept without what the map says"
    assert "wells of its map have no row" in of_map["SIM-P001"]
    assert f"'{free}'" in of_map["SIM-P001"]
    unknown = lost[lost["stage"] == "identify compounds"]
    assert unknown["id"].str.endswith(f"SIM-P001 {gone}").sum() == 1
    assert f"1 wells are not in the map of their plate ('SIM-P001 {gone}')" in capsys.readouterr().err
