from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenohit.hits import filter as filters
from phenohit.hits.filter import NO_STRUCTURE, NOT_CHECKED, drop_pains, survivors

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
RHODANINE = "O=C1NC(=S)SC1=Cc1ccccc1"
QUINONE = "O=C1C=CC(=O)C=C1"
STRUCTURES = [ASPIRIN, RHODANINE, "", QUINONE]
TABLE = pd.DataFrame({"compound_id": ["aspirin", "rhodanine", "unknown", "quinone"], "smiles": STRUCTURES})


def test_pains_are_dropped_with_their_alert_names():
    kept, dropped = drop_pains(TABLE, 1)
    assert kept["compound_id"].tolist() == ["aspirin", "unknown"]
    assert kept["pains"].tolist() == ["", NO_STRUCTURE]
    assert dropped["id"].tolist() == ["rhodanine", "quinone"]
    assert dropped["reason"].str.contains("PAINS alert: ").all()
    assert "ene_rhod_A" in dropped["reason"].iloc[0]
    assert "quinone_A" in dropped["reason"].iloc[1]


def test_alerts_only_mark_where_nothing_is_dropped():
    table, passed = survivors(TABLE, 10, drop=())
    assert passed.all()
    assert table["pains"].map(bool).tolist() == [False, True, True, True]


@pytest.fixture
def looked(monkeypatch):
    """Replace the chemistry by a rule on text, and note which rows are looked at."""
    seen: list[str] = []

    def rule(table, *, jobs):
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
            lambda t, *, jobs: np.where([bad[int(i)] for i in t["compound_id"]], "x", "").astype(object),
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
