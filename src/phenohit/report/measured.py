"""Read what the step `images` left of every plate; one whose files are absent or damaged is not measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from phenohit.errors import FileError
from phenohit.files import open_parquet, read_json, read_table
from phenohit.report.tables import number, read_csv

__all__ = ["MeasuredPlate", "image_settings", "measured_plates"]

FOCUS = "ImageQuality_PowerLogLogSlope_"
_FAILURES = ["family", "compartment", "channel", "reason", "cells"]


@dataclass(frozen=True, eq=False)
class MeasuredPlate:
    """One plate of images.

    Attributes
    ----------
    name : str
    folder : Path or None
        Below ``images``; None where there is none for this plate.
    n_views : int
        Views that were found.
    summary : dict
        Of ``plate.json``; empty for a plate that is not measured.
    views : DataFrame
        ``view, cells`` and, of the channel of nuclei, ``focus``; NaN where not known.
    flags : DataFrame
        ``view, rule, rejected`` (bool), one row per view and rule.
    failures : DataFrame
        ``family, compartment, channel, reason`` and ``cells`` (int).
    trouble : str
        Why it is not measured; '' if it is.
    """

    name: str
    folder: Path | None
    n_views: int
    summary: dict[str, Any] = field(default_factory=dict)
    views: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["view", "cells", "focus"]))
    flags: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["view", "rule", "rejected"]))
    failures: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=_FAILURES))
    trouble: str = ""


def image_settings(folder: Path) -> dict[str, Any]:
    """Return ``images`` of the run's settings; empty where they cannot be read."""
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        found = settings.get("images")
    except (OSError, yaml.YAMLError, AttributeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def measured_plates(folder: Path) -> list[MeasuredPlate]:
    """Read every plate of images, in the order of their index.

    Parameters
    ----------
    folder : Path
        The run folder; reads ``images/views.parquet`` and ``images/*/``.

    Returns
    -------
    list of MeasuredPlate
        Empty where the run has no images.
    """
    segmenting = image_settings(folder).get("segment")
    nuclei = str((segmenting if isinstance(segmenting, dict) else {}).get("nuclei") or "DNA")
    found, counted = {}, {}
    for views in sorted((folder / "images").glob("*/views.parquet")):
        try:
            found[_plate_of(views)] = views.parent
        except FileError:
            continue  # whose it is cannot be told; its plate is then one without a folder
    try:
        index, _ = read_table(folder / "images" / "views.parquet", ["Metadata_Plate"])
        counted = index["Metadata_Plate"].astype(str).value_counts(sort=False).to_dict()
    except FileError:
        pass  # the folders tell
    names = [str(name) for name in dict.fromkeys([*counted, *found])]
    return [_read(name, found.get(name), int(counted.get(name, 0)), nuclei) for name in names]


def _plate_of(views: Path) -> str:
    """Name of the plate; rows of rejected views do not state it."""
    with open_parquet(views) as file:
        column = "Metadata_Plate" if "Metadata_Plate" in file.schema_arrow.names else None
        named = file.read(columns=[column]).column(0).drop_null() if column else []
    if not len(named):
        raise FileError(f"'{views}' names no plate.")
    return str(named[0])


def _read(name: str, folder: Path | None, n_views: int, nuclei: str) -> MeasuredPlate:
    if folder is None:
        return MeasuredPlate(name, None, n_views, trouble="it has no table of views")
    try:
        summary = read_json(folder / "plate.json")
        if not isinstance(summary, dict) or number(summary.get("measured")) is None:
            raise FileError(f"'{folder / 'plate.json'}' does not say what was measured.")
        views = _views(folder / "views.parquet", nuclei)
        flags, failures = _flags(folder / "flags.csv"), _failures(folder / "failures.csv")
    except FileError:
        lacking = [f for f in ("plate.json", "flags.csv") if not (folder / f).is_file()]
        trouble = f"{lacking[0]} is missing" if lacking else "a file of it is damaged"
        return MeasuredPlate(name, folder, n_views, trouble=trouble)
    return MeasuredPlate(name, folder, int(number(summary.get("views")) or n_views), summary, views, flags, failures)


def _views(path: Path, nuclei: str) -> pd.DataFrame:
    with open_parquet(path) as file:
        known = set(file.schema_arrow.names)
    names = {"view": "view", "cells": "cells", FOCUS + nuclei: "focus"}
    table, _ = read_table(path, [column for column in names if column in known])
    table = table.rename(columns=names).reindex(columns=list(names.values()))
    return table.assign(**{c: pd.to_numeric(table[c], errors="coerce").astype(float) for c in ("cells", "focus")})


def _flags(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileError(f"'{path}' is missing.")
    table = read_csv(path).reindex(columns=["view", "rule", "rejected"]).astype(str)
    table["rejected"] = table["rejected"] == "True"
    return table.drop_duplicates(["view", "rule"], ignore_index=True)  # one rule may speak of several channels


def _failures(path: Path) -> pd.DataFrame:
    table = read_csv(path).reindex(columns=_FAILURES)
    return table.assign(cells=pd.to_numeric(table["cells"], errors="coerce").fillna(0).astype(int))
