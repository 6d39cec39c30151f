"""Which image is which channel of which site of which well: layouts of microscopes, archives and one's own."""

from __future__ import annotations

import logging
import re

import pandas as pd

from phenohit.data.dropped import listed
from phenohit.data.finish import matching
from phenohit.data.remote import Place
from phenohit.data.views import Views
from phenohit.errors import ConfigError, FileError, some
from phenohit.images.formats import STAGE, as_views, choose_channels
from phenohit.images.formats_containers import zarr_plates
from phenohit.images.formats_names import IMAGE, NAMES
from phenohit.images.formats_tables import BBBC021, LOAD_DATA
from phenohit.images.store import is_store, open_store
from phenohit.imaging import ImageSource
from phenohit.registry import resolve

__all__ = ["LAYOUTS", "detect_layout", "find_views"]

log = logging.getLogger("phenohit")

# (place, source, names of files below it) -> phenohit.images.formats.Found
LAYOUTS = {
    "load_data": "phenohit.images.formats_tables:find_load_data",
    "bbbc021": "phenohit.images.formats_tables:find_bbbc021",
    "imagexpress": "phenohit.images.formats_names:find_imagexpress",
    "phenix": "phenohit.images.formats_names:find_phenix",
    "yokogawa": "phenohit.images.formats_names:find_yokogawa",
    "npz": "phenohit.images.formats_containers:find_npz",
    "ome_tiff": "phenohit.images.formats_containers:find_ome_tiff",
    "ome_zarr": "phenohit.images.formats_containers:find_ome_zarr",
    "pattern": "phenohit.images.formats_names:find_pattern",
}
_GROUP = "phenohit.layouts"
_SAMPLED = 2000  # names that a layout is guessed from


def find_views(source: ImageSource) -> tuple[Views, pd.DataFrame]:
    """Find every view of a screen: which file holds which channel. No pixel is read.

    Parameters
    ----------
    source : ImageSource

    Returns
    -------
    views : Views
        One row per site, sorted by plate, well and site; wells as A01; channels named and ordered by
        ``images.channels``. Where the list of images names functions of illumination, ``Metadata_Illum_<channel>``.
    dropped : DataFrame
        Files, channels, plates and views that were left out, with the reason.

    Raises
    ------
    FileError
        If there is nothing of that layout, or a view lacks a channel under images.missing: fail.
    ConfigError
        If a channel, a field of a pattern or the layout is not known.
    PlateError
        If a well cannot be read, or a channel of a site has two files.
    """
    if not source.path:
        raise ConfigError("images.path is empty. Give the folder or the list of the images.")
    place = Place(source.path, source.storage)
    if not place.exists():
        raise FileError(f"'{source.path}' does not exist. Give the path of an existing folder or list of images.")
    if source.layout == "pattern" and not source.pattern:
        raise ConfigError(
            "images.layout is pattern, but images.pattern is empty: e.g. '{plate}/{well}_s{site}_w{channel}.tif'."
        )
    layout = source.layout or ("pattern" if source.pattern else "")
    if not layout and not place.remote and is_store(place.path):
        return _of_store(source)
    names = _names(place, layout)
    layout = layout or detect_layout(place, names)
    find = resolve(layout, LAYOUTS, _GROUP)
    views, lost = as_views(find(place, source, names), source)
    log.info(
        "find images (%s): %d plates, %d views, channels %s",
        layout,
        len(views.plates),
        len(views),
        ", ".join(views.channels),
    )
    return views, lost


def _of_store(source: ImageSource) -> tuple[Views, pd.DataFrame]:
    """Take the views of a store that `phenohit.images.store` wrote; they are complete."""
    views = open_store(source.path).views
    kept = matching(views.plates, source.plates, "images.plates")
    chosen = choose_channels(source.channels, views.channels, {})
    plates = listed(STAGE, "plate", [p for p in views.plates if p not in kept], "matches no pattern of images.plates")
    unused = listed(STAGE, "channel", [c for c in views.channels if c not in chosen], "not named in images.channels")
    views = views.with_channels(list(chosen)).take(views.rows["Metadata_Plate"].isin(kept).to_numpy(bool))
    return Views(views.rows, views.files.rename(columns=chosen)), pd.concat([plates, unused], ignore_index=True)


def _names(place: Place, layout: str) -> list[str]:
    """Return the files below a folder; of OME-Zarr the plates, of which the inside is not listed."""
    if not place.is_dir():
        return []
    if layout in ("", "ome_zarr"):
        plates = zarr_plates(place)
        if plates:
            return plates
        if layout:
            raise FileError(f"'{place}' is no OME-Zarr plate and holds none (*.zarr with 'plate' in its metadata).")
    if layout in ("", "load_data") and "workspace" in place.folders():  # the gallery: images by the million beside it
        place_of = "workspace/load_data_csv/"
        below = place.join("workspace", "load_data_csv")
        return [place_of + n for n in below.glob("**/*")] if below.exists() else []
    return place.glob("**/*")


def detect_layout(place: Place, names: list[str]) -> str:
    """Tell the layout by what is found.

    Raises
    ------
    FileError
        If it is none that is known; names some of the files.
    """
    if not names:
        if LOAD_DATA.fullmatch(place.name) or (
            place.name.endswith((".csv", ".csv.gz", ".parquet")) and not _bbbc021(place)
        ):
            return "load_data"
        if _bbbc021(place):
            return "bbbc021"
        raise FileError(f"'{place}' is no list of images (load_data.csv) and no folder with images.")
    if names == [""] or all(n.endswith(".zarr") for n in names):
        return "ome_zarr"
    last = [n.rpartition("/")[2] for n in names]
    if any(LOAD_DATA.fullmatch(n) for n in last):
        return "load_data"
    if any(BBBC021.fullmatch(n) for n in last):
        return "bbbc021"
    some_names = pd.Series(last[:: max(1, len(last) // _SAMPLED)], dtype=str)
    if some_names.str.endswith(".npz").any():
        return "npz"
    if some_names.str.contains(r"(?i)\.ome\.tiff?$").any():
        return "ome_tiff"
    hits = {layout: int(some_names.str.contains(_ungrouped(NAMES[layout])).sum()) for layout in NAMES}
    hits["imagexpress"] = int(some_names.str.contains(r"(?i)(?:^|_)[A-Z]{1,2}\d{1,2}_(?:s|w)\d").sum())
    best = max(hits, key=lambda k: hits[k])
    if hits[best]:
        return best
    images = [n for n in names if IMAGE.search(n)]
    raise FileError(
        f"'{place}' has {len(images)} images in no layout that is known, such as {some((images or names), 3)}. Give "
        "images.pattern, e.g. '{plate}/{well}_s{site}_w{channel}.tif'."
    )


def _bbbc021(place: Place) -> bool:
    return bool(BBBC021.fullmatch(place.name))


def _ungrouped(expression: str) -> str:
    return re.sub(r"\(\?P<\w+>", "(?:", expression)
