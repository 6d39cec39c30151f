"""Baselines that see no biology: the active share of a task, or of a task on a plate."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.data.matrix import RowMatrix
from phenohit.data.predictions import Predictions
from phenohit.data.profiles import Profiles
from phenohit.errors import FileError, ShapeError
from phenohit.models.contract import (
    Known,
    model_path,
    not_fitted,
    read_settings,
    require,
    restore_settings,
    stored_settings,
)
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Rate", "RateSettings"]

_ROWS = 16_384  # rows scored at a time


@dataclass(frozen=True)
class RateSettings:
    """Settings of `Rate`.

    Parameters
    ----------
    by : {"all", "plate"}
        All gives every row the active share of the task; plate gives it the share on its plates. For plate, the
        features are one column per plate: 1 where the row is of that plate, or the fraction of its wells that
        are.
    smoothing : float
        How many rows of average plates are added to every plate, so that a plate with few measurements stays
        near the share of the task.
    """

    by: Literal["all", "plate"] = "all"
    smoothing: float = 2.0

    def __post_init__(self) -> None:
        require(self.smoothing > 0, "smoothing", self.smoothing, "above 0")


class Rate:
    """Active share as a score: what a model must beat.

    Parameters
    ----------
    **settings
        See `RateSettings`.

    Notes
    -----
    Plate p scores ``(active_p + m share) / (measured_p + m)`` in a task, where `share` is the
    smoothed share of `Known` and m the smoothing; a row on several plates scores their mean,
    weighted by its features; a row on none, or only on plates never seen, scores the share.
    """

    name: ClassVar[str] = "rate"
    needs_scaling: ClassVar[bool] = False
    uses_valid = False

    def __init__(self, **settings: Any) -> None:
        self.settings = read_settings(RateSettings, settings, self.name)
        self.known: Known | None = None
        self.rates: NDArray[np.float64] = np.zeros((0, 0))  # (F, T); no rows with by = all

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
        """Count actives per task and plate; see `contract.Model.fit`."""
        del valid, seed, run, jobs  # counting needs none of them
        known = Known.of(data, labels)
        self.rates = np.zeros((0, len(known.tasks)))
        if self.settings.by == "plate":
            plates = _plates(data).T.tocsr()
            measured = labels.Y.copy()
            measured.data = np.ones_like(measured.data)
            # Products of sparse matrices: work grows with the measurements, not with rows x tasks.
            active = np.asarray((plates @ labels.Y.astype(np.float64)).todense())
            counted = np.asarray((plates @ measured.astype(np.float64)).todense())
            m = self.settings.smoothing
            self.rates = (active + m * known.share) / (counted + m)
        self.known = known
        return self

    def predict(self, data: Profiles, tasks: list[str] | None = None) -> Predictions:
        """Return the share of the task, or of its row's plates; see `contract.Model.predict`."""
        if self.known is None:
            raise not_fitted(self.name)
        self.known.require(data)
        where = self.known.where(tasks)
        score = self.known.block(len(data), where)
        if self.settings.by == "plate":
            rates = np.ascontiguousarray(self.rates[:, where])
            for start in range(0, len(data), _ROWS):
                part = slice(start, start + _ROWS)
                plates = _plates(data.take(np.arange(len(data))[part]))
                weight = np.asarray(plates.sum(axis=1)).ravel()
                known = weight > 0
                score[part][known] = (plates[known] @ rates) / weight[known, None]
        # A task that lacks a class keeps its share, as in every model.
        score[:, ~self.known.fitted[where]] = self.known.share[where][~self.known.fitted[where]]
        return Predictions(score, data.compounds, [self.known.tasks[i] for i in where], self.name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; see `contract.Model.save`."""
        if self.known is None:
            raise not_fitted(self.name)
        meta = {"kind": f"model {self.name}", "settings": stored_settings(self.settings), **self.known.meta()}
        write_tensors(model_path(path, self.name), {**self.known.arrays(), "rates": self.rates}, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Model.load`."""
        path = model_path(path, cls.name)
        arrays, meta = read_tensors(path, f"model {cls.name}", {**Known.FORM, "rates": ("float64", 2)})
        model = cls()
        model.settings = restore_settings(RateSettings, meta, cls.name, path)
        model.known = Known.restore(arrays, meta, path)
        model.rates = arrays["rates"]
        rows = len(model.known.features) if model.settings.by == "plate" else 0
        fine = model.rates.shape == (rows, len(model.known.tasks)) and ((model.rates > 0) & (model.rates < 1)).all()
        if not fine:
            raise FileError(f"'{path}' is damaged: its rates do not fit its plates and tasks. Fit the model again.")
        return model


def _plates(data: Profiles) -> sparse.csr_matrix:
    """Rows x plates as a sparse matrix, refusing what cannot be a fraction."""
    shares = data.X.csr() if isinstance(data.X, RowMatrix) else sparse.csr_matrix(data.X)
    negative = np.flatnonzero(shares.data < 0)
    if len(negative):
        column = data.features[shares.indices[negative[0]]]
        raise ShapeError(
            f"Plate column '{column}' holds negative values. With by: plate, features must be one column per plate, "
            "0 or above; do not scale them."
        )
    return shares.astype(np.float64)
