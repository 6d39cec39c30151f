"""The images of a run as image models want them: a store of views, and which view belongs to which well or compound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phenohit.data.dropped import dropped
from phenohit.errors import ConfigError
from phenohit.files import hash_file, read_table, write_table
from phenohit.models import sees
from phenohit.runs import slug
from phenohit.study import Study

if TYPE_CHECKING:
    from phenohit.images.samples import ImageRows
    from phenohit.images.store import Store

__all__ = ["accepted_views", "image_rows", "join_images", "rejected_views", "store_folder"]


def store_folder(study: Study) -> Path:
    """Return the store of views that a run uses: the one it was given, or its own."""
    from phenohit.images.store import is_store

    given = study.config.images.path
    return Path(given) if "://" not in given and is_store(given) else study.run.folder / "images" / "store"


def rejected_views(images: Path) -> pd.DataFrame:
    """Return the views that quality control rejected: ``view`` (plate/well/site) and ``reason``.

    Parameters
    ----------
    images : path
        Folder ``images`` of a run.
    """
    tables = [pd.DataFrame({"view": [], "reason": []}, dtype=str)]
    for path in sorted(images.glob("*/flags.csv")):
        flags = pd.read_csv(path, dtype=str, keep_default_na=False)
        tables.append(flags.loc[flags["rejected"] == "True", ["view", "reason"]])
    return pd.concat(tables, ignore_index=True).drop_duplicates("view", ignore_index=True)


def image_rows(study: Study, kind: str) -> tuple[ImageRows, pd.DataFrame]:
    """Join views or crops to the rows of a run.

    Parameters
    ----------
    study : Study
    kind : {"views", "crops"}

    Returns
    -------
    data : ImageRows
        In the order of the run's profiles.
    lost : DataFrame
        Images without a row and rows without images (columns of `phenohit.data.dropped.dropped`).

    Raises
    ------
    ConfigError
        If there are no such images.
    """
    from phenohit.images.samples import crop_rows, view_rows
    from phenohit.images.store import open_store

    rows = study.rows.rows
    wells, _ = read_table(study.run.path("wells.parquet"))
    if kind == "crops":
        plates = sorted(set(wells["plate"].astype(str)))
        folders = {p: study.run.folder / "images" / slug(p) / "crops" for p in plates}
        there = {p: f for p, f in folders.items() if f.exists()}
        if not there:
            raise ConfigError("There are no crops of single cells: set images.measure.crops, e.g. to 96 pixels.")
        return crop_rows(rows, wells, there)
    store, rejected = accepted_views(open_store(store_folder(study)), study.run.folder / "images")
    data, lost = view_rows(rows, wells, store)
    return data, pd.concat([lost, rejected], ignore_index=True)


def accepted_views(store: Store, images: Path) -> tuple[Store, pd.DataFrame]:
    """Leave out the views of a store that quality control rejected, and list them with the reason.

    Parameters
    ----------
    store : Store
    images : path
        Folder ``images`` of the run whose views they are; without flags in it nothing is left out.
    """
    bad, names = rejected_views(images), store.views.names()
    kept = replace(store, views=store.views.take(~names.isin(bad["view"]).to_numpy()))
    gone = bad[bad["view"].isin(names)]
    return kept, dropped("join images", "view", gone["view"].tolist(), gone["reason"].tolist())


def join_images(study: Study) -> None:
    """Do the step `join`: check that the images that models are to see are there, and list what has no partner."""
    kinds = sorted({sees(model) for model in study.config.models} - {"profiles"})
    if kinds:
        study.run.step(
            "join",
            lambda: _join(study, kinds),
            settings=kinds,
            inputs={f"{kind} of the images": _state(study, kind) for kind in kinds},
            after=("data", *(["images"] if "images" in study.run.manifest["steps"] else [])),
            outputs=["dropped/join.csv"],
        )


def _state(study: Study, kind: str) -> str:
    """Return what changes whenever the images do."""
    if kind == "views":
        index = store_folder(study) / "views.parquet"
        return hash_file(index) if index.exists() else ""
    tables = sorted(study.run.folder.glob("images/*/crops/*.parquet"))
    return " ".join(hash_file(path) for path in tables)


def _join(study: Study, kinds: list[str]) -> dict[str, Any]:
    found, lists = {}, []
    for kind in kinds:
        data, lost = image_rows(study, kind)
        found[kind] = len(data.place)
        found[f"rows_with_{kind}"] = int((np.diff(data.start) > 0).sum())
        lists.append(lost)
        if not found[kind]:
            raise ConfigError(
                f"None of the {kind} belongs to a treated well: plates or wells are named otherwise in the images than "
                "in the profiles. See dropped/join.csv for the images' names."
            )
    write_table(study.run.path("dropped", "join.csv"), pd.concat(lists, ignore_index=True))
    return found
