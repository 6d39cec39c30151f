"""Plate maps: which plate has which layout, and what is in each well of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from phenohit.data.columns import ALIASES, normalise_wells
from phenohit.data.dropped import dropped, listed, nothing_dropped
from phenohit.data.joins import fill_in, one_row_per_key
from phenohit.data.remote import Place
from phenohit.data.tables import read_text
from phenohit.errors import ColumnError, FileError, PlateError, nearest, some

__all__ = ["join_platemaps", "plate_names", "read_platemaps"]

log = logging.getLogger("phenohit")

_STAGE = "plate maps"
_BARCODES = "barcode_platemap.csv"
_PLATE = ["Assay_Plate_Barcode", *ALIASES["Metadata_Plate"], "Metadata_Plate", "plate", "barcode"]
_MAP = ["Plate_Map_Name", "plate_map_name", "Metadata_plate_map_name", "platemap"]
_WELL = ["well_position", *ALIASES["Metadata_Well"], "Metadata_Well", "well"]


def read_platemaps(
    place: Place | str | os.PathLike[str],
    *,
    plates: Collection[str] | None = None,
    batches: Collection[str] = (),
    needed: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read ``barcode_platemap.csv`` and the maps it names.

    Parameters
    ----------
    place : Place or path
        Folder with ``barcode_platemap.csv`` and ``platemap/<map>.txt`` (tab-separated) or ``.csv``; or a folder
        that has such folders, one per batch.
    plates : collection of str, optional
        Only these plates are looked up; a map of another plate need not exist.
    batches : collection of str
        Of a folder per batch, only these; empty: all.
    needed : bool
        Refuse maps of which none is of these plates.

    Returns
    -------
    maps : DataFrame
        One row per plate and well, all text: ``Metadata_Plate``, ``Metadata_Well`` (A01), ``Metadata_Batch``
        where there is a folder per batch, and the columns of the maps under their own names.
    dropped : DataFrame
        Rows of a map without a well, and repeated ones.

    Raises
    ------
    FileError, ColumnError, PlateError
        If a file or column is absent, a name leads out of the folder, a plate or well is described
        twice with different values, or no plate has a map and `needed`.
    """
    place = place if isinstance(place, Place) else Place(place)
    if place.join(_BARCODES).exists():
        maps, gone, named = _read_folder(place, plates)
        if needed and plates and maps.empty:
            raise _no_plate(place, plates, named)
        return maps, gone
    found = [f.rpartition("/")[0] for f in place.glob(f"*/{_BARCODES}")]
    found = [f for f in found if not batches or f in batches]
    if not found:
        raise FileError(
            f"'{place}' has no {_BARCODES}, nor has a folder in it"
            f"{f' called {some(sorted(batches))}' if batches else ''}. Give the folder that has it as "
            "profiles.platemaps."
        )
    parts, lost, names = [], [], []
    for batch in found:
        maps, gone, named = _read_folder(place.join(batch), plates)
        parts.append(maps.assign(Metadata_Batch=batch))
        lost.append(gone)
        names += named
    if needed and plates and all(part.empty for part in parts):
        raise _no_plate(place, plates, names)
    return pd.concat(parts, ignore_index=True).fillna(""), pd.concat(lost, ignore_index=True)


def _no_plate(place: Place, plates: Collection[str], named: list[str]) -> PlateError:
    shown = sorted(plates)
    return PlateError(
        f"None of the {len(shown)} plates {some(shown)} is among the {len(named)} that {_BARCODES} in '{place}' names. "
        f"{nearest(shown[0], named)} Correct the names there, or give the maps of these plates as profiles.platemaps."
    )


def plate_names(plates: pd.Series) -> pd.Series:
    """Return plate names as text that compares: 1053597806.0, a number's spelling, becomes 1053597806."""
    return plates.astype(str).str.strip().str.replace(r"^(\d+)\.0+$", r"\1", regex=True).astype(str)


