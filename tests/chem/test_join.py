from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from phenohit.chem.fingerprints import ecfp, ecfp_features
from phenohit.chem.join import join, sets_of
from phenohit.chem.similarity import Sets, needed_common
from phenohit.errors import ConfigError

BOUNDS = [0.3, 0.5, 0.7, 0.9, 1.0]


def as_sets(rows: list[set[int]], dtype=np.int64) -> Sets:
    start = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Sets(start, np.array([f for row in rows for f in sorted(row)], dtype=dtype))


def brute_force(rows: list[set[int]], similarity: float) -> list[int]:
    """Compare all with all in plain Python and follow the links."""
    need = needed_common(similarity, max(map(len, rows), default=0))
    label = list(range(len(rows)))
    for i, j in combinations(range(len(rows)), 2):
        if len(rows[i] & rows[j]) >= need[len(rows[i]) + len(rows[j])]:
            old, new = label[j], label[i]
            label = [new if k == old else k for k in label]
    return label


def same(a, b) -> bool:
    a, b = list(a), list(b)
    return len({*zip(a, b, strict=True)}) == len(set(a)) == len(set(b))


@st.composite
def families(draw) -> list[set[int]]:
    """Sets with duplicates, near-duplicates, empty sets and sets of one, of common and of rare features."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(0, 60))
    n_features = draw(st.sampled_from([3, 12, 60, 2_000]))
    rows: list[set[int]] = []
    while len(rows) < n:
        size = int(rng.choice([0, 1, 2, 10, 25, 90]))
        row = set((n_features * rng.random(size) ** 2).astype(int).tolist())
        if rows and rng.random() < 0.7:
            row = set(rows[rng.integers(len(rows))])
            for _ in range(rng.integers(0, 6)):
                row ^= {int(rng.integers(n_features))}
        rows.append(row)
    return rows


@given(families(), st.sampled_from(BOUNDS))
@settings(max_examples=150, deadline=None)
def test_groups_are_those_of_brute_force(rows, similarity):
    found = join(as_sets(rows), similarity)
    assert same(found.group, brute_force(rows, similarity))
    assert all(found.group.tolist().index(row) == row for row in set(found.group.tolist()))  # the first names it


@given(families(), st.sampled_from(BOUNDS), st.data())
@settings(max_examples=100, deadline=None)
def test_fresh_rows_meet_all_and_old_rows_are_not_compared(rows, similarity, data):
    fresh = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), dtype=bool)
    group = join(as_sets(rows), similarity, fresh=fresh).group
    unseen = [
        f and not any(rows[k] == row and not fresh[k] for k in range(len(rows)))
        for f, row in zip(fresh, rows, strict=True)
    ]
    need = needed_common(similarity, max(map(len, rows), default=0))
    label = list(range(len(rows)))
    for i, j in combinations(range(len(rows)), 2):
        near = len(rows[i] & rows[j]) >= need[len(rows[i]) + len(rows[j])]
        if near and (unseen[i] or unseen[j] or rows[i] == rows[j]):  # equal sets are one, old or not
            label = [label[i] if k == label[j] else k for k in label]
    whole = brute_force(rows, similarity)
    # Old groups are the caller's: what was found lies between the links of fresh rows and all links.
    assert len({*zip(label, group.tolist(), strict=True)}) == len(set(label))
    assert len({*zip(group.tolist(), whole, strict=True)}) == len(set(group.tolist()))


@given(families(), st.sampled_from(BOUNDS), st.permutations(range(60)))
@settings(max_examples=30, deadline=None)
def test_order_codes_and_threads_do_not_matter(rows, similarity, order):
    expected = join(as_sets(rows), similarity).group
    assert (join(as_sets(rows), similarity, jobs=3).group == expected).all()
    order = [k for k in order if k < len(rows)]
    turned = join(as_sets([rows[k] for k in order]), similarity).group
    assert same(turned, expected[np.array(order, dtype=np.int64)])
    other = [{2**32 - 1 - f for f in row} for row in rows]
    assert same(join(as_sets(other, np.uint32), similarity).group, expected)


def test_many_threads_and_pieces_give_the_groups_of_one():
    rng = np.random.default_rng(0)
    cores = rng.integers(0, 10**6, (700, 40))
    rows = [set(cores[k % 700, rng.random(40) < 0.95].tolist()) for k in range(3_000)]
    sets = as_sets(rows)
    one, many = join(sets, 0.7), join(sets, 0.7, jobs=4)
    assert (one.group == many.group).all()
    assert (one.entries, one.candidates) == (many.entries, many.candidates)
    assert one.entries < 3_000 * 2_999 / 2 / 20
    assert len(np.unique(one.group)) < 1_000


def test_a_pair_at_exactly_the_bound_is_joined_and_just_below_is_not():
    for k in range(1, 41):
        rows = [set(range(40)), set(range(k))]
        assert join(as_sets(rows), k / 40).group.tolist() == [0, 0]
        if k < 40:
            assert join(as_sets(rows), (k + 0.01) / 40).group.tolist() == [0, 1]
    assert join(as_sets([set(range(10)), set(range(3, 10))]), 0.7).group.tolist() == [0, 0]


def test_long_lists_are_searched_to_their_end():
    # One feature in all sets and lists of every length around a block of 32; the pair to find lies last.
    for n in (1, 31, 32, 33, 63, 64, 65, 200):
        rows = [{0, 1000 + 3 * k, 1001 + 3 * k, 1002 + 3 * k} for k in range(n)] + [{0, 1, 2, 3}, {0, 1, 2, 3, 4}]
        found = join(as_sets(rows), 0.75).group
        assert found.tolist() == [*range(n), n, n]
        assert join(as_sets(rows), 0.1).group.tolist() == [0] * (n + 2)


def test_empty_sets_duplicates_and_sets_of_one():
    rows = [set(), {5}, set(), {5}, {6}, {5, 6}, {5, 6}]
    assert join(as_sets(rows), 0.7).group.tolist() == [0, 1, 2, 1, 4, 5, 5]
    assert join(as_sets(rows), 0.5).group.tolist() == [0, 1, 2, 1, 1, 1, 1]
    assert join(as_sets([]), 0.7).group.shape == (0,)
    assert join(as_sets([set(), set()]), 0.7).group.tolist() == [0, 1]


def test_bits_become_sets_and_sets_bits():
    rng = np.random.default_rng(1)
    packed = np.packbits(rng.random((300, 104)) < 0.2, axis=1)
    packed[17] = 0
    sets = sets_of(packed)
    bits = np.unpackbits(packed, axis=1)
    assert sets.features.tolist() == np.nonzero(bits)[1].tolist()
    assert np.diff(sets.start).tolist() == bits.sum(1).tolist()
    assert (sets.packed(104) == packed).all()
    assert len(sets_of(packed[:0])) == 0


def test_impossible_similarities_are_refused():
    for similarity in (0, -1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="similarity is"):
            join(as_sets([{1}, {1}]), similarity)


@pytest.fixture(scope="module")
def real_smiles(shared_data) -> list[str]:
    path = shared_data / "labels-broad270-subset" / "label_matrix_81.parquet"
    return pd.read_parquet(path, columns=["smiles"])["smiles"].iloc[:1500].tolist()


@pytest.mark.parametrize("similarity", [0.5, 0.7])
def test_real_structures_are_grouped_as_fpsim2_links_them(real_smiles, similarity, tmp_path):
    engine_of = pytest.importorskip("FPSim2")
    io = pytest.importorskip("FPSim2.io")
    path = str(tmp_path / "fingerprints.h5")
    molecules = [[smiles, row] for row, smiles in enumerate(real_smiles)]
    io.create_db_file(molecules, path, "smiles", "Morgan", {"radius": 3, "fpSize": 2048})
    engine = engine_of.FPSim2Engine(path)
    links = engine.symmetric_distance_matrix(similarity, n_workers=1)
    theirs = np.empty(len(real_smiles), dtype=np.int64)
    theirs[engine.fps[:, 0].astype(np.int64)] = connected_components(links, directed=False)[1]
    assert same(join(sets_of(ecfp(real_smiles)), similarity).group, theirs)


@pytest.mark.parametrize("similarity", BOUNDS)
def test_real_unfolded_features_against_brute_force(real_smiles, similarity):
    sets = ecfp_features(real_smiles[:400])
    rows = [set(sets.features[a:b].tolist()) for a, b in zip(sets.start[:-1], sets.start[1:], strict=True)]
    assert same(join(sets, similarity).group, brute_force(rows, similarity))
