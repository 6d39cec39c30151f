"""Intervals: the same statistic, resampled the long way, and coverage of a known AUROC."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

import phenohit.evaluate.bootstrap as module
from phenohit.evaluate.bootstrap import auroc_intervals, bootstrap_auroc
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS, mean_over_folds
from phenohit.evaluate.ranks import Runs


def entries_of(y, score, fold=None, task=None, names=("a",)):
    n = len(y)
    none = np.zeros(n, np.int32)
    return Entries(
        none if task is None else np.asarray(task, np.int32), none if fold is None else np.asarray(fold, np.int32),
        np.asarray(y, bool), np.asarray(score), np.arange(n, dtype=np.int32), list(names), np.full(len(names), 0.5),
    )  # fmt: skip


def normal_scores(n_active, n_inactive, shift, stream, decimals=None):
    y = np.repeat([True, False], [n_active, n_inactive])
    score = stream.normal(size=len(y)) + shift * y
    return y, score if decimals is None else score.round(decimals)


def pairs_won(y, score):
    """Every active against every inactive: 1 won, 0.5 tied."""
    return (score[y][:, None] > score[~y]) + 0.5 * (score[y][:, None] == score[~y])


@pytest.mark.parametrize("decimals", [None, 0])
def test_interval_equals_resampling_the_long_way(decimals):
    stream = np.random.default_rng(0)
    y, score = normal_scores(20, 60, 1.0, stream, decimals)
    fold = stream.integers(0, 3, 80)
    means = []
    for _ in range(1500):
        areas = []
        for k in range(3):
            rows = stream.choice(np.flatnonzero(fold == k), (fold == k).sum())
            if 0 < y[rows].sum() < len(rows):
                areas.append(pairs_won(y[rows], score[rows]).mean())
        means.append(np.mean(areas))
    expected = np.quantile(means, [0.025, 0.975])
    found = auroc_intervals(entries_of(y, score, fold), replicates=4000)
    assert found["interval"].tolist() == ["bootstrap"]
    np.testing.assert_allclose(found[["auroc_low", "auroc_high"]].to_numpy()[0], expected, atol=0.015)


def test_both_ways_of_drawing_have_one_distribution():
    stream = np.random.default_rng(1)
    y, score = normal_scores(6, 300, 1.0, stream)
    runs = Runs.of(np.zeros(306, int), score, y, 1)
    merged = runs.merged()  # few cells: counts drawn directly; all runs: compounds drawn one by one
    assert len(merged.active) * 8 < 306 < len(runs.active) * 8
    a = bootstrap_auroc(merged.active, merged.inactive, 4000, np.random.default_rng(0))
    b = bootstrap_auroc(runs.active, runs.inactive, 4000, np.random.default_rng(0))
    np.testing.assert_allclose(np.nanquantile(a, [0.05, 0.5, 0.95]), np.nanquantile(b, [0.05, 0.5, 0.95]), atol=0.02)
    assert np.isnan(a).mean() == pytest.approx(np.isnan(b).mean(), abs=0.004)


def test_resamples_that_lack_a_class_are_nan():
    drawn = bootstrap_auroc(np.array([0, 1]), np.array([1, 0]), 2000, np.random.default_rng(0))
    assert np.isnan(drawn).mean() == pytest.approx(0.5, abs=0.05)
    assert set(drawn[~np.isnan(drawn)]) == {1.0}


def test_small_blocks_change_nothing_but_memory(monkeypatch):
    stream = np.random.default_rng(2)
    y, score = normal_scores(20, 40, 1.0, stream)
    whole = auroc_intervals(entries_of(y, score), replicates=400)
    monkeypatch.setattr(module, "_CELLS", 1000)
    part = auroc_intervals(entries_of(y, score), replicates=400)
    np.testing.assert_allclose(part.iloc[0, :2].tolist(), whole.iloc[0, :2].tolist(), atol=0.03)


@pytest.mark.parametrize(("n_active", "n_inactive", "shift"), [(300, 2200, 1.0), (1200, 1200, 2.5), (110, 3000, 2.0)])
def test_delong_agrees_with_the_bootstrap_where_it_replaces_it(n_active, n_inactive, shift):
    y, score = normal_scores(n_active, n_inactive, shift, np.random.default_rng(3), 1)
    entries = entries_of(y, score)
    delong, bootstrap = auroc_intervals(entries), auroc_intervals(entries, delong=False, replicates=3000)
    assert (delong["interval"][0], bootstrap["interval"][0]) == ("delong", "bootstrap")
    a, b = delong.iloc[0, :2].to_numpy(float), bootstrap.iloc[0, :2].to_numpy(float)
    assert np.abs(a - b).max() < 0.1 * (b[1] - b[0])


def test_delong_variance_by_its_definition():
    y, score = normal_scores(120, 2000, 1.0, np.random.default_rng(4), 1)
    fold = np.random.default_rng(0).integers(0, 1, len(y))
    wins = pairs_won(y, score)
    se = np.sqrt(wins.mean(1).var(ddof=1) / 120 + wins.mean(0).var(ddof=1) / 2000)
    found = auroc_intervals(entries_of(y, score, fold), confidence=0.9).iloc[0, :2].to_numpy(float)
    np.testing.assert_allclose(found, wins.mean() + norm.ppf([0.05, 0.95]) * se, atol=1e-12)


def test_large_tasks_keep_the_bootstrap_when_a_fold_is_small():
    stream = np.random.default_rng(5)
    y, score = normal_scores(500, 2000, 1.0, stream)
    assert auroc_intervals(entries_of(y, score), replicates=20)["interval"][0] == "delong"
    fold = (np.arange(len(y)) >= 450).astype(int)  # 50 actives in fold 1
    assert auroc_intervals(entries_of(y, score, fold), replicates=20)["interval"][0] == "bootstrap"


def test_coverage_of_a_known_auroc():
    stream = np.random.default_rng(6)
    T, truth = 300, norm.cdf(1 / np.sqrt(2))
    parts = [normal_scores(25, 50, 1.0, stream) for _ in range(T)]
    y, score = (np.concatenate(p) for p in zip(*parts, strict=True))
    names = [f"t{i}" for i in range(T)]
    table = auroc_intervals(entries_of(y, score, None, np.repeat(np.arange(T), 75), names), replicates=300)
    covered = ((table["auroc_low"] <= truth) & (truth <= table["auroc_high"])).mean()
    assert 0.90 <= covered <= 0.98


def test_a_task_has_the_same_interval_in_any_company_and_order():
    stream = np.random.default_rng(7)
    y, score = normal_scores(30, 60, 1.0, stream)
    fold = stream.integers(0, 2, 90)
    alone = auroc_intervals(entries_of(y, score, fold, names=["b"]), replicates=50, seed=1)
    other, others = normal_scores(10, 30, 0.0, stream)
    both = entries_of(
        np.r_[other, y], np.r_[others, score], np.r_[np.zeros(40, int), fold], np.r_[np.zeros(40), np.ones(90)],
        names=["a", "b"],
    )  # fmt: skip
    assert auroc_intervals(both, replicates=50, seed=1).iloc[1].tolist() == alone.iloc[0].tolist()
    order = stream.permutation(90)
    turned = entries_of(y[order], score[order], fold[order], names=["b"])
    assert auroc_intervals(turned, replicates=50, seed=1).iloc[0].tolist() == alone.iloc[0].tolist()
    assert auroc_intervals(turned, replicates=50, seed=2).iloc[0].tolist() != alone.iloc[0].tolist()


def test_undefined_tasks_and_no_replicates():
    y, score = np.ones(5, bool), np.arange(5.0)
    table = auroc_intervals(entries_of(y, score))
    assert table["interval"].tolist() == [""]
    assert table[["auroc_low", "auroc_high"]].isna().all().all()
    y = np.array([1, 0, 1, 0, 0], bool)
    assert auroc_intervals(entries_of(y, score), replicates=0)["interval"].tolist() == [""]
    empty = entries_of(np.zeros(0, bool), np.zeros(0), names=["a", "b"])
    assert auroc_intervals(empty)["interval"].tolist() == ["", ""]


def test_interval_holds_the_statistic_it_belongs_to():
    stream = np.random.default_rng(8)
    y, score = normal_scores(40, 80, 1.5, stream)
    entries = entries_of(y, score, stream.integers(0, 4, 120))
    auroc = mean_over_folds(METRICS["auroc"](entries, "fold"))[0]
    low, high, _ = auroc_intervals(entries, replicates=500).iloc[0]
    assert low < auroc < high
