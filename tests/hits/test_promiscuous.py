from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import binomtest

from phenohit.data.labels import Labels
from phenohit.hits.filter import NOT_KNOWN, Evidence
from phenohit.hits.promiscuous import activity, lower_bound, promiscuous


def labels_of(dense, assays=None, kinds=None) -> Labels:
    """Make labels of a dense table; NaN is not measured."""
    dense = np.array(dense, dtype=np.float32)
    row, column = np.nonzero(~np.isnan(dense))
    Y = sparse.csr_matrix((dense[row, column], (row, column)), shape=dense.shape)
    T = dense.shape[1]
    tasks = pd.DataFrame({"task": [f"t{j}" for j in range(T)], "assay": assays or [f"a{j}" for j in range(T)]})
    tasks = tasks.assign(kind=kinds or ["binary"] * T, threshold=np.nan)
    return Labels(Y, pd.DataFrame({"compound": [f"C{i}" for i in range(len(dense))]}), tasks)


def screen(n=400, T=40, rate=0.02, seed=0) -> np.ndarray:
    """A matrix of rare, independent hits."""
    return (np.random.default_rng(seed).random((n, T)) < rate).astype(np.float32)


@given(st.integers(0, 30), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_the_lower_end_is_the_exact_one(k, m):
    k = min(k, m)
    exact = binomtest(k, m, alternative="greater").proportion_ci(0.95, method="exact").low
    assert lower_bound(np.array([k]), np.array([m]))[0] == pytest.approx(exact, abs=1e-9)


def test_a_planted_frequent_hitter_is_found_and_one_of_one_is_not():
    dense = screen()
    dense[0, :30] = 1
    dense[1] = np.nan
    dense[1, 3] = 1  # one of one
    dense[2] = np.nan
    dense[2, :4] = 1  # four of four: still too few
    dense[3] = np.nan
    dense[3, :6] = 1
    table = pd.DataFrame({"compound": [*(f"C{i}" for i in range(len(dense))), "never measured"]})
    found = promiscuous(table, Evidence("t39", labels_of(dense)))
    assert found[0].startswith("active in 30 of 39 other assays: at least ")
    assert found[1] == found[2] == found[-1] == NOT_KNOWN
    assert found[3].startswith("active in 6 of 6")
    assert (found[4:-1] == "").all()


def test_where_every_assay_is_full_of_hits_nobody_is_a_frequent_hitter():
    dense = screen(rate=0.6)
    found = promiscuous(
        pd.DataFrame({"compound": [f"C{i}" for i in range(len(dense))]}), Evidence("", labels_of(dense))
    )
    assert (found == "").all()


def test_own_assay_and_values_do_not_count_and_thresholds_count_once():
    nan = np.nan
    dense = [[1, 1, 0, 1, 7.5], [0, 0, nan, nan, 5.0], [nan, nan, nan, 1, nan]]
    kinds = ["threshold", "threshold", "binary", "binary", "value"]
    labels = labels_of(dense, assays=["A", "A", "B", "", "B"], kinds=kinds)
    table = activity(labels, "t2")
    assert table["measured"].tolist() == [2, 1, 1]  # A once, and the task without an assay
    assert table["active"].tolist() == [2, 0, 1]
    assert table["expected"].tolist() == pytest.approx([0.75, 0.5, 1.0])
    assert activity(labels, "")["measured"].tolist() == [3, 1, 1]
    assert activity(labels, "t0")["measured"].tolist() == [2, 0, 1]
    assert len(activity(None, "")) == 0
    assert (promiscuous(pd.DataFrame({"compound": ["C0"]}), Evidence()) == NOT_KNOWN).all()


def test_real_labels_hold_a_few(real):
    labels = real["labels"]
    found = promiscuous(labels.compounds, Evidence("Assay_2", labels))
    share = np.mean([text.startswith("active in") for text in found])
    assert 0 < share < 0.05
    assert (found == NOT_KNOWN).any()
