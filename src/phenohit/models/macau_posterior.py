"""What remains of a Macau chain: kept sweeps, and the predictions they make for any rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtr, owens_t

from phenohit.models.macau_conditionals import inverse_factor
from phenohit.models.macau_cpu import Cpu, compiled
from phenohit.models.macau_sampler import Sampler, draw_hidden
from phenohit.models.macau_side import Side
from phenohit.models.macau_state import Order

__all__ = ["Kept", "Posterior", "Sweep", "Warm", "probability"]

_ROWS = 512  # rows predicted at a time: what is summed up for 1,000 tasks stays in the cache
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
        sweeps = [Sweep.of(kept, tasks) for kept in self.kept]

        def of(block: tuple[int, int]) -> None:
            a, b = block
            warm = None if known is None or not known[a:b].nnz else Warm(self, known[a:b], ids[a:b], seed)
            mean[a:b], variance[a:b] = _block(sweeps, side, a, b, warm)

        with Cpu(jobs) as device:
            for _ in device.each(of, blocks):
                pass
        return mean + self.offset[tasks], variance


def probability(
    mean: NDArray[np.float32], variance: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and variance of Phi(z) for z ~ N(mean, variance), both exact (Owen 1980, 10,010.8 and 20,010.4)."""
    z = mean / np.sqrt(1 + variance)
    p = ndtr(z)
    spread = p - 2 * owens_t(z, 1 / np.sqrt(1 + 2 * variance)) - p**2
    return p.astype(np.float32), np.maximum(spread, 0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Sweep:
    """A kept sweep, ready to predict with.

    Attributes
    ----------
    link : float32 (F, K)
    mean : float32 (K,)
    latent : float32 (T, K)
    chosen : float32 (K, t)
        Of the tasks asked for.
    own : float32 (t,)
        Variance of the latent residual in them.
    factor : float32 (K, K)
    spread : float32 (T, K)
        Latent vectors of the assays times L^-T.
    variance : float32 (T,)
    """

    link: NDArray[np.float32]
    mean: NDArray[np.float32]
    latent: NDArray[np.float32]
    chosen: NDArray[np.float32]
    own: NDArray[np.float32]
    factor: NDArray[np.float32]
    spread: NDArray[np.float32]
    variance: NDArray[np.float32]

    @classmethod
    def of(cls, kept: Kept, tasks: NDArray[np.intp]) -> Self:
        """Make a kept sweep ready, for the tasks at these positions."""
        latent = kept.latent.astype(np.float32)
        spread = latent @ kept.factor.T
        chosen, own = np.ascontiguousarray(latent[tasks].T), (spread[tasks] ** 2).sum(1)
        link = kept.link.astype(np.float32)
        return cls(link, kept.mean, latent, chosen, own, kept.factor, spread, kept.variance)

    def precision(self) -> NDArray[np.float64]:
        """Return that of the compounds' latent vectors, (K, K)."""
        L = np.linalg.inv(self.factor.astype(np.float64))
        return L @ L.T


def _block(
    sweeps: list[Sweep], side: Side | None, a: int, b: int, warm: Warm | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Moments of the rows a to b."""
    shape = (b - a, sweeps[0].chosen.shape[1])
    first, total, squares, residual = (np.zeros(shape, np.float32) for _ in range(4))
    own = np.zeros(shape[1], np.float32)
    for number, sweep in enumerate(sweeps):
        M = np.tile(sweep.mean, (b - a, 1)) if side is None else side.times(a, b, sweep.link) + sweep.mean
        if warm is not None:
            M, drawn = warm.condition(M, sweep)
            _collect_squares((drawn - M) @ sweep.chosen, residual)
        found = M @ sweep.chosen
        if number == 0:
            first = found
        _collect(found, first, total, squares)
        own += sweep.own
    if warm is None:
        residual += own
    else:
        residual[~warm.labelled] = own  # exact there
    n = len(sweeps)
    mean = total / n
    return first + mean, np.maximum(squares / n - mean**2, 0) + residual / n


@compiled
def _collect(found: Any, first: Any, total: Any, squares: Any) -> None:
    """Add up values and their squares, from the first one so that float32 is enough."""
    for i in range(len(found)):
        for j in range(found.shape[1]):
            x = found[i, j] - first[i, j]
            total[i, j] += x
            squares[i, j] += x * x


@compiled
def _collect_squares(found: Any, squares: Any) -> None:
    for i in range(len(found)):
        for j in range(found.shape[1]):
            squares[i, j] += found[i, j] ** 2


class Warm:
    """Rows with labels: their latent vectors given them, sweep after kept sweep."""

    def __init__(self, posterior: Posterior, known: sparse.csr_matrix, ids: NDArray[np.int64], seed: int) -> None:
        self.order, self.ids, self.seed, self.draws = Order.of(known), ids, seed, 0
        n = np.diff(self.order.start)
        self.labelled = n > 0
        self.owner = np.repeat(ids, n)
        self.place = np.arange(len(self.owner)) - np.repeat(self.order.start[:-1], n)
        self.label = known.data
        self.offset = posterior.offset[known.indices]
        self.binary = posterior.binary[known.indices]
        self.y = np.where(self.binary, 0, self.label - self.offset).astype(np.float32)
        self.settled = not self.binary.any()
        self.device, K = Cpu(), len(posterior.kept[0].mean)
        self.plan = self.device.plan(self.order.start, self.order.at, K, by_measurement=True)

    def condition(self, M: NDArray[np.float32], sweep: Sweep) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and a draw of the latent vectors given labels."""
        U = np.stack([M, M])
        for _ in range(1 if self.settled else _SETTLE):
            Z, e = np.zeros((2, *M.shape), np.float32), np.zeros((2, len(self.y)), np.float32)
            self._fill(Z[1], e[1])
            self._given(Z, e, M, U, sweep)
            if self.binary.any():
                found = self.device.products(self.plan, U[1], sweep.latent) + self.offset
                u = self._uniform(self.owner[self.binary], self.place[self.binary])
                hidden = draw_hidden(found[self.binary], self.label[self.binary], u, self.device)
                self.y[self.binary] = hidden - self.offset[self.binary]
        self.settled = True
        if self.binary.any():  # the mean given the hidden values as they are now
            self._given(np.zeros((1, *M.shape), np.float32), np.zeros((1, len(self.y)), np.float32), M, U[:1], sweep)
        return U[0], U[1]

    def _given(
        self, Z: NDArray[np.float32], e: NDArray[np.float32], M: NDArray[np.float32], U: NDArray[np.float32], s: Sweep
    ) -> None:
        """Draw U (R, B, K) from Z and e; zeros give the mean."""
        own = np.ones(len(M), np.float32)
        self.device.condition(self.plan, Z, M, self.y, e, own, s.variance, s.latent, s.spread)
        for z, u in zip(Z, U, strict=True):
            np.matmul(z, s.factor, out=u)
            u += M
            if len(self.plan.many):
                self.device.draw(self.plan, u, z, M, self.y, own, s.variance, s.latent, s.precision())

    def _fill(self, Z: NDArray[np.float32], e: NDArray[np.float32]) -> None:
        """Fill in standard normal numbers that depend on row, place and how often this was called, alone."""
        _normals(self.ids, self.order.start, self._call(), self._call(), Z, e)

    def _call(self) -> np.uint64:
        """Return another number at every call, the same for the same seed."""
        self.draws += 1
        return np.uint64(_mix(np.uint64((self.seed << 32) + self.draws)))

    def _uniform(self, rows: NDArray[Any], places: NDArray[Any]) -> NDArray[np.float64]:
        """Return numbers in (0, 1) of the same kind."""
        bits = _mix(rows.astype(np.uint64) + self._call())
        bits = _mix(bits + places.astype(np.uint64))
        return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


@compiled
def _mix(x: Any) -> Any:
    """Scramble 64 bits (Steele, Lea & Flood 2014, SplitMix64)."""
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def _pair(key: Any, place: Any) -> Any:
    """Two standard normal numbers (Box & Muller 1958)."""
    a, b = _mix(key + np.uint64(2 * place)), _mix(key + np.uint64(2 * place + 1))
    u = (np.float64(a >> np.uint64(11)) + 0.5) * 2.0**-53
    v = np.float64(b >> np.uint64(11)) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(u)), 2 * np.pi * v
    return np.float32(radius * np.cos(angle)), np.float32(radius * np.sin(angle))


@compiled
def _normals(ids: Any, start: Any, call: Any, another: Any, Z: Any, e: Any) -> None:
    for i in range(len(ids)):
        key, other = _mix(np.uint64(ids[i]) + call), _mix(np.uint64(ids[i]) + another)
        for k in range(0, Z.shape[1], 2):
            one, two = _pair(key, k)
            Z[i, k] = one
            if k + 1 < Z.shape[1]:
                Z[i, k + 1] = two
        for k in range(start[i], start[i + 1], 2):
            one, two = _pair(other, k - start[i])
            e[k] = one
            if k + 1 < start[i + 1]:
                e[k + 1] = two
