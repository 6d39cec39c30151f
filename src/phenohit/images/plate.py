"""One plate of images: which views are fit, where their cells are and what is measured of them.

Every few views are a piece of work of their own whose result is a file: a run that is killed goes on with what is
missing, and pieces may be done by processes here or by machines of a cluster.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from joblib import delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.views import Views
from phenohit.errors import FileError, PlateError, ShapeError
from phenohit.files import atomic, read_json, write_json, write_table
from phenohit.images.illumination import correct, estimate, load_functions, save_functions
from phenohit.images.measure import measure
from phenohit.images.measure_names import columns, measured_channels
from phenohit.images.objects import Objects, mask_files, read_masks
from phenohit.images.pictures import keep_crops, keep_overlay, keep_shading, keep_thumbnails
from phenohit.images.quality import flag_views, measure_quality
from phenohit.images.read import full_scale, read_view
from phenohit.images.segment import estimate_diameter, segment
from phenohit.imaging import ImageSource
from phenohit.progress import track

__all__ = ["OUTPUTS", "PLACE", "STAGE", "measure_plate"]

log = logging.getLogger("phenohit")

STAGE = "measure images"
PLACE = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
OUTPUTS = ("cells.parquet", "views.parquet", "flags.csv", "failures.csv", "dropped.csv", "plate.json")
_PIECE = 4  # views of a piece of work: minutes at most, even with every feature
_QUALITY_PIECE = 16
_SAMPLED = 12  # views that the usual diameter of nuclei is estimated from
_EMPTY = pd.DataFrame({c: pd.Series(dtype=str) for c in ("family", "compartment", "channel", "reason")}).assign(
    cells=pd.Series(dtype=np.int64)
)

Do = Callable[[Iterable[Any]], Iterable[Any]]


class _Plate(NamedTuple):
    """What a piece of work needs to know besides its views."""

    source: ImageSource
    parts: str  # folder of the pieces
    functions: tuple[str, ...]  # files of the illumination functions, one per channel; none: not estimated
    diameter: float


def measure_plate(
    views: Views, source: ImageSource, folder: Path, *, seed: int = 0, state: str = "", do: Do | None = None
) -> dict[str, Any]:
    """Measure the cells of one plate.

    Parameters
    ----------
    views : Views
        Of one plate.
    source : ImageSource
    folder : Path
        Gets `OUTPUTS`, and ``illumination/<channel>.npy`` where functions were estimated.
    seed : int
        Of the views that illumination and diameter are estimated from.
    state : str
        What else the pieces depend on, e.g. size and time of the files; pieces of another state are done again.
    do : function, optional
        Does delayed calls, in any order, and yields as they are done (`phenohit.workers.Workers.finish`).

    Returns
    -------
    dict
        ``views, measured, cells, diameter``.

    Raises
    ------
    FileError
        If a file is missing or damaged and ``images.missing`` is fail, or no view can be read.
    PlateError
        If every view is rejected.

    Notes
    -----
    Memory: one view per worker, and the sample for illumination at reduced size. ``cells.parquet`` has one row per
    cell, ``views.parquet`` one per view with its ``ImageQuality_*`` and counts.
    """
    do = do or (lambda work: (function(*a, **k) for function, a, k in work))
    plate = views.plates[0]
    key = _key(views, source, seed, state)
    parts = folder / f"parts-{key}"
    for old in folder.glob("parts-*"):
        if old != parts:
            shutil.rmtree(old)
    parts.mkdir(parents=True, exist_ok=True)
    quality, unread = _quality(views, source, parts, plate, do)
    flags = _flags(quality, views, source)
    fit, rejected = _fit(views, source, flags, unread)
    how = _learned(fit, source, folder, parts, seed)
    work = [range(start, min(start + _PIECE, len(fit))) for start in range(0, len(fit), _PIECE)]
    calls = (delayed(_measure_piece)(how, fit.take(list(p)), i) for i, p in enumerate(work))
    for _ in track(do(calls), f"measure {plate}", len(work)):
        pass
    counts, late = _gather(how, len(work), folder, views, quality)
    unread |= late
    write_table(folder / "flags.csv", flags)
    lost = [dropped(STAGE, "view", list(why), list(why.values())) for why in (unread, rejected) if why]
    lost.append(_lost_nuclei(plate, counts))
    _keep_pictures(how, fit, folder, counts)
    if source.measure.thumbnails:
        keep_thumbnails(fit, source, folder, lambda i, pixels: _corrected(how, fit.take([i]), pixels), seed=seed)
    if source.measure.crops:
        lost.append(keep_crops(fit, source, folder))
    write_table(folder / "dropped.csv", pd.concat([nothing_dropped(), *lost], ignore_index=True))
    cells = int(counts["cells"].sum())
    found = {"views": len(views), "measured": len(fit), "cells": cells, "diameter": round(how.diameter, 2)}
    write_json(folder / "plate.json", found)
    shutil.rmtree(parts)
    return found


def _key(views: Views, source: ImageSource, seed: int, state: str) -> str:
    """Name what the pieces of a plate depend on."""
    chosen = asdict(replace(source, plates=[], storage={}, store=False))
    text = json.dumps([chosen, views.rows.to_dict("list"), views.files.to_dict("list"), seed, state], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


# --- which views are fit ----------------------------------------------------------------------


def _flags(quality: pd.DataFrame, views: Views, source: ImageSource) -> pd.DataFrame:
    """Flag views by their measurements; ``view`` is plate/well/site."""
    if quality.empty:
        names = ("view", "rule", "channel", "value", "limit", "rejected", "reason")
        return pd.DataFrame({c: pd.Series(dtype=object) for c in names})
    flags = flag_views(quality, source.quality, views.channels, source.segment.nuclei)
    return flags.assign(view=quality["view"].to_numpy()[flags["view"].to_numpy(int)])


def _quality(views: Views, source: ImageSource, parts: Path, plate: str, do: Do) -> tuple[pd.DataFrame, dict[str, str]]:
    """Measure the quality of every view; also say which cannot be read, and why."""
    if not source.quality.enabled:
        return pd.DataFrame(), {}
    work = [range(s, min(s + _QUALITY_PIECE, len(views))) for s in range(0, len(views), _QUALITY_PIECE)]
    calls = (delayed(_quality_piece)(source, str(parts), views.take(list(p)), i) for i, p in enumerate(work))
    for _ in track(do(calls), f"check views of {plate}", len(work)):
        pass
    found = [read_json(parts / f"quality-{i}.json") for i in range(len(work))]
    rows = [row for piece in found for row in piece["rows"]]
    unread = {name: why for piece in found for name, why in piece["unread"].items()}
    if unread and len(unread) == len(views):
        raise FileError(f"None of the {len(views)} views of plate '{plate}' can be read: {next(iter(unread.values()))}")
    return pd.DataFrame(rows), unread


def _quality_piece(source: ImageSource, parts: str, views: Views, number: int) -> None:
    path = Path(parts) / f"quality-{number}.json"
    if path.exists():
        return
    rows, unread = [], {}
    for name, pixels in _read(views, source, unread):
        found = measure_quality(pixels, views.channels, full_scale(pixels, source.bits))
        place = dict(zip(PLACE, name.split("/"), strict=True)) if name.count("/") == 2 else {}
        rows.append({"view": name, **place, **{k: None if np.isnan(v) else float(v) for k, v in found.items()}})
    write_json(path, {"rows": rows, "unread": unread})


def _read(views: Views, source: ImageSource, unread: dict[str, str]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Read views one by one; what cannot be read is noted, or fatal if the settings say so."""
    names = views.names().tolist()
    files = views.files.to_numpy(object)
    for name, of_view in zip(names, files, strict=True):
        try:
            yield name, read_view(of_view.tolist(), storage=source.storage, bits=source.bits)
        except (FileError, ShapeError) as error:
            if source.missing == "fail":
                raise
            unread[name] = str(error)


