"""Which sets are alike? An exact all-pairs join by Tanimoto similarity that looks at few of the pairs.

Two sets of sizes n and m are similar if they share at least ``need[n + m]`` features (an integer, see
`phenohit.chem.similarity.needed_common`). Every pair that can be left out is left out, by bounds that are never
wrong:

* *size*: sets whose sizes differ too much cannot share enough;
* *prefix* [1]_: with all features in one order, the rarest first, two similar sets share one of their first
  few features, so only sets that meet in the lists of those features are looked at;
* *signature*: every feature flips one of 128 bits, so two signatures differ in no more bits than the sets differ
  in features. Signatures lie in the lists themselves, which are read from front to back;
* *joined already*: only groups are asked for, so a pair within one group needs no comparison.

What remains is compared feature by feature. Compiled at first use, some seconds, and kept for later.

References
----------
.. [1] Bayardo, Ma and Srikant, 2007, WWW, 131; Xiao, Wang, Lin and Yu, 2008, WWW, 131 (PPJoin).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray

from phenohit.chem.join_loops import (
    WORDS,
    Lists,
    Rows,
    count_bits,
    count_listed,
    fill_lists,
    gather,
    hash_table,
    hashes,
    heads,
    look_up,
    place_bits,
    rank_rows,
    sign_rows,
    unite_all,
)
from phenohit.chem.similarity import Sets, needed_common
from phenohit.progress import track

__all__ = ["Joined", "join", "sets_of"]

_TASKS = 256  # pieces of work: their costs differ, so there are many more than threads


@dataclass(frozen=True)
class Joined:
    """Groups of N sets, and what finding them took.

    Attributes
    ----------
    group : int64 array, shape (N,)
        First row of the group that each set is in.
    entries : int
        List entries whose signatures were tested; all pairs would be N * (N - 1) / 2.
    candidates : int
        Of these, the ones that passed; a pair counts once for every list it meets in.
    compared : int
        Pairs compared feature by feature; more threads compare somewhat more.
    """

    group: NDArray[np.int64]
    entries: int
    candidates: int
    compared: int


def join(sets: Sets, similarity: float, *, fresh: NDArray[np.bool_] | None = None, jobs: int = 1) -> Joined:
    """Find the connected components of "Tanimoto >= similarity" among sets.

    Parameters
    ----------
    sets : Sets, N rows
        An empty set is similar to nothing; equal sets are one.
    similarity : float in (0, 1]
    fresh : bool array, shape (N,), or None
        Rows to compare with all others. The rest is known to have been compared with itself, and the caller
        knows its groups; a fresh set that also occurs there is left to it. None: all are fresh.
    jobs : int, default 1
        Threads; 0 or less: all cores. The groups do not depend on it.

    Returns
    -------
    Joined

    Raises
    ------
    ConfigError
        If `similarity` is not in (0, 1].

    Notes
    -----
    Memory beside `sets`: twice what its features take, 150 bytes per row, 20 bytes per list entry (at 0.7 there
    is one for about every fifth feature) and 4 bytes per row and thread: with the sets themselves 0.7 GiB at
    524,371 simulated compounds of 75 features.
    """
    sizes = np.diff(sets.start)
    need = needed_common(similarity, int(sizes.max(initial=0)))
    head = heads(sets.start, sets.features, _by_content(sets.start, sets.features))
    is_head = head == np.arange(len(sets))
    order = np.flatnonzero(is_head & (sizes > 0))
    order = order[np.argsort(sizes[order], kind="stable")]
    if fresh is not None:  # a set that also came earlier has met the others
        fresh = ~_any_of(head, ~fresh)[order]
    group = head.copy()
    if not len(order):
        return Joined(group, 0, 0, 0)
    rows, lists = _prepare(sets, order, need, fresh)
    found, tally = _threaded(rows, lists, effective_n_jobs(jobs if jobs > 0 else -1))
    group[order] = order[found]
    group = group[head]
    first = np.full(len(sets), len(sets))
    np.minimum.at(first, group, np.arange(len(sets)))
    return Joined(first[group], *(int(n) for n in tally))


def sets_of(packed: NDArray[np.uint8]) -> Sets:
    """Return the positions of the set bits of packed fingerprints (N, B), as `numpy.packbits` packs them."""
    start = np.zeros(len(packed) + 1, dtype=np.int64)
    packed = np.ascontiguousarray(packed)
    count_bits(packed, start)
    np.cumsum(start, out=start)
    features = np.empty(start[-1], dtype=np.uint32)
    place_bits(packed, start, features)
    return Sets(start, features)


def _any_of(head: NDArray[np.int64], flag: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say for every head whether any row of it is flagged."""
    found = np.zeros(len(head), dtype=bool)
    found[head[flag]] = True
    return found


