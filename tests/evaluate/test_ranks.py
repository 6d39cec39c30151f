"""Many segments ranked at once equal scikit-learn, one at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import phenohit.evaluate.ranks as ranks
from phenohit.errors import LabelError, ShapeError
from phenohit.evaluate.ranks import Runs, auroc_at_thresholds

THRESHOLDS = [6.5, 5.5, 8.5, 7.5]


def loop(value, score, segment, thresholds, n_segments):
    result = np.full((len(thresholds), n_segments), np.nan)
    for k, threshold in enumerate(thresholds):
        for s in range(n_segments):
            y = value[segment == s] >= threshold
            if 0 < y.sum() < len(y):
                result[k, s] = roc_auc_score(y, score[segment == s])
    return result


@settings(deadline=None)  # a busy machine is no failure
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 120),
    n_segments=st.integers(1, 6),
    levels=st.sampled_from([1, 3, 20, 10**9]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_thresholds_equal_a_loop_over_scikit_learn(seed, n, n_segments, levels, dtype):
    stream = np.random.default_rng(seed)
    value = stream.choice([5.0, 5.5, 6.5, 7.0, 8.0, 9.0], n).astype(dtype)
    score = (stream.integers(-levels, levels + 1, n) / 7).astype(dtype)
    segment = stream.integers(0, n_segments, n)
    ours = auroc_at_thresholds(value, score, segment, THRESHOLDS, n_segments)
    np.testing.assert_allclose(ours, loop(value, score, segment, THRESHOLDS, n_segments), rtol=0, atol=1e-9)


def test_blocks_do_not_cut_runs_of_equal_scores(monkeypatch):
    stream = np.random.default_rng(0)
    value, score = stream.normal(6, 1, 500), stream.integers(0, 8, 500).astype(np.float32)
    segment = stream.integers(0, 9, 500)
    whole = auroc_at_thresholds(value, score, segment, THRESHOLDS)
    for size in (1, 7, 64):
        monkeypatch.setattr(ranks, "_BLOCK", size)
        np.testing.assert_array_equal(auroc_at_thresholds(value, score, segment, THRESHOLDS), whole)


def test_double_precision_scores_are_not_rounded():
    score = np.array([1.0, 1.0 + 1e-12])
    assert auroc_at_thresholds(np.array([1.0, 0.0]), score, np.zeros(2, int), [0.5])[0, 0] == 0.0


def test_a_float32_value_reaches_the_threshold_it_stands_for():
    value = np.array([6.7, 1.0], dtype=np.float32)
    assert float(value[0]) < 6.7
    assert auroc_at_thresholds(value, np.array([1.0, 0.0]), np.zeros(2, int), [6.7])[0, 0] == 1.0


def test_integer_values_are_not_compared_with_rounded_thresholds():
    value = np.array([5, 6])
    assert auroc_at_thresholds(value, np.array([0.0, 1.0]), np.zeros(2, int), [5.5])[0, 0] == 1.0


def test_negative_zero_ties_with_zero_and_infinities_are_ordered():
    score = np.array([-0.0, 0.0, np.inf, -np.inf, -1.0], dtype=np.float32)
    y = np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    for dtype in (np.float32, np.float64):
        auroc = auroc_at_thresholds(y, score.astype(dtype), np.zeros(5, int), [0.5])
        assert auroc[0, 0] == (3 + 2 + 0.5) / 6


def test_bad_input_is_named():
    one = np.ones(2)
    with pytest.raises(ShapeError, match="2 values, 2 scores and 1 segments"):
        auroc_at_thresholds(one, one, np.zeros(1, int), [1.0])
    with pytest.raises(ShapeError, match=r"NaN at 1\."):
        auroc_at_thresholds(one, np.array([0.0, np.nan]), np.zeros(2, int), [1.0])
    with pytest.raises(LabelError, match="unmeasured"):
        auroc_at_thresholds(np.array([1.0, np.nan]), one, np.zeros(2, int), [1.0])
    with pytest.raises(ShapeError, match=r"0\.\.2, not 0\.\.7"):
        auroc_at_thresholds(one, one, np.array([0, 7]), [1.0], n_segments=3)
    with pytest.raises(ShapeError, match="between 1 and 255"):
        auroc_at_thresholds(one, one, np.zeros(2, int), [])


def test_merging_runs_keeps_pairs_and_shrinks_rare_actives():
    stream = np.random.default_rng(1)
    y = np.zeros(600, bool)
    y[stream.choice(600, 12, replace=False)] = True
    runs = Runs.of(np.repeat([0, 2], 300), stream.integers(0, 5000, 600).astype(np.float32), y, 3)
    merged = runs.merged()
    for r in (runs, merged):
        won = r.total(r.active * (r.below(r.inactive) + 0.5 * r.inactive))
        np.testing.assert_array_equal(won, runs.total(runs.active * (runs.below(runs.inactive) + 0.5 * runs.inactive)))
        np.testing.assert_array_equal(r.total(r.active), [y[:300].sum(), 0, y[300:].sum()])
    assert len(merged.segment) <= 2 * 12 + 2 + 12
    assert len(runs.segment) > 400
