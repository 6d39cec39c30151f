"""Every plate on one scale: features centred and scaled on the plate's own controls.

pycytominer does the arithmetic, within limits: a group without controls is refused, and a feature
without spread among them never becomes a huge number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import Step
from phenohit.data.dropped import dropped
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, PlateError, ShapeError, nearest, some
from phenohit.profiles.controls import (
    ROUNDING,
    group_codes,
    reference_rows,
    refuse_infinite,
    require_reference,
    well_names,
)
from phenohit.profiles.verbs import pycytominer

__all__ = ["METHODS", "Normalise", "normalise"]

METHODS = ("mad_robustize", "standardize", "robust_z")
_BLOCK = 1 << 22  # values held in float64 at once: 32 MB
_FINE, _FEW, _FLAT, _FAR = 0, 1, 2, 3


@dataclass(frozen=True, eq=False)
class Normalise:
    """Centre and spread of every feature in every group, and where they cannot be used.

    Attributes
    ----------
    features : list of str, length F
        Features it was fitted on, and those it accepts.
    groups : list of str, length G
        Plates (or batches) it was fitted on.
    centre, spread : float64 arrays, shape (G, F)
        In the features' own units; `spread` includes epsilon where the method adds one.
    refused : int8 array, shape (G, F)
        0: used; 1: too few reference wells have a value; 2: no spread among the reference wells;
        3: a well would lie further than `limit` units away.
    method : {'mad_robustize', 'standardize', 'robust_z'}
    by : {'plate', 'batch', 'all'}
    reference : {'negcon', 'plate'}
    limit : float
    """

    features: list[str]
    groups: list[str]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    refused: NDArray[np.int8]
    method: str
    by: Literal["plate", "batch", "all"]
    reference: Literal["negcon", "plate"]
    limit: float

    @classmethod
    def fit(cls, profiles: Profiles, step: Step) -> Self:
        """Learn centre and spread of every group from its reference wells.

        Parameters
        ----------
        profiles : Profiles, P rows
            Wells with plates, controls included.
        step : Step
            ``method`` is one of `METHODS` (empty: mad_robustize): standardize is (x - mean) / SD with
            divisor n; mad_robustize is (x - median) / (1.4826 MAD + epsilon); robust_z is
            (x - median) / SD. The first two are pycytominer's.

        Raises
        ------
        PlateError
            If a group has too few reference wells, or a well no group.
        ColumnError, ConfigError

        Notes
        -----
        Missing values among the reference wells are passed over, as pycytominer does; a feature
        that fewer than ``min_controls`` of them have is refused in that group. A feature is also
        refused where the reference wells do not differ by more than float32 rounding (pycytominer
        divides by epsilon there: 1e14 under its default), or where any well of the group would
        end up beyond ``step.limit``.
        """
        method, by = step.method or "mad_robustize", step.by or "plate"
        if method not in METHODS:
            raise ConfigError(f"step normalise: method '{method}' is not known. {nearest(method, METHODS)}")
        _check(step)
        refuse_infinite(profiles, "normalise")
        codes, groups = group_codes(profiles, by)
        is_reference = reference_rows(profiles, step.reference)
        require_reference(
            profiles, codes, groups, is_reference,
            by=by, reference=step.reference, least=step.min_controls, doing="Normalising",
        )  # fmt: skip
        shape = (len(groups), len(profiles.features))
        centre, spread, refused = np.zeros(shape), np.ones(shape), np.zeros(shape, dtype=np.int8)
        for g, rows in enumerate(_members(codes, len(groups))):
            for part in _parts(len(rows), shape[1]):
                block = _gather(profiles.X, rows, part)
                fitted = _fit_block(block, is_reference[rows], method, step)
                centre[g, part], spread[g, part], refused[g, part] = fitted
        return cls(
            list(profiles.features), groups, centre, spread, refused, method, by, step.reference, float(step.limit)
        )

    @property
    def gone(self) -> NDArray[np.bool_]:
        """Features refused in more than half of the groups, which go everywhere; shape (F,)."""
        return 2 * (self.refused > 0).sum(axis=0) > len(self.groups)

    def apply(self, profiles: Profiles, *, everywhere: bool = True) -> tuple[Profiles, pd.DataFrame]:
        """Return the wells on the new scale.

        Parameters
        ----------
        profiles : Profiles, P rows
        everywhere : bool
            Leave a feature out everywhere if it is refused in more than half of the groups. False:
            it stays, missing where it is refused, so that the columns do not depend on the wells.

        Returns
        -------
        profiles : Profiles
            float32; NaN where a feature is refused in a group. Without the features that are
            refused in more than half of the groups, and without the wells of groups in which no
            feature is left. Wells that were not there at fitting are held within the limit.
        dropped : DataFrame
            One line per feature refused anywhere, with the groups; one per well left out.

        Raises
        ------
        ShapeError, PlateError
            If features or groups are not those it was fitted on.
        ColumnError
            If no feature is left.
        """
        if list(profiles.features) != self.features:
            raise ShapeError(
                f"These wells have {len(profiles.features)} features, but {len(self.features)} were normalised, "
                "or names or order differ. Fit on the same features."
            )
        codes, names = group_codes(profiles, self.by)
        strange = [n for n in names if n not in set(self.groups)]
        if strange:
            raise PlateError(f"Controls were not fitted for {self.by} {some(strange)}. Fit on these wells.")
        place = np.array([self.groups.index(n) for n in names], dtype=np.intp)
        gone = self.gone & everywhere
        kept = np.flatnonzero(~gone)
        if not len(kept):
            raise ColumnError(
                f"normalise: none of the {len(self.features)} features has a usable spread among the reference "
                f"wells of most groups ({self.by}). Check profiles.controls, or set reference: plate."
            )
        X = np.empty((len(profiles), len(kept)), dtype=np.float32)
        dead = np.zeros(len(profiles), dtype=bool)
        for g, rows in zip(place, _members(codes, len(names)), strict=True):
            bad = self.refused[g] > 0
            dead[rows] = bad[kept].all()
            for part in _parts(len(rows), len(kept)):
                chosen = kept[part]
                block = _gather(profiles.X, rows, chosen)
                block -= self.centre[g, chosen]
                block /= self.spread[g, chosen]
                block[:, bad[chosen]] = np.nan
                np.clip(block, -self.limit, self.limit, out=block)
                X[_run(rows), part] = block
        lists = [
            self._listed(gone),
            dropped("normalise", "well", well_names(profiles, np.flatnonzero(dead)), _dead(self)),
        ]
        step = f"{self.method}[{self.by}, {self.reference}]"
        out = profiles.with_features(X, [self.features[j] for j in kept], step)
        return (out.take(~dead) if dead.any() else out), pd.concat(lists, ignore_index=True)

    def _listed(self, gone: NDArray[np.bool_]) -> pd.DataFrame:
        """One line per feature that was refused anywhere."""
        who = "controls" if self.reference == "negcon" else "wells"
        texts = {
            _FEW: f"too few {who} have a value",
            _FLAT: f"no spread among the {who}",
            _FAR: f"spread among the {who} so small that a well lies beyond {self.limit:g} units",
        }
        ids, reasons = [], []
        for j in np.flatnonzero((self.refused > 0).any(axis=0)):
            said = []
            for code, text in texts.items():
                found = np.flatnonzero(self.refused[:, j] == code)
                if len(found):
                    shown = some((self.groups[g] for g in found), 10)
                    said.append(f"{text} in {len(found)} of {len(self.groups)} groups ({self.by}: {shown})")
            ids.append(self.features[j])
            reasons.append("; ".join(said) + (": left out" if gone[j] else ": missing there"))
        return dropped("normalise", "feature", ids, reasons)


def normalise(profiles: Profiles, step: Step) -> tuple[Profiles, pd.DataFrame]:
    """Normalise wells to the reference wells of their own group: `Normalise.fit` and `apply`.

    Memory beyond the input is one float32 matrix of the result and a block of 32 MB.
    """
    return Normalise.fit(profiles, step).apply(profiles)


def _check(step: Step) -> None:
    if step.min_controls < 2:
        raise ConfigError(f"step {step.step}: min_controls is {step.min_controls}; a spread needs at least 2.")
    if not step.limit > 0:
        raise ConfigError(f"step {step.step}: limit is {step.limit}, but must be above 0.")
    if not step.epsilon >= 0:
        raise ConfigError(f"step {step.step}: epsilon is {step.epsilon}, but must be 0 or more.")


def _dead(fitted: Normalise) -> str:
    return f"no feature can be normalised in its {fitted.by}"


def _members(codes: NDArray[np.intp], n: int) -> list[NDArray[np.intp]]:
    """Rows of each group, in order."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes, minlength=n))[:-1])


