"""What is read out of a run folder, against the tables it was written from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.profiles import Profiles
from phenohit.errors import FileError, RunError
from phenohit.files import read_table, write_json, write_table, write_text
from phenohit.report.facts import collect, has_images, losses
from phenohit.report.results import leak_facts
from phenohit.report.verdict import verdict


@pytest.fixture(scope="module")
def facts(run_folder):
    return collect(run_folder)


def test_splits_come_in_the_order_of_the_settings(facts, run_folder, tmp_path):
    assert [s["name"] for s in facts["splits"]] == ["series", "compound"]  # not alphabetical: config.yaml says so
    write_json(tmp_path / "manifest.json", {"splits": ["compound", "series"]})
    (tmp_path / "splits").symlink_to(run_folder / "splits")
    assert [s["name"] for s in collect(tmp_path)["splits"]] == ["compound", "series"]


def test_methods_are_grouped_and_the_best_image_method_leads(facts, run_folder):
    table, _ = read_table(run_folder / "splits/series/metrics.parquet")
    mean = table.groupby("method")["auroc"].mean()
    split = facts["splits"][0]
    assert [m["kind"] for m in split["methods"]] == ["image"] * 2 + ["chemistry"] * 2 + ["baseline"] * 3
    assert split["lead"] == mean[["forest-profiles", "network-profiles"]].idxmax()
    for method in split["methods"]:
        assert method["mean"] == pytest.approx(mean[method["name"]])
        assert method["n_undefined"] == 1


def test_counts_come_with_their_chance_level(facts, run_folder):
    summary = json.loads((run_folder / "splits/series/summary.json").read_text())
    table, _ = read_table(run_folder / "splits/series/metrics.parquet")
    for method in facts["splits"][0]["methods"]:
        auroc = table.loc[table["method"] == method["name"], "auroc"]
        for level, count in zip((0.9, 0.8, 0.7), method["counts"], strict=True):
            assert count["count"] == (auroc > level).sum()
            assert count["expected"] == summary[method["name"]]["above"][str(level)]["expected"]


def test_the_verdict_counts_what_the_table_says(facts, run_folder):
    split = facts["splits"][0]
    table, _ = read_table(run_folder / "splits/series/metrics.parquet")
    above = int((table.loc[table["method"] == split["lead"], "auroc"] > 0.7).sum())
    first = facts["verdict"]["sentences"][0]
    assert first.startswith(f"Of 26 tasks, {above} are predicted above AUROC 0.7 from morphology (chance: ")
    assert facts["verdict"]["tiles"][0]["value"] == str(above)
    assert facts["verdict"]["alarm"] == ""
    values = split["tasks"]["values"][split["lead"]]["auroc"]
    codes = split["tasks"]["readings"][split["lead"]]
    kept = sum(c == 0 and v is not None and v > 0.7 for c, v in zip(codes, values, strict=True))
    assert f"{kept} of these are not explained by cell count or plate" in first


def test_a_failed_leak_check_is_an_alarm(facts):
    split = dict(facts["splits"][0], leaks=[{"check": "shared series", "state": "fail"}])
    told = verdict([split], [])
    assert "shared series (split 'series')" in told["alarm"]
    assert not any("passed" in sentence for sentence in told["sentences"])


def test_leaks_over_folds(tmp_path):
    rows = [
        ("0", "shared compound", 0, 10, True, ""),
        ("1", "shared compound", 3, 10, False, "'A', 'B', 'C'"),
        ("0", "largest similarity", 0.5, 4, None, "first"),
        ("1", "largest similarity", 0.625, 4, None, "second"),
        ("0", "shared skeleton", 0, 4, True, ""),
        ("1", "shared skeleton", 0, 4, True, ""),
    ]
    write_table(
        tmp_path / "leaks.csv", pd.DataFrame(rows, columns=["split", "check", "value", "n", "passed", "detail"])
    )
    leaks = leak_facts(tmp_path / "leaks.csv")
    assert [(r["check"], r["state"], r["value"], r["failed"]) for r in leaks] == [
        ("shared compound", "fail", "0 to 3", 1),
        ("shared skeleton", "pass", "0", 0),
        ("largest similarity", "information", "0.500 to 0.625", 0),
    ]
    assert leaks[0]["detail"] == "'A', 'B', 'C'"  # of the fold that failed
    assert leak_facts(tmp_path / "absent.csv") == []


def test_losses_are_counted_by_stage_and_reason():
    table = pd.concat(
        [
            dropped("read", "well", ["a", "b", "c"], ["value 1 is bad", "value 22 is bad", "plate 'X' is gone"]),
            dropped("join", "activity", range(500), "not imaged"),
            dropped(
                "join",
                "task",
                "abcdefghi",
                [f"reason {w}" for w in ("red", "blue", "green", "pink", "grey", "teal", "gold", "rust", "rust")],
            ),
        ]
    )
    told = losses(table)
    assert told["n"] == 512
    assert len(told["rows"]) == 200
    assert [(s["stage"], s["what"], s["n"]) for s in told["stages"]] == [
        ("read", "well", 3),
        ("join", "activity", 500),
        ("join", "task", 9),
    ]
    assert told["stages"][0]["reasons"] == [
        {"n": 2, "text": "value 1 is bad", "alike": 1},
        {"n": 1, "text": "plate 'X' is gone", "alike": 0},
    ]
    reasons = told["stages"][2]["reasons"]
    assert reasons[0] == {"n": 2, "text": "reason rust", "alike": 0}
    assert reasons[-1] == {"n": 2, "text": "2 rarer reasons", "alike": 0}
    assert sum(r["n"] for r in reasons) == 9
    assert losses(nothing_dropped())["n"] == 0


def test_a_run_without_images_says_so(tmp_path):
    rows = pd.DataFrame({"Metadata_compound": ["a", "b"]})
    Profiles(np.zeros((2, 0), np.float32), rows, []).save(tmp_path / "profiles.parquet")
    assert not has_images(tmp_path)
    Profiles(np.zeros((2, 1), np.float32), rows, ["Cells_AreaShape_Area"]).save(tmp_path / "profiles.parquet")
    assert has_images(tmp_path)
    assert "had no images" in verdict([], [], images=False)["sentences"][0]


def test_a_run_that_has_only_begun(tmp_path):
    write_json(tmp_path / "manifest.json", {"name": "begun"})
    facts = collect(tmp_path)
    assert facts["splits"] == facts["hits"] == []
    assert "No results have been computed yet." in facts["verdict"]["sentences"]


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match=r"holds no run \(there is no manifest.json\)"):
        collect(tmp_path)
    write_text(tmp_path / "manifest.json", "{")
    with pytest.raises(FileError, match="is not JSON"):
        collect(tmp_path)
