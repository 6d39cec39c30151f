"""The active share, the vote of neighbours, and the batches that other methods use too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import phenohit.fewshot.simple as simple
from phenohit.data.labels import Labels
from phenohit.data.matrix import RowMatrix
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, RunError, ShapeError
from phenohit.fewshot.episodes import Episodes
from phenohit.fewshot.simple import Neighbours, Rate, stratified_folds


def profiles(X: np.ndarray | RowMatrix) -> Profiles:
    rows = pd.DataFrame({"Metadata_compound": [f"C{i:03d}" for i in range(len(X))]})
    return Profiles(X, rows, [f"f{j}" for j in range(X.shape[1])])


def no_labels(data: Profiles) -> Labels:
    tasks = pd.DataFrame({"task": [], "assay": [], "kind": [], "threshold": []})
    return Labels(
        sparse.csr_matrix((len(data), 0), dtype=np.float32), pd.DataFrame({"compound": data.compounds}), tasks
    )


def episodes(N: int, E: int = 6, M: int = 9, Q: int = 5, seed: int = 0) -> Episodes:
    rng = np.random.default_rng(seed)
    at = np.stack([rng.permutation(N)[: M + Q] for _ in range(E)])
    y = np.tile(np.arange(M + Q) % 3 == 0, (E, 1))
    return Episodes("t", at[:, :M], at[:, M:], y[:, :M], y[:, M:])


def numbers(N: int = 40, F: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((N, F)).astype(np.float32)


def bits(N: int = 40, F: int = 24, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((N, F)) < 0.4).astype(np.float32)


def test_rate_is_laplaces_rule() -> None:
    data, some = profiles(numbers()), episodes(40)
    (score,) = Rate().pretrain(data, no_labels(data)).score(data, [some])
    np.testing.assert_allclose(score, 4 / 11)  # 3 of 9 active


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "tanimoto"])
@pytest.mark.parametrize("k", [1, 4, 50])
def test_neighbours_equal_a_plain_loop(distance: str, k: int) -> None:
    X = bits() if distance == "tanimoto" else numbers()
    data, some = profiles(X), episodes(40)
    (score,) = Neighbours(k=k, distance=distance, prior=0.5).pretrain(data, no_labels(data)).score(data, [some])
    for e in range(len(some)):
        for q, row in enumerate(some.query[e]):
            x, S = X[row].astype(float), X[some.support[e]].astype(float)
            if distance == "cosine":
                near = np.maximum(S @ x / np.linalg.norm(S, axis=1) / np.linalg.norm(x), 0)
            elif distance == "euclidean":
                apart = np.linalg.norm(S - x, axis=1)
                near = 1 / (1 + apart / apart.mean())
            else:
                near = np.minimum(S, x).sum(1) / np.maximum(S, x).sum(1)
            best = np.argsort(-near, kind="stable")[:k]
            if k < len(near) and np.isclose(near[best[-1]], np.sort(near)[-k - 1]):
                continue  # a tie at the border: either is right
            expected = ((near * some.y_support[e])[best].sum() + 0.5 * 4 / 11) / (near[best].sum() + 0.5)
            np.testing.assert_allclose(score[e, q], expected, rtol=1e-4)


def test_fingerprints_are_told_by_their_bits_packed_or_not() -> None:
    X, some = bits(), episodes(40)
    data = profiles(X)
    method = Neighbours().pretrain(data, no_labels(data))
    auto = method.score(data, [some])[0]
    np.testing.assert_array_equal(
        auto, Neighbours(distance="tanimoto").pretrain(data, no_labels(data)).score(data, [some])[0]
    )
    packed = profiles(RowMatrix(np.packbits(X.astype(bool), axis=1)))
    np.testing.assert_array_equal(auto, method.score(packed, [some])[0])
    assert not np.allclose(auto, Neighbours(distance="cosine").pretrain(data, no_labels(data)).score(data, [some])[0])


def test_tanimoto_of_other_features_is_refused() -> None:
    data = profiles(numbers())
    with pytest.raises(ConfigError, match="tanimoto, but the features are not all 0 or 1"):
        Neighbours(distance="tanimoto").pretrain(data, no_labels(data)).score(data, [episodes(40)])


def test_a_query_like_nothing_gets_the_share() -> None:
    X = np.eye(40, dtype=np.float32)  # all at right angles
    data, some = profiles(X), episodes(40)
    (score,) = Neighbours().pretrain(data, no_labels(data)).score(data, [some])
    np.testing.assert_allclose(score, 4 / 11, rtol=1e-6)


def test_batches_of_any_length_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = profiles(numbers())
    several = [
        episodes(40, seed=1),
        episodes(40, M=6, seed=2),
        episodes(40, E=3, seed=3),
        episodes(40, seed=4).take(slice(0, 0)),
    ]
    method = Neighbours(k=3).pretrain(data, no_labels(data))
    whole = method.score(data, several)
    monkeypatch.setattr(simple, "_BYTES", 1)
    for a, b, e in zip(whole, method.score(data, several), several, strict=True):
        assert a.shape == e.query.shape
        np.testing.assert_allclose(a, b, rtol=1e-6)
    for a, e in zip(whole, several, strict=True):
        np.testing.assert_allclose(a, method.score(data, [e])[0], rtol=1e-6)


@pytest.mark.parametrize(("active", "size", "folds"), [(4, 8, 3), (8, 16, 5), (3, 16, 3), (1, 16, 0), (48, 96, 5)])
def test_folds_are_stratified(active: int, size: int, folds: int) -> None:
    y = np.random.default_rng(0).permuted(np.tile(np.arange(size) < active, (5, 1)), axis=1)
    fold = stratified_folds(y, 5)
    if not folds:
        assert (fold == -1).all()
        return
    for of, label in zip(fold, y, strict=True):
        assert set(of) == set(range(folds))
        for part in (of[label], of[~label], of):
            counts = np.bincount(part, minlength=folds)
            assert counts.max() - counts.min() <= 1
            assert counts.min() >= 1


def test_files_and_mistakes(tmp_path: Path) -> None:
    data, some = profiles(numbers()), episodes(40)
    with pytest.raises(RunError):
        Neighbours().score(data, [some])
    with pytest.raises(ConfigError, match="no setting 'neighbors'"):
        Neighbours(neighbors=3)
    with pytest.raises(ConfigError, match="at least 1"):
        Neighbours(k=0)
    method = Neighbours(k=2).pretrain(data, no_labels(data))
    method.save(tmp_path)
    again = Neighbours.load(tmp_path)
    assert again.settings == method.settings
    np.testing.assert_array_equal(again.score(data, [some])[0], method.score(data, [some])[0])
    with pytest.raises(ShapeError, match="features"):
        again.score(profiles(numbers(F=6)), [some])
    with pytest.raises(FileError, match="few-shot neighbours, not: few-shot rate"):
        Rate.load(tmp_path / "neighbours.safetensors")
