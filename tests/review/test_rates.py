"""Intervals against SciPy, a published example, a search for the constrained maximum, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, chi2

from phenohit.errors import ConfigError
from phenohit.review.rates import Primary, clopper_pearson, enrichment_interval, koopman, rate


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_clopper_pearson_equals_scipy(confidence):
    for k, n in ((0, 1), (0, 40), (1, 1), (7, 19), (40, 40), (141, 342), (37, 141)):
        low, high = clopper_pearson(k, n, confidence)
        peer = binomtest(k, n).proportion_ci(confidence, method="exact")
        assert (float(low), float(high)) == pytest.approx((peer.low, peer.high), abs=1e-12)
    assert [float(v) for v in clopper_pearson(0, 0)] == [0, 1]
    assert rate(0, 0)["rate"] is None


def test_koopman_equals_the_published_example():
    """Koopman 1984: 36 of 40 against 16 of 80."""
    assert koopman(36, 40, 16, 80) == pytest.approx((2.939, 7.152), abs=1e-3)


@given(st.integers(0, 12), st.integers(1, 12), st.integers(0, 30), st.integers(1, 30), st.floats(0.05, 20))
def test_koopman_is_the_score_test_turned_round(x, n, y, m, ratio):
    """A ratio lies inside exactly where its score statistic, at the constrained maximum found by search, is small."""
    x, y = min(x, n), min(y, m)
    if x + y in (0, n + m):
        return

    def loss(p0):
        return -(binom.logpmf(x, n, min(ratio * p0, 1 - 1e-12)) + binom.logpmf(y, m, p0))

    p0 = minimize_scalar(loss, bounds=(1e-9, min(1, 1 / ratio) - 1e-9), method="bounded", options={"xatol": 1e-12}).x
    p = ratio * p0
    statistic = (x - n * p) ** 2 / (n * p * (1 - p)) + (y - m * p0) ** 2 / (m * p0 * (1 - p0))
    limit = chi2.ppf(0.95, 1)
    if abs(statistic - limit) > 0.02 * limit and p < 1 - 1e-4:
        low, high = koopman(x, n, y, m)
        assert (low <= ratio <= high) == (statistic < limit)


@pytest.mark.parametrize(
    ("p", "n", "p0", "m"), [(0.41, 342, 0.00725, 50_000), (0.26, 141, 0.00088, 100_000), (0.3, 20, 0.02, 600)]
)
def test_coverage(p, n, p0, m):
    """Both intervals cover what they say; a campaign of the size of Simm et al. 2018 and a small one."""
    rng = np.random.default_rng(0)
    hits, hits0 = rng.binomial(n, p, 1500), rng.binomial(m, p0, 1500)
    inside = [low <= p / p0 <= high for low, high in (koopman(int(k), n, int(k0), m) for k, k0 in zip(hits, hits0))]  # noqa: B905
    assert 0.935 <= np.mean(inside) <= 0.975
    low, high = clopper_pearson(hits, n)
    assert np.mean((low <= p) & (p <= high)) >= 0.945


def test_the_edges():
    assert koopman(0, 10, 5, 100)[0] == 0
    assert koopman(5, 10, 0, 100)[1] == math.inf
    assert koopman(0, 10, 0, 100) == (0, math.inf)
    low, high = koopman(10, 10, 100, 100)
    assert low < 1 < high < 1.1
    one, other = koopman(7, 30, 11, 90), koopman(11, 90, 7, 30)
    assert one == pytest.approx((1 / other[1], 1 / other[0]))


def test_the_primary_screen_as_counts_or_as_a_rate():
    counts = Primary("34 / 4,690")
    assert (counts.hits, counts.tested, counts.counted) == (34, 4690, True)
    share = Primary("0.725%")
    assert not share.counted
    assert share.rate == pytest.approx(0.00725)
    exact = enrichment_interval(141, 342, share)
    assert exact["fold"] == pytest.approx(56.87, abs=0.01)
    assert "without error" in exact["method"]
    assert enrichment_interval(141, 342, Primary("725/100000"))["fold"] == pytest.approx(exact["fold"])
    none = enrichment_interval(3, 10, Primary("0/100"))
    assert none["fold"] is None
    assert none["high"] is None
    for bad in ("34", "40/30", "a/b", "120%", "10/10", "1/0"):
        with pytest.raises(ConfigError, match=r"34/4690"):
            Primary(bad)
