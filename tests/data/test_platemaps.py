from __future__ import annotations

import pandas as pd
import pytest

from phenohit.data.platemaps import join_platemaps, read_platemaps
from phenohit.data.read import read_profiles
from phenohit.errors import ColumnError, FileError, PlateError
from phenohit.sources import Join, ProfileSource

BARCODES = "Assay_Plate_Barcode,Plate_Map_Name\n1053597806,M1\n1053597807,M1\nP3,M2\nP4,M2\n"
M1 = (
    "plate_map_name\twell_position\tbroad_sample\tsolvent\tmmoles_per_liter\n"
    "M1\tA01\t\tDMSO\t\n"
    "M1\tA02\tBRD-1\tDMSO\t3.3\n"
)
M2 = "well_position,broad_sample,solvent\na1,BRD-2,DMSO\nb10,,DMSO\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "platemap").mkdir()
    (tmp_path / "barcode_platemap.csv").write_text(BARCODES)
    (tmp_path / "platemap" / "M1.txt").write_text(M1)
    (tmp_path / "platemap" / "M2.csv").write_text(M2)
    return tmp_path


def wells(*places: str) -> pd.DataFrame:
    return pd.DataFrame([p.split() for p in places], columns=["Metadata_Plate", "Metadata_Well"], dtype=str)


def test_every_plate_gets_the_wells_of_its_map(folder):
    maps, lost = read_platemaps(folder)
    assert lost.empty
    assert len(maps) == 8
    assert maps["Metadata_Plate"].tolist() == ["1053597806"] * 2 + ["1053597807"] * 2 + ["P3"] * 2 + ["P4"] * 2
    assert maps["Metadata_Well"].tolist() == ["A01", "A02"] * 2 + ["A01", "B10"] * 2
    assert maps["plate_map_name"].tolist() == ["M1"] * 4 + ["M2"] * 4
    assert maps["mmoles_per_liter"].tolist() == ["", "3.3"] * 2 + [""] * 4
    assert maps.map(lambda v: isinstance(v, str)).all(axis=None)


def test_wells_find_their_entries_and_the_rest_is_listed(folder):
    maps, _ = read_platemaps(folder)
    rows = wells("1053597806.0 a2", "1053597807 A01", "1053597807 C03", "X A01", "X A02", "P3 A1")
    out, lost = join_platemaps(rows, maps)
    assert out["broad_sample"].tolist() == ["BRD-1", "", "", "", "", "BRD-2"]
    assert len(out) == 6
    reasons = lost.set_index(["what", "id"])["reason"]
    assert reasons["plate", "X"] == "no plate map; its 2 wells are kept without one"
    assert "not in its plate map" in reasons["well", "1053597807 C03"]
    assert reasons["plate", "1053597806"] == "1 wells of its map have no row: 'A01'"
    assert reasons["plate", "P3"] == "1 wells of its map have no row: 'B10'"
    assert reasons["plate", "plate map"].startswith("1 plates that have a map")


def test_only_maps_that_are_needed_must_exist(folder):
    (folder / "platemap" / "M2.csv").unlink()
    assert len(read_platemaps(folder, plates=["1053597807"])[0]) == 2
    with pytest.raises(FileError, match=r"names the plate map 'M2'.*no 'platemap/M2.txt'"):
        read_platemaps(folder)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..\\b", "s3://x/y", "C:/x"])
def test_a_name_that_leads_out_of_the_folder_is_refused(folder, name):
    (folder / "barcode_platemap.csv").write_text(f"Assay_Plate_Barcode,Plate_Map_Name\nP1,{name}\n")
    (folder.parent / "b.txt").write_text(M1)
    with pytest.raises(FileError, match=r"leads out of its folder"):
        read_platemaps(folder)


def test_damaged_maps(folder):
    (folder / "platemap" / "M1.txt").write_text(M1 + "M1\tA2\tBRD-9\tDMSO\t1\n")
    with pytest.raises(PlateError, match=r"M1.txt' describes 1 keys .*broad_sample.*: 'A02'"):
        read_platemaps(folder)
    (folder / "platemap" / "M1.txt").write_text(M1 + "M1\tA99\tBRD-9\tDMSO\t1\n")
    with pytest.raises(PlateError, match="'A99'"):
        read_platemaps(folder)
    (folder / "platemap" / "M1.txt").write_text(M1.replace("\t", "|"))
    with pytest.raises(ColumnError, match=r"M1.txt' has no column 'well_position'"):
        read_platemaps(folder)
    (folder / "barcode_platemap.csv").write_text(BARCODES + "P3,M1\n")
    with pytest.raises(ColumnError, match=r"barcode_platemap.csv' describes 1 keys.*'P3'"):
        read_platemaps(folder)
    (folder / "barcode_platemap.csv").unlink()
    with pytest.raises(FileError, match=r"has no barcode_platemap.csv"):
        read_platemaps(folder)


def whole(size: str, plate: str = "P3") -> pd.DataFrame:
    rows, columns = {"96": ("ABCDEFGH", 12), "384": ("ABCDEFGHIJKLMNOP", 24)}[size]
    return wells(*(f"{plate} {r}{c:02d}" for r in rows for c in range(1, columns + 1)))


