"""Feature tables that are mostly zeros, kept small: fingerprints as bits, plates as a sparse matrix.

Half a million compounds with 2,048 bits are 4.3 GB as float32 and 134 MB as bits. Models read rows in
blocks; only those blocks are ever unpacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from phenohit.errors import ShapeError

__all__ = ["RowMatrix", "stack_rows", "take_rows"]


class RowMatrix:
    """A float32 matrix (N, F) that is unpacked block by block when rows are asked for.

    Indexing with rows, or with rows and columns, returns an ordinary float32 array, as indexing the
    unpacked matrix would; nothing else is offered that would unpack it all by accident.

    Parameters
    ----------
    base : uint8 array (N, B), or sparse CSR matrix (N, M)
        Packed bits, eight features to a byte, first feature in the highest bit; or any sparse numbers.
    columns : int array (F,), optional
        Columns of `base` that are the features; all by default.
    shift, scale : float32 arrays (F,), optional
        A value is ``(base - shift) / scale``.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(
        self,
        base: Any,
        columns: NDArray[np.integer] | None = None,
        shift: NDArray[np.float32] | None = None,
        scale: NDArray[np.float32] | None = None,
    ) -> None:
        if sparse.issparse(base):
            base = sparse.csr_matrix(base, dtype=np.float32)
        elif base.ndim != 2 or base.dtype != np.uint8:
            raise ShapeError(f"Packed bits must be 2-D uint8, not {base.ndim}-D {base.dtype}.")
        self.base, self.columns, self.shift, self.scale = base, columns, shift, scale

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        width = self.base.shape[1] if sparse.issparse(self.base) else 8 * self.base.shape[1]
        return self.base.shape[0], width if self.columns is None else len(self.columns)

    def __len__(self) -> int:
        return self.base.shape[0]

    def __getitem__(self, key: Any) -> Any:
        rows, picked = key if isinstance(key, tuple) else (key, slice(None))
        if isinstance(rows, int | np.integer):
            return self[rows : rows + 1 or None, picked][0]
        if isinstance(picked, int | np.integer):
            return self[rows, picked : picked + 1 or None][:, 0]
        columns = np.arange(self.shape[1])[picked] if self.columns is None else self.columns[picked]
        every = self.columns is None and isinstance(picked, slice) and picked == slice(None)
        block = self._block(rows, None if every else columns)
        if self.shift is not None:
            block -= self.shift[picked]
        if self.scale is not None:
            block /= self.scale[picked]
        return block

    def _block(self, rows: Any, columns: NDArray[np.integer] | None) -> NDArray[np.float32]:
        if sparse.issparse(self.base):
            part = self.base[rows]
            return (part if columns is None else part[:, columns]).toarray()
        if columns is None:
            return np.unpackbits(self.base[rows], axis=1).astype(np.float32)
        if 8 * len(columns) < self.base.shape[1]:  # few features: touch their bytes only
            chosen = self.base[rows][:, columns >> 3]
            return ((chosen >> (7 - (columns & 7)).astype(np.uint8)) & 1).astype(np.float32, order="C")
        # Choosing columns by index leaves the bits in column order, which is slow to read by rows: bring them back.
        return np.unpackbits(self.base[rows], axis=1)[:, columns].astype(np.float32, order="C")

    def take(self, rows: Any) -> RowMatrix:
        """Return some rows, still packed."""
        return RowMatrix(self.base[rows], self.columns, self.shift, self.scale)

    def affine(
        self,
        columns: NDArray[np.integer],
        shift: NDArray[np.floating] | None = None,
        scale: NDArray[np.floating] | None = None,
    ) -> RowMatrix:
        """Return some columns as ``(x - shift) / scale``, still packed; of a matrix that is not shifted yet."""
        if self.shift is not None or self.scale is not None:
            raise ShapeError("These rows are shifted and scaled already; do it once.")
        kept = columns if self.columns is None else self.columns[columns]
        return RowMatrix(
            self.base,
            np.asarray(kept),
            None if shift is None else shift.astype(np.float32),
            None if scale is None else scale.astype(np.float32),
        )

    def csr(self) -> sparse.csr_matrix:
        """Return the matrix as sparse CSR; only where it is not shifted, so that zeros are still zeros."""
        if self.shift is not None or not sparse.issparse(self.base):
            return sparse.csr_matrix(self[:])
        kept = self.base if self.columns is None else self.base[:, self.columns]
        return sparse.csr_matrix(kept) if self.scale is None else sparse.csr_matrix(kept / self.scale)


def take_rows(X: Any, rows: Any) -> Any:
    """Return some rows of an array or a `RowMatrix`, of the same kind."""
    return X.take(rows) if isinstance(X, RowMatrix) else X[rows]


def stack_rows(parts: Sequence[Any]) -> Any:
    """Put matrices with the same columns one below the other; packed ones stay packed."""
    first = parts[0]
    if not isinstance(first, RowMatrix):
        return np.concatenate([part[:] for part in parts])
    bases = [part.base for part in parts]
    whole = sparse.vstack(bases, format="csr") if sparse.issparse(first.base) else np.concatenate(bases)
    return RowMatrix(whole, first.columns, first.shift, first.scale)
