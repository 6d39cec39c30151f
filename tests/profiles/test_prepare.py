"""Preparation of features: fitted on training rows, checked against plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, ShapeError
from phenohit.profiles.prepare import Prepare


def profiles(X: np.ndarray, features: list[str] | None = None) -> Profiles:
    rows = pd.DataFrame({"Metadata_compound": [f"C{i}" for i in range(len(X))]})
    return Profiles(np.asarray(X, dtype=np.float32), rows, features or [f"f{j}" for j in range(X.shape[1])])


def noise(n: int, F: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, F)).astype(np.float32)


def by_hand(X: np.ndarray, limit: float) -> list[int]:
    """Columns kept when the later of every too similar pair goes; plain float64 correlations."""
    r = np.corrcoef(X.astype(np.float64), rowvar=False)
    kept: list[int] = []
    for j in range(X.shape[1]):
        if not any(abs(r[i, j]) > limit for i in kept):
            kept.append(j)
    return kept


def test_training_columns_get_mean_0_and_deviation_1() -> None:
    X = noise(5000, 6) * np.array([1e-6, 1, 50, 1e4, 1, 3]) + np.array([0, 0, 1e4, -1e6, 3, 1])
    data = profiles(X)
    out = Prepare.fit(data).apply(data)
    np.testing.assert_allclose(out.X.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(out.X.std(axis=0, dtype=np.float64), 1, atol=1e-6)
    assert out.history == ("select[fold]", "standardise[fold]")


def test_other_rows_use_the_numbers_of_the_training_rows() -> None:
    train, test = noise(50, 3), noise(20, 3, seed=1) * 5 + 2
    out = Prepare.fit(profiles(train), scope="all").apply(profiles(test))
    expected = (test - train.mean(axis=0, dtype=np.float64)) / train.std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(out.X, expected, rtol=1e-5, atol=1e-6)
    assert out.history[-1] == "standardise[all]"


def test_constants_and_gappy_features_are_dropped_with_reasons() -> None:
    X = noise(100, 5)
    X[:, 1] = 3.25
    X[:6, 2] = np.nan
    X[:, 3] = np.nan
    X[:3, 4] = np.inf
    fitted = Prepare.fit(profiles(X), max_missing=0.05)
    assert fitted.apply(profiles(X)).features == ["f0", "f4"]
    reasons = dict(zip(fitted.dropped["id"], fitted.dropped["reason"], strict=True))
    assert reasons == {
        "f1": "constant in the training rows",
        "f2": "6 of 100 values missing",
        "f3": "100 of 100 values missing",
    }
    assert set(fitted.dropped["stage"]) == {"prepare[fold]"}


def test_a_feature_constant_but_for_gaps_is_dropped() -> None:
    X = noise(50, 2)
    X[:, 0] = 7
    X[:2, 0] = np.nan
    assert Prepare.fit(profiles(X)).apply(profiles(X)).features == ["f1"]


def test_gaps_become_the_training_median() -> None:
    train = noise(101, 2)
    train[:4, 0] = [np.nan, np.inf, -np.inf, np.nan]
    fitted = Prepare.fit(profiles(train), scale=False, prune=False)
    test = profiles(np.array([[np.nan, 1.0], [np.inf, np.nan]], dtype=np.float32))
    out = fitted.apply(test)
    medians = [np.median(train[4:, 0]), np.median(train[:, 1])]
    np.testing.assert_array_equal(out.X, np.float32([[medians[0], 1.0], [medians[0], medians[1]]]))
    assert out.history == ("select[fold]",)


def test_clip_limits_raw_values_before_anything_else() -> None:
    train = np.array([[-100.0, 1], [1, 2], [2, 3], [1000, 4]])
    fitted = Prepare.fit(profiles(train), clip=50, prune=False)
    clipped = np.array([-50.0, 1, 2, 50])
    assert fitted.mean[0] == clipped.mean()
    out = fitted.apply(profiles(np.array([[np.inf, 0.0]])))
    np.testing.assert_allclose(out.X[0, 0], (50 - clipped.mean()) / clipped.std(), rtol=1e-6)


@pytest.mark.parametrize("n", [30, 5000])
def test_pruning_agrees_with_plain_correlations(n: int) -> None:
    base = noise(n, 12, seed=3)
    mix = np.random.default_rng(4).uniform(0, 1, 24)[:, None]
    copies = mix.T * base[:, np.arange(24) % 12] + (1 - mix.T) * 0.5 * noise(n, 24, seed=5)
    X = np.column_stack([base, copies, -3 * base[:, :2] + 1e4]).astype(np.float32)
    X = X[:, np.random.default_rng(6).permutation(X.shape[1])]
    for limit in (0.5, 0.9, 0.95, 0.99):
        kept = Prepare.fit(profiles(X), max_correlation=limit).kept.tolist()
        assert kept == by_hand(X, limit)
        assert len(kept) < X.shape[1]


def test_pairs_at_the_limit_are_decided_in_double_precision() -> None:
    a = noise(4000, 1, seed=7)[:, 0].astype(np.float64)
    b = noise(4000, 1, seed=8)[:, 0].astype(np.float64)
    pair = np.column_stack([a, 0.95 * a + 0.3 * b]).astype(np.float32)
    r = np.corrcoef(pair.astype(np.float64), rowvar=False)[0, 1]
    for offset, dropped in ((1e-7, 0), (-1e-7, 1)):
        assert len(Prepare.fit(profiles(pair), max_correlation=r + offset).dropped) == dropped


def test_a_dropped_feature_does_not_drop_others() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4000))
    X = np.column_stack([a, a + 0.35 * b, a + 0.7 * b])  # neighbours at 0.94 and more, the ends at 0.82
    fitted = Prepare.fit(profiles(X), max_correlation=0.9)
    assert fitted.apply(profiles(X)).features == ["f0", "f2"]
    assert fitted.dropped["reason"].tolist() == [f"r = {np.corrcoef(X[:, 0], X[:, 1])[0, 1]:.3f} with f0"]


def test_a_limit_of_1_drops_nothing() -> None:
    X = noise(40, 1)
    data = profiles(np.column_stack([X, X, -X]))
    assert len(Prepare.fit(data, max_correlation=1.0).kept) == 3
    assert len(Prepare.fit(data, prune=False).kept) == 3
    assert len(Prepare.fit(data).kept) == 1


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(0, 5)), elements=st.floats(width=32)),
    st.booleans(),
    st.sampled_from([None, 5.0]),
)
def test_whatever_comes_in_what_comes_out_is_finite(X: np.ndarray, scale: bool, clip: float | None) -> None:
    data = profiles(X)
    with np.errstate(all="raise", under="ignore"):
        fitted = Prepare.fit(data, scale=scale, clip=clip, max_missing=0.5)
        out = fitted.apply(data)
        again = fitted.apply(profiles(np.full((2, X.shape[1]), np.float32(3e38))))
    assert np.isfinite(out.X).all()
    assert np.isfinite(again.X).all()
    assert len(out.features) + len(fitted.dropped) == X.shape[1]
    assert sorted([*out.features, *fitted.dropped["id"]]) == sorted(data.features)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_applying_never_changes_the_fit_and_treats_rows_alone(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    train = profiles(rng.standard_normal((30, 5)))
    fitted = Prepare.fit(train)
    before = [a.copy() for a in (fitted.kept, fitted.median, fitted.mean, fitted.sd)]
    X = (rng.standard_normal((n, 5)) * 1e3).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    whole = fitted.apply(profiles(X)).X
    one_by_one = [fitted.apply(profiles(X[[i]])).X[0] for i in range(n)]
    np.testing.assert_array_equal(whole, np.array(one_by_one))
    for a, b in zip(before, (fitted.kept, fitted.median, fitted.mean, fitted.sd), strict=True):
        np.testing.assert_array_equal(a, b)


def test_loaded_is_the_same(tmp_path: Path) -> None:
    X = noise(60, 6)
    X[:, 1], X[:, 2], X[3, 4] = 1, X[:, 0], np.nan
    fitted = Prepare.fit(profiles(X), clip=2.0)
    fitted.save(tmp_path / "prepare.safetensors")
    again = Prepare.load(tmp_path / "prepare.safetensors")
    np.testing.assert_array_equal(again.apply(profiles(X)).X, fitted.apply(profiles(X)).X)
    assert again.apply(profiles(X)).features == ["f0", "f3", "f4", "f5"]
    pd.testing.assert_frame_equal(again.dropped, fitted.dropped)
    nothing = Prepare.fit(profiles(noise(20, 3)))
    nothing.save(tmp_path / "nothing.safetensors")
    pd.testing.assert_frame_equal(Prepare.load(tmp_path / "nothing.safetensors").dropped, nothing.dropped)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prepare.safetensors"
    fitted = Prepare.fit(profiles(noise(20, 3)))
    fitted.save(path)
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError, match="cannot be read"):
            Prepare.load(path)
    fitted.kept[0] = 5
    fitted.save(path)
    with pytest.raises(FileError, match="damaged"):
        Prepare.load(path)


def test_wrong_features_and_limits_are_refused() -> None:
    data = profiles(noise(20, 3))
    fitted = Prepare.fit(data)
    with pytest.raises(ShapeError, match="missing: 'f2'"):
        fitted.apply(profiles(noise(4, 2)))
    with pytest.raises(ShapeError, match="another order"):
        fitted.apply(profiles(noise(4, 3), ["f2", "f1", "f0"]))
    with pytest.raises(ShapeError, match="no training rows"):
        Prepare.fit(data.take(np.arange(0)))
    for limits in ({"max_correlation": 1.5}, {"max_missing": -0.1}, {"clip": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(limits))):
            Prepare.fit(data, **limits)


def test_a_common_scale_keeps_the_weight_of_bits():
    rng = np.random.default_rng(0)
    X = (rng.random((200, 6)) < np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.02])).astype(np.float32)
    rows = pd.DataFrame({"Metadata_compound": [f"C{i}" for i in range(200)]})
    bits = Profiles(X, rows, [f"b{i}" for i in range(6)])
    scaled = Prepare.fit(bits, prune=False, common=True).apply(bits).X
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.sqrt((scaled.std(axis=0) ** 2).mean()), 1, rtol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0) / X.std(axis=0), 1 / np.sqrt(X.var(axis=0).mean()), rtol=1e-4)