def _by_content(start: NDArray[np.int64], features: NDArray[Any]) -> NDArray[np.int64]:
    """Sort rows so that equal ones lie together, in order."""
    return np.lexsort((np.diff(start), hashes(start, features)))


def _prepare(
    sets: Sets, order: NDArray[np.int64], need: NDArray[np.int64], fresh: NDArray[np.bool_] | None
) -> tuple[Rows, Lists]:
    """Sort rows by size and features by rarity, say how far each row is looked up, and make the lists."""
    size = np.diff(sets.start)[order]
    start = np.concatenate([[0], np.cumsum(size)])
    code, count = _different(sets, order, start)
    place = np.empty(len(code), dtype=np.int32)
    place[np.argsort(count, kind="stable")] = np.arange(len(code), dtype=np.int32)  # ties by code
    keys, values = hash_table(code, place)
    rank = np.empty(start[-1], dtype=np.int32)
    rank_rows(sets.start, sets.features, order, start, keys, values, rank)
    sign = np.zeros((len(order), WORDS), dtype=np.uint64)
    sign_rows(start, rank, sign)
    sizes = np.arange(int(size.max()) + 1)
    # How large partners can be: from `least`, which rises with size, to before the first whose own least is larger.
    least = np.array([_least(n, need) for n in sizes])
    most = np.searchsorted(least, sizes, side="right") - 1
    totals = np.arange(len(need))
    apart = np.maximum.accumulate(totals - 2 * need)  # rounding lets it fall at times: a bound must not
    low = np.searchsorted(size, least[size])
    high, largest = np.arange(len(size)), size  # partners that come earlier, so are not larger
    reach = size - need[size + least[size]] + 1
    listed = size - need[2 * size] + 1  # enough for partners at least as large
    if fresh is not None:
        listed = np.where(fresh, reach, 0)
        largest = np.where(fresh, size, most[size])
        high = np.where(fresh, high, np.searchsorted(size, largest, side="right"))
    span = np.searchsorted(need, sizes, side="right") - 1
    upto = np.searchsorted(size, totals, side="right")
    rows = Rows(start, rank, sign, need, span, upto, low, high, apart[size + largest], reach)
    return rows, _listed(rows, listed, len(code))


def _different(
    sets: Sets, order: NDArray[np.int64], start: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the features that occur in some rows, and in how many."""
    taken = np.empty(start[-1], dtype=sets.features.dtype)
    gather(sets.start, sets.features, order, start, taken)
    taken.sort()
    first = np.flatnonzero(np.concatenate([[True], taken[1:] != taken[:-1]]))
    return taken[first], np.diff(np.append(first, len(taken)))


def _least(size: int, need: NDArray[np.int64]) -> int:
    """Return the smallest size that can be similar to `size`; above it for 0."""
    sizes = np.arange(size + 1)
    fits = need[size + sizes] <= sizes
    return int(fits.argmax()) if fits.any() else size + 1


def _listed(rows: Rows, depth: NDArray[np.int64], n_features: int) -> Lists:
    start = np.zeros(n_features + 1, dtype=np.int64)
    count_listed(rows.start, rows.rank, depth, start)
    np.cumsum(start, out=start)
    row, one, two = (np.empty(start[-1], dtype=kind) for kind in (np.int32, np.uint64, np.uint64))
    lists = Lists(start, row, one, two)
    fill_lists(rows, depth, lists, start[:-1].copy())
    return lists


def _threaded(rows: Rows, lists: Lists, jobs: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Look up blocks of rows side by side; return the first row of each row's group, and the tally.

    Every thread joins groups of its own, so that none waits for or disturbs another; they are put together at
    the end.
    """
    U = len(rows.start) - 1
    size = max(256, -(-U // _TASKS))
    own = [(np.arange(U, dtype=np.int32), np.zeros(3, dtype=np.int64)) for _ in range(jobs)]
    free = list(own)

    def piece(first: int) -> None:
        parent, tally = free.pop()  # as many as threads, so there is one
        look_up(rows, lists, parent, first, min(first + size, U), tally)
        free.append((parent, tally))

    with ThreadPoolExecutor(jobs) as threads:
        # The last rows have most before them: the longest tasks first.
        firsts = range(0, U, size)[::-1]
        for _ in track(threads.map(piece, firsts), "chemical series", total=len(firsts)):
            pass
    parent = own[0][0]
    for other, _ in own[1:]:
        unite_all(parent, other)
    unite_all(parent, parent)  # flat: everyone points at the first of the group
    return parent, np.sum([tally for _, tally in own], axis=0)
