"""The two simplest methods, and what all methods share that learn from the support alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError
from phenohit.fewshot.episodes import Episodes
from phenohit.models.contract import (
    Known,
    check_pair,
    cores,
    model_path,
    not_fitted,
    read_settings,
    require,
    restore_settings,
    stored_settings,
)
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = [
    "SOFT",
    "FromSupport",
    "Neighbours",
    "NeighboursSettings",
    "Rate",
    "RateSettings",
    "gather",
    "in_batches",
    "share",
    "stratified_folds",
]

Learn = Callable[[NDArray[np.intp], NDArray[np.bool_], NDArray[np.intp]], NDArray[np.floating]]
_BYTES = 256 << 20  # memory that a batch of episodes may take
SOFT = 1e-6  # probabilities stay this far from 0 and 1


class FromSupport:
    """A method that learns from the support of an episode and from nothing else.

    Subclasses set ``name`` and ``Settings`` and have `score`; see `contract.Method`.
    """

    name: ClassVar[str]
    sees: ClassVar[str] = "profiles"
    pretrains: ClassVar[bool] = False
    Settings: ClassVar[type]

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = read_settings(self.Settings, settings, self.name)
        self.known: Known | None = None

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
        """Remember the features; see `contract.Method.pretrain`."""
        del valid, sizes, query, seed, run, jobs  # other tasks have no part in it
        check_pair(data, labels)
        self.known = Known(list(data.features), [], np.zeros(0, np.float32), np.zeros(0, bool))
        return self

    def require(self, data: Profiles) -> None:
        """Refuse rows of other features than at `pretrain`.

        Raises
        ------
        RunError, ShapeError
        """
        if self.known is None:
            raise not_fitted(self.name)
        self.known.require(data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write settings and names of features; see `contract.Method.save`."""
        if self.known is None:
            raise not_fitted(self.name)
        meta = {"kind": f"few-shot {self.name}", "settings": stored_settings(self.settings), **self.known.meta()}
        write_tensors(model_path(path, self.name), self.known.arrays(), meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Method.load`."""
        path = model_path(path, cls.name)
        arrays, meta = read_tensors(path, f"few-shot {cls.name}", Known.FORM)
        method = cls()
        method.settings = restore_settings(cls.Settings, meta, cls.name, path)
        method.known = Known.restore(arrays, meta, path)
        return method


def share(y: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the smoothed active share of every support (E, M), shape (E,): Laplace's rule of succession."""
    return (y.sum(1) + 1) / (y.shape[1] + 2)


def stratified_folds(y: NDArray[np.bool_], folds: int) -> NDArray[np.intp]:
    """Deal the support to folds, class by class.

    Parameters
    ----------
    y : bool array, shape (E, M)
    folds : int
        At most; 3 at most where M is 8 or less (as published), and never more than the smaller class has members.

    Returns
    -------
    intp array, shape (E, M)
        Fold of every member; -1 throughout an episode that has only one active or one inactive.
    """
    active = y.sum(1)
    n = np.minimum(np.minimum(active, y.shape[1] - active), min(folds, 3) if y.shape[1] <= 8 else folds)[:, None]
    # Supports are in random order, so that no random numbers are needed. Inactives go on where actives ended.
    place = np.where(y, np.cumsum(y, 1) - 1, active[:, None] + np.cumsum(~y, 1) - 1)
    return np.where(n > 1, place % np.maximum(n, 1), -1)


def in_batches(
    episodes: Sequence[Episodes], learn: Learn, cost: Callable[[int, int], float], title: str
) -> list[NDArray[np.float32]]:
    """Score episodes in batches of one support size, of several tasks at a time.

    Parameters
    ----------
    episodes : sequence of Episodes
    learn : function
        From rows of supports (E, M), their labels (E, M) and rows of queries (E, Q) to probabilities (E, Q).
    cost : function
        From M and Q to the bytes that one episode takes.
    title : str
        For the progress.

    Returns
    -------
    list of float32 array (E, Q)
        Strictly within 0 to 1.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for i, one in enumerate(episodes):
        groups.setdefault((one.size, one.query.shape[1]), []).append(i)
    found: list[NDArray[np.float32]] = [np.zeros(one.query.shape, np.float32) for one in episodes]
    total = sum(-(-sum(len(episodes[i]) for i in items) // _step(cost, *key)) for key, items in groups.items())

    def parts() -> Any:
        for key, items in groups.items():
            of = [episodes[i] for i in items]
            support, query = np.concatenate([e.support for e in of]), np.concatenate([e.query for e in of])
            y = np.concatenate([e.y_support for e in of])
            score, step = np.empty(query.shape, np.float32), _step(cost, *key)
            for a in range(0, len(query), step):
                part = slice(a, a + step)
                score[part] = np.clip(learn(support[part], y[part], query[part]), SOFT, 1 - SOFT)
                yield
            ends = np.cumsum([len(e) for e in of])
            for i, of_item in zip(items, np.split(score, ends[:-1]), strict=True):
                found[i] = of_item

    for _ in track(parts(), title, total):
        pass
    return found


def _step(cost: Callable[[int, int], float], size: int, query: int) -> int:
    return max(1, int(_BYTES // cost(size, query)))


@dataclass(frozen=True)
class RateSettings:
    """Settings of `Rate`: none."""


class Rate(FromSupport):
    """The support's smoothed active share for every query: what ranks nothing, and is calibrated."""

    name: ClassVar[str] = "rate"
    Settings = RateSettings

    def score(
        self, data: Profiles, episodes: Sequence[Episodes], *, seed: int = 0, jobs: int = 1
    ) -> list[NDArray[np.float32]]:
        """Return (actives + 1) / (M + 2); see `contract.Method.score`."""
        del seed, jobs
        self.require(data)
        return [np.repeat(share(e.y_support)[:, None], e.query.shape[1], 1).astype(np.float32) for e in episodes]


@dataclass(frozen=True)
class NeighboursSettings:
    """Settings of `Neighbours`.

    Parameters
    ----------
    k : int
        Nearest support compounds that vote; all where there are fewer.
    distance : {"auto", "cosine", "euclidean", "tanimoto"}
        How near a compound is. Auto: Tanimoto where all features are 0 or 1, else cosine.
    prior : float
        Weight of the support's active share, in votes of similarity 1.
    """

    k: int = 10
    distance: Literal["auto", "cosine", "euclidean", "tanimoto"] = "auto"
    prior: float = 1.0

    def __post_init__(self) -> None:
        require(self.k >= 1, "k", self.k, "at least 1")
        require(0 < self.prior < float("inf"), "prior", self.prior, "a number above 0")


class Neighbours(FromSupport):
    """Vote of the nearest support compounds, each with its similarity as weight.

    Parameters
    ----------
    **settings
        See `NeighboursSettings`.

    Notes
    -----
    The score is ``(sum s_i y_i + prior * share) / (sum s_i + prior)`` over the `k` most similar: a query that is like
    none of the support gets the support's share. Similarities are the Tanimoto coefficient; the cosine, 0 where it is
    negative; or ``1 / (1 + d / m)`` of the Euclidean distance d, where m is the query's mean distance to the support.
    """

    name: ClassVar[str] = "neighbours"
    Settings = NeighboursSettings

    def score(
        self, data: Profiles, episodes: Sequence[Episodes], *, seed: int = 0, jobs: int = 1
    ) -> list[NDArray[np.float32]]:
        """Return the smoothed vote; see `contract.Method.score`."""
        del seed
        self.require(data)
        X, s, F = data.X, self.settings, data.X.shape[1]
        distance = s.distance
        if distance in ("auto", "tanimoto"):
            of_bits = _all_bits(X)
            if distance == "tanimoto" and not of_bits:
                raise ConfigError(
                    "setting 'distance' of method 'neighbours' is tanimoto, but the features are not all 0 or 1. "
                    "Use cosine, or fingerprints that are not standardised."
                )
            distance = "tanimoto" if of_bits else "cosine"

        def learn(support: NDArray[np.intp], y: NDArray[np.bool_], query: NDArray[np.intp]) -> NDArray[np.floating]:
            near = _similarity(gather(X, query), gather(X, support), distance)  # (E, Q, M)
            votes = np.broadcast_to(y[:, None, :], near.shape)
            if s.k < near.shape[2]:
                best = np.argpartition(-near, s.k - 1, axis=2)[:, :, : s.k]
                near, votes = np.take_along_axis(near, best, 2), np.take_along_axis(votes, best, 2)
            return ((near * votes).sum(2) + s.prior * share(y)[:, None]) / (near.sum(2) + s.prior)

        with threadpool_limits(cores(jobs)):
            return in_batches(
                episodes, learn, lambda m, q: 4.0 * (m + q) * (2 * F + 1) + 24 * m * q, "neighbours: episodes"
            )


def gather(X: Any, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return features of rows (E, M), shape (E, M, F); `X` may be packed."""
    return X[rows.ravel()].reshape(*rows.shape, X.shape[1])


def _all_bits(X: Any) -> bool:
    """Whether all features are 0 or 1."""
    step = max(1, (1 << 22) // max(X.shape[1], 1))
    blocks = (X[a : a + step] for a in range(0, len(X), step))
    return all(bool(((block == 0) | (block == 1)).all()) for block in blocks)


def _similarity(Q: NDArray[np.float32], S: NDArray[np.float32], distance: str) -> NDArray[np.float32]:
    """Similarities (E, Q, M), at least 0, of queries (E, Q, F) to supports (E, M, F)."""
    tiny = np.float32(1e-12)
    both = np.matmul(Q, S.transpose(0, 2, 1))
    q, s = np.einsum("eqf,eqf->eq", Q, Q)[:, :, None], np.einsum("emf,emf->em", S, S)[:, None, :]
    if distance == "tanimoto":
        return both / np.maximum(q + s - both, tiny)
    if distance == "cosine":
        return np.maximum(both / np.sqrt(np.maximum(q * s, tiny)), 0)
    apart = np.sqrt(np.maximum(q + s - 2 * both, 0))
    return 1 / (1 + apart / np.maximum(apart.mean(2, keepdims=True), tiny))
