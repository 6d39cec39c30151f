"""Methods against each other: the page shows what the files hold."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, rankdata

from phenohit.evaluate.roc_test import VERDICTS
from phenohit.files import read_table, write_table
from phenohit.report.build import build_report
from phenohit.report.paired import cost_facts, dependence_facts, matrix_facts, roc_facts
from phenohit.report.results import split_facts

COSTS = """method,parameters,gmac,seconds_fit,seconds_epoch,images_per_s
network-profiles,1200000,,31.25,,
forest-profiles,,,4.5,,
forest-profiles,,,5.5,,
gapnet-views,3694545,1.707,8123,81.23,410
"""


class Tables(HTMLParser):
    """Text of every cell of the tables of one class, and the text of the page."""

    def __init__(self, text, name):
        super().__init__()
        self.name, self.inside, self.open, self.rows, self.text = name, False, False, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.inside = self.name in (dict(attrs).get("class") or "").split()
        elif tag == "tr" and self.inside:
            self.rows.append([])
        elif tag in ("td", "th") and self.inside:
            self.rows[-1].append("")
            self.open = True
        elif tag == "small" and self.inside:
            self.rows[-1][-1] += "|"

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "table"
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data):
        self.text.append(data)
        if self.open:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def split(run_folder):
    return split_facts(run_folder / "splits" / "series")


@pytest.fixture(scope="module")
def tests_table(run_folder):
    return pd.read_csv(run_folder / "splits" / "series" / "roc_tests.csv", keep_default_na=False, na_values=[""])


@pytest.fixture(scope="module")
def costly(run_folder, tmp_path_factory):
    """The run again, with costs and a compound split of hold-outs drawn three times."""
    folder = tmp_path_factory.mktemp("costly") / "run"
    shutil.copytree(run_folder, folder)
    (folder / "splits" / "series" / "costs.csv").write_text(COSTS)
    metrics, _ = read_table(folder / "splits/compound/metrics.parquet")
    lead = metrics["method"].eq("forest-profiles")
    write_table(
        folder / "splits/compound/metrics.parquet",
        metrics.assign(interval_repeat=np.where(lead, 2, -1), interval_auroc=metrics["auroc"]),
    )
    return build_report(folder).read_text(encoding="utf-8")


def test_the_first_table_has_f1_over_tasks(split, run_folder, report):
    table, _ = read_table(run_folder / "splits/series/metrics.parquet")
    page = Tables(report.read_text(encoding="utf-8"), "methods")
    at = page.rows[0].index("Mean F1")
    for method in split["methods"]:
        f1 = table.loc[table["method"] == method["name"], "f1"]
        assert (method["f1"], method["f1_sd"]) == (pytest.approx(f1.mean()), pytest.approx(f1.std()))
        row = next(row for row in page.rows if row[0] == method["label"])
        assert row[at] == f"{f1.mean():.3f}|± {f1.std():.3f}"


def test_the_matrix_is_compare_csv(split, run_folder, report):
    compare = pd.read_csv(run_folder / "splits/series/compare.csv").set_index(["method", "other"])
    names = [m["name"] for m in split["methods"]]
    labels = {m["name"]: m["label"] for m in split["methods"]}
    assert [row["label"] for row in split["matrix"]] == [labels[name] for name in names]
    for name, row in zip(names, split["matrix"], strict=True):
        for other, cell in zip(names, row["cells"], strict=True):
            if name == other:
                assert cell is None
                continue
            truth = compare.loc[(name, other)]
            assert (cell["p"], cell["holm"]) == (pytest.approx(truth["p_value"]), pytest.approx(truth["p_holm"]))
            assert cell["n"] == truth["n_tasks"]
            assert cell["shade"] == (2 if truth["p_holm"] <= 0.01 else int(truth["p_value"] <= 0.01))
    shades = {cell["shade"] for row in split["matrix"] for cell in row["cells"] if cell}
    assert shades == {0, 1, 2}
    page = Tables(report.read_text(encoding="utf-8"), "pvalues")
    shown = page.rows[1 : 1 + len(names)]
    for row, truth in zip(shown, split["matrix"], strict=True):
        for text, cell in zip(row[1:], truth["cells"], strict=True):
            assert bool(text) == (cell is not None)
            if cell and cell["p"] >= 0.01:
                assert text == f"{cell['p']:.2f}|{cell['holm']:.2f}"


def test_verdicts_are_counted_as_in_the_file(split, tests_table, report):
    pairs = list(dict.fromkeys(zip(tests_table["method_a"], tests_table["method_b"], strict=True)))
    assert [(row["a"], row["b"]) for row in split["roc"]] == pairs
    assert len(pairs) >= 3
    assert pairs[0][0] == split["lead"]
    page = Tables(report.read_text(encoding="utf-8"), "roc")
    for row, shown, pair in zip(split["roc"], page.rows[1 : 1 + len(pairs)], pairs, strict=True):
        part = tests_table[(tests_table["method_a"] == pair[0]) & (tests_table["method_b"] == pair[1])]
        counts = part["verdict"].value_counts()
        assert row["counts"] == {v: counts.get(v, 0) for v in VERDICTS}
        sure = part["p_holm"] <= 0.05
        assert row["holm"]["better"] == (sure & (part["difference"] > 0)).sum()
        assert row["holm"]["worse"] == (sure & (part["difference"] < 0)).sum()
        both = part.dropna(subset=["auroc_a", "auroc_b"])
        if np.ptp(both["auroc_a"]) and np.ptp(both["auroc_b"]):
            assert row["r"] == pytest.approx(pearsonr(both["auroc_a"], both["auroc_b"])[0])
        assert row["n"] == part["p_value"].notna().sum() == 25
        assert (row["sampled"], row["repeat"], row["permutations"]) == (0, None, 99)
        codes = dict(zip(split["tasks"]["task"], row["verdict"], strict=True))
        assert codes == {t: VERDICTS.index(v) for t, v in zip(part["task"], part["verdict"], strict=True)}
        assert shown[3] == f"{row['counts']['better']}|{row['holm']['better']} after Holm"
        assert shown[6] == str(row["counts"]["undefined"]) == "1"
    assert any(row["counts"]["better"] for row in split["roc"])


def test_samples_and_draws_are_said(tmp_path, tests_table):
    table = tests_table.assign(repeat=1, n_tested=20)
    write_table(tmp_path / "roc_tests.csv", table)
    row = roc_facts(tmp_path / "roc_tests.csv", [], ["tubulin inhibitor", "not tested"])[0]
    few = tests_table.drop_duplicates("task")
    assert row["sampled"] == (few["n_active"] + few["n_inactive"] > 20).sum()
    assert row["repeat"] == 1
    assert row["label_a"] == row["a"]
    assert row["verdict"][1] is None


def test_dependence_is_a_rank_correlation(split, run_folder):
    table, _ = read_table(run_folder / "splits/series/metrics.parquet")
    for method in split["methods"]:
        part = table[(table["method"] == method["name"]) & table["auroc"].notna()]
        size = part["n_active"] + part["n_inactive"]
        found = split["dependence"]["of"][method["name"]]
        assert found["n"] == len(part)
        if not np.ptp(part["auroc"]):
            assert found["labels"] is None
            continue
        for key, x in (("labels", size), ("share", part["n_active"] / size)):
            expected = np.corrcoef(rankdata(part["auroc"].round(4)), rankdata(x))[0, 1]
            assert found[key] == pytest.approx(expected)
    mine = split["dependence"]["of"][split["lead"]]
    told = split["dependence"]["told"]
    assert [float(v.replace("−", "-")) for v in re.findall(r"ρ ([+−]\d\.\d\d)", told)] == [
        round(mine["labels"], 2),
        round(mine["share"], 2),
    ]


@pytest.mark.parametrize(
    ("slope", "word"), [(1, "rises with the number of labels"), (-1, "falls with"), (0, "hardly depends on")]
)
def test_dependence_in_words(slope, word):
    n = np.arange(40)
    auroc = 0.5 + 0.01 * (slope * n if slope else np.abs(n - 19.5))
    tasks = {"n_active": [10] * 40, "n_inactive": (20 + n).tolist(), "values": {"m": {"auroc": auroc.tolist()}}}
    assert word in dependence_facts(tasks, [{"name": "m", "label": "M"}], "m")["told"]
    none = dependence_facts(tasks | {"values": {"m": {"auroc": [None] * 40}}}, [], "m")
    assert none == {"of": {"m": {"n": 0, "labels": None, "share": None}}, "told": ""}


def test_costs_are_shown_where_they_are_known(costly, report, split, tmp_path):
    rows = Tables(costly, "costs").rows
    assert rows == [
        ["Method", "Parameters", "GMAC", "Seconds per fit", "Seconds per epoch", "Images per second"],
        *sorted(
            [
                ["network on profiles", "1,200,000", "–", "31.2", "–", "–"],
                ["forest on profiles", "–", "–", "5.0", "–", "–"],
            ],
            key=lambda row: [m["label"] for m in split["methods"]].index(row[0]),
        ),
        ["gapnet-views", "3,694,545", "1.707", "8,123.0", "81.2", "410"],
    ]
    assert "What they cost" not in report.read_text(encoding="utf-8")
    # one file for the whole run; columns without a number are not shown
    here = tmp_path / "splits" / "series"
    here.mkdir(parents=True)
    (tmp_path / "costs.csv").write_text("method,parameters,gmac\nm,7,\n")
    found = cost_facts(here, [{"name": "m", "label": "M"}])
    assert found == {"columns": [("Parameters", 0)], "rows": [{"label": "M", "values": [7.0]}]}
    (here / "costs.csv").write_text("method,parameters\nm,\n")
    assert cost_facts(here, []) is None


def test_repeats_are_told(costly, report):
    text = "".join(Tables(costly, "methods").text)
    assert "Hold-outs were drawn 3 times. Every metric is the mean per task" in text
    assert "forest on profiles: 2;" in text
    assert "network on profiles: none, no task is defined in every draw" in text
    assert "Hold-outs were drawn" not in report.read_text(encoding="utf-8")


def test_a_run_of_an_earlier_version(split, tmp_path):
    assert roc_facts(tmp_path / "roc_tests.csv", split["methods"], ["t"]) == []
    assert matrix_facts(tmp_path / "compare.csv", split["methods"]) == []
    assert split["repeats"] is None
    write_table(tmp_path / "roc_tests.csv", pd.DataFrame(columns=["method_a", "method_b"]))
    assert roc_facts(tmp_path / "roc_tests.csv", split["methods"], ["t"]) == []
