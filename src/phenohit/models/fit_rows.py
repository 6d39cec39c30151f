"""Measured entries on a device, and batches of rows of a matrix that stays there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from phenohit.models.fit import Batch, generator

__all__ = ["Measured", "Rows"]

_COPIED = 16_384  # rows moved to the device at a time


@dataclass(frozen=True, eq=False)
class Measured:
    """The measured entries of labels in CSR form, resident on a device.

    Attributes
    ----------
    indptr, column, y : int64 (N + 1,), int64 (E,), float32 (E,) tensors
    count : int64 array (N,), on the host
        Measured entries per row, so that no step waits for the device to know a length.
    n_tasks : int
    """

    indptr: Tensor
    column: Tensor
    y: Tensor
    count: NDArray[np.int64]
    n_tasks: int

    @classmethod
    def of(cls, Y: sparse.csr_matrix, device: torch.device) -> Measured:
        """Move labels to the device."""
        return cls(
            torch.tensor(Y.indptr, dtype=torch.int64, device=device),
            torch.tensor(Y.indices, dtype=torch.int64, device=device),
            torch.tensor(Y.data, dtype=torch.float32, device=device),
            np.diff(Y.indptr).astype(np.int64),
            int(Y.shape[1]),  # pyright: ignore[reportOptionalSubscript]
        )

    def entries(self, rows: Tensor, n_entries: int) -> tuple[Tensor, Tensor]:
        """Return place (row of the batch x T + task) and label of every measured entry of some rows."""
        start = self.indptr[rows]
        count = self.indptr[rows + 1] - start
        offset = torch.cumsum(count, 0) - count
        # Entry k of the batch is stored at start[row of k] + (k - first entry of that row).
        shift = torch.stack([start - offset, torch.arange(len(rows), device=rows.device) * self.n_tasks])
        shift = torch.repeat_interleave(shift, count, dim=1, output_size=n_entries)
        stored = shift[0] + torch.arange(n_entries, device=rows.device)
        return shift[1] + self.column[stored], self.y[stored]


@dataclass(frozen=True, eq=False)
class Rows:
    """Features and labels of some rows, resident on a device; a `phenohit.models.fit.Feed`.

    Attributes
    ----------
    X : float32 tensor (N, F)
    measured : Measured
        N rows, all with at least one entry.
    """

    X: Tensor
    measured: Measured
    block: int = 8192

    @classmethod
    def of(cls, X: NDArray[np.float32], Y: sparse.csr_matrix, device: torch.device) -> Rows:
        """Move rows that have labels to the device; the others are left behind."""
        labelled = np.flatnonzero(Y.getnnz(axis=1))
        resident = torch.empty((len(labelled), X.shape[1]), dtype=torch.float32, device=device)
        for start in range(0, len(labelled), _COPIED):  # in blocks: the matrix is never held twice
            part = slice(start, start + _COPIED)
            resident[part] = torch.tensor(X[labelled[part]])
        return cls(resident, Measured.of(Y[labelled] if len(labelled) < len(X) else Y, device))

    def __len__(self) -> int:
        return len(self.X)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.X.device

    @property
    def count(self) -> NDArray[np.int64]:
        """Measured entries of every row."""
        return self.measured.count

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return all rows, in an order of the epoch's own."""
        return torch.randperm(len(self), generator=generator("cpu", seed, epoch)).numpy()

    def batches(
        self, order: NDArray[np.int64], size: int, noise: Callable[[int], torch.Generator] | None = None
    ) -> Iterator[Batch]:
        """Yield `size` rows at a time; a network on features adds its noise itself."""
        starts = np.arange(0, len(order), size)
        counts = np.add.reduceat(self.count[order], starts) if len(order) else starts
        moved = torch.from_numpy(order).to(self.device)
        for start, n_entries in zip(starts.tolist(), counts.tolist(), strict=True):
            rows = moved[start : start + size]
            yield Batch(self.X[rows], *self.measured.entries(rows, n_entries), order[start : start + size])

    def auroc(self, scores: Iterable[tuple[NDArray[np.int64], Tensor]]) -> float:
        """Rows on features are chosen by their loss."""
        raise NotImplementedError
