"""Tanimoto similarity of packed fingerprints, with numpy alone (no RDKit).

Common bits are counted by a float32 matrix product of unpacked blocks: integers below 2**24 are
exact in float32. On one core this costs about as much as AND plus bit count of packed words (see
`bench/series.py`); it uses all cores, and it needs no numpy 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phenohit.errors import ConfigError, ShapeError

__all__ = ["Sets", "bit_counts", "common_bits", "different", "nearest", "needed_common", "tanimoto"]

_QUERIES, _TARGETS = 1_024, 2_048  # rows per block, the fastest measured: 8 MB of counts, 24 MB of unpacked bits
_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Sets:
    """N sets of features, such as the atom environments of N compounds, in as little memory as they need.

    Parameters
    ----------
    start : int64 array, shape (N + 1,)
        Set i is ``features[start[i] : start[i + 1]]``.
    features : integer array, shape (E,)
        Any integers, rising within each set.

    Raises
    ------
    ShapeError
        If the arrays do not fit together, or a set holds a feature twice or out of order.
    """

    start: NDArray[np.int64]
    features: NDArray[Any]

    def __post_init__(self) -> None:
        start, features = self.start, self.features
        if start.ndim != 1 or not len(start) or start.dtype != np.int64 or (np.diff(start) < 0).any() or start[0]:
            raise ShapeError("The starts of sets must be 1-D int64, begin with 0 and never fall.")
        if features.shape != (start[-1],) or features.dtype.kind not in "iu":
            raise ShapeError(
                f"Sets end at {start[-1]:,}, but there are {features.dtype} features of shape {features.shape}. "
                "There must be as many integers."
            )
        rises = features[1:] > features[:-1]
        rises[start[1:-1][(start[1:-1] > 0) & (start[1:-1] < len(features))] - 1] = True  # a set begins
        if not rises.all():
            row = int(np.searchsorted(start, rises.argmin() + 1, side="right")) - 1
            raise ShapeError(f"Features of set {row} do not rise. Sort them and keep each once.")

    def __len__(self) -> int:
        return len(self.start) - 1

    def then(self, other: Sets) -> Sets:
        """Return these sets followed by others."""
        start = np.concatenate([self.start, self.start[-1] + other.start[1:]])
        return Sets(start, np.concatenate([self.features, other.features]))

    def packed(self, n_bits: int = 2048) -> NDArray[np.uint8]:
        """Fold features to `n_bits` bits: feature f sets bit f mod n_bits; shape (N, n_bits // 8).

        Of the features of `phenohit.chem.fingerprints.ecfp_features` this makes what `ecfp` makes.
        """
        out = np.empty((len(self), n_bits // 8), dtype=np.uint8)
        for piece in _slices(len(self), _QUERIES):
            start = self.start[piece.start : piece.stop + 1]
            bits = np.zeros((len(start) - 1, n_bits), dtype=bool)
            features = self.features[start[0] : start[-1]] % n_bits
            bits[np.repeat(np.arange(len(bits)), np.diff(start)), features] = True
            out[piece] = np.packbits(bits, axis=1)
        return out


def bit_counts(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the number of set bits of every row, shape (N,)."""
    return _bits(packed).sum(axis=1, dtype=np.int64)


def common_bits(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the bits set in both, row by row: (n, B) with (n, B) gives (n,)."""
    return _bits(a & b).sum(axis=1, dtype=np.int64)


def different(packed: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find equal fingerprints.

    Parameters
    ----------
    packed : uint8 array, shape (N, B)

    Returns
    -------
    first : int64 array, shape (U,)
        First row of each different fingerprint.
    which : int64 array, shape (N,)
        Position in `first` of the fingerprint that each row has.
    """
    rows = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).reshape(-1)
    _, first, which = np.unique(rows, return_index=True, return_inverse=True)
    return first, which.reshape(-1)


def needed_common(similarity: float, n_bits: int) -> NDArray[np.int64]:
    """Return how many common bits make two fingerprints similar, for every sum of their bits.

    Tanimoto c / (s - c) >= t is c >= t * s / (1 + t), with c common bits and s the sum of both bit
    counts. The bound is rounded up in exact fractions of the decimal the user wrote, so that 7 of 10
    bits are at 0.7 on every machine.

    Parameters
    ----------
    similarity : float in (0, 1]
    n_bits : int
        Length of the fingerprints.

    Returns
    -------
    int64 array, shape (2 * n_bits + 1,)
        Entry s is the least c. Entry 0 is 1: two empty fingerprints are similar to nothing.
    """
    if not 0 < similarity <= 1:
        raise ConfigError(f"similarity is {similarity}; it must lie above 0 and be at most 1, such as 0.7.")
    t = Fraction(str(float(similarity)))
    over, under = t.numerator, t.numerator + t.denominator
    return np.array([max(1, -(-over * s // under)) for s in range(2 * n_bits + 1)], dtype=np.int64)


def tanimoto(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute all similarities of two sets of packed fingerprints.

    Parameters
    ----------
    a : uint8 array, shape (n, B)
    b : uint8 array, shape (m, B)

    Returns
    -------
    float32 array, shape (n, m)
        Common bits over all bits; 0 where neither has any bit. Memory is 4 * n * m bytes: use
        `nearest`, or blocks of rows, for large sets.
    """
    _check(a, b)
    out = np.empty((len(a), len(b)), dtype=np.float32)
    for target in _slices(len(b), _TARGETS):
        bits, n_bits = _unpacked(b[target]), bit_counts(b[target])
        for query in _slices(len(a), _QUERIES):
            out[query, target] = _block(_unpacked(a[query]), bit_counts(a[query]), bits, n_bits)
    return out


def nearest(
    queries: NDArray[np.uint8], targets: NDArray[np.uint8], *, exclude_self: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the most similar target of every query, exactly.

    Parameters
    ----------
    queries : uint8 array, shape (n, B)
    targets : uint8 array, shape (m, B)
    exclude_self : bool
        Query i is target i (the same set twice) and does not count as its own neighbour.

    Returns
    -------
    index : int64 array, shape (n,)
        Row of the most similar target, the first of equals; -1 where there is no target.
    similarity : float32 array, shape (n,)
        NaN where there is no target.
    """
    _check(queries, targets)
    best = np.full(len(queries), -1, dtype=np.float32)
    index = np.full(len(queries), -1, dtype=np.int64)
    for target in _slices(len(targets), _TARGETS):
        bits, n_bits = _unpacked(targets[target]), bit_counts(targets[target])
        for query in _slices(len(queries), _QUERIES):
            block = _block(_unpacked(queries[query]), bit_counts(queries[query]), bits, n_bits)
            if exclude_self:
                own = np.arange(max(query.start, target.start), min(query.stop, target.stop))
                block[own - query.start, own - target.start] = -1
            first = block.argmax(axis=1)
            value = block[np.arange(len(block)), first]
            better = value > best[query]  # strictly: an earlier block keeps the tie
            best[query] = np.where(better, value, best[query])
            index[query] = np.where(better, first + target.start, index[query])
    return index, np.where(index < 0, np.float32(np.nan), best)


def _bits(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the number of set bits of every byte."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(packed)
    return _BITS_OF_BYTE[packed]


def _unpacked(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.unpackbits(packed, axis=1).astype(np.float32)


def _block(a: Any, n_a: Any, b: Any, n_b: Any) -> NDArray[np.float32]:
    """Return Tanimoto similarities of two unpacked blocks, given their bit counts."""
    common = a @ b.T
    either = (n_a.astype(np.float32)[:, None] + n_b.astype(np.float32)[None, :]) - common
    np.maximum(either, 1, out=either)  # neither has a bit: 0 / 1
    return np.divide(common, either, out=common)


def _slices(n: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def _check(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
    for array in (a, b):
        if array.ndim != 2 or array.dtype != np.uint8:
            raise ShapeError(f"Packed fingerprints must be 2-D uint8, not {array.ndim}-D {array.dtype}.")
    if a.shape[1] != b.shape[1]:
        raise ShapeError(
            f"Fingerprints have {8 * a.shape[1]} and {8 * b.shape[1]} bits. Make both with the same n_bits."
        )
