from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.errors import ColumnError, ConfigError, FileError, ShapeError
from phenohit.evaluate.splits import TEST, TRAIN, UNUSED, VALID, Folds, group_folds, holdout, leave_plates_out
from phenohit.files import write_table


def table(n: int) -> pd.DataFrame:
    return pd.DataFrame({"compound": [f"K{i}" for i in range(n)]})


def some_labels(n: int, n_tasks: int, seed: int, *, density: float = 0.3, active: float = 0.2) -> Labels:
    rng = np.random.default_rng(seed)
    i, j = np.nonzero(rng.random((n, n_tasks)) < density)
    Y = sparse.csr_matrix(((rng.random(len(i)) < active).astype(np.float32), (i, j)), shape=(n, n_tasks))
    names = [f"t{k}" for k in range(n_tasks)]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    return Labels(Y, table(n), tasks)


def groups_of(n: int, n_groups: int, seed: int) -> np.ndarray:
    """Every group occurs; sizes fall off steeply, as those of series do."""
    rng = np.random.default_rng(seed)
    extra = np.minimum(rng.geometric(0.2, n - n_groups) - 1, n_groups - 1)
    return rng.permutation(np.concatenate([np.arange(n_groups), extra]))


cases = st.tuples(st.integers(40, 200), st.integers(8, 40), st.integers(0, 10**6))


