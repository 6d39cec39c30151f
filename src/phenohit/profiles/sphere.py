"""Sphering: what varies together among the controls becomes uncorrelated, of one size."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg

from phenohit.config import Step
from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, PlateError, ShapeError, nearest, some
from phenohit.profiles.controls import (
    Usable,
    group_codes,
    reference_rows,
    refuse_infinite,
    require_reference,
    usable_features,
    well_names,
)
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["METHODS", "Sphere", "triangle"]

log = logging.getLogger("phenohit")

METHODS = ("ZCA-cor", "ZCA", "PCA-cor", "PCA")
_TIED = 1e-5  # below this share of the whole, what is left of float32 features is rounding


@dataclass(frozen=True, eq=False)
class Sphere:
    """A rotation and scaling that makes the controls uncorrelated with variance 1.

    Attributes
    ----------
    features : list of str, length F
        Features it was fitted on, and those it accepts.
    groups : list of str, length G
        What was fitted together: ``['all wells']`` or the batches.
    usable : Usable
        The K columns used, with mean and SD of the controls, (G, K).
    W : float64 array, shape (G, K, K)
        ``(x - mean) / sd @ W`` for the -cor methods, else ``(x - mean) @ W``.
    method : {'ZCA-cor', 'ZCA', 'PCA-cor', 'PCA'}
    by : {'all', 'batch'}
    reference : {'negcon', 'plate'}
    limit : float
    dropped : DataFrame
        Features left out at fitting, with reasons.
    """

    features: list[str]
    groups: list[str]
    usable: Usable
    W: NDArray[np.float64]
    method: str
    by: Literal["all", "batch"]
    reference: str
    limit: float
    dropped: pd.DataFrame

    @classmethod
    def fit(cls, profiles: Profiles, step: Step) -> Self:
        """Learn the transform from the controls of all plates, or of each batch.

        Parameters
        ----------
        profiles : Profiles, P rows
            Normalised wells, controls included.
        step : Step
            ``method`` is one of `METHODS` (empty: ZCA-cor); ``by`` is all (empty) or batch;
            ``epsilon`` is added to the singular values, as pycytominer does.

        Raises
        ------
        PlateError, ColumnError, ConfigError

        Notes
        -----
        The matrix is that of pycytominer's `Spherize`, computed on the triangular factor of the
        controls where they outnumber the features: the same singular values and vectors without
        Spherize's matrix of controls x controls (7 GB at 30,000).

        Left out first, and listed: features with gaps in more than 5 % of the
        wells, without spread among the controls, or that follow linearly from others there (they
        would be divided by nearly 0). With fewer controls than features, directions that the
        controls do not span are scaled by the least spread they show, and a warning says so.
        """
        method, by = step.method or "ZCA-cor", step.by or "all"
        if method not in METHODS:
            raise ConfigError(f"step sphere: method '{method}' is not known. {nearest(method, METHODS)}")
        if by == "plate":
            raise ConfigError(
                "step sphere: by is 'plate', but the controls of one plate are too few to learn how features vary "
                "together. Set by: all or by: batch."
            )
        if not step.epsilon >= 0:
            raise ConfigError(f"step sphere: epsilon is {step.epsilon}, but must be 0 or more.")
        refuse_infinite(profiles, "sphere")
        codes, groups = group_codes(profiles, by)
        is_reference = reference_rows(profiles, step.reference)
        least = {"by": by, "reference": step.reference, "least": max(step.min_controls, 3), "doing": "Sphering"}
        require_reference(profiles, codes, groups, is_reference, **least)
        usable, fitted, lost = usable_features(profiles, codes, len(groups), is_reference, "sphere")
        require_reference(profiles, codes, groups, fitted, **least)
        scale = method.endswith("-cor")
        rows = [np.flatnonzero(fitted & (codes == g)) for g in range(len(groups))]
        factors = [triangle(profiles.X, rows[g], usable, g, scale=scale) for g in range(len(groups))]
        tied = _tied(factors, [len(r) for r in rows])
        if tied.any():
            names = [profiles.features[j] for j in usable.kept[tied]]
            reason = "follows linearly from other features among the controls"
            lost = pd.concat([lost, dropped("sphere", "feature", names, reason)], ignore_index=True)
            usable = replace(usable, kept=usable.kept[~tied], mean=usable.mean[:, ~tied], sd=usable.sd[:, ~tied])
            factors = [triangle(profiles.X, rows[g], usable, g, scale=scale) for g in range(len(groups))]
        W = [_whiten(f, len(r), method, step.epsilon, g) for f, r, g in zip(factors, rows, groups, strict=True)]
        return cls(
            list(profiles.features), groups, usable, np.stack(W), method, by, step.reference, float(step.limit), lost
        )

    def apply(self, profiles: Profiles) -> tuple[Profiles, pd.DataFrame]:
        """Return the wells sphered, as float32.

        Returns
        -------
        profiles : Profiles
            The K features used (for the PCA methods, components ``Sphere_0001`` and so on), without
            wells that lack more than half of them; other gaps are filled with the controls' mean.
        dropped : DataFrame
            Features left out at fitting and wells left out now.

        Raises
        ------
        ShapeError, PlateError
            If features or batches are not those it was fitted on, or a value is beyond the limit.
        """
        if list(profiles.features) != self.features:
            raise ShapeError(
                f"These wells have {len(profiles.features)} features, but sphering was fitted on "
                f"{len(self.features)}, or names or order differ. Do the earlier steps first."
            )
        refuse_infinite(profiles, "sphere")
        codes, names = group_codes(profiles, self.by)
        strange = [n for n in names if n not in set(self.groups)]
        if strange:
            raise PlateError(f"Sphering was fitted for the batches {some(self.groups)}, not for {some(strange)}.")
        K = len(self.usable.kept)
        X = np.empty((len(profiles), K), dtype=np.float32)
        lost = self.usable.lost(profiles.X)
        for code, name in enumerate(names):
            g, rows, start = self.groups.index(name), np.flatnonzero(codes == code), 0
            for block in self.usable.blocks(profiles.X, rows, g, self.method.endswith("-cor")):
                product = block @ self.W[g]
                part = rows[start : start + len(block)]
                far = (np.abs(product) > self.limit).any(axis=1) & ~lost[part]
                if far.any():
                    raise PlateError(
                        f"sphere: {some(well_names(profiles, part[far]))} would lie beyond {self.limit:g} units: the "
                        "controls hardly vary in some direction. Raise epsilon, or leave out redundant features."
                    )
                X[part] = np.where(lost[part, None], 0, product)
                start += len(block)
        features = [self.features[j] for j in self.usable.kept]
        if self.method.startswith("PCA"):
            features = [f"Sphere_{i:04d}" for i in range(1, K + 1)]
        out = profiles.with_features(X, features, f"sphere {self.method}[{self.by}, {self.reference}]")
        names = well_names(profiles, np.flatnonzero(lost))
        gone = dropped("sphere", "well", names, "more than half of its features missing")
        return (out.take(~lost) if lost.any() else out), pd.concat([self.dropped, gone], ignore_index=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file."""
        arrays = {"kept": self.usable.kept, "mean": self.usable.mean, "sd": self.usable.sd, "W": self.W}
        names = ("features", "groups", "method", "by", "reference", "limit")
        meta = {"kind": "sphere", "dropped": self.dropped.to_dict("list"), **{n: getattr(self, n) for n in names}}
        write_tensors(path, arrays, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileError
            If the file is absent, damaged or of another kind.
        """
        form = {"kept": ("int64", 1), "mean": ("float64", 2), "sd": ("float64", 2), "W": ("float64", 3)}
        arrays, meta = read_tensors(path, "sphere", form)
        try:
            K, G = len(arrays["kept"]), len(meta["groups"])
            fine = arrays["W"].shape == (G, K, K) and arrays["mean"].shape == arrays["sd"].shape == (G, K)
            inside = not K or (arrays["kept"].min() >= 0 and arrays["kept"].max() < len(meta["features"]))
            if not (fine and inside and np.isfinite(arrays["W"]).all() and meta["method"] in METHODS):
                raise ValueError("its arrays do not fit each other")
            table = pd.DataFrame(meta["dropped"], columns=nothing_dropped().columns, dtype=str)
            usable = Usable(arrays["kept"], arrays["mean"], arrays["sd"])
            return cls(
                meta["features"], meta["groups"], usable, arrays["W"], meta["method"], meta["by"], meta["reference"],
                float(meta["limit"]), table,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"'{path}' is damaged ({error}). Fit it again.") from error


def triangle(
    X: NDArray[np.float32], rows: NDArray[np.intp], usable: Usable, g: int, *, scale: bool
) -> NDArray[np.float64]:
    """Return a matrix with the same singular values and right vectors as the centred rows.

    The rows themselves where they are no more than the K columns, else the K x K triangular factor,
    built up block by block. Shape (min(n, K), K), float64.
    """
    stacked = np.zeros((0, len(usable.kept)))
    for block in usable.blocks(X, rows, g, scale):
        stacked = np.vstack([stacked, block])
        if len(stacked) > len(usable.kept):
            stacked = linalg.qr(stacked, mode="r", check_finite=False, overwrite_a=True)[0][: stacked.shape[1]]
    return stacked


def _tied(factors: list[NDArray[np.float64]], counts: list[int]) -> NDArray[np.bool_]:
    """Columns that follow linearly from others, in a group with more controls than columns."""
    tied = np.zeros(factors[0].shape[1], dtype=bool)
    for factor, n in zip(factors, counts, strict=True):
        K = factor.shape[1]
        size = np.sqrt((factor**2).sum(axis=0))
        if n <= K:
            continue
        found: Any = linalg.qr(factor / size, mode="r", pivoting=True, check_finite=False)
        R, order = found
        tied[order[np.abs(np.diag(R)) < _TIED]] = True
    return tied


def _whiten(factor: NDArray[np.float64], n: int, method: str, epsilon: float, group: str) -> NDArray[np.float64]:
    """Whitening matrix of `pycytominer.operations.Spherize` for n centred rows with this factor, (K, K)."""
    K = factor.shape[1]
    if n <= K:
        log.warning(
            "sphere (%s): %d controls for %d features; directions that they do not span are scaled by the least "
            "spread they show. Raise epsilon, or leave out redundant features first.",
            group, n, K,
        )  # fmt: skip
    _, size, turn = linalg.svd(factor, full_matrices=True)
    rank = max(int((size > size[0] * _TIED).sum()), 1)  # the rest is rounding of float32, which must not be blown up
    size = np.concatenate([size[:rank], np.repeat(size[rank - 1], K - rank)]) + epsilon
    W = (turn / size[:, None]).T * np.sqrt(n - 1)
    return W @ turn if method.startswith("ZCA") else W
