import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, LabelError
from phenohit.fewshot.tasks import split_tasks
from phenohit.labels.overlap import task_overlap


def make(columns, n=400, **about):
    """Labels from {task: (compounds, active ones)}."""
    row, column, value = [], [], []
    for i, (compounds, active) in enumerate(columns.values()):
        row += list(compounds)
        column += [i] * len(compounds)
        value += [float(c in set(active)) for c in compounds]
    Y = sparse.csr_matrix((np.array(value, np.float32), (row, column)), shape=(n, len(columns)))
    tasks = pd.DataFrame(
        {"task": list(columns), "assay": list(columns), "kind": "binary", "threshold": np.nan, **about}
    )
    return Labels(Y, pd.DataFrame({"compound": [f"c{i}" for i in range(n)]}), tasks)


def split(labels, **settings):
    overlap = task_overlap(labels, top=10**6, least=0.0)
    return split_tasks(labels, overlap, **settings).set_index("task")


def spread(start, n, active, step=1):
    """A task of n compounds of which about a share is active."""
    compounds = range(start, start + n * step, step)
    return compounds, [c for k, c in enumerate(compounds) if (k * 7919) % 100 < 100 * active]


def test_tests_have_compounds_and_both_classes_enough():
    labels = make(
        {"good": spread(0, 100, 0.5), "small": spread(100, 95, 0.5), "rare": spread(200, 100, 0.1),
         "one class": (range(300, 400), [])}
    )  # fmt: skip
    table = split(labels, valid=0)
    assert table["role"].to_dict() == {"good": "test", "small": "train", "rare": "train", "one class": "left out"}
    assert "95 compounds, fewer than 96" in table.loc["small", "reason"]
    assert "active share" in table.loc["rare", "reason"]
    assert table.loc["good", "n_active"] + table.loc["good", "n_inactive"] == 100


def test_a_target_that_is_trained_on_is_not_tested_unless_unknown():
    columns = {"a": spread(0, 100, 0.5), "b": spread(120, 100, 0.5), "small": spread(250, 50, 0.5)}
    target = ["CHEMBL25", "CHEMBL612545", "CHEMBL25"]
    table = split(make(columns, target=target), valid=0)
    assert table["role"].to_dict() == {"a": "train", "b": "test", "small": "train"}
    assert "CHEMBL25" in table.loc["a", "reason"]
    unchecked = split(make(columns, target="X", target_type=["SINGLE PROTEIN", "UNCHECKED", "SINGLE PROTEIN"]), valid=0)
    assert unchecked["role"].to_dict() == {"a": "train", "b": "test", "small": "train"}


def test_other_thresholds_of_a_test_assay_are_left_out():
    columns = {
        "a 5.5": spread(0, 100, 0.6),
        "a 6.5": spread(0, 98, 0.4),
        "a 7.5": spread(0, 100, 0.1),
        "b": spread(200, 60, 0.5),
    }
    labels = make(columns)
    labels = Labels(labels.Y, labels.compounds, labels.tasks.assign(assay=["a", "a", "a", "b"]))
    table = split(labels, valid=0)
    assert table["role"].to_dict() == {"a 5.5": "test", "a 6.5": "left out", "a 7.5": "left out", "b": "train"}


def test_a_task_that_repeats_a_test_task_is_left_out():
    compounds, active = spread(0, 100, 0.5)
    columns = {"a": (compounds, active), "twin": (range(90), [c for c in active if c < 90]), "b": spread(200, 60, 0.5)}
    table = split(make(columns), valid=0)
    assert table.loc["a", "role"] == "test"
    assert table.loc["twin", "role"] == "left out"
    assert table.loc["twin", "reason"] == "repeats the labels of test task 'a'"


def test_classes_of_the_table_of_a_test_task_are_left_out():
    classes = {"x": range(0, 40), "y": range(40, 60), "z": range(60, 100)}
    columns = {name: (range(100), list(active)) for name, active in classes.items()} | {"b": spread(200, 60, 0.5)}
    table = split(make(columns), valid=0)
    assert table["role"].to_dict() == {"x": "test", "y": "left out", "z": "test", "b": "train"}


def test_named_tests_and_a_limit():
    columns = {f"t{i}": spread(20 * i, 100, 0.5) for i in range(12)}
    labels = make(columns)
    assert (split(labels, valid=0)["role"] == "test").all()
    limited = split(labels, n_tests=4, valid=0.25)
    assert limited["role"].value_counts().to_dict() == {"test": 4, "train": 6, "valid": 2}
    assert limited.equals(split(labels, n_tests=4, valid=0.25))
    named = split(labels, tests=["t3"], valid=0)
    assert named["role"].value_counts().to_dict() == {"train": 11, "test": 1}
    with pytest.raises(LabelError, match=r"'t33'.*t3"):
        split(labels, tests=["t33"])
    with pytest.raises(ConfigError, match="None of the 12 tasks"):
        split(labels, min_compounds=500)


def test_validation_tasks_are_not_repeated_by_training_tasks():
    _, active = spread(150, 60, 0.5)
    twins = {f"twin {i}": (range(150, 205 + i), [c for c in active if c < 205 + i]) for i in range(3)}
    single = {f"single {i}": spread(220 + 15 * i, 15, 0.4) for i in range(9)}
    for seed in range(12):
        table = split(make({"test": spread(0, 100, 0.5)} | twins | single), valid=0.25, seed=seed)
        roles = {table.loc[t, "role"] for t in twins}
        assert len(roles) == 1
        assert (table["role"] == "valid").sum() == 3
    tight = split(make({"test": spread(0, 100, 0.5)} | twins), valid=0.34)
    assert (tight["role"] == "valid").sum() == 0  # all three repeat each other, and one was asked for
