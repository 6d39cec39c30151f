"""Macau: Bayesian matrix factorisation with side information (Simm 2018; Simm et al. 2015, arXiv 1509.04610)."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtr

from phenohit.data.labels import Labels
from phenohit.data.matrix import take_rows
from phenohit.data.predictions import Predictions
from phenohit.data.profiles import Profiles
from phenohit.errors import FileError, LabelError
from phenohit.models.contract import (
    Known,
    cores,
    model_path,
    not_fitted,
    read_settings,
    restore_settings,
    stored_settings,
)
from phenohit.models.macau_assays import read_assay_features
from phenohit.models.macau_chain import sample_chains
from phenohit.models.macau_follow import Watched, diagnostics, progress
from phenohit.models.macau_posterior import Kept, Posterior, probability
from phenohit.models.macau_settings import MacauSettings
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Macau", "MacauSettings"]

log = logging.getLogger("phenohit")

_DIAGNOSED = 50  # sweeps after burn-in below which R-hat says nothing


class Macau:
    """Latent vectors for compounds and assays whose products are the activities, learned by Gibbs sampling.

    Parameters
    ----------
    **settings
        See `MacauSettings`.

    Notes
    -----
    A compound's latent vector is drawn from what its features say and from its own labels; one without
    labels is predicted from features, one that was trained on from both. Scores are posterior means, and
    `Predictions.spread` holds standard deviations that include the latent residual of a new compound. The
    sampler is exact; ``docs/macau.md`` says what is drawn from what. Same seed, same chain, on any number of cores.
    """

    name: ClassVar[str] = "macau"
    needs_scaling: ClassVar[bool] = True
    uses_valid = False

    def __init__(self, **settings: Any) -> None:
        self.settings = read_settings(MacauSettings, settings, self.name)
        self.known: Known | None = None
        self.posterior: Posterior | None = None
        self.labels: Any = sparse.csr_matrix((0, 0), dtype=np.float32)  # trained on: (compounds, fitted tasks)
        self.compounds: list[str] = []
        self.values: NDArray[np.bool_] = np.zeros(0, bool)  # tasks that hold values
        self.overall = (0.0, 0.0)  # mean and standard deviation of all values: the score of a task without any
        self.traces: NDArray[np.float32] = np.zeros((0, 0, 0), np.float32)  # see `sample_chains`
        self.jobs, self.seed = 1, 0

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
        """Sample all chains; see `contract.Model.fit`. Tasks that hold values are learned as such."""
        del valid  # nothing stops early: every row serves
        known = Known.of(data, labels, values=True)
        values = (labels.tasks["kind"] == "value").to_numpy()
        if values.any() and not values.all():
            raise LabelError(
                "Some tasks hold values and some hold two classes; their scores would mean different things. "
                "Fit a model for each kind."
            )
        tasks = np.flatnonzero(known.fitted)
        rows = np.flatnonzero(np.diff(labels.Y[:, tasks].tocsr().indptr))  # others say nothing about any parameter
        Y = labels.Y[:, tasks].tocsr()[rows]
        X = data.X if len(rows) == len(data) else take_rows(data.X, rows)
        self.known, self.values, self.jobs, self.seed = known, values, jobs, seed
        self.overall = (float(Y.data.mean()), float(Y.data.std())) if values.any() and Y.nnz else (0.0, 0.0)
        self.labels, self.compounds = Y, list(data.compounds[rows])
        self.posterior, self.traces = None, np.zeros((0, 0, 0), np.float32)
        if len(tasks):
            file = self.settings.assay_features
            assays = read_assay_features(file, labels.tasks.iloc[tasks]) if file else None
            known = {"compounds": self.compounds, "seed": seed, "run": run, "jobs": jobs}
            self.posterior, self.traces = sample_chains(self.settings, X, Y, values[tasks], assays, **known)
            self._log_settled()
        return self

    def _log_settled(self) -> None:
        """Say whether the chains have settled."""
        s = self.settings
        if s.sweeps - s.burn_in < _DIAGNOSED:
            return
        found = self.diagnostics()
        rhat, ess = found["rhat"], found["ess"]
        log.info(
            "macau: chains: %d, sweeps: %d; R-hat of %d entries: median %.3f, 95 %% below %.3f (settled: near 1); "
            "effective sample size: median %.0f, 95 %% above %.0f",
            s.chains, s.sweeps, len(found), rhat.median(), rhat.quantile(0.95), ess.median(), ess.quantile(0.05),
        )  # fmt: skip

    def diagnostics(self) -> pd.DataFrame:
        """Tell whether the chains have settled: ``what``, ``rhat`` and ``ess``; see `macau_follow.diagnostics`."""
        return diagnostics(self.traces, self._watched(), self.settings.burn_in)

    def progress(self) -> pd.DataFrame:
        """Return what was followed, sweep by sweep; see `macau_follow.progress`."""
        return progress(self.traces, self._watched(), self.settings.burn_in)

    def _watched(self) -> list[str]:
        if self.known is None:
            raise not_fitted(self.name)
        tasks = [t for t, fitted in zip(self.known.tasks, self.known.fitted, strict=True) if fitted]
        entries = Watched.of(self.labels, self.seed)
        return [f"{self.compounds[i]} in {tasks[j]}" for i, j in zip(entries.rows, entries.tasks, strict=True)]

    def predict(self, data: Profiles, tasks: list[str] | None = None) -> Predictions:
        """Return posterior mean and standard deviation; see `contract.Model.predict`.

        The score is the probability of being active where labels are two classes, and the value where they are
        values. Rows of compounds that were trained on are conditioned on their labels.
        """
        known, where, columns, mean, variance = self._moments(data, tasks)
        score = known.block(len(data), where)
        spread = np.sqrt(score * (1 - score))
        if self.values.any():
            score[:], spread[:] = self.overall
        if self.posterior is not None and len(columns):
            if self.posterior.binary.any():
                mean, variance = probability(mean, variance)
            elif not self.values.any():  # 0 and 1 taken for values
                mean = np.clip(mean, 0, 1)
            score[:, columns], spread[:, columns] = mean, np.sqrt(variance)
        kind = "pIC50" if self.values.any() else "probability"
        return Predictions(score, data.compounds, [known.tasks[i] for i in where], self.name, spread, kind=kind)

    def exceeding(
        self, data: Profiles, threshold: float, tasks: list[str] | None = None, *, noise: bool = False
    ) -> Predictions:
        """Return the probability that a value exceeds a threshold, e.g. 6 for a submicromolar pIC50.

        Parameters
        ----------
        data : Profiles, n rows
        threshold : float
            In the values' own units.
        tasks : list of str, optional
        noise : bool
            Of a measurement, with the noise of measuring; else of the value behind it.

        Raises
        ------
        LabelError
            If the model learned two classes: its scores are probabilities already.
        """
        known, where, columns, mean, variance = self._moments(data, tasks)
        if not self.values.any():
            raise LabelError("This model learned active against inactive, not values: its scores are probabilities.")
        score = np.full((len(data), len(where)), ndtr((self.overall[0] - threshold) / max(self.overall[1], 1e-12)))
        if self.posterior is not None and len(columns):
            own = np.mean([kept.variance for kept in self.posterior.kept], axis=0)
            extra = own[(np.cumsum(known.fitted) - 1)[where[columns]]] if noise else 0.0
            score[:, columns] = ndtr((mean - threshold) / np.sqrt(variance + extra))
        names = [known.tasks[i] for i in where]
        return Predictions(score.astype(np.float32), data.compounds, names, self.name)

    def _moments(
        self, data: Profiles, tasks: list[str] | None
    ) -> tuple[Known, NDArray[np.intp], NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
        """Return the tasks asked for, which of them were learned, and mean and variance of their values."""
        if self.known is None:
            raise not_fitted(self.name)
        self.known.require(data)
        where = self.known.where(tasks)
        columns = np.flatnonzero(self.known.fitted[where])
        mean = variance = np.zeros((len(data), len(columns)), np.float32)
        if self.posterior is not None and len(columns) and len(data):
            own = (np.cumsum(self.known.fitted) - 1)[where[columns]]
            mean, variance = self.posterior.moments(data.X, own, *self.known_labels(data), jobs=cores(self.jobs))
        return self.known, where, columns, mean, variance

    def known_labels(self, data: Profiles) -> tuple[sparse.csr_matrix | None, NDArray[np.intp]]:
        """Labels that were trained on, for the rows of `data`, and where those rows stood in training."""
        first = pd.Series(self.compounds, dtype=object).drop_duplicates()  # wells of a compound have the same labels
        found = pd.Index(first).get_indexer(data.compounds)
        at = np.where(found < 0, -1, np.append(first.index.to_numpy(), -1)[found])
        if not (at >= 0).any():
            return None, at
        empty = sparse.csr_matrix((1, self.labels.shape[1]), dtype=np.float32)
        at = np.where(at < 0, len(self.compounds), at)
        return sparse.vstack([self.labels, empty], format="csr")[at], at

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, with the labels that were trained on; see `contract.Model.save`."""
        if self.known is None:
            raise not_fitted(self.name)
        meta = {
            "kind": f"model {self.name}", "settings": stored_settings(self.settings), **self.known.meta(),
            "compounds": self.compounds, "overall": self.overall, "kept": 0, "seed": self.seed,
        }  # fmt: skip
        arrays = {**self.known.arrays(), "values": self.values, "traces": self.traces}
        arrays |= {"Y data": self.labels.data, "Y indices": self.labels.indices, "Y indptr": self.labels.indptr}
        if self.posterior is not None:
            meta["kept"] = len(self.posterior.kept)
            arrays |= {"offset": self.posterior.offset, "binary": self.posterior.binary}
            for number, kept in enumerate(self.posterior.kept):
                arrays |= kept.arrays(number)
        write_tensors(model_path(path, self.name), arrays, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `contract.Model.load`."""
        path = model_path(path, cls.name)
        form = {"values": ("bool", 1), "traces": ("float32", 3), "Y data": ("float32", 1)}
        arrays, meta = read_tensors(path, f"model {cls.name}", {**Known.FORM, **form})
        model = cls()
        model.settings = restore_settings(MacauSettings, meta, cls.name, path)
        model.known = Known.restore(arrays, meta, path)
        try:
            model.values, model.traces = arrays["values"], arrays["traces"]
            model.compounds, model.overall = list(meta["compounds"]), tuple(meta["overall"])
            model.seed, T = int(meta["seed"]), int(model.known.fitted.sum())
            parts = arrays["Y data"], arrays["Y indices"], arrays["Y indptr"]
            model.labels = sparse.csr_matrix(parts, shape=(len(model.compounds), T))
            model.labels.check_format()
            if n := int(meta["kept"]):
                kept = [Kept.restore(arrays, number) for number in range(n)]
                model.posterior = Posterior(kept, arrays["offset"], arrays["binary"])
                model.posterior.check(len(model.known.features), T, model.settings.latent)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"'{path}' is damaged ({error}). Fit the model again.") from error
        return model
