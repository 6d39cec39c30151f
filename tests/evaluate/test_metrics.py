"""Metrics equal scikit-learn wherever both classes are there."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from phenohit.errors import ConfigError, LabelError, ShapeError
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS, mean_over_folds, metric

ORACLE = {
    "auroc": lambda y, s: sk.roc_auc_score(y, s),
    "average_precision": lambda y, s: sk.average_precision_score(y, s),
    "delta_auprc": lambda y, s: sk.average_precision_score(y, s) - y.mean(),
    "riptop_auprc": lambda y, s: (sk.average_precision_score(y, s) - y.mean()) / (1 - y.mean()),
    "f1": lambda y, s: sk.f1_score(y, s >= 0.5, zero_division=0),
    "balanced_accuracy": lambda y, s: sk.balanced_accuracy_score(y, s >= 0.5),
    "adjusted_balanced_accuracy": lambda y, s: sk.balanced_accuracy_score(y, s >= 0.5, adjusted=True),
    "kappa": lambda y, s: sk.cohen_kappa_score(y, s >= 0.5),
}


def test_every_metric_has_an_oracle():
    assert set(ORACLE) == set(METRICS)


@settings(deadline=None)  # a busy machine is no failure
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 60),
    levels=st.sampled_from([1, 2, 5, 10**6]),
    share=st.sampled_from([0.02, 0.3, 0.5, 0.95]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_equal_to_scikit_learn(seed, n, levels, share, dtype):
    stream = np.random.default_rng(seed)
    y = stream.random(n) < share
    score = (stream.integers(0, levels + 1, n) / levels).astype(dtype)
    for name, oracle in ORACLE.items():
        ours = metric(name, y, score)
        if 0 < y.sum() < n:
            assert ours == pytest.approx(oracle(y, score), abs=1e-9), name
        else:
            assert np.isnan(ours), name


@settings(deadline=None)  # a busy machine is no failure
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 150), T=st.integers(1, 4), K=st.integers(1, 4))
def test_all_segments_at_once_equal_one_at_a_time(seed, n, T, K):
    stream = np.random.default_rng(seed)
    task, fold = stream.integers(0, T, n), stream.choice([0, 2, 5, 9][:K], n)
    y, score = stream.random(n) < 0.4, stream.integers(0, 9, n) / 8
    names = [f"t{i}" for i in range(T)]
    entries = Entries(
        task.astype(np.int32), fold.astype(np.int32), y, score, np.arange(n, dtype=np.int32), names, np.full(T, 0.5)
    )
    for name, function in METRICS.items():
        by_fold, by_task = function(entries, "fold"), function(entries, "task")
        assert by_fold.shape == (T, len(np.unique(fold)))
        assert by_task.shape == (T,)
        for t in range(T):
            part = task == t
            np.testing.assert_allclose(by_task[t], metric(name, y[part], score[part]), atol=1e-12)
            for k, number in enumerate(np.unique(fold)):
                part = (task == t) & (fold == number)
                np.testing.assert_allclose(by_fold[t, k], metric(name, y[part], score[part]), atol=1e-12)


def test_hand_checked():
    y, score = [0, 1, 0, 1, 1], [0.2, 0.3, 0.3, 0.6, 0.9]
    assert metric("auroc", y, score) == pytest.approx((1 + 0.5 + 2 + 2) / 6)
    # ranked: 0.9 active (1/1), 0.6 active (2/2), then the tied pair together (3/4)
    assert metric("average_precision", y, score) == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert metric("f1", y, score) == pytest.approx(2 * 2 / (2 * 2 + 0 + 1))
    assert metric("kappa", y, score) == pytest.approx((0.8 - 12 / 25) / (1 - 12 / 25))


def test_constant_scores_are_chance():
    y = [0, 1, 1, 0, 0]
    assert metric("auroc", y, [0.3] * 5) == 0.5
    assert metric("delta_auprc", y, [0.3] * 5) == pytest.approx(0, abs=1e-12)
    assert metric("kappa", y, [0.3] * 5) == 0


def test_hard_calls_obey_the_identity_that_unmasks_them():
    stream = np.random.default_rng(3)
    y, call = stream.random(200) < 0.3, (stream.random(200) < 0.4).astype(float)
    assert metric("auroc", y, call) == pytest.approx((1 + metric("adjusted_balanced_accuracy", y, call)) / 2)


def test_calls_need_a_cut():
    for name in ("f1", "balanced_accuracy", "adjusted_balanced_accuracy", "kappa"):
        assert np.isnan(metric(name, [0, 1], [5.0, 6.0], cut=np.nan))
        assert metric(name, [0, 1], [5.0, 6.0], cut=5.5) == 1


def test_mean_over_folds_skips_what_is_undefined():
    values = np.array([[0.5, np.nan, 1.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(mean_over_folds(values), [0.75, np.nan])
    np.testing.assert_array_equal(mean_over_folds(values, undefined=0.5), [2 / 3, 0.5])
    assert np.isnan(mean_over_folds(np.zeros((1, 0)))).all()


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match=r"'auroq' is not known\. Nearest: auroc"):
        metric("auroq", [0, 1], [0, 1])
    with pytest.raises(LabelError, match=r"0 .inactive. or 1"):
        metric("auroc", [0, 2], [0.0, 1.0])
    with pytest.raises(ShapeError, match="equal lists"):
        metric("auroc", [0, 1], [0.0])
