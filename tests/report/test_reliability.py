"""The reliability diagram: what is read out of the calibration table, and what is drawn of it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from phenohit.evaluate.calibration import ALL, GROUPS
from phenohit.files import read_table, write_table
from phenohit.report.reliability import HIGH, WIDE, read_bins, reliability_chart, reliability_facts
from phenohit.report.results import split_facts


@pytest.fixture(scope="module")
def split(run_folder):
    return split_facts(run_folder / "splits" / "series")


@pytest.fixture(scope="module")
def table(run_folder):
    return read_table(run_folder / "splits" / "series" / "calibration.parquet")[0]


def test_facts_are_those_of_the_table(split, table):
    facts = split["reliability"]
    assert [m["name"] for m in facts["methods"]] == [m["name"] for m in split["methods"]]
    assert facts["chosen"] == split["lead"]
    assert facts["groups"] == list(GROUPS)
    assert facts["grouped_by"] == "labels in training"
    for method in facts["methods"]:
        mine = table[table["method"] == method["name"]]
        every = mine[mine["group"] == ALL]
        assert (method["brier"], method["ece"]) == pytest.approx((every["brier"].iloc[0], every["ece"].iloc[0]))
        assert [b["n"] for b in method["bins"]] == every["n"].tolist()
        for group, row in method["groups"].items():
            first = mine[mine["group"] == group].iloc[0]
            assert row["brier_skill"] == pytest.approx(first["brier_skill"])
            assert row["n_entries"] == first["n_entries"]
    assert facts["methods"][0]["reading"] == "too high"  # the scores of this run know no base rate


def test_the_sentence_reads_one_bin(split):
    facts = split["reliability"]
    lead = next(m for m in facts["methods"] if m["name"] == facts["chosen"])
    low, n_active, n = re.search(r"probability of (\d+)% to .*?, ([\d,]+) of ([\d,]+) held-out", facts["told"]).groups()
    b = lead["bins"][int(low) // 10]
    assert (b["n_active"], b["n"]) == (int(n_active.replace(",", "")), int(n.replace(",", "")))


def bins(score, share, n=10_000):
    score, share = np.array(score), np.array(share)
    return pd.DataFrame(
        {
            "n": n,
            "score_mean": score,
            "share": share,
            "ece": np.abs(score - share).mean(),
            "ece_calibrated": 0.004,
        }
    )


@pytest.mark.parametrize(
    ("share", "reading"),
    [
        ([0.11, 0.29, 0.5, 0.71, 0.9], "right"),
        ([0.02, 0.2, 0.4, 0.6, 0.8], "high"),
        ([0.2, 0.4, 0.6, 0.8, 0.99], "low"),
        ([0.3, 0.4, 0.5, 0.6, 0.7], "extreme"),
        ([0.01, 0.15, 0.5, 0.85, 0.99], "timid"),
    ],
)
def test_in_which_way_they_are_off(share, reading):
    score = [0.1, 0.3, 0.5, 0.7, 0.9]
    assert read_bins(bins(score, share)) == reading
    assert read_bins(bins(score, share).assign(ece_calibrated=0.2)) == "right"  # so few labels say nothing


def test_a_method_without_probabilities_says_why(run_folder, table, split, tmp_path):
    methods = split["methods"]
    first = table[table["method"] == split["lead"]].head(1).assign(bin=-1, brier=np.nan, skipped="its kind is pIC50")
    rest = table[table["method"] == "rate-base"]
    write_table(tmp_path / "calibration.parquet", pd.concat([first, rest]))
    facts = reliability_facts(tmp_path / "calibration.parquet", methods, split["lead"])
    assert [m["name"] for m in facts["methods"]] == ["rate-base"]
    assert facts["chosen"] == "rate-base"
    assert facts["skipped"][0]["why"] == "its kind is pIC50"
    write_table(tmp_path / "calibration.parquet", first)
    facts = reliability_facts(tmp_path / "calibration.parquet", methods, split["lead"])
    assert (facts["methods"], facts["chosen"], facts["told"]) == ([], "", "")
    assert reliability_facts(tmp_path / "absent.parquet", methods, split["lead"]) is None


def test_the_drawing(split):
    facts = split["reliability"]
    drawn = ElementTree.fromstring(str(reliability_chart(facts, 'a "label" <b>')))
    assert drawn.get("aria-label") == 'a "label" <b>'
    groups = [g for g in drawn.iter("g") if "method" in (g.get("class") or "")]
    assert [g.get("data-method") for g in groups if "chosen" in g.get("class")] == [facts["chosen"]]
    assert groups[-1].get("data-method") == facts["chosen"]  # on top
    for g in groups:
        method = next(m for m in facts["methods"] if m["name"] == g.get("data-method"))
        filled = [b for b in method["bins"] if b["n"]]
        marks = {p.get("class"): p.get("d") for p in g.iter("path")}
        places = [tuple(map(float, xy)) for xy in re.findall(r"M([\d.]+) ([\d.]+)h0", marks["dots"])]
        assert len(places) == marks["whiskers"].count("M") == len(filled)
        for b, (x, y) in zip(filled, places, strict=True):
            assert x == pytest.approx(56 + (WIDE - 68) * b["score_mean"], abs=0.06)
            assert y == pytest.approx(412 - 400 * b["share"], abs=0.06)
        bars = [r for r in g.iter("rect") if r.get("class") == "count"]
        assert len(bars) == len(filled)
        assert all(0 <= float(r.get("y")) <= float(r.get("y")) + float(r.get("height")) <= HIGH for r in bars)
        assert len(list(g.iter("title"))) == len(filled) + 1


def test_a_run_of_an_earlier_version_has_no_such_section(run_folder, tmp_path):
    from phenohit.files import write_json
    from phenohit.report.build import build_report

    (tmp_path / "splits" / "series").mkdir(parents=True)
    for name in ("metrics.parquet", "summary.json", "folds.parquet"):
        (tmp_path / "splits" / "series" / name).symlink_to(run_folder / "splits" / "series" / name)
    write_json(tmp_path / "manifest.json", {"name": "old"})
    assert 'id="probabilities"' not in build_report(tmp_path).read_text(encoding="utf-8")
