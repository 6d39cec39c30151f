"""Read tables made elsewhere: any table, profiles, structures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from phenohit.config import ProfileSource, StructureSource
from phenohit.data.columns import (
    ALIASES,
    METADATA,
    Kind,
    kind_of,
    metadata_name,
    normalise_wells,
    parse_numbers,
    refuse_text,
    split_names,
)
from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.profiles import Profiles
from phenohit.data.tables import BATCH, TableFile, as_text, read_any
from phenohit.errors import ColumnError, ConfigError, PlateError, nearest, some
from phenohit.registry import resolve

__all__ = ["read_any", "read_profiles", "read_structures"]

log = logging.getLogger("phenohit")

# Readers of structures that need RDKit, which this part does without.
READERS = {"sdf": "phenohit.chem.sdf:read_sdf"}

_STAGE = "read profiles"


def read_profiles(source: ProfileSource) -> tuple[Profiles, pd.DataFrame]:
    """Read a feature table.

    Parameters
    ----------
    source : ProfileSource

    Returns
    -------
    profiles : Profiles
        Rows in the order of the file; wells as A01; ``Metadata_pert_type`` filled for every row.
    dropped : DataFrame
        Columns that are no features, features without any value, infinite values, wells without
        any feature.

    Raises
    ------
    FileError, ColumnError, PlateError, ConfigError
    """
    if not source.path:
        raise ConfigError("profiles.path is empty. Give the file with the feature table.")
    table = TableFile(source.path, text=list(source.columns.values()), single=True)
    named = _named_columns(source, table)
    kinds = _kinds(table, skip=set(named.values()))
    split = split_names(kinds, features=source.features, ignore=source.ignore)
    if not split.features:
        raise ColumnError(
            f"'{table.path}' has no feature column: {len(split.ignored)} columns were looked at, such as "
            f"{some(list(kinds), 5)}. Check profiles.features and profiles.ignore."
        )
    for name in split.features:
        if kinds[name] == "mixed":
            refuse_text(name, as_text(table.read([name])[name]))
    rows = _rows(table, named, split.metadata)
    rows["Metadata_pert_type"] = _pert_type(source, table, rows)
    if "Metadata_Well" in rows:
        rows["Metadata_Well"] = normalise_wells(rows["Metadata_Well"])
    _refuse_doubled_wells(rows, table.path)
    gone = split.ignored[~split.ignored["reason"].str.contains(": kept as ", regex=False)]
    X, infinite = _matrix(table, split.features, len(rows))
    lost = [dropped(_STAGE, "feature", gone["column"], gone["reason"]), infinite]
    profiles, empty = _without_empty(X, rows, split.features)
    log.info("read profiles: %d rows, %d features from '%s'", len(profiles), len(profiles.features), table.path)
    return profiles, pd.concat([*lost, empty], ignore_index=True)


def _named_columns(source: ProfileSource, table: TableFile) -> dict[str, str]:
    """Metadata name -> column of the file: as the settings say, else by a spelling we know."""
    named: dict[str, str] = {}
    for short, column in source.columns.items():
        if short not in METADATA and not short.startswith("Metadata_"):
            raise ConfigError(f"profiles.columns: '{short}' is not known. {nearest(short, METADATA)}")
        table.need([column], f"profiles.columns: {short}")
        named[METADATA.get(short, short)] = column
    taken = set(named.values())
    for short, name in METADATA.items():
        spellings = [name, *ALIASES.get(name, []), short]
        found = next((s for s in spellings if s in table.names and s not in taken), None)
        if name not in named and found is not None:
            named[name] = found
    return named


def _kinds(table: TableFile, skip: set[str]) -> dict[str, Kind]:
    """Kind of every column that the settings did not name; only text columns are read for it."""
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
        elif column.name.startswith("Metadata_"):
            kinds[column.name] = "text"
        else:
            unknown.append(column.name)
            kinds[column.name] = "empty"  # holds the place: the order is that of the file
    for name, column in table.columns(unknown):
        kinds[name] = kind_of(as_text(column))
    return kinds


def _rows(table: TableFile, named: dict[str, str], others: Sequence[str]) -> pd.DataFrame:
    """Return the metadata as text; what the settings name wins over a column that has the name already."""
    wanted = dict(named)
    for column in others:
        wanted.setdefault(metadata_name(column), column)
    arrow = table.read(list(dict.fromkeys(wanted.values())))
    n_rows = arrow.num_rows if wanted else table.read(table.names[:1]).num_rows
    return pd.DataFrame({name: as_text(arrow[column]) for name, column in wanted.items()}, index=range(n_rows))


def _pert_type(source: ProfileSource, table: TableFile, rows: pd.DataFrame) -> pd.Series:
    """Tell treatments from controls by the rule given and the file's own column; never by a missing id."""
    written = _or_empty(rows, "Metadata_pert_type")
    kind = written.str.lower().replace({"": "trt"}).astype(str)
    for known in ("trt", "negcon", "poscon"):  # JUMP writes poscon_cp, poscon_diverse; L1000 trt_cp
        kind = kind.mask(kind.str.startswith(known), known)
    for name, values in source.controls.items():
        if name in table.names:
            text = as_text(table.read([name])[name])
        elif METADATA.get(name, metadata_name(name)) in rows:
            text = rows[METADATA.get(name, metadata_name(name))]
        else:
            raise ColumnError(f"profiles.controls: there is no column '{name}'. {nearest(name, table.names)}")
        marks = {str(v).strip() for v in values} - {""}
        if set(text.unique()) <= {"true", "false", ""}:
            marks = {m.lower() for m in marks}
        hit = text.isin(marks)
        if not hit.to_numpy().any():
            raise ColumnError(
                f"profiles.controls: column '{name}' holds none of {some(sorted(marks))}. It holds "
                f"{some(text.value_counts().index)}. Give the value that marks a negative control."
            )
        kind = kind.mask(hit, "negcon")
    odd = kind[~kind.isin(["trt", "negcon", "poscon", "empty"])].unique()
    if len(odd):
        raise ColumnError(
            f"Metadata_pert_type holds {some(odd)}. Expected trt, negcon, poscon or empty. Name the negative control "
            "in profiles.controls, or map profiles.columns: pert_type to another column."
        )
    return kind.astype(str)


