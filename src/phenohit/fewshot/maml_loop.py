"""What learning to learn by gradients needs, whatever the network: the inner loop, the outer loop, its checkpoint.

All randomness is drawn from generators seeded by (seed, meta-step), so that a resumed training ends with the same
numbers as one that was never interrupted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phenohit.errors import FileError, RunError
from phenohit.fewshot.pools import Pools
from phenohit.models.fit import CHECKPOINT_SECONDS
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["MetaBatch", "MetaPlan", "MetaState", "draw_batch", "inner_loop", "meta_train"]

log = logging.getLogger("phenohit")

Parameters = dict[str, Tensor]


def inner_loop(
    loss: Callable[[Parameters], Tensor],
    parameters: Parameters,
    *,
    rate: float,
    steps: int,
    order: int = 2,
    through: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> Parameters:
    """Adapt parameters to one task by plain gradient descent (Finn et al. 2017, equation 1).

    Parameters
    ----------
    loss : function
        Of the parameters, one number.
    parameters : dict of str to tensor
    rate : float
    steps : int
    order : {2, 1}
        2: what comes out is differentiable in what goes in, through the gradients. 1: the gradients are taken for
        constants (first-order MAML).
    through : mapping of str to function, optional
        What becomes of the gradient of a parameter before its step; for a parameter that stands for another one.

    Returns
    -------
    dict of str to tensor
        New tensors; those given are left as they are.
    """
    through = through or {}
    for _ in range(steps):
        slope = torch.func.grad(loss)(parameters)
        if order == 1:
            slope = {name: g.detach() for name, g in slope.items()}
        parameters = {
            name: p - rate * (through[name](slope[name]) if name in through else slope[name])
            for name, p in parameters.items()
        }
    return parameters


class MetaBatch(NamedTuple):
    """The episodes of one meta-step: T tasks, all with supports of M compounds.

    Attributes
    ----------
    support, query : intp arrays, shapes (T, M) and (T, Q)
        Rows.
    y_support, y_query : bool arrays
    weight : float32 array, shape (T, Q)
        1 over the compounds of the task's query; 0 for rows that only fill up the query of a small task.
    """

    support: NDArray[np.intp]
    query: NDArray[np.intp]
    y_support: NDArray[np.bool_]
    y_query: NDArray[np.bool_]
    weight: NDArray[np.float32]

    def part(self, which: slice) -> MetaBatch:
        """Return some of the tasks."""
        return MetaBatch(*(a[which] for a in self))


def draw_batch(pools: Pools, sizes: Sequence[int], n_tasks: int, seed: int, step: int) -> MetaBatch:
    """Draw one episode of each of some tasks, by compound and stratified.

    Parameters
    ----------
    pools : Pools
        Training tasks.
    sizes : sequence of int
        Support sizes, one of which is drawn for the meta-step among those that tasks can serve.
    n_tasks : int
        Tasks, drawn with replacement where there are fewer.
    seed, step : int
        Nothing else decides what is drawn.
    """
    stream = np.random.default_rng([seed, step, 1])
    served = pools.parts[int(stream.choice([size for size in sizes if pools.parts[size]]))]
    chosen = stream.choice(len(served), n_tasks, replace=len(served) < n_tasks)
    groups = [pools.pools[number].draw(stream, parts, 1, 0) for number, parts in (served[i] for i in chosen)]
    width = max(g.query.shape[1] for g in groups)
    fill = [np.arange(width) % g.query.shape[1] for g in groups]
    return MetaBatch(
        np.stack([g.rows[g.support[0]] for g in groups]),
        np.stack([g.rows[g.query[0]][f] for g, f in zip(groups, fill, strict=True)]),
        np.stack([g.y_support[0] for g in groups]),
        np.stack([g.y_query[0][f] for g, f in zip(groups, fill, strict=True)]),
        np.stack([np.float32(np.arange(width) < g.query.shape[1]) / g.query.shape[1] for g in groups]),
    )


@dataclass(frozen=True)
class MetaPlan:
    """How to train over tasks: the outer Adam, and when to look at validation tasks."""

    steps: int
    learning_rate: float
    check: int  # meta-steps between looks
    patience: int  # looks without a better one; 0: train all steps
    clip: float | None = None


@dataclass
class MetaState:
    """Where training stands: meta-steps done, losses, and the best of them by validation AUROC."""

    step: int = 0
    best_step: int = -1
    best_value: float | None = None
    done: bool = False
    loss: list[float] = field(default_factory=list)
    auroc: list[float] = field(default_factory=list)
    seconds: float = 0.0


Gradient = Callable[[MetaBatch, int], tuple[float, Parameters]]


def meta_train(
    parameters: Parameters,
    draw: Callable[[int], MetaBatch],
    gradient: Gradient,
    validate: Callable[[], float] | None,
    plan: MetaPlan,
    *,
    checkpoint: Path | None = None,
    identity: str = "",
    title: str = "maml: meta-steps",
) -> MetaState:
    """Train initial parameters, in place, so that few steps from them learn a task (Finn et al. 2017, algorithm 1).

    Parameters
    ----------
    parameters : dict of str to tensor
        Leaves; those of the best look are in them at the end.
    draw : function
        From the number of a meta-step, counted from 0, to its episodes.
    gradient : function
        From episodes and the number of the meta-step to the mean query loss and its gradient.
    validate : function, optional
        Mean AUROC on validation tasks, by the parameters as they are.
    plan : MetaPlan
    checkpoint : path, optional
        File to go on from.
    identity : str
        Hash of everything that decides the result; a checkpoint of another one is not used.
    title : str
        Shown with the progress.

    Raises
    ------
    RunError
        If the loss becomes infinite.
    """
    training = _MetaTraining(parameters, plan, checkpoint, identity)
    training.resume()
    state = training.state
    left = 0 if state.done else plan.steps - state.step
    note = (lambda: f"validation AUROC {state.auroc[-1]:.3f}" if state.auroc else "") if validate else None
    for _ in track(range(left), title, left, **({} if note is None else {"note": note})):
        began = time.monotonic()
        training.step(*gradient(draw(state.step), state.step))
        if validate is not None and (state.step % plan.check == 0 or state.step == plan.steps):
            training.look(validate())
        state.seconds += time.monotonic() - began
        if state.done:
            break
        training.save_if_due()
    training.finish(chosen=validate is not None)
    return training.state


class _MetaTraining:
    """One run of `meta_train`."""

    def __init__(self, parameters: Parameters, plan: MetaPlan, checkpoint: Path | None, identity: str) -> None:
        self.parameters, self.plan, self.checkpoint, self.identity = parameters, plan, checkpoint, identity
        self.state = MetaState()
        self.best = {name: p.detach().clone() for name, p in parameters.items()}
        self.optimizer = torch.optim.Adam(list(parameters.values()), lr=plan.learning_rate)
        self.saved = time.monotonic()

    def step(self, loss: float, slope: Parameters) -> None:
        """Follow the gradient of the episodes' query loss once."""
        state = self.state
        if not np.isfinite(loss):
            raise RunError(
                f"The meta-training loss became infinite in meta-step {state.step + 1}. Standardise the features, or "
                f"lower inner_rate or learning_rate ({self.plan.learning_rate})."
            )
        for name, p in self.parameters.items():
            p.grad = slope[name].detach()
        if self.plan.clip is not None:
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.plan.clip)
        self.optimizer.step()
        state.loss.append(loss)
        state.step += 1

    def look(self, auroc: float) -> None:
        """Remember the parameters if they are the best so far; end where none were better for a while."""
        state = self.state
        state.auroc.append(auroc)
        if state.best_value is None or auroc > state.best_value:
            state.best_value, state.best_step = auroc, state.step
            _copy(self.parameters, self.best)
        looks = (state.step - state.best_step) / self.plan.check
        state.done = 0 < self.plan.patience <= looks

    def finish(self, *, chosen: bool) -> None:
        """Restore the best parameters and leave a last checkpoint."""
        if chosen and self.state.best_step >= 0:
            _copy(self.best, self.parameters)
        for p in self.parameters.values():
            p.grad = None
        self.state.done = True
        self.save()

    def save_if_due(self) -> None:
        if time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> None:
        """Write everything that the rest of the training depends on."""
        if self.checkpoint is None:
            return
        arrays = {}
        for name, p in self.parameters.items():
            arrays[f"parameter {name}"], arrays[f"best {name}"] = _array(p), _array(self.best[name])
            for part, value in self.optimizer.state.get(p, {}).items():
                arrays[f"{part} {name}"] = np.atleast_1d(_array(value))
        write_tensors(self.checkpoint, arrays, {"kind": "checkpoint", "identity": self.identity, **asdict(self.state)})
        self.saved = time.monotonic()

    def resume(self) -> None:
        """Go on from the checkpoint if there is one of the same identity."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        try:
            arrays, meta = read_tensors(self.checkpoint, "checkpoint")
            if meta.get("identity") != self.identity:
                log.info("checkpoint '%s' is of other data or settings, training begins anew", self.checkpoint)
                return
            self._restore(arrays, {k: v for k, v in meta.items() if k not in ("kind", "identity")})
        except (FileError, KeyError, TypeError, RuntimeError) as error:
            log.warning("checkpoint '%s' cannot be used, training begins anew: %s", self.checkpoint, error)

    def _restore(self, arrays: dict[str, NDArray[Any]], values: dict[str, Any]) -> None:
        state = MetaState(**values)  # everything is looked up before anything is used
        found = {}
        for name, p in self.parameters.items():
            parts = {part: torch.from_numpy(arrays[f"{part} {name}"]) for part in ("parameter", "best")}
            if state.step:
                parts |= {part: torch.from_numpy(arrays[f"{part} {name}"]) for part in ("exp_avg", "exp_avg_sq")}
                parts["step"] = torch.from_numpy(arrays[f"step {name}"])[0]
            if any(t.shape != p.shape for part, t in parts.items() if part != "step"):
                raise FileError("its parameters have other shapes")
            found[name] = parts
        _copy({name: parts.pop("parameter") for name, parts in found.items()}, self.parameters)
        _copy({name: parts.pop("best") for name, parts in found.items()}, self.best)
        for name, p in self.parameters.items():
            moving = {part: t if part == "step" else t.to(p.device) for part, t in found[name].items()}
            if moving:
                self.optimizer.state[p].update(moving)
        self.state = state


def _array(t: Tensor) -> NDArray[Any]:
    return t.detach().cpu().contiguous().numpy()


@torch.no_grad()
def _copy(source: Parameters, target: Parameters) -> None:
    for name, t in target.items():
        t.copy_(source[name])