def _read_folder(place: Place, plates: Collection[str] | None) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Read the maps of one folder; also return all plates that it names."""
    path = place.join(_BARCODES).local()
    table = read_text(path)
    barcodes = pd.DataFrame(
        {"plate": plate_names(_column(table, _PLATE, path)), "map": _column(table, _MAP, path).str.strip()}
    )
    barcodes, repeated = one_row_per_key(barcodes, ["plate"], str(path), _STAGE)
    named = barcodes["plate"].tolist()
    if plates is not None:
        barcodes = barcodes[barcodes["plate"].isin(list(plates))]
    lost, parts = [repeated], []
    for name, group in barcodes.groupby("map", sort=False):
        layout, gone = _read_map(place, str(name), path)
        lost.append(gone)
        # Every plate of the map gets all its wells.
        many = pd.DataFrame({"Metadata_Plate": group["plate"].to_numpy()}).merge(layout, how="cross")
        parts.append(many)
    if not parts:
        parts = [pd.DataFrame({"Metadata_Plate": [], "Metadata_Well": []}, dtype=str)]
    return pd.concat(parts, ignore_index=True).fillna("").astype(str), pd.concat(lost, ignore_index=True), named


def _read_map(place: Place, name: str, barcodes: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the layout of one map, wells as A01."""
    tried = [f"{folder}{name}{end}" for end in (".txt", ".csv", ".tsv", "") for folder in ("platemap/", "")]
    found = next((t for t in tried if place.join(t, where=str(barcodes)).exists()), None)
    if found is None or not name:
        raise FileError(
            f"'{barcodes}' names the plate map '{name}', but '{place}' has no 'platemap/{name}.txt' (nor .csv). Put it "
            "there, or correct the name."
        )
    path = place.join(found, where=str(barcodes)).local()
    table = read_text(path)
    wells = _column(table, _WELL, path)
    table = table.drop(columns=str(wells.name))
    table.insert(0, "Metadata_Well", normalise_wells(wells, str(path)))
    if not any(c in table for c in _MAP):
        table["plate_map_name"] = name
    try:
        return one_row_per_key(table, ["Metadata_Well"], str(path), _STAGE)
    except ColumnError as error:
        raise PlateError(str(error)) from error


def _column(table: pd.DataFrame, spellings: list[str], path: Path) -> pd.Series:
    found = next((s for s in spellings if s in table), None)
    if found is None:
        raise ColumnError(
            f"'{path}' has no column '{spellings[0]}'. {nearest(spellings[0], table.columns)} Expected a table "
            "separated by tabs (.txt) or commas (.csv) whose first line names the columns."
        )
    return table[found]


