from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.chem.standardise import require_readable, standardise
from phenohit.errors import StructureError

# The same drug as its salts, charge forms and drawings.
ASPIRIN = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "O=C(C)Oc1ccccc1C([O-])=O.[Na+]",
    "OC(=O)c1ccccc1OC(C)=O.NCCO",
    " CC(=O)Oc1ccccc1C(=O)O ",
]


def test_salts_charges_and_drawings_are_one_parent():
    table = standardise(ASPIRIN)
    assert table["smiles"].unique().tolist() == ["CC(=O)Oc1ccccc1C(=O)O"]
    assert table["inchikey"].unique().tolist() == ["BSYNRYMUTXBXSQ-UHFFFAOYSA-N"]  # published key of aspirin
    assert (table["skeleton"] == "BSYNRYMUTXBXSQ").all()
    assert (table["problem"] == "").all()


def test_large_inorganic_counter_ion_is_not_the_parent():
    assert standardise(["C[NH3+].F[P-](F)(F)(F)(F)F"])["smiles"].tolist() == ["CN"]


def test_quaternary_nitrogen_keeps_its_charge_and_stereo_is_kept():
    table = standardise(["C[N+](C)(C)CCO.[Cl-]", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"])
    assert "[N+]" in table["smiles"][0]
    assert table["inchikey"][1] != table["inchikey"][2]
    assert table["skeleton"][1] == table["skeleton"][2]


@pytest.mark.parametrize(
    ("smiles", "problem"),
    [
        ("C1CC", "the SMILES 'C1CC' cannot be read"),
        ("c1cccc1", "the SMILES 'c1cccc1' cannot be read"),
        ("CC(C)(C)(C)C", "the SMILES 'CC(C)(C)(C)C' cannot be read"),
        ("", "no structure"),
        ("   ", "no structure"),
        (None, "no structure"),
        (float("nan"), "no structure"),
        (pd.NA, "no structure"),
    ],
)
def test_unusable_rows_say_why_and_do_not_disturb_others(smiles, problem, capfd):
    table = standardise(["CCO", smiles, "CCO"])
    assert table["problem"].tolist() == ["", problem, ""]
    assert table.loc[1, ["smiles", "inchikey", "skeleton"]].tolist() == ["", "", ""]
    assert table["smiles"].tolist()[::2] == ["CCO", "CCO"]
    assert capfd.readouterr().err == ""  # RDKit's own log is silenced


def test_order_and_length_are_kept_with_repeats():
    smiles = ["CCO", "c1ccccc1", "CCO", "OCC", "bad"]
    assert standardise(smiles)["smiles"].tolist() == ["CCO", "c1ccccc1", "CCO", "CCO", ""]
    assert standardise([]).columns.tolist() == ["smiles", "inchikey", "skeleton", "problem"]
    assert len(standardise([])) == 0


def test_standardising_twice_changes_nothing(shared_data):
    path = shared_data / "labels-hti209" / "label_matrix.parquet"
    smiles = pd.read_parquet(path, columns=["smiles"])["smiles"].sample(300, random_state=0).tolist()
    once = standardise(smiles)
    twice = standardise(once["smiles"].tolist())
    pd.testing.assert_frame_equal(once, twice)


def test_keys_agree_with_those_delivered_with_real_data(shared_data):
    path = shared_data / "labels-hti209" / "label_matrix.parquet"
    table = pd.read_parquet(path, columns=["smiles", "inchikey"]).sample(300, random_state=1)
    found = standardise(table["smiles"].tolist())
    same = found["skeleton"].to_numpy() == table["inchikey"].str[:14].to_numpy()
    assert same.mean() > 0.99  # a few carry charges or metals that we change
    assert (found["problem"] == "").all()


def test_require_readable_names_the_rows():
    table = standardise(["CCO", "C1CC", ""])
    with pytest.raises(
        StructureError, match=r"2 of 3 structures cannot be used.*cpd-2: the SMILES 'C1CC' cannot be read"
    ):
        require_readable(table, ["cpd-1", "cpd-2", "cpd-3"])
    require_readable(table.iloc[:1], np.array(["cpd-1"]))
