"""The few labels as one more column: against dense Bayesian regression, and against a planted truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.special import ndtr, ndtri
from sklearn.metrics import roc_auc_score

from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError
from phenohit.fewshot.episodes import Episodes, draw_tasks
from phenohit.fewshot.logistic import Logistic
from phenohit.fewshot.macau import Macau, expectation_propagation
from phenohit.fewshot.macau_latents import Compounds, assay_priors
from phenohit.models.macau import Macau as Factorisation

SHORT: dict[str, Any] = {"latent": 4, "sweeps": 90, "burn_in": 50, "keep": 10, "half": False}


def problem(N: int = 240, T: int = 30, n_tests: int = 3, seed: int = 0) -> tuple[Profiles, Labels, Labels]:
    """Profiles that say nothing; labels of rank 3, 40 % measured. The last 40 compounds have no training label."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, 10)).astype(np.float32)
    hidden = 1.5 * rng.standard_normal((N, 3)) @ rng.standard_normal((3, T + n_tests))
    y = (hidden + rng.standard_normal(hidden.shape) > 0).astype(np.float32)
    measured = rng.random(y.shape) < 0.4
    measured[-40:] = False
    measured[:, T:] = True
    names = [f"C{i:03d}" for i in range(N)]
    data = Profiles(X, pd.DataFrame({"Metadata_compound": names}), [f"f{j}" for j in range(10)])
    return data, labels(names, y, measured, range(T)), labels(names, y, measured, range(T, T + n_tests))


def labels(names: list[str], y: np.ndarray, measured: np.ndarray, columns: range) -> Labels:
    row, column = np.nonzero(measured[:, columns])
    Y = sparse.csr_matrix((y[:, columns][row, column], (row, column)), shape=(len(y), len(columns)))
    tasks = [f"t{j}" for j in columns]
    table = pd.DataFrame({"task": tasks, "assay": tasks, "kind": "binary", "threshold": np.nan})
    return Labels(Y, pd.DataFrame({"compound": names}), table)


def drawn(data: Profiles, tests: Labels, **more: Any) -> list[Episodes]:
    found, lost = draw_tasks(tests, data.compounds, tests.task_names, **{"sizes": [8, 16], "n": 5, "query": 20, **more})
    assert not len(lost)
    return found


@pytest.fixture(scope="module")
def known() -> tuple[Profiles, Labels, Labels]:
    return problem()


@pytest.fixture(scope="module")
def gaussian(known: tuple[Profiles, Labels, Labels]) -> Macau:
    return Macau(**SHORT, likelihood="gaussian").pretrain(known[0], known[1], seed=1)


@pytest.fixture(scope="module")
def probit(known: tuple[Profiles, Labels, Labels]) -> Macau:
    return Macau(**SHORT).pretrain(known[0], known[1], seed=1)


def compounds(method: Macau, data: Profiles) -> tuple[Compounds, Any]:
    assert method.model is not None
    assert method.model.posterior is not None
    priors = assay_priors(method.model.posterior, method.model.seed)
    given, at = method.model.known_labels(data)
    return Compounds.of(method.model.posterior, data.X, given, at, priors, method.model.seed), priors


def test_compounds_are_what_profiles_and_training_labels_say(
    gaussian: Macau, known: tuple[Profiles, Labels, Labels]
) -> None:
    """In closed form, compound after compound."""
    data, train, _ = known
    found, priors = compounds(gaussian, data)
    posterior = gaussian.model.posterior  # pyright: ignore[reportOptionalMemberAccess]
    Y, extra = train.Y.tocsr(), np.zeros((len(posterior.kept), len(data)))
    for d, kept in enumerate(posterior.kept):
        L = np.linalg.inv(kept.factor.astype(float))
        for i in range(len(data)):
            at = slice(Y.indptr[i], Y.indptr[i + 1])
            V, noise = kept.latent[Y.indices[at]].astype(float), kept.variance[Y.indices[at]]
            precision = L @ L.T + V.T @ (V / noise[:, None])
            prior = kept.mean + data.X[i] @ kept.link.astype(float)
            right = L @ L.T @ prior + V.T @ ((Y.data[at] - posterior.offset[Y.indices[at]]) / noise)
            np.testing.assert_allclose(found.mean[d, i], np.linalg.solve(precision, right), atol=2e-4)
            second = np.linalg.inv(priors.precision[d]) + np.outer(priors.mean[d], priors.mean[d])
            extra[d, i] = np.trace(np.linalg.inv(precision) @ second)
    np.testing.assert_allclose(found.extra[:, -40:], extra[:, -40:], rtol=1e-3)  # no labels: exact
    ratio = found.extra[0, :-40] / extra.mean(0)[:-40]  # one draw of each sweep
    assert 0.9 < ratio.mean() < 1.1
    assert ratio.std() < 1


