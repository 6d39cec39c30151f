"""Use what a run learned on new profiles, and check folds that were made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from phenohit.campaign import SEE_IMAGES
from phenohit.config import Config, StructureSource
from phenohit.data.profiles import Profiles
from phenohit.data.read import read_any, read_structures
from phenohit.errors import ColumnError, RunError, some
from phenohit.files import read_json, write_table
from phenohit.models import find_model
from phenohit.profiles.aggregate import to_compounds
from phenohit.profiles.identify import identify
from phenohit.profiles.prepare import Prepare
from phenohit.runs import slug
from phenohit.screen import new_wells
from phenohit.settings import read_config
from phenohit.viewing import accepted_views

__all__ = ["apply_run", "check_folds"]


def apply_run(run: str, profiles: str, out: str) -> pd.DataFrame:
    """Score a new profile table with the final model of a run and write long Parquet.

    Parameters
    ----------
    run : path
        Run folder with a final model.
    profiles : path
        Table in the form of the run's own profiles; its column map and controls rule are used. For a model that sees
        images the store of views, or the crops, must lie beside it, as `phenohit images` writes them.
    out : path
        Parquet file to write; ``<out>.dropped.csv`` beside it lists what was left out.

    Returns
    -------
    DataFrame
        What was left out of the new table, with reasons.

    Raises
    ------
    RunError
        If the run has no final model.
    ShapeError
        If the features differ from those the model was trained on.
    """
    folder = Path(run)
    if not (folder / "hits" / "plan.json").exists() or not (folder / "models" / "final" / "model").exists():
        raise RunError(f"'{run}' holds no final model. Finish it first: phenohit hits {folder / 'config.yaml'}")
    plan = read_json(folder / "hits" / "plan.json")
    config: Config = read_config([str(folder / "config.yaml")], prog="phenohit predict", description="", kind=Config)
    if plan["input"] not in SEE_IMAGES:
        raise RunError(
            f"The final model of '{run}' reads {plan['input']}, not images: there is nothing to predict from."
        )
    raw, lost = new_wells(folder, config.profiles, profiles)
    structures = read_structures(config.structures) if config.structures.path else None
    data, _, unknown = identify(raw, structures, jobs=1)
    wells = pd.DataFrame({"compound": data.compounds, "plate": data.rows.get("Metadata_Plate", "")})
    wells["well"] = data.rows.get("Metadata_Well", "")
    if config.profiles.unit == "compound":
        data = to_compounds(data, how=config.profiles.aggregate)
    fitted = find_model(plan["model"]).load(folder / "models" / "final" / "model")
    lists = [lost, unknown]
    if plan["input"] == "profiles":
        ready = Prepare.load(folder / "models" / "final" / "prepare").apply(data)
    else:
        ready, without = _images_beside(Path(profiles), data, wells, plan["input"])
        lists.append(without)
    fitted.predict(ready).save(out)
    left_out = pd.concat(lists, ignore_index=True)
    write_table(Path(out).with_suffix(".dropped.csv"), left_out)
    return left_out


def _images_beside(table: Path, data: Profiles, wells: pd.DataFrame, kind: str) -> tuple[Any, pd.DataFrame]:
    """Join the images that were written beside a table of wells."""
    from phenohit.images.samples import crop_rows, view_rows
    from phenohit.images.store import is_store, open_store

    if kind == "crops":
        plates = sorted(set(wells["plate"].astype(str)))
        there = {p: f for p in plates if (f := table.parent / slug(p) / "crops").exists()}
        if there:
            return crop_rows(data.rows, wells, there)
    elif is_store(table.parent / "store"):
        store, rejected = accepted_views(open_store(table.parent / "store"), table.parent)
        found, lost = view_rows(data.rows, wells, store)
        return found, pd.concat([lost, rejected], ignore_index=True)
    how = "images.store: true" if kind == "views" else "images.measure.crops"
    raise RunError(f"The final model sees {kind}, and there are none beside '{table}'. Set {how}: phenohit images ...")


def check_folds(folds: str, structures: str, *, id: str, smiles: str, similarity: float) -> pd.DataFrame:
    """Check any table with a fold per compound for leaks.

    Returns
    -------
    DataFrame
        One row per check and fold; see `phenohit.evaluate.leaks.check`.

    Raises
    ------
    ColumnError
        If a column or the structure of a compound is absent.
    StructureError
        If a structure cannot be read.
    """
    from phenohit.chem.fingerprints import ecfp
    from phenohit.chem.scaffolds import scaffolds
    from phenohit.chem.series import series
    from phenohit.chem.standardise import require_readable, standardise
    from phenohit.evaluate import leaks
    from phenohit.evaluate.splits import Folds

    table = read_any(folds).astype(str)
    for column in (id, "fold"):
        if column not in table:
            raise ColumnError(f"'{folds}' has no column '{column}'. It has: {some(table.columns)}.")
    known = read_structures(StructureSource(path=structures, id=id, smiles=smiles)).set_index("id")["smiles"]
    absent = sorted(set(table[id]) - set(known.index))
    if absent:
        raise ColumnError(f"'{structures}' lacks {len(absent)} compounds of '{folds}': {some(absent)}.")
    parents = standardise(known.loc[table[id]].tolist())
    require_readable(parents, table[id].tolist())  # a compound without a structure would pass unchecked
    packed = ecfp(parents["smiles"].tolist())
    skeleton = parents["skeleton"].to_numpy(object)
    group = series(packed, similarity=similarity, also=(skeleton,))
    number = pd.factorize(table["fold"], sort=True)[0]
    made = Folds.from_numbers(number, pd.DataFrame({"compound": table[id]}), kind="series", group=group)
    return leaks.check(
        made, skeletons=skeleton, scaffolds=scaffolds(parents["smiles"].tolist()), fingerprints=packed,
        series=group, similarity=similarity, tasks=None,
    )  # fmt: skip
