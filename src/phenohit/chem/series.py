"""Chemical series: groups of compounds such that no two groups hold near neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from phenohit.chem.similarity import Sets, bit_counts, different, needed_common
from phenohit.errors import ShapeError
from phenohit.progress import track

__all__ = ["extend", "link", "number_by_size", "series"]

_PIECE = 1024  # query rows per thread task
# Below, so many folded fingerprints share rare bits that comparing all pairs is faster: 30,000 simulated compounds
# take 3.2 s by the join and 2.7 s by all pairs at 0.55, but 1.4 s and 2.6 s at 0.6.
_DENSE = 0.6


def series(
    fingerprints: NDArray[np.uint8] | Sets,
    *,
    similarity: float = 0.7,
    also: Sequence[NDArray[Any]] = (),
    jobs: int = 0,
) -> NDArray[np.int32]:
    """Group compounds into connected components of the graph "Tanimoto >= similarity".

    Parameters
    ----------
    fingerprints : uint8 array, shape (N, B), or Sets of N rows
        Packed, from `phenohit.chem.fingerprints.ecfp`; or unfolded, from `ecfp_features`, where no two
        features share a bit. A row without bits (no structure) has no neighbours.
    similarity : float in (0, 1], default 0.7
        Tanimoto similarity at or above which two compounds are linked; 0.7 on ECFP6 is the value of
        [1]_.
    also : sequence of arrays, each of shape (N,)
        Further labels, such as InChIKey skeletons: rows that share a value are linked too. '' and
        missing values link nothing.
    jobs : int, default 0
        Threads; 0 or less: all cores. The answer does not depend on it.

    Returns
    -------
    int32 array, shape (N,)
        Series number, 0 = largest, ties in order of first member.

    Raises
    ------
    ShapeError
        If an array is not of the stated shape.
    ConfigError
        If `similarity` is not in (0, 1].

    Notes
    -----
    Connected components, not leader or Butina clusters: only these keep the promise of [1]_ that a
    test compound is close to no training compound. Links are decided in integers (see
    `phenohit.chem.similarity.needed_common`), so a pair at exactly 0.7 is always linked.

    Pairs are found by `phenohit.chem.join`; packed fingerprints below a similarity of 0.6 are compared all
    with all. 524,371 simulated compounds take under a minute and one GiB either way of making fingerprints.

    References
    ----------
    .. [1] Simm et al., 2018, Cell Chem. Biol. 25, 611, cross-validation.
    """
    _check(fingerprints)
    label = link(also, len(fingerprints)).astype(np.int64)
    return number_by_size(_alike(label, fingerprints, similarity, jobs))


def extend(
    known: NDArray[np.integer[Any]],
    old: NDArray[np.uint8] | Sets,
    new: NDArray[np.uint8] | Sets,
    *,
    similarity: float = 0.7,
    also: Sequence[NDArray[Any]] = (),
    jobs: int = 0,
) -> NDArray[np.int32]:
    """Let new compounds join existing series.

    Parameters
    ----------
    known : int array, shape (M,)
        Series of the old compounds, from `series` or this function with the same settings.
    old, new : uint8 arrays, shapes (M, B) and (N, B), or Sets of M and N rows
        Fingerprints, as for `series`.
    similarity : float in (0, 1], default 0.7
    also : sequence of arrays, each of shape (M + N,)
        Further labels of old and new compounds that link, as for `series`.
    jobs : int, default 0
        Threads; 0 or less: all cores.

    Returns
    -------
    int32 array, shape (M + N,)
        Series of old and new compounds: the groups that `series` would make of all at once. A series keeps
        its number; where new compounds join several, all take the lowest of their numbers and the others are
        not used again. Series of new compounds alone are numbered on, the largest first.

    Raises
    ------
    ShapeError
        If an array is not of the stated shape, or one is packed and the other not.
    ConfigError
        If `similarity` is not in (0, 1].

    Notes
    -----
    Old compounds are compared with new ones only.
    """
    for fingerprints in (old, new):
        _check(fingerprints)
    if np.shape(known) != (len(old),):
        raise ShapeError(f"Known series have shape {np.shape(known)}, but there are {len(old)} old fingerprints.")
    if isinstance(old, Sets) and isinstance(new, Sets):
        both: NDArray[np.uint8] | Sets = old.then(new)
    elif isinstance(old, np.ndarray) and isinstance(new, np.ndarray) and old.shape[1] == new.shape[1]:
        both = np.concatenate([old, new])
    else:
        raise ShapeError("Old and new fingerprints must be made alike: both packed with the same n_bits, or both Sets.")
    M = len(old)
    label = link(also, len(both)).astype(np.int64)
    first = np.unique(known, return_index=True)[1]
    label = _merge(label, np.arange(M), first[np.searchsorted(known[first], known)])
    group = number_by_size(_alike(label, both, similarity, jobs, fresh=np.arange(len(both)) >= M))
    number = np.full(int(group.max(initial=-1)) + 1, np.iinfo(np.int32).max, dtype=np.int32)
    np.minimum.at(number, group[:M], known.astype(np.int32))
    alone = np.flatnonzero(np.bincount(group[:M], minlength=len(number)) == 0)
    number[alone] = int(known.max(initial=-1)) + 1 + np.arange(len(alone))
    return number[group]


def link(labels: Sequence[NDArray[Any]], n: int) -> NDArray[np.int32]:
    """Group rows that share a value of any label, directly or through other rows.

    Parameters
    ----------
    labels : sequence of arrays, each of shape (n,)
        Such as InChIKey skeletons and scaffolds. '' and missing values link nothing.
    n : int
        Number of rows.

    Returns
    -------
    int32 array, shape (n,)
        Group number, 0 = largest, ties in order of first member.

    Raises
    ------
    ShapeError
        If a label array has another length.

    Examples
    --------
    >>> link([np.array(["a", "a", "", ""]), np.array(["", "x", "x", ""])], 4)
    array([0, 0, 0, 1], dtype=int32)
    """
    label = np.arange(n, dtype=np.int64)
    for values in labels:
        if np.shape(values) != (n,):
            raise ShapeError(f"Labels that link rows have shape {np.shape(values)}, but there are {n} rows.")
        label = _merge(label, *_equal(values))
    return number_by_size(label)


def number_by_size(groups: NDArray[Any]) -> NDArray[np.int32]:
    """Renumber groups so that 0 is the largest, ties in order of first member; shape (N,) to (N,)."""
    _, first, inverse, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.lexsort((first, -counts))] = np.arange(len(first), dtype=np.int32)
    return rank[inverse.reshape(-1)]


def _check(fingerprints: NDArray[np.uint8] | Sets) -> None:
    if isinstance(fingerprints, Sets) or (fingerprints.ndim == 2 and fingerprints.dtype == np.uint8):
        return
    raise ShapeError(
        f"Packed fingerprints must be 2-D uint8, not {fingerprints.ndim}-D {fingerprints.dtype}. "
        "Make them with phenohit.chem.ecfp."
    )


def _alike(
    label: NDArray[np.int64],
    fingerprints: NDArray[np.uint8] | Sets,
    similarity: float,
    jobs: int,
    fresh: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Join the groups of rows that are similar; where `fresh` is given, one of the two must be."""
    rows = np.arange(len(fingerprints))
    if isinstance(fingerprints, np.ndarray) and similarity < _DENSE and fresh is None:
        first, where = different(fingerprints)
        label = _merge(label, rows, first[where], keep=fingerprints.any(axis=1))
        for i, j in _links(fingerprints[first], similarity, jobs):
            label = _merge(label, first[i], first[j])
        return label
    from phenohit.chem.join import join, sets_of  # compiled when first used

    sets = fingerprints if isinstance(fingerprints, Sets) else sets_of(fingerprints)
    return _merge(label, rows, join(sets, similarity, fresh=fresh, jobs=jobs).group)


