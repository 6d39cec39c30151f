"""Say which compound is in each well, by structure where there is one."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, PlateError, StructureError, some

__all__ = ["COMPOUND_COLUMNS", "INCHIKEY", "identify"]

log = logging.getLogger("phenohit")

COMPOUND_COLUMNS = ["compound", "compound_id", "smiles", "inchikey", "skeleton", "n_wells"]
INCHIKEY = r"[A-Z]{14}-[A-Z]{10}-[A-Z]"
_STAGE = "identify compounds"


def identify(
    profiles: Profiles, structures: pd.DataFrame | None, *, jobs: int = 1
) -> tuple[Profiles, pd.DataFrame, pd.DataFrame]:
    """Give every treated row its compound key and leave the controls aside.

    A row's structure is its own ``Metadata_SMILES``, else that of its id in `structures`, else that
    of another row with the same id. The key is the InChIKey of the standardised parent; without a
    structure the InChIKey as given; without that the id as given.

    Parameters
    ----------
    profiles : Profiles, P rows
        With at least one of ``Metadata_SMILES``, ``Metadata_InChIKey``, ``Metadata_compound_id``.
    structures : DataFrame or None
        ``id`` and ``smiles``, e.g. from `phenohit.data.read.read_structures`.
    jobs : int
        Processes for standardising; 0: all cores.

    Returns
    -------
    profiles : Profiles
        Treated rows (``Metadata_pert_type`` is ``trt``) with ``Metadata_compound``. Controls are
        not losses: they are counted in ``history``.
    compounds : DataFrame, one row per compound in order of first appearance
        ``compound``, ``compound_id`` (several ids of one compound joined by ';'), ``smiles``
        (standardised parent), ``inchikey``, ``skeleton``, ``n_wells`` (int64).
    dropped : DataFrame

    Raises
    ------
    ColumnError
        If nothing identifies the rows, or no id occurs in `structures`.
    PlateError
        If every row is a control.
    StructureError
        If more than half of the structures cannot be read.
    """
    profiles = _treated(profiles)
    ids, own, given = (_column(profiles, f"Metadata_{c}") for c in ("compound_id", "SMILES", "InChIKey"))
    if not any((c != "").any() for c in (ids, own, given)):
        raise ColumnError(
            "No row says which compound it holds: there is no Metadata_SMILES, Metadata_InChIKey or "
            f"Metadata_compound_id in {some(profiles.rows.columns)}. Map one of them in profiles.columns."
        )
    known = _known_structures(ids, own, structures)
    read = _standardised(pd.unique(np.concatenate([own, known["smiles"].to_numpy(object)])), jobs)
    smiles, lost = _structure_of_rows(ids, own, known, read)
    found = read.reindex(smiles)
    unreadable = (smiles != "") & (found["problem"] != "").to_numpy()
    valid = pd.Series(given).str.fullmatch(INCHIKEY).to_numpy(dtype=bool)
    key = found["inchikey"].to_numpy(object)
    key = np.where(key != "", key, np.where(valid, given, ids))
    inchikey = np.where(smiles != "", found["inchikey"].to_numpy(object), np.where(valid, given, ""))
    ambiguous = pd.Series(ids).isin(lost.loc[lost["what"] == "compound", "id"]).to_numpy() & (smiles == "")
    lost = [lost, _malformed(unreadable, ids, smiles, found["problem"].to_numpy(object))]
    nameless = (key == "") & ~unreadable
    lost.append(dropped(_STAGE, "well", _places(profiles, nameless), "no SMILES, InChIKey or compound id"))
    keep = ~(unreadable | nameless | ambiguous)
    if not keep.any():
        raise ColumnError("No treated row is left after identification: " + some(pd.concat(lost)["reason"].unique(), 3))
    parts = pd.DataFrame(
        {"compound": key, "compound_id": np.where(ids != "", ids, key), "smiles": found["smiles"].to_numpy(object),
         "inchikey": inchikey, "skeleton": pd.Series(inchikey).str[:14].to_numpy(object)}
    )[keep]  # fmt: skip
    kept = profiles.take(keep)
    kept = replace(kept, rows=kept.rows.assign(Metadata_compound=parts["compound"].to_numpy(object)))
    return kept, _compounds(parts), pd.concat(lost, ignore_index=True)


def _treated(profiles: Profiles) -> Profiles:
    """Return the treated rows; the number of controls goes into the history."""
    if "Metadata_pert_type" not in profiles.rows:
        return profiles
    kind = profiles.rows["Metadata_pert_type"]
    counts = kind[kind != "trt"].value_counts()
    if counts.sum() == len(profiles):
        raise PlateError(
            f"All {len(profiles)} rows are controls ({', '.join(f'{n} {k}' for k, n in counts.items())}). "
            "Check profiles.controls."
        )
    if not len(counts):
        return profiles
    step = f"controls set aside[{', '.join(f'{n} {k}' for k, n in counts.items())}]"
    return replace(profiles.take((kind == "trt").to_numpy()), history=(*profiles.history, step))


def _column(profiles: Profiles, name: str) -> NDArray[np.object_]:
    if name not in profiles.rows:
        return np.full(len(profiles), "", dtype=object)
    return profiles.rows[name].astype(str).str.strip().to_numpy(object)


def _known_structures(
    ids: NDArray[np.object_], own: NDArray[np.object_], structures: pd.DataFrame | None
) -> pd.DataFrame:
    """Return every (id, smiles) of the ids in use: from the structure table, else from the rows themselves."""
    rows = pd.DataFrame({"id": ids, "smiles": own})
    rows = rows[(rows != "").all(axis=1)].drop_duplicates()
    if structures is None:
        return rows
    table = structures.loc[structures["id"].isin(ids), ["id", "smiles"]].drop_duplicates()
    if not len(table) and (own == "").any():
        raise ColumnError(
            f"No compound id of the profiles occurs among the structures. Profiles have {some(pd.unique(ids), 3)}, "
            f"structures {some(structures['id'], 3)}. Check structures.id and profiles.columns: compound_id."
        )
    return pd.concat([table, rows[~rows["id"].isin(table.loc[table["smiles"] != "", "id"])]], ignore_index=True)


def _standardised(smiles: NDArray[np.object_], jobs: int) -> pd.DataFrame:
    """Standardise distinct SMILES; the index is the SMILES as written, '' included."""
    from phenohit.chem.standardise import standardise

    smiles = smiles[smiles != ""]
    table = standardise(list(smiles), jobs=jobs) if len(smiles) else None
    columns = ["smiles", "inchikey", "skeleton", "problem"]
    empty = pd.DataFrame([[""] * 4], columns=columns, index=[""])
    if table is None:
        return empty
    bad = table.index[table["problem"] != ""]
    if 2 * len(bad) > len(table):
        raise StructureError(
            f"{len(bad)} of {len(table)} structures cannot be read, such as {some(smiles[bad])}. "
            "Check that the SMILES column is the right one."
        )
    return pd.concat([table[columns].set_axis(smiles), empty])


def _structure_of_rows(
    ids: NDArray[np.object_], own: NDArray[np.object_], known: pd.DataFrame, read: pd.DataFrame
) -> tuple[NDArray[np.object_], pd.DataFrame]:
    """Fill in the structure of rows that have none; ids with two structures or none at all are listed."""
    known = known.assign(inchikey=read["inchikey"].reindex(known["smiles"]).to_numpy(object))
    filled = known[known["smiles"] != ""]
    n_keys = filled.groupby("id", sort=False)["inchikey"].nunique()
    contradicting = n_keys.index[n_keys > 1]
    first = filled[~filled["id"].isin(contradicting)].drop_duplicates("id").set_index("id")["smiles"]
    from_id = first.reindex(ids).fillna("").to_numpy(object)
    bare = own == ""
    lost_ids = [i for i in contradicting if (bare & (ids == i)).any()]
    reasons = [f"its id has different structures: {some(filled.loc[filled['id'] == i, 'smiles'])}" for i in lost_ids]
    if len(contradicting):
        log.warning("compound ids with more than one structure (%d): %s", len(contradicting), some(contradicting))
    blank = set(known["id"]) - set(filled["id"]) - {""}
    nothing = [i for i in pd.unique(ids[bare]) if i in blank]
    lost = [
        dropped(_STAGE, "compound", lost_ids, reasons),
        dropped(_STAGE, "structure", nothing, "no readable structure is given; known by its id alone"),
    ]
    return np.where(bare, from_id, own), pd.concat(lost, ignore_index=True)


def _malformed(
    bad: NDArray[np.bool_], ids: NDArray[np.object_], smiles: NDArray[np.object_], problem: NDArray[np.object_]
) -> pd.DataFrame:
    """List the structures that cannot be used, each with its rows."""
    table = pd.DataFrame({"id": ids, "smiles": smiles, "problem": problem, "row": np.arange(len(ids))})[bad]
    names, reasons = [], []
    for _, part in table.groupby(["id", "smiles"], sort=False):
        name, text, problem, _ = part.iloc[0]
        names.append(name or text)
        reasons.append(f"{problem} (SMILES '{text}', {len(part)} treated rows: {some(part['row'])})")
    return dropped(_STAGE, "compound", names, reasons)


def _places(profiles: Profiles, mask: NDArray[np.bool_]) -> list[str]:
    plate, well = _column(profiles, "Metadata_Plate"), _column(profiles, "Metadata_Well")
    return [f"treated row {i} {plate[i]} {well[i]}".strip() for i in np.flatnonzero(mask)]


def _compounds(parts: pd.DataFrame) -> pd.DataFrame:
    """One row per compound, in order of first appearance."""
    first = parts.drop_duplicates("compound").set_index("compound")
    pairs = parts[["compound", "compound_id"]].drop_duplicates()
    first["compound_id"] = pairs.groupby("compound", sort=False)["compound_id"].agg(";".join)
    first["n_wells"] = parts["compound"].value_counts()
    table = first.reset_index()[COMPOUND_COLUMNS]
    text = {c: str for c in COMPOUND_COLUMNS[:-1]}
    return table.astype({**text, "n_wells": np.int64})
