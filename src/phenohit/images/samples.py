"""`ImageRows`: wells or compounds whose features are images, for models that learn from pixels.

It has the manners of `Profiles` (rows, compounds, features, take) without their matrix: which image belongs to which
row is kept as numbers, so that twelve million crops take 250 MB, and pixels are read when they are wanted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.errors import FileError, ShapeError, some

if TYPE_CHECKING:
    from phenohit.images.store import Store

__all__ = ["ImageRows", "crop_rows", "view_rows"]

_PLACE = ["Metadata_Plate", "Metadata_Well"]


@dataclass(frozen=True, eq=False)
class ImageRows:
    """Rows (wells or compounds) with their images (views, or crops of single cells).

    Attributes
    ----------
    rows : DataFrame, N rows
        Columns ``Metadata_*``, text; ``Metadata_compound`` as in `phenohit.data.profiles.Profiles`.
    channels : list of str, length C
    shape : (int, int, int)
        C, H and W of every image.
    start : int64 array, shape (N + 1,)
        Images of row i are ``start[i]`` to ``start[i + 1]``; a row may have none.
    array, place : int16 and int64 arrays, shape (V,)
        In which array an image is, and where in it.
    well : int32 array, shape (V,)
        Number of its well: images of a well are averaged first.
    arrays : list of str
        Folders of the Zarr arrays.
    together : int
        Images that one chunk of the arrays holds: 1 for views.

    Raises
    ------
    ShapeError
        If the parts do not fit together.
    """

    rows: pd.DataFrame
    channels: list[str]
    shape: tuple[int, int, int]
    start: NDArray[np.int64]
    array: NDArray[np.int16]
    place: NDArray[np.int64]
    well: NDArray[np.int32]
    arrays: list[str]
    together: int = 1

    def __post_init__(self) -> None:
        n = len(self.place)
        fits = len(self.start) == len(self.rows) + 1 and len(self.array) == len(self.well) == n == self.start[-1]
        if not fits or len(self.channels) != self.shape[0]:
            raise ShapeError("ImageRows: rows, images and channels do not fit together.")
        object.__setattr__(self, "rows", self.rows.reset_index(drop=True))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def features(self) -> list[str]:
        """What a model must be given again: the channels."""
        return self.channels

    @property
    def compounds(self) -> NDArray[np.object_]:
        """Compound key of every row, shape (N,)."""
        return self.rows["Metadata_compound"].to_numpy(dtype=object)

    @property
    def row(self) -> NDArray[np.int64]:
        """Row of every image, shape (V,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def take(self, rows: Any) -> ImageRows:
        """Return the given rows (positions or a boolean mask) with their images, in that order."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        count = np.diff(self.start)[rows]
        start = np.concatenate([[0], np.cumsum(count)])
        at = np.repeat(self.start[rows] - start[:-1], count) + np.arange(start[-1])
        return replace(
            self, rows=self.rows.iloc[rows], start=start, array=self.array[at], place=self.place[at],
            well=self.well[at],
        )  # fmt: skip

    def read(
        self, images: NDArray[np.integer], out: NDArray[np.uint8] | None = None, threads: int = 0
    ) -> NDArray[np.uint8]:
        """Read images.

        Parameters
        ----------
        images : int array, shape (n,)
            Positions among all images of the rows.
        out : uint8 array, shape (n, C, H, W), optional
            Filled, where given.
        threads : int
            0: one per core.

        Returns
        -------
        uint8 array, shape (n, C, H, W)

        Raises
        ------
        FileError
            If an image is missing or damaged.
        """
        from phenohit.images.store import read_chunk

        found = np.empty((len(images), *self.shape), np.uint8) if out is None else out
        array, place = self.array[images], self.place[images]
        if self.together > 1:
            for number in np.unique(array):
                here = np.flatnonzero(array == number)
                found[here] = _gather(self.arrays[number], place[here])
            return found
        folders = [Path(a) for a in self.arrays]
        with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
            list(pool.map(read_chunk, (folders[a] for a in array), place.tolist(), found))
        return found


def _gather(folder: str, place: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Read scattered images of one array; every chunk is read once."""
    import zarr

    try:
        opened: Any = zarr.open_array(folder, mode="r")
        order = np.argsort(place, kind="stable")
        found = np.empty((len(place), *opened.shape[1:]), opened.dtype)
        found[order] = opened.oindex[place[order]]
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise FileError(f"The crops in '{folder}' cannot be read ({error}). Cut them again.") from error
    return found


def view_rows(
    rows: pd.DataFrame, wells: pd.DataFrame, store: Store, channels: Sequence[str] = ()
) -> tuple[ImageRows, pd.DataFrame]:
    """Join the views of a store to rows.

    Parameters
    ----------
    rows : DataFrame, N rows
        ``Metadata_compound``, and ``Metadata_Plate`` and ``Metadata_Well`` where rows are wells.
    wells : DataFrame
        ``compound``, ``plate``, ``well`` of every treated well, for rows that are compounds.
    store : Store
    channels : sequence of str
        Must be those of the store, where given.

    Returns
    -------
    data : ImageRows, N rows
    lost : DataFrame
        Views of wells that no row has, and rows without views, by plate and reason (columns of
        `phenohit.data.dropped.dropped`).

    Raises
    ------
    ShapeError
        If plates have views of different sizes, or the channels differ.
    """
    from phenohit.images.read import split_address

    names = store.views.channels
    if channels and list(channels) != names:
        raise ShapeError(f"The store '{store.folder}' has the channels {some(names)}, not {some(channels)}.")
    shapes = {plate: shape for plate, shape in store.shapes.items() if plate in set(_wells_of(rows, wells)["plate"])}
    if len(set(shapes.values())) > 1:
        shown = some(f"{p}: {' x '.join(map(str, s))}" for p, s in shapes.items())
        raise ShapeError(
            f"Image models need views of one size, but plates differ: {shown}. Name plates (images.plates)."
        )
    at = [split_address(f) for f in store.views.files.iloc[:, 0]]
    folders = {folder: i for i, folder in enumerate(dict.fromkeys(folder for folder, _ in at))}
    size = next(iter(shapes.values()), (len(names), 0, 0))
    place = pd.MultiIndex.from_frame(store.views.rows[_PLACE].astype(str))
    code, found = pd.factorize(place)
    return _joined(
        rows, wells, code, found, list(folders), np.array([folders[f] for f, _ in at], np.int16),
        np.array([(n or 0) // len(names) for _, n in at], np.int64), names, size, 1, "view",
    )  # fmt: skip


def crop_rows(rows: pd.DataFrame, wells: pd.DataFrame, folders: Mapping[str, Path]) -> tuple[ImageRows, pd.DataFrame]:
    """Join crops of single cells to rows; see `view_rows`.

    Parameters
    ----------
    rows, wells : DataFrame
    folders : mapping of str to path
        Folder of the crops of every plate.
    """
    from phenohit.images.crops import read_crops

    arrays, shapes, names, together = [], set(), [], 2
    codes, places, number, found = [], [], [], []
    for plate, folder in folders.items():
        opened, cells = read_crops(folder, plate)
        names, together = list(opened.attrs["channels"]), max(int(opened.chunks[0]), 2)
        shapes.add((*opened.shape[1:], str(opened.dtype), tuple(names)))
        code, well = pd.factorize(cells["Metadata_Well"].astype(str))
        codes.append(code + sum(map(len, found)))
        found.append([(plate, w) for w in well])
        places.append(cells["Crop"].to_numpy(np.int64))
        number.append(np.full(len(cells), len(arrays), np.int16))
        arrays.append(str(Path(opened.store.root, opened.path)))
    if len(shapes) > 1:
        raise ShapeError("The crops of plates differ in size, channels or type. Cut them with the same settings.")
    size = next(iter(shapes))
    if size[3] != "uint8":
        raise ShapeError(f"Image models take crops as uint8, these are {size[3]}.")
    return _joined(
        rows, wells, np.concatenate(codes), pd.MultiIndex.from_tuples([w for part in found for w in part]), arrays,
        np.concatenate(number), np.concatenate(places), names, size[:3], together, "crop",
    )  # fmt: skip


def _wells_of(rows: pd.DataFrame, wells: pd.DataFrame) -> pd.DataFrame:
    """Return ``plate``, ``well``, ``row`` and number of every well that belongs to a row."""
    if set(_PLACE) <= set(rows.columns) and bool((rows["Metadata_Well"] != "").all()):
        return pd.DataFrame({
            "plate": rows["Metadata_Plate"].to_numpy(object), "well": rows["Metadata_Well"].to_numpy(object),
            "row": np.arange(len(rows)),
        })  # fmt: skip
    at = pd.Index(rows["Metadata_compound"]).get_indexer(pd.Index(wells["compound"]))
    return wells[["plate", "well"]].assign(row=at)[at >= 0]


def _joined(
    rows: pd.DataFrame, wells: pd.DataFrame, code: NDArray[np.intp], found: Any, arrays: list[str],
    array: NDArray[np.int16], place: NDArray[np.int64], channels: list[str], size: Any, together: int, what: str,
) -> tuple[ImageRows, pd.DataFrame]:  # fmt: skip
    """Give every image its row; images that belong to no row are left out and counted by plate.

    `found` are the wells (plate, well) that have images, and `code` which of them each image is of.
    """
    known = _wells_of(rows, wells).drop_duplicates(["plate", "well"], ignore_index=True)
    index = pd.MultiIndex.from_frame(known[["plate", "well"]].astype(str))
    well = index.get_indexer(found)[code]
    row = np.where(well >= 0, known["row"].to_numpy(np.int64)[well], -1)
    kept = np.flatnonzero(well >= 0)
    kept = kept[np.argsort(row[kept], kind="stable")]
    count = np.bincount(row[kept], minlength=len(rows))
    data = ImageRows(
        rows, channels, tuple(int(n) for n in size), np.concatenate([[0], np.cumsum(count)]), array[kept],
        place[kept], well[kept].astype(np.int32), arrays, together,
    )  # fmt: skip
    lost = [nothing_dropped()]
    outside = pd.Series(found.get_level_values(0)[code[well < 0]]).value_counts(sort=False)
    if len(outside):
        ids = [f"{plate}: {n:,} {what}s" for plate, n in outside.items()]
        lost.append(
            dropped("join images", what, ids, "their wells are controls, were left out, or are on no plate map")
        )
    bare = rows["Metadata_compound"][count == 0]
    if len(bare):
        lost.append(dropped("join images", "row", bare.tolist(), f"no {what} of it: base rate instead of a score"))
    return data, pd.concat(lost, ignore_index=True)