@pytest.mark.parametrize("likelihood", ["gaussian", "probit"])
def test_scores_equal_dense_regression(
    likelihood: str, request: pytest.FixtureRequest, known: tuple[Profiles, Labels, Labels]
) -> None:
    """Episode after episode, sweep after sweep; hidden values by a weighted sample of the prior."""
    data, train, tests = known
    method: Macau = request.getfixturevalue(likelihood)
    found, priors = compounds(method, data)
    some = drawn(data, tests, sizes=[8], n=2)[0]
    (score,) = method.score(data, [some])
    rng, every = np.random.default_rng(0), train.Y.data.mean()
    for e in range(len(some)):
        y, p = some.y_support[e].astype(float), []
        base = (y.sum() + every) / (len(y) + 1)
        for d in range(len(found.mean)):
            S, Q = (
                np.c_[found.mean[d, rows], np.ones(len(rows))].astype(float)
                for rows in (some.support[e], some.query[e])
            )
            s, q = found.extra[d, some.support[e]], found.extra[d, some.query[e]]
            cov = np.zeros((5, 5))
            cov[:4, :4], cov[4, 4] = np.linalg.inv(priors.precision[d]), 1
            if likelihood == "gaussian":
                mean = np.append(priors.mean[d], base)
                noise = priors.variance[d] + s
                gain = cov @ S.T @ np.linalg.inv(S @ cov @ S.T + np.diag(noise))  # the form with observations
                mean, cov = mean + gain @ (y - S @ mean), cov - gain @ S @ cov
                total = priors.variance[d] + q + np.einsum("qk,kl,ql->q", Q, cov, Q)
                p.append(ndtr((Q @ mean - 0.5) / np.sqrt(total)))
            else:
                v = rng.multivariate_normal(np.append(priors.mean[d], ndtri(base)), cov, 40_000)
                weight = ndtr((2 * y - 1) * (v @ S.T) / np.sqrt(1 + s)).prod(1)
                p.append(weight @ ndtr(v @ Q.T / np.sqrt(1 + q)) / weight.sum())
        np.testing.assert_allclose(score[e], np.mean(p, 0), atol=1e-5 if likelihood == "gaussian" else 0.01)


def test_sites_have_settled_after_the_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = torch.from_numpy(2 * rng.standard_normal((50, 96, 9)))
    side = torch.from_numpy(np.sign(rng.standard_normal((50, 96)) + X[..., 0].numpy()))
    noise = torch.from_numpy(1 + rng.random((50, 96)))
    P, first = torch.eye(9, dtype=torch.float64), torch.zeros(50, 9, dtype=torch.float64)
    mean, L = expectation_propagation(X, side, noise, P, first)
    monkeypatch.setattr("phenohit.fewshot.macau._UPDATES", 100)
    settled, _ = expectation_propagation(X, side, noise, P, first)
    spread = torch.cholesky_inverse(L).diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((mean - settled).abs() / spread).max() < 1e-3


def test_other_assays_help_where_profiles_do_not(probit: Macau, known: tuple[Profiles, Labels, Labels]) -> None:
    data, train, tests = known
    some = drawn(data, tests, sizes=[16], n=20)

    def auroc(scores: list[np.ndarray]) -> float:
        pairs = ((y, p) for e, s in zip(some, scores, strict=True) for y, p in zip(e.y_query, s, strict=True))
        return float(np.mean([roc_auc_score(y, p) for y, p in pairs]))

    alone = auroc(Logistic(device="cpu").pretrain(data, train).score(data, some))
    together = probit.score(data, some)
    assert alone < 0.6
    assert auroc(together) > 0.66
    y, p = np.concatenate([e.y_query for e in some]), np.concatenate(together)
    assert abs(y.mean() - p.mean()) < 0.05
    assert ((p - y) ** 2).mean() < 0.22  # 0.25 where all are given a half


def test_labels_of_the_query_and_of_other_episodes_have_no_part(
    probit: Macau, known: tuple[Profiles, Labels, Labels]
) -> None:
    data, _, tests = known
    some = drawn(data, tests)
    before = probit.score(data, some)
    changed = [dataclasses.replace(e, y_query=~e.y_query) for e in some]
    flipped = changed[0].y_support.copy()
    flipped[0] = ~flipped[0]
    changed[0] = dataclasses.replace(changed[0], y_support=flipped)
    after = probit.score(data, changed)
    assert not np.allclose(before[0][0], after[0][0], atol=0.05)
    np.testing.assert_allclose(before[0][1:], after[0][1:], atol=1e-6)
    for a, b in zip(before[1:], after[1:], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_without_a_task_of_two_classes_the_share_remains(known: tuple[Profiles, Labels, Labels]) -> None:
    data, train, tests = known
    method = Macau(**SHORT).pretrain(data, train.take_tasks([]))
    (score,) = method.score(data, drawn(data, tests, sizes=[8])[:1])
    assert len(np.unique(score)) == 1


def test_files_and_mistakes(probit: Macau, known: tuple[Profiles, Labels, Labels], tmp_path: Path) -> None:
    data, train, tests = known
    probit.save(tmp_path)
    again, some = Macau.load(tmp_path), drawn(data, tests)
    assert again.settings == probit.settings
    for a, b in zip(probit.score(data, some), again.score(data, some), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    with pytest.raises(ConfigError, match="assay_features"):
        Macau(assay_features="assays.csv")
    values = dataclasses.replace(train, tasks=train.tasks.assign(kind="value"))
    Factorisation(latent=2, sweeps=3, burn_in=1, keep=1).fit(data, values).save(tmp_path)
    with pytest.raises(FileError, match="factorisation of values"):
        Macau.load(tmp_path)
