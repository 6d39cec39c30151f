"""Networks tuned on every support: from random weights, or from a network that knows other assays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.fewshot.episodes import Episodes
from phenohit.fewshot.finetune_loop import Fetch, Tuning, tuned_scores
from phenohit.fewshot.trunk import Layers, begin, embed, episode_keys, find_device, mix, restored
from phenohit.models.contract import (
    Known,
    cores,
    model_path,
    not_fitted,
    read_settings,
    require,
    restore_settings,
    stored_settings,
)
from phenohit.models.fit import threads
from phenohit.models.network import Network
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["MultiTask", "MultiTaskSettings", "SingleTask", "SingleTaskSettings"]

_HEAD = 0x5EED  # sets the random numbers of heads apart from those of trunks


@dataclass(frozen=True)
class SingleTaskSettings:
    """Settings of `SingleTask`.

    Parameters
    ----------
    preset : {"", "fslcp"}
        `fslcp` stands for singletask_cp of Ha's thesis, chapter 2: 3 x 2,048 units, Adam at 1e-4, a tenth of that after
        every 100 steps. The default is small, because a few compounds cannot use more, and its rate is one that 200
        steps get somewhere with: at 1e-4 no weight moves by more than 0.02.
    layers, units : int
        Hidden layers, and units of each.
    dropout_input, dropout_hidden : float
        Shares of features and of hidden units left out at random while training.
    epochs : int
        Passes through the support.
    batches : int
        Steps of a pass: a batch is 1/`batches` of the support.
    learning_rate : float
        Of Adam.
    decay_every : int
        Steps after which the rate is multiplied by `decay`, again and again; 0: never.
    decay : float
    weight_decay : float
        L2 penalty on weights, not on biases.
    clip : float | None
        Longest gradient of an episode that is followed; empty: any.
    random_head : bool
        Output weights begin at random, as published, instead of 0 with the support's log odds as bias.
    device : {"auto", "cpu", "cuda"}
        Auto is cuda where there is one.
    """

    preset: Literal["", "fslcp"] = ""
    layers: int = 1
    units: int = 128
    dropout_input: float = 0.1
    dropout_hidden: float = 0.3
    epochs: int = 50
    batches: int = 4
    learning_rate: float = 1e-3
    decay_every: int = 0
    decay: float = 0.1
    weight_decay: float = 0.0
    clip: float | None = None
    random_head: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "fslcp": {
            "layers": 3, "units": 2048, "dropout_input": 0.1, "dropout_hidden": 0.5, "epochs": 50, "batches": 4,
            "learning_rate": 1e-4, "decay_every": 100, "decay": 0.1, "weight_decay": 0.0, "clip": 5.0,
            "random_head": True,
        }
    }  # fmt: skip

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class MultiTaskSettings:
    """Settings of `MultiTask`.

    Parameters
    ----------
    preset : {"", "fslcp"}
        `fslcp` stands for multitask_cp of Ha's thesis, chapter 2, as its code runs: 3 x 2,048 units, pretrained for 50
        epochs at a rate of 0.01 (constant here, a tenth after every 20 epochs there), then tuned as a whole with Adam
        at 1e-4, a tenth of that after every 100 steps. Its text says that the trunk is frozen: add ``tune: head``.
    tune : {"head", "all"}
        What is tuned on a support: a new output on the frozen trunk, or the whole network.
    layers, units : int
        Hidden layers, and units of each.
    dropout_input, dropout_hidden : float
        Shares of features and of hidden units left out at random while pretraining, and while all is tuned.
    pretrain_rate, pretrain_momentum, pretrain_decay : float
        Rate, momentum and L2 penalty of the descent that pretrains.
    pretrain_batch : int
        Rows of its steps.
    pretrain_epochs : int
        Its epochs where it does not stop early.
    held : float
        Share of the labelled compounds held back from pretraining to stop it by; 0: none. Validation tasks cannot
        stop it: the network has no output for them. Where those compounds hold too few labels to stop by, they are
        trained on (see ``min_valid`` of the model ``network``).
    epochs, batches : int
        Passes through the support, and steps of each.
    learning_rate : float
        Of Adam on the support. At the published 1e-4 no weight moves by more than 0.02 in 200 steps: a head ranks as
        well, but its probabilities stay near the support's share.
    decay_every : int
        Steps after which the rate is multiplied by `decay`, again and again; 0: never.
    decay : float
    weight_decay : float
        L2 penalty on weights that are tuned, not on biases.
    clip : float | None
        Longest gradient of an episode that is followed; empty: any.
    random_head : bool
        Output weights begin at random, as published, instead of 0 with the support's log odds as bias.
    device : {"auto", "cpu", "cuda"}
        Auto is cuda where there is one.
    """

    preset: Literal["", "fslcp"] = ""
    tune: Literal["head", "all"] = "head"
    layers: Literal[1, 2, 3] = 2
    units: int = 512
    dropout_input: float = 0.1
    dropout_hidden: float = 0.5
    pretrain_rate: float = 0.05
    pretrain_momentum: float = 0.9
    pretrain_decay: float = 0.0
    pretrain_batch: int = 64
    pretrain_epochs: int = 63
    held: float = 0.1
    epochs: int = 50
    batches: int = 4
    learning_rate: float = 1e-3
    decay_every: int = 0
    decay: float = 0.1
    weight_decay: float = 0.0
    clip: float | None = None
    random_head: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "fslcp": {
            "tune": "all", "layers": 3, "units": 2048, "dropout_input": 0.1, "dropout_hidden": 0.5,
            "pretrain_rate": 0.01, "pretrain_momentum": 0.9, "pretrain_decay": 1e-4, "pretrain_batch": 256,
            "pretrain_epochs": 50, "held": 0.0, "epochs": 50, "batches": 4, "learning_rate": 1e-4, "decay_every": 100,
            "decay": 0.1, "weight_decay": 0.0, "clip": 5.0, "random_head": True,
        }
    }  # fmt: skip

    def __post_init__(self) -> None:
        _check(self)
        for name in ("pretrain_batch", "pretrain_epochs"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(0 < self.pretrain_rate < float("inf"), "pretrain_rate", self.pretrain_rate, "above 0")
        require(0 <= self.pretrain_decay < float("inf"), "pretrain_decay", self.pretrain_decay, "0 or above")
        for name in ("pretrain_momentum", "held"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")


def _check(s: SingleTaskSettings | MultiTaskSettings) -> None:
    for name in ("layers", "units", "epochs", "batches"):
        require(getattr(s, name) >= 1, name, getattr(s, name), "at least 1")
    for name in ("dropout_input", "dropout_hidden"):
        require(0 <= getattr(s, name) < 1, name, getattr(s, name), "from 0 to below 1")
    for name in ("learning_rate", "decay"):
        require(0 < getattr(s, name) < float("inf"), name, getattr(s, name), "above 0")
    require(s.decay_every >= 0, "decay_every", s.decay_every, "0 or above")
    require(0 <= s.weight_decay < float("inf"), "weight_decay", s.weight_decay, "0 or above")
    require(s.clip is None or s.clip > 0, "clip", s.clip, "above 0, or empty")


class _Tuned:
    """What both methods share: an episode's network begins somewhere and is tuned on its support."""

    name: ClassVar[str]
    sees: ClassVar[str] = "profiles"
    settings: Any
    known: Known | None = None

    def _trunk(self, keys: torch.Tensor) -> Layers:
        """Return the tuned layers before the head, one set per key."""
        raise NotImplementedError

    def _rates(self) -> tuple[float, float]:
        return self.settings.dropout_input, self.settings.dropout_hidden

    def _begin(self, keys: torch.Tensor, y: torch.Tensor, width: int) -> Layers:
        trunk = self._trunk(keys)
        head = begin([trunk[-1][0].shape[1] if trunk else width, 1], mix(keys + _HEAD))
        if not self.settings.random_head:
            share = (y.sum(1, keepdim=True) + 1) / (y.shape[1] + 2)
            head = [(torch.zeros_like(head[0][0]), torch.logit(share))]
        return trunk + head

    def score(
        self, data: Profiles, episodes: Sequence[Episodes], *, seed: int = 0, jobs: int = 1
    ) -> list[NDArray[np.float32]]:
        """Tune a network per episode and return the probability of its queries; see `contract.Method.score`.

        Notes
        -----
        Episodes of one support size are tuned side by side, whatever their task: one stack of weights, one product per
        layer, one Adam whose numbers are each episode's own. As many at a time as 64 MB (2 GB on cuda) hold.
        """
        if self.known is None:
            raise not_fitted(self.name)
        self.known.require(data)
        s, device = self.settings, find_device(self.settings.device)
        steps = (s.epochs, s.batches, s.learning_rate, s.decay_every, s.decay)
        tuning = Tuning(*steps, s.weight_decay, s.clip, self._rates())
        keys = [episode_keys(one, self.name, seed) for one in episodes]
        fetch = self._fetcher(data.X, episodes, device)
        with threads(cores(jobs)):
            return tuned_scores(episodes, keys, fetch, self._begin, tuning, device, f"{self.name}: episodes")

    def _fetcher(self, X: Any, episodes: Sequence[Episodes], device: torch.device) -> Fetch:
        """Return a function from rows to what the tuned layers see of them."""
        del episodes
        return lambda rows: torch.as_tensor(X[rows], device=device)

    def _saved(self) -> dict[str, NDArray[Any]]:
        return {}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; see `contract.Method.save`."""
        if self.known is None:
            raise not_fitted(self.name)
        meta = {"kind": f"few-shot {self.name}", "settings": stored_settings(self.settings), **self.known.meta()}
        write_tensors(model_path(path, self.name), {**self.known.arrays(), **self._saved()}, meta)


class SingleTask(_Tuned):
    """A network per episode, from random weights: what knowledge of other assays is compared with.

    Parameters
    ----------
    **settings
        See `SingleTaskSettings`.

    Notes
    -----
    ReLU layers and one logistic output. First weights, batches and dropout of an episode follow from the seed, its task
    and its support.
    """

    name: ClassVar[str] = "singletask"
    pretrains: ClassVar[bool] = False

    def __init__(self, **settings: Any) -> None:
        self.settings = read_settings(SingleTaskSettings, settings, self.name)

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
        """Remember the features; see `contract.Method.pretrain`."""
        del valid, sizes, query, seed, run, jobs
        self.known = Known.of(data, labels)
        return self

    def _trunk(self, keys: torch.Tensor) -> Layers:
        assert self.known is not None
        return begin([len(self.known.features)] + [self.settings.units] * self.settings.layers, keys)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Method.load`."""
        path = model_path(path, cls.name)
        arrays, meta = read_tensors(path, f"few-shot {cls.name}", Known.FORM)
        method = cls()
        method.settings = restore_settings(SingleTaskSettings, meta, cls.name, path)
        method.known = Known.restore(arrays, meta, path)
        return method


