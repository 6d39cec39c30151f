"""Per-assay logistic regression with an L2 penalty, for few features and many assays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.special import expit
from threadpoolctl import threadpool_limits

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
from phenohit.progress import track
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Logistic", "LogisticSettings"]

_ROWS = 16_384  # rows scored at a time
_STEPS = 100  # Newton steps at most; ten are usual
_WORTH_WORKERS = 2e10  # multiplications below which starting worker processes costs more than it saves


@dataclass(frozen=True)
class LogisticSettings:
    """Settings of `Logistic`.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty: the sum of log losses times C, plus half the squared length of the
        coefficients, is minimised. The intercept is not penalised. The default suits standardised features,
        also hundreds of them; with one or two it hardly matters.
    """

    C: float = 0.1

    def __post_init__(self) -> None:
        require(0 < self.C < float("inf"), "C", self.C, "a number above 0")


class Logistic:
    """Logistic regression per task: the learner behind the cell-count baseline.

    Parameters
    ----------
    **settings
        See `LogisticSettings`.

    Notes
    -----
    Every task has one minimum, found by Newton's method with step halving; no random numbers are
    used. Classes keep their natural weight, so that scores are calibrated on training data.
    """

    name: ClassVar[str] = "logistic"
    needs_scaling: ClassVar[bool] = True
    uses_valid = False

    def __init__(self, **settings: Any) -> None:
        self.settings = read_settings(LogisticSettings, settings, self.name)
        self.known: Known | None = None
        self.weights: NDArray[np.float64] = np.zeros((0, 0))  # (F + 1, T); last row: intercept

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
        """Find the minimum of every task that has both classes; see `contract.Model.fit`."""
        del valid, seed, run  # one minimum, found at once
        known = Known.of(data, labels)
        Y = labels.Y.tocsc()
        X = data.X
        tasks = np.flatnonzero(known.fitted)
        n = np.diff(Y.indptr)[tasks].astype(float)
        work = (n * np.minimum(n, X.shape[1]) ** 2).sum() * 10
        calls = (delayed(_minimum)(X, *_column(Y, task), self.settings.C) for task in tasks)
        pool = Parallel(n_jobs=cores(jobs) if work > _WORTH_WORKERS else 1, return_as="generator", max_nbytes="1M")
        weights = np.zeros((X.shape[1] + 1, len(known.tasks)))
        with threadpool_limits(1):  # the systems are small: more threads would wait for each other
            for task, column in zip(tasks, track(pool(calls), "logistic: assays", len(tasks)), strict=True):
                weights[:, task] = column
        self.weights, self.known = weights, known
        return self

    def predict(self, data: Profiles, tasks: list[str] | None = None) -> Predictions:
        """Return the probability of every row in every task; see `contract.Model.predict`."""
        if self.known is None:
            raise not_fitted(self.name)
        self.known.require(data)
        where = self.known.where(tasks)
        score = self.known.block(len(data), where)
        columns = np.flatnonzero(self.known.fitted[where])
        weights = self.weights[:, where[columns]]
        for start in range(0, len(data), _ROWS):
            part = slice(start, start + _ROWS)
            score[part, columns] = expit(data.X[part].astype(np.float64) @ weights[:-1] + weights[-1])
        return Predictions(score, data.compounds, [self.known.tasks[i] for i in where], self.name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; see `contract.Model.save`."""
        if self.known is None:
            raise not_fitted(self.name)
        meta = {"kind": f"model {self.name}", "settings": stored_settings(self.settings), **self.known.meta()}
        write_tensors(model_path(path, self.name), {**self.known.arrays(), "weights": self.weights}, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Model.load`."""
        path = model_path(path, cls.name)
        arrays, meta = read_tensors(path, f"model {cls.name}", {**Known.FORM, "weights": ("float64", 2)})
        model = cls()
        model.settings = restore_settings(LogisticSettings, meta, cls.name, path)
        model.known = Known.restore(arrays, meta, path)
        model.weights = arrays["weights"]
        shape = (len(model.known.features) + 1, len(model.known.tasks))
        if model.weights.shape != shape or not np.isfinite(model.weights).all():
            raise FileError(f"'{path}' is damaged: its weights do not fit its features and tasks. Fit the model again.")
        return model


def _column(Y: Any, task: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Rows measured in a task, and 1 for active ones."""
    part = slice(Y.indptr[task], Y.indptr[task + 1])
    return Y.indices[part], Y.data[part].astype(np.float64)


def _minimum(X: NDArray[np.float32], rows: NDArray[Any], y: NDArray[np.float64], C: float) -> NDArray[np.float64]:
    """Coefficients and intercept of one task, shape (F + 1,)."""
    Z = X[rows].astype(np.float64)
    if Z.shape[1] <= len(rows):
        return _newton(Z, y, C)
    # With more features than rows the coefficients lie in the span of the rows, and the penalty does
    # not change under rotation: solve in as many rotated features as there are rows. Exact.
    Q, R = np.linalg.qr(Z.T)
    turned = _newton(np.ascontiguousarray(R.T), y, C)
    return np.append(Q @ turned[:-1], turned[-1])


def _newton(Z: NDArray[np.float64], y: NDArray[np.float64], C: float) -> NDArray[np.float64]:
    """Minimise half the squared length plus C times the log loss over all but the last coefficient."""
    Z = np.column_stack([Z, np.ones(len(Z))])
    ridge = np.append(np.ones(Z.shape[1] - 1), 1e-12)  # keeps the intercept's row of the system above 0
    w = np.zeros(Z.shape[1])
    w[-1] = np.log(y.sum() / (len(y) - y.sum()))
    eta = Z @ w
    value = _value(eta, y, w, C)
    for _ in range(_STEPS):
        p = expit(eta)
        gradient = ridge * w + C * (Z.T @ (p - y))
        hessian = C * (Z.T * (p * (1 - p))) @ Z
        hessian[np.diag_indices_from(hessian)] += ridge
        step = np.linalg.solve(hessian, gradient)
        decrement = gradient @ step
        if not decrement > 1e-12 * max(1.0, value):
            break
        along, size = Z @ step, 1.0
        while (new := _value(eta - size * along, y, w - size * step, C)) > value - 1e-4 * size * decrement:
            size /= 2
            if size < 1e-10:  # no descent is left in this precision
                return w
        w, eta, value = w - size * step, eta - size * along, new
    return w


def _value(eta: NDArray[np.float64], y: NDArray[np.float64], w: NDArray[np.float64], C: float) -> float:
    """Penalised log loss."""
    return float(0.5 * w[:-1] @ w[:-1] + C * (np.logaddexp(0, eta) - y * eta).sum())
