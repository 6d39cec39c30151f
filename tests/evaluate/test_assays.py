"""The table of assays and the file of sets, as the evaluate step writes them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from phenohit.config import EvaluateConfig
from phenohit.data.labels import Labels
from phenohit.evaluate.assays import OUTPUTS, SideBySide
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.reading import READINGS
from phenohit.evaluate.scores import score_table
from phenohit.evaluate.summary import summarise

N, T = 120, 12
METHODS = {
    "forest-profiles": 1.6,
    "network-profiles": 1.4,
    "forest-ecfp": 0.8,
    "network-ecfp": 0.6,
    "logistic-cell_count": 0.2,
    "rate-base": 0.0,
}
HOW = EvaluateConfig(bootstrap=30, chance=300, simm_min=25)


def make_labels(n_tasks=T):
    rng = np.random.default_rng(1)
    share = np.linspace(0.05, 0.6, n_tasks)
    Y = (rng.random((N, n_tasks)) < share).astype(np.float32)
    rows, columns = np.nonzero(np.ones((N, n_tasks)))
    tasks = pd.DataFrame({"task": [f"t{i}" for i in range(n_tasks)], "assay": [f"a{i // 2}" for i in range(n_tasks)]})
    compounds = pd.DataFrame({"compound": [f"c{i}" for i in range(N)]})
    matrix = sparse.csr_matrix((Y.ravel(), (rows, columns)), shape=Y.shape)
    return Labels(matrix, compounds, tasks.assign(kind="binary", threshold=np.nan))


def scored(labels, strength, seed):
    Y = labels.Y.tocoo()
    score = strength * Y.data + np.random.default_rng(seed).normal(size=len(Y.data)) * (strength > 0)
    return Entries(
        Y.col.astype(np.int32), (Y.row % 3).astype(np.int32), Y.data > 0, score.astype(np.float32),
        Y.row.astype(np.int32), labels.task_names, np.full(len(labels.tasks), 0.5),
    )  # fmt: skip


def fill(labels, methods=METHODS, how=HOW):
    beside, tables, given = SideBySide(labels, how, 0), {}, {}
    for seed, (name, strength) in enumerate(methods.items()):
        given[name] = scored(labels, strength, seed)
        tables[name] = score_table(labels, given[name], bootstrap=how.bootstrap, chance=50)
        model, source = name.split("-")
        beside.add(name, given[name], tables[name], model=model, source=source)
    return beside, tables, given


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    labels = make_labels()
    beside, tables, given = fill(labels)
    beside.save(folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted(OUTPUTS)
    return {
        "labels": labels,
        "tables": tables,
        "entries": given,
        "table": pd.read_csv(folder / "assays.csv", keep_default_na=False, na_values=[""]),
        "facts": json.loads((folder / "agreement.json").read_text()),
    }


def test_the_table_has_every_method_beside_the_others(run):
    table, tables, counts = run["table"], run["tables"], run["labels"].counts()
    assert table["task"].tolist() == run["labels"].task_names
    assert table["n_active"].tolist() == counts["n_active"].tolist()
    enough = (counts["n_active"] >= 25) & (counts["n_inactive"] >= 25)
    assert table["counted"].tolist() == enough.tolist()
    assert 0 < enough.sum() < T
    for name, own in tables.items():
        for column in ("auroc", "auroc_low", "auroc_high", "average_precision"):
            np.testing.assert_allclose(table[f"{name}.{column}"], own[column])
    names = {reading["name"] for reading in READINGS}
    assert set(table["forest-profiles.reading"]) | set(table["ranks-image.reading"]) <= names
    assert "rate-base.reading" not in table
    usable = [n for n in METHODS if n.endswith(("profiles", "ecfp"))]
    auroc = table[[f"{n}.auroc" for n in usable]].set_axis(usable, axis=1)
    defined = auroc.notna().any(axis=1)
    assert (table["best"][defined] == auroc[defined].idxmax(axis=1)).all()
    np.testing.assert_allclose(table["best_auroc"], auroc.max(axis=1))
    assert (table["above_0.7"] == (auroc > 0.7).sum(axis=1)).all()
    assert (table["above_0.9"] == (auroc > 0.9).sum(axis=1)).all()


def test_counts_and_chance_are_those_of_the_summary(run):
    """The same tasks, the same rule and the same draws as in summary.json."""
    sets = {(s["unit"], s["above"]): s for s in run["facts"]["sets"]}
    assert list(sets) == [("assay", 0.9), ("assay", 0.7), ("task", 0.9), ("task", 0.7)]
    for name, table in run["tables"].items():
        summary = summarise(table, run["labels"], run["entries"][name], chance=300)
        for unit, level, given in [
            ("task", 0.9, summary["above"]["0.9"]),
            ("task", 0.7, summary["above"]["0.7"]),
            ("assay", 0.9, summary["simm"]["high"]),
            ("assay", 0.7, summary["simm"]["moderate"]),
        ]:
            found = sets[unit, level]
            assert found["counts"][name] == given["count"]
            assert found["chance"]["union"][0]["expected"] == pytest.approx(given["expected"])
            assert abs(found["chance"]["union"][0]["high"] - given["high"]) <= 2
        assert sets["assay", 0.7]["n"] == summary["simm"]["n_assays"]


def test_groups_and_intersections(run):
    facts = run["facts"]
    assert facts["groups"]["all"][0] == "forest-profiles"
    assert {k: sorted(v) for k, v in facts["groups"].items()} == {
        "all": sorted(n for n in METHODS if n.endswith(("profiles", "ecfp"))),
        "image": ["forest-profiles", "network-profiles"],
        "chemistry": ["forest-ecfp", "network-ecfp"],
    }
    table = run["table"].set_index("task")
    task = next(s for s in facts["sets"] if (s["unit"], s["above"]) == ("task", 0.7))
    for row in task["intersections"]:
        for name in row["members"]:
            above = {m for m in facts["groups"]["all"] if table.loc[name, f"{m}.auroc"] > 0.7}
            assert above == set(row["methods"])
    assert sum(r["count"] for r in task["intersections"]) == task["groups"]["all"]["union"]


def test_means_of_ranks_are_one_more_row(run):
    facts, table = run["facts"], run["table"]
    assert [e["name"] for e in facts["ensembles"]] == ["ranks-all", "ranks-image", "ranks-chemistry"]
    image = facts["ensembles"][1]
    assert sorted(image["members"]) == ["forest-profiles", "network-profiles"]
    assert set(image["left_out"].values()) == {0}
    assert image["summary"]["auroc_mean"] == pytest.approx(table["ranks-image.auroc"].mean())
    best = image["against"][0]
    assert best["mean"] == pytest.approx(table[f"{best['method']}.auroc"].mean())
    difference = table["ranks-image.auroc"] - table[f"{best['method']}.auroc"]
    assert best["difference"] == pytest.approx(difference.mean())
    assert difference.mean() > 0  # both see the same signal, each with noise of its own
    assert image["summary"]["means"]["f1"] is None  # ranks have no cut
    for found in image["sets"]:
        if found["unit"] == "task":
            mine = table["ranks-image.auroc"] > found["above"]
            others = (table[[f"{m}.auroc" for m in image["members"]]] > found["above"]).any(axis=1)
            assert found["count"] == mine.sum()
            assert found["gained"] == table["task"][mine & ~others].tolist()
            lost = (table[f"{found['best']}.auroc"] > found["above"]) & ~mine
            assert found["lost"] == table["task"][lost].tolist()


def test_pairs(run):
    pairs = {(p["method"], p["other"]): p for p in run["facts"]["pairs"]}
    assert len(pairs) == len(METHODS) * (len(METHODS) - 1) / 2
    alike, apart = pairs["forest-profiles", "network-profiles"], pairs["forest-profiles", "rate-base"]
    assert alike["score_spearman"] > 0.1
    assert (apart["score_spearman"], apart["n_score_tasks"], apart["auroc_spearman"]) == (None, 0, None)
    assert alike["n_both"] + alike["n_first"] + alike["n_second"] + alike["n_neither"] == alike["n_tasks"]


def test_one_method_no_tasks_no_chance(tmp_path):
    labels = make_labels()
    beside, _, _ = fill(labels, {"forest-ecfp": 1.0}, EvaluateConfig(bootstrap=0, chance=0))
    beside.save(tmp_path)
    facts = json.loads((tmp_path / "agreement.json").read_text())
    assert (facts["ensembles"], facts["pairs"], facts["groups"]) == ([], [], {"all": ["forest-ecfp"]})
    assert facts["sets"][0]["chance"] is None
    beside, _, _ = fill(labels, {"rate-base": 0.0})
    beside.save(tmp_path)  # nothing but a baseline
    facts = json.loads((tmp_path / "agreement.json").read_text())
    assert facts["groups"] == {"all": []}
    assert facts["sets"][0]["intersections"] == []
    assert "best" not in pd.read_csv(tmp_path / "assays.csv")


def test_methods_of_other_folds(tmp_path):
    """Wells were split and an input knows compounds: the mean of ranks is made of the entries both score."""
    labels = make_labels()
    beside, _, given = fill(labels, {"forest-profiles": 1.5})
    kept = np.flatnonzero(given["forest-profiles"].compound % 4 > 0)
    whole = scored(labels, 1.0, 9)
    fewer = Entries(
        *(getattr(whole, c)[kept] for c in ("task", "fold", "y", "score", "compound")), whole.tasks, whole.cut
    )
    beside.add("forest-ecfp", fewer, score_table(labels, fewer, bootstrap=0, chance=0), model="forest", source="ecfp")
    beside.save(tmp_path)
    facts = json.loads((tmp_path / "agreement.json").read_text())
    (ensemble,) = facts["ensembles"]
    assert ensemble["n_entries"] == len(kept)
    assert ensemble["left_out"] == {"forest-profiles": len(whole) - len(kept), "forest-ecfp": 0}
