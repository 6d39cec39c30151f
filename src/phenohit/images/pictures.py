"""Pictures that are kept of a plate: small ones of every well to look at, and crops of single cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.views import Views
from phenohit.errors import FileError, ShapeError
from phenohit.files import atomic, write_table
from phenohit.images.convert import to_uint8
from phenohit.images.crops import CropWriter
from phenohit.images.objects import Objects
from phenohit.images.overlays import draw_functions, draw_outlines, png
from phenohit.images.read import read_view
from phenohit.images.thumbnails import contrast_limits, thumbnails
from phenohit.imaging import ImageSource
from phenohit.progress import track

__all__ = ["OVERLAY", "SHADING", "keep_crops", "keep_overlay", "keep_shading", "keep_thumbnails"]

OVERLAY, SHADING = "overlay.jpg", "illumination.png"

_SIDE = 900  # pixels of an overlay's longer side
_LIMITS = 24  # views that the contrast of a plate is taken from
_PLACE = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]

Corrected = Callable[[int, NDArray[Any]], NDArray[np.float32]]


def keep_thumbnails(views: Views, source: ImageSource, folder: Path, corrected: Corrected, *, seed: int = 0) -> None:
    """Write a small picture per channel of the first view of every well, all in the contrast of the plate.

    Parameters
    ----------
    views : Views
        Of one plate, all of which can be read.
    source : ImageSource
    folder : Path
        Gets ``thumbnails.parquet``: place, channel (``composite`` for all together) and ``png`` (bytes).
    corrected : function
        Row of `views` and its pixels -> float32 pixels corrected for illumination.
    seed : int
        Of the views that contrast is taken from.
    """

    def pixels(i: int) -> NDArray[np.float32]:
        files = views.files.iloc[i].tolist()
        return corrected(i, read_view(files, storage=source.storage, bits=source.bits))

    first = np.flatnonzero(~views.rows.duplicated(["Metadata_Plate", "Metadata_Well"]).to_numpy(bool))
    sample = np.random.default_rng([seed, 23]).permutation(len(views))[:_LIMITS]
    limits = contrast_limits(pixels(int(i)) for i in np.sort(sample))
    rows = []
    for i in track(first.tolist(), f"thumbnails of {views.plates[0]}"):
        place = views.rows[_PLACE].iloc[i].to_dict()
        made = thumbnails(pixels(i), limits, views.channels)
        rows += [{**place, "channel": channel, "png": png} for channel, png in made.items()]
    write_table(folder / "thumbnails.parquet", pd.DataFrame(rows))


def keep_crops(views: Views, source: ImageSource, folder: Path) -> pd.DataFrame:
    """Cut the measured cells of a plate out of its views, as uint8.

    Parameters
    ----------
    views : Views
        Of one plate.
    source : ImageSource
        ``measure.crops`` is the side of the squares.
    folder : Path
        Holds ``cells.parquet``; the crops go to ``crops``.

    Returns
    -------
    DataFrame
        Views with cells that were left out, and views that could not be read, as by `phenohit.data.dropped`.
    """
    where = ["Metadata_ObjectNumber", "Nuclei_Location_Center_Y", "Nuclei_Location_Center_X"]
    cells: Any = pq.read_table(folder / "cells.parquet", columns=[*_PLACE[1:], *where]).to_pandas()
    by_view = {key: table for key, table in cells.groupby(_PLACE[1:], sort=False)}
    unread: dict[str, str] = {}
    with CropWriter(folder / "crops", views.plates[0], views.channels, source.measure.crops) as writer:
        done = writer.done
        for i in track(range(len(views)), f"crops of {views.plates[0]}"):
            well, site = (str(views.rows[c].iloc[i]) for c in _PLACE[1:])
            if (well, site) in done or (well, site) not in by_view:
                continue
            try:
                raw = read_view(views.files.iloc[i].tolist(), storage=source.storage, bits=source.bits)
            except (FileError, ShapeError) as error:
                unread["/".join((views.plates[0], well, site))] = str(error)
                continue
            own = by_view[well, site]
            writer.add(well, site, to_uint8(raw, source.clip), own[where[0]].to_numpy(), own[where[1:]].to_numpy())
        lost = writer.dropped()
    return pd.concat([nothing_dropped(), lost, dropped("cut crops", "view", list(unread), list(unread.values()))])


def keep_overlay(folder: Path, pixels: NDArray[np.float32], objects: Objects) -> None:
    """Write one view with the outlines of its nuclei and cells, to be looked at."""
    picture = Image.fromarray(draw_outlines(pixels, objects))
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    with atomic(folder / OVERLAY) as path:
        picture.save(path, "JPEG", quality=85)


def keep_shading(folder: Path, functions: NDArray[np.float32], channels: list[str]) -> None:
    """Write the illumination functions as grey pictures side by side."""
    with atomic(folder / SHADING) as path:
        path.write_bytes(png(draw_functions(functions, channels)))
