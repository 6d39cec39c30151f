"""Where a training stands, as one file: parameters, momentum, the best epoch's parameters and a few counters."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from phenohit.errors import FileError
from phenohit.tensors import read_tensors

__all__ = ["State", "Training", "checkpoint_of", "read_checkpoint"]

log = logging.getLogger("phenohit")


@dataclass
class State:
    """Where training stands: counters, losses, and the best epoch so far."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_value: float | None = None
    done: bool = False
    train_loss: list[float] = field(default_factory=list)
    valid_loss: list[float] = field(default_factory=list)
    valid_auroc: list[float] = field(default_factory=list)
    seconds: float = 0.0  # of whole epochs, over all processes that went on with them


class Training(Protocol):
    """What a checkpoint is made of, and what it is restored to in place.

    Attributes
    ----------
    identity : str
        Hash of everything that decides the result.
    names : list of str
        Of parameters and buffers; `tensors` are these now, `best` those of the best epoch.
    loss_sum : float64 tensor, no axes
        Sum of the losses of the epoch that is under way.
    """

    identity: str
    state: State
    names: list[str]
    tensors: list[Tensor]
    best: list[Tensor]
    loss_sum: Tensor
    optimizer: torch.optim.Optimizer
    device: torch.device


def checkpoint_of(training: Training) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return everything that the rest of a training depends on: arrays and values for `phenohit.tensors`."""
    arrays = {"loss_sum": training.loss_sum.cpu().numpy()[None]}
    for name, tensor, best in zip(training.names, training.tensors, training.best, strict=True):
        arrays[f"parameter {name}"] = tensor.detach().cpu().numpy()
        arrays[f"best {name}"] = best.cpu().numpy()
        moving = training.optimizer.state.get(tensor, {}).get("momentum_buffer")
        if moving is not None:
            arrays[f"momentum {name}"] = moving.cpu().numpy()
    return arrays, {"kind": "checkpoint", "identity": training.identity, **asdict(training.state)}


def read_checkpoint(training: Training, path: Path) -> None:
    """Go on from a checkpoint where it has the same identity; otherwise, and if it is damaged, nothing changes."""
    try:
        arrays, meta = read_tensors(path, "checkpoint", {"loss_sum": ("float64", 1)})
        same = meta.pop("identity", None) == training.identity
        if same:
            _restore(training, arrays, {k: v for k, v in meta.items() if k != "kind"})
    except (FileError, KeyError, TypeError, RuntimeError) as error:
        log.warning("checkpoint '%s' cannot be used, training begins anew: %s", path, error)
        return
    if not same:
        log.info("checkpoint '%s' is of other data or settings, training begins anew", path)


@torch.no_grad()
def _restore(training: Training, arrays: dict[str, NDArray[Any]], values: dict[str, Any]) -> None:
    state = State(**values)  # every array is looked up before any is used, so that failure changes nothing
    names = training.names
    found = {part: [torch.from_numpy(arrays[f"{part} {name}"]) for name in names] for part in ("parameter", "best")}
    fits = all(a.shape == t.shape for part in found.values() for a, t in zip(part, training.tensors, strict=True))
    if not fits:
        raise FileError("its parameters have other shapes")
    moving = [arrays.get(f"momentum {name}") for name in names]
    for tensor, now, buffer in zip(training.tensors, found["parameter"], moving, strict=True):
        tensor.copy_(now)
        if buffer is not None:
            training.optimizer.state[tensor]["momentum_buffer"] = torch.from_numpy(buffer).to(training.device)
    for kept, best in zip(training.best, found["best"], strict=True):
        kept.copy_(best)
    training.loss_sum.copy_(torch.from_numpy(arrays["loss_sum"])[0])
    training.state = state
