from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, PlateError, StructureError
from phenohit.profiles.identify import COMPOUND_COLUMNS, identify

ETHANOL, PHENOL = "LFQSCWFLJHTTHZ-UHFFFAOYSA-N", "ISWSIDIOOBJBQZ-UHFFFAOYSA-N"


def wells(**metadata) -> Profiles:
    rows = pd.DataFrame({f"Metadata_{k}": v for k, v in metadata.items()}, dtype=str)
    return Profiles(np.arange(len(rows), dtype=np.float32)[:, None], rows, ["Cells_A"])


def test_salts_and_spellings_are_one_compound_in_order_of_appearance():
    acid, salt = "CC(=O)Oc1ccccc1C(=O)O", "O=C([O-])c1ccccc1OC(C)=O.[Na+]"
    given = wells(SMILES=["OCC", salt, acid, "CCO"], compound_id=["e1", "a2", "a1", "e1"])
    profiles, compounds, lost = identify(given, None)
    aspirin = Chem.MolToInchiKey(Chem.MolFromSmiles(acid))
    assert profiles.compounds.tolist() == [ETHANOL, aspirin, aspirin, ETHANOL]
    assert compounds.columns.tolist() == COMPOUND_COLUMNS
    assert compounds["compound"].tolist() == [ETHANOL, aspirin]
    assert compounds["compound_id"].tolist() == ["e1", "a2;a1"]
    assert compounds["smiles"].tolist() == ["CCO", Chem.CanonSmiles(acid)]
    assert compounds["skeleton"].tolist() == [ETHANOL[:14], aspirin[:14]]
    assert compounds["n_wells"].tolist() == [2, 2]
    assert not len(lost)


def test_controls_are_set_aside_and_counted_not_dropped():
    given = wells(SMILES=["CS(C)=O", "CCO", "CCO", "CS(C)=O"], pert_type=["negcon", "trt", "poscon", "negcon"])
    profiles, compounds, lost = identify(given, None)
    assert profiles.X.ravel().tolist() == [1]
    assert profiles.history == ("controls set aside[2 negcon, 1 poscon]",)
    assert (len(compounds), len(lost)) == (1, 0)


def test_structure_comes_from_the_row_then_the_table_then_a_sister_row():
    given = wells(compound_id=["a", "b", "c", "c", "d"], SMILES=["CCO", "", "", "CCC", ""])
    structures = pd.DataFrame({"id": ["a", "b", "z"], "smiles": ["CCCC", "Oc1ccccc1", "C"]})
    profiles, compounds, _ = identify(given, structures)
    keys = profiles.compounds.tolist()
    assert keys[:2] == [ETHANOL, PHENOL]
    assert keys[2] == keys[3]
    assert keys[4] == "d"  # no structure anywhere: known by its id
    assert compounds.set_index("compound").loc["d", ["smiles", "inchikey", "skeleton"]].tolist() == ["", "", ""]


def test_inchikey_serves_where_there_is_no_smiles():
    given = wells(compound_id=["a", "b"], InChIKey=[PHENOL, "not a key"])
    profiles, compounds, _ = identify(given, None)
    assert profiles.compounds.tolist() == [PHENOL, "b"]
    assert compounds["skeleton"].tolist() == [PHENOL[:14], ""]


def test_malformed_smiles_are_listed_with_row_and_text():
    given = wells(SMILES=["CCO", "C1CC", "CCC", "C1CC"], compound_id=["a", "b", "c", "b"])
    profiles, _, lost = identify(given, None)
    assert profiles.X.ravel().tolist() == [0, 2]
    assert lost["id"].tolist() == ["b"]
    assert "'C1CC'" in lost["reason"][0]
    assert "2 treated rows: 1, 3" in lost["reason"][0]


def test_mostly_malformed_is_an_error():
    with pytest.raises(StructureError, match=r"2 of 3 structures.*'x1'"):
        identify(wells(SMILES=["CCO", "x1", "x2"]), None)


def test_rows_without_any_id_are_listed_with_their_place():
    given = wells(SMILES=["CCO", ""], Plate=["p1", "p1"], Well=["A01", "A02"])
    profiles, _, lost = identify(given, None)
    assert len(profiles) == 1
    assert lost["id"].tolist() == ["treated row 1 p1 A02"]


def test_an_id_with_two_structures_gives_none_to_rows_that_need_one():
    given = wells(compound_id=["a", "b"], SMILES=["", "CCO"])
    structures = pd.DataFrame({"id": ["a", "a"], "smiles": ["CCC", "CCCC"]})
    profiles, _, lost = identify(given, structures)
    assert profiles.compounds.tolist() == [ETHANOL]
    assert "different structures: 'CCC', 'CCCC'" in lost["reason"][0]
    same = pd.DataFrame({"id": ["a", "a"], "smiles": ["CCC", "C(C)C"]})  # two spellings are one structure
    assert len(identify(given, same)[0]) == 2


def test_an_id_whose_structure_is_blank_is_known_by_its_id_and_listed():
    given = wells(compound_id=["a", "b"])
    profiles, _, lost = identify(given, pd.DataFrame({"id": ["a", "b"], "smiles": ["", "CCO"]}))
    assert profiles.compounds.tolist() == ["a", ETHANOL]
    assert lost[["what", "id"]].values.tolist() == [["structure", "a"]]


def test_what_cannot_be_identified_at_all_is_refused():
    with pytest.raises(ColumnError, match="No row says"):
        identify(wells(Well=["A01"]), None)
    with pytest.raises(PlateError, match=r"2 rows are controls \(2 negcon\)"):
        identify(wells(compound_id=["a", "a"], pert_type=["negcon", "negcon"]), None)
    with pytest.raises(ColumnError, match=r"'a'.*structures 'z'"):
        identify(wells(compound_id=["a"]), pd.DataFrame({"id": ["z"], "smiles": ["C"]}))
    with pytest.raises(ColumnError, match="No treated row is left"):
        identify(wells(compound_id=["a"]), pd.DataFrame({"id": ["a", "a"], "smiles": ["C", "CC"]}))


def test_works_without_features():
    profiles, compounds, _ = identify(Profiles(np.zeros((1, 0), np.float32), wells(SMILES=["CCO"]).rows, []), None)
    assert (profiles.X.shape, len(compounds)) == ((1, 0), 1)
