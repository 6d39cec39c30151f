from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenohit.config import ActivitySource, CurateConfig
from phenohit.errors import ColumnError, ConfigError, LabelError, StructureError
from phenohit.labels.curate_records import read_records
from phenohit.labels.rules import bound_votes, unit_of, vote_of

MAP = {"compound": "cid", "assay": "assay", "type": "type", "relation": "rel", "value": "value", "units": "units"}


def read(tmp_path, table, columns=None, thresholds=(), name="t.csv", sep=",", **curate):
    path = tmp_path / name
    table.to_csv(path, index=False, sep=sep)
    columns = {k: v for k, v in MAP.items() if v in table} if columns is None else columns
    return read_records(
        ActivitySource(path=str(path), format="records", columns=columns, thresholds=list(thresholds),
                       curate=CurateConfig(**curate))
    )  # fmt: skip


def rows(*records) -> pd.DataFrame:
    return pd.DataFrame(records, columns=["cid", "assay", "type", "rel", "value", "units"])


def cells(found):
    coo = found.labels.Y.tocoo()
    names, tasks = found.labels.compounds["compound"].tolist(), found.labels.task_names
    return {(names[i], tasks[j]): float(v) for i, j, v in zip(coo.row, coo.col, coo.data, strict=True)}


def fates(found):
    return found.fates.set_index("fate")["n"].to_dict()


def test_in_house_concentrations_are_converted(tmp_path):
    table = rows(
        ("a", "x", "IC50", "=", "1", "uM"), ("b", "x", "IC50", "", "2000", "nM"),
        ("c", "x", "ic50", "=", "0.0001", "mM"),
        ("d", "x", "pIC50", "=", "6.2", ""), ("e", "x", "IC50", "=", "5", "%"), ("f", "x", "Ki", "=", "5", "nM"),
        ("g", "x", "IC50", "=", "n.d.", "nM"), ("", "x", "IC50", "=", "5", "nM"), ("h", "", "IC50", "=", "5", "nM"),
        ("i", "x", "IC50", "=", "1", "M"), ("j", "x", "pIC50", "=", "6.2", "nM"), ("k", "x", "IC50", "~", "5", "nM"),
    )  # fmt: skip
    found = read(tmp_path, table, thresholds=[6])
    assert cells(found) == {
        ("a", "x >= 6"): 1, ("b", "x >= 6"): 0, ("c", "x >= 6"): 1, ("d", "x >= 6"): 1,
    }  # fmt: skip
    assert fates(found) == {
        "value": 4, "units": 2, "type": 1, "no value": 1, "compound": 1, "assay": 1, "range": 1, "relation": 1,
    }  # fmt: skip
    assert sum(fates(found).values()) == len(table)


def test_a_sign_before_the_number_counts(tmp_path):
    table = rows(("a", "x", "IC50", "", "> 10000", "nM"), ("b", "x", "IC50", "", "<10", "nM"),
                 ("c", "x", "IC50", "", "=100", "nM"))  # fmt: skip
    found = read(tmp_path, table, censored="decide", thresholds=[5.5, 7.5])
    assert cells(found) == {
        ("a", "x >= 5.5"): 0, ("a", "x >= 7.5"): 0, ("b", "x >= 5.5"): 1, ("b", "x >= 7.5"): 1,
        ("c", "x >= 5.5"): 1, ("c", "x >= 7.5"): 0,
    }  # fmt: skip
    assert fates(read(tmp_path, table)) == {"value": 1, "censored": 2}


