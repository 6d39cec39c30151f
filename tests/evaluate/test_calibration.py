"""Calibration against scikit-learn, closed forms and scores that are planted right or wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

import phenohit.evaluate.calibration as module
from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.errors import ConfigError, LabelError, ShapeError
from phenohit.evaluate.calibration import GROUPS, Training, calibration, wilson
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.splits import TEST, TRAIN, UNUSED, VALID, Folds


def screen(sharper: float = 1.0, N: int = 4000, T: int = 6, seed: int = 0, spread: float = 1.3):
    """Labels drawn from known probabilities, and scores whose logits are those of the truth times `sharper`."""
    stream = np.random.default_rng(seed)
    logit = stream.normal(-0.5, spread, size=(N, T))
    measured = stream.random((N, T)) < np.linspace(0.02, 0.9, T)
    row, column = np.nonzero(measured)
    y = stream.random(len(row)) < expit(logit[row, column])
    Y = sparse.csr_matrix((y.astype(np.float32), (row, column)), shape=(N, T))
    tasks = pd.DataFrame({"task": [f"t{i}" for i in range(T)], "assay": "a", "kind": "binary", "threshold": np.nan})
    labels = Labels(Y, pd.DataFrame({"compound": [f"c{i}" for i in range(N)]}), tasks)
    fold = stream.integers(0, 3, N).astype(np.int32)
    score = expit(sharper * logit).astype(np.float32)
    return labels, Predictions(score, labels.compounds["compound"].to_numpy(object), labels.task_names, "m", fold=fold)


def folds_of(labels: Labels, predictions: Predictions) -> Folds:
    return Folds.from_numbers(predictions.fold, labels.compounds)


def entry_arrays(labels, predictions):
    entries = Entries.of(labels, predictions)
    return entries.y, entries.score.astype(np.float64)


def head(table: pd.DataFrame, group: str = "all") -> pd.Series:
    return table[table["group"] == group].iloc[0]


@pytest.mark.parametrize("bins", [1, 5, 10, 20])
@pytest.mark.parametrize("block", [1000, 1 << 20])
def test_equals_scikit_learn(bins, block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    labels, predictions = screen(0.7)
    table = calibration(labels, predictions, bins=bins)
    table = table[table["group"] == "all"]
    y, score = entry_arrays(labels, predictions)
    share, mean = calibration_curve(y, score, n_bins=bins)
    assert len(table) == bins
    filled = table[table["n"] > 0]
    np.testing.assert_allclose(filled["share"], share)
    np.testing.assert_allclose(filled["score_mean"], mean)
    assert table["n"].sum() == len(y) == table["n_entries"].iloc[0]
    assert table["n_active"].sum() == y.sum()
    assert head(table)["brier"] == pytest.approx(brier_score_loss(y, score), rel=1e-12)
    weighted = np.sum(filled["n"] * np.abs(filled["share"] - filled["score_mean"])) / len(y)
    assert head(table)["ece"] == pytest.approx(weighted)


def test_reference_is_the_share_in_training():
    labels, predictions = screen(N=300)
    training = Training.of(labels, folds_of(labels, predictions))
    Y, measured = labels.Y.toarray(), labels.Y.copy()
    measured.data[:] = 1
    measured = measured.toarray() > 0
    error, n = 0.0, 0
    for k in range(3):
        train, test = predictions.fold != k, predictions.fold == k
        for t in range(len(labels.tasks)):
            known = Y[train & measured[:, t], t]
            assert training.measured[t, k] == len(known)
            assert training.active[t, k] == known.sum()
            tested = Y[test & measured[:, t], t]
            error += np.sum((tested - (known.sum() + 1) / (len(known) + 2)) ** 2)
            n += len(tested)
    table = head(calibration(labels, predictions, training=training))
    assert table["brier_reference"] == pytest.approx(error / n)
    assert table["brier_skill"] == pytest.approx(1 - table["brier"] / table["brier_reference"])
    assert table["reference"] == "active share of each task in training"
    alone = head(calibration(labels, predictions))
    assert alone["reference"] == "observed share of each task"
    assert alone["brier_reference"] < table["brier_reference"]  # it knows the answers


def test_training_is_by_compound_and_over_all_splits_of_a_fold():
    """Wells repeat a compound, validation rows count, unused and test rows do not; plate splits share a fold."""
    Y = sparse.csr_matrix((np.array([1, 0, 1, 1], np.float32), ([0, 1, 2, 3], [0, 0, 0, 0])), shape=(4, 1))
    tasks = pd.DataFrame({"task": ["t"], "assay": "a", "kind": "binary", "threshold": np.nan})
    labels = Labels(Y, pd.DataFrame({"compound": list("abcd")}), tasks)
    rows = pd.DataFrame({"compound": ["a", "a", "b", "c", "d", "x"], "group": range(6), "plate": ""})
    part = np.array(
        [[TRAIN, TRAIN], [TRAIN, UNUSED], [VALID, UNUSED], [TEST, TEST], [UNUSED, TRAIN], [TRAIN, TRAIN]], np.int8
    )
    training = Training.of(labels, Folds(part, rows, ["0.p0", "0.p1"], [0, 0]))
    assert training.measured.tolist() == [[2.0]]  # {a, b} and {a, d}
    assert training.active.tolist() == [[1.5]]


def test_a_share_of_training_has_no_skill():
    """What the base-rate baseline says is the reference itself."""
    labels, predictions = screen(N=900)
    training = Training.of(labels, folds_of(labels, predictions))
    share = (training.active + 1) / (training.measured + 2)
    same = Predictions(
        share.T[predictions.fold].astype(np.float32), predictions.compounds, predictions.tasks, "m",
        fold=predictions.fold,
    )  # fmt: skip
    assert head(calibration(labels, same, training=training))["brier_skill"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("sharper", "sign"), [(3.0, -1), (0.3, 1)])
def test_planted_errors_show(sharper, sign):
    """Over-confident scores: high bins hold fewer actives than said, low bins more; the reverse for timid ones."""
    right = head(calibration(*screen(1.0)))
    labels, predictions = screen(sharper)
    table = calibration(labels, predictions)
    wrong = head(table)
    assert right["ece"] < 2 * right["ece_calibrated"]
    assert wrong["ece"] > 8 * wrong["ece_calibrated"]
    assert wrong["brier"] > right["brier"]
    filled = table[(table["group"] == "all") & (table["n"] > 50)]
    off = np.sign(filled["share"] - filled["score_mean"]) * np.sign(filled["score_mean"] - 0.5)
    clear = (filled["score_mean"] < filled["share_low"]) | (filled["score_mean"] > filled["share_high"])
    assert clear.sum() >= len(filled) - 3
    assert (off[clear] == sign).all()


def test_expected_error_of_right_probabilities():
    """`ece_calibrated` is the mean over labels drawn from the scores themselves."""
    found, said = [], []
    for seed in range(60):
        row = head(calibration(*screen(1.0, N=150, seed=seed)))
        found.append(row["ece"])
        said.append(row["ece_calibrated"])
    assert np.mean(found) == pytest.approx(np.mean(said), rel=0.08)


def test_wilson_equals_scipy():
    n = np.array([0.0, 1, 7, 40, 1000])
    n_active = np.array([0.0, 1, 0, 11, 999])
    low, high = wilson(n_active, n, 0.9)
    assert np.isnan([low[0], high[0]]).all()
    for i in range(1, 5):
        peer = binomtest(int(n_active[i]), int(n[i])).proportion_ci(0.9, method="wilson")
        assert (low[i], high[i]) == pytest.approx((peer.low, peer.high), abs=1e-12)


def test_groups_are_tasks_by_their_labels():
    labels, predictions = screen(N=60)
    n = np.diff(labels.Y.tocsc().indptr)
    table = calibration(labels, predictions)
    assert table["grouped_by"].eq("labels").all()
    heads = table.drop_duplicates("group").set_index("group")
    expected = np.array([(n <= 10).sum(), ((n > 10) & (n <= 30)).sum(), (n > 30).sum()])
    assert (expected > 0).all()
    assert heads.loc[list(GROUPS), "n_tasks"].tolist() == expected.tolist()
    assert heads.loc[list(GROUPS), "n_entries"].sum() == heads.loc["all", "n_entries"] == labels.Y.nnz
    weighted = (heads.loc[list(GROUPS), "brier"] * heads.loc[list(GROUPS), "n_entries"]).sum() / labels.Y.nnz
    assert weighted == pytest.approx(heads.loc["all", "brier"])
    y, score = entry_arrays(labels, predictions)
    few = n[Entries.of(labels, predictions).task] <= 10
    assert heads.loc["0 to 10", "brier"] == pytest.approx(brier_score_loss(y[few], score[few]))
    in_training = calibration(labels, predictions, training=Training.of(labels, folds_of(labels, predictions)))
    assert in_training["grouped_by"].eq("labels in training").all()


def test_scores_that_are_no_probabilities_are_left_out():
    labels, predictions = screen(N=50)
    for kind, factor, why in (("pIC50", 1, "of kind pIC50"), ("probability", 3, "which are no probabilities")):
        other = Predictions(
            predictions.score * factor, predictions.compounds, predictions.tasks, "m", fold=predictions.fold, kind=kind
        )
        table = calibration(Labels(labels.Y, labels.compounds, labels.tasks.assign(threshold=0.5)), other)
        assert len(table) == 1
        assert why in table["skipped"][0]
        assert np.isnan(table["brier"][0])
    unfolded = Predictions(
        predictions.score, predictions.compounds, predictions.tasks, "m", fold=np.full(50, -1, np.int32)
    )
    assert calibration(labels, unfolded)["skipped"].tolist() == ["no measured entry was scored"]
    both = pd.concat([table, calibration(labels, predictions)], ignore_index=True)
    assert both.dtypes.equals(calibration(labels, predictions).dtypes)


def test_what_cannot_be():
    labels, predictions = screen(N=50)
    with pytest.raises(ConfigError, match="bins is 0"):
        calibration(labels, predictions, bins=0)
    with pytest.raises(ShapeError, match="they are of another split"):
        calibration(labels, predictions, training=Training(np.array([0]), np.ones((6, 1)), np.ones((6, 1))))
    doubled = Labels(labels.Y, pd.DataFrame({"compound": ["c0"] * 50}), labels.tasks)
    with pytest.raises(LabelError, match="one row per compound"):
        Training.of(doubled, folds_of(labels, predictions))


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 12),
    st.randoms(),
)
def test_properties(pairs, bins, random):
    """Counts add up, intervals hold their shares, bounds hold, and order is of no consequence."""

    def table(pairs):
        score, y = (np.array(v) for v in zip(*pairs, strict=True))
        Y = sparse.csr_matrix((y.astype(np.float32), (np.arange(len(y)), np.zeros(len(y), int))), shape=(len(y), 1))
        tasks = pd.DataFrame({"task": ["t"], "assay": "a", "kind": "binary", "threshold": np.nan})
        labels = Labels(Y, pd.DataFrame({"compound": [f"c{i}" for i in range(len(y))]}), tasks)
        names = labels.compounds["compound"].to_numpy(object)
        scored = Predictions(score.astype(np.float32)[:, None], names, ["t"], "m", fold=np.zeros(len(y), np.int32))
        return calibration(labels, scored, bins=bins)

    found = table(pairs)
    assert set(found["group"]) == {"all", GROUPS[int(len(pairs) > 10) + int(len(pairs) > 30)]}
    every = found[found["group"] == "all"]
    assert every["n"].sum() == len(pairs)
    filled = every[every["n"] > 0]
    assert (filled["score_mean"] >= filled["low"] - 1e-9).all()
    assert (filled["score_mean"] <= filled["high"] + 1e-9).all()
    assert (filled["share_low"] <= filled["share"] + 1e-12).all()
    assert (filled["share"] <= filled["share_high"] + 1e-12).all()
    row = every.iloc[0]
    assert 0 <= row["brier"] <= 1
    assert 0 <= row["ece"] <= 1
    assert row["ece"] ** 2 <= row["brier"] + 1e-12  # Jensen: what is off on average is off entry by entry
    random.shuffle(pairs)
    pd.testing.assert_frame_equal(found, table(pairs))
