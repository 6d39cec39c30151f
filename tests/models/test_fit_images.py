"""Batches of images: what is read ahead into reused memory is what is asked for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from scipy import sparse

import phenohit.models.fit_images as reading
from phenohit.errors import FileError
from phenohit.images.samples import ImageRows
from phenohit.models.fit import generator
from phenohit.models.fit_images import Augment, ImageFeed, normalise

CPU = torch.device("cpu")


def crops(folder: Path, n: int = 61, together: int = 4) -> ImageRows:
    """Rows with one image each, `together` to a chunk."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 2, 9, 9)).astype(np.uint8)
    array: Any = zarr.create_array(
        folder / "a", shape=pixels.shape, chunks=(together, 2, 9, 9), dtype="uint8", overwrite=True
    )
    array[:] = pixels
    rows = pd.DataFrame({"Metadata_compound": [f"C{i}" for i in range(n)]})
    order = np.arange(n)
    return ImageRows(
        rows, ["a", "b"], (2, 9, 9), np.arange(n + 1), np.zeros(n, np.int16), order, order.astype(np.int32),
        [str(folder / "a")], together,
    )  # fmt: skip


def feed(data: ImageRows, device: torch.device = CPU) -> ImageFeed:
    Y = sparse.csr_matrix(np.ones((len(data), 3), np.float32))
    return ImageFeed(data, Y, device, Augment(), block=8)


@pytest.mark.parametrize("group", [1, 2000, 1 << 29])
def test_batches_hold_the_images_they_name(group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_GROUP", group)  # one batch at a time, several, all at once
    data = crops(tmp_path)
    order = np.random.default_rng(1).permutation(61)
    kept = list(feed(data).batches(order, 4))  # all are kept: none may lie in memory that is read into again
    assert len(kept) == 16
    np.testing.assert_array_equal(np.concatenate([b.samples for b in kept]), order)
    for batch in kept:
        assert torch.equal(batch.x, normalise(torch.from_numpy(data.read(batch.samples))))
        assert batch.whole == len(batch.y) == 3 * len(batch.samples)
    assert not list(feed(data).batches(order[:0], 4))


def test_images_are_left_as_they_are_by_normalisation() -> None:
    x = torch.rand(2, 2, 5, 5)
    before = x.clone()
    found = normalise(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(found.mean((2, 3)), torch.zeros(2, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.std((2, 3)), torch.ones(2, 2))


def test_who_stops_early_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_GROUP", 1)
    data, before = crops(tmp_path), threading.active_count()
    calls = []
    read = ImageFeed._read

    def counted(self: ImageFeed, *given: Any) -> None:
        calls.append(1)
        read(self, *given)

    monkeypatch.setattr(ImageFeed, "_read", counted)
    batches = feed(data).batches(np.arange(61), 1)
    next(batches)
    batches.close()
    assert len(calls) < 10
    assert threading.active_count() == before


def test_what_cannot_be_read_is_said_when_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_GROUP", 1)
    data = crops(tmp_path)
    (tmp_path / "a" / "c" / "9" / "0" / "0" / "0").write_bytes(b"nonsense")
    batches = feed(data).batches(np.arange(61), 4)
    for _ in range(9):
        next(batches)
    with pytest.raises(FileError, match="cannot be read"):
        next(batches)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("group", [1, 2000])
def test_batches_on_a_cuda_device_are_those_of_the_processor(
    group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_GROUP", group)
    data, cuda = crops(tmp_path), torch.device("cuda")
    order = np.random.default_rng(1).permutation(61)
    there = []
    for batch in feed(data, cuda).batches(order, 4):
        torch.cuda._sleep(10_000_000)  # the device is behind: what is copied next must not be where this one is
        there.append((batch, batch.x * 1))
    for batch, (other, x) in zip(feed(data).batches(order, 4), there, strict=True):
        torch.testing.assert_close(x.cpu(), batch.x)
        assert torch.equal(other.entry.cpu(), batch.entry)
    turned = list(feed(data, cuda).batches(order, 4, lambda step: generator(cuda, 1, step)))
    assert len(turned) == len(there)
