from __future__ import annotations

import gzip
import logging
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phenohit.data.profiles import Profiles
from phenohit.data.read import read_profiles
from phenohit.errors import ColumnError, FileError, PlateError
from phenohit.profiles import cells, objects
from phenohit.profiles.cellprofiler import read_backend, read_cellprofiler
from phenohit.sources import ProfileSource

FEATURES = ["AreaShape_Area", "Intensity_MeanIntensity_DNA", "Texture_Entropy_ER_3_00_256"]
PARTS = ("Cells", "Cytoplasm", "Nuclei")


def simulated_plate(n_wells: int = 6, n_sites: int = 2, mean_cells: int = 8, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Tables as CellProfiler writes them to CSV, all images of a plate in each."""
    rng = np.random.default_rng(seed)
    image = pd.DataFrame({"ImageNumber": np.arange(1, n_wells * n_sites + 1)})
    well = np.repeat(np.arange(n_wells), n_sites)
    image["Metadata_Plate"] = "1053597806"
    image["Metadata_Well"] = [f"{'ABCDEFGH'[w // 12]}{w % 12 + 1:02d}" for w in well]
    image["Metadata_Site"] = np.tile(np.arange(1, n_sites + 1), n_wells)
    image["Metadata_dose"] = well / 2
    image["ImageQuality_Focus_DNA"] = rng.normal(size=len(image))
    image["FileName_DNA"] = "x.tif"
    n = rng.poisson(mean_cells, len(image)) + 1
    number = np.concatenate([np.arange(1, k + 1) for k in n])
    tables = {"Image": image}
    for part in PARTS:
        table = pd.DataFrame({"ImageNumber": np.repeat(image["ImageNumber"], n), "ObjectNumber": number})
        for name in FEATURES:
            table[name] = rng.normal(100, 10, len(table)).astype(np.float32)
        table["Location_Center_X"] = rng.random(len(table))
        table["Number_Object_Number"] = number
        tables[part] = table.reset_index(drop=True)
    tables["Cells"].loc[3, "Texture_Entropy_ER_3_00_256"] = np.nan
    tables["Cytoplasm"]["Parent_Cells"] = number
    # Nuclei are numbered differently from cells, as they often are.
    back = pd.DataFrame({"i": tables["Nuclei"]["ImageNumber"], "n": number}).groupby("i")["n"].transform("max") + 1
    tables["Cytoplasm"]["Parent_Nuclei"] = back - number
    tables["Cells"]["Parent_Nuclei"] = back - number
    return tables


def write_csv(folder: Path, tables: dict[str, pd.DataFrame], prefix: str = "", end: str = ".csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{prefix}{name}{end}", index=False, na_rep="nan")
    return folder


def write_sqlite(path: Path, tables: dict[str, pd.DataFrame], *, per: str = "", table_number: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        for name, table in tables.items():
            kept = ("ImageNumber", "ObjectNumber")
            out = table.rename(columns={c: c if c in kept else f"{name}_{c}" for c in table})
            if table_number:
                out.insert(0, "TableNumber", "184873719283749182734918273491827349")  # larger than 64 bits
            text = out.select_dtypes("float").columns
            out = out.astype({c: object for c in text})
            out = out.where(out.notna(), "nan")  # as cytominer-database leaves it
            out.to_sql(f"{per}{name}", connection, index=False)
    connection.close()
    return path


def joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Whole cells, straight from pandas."""
    out = tables["Cytoplasm"].add_prefix("Cytoplasm_")
    for part in ("Cells", "Nuclei"):
        keys = ["Cytoplasm_ImageNumber", f"Cytoplasm_Parent_{part}"]
        other = tables[part].add_prefix(f"{part}_")
        out = out.merge(other, left_on=keys, right_on=[f"{part}_ImageNumber", f"{part}_ObjectNumber"])
    return out.merge(tables["Image"], left_on="Cytoplasm_ImageNumber", right_on="ImageNumber")


def check(profiles: Profiles, tables: dict[str, pd.DataFrame], how: str = "median") -> None:
    names = [f"{part}_{name}" for part in PARTS for name in FEATURES]
    assert sorted(profiles.features) == sorted(names)
    expected = joined(tables).groupby("Metadata_Well")[names].agg(how)
    assert profiles.rows["Metadata_Well"].tolist() == expected.index.tolist()
    got = pd.DataFrame(profiles.X, columns=profiles.features)[names]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    counts = tables["Cells"].merge(tables["Image"], on="ImageNumber").groupby("Metadata_Well").size()
    assert profiles.rows["Metadata_cell_count"].tolist() == counts.astype(str).tolist()


def source(path: Path, **settings) -> ProfileSource:
    return ProfileSource(path=str(path), format="cellprofiler", **settings)


@pytest.mark.parametrize("form", ["csv", "gz", "prefix", "sqlite", "per", "tablenumber", "sites"])
def test_every_form_gives_the_same_wells(tmp_path, form):
    tables = simulated_plate()
    if form in ("csv", "gz", "prefix"):
        end = ".csv.gz" if form == "gz" else ".csv"
        path = write_csv(tmp_path, tables, "MyExpt_" if form == "prefix" else "", end)
    elif form == "sites":
        for _, image in tables["Image"].iterrows():
            name = f"1053597806-{image['Metadata_Well']}-{image['Metadata_Site']}"
            one = {k: t[t["ImageNumber"] == image["ImageNumber"]] for k, t in tables.items()}
            write_csv(tmp_path / name, one)
        path = tmp_path
    else:
        per = "MyExpt_Per_" if form == "per" else ""
        path = write_sqlite(tmp_path / "plate.sqlite", tables, per=per, table_number=form == "tablenumber")
    profiles, lost = read_cellprofiler(source(path))
    check(profiles, tables)
    assert set(profiles.rows["Metadata_Plate"]) == {"1053597806"}
    assert profiles.rows["Metadata_dose"].astype(float).tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert profiles.rows["Metadata_site_count"].unique().tolist() == ["2"]
    assert set(profiles.rows["Metadata_pert_type"]) == {"trt"}
    assert not lost["what"].isin(["cell", "well", "site"]).any()
    assert "Cells_Location_Center_X" in set(lost["id"])
    if path.is_dir():
        assert not [p for p in path.rglob("*") if p.name.endswith(("-wal", "-journal"))]


@pytest.mark.parametrize("form", ["csv", "sqlite"])
def test_files_too_large_to_keep_and_rows_in_any_order(tmp_path, form, monkeypatch):
    monkeypatch.setattr(objects, "_SMALL", 0)
    monkeypatch.setattr(objects, "_BLOCK", 4096)
    monkeypatch.setattr(objects, "_VALUES", 60)
    monkeypatch.setattr(cells.WellTable.__init__, "__defaults__", (500,))
    tables = simulated_plate(12, 3, 10)
    mixed = {k: t.sample(frac=1, random_state=len(k)) for k, t in tables.items() if k != "Image"}
    given = {"Image": tables["Image"], **mixed}
    path = write_csv(tmp_path, given) if form == "csv" else write_sqlite(tmp_path / "p.sqlite", given)
    profiles, _ = read_cellprofiler(source(path, cells=["mean"]))
    check(profiles, tables, "mean")


def test_statistics_and_settings(tmp_path):
    tables = simulated_plate()
    write_csv(tmp_path, tables)
    profiles, _ = read_cellprofiler(source(tmp_path, cells=["mean", "q25"], features=["Cells_*"], ignore=["*Texture*"]))
    assert profiles.features == [
        "Cells_AreaShape_Area", "Cells_Intensity_MeanIntensity_DNA",
        "Cells_AreaShape_Area__q25", "Cells_Intensity_MeanIntensity_DNA__q25",
    ]  # fmt: skip
    expected = joined(tables).groupby("Metadata_Well")["Cells_AreaShape_Area"].quantile(0.25)
    np.testing.assert_allclose(profiles.X[:, 2], expected, rtol=1e-6)


def test_objects_without_the_rest_of_their_cell_are_counted(tmp_path):
    tables = simulated_plate()
    tables["Nuclei"] = tables["Nuclei"].drop(index=[0, 1, 20])
    stray = tables["Cells"].iloc[[0, 1]].assign(ImageNumber=99)
    tables["Cells"] = pd.concat([tables["Cells"], stray], ignore_index=True)
    write_csv(tmp_path, tables)
    profiles, lost = read_cellprofiler(source(tmp_path))
    check(profiles, tables)
    lines = lost[lost["what"] == "cell"].set_index("id")["reason"]
    first = tables["Image"].set_index("ImageNumber")["Metadata_Well"]
    assert "3 objects without the other parts of their cell" in lines["1053597806 Cells"]
    assert f"{first[1]}: 2" in lines["1053597806 Cells"]
    assert "3 objects without" in lines["1053597806 Cytoplasm"]
    assert "1053597806 Nuclei" not in lines
    assert "2 objects of images that the Image table" in lines["Cells"]


def test_without_cytoplasm_and_with_nuclei_alone(tmp_path):
    tables = simulated_plate()
    write_csv(tmp_path / "two", {k: tables[k] for k in ("Image", "Cells", "Nuclei")})
    two, _ = read_cellprofiler(source(tmp_path / "two"))
    whole = joined(tables).groupby("Metadata_Well").median(numeric_only=True)
    np.testing.assert_allclose(two.X, whole[two.features], rtol=1e-6)
    write_csv(tmp_path / "one", {k: tables[k] for k in ("Image", "Nuclei")})
    one, _ = read_cellprofiler(source(tmp_path / "one"))
    np.testing.assert_allclose(one.X, whole[one.features], rtol=1e-6)
    assert len(one.features) == 3


def test_one_table_of_all_objects(tmp_path):
    tables = simulated_plate()
    whole = joined(tables)
    keep = [f"{part}_{name}" for part in PARTS for name in FEATURES]
    per_object = whole[keep].assign(
        ImageNumber=whole["Cytoplasm_ImageNumber"], ObjectNumber=whole["Cells_ObjectNumber"]
    )
    with sqlite3.connect(tmp_path / "all.db") as connection:
        tables["Image"].add_prefix("Image_").rename(columns={"Image_ImageNumber": "ImageNumber"}).to_sql(
            "Per_Image", connection, index=False
        )
        per_object.to_sql("Per_Object", connection, index=False)
    connection.close()
    profiles, _ = read_cellprofiler(source(tmp_path / "all.db"))
    check(profiles, tables)


def test_plate_and_well_from_the_path(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="phenohit")
    tables = simulated_plate(2, 2)
    for number in range(1, 5):
        one = {k: t[t["ImageNumber"] == number].copy() for k, t in tables.items()}
        well, site = one["Image"].iloc[0][["Metadata_Well", "Metadata_Site"]]
        one["Image"] = one["Image"][["ImageNumber"]]
        if number == 2:
            del one["Image"]  # a single image: its table is not needed
        write_csv(tmp_path / "batch 1" / "P-1" / "analysis" / f"P-1-{well}-{site}", one)
    profiles, _ = read_cellprofiler(source(tmp_path))
    assert profiles.rows[["Metadata_Batch", "Metadata_Plate", "Metadata_Well"]].to_numpy().tolist() == [
        ["batch 1", "P-1", "A01"], ["batch 1", "P-1", "A02"],
    ]  # fmt: skip
    np.testing.assert_allclose(
        profiles.X, joined(tables).groupby("Metadata_Well")[profiles.features].median(), rtol=1e-6
    )
    assert "plate or well of 4 of 4 images is taken from the path" in caplog.text


def test_other_names_of_columns_and_several_plates(tmp_path):
    for plate in ("P1", "P2", "Q1"):
        tables = simulated_plate(3, seed=len(plate))
        tables["Image"] = tables["Image"].rename(columns={"Metadata_Plate": "Metadata_barcode"})
        tables["Image"]["Metadata_barcode"] = plate
        tables["Image"]["Metadata_dmso"] = np.where(tables["Image"]["Metadata_Well"] == "A01", "yes", "no")
        write_csv(tmp_path / plate, tables)
    given = source(tmp_path, columns={"plate": "Metadata_barcode"}, plates=["P*"], controls={"Metadata_dmso": ["yes"]})
    profiles, lost = read_cellprofiler(given)
    assert profiles.rows["Metadata_Plate"].tolist() == ["P1"] * 3 + ["P2"] * 3
    assert profiles.rows["Metadata_pert_type"].tolist() == ["negcon", "trt", "trt"] * 2
    assert lost[lost["what"] == "plate"]["id"].tolist() == ["Q1"]


def test_the_backend_of_a_gallery(tmp_path):
    tables = simulated_plate()
    files = [("b1", p, write_sqlite(tmp_path / p / f"{p}.sqlite", tables, table_number=True)) for p in ("X", "Y")]
    profiles, _ = read_backend(source(tmp_path, min_cells=2), files)
    assert profiles.rows["Metadata_Plate"].tolist() == ["X"] * 6 + ["Y"] * 6
    assert set(profiles.rows["Metadata_Batch"]) == {"b1"}
    np.testing.assert_array_equal(profiles.X[:6], profiles.X[6:])


def test_wells_without_cells_and_runs_without_a_table(tmp_path):
    tables = simulated_plate(4, 1)
    for number in range(1, 5):
        one = {k: t[t["ImageNumber"] == number] for k, t in tables.items()}
        if number == 2:
            del one["Nuclei"]
        if number == 3:
            one = {k: t if k == "Image" else t.iloc[:0] for k, t in one.items()}
            one["Cells"] = one["Cells"][["ImageNumber", "ObjectNumber"]]
        write_csv(tmp_path / str(number), one)
    profiles, lost = read_cellprofiler(source(tmp_path))
    assert profiles.rows["Metadata_Well"].tolist() == ["A01", "A04"]
    assert lost[lost["what"] == "well"]["id"].tolist() == ["1053597806 A02", "1053597806 A03"]
    site = lost[lost["what"] == "site"]
    assert site["id"].item().endswith("2")
    assert "no table of Nuclei" in site["reason"].item()


def test_damage_names_the_file(tmp_path):
    tables = simulated_plate()
    csv = write_csv(tmp_path / "csv", tables)
    text = (csv / "Nuclei.csv").read_bytes()
    (csv / "Nuclei.csv").write_bytes(text[: len(text) // 2].rpartition(b",")[0])
    with pytest.raises(FileError, match=r"Nuclei\.csv' cannot be read.*truncated"):
        read_cellprofiler(source(csv))
    zipped = write_csv(tmp_path / "gz", tables, end=".csv.gz")
    packed = gzip.compress((zipped / "Cells.csv.gz").read_bytes())
    (zipped / "Cells.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(FileError, match=r"Cells\.csv\.gz' "):
        read_cellprofiler(source(zipped))
    database = write_sqlite(tmp_path / "p.sqlite", simulated_plate(24, 4, 30))
    whole = database.read_bytes()
    database.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"p\.sqlite' cannot be read"):
        read_cellprofiler(source(database))
    database.write_bytes(b"not a database at all" * 99)
    with pytest.raises(FileError, match=r"p\.sqlite' cannot be read \(file is not a database"):
        read_cellprofiler(source(database))
    image = write_csv(tmp_path / "image", tables) / "Image.csv"
    image.write_text(image.read_text()[:-9])
    with pytest.raises(FileError, match=r"Image\.csv' is damaged: row 12 has"):
        read_cellprofiler(source(image.parent))


@pytest.mark.parametrize("form", ["csv", "large csv", "sqlite"])
def test_text_among_numbers_is_an_error(tmp_path, form, monkeypatch):
    if form == "large csv":
        monkeypatch.setattr(objects, "_SMALL", 0)
    tables = simulated_plate(60, 1, 10)  # far enough down that it is not seen in the first rows
    tables["Cells"]["AreaShape_Area"] = tables["Cells"]["AreaShape_Area"].astype(object)
    tables["Cells"].loc[400, "AreaShape_Area"] = "broken"
    path = write_sqlite(tmp_path / "p.sqlite", tables) if form == "sqlite" else write_csv(tmp_path, tables)
    with pytest.raises(ColumnError, match=r"Area' holds text.*'broken'"):
        read_cellprofiler(source(path))


def test_mistakes_are_explained(tmp_path):
    tables = simulated_plate()
    with pytest.raises(FileError, match="does not exist"):
        read_cellprofiler(source(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="none of CellProfiler's object tables"):
        read_cellprofiler(source(tmp_path / "empty"))
    twice = {k: pd.concat([t, t]) if k != "Image" else t for k, t in tables.items()}
    with pytest.raises(ColumnError, match="share image and object number"):
        read_cellprofiler(source(write_csv(tmp_path / "twice", twice)))
    again = {k: pd.concat([t, t]) if k == "Image" else t for k, t in tables.items()}
    with pytest.raises(ColumnError, match="more than once"):
        read_cellprofiler(source(write_csv(tmp_path / "again", again)))
    bare = {**tables, "Image": tables["Image"][["ImageNumber"]]}
    with pytest.raises(ColumnError, match="images have no plate"):
        read_cellprofiler(source(write_csv(tmp_path / "bare", bare)))
    write_csv(tmp_path / "few", tables)
    with pytest.raises(PlateError, match="None of the 6 wells has 1000 cells"):
        read_cellprofiler(source(tmp_path / "few", min_cells=1000))
    with pytest.raises(FileError, match="no table of objects that is understood"):
        read_cellprofiler(source(write_sqlite(tmp_path / "x.db", {"Image": tables["Image"], "Blobs": tables["Cells"]})))


def test_real_sites_as_pandas_has_them(shared_data):
    folder = shared_data / "jump-target2-singlecell"
    profiles, lost = read_cellprofiler(source(folder, cells=["median", "sd", "q10"]))
    assert profiles.rows["Metadata_Plate"].tolist() == ["BR00121431"] * 2
    assert profiles.rows["Metadata_Well"].tolist() == ["A01", "A02"]
    assert profiles.rows["Metadata_cell_count"].tolist() == ["89", "36"]
    assert len(profiles.features) == 3 * 5604
    assert not lost["what"].isin(["cell", "well", "site"]).any()
    got = pd.DataFrame(profiles.X, columns=profiles.features)
    known = set(profiles.features)
    for row, well in enumerate(("A01", "A02")):
        for part in PARTS:  # every object is whole here, so that no join is needed
            table = pd.read_csv(folder / f"BR00121431-{well}-1_{part}.csv.gz").add_prefix(f"{part}_")
            names = [c for c in table if c in known]
            assert len(names) > 1800
            for suffix, expected in (
                ("", table[names].median()), ("__sd", table[names].std()), ("__q10", table[names].quantile(0.1)),
            ):  # fmt: skip
                here = got.loc[row, [n + suffix for n in names]].to_numpy()
                np.testing.assert_allclose(here, expected, rtol=2e-5, atol=1e-5)


def test_a_real_pipeline_without_plates(shared_data, tmp_path):
    folder = shared_data / "raw-images" / "examplehuman"
    place = tmp_path / "P-B03-1"
    place.mkdir()
    for name in ("Cells", "Cytoplasm", "Nuclei", "Image", "PH3"):
        (place / f"{name}.csv").symlink_to(folder / f"{name}.csv")
    profiles, lost = read_cellprofiler(source(tmp_path))
    assert profiles.rows["Metadata_Well"].tolist() == ["B03"]
    assert profiles.rows["Metadata_cell_count"].tolist() == ["289"]
    tables = {part: pd.read_csv(folder / f"{part}.csv") for part in PARTS}
    tables["Image"] = pd.DataFrame({"ImageNumber": [1]})
    np.testing.assert_allclose(profiles.X[0], joined(tables)[profiles.features].median(), rtol=2e-5, atol=1e-6)
    assert not lost["what"].eq("cell").any()


def test_through_the_one_reader(tmp_path):
    """A gallery's backend with its plate maps, and a folder whose form is told by what it holds."""
    workspace = tmp_path / "project" / "workspace"
    tables = simulated_plate()
    write_sqlite(workspace / "backend" / "b1" / "PL1" / "PL1.sqlite", tables)
    maps = workspace / "metadata" / "platemaps" / "b1"
    (maps / "platemap").mkdir(parents=True)
    (maps / "barcode_platemap.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\nPL1,M\n")
    lines = [f"M\t{w}\t{'DMSO' if w == 'A01' else 'BRD-' + w}" for w in tables["Image"]["Metadata_Well"].unique()]
    (maps / "platemap" / "M.txt").write_text("\n".join(["plate_map_name\twell_position\tbroad_sample", *lines]) + "\n")
    given = ProfileSource(
        path=str(tmp_path / "project"), level="cells", plates=["PL*"], columns={"compound_id": "broad_sample"},
        controls={"broad_sample": ["DMSO"]},
    )  # fmt: skip
    profiles, _ = read_profiles(given)
    check(profiles, tables)
    assert profiles.rows["Metadata_compound_id"].tolist()[:2] == ["DMSO", "BRD-A02"]
    assert profiles.rows["Metadata_pert_type"].tolist()[:2] == ["negcon", "trt"]
    assert set(profiles.rows["Metadata_Plate"]) == {"PL1"}
    folder = write_csv(tmp_path / "csv", tables)
    check(read_profiles(ProfileSource(path=str(folder)))[0], tables)
