from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.errors import ColumnError, LabelError, ShapeError
from phenohit.hits.rank import active_in, candidates, excluded, measured_in, same_assay


def make_labels(entries, keys, tasks=("X>5", "X>6", "Y"), assays=("X", "X", "Y"), kinds=None) -> Labels:
    """Labels from (key, task, value) triples; a 0 stays stored."""
    row = [list(keys).index(k) for k, _, _ in entries]
    column = [list(tasks).index(t) for _, t, _ in entries]
    Y = sparse.csr_matrix(
        (np.array([v for *_, v in entries], np.float32), (row, column)), shape=(len(keys), len(tasks))
    )
    table = pd.DataFrame(
        {"task": list(tasks), "assay": list(assays), "kind": kinds or ["binary"] * len(tasks), "threshold": np.nan}
    )
    return Labels(Y, pd.DataFrame({"compound": list(keys)}), table)


KEYS = ["A", "B", "C", "D", "E"]
LABELS = make_labels([("A", "X>5", 1), ("B", "X>6", 0), ("C", "Y", 1)], KEYS)
COMPOUNDS = pd.DataFrame({"compound": KEYS, "compound_id": [f"id{k}" for k in KEYS]})


def test_a_measurement_in_a_sibling_threshold_excludes_even_when_inactive():
    score = np.array([0.9, 0.8, 0.1, 0.5, 0.7], np.float32)
    table = candidates(LABELS, "X>5", score, COMPOUNDS)
    assert table["compound"].tolist() == ["E", "D", "C"]
    assert table["rank"].tolist() == [1, 2, 3]
    gone = excluded(LABELS, "X>5", score, COMPOUNDS)
    assert gone["id"].tolist() == ["idA", "idB"]
    assert set(gone["reason"]) == {"already measured in assay 'X'"}
    # For the other assay only C is measured.
    assert set(candidates(LABELS, "Y", score, COMPOUNDS)["compound"]) == set("ABDE")


def test_a_task_without_assay_name_stands_alone():
    labels = make_labels([("A", "t", 1), ("B", "u", 1)], KEYS, tasks=("t", "u"), assays=("", ""))
    assert same_assay(labels, "t").tolist() == [0]
    assert measured_in(labels, "t", COMPOUNDS).tolist() == [True, False, False, False, False]


def test_known_actives_are_those_of_the_task_not_of_its_siblings():
    labels = make_labels([("A", "X>5", 1), ("B", "X>5", 0), ("C", "X>6", 1)], KEYS)
    assert active_in(labels, "X>5", COMPOUNDS).tolist() == [True, False, False, False, False]


def test_a_score_that_is_not_finite_is_listed():
    score = np.array([0.9, 0.8, np.nan, 0.5, np.inf])
    assert candidates(LABELS, "X>5", score, COMPOUNDS)["compound"].tolist() == ["D"]
    gone = excluded(LABELS, "X>5", score, COMPOUNDS).set_index("id")["reason"]
    assert gone["idC"] == gone["idE"] == "has no finite score"


def test_percentile_is_the_share_scoring_strictly_lower():
    labels = make_labels([], KEYS)
    table = candidates(labels, "Y", np.array([1, 1, 2, 0, 0.5]), COMPOUNDS)
    assert table["compound"].tolist() == ["C", "A", "B", "E", "D"]  # the tie follows the key
    assert table["percentile"].tolist() == pytest.approx([80, 40, 40, 20, 0])


def test_labels_may_be_in_another_order_or_lack_compounds():
    labels = make_labels([("E", "Y", 1), ("A", "Y", 0), ("elsewhere", "Y", 1)], ["E", "elsewhere", "A"])
    table = candidates(labels, "Y", np.arange(5.0), COMPOUNDS)
    assert table["compound"].tolist() == ["D", "C", "B"]
    assert active_in(labels, "Y", COMPOUNDS).tolist() == [False, False, False, False, True]


@given(st.permutations(range(5)), st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=5, max_size=5))
@settings(max_examples=50, deadline=None)
def test_row_order_never_changes_the_ranking(order, score):
    score = np.array(score)
    one = candidates(LABELS, "Y", score, COMPOUNDS)
    two = candidates(LABELS, "Y", score[list(order)], COMPOUNDS.iloc[list(order)])
    pd.testing.assert_frame_equal(one.drop(columns="row"), two.drop(columns="row"))


def test_bad_input_is_named():
    score = np.zeros(5)
    with pytest.raises(LabelError, match=r"'X>55' is not among the 3 tasks. Nearest: X>5"):
        candidates(LABELS, "X>55", score, COMPOUNDS)
    values = make_labels([("A", "v", 6.3)], KEYS, tasks=("v",), assays=("v",), kinds=["value"])
    with pytest.raises(LabelError, match="thresholds"):
        candidates(values, "v", score, COMPOUNDS)
    with pytest.raises(ShapeError, match=r"shape \(4,\)"):
        candidates(LABELS, "Y", score[:4], COMPOUNDS)
    with pytest.raises(ShapeError, match="more than once: 'A'"):
        candidates(LABELS, "Y", score, COMPOUNDS.assign(compound=["A", "A", "C", "D", "E"]))
    with pytest.raises(ColumnError, match="'compound'"):
        candidates(LABELS, "Y", score, COMPOUNDS.drop(columns="compound"))
    wells = LABELS.to_rows(np.array(["A", "A"], dtype=object))
    with pytest.raises(LabelError, match="one row per compound"):
        candidates(wells, "Y", score, COMPOUNDS)
