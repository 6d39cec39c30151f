"""The four forms in which activities are written: long, wide, Matrix Market, classes."""

from __future__ import annotations

import re
import zlib
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from phenohit.config import ActivitySource
from phenohit.data.columns import match, parse_numbers
from phenohit.data.dropped import dropped
from phenohit.data.tables import TableFile, as_text
from phenohit.errors import ColumnError, ConfigError, FileError, LabelError, ShapeError, some

__all__ = ["FORMATS", "STAGE", "task_table", "unnamed"]

STAGE = "read activities"
_ACTIVE = frozenset({"active", "true", "yes", "positive"})
_INACTIVE = frozenset({"inactive", "not active", "no activity", "false", "no", "negative"})
_UNDECIDED = frozenset({"inconclusive", "unspecified", "not determined", "not tested", "nd", "n.d."})
_ROW_NUMBER = re.compile(r"^(row|index|unnamed: ?\d+|__index_level_\d+__)$", re.IGNORECASE)

# What each reader gives: keys (id, smiles, inchikey of every row of the file), entries (row, assay
# as a number, value), the names of the assays, and what was dropped.
_Read = tuple[pd.DataFrame, pd.DataFrame, list[str], pd.DataFrame]


def _keys(source: ActivitySource, table: TableFile) -> pd.DataFrame:
    named = {"id": source.id, "smiles": source.smiles, "inchikey": source.inchikey}
    for role, column in named.items():
        if column:
            table.need([column], f"activities.{role}")
    arrow = table.read(list(dict.fromkeys(c for c in named.values() if c)))
    columns = {role: as_text(arrow[c]) if c else "" for role, c in named.items()}
    return pd.DataFrame(columns, index=range(arrow.num_rows), dtype=str)


def _open(source: ActivitySource, path: str = "", *more: str) -> TableFile:
    return TableFile(path or source.path, text=[c for c in (source.id, source.smiles, source.inchikey, *more) if c])


def _long(source: ActivitySource) -> _Read:
    table = _open(source, "", source.assay)
    keys = _keys(source, table)
    table.need([source.assay], "activities.assay")
    table.need([source.value], "activities.value")
    arrow = table.read([source.assay, source.value])
    codes, names = _chosen(source, as_text(arrow[source.assay]))
    value = _outcomes(source, arrow[source.value], source.value, f"'{source.path}'", only=codes >= 0)
    empty = (codes >= 0) & np.isnan(value)
    lost = unnamed(source, np.flatnonzero(codes == -1), "the assay is not named")
    if empty.any():
        n = np.bincount(codes[empty], minlength=len(names))
        which = np.flatnonzero(n)
        reasons = [f"rows without a decided value: {n[a]}" for a in which]
        lost = pd.concat([lost, dropped(STAGE, "activity", [names[a] for a in which], reasons)], ignore_index=True)
    rows = np.flatnonzero((codes >= 0) & ~empty)
    return keys, pd.DataFrame({"row": rows, "assay": codes[rows], "value": value[rows]}), names, lost


def _classes(source: ActivitySource) -> _Read:
    table = _open(source, "", source.assay)
    keys = _keys(source, table)
    table.need([source.assay], "activities.assay")
    codes, names = _chosen(source, as_text(table.read([source.assay])[source.assay]))
    rows = np.flatnonzero(codes >= 0)
    return keys, pd.DataFrame({"row": rows, "assay": codes[rows], "value": 1.0}), names, dropped(STAGE, "", [], "")


def _chosen(source: ActivitySource, text: pd.Series) -> tuple[NDArray[np.intp], list[str]]:
    """Code every row by its assay: -1 where it is not named, -2 where the settings leave it out."""
    codes, unique = pd.factorize(text)
    names = [str(n) for n in unique]
    keep = _selected(source, [n for n in names if n])
    position = {n: i for i, n in enumerate(n for n in names if n in keep)}
    new = np.array([position.get(n, -1 if n == "" else -2) for n in names], dtype=np.intp)
    return new[codes] if len(names) else codes, list(position)


def _selected(source: ActivitySource, names: list[str]) -> set[str]:
    kept = match(names, source.assays, "activities.assays") if source.assays else set(names)
    kept -= match(names, source.ignore, "activities.ignore")
    if not names:
        raise ColumnError(f"'{source.path}' has no rows that name an assay. Make it again, or copy it whole.")
    if not kept:
        raise ColumnError(
            f"No assay of '{source.path}' is left; there are {some(names)}. Check activities.assays and .ignore."
        )
    return kept


