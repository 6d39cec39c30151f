from __future__ import annotations

import numpy as np
import pytest

from phenohit.chem.cns import cns_properties, in_yolk

# name -> SMILES, in the yolk, likely P-gp substrate by the rule. Drugs whose answer is in any textbook.
DRUGS = {
    "diazepam": ("CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc21", True, False),
    "fluoxetine": ("CNCCC(Oc1ccc(C(F)(F)F)cc1)c1ccccc1", True, False),
    "haloperidol": ("O=C(CCCN1CCC(O)(c2ccc(Cl)cc2)CC1)c1ccc(F)cc1", True, False),
    "clozapine": ("CN1CCN(C2=Nc3cc(Cl)ccc3Nc3ccccc32)CC1", True, False),
    "donepezil": ("COc1cc2c(cc1OC)C(=O)C(CC1CCN(Cc3ccccc3)CC1)C2", True, False),
    "morphine": ("CN1CCC23c4c5ccc(O)c4OC2C(O)C=CC3C1C5", True, False),
    "atenolol": ("CC(C)NCC(O)COc1ccc(CC(N)=O)cc1", False, False),
    "methotrexate": ("CN(Cc1cnc2nc(N)nc(N)c2n1)c1ccc(C(=O)NC(CCC(=O)O)C(=O)O)cc1", False, False),
    "metformin": ("CN(C)C(=N)NC(N)=N", False, False),
    "ciprofloxacin": ("O=C(O)c1cn(C2CC2)c2cc(N3CCNCC3)c(F)cc2c1=O", False, False),
    "cimetidine": ("CN=C(NCCSCc1nc[nH]c1C)NC#N", False, False),
    "furosemide": ("NS(=O)(=O)c1cc(C(=O)O)c(NCc2ccco2)cc1Cl", False, False),
    "doxorubicin": ("COc1cccc2c1C(=O)c1c(O)c3c(c(O)c1C2=O)CC(O)(C(=O)CO)CC3OC1CC(N)C(O)C(C)O1", False, True),
    "erythromycin": (
        "CCC1OC(=O)C(C)C(OC2CC(C)(OC)C(O)C(C)O2)C(C)C(OC2OC(C)CC(N(C)C)C2O)C(C)(O)CC(C)C(=O)C(C)C(O)C1(C)O",
        False,
        True,
    ),
}
# Known to be on the wrong side: both rules are coarse.
WRONG = {
    "caffeine enters the brain": ("Cn1c(=O)c2c(ncn2C)n(C)c1=O", False, False),
    "loperamide is pumped out": ("CN(C)C(=O)C(CCN1CCC(O)(c2ccc(Cl)cc2)CC1)(c1ccccc1)c1ccccc1", True, False),
}


@pytest.mark.parametrize("name", [*DRUGS, *WRONG])
def test_well_known_drugs(name):
    smiles, yolk, pgp = (DRUGS | WRONG)[name]
    row = cns_properties([smiles]).iloc[0]
    assert (bool(row["yolk"]), bool(row["pgp"])) == (yolk, pgp)


def test_the_yolk_is_the_published_one():
    # Points (polar surface, logP) of the yolk's outline in the supporting information of Daina and Zoete 2016.
    outline = np.array(
        [
            [40.97018, 0.40626], [66.39341, 1.09727], [79.09902, 3.09400], [65.91833, 5.14810],
            [37.74279, 5.96341], [9.74389, 5.27262], [-2.96172, 3.27590], [3.60016, 1.77297],
        ]
    )  # fmt: skip
    centre = np.array([38.07, 3.18])
    for step, inside in ((0.999, True), (1.001, False)):
        x, y = (centre + step * (outline - centre)).T
        assert (in_yolk(y, x) == inside).all()
    assert not in_yolk(np.array([np.nan]), np.array([40.0]))[0]


def test_properties_are_those_of_rdkit_and_unreadable_structures_have_none(capfd):
    table = cns_properties(["CC(=O)Oc1ccccc1C(=O)O", "", "C1CC", "CS(=O)C"])
    assert table["weight"][0] == pytest.approx(180.16, abs=0.01)
    assert table["tpsa"][0] == pytest.approx(63.6, abs=0.1)
    assert table["n_o"].tolist()[0] == 4
    assert table["acid"].tolist() == [True, False, False, False]
    assert table[["logp", "tpsa", "weight"]].iloc[1:3].isna().all().all()
    assert not table[["yolk", "pgp"]].iloc[1:3].any().any()
    assert table["tpsa"][3] == pytest.approx(36.28, abs=0.01)  # 17.07 without sulfur
    assert capfd.readouterr().err == ""


def test_each_condition_of_the_rule_of_fours_matters():
    sugar = "OCC1OC(OC2C(CO)OC(OC3C(CO)OC(O)C(O)C3O)C(O)C2O)C(O)C(O)C1O"  # maltotriose: 16 O, weight 504
    assert cns_properties([sugar])["pgp"][0]
    assert not cns_properties([sugar.replace("OCC1O", "OC(=O)C1O", 1)])["pgp"][0]  # an acid
    assert not cns_properties(["OCC1OC(O)C(O)C(O)C1O"])["pgp"][0]  # light
    assert not cns_properties(["CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCO"])["pgp"][0]  # one O
