"""Training on several devices: the result of one device, one message where something fails."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from scipy import sparse

import phenohit.models.fit as training
from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, FileError, RunError
from phenohit.images.samples import ImageRows
from phenohit.models import fit_devices
from phenohit.models.fit import train
from phenohit.models.fit_devices import _leave, _Shared, _understood
from phenohit.models.fit_images import Augment, ImageFeed
from phenohit.models.image_models import GapNet
from phenohit.models.image_settings import SETTINGS

CPU = torch.device("cpu")
# These start two processes, which import torch anew.
slow, alone = pytest.mark.slow, pytest.mark.xdist_group("devices")
two = pytest.mark.skipif(joblib.cpu_count() < 2, reason="needs two processor cores")


def images(folder: Path, n: int = 21) -> tuple[ImageRows, Labels]:
    """Two views a well; task j is active where channel j is bright in the middle. A fifth is not measured."""
    rng = np.random.default_rng(0)
    dense = (rng.random((n, 2)) < 0.5).astype(float)
    pixels = rng.integers(0, 120, (n, 2, 2, 24, 32)).astype(np.uint8)
    pixels[..., 8:16, 8:16] += (100 * dense).astype(np.uint8)[:, None, :, None, None]
    dense[rng.random(dense.shape) < 0.2] = np.nan
    array: Any = zarr.create_array(
        folder / "views", shape=(2 * n, 2, 24, 32), chunks=(2, 2, 24, 32), dtype="uint8", overwrite=True
    )
    array[:] = pixels.reshape(-1, 2, 24, 32)
    place = np.arange(2 * n)
    rows = pd.DataFrame({"Metadata_compound": [f"C{i:04d}" for i in range(n)]})
    data = ImageRows(
        rows, ["a", "b"], (2, 24, 32), np.arange(n + 1) * 2, np.zeros(2 * n, np.int16), place,
        (place // 2).astype(np.int32), [str(folder / "views")], 2,
    )  # fmt: skip
    row, column = np.nonzero(~np.isnan(dense))
    Y = sparse.csr_matrix((dense[row, column].astype(np.float32), (row, column)), shape=dense.shape)
    tasks = pd.DataFrame({"task": ["s", "t"], "assay": ["s", "t"], "kind": "binary", "threshold": np.nan})
    return data, Labels(Y, pd.DataFrame({"compound": data.compounds}), tasks)


def gapnet(**more: Any) -> GapNet:
    return GapNet(**{"network": {"units": 16}, "batch": 9, "epochs": 3, "device": "cpu", **more})


def feed(data: ImageRows, labels: Labels, part: tuple[int, int] = (0, 1)) -> ImageFeed:
    return ImageFeed(data, labels.Y, CPU, Augment(crop=(16, 16)), block=4, part=part)


class Joined:
    """What joins devices, where there is one."""

    global_rank, world_size = 0, 1

    def setup_module(self, net: torch.nn.Module) -> torch.nn.Module:
        return net


@pytest.mark.parametrize("devices", [2, 3, 5])
def test_shares_of_a_batch_make_up_the_batch(devices: int, tmp_path: Path) -> None:
    data, labels = images(tmp_path)
    alone = feed(data, labels)
    order = alone.order(1, 0)[:14]  # the last batch of four has two images: fewer than devices

    def noise(step: int) -> torch.Generator:
        return training.generator(CPU, 7, step)

    whole = list(alone.batches(order, 4, noise))
    parts = [list(feed(data, labels, (i, devices)).batches(order, 4, noise)) for i in range(devices)]
    assert [len(part) for part in parts] == [4] * devices  # all take every step
    for step, batch in enumerate(whole):
        here = [part[step] for part in parts]
        assert {one.whole for one in here} == {len(batch.y)}
        assert sum(len(one.y) for one in here) == len(batch.y)
        for i, one in enumerate(here):
            np.testing.assert_array_equal(one.samples, batch.samples[i::devices])
            assert len(one.x) == max(len(one.samples), 1)
            # An image is normalised, cut out and turned the same wherever it is.
            torch.testing.assert_close(one.x[: len(one.samples)], batch.x[i::devices], rtol=0, atol=0)
            assert len(one.samples) or not len(one.entry)


def test_one_device_of_one_trains_as_without(tmp_path: Path) -> None:
    data, labels = images(tmp_path)
    results = []
    for shared in (False, True):
        model = gapnet(network={"units": 16, "dropout": 0.0})
        model.shape = data.shape
        model.net = model._network(2, 5)
        feeds = [model.feed(data, labels.Y, 1), model.feed(data, labels.Y, 1)]
        if shared:
            trainer: Any = _Shared(Joined(), model.seen(), *feeds, model.plan(True), 5, None, "")
            state = training.complete(trainer, "", by_step=True)
        else:
            state = train(model.seen(), *feeds, model.plan(True), seed=5, by_step=True)
        results.append((state, model.net.state_dict()))
    (a, net_a), (b, net_b) = results
    np.testing.assert_allclose(a.train_loss, b.train_loss, rtol=1e-6)
    np.testing.assert_allclose(a.valid_loss, b.valid_loss, rtol=1e-6)
    for name in net_a:
        torch.testing.assert_close(net_a[name], net_b[name])


@slow
@alone
@two
def test_two_devices_go_on_from_a_checkpoint_to_the_result_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, labels = images(tmp_path)
    given = {
        "valid": (data.take(np.arange(14, 21)), labels.take(np.arange(14, 21))), "seed": 3, "run": tmp_path,
    }  # fmt: skip
    part = data.take(np.arange(14)), labels.take(np.arange(14))
    straight = gapnet().fit(*part, **{**given, "run": None})
    monkeypatch.setattr(GapNet, "_identity", lambda *_: "same")
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    save, calls = training._Trainer.save, 0

    def interrupted(self: Any) -> None:
        nonlocal calls
        save(self)
        calls += 1
        if calls == 2:  # of four steps of the first epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Trainer, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gapnet().fit(*part, **given)
    before, children = dict(os.environ), multiprocessing.active_children()
    shared = gapnet(devices=2).fit(*part, **given)
    assert calls == 2
    assert os.environ == before
    assert set(multiprocessing.active_children()) <= set(children)  # workers of other tests may be there
    for losses in ("train_loss", "valid_loss", "valid_auroc"):
        assert len(getattr(shared.state, losses)) == 3
        np.testing.assert_allclose(getattr(shared.state, losses), getattr(straight.state, losses), rtol=1e-5)
    assert shared.state.best_epoch == straight.state.best_epoch
    np.testing.assert_allclose(shared.predict(data).score, straight.predict(data).score, atol=1e-4)


def test_the_first_error_is_the_one_that_is_told(tmp_path: Path) -> None:
    assert "signal SIGKILL" in str(
        _understood(tmp_path, Exception("trace\n\nprocess 1 terminated with signal SIGKILL"))
    )
    _leave(tmp_path, 1, FileError("view 3 is missing"))
    _leave(tmp_path, 0, RuntimeError("connection lost"))
    found = _understood(tmp_path, Exception("process 1 failed"))
    assert type(found) is FileError
    assert str(found) == "view 3 is missing"
    (tmp_path / "error.json").unlink()
    _leave(tmp_path, 1, ZeroDivisionError("by zero"))
    found = _understood(tmp_path, Exception("process 1 failed"))
    assert type(found) is RunError
    assert str(found) == "Training failed on device 1: ZeroDivisionError: by zero"


def test_devices_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, labels = images(tmp_path)
    with pytest.raises(
        ConfigError, match=f"'devices' is 100000, but there (is|are) {joblib.cpu_count()} processor core"
    ):
        gapnet(devices=100_000).fit(data, labels)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"there is 1 CUDA device\. Set devices to 1"):
        fit_devices.check_devices(2, torch.device("cuda"))
    monkeypatch.setattr(fit_devices, "find_spec", lambda _: None)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    with pytest.raises(ConfigError, match=r"needs lightning-fabric: pip install 'phenohit\[devices\]'"):
        gapnet(devices=2).fit(data, labels)
    assert SETTINGS["gapnet"]().devices == 1
    assert importlib.util.find_spec("lightning_fabric") is not None
