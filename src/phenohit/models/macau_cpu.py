"""Conditional draws of latent vectors, compiled for the processor.

A row with few measurements is conditioned by Matheron's rule on a system of measurements x measurements, one
with many by its latent x latent precision. Both let go of the interpreter, so that blocks of rows run side by
side; what a block gives depends on nothing but the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import get_cython_function_address, intrinsic
from numpy.typing import NDArray
from scipy import special
from threadpoolctl import threadpool_limits

__all__ = ["Cpu", "Plan", "compiled"]

_CHUNK = 512  # measurements gathered at a time: 300 kB at 150 latent dimensions, which stays in the cache
_BIG = 40  # measurements from which the BLAS is faster than a loop


@intrinsic
def _call(context: Any, f: Any, a: Any, b: Any, c: Any, d: Any, e: Any, g: Any, h: Any, i: Any, j: Any, k: Any) -> Any:
    """Call a routine of ten arguments by reference; all are addresses, its own too, so compiled code can be kept."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte] * 10)
        routine = builder.inttoptr(arguments[0], kind.as_pointer())
        builder.call(routine, [builder.inttoptr(x, byte) for x in arguments[1:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 11), generate


def compiled(loop: Any) -> Any:
    """Compile a loop that lets go of the interpreter."""
    try:
        return njit(nogil=True, cache=True, fastmath=True)(loop)
    except RuntimeError:  # nowhere to keep it: neither beside this file nor in the user's folder
        return njit(nogil=True, fastmath=True)(loop)


@dataclass(frozen=True, eq=False)
class Plan:
    """The measurements of a block of B rows, and how each row is drawn.

    Attributes
    ----------
    start : int64 (B + 1,)
        Where each row's measurements begin.
    at : int32 (E,)
        Row of the other side that each is of.
    few, many : int64
        Rows conditioned on measurements, and rows drawn by their precision; those in neither have none.
    """

    start: NDArray[np.int64]
    at: NDArray[np.int32]
    few: NDArray[np.int64]
    many: NDArray[np.int64]


class Cpu:
    """What the sampler asks of a processor: numpy arrays, compiled loops, and threads over blocks of rows.

    Parameters
    ----------
    jobs : int
        Threads. Inside the ``with`` block each has a BLAS of one thread, so that sums are added in one order.
    """

    rows, entries = 2048, 65_536  # largest block: it fits the caches, and there are enough for all cores
    ndtr, ndtri = staticmethod(special.ndtr), staticmethod(special.ndtri)

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs
        self.pool: ThreadPoolExecutor | None = None
        self.routine = get_cython_function_address("scipy.linalg.cython_blas", "ssyrk")
        self.letters = np.frombuffer(b"UNT", np.uint8).copy()

    def __enter__(self) -> Self:
        self.limits = threadpool_limits(1)
        self.pool = ThreadPoolExecutor(self.jobs) if self.jobs > 1 else None
        return self

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown()
        self.pool = None
        self.limits.unregister()

    def each(self, of: Callable[[Any], Any], blocks: list[Any]) -> Iterator[Any]:
        """Do every block, side by side; results come in order."""
        return map(of, blocks) if self.pool is None else self.pool.map(of, blocks)

    def place(self, X: Any) -> Any:
        """Bring features to where the rows are: here they stay, a memory map too."""
        return X

    def sparse(self, X: Any) -> Any:
        """Bring a sparse matrix to where the rows are."""
        return X

    def put(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Bring numbers from float64 to where the rows are, as float32."""
        return array.astype(np.float32)

    def index(self, array: NDArray[Any]) -> NDArray[Any]:
        """Bring positions or a mask to where the rows are."""
        return array

    def host(self, array: NDArray[Any]) -> NDArray[np.float64]:
        """Bring sums back, as float64."""
        return array.astype(np.float64)

    def kept(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring rows back as they are."""
        return array

    def narrow(self, array: NDArray[np.float64]) -> NDArray[np.float32]:
        """Round to float32."""
        return array.astype(np.float32)

    def zeros(self, *shape: int) -> NDArray[np.float32]:
        """Return float32 zeros."""
        return np.zeros(shape, np.float32)

    def normals(self, key: tuple[int, ...], *shape: int) -> NDArray[np.float32]:
        """Return standard normal numbers that depend on the key alone."""
        return np.random.Generator(np.random.SFC64(key)).standard_normal(shape, dtype=np.float32)

    def uniforms(self, key: tuple[int, ...], n: int) -> NDArray[np.float64]:
        """Return uniform numbers that depend on the key alone."""
        return np.random.Generator(np.random.SFC64(key)).random(n)

    def plan(self, start: NDArray[np.int64], at: NDArray[np.int32], K: int, *, by_measurement: bool) -> Plan:
        """Decide how each row of a block is drawn; with `by_measurement`, those with less than K measurements so."""
        n = np.diff(start)
        few = (n > 0) & (n < K) & by_measurement
        return Plan(start, at, np.flatnonzero(few), np.flatnonzero((n > 0) & ~few))

    def condition(
        self,
        plan: Plan,
        Z: NDArray[np.float32],
        M: NDArray[np.float32],
        y: NDArray[np.float32],
        e: NDArray[np.float32],
        own: NDArray[np.float32],
        other: NDArray[np.float32],
        V: NDArray[np.float32],
        S: NDArray[np.float32],
    ) -> None:
        """Condition the rows of z ~ N(0, I) with few measurements on them, in place.

        A row's latent vector is ``m + z L^-1`` where the prior precision is L L'. Matheron's rule: if z and the
        noise are drawn from their prior, ``z + S' (S S' + noise)^-1 (y - V m - S z - e)`` is drawn from the
        posterior.

        Parameters
        ----------
        plan : Plan
        Z : (B, K) or (R, B, K)
            Draws from the prior; overwritten. Zeros, with `e` zero, give the posterior mean. Several at once share
            the work.
        M : (B, K)
            Prior means.
        y, e : (E,), and (E,) or (R, E)
            Measurements, and standard normal numbers for their noise.
        own, other : (B,) and (M,)
            A measurement's noise variance is the product of its row's and its other row's.
        V, S : (M, K)
            Latent vectors of the other side, and the same times L^-T.
        """
        if len(plan.few):
            Z, e = Z.reshape(-1, *M.shape), e.reshape(-1, len(y))
            _few(Z, M, plan.few, plan.start, plan.at, y, e, own, other, V, S, self.routine, self.letters)

    def draw(
        self,
        plan: Plan,
        U: NDArray[np.float32],
        Z: NDArray[np.float32],
        M: NDArray[np.float32],
        y: NDArray[np.float32],
        own: NDArray[np.float32],
        other: NDArray[np.float32],
        V: NDArray[np.float32],
        precision: NDArray[np.float64],
    ) -> None:
        """Draw the rows of U with many measurements by their K x K precision, with the normal numbers of Z.

        Products of measurements are summed in float32 over at most 512 of them, then in float64, in which the
        system is solved: with thousands of measurements its condition number exceeds what float32 can bear.
        Parameters are those of `condition`; `precision` (K, K) is the prior's.
        """
        if len(plan.many):
            _many(U, Z, M, plan.many, plan.start, plan.at, y, own, other, V, precision, self.routine, self.letters)

    def products(self, plan: Plan, U: NDArray[np.float32], V: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the product of every measurement's two latent vectors, (E,)."""
        found = np.empty(len(plan.at), np.float32)
        _products(U, V, plan.start, plan.at, found)
        return found


@compiled
def _dot(a: Any, b: Any) -> Any:
    total = np.float32(0)
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@compiled
def _products(U: Any, V: Any, start: Any, at: Any, found: Any) -> None:
    for i in range(len(U)):
        for e in range(start[i], start[i + 1]):
            found[e] = _dot(V[at[e]], U[i])


@compiled
def _few(
    Z: Any, M: Any, rows: Any, start: Any, at: Any, y: Any, e: Any, own: Any, other: Any, V: Any, S: Any,
    routine: int, letters: Any,
) -> None:  # fmt: skip
    (R, _, K), wide = Z.shape, 0
    sizes, factors = np.empty(2, np.int32), np.array([1, 0], np.float32)
    for i in rows:
        wide = max(wide, start[i + 1] - start[i])
    left, near, room = np.empty((R, wide), np.float32), np.empty((wide, K), np.float32), np.empty(wide**2, np.float32)
    for i in rows:
        first = start[i]
        n = start[i + 1] - first
        m, G = M[i], room[: n * n].reshape(n, n)
        for a in range(n):
            j = at[first + a]
            for k in range(K):
                near[a, k] = S[j, k]
            known, root = y[first + a] - _dot(V[j], m), np.sqrt(own[i] * other[j])
            for r in range(R):
                left[r, a] = known - _dot(near[a], Z[r, i]) - e[r, first + a] * root
        if n < _BIG:  # lower triangle of S S'
            for a in range(n):
                for b in range(a + 1):
                    G[a, b] = _dot(near[a], near[b])
        else:
            sizes[0], sizes[1] = n, K
            _call(
                routine, letters.ctypes.data, letters[2:].ctypes.data, sizes.ctypes.data, sizes[1:].ctypes.data,
                factors.ctypes.data, near.ctypes.data, sizes[1:].ctypes.data, factors[1:].ctypes.data, G.ctypes.data,
                sizes.ctypes.data,
            )  # fmt: skip
        for a in range(n):  # its Cholesky factor with the noise, row by row, and the first triangular system
            G[a, a] += own[i] * other[at[first + a]]
            for b in range(a):
                G[a, b] = (G[a, b] - _dot(G[a, :b], G[b, :b])) / G[b, b]
            G[a, a] = np.sqrt(G[a, a] - _dot(G[a, :a], G[a, :a]))
            for r in range(R):
                left[r, a] = (left[r, a] - _dot(G[a, :a], left[r, :a])) / G[a, a]
        for r in range(R):
            t, z = left[r], Z[r, i]
            for a in range(n - 1, -1, -1):
                t[a] /= G[a, a]
                for b in range(a):
                    t[b] -= G[a, b] * t[a]
            for a in range(n):
                for k in range(K):
                    z[k] += t[a] * near[a, k]


@compiled
def _many(
    U: Any, Z: Any, M: Any, rows: Any, start: Any, at: Any, y: Any, own: Any, other: Any, V: Any, precision: Any,
    routine: int, letters: Any,
) -> None:  # fmt: skip
    K = Z.shape[1]
    near, gram = np.empty((_CHUNK, K), np.float32), np.empty((K, K), np.float32)
    sizes, factors = np.empty(2, np.int32), np.array([1, 0], np.float32)
    A, b, x, part = np.empty((K, K)), np.empty(K), np.empty(K), np.empty(K, np.float32)
    for i in rows:
        for k in range(K):
            b[k] = 0
            for h in range(K):
                A[k, h] = precision[k, h]
                b[k] += precision[k, h] * M[i, h]
        for first in range(start[i], start[i + 1], _CHUNK):
            n = min(_CHUNK, start[i + 1] - first)
            part[:] = 0
            for a in range(n):
                j = at[first + a]
                root = np.float32(1) / np.sqrt(own[i] * other[j])
                value = y[first + a] * root
                for k in range(K):
                    near[a, k] = V[j, k] * root
                    part[k] += near[a, k] * value
            for k in range(K):
                b[k] += part[k]
            sizes[0], sizes[1] = K, n
            _call(
                routine, letters.ctypes.data, letters[1:].ctypes.data, sizes.ctypes.data, sizes[1:].ctypes.data,
                factors.ctypes.data, near.ctypes.data, sizes.ctypes.data, factors[1:].ctypes.data, gram.ctypes.data,
                sizes.ctypes.data,
            )  # fmt: skip
            for k in range(K):  # the routine counts columns first: its upper triangle is our lower one
                for h in range(k + 1):
                    A[k, h] += gram[k, h]
        for k in range(K):
            for h in range(k):
                A[h, k] = A[k, h]
        L = np.linalg.cholesky(A)
        for k in range(K):
            total = b[k]
            for h in range(k):
                total -= L[k, h] * x[h]
            x[k] = total / L[k, k]
        for k in range(K):
            x[k] += Z[i, k]
        for k in range(K - 1, -1, -1):
            x[k] /= L[k, k]
            for h in range(k):
                x[h] -= L[k, h] * x[k]
        for k in range(K):
            U[i, k] = x[k]
