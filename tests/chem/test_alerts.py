from __future__ import annotations

import pandas as pd
from rdkit import Chem
from rdkit.Chem import FilterCatalog

from phenohit.chem.alerts import _catalog, _reactive_catalog, fluorophores, pains, reactive
from phenohit.chem.fluorophores import FLUOROPHORES

# Textbook members of PAINS families, and marketed drugs without an alert.
ALERTS = {
    "O=C1C=CC(=O)C=C1": "quinone_A(370)",
    "O=C1NC(=S)SC1=Cc1ccccc1": "ene_rhod_A(235)",
    "Oc1ccccc1O": "catechol_A(92)",
    "c1ccccc1N=Nc1ccccc1": "azo_A(324)",
}
CLEAN = ["CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", ""]


def test_known_families_are_named_and_clean_drugs_are_not():
    found = pains([*ALERTS, *CLEAN])
    for name, expected in zip(found, ALERTS.values(), strict=False):
        assert expected in name.split("; ")
    assert found[len(ALERTS) :].tolist() == ["", "", ""]


def test_several_alerts_are_joined():
    assert set(pains(["Oc1ccccc1O.O=C1C=CC(=O)C=C1"])[0].split("; ")) == {"catechol_A(92)", "quinone_A(370)"}


def test_catalogue_holds_the_480_patterns_and_agrees_with_rdkits_whole_set():
    assert _catalog().GetNumEntries() == 480
    parameters = FilterCatalog.FilterCatalogParams()
    parameters.AddCatalog(FilterCatalog.FilterCatalogParams.FilterCatalogs.PAINS)
    whole = FilterCatalog.FilterCatalog(parameters)
    for smiles, found in zip(ALERTS, pains(list(ALERTS)), strict=True):
        names = {entry.GetDescription() for entry in whole.GetMatches(Chem.MolFromSmiles(smiles))}
        assert set(found.split("; ")) == names


def test_unreadable_structures_carry_no_alert(capfd):
    assert pains(["C1CC", None, "Oc1ccccc1O"]).tolist()[:2] == ["", ""]
    assert capfd.readouterr().err == ""


