"""Counts and their chance level; Simm's rule by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS, mean_over_folds
from phenohit.evaluate.scores import score_table
from phenohit.evaluate.summary import summarise


def make(sizes, assays, seed=0, folds=2):
    """Tasks with the given (actives, inactives), each on its own compounds; scores are random."""
    stream = np.random.default_rng(seed)
    task = np.concatenate([np.full(a + i, t) for t, (a, i) in enumerate(sizes)]).astype(np.int32)
    y = np.concatenate([np.arange(a + i) < a for a, i in sizes])
    n = len(task)
    place = np.concatenate([np.arange(a + i) for a, i in sizes])
    Y = sparse.csr_matrix((y.astype(np.float32), (np.arange(n), task)), shape=(n, len(sizes)))
    tasks = pd.DataFrame(
        {"task": [f"t{i}" for i in range(len(sizes))], "assay": assays, "kind": "binary", "threshold": np.nan}
    )
    labels = Labels(Y, pd.DataFrame({"compound": [f"c{i}" for i in range(n)]}), tasks)
    fold = (place % folds).astype(np.int32)
    entries = Entries(
        task, fold, y, stream.random(n), np.arange(n, dtype=np.int32), labels.task_names, np.full(len(sizes), 0.5)
    )
    return labels, entries


def test_simms_rule_by_hand():
    labels, entries = make([(25, 25), (40, 30), (25, 25), (24, 90), (30, 30), (60, 60)], ["A", "A", "B", "C", "C", "D"])
    table = score_table(labels, entries, bootstrap=0, chance=10)
    # t0 0.95 makes assay A high though t1 is poor; t3 would be perfect but has 24 actives; 0.9 and 0.7 are not above
    table["auroc"] = [0.95, 0.60, 0.90, 1.00, 0.70, np.nan]
    summary = summarise(table, labels, entries, chance=50)
    assert summary["simm"]["n_tasks"] == 5
    assert summary["simm"]["n_assays"] == 4
    assert summary["simm"]["high"]["count"] == 1
    assert summary["simm"]["moderate"]["count"] == 2
    assert summary["simm"]["minimum"] == 25
    assert (summary["n_tasks"], summary["n_undefined"]) == (6, 1)
    assert [summary["above"][x]["count"] for x in ("0.9", "0.8", "0.7")] == [2, 3, 3]
    assert summary["auroc_mean"] == pytest.approx(np.mean([0.95, 0.6, 0.9, 1, 0.7]))
    assert summary["auroc_sd"] == pytest.approx(np.std([0.95, 0.6, 0.9, 1, 0.7], ddof=1))


def test_expected_counts_equal_scoring_random_numbers():
    sizes = [(3, 9), (5, 5), (10, 40), (2, 30), (25, 25), (6, 60)] * 6
    labels, entries = make(sizes, [f"a{i // 3}" for i in range(36)])
    table = score_table(labels, entries, bootstrap=0, chance=400)
    summary = summarise(table, labels, entries, chance=1000)
    counts = []
    for seed in range(200):
        _, random = make(sizes, ["a"] * 36, seed=seed + 1)
        auroc = mean_over_folds(METRICS["auroc"](random, "fold"))
        counts.append([(auroc > x).sum() for x in (0.9, 0.8, 0.7)] + [(auroc > table["chance_high"]).sum()])
    found = [summary["above"][x]["expected"] for x in ("0.9", "0.8", "0.7")] + [summary["beyond_chance"]["expected"]]
    error = np.std(counts, axis=0) / np.sqrt(200)
    assert (np.abs(np.mean(counts, axis=0) - found) < 5 * error).all()
    low, high = np.quantile([c[2] for c in counts], [0.025, 0.975])
    assert summary["above"]["0.7"]["low"] == pytest.approx(low, abs=1.5)
    assert summary["above"]["0.7"]["high"] == pytest.approx(high, abs=1.5)


def test_chance_of_the_best_of_several_thresholds():
    # each assay has two tasks: an assay counts if either does
    labels, entries = make([(25, 25)] * 40, [f"a{i // 2}" for i in range(40)], folds=5)
    table = score_table(labels, entries, bootstrap=0, chance=10)
    summary = summarise(table, labels, entries, chance=4000, simm_min=25)
    per_task = summary["above"]["0.7"]["expected"] / 40
    assert summary["simm"]["moderate"]["expected"] / 20 == pytest.approx(1 - (1 - per_task) ** 2, rel=0.1)


def test_interval_of_the_mean_covers_it_and_ignores_order():
    labels, entries = make([(10, 20)] * 30, ["a"] * 30)
    table = score_table(labels, entries, bootstrap=0, chance=20)
    summary = summarise(table, labels, entries, chance=10)
    auroc = table["auroc"].to_numpy()
    half = 1.96 * auroc.std(ddof=1) / np.sqrt(30)
    assert summary["auroc_mean_low"] == pytest.approx(auroc.mean() - half, abs=0.25 * half)
    assert summary["auroc_mean_high"] == pytest.approx(auroc.mean() + half, abs=0.25 * half)
    again = summarise(table.iloc[::-1].reset_index(drop=True), labels, entries, chance=10)
    assert again["auroc_mean_low"] == summary["auroc_mean_low"]


def test_ready_for_json_even_when_nothing_is_defined():
    labels, entries = make([(5, 0), (0, 4)], ["a", "b"])
    table = score_table(labels, entries, bootstrap=10, chance=10)
    summary = summarise(table, labels, entries, chance=10)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["auroc_mean"] is None
    assert summary["above"]["0.9"] == {"count": 0, "expected": 0.0, "low": 0.0, "high": 0.0}
    none = summarise(score_table(labels, entries, bootstrap=0, chance=0), labels, entries, chance=0)
    assert none["above"]["0.9"] == {"count": 0, "expected": None, "low": None, "high": None}
