from __future__ import annotations

import gzip
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from phenohit.data.gallery import find_plates
from phenohit.data.read import find_format, read_profiles
from phenohit.data.remote import Place
from phenohit.errors import ColumnError, ConfigError, FileError, PlateError
from phenohit.sources import Join, ProfileSource

PLATES = {"2020_b1": ["BR1", "BR2_x"], "2021_b2": ["1053597806"]}
WELLS = ["A01", "A02", "B03"]


def plate_table(plate: str, n_features: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(sum(map(ord, plate)))
    table = pd.DataFrame({"Metadata_Plate": plate, "Metadata_Well": WELLS, "Metadata_Site_Count": 4})
    for j in range(n_features):
        table[f"Cells_Texture_F{j}"] = rng.normal(size=len(WELLS)).astype(np.float32)
    return table


@pytest.fixture
def project(tmp_path):
    """Write a source of a project, as in the gallery."""
    source = tmp_path / "cpg0000-test" / "broad"
    for batch, plates in PLATES.items():
        maps = source / "workspace" / "metadata" / "platemaps" / batch
        (maps / "platemap").mkdir(parents=True)
        lines = ["Assay_Plate_Barcode,Plate_Map_Name", *(f"{p},M1" for p in plates)]
        (maps / "barcode_platemap.csv").write_text("\n".join(lines) + "\n")
        layout = "plate_map_name\twell_position\tbroad_sample\nM1\tA01\t\nM1\tA02\tBRD-1\nM1\tB03\tBRD-2\n"
        (maps / "platemap" / "M1.txt").write_text(layout)
        for plate in plates:
            folder = source / "workspace" / "profiles" / batch / plate
            folder.mkdir(parents=True)
            for level, n_features in (("", 4), ("_normalized_negcon", 3)):
                plate_table(plate, n_features).to_csv(folder / f"{plate}{level}.csv.gz", index=False)
            backend = source / "workspace" / "backend" / batch / plate
            backend.mkdir(parents=True)
            plate_table(plate).to_csv(backend / f"{plate}.csv", index=False)
    return source


def file_of(project, plate: str, level: str = "_normalized_negcon"):
    return next(project.glob(f"workspace/profiles/*/{plate}/{plate}{level}.csv.gz"))


def read(project, **settings):
    return read_profiles(ProfileSource(path=str(project), **{"level": "normalized_negcon", **settings}))


def test_every_level_of_every_entry_point(project):
    expected = pd.concat([plate_table(p) for plates in PLATES.values() for p in plates])
    for path in (project, project / "workspace", project / "workspace" / "profiles"):
        assert find_format(ProfileSource(path=str(path))) == "gallery"
        for level, n in (("aggregated", 4), ("normalized_negcon", 3)):
            profiles, lost = read(path, level=level)
            assert profiles.features == [f"Cells_Texture_F{j}" for j in range(n)]
            assert profiles.rows["Metadata_Batch"].tolist() == ["2020_b1"] * 6 + ["2021_b2"] * 3
            assert profiles.rows["Metadata_Plate"].tolist() == expected["Metadata_Plate"].tolist()
            assert profiles.rows["Metadata_Well"].tolist() == WELLS * 3
            assert profiles.rows["Metadata_broad_sample"].tolist() == ["", "BRD-1", "BRD-2"] * 3
            assert profiles.history == (f"{level}[upstream]",)
            assert lost.empty
            if n == 4:
                np.testing.assert_array_equal(profiles.X, expected[profiles.features].to_numpy())
    assert read(project, level="backend")[0].X.shape == (9, 4)
    batch, _ = read(project / "workspace" / "profiles" / "2021_b2")
    assert batch.rows["Metadata_broad_sample"].tolist() == ["", "BRD-1", "BRD-2"]
    assert set(batch.rows["Metadata_Batch"]) == {"2021_b2"}


def test_a_level_must_be_chosen(project):
    with pytest.raises(ConfigError, match=r"aggregated \(3 plates\), backend \(3 plates\), normalized_negcon \(3 pl"):
        read(project, level="")
    with pytest.raises(ConfigError, match=r"'normalised_negcon' is not there. Nearest: normalized_negcon"):
        read(project, level="normalised_negcon")
    for path in project.rglob("*_normalized_negcon.csv.gz"):
        path.unlink()
    assert read(project / "workspace" / "profiles", level="")[0].history == ("aggregated[upstream]",)


def test_batches_and_plates(project):
    profiles, lost = read(project, batches=["2020*"], plates=["BR2*"])
    assert set(profiles.rows["Metadata_Plate"]) == {"BR2_x"}
    assert set(lost["id"]) == {"2020_b1 BR1", "2021_b2 1053597806"}
    for wrong in ({"batches": ["2022*"]}, {"plates": ["BR1", "BR9"]}):
        with pytest.raises(PlateError, match=r"matches none of"):
            read(project, **wrong)


def test_a_plate_without_the_level_is_listed(project):
    file_of(project, "BR1").unlink()
    profiles, lost = read(project)
    assert len(profiles) == 6
    assert lost.set_index("id")["reason"]["2020_b1 BR1"] == "has no file of level 'normalized_negcon'"


def test_features_that_some_plates_lack(project):
    table = plate_table("BR2_x", 3).drop(columns="Cells_Texture_F1").assign(Cells_Texture_New=1.0)
    table.to_csv(file_of(project, "BR2_x"), index=False)
    profiles, lost = read(project)
    assert profiles.features == ["Cells_Texture_F0", "Cells_Texture_F2"]
    reasons = lost.set_index("id")["reason"]
    assert reasons["Cells_Texture_F1"] == "only 2 of 3 plates have it"
    assert reasons["Cells_Texture_New"] == "only 1 of 3 plates have it"
    np.testing.assert_array_equal(profiles.X[3:6], table[profiles.features].to_numpy(np.float32))
    plate_table("BR2_x", 1).rename(columns=lambda c: c.replace("F0", "Q")).to_csv(
        file_of(project, "BR2_x"), index=False
    )
    with pytest.raises(ColumnError, match="have no feature in common"):
        read(project)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda whole: whole[:-30], r"cannot be read"),
        (lambda whole: b"no gzip at all", r"cannot be read"),
        (lambda whole: b"", r"empty|cannot be read"),
        (lambda whole: gzip.compress(gzip.decompress(whole).replace(b"A02", b"A2,1,2")), r"number of values"),
    ],
)
def test_a_damaged_plate_is_named(project, damage, said):
    path = file_of(project, "BR2_x")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileError, match=rf"Plate 'BR2_x' of batch '2020_b1' .*({said})"):
        read(project)


