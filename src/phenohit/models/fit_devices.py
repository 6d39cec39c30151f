"""Training on several devices at once: one process each, a share of every batch each, one gradient.

A step is the step that one device would make: the batch is the same, and the loss is the mean over all its measured
entries, wherever they are. Without batch normalisation and dropout the result is that of one device but for rounding.
Batch normalisation sees the share of its device, and its averages are those of the first one.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from phenohit import errors
from phenohit.errors import ConfigError, PhenoHitError, RunError
from phenohit.images.samples import ImageRows
from phenohit.models.fit import Batch, Feed, Plan, Scores, State, _Trainer, complete, generator
from phenohit.models.loss import masked_cross_entropy
from phenohit.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from phenohit.models.image_model import ImageModel

__all__ = ["check_devices", "train_on_devices"]

log = logging.getLogger("phenohit")
for _name in (
    "lightning_fabric.utilities.distributed",
    "lightning_fabric.utilities.rank_zero",
    "torch.multiprocessing",
):
    logging.getLogger(_name).setLevel(logging.ERROR)  # they tell of every process that begins or is ended


def check_devices(devices: int, device: torch.device) -> None:
    """Refuse more devices than there are, and several without the library that joins them.

    Raises
    ------
    ConfigError
    """
    if devices == 1:
        return
    there = torch.cuda.device_count() if device.type == "cuda" else joblib.cpu_count()
    if devices > there:
        kind = "CUDA device" if device.type == "cuda" else "processor core"
        raise ConfigError(
            f"setting 'devices' is {devices}, but there {'is' if there == 1 else 'are'} {there} {kind}"
            f"{'' if there == 1 else 's'}. Set devices to {there} or less."
        )
    if find_spec("lightning_fabric") is None:
        raise ConfigError(
            f"setting 'devices' is {devices}, but training on several devices needs lightning-fabric: "
            "pip install 'phenohit[devices]', or set devices: 1."
        )


def train_on_devices(
    model: ImageModel,
    parts: list[tuple[ImageRows, sparse.csr_matrix]],
    *,
    seed: int,
    jobs: int,
    checkpoint: Path | None,
    identity: str,
    title: str,
) -> State:
    """Train the network of a model in place, on as many devices as its settings say.

    Parameters
    ----------
    model : ImageModel
        With its network.
    parts : list of (ImageRows, CSR matrix)
        Training rows and their labels, and validation rows where they choose the epoch. Tasks are those fitted.
    seed : int
    jobs : int
        Processor cores, shared among the devices.
    checkpoint, identity, title
        See `phenohit.models.fit.train`.

    Raises
    ------
    PhenoHitError
        What one device's process met, as if there were one device.
    RunError
        If such a process failed otherwise.
    """
    devices = model.settings.devices
    assert model.net is not None
    with tempfile.TemporaryDirectory(prefix="phenohit-devices-") as name, _tidy():
        from lightning_fabric import Fabric  # sets a variable
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment

        folder = Path(name)
        # By file and not through shared memory, of which a container may have 64 MB.
        model.save(folder / "begin.safetensors")
        fabric = Fabric(
            accelerator="cuda" if model.device.type == "cuda" else "cpu", devices=devices, strategy="ddp_spawn",
            plugins=[LightningEnvironment()],  # whatever cluster this machine belongs to
        )  # fmt: skip
        task = _Task(
            type(model), folder, parts, seed, max(jobs // devices, 1), checkpoint, identity, title,
            log.getEffectiveLevel(),
        )  # fmt: skip
        with _told() as said:
            try:
                fabric.launch(partial(_work, task=task, said=said))
            except Exception as error:
                raise _understood(folder, error) from error
        arrays, meta = read_tensors(folder / "end.safetensors", "trained")
    model.net.load_state_dict({n: torch.from_numpy(a) for n, a in arrays.items()})
    model.net.eval()
    return State(**meta["state"])


@dataclass(frozen=True)
class _Task:
    """What every process is given."""

    model: type[ImageModel]
    folder: Path
    parts: list[tuple[ImageRows, sparse.csr_matrix]]
    seed: int
    jobs: int
    checkpoint: Path | None
    identity: str
    title: str
    level: int


def _work(fabric: Any, task: _Task, said: Any) -> None:
    """Train in one of the processes; its first error is left in a file."""
    rank = fabric.global_rank
    log.addHandler(QueueHandler(said))
    log.setLevel(logging.ERROR if rank else task.level)  # what all have to say, one says
    try:
        torch.set_num_threads(task.jobs)
        model = task.model.load(task.folder / "begin.safetensors")
        assert model.net is not None
        feeds = [model.feed(data, Y, task.jobs, (rank, fabric.world_size)) for data, Y in task.parts]
        held = feeds[1] if len(feeds) > 1 and len(feeds[1]) else None
        plan = model.plan(held is not None)
        trainer = _Shared(fabric, model.seen(), feeds[0], held, plan, task.seed, task.checkpoint, task.identity)
        state = complete(trainer, "" if rank else task.title, by_step=True)
        if rank == 0:
            arrays = {n: t.detach().cpu().contiguous().numpy() for n, t in model.net.state_dict().items()}
            write_tensors(task.folder / "end.safetensors", arrays, {"kind": "trained", "state": asdict(state)})
    except Exception as error:
        _leave(task.folder, rank, error)
        raise


class _Shared(_Trainer):
    """A training that this process has a share of; see `phenohit.models.fit.train`."""

    def __init__(
        self,
        fabric: Any,
        net: nn.Module,
        data: Feed,
        valid: Feed | None,
        plan: Plan,
        seed: int,
        checkpoint: Path | None,
        identity: str,
    ) -> None:
        chosen = valid if plan.patience or plan.keep_best else None
        super().__init__(net, data, chosen, plan, seed, checkpoint, identity)
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.net = fabric.setup_module(net)  # adds gradients up over the devices as they come

    def summed(self, x: Tensor) -> Tensor:
        """Return the sum over all devices, in place; Fabric's own would make the processor wait in every step."""
        if self.world > 1:
            torch.distributed.all_reduce(x)
        return x

    def resume(self) -> None:
        """Go on from the checkpoint, all from the same place."""
        super().resume()
        here = torch.tensor([self.state.epoch, self.state.step], dtype=torch.float64, device=self.device)
        if not torch.equal(self.summed(here.clone()), here * self.world):
            raise RunError(f"The devices cannot all read the checkpoint '{self.checkpoint}'. Remove it and run again.")

    def save(self) -> None:
        """Write the checkpoint, once."""
        if self.rank == 0:
            super().save()

    def noise(self) -> torch.Generator:
        """Return what a network draws a step's noise from: other noise on each device."""
        return generator(self.device, self.seed, self.state.epoch, self.state.step, 2, self.rank)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return this device's share of the mean over the entries of all: gradients are averaged over the devices."""
        own = masked_cross_entropy(logits, batch.entry, batch.y, reduction="sum")
        return own * (self.world / max(batch.whole, 1))

    def step(self, batch: Batch) -> Tensor:
        """Descend once along the gradient of a whole batch; its loss."""
        return self.summed(super().step(batch).detach()) / self.world

    def gathered(self, total: Tensor, scores: Scores, valid: Feed) -> tuple[Tensor, Scores]:
        """Return sum of losses and probabilities of the validation samples of all devices."""
        found: Scores = []
        for start, (samples, own) in zip(range(0, len(valid), valid.block), scores, strict=bool(scores)):
            order = np.arange(start, min(start + valid.block, len(valid)))
            whole = torch.zeros((len(order), own.shape[1]), device=self.device)
            whole[torch.from_numpy(samples - start)] = own[: len(samples)].to(self.device)
            found.append((order, self.summed(whole).cpu()))
        return self.summed(total), found


