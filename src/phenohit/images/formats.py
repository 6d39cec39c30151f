"""What every layout finds, and how that becomes views: wells, planes, channels, what is missing and what is double."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from phenohit.data.columns import normalise_wells
from phenohit.data.dropped import dropped, listed, nothing_dropped
from phenohit.data.finish import matching
from phenohit.data.views import Views
from phenohit.errors import ConfigError, FileError, PlateError, some
from phenohit.imaging import ImageSource

__all__ = ["STAGE", "Found", "as_views", "choose_channels", "row_letters", "wells_of"]

STAGE = "find images"
_KEY = ["plate", "well", "site"]


@dataclass
class Found:
    """The images that a layout found, one row per image of one channel.

    Attributes
    ----------
    images : DataFrame
        Text columns ``plate``, ``well``, ``site``, ``channel`` (as the files call it) and ``file`` ("" : missing);
        perhaps ``plane`` and ``time`` (numbers), ``illumination`` (file of the channel's function) and ``Metadata_*``.
    names : dict of str to str
        Further names of channels, such as the dye that an index file tells.
    lost : list of DataFrame
        What was left out so far.
    """

    images: pd.DataFrame
    names: dict[str, str] = field(default_factory=dict)
    lost: list[pd.DataFrame] = field(default_factory=list)


def row_letters(number: int) -> str:
    """Write row 1 as A, 27 as AA."""
    return chr(64 + number) if number <= 26 else chr(64 + (number - 1) // 26) + chr(65 + (number - 1) % 26)


def wells_of(row: pd.Series, column: pd.Series) -> pd.Series:
    """Write rows (numbers from 1, or letters) and columns as wells; shape (n,)."""
    spelled = {r: row_letters(int(r)) if r.isdigit() and 0 < int(r) <= 32 else r for r in row.unique()}
    return row.map(spelled).str.cat(column)


def as_views(found: Found, source: ImageSource) -> tuple[Views, pd.DataFrame]:
    """Turn what a layout found into views; see `phenohit.images.layouts.find_views`."""
    images, lost = found.images, list(found.lost)
    if images.empty:
        raise FileError(f"'{source.path}' holds no image of this layout. Check images.path and images.layout.")
    kept = matching(images["plate"].unique().tolist(), source.plates, "images.plates")
    others = sorted(set(images["plate"]) - set(kept))
    lost.append(listed(STAGE, "plate", others, "matches no pattern of images.plates"))
    images = images[images["plate"].isin(kept)]
    images = images.assign(well=_wells(images["well"], source.path), site=images["site"].map(_plain_number))
    for axis in ("time", "plane"):
        if axis in images:
            images, gone = _first(images, axis)
            lost.append(gone)
    images, channels, gone = _with_channels(images, found.names, source)
    lost.append(gone)
    _refuse_doubled(images)
    views = _pivot(images, channels)
    views, gone = _complete(views, source)
    every = pd.concat([nothing_dropped(), *lost, gone], ignore_index=True)
    return views, every


def _wells(wells: pd.Series, path: str) -> pd.Series:
    try:
        written = normalise_wells(wells, path)
    except PlateError as error:
        hint = "Check images.layout and images.pattern."
        raise PlateError(str(error).replace("Check profiles.columns: well.", hint)) from None
    if (written == "").any():
        raise PlateError(f"'{path}': {int((written == '').sum())} images have no well. Check the list of images.")
    return written


def _plain_number(site: str) -> str:
    return str(int(site)) if site.isdigit() else site


def _first(images: pd.DataFrame, axis: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep the first plane (or time) of each channel of a plate; brightfield often has planes of its own."""
    number = images[axis].astype(int)
    first = number.groupby([images["plate"], images["channel"]]).transform("min")
    keep = (number == first).to_numpy(bool)
    reason = f"not the first {axis} of its plate and channel, which is used; to use another, name it in images.pattern"
    return images[keep], listed(STAGE, "file", images["file"][~keep], reason)


def choose_channels(wanted: Mapping[str, str], there: list[str], names: Mapping[str, str]) -> dict[str, str]:
    """Find the channels that are asked for.

    Parameters
    ----------
    wanted : mapping of our name to the name or number in the files; empty: all, under the files' own names
    there : list of str
        Channels as the files call them, e.g. ``ch5``.
    names : mapping
        Their further names, e.g. ``{"ch5": "HOECHST 33342"}``.

    Returns
    -------
    dict
        Channel in the files -> our name, in our order. A name is looked for as it is, then with other capitals, then
        by its number.

    Raises
    ------
    ConfigError
        If a channel is not there, fits several or is asked for twice; lists what is there.
    """
    shown = ", ".join(f"{c} ({names[c]})" if c in names else c for c in there)
    if not wanted:
        own = {c: names.get(c) or c for c in there}
        return own if len(set(own.values())) == len(own) else {c: c for c in there}
    chosen: dict[str, str] = {}
    for ours, theirs in wanted.items():
        text = str(theirs).strip()
        tests = [
            lambda c, text=text: text in (c, names.get(c)),
            lambda c, text=text: text.lower() in (c.lower(), names.get(c, "").lower()),
            lambda c, text=text: _number(c) is not None and _number(c) == _number(text),
        ]
        hits = next((h for test in tests if (h := [c for c in there if test(c)])), [])
        if len(hits) != 1:
            said = "is not in the images" if not hits else f"fits several channels ({some(hits)})"
            raise ConfigError(
                f"images.channels: {ours}: '{text}' {said}. There are: {shown}. Give one of these names, or its number."
            )
        if hits[0] in chosen:
            raise ConfigError(f"images.channels: {chosen[hits[0]]} and {ours} are the same channel '{hits[0]}'.")
        chosen[hits[0]] = str(ours)
    return chosen


def _number(text: str) -> int | None:
    """Return the number of ch5, w1, C01 or 3; names such as H2B-488 have none."""
    found = re.fullmatch(r"(?:ch|channel|[a-z])?[ _-]?0*(\d{1,3})", text.strip(), re.IGNORECASE)
    return int(found[1]) if found else None


def _with_channels(
    images: pd.DataFrame, names: Mapping[str, str], source: ImageSource
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    there = sorted(images["channel"].unique(), key=_natural)
    chosen = choose_channels(source.channels, there, names)
    unused = [c for c in there if c not in chosen]
    gone = listed(STAGE, "channel", unused, "not named in images.channels")
    used: pd.DataFrame = images.loc[images["channel"].isin(list(chosen))]
    return used.assign(channel=used["channel"].map(chosen)), list(chosen.values()), gone


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort 2 before 10."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", text) if p]


