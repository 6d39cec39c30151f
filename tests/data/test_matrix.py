"""Packed and sparse feature tables read as the unpacked matrix would, whatever is asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from phenohit.data.matrix import RowMatrix, stack_rows, take_rows
from phenohit.data.profiles import Profiles
from phenohit.errors import ShapeError
from phenohit.profiles.prepare import Prepare

KEYS = (slice(None), slice(1, 4), np.array([3, 0, 3]), np.array([True, False] * 3), 2, -1, slice(0, 0))


def pair(kind: str, seed: int = 0) -> tuple[RowMatrix, np.ndarray]:
    rng = np.random.default_rng(seed)
    dense = (rng.random((6, 80)) < 0.3).astype(np.float32)
    if kind == "sparse":
        dense *= rng.normal(size=dense.shape).astype(np.float32)
        return RowMatrix(sparse.csr_matrix(dense)), dense
    return RowMatrix(np.packbits(dense.astype(bool), axis=1)), dense


@pytest.mark.parametrize("kind", ["bits", "sparse"])
def test_reads_as_the_dense_matrix(kind: str) -> None:
    packed, dense = pair(kind)
    assert packed.shape == dense.shape
    assert len(packed) == 6
    for rows in KEYS:
        np.testing.assert_array_equal(packed[rows], dense[rows])
        for columns in (slice(None), slice(3, 60), np.array([79, 0, 5]), 7, -1):
            np.testing.assert_array_equal(packed[rows, columns], dense[rows][..., columns])
    assert packed[np.array([1])].dtype == np.float32
    assert packed.affine(np.arange(1, 70))[:].flags.c_contiguous
    assert packed[:, np.array([3, 7])].flags.c_contiguous


@pytest.mark.parametrize("kind", ["bits", "sparse"])
def test_rows_and_columns_are_taken_without_unpacking(kind: str) -> None:
    packed, dense = pair(kind)
    kept = np.array([2, 40, 41, 79])
    shift, scale = np.array([0.5, 0, 1, 2]), np.array([2.0, 1, 4, 8])
    moved = packed.take([5, 1]).affine(kept, shift, scale)
    np.testing.assert_allclose(moved[:], (dense[[5, 1]][:, kept] - shift) / scale, rtol=1e-6)
    np.testing.assert_allclose(moved[:, 2], (dense[[5, 1], 41] - 1) / 4)
    again = stack_rows([moved, take_rows(moved, [0])])
    assert isinstance(again, RowMatrix)
    np.testing.assert_array_equal(again[:], moved[:][[0, 1, 0]])
    with pytest.raises(ShapeError, match="once"):
        moved.affine(np.array([0]))
    np.testing.assert_array_equal(packed.affine(kept).csr().toarray(), dense[:, kept])


def test_ordinary_arrays_stay_ordinary() -> None:
    X = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert isinstance(take_rows(X, [1]), np.ndarray)
    np.testing.assert_array_equal(stack_rows([X, X]), np.vstack([X, X]))
    with pytest.raises(ShapeError, match="uint8"):
        RowMatrix(X)


@given(st.integers(0, 1_000), st.sampled_from(["each", "common", "none"]))
def test_preparing_packed_bits_gives_what_preparing_the_unpacked_gives(seed: int, how: str) -> None:
    packed, dense = pair("bits", seed)
    rows = pd.DataFrame({"Metadata_compound": [f"C{i}" for i in range(6)]})
    names = [f"bit_{i}" for i in range(80)]
    options = {"prune": how == "each", "scale": how != "none", "common": how == "common"}
    results = []
    for X in (packed, dense):
        profiles = Profiles(X, rows, names)
        prepare = Prepare.fit(profiles.take([0, 1, 2, 3, 4]), **options)
        results.append((prepare.kept, prepare.apply(profiles)))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1].X[:], results[1][1].X, atol=1e-6)
    assert results[0][1].history == results[1][1].history
