"""Layouts that are told by the names of files: ImageXpress, Operetta and Phenix, Yokogawa, and patterns of one's own.

Where names were looked up: MetaXpress ``<name>_A01_s1_w1<GUID>.tif`` with ``_thumb`` beside it, in
``<plate>/<date>/<number>/TimePoint_1/ZStep_1``; Harmony ``r01c02f03p01-ch1sk1fk1fl1.tiff`` in
``<plate>__<date>-Measurement 1/Images``; CellVoyager ``<plate type>_A01_T0001F001L01A01Z01C01.tif``.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pandas as pd

from phenohit.data.dropped import listed
from phenohit.data.remote import Place
from phenohit.errors import ConfigError, FileError, some
from phenohit.images.formats import STAGE, Found, wells_of
from phenohit.imaging import ImageSource

__all__ = [
    "IMAGE",
    "NAMES",
    "addresses",
    "find_imagexpress",
    "find_pattern",
    "find_phenix",
    "find_yokogawa",
    "plates_of",
]

IMAGE = re.compile(r"\.(?:tiff?|png|jpe?g)$", re.IGNORECASE)
_GUID = r"[0-9A-F]{8}-(?:[0-9A-F]{4}-){3}[0-9A-F]{12}"
_END = r"\.(?:tiff?|png|jpe?g)$"
_THUMB = r"(?i)_thumb[^/]*$"
# The part behind the last "/" is what is matched. Groups are columns of `Found.images`.
NAMES = {
    "imagexpress": r"(?i)(?:^|/)(?:[^/]*?_)??(?P<well>[A-Z]{1,2}\d{1,2})(?:_s(?P<site>\d+))?(?:_w(?P<channel>\d+?))?"
    rf"(?:{_GUID})?(?:_z(?P<plane>\d+))?{_END}",
    "phenix": r"(?i)(?:^|/)r(?P<row>\d{2,3})c(?P<col>\d{2,3})f(?P<site>\d+)(?:p(?P<plane>\d+))?(?:rc\d+)?"
    rf"-(?P<channel>ch\d+)(?:(?:sk|t)(?P<time>\d+))?(?:fk\d+)?(?:fl\d+)?{_END}",
    "yokogawa": r"(?i)(?:^|/)[^/]*?_(?P<well>[A-Z]{1,2}\d{2})_T(?P<time>\d+)F(?P<site>\d+)L\d+A\d+Z(?P<plane>\d+)"
    rf"(?P<channel>C\d+){_END}",
}
# Folders that tell no plate: they are below that of the plate.
_INNER = re.compile(r"(?i)(?:images?|rawdata|time_?point_?\d*|zstep_?\d+|wave(?:length)?_?\d+)")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def addresses(place: Place, names: pd.Series) -> pd.Series:
    """Put the folder before relative names."""
    return place.path.rstrip("/") + "/" + names


def plates_of(place: Place, names: pd.Series, source: ImageSource) -> pd.Series:
    """Tell plates by folders: the nearest that is not of the microscope's own (TimePoint_1, Images, ...).

    Raises
    ------
    ConfigError
        If images.plate names one plate and there are several such folders.
    """
    above = PurePosixPath(place.path if place.remote else Place(place.path).local().absolute().as_posix()).parts
    inner = names.str.rpartition("/")[0]
    found = {folder: _plate([*above, *filter(None, folder.split("/"))]) for folder in inner.unique()}
    if source.plate:
        if len(set(found.values())) > 1:
            raise ConfigError(
                f"images.plate is '{source.plate}', but the images lie in folders of {len(set(found.values()))} "
                f"plates: {some(sorted(set(found.values())))}. Leave images.plate empty, or choose one folder."
            )
        return pd.Series(source.plate, index=names.index)
    return inner.map(found).astype(str)


def _plate(parts: list[str]) -> str:
    """Return the plate of folders, of ``<plate>/<date>/<number>`` (MetaXpress) and ``<plate>__<date>`` (Harmony)."""
    while len(parts) > 1 and _INNER.fullmatch(parts[-1]):
        parts = parts[:-1]
    if len(parts) > 3 and parts[-1].isdigit() and _DATE.fullmatch(parts[-2]):
        parts = parts[:-2]
    return parts[-1].split("__")[0] or parts[-1]


def _by_names(place: Place, source: ImageSource, names: list[str], layout: str) -> Found:
    """Take names apart; what does not fit is listed."""
    series = pd.Series(names, dtype=str)
    series = series[series.str.contains(IMAGE)]
    small = series.str.contains(_THUMB).to_numpy(bool)
    lost = [listed(STAGE, "file", series[small], "a thumbnail")]
    series = series[~small]
    parts = series.str.extract(NAMES[layout])
    known = parts["well" if "well" in parts else "row"].notna().to_numpy(bool)
    lost.append(listed(STAGE, "file", series[~known], f"its name is none of layout {layout}"))
    series, parts = series[known].reset_index(drop=True), parts[known].reset_index(drop=True)
    if series.empty:
        raise FileError(
            f"'{source.path}' holds no image whose name is of layout {layout}. Check images.path, or describe the "
            "names in images.pattern."
        )
    if "row" in parts:
        parts["well"] = wells_of(parts.pop("row"), parts.pop("col"))
    parts["site"] = parts["site"].fillna("1")
    parts["plate"] = plates_of(place, series, source)
    return Found(parts.assign(file=addresses(place, series), inside=series), lost=lost)


def find_imagexpress(place: Place, source: ImageSource, names: list[str]) -> Found:
    """MetaXpress and ImageXpress; time points and planes also by folder (TimePoint_1, ZStep_1)."""
    found = _by_names(place, source, names, "imagexpress")
    images, inside = found.images, found.images.pop("inside")
    images["channel"] = "w" + images["channel"].fillna("1")
    step = inside.str.extract(r"(?i)(?:^|/)zstep_?(\d+)/")[0]
    images["plane"] = images["plane"].fillna(step).fillna("0")
    images["time"] = inside.str.extract(r"(?i)(?:^|/)time_?point_?(\d+)/")[0].fillna("0")
    return found


def find_phenix(place: Place, source: ImageSource, names: list[str]) -> Found:
    """Operetta and Opera Phenix; names of dyes from ``Index.idx.xml`` or ``Index.xml`` where it lies beside."""
    found = _by_names(place, source, names, "phenix")
    images, inside = found.images, found.images.pop("inside")
    images["plane"] = images["plane"].fillna("1")
    images["time"] = images["time"].fillna("1")
    images["channel"] = images["channel"].str.lower().str.replace(r"ch0*(\d)", r"ch\1", regex=True)
    folders = set(inside.str.rpartition("/")[0])
    for name in sorted(names):
        folder, _, last = name.rpartition("/")
        if folder in folders and last.lower() in ("index.idx.xml", "index.xml"):
            for number, dye in _dyes(place.local(name).read_bytes()).items():
                if found.names.setdefault(f"ch{number}", dye) != dye:  # plates differ: numbers alone are sure
                    found.names[f"ch{number}"] = f"ch{number}"
    return found


def _dyes(xml: bytes) -> dict[str, str]:
    """Return number -> name of the channels of a Harmony index: by image (version 4), or by entry (5 and later)."""
    by_image = rb"<ChannelID>\s*(\d+)\s*</ChannelID>(?:(?!</Image>).){0,2000}?<ChannelName>([^<]+)</ChannelName>"
    by_entry = rb"<Entry\s+ChannelID=\"(\d+)\"[^>]*>(?:(?!</Entry>).){0,5000}?<ChannelName>([^<]+)</ChannelName>"
    found: dict[str, str] = {}
    for pattern in (by_entry, by_image):
        for match in re.finditer(pattern, xml, re.DOTALL):
            found.setdefault(match[1].decode(), match[2].decode("utf-8", "replace").strip())
    return found


def find_yokogawa(place: Place, source: ImageSource, names: list[str]) -> Found:
    """CellVoyager CV7000, CV8000; the text before the well is the type of plate, so the folder names the plate."""
    found = _by_names(place, source, names, "yokogawa")
    found.images = found.images.drop(columns="inside")
    return found


_FIELDS = {
    "plate": r"[^/]+?",
    "well": r"[A-Za-z]{1,2}\d{1,2}",
    "row": r"[A-Za-z]{1,2}|\d{1,2}",
    "col": r"\d{1,2}",
    "site": r"[^/]+?",
    "channel": r"[^/]+?",
}
_WILD = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*?", "?": r"[^/]"}


def _expression(pattern: str) -> tuple[re.Pattern[str], dict[str, str]]:
    """Turn a pattern into an expression, and the values that it states (``{well=A01}``)."""
    given: dict[str, str] = {}
    text, seen = "", set()
    for part in re.split(r"(\{[^{}]*\}|\*\*/|\*\*|\*|\?)", pattern):
        if not part.startswith("{"):
            text += _WILD.get(part) or re.escape(part)
            continue
        name, _, value = part[1:-1].partition("=")
        if name not in _FIELDS:
            raise ConfigError(
                f"images.pattern '{pattern}' has {part}, which is no field. Expected {{plate}}, {{well}} (or {{row}} "
                "and {col}), {site}, {channel}, and * for any text."
            )
        if value:
            given[name] = value
        else:
            text += f"(?P={name})" if name in seen else f"(?P<{name}>{_FIELDS[name]})"
            seen.add(name)
    has = seen | set(given)
    if not ("well" in has or {"row", "col"} <= has) or "channel" not in has:
        raise ConfigError(
            f"images.pattern '{pattern}' tells no {'channel' if 'channel' not in has else 'well'}. Put {{channel}} and "
            "{well} (or {row} and {col}) where they stand in the path; what no path tells is stated: {well=A01}."
        )
    return re.compile(text), given


def find_pattern(place: Place, source: ImageSource, names: list[str]) -> Found:
    """Paths by ``images.pattern``: fields and ``*`` match as little as they can; ``**/`` any folders."""
    expression, given = _expression(source.pattern)
    rows, kept, others = [], [], []
    for name in names:
        match = expression.fullmatch(name)
        if match is None:
            others.append(name)
        else:
            rows.append(match.groupdict())
            kept.append(name)
    if not rows:
        others = [n for n in others if IMAGE.search(n)] or others
        raise FileError(
            f"No file below '{source.path}' fits images.pattern '{source.pattern}'. There are, for example: "
            f"{some(others, 3) if others else 'none'}."
        )
    parts, series = pd.DataFrame(rows, index=range(len(rows))), pd.Series(kept, dtype=str)
    parts = parts.assign(**given)
    if "row" in parts:
        parts["well"] = wells_of(parts.pop("row"), parts.pop("col"))
    if "site" not in parts:
        parts["site"] = "1"
    if "plate" not in parts:
        parts["plate"] = plates_of(place, series, source)
    unread = [n for n in others if IMAGE.search(n)]
    lost = [listed(STAGE, "file", unread, f"its path does not fit images.pattern '{source.pattern}'")]
    return Found(parts.assign(file=addresses(place, series)), lost=lost)
