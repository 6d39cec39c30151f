from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from phenohit.data.predictions import Predictions
from phenohit.errors import FileError, ShapeError

SCORES = st.floats(0, 1, width=32)


def block(score, **more) -> Predictions:
    N, T = score.shape
    names = np.array([f"c{i // 2}" for i in range(N)], dtype=object)  # wells: compounds repeat
    return Predictions(score, names, [f"t{j}" for j in range(T)], "forest-profiles", **more)


@settings(max_examples=30, deadline=None)
@given(score=arrays(np.float32, (5, 3), elements=SCORES), fold=arrays(np.int32, 5, elements=st.integers(-1, 4)))
def test_block_round_trip_is_exact(tmp_path_factory, score, fold):
    before = block(score, spread=score[::-1].copy(), fold=fold)
    path = tmp_path_factory.mktemp("round") / "p.parquet"
    before.save(path)
    after = Predictions.load(path)
    np.testing.assert_array_equal(after.score, score)
    np.testing.assert_array_equal(after.spread, score[::-1])
    np.testing.assert_array_equal(after.fold, fold)
    assert after.compounds.tolist() == before.compounds.tolist()
    assert (after.tasks, after.model, after.kind) == (before.tasks, before.model, before.kind)


@settings(max_examples=30, deadline=None)
@given(entries=st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 2)), st.sampled_from([0.0, 0.25, 1.0])))
def test_entries_round_trip_keeps_scores_of_zero(tmp_path_factory, entries):
    where = np.array(list(entries), dtype=int).reshape(-1, 2)
    score = sparse.csr_matrix((list(entries.values()), (where[:, 0], where[:, 1])), shape=(5, 3), dtype=np.float32)
    path = tmp_path_factory.mktemp("round") / "p.parquet"
    block(score).save(path)
    after = Predictions.load(path).score.tocoo()
    found = {(int(i), int(j)): float(v) for i, j, v in zip(after.row, after.col, after.data, strict=True)}
    assert found == entries


def test_at_picks_the_measured_entries():
    score = np.arange(6, dtype=np.float32).reshape(2, 3) / 8
    Y = sparse.csr_matrix(([0.0, 1.0], ([0, 1], [2, 0])), shape=(2, 3))
    picked = block(score).at(Y).score
    assert picked.nnz == 2
    assert (picked[0, 2], picked[1, 0]) == (score[0, 2], score[1, 0])
    with pytest.raises(ShapeError, match=r"\(3, 3\)"):
        block(score).at(sparse.csr_matrix((3, 3)))


def test_take_keeps_the_parts_together():
    score = np.arange(8, dtype=np.float32).reshape(4, 2)
    part = block(score, fold=np.arange(4, dtype=np.int32)).take([3, 1])
    np.testing.assert_array_equal(part.score, score[[3, 1]])
    assert (part.fold.tolist(), part.compounds.tolist()) == ([3, 1], ["c1", "c0"])


def test_parts_that_do_not_fit_are_refused():
    score = np.zeros((2, 2), np.float32)
    score[1, 0] = np.nan
    with pytest.raises(ShapeError, match=r"'forest-profiles'.* 1\."):
        block(score)
    with pytest.raises(ShapeError, match="spread"):
        block(np.zeros((2, 2), np.float32), spread=np.zeros((2, 1), np.float32))
    with pytest.raises(ShapeError, match="fold"):
        block(np.zeros((2, 2), np.float32), fold=np.zeros(3, np.int32))


def test_truncated_or_foreign_files_are_named(tmp_path):
    path = tmp_path / "forest.parquet"
    block(np.zeros((20, 3), np.float32)).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileError, match=r"forest\.parquet"):
        Predictions.load(path)
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(FileError, match="no predictions"):
        Predictions.load(path)
