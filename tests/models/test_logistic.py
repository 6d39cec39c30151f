"""The minimum found agrees with scikit-learn's and has no gradient."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.models.logistic import Logistic, _minimum


@pytest.mark.parametrize(("n", "F"), [(80, 3), (40, 120), (60, 60)])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_the_gradient_vanishes(n: int, F: int, C: float) -> None:
    rng = np.random.default_rng(n)
    X = rng.standard_normal((n, F)).astype(np.float32)
    y = (X[:, 0] + rng.standard_normal(n) > 0.5).astype(float)
    w = _minimum(X, np.arange(n), y, C)
    residual = expit(X @ w[:-1] + w[-1]) - y
    np.testing.assert_allclose(w[:-1] + C * (X.T.astype(float) @ residual), 0, atol=1e-4)
    np.testing.assert_allclose(residual.sum(), 0, atol=1e-5)


def test_coefficients_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 5)).astype(np.float32)
    y = (X[:, 0] - X[:, 1] + rng.standard_normal(200) > 1).astype(float)
    peer = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(X.astype(float), y)
    ours = _minimum(X, np.arange(200), y, 0.5)
    np.testing.assert_allclose(ours, np.append(peer.coef_[0], peer.intercept_), rtol=1e-4, atol=1e-5)


def test_separable_classes_have_a_minimum() -> None:
    X = np.linspace(-1, 1, 20, dtype=np.float32)[:, None] * 1e3
    y = (X[:, 0] > 0).astype(float)
    w = _minimum(X, np.arange(20), y, 1e4)
    assert np.isfinite(w).all()
    assert w[0] > 0


def test_many_assays_with_one_feature_are_quick() -> None:
    rng = np.random.default_rng(0)
    N, T = 4000, 400
    keys = pd.DataFrame({"compound": [f"C{i}" for i in range(N)]})
    Y = sparse.random(N, T, density=0.05, format="csr", rng=rng, dtype=np.float32)
    Y.data = (rng.random(Y.nnz) < 0.2).astype(np.float32)
    names = [f"t{j}" for j in range(T)]
    labels = Labels(Y, keys, pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan}))
    X = rng.standard_normal((N, 1)).astype(np.float32)
    data = Profiles(X, keys.rename(columns={"compound": "Metadata_compound"}), ["cell count"])
    start = time.process_time()
    score = Logistic().fit(data, labels).predict(data).score
    assert time.process_time() - start < 5  # a quarter of a second on an idle core
    assert score.shape == (N, T)
