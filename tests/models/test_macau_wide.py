"""The link of very many features: its draw by conjugate gradients, from every kind of matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

import phenohit.models.macau_side as macau_side
from phenohit.data.matrix import RowMatrix
from phenohit.models.macau_conditionals import inverse_factor
from phenohit.models.macau_cpu import Cpu
from phenohit.models.macau_side import Side
from phenohit.models.macau_wide import draw_wide_link

N, F, K, L = 300, 48, 3, 1.7
BLOCKS = [(0, 100), (100, 230), (230, 300)]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macau_side, "WIDE", F - 1)


def features(kind: str) -> tuple[Any, np.ndarray]:
    """The same matrix as it may come, and plain."""
    rng = np.random.default_rng(2)
    bits = rng.random((N, F)) < np.linspace(0.02, 0.6, F)
    shift, scale = rng.random(F).astype(np.float32), rng.uniform(0.3, 2, F).astype(np.float32)
    plain = bits.astype(np.float32)
    if kind == "dense":
        return plain, plain
    if kind == "sparse":
        return sparse.csr_matrix(plain), plain
    return RowMatrix(np.packbits(bits, axis=1)).affine(np.arange(F), shift, scale), (plain - shift) / scale


def ready(X: Any) -> Side:
    side, device = Side(X), Cpu()
    assert side.wide
    side.prepare(lambda of: device.each(of, BLOCKS))
    side.move(device)
    return side


def drawn(
    side: Side, right: np.ndarray, noise: np.ndarray, precision: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    return draw_wide_link(side, np.zeros((F, K)), right, noise, L, precision, rng, side.device, BLOCKS)


@pytest.mark.parametrize("kind", ["dense", "sparse", "packed"])
def test_it_solves_the_perturbed_system(kind: str) -> None:
    """To a hundredth of the spread that it is drawn from, measured by the dense matrix."""
    X, plain = features(kind)
    rng = np.random.default_rng(3)
    A = rng.standard_normal((K, 2 * K))
    precision = A @ A.T
    right, noise = plain.T @ (5 + rng.standard_normal((N, K))), plain.T @ rng.standard_normal((N, K))
    found = drawn(ready(X), right, noise, precision, np.random.default_rng(9))
    factor = inverse_factor(precision)
    E2 = np.random.default_rng(9).standard_normal((F, K)) @ factor
    system = plain.T.astype(float) @ plain + L * np.eye(F)
    error = found - np.linalg.solve(system, right + noise @ factor + L**0.5 * E2)
    assert np.trace(error.T @ system @ error @ precision) < 1e-4 * F * K


def test_it_is_drawn_from_the_posterior() -> None:
    """Whitened draws are standard normal: mean, variances and correlations."""
    X, plain = features("sparse")
    rng = np.random.default_rng(4)
    A = rng.standard_normal((K, 2 * K))
    precision = A @ A.T
    right = plain.T @ rng.standard_normal((N, K))
    system = plain.T.astype(float) @ plain + L * np.eye(F)
    mean = np.linalg.solve(system, right)
    n, side = 1200, ready(X)
    left, across = np.linalg.cholesky(system), np.linalg.cholesky(precision)
    white = np.empty((n, F * K))
    for i in range(n):
        noise = plain.T @ rng.standard_normal((N, K))
        white[i] = (left.T @ (drawn(side, right, noise, precision, rng) - mean) @ across).ravel()
    assert np.abs(white.mean(0)).max() * n**0.5 < 4.5
    assert np.abs(white.var(0) - 1).max() * (n / 2) ** 0.5 < 4.8
    off = np.corrcoef(white.T)[np.triu_indices(F * K, 1)]
    assert np.abs(off).max() * n**0.5 < 5.2


def test_a_search_without_end_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phenohit.models.macau_wide._STEPS", 2)
    X, plain = features("dense")
    drawn(ready(X), 1e3 * plain.T @ np.ones((N, K)), np.zeros((F, K)), np.eye(K), np.random.default_rng(0))
    assert "conjugate gradients" in caplog.text
