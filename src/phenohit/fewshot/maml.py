"""MAML: first weights from which a few steps of gradient descent learn a new assay (Finn et al. 2017)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from phenohit.data.dropped import nothing_dropped
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import FileError
from phenohit.fewshot.episodes import Episodes, draw_tasks
from phenohit.fewshot.maml_loop import MetaBatch, MetaPlan, MetaState, draw_batch, inner_loop, meta_train
from phenohit.fewshot.pools import Pools, episode_auroc
from phenohit.fewshot.prototypes_train import identity
from phenohit.fewshot.simple import gather
from phenohit.fewshot.trunk import find_device, label_tensor, restored, soft
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
from phenohit.models.fit import generator, threads
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Maml", "MamlSettings"]

_MEMORY = {"cpu": 1 << 28, "cuda": 1 << 33}  # bytes of what is held of all episodes that are adapted together
_LOOKS = 20  # episodes of every validation task and support size

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class MamlSettings:
    """Settings of `Maml`.

    Parameters
    ----------
    preset : {"", "fslcp"}
        `fslcp` stands for the published settings on Cell Painting (3 x 2,048 units, dropout 0.1 and 0.5, all 1,000
        meta-steps); settings given beside it win. The defaults are smaller, for two processor cores.
    layers : int
        Hidden layers.
    units : int
        Units of each.
    dropout_input, dropout_hidden : float
        Shares of features and of hidden units left out at random while meta-training; never when scoring.
    inner_rate : float
        Rate of the gradient descent within a task; 0.01 as published, at which three steps change little.
    inner_steps : int
        Its steps.
    test_steps : int
        Its steps when scoring; 0: as many as while meta-training.
    order : {2, 1}
        2: the meta-gradient goes through the inner gradients. 1: it takes them for constants (first-order MAML).
    learning_rate : float
        Of Adam over meta-steps.
    tasks : int
        Tasks of a meta-step.
    meta_steps : int
        Meta-steps at most.
    check : int
        Meta-steps between two looks at validation tasks; the parameters of the best look count.
    patience : int
        Looks without a better one after which training ends; 0: all meta-steps.
    device : {"auto", "cpu", "cuda"}
        Auto is cuda where there is one.
    """

    preset: Literal["", "fslcp"] = ""
    layers: int = 2
    units: int = 256
    dropout_input: float = 0.0
    dropout_hidden: float = 0.0
    inner_rate: float = 0.1
    inner_steps: int = 3
    test_steps: int = 0
    order: Literal[1, 2] = 2
    learning_rate: float = 1e-3
    tasks: int = 32
    meta_steps: int = 1000
    check: int = 25
    patience: int = 8
    device: Literal["auto", "cpu", "cuda"] = "auto"

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "fslcp": {
            "layers": 3, "units": 2048, "dropout_input": 0.1, "dropout_hidden": 0.5, "inner_rate": 0.01,
            "inner_steps": 3, "order": 2, "learning_rate": 1e-3, "tasks": 32, "meta_steps": 1000, "patience": 0,
        }
    }  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("layers", "units", "inner_steps", "tasks", "meta_steps", "check"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("dropout_input", "dropout_hidden"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        for name in ("inner_rate", "learning_rate"):
            require(0 < getattr(self, name) < float("inf"), name, getattr(self, name), "above 0")
        for name in ("test_steps", "patience"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or above")


class Maml:
    """Model-agnostic meta-learning on profiles, one network for all support sizes.

    Parameters
    ----------
    **settings
        See `MamlSettings`.

    Attributes
    ----------
    dropped : DataFrame
        Training tasks that were too small to be drawn at a support size.
    state : MetaState
        Losses of the meta-steps, AUROC of the looks at validation tasks.

    Notes
    -----
    ReLU layers and one logit; cross-entropy within tasks and over them. Episodes are drawn by compound, stratified, at
    the task's own active share. Nothing of a query takes part in the adaptation, and there is no batch normalisation,
    so that every compound's score is that of the compound alone.

    The first layer, which has most of the weights, is never copied for a task. Descent moves its weights W by
    ``-rate * delta.T @ X_support``, hence its outputs Z of any rows X by ``-rate * (X @ X_support.T + 1) @ delta`` (the
    1 is the bias), where delta is the gradient of the loss in the support's Z. The inner loop moves Z instead of W:
    the same numbers but for rounding, and the same second-order gradient, at a fraction of work and memory.

    Departures from the published code on Cell Painting: dropout is off when scoring, an input's dropout is the same
    in all inner steps, support sizes share one network, and rows of one compound never stand on both sides.
    """

    name: ClassVar[str] = "maml"
    sees: ClassVar[str] = "profiles"
    pretrains: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        self.settings = read_settings(MamlSettings, settings, self.name)
        self.known: Known | None = None
        self.parameters: Parameters = {}
        self.device = torch.device("cpu")
        self.dropped: pd.DataFrame = nothing_dropped()
        self.state = MetaState()

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
        """Learn first weights from other tasks; see `contract.Method.pretrain`.

        Raises
        ------
        LabelError
            If no training task is large enough for a support and a query.
        RunError
            If the loss becomes infinite.
        """
        s, self.device = self.settings, find_device(self.settings.device)
        self.known = Known.of(data, labels)
        if valid is not None:
            check_pair(data, valid)
        pools = Pools.of(labels, data.compounds, sizes, query)
        self.dropped = pools.dropped
        looks: list[Episodes] = []
        if valid is not None:
            looks, _ = draw_tasks(
                valid, data.compounds, valid.task_names, sizes=sizes, query=query, n=_LOOKS, seed=seed
            )
        self.parameters = {
            name: p.to(self.device).requires_grad_()
            for name, p in first_weights(_shapes(len(data.features), s), seed).items()
        }
        facts = [s, str(self.device), data.features, list(sizes), query, seed]
        file = None if run is None else Path(run) / f"{self.name}.checkpoint.safetensors"

        def gradient(drawn: MetaBatch, step: int) -> tuple[float, Parameters]:
            return self._gradient(data.X, drawn, seed, step)

        def validate() -> float:
            return episode_auroc(self._scores(data.X, looks), looks)

        with threads(cores(jobs)):
            self.state = meta_train(
                self.parameters, partial(draw_batch, pools, sizes, s.tasks, seed), gradient,
                validate if looks else None,
                MetaPlan(s.meta_steps, s.learning_rate, s.check, s.patience),
                checkpoint=file,
                identity="" if file is None else identity(data.X, labels, valid, facts),
            )  # fmt: skip
        for p in self.parameters.values():
            p.requires_grad_(False)
        return self

    def score(
        self, data: Profiles, episodes: Sequence[Episodes], *, seed: int = 0, jobs: int = 1
    ) -> list[NDArray[np.float32]]:
        """Adapt to every support and score its query; see `contract.Method.score`. Nothing is random here."""
        if self.known is None or not self.parameters:
            raise not_fitted(self.name)
        self.known.require(data)
        with threads(cores(jobs)):
            return self._scores(data.X, track(episodes, f"{self.name}: episodes"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; see `contract.Method.save`."""
        if self.known is None or not self.parameters:
            raise not_fitted(self.name)
        meta = {
            "kind": f"few-shot {self.name}", "settings": stored_settings(self.settings), **self.known.meta(),
            "loss": self.state.loss, "auroc": self.state.auroc, "best_step": self.state.best_step,
        }  # fmt: skip
        weights = {f"net {name}": p.detach().cpu().numpy() for name, p in self.parameters.items()}
        write_tensors(model_path(path, self.name), {**self.known.arrays(), **weights}, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Method.load`."""
        path = model_path(path, cls.name)
        arrays, meta = read_tensors(path, f"few-shot {cls.name}", Known.FORM)
        method = cls()
        method.settings = restore_settings(MamlSettings, meta, cls.name, path)
        method.known = Known.restore(arrays, meta, path)
        method.device = find_device(method.settings.device)
        shapes = {f"net {name}": shape for name, shape in _shapes(len(method.known.features), method.settings).items()}
        found = restored(arrays, shapes, path)
        method.parameters = {n.removeprefix("net "): t.to(method.device) for n, t in zip(shapes, found, strict=True)}
        try:
            curves = {name: [float(v) for v in meta[name]] for name in ("loss", "auroc")}
            method.state = MetaState(best_step=int(meta["best_step"]), done=True, **curves)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"'{path}' is damaged: its losses cannot be read. Pretrain again.") from error
        return method

    def _gradient(self, X: Any, drawn: MetaBatch, seed: int, step: int) -> tuple[float, Parameters]:
        """Return the mean query loss over the episodes of a meta-step, and its gradient."""
        s, total, slope = self.settings, 0.0, {name: torch.zeros_like(p) for name, p in self.parameters.items()}

        def episode(p: Parameters, x: Tensor, y: Tensor, y_query: Tensor, weight: Tensor) -> Tensor:
            logits = adapted_logits(
                p, x, y, steps=s.inner_steps, rate=s.inner_rate, order=s.order, dropout=s.dropout_hidden
            )
            return functional.binary_cross_entropy_with_logits(logits, y_query, weight, reduction="sum")

        def loss(p: Parameters, *parts: Tensor) -> Tensor:
            each = torch.func.vmap(episode, in_dims=(None, 0, 0, 0, 0), randomness="different")
            return each(p, *parts).sum() / len(drawn.support)

        with torch.random.fork_rng(devices=[0] if self.device.type == "cuda" else []):
            # Dropout of hidden units draws from torch's own generator.
            torch.manual_seed(generator("cpu", seed, step).initial_seed())
            for which in self._together(*drawn[:2]):
                part = drawn.part(which)
                x = functional.dropout(self._features(X, *part[:2]), s.dropout_input)
                others = [torch.from_numpy(a.astype(np.float32)).to(self.device) for a in part[2:]]
                more, value = torch.func.grad_and_value(loss)(self.parameters, x, *others)
                total += float(value.detach())
                slope = {name: slope[name] + g for name, g in more.items()}
        return total, slope

    @torch.no_grad()
    def _scores(self, X: Any, episodes: Iterable[Episodes]) -> list[NDArray[np.float32]]:
        s, p = self.settings, {name: t.detach() for name, t in self.parameters.items()}
        steps = s.test_steps or s.inner_steps

        def episode(x: Tensor, y: Tensor) -> Tensor:
            return adapted_logits(p, x, y, steps=steps, rate=s.inner_rate, order=1)

        scores = []
        for one in episodes:
            score = np.empty(one.query.shape, np.float32)
            for which in self._together(one.support, one.query):
                part = one.take(which)
                x = self._features(X, part.support, part.query)
                score[which] = soft(torch.func.vmap(episode)(x, label_tensor(part.y_support, self.device)))
            scores.append(score)
        return scores

    def _features(self, X: Any, support: NDArray[np.intp], query: NDArray[np.intp]) -> Tensor:
        """Return the features of supports (B, M) and queries (B, Q), shape (B, M + Q, F)."""
        return torch.from_numpy(gather(X, np.hstack([support, query]))).to(self.device)

    def _together(self, support: NDArray[np.intp], query: NDArray[np.intp]) -> Iterator[slice]:
        """Yield which episodes are adapted at once: as many as memory is for."""
        s, n = self.settings, support.shape[1] + query.shape[1]
        weights = sum(p.numel() for name, p in self.parameters.items() if name not in ("w0", "b0"))
        copies = 4 * (s.inner_steps + 1)  # parameters and gradients of every step, and what leads from one to the next
        features = self.parameters["w0"].shape[1]
        each = 4 * (n * (2 * features + n) + copies * (weights + n * s.units * s.layers))
        size = max(_MEMORY[self.device.type] // each, 1)
        for start in range(0, len(support), size):
            yield slice(start, start + size)


def adapted_logits(
    parameters: Parameters, x: Tensor, y: Tensor, *, steps: int, rate: float, order: int, dropout: float = 0.0
) -> Tensor:
    """Adapt a network to a support and return the logits of a query.

    Parameters
    ----------
    parameters : dict of str to tensor
        Weights ``w0``, ``w1`` ... (outputs, inputs) and biases ``b0``, ``b1`` ...; the last layer has one output.
    x : tensor, shape (M + Q, F)
        Features of support and query.
    y : tensor, shape (M,)
        Labels of the support.
    steps, rate, order
        See `phenohit.fewshot.maml_loop.inner_loop`.
    dropout : float
        Share of hidden units left out at random.

    Returns
    -------
    tensor, shape (Q,)
    """
    m = y.shape[0]
    moved = dict(parameters)
    moved["z"] = functional.linear(x, moved.pop("w0"), moved.pop("b0"))
    reach = x @ x[:m].T + 1  # what a step along the support's deltas does to the first layer's outputs of every row

    def loss(p: Parameters) -> Tensor:
        return functional.binary_cross_entropy_with_logits(_rest(p, p["z"][:m], dropout), y)

    adapted = inner_loop(loss, moved, rate=rate, steps=steps, order=order, through={"z": lambda g: reach @ g[:m]})
    return _rest(adapted, adapted["z"][m:], dropout)


def _rest(p: Parameters, z: Tensor, dropout: float) -> Tensor:
    """Logits from the outputs of the first layer."""
    for depth in range(1, len(p) // 2 + 1):  # p holds z and the other layers
        z = functional.linear(functional.dropout(torch.relu(z), dropout), p[f"w{depth}"], p[f"b{depth}"])
    return z[..., 0]


def _shapes(F: int, settings: MamlSettings) -> dict[str, tuple[int, ...]]:
    pairs = list(itertools.pairwise([F] + [settings.units] * settings.layers + [1]))
    weights: dict[str, tuple[int, ...]] = {f"w{i}": (b, a) for i, (a, b) in enumerate(pairs)}
    return weights | {f"b{i}": (b,) for i, (_, b) in enumerate(pairs)}


def first_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> Parameters:
    """Draw weights as in He et al. 2015 (the last layer's with half that variance: no ReLU follows); biases are 0.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        ``w0``, ``b0`` and so on.
    seed : int
    """
    last = max(int(name[1:]) for name in shapes)
    made = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for depth in range(last + 1):
        w = made[f"w{depth}"]
        variance = (1 if depth == last else 2) / max(w.shape[1], 1)
        w.normal_(0.0, variance**0.5, generator=generator("cpu", seed, -1, depth))
    return made
