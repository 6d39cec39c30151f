from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenohit.config import Step
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, PlateError, ShapeError
from phenohit.profiles import normalise as module
from phenohit.profiles.normalise import Normalise, normalise
from phenohit.profiles.verbs import pycytominer


def plates(n_plates=3, wells=24, controls=8, F=6, seed=0, **rows) -> Profiles:
    rng = np.random.default_rng(seed)
    n = n_plates * wells
    shift = np.repeat(rng.normal(size=(n_plates, F)) * 5, wells, axis=0)
    scale = np.repeat(rng.uniform(0.5, 3, size=(n_plates, F)), wells, axis=0)
    table = pd.DataFrame(
        {
            "Metadata_Plate": np.repeat([f"P{i}" for i in range(n_plates)], wells),
            "Metadata_Well": np.tile([f"{chr(65 + i // 6)}{i % 6 + 1:02d}" for i in range(wells)], n_plates),
            "Metadata_pert_type": np.tile(["negcon"] * controls + ["trt"] * (wells - controls), n_plates),
            **rows,
        }
    )
    X = (shift + scale * rng.normal(size=(n, F))).astype(np.float32)
    return Profiles(X, table.astype(str), [f"Cells_{j}" for j in range(F)])


def by_pycytominer(profiles: Profiles, method: str, epsilon: float = 1e-6) -> np.ndarray:
    frame = pd.concat([profiles.rows, pd.DataFrame(profiles.X.astype(np.float64), columns=profiles.features)], axis=1)
    out = [
        pycytominer().normalize(
            part.copy(), features=profiles.features, meta_features=list(profiles.rows),
            samples="Metadata_pert_type == 'negcon'", method=method, mad_robustize_epsilon=epsilon,
        )
        for _, part in frame.groupby("Metadata_Plate", sort=False)
    ]  # fmt: skip
    return pd.concat(out).loc[frame.index, profiles.features].to_numpy()


@pytest.mark.parametrize("method", ["standardize", "mad_robustize"])
def test_same_as_pycytominer_plate_by_plate(method):
    given = plates()
    out, lost = normalise(given, Step("normalise", method))
    np.testing.assert_allclose(out.X, by_pycytominer(given, method), rtol=2e-6, atol=2e-6)
    assert out.X.dtype == np.float32
    assert out.history == (f"{method}[plate, negcon]",)
    assert lost.empty


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(["standardize", "mad_robustize"]), st.floats(0, 0.3))
def test_same_as_pycytominer_with_gaps(seed, method, share):
    given = plates(seed=seed)
    gaps = np.random.default_rng(seed).random(given.X.shape) < share
    X = np.where(gaps, np.nan, given.X).astype(np.float32)
    given = Profiles(X, given.rows, given.features)
    fitted = Normalise.fit(given, Step("normalise", method))
    out, _ = fitted.apply(given, everywhere=False)
    used = np.repeat(fitted.refused == 0, 24, axis=0)[: len(out)]
    if len(out) == len(given):
        expected = by_pycytominer(given, method)
        np.testing.assert_allclose(out.X[used], expected[used], rtol=1e-5, atol=1e-5)
        assert np.isnan(out.X[~used]).all()


def test_order_of_wells_does_not_matter(monkeypatch):
    given = plates()
    whole, _ = normalise(given, Step("normalise"))
    order = np.random.default_rng(1).permutation(len(given))
    monkeypatch.setattr(module, "_BLOCK", 30)
    mixed, _ = normalise(given.take(order), Step("normalise"))
    np.testing.assert_array_equal(mixed.X, whole.X[order])


def test_robust_z_is_median_and_sd_of_controls():
    given = plates(n_plates=1)
    out, _ = normalise(given, Step("normalise", "robust_z"))
    controls = given.X[:8].astype(np.float64)
    expected = (given.X - np.median(controls, axis=0)) / controls.std(axis=0)
    np.testing.assert_allclose(out.X, expected, rtol=1e-5, atol=1e-5)


def test_whole_plate_batch_and_all():
    given = plates(Metadata_Batch=["b1"] * 48 + ["b2"] * 24)
    for by, codes in (("batch", [0] * 48 + [1] * 24), ("all", [0] * 72)):
        out, _ = normalise(given, Step("normalise", "standardize", by=by, reference="plate"))
        for g in set(codes):
            part = given.X[np.array(codes) == g].astype(np.float64)
            expected = (part - part.mean(0)) / part.std(0)
            np.testing.assert_allclose(out.X[np.array(codes) == g], expected, rtol=1e-5, atol=1e-5)
        assert out.history == (f"standardize[{by}, plate]",)


def test_input_is_left_alone():
    given = plates()
    before = given.X.copy()
    normalise(given, Step("normalise"))
    np.testing.assert_array_equal(given.X, before)


def test_plate_without_controls_is_refused():
    given = plates()
    kind = given.rows["Metadata_pert_type"].where(given.rows["Metadata_Plate"] != "P1", "trt")
    given = Profiles(given.X, given.rows.assign(Metadata_pert_type=kind), given.features)
    with pytest.raises(PlateError) as caught:
        normalise(given, Step("normalise"))
    text = str(caught.value)
    assert "plate 'P1' has 0 wells with Metadata_pert_type == 'negcon' (it has 24 'trt')" in text
    assert "needs at least 4. Set reference: plate" in text
    normalise(given, Step("normalise", reference="plate"))


