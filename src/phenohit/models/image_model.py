"""Models that learn from images: a network, its training, and the contract of every model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, ShapeError
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
from phenohit.models.fit import Plan, State, generator, threads, train
from phenohit.models.fit_images import Augment, ImageFeed, Seen, pooled
from phenohit.models.image_settings import SETTINGS, ImageSettings
from phenohit.models.vision import make
from phenohit.models.vision_count import count
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["ImageModel"]


class ImageModel:
    """Multitask network on images: every view (or crop) is a sample with the labels of its compound.

    Parameters
    ----------
    **settings
        See `phenohit.models.image_settings.ImageSettings`; the defaults are what the network was published with.

    Notes
    -----
    Hofmarcher 2019, Methods: cross-entropy averaged over the measured entries of a batch, gradient descent with
    momentum, the epoch with the best mean AUROC on validation rows. Probabilities of the images of a well are averaged,
    then those of the wells of a row. Their spread over images (and over `passes` with dropout) is the spread of the
    prediction. A row without any image gets the active share of the task. Same seed, same scores on one machine with
    the same number of threads; elsewhere they differ by rounding.
    """

    name: ClassVar[str] = ""
    needs_scaling: ClassVar[bool] = False
    sees: ClassVar[str] = "views"

    def __init__(self, **settings: Any) -> None:
        self.settings: ImageSettings = read_settings(SETTINGS[self.name], settings, self.name)
        make_settings(self.name, self.settings)
        self.known: Known | None = None
        self.net: nn.Module | None = None
        self.shape: tuple[int, int, int] = (0, 0, 0)
        self.state = State()
        self.jobs = 1
        self.seconds = 0.0  # per epoch
        self.images = 0  # of an epoch

    @property
    def uses_valid(self) -> bool:
        """Whether validation rows choose the epoch."""
        return self.settings.select != "last"

    def fit(
        self,
        data: ImageRows,
        labels: Labels,
        *,
        valid: tuple[ImageRows, Labels] | None = None,
        seed: int = 0,
        run: Path | None = None,
        jobs: int = 1,
    ) -> Self:
        """Train all tasks at once; see `contract.Model.fit`.

        Raises
        ------
        RunError
            If the loss becomes infinite, or the device has too little memory.
        ConfigError
            If there are fewer devices than `devices`.
        """
        _require_images(data, self.name)
        if self.settings.devices > 1:
            from phenohit.models.fit_devices import check_devices

            check_devices(self.settings.devices, self.device)
        known = Known.of(data, labels)
        if valid is not None:
            known.check_valid(*valid)
        tasks = np.flatnonzero(known.fitted)
        self.known, self.shape, self.jobs, self.state = known, data.shape, jobs, State()
        pairs = [(data, labels.Y), *([] if valid is None or not self.uses_valid else [(valid[0], valid[1].Y)])]
        pairs = [(d, Y[:, tasks].tocsr()) for d, Y in pairs]
        feeds = [self.feed(d, Y, jobs) for d, Y in pairs]
        if not len(tasks) or not len(feeds[0]):
            known.fitted[:] = False
            self.net = None
            return self
        self.net = self._network(len(tasks), seed)
        if self.settings.weights:
            self._begin(self.settings.weights)
        self.net.to(self.device, memory_format=torch.channels_last if self._cuda else torch.contiguous_format)
        file = None if run is None else Path(run) / f"{self.name}.checkpoint.safetensors"
        self._train(pairs, feeds, seed, file, "" if file is None else self._identity(seed, known, feeds))
        self.seconds = self.state.seconds / max(self.state.epoch, 1)
        self.images = len(feeds[0].order(seed, 0))
        return self

    def _train(
        self, pairs: list[tuple[ImageRows, sparse.csr_matrix]], feeds: list[ImageFeed], seed: int, file: Path | None,
        identity: str,
    ) -> None:  # fmt: skip
        title, jobs = f"{self.name}: steps", cores(self.jobs)
        if self.settings.devices > 1:
            from phenohit.models.fit_devices import train_on_devices

            self.state = train_on_devices(
                self, pairs, seed=seed, jobs=jobs, checkpoint=file, identity=identity, title=title
            )
            return
        held = feeds[1] if len(feeds) > 1 and len(feeds[1]) else None
        with threads(jobs), torch.random.fork_rng(devices=[0] if self._cuda else []):
            self.state = train(
                self.seen(), feeds[0], held, self.plan(held is not None), seed=seed, checkpoint=file,
                identity=identity, title=title, by_step=True,
            )  # fmt: skip

    def predict(self, data: ImageRows, tasks: list[str] | None = None) -> Predictions:
        """Return the probability of every row in every task, and its spread; see `contract.Model.predict`."""
        if self.known is None:
            raise not_fitted(self.name)
        _require_images(data, self.name)
        self.known.require(data)
        where = self.known.where(tasks)
        score = self.known.block(len(data), where)
        spread = np.zeros_like(score)
        columns = np.flatnonzero(self.known.fitted[where])
        if len(columns) and len(data.place) and self.net is not None:
            outputs = (np.cumsum(self.known.fitted) - 1)[where[columns]]
            mean, around = pooled(data, self._answers(data, outputs), len(columns))
            seen = np.flatnonzero(np.diff(data.start))
            score[np.ix_(seen, columns)], spread[np.ix_(seen, columns)] = mean[seen], around[seen]
        return Predictions(score, data.compounds, [self.known.tasks[i] for i in where], self.name, spread)

    def embed(self, data: ImageRows) -> Profiles:
        """Return what the network makes of images before it classifies, averaged to rows as predictions are.

        Returns
        -------
        Profiles, shape (N, features of the network)
            ``<network>_0`` and so on; NaN for rows without images.
        """
        if self.net is None:
            raise not_fitted(self.name)
        _require_images(data, self.name)
        net: Any = self.net
        n = int(net.n_features)
        values = self._over(data, net.features)
        mean, _ = pooled(data, ((images, v) for images, v in values), n)
        return Profiles(mean, data.rows, [f"{self.name}_{i}" for i in range(n)], (f"embed[{self.name}]",))

    def untrained(self, data: ImageRows) -> Self:
        """Build the network with its first weights (e.g. pretrained ones), to embed images of this kind."""
        self.known = Known(list(data.features), ["none"], np.array([0.5], np.float32), np.array([True]))
        self.shape = data.shape
        self.net = self._network(1, 0).eval().to(self.device)
        return self

    def view_scores(self, data: ImageRows, task: str) -> NDArray[np.float32]:
        """Return the probability of every single image in one task, shape (V,): what galleries are sorted by."""
        if self.known is None or self.net is None:
            raise not_fitted(self.name)
        where = self.known.where([task])
        found = np.full(len(data.place), self.known.share[where[0]], np.float32)
        if self.known.fitted[where[0]]:
            outputs = (np.cumsum(self.known.fitted) - 1)[where]
            for images, value in self._answers(data, outputs):
                found[images] = value[:, 0].numpy()
        return found

    def cost(self) -> dict[str, float]:
        """Return parameters, multiply-adds of an image (1e9), seconds per epoch, images per second of training."""
        if self.net is None:
            return {}
        parameters, products = count(self.net, (self.shape[0], *self._size))
        rate = self.images / self.seconds if self.seconds else 0.0
        return {
            "parameters": parameters, "gmac": products / 1e9, "seconds_epoch": self.seconds, "images_per_s": rate,
            "epochs": len(self.state.train_loss),
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; see `contract.Model.save`."""
        if self.known is None:
            raise not_fitted(self.name)
        losses = {k: getattr(self.state, k) for k in ("train_loss", "valid_loss", "valid_auroc")}
        meta = {
            "kind": f"model {self.name}", "settings": stored_settings(self.settings), **self.known.meta(), **losses,
            "best_epoch": self.state.best_epoch, "shape": list(self.shape), "cost": self.cost(),
        }  # fmt: skip
        tensors = {} if self.net is None else self.net.state_dict()
        weights = {f"net {name}": p.detach().cpu().contiguous().numpy() for name, p in tensors.items()}
        write_tensors(model_path(path, self.name), {**self.known.arrays(), **weights}, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Model.load`."""
        path = model_path(path, cls.name)
        arrays, meta = read_tensors(path, f"model {cls.name}", Known.FORM)
        model = cls()
        model.settings = restore_settings(SETTINGS[cls.name], meta, cls.name, path)
        model.known = Known.restore(arrays, meta, path)
        try:
            model.shape = tuple(int(n) for n in meta["shape"])  # pyright: ignore[reportAttributeAccessIssue]
            losses = {k: [float(v) for v in meta[k]] for k in ("train_loss", "valid_loss", "valid_auroc")}
            model.state = State(best_epoch=int(meta["best_epoch"]), done=True, **losses)
            if len(model.shape) != 3 or model.shape[0] != len(model.known.features):
                raise ValueError("its channels do not fit")
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"'{path}' is damaged: {error}. Fit the model again.") from error
        n_tasks = int(model.known.fitted.sum())
        if n_tasks:
            model.net = _restored(model, arrays, n_tasks, path)
            model.net.to(model.device, memory_format=torch.channels_last if model._cuda else torch.contiguous_format)
        return model

    @property
    def device(self) -> torch.device:
        """Where the network is; with several devices the one of this process.

        Raises
        ------
        ConfigError
            If it is to be on a CUDA device and there is none.
        """
        there = torch.cuda.is_available()
        if self.settings.device == "cuda" and not there:
            raise ConfigError(
                "setting 'device' is 'cuda', but no CUDA device is found. Use device: auto or device: cpu."
            )
        return torch.device("cuda" if there and self.settings.device != "cpu" else "cpu")

    @property
    def _cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def _augment(self) -> Augment:
        s = self.settings
        resize, crop = ((size[0], size[1]) if size else None for size in (s.resize, s.crop))
        return Augment(resize, crop, s.flips, s.rotations)

    @property
    def _size(self) -> tuple[int, int]:
        return self._augment.size(self.shape[1:])

    def _network(self, tasks: int, seed: int) -> nn.Module:
        return make(self.name, self.shape[0], tasks, self._size, self.settings.network, seed=seed)

    def seen(self) -> Seen:
        """Return the network as the training loop takes it."""
        assert self.net is not None
        return Seen(self.net, compiled=self.settings.compile)

    def feed(self, data: ImageRows, Y: sparse.csr_matrix, jobs: int, part: tuple[int, int] = (0, 1)) -> ImageFeed:
        """Return images and labels in batches, or the `part` of every batch that one device takes, of how many."""
        if len(data.place) and self.settings.crop:
            least = self.settings.resize or data.shape[1:]
            if any(c > n for c, n in zip(self.settings.crop, least, strict=True)):
                raise ShapeError(f"setting 'crop' is {self.settings.crop}, but the images have {list(least)} pixels.")
        return ImageFeed(
            data, Y, self.device, self._augment, block=self.settings.batch, share=self.settings.subset,
            threads=cores(jobs), channels_last=self._cuda, part=part,
        )  # fmt: skip

    def plan(self, held: bool) -> Plan:
        """Return how to train, with validation rows (`held`) or without."""
        s = self.settings
        return Plan(
            epochs=s.epochs, batch=s.batch, learning_rate=s.learning_rate, momentum=s.momentum,
            weight_decay=s.weight_decay, clip=s.clip, patience=s.patience if held else 0,
            bfloat16=s.dtype == "bfloat16" and self._cuda, select="auroc" if s.select == "auroc" else "loss",
            keep_best=held, warm_up=s.warm_up, cosine=s.cosine,
        )  # fmt: skip

    def _over(self, data: ImageRows, call: Any) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield images and what a function of the network answers to them."""
        assert self.net is not None
        order = np.arange(len(data.place))
        everything = sparse.csr_matrix(np.ones((len(data), 1), np.float32))
        feed, size = self.feed(data, everything, self.jobs), self.settings.batch
        for batch in track(feed.batches(order, size), f"{self.name}: images", -(-len(order) // size)):
            with torch.inference_mode(), torch.autocast(
                self.device.type, dtype=torch.bfloat16, enabled=self.settings.dtype == "bfloat16" and self._cuda
            ):  # fmt: skip
                answer = call(batch.x).float().cpu()
            yield batch.samples, answer  # outside: whoever takes it is not in inference mode

    def _answers(self, data: ImageRows, outputs: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield images and their probabilities, once, or `passes` times with dropout left on."""
        assert self.net is not None
        net, chosen = self.net.eval(), torch.from_numpy(outputs)
        passes = self.settings.passes
        with threads(cores(self.jobs)), torch.random.fork_rng(devices=[0] if self._cuda else []):
            for number in range(max(passes, 1)):
                if passes:
                    _leave_dropout_on(net)
                    torch.manual_seed(generator("cpu", number).initial_seed())
                for images, logits in self._over(data, net):
                    yield images, torch.sigmoid(logits[:, chosen])
        net.eval()

    @torch.no_grad()
    def _begin(self, path: str) -> None:
        """Begin from the weights of a saved model; tensors of the last layers, which have other shapes, begin anew."""
        assert self.net is not None
        arrays, _ = read_tensors(Path(path), f"model {self.name}", Known.FORM)
        wanted = self.net.state_dict()
        fits = {n: torch.from_numpy(arrays[f"net {n}"]) for n, t in wanted.items() if f"net {n}" in arrays}
        fits = {n: t for n, t in fits.items() if t.shape == wanted[n].shape}
        lacking = [n for n in wanted if n not in fits]
        if len(fits) < len(wanted) / 2:
            raise FileError(
                f"'{path}' holds weights of another network or number of channels: {len(lacking)} of {len(wanted)} "
                "tensors do not fit. Give a model of the same network on images with the same channels."
            )
        self.net.load_state_dict({**wanted, **fits})

    def _identity(self, seed: int, known: Known, feeds: list[ImageFeed]) -> str:
        """Hash of everything that decides the result of training."""
        settings = {**stored_settings(self.settings), "device": str(self.device)}
        names = json.dumps([settings, seed, known.features, known.tasks, self.shape], sort_keys=True)
        digest = hashlib.blake2b(names.encode(), digest_size=16)
        for feed in feeds:
            for folder in feed.data.arrays:
                digest.update(f"{folder} {Path(folder, 'zarr.json').stat().st_mtime_ns}".encode())
            for part in (feed.data.array, feed.data.place, feed.data.start, feed.Y.indptr, feed.Y.indices, feed.Y.data):
                digest.update(np.ascontiguousarray(part))
        return digest.hexdigest()


def make_settings(name: str, settings: ImageSettings) -> None:
    """Refuse impossible settings of the network before anything is read."""
    from phenohit.models.vision import VISION
    from phenohit.registry import resolve

    read_settings(resolve(name, VISION, "phenohit.networks").Settings, settings.network, name)


def _require_images(data: Any, name: str) -> None:
    if not isinstance(data, ImageRows):
        raise ShapeError(f"model '{name}' learns from images, not from features. Give it views: images.store: true.")


def _leave_dropout_on(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.train()


def _restored(model: ImageModel, arrays: dict[str, Any], tasks: int, path: object) -> nn.Module:
    """Build the network of a file; its shapes are compared first, so that a file cannot ask for all memory."""
    try:
        with torch.device("meta"):
            net = make(model.name, model.shape[0], tasks, model._size, model.settings.network)
    except (ConfigError, ShapeError, RuntimeError) as error:
        raise FileError(f"'{path}' holds a network this version cannot build: {error}") from error
    wanted = net.state_dict()
    found = {n: arrays.get(f"net {n}") for n in wanted}
    for n, array in found.items():
        if array is None or tuple(array.shape) != tuple(wanted[n].shape) or not np.isfinite(array).all():
            raise FileError(f"'{path}' is damaged: '{n}' is absent or does not fit. Fit the model again.")
    net.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in found.items()}, assign=True)
    return net.eval()
