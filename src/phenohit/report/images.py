"""What became of raw images, as facts for the page. Nothing here knows HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from phenohit.errors import FileError
from phenohit.files import open_parquet, read_table
from phenohit.report.measured import MeasuredPlate, image_settings, measured_plates
from phenohit.report.pictures import Album, Picture
from phenohit.report.tables import number, read_csv

__all__ = ["ADVICE", "IMAGES_SHOWN", "images_facts"]

IMAGES_SHOWN = 200  # plates in the table
_PICTURED = 6  # plates with pictures
_OPEN = 3  # of these, shown from the start
_FAILURES = 20  # rows of what could not be measured
_BYTES = 1_500_000  # of pictures
_OVERLAY, _SHADING = 760, 900  # pixels across
_LOST = 0.05  # share of views lost above which a plate is flagged
_LINE = 3  # plates that make a chart
# Rule -> what it usually means, what to do.
ADVICE = {
    "blurred": (
        "Out of focus: autofocus on dust or on the wrong plane, a bent plate, a bubble. Dying cells look alike.",
        "Look at some. Image the plate again if it lost many. If dying cells are taken for blur, take blurred out of "
        "quality.reject.",
    ),
    "saturated": (
        "Bright pixels are cut off, so intensities are too low: exposure too long, or a compound that fluoresces.",
        "Expose the next plate for less time. If only some wells are flagged, suspect their compounds.",
    ),
    "debris": (
        "A fibre, dust, precipitate or a clump of dead cells outshines the cells.",
        "Look at them. They are measured unless debris is in quality.reject: a speck spoils few cells, a compound that "
        "precipitates spoils its well.",
    ),
    "empty": (
        "No nuclei to be seen: cells never seeded or washed off, or all killed by the compound.",
        "If they are one compound's wells it is toxic, and no profile is right. If they are a row or column, look at "
        "dispensing and washing.",
    ),
    "dark": (
        "No light in a channel: lamp, shutter or filter, a stain that was left out, a file of zeros.",
        "Check images.channels and the channel's exposure. A channel without signal can be left out by "
        "measure.channels.",
    ),
    "unread": (
        "A file is missing, truncated, or of another size than the view's other channels.",
        "Copy the files again and run again. Each is listed with its reason in dropped/images.csv.",
    ),
}


def images_facts(folder: Path, plates: list[MeasuredPlate] | None = None) -> dict[str, Any] | None:
    """Gather what the section on images shows.

    Parameters
    ----------
    folder : Path
        The run folder; reads its ``images``.
    plates : list of MeasuredPlate, optional
        As by `measured_plates`, if they have been read already.

    Returns
    -------
    dict or None
        None where the run has no images. Keys ``told`` (sentences), ``tiles``, ``checked`` (bool), ``rules``,
        ``columns`` (rules with a column in the table, and what it counts), ``unread`` and ``controls`` (bool: whether
        they have one), ``rows`` (plates, worst first, at most `IMAGES_SHOWN`), ``n``, ``n_bad``, ``focus`` and
        ``cells`` (one dot per plate), ``pictures``, ``n_open``, ``beyond`` (pictures that
        found no room), ``failures``, ``n_failures``, ``left_out``, ``nuclei``, ``reject``.
    """
    plates = measured_plates(folder) if plates is None else plates
    if not plates:
        return None
    controls = _controls(folder)
    rows = [_row(plate) | {"controls": controls.get(plate.name)} for plate in plates]
    both = sorted(zip(plates, rows, strict=True), key=lambda pair: _rank(pair[1]))
    worst = [row for _, row in both]
    pictures, beyond = _pictures(folder, both)
    failures = _failures(plates)
    settings = image_settings(folder)
    reject = (settings.get("quality") or {}).get("reject") or []
    return {
        "told": _told(worst),
        "tiles": _tiles(folder, plates, rows),
        "checked": any(row["checked"] for row in rows),
        "rules": _rules(rows),
        "columns": [(rule, "rejected" if _total(rows, "rejected", rule) else "flagged") for rule in _seen(rows)],
        "unread": any(row["unread"] for row in rows),
        "controls": any(row["controls"] is not None for row in rows),
        "rows": worst[:IMAGES_SHOWN],
        "n": len(rows),
        "n_bad": sum(row["bad"] for row in rows),
        "focus": _strip(rows, "focus", zero=False),
        "cells": _strip(rows, "cells_per_view", zero=True),
        "pictures": pictures,
        "n_open": _OPEN,
        "beyond": beyond,
        "failures": failures[:_FAILURES],
        "n_failures": len(failures),
        "left_out": len(read_csv(folder / "images" / "views_left_out.csv")),
        "nuclei": str((settings.get("segment") or {}).get("nuclei") or "DNA"),
        "reject": [str(rule) for rule in reject],
    }


def _row(plate: MeasuredPlate) -> dict[str, Any]:
    """Facts of one plate; numbers are None where nothing was measured."""
    measured = number(plate.summary.get("measured"))
    cells, focus = plate.views["cells"].dropna(), plate.views["focus"].dropna()
    rejected = plate.flags[plate.flags["rejected"].astype(bool)]
    lost = plate.n_views - (measured or 0)
    unread = max(int(lost) - rejected["view"].nunique(), 0) if measured is not None else 0
    return {
        "plate": plate.name,
        "trouble": plate.trouble,
        "views": plate.n_views,
        "measured": None if measured is None else int(measured),
        "unread": unread,
        "lost": lost / plate.n_views if plate.n_views else 0.0,
        "bad": measured is None or lost > _LOST * plate.n_views,
        "flagged": plate.flags["rule"].value_counts().to_dict(),
        "rejected": rejected["rule"].value_counts().to_dict(),
        "n_rejected": int(rejected["view"].nunique()),
        "cells": number(plate.summary.get("cells")),
        "cells_per_view": float(cells.median()) if len(cells) else None,
        "diameter": number(plate.summary.get("diameter")) or None,
        "focus": float(focus.median()) if len(focus) else None,
        "checked": bool(len(focus)) or bool(len(plate.flags)),
    }


def _controls(folder: Path) -> dict[str, int]:
    """Negative controls among the wells of every plate; empty where it is not known what wells are."""
    try:
        table, _ = read_table(folder / "checks" / "plates.parquet", ["plate", "n_negcon"])
    except FileError:
        return {}
    return {str(plate): int(n) for plate, n in zip(table["plate"], table["n_negcon"], strict=True)}


def _rank(row: dict[str, Any]) -> tuple[bool, float, float]:
    """Order of plates: not measured, then by the share of views that were lost, then by what was flagged."""
    return row["measured"] is not None, -row["lost"], -sum(row["flagged"].values()) / max(row["views"], 1)


def _seen(rows: list[dict[str, Any]]) -> list[str]:
    """Rules that flagged a view, ours in their order, then those that we do not know."""
    seen = {str(rule) for row in rows for rule in row["flagged"]}
    return [*(rule for rule in ADVICE if rule in seen), *sorted(seen - set(ADVICE))]


def _total(rows: list[dict[str, Any]], kind: str, rule: str) -> int:
    return sum(int(row[kind].get(rule, 0)) for row in rows)


def _why(rows: list[dict[str, Any]]) -> str:
    """Say by which rules views were lost, e.g. ``blurred 3, empty 1``."""
    counts = [(rule, _total(rows, "rejected", rule)) for rule in _seen(rows)]
    counts.append(("cannot be read", sum(row["unread"] for row in rows)))
    return ", ".join(f"{rule} {n:,}" for rule, n in counts if n)


def _told(worst: list[dict[str, Any]]) -> list[str]:
    done = [row for row in worst if row["measured"] is not None]
    views, measured = sum(row["views"] for row in done), sum(row["measured"] for row in done)
    told = [f"{measured:,} of {views:,} views could be measured, on {_plates(len(done))}."]
    if done and done[0]["lost"]:
        row = done[0]
        lost = f"{row['views'] - row['measured']:,} of {row['views']:,} views ({_why([row])})"
        told.append(f"{row['plate']} lost {'the largest share' if len(done) > 1 else 'some'}: {lost}.")
    elif done:
        told.append("None was rejected.")
    missing = [row for row in worst if row["measured"] is None]
    if missing:
        what = missing[0]["plate"] if len(missing) == 1 else _plates(len(missing))
        told.append(f"{what} {'was' if len(missing) == 1 else 'were'} not measured to the end; run again to go on.")
    return told


def _plates(n: int) -> str:
    return f"{n:,} plate{'s' * (n != 1)}"


def _tiles(folder: Path, plates: list[MeasuredPlate], rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    done = [row for row in rows if row["measured"] is not None]
    views, measured = sum(row["views"] for row in rows), sum(row["measured"] for row in done)
    rejected = sum(row["n_rejected"] for row in rows)
    counts = pd.concat([plate.views["cells"].astype(float) for plate in plates], ignore_index=True).dropna()
    tiles = [
        _tile(f"{views:,}", "views", f"on {_plates(len(rows))}{_channels(folder)}"),
        _tile(f"{measured / max(views, 1):.1%}", "of views measured", f"{measured:,} of {views:,}"),
        _tile(f"{rejected:,}", "views rejected", _why(rows) or "no rule applies"),
        _tile(f"{sum(int(row['cells'] or 0) for row in done):,}", "cells measured", ""),
    ]
    if len(counts):
        low, high = np.percentile(counts, [10, 90]).tolist()
        note = f"{low:,.0f} to {high:,.0f} in eight of ten views" if len(counts) >= 10 else ""
        tiles.append(_tile(f"{counts.median():,.0f}", "cells in the median view", note))
    wells = _wells(folder)
    return tiles + ([_tile(*wells)] if wells else [])


def _tile(value: str, label: str, note: str) -> dict[str, str]:
    return {"value": value, "label": label, "note": note}


def _channels(folder: Path) -> str:
    names = _channel_names(folder)
    return f"; {len(names)} channels: {', '.join(names)}" if names else ""


def _channel_names(folder: Path) -> list[str]:
    """Channels in the order of the index of views."""
    try:
        with open_parquet(folder / "images" / "views.parquet") as file:
            return [n.removeprefix("File_") for n in file.schema_arrow.names if n.startswith("File_")]
    except FileError:
        return []


def _wells(folder: Path) -> tuple[str, str, str] | None:
    """Wells with a profile, of those that were imaged."""
    try:
        with open_parquet(folder / "images" / "wells.parquet") as file:
            n = file.metadata.num_rows
        index, _ = read_table(folder / "images" / "views.parquet", ["Metadata_Plate", "Metadata_Well"])
    except FileError:
        return None
    return f"{n:,}", "wells with a profile", f"of {len(index.drop_duplicates()):,} imaged"


def _rules(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every rule with what it found; rules that we do not know are told by their name."""
    found = []
    for rule in dict.fromkeys([*ADVICE, *_seen(rows)]):
        means, act = ADVICE.get(rule, ("", ""))
        n, gone = _total(rows, "flagged", rule), _total(rows, "rejected", rule)
        if rule == "unread":
            n = gone = sum(row["unread"] for row in rows)
            if not n:
                continue
        found.append({"rule": rule, "means": means, "act": act, "flagged": n, "rejected": gone})
    return found