def _fit(
    views: Views, source: ImageSource, flags: pd.DataFrame, unread: dict[str, str]
) -> tuple[Views, dict[str, str]]:
    """Return the views to measure, and why the others that can be read are not."""
    against = flags[flags["rule"].isin(source.quality.reject)]
    rejected = against.groupby("view", sort=False)["reason"].agg("; ".join).to_dict()
    names = views.names()
    keep = ~names.isin({*rejected, *unread}).to_numpy(bool)
    if not keep.any():
        reasons = against["rule"].value_counts().to_dict()
        raise PlateError(
            f"No view of plate '{views.plates[0]}' is left to measure: {len(unread)} cannot be read, and of the "
            f"others {reasons} are rejected. Look at them, or lower quality.reject."
        )
    return views.take(keep), {str(k): str(v) for k, v in rejected.items()}


# --- what is learned from the plate -----------------------------------------------------------


def _learned(views: Views, source: ImageSource, folder: Path, parts: Path, seed: int) -> _Plate:
    """Estimate illumination and the usual diameter of nuclei from a sample of the views that are fit."""
    path = parts / "learned.json"
    if path.exists():
        known = read_json(path)
        return _Plate(source, str(parts), tuple(known["functions"]), known["diameter"])
    order = np.random.default_rng([seed, 17]).permutation(len(views))
    shutil.rmtree(folder / "illumination", ignore_errors=True)
    functions: tuple[str, ...] = ()
    if source.quality.illumination == "estimate":
        chosen = np.sort(order[: source.quality.illumination_views])
        sample = (pixels for _, pixels in _read(views.take(chosen), source, {}))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            made = estimate(track(sample, f"illumination of {views.plates[0]}", len(chosen)), source.quality.smoothing)
        for warning in said:
            log.info("%s: %s", views.plates[0], warning.message)
        files = save_functions(folder / "illumination", made, views.channels, views.plates[0])
        functions = tuple(str(file) for file in files)
    how = _Plate(source, str(parts), functions, source.segment.diameter)
    if not how.diameter and not source.segment.masks:
        few = views.take(np.sort(order[:_SAMPLED]))
        flat = (_corrected(how, few.take([i]), pixels) for i, (_, pixels) in enumerate(_read(few, source, {})))
        how = how._replace(diameter=estimate_diameter(flat, views.channels, source.segment.nuclei))
    write_json(path, {"functions": list(how.functions), "diameter": how.diameter})
    return how


