"""Batches of images: read ahead from a store as uint8, normalised and turned about on the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional

from phenohit.images.samples import ImageRows
from phenohit.models.fit import Batch, generator
from phenohit.models.fit_rows import Measured

__all__ = ["Augment", "ImageFeed", "Seen", "mean_auroc", "normalise"]

_AHEAD = 3  # batches that are read before they are wanted
_GROUP = 1 << 29  # bytes of crops that are read and mixed together


def normalise(x: Tensor) -> Tensor:
    """Standardise each channel of each image: minus its mean, over its standard deviation + 1e-7 (Hofmarcher 2019).

    Parameters
    ----------
    x : tensor (B, C, H, W)

    Returns
    -------
    float32 tensor (B, C, H, W)
        The standard deviation is the unbiased one, as in the released code.
    """
    x = x.to(torch.float32, copy=True)
    deviation, mean = torch.std_mean(x, dim=(2, 3), keepdim=True)
    return x.sub_(mean).div_(deviation + 1e-7)


@dataclass(frozen=True)
class Augment:
    """What is done to an image: always to the same size, by chance while training.

    Parameters
    ----------
    resize : (int, int) | None
        Height and width that every image is brought to first.
    crop : (int, int) | None
        Height and width that are then cut out: anywhere while training, from the middle otherwise.
    flips, rotations : bool
        Mirror images; turn them by 90 degrees, where what is left is square.
    """

    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    flips: bool = True
    rotations: bool = True

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of what comes out."""
        return self.crop or self.resize or size

    def apply(self, x: Tensor, chance: Tensor | None = None) -> Tensor:
        """Return normalised images (B, C, h, w) as they are, or by `chance`: numbers (5, B) between 0 and 1."""
        if self.resize is not None:
            x = functional.interpolate(x, self.resize, mode="bilinear", antialias=True, align_corners=False)
        height, width = self.size((int(x.shape[2]), int(x.shape[3])))
        room = (int(x.shape[2]) - height, int(x.shape[3]) - width)
        if chance is None:
            top, left = room[0] // 2, room[1] // 2
            return x[:, :, top : top + height, left : left + width]
        square = self.rotations and height == width
        if not (self.flips or square or any(room)):
            return x
        n, device = len(x), x.device
        down, across = (
            torch.arange(height, device=device).expand(n, -1),
            torch.arange(width, device=device).expand(n, -1),
        )
        if self.flips:
            down = torch.where(chance[0, :, None] < 0.5, height - 1 - down, down)
            across = torch.where(chance[1, :, None] < 0.5, width - 1 - across, across)
        down = down + (chance[2] * (room[0] + 1)).long()[:, None]
        across = across + (chance[3] * (room[1] + 1)).long()[:, None]
        down, across = down[:, :, None].expand(n, height, width), across[:, None, :].expand(n, height, width)
        if square:  # the transpose; with both mirrors these are all eight ways to lay a square
            turned = (chance[4] < 0.5)[:, None, None]
            down, across = torch.where(turned, down.mT, down), torch.where(turned, across.mT, across)
        place = (down * x.shape[3] + across).reshape(n, 1, -1).expand(-1, x.shape[1], -1)
        return x.flatten(2).gather(2, place).view(n, x.shape[1], height, width)


def mean_auroc(score: NDArray[np.floating], Y: sparse.csr_matrix) -> float:
    """Return the mean over tasks of the AUROC of measured entries; NaN where no task has both classes.

    Parameters
    ----------
    score : float array (N, T)
    Y : CSR matrix (N, T)
        Stored entries are the measured ones, 1 or 0.
    """
    found, columns = [], Y.tocsc()
    for task in range(score.shape[1]):
        part = slice(columns.indptr[task], columns.indptr[task + 1])
        active = columns.data[part] > 0
        n = int(active.sum())
        if 0 < n < len(active):
            rank = rankdata(score[columns.indices[part], task])
            found.append((rank[active].sum() - n * (n + 1) / 2) / (n * (len(active) - n)))
    return float(np.mean(found)) if found else float("nan")


