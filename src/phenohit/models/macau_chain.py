"""A Macau chain from its first sweep to its last: what is kept, watched and written down to go on from."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phenohit.errors import FileError
from phenohit.models.macau_posterior import Kept
from phenohit.models.macau_sampler import Sampler
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["CHECKPOINT_SECONDS", "Chain", "Watched"]

CHECKPOINT_SECONDS = 60.0  # a killed run loses at most this much sampling, and a sweep
log = logging.getLogger("phenohit")


@dataclass(frozen=True, eq=False)
class Watched:
    """Entries whose predictions are followed from sweep to sweep.

    Attributes
    ----------
    rows, tasks : int (E,)
        Measured entries, drawn at random; what their products do tells whether the chain has settled.
    """

    rows: NDArray[np.intp]
    tasks: NDArray[np.intp]

    @classmethod
    def of(cls, Y: Any, seed: int) -> Self:
        """Draw at most 200 of the stored entries of a CSR matrix."""
        chosen = np.sort(np.random.default_rng([seed, 7]).permutation(Y.nnz)[:200])
        rows = np.searchsorted(Y.indptr, chosen, side="right") - 1
        return cls(rows, Y.indices[chosen].astype(np.intp))

    def products(self, chain: Sampler) -> NDArray[np.float32]:
        """Return u'v of every entry in the chain's state, (E,)."""
        U, V = chain.modes[0].latent[self.rows], chain.modes[1].latent[self.tasks]
        return chain.device.kept((U * V).sum(1))


class Chain:
    """Runs a sampler for a number of sweeps.

    Parameters
    ----------
    sampler : Sampler
        At its first sweep.
    kept_sweeps : list of int
        Numbers of the sweeps to keep, counted from 1; the last one ends the chain.
    watched : Watched
    dtype : float16 or float32
        Of what is kept.
    checkpoint : path, optional
    identity : str
        Hash of data and settings; a checkpoint of another is not used.
    """

    def __init__(
        self,
        sampler: Sampler,
        kept_sweeps: list[int],
        watched: Watched,
        dtype: Any,
        *,
        checkpoint: Path | None = None,
        identity: str = "",
    ) -> None:
        self.sampler, self.kept_sweeps, self.watched, self.dtype = sampler, kept_sweeps, watched, dtype
        self.checkpoint, self.identity = checkpoint, identity
        self.kept: list[Kept] = []
        self.traces: list[NDArray[np.float32]] = []  # one row per sweep: watched entries, then the precisions
        self.saved = time.monotonic()
        self._resume()

    def run(self, title: str) -> None:
        """Do the sweeps that are left."""
        with self.sampler.device:
            for number in track(range(self.sampler.sweep_number + 1, self.kept_sweeps[-1] + 1), title):
                self._sweep(number)

    def _sweep(self, number: int) -> None:
        self.sampler.sweep()
        self.traces.append(np.append(self.watched.products(self.sampler), self._precisions()))
        if number in self.kept_sweeps:
            self.kept.append(Kept.of(self.sampler, self.dtype))
        if self.checkpoint is not None and time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
            self._save(self.checkpoint)
            self.saved = time.monotonic()

    def _precisions(self) -> NDArray[np.float32]:
        return np.array([self.sampler.noise.precision, *(m.link_precision for m in self.sampler.modes)], np.float32)

    def _save(self, path: Path) -> None:
        arrays = {**self.sampler.state(), "traces": np.stack(self.traces)}
        for number, kept in enumerate(self.kept):
            arrays |= kept.arrays(number)
        meta = {"identity": self.identity, "sweep": self.sampler.sweep_number, "kept": len(self.kept)}
        write_tensors(path, arrays, {"kind": "checkpoint macau", **meta})

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
            self.sampler.restore(arrays, int(meta["sweep"]))
            self.kept, self.traces = kept, list(arrays["traces"])
        except (FileError, KeyError, TypeError, ValueError) as error:
            log.warning("checkpoint '%s' cannot be used, sampling begins anew: %s", self.checkpoint, error)
