"""From the settings of a split to its folds, for wells or for compounds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import SplitConfig
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError
from phenohit.evaluate.splits import TEST, TRAIN, UNUSED, VALID, Folds, group_folds, holdout, leave_plates_out

__all__ = ["compound_folds", "make_folds", "wells_of"]


def make_folds(
    split: SplitConfig,
    data: Profiles,
    compounds: pd.DataFrame,
    labels: Labels,
    *,
    seed: int,
    wells: pd.DataFrame | None = None,
) -> Folds:
    """Split the rows of a profile table as the settings say.

    Parameters
    ----------
    split : SplitConfig
    data : Profiles, R rows
    compounds : DataFrame, R rows
        The compound of every row: ``compound``, ``skeleton``, ``scaffold``, ``series_<similarity>``; for a given split
        also ``compound_id`` and ``inchikey``.
    labels : Labels, R rows
    seed : int
    wells : DataFrame, optional
        ``compound, plate, well`` of every treated well, for a given split that names wells; without it, the rows' own.

    Raises
    ------
    ColumnError
        If plates are to be left out but are not known.
    PhenoHitError
        If a given split cannot be used; see `phenohit.evaluate.given.given_folds`.
    """
    groups, kind = _groups(split, compounds)
    plates = data.rows["Metadata_Plate"] if "Metadata_Plate" in data.rows else pd.Series([""] * len(data))
    rows = pd.DataFrame({"compound": data.compounds, "group": groups, "plate": plates.to_numpy()})
    common = {"labels": labels, "rows": rows, "seed": seed, "kind": kind}
    if split.kind == "given":
        from phenohit.evaluate.given import given_folds

        known = compounds.reindex(columns=["compound", "compound_id", "inchikey"], fill_value="").reset_index(drop=True)
        places = wells_of(data) if wells is None else wells
        folds = given_folds(split, rows, known, labels, wells=places, seed=seed)
    elif split.folds > 1:
        folds = group_folds(groups, split.folds, valid=split.valid, **common)
    else:
        folds = holdout(groups, fractions=split.fractions, repeats=split.repeats, **common)
    if split.plate_folds > 1:
        if not rows["plate"].astype(bool).to_numpy().all():
            raise ColumnError("Leaving plates out needs a plate for every well. Map `profiles.columns: {plate: ...}`.")
        folds = leave_plates_out(folds, rows["plate"].to_numpy(object), split.plate_folds, labels=labels, seed=seed)
    return folds


def _groups(split: SplitConfig, compounds: pd.DataFrame) -> tuple[NDArray[np.integer], str]:
    """Group of every row, and what it is. Whatever the kind, stereo and charge forms stay together."""
    if split.kind == "series":  # made with the skeletons joined in
        return compounds[f"series_{split.similarity:g}"].to_numpy(), f"series (ECFP6 Tanimoto >= {split.similarity:g})"
    from phenohit.chem.series import link

    labels = [compounds["compound"].to_numpy(object), compounds["skeleton"].to_numpy(object)]
    if split.kind == "scaffold":
        return link([*labels, compounds["scaffold"].to_numpy(object)], len(compounds)), "Murcko scaffold"
    return link(labels, len(compounds)), "compound (first InChIKey block)"


def wells_of(data: Profiles) -> pd.DataFrame:
    """Return ``compound, plate, well`` of the rows whose place is known; a compound may be on plates ``P1;P2``."""
    rows = data.rows.reindex(columns=["Metadata_Plate", "Metadata_Well"], fill_value="").astype(str)
    table = pd.DataFrame({"compound": data.compounds, "plate": rows.iloc[:, 0], "well": rows.iloc[:, 1]})
    table = table[(table != "").all(axis=1)]
    return table.assign(plate=table["plate"].str.split(";")).explode("plate", ignore_index=True)


def compound_folds(folds: Folds, compounds: NDArray[np.object_]) -> Folds:
    """Turn folds over wells into folds over compounds, for inputs that have no wells.

    One split per fold number. A compound is tested where any of its wells is, validates where any
    does, and trains otherwise; where plates are held out, wells that are unused because of their
    plate do not matter, because such an input knows no plates.

    Parameters
    ----------
    folds : Folds over R rows
    compounds : array of str, shape (N,)
        Every compound, in the order wanted; one without a row is UNUSED.
    """
    code = pd.Index(compounds).get_indexer(folds.rows["compound"].to_numpy(object))
    numbers = list(dict.fromkeys(folds.fold))
    part = np.full((len(compounds), len(numbers)), UNUSED, dtype=np.int8)
    for column, number in enumerate(numbers):
        of = folds.part[:, [s for s, f in enumerate(folds.fold) if f == number]]
        for role in (TRAIN, VALID, TEST):  # the later one wins
            part[code[(of == role).any(axis=1)], column] = role
    group = np.full(len(compounds), -1)
    group[code] = folds.rows["group"].to_numpy()
    rows = pd.DataFrame({"compound": compounds, "group": group, "plate": ""})
    return Folds(part, rows, [str(n) for n in numbers], numbers, folds.kind)
