"""Layouts that are told by a table of images: the Cell Painting Gallery's load_data.csv, and BBBC021's."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd

from phenohit.data.dropped import listed
from phenohit.data.remote import Place, is_address
from phenohit.data.tables import read_text
from phenohit.errors import ColumnError, FileError, some
from phenohit.images.formats import STAGE, Found, wells_of
from phenohit.imaging import ImageSource
from phenohit.progress import track

__all__ = ["BBBC021", "LOAD_DATA", "find_bbbc021", "find_load_data"]

LOAD_DATA = re.compile(r"load_data(?:_with_illum)?\.(?:csv|csv\.gz|parquet)")
BBBC021 = re.compile(r"BBBC021_v\d+_image\.csv(?:\.gz)?")
_DYES = ("DAPI", "Tubulin", "Actin")


def find_load_data(place: Place, source: ImageSource, names: list[str]) -> Found:
    """CellProfiler's LoadData tables of the gallery (``names``: files below `place`; none: `place` is the table).

    ``load_data_with_illum`` is preferred to the ``load_data`` beside it.

    Raises
    ------
    FileError, ColumnError
        If there is no table, or one lacks its columns.
    """
    chosen: dict[str, str] = {}
    for name in names or [""]:
        folder, _, last = name.rpartition("/")
        if not name or (LOAD_DATA.fullmatch(last) and ("with_illum" in last or folder not in chosen)):
            chosen[folder] = name
    if not chosen:
        raise FileError(f"'{source.path}' holds no load_data.csv or load_data_with_illum.csv. Check images.path.")
    parts, lost = [], []
    for name in track(sorted(chosen.values()), "read lists of images"):
        table_place = place.join(name) if name else place
        found, gone = _of_table(table_place, read_text(table_place.local()), source)
        parts.append(found)
        lost += gone
    return Found(pd.concat(parts, ignore_index=True), lost=lost)


def _of_table(place: Place, table: pd.DataFrame, source: ImageSource) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Take one LoadData table apart: one row per view and channel."""
    table = table.rename(columns=lambda c: str(c).removeprefix("Image_"))
    kinds = [re.fullmatch(r"(?:FileName|URL)_Orig(.+)", c) for c in table.columns]
    channels = list(dict.fromkeys(m[1] for m in kinds if m))
    if not channels:
        raise ColumnError(
            f"'{place}' names no images: expected columns FileName_Orig<channel> and PathName_Orig<channel>, or "
            f"URL_Orig<channel>. It has {some(table.columns, 5)}."
        )
    rows = _places(place, table, source)
    files, frames = _Files(place, source), _frames(table, channels)
    parts = []
    for channel in channels:
        part = rows.assign(channel=channel, file=files.of(table, f"Orig{channel}"))
        if frames:
            part["file"] = part["file"].where(part["file"] == "", part["file"] + "#" + frames[channel])
        part["illumination"] = files.of(table, f"Illum{channel}", "illumination function")
        parts.append(part)
    return pd.concat(parts, ignore_index=True), files.lost


def _places(place: Place, table: pd.DataFrame, source: ImageSource) -> pd.DataFrame:
    """Plate, well, site and further metadata of every row."""
    extra = [c for c in table.columns if c.startswith("Metadata_")]
    own = ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_Row", "Metadata_Col"]
    rows = table[[c for c in extra if c not in own]].copy()
    if "Metadata_Well" in table:
        rows["well"] = table["Metadata_Well"]
    elif {"Metadata_Row", "Metadata_Col"} <= set(table.columns):
        rows["well"] = wells_of(table["Metadata_Row"], table["Metadata_Col"])
    else:
        raise ColumnError(f"'{place}' has no column Metadata_Well. It has {some(table.columns)}.")
    fallback = source.plate or place.parent().name
    rows["plate"] = table["Metadata_Plate"].replace("", fallback) if "Metadata_Plate" in table else fallback
    rows["site"] = table["Metadata_Site"].replace("", "1") if "Metadata_Site" in table else "1"
    return rows


def _frames(table: pd.DataFrame, channels: list[str]) -> dict[str, pd.Series]:
    """Numbers of pages, where any image is not the first page of its file."""
    found = {c: table.get(f"Frame_Orig{c}", pd.Series("0", index=table.index)) for c in channels}
    found = {c: f.str.replace(r"\.0*$", "", regex=True).replace("", "0") for c, f in found.items()}
    return found if any((f != "0").any() for f in found.values()) else {}