def test_several_short_plates_are_counted():
    given = plates(controls=3)
    with pytest.raises(PlateError, match=r"plate 'P0' has 3 wells.*2 more \(plate\): 'P1', 'P2'"):
        normalise(given, Step("normalise"))
    normalise(given, Step("normalise", min_controls=3))


def test_wells_without_plate_are_refused():
    given = plates()
    rows = given.rows.copy()
    rows.loc[[3, 50], "Metadata_Plate"] = ""
    with pytest.raises(PlateError, match=r"2 of 72 wells have no plate.*'A04', 'A03'"):
        normalise(Profiles(given.X, rows, given.features), Step("normalise"))
    with pytest.raises(PlateError, match="no 'Metadata_Batch'"):
        normalise(given, Step("normalise", by="batch"))


def with_values(given: Profiles, rows, column, value) -> Profiles:
    X = given.X.copy()
    X[rows, column] = value
    return Profiles(X, given.rows, given.features)


def test_feature_constant_among_controls_becomes_missing_on_that_plate():
    given = with_values(plates(), slice(0, 8), 2, 1.25)
    out, lost = normalise(given, Step("normalise"))
    assert np.isnan(out.X[:24, 2]).all()
    assert np.isfinite(out.X[24:]).all()
    assert lost["id"].tolist() == ["Cells_2"]
    assert lost["reason"].iloc[0] == "no spread among the controls in 1 of 3 groups (plate: 'P0'): missing there"
    frame = by_pycytominer(given, "mad_robustize", epsilon=1e-18)
    assert np.abs(frame[:24, 2]).max() > 1e14  # what happens unguarded


def test_feature_constant_on_most_plates_goes_everywhere():
    given = with_values(with_values(plates(), slice(0, 8), 2, 1.0), slice(24, 32), 2, 7.0)
    out, lost = normalise(given, Step("normalise"))
    assert out.features == ["Cells_0", "Cells_1", "Cells_3", "Cells_4", "Cells_5"]
    assert "in 2 of 3 groups (plate: 'P0', 'P1'): left out" in lost["reason"].iloc[0]
    np.testing.assert_array_equal(out.X, normalise(plates(), Step("normalise"))[0].X[:, [0, 1, 3, 4, 5]])
    kept, _ = Normalise.fit(given, Step("normalise")).apply(given, everywhere=False)
    assert np.isnan(kept.X[:48, 2]).all()
    assert np.isfinite(kept.X[48:, 2]).all()


@pytest.mark.parametrize("method", ["mad_robustize", "standardize", "robust_z"])
def test_rounding_is_no_spread(method):
    values = np.float32(1000) + np.float32(6.1e-5) * np.array([0, 1, 0, 1, 0, 1, 1, 0], dtype=np.float32)
    out, lost = normalise(with_values(plates(), slice(0, 8), 0, values), Step("normalise", method))
    assert np.isnan(out.X[:24, 0]).all()
    assert "no spread" in lost["reason"].iloc[0]


def test_blow_up_beyond_the_limit_is_refused():
    tiny = np.linspace(0, 1e-9, 8)
    given = with_values(plates(), slice(0, 8), 0, tiny)
    out, lost = normalise(given, Step("normalise", epsilon=0))
    assert np.isnan(out.X[:24, 0]).all()
    assert "beyond 1e+06 units" in lost["reason"].iloc[0]
    assert np.nanmax(np.abs(out.X)) < 1e3


def test_too_few_values_among_controls():
    out, lost = normalise(with_values(plates(), slice(0, 5), 1, np.nan), Step("normalise"))
    assert np.isnan(out.X[:24, 1]).all()
    assert lost["reason"].tolist() == ["too few controls have a value in 1 of 3 groups (plate: 'P0'): missing there"]
    assert np.isfinite(normalise(with_values(plates(), slice(0, 4), 1, np.nan), Step("normalise"))[0].X[24:]).all()


def test_dead_plate_goes_with_its_wells():
    out, lost = normalise(with_values(plates(), slice(0, 8), slice(None), 0.0), Step("normalise"))
    assert len(out) == 48
    assert (lost["what"] == "well").sum() == 24
    assert lost.loc[lost["what"] == "well", "id"].iloc[0] == "P0 A01"


def test_nothing_left_and_infinite_values_are_errors():
    given = plates()
    X = np.zeros_like(given.X)
    with pytest.raises(ColumnError, match="none of the 6 features"):
        normalise(Profiles(X, given.rows, given.features), Step("normalise"))
    with pytest.raises(ColumnError, match=r"1 features hold infinite values: 'Cells_3'"):
        normalise(with_values(given, 5, 3, np.inf), Step("normalise"))


def test_wrong_settings_and_other_wells():
    given = plates()
    with pytest.raises(ConfigError, match=r"'mad_robust'.*mad_robustize"):
        normalise(given, Step("normalise", "mad_robust"))
    for field in ({"min_controls": 1}, {"limit": 0}, {"epsilon": -1}):
        with pytest.raises(ConfigError):
            normalise(given, Step("normalise", **field))
    fitted = Normalise.fit(given.take(np.arange(24)), Step("normalise"))
    with pytest.raises(PlateError, match="'P1', 'P2'"):
        fitted.apply(given)
    with pytest.raises(ShapeError):
        fitted.apply(given.with_features(given.X[:, :2], given.features[:2], "x"))
    rows = given.rows.drop(columns="Metadata_pert_type")
    with pytest.raises(ColumnError, match=r"profiles\.controls"):
        normalise(Profiles(given.X, rows, given.features), Step("normalise"))