def _merge(
    label: NDArray[np.int64], i: NDArray[Any], j: NDArray[Any], keep: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Join the groups of rows `i` with those of rows `j`.

    Merging piece by piece keeps memory bounded: links are forgotten as soon as they are used.
    """
    if keep is not None:
        i, j = i[keep], j[keep]
    if not len(i):
        return label
    n = int(label.max()) + 1
    # bool: repeats of a link add up to True, where a small integer could wrap to 0 and be lost.
    graph = sparse.coo_matrix((np.ones(len(i), dtype=bool), (label[i], label[j])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)[label]


def _equal(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (row, first row with the same value) for all rows that have a value."""
    text = np.asarray(values, dtype=object)
    codes, _ = pd.factorize(text)  # missing values become -1
    rows = np.flatnonzero((codes >= 0) & (text != ""))
    _, first, inverse = np.unique(codes[rows], return_index=True, return_inverse=True)
    return rows, rows[first][inverse.reshape(-1)] if len(rows) else rows


def _links(
    fingerprints: NDArray[np.uint8], similarity: float, jobs: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pairs of rows (i, j) at or above the similarity, each once, in pieces."""
    n_bits = 8 * fingerprints.shape[1]
    need = needed_common(similarity, n_bits)
    count = bit_counts(fingerprints)
    order = np.argsort(count, kind="stable")
    order = order[count[order] > 0]
    count, packed = count[order], np.ascontiguousarray(fingerprints[order])
    # b bits can be similar to at most the count at which all b of them are needed: b >= need[b + c].
    most = np.array([_most_bits(b, need, n_bits) for b in range(n_bits + 1)])
    end = np.searchsorted(count, most[count], side="right")
    from phenohit.chem.popcount import similar_pairs  # compiled when first used

    words, bound = _words(packed), need.astype(np.uint64)

    def piece(start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        found = similar_pairs(words, count, bound, end, start, min(start + _PIECE, len(words)))
        return order[found[:, 0]], order[found[:, 1]]

    starts = range(0, len(words), _PIECE)
    with ThreadPoolExecutor(effective_n_jobs(jobs if jobs > 0 else -1)) as threads:
        yield from track(threads.map(piece, starts), "chemical series", total=len(starts))


def _most_bits(bits: int, need: NDArray[np.int64], n_bits: int) -> int:
    """Return the largest bit count that can still be similar to `bits`, at least `bits`."""
    return max(bits, int(np.searchsorted(need[bits : bits + n_bits + 1], bits, side="right")) - 1)


def _words(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return packed fingerprints (N, B) as 64-bit words, padded with zeros."""
    padded = np.zeros((len(packed), 8 * -(-packed.shape[1] // 8)), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)
