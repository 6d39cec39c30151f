from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.labels.overlap import (
    label_statistics,
    near_duplicates,
    prune_overlap,
    prune_promiscuous,
    task_overlap,
    warn_duplicates,
)


def make(Y: np.ndarray, assays=None) -> Labels:
    """Labels from a matrix with NaN for what is not measured."""
    i, j = np.nonzero(~np.isnan(Y))
    names = [f"t{k}" for k in range(Y.shape[1])]
    return Labels(
        sparse.csr_matrix((Y[i, j].astype(np.float32), (i, j)), shape=Y.shape),
        pd.DataFrame({"compound": [f"c{k}" for k in range(len(Y))]}),
        pd.DataFrame({"task": names, "assay": assays or names, "kind": "binary", "threshold": np.nan}),
    )


def random_labels(T=40, N=300, seed=0) -> tuple[np.ndarray, Labels]:
    rng = np.random.default_rng(seed)
    Y = (rng.random((N, T)) < 0.3).astype(float)
    Y[rng.random((N, T)) < 0.6] = np.nan
    Y[:, 7] = Y[:, 3]
    Y[:5, 7] = 1 - Y[:5, 7]
    return Y, make(Y)


def test_overlaps_are_those_of_python_sets():
    Y, labels = random_labels()
    table = task_overlap(labels, least=0.0)
    assert len(table) == 40 * 39 / 2
    for r in table.sample(60, random_state=0).itertuples():
        a, b = int(r.task_a[1:]), int(r.task_b[1:])
        A, B = ({(c, Y[c, t]) for c in np.flatnonzero(~np.isnan(Y[:, t]))} for t in (a, b))
        keys = [{c for c, _ in s} for s in (A, B)]
        hits = [{c for c, v in s if v} for s in (A, B)]
        assert r.jaccard == pytest.approx(len(keys[0] & keys[1]) / len(keys[0] | keys[1]))
        assert (r.n_equal, r.n_both) == (len(A & B), len(keys[0] & keys[1]))
        assert r.equal_share == pytest.approx(len(A & B) / min(len(A), len(B)))
        assert r.equal_jaccard == pytest.approx(len(A & B) / len(A | B))
        assert r.hits_iou == pytest.approx(len(hits[0] & hits[1]) / len(hits[0] | hits[1]))
    assert table.iloc[0][["task_a", "task_b"]].tolist() == ["t3", "t7"]
    assert len(task_overlap(labels, top=3)) == 3
    assert len(task_overlap(labels, least=0.9)) == 1


def test_overlap_in_blocks_is_the_same(monkeypatch):
    _, labels = random_labels()
    whole = task_overlap(labels, least=0.0)
    monkeypatch.setattr("phenohit.labels.overlap._BLOCK", 7)
    pd.testing.assert_frame_equal(task_overlap(labels, least=0.0), whole)


def test_near_duplicates_are_warned_of(caplog):
    _, labels = random_labels()
    with caplog.at_level(logging.WARNING, logger="phenohit"):
        alike = warn_duplicates(task_overlap(labels))
    assert alike[["task_a", "task_b"]].values.tolist() == [["t3", "t7"]]
    assert "1 pairs of tasks repeat each other's labels: t3 and t7" in caplog.text
    same = Labels(labels.Y, labels.compounds, labels.tasks.assign(assay="one"))
    assert not len(warn_duplicates(task_overlap(same)))


def test_classes_that_agree_on_their_inactives_are_no_duplicates():
    classes = np.zeros((60, 2))
    classes[:3, 0] = classes[3:6, 1] = 1  # exclusive classes: 54 of 60 labels are equal
    overlap = task_overlap(make(classes))
    assert overlap["equal_share"].tolist() == [0.9]
    assert not near_duplicates(overlap).any()
    classes[:, 1] = classes[:, 0]
    assert near_duplicates(task_overlap(make(classes))).all()


def test_pruning_keeps_the_fuller_of_two_and_no_overlap_is_left():
    Y, _ = random_labels()
    Y[-1, 7] = np.nan
    Y[-1, 3] = 0
    labels = make(Y)
    pruned, lost = prune_overlap(labels, 0.7)
    assert lost["id"].tolist() == ["t7"]
    assert "of its actives and those of 't3' are common (labels.max_overlap 0.7)" in lost["reason"][0]
    assert pruned.task_names == [t for t in labels.task_names if t != "t7"]
    strict, lost = prune_overlap(labels, 0.1)
    assert len(strict.tasks) + len(lost) == 40
    assert task_overlap(strict, least=0.0)["hits_iou"].max() <= 0.1


def test_promiscuous_compounds_lose_their_labels_by_assays_not_tasks():
    Y = np.full((3, 4), np.nan)
    Y[0] = 1
    Y[1] = [1, 1, 0, 0]
    Y[2] = [0, 0, 1, 1]
    labels = make(Y, ["a", "a", "b", "c"])
    pruned, lost = prune_promiscuous(labels, 2)
    assert lost["id"].tolist() == ["c0"]
    assert lost["reason"][0] == "active in 3 assays (labels.max_active_tasks 2): its labels are not used"
    assert pruned.Y.nnz == 8
    assert pruned.tasks["n_active"].tolist() == [1, 1, 1, 1]
    assert prune_promiscuous(labels, 3)[0] is labels
    assert len(prune_promiscuous(labels, 1)[1]) == 2


def test_statistics():
    Y = np.array([[1, np.nan, 0], [1, np.nan, np.nan], [np.nan] * 3])
    values = pd.DataFrame({"n": [1, 1, 3], "low": [5.0, 6, 5], "high": [5.0, 6, 6.5]})
    found = label_statistics(make(Y), values)
    assert found["tasks"][["n_labels", "n_active"]].values.tolist() == [[2, 2], [0, 0], [1, 0]]
    np.testing.assert_allclose(found["tasks"]["active_share"], [1, np.nan, 0])
    assert found["per_compound"].values.tolist() == [[0, 1], [1, 1], [2, 1]]
    assert found["repeats"].values.tolist() == [[1, 2, 0], [3, 1, 1.5]]
    matrix = found["matrix"].iloc[0]
    assert matrix[["n_compounds", "n_tasks", "n_labels"]].tolist() == [2, 3, 3]
    assert matrix[["active", "inactive", "missing"]].tolist() == pytest.approx([2 / 6, 1 / 6, 3 / 6])
    assert len(label_statistics(make(Y))["repeats"]) == 0


def test_kappa_is_scikit_learns_on_the_common_compounds():
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(0)
    known = rng.random((200, 3)) < 0.7
    active = rng.random((200, 3)) < 0.4
    active[:, 1] = np.where(rng.random(200) < 0.7, active[:, 0], active[:, 1])
    row, column = np.nonzero(known)
    Y = sparse.csr_matrix((active[known].astype(np.float32), (row, column)), shape=known.shape)
    tasks = pd.DataFrame({"task": list("abc"), "assay": list("abc"), "kind": "binary", "threshold": np.nan})
    labels = Labels(Y, pd.DataFrame({"compound": [f"c{i}" for i in range(200)]}), tasks)
    table = task_overlap(labels, least=0.0)
    for r in table.itertuples():
        a, b = "abc".index(r.task_a), "abc".index(r.task_b)
        both = known[:, a] & known[:, b]
        assert r.kappa == pytest.approx(cohen_kappa_score(active[both, a], active[both, b]))
