"""Do reference compounds look on every plate as they always did? Wells and plates that do not are flagged.

Ha's thesis: 70 reference compounds at 4 concentrations on every plate,
compared with their history on 50 features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import ChecksConfig
from phenohit.data.matrix import take_rows
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, some
from phenohit.profiles.checks_history import (
    control_rows,
    medians,
    reference_groups,
    reference_wells,
    shared_history,
)
from phenohit.profiles.controls import ROUNDING

__all__ = ["FEATURES", "LEAST_OFF", "MOST_OFF", "References", "check_references", "reference_distances"]

MOST_OFF = 0.2  # share of a plate's reference wells beyond which the plate is flagged
LEAST_OFF = 2  # and no fewer wells than these: one odd well is no bad plate
FEATURES = 50
_LEAST_WELLS, _LEAST_PLATES = 5, 3  # of the same compound and dose in the history
_LEAST_DISTANCES = 30  # of history wells from their own history, for a limit
_PRIOR = 10.0  # wells that the spread over all groups counts for beside a group's own: its floor
_FAR = 20.0  # one feature counts no more than this many spreads
_SIGMAS = 3.5  # upper spreads of the distance: about 1 in 1,000 beyond, as the limit is an estimate (1 in 4,300 if not)
_MOST_FOLDS = 20  # plates are left out one by one up to here, then in so many parts
_MOST_WELLS = 5000  # that features are chosen on
_LEAST_TO_COMPARE, _LEAST_SPREAD, _PLATE_SIGMAS = 4, 0.05, 4.0  # plates; of their median log distances
_CANDIDATES = 400  # features among which near-copies are looked for
_GAPS = 0.05  # share of historic wells that may lack a feature
_COPY = 0.9  # |r| of residuals beyond which one of two features is enough
_MOST_CONTROLS = 2000  # kept with a history


@dataclass(frozen=True, eq=False)
class References:
    """How far reference wells are from the history of their compound and dose.

    Attributes
    ----------
    wells : DataFrame, one row per reference well
        ``row`` (of the profiles), ``plate, reference, concentration``; ``n_history`` (wells of the same
        compound and dose it was compared with); ``distance`` (NaN: not judged) and ``limit``; ``reason`` why
        it was not judged.
    history : Profiles or None
        Reference wells that are not off and, for scale, some negative controls: a history for later runs.
    note : str
        What was judged and what not.
    """

    wells: pd.DataFrame
    history: Profiles | None
    note: str

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Wells that were compared with their history, in the order of `wells`."""
        return (self.wells["reason"] == "").to_numpy(dtype=bool)

    @property
    def off(self) -> NDArray[np.bool_]:
        """Wells beyond the limit, in the order of `wells`."""
        return (self.wells["distance"] > self.wells["limit"]).to_numpy(dtype=bool)