def test_text_doubled_columns_and_wells_in_a_later_plate(project):
    table = plate_table("1053597806", 3).astype({"Cells_Texture_F1": object})
    table.loc[1, "Cells_Texture_F1"] = "overflow"
    table.to_csv(file_of(project, "1053597806"), index=False)
    with pytest.raises(ColumnError, match=r"Plate '1053597806' .*'Cells_Texture_F1' holds text in 1 of 3 rows"):
        read(project)
    doubled = plate_table("1053597806", 3).to_csv(index=False).replace("Cells_Texture_F2", "Cells_Texture_F1", 1)
    file_of(project, "1053597806").write_bytes(gzip.compress(doubled.encode()))
    with pytest.raises(ColumnError, match=r"Plate '1053597806' .*same name"):
        read(project)
    plate_table("BR1", 3).assign(Metadata_Well=["A01", "a1", "A03"]).to_csv(file_of(project, "BR1"), index=False)
    plate_table("1053597806", 3).to_csv(file_of(project, "1053597806"), index=False)
    with pytest.raises(PlateError, match=r"BR1 A01 \(2 times\)"):
        read(project)


def test_the_folder_names_the_plate(project):
    plate_table("other", 3).to_csv(file_of(project, "BR1"), index=False)
    plate_table("1053597806", 3).iloc[:0].to_csv(file_of(project, "1053597806"), index=False)
    profiles, lost = read(project)
    assert set(profiles.rows["Metadata_Plate"]) == {"BR1", "BR2_x"}
    reasons = lost.set_index("id")["reason"]
    assert "its file calls the plate 'other'" in reasons["2020_b1 BR1"]
    assert reasons["2021_b2 1053597806"] == "its file holds no wells"


