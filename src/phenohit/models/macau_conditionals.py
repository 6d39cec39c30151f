"""The small conditional draws of Macau: hyperparameters, link matrix, precisions; in float64.

Notation: N rows with latent vectors u (K), side features x (F) and link matrix B (F x K), so that
u ~ N(mu + B'x, Lambda^-1). Everything here is K x K, F x K or F x F: small beside the rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

__all__ = ["draw_gamma", "draw_link", "draw_normal_wishart", "inverse_factor", "link_rate"]

# Prior of mean and precision, as in Salakhutdinov & Mnih 2008, jaak-s/macau and SMURFF.
_KAPPA = 2.0  # weight of the mean 0, in rows
_FREEDOM = 0  # degrees of freedom of the Wishart distribution beyond K
_SCALE = 1.0  # its inverse scale, times the unit matrix


def draw_normal_wishart(
    n: int,
    total: NDArray[np.float64],
    scatter: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    link: NDArray[np.float64] | None = None,
    link_precision: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw mean and precision of rows r = u - B'x, given the rows and the link.

    Parameters
    ----------
    n : int
        Rows.
    total : (K,)
        Sum of the rows.
    scatter : (K, K)
        Sum of r r'.
    rng : Generator
    link : (F, K), optional
        Its prior N(0, (link_precision Lambda)^-1) tells about Lambda too.
    link_precision : float

    Returns
    -------
    mu : (K,)
    precision : (K, K)

    Notes
    -----
    Prior: Lambda ~ Wishart(I, K), mu ~ N(0, (2 Lambda)^-1).
    """
    K = len(total)
    kappa, nu = _KAPPA + n, K + _FREEDOM + n
    mean = total / kappa
    inverse = _SCALE * np.eye(K) + scatter - kappa * np.outer(mean, mean)
    if link is not None:
        inverse += link_precision * (link.T @ link)
        nu += len(link)
    # Lambda = C^-T A A' C^-1 with C C' the inverse scale and A the triangle of Bartlett's decomposition.
    C = linalg.cholesky((inverse + inverse.T) / 2, lower=True)
    A = np.tril(rng.standard_normal((K, K)), -1)
    A[np.diag_indices(K)] = np.sqrt(rng.chisquare(nu - np.arange(K)))
    factor = linalg.solve_triangular(C, A, lower=True, trans="T")
    precision = factor @ factor.T
    noise = linalg.solve_triangular(
        linalg.cholesky(precision, lower=True), rng.standard_normal(K), lower=True, trans="T"
    )
    return mean + noise / np.sqrt(kappa), precision


def inverse_factor(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return L^-1 (K, K) with ``precision = L L'``: rows of standard normal numbers times it have that precision."""
    L = linalg.cholesky(precision, lower=True)
    return linalg.solve_triangular(L, np.eye(len(L)), lower=True)


def draw_link(
    turn: NDArray[np.float64],
    size: NDArray[np.float64],
    right: NDArray[np.float64],
    link_precision: float,
    factor: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw the link matrix given latents and hyperparameters, by the eigenvectors of X'X.

    Parameters
    ----------
    turn, size : (F, F) and (F,)
        ``X'X = turn diag(size) turn'``.
    right : (F, K)
        ``X'(U - mu)``.
    link_precision : float
    factor : (K, K)
        From `inverse_factor`.
    rng : Generator

    Returns
    -------
    (F, K) array
        From N((X'X + l I)^-1 right, (X'X + l I)^-1 x Lambda^-1): the noise that others add to the right-hand
        side by way of N x K random numbers is drawn in its F x K eigenspace.
    """
    weight = size + link_precision
    noise = rng.standard_normal(right.shape) @ factor
    return turn @ ((turn.T @ right) / weight[:, None] + noise / np.sqrt(weight)[:, None])


def link_rate(link: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Return trace(B'B Lambda), what the link tells about its own precision."""
    return float(((link.T @ link) * precision).sum())


def draw_gamma(shape: float, rate: float, rng: np.random.Generator, most: float = np.inf) -> float:
    """Draw a precision from a gamma distribution with this shape and rate, cut off above `most`."""
    if most == np.inf:
        return float(rng.gamma(shape) / rate)
    inside = special.gammainc(shape, rate * most)
    drawn = special.gammaincinv(shape, rng.random() * inside) / rate
    return float(min(drawn, most)) if inside > 0 else most
