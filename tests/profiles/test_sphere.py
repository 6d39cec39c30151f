from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from phenohit.config import Step
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, FileError, PlateError, ShapeError
from phenohit.profiles import controls as blocks
from phenohit.profiles.normalise import normalise
from phenohit.profiles.sphere import METHODS, Sphere
from phenohit.profiles.verbs import pycytominer


def screen(n=300, F=7, controls=200, seed=0, batches=1) -> Profiles:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(F, F))
    X = (rng.normal(size=(n, F)) @ mix + rng.normal(size=F)).astype(np.float32)
    order = rng.permutation(n)
    rows = pd.DataFrame(
        {
            "Metadata_Plate": "P",
            "Metadata_Well": [f"W{i}" for i in range(n)],
            "Metadata_Batch": [f"b{i % batches}" for i in range(n)],
            "Metadata_pert_type": np.where(order < controls, "negcon", "trt"),
        }
    )
    return Profiles(X, rows.astype(str), [f"Cells_{j}" for j in range(F)])


def by_pycytominer(given: Profiles, method: str, epsilon: float) -> np.ndarray:
    frame = pd.concat([given.rows, pd.DataFrame(given.X.astype(np.float64), columns=given.features)], axis=1)
    out = pycytominer().normalize(
        frame, features=given.features, meta_features=list(given.rows), samples="Metadata_pert_type == 'negcon'",
        method="spherize", spherize_method=method, spherize_epsilon=epsilon,
    )  # fmt: skip
    return out.iloc[:, len(given.rows.columns) :].to_numpy()


def with_X(given: Profiles, X) -> Profiles:
    return Profiles(np.asarray(X, dtype=np.float32), given.rows, given.features)


def is_control(given: Profiles) -> np.ndarray:
    return (given.rows["Metadata_pert_type"] == "negcon").to_numpy()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("controls", [200, 7, 5])
@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_same_as_pycytominer(method, controls, epsilon):
    given = screen(controls=controls)
    out, lost = Sphere.fit(given, Step("sphere", method, epsilon=epsilon)).apply(given)
    expected = by_pycytominer(given, method, epsilon)
    if method.startswith("PCA"):  # the sign of a component is free, and beyond the rank its direction
        span = 7 if controls == 200 else controls - 1
        expected, got = np.abs(expected)[:, :span], np.abs(out.X)[:, :span]
    else:
        got = out.X
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-4)
    assert lost.empty
    assert out.history == (f"sphere {method}[all, negcon]",)


@pytest.mark.parametrize("method", METHODS)
def test_controls_become_uncorrelated(method, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 16)
    given = screen()
    out, _ = Sphere.fit(given, Step("sphere", method, epsilon=0)).apply(given)
    np.testing.assert_allclose(np.cov(out.X[is_control(given)].T), np.eye(7), atol=1e-4)


def test_each_batch_by_its_own_controls():
    given = screen(batches=2)
    out, _ = Sphere.fit(given, Step("sphere", by="batch")).apply(given)
    for batch in ("b0", "b1"):
        part = (given.rows["Metadata_Batch"] == batch).to_numpy()
        expected = by_pycytominer(given.take(part), "ZCA-cor", 1e-6)
        np.testing.assert_allclose(out.X[part], expected, rtol=1e-4, atol=1e-4)
    other = Profiles(given.X, given.rows.assign(Metadata_Batch="b9"), given.features)
    with pytest.raises(PlateError, match=r"'b0', 'b1', not for 'b9'"):
        Sphere.fit(given, Step("sphere", by="batch")).apply(other)


