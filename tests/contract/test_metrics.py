"""What every entry of `METRICS` must keep, whoever wrote it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS

RANK = {"auroc", "average_precision", "delta_auprc", "riptop_auprc"}  # only the order of scores counts
LOWEST = {"auroc": 0, "average_precision": 0, "f1": 0, "balanced_accuracy": 0}  # others: below 0 is possible

pytestmark = pytest.mark.parametrize("name", list(METRICS))


def make(n=400, T=6, seed=0):
    """Task 4 has actives only, task 5 no entries; scores have many ties."""
    stream = np.random.default_rng(seed)
    task = stream.integers(0, T - 1, n).astype(np.int32)
    y = (stream.random(n) < 0.3) | (task == 4)
    score = (stream.integers(0, 20, n) / 20 + 0.1 * y).astype(np.float32)
    fold = stream.integers(0, 3, n).astype(np.int32)
    compound = np.arange(n, dtype=np.int32)
    return Entries(task, fold, y, score, compound, [f"t{i}" for i in range(T)], np.full(T, 0.5))


def take(e, rows, **changed):
    parts = {k: getattr(e, k)[rows] for k in ("task", "fold", "y", "score", "compound")}
    return replace(e, **parts, **changed)


@pytest.mark.parametrize("groups", ["fold", "task"])
def test_order_of_entries_is_irrelevant(name, groups):
    entries = make()
    shuffled = take(entries, np.random.default_rng(1).permutation(len(entries)))
    np.testing.assert_array_equal(METRICS[name](shuffled, groups), METRICS[name](entries, groups))


@pytest.mark.parametrize("groups", ["fold", "task"])
def test_undefined_is_nan_and_only_there(name, groups):
    values = METRICS[name](make(), groups)
    assert values.dtype == np.float64
    assert np.isnan(values[4:]).all()
    assert np.isfinite(values[:4]).all()


def test_one_class_is_nan_even_if_all_inactive(name):
    entries = make()
    none = replace(entries, y=np.zeros(len(entries), bool))
    assert np.isnan(METRICS[name](none, "fold")).all()


def test_monotone_transform_of_scores(name):
    entries = make()
    bent = replace(entries, score=np.tanh(3 * entries.score.astype(np.float64) - 1))
    before = METRICS[name](entries, "task")
    if name in RANK:
        np.testing.assert_allclose(METRICS[name](bent, "task"), before, atol=1e-12)
    else:  # calls change unless the cut moves along
        moved = replace(bent, cut=np.tanh(3 * entries.cut.astype(np.float32).astype(np.float64) - 1))
        np.testing.assert_allclose(METRICS[name](moved, "task"), before, atol=1e-12)


def test_range_and_perfect_score(name):
    values = METRICS[name](make(), "fold")
    assert np.nanmin(values) >= LOWEST.get(name, -np.inf)
    assert np.nanmax(values) <= 1
    entries = make()
    perfect = METRICS[name](replace(entries, score=entries.y.astype(np.float32)), "task")[:4]
    expected = np.ones(4)
    if name == "delta_auprc":
        active, inactive = entries.counts("task")
        expected = 1 - (active / np.maximum(active + inactive, 1))[:4]
    np.testing.assert_allclose(perfect, expected, atol=1e-12)


def test_one_task_does_not_touch_another(name):
    entries = make()
    changed = entries.score.copy()
    changed[entries.task == 0] = 0.77
    other = METRICS[name](replace(entries, score=changed), "fold")
    np.testing.assert_array_equal(other[1:], METRICS[name](entries, "fold")[1:])


def test_random_scores_reach_the_chance_level(name):
    stream = np.random.default_rng(5)
    entries = make(n=60_000, seed=2)
    random = replace(entries, score=stream.random(len(entries)))
    active, inactive = entries.counts("task")
    share = (active / np.maximum(active + inactive, 1))[:4]
    level = {"auroc": 0.5, "balanced_accuracy": 0.5, "average_precision": share, "f1": share / (share + 0.5)}
    np.testing.assert_allclose(METRICS[name](random, "task")[:4], level.get(name, 0.0), atol=0.03)
