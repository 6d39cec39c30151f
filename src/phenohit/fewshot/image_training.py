"""Episodic training of a prototypical network on views: the loop of `Prototypes`, with a backbone for its trunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from phenohit.errors import RunError
from phenohit.fewshot.distances import class_logits
from phenohit.fewshot.image_encoder import augment_of, one_view, read_views
from phenohit.fewshot.image_settings import ImagePrototypesSettings
from phenohit.fewshot.pools import Group, Pools
from phenohit.fewshot.prototypes_train import Pretraining
from phenohit.fewshot.trunk import label_tensor
from phenohit.images.samples import ImageRows
from phenohit.models.fit import generator

__all__ = ["ImagePretraining"]


class ImagePretraining(Pretraining):
    """The training of `Prototypes`, with a backbone in the place of its trunk."""

    def __init__(
        self, net: nn.Module, settings: ImagePrototypesSettings, data: ImageRows, pools: Pools, sizes: list[int],
        seed: int, check: Callable[[Any], float] | None, checkpoint: Path | None, identity: str, jobs: int,
    ) -> None:  # fmt: skip
        self.module, self.own, self.data, self.jobs = net, settings, data, jobs
        self.augment, s = augment_of(settings, data.shape), settings
        super().__init__(
            _Named(net), _Fixed(s), pools, None, sizes, seed=seed, check=check if s.check_every else None,
            checkpoint=checkpoint, identity=identity,
        )  # fmt: skip
        self.parameters = list(net.parameters())  # averages of batch normalisation are kept, but not learned
        self.optimizer = torch.optim.Adam(self.parameters, lr=s.learning_rate, weight_decay=s.weight_decay)

    def loss(self) -> Tensor:
        """Return the mean query loss of one step's episodes."""
        s, device = self.own, self.parameters[0].device
        stream = np.random.default_rng([self.seed, self.step, 3])
        groups = self.pools.draw(stream, self.sizes, tasks=s.tasks, episodes=s.episodes, pool=s.pool)
        rows, place = np.unique(np.concatenate([g.rows for g in groups]), return_inverse=True)
        x = read_views(
            self.data, one_view(self.data, rows, stream), self.augment, device, self.seed, self.step,
            threads=self.jobs,
        )  # fmt: skip
        torch.manual_seed(generator("cpu", self.seed, self.step).initial_seed())  # of the network's own dropout
        Z = self.module.train()(x)
        at = torch.as_tensor(place.ravel(), device=device).split([len(g.rows) for g in groups])
        n = sum(len(g.support) for g in groups)
        parts = [
            self._of_group(Z[own], group) * (len(group.support) / n) for own, group in zip(at, groups, strict=True)
        ]
        return torch.stack(parts).sum()

    def _of_group(self, Z: Tensor, group: Group) -> Tensor:
        s, device = self.own, Z.device
        support, y, query = (torch.as_tensor(a, device=device) for a in (group.support, group.y_support, group.query))
        logits = class_logits(Z, support, y, query, s.distance, s.temperature)
        return functional.binary_cross_entropy_with_logits(
            logits[..., 1] - logits[..., 0], label_tensor(group.y_query, device)
        )

    def descend(self) -> None:
        """Follow the gradient of one step's episodes."""
        s, loss = self.own, self.loss()
        if not torch.isfinite(loss):
            raise RunError(
                f"The training loss became infinite in step {self.step + 1}. Lower learning_rate ({s.learning_rate}) "
                "or set clip."
            )
        self.optimizer.zero_grad()
        loss.backward()
        if s.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, s.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate * s.decay ** (self.step // s.decay_every if s.decay_every else 0)
        self.optimizer.step()


@dataclass(frozen=True, eq=False)
class _Named:
    """A network as `Pretraining` takes one: all its tensors of real numbers by name."""

    net: nn.Module

    def named(self) -> dict[str, Tensor]:
        """Return weights and buffers; the latter are averages of batch normalisation."""
        both = [*self.net.named_parameters(), *self.net.named_buffers()]
        return {name: t for name, t in both if t.is_floating_point()}


class _Fixed:
    """Settings as `Pretraining` takes them, of a temperature that is not learned."""

    learn_temperature = False

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self.settings, name)
