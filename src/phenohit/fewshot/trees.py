"""Forests and boosted trees on the support of every episode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError
from phenohit.fewshot.episodes import Episodes
from phenohit.fewshot.simple import SOFT, FromSupport, gather, stratified_folds
from phenohit.models.contract import cores, require
from phenohit.progress import track

__all__ = ["Forest", "ForestSettings", "XGBoost", "XGBoostSettings"]

_BYTES = 32 << 20  # features that one call takes to a worker
# What the published benchmark draws from: czodrowskilab/FSL_CP, xgboost on the support.
_GRID: dict[str, tuple[float, ...]] = {
    "learning_rate": (1e-4, 1e-3, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5),
    "max_depth": (1, 3, 5, 7, 9),
    "n_trees": tuple(range(50, 501, 50)),
    "subsample": (0.5, 1.0),
}

One = Callable[[Any, NDArray[Any], NDArray[Any], NDArray[Any], int], NDArray[np.floating]]


@dataclass(frozen=True)
class ForestSettings:
    """Settings of `Forest`.

    Parameters
    ----------
    n_trees : int
    min_samples_leaf : int
        Compounds a leaf needs.
    """

    n_trees: int = 100
    min_samples_leaf: int = 1

    def __post_init__(self) -> None:
        require(self.n_trees >= 1, "n_trees", self.n_trees, "at least 1")
        require(self.min_samples_leaf >= 1, "min_samples_leaf", self.min_samples_leaf, "at least 1")


class Forest(FromSupport):
    """Random forest (scikit-learn's) on the support of every episode.

    Parameters
    ----------
    **settings
        See `ForestSettings`.

    Notes
    -----
    Mean leaf share over the trees, with the support's share as one tree more, so that no score is 0 or 1.
    """

    name: ClassVar[str] = "forest"
    Settings = ForestSettings

    def score(
        self, data: Profiles, episodes: Sequence[Episodes], *, seed: int = 0, jobs: int = 1
    ) -> list[NDArray[np.float32]]:
        """Return probabilities; see `contract.Method.score`."""
        self.require(data)
        return _each(_forest, self.settings, data.X, episodes, seed, jobs, self.name)


@dataclass(frozen=True)
class XGBoostSettings:
    """Settings of `XGBoost`.

    Parameters
    ----------
    preset : {"", "fslcp"}
        `fslcp` is the published benchmark: settings drawn at random, and ``min_child_weight`` 1, at which 8 compounds
        can hardly be split.
    n_trees, max_depth : int
        Few and shallow: a support is small.
    learning_rate : float
    min_child_weight : float
        Sum of ``p (1 - p)`` that a leaf needs; a compound adds a quarter at most.
    subsample, colsample : float
        Share of compounds and of features that a tree sees.
    search : int
        Random draws of learning rate, depth, trees and subsample from the published grid; the one of least log loss
        in 5 folds of the support is taken (3 at most where it is 8 or smaller). 0: none.
    """

    preset: Literal["", "fslcp"] = ""
    n_trees: int = 50
    max_depth: int = 2
    learning_rate: float = 0.1
    min_child_weight: float = 0.0
    subsample: float = 1.0
    colsample: float = 0.3
    search: int = 0

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "fslcp": {"search": 10, "min_child_weight": 1.0, "colsample": 1.0, "n_trees": 100, "max_depth": 6}
    }

    def __post_init__(self) -> None:
        for name in ("n_trees", "max_depth"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("learning_rate", "subsample", "colsample"):
            require(0 < getattr(self, name) <= 1, name, getattr(self, name), "above 0, at most 1")
        require(0 <= self.min_child_weight < float("inf"), "min_child_weight", self.min_child_weight, "at least 0")
        require(self.search >= 0, "search", self.search, "at least 0")


class XGBoost(FromSupport):
    """Gradient boosted trees (xgboost) on the support of every episode.

    Parameters
    ----------
    **settings
        See `XGBoostSettings`.

    Notes
    -----
    Probabilities are scored; the published benchmark scored calls, and its search chose by accuracy.
    """

    name: ClassVar[str] = "xgboost"
    Settings = XGBoostSettings

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        try:
            import xgboost  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "Method 'xgboost' needs the package xgboost, which is not installed. Install it with: "
                "pip install 'phenohit[boosting]', or leave the method out."
            ) from error

    def score(
        self, data: Profiles, episodes: Sequence[Episodes], *, seed: int = 0, jobs: int = 1
    ) -> list[NDArray[np.float32]]:
        """Return probabilities; see `contract.Method.score`."""
        self.require(data)
        return _each(_boosted, self.settings, data.X, episodes, seed, jobs, self.name)


def _each(
    one: One, settings: Any, X: Any, episodes: Sequence[Episodes], seed: int, jobs: int, name: str
) -> list[NDArray[np.float32]]:
    """Learn episode after episode, in several processes; a worker gets the rows of its episodes alone."""
    found = [np.zeros(e.query.shape, np.float32) for e in episodes]
    F = X.shape[1]
    parts: list[tuple[int, slice]] = []
    for i, e in enumerate(episodes):
        step = int(np.clip(_BYTES // (4 * F * (e.size + e.query.shape[1]) + 1), 1, 16))
        parts += [(i, slice(a, a + step)) for a in range(0, len(e), step)]

    def calls() -> Iterator[Any]:
        for i, part in parts:
            e = episodes[i].take(part)
            seeds = [_seed(seed, e, n) for n in range(len(e))]
            yield delayed(_some)(one, settings, gather(X, e.support), e.y_support, gather(X, e.query), seeds)

    pool = Parallel(n_jobs=cores(jobs), return_as="generator", max_nbytes=None)
    scores = track(pool(calls()), f"{name}: episodes", len(parts))
    for (i, part), score in zip(parts, scores, strict=True):
        found[i][part] = np.clip(score, SOFT, 1 - SOFT)
    return found


def _seed(seed: int, e: Episodes, n: int) -> int:
    """Seed of one episode, by what is in its support: whatever is scored beside it has no influence."""
    digest = hashlib.blake2b(f"{seed}\0{e.task}".encode(), digest_size=4)
    digest.update(e.support[n].astype(np.int64).tobytes() + e.y_support[n].tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1


def _some(
    one: One, settings: Any, S: NDArray[Any], y: NDArray[np.bool_], Q: NDArray[Any], seeds: list[int]
) -> NDArray[np.floating]:
    """Learn some episodes, in a worker."""
    with threadpool_limits(1):
        return np.stack([one(settings, *each) for each in zip(S, y, Q, seeds, strict=True)])


def _forest(s: ForestSettings, S: Any, y: Any, Q: Any, seed: int) -> NDArray[np.floating]:
    from sklearn.ensemble import RandomForestClassifier

    trees = RandomForestClassifier(s.n_trees, min_samples_leaf=s.min_samples_leaf, random_state=seed, n_jobs=1)
    p = trees.fit(S, y).predict_proba(Q)[:, 1]
    return (s.n_trees * p + y.mean()) / (s.n_trees + 1)


def _boosted(s: XGBoostSettings, S: Any, y: Any, Q: Any, seed: int) -> NDArray[np.floating]:
    chosen = {name: getattr(s, name) for name in _GRID}
    if s.search:
        chosen = _search(s, S, y, seed)
    return _boost(s, chosen, S, y, Q, seed)


def _search(s: XGBoostSettings, S: Any, y: Any, seed: int) -> dict[str, Any]:
    """Return the settings, of those drawn, of least log loss in folds of the support; without folds, the first."""
    stream = np.random.default_rng(seed)
    drawn = [{name: values[stream.integers(len(values))] for name, values in _GRID.items()} for _ in range(s.search)]
    fold, losses = stratified_folds(y[None], 5)[0], []
    for chosen in drawn:
        loss = []
        for f in range(fold.max() + 1):
            out = fold == f
            p = _boost(s, chosen, S[~out], y[~out], S[out], seed).astype(np.float64).clip(SOFT, 1 - SOFT)
            loss.append(-np.log(np.where(y[out], p, 1 - p)).mean())
        losses.append(np.mean(loss) if loss else 0.0)
    return drawn[int(np.argmin(losses))]


def _boost(s: XGBoostSettings, chosen: dict[str, Any], S: Any, y: Any, Q: Any, seed: int) -> NDArray[np.floating]:
    from xgboost import XGBClassifier

    model = XGBClassifier(
        n_estimators=int(chosen["n_trees"]), max_depth=int(chosen["max_depth"]), learning_rate=chosen["learning_rate"],
        subsample=chosen["subsample"], colsample_bytree=s.colsample, min_child_weight=s.min_child_weight,
        tree_method="exact", n_jobs=1, random_state=seed, verbosity=0,
    )  # fmt: skip
    return model.fit(S, y.astype(np.int32)).predict_proba(Q)[:, 1]
