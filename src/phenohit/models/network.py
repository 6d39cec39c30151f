"""Masked multitask network: one set of hidden layers, one output per task."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from phenohit.data.labels import Labels
from phenohit.data.matrix import stack_rows
from phenohit.data.predictions import Predictions
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError
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
from phenohit.models.fit import Plan, State, generator, threads, train
from phenohit.models.fit_rows import Rows
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Network", "NetworkSettings"]

_ROWS = 8192  # rows scored at a time
_WORK_PER_THREAD = 2e9  # operations per step above which more threads are used
_SCHEDULE = 0.005  # dropout added per epoch (Simm 2018, Online Methods)
log = logging.getLogger("phenohit")


@dataclass(frozen=True)
class NetworkSettings:
    """Settings of `Network`.

    Parameters
    ----------
    preset : {"", "simm2018"}
        `simm2018` stands for the best settings of Simm 2018 (3 x 2,048 units, plain gradient descent at 0.05 for
        63 epochs, dropout 0.1 and 0.5 by schedule); settings given beside it win. The defaults are smaller, for
        screens of a few hundred to a few thousand compounds.
    layers : {1, 2, 3}
        Hidden layers.
    units : int
        Units of each; 1,024, 2,048 or 4,096 in Simm 2018, Table S1.
    dropout_input, dropout_hidden : float
        Shares of features and of hidden units left out at random while training.
    dropout_schedule : bool
        Dropout rises from 0 by 0.005 per epoch until it reaches those shares. Off by default: small screens
        overfit in the first epochs, while it is still low.
    learning_rate : float
        Of stochastic gradient descent; 0.01, 0.05 or 0.1 in Table S1.
    momentum : float
        0 is the plain descent of Simm 2018. With 0.9, steps are about ten times as long.
    weight_decay : float
        L2 penalty on weights, not on biases.
    clip : float | None
        Longest gradient (L2 norm over all parameters) that is followed; empty: any.
    batch : int
        Rows per step. The paper does not say; small screens need several steps per epoch, large ones on cuda
        are faster with 512 and more.
    epochs : int
        Epochs without early stopping; 63 in Simm 2018.
    patience : int
        With validation rows, training stops after this many epochs without a lower loss on them, and the best
        epoch counts. 0: no early stopping.
    min_valid : int
        Compounds, and actives among their labels, that validation rows need for early stopping. With fewer of
        either their loss is mostly noise: they are trained on instead, for `epochs`.
    max_epochs : int
        Epochs at most with early stopping.
    device : {"auto", "cpu", "cuda"}
        Auto is cuda where there is one.
    dtype : {"float32", "bfloat16"}
        Bfloat16 halves time on cuda; on the processor it is float32 all the same.
    """

    preset: Literal["", "simm2018"] = ""
    layers: Literal[1, 2, 3] = 2
    units: int = 512
    dropout_input: float = 0.1
    dropout_hidden: float = 0.5
    dropout_schedule: bool = False
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float | None = 5.0
    batch: int = 64
    epochs: int = 63
    patience: int = 20
    min_valid: int = 100
    max_epochs: int = 300
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "simm2018": {
            "layers": 3, "units": 2048, "dropout_input": 0.1, "dropout_hidden": 0.5, "dropout_schedule": True,
            "learning_rate": 0.05, "momentum": 0.0, "weight_decay": 0.0, "clip": None, "batch": 128,
            "epochs": 63, "patience": 0,
        }
    }  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("units", "batch", "epochs", "max_epochs"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("dropout_input", "dropout_hidden", "momentum"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        require(0 < self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "above 0")
        require(0 <= self.weight_decay < float("inf"), "weight_decay", self.weight_decay, "0 or above")
        require(self.clip is None or self.clip > 0, "clip", self.clip, "above 0, or empty")
        for name in ("patience", "min_valid"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or above")

    def dropout(self, epoch: int) -> tuple[float, float]:
        """Return the shares of inputs and of hidden units left out in an epoch, counted from 0."""
        most = _SCHEDULE * epoch if self.dropout_schedule else 1.0
        return min(self.dropout_input, most), min(self.dropout_hidden, most)


class Network:
    """Multitask network on the measured entries (Simm 2018, Online Methods and Table S1).

    Parameters
    ----------
    **settings
        See `NetworkSettings`.

    Notes
    -----
    ReLU layers, one logistic output per task, cross-entropy averaged over the measured entries of a
    batch. Departures from the paper: output biases begin at the log odds of the training share, so
    that rare actives need not be learned first, and output weights at 0; hidden weights as in He et
    al. 2015 (the paper does not say). Tasks without both classes have no output. On a processor the
    same seed gives the same scores on the same machine; other machines and devices differ by rounding.
    """

    name: ClassVar[str] = "network"
    needs_scaling: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        self.settings = read_settings(NetworkSettings, settings, self.name)
        self.known: Known | None = None
        self.net: Perceptron | None = None
        self.state = State()
        self.jobs = 1

    @property
    def uses_valid(self) -> bool:
        """Whether training stops early."""
        return self.settings.patience > 0

    def fit(
        self,
        data: Profiles,
        labels: Labels,
        *,
        valid: tuple[Profiles, Labels] | None = None,
        seed: int = 0,
        run: Path | None = None,
        jobs: int = 1,
    ) -> Self:
        """Train all tasks at once; see `contract.Model.fit`."""
        known = Known.of(data, labels)
        if valid is not None:
            known.check_valid(*valid)
        device = _device(self.settings)
        tasks = np.flatnonzero(known.fitted)
        net = Perceptron(len(known.features), len(tasks), self.settings)
        net.begin(known.share[tasks], seed)
        net.to(device)
        self.state = State()
        if len(tasks):
            pairs = [(data.X, labels.Y), *([] if valid is None else [(valid[0].X, valid[1].Y)])]
            held = valid is not None and self._can_stop(valid[1], tasks)
            if valid is not None and not held and self.uses_valid:  # they serve better as training rows
                pairs = [(stack_rows([X for X, _ in pairs]), sparse.vstack([Y for _, Y in pairs], format="csr"))]
            rows = [Rows.of(X, Y[:, tasks].tocsr(), device) for X, Y in pairs[: 1 + held]]
            file = None if run is None else Path(run) / f"{self.name}.checkpoint.safetensors"
            # Small steps gain nothing from a second thread and lose much where the cores are shared.
            work = 6 * self.settings.batch * sum(p.numel() for p in net.parameters())  # operations per step
            with threads(cores(jobs) if work > _WORK_PER_THREAD else 1):
                self.state = train(
                    net,
                    *(rows if held else (rows[0], None)),
                    self._plan(device, held),
                    seed=seed,
                    checkpoint=file,
                    identity="" if file is None else _identity(self.settings, seed, known, rows),
                    title="network: epochs",
                )
        self.known, self.net, self.jobs = known, net, jobs
        return self

    @property
    def stopped(self) -> int:
        """Epochs up to the best one, where training stopped early; else 0."""
        return self.state.best_epoch + 1 if self.state.valid_loss else 0

    def _can_stop(self, labels: Labels, tasks: NDArray[np.intp]) -> bool:
        """Whether validation labels say enough to stop early by; wells of one compound say it once."""
        compound = pd.factorize(labels.compounds["compound"])[0]
        entry = labels.Y[:, tasks].tocoo()
        active = entry.data > 0
        pairs = len(np.unique(compound[entry.row[active]] * len(tasks) + entry.col[active]))
        known = len(np.unique(compound[labels.Y.getnnz(axis=1) > 0]))
        enough = min(pairs, known) >= max(self.settings.min_valid, 1)
        if self.uses_valid and not enough:
            log.debug(
                "network: validation holds %d compounds and %d actives, early stopping needs %d of each: its rows are "
                "trained on, for %d epochs", known, pairs, self.settings.min_valid, self.settings.epochs,
            )  # fmt: skip
        return self.uses_valid and enough

    def _plan(self, device: torch.device, early: bool) -> Plan:
        s = self.settings
        return Plan(
            epochs=s.max_epochs if early else s.epochs,
            batch=s.batch,
            learning_rate=s.learning_rate,
            momentum=s.momentum,
            weight_decay=s.weight_decay,
            clip=s.clip,
            patience=s.patience if early else 0,
            bfloat16=s.dtype == "bfloat16" and device.type == "cuda",
        )

    @torch.no_grad()
    def predict(self, data: Profiles, tasks: list[str] | None = None) -> Predictions:
        """Return the probability of every row in every task; see `contract.Model.predict`."""
        if self.known is None or self.net is None:
            raise not_fitted(self.name)
        self.known.require(data)
        where = self.known.where(tasks)
        score = self.known.block(len(data), where)
        columns = np.flatnonzero(self.known.fitted[where])
        outputs = (np.cumsum(self.known.fitted) - 1)[where[columns]]
        device = next(self.net.parameters()).device
        chosen = torch.as_tensor(outputs, device=device)
        with threads(cores(self.jobs)):
            for start in range(0, len(data) if len(columns) else 0, _ROWS):
                X = torch.tensor(data.X[start : start + _ROWS], device=device)
                logits = self.net(X, outputs=chosen)
                score[start : start + _ROWS, columns] = torch.sigmoid(logits.float()).cpu().numpy()
        return Predictions(score, data.compounds, [self.known.tasks[i] for i in where], self.name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; see `contract.Model.save`."""
        if self.known is None or self.net is None:
            raise not_fitted(self.name)
        losses = {"train_loss": self.state.train_loss, "valid_loss": self.state.valid_loss}
        meta = {
            "kind": f"model {self.name}", "settings": stored_settings(self.settings), **self.known.meta(), **losses,
            "best_epoch": self.state.best_epoch,
        }  # fmt: skip
        weights = {f"net {name}": p.detach().cpu().numpy() for name, p in self.net.named_parameters()}
        write_tensors(model_path(path, self.name), {**self.known.arrays(), **weights}, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Model.load`."""
        path = model_path(path, cls.name)
        arrays, meta = read_tensors(path, f"model {cls.name}", Known.FORM)
        model = cls()
        model.settings = restore_settings(NetworkSettings, meta, cls.name, path)
        model.known = Known.restore(arrays, meta, path)
        sizes = (len(model.known.features), int(model.known.fitted.sum()))
        shapes = _shapes(*sizes, model.settings)
        found = {name: arrays.get(f"net {name}") for name in shapes}
        fine = all(
            a is not None and a.dtype == np.float32 and a.shape == shapes[name] and np.isfinite(a).all()
            for name, a in found.items()
        )
        if not fine:  # checked before the network is built, so that a file cannot ask for all memory
            raise FileError(f"'{path}' is damaged: its weights do not fit its features and tasks. Fit the model again.")
        model.net = Perceptron(*sizes, model.settings)
        model.net.load_state_dict({name: torch.from_numpy(a) for name, a in found.items() if a is not None})
        model.net.to(_device(model.settings))
        try:
            losses = {name: [float(v) for v in meta[name]] for name in ("train_loss", "valid_loss")}
            model.state = State(best_epoch=int(meta["best_epoch"]), done=True, **losses)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"'{path}' is damaged: its losses cannot be read. Fit the model again.") from error
        return model


class Perceptron(nn.Module):
    """Linear layers with ReLU and dropout between them.

    Parameters
    ----------
    F, T : int
        Features and outputs.
    settings : NetworkSettings
    """

    def __init__(self, F: int, T: int, settings: NetworkSettings) -> None:
        super().__init__()
        sizes = [F] + [settings.units] * settings.layers + [T]
        # Empty, because `begin` sets every number: nothing is drawn from torch's global generator.
        pairs = list(itertools.pairwise(sizes))
        self.weights = nn.ParameterList(torch.empty(b, a) for a, b in pairs)
        self.biases = nn.ParameterList(torch.empty(b) for _, b in pairs)
        self.settings = settings

    @torch.no_grad()
    def begin(self, share: NDArray[np.float32], seed: int) -> None:
        """Draw hidden weights (He et al. 2015); outputs begin as the log odds of `share` (T,) for every row."""
        last = len(self.weights) - 1
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            # ReLU halves the variance that a layer passes on. Output weights of 0: what is random in
            # the first layers has no say before a task has shown a use for it.
            deviation = (2 / max(weight.shape[1], 1)) ** 0.5 if depth < last else 0.0
            weight.normal_(0.0, deviation, generator=generator("cpu", seed, -1, depth))
            bias.zero_()
        self.biases[last].copy_(torch.logit(torch.from_numpy(share)))

    def forward(
        self,
        x: Tensor,
        epoch: int | None = None,
        noise: torch.Generator | None = None,
        outputs: Tensor | None = None,
    ) -> Tensor:
        """Return logits (B, T), or those of the chosen outputs; with dropout where an epoch is given."""
        rate_input, rate_hidden = (0.0, 0.0) if epoch is None else self.settings.dropout(epoch)
        x = _drop(x, rate_input, noise)
        *hidden, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for w, b in hidden:
            x = _drop(torch.relu(functional.linear(x, w, b)), rate_hidden, noise)
        if outputs is not None:
            weight, bias = weight[outputs], bias[outputs]
        return functional.linear(x, weight, bias)


def _drop(x: Tensor, rate: float, noise: torch.Generator | None) -> Tensor:
    """Set a share of the values to 0 and scale the others so that the mean stays."""
    if rate <= 0 or noise is None:
        return x
    # Four values are decided by each random 64-bit number: the rate is exact to 1/65,536, and
    # drawing takes a quarter of the time of one number per value.
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    bits.random_(-(2**63), None, generator=noise)
    limit = round(rate * 65536) - 32768
    kept = (bits.view(torch.int16)[: x.numel()] >= limit).view(x.shape)
    return x * kept * (65536 / (32768 - limit))


def _shapes(F: int, T: int, settings: NetworkSettings) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters of a `Perceptron` by name."""
    pairs = list(itertools.pairwise([F] + [settings.units] * settings.layers + [T]))
    weights: dict[str, tuple[int, ...]] = {f"weights.{i}": (b, a) for i, (a, b) in enumerate(pairs)}
    return weights | {f"biases.{i}": (b,) for i, (_, b) in enumerate(pairs)}


def _device(settings: NetworkSettings) -> torch.device:
    there = torch.cuda.is_available()
    if settings.device == "cuda" and not there:
        raise ConfigError("setting 'device' is 'cuda', but no CUDA device is found. Use device: auto or device: cpu.")
    return torch.device("cuda" if there and settings.device != "cpu" else "cpu")


def _identity(settings: NetworkSettings, seed: int, known: Known, rows: list[Rows]) -> str:
    """Hash of everything that decides the result of training."""
    names = json.dumps([stored_settings(settings), seed, known.features, known.tasks], sort_keys=True)
    digest = hashlib.blake2b(names.encode(), digest_size=16)
    for part in rows:
        for tensor in (part.X, part.measured.indptr, part.measured.column, part.measured.y):
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().numpy())
    return digest.hexdigest()
