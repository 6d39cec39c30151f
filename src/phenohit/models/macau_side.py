"""Side features of Macau's rows: products with them in blocks of rows, dense or sparse."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from phenohit.data.matrix import RowMatrix

__all__ = ["Side"]

Blocks = Callable[[Callable[[tuple[int, int]], Any]], Iterable[Any]]
_TINY = 1e-10  # eigenvalues below this share of the largest are rounding


class Side:
    """Features X (N, F), of which only products with narrow matrices are ever asked for.

    Parameters
    ----------
    X : float32 array or memory map, `RowMatrix`, or sparse matrix; shape (N, F)
        Packed bits are read as a sparse matrix; their shift and scale are applied to the products, so that
        centred bits stay sparse.
    """

    def __init__(self, X: Any) -> None:
        self.N, self.F = X.shape
        self.shift = self.scale = None
        if isinstance(X, RowMatrix):
            self.shift, self.scale = X.shift, X.scale
            X = _bits(X)
        self.X = sparse.csr_matrix(X, dtype=np.float32) if sparse.issparse(X) else X

    @property
    def is_sparse(self) -> bool:
        """Whether products cost no more than the entries that are not 0."""
        return sparse.issparse(self.X)

    def move(self, device: Any) -> None:
        """Bring dense features, shift and scale to where the rows are."""
        self.X = self.X if self.is_sparse else device.place(self.X)
        if self.shift is not None:
            self.shift = device.put(self.shift)
        if self.scale is not None:
            self.scale = device.put(self.scale)

    def _rows(self, a: int, b: int) -> Any:
        if not self.is_sparse:
            return self.X[a:b]
        first, last = self.X.indptr[a], self.X.indptr[b]
        part = (self.X.data[first:last], self.X.indices[first:last], self.X.indptr[a : b + 1] - first)
        return sparse.csr_matrix(part, shape=(b - a, self.F))

    def times(self, a: int, b: int, link: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``X[a:b] @ link``, shape (b - a, K)."""
        if self.scale is not None:
            link = link / self.scale[:, None]
        out = self._rows(a, b) @ link
        return out if self.shift is None else out - self.shift @ link

    def against(self, a: int, b: int, U: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``X[a:b]' @ U``, shape (F, K)."""
        out = self._rows(a, b).T @ U
        if self.shift is not None:
            out -= self.shift[:, None] * U.sum(0)[None, :]
        return out if self.scale is None else out / self.scale[:, None]

    def moments(self, blocks: Blocks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return ``X'X`` (F, F) and the column sums (F,), summed block by block in float64."""
        gram, total = np.zeros((self.F, self.F)), np.zeros(self.F)

        def of(block: tuple[int, int]) -> tuple[Any, NDArray[np.float64]]:
            rows = self._rows(*block)
            part = rows.T @ rows
            return part, np.asarray(rows.sum(0), dtype=np.float64).ravel()

        for part, column in blocks(of):
            gram += part.toarray() if sparse.issparse(part) else part
            total += column
        if self.shift is not None:
            cross = np.outer(self.shift, total)
            gram += self.N * np.outer(self.shift, self.shift) - cross - cross.T
            total -= self.N * self.shift
        if self.scale is not None:
            gram /= np.outer(self.scale, self.scale)
            total /= self.scale
        return gram, total

    def eigen(self, gram: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
