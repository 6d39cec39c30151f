"""Read a project folder of the Cell Painting Gallery: its plates at one level of processing.

Folder contract (broadinstitute/cellpainting-gallery): ``<project>/<source>/workspace/`` holds
``profiles/<batch>/<plate>/<plate>[_<level>].csv.gz``, ``backend/<batch>/<plate>/<plate>.{csv,sqlite}``,
``profiles_assembled/<subset>/<version>/<steps>.parquet`` and ``metadata/platemaps/<batch>/``.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from phenohit.data.columns import ColumnSplit, kind_of, left_out, refuse_text
from phenohit.data.dropped import dropped, listed, nothing_dropped
from phenohit.data.finish import finish_rows, matching
from phenohit.data.profiles import Profiles
from phenohit.data.read_table import (
    STAGE,
    copy_features,
    infinite_values,
    open_profiles,
    raw_rows,
    read_table,
    split_table,
    without_empty,
)
from phenohit.data.remote import Place
from phenohit.data.tables import Damaged, TableFile, as_text, header_of
from phenohit.errors import ColumnError, ConfigError, FileError, PhenoHitError, PlateError, nearest, some
from phenohit.files import check_file, open_bytes
from phenohit.progress import track
from phenohit.registry import resolve
from phenohit.sources import ProfileSource

__all__ = ["Found", "PlateFile", "chosen_files", "find_plates", "is_gallery", "read_gallery"]

log = logging.getLogger("phenohit")

# Single cells are read elsewhere: (source, [(batch, plate, local path), ...], maps=Place) -> (Profiles, dropped).
CELLS = {"cells": "phenohit.profiles.cellprofiler:read_backend"}

_ENDS = (".csv.gz", ".csv", ".parquet")
_PARTS = ("profiles", "backend", "profiles_assembled")
_FIRST = "aggregated"  # the level of <plate>.csv.gz, which has no name of its own


@dataclass(frozen=True)
class PlateFile:
    """One file of one plate (of an assembled table: of all plates, with `batch` and `plate` empty)."""

    batch: str
    plate: str
    level: str
    place: Place


@dataclass(frozen=True)
class Found:
    """What a project folder holds.

    Attributes
    ----------
    files : list of PlateFile
        By batch, plate and level.
    maps : Place or None
        Folder of the plate maps.
    """

    files: list[PlateFile]
    maps: Place | None


def is_gallery(place: Place) -> bool:
    """Tell whether a folder is a source, a workspace, a part of one or a batch of profiles."""
    inside = set(place.folders())
    return (
        bool({"workspace", *_PARTS} & inside)
        or place.name in _PARTS
        or (place.parent().name in _PARTS[:2] and _is_batch(place))
    )


def _is_batch(place: Place) -> bool:
    return any(
        f.split("/")[1].startswith(f.split("/")[0]) for f in place.glob("*/*") if f.endswith((*_ENDS, ".sqlite"))
    )


def find_plates(place: Place) -> Found:
    """List every file of profiles below a project's source, its workspace, or a part or batch of that.

    Raises
    ------
    FileError
        If the folder is none of these.
    """
    if not place.exists():
        raise FileError(f"'{place}' does not exist. Give the folder of a project's source, or its workspace.")
    below = set(place.folders())
    if "workspace" in below:
        place = place.join("workspace")
        below = set(place.folders())
    files: list[PlateFile] = []
    if below & set(_PARTS):
        workspace = place
        for part in _PARTS:
            if part in below:
                files += _files_of(place.join(part), part)
    elif place.name in _PARTS:
        workspace = place.parent()
        files += _files_of(place, place.name)
    elif _is_batch(place):
        part = place.parent().name
        workspace = place.parent().parent() if part in _PARTS else None
        files += _batch(place, place.name, part)
    else:
        sources = [name.split("/")[0] for name in place.glob("*/workspace")]
        hint = f"It holds several: give one of {some(sources)}." if sources else f"It holds {some(sorted(below))}."
        raise FileError(
            f"'{place}' is no folder of the Cell Painting Gallery: expected workspace, profiles, backend or "
            f"profiles_assembled in it, or plates of one batch. {hint}"
        )
    maps = None if workspace is None else workspace.join("metadata", "platemaps")
    return Found(files, maps if maps is not None and maps.exists() else None)


def _files_of(folder: Place, part: str) -> list[PlateFile]:
    if part == "profiles_assembled":
        return [PlateFile("", "", f.removesuffix(".parquet"), folder.join(f)) for f in folder.glob("**/*.parquet")]
    return [file for batch in folder.folders() for file in _batch(folder.join(batch), batch, part)]


def _batch(folder: Place, batch: str, part: str) -> list[PlateFile]:
    """List the files of one batch whose names begin with their plate."""
    found = []
    for relative in folder.glob("*/*"):
        plate, file = relative.split("/")
        if file == f"{plate}.sqlite":
            found.append(PlateFile(batch, plate, "cells", folder.join(relative)))
            continue
        end = next((e for e in _ENDS if file.endswith(e)), None)
        stem = file.removesuffix(end) if end else ""
        if stem == plate:
            level = "backend" if part == "backend" else _FIRST
        elif stem.startswith(f"{plate}_"):
            level = stem.removeprefix(f"{plate}_")
        else:
            continue
        found.append(PlateFile(batch, plate, level, folder.join(relative)))
    return found


def read_gallery(source: ProfileSource) -> tuple[Profiles, pd.DataFrame]:
    """Read the plates of a project at one level; `phenohit.data.read.read_profiles` says what comes out.

    Plates are read one after another into one matrix: memory is the result and one plate.

    Notes
    -----
    Plate and batch are the names of the folders. Features that not every plate has are left out and listed.
    """
    place = Place(source.path, source.storage)
    found = find_plates(place)
    level = _level(found.files, source)
    files, lost = _chosen(found.files, level, source)
    log.info("'%s': %d plates of level '%s'", place, len(files), level)
    if level == "cells":
        read = resolve("cells", CELLS, "phenohit.readers")
        maps = found.maps if found.maps is not None and _has_maps(found.maps, files) else None
        chosen = replace(source, plates=[], batches=[])
        profiles, gone = read(chosen, [(f.batch, f.plate, f.place.local()) for f in files], maps=maps)
        return profiles, pd.concat([lost, gone], ignore_index=True)
    if not files[0].plate:  # assembled: one table of all plates
        return read_table(replace(source, path=files[0].place.path, level="", format="table"))
    X, raw, features, history, gone = _read_plates(source, files, level)
    maps = found.maps if found.maps is not None and _has_maps(found.maps, files) else None
    if maps is None and not source.platemaps:
        log.info("'%s': no plate maps of these batches were found", place)
    rows, unknown = finish_rows(replace(source, plates=[], batches=[]), raw, maps=maps)
    profiles, empty = without_empty(X, rows.reset_index(drop=True), features, history)
    log.info("read profiles: %d plates, %d wells, %d features", len(files), len(profiles), len(profiles.features))
    return profiles, pd.concat([lost, gone, unknown, empty], ignore_index=True)


def chosen_files(source: ProfileSource) -> tuple[list[PlateFile], Place | None]:
    """Return the files that `read_gallery` would read, and the folder of the plate maps."""
    found = find_plates(Place(source.path, source.storage))
    return _chosen(found.files, _level(found.files, source), source)[0], found.maps


def _has_maps(maps: Place, files: list[PlateFile]) -> bool:
    return any(maps.join(batch, "barcode_platemap.csv").exists() for batch in {f.batch for f in files})


def _level(files: list[PlateFile], source: ProfileSource) -> str:
    """Return the level to read: the one that is asked for, or the only one."""
    counts = Counter(f.level for f in files)
    shown = ", ".join(f"{level} ({n} plates)" if n > 1 else level for level, n in sorted(counts.items()))
    if not counts:
        raise FileError(f"'{source.path}' holds no profiles: no file is called <plate>/<plate>[_<level>].csv.gz.")
    if source.level:
        same = [lev for lev in counts if source.level in (lev, lev.rpartition("/")[2])]
        if len(same) == 1:
            return same[0]
        said = "stands for several files" if same else "is not there"
        raise ConfigError(
            f"profiles.level '{source.level}' {said}. {nearest(source.level, counts)} There are: {shown}."
        )
    if len(counts) > 1:
        raise ConfigError(f"'{source.path}' holds several levels: {shown}. Choose one in profiles.level.")
    return next(iter(counts))


def _chosen(files: list[PlateFile], level: str, source: ProfileSource) -> tuple[list[PlateFile], pd.DataFrame]:
    """Choose the files of a level, of the batches and plates that are asked for; list the others."""
    at_level = [f for f in files if f.level == level]
    if not at_level[0].plate:
        return at_level, nothing_dropped()
    batches = matching(sorted({f.batch for f in at_level}), source.batches, "profiles.batches")
    of_batch = [f for f in at_level if f.batch in batches]
    plates = matching(sorted({f.plate for f in of_batch}), source.plates, "profiles.plates")
    kept = [f for f in of_batch if f.plate in plates]
    others = [f"{f.batch} {f.plate}" for f in at_level if f.batch not in batches or f.plate not in plates]
    without = sorted({(f.batch, f.plate) for f in files if f.plate} - {(f.batch, f.plate) for f in at_level})
    lost = [
        listed(STAGE, "plate", others, "matches no pattern of profiles.batches and profiles.plates"),
        listed(STAGE, "plate", [" ".join(w) for w in without], f"has no file of level '{level}'"),
    ]
    doubled = [p for p, n in Counter((f.batch, f.plate) for f in kept).items() if n > 1]
    if doubled:
        raise PlateError(
            f"Plates have several files of level '{level}': {some(' '.join(d) for d in doubled)}. Keep one of them."
        )
    return kept, pd.concat(lost, ignore_index=True)


def _read_plates(
    source: ProfileSource, files: list[PlateFile], level: str
) -> tuple[np.ndarray, pd.DataFrame, list[str], list[str], pd.DataFrame]:
    """Read all plates into one matrix: values, raw rows, features, history, what was left out."""
    headers, most = _headers(files)
    split, lost = _common(source, files, headers)
    X = np.empty((most, len(split.features)), dtype=np.float32)
    n_infinite, done, rows = np.zeros(len(split.features), dtype=np.int64), 0, []
    for file in track(files, f"read plates ({level})"):
        with _OfPlate(file):
            table = open_profiles(source, file.place)
            _numbers_only(table, split.features)
            # Some plates lack some metadata.
            part = raw_rows(source, table, [c for c in split.metadata if c in table.names])
            n_infinite += copy_features(table, split.features, X[done : done + table.n_rows])
        if not table.n_rows:
            lost.append(dropped(STAGE, "plate", [f"{file.batch} {file.plate}"], "its file holds no wells"))
        rows.append(_of_folder(source, part, file, lost))
        done += table.n_rows
    raw = pd.concat(rows, ignore_index=True).fillna("").astype(str)
    lost.append(infinite_values(split.features, n_infinite))
    return X[:done], raw, split.features, [f"{level}[upstream]"], pd.concat(lost, ignore_index=True)


def _of_folder(source: ProfileSource, rows: pd.DataFrame, file: PlateFile, lost: list[pd.DataFrame]) -> pd.DataFrame:
    """Give the rows the plate and batch of their folder."""
    said = set(rows["Metadata_Plate"]) - {"", file.plate} if "Metadata_Plate" in rows else set()
    if said and "plate" not in source.columns:
        reason = f"its file calls the plate {some(sorted(said), 3)}; the name of the folder is used"
        lost.append(dropped(STAGE, "plate", [f"{file.batch} {file.plate}"], reason))
    return rows.assign(Metadata_Batch=file.batch, Metadata_Plate=file.plate)


def _headers(files: list[PlateFile]) -> tuple[list[list[str]], int]:
    """Names of the columns of every file, and how many rows they have together at most."""
    headers, most = [], 0
    for file in track(files, "look at plates"):
        with _OfPlate(file):
            names, n_rows = _header(file.place.local())
        headers.append(names)
        most += n_rows
    return headers, most


def _header(path: Path) -> tuple[list[str], int]:
    """Names of the columns and number of lines, without parsing the rows."""
    check_file(path)
    with Damaged(path):
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                return list(file.schema_arrow.names), file.metadata.num_rows
        first, separator = header_of(path)
        n_lines = 0
        with open_bytes(path) as handle:
            while block := handle.read(1 << 22):
                n_lines += max(block.count(b"\n"), block.count(b"\r"))
    return next(csv.reader([first], delimiter=separator)), n_lines  # the last line may lack its end


def _common(
    source: ProfileSource, files: list[PlateFile], headers: list[list[str]]
) -> tuple[ColumnSplit, list[pd.DataFrame]]:
    """Features that every plate has, as the first plate tells them; metadata that any plate has."""
    with _OfPlate(files[0]):
        split = split_table(source, open_profiles(source, files[0].place))
    counts = Counter(name for header in headers for name in set(header))
    features = [f for f in split.features if counts[f] == len(files)]
    gone = left_out(split, source.features)
    lost = [dropped(STAGE, "feature", gone["column"], gone["reason"])]
    first = set(headers[0])
    metadata = {n: None for h in headers for n in h if n.startswith("Metadata_")} | dict.fromkeys(split.metadata)
    partial = [f for f in split.features if counts[f] < len(files)]
    partial += [n for n in counts if n not in first and n not in metadata]
    reasons = [f"only {counts[n]} of {len(files)} plates have it" for n in partial]
    lost.append(dropped(STAGE, "feature", partial, reasons))
    if not features:
        raise ColumnError(
            f"The {len(files)} plates of '{source.path}' have no feature in common. The first has {some(first, 5)}. "
            "Read plates of one kind: profiles.batches, profiles.plates."
        )
    return replace(split, features=features, metadata=list(metadata)), lost


def _numbers_only(table: TableFile, features: list[str]) -> None:
    """Refuse a plate with text where another has numbers."""
    texts = [f for f in features if str(table.schema.field(f).type) in ("string", "large_string", "bool")]
    for name, column in table.columns(texts):
        values = as_text(column)
        if kind_of(values) not in ("number", "empty"):
            refuse_text(name, values, str(table.path))


class _OfPlate:
    """Put the plate, and where its file comes from, before an error."""

    def __init__(self, file: PlateFile) -> None:
        self.file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PhenoHitError):
            where = f"Plate '{self.file.plate}' of batch '{self.file.batch}' ('{self.file.place}')"
            raise type(error)(f"{where} cannot be used. {error}") from error
