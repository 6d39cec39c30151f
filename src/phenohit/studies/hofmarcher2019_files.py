"""The published files of Hofmarcher et al. 2019 (hti-cnn) that a run does not read as they are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phenohit.data.columns import normalise_wells
from phenohit.data.tables import read_text
from phenohit.errors import ColumnError, FileError, PlateError, some
from phenohit.files import write_table

__all__ = ["platemaps_of_index", "tasks_of_index"]

_PLACE = ["PLATE_ID", "WELL_POSITION"]
_ABOUT = {"SMILES": "smiles", "INCHIKEY": "inchikey", "CPD_NAME": "compound_name"}


def platemaps_of_index(path: str, folder: Path) -> Path:
    """Write plate maps from an index of views.

    Parameters
    ----------
    path : str
        Table with a row per view: ``PLATE_ID``, ``WELL_POSITION`` (or both in ``SAMPLE_KEY``, PLATE-WELL-SITE) and
        ``SMILES`` or ``INCHIKEY``. With ``*``, several such tables, e.g. the parts of a split.
    folder : Path
        ``barcode_platemap.csv`` and ``platemap/<plate>.csv`` come into it.

    Returns
    -------
    Path
        `folder`, to be set as ``profiles.platemaps``.

    Raises
    ------
    FileError
        If there is no such table.
    ColumnError
        If it does not tell wells and compounds.
    PlateError
        If a well has two compounds.
    """
    whole = Path(path)
    paths = sorted(whole.parent.glob(whole.name)) if "*" in whole.name else [whole]
    if not paths:
        raise FileError(f"No index is called '{path}'. Give the table with a row per view, e.g. datasplit1-*.csv.")
    tables = [_places(read_text(p), str(p)) for p in paths]
    wells = pd.concat(tables, ignore_index=True).fillna("").drop_duplicates()
    twice = wells[wells.duplicated(["plate", "well"], keep=False)]
    if len(twice):
        names = twice["plate"].str.cat(twice["well"], sep=" ").unique()
        raise PlateError(
            f"'{path}' puts different compounds into {len(names)} wells: {some(names)}. A well holds one: correct them."
        )
    plates = wells["plate"].unique()
    for plate, rows in wells.groupby("plate", sort=False):
        named = rows.drop(columns="plate").rename(columns={"well": "well_position"})
        write_table(folder / "platemap" / f"{plate}.csv", named)
    barcodes = pd.DataFrame({"Assay_Plate_Barcode": plates, "Plate_Map_Name": plates})
    write_table(folder / "barcode_platemap.csv", barcodes)
    return folder


def _places(table: pd.DataFrame, path: str) -> pd.DataFrame:
    """Return plate, well and compound of every view of one table."""
    about = [c for c in _ABOUT if c in table]
    if "SAMPLE_KEY" in table and not set(_PLACE) <= set(table.columns):
        table[_PLACE] = table["SAMPLE_KEY"].str.extract(r"^(.+)-([A-Za-z]{1,2}\d{1,2})-[^-]+$").fillna("")
    if not set(_PLACE) <= set(table.columns) or not {"SMILES", "INCHIKEY"} & set(about):
        raise ColumnError(
            f"'{path}' is no index of views: its columns are {some(table.columns)}. Expected PLATE_ID and "
            "WELL_POSITION (or SAMPLE_KEY), and SMILES or INCHIKEY."
        )
    wells = table[[*_PLACE, *about]].rename(columns={"PLATE_ID": "plate", "WELL_POSITION": "well", **_ABOUT})
    return wells.assign(well=normalise_wells(wells["well"], path)).drop_duplicates()


def tasks_of_index(path: str, file: Path) -> Path:
    """Give every column of the label matrix a name of its own.

    Parameters
    ----------
    path : str
        Table with a row per column of the matrix. The published one has ChEMBL's assay alone, and the same assay again
        for another threshold.
    file : Path
        Table to write: ``task`` (the assay, with `` (2)`` and so on where it comes again) and the columns of `path`.

    Returns
    -------
    Path
        `path` itself, where its first column names every task once; else `file`.
    """
    table = read_text(path)
    first = table.iloc[:, 0]
    if not first.duplicated().any():
        return Path(path)
    number = table.groupby(first).cumcount() + 1
    task = first.where(number == 1, first.str.cat(number.map(" ({})".format)))
    write_table(file, pd.concat([task.rename("task"), table], axis=1))
    return file
