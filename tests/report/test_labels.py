"""The section on labels, against the tables it is made from."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenohit.data.labels import Labels
from phenohit.errors import FileError
from phenohit.files import read_table, write_json, write_table
from phenohit.labels.overlap import warn_duplicates
from phenohit.labels.rules import FATES, USED
from phenohit.report.build import build_report
from phenohit.report.labels import _flows, _per_compound, _weighted_median, labels_facts


@pytest.fixture(scope="module")
def facts(run_folder) -> dict:
    found = labels_facts(run_folder)
    assert found is not None
    return found


def test_nothing_is_shown_without_statistics(tmp_path):
    assert labels_facts(tmp_path) is None
    write_json(tmp_path / "manifest.json", {"name": "begun"})
    text = build_report(tmp_path).read_text(encoding="utf-8")
    assert 'href="#labels"' not in text
    assert 'id="labels"' not in text


def test_the_section_and_its_link_are_on_the_page(report):
    text = report.read_text(encoding="utf-8")
    assert text.count('href="#labels"') == text.count('id="labels"') == 1
    assert text.index('id="plates"') < text.index('id="labels"') < text.index('id="splits"')


def test_counts_are_those_of_the_matrix(facts, run_folder):
    labels = Labels.load(run_folder / "labels.parquet")
    n = np.diff(labels.Y.tocsc().indptr)
    labelled = int((np.diff(labels.Y.indptr) > 0).sum())
    assert facts["told"][0].startswith(f"{labels.Y.nnz:,} labels on {labelled} compounds and 26 tasks: ")
    assert facts["sizes"]["n"] == sorted(n.tolist(), reverse=True)
    assert facts["sizes"]["median"] == np.median(n)
    active = np.asarray(labels.Y.sum(axis=0)).ravel()
    assert sum(facts["sizes"]["active"]) == active.sum()
    assert facts["shares"]["median"] == pytest.approx(np.median(active / n))
    assert sum(facts["shares"]["n"]) == 26
    assert sum(facts["compounds"]["n"]) == len(labels)
    assert facts["compounds"]["without"] == len(labels) - labelled
    per_row = np.diff(labels.Y.indptr)
    assert facts["compounds"]["median"] == pytest.approx(np.median(per_row[per_row > 0]), abs=1)


def test_repeats_hold_every_pair(facts, run_folder):
    table, _ = read_table(run_folder / "statistics" / "repeats.parquet")
    assert sum(facts["repeats"]["n"]) == table["n_pairs"].sum() == 3000
    several = table[table["n"] > 1]
    assert facts["repeats"]["several"] == pytest.approx(several["n_pairs"].sum() / 3000)
    assert facts["repeats"]["apart"] == pytest.approx(np.average(several["mean_spread"], weights=several["n_pairs"]))


def test_tasks_are_counted_by_kind_and_threshold(facts):
    groups = {g["title"]: {row["name"]: row["n"] for row in g["rows"]} for g in facts["groups"]}
    assert sum(groups["Kind of label"].values()) == 26
    assert groups["Threshold"] == {"≥ 5": 1, "≥ 6": 2, "≥ 7": 1}
    assert list(groups["Threshold"]) == ["≥ 5", "≥ 6", "≥ 7"]


def test_fates_of_records_add_up(facts):
    flow = facts["flows"][0]
    assert flow["source"] == "chembl.db"  # without its folder
    assert flow["n"] == 4821 + 512 + 221 + 61200 + 40231 + 182013
    assert flow["used"] == flow["out"][-1]["left"] == sum(use["n"] for use in flow["uses"]) == 4821 + 512 + 221
    assert facts["flows"][1]["out"] == []


@given(st.lists(st.tuples(st.sampled_from(FATES), st.sampled_from("ab"), st.integers(0, 10**9)), max_size=40))
def test_any_fates_add_up(rows):
    table = pd.DataFrame(rows, columns=["fate", "source", "n"]).assign(reason="")
    table["used"] = [FATES.index(f) < USED for f in table["fate"]]
    for flow in _flows(table):
        assert flow["n"] == sum(n for _, source, n in rows if source == flow["source"])
        assert flow["n"] - sum(row["n"] for row in flow["out"]) == flow["used"] == sum(u["n"] for u in flow["uses"])
        assert all(0 <= row["left"] <= flow["n"] for row in flow["out"])


def test_fates_may_stand_among_the_statistics(run_folder, tmp_path):
    (tmp_path / "statistics").mkdir()
    table = pd.DataFrame({"source": "x", "rule": ["value", "units"], "n": [3, 4]})
    write_table(tmp_path / "statistics" / "fates.parquet", table)
    flow = labels_facts(tmp_path)["flows"][0]
    assert (flow["n"], flow["used"], flow["out"][0]["fate"]) == (7, 3, "units")


def pairs(**changes) -> pd.DataFrame:
    """Three pairs: a near duplicate, a small one and two thresholds of one assay."""
    table = pd.DataFrame(
        {"task_a": ["A", "C", "E >= 5"], "task_b": ["B", "D", "E >= 6"], "same_assay": [False, False, True],
         "n_a": [100, 10, 90], "n_b": [60, 10, 90], "n_both": [50, 10, 90], "jaccard": [0.45, 1.0, 1.0],
         "n_equal": [40, 10, 80], "equal_share": [40 / 60, 1.0, 80 / 90], "equal_jaccard": [0.33, 1.0, 0.8],
         "hits_iou": [0.5, np.nan, 0.9]}
    )  # fmt: skip
    return table.assign(**changes)


def test_near_duplicates_are_those_that_the_run_warns_of(tmp_path, caplog):
    (tmp_path / "statistics").mkdir()
    write_table(tmp_path / "tasks.overlap.parquet", pairs())
    found = labels_facts(tmp_path)["overlap"]
    with caplog.at_level(logging.WARNING):
        told = warn_duplicates(pairs())
    assert [(row["a"], row["b"]) for row in found["rows"] if row["alike"]] == list(
        zip(told["task_a"], told["task_b"], strict=True)
    )
    assert [row["a"] for row in found["rows"]] == ["A", "C"]  # thresholds of one assay are alike by nature
    assert (found["n"], found["n_same"], found["n_alike"]) == (2, 1, 1)
    write_json(tmp_path / "manifest.json", {"name": "overlap"})
    text = build_report(tmp_path).read_text(encoding="utf-8")
    assert "<strong>Caution:</strong> 1 pair of tasks of different assays repeat" in text


def test_no_caution_without_duplicates(tmp_path):
    (tmp_path / "statistics").mkdir()
    write_table(tmp_path / "tasks.overlap.parquet", pairs(equal_share=0.1))
    write_json(tmp_path / "manifest.json", {"name": "overlap"})
    text = build_report(tmp_path).read_text(encoding="utf-8")
    assert "repeat half or more" not in text
    assert "near duplicate</span>" not in text


@given(st.dictionaries(st.integers(0, 9000), st.integers(1, 50), min_size=1))
def test_bars_of_labels_per_compound_hold_every_compound(counts):
    levels = sorted(counts)
    table = pd.DataFrame({"n_labels": levels, "n_compounds": [counts[n] for n in levels]})
    found = _per_compound(table)
    assert sum(found["n"]) == sum(counts.values())
    for name, n in zip(found["names"], found["n"], strict=True):
        low, _, high = name.partition("–")
        assert n == sum(k for level, k in counts.items() if int(low) <= level <= int(high or low))


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 9)), min_size=1))
def test_weighted_median(pairs_):
    values, weights = (np.array(v) for v in zip(*pairs_, strict=True))
    every = np.sort(np.repeat(values, weights))
    assert _weighted_median(values, weights) == every[(len(every) - 1) // 2]


def test_tasks_of_numbers_have_no_active_share(tmp_path):
    tasks = pd.DataFrame({"task": ["a", "b"], "assay": ["a", "b"], "kind": "value", "n_labels": [5, 9], "n_active": 3})
    write_table(tmp_path / "statistics" / "tasks.parquet", tasks.assign(active_share=np.nan))
    found = labels_facts(tmp_path)
    assert found["shares"] is None
    assert found["sizes"]["active"] == [0, 0]
    write_json(tmp_path / "manifest.json", {"name": "numbers"})
    assert "Active share per task" not in build_report(tmp_path).read_text(encoding="utf-8")


def test_a_thousand_tasks_are_drawn_in_few_steps(tmp_path):
    n = np.random.default_rng(0).integers(10, 5000, 3000)
    tasks = pd.DataFrame({"task": [f"t{i}" for i in range(3000)], "kind": "binary", "n_labels": n, "n_active": n // 3})
    write_table(tmp_path / "statistics" / "tasks.parquet", tasks.assign(active_share=1 / 3))
    sizes = labels_facts(tmp_path)["sizes"]
    assert (len(sizes["n"]), sizes["total"]) == (400, 3000)
    assert sizes["n"] == sorted(sizes["n"], reverse=True)
    write_json(tmp_path / "manifest.json", {"name": "many"})
    build_report(tmp_path)


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "statistics").mkdir()
    (tmp_path / "statistics" / "matrix.parquet").write_bytes(b"PAR1")
    with pytest.raises(FileError, match=r"matrix\.parquet"):
        labels_facts(tmp_path)
