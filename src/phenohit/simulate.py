"""A whole simulated screen in a folder: profiles, structures, activities, the truth, and settings to run it.

Chemistry comes from `phenohit.chem.library`, numbers from `phenohit.data.simulate*`; this file joins the two
and writes. Everything written says that it is simulated.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phenohit.data.simulate_settings import SimulateSettings

if TYPE_CHECKING:
    import pandas as pd

    from phenohit.data.profiles import Profiles
    from phenohit.data.simulate_assays import Assays

__all__ = ["SimulateSettings", "command", "simulate"]

_DEFAULTS = SimulateSettings()


def command(out: str = "simulated-screen", settings: SimulateSettings = _DEFAULTS) -> None:
    """Simulate a screen with known truth, ready for `phenohit run`.

    Parameters
    ----------
    out : str
        Folder to write into; made if absent.
    settings : SimulateSettings
        Size, noise and assays.
    """
    counts = simulate(Path(out), settings)
    print(
        f"Simulated {counts['compounds']:,} compounds in {counts['wells']:,} wells on {counts['plates']:,} plates, "
        f"{counts['features']:,} features, {counts['measurements']:,} measurements in {counts['assays']:,} assays.\n"
        f"Next: phenohit run {Path(out) / 'simulated.yaml'}"
    )


def simulate(folder: Path, settings: SimulateSettings = _DEFAULTS) -> dict[str, int]:
    """Simulate a screen and write it.

    Parameters
    ----------
    folder : Path
        Made if absent; files of an earlier simulation are replaced.
    settings : SimulateSettings

    Returns
    -------
    dict of str to int
        Counts: compounds, series (of two or more), singletons, wells, plates, batches, features, assays,
        measurements.

    Raises
    ------
    ConfigError
        If more compounds or features are wanted than can be made.
    FileError
        If the folder cannot be written.

    Notes
    -----
    Writes ``simulated_profiles.parquet`` (wells, normalised to the DMSO wells of each plate),
    ``simulated_structures.csv``, ``simulated_activities.csv`` (long), ``simulated_truth.csv`` (per assay:
    kind and the best reachable AUROC), ``simulated_answers.csv`` (true pIC50 of every compound in every
    assay, measured or not), ``simulated.yaml`` and ``README.txt``.
    """
    import numpy as np

    from phenohit.chem.library import GROUPS, build_library, functional_groups
    from phenohit.data.simulate import draw_latents, measure_wells
    from phenohit.data.simulate_assays import draw_assays, measure_assays, true_auroc
    from phenohit.data.simulate_layout import plan_wells
    from phenohit.files import write_table, write_text

    library = build_library(
        settings.n_compounds,
        seed=settings.seed,
        series_share=settings.series_share,
        pains_share=settings.pains_share,
        salt_share=settings.salt_share,
        stereo_share=settings.stereo_share,
    )
    # Ids in random order: neither the id nor the place on a plate may tell the series.
    shuffled = np.random.default_rng([settings.seed, 8]).permutation(len(library))
    library = library.iloc[shuffled].reset_index(drop=True)
    width = max(4, len(str(len(library))))
    library.insert(0, "compound_id", [f"SIM-{i:0{width}d}" for i in range(1, len(library) + 1)])
    groups, logp = functional_groups(library["parent"].tolist())
    latents = draw_latents(settings, library["series"].to_numpy(), library["core"].to_numpy())
    wells = plan_wells(settings, len(library))
    X, cell_count = measure_wells(settings, latents, wells)
    profiles = _profiles(settings, library["compound_id"].tolist(), wells, X, cell_count)
    assays = draw_assays(settings, latents, groups, list(GROUPS), logp)
    measured = measure_assays(settings, assays)
    truth = true_auroc(settings, assays, measured)
    _write_data(folder, library, profiles, assays, measured)
    write_table(folder / "simulated_truth.csv", truth)
    write_text(folder / "simulated.yaml", _yaml(folder, settings))
    write_text(folder / "README.txt", _readme(settings, truth))
    sizes = library["series"].value_counts()
    return {
        "compounds": len(library),
        "series": int((sizes > 1).sum()),
        "singletons": int((sizes == 1).sum()),
        "wells": len(wells),
        "plates": int(wells["plate"].nunique()),
        "batches": int(wells["batch"].nunique()),
        "features": len(profiles.features),
        "assays": len(truth),
        "measurements": len(measured),
    }


def _profiles(settings: SimulateSettings, ids: list[str], wells: pd.DataFrame, X: Any, cell_count: Any) -> Profiles:
    """Put features and the metadata of wells together, in the column style of the field."""
    import numpy as np
    import pandas as pd

    from phenohit.data.profiles import Profiles
    from phenohit.data.simulate_layout import POSITIVE_CONTROLS, feature_names

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


def _write_data(
    folder: Path, library: pd.DataFrame, profiles: Profiles, assays: Assays, measured: pd.DataFrame
) -> None:
    """Write profiles, structures, activities and answers."""
    import numpy as np
    import pandas as pd

    from phenohit.files import write_table

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


def _yaml(folder: Path, settings: SimulateSettings) -> str:
    """Return the settings of a run over the files in `folder`, with paths as the caller gave the folder."""
    import yaml

    n_hits = settings.n_hits or max(1, min(342, settings.n_compounds // 8))
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
