"""The feature tables that few-shot methods learn from, prepared on rows that may be seen."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, ShapeError, nearest, some
from phenohit.profiles.prepare import Prepare

__all__ = ["KINDS", "beside", "dense", "parts_of", "prepared", "rows_to_scale"]

log = logging.getLogger("phenohit")

KINDS = ("profiles", "ecfp", "embedding")
_ENOUGH = 50  # rows from which means and standard deviations are taken


def parts_of(name: str) -> list[str]:
    """Return the tables that a name such as ``profiles+embedding`` joins.

    Raises
    ------
    ConfigError
        If one is not of `KINDS`, or there twice.
    """
    parts = name.split("+")
    for part in parts:
        if part not in KINDS:
            raise ConfigError(f"fewshot.inputs names '{part}'. Expected {', '.join(KINDS)}. {nearest(part, KINDS)}")
    if len(set(parts)) < len(parts):
        raise ConfigError(f"fewshot.inputs names '{name}': each table once.")
    return parts


def rows_to_scale(trained: NDArray[np.bool_], tested: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Choose the rows that scaling and feature selection are fitted on.

    Parameters
    ----------
    trained, tested : bool arrays, shape (N,)
        Rows with a label in any training or validation task, and in any test task.

    Returns
    -------
    intp array
        Rows that are learned from anyway; where they are too few, rows of no test task; where those are too few as
        well, all rows, and the log says so. Labels play no part.
    """
    for chosen in (trained, ~tested):
        if chosen.sum() >= _ENOUGH:
            return np.flatnonzero(chosen)
    log.warning(
        "features are scaled on all %d rows, those of the test tasks included: fewer than %d others are there",
        len(trained), _ENOUGH,
    )  # fmt: skip
    return np.arange(len(trained))


def dense(table: Profiles, rows: NDArray[np.intp]) -> Profiles:
    """Return rows of a table with its features as a plain float32 array (a fingerprint table is packed)."""
    taken = table.take(rows)
    return taken if isinstance(taken.X, np.ndarray) else taken.with_features(taken.X[:], taken.features, "unpack[none]")


def prepared(table: Profiles, fit: NDArray[np.intp], *, kind: str, clip: float | None) -> Profiles:
    """Fill gaps, leave out useless features, standardise; fingerprints stay 0 and 1.

    Parameters
    ----------
    table : Profiles, N rows
    fit : intp array
        Rows to learn that from; see `rows_to_scale`.
    kind : {"profiles", "ecfp", "embedding"}
    clip : float, optional
        Limit on raw profile values.
    """
    bits = kind == "ecfp"
    ready = Prepare.fit(
        table.take(fit),
        scale=not bits,
        prune=not bits,
        clip=clip if kind == "profiles" else None,
        scope="training tasks",
    )
    return ready.apply(table)


def beside(table: Profiles, other: Profiles) -> tuple[Profiles, NDArray[np.intp]]:
    """Find the rows of another table that belong to the rows of the first.

    Parameters
    ----------
    table : Profiles, N rows
    other : Profiles
        Wells (matched by plate and well) where both have them, else compounds.

    Returns
    -------
    other : Profiles, N rows
        In the order of `table`; where nothing belongs to a row, its features are NaN.
    missing : intp array
        Those rows.

    Raises
    ------
    ShapeError
        If nothing matches, or a key of `other` is there twice.
    """
    by_well = all("Metadata_Well" in t.rows and "Metadata_Plate" in t.rows for t in (table, other))
    mine, theirs = (
        (t.rows["Metadata_Plate"].astype(str) + "/" + t.rows["Metadata_Well"].astype(str)) if by_well
        else pd.Series(t.compounds)
        for t in (table, other)
    )  # fmt: skip
    if theirs.duplicated().any():
        raise ShapeError(f"The added table holds rows twice: {some(theirs[theirs.duplicated()])}.")
    at = pd.Index(theirs).get_indexer(pd.Index(mine))
    missing = np.flatnonzero(at < 0)
    if len(missing) == len(at):
        key = "plate and well" if by_well else "compound"
        shown = f"e.g. {some(mine[:2])} and {some(theirs[:2])}"
        raise ShapeError(f"No row of the added table belongs to a row of the profiles (matched by {key}; {shown}).")
    X = np.asarray(other.X[np.maximum(at, 0)], dtype=np.float32).copy()
    X[missing] = np.nan
    return table.with_features(X, [f"added_{f}" for f in other.features], "beside[none]"), missing
