"""The compiled loop of `phenohit.evaluate.roc_test`."""

from __future__ import annotations

from typing import Any

import numpy as np

from phenohit.chem.popcount import compiled

__all__ = ["sum_between"]


@compiled
def sum_between(y: Any, by_b: Any, swap: Any, tie: Any, found: Any) -> None:
    """Close up both sides after every permutation and sum how far their actives are apart; see `roc_test._permuted`.

    Parameters
    ----------
    y : uint8 (n,)
    by_b : int64 (n,)
    swap, tie : uint8 (B, n)
    found : int64 (B,)
        Filled.

    Notes
    -----
    Without branches: coins cannot be foretold. Every element is written to both sides and moves the end of its own.
    """
    B, n = swap.shape
    first, second = np.empty(n + 1, np.int8), np.empty(n + 1, np.int8)
    for b in range(B):
        p = q = 0
        for r in range(n):
            mine, theirs = np.int64(1 - swap[b, r]), np.int64(swap[b, by_b[r]])  # 1: goes to the first side
            a, c = y[r], y[by_b[r]]
            turned = tie[b, r] & (a ^ c) & np.uint8(1 - (mine ^ theirs))
            first[p] = second[q] = a ^ turned
            p, q = p + mine, q + 1 - mine
            first[p] = second[q] = c ^ turned
            p, q = p + theirs, q + 1 - theirs
        ahead = total = np.int64(0)
        for k in range(n):
            ahead += np.int64(first[k]) - np.int64(second[k])
            total += abs(ahead)
        found[b] = 2 * total
