"""The section on the replayed campaign: what is read out of the table, and what is drawn of it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from phenohit.evaluate.enrichment import MEASURES
from phenohit.files import read_table, write_table
from phenohit.report.enrichment import enrichment_bar, enrichment_facts
from phenohit.report.results import split_facts


@pytest.fixture(scope="module")
def split(run_folder):
    return split_facts(run_folder / "splits" / "series")


@pytest.fixture(scope="module")
def table(run_folder):
    return read_table(run_folder / "splits" / "series" / "enrichment.parquet")[0]


def test_facts_are_those_of_the_table(split, table):
    facts = split["enrichment"]
    assert [m["name"] for m in facts["methods"]] == [m["name"] for m in split["methods"]]
    assert facts["n_tasks"] == table["task"].nunique()
    for method in facts["methods"]:
        mine = table[table["method"] == method["name"]]
        for measure in MEASURES:
            values = mine.loc[mine["measure"] == measure, "value"].dropna()
            assert method["cells"][measure]["n_tasks"] == len(values)
            assert method["cells"][measure]["mean"] == pytest.approx(values.mean())
    assert {pair["label"] for pair in facts["compared"]} == {
        m["label"] for m in split["methods"] if m["kind"] == "image"
    }


def test_the_sentence_counts_what_the_table_counts(split, table):
    found, at_random, times = re.search(
        r"hold ([\d,]+) actives, where random picks find ([\d,]+): ([\d.]+) times", split["enrichment"]["told"]
    ).groups()
    mine = table[(table["method"] == split["lead"]) & (table["measure"] == "top 5 %") & table["value"].notna()]
    assert int(found.replace(",", "")) == round(mine["found"].sum())
    assert int(at_random.replace(",", "")) == round(mine["expected"].sum())
    assert float(times) == pytest.approx(mine["found"].sum() / mine["expected"].sum(), abs=0.05)


def test_absent_or_without_a_value(split, table, tmp_path):
    assert enrichment_facts(tmp_path / "none.parquet", split["methods"], split["lead"]) is None
    write_table(tmp_path / "e.parquet", table.assign(value=float("nan"), difference=float("nan")))
    facts = enrichment_facts(tmp_path / "e.parquet", split["methods"], split["lead"])
    assert facts["measures"] == []
    assert facts["told"] == ""
    assert facts["compared"] == []


def test_bars_stay_in_their_box_and_are_xml():
    cell = {"mean": 3.0, "low": 1.0, "high": 9.0, "random": 1.0}
    for one in (cell, cell | {"low": None, "high": None}, dict.fromkeys(cell)):
        drawn = ElementTree.fromstring(str(enrichment_bar(one, 4.0, "image")))
        for element in drawn:
            for key, value in element.attrib.items():
                if key.startswith(("x", "cx")):
                    assert 0 <= float(value) <= 120


def test_the_report_holds_the_section(report):
    text = report.read_text()
    assert 'id="replayed"' in text
    assert "Against the same model on chemistry alone" in text