def test_a_bound_settles_only_what_it_implies_and_only_without_an_exact_value(tmp_path):
    table = rows(
        ("a", "x", "IC50", ">", "10000", "nM"),  # pIC50 < 5: inactive at 5 too
        ("b", "x", "IC50", ">=", "10000", "nM"),  # pIC50 <= 5: nothing is known at 5
        ("c", "x", "IC50", "<=", "100", "nM"),  # pIC50 >= 7
        ("d", "x", "pIC50", "<", "5", ""),  # the sign speaks of the logarithm
        ("e", "x", "IC50", ">", "10000", "nM"), ("e", "x", "IC50", "=", "10", "nM"),
        ("f", "x", "IC50", ">", "10000", "nM"), ("f", "x", "IC50", "<", "10", "nM"),  # contradict each other
        ("g", "x", "IC50", ">", "1", "nM"),  # pIC50 < 9: settles nothing here
    )  # fmt: skip
    found = read(tmp_path, table, censored="decide", thresholds=[5, 7])
    assert cells(found) == {
        ("a", "x >= 5"): 0, ("a", "x >= 7"): 0, ("b", "x >= 7"): 0, ("c", "x >= 5"): 1, ("c", "x >= 7"): 1,
        ("d", "x >= 5"): 0, ("d", "x >= 7"): 0, ("e", "x >= 5"): 1, ("e", "x >= 7"): 1,
    }  # fmt: skip
    assert fates(found) == {"value": 1, "bound": 6, "settled": 1, "open bound": 1}
    ties = found.dropped[found.dropped["id"].str.startswith("f in")]
    assert set(ties["reason"]) == {"1 of 2 repeats are active: a tie, taken as not measured"}


@given(p=st.floats(3, 11), bound=st.sampled_from([1, 2, 5, 6]), truth=st.floats(2, 12))
def test_no_bound_says_what_a_value_it_allows_denies(p, bound, truth):
    p, truth = round(p, 6), round(truth, 6)
    allowed = {1: truth > p, 5: truth >= p, 2: truth < p, 6: truth <= p}[bound]
    levels = np.array([4.5, 5.5, 6.5, 7.5, p])
    _, level, active = bound_votes(np.array([p]), np.array([bound], np.int8), levels)
    if allowed:
        assert ((truth >= levels[level]) == active).all()
    settled = {float(levels[k]) for k in level}
    assert settled == {t for t in levels if (t <= p if bound & 1 else t > p or (t == p and not bound & 4))}


def test_contradictory_values_are_left_out_and_listed(tmp_path):
    table = rows(("a", "x", "IC50", "=", "1", "nM"), ("a", "x", "IC50", "=", "1000", "nM"),
                 ("b", "x", "IC50", "=", "10", "nM"), ("b", "x", "IC50", "=", "20", "nM"))  # fmt: skip
    assert len(cells(read(tmp_path, table))) == 6
    found = read(tmp_path, table, max_spread=1.0)
    assert {c for c, _ in cells(found)} == {"b"}
    assert fates(found) == {"value": 2, "spread": 2}
    assert found.values["used"].tolist() == [False, True]
    assert found.dropped["id"].tolist()[-1] == "a in x"
    assert found.dropped["reason"].tolist()[-1] == "2 exact values from 6 to 9: more than curate.max_spread apart"
    b = found.values.iloc[1]
    assert b["value"] == pytest.approx((8 + 9 - math.log10(20)) / 2)


def test_comments_vote_whatever_the_type(tmp_path):
    table = pd.DataFrame({
        "cid": list("aaabbcd"), "assay": "x", "type": "Inhibition", "value": "", "units": "%",
        "note": ["Active", "active", "Not Active", "Active", "inactive", "No Activity", "no data"],
    })  # fmt: skip
    columns = {"compound": "cid", "assay": "assay", "type": "type", "value": "value", "units": "units",
               "comment": "note"}  # fmt: skip
    found = read(tmp_path, table, columns)
    assert cells(found) == {("a", "x comment"): 1, ("c", "x comment"): 0}
    assert found.labels.tasks["kind"].tolist() == ["comment"]
    assert fates(found) == {"comment": 6, "type": 1}
    with pytest.raises(LabelError, match=r"No record of .* can be used"):
        read(tmp_path, table, columns, comments=False)


@pytest.mark.parametrize(
    ("comment", "vote"),
    [("active", 1), ("Active", 1), ("inactive", 0), ("Inactive", 0), ("Not active", 0), ("No activity", 0),
     ("Not Active (inhibition < 50% @ 10 uM and thus dose-reponse curve not measured)", 0), ("Not Determined", -1),
     ("264585", -1), ("", -1), ("No inhibition", -1)],
)  # fmt: skip
def test_spellings_of_comments(comment, vote):
    assert vote_of(comment) == vote