@given(cases, st.integers(2, 6), st.sampled_from([0.0, 0.1, 0.3]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_k_fold_promises(case, k, valid, with_labels):
    n, n_groups, seed = case
    groups = groups_of(n, n_groups, seed)
    labels = some_labels(n, 5, seed) if with_labels else None
    folds = group_folds(groups, k, labels=labels, rows=table(n), valid=valid, seed=seed)
    assert folds.part.shape == (n, k)
    assert folds.part.dtype == np.int8
    assert ((folds.part == TEST).sum(axis=1) == 1).all()  # every row tested exactly once
    assert (folds.part != UNUSED).all()
    for s in range(k):
        parts_of_group = pd.Series(folds.part[:, s]).groupby(groups).nunique()
        assert (parts_of_group == 1).all()  # no group straddles; validation groups are not in training
        assert len(folds.rows_of(s, TRAIN)) > 0
        assert len(folds.rows_of(s, TEST)) > 0
        assert valid > 0 or len(folds.rows_of(s, VALID)) == 0


@given(cases, st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_same_seed_same_folds_whatever_the_order_of_rows(case, k):
    n, n_groups, seed = case
    groups, labels = groups_of(n, n_groups, seed), some_labels(n, 4, seed)
    folds = group_folds(groups, k, labels=labels, rows=table(n), seed=seed)
    again = group_folds(groups, k, labels=labels, rows=table(n), seed=seed)
    np.testing.assert_array_equal(folds.part, again.part)
    order = np.random.default_rng(seed).permutation(n)
    moved = group_folds(groups[order], k, labels=labels.take(order), rows=table(n).iloc[order], seed=seed)
    np.testing.assert_array_equal(moved.part, folds.part[order])


def test_another_seed_gives_other_folds():
    groups, rows = np.arange(200), table(200)
    assert (group_folds(groups, 3, rows=rows, seed=0).part != group_folds(groups, 3, rows=rows, seed=1).part).any()
    draws = holdout(groups, rows=rows, repeats=2)
    assert (draws.part[:, 0] != draws.part[:, 1]).any()


def test_single_compounds_are_balanced_to_one_row():
    folds = group_folds(np.arange(1003), 5, rows=table(1003), valid=0.1)
    sizes = (folds.part == TEST).sum(axis=0)
    assert sizes.max() - sizes.min() <= 1
    shares = (folds.part == VALID).sum(axis=0) / (folds.part != TEST).sum(axis=0)
    assert np.abs(shares - 0.1).max() < 0.005


def test_actives_and_inactives_of_every_task_are_balanced():
    n, k = 3_000, 5
    groups = groups_of(n, 2_000, 0)
    labels = some_labels(n, 30, 1, density=0.05, active=0.15)
    balanced = group_folds(groups, k, labels=labels, rows=table(n), seed=2)
    by_size = group_folds(groups, k, rows=table(n), seed=2)

    def worst(folds: Folds) -> tuple[float, float]:
        """Largest distance of a fold from its fair share, over tasks, for actives and inactives."""
        out = []
        for value in (1, 0):
            Y = labels.Y.copy()
            Y.data = (Y.data == value).astype(np.float32)
            per_fold = np.stack([np.asarray(Y[folds.rows_of(s, TEST)].sum(axis=0)).ravel() for s in range(k)])
            out.append(float(np.abs(per_fold / per_fold.sum(axis=0) * k - 1).mean()))
        return out[0], out[1]

    active, inactive = worst(balanced)
    assert active < 0.12
    assert inactive < 0.05
    assert active < worst(by_size)[0] / 2
    sizes = (balanced.part == TEST).sum(axis=0)
    assert np.abs(sizes / n * k - 1).max() < 0.02


def test_values_are_balanced_by_the_number_measured():
    n = 300
    labels = some_labels(n, 2, 0)
    tasks = labels.tasks.assign(kind=["value", "binary"])
    Y = labels.Y.copy()
    Y.data = np.where(Y.indices == 0, 5.5, Y.data).astype(np.float32)
    folds = group_folds(np.arange(n), 3, labels=Labels(Y, labels.compounds, tasks), rows=table(n))
    measured = [labels.Y[folds.rows_of(s, TEST)].getnnz(axis=0)[0] for s in range(3)]
    assert max(measured) - min(measured) <= 2


@given(cases, st.sampled_from([(0.7, 0.1, 0.2), (0.8, 0.0, 0.2), (0.5, 0.25, 0.25)]), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_holdout_promises(case, fractions, repeats):
    n, n_groups, seed = case
    groups = groups_of(n, n_groups, seed)
    folds = holdout(groups, fractions=fractions, repeats=repeats, rows=table(n), seed=seed)
    assert folds.part.shape == (n, repeats)
    assert folds.fold == list(range(repeats))
    largest = np.bincount(groups).max()
    for s in range(repeats):
        assert (pd.Series(folds.part[:, s]).groupby(groups).nunique() == 1).all()
        assert len(folds.rows_of(s, TRAIN)) > 0
        assert len(folds.rows_of(s, TEST)) > 0
        for part, share in zip((TRAIN, VALID, TEST), fractions, strict=True):
            assert abs(len(folds.rows_of(s, part)) - share * n) <= largest + 1
            assert share > 0 or not len(folds.rows_of(s, part))


def test_holdout_of_single_compounds_meets_its_fractions():
    labels = some_labels(2_000, 20, 3)
    folds = holdout(np.arange(2_000), labels=labels, rows=table(2_000), repeats=3)
    for s in range(3):
        shares = [len(folds.rows_of(s, part)) / 2_000 for part in (TRAIN, VALID, TEST)]
        np.testing.assert_allclose(shares, (0.7, 0.1, 0.2), atol=0.01)


def test_two_groups_are_enough_for_a_holdout():
    folds = holdout(np.array([0, 0, 0, 1]), rows=table(4))
    assert folds.part[:, 0].tolist() == [TRAIN, TRAIN, TRAIN, TEST]


def test_one_giant_series_still_works():
    groups = np.concatenate([np.zeros(60, int), np.arange(1, 41)])
    folds = group_folds(groups, 3, rows=table(100), seed=1)
    assert sorted((folds.part == TEST).sum(axis=0).tolist()) == [20, 20, 60]
    assert all(len(folds.rows_of(s, TRAIN)) for s in range(3))
    assert len(holdout(groups, rows=table(100)).rows_of(0, TEST)) > 0


def test_plates_out():
    n = 240
    groups = np.arange(n) // 4  # 60 compounds, wells on several plates
    plates = np.array([f"P{i % 6}" for i in range(n)], dtype=object)
    folds = group_folds(groups, 3, rows=table(n), valid=0.2, kind="series")
    both = leave_plates_out(folds, plates, 2, seed=1)
    assert len(both) == 6
    assert both.names == ["0.p0", "0.p1", "1.p0", "1.p1", "2.p0", "2.p1"]
    assert both.fold == [0, 0, 1, 1, 2, 2]
    assert both.kind == "series, plates held out"
    assert ((both.part == TEST).sum(axis=1) == 1).all()
    for s in range(6):
        old = folds.part[:, both.fold[s]]
        test, fitted = both.rows_of(s, TEST), np.flatnonzero(np.isin(both.part[:, s], [TRAIN, VALID]))
        assert not set(plates[test]) & set(plates[fitted])
        assert not set(groups[test]) & set(groups[fitted])
        assert (old[test] == TEST).all()
        held = set(plates[test])
        outside = np.array([p not in held for p in plates])
        # All that may be used is used, in the part it had.
        np.testing.assert_array_equal(both.part[outside & (old != TEST), s], old[outside & (old != TEST)])
        assert (both.part[~outside & (old != TEST), s] == UNUSED).all()
        assert (both.part[outside & (old == TEST), s] == UNUSED).all()
    assert both.rows["plate"].tolist() == plates.tolist()


def test_plate_combinations_without_test_rows_are_left_out():
    groups = np.repeat([0, 1], 4)
    plates = np.repeat(["A", "B"], 4)  # each series lies on one plate
    folds = group_folds(groups, 2, rows=table(8), valid=0.0)
    both = leave_plates_out(folds, plates, 2)
    assert len(both) == 2
    assert ((both.part == TEST).sum(axis=0) == 4).all()


@pytest.mark.parametrize(
    ("plates", "n_plate_folds", "message"),
    [
        (["A", "", "B", ""], 2, "2 rows have no plate: 'row 1', 'row 3'"),
        (["A", "A;B", "B", "B"], 2, "lie on several plates: 'A;B'.*profiles.unit to well"),
        (["A", "B", "B", "B"], 3, "plate_folds is 3, but there are 2 plates"),
        (["A", "B", "B", "B"], 1, "plate_folds is 1"),
    ],
)
def test_plates_that_cannot_be_held_out(plates, n_plate_folds, message):
    folds = group_folds(np.arange(4), 2, rows=table(4))
    with pytest.raises(ConfigError, match=message):
        leave_plates_out(folds, plates, n_plate_folds)


def test_too_few_groups_say_how_many_and_what_to_do():
    with pytest.raises(ConfigError, match=r"only 3 groups \(series at 0.7\) for 5 folds.*Set folds to 3 or fewer"):
        group_folds(np.array([0, 1, 2, 2]), 5, rows=table(4), kind="series at 0.7")
    with pytest.raises(ConfigError, match="only 1 group"):
        holdout(np.zeros(4, int), rows=table(4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: group_folds(np.arange(4), 1, rows=table(4)), "folds is 1"),
        (lambda: group_folds(np.arange(4), 2, rows=table(4), valid=1.0), r"valid is 1\.0"),
        (lambda: holdout(np.arange(4), fractions=(0.7, 0.1, 0.1), rows=table(4)), "add up to 1"),
        (lambda: holdout(np.arange(4), fractions=(0.9, 0.1, 0.0), rows=table(4)), "above 0"),
        (lambda: holdout(np.arange(4), repeats=0, rows=table(4)), "repeats is 0"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="4 groups but 3 rows"):
        group_folds(np.arange(4), 2, rows=table(3))
    with pytest.raises(ShapeError, match="4 groups but 3 labels"):
        group_folds(np.arange(4), 2, rows=table(4), labels=some_labels(3, 2, 0))
    with pytest.raises(ColumnError, match="compound"):
        group_folds(np.arange(4), 2, rows=pd.DataFrame({"x": range(4)}))
    rows = pd.DataFrame({"compound": ["a", "b"], "group": [0, 1], "plate": ""})
    with pytest.raises(ConfigError, match="holds 7"):
        Folds(np.array([[0], [7]], np.int8), rows, ["0"], [0])
    with pytest.raises(ConfigError, match="unique"):
        Folds(np.zeros((2, 2), np.int8), rows, ["0", "0"], [0, 1])
    with pytest.raises(ShapeError, match="1 names"):
        Folds(np.zeros((2, 2), np.int8), rows, ["0"], [0])
    with pytest.raises(ShapeError, match="int64"):
        Folds(np.zeros((2, 1), np.int64), rows, ["0"], [0])
    with pytest.raises(ColumnError, match="plate"):
        Folds(np.zeros((2, 1), np.int8), rows.drop(columns="plate"), ["0"], [0])


def test_saved_and_loaded_folds_are_equal(tmp_path):
    plates = np.array(["A", "B"] * 20, dtype=object)
    rows = table(40).assign(plate=plates)
    folds = leave_plates_out(group_folds(np.arange(40) // 2, 3, rows=rows, kind="series"), plates, 2)
    folds.save(tmp_path / "folds.parquet")
    back = Folds.load(tmp_path / "folds.parquet")
    np.testing.assert_array_equal(back.part, folds.part)
    assert (back.names, back.fold, back.kind) == (folds.names, folds.fold, folds.kind)
    pd.testing.assert_frame_equal(back.rows, folds.rows, check_dtype=False)
    write_table(tmp_path / "other.parquet", pd.DataFrame({"a": [1]}))
    with pytest.raises(FileError, match="holds no folds"):
        Folds.load(tmp_path / "other.parquet")


def test_fold_numbers_from_elsewhere():
    folds = Folds.from_numbers(np.array([2, 0, -1, 2, 0]), table(5), kind="random")
    assert folds.names == ["0", "2"]
    assert folds.part[:, 0].tolist() == [TRAIN, TEST, UNUSED, TRAIN, TEST]
    assert folds.part[:, 1].tolist() == [TEST, TRAIN, UNUSED, TEST, TRAIN]


@pytest.mark.slow
def test_a_large_screen_takes_seconds():
    n, n_groups, T = 200_000, 110_000, 1_200
    rng = np.random.default_rng(0)
    Y = sparse.random(n, T, density=0.002, format="csr", dtype=np.float32, rng=rng)
    Y.data = (rng.random(Y.nnz) < 0.1).astype(np.float32)
    names = [f"t{k}" for k in range(T)]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    groups = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, n - n_groups)])
    start = time.monotonic()
    folds = group_folds(groups, 3, labels=Labels(Y, table(n), tasks), rows=table(n))
    assert time.monotonic() - start < 60
    assert ((folds.part == TEST).sum(axis=1) == 1).all()
