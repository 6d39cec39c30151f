"""The compiled loop finds exactly the pairs that plain Python finds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phenohit.chem.popcount import similar_pairs

WORD = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63, 2**64 - 1])


def search(rows: list[list[int]], least: int, first: int, last: int, end: list[int]) -> list[tuple[int, int]]:
    words = np.array(rows, dtype=np.uint64).reshape(len(rows), -1)
    count = np.array([sum(w.bit_count() for w in row) for row in rows], dtype=np.int64)
    need = np.maximum(np.arange(2 * 64 * words.shape[1] + 1) // 3, least).astype(np.uint64)
    found = similar_pairs(words, count, need, np.array(end, dtype=np.int64), first, last)
    return [tuple(pair) for pair in found.tolist()]


@given(st.lists(st.tuples(WORD, WORD), min_size=1, max_size=12), st.integers(1, 64), st.data())
def test_pairs_are_those_of_plain_python(rows, least, data):
    n = len(rows)
    end = [data.draw(st.integers(i, n)) for i in range(n)]
    first, last = sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n))))
    expected = []
    for i in range(first, last):
        for j in range(i + 1, end[i]):
            common = sum((a & b).bit_count() for a, b in zip(rows[i], rows[j], strict=True))
            total = sum(w.bit_count() for w in (*rows[i], *rows[j]))
            if common >= max(total // 3, least):
                expected.append((i, j))
    assert search([list(row) for row in rows], least, first, last, end) == expected


def test_more_pairs_than_expected_are_all_returned():
    n = 400  # 79,800 pairs: more than the first buffer holds
    found = search([[2**64 - 1]] * n, 1, 0, n, [n] * n)
    assert len(found) == n * (n - 1) // 2
    assert found[-1] == (n - 2, n - 1)