def _refuse_doubled(images: pd.DataFrame) -> None:
    doubled = images.duplicated([*_KEY, "channel"], keep=False).to_numpy(bool)
    if not doubled.any():
        return
    twice = images[doubled].groupby([*_KEY, "channel"], sort=False)["file"]
    shown = [f"{'/'.join(map(str, key))}: {' and '.join(map(str, files))}" for key, files in twice]
    raise PlateError(
        f"{len(shown)} images occur more than once (plate/well/site/channel): {some(shown, 5)}. Keep one of each, or "
        "tell plates apart by folder (images.pattern with {plate})."
    )


def _pivot(images: pd.DataFrame, channels: list[str]) -> Views:
    """One row per view, one column per channel; sorted by plate, well and site."""
    codes, _ = pd.factorize(pd.MultiIndex.from_frame(images[_KEY]))
    at = images["channel"].map({c: i for i, c in enumerate(channels)}).to_numpy(np.intp)
    firsts = images[_KEY].assign(code=codes).drop_duplicates("code")
    extra = [c for c in images.columns if str(c).startswith("Metadata_")]
    rows = images.iloc[np.unique(codes, return_index=True)[1]][[*_KEY, *extra]].reset_index(drop=True)
    rows = rows.rename(columns={k: f"Metadata_{k.title()}" for k in _KEY})
    files = _spread(images["file"], codes, at, (len(firsts), len(channels)))
    table = pd.DataFrame(files, columns=channels)
    if "illumination" in images:
        kept = _spread(images["illumination"].fillna(""), codes, at, files.shape)
        for i, channel in enumerate(channels):
            if (kept[:, i] != "").any():
                rows[f"Metadata_Illum_{channel}"] = kept[:, i]
    rows = rows.fillna("").astype(str)
    sites = {s: i for i, s in enumerate(sorted(rows["Metadata_Site"].unique(), key=_natural))}
    wells = rows["Metadata_Well"]
    order = np.lexsort((rows["Metadata_Site"].map(sites), wells, wells.str.len(), rows["Metadata_Plate"]))
    return Views(rows.iloc[order], table.iloc[order])


def _spread(values: pd.Series, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    table = np.full(shape, "", dtype=object)
    table[rows, columns] = values.to_numpy(object)
    return table


def _complete(views: Views, source: ImageSource) -> tuple[Views, pd.DataFrame]:
    """Leave out views that lack a channel, or refuse them."""
    whole = views.complete()
    if whole.all():
        return views, nothing_dropped()
    absent = views.files[~whole].eq("").to_numpy(bool)
    names = views.take(~whole).names().tolist()
    reasons = [f"no image of channel {', '.join(np.array(views.channels)[row])}" for row in absent]
    if source.missing == "fail" or not whole.any():
        shown = some([f"{n} ({r})" for n, r in zip(names, reasons, strict=True)])
        hint = "Copy the missing files" + (", or set images.missing: skip." if whole.any() else ".")
        if not whole.any():
            hint = "Every view lacks one: check images.channels, images.path and where the list of images points."
        raise FileError(f"{len(names)} of {len(views)} views lack channels: {shown}. {hint}")
    return views.take(whole), dropped(STAGE, "view", names, reasons)
