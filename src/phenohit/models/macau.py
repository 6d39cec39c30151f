"""Macau: Bayesian matrix factorisation with side information (Simm 2018; Simm et al. 2015, arXiv 1509.04610)."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtr, ndtri

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
    require,
    restore_settings,
    stored_settings,
)
from phenohit.models.macau_chain import Chain, Watched
from phenohit.models.macau_cpu import Cpu
from phenohit.models.macau_posterior import Kept, Posterior, probability
from phenohit.models.macau_sampler import Mode, Noise, Sampler, Values
from phenohit.models.macau_side import Side
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Macau", "MacauSettings"]

log = logging.getLogger("phenohit")

_DIAGNOSED = 50  # sweeps after burn-in below which R-hat says nothing


@dataclass(frozen=True)
class MacauSettings:
    """Settings of `Macau`.

    Parameters
    ----------
    preset : {"", "simm2018"}
        `simm2018` stands for the settings of Simm 2018 (150 latent dimensions, 2,000 sweeps of which 400 are burn-in,
        fixed precision 10, values rather than hidden ones); settings given beside it win.
    latent : int
        Latent dimensions K.
    sweeps, burn_in : int
        Sweeps of a chain, and how many of them at its beginning are not used.
    keep : int
        Sweeps kept for predictions, evenly spaced over all chains.
    chains : int
        Independent chains, one after another; with two or more, R-hat tells whether they agree.
    likelihood : {"auto", "probit", "gaussian"}
        Of binary labels. Probit (auto) gives probabilities; gaussian takes 0 and 1 for values, as other programs
        do. Tasks that hold values are gaussian always.
    noise : {"fixed", "adaptive"}
        Whether the precision of values is given or drawn.
    precision : float
        Of values around their prediction, where it is fixed: 10 is a standard deviation of 0.32 pIC50 units.
    centre : {"assay", "global", "none"}
        What is subtracted from the values before: the mean of each assay (drawn towards the mean of all by one
        measurement), of all, or nothing. For probit the same on the scale of hidden values.
    link_precision : float
        Precision of the link from features to latent vectors; where it begins.
    fixed_link : bool
        Keep `link_precision` instead of drawing it.
    device : {"cpu", "cuda"}
        Where chains are sampled. Cuda is experimental: its draws are tested, on a GPU they have not been run. Chains
        on either are of the same distribution, not the same numbers.
    half : bool
        Keep sweeps in float16: half the size of the model file, and differences of a thousandth.
    """

    preset: Literal["", "simm2018"] = ""
    latent: int = 32
    sweeps: int = 600
    burn_in: int = 200
    keep: int = 100
    chains: int = 1
    likelihood: Literal["auto", "probit", "gaussian"] = "auto"
    noise: Literal["fixed", "adaptive"] = "fixed"
    precision: float = 10.0
    centre: Literal["assay", "global", "none"] = "assay"
    link_precision: float = 5.0
    fixed_link: bool = False
    device: Literal["cpu", "cuda"] = "cpu"
    half: bool = True

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "simm2018": {
            "latent": 150, "sweeps": 2000, "burn_in": 400, "likelihood": "gaussian", "noise": "fixed",
            "precision": 10.0, "centre": "global",
        }
    }  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("latent", "sweeps", "keep", "chains"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(0 <= self.burn_in < self.sweeps, "burn_in", self.burn_in, f"from 0 to below sweeps ({self.sweeps})")
        for name in ("precision", "link_precision"):
            require(0 < getattr(self, name) < float("inf"), name, getattr(self, name), "a number above 0")

    @property
    def kept_sweeps(self) -> list[int]:
        """Numbers of the sweeps of a chain that are kept, counted from 1."""
        used = self.sweeps - self.burn_in
        n = min(max(-(-self.keep // self.chains), 1), used)
        return sorted({self.burn_in + round((i + 1) * used / n) for i in range(n)})


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
        self.traces: NDArray[np.float32] = np.zeros((0, 0, 0), np.float32)  # (chains, sweeps, watched entries + 3)
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
        self.posterior = self._sample(X, Y, values[tasks], seed, run, jobs) if len(tasks) else None
        return self

    def _sample(self, X: Any, Y: Any, values: NDArray[np.bool_], seed: int, run: Path | None, jobs: int) -> Posterior:
        s = self.settings
        binary = ~values if s.likelihood != "gaussian" else np.zeros(len(values), bool)
        offset = _offsets(Y, binary, s.centre)
        data = Values.of(Y, offset, binary)
        side = Side(X)
        watched = Watched.of(Y, seed)
        kept, traces = [], []
        centred = Y.data[~binary[Y.indices]] - offset[Y.indices[~binary[Y.indices]]]
        variance = float(centred.var()) if len(centred) else 1.0
        for number in range(s.chains):
            modes = (
                Mode.begin(Y.shape[0], s.latent, side, s.link_precision),
                Mode.begin(Y.shape[1], s.latent, None, 5.0),
            )
            noise = Noise.begin(s.precision, s.noise == "adaptive", variance)
            sampler = Sampler(data, modes, noise, _device(s.device, jobs), seed=(seed, number), fixed_link=s.fixed_link)
            file = None if run is None else Path(run) / f"{self.name}-{number}.checkpoint.safetensors"
            dtype = np.float16 if s.half else np.float32
            identity = "" if file is None else _identity(s, seed, X, Y)
            chain = Chain(sampler, s.kept_sweeps, watched, dtype, checkpoint=file, identity=identity)
            chain.run("macau: sweeps" if s.chains == 1 else f"macau: sweeps of chain {number + 1}")
            kept += chain.kept
            traces.append(np.stack(chain.traces))
        self.traces = np.stack(traces)
        if s.sweeps - s.burn_in >= _DIAGNOSED:
            found = self.diagnostics()
            rhat, ess = found["rhat"], found["ess"]
            log.info(
                "macau: chains: %d, sweeps: %d; R-hat of %d entries: median %.3f, 95 %% below %.3f (settled: near 1); "
                "effective sample size: median %.0f, 95 %% above %.0f",
                s.chains, s.sweeps, len(found), rhat.median(), rhat.quantile(0.95), ess.median(), ess.quantile(0.05),
            )  # fmt: skip
        return Posterior(kept, offset, binary)

    def diagnostics(self) -> pd.DataFrame:
        """Tell whether the chains have settled, by the entries and precisions that were followed.

        Returns
        -------
        DataFrame
            One row each: ``what`` (compound in task, or a precision), ``rhat`` (rank-normalised split R-hat) and
            ``ess`` (bulk effective sample size) of the sweeps after burn-in (Vehtari et al. 2021, doi
            10.1214/20-BA1221).
        """
        from arviz_stats.base.array import array_stats

        if self.known is None:
            raise not_fitted(self.name)
        used = self.traces[:, self.settings.burn_in :, :]
        if len(used) == 1:  # one chain is compared with itself: its first half with its second
            half = used.shape[1] // 2
            used = np.concatenate([used[:, :half], used[:, half : 2 * half]])
        moving = used.std(axis=(0, 1)) > 0
        tasks = [t for t, fitted in zip(self.known.tasks, self.known.fitted, strict=True) if fitted]
        entries = Watched.of(self.labels, self.seed)
        names = [f"{self.compounds[i]} in {tasks[j]}" for i, j in zip(entries.rows, entries.tasks, strict=True)]
        names += ["noise precision", "link precision", "link precision of assays"]
        rows = {"what": np.array(names)[moving]}
        for column, of in (("rhat", array_stats.rhat), ("ess", array_stats.ess)):
            rows[column] = np.array([of(used[:, :, i], chain_axis=0, draw_axis=1) for i in np.flatnonzero(moving)])
        return pd.DataFrame(rows)

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
            mean, variance = self.posterior.moments(data.X, own, *self._known_labels(data), jobs=cores(self.jobs))
        return self.known, where, columns, mean, variance

    def _known_labels(self, data: Profiles) -> tuple[sparse.csr_matrix | None, NDArray[np.intp]]:
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


def _offsets(Y: Any, binary: NDArray[np.bool_], centre: str) -> NDArray[np.float32]:
    """Return what is subtracted from each assay: its mean, drawn towards that of all; a normal quantile for classes."""
    T = Y.shape[1]
    if centre == "none":
        return np.zeros(T, np.float32)
    n = np.bincount(Y.indices, minlength=T).astype(float)
    total = np.bincount(Y.indices, weights=Y.data, minlength=T)
    offset = np.zeros(T)
    for kind in (binary, ~binary):
        if kind.any():
            every = total[kind].sum() / n[kind].sum()
            offset[kind] = every if centre == "global" else (total[kind] + every) / (n[kind] + 1)
    offset[binary] = ndtri(offset[binary])
    return offset.astype(np.float32)


def _device(name: str, jobs: int) -> Any:
    """Return where to sample; refuses cuda where there is none."""
    if name == "cpu":
        return Cpu(cores(jobs))
    import torch

    require(torch.cuda.is_available(), "device", name, "cpu here: torch finds no CUDA device")
    from phenohit.models.macau_cuda import Cuda

    return Cuda()


def _identity(settings: MacauSettings, seed: int, X: Any, Y: sparse.csr_matrix) -> str:
    """Hash of everything that decides the chain."""
    digest = hashlib.blake2b(json.dumps([stored_settings(settings), seed, X.shape]).encode(), digest_size=16)
    for start in range(0, X.shape[0], 16_384):
        digest.update(np.ascontiguousarray(X[start : start + 16_384]))
    for part in (Y.indptr, Y.indices, Y.data):
        digest.update(part)
    return digest.hexdigest()
