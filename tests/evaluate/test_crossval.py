from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ShapeError
from phenohit.evaluate.crossval import fit_all, fit_split
from phenohit.evaluate.splits import TEST, Folds, group_folds


def parts() -> tuple[Profiles, Labels, Folds]:
    rng = np.random.default_rng(3)
    names = [f"K{i}" for i in range(40)]
    X = rng.normal(size=(40, 3)).astype(np.float32)
    data = Profiles(X, pd.DataFrame({"Metadata_compound": names}), ["a", "b", "c"])
    tasks = pd.DataFrame({"task": ["t"], "assay": ["t"], "kind": "binary", "threshold": np.nan})
    Y = sparse.csr_matrix(((X[:, 0] > 0).astype(np.float32), (np.arange(40), np.zeros(40, int))), shape=(40, 1))
    labels = Labels(Y, pd.DataFrame({"compound": names}), tasks)
    rows = pd.DataFrame({"compound": names, "group": np.arange(40), "plate": ""})
    return data, labels, group_folds(np.arange(40), 4, labels=labels, rows=rows, seed=0, kind="compound")


def test_folds_of_other_rows_are_refused():
    """Folds over wells applied to compounds in another order would train on test compounds."""
    data, labels, folds = parts()
    order = np.roll(np.arange(40), 1)
    other = data.take(order), labels.take(order)
    with pytest.raises(ShapeError, match="same compounds in the same order"):
        fit_split("logistic", {}, *other, folds, 0)
    with pytest.raises(ShapeError, match="same compounds in the same order"):
        fit_all("logistic", {}, *other, folds)
    assert set(fit_split("logistic", {}, data, labels, folds, 0).compounds) < set(data.compounds)


def test_features_of_test_rows_have_no_part_in_the_fit():
    """Whatever stands in the rows held out, what was fitted scores the same rows the same."""
    data, labels, folds = parts()
    held = folds.rows_of(0, TEST)
    other = data.X.copy()
    other[held[1:]] *= 1000
    changed = data.with_features(other, data.features, "held-out rows changed")
    one, two = (fit_split("logistic", {}, d, labels, folds, 0) for d in (data, changed))
    at = [list(s.compounds).index(f"K{held[0]}") for s in (one, two)]
    assert one.score[at[0], 0] == two.score[at[1], 0]