def _strip(rows: list[dict[str, Any]], column: str, *, zero: bool) -> dict[str, Any] | None:
    """One number per plate, in the order of the images; None for too few plates."""
    values = [row[column] for row in rows]
    known = [v for v in values if v is not None]
    if len(known) < _LINE:
        return None
    return {
        "values": values,
        "flagged": [row["bad"] for row in rows],
        "names": [row["plate"] for row in rows],
        "texts": [f"{row['plate']}: {row['lost']:.0%} of its views lost ({_why([row])})" for row in rows],
        "batches": [],
        "typical": float(np.median(known)),
        "low": min(known),
        "high": max(known),
        "n_flagged": sum(row["bad"] for row in rows),
        "zero": zero,
    }


# --- pictures ---------------------------------------------------------------------------------


def _pictures(folder: Path, plates: list[tuple[MeasuredPlate, dict[str, Any]]]) -> tuple[list[dict[str, Any]], int]:
    """Outlines and illumination of the first plates that have any; also how many pictures found no room."""
    album, found = Album(_BYTES), []
    names = _channel_names(folder)
    for plate, row in plates:
        if len(found) == _PICTURED or album.n_beyond:
            break
        if plate.folder is None:
            continue
        made = {
            what: _picture(album, plate.folder, name, side)
            for what, name, side in (("overlay", "overlay.jpg", _OVERLAY), ("shading", "illumination.png", _SHADING))
        }
        if any(made.values()):
            ranges = _ranges(plate.folder / "illumination", names) if made["shading"] else []
            found.append({"plate": plate.name, "row": row, "ranges": ranges, "channels": names} | made)
    return found, album.n_beyond


