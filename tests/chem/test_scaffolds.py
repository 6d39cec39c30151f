from __future__ import annotations

import numpy as np
import pandas as pd

from phenohit.chem.scaffolds import scaffold_groups, scaffolds


def test_scaffolds_are_rings_and_linkers_without_stereo():
    found = scaffolds(["CC(=O)Oc1ccccc1C(=O)O", "Cc1ccc(CCC2CCCC2)cc1", "CC[C@H](N)C", "O[C@@H]1CC[C@H](N)CC1", ""])
    assert found.tolist() == ["c1ccccc1", "c1ccc(CCC2CCCC2)cc1", "", "C1CCCCC1", ""]


def test_unreadable_structures_have_no_scaffold(capfd):
    assert scaffolds(["C1CC", None, "c1ccccc1"]).tolist() == ["", "", "c1ccccc1"]
    assert capfd.readouterr().err == ""
    assert scaffolds([]).shape == (0,)


def test_groups_are_scaffolds_and_acyclic_compounds_are_alone():
    groups = scaffold_groups(["", "a", "b", "", "b", "b", "a", ""])
    assert groups.tolist() == [2, 1, 0, 3, 0, 0, 1, 4]
    assert groups.dtype == np.int32


def test_stereoisomers_of_an_acyclic_compound_stay_together_by_skeleton():
    groups = scaffold_groups(["", "", "", "a"], also=[np.array(["S1", "S1", "S2", "S3"], dtype=object)])
    assert groups.tolist() == [0, 0, 1, 2]


def test_scaffolds_agree_with_those_published_with_real_data(shared_data):
    path = shared_data / "labels-broad270-subset" / "label_matrix_81.parquet"
    table = pd.read_parquet(path, columns=["smiles", "murcko_scaffold"]).sample(200, random_state=0)
    ours = pd.factorize(scaffolds(table["smiles"].tolist()))[0]
    # Theirs keep stereo or not: compare after taking the scaffold of their scaffold.
    theirs = pd.factorize(scaffolds(table["murcko_scaffold"].fillna("").tolist()))[0]
    assert (ours == theirs).all()
