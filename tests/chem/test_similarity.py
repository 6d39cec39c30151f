from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import DataStructs

import phenohit.chem.similarity as module
from phenohit.chem.similarity import Sets, bit_counts, common_bits, different, nearest, needed_common, tanimoto
from phenohit.errors import ConfigError, ShapeError


def random_bits(n: int, seed: int, *, n_bits: int = 128, density: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.packbits(rng.random((n, n_bits)) < density, axis=1)


def rdkit_bits(packed: np.ndarray) -> list:
    return [DataStructs.CreateFromBitString("".join(map(str, np.unpackbits(row)))) for row in packed]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "_QUERIES", 7)
    monkeypatch.setattr(module, "_TARGETS", 5)


@pytest.mark.usefixtures("small_blocks")
@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 25))
@settings(max_examples=25, deadline=None)
def test_tanimoto_is_rdkits(seed, n, m):
    a, b = random_bits(n, seed), random_bits(m, seed + 1)
    a[0] = 0
    b[-1] = 0  # neither has a bit: RDKit says 0, so do we
    targets = rdkit_bits(b)
    expected = [DataStructs.BulkTanimotoSimilarity(q, targets) for q in rdkit_bits(a)]
    np.testing.assert_array_equal(tanimoto(a, b), np.array(expected, dtype=np.float32))


@pytest.mark.usefixtures("small_blocks")
@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 25))
@settings(max_examples=25, deadline=None)
def test_nearest_is_the_first_largest_of_the_whole_matrix(seed, n, m):
    a, b = random_bits(n, seed, n_bits=16), random_bits(m, seed + 1, n_bits=16)  # short: many ties
    index, value = nearest(a, b)
    full = tanimoto(a, b)
    np.testing.assert_array_equal(index, full.argmax(axis=1))
    np.testing.assert_array_equal(value, full.max(axis=1))


@pytest.mark.usefixtures("small_blocks")
def test_a_compound_is_not_its_own_neighbour_but_its_twin_is():
    a = random_bits(20, 3)
    a[13] = a[2]
    index, value = nearest(a, a, exclude_self=True)
    assert (index != np.arange(20)).all()
    assert index[2] == 13
    assert index[13] == 2
    assert value[2] == value[13] == 1
    full = tanimoto(a, a)
    np.fill_diagonal(full, -1)
    np.testing.assert_array_equal(value, full.max(axis=1))


@pytest.mark.parametrize("exclude_self", [False, True])
def test_without_targets_there_is_no_neighbour(exclude_self):
    a = random_bits(1 if exclude_self else 3, 0)
    index, value = nearest(a, a if exclude_self else a[:0], exclude_self=exclude_self)
    assert (index == -1).all()
    assert np.isnan(value).all()
    assert value.dtype == np.float32
    assert nearest(a[:0], a)[0].shape == (0,)


@given(st.integers(1, 1000), st.integers(0, 64), st.integers(0, 64))
def test_needed_bits_decide_as_exact_fractions_do(thousandths, bits_a, bits_b):
    need = needed_common(thousandths / 1000, 64)
    t = Fraction(thousandths, 1000)
    for common in range(min(bits_a, bits_b) + 1):
        either = bits_a + bits_b - common
        similar = either > 0 and Fraction(common, either) >= t
        assert (common >= need[bits_a + bits_b]) == similar


def test_exactly_seven_tenths_counts_although_floats_differ():
    assert needed_common(0.7, 2048)[17] == 7  # 7 common of 17 - 7 = 10: exactly 0.7
    assert float(np.float32(0.7)) != 0.7  # what a comparison in floats would have to survive


@pytest.mark.parametrize("similarity", [0, -0.1, 1.01])
def test_impossible_bounds_are_refused(similarity):
    with pytest.raises(ConfigError, match=f"similarity is {similarity}"):
        needed_common(similarity, 8)


def test_counts_agree_with_unpacked_bits_with_and_without_numpy_2(monkeypatch):
    a, b = random_bits(50, 1), random_bits(50, 2)
    expected = np.unpackbits(a, axis=1).sum(axis=1), (np.unpackbits(a, axis=1) & np.unpackbits(b, axis=1)).sum(axis=1)
    for _ in range(2):
        np.testing.assert_array_equal(bit_counts(a), expected[0])
        np.testing.assert_array_equal(common_bits(a, b), expected[1])
        monkeypatch.delattr(np, "bitwise_count", raising=False)


def test_different_rows_are_found_once():
    a = random_bits(30, 5)[np.array([0, 1, 0, 2, 1, 0])]
    first, which = different(a)
    assert sorted(first.tolist()) == [0, 1, 3]
    np.testing.assert_array_equal(a[first][which], a)


def test_wrong_arrays_are_refused():
    with pytest.raises(ShapeError, match="128 and 64 bits"):
        tanimoto(random_bits(2, 0), random_bits(2, 0, n_bits=64))
    with pytest.raises(ShapeError, match="float64"):
        nearest(np.zeros((2, 8)), random_bits(2, 0, n_bits=64))


def test_sets_hold_what_they_are_given_and_follow_one_another():
    a = Sets(np.array([0, 2, 2, 3]), np.array([4, 9, 1], dtype=np.uint32))
    b = Sets(np.array([0, 1]), np.array([7], dtype=np.uint32))
    both = a.then(b)
    assert len(a) == 3
    assert both.start.tolist() == [0, 2, 2, 3, 4]
    assert both.features.tolist() == [4, 9, 1, 7]
    assert both.features.dtype == np.uint32
    bits = np.unpackbits(both.packed(8), axis=1)
    assert [np.flatnonzero(row).tolist() for row in bits] == [[1, 4], [], [1], [7]]
    empty = Sets(np.array([0]), np.array([], dtype=np.uint32))
    assert empty.then(a).start.tolist() == a.start.tolist()
    assert empty.packed().shape == (0, 256)


@pytest.mark.parametrize(
    ("start", "features", "message"),
    [
        ([0, 3], [1, 2, 2], "Features of set 0 do not rise"),
        ([0, 0, 1, 1, 3], [5, 2, 1], "Features of set 3 do not rise"),
        ([0, 2], [1], "Sets end at 2, but there are int64 features"),
        ([0, 1], [0.5], "float64"),
        ([1, 2], [1, 2], "begin with 0"),
        ([0, 2, 1], [1], "never fall"),
        ([], [], "1-D int64"),
    ],
)
def test_sets_that_do_not_fit_are_refused(start, features, message):
    with pytest.raises(ShapeError, match=message):
        Sets(np.array(start, dtype=np.int64), np.array(features))
