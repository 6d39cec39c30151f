"""From the files of a screen to one row per compound: read, normalise, check plates, identify, aggregate."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenohit.config import ProfileSource
from phenohit.data.dropped import nothing_dropped
from phenohit.data.profiles import Profiles
from phenohit.files import hash_file, write_table
from phenohit.study import Study

__all__ = ["new_wells", "read_screen"]

log = logging.getLogger("phenohit")


def read_screen(study: Study) -> None:
    """Do the step `data`: profiles and structures in, compounds out."""
    from phenohit.data.inputs import profile_inputs
    from phenohit.profiles.checks_history import history_file

    config = study.config
    inputs = profile_inputs(config.profiles) if config.profiles.path else {}
    if config.structures.path:
        inputs[config.structures.path] = hash_file(config.structures.path)
    if config.checks.history:
        history = history_file(config.checks.history)
        inputs[str(history)] = hash_file(history)
    learned = ["steps/steps.json"] if config.profiles.path else []  # what `predict` needs
    study.run.step(
        "data",
        partial(_read, study),
        settings=[asdict(config.profiles), asdict(config.structures), asdict(config.checks), config.seed],
        inputs=inputs,
        outputs=["profiles.parquet", "wells.parquet", "identified.parquet", "dropped/data.csv", *learned],
    )


def _read(study: Study) -> dict[str, Any]:
    from phenohit.data.read import read_library
    from phenohit.profiles.aggregate import to_compounds
    from phenohit.profiles.identify import identify

    config, run = study.config, study.run
    structures, unnamed = None, nothing_dropped()
    if config.structures.path:
        structures, unnamed = read_library(config.structures)
    if config.profiles.path:
        raw, lost = _wells(study)
    else:  # no images: the library itself is the table, its features come from the structures
        assert structures is not None
        rows = structures.rename(columns={"id": "Metadata_compound_id", "smiles": "Metadata_SMILES"}).astype(str)
        raw, lost = Profiles(np.zeros((len(rows), 0), np.float32), rows, []), nothing_dropped()
    n_read = len(raw)
    profiles, compounds, unknown = identify(raw, structures, jobs=study.jobs)
    del raw  # gigabytes at half a million wells
    wells = pd.DataFrame({"compound": profiles.compounds})
    wells["plate"] = profiles.rows.get("Metadata_Plate", "")
    wells["well"] = profiles.rows.get("Metadata_Well", "")
    write_table(run.path("wells.parquet"), wells)
    if config.profiles.unit == "compound" or not config.profiles.path:
        profiles = to_compounds(profiles, how=config.profiles.aggregate)
    profiles.save(run.path("profiles.parquet"))
    write_table(run.path("identified.parquet"), compounds)
    write_table(run.path("dropped", "data.csv"), pd.concat([lost, unnamed, unknown], ignore_index=True))
    kept = {"wells": len(wells), "compounds": len(compounds), "features": len(profiles.features)}
    return {"rows_read": n_read, **kept}


def _wells(study: Study) -> tuple[Profiles, pd.DataFrame]:
    """Read all wells, do the steps, check the plates; wells that the settings drop have no part in the steps."""
    from phenohit.data.read import read_profiles
    from phenohit.profiles.checks import check_plates, drop_flagged
    from phenohit.profiles.steps import Steps

    config, run = study.config, study.run
    raw, lost = read_profiles(config.profiles)
    _keep_background(study, raw)
    profiles, gone, steps = Steps.fit_apply(raw, config.profiles.steps)
    lists = [lost, gone]
    shutil.rmtree(run.folder / "checks", ignore_errors=True)  # of other settings
    if config.checks.enabled and _can_check(raw):
        checks = check_plates(raw, profiles, config.checks, seed=study.config.seed)
        checks.save(run.folder / "checks")
        write_table(run.path("checks", "flags.csv"), checks.flags)
        kept, flagged = drop_flagged(profiles, checks, config.checks)
        lists.append(flagged)
        if len(flagged) and config.profiles.steps:  # what was learned from them is learned again
            raw, _ = drop_flagged(raw, checks, config.checks)
            kept, again, steps = Steps.fit_apply(raw, config.profiles.steps)
            lists = [lost, flagged, again]
        profiles = kept
    steps.save(run.folder / "steps")
    return profiles, pd.concat(lists, ignore_index=True)


def _keep_background(study: Study, raw: Profiles) -> None:
    """Keep how bright each well's background was, before steps mix the features; the hits look at it."""
    from phenohit.hits.background import well_background

    path = study.run.path("background.parquet")
    path.unlink(missing_ok=True)  # of another table
    background = well_background(raw)
    if len(background):
        write_table(path, background)


def _can_check(wells: Profiles) -> bool:
    """Whether there are plates with controls: without them there is nothing to compare with."""
    if "Metadata_Plate" not in wells.rows:
        return False
    known = bool(wells.rows["Metadata_pert_type"].eq("negcon").to_numpy().any())
    if not known:
        log.info("plates are not checked: no well is known as a negative control (profiles.controls)")
    return known


def new_wells(run: Path, source: ProfileSource, path: str) -> tuple[Profiles, pd.DataFrame]:
    """Read wells that were imaged after a run, and bring them to the scale of its own.

    Parameters
    ----------
    run : path
        Run folder, with the steps that it learned.
    source : ProfileSource
        The run's own; its column map, controls and steps are used.
    path : str
        Where the new profiles are.
    """
    from phenohit.data.read import read_profiles
    from phenohit.profiles.steps import Steps

    # Which plates were read then says nothing about these.
    raw, lost = read_profiles(replace(source, path=path, format="auto", plates=[], batches=[]))
    if not source.steps:
        return raw, lost
    profiles, gone = Steps.load(run / "steps").apply(raw)
    return profiles, pd.concat([lost, gone], ignore_index=True)