class MultiTask(_Tuned):
    """A masked multitask network of the training tasks, its output replaced and tuned on every support.

    Parameters
    ----------
    **settings
        See `MultiTaskSettings`.

    Notes
    -----
    Pretraining is that of the model ``network``. With ``tune: head`` rows pass through the trunk once, without dropout,
    and what is tuned is a logistic regression on its last hidden layer.
    """

    name: ClassVar[str] = "multitask"
    pretrains: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        self.settings = read_settings(MultiTaskSettings, settings, self.name)
        self.trunk: Layers = []
        self.stopped = 0  # epochs up to the best one, where pretraining stopped early

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
        """Train on all training tasks at once; see `contract.Method.pretrain`. `valid` has no use here."""
        del valid, sizes, query
        s = self.settings
        known = Known.of(data, labels)
        model = Network(
            layers=s.layers, units=s.units, dropout_input=s.dropout_input, dropout_hidden=s.dropout_hidden,
            learning_rate=s.pretrain_rate, momentum=s.pretrain_momentum, weight_decay=s.pretrain_decay,
            batch=s.pretrain_batch, epochs=s.pretrain_epochs, patience=20 if s.held else 0, device=s.device,
        )  # fmt: skip
        labelled = np.flatnonzero(labels.Y.getnnz(axis=1))
        names, code = np.unique(data.compounds[labelled].astype(str), return_inverse=True)
        held = np.zeros(len(names), bool)
        order = np.random.default_rng([seed, len(names)]).permutation(len(names))
        held[order[: int(s.held * len(names))]] = True
        part, other = labelled[~held[code]], labelled[held[code]]
        pair = (data.take(other), labels.take(other)) if len(other) else None
        model.fit(data.take(part), labels.take(part), valid=pair, seed=seed, run=run, jobs=jobs)
        assert model.net is not None
        pairs = list(zip(model.net.weights, model.net.biases, strict=True))[:-1]
        self.trunk = [(w.detach(), b.detach()) for w, b in pairs]
        self.known, self.stopped = known, model.stopped
        return self

    def _rates(self) -> tuple[float, float]:
        return (0.0, 0.0) if self.settings.tune == "head" else super()._rates()

    def _trunk(self, keys: torch.Tensor) -> Layers:
        if self.settings.tune == "head":
            return []
        n = len(keys)
        return [(w.expand(n, *w.shape).clone(), b.expand(n, *b.shape).clone()) for w, b in self.trunk]

    def _fetcher(self, X: Any, episodes: Sequence[Episodes], device: torch.device) -> Fetch:
        if self.settings.tune == "all" or not episodes:
            return super()._fetcher(X, episodes, device)
        every = np.unique(np.concatenate([part.ravel() for e in episodes for part in (e.support, e.query)]))
        Z = embed(X, every, self.trunk, device, linear_end=False)
        return lambda rows: Z[torch.as_tensor(np.searchsorted(every, rows), device=device)]

    def _saved(self) -> dict[str, NDArray[Any]]:
        pairs = enumerate(self.trunk)
        return {f"{part} {i}": t.cpu().numpy() for i, (w, b) in pairs for part, t in (("weight", w), ("bias", b))}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Method.load`."""
        path = model_path(path, cls.name)
        arrays, meta = read_tensors(path, f"few-shot {cls.name}", Known.FORM)
        method = cls()
        method.settings = s = restore_settings(MultiTaskSettings, meta, cls.name, path)
        method.known = Known.restore(arrays, meta, path)
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (a, b) in enumerate(pairwise([len(method.known.features)] + [s.units] * s.layers)):
            shapes |= {f"weight {i}": (b, a), f"bias {i}": (b,)}
        device = find_device(s.device)
        found = [t.to(device) for t in restored(arrays, shapes, path)]
        method.trunk = list(zip(found[::2], found[1::2], strict=True))
        return method
