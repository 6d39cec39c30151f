"""What every reader does with its rows: plate maps, joins, names, controls, wells."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.columns import ALIASES, METADATA, metadata_name, normalise_wells, parse_numbers
from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.joins import find_column, join_tables
from phenohit.data.platemaps import join_platemaps, plate_names, read_platemaps
from phenohit.data.remote import Place
from phenohit.errors import ColumnError, ConfigError, PlateError, nearest, some
from phenohit.sources import ProfileSource

__all__ = ["UNITS_UM", "choose_plates", "finish_rows", "matching", "named_columns", "place_columns", "settings_columns"]

_STAGE = "read profiles"
_PLACE = ("Metadata_Plate", "Metadata_Well", "Metadata_Batch")
_COMPOUND = {"Metadata_compound_id", "Metadata_SMILES", "Metadata_InChIKey"}

# Keys of profiles.columns that state the unit of a concentration -> what it is in uM.
UNITS_UM = {"concentration_uM": 1.0, "concentration_nM": 1e-3, "concentration_mM": 1e3, "concentration_M": 1e6}


def finish_rows(
    source: ProfileSource, rows: pd.DataFrame, *, maps: Place | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give the rows of a reader the names, annotations and controls that the settings ask for.

    Parameters
    ----------
    source : ProfileSource
    rows : DataFrame, P rows, index 0 to P - 1
        All text, under the names of the file or ``Metadata_*``.
    maps : Place, optional
        Where the plate maps are if ``source.platemaps`` is empty.

    Returns
    -------
    rows : DataFrame
        Columns ``Metadata_*``, all text; its index says which of the P rows it kept (plates and batches that
        are not asked for are left out). Wells as A01, ``Metadata_pert_type`` filled for every row.
    dropped : DataFrame
        Plates left out; what the plate maps and joined tables did not know.

    Raises
    ------
    FileError, ColumnError, PlateError, ConfigError

    Notes
    -----
    In this order: plates and batches are chosen, plate maps joined by plate and well, further tables joined,
    columns named, controls marked, wells written as A01, wells in more than one row refused. Settings of
    columns and controls may name columns of the plate maps and joined tables.
    """
    _check_keys(source)
    rows, used = place_columns(source, rows)
    keep, left_out = _chosen(source, rows)
    lost, rows, known = [left_out], rows.loc[keep], set(rows)
    place = Place(source.platemaps, source.storage) if source.platemaps else maps
    if place is not None:
        batches = set(rows["Metadata_Batch"]) if "Metadata_Batch" in rows else set()
        plates = set(plate_names(rows["Metadata_Plate"])) if "Metadata_Plate" in rows else None
        named = named_columns(source, list(rows.columns), source.path, strict=False)
        needed = bool(source.platemaps) and not _COMPOUND & set(named)  # nothing else tells what is in the wells
        table, gone = read_platemaps(place, plates=plates, batches=batches - {""}, needed=needed)
        rows, bare = join_platemaps(rows, table)
        lost += [gone, bare]
    rows, unmatched = join_tables(rows, source.joins, source.storage)
    lost.append(unmatched)
    if source.batches and "Metadata_Batch" not in known:
        rows, more = place_columns(source, rows)  # a plate map or joined table may tell the batch
        keep, left_out = _chosen(source, rows, late=True)
        lost, rows, used = [*lost, left_out], rows.loc[keep], used | more
    finished = _named(source, rows, used)
    _concentrations(source, finished)
    finished["Metadata_pert_type"] = _pert_type(source, rows, finished)
    if "Metadata_Well" in finished:
        finished["Metadata_Well"] = normalise_wells(finished["Metadata_Well"], source.path)
    _refuse_doubled_wells(finished, source.path)
    return finished, pd.concat(lost, ignore_index=True)


def settings_columns(source: ProfileSource, names: Collection[str]) -> list[str]:
    """Return the columns that settings say are no features: named, joined on, marking controls.

    Parameters
    ----------
    source : ProfileSource
    names : collection of str
        Columns of the file; others are left out, they may come from a plate map or joined table.
    """
    asked = [part for column in source.columns.values() for part in ([column] if column in names else _sum(column))]
    asked += [c for join in source.joins for c in (join.by, METADATA.get(join.by, join.by))]
    asked += [c for control in source.controls for c in (control, METADATA.get(control, control))]
    known = [s for short, name in METADATA.items() for s in (name, *ALIASES.get(name, []), short)]
    return [c for c in dict.fromkeys([*asked, *known]) if c in names]


