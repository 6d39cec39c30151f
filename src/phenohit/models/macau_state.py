"""What a Macau chain is made of: measured values, both sides' latent vectors, the noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from phenohit.models.macau_side import Side

__all__ = ["Mode", "Noise", "Order", "Values"]


@dataclass(frozen=True, eq=False)
class Order:
    """The measured entries, row after row of one side.

    Attributes
    ----------
    start : int64 (n + 1,)
    at : int32 (E,)
        Row of the other side.
    """

    start: NDArray[np.int64]
    at: NDArray[np.int32]

    @classmethod
    def of(cls, Y: Any) -> Self:
        """Take the entries of a CSR matrix, or of a CSC one for its columns."""
        return cls(Y.indptr.astype(np.int64), Y.indices.astype(np.int32))

    def blocks(self, rows: int, entries: int) -> list[tuple[int, int]]:
        """Cut the rows into blocks of so many rows and entries at most, or of one row."""
        found, a, n = [], 0, len(self.start) - 1
        while a < n:
            b = int(np.searchsorted(self.start, self.start[a] + entries, side="right")) - 1
            b = min(max(b, a + 1), a + rows, n)
            found.append((a, b))
            a = b
        return found


@dataclass(frozen=True, eq=False)
class Values:
    """What was measured: centred values, or the sides of hidden ones.

    Attributes
    ----------
    orders : pair of Order
        By compound and by assay.
    place : int64 (E,)
        Position by compound of every entry by assay.
    y : float32 (E,)
        By assay: values, or 0 and 1 for binary assays.
    offset : float32 (T,)
        Subtracted from the values of each assay; for binary assays the offset of the hidden value.
    binary : bool (T,)
    """

    orders: tuple[Order, Order]
    place: NDArray[np.int64]
    y: NDArray[np.float32]
    offset: NDArray[np.float32]
    binary: NDArray[np.bool_]

    @classmethod
    def of(cls, Y: sparse.csr_matrix, offset: NDArray[np.float32], binary: NDArray[np.bool_]) -> Self:
        """Take the stored entries of a CSR matrix (N, T), zeros included."""
        numbered = sparse.csr_matrix((np.arange(1, Y.nnz + 1, dtype=np.float64), Y.indices, Y.indptr), shape=Y.shape)
        by_assay = numbered.tocsc()
        place = by_assay.data.astype(np.int64) - 1
        return cls((Order.of(Y), Order.of(by_assay)), place, Y.data[place].astype(np.float32), offset, binary)


@dataclass
class Mode:
    """One side of the matrix: its rows' latent vectors, and what they are drawn from.

    Attributes
    ----------
    latent : float32 (n, K)
    mean, precision : float64 (K,) and (K, K)
        Hyperparameters mu and Lambda.
    side : Side, optional
    link : float64 (F, K), optional
    link_precision : float
    """

    latent: NDArray[np.float32]
    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    side: Side | None = None
    link: NDArray[np.float64] | None = None
    link_precision: float = 5.0

    @classmethod
    def begin(cls, n: int, K: int, side: Side | None, link_precision: float) -> Self:
        """Start from zeros, as SMURFF does."""
        link = None if side is None else np.zeros((side.F, K))
        return cls(np.zeros((n, K), np.float32), np.zeros(K), 10.0 * np.eye(K), side, link, link_precision)


@dataclass
class Noise:
    """Precision of the values: fixed, or drawn.

    Attributes
    ----------
    precision : float
    adaptive : bool
        Drawn each sweep from its gamma posterior (shape 0.5, rate half the variance of the values).
    most : float
        Largest precision: signal-to-noise ratio of the values at most 10, as in SMURFF.
    """

    precision: float
    adaptive: bool = False
    variance: float = 1.0
    most: float = float("inf")

    @classmethod
    def begin(cls, precision: float, adaptive: bool, variance: float) -> Self:
        """Start at a precision; `variance` is that of the centred values."""
        variance = max(variance, 1e-12)
        return cls(2.0 / variance if adaptive else precision, adaptive, variance, 11.0 / variance)
