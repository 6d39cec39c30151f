"""Embeddings of single cells, one file per site, to wells: DeepProfiler's .npz, or Parquet.

Only arrays of numbers are read. The `metadata` that DeepProfiler stores beside them is a pickle, which
could run anything when opened; plate, well and site are read off the path instead.
"""

from __future__ import annotations

import logging
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from phenohit.data.columns import Kind, split_names
from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.profiles import Profiles
from phenohit.data.remote import Place
from phenohit.data.tables import TableFile
from phenohit.errors import ColumnError, FileError, some
from phenohit.files import check_file
from phenohit.profiles.cells import STAGE, WellTable, check_statistics
from phenohit.profiles.sites import group_sites, site_of
from phenohit.progress import track
from phenohit.sources import ProfileSource

__all__ = ["read_deepprofiler"]

log = logging.getLogger("phenohit")

_ENDS = (".npz", ".parquet")
_KEYS = ("features", "f")  # f: older releases


def read_deepprofiler(source: ProfileSource) -> tuple[Profiles, pd.DataFrame]:
    """Read embeddings of single cells, as wells.

    Parameters
    ----------
    source : ProfileSource
        `path` is a folder with one file per site, at any depth: ``<plate>/<well>/<site>.npz`` as
        DeepProfiler writes, ``<plate>/<well>_<site>.npz``, ``<plate>_<well>_<site>.npz``,
        ``<plate>/<well>-<site>/embedding.parquet`` or ``<plate>/<well>/<site>/embedding.npz`` as the
        Cell Painting Gallery keeps them; a folder above the plate is the batch. Or one such file.

    Returns
    -------
    profiles : Profiles
        One row per plate and well; features ``DP_0``, ``DP_1`` and so on (of Parquet: its columns).
    dropped : DataFrame
        Sites without a cell, wells with too few cells, features without a value.

    Raises
    ------
    FileError
        If a file is damaged, holds Python objects where numbers are expected, or another number of
        features than the rest.
    ColumnError, PlateError, ConfigError

    Notes
    -----
    Memory: one file, and what `phenohit.profiles.cells` holds.
    """
    statistics = check_statistics(source.cells)
    place, names = _find(source)
    root = place.path if names[0] else ""
    paths = [f"{place.path}/{n}" if n else place.path for n in names]
    where = [site_of(PurePosixPath(p).with_suffix(""), root) for p in paths]
    images = pd.DataFrame({"run": range(len(paths)), "key": "", "name": paths})
    sites = group_sites(source, images, where, None)
    order = sites.order()
    columns, ignored, width = _columns(source, (place.local(names[i]) for i, _ in order))
    table = WellTable(len(sites.wells), _feature_names(columns), statistics)
    collector = table.collector()
    n_objects = np.zeros(len(sites.wells), dtype=np.int64)
    empty = []
    for run, ending in track(order, "read cells"):
        cells = _read(place.local(names[run]), columns, width)
        well = int(sites.of(run)["code"].iloc[0])
        if len(cells):
            wells = np.full(len(cells), well)
            table.count(wells)
            collector.add(wells, cells)
            n_objects[well] += len(cells)
        else:
            empty.append(paths[run])
        collector.close(ending)
    collector.finish()
    sites.wells["Metadata_cell_count"] = n_objects.astype(str)
    log.info(
        "read cells: %s cells, %d sites, %d wells, %d plates, %d features",
        f"{n_objects.sum():,}", len(order), len(sites.wells), sites.wells["Metadata_Plate"].nunique(), len(columns),
    )  # fmt: skip
    profiles, few = table.finish(sites.wells, source.min_cells)
    lost = [sites.dropped, ignored, dropped(STAGE, "site", empty, "no cell in the file"), few]
    return profiles, pd.concat(lost, ignore_index=True)


def _find(source: ProfileSource) -> tuple[Place, list[str]]:
    """List the files, relative to their folder; '' is the place itself."""
    place = Place(source.path, source.storage)
    if not place.exists():
        raise FileError(f"'{place}' does not exist. Give the folder with the embeddings.")
    if not place.is_dir():
        if not place.path.lower().endswith(_ENDS):
            raise FileError(
                f"'{place}' holds no embeddings. Expected a file that ends in .npz or .parquet, or a folder."
            )
        return place, [""]
    names = [n for end in _ENDS for n in place.glob(f"**/*{end}")]
    if not names:
        raise FileError(f"'{place}' holds no .npz and no .parquet file. Give the folder with the embeddings.")
    kinds = {PurePosixPath(n).suffix.lower() for n in names}
    if len(kinds) > 1:
        raise FileError(f"'{place}' holds both .npz and .parquet files. Give a folder that holds one of them.")
    return place, names


