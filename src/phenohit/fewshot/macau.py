"""The few labels of an assay as one more column of a Bayesian matrix factorisation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch.special import log_ndtr, ndtr

from phenohit.data.labels import Labels
from phenohit.data.matrix import take_rows
from phenohit.data.profiles import Profiles
from phenohit.errors import FileError
from phenohit.fewshot.episodes import Episodes
from phenohit.fewshot.macau_latents import Compounds, Priors, assay_priors
from phenohit.fewshot.simple import SOFT, share
from phenohit.models.contract import check_pair, cores, not_fitted, read_settings, require
from phenohit.models.fit import threads
from phenohit.models.macau import Macau as Factorisation
from phenohit.models.macau_settings import MacauSettings
from phenohit.progress import track

__all__ = ["FewMacauSettings", "Macau", "expectation_propagation"]

_BYTES = 128 << 20  # memory of a batch of episodes
_UPDATES = 12  # of all sites at once; the last change is below 1e-4 of a standard deviation


@dataclass(frozen=True)
class FewMacauSettings(MacauSettings):
    """Settings of `Macau`: those of `phenohit.models.macau`, with a smaller chain.

    Parameters
    ----------
    latent : int
        Latent dimensions: a few labels cannot tell many of them apart.
    sweeps, burn_in, keep : int
        See `phenohit.models.macau_settings.MacauSettings`, as of all others.
    device : {"cpu", "cuda"}
        Where the chain is sampled. Episodes are scored on cuda where there is one.
    assay_features : str
        Must be empty: nothing is known of the assay that a support is of.
    """

    latent: int = 16
    sweeps: int = 400
    burn_in: int = 200
    keep: int = 50
    held_out: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.assay_features, "assay_features", self.assay_features, "empty: a new assay has no features")


class Macau:
    """Learns an assay as one more column of the factorisation of all training tasks.

    Parameters
    ----------
    **settings
        See `FewMacauSettings`.

    Notes
    -----
    `pretrain` samples a `phenohit.models.macau.Macau` from the training tasks, with the profiles as side information.
    In each kept sweep the compounds' latent vectors follow from their profiles and their labels in *training* tasks,
    and the latent vector of a new assay has the prior of that sweep's assays. Given a support, its posterior is
    that of a Bayesian linear model: exact for values (likelihood gaussian), by expectation propagation (Minka 2001)
    for hidden values (probit). Scores are the means, over the kept sweeps, of the probability of being active.

    What is not known of a compound's vector adds to the noise of its hidden value, with the assay's vector at its
    prior. The assay's constant is the factorisation's own rule for assays: the normal quantile of its share of
    actives, drawn to that of all by one measurement; the support may move it (standard deviation 1).

    Neglected: a support says nothing about the compounds' vectors, nor about the sweeps' hyperparameters, for which the
    chain would have to be sampled anew for every episode; no label of an episode gets into another.
    """

    name: ClassVar[str] = "macau"
    sees: ClassVar[str] = "profiles"
    pretrains: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        self.settings = read_settings(FewMacauSettings, settings, self.name)
        self.model: Factorisation | None = None

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
        """Factorise the training tasks; see `contract.Method.pretrain`."""
        del valid, sizes, query  # nothing is chosen by other tasks, and any size will do
        check_pair(data, labels)
        model = Factorisation(**asdict(self.settings))
        self.model = model.fit(data, labels, seed=seed, run=run, jobs=jobs)
        return self

    def score(
        self, data: Profiles, episodes: Sequence[Episodes], *, seed: int = 0, jobs: int = 1
    ) -> list[NDArray[np.float32]]:
        """Return mean probabilities over the kept sweeps; see `contract.Method.score`."""
        del seed  # what is drawn belongs to the chain
        if self.model is None or self.model.known is None:
            raise not_fitted(self.name)
        self.model.known.require(data)
        if self.model.posterior is None:  # no task had both classes
            return [np.repeat(share(e.y_support)[:, None], e.query.shape[1], 1).astype(np.float32) for e in episodes]
        known, at = self.model.known_labels(data)
        priors = assay_priors(self.model.posterior, self.model.seed)
        found = [np.zeros(e.query.shape, np.float32) for e in episodes]
        of_task: dict[str, list[int]] = {}
        for i, e in enumerate(episodes):
            of_task.setdefault(e.task, []).append(i)
        with threads(cores(jobs)), threadpool_limits(cores(jobs)):
            for items in track(of_task.values(), "macau: tasks"):
                rows = np.unique(np.concatenate([episodes[i].support.ravel() for i in items] + [
                    episodes[i].query.ravel() for i in items
                ]))  # fmt: skip
                part = None if known is None else known[rows]
                compounds = Compounds.of(
                    self.model.posterior, take_rows(data.X, rows), part, at[rows], priors, self.model.seed
                )
                for i in items:
                    e = episodes[i]
                    place = np.searchsorted(rows, e.support), np.searchsorted(rows, e.query)
                    found[i] = self._column(compounds, priors, *place, e.y_support)
        return found

    def _column(
        self, c: Compounds, priors: Priors, support: NDArray[Any], query: NDArray[Any], y: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Probabilities (E, Q) of queries, given supports that number rows of `c`."""
        assert self.model is not None
        assert self.model.posterior is not None
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        probit = bool(self.model.posterior.binary.any())
        centre = torch.from_numpy(self._constant(y, probit))
        D, K = c.mean.shape[0], c.mean.shape[2] + 1
        M, Q = support.shape[1], query.shape[1]
        step = max(1, int(_BYTES // (8 * D * (3 * M * K + 2 * Q * K + 4 * K * K))))
        score = np.zeros(query.shape, np.float32)
        for a in range(0, len(y), step):
            part = slice(a, a + step)
            X, extra = c.rows(support[part], device)
            label = torch.from_numpy(y[part]).to(device, torch.float64)[:, None, :]
            P, first = priors.of(centre[part].to(device), device)
            if probit:
                v, L = expectation_propagation(X, 2 * label - 1, 1 + extra, P, first)
                own, cut = 1.0, 0.0
            else:
                own, cut = priors.noise(device)[None, :, None], 0.5
                v, L = _posterior(X, 1 / (own + extra), label / (own + extra), P, first)
            X, extra = c.rows(query[part], device)
            mean = (X @ v[..., None])[..., 0]
            spread = torch.linalg.solve_triangular(L, X.mT, upper=False).square().sum(-2)
            p = ndtr((mean - cut) / (own + extra + spread).sqrt()).mean(1)
            score[part] = p.clamp(SOFT, 1 - SOFT).cpu().numpy()
        return score

    def _constant(self, y: NDArray[np.bool_], probit: bool) -> NDArray[np.float64]:
        """Return the constant of every episode's assay, by the factorisation's own rule, shape (E,)."""
        assert self.model is not None
        every, n = float(self.model.labels.data.mean()), y.shape[1]
        centre = self.model.settings.centre
        if centre == "none":
            return np.zeros(len(y))
        mean = np.full(len(y), every) if centre == "global" else (y.sum(1) + every) / (n + 1)
        return torch.special.ndtri(torch.from_numpy(mean)).numpy() if probit else mean

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the factorisation, as `phenohit.models.macau.Macau.save` does; see `contract.Method.save`."""
        if self.model is None:
            raise not_fitted(self.name)
        self.model.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote, or the model of a screen; see `contract.Method.load`."""
        model = Factorisation.load(path)
        if model.values.any() or model.settings.assay_features:
            raise FileError(f"'{path}' holds a factorisation of values or with features of assays. Pretrain anew.")
        method = cls(**asdict(model.settings))
        method.model = model
        return method


def _posterior(
    X: torch.Tensor, tau: torch.Tensor, nu: torch.Tensor, P: torch.Tensor, first: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean, and Cholesky factor of the precision, of v with prior N(first, P^-1) and sites ``nu f - tau f^2 / 2``."""
    L = torch.linalg.cholesky(P + X.mT @ (tau[..., None] * X))
    right = (P @ first[..., None]) + X.mT @ nu[..., None]
    return torch.cholesky_solve(right, L)[..., 0], L


def expectation_propagation(
    X: torch.Tensor, side: torch.Tensor, noise: torch.Tensor, P: torch.Tensor, first: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Approximate the posterior of v where ``side = sign(X v + e)``, by expectation propagation (Minka 2001).

    Parameters
    ----------
    X : float64 tensor, shape (..., M, K)
    side : float64 tensor, shape (..., M)
        1 or -1.
    noise : float64 tensor, shape (..., M)
        Variances of e.
    P, first : float64 tensors, shapes (..., K, K) and (..., K)
        Precision and mean of the prior.

    Returns
    -------
    mean : float64 tensor, shape (..., K)
    factor : float64 tensor, shape (..., K, K)
        L, where ``L L'`` is the precision.

    Notes
    -----
    All sites are updated at once, a fixed number of times, so that no problem depends on another. The likelihood is
    log-concave: sites are proper, and nothing needs to be caught. Formulas: Rasmussen & Williams 2006, section 3.6.
    """
    tau, nu = torch.zeros_like(noise), torch.zeros_like(noise)
    mean, L = _posterior(X, tau, nu, P, first)
    for _ in range(_UPDATES):
        h = (X @ mean[..., None])[..., 0]
        g = torch.linalg.solve_triangular(L, X.mT, upper=False).square().sum(-2)
        free = g / (1 - tau * g).clamp(min=1e-9)  # without the site's own part
        along = free * (h / g - nu)
        scale = (noise + free).rsqrt()
        z = side * along * scale
        ratio = torch.exp(-0.5 * z.square() - 0.5 * np.log(2 * np.pi) - log_ndtr(z))
        slope, bend = side * ratio * scale, ratio * (z + ratio) * scale.square()
        left = 1 - bend * free
        tau, nu = 0.1 * tau + 0.9 * bend / left, 0.1 * nu + 0.9 * (slope + along * bend) / left
        mean, L = _posterior(X, tau, nu, P, first)
    return mean, L
