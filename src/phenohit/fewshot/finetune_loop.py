"""Tuning of many networks side by side, each on its own support."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from phenohit.fewshot.episodes import Episodes
from phenohit.fewshot.trunk import Layers, bits, label_tensor, local_rows, mix, network, soft
from phenohit.progress import track

__all__ = ["Fetch", "Tuning", "tune", "tuned_scores"]

Fetch: TypeAlias = Callable[[NDArray[np.intp]], Tensor]  # rows of the feature table -> what is seen of them
Begin: TypeAlias = Callable[[Tensor, Tensor, int], Layers]

_MEMORY = {"cpu": 1 << 26, "cuda": 1 << 31}  # bytes at a time; on a processor, about what its caches hold
_MOST = 256  # episodes at a time; more gain little


@dataclass(frozen=True)
class Tuning:
    """How to tune; see `SingleTaskSettings` for what each means."""

    epochs: int
    batches: int
    learning_rate: float
    decay_every: int
    decay: float
    weight_decay: float
    clip: float | None
    rates: tuple[float, float]  # dropout


def tune(x: Tensor, support: Tensor, y: Tensor, layers: Layers, keys: Tensor, how: Tuning) -> None:
    """Tune E networks in place, each by Adam on the cross-entropy of its own support.

    Parameters
    ----------
    x : float32 tensor, shape (R, D)
        Rows, each once.
    support : int64 tensor, shape (E, M)
        Rows of `x`.
    y : float32 tensor, shape (E, M)
    layers : list of (tensor (E, b, a), tensor (E, b))
        The last gives one output.
    keys : int64 tensor, shape (E,)
        Of dropout and of the order of a pass.
    how : Tuning

    Notes
    -----
    The loss is a sum over episodes, and Adam treats every number apart: nothing of one episode reaches another. Only
    clipping needs to know whose a gradient is.
    """
    parameters = [t.requires_grad_(True) for pair in layers for t in pair]
    groups = [
        {"params": [w for w, _ in layers], "weight_decay": how.weight_decay},
        {"params": [b for _, b in layers], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adam(groups, lr=how.learning_rate, fused=True)
    M = support.shape[1]
    batch, step = max(M // how.batches, 1), 0
    for epoch in range(how.epochs):
        # Sorting random numbers gives every episode an order of its own.
        order = bits(mix(keys + (epoch + 1)), M).int().argsort(dim=1, stable=True)
        rows, wanted = support.gather(1, order), y.gather(1, order)
        for start in range(0, M, batch):
            part = slice(start, start + batch)
            logits = network(x[rows[:, part]], layers, how.rates, mix(keys - (step + 1)))[..., 0]
            loss = functional.binary_cross_entropy_with_logits(logits, wanted[:, part], reduction="none")
            optimizer.zero_grad(set_to_none=True)
            loss.mean(1).sum().backward()
            if how.clip is not None:
                _clip(parameters, how.clip)
            if how.decay_every:
                for group in optimizer.param_groups:
                    group["lr"] = how.learning_rate * how.decay ** (step // how.decay_every)
            optimizer.step()
            step += 1
    for t in parameters:
        t.requires_grad_(False)
        t.grad = None


def _clip(parameters: Sequence[Tensor], most: float) -> None:
    """Shorten gradients to `most`, each episode's by its own length."""
    grads = [p.grad for p in parameters if p.grad is not None]
    length = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
    factor = (most / (length + 1e-6)).clamp_max(1.0)
    for g in grads:
        g.mul_(factor.view(-1, *[1] * (g.ndim - 1)))


def tuned_scores(
    episodes: Sequence[Episodes],
    keys: Sequence[NDArray[np.int64]],
    fetch: Fetch,
    begin: Begin,
    how: Tuning,
    device: torch.device,
    title: str = "",
) -> list[NDArray[np.float32]]:
    """Tune a network per episode and score its queries.

    Parameters
    ----------
    episodes : sequence of Episodes
    keys : sequence of int64 array, shape (E,)
        One array per item of `episodes`.
    fetch : function
        Rows of the feature table -> what the tuned networks see of them, float32 (R, D).
    begin : function
        Keys (E,), labels (E, M) and D -> layers to begin with.
    how : Tuning
    device : torch.device
    title : str
        Shown with the progress.

    Returns
    -------
    list of float32 array, shape (E, Q)
        Probabilities, one array per item of `episodes`.
    """
    scores: list[NDArray[np.float32]] = [np.zeros(e.query.shape, np.float32) for e in episodes]
    alike: dict[tuple[int, int], list[int]] = {}
    for i, one in enumerate(episodes):
        alike.setdefault((one.size, one.query.shape[1]), []).append(i)
    blocks = []
    for items in alike.values():
        owner = np.repeat(items, [len(episodes[i]) for i in items])
        number = np.concatenate([np.arange(len(episodes[i])) for i in items])
        together = _together(begin, fetch, episodes[items[0]], device)
        blocks += [(owner[k : k + together], number[k : k + together]) for k in range(0, len(owner), together)]
    for owner, number in track(blocks, title):
        own = [(i, number[owner == i]) for i in dict.fromkeys(owner.tolist())]
        support, query = (
            np.concatenate([getattr(episodes[i], side)[at] for i, at in own]) for side in ("support", "query")
        )
        y = label_tensor(np.concatenate([episodes[i].y_support[at] for i, at in own]), device)
        key = torch.as_tensor(np.concatenate([keys[i][at] for i, at in own]), device=device)
        rows, places = local_rows(support, query)
        x, (s, q) = fetch(rows), (torch.as_tensor(p, device=device) for p in places)
        layers = begin(key, y, x.shape[1])
        tune(x, s, y, layers, key, how)
        score = soft(network(x[q], layers)[..., 0])
        for i, at in own:
            scores[i][at], score = score[: len(at)], score[len(at) :]
    return scores


def _together(
    begin: Begin,
    fetch: Fetch,
    one: Episodes,
    device: torch.device,
) -> int:
    """How many episodes fit: weights, gradients and two moments of each, and the features of their rows."""
    x = fetch(np.unique(one.support[:1]))
    layers = begin(
        torch.zeros(1, dtype=torch.int64, device=device), label_tensor(one.y_support[:1], device), x.shape[1]
    )
    numbers = 4 * sum(t.numel() for pair in layers for t in pair)
    numbers += (one.size + 2 * one.query.shape[1]) * x.shape[1]
    return int(np.clip(_MEMORY[device.type] // (4 * numbers), 1, _MOST))