class ImageFeed:
    """Images of labelled rows, in batches on a device; a `phenohit.models.fit.Feed`.

    Parameters
    ----------
    data : ImageRows, N rows
    Y : CSR matrix (N, T)
        Labels of the rows. Every image has the labels of its row; rows without any are left out.
    device : torch.device
    augment : Augment
    block : int
        Images scored together.
    share : float
        Share of the images that an epoch sees, drawn anew each time.
    threads : int
        That read; 0: one per core.
    channels_last : bool
        Lay out images so that the channels of a pixel are together.
    part : (int, int)
        Which share of every batch this device takes, of how many: every so-many-th image.

    Notes
    -----
    Memory on the host: five batches of uint8 images, page-locked where they go to a CUDA device, to which they are
    copied while it computes. Crops, of which a chunk holds many, are read chunk by chunk in a
    random order and mixed within groups of 512 MB, so that no chunk is read twice in an epoch.
    """

    def __init__(
        self, data: ImageRows, Y: sparse.csr_matrix, device: torch.device, augment: Augment, *, block: int,
        share: float = 1.0, threads: int = 0, channels_last: bool = False, part: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        labelled = np.flatnonzero(Y.getnnz(axis=1))
        self.data, self.Y = data.take(labelled), Y[labelled]
        self.row = self.data.row
        self.measured = Measured.of(self.Y, device)
        self.count = self.measured.count[self.row]
        self.device, self.augment, self.block = device, augment, block
        self.share, self.threads, self.channels_last = share, threads, channels_last
        self.part = part

    def __len__(self) -> int:
        return len(self.row)

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the images of an epoch in a random order, as many as `share` says."""
        order = torch.randperm(len(self), generator=generator("cpu", seed, epoch)).numpy()
        order = order[: max(math.ceil(self.share * len(order)), min(1, len(order)))]
        if self.data.together == 1:
            return order
        # Chunk by chunk, then mixed within groups: `order` is random, so its first mention ranks the chunks.
        chunk = self.data.array[order].astype(np.int64) << 40 | self.data.place[order] // self.data.together
        rank = np.unique(chunk, return_index=True, return_inverse=True)
        order = order[np.argsort(rank[1][rank[2]], kind="stable")]
        size = self._group()
        mixed = np.random.default_rng([seed & 0xFFFFFFFF, epoch, 1])
        for start in range(0, len(order), size):
            mixed.shuffle(order[start : start + size])
        return order

    def _group(self) -> int:
        return max(_GROUP // math.prod(self.data.shape), 1)

    def batches(
        self, order: NDArray[np.int64], size: int, noise: Callable[[int], torch.Generator] | None = None
    ) -> Iterator[Batch]:
        """Yield batches while the next ones are read; see `phenohit.models.fit.Feed`."""
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        if not parts:
            return
        mine, n = self.part
        # A device that has no image of a batch sees one of it without its labels: all take every step together.
        where = [slice(mine, None, n) if mine < len(part) else slice(0, 1) for part in parts]
        taken = [part[w] for part, w in zip(parts, where, strict=True)]
        move = _Mover(self.device, (len(taken[0]), *self.data.shape)) if self.device.type == "cuda" else None
        rows = torch.from_numpy(self.row[np.concatenate(taken)]).to(self.device)
        start = 0
        for step, pixels in enumerate(self._ahead(taken, move)):
            whole, images = parts[step], taken[step] if mine < len(parts[step]) else parts[step][:0]
            chance = None
            if noise is not None:  # drawn for the whole batch, so that an image is turned alike wherever it is
                chance = torch.rand(5, len(whole), generator=noise(step), device=self.device)[:, where[step]]
            x = self.augment.apply(normalise(pixels), chance)
            if move is not None:
                move.done()
            if self.channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            measured = self.measured.entries(rows[start : start + len(images)], int(self.count[images].sum()))
            start += len(taken[step])
            yield Batch(x, *measured, images, int(self.count[whole].sum()))

    def _ahead(self, parts: list[NDArray[np.int64]], move: _Mover | None) -> Iterator[Tensor]:
        """Read batches in order, a few ahead of what is asked for; each is gone when the next one is asked for."""
        per = max(self._group() // max(len(parts[0]), 1), 1) if self.data.together > 1 else 1
        groups = [parts[i : i + per] for i in range(0, len(parts), per)]
        ahead = 1 if per > 1 else _AHEAD
        held = (sum(map(len, groups[0])), *self.data.shape)
        # One is being used while `ahead` + 1 are read or wait. Kept for all batches: new memory is slow to get.
        free = deque(
            torch.empty(held, dtype=torch.uint8, pin_memory=move is not None)
            for _ in range(min(ahead + 2, len(groups)))
        )
        # A second batch is begun while the last images of one are read: a GPU may wait for every one of them.
        pool = ThreadPoolExecutor(2 if move is not None and self.data.together == 1 else 1)
        try:
            waiting: deque[tuple[Tensor, Future[Any]]] = deque()
            for i, group in enumerate(groups):
                while len(waiting) <= ahead and i + len(waiting) < len(groups):
                    buffer = free.popleft()
                    waiting.append((buffer, pool.submit(self._read, groups[i + len(waiting)], buffer)))
                buffer, reading = waiting.popleft()
                reading.result()
                pixels = buffer[: sum(map(len, group))]
                for batch in pixels.split([len(part) for part in group]):
                    yield batch if move is None else move(batch)
                if move is not None:
                    move.wait()  # before the buffer is read into again
                free.append(buffer)
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, group: list[NDArray[np.int64]], buffer: Tensor) -> None:
        images = np.concatenate(group)
        self.data.read(images, buffer.numpy()[: len(images)], threads=self.threads)

    def auroc(self, scores: Iterable[tuple[NDArray[np.int64], Tensor]]) -> float:
        """Return the mean AUROC over tasks, after images are averaged to wells and those to rows."""
        return mean_auroc(pooled(self.data, scores, self.measured.n_tasks)[0], self.Y)


class Seen(nn.Module):
    """What the training loop wants of a network: noise where an epoch is given, none otherwise."""

    def __init__(self, net: nn.Module, *, compiled: bool) -> None:
        super().__init__()
        self.net = net
        self.call: Any = torch.compile(net) if compiled else net
        self.training_call: Any = getattr(net, "training_logits", self.call)

    def forward(self, x: Tensor, epoch: int | None = None, noise: torch.Generator | None = None) -> Any:
        """Return logits (B, T); with an epoch and noise those to be trained on, of which there may be several."""
        if epoch is None or noise is None:
            return self.call(x)
        torch.manual_seed(noise.initial_seed())  # dropout layers draw from torch's own generator
        return self.training_call(x)


class _Mover:
    """Copies batches to a CUDA device beside what it computes, into two places in turn."""

    def __init__(self, device: torch.device, shape: tuple[int, ...]) -> None:
        self.device, self.turn = device, 0
        self.there = [torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(2)]
        self.free = [torch.cuda.Event() for _ in range(2)]  # not recorded yet: nobody waits for it
        self.arrived = torch.cuda.Event()
        self.stream = torch.cuda.Stream(device)
        self.stream.wait_stream(torch.cuda.current_stream(device))  # the places may have been another tensor's

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return page-locked images on the device, for the work that follows on its current stream."""
        x = self.there[self.turn][: len(pixels)]
        self.stream.wait_event(self.free[self.turn])
        with torch.cuda.stream(self.stream):
            x.copy_(pixels, non_blocking=True)
        self.arrived.record(self.stream)
        torch.cuda.current_stream(self.device).wait_event(self.arrived)
        return x

    def done(self) -> None:
        """Say that the images have been used, or will have been by the work begun so far."""
        self.free[self.turn].record(torch.cuda.current_stream(self.device))
        self.turn = 1 - self.turn

    def wait(self) -> None:
        """Wait until the last images are on the device."""
        self.arrived.synchronize()


def pooled(
    data: ImageRows, scores: Iterable[tuple[NDArray[np.int64], Tensor]], n_tasks: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Average images to wells and wells to rows.

    Parameters
    ----------
    data : ImageRows, N rows
    scores : iterable of (images (B,), values (B, T))
        Every image as often as any other.
    n_tasks : int

    Returns
    -------
    mean : float32 array (N, T)
        NaN for rows without images.
    spread : float32 array (N, T)
        Standard deviation over all values of a row; 0 where it has one.
    """
    wells, well = np.unique(data.well, return_inverse=True)
    row = data.row
    total = np.zeros((len(wells), n_tasks))
    often = np.zeros(len(wells))
    square, plain, times = np.zeros((len(data), n_tasks)), np.zeros((len(data), n_tasks)), np.zeros(len(data))
    for images, value in scores:
        v = value.numpy().astype(np.float64)
        _add(total, well[images], v)
        _add(often[:, None], well[images], np.ones((len(v), 1)))
        _add(plain, row[images], v)
        _add(square, row[images], v**2)
        _add(times[:, None], row[images], np.ones((len(v), 1)))
    of_row = np.zeros(len(wells), np.int64)
    of_row[well] = row
    mean, n_wells = np.zeros((len(data), n_tasks)), np.zeros(len(data))
    seen = often > 0
    _add(mean, of_row[seen], total[seen] / often[seen, None])
    _add(n_wells[:, None], of_row[seen], np.ones((int(seen.sum()), 1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean /= n_wells[:, None]
        variance = square / times[:, None] - (plain / times[:, None]) ** 2
        spread = np.sqrt(np.maximum(variance, 0) * (times / np.maximum(times - 1, 1))[:, None])
    return mean.astype(np.float32), spread.astype(np.float32)


def _add(target: NDArray[np.float64], at: NDArray[np.integer], values: NDArray[np.float64]) -> None:
    """Add rows of values to rows of the target, several to one where they share it."""
    np.add.at(target, at, values)
