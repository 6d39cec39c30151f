"""CellProfiler's single cells to wells: folders of CSV files per object, or SQLite databases.

The tables of the parts of a cell are joined by their keys alone; their features then stream past, table
by table, into `phenohit.profiles.cells`. Memory: the keys of one file, one block, and what `cells` holds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.columns import Kind, split_names
from phenohit.data.dropped import dropped
from phenohit.data.profiles import Profiles
from phenohit.data.remote import Place
from phenohit.errors import ColumnError, FileError, some
from phenohit.profiles.cellprofiler_runs import Run, find_runs
from phenohit.profiles.cells import STAGE, Collector, WellTable, check_statistics
from phenohit.profiles.objects import (
    Objects,
    image_key,
    join_objects,
)
from phenohit.profiles.sites import Site, Sites, group_sites
from phenohit.progress import track
from phenohit.sources import ProfileSource

__all__ = ["read_backend", "read_cellprofiler"]

log = logging.getLogger("phenohit")

_KEYS = ("TableNumber", "ImageNumber", "ObjectNumber")
_SAMPLED = 12  # runs whose columns are looked at before reading: a site without cells has few


def read_cellprofiler(source: ProfileSource) -> tuple[Profiles, pd.DataFrame]:
    """Read single cells that CellProfiler measured, as wells.

    Parameters
    ----------
    source : ProfileSource
        `path` is a folder with ``Cells.csv``, ``Cytoplasm.csv``, ``Nuclei.csv`` (any of them) and
        ``Image.csv``, gzipped or not, at any depth, also with a prefix in common
        (``BR00121431-A01-1_Cells.csv.gz``); or an SQLite database of ExportToDatabase or
        cytominer-database, or a folder of them. `cells` and `min_cells` say how cells become wells.

    Returns
    -------
    profiles : Profiles
        One row per plate and well; ``Metadata_cell_count`` is the number of objects called Cells.
    dropped : DataFrame
        Objects without their other parts, wells with too few cells, columns that are no features,
        features without a value, sites without a table.

    Raises
    ------
    FileError
        If a file is absent, truncated or of another kind.
    ColumnError, PlateError, ConfigError
    """
    place = Place(source.path, source.storage)
    if not place.exists():
        raise FileError(f"'{place}' does not exist. Give a folder with CellProfiler's tables, or an SQLite database.")
    return _read(source, find_runs(place))


def read_backend(
    source: ProfileSource, plates: Sequence[tuple[str, str, Path]], *, maps: Place | None = None
) -> tuple[Profiles, pd.DataFrame]:
    """Read SQLite databases of whole plates, as wells.

    Parameters
    ----------
    source : ProfileSource
    plates : sequence of (batch, plate, path)
        Names of batch and plate, whatever the Image table calls them.
    maps : Place, optional
        Where the plate maps are if ``source.platemaps`` is empty.

    Returns
    -------
    profiles : Profiles
    dropped : DataFrame
        As `read_cellprofiler`.
    """
    runs = [
        Run(str(path), Place(path), database=Path(path), site=Site(batch, plate, "", ""), sure=True)
        for batch, plate, path in plates
    ]
    return _read(source, runs, maps)


def _read(source: ProfileSource, runs: list[Run], maps: Place | None = None) -> tuple[Profiles, pd.DataFrame]:
    """Read all runs: first where every image was, then the cells."""
    statistics = check_statistics(source.cells)
    images = pd.concat([_images(i, run) for i, run in enumerate(track(runs, "read image tables"))], ignore_index=True)
    images = images.astype({c: "string" for c in images if c != "run"}).fillna("")
    sites = group_sites(source, images, [run.site for run in runs], maps)
    incomplete = _incomplete(runs)
    sites.leave_out(incomplete)
    order = sites.order()
    features, ignored = _features(source, [runs[i] for i, _ in order])
    table = WellTable(len(sites.wells), list(features), statistics)
    reader = _Reader(runs, sites, table, features)
    reader.read(order)
    sites.wells["Metadata_cell_count"] = reader.n_objects.astype(str)
    log.info(
        "read cells: %s objects, %s cells with all parts, %d images, %d wells, %d plates, %d features",
        f"{reader.n_objects.sum():,}", f"{table.n_cells.sum():,}", int((sites.images["code"] >= 0).sum()),
        len(sites.wells), sites.wells["Metadata_Plate"].nunique(), len(features),
    )  # fmt: skip
    profiles, few = table.finish(sites.wells, source.min_cells)
    gone = dropped(STAGE, "site", [runs[i].name for i in incomplete], incomplete.values())
    return profiles, pd.concat([sites.dropped, gone, ignored, reader.dropped(), few], ignore_index=True)


def _images(number: int, run: Run) -> pd.DataFrame:
    """Return what is known about the images of a run; without an Image table, that is their numbers."""
    found = run.images()
    if found is None:
        objects = run.open(run.parts[0])
        known = [c for c in objects.columns if c == "ImageNumber"]
        found = objects.texts(known).drop_duplicates() if known else pd.DataFrame()
        found = found if len(found) else pd.DataFrame({"ImageNumber": [""]})
    plain = found.rename(columns=lambda c: c.removeprefix("Image_"))
    if not len(plain):
        raise FileError(f"'{run.name}': the Image table has no rows. Make it again, or leave this folder out.")
    if "ImageNumber" not in plain:
        raise ColumnError(
            f"'{run.name}': the Image table has no ImageNumber. It has {some(found.columns, 6)}. Export it again with "
            "this column, and check what separates them."
        )
    key = image_key(plain.get("TableNumber"), plain["ImageNumber"])
    again = key[key.duplicated()].unique()
    if len(again):
        raise ColumnError(
            f"'{run.name}': the Image table has {some(again)} more than once. Tables of several runs were put "
            "together: keep them apart, or number the runs in a column TableNumber."
        )
    run.has_table_number = "TableNumber" in plain
    about = found.loc[:, [c for c in found if c.removeprefix("Image_").startswith("Metadata_")]]
    if run.sure and run.site is not None:
        known = {"Metadata_Batch": run.site.batch, "Metadata_Plate": run.site.plate}
        about = about.drop(columns=[c for c in about if c.removeprefix("Image_") in known]).assign(**known)
    return about.assign(run=number, key=key, name=run.name)


def _incomplete(runs: list[Run]) -> dict[int, str]:
    """Find runs that lack a table that others have; number of the run -> reason."""
    parts = sorted({p for run in runs for p in run.parts})
    lacking = {i: [p for p in parts if p not in run.parts] for i, run in enumerate(runs)}
    return {i: f"has no table of {', '.join(m)}, which other runs have" for i, m in lacking.items() if m}


def _named(run: Run, part: str, columns: Sequence[str]) -> dict[str, str]:
    """Feature name -> column of the table; the keys of the tables keep their names."""
    prefix = run.prefix(part)
    return {c if c.startswith(prefix) or c in _KEYS else prefix + c: c for c in columns}


def _features(source: ProfileSource, runs: list[Run]) -> tuple[dict[str, str], pd.DataFrame]:
    """Decide on the features from some of the files: feature -> part it belongs to."""
    kinds: dict[str, Kind] = {}
    part_of: dict[str, str] = {}
    step = max(1, len(runs) // _SAMPLED)
    for run in runs[::step]:
        for part in run.parts:
            objects = run.open(part)
            found = objects.kinds()
            for name, column in _named(run, part, objects.columns).items():
                part_of.setdefault(name, part)
                if kinds.get(name, "empty") == "empty":
                    kinds[name] = found[column]
    parts = list(dict.fromkeys(part_of.values()))
    order = sorted(kinds, key=lambda name: parts.index(part_of[name]))
    split = split_names({n: kinds[n] for n in order}, features=source.features, ignore=source.ignore)
    if not split.features:
        raise ColumnError(
            f"'{runs[0].name}' has no feature column among {len(kinds)}, such as {some(kinds, 5)}. Check "
            "profiles.features and profiles.ignore."
        )
    reasons = split.ignored["reason"].str.replace(r": kept as .*", "", regex=True)
    return {n: part_of[n] for n in split.features}, dropped(STAGE, "feature", split.ignored["column"], reasons)


class _Reader:
    """Read runs one after another into the table of wells."""

    def __init__(self, runs: list[Run], sites: Sites, table: WellTable, features: dict[str, str]) -> None:
        self.runs, self.sites, self.table, self.features = runs, sites, table, features
        self.names = list(features)
        parts = pd.Series(list(features.values()))
        self.collectors: dict[str, tuple[Collector, slice]] = {}
        for part in parts.unique():
            at = np.flatnonzero(parts == part)
            columns = slice(int(at[0]), int(at[-1]) + 1)
            self.collectors[part] = table.collector(columns), columns
        self.n_objects = np.zeros(len(sites.wells), dtype=np.int64)
        self.lost: list[pd.DataFrame] = []
        self.absent: dict[str, int] = {}
        self.how: set[str] = set()
        self.n_read = 0

    def read(self, order: list[tuple[int, NDArray[np.intp]]]) -> None:
        """Read every run; a well is finished with the last run that has an image of it."""
        for run, ending in track(order, "read cells"):
            self._run(self.runs[run], run, ending)
            self.n_read += 1
        for collector, _ in self.collectors.values():
            collector.finish()
        for how in sorted(self.how - {""}):
            log.info("read cells: joined %s", how)

    def dropped(self) -> pd.DataFrame:
        """List objects that are no part of a whole cell, and features that some files lack."""
        tables = [
            dropped(
                STAGE, "feature", self.absent, [f"absent in {n} of {self.n_read} runs" for n in self.absent.values()]
            )
        ]
        if self.lost:
            lost = pd.concat(self.lost, ignore_index=True)
            for name, group in lost.groupby(["plate", "part", "why"], sort=False):
                plate, part, why = map(str, name)  # pyright: ignore[reportGeneralTypeIssues]
                wells = group.groupby("well")["n"].sum()
                shown = some([f"{w}: {n}" for w, n in wells.items() if w]).replace("'", "")
                reason = f"{wells.sum():,} objects {why}" + (f" ({shown})" if shown else "")
                tables.append(dropped(STAGE, "cell", [f"{plate} {part}".strip()], reason))
        return pd.concat(tables, ignore_index=True)

    def _run(self, run: Run, number: int, ending: NDArray[np.intp]) -> None:
        images = self.sites.of(number)
        opened = {part: run.open(part, self._asked(run, part)) for part in run.parts}
        keys = {part: _keys(run, part, opened[part], images) for part in opened}
        well_of = np.append(images["code"].to_numpy(), -1)  # -1 twice: unknown image, or not wanted
        rows, how = join_objects({part or "Cells": k for part, k in keys.items()})
        rows = {part: rows[part or "Cells"] for part in opened}
        self.how.add(how)
        first = next(iter(opened))
        wells = well_of[keys[first]["image"].to_numpy()[rows[first]]]
        for part, found in keys.items():
            self._account(run, part, found, rows[part], well_of)
        wanted = wells >= 0
        wells, rows = wells[wanted], {part: r[wanted] for part, r in rows.items()}
        self.table.count(wells)
        for part, objects in opened.items():
            if part in self.collectors:
                self._stream(run, part, objects, rows[part], wells, ending)

    def _asked(self, run: Run, part: str) -> list[str]:
        """Columns of the features of a part, as they may be called in its table, in order."""
        if part not in self.collectors:
            return []
        prefix = run.prefix(part)
        return [
            name for f in self.names[self.collectors[part][1]] for name in dict.fromkeys((f, f.removeprefix(prefix)))
        ]

    def _account(
        self, run: Run, part: str, keys: pd.DataFrame, used: NDArray[np.intp], well_of: NDArray[np.intp]
    ) -> None:
        """Count objects, and those that are left out."""
        image = keys["image"].to_numpy()
        wells = well_of[image]
        counted = "Cells" if "Cells" in run.parts else run.parts[0]
        if part == counted:
            self.n_objects += np.bincount(wells[wells >= 0], minlength=len(self.n_objects))
        n_unknown = int((image < 0).sum())
        if n_unknown:
            why = f"of images that the Image table of '{run.name}' does not have"
            self.lost.append(pd.DataFrame({"plate": [""], "part": part, "well": "", "n": n_unknown, "why": why}))
        left = np.ones(len(keys), dtype=bool)
        left[used] = False
        codes, n = np.unique(wells[left & (wells >= 0)], return_counts=True)
        place = self.sites.wells.iloc[codes]
        why = "without the other parts of their cell"
        frame = {"plate": place["Metadata_Plate"], "part": part, "well": place["Metadata_Well"], "n": n, "why": why}
        self.lost.append(pd.DataFrame(frame))

    def _stream(
        self, run: Run, part: str, objects: Objects, rows: NDArray[np.intp], wells: NDArray[np.intp],
        ending: NDArray[np.intp],
    ) -> None:  # fmt: skip
        """Send the features of a table to its collector; close wells after their last row."""
        collector, columns = self.collectors[part]
        names = self.names[columns]
        column_of = _named(run, part, objects.columns)
        there = [j for j, name in enumerate(names) if name in column_of]
        for name in names if len(there) < len(names) else ():
            if name not in column_of:
                self.absent[name] = self.absent.get(name, 0) + 1
        order = np.argsort(rows, kind="stable")
        rows, wells = rows[order], wells[order]
        last = np.full(self.table.X.shape[0], -1)
        last[wells] = rows  # in order: the last row stays
        ending = ending[np.argsort(last[ending], kind="stable")]
        ends, done, start = last[ending], 0, 0
        blocks = objects.blocks([column_of[names[j]] for j in there])
        for block in track(blocks, f"read {part or 'objects'} of '{run.name}'"):
            left, right = np.searchsorted(rows, [start, start + len(block)])
            taken = block[rows[left:right] - start]
            if len(there) < len(names):
                wide = np.full((len(taken), len(names)), np.nan, dtype=np.float32)
                wide[:, there] = taken
                taken = wide
            collector.add(wells[left:right], taken)
            start += len(block)
            until = int(np.searchsorted(ends, start))
            collector.close(ending[done:until])
            done = max(done, until)
        if len(rows) and rows[-1] >= start:
            raise FileError(f"'{objects.path}' changed while it was read: it has {start} rows now. Run again.")


def _keys(run: Run, part: str, objects: Objects, images: pd.DataFrame) -> pd.DataFrame:
    """Image, object and parents of each row of a table, as numbers."""
    known = {c.lower(): c for c in objects.columns}
    prefix = run.prefix(part).lower()
    number = next(
        (known[n] for n in ("objectnumber", f"{prefix}number_object_number", "number_object_number") if n in known),
        None,
    )
    if number is None:
        number = next((c for c in objects.columns if c.endswith("_Number_Object_Number")), None)
    table = [known["tablenumber"]] if run.has_table_number and "tablenumber" in known else []
    if "imagenumber" not in known or number is None:
        raise ColumnError(
            f"'{objects.path}' ({part or 'objects'}) has no ImageNumber or ObjectNumber, by which CellProfiler's "
            f"tables are joined. It has {some(objects.columns, 6)}. Export the table again with these columns, and "
            "check what separates them."
        )
    parents = {}
    for other in run.parts:
        short = f"parent_{run.prefix(other).rstrip('_')}".lower()
        column = known.get(short) or known.get(prefix + short)
        if other != part and column:
            parents[f"parent_{other}"] = column
    text = objects.texts([*table, known["imagenumber"], number, *parents.values()])
    key = image_key(text[table[0]] if table else None, text[known["imagenumber"]])
    index = pd.Index(images["key"])
    out = pd.DataFrame({"image": index.get_indexer(pd.Index(key))}).astype(np.int64)
    for name, column in {"object": number, **parents}.items():
        values = pd.to_numeric(text[column].replace("", "0"), errors="coerce")
        whole = (values % 1 == 0) & (values.abs() < 2**53)
        if not whole.all():
            odd = some(text[column][~whole].unique(), 3)
            raise ColumnError(
                f"'{objects.path}': column '{column}' holds {odd}. Expected whole numbers. Make the file again, or "
                "leave its folder out."
            )
        out[name] = values.astype(np.int64).to_numpy()
    again = out["image"].ge(0) & out.duplicated(["image", "object"], keep=False)
    if again.to_numpy().any():
        first = text[again.to_numpy()].iloc[0]
        raise ColumnError(
            f"'{objects.path}' ({part or 'objects'}) has {int(again.sum())} rows that share image and object number, "
            f"such as ImageNumber {first[known['imagenumber']]}, ObjectNumber {first[number]}. Tables of several runs "
            "were put together: keep them apart, or number the runs in a column TableNumber."
        )
    return out
