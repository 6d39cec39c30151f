"""What every model in the table promises."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import phenohit.models.fit as training
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, LabelError, RunError, ShapeError
from phenohit.models import find_model, model_names, sees

# Small and quick; what is not named here keeps its default.
QUICK: dict[str, dict[str, Any]] = {
    "forest": {"n_trees": 60},
    "macau": {"latent": 8, "sweeps": 120, "burn_in": 40},
    "network": {"units": 64, "batch": 32, "epochs": 25, "min_valid": 10},
}
CHECKPOINTS = ["network"]
NAMES = [name for name in model_names() if sees(name) == "profiles"]  # others: test_image_models.py
SEES_FEATURES = [name for name in NAMES if name != "rate"]  # a rate looks at no feature
LEARNS_ALONE = [name for name in NAMES if name not in ("network", "macau")]  # tasks share nothing


def make(name: str, **more: Any) -> Any:
    return find_model(name)(**{**QUICK.get(name, {}), **more})


def profiles(X: np.ndarray, names: list[str] | None = None) -> Profiles:
    rows = pd.DataFrame({"Metadata_compound": [f"C{i:04d}" for i in range(len(X))]})
    return Profiles(X.astype(np.float32), rows, names or [f"f{j}" for j in range(X.shape[1])])


def labels(data: Profiles, dense: np.ndarray, names: list[str] | None = None, kind: str = "binary") -> Labels:
    """Labels of a dense matrix in which NaN is not measured."""
    row, column = np.nonzero(~np.isnan(dense))
    Y = sparse.csr_matrix((dense[row, column].astype(np.float32), (row, column)), shape=dense.shape)
    task = names or [f"t{j}" for j in range(dense.shape[1])]
    tasks = pd.DataFrame({"task": task, "assay": task, "kind": kind, "threshold": np.nan})
    return Labels(Y, pd.DataFrame({"compound": data.compounds}), tasks)


def planted(n: int = 240, seed: int = 0) -> tuple[Profiles, np.ndarray]:
    """Rows with eight features; tasks follow one of the first three, a third is not measured."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 8))
    dense = (X[:, :3] + 0.3 * rng.standard_normal((n, 3)) > 0).astype(float)
    dense[rng.random(dense.shape) < 0.33] = np.nan
    return profiles(X), dense


