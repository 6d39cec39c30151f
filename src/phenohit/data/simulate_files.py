"""The files of the simulated screen; every one says that it is simulated."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from phenohit.data.profiles import Profiles
from phenohit.data.simulate_assays import Assays
from phenohit.data.simulate_layout import POSITIVE_CONTROLS, feature_names
from phenohit.data.simulate_settings import SimulateSettings
from phenohit.files import write_table, write_text

__all__ = ["to_profiles", "write_screen"]


def to_profiles(
    settings: SimulateSettings,
    ids: list[str],
    wells: pd.DataFrame,
    X: NDArray[np.float32],
    cell_count: NDArray[np.int64],
) -> Profiles:
    """Put features and the metadata of wells together, in the column style of the field.

    Parameters
    ----------
    settings : SimulateSettings
    ids : list of str, length N
        Ids of the compounds.
    wells : DataFrame, P rows
        From `plan_wells`.
    X : float32 array, shape (P, F)
    cell_count : int array, shape (P,)
    """
    names = np.array([*ids, *POSITIVE_CONTROLS, "DMSO"], dtype=object)  # DMSO is -1: the last
    rows = pd.DataFrame(
        {
            "Metadata_Plate": [f"SIM-P{plate + 1:03d}" for plate in wells["plate"]],
            "Metadata_Well": wells["well"],
            "Metadata_Batch": [f"SIM-B{batch + 1}" for batch in wells["batch"]],
            "Metadata_Replicate": [str(replicate + 1) for replicate in wells["replicate"]],
            "Metadata_compound_id": names[wells["compound"].to_numpy()],
            "Metadata_pert_type": wells["pert_type"],
            "Metadata_concentration_uM": [f"{dose:g}" for dose in wells["dose_uM"]],
            "Metadata_cell_count": [str(count) for count in cell_count],
        },
        dtype=str,
    )
    return Profiles(X, rows, feature_names(settings), (f"{settings.normalise}[plate, negcon]",))


def write_screen(
    folder: Path,
    settings: SimulateSettings,
    *,
    library: pd.DataFrame,
    profiles: Profiles,
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
    profiles : Profiles of P wells
    assays : Assays of N compounds
    measured : DataFrame
        From `measure_assays`.
    truth : DataFrame, T rows
        From `true_auroc`.

    Raises
    ------
    FileError
        If the folder cannot be written.
    """
    ids = library["compound_id"].to_numpy()
    names = assays.table["assay"].to_numpy(dtype=object)
    activities = pd.DataFrame(
        {
            "compound_id": ids[measured["compound"].to_numpy()],
            "assay": names[measured["column"].to_numpy()],
            "value": [f"{value:.2f}" for value in measured["value"]],
        }
    )
    answers = pd.DataFrame(np.round(assays.value, 3), columns=list(names))
    answers.insert(0, "compound_id", ids)
    structures = ["compound_id", "smiles", "series", "is_pains", "is_salt", "is_twin"]
    profiles.save(folder / "simulated_profiles.parquet")
    write_table(folder / "simulated_structures.csv", library[structures])
    write_table(folder / "simulated_activities.csv", activities)
    write_table(folder / "simulated_answers.csv", answers)
    write_table(folder / "simulated_truth.csv", truth)
    write_text(folder / "simulated.yaml", _yaml(folder, settings))
    write_text(folder / "README.txt", _readme(settings, truth))


def _yaml(folder: Path, settings: SimulateSettings) -> str:
    """Return the settings of a run over the files in `folder`, with paths as the caller gave the folder."""
    n_hits = settings.n_hits or max(1, min(342, settings.n_compounds // 20))
    config = {
        "name": f"SIMULATED screen: {settings.n_compounds:,} compounds, seed {settings.seed}",
        "out": (folder / "run").as_posix(),
        "simulated": True,
        "profiles": {"path": (folder / "simulated_profiles.parquet").as_posix()},
        "structures": {
            "path": (folder / "simulated_structures.csv").as_posix(),
            "id": "compound_id",
            "smiles": "smiles",
        },
        "activities": [
            {
                "path": (folder / "simulated_activities.csv").as_posix(),
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
        normalise="mean and SD" if settings.normalise == "standard" else "median and MAD",
        threshold=settings.threshold,
        assays="\n".join(lines),
        settings=values,
    )


_README = """\
SIMULATED SCREEN: nothing in this folder was measured
=====================================================

simulated_profiles.parquet   one row per well: Metadata_* columns and features. Features are already scaled,
                             plate by plate, to the {normalise} of the DMSO wells (the usual 'normalised'
                             level). Position effects and what is left of plate and batch effects are in them.
simulated_structures.csv     compound_id and smiles; also the series each compound was made for (unique to a
                             singleton), and whether it is a deliberate PAINS member, a salt, or the mirror
                             image of another compound.
simulated_activities.csv     long: compound_id, assay, value (pIC50). Most pairs are not measured, some twice.
simulated_truth.csv          per assay: kind, what can see it, and ceiling_auroc, the AUROC of the true value
                             before noise on the labels given: what the data named under seen_by can reach at
                             best.
simulated_answers.csv        true pIC50 of every compound in every assay, measured or not: to score hit lists.
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
