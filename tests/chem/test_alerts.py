from __future__ import annotations

from rdkit import Chem
from rdkit.Chem import FilterCatalog

from phenohit.chem.alerts import _catalog, pains

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
