from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.errors import ConfigError
from phenohit.hits import annotate
from phenohit.hits.annotate import COLUMNS, Sureness, blocks_of_compounds, write_annotation

N, T = 50, 3
TASKS = ["=a >= 6", "b", "c"]


def library(seed=0):
    """Two wells per compound in mixed order, the last compound without any; scores known."""
    rng = np.random.default_rng(seed)
    row_compound = rng.permutation(np.repeat(np.arange(N - 1), 2)).astype(np.intp)
    score = rng.random((len(row_compound), T)).astype(np.float32)
    compounds = pd.DataFrame({"compound": [f"K{i}" for i in range(N)], "compound_id": [f"-{i}x" for i in range(N)]})
    Y = sparse.csr_matrix(([1.0, 0.0], ([0, 1], [1, 1])), shape=(N, T), dtype=np.float32)
    tasks = pd.DataFrame({"task": TASKS, "assay": TASKS, "kind": "binary", "threshold": np.nan})
    return row_compound, score, compounds, Labels(Y, compounds, tasks)


def calibration() -> pd.DataFrame:
    """Shares by bin of two groups; the small group knows only its lowest bin."""
    edges = np.linspace(0, 1, 11)
    rows = []
    for group, share, n in (("all", np.linspace(0.05, 0.95, 10), 100), ("0 to 10", np.full(10, 0.2), 0)):
        for b in range(10):
            held = 40 if group != "all" and b == 0 else n
            rows.append(
                {"group": group, "bin": b, "low": edges[b], "high": edges[b + 1], "n": held, "share": share[b],
                 "share_low": share[b] - 0.05, "share_high": share[b] + 0.05}
            )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_blocks_hold_whole_compounds_once(size):
    row_compound, *_ = library()
    blocks = list(blocks_of_compounds(row_compound, N, size))
    assert sorted(np.concatenate(blocks).tolist()) == list(range(len(row_compound)))
    for number, rows in enumerate(blocks):
        assert set(row_compound[rows] // size) <= {number}


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_library_in_small_blocks_is_the_mean_of_its_wells(tmp_path, monkeypatch, ending):
    row_compound, score, compounds, labels = library()
    monkeypatch.setattr(annotate, "_ENTRIES", 7 * T)
    path = tmp_path / f"a.{ending}"
    sizes = []

    def predict(rows):
        sizes.append(len(rows))
        return score[rows]

    sure = Sureness(calibration(), np.array([500, 5, 20]))
    total = write_annotation(path, TASKS, compounds, row_compound, predict, labels, sure)
    assert max(sizes) <= 14
    table = pd.read_parquet(path) if ending == "parquet" else pd.read_csv(path, keep_default_na=False)
    assert table.columns.tolist() == COLUMNS
    assert len(table) == total["rows"] == (N - 1) * T  # the compound without a well has no score
    expected = pd.DataFrame(score).groupby(row_compound).mean().to_numpy()
    np.testing.assert_allclose(table["score"].to_numpy(float).reshape(N - 1, T), expected, rtol=1e-6)
    assert (table["call"].astype(str) == np.where(expected.ravel() >= 0.5, "active", "inactive")).all()
    assert total["active"] == (expected >= 0.5).sum()
    assert table["measured"].astype(str).tolist()[1::3][:3] == ["active", "inactive", ""]
    first = ["=a >= 6", "-0x"] if ending == "parquet" else ["'=a >= 6", "'-0x"]
    assert table[["task", "compound_id"]].astype(str).iloc[0].tolist() == first
    assert table["compound"].astype(str).iloc[0] == "K0"


def test_sureness_is_the_share_of_right_calls_in_the_tasks_own_group():
    sure = Sureness(calibration(), np.array([500, 5]))
    call, share, low, n = sure.of(np.array([[0.05, 0.05], [0.95, 0.95], [0.55, 0.07]], np.float32))
    assert call.tolist() == [["inactive", "inactive"], ["active", "active"], ["active", "inactive"]]
    # 'over 30' is not there: all tasks. The small task's own bin where it has entries, else all tasks.
    np.testing.assert_allclose(share, [[0.95, 0.8], [0.95, 0.95], [0.55, 0.8]], atol=1e-6)
    np.testing.assert_allclose(low, [[0.9, 0.75], [0.9, 0.9], [0.5, 0.75]], atol=1e-6)
    assert n.tolist() == [[100, 40], [100, 100], [100, 40]]


def test_nothing_is_said_where_nothing_is_known(tmp_path):
    row_compound, score, compounds, labels = library()
    few = calibration().assign(n=3)
    skipped = pd.DataFrame({"group": ["all"], "bin": [-1]})
    for table in (None, few, skipped):
        call, share, _, _ = Sureness(table, np.array([50])).of(np.array([[0.7]], np.float32))
        assert call.tolist() == [["active"]]
        assert np.isnan(share).all()
    path = tmp_path / "a.parquet"
    write_annotation(path, TASKS[1:], compounds, row_compound, lambda rows: score[rows, 1:], labels, None)
    table = pd.read_parquet(path)
    assert (table["call"].astype(str) == "").all()
    assert table["sureness"].isna().all()
    assert table["task"].astype(str).unique().tolist() == TASKS[1:]
    with pytest.raises(ConfigError, match="must end in"):
        write_annotation(tmp_path / "a.txt", TASKS, compounds, row_compound, lambda rows: score[rows], labels, None)
