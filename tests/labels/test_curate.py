from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenohit.labels.curate import Activities, merge_repeats, to_labels

MEASURED = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 2), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40
)


def activities(entries, kind="binary", thresholds=()) -> Activities:
    table = pd.DataFrame(entries, columns=["compound", "assay", "value"])
    n_compounds, n_assays = table["compound"].max() + 1, table["assay"].max() + 1
    return Activities(
        table.assign(row=np.arange(len(table))),
        pd.DataFrame({"compound": [f"c{i}" for i in range(n_compounds)]}),
        pd.DataFrame({"name": [f"a{j}" for j in range(n_assays)], "assay": [f"a{j}" for j in range(n_assays)]}),
        kind,
        thresholds,
    )


@given(entries=MEASURED)
def test_majority_decides_and_ties_are_unmeasured(entries):
    labels, lost = to_labels(activities(entries))
    votes = defaultdict(list)
    for compound, assay, value in entries:
        votes[f"c{compound}", f"a{assay}"].append(value)
    expected = {k: float(np.mean(v) > 0.5) for k, v in votes.items() if np.mean(v) != 0.5}
    coo = labels.Y.tocoo()
    names = labels.compounds["compound"].tolist()
    assert {(names[i], f"a{j}"): v for i, j, v in zip(coo.row, coo.col, coo.data, strict=True)} == expected
    against = {f"{c} in {a}" for (c, a), v in votes.items() if len(set(v)) > 1}
    assert set(lost["id"]) == against
    ties = {f"{c} in {a}" for (c, a), v in votes.items() if np.mean(v) == 0.5}
    assert set(lost.loc[lost["reason"].str.contains("tie"), "id"]) == ties
    assert labels.tasks["n_active"].sum() == sum(expected.values())


@given(entries=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.floats(3, 10)), min_size=1, max_size=30))
def test_values_are_averaged_not_summed(entries):
    labels, lost = to_labels(activities(entries, kind="value"))
    expected = pd.DataFrame(entries).groupby([0, 1])[2].mean()
    coo = labels.Y.tocoo()
    names = labels.compounds["compound"].tolist()
    found = {(int(names[i][1:]), int(j)): v for i, j, v in zip(coo.row, coo.col, coo.data, strict=True)}
    assert found.keys() == set(expected.index)
    np.testing.assert_allclose([found[k] for k in expected.index], expected, rtol=1e-6)
    assert (labels.tasks["kind"] == "value").all()
    assert not len(lost)


def test_thresholds_make_tasks_of_the_mean():
    entries = [(0, 0, 4.0), (0, 0, 4.0), (1, 0, 6.4), (1, 0, 6.6), (2, 1, 5.5), (3, 1, 9.0)]
    labels, _ = to_labels(activities(entries, kind="value", thresholds=(5.5, 6.5)))
    assert labels.task_names == ["a0 >= 5.5", "a0 >= 6.5", "a1 >= 5.5", "a1 >= 6.5"]
    assert labels.tasks["assay"].tolist() == ["a0", "a0", "a1", "a1"]
    assert labels.tasks["threshold"].tolist() == [5.5, 6.5, 5.5, 6.5]
    assert set(labels.tasks["kind"]) == {"threshold"}
    # Two measurements of 4.0 are inactive (a sum of 8.0 would not be); at the threshold is active.
    assert labels.Y.toarray()[:2, :2].tolist() == [[0, 0], [1, 1]]
    assert labels.Y.toarray()[2:, 2:].tolist() == [[1, 0], [1, 1]]
    assert labels.Y.nnz == 8
    assert labels.tasks["n_active"].tolist() == [1, 1, 2, 1]


def test_other_thresholds_can_be_asked_for():
    labels, _ = to_labels(activities([(0, 0, 6.0)], kind="value", thresholds=(5.5,)), thresholds=[7])
    assert labels.task_names == ["a0 >= 7"]


@pytest.mark.parametrize("value", [6.5, 5.1, 7.7])
def test_rounding_does_not_push_a_repeated_value_below_its_threshold(value):
    entries = [(0, 0, value)] * 3
    labels, _ = to_labels(activities(entries, kind="value", thresholds=(value,)))
    assert labels.Y.toarray().tolist() == [[1]]


def test_merged_counts():
    row, column = np.array([1, 0, 1, 1]), np.array([0, 1, 0, 0])
    merged = merge_repeats(row, column, np.array([1.0, 0.0, 0.0, 1.0]), mean=False, n_columns=2)
    assert merged.row.tolist() == [0, 1]
    assert merged.column.tolist() == [1, 0]
    assert merged.value.tolist() == [0, 1]
    assert (merged.n.tolist(), merged.n_active.tolist()) == ([1, 3], [0, 2])


def test_compounds_with_nothing_but_ties_leave():
    labels, lost = to_labels(activities([(0, 0, 1.0), (0, 0, 0.0), (1, 0, 0.0)]))
    assert labels.compounds["compound"].tolist() == ["c1"]
    assert lost["reason"].tolist() == ["1 of 2 repeats are active: a tie, taken as not measured"]