def _parts(n_rows: int, n_columns: int) -> list[slice]:
    width = max(1, _BLOCK // max(n_rows, 1))
    return [slice(a, min(a + width, n_columns)) for a in range(0, n_columns, width)]


def _run(rows: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Rows as a slice where they follow each other: a plate mostly does."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _gather(X: NDArray[np.float32], rows: NDArray[np.intp], columns: slice | NDArray[np.intp]) -> NDArray[np.float64]:
    run = _run(rows)
    both = not isinstance(run, slice) and not isinstance(columns, slice)
    return X[np.ix_(run, columns) if both else (run, columns)].astype(np.float64)


def _fit_block(
    block: NDArray[np.float64], is_reference: NDArray[np.bool_], method: str, step: Step
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int8]]:
    """Centre, divisor and state of some features of one group."""
    controls = block[is_reference]
    n = (~np.isnan(controls)).sum(axis=0)
    enough = n >= step.min_controls
    centre, spread = np.zeros(len(n)), np.ones(len(n))
    for chosen in (enough & (n == len(controls)), enough & (n < len(controls))):
        if chosen.any():  # apart, since one gap makes scipy take the slow way for all
            centre[chosen], spread[chosen] = _spread(controls[:, chosen], method)
    state = np.where(enough, _FINE, _FEW).astype(np.int8)
    state[enough & ~(spread > ROUNDING * np.abs(centre))] = _FLAT
    divisor = spread + (step.epsilon if method == "mad_robustize" else 0.0)
    used = state == _FINE
    divisor[~used] = 1.0
    with np.errstate(over="ignore"):
        far = np.fmax.reduce(np.abs(block - centre) / divisor, axis=0, initial=0.0) > step.limit
    state[used & far] = _FAR
    return centre, divisor, state


def _spread(controls: NDArray[np.float64], method: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and spread without epsilon, by the classes that pycytominer.normalize uses."""
    from sklearn.preprocessing import StandardScaler

    frame = pd.DataFrame(controls)
    if method == "mad_robustize":
        fitted = pycytominer().operations.RobustMAD(epsilon=0.0).fit(frame)
        return fitted.median.to_numpy(), fitted.mad.to_numpy()
    scaler = StandardScaler().fit(frame)
    sd = np.sqrt(scaler.var_)  # its scale_ silently becomes 1 for a constant
    return (scaler.mean_ if method == "standardize" else np.nanmedian(controls, axis=0)), sd