def _picture(album: Album, folder: Path, name: str, side: int) -> dict[str, Any] | None:
    """Return a picture of a plate with the way to its file."""
    path = folder / name
    picture: Picture | None = album.add(path.read_bytes(), side) if path.is_file() else None
    return {"picture": picture, "href": f"images/{quote(folder.name)}/{name}"} if picture else None


def _ranges(folder: Path, channels: list[str]) -> list[dict[str, Any]]:
    """Lowest and highest value of every illumination function."""
    found = []
    for channel in channels:
        for path in [p for p in sorted(folder.glob("*.npy")) if p.stem.endswith(f"Illum{channel}")][:1]:
            try:
                values = np.load(path, mmap_mode="r", allow_pickle=False)
                found.append({"channel": channel, "low": number(values.min()), "high": number(values.max())})
            except (OSError, ValueError):
                continue
    return found


def _failures(plates: list[MeasuredPlate]) -> list[dict[str, Any]]:
    """Sum up what could not be measured, by family and reason, most cells first."""
    tables = [plate.failures.assign(plate=plate.name) for plate in plates if len(plate.failures)]
    if not tables:
        return []
    table = pd.concat(tables, ignore_index=True).fillna("")
    found = []
    for key, part in table.groupby(["family", "reason"], sort=False):
        family, reason = (str(k) for k in tuple(key))  # pyright: ignore[reportGeneralTypeIssues]
        where = {c: sorted({str(v) for v in part[c]} - {""}) for c in ("compartment", "channel")}
        n = {"cells": int(part["cells"].sum()), "plates": int(part["plate"].nunique())}
        found.append({"family": family, "reason": reason, **where, **n})
    return sorted(found, key=lambda row: -row["cells"])