def _wide(source: ActivitySource) -> _Read:
    table = _open(source)
    keys = _keys(source, table)
    candidates = [c for c in table.names if c not in (source.id, source.smiles, source.inchikey)]
    listed = set(task_table(source).iloc[:, 0]) if source.tasks else set()
    kept = _selected(source, candidates)
    named = match(candidates, source.assays, "activities.assays") if source.assays else listed
    parts: list[tuple[NDArray[np.intp], NDArray[np.float64]]] = []
    names = []
    odd = [c for c in candidates if c not in kept]
    reasons = ["left out by activities.assays or .ignore"] * len(odd)
    for name, column in table.columns([c for c in candidates if c in kept]):
        values, reason = _assay_column(source, column, name, name in named, bool(listed))
        if values is None:
            odd.append(name)
            reasons.append(reason)
            continue
        rows = np.flatnonzero(~np.isnan(values))
        parts.append((rows, values[rows]))
        names.append(name)
    if not names:
        looked_at = some(f"{c} ({r})" for c, r in zip(odd, reasons, strict=True))
        raise ColumnError(f"'{source.path}' has no assay column. Looked at {looked_at}.")
    entries = pd.DataFrame(
        {
            "row": np.concatenate([rows for rows, _ in parts]),
            "assay": np.repeat(np.arange(len(names)), [len(rows) for rows, _ in parts]),
            "value": np.concatenate([values for _, values in parts]),
        }
    )
    return keys, entries, names, dropped(STAGE, "task", odd, reasons)


def _assay_column(
    source: ActivitySource, column: pa.ChunkedArray, name: str, named: bool, has_list: bool
) -> tuple[NDArray[np.float64] | None, str]:
    """Return a column's values, or None and why it is no assay. A column the user names must be one."""
    if not named and _ROW_NUMBER.match(name):
        return None, "is a row number"
    if not named and has_list:
        return None, f"is not in the table of tasks '{source.tasks}'"
    values, bad = _parse(source, column)
    n_good, n_bad = int((~np.isnan(values)).sum()), int(bad.sum())
    if n_good + n_bad == 0:
        return None, "holds no value"
    if (
        not named
        and source.kind == "value"
        and n_good > 2
        and np.array_equal(np.diff(values), np.ones(len(values) - 1))
    ):
        return None, "numbers the rows"
    if n_bad and not named and n_good <= n_bad:
        return None, f"holds no activities but {some(as_text(column)[bad].unique(), 3)}"
    if n_bad:
        _refuse(source, bad, as_text(column), f"column '{name}' of '{source.path}'")
    return values, ""


def _matrix_market(source: ActivitySource) -> _Read:
    from scipy import io, sparse

    if not source.rows:
        raise ConfigError(f"activities: '{source.path}' is a matrix: set rows to the table that names its compounds.")
    keys = _keys(source, _open(source, source.rows))
    try:
        matrix: Any = sparse.coo_matrix(io.mmread(source.path))
    except FileNotFoundError as error:
        raise FileError(f"'{source.path}' does not exist. Give the path of an existing file.") from error
    except MemoryError as error:
        message = f"'{source.path}' says that it holds more than the memory can. Its second line may be damaged."
        raise FileError(f"{message} Make it again.") from error
    except (ValueError, OSError, OverflowError, EOFError, zlib.error) as error:
        message = (
            f"'{source.path}' cannot be read as a Matrix Market file ({error}). It may be truncated: make it again."
        )
        raise FileError(message) from error
    if matrix.shape[0] != len(keys):
        raise ShapeError(
            f"'{source.path}' has {matrix.shape[0]} rows, but '{source.rows}' names {len(keys)} compounds."
        )
    names = [f"assay_{j + 1}" for j in range(matrix.shape[1])]
    if source.tasks:
        names = task_table(source).iloc[:, 0].tolist()
    if matrix.shape[1] != len(names):
        raise ShapeError(f"'{source.path}' has {matrix.shape[1]} columns, but '{source.tasks}' names {len(names)}.")
    kept = _selected(source, names)
    use = np.array([n in kept for n in names])
    values, bad = _parse(source, pa.chunked_array([np.asarray(matrix.data, dtype=np.float64)]))
    bad &= use[matrix.col]
    if bad.any():
        places = [f"({matrix.row[i]}, {matrix.col[i]}): {matrix.data[i]:g}" for i in np.flatnonzero(bad)[:11]]
        _impossible(source, int(bad.sum()), f"'{source.path}'", some(places).replace("'", ""))
    ok = use[matrix.col] & ~np.isnan(values)
    new = np.cumsum(use) - 1
    entries = pd.DataFrame({"row": matrix.row[ok], "assay": new[matrix.col[ok]], "value": values[ok]})
    n = np.bincount(matrix.col[use[matrix.col] & np.isnan(values)], minlength=len(names))
    which = np.flatnonzero(n)
    reasons = [f"stored entries without a decided value: {n[a]}" for a in which]
    empty = dropped(STAGE, "activity", [names[a] for a in which], reasons)
    left = dropped(STAGE, "task", [n for n in names if n not in kept], "left out by activities.assays or .ignore")
    return keys, entries, [n for n in names if n in kept], pd.concat([left, empty], ignore_index=True)


