"""Logistic regression on the support, with the penalty chosen within it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import softplus

from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError
from phenohit.fewshot.episodes import Episodes
from phenohit.fewshot.simple import FromSupport, gather, in_batches, stratified_folds
from phenohit.models.contract import cores, require
from phenohit.models.fit import threads

__all__ = ["Logistic", "LogisticSettings", "find_device", "fit_spans"]

_STEPS = 100  # Newton steps at most; ten are usual
_HALVINGS = 30
_ENOUGH = 1e-8  # decrement, relative to the value, after which no further step is made


@dataclass(frozen=True)
class LogisticSettings:
    """Settings of `Logistic`.

    Parameters
    ----------
    C : list[float]
        Inverse strengths of the penalty to choose from, as in scikit-learn; one: nothing is chosen. Default: the grid
        of the published benchmark.
    folds : int
        Folds of the support by whose log loss C is chosen; 3 at most where the support is 8 or smaller, and never more
        than the smaller class has members. A support with one active or one inactive gets the smallest C.
    device : {"auto", "cpu", "cuda"}
        Auto is cuda where there is one.
    """

    C: list[float] = field(default_factory=lambda: [0.01, 0.1, 1.0, 10.0, 100.0])
    folds: int = 5
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        numbers = all(isinstance(c, (int, float)) and 0 < c < float("inf") for c in self.C)
        require(bool(self.C) and numbers, "C", self.C, "a list of numbers above 0")
        require(self.folds >= 2, "folds", self.folds, "at least 2")


class Logistic(FromSupport):
    """Logistic regression with an L2 penalty on the support of every episode.

    Parameters
    ----------
    **settings
        See `LogisticSettings`.

    Notes
    -----
    The same minimum as scikit-learn's ``LogisticRegression``; C is chosen as by ``GridSearchCV`` with
    ``neg_log_loss`` (the published benchmark chose it by accuracy, and scored calls). No random numbers are used.
    """

    name: ClassVar[str] = "logistic"
    Settings = LogisticSettings

    def score(
        self, data: Profiles, episodes: Sequence[Episodes], *, seed: int = 0, jobs: int = 1
    ) -> list[NDArray[np.float32]]:
        """Return probabilities; see `contract.Method.score`."""
        del seed
        self.require(data)
        s, X, F = self.settings, data.X, data.X.shape[1]
        device = find_device(s.device)

        def learn(support: NDArray[np.intp], y: NDArray[np.bool_], query: NDArray[np.intp]) -> NDArray[np.floating]:
            S = torch.from_numpy(gather(X, support)).to(device, torch.float64)
            Q = torch.from_numpy(gather(X, query)).to(device, torch.float64)
            K, K_query = S @ S.mT, Q @ S.mT
            del S, Q
            target = torch.from_numpy(y).to(device, torch.float64)
            C = torch.as_tensor(self._choose(K, target, y), device=device)
            a, b = fit_spans(K, target, torch.ones_like(target), C)
            return torch.sigmoid((K_query @ a[:, :, None])[:, :, 0] + b[:, None]).cpu().numpy()

        def cost(m: int, q: int) -> float:
            return max(12.0 * (m + q) * F, 8 * 4 * s.folds * m * m)

        with threads(cores(jobs)):
            return in_batches(episodes, learn, cost, "logistic: episodes")

    def _choose(self, K: torch.Tensor, target: torch.Tensor, y: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the C of every episode."""
        grid = np.sort(np.asarray(self.settings.C, np.float64))
        if len(grid) == 1:
            return np.full(len(y), grid[0])
        fold = stratified_folds(y, self.settings.folds)
        loss = np.zeros((len(y), len(grid)))
        folds = [f for f in range(fold.max() + 1) if f >= 0]
        start: Any = None
        apart = torch.from_numpy(np.stack([fold == f for f in folds], 1)).to(K) if folds else None  # (E, folds, M)
        if apart is None:
            return np.full(len(y), grid[0])
        E, n, M = apart.shape
        wide = {"K": K.repeat_interleave(n, 0), "y": target.repeat_interleave(n, 0), "w": 1 - apart.reshape(E * n, M)}
        for j, C in enumerate(grid):  # ascending: each minimum is near the last one
            a, b = fit_spans(wide["K"], wide["y"], wide["w"], torch.full((E * n,), C).to(K), start)
            start = (a, b)
            eta = ((wide["K"] @ a[:, :, None])[:, :, 0] + b[:, None]).reshape(E, n, M)
            each = softplus((1 - 2 * target[:, None]) * eta)
            count = apart.sum(2)
            mean = (each * apart).sum(2) / count.clamp(min=1)
            loss[:, j] = (mean.sum(1) / (count > 0).sum(1).clamp(min=1)).cpu().numpy()
        return grid[loss.argmin(1)]  # the first, hence smallest, of equals


