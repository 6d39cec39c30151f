"""Macau chains from first sweep to last: what is kept, followed and written down to go on from."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtri

from phenohit.errors import FileError
from phenohit.models.contract import cores, require, stored_settings
from phenohit.models.macau_cpu import Cpu
from phenohit.models.macau_follow import HeldOut, Watched
from phenohit.models.macau_posterior import Kept, Posterior
from phenohit.models.macau_sampler import Sampler
from phenohit.models.macau_settings import MacauSettings
from phenohit.models.macau_side import Side
from phenohit.models.macau_state import Mode, Noise, Values
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["CHECKPOINT_SECONDS", "Chain", "sample_chains"]

CHECKPOINT_SECONDS = 60.0  # a killed run loses at most this much sampling, and a sweep
log = logging.getLogger("phenohit")


class Chain:
    """Runs a sampler for a number of sweeps.

    Parameters
    ----------
    sampler : Sampler
        At its first sweep.
    settings : MacauSettings
    watched : Watched
    held : HeldOut
        Before its first sweep.
    checkpoint : path, optional
    identity : str
        Hash of data and settings; a checkpoint of another is not used.
    """

    def __init__(
        self,
        sampler: Sampler,
        settings: MacauSettings,
        watched: Watched,
        held: HeldOut,
        *,
        checkpoint: Path | None = None,
        identity: str = "",
    ) -> None:
        self.sampler, self.settings, self.watched, self.held = sampler, settings, watched, held
        self.checkpoint, self.identity = checkpoint, identity
        self.kept: list[Kept] = []
        self.traces: list[NDArray[np.float32]] = []  # one row per sweep: watched entries, the precisions, the errors
        self.saved = time.monotonic()
        self._resume()

    def run(self, title: str) -> None:
        """Do the sweeps that are left."""
        left = range(self.sampler.sweep_number + 1, self.settings.kept_sweeps[-1] + 1)
        with self.sampler.device:
            for number in track(left, title, note=self._note):
                self._sweep(number)

    def _note(self) -> str:
        """Tell how well the labels that are held out are predicted."""
        rmse, auc = self.traces[-1][-2:] if self.traces else (np.nan, np.nan)
        parts = [f"held-out {name} {value:.3f}" for name, value in (("RMSE", rmse), ("AUC", auc)) if np.isfinite(value)]
        return ", ".join(parts)

    def _sweep(self, number: int) -> None:
        self.sampler.sweep()
        errors = self.held.errors(self.sampler, settled=number > self.settings.burn_in)
        precisions = (self.sampler.noise.precision, *(m.link_precision for m in self.sampler.modes))
        self.traces.append(np.array([*self.watched.products(self.sampler), *precisions, *errors], np.float32))
        if number in self.settings.kept_sweeps:
            self.kept.append(Kept.of(self.sampler, np.float16 if self.settings.half else np.float32))
        if self.checkpoint is not None and time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
            self._save(self.checkpoint)
            self.saved = time.monotonic()

    def _save(self, path: Path) -> None:
        arrays = {**self.sampler.state(), "traces": np.stack(self.traces), "held out": self.held.total}
        for number, kept in enumerate(self.kept):
            arrays |= kept.arrays(number)
        meta = {"identity": self.identity, "sweep": self.sampler.sweep_number, "kept": len(self.kept)}
        write_tensors(path, arrays, {"kind": "checkpoint macau", **meta, "held out": self.held.sweeps})

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one of the same data and settings."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        try:
            arrays, meta = read_tensors(self.checkpoint, "checkpoint macau", {"traces": ("float32", 2)})
            if meta["identity"] != self.identity:
                log.info("checkpoint '%s' is of other data or settings, sampling begins anew", self.checkpoint)
                return
            kept = [Kept.restore(arrays, number) for number in range(int(meta["kept"]))]
            total, sweeps = arrays["held out"], int(meta["held out"])
            if total.shape != self.held.total.shape:
                raise ValueError("'held out' has another shape")
            self.sampler.restore(arrays, int(meta["sweep"]))
            self.kept, self.traces = kept, list(arrays["traces"])
            self.held.total, self.held.sweeps = total, sweeps
        except (FileError, KeyError, TypeError, ValueError) as error:
            log.warning("checkpoint '%s' cannot be used, sampling begins anew: %s", self.checkpoint, error)


def sample_chains(
    s: MacauSettings,
    X: Any,
    Y: Any,
    values: NDArray[np.bool_],
    assays: NDArray[np.float32] | None = None,
    *,
    compounds: Sequence[str],
    seed: int = 0,
    run: Path | None = None,
    jobs: int = 1,
) -> tuple[Posterior, NDArray[np.float32]]:
    """Sample all chains.

    Parameters
    ----------
    s : MacauSettings
    X : features (N, F), as `Side` takes them
    Y : CSR (N, T)
    values : bool (T,)
        Tasks that hold values.
    assays : (T, G), optional
        Features of the tasks.
    compounds : sequence of str, length N
    seed : int
    run : path, optional
        Folder for checkpoints.
    jobs : int

    Returns
    -------
    posterior : Posterior
    traces : float32 (chains, sweeps, E + 5)
        Of the entries of `Watched`, the precisions and the held-out errors.
    """
    binary = ~values if s.likelihood != "gaussian" else np.zeros(len(values), bool)
    watched, (N, T) = Watched.of(Y, seed), Y.shape
    held, train = HeldOut.of(Y, compounds, s.held_out, seed)
    if len(held.label):
        log.info("macau: %d of %d labels are held out, to follow the error", len(held.label), Y.nnz)
    offset = _offsets(train, binary, s.centre)
    data = Values.of(train, offset, binary)
    sides = Side(X), None if assays is None else Side(assays)
    place = np.asarray(train.indices)
    centred = (train.data - offset[place])[~binary[place]]
    variance = float(centred.var()) if len(centred) else 1.0
    identity = "" if run is None else _identity(s, seed, X, Y, assays)
    kept, traces = [], []
    for number in range(s.chains):
        modes = (
            Mode.begin(N, s.latent, sides[0], s.link_precision),
            Mode.begin(T, s.latent, sides[1], 5.0),
        )
        noise = Noise.begin(s.precision, s.noise == "adaptive", variance)
        sampler = Sampler(data, modes, noise, _device(s.device, jobs), seed=(seed, number), fixed_link=s.fixed_link)
        file = None if run is None else Path(run) / f"macau-{number}.checkpoint.safetensors"
        chain = Chain(sampler, s, watched, held.anew(), checkpoint=file, identity=identity)
        chain.run("macau: sweeps" if s.chains == 1 else f"macau: sweeps of chain {number + 1}")
        kept += chain.kept
        traces.append(np.stack(chain.traces))
    return Posterior(kept, offset, binary), np.stack(traces)


def _offsets(Y: Any, binary: NDArray[np.bool_], centre: str) -> NDArray[np.float32]:
    """Return what is subtracted from each assay: its mean, drawn towards that of all; a normal quantile for classes."""
    T = Y.shape[1]
    if centre == "none":
        return np.zeros(T, np.float32)
    n = np.bincount(Y.indices, minlength=T).astype(float)
    total = np.bincount(Y.indices, weights=Y.data, minlength=T)
    offset = np.zeros(T)
    for kind in (binary, ~binary):
        if kind.any():
            every = total[kind].sum() / n[kind].sum()
            offset[kind] = every if centre == "global" else (total[kind] + every) / (n[kind] + 1)
    offset[binary] = ndtri(offset[binary])
    return offset.astype(np.float32)


def _device(name: str, jobs: int) -> Any:
    """Return where to sample; refuses cuda where there is none."""
    if name == "cpu":
        return Cpu(cores(jobs))
    import torch

    require(torch.cuda.is_available(), "device", name, "cpu here: torch finds no CUDA device")
    from phenohit.models.macau_cuda import Cuda

    return Cuda(jobs=cores(jobs))


def _identity(settings: MacauSettings, seed: int, X: Any, Y: sparse.csr_matrix, assays: Any) -> str:
    """Hash of everything that decides the chain."""
    digest = hashlib.blake2b(json.dumps([stored_settings(settings), seed, X.shape]).encode(), digest_size=16)
    for start in range(0, X.shape[0], 16_384):
        digest.update(np.ascontiguousarray(X[start : start + 16_384]))
    for part in (Y.indptr, Y.indices, Y.data, *([] if assays is None else [assays])):
        digest.update(np.ascontiguousarray(part))
    return digest.hexdigest()
