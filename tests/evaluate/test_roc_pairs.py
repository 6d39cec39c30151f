"""Which methods are tested against each other, and whether planted differences are found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import phenohit.evaluate.roc_pairs as module
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.roc_pairs import COLUMNS, PAIRS, choose_pairs, pair_tests
from phenohit.evaluate.roc_test import roc_tests

INPUTS = {
    "forest-profiles": "profiles", "network-profiles": "profiles", "gapnet-views": "views", "sccnn-crops": "crops",
    "forest-ecfp": "ecfp", "network-ecfp": "ecfp", "logistic-cell_count": "cell_count", "rate-plate": "plate",
    "rate-base": "base",
}  # fmt: skip
MEAN = dict(zip(INPUTS, (0.70, 0.68, 0.73, 0.72, 0.66, 0.71, 0.60, 0.55, 0.50), strict=True))


def only(*names):
    return {name: INPUTS[name] for name in names}


def test_the_leader_meets_the_best_of_every_kind_first():
    assert choose_pairs(INPUTS, MEAN) == [
        ("gapnet-views", "forest-profiles"),
        ("gapnet-views", "network-ecfp"),
        ("gapnet-views", "logistic-cell_count"),
        ("sccnn-crops", "network-ecfp"),
        ("network-profiles", "gapnet-views"),
        ("gapnet-views", "sccnn-crops"),
    ]


def test_fewer_inputs():
    simm = only("forest-profiles", "network-profiles", "forest-ecfp", "network-ecfp", "rate-base")
    assert choose_pairs(simm, MEAN) == [
        ("forest-profiles", "network-ecfp"),
        ("network-profiles", "network-ecfp"),
        ("forest-profiles", "network-profiles"),
    ]
    chemistry = only("forest-ecfp", "network-ecfp", "logistic-cell_count")
    assert choose_pairs(chemistry, MEAN) == [("network-ecfp", "logistic-cell_count"), ("network-ecfp", "forest-ecfp")]
    assert choose_pairs(only("forest-profiles", "rate-base"), MEAN) == []
    assert choose_pairs({}, {}) == []
    assert choose_pairs({"a": "new", "b": "other"}, {"a": 0.6, "b": 0.7}) == [("b", "a")]


@given(
    st.dictionaries(st.text(max_size=3), st.tuples(st.sampled_from([*INPUTS.values()]), st.floats(0, 1)), max_size=9)
)
def test_pairs_are_few_and_different(methods):
    pairs = choose_pairs({m: i for m, (i, _) in methods.items()}, {m: v for m, (_, v) in methods.items()})
    assert len(pairs) <= PAIRS
    assert len({frozenset(p) for p in pairs}) == len(pairs)
    assert all(a != b and "base" not in (methods[a][0], methods[b][0]) for a, b in pairs)
    tested = {name for pair in pairs for name in pair}
    looks = {m for m, (i, _) in methods.items() if i in ("views", "crops", "profiles")}
    if len(tested) > 1 and len(looks) <= 3:
        assert looks <= tested


def planted(n_tasks=120, n=120, fold=None, seed=0):
    """A third of the tasks for which a is better, a third for which b is, and a third with no difference."""
    stream = np.random.default_rng(seed)
    y = np.tile(np.arange(n) < 40, n_tasks)
    task = np.repeat(np.arange(n_tasks), n)
    common = stream.normal(size=len(y)) + y
    found = {}
    for name, better in (("a-profiles", 0), ("b-ecfp", 1)):
        score = common + stream.normal(size=len(y)) + 2.5 * y * (task % 3 == better)
        folds = np.zeros(len(y)) if fold is None else np.tile(fold, n_tasks)
        found[name] = Entries(
            task.astype(np.int32), folds.astype(np.int32), y, score, np.tile(np.arange(n), n_tasks).astype(np.int32),
            [f"t{i}" for i in range(n_tasks)], np.full(n_tasks, 0.5),
        )  # fmt: skip
    return found


def test_planted_differences_are_counted():
    held = planted()
    table = pair_tests([("a-profiles", "b-ecfp")], held.__getitem__, split="s", repeat={}, permutations=299)
    assert table.columns.tolist() == list(COLUMNS)
    assert set(table["split"]) == {"s"}
    third = [table["verdict"][k::3].value_counts() for k in range(3)]
    assert third[0]["better"] >= 36
    assert third[0].get("worse", 0) == 0
    assert third[1]["worse"] >= 36
    assert third[1].get("better", 0) == 0
    assert third[2]["same"] >= binom.ppf(0.0005, 40, 0.95)
    known = table["auroc_a"] - table["auroc_b"]
    np.testing.assert_allclose(table["difference"], known)
    turned = pair_tests([("b-ecfp", "a-profiles")], held.__getitem__, split="s", repeat={}, permutations=299)
    assert (turned["statistic"] == table["statistic"]).all()
    assert (turned["verdict"].replace({"better": "worse", "worse": "better"}) == table["verdict"]).mean() > 0.95


def test_of_repeated_hold_outs_one_is_tested():
    fold = np.random.default_rng(1).integers(0, 3, 120)
    held = planted(9, fold=fold)
    pairs = [("a-profiles", "b-ecfp"), ("b-ecfp", "a-profiles")]
    table = pair_tests(pairs, held.__getitem__, split="s", repeat={"a-profiles": 2, "b-ecfp": 0}, permutations=99)
    assert table["repeat"].tolist() == [2] * 9 + [0] * 9
    for rows, of in ((slice(9), 2), (slice(9, 18), 0)):
        a, b = ("a-profiles", "b-ecfp") if of else ("b-ecfp", "a-profiles")
        part = [held[m].take(np.flatnonzero(held[m].fold == of)) for m in (a, b)]
        expected = roc_tests(*part, permutations=99)
        for column in ("n_active", "auroc_a", "statistic", "p_value", "p_holm"):
            np.testing.assert_array_equal(table[column].to_numpy()[rows], expected[column].to_numpy())


def test_large_tasks_are_sampled_and_said_so(monkeypatch):
    monkeypatch.setattr(module, "MOST", 60)
    held = planted(60)
    table = pair_tests([("a-profiles", "b-ecfp")], held.__getitem__, split="s", repeat={}, permutations=199)
    assert (table["n_tested"] == 60).all()
    assert (table["n_active"] + table["n_inactive"] == 120).all()
    whole = pair_tests([("a-profiles", "b-ecfp")], planted(60).__getitem__, split="s", repeat={}, permutations=199)
    np.testing.assert_array_equal(table["auroc_a"], whole["auroc_a"])  # of all entries
    assert table["verdict"][0::3].eq("better").mean() > 0.8
    assert table["verdict"][2::3].eq("same").mean() > 0.7


def test_no_pairs_make_an_empty_table_with_columns():
    table = pair_tests([], planted().__getitem__, split="s", repeat={})
    assert table.columns.tolist() == list(COLUMNS)
    assert len(table) == 0


def test_every_method_is_read_as_rarely_as_can_be():
    held, asked = planted(3), []
    held["c-profiles"] = held["b-ecfp"]

    def read(name):
        asked.append(name)
        return held[name]

    pairs = [("a-profiles", "b-ecfp"), ("a-profiles", "c-profiles")]
    table = pair_tests(pairs, read, split="s", repeat={}, permutations=19)
    assert asked == ["a-profiles", "b-ecfp", "c-profiles"]
    pd.testing.assert_series_equal(table["p_value"][:3], table["p_value"][3:].reset_index(drop=True))
    with pytest.raises(KeyError):
        pair_tests([("a-profiles", "none")], read, split="s", repeat={}, permutations=19)
