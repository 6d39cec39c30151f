"""The minimum of every episode is scikit-learn's, and so is the penalty that is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError
from phenohit.fewshot.episodes import Episodes
from phenohit.fewshot.logistic import Logistic, fit_spans
from phenohit.fewshot.simple import stratified_folds

GRID = [0.01, 0.1, 1.0, 10.0, 100.0]


def problem(F: int, M: int, *, E: int = 6, seed: int = 0, active: int | None = None) -> tuple[Profiles, Episodes]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((300, F)).astype(np.float32)
    truth = X[:, : max(F // 4, 1)].sum(1) + rng.standard_normal(300) > 0
    rows, Q = [], 12
    for _ in range(E):
        on, off = (rng.permutation(np.flatnonzero(truth == side)) for side in (True, False))
        a = M // 2 if active is None else active
        support = rng.permutation(np.r_[on[:a], off[: M - a]])
        rows.append((support, np.r_[on[a : a + Q // 2], off[M - a : M - a + Q // 2]]))
    support, query = (np.stack(part) for part in zip(*rows, strict=True))
    data = Profiles(X, pd.DataFrame({"Metadata_compound": [f"C{i}" for i in range(300)]}), [f"f{j}" for j in range(F)])
    return data, Episodes("t", support, query, truth[support], truth[query])


def learned(data: Profiles, **settings: Any) -> Logistic:
    tasks = pd.DataFrame({"task": [], "assay": [], "kind": [], "threshold": []})
    none = sparse.csr_matrix((len(data), 0), dtype=np.float32)
    return Logistic(**settings).pretrain(data, Labels(none, pd.DataFrame({"compound": data.compounds}), tasks))


def peer(X: np.ndarray, y: np.ndarray, C: float) -> LogisticRegression:
    return LogisticRegression(C=C, tol=1e-12, max_iter=1000, solver="newton-cholesky").fit(X, y)


@pytest.mark.parametrize(("F", "M"), [(3, 32), (60, 8), (60, 33), (200, 64)])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_probabilities_equal_scikit_learn(F: int, M: int, C: float) -> None:
    data, some = problem(F, M, E=4)
    (score,) = learned(data, C=[C]).score(data, [some])
    X = data.X.astype(float)
    for e in range(len(some)):
        expected = peer(X[some.support[e]], some.y_support[e], C).predict_proba(X[some.query[e]])[:, 1]
        np.testing.assert_allclose(score[e], expected, atol=2e-6)


@pytest.mark.parametrize(("F", "M"), [(4, 24), (30, 8), (30, 40)])
def test_the_penalty_is_that_of_a_grid_search(F: int, M: int) -> None:
    data, some = problem(F, M, seed=1)
    (score,) = learned(data).score(data, [some])
    folds = stratified_folds(some.y_support, 5)
    X, chosen = data.X.astype(float), set()
    for e in range(len(some)):
        cuts = [(np.flatnonzero(folds[e] != f), np.flatnonzero(folds[e] == f)) for f in range(folds[e].max() + 1)]
        model = LogisticRegression(tol=1e-12, max_iter=1000, solver="newton-cholesky")
        search = GridSearchCV(model, {"C": GRID}, scoring="neg_log_loss", cv=cuts)
        search.fit(X[some.support[e]], some.y_support[e])
        chosen.add(search.best_params_["C"])
        np.testing.assert_allclose(score[e], search.predict_proba(X[some.query[e]])[:, 1], atol=2e-6)
    assert len(chosen) > 1  # else the test says nothing


def test_one_active_gets_the_smallest_C() -> None:
    data, some = problem(10, 16, active=1)
    np.testing.assert_array_equal(
        learned(data, C=[10.0, 0.1, 1.0]).score(data, [some])[0], learned(data, C=[0.1]).score(data, [some])[0]
    )


@pytest.mark.parametrize("C", [1.0, 1e4, 1e8])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_separable_classes_have_a_minimum(C: float, scale: float) -> None:
    rng = np.random.default_rng(0)
    X = scale * rng.standard_normal((5, 20, 40))
    y = torch.from_numpy((np.arange(20) % 2 == 0).astype(float)).expand(5, 20).clone()
    K = torch.from_numpy(X @ X.transpose(0, 2, 1))
    a, b = fit_spans(K, y, torch.ones_like(y), torch.full((5,), C, dtype=torch.float64))
    eta = (K @ a[:, :, None])[:, :, 0] + b[:, None]
    assert torch.isfinite(eta).all()
    assert ((eta > 0) == (y > 0.5)).all()
    pull = C * (2 * y - 1) * torch.sigmoid((1 - 2 * y) * eta)  # y - p, with all its digits
    torch.testing.assert_close(a, pull, rtol=1e-3, atol=1e-3 * float(a.abs().max()))


def test_what_is_held_out_has_no_influence() -> None:
    data, some = problem(12, 20)
    S = torch.from_numpy(data.X[some.support]).double()
    K, y = S @ S.mT, torch.from_numpy(some.y_support).double()
    w = torch.ones_like(y)
    w[:, ::4] = 0
    C = torch.full((len(y),), 5.0, dtype=torch.float64)
    a, b = fit_spans(K, y, w, C)
    flipped = torch.where(w > 0, y, 1 - y)
    a_again, b_again = fit_spans(K, flipped, w, C)
    torch.testing.assert_close(a, a_again)
    torch.testing.assert_close(b, b_again)
    assert (a[:, ::4] == 0).all()


def test_impossible_settings() -> None:
    for settings in ({"C": []}, {"C": [0.0]}, {"C": ["1"]}, {"folds": 1}, {"device": "gpu"}):
        with pytest.raises(ConfigError):
            Logistic(**settings)
