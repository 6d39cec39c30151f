from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import DataStructs

from phenohit.chem.fingerprints import ecfp, ecfp_features
from phenohit.chem.join import sets_of
from phenohit.chem.series import extend, link, number_by_size, series
from phenohit.errors import ConfigError, ShapeError


def families(n: int, seed: int, n_bits: int = 256) -> np.ndarray:
    """Fingerprints that mutate from one another, so that many pairs lie around the bound."""
    rng = np.random.default_rng(seed)
    rows = [rng.random(n_bits) < 0.15]
    while len(rows) < n:
        child = rows[rng.integers(len(rows))] if rng.random() < 0.8 else rng.random(n_bits) < 0.15
        flips = rng.integers(0, n_bits, rng.integers(0, 9))
        child = child.copy()
        child[flips] ^= True
        rows.append(child)
    return np.packbits(np.array(rows), axis=1)


def brute_force(packed: np.ndarray, similarity: float) -> np.ndarray:
    """Grow each component from RDKit's similarities, one row after the other."""
    bits = [DataStructs.CreateFromBitString("".join(map(str, np.unpackbits(row)))) for row in packed]
    label = np.full(len(bits), -1)
    for start in range(len(bits)):
        if label[start] < 0:
            label[start] = start
            front = [start]
            while front:
                near = np.array(DataStructs.BulkTanimotoSimilarity(bits[front.pop()], bits)) >= similarity - 1e-9
                new = np.flatnonzero(near & (label < 0))
                label[new] = start
                front += new.tolist()
    return label


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = len({*zip(a.tolist(), b.tolist(), strict=True)})
    return pairs == len(set(a.tolist())) == len(set(b.tolist()))


@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
@settings(max_examples=30, deadline=None)
def test_series_are_rdkits_connected_components(seed, n, similarity):
    packed = families(n, seed)
    found = series(packed, similarity=similarity, jobs=1)
    assert same_partition(found, brute_force(packed, similarity))
    sizes = np.bincount(found)
    assert (np.diff(sizes) <= 0).all()  # 0 is the largest
    first = [np.flatnonzero(found == k)[0] for k in range(len(sizes))]
    assert all(first[k] < first[k + 1] for k in range(len(sizes) - 1) if sizes[k] == sizes[k + 1])


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_order_of_rows_and_threads_do_not_change_the_partition(seed):
    packed = families(80, seed)
    order = np.random.default_rng(seed).permutation(80)
    found = series(packed, jobs=1)
    assert same_partition(found[order], series(packed[order], jobs=2))


def test_a_pair_at_exactly_the_bound_is_linked_and_just_below_is_not():
    bits = np.zeros((4, 64), dtype=bool)
    bits[0, :10] = True
    bits[1, 3:10] = True  # 7 of 10
    bits[2, 20:40] = True
    bits[3, 27:40] = True  # 13 of 20
    assert series(np.packbits(bits, axis=1), similarity=0.7).tolist() == [0, 0, 1, 2]
    assert series(np.packbits(bits, axis=1), similarity=0.65).tolist() == [0, 0, 1, 1]


def test_every_bound_on_a_ladder_of_pairs():
    # Pair k shares k of 40 bits; at bound k / 40 it must be linked, at any higher bound not.
    for k in range(1, 41):
        bits = np.zeros((2, 40), dtype=bool)
        bits[0, :40] = True
        bits[1, :k] = True
        packed = np.packbits(bits, axis=1)
        assert series(packed, similarity=k / 40, jobs=1).tolist() == [0, 0]
        if k < 40:
            assert series(packed, similarity=(k + 0.01) / 40, jobs=1).tolist() == [0, 1]


def test_chains_are_followed_to_their_end():
    bits = np.zeros((6, 64), dtype=bool)
    for k in range(6):
        bits[k, 2 * k : 2 * k + 20] = True  # neighbours 18 of 22, ends 10 of 30
    assert series(np.packbits(bits, axis=1)).tolist() == [0] * 6


def test_identical_fingerprints_are_one_series_and_empty_ones_are_alone():
    packed = np.concatenate([families(1, 0), families(1, 0), np.zeros((3, 32), np.uint8), families(1, 0)])
    assert series(packed).tolist() == [0, 0, 1, 2, 3, 0]


def test_shared_labels_link_and_missing_ones_do_not():
    packed = np.zeros((6, 32), dtype=np.uint8)
    skeleton = np.array(["A", "", "A", "", None, np.nan], dtype=object)
    plate = np.array([1, 1, 2, 3, 4, 5])
    assert series(packed, also=[skeleton]).tolist() == [0, 1, 0, 2, 3, 4]
    assert series(packed, also=[skeleton, plate]).tolist() == [0, 0, 0, 1, 2, 3]
    assert link([skeleton, plate], 6).tolist() == [0, 0, 0, 1, 2, 3]
    assert link([], 3).tolist() == [0, 1, 2]


