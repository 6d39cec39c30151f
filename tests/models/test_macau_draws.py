"""Every conditional draw of Macau against its closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg, stats

from phenohit.models.macau_conditionals import (
    draw_gamma,
    draw_link,
    draw_normal_wishart,
    inverse_factor,
    link_rate,
)
from phenohit.models.macau_cpu import Cpu, Plan

DRAWS = 20_000


def spd(rng: np.random.Generator, K: int) -> np.ndarray:
    A = rng.standard_normal((K, 2 * K))
    return A @ A.T / K


def assert_normal(drawn: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> None:
    """Mean and covariance of draws lie within sampling error: no coordinate 5 standard errors away."""
    n = len(drawn)
    sd = np.sqrt(np.diag(covariance))
    assert np.abs((drawn.mean(0) - mean) / (sd / np.sqrt(n))).max() < 5
    found = np.cov(drawn.T)
    error = np.sqrt((covariance**2 + np.outer(sd, sd) ** 2) / n)
    assert np.abs((found - covariance) / error).max() < 5.5


@pytest.mark.parametrize("path", ["few", "many"])
@pytest.mark.parametrize("n", [1, 4, 6, 11])  # below, at and above K = 6
def test_a_row_is_drawn_from_its_posterior(path: str, n: int) -> None:
    rng = np.random.default_rng([n, 3])
    K, M = 6, 15
    precision = spd(rng, K)
    V = rng.standard_normal((M, K)).astype(np.float32)
    m = rng.standard_normal(K)
    at = rng.permutation(M)[:n].astype(np.int32)
    other = rng.uniform(0.2, 2, M).astype(np.float32)
    noise = 0.5 * other[at]
    y = rng.standard_normal(n).astype(np.float32)
    A = precision + (V[at] / noise[:, None]).T.astype(float) @ V[at]
    mean = np.linalg.solve(A, precision @ m + V[at].T.astype(float) @ (y / noise))

    factor = inverse_factor(precision)
    Z = rng.standard_normal((DRAWS, K)).astype(np.float32)
    Mean = np.tile(m.astype(np.float32), (DRAWS, 1))
    start, rows = np.arange(DRAWS + 1) * n, np.arange(DRAWS)
    own, device = np.full(DRAWS, 0.5, np.float32), Cpu()
    none = rows[:0]
    plan = Plan(start, np.tile(at, DRAWS), rows if path == "few" else none, none if path == "few" else rows)
    if path == "few":
        e = rng.standard_normal(DRAWS * n).astype(np.float32)
        S = V @ factor.T.astype(np.float32)
        device.condition(plan, Z, Mean, np.tile(y, DRAWS), e, own, other, V, S)
        U = Mean + Z @ factor.astype(np.float32)
    else:
        U = np.empty_like(Z)
        device.draw(plan, U, Z, Mean, np.tile(y, DRAWS), own, other, V, precision)
    assert_normal(U.astype(float), mean, np.linalg.inv(A))


@pytest.mark.parametrize("n", [39, 40, 55])
def test_many_measurements_are_multiplied_elsewhere(n: int) -> None:
    """Without random numbers the rule gives the posterior mean, by our loops and by the BLAS."""
    rng = np.random.default_rng(n)
    K, M = 60, 80
    precision = spd(rng, K)
    V = rng.standard_normal((M, K)).astype(np.float32)
    at = np.concatenate([rng.permutation(M)[:n], rng.permutation(M)[:7]]).astype(np.int32)
    other, own = rng.uniform(0.5, 2, M).astype(np.float32), np.array([0.5, 1.5], np.float32)
    y, m = rng.standard_normal(n + 7).astype(np.float32), rng.standard_normal((2, K)).astype(np.float32)
    factor, device = inverse_factor(precision), Cpu()
    plan = device.plan(np.array([0, n, n + 7]), at, K, by_measurement=True)
    assert len(plan.few) == 2
    Z = np.zeros((2, K), np.float32)
    device.condition(plan, Z, m, y, np.zeros_like(y), own, other, V, V @ factor.T.astype(np.float32))
    for i, part in enumerate((slice(n), slice(n, n + 7))):
        noise = own[i] * other[at[part]]
        A = precision + (V[at[part]] / noise[:, None]).T.astype(float) @ V[at[part]]
        mean = np.linalg.solve(A, precision @ m[i] + V[at[part]].T.astype(float) @ (y[part] / noise))
        np.testing.assert_allclose(m[i] + Z[i] @ factor, mean, rtol=2e-3, atol=2e-4)


def test_thousands_of_measurements_are_summed_in_parts() -> None:
    """More than one part of 512, and a last one that is short."""
    rng = np.random.default_rng(8)
    K, n = 5, 2500
    precision = spd(rng, K)
    V = rng.standard_normal((n, K)).astype(np.float32)
    y = rng.standard_normal(n).astype(np.float32)
    own, other = np.full(1, 0.5, np.float32), np.ones(n, np.float32)
    U, zero, device = np.empty((1, K), np.float32), np.zeros((1, K), np.float32), Cpu()
    plan = device.plan(np.array([0, n]), np.arange(n, dtype=np.int32), K, by_measurement=True)
    device.draw(plan, U, zero, zero, y, own, other, V, precision)
    A = precision + 2 * V.T.astype(float) @ V
    np.testing.assert_allclose(U[0], np.linalg.solve(A, 2 * V.T.astype(float) @ y), rtol=2e-5, atol=1e-6)


def test_rows_not_asked_for_stay_as_they_were() -> None:
    rng = np.random.default_rng(1)
    Z = rng.standard_normal((3, 4)).astype(np.float32)
    before, zero = Z.copy(), np.zeros((3, 4), np.float32)
    V = rng.standard_normal((2, 4)).astype(np.float32)
    one, three, device = np.ones(2, np.float32), np.ones(3, np.float32), Cpu()
    plan = device.plan(np.array([0, 0, 2, 2]), np.array([0, 1], np.int32), 4, by_measurement=True)
    device.condition(plan, Z, zero, one, one, three, one, V, V)
    np.testing.assert_array_equal(Z[[0, 2]], before[[0, 2]])
    assert not np.array_equal(Z[1], before[1])


def test_the_link_is_drawn_from_its_posterior() -> None:
    """Against the dense posterior of vec(B), with its FK x FK covariance."""
    rng = np.random.default_rng(4)
    N, F, K, strength = 30, 4, 3, 1.7
    X = rng.standard_normal((N, F))
    R = rng.standard_normal((N, K))  # U - mu
    precision = spd(rng, K)
    big = np.kron(X.T @ X + strength * np.eye(F), precision)
    mean = np.linalg.solve(big, np.kron(np.eye(F), precision) @ (X.T @ R).ravel())
    size, turn = linalg.eigh(X.T @ X)
    factor = inverse_factor(precision)
    drawn = np.stack([draw_link(turn, size, X.T @ R, strength, factor, rng).ravel() for _ in range(DRAWS)])
    assert_normal(drawn, mean, np.linalg.inv(big))


def test_hyperparameters_are_drawn_from_their_posterior() -> None:
    """The precision against scipy's Wishart, coordinate by coordinate; the mean given it is normal."""
    rng = np.random.default_rng(5)
    n, K, F, strength = 12, 3, 4, 0.8
    R, link = rng.standard_normal((n, K)) + 0.5, rng.standard_normal((F, K))
    total, scatter = R.sum(0), R.T @ R
    mean = total / (n + 2)
    inverse = np.eye(K) + scatter - (n + 2) * np.outer(mean, mean) + strength * link.T @ link
    draws = [draw_normal_wishart(n, total, scatter, rng, link=link, link_precision=strength) for _ in range(4000)]
    theirs = stats.wishart(K + n + F, np.linalg.inv(inverse)).rvs(4000, random_state=6)
    ours = np.stack([precision for _, precision in draws])
    for a in range(K):
        for b in range(a + 1):
            assert stats.ks_2samp(ours[:, a, b], theirs[:, a, b]).pvalue > 1e-4
    white = np.stack([np.linalg.cholesky(P).T @ (mu - mean) * np.sqrt(n + 2) for mu, P in draws])
    assert_normal(white, np.zeros(K), np.eye(K))


def test_precisions_are_drawn_from_their_gammas() -> None:
    rng = np.random.default_rng(6)
    link, precision = rng.standard_normal((5, 3)), spd(rng, 3)
    rate = link_rate(link, precision)
    assert rate == pytest.approx(np.trace(link.T @ link @ precision))
    drawn = [draw_gamma(7.5, rate / 2, rng) for _ in range(4000)]
    assert stats.kstest(drawn, stats.gamma(7.5, scale=2 / rate).cdf).pvalue > 1e-4
