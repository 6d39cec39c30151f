"""From the settings of a split to its folds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phenohit.config import SplitConfig
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError
from phenohit.evaluate.splits import Folds, group_folds, holdout, leave_plates_out, merge_groups

__all__ = ["make_folds"]


def make_folds(split: SplitConfig, data: Profiles, compounds: pd.DataFrame, labels: Labels, *, seed: int) -> Folds:
    """Split the rows of a profile table as the settings say.

    Parameters
    ----------
    split : SplitConfig
    data : Profiles, R rows
    compounds : DataFrame, R rows
        The compound of every row: ``compound``, ``skeleton``, ``scaffold``, ``series_<similarity>``.
    labels : Labels, R rows
    seed : int

    Raises
    ------
    ColumnError
        If plates are to be left out but not known.
    """
    compound = pd.factorize(compounds["compound"])[0]
    skeleton = compounds["skeleton"].astype(str).where(compounds["skeleton"].astype(str) != "", compounds["compound"])
    # Whatever the kind, stereo and charge forms of one skeleton stay together (DESIGN: the unit is the parent).
    groups = merge_groups(compound, pd.factorize(skeleton)[0])
    if split.kind == "series":
        groups = merge_groups(groups, compounds[f"series_{split.similarity:g}"].to_numpy())
        kind = f"series (ECFP6 Tanimoto >= {split.similarity:g})"
    elif split.kind == "scaffold":
        groups = merge_groups(groups, _scaffold_groups(compounds))
        kind = "Murcko scaffold"
    else:
        kind = "compound"
    plates = data.rows["Metadata_Plate"] if "Metadata_Plate" in data.rows else pd.Series([""] * len(data))
    rows = pd.DataFrame({"compound": data.compounds, "group": groups, "plate": plates.to_numpy()})
    if split.folds > 1:
        folds = group_folds(groups, split.folds, labels=labels, rows=rows, valid=split.valid, seed=seed, kind=kind)
    else:
        folds = holdout(
            groups, fractions=split.fractions, repeats=split.repeats, labels=labels, rows=rows, seed=seed, kind=kind
        )
    if split.plate_folds > 1:
        if not (rows["plate"] != "").all():
            raise ColumnError("Leaving plates out needs a plate for every well. Map `profiles.columns: {plate: ...}`.")
        folds = leave_plates_out(folds, rows["plate"].to_numpy(object), split.plate_folds, labels=labels, seed=seed)
    return folds


def _scaffold_groups(compounds: pd.DataFrame) -> np.ndarray:
    """Scaffold of every row's compound as a number; each acyclic compound is its own."""
    from phenohit.chem.scaffolds import scaffold_groups  # needs RDKit, which the rest of this folder does not

    each = compounds.drop_duplicates("compound")
    number = pd.Series(scaffold_groups(each["scaffold"].to_numpy(object)), index=each["compound"].to_numpy())
    return number.loc[compounds["compound"]].to_numpy()