def test_the_map_of_another_plate_size_is_refused():
    """A map of 96 wells knows a quarter of a 384-well plate, and knows it wrongly."""
    small, large = whole("96").assign(sample="x"), whole("384").assign(sample="x")
    with pytest.raises(PlateError, match=r"'P3'.*288 of 384 wells.*plate of 384, the map's of one of 96"):
        join_platemaps(whole("384"), small)
    out, lost = join_platemaps(whole("96"), large)  # part of a plate may be imaged
    assert (out["sample"] == "x").all()
    assert lost["reason"].tolist()[0].startswith("288 wells of its map have no row: 'A13'")
    join_platemaps(whole("384").iloc[:180], small)  # not most of it
    with pytest.raises(PlateError, match=r"'P3'.*2 of 2 wells"):
        join_platemaps(wells("P3 Q01", "P3 AF48"), large)


def test_a_map_that_knows_no_well_of_its_plate_is_refused(folder):
    maps, _ = read_platemaps(folder)
    with pytest.raises(PlateError, match=r"'P3'.*1 of 1 wells of 'P3' are not in its map"):
        join_platemaps(wells("P3 C05", "P4 A01"), maps)


def test_maps_of_other_plates_only_are_refused_where_nothing_else_tells_the_compounds(folder, tmp_path):
    with pytest.raises(PlateError, match=r"None of the 1 plates 'P33'.*among the 4.*Nearest: P3"):
        read_platemaps(folder, plates=["P33"], needed=True)
    table = pd.DataFrame({"Plate": ["P33"], "Well": ["A01"], "Cells_A": [0.5]})
    table.to_csv(tmp_path / "t.csv", index=False)
    source = ProfileSource(path=str(tmp_path / "t.csv"), platemaps=str(folder))
    with pytest.raises(PlateError, match="None of the 1 plates 'P33'"):
        read_profiles(source)
    table.assign(compound_id="c1").to_csv(tmp_path / "t.csv", index=False)
    assert read_profiles(source)[1].set_index("id")["reason"]["P33"].startswith("no plate map")


def test_the_same_plate_in_two_batches(tmp_path):
    for batch, sample in (("b1", "x"), ("b2", "y")):
        (tmp_path / batch / "platemap").mkdir(parents=True)
        (tmp_path / batch / "barcode_platemap.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\nP,M\n")
        (tmp_path / batch / "platemap" / "M.txt").write_text(f"well_position\tsample\nA01\t{sample}\n")
    maps, _ = read_platemaps(tmp_path)
    with pytest.raises(PlateError, match="'P' have plate maps in several batches"):
        join_platemaps(wells("P A01"), maps)
    out, _ = join_platemaps(wells("P A01").assign(Metadata_Batch="b2"), maps)
    assert out["sample"].tolist() == ["y"]
    assert read_platemaps(tmp_path, batches=["b1"])[0]["sample"].tolist() == ["x"]


def test_names_and_controls_come_after_maps_and_joins(folder, tmp_path):
    """DMSO wells have an empty sample in the maps; only the rule makes them controls."""
    (tmp_path / "annotation.tsv").write_text("broad_sample\tsmiles\tpert_iname\nBRD-1\tCCO\tone\nBRD-2\tCCN\ttwo\n")
    table = pd.DataFrame(
        {"plate": [1053597806, 1053597806, 1053597807], "well": ["A1", "A2", "A2"], "Cells_A": [0.5, 1.0, 2.0]}
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    source = ProfileSource(
        path=str(tmp_path / "t.csv"),
        platemaps=str(folder),
        joins=[Join(str(tmp_path / "annotation.tsv"), "broad_sample")],
        columns={"compound_id": "broad_sample", "smiles": "smiles", "concentration_mM": "mmoles_per_liter"},
    )
    profiles, _ = read_profiles(source)
    assert profiles.rows["Metadata_pert_type"].tolist() == ["trt"] * 3  # never by a missing id
    assert profiles.rows["Metadata_compound_id"].tolist() == ["", "BRD-1", "BRD-1"]
    assert profiles.rows["Metadata_SMILES"].tolist() == ["", "CCO", "CCO"]
    assert profiles.rows["Metadata_concentration_uM"].tolist() == ["", "3300", "3300"]
    assert profiles.rows["Metadata_pert_iname"].tolist() == ["", "one", "one"]
    source.controls = {"broad_sample": ["BRD-1"]}
    assert read_profiles(source)[0].rows["Metadata_pert_type"].tolist() == ["trt", "negcon", "negcon"]
    source.columns["compound_id"] = "broad_sampl"
    with pytest.raises(ColumnError, match=r"no column 'broad_sampl' .*Nearest: broad_sample"):
        read_profiles(source)


def test_maps_need_plate_and_well(folder, tmp_path):
    pd.DataFrame({"Cells_A": [0.5]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ColumnError, match=r"no Metadata_Plate and Metadata_Well"):
        read_profiles(ProfileSource(path=str(tmp_path / "t.csv"), platemaps=str(folder)))
