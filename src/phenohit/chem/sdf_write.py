"""Write structures with their properties as an SD file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor

from phenohit.errors import ShapeError
from phenohit.files import atomic

__all__ = ["write_sdf"]

_BREAKS = re.compile(r"[\r\n\v\f\x00-\x1f\x85\u2028\u2029]+")


def write_sdf(
    path: str | os.PathLike[str], smiles: Sequence[str], names: Sequence[str], properties: pd.DataFrame
) -> NDArray[np.intp]:
    """Write one record per structure, with 2-D coordinates, whole or not at all.

    Parameters
    ----------
    path : path
    smiles : sequence of str, length N
    names : sequence of str, length N
        Title lines.
    properties : DataFrame, N rows
        One property per column; missing values are left out. A line break in a title or a value
        would end the record early and becomes a space.

    Returns
    -------
    int array
        Positions that are not in the file because their structure is empty or cannot be read.

    Raises
    ------
    ShapeError, FileError
    """
    if not len(smiles) == len(names) == len(properties):
        raise ShapeError(
            f"There are {len(smiles)} structures, {len(names)} names and {len(properties)} rows of properties."
        )
    skipped = []
    with atomic(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as handle:
        writer = Chem.SDWriter(handle)
        for i, (structure, name, row) in enumerate(
            zip(smiles, names, properties.itertuples(index=False, name=None), strict=True)
        ):
            mol = _molecule(structure)
            if mol is None:
                skipped.append(i)
                continue
            mol.SetProp("_Name", _one_line(name))
            for column, value in zip(properties.columns, row, strict=True):
                if not pd.isna(value) and _one_line(value):
                    mol.SetProp(_one_line(column), _one_line(value))
            writer.write(mol)
        writer.close()
    return np.array(skipped, dtype=np.intp)


def _molecule(smiles: str) -> Chem.Mol | None:
    """Read a SMILES and lay it out in 2-D; None where that fails."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles else None
        if mol is not None:
            rdDepictor.Compute2DCoords(mol)
    return mol


def _one_line(value: object) -> str:
    """Return the value as text without line breaks; floats in their shortest exact form."""
    text = str(value.item()) if isinstance(value, np.generic) and not isinstance(value, np.floating) else str(value)
    text = _BREAKS.sub(" ", text).strip()
    return f" {text}" if text.startswith(("$$$$", ">")) else text  # else a reader sees the end of the record
