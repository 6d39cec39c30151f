from __future__ import annotations

import gzip

import pytest
from rdkit import Chem

from phenohit.chem.sdf import read_sdf
from phenohit.errors import ColumnError, FileError, StructureError

SMILES = ["CCO", "c1ccccc1O", "C[C@H](N)C(=O)O"]


def sd_text(smiles=SMILES) -> str:
    parts = []
    for i, s in enumerate(smiles):
        mol = Chem.MolFromSmiles(s)
        mol.SetProp("_Name", f"title {i}")
        parts.append(Chem.MolToMolBlock(mol) + f"> <CID>\nc{i}\n\n> <note>\ntwo\nlines\n\n$$$$\n")
    return "".join(parts)


def broken(record: str) -> str:
    """Give the first atom an element that does not exist."""
    lines = record.split("\n")
    lines[4] = lines[4].replace(" C ", " Qq", 1)
    return "\n".join(lines)


def test_reads_titles_or_a_property(tmp_path):
    (tmp_path / "s.sdf").write_text(sd_text())
    assert read_sdf(tmp_path / "s.sdf")["id"].tolist() == ["title 0", "title 1", "title 2"]
    found = read_sdf(tmp_path / "s.sdf", "CID")
    assert found["id"].tolist() == ["c0", "c1", "c2"]
    assert found["smiles"].tolist() == [Chem.CanonSmiles(s) for s in SMILES]


def test_reads_compressed_and_foreign_line_ends(tmp_path):
    (tmp_path / "s.sdf.gz").write_bytes(gzip.compress(sd_text().replace("\n", "\r\n").encode()))
    assert read_sdf(tmp_path / "s.sdf.gz", "note")["id"].tolist() == ["two\nlines"] * 3


def test_an_unreadable_record_keeps_its_place_and_id(tmp_path):
    records = sd_text().split("$$$$\n")
    records[1] = broken(records[1])
    (tmp_path / "s.sdf").write_text("$$$$\n".join(records))
    found = read_sdf(tmp_path / "s.sdf", "CID")
    assert found["id"].tolist() == ["c0", "c1", "c2"]
    assert found["smiles"].tolist() == ["CCO", "", Chem.CanonSmiles(SMILES[2])]


def test_mostly_unreadable_is_an_error(tmp_path):
    (tmp_path / "s.sdf").write_text("$$$$\n".join(broken(r) if r.strip() else r for r in sd_text().split("$$$$\n")))
    with pytest.raises(StructureError, match=r"3 of 3 records.*record 0 \(title 0\)"):
        read_sdf(tmp_path / "s.sdf")


def test_unknown_property_lists_the_nearest(tmp_path):
    (tmp_path / "s.sdf").write_text(sd_text())
    with pytest.raises(ColumnError, match=r"'CIDs'.*Nearest: CID"):
        read_sdf(tmp_path / "s.sdf", "CIDs")
    (tmp_path / "s.sdf").write_text(sd_text().replace("title 0", "").replace("title 1", "").replace("title 2", ""))
    with pytest.raises(ColumnError, match=r"no record|No record.*'CID', 'note'"):
        read_sdf(tmp_path / "s.sdf")


@pytest.mark.parametrize(
    ("name", "content"),
    [("s.sdf", b""), ("s.sdf", b"a,b\n1,2\n"), ("s.sdf.gz", gzip.compress(sd_text().encode(), mtime=0)[:60])],
)
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=name):
        read_sdf(tmp_path / name)
    with pytest.raises(FileError, match="does not exist"):
        read_sdf(tmp_path / "none.sdf")
