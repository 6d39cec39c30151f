"""The step `images`: from the images of a screen to one table of wells, plate by plate."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from phenohit.config import Config, Step
from phenohit.data.dropped import dropped
from phenohit.data.views import Views
from phenohit.errors import ConfigError
from phenohit.files import read_json, read_table, write_table
from phenohit.imaging import ImageSource
from phenohit.runs import slug
from phenohit.study import Study
from phenohit.viewing import store_folder
from phenohit.workers import Workers

__all__ = ["WELLS", "read_images", "with_images"]

log = logging.getLogger("phenohit")

WELLS = "images/wells.parquet"
# Where a cell lies in its view is layout, not biology; it stays in cells.parquet.
_POSITION = ("_Location_", "_AreaShape_Center_", "_AreaShape_BoundingBox")
_ROWS = 20_000  # cells read at a time


def with_images(config: Config) -> Config:
    """Return a config whose profiles are the wells that the step `images` writes, unless profiles are named.

    Raises
    ------
    ConfigError
        If profiles are named and the images would serve nothing.

    Notes
    -----
    Where profiles are named too, they are used as they are and the images are for models that see views.
    What is measured of images is raw: where no steps are named, every plate is normalised (median, MAD) to its
    negative controls, or to all its wells where none are named.
    """
    if not config.images.path:
        return config
    path = str(Path(config.out) / WELLS)
    given = config.profiles
    if given.path and not given.path.endswith(WELLS):  # a run's own config.yaml names its wells
        if not config.images.store:
            raise ConfigError(
                f"Both images.path and profiles.path ('{given.path}') are set. Leave one of them empty; or set "
                "images.store: true to have models that see views beside those on the profiles."
            )
        return config
    steps = given.steps or [Step("normalise", reference="negcon" if given.controls else "plate")]
    return replace(config, profiles=replace(given, path=path, format="table", steps=steps))


def read_images(study: Study) -> None:
    """Do the step `images`, if there are any: find views, measure every plate, make wells."""
    source, run = study.config.images, study.run
    if not source.path:
        return
    measured = study.config.profiles.path.endswith(WELLS)
    if not measured and store_folder(study) == Path(source.path):
        return  # a store is there, and so are the profiles
    try:
        from phenohit.images.layouts import find_views
        from phenohit.images.plate import OUTPUTS
        from phenohit.images.state import files_state
    except ImportError as error:
        raise ConfigError(
            f"Images need more libraries ({error}). Install them: pip install 'phenohit[images]'"
        ) from error

    views, lost = find_views(source)
    folder = study.folder("images")
    views.save(folder / "views.parquet")
    write_table(run.path("images", "views_left_out.csv"), lost)
    if not measured:
        _store(study, views)
        left_out = [_listed(run.path("images", f"{name}_left_out.csv")) for name in ("views", "store")]
        write_table(run.path("dropped", "images.csv"), pd.concat(left_out, ignore_index=True))
        return
    _check_places(study, views)
    chosen = asdict(replace(source, plates=[], storage={}))
    workers = Workers(study.config.workers, study.jobs)
    names = []
    try:
        for plate in views.plates:
            own = views.of_plate(plate)
            state = files_state(own, source.storage, _masks(own, source))
            names.append(f"images/plate/{plate}")
            where = f"images/{slug(plate)}"
            run.step(
                names[-1],
                partial(_measure, study, own, study.folder(where).resolve(), state, workers.finish),
                settings=[chosen, study.config.seed, own.rows.to_dict("list"), own.files.to_dict("list")],
                inputs={f"images of {plate}": state},
                outputs=[f"{where}/{name}" for name in OUTPUTS],
            )
    finally:
        workers.close()
    if source.store:
        _store(study, views)
    run.step(
        "images",
        partial(_wells, study, views),
        settings=[study.config.profiles.cells, study.config.profiles.min_cells, source.quality.min_views],
        after=tuple(names),
        outputs=[WELLS, "dropped/images.csv"],
    )


def _masks(views: Views, source: ImageSource) -> list[str]:
    """Return the files of the masks of some views."""
    from phenohit.images.objects import mask_files

    if not source.segment.masks:
        return []
    return [path for i in range(len(views)) for path in mask_files(views.take([i]), source.segment).values()]


def _check_places(study: Study, views: Views) -> None:
    """Refuse plate maps, joined tables and controls that do not fit the images now, not after hours of measuring."""
    from phenohit.data.finish import finish_rows

    rows = _first_rows(views).assign(Metadata_cell_count="0", Metadata_n_views="0")
    finish_rows(study.config.profiles, rows.astype(str))


def _first_rows(views: Views) -> pd.DataFrame:
    """Return one row per well, without what differs between its views."""
    varying = {"Metadata_Site", *(c for c in views.rows if c.startswith("Metadata_Illum_"))}
    rows = views.rows[[c for c in views.rows if c not in varying]]
    return rows.drop_duplicates(["Metadata_Plate", "Metadata_Well"], ignore_index=True)


def _measure(study: Study, views: Views, folder: Path, state: str, do: Callable[..., Any]) -> dict[str, Any]:
    from phenohit.images.plate import measure_plate

    return measure_plate(views, study.config.images, folder, seed=study.config.seed, state=state, do=do)


def _store(study: Study, views: Views) -> None:
    """Write views as uint8 for image models; plates that are there already are left as they are."""
    from phenohit.images.store import write_store

    if store_folder(study) == Path(study.config.images.path):
        return  # the images came from a store
    lost = write_store(views, study.config.images, store_folder(study), study.jobs)
    write_table(study.run.path("images", "store_left_out.csv"), lost)


def _wells(study: Study, views: Views) -> dict[str, Any]:
    """Summarise the cells of every well; wells with too few views or cells are listed."""
    from phenohit.profiles.cells import WellTable

    config, run = study.config, study.run
    place = ["Metadata_Plate", "Metadata_Well"]
    rows = _first_rows(views)
    folders = {plate: run.folder / "images" / slug(plate) for plate in views.plates}
    measured = pd.concat([read_table(f / "views.parquet")[0] for f in folders.values()], ignore_index=True)
    fit = measured[measured["cells"].notna()].groupby(place)["cells"].agg(["size", "sum"])
    fit = fit.reindex(pd.MultiIndex.from_frame(rows[place])).fillna(0)
    enough = fit["size"].to_numpy() >= max(config.images.quality.min_views, 1)
    first = next(iter(folders.values())) / "cells.parquet"
    features = [f for f in pq.read_schema(first).names if not f.startswith("Metadata_")]
    features = [f for f in features if not any(part in f for part in _POSITION)]
    table = WellTable(len(rows), features, config.profiles.cells)
    index = pd.MultiIndex.from_frame(rows[place])
    for folder in folders.values():
        _summarise(table, folder / "cells.parquet", features, index, enough)
    few = rows["Metadata_Plate"].str.cat(rows["Metadata_Well"], sep=" ").to_numpy(object)[~enough]
    least = f"fewer than {max(config.images.quality.min_views, 1)} of its views could be measured"
    rows = rows.assign(
        Metadata_cell_count=[f"{n:.6g}" for n in (fit["sum"] / fit["size"].clip(lower=1)).to_numpy()],
        Metadata_n_views=fit["size"].astype(int).astype(str).to_numpy(),
    )
    table.n_cells[~enough] = 0
    profiles, lost = table.finish(rows.astype(str), config.profiles.min_cells)
    lost = lost[~lost["id"].isin(few)]
    profiles.save(run.path(WELLS))
    lists = [_listed(f / "dropped.csv") for f in folders.values()]
    for name in ("views", "store"):
        path = run.path("images", f"{name}_left_out.csv")
        lists += [_listed(path)] if path.exists() else []
    lists += [dropped("measure images", "well", few, least), lost]
    write_table(run.path("dropped", "images.csv"), pd.concat(lists, ignore_index=True))
    cells = sum(read_json(f / "plate.json")["cells"] for f in folders.values())
    return {"views": len(views), "wells": len(profiles), "cells": cells, "features": len(profiles.features)}


def _listed(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _summarise(table: Any, path: Path, features: list[str], index: pd.MultiIndex, enough: np.ndarray) -> None:
    """Add the cells of one plate, block by block."""
    collector = table.collector()
    for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=[*index.names, *features]):
        block = batch.to_pandas()
        at = index.get_indexer(pd.MultiIndex.from_frame(block[list(index.names)].astype(str)))
        keep = enough[at]
        at = at[keep]
        table.count(at)
        collector.add(at, np.ascontiguousarray(block.loc[keep, features].to_numpy(np.float32)))
    collector.finish()
