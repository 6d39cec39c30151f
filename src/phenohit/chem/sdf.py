"""Read structures from SD files."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pandas as pd
from rdkit import Chem, rdBase

from phenohit.errors import ColumnError, FileError, StructureError, nearest, some
from phenohit.files import check_file, open_bytes

__all__ = ["read_sdf"]

_LARGEST = 10_000  # atoms: RDKit crashes where it writes the SMILES of some 20,000 in a row


def read_sdf(path: str | os.PathLike[str], id_property: str = "") -> pd.DataFrame:
    """Read ids and structures from an SD file.

    Parameters
    ----------
    path : path
        ``.sdf`` or ``.sdf.gz``.
    id_property : str
        Property with the compound id; empty: the title line of each record.

    Returns
    -------
    DataFrame
        ``id`` and ``smiles`` (canonical; '' where a record's structure cannot be read), one row
        per record in the order of the file.

    Raises
    ------
    FileError
        If the file is absent, damaged or holds no record.
    ColumnError
        If no record has the property or title; names the nearest properties.
    StructureError
        If more than half of the records cannot be read.
    """
    text = _text(Path(path))
    supplier = Chem.SDMolSupplier()
    supplier.SetData(text)
    ids, smiles, properties = [], [], set()
    with rdBase.BlockLogs():
        for i in range(len(supplier)):
            record = supplier.GetItemText(i)
            mol = supplier[i]
            known = _properties(record)
            properties.update(known)
            ids.append((known.get(id_property, "") if id_property else record.split("\n", 1)[0]).strip())
            smiles.append("" if mol is None or mol.GetNumAtoms() > _LARGEST else Chem.MolToSmiles(mol))
    found = pd.DataFrame({"id": ids, "smiles": smiles}, dtype=str)
    if not len(found) or "M  END" not in text:
        raise FileError(f"'{path}' holds no record of an SD file. Check that it is one.")
    _refuse_damaged(path, text)
    if not any(ids):
        if not id_property:
            hint = f"Name a property in structures.id; there are {some(sorted(properties)) or 'none'}."
            raise ColumnError(f"No record of '{path}' has a title line to take the compound id from. {hint}")
        raise ColumnError(f"No record of '{path}' has the property '{id_property}'. {nearest(id_property, properties)}")
    bad = found.index[found["smiles"] == ""]
    if 2 * len(bad) > len(found):
        shown = some(f"record {i} ({found['id'][i] or 'no id'})" for i in bad).replace("'", "")
        raise StructureError(
            f"{len(bad)} of {len(found)} records of '{path}' cannot be read: {shown}. Check that the file is whole."
        )
    return found


def _refuse_damaged(path: str | os.PathLike[str], text: str) -> None:
    """Refuse a file that ends within a record, or whose records run into each other: structures would be lost."""
    records = text.split("\n$$$$")
    ends = [record.count("\nM  END") for record in records]
    if records[-1].strip("\n $\0") and not ends[-1]:
        raise FileError(f"'{path}' ends within record {len(records) - 1}. It is truncated: copy or make it again.")
    several = next((i for i, n in enumerate(ends) if n > 1), None)
    if several is not None:
        raise FileError(
            f"'{path}' has {ends[several]} structures in record {several}. Expected a line '$$$$' after each record: "
            "it may be lost or damaged. Make the file again."
        )


def _text(path: Path) -> str:
    check_file(path)
    try:
        with open_bytes(path) as handle:
            # Titles written on other systems may not be UTF-8; the structures are ASCII.
            return handle.read().decode("utf-8", errors="replace").replace("\r\n", "\n")
    except FileError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"'{path}' cannot be read ({error}). It may be truncated: copy or make it again.") from error


def _properties(record: str) -> dict[str, str]:
    """Return the data items of one record; RDKit gives none where it cannot read the structure."""
    found: dict[str, str] = {}
    name = ""
    for line in record.split("M  END", 1)[-1].split("\n"):
        if line.startswith(">") and "<" in line:
            name = line[line.index("<") + 1 : line.rindex(">")]
            found[name] = ""
        elif not line.strip():
            name = ""
        elif name and not line.startswith("$$$$"):
            found[name] = f"{found[name]}\n{line}".strip()
    return found
