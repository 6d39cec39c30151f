"""What is followed while Macau samples: some entries' predictions, the precisions, and labels that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtr
from scipy.stats import rankdata

from phenohit.models.macau_sampler import Sampler

__all__ = ["PRECISIONS", "HeldOut", "Watched", "diagnostics", "progress"]

PRECISIONS = ("noise precision", "link precision", "link precision of assays")
ERRORS = ("held-out RMSE", "held-out AUC")
_LABELS, _MOST, _LEAST = 100, 2000, 50  # labels of an assay to hold some out; held out in all: at most, and at least
_SHOWN = 8  # entries in `progress`
_ENOUGH = 10  # sweeps after burn-in, of a chain or half of one, below which its halves cannot be compared


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
        return cls(*_places(Y, chosen))

    def products(self, chain: Sampler) -> NDArray[np.float32]:
        """Return u'v of every entry in the chain's state, (E,)."""
        return _products(chain, self.rows, self.tasks)


def _places(Y: Any, chosen: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows = np.searchsorted(Y.indptr, chosen, side="right") - 1
    return rows.astype(np.intp), Y.indices[chosen].astype(np.intp)


def _products(chain: Sampler, rows: NDArray[np.intp], tasks: NDArray[np.intp]) -> NDArray[np.float32]:
    device = chain.device
    U, V = chain.modes[0].latent[device.index(rows)], chain.modes[1].latent[device.index(tasks)]
    return device.kept((U * V).sum(1))


@dataclass(eq=False)
class HeldOut:
    """Labels that are not trained on, and how well they are predicted so far.

    Attributes
    ----------
    rows, tasks : int (E,)
    label : float32 (E,)
    total : float64 (E,)
        Sum of the predictions of the sweeps after burn-in, of which there were `sweeps`.
    """

    rows: NDArray[np.intp]
    tasks: NDArray[np.intp]
    label: NDArray[np.float32]
    total: NDArray[np.float64]
    sweeps: int = 0

    @classmethod
    def of(cls, Y: Any, compounds: Sequence[str], share: float, seed: int) -> tuple[Self, Any]:
        """Draw a share of the labels of assays with many; return them, and the others.

        Parameters
        ----------
        Y : CSR (N, T)
        compounds : sequence of str, length N
            Wells of a compound have the same labels: they are held out together.
        share : float
        seed : int

        Notes
        -----
        Less than 50 say nothing: then none are held out.
        """
        T = Y.shape[1]
        codes = pd.factorize(np.asarray(compounds, dtype=object))[0].astype(np.int64)
        label = np.repeat(codes, np.diff(Y.indptr)) * T + Y.indices  # of a compound in an assay
        different = np.unique(label)
        many = different[np.bincount(different % T, minlength=T)[different % T] >= _LABELS]
        n = min(int(share * len(many)), _MOST)
        drawn = np.random.default_rng([seed, 8]).permutation(many)[: n if n >= _LEAST else 0]
        chosen = np.flatnonzero(np.isin(label, drawn))
        rows, tasks = _places(Y, chosen)
        held = cls(rows, tasks, Y.data[chosen].astype(np.float32), np.zeros(len(chosen)))
        if not len(chosen):
            return held, Y
        left = np.setdiff1d(np.arange(Y.nnz), chosen, assume_unique=True)
        start = np.searchsorted(left, Y.indptr)
        return held, sparse.csr_matrix((Y.data[left], Y.indices[left], start), shape=Y.shape)

    def anew(self) -> Self:
        """Return the same labels before the first sweep."""
        return type(self)(self.rows, self.tasks, self.label, np.zeros(len(self.label)))

    def errors(self, chain: Sampler, *, settled: bool) -> tuple[float, float]:
        """Return RMSE and AUC over all assays: of the mean of sweeps since burn-in, before it of this sweep alone.

        NaN where there is nothing to tell it from; the AUC is of labels of two classes only.
        """
        if not len(self.label):
            return np.nan, np.nan
        found = _products(chain, self.rows, self.tasks) + chain.values.offset[self.tasks].astype(float)
        found = np.where(chain.values.binary[self.tasks], ndtr(found), found)
        if settled:
            self.total, self.sweeps = self.total + found, self.sweeps + 1
            found = self.total / self.sweeps
        active = self.label > 0
        n = int(active.sum())
        auc = np.nan
        if 0 < n < len(active) and np.isin(self.label, (0, 1)).all():
            auc = (rankdata(found)[active].sum() - n * (n + 1) / 2) / (n * (len(active) - n))
        return float(np.sqrt(np.mean((found - self.label) ** 2))), float(auc)


def progress(traces: NDArray[np.float32], entries: list[str], burn_in: int) -> pd.DataFrame:
    """Return precisions, held-out errors and some entries, sweep by sweep.

    Parameters
    ----------
    traces : float32 (chains, sweeps, E + 5)
        Of entries, then the precisions, then the errors.
    entries : list of str, length E
    burn_in : int

    Returns
    -------
    DataFrame
        ``series`` (chain, from 1), ``step`` (sweep, from 1), ``what``, ``value``, ``used`` (after burn-in). What
        never changes is left out.
    """
    empty = pd.DataFrame(columns=["series", "step", "what", "value", "used"])
    if not traces.size:
        return empty
    E = len(entries)
    columns = [E + 3, E + 4, E, E + 1, E + 2, *np.unique(np.linspace(0, E - 1, min(E, _SHOWN)).astype(int))]
    names = [*entries, *PRECISIONS, *ERRORS]
    shown = [i for i in columns if np.isfinite(traces[..., i]).any() and np.ptp(traces[..., i]) > 0]
    chains, sweeps = traces.shape[:2]
    step = np.arange(1, sweeps + 1)
    parts = [
        pd.DataFrame(
            {"series": c + 1, "step": step, "what": names[i], "value": traces[c, :, i], "used": step > burn_in}
        )
        for i in shown
        for c in range(chains)
    ]
    return pd.concat(parts, ignore_index=True) if parts else empty


def diagnostics(traces: NDArray[np.float32], entries: list[str], burn_in: int) -> pd.DataFrame:
    """Return R-hat and effective sample size of entries and precisions; see `progress` for the parameters.

    Returns
    -------
    DataFrame
        ``what``, ``rhat`` (rank-normalised split R-hat) and ``ess`` (bulk effective sample size) of the sweeps after
        burn-in (Vehtari et al. 2021, doi 10.1214/20-BA1221). What never changes is left out; after few sweeps, all.
    """
    from arviz_stats.base.array import array_stats

    used = traces[:, burn_in:, : len(entries) + len(PRECISIONS)]
    if len(used) == 1:  # one chain is compared with itself: its first half with its second
        half = used.shape[1] // 2
        used = np.concatenate([used[:, :half], used[:, half : 2 * half]])
    if used.shape[1] < _ENOUGH:
        return pd.DataFrame(columns=["what", "rhat", "ess"])
    moving = used.std(axis=(0, 1)) > 0
    rows = {"what": np.array([*entries, *PRECISIONS])[moving]}
    for column, of in (("rhat", array_stats.rhat), ("ess", array_stats.ess)):
        rows[column] = np.array([of(used[:, :, i], chain_axis=0, draw_axis=1) for i in np.flatnonzero(moving)])
    return pd.DataFrame(rows)