def test_numbering_is_by_size_then_first_member():
    assert number_by_size(np.array([7, 3, 3, 9, 7, 5])).tolist() == [0, 1, 1, 2, 0, 3]
    assert number_by_size(np.array([])).tolist() == []


def test_lengths_that_are_no_multiple_of_64_bits_and_empty_input():
    packed = families(30, 1, n_bits=40)
    assert same_partition(series(packed), brute_force(packed, 0.7))
    assert series(packed[:0]).shape == (0,)
    assert series(packed).dtype == np.int32


def test_wrong_input_is_refused():
    with pytest.raises(ShapeError, match="uint8"):
        series(np.zeros((3, 8)))
    with pytest.raises(ShapeError, match="but there are 3 rows"):
        series(np.zeros((3, 8), np.uint8), also=[np.array(["a"])])
    with pytest.raises(ConfigError, match=r"similarity is 1\.5"):
        series(families(3, 0), similarity=1.5)


@given(st.integers(0, 10**6), st.integers(0, 50), st.data(), st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_extended_series_are_those_from_scratch_and_old_ones_keep_their_numbers(seed, n, data, similarity, unfolded):
    packed = families(n, seed)[:n]
    cut = data.draw(st.integers(0, n))
    skeleton = np.random.default_rng(seed).integers(0, 2 * n + 1, n).astype(str).astype(object)
    old, new = packed[:cut], packed[cut:]
    if unfolded:
        old, new = sets_of(old), sets_of(new)
    known = series(old, similarity=similarity, also=(skeleton[:cut],), jobs=1)
    found = extend(known, old, new, similarity=similarity, also=(skeleton,), jobs=1)
    whole = series(packed, similarity=similarity, also=(skeleton,), jobs=1)
    assert found.dtype == np.int32
    assert same_partition(found, whole)
    for group in np.unique(found):
        before = known[found[:cut] == group]
        if len(before):
            assert group == before.min()
        else:
            assert group > known.max(initial=-1)
    alone = np.setdiff1d(found, known)
    assert alone.tolist() == [*range(known.max(initial=-1) + 1, known.max(initial=-1) + 1 + len(alone))]


def test_a_new_compound_bridges_two_series():
    bits = np.zeros((5, 64), dtype=bool)
    for k, start in enumerate((20, 40, 0, 8, 4)):  # the last lies between the third and the fourth
        bits[k, start : start + 20] = True
    bits[:2] = False
    bits[0, 50:60] = bits[1, 50:60] = True
    packed = np.packbits(bits, axis=1)
    known = series(packed[:4], similarity=0.6)
    assert known.tolist() == [0, 0, 1, 2]
    assert extend(known, packed[:4], packed[4:], similarity=0.6).tolist() == [0, 0, 1, 1, 1]
    assert extend(known, packed[:4], packed[:0], similarity=0.6).tolist() == [0, 0, 1, 2]
    assert extend(known[:0], packed[:0], packed[:4], similarity=0.6).tolist() == [0, 0, 1, 2]


def test_extending_refuses_what_does_not_fit():
    packed = families(4, 0)
    with pytest.raises(ShapeError, match="there are 3 old fingerprints"):
        extend(np.zeros(2, int), packed[:3], packed[3:])
    with pytest.raises(ShapeError, match="made alike"):
        extend(np.zeros(3, int), packed[:3], sets_of(packed[3:]))
    with pytest.raises(ShapeError, match="made alike"):
        extend(np.zeros(3, int), packed[:3], families(1, 0, n_bits=64))
    with pytest.raises(ShapeError, match="uint8"):
        extend(np.zeros(3, int), packed[:3], packed[3:].astype(int))


def test_unfolded_features_do_not_collide():
    smiles = ["CCO", "CCO", "CCCCO", "", "c1ccccc1O"]
    assert series(ecfp_features(smiles)).tolist() == series(ecfp(smiles)).tolist()


@pytest.mark.parametrize("folder", ["labels-hti209", "labels-broad270-subset"])
def test_real_structures_against_brute_force(shared_data, folder):
    path = next((shared_data / folder).glob("label_matrix*.parquet"))
    smiles = pd.read_parquet(path, columns=["smiles"])["smiles"]
    # Neighbours in the file are often analogues: a contiguous part has many links.
    packed = ecfp(smiles.iloc[2000:2800].tolist())
    found = series(packed)
    assert same_partition(found, brute_force(packed, 0.7))
    assert found.max() + 1 < len(packed)
