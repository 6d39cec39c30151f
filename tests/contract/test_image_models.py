"""What every model that learns from images promises."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from scipy import sparse

import phenohit.models.fit as training
from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, FileError, LabelError, RunError, ShapeError
from phenohit.images.samples import ImageRows
from phenohit.models import find_model, model_names, sees

NAMES = [name for name in model_names() if sees(name) != "profiles"]
# Small and quick; the networks' own layers stay as they are.
QUICK: dict[str, dict[str, Any]] = {
    "gapnet": {"network": {"units": 16}, "batch": 16},
    "sccnn": {"network": {"units": 16}, "batch": 16, "subset": 1.0, "momentum": 0.9},
    "milnet": {"batch": 16},
    "mcnn": {"network": {"scales": 2, "combined": 16, "units": 8}, "batch": 16},
    "timm": {"network": {"backbone": "resnet10t"}, "batch": 16},
    "resnet101": {"batch": 8},
    "densenet121": {"batch": 8},
}
LEAST = {"milnet": 136, "resnet101": 32, "densenet121": 32}
SMALL = ["gapnet", "sccnn"]  # quick enough for every promise


def make(name: str, **more: Any) -> Any:
    return find_model(name)(**{"epochs": 2, **QUICK[name], **more})


def images(
    folder: Path, name: str = "gapnet", n: int = 36, views: int = 2, seed: int = 0
) -> tuple[ImageRows, np.ndarray]:
    """Wells with views; task j is active where channel j is rough. A third of the entries is not measured."""
    rng = np.random.default_rng(seed)
    side = LEAST.get(name, 32)
    dense = (rng.random((n, 2)) < 0.5).astype(float)
    pixels = np.empty((n, views, 2, side, side), np.float32)
    smooth = rng.normal(size=(n, views, 2, side // 4, side // 4)).repeat(4, -1).repeat(4, -2)
    rough = rng.normal(size=pixels.shape)
    pixels[:] = np.where(dense[:, None, :, None, None] > 0, rough, smooth[..., :side, :side])
    dense[rng.random(dense.shape) < 0.2] = np.nan
    array = zarr.create_array(
        folder / f"{name}{n}{seed}.zarr", shape=(n * views, 2, side, side), chunks=(8, 2, side, side), dtype="uint8"
    )
    array[:] = np.clip(128 + 40 * pixels, 0, 255).astype(np.uint8).reshape(-1, 2, side, side)
    rows = pd.DataFrame({"Metadata_compound": [f"C{i:04d}" for i in range(n)]})
    start = np.arange(n + 1) * views
    place = np.arange(n * views)
    data = ImageRows(
        rows, ["a", "b"], (2, side, side), start, np.zeros(len(place), np.int16), place,
        (place // views).astype(np.int32), [str(folder / f"{name}{n}{seed}.zarr")], 8,
    )  # fmt: skip
    return data, dense


def labels(data: ImageRows, dense: np.ndarray, names: list[str] | None = None, kind: str = "binary") -> Labels:
    row, column = np.nonzero(~np.isnan(dense))
    Y = sparse.csr_matrix((dense[row, column].astype(np.float32), (row, column)), shape=dense.shape)
    task = names or [f"t{j}" for j in range(dense.shape[1])]
    tasks = pd.DataFrame({"task": task, "assay": task, "kind": kind, "threshold": np.nan})
    return Labels(Y, pd.DataFrame({"compound": data.compounds}), tasks)


each = pytest.mark.parametrize("name", NAMES)
small = pytest.mark.parametrize("name", SMALL)


@each
def test_fits_scores_saves_and_loads(name: str, tmp_path: Path) -> None:
    data, dense = images(tmp_path, name, n=12)
    before = torch.get_rng_state()
    model = make(name, epochs=1).fit(data, labels(data, dense), valid=(data, labels(data, dense)), seed=1)
    assert torch.equal(torch.get_rng_state(), before)  # torch's own generator is left as it was
    full = model.predict(data)
    assert full.score.shape == (12, 2)
    assert full.score.dtype == np.float32
    assert ((full.score >= 0) & (full.score <= 1)).all()
    assert list(full.compounds) == list(data.compounds)
    np.testing.assert_allclose(model.predict(data, tasks=["t1", "t0"]).score, full.score[:, ::-1], atol=1e-6)
    model.save(tmp_path)
    again = find_model(name).load(tmp_path)
    np.testing.assert_allclose(again.predict(data).score, full.score, atol=1e-6)
    assert again.settings == model.settings
    assert again.state.valid_auroc == model.state.valid_auroc
    embedded = again.embed(data)
    assert embedded.X.shape[0] == 12
    assert np.isfinite(embedded.X).all()
    cost = model.cost()
    assert cost["parameters"] == sum(p.numel() for p in model.net.parameters())
    assert cost["gmac"] > 0
    assert cost["images_per_s"] > 0


@each
def test_every_setting_is_described_and_checked(name: str) -> None:
    assert find_model(name).name == name
    settings = make(name).settings
    for setting in (f.name for f in dataclasses.fields(settings)):
        assert any(form in settings.__doc__ for form in (f"{setting} :", f"{setting}, ", f", {setting} :"))
    with pytest.raises(ConfigError, match=r"no setting 'batchx'\. Nearest: batch"):
        find_model(name)(batchx=1)
    with pytest.raises(ConfigError, match=f"model '{name}' has no setting 'wheels'"):
        find_model(name)(network={"wheels": 4})
    with pytest.raises(ConfigError, match="height and width"):
        find_model(name)(crop=[3])


@small
def test_rows_without_labels_change_nothing_and_order_is_kept(name: str, tmp_path: Path) -> None:
    data, dense = images(tmp_path, name)
    dense[24:] = np.nan
    short = data.take(np.arange(24))
    alone = make(name).fit(short, labels(short, dense[:24]), seed=3)
    beside = make(name).fit(data, labels(data, dense), seed=3)
    np.testing.assert_array_equal(alone.predict(short).score, beside.predict(short).score)
    order = np.random.default_rng(5).permutation(36)
    np.testing.assert_allclose(beside.predict(data.take(order)).score, beside.predict(data).score[order], atol=1e-6)
    assert beside.predict(data.take(np.arange(0))).score.shape == (0, 2)


@small
def test_an_unmeasured_or_one_class_task_leaves_the_others_alone(name: str, tmp_path: Path) -> None:
    data, dense = images(tmp_path, name, n=24)
    model = make(name).fit(data, labels(data, dense), seed=3)
    nothing, zeros = np.full(24, np.nan), np.full(24, np.nan)
    zeros[:9] = 0
    wide = np.column_stack([nothing, dense[:, 0], zeros, dense[:, 1]])
    more = make(name).fit(data, labels(data, wide, ["empty", "t0", "zeros", "t1"]), seed=3)
    np.testing.assert_array_equal(model.predict(data).score, more.predict(data, ["t0", "t1"]).score)
    np.testing.assert_allclose(
        more.predict(data, ["empty", "zeros"]).score, np.tile([1 / 2, 1 / 11], (24, 1)), rtol=1e-6
    )
    dense[:] = np.nan
    assert (make(name).fit(data, labels(data, dense)).predict(data).score == 0.5).all()


@small
def test_views_are_averaged_to_wells_and_wells_to_rows(name: str, tmp_path: Path) -> None:
    data, dense = images(tmp_path, name, n=12, views=3)
    model = make(name).fit(data, labels(data, dense), seed=3)
    each_view = model.view_scores(data, "t1")
    assert each_view.shape == (36,)
    scored = model.predict(data, ["t1"])
    np.testing.assert_allclose(scored.score[:, 0], each_view.reshape(12, 3).mean(1), atol=1e-6)
    np.testing.assert_allclose(scored.spread[:, 0], each_view.reshape(12, 3).std(1, ddof=1), atol=1e-5)
    # One compound with two wells, of two views and of one: the wells count the same.
    well = data.well.copy()
    well[:3] = [0, 0, 99]
    uneven = dataclasses.replace(data, well=well)
    expected = (each_view[:2].mean() + each_view[2]) / 2
    np.testing.assert_allclose(model.predict(uneven, ["t1"]).score[0, 0], expected, atol=1e-6)
    # A row without images gets the share of its task.
    start = data.start.copy()
    start[1:] -= 3
    bare = dataclasses.replace(data, start=start, array=data.array[3:], place=data.place[3:], well=data.well[3:])
    assert model.predict(bare, ["t1"]).score[0, 0] == model.known.share[1]
    np.testing.assert_allclose(model.predict(bare, ["t1"]).score[1:, 0], scored.score[1:, 0], atol=1e-6)


def test_dropout_left_on_widens_the_spread(tmp_path: Path) -> None:
    data, dense = images(tmp_path, n=12, views=1)
    given = {"network": {"units": 16, "dropout": 0.3}}
    sure = make("gapnet", **given).fit(data, labels(data, dense), seed=3)
    unsure = make("gapnet", **given, passes=6).fit(data, labels(data, dense), seed=3)
    assert (sure.predict(data).spread == 0).all()  # one view, one answer
    first, second = unsure.predict(data), unsure.predict(data)
    assert (first.spread > 0).all()
    np.testing.assert_array_equal(first.score, second.score)
    assert not unsure.net.training


@small
def test_a_planted_signal_is_learned_and_the_best_epoch_kept(name: str, tmp_path: Path) -> None:
    data, dense = images(tmp_path, name, n=120, views=1)
    parts = [data.take(part) for part in (np.arange(60), np.arange(60, 80), np.arange(80, 120))]
    truth = [dense[:60], dense[60:80], dense[80:]]
    fitted = make(name, epochs=10, learning_rate=0.03).fit(
        parts[0], labels(parts[0], truth[0]), valid=(parts[1], labels(parts[1], truth[1])), seed=0
    )
    score = fitted.predict(parts[2]).score
    for task in range(2):
        y = truth[2][:, task]
        pairs = score[y == 1, task][:, None] - score[y == 0, task][None, :]
        assert (pairs > 0).mean() > 0.8  # chance: 0.5, with a standard deviation of 0.1
    assert fitted.state.best_epoch == int(np.argmax(fitted.state.valid_auroc))


def test_a_resumed_fit_ends_as_a_straight_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, dense = images(tmp_path, n=24)
    valid = (data.take(np.arange(16, 24)), labels(data, dense).take(np.arange(16, 24)))
    part = data.take(np.arange(16)), labels(data, dense).take(np.arange(16))
    more = {"network": {"backbone": "resnet10t", "dropout": 0.2}, "batch": 8, "subset": 0.8}  # dropout, averages
    straight = make("timm", **more, epochs=3).fit(*part, valid=valid, seed=5)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    save, calls = training._Trainer.save, 0

    def interrupted(self: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:
            save(self)
        if calls in (4, 9):
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Trainer, "save", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            make("timm", **more, epochs=3).fit(*part, valid=valid, seed=5, run=tmp_path)
    resumed = make("timm", **more, epochs=3).fit(*part, valid=valid, seed=5, run=tmp_path)
    assert resumed.state.train_loss == straight.state.train_loss
    assert calls < 9 + 6  # it went on and did not begin anew (three epochs of four steps)
    np.testing.assert_array_equal(resumed.predict(data).score, straight.predict(data).score)


def test_too_little_memory_names_a_batch_that_may_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, dense = images(tmp_path, n=12)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training._Trainer, "step", full)
    with pytest.raises(RunError, match="batches of 16: set batch to 8"):
        make("gapnet").fit(data, labels(data, dense))


def test_weights_of_another_screen_are_a_beginning(tmp_path: Path) -> None:
    data, dense = images(tmp_path, n=12)
    first = make("gapnet").fit(data, labels(data, dense), seed=1)
    first.save(tmp_path / "first.safetensors")
    wide = np.column_stack([dense, dense[:, 0]])
    still = {"weights": str(tmp_path / "first.safetensors"), "epochs": 1, "learning_rate": 1e-30, "weight_decay": 0.0}
    second = make("gapnet", **still).fit(data, labels(data, wide), seed=2)
    a, b = first.net.state_dict(), second.net.state_dict()
    same = [name for name in a if a[name].shape == b[name].shape]
    assert len(same) == len(a) - 2  # all but weights and biases of the last layer
    for name in same:
        torch.testing.assert_close(a[name], b[name])
    other = make("sccnn").fit(data, labels(data, dense))
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(FileError, match="model sccnn, not: model gapnet"):
        make("gapnet", weights=str(tmp_path / "other.safetensors")).fit(data, labels(data, dense))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    data, dense = images(tmp_path, n=12)
    path = tmp_path / "gapnet.safetensors"
    make("gapnet").fit(data, labels(data, dense)).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError):
            find_model("gapnet").load(path)
    for _ in range(10):  # changed bytes are refused or harmless, never a crash
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), size=20):
            broken[place] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            find_model("gapnet").load(path)
        except FileError:
            continue


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    data, dense = images(tmp_path, n=12)
    model = make("gapnet")
    with pytest.raises(RunError, match="has not been fitted"):
        model.predict(data)
    with pytest.raises(LabelError, match="these tasks hold values"):
        model.fit(data, labels(data, np.full((12, 1), 6.5), kind="value"))
    with pytest.raises(ShapeError, match="different compounds"):
        model.fit(data, labels(data, dense).take(np.arange(12)[::-1]))
    with pytest.raises(ShapeError, match="'crop' is"):
        make("gapnet", crop=[64, 64]).fit(data, labels(data, dense))
    fitted = model.fit(data, labels(data, dense))
    with pytest.raises(ShapeError, match="Not known: 'c'"):
        fitted.predict(dataclasses.replace(data, channels=["a", "c"]))
    with pytest.raises(ShapeError, match="learns from images, not from features"):
        fitted.predict(object())
