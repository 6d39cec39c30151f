"""Find what CellProfiler wrote: runs, each an Image table with the tables of its objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from phenohit.data.remote import Place
from phenohit.errors import FileError, some
from phenohit.profiles.objects import CsvObjects, Objects, SqliteObjects, csv_images, sqlite_tables
from phenohit.profiles.sites import Site, site_of

__all__ = ["Run", "find_runs"]

_PARTS = {"cell": "Cells", "cells": "Cells", "cytoplasm": "Cytoplasm", "cyto": "Cytoplasm", "nuclei": "Nuclei",
          "nucleus": "Nuclei", "image": "Image"}  # fmt: skip
_CSV = re.compile(rf"(|.*[^A-Za-z])({'|'.join(_PARTS)})\.(csv|tsv|txt)(\.gz)?", re.IGNORECASE)
_DATABASE = (".sqlite", ".sqlite3", ".db", ".db3")


@dataclass
class Run:
    """One run of CellProfiler: an Image table and the objects of its images."""

    name: str
    place: Place
    files: dict[str, str] = field(default_factory=dict)  # part -> file, for CSV
    database: Path | None = None
    site: Site | None = None  # as read off the path
    sure: bool = False  # `site` counts whatever the Image table says
    tables: dict[str, str] = field(default_factory=dict)  # part -> table, for a database
    has_table_number: bool = False

    def images(self) -> pd.DataFrame | None:
        """Return the Image table, or None; of a database, list its tables as well."""
        if self.database is None:
            return csv_images(self.place.local(self.files["Image"])) if "Image" in self.files else None
        images, tables = sqlite_tables(self.database)
        known = {_PARTS[n.lower()]: t for n, t in tables.items() if n.lower() in _PARTS}
        whole = next((t for n, t in tables.items() if n.lower() == "object"), None)
        self.tables = known or ({"": whole} if whole else {})
        if not self.tables:
            raise FileError(
                f"'{self.database}' has no table of objects that is understood: it has {some(tables) or 'none'}. "
                "Expected Cells, Cytoplasm and Nuclei, or Per_Cells and so on, or Per_Object, beside Image or "
                "Per_Image."
            )
        return images

    @property
    def parts(self) -> list[str]:
        """Parts of a cell that have a table; '' is one table of all."""
        return [p for p in (self.files if self.database is None else self.tables) if p != "Image"]

    def open(self, part: str, features: Sequence[str] = ()) -> Objects:
        """Open the table of a part; `features`, under any of their names, will be read."""
        if self.database is None:
            return CsvObjects(self.place.local(self.files[part]), features)
        return SqliteObjects(self.database, self.tables[part])

    def prefix(self, part: str) -> str:
        """Return what the features of a part begin with; a single table of all objects says it in each column."""
        if self.database is not None:
            found = re.sub(r"^.*?Per_", "", self.tables[part])
            return "" if part == "" else f"{found}_"
        found = _CSV.fullmatch(PurePosixPath(self.files[part]).name)
        return f"{found[2] if found else part}_"


def find_runs(place: Place) -> list[Run]:
    """List the runs below a folder, or in a file."""
    if not place.is_dir():
        name = PurePosixPath(place.path).name
        if not name.lower().endswith(_DATABASE):
            folder = place.parent()
            runs = [run for run in _csv_runs(folder, folder.glob("*")) if name in run.files.values()]
            if not runs:
                raise FileError(
                    f"'{place}' is not a table of CellProfiler. Expected a folder with Cells.csv, Nuclei.csv, "
                    f"Image.csv and so on, or a database that ends in {', '.join(_DATABASE)}."
                )
            return runs
        return [_database(place.local(), place.path)]
    names = place.glob("**/*")
    runs = _csv_runs(place, names)
    found = [n for n in names if n.lower().endswith(_DATABASE)]
    runs += [_database(place.local(n), f"{place.path}/{n}") for n in found]
    if not runs:
        raise FileError(
            f"'{place}' holds none of CellProfiler's object tables among its {len(names)} files. Expected Cells.csv, "
            f"Cytoplasm.csv or Nuclei.csv (also .csv.gz), or a database that ends in {', '.join(_DATABASE)}."
        )
    return runs


def _database(path: Path, name: str) -> Run:
    return Run(name, Place(path), database=path, site=Site("", PurePosixPath(name).stem, "", ""))


def _csv_runs(place: Place, names: Sequence[str]) -> list[Run]:
    """Put the CSV files together that one run wrote: those of a folder with the same beginning."""
    runs: dict[str, Run] = {}
    for name in names:
        pure = PurePosixPath(name)
        found = _CSV.fullmatch(pure.name)
        if found is None:
            continue
        beginning = str(pure.parent / found[1].rstrip("_-. "))
        where = f"{place.path}/{beginning}".removesuffix("/.")
        run = runs.setdefault(beginning, Run(where, place, site=site_of(where, place.path)))
        part = _PARTS[found[2].lower()]
        if part in run.files:
            raise FileError(f"'{place.path}' has two files for {part}: '{run.files[part]}' and '{name}'. Keep one.")
        run.files[part] = name
    return [run for run in runs.values() if run.parts]