def test_other_maps_joins_names_and_controls(project, tmp_path):
    maps = project / "workspace" / "metadata" / "platemaps" / "2021_b2"
    (tmp_path / "external.tsv").write_text("broad_sample\tInChIKey\nBRD-1\tKEY-1\n")
    profiles, lost = read(
        project,
        batches=["2021_b2"],
        platemaps=str(maps),
        joins=[Join(str(tmp_path / "external.tsv"), "broad_sample")],
        columns={"compound_id": "broad_sample"},
        controls={"well": ["A01"]},
    )
    assert profiles.rows["Metadata_InChIKey"].tolist() == ["", "KEY-1", ""]
    assert profiles.rows["Metadata_pert_type"].tolist() == ["negcon", "trt", "trt"]
    assert lost["id"].tolist().count("BRD-2") == 1


def test_assembled_tables(project):
    folder = project / "workspace" / "profiles_assembled" / "COMPOUND" / "v1.0"
    folder.mkdir(parents=True)
    everything = pd.concat([plate_table(p) for plates in PLATES.values() for p in plates])
    for steps in ("profiles_var_mad_int", "profiles_var_mad_int_featselect_harmony"):
        everything.to_parquet(folder / f"{steps}.parquet", index=False)
    profiles, _ = read(project, level="profiles_var_mad_int", plates=["BR1"])
    assert profiles.X.shape == (3, 4)
    assert profiles.history == ("var[upstream]", "mad[upstream]", "int[upstream]")
    assert read(project, level="COMPOUND/v1.0/profiles_var_mad_int")[0].X.shape == (9, 4)
    with pytest.raises(ConfigError, match=r"holds several levels: COMPOUND/v1\.0/profiles_var_mad_int, "):
        read(project / "workspace" / "profiles_assembled", level="")


def test_single_cells_go_to_their_reader(project, monkeypatch):
    import sys
    import types

    for path in project.glob("workspace/backend/*/*/*.csv"):
        path.with_suffix(".sqlite").write_bytes(b"")
    asked = []
    part = types.ModuleType("cells_of_a_test")
    part.read_backend = lambda source, files, **_: asked.append(files) or read(project)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cells_of_a_test", part)
    monkeypatch.setattr("phenohit.data.gallery.CELLS", {"cells": "cells_of_a_test:read_backend"})
    read(project, level="cells", batches=["2020_b1"])
    backend = project / "workspace" / "backend" / "2020_b1"
    assert asked == [[("2020_b1", p, backend / p / f"{p}.sqlite") for p in ("BR1", "BR2_x")]]


def test_folders_that_are_no_gallery(project, tmp_path):
    with pytest.raises(FileError, match=r"does not exist"):
        read(tmp_path / "nowhere", format="gallery")
    with pytest.raises(FileError, match=r"It holds several: give one of 'broad'"):
        read(project.parent, format="gallery")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="holds nothing that is known"):
        read(tmp_path / "empty")
    (tmp_path / "empty" / "profiles" / "b" / "p").mkdir(parents=True)
    with pytest.raises(FileError, match="holds no profiles"):
        read(tmp_path / "empty")


def test_memory_is_the_result_and_one_plate(tmp_path):
    """A list of plates that are joined at the end would hold everything twice."""
    rng = np.random.default_rng(0)
    wells = [f"{r}{c:02d}" for r in "ABCDEFGHIJKLMNOP" for c in range(1, 25)]
    names = [f"Cells_Texture_F{j}" for j in range(400)]
    folder = tmp_path / "profiles" / "b1"
    for i in range(16):
        (folder / f"P{i}").mkdir(parents=True)
        table = pd.DataFrame(rng.integers(0, 99, size=(384, 400)), columns=names)
        table.insert(0, "Metadata_Well", wells)
        table.to_csv(folder / f"P{i}" / f"P{i}.csv", index=False)
    tracemalloc.start()
    profiles, _ = read_profiles(ProfileSource(path=str(tmp_path), format="gallery"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert profiles.X.nbytes == 16 * 384 * 400 * 4
    assert peak < 1.25 * profiles.X.nbytes + 4e6  # 4 MB: the text of 6,144 rows


def test_found_files_are_listed(project):
    found = find_plates(Place(str(project)))
    assert {f.level for f in found.files} == {"aggregated", "normalized_negcon", "backend"}
    assert found.maps is not None