def task_table(source: ActivitySource) -> pd.DataFrame:
    """Return the table of tasks as text; its first column names the assays."""
    file = TableFile(source.tasks)
    arrow = file.read(file.names)
    table = pd.DataFrame({name: as_text(arrow[name]) for name in file.names})
    doubled = table.iloc[:, 0][table.iloc[:, 0].duplicated()]
    if len(doubled):
        raise LabelError(
            f"'{source.tasks}' names an assay more than once in its first column: {some(doubled.unique())}."
        )
    return table


def _parse(source: ActivitySource, column: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Read a column as 0/1 or numbers: values (NaN: not measured), and where something impossible stands."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    text = not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type))
    values, bad = parse_numbers(as_text(column) if text else column.to_pandas())
    values = values.copy()  # may be a view of the file's memory
    if source.kind == "value":
        infinite = np.isinf(values)
        return np.where(infinite, np.nan, values), bad | infinite
    if text and bad.any():
        words = as_text(column)[bad].str.lower()
        said = np.select(
            [words.isin(_ACTIVE), words.isin(_INACTIVE)], [1.0, -1.0 if source.kind != "binary" else 0.0], np.nan
        )
        values[bad] = said
        bad[np.flatnonzero(bad)] = np.isnan(said) & ~words.isin(_UNDECIDED).to_numpy(dtype=bool)
    if source.kind == "plus_minus":
        bad |= ~np.isnan(values) & ~np.isin(values, (-1.0, 0.0, 1.0))
        values = np.select([values == 1, values == -1], [1.0, 0.0], np.nan)  # 0 is how the format says "not measured"
    else:
        bad |= ~np.isnan(values) & ~np.isin(values, (0.0, 1.0))
    values[bad] = np.nan
    return values, bad


def _outcomes(
    source: ActivitySource, column: pa.ChunkedArray, name: str, where: str, *, only: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Values of a long table; anything impossible among the chosen rows is an error."""
    values, bad = _parse(source, column)
    if (bad & only).any():
        _refuse(source, bad & only, as_text(column), f"column '{name}' of {where}")
    return values


def _refuse(source: ActivitySource, bad: NDArray[np.bool_], text: pd.Series, where: str) -> None:
    shown = some(f"row {i}: {text.iloc[i]}" for i in np.flatnonzero(bad)).replace("'", "")
    _impossible(source, int(bad.sum()), where, shown)


def _impossible(source: ActivitySource, n: int, where: str, shown: str) -> None:
    expected = {
        "binary": "0 or 1 (also active/inactive, true/false, yes/no)",
        "plus_minus": "1 (active), -1 (inactive) or 0 (not measured)",
        "value": "a finite number",
    }[source.kind]
    hint = "For +1/-1 labels set kind: plus_minus; for measured numbers kind: value." if source.kind == "binary" else ""
    message = (
        f"{n} entries in {where} are impossible ({shown}). Expected {expected}; leave unmeasured cells empty. {hint}"
    )
    raise LabelError(message.strip())


def unnamed(source: ActivitySource, rows: NDArray[np.integer], reason: str) -> pd.DataFrame:
    """List rows of the file that cannot be used."""
    return dropped(STAGE, "activity", [f"'{source.path}' row {i}" for i in rows], reason)


FORMATS = {"long": _long, "wide": _wide, "matrix_market": _matrix_market, "classes": _classes}
