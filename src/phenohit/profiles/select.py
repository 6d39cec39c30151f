"""Feature selection as pycytominer does it, but fitted on training rows and with every reason listed.

Within a run, `phenohit.profiles.prepare` selects inside every fold. This is for those who want the
field's own operations on a table, without letting the rows they will be judged on take part.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, FileError, ShapeError, nearest, some
from phenohit.files import read_json, write_json
from phenohit.profiles.verbs import pycytominer

__all__ = ["OPERATIONS", "Limits", "Select"]

OPERATIONS = (
    "drop_na_columns",
    "variance_threshold",
    "frequency_threshold",
    "correlation_threshold",
    "blocklist",
    "drop_outliers",
    "noise_removal",
)


@dataclass(frozen=True)
class Limits:
    """Limits of the operations; the defaults are pycytominer's.

    Attributes
    ----------
    na_cutoff : float
        drop_na_columns: largest share of missing values.
    min_variance : float
        variance_threshold: features with a variance of at most this go.
    freq_cut, unique_cut : float
        frequency_threshold: least ratio of the second most common value to the most common one, and
        least share of distinct values.
    corr_threshold : float
        correlation_threshold: of two features with a Pearson correlation above this, the one that is
        more correlated with all others goes. Strong negative correlations are kept.
    outlier_cutoff : float
        drop_outliers: features with a value beyond this go.
    blocklist : tuple of str
        blocklist: feature names; empty: the list that pycytominer carries.
    noise_cutoff : float
        noise_removal: largest mean standard deviation within the wells of a perturbation.
    perturbation : str
        noise_removal: column of the rows that says which wells are the same perturbation.
    """

    na_cutoff: float = 0.05
    min_variance: float = 1e-6
    freq_cut: float = 0.05
    unique_cut: float = 0.01
    corr_threshold: float = 0.9
    outlier_cutoff: float = 500.0
    blocklist: tuple[str, ...] = ()
    noise_cutoff: float = 0.8
    perturbation: str = "Metadata_compound_id"


@dataclass(frozen=True, eq=False)
class Select:
    """Features that remain, and why the others do not.

    Attributes
    ----------
    features : list of str, length F
        Features it was fitted on, and those it accepts.
    kept : list of str, length K
    operations : list of str
        In the order they were done.
    limits : Limits
    scope : str
        What the training rows were, for the history: ``fold``, ``all``, ``train``.
    dropped : DataFrame
        One line per feature left out, with the operation.
    """

    features: list[str]
    kept: list[str]
    operations: list[str]
    limits: Limits
    scope: str
    dropped: pd.DataFrame

    @classmethod
    def fit(
        cls,
        profiles: Profiles,
        operations: Sequence[str] = ("drop_na_columns", "variance_threshold", "correlation_threshold"),
        *,
        limits: Limits | None = None,
        scope: str = "train",
    ) -> Self:
        """Choose features on training rows.

        Parameters
        ----------
        profiles : Profiles, N rows
            Training rows only; pass those you may learn from, e.g. ``profiles.take(train)``.
        operations : sequence of str
            Any of `OPERATIONS`, done in this order, each on what the earlier ones left.
        limits : Limits, optional
        scope : str

        Raises
        ------
        ConfigError
            For an unknown operation; names the nearest.
        ShapeError, ColumnError
            Without rows, with infinite values, or if nothing is left.

        Notes
        -----
        ``pycytominer.feature_select`` decides, one operation at a time. It is given no row that is
        not in `profiles`.
        """
        limits, operations = limits or Limits(), list(operations)
        for name in operations:
            if name not in OPERATIONS:
                raise ConfigError(f"select: operation '{name}' is not known. {nearest(name, OPERATIONS)}")
        if not len(profiles):
            raise ShapeError("There are no training rows to select features on.")
        if np.isinf(profiles.X).any():
            raise ColumnError("select: there are infinite values. Set them to NaN (missing); read_profiles does so.")
        left, lists = list(profiles.features), [nothing_dropped()]
        groups = _perturbations(profiles, limits) if "noise_removal" in operations else None
        frame = pd.DataFrame(profiles.X, columns=left)  # shares memory; pycytominer reads it only
        for name in operations:
            gone = _without(frame, left, name, limits, groups)
            reason = f"{name}{_limit(name, limits)}"
            lists.append(dropped(f"select[{scope}]", "feature", [f for f in left if f in gone], reason))
            left = [f for f in left if f not in gone]
            if not left:
                raise ColumnError(f"select: '{name}'{_limit(name, limits)} leaves no feature. Loosen its limit.")
        table = pd.concat(lists, ignore_index=True)
        return cls(list(profiles.features), left, operations, limits, scope, table)

    def apply(self, profiles: Profiles) -> Profiles:
        """Return the same rows with the features that remain.

        Raises
        ------
        ShapeError
            If a feature that remains is absent.
        """
        place = {f: j for j, f in enumerate(profiles.features)}
        absent = [f for f in self.kept if f not in place]
        if absent:
            raise ShapeError(
                f"These rows lack {len(absent)} of the {len(self.kept)} selected features: {some(absent)}."
            )
        X = profiles.X[:, [place[f] for f in self.kept]]
        return profiles.with_features(X, self.kept, f"select {'+'.join(self.operations)}[{self.scope}]")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON file."""
        value = {k: getattr(self, k) for k in ("features", "kept", "operations", "scope")}
        limits, lost = asdict(self.limits), self.dropped.to_dict("list")
        write_json(path, {"kind": "select", **value, "limits": limits, "dropped": lost})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileError
            If the file is absent, damaged or of another kind.
        """
        value = read_json(path)
        if not isinstance(value, dict) or value.get("kind") != "select":
            raise FileError(f"'{path}' holds no feature selection written by PhenoHit.")
        try:
            limits = Limits(**{**value["limits"], "blocklist": tuple(value["limits"]["blocklist"])})
            table = pd.DataFrame(value["dropped"], columns=nothing_dropped().columns, dtype=str)
            if not set(value["kept"]) <= set(value["features"]):
                raise ValueError("it keeps features that it was not fitted on")
            return cls(value["features"], value["kept"], value["operations"], limits, str(value["scope"]), table)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"'{path}' is damaged ({error}). Fit it again.") from error


def _without(frame: pd.DataFrame, left: list[str], name: str, limits: Limits, groups: NDArray[Any] | None) -> set[str]:
    """Features that one operation removes from those that are left."""
    try:
        kept = pycytominer().feature_select(
            profiles=frame[left],
            features=left,
            operation=name,
            na_cutoff=limits.na_cutoff,
            corr_threshold=limits.corr_threshold,
            freq_cut=limits.freq_cut,
            unique_cut=limits.unique_cut,
            outlier_cutoff=limits.outlier_cutoff,
            min_variance=limits.min_variance,
            blocklist=list(limits.blocklist) or None,
            noise_removal_perturb_groups=None if groups is None else groups.tolist(),
            noise_removal_stdev_cutoff=None if groups is None else limits.noise_cutoff,
        )
    except ValueError as error:
        if str(error).startswith("No feature"):  # how scikit-learn says that all would go
            return set(left)
        raise ConfigError(f"select: {name} is refused: {error}. Check the limits.") from error
    return set(left) - set(kept.columns)


def _perturbations(profiles: Profiles, limits: Limits) -> NDArray[Any]:
    if limits.perturbation not in profiles.rows:
        raise ColumnError(
            f"select: noise_removal needs to know which wells are the same perturbation, but there is no column "
            f"'{limits.perturbation}'. {nearest(limits.perturbation, profiles.rows.columns)}"
        )
    return profiles.rows[limits.perturbation].to_numpy(dtype=object)


def _limit(name: str, limits: Limits) -> str:
    """Return the limit of an operation as text."""
    return {
        "drop_na_columns": f": more than {limits.na_cutoff:.3g} missing",
        "variance_threshold": f": variance at most {limits.min_variance:g}",
        "frequency_threshold": f": frequency ratio below {limits.freq_cut:g}, or distinct below {limits.unique_cut:g}",
        "correlation_threshold": f": r above {limits.corr_threshold:g} with another feature",
        "drop_outliers": f": a value beyond {limits.outlier_cutoff:g}",
        "noise_removal": f": mean SD within a perturbation above {limits.noise_cutoff:g}",
    }.get(name, "")
