"""Read tables of known activities in four forms into one: compound, assay, value."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import ActivitySource
from phenohit.data.dropped import dropped
from phenohit.errors import ColumnError, ConfigError, LabelError, StructureError, some
from phenohit.labels.formats import FORMATS, STAGE, task_table, unnamed

__all__ = ["Activities", "read_activities"]

log = logging.getLogger("phenohit")

_INCHIKEY = r"[A-Z]{14}-[A-Z]{10}-[A-Z]"


@dataclass(frozen=True, eq=False)
class Activities:
    """Measurements as they were written, before repeats are merged.

    Attributes
    ----------
    table : DataFrame, one row per measurement
        ``compound`` (int32, row of `compounds`), ``assay`` (int32, row of `assays`), ``value``
        (float64; 0 or 1 unless `kind` is ``value``), ``row`` (int64, row of the file, from 0).
    compounds : DataFrame
        ``compound`` (the id where the source has one, else the InChIKey), ``id``, ``smiles`` (as
        written), ``inchikey`` and ``skeleton`` ('' where unknown).
    assays : DataFrame
        ``name`` (unique; becomes the task's), ``assay`` (shared by columns of one assay) and what
        the table of tasks says besides.
    kind : {'binary', 'value'}
    thresholds : tuple of float
    source : str
        Path of the file.
    """

    table: pd.DataFrame
    compounds: pd.DataFrame
    assays: pd.DataFrame
    kind: Literal["binary", "value"]
    thresholds: tuple[float, ...] = ()
    source: str = ""


def read_activities(source: ActivitySource, *, jobs: int = 1) -> tuple[Activities, pd.DataFrame]:
    """Read one table of activities.

    Parameters
    ----------
    source : ActivitySource
        Every option of the settings.
    jobs : int
        Processes for standardising structures; 0: all cores.

    Returns
    -------
    activities : Activities
    dropped : DataFrame
        Rows without a compound or a value, structures that cannot be read, columns that are no
        assay.

    Raises
    ------
    FileError, ColumnError, ConfigError, ShapeError
        If the files do not hold what the settings say.
    LabelError
        If a value is impossible; names the place.
    StructureError
        If more than half of the structures cannot be read.

    Notes
    -----
    A compound is found by `id` where the source names that column, else by the InChIKey of its
    standardised SMILES, else by the InChIKey as written. Where both an id and a structure are
    given, the structure serves the later passes of `phenohit.labels.join`.
    """
    if not (source.id or source.smiles or source.inchikey):
        raise ConfigError(
            f"activities: nothing says which column of '{source.path}' names the compounds. Set id, smiles or inchikey."
        )
    if source.thresholds and source.kind != "value":
        raise ConfigError(f"activities: thresholds need kind: value; '{source.path}' has kind: {source.kind}.")
    if source.format not in FORMATS:
        raise ConfigError(f"activities: format '{source.format}' is not known. There are {some(FORMATS)}.")
    keys, entries, names, lost = FORMATS[source.format](source)
    rows, where = np.unique(entries["row"], return_inverse=True)  # other rows hold nothing to identify
    compounds, of_row, lost_compounds = _compounds(source, keys.iloc[rows].reset_index(drop=True), rows, jobs)
    entries["compound"] = of_row[where]
    if source.format in ("wide", "matrix_market"):
        bare = np.setdiff1d(np.arange(len(keys)), rows)
        lost = pd.concat([lost, unnamed(source, bare, "no assay has a value")], ignore_index=True)
    usable = entries[entries["compound"] >= 0]
    if source.format == "classes":
        usable = _every_class(usable, len(names))
    if not len(usable):
        raise LabelError(f"'{source.path}' holds no measurement of a compound that can be identified.")
    assays = _assays(source, names)
    table = usable.astype({"compound": np.int32, "assay": np.int32, "value": np.float64, "row": np.int64})
    used, table["compound"] = np.unique(table["compound"], return_inverse=True)
    kind = "value" if source.kind == "value" and source.format != "classes" else "binary"
    activities = Activities(
        table.reset_index(drop=True)[["compound", "assay", "value", "row"]],
        compounds.iloc[used].reset_index(drop=True),
        assays,
        kind,
        tuple(source.thresholds),
        str(source.path),
    )
    return activities, pd.concat([lost, lost_compounds], ignore_index=True)


def _every_class(entries: pd.DataFrame, T: int) -> pd.DataFrame:
    """Make every classified compound active in its classes and inactive in all others."""
    compounds, row = np.unique(entries["compound"], return_inverse=True)
    member = np.zeros((len(compounds), T))
    member[row, entries["assay"]] = 1.0
    several = compounds[member.sum(axis=1) > 1]
    if len(several):
        log.warning("%d compounds belong to more than one class and are active in each", len(several))
    first = entries.drop_duplicates("compound").set_index("compound")["row"].reindex(compounds).to_numpy()
    n = len(compounds)
    return pd.DataFrame(
        {"row": np.repeat(first, T), "assay": np.tile(np.arange(T), n), "value": member.ravel(),
         "compound": np.repeat(compounds, T)}
    )  # fmt: skip


def _compounds(
    source: ActivitySource, keys: pd.DataFrame, rows: NDArray[np.int64], jobs: int
) -> tuple[pd.DataFrame, NDArray[np.intp], pd.DataFrame]:
    """Return the distinct compounds, the compound of each of the `rows` (-1: none), and what is lost."""
    written = keys["id"].mask(keys["id"] == "", keys["smiles"])
    written = written.mask(written == "", keys["inchikey"])
    codes, distinct = pd.factorize(written)
    first = keys.mask(keys == "").groupby(codes, sort=False).first().fillna("").astype(str)
    first = first.loc[range(len(distinct))].assign(written=np.asarray(distinct, dtype=object))
    found, lost = _structures(source, first, jobs)
    name = found["id"].mask(found["id"] == "", found["inchikey"])
    name = name.mask(name == "", found["skeleton"])
    of_distinct, _ = pd.factorize(name.mask(name == ""))
    nameless = (of_distinct[codes] < 0) & (written == "").to_numpy()
    lost = pd.concat([lost, unnamed(source, rows[nameless], "no compound is named")], ignore_index=True)
    compounds = found.assign(compound=name)[name != ""].drop_duplicates("compound").reset_index(drop=True)
    return compounds[["compound", "id", "smiles", "inchikey", "skeleton"]], of_distinct[codes], lost


def _structures(source: ActivitySource, first: pd.DataFrame, jobs: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Standardise what has SMILES, else take the InChIKey as written; a first block alone is allowed."""
    given = first["inchikey"]
    full, block = given.str.fullmatch(_INCHIKEY), given.str.fullmatch(r"[A-Z]{14}")
    found = first.assign(inchikey=given.where(full, ""), skeleton=given.str[:14].where(full | block, ""))
    odd_key = (given != "") & ~full & ~block & (first["smiles"] == "")
    reasons = ["is not an InChIKey" + ("; matched by id alone" if i else "") for i in first.loc[odd_key, "id"]]
    lost = dropped(STAGE, "structure", given[odd_key], reasons)
    has = first["smiles"] != ""
    if not has.to_numpy().any():
        return found, lost
    from phenohit.chem.standardise import standardise

    read = standardise(first.loc[has, "smiles"].tolist(), jobs=jobs).set_axis(first.index[has])
    bad = read["problem"] != ""
    if 2 * int(bad.sum()) > len(read):
        shown = some(first.loc[read.index[bad], "smiles"])
        raise StructureError(f"{bad.sum()} of {len(read)} SMILES of '{source.path}' cannot be read, such as {shown}.")
    good = read.index[~bad]
    found.loc[good, ["inchikey", "skeleton"]] = read.loc[good, ["inchikey", "skeleton"]]
    left = read.index[bad]
    other = np.select(
        [first.loc[left, "id"] != "", found.loc[left, "skeleton"] != ""],
        ["; matched by id", "; matched by InChIKey"],
        "",
    )
    reasons = [f"{p}{o}" for p, o in zip(read.loc[left, "problem"], other, strict=True)]
    return found, pd.concat([lost, dropped(STAGE, "structure", first.loc[left, "written"], reasons)], ignore_index=True)


def _assays(source: ActivitySource, names: list[str]) -> pd.DataFrame:
    """Name, assay and description of every task; columns that share an assay id share `assay`."""
    assays = pd.DataFrame({"name": names, "assay": names}, dtype=str)
    if source.tasks:
        table = task_table(source)
        about = table.set_index(table.columns[0]).reindex(names).fillna("").reset_index(drop=True)
        if not set(names) & set(table.iloc[:, 0]):
            raise ColumnError(
                f"No assay of '{source.path}' is in the first column of '{source.tasks}'. Assays: {some(names, 3)}; "
                f"there: {some(table.iloc[:, 0], 3)}."
            )
        about.columns = [re.sub(r"\W+", "_", c.strip().lower()) for c in about.columns]
        shared = next((c for c in about if c in ("assay", "assay_id", "assayid", "assay_chembl_id")), None)
        if shared is not None:
            assays["assay"] = about[shared].mask(about[shared] == "", assays["name"])
        taken = ["name", "assay", "task", "kind", "threshold", "source", "n_active", "n_inactive"]
        assays = pd.concat([assays, about.drop(columns=[c for c in about if c in taken])], axis=1)
    assays[["name", "assay"]] = source.prefix + assays[["name", "assay"]]
    return assays.astype(str)
