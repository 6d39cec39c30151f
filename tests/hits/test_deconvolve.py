from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import false_discovery_control, fisher_exact, mannwhitneyu

from phenohit.data.labels import Labels
from phenohit.errors import LabelError, ShapeError
from phenohit.evaluate.compare import holm
from phenohit.hits.deconvolve import COLUMNS, deconvolve

NAMES = ["phenotype", "target", "noise 1", "noise 2", "phenotype, other cut-off"]


def screen(n=200, seed=0, shift=1.5):
    """Scores of which only `target` goes with the phenotype; labels of `target` on half the compounds."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 4 == 0).astype(np.float32)
    score = rng.normal(size=(n, 5))
    score[:, 1] += shift * y
    score[:, 4] += 5 * y
    hit = (rng.random(n) < np.where(y > 0, 0.7, 0.2)).astype(np.float32)
    half = np.flatnonzero(rng.random(n) < 0.5)
    row, column = np.concatenate([np.arange(n), half]), np.repeat([0, 1], [n, len(half)])
    Y = sparse.csr_matrix((np.concatenate([y, hit[half]]), (row, column)), shape=(n, 5))
    tasks = pd.DataFrame({"task": NAMES, "assay": ["P", "T", "N1", "N2", "P"], "kind": "binary", "threshold": np.nan})
    compounds = np.array([f"C{i}" for i in range(n)], dtype=object)
    return Labels(Y, pd.DataFrame({"compound": compounds}), tasks), compounds, score, y, hit, half


def test_the_planted_target_comes_first():
    labels, compounds, score, y, hit, half = screen()
    table = deconvolve(labels, "phenotype", compounds, score, NAMES, np.arange(200))
    assert table.columns.tolist() == COLUMNS
    assert table["task"].tolist()[0] == "target"
    assert set(table["task"]) == {"target", "noise 1", "noise 2"}  # the same assay at another cut-off is left out
    assert table["p_holm"].iloc[0] < 1e-6
    assert (table["p_holm"].iloc[1:] > 0.05).all()
    for row in table.itertuples():  # against scipy
        mine = score[:, NAMES.index(row.task)]
        peer = mannwhitneyu(mine[y > 0], mine[y == 0], alternative="greater", method="asymptotic")
        assert row.p == pytest.approx(peer.pvalue, rel=1e-6)
        assert row.auroc == pytest.approx(peer.statistic / (50 * 150), rel=1e-9)
    first = table.iloc[0]
    a, b = hit[half][y[half] > 0], hit[half][y[half] == 0]
    assert (first["active_measured"], first["active_hits"]) == (len(a), a.sum())
    expected = fisher_exact([[a.sum(), (1 - a).sum()], [b.sum(), (1 - b).sum()]], alternative="greater")[1]
    assert first["p_labels"] == pytest.approx(expected)
    assert table["p_labels"].iloc[1:].isna().all()
    assert first["p_labels_holm"] == pytest.approx(expected)  # the only one that could be tested


def test_analogues_count_once():
    labels, compounds, score, y, *_ = screen(shift=0.0)
    # One series holds half of the actives and scores high as a whole: 25 compounds, one witness.
    series = np.arange(200)
    family = np.flatnonzero(y > 0)[:25]
    series[family] = 1000
    score[family, 1] = 4 + 0.01 * np.arange(25)
    alone = deconvolve(labels, "phenotype", compounds, score, NAMES, np.full(200, -1)).set_index("task")
    together = deconvolve(labels, "phenotype", compounds, score, NAMES, series).set_index("task")
    assert alone.loc["target", "p"] < 1e-6
    assert together.loc["target", "p"] > 0.01
    assert together.loc["target", "n_active_series"] == 26
    assert alone.loc["target", "n_active_series"] == 50


def test_ties_and_flat_scores_are_no_evidence():
    labels, compounds, score, y, *_ = screen()
    score[:, 2] = 0.5
    score[:, 3] = np.round(score[:, 3])
    table = deconvolve(labels, "phenotype", compounds, score, NAMES, np.arange(200)).set_index("task")
    assert table.loc["noise 1", ["auroc", "p"]].tolist() == [0.5, 1.0]
    peer = mannwhitneyu(score[y > 0, 3], score[y == 0, 3], alternative="greater", method="asymptotic")
    assert table.loc["noise 2", "p"] == pytest.approx(peer.pvalue, rel=1e-6)


def test_null_p_values_are_uniform_enough():
    small = 0
    for seed in range(60):
        labels, compounds, score, *_ = screen(n=80, seed=seed, shift=0.0)
        small += (deconvolve(labels, "phenotype", compounds, score, NAMES, np.arange(80))["p"] < 0.1).sum()
    assert 6 <= small <= 32  # 18 of 180 expected; limits beyond 3 standard deviations


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, np.nan, 0.03])).tolist()[:2] == pytest.approx([0.03, 0.06])
    assert np.isnan(holm(np.array([np.nan]))).all()
    p = np.random.default_rng(0).random(50) ** 3
    assert (holm(p) >= false_discovery_control(p) - 1e-12).all()  # never bolder than Benjamini-Hochberg


def test_mistakes():
    labels, compounds, score, *_ = screen(n=8)
    with pytest.raises(LabelError, match="2 active and 6 inactive series"):
        deconvolve(labels, "phenotype", compounds, score, NAMES, np.arange(8))
    with pytest.raises(LabelError, match="Nearest: phenotype"):
        deconvolve(labels, "phenotyp", compounds, score, NAMES, np.arange(8))
    with pytest.raises(ShapeError, match="Scores have shape"):
        deconvolve(labels, "phenotype", compounds[:7], score, NAMES, np.arange(8))
