"""What remains of a Macau chain: kept sweeps, and the predictions they make for any rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtr, ndtri, owens_t

from phenohit.models.macau_conditionals import inverse_factor
from phenohit.models.macau_cpu import Cpu
from phenohit.models.macau_sampler import Sampler, draw_hidden
from phenohit.models.macau_side import Side
from phenohit.models.macau_state import Order

__all__ = ["Kept", "Posterior", "probability"]

_ROWS = 4096  # rows predicted at a time
_SETTLE = 10  # draws of the hidden values of measured rows before the first kept sweep counts


@dataclass(frozen=True, eq=False)
class Kept:
    """One kept sweep: all that the latent vector of a compound is drawn from, and those of the assays.

    Attributes
    ----------
    latent : (T, K)
        Latent vectors of the assays.
    link : (F, K), or (0, K) without features
    mean : (K,)
    factor : (K, K)
        L^-1, where L L' is the precision of the compounds' latent vectors.
    variance : (T,)
        Noise variances.
    """

    latent: NDArray[np.floating]
    link: NDArray[np.floating]
    mean: NDArray[np.float32]
    factor: NDArray[np.float32]
    variance: NDArray[np.float32]

    @classmethod
    def of(cls, chain: Sampler, dtype: Any) -> Self:
        """Keep the state of a chain; large arrays as `dtype`, float16 or float32."""
        compounds, assays = chain.modes
        K = len(compounds.mean)
        link = np.zeros((0, K)) if compounds.link is None else compounds.link
        factor = inverse_factor(compounds.precision).astype(np.float32)
        mean = compounds.mean.astype(np.float32)
        latent = chain.device.kept(assays.latent)
        return cls(latent.astype(dtype), link.astype(dtype), mean, factor, chain.variances().astype(np.float32))

    def arrays(self, number: int) -> dict[str, NDArray[Any]]:
        """Return the arrays to save, named by the sweep's number among those kept."""
        return {f"{number} {name}": getattr(self, name) for name in _ARRAYS}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], number: int) -> Self:
        """Rebuild from saved arrays; raises KeyError if one is absent."""
        return cls(**{name: arrays[f"{number} {name}"] for name in _ARRAYS})


_ARRAYS = ("latent", "link", "mean", "factor", "variance")


@dataclass(frozen=True, eq=False)
class Posterior:
    """Kept sweeps of all chains.

    Attributes
    ----------
    kept : list of Kept
    offset : (T,)
    binary : (T,)
    """

    kept: list[Kept]
    offset: NDArray[np.float32]
    binary: NDArray[np.bool_]

    def check(self, F: int, T: int, K: int) -> None:
        """Raise ValueError unless all arrays fit these numbers of features, tasks and latent dimensions."""
        shapes = {"latent": (T, K), "link": (F, K), "mean": (K,), "factor": (K, K), "variance": (T,)}
        fine = self.offset.shape == self.binary.shape == (T,) and self.binary.dtype == bool
        for kept in self.kept:
            fine &= all(getattr(kept, name).shape == shape for name, shape in shapes.items())
            fine &= all(bool(np.isfinite(getattr(kept, name)).all()) for name in shapes)
            fine &= bool((kept.variance > 0).all()) and bool((np.diag(kept.factor) > 0).all())
        if not fine:
            raise ValueError("its arrays do not fit each other")

    def moments(
        self,
        X: Any,
        tasks: NDArray[np.intp],
        known: sparse.csr_matrix | None = None,
        ids: NDArray[np.int64] | None = None,
        *,
        seed: int = 0,
        jobs: int = 1,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and variance of ``offset + u'v``, without the noise of measurements.

        Parameters
        ----------
        X : features (n, F), as `Side` takes them; ignored where the compounds have none
        tasks : (t,)
        known : CSR (n, T), optional
            Labels of these rows that were trained on: rows with some are conditioned on them.
        ids : int (n,), optional
            Where these rows stood in training: what is drawn for a row depends on its id and `seed` alone.
        seed : int
            For the spread of conditioned rows, and the hidden values behind their binary labels.
        jobs : int

        Returns
        -------
        mean, variance : float32 (n, t)

        Notes
        -----
        A row without labels has, in each kept sweep, the mean ``v'(mu + B'x)`` and the variance
        ``v' Lambda^-1 v``, its latent residual (SMURFF leaves it out); both are exact. For a row with labels the
        mean given them is exact in each sweep, and the variance is that of one draw per sweep.
        """
        n = X.shape[0]
        side = Side(X) if len(self.kept[0].link) else None
        mean, variance = np.zeros((n, len(tasks)), np.float32), np.zeros((n, len(tasks)), np.float32)
        ids = np.arange(n) if ids is None else ids
        blocks = [(a, min(a + _ROWS, n)) for a in range(0, n, _ROWS)]

        def of(block: tuple[int, int]) -> None:
            a, b = block
            part = None if known is None else (known[a:b], ids[a:b])
            mean[a:b], variance[a:b] = _block(self, side, a, b, tasks, part, seed)

        with Cpu(jobs) as device:
            for _ in device.each(of, blocks):
                pass
        return mean, variance


def probability(
    mean: NDArray[np.float32], variance: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and variance of Phi(z) for z ~ N(mean, variance), both exact (Owen 1980, 10,010.8 and 20,010.4)."""
    z = mean / np.sqrt(1 + variance)
    p = ndtr(z)
    spread = p - 2 * owens_t(z, 1 / np.sqrt(1 + 2 * variance)) - p**2
    return p.astype(np.float32), np.maximum(spread, 0).astype(np.float32)


