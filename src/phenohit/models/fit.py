"""The one training loop: minibatches by index over a matrix that stays on the device.

All randomness is drawn from generators seeded by (seed, epoch, step), never from torch's global
one. A checkpoint therefore needs no generator state: with the parameters, the momentum and three
counters a resumed run ends with the same numbers as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from phenohit.errors import FileError, RunError
from phenohit.models.loss import masked_cross_entropy
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Plan", "Rows", "State", "generator", "threads", "train"]

CHECKPOINT_SECONDS = 10.0  # a killed run loses at most this much training
_COPIED = 16_384  # rows moved to the device at a time
_VALID_ROWS = 8192  # rows whose validation loss is computed at a time
log = logging.getLogger("phenohit")


@dataclass(frozen=True)
class Plan:
    """How to train; see `phenohit.models.network.NetworkSettings` for what each means."""

    epochs: int
    batch: int
    learning_rate: float
    momentum: float
    weight_decay: float
    clip: float | None
    patience: int  # 0: no early stopping
    bfloat16: bool = False


@dataclass(frozen=True, eq=False)
class Rows:
    """Features and sparse labels of some rows, resident on a device.

    Attributes
    ----------
    X : float32 tensor (N, F)
    indptr, column, y : int64 (N + 1,), int64 (E,), float32 (E,) tensors
        The measured entries in CSR form.
    count : int64 array (N,), on the host
        Measured entries per row, so that no step waits for the device to know a length.
    n_tasks : int
    """

    X: Tensor
    indptr: Tensor
    column: Tensor
    y: Tensor
    count: NDArray[np.int64]
    n_tasks: int

    @classmethod
    def of(cls, X: NDArray[np.float32], Y: sparse.csr_matrix, device: torch.device) -> Rows:
        """Move rows that have labels to the device; the others are left behind."""
        labelled = np.flatnonzero(Y.getnnz(axis=1))
        resident = torch.empty((len(labelled), X.shape[1]), dtype=torch.float32, device=device)
        for start in range(0, len(labelled), _COPIED):  # in blocks: the matrix is never held twice
            part = slice(start, start + _COPIED)
            resident[part] = torch.tensor(X[labelled[part]])
        if len(labelled) < len(X):
            Y = Y[labelled]
        return cls(
            resident,
            torch.tensor(Y.indptr, dtype=torch.int64, device=device),
            torch.tensor(Y.indices, dtype=torch.int64, device=device),
            torch.tensor(Y.data, dtype=torch.float32, device=device),
            np.diff(Y.indptr).astype(np.int64),
            int(Y.shape[1]),  # pyright: ignore[reportOptionalSubscript]
        )

    def __len__(self) -> int:
        return len(self.X)

    def entries(self, rows: Tensor, n_entries: int) -> tuple[Tensor, Tensor]:
        """Return place (row of the batch x T + task) and label of every measured entry of some rows."""
        start = self.indptr[rows]
        count = self.indptr[rows + 1] - start
        offset = torch.cumsum(count, 0) - count
        # Entry k of the batch is stored at start[row of k] + (k - first entry of that row).
        shift = torch.stack([start - offset, torch.arange(len(rows), device=rows.device) * self.n_tasks])
        shift = torch.repeat_interleave(shift, count, dim=1, output_size=n_entries)
        stored = shift[0] + torch.arange(n_entries, device=rows.device)
        return shift[1] + self.column[stored], self.y[stored]


@dataclass
class State:
    """Where training stands: counters, losses, and the best epoch so far."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_loss: float | None = None
    done: bool = False
    train_loss: list[float] = field(default_factory=list)
    valid_loss: list[float] = field(default_factory=list)


