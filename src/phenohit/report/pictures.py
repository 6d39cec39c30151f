"""Pictures that go into the page as data, so many bytes at most; beside every pick its cells and those of a control."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from PIL import Image

from phenohit.errors import FileError
from phenohit.files import read_table
from phenohit.report.measured import MeasuredPlate

__all__ = ["Album", "Picture", "add_views"]

COMPOSITE = "composite"  # the channel's name in thumbnails.parquet for all channels together
PAIRS = 96  # picks with pictures
HITS_BYTES = 1_500_000  # of their pictures
_SIDE = 160
_QUALITY = 78
_MOST = 50_000_000  # pixels of a picture that is opened


class Picture(NamedTuple):
    """A picture as the page holds it."""

    src: str  # data: address
    width: int
    height: int


class Album:
    """Pictures of a page, up to so many bytes together.

    Parameters
    ----------
    limit : int
        Bytes as they stand in the page.
    """

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.n_beyond = 0

    def add(self, data: bytes, side: int) -> Picture | None:
        """Shrink a picture and take it in.

        Parameters
        ----------
        data : bytes
            PNG or JPEG.
        side : int
            Pixels of the longer side at most.

        Returns
        -------
        Picture or None
            None if it is no picture, or the album is full (which is counted in ``n_beyond``).
        """
        try:
            picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
            if picture.width * picture.height > _MOST:
                return None
            picture = picture.convert("L" if picture.mode == "L" else "RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
        src = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        if len(src) > self.left:
            self.n_beyond += 1
            return None
        self.left -= len(src)
        return Picture(src, picture.width, picture.height)


class _Pair(NamedTuple):
    card: dict[str, Any]
    plate: str
    well: str
    control: str


def add_views(folder: Path, hits: list[dict[str, Any]], plates: list[MeasuredPlate]) -> None:
    """Add ``views`` to the cards of picks: pictures of one of the compound's wells and of a control on its plate.

    Parameters
    ----------
    folder : Path
        The run folder; reads ``wells.parquet``, ``checks/cells.parquet`` and ``images/*/thumbnails.parquet``.
    hits : list of dict
        Of `phenohit.report.picks.hits_facts`; of each the cards in ``first``.
    plates : list of MeasuredPlate

    Notes
    -----
    ``views`` is a dict with ``plate, well, control`` (its well), ``pair`` (two `Picture`, control first) and
    ``channels``: list of (name, control, compound). The control is the negative control with the median number of
    cells of those with a picture. Cards without both pictures keep ``views`` None.
    """
    known = {p.name: wells for p in plates if (wells := _pictured(p))}
    controls = _controls(folder, known)
    if not controls:
        return
    places = _places(folder, [card["compound"] for hit in hits for card in hit["first"]])
    pairs = []
    for card in [card for hit in hits for card in hit["first"]][:PAIRS]:
        for plate, well in [(card["plate"], card["well"]), *places.get(card["compound"], [])]:
            if plate in controls and well in known[plate]:
                pairs.append(_Pair(card, plate, well, controls[plate]))
                break
    pictures = _pictures(pairs, {p.name: p for p in plates})
    album = Album(HITS_BYTES)
    for pair in pairs:
        both = _both(album, pictures, pair, COMPOSITE)
        if both:
            pair.card["views"] = {"plate": pair.plate, "well": pair.well, "control": pair.control, "pair": both}
            pair.card["views"]["channels"] = []
    for pair in pairs:  # once every pick has its picture, channels while there is room
        if pair.card["views"]:
            names = [c for plate, well, c in pictures if (plate, well) == (pair.plate, pair.well) and c != COMPOSITE]
            made = [(c, both) for c in names if (both := _both(album, pictures, pair, c))]
            pair.card["views"]["channels"] = [(c, *both) for c, both in made]


def _both(album: Album, pictures: dict[Any, bytes], pair: _Pair, channel: str) -> tuple[Picture, Picture] | None:
    """Return the pictures of control and compound, or None unless there are both."""
    data = [pictures.get((pair.plate, well, channel)) for well in (pair.control, pair.well)]
    made = [album.add(d, _SIDE) if d else None for d in data]
    return (made[0], made[1]) if made[0] and made[1] else None


def _thumbnails(plate: MeasuredPlate) -> Path | None:
    path = plate.folder / "thumbnails.parquet" if plate.folder else None
    return path if path and path.is_file() else None


def _pictured(plate: MeasuredPlate) -> set[str]:
    """Wells of a plate that have a picture."""
    path = _thumbnails(plate)
    try:
        return set(read_table(path, ["Metadata_Well"])[0]["Metadata_Well"].astype(str)) if path else set()
    except FileError:
        return set()


def _controls(folder: Path, known: dict[str, set[str]]) -> dict[str, str]:
    """Return the negative control of every plate that is shown."""
    path = folder / "checks" / "cells.parquet"
    if not known or not path.is_file():
        return {}
    wells, _ = read_table(path, ["plate", "well", "pert_type", "cell_count"])
    wells = wells[wells["pert_type"].astype(str) == "negcon"].sort_values("cell_count", kind="stable")
    found = {}
    for plate, own in wells.groupby("plate", sort=False)["well"]:
        shown = [str(well) for well in own if str(well) in known.get(str(plate), ())]
        if shown:
            found[str(plate)] = shown[(len(shown) - 1) // 2]
    return found


def _places(folder: Path, compounds: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Return plates and wells of compounds."""
    if not (folder / "wells.parquet").is_file():
        return {}
    wells, _ = read_table(folder / "wells.parquet", where=("compound", list(dict.fromkeys(compounds))))
    found: dict[str, list[tuple[str, str]]] = {}
    for compound, plate, well in wells[["compound", "plate", "well"]].astype(str).itertuples(index=False):
        found.setdefault(compound, []).append((plate, well))
    return found


def _pictures(pairs: list[_Pair], plates: dict[str, MeasuredPlate]) -> dict[tuple[str, str, str], bytes]:
    """Read the pictures of these wells, plate by plate: (plate, well, channel) -> PNG."""
    found: dict[tuple[str, str, str], bytes] = {}
    for name in dict.fromkeys(pair.plate for pair in pairs):
        wells = sorted({well for pair in pairs if pair.plate == name for well in (pair.well, pair.control)})
        path = _thumbnails(plates[name])
        assert path is not None
        table: pd.DataFrame = read_table(path, where=("Metadata_Well", wells))[0]
        for row in table.to_dict("records"):
            found.setdefault((name, str(row["Metadata_Well"]), str(row["channel"])), row["png"])
    return found