def _corrected(how: _Plate, view: Views, pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Correct one view for illumination, as the settings say."""
    if how.functions:
        return correct(pixels, _functions(how.functions))
    if how.source.quality.illumination == "files":
        named = {c: f"Metadata_Illum_{c}" for c in view.channels}
        files = {c: str(view.rows[column].iloc[0]) for c, column in named.items() if column in view.rows}
        lacking = [c for c in view.channels if not files.get(c)]
        if lacking:
            raise FileError(
                f"quality.illumination is files, but the list of images names no function for {', '.join(lacking)}. "
                "Use a list with FileName_Illum columns, or set quality.illumination: estimate."
            )
        return correct(pixels, _functions(tuple(files[c] for c in view.channels)))
    return np.asarray(pixels, dtype=np.float32)


@lru_cache(maxsize=2)
def _functions(files: tuple[str, ...]) -> NDArray[np.float32]:
    return load_functions(files)


# --- pieces -----------------------------------------------------------------------------------


def _measure_piece(how: _Plate, views: Views, number: int) -> None:
    """Segment and measure a few views; the result is a file."""
    counted = Path(how.parts) / f"counts-{number}.json"
    if counted.exists():
        return
    source, unread = how.source, {}
    tables, failed, counts = [], [], []
    with threadpool_limits(1):
        for i, (name, raw) in enumerate(_read(views, source, unread)):
            view = views.take([views.names().tolist().index(name)]) if unread else views.take([i])
            pixels = _corrected(how, view, raw)
            objects = _objects(how, view, pixels)
            cells, failures = measure(pixels, views.channels, objects, source.measure, full_scale(raw, source.bits))
            place = view.rows[PLACE].iloc[0]
            for column in reversed(PLACE):
                cells.insert(0, column, str(place[column]))
            tables.append(cells)
            failed.append(failures)
            area = float(np.median(np.bincount(objects.cells.ravel())[1:])) if len(objects) else None
            counts.append({"view": name, "cells": len(objects), "median_area": area, "left_out": objects.left_out})
    table = pd.concat(tables, ignore_index=True) if tables else _no_cells(views.channels, source)
    write_table(Path(how.parts) / f"cells-{number}.parquet", table)
    whole = pd.concat([f for f in failed if len(f)], ignore_index=True) if any(map(len, failed)) else _EMPTY
    write_json(counted, {"counts": counts, "unread": unread, "failures": whole.to_dict("list")})


def _objects(how: _Plate, view: Views, pixels: NDArray[np.float32]) -> Objects:
    segmenting = how.source.segment
    if not segmenting.masks:
        return segment(pixels, view.channels, segmenting, how.diameter)
    paths = mask_files(view, segmenting)
    return read_masks(paths, segmenting, pixels.shape[1:], storage=how.source.storage)


def _no_cells(channels: Sequence[str], source: ImageSource) -> pd.DataFrame:
    names = columns(measured_channels(channels, source.measure), source.measure.features)
    empty = {c: pd.Series(dtype=str) for c in PLACE} | {"Metadata_ObjectNumber": pd.Series(dtype=np.int32)}
    return pd.DataFrame(empty | {name: pd.Series(dtype=np.float32) for name in names})


# --- together ---------------------------------------------------------------------------------


def _gather(
    how: _Plate, n: int, folder: Path, views: Views, quality: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Lay the pieces one behind the other; return the counts of every view, and what could not be read after all."""
    parts = Path(how.parts)
    pieces = [read_json(parts / f"counts-{i}.json") for i in range(n)]
    schema = None
    with atomic(folder / "cells.parquet") as path:
        writer = None
        for i in range(n):
            table = pq.read_table(parts / f"cells-{i}.parquet")
            if writer is None:
                schema = table.schema.remove_metadata()
                writer = pq.ParquetWriter(path, schema, compression="zstd")
            writer.write_table(table.replace_schema_metadata(None).cast(schema) if len(table) else _none_of(schema))
        if writer is not None:
            writer.close()
    failures = pd.concat([pd.DataFrame(p["failures"]) for p in pieces], ignore_index=True)
    keys = ["family", "compartment", "channel", "reason"]
    summed = failures.groupby(keys, as_index=False, sort=False)["cells"].sum() if len(failures) else _EMPTY
    write_table(folder / "failures.csv", summed.astype({"cells": np.int64}))
    counts = pd.DataFrame(
        [c for p in pieces for c in p["counts"]], columns=["view", "cells", "median_area", "left_out"]
    )
    rows = views.rows.assign(view=views.names())
    rows = rows[[c for c in rows if not c.startswith("Metadata_Illum_")]]
    table = rows.merge(counts.drop(columns="left_out"), on="view", how="outer")
    if len(quality):
        table = table.merge(quality.drop(columns=PLACE, errors="ignore"), on="view", how="outer")
    write_table(folder / "views.parquet", table)
    return counts, {name: why for p in pieces for name, why in p["unread"].items()}


def _none_of(schema: pa.Schema | None) -> pa.Table:
    assert schema is not None
    return schema.empty_table()


def _keep_pictures(how: _Plate, views: Views, folder: Path, counts: pd.DataFrame) -> None:
    """Draw the outlines of the view with the median number of cells, and the illumination functions."""
    if how.functions:
        keep_shading(folder, _functions(how.functions), views.channels)
    if counts.empty:
        return
    middle = counts.sort_values("cells", kind="stable")["view"].iloc[len(counts) // 2]
    view = views.take(views.names().eq(middle).to_numpy(bool))
    for _, raw in _read(view, how.source, {}):
        pixels = _corrected(how, view, raw)
        shown = [how.source.segment.nuclei, how.source.segment.cells]
        shown = [view.channels.index(c) for c in shown if c in view.channels] or [0]
        keep_overlay(folder, pixels[shown], _objects(how, view, pixels))


def _lost_nuclei(plate: str, counts: pd.DataFrame) -> pd.DataFrame:
    """One line per reason for which nuclei are not cells."""
    total: dict[str, int] = {}
    for of_view in counts["left_out"]:
        for reason, n in of_view.items():
            total[reason] = total.get(reason, 0) + int(n)
    kept = {reason: n for reason, n in total.items() if n}
    return dropped(STAGE, "nucleus", [f"{plate}: {n:,} nuclei" for n in kept.values()], list(kept))