@pytest.mark.parametrize(
    ("units", "exponent"),
    [("nM", 9), ("uM", 6), ("µM", 6), ("μM", 6), ("mM", 3), ("M", 0), ("pM", 12), ("nmol/L", 9), ("mol/L", 0),
     ("ug.mL-1", -1), ("mm", -1), ("%", -1), ("10'5pM", -1), ("", -2)],
)  # fmt: skip
def test_units(units, exponent):
    assert unit_of(units) == exponent


def test_a_column_of_potencies_alone(tmp_path):
    table = pd.DataFrame({"cid": list("abc"), "assay": "x", "pIC50": ["6.1", "<5", "7"]})
    columns = {"compound": "cid", "assay": "assay", "pchembl": "pIC50"}
    found = read(tmp_path, table, columns, thresholds=[6], censored="decide")
    assert cells(found) == {("a", "x >= 6"): 1, ("b", "x >= 6"): 0, ("c", "x >= 6"): 1}


def test_structures_identify_where_there_is_no_id(tmp_path):
    table = pd.DataFrame(
        {"smi": ["CC(=O)O", "[Na+].CC(=O)[O-]", "C1CC", "CCO", ""], "assay": "x", "p": [5, 6, 7, 8, 9]}
    )
    found = read(tmp_path, table, {"smiles": "smi", "assay": "assay", "pchembl": "p"}, thresholds=[5.5])
    assert len(found.labels.compounds) == 2
    assert found.values["n"].tolist() == [2, 1]  # acid and salt are one compound
    assert fates(found) == {"value": 3, "compound": 2}
    assert "structure" in set(found.dropped["what"])
    bad = pd.DataFrame({"smi": ["C1CC", "xx", "C"], "assay": "x", "p": [5, 6, 7]})
    with pytest.raises(StructureError, match="2 of 3 SMILES"):
        read(tmp_path, bad, {"smiles": "smi", "assay": "assay", "pchembl": "p"})


def test_maps_that_say_too_little(tmp_path):
    table = rows(("a", "x", "IC50", "=", "1", "nM"))
    for columns, error, message in (
        ({"compund": "cid"}, ConfigError, r"'compund' is not known. Nearest: compound"),
        ({"compound": "cdi"}, ColumnError, r"no column 'cdi' \(activities.columns.compound\). Nearest: cid"),
        ({"compound": "cid"}, ConfigError, "names the assay"),
        ({"assay": "assay", "value": "value"}, ConfigError, "needs compound, smiles or inchikey"),
        ({"assay": "assay", "compound": "cid"}, ConfigError, "needs value, pchembl or comment"),
        ({"assay": "assay", "compound": "cid", "value": "value"}, ConfigError, "may be nM or pIC50"),
        ({}, ColumnError, r"is no export of ChEMBL.*activities\.columns"),
    ):
        with pytest.raises(error, match=message):
            read(tmp_path, table, columns)
    with pytest.raises(LabelError, match=r"holds no number but 'n.d.'"):
        read(tmp_path, rows(("a", "x", "IC50", "=", "n.d.", "nM")))
    with pytest.raises(LabelError, match="names no assay"):
        read(tmp_path, rows(("a", "", "IC50", "=", "1", "nM")))


def test_targets_and_assays_choose(tmp_path):
    table = rows(*[(c, a, "IC50", "=", "10", "nM") for c in "ab" for a in ("k1", "k2", "z")])
    table["target"] = table["assay"].map({"k1": "Kinase", "k2": "Kinase", "z": "Other"})
    columns = MAP | {"target_name": "target"}
    found = read(tmp_path, table, columns, targets=["kinase"])
    assert set(found.labels.tasks["assay"]) == {"k1", "k2"}
    assert set(found.labels.tasks["target_name"]) == {"Kinase"}
    assert fates(found) == {"value": 4, "target": 2}
    with pytest.raises(LabelError, match=r"curate.targets names 'Kinas'.*Nearest: Kinase"):
        read(tmp_path, table, columns, targets=["Kinas"])
    assert fates(read(tmp_path, table, columns, assays=["k1"])) == {"value": 2, "assay": 4}
