"""Read what others made: profiles in any form, structures, any table."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd

from phenohit.config import ProfileSource, StructureSource
from phenohit.data.dropped import listed
from phenohit.data.profiles import Profiles
from phenohit.data.remote import Place
from phenohit.data.tables import TableFile, as_text, read_any
from phenohit.errors import ConfigError, FileError
from phenohit.registry import resolve

__all__ = ["READERS", "find_format", "read_any", "read_library", "read_profiles", "read_structures"]

log = logging.getLogger("phenohit")

# Every form of profiles -> the function that reads it: ProfileSource -> (Profiles, dropped).
READERS = {
    "table": "phenohit.data.read_table:read_table",
    "gallery": "phenohit.data.gallery:read_gallery",
    "cellprofiler": "phenohit.profiles.cellprofiler:read_cellprofiler",
    "deepprofiler": "phenohit.profiles.deepprofiler:read_deepprofiler",
    "anndata": "phenohit.data.h5ad:read_h5ad",
}

# Readers of structures that need RDKit, which this part does without.
STRUCTURES = {"sdf": "phenohit.chem.sdf:read_sdf"}

_TABLES = (".parquet", ".pq", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")


def read_profiles(source: ProfileSource) -> tuple[Profiles, pd.DataFrame]:
    """Read the features of wells or compounds.

    Parameters
    ----------
    source : ProfileSource

    Returns
    -------
    profiles : Profiles
        Rows in the order of the file (of a gallery: batch by batch, plate by plate); wells as A01;
        ``Metadata_pert_type`` filled for every row.
    dropped : DataFrame
        Columns that are no features, features without any value, infinite values, wells without any
        feature, plates left out, and what plate maps and joined tables did not know.

    Raises
    ------
    FileError, ColumnError, PlateError, ConfigError
    """
    if not source.path:
        raise ConfigError("profiles.path is empty. Give the file with the feature table.")
    read: Any = resolve(find_format(source), READERS, "phenohit.readers")
    return read(source)


def find_format(source: ProfileSource) -> str:
    """Return the format of a source, by what is found at its path where the settings say auto.

    Raises
    ------
    FileError
        If nothing is there, or what is there is not known.
    """
    if source.format != "auto":
        return source.format
    name = source.path.lower().rstrip("/")
    if name.endswith(_TABLES):
        return "table"
    if name.endswith((".h5ad", ".h5ad.gz")):
        return "anndata"
    if name.endswith((".sqlite", ".sqlite3", ".db")):
        return "cellprofiler"
    if name.endswith(".npz"):
        return "deepprofiler"
    place = Place(source.path, source.storage)
    if not place.exists():
        raise FileError(f"'{source.path}' does not exist. Give the path of an existing file or folder.")
    if not place.is_dir():
        return "table"  # which says what it expected
    found = _format_of_folder(place)
    if found is None and place.glob("*/workspace"):
        found = "gallery"  # one folder too high, as its reader will say
    if found is None:
        raise FileError(
            f"'{source.path}' holds nothing that is known: no gallery's profiles, no tables of cells, no embeddings. "
            "Give a file, or say what it is in profiles.format."
        )
    log.info("'%s' is read as %s", source.path, found)
    return found


def _format_of_folder(place: Place) -> str | None:
    from phenohit.data.gallery import is_gallery

    if is_gallery(place):
        return "gallery"
    for depth in ("", "*/", "*/*/", "*/*/*/"):
        if place.glob(f"{depth}*.npz") or place.glob(f"{depth}embedding.parquet"):
            return "deepprofiler"
        if any(place.glob(f"{depth}{name}") for name in ("*Nuclei.csv*", "*Cells.csv*", "*.sqlite")):
            return "cellprofiler"
    return None


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
        id are left out: nothing can refer to them (`read_library` lists them).

    Raises
    ------
    FileError, ColumnError, StructureError
    """
    return read_library(source)[0]


def read_library(source: StructureSource) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read structures as `read_structures` does; also return the rows without an id, which are left out."""
    if str(source.path).lower().endswith((".sdf", ".sdf.gz", ".sd")):
        read = resolve("sdf", STRUCTURES, "phenohit.structures")
        found = read(source.path, "" if source.id == StructureSource.id else source.id)
    else:
        table = TableFile(source.path, text=[source.id, source.smiles])
        table.need([source.id], "structures.id")
        table.need([source.smiles], "structures.smiles")
        arrow = table.read([source.id, source.smiles])
        found = pd.DataFrame({"id": as_text(arrow[source.id]), "smiles": as_text(arrow[source.smiles])})
    bare = (found["id"] == "").to_numpy(dtype=bool)
    ids = [f"{source.path}: row {i}" for i in np.flatnonzero(bare)]
    lost = listed("read structures", "structure", ids, "no compound id: nothing can refer to it")
    return found[~bare].reset_index(drop=True), lost
