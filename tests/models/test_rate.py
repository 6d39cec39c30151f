"""Base rates and plate rates, counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, ShapeError
from phenohit.models.rate import Rate


def screen(X: list[list[float]], Y: list[list[float]]) -> tuple[Profiles, Labels]:
    dense = np.array(Y, dtype=float)
    row, column = np.nonzero(~np.isnan(dense))
    keys = pd.DataFrame({"compound": [f"C{i}" for i in range(len(X))]})
    names = [f"t{j}" for j in range(dense.shape[1])]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    rows = keys.rename(columns={"compound": "Metadata_compound"})
    features = [f"plate {p}" for p in range(len(X[0]))]
    Y_csr = sparse.csr_matrix((dense[row, column].astype(np.float32), (row, column)), shape=dense.shape)
    return Profiles(np.array(X, dtype=np.float32), rows, features), Labels(Y_csr, keys, tasks)


NO = float("nan")
PLATES = [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
LABELS = [[1, 0], [1, NO], [NO, NO], [0, 0], [0, 1], [1, 1]]


def test_by_all_is_the_smoothed_share() -> None:
    data, labels = screen(PLATES, LABELS)
    score = Rate().fit(data, labels).predict(data).score
    np.testing.assert_allclose(score, np.tile([4 / 7, 3 / 6], (6, 1)), rtol=1e-6)


def test_by_plate_is_counted_per_plate() -> None:
    data, labels = screen(PLATES, LABELS)
    model = Rate(by="plate", smoothing=2.0).fit(data, labels)
    base = np.array([4 / 7, 3 / 6])
    rates = np.array(
        [
            [(2 + 2 * base[0]) / 4, (0 + 2 * base[1]) / 3],
            [(0 + 2 * base[0]) / 4, (1 + 2 * base[1]) / 4],
            [(1 + 2 * base[0]) / 3, (1 + 2 * base[1]) / 3],
        ]
    )
    np.testing.assert_allclose(model.predict(data).score, np.array(PLATES) @ rates, rtol=1e-6)


def test_fractions_are_averaged_and_rows_without_plate_get_the_share() -> None:
    data, labels = screen(PLATES, LABELS)
    model = Rate(by="plate").fit(data, labels)
    single = model.predict(data).score[[0, 3]]
    mixed, _ = screen([[0.5, 0.5, 0], [2, 2, 0], [0, 0, 0]], [[NO, NO]] * 3)
    score = model.predict(mixed).score
    np.testing.assert_allclose(score[0], single.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(score[1], single.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(score[2], [4 / 7, 3 / 6], rtol=1e-6)


def test_many_rows_are_scored_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    data, labels = screen(PLATES, LABELS)
    model = Rate(by="plate").fit(data, labels)
    whole = model.predict(data).score
    monkeypatch.setattr("phenohit.models.rate._ROWS", 2)
    np.testing.assert_array_equal(model.predict(data).score, whole)


def test_what_is_no_plate_column_is_refused() -> None:
    data, labels = screen([[1, -0.5, 0], *PLATES[1:]], LABELS)
    with pytest.raises(ShapeError, match="'plate 1' holds negative"):
        Rate(by="plate").fit(data, labels)
    with pytest.raises(ConfigError, match="'smoothing' is 0"):
        Rate(smoothing=0)
    with pytest.raises(ConfigError, match="'by' of model 'rate' is 'well'"):
        Rate(by="well")
