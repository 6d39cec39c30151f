"""Which assays each method predicts: what the page says and draws is what the files hold."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from phenohit.files import write_json
from phenohit.report.build import build_report
from phenohit.report.comparison import comparison_facts, exactly
from phenohit.report.results import split_facts
from phenohit.report.upset import COLUMNS, upset, venn, venn_counts


@pytest.fixture(scope="module")
def split(run_folder):
    return split_facts(run_folder / "splits" / "series")


@pytest.fixture(scope="module")
def facts(split):
    return split["comparison"]


@pytest.fixture(scope="module")
def auroc(run_folder):
    """AUROC by task (and by assay under Simm's rule) from assays.csv, on its own."""
    table = pd.read_csv(run_folder / "splits" / "series" / "assays.csv", keep_default_na=False, na_values=[""])
    columns = [c for c in table if c.endswith(".auroc")]
    task = table.set_index("task")[columns].rename(columns=lambda c: c.removesuffix(".auroc"))
    counted = table[table["counted"]]
    assay = counted.groupby("assay", sort=False)[columns].max().rename(columns=lambda c: c.removesuffix(".auroc"))
    return {"task": task, "assay": assay}


def test_counts_are_those_of_the_table(facts, auroc):
    keys = [(v["unit"], float(v["level"])) for v in facts["variants"]]
    assert facts["sizes"] == {unit: len(table) for unit, table in auroc.items()}
    assert facts["unit"] == "assay"
    for method in facts["methods"]:
        for (unit, level), count in zip(keys, method["counts"], strict=True):
            assert count["count"] == (auroc[unit][method["name"]] > level).sum()
            assert 0 <= count["low"] <= count["expected"] + 3
    shown = [m for m in facts["methods"] if m["kind"] in ("image", "chemistry")]
    joined = {row["label"]: row["counts"] for row in facts["joined"]}
    for (unit, level), union, common in zip(keys, joined["any of the 4 methods"], joined["all 4 methods"], strict=True):
        member = auroc[unit][[m["name"] for m in shown]] > level
        assert (union["count"], common["count"]) == (member.any(axis=1).sum(), member.all(axis=1).sum())


def test_first_drawn_are_the_best_that_are_no_baseline(facts, split):
    kinds = {m["name"]: m["kind"] for m in split["methods"]}
    means = {m["name"]: m["mean"] for m in split["methods"]}
    assert [n for n in kinds if kinds[n] != "baseline"] == facts["shown"]
    best = sorted(facts["shown"], key=lambda n: -means[n])[:3]
    assert sorted(facts["circles"]) == sorted(best)


def test_the_told_numbers_hold(facts, auroc):
    union, n, k, common, most = map(
        int,
        re.search(
            r"(\d+) of (\d+) assays are above 0.7 for at least one of (\d+) .*?, (\d+) for all .*? is (\d+)",
            facts["told"][0],
        ).groups(),
    )
    member = auroc["assay"][facts["shown"]] > 0.7
    assert (union, n, k) == (member.any(axis=1).sum(), len(member), 4)
    assert (common, most) == (member.all(axis=1).sum(), member.sum().max())
    assert "chance" in facts["told"][0]
    image = member[[c for c in member if c.endswith("profiles")]].any(axis=1)
    structure = member[[c for c in member if c.endswith("ecfp")]].any(axis=1)
    complement = next(s for s in facts["told"] if s.startswith("Images reach"))
    expected = [(image & ~structure).sum(), (structure & ~image).sum(), (image & structure).sum()]
    assert [int(v) for v in re.findall(r"\d+", complement)] == expected
    assert facts["told"][-1].startswith("The mean of their ranks has a mean AUROC of 0.")


def test_the_upset_chart(facts, auroc):
    for variant in facts["variants"]:
        drawn = ElementTree.fromstring(str(upset(variant["upset"], label='a "label" <b>')))
        assert drawn.get("aria-label") == 'a "label" <b>'
        member = auroc[variant["unit"]][facts["shown"]] > float(variant["level"])
        groups = [g for g in drawn.iter("g")]
        exact = member[member.any(axis=1)].value_counts()
        assert len(groups) == len(exact)
        reached = 0
        heights = []
        for g in groups:
            dots = next(p for p in g if p.get("class") == "on").get("d").count("h0")
            off = next(p for p in g if p.get("class") == "off").get("d").count("h0")
            assert dots + off == len(facts["shown"])
            count = int(next(t for t in g.iter("text")).text)
            title = g.find("title").text
            assert title.endswith(f": {count} {variant['unit']}{'s' if count != 1 else ''}")
            bar = next(r for r in g.iter("rect") if r.get("class") != "hit")
            heights.append(float(bar.get("height")) / count)
            reached += count
        assert reached == member.any(axis=1).sum()
        assert np.ptp(heights or [0]) < 0.2  # bars are in proportion
        sizes = [int(t.text) for t in drawn if t.tag == "text" and t.get("text-anchor") == "start"]
        assert sizes == member.sum().tolist()


def test_the_venn_diagram(facts, auroc):
    for variant in facts["variants"]:
        member = auroc[variant["unit"]][facts["circles"]] > float(variant["level"])
        drawn = ElementTree.fromstring(str(venn(variant["venn"], label="x")))
        found = {int(g.get("data-part")): int(g.find("text").text) for g in drawn.iter("g")}
        code = member.to_numpy() @ [1, 2, 4]
        assert found == {region: int((code == region).sum()) for region in range(1, 8)}
        assert f"in none: {(code == 0).sum()} of {len(member)}" in [t.text for t in drawn.iter("text")]
        circles = [c for c in drawn if c.tag == "circle"]
        places = {int(g.get("data-part")): g.find("circle") for g in drawn.iter("g")}
        for region, place in places.items():  # each count stands in the circles of its region and in no other
            x, y = float(place.get("cx")), float(place.get("cy"))
            within = [np.hypot(x - float(c.get("cx")), y - float(c.get("cy"))) < float(c.get("r")) - 8 for c in circles]
            assert within == [bool(region >> k & 1) for k in range(3)]


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_circles(n):
    member = [[True] * n, [False] * n, [True] + [False] * (n - 1)]
    chart = {
        "names": ["a & b", "<i>"][:n], "kinds": ["image", "baseline"][:n], "sizes": [2, 1][:n],
        "counts": venn_counts(member), "texts": dict.fromkeys(range(1, 2**n), "<x>"), "outside": "in none: 1 of 3",
    }  # fmt: skip
    drawn = ElementTree.fromstring(str(venn(chart, label="x")))
    found = {int(g.get("data-part")): int(g.find("text").text) for g in drawn.iter("g")}
    assert found == ({1: 2} if n == 1 else {1: 1, 2: 0, 3: 1})
    for g in drawn.iter("g"):
        x, y = float(g.find("circle").get("cx")), float(g.find("circle").get("cy"))
        circles = [c for c in drawn if c.tag == "circle"]
        within = [np.hypot(x - float(c.get("cx")), y - float(c.get("cy"))) < float(c.get("r")) - 8 for c in circles]
        assert within == [bool(int(g.get("data-part")) >> k & 1) for k in range(n)]


def test_many_combinations_are_cut_and_said():
    columns = [{"sets": [k % 6], "n": 40 - k, "kind": "image", "text": "t"} for k in range(33)]
    chart = {"names": list("abcdef"), "kinds": ["image"] * 6, "sizes": [1] * 6, "columns": columns, "y": "", "x": ""}
    drawn = ElementTree.fromstring(str(upset(chart, label="")))
    assert len(list(drawn.iter("g"))) == COLUMNS
    wide = max(float(r.get("x")) + float(r.get("width")) for r in drawn.iter("rect"))
    assert wide <= 640
    none = chart | {"columns": [], "sizes": [0] * 6}
    assert not list(ElementTree.fromstring(str(upset(none, label=""))).iter("g"))


def test_words():
    assert exactly(["a"], 3, 1, "assay") == "a, no other of these: 1 assay"
    assert exactly(["a", "b", "c"], 3, 1200, "task") == "a, b and c: 1,200 tasks"


def test_the_matrix_has_both_halves(facts, run_folder):
    pairs = json.loads((run_folder / "splits/series/agreement.json").read_text())["pairs"]
    known = {frozenset((p["method"], p["other"])): p for p in pairs}
    names = [m["name"] for m in facts["methods"] if m["kind"] != "ensemble"]
    assert len(facts["pairs"]) == len(names)
    for i, row in enumerate(facts["pairs"]):
        for j, cell in enumerate(row["cells"]):
            if i == j:
                assert cell == {"part": "same"}
                continue
            p = known[frozenset((names[i], names[j]))]
            value = p["auroc_spearman" if j > i else "score_spearman"]
            assert cell["value"] == (None if value is None else pytest.approx(value, abs=0.006))


def test_what_the_script_gets(facts, auroc):
    page = facts["page"]
    names = [m["name"] for m in page["methods"]]
    for unit, given in page["units"].items():
        assert given["n"] == len(auroc[unit])
        for level, members in given["above"].items():
            for name, items in zip(names, members, strict=True):
                mine = auroc[unit][name]
                assert {given["names"][i] for i in items} == set(mine.index[mine > float(level)])


def test_a_run_of_one_method_or_of_an_earlier_version_has_no_such_section(run_folder, split, tmp_path):
    assert comparison_facts(tmp_path / "agreement.json", split["methods"]) is None
    path = run_folder / "splits/series/agreement.json"
    assert comparison_facts(path, split["methods"][:1]) is None
    (tmp_path / "splits" / "series").mkdir(parents=True)
    for name in ("metrics.parquet", "summary.json", "folds.parquet"):
        (tmp_path / "splits" / "series" / name).symlink_to(run_folder / "splits" / "series" / name)
    write_json(tmp_path / "manifest.json", {"name": "old"})
    assert 'id="assays"' not in build_report(tmp_path).read_text(encoding="utf-8")


def test_with_one_method_and_a_baseline(run_folder, split):
    given = json.loads((run_folder / "splits/series/agreement.json").read_text())
    kept = ["forest-profiles", "rate-base"]
    given["methods"] = [m for m in given["methods"] if m["name"] in kept]
    given["groups"], given["ensembles"] = {"all": ["forest-profiles"]}, []
    for found in given["sets"]:
        found["groups"] = {"all": found["groups"]["all"] | {"methods": ["forest-profiles"]}}
    path = run_folder / "alone.json"
    write_json(path, given)
    facts = comparison_facts(path, split["methods"])
    path.unlink()
    assert facts["shown"] == facts["circles"] == kept
    assert (facts["told"], facts["ensembles"], facts["joined"]) == ([], [], [])


def test_the_page_without_a_script_says_it_all(report, facts):
    text = report.read_text(encoding="utf-8")
    section = text[text.index('<section id="assays"') : text.index('<section id="probabilities"')]
    assert section.count("<svg") == 2 * 2 * 4  # splits, charts, units and levels
    assert section.count('class="exclusive"') >= 4
    assert "disabled" in section  # no box promises what only the script can do
    assert facts["told"][0].split(".")[0] in section
    for name in ("assays.csv", "agreement.json"):
        assert f'href="splits/series/{name}"' in section
