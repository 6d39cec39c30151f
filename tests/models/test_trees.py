"""Flat trees decide as scikit-learn's do, and a damaged one is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from phenohit.errors import FileError
from phenohit.models.trees import Trees


@pytest.fixture(scope="module")
def grown() -> tuple[RandomForestClassifier, Trees, np.ndarray]:
    rng = np.random.default_rng(0)
    # Few distinct values and tiny steps: thresholds fall on and between float32 neighbours.
    X = np.round(rng.standard_normal((300, 6)), 1).astype(np.float32)
    X[:, 0] = np.float32(1) + rng.integers(0, 40, 300).astype(np.float32) * np.float32(1.2e-7)
    y = (X[:, 0] - 1) * 4e5 + X[:, 1] + rng.standard_normal(300) > 1
    forest = RandomForestClassifier(20, random_state=0).fit(X, y)
    return forest, Trees.of(forest.estimators_), X


def test_mean_equals_scikit_learn(grown: tuple[RandomForestClassifier, Trees, np.ndarray]) -> None:
    forest, trees, X = grown
    rng = np.random.default_rng(1)
    for rows in (X, np.float32(3) * rng.standard_normal((5000, 6)).astype(np.float32)):
        np.testing.assert_allclose(trees.mean(rows, 0, 20), forest.predict_proba(rows)[:, 1], atol=1e-6)
    assert trees.mean(X[:0], 0, 20).shape == (0,)


def test_leaves_equal_scikit_learn(grown: tuple[RandomForestClassifier, Trees, np.ndarray]) -> None:
    forest, trees, X = grown
    for k, leaves in enumerate(forest.apply(X).T):
        np.testing.assert_array_equal(trees.leaves(k, X), leaves)


def test_both_ways_of_walking_agree(
    grown: tuple[RandomForestClassifier, Trees, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trees, X = grown
    fast = trees.mean(X, 3, 11)
    assert trees._walker(0, 6) is not None
    monkeypatch.setattr(Trees, "_walker", lambda *_: None)
    np.testing.assert_array_equal(trees.mean(X, 3, 11), fast)


def test_joined_trees_keep_their_numbers(grown: tuple[RandomForestClassifier, Trees, np.ndarray]) -> None:
    forest, trees, _ = grown
    halves = Trees.join([Trees.of(forest.estimators_[:5]), Trees.of(forest.estimators_[5:])])
    for name, array in trees.arrays().items():
        np.testing.assert_array_equal(halves.arrays()[name], array)
    assert len(Trees.join([])) == 0


@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        ("right", 10**6, "later node"),
        ("right", -3, "later node"),
        ("right", 1, "later node"),
        ("feature", 6, "feature that does not exist"),
        ("feature", -1, "feature that does not exist"),
        ("value", np.nan, "not a possible number"),
        ("start", 5, "cover its nodes"),
    ],
)
def test_impossible_trees_are_refused(
    grown: tuple[RandomForestClassifier, Trees, np.ndarray], array: str, value: float, message: str
) -> None:
    trees = grown[1]
    good = {name: a.copy() for name, a in trees.arrays().items()}
    Trees.restore(good, 6, "x")
    good[array][0] = value  # the first node is no leaf
    with pytest.raises(FileError, match=message):
        Trees.restore(good, 6, "x")
    short = {**trees.arrays(), "value": trees.value[:-1]}
    with pytest.raises(FileError, match="differ in length"):
        Trees.restore(short, 6, "x")


def test_leaf_shares_must_be_shares(grown: tuple[RandomForestClassifier, Trees, np.ndarray]) -> None:
    good = {name: a.copy() for name, a in grown[1].arrays().items()}
    good["value"][-1] = 1.5  # the last node of a tree is a leaf
    with pytest.raises(FileError, match="not a possible number"):
        Trees.restore(good, 6, "x")
