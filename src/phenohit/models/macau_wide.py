"""The link matrix of very many features, drawn by conjugate gradients: X'X is never made."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phenohit.models.macau_conditionals import inverse_factor, link_rate
from phenohit.models.macau_side import Side

__all__ = ["draw_wide_link"]

log = logging.getLogger("phenohit")

_ERROR = 1e-4  # largest squared error of the draw, as a share of the spread that it is drawn from
_STEPS = 1000


def draw_wide_link(
    side: Side,
    link: NDArray[np.float64],
    right: NDArray[np.float64],
    noise: NDArray[np.float64],
    link_precision: float,
    precision: NDArray[np.float64],
    rng: np.random.Generator,
    device: Any,
    blocks: list[tuple[int, int]],
) -> NDArray[np.float64]:
    """Draw the link matrix given latents and hyperparameters, by perturb and solve.

    Parameters
    ----------
    side : Side
        Features (N, F).
    link : (F, K)
        The last draw, from which the search begins.
    right : (F, K)
        ``X'(U - mu)``.
    noise : (F, K)
        ``X'E`` with standard normal E (N, K).
    link_precision : float
    precision : (K, K)
        Lambda, of the rows.
    rng : Generator
    device : Cpu or Cuda
    blocks : list of (int, int)
        Of rows.

    Returns
    -------
    (F, K) array
        B, from N(A^-1 right, A^-1 x Lambda^-1) with ``A = X'X + l I``: it solves ``A B = right + X'E1 + sqrt(l) E2``,
        where the rows of E1 and E2 are of N(0, Lambda^-1) (Simm et al. 2015, arXiv 1509.04610).

    Notes
    -----
    The search ends where the error E of B has ``trace(E'A E Lambda) <= 1e-4 F K``, of which F K is expected for the
    draw around its mean: the error is below a hundredth of the spread. As A is at least l I, the residual R bounds
    it: ``trace(R'R Lambda) / l``. Products with X are in float32, all sums in float64; the residual is made anew at
    the end, and the search goes on from there if rounding had hidden that it is too large.
    """
    F, K = right.shape
    factor = inverse_factor(precision)
    wanted = right + noise @ factor + link_precision**0.5 * (rng.standard_normal((F, K)) @ factor)
    scale = side.squares + link_precision  # its diagonal, by which the search is preconditioned
    enough = _ERROR * link_precision * F * K

    def times(P: NDArray[np.float64]) -> NDArray[np.float64]:
        narrow = device.put(P)
        out = link_precision * P
        for part in device.each(lambda block: device.host(side.against(*block, side.times(*block, narrow))), blocks):
            out += part
        return out

    B, done, least = link.copy(), 0, np.inf
    while done < _STEPS:
        R = wanted - times(B)
        size = link_rate(R, precision)
        if size <= enough or size > 0.5 * least:  # small enough, or as small as float32 can tell
            break
        least = size
        Z = R / scale[:, None]
        P, old = Z.copy(), (R * Z).sum(0)
        while done < _STEPS and link_rate(R, precision) > enough / 4:
            Q = times(P)
            step = old / np.maximum((P * Q).sum(0), 1e-300)
            B += step * P
            R -= step * Q
            Z = R / scale[:, None]
            new = (R * Z).sum(0)
            P = Z + new / np.maximum(old, 1e-300) * P
            old, done = new, done + 1
    else:
        log.warning("macau: conjugate gradients did not end after %d steps; the link is less exact than wanted", done)
    return B
