"""What few-shot methods need of images: a backbone, one view of each row to learn from, all of them to score by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, FileError, ShapeError, some
from phenohit.fewshot.episodes import Episodes
from phenohit.fewshot.image_settings import EncoderSettings
from phenohit.images.samples import ImageRows
from phenohit.models.fit import generator
from phenohit.models.fit_images import Augment, ImageFeed, normalise, pooled
from phenohit.models.vision import make

__all__ = [
    "augment_of",
    "build",
    "embed_rows",
    "identity_parts",
    "one_view",
    "read_views",
    "require_views",
    "restored_net",
    "seen_labels",
    "without_batch_norm",
]

_READ = 64  # views read at a time


def augment_of(settings: EncoderSettings, shape: tuple[int, int, int]) -> Augment:
    """Return what is done to views of shape (C, H, W)."""
    resize = (settings.resize[0], settings.resize[1]) if settings.resize else None
    height, width = resize or shape[1:]
    crop = (min(settings.crop[0], height), min(settings.crop[1], width)) if settings.crop else None
    return Augment(resize, crop, settings.flips, settings.rotations)


def build(
    settings: EncoderSettings, shape: tuple[int, int, int], outputs: int, seed: int = 0, *, batch_norm: bool = True
) -> nn.Module:
    """Build a backbone for views of shape (C, H, W) with `outputs` numbers in its last layer."""
    net = make(
        settings.network, shape[0], outputs, augment_of(settings, shape).size(shape[1:]), settings.options, seed=seed
    )
    return net if batch_norm else without_batch_norm(net)


def without_batch_norm(net: nn.Module) -> nn.Module:
    """Put group normalisation (Wu and He 2018) in the place of batch normalisation, in place.

    Notes
    -----
    Of use where weights are adapted to an episode. Running averages would have to be adapted as well (and may not be
    written to under `torch.func`), and without them (`torch.func.replace_all_batch_norm_modules_`) the views of a query
    are normalised by each other: the score of a compound would depend on which others are asked for along with it.
    Groups: the largest of 32 or fewer that divide the channels.
    """
    for name, child in net.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            group = nn.GroupNorm(gcd(32, child.num_features), child.num_features, child.eps)
            if child.affine:
                group.load_state_dict({"weight": child.weight.detach(), "bias": child.bias.detach()})
            # Backbones of timm have the activation within their normalisation.
            after = [m for m in (getattr(child, "drop", None), getattr(child, "act", None)) if isinstance(m, nn.Module)]
            setattr(net, name, nn.Sequential(group, *after) if after else group)
        else:
            without_batch_norm(child)
    return net


def restored_net(net: nn.Module, arrays: Mapping[str, NDArray[Any]], path: object) -> nn.Module:
    """Fill a network that was built on the meta device with the weights of a file.

    Raises
    ------
    FileError
        If one is absent, of another shape or type, or not finite.
    """
    wanted, found = net.state_dict(), {}
    for name, tensor in wanted.items():
        array = arrays.get(f"net {name}")
        fits = array is not None and array.shape == tuple(tensor.shape) and np.isfinite(array).all()
        if array is None or not fits or torch.from_numpy(np.array(array)).dtype != tensor.dtype:
            raise FileError(f"'{path}' is damaged: '{name}' is absent or does not fit. Pretrain again.")
        found[name] = torch.from_numpy(np.array(array))
    net.load_state_dict(found, assign=True)
    return net.requires_grad_(False).eval()


def seen_labels(data: ImageRows, labels: Labels) -> tuple[Labels, pd.DataFrame]:
    """Leave out labels of rows without views.

    Returns
    -------
    labels : Labels, N rows
    dropped : DataFrame
        Those rows, where they had labels.
    """
    there = np.diff(data.start) > 0
    lost = np.flatnonzero(~there & (np.diff(labels.Y.indptr) > 0))
    Y = labels.Y.tocoo()
    kept = there[Y.row]
    Y = sparse.csr_matrix((Y.data[kept], (Y.row[kept], Y.col[kept])), shape=Y.shape)
    table = dropped("pretrain", "row", data.compounds[lost].tolist(), "no view of it")
    return Labels(Y, labels.compounds, labels.tasks), table


def require_views(data: Any, episodes: Sequence[Episodes], method: str) -> None:
    """Refuse what is not images, and episodes with rows of which there is no view.

    Raises
    ------
    ShapeError
    """
    if not isinstance(data, ImageRows):
        raise ShapeError(f"method '{method}' learns from images, not from features. Give it views: images.store: true.")
    if not episodes:
        return
    rows = np.unique(np.concatenate([part.ravel() for e in episodes for part in (e.support, e.query)]))
    bare = rows[np.diff(data.start)[rows] == 0]
    if len(bare):
        raise ShapeError(
            f"{len(bare)} of {len(rows)} rows of the episodes have no view ({some(data.compounds[bare], 3)}). Draw "
            "episodes from labels that phenohit.fewshot.image_encoder.seen_labels has left."
        )


def one_view(data: ImageRows, rows: NDArray[np.intp], stream: np.random.Generator) -> NDArray[np.int64]:
    """Return the position of one view of every row, drawn at random."""
    return data.start[rows] + stream.integers(np.diff(data.start)[rows])


def read_views(
    data: ImageRows, images: NDArray[np.int64], augment: Augment, device: torch.device, *numbers: int, threads: int = 1
) -> Tensor:
    """Read views, normalise them, and lay them as while scoring; by chance where `numbers` seed it.

    Parameters
    ----------
    data : ImageRows
    images : int64 array, shape (n,)
        Positions among all views.
    augment : Augment
    device : torch.device
    *numbers : int
        What decides on crops, mirrors and turns.
    threads : int
        That read.

    Returns
    -------
    float32 tensor, shape (n, C, h, w)
    """
    chance = torch.rand(5, len(images), generator=generator("cpu", *numbers)).to(device) if numbers else None
    parts = []
    for start in range(0, len(images), _READ):
        which = slice(start, start + _READ)
        pixels = torch.from_numpy(data.read(images[which], threads=threads)).to(device)
        parts.append(augment.apply(normalise(pixels), None if chance is None else chance[:, which]).contiguous())
    return torch.cat(parts)


def embed_rows(
    net: nn.Module, data: ImageRows, rows: NDArray[np.intp], augment: Augment, device: torch.device, *,
    batch: int, threads: int, views: int = 0,
) -> Tensor:  # fmt: skip
    """Return what a network answers to rows, averaged over the views of a well, then over the wells of a row.

    Parameters
    ----------
    net : module
        In evaluation mode, so that no view has a part in another's answer.
    data : ImageRows
    rows : intp array, shape (R,)
    augment : Augment
    device : torch.device
    batch : int
        Views at a time.
    threads : int
        That read.
    views : int
        The first so many of every row; 0: all.

    Returns
    -------
    float32 tensor, shape (R, D)
    """
    part = data.take(rows)
    feed = ImageFeed(
        part, sparse.csr_matrix(np.ones((len(part), 1), np.float32)), device, augment, block=batch, threads=threads
    )
    order = np.arange(len(part.place))
    if views:
        order = order[order - np.repeat(part.start[:-1], np.diff(part.start)) < views]
    answers = []
    for one in feed.batches(order, batch):
        with torch.no_grad():
            answers.append((one.samples, net(one.x).float().cpu()))
    if not answers:
        return torch.zeros((len(rows), 0), device=device)
    return torch.from_numpy(pooled(part, answers, answers[0][1].shape[1])[0]).to(device)


def identity_parts(data: ImageRows) -> tuple[NDArray[np.int64], list[str]]:
    """Return numbers and text that differ where the images of rows differ, for the identity of a training.

    Raises
    ------
    ConfigError
        If an array of images is not there.
    """
    try:
        age = [f"{folder} {Path(folder, 'zarr.json').stat().st_mtime_ns}" for folder in data.arrays]
    except OSError as error:
        raise ConfigError(f"The store of views cannot be read: {error}. Make it again.") from error
    return np.column_stack([data.array, data.place, data.well, data.row]).astype(np.int64), [*age, *data.channels]
