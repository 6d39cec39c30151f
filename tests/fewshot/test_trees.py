"""Forests and boosted trees of episodes equal those that the libraries grow one by one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

import phenohit.fewshot.trees as trees
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError
from phenohit.fewshot.episodes import Episodes, draw_episodes
from phenohit.fewshot.trees import Forest, XGBoost


def problem(n: int = 4, size: int = 16, F: int = 6) -> tuple[Profiles, Episodes]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, F)).astype(np.float32)
    y = X[:, 0] + 0.3 * rng.standard_normal(120) > 0
    names = np.array([f"C{i:03d}" for i in range(120)], object)
    (found,), _ = draw_episodes("t", np.arange(120), y, names, sizes=[size], query=20, n=n)
    return Profiles(X, pd.DataFrame({"Metadata_compound": names}), [f"f{j}" for j in range(F)]), found


def learned(method: Any, data: Profiles) -> Any:
    tasks = pd.DataFrame({"task": [], "assay": [], "kind": [], "threshold": []})
    none = sparse.csr_matrix((len(data), 0), dtype=np.float32)
    return method.pretrain(data, Labels(none, pd.DataFrame({"compound": data.compounds}), tasks))


def auroc(score: np.ndarray, some: Episodes) -> float:
    return float(np.mean([roc_auc_score(y, p) for y, p in zip(some.y_query, score, strict=True)]))


def test_forest_equals_scikit_learn() -> None:
    data, some = problem()
    (score,) = learned(Forest(n_trees=7, min_samples_leaf=2), data).score(data, [some], seed=3)
    for e in range(len(some)):
        peer = RandomForestClassifier(7, min_samples_leaf=2, random_state=trees._seed(3, some, e))
        p = peer.fit(data.X[some.support[e]], some.y_support[e]).predict_proba(data.X[some.query[e]])[:, 1]
        np.testing.assert_allclose(score[e], (7 * p + some.y_support[e].mean()) / 8, rtol=1e-5)


@pytest.mark.parametrize("method", [Forest(n_trees=20), XGBoost(n_trees=20)])
def test_trees_find_the_feature_and_another_seed_gives_other_trees(method: Any) -> None:
    data, some = problem(size=48)
    learned(method, data)
    one, same, other = (method.score(data, [some], seed=seed)[0] for seed in (0, 0, 1))
    assert auroc(one, some) > 0.85
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_several_processes_give_the_same() -> None:
    data, some = problem(n=20)
    method = learned(Forest(n_trees=3), data)
    np.testing.assert_array_equal(method.score(data, [some], jobs=2)[0], method.score(data, [some])[0])


def test_eight_compounds_can_be_split() -> None:
    """With xgboost's own least weight of a leaf, 1, that is hardly possible: the published AUROC at 8 is 0.505."""
    data, some = problem(n=12, size=8)
    ours = learned(XGBoost(), data).score(data, [some])[0]
    assert auroc(ours, some) > 0.6
    assert all(len(np.unique(row)) > 2 for row in ours)
    stuck = learned(XGBoost(min_child_weight=2.1), data).score(data, [some])[0]
    assert all(len(np.unique(row)) == 1 for row in stuck)


def test_the_search_takes_what_predicts_best(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[dict[str, Any]] = []

    def boost(s: Any, chosen: dict[str, Any], S: Any, y: Any, Q: Any, seed: int) -> np.ndarray:
        tried.append(chosen)
        return np.full(len(Q), 0.5 if chosen["learning_rate"] == 0.2 else 0.999)

    monkeypatch.setattr(trees, "_boost", boost)
    y = np.arange(16) % 2 == 0
    found = trees._search(XGBoost(search=40).settings, np.zeros((16, 2)), y, 0)
    assert found["learning_rate"] == 0.2
    assert len(tried) == 40 * 5
    assert {c["max_depth"] for c in tried} == {1, 3, 5, 7, 9}


def test_the_published_preset_runs() -> None:
    data, some = problem(n=1)
    method = XGBoost(preset="fslcp", search=2)
    assert method.settings.min_child_weight == 1
    assert XGBoost(preset="fslcp").settings.search == 10
    (score,) = learned(method, data).score(data, [some])
    assert ((score > 0) & (score < 1)).all()


def test_impossible_settings() -> None:
    for kind, settings in ((Forest, {"n_trees": 0}), (XGBoost, {"subsample": 0.0}), (XGBoost, {"search": -1})):
        with pytest.raises(ConfigError):
            kind(**settings)


def test_without_xgboost_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(ConfigError, match="not installed"):
        XGBoost()


def test_xgboost_is_not_imported_before_it_is_asked_for() -> None:
    code = "import sys, phenohit.fewshot.trees; sys.exit('xgboost' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
