"""Prototypical networks and MAML on images: the same learning across tasks, by a backbone instead of features."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from phenohit.data.dropped import nothing_dropped
from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, FileError, ShapeError
from phenohit.fewshot.distances import class_logits
from phenohit.fewshot.episodes import Episodes, draw_tasks
from phenohit.fewshot.image_encoder import (
    augment_of,
    build,
    embed_rows,
    identity_parts,
    one_view,
    read_views,
    require_views,
    restored_net,
    seen_labels,
)
from phenohit.fewshot.image_settings import ImageMamlSettings, ImagePrototypesSettings
from phenohit.fewshot.image_training import ImagePretraining
from phenohit.fewshot.maml_loop import MetaBatch, MetaPlan, draw_batch, inner_loop, meta_train
from phenohit.fewshot.pools import Pools, episode_auroc
from phenohit.fewshot.prototypes_train import identity
from phenohit.fewshot.trunk import find_device, label_tensor, local_rows, soft
from phenohit.images.samples import ImageRows
from phenohit.models.contract import (
    Known,
    cores,
    model_path,
    not_fitted,
    read_settings,
    restore_settings,
    stored_settings,
)
from phenohit.models.fit import generator, threads
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["ImageMaml", "ImagePrototypes"]

_LOOKS = 10  # episodes of every validation task and support size
_TOGETHER = 64  # episodes of embeddings scored at a time
_MEMORY = 1 << 28  # bytes of views held while episodes are adapted

Parameters = dict[str, Tensor]


class _OnImages:
    """What both methods share: checks, the network, its file."""

    name: ClassVar[str]
    sees: ClassVar[str] = "views"
    pretrains: ClassVar[bool] = True
    Settings: ClassVar[type]
    batch_norm: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = read_settings(self.Settings, settings, self.name)
        self.known: Known | None = None
        self.net: nn.Module | None = None
        self.shape: tuple[int, int, int] = (0, 0, 0)
        self.dropped: pd.DataFrame = nothing_dropped()
        self.auroc: list[float] = []
        self.device = torch.device("cpu")
        self.jobs = 1

    def pretrain(
        self,
        data: ImageRows,
        labels: Labels,
        *,
        valid: Labels | None = None,
        sizes: Sequence[int] = (16,),
        query: int = 32,
        seed: int = 0,
        run: Path | None = None,
        jobs: int = 1,
    ) -> Self:
        """Learn from other tasks; see `contract.Method.pretrain`. Rows without a view take no part.

        Raises
        ------
        ShapeError
            If `data` is not images.
        LabelError
            If no training task is large enough for a support and a query.
        RunError
            If the loss becomes infinite.
        """
        require_views(data, [], self.name)
        known = Known.of(data, labels)
        labels, bare = seen_labels(data, labels)
        pools = Pools.of(labels, data.compounds, sizes, query)
        looks: list[Episodes] = []
        if valid is not None:
            of_valid = seen_labels(data, valid)[0]
            looks, _ = draw_tasks(
                of_valid, data.compounds, of_valid.task_names, sizes=sizes, query=query, n=_LOOKS, seed=seed
            )
        self.device, self.shape, self.jobs = find_device(self.settings.device), data.shape, cores(jobs)
        self.net = self._network(seed).to(self.device)
        file, same = None, ""
        if run is not None:
            file = Path(run) / f"{self.name}.checkpoint.safetensors"
            numbers, text = identity_parts(data)
            facts = [self.settings, str(self.device), text, data.shape, list(sizes), query, seed]
            same = identity(numbers, labels, valid, facts)
        with threads(self.jobs), torch.random.fork_rng(devices=[0] if self.device.type == "cuda" else []):
            self._train(data, pools, looks, list(sizes), seed, file, same)
        self.net.requires_grad_(False).eval()
        self.known, self.dropped = known, pd.concat([bare, pools.dropped], ignore_index=True)
        return self

    def _network(self, seed: int = 0) -> nn.Module:
        outputs = getattr(self.settings, "outputs", 1)
        return build(self.settings, self.shape, outputs, seed, batch_norm=self.batch_norm)

    def _train(
        self, data: ImageRows, pools: Pools, looks: list[Episodes], sizes: list[int], seed: int, file: Path | None,
        same: str,
    ) -> None:  # fmt: skip
        raise NotImplementedError

    def _scores(self, data: ImageRows, episodes: Sequence[Episodes]) -> list[NDArray[np.float32]]:
        raise NotImplementedError

    def score(
        self, data: ImageRows, episodes: Sequence[Episodes], *, seed: int = 0, jobs: int = 1
    ) -> list[NDArray[np.float32]]:
        """Return the probability of every query row; see `contract.Method.score`. Nothing is random here.

        Raises
        ------
        ShapeError
            If a row of the episodes has no view, or views have other channels.
        """
        del seed
        if self.known is None or self.net is None:
            raise not_fitted(self.name)
        require_views(data, episodes, self.name)
        self.known.require(data)
        self.jobs = cores(jobs)
        with threads(self.jobs):
            return self._scores(data, episodes) if len(episodes) else []

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; see `contract.Method.save`."""
        if self.known is None or self.net is None:
            raise not_fitted(self.name)
        meta = {
            "kind": f"few-shot {self.name}", "settings": stored_settings(self.settings), **self.known.meta(),
            "shape": list(self.shape), "auroc": self.auroc,
        }  # fmt: skip
        weights = {f"net {n}": t.detach().cpu().contiguous().numpy() for n, t in self.net.state_dict().items()}
        write_tensors(model_path(path, self.name), {**self.known.arrays(), **weights}, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Method.load`."""
        path = model_path(path, cls.name)
        arrays, meta = read_tensors(path, f"few-shot {cls.name}", Known.FORM)
        method = cls()
        method.settings = restore_settings(cls.Settings, meta, cls.name, path)
        method.known = Known.restore(arrays, meta, path)
        try:
            method.shape = tuple(int(n) for n in meta["shape"])  # pyright: ignore[reportAttributeAccessIssue]
            method.auroc = [float(v) for v in meta["auroc"]]
            if len(method.shape) != 3 or method.shape[0] != len(method.known.features):
                raise ValueError("its channels do not fit")
            with torch.device("meta"):  # shapes are compared first, so that a file cannot ask for all memory
                net = method._network()
        except (ConfigError, ShapeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise FileError(f"'{path}' is damaged, or of another version: {error}. Pretrain again.") from error
        method.device = find_device(method.settings.device)
        method.net = restored_net(net, arrays, path).to(method.device)
        return method


class ImagePrototypes(_OnImages):
    """Prototypical network on views (Snell et al. 2017; Ha's thesis, chapter 2).

    Parameters
    ----------
    **settings
        See `ImagePrototypesSettings`.

    Notes
    -----
    In a step one random view of each of some compounds is embedded once, and many episodes are formed among them. To
    score, views of a row are embedded once in evaluation mode and averaged over a well, then over the wells of the row.
    """

    name: ClassVar[str] = "prototypes_images"
    Settings = ImagePrototypesSettings

    def _train(
        self, data: ImageRows, pools: Pools, looks: list[Episodes], sizes: list[int], seed: int, file: Path | None,
        same: str,
    ) -> None:  # fmt: skip
        def check(_: Any) -> float:
            return episode_auroc(self._scores(data, looks, views=1), looks)

        assert self.net is not None
        training = ImagePretraining(
            self.net, self.settings, data, pools, sizes, seed, check if looks else None, file, same, self.jobs
        )
        training.complete(f"{self.name}: steps")
        self.auroc = [value for _, value in training.checks]

    @torch.no_grad()
    def _scores(
        self, data: ImageRows, episodes: Sequence[Episodes], views: int | None = None
    ) -> list[NDArray[np.float32]]:
        assert self.net is not None
        s, scores = self.settings, []
        rows = np.unique(np.concatenate([part.ravel() for e in episodes for part in (e.support, e.query)]))
        Z = embed_rows(
            self.net.eval(), data, rows, augment_of(s, data.shape), self.device, batch=s.batch, threads=self.jobs,
            views=s.views if views is None else views,
        )  # fmt: skip
        for one in episodes:
            score = np.empty(one.query.shape, np.float32)
            for start in range(0, len(one), _TOGETHER):
                which = slice(start, start + _TOGETHER)
                used, places = local_rows(one.support[which], one.query[which])
                own = Z[torch.from_numpy(np.searchsorted(rows, used)).to(self.device)]
                support, query, y = (torch.as_tensor(p, device=self.device) for p in (*places, one.y_support[which]))
                logits = class_logits(own, support, y, query, s.distance, s.temperature)
                score[which] = soft(logits[..., 1] - logits[..., 0])
            scores.append(score)
        return scores


class ImageMaml(_OnImages):
    """MAML on views (Finn et al. 2017; Ha's thesis, chapter 2): one view of each compound of an episode.

    Parameters
    ----------
    **settings
        See `ImageMamlSettings`.

    Notes
    -----
    Batch normalisation gives way to group normalisation; see `phenohit.fewshot.image_encoder.without_batch_norm`.
    Tasks of a meta-step are adapted one after the other: a backbone keeps the cores busy with one task, and memory is
    that of one.
    """

    name: ClassVar[str] = "maml_images"
    Settings = ImageMamlSettings
    batch_norm: ClassVar[bool] = False

    def _train(
        self, data: ImageRows, pools: Pools, looks: list[Episodes], sizes: list[int], seed: int, file: Path | None,
        same: str,
    ) -> None:  # fmt: skip
        assert self.net is not None
        s = self.settings
        state = meta_train(
            dict(self.net.named_parameters()), partial(draw_batch, pools, sizes, s.tasks, seed),
            lambda drawn, step: self._gradient(data, drawn, seed, step),
            (lambda: episode_auroc(self._scores(data, looks), looks)) if looks else None,
            MetaPlan(s.meta_steps, s.learning_rate, s.check, s.patience, s.clip),
            checkpoint=file, identity=same, title=f"{self.name}: meta-steps",
        )  # fmt: skip
        self.auroc = state.auroc

    def _gradient(self, data: ImageRows, drawn: MetaBatch, seed: int, step: int) -> tuple[float, Parameters]:
        """Return the mean query loss over the tasks of a meta-step, and its gradient."""
        assert self.net is not None
        net, s, augment = self.net.train(), self.settings, augment_of(self.settings, data.shape)
        p = dict(net.named_parameters())
        total, slope = 0.0, {name: torch.zeros_like(t) for name, t in p.items()}
        for task in range(len(drawn.support)):
            one = drawn.part(slice(task, task + 1))
            stream = np.random.default_rng([seed, step, task, 4])
            images = one_view(data, np.hstack([one.support[0], one.query[0]]), stream)
            x = read_views(data, images, augment, self.device, seed, step, task, threads=self.jobs)
            y, y_query, weight = (torch.from_numpy(a[0].astype(np.float32)).to(self.device) for a in one[2:])

            def loss(
                q: Parameters, x: Tensor = x, y: Tensor = y, other: Tensor = y_query, w: Tensor = weight
            ) -> Tensor:
                adapted = self._adapted(q, x[: len(y)], y, s.inner_steps, s.order)
                logits = torch.func.functional_call(net, adapted, (x[len(y) :],))[:, 0]
                return functional.binary_cross_entropy_with_logits(logits, other, w, reduction="sum")

            torch.manual_seed(generator("cpu", seed, step, task).initial_seed())  # of the network's own dropout
            more, value = torch.func.grad_and_value(loss)(p)
            total += float(value.detach()) / len(drawn.support)
            slope = {name: t + more[name] / len(drawn.support) for name, t in slope.items()}
        return total, slope

    def _adapted(self, p: Parameters, x: Tensor, y: Tensor, steps: int, order: int) -> Parameters:
        """Return the weights after some steps along the loss of a support."""
        assert self.net is not None
        net = self.net

        def loss(q: Parameters) -> Tensor:
            return functional.binary_cross_entropy_with_logits(torch.func.functional_call(net, q, (x,))[:, 0], y)

        return inner_loop(loss, p, rate=self.settings.inner_rate, steps=steps, order=order)

    @torch.no_grad()
    def _scores(self, data: ImageRows, episodes: Sequence[Episodes]) -> list[NDArray[np.float32]]:
        assert self.net is not None
        s, net, augment = self.settings, self.net.eval(), augment_of(self.settings, data.shape)
        p = {name: t.detach() for name, t in net.named_parameters()}
        size = augment.size(data.shape[1:])
        scores = []
        for one in track(episodes, f"{self.name}: episodes"):
            score = np.empty(one.query.shape, np.float32)
            each = 4 * s.views * data.shape[0] * size[0] * size[1] * (one.size + one.query.shape[1])
            together = max(_MEMORY // each, 1)
            for start in range(0, len(one), together):
                part = one.take(slice(start, start + together))
                used, (support, query) = local_rows(part.support, part.query)
                # The first views, from the first again where a row has fewer.
                images = data.start[used][:, None] + np.arange(s.views) % np.diff(data.start)[used][:, None]
                x = read_views(data, images.ravel(), augment, self.device, threads=self.jobs)
                x = x.view(len(used), s.views, *x.shape[1:])
                for e in range(len(part)):
                    y = label_tensor(part.y_support[e], self.device).repeat_interleave(s.views)
                    adapted = self._adapted(p, x[support[e]].flatten(0, 1), y, s.test_steps or s.inner_steps, 1)
                    logits = torch.func.functional_call(net, adapted, (x[query[e]].flatten(0, 1),))
                    score[start + e] = soft(logits[:, 0]).reshape(-1, s.views).mean(1)
            scores.append(score)
        return scores