def _block(
    posterior: Posterior, side: Side | None, a: int, b: int, tasks: NDArray[np.intp], known: Any, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Moments of the rows a to b."""
    total = first = None
    squares = np.zeros((b - a, len(tasks)), np.float32)
    residual = np.zeros((b - a, len(tasks)), np.float32)
    warm = None if known is None or not known[0].nnz else _Warm(posterior, *known, seed)
    for kept in posterior.kept:
        link, latent = kept.link.astype(np.float32), kept.latent.astype(np.float32)
        M = np.broadcast_to(kept.mean, (b - a, len(kept.mean)))
        M = np.ascontiguousarray(M if side is None else side.times(a, b, link) + M)
        own = ((latent[tasks] @ kept.factor.T) ** 2).sum(1)
        spread = np.broadcast_to(own, residual.shape)
        if warm is not None:
            M, drawn, labelled = warm.condition(M, kept, latent)
            spread = np.where(labelled[:, None], ((drawn - M) @ latent[tasks].T) ** 2, spread)
        found = M @ latent[tasks].T
        if first is None or total is None:
            first, total = found, np.zeros_like(found)
        found -= first
        total += found
        squares += found**2
        residual += spread
    assert first is not None
    assert total is not None
    S = len(posterior.kept)
    mean = total / S
    variance = np.maximum(squares / S - mean**2, 0) + residual / S
    return first + mean + posterior.offset[tasks], variance


class _Warm:
    """Rows with labels: their latent vectors given them, sweep after kept sweep."""

    def __init__(self, posterior: Posterior, known: sparse.csr_matrix, ids: NDArray[np.int64], seed: int) -> None:
        self.order, self.ids, self.seed, self.draws = Order.of(known), ids, seed, 0
        n = np.diff(self.order.start)
        self.owner = np.repeat(ids, n)
        self.place = np.arange(len(self.owner)) - np.repeat(self.order.start[:-1], n)
        self.label = known.data
        self.offset = posterior.offset[known.indices]
        self.binary = posterior.binary[known.indices]
        self.y = np.where(self.binary, 0, self.label - self.offset).astype(np.float32)
        self.settled = not self.binary.any()

    def condition(
        self, M: NDArray[np.float32], kept: Kept, latent: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Return mean and a draw of the latent vectors given labels, and which rows have any."""
        device, K, E = Cpu(), M.shape[1], len(self.order.at)
        S = latent @ kept.factor.T
        precision = np.linalg.inv(kept.factor.astype(np.float64))
        precision = precision @ precision.T
        plan = device.plan(self.order.start, self.order.at, K, by_measurement=True)
        own, other = np.ones(len(M), np.float32), kept.variance

        def given(Z: NDArray[np.float32], e: NDArray[np.float32]) -> NDArray[np.float32]:
            device.condition(plan, Z, M, self.y, e, own, other, latent, S)
            U = M + Z @ kept.factor
            device.draw(plan, U, Z, M, self.y, own, other, latent, precision)
            return U

        drawn = M
        for _ in range(1 if self.settled else _SETTLE):
            prior = ndtri(self._uniform(self.ids[:, None], np.arange(K)[None, :]))
            drawn = given(prior.astype(np.float32), ndtri(self._uniform(self.owner, self.place)).astype(np.float32))
            if self.binary.any():
                found = device.products(plan, drawn, latent) + self.offset
                u = self._uniform(self.owner[self.binary], self.place[self.binary])
                hidden = draw_hidden(found[self.binary], self.label[self.binary], u, device)
                self.y[self.binary] = hidden - self.offset[self.binary]
        self.settled = True
        centre = given(np.zeros_like(M), np.zeros(E, np.float32))
        return centre, drawn, np.diff(self.order.start) > 0

    def _uniform(self, rows: NDArray[Any], places: NDArray[Any]) -> NDArray[np.float64]:
        """Return numbers in (0, 1) that depend on the row, the place in it and how often this was called, alone."""
        self.draws += 1
        bits = _mix(rows.astype(np.uint64) + np.uint64((self.seed << 40) + (self.draws << 20)))
        bits = _mix(bits + places.astype(np.uint64))
        return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64 bits (Steele, Lea & Flood 2014, SplitMix64)."""
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