def fit_spans(
    K: torch.Tensor,
    y: torch.Tensor,
    w: torch.Tensor,
    C: torch.Tensor,
    start: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimise ``a'Ka / 2 + C sum w (log(1 + exp(f)) - y f)``, ``f = Ka + b``, for many supports at once.

    Parameters
    ----------
    K : float64 tensor, shape (B, M, M)
        Products of the support's features. Coefficients are ``X'a``: they lie in the span of the support.
    y, w : float64 tensors, shape (B, M)
        1 for active; 1 where a member is learned from, 0 where it is held out. Both classes are learned from.
    C : float64 tensor, shape (B,)
    start : pair of tensors, optional
        Where to begin.

    Returns
    -------
    a, b : float64 tensors, shapes (B, M) and (B,)
        `a` is 0 where `w` is.

    Notes
    -----
    Newton's method with step halving. With ``D = C w p (1 - p) = S^2``, systems are those of ``I + S K S`` (Rasmussen &
    Williams 2006, algorithm 3.1), whose eigenvalues are at least 1 however separable the classes are. A problem that
    is at its minimum is left out of further steps.
    """
    B = len(y)
    if start is None:
        rate = ((w * y).sum(1) / w.sum(1)).clamp(1e-3, 1 - 1e-3)
        a, b = torch.zeros_like(y), torch.log(rate / (1 - rate))
    else:
        a, b = start[0].clone(), start[1].clone()
    left, k = torch.arange(B, device=y.device), K
    for _ in range(_STEPS):
        c, label = C[left, None] * w[left], y[left]
        now = _State.of(k, a[left], b[left], c, label)
        da, db, decrement = _step(k, now, c, label)
        size = _halve(k, now, da, db, decrement, c, label)
        a[left] += size[:, None] * da
        b[left] += size * db
        # What is left after a step is of the order of the square of what was gained by it.
        going = (decrement > _ENOUGH * now.value) & (size > 0)
        if not going.all():
            left, k = left[going], k[going]
        if not len(left):
            break
    return a, b


@dataclass
class _State:
    """Where a search stands: coefficients, ``Ka``, and the value that is minimised."""

    a: torch.Tensor
    b: torch.Tensor
    along: torch.Tensor
    value: torch.Tensor

    @classmethod
    def of(cls, K: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, y: torch.Tensor) -> _State:
        along = _times(K, a)
        return cls(a, b, along, _value(a, along, along + b[:, None], c, y))


def _times(K: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (K @ v[:, :, None])[:, :, 0]


def _value(a: torch.Tensor, along: torch.Tensor, eta: torch.Tensor, c: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 0.5 * (a * along).sum(1) + (c * softplus((1 - 2 * y) * eta)).sum(1)


def _step(
    K: torch.Tensor, now: _State, c: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Newton's step of `a` and `b`, and the decrement: what is gained along it, at first order."""
    side = 2 * y - 1
    eta = side * (now.along + now.b[:, None])
    wrong = torch.sigmoid(-eta)  # |y - p|, with all its digits where it is tiny
    pull = c * side * wrong
    S = torch.sqrt(c * wrong * torch.sigmoid(eta)).clamp(min=1e-150) * (c > 0)
    system = (S[:, :, None] * S[:, None, :]).mul_(K)
    system.diagonal(dim1=1, dim2=2).add_(1)
    L = torch.linalg.cholesky(system)
    r = pull - now.a
    right = torch.stack([S * _times(K, r), S], 2)
    solved = torch.cholesky_solve(right, L)
    x = r - S * solved[:, :, 0]  # (I + DK)^-1 r
    z = S * solved[:, :, 1]  # (I + DK)^-1 of D's diagonal
    db = (now.a + x).sum(1) / z.sum(1).clamp(min=1e-300)  # so that the new `a` sums up to 0
    da = x - z * db[:, None]
    return da, db, (_times(K, da) * r).sum(1) + pull.sum(1) * db


def _halve(
    K: torch.Tensor,
    now: _State,
    da: torch.Tensor,
    db: torch.Tensor,
    decrement: torch.Tensor,
    c: torch.Tensor,
    y: torch.Tensor,
) -> torch.Tensor:
    """Return how much of the step lowers the value enough; 0 where nothing does in this precision."""
    further = _times(K, da)
    size, rounding = torch.ones_like(decrement), 1e-14 * now.value
    short = torch.zeros_like(decrement, dtype=torch.bool)
    for _ in range(_HALVINGS):
        a, along = now.a + size[:, None] * da, now.along + size[:, None] * further
        new = _value(a, along, along + (now.b + size * db)[:, None], c, y)
        short = ~(new <= now.value - 1e-4 * size * decrement + rounding)
        if not short.any():
            return size
        size = torch.where(short, size / 2, size)
    return torch.where(short, 0.0, size)


def find_device(wanted: str) -> torch.device:
    """Return the device that a setting names; auto is cuda where there is one.

    Raises
    ------
    ConfigError
        If it is cuda and there is none.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ConfigError("setting 'device' is 'cuda', but no CUDA device is found. Use device: auto or device: cpu.")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")
