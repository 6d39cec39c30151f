"""The files of the simulated screen; every one says that it is simulated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from phenohit.data.profiles import write_profiles
from phenohit.data.simulate_assays import Assays
from phenohit.data.simulate_layout import POSITIVE_CONTROLS, barcodes, feature_names
from phenohit.data.simulate_settings import SimulateSettings
from phenohit.files import write_table, write_text

__all__ = ["write_platemaps", "write_screen", "write_wells"]

CHANNELS = {3: ("DNA", "ER", "AGP"), 5: ("DNA", "ER", "RNA", "AGP", "Mito")}
"""Channels of simulated images by their number; file numbers count from 1."""

_PLATES = 8  # plates per row group: a plate can be read without reading much else
_ANSWERS = 20_000_000  # true values written at most; beyond, those of five assays of every kind
_TEXT_ROWS = 1_000_000


def write_wells(
    path: Path,
    settings: SimulateSettings,
    ids: list[str],
    wells: pd.DataFrame,
    plates: Iterable[tuple[slice, NDArray[np.float32], NDArray[np.int64]]],
) -> list[str]:
    """Write features and metadata of wells in the column style of the field, some plates at a time.

    Parameters
    ----------
    path : Path
    settings : SimulateSettings
    ids : list of str, length N
        Ids of the compounds.
    wells : DataFrame, P rows
        From `plan_wells`.
    plates : iterable
        From `measure_plates`.

    Returns
    -------
    list of str
        Names of the features.
    """
    names = np.array([*ids, *POSITIVE_CONTROLS, "DMSO"], dtype=object)  # DMSO is -1: the last
    features = feature_names(settings)
    rows = pd.DataFrame(
        {
            "Metadata_Plate": barcodes(wells),
            "Metadata_Well": wells["well"],
            "Metadata_Batch": "SIM-B" + (wells["batch"] + 1).astype(str),
            "Metadata_Replicate": (wells["replicate"] + 1).astype(str),
            "Metadata_compound_id": names[wells["compound"].to_numpy()],
            "Metadata_pert_type": wells["pert_type"],
            "Metadata_concentration_uM": [f"{dose:g}" for dose in wells["dose_uM"]],
            "Metadata_cell_count": "",
        },
        dtype=str,
    )
    history = (f"{settings.normalise}[plate, negcon]",)
    held: list[tuple[pd.DataFrame, NDArray[np.float32]]] = []
    with write_profiles(path, list(rows.columns), features, history) as write:

        def flush() -> None:
            write(pd.concat([part for part, _ in held]), np.concatenate([X for _, X in held]))
            held.clear()

        for where, X, cell_count in plates:
            held.append((rows.iloc[where].assign(Metadata_cell_count=cell_count.astype(str)), X))
            if len(held) == _PLATES:
                flush()
        if held:
            flush()
    return features


def write_platemaps(folder: Path, settings: SimulateSettings, ids: list[str], wells: pd.DataFrame) -> None:
    """Write ``barcode_platemap.csv`` and one map per layout, as the Cell Painting Gallery has them.

    Parameters
    ----------
    folder : Path
        Made if absent.
    settings : SimulateSettings
    ids : list of str, length N
        Ids of the compounds.
    wells : DataFrame, P rows
        From `plan_wells`.
    """
    names = np.array([*ids, *POSITIVE_CONTROLS, "DMSO"], dtype=object)  # DMSO is -1: the last
    layout = "SIM-M" + (wells["plate"] // settings.n_replicates + 1).astype(str).str.zfill(3)  # replicates are copies
    table = pd.DataFrame({"Assay_Plate_Barcode": barcodes(wells), "Plate_Map_Name": layout}).drop_duplicates()
    write_table(folder / "barcode_platemap.csv", table)
    maps = pd.DataFrame(
        {
            "plate_map_name": layout,
            "well_position": wells["well"],
            "compound_id": names[wells["compound"].to_numpy()],
            "pert_type": wells["pert_type"],
            "concentration_uM": [f"{dose:g}" for dose in wells["dose_uM"]],
            "Metadata_Batch": "SIM-B" + (wells["batch"] + 1).astype(str),
        }
    )
    for name, one in maps[wells["replicate"] == 0].groupby("plate_map_name"):
        write_text(folder / "platemap" / f"{name}.txt", one.to_csv(sep="\t", index=False, lineterminator="\n"))


def write_screen(
    folder: Path,
    settings: SimulateSettings,
    *,
    library: pd.DataFrame,
    assays: Assays,
    measured: pd.DataFrame,
    truth: pd.DataFrame,
) -> None:
    """Write every file of the screen into `folder`.

    Parameters
    ----------
    folder : Path
        Made if absent. The paths in the settings file begin with it as given.
    settings : SimulateSettings
    library : DataFrame, N rows
        From `build_library`, with a column ``compound_id``.
    assays : Assays of N compounds
    measured : DataFrame
        From `measure_assays`.
    truth : DataFrame, T rows
        From `measure_assays`.

    Raises
    ------
    FileError
        If the folder cannot be written.
    """
    ids = library["compound_id"].to_numpy()
    names = assays.table["assay"].to_numpy(dtype=object)
    activities = pd.DataFrame(
        {
            "compound_id": pd.Categorical.from_codes(measured["compound"], categories=ids),
            "assay": pd.Categorical.from_codes(measured["column"], categories=names),
            "value": measured["value"].to_numpy(np.float64).round(2),
        }
    )
    # True values of every compound are for scoring hit lists; all of a large screen would be larger than the screen.
    shown = range(len(assays)) if len(ids) * len(assays) <= _ANSWERS else _first_of_each_kind(assays.table)
    answers = pd.DataFrame({names[j]: np.round(assays.value(j), 3) for j in shown})
    answers.insert(0, "compound_id", ids)
    structures = ["compound_id", "smiles", "series", "is_pains", "is_salt", "is_twin"]
    write_table(folder / "simulated_structures.csv", library[structures])
    write_table(folder / _activities(len(activities)), activities)
    write_table(folder / "simulated_answers.csv", answers)
    write_table(folder / "simulated_truth.csv", truth)
    write_text(folder / "simulated.yaml", _yaml(folder, settings, len(activities)))
    write_text(folder / "README.txt", _readme(settings, truth))


def _first_of_each_kind(table: pd.DataFrame) -> list[int]:
    """Return five assays of every kind."""
    return [int(i) for i in table.groupby("kind", sort=False).head(5).index]


def _activities(n: int) -> str:
    """Return the file of the measurements: text that anyone can open, Parquet where it would be huge."""
    return "simulated_activities.csv" if n <= _TEXT_ROWS else "simulated_activities.parquet"


def _yaml(folder: Path, settings: SimulateSettings, n_measurements: int) -> str:
    """Return the settings of a run over the files in `folder`, with paths as the caller gave the folder."""
    n_hits = settings.n_hits or max(1, min(342, settings.n_compounds // 20))
    config = {
        "name": f"SIMULATED screen: {settings.n_compounds:,} compounds, seed {settings.seed}",
        "out": (folder / "run").as_posix(),
        "simulated": True,
        **_measured(folder, settings),
        "structures": {
            "path": (folder / "simulated_structures.csv").as_posix(),
            "id": "compound_id",
            "smiles": "smiles",
        },
        "activities": [
            {
                "path": (folder / _activities(n_measurements)).as_posix(),
                "format": "long",
                "id": "compound_id",
                "assay": "assay",
                "value": "value",
                "kind": "value",
                "thresholds": [settings.threshold],
            }
        ],
        "labels": {"min_active": 10, "min_inactive": 10},
        "splits": [{"kind": "series", "folds": 5}],
        "models": {"forest": {"n_trees": settings.n_trees}, "network": {}},
        "hits": {"n": n_hits},
        "seed": settings.seed,
    }
    title = "# SIMULATED data: nothing here was measured. Paths are taken from the folder where you run phenohit.\n"
    return title + yaml.safe_dump(config, sort_keys=False)


def _measured(folder: Path, settings: SimulateSettings) -> dict[str, object]:
    """Return the part of the settings that says where profiles come from: a table, or images."""
    if not settings.images:
        return {"profiles": {"path": (folder / "simulated_profiles.parquet").as_posix()}}
    return {
        "images": {
            "path": (folder / "simulated_images").as_posix(),
            "layout": "pattern",
            "pattern": "{plate}/{well}_s{site}_w{channel}.tif",
            "channels": {name: str(i) for i, name in enumerate(CHANNELS[settings.image_channels], start=1)},
            "segment": {"nuclei": "DNA", "cells": "ER"},
        },
        "profiles": {
            "platemaps": (folder / "simulated_platemaps").as_posix(),
            "steps": [{"step": "normalise"}],
        },
    }


def _readme(settings: SimulateSettings, truth: pd.DataFrame) -> str:
    """Say what the files are, how they were made and what the right answer is."""
    width = max([len(name) for name in truth["assay"]], default=0)
    lines = [
        f"{row.assay:<{width}}  best reachable AUROC {row.ceiling_auroc:.2f}  active {row.active_share:4.0%}  "
        f"seen by {row.seen_by}. {row.description}"
        for row in truth.itertuples()
    ]
    values = "\n".join(f"{name}: {value}" for name, value in asdict(settings).items())
    return _README.format(
        profiles=_IMAGES
        if settings.images
        else _PROFILES.format(normalise="mean and SD" if settings.normalise == "standard" else "median and MAD"),
        threshold=settings.threshold,
        assays="\n".join(lines),
        settings=values,
    )


_PROFILES = """\
simulated_profiles.parquet   one row per well: Metadata_* columns and features. Features are already scaled,
                             plate by plate, to the {normalise} of the DMSO wells (the usual 'normalised'
                             level). Position effects and what is left of plate and batch effects are in them."""

_IMAGES = """\
simulated_images/            one TIFF (16 bits) per plate, well, site and channel. Cells, lighting, noise and faults
                             are drawn by a program; {plate}/{well}_s{site}_w{channel}.tif
