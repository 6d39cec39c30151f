"""Compiled loops of `phenohit.chem.join`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from phenohit.chem.popcount import compiled, count_ones

__all__ = [
    "WORDS",
    "Lists",
    "Rows",
    "count_bits",
    "count_listed",
    "fill_lists",
    "gather",
    "hash_table",
    "hashes",
    "heads",
    "look_up",
    "place_bits",
    "rank_rows",
    "sign_rows",
    "unite_all",
]

WORDS = 8  # 64-bit words of a full signature; lists hold it folded to two

_BLOCK = 32  # entries of a list tested at once, in the processor's widest registers


class Rows(NamedTuple):
    """Different, not empty sets by rising size; features as ranks, 0 the rarest, rising within a row."""

    start: Any  # int64 (U + 1,)
    rank: Any  # int32 (E,)
    sign: Any  # uint64 (U, WORDS)
    need: Any  # int64: common features that two sets need, by the sum of their sizes
    span: Any  # int64: the largest sum of sizes for which a number of common features is enough
    upto: Any  # int64: rows of a size or below
    low: Any  # int64 (U,): rows from `low` to before `high` are looked for among the lists
    high: Any  # int64 (U,)
    most: Any  # int64 (U,): features in which a similar set can differ at most
    reach: Any  # int64 (U,): length of the prefix that is looked up


class Lists(NamedTuple):
    """For every feature the rows that have it in the prefix that is listed, rising."""

    start: Any  # int64 (features + 1,)
    row: Any  # int32 (L,)
    one: Any  # uint64 (L,), the signature's two words
    two: Any


@compiled
def _mix(code: Any) -> Any:
    """Spread a feature over 64 bits (the end of splitmix64)."""
    x = np.uint64(code) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def count_bits(packed: Any, start: Any) -> None:
    """Count the set bits of row i into ``start[i + 1]``."""
    for i in range(len(packed)):
        for byte in packed[i]:
            start[i + 1] += np.int64(count_ones(np.uint64(byte)))


@compiled
def place_bits(packed: Any, start: Any, features: Any) -> None:
    """List the places of set bits, rising."""
    for i in range(len(packed)):
        at = start[i]
        for b in range(packed.shape[1]):
            byte = packed[i, b]
            if byte:
                for k in range(8):
                    if byte & (128 >> k):
                        features[at] = 8 * b + k
                        at += 1


@compiled
def hashes(start: Any, features: Any) -> Any:
    """Return one number per row that equal sets share."""
    out = np.zeros(len(start) - 1, dtype=np.uint64)
    for i in range(len(out)):
        for k in range(start[i], start[i + 1]):
            out[i] ^= _mix(features[k])
    return out


@compiled
def heads(start: Any, features: Any, order: Any) -> Any:
    """Return the first row that holds the same set; empty sets, and any that only share a hash, are their own."""
    head = np.arange(len(order))
    for k in range(1, len(order)):
        i, j = head[order[k - 1]], order[k]
        size = start[j + 1] - start[j]
        if size == 0 or start[i + 1] - start[i] != size:
            continue
        same = True
        for f in range(size):
            if features[start[i] + f] != features[start[j] + f]:
                same = False
                break
        if same:
            head[j] = i
    return head


@compiled
def gather(start: Any, features: Any, order: Any, new: Any, out: Any) -> None:
    """Copy chosen rows one after the other."""
    for k in range(len(order)):
        out[new[k] : new[k + 1]] = features[start[order[k]] : start[order[k] + 1]]


@compiled
def hash_table(code: Any, place: Any) -> Any:
    """Make an open hash table, at most half full: feature to rank; rank -1 is free."""
    size = 2
    while size < 2 * len(code):
        size *= 2
    keys, values = np.zeros(size, code.dtype), np.full(size, -1, np.int32)
    for k in range(len(code)):
        at = np.int64(_mix(code[k]) & np.uint64(size - 1))
        while values[at] >= 0:
            at = (at + 1) & (size - 1)
        keys[at], values[at] = code[k], place[k]
    return keys, values


@compiled
def rank_rows(start: Any, features: Any, order: Any, new: Any, keys: Any, values: Any, rank: Any) -> None:
    """Write the chosen rows as sorted ranks."""
    mask = len(keys) - 1
    for k in range(len(order)):
        to = new[k]
        for f in range(start[order[k]], start[order[k] + 1]):
            at = np.int64(_mix(features[f]) & np.uint64(mask))
            while keys[at] != features[f] or values[at] < 0:
                at = (at + 1) & mask
            rank[to] = values[at]
            to += 1
        rank[new[k] : new[k + 1]].sort()


@compiled
def sign_rows(start: Any, rank: Any, sign: Any) -> None:
    """Let every feature flip a bit of its row's signature."""
    bits = np.uint64(64 * sign.shape[1])
    for i in range(len(sign)):
        for k in range(start[i], start[i + 1]):
            bit = _mix(rank[k]) % bits
            sign[i, bit >> np.uint64(6)] ^= np.uint64(1) << (bit & np.uint64(63))


