"""Geweke's joint distribution test of the whole Macau sampler (Geweke 2004, JASA 99:799).

Parameters and data are drawn together in two ways: from the prior forwards, and by sweeps between which the data are
drawn anew from the parameters. Both have the same distribution if, and only if, every conditional draw is right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from scipy import sparse

import phenohit.models.macau_conditionals as conditionals
import phenohit.models.macau_sampler as macau
import phenohit.models.macau_side as macau_side
from phenohit.models.macau_conditionals import draw_gamma, inverse_factor
from phenohit.models.macau_cpu import Cpu
from phenohit.models.macau_sampler import Sampler
from phenohit.models.macau_side import Side
from phenohit.models.macau_state import Mode, Noise, Values

N, T, K, F = 12, 4, 2, 4
SWEEPS = 6_000
# Priors with lighter tails than the defaults, under which both sides of a product can grow without end, and data
# drawn from them as well: such a chain would hardly move.
NU, MEAN = 6.0, 1.5
FREEDOM = 10


def measured() -> sparse.csr_matrix:
    """Rows with none, one and all of the tasks, so that both ways of drawing rows are taken."""
    mask = np.zeros((N, T), bool)
    mask[:3] = True
    mask[np.arange(3, 11), np.arange(8) % T] = True
    row, column = np.nonzero(mask)
    return sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=(N, T))


def chain(kind: str, features: tuple[np.ndarray, np.ndarray]) -> Sampler:
    Y = measured()
    binary = np.array([kind == "probit" or (kind == "mixed" and j < 2) for j in range(T)])
    values = Values.of(Y, np.full(T, 0.3, np.float32), binary)
    sides = Side(features[0]), Side(features[1]) if kind == "mixed" else None
    modes = Mode.begin(N, K, sides[0], 1.0), Mode.begin(T, K, sides[1], 1.0)
    found = Sampler(values, modes, Noise(1.0, adaptive=kind == "adaptive", variance=1.0, most=6.0), Cpu(), seed=(5,))
    plan = found.blocks[0][0].plan
    assert len(plan.few) == 8
    assert len(plan.many) == 3
    return found


def from_prior(s: Sampler, features: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> None:
    """Put a draw from the prior into the chain."""
    if s.noise.adaptive:
        s.noise.precision = draw_gamma(0.5, 0.5, rng, s.noise.most)
    for mode, X in zip(s.modes, features, strict=True):
        A = np.tril(rng.standard_normal((K, K)), -1)
        A[np.diag_indices(K)] = np.sqrt(rng.chisquare(K + FREEDOM - np.arange(K)))
        mode.precision = A @ A.T / (K + FREEDOM)
        factor = inverse_factor(mode.precision)
        mode.mean = rng.standard_normal(K) @ factor / np.sqrt(2)
        centre = mode.mean
        if mode.link is not None:
            mode.link_precision = rng.gamma(NU / 2) / (NU / MEAN / 2)
            mode.link = rng.standard_normal((F, K)) @ factor / np.sqrt(mode.link_precision)
            centre = centre + X @ mode.link
        mode.latent = (centre + rng.standard_normal(mode.latent.shape) @ factor).astype(np.float32)


def draw_data(s: Sampler, rng: np.random.Generator) -> None:
    """Draw the data from the parameters."""
    order, owner = s.values.orders[1], np.repeat(np.arange(T), np.diff(s.values.orders[1].start))
    mean = (s.modes[0].latent[order.at] * s.modes[1].latent[owner]).sum(1)
    y = mean + rng.standard_normal(len(mean)) * np.sqrt(s.variances()[owner])
    s.y[1] = y.astype(np.float32)
    s.y[0][s.values.place] = s.y[1]
    s.values.y[:] = np.where(s.values.binary[owner], y + s.values.offset[owner] > 0, 0)


def summary(s: Sampler) -> np.ndarray:
    """Functions of the state with all their moments: the prior's tails are heavy."""
    found = [np.tanh(s.y[1]).mean(), (np.tanh(s.y[1]) ** 2).mean(), s.values.y.mean(), np.log(s.noise.precision)]
    for mode in s.modes:
        found += [np.tanh(mode.mean[0]), np.tanh(mode.mean[1]) ** 2, *np.log(np.diag(mode.precision))]
        found += [np.tanh(mode.precision[0, 1]), np.linalg.slogdet(mode.precision)[1]]
        found += [np.tanh(mode.latent[0, 0]), *np.tanh(mode.latent[:3, 1]) ** 2]
        if mode.link is not None:
            found += [np.log(mode.link_precision), np.tanh(mode.link[0, 0]), *np.tanh(mode.link[:, 1]) ** 2]
    return np.array(found)


