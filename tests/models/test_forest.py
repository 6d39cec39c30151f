"""The forest: the same scores as scikit-learn's, and what its settings do."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier

from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError
from phenohit.models.forest import Forest, _seed


def screen(n: int = 150, T: int = 3, F: int = 9) -> tuple[Profiles, Labels]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, F)).astype(np.float32)
    row, column = np.nonzero(rng.random((n, T)) < 0.6)
    active = X[:, :T] + rng.standard_normal((n, T)) > 0.8
    Y = sparse.csr_matrix((active[row, column].astype(np.float32), (row, column)), shape=(n, T))
    keys = pd.DataFrame({"compound": [f"C{i}" for i in range(n)]})
    names = [f"t{j}" for j in range(T)]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    data = Profiles(X, keys.rename(columns={"compound": "Metadata_compound"}), [f"f{j}" for j in range(F)])
    return data, Labels(Y, keys, tasks)


def test_scores_equal_a_scikit_learn_forest() -> None:
    data, labels = screen()
    model = Forest(n_trees=50, criterion="entropy", max_features=2.0, min_samples_leaf=2, class_weight="balanced")
    score = model.fit(data, labels, seed=3).predict(data).score
    Y = labels.Y.tocsc()
    for task in range(3):
        part = slice(Y.indptr[task], Y.indptr[task + 1])
        peer = RandomForestClassifier(
            50, criterion="entropy", max_features=6, min_samples_leaf=2, class_weight="balanced",
            random_state=_seed(3, f"t{task}", 0),
        )  # fmt: skip
        peer.fit(data.X[Y.indices[part]], Y.data[part] > 0)
        np.testing.assert_allclose(score[:, task], peer.predict_proba(data.X)[:, 1], atol=1e-6)


def test_parts_of_a_forest_add_up_to_its_trees() -> None:
    data, labels = screen(60, T=1)
    assert len(Forest(n_trees=130).fit(data, labels).trees) == 130
    assert len({_seed(0, "t", 0), _seed(0, "t", 1), _seed(1, "t", 0), _seed(0, "u", 0)}) == 4


def test_cores_change_nothing() -> None:
    data, labels = screen(80)
    one = Forest(n_trees=60).fit(data, labels, seed=1, jobs=1)
    more = Forest(n_trees=60).fit(data, labels, seed=1, jobs=2)
    for name, array in one.trees.arrays().items():
        np.testing.assert_array_equal(array, more.trees.arrays()[name])
    np.testing.assert_array_equal(one.predict(data).score, more.predict(data).score)


def test_task_order_changes_nothing() -> None:
    data, labels = screen(80)
    plain = Forest(n_trees=20).fit(data, labels, seed=1).predict(data, ["t0", "t1", "t2"]).score
    turned = Forest(n_trees=20).fit(data, labels.take_tasks([2, 0, 1]), seed=1)
    np.testing.assert_array_equal(turned.predict(data, ["t0", "t1", "t2"]).score, plain)


def test_more_features_per_split_than_there_are_is_all() -> None:
    data, labels = screen(40, T=1, F=2)
    assert np.isfinite(Forest(n_trees=5, max_features=50.0).fit(data, labels).predict(data).score).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_trees": 0}, "at least 1"),
        ({"criterion": "log_loss"}, "gini"),
        ({"max_features": 0}, "above 0"),
        ({"min_samples_leaf": 0}, "at least 1"),
        ({"class_weight": "even"}, "balanced"),
        ({"ntrees": 5}, "n_trees"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Forest(**wrong)


def test_nothing_is_logged_for_short_work(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Forest(n_trees=5).fit(*screen(30, T=1))
    assert caplog.text == ""
