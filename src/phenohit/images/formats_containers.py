"""Layouts whose files hold several channels: hti-cnn's .npz, OME-TIFF and OME-Zarr plates.

A channel inside a file is told by ``#`` and a number: the channel of an .npz (H, W, C), the page of a TIFF, the plane
of a zarr array in C order of its leading axes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from phenohit.data.dropped import dropped, listed
from phenohit.data.remote import Place
from phenohit.errors import FileError, some
from phenohit.images.formats import STAGE, Found, row_letters
from phenohit.images.formats_names import addresses, plates_of
from phenohit.images.read import npz_shape
from phenohit.imaging import ImageSource
from phenohit.progress import track

__all__ = ["find_npz", "find_ome_tiff", "find_ome_zarr", "zarr_plates"]

_SAMPLE = r"(?:^|/)(?P<plate>[^/]+)-(?P<well>[A-Za-z]{1,2}\d{1,2})-(?P<site>[^/-]+)\.npz$"
_WELL = re.compile(r"(?:^|[_\-. ])([A-Za-z]{1,2}\d{1,2})(?=[_\-. ]|$)")
_SITE = re.compile(r"(?:^|[_\-. ])(?:s|f|site|field|fov)[_\-]?(\d+)(?=[_\-. ]|$)", re.IGNORECASE)


def find_npz(place: Place, source: ImageSource, names: list[str]) -> Found:
    """Find samples of hti-cnn: ``PLATE-WELL-SITE.npz`` with ``sample`` (H, W, C); channels are numbers from 0."""
    series = pd.Series([n for n in names if n.lower().endswith(".npz")], dtype=str)
    parts = series.str.extract(_SAMPLE)
    known = parts["well"].notna().to_numpy(bool)
    lost = [listed(STAGE, "file", series[~known], "its name is no PLATE-WELL-SITE.npz")]
    parts, series = parts[known].reset_index(drop=True), series[known].reset_index(drop=True)
    if parts.empty:
        return Found(parts, lost=lost)
    n_channels = npz_shape(place.local(series[0]))[2]  # the others are held to it when they are read
    files = addresses(place, series)
    images = [parts.assign(channel=str(c), file=files + f"#{c}") for c in range(n_channels)]
    return Found(pd.concat(images, ignore_index=True), lost=lost)


def find_ome_tiff(place: Place, source: ImageSource, names: list[str]) -> Found:
    """OME-TIFF: channels from the OME-XML; wells from its plate, else from the name of the file.

    Raises
    ------
    FileError
        If a file is damaged (under images.missing: fail), or none tells its well.
    """
    chosen = [n for n in names if re.search(r"\.ome\.tiff?$", n, re.IGNORECASE)]
    plates = plates_of(place, pd.Series(chosen, dtype=str), source).tolist() if chosen else []
    rows, lost, planes = [], [], []
    for name, plate in zip(track(chosen, "look at images"), plates, strict=True):
        try:
            found = list(_ome_images(place, name))
        except FileError as error:
            if source.missing == "fail":
                raise
            lost.append(dropped(STAGE, "file", [name], str(error)))
            continue
        rows += [{"plate": source.plate or plate, **row} for row in found if row["well"]]
        planes += [name for row in found if row["planes"] > 1]
        if not all(row["well"] for row in found):
            lost.append(dropped(STAGE, "file", [name], "neither its metadata nor its name tells a well"))
    lost.append(listed(STAGE, "file", sorted(set(planes)), "has several planes or times: the first is used"))
    images = pd.DataFrame(rows, columns=["plate", "well", "site", "channel", "file"])
    if images.empty and chosen:
        raise FileError(
            f"None of {len(chosen)} OME-TIFF files below '{source.path}' tells its well ({some(chosen, 3)}). Use "
            "images.layout: pattern for files that are told by their names."
        )
    return Found(images, lost=lost)


def _ome_images(place: Place, name: str) -> Iterator[dict[str, Any]]:
    """Yield the channels of a file: well, site, channel, file, number of planes."""
    import tifffile

    path = place.local(name)
    address = place.path.rstrip("/") + "/" + name
    try:
        with tifffile.TiffFile(path) as tif:
            xml = tifffile.xml2dict(tif.ome_metadata)["OME"] if tif.is_ome and tif.ome_metadata else {}
            images, wells = _listed(xml.get("Image")), _ome_wells(xml)
            by_name, site = _WELL.search(_stem(name)), _SITE.search(_stem(name))
            for number, series in enumerate(tif.series):
                image = images[number] if number < len(images) else {}
                own = wells.get(str(image.get("ID")))
                at = own or {
                    "well": by_name[1] if by_name else "",
                    "site": site[1] if site and len(tif.series) == 1 else str(number + 1),
                }
                yield from _ome_channels(series, image, at, address, path)
    except Exception as error:  # damaged files make their reader raise anything
        if isinstance(error, FileError):
            raise
        raise FileError(f"'{address}' cannot be read as OME-TIFF ({error}). Copy or make it again.") from error


def _ome_channels(
    series: Any, image: dict[str, Any], at: dict[str, str], address: str, path: Path
) -> Iterator[dict[str, Any]]:
    axes, shape = series.axes, series.shape
    if not axes.endswith("YX"):
        raise FileError(f"'{address}' has axes {axes}. Expected greyscale images (axes that end in YX).")
    lead = axes[:-2]
    others = [n for axis, n in zip(lead, shape, strict=False) if axis not in "C"]
    names = [c.get("Name") for c in _listed(_first(image.get("Pixels")).get("Channel"))]
    n_channels = shape[lead.index("C")] if "C" in lead else 1
    for c in range(n_channels):
        at_axes = [c if axis == "C" else 0 for axis in lead]
        n = int(np.ravel_multi_index(at_axes, shape[:-2])) if lead else 0
        page = series.pages[n]
        if page is None:
            file = ""
        else:  # a set of files may be spread: the page knows its own
            own = Path(page.parent.filehandle.path)
            file = f"{address if own.name == path.name else str(own)}#{page.index}"
        label = str(names[c]) if c < len(names) and names[c] else str(c)
        yield {**at, "channel": label, "file": file, "planes": int(np.prod(others)) if others else 1}


def _ome_wells(xml: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return Image ID -> plate, well and site, where the OME-XML has a plate (rows and columns from 0)."""
    found = {}
    for plate in _listed(xml.get("Plate")):
        for well in _listed(plate.get("Well")):
            name = f"{row_letters(int(well['Row']) + 1)}{int(well['Column']) + 1:02d}"
            for site, sample in enumerate(_listed(well.get("WellSample")), start=1):
                image = _first(sample.get("ImageRef")).get("ID")
                if image:
                    known = {"plate": str(plate["Name"])} if plate.get("Name") else {}
                    found[str(image)] = {**known, "well": name, "site": str(site)}
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _first(value: Any) -> dict[str, Any]:
    found = _listed(value)
    return found[0] if found and isinstance(found[0], dict) else {}