def join_platemaps(rows: pd.DataFrame, maps: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join plate maps onto wells by plate and well.

    Parameters
    ----------
    rows : DataFrame, P rows
        With ``Metadata_Plate`` and ``Metadata_Well``.
    maps : DataFrame
        As `read_platemaps` gives it.

    Returns
    -------
    rows : DataFrame, P rows
        The same rows in the same order, with the columns of the maps. A value that a row has already stays.
    dropped : DataFrame
        Plates without a map, wells that their map lacks (both are kept), and which wells of the maps have no row.

    Raises
    ------
    ColumnError
        If the rows have no plate or well.
    PlateError
        If a plate occurs in several batches of the maps and the rows do not say which is meant, or a map is of
        another plate size than its plate or knows none of its wells.
    """
    missing = [c for c in ("Metadata_Plate", "Metadata_Well") if c not in rows]
    if missing:
        raise ColumnError(
            f"Plate maps are joined by plate and well, but the profiles have no {' and '.join(missing)}. Name the "
            "columns in profiles.columns: plate, well."
        )
    keys = ["Metadata_Plate", "Metadata_Well"]
    by_batch = "Metadata_Batch" in maps and maps.duplicated(keys).to_numpy().any()
    if by_batch:
        if "Metadata_Batch" not in rows:
            plates = maps.loc[maps.duplicated(keys), "Metadata_Plate"].unique()
            raise PlateError(
                f"Plates {some(plates)} have plate maps in several batches, and the profiles do not say which batch a "
                "plate belongs to. Name the column in profiles.columns: batch, or give one batch's folder."
            )
        keys = ["Metadata_Batch", *keys]
    place = pd.DataFrame({k: rows[k] for k in keys})
    place["Metadata_Plate"] = plate_names(place["Metadata_Plate"])
    place["Metadata_Well"] = normalise_wells(place["Metadata_Well"])
    at = pd.MultiIndex.from_frame(maps[keys]).get_indexer(pd.MultiIndex.from_frame(place))
    _refuse_others(place, maps, keys[:-1], at)
    lost = _unmatched(place, maps, keys[:-1], at)
    batch = [] if "Metadata_Batch" in rows else ["Metadata_Batch"]
    table = maps[[c for c in maps if c not in ("Metadata_Plate", "Metadata_Well", "Metadata_Batch") or c in batch]]
    rows, differing = fill_in(rows, table, at, "plate map", _STAGE)
    return rows, pd.concat([lost, differing], ignore_index=True)


def _refuse_others(place: pd.DataFrame, maps: pd.DataFrame, keys: list[str], at: np.ndarray) -> None:
    """Refuse a map that is of another plate: it knows no well of it, or most wells lie beyond the map's plate size."""
    known = maps.assign(size=_sizes(maps["Metadata_Well"])).groupby(keys)["size"].max().rename("map")
    wells = place.assign(size=_sizes(place["Metadata_Well"]), unknown=at < 0)
    found = wells.groupby(keys).agg(n=("size", "size"), size=("size", "max"), unknown=("unknown", "sum")).join(known)
    wrong = found["unknown"].eq(found["n"]) | (found["size"].gt(found["map"]) & (2 * found["unknown"]).ge(found["n"]))
    wrong &= found["map"].notna()
    if not wrong.to_numpy().any():
        return
    one = found[wrong].iloc[0]
    names = [name[-1] if isinstance(name, tuple) else name for name in found.index[wrong]]
    raise PlateError(
        f"The plate map of {some(names)} does not fit: {int(one['unknown'])} of {int(one['n'])} wells of '{names[0]}' "
        f"are not in its map. Its wells are those of a plate of {int(one['size'])}, the map's of one of "
        f"{int(one['map'])}. Correct the name of the map in {_BARCODES}, or the map; give wells that were left empty "
        "a line in it too."
    )


def _sizes(wells: pd.Series) -> np.ndarray:
    """Return the wells of the smallest plate, 96, 384 or 1536, that has such a well."""
    row, column = wells.str[:-2], pd.to_numeric(wells.str[-2:], errors="coerce").fillna(0)
    short = row.str.len() < 2
    small, middle = (short & (row <= last) & (column <= most) for last, most in (("H", 12), ("P", 24)))
    return np.select([small.to_numpy(bool), middle.to_numpy(bool)], [96, 384], 1536)


def _unmatched(place: pd.DataFrame, maps: pd.DataFrame, keys: list[str], at: np.ndarray) -> pd.DataFrame:
    """List wells and plates that only one side has."""
    mapped = pd.MultiIndex.from_frame(maps[keys].drop_duplicates())
    has_map = pd.MultiIndex.from_frame(place[keys]).isin(mapped)
    bare = place.loc[~has_map, "Metadata_Plate"].value_counts()
    reasons = [f"no plate map; its {n} wells are kept without one" for n in bare]
    lost = [nothing_dropped(), listed(_STAGE, "plate", bare.index, reasons)]
    odd = place[has_map & (at < 0)]
    ids = odd["Metadata_Plate"].str.cat(odd["Metadata_Well"], sep=" ")
    lost.append(listed(_STAGE, "well", ids, "not in its plate map; kept without what the map says"))
    said = [f"{len(bare)} of {place['Metadata_Plate'].nunique()} plates have none ({some(bare.index)})"] * bool(
        len(bare)
    )
    said += [f"{len(odd)} wells are not in the map of their plate ({some(ids)})"] * bool(len(odd))
    if said:
        log.warning("plate maps: %s; what is in them is not known from the maps", " and ".join(said))
    read = pd.MultiIndex.from_frame(maps[keys]).isin(pd.MultiIndex.from_frame(place[keys].drop_duplicates()))
    unseen = read.copy()
    unseen[at[at >= 0]] = False
    wells = maps.loc[unseen].groupby("Metadata_Plate", sort=False)["Metadata_Well"].agg(list)
    reasons = [f"{len(w)} wells of its map have no row: {some(w)}" for w in wells]
    lost.append(listed(_STAGE, "plate", wells.index, reasons))
    n_plates = len(mapped) - len(pd.MultiIndex.from_frame(maps.loc[read, keys].drop_duplicates()))
    if n_plates:
        lost.append(dropped(_STAGE, "plate", ["plate map"], f"{n_plates} plates that have a map have no row"))
    return pd.concat(lost, ignore_index=True)
