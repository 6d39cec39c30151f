"""What a model reads: gaps filled, useless and repeated features left out, the rest standardised.

Everything is fitted on training rows and applied to all others unchanged.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.matrix import RowMatrix
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, ShapeError, some
from phenohit.tensors import read_tensors, write_tensors

__all__ = ["Prepare"]

_BLOCK = 2048  # rows per block: short enough for float32 sums, long enough for fast products
# A product of standardised columns over one block errs by less than 2048 x 2^-24 of the block's
# length, whatever the data; pairs closer to the limit than that are decided in float64.
_DOUBT = 2e-4
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Prepare:
    """Feature selection, imputation and scaling, fitted once and applied to any rows.

    Attributes
    ----------
    features : list of str, length F
        Features it was fitted on, and those it accepts.
    kept : int64 array, shape (K,)
        Columns that remain, in their order.
    median, mean, sd : float64 arrays, shape (K,)
        Of the training rows. Gaps become the median; with `scale`, ``(x - mean) / sd`` follows.
    scale : bool
    clip : float or None
        Raw values beyond this are set to it first.
    scope : str
        What the training rows were, for the history: ``fold``, ``all``.
    dropped : DataFrame
        Features left out, with reasons.
    """

    features: list[str]
    kept: NDArray[np.int64]
    median: NDArray[np.float64]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    scale: bool
    clip: float | None
    scope: str
    dropped: pd.DataFrame

    @classmethod
    def fit(
        cls,
        profiles: Profiles,
        *,
        prune: bool = True,
        max_correlation: float = 0.95,
        max_missing: float = 0.05,
        scale: bool = True,
        common: bool = False,
        clip: float | None = None,
        scope: str = "fold",
    ) -> Prepare:
        """Learn from training rows what to leave out and how to scale.

        Parameters
        ----------
        profiles : Profiles, N rows
            Training rows only.
        prune : bool
            Leave out a feature whose correlation with an earlier, kept one exceeds `max_correlation`
            in absolute value.
        max_correlation : float in (0, 1]
        max_missing : float in [0, 1]
            Largest share of gaps (NaN or infinite) a feature may have.
        scale : bool
            Standardise to mean 0 and standard deviation 1 (divisor N).
        common : bool
            With `scale`, divide all features by one number, the root mean square of their standard
            deviations. Right for fingerprint bits: standardised one by one, a bit that three
            compounds have would outweigh the bits that half of them have.
        clip : float above 0, optional
            Limit on raw values, in the features' own units.
        scope : str

        Raises
        ------
        ShapeError
            Without rows.
        ConfigError
            For an impossible limit.

        Notes
        -----
        Constant features always go, and so do features without any value. Correlations are exact
        over all rows: products in float32 blocks, summed in float64, and recomputed in float64 for
        pairs near the limit. Memory beyond the input is one block and one F x F matrix.
        """
        _check_limits(max_correlation, max_missing, clip)
        if not len(profiles):
            raise ShapeError("There are no training rows to prepare features on.")
        missing, low, high = _survey(profiles.X, clip)
        gappy = missing > max_missing * len(profiles)
        constant = ~gappy & ~(high > low)
        kept = np.flatnonzero(~gappy & ~constant)
        median = _medians(profiles.X, kept, missing, clip)
        mean, sd = _moments(profiles.X, kept, median, clip)
        flat = ~(sd > 0)  # gaps filled by the only other value, or a spread lost to rounding
        constant[kept[flat]] = True
        tables = [
            _left_out(profiles, gappy, scope, [f"{k} of {len(profiles)} values missing" for k in missing[gappy]]),
            _left_out(profiles, constant, scope, "constant in the training rows"),
        ]
        kept, median, mean, sd = kept[~flat], median[~flat], mean[~flat], sd[~flat]
        if prune and len(kept) > 1:
            keep, partner, r = _prune(profiles.X, _Columns(kept, median, mean, sd, clip), max_correlation)
            gone = np.flatnonzero(~keep)
            reasons = [f"r = {r[j]:.3f} with {profiles.features[kept[partner[j]]]}" for j in gone]
            ids = [profiles.features[kept[j]] for j in gone]
            tables.append(dropped(f"prepare[{scope}]", "feature", ids, reasons))
            kept, median, mean, sd = kept[keep], median[keep], mean[keep], sd[keep]
        if common and len(sd):
            sd = np.full(len(sd), np.sqrt(np.mean(sd**2)))
        table = pd.concat(tables, ignore_index=True)
        return cls(list(profiles.features), kept, median, mean, sd, scale, clip, scope, table)

    def apply(self, profiles: Profiles) -> Profiles:
        """Return the same rows with the prepared features.

        Raises
        ------
        ShapeError
            If the features are not those of the training rows.
        """
        if list(profiles.features) != self.features:
            other = [f for f in self.features if f not in set(profiles.features)]
            raise ShapeError(
                f"These rows have {len(profiles.features)} features, the training rows had {len(self.features)}"
                + (f"; missing: {some(other)}." if other else ", of other names or in another order.")
            )
        columns = _Columns(self.kept, self.median, self.mean, self.sd, self.clip)
        names = [self.features[k] for k in self.kept]
        if isinstance(profiles.X, RowMatrix) and self.clip is None:  # no gaps: it stays packed
            moved = (self.mean, self.sd) if self.scale else ()
            return self._history(profiles.with_features(profiles.X.affine(self.kept, *moved), names, self._select))
        X = np.empty((len(profiles), len(self.kept)), dtype=np.float32)
        for start in range(0, len(profiles), _BLOCK):
            block = columns.read(profiles.X, start)
            if self.scale:
                block = np.clip((block - self.mean) / self.sd, -_LARGEST, _LARGEST)
            X[start : start + _BLOCK] = block
        return self._history(profiles.with_features(X, names, self._select))

    @property
    def _select(self) -> str:
        return f"select[{self.scope}]"

    def _history(self, out: Profiles) -> Profiles:
        return replace(out, history=(*out.history, f"standardise[{self.scope}]")) if self.scale else out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file."""
        arrays = {"kept": self.kept, "median": self.median, "mean": self.mean, "sd": self.sd}
        meta = {
            "kind": "prepare", "features": self.features, "scale": self.scale, "clip": self.clip,
            "scope": self.scope, "dropped": self.dropped.to_dict("list"),
        }  # fmt: skip
        write_tensors(path, arrays, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileError
            If the file is absent, damaged or of another kind.
        """
        form = {"kept": ("int64", 1), "median": ("float64", 1), "mean": ("float64", 1), "sd": ("float64", 1)}
        arrays, meta = read_tensors(path, "prepare", form)
        features, kept, clip = meta.get("features"), arrays["kept"], meta.get("clip")
        numbers = [arrays[name] for name in ("median", "mean", "sd")]
        fine = (
            isinstance(features, list)
            and all(len(a) == len(kept) and np.isfinite(a).all() for a in numbers)
            and (arrays["sd"] > 0).all()
            and (len(kept) == 0 or (kept[0] >= 0 and kept[-1] < len(features) and (np.diff(kept) > 0).all()))
            and (clip is None or (isinstance(clip, float | int) and clip > 0))
        )
        try:
            if not fine:
                raise ValueError("its columns do not fit its features")
            table = pd.DataFrame(meta["dropped"], columns=nothing_dropped().columns, dtype=str)
            return cls(features, kept, *numbers, bool(meta["scale"]), clip, str(meta["scope"]), table)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"'{path}' is damaged ({error}). Fit it again.") from error


@dataclass(frozen=True, eq=False)
class _Columns:
    """How chosen columns are read from raw rows, in blocks."""

    kept: NDArray[np.int64]
    median: NDArray[np.float64]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    clip: float | None

    def read(self, X: NDArray[np.float32], start: int) -> NDArray[np.float64]:
        """Clipped values with gaps filled, in float64, for the block that begins at `start`."""
        block = _clipped(X[start : start + _BLOCK][:, self.kept], self.clip)
        return np.where(np.isfinite(block), block, self.median).astype(np.float64, copy=False)


def _check_limits(max_correlation: float, max_missing: float, clip: float | None) -> None:
    if not 0 < max_correlation <= 1:
        raise ConfigError(f"max_correlation is {max_correlation}, but must be above 0 and at most 1.")
    if not 0 <= max_missing <= 1:
        raise ConfigError(f"max_missing is {max_missing}, but must be from 0 to 1.")
    if clip is not None and not clip > 0:
        raise ConfigError(f"clip is {clip}, but must be above 0 (or empty for no clipping).")


def _clipped(block: NDArray[Any], clip: float | None) -> NDArray[Any]:
    return block if clip is None else np.clip(block, -clip, clip)


def _left_out(profiles: Profiles, mask: NDArray[np.bool_], scope: str, reason: str | list[str]) -> pd.DataFrame:
    ids = [profiles.features[j] for j in np.flatnonzero(mask)]
    return dropped(f"prepare[{scope}]", "feature", ids, reason)


def _survey(X: NDArray[np.float32], clip: float | None) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Gaps, smallest and largest value of every column."""
    F = X.shape[1]
    missing, low, high = np.zeros(F, dtype=np.int64), np.full(F, np.inf), np.full(F, -np.inf)
    for start in range(0, len(X), _BLOCK):
        block = _clipped(X[start : start + _BLOCK], clip)
        gap = ~np.isfinite(block)
        missing += gap.sum(axis=0)
        low = np.minimum(low, np.where(gap, np.inf, block).min(axis=0))
        high = np.maximum(high, np.where(gap, -np.inf, block).max(axis=0))
    return missing, low, high


def _medians(X: NDArray[np.float32], kept: NDArray[Any], missing: NDArray[Any], clip: float | None) -> NDArray[Any]:
    """Median of each kept column; only few columns are held at once."""
    medians = np.empty(len(kept))
    for first in range(0, len(kept), 32):
        part = slice(first, first + 32)
        columns = _clipped(np.ascontiguousarray(X[:, kept[part]].T), clip)
        if missing[kept[part]].any():
            medians[part] = [np.median(c[np.isfinite(c)].astype(np.float64)) for c in columns]
        else:
            medians[part] = np.median(columns.astype(np.float64), axis=1)
    return medians


def _moments(
    X: NDArray[np.float32], kept: NDArray[Any], median: NDArray[Any], clip: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (divisor N) in two passes: no cancellation for large means."""
    columns = _Columns(kept, median, median, median, clip)
    mean, square = np.zeros(len(kept)), np.zeros(len(kept))
    for start in range(0, len(X), _BLOCK):
        mean += (columns.read(X, start) - median).sum(axis=0)
    mean = median + mean / len(X)
    for start in range(0, len(X), _BLOCK):
        square += ((columns.read(X, start) - mean) ** 2).sum(axis=0)
    return mean, np.sqrt(square / len(X))


def _prune(
    X: NDArray[np.float32], columns: _Columns, limit: float
) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.float64]]:
    """Which columns stay; for the others the kept column that stands for them, and their correlation."""
    K = len(columns.kept)
    r = np.zeros((K, K))
    for start in range(0, len(X), _BLOCK):
        Z = ((columns.read(X, start) - columns.mean) / columns.sd).astype(np.float32)
        r += Z.T @ Z
    r /= len(X)
    doubtful = np.argwhere(np.triu(np.abs(np.abs(r) - limit) < _DOUBT, k=1))
    exact = _exact(X, columns, doubtful)
    r[doubtful[:, 0], doubtful[:, 1]] = exact
    r[doubtful[:, 1], doubtful[:, 0]] = exact
    r = np.clip(r, -1, 1)  # rounding must not exceed a limit of 1
    strong = np.abs(r) > limit
    keep = np.ones(K, dtype=bool)
    partner = np.zeros(K, dtype=np.intp)
    for j in range(1, K):
        earlier = strong[j, :j] & keep[:j]
        if earlier.any():
            keep[j], partner[j] = False, np.argmax(earlier)
    return keep, partner, r[np.arange(K), partner]


def _exact(X: NDArray[np.float32], columns: _Columns, pairs: NDArray[np.intp]) -> NDArray[np.float64]:
    """Correlation of some pairs of columns in float64."""
    total = np.zeros(len(pairs))
    if not len(pairs):
        return total
    used, place = np.unique(pairs, return_inverse=True)
    place = place.reshape(pairs.shape)
    some_columns = _Columns(
        columns.kept[used], columns.median[used], columns.mean[used], columns.sd[used], columns.clip
    )
    for start in range(0, len(X), _BLOCK):
        Z = (some_columns.read(X, start) - some_columns.mean) / some_columns.sd
        for first in range(0, len(pairs), 256):
            part = slice(first, first + 256)
            total[part] += np.einsum("np,np->p", Z[:, place[part, 0]], Z[:, place[part, 1]])
    return total / len(X)
