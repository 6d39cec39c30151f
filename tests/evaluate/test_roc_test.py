"""The paired test of ROC curves: the definition taken literally, all permutations of small cases, level and power."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kstest

import phenohit.evaluate.roc_test as module
from phenohit.errors import ConfigError, LabelError, ShapeError
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import metric
from phenohit.evaluate.roc_test import roc_test, roc_tests, verdicts


def entries_of(y, score, task=None, fold=None, compound=None, names=("t0",)):
    n = len(y)
    parts = [np.zeros(n) if v is None else v for v in (task, fold)]
    task, fold = (np.asarray(v, np.int32) for v in parts)
    compound = np.arange(n, dtype=np.int32) if compound is None else np.asarray(compound, np.int32)
    cut = np.full(len(names), 0.5)
    return Entries(task, fold, np.asarray(y, bool), np.asarray(score, np.float64), compound, list(names), cut)


def literal_statistic(y, rank_a, rank_b):
    """Errors at every cut-off, counted one by one."""
    total = 0
    for k in range(1, len(y) + 1):
        errors = []
        for rank in (rank_a, rank_b):
            missed = sum(1 for i in range(len(y)) if y[i] and rank[i] <= k)
            false_alarms = sum(1 for i in range(len(y)) if not y[i] and rank[i] > k)
            errors.append(missed + false_alarms)
        total += abs(errors[0] - errors[1])
    return total


def literal_permutation(y, rank_a, rank_b, swap, tie):
    """Swap ranks, then sort each side; `tie` (by rank) says whether who came from the second side goes first."""
    sides = []
    for kept, taken in ((rank_a, rank_b), (rank_b, rank_a)):
        held = [
            (taken[i] if swap[i] else kept[i], (swap[i] ^ (kept is rank_b)) ^ tie[(taken if swap[i] else kept)[i] - 1])
            for i in range(len(y))
        ]
        order = sorted(range(len(y)), key=held.__getitem__)
        sides.append({i: place + 1 for place, i in enumerate(order)})
    return literal_statistic(y, *sides)


def case(n, seed, shift=1.0):
    stream = np.random.default_rng(seed)
    y = stream.random(n) < 0.4
    y[:2] = True, False
    return y, stream.normal(size=n) + shift * y, stream.normal(size=n)


def ranked(y, a, b):
    """Labels and ranks of both scores, compounds in the order of the first (as the fast form wants them)."""
    order = np.argsort(a)
    return y[order], np.arange(1, len(y) + 1), np.argsort(np.argsort(b[order])) + 1


@pytest.mark.parametrize("n", [2, 3, 7, 30])
def test_statistic_is_the_definition(n):
    for seed in range(5):
        y, a, b = case(n, seed)
        assert roc_test(y, a, b, permutations=1).statistic == literal_statistic(*ranked(y, a, b))


def test_every_permutation_of_small_cases_is_the_definition():
    for n, seed in ((4, 1), (5, 2), (5, 3)):
        y, rank_a, rank_b = ranked(*case(n, seed))
        coins = np.array(list(product([False, True], repeat=2 * n)))
        swap, tie = coins[:, :n], coins[:, n:]
        fast = module._permuted(y, np.argsort(rank_b), swap, tie)
        assert fast.tolist() == [literal_permutation(y, rank_a, rank_b, s, t) for s, t in zip(swap, tie, strict=True)]


@pytest.mark.parametrize("plus_one", [True, False])
def test_p_from_the_same_permutations_and_from_all(plus_one):
    n, B = 6, 3000
    y, a, b = np.array([1, 0, 1, 1, 0, 0]), np.array([5, 1, 6, 4, 2, 3.0]), np.array([3, 5, 6, 1, 2, 4.0])
    found = roc_test(y, a, b, permutations=B, seed=3, plus_one=plus_one)
    y, rank_a, rank_b = ranked(y.astype(bool), a, b)
    stream = np.random.default_rng(3)
    stream.permutation(n)
    swap, tie = module._coins((B, n), stream), module._coins((B, n), stream)
    kept = {}
    drawn = np.array(
        [
            kept.setdefault((*s, *t), literal_permutation(y, rank_a, rank_b, s, t))
            for s, t in zip(swap.tolist(), tie.tolist(), strict=True)
        ]
    )
    assert found.p_value == ((drawn >= found.statistic).sum() + plus_one) / (B + plus_one)
    every = np.array(list(product([False, True], repeat=2 * n)))
    exact = (module._permuted(y, np.argsort(rank_b), every[:, :n], every[:, n:]) >= found.statistic).mean()
    assert 0.05 < exact < 0.95
    assert abs(found.p_value - exact) < 4 * np.sqrt(exact * (1 - exact) / B) + 1 / B


def test_p_agrees_with_sorting_jittered_ranks():
    # Ties broken by jitter and every side sorted, with coins of its own.
    y, rank_a, rank_b = ranked(*case(60, 5, shift=0.8))
    stream = np.random.default_rng(9)
    found, B = roc_test(y, rank_a, rank_b, permutations=20_000), 4000
    swap = stream.random((B, 60)) < 0.5
    first = np.where(swap, rank_b, rank_a) + stream.uniform(-0.4, 0.4, (B, 60))
    second = np.where(swap, rank_a, rank_b) + stream.uniform(-0.4, 0.4, (B, 60))
    ahead = np.cumsum(y[np.argsort(first, 1)], 1) - np.cumsum(y[np.argsort(second, 1)], 1)
    p = (2 * np.abs(ahead).sum(1) >= found.statistic).mean()
    assert 0.005 < p < 0.5
    assert abs(found.p_value - p) < 4 * np.sqrt(p * (1 - p) * (1 / B + 1 / 20_000))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_properties(data):
    n = data.draw(st.integers(2, 25))
    y = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    a, b = (np.array(data.draw(st.permutations(range(n))), float) for _ in range(2))
    found = roc_test(y, a, b, permutations=19)
    if y.all() or not y.any():
        assert np.isnan(found).all()
        return
    # The area between two step functions is the distance of their steps.
    places = [np.sort(s[y]) for s in (a, b)]
    assert found.statistic == 2 * np.abs(places[0] - places[1]).sum()
    pairs = y.sum() * (~y).sum()
    apart = abs(metric("auroc", y, a) - metric("auroc", y, b))
    assert found.statistic >= 2 * pairs * apart - 1e-9
    assert roc_test(y, b, a, permutations=1).statistic == found.statistic
    assert roc_test(y, np.exp(a / n), b**3 - 5, permutations=19) == found
    assert 1 / 20 <= found.p_value <= 1


@pytest.mark.parametrize("score", [[0.1, 0.5, 0.2, 0.9], [0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0]])
def test_equal_scores_have_p_1_ties_or_not(score):
    for plus_one in (True, False):
        assert roc_test([0, 1, 1, 0], score, score, permutations=50, plus_one=plus_one) == (0, 1)


def test_perfect_against_reversed_by_hand():
    # A: 0 0 1 2 against 1 2 2 2 actives up to rank k, so 2 * (1 + 2 + 1 + 0)
    assert roc_test([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1]).statistic == 8


@pytest.mark.parametrize("decimals", [None, 0])
def test_p_is_uniform_where_curves_are_the_same(decimals):
    stream = np.random.default_rng(4)
    p = []
    for trial in range(400):
        y = np.arange(50) < 20
        common = stream.normal(size=50) + y
        a, b = (common + stream.normal(size=50) for _ in range(2))
        if decimals is not None:
            a, b = a.round(decimals), b.round(decimals)
        p.append(roc_test(y, a, b, permutations=199, seed=trial).p_value)
    p = np.array(p)
    assert kstest(p - stream.random(400) / 200, "uniform").pvalue > 0.001
    for alpha in (0.05, 0.2):
        assert binom.ppf(0.001, 400, alpha) <= (p <= alpha).sum() <= binom.ppf(0.999, 400, alpha)


def test_power_grows_with_the_shift_and_sees_curves_of_one_area():
    found = []
    for shift in (0, 0.7, 1.5):
        below = [roc_test(*case(100, seed, shift), permutations=199, seed=seed).p_value <= 0.05 for seed in range(30)]
        found.append(np.mean(below))
    assert found[0] < 0.25 < found[1] < found[2]
    assert found[2] > 0.95
    # Actives at both ends of the ranking: AUROC 0.5 as for noise, yet another curve.
    stream = np.random.default_rng(7)
    y = np.arange(400) < 200
    ends = stream.normal(size=400) * np.where(y, 4, 1)
    assert metric("auroc", y, ends) == pytest.approx(0.5, abs=0.07)
    assert roc_test(y, ends, stream.normal(size=400), permutations=999).p_value < 0.01


def test_blocks_and_seeds(monkeypatch):
    y, a, b = case(80, 3, shift=0.6)
    one = roc_test(y, a, b, permutations=2000, seed=5)
    assert one == roc_test(y, a, b, permutations=2000, seed=5)
    assert one.p_value != roc_test(y, a, b, permutations=2000, seed=6).p_value
    monkeypatch.setattr(module, "_CELLS", 700)
    assert roc_test(y, a, b, permutations=2000, seed=5).p_value == pytest.approx(one.p_value, abs=0.04)


def test_tasks_folds_and_left_out_entries():
    stream = np.random.default_rng(8)
    n = 240
    task, fold = np.repeat([0, 1, 2, 3], 60), np.tile([0, 1, 2], 80)
    y = stream.random(n) < 0.3
    y[task == 1] = False  # undefined
    y[(task == 2) & (fold == 1)] = True  # a fold without inactives counts nothing
    compound = np.tile(np.arange(60), 4)
    a, b = stream.normal(size=n) + y, stream.normal(size=n) + 100 * fold
    names = ["t0", "t1", "t2", "none"]
    task[task == 3] = 2
    fold, compound = fold.copy(), np.where(np.arange(n) >= 180, compound + 60, compound)
    both = np.arange(n) % 20 != 7
    found = roc_tests(
        entries_of(y, a, task, fold, compound, names),
        entries_of(y[both][::-1], b[both][::-1], task[both][::-1], fold[both][::-1], compound[both][::-1], names),
        permutations=99,
    )
    assert found["task"].tolist() == names
    assert found["only_a"].tolist() == [3, 3, 6, 0]
    assert found["only_b"].tolist() == [0] * 4
    assert found["p_value"].isna().tolist() == [False, True, False, True]
    for t in (0, 2):
        sums = auroc = 0
        parts = [both & (task == t) & (fold == k) for k in range(3)]
        for at in parts:
            if 0 < y[at].sum() < at.sum():
                sums += literal_statistic(*ranked(y[at], a[at], b[at]))
                auroc += metric("auroc", y[at], a[at])
        row = found.iloc[t]
        assert row["statistic"] == sums
        assert row["auroc_a"] == pytest.approx(auroc / sum(0 < y[at].sum() < at.sum() for at in parts))
        assert row["n_active"] == y[both & (task == t)].sum()
        assert row["n_inactive"] == (~y[both & (task == t)]).sum()
        assert row["difference"] == row["auroc_a"] - row["auroc_b"]
    assert (found["p_holm"].dropna() >= found["p_value"].dropna()).all()


def test_order_of_rows_and_other_tasks_do_not_matter():
    y, a, b = case(60, 2, shift=0.5)
    a, b = a.round(0), b.round(0)
    task = np.arange(60) % 2
    names = ["t0", "t1"]
    whole = roc_tests(entries_of(y, a, task, names=names), entries_of(y, b, task, names=names), permutations=199)
    order = np.random.default_rng(1).permutation(60)
    mixed = entries_of(y[order], a[order], task[order], compound=order, names=names)
    pd.testing.assert_frame_equal(whole, roc_tests(mixed, entries_of(y, b, task, names=names), permutations=199))
    at = task == 1
    alone = [entries_of(y[at], s[at], compound=np.flatnonzero(at), names=["t1"]) for s in (a, b)]
    columns = ["statistic", "p_value", "difference"]
    assert roc_tests(*alone, permutations=199)[columns].iloc[0].tolist() == whole[columns].iloc[1].tolist()


def test_a_sample_keeps_the_rarer_class_and_the_level():
    stream = np.random.default_rng(11)
    n, T = 200, 150
    y = np.tile(np.arange(n) < 25, T)
    task, compound = np.repeat(np.arange(T), n), np.tile(np.arange(n), T)
    common = stream.normal(size=n * T) + y
    names = [f"t{i}" for i in range(T)]
    a, b = (entries_of(y, common + stream.normal(size=n * T), task, None, compound, names) for _ in range(2))
    found, whole = (roc_tests(a, b, permutations=99, most=most) for most in (80, None))
    assert found["n_tested"].unique().tolist() == [80]
    assert whole["n_tested"].unique().tolist() == [200]
    same = ["n_active", "n_inactive", "auroc_a", "auroc_b"]
    pd.testing.assert_frame_equal(found[same], whole[same])
    assert binom.ppf(0.0005, T, 0.2) <= (found["p_value"] <= 0.2).sum() <= binom.ppf(0.9995, T, 0.2)
    for few, most, expected in ((25, 80, 25), (25, 30, 15), (100, 31, 15)):
        at = module._sampled(np.arange(n) < few, most, stream)
        assert len(np.unique(at)) == len(at) == most
        assert (at < few).sum() == expected


def test_verdicts():
    tests = pd.DataFrame(
        {
            "difference": [0.2, -0.1, 0.3, 0.0, np.nan, -0.2],
            "p_value": [0.01, 0.05, 0.06, 0.01, np.nan, 0.001],
            "p_holm": [0.04, 0.2, 0.2, 0.04, np.nan, 0.005],
        }
    )
    assert verdicts(tests).tolist() == ["better", "worse", "same", "same", "undefined", "worse"]
    assert verdicts(tests, alpha=0.01, column="p_holm").tolist() == ["same"] * 4 + ["undefined", "worse"]
    assert verdicts(tests.iloc[:1]).value_counts().to_dict() == {"better": 1, "worse": 0, "same": 0, "undefined": 0}


def test_what_is_wrong_is_said():
    with pytest.raises(ShapeError, match=r"scores of shapes \(2,\) and \(3,\)"):
        roc_test([0, 1], [1, 2], [1, 2, 3])
    with pytest.raises(ShapeError, match="NaN at 1"):
        roc_test([0, 1], [1, np.nan], [1, 2])
    with pytest.raises(LabelError, match="must be 0"):
        roc_test([0, 2], [1, 2], [1, 2])
    with pytest.raises(ConfigError, match="permutations is 0"):
        roc_test([0, 1], [1, 2], [1, 2], permutations=0)
    y, a, b = case(10, 0)
    one = entries_of(y, a)
    with pytest.raises(ShapeError, match="same tasks"):
        roc_tests(one, entries_of(y, b, names=["other"]))
    with pytest.raises(LabelError, match="2 labels differ between the two methods, in tasks 't0'"):
        roc_tests(one, entries_of(np.where(np.arange(10) < 2, ~y, y), b))
    with pytest.raises(ConfigError, match="permutations is -1"):
        roc_tests(one, one, permutations=-1)


def test_no_shared_entries_are_undefined():
    y, a, b = case(10, 0)
    found = roc_tests(entries_of(y, a), entries_of(y, b, compound=np.arange(10, 20)), permutations=9)
    assert found[["only_a", "only_b"]].to_numpy().tolist() == [[10, 10]]
    assert found["p_value"].isna().all()
    assert found["auroc_a"].isna().all()