simulated_images.csv         per view: nuclei drawn, how many of them the border cuts, the fault planted (none,
                             blurred, saturated, debris, empty, dark) and its channel, the share of saturated
                             pixels in the worst channel, and by how much the darkest pixel of each channel is lit
                             less than the brightest. A view without a fault may have no nuclei: the compound
                             killed the cells.
simulated_nuclei.parquet     per nucleus drawn: its centre x, y and area in pixels, the area of its cell, whether
                             the border cuts it and whether it touches another.
simulated_platemaps/         what is in each well: barcode_platemap.csv and the maps it names."""

_README = """\
SIMULATED SCREEN: nothing in this folder was measured
=====================================================

{profiles}
simulated_structures.csv     compound_id and smiles; also the series each compound was made for (unique to a
                             singleton), and whether it is a deliberate PAINS member, a salt, or the mirror
                             image of another compound.
simulated_activities.csv     long: compound_id, assay, value (pIC50). Most pairs are not measured, some twice.
                             (simulated_activities.parquet where there are more than a million.)
simulated_truth.csv          per assay: kind, what can see it, and ceiling_auroc, the AUROC of the true value
                             before noise on the labels given: what the data named under seen_by can reach at
                             best.
simulated_answers.csv        true pIC50 of every compound in every assay, measured or not: to score hit lists.
                             (In a screen of more than 20 million pairs: in five assays of every kind.)
simulated.yaml               settings for: phenohit run simulated.yaml

Active means pIC50 >= {threshold:g}.

Kinds of assays
  morphology    the mechanisms that change the profile; structures tell little across series
  invisible     nothing tells: every honest method is at chance
  cytotoxicity  cell death alone: the cell count tells as much as the whole profile
  chemistry     functional groups that occur across series: structures tell, profiles do not

{assays}

Settings
{settings}
"""