def named_columns(source: ProfileSource, names: Collection[str], path: str, *, strict: bool = True) -> dict[str, str]:
    """Metadata name -> column: as the settings say, else by a spelling we know.

    Raises
    ------
    ColumnError
        If a column of the settings is absent; not if `strict` is false, as long as it may come later.
    """
    named: dict[str, str] = {}
    for short, column in source.columns.items():
        name = METADATA.get("concentration_uM" if short in UNITS_UM else short, short)
        if column in names:
            named[name] = column
        elif short == "well" and "Metadata_Well" in names:  # made of row and column
            named[name] = "Metadata_Well"
        elif strict:
            raise ColumnError(
                f"'{path}' has no column '{column}' (profiles.columns: {short}). "
                f"{nearest(column, map(str, names))} Correct the name in the settings."
            )
    taken = set(named.values())
    for short, name in METADATA.items():
        spellings = [name, *ALIASES.get(name, []), short]
        found = next((s for s in spellings if s in names and s not in taken), None)
        if name not in named and found is not None:
            named[name] = found
    return named


def choose_plates(source: ProfileSource, places: pd.DataFrame) -> tuple[NDArray[np.bool_], pd.DataFrame]:
    """Decide which rows are of plates and batches that the settings ask for.

    Parameters
    ----------
    source : ProfileSource
    places : DataFrame
        With ``Metadata_Plate``, ``Metadata_Batch`` or both.

    Returns
    -------
    keep : bool array, shape (P,)
    dropped : DataFrame
        One line per plate or batch left out, with its number of rows.

    Raises
    ------
    PlateError
        If a pattern matches nothing.
    """
    keep, lost = np.ones(len(places), dtype=bool), [nothing_dropped()]
    asked = (("Metadata_Batch", "batch", source.batches), ("Metadata_Plate", "plate", source.plates))
    for column, what, patterns in asked:
        if not patterns or column not in places:
            continue
        values = plate_names(places[column])
        names = sorted(set(values[keep]))
        chosen = matching(names, patterns, f"profiles.{what}{'es' if what == 'batch' else 's'}")
        wanted = values.isin(chosen).to_numpy(dtype=bool)
        counts = values[keep & ~wanted].value_counts()
        reasons = [f"matches no pattern of the settings; {n} rows" for n in counts]
        lost.append(dropped(_STAGE, what, counts.index, reasons))
        keep &= wanted
    return keep, pd.concat(lost, ignore_index=True)


def matching(names: Collection[str], patterns: Collection[str], setting: str) -> list[str]:
    """Return the names that match one of the patterns, in the order of `names`; all if there is no pattern.

    Raises
    ------
    PlateError
        If a pattern matches nothing.
    """
    if not patterns:
        return list(names)
    found: set[str] = set()
    for pattern in map(str, patterns):
        hit = {n for n in names if n == pattern or fnmatch.fnmatchcase(n, pattern)}
        if not hit:
            raise PlateError(
                f"{setting} has '{pattern}', which matches none of {len(names)} names. {nearest(pattern, names)}"
            )
        found |= hit
    return [n for n in names if n in found]


def _chosen(source: ProfileSource, rows: pd.DataFrame, *, late: bool = False) -> tuple[NDArray[np.bool_], pd.DataFrame]:
    """Choose plates and batches; the batch may become known only after the joins (`late`)."""
    for what, patterns, due in (("plate", source.plates, True), ("batch", source.batches, late)):
        if due and patterns and METADATA[what] not in rows:
            setting = "plates" if what == "plate" else "batches"
            raise ColumnError(
                f"profiles.{setting} is set, but no column tells the {what}. Name it in profiles.columns: {what}."
            )
    return choose_plates(source, rows)


def _check_keys(source: ProfileSource) -> None:
    """Refuse short names that are not known, and two concentrations."""
    for short in source.columns:
        if short not in METADATA and short not in UNITS_UM and not short.startswith("Metadata_"):
            raise ConfigError(f"profiles.columns: '{short}' is not known. {nearest(short, [*METADATA, *UNITS_UM])}")
    units = [short for short in source.columns if short in UNITS_UM]
    if len(units) > 1:
        raise ConfigError(f"profiles.columns names {some(units)}. Give the concentration once, with its unit.")


