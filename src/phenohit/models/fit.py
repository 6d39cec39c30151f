"""The one training loop: minibatches from a feed, be it a matrix on the device or images on a disk.

All randomness is drawn from generators seeded by (seed, epoch, step), never from torch's global
one. A checkpoint therefore needs no generator state: with the parameters, the momentum and three
counters a resumed run ends with the same numbers as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phenohit.errors import RunError
from phenohit.models.checkpoint import State, checkpoint_of, read_checkpoint
from phenohit.models.loss import masked_cross_entropy
from phenohit.progress import track
from phenohit.tensors import write_tensors

__all__ = ["Batch", "Feed", "Plan", "State", "complete", "generator", "threads", "train"]

CHECKPOINT_SECONDS = 10.0  # a killed run loses at most this much training


@dataclass(frozen=True)
class Plan:
    """How to train; see `NetworkSettings` and `ImageSettings` for what each means."""

    epochs: int
    batch: int
    learning_rate: float
    momentum: float
    weight_decay: float
    clip: float | None
    patience: int  # 0: no early stopping
    bfloat16: bool = False
    select: Literal["loss", "auroc"] = "loss"  # what the best epoch has the best of, on validation rows
    keep_best: bool = False  # also without early stopping
    warm_up: int = 0  # epochs in which the rate rises from 0
    cosine: int = 0  # epoch at which the rate, falling as a cosine, has reached 0; 0: constant


class Batch(NamedTuple):
    """What a step is made of.

    Attributes
    ----------
    x : float tensor (B, ...)
    entry, y : int64 and float32 tensors (E,)
        Place (row of the batch x T + task) and label of every measured entry.
    samples : int64 array (B,), on the host
        Which samples of the feed they are.
    whole : int
        Measured entries of the whole batch, where several devices share it.
    """

    x: Tensor
    entry: Tensor
    y: Tensor
    samples: NDArray[np.int64]
    whole: int = 0


Scores: TypeAlias = list[tuple[NDArray[np.int64], Tensor]]  # samples and their probabilities


class Feed(Protocol):
    """What gives batches.

    Attributes
    ----------
    device : torch.device
    count : int64 array (N,)
        Measured entries of every sample.
    block : int
        Samples that are scored together.
    """

    device: torch.device
    count: NDArray[np.int64]
    block: int

    def __len__(self) -> int: ...

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the samples of an epoch, in the order in which they are trained on."""
        ...

    def batches(
        self, order: NDArray[np.int64], size: int, noise: Callable[[int], torch.Generator] | None = None
    ) -> Iterator[Batch]:
        """Yield batches of `size` samples; with `noise` (of the k-th of these batches) as they are trained on."""
        ...

    def auroc(self, scores: Iterable[tuple[NDArray[np.int64], Tensor]]) -> float:
        """Return the mean AUROC over tasks of probabilities (samples, (B, T)) of all samples."""
        ...


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
    data: Feed,
    valid: Feed | None,
    plan: Plan,
    *,
    seed: int,
    checkpoint: Path | None = None,
    identity: str = "",
    title: str = "train",
    by_step: bool = False,
) -> State:
    """Train a network in place by stochastic gradient descent.

    Parameters
    ----------
    net : module
        ``net(x, epoch, generator)`` returns logits (B, T), or several whose losses are added, with
        whatever noise it trains with; ``net(x)`` returns them without.
    data : Feed
        Training samples, all with at least one measured entry.
    valid : Feed, optional
        With these and ``plan.patience``, training stops once they have not become better for that
        many epochs, and the parameters of the best epoch are restored.
    plan : Plan
    seed : int
    checkpoint : path, optional
        File to go on from, written at most every ten seconds and at the end.
    identity : str
        Hash of everything that decides the result. A checkpoint of another identity is not used.
    title : str
        Shown with the progress.
    by_step : bool
        Show steps, where epochs are long.

    Raises
    ------
    RunError
        If the loss becomes infinite, or the device has too little memory for a batch.
    """
    trainer = _Trainer(net, data, valid if plan.patience or plan.keep_best else None, plan, seed, checkpoint, identity)
    return complete(trainer, title, by_step=by_step)


def complete(trainer: _Trainer, title: str, *, by_step: bool) -> State:
    """Train from the checkpoint on, if there is one, to the end; show progress where there is a title."""
    trainer.resume()
    plan = trainer.plan
    show = track if title else lambda items, *_, **__: items
    left = max(plan.epochs - trainer.state.epoch, 0)
    try:
        if by_step:
            steps = left * trainer.steps - trainer.state.step
            for _ in show(trainer.run(), title, max(steps, 0), note=trainer.said):
                pass
        else:
            for _ in show(trainer.epochs(), title, left):
                pass
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"The device has too little memory for batches of {plan.batch}: set batch to {max(plan.batch // 2, 1)}, or "
            "dtype to bfloat16."
        ) from error
    trainer.finish()
    return trainer.state