def check_references(before: Profiles, after: Profiles, config: ChecksConfig, *, seed: int = 0) -> References:
    """Compare every reference well with earlier wells of the same compound and dose.

    Parameters
    ----------
    before : Profiles
        All wells, to count those that the steps left out.
    after : Profiles
        Normalised wells.
    config : ChecksConfig
        `references` (empty: nothing is judged) and `history`.
    seed : int
        Of the wells that are drawn where there are more than 5,000 to choose features on.

    Raises
    ------
    ConfigError
        If no well is a reference, or the history was normalised otherwise.
    ColumnError
        If there is no such column, or the history shares no feature.
    FileError
        If the history cannot be read.

    Notes
    -----
    With a history elsewhere, wells are compared with all of it; its plates that are judged here have no part.
    Without, every plate is compared with the other plates (above 20 plates, with 19 of 20 parts of them). The
    limit comes from the distances d of history wells to the history without their own plate: d^(2/3) is close to
    normal where features are (Wilson and Hilferty 1931), and the limit is its median plus 3.5 times the spread of
    the upper half, (third quartile - median) / 0.6745. Plates whose median log distance is 4 spreads above that of
    the others have no part in limit and history. A plate is flagged where more than 20 % of its judged reference
    wells, and at least 2, are beyond the limit.

    On simulated clean screens, 0.03 to 0.17 % of wells with normal noise were beyond the limit, 0.4 to 0.5 % where
    it came from 40 wells, 0.6 % with t noise of 5 degrees of freedom, 2 % with 3; none of 4,740 plates was flagged.
    """
    if not config.references:
        if config.history:
            raise ConfigError("checks.history is set, but checks.references names no wells to compare with it.")
        return References(_table(), None, "")
    is_reference, notes = reference_wells(after.rows, config.references)
    lost = int(reference_wells(before.rows, config.references)[0].sum()) - int(is_reference.sum())
    rows = np.flatnonzero(is_reference)
    X, table = take_rows(after.X, rows), reference_groups(after.rows.iloc[rows], config.references)
    table.insert(0, "row", rows)
    controls = control_rows(after)
    if config.history:
        past, features, more = shared_history(after, take_rows(after.X, controls), X, config)
        notes += more
        known = reference_wells(past.rows, config.references, strict=False)[0]
        old, X_old = reference_groups(past.rows.iloc[np.flatnonzero(known)], config.references), past.X[known]
        codes = pd.factorize(pd.concat([_key(old), _key(table)]))[0]
        codes_old, codes, plates = codes[: len(old)], codes[len(old) :], old["plate"].to_numpy(str)
        C = past.X[control_rows(past)]
        apart, _, fit = _leave_out(X_old, codes_old, plates, C, _plates(past, control_rows(past)), seed)
        zero = medians(C)
        use = X_old[fit], codes_old[fit], plates[fit]
        distance, n_history = reference_distances(*use, X[:, features], codes, zero, seed=seed)
    else:
        codes, plates = pd.factorize(_key(table))[0], table["plate"].to_numpy(str)
        C = take_rows(after.X, controls)
        apart, n_history, fit = _leave_out(X, codes, plates, C, _plates(after, controls), seed)
        distance = apart
    if not fit.all():
        notes.append(f"off as a whole, so no history for others: {some(np.unique(plates[~fit]).tolist(), 5)}")
    calm = apart[fit]
    limit = _limit(calm)
    table = table.assign(n_history=n_history, limit=limit, reason=_reasons(distance, n_history, limit))
    table["distance"] = distance if np.isfinite(limit) else np.nan
    found = References(table[list(_table())], None, "; ".join([*_told(table, after, lost), *notes]))
    kept = np.sort(np.concatenate([rows[~found.off], controls[:: max(1, -(-len(controls) // _MOST_CONTROLS))]]))
    return References(found.wells, after.take(np.unique(kept)), found.note)


def reference_distances(
    history: NDArray[np.float32],
    history_codes: NDArray[np.intp],
    history_plates: NDArray[np.str_],
    X: NDArray[np.float32],
    codes: NDArray[np.intp],
    zero: NDArray[np.float64] | None = None,
    *,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Distance of wells from earlier wells of the same compound and dose.

    Parameters
    ----------
    history : float32 array, shape (H, F)
    history_codes : int array, shape (H,)
        Compound and dose of every historic well.
    history_plates : str array, shape (H,)
    X : float32 array, shape (n, F)
        Wells to judge; nothing is learned from them.
    codes : int array, shape (n,)
    zero : float64 array, shape (F,), optional
        What an inactive compound looks like; else the median over groups.
    seed : int

    Returns
    -------
    distance : float64 array, shape (n,)
        Root mean square over at most 50 features of (x - median) / spread, each at most 20; NaN with fewer than
        5 historic wells on 3 plates, or where the well lacks more than half of the features.
    n_history : int array, shape (n,)

    Notes
    -----
    With medians m of the n_g wells of group g, and s the MAD (times 1.4826) of all residuals, features are
    ranked by the root mean square of (m - zero) / s over groups; near-copies (|r| of residuals above 0.9) are
    passed over. The spread of a group is sqrt((10 s^2 + n_g MAD_g^2) / (10 + n_g)), which has a floor; z is
    divided by sqrt(1 + pi / (2 n_g)), as the median has an error too.
    """
    n_groups = int(max(history_codes.max(initial=-1), codes.max(initial=-1))) + 1
    size = np.bincount(history_codes, minlength=n_groups)
    pairs = pd.DataFrame({"g": history_codes, "p": history_plates}).drop_duplicates()
    n_plates = np.bincount(pairs["g"].to_numpy(), minlength=n_groups)
    enough = (size >= _LEAST_WELLS) & (n_plates >= _LEAST_PLATES)
    distance, n_history = np.full(len(X), np.nan), np.where(enough, size, 0)[codes]
    use = enough[history_codes]
    if not use.any():
        return distance, n_history
    history, history_codes = history[use], history_codes[use]
    chosen, pooled = _choose(history, history_codes, zero, seed)
    if not len(chosen):
        return distance, n_history
    past = history[:, chosen].astype(np.float64)
    centre = _by_group(past, history_codes, n_groups)
    mad = 1.4826 * _by_group(np.abs(past - centre[history_codes]), history_codes, n_groups)
    n = size[:, None]
    spread = np.sqrt((_PRIOR * pooled**2 + n * mad**2) / (_PRIOR + n))
    spread *= np.sqrt(1 + np.pi / (2 * np.maximum(n, 1)))
    z = np.abs(X[:, chosen] - centre[codes]) / spread[codes]
    square = np.minimum(z, _FAR) ** 2
    present = ~np.isnan(square)
    judged = (present.sum(axis=1) >= max(1, len(chosen) / 2)) & enough[codes]
    total = np.where(present, square, 0.0).sum(axis=1)
    distance[judged] = np.sqrt(total[judged] / present[judged].sum(axis=1))
    return distance, n_history


def _choose(
    X: NDArray[np.float32], codes: NDArray[np.intp], zero: NDArray[np.float64] | None, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """At most 50 features that differ between groups and agree within them, and their spread within."""
    if len(X) > _MOST_WELLS:
        rows = np.sort(np.random.default_rng(seed).choice(len(X), _MOST_WELLS, replace=False))
        X, codes = X[rows], codes[rows]
    codes = np.unique(codes, return_inverse=True)[1].astype(np.intp)
    centre = _by_group(X, codes, int(codes.max()) + 1)
    residual = X - centre[codes]
    spread = 1.4826 * medians(np.abs(residual))
    if zero is None or not np.isfinite(zero).any():
        zero = np.median(centre, axis=0) if len(centre) > 1 else np.zeros(X.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        away = np.minimum(np.abs(centre - zero) / spread, _FAR)
        score = np.sqrt((away**2).mean(axis=0))
        size = np.abs(centre).max(axis=0)
        usable = np.isfinite(score) & (spread > ROUNDING * size) & (np.isnan(X).mean(axis=0) <= _GAPS)
    ranked = np.flatnonzero(usable)[np.argsort(-score[usable], kind="stable")][:_CANDIDATES]
    unit = np.clip(np.nan_to_num(residual[:, ranked] / spread[ranked]), -5, 5)
    unit /= np.maximum(np.sqrt((unit**2).sum(axis=0)), 1e-12)
    alike = np.abs(unit.T @ unit) > _COPY
    kept: list[int] = []
    for j in range(len(ranked)):
        if len(kept) < FEATURES and not alike[j, kept].any():
            kept.append(j)
    return ranked[kept], spread[ranked[kept]]


def _leave_out(
    X: NDArray[np.float32],
    codes: NDArray[np.intp],
    plates: NDArray[np.str_],
    controls: NDArray[np.float32],
    plate_of_control: NDArray[np.str_],
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.bool_]]:
    """Distance of every well from the wells of other plates, and which wells are fit to be history.

    With many plates, whole parts of them are left out at a time. Plates that are far off as a whole are then
    taken out of the history of all others, or a drifted batch would widen every spread.
    """
    number, names = pd.factorize(plates)
    fold = number % min(max(len(names), 1), _MOST_FOLDS)
    distance, n_history = np.full(len(X), np.nan), np.zeros(len(X), dtype=np.intp)
    fit = np.ones(len(X), dtype=bool)
    for _ in range(2):
        for k in range(int(fold.max(initial=-1)) + 1):
            out = fold == k
            used = fit & ~out
            # Controls of the judged plates are not history either.
            zero = medians(controls[~np.isin(plate_of_control, np.unique(plates[out]))])
            distance[out], n_history[out] = reference_distances(
                X[used], codes[used], plates[used], X[out], codes[out], zero, seed=seed
            )
        before, fit = fit, _as_usual(distance, plates)
        if (fit == before).all():
            break
    return distance, n_history, fit


def _as_usual(distance: NDArray[np.float64], plates: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Wells on plates whose median distance is not far above that of the other plates."""
    with np.errstate(divide="ignore"):
        of_plate = pd.Series(np.log(distance)).groupby(plates).median()
    known = of_plate.dropna()
    if len(known) < _LEAST_TO_COMPARE:
        return np.ones(len(distance), dtype=bool)
    middle = known.median()
    spread = max(1.4826 * (known - middle).abs().median(), _LEAST_SPREAD)
    return ~np.isin(plates, known.index[known > middle + _PLATE_SIGMAS * spread].to_numpy(str))


def _limit(distance: NDArray[np.float64]) -> float:
    known = distance[np.isfinite(distance) & (distance > 0)]
    if len(known) < _LEAST_DISTANCES:
        return np.nan
    middle, upper = np.quantile(known ** (2 / 3), [0.5, 0.75])
    return float((middle + _SIGMAS * (upper - middle) / 0.6745) ** 1.5)


def _plates(profiles: Profiles, rows: NDArray[np.intp]) -> NDArray[np.str_]:
    """Plate of these rows; '' where none is known."""
    if "Metadata_Plate" not in profiles.rows:
        return np.full(len(rows), "", dtype=np.str_)
    return profiles.rows["Metadata_Plate"].iloc[rows].astype(str).to_numpy(np.str_)


def _key(table: pd.DataFrame) -> pd.Series:
    return table["reference"] + "\x1f" + table["concentration"]


def _by_group(X: NDArray, codes: NDArray[np.intp], n: int) -> NDArray[np.float64]:
    """Median over the rows of every group, shape (n, F); NaN where there are none."""
    return pd.DataFrame(X).groupby(codes).median().reindex(range(n)).to_numpy(dtype=np.float64)


def _table() -> pd.DataFrame:
    kinds = {"row": np.intp, "plate": str, "reference": str, "concentration": str, "n_history": np.intp}
    kinds |= {"distance": np.float64, "limit": np.float64, "reason": str}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})


def _reasons(distance: NDArray[np.float64], n_history: NDArray[np.intp], limit: float) -> NDArray[np.object_]:
    few = f"fewer than {_LEAST_WELLS} historic wells of the compound and dose on {_LEAST_PLATES} plates"
    many = f"fewer than {_LEAST_DISTANCES} historic wells to learn a limit from"
    reason = np.where(np.isnan(distance), "features missing", "" if np.isfinite(limit) else many)
    return np.where(n_history == 0, few, reason).astype(object)


def _told(table: pd.DataFrame, after: Profiles, lost: int) -> list[str]:
    why = table.loc[table["reason"] != "", "reason"].value_counts()
    n = int((table["reason"] == "").sum())
    notes = [f"{n:,} of {len(table):,} reference wells were compared with their history"]
    notes += [f"not judged: {count:,} ({reason})" for reason, count in why.items()]
    notes += [f"{lost:,} reference wells were left out by the steps"] * (lost > 0)
    bare = sorted(set(after.rows["Metadata_Plate"].astype(str)) - set(table["plate"]))
    notes += [f"{len(bare):,} plates have no reference well: {some(bare, 5)}"] * bool(bare)
    return notes
