"""The table of results: columns, the rule of Simm, planted truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.replicates import mean_over_splits, median_split
from phenohit.evaluate.scores import score_table

N, FOLDS = 240, 3


@pytest.fixture(scope="module")
def screen():
    """Task t0 is seen perfectly, t1 well, t2 not at all, t3 has one class, t4 is a value, t5 a rate."""
    stream = np.random.default_rng(0)
    latent = stream.normal(size=(N, 6))
    Y = (latent > 0.5).astype(np.float32)
    Y[:, 3], Y[:, 4] = 1, latent[:, 4]
    score = latent.copy()
    score[:, 1] += stream.normal(size=N)
    score[:, 2] = stream.normal(size=N)
    score[:, 5] = 0.3
    score = (1 / (1 + np.exp(-2 * (score - 0.5)))).astype(np.float32)
    measured = stream.random((N, 6)) < 0.8
    row, column = np.nonzero(measured)
    kind = ["binary"] * 4 + ["value", "binary"]
    tasks = pd.DataFrame({"task": [f"t{i}" for i in range(6)], "assay": "a", "kind": kind, "threshold": np.nan})
    compounds = pd.DataFrame({"compound": [f"c{i}" for i in range(N)]})
    labels = Labels(sparse.csr_matrix((Y[row, column], (row, column)), shape=(N, 6)), compounds, tasks)
    fold = stream.integers(0, FOLDS, N).astype(np.int32)
    names = compounds["compound"].to_numpy(object)
    return labels, Predictions(score, names, labels.task_names, "m", fold=fold), measured, Y


def test_columns_and_counts(screen):
    labels, predictions, measured, Y = screen
    table = score_table(labels, predictions, bootstrap=50, chance=50)
    assert table.columns.tolist() == [
        "task", "assay", "kind", "threshold", "n_active", "n_inactive", "n_scored", "n_folds", "auroc", "auroc_low",
        "auroc_high", "interval", "auroc_pooled", "chance_low", "chance_high", "p_chance", "average_precision",
        "delta_auprc", "riptop_auprc", "f1", "balanced_accuracy", "adjusted_balanced_accuracy", "kappa",
    ]  # fmt: skip
    assert table["task"].tolist() == labels.task_names
    assert table["n_active"][0] == (Y[:, 0] * measured[:, 0]).sum()
    assert table["n_scored"].tolist() == [*measured[:, :4].sum(0), 0, measured[:, 5].sum()]
    assert table["n_folds"].tolist() == [3, 3, 3, 0, 0, 3]


def test_auroc_is_the_mean_over_folds(screen):
    labels, predictions, measured, Y = screen
    table = score_table(labels, predictions, bootstrap=0, chance=0)
    for t in (0, 1, 2):
        folds = [measured[:, t] & (predictions.fold == k) for k in range(FOLDS)]
        expected = np.mean([roc_auc_score(Y[f, t], predictions.score[f, t]) for f in folds])
        assert table["auroc"][t] == pytest.approx(expected, abs=1e-9)
        whole = measured[:, t]
        assert table["auroc_pooled"][t] == pytest.approx(roc_auc_score(Y[whole, t], predictions.score[whole, t]))


def test_planted_truth(screen):
    labels, predictions, *_ = screen
    table = score_table(labels, predictions, bootstrap=200, chance=500)
    assert table["auroc"][0] == table["auroc_low"][0] == table["auroc_high"][0] == 1
    assert table["kappa"][0] == table["f1"][0] == table["riptop_auprc"][0] == 1
    assert table["auroc_low"][1] > table["chance_high"][1]
    assert table["p_chance"][1] < 0.01
    assert table["auroc_low"][2] < 0.5 < table["auroc_high"][2]
    assert table["p_chance"][2] > 0.01
    assert (table["chance_low"][:3] < 0.5).all()
    assert (table["chance_high"][:3] > 0.5).all()
    assert table["auroc"][5] == 0.5
    numbers = table.loc[[3, 4]].drop(
        columns=["task", "assay", "kind", "interval", "n_active", "n_inactive", "n_scored"]
    )
    assert numbers.drop(columns="n_folds").isna().all().all()
    assert table["interval"].tolist() == ["bootstrap"] * 3 + ["", "", "bootstrap"]


def test_zero_replicates_leave_the_columns_empty(screen):
    labels, predictions, *_ = screen
    table = score_table(labels, predictions, bootstrap=0, chance=0)
    assert table[["auroc_low", "auroc_high", "chance_low", "chance_high", "p_chance"]].isna().all().all()


def test_neither_the_order_of_tasks_nor_that_of_rows_matters(screen):
    labels, predictions, *_ = screen
    table = score_table(labels, predictions, bootstrap=50, chance=50, seed=4).set_index("task")
    rows = np.random.default_rng(1).permutation(N)
    turned = score_table(labels.take_tasks([5, 2, 0, 1]), predictions.take(rows), bootstrap=50, chance=50, seed=4)
    pd.testing.assert_frame_equal(turned.set_index("task"), table.loc[["t5", "t2", "t0", "t1"]])


def test_wells_are_averaged_before_scoring(screen):
    labels, predictions, *_ = screen
    noise = np.random.default_rng(2).normal(0, 0.01, predictions.score.shape).astype(np.float32)
    wells = Predictions(
        np.concatenate([predictions.score + noise, predictions.score - noise]), np.tile(predictions.compounds, 2),
        predictions.tasks, "m", fold=np.tile(predictions.fold, 2),
    )  # fmt: skip
    a = score_table(labels, wells, bootstrap=0, chance=0)
    b = score_table(labels, predictions, bootstrap=0, chance=0)
    assert a["n_scored"].tolist() == b["n_scored"].tolist()
    np.testing.assert_allclose(a["auroc"][:3], b["auroc"][:3], atol=1e-3)


def test_entries_may_be_given(screen):
    labels, predictions, *_ = screen
    a = score_table(labels, Entries.of(labels, predictions), bootstrap=20, chance=20)
    pd.testing.assert_frame_equal(a, score_table(labels, predictions, bootstrap=20, chance=20))


def repeats_of(predictions, seed=0):
    """The same compounds tested in three hold-outs drawn anew, scored a little worse each time."""
    stream = np.random.default_rng(seed)
    parts, folds = [], []
    for k in range(3):
        at = stream.permutation(N)[: N // 2]
        noise = stream.normal(size=(len(at), predictions.score.shape[1])) * 0.1 * (k + 1) ** 2
        parts.append((at, (predictions.score[at] + noise).astype(np.float32)))
        folds.append(np.full(len(at), k, np.int32))
    at = np.concatenate([p[0] for p in parts])
    score = np.concatenate([p[1] for p in parts])
    return Predictions(score, predictions.compounds[at], predictions.tasks, "m", fold=np.concatenate(folds))


def test_repeated_hold_outs_are_averaged_and_the_median_one_has_the_interval(screen):
    labels, predictions, *_ = screen
    scored = repeats_of(predictions)
    table = score_table(labels, scored, bootstrap=200, chance=20, repeated=True)
    entries = Entries.of(labels, scored)
    each = {
        str(k): score_table(labels, entries.take(np.flatnonzero(entries.fold == k)), bootstrap=200, chance=0)
        for k in range(3)
    }
    mean = mean_over_splits(each)
    for name in ("auroc", "average_precision", "f1", "kappa"):
        np.testing.assert_allclose(table[name], mean[name], equal_nan=True)
    median = median_split(each)
    assert median == "1"  # the noise grows
    assert table["interval_repeat"].unique().tolist() == [1]
    for name in ("auroc_low", "auroc_high", "interval"):
        pd.testing.assert_series_equal(table[name], each[median][name])
    pd.testing.assert_series_equal(table["interval_auroc"], each[median]["auroc"], check_names=False)
    wide = table["auroc_high"] - table["auroc_low"]
    folded = score_table(labels, scored, bootstrap=200, chance=0)
    assert "interval_repeat" not in folded
    # As folds, three times the compounds would seem to be known.
    assert (wide > 1.2 * (folded["auroc_high"] - folded["auroc_low"]))[[0, 1, 2]].all()


def test_without_a_task_defined_in_every_repeat_the_interval_is_of_the_mean(screen):
    labels, predictions, *_ = screen
    scored = repeats_of(predictions)
    entries = Entries.of(labels, scored)
    one_class = entries.take(np.flatnonzero((entries.fold != 2) | entries.y))
    table = score_table(labels, one_class, bootstrap=50, chance=0, repeated=True)
    assert (table["interval_repeat"] == -1).all()
    plain = score_table(labels, one_class, bootstrap=50, chance=0)
    pd.testing.assert_frame_equal(table[plain.columns.tolist()], plain)
    np.testing.assert_array_equal(table["interval_auroc"], table["auroc"])