def place_columns(source: ProfileSource, rows: pd.DataFrame) -> tuple[pd.DataFrame, set[str]]:
    """Add plate, well and batch under our names, as far as they are known by now; also return their columns."""
    named = named_columns(source, list(rows.columns), source.path, strict=False)
    rows, used = rows.copy(), set()
    for name in _PLACE:
        if name in named and named[name] != name:
            rows[name] = rows[named[name]]
            used.add(named[name])
    if "Metadata_Plate" in rows:
        rows["Metadata_Plate"] = plate_names(rows["Metadata_Plate"])
    well = source.columns.get("well", "")
    parts = [] if well in rows else _sum(well)
    if len(parts) == 2 and set(parts) <= set(rows.columns):
        rows["Metadata_Well"] = _wells_of(rows[parts[0]], rows[parts[1]])
        used |= set(parts)
    return rows, used


def _named(source: ProfileSource, rows: pd.DataFrame, used: set[str]) -> pd.DataFrame:
    """Return the rows under ``Metadata_*`` names; `used` columns are there as plate, well and batch."""
    named = named_columns(source, list(rows.columns), source.path)
    out = {name: rows[name if name in _PLACE and name in rows else column] for name, column in named.items()}
    for column in rows.columns:  # what is named wins over a column that has the name already
        if column not in named.values() and column not in used:
            out.setdefault(metadata_name(str(column)), rows[column])
    return pd.DataFrame(out, index=rows.index).astype(str)


def _sum(text: str) -> list[str]:
    """'Row+Column' -> ['Row', 'Column']: a well in two columns."""
    return [part.strip() for part in text.split("+")] if text.count("+") == 1 else []


def _wells_of(row: pd.Series, column: pd.Series) -> pd.Series:
    """Write row 2 (or B) and column 3 as B3; what is no row stays as it is, and is refused with the wells."""
    letters = [chr(65 + i) for i in range(26)] + ["A" + chr(65 + i) for i in range(6)]
    number = row.str.replace(r"\.0+$", "", regex=True)
    spelled = {str(i + 1): letter for i, letter in enumerate(letters)}
    name = number.map(spelled).where(number.isin(list(spelled)), number)
    return name.str.cat(column.str.replace(r"\.0+$", "", regex=True)).astype(str)


def _concentrations(source: ProfileSource, rows: pd.DataFrame) -> None:
    """Turn the concentration into uM, by the unit that the settings state."""
    unit = next((short for short in source.columns if short in UNITS_UM), "concentration_uM")
    factor = UNITS_UM[unit]
    if factor == 1 or "Metadata_concentration_uM" not in rows:
        return
    text = rows["Metadata_concentration_uM"]
    codes, unique = pd.factorize(text)
    numbers, odd = parse_numbers(pd.Series(unique, dtype=str))
    if odd.any():
        shown = some(str(v) for v in np.asarray(unique)[odd])
        raise ColumnError(
            f"Column '{source.columns[unit]}' (profiles.columns: {unit}) holds {shown}. Expected numbers with a "
            "decimal point, or nothing."
        )
    written = np.array(["" if np.isnan(v) else f"{v * factor:.9g}" for v in numbers], dtype=object)
    rows["Metadata_concentration_uM"] = pd.Series(written[codes], index=rows.index).astype(str)


def _pert_type(source: ProfileSource, raw: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """Tell treatments from controls by the rule given and the file's own column; never by a missing id."""
    written = rows["Metadata_pert_type"] if "Metadata_pert_type" in rows else pd.Series("", index=rows.index, dtype=str)
    kind = written.str.lower().replace({"": "trt"}).astype(str)
    for known in ("trt", "negcon", "poscon"):  # JUMP writes poscon_cp, poscon_diverse; L1000 trt_cp
        kind = kind.mask(kind.str.startswith(known), known)
    for name, values in source.controls.items():
        text = _control_column(name, raw, rows)
        marks = {str(v).strip() for v in values} - {""}
        if set(text.unique()) <= {"true", "false", "True", "False", ""}:
            text, marks = text.str.lower(), {m.lower() for m in marks}
        hit = text.isin(list(marks))
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


def _control_column(name: str, raw: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """Return the column of the file by its own name, else by ours."""
    if name in raw:
        return raw[name]
    found = find_column(rows, name) or find_column(raw, name)
    if found is None:
        raise ColumnError(f"profiles.controls: there is no column '{name}'. {nearest(name, raw.columns)}")
    return rows[found] if found in rows else raw[found]


def _refuse_doubled_wells(rows: pd.DataFrame, path: str) -> None:
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
