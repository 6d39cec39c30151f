from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.errors import ColumnError, FileError, LabelError, ShapeError


def make(entries: dict[tuple[int, int], float], N: int, T: int, kind: str = "binary") -> Labels:
    where = np.array(list(entries), dtype=int).reshape(-1, 2)
    Y = sparse.csr_matrix((list(entries.values()), (where[:, 0], where[:, 1])), shape=(N, T), dtype=np.float32)
    tasks = [f"t{j}" for j in range(T)]
    return Labels(
        Y,
        pd.DataFrame({"compound": [f"c{i}" for i in range(N)]}),
        pd.DataFrame({"task": tasks, "assay": tasks, "kind": kind, "threshold": np.nan}),
    )


def stored(labels: Labels) -> dict[tuple[int, int], float]:
    coo = labels.Y.tocoo()
    return {(int(i), int(j)): float(v) for i, j, v in zip(coo.row, coo.col, coo.data, strict=True)}


ENTRIES = st.dictionaries(st.tuples(st.integers(0, 6), st.integers(0, 4)), st.sampled_from([0.0, 1.0]))


@settings(max_examples=40, deadline=None)
@given(entries=ENTRIES)
def test_round_trip_keeps_measured_inactives_and_empty_rows(tmp_path_factory, entries):
    before = make(entries, 7, 5)
    path = tmp_path_factory.mktemp("round") / "labels.parquet"
    before.save(path)
    after = Labels.load(path)
    assert stored(after) == entries
    assert after.compounds["compound"].tolist() == before.compounds["compound"].tolist()
    assert after.task_names == before.task_names


@settings(max_examples=40, deadline=None)
@given(entries=ENTRIES, rows=st.lists(st.integers(0, 6), max_size=8), tasks=st.permutations(range(5)))
def test_taking_rows_and_tasks_keeps_stored_zeros(entries, rows, tasks):
    labels = make(entries, 7, 5)
    part = labels.take(rows).take_tasks(tasks[:3])
    expected = {
        (i, j): entries[row, task]
        for i, row in enumerate(rows)
        for j, task in enumerate(tasks[:3])
        if (row, task) in entries
    }
    assert stored(part) == expected


@given(entries=ENTRIES)
def test_counts_are_of_stored_entries(entries):
    counts = make(entries, 7, 5).counts()
    for j in range(5):
        column = [v for (_, task), v in entries.items() if task == j]
        assert counts["n_active"][j] == sum(v == 1 for v in column)
        assert counts["n_inactive"][j] == sum(v == 0 for v in column)


def test_wells_repeat_the_labels_of_their_compound():
    labels = make({(0, 0): 0.0, (1, 1): 1.0}, 2, 2)
    wells = labels.to_rows(np.array(["c1", "c0", "unknown", "c1"], dtype=object))
    assert stored(wells) == {(0, 1): 1.0, (1, 0): 0.0, (3, 1): 1.0}
    assert wells.compounds["compound"].tolist() == ["c1", "c0", "unknown", "c1"]
    with pytest.raises(LabelError, match="repeat"):
        wells.save("never-written.parquet")


def test_two_entries_for_one_cell_are_refused():
    twice = sparse.csr_matrix((np.ones(2, np.float32), np.array([0, 0]), np.array([0, 2])), shape=(1, 1))
    tasks = pd.DataFrame({"task": ["t"], "assay": ["t"], "kind": ["binary"], "threshold": [np.nan]})
    with pytest.raises(LabelError, match="two entries"):
        Labels(twice, pd.DataFrame({"compound": ["c"]}), tasks)


@pytest.mark.parametrize("value", [2.0, -1.0, np.nan, np.inf])
def test_impossible_binary_labels_are_refused(value):
    with pytest.raises(LabelError):
        make({(0, 0): value}, 1, 1)


def test_value_tasks_take_any_finite_number():
    assert make({(0, 0): 6.5}, 1, 1, kind="value").counts()["n_active"][0] == 1
    with pytest.raises(LabelError, match="finite"):
        make({(0, 0): np.inf}, 1, 1, kind="value")


def test_parts_that_do_not_fit_are_refused():
    good = make({(0, 0): 1.0}, 2, 2)
    with pytest.raises(ShapeError, match=r"\(2, 2\)"):
        Labels(good.Y, good.compounds[:1], good.tasks)
    with pytest.raises(ColumnError, match="'kind'"):
        Labels(good.Y, good.compounds, good.tasks.drop(columns="kind"))
    with pytest.raises(LabelError, match="'t0'"):
        Labels(good.Y, good.compounds, good.tasks.assign(task="t0"))


def test_truncated_or_foreign_files_are_named(tmp_path):
    path = tmp_path / "labels.parquet"
    make({(0, 0): 1.0}, 2, 2).save(path)
    tasks = path.with_suffix(".tasks.parquet")
    whole = tasks.read_bytes()
    tasks.write_bytes(whole[:-20])
    with pytest.raises(FileError, match=r"labels\.tasks\.parquet"):
        Labels.load(path)
    tasks.write_bytes(whole)
    make({}, 1, 1).save(tmp_path / "other.parquet")
    (tmp_path / "other.compounds.parquet").replace(path.with_suffix(".compounds.parquet"))
    (tmp_path / "other.tasks.parquet").replace(tasks)
    assert stored(Labels.load(path)) == {(0, 0): 1.0}
    with pytest.raises(FileError, match="no labels"):
        Labels.load(path.with_suffix(".compounds.parquet"))


def test_one_task_is_read_without_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("phenohit.data.labels._ROW_GROUP", 50)
    rng = np.random.default_rng(0)
    dense = rng.random((40, 12)) < 0.5
    compounds = pd.DataFrame({"compound": [f"C{i:02d}" for i in range(40)]})
    names = [f"t{j:02d}" for j in range(12)]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    labels = Labels(sparse.csr_matrix(np.ones((40, 12), np.float32)), compounds, tasks)
    labels.Y.data[:] = dense.ravel()
    labels.save(tmp_path / "labels.parquet")
    path = tmp_path / "labels.parquet"
    file = pq.ParquetFile(path)
    content = bytearray(path.read_bytes())
    for g in range(file.num_row_groups):  # all that does not hold t05 is made unreadable
        group = file.metadata.row_group(g)
        if not group.column(1).statistics.min <= "t05" <= group.column(1).statistics.max:
            for c in range(3):
                column = group.column(c)
                start = column.dictionary_page_offset or column.data_page_offset
                content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(bytes(content))
    one = Labels.load(path, ["t05"])
    assert one.task_names == ["t05"]
    np.testing.assert_array_equal(one.Y.toarray()[:, 0], dense[:, 5])
    with pytest.raises(FileError):
        Labels.load(path)
    with pytest.raises(LabelError, match="no task 't5'"):
        Labels.load(path, ["t5"])