@compiled
def _folded(sign: Any) -> Any:
    one, two = np.uint64(0), np.uint64(0)
    for w in range(0, len(sign), 2):
        one ^= sign[w]
        two ^= sign[w + 1]
    return one, two


@compiled
def count_listed(start: Any, rank: Any, depth: Any, count: Any) -> None:
    """Count how many rows each list holds into ``count[feature + 1]``."""
    for i in range(len(depth)):
        for k in range(start[i], start[i] + depth[i]):
            count[rank[k] + 1] += 1


@compiled
def fill_lists(rows: Any, depth: Any, lists: Any, at: Any) -> None:
    """Append every row to the lists of the first features it has, ``at`` being their ends."""
    for i in range(len(depth)):
        one, two = _folded(rows.sign[i])
        for k in range(rows.start[i], rows.start[i] + depth[i]):
            f = rows.rank[k]
            lists.row[at[f]], lists.one[at[f]], lists.two[at[f]] = i, one, two
            at[f] += 1


@compiled
def _find(parent: Any, row: Any) -> Any:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


@compiled
def _unite(parent: Any, i: Any, j: Any) -> None:
    i, j = _find(parent, i), _find(parent, j)
    if i < j:
        parent[j] = i
    else:
        parent[i] = j


@compiled
def unite_all(parent: Any, other: Any) -> None:
    """Join every row with the one that `other` names and point all at the first of their group."""
    for i in range(len(parent)):
        _unite(parent, i, other[i])
        parent[i] = _find(parent, i)


@compiled
def _share(a: Any, b: Any, need: Any, feature: Any) -> bool:
    """Say whether two rows of ranks share enough; no, if they also met in an earlier list."""
    i = j = common = 0
    while i < len(a) and j < len(b) and common + min(len(a) - i, len(b) - j) >= need:
        x, y = a[i], b[j]
        if x == y:
            if common == 0 and x != feature:
                return False
            common += 1
        i += x <= y
        j += y <= x
    return common >= need


@compiled
def _apart(a: Any, b: Any) -> int:
    """Count the bits in which two signatures differ."""
    bits = np.uint64(0)
    for w in range(WORDS):
        bits += count_ones(a[w] ^ b[w])
    return np.int64(bits)


@compiled
def _first_at(row: Any, first: Any, last: Any, value: Any) -> Any:
    """Return the first place from `first` to `last` whose row is at least `value`."""
    while first < last:
        middle = (first + last) >> 1
        if row[middle] < value:
            first = middle + 1
        else:
            last = middle
    return first


@compiled
def look_up(rows: Any, lists: Any, parent: Any, first: Any, last: Any, tally: Any) -> None:
    """Look the prefixes of some rows up and join what is similar."""
    start, rank, sign = rows.start, rows.rank, rows.sign
    for i in range(first, last):
        size = start[i + 1] - start[i]
        one, two = _folded(sign[i])
        most, root = rows.most[i], _find(parent, i)
        for k in range(rows.reach[i]):
            f = rank[start[i] + k]
            # What is left from here on must be enough: partners are no larger than that allows.
            high = min(rows.high[i], rows.upto[max(rows.span[size - k] - size, 0)])
            begin = _first_at(lists.row, lists.start[f], lists.start[f + 1], rows.low[i])
            end = _first_at(lists.row, begin, lists.start[f + 1], high)
            tally[0] += end - begin
            row, ones, twos = lists.row[begin:end], lists.one[begin:end], lists.two[begin:end]
            for g in range(0, end - begin, _BLOCK):
                stop = min(g + _BLOCK, end - begin)
                if stop == g + _BLOCK and not _any_near(ones[g:stop], twos[g:stop], one, two, most):
                    continue
                for z in range(g, stop):
                    if np.int64(count_ones(ones[z] ^ one) + count_ones(twos[z] ^ two)) > most:
                        continue
                    tally[1] += 1
                    j = row[z]
                    if parent[j] == root or _find(parent, j) == root:
                        continue
                    total = size + start[j + 1] - start[j]
                    if _apart(sign[i], sign[j]) > total - 2 * rows.need[total]:
                        continue
                    tally[2] += 1
                    if _share(rank[start[i] : start[i + 1]], rank[start[j] : start[j + 1]], rows.need[total], f):
                        _unite(parent, i, j)
                        root = _find(parent, i)


@compiled
def _any_near(ones: Any, twos: Any, one: Any, two: Any, most: Any) -> bool:
    near = 0
    for z in range(_BLOCK):  # a fixed length, which compiles to a few wide instructions
        near += np.int64(count_ones(ones[z] ^ one) + count_ones(twos[z] ^ two)) <= most
    return near > 0
