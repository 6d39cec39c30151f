"""Episodic training of a prototypical network: many episodes in a step, each row embedded once."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from phenohit.data.labels import Labels
from phenohit.errors import FileError, RunError
from phenohit.fewshot.distances import Distance, class_logits
from phenohit.fewshot.pools import Group, Pools
from phenohit.fewshot.trunk import Layers, begin, key_of, network
from phenohit.models.fit import CHECKPOINT_SECONDS
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Features", "Net", "Pretraining", "identity", "mean_loss"]

_BLOCK = 16_384  # rows copied or hashed at a time
log = logging.getLogger("phenohit")


@dataclass(frozen=True, eq=False)
class Net:
    """Layers of one network and the logarithm of its temperature, a tensor without axes."""

    layers: Layers
    scale: Tensor

    @classmethod
    def begin(cls, n_features: int, settings: Any, seed: int, device: torch.device) -> Net:
        """Draw first weights."""
        s = settings
        keys = torch.tensor([key_of("prototypes", "begin", seed)])
        drawn = begin([n_features] + [s.units] * s.layers + [s.embedding], keys)
        layers = [(w[0].to(device), b[0].to(device)) for w, b in drawn]
        return cls(layers, torch.tensor(s.temperature, device=device).log())

    def named(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        pairs = enumerate(self.layers)
        layers = {f"{part} {i}": t for i, (w, b) in pairs for part, t in (("weight", w), ("bias", b))}
        return {**layers, "scale": self.scale}


@dataclass(frozen=True, eq=False)
class Features:
    """Rows of the feature matrix: where they are on a processor, on cuda those with labels."""

    X: Any
    place: NDArray[np.intp] | None
    resident: Tensor | None
    device: torch.device

    @classmethod
    def of(cls, X: Any, Y: sparse.csr_matrix, device: torch.device) -> Features:
        """Move labelled rows to cuda, block by block."""
        if device.type == "cpu":
            return cls(X, None, None, device)
        rows = np.flatnonzero(Y.getnnz(axis=1))
        place = np.full(len(X), -1, np.intp)
        place[rows] = np.arange(len(rows))
        resident = torch.empty((len(rows), X.shape[1]), device=device)
        for start in range(0, len(rows), _BLOCK):
            resident[start : start + _BLOCK] = torch.as_tensor(X[rows[start : start + _BLOCK]], device=device)
        return cls(X, place, resident, device)

    def __getitem__(self, rows: NDArray[np.intp]) -> Tensor:
        if self.resident is None or self.place is None:
            return torch.from_numpy(self.X[rows])
        return self.resident[torch.as_tensor(self.place[rows], device=self.device)]


def mean_loss(
    net: Net,
    features: Features,
    groups: Sequence[Group],
    distance: Distance,
    rates: tuple[float, float] = (0.0, 0.0),
    key: int | None = None,
) -> Tensor:
    """Return the mean over all episodes of the mean cross-entropy of their queries.

    Parameters
    ----------
    net : Net
    features : Features
    groups : sequence of Group
    distance : str
    rates : pair of float
        Dropout of inputs and hidden units, by `key`; None: no dropout.

    Notes
    -----
    Without dropout its gradient is the mean of those of the episodes one by one.
    """
    device = net.scale.device
    rows, place = np.unique(np.concatenate([g.rows for g in groups]), return_inverse=True)
    keys = None if key is None else torch.tensor([key], device=device)
    Z = network(features[rows], net.layers, rates, keys)
    at = torch.as_tensor(place.ravel(), device=device)
    n, total = sum(len(g.support) for g in groups), torch.zeros((), device=device)
    for group, own in zip(groups, at.split([len(g.rows) for g in groups]), strict=True):
        support, y, query, wanted = (
            torch.as_tensor(a, device=device) for a in (group.support, group.y_support, group.query, group.y_query)
        )
        logits = class_logits(Z[own], support, y, query, distance, net.scale.exp())
        # Over two classes the cross-entropy depends on the difference of the logits alone.
        loss = functional.binary_cross_entropy_with_logits(
            logits[..., 1] - logits[..., 0], wanted.float(), reduction="sum"
        )
        total = total + loss / (n * query.shape[1])
    return total


class Pretraining:
    """One training run: `complete` trains `net` in place.

    Parameters
    ----------
    net : Net
    settings : PrototypesSettings
    pools : Pools
    features : Features
    sizes : sequence of int
        Support sizes that episodes are drawn with.
    seed : int
    check : function, optional
        Mean validation AUROC of a net.
    checkpoint : path, optional
    identity : str
        A checkpoint of another identity is not used.
    """

    def __init__(
        self,
        net: Net,
        settings: Any,
        pools: Pools,
        features: Features,
        sizes: Sequence[int],
        *,
        seed: int,
        check: Callable[[Net], float] | None,
        checkpoint: Path | None,
        identity: str,
    ) -> None:
        self.net, self.settings, self.pools, self.features, self.sizes = net, settings, pools, features, sizes
        self.seed, self.check, self.checkpoint, self.identity = seed, check, checkpoint, identity
        self.named = net.named()
        learned = settings.distance == "cosine" and settings.learn_temperature
        self.parameters = [t for name, t in self.named.items() if name != "scale" or learned]
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.best = {name: t.clone() for name, t in self.named.items()}
        self.step, self.checks = 0, []
        self.saved = time.monotonic()

    def complete(self, title: str) -> None:
        """Train from the checkpoint on, if there is one, to the end, and keep the best network."""
        if self.checkpoint is not None and self.checkpoint.exists():
            self.resume(self.checkpoint)
        for t in self.parameters:
            t.requires_grad_(True)
        for _ in track(self.run(), title, max(self.settings.steps - self.step, 0), note=self.said):
            pass
        for t in self.parameters:
            t.requires_grad_(False)
            t.grad = None
        self.save()
        if self.check is not None:
            self.copy(self.best, self.named)

    def said(self) -> str:
        """Return what to show beside the progress."""
        return f"validation AUROC {self.checks[-1][1]:.3f}" if self.checks else ""

    def run(self) -> Iterator[int]:
        """Train, one step per turn."""
        s = self.settings
        while self.step < s.steps and not self.settled():
            self.descend()
            self.step += 1
            if self.check is not None and (self.step % s.check_every == 0 or self.step == s.steps):
                self.choose(self.check)
            if self.checkpoint is not None and time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
                self.save()
            yield self.step

    def settled(self) -> bool:
        """Whether the last checks, as many as `patience`, found nothing better; known from what a checkpoint keeps."""
        values = [value for _, value in self.checks]
        return 0 < self.settings.patience < len(values) and max(values) > max(values[-self.settings.patience :])

    def descend(self) -> None:
        """Follow the gradient of one step's episodes."""
        s = self.settings
        stream = np.random.default_rng([self.seed, min(self.sizes), len(self.sizes), self.step])
        groups = self.pools.draw(stream, self.sizes, tasks=s.tasks, episodes=s.episodes, pool=s.pool)
        key = key_of("prototypes", "dropout", self.seed, self.sizes, self.step)
        loss = mean_loss(self.net, self.features, groups, s.distance, (s.dropout_input, s.dropout_hidden), key)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if s.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, s.clip)
        rate = s.learning_rate * s.decay ** (self.step // s.decay_every if s.decay_every else 0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if (self.step % 100 == 0 or self.step + 1 == s.steps) and not torch.isfinite(loss):
            raise RunError(
                f"The training loss became infinite by step {self.step + 1}. Standardise the features, or lower "
                f"learning_rate ({s.learning_rate}) or set clip."
            )

    def choose(self, check: Callable[[Net], float]) -> None:
        """Keep the network if it is the best on the validation episodes so far."""
        value = check(self.net)
        if not self.checks or value > max(v for _, v in self.checks):
            self.copy(self.named, self.best)
        self.checks.append((self.step, value))

    @torch.no_grad()
    def copy(self, source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
        """Copy tensors in place."""
        for name, t in source.items():
            target[name].copy_(t)

    def save(self) -> None:
        """Write everything that the rest of the training depends on."""
        if self.checkpoint is None:
            return
        tensors = {f"now {name}": t for name, t in self.named.items()} | {f"best {n}": t for n, t in self.best.items()}
        for i, t in enumerate(self.parameters):
            for moment in ("exp_avg", "exp_avg_sq") if self.step else ():
                tensors[f"{moment} {i}"] = self.optimizer.state[t][moment]
        meta = {"kind": "checkpoint", "identity": self.identity, "step": self.step, "checks": self.checks}
        write_tensors(self.checkpoint, {name: t.detach().cpu().numpy() for name, t in tensors.items()}, meta)
        self.saved = time.monotonic()

    @torch.no_grad()
    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same identity; otherwise, and if it is damaged, training begins anew."""
        try:
            arrays, meta = read_tensors(path, "checkpoint")
            if meta.get("identity") != self.identity:
                log.info("checkpoint '%s' is of other data or settings, training begins anew", path)
                return
            step, checks = int(meta["step"]), [(int(a), float(b)) for a, b in meta["checks"]]
            # Every array is looked up before any is used, so that failure changes nothing.
            found = [
                {name: _shaped(arrays[f"{part} {name}"], t) for name, t in self.named.items()}
                for part in ("now", "best")
            ]
            moments = [
                {m: _shaped(arrays[f"{m} {i}"], t) for m in ("exp_avg", "exp_avg_sq")}
                for i, t in enumerate(self.parameters if step else [])
            ]
        except (FileError, KeyError, TypeError, ValueError) as error:
            log.warning("checkpoint '%s' cannot be used, training begins anew: %s", path, error)
            return
        self.copy(found[0], self.named)
        self.copy(found[1], self.best)
        for t, moment in zip(self.parameters, moments, strict=False):
            self.optimizer.state[t] = {"step": torch.tensor(float(step), device=t.device), **moment}
        self.step, self.checks = step, checks


def _shaped(array: NDArray[Any], like: Tensor) -> Tensor:
    if array.shape != tuple(like.shape) or array.dtype != np.float32:
        raise FileError("its arrays have other shapes")
    return torch.from_numpy(array.copy()).to(like.device)


def identity(X: Any, labels: Labels, valid: Labels | None, values: Sequence[Any]) -> str:
    """Hash of everything that decides the result of a training."""
    plain = [asdict(v) if is_dataclass(v) and not isinstance(v, type) else repr(v) for v in values]
    digest = hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16)
    for part in (labels, valid):
        if part is None:
            continue
        digest.update("\0".join([*part.task_names, *part.compounds["compound"].astype(str)]).encode())
        for array in (part.Y.indptr, part.Y.indices, part.Y.data):
            digest.update(np.ascontiguousarray(array))
    for start in range(0, len(X), _BLOCK):
        digest.update(np.ascontiguousarray(X[start : start + _BLOCK]))
    return digest.hexdigest()
