"""Share groups out so that every part gets its share of rows and of each task's labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from phenohit.data.labels import Labels

__all__ = ["balance", "group_counts"]


def group_counts(code: NDArray[np.int64], n_groups: int, labels: Labels | None) -> sparse.csr_matrix:
    """Count rows and labels of every group.

    Parameters
    ----------
    code : int array, shape (R,)
        Group position of every row, 0 to n_groups - 1.
    n_groups : int
    labels : Labels, R rows, or None

    Returns
    -------
    CSR matrix, float64, shape (n_groups, 1 + 2 * T)
        Column 0: rows. Then T columns of actives (measured entries for a value task) and T of
        inactives.
    """
    row, column = code, np.zeros(len(code), dtype=np.int64)
    T = 0
    if labels is not None:
        T = len(labels.tasks)
        entries = labels.Y.tocoo()
        value = (labels.tasks["kind"] == "value").to_numpy()
        inactive = (entries.data == 0) & ~value[entries.col]
        row = np.concatenate([row, code[entries.row]])
        column = np.concatenate([column, 1 + entries.col + T * inactive])
    ones = np.ones(len(row))
    return sparse.coo_matrix((ones, (row, column)), shape=(n_groups, 1 + 2 * T)).tocsr()


def balance(
    counts: sparse.csr_matrix, share: NDArray[np.float64], rng: np.random.Generator, *, must: tuple[int, ...] = ()
) -> NDArray[np.int64]:
    """Assign whole groups to parts, the largest group first.

    Each group goes to the part k that least increases ``sum_jk n_jk**2 / (share_k * n_j)``, with n_jk
    the count of column j in part k: up to a constant this is the chi-square distance from perfectly
    shared counts, so that a task with ten actives weighs like one with a thousand. Rows weigh as much
    as all labels together. Equal groups come in random order.

    Parameters
    ----------
    counts : CSR matrix, shape (G, 1 + 2 * T)
        From `group_counts`.
    share : float array, shape (K,)
        Share of each part; a part with share 0 gets nothing.
    rng : Generator
    must : tuple of int
        Parts that must not stay empty, the more important first; they take the smallest group of
        the part that has most groups.

    Returns
    -------
    int array, shape (G,)
        Part of every group.

    Notes
    -----
    Time grows with the stored counts times K. Groups without labels come last and only even out the
    sizes.
    """
    total = np.asarray(counts.sum(axis=0)).ravel()
    size = np.asarray(counts @ np.eye(1, len(total))[0])
    weight = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    weight[0] *= max(1.0, total[1:].sum() / max(total[0], 1.0))
    parts = rng.permutation(np.flatnonzero(share > 0))
    inverse = 1 / share[parts]
    labelled = counts.getnnz(axis=1) > 1
    order = np.lexsort((rng.random(len(size)), -size, ~labelled))
    n_labelled = int(labelled.sum())
    chosen = np.empty(len(size), dtype=np.int64)
    held = np.zeros((len(total), len(parts)))
    _place_labelled(counts, order[:n_labelled], weight, inverse, held, chosen)
    _place_unlabelled(size, order[n_labelled:], inverse, held, chosen)
    part = parts[chosen]
    for k in must:
        if share[k] > 0 and not (part == k).any():
            fullest = np.bincount(part, minlength=len(share)).argmax()
            members = np.flatnonzero(part == fullest)
            part[members[size[members].argmin()]] = k
    return part


def _place_labelled(
    counts: sparse.csr_matrix,
    order: NDArray[np.int64],
    weight: NDArray[np.float64],
    inverse: NDArray[np.float64],
    held: NDArray[np.float64],
    chosen: NDArray[np.int64],
) -> None:
    """Place groups that carry labels; fills `held` (columns x parts) and `chosen` in place."""
    indptr, indices, data = counts.indptr, counts.indices, counts.data
    weighted = data * weight[indices]
    own = np.add.reduceat(weighted * data, indptr[:-1]) if len(data) else np.zeros(0)  # no group is empty
    for g in order:
        at = slice(indptr[g], indptr[g + 1])
        columns = indices[at]
        before = held[columns]
        k = ((2 * (weighted[at] @ before) + own[g]) * inverse).argmin()
        held[columns, k] = before[:, k] + data[at]
        chosen[g] = k


def _place_unlabelled(
    size: NDArray[np.float64],
    order: NDArray[np.int64],
    inverse: NDArray[np.float64],
    held: NDArray[np.float64],
    chosen: NDArray[np.int64],
) -> None:
    """Place groups without labels by size alone; plain numbers, because there may be very many."""
    rows: list[float] = held[0].tolist()
    factor: list[float] = inverse.tolist()
    ks = range(len(rows))
    sizes: Any = size[order].tolist()
    for g, n in zip(order.tolist(), sizes, strict=True):
        k = min(ks, key=lambda k: (2 * rows[k] + n) * factor[k])
        rows[k] += n
        chosen[g] = k