class _Files:
    """Where the files of a table are: as it says, or below the folder that holds it or that is being read."""

    def __init__(self, table: Place, source: ImageSource) -> None:
        self.lost: list[pd.DataFrame] = []
        self._table, self._folders, self._known = table, {}, {}
        root = Place(source.path, source.storage)
        self._roots = [table.parent(), root if root.is_dir() else root.parent()]

    def of(self, table: pd.DataFrame, name: str, what: str = "file") -> pd.Series:
        """Return addresses, shape (n,); "" where none is given, or a local one is not there, which is listed."""
        url, file = table.get(f"URL_{name}"), table.get(f"FileName_{name}")
        if file is not None:
            empty = pd.Series("", index=table.index)
            folder = table.get(f"PathName_{name}", empty)
        elif url is not None:
            plain = url.map(lambda u: unquote(re.sub(r"^file:(//)?", "", u)) if u.startswith("file:") else u)
            split = plain.str.rpartition("/")
            folder, file = split[0], split[2]
        else:
            return pd.Series("", index=table.index)
        return self.join(folder, file, what)

    def join(self, folder: pd.Series, file: pd.Series, what: str = "file") -> pd.Series:
        """Join folders, as the table gives them, and files."""
        for given, files in file.groupby(folder):
            if given not in self._folders:
                self._folders[given] = self._folder(str(given), set(files))
        joined = folder.map(self._folders).str.rstrip("/") + "/" + file
        absent = np.array([not self._there(j) for j in joined], dtype=bool) & (file != "").to_numpy(bool)
        if absent.any():
            reason = f"the {what} that '{self._table}' names does not exist"
            self.lost.append(listed(STAGE, "file", sorted(set(joined[absent])), reason))
        return joined.where((file != "").to_numpy(bool) & ~absent, "").astype(str)

    def _folder(self, given: str, files: set[str]) -> str:
        """Return the first of the likely folders that holds any of its files."""
        if is_address(given):
            return given
        given = re.sub(r"^file:(//)?", "", given)
        tries = [given] if given.startswith(("/", "~")) or given[1:2] == ":" else []
        for root in self._roots:
            if not tries and root.remote:
                return f"{root.path}/{given}".rstrip("/")
            tries += [str(Path(root.path, p)) for p in (given.lstrip("/"), Path(given).name, "")]
        return next((t for t in tries if not is_address(t) and files & self._inside(t)), tries[0])

    def _there(self, file: str) -> bool:
        """Tell whether a local file exists, by the listing of its folder; addresses are asked when they are read."""
        if is_address(file):
            return True
        folder, _, name = file.rpartition("/")
        return name in self._inside(folder)

    def _inside(self, folder: str) -> set[str]:
        if folder not in self._known:
            self._known[folder] = {p.name for p in Path(folder).iterdir()} if Path(folder).is_dir() else set()
        return self._known[folder]


def find_bbbc021(place: Place, source: ImageSource, names: list[str]) -> Found:
    """BBBC021 (Caie et al. 2010): ``BBBC021_v1_image.csv``, its archives unpacked beside it.

    The site is in the names of its files (``G10_s1_w1...``); compound, concentration (uM) and replicate are kept.

    Raises
    ------
    FileError, ColumnError
    """
    chosen = [n for n in names if BBBC021.fullmatch(n.rpartition("/")[2])]
    if names and len(chosen) != 1:
        raise FileError(
            f"'{source.path}' holds {len(chosen)} tables BBBC021_v1_image.csv. Expected one: give its path."
        )
    table_place = place.join(chosen[0]) if chosen else place
    table = read_text(table_place.local())
    table = table.rename(columns=lambda c: str(c).removeprefix("Image_"))
    table = table.rename(columns={"Metadata_Plate_DAPI": "Metadata_Plate", "Metadata_Well_DAPI": "Metadata_Well"})
    need = ["Metadata_Plate", "Metadata_Well", *(f"{k}_{d}" for d in _DYES for k in ("FileName", "PathName"))]
    lacking = [c for c in need if c not in table]
    if lacking:
        raise ColumnError(f"'{table_place}' lacks the columns {some('Image_' + c for c in lacking)}.")
    rows = pd.DataFrame({"plate": table["Metadata_Plate"], "well": table["Metadata_Well"]})
    rows["site"] = table["FileName_DAPI"].str.extract(r"_s(\d+)_")[0].fillna("1")
    for column in ("Metadata_Compound", "Metadata_Concentration", "Replicate"):
        if column in table:
            rows[f"Metadata_{column.removeprefix('Metadata_')}"] = table[column]
    files = _Files(table_place, source)
    parts = [
        rows.assign(channel=dye, file=files.join(table[f"PathName_{dye}"], table[f"FileName_{dye}"])) for dye in _DYES
    ]
    return Found(pd.concat(parts, ignore_index=True), lost=files.lost)
