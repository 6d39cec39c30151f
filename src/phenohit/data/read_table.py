"""Read profiles from one table: Parquet, CSV, TSV; a row per well or compound."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from phenohit.data.columns import (
    ALIASES,
    METADATA,
    ColumnSplit,
    Kind,
    kind_of,
    left_out,
    parse_numbers,
    refuse_text,
    split_names,
)
from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.finish import choose_plates, finish_rows, named_columns, settings_columns
from phenohit.data.profiles import Profiles
from phenohit.data.remote import Place
from phenohit.data.tables import BATCH, TableFile, as_text
from phenohit.errors import ColumnError, FileError, PlateError, some
from phenohit.sources import ProfileSource

__all__ = [
    "STAGE",
    "copy_features",
    "infinite_values",
    "open_profiles",
    "raw_rows",
    "read_table",
    "split_table",
    "steps_of_name",
    "without_empty",
]

log = logging.getLogger("phenohit")

STAGE = "read profiles"

# Steps that file names of assembled profiles spell, e.g. profiles_var_mad_int_featselect_harmony.
_STEPS = frozenset(
    ("var", "mad", "int", "outlier", "featselect", "wellpos", "cc", "pca", "corrected", "sphering", "harmony", "combat",
     "scanorama", "fastmnn", "mnn", "scvi", "desc", "seurat")
)  # fmt: skip


def read_table(source: ProfileSource) -> tuple[Profiles, pd.DataFrame]:
    """Read a feature table; `phenohit.data.read.read_profiles` says what comes out.

    Of a Parquet file only the columns that are needed are read, and with ``source.plates`` or ``.batches``
    only the row groups that hold such plates.
    """
    place = Place(source.path, source.storage)
    table = open_profiles(source, place)
    if not table.n_rows:
        raise FileError(f"'{table.path}' has no rows below the names of its columns. Make it again, or copy it whole.")
    asked = _only_plates(source, table)
    split = split_table(source, table)
    rows, lost = finish_rows(source, raw_rows(source, table, split.metadata))
    keep = np.zeros(table.n_rows, dtype=bool)
    keep[rows.index] = True
    table.keep(keep)
    rows = rows.reset_index(drop=True)
    X = np.empty((table.n_rows, len(split.features)), dtype=np.float32)
    infinite = infinite_values(split.features, copy_features(table, split.features, X))
    gone = left_out(split, source.features)
    history = (*table.history(), *steps_of_name(place.path))
    profiles, empty = without_empty(X, rows, split.features, history)
    log.info("read profiles: %d rows, %d features from '%s'", len(profiles), len(profiles.features), place)
    features = dropped(STAGE, "feature", gone["column"], gone["reason"])
    return profiles, pd.concat([features, asked, lost, infinite, empty], ignore_index=True)


def open_profiles(source: ProfileSource, place: Place) -> TableFile:
    """Open a table with numbers as float32, and as text all columns that the settings or our own names mean."""
    known = [s for short, name in METADATA.items() for s in (name, *ALIASES.get(name, []), short)]
    asked = [part.strip() for column in source.columns.values() for part in (column, *column.split("+"))]
    text = [*known, *asked, *(join.by for join in source.joins), *source.controls]
    # A number that is asked for as a feature stays one.
    return TableFile(place.local(), text=[c for c in text if c not in source.features], single=True)


def _only_plates(source: ProfileSource, table: TableFile) -> pd.DataFrame:
    """Keep the rows of the plates and batches that are asked for, as far as the table itself tells."""
    if not source.plates and not source.batches:
        return nothing_dropped()
    named = named_columns(source, table.names, source.path, strict=False)
    columns = {name: named[name] for name in ("Metadata_Plate", "Metadata_Batch") if name in named}
    if not columns:
        return nothing_dropped()
    arrow = table.read(list(dict.fromkeys(columns.values())))
    places = pd.DataFrame({name: as_text(arrow[column]) for name, column in columns.items()})
    keep, lost = choose_plates(source, places)
    if not keep.any():
        raise PlateError(f"'{source.path}': no row is left with profiles.plates and profiles.batches as they are.")
    table.keep(keep)
    return lost


def split_table(source: ProfileSource, table: TableFile) -> ColumnSplit:
    """Decide which columns are features.

    Raises
    ------
    ColumnError
        If none is, or one holds text in some rows.
    """
    skip = set(settings_columns(source, table.names)) - set(source.features)
    kinds = _kinds(table, skip)
    split = split_names(kinds, features=source.features, ignore=[p for p in source.ignore if p not in skip])
    if not split.features:
        raise ColumnError(
            f"'{table.path}' has no feature column: {len(split.ignored)} columns were looked at, such as "
            f"{some(list(kinds), 5)}. Check profiles.features and profiles.ignore, and that commas, semicolons or tabs "
            "separate the columns."
        )
    for name in split.features:
        if kinds[name] == "mixed":
            refuse_text(name, as_text(table.read([name])[name]), str(table.path))
    return split


def _kinds(table: TableFile, skip: set[str]) -> dict[str, Kind]:
    """Kind of every column that is not metadata by the settings; only text columns are read for it."""
    kinds: dict[str, Kind] = {}
    unknown: list[str] = []
    for column in table.schema:
        if column.name in skip:
            continue
        kind = column.type
        if pa.types.is_boolean(kind):
            kinds[column.name] = "bool"
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            kinds[column.name] = "number"
        elif column.name.startswith("Metadata_") or pa.types.is_nested(kind) or pa.types.is_temporal(kind):
            kinds[column.name] = "text"
        else:
            unknown.append(column.name)
            kinds[column.name] = "empty"  # holds the place: the order is that of the file
    for name, column in table.columns(unknown):
        kinds[name] = kind_of(as_text(column))
    return kinds


def raw_rows(source: ProfileSource, table: TableFile, metadata: Sequence[str]) -> pd.DataFrame:
    """Return the metadata as text under the names of the file; of two that become one, the first."""
    wanted = list(dict.fromkeys([*settings_columns(source, table.names), *metadata]))
    arrow = table.read(wanted)
    rows = pd.DataFrame({column: as_text(arrow[column]) for column in wanted}, index=range(table.n_rows))
    if table.decimal == ",":  # the same file writes its doses so
        numbers = ("cell_count", "concentration_uM", "concentration_nM", "concentration_mM", "concentration_M")
        for column in {source.columns.get(short, short) for short in numbers} & set(rows):
            rows[column] = rows[column].str.replace(",", ".", regex=False)
    return rows


def copy_features(table: TableFile, features: list[str], out: NDArray[np.float32]) -> NDArray[np.int64]:
    """Copy feature columns into a matrix, block by block; infinite values become missing.

    Parameters
    ----------
    table : TableFile
    features : list of str, length F
    out : float32 array, shape (P, F)
        Is filled.

    Returns
    -------
    int64 array, shape (F,)
        How many values of each feature were infinite.
    """
    n_infinite = np.zeros(len(features), dtype=np.int64)
    start = 0
    for batch in table.batches(features):
        block = out[start : start + len(batch)]
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and counted below
            for j, name in enumerate(features):
                block[:, j] = _floats(batch.column(batch.schema.get_field_index(name)))
        infinite = np.isinf(block)
        if infinite.any():
            n_infinite += infinite.sum(axis=0)
            block[infinite] = np.nan
        start += len(batch)
    return n_infinite


def infinite_values(features: Sequence[str], counts: NDArray[np.int64]) -> pd.DataFrame:
    """List the features that held infinite values."""
    hit = np.flatnonzero(counts)
    reasons = [f"{counts[j]} infinite values were treated as missing; the feature is kept" for j in hit]
    return dropped(STAGE, "feature", [features[j] for j in hit], reasons) if len(hit) else nothing_dropped()


def _floats(column: pa.Array) -> NDArray[np.float64] | NDArray[np.float32]:
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return column.to_numpy(zero_copy_only=False)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_decimal(column.type):
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return parse_numbers(column.to_pandas())[0]


def without_empty(
    X: NDArray[np.float32], rows: pd.DataFrame, features: list[str], history: Sequence[str] = ()
) -> tuple[Profiles, pd.DataFrame]:
    """Drop features, then wells, that hold no value at all."""
    has_feature, has_row = np.zeros(len(features), dtype=bool), np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), BATCH):
        present = ~np.isnan(X[start : start + BATCH])
        has_feature |= present.any(axis=0)
        has_row[start : start + BATCH] = present.any(axis=1)
    if not has_row.any():
        raise ColumnError(f"None of the {len(features)} feature columns holds a number, e.g. {some(features, 3)}.")
    gone = [f for f, keep in zip(features, has_feature, strict=True) if not keep]
    lost = [dropped(STAGE, "feature", gone, "no value in any row")]
    place = pd.Series("", index=rows.index, dtype=str)
    for column in [c for c in ("Metadata_Plate", "Metadata_Well") if c in rows]:
        place = place.str.cat(rows[column], sep=" ")
    ids = [f"row {i}{place.iloc[i]}".strip() for i in np.flatnonzero(~has_row)]
    lost.append(dropped(STAGE, "well", ids, "no value in any feature"))
    if gone:
        X, features = np.ascontiguousarray(X[:, has_feature]), [f for f in features if f not in set(gone)]
    if ids:
        X, rows = X[has_row], rows.loc[has_row]
    return Profiles(X, rows, features, tuple(history)), pd.concat(lost, ignore_index=True)


def steps_of_name(path: str) -> tuple[str, ...]:
    """Return the steps that the name of an assembled table spells: ``profiles_var_mad.parquet`` -> var, mad.

    Examples
    --------
    >>> steps_of_name("profiles_assembled/ORF/v1.0/profiles_wellpos_var_mad.parquet")
    ('wellpos[upstream]', 'var[upstream]', 'mad[upstream]')
    >>> steps_of_name("profiles_backup.parquet")
    ()
    """
    file = PurePosixPath(path.replace("\\", "/"))
    head, *steps = file.stem.split("_")
    known = "profiles_assembled" in file.parts or {s.lower() for s in steps} <= _STEPS
    return tuple(f"{step}[upstream]" for step in steps if step) if head == "profiles" and known else ()
