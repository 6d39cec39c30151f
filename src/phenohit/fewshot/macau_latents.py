"""What the kept sweeps of a Macau chain say about compounds, and about an assay that is new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from phenohit.models.macau_conditionals import draw_normal_wishart
from phenohit.models.macau_posterior import Kept, Posterior, Sweep, Warm
from phenohit.models.macau_side import Side

__all__ = ["Compounds", "Priors", "assay_priors"]

_ROWS = 512  # compounds whose latent vectors are made at a time
_BASE = 1.0  # prior standard deviation of an assay's constant around the rule that the factorisation has for it


@dataclass(frozen=True, eq=False)
class Priors:
    """Prior of a new assay's latent vector in each of D kept sweeps.

    Attributes
    ----------
    mean : float64 (D, K)
    precision : float64 (D, K, K)
    variance : float64 (D,)
        Noise of values.
    """

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    variance: NDArray[np.float64]

    def second(self) -> NDArray[np.float64]:
        """Return the expected ``v v'``, shape (D, K, K)."""
        return np.linalg.inv(self.precision) + self.mean[:, :, None] * self.mean[:, None, :]

    def of(self, centre: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return precision (1, D, K + 1, K + 1) and mean (E, D, K + 1) with the constant as last dimension."""
        D, K = self.mean.shape
        P = torch.zeros(1, D, K + 1, K + 1, dtype=torch.float64, device=device)
        P[0, :, :K, :K] = torch.from_numpy(self.precision).to(device)
        P[0, :, K, K] = _BASE**-2
        first = torch.from_numpy(self.mean).to(device).expand(len(centre), D, K)
        return P, torch.cat([first, centre[:, None, None].expand(-1, D, 1)], 2)

    def noise(self, device: torch.device) -> torch.Tensor:
        """Return the noise of values, (D,)."""
        return torch.from_numpy(self.variance).to(device)


def assay_priors(posterior: Posterior, seed: int) -> Priors:
    """Draw mean and precision of the assays' latent vectors in each kept sweep, given those vectors.

    They are not kept with a sweep; this is the chain's own draw of them (Salakhutdinov & Mnih 2008, equation 14).
    """
    means, precisions = [], []
    for number, kept in enumerate(posterior.kept):
        V = kept.latent.astype(np.float64)
        rng = np.random.default_rng([seed, number, 7])
        mean, precision = draw_normal_wishart(len(V), V.sum(0), V.T @ V, rng)
        means.append(mean)
        precisions.append(precision)
    return Priors(np.stack(means), np.stack(precisions), np.array([float(k.variance.mean()) for k in posterior.kept]))


@dataclass(frozen=True, eq=False)
class Compounds:
    """Latent vectors of R compounds in each of D kept sweeps, given profiles and labels in training tasks.

    Attributes
    ----------
    mean : float32 (D, R, K)
    extra : float32 (D, R)
        Variance of ``v'u`` by what is not known of u, with v at its prior.
    """

    mean: NDArray[np.float32]
    extra: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        posterior: Posterior,
        X: Any,
        known: sparse.csr_matrix | None,
        ids: NDArray[np.int64],
        priors: Priors,
        seed: int,
    ) -> Self:
        """Find them.

        Parameters
        ----------
        posterior : Posterior
        X : features (R, F), as `Side` takes them
        known : CSR (R, T), optional
            Labels that were trained on.
        ids : int (R,)
            Where the rows stood in training: what is drawn for a row depends on its id and `seed` alone.
        priors : Priors
        seed : int

        Notes
        -----
        Exact for a compound without labels. For one with labels the mean is exact given its hidden values, and the
        variance is the mean over the sweeps of one draw's.
        """
        kept, R = posterior.kept, X.shape[0]
        mean = np.zeros((len(kept), R, len(kept[0].mean)), np.float32)
        extra = np.zeros((len(kept), R), np.float32)
        side = Side(X) if len(kept[0].link) else None
        second = priors.second().astype(np.float32)
        for a in range(0, R, _ROWS):
            b = min(a + _ROWS, R)
            some = None if known is None or not known[a:b].nnz else known[a:b]
            warm = None if some is None else Warm(posterior, some, ids[a:b], seed)
            _fill(kept, side, (a, b), warm, second, mean, extra)
        return cls(mean, extra)

    def rows(self, at: NDArray[np.intp], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return vectors with a constant (E, D, n, K + 1), and `extra` (E, D, n), of rows (E, n)."""
        E, n = at.shape
        D, _, K = self.mean.shape
        X = torch.ones(E, D, n, K + 1, dtype=torch.float64, device=device)
        X[..., :K] = torch.from_numpy(self.mean[:, at].swapaxes(0, 1)).to(device)
        return X, torch.from_numpy(self.extra[:, at].swapaxes(0, 1)).to(device, torch.float64)


def _fill(
    kept: list[Kept],
    side: Side | None,
    part: tuple[int, int],
    warm: Warm | None,
    second: NDArray[np.float32],
    mean: NDArray[np.float32],
    extra: NDArray[np.float32],
) -> None:
    """Fill in the rows a to b of means and extra variances."""
    a, b = part
    none = np.zeros(0, np.intp)
    drawn_extra = np.zeros(b - a, np.float32)
    for d, one in enumerate(kept):
        sweep = Sweep.of(one, none)
        M = np.tile(sweep.mean, (b - a, 1)) if side is None else side.times(a, b, sweep.link) + sweep.mean
        covariance = sweep.factor.T @ sweep.factor
        extra[d, a:b] = np.sum(covariance * second[d])
        if warm is not None:
            M, drawn = warm.condition(M, sweep)
            off = drawn - M
            drawn_extra += np.einsum("rk,kl,rl->r", off, second[d], off)
        mean[d, a:b] = M
    if warm is not None:
        extra[:, a:b][:, warm.labelled] = drawn_extra[warm.labelled] / len(kept)