class _Here(logging.Handler):
    """Gives what a process said to the loggers of this one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Handle a line of the other process."""
        logging.getLogger(record.name).handle(record)


@contextmanager
def _told() -> Iterator[Any]:
    """Yield a queue; what comes in by it is logged here."""
    said = multiprocessing.get_context("spawn").Queue()
    listener = QueueListener(said, _Here())
    listener.start()
    try:
        yield said
    finally:
        listener.stop()
        said.close()


@contextmanager
def _tidy() -> Iterator[None]:
    """Leave neither processes nor variables behind, however the block ends."""
    before, running = dict(os.environ), set(multiprocessing.active_children())
    try:
        yield
    finally:
        for process in set(multiprocessing.active_children()) - running:
            process.kill()
            process.join()
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def _leave(folder: Path, rank: int, error: Exception) -> None:
    """Write an error down, unless another process did: the others only miss the one that failed first."""
    kind = type(error).__name__ if isinstance(error, PhenoHitError) else ""
    text = str(error) if kind else f"{type(error).__name__}: {error}"
    try:
        with (folder / "error.json").open("x", encoding="utf-8") as file:
            json.dump({"kind": kind, "text": text, "rank": rank}, file)
    except FileExistsError:
        return


def _understood(folder: Path, error: Exception) -> PhenoHitError:
    """Return what a process wrote down, as the error it was."""
    try:
        about = json.loads((folder / "error.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return RunError(
            f"Training on several devices ended: {(str(error).strip().splitlines() or [''])[-1][:300]}. Where a "
            "process was killed, the machine may have too little memory: lower batch or devices."
        )
    if about["kind"]:
        return getattr(errors, about["kind"], RunError)(about["text"])
    return RunError(f"Training failed on device {about['rank']}: {about['text'][:600]}")
