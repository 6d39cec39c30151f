"""Settings are chosen by what they do within the training rows, and by nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from phenohit.config import TuneConfig
from phenohit.data.labels import Labels
from phenohit.errors import ConfigError
from phenohit.evaluate.nested import best_cell, grid_cells, inner_folds, share_of_groups
from phenohit.evaluate.splits import TEST, TRAIN, UNUSED, VALID, group_folds


def problem(n: int = 300, groups: int = 60) -> tuple[pd.DataFrame, np.ndarray, Labels]:
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"compound": [f"C{i}" for i in range(n)]})
    Y = sparse.random(n, 4, 0.5, format="csr", random_state=rng, data_rvs=lambda k: rng.integers(0, 2, k))
    tasks = pd.DataFrame({"task": list("abcd"), "assay": list("abcd"), "kind": "binary", "threshold": np.nan})
    return rows, rng.integers(0, groups, n), Labels(Y.astype(np.float32), rows, tasks)


def test_the_papers_grids() -> None:
    network = grid_cells("network", {"batch": 128}, "simm2018")
    assert len(network) == 108  # Simm 2018, Table S1
    assert len({tuple(sorted(cell.items())) for cell in network}) == 108
    assert {cell["batch"] for cell in network} == {128}
    assert {(cell["dropout_input"], cell["dropout_hidden"]) for cell in network} == {(0.0, 0.0), (0.1, 0.5)}
    assert len(grid_cells("forest", {}, "simm2018")) == 6


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("simm2017", "is not a grid of 'forest'. .*simm2018"),
        ({"n_trees": 5}, "must be a list of values"),
        ({"n_trees": []}, "must be a list of values"),
        ({"n_tres": [5]}, "n_tres"),
        ({"n_trees": [0]}, "at least 1"),
    ],
)
def test_an_impossible_grid_is_refused(grid: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grid_cells("forest", {}, grid)


def test_inner_folds_know_nothing_of_the_outer_test_rows() -> None:
    rows, groups, labels = problem()
    outer = group_folds(groups, 3, labels=labels, rows=rows, seed=0)
    for split in range(3):
        inside = inner_folds(outer, split, 4, labels, seed=5)
        test = outer.part[:, split] == TEST
        assert (inside.part[test] == UNUSED).all()
        assert ((inside.part[~test] == TEST).sum(axis=1) == 1).all()  # every other row is tested once
        for s in range(4):
            for part in (TRAIN, VALID):
                of = set(groups[inside.part[:, s] == part])
                assert not of & set(groups[inside.part[:, s] == TEST])
                assert not of & set(groups[test])
        # Other labels of test compounds change nothing.
        flipped = Labels(labels.Y.copy(), labels.compounds, labels.tasks)
        for i in np.flatnonzero(test):
            part = slice(flipped.Y.indptr[i], flipped.Y.indptr[i + 1])
            flipped.Y.data[part] = 1 - flipped.Y.data[part]
        assert np.array_equal(inner_folds(outer, split, 4, flipped, seed=5).part, inside.part)


def test_a_share_of_the_training_rows_is_taken_by_group() -> None:
    rows, groups, labels = problem()
    inside = inner_folds(group_folds(groups, 3, labels=labels, rows=rows, seed=0), 0, 3, labels, seed=1)
    few = share_of_groups(inside, 1 / 3, labels, seed=1)
    for s in range(3):
        assert np.array_equal(few.part[:, s] == TEST, inside.part[:, s] == TEST)
        kept, before = few.part[:, s] < TEST, inside.part[:, s] < TEST
        assert (few.part[kept, s] == inside.part[kept, s]).all()
        assert 0.2 < kept.sum() / before.sum() < 0.5
        assert not set(groups[kept]) & set(groups[before & ~kept])
    assert share_of_groups(inside, 1.0, labels, seed=1) is inside


@given(st.integers(0, 10**6))
def test_the_best_cell_has_the_best_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    auroc = rng.random((4, 3, 5))
    auroc[:, rng.random((3, 5)) < 0.3] = np.nan  # a fold lacks a class, for every cell
    best, table = best_cell(auroc)
    mean = [
        np.nanmean([np.nanmean(c[:, t]) for t in range(5) if np.isfinite(c[:, t]).any()] or [np.nan]) for c in auroc
    ]
    if np.isfinite(mean).any():
        assert best == int(np.argmax(mean))
        np.testing.assert_allclose(table["auroc"], mean)
    assert len(table) == 4


def test_a_task_that_one_cell_alone_could_not_score_counts_for_none() -> None:
    auroc = np.array([[[0.6, 0.9]], [[0.7, np.nan]]])
    assert best_cell(auroc)[0] == 1


def test_rounds_of_halving() -> None:
    assert TuneConfig().shares(108) == [1.0]
    assert TuneConfig(halving=3).shares(108) == pytest.approx([1 / 27, 1 / 9, 1 / 3, 1])
    assert TuneConfig(halving=3).shares(6) == pytest.approx([1 / 3, 1])
    assert TuneConfig(halving=3).shares(2) == [1.0]