def test_constant_and_redundant_features_go_first():
    given = screen()
    X = given.X.copy()
    X[:, 1] = np.where(is_control(given), 3.0, X[:, 1])
    X[:, 4] = X[:, 2] + 2 * X[:, 3]
    out, lost = Sphere.fit(with_X(given, X), Step("sphere")).apply(with_X(given, X))
    reasons = dict(zip(lost["id"], lost["reason"], strict=True))
    assert reasons.pop("Cells_1") == "no spread among the controls"
    assert len(reasons) == 1
    assert set(reasons) < {"Cells_2", "Cells_3", "Cells_4"}
    assert set(reasons.values()) == {"follows linearly from other features among the controls"}
    assert len(out.features) == 5
    kept = [given.features.index(f) for f in out.features]
    part = Profiles(X[:, kept], given.rows, out.features)
    np.testing.assert_allclose(out.X, by_pycytominer(part, "ZCA-cor", 1e-6), rtol=1e-4, atol=1e-4)


def test_gaps_are_filled_or_dropped_and_listed():
    given = screen()
    X = given.X.copy()
    X[:60, 0] = np.nan  # a fifth of the wells: the feature goes
    X[100:103, 1] = np.nan  # few: filled
    X[200, 1:] = np.nan  # a well without most features
    given = with_X(given, X)
    out, lost = Sphere.fit(given, Step("sphere")).apply(given)
    assert len(out) == 299
    assert np.isfinite(out.X).all()
    table = {row.id: row.reason for row in lost.itertuples()}
    assert table["Cells_0"] == "missing in 60 of 299 wells"
    assert table["Cells_1"] == "3 missing values were set to the controls' mean; the feature is kept"
    assert table["P W200"] == "more than half of its features missing"


def test_few_controls_are_warned_about(caplog):
    given = screen(controls=5)
    with caplog.at_level(logging.WARNING, logger="phenohit"):
        Sphere.fit(given, Step("sphere"))
    assert "5 controls for 7 features" in caplog.text


def test_rounding_is_not_blown_up():
    """Centred plate by plate, 12 controls span 9 directions, and float32 rounding all others."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60, 20)).astype(np.float32)
    rows = pd.DataFrame(
        {"Metadata_Plate": np.repeat(["a", "b", "c"], 20), "Metadata_Well": [f"W{i}" for i in range(60)]}
    )
    rows["Metadata_pert_type"] = np.where(np.arange(60) % 20 < 4, "negcon", "trt")
    given, _ = normalise(
        Profiles(X, rows.astype(str), [f"Cells_{j}" for j in range(20)]), Step("normalise", "standardize")
    )
    out, _ = Sphere.fit(given, Step("sphere")).apply(given)
    assert np.abs(out.X).max() < 1000
    assert np.abs(by_pycytominer(given, "ZCA-cor", 1e-6)).max() > 10_000  # what happens unguarded


def test_saved_and_loaded(tmp_path):
    given = screen()
    fitted = Sphere.fit(given, Step("sphere"))
    fitted.save(tmp_path / "s.safetensors")
    again = Sphere.load(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(again.apply(given)[0].X, fitted.apply(given)[0].X)
    (tmp_path / "t.safetensors").write_bytes(b"no")
    with pytest.raises(FileError):
        Sphere.load(tmp_path / "t.safetensors")


def test_mistakes():
    given = screen()
    with pytest.raises(ConfigError, match=r"Nearest: ZCA-cor"):
        Sphere.fit(given, Step("sphere", "ZCAcor"))
    with pytest.raises(ConfigError, match="too few"):
        Sphere.fit(given, Step("sphere", by="plate"))
    with pytest.raises(PlateError, match=r"whole table has 2 wells.*'trt'"):
        Sphere.fit(screen(controls=2), Step("sphere"))
    with pytest.raises(ColumnError, match="none of the 7 features"):
        Sphere.fit(with_X(given, np.ones_like(given.X)), Step("sphere"))
    with pytest.raises(ShapeError):
        Sphere.fit(given, Step("sphere")).apply(given.with_features(given.X[:, :3], given.features[:3], "x"))
    far = given.X.copy()
    treated = int(np.flatnonzero(~is_control(given))[0])
    far[treated] = 1e9
    fitted = Sphere.fit(given, Step("sphere"))
    with pytest.raises(PlateError, match=rf"'P W{treated}' would lie beyond"):
        fitted.apply(with_X(given, far))
