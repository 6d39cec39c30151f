"""Sets of assays, what they share, what chance gives them, and agreement: against brute force, pandas and SciPy."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from phenohit.errors import ShapeError
from phenohit.evaluate.agreement import by_assay, by_task, chance_of_sets, intersections, kappa, pair, sets

MEMBERS = st.integers(1, 6).flatmap(
    lambda m: st.lists(st.lists(st.booleans(), min_size=m, max_size=m), min_size=0, max_size=40).map(
        lambda rows: np.array(rows, dtype=bool).reshape(-1, m)
    )
)


@given(MEMBERS)
def test_intersections_are_those_of_sets_and_add_up(member):
    m = member.shape[1]
    own = [set(np.flatnonzero(member[:, k])) for k in range(m)]
    found = intersections(member)
    for which, items in found:
        inside = set.intersection(*(own[k] for k in which))
        others = set().union(*(own[k] for k in range(m) if k not in which))
        assert set(items) == inside - others
        assert len(items) == len(set(items)) > 0
    union = set().union(*own)
    assert sorted(i for _, items in found for i in items) == sorted(union)
    for k in range(m):  # the parts of a set add up to it
        assert sum(len(items) for which, items in found if k in which) == len(own[k])
    for a, b in combinations(range(m), 2):
        assert sum(len(items) for which, items in found if a in which and b in which) == len(own[a] & own[b])
    counts = [len(items) for _, items in found]
    assert counts == sorted(counts, reverse=True)


def tasks_table(sizes, assays):
    active, inactive = zip(*sizes, strict=True)
    return pd.DataFrame(
        {"task": [f"t{i}" for i in range(len(sizes))], "assay": assays, "n_active": active, "n_inactive": inactive}
    )


def test_simms_rule_for_every_method_by_hand():
    tasks = tasks_table([(25, 25), (40, 30), (25, 25), (24, 90), (30, 30), (60, 60)], ["A", "A", "B", "C", "C", "D"])
    auroc = pd.DataFrame({"a": [0.95, 0.6, 0.9, 1.0, 0.7, np.nan], "b": [0.5, 0.8, np.nan, 1.0, 0.72, 0.91]})
    best = by_assay(auroc, tasks)
    assert best.index.tolist() == ["A", "B", "C", "D"]
    np.testing.assert_array_equal(best["a"], [0.95, 0.9, 0.7, np.nan])  # t3 is perfect but has 24 actives
    np.testing.assert_array_equal(best["b"], [0.8, np.nan, 0.72, 0.91])
    high = sets(best, 0.9, {"all": ["a", "b"]})
    assert (high["n"], high["counts"]) == (4, {"a": 1, "b": 1})  # 0.9 itself is not above
    moderate = sets(best, 0.7, {"all": ["a", "b"]})
    assert moderate["groups"]["all"] == {
        "methods": ["a", "b"],
        "union": 4,
        "common": 1,
        "best": "b",
        "best_count": 3,
    }
    shared = {tuple(r["methods"]): r["members"] for r in moderate["intersections"]}
    assert shared == {("b",): ["C", "D"], ("a", "b"): ["A"], ("a",): ["B"]}
    assert moderate["chance"] is None
    assert by_assay(auroc, tasks, simm_min=200).empty


@given(st.integers(0, 2**31), st.integers(2, 5), st.sampled_from([0.5, 0.7, 0.9]))
def test_sets_agree_with_brute_force(seed, n_methods, above):
    rng = np.random.default_rng(seed)
    auroc = pd.DataFrame(rng.uniform(0.3, 1, (25, n_methods)), columns=[f"m{k}" for k in range(n_methods)])
    auroc = auroc.mask(rng.random(auroc.shape) < 0.1)
    auroc.index = pd.Index([f"t{i}" for i in range(25)])
    own = {m: {t for t in auroc.index if auroc.loc[t, m] > above} for m in auroc}
    groups = {"all": list(auroc), "image": list(auroc)[:2]}
    found = sets(auroc, above, groups)
    assert found["counts"] == {m: len(s) for m, s in own.items()}
    for group, members in groups.items():
        mine = found["groups"][group]
        assert mine["union"] == len(set().union(*(own[m] for m in members)))
        assert mine["common"] == len(set.intersection(*(own[m] for m in members)))
        assert mine["best_count"] == max(len(own[m]) for m in members) == len(own[mine["best"]])
    assert sum(r["count"] for r in found["intersections"]) == found["groups"]["all"]["union"]
    for r in found["intersections"]:
        exact = {t for t in auroc.index if {m for m in own if t in own[m]} == set(r["methods"])}
        assert (set(r["members"]), r["count"]) == (exact, len(exact))


def test_tables_of_other_tasks_are_refused():
    one, other = pd.DataFrame({"task": ["a"], "auroc": [0.5]}), pd.DataFrame({"task": ["b"], "auroc": [0.5]})
    with pytest.raises(ShapeError, match="'second' is over other tasks"):
        by_task({"first": one, "second": other})


# --- chance -----------------------------------------------------------------------------------


def test_chance_equals_drawing_unrelated_methods():
    rng = np.random.default_rng(3)
    p = rng.choice([0.0, 0.02, 0.1, 0.25, 1.0], 60, p=[0.3, 0.3, 0.2, 0.15, 0.05])
    drawn = rng.random((20_000, 60, 3)) < p[:, None]
    found = chance_of_sets(p, 3)
    for kind, counts in (("union", drawn.any(2).sum(1)), ("common", drawn.all(2).sum(1))):
        assert found[kind][2]["expected"] == pytest.approx(counts.mean(), abs=0.06)
        low, high = np.quantile(counts, [0.025, 0.975])
        assert abs(found[kind][2]["low"] - low) <= 1
        assert abs(found[kind][2]["high"] - high) <= 1
    single = drawn[:, :, 0].sum(1)
    assert found["union"][0] == found["common"][0]
    assert found["union"][0]["expected"] == pytest.approx(single.mean(), abs=0.06)
    for s in (1, 2, 3):  # exactly the first s of three
        exact = (drawn[:, :, :s].all(2) & ~drawn[:, :, s:].any(2)).sum(1)
        assert found["exclusive"][2][s - 1] == pytest.approx(exact.mean(), abs=0.06)


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(1, 6))
def test_chance_adds_up(p, k):
    p = np.array(p)
    found = chance_of_sets(p, k)
    from math import comb

    for i in range(1, k + 1):
        parts = sum(comb(i, s) * found["exclusive"][i - 1][s - 1] for s in range(1, i + 1))
        assert parts == pytest.approx(found["union"][i - 1]["expected"], abs=1e-9)
        assert found["exclusive"][i - 1][-1] == pytest.approx(found["common"][i - 1]["expected"], abs=1e-9)
        for kind in ("union", "common"):
            row = found[kind][i - 1]
            assert 0 <= row["low"] <= row["high"] <= len(p)


# --- agreement --------------------------------------------------------------------------------


@given(st.integers(0, 2**31))
def test_a_pair_by_pandas_and_scipy(seed):
    rng = np.random.default_rng(seed)
    one, other = np.round(rng.uniform(0.4, 1, (2, 30)), 1)
    one[rng.random(30) < 0.2] = np.nan
    found = pair(one, other)
    both = ~np.isnan(one)
    calls = pd.crosstab(
        pd.Categorical(one[both] > 0.7, [True, False]), pd.Categorical(other[both] > 0.7, [True, False]), dropna=False
    ).to_numpy()
    counted = [[found["n_both"], found["n_first"]], [found["n_second"], found["n_neither"]]]
    np.testing.assert_array_equal(calls, counted)
    assert found["n_tasks"] == both.sum()
    assert found["auroc_spearman"] == pytest.approx(spearmanr(one[both], other[both]).statistic)
    n = calls.sum()
    expected = (calls.sum(0) * calls.sum(1)).sum() / n**2
    assert found["kappa"] == pytest.approx((np.trace(calls) / n - expected) / (1 - expected))


def test_kappa_of_calls_that_never_differ_is_undefined():
    same = np.ones(5, dtype=bool)
    assert np.isnan(kappa(same, same))
    assert np.isnan(kappa(same[:0], same[:0]))
    assert kappa(same, ~same) == 0
    assert kappa(np.array([True, False]), np.array([True, False])) == 1
    empty = pair(np.array([np.nan, 0.6]), np.array([0.8, np.nan]))
    assert empty["n_tasks"] == 0
    assert np.isnan(empty["auroc_spearman"])
