"""Per-assay random forest: every task is learned on its own, from the rows measured in it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.data.profiles import Profiles
from phenohit.errors import FileError
from phenohit.models.contract import (
    Known,
    cores,
    model_path,
    not_fitted,
    read_settings,
    require,
    restore_settings,
    stored_settings,
)
from phenohit.models.trees import Trees
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Forest", "ForestSettings"]

_SCORED = 32_768  # rows scored at a time
_TREES = 50  # trees grown by one job: the unit of parallel work, fixed so that results never depend on it


@dataclass(frozen=True)
class ForestSettings:
    """Settings of `Forest`.

    Parameters
    ----------
    n_trees : int
        Trees per task; 250 in Simm 2018, Table S2.
    criterion : {"gini", "entropy"}
        Impurity that splits reduce: gini or entropy.
    max_features : float
        Features considered at a split, as a multiple of sqrt(F); 1, 2 or 3 in Table S2.
    min_samples_leaf : int
        Rows a leaf needs; above 1, scores are smoother and trees smaller.
    class_weight : {"balanced"} | None
        Balanced weighs both classes alike in every task; empty: every row counts 1.
    """

    n_trees: int = 250
    criterion: Literal["gini", "entropy"] = "gini"
    max_features: float = 1.0
    min_samples_leaf: int = 1
    class_weight: Literal["balanced"] | None = None

    def __post_init__(self) -> None:
        require(self.n_trees >= 1, "n_trees", self.n_trees, "at least 1")
        require(self.max_features > 0, "max_features", self.max_features, "above 0")
        require(self.min_samples_leaf >= 1, "min_samples_leaf", self.min_samples_leaf, "at least 1")


class Forest:
    """Random forest per task (Breiman 2001; Simm 2018, Online Methods and Table S2).

    Parameters
    ----------
    **settings
        See `ForestSettings`.

    Notes
    -----
    Simm 2018 used ranger; the trees here are scikit-learn's, kept as flat arrays. Scores are mean
    leaf shares over the trees. A task's random numbers come from the seed and the task's *name*, so
    that adding or dropping other tasks, or using more cores, changes nothing.
    """

    name: ClassVar[str] = "forest"
    needs_scaling: ClassVar[bool] = False
    uses_valid = False

    def __init__(self, **settings: Any) -> None:
        self.settings = read_settings(ForestSettings, settings, self.name)
        self.known: Known | None = None
        self.trees = Trees.join([])
        self.jobs = 1

    def fit(
        self,
        data: Profiles,
        labels: Labels,
        *,
        valid: tuple[Profiles, Labels] | None = None,
        seed: int = 0,
        run: Path | None = None,
        jobs: int = 1,
    ) -> Self:
        """Grow the trees of every task that has both classes; see `contract.Model.fit`."""
        del valid, run  # nothing to stop early
        known = Known.of(data, labels)
        Y = labels.Y.tocsc()
        tasks = np.flatnonzero(known.fitted)
        counts = [min(_TREES, self.settings.n_trees - done) for done in range(0, self.settings.n_trees, _TREES)]
        # The largest tasks go first, so that no core is left alone with one at the end.
        order = tasks[np.argsort(-np.diff(Y.indptr)[tasks], kind="stable")]
        units = [(task, part, count) for task in order for part, count in enumerate(counts)]
        calls = (
            delayed(_grow)(data.X, *_column(Y, task), count, _seed(seed, known.tasks[task], part), self.settings)
            for task, part, count in units
        )
        # Arguments above 1 MB reach the workers as one memory-mapped file, written once.
        grown = Parallel(n_jobs=cores(jobs), return_as="generator", max_nbytes="1M")(calls)
        made = dict(zip([u[:2] for u in units], track(grown, "forest: grow trees", len(units)), strict=True))
        self.trees = Trees.join([made[task, part] for task in tasks for part in range(len(counts))])
        self.known, self.jobs = known, jobs
        return self

    def predict(self, data: Profiles, tasks: list[str] | None = None) -> Predictions:
        """Return the mean leaf share for every row and task; see `contract.Model.predict`."""
        if self.known is None:
            raise not_fitted(self.name)
        self.known.require(data)
        where = self.known.where(tasks)
        score = self.known.block(len(data), where)
        first = (np.cumsum(self.known.fitted) - 1) * self.settings.n_trees
        columns = np.flatnonzero(self.known.fitted[where])

        def fill(X: NDArray[np.float32], rows: slice, column: int) -> None:
            begin = int(first[where[column]])
            score[rows, column] = self.trees.mean(X, begin, begin + self.settings.n_trees)

        for start in range(0, len(data), _SCORED):
            rows = slice(start, start + _SCORED)
            X = data.X[rows]  # packed fingerprints are unpacked once for all tasks
            pool = Parallel(n_jobs=cores(self.jobs), prefer="threads", return_as="generator")  # walking frees the GIL
            for _ in track(pool(delayed(fill)(X, rows, c) for c in columns), "forest: score tasks", len(columns)):
                pass
        return Predictions(score, data.compounds, [self.known.tasks[i] for i in where], self.name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; see `contract.Model.save`."""
        if self.known is None:
            raise not_fitted(self.name)
        meta = {"kind": f"model {self.name}", "settings": stored_settings(self.settings), **self.known.meta()}
        write_tensors(model_path(path, self.name), {**self.known.arrays(), **self.trees.arrays()}, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Model.load`."""
        path = model_path(path, cls.name)
        arrays, meta = read_tensors(path, f"model {cls.name}", {**Known.FORM, **Trees.FORM})
        model = cls()
        model.settings = restore_settings(ForestSettings, meta, cls.name, path)
        model.known = Known.restore(arrays, meta, path)
        model.trees = Trees.restore(arrays, len(model.known.features), path)
        if len(model.trees) != model.known.fitted.sum() * model.settings.n_trees:
            raise FileError(f"'{path}' is damaged: it has {len(model.trees)} trees, not those of its tasks.")
        return model


def _column(Y: Any, task: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Rows measured in a task, and whether each is active."""
    part = slice(Y.indptr[task], Y.indptr[task + 1])
    return Y.indices[part], Y.data[part] > 0


def _seed(seed: int, task: str, part: int) -> int:
    """Return a 32-bit seed that depends on nothing else."""
    digest = hashlib.blake2b(f"{seed}\n{part}\n{task}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def _grow(
    X: NDArray[np.float32],
    rows: NDArray[Any],
    active: NDArray[np.bool_],
    n_trees: int,
    seed: int,
    settings: ForestSettings,
) -> Trees:
    """Grow some trees of one task in one worker."""
    from sklearn.ensemble import RandomForestClassifier

    F = X.shape[1]
    forest = RandomForestClassifier(
        n_estimators=n_trees,
        criterion=settings.criterion,
        max_features=int(np.clip(round(settings.max_features * np.sqrt(F)), 1, F)),
        min_samples_leaf=settings.min_samples_leaf,
        class_weight=settings.class_weight,
        random_state=seed,
        n_jobs=1,
    )
    forest.fit(X[rows], active)
    return Trees.of(forest.estimators_)