REACTIVE = {
    "acid chloride": "O=C(Cl)c1ccccc1",
    "sulfonyl chloride": "O=S(=O)(Cl)c1ccccc1",
    "isocyanate": "O=C=Nc1ccccc1",
    "aldehyde": "O=Cc1ccccc1",
    "alkyl bromide": "BrCCc1ccccc1",
    "maleimide": "O=C1C=CC(=O)N1c1ccccc1",
    "quinone": "O=C1C=CC(=O)C=C1",
    "anhydride": "CC(=O)OC(C)=O",
    "hydrazine": "NNc1ccccc1",
}
DRUGS = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "diazepam": "CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc21",
    "atenolol": "CC(C)NCC(O)COc1ccc(CC(N)=O)cc1",
    "imatinib": "Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(-c2cccnc2)n1",
    "omeprazole": "COc1ccc2[nH]c(S(=O)Cc3ncc(C)c(OC)c3C)nc2c1",
    "warfarin": "CC(=O)CC(c1ccccc1)c1c(O)c2ccccc2oc1=O",
    "celecoxib": "Cc1ccc(-c2cc(C(F)(F)F)nn2-c2ccc(S(N)(=O)=O)cc2)cc1",
    "propranolol": "CC(C)NCC(O)COc1cccc2ccccc12",
    "tamoxifen": "CCC(=C(c1ccccc1)c1ccc(OCCN(C)C)cc1)c1ccccc1",
    "gefitinib": "COc1cc2ncnc(Nc3ccc(F)c(Cl)c3)c2cc1OCCCN1CCOCC1",
    "sildenafil": "CCCc1nn(C)c2c1nc(-c1cc(S(=O)(=O)N3CCN(C)CC3)ccc1OCC)[nH]c2=O",
    "morphine": "CN1CCC23c4c5ccc(O)c4OC2C(O)C=CC3C1C5",
}
# A fluorescent compound for each pattern, at least.
SHINING = {
    "umbelliferone": "Oc1ccc2ccc(=O)oc2c1",
    "3-phenylcoumarin": "O=c1oc2ccccc2cc1-c1ccccc1",
    "fluorescein, closed": "O=C1OC2(c3ccc(O)cc3Oc3cc(O)ccc32)c2ccccc12",
    "rhodamine B": "CCN(CC)c1ccc2c(-c3ccccc3C(=O)O)c3ccc(=[N+](CC)CC)cc-3oc2c1",
    "acridine orange": "CN(C)c1ccc2cc3ccc(N(C)C)cc3nc2c1",
    "acridone": "O=c1c2ccccc2[nH]c2ccccc12",
    "methylene blue": "CN(C)c1ccc2nc3ccc(=[N+](C)C)cc-3sc2c1",
    "resorufin": "O=c1ccc2nc3ccc(O)cc3oc-2c1",
    "amonafide": "CN(C)CCN1C(=O)c2cccc3cc(N)cc(c23)C1=O",
    "dansylamide": "CN(C)c1cccc2c(S(N)(=O)=O)cccc12",
    "NBD methylamine": "CNc1ccc([N+](=O)[O-])c2nonc12",
    "BODIPY": "Cc1cc(C)n2c1C=C1C(C)=CC(C)=[N+]1[B-]2(F)F",
    "Cy3": "CN1/C(=C/C=C/C2=[N+](C)c3ccccc3C2(C)C)C(C)(C)c2ccccc21",
    "porphyrin": "c1ccc(cc1)-c1c2ccc(n2)c(-c2ccccc2)c2ccc([nH]2)c(-c2ccccc2)c2ccc(n2)c(-c2ccccc2)c2ccc1[nH]2",
    "anthracene": "c1ccc2cc3ccccc3cc2c1",
    "pyrenebutyric acid": "O=C(O)CCCc1ccc2ccc3cccc4ccc1c2c34",
    "perylene": "c1cc2cccc3c4cccc5cccc(c(c1)c23)c45",
    "doxorubicin": "COc1cccc2c1C(=O)c1c(O)c3c(c(O)c1C2=O)CC(O)(C(=O)CO)CC3OC1CC(N)C(O)C(C)O1",
    "harmine": "COc1ccc2c(c1)[nH]c1c(C)nccc12",
    "alpha-carboline": "c1ccc2c(c1)[nH]c1ncccc12",
    "quinine": "C=CC1CN2CCC1CC2C(O)c1ccnc2ccc(OC)cc12",
    "camptothecin": "CCC1(O)C(=O)OCc2c1cc1n(c2=O)Cc2cc3ccccc3nc2-1",
    "berberine": "COc1ccc2cc3[n+](cc2c1OC)CCc1cc2c(cc1-3)OCO2",
    "riboflavin": "Cc1cc2nc3c(=O)[nH]c(=O)nc-3n(CC(O)C(O)C(O)CO)c2cc1C",
    "thioflavin": "CN(C)c1ccc(-c2nc3ccc(C)cc3s2)cc1",
    "Hoechst 33342": "CCOc1ccc(-c2nc3cc(-c4nc5cc(N6CCN(C)CC6)ccc5[nH]4)ccc3[nH]2)cc1",
    "quercetin": "O=c1c(O)c(-c2ccc(O)c(O)c2)oc2cc(O)cc(O)c12",
    "dimethylaminostilbene": "CN(C)c1ccc(/C=C/c2ccccc2)cc1",
    "distyrylbenzene": "C(=Cc1ccc(C=Cc2ccccc2)cc1)c1ccccc1",
    "terthiophene": "c1csc(c1)-c1ccc(s1)-c1cccs1",
    "ellipticine": "Cc1c2ccncc2c(C)c2[nH]c3ccccc3c12",
    "ethidium": "CC[n+]1c(-c2ccccc2)c2cc(N)ccc2c2ccc(N)cc12",
    "curcumin": "COc1cc(/C=C/C(=O)CC(=O)/C=C/c2ccc(O)c(OC)c2)ccc1O",
    "curcumin, enol": "COc1cc(/C=C/C(=O)C=C(O)/C=C/c2ccc(O)c(OC)c2)ccc1O",
}


def test_reactive_groups_are_named_and_drugs_are_not_flagged():
    assert all(reactive(list(REACTIVE.values())))
    assert not any(reactive(list(DRUGS.values())))
    assert _reactive_catalog().GetNumEntries() == 31 + 180


def test_fluorophores_are_named_and_drugs_are_not_flagged():
    found = fluorophores(list(SHINING.values()))
    assert all(found), [name for name, text in zip(SHINING, found, strict=True) if not text]
    assert not any(fluorophores(list(DRUGS.values())))
    used = {name for text in found for name in text.split("; ")}
    assert used == set(FLUOROPHORES)  # no pattern without an example, none that cannot be read


def test_few_compounds_of_a_screening_library_are_flagged(shared_data):
    smiles = pd.read_parquet(shared_data / "labels-hti209" / "label_matrix.parquet", columns=["smiles"])["smiles"][::20]
    assert 0.005 < (fluorophores(smiles.tolist()) != "").mean() < 0.05
    assert 0.02 < (reactive(smiles.tolist()) != "").mean() < 0.15
