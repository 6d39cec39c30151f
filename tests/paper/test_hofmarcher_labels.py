"""The label matrix of Hofmarcher et al. (2019): counts as published, through the public reader."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from phenohit.config import ActivitySource
from phenohit.data.labels import Labels
from phenohit.labels.curate import read_activities, to_labels


def check(labels: Labels) -> None:
    counts = labels.counts()
    assert labels.Y.shape == (10_574, 209)
    assert labels.Y.nnz == 55_542
    assert (counts["n_active"].sum(), counts["n_inactive"].sum()) == (19_274, 36_268)
    assert ((counts["n_active"] >= 25) & (counts["n_inactive"] >= 25)).sum() == 62
    # Published densities: 0.87 % active, 1.64 % inactive, 97.49 % missing.
    shares = 100 * np.array([19_274, 36_268]) / (10_574 * 209)
    assert [round(s, 2) for s in (*shares, 100 - shares.sum())] == [0.87, 1.64, 97.49]


@pytest.fixture(scope="module")
def source(shared_data) -> ActivitySource:
    folder = shared_data / "labels-hti209"
    return ActivitySource(
        path=str(folder / "label_matrix.parquet"),
        format="wide",
        inchikey="inchikey",
        tasks=str(folder / "assay_index.csv"),
    )


def test_counts_from_the_wide_table(source):
    activities, lost = read_activities(source)
    labels, contradictions = to_labels(activities)
    check(labels)
    assert set(lost["id"]) == {"row", "smiles"}
    assert not len(contradictions)
    assert (labels.counts() >= 10).all(axis=None)  # all 209 keep 10 + 10
    assert labels.tasks["assay"].nunique() == 202  # the same assay at another cut-off
    again = labels.tasks.groupby("assay").size()
    assert again[again > 1].to_dict() == {"600885": 2, "688239": 2, "688422": 3, "688620": 2, "688816": 3}


def test_counts_from_matrix_market(source, tmp_path):
    table = pd.read_parquet(source.path)
    names = [c for c in table if c.startswith("Assay_")]
    values = table[names].to_numpy(dtype=np.float64, na_value=np.nan)
    row, column = np.nonzero(~np.isnan(values))
    matrix = sparse.coo_matrix((2 * values[row, column].astype(int) - 1, (row, column)), shape=values.shape)
    io.mmwrite(tmp_path / "labels.mtx", matrix)
    table[["row", "inchikey"]].to_csv(tmp_path / "rows.csv", index=False)
    labels, _ = to_labels(
        read_activities(
            ActivitySource(
                path=str(tmp_path / "labels.mtx"),
                format="matrix_market",
                kind="plus_minus",
                inchikey="inchikey",
                rows=str(tmp_path / "rows.csv"),
                tasks=source.tasks,
            )
        )[0]
    )
    check(labels)
    wide, _ = to_labels(read_activities(source)[0])
    assert labels.task_names == wide.task_names
    assert (labels.Y != wide.Y).nnz == 0
    np.testing.assert_array_equal(labels.Y.indices, wide.Y.indices)  # the same entries are stored


def test_labels_survive_saving(source, tmp_path):
    labels, _ = to_labels(read_activities(source)[0])
    labels.save(tmp_path / "labels.parquet")
    check(Labels.load(tmp_path / "labels.parquet"))