def generator(device: torch.device | str, *numbers: int) -> torch.Generator:
    """Return a random generator that depends on nothing but the given numbers."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    # torch's generator on the processor uses the lower 32 bits of a seed, hence the hash
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Let torch use `n` processor cores inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(
    net: nn.Module,
    data: Rows,
    valid: Rows | None,
    plan: Plan,
    *,
    seed: int,
    checkpoint: Path | None = None,
    identity: str = "",
    title: str = "train",
) -> State:
    """Train a network in place by stochastic gradient descent.

    Parameters
    ----------
    net : module
        ``net(x, epoch, generator)`` returns logits (B, T) with whatever noise it trains with;
        ``net(x)`` returns them without.
    data : Rows
        Training rows, all with at least one measured entry.
    valid : Rows, optional
        With these and ``plan.patience``, training stops once their loss has not fallen for that
        many epochs, and the parameters of the best epoch are restored.
    plan : Plan
    seed : int
    checkpoint : path, optional
        File to go on from, written at most every ten seconds and at the end.
    identity : str
        Hash of everything that decides the result. A checkpoint of another identity is not used.
    title : str
        Shown with the progress.

    Raises
    ------
    RunError
        If the loss becomes infinite.
    """
    trainer = _Trainer(net, data, valid if plan.patience else None, plan, seed, checkpoint, identity)
    trainer.resume()
    state = trainer.state
    for _ in track(trainer.epochs(), title, max(plan.epochs - state.epoch, 0)):
        pass
    trainer.finish()
    return state


class _Trainer:
    """One run of `train`."""

    def __init__(
        self,
        net: nn.Module,
        data: Rows,
        valid: Rows | None,
        plan: Plan,
        seed: int,
        checkpoint: Path | None,
        identity: str,
    ) -> None:
        self.net, self.data, self.valid, self.plan = net, data, valid, plan
        self.seed, self.checkpoint, self.identity = seed, checkpoint, identity
        self.state = State()
        self.device = data.X.device
        self.names = [name for name, _ in net.named_parameters()]
        self.parameters = [parameter for _, parameter in net.named_parameters()]
        decay = [p for p in self.parameters if p.ndim > 1]  # biases are not shrunk: they hold base rates
        rest = [p for p in self.parameters if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": plan.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=plan.learning_rate, momentum=plan.momentum)
        self.best = [p.detach().clone() for p in self.parameters]
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.saved = time.monotonic()

    def epochs(self) -> Iterator[int]:
        """Run the epochs that are left, one per turn."""
        while not self.state.done and self.state.epoch < self.plan.epochs:
            self.epoch()
            yield self.state.epoch

    def epoch(self) -> None:
        state, plan, n = self.state, self.plan, len(self.data)
        order = torch.randperm(n, generator=generator("cpu", self.seed, state.epoch))
        starts = np.arange(0, n, plan.batch)
        counts = np.add.reduceat(self.data.count[order.numpy()], starts)
        order = order.to(self.device)
        while state.step < len(starts):
            start = int(starts[state.step])
            loss = self.step(order[start : start + plan.batch], int(counts[state.step]))
            self.loss_sum += loss.detach().double() * float(counts[state.step])
            state.step += 1
            self.save_if_due()
        self.end_epoch(int(self.data.count.sum()))

    def step(self, rows: Tensor, n_entries: int) -> Tensor:
        """Descend once along the gradient of a batch; its loss."""
        noise = generator(self.device, self.seed, self.state.epoch, self.state.step)
        entry, y = self.data.entries(rows, n_entries)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.plan.bfloat16):
            logits = self.net(self.data.X[rows], self.state.epoch, noise)
        loss = masked_cross_entropy(logits, entry, y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.plan.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.plan.clip)
        self.optimizer.step()
        return loss

    def end_epoch(self, n_entries: int) -> None:
        state = self.state
        state.train_loss.append(float(self.loss_sum) / max(n_entries, 1))
        self.loss_sum.zero_()
        if not np.isfinite(state.train_loss[-1]):
            raise RunError(
                f"The training loss became infinite in epoch {state.epoch + 1}. Standardise the features, or lower "
                f"learning_rate ({self.plan.learning_rate}) or set clip."
            )
        if self.valid is not None:
            loss = self.valid_loss(self.valid)
            state.valid_loss.append(loss)
            if state.best_loss is None or loss < state.best_loss:
                state.best_loss, state.best_epoch = loss, state.epoch
                self.copy(self.parameters, self.best)
            state.done = state.epoch - state.best_epoch >= self.plan.patience
        state.epoch, state.step = state.epoch + 1, 0

    @torch.no_grad()
    def valid_loss(self, valid: Rows) -> float:
        """Masked cross-entropy of the validation rows, without noise."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for start in range(0, len(valid), _VALID_ROWS):
            rows = torch.arange(start, min(start + _VALID_ROWS, len(valid)), device=self.device)
            entry, y = valid.entries(rows, int(valid.count[start : start + _VALID_ROWS].sum()))
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.plan.bfloat16):
                logits = self.net(valid.X[rows])
            total += masked_cross_entropy(logits, entry, y, reduction="sum").double()
        return float(total) / max(int(valid.count.sum()), 1)

    def finish(self) -> None:
        """Restore the best epoch and leave a last checkpoint."""
        if self.valid is not None and self.state.best_epoch >= 0:
            self.copy(self.best, self.parameters)
        self.state.done = True
        self.save()

    @torch.no_grad()
    def copy(self, source: list[Any], target: list[Any]) -> None:
        """Copy parameters from one list of tensors to another, in place."""
        for a, b in zip(source, target, strict=True):
            b.copy_(a)

    def save_if_due(self) -> None:
        if self.checkpoint is not None and time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> None:
        """Write everything that the rest of the training depends on."""
        if self.checkpoint is None:
            return
        arrays = {"loss_sum": self.loss_sum.cpu().numpy()[None]}
        for name, parameter, best in zip(self.names, self.parameters, self.best, strict=True):
            arrays[f"parameter {name}"] = parameter.detach().cpu().numpy()
            arrays[f"best {name}"] = best.cpu().numpy()
            moving = self.optimizer.state[parameter].get("momentum_buffer")
            if moving is not None:
                arrays[f"momentum {name}"] = moving.cpu().numpy()
        write_tensors(self.checkpoint, arrays, {"kind": "checkpoint", "identity": self.identity, **asdict(self.state)})
        self.saved = time.monotonic()

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of the same identity."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        try:
            arrays, meta = read_tensors(self.checkpoint, "checkpoint", {"loss_sum": ("float64", 1)})
            same = meta.pop("identity", None) == self.identity
            if same:
                self._restore(arrays, {k: v for k, v in meta.items() if k != "kind"})
        except (FileError, KeyError, TypeError, RuntimeError) as error:
            log.warning("checkpoint '%s' cannot be used, training begins anew: %s", self.checkpoint, error)
            return
        if not same:
            log.info("checkpoint '%s' is of other data or settings, training begins anew", self.checkpoint)

    @torch.no_grad()
    def _restore(self, arrays: dict[str, NDArray[Any]], values: dict[str, Any]) -> None:
        state = State(**values)  # every array is looked up before any is used, so that failure changes nothing
        found = {
            part: [torch.from_numpy(arrays[f"{part} {name}"]) for name in self.names] for part in ("parameter", "best")
        }
        fits = all(a.shape == p.shape for part in found.values() for a, p in zip(part, self.parameters, strict=True))
        if not fits:
            raise FileError("its parameters have other shapes")
        moving = [arrays.get(f"momentum {name}") for name in self.names]
        for parameter, now, buffer in zip(self.parameters, found["parameter"], moving, strict=True):
            parameter.copy_(now)
            if buffer is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.from_numpy(buffer).to(self.device)
        for kept, best in zip(self.best, found["best"], strict=True):
            kept.copy_(best)
        self.loss_sum.copy_(torch.from_numpy(arrays["loss_sum"])[0])
        self.state = state
