from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from phenohit.errors import ConfigError, ShapeError
from phenohit.hits.choose import choose, cluster, lottery


def planted(sizes, seed=0):
    """Fingerprints in clusters of the given sizes: equal within, without a common bit between."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    bits = np.zeros((len(label), 8 * 64), dtype=np.uint8)
    for row, group in enumerate(label):
        bits[row, 4 * group : 4 * group + 4] = 1
    rng = np.random.default_rng(seed)
    keys = np.array([f"K{i:04d}" for i in rng.permutation(len(label))], dtype=object)
    table = pd.DataFrame({"compound": keys, "score": rng.random(len(label)).round(1).astype(np.float32)})
    return table, np.packbits(bits, axis=1), label


sizes_of_clusters = st.lists(st.integers(1, 12), min_size=1, max_size=25)


@given(sizes_of_clusters, st.integers(1, 60), st.integers(1, 6), st.floats(1, 4), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_exactly_n_or_all_are_picked_from_the_top_and_the_cap_holds_as_long_as_it_can(sizes, n, cap, pool, seed):
    table, fps, label = planted(sizes, seed)
    out = choose(table, fps, n=n, pool=pool, per_cluster=cap, seed=seed)
    picked = out["picked"].to_numpy()
    assert picked.sum() == min(n, len(table))
    assert sorted(out["pick_order"][picked]) == list(range(1, picked.sum() + 1))
    assert (out["pick_order"][~picked] == 0).all()
    # Only the pool is clustered, and the pool is the top of the ranking.
    in_pool = (out["cluster"] >= 0).to_numpy()
    best = out.sort_values(["score", "compound"], ascending=[False, True]).index[: math.ceil(pool * n)]
    assert set(np.flatnonzero(in_pool)) == set(best)
    assert (in_pool | ~picked).all()
    # The cap gives way only when the clusters of the pool hold too few within it.
    _, available = np.unique(label[in_pool], return_counts=True)
    within = np.minimum(available, cap).sum()
    most = np.unique(label[picked], return_counts=True)[1].max()
    assert (most > cap) == (within < min(n, in_pool.sum()))
    if most > cap:  # then every cluster gave at least its share first, and the excess is shared evenly
        taken = pd.Series(label[picked]).value_counts()
        left = pd.Series(label[in_pool]).value_counts()
        assert all(taken[g] == left[g] or taken[g] >= most - 1 for g in left.index)


@given(sizes_of_clusters, st.integers(1, 40), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_row_order_never_changes_the_picks(sizes, n, random):
    table, fps, _ = planted(sizes)
    order = list(range(len(table)))
    random.shuffle(order)
    one = choose(table, fps, n=n, per_cluster=2, seed=3)
    two = choose(table.iloc[order], fps[order], n=n, per_cluster=2, seed=3)
    columns = ["compound", "cluster", "picked", "pick_order"]
    left, right = (t.sort_values("compound")[columns].reset_index(drop=True) for t in (one, two))
    pd.testing.assert_frame_equal(left, right)


def test_clusters_take_their_turn_by_their_best_member():
    table, fps, label = planted([4, 4, 4, 4])
    out = choose(table, fps, n=6, pool=3, per_cluster=2, seed=0).assign(label=label)
    best = out.sort_values(["score", "compound"], ascending=[False, True])["label"].drop_duplicates().tolist()
    in_order = out[out["picked"]].sort_values("pick_order")["label"].tolist()
    assert in_order == [g for g in best[:3] for _ in range(2)]
    assert out.sort_values(["score", "compound"], ascending=[False, True])["cluster"].iloc[0] == 0


def test_another_seed_draws_others_of_the_same_clusters():
    table, fps, label = planted([12] * 5)
    runs = [choose(table, fps, n=20, pool=3, per_cluster=4, seed=s) for s in range(5)]
    sets = [frozenset(r["compound"][r["picked"]]) for r in runs]
    assert len(set(sets)) > 1
    assert len({tuple(np.bincount(label[r["picked"]], minlength=5)) for r in runs}) == 1


def test_the_draw_is_fair():
    keys = np.array([f"K{i}" for i in range(10)], dtype=object)
    first = np.array([np.argmin(lottery(keys, s)) for s in range(2_000)])
    counts = np.bincount(first, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-square, 9 degrees of freedom, p = 0.001


def test_a_compound_without_structure_is_a_cluster_of_its_own():
    table, fps, _ = planted([3, 3])
    fps[:3] = 0
    out = choose(table, fps, n=6, seed=0)
    assert out["cluster"].nunique() == 4


def test_clusters_are_connected_components_of_real_structures(shared_data):
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    from phenohit.chem.fingerprints import ecfp

    smiles = pd.read_parquet(shared_data / "labels-hti209" / "label_matrix.parquet", columns=["smiles"])["smiles"][
        :1200
    ]
    made = cluster(ecfp(smiles.tolist()), 0.7)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=2048)
    fps = [generator.GetFingerprint(Chem.MolFromSmiles(s)) for s in smiles]
    linked = np.array([DataStructs.BulkTanimotoSimilarity(f, fps) for f in fps]) >= 0.7
    n, truth = sparse.csgraph.connected_components(sparse.csr_matrix(linked), directed=False)
    assert made.max() + 1 == n < len(smiles)
    assert len(set(zip(made, truth, strict=True))) == n


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("n", 0),
        ("n", 2.5),
        ("pool", 0.9),
        ("pool", math.nan),
        ("similarity", 0),
        ("similarity", 1.1),
        ("per_cluster", 0),
    ],
)
def test_an_impossible_setting_is_named(setting, value):
    table, fps, _ = planted([3])
    with pytest.raises(ConfigError, match=rf"hits\.{setting} is {value}"):
        choose(table, fps, **{setting: value})


def test_fingerprints_must_fit():
    table, fps, _ = planted([3])
    with pytest.raises(ShapeError, match="3 compounds, but 2 fingerprints"):
        choose(table, fps[:2])


def test_nothing_to_choose_from():
    table, fps, _ = planted([3])
    out = choose(table.iloc[:0], fps[:0])
    assert len(out) == 0
    assert {"cluster", "picked", "pick_order"} <= set(out)


@given(sizes_of_clusters, st.integers(1, 60), st.integers(1, 6), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_without_filling_up_the_cap_holds_and_every_cluster_is_seen(sizes, n, cap, seed):
    table, fps, label = planted(sizes, seed)
    out = choose(table, fps, n=n, pool=math.inf, per_cluster=cap, fill=False, seed=seed)
    picked = out["picked"].to_numpy()
    assert (out["cluster"] >= 0).all()
    assert picked.sum() == min(n, sum(min(size, cap) for size in sizes))
    assert np.unique(label[picked], return_counts=True)[1].max() <= cap
    same = choose(table, fps, n=int(picked.sum()), pool=math.inf, per_cluster=cap, seed=seed)
    assert (same["picked"].to_numpy() == picked).all()  # lifting the cap changes nothing while it is not needed
