"""Means of ranks: by hand, against pandas and SciPy, and that nothing but held-out scores of one fold is used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr, wilcoxon
from sklearn.metrics import roc_auc_score

from phenohit.errors import ShapeError
from phenohit.evaluate.ensemble import HeldOut, gain, ranks_within
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS, mean_over_folds

T, K = 4, 3


def entries(seed, n=160, *, ties=True, signal=0.0):
    """Scores of the same labels in the same folds; `seed` moves the scores only."""
    fixed = np.random.default_rng(0)
    keys = fixed.choice(T * 100, n, replace=False)
    task, compound = (keys // 100).astype(np.int32), (keys % 100).astype(np.int32)
    fold = (compound % K).astype(np.int32)
    y = fixed.random(n) < 0.4
    score = np.random.default_rng(seed).normal(size=n) + signal * y
    score = (np.round(score * 2) / 2 if ties else score).astype(np.float32)
    return Entries(task, fold, y, score, compound, [f"t{t}" for t in range(T)], np.full(T, 0.5))


def frame(e):
    return pd.DataFrame({"task": e.task, "fold": e.fold, "compound": e.compound, "y": e.y, "score": e.score})


@given(st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=12), min_size=0, max_size=6))
def test_ranks_within_segments_are_scipys(parts):
    score = np.array([v for part in parts for v in part], dtype=np.float64)
    start = np.cumsum([0, *[len(p) for p in parts]])[:-1].astype(np.int64)
    expected = np.concatenate([np.zeros(0), *[2 * rankdata(part) for part in parts]])
    np.testing.assert_array_equal(ranks_within(start, score), expected)


@settings(max_examples=25)
@given(st.integers(1, 10_000), st.integers(1, 4), st.booleans())
def test_mean_of_ranks_is_pandas(seed, n_methods, ties):
    given_ = {f"m{k}": entries(seed + k, ties=ties) for k in range(n_methods)}
    held = HeldOut([f"t{t}" for t in range(T)])
    total = 0
    for name, e in given_.items():
        shuffled = np.random.default_rng(seed).permutation(len(e))  # the order of entries must not matter
        held.add(name, replace(e, **{c: getattr(e, c)[shuffled] for c in ("task", "fold", "y", "score", "compound")}))
        table = frame(e)
        by = table.groupby(["task", "fold"])["score"]
        total = total + (by.rank() - 0.5) / by.transform("size")
    expected = frame(next(iter(given_.values()))).assign(mean=total / n_methods)
    found = frame(held.mean_of_ranks(list(given_)))
    both = found.merge(expected, on=["task", "fold", "compound"])
    assert len(both) == len(expected)
    np.testing.assert_allclose(both["score_x"], both["mean"], atol=1e-6)
    assert (both["y_x"] == both["y_y"]).all()
    ensemble = held.mean_of_ranks(list(given_))
    auroc = mean_over_folds(METRICS["auroc"](ensemble, "fold"))
    for t in range(T):
        mine = expected[expected["task"] == t].round(9)  # ties of means are ties
        folds = [roc_auc_score(p["y"], p["mean"]) for _, p in mine.groupby("fold") if p["y"].nunique() == 2]
        assert auroc[t] == pytest.approx(np.mean(folds), abs=1e-9)


def test_of_one_method_it_is_that_method():
    e = entries(1)
    held = HeldOut(e.tasks)
    held.add("one", e)
    own = METRICS["auroc"](e, "fold")
    np.testing.assert_allclose(METRICS["auroc"](held.mean_of_ranks(["one"]), "fold"), own)
    np.testing.assert_allclose(held.auroc("one", ["one"]), mean_over_folds(own))


def test_scores_of_another_fold_change_nothing():
    """Out of fold only: whatever happens in fold 0, ranks in the others stand."""
    one, other = entries(1), entries(2)
    moved = replace(one, score=np.where(one.fold == 0, -7 * one.score + 3, one.score).astype(np.float32))
    found = []
    for first in (one, moved):
        held = HeldOut(one.tasks)
        held.add("a", first)
        held.add("b", other)
        found.append(frame(held.mean_of_ranks(["a", "b"])))
    rest = found[0]["fold"] != 0
    pd.testing.assert_frame_equal(found[0][rest], found[1][rest])
    assert not found[0].equals(found[1])


def test_labels_are_not_looked_at():
    one = entries(1)
    held = [HeldOut(one.tasks), HeldOut(one.tasks)]
    held[0].add("a", one)
    held[1].add("a", replace(one, y=~one.y))
    np.testing.assert_array_equal(*(h.mean_of_ranks(["a"]).score for h in held))


def test_correlation_is_scipys_mean_over_folds():
    one, other = entries(1), entries(2)
    held = HeldOut(one.tasks)
    held.add("a", one)
    held.add("b", other)
    held.add("flat", replace(one, score=np.zeros_like(one.score)))
    table = frame(one).assign(other=other.score)
    found = held.correlation("a", "b")
    for t in range(T):
        parts = [p for _, p in table[table["task"] == t].groupby("fold") if len(p) >= 3]
        expected = [spearmanr(p["score"], p["other"]).statistic for p in parts]
        assert found[t] == pytest.approx(np.mean(expected))
    np.testing.assert_allclose(held.correlation("a", "a"), 1)
    assert np.isnan(held.correlation("a", "flat")).all()


def test_methods_meet_on_the_entries_they_share():
    one, other = entries(1), entries(2)
    kept = np.flatnonzero(np.arange(len(other)) % 5 != 0)
    fewer = replace(other, **{c: getattr(other, c)[kept] for c in ("task", "fold", "y", "score", "compound")})
    held, apart = HeldOut(one.tasks), HeldOut(one.tasks)
    held.add("a", one)
    held.add("b", fewer)
    apart.add("a", replace(one, **{c: getattr(one, c)[kept] for c in ("task", "fold", "y", "score", "compound")}))
    apart.add("b", fewer)
    assert (held.n_entries("a"), held.n_entries("b")) == (len(one), len(kept))
    pd.testing.assert_frame_equal(frame(held.mean_of_ranks(["a", "b"])), frame(apart.mean_of_ranks(["a", "b"])))
    np.testing.assert_allclose(held.correlation("a", "b"), apart.correlation("a", "b"))
    np.testing.assert_allclose(held.auroc("a", ["a", "b"]), apart.auroc("a", ["a", "b"]))
    assert not np.allclose(held.auroc("a", ["a", "b"]), held.auroc("a", ["a"]))


def test_independent_errors_average_out_and_the_gain_says_so():
    """Two methods with the same signal and noise of their own: AUROC of the mean is that of less noise."""
    rng = np.random.default_rng(5)
    n_tasks, n = 30, 200
    task = np.repeat(np.arange(n_tasks), n).astype(np.int32)
    compound = np.tile(np.arange(n), n_tasks).astype(np.int32)
    y, fold = rng.random(n_tasks * n) < 0.5, (compound % 2).astype(np.int32)
    tasks, cut = [f"t{t}" for t in range(n_tasks)], np.full(n_tasks, 0.5)
    held = HeldOut(tasks)
    for name in ("a", "b"):
        score = (y + rng.normal(size=len(y))).astype(np.float32)
        held.add(name, Entries(task, fold, y, score, compound, tasks, cut))
    ensemble = mean_over_folds(METRICS["auroc"](held.mean_of_ranks(["a", "b"]), "fold"))
    rows = gain(held, pd.DataFrame({"task": tasks, "auroc": ensemble}), ["a", "b"])
    single = {name: held.auroc(name, ["a", "b"]) for name in ("a", "b")}
    # a shift of one standard deviation has AUROC 0.760; of sqrt(2), as for the mean of two, 0.841
    assert single["a"].mean() == pytest.approx(0.760, abs=0.01)
    assert ensemble.mean() == pytest.approx(0.841, abs=0.012)
    assert rows[0]["mean"] >= rows[1]["mean"]
    for row in rows:
        own = single[row["method"]]
        assert row["difference"] == pytest.approx((ensemble - own).mean())
        assert row["share_better"] == (ensemble > own).mean()
        assert row["p_value"] == pytest.approx(wilcoxon(ensemble, own, alternative="greater").pvalue)
        assert row["p_worse"] == pytest.approx(wilcoxon(own, ensemble, alternative="greater").pvalue)
        assert row["p_value"] <= row["p_holm"] <= 2 * row["p_value"]


def test_few_tasks_have_no_p():
    e = entries(1)
    held = HeldOut(e.tasks)
    held.add("a", e)
    held.add("b", entries(2))
    ensemble = mean_over_folds(METRICS["auroc"](held.mean_of_ranks(["a", "b"]), "fold"))
    rows = gain(held, pd.DataFrame({"task": e.tasks, "auroc": ensemble}), ["a", "b"])
    assert all(np.isnan(row["p_value"]) and np.isnan(row["p_holm"]) for row in rows)
    assert all(row["n_tasks"] == T for row in rows)


def test_what_cannot_be_is_refused():
    e = entries(1)
    held = HeldOut(e.tasks)
    held.add("a", e)
    with pytest.raises(ShapeError, match="added twice"):
        held.add("a", e)
    with pytest.raises(ShapeError, match="'b' was scored on other tasks"):
        held.add("b", replace(e, tasks=["x", *e.tasks[1:]]))
    with pytest.raises(ShapeError, match="no scores of 'c'"):
        held.mean_of_ranks(["c"])
    with pytest.raises(ShapeError, match="No method"):
        held.mean_of_ranks([])