def _or_empty(rows: pd.DataFrame, name: str) -> pd.Series:
    return rows[name] if name in rows else pd.Series("", index=rows.index, dtype=str)


def _refuse_doubled_wells(rows: pd.DataFrame, path: Path) -> None:
    if not {"Metadata_Plate", "Metadata_Well"} <= set(rows):
        return
    place = rows[["Metadata_Plate", "Metadata_Well"]]
    known = (place != "").all(axis=1)
    again = known & place.duplicated(keep=False)
    if not again.to_numpy().any():
        return
    counts = place[again].value_counts(sort=False).reset_index(name="n")
    shown = some(f"{plate} {well} ({n} times)" for plate, well, n in counts.itertuples(index=False)).replace("'", "")
    hint = "Keep one row per well, or give plates of different batches different names."
    if "Metadata_Site" in rows:
        hint = "The table has Metadata_Site: aggregate its sites to wells first."
    raise PlateError(f"'{path}' has {len(counts)} wells in more than one row: plate and well {shown}. {hint}")


def _matrix(table: TableFile, features: list[str], n_rows: int) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Copy the features into one float32 matrix, block by block; infinite values become missing."""
    X = np.empty((n_rows, len(features)), dtype=np.float32)
    n_infinite = np.zeros(len(features), dtype=np.int64)
    start = 0
    for batch in table.batches(features):
        block = X[start : start + len(batch)]
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and counted below
            for j, name in enumerate(features):
                block[:, j] = _floats(batch.column(batch.schema.get_field_index(name)))
        infinite = np.isinf(block)
        if infinite.any():
            n_infinite += infinite.sum(axis=0)
            block[infinite] = np.nan
        start += len(batch)
    hit = np.flatnonzero(n_infinite)
    reasons = [f"{n_infinite[j]} infinite values were treated as missing; the feature is kept" for j in hit]
    return X, dropped(_STAGE, "feature", [features[j] for j in hit], reasons) if len(hit) else nothing_dropped()


def _floats(column: pa.Array) -> NDArray[np.float64] | NDArray[np.float32]:
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return column.to_numpy(zero_copy_only=False)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_decimal(column.type):
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return parse_numbers(column.to_pandas())[0]


def _without_empty(X: NDArray[np.float32], rows: pd.DataFrame, features: list[str]) -> tuple[Profiles, pd.DataFrame]:
    """Drop features, then wells, that hold no value at all."""
    has_feature, has_row = np.zeros(len(features), dtype=bool), np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), BATCH):
        present = ~np.isnan(X[start : start + BATCH])
        has_feature |= present.any(axis=0)
        has_row[start : start + BATCH] = present.any(axis=1)
    if not has_row.any():
        raise ColumnError(f"None of the {len(features)} feature columns holds a number, e.g. {some(features, 3)}.")
    gone = [f for f, keep in zip(features, has_feature, strict=True) if not keep]
    lost = [dropped(_STAGE, "feature", gone, "no value in any row")]
    place = _or_empty(rows, "Metadata_Plate").str.cat(_or_empty(rows, "Metadata_Well"), sep=" ")
    ids = [f"row {i} {place.iloc[i]}".strip() for i in np.flatnonzero(~has_row)]
    lost.append(dropped(_STAGE, "well", ids, "no value in any feature"))
    if gone:
        X, features = np.ascontiguousarray(X[:, has_feature]), [f for f in features if f not in set(gone)]
    if ids:
        X, rows = X[has_row], rows.loc[has_row]
    return Profiles(X, rows, features), pd.concat(lost, ignore_index=True)


def read_structures(source: StructureSource) -> pd.DataFrame:
    """Read structures.

    Parameters
    ----------
    source : StructureSource
        A table with an id and a SMILES column, or an SD file (also ``.sdf.gz``).

    Returns
    -------
    DataFrame
        ``id`` and ``smiles`` (text; '' where the SD file's record cannot be read). Rows without an
        id are left out: nothing can refer to them.

    Raises
    ------
    FileError, ColumnError, StructureError
    """
    if str(source.path).lower().endswith((".sdf", ".sdf.gz", ".sd")):
        read = resolve("sdf", READERS, "phenohit.structures")
        found = read(source.path, "" if source.id == StructureSource.id else source.id)
    else:
        table = TableFile(source.path, text=[source.id, source.smiles])
        table.need([source.id], "structures.id")
        table.need([source.smiles], "structures.smiles")
        arrow = table.read([source.id, source.smiles])
        found = pd.DataFrame({"id": as_text(arrow[source.id]), "smiles": as_text(arrow[source.smiles])})
    return found[found["id"] != ""].reset_index(drop=True)
