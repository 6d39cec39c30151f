"""Metrics averaged over splits, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.errors import ColumnError, ShapeError
from phenohit.evaluate.compare import compare
from phenohit.evaluate.replicates import mean_over_splits, median_split


def table(tasks, auroc, f1=None):
    values = pd.DataFrame({"task": list(tasks), "assay": [t.upper() for t in tasks], "auroc": auroc, "text": "x"})
    return values if f1 is None else values.assign(f1=f1)


THREE = {
    "0": table("abc", [0.6, np.nan, np.nan], [0.1, 0.2, np.nan]),
    "1": table("cab", [np.nan, 0.9, 0.8], [np.nan, np.nan, 0.4]),
    "2": table("bad", [0.6, 0.3, 1.0], [0.6, 0.3, 0.5]),
}


def test_means_and_counts_by_hand():
    found = mean_over_splits(THREE).set_index("task")
    assert found.columns.tolist() == ["assay", "n_splits", "auroc", "auroc_defined", "f1", "f1_defined"]
    assert found["assay"].to_dict() == {"a": "A", "b": "B", "c": "C", "d": "D"}
    assert found["n_splits"].to_dict() == {"a": 3, "b": 3, "c": 2, "d": 1}
    assert found["auroc_defined"].to_dict() == {"a": 3, "b": 2, "c": 0, "d": 1}
    assert found["f1_defined"].to_dict() == {"a": 2, "b": 3, "c": 0, "d": 1}
    np.testing.assert_allclose(found["auroc"], [0.6, 0.7, np.nan, 1.0])
    np.testing.assert_allclose(found["f1"], [0.2, 0.4, np.nan, 0.5])


def test_tasks_defined_too_rarely_become_nan():
    found = mean_over_splits(THREE, metrics=["auroc"], least=2).set_index("task")
    np.testing.assert_allclose(found["auroc"], [0.6, 0.7, np.nan, np.nan])
    assert found["auroc_defined"].tolist() == [3, 2, 0, 1]
    assert "f1" not in found


def test_one_split_stays_as_it_is_and_means_can_be_compared():
    stream = np.random.default_rng(0)
    tasks = [f"t{i}" for i in range(30)]
    tables = {str(s): table(tasks, stream.random(30)) for s in range(3)}
    one = mean_over_splits({"0": tables["0"]})
    np.testing.assert_array_equal(one["auroc"], tables["0"]["auroc"])
    mean = mean_over_splits(tables)
    np.testing.assert_allclose(mean["auroc"], np.mean([t["auroc"] for t in tables.values()], axis=0))
    better = mean.assign(auroc=mean["auroc"] + 0.1)
    assert compare({"a": better, "b": mean})["p_value"].tolist() == pytest.approx([0.5**30, 1], abs=1e-5)


def test_median_split():
    tables = {str(s): table("ab", [level, level + 0.1]) for s, level in enumerate((0.7, 0.5, 0.6))}
    assert median_split(tables) == "2"
    assert median_split(dict(list(tables.items())[:2])) == "1"
    # Task b is defined once: what it says of that split does not count.
    tables["2"] = table("ab", [0.4, 1.0])
    tables["0"].loc[1, "auroc"] = np.nan
    assert median_split(tables) == "1"


def test_what_is_wrong_is_said():
    with pytest.raises(ShapeError, match="no splits"):
        mean_over_splits({})
    with pytest.raises(ShapeError, match="split '1' hold tasks twice: 'a'"):
        mean_over_splits({"0": table("ab", 0.5), "1": table("aa", 0.5)})
    with pytest.raises(ColumnError, match="split '0' have no column 'auroq'"):
        mean_over_splits(THREE, metrics=["auroq"])
    with pytest.raises(ShapeError, match="No task has a defined 'auroc'"):
        median_split({"0": table("a", [0.5]), "1": table("b", [0.5])})
