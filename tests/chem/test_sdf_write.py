from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from phenohit.chem.sdf_write import write_sdf
from phenohit.errors import FileError, ShapeError


def read(path):
    return list(Chem.SDMolSupplier(str(path)))


def test_what_is_read_back_is_what_was_written(tmp_path):
    smiles = ["CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "[Na+].[Cl-]"]
    table = pd.DataFrame(
        {"rank": [1, 2, 3], "score": np.array([0.9, 0.25, 1 / 3], np.float32), "note": ["µ", None, " x "], "ok": True}
    )
    skipped = write_sdf(tmp_path / "a.sdf", smiles, ["aspirin", "ala", "salt"], table)
    assert skipped.tolist() == []
    mols = read(tmp_path / "a.sdf")
    assert [Chem.MolToSmiles(m) for m in mols] == [Chem.CanonSmiles(s) for s in smiles]
    assert [m.GetProp("_Name") for m in mols] == ["aspirin", "ala", "salt"]
    assert [int(m.GetProp("rank")) for m in mols] == [1, 2, 3]
    assert [np.float32(m.GetProp("score")) for m in mols] == table["score"].tolist()
    assert mols[0].GetProp("note") == "µ"
    assert not mols[1].HasProp("note")
    assert mols[2].GetProp("note") == "x"
    assert mols[0].GetProp("ok") == "True"
    assert mols[0].GetConformer().GetPositions()[:, :2].std() > 0.5  # laid out


def test_text_cannot_end_a_record_early(tmp_path):
    evil = ["a\n\n$$$$\nb", "$$$$", "> <rank>\n9"]
    write_sdf(tmp_path / "a.sdf", ["CC", "CCC", "CCCC"], evil, pd.DataFrame({"note": evil, "rank": [1, 2, 3]}))
    mols = read(tmp_path / "a.sdf")
    assert [m.GetNumAtoms() for m in mols] == [2, 3, 4]
    assert [m.GetProp("rank") for m in mols] == ["1", "2", "3"]
    assert [m.GetProp("note").strip() for m in mols] == ["a $$$$ b", "$$$$", "> <rank> 9"]


def test_structures_that_cannot_be_drawn_are_reported(tmp_path):
    skipped = write_sdf(tmp_path / "a.sdf", ["C", "", "C1CC"], ["a", "b", "c"], pd.DataFrame({"rank": [1, 2, 3]}))
    assert skipped.tolist() == [1, 2]
    assert len(read(tmp_path / "a.sdf")) == 1


def test_no_structures_make_an_empty_file(tmp_path):
    write_sdf(tmp_path / "a.sdf", [], [], pd.DataFrame({"rank": []}))
    assert (tmp_path / "a.sdf").read_bytes() == b""


def test_mistakes(tmp_path):
    with pytest.raises(ShapeError, match="1 structures, 2 names"):
        write_sdf(tmp_path / "a.sdf", ["C"], ["a", "b"], pd.DataFrame({"x": [1]}))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="Cannot write"):
        write_sdf(tmp_path / "file" / "a.sdf", ["C"], ["a"], pd.DataFrame({"x": [1]}))
