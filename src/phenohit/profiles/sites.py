"""Where cells were: plate, well and site of every image, from the image tables or from paths."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.columns import normalise_wells
from phenohit.data.finish import finish_rows, place_columns
from phenohit.data.remote import Place
from phenohit.errors import ColumnError, some
from phenohit.sources import ProfileSource

__all__ = ["Site", "Sites", "group_sites", "site_of"]

log = logging.getLogger("phenohit")

_WELL = r"(?:[A-Za-z]|A[A-Fa-f])\d{1,2}"
_NAMES = [
    re.compile(rf"(?P<plate>.+)[-_](?P<well>{_WELL})[-_](?:site|s|f)?(?P<site>\d+)", re.IGNORECASE),
    re.compile(rf"(?P<well>{_WELL})[-_](?:site|s|f)?(?P<site>\d+)", re.IGNORECASE),
    re.compile(rf"(?P<plate>.+)[-_](?P<well>{_WELL})", re.IGNORECASE),
    re.compile(rf"(?P<well>{_WELL})", re.IGNORECASE),
]
_SITE = re.compile(r"(?:site|s|f)?(\d+)", re.IGNORECASE)
_SAYS_NOTHING = {"analysis", "embedding", "embeddings", "features", "outputs", "results", "", "/"}


@dataclass(frozen=True)
class Site:
    """Where some cells were: batch, plate, well and site as text, '' where not known."""

    batch: str
    plate: str
    well: str
    site: str


def site_of(path: str | PurePath, root: str | PurePath = "") -> Site | None:
    """Read plate, well and site off a path.

    Parameters
    ----------
    path : path
        Without the file's ending. Understood: ``<plate>-<well>-<site>``, ``<plate>/<well>-<site>``,
        ``<plate>/<well>/<site>``, ``<plate>/<well>``; also with ``_``, and with ``embedding`` or
        ``analysis`` in between.
    root : path
        Folder the user gave. The folder above the plate is the batch only if it lies below `root`.

    Returns
    -------
    Site or None
        None if there is no well in it.
    """
    parts = [p for p in PurePath(path).parts if p.lower() not in _SAYS_NOTHING]
    below = len([p for p in PurePath(root).parts if p.lower() not in _SAYS_NOTHING])
    places = [len(parts) - 1, len(parts) - 2]
    if parts and _SITE.fullmatch(parts[-1]):  # s1 below A01 is a site, though it looks like a well
        places.reverse()
    for last in places:
        found = next((m for n in _NAMES if last >= 0 and (m := n.fullmatch(parts[last]))), None)
        if found is None:
            continue
        names = found.groupdict()
        beyond = parts[last + 1] if last + 1 < len(parts) else ""
        numbered = _SITE.fullmatch(beyond)
        if beyond and not numbered:
            return None
        above = parts[:last]
        plate = names.get("plate") or (above.pop() if above else "")
        if above and above[-1] == plate:
            above.pop()
        batch = above[-1] if len(above) > below else ""
        site = names.get("site") or (numbered[1] if numbered else "")
        return Site(batch, plate, names["well"], site)
    return None


@dataclass
class Sites:
    """The images to read, and the wells they make up.

    Attributes
    ----------
    images : DataFrame
        ``run`` (number of the file or run that holds it), ``key`` (its name in there) and ``code`` (row of
        `wells`, -1 if it is not wanted).
    wells : DataFrame, W rows
        Finished metadata, all text.
    dropped : DataFrame
        What plate maps and settings left out.
    """

    images: pd.DataFrame
    wells: pd.DataFrame
    dropped: pd.DataFrame

    def of(self, run: int) -> pd.DataFrame:
        """Return the images of a run."""
        return self._by_run[run]

    def __post_init__(self) -> None:
        self._by_run = dict(iter(self.images.groupby("run", sort=False)))

    def leave_out(self, runs: Iterable[int]) -> None:
        """Take the images of some runs out."""
        self.images.loc[self.images["run"].isin(list(runs)), "code"] = -1
        self.__post_init__()

    def order(self) -> list[tuple[int, NDArray[np.intp]]]:
        """Return the runs to read, those of a well near each other, each with the wells that end with it."""
        wanted = self.images[self.images["code"] >= 0]
        first = wanted.groupby("run", sort=False)["code"].min().sort_values(kind="stable")
        rank = pd.Series(np.arange(len(first)), index=first.index)
        last = wanted["run"].map(rank).groupby(wanted["code"]).max()
        ending = {r: group.index.to_numpy(dtype=np.intp) for r, group in last.groupby(last)}
        none = np.zeros(0, dtype=np.intp)
        return [(int(run), ending.get(i, none)) for i, run in enumerate(first.index)]


def group_sites(source: ProfileSource, images: pd.DataFrame, sites: list[Site | None], maps: Place | None) -> Sites:
    """Find the well of every image, and the metadata of every well.

    Parameters
    ----------
    source : ProfileSource
    images : DataFrame
        All text but `run`: ``run``, ``key``, ``name`` (of the file, for errors) and the metadata columns
        under the names of their file.
    sites : list
        What the path of each run says, used where the tables say nothing.
    maps : Place, optional
        Where plate maps are if the settings do not say.

    Raises
    ------
    ColumnError
        If an image has no plate or no well.
    """
    about = images.drop(columns=["run", "key", "name"])
    placed, _ = place_columns(source, about)
    from_path = 0
    for column, what in (("Metadata_Batch", "batch"), ("Metadata_Plate", "plate"), ("Metadata_Well", "well")):
        known = placed[column] if column in placed else pd.Series("", index=placed.index, dtype=str)
        by_run = np.array([getattr(site, what) if site else "" for site in sites], dtype=object)
        said = pd.Series(by_run[images["run"].to_numpy()], index=placed.index).astype(str)
        use = (known == "") & (said != "")
        from_path = max(from_path, int(use.sum()) if what != "batch" else 0)
        placed[column] = known.where(~use, said).astype(str)
        lacking = np.flatnonzero((placed[column] == "").to_numpy())
        if what == "batch" and len(lacking) == len(placed):
            placed = placed.drop(columns=column)
        elif what != "batch" and len(lacking):
            table = f"{column} in the Image table (name another of its columns in profiles.columns: {what}; it has "
            table = f"{table}{some(about.columns, 6)}), or " if len(about.columns) else ""
            raise ColumnError(
                f"'{images['name'].iloc[lacking[0]]}': {len(lacking)} of {len(images)} images have no {what}. Expected "
                f"{table}files in folders called <plate>-<well>-<site>, <plate>/<well>-<site> or <plate>/<well>/<site>."
            )
    if from_path:
        log.info("read cells: plate or well of %d of %d images is taken from the path", from_path, len(images))
    placed["Metadata_Well"] = normalise_wells(placed["Metadata_Well"], source.path)
    by = [c for c in ("Metadata_Batch", "Metadata_Plate", "Metadata_Well") if c in placed]
    code, _ = pd.factorize(pd.MultiIndex.from_frame(placed[by]))
    wells = _same_within(placed, code, set(by) | set(source.columns.values()))
    wells["Metadata_site_count"] = np.bincount(code).astype(str)
    finished, lost = finish_rows(source, wells, maps=maps)
    renumbered = np.full(len(wells), -1)
    renumbered[finished.index.to_numpy()] = np.arange(len(finished))
    kept = images[["run", "key"]].assign(code=renumbered[code])
    return Sites(kept, finished.reset_index(drop=True), lost)


def _same_within(images: pd.DataFrame, code: NDArray[np.intp], always: set[str]) -> pd.DataFrame:
    """One row per well: what all its images agree on, else ''; columns that say nothing go."""
    starts = np.unique(code, return_index=True)[1]
    out = {}
    for column in images.columns:
        values, texts = pd.factorize(images[column])
        low, high = np.full(len(starts), len(texts)), np.full(len(starts), -1)
        np.minimum.at(low, code, values)
        np.maximum.at(high, code, values)
        kept = np.where(low == high, np.asarray(texts, dtype=object)[values[starts]], "")
        if column in always or (kept != "").any():
            out[column] = kept
    return pd.DataFrame(out).astype(str)
