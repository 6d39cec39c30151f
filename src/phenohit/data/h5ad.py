"""AnnData files (.h5ad), in and out; needs the extra `interop`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from phenohit.data.columns import split_names
from phenohit.data.dropped import dropped
from phenohit.data.finish import finish_rows
from phenohit.data.profiles import Profiles
from phenohit.data.read_table import STAGE, infinite_values, without_empty
from phenohit.data.remote import Place
from phenohit.data.tables import BATCH, as_text
from phenohit.errors import ColumnError, ConfigError, FileError, PhenoHitError, some
from phenohit.files import atomic
from phenohit.sources import ProfileSource

__all__ = ["read_h5ad", "write_anndata"]

log = logging.getLogger("phenohit")

_HISTORY = "phenohit_history"


def read_h5ad(source: ProfileSource) -> tuple[Profiles, pd.DataFrame]:
    """Read an AnnData file; `phenohit.data.read.read_profiles` says what comes out.

    Columns of ``obs`` become ``Metadata_*``, ``var_names`` the features, ``X`` (dense or sparse) the values.
    Layers, embeddings and everything else are not opened; nothing in the file is executed. Memory is the
    result, a block of rows, and a sparse ``X`` stored by columns.

    Raises
    ------
    ConfigError
        If anndata is not installed.
    FileError, ColumnError, PlateError
    """
    path = Place(source.path, source.storage).local()
    if not path.is_file():
        raise FileError(f"'{source.path}' does not exist. Give the path of an existing file.")
    anndata, h5py = _anndata()
    with _damaged(path), h5py.File(path, "r") as file:
        absent = [part for part in ("X", "obs", "var") if part not in file]
        if absent:
            raise FileError(f"'{path}' has no {some(absent)}. Expected an AnnData file with X, obs and var.")
        obs = _read_part(anndata, file["obs"])
        names = [str(name) for name in _read_part(anndata, file["var"]).index]
        doubled = pd.Index(names)[pd.Index(names).duplicated()].unique()
        if len(doubled):
            raise ColumnError(f"'{path}' has features of the same name: {some(doubled)}. Make var_names unique.")
        split = split_names(dict.fromkeys(names, "number"), features=source.features, ignore=source.ignore)
        if not split.features:
            raise ColumnError(
                f"'{path}' has no feature among its {len(names)} var_names, such as {some(names, 5)}. Check "
                "profiles.features and profiles.ignore."
            )
        rows, lost = finish_rows(source, _rows_of(obs))
        at = pd.Index(names).get_indexer(pd.Index(split.features))
        X, n_infinite = _values(anndata, file["X"], rows.index.to_numpy(), at, len(obs))
        history = _history(anndata, file)
    gone = dropped(STAGE, "feature", split.ignored["column"], split.ignored["reason"])
    infinite = infinite_values(split.features, n_infinite)
    profiles, empty = without_empty(X, rows.reset_index(drop=True), split.features, history)
    log.info("read profiles: %d rows, %d features from '%s'", len(profiles), len(profiles.features), path)
    return profiles, pd.concat([gone, lost, infinite, empty], ignore_index=True)


def write_anndata(profiles: Profiles, path: str | os.PathLike[str]) -> None:
    """Write profiles as an AnnData file, whole or not at all.

    Parameters
    ----------
    profiles : Profiles
        ``rows`` become ``obs``, ``features`` ``var_names``, ``history`` ``uns["phenohit_history"]``.
    path : path
        Ends in .h5ad.

    Raises
    ------
    ConfigError
        If anndata is not installed.
    FileError
        If the file cannot be written.
    """
    anndata, _ = _anndata()
    obs = profiles.rows.astype(object)
    obs.index = pd.Index([str(i) for i in range(len(profiles))], dtype=object)
    var = pd.DataFrame(index=pd.Index(profiles.features, dtype=object))
    X = profiles.X if isinstance(profiles.X, np.ndarray) else profiles.X[np.arange(len(profiles))]
    table = anndata.AnnData(X=X, obs=obs, var=var, uns={_HISTORY: np.array(profiles.history, dtype=object)})
    with atomic(path) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # text columns are stored as categories, which is said on every write
        table.write_h5ad(partial, compression="gzip")


def _anndata() -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that anndata imports
            return import_module("anndata"), import_module("h5py")
    except ImportError as error:
        message = (
            "AnnData files (.h5ad) need anndata, which is not installed: pip install 'phenohit[interop]'. Or give the "
            "table as Parquet or CSV."
        )
        raise ConfigError(message) from error


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Turn what HDF5 and anndata raise on a damaged file into a FileError that names it."""
    try:
        yield
    except PhenoHitError:
        raise
    except Exception as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        message = (
            f"'{path}' cannot be read as AnnData ({said}). It is {path.stat().st_size:,} bytes long and may be "
            "truncated or of another kind: copy or write it again."
        )
        raise FileError(message) from error


def _read_part(anndata: Any, group: Any) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files of older versions are read with a word about their age
        read = anndata.io.read_elem if hasattr(anndata, "io") else anndata.experimental.read_elem
        found = read(group)
    if not isinstance(found, pd.DataFrame):
        raise FileError(f"'{group.file.filename}': {group.name} is no table. Write the file again with anndata.")
    return found


def _rows_of(obs: pd.DataFrame) -> pd.DataFrame:
    """All columns of obs as text; its names too, unless they only count."""
    rows = {str(name): _text(obs[name]) for name in obs.columns}
    index = [str(i) for i in obs.index]
    if index != [str(i) for i in range(len(obs))]:
        rows.setdefault("obs_name", pd.Series(index, dtype=str))
    return pd.DataFrame(rows, index=range(len(obs)))


def _text(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype if not column.hasnans else object)
    array = pa.array(column, from_pandas=True)
    return as_text(array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array]))


def _values(
    anndata: Any, stored: Any, rows: NDArray[np.intp], columns: NDArray[np.intp], n_rows: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Copy some rows and columns of X, block by block; infinite values become missing and are counted."""
    sparse = not hasattr(stored, "shape")  # a group of three arrays
    if sparse:
        make = anndata.io.sparse_dataset if hasattr(anndata, "io") else anndata.experimental.sparse_dataset
        stored = make(stored)
        if stored.format == "csc":
            stored = stored.to_memory().tocsr()
    if stored.shape[0] != n_rows:
        raise FileError(f"X has {stored.shape[0]} rows, but obs {n_rows}. Write the file again.")
    X = np.empty((len(rows), len(columns)), dtype=np.float32)
    n_infinite, done = np.zeros(len(columns), dtype=np.int64), 0
    for start in range(0, n_rows, BATCH):
        wanted = rows[(rows >= start) & (rows < start + BATCH)]
        if not len(wanted):
            continue
        block = stored[start : start + BATCH]
        block = block.toarray() if sparse else block
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and counted
            part = block[np.ix_(wanted - start, columns)].astype(np.float32)
        infinite = np.isinf(part)
        n_infinite += infinite.sum(axis=0)
        part[infinite] = np.nan
        X[done : done + len(wanted)] = part
        done += len(wanted)
    return X, n_infinite


def _history(anndata: Any, file: Any) -> tuple[str, ...]:
    """Return the history that `write_anndata` kept."""
    if "uns" not in file or _HISTORY not in file["uns"]:
        return ()
    read = anndata.io.read_elem if hasattr(anndata, "io") else anndata.experimental.read_elem
    return tuple(str(step) for step in np.atleast_1d(read(file["uns"][_HISTORY])))
