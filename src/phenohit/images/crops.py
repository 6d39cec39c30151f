"""Square images of single cells, cut around nuclei, in one Zarr array per plate with a table of where they are from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

import numpy as np
import pandas as pd
import zarr

from phenohit.data.dropped import dropped
from phenohit.errors import FileError, ShapeError
from phenohit.files import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COORDINATES", "CropWriter", "cut", "read_crops"]

# Crop: place in the array, -1 for a cell that was left out
COORDINATES = [
    "Metadata_Plate",
    "Metadata_Well",
    "Metadata_Site",
    "Metadata_ObjectNumber",
    "Center_Y",
    "Center_X",
    "Crop",
]
_CHUNK = 128  # crops that are read and written together
_BUFFER = 1 << 26  # bytes of crops held before they are written


def cut(
    view: np.ndarray, centres: np.ndarray, side: int, border: Literal["drop", "pad"] = "drop"
) -> tuple[np.ndarray, np.ndarray]:
    """Cut squares around points out of a view.

    Parameters
    ----------
    view : uint8 or uint16, shape (C, H, W)
    centres : float, shape (n, 2)
        Row and column of each point; the pixel nearest to it becomes pixel ``side // 2`` of the square.
    side : int
        Pixels.
    border : {"drop", "pad"}
        Squares that reach beyond the view are left out, or filled with 0.

    Returns
    -------
    crops : dtype of view, shape (k, C, side, side)
    kept : int64, shape (k,)
        Which points they are of, in order.
    """
    if view.ndim != 3 or side < 1:
        raise ShapeError(f"Crops need a view (C, H, W) and a side above 0, not {view.shape} and {side}.")
    height, width = view.shape[1:]
    corner = np.rint(np.asarray(centres, float).reshape(-1, 2)).astype(np.int64) - side // 2
    inside = (corner >= 0).all(1) & (corner + side <= (height, width)).all(1)
    kept = np.flatnonzero(inside) if border == "drop" else np.arange(len(corner))
    if border == "pad":
        view = np.pad(view, ((0, 0), (side, side), (side, side)))
        corner = corner + side
    rows = corner[kept, 0, None, None] + np.arange(side)[:, None]
    cols = corner[kept, 1, None, None] + np.arange(side)
    return np.moveaxis(view[:, rows, cols], 0, 1), kept


class CropWriter:
    """Append the crops of a plate, view by view; a killed run goes on after the last whole view.

    The table of coordinates is what counts: crops are written first and the table after them, at once. Crops without
    a row are overwritten by the next run, and views that the table has are never cut twice.

    Parameters
    ----------
    folder : path
        Where all plates are.
    plate : str
    channels : sequence of str
    side : int
        Pixels.
    dtype : {"uint8", "uint16"}
    border : {"drop", "pad"}
        Cells nearer to the border than half a side are left out and counted, or padded with 0.

    Raises
    ------
    FileError
        If the folder holds crops of another size, type, border or other channels.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        plate: str,
        channels: Sequence[str],
        side: int,
        dtype: Literal["uint8", "uint16"] = "uint8",
        border: Literal["drop", "pad"] = "drop",
    ) -> None:
        self.plate, self.side, self.border = plate, side, border
        path, self._table = _places(folder, plate)
        self._rows = read_table(self._table)[0] if self._table.exists() else _nothing()
        self._array: Any = _open(path, channels, side, dtype, border)
        self._array.resize((int((self._rows["Crop"] >= 0).sum()), *self._array.shape[1:]))
        self._done = set(zip(self._rows["Metadata_Well"], self._rows["Metadata_Site"], strict=True))
        self._crops: list[np.ndarray] = []
        self._new: list[pd.DataFrame] = []
        self._count = int(self._array.shape[0])

    @property
    def done(self) -> set[tuple[str, str]]:
        """Well and site of the views that have cells and are there, also from runs before."""
        return set(self._done)

    def add(self, well: str, site: str, view: np.ndarray, numbers: np.ndarray, centres: np.ndarray) -> int:
        """Cut the cells of a view; nothing is done for a view that is there already.

        Parameters
        ----------
        well, site : str
        view : dtype of the writer, shape (C, H, W)
        numbers : int, shape (n,)
            Object numbers of the cells.
        centres : float, shape (n, 2)
            Row and column of their nuclei.

        Returns
        -------
        int
            Number of crops.

        Raises
        ------
        ShapeError
            If the view is of another type or has other channels.
        """
        if (well, site) in self._done or not len(numbers):
            return 0
        if view.dtype != self._array.dtype or len(view) != self._array.shape[1]:
            raise ShapeError(
                f"View {self.plate}/{well}/{site} is {len(view)} channels of {view.dtype}; its crops are "
                f"{self._array.shape[1]} channels of {self._array.dtype}."
            )
        crops, kept = cut(view, centres, self.side, self.border)
        place = np.full(len(numbers), -1, np.int64)
        place[kept] = self._count + np.arange(len(kept))
        rows = pd.DataFrame({"Metadata_ObjectNumber": np.asarray(numbers, np.int32), "Crop": place})
        rows[["Center_Y", "Center_X"]] = np.asarray(centres, np.float32)
        rows[["Metadata_Plate", "Metadata_Well", "Metadata_Site"]] = self.plate, well, site
        self._crops.append(crops)
        self._new.append(rows[COORDINATES])
        self._done.add((well, site))
        self._count += len(kept)
        if sum(c.nbytes for c in self._crops) > _BUFFER:
            self.flush()
        return len(kept)

    def flush(self) -> None:
        """Write what was added."""
        if not self._new:
            return
        self._array.append(np.concatenate(self._crops))
        self._rows = pd.concat([self._rows, *self._new], ignore_index=True)
        write_table(self._table, self._rows)
        self._crops, self._new = [], []

    def dropped(self) -> pd.DataFrame:
        """List the views whose cells were left out, with their number; see `phenohit.data.dropped`."""
        rows = pd.concat([self._rows, *self._new])
        out = rows[rows["Crop"] < 0].groupby(COORDINATES[:3], sort=False).size()
        ids = ["/".join(map(str, key)) for key in out.index]
        return dropped(
            "cut crops",
            "view",
            ids,
            [f"{n} cells are nearer to the border than half of {self.side} pixels" for n in out],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Write what was added, also after an error: only whole views were."""
        self.flush()


def read_crops(folder: str | os.PathLike[str], plate: str) -> tuple[Any, pd.DataFrame]:
    """Open the crops of a plate.

    Returns
    -------
    crops : zarr.Array of uint8 or uint16, shape (N, C, side, side)
        Read only what is indexed; ``attrs["channels"]`` names the channels.
    cells : DataFrame, N rows
        Columns `COORDINATES`; row i is crop i.

    Raises
    ------
    FileError
        If there are none.
    """
    path, table = _places(folder, plate)
    if not table.exists():
        raise FileError(f"'{folder}' holds no crops of plate '{plate}'. Set measure.crops to their side in pixels.")
    rows = read_table(table)[0]
    return zarr.open_array(path, mode="r"), rows[rows["Crop"] >= 0].sort_values("Crop", ignore_index=True)


def _places(folder: str | os.PathLike[str], plate: str) -> tuple[Path, Path]:
    """Array and table of a plate."""
    name = quote(plate, safe=" +,@()[]")
    return Path(folder) / f"{name}.zarr", Path(folder) / f"{name}.parquet"


def _nothing() -> pd.DataFrame:
    types = [str, str, str, np.int32, np.float32, np.float32, np.int64]
    return pd.DataFrame({c: pd.Series(dtype=t) for c, t in zip(COORDINATES, types, strict=True)})


def _open(path: Path, channels: Sequence[str], side: int, dtype: str, border: str) -> Any:
    """Open the array of a plate, or make an empty one."""
    shape, form = (len(channels), side, side), {"channels": list(channels), "border": border}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        chunks = (_CHUNK, *shape)
        return zarr.create_array(path, shape=(0, *shape), chunks=chunks, dtype=dtype, attributes=form)
    array: Any = zarr.open_array(path, mode="r+")
    found = (array.shape[1:], str(array.dtype), dict(array.attrs))
    if found != (shape, dtype, form):
        raise FileError(
            f"'{path}' holds crops of another kind: {found} instead of {(shape, dtype, form)}. Give another folder, or "
            "delete it to cut them again."
        )
    return array