class _Trainer:
    """One run of `train`."""

    def __init__(
        self,
        net: nn.Module,
        data: Feed,
        valid: Feed | None,
        plan: Plan,
        seed: int,
        checkpoint: Path | None,
        identity: str,
    ) -> None:
        self.net, self.data, self.valid, self.plan = net, data, valid, plan
        self.seed, self.checkpoint, self.identity = seed, checkpoint, identity
        self.state = State()
        self.device = data.device
        self.world = 1  # devices that share a batch
        self.steps = -(-len(data.order(seed, 0)) // plan.batch)  # of an epoch
        self.parameters = list(net.parameters())
        named = [*net.named_parameters(), *net.named_buffers()]  # averages of batch normalisation are kept as well
        self.names, self.tensors = [name for name, _ in named], [tensor for _, tensor in named]
        decay = [p for p in self.parameters if p.ndim > 1]  # biases are not shrunk: they hold base rates
        rest = [p for p in self.parameters if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": plan.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=plan.learning_rate, momentum=plan.momentum)
        self.best = [t.detach().clone() for t in self.tensors]
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.saved = time.monotonic()
        self.seen, self.began = 0, self.saved
        self.marked = self.saved  # when the epoch began, or this process

    def epochs(self) -> Iterator[int]:
        """Run the epochs that are left, one per turn."""
        while not self.state.done and self.state.epoch < self.plan.epochs:
            for _ in self.epoch():
                pass
            yield self.state.epoch

    def run(self) -> Iterator[int]:
        """Run the epochs that are left, one step per turn."""
        self.began = time.monotonic()
        while not self.state.done and self.state.epoch < self.plan.epochs:
            yield from self.epoch()

    def said(self) -> str:
        """Return what to show beside the progress."""
        state = self.state
        rate = self.seen / max(time.monotonic() - self.began, 1e-9)
        auroc = f", validation AUROC {state.valid_auroc[-1]:.3f}" if state.valid_auroc else ""
        return f"epoch {state.epoch + 1} of {self.plan.epochs}, {rate:.3g} images/s{auroc}"

    def epoch(self) -> Iterator[int]:
        state, plan = self.state, self.plan
        self.net.train()
        order = self.data.order(self.seed, state.epoch)
        counts = np.add.reduceat(self.data.count[order], np.arange(0, len(order), plan.batch))
        first = state.step

        def noise(step: int) -> torch.Generator:
            return generator(self.device, self.seed, state.epoch, first + step, 1)

        for batch in self.data.batches(order[first * plan.batch :], plan.batch, noise):
            loss = self.step(batch)
            self.loss_sum += loss.detach().double() * float(counts[state.step])
            state.step += 1
            self.seen += len(batch.samples) * self.world
            self.save_if_due()
            yield state.step
        self.end_epoch(int(counts.sum()))

    def step(self, batch: Batch) -> Tensor:
        """Descend once along the gradient of a batch; its loss."""
        self.set_rate()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.plan.bfloat16):
            logits = self.net(batch.x, self.state.epoch, self.noise())
        several = logits if isinstance(logits, tuple) else (logits,)
        losses = [self.loss(one, batch) for one in several]
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.plan.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.plan.clip)
        self.optimizer.step()
        return loss

    def noise(self) -> torch.Generator:
        """Return what a network draws a step's noise from."""
        return generator(self.device, self.seed, self.state.epoch, self.state.step)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of the measured entries of a batch."""
        return masked_cross_entropy(logits, batch.entry, batch.y)

    def set_rate(self) -> None:
        """Set the learning rate of the next step: rising, then falling as a cosine, where the plan says so."""
        plan, state = self.plan, self.state
        if not plan.warm_up and not plan.cosine:
            return
        at = state.epoch + state.step / max(self.steps, 1)
        factor = 1.0
        if at < plan.warm_up:
            factor = (at + 1 / max(self.steps, 1)) / plan.warm_up
        elif plan.cosine:
            share = min((at - plan.warm_up) / max(plan.cosine - plan.warm_up, 1), 1.0)
            factor = (1 + math.cos(math.pi * share)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate * min(factor, 1.0)

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
            value = self.validate(self.valid)
            if state.best_value is None or value < state.best_value:
                state.best_value, state.best_epoch = value, state.epoch
                self.copy(self.tensors, self.best)
            state.done = 0 < self.plan.patience <= state.epoch - state.best_epoch
        state.epoch, state.step = state.epoch + 1, 0
        now = time.monotonic()
        state.seconds, self.marked = state.seconds + now - self.marked, now

    @torch.no_grad()
    def validate(self, valid: Feed) -> float:
        """Measure the validation samples, without noise; return what the best epoch has the least of."""
        self.net.eval()
        total, scores = torch.zeros((), dtype=torch.float64, device=self.device), []
        by_auroc = self.plan.select == "auroc"
        for batch in valid.batches(np.arange(len(valid)), valid.block):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.plan.bfloat16):
                logits = self.net(batch.x)
            total += masked_cross_entropy(logits, batch.entry, batch.y, reduction="sum").double()
            if by_auroc:
                scores.append((batch.samples, torch.sigmoid(logits.float()).cpu()))
        total, scores = self.gathered(total, scores, valid)
        loss = float(total) / max(int(valid.count.sum()), 1)
        self.state.valid_loss.append(loss)
        if not by_auroc:
            return loss
        auroc = valid.auroc(scores)
        self.state.valid_auroc.append(auroc)
        return loss if np.isnan(auroc) else -auroc

    def gathered(self, total: Tensor, scores: Scores, valid: Feed) -> tuple[Tensor, Scores]:
        """Return sum of losses and probabilities of all validation samples; here they are complete."""
        return total, scores

    def finish(self) -> None:
        """Restore the best epoch and leave a last checkpoint."""
        if self.valid is not None and self.state.best_epoch >= 0:
            self.copy(self.best, self.tensors)
        self.net.eval()
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
        if self.checkpoint is not None:
            write_tensors(self.checkpoint, *checkpoint_of(self))
            self.saved = time.monotonic()

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of the same identity."""
        if self.checkpoint is not None and self.checkpoint.exists():
            read_checkpoint(self, self.checkpoint)