def largest_difference(kind: str, sweeps: int = SWEEPS) -> float:
    """Largest difference of a mean between the two ways, in standard errors."""
    rng = np.random.default_rng(11)
    features = rng.standard_normal((N, F)).astype(np.float32), rng.standard_normal((T, F)).astype(np.float32)
    s = chain(kind, features)
    forwards = []
    for _ in range(sweeps):
        from_prior(s, features, rng)
        draw_data(s, rng)
        forwards.append(summary(s))
    around = []
    with s.device:
        for _ in range(sweeps):
            s.sweep()
            draw_data(s, rng)
            around.append(summary(s))
    a, b = np.array(forwards), np.array(around)
    worst = 0.0
    for of_prior, of_chain in zip(a.T, b.T, strict=True):
        if of_prior.std() > 1e-9:  # the rest is constant
            independent = array_stats.ess(of_chain[None, :], chain_axis=0, draw_axis=1, method="mean")
            error = np.sqrt(of_prior.var() / sweeps + of_chain.var() / independent)
            worst = max(worst, abs(of_prior.mean() - of_chain.mean()) / error)
    return worst


@pytest.fixture(autouse=True)
def proper_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macau, "_LINK_NU", NU)
    monkeypatch.setattr(macau, "_LINK_MEAN", MEAN)
    monkeypatch.setattr(conditionals, "_FREEDOM", FREEDOM)
    monkeypatch.setattr(conditionals, "_SCALE", float(K + FREEDOM))


@pytest.mark.parametrize("kind", ["fixed", "adaptive", "probit", "mixed", "wide"])
def test_both_ways_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "wide":  # the link by conjugate gradients
        monkeypatch.setattr(macau_side, "WIDE", F - 1)
    assert largest_difference(kind) < 4.5


def quiet(right: Any) -> Any:
    def condition(self: Cpu, plan: Any, Z: Any, M: Any, y: Any, e: Any, *rest: Any) -> None:
        right(self, plan, Z, M, y, 0 * e, *rest)

    return condition


def fewer_degrees(right: Any) -> Any:
    def draw_normal_wishart(*given: Any, link: Any, link_precision: float) -> Any:
        shorter = None if link is None else np.linalg.qr(link)[1]  # the same B'B from K rows instead of F
        return right(*given, link=shorter, link_precision=link_precision)

    return draw_normal_wishart


ERRORS = {
    "no noise in Matheron's rule": ("condition", quiet),
    "trace(B'B Lambda) counted twice": ("link_rate", lambda right: lambda *given: 2 * right(*given)),
    "link without its noise": ("draw_link", lambda right: lambda *given: right(*given[:-1], Still())),
    "Lambda without the degrees of freedom of the link": ("draw_normal_wishart", fewer_degrees),
}


class Still:
    """A generator whose normal numbers are all 0."""

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape)


@pytest.mark.parametrize("error", ERRORS)
def test_a_planted_error_is_seen(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, change = ERRORS[error]
    place = Cpu if name == "condition" else macau
    monkeypatch.setattr(place, name, change(getattr(place, name)))
    assert largest_difference("fixed") > 5.5