def _stem(name: str) -> str:
    return re.sub(r"\.ome\.tiff?$", "", PurePosixPath(name).name, flags=re.IGNORECASE)


def zarr_plates(place: Place) -> list[str]:
    """Return the OME-Zarr plates at or directly below a folder, relative; [""] where it is one itself."""
    if "plate" in _attributes(place):
        return [""]
    found = [n for pattern in ("*.zarr", "*/*.zarr") for n in place.glob(pattern)]
    return [n for n in found if "plate" in _attributes(place.join(n))]


def find_ome_zarr(place: Place, source: ImageSource, names: list[str]) -> Found:
    """OME-Zarr plates, versions 0.4 and 0.5: ``<plate>.zarr/<row>/<column>/<field>``; the largest resolution.

    Raises
    ------
    FileError
        If a field has no image.
    """
    rows, lost = [], []
    for name in names:
        below = place.join(name) if name else place
        plate = _attributes(below)["plate"]
        title = str(plate.get("name") or below.name.removesuffix(".zarr").removesuffix(".ome"))
        planes, later = 0, []
        for well in track(plate.get("wells", []), f"look at wells of {title}"):
            at = below.join(well["path"])
            row, column = str(well["path"]).split("/")[:2]
            fields = _attributes(at).get("well", {}).get("images", [])
            first = min((f.get("acquisition", 0) for f in fields), default=0)
            later += [f"{title}/{well['path']}/{f['path']}" for f in fields if f.get("acquisition", 0) != first]
            for spot in fields:
                if spot.get("acquisition", 0) == first:
                    found, n = _field(at.join(str(spot["path"])))
                    planes = max(planes, n)
                    key = {"plate": source.plate or title, "well": f"{row}{column}", "site": str(spot["path"])}
                    rows += [{**key, **image} for image in found]
        lost.append(listed(STAGE, "view", later, "a later acquisition: the first of each well is used"))
        if planes > 1:
            reason = f"its fields have up to {planes} planes or times: the first of each is used"
            lost.append(dropped(STAGE, "plate", [title], reason))
    columns = ["plate", "well", "site", "channel", "file"]
    return Found(pd.DataFrame(rows, columns=columns), lost=lost)


def _field(place: Place) -> tuple[list[dict[str, str]], int]:
    """Return channel and file of every channel of a field, and how many planes and times it has."""
    about = _attributes(place)
    scales = about.get("multiscales")
    if not scales:
        raise FileError(f"'{place}' has no 'multiscales' in its metadata. Expected an OME-Zarr image.")
    array = place.join(str(scales[0]["datasets"][0]["path"]))
    shape = _json(array, "zarr.json", ".zarray").get("shape")
    if not shape:
        raise FileError(f"'{array}' is no zarr array: its zarr.json or .zarray is missing. Copy the plate again.")
    axes = [a["name"] if isinstance(a, dict) else a for a in scales[0].get("axes", list("tczyx"))]
    lead = [str(a).lower() for a in axes[:-2]]
    if len(axes) != len(shape) or [str(a).lower() for a in axes[-2:]] != ["y", "x"]:
        raise FileError(f"'{array}' has axes {some(axes)} and shape {tuple(shape)}. Expected axes that end in y, x.")
    labels = [c.get("label") for c in about.get("omero", {}).get("channels", [])]
    n_channels = shape[lead.index("c")] if "c" in lead else 1
    found = []
    for c in range(n_channels):
        at = [c if axis == "c" else 0 for axis in lead]
        n = int(np.ravel_multi_index(at, shape[:-2])) if lead else 0
        label = str(labels[c]) if c < len(labels) and labels[c] else str(c)
        found.append({"channel": label, "file": f"{array.path}#{n}"})
    return found, int(np.prod([n for axis, n in zip(lead, shape, strict=False) if axis != "c"]))


def _attributes(place: Place) -> dict[str, Any]:
    """Return the OME attributes of a group: zarr.json (0.5) or .zattrs (0.4); none where there are neither."""
    found = _json(place, "zarr.json", ".zattrs")
    attributes = found.get("attributes", found)
    return attributes.get("ome", attributes) if isinstance(attributes, dict) else {}


def _json(place: Place, *names: str) -> dict[str, Any]:
    for name in names:
        if place.join(name).exists():
            try:
                found = json.loads(place.local(name).read_bytes())
            except ValueError as error:
                raise FileError(f"'{place.join(name)}' is not JSON ({error}). Copy the plate again.") from error
            return found if isinstance(found, dict) else {}
    return {}
