"""Compare bit fingerprints pair by pair as fast as the processor counts bits.

Compiled at first use, about a second, and kept for later. ``bench/series.py`` measures it against its peers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

__all__ = ["compiled", "count_ones", "similar_pairs"]


@intrinsic
def count_ones(context: Any, word: Any) -> Any:
    """Count the bits of a 64-bit word that are 1; for compiled loops."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


def compiled(loop: Any) -> Any:
    """Compile a loop that lets go of the interpreter."""
    try:
        return njit(nogil=True, cache=True)(loop)
    except RuntimeError:  # nowhere to keep it: neither beside this file nor in the user's folder
        return njit(nogil=True)(loop)


@compiled
def _search(words: Any, count: Any, need: Any, end: Any, first: int, last: int, found: Any) -> int:
    n = 0
    for i in range(first, last):
        query = words[i]
        for j in range(i + 1, end[i]):
            common = np.uint64(0)
            for w in range(words.shape[1]):
                common += count_ones(query[w] & words[j, w])
            if common >= need[count[i] + count[j]]:
                if n < len(found):
                    found[n, 0], found[n, 1] = i, j
                n += 1
    return n


def similar_pairs(
    words: NDArray[np.uint64],
    count: NDArray[np.int64],
    need: NDArray[np.uint64],
    end: NDArray[np.int64],
    first: int,
    last: int,
) -> NDArray[np.int32]:
    """Find every pair i < j < end[i], first <= i < last, with enough bits in common.

    Parameters
    ----------
    words : uint64 array, shape (N, W)
        Fingerprints.
    count : int64 array, shape (N,)
        Their bits that are 1.
    need : uint64 array
        Common bits that two fingerprints need, by the sum of their counts.
    end : int64 array, shape (N,)
    first, last : int

    Returns
    -------
    int32 array, shape (pairs, 2)
        In rising order. Other threads run meanwhile.
    """
    found = np.empty((1 << 16, 2), dtype=np.int32)
    while (n := _search(words, count, need, end, first, last, found)) > len(found):
        found = np.empty((n, 2), dtype=np.int32)
    return found[:n]
