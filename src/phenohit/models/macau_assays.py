"""What is known of the assays, as side features of Macau."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.columns import kind_of, parse_numbers
from phenohit.data.tables import read_text
from phenohit.errors import ColumnError, FileError, nearest, some

__all__ = ["read_assay_features"]

log = logging.getLogger("phenohit")


def read_assay_features(path: str, tasks: pd.DataFrame) -> NDArray[np.float32]:
    """Read the features of the assays that tasks belong to.

    Parameters
    ----------
    path : str
        Table with a column ``assay``, one row per assay. Columns of numbers are standardised, a missing one is the
        mean of the others; a column of text becomes one column of zeros and ones per value that at least two of the
        assays have.
    tasks : DataFrame, T rows
        With a column ``assay``.

    Returns
    -------
    float32 (T, F)
        Columns that do not vary are left out.

    Raises
    ------
    FileError, ColumnError
        If the table cannot be read, has no column ``assay``, names an assay twice or lacks one, or holds nothing that
        tells these assays apart.
    """
    table = read_text(path)
    if "assay" not in table:
        raise ColumnError(f"'{path}' has no column 'assay', by which its rows are told. {nearest('assay', table)}")
    twice = table["assay"][table["assay"].duplicated()].unique()
    if len(twice):
        raise FileError(f"'{path}' names {some(twice)} in more than one row. Keep one row per assay.")
    wanted = pd.Index(tasks["assay"].astype(str))
    absent = wanted.unique().difference(table["assay"])
    if len(absent):
        raise FileError(
            f"'{path}' lacks {len(absent)} of {wanted.nunique()} assays: {some(absent)}. Add a row for each; cells may "
            "stay empty."
        )
    rows = table.set_index("assay").loc[wanted]
    features = [column for name in rows for column in _columns(rows[name])]
    if not features:
        raise FileError(f"'{path}' holds no column in which these {len(rows)} assays differ.")
    log.info("macau: %d features of assays from %d columns of '%s'", len(features), rows.shape[1], path)
    return np.stack(features, axis=1).astype(np.float32)


def _columns(values: pd.Series) -> list[NDArray[np.float64]]:
    """Return the features that a column gives: one of numbers, or one per value."""
    if kind_of(values.where(values != "")) == "number":
        numbers, _ = parse_numbers(values)
        given = numbers[np.isfinite(numbers)]
        if not len(given) or np.ptp(given) == 0:
            return []
        return [np.nan_to_num((numbers - given.mean()) / given.std(), nan=0.0, posinf=0.0, neginf=0.0)]
    count = values[values != ""].value_counts()
    return [(values == value).to_numpy(float) for value in count.index[(count >= 2) & (count < len(values))]]
