"""Every measured label that was predicted becomes one entry, and nothing else does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import phenohit.evaluate.entries as module
from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.errors import LabelError, ShapeError
from phenohit.evaluate.entries import Entries


def make_labels(N=40, T=5, seed=0, kind="binary"):
    stream = np.random.default_rng(seed)
    measured = stream.random((N, T)) < 0.5
    row, column = np.nonzero(measured)
    Y = sparse.csr_matrix((stream.integers(0, 2, len(row)).astype(np.float32), (row, column)), shape=(N, T))
    tasks = pd.DataFrame({"task": [f"t{i}" for i in range(T)], "assay": "a", "kind": kind, "threshold": np.nan})
    return Labels(Y, pd.DataFrame({"compound": [f"c{i}" for i in range(N)]}), tasks)


def make_predictions(labels, repeats=1, seed=0, n_folds=3, asked=False):
    """Scores of shuffled rows, `repeats` wells per compound, with two compounds nobody measured."""
    stream = np.random.default_rng(seed)
    names = np.array([*labels.compounds["compound"], "x0", "x1"] * repeats, dtype=object)
    names = names[stream.permutation(len(names))]
    fold = np.array([hash_of(n) % n_folds for n in names], dtype=np.int32)
    score = stream.random((len(names), len(labels.tasks))).astype(np.float32)
    block = sparse.csr_matrix(np.where(stream.random(score.shape) < 0.6, score, 0)) if asked else score
    return Predictions(block, names, labels.task_names, "m", fold=fold)


def hash_of(name):
    return int(name[1:])


def slow(labels, predictions):
    """(task, fold, compound) -> (y, mean score), one entry after another."""
    found = {}
    where = {c: i for i, c in enumerate(labels.compounds["compound"])}
    Y = labels.Y.tocsr()
    stored = sparse.issparse(predictions.score)
    for row, name in enumerate(predictions.compounds):
        fold = 0 if predictions.fold is None else int(predictions.fold[row])
        if name not in where or fold < 0:
            continue
        i = where[name]
        for task, y in zip(
            Y.indices[Y.indptr[i] : Y.indptr[i + 1]], Y.data[Y.indptr[i] : Y.indptr[i + 1]], strict=True
        ):
            column = predictions.tasks.index(labels.task_names[task])
            if stored:
                part = predictions.score[row]
                at = np.flatnonzero(part.indices == column)
                if not len(at):
                    continue
                score = part.data[at[0]]
            else:
                score = predictions.score[row, column]
            found.setdefault((int(task), fold, i), (bool(y), []))[1].append(float(score))
    return {key: (y, np.mean(scores)) for key, (y, scores) in found.items()}


def as_dict(e):
    keys = zip(e.task.tolist(), e.fold.tolist(), e.compound.tolist(), strict=True)
    return dict(zip(keys, zip(e.y.tolist(), e.score.tolist(), strict=True), strict=True))


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("block", [5, 10**6])
def test_equals_a_slow_look_up(asked, repeats, block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    labels = make_labels()
    predictions = make_predictions(labels, repeats, asked=asked)
    entries, expected = Entries.of(labels, predictions), slow(labels, predictions)
    found = as_dict(entries)
    assert len(found) == len(entries) > 0
    assert found.keys() == expected.keys()
    for key, (y, score) in expected.items():
        assert found[key][0] == y
        assert found[key][1] == pytest.approx(score, abs=1e-6)


def test_tasks_are_found_by_name_not_by_place():
    labels = make_labels()
    predictions = make_predictions(labels)
    turned = Predictions(
        np.ascontiguousarray(predictions.score[:, ::-1]), predictions.compounds, predictions.tasks[::-1], "m",
        fold=predictions.fold,
    )  # fmt: skip
    assert as_dict(Entries.of(labels, turned)) == as_dict(Entries.of(labels, predictions))


def test_rows_that_were_not_held_out_are_left_out():
    labels = make_labels()
    predictions = make_predictions(labels)
    fold = np.where(predictions.fold == 1, -1, predictions.fold)
    entries = Entries.of(
        labels, Predictions(predictions.score, predictions.compounds, predictions.tasks, "m", fold=fold)
    )
    assert entries.folds.tolist() == [0, 2]
    assert as_dict(entries) == {k: v for k, v in as_dict(Entries.of(labels, predictions)).items() if k[1] != 1}


def test_without_folds_there_is_one():
    labels = make_labels()
    predictions = make_predictions(labels)
    entries = Entries.of(labels, Predictions(predictions.score, predictions.compounds, predictions.tasks, "m"))
    assert entries.folds.tolist() == [0]
    assert len(entries) == labels.Y.nnz


def test_value_tasks_have_no_entries_and_unknown_tasks_are_refused():
    labels = make_labels(kind="value")
    assert len(Entries.of(labels, make_predictions(labels))) == 0
    labels = make_labels()
    other = Predictions(np.zeros((1, 1), np.float32), np.array(["c0"], object), ["elsewhere"], "m")
    with pytest.raises(ShapeError, match=r"None of the 5 tasks was predicted.*'elsewhere'"):
        Entries.of(labels, other)


def test_one_predicted_pic50_serves_all_thresholds_of_its_assay():
    Y = sparse.csr_matrix(np.array([[1, 1], [1, 0]], dtype=np.float32) + 0)
    Y = sparse.csr_matrix((np.array([1, 1, 1, 0], np.float32), ([0, 0, 1, 1], [0, 1, 0, 1])), shape=(2, 2))
    tasks = pd.DataFrame(
        {"task": ["a>=5", "a>=6"], "assay": "a", "kind": "threshold", "threshold": [5.0, 6.0]},
    )
    labels = Labels(Y, pd.DataFrame({"compound": ["u", "v"]}), tasks)
    score = np.array([[6.5], [5.5]], dtype=np.float32)
    entries = Entries.of(labels, Predictions(score, np.array(["u", "v"], object), ["a"], "m", kind="pIC50"))
    assert as_dict(entries) == {
        (0, 0, 0): (True, 6.5), (1, 0, 0): (True, 6.5), (0, 0, 1): (True, 5.5), (1, 0, 1): (False, 5.5),
    }  # fmt: skip
    assert entries.cut.tolist() == [5.0, 6.0]


def test_doubled_compounds_are_refused():
    labels = make_labels(N=2)
    doubled = Labels(labels.Y, pd.DataFrame({"compound": ["c0", "c0"]}), labels.tasks)
    with pytest.raises(LabelError, match="'c0'"):
        Entries.of(doubled, make_predictions(labels))


def test_nothing_predicted_is_no_entry():
    labels = make_labels()
    none = Predictions(np.zeros((0, 5), np.float32), np.array([], object), labels.task_names, "m")
    entries = Entries.of(labels, none)
    assert len(entries) == 0
    assert entries.shape("fold") == (5, 0)
