"""Molecules of a ChEMBL database: every one belongs to its parent, and few of them were imaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from phenohit.errors import LabelError
from phenohit.labels.records import NO_COMPOUND, NOT_IMAGED, Wanted
from phenohit.labels.statements import integers, light, stream, texts

__all__ = ["read_molecules"]


def read_molecules(
    connection: Any, wanted: Wanted | None, jobs: int, where: str = "The database"
) -> tuple[pd.DataFrame, tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.bool_]]]:
    """Return the compounds, and for every molecule its number, its compound and whether it is a salt of it."""
    from sqlalchemy import select

    m, h, s = light("molecule_dictionary"), light("molecule_hierarchy"), light("compound_structures")
    statement = select(
        m.c.molregno, h.c.parent_molregno, m.c.chembl_id, s.c.standard_inchi_key, s.c.canonical_smiles
    ).select_from(m.outerjoin(h, h.c.molregno == m.c.molregno).outerjoin(s, s.c.molregno == m.c.molregno))
    numbers, parents, ids, keys, smiles = [], [], [], [], []
    for number, parent, name, key, written in stream(connection, statement):
        numbers.append(integers(number))
        parents.append(integers(parent))
        ids.append(texts(name))
        keys.append(texts(key))
        smiles.append(_needed(texts(written), ids[-1], keys[-1], wanted))
    if not numbers:
        raise LabelError(f"{where} holds no molecules: its tables are empty. Load a release into it.")
    number, parent = np.concatenate(numbers), np.concatenate(parents)
    order = np.argsort(number)
    number, parent = number[order], parent[order]
    key = pa.chunked_array(keys).take(pa.array(order))
    has_key = pc.not_equal(key, "").to_numpy()
    at = np.searchsorted(number, parent).clip(max=len(number) - 1)
    itself = np.arange(len(number))
    # A parent that is not there, or has no structure where the molecule itself has one, is no parent.
    owner = np.where((number[at] == parent) & (has_key[at] | ~has_key), at, itself)
    table = {"id": pa.chunked_array(ids), "smiles": pa.chunked_array(smiles)}
    table = {c: v.take(pa.array(order)) for c, v in table.items()} | {"inchikey": key}
    compounds, of_owner = _choose(table, has_key, owner, wanted, jobs)
    return compounds, (number, of_owner[owner], owner != itself)


def _needed(smiles: pa.Array, ids: pa.Array, keys: pa.Array, wanted: Wanted | None) -> pa.Array:
    """Forget the structures of molecules that cannot be one of the wanted compounds."""
    if wanted is None:
        return smiles
    near = pc.is_in(pc.utf8_slice_codeunits(keys, 0, 14), value_set=pa.array(wanted.skeletons, pa.large_string()))
    near = pc.or_(near, pc.is_in(ids, value_set=pa.array(wanted.ids, pa.large_string())))
    return pc.if_else(near, smiles, "")


def _choose(
    table: dict[str, Any], has_key: NDArray[np.bool_], owner: NDArray[np.intp], wanted: Wanted | None, jobs: int
) -> tuple[pd.DataFrame, NDArray[np.int32]]:
    """Return the table of compounds, and the compound of every molecule that is a parent."""
    is_owner = np.zeros(len(owner), dtype=bool)
    is_owner[owner] = True
    chosen = is_owner & has_key
    of_owner = np.full(len(owner), NO_COMPOUND, dtype=np.int32)
    if wanted is not None:
        skeleton = pc.utf8_slice_codeunits(table["inchikey"], 0, 14)
        near = pc.is_in(skeleton, value_set=pa.array(wanted.skeletons, pa.large_string())).to_numpy() & has_key
        by_id = pc.is_in(table["id"], value_set=pa.array(wanted.ids, pa.large_string())).to_numpy()
        of_owner[chosen] = NOT_IMAGED
        chosen = is_owner & (near | by_id)
    rows = np.flatnonzero(chosen)
    compounds = pd.DataFrame({c: v.take(pa.array(rows)).to_pandas() for c, v in table.items()}).astype(str)
    compounds.insert(0, "compound", compounds["id"])
    compounds["skeleton"] = compounds["inchikey"].str[:14]
    if wanted is not None:
        _rekey(compounds, wanted, jobs)
    of_owner[rows] = np.arange(len(rows), dtype=np.int32)
    return compounds, of_owner


def _rekey(compounds: pd.DataFrame, wanted: Wanted, jobs: int) -> None:
    """Give compounds that only share the first block the key of their standardised structure, in place."""
    far = ~compounds["inchikey"].isin(wanted.keys) & (compounds["smiles"] != "")
    far = far.to_numpy(dtype=bool)
    if not far.any():
        return
    from phenohit.chem.standardise import standardise

    read = standardise(compounds["smiles"][far].tolist(), jobs=jobs).set_axis(compounds.index[far])
    read = read[read["problem"] == ""]
    compounds.loc[read.index, ["inchikey", "skeleton"]] = read[["inchikey", "skeleton"]]
