from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from phenohit.data.profiles import Profiles
from phenohit.profiles.checks_layout import (
    Layout,
    control_distance,
    each,
    explained_by_place,
    leading_components,
    trends,
)


def test_share_is_that_of_least_squares_and_expected_that_of_all_permutations():
    rng = np.random.default_rng(0)
    row, column = np.array([1, 1, 2, 2, 3, 3]), np.array([1, 2, 1, 2, 1, 1])
    Y = rng.normal(size=(6, 2))

    def share(Y):
        design = np.column_stack([np.ones(6), row == 2, row == 3, column == 2]).astype(float)
        rest = Y - design @ np.linalg.lstsq(design, Y, rcond=None)[0]
        return 1 - (rest**2).sum() / ((Y - Y.mean(0)) ** 2).sum()

    every = [share(Y[list(order)]) for order in itertools.permutations(range(6))]
    got = explained_by_place(Y, each(row, column), shuffles=4000, rng=rng)
    assert got[0] == pytest.approx(share(Y))
    assert got[1] == pytest.approx(np.mean(every))
    assert got[2] == pytest.approx(np.mean(np.array(every) >= share(Y) - 1e-12), abs=0.06)


def test_p_values_are_uniform_without_effect():
    rng = np.random.default_rng(1)
    row, column = rng.integers(1, 9, 24), rng.integers(1, 4, 24)
    p = [explained_by_place(rng.normal(size=(24, 3)), each(row, column), shuffles=99, rng=rng)[2] for _ in range(300)]
    assert np.mean(p) == pytest.approx(0.5, abs=0.05)
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.035)


def test_undefined_where_effects_could_explain_anything_or_nothing():
    rng = np.random.default_rng(2)
    for row, column in (([1, 2, 3, 4], [1, 1, 1, 1]), ([1, 1, 1, 1], [2, 2, 2, 2])):
        effects = each(np.array(row), np.array(column))
        assert np.isnan(explained_by_place(rng.normal(size=(4, 1)), effects, shuffles=9, rng=rng)).all()


def test_trends_take_up_slopes_bends_and_the_edge():
    rng = np.random.default_rng(6)
    row, column = (a.ravel() + 1 for a in np.indices((16, 24)))
    edge = (row == 1) | (row == 16) | (column == 1) | (column == 24)
    some = rng.choice(384, 32, replace=False)
    effects = trends(row, column, (16, 24))[some]
    for Y in (3.0 * row + column, (row - 4.0) ** 2, edge * 5.0 - column):
        assert explained_by_place(Y[some, None], effects, shuffles=9, rng=rng)[0] == pytest.approx(1)
    assert explained_by_place((row % 2.0)[some, None], effects, shuffles=9, rng=rng)[0] < 0.5  # stripes are not smooth


@pytest.mark.parametrize("shape", [(60, 8), (8, 60)])
def test_components_are_those_of_the_singular_value_decomposition(shape):
    rng = np.random.default_rng(3)
    X = rng.normal(size=shape).astype(np.float32)
    scores, share = leading_components(X, 3)
    Z = (X - X.mean(0)) / X.std(0)
    U, s, _ = np.linalg.svd(Z, full_matrices=False)
    np.testing.assert_allclose(np.abs(scores), np.abs(U[:, :3] * s[:3]), rtol=1e-3, atol=1e-3)
    assert share == pytest.approx((s[:3] ** 2).sum() / (s**2).sum(), rel=1e-4)


def test_group_means_are_removed_gaps_and_constants_passed_over():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(40, 6)).astype(np.float32)
    groups = np.repeat([5, 2], 20)
    X[groups == 2] += 50
    X[:, 1] = 3
    X[:20, 2] = np.nan
    X[7, 3] = np.nan
    scores, _ = leading_components(X, 4, groups)
    for g in (2, 5):
        np.testing.assert_allclose(scores[groups == g].mean(0), 0, atol=0.2)
    assert np.isfinite(scores).all()
    assert leading_components(np.full((5, 2), np.nan, np.float32), 3)[0].shape == (5, 0)


def test_layout_reads_wells_of_all_formats():
    rows = pd.DataFrame(
        {
            "Metadata_Plate": ["p", "p", "q", "q"],
            "Metadata_Well": ["A01", "P24", "AF48", ""],
            "Metadata_pert_type": ["negcon", "trt", "poscon", "empty"],
            "Metadata_Batch": ["", "x", "y", "x"],
        }
    )
    layout = Layout.of(Profiles(np.zeros((4, 1), np.float32), rows, ["Cells_1"]))
    assert layout.row.tolist() == [1, 16, 32, 0]
    assert layout.column.tolist() == [1, 24, 48, 0]
    assert layout.place.tolist() == [101, 1624, 3248, 0]
    assert layout.batch.tolist() == [-1, 0, 1, 0]
    assert layout.control.tolist() == [True, False, False, False]
    assert np.isnan(layout.cells).all()


def test_distance_is_in_robust_spreads():
    rng = np.random.default_rng(5)
    plate = np.repeat([0, 1], 50)
    X = (rng.normal(size=(100, 100)) * 3 + plate[:, None] * 10).astype(np.float32)
    X[10] = X[:50].mean(0) + 15  # five spreads in every feature
    found = control_distance(X, plate)
    assert np.median(found) == pytest.approx(1, abs=0.08)
    assert found[10] == pytest.approx(5, abs=0.4)
    assert np.isnan(control_distance(X[:3], plate[:3])).all()
