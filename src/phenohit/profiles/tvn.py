"""Typical-variation normalisation: what varies among untreated wells is made small and equal.

Ando, McLean, Berndl 2017 (bioRxiv 161422): principal components of the negative controls, each scaled
to variance 1, so that directions in which controls hardly vary count as much as those in which
they vary most; then every batch is brought to the same place and scale by its own controls. The
paper's last step (equal covariances per batch, CORAL) is not done.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass, replace
from typing import Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg

from phenohit.config import Step
from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, ShapeError
from phenohit.profiles.controls import (
    Usable,
    group_codes,
    reference_rows,
    refuse_infinite,
    require_reference,
    usable_features,
    well_names,
)
from phenohit.profiles.normalise import Normalise
from phenohit.profiles.sphere import triangle
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Tvn"]

log = logging.getLogger("phenohit")

_LOST = "more than half of its features missing"
_LEAST = 1e-4  # singular values below this share of the largest are rounding of float32 features


@dataclass(frozen=True, eq=False)
class Tvn:
    """Whitened principal components of the controls; batches are aligned when it is applied.

    Attributes
    ----------
    features : list of str, length F
        Features it was fitted on, and those it accepts.
    usable : Usable
        The columns used, with mean and SD of all controls, (1, K).
    axes : float64 array, shape (K, C)
        ``(x - mean) / sd @ axes`` has variance 1 among the controls, largest component first.
    step : Step
    dropped : DataFrame
        Features left out at fitting, with reasons.
    """

    features: list[str]
    usable: Usable
    axes: NDArray[np.float64]
    step: Step
    dropped: pd.DataFrame

    @classmethod
    def fit(cls, profiles: Profiles, step: Step) -> Self:
        """Learn the components from the reference wells of all plates.

        Parameters
        ----------
        profiles : Profiles, P rows
        step : Step
            ``by`` (empty: batch) is what `apply` aligns.

        Raises
        ------
        PlateError, ColumnError, ConfigError
        """
        if step.method:
            raise ConfigError(f"step tvn: method is '{step.method}', but tvn has only one. Leave it empty.")
        refuse_infinite(profiles, "tvn")
        codes, groups = group_codes(profiles, step.by or "batch")
        is_reference = reference_rows(profiles, step.reference)
        require_reference(
            profiles, codes, groups, is_reference,
            by=step.by or "batch", reference=step.reference, least=step.min_controls, doing="tvn",
        )  # fmt: skip
        together = np.zeros(len(profiles), dtype=np.intp)
        usable, fitted, lost = usable_features(profiles, together, 1, is_reference, "tvn")
        require_reference(
            profiles, together, ["all wells"], fitted, by="all", reference=step.reference, least=3, doing="tvn"
        )
        rows = np.flatnonzero(fitted)
        factor = triangle(profiles.X, rows, usable, 0, scale=True)
        _, size, turn = linalg.svd(factor, full_matrices=False)
        kept = size > _LEAST * size[0]
        axes = turn[kept].T / size[kept] * np.sqrt(len(rows) - 1)
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
        axes *= np.where(largest < 0, -1, 1)  # signs are free: fix them
        if axes.shape[1] < len(usable.kept):
            log.warning(
                "tvn: %d controls span %d of the %d dimensions of the features; the others are left out.",
                len(rows), axes.shape[1], len(usable.kept),
            )  # fmt: skip
        return cls(list(profiles.features), usable, axes, step, lost)

    def apply(self, profiles: Profiles) -> tuple[Profiles, pd.DataFrame]:
        """Return components ``TVN_0001`` and so on, every batch centred and scaled on its own controls.

        The controls are those among the rows given, so new batches are aligned by their own.

        Returns
        -------
        profiles : Profiles
            Without wells that lack more than half of the features; other gaps are filled with the
            controls' mean.
        dropped : DataFrame

        Raises
        ------
        ShapeError
            If the features are not those it was fitted on.
        PlateError
            If a batch has too few controls.
        """
        if list(profiles.features) != self.features:
            raise ShapeError(
                f"These wells have {len(profiles.features)} features, but tvn was fitted on {len(self.features)}, or "
                "names or order differ. Do the earlier steps first."
            )
        refuse_infinite(profiles, "tvn")
        X = np.empty((len(profiles), self.axes.shape[1]), dtype=np.float32)
        start = 0
        for block in self.usable.blocks(profiles.X, np.arange(len(profiles)), 0, scale=True):
            X[start : start + len(block)] = block @ self.axes
            start += len(block)
        lost = self.usable.lost(profiles.X)
        names = [f"TVN_{i:04d}" for i in range(1, X.shape[1] + 1)]
        by: Literal["plate", "batch", "all"] = self.step.by or "batch"
        turned = profiles.with_features(X, names, f"tvn[{by}, {self.step.reference}]")
        turned = turned.take(~lost) if lost.any() else turned
        align = Step(
            "normalise", "standardize", by, self.step.reference,
            min_controls=self.step.min_controls, limit=self.step.limit,
        )  # fmt: skip
        out, refused = Normalise.fit(turned, align).apply(turned, everywhere=False)
        out = replace(out, history=turned.history)  # one step, one line
        gone = dropped("tvn", "well", well_names(profiles, np.flatnonzero(lost)), _LOST)
        refused["stage"] = "tvn"
        return out, pd.concat([self.dropped, gone, refused], ignore_index=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file."""
        arrays = {"kept": self.usable.kept, "mean": self.usable.mean, "sd": self.usable.sd, "axes": self.axes}
        meta = {"kind": "tvn", "features": self.features, "step": asdict(self.step)}
        write_tensors(path, arrays, {**meta, "dropped": self.dropped.to_dict("list")})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileError
            If the file is absent, damaged or of another kind.
        """
        form = {"kept": ("int64", 1), "mean": ("float64", 2), "sd": ("float64", 2), "axes": ("float64", 2)}
        arrays, meta = read_tensors(path, "tvn", form)
        try:
            kept = arrays["kept"]
            fine = len(arrays["axes"]) == len(kept) and arrays["mean"].shape == arrays["sd"].shape == (1, len(kept))
            inside = not len(kept) or (kept.min() >= 0 and kept.max() < len(meta["features"]))
            if not (fine and inside and np.isfinite(arrays["axes"]).all()):
                raise ValueError("its arrays do not fit each other")
            table = pd.DataFrame(meta["dropped"], columns=nothing_dropped().columns, dtype=str)
            usable = Usable(kept, arrays["mean"], arrays["sd"])
            return cls(meta["features"], usable, arrays["axes"], Step(**meta["step"]), table)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"'{path}' is damaged ({error}). Fit it again.") from error