def _columns(source: ProfileSource, paths: Iterable[Path]) -> tuple[list[str], pd.DataFrame, int]:
    """Decide on the features by the first file that has any; also return how many the file has."""
    kinds: dict[str, Kind] = {}
    for path in paths:
        if path.suffix.lower() == ".npz":
            kinds = {f"DP_{j}": "number" for j in range(_features(path).shape[1])}
        else:
            kinds = {f.name: _kind(f.type) for f in TableFile(path).schema}
        if kinds:
            break
    split = split_names(kinds, features=source.features, ignore=source.ignore)
    if not split.features:
        raise ColumnError(
            f"'{source.path}' has no feature among {some(kinds, 5)}. Check profiles.features and profiles.ignore."
        )
    if not len(split.ignored):
        return split.features, nothing_dropped(), len(kinds)
    reasons = split.ignored["reason"].str.replace(r": kept as .*", "", regex=True)
    return split.features, dropped(STAGE, "feature", split.ignored["column"], reasons), len(kinds)


def _feature_names(columns: Sequence[str]) -> list[str]:
    """Columns that are mere numbers get a name."""
    return [f"DP_{c}" if c.isdigit() else c for c in columns]


def _kind(kind: pa.DataType) -> Kind:
    if pa.types.is_boolean(kind):
        return "bool"
    return "number" if pa.types.is_floating(kind) or pa.types.is_integer(kind) else "text"


def _read(path: Path, columns: Sequence[str], width: int) -> NDArray[np.float32]:
    """Return cells and chosen features of a file, shape (cells, F)."""
    if path.suffix.lower() == ".npz":
        found = _features(path)
        if not len(found):
            return np.zeros((0, len(columns)), dtype=np.float32)
        chosen = np.array([int(c.removeprefix("DP_")) for c in columns])
        if found.shape[1] != width:
            raise FileError(
                f"'{path}' has {found.shape[1]} features per cell, others have {width}. They come from different "
                "models: keep them in different folders."
            )
        with np.errstate(over="ignore"):
            return found[:, chosen].astype(np.float32)
    table = TableFile(path)
    table.need(columns)
    arrow = table.read(columns)
    cells = np.empty((arrow.num_rows, len(columns)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for j in range(len(columns)):
            cells[:, j] = arrow.column(j).cast(pa.float64()).to_numpy()
    return cells


def _features(path: Path) -> NDArray[np.floating]:
    """Return the array of features of an .npz file, shape (cells, F); nothing else in it is opened."""
    check_file(path)
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            key = next((k for k in _KEYS if k in file.files), None)
            if key is None:
                raise FileError(f"'{path}' holds {some(file.files)}. Expected an array called 'features'.")
            found = file[key]
    except FileError:
        raise
    except MemoryError as error:
        raise FileError(
            f"'{path}' says that it holds more than the memory can. It is damaged: make it again."
        ) from error
    except (OSError, ValueError, EOFError, KeyError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error) and zipfile.is_zipfile(path):
            raise FileError(
                f"'{path}' holds Python objects (a pickle) where features should be. Opening a pickle can run any "
                "program, so it is refused. Save the features as a plain array of floats."
            ) from error
        said = "it is no zip archive"
        if zipfile.is_zipfile(path):
            said = re.sub(r" ?<[^>]* at 0x\w+>", "", str(error).splitlines()[0])[:200]
        raise FileError(
            f"'{path}' cannot be read as .npz ({said}). It is {path.stat().st_size:,} bytes long and may be truncated: "
            "copy or make it again."
        ) from error
    if found.ndim == 1 and found.size == 0:
        found = found.reshape(0, 0)
    if found.ndim != 2 or found.dtype.kind not in "fiu":
        raise FileError(
            f"'{path}': features are a {found.ndim}-D array of {found.dtype}. Expected numbers, one row per cell."
        )
    return found
