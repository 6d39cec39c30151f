"""Pictures of predictions under each task's picks: examples, a montage along the score, evidence of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from phenohit.errors import FileError
from phenohit.report.pictures import Album
from phenohit.report.tables import number, read_csv, records

__all__ = ["add_galleries"]

GALLERY_BYTES = 1_400_000  # of all galleries, as they stand in the page
# Part, as the pictures' table calls it: its name on the page, pixels of the longer side.
_PARTS = {
    "predicted active": ("active", 170),
    "predicted inactive": ("inactive", 170),
    "control": ("controls", 170),
    "evidence": ("evidence", 350),
    "montage": ("montage", 130),
}
_MOST = 64  # pictures of a part


def add_galleries(folder: Path, hits: list[dict[str, Any]]) -> None:
    """Add ``gallery`` to the picks of every task: None where there are no pictures.

    Parameters
    ----------
    folder : Path
        The run folder; reads ``hits/<task>/gallery``.
    hits : list of dict
        Of `phenohit.report.picks.hits_facts`, with ``slug``.

    Notes
    -----
    ``gallery`` is a dict with ``active, inactive, controls, evidence, montage`` (lists of tiles), ``right`` (how many
    of the tiles of actives and of inactives are, two numbers), ``beyond`` (pictures that found no room in the page) and
    ``href`` of the table. A tile has ``src, width, height, href, name, place, score, view_score, label, verdict``.
    """
    album = Album(GALLERY_BYTES)
    for hit in hits:
        hit["gallery"] = _gallery(folder / "hits" / hit["slug"] / "gallery", hit["slug"], album)


def _gallery(folder: Path, slug: str, album: Album) -> dict[str, Any] | None:
    try:
        rows = records(read_csv(folder / "gallery.csv"))
    except FileError:
        return None
    before, base = album.n_beyond, f"hits/{quote(slug)}/gallery/"
    found: dict[str, Any] = {}
    for part, (name, side) in _PARTS.items():
        own = [row for row in rows if row.get("part") == part][:_MOST]
        found[name] = [tile for row in own if (tile := _tile(folder, row, side, base, album))]
    beyond = album.n_beyond - before
    if not any(found.values()) and not beyond:
        return None
    right = [sum(tile["verdict"] == "right" for tile in found[name]) for name in ("active", "inactive")]
    return found | {"right": right, "beyond": beyond, "href": base + "gallery.csv"}


def _tile(folder: Path, row: dict[str, str], side: int, base: str, album: Album) -> dict[str, Any] | None:
    """Return one picture with what stands below it; None where it is not there or finds no room."""
    name = row.get("file", "")
    if Path(name).name != name or not name.endswith(".jpg"):  # a table that was tampered with points nowhere else
        return None
    try:
        picture = album.add((folder / name).read_bytes(), side)
    except OSError:
        return None
    if picture is None:
        return None
    site = row.get("site", "")
    place = " ".join(part for part in (row.get("plate", ""), row.get("well", ""), site and f"site {site}") if part)
    verdict = row.get("verdict", "")
    return {
        **picture._asdict(),
        "href": base + quote(name),
        "name": row.get("compound_id") or row.get("compound", ""),
        "place": place,
        "score": number(row.get("score")),
        "view_score": number(row.get("view_score")),
        "label": row.get("label", ""),
        "verdict": verdict if verdict in ("right", "wrong") else "",
    }