def auroc(y: np.ndarray, score: np.ndarray) -> float:
    """Share of active-inactive pairs in the right order."""
    difference = score[y == 1][:, None] - score[y == 0][None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


each = pytest.mark.parametrize("name", NAMES)


@each
def test_name_is_its_key(name: str) -> None:
    assert find_model(name).name == name
    assert isinstance(find_model(name).needs_scaling, bool)


@each
def test_scores_have_the_shape_and_order_asked_for(name: str) -> None:
    data, dense = planted()
    model = make(name).fit(data, labels(data, dense), seed=1)
    full = model.predict(data)
    assert full.score.shape == (240, 3)
    assert full.score.dtype == np.float32
    assert ((full.score >= 0) & (full.score <= 1)).all()
    assert full.tasks == ["t0", "t1", "t2"]
    assert list(full.compounds) == list(data.compounds)
    assert full.kind == "probability"
    some = model.predict(data, tasks=["t2", "t0"])
    assert some.tasks == ["t2", "t0"]
    np.testing.assert_allclose(some.score, full.score[:, [2, 0]], atol=1e-6)
    with pytest.raises(LabelError, match="Nearest: t1"):
        model.predict(data, tasks=["t1x"])
    assert model.predict(data.take(np.arange(0))).score.shape == (0, 3)


@each
def test_permuting_rows_permutes_scores(name: str) -> None:
    data, dense = planted()
    model = make(name).fit(data, labels(data, dense), seed=1)
    order = np.random.default_rng(5).permutation(240)
    np.testing.assert_allclose(model.predict(data.take(order)).score, model.predict(data).score[order], atol=1e-6)


@each
@pytest.mark.parametrize("jobs", [1, 2])
def test_same_seed_same_scores(name: str, jobs: int) -> None:
    data, dense = planted(120)
    once = make(name).fit(data, labels(data, dense), seed=7, jobs=1).predict(data).score
    np.random.seed(99)  # noqa: NPY002 (global generators must neither be read nor moved)
    torch.manual_seed(99)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    again = make(name).fit(data, labels(data, dense), seed=7, jobs=jobs).predict(data).score
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


@each
def test_seed_matters_where_there_is_chance(name: str) -> None:
    data, dense = planted(120)
    a, b = (make(name).fit(data, labels(data, dense), seed=s).predict(data).score for s in (1, 2))
    assert np.array_equal(a, b) == (name in ("logistic", "rate"))


@each
def test_rows_without_labels_change_nothing(name: str) -> None:
    data, dense = planted(150)
    dense[100:] = np.nan
    short = data.take(np.arange(100))
    wild = Profiles(data.X.copy(), data.rows, data.features)
    wild.X[100:] *= 1000
    alone = make(name).fit(short, labels(short, dense[:100]), seed=3).predict(short).score
    beside = make(name).fit(wild, labels(wild, dense), seed=3).predict(short).score
    np.testing.assert_array_equal(alone, beside)


@each
def test_an_unmeasured_or_one_class_task_leaves_the_others_alone(name: str) -> None:
    data, dense = planted(150)
    model = make(name).fit(data, labels(data, dense), seed=3)
    nothing, zeros, one = np.full(150, np.nan), np.full(150, np.nan), np.full(150, np.nan)
    zeros[:9], one[:1] = 0, 1
    wide = np.column_stack([nothing, dense[:, 0], zeros, dense[:, 1:], one])
    more = make(name).fit(data, labels(data, wide, ["empty", "t0", "zeros", "t1", "t2", "one"]), seed=3)
    np.testing.assert_array_equal(model.predict(data).score, more.predict(data, ["t0", "t1", "t2"]).score)
    shares = more.predict(data, ["empty", "zeros", "one"]).score
    np.testing.assert_allclose(shares, np.tile([1 / 2, 1 / 11, 2 / 3], (150, 1)), rtol=1e-6)


@pytest.mark.parametrize("name", LEARNS_ALONE)
def test_tasks_learned_alone_ignore_each_other(name: str) -> None:
    data, dense = planted(150)
    full = make(name).fit(data, labels(data, dense), seed=3).predict(data, ["t1"]).score
    alone = make(name).fit(data, labels(data, dense[:, [1]], ["t1"]), seed=3).predict(data).score
    np.testing.assert_array_equal(full, alone)


@each
def test_nothing_to_learn_from_still_scores(name: str) -> None:
    data, dense = planted(20)
    dense[:] = np.nan
    assert (make(name).fit(data, labels(data, dense)).predict(data).score == 0.5).all()
    bare = profiles(np.zeros((20, 0)))
    dense[:, 0] = np.arange(20) % 2
    assert (make(name).fit(bare, labels(bare, dense)).predict(bare).score == 0.5).all()


@each
def test_tiny_tasks_give_finite_scores(name: str) -> None:
    data, _ = planted(40)
    dense = np.full((40, 3), np.nan)
    dense[0, 0], dense[1, 0] = 1, 0
    dense[2, 1], dense[3:5, 1] = 1, 0
    dense[:, 2] = np.arange(40) == 5
    for X in (data.X, np.zeros_like(data.X), data.X * 1e3):
        same = profiles(X)
        score = make(name).fit(same, labels(same, dense)).predict(same).score
        assert np.isfinite(score).all()


@each
def test_loaded_model_scores_the_same(name: str, tmp_path: Path) -> None:
    data, dense = planted(120)
    dense[:, 1] = np.nan
    model = make(name).fit(data, labels(data, dense), seed=3)
    model.save(tmp_path / "one.safetensors")
    model.save(tmp_path / "folder")
    for path in (tmp_path / "one.safetensors", tmp_path / "folder"):
        again = find_model(name).load(path)
        np.testing.assert_array_equal(again.predict(data).score, model.predict(data).score)
        assert again.settings == model.settings


@each
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    data, dense = planted(60)
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileError, match="does not exist"):
        find_model(name).load(path)
    make(name).fit(data, labels(data, dense)).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError):
            find_model(name).load(path)
    for _ in range(40):  # changed bytes are refused or harmless, never a crash
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), size=20):
            broken[place] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            model = find_model(name).load(path)
        except FileError:
            continue
        if model.known.features == data.features:
            assert np.isfinite(model.predict(data).score).all()
    other = "rate" if name != "rate" else "forest"
    make(other).fit(data, labels(data, dense)).save(path)
    with pytest.raises(FileError, match=f"model {other}, not: model {name}"):
        find_model(name).load(path)


