"""Prototypical networks: an embedding in which compounds of one class lie together, whatever the assay."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from phenohit.data.dropped import nothing_dropped
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, LabelError
from phenohit.fewshot.distances import Distance, class_logits
from phenohit.fewshot.episodes import Episodes, draw_tasks
from phenohit.fewshot.pools import Pools, episode_auroc
from phenohit.fewshot.prototypes_train import Features, Net, Pretraining, identity
from phenohit.fewshot.trunk import embed, find_device, local_rows, restored, soft
from phenohit.models.contract import (
    Known,
    check_pair,
    cores,
    model_path,
    not_fitted,
    read_settings,
    require,
    restore_settings,
    stored_settings,
)
from phenohit.models.fit import threads
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Prototypes", "PrototypesSettings"]

_TOGETHER = 64  # episodes scored at a time
_VALID_EPISODES = 20  # per validation task and support size
_ALL = 0  # the key of a network that serves all support sizes


@dataclass(frozen=True)
class PrototypesSettings:
    """Settings of `Prototypes`.

    Parameters
    ----------
    preset : {"", "fslcp"}
        `fslcp` stands for protonet_cp of Ha's thesis, chapter 2, as its code runs: 3 x 2,048 units to 512, one network
        per support size, 50,000 steps of one episode each, Adam at 1e-4, a tenth of that after every 20,000. The
        defaults are smaller and take many episodes in one step.
    layers, units : int
        Hidden layers, and units of each.
    embedding : int
        Numbers that a compound is embedded as.
    dropout_input, dropout_hidden : float
        Shares of features and of hidden units left out at random while pretraining. A compound's are the same in all
        episodes of a step.
    distance : {"euclidean", "squared", "cosine", "mahalanobis"}
        Of a query to a prototype: Euclidean as in Ha's code, squared as in Snell et al. 2017, cosine as in Ha's text,
        Mahalanobis (squared, with shrunken class covariances) as in Bateni et al. 2020 and FS-Mol.
    temperature : float
        What cosines are multiplied by; where it is learned, at the beginning.
    learn_temperature : bool
    per_size : bool
        One network per support size instead of one that met supports of all of them.
    steps : int
        Optimiser steps.
    episodes : int
        Episodes of a step.
    tasks : int
        Draws of a task in a step, each with a support size of its own, among which the episodes are divided.
    pool : int
        Compounds of a task in a step, among which its episodes are formed; at least those of one episode. Each is
        embedded once.
    learning_rate : float
        Of Adam.
    decay_every : int
        Steps after which the rate is multiplied by `decay`, again and again; 0: never.
    decay : float
    weight_decay : float
        L2 penalty.
    clip : float | None
        Longest gradient that is followed; empty: any.
    check_every : int
        With validation tasks: steps between checks; the network of the best check is kept. 0: the last one is.
    patience : int
        Checks without a better one after which training ends; 0: never before `steps`.
    device : {"auto", "cpu", "cuda"}
        Auto is cuda where there is one.
    """

    preset: Literal["", "fslcp"] = ""
    layers: int = 2
    units: int = 512
    embedding: int = 256
    dropout_input: float = 0.1
    dropout_hidden: float = 0.3
    distance: Distance = "euclidean"
    temperature: float = 10.0
    learn_temperature: bool = True
    per_size: bool = False
    steps: int = 2000
    episodes: int = 256
    tasks: int = 4
    pool: int = 192
    learning_rate: float = 3e-4
    decay_every: int = 800
    decay: float = 0.3
    weight_decay: float = 0.0
    clip: float | None = 5.0
    check_every: int = 50
    patience: int = 8
    device: Literal["auto", "cpu", "cuda"] = "auto"

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "fslcp": {
            "layers": 3, "units": 2048, "embedding": 512, "dropout_input": 0.1, "dropout_hidden": 0.5,
            "distance": "euclidean", "per_size": True, "steps": 50_000, "episodes": 1, "tasks": 1, "pool": 0,
            "learning_rate": 1e-4, "decay_every": 20_000, "decay": 0.1, "weight_decay": 0.0, "clip": None,
            "check_every": 1000, "patience": 0,
        }
    }  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("layers", "units", "embedding", "steps", "episodes", "tasks"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.tasks <= self.episodes, "tasks", self.tasks, f"at most episodes ({self.episodes})")
        for name in ("dropout_input", "dropout_hidden"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        for name in ("temperature", "learning_rate", "decay"):
            require(0 < getattr(self, name) < float("inf"), name, getattr(self, name), "above 0")
        require(0 <= self.weight_decay < float("inf"), "weight_decay", self.weight_decay, "0 or above")
        require(self.clip is None or self.clip > 0, "clip", self.clip, "above 0, or empty")
        for name in ("pool", "decay_every", "check_every", "patience"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or above")


class Prototypes:
    """Prototypical network on features (Snell et al. 2017; Ha's thesis, chapter 2).

    Parameters
    ----------
    **settings
        See `PrototypesSettings`.

    Attributes
    ----------
    dropped : DataFrame
        Training tasks that no episode could be drawn from, and validation tasks, with the reason.
    auroc : dict of int to list of (int, float)
        Support size (0: all) -> step and mean validation AUROC of every check.

    Notes
    -----
    A query is as likely active as a softmax over its negative distances to the means of the support's actives and
    inactives says. Nothing is tuned at scoring: rows are embedded once, the rest is arithmetic on embeddings.
    """

    name: ClassVar[str] = "prototypes"
    sees: ClassVar[str] = "profiles"
    pretrains: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        self.settings = read_settings(PrototypesSettings, settings, self.name)
        self.known: Known | None = None
        self.nets: dict[int, Net] = {}
        self.dropped: pd.DataFrame = nothing_dropped()
        self.auroc: dict[int, list[tuple[int, float]]] = {}

    def pretrain(
        self,
        data: Profiles,
        labels: Labels,
        *,
        valid: Labels | None = None,
        sizes: Sequence[int] = (16,),
        query: int = 32,
        seed: int = 0,
        run: Path | None = None,
        jobs: int = 1,
    ) -> Self:
        """Train on episodes of the training tasks; see `contract.Method.pretrain`."""
        s = self.settings
        known, device = Known.of(data, labels), find_device(s.device)
        pools = Pools.of(labels, data.compounds, sizes, query)
        unserved = [size for size in sizes if not pools.parts[size]]
        if unserved and s.per_size:
            raise LabelError(
                f"No training task has the compounds for a support of {unserved[0]} and a query: leave this size out, "
                "or set per_size: false."
            )
        episodes, missing = [], nothing_dropped()
        if valid is not None and s.check_every:
            check_pair(data, valid)
            episodes, missing = draw_tasks(
                valid, data.compounds, valid.task_names, sizes=sizes, query=query, n=_VALID_EPISODES, seed=seed
            )
        features = Features.of(data.X, labels.Y, device)
        nets, auroc = {}, {}
        for size in sorted(sizes) if s.per_size else [_ALL]:
            own = [e for e in episodes if size in (_ALL, e.size)]
            net = Net.begin(len(data.features), s, seed, device)
            training = Pretraining(
                net, s, pools, features, list(sizes) if size == _ALL else [size], seed=seed,
                check=(lambda net, own=own: episode_auroc(self._score(net, data.X, own), own)) if own else None,
                checkpoint=None if run is None else Path(run) / f"{self.name}-{size}.checkpoint.safetensors",
                identity="" if run is None else identity(data.X, labels, valid, [s, seed, sizes, query, size]),
            )  # fmt: skip
            with threads(cores(jobs)):
                training.complete(f"prototypes: steps{f', support {size}' if size else ''}")
            nets[size], auroc[size] = net, training.checks
        self.known, self.nets, self.auroc = known, nets, auroc
        self.dropped = pd.concat([pools.dropped, missing], ignore_index=True)
        return self

    def score(
        self, data: Profiles, episodes: Sequence[Episodes], *, seed: int = 0, jobs: int = 1
    ) -> list[NDArray[np.float32]]:
        """Return the probability of every query row; see `contract.Method.score`. No random numbers are used."""
        del seed
        if self.known is None:
            raise not_fitted(self.name)
        self.known.require(data)
        scores: dict[int, NDArray[np.float32]] = {}
        with threads(cores(jobs)):
            for size, net in self.nets.items():
                own = [i for i, e in enumerate(episodes) if size in (_ALL, e.size)]
                scores |= zip(own, self._score(net, data.X, [episodes[i] for i in own]), strict=True)
        if len(scores) < len(episodes):
            absent = sorted({e.size for e in episodes} - set(self.nets))
            raise ConfigError(
                f"prototypes (per_size: true) was pretrained for supports of {sorted(self.nets)}, not {absent}. Give "
                "them to pretrain as sizes."
            )
        return [scores[i] for i in range(len(episodes))]

    @torch.no_grad()
    def _score(self, net: Net, X: Any, episodes: Sequence[Episodes]) -> list[NDArray[np.float32]]:
        if not episodes:
            return []
        device = net.scale.device
        rows = np.unique(np.concatenate([part.ravel() for e in episodes for part in (e.support, e.query)]))
        Z = embed(X, rows, net.layers, device)
        scores = []
        for one in track(episodes, "prototypes: score"):
            parts = []
            for start in range(0, len(one), _TOGETHER):
                part = one.take(slice(start, start + _TOGETHER))
                used, places = local_rows(part.support, part.query)
                own = Z[torch.as_tensor(np.searchsorted(rows, used), device=device)]
                support, query = (torch.as_tensor(p, device=device) for p in places)
                y = torch.as_tensor(part.y_support, device=device)
                logits = class_logits(own, support, y, query, self.settings.distance, net.scale.exp())
                parts.append(soft(logits[..., 1] - logits[..., 0]))
            scores.append(np.concatenate(parts) if parts else np.zeros(one.query.shape, np.float32))
        return scores

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; see `contract.Method.save`."""
        if self.known is None:
            raise not_fitted(self.name)
        meta = {
            "kind": f"few-shot {self.name}", "settings": stored_settings(self.settings), **self.known.meta(),
            "sizes": list(self.nets),
        }  # fmt: skip
        arrays = {
            f"net {size} {name}": t.detach().cpu().numpy()
            for size, net in self.nets.items()
            for name, t in net.named().items()
        }
        write_tensors(model_path(path, self.name), {**self.known.arrays(), **arrays}, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Method.load`."""
        path = model_path(path, cls.name)
        arrays, meta = read_tensors(path, f"few-shot {cls.name}", Known.FORM)
        method = cls()
        method.settings = s = restore_settings(PrototypesSettings, meta, cls.name, path)
        method.known = Known.restore(arrays, meta, path)
        sizes = meta.get("sizes")
        if not isinstance(sizes, list) or not sizes or not all(type(size) is int for size in sizes):
            raise FileError(f"'{path}' is damaged: it does not say for which support sizes it is. Pretrain again.")
        device = find_device(s.device)
        widths = [len(method.known.features)] + [s.units] * s.layers + [s.embedding]
        for size in sizes:
            shapes: dict[str, tuple[int, ...]] = {}
            for depth, (a, b) in enumerate(pairwise(widths)):
                shapes |= {f"net {size} weight {depth}": (b, a), f"net {size} bias {depth}": (b,)}
            *found, scale = (t.to(device) for t in restored(arrays, {**shapes, f"net {size} scale": ()}, path))
            method.nets[size] = Net(list(zip(found[::2], found[1::2], strict=True)), scale)
        return method
