"""Paired comparisons against SciPy and by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, rankdata, wilcoxon

from phenohit.errors import ShapeError
from phenohit.evaluate.compare import compare, holm


def table(values, names=None):
    return pd.DataFrame({"task": names or [f"t{i}" for i in range(len(values))], "auroc": values})


def row(result, method, other):
    return result[(result["method"] == method) & (result["other"] == other)].iloc[0]


def test_equals_scipy_over_tasks_where_both_are_defined():
    stream = np.random.default_rng(0)
    a = stream.random(40)
    b = a - 0.05 + 0.2 * stream.normal(size=40)
    a[3], b[7] = np.nan, np.nan
    order = stream.permutation(40)
    shuffled = table(b[order], [f"t{i}" for i in order])
    result = compare({"a": table(a), "b": shuffled})
    assert len(result) == 2
    both = ~np.isnan(a) & ~np.isnan(b)
    x, y = a[both], b[both]
    for method, other, u, v in (("a", "b", x, y), ("b", "a", y, x)):
        found = row(result, method, other)
        assert found["n_tasks"] == 38
        assert found["n_left_out"] == 2
        assert found["p_value"] == pytest.approx(wilcoxon(u, v, alternative="greater").pvalue, rel=1e-9)
        assert found["mean_difference"] == pytest.approx((u - v).mean())
        assert found["mean"] - found["mean_other"] == pytest.approx(found["mean_difference"])
        assert found["share_better"] == pytest.approx((u > v).mean())
        assert found["pearson_r"] == pytest.approx(pearsonr(u, v)[0])


def test_small_p_by_hand():
    # 6 tasks, all better, no equal differences: p = 1 / 2^6
    a = np.array([0.6, 0.7, 0.8, 0.9, 0.75, 0.65])
    result = compare({"a": table(a), "b": table(a - [0.01, 0.02, 0.04, 0.05, 0.07, 0.11])})
    assert row(result, "a", "b")["p_value"] == pytest.approx(1 / 64)
    assert row(result, "b", "a")["p_value"] == pytest.approx(1.0)


def test_holm_over_all_pairs():
    stream = np.random.default_rng(1)
    base = stream.random(30)
    shifts = {"a": 0, "b": 0.01, "c": 0.03}
    tables = {name: table(base + shift + 0.05 * stream.normal(size=30)) for name, shift in shifts.items()}
    result = compare(tables)
    assert len(result) == 6
    p = np.sort(result["p_value"])
    expected = np.minimum(np.maximum.accumulate(p * np.arange(6, 0, -1)), 1)
    np.testing.assert_allclose(np.sort(result["p_holm"]), expected)
    assert (result["p_holm"] >= result["p_value"]).all()


@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_too_few_tasks_are_nan_without_warnings(n):
    result = compare({"a": table(np.linspace(0.5, 0.9, n)), "b": table(np.linspace(0.4, 0.5, n))})
    assert result["n_tasks"].tolist() == [n, n]
    assert result["p_value"].isna().all()
    assert result["p_holm"].isna().all()
    assert result["pearson_r"].isna().all() == (n < 3)
    assert result["mean_difference"].isna().all() == (n == 0)


def test_ties_and_equal_tasks_among_few_do_not_warn():
    a = np.array([0.6, 0.7, 0.8, 0.9, 0.75, 0.65, 0.5])
    result = compare({"a": table(a), "b": table(a - [0.125, 0.125, 0.125, -0.125, 0.25, 0.25, 0.0])})
    assert 0 < row(result, "a", "b")["p_value"] < 0.5 < row(result, "b", "a")["p_value"] < 1


def test_equal_and_constant_tables():
    same = table(np.linspace(0.5, 0.9, 20))
    result = compare({"a": same, "b": same, "c": table(np.full(20, 0.5))})
    found = row(result, "a", "b")
    assert np.isnan(found["p_value"])
    assert found["share_better"] == 0
    assert found["pearson_r"] == pytest.approx(1)
    assert np.isnan(row(result, "a", "c")["pearson_r"])


@pytest.mark.parametrize("n", [5, 8, 12])
@pytest.mark.parametrize("zeros", [0, 3])
def test_p_is_the_share_of_all_signs(n, zeros):
    # Zeros left out, ties with mid-ranks: every choice of signs counted.
    stream = np.random.default_rng(n)
    difference = np.concatenate([stream.choice([-0.2, -0.1, 0.1, 0.2, 0.3], n), np.zeros(zeros)])
    stream.shuffle(difference)
    a = stream.random(n + zeros)
    result = compare({"a": table(a), "b": table(a - difference)})  # subtracting leaves rounding errors
    rank = rankdata(np.abs(difference[difference != 0]))
    signs = np.array(list(product([0, 1], repeat=n)))
    reached = signs @ rank >= rank[difference[difference != 0] > 0].sum() - 1e-9
    assert row(result, "a", "b")["p_value"] == pytest.approx(reached.mean())
    assert row(result, "a", "b")["n_tasks"] == n + zeros
    assert row(result, "a", "b")["share_better"] == (difference > 0).mean()


@pytest.mark.parametrize("zero_method", ["wilcox", "pratt", "zsplit"])
def test_zeros_as_scipy_states(zero_method):
    stream = np.random.default_rng(3)
    a = stream.integers(0, 64, 60) / 64
    b = np.clip(a + stream.integers(-3, 2, 60) / 64, 0, 1)
    result = compare({"a": table(a), "b": table(b)}, zero_method=zero_method)
    expected = wilcoxon(a - b, zero_method=zero_method, alternative="greater").pvalue
    assert row(result, "a", "b")["p_value"] == pytest.approx(expected, rel=1e-12)


def test_tasks_left_out_are_counted():
    a = table([0.1, 0.2, np.nan, 0.4], ["p", "q", "r", "s"])
    b = table([np.nan, 0.3, 0.5], ["p", "q", "x"])
    result = compare({"a": a, "b": b})
    assert result["n_tasks"].tolist() == [1, 1]
    assert result["n_left_out"].tolist() == [4, 4]  # p, r, s, x


def test_holm_by_hand():
    found = holm(np.array([0.04, np.nan, 0.01, 0.03, 0.6]))
    np.testing.assert_allclose(found, [0.09, np.nan, 0.04, 0.09, 0.6])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_another_metric_and_one_method():
    other = table(np.linspace(0, 1, 9)).rename(columns={"auroc": "kappa"})
    assert len(compare({"a": other}, column="kappa")) == 0
    assert len(compare({"a": other, "b": other}, column="kappa")) == 2


def test_a_task_twice_is_refused():
    with pytest.raises(ShapeError, match="'b' holds tasks twice: 't'"):
        compare({"a": table([0.5], ["t"]), "b": table([0.5, 0.6], ["t", "t"])})
