from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenohit.errors import ConfigError
from phenohit.hits import filter as filters
from phenohit.hits.filter import (
    FILTERS,
    NO_STRUCTURE,
    NOT_CHECKED,
    Evidence,
    flag,
    list_dropped,
    rejected,
    survivors,
)

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
RHODANINE = "O=C1NC(=S)SC1=Cc1ccccc1"
QUINONE = "O=C1C=CC(=O)C=C1"
STRUCTURES = [ASPIRIN, RHODANINE, "", QUINONE]
TABLE = pd.DataFrame({"compound_id": ["aspirin", "rhodanine", "unknown", "quinone"], "smiles": STRUCTURES})


def test_pains_are_dropped_with_their_alert_names():
    table, passed = survivors(TABLE, np.inf)
    kept, dropped = table[passed], list_dropped(table, ["pains"])
    assert kept["compound_id"].tolist() == ["aspirin", "unknown"]
    assert kept["pains"].tolist() == ["", NO_STRUCTURE]
    assert dropped["id"].tolist() == ["rhodanine", "quinone"]
    assert dropped["reason"].str.contains("PAINS alert: ").all()
    assert "ene_rhod_A" in dropped["reason"].iloc[0]
    assert "quinone_A" in dropped["reason"].iloc[1]


def test_alerts_only_mark_where_nothing_is_dropped():
    table, passed = survivors(TABLE, 10, drop=(), mark=("pains",))
    assert passed.all()
    assert table["pains"].map(bool).tolist() == [False, True, True, True]


@pytest.fixture
def looked(monkeypatch):
    """Replace the chemistry by a rule on text, and note which rows are looked at."""
    seen: list[str] = []

    def rule(table, evidence):
        seen.extend(table["smiles"])
        return np.where(table["smiles"].str.startswith("bad"), "rule", "").astype(object)

    monkeypatch.setattr(filters, "pains", rule)
    return seen


def test_half_a_million_candidates_are_hardly_looked_at(looked):
    N = 500_000
    smiles = np.where(np.arange(N) % 5 == 0, "bad", "good").astype(object) + np.arange(N).astype(str).astype(object)
    table = pd.DataFrame({"compound_id": np.arange(N).astype(str), "smiles": smiles})
    found, passed = survivors(table, 1_000)
    assert passed.sum() == 1_000
    assert len(looked) < 1_400
    assert len(set(looked)) == len(looked)
    assert (found["pains"] == NOT_CHECKED).sum() == N - len(looked)


@given(st.lists(st.booleans(), max_size=400), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_survivors_are_the_first_that_pass(bad, enough):
    table = pd.DataFrame({"compound_id": [str(i) for i in range(len(bad))], "smiles": ["C"] * len(bad)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            filters,
            "pains",
            lambda t, evidence: np.where([bad[int(i)] for i in t["compound_id"]], "x", "").astype(object),
        )
        found, passed = survivors(table, enough)
    expected = [i for i, b in enumerate(bad) if not b][:enough]
    assert np.flatnonzero(passed).tolist() == expected
    checked = (found["pains"] != NOT_CHECKED).to_numpy()
    assert all((found["pains"].iloc[i] == "x") == bad[i] for i in np.flatnonzero(checked))


def test_an_empty_table_has_no_survivors():
    found, passed = survivors(TABLE.iloc[:0], 5)
    assert len(passed) == 0
    assert "pains" in found


FLUORESCEIN = "O=C1OC2(c3ccc(O)cc3Oc3cc(O)ccc32)c2ccccc12"


def background(**z) -> pd.DataFrame:
    return pd.DataFrame({"compound": list(z), "channel": "DNA", "z": np.float32(list(z.values())), "reference": "DMSO"})


def test_autofluorescence_is_measured_or_seen_in_the_structure():
    table = pd.DataFrame(
        {
            "compound": ["dark", "bright", "dye", "bright dye", "dye, not measured", "nothing", "dark, no structure"],
            "compound_id": "x",
            "smiles": [ASPIRIN, ASPIRIN, FLUORESCEIN, FLUORESCEIN, FLUORESCEIN, "", ""],
        }
    )
    seen = background(**{"dark": 1.0, "bright": 8.04, "dye": 0.3, "bright dye": 20.0, "dark, no structure": 0.0})
    found = flag(table, "autofluorescent", Evidence(background=seen)).tolist()
    assert found == [
        "",
        "measured: background of DNA 8.0 robust SD above DMSO",
        "structure: xanthene dye; fluorescein (the background of its wells is not raised)",
        "measured: background of DNA 20.0 robust SD above DMSO; structure: xanthene dye; fluorescein",
        "structure: xanthene dye; fluorescein",
        NO_STRUCTURE,
        "",
    ]
    assert flag(table, "autofluorescent", Evidence())[:3].tolist() == ["", "", "structure: xanthene dye; fluorescein"]


def test_the_brain_is_wanted_or_not():
    smiles = {
        "diazepam": "CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc21",
        "atenolol": "CC(C)NCC(O)COc1ccc(CC(N)=O)cc1",
        "nothing": "",
    }
    table = pd.DataFrame({"compound": list(smiles), "compound_id": list(smiles), "smiles": list(smiles.values())})
    keep, reject = (flag(table, "cns", Evidence(cns=way)) for way in ("keep", "reject"))
    assert keep.tolist() == ["", "unlikely to enter the brain (logP 0.5, polar surface 85 Å²)", NO_STRUCTURE]
    assert reject.tolist() == ["likely to enter the brain (logP 3.2, polar surface 33 Å²)", "", NO_STRUCTURE]


def test_every_compound_is_judged_by_the_rule_in_one_direction_only(real):
    table = real["compounds"].iloc[:300]
    keep, reject = (rejected(flag(table, "cns", Evidence(cns=way))) for way in ("keep", "reject"))
    assert (keep ^ reject).all()
    assert 0.1 < keep.mean() < 0.9


def test_a_compound_lost_to_several_filters_is_listed_once_with_all_reasons():
    table, passed = survivors(TABLE, np.inf, drop=("pains", "reactive"))
    assert passed.tolist() == [True, False, True, False]
    lost = list_dropped(table, ["pains", "reactive"], "a task")
    assert lost["id"].tolist() == ["rhodanine", "quinone"]
    assert lost["stage"].eq("filter hits for a task").all()
    assert re.fullmatch(r"PAINS alert: quinone_A.*; reactive or unwanted group: .*para_quinone.*", lost["reason"][1])
    assert len(list_dropped(table, [])) == 0


def test_every_filter_of_the_table_can_be_run_on_nothing_and_on_everything():
    table = TABLE.assign(compound=TABLE["compound_id"])
    for name in FILTERS:
        for part in (table, table.iloc[:0]):
            found = flag(part, name, Evidence(cns="keep"))
            assert found.shape == (len(part),)
            assert all(isinstance(text, str) for text in found)


def test_an_unknown_filter_is_refused():
    with pytest.raises(ConfigError, match="Nearest: pains"):
        flag(TABLE, "pain", Evidence())