@each
def test_other_features_are_refused(name: str) -> None:
    data, dense = planted(60)
    model = make(name).fit(data, labels(data, dense))
    renamed = Profiles(data.X, data.rows, [*data.features[:-1], "other"])
    with pytest.raises(ShapeError, match=r"Missing: 'f7'. Not known: 'other'"):
        model.predict(renamed)
    swapped = Profiles(data.X[:, ::-1].copy(), data.rows, data.features[::-1])
    with pytest.raises(ShapeError, match="order is not"):
        model.predict(swapped)


@each
def test_gaps_in_features_are_refused(name: str) -> None:
    data, dense = planted(60)
    holed = Profiles(data.X.copy(), data.rows, data.features)
    holed.X[17, 3] = np.nan
    with pytest.raises(ShapeError, match="'f3' is not finite in row 17"):
        make(name).fit(holed, labels(data, dense))
    with pytest.raises(ShapeError, match="'f3' is not finite in row 17"):
        make(name).fit(data, labels(data, dense)).predict(holed)


@each
def test_rows_of_other_compounds_are_refused(name: str) -> None:
    data, dense = planted(60)
    with pytest.raises(ShapeError, match="60 rows of features but 50"):
        make(name).fit(data, labels(data, dense).take(np.arange(50)))
    with pytest.raises(ShapeError, match="different compounds"):
        make(name).fit(data, labels(data, dense).take(np.arange(60)[::-1]))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "macau"])
def test_value_tasks_are_refused(name: str) -> None:
    data, _ = planted(20)
    with pytest.raises(LabelError, match="these tasks hold values: 't0'"):
        make(name).fit(data, labels(data, np.full((20, 1), 6.5), kind="value"))


@each
def test_scores_before_fit_are_refused(name: str) -> None:
    data, _ = planted(5)
    with pytest.raises(RunError, match="has not been fitted"):
        make(name).predict(data)


@each
def test_unknown_settings_name_the_nearest(name: str) -> None:
    setting = next(iter(make(name).settings.__dataclass_fields__))
    with pytest.raises(ConfigError, match=f"no setting '{setting}x'. Nearest: {setting}"):
        find_model(name)(**{f"{setting}x": 1})
    with pytest.raises(ConfigError, match=f"'{setting}' of model '{name}'"):
        find_model(name)(**{setting: object()})


@each
def test_every_setting_is_described(name: str) -> None:
    settings = make(name).settings
    for setting in (f.name for f in dataclasses.fields(settings)):
        assert (
            f"{setting} :" in settings.__doc__
            or f"{setting}, " in settings.__doc__
            or f", {setting} :" in (settings.__doc__)
        )


@pytest.mark.parametrize("name", SEES_FEATURES)
def test_a_planted_signal_is_learned(name: str) -> None:
    data, dense = planted(360, seed=4)
    train, test = np.arange(240), np.arange(240, 360)
    score = make(name).fit(data.take(train), labels(data.take(train), dense[:240]), seed=0).predict(data.take(test))
    for task in range(3):
        measured = ~np.isnan(dense[240:, task])
        # Random scores on 80 rows have a standard deviation of 0.065 about 0.5.
        assert auroc(dense[240:, task][measured], score.score[measured, task]) > 0.8


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_resumed_fit_ends_as_a_straight_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, dense = planted(120)
    valid = (data.take(np.arange(90, 120)), labels(data, dense).take(np.arange(90, 120)))
    part = data.take(np.arange(90)), labels(data, dense).take(np.arange(90))
    straight = make(name, max_epochs=12).fit(*part, valid=valid, seed=5).predict(data).score
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    save = training._Trainer.save
    calls = 0

    def interrupted(self: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:  # only every other step is kept: a resumed run must redo the one after
            save(self)
        if calls in (8, 15, 23):
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Trainer, "save", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            make(name, max_epochs=12).fit(*part, valid=valid, seed=5, run=tmp_path)
    steps = calls
    resumed = make(name, max_epochs=12).fit(*part, valid=valid, seed=5, run=tmp_path).predict(data).score
    np.testing.assert_array_equal(resumed, straight)
    assert calls - steps < 36  # it went on and did not begin anew (12 epochs of 3 steps)
