"""Side features of Macau's rows: products with them in blocks of rows, dense or sparse."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from phenohit.data.matrix import RowMatrix

__all__ = ["WIDE", "Side"]

Blocks = Callable[[Callable[[tuple[int, int]], Any]], Iterable[Any]]
WIDE = 10_000  # features above which X'X is neither made nor turned: at 10,000 it is 0.8 GB and takes minutes, once
_TINY = 1e-10  # eigenvalues below this share of the largest are rounding


class Side:
    """Features X (N, F), of which only products with narrow matrices are ever asked for.

    Parameters
    ----------
    X : float32 array or memory map, `RowMatrix`, or sparse matrix; shape (N, F)
        Packed bits are read as a sparse matrix; their shift and scale are applied to the products, so that
        centred bits stay sparse.

    Attributes
    ----------
    total : float64 (F,)
        Column sums.
    turn, size : float64 (F, F) and (F,), unless wide
        Eigenvectors and eigenvalues of X'X.
    squares : float64 (F,)
        Diagonal of X'X.
    """

    total: NDArray[np.float64]
    turn: NDArray[np.float64]
    size: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __init__(self, X: Any) -> None:
        self.N, self.F = X.shape
        self.shift = self.scale = None
        if isinstance(X, RowMatrix):
            self.shift, self.scale = X.shift, X.scale
            X = _bits(X)
        self.is_sparse = sparse.issparse(X)
        self.X = sparse.csr_matrix(X, dtype=np.float32) if self.is_sparse else X
        self.device: Any = None
        self.parts: dict[tuple[int, int], tuple[Any, Any]] = {}
        self.summed = False

    @property
    def wide(self) -> bool:
        """Whether the link is drawn by conjugate gradients rather than by eigenvectors."""
        return self.F > WIDE

    def prepare(self, each: Blocks) -> None:
        """Sum up what all chains need of the features; once, and before `move`."""
        if self.summed:
            return
        gram, self.total = self.moments(each)
        self.squares = gram if self.wide else gram.diagonal().copy()
        if not self.wide:
            self.turn, self.size = _eigen(gram)
        self.summed = True

    def move(self, device: Any) -> None:
        """Bring dense features, shift and scale to where the rows are; once."""
        if self.device is not None:
            return
        self.device = device
        self.X = self.X if self.is_sparse else device.place(self.X)
        self.shift = None if self.shift is None else device.put(self.shift)
        self.scale = None if self.scale is None else device.put(self.scale)

    def _rows(self, a: int, b: int) -> tuple[Any, Any]:
        """Return the rows a to b, and the same turned."""
        if not self.is_sparse:
            return self.X[a:b], self.X[a:b].T
        if (a, b) not in self.parts:
            first, last = self.X.indptr[a], self.X.indptr[b]
            values = (self.X.data[first:last], self.X.indices[first:last], self.X.indptr[a : b + 1] - first)
            part = sparse.csr_matrix(values, shape=(b - a, self.F))
            bring = (lambda rows: rows) if self.device is None else self.device.sparse
            self.parts[a, b] = bring(part), bring(part.T)
        return self.parts[a, b]

    def times(self, a: int, b: int, link: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``X[a:b] @ link``, shape (b - a, K)."""
        if self.scale is not None:
            link = link / self.scale[:, None]
        out = self._rows(a, b)[0] @ link
        return out if self.shift is None else out - self.shift @ link

    def against(self, a: int, b: int, U: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``X[a:b]' @ U``, shape (F, K)."""
        out = self._rows(a, b)[1] @ U
        if self.shift is not None:
            out -= self.shift[:, None] * U.sum(0)[None, :]
        return out if self.scale is None else out / self.scale[:, None]

    def moments(self, each: Blocks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return ``X'X`` (F, F), or its diagonal if wide, and the column sums (F,), summed by block in float64."""
        gram, total = np.zeros(self.F if self.wide else (self.F, self.F)), np.zeros(self.F)

        def of(block: tuple[int, int]) -> tuple[Any, NDArray[np.float64]]:
            rows, turned = self._rows(*block)
            if self.wide:
                part = rows.multiply(rows).sum(0) if self.is_sparse else (rows * rows).sum(0, dtype=np.float64)
                part = np.asarray(part, dtype=np.float64).ravel()
            else:
                part = turned @ rows
            return part, np.asarray(rows.sum(0), dtype=np.float64).ravel()

        for part, column in each(of):
            gram += part.toarray() if sparse.issparse(part) else part
            total += column
        self.parts.clear()  # they are of these blocks, and here
        cross = (lambda a, b: a * b) if self.wide else np.outer
        if self.shift is not None:
            mixed = cross(self.shift, total)
            gram += self.N * cross(self.shift, self.shift) - mixed - mixed.T
            total -= self.N * self.shift
        if self.scale is not None:
            gram /= cross(self.scale, self.scale)
            total /= self.scale
        return gram, total


def _eigen(gram: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvectors (F, F) and eigenvalues (F,) of X'X; those that are rounding are 0."""
    size, turn = linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    size[size < _TINY * max(size[-1], 0.0)] = 0.0
    return turn, size


def _bits(X: RowMatrix) -> sparse.csr_matrix:
    """Return the unshifted numbers of packed rows as a sparse matrix."""
    plain = RowMatrix(X.base, X.columns)
    if sparse.issparse(X.base):
        return plain.csr()
    step = 16_384  # rows unpacked at a time
    parts = [sparse.csr_matrix(plain[a : a + step]) for a in range(0, len(plain), step)]
    return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix(X.shape, dtype=np.float32)
