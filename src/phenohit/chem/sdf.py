"""Read structures from SD files."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pandas as pd
from rdkit import Chem, rdBase

from phenohit.errors import ColumnError, FileError, StructureError, nearest, some

__all__ = ["read_sdf"]


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
            smiles.append("" if mol is None else Chem.MolToSmiles(mol))
    found = pd.DataFrame({"id": ids, "smiles": smiles}, dtype=str)
    if not len(found) or "M  END" not in text:
        raise FileError(f"'{path}' holds no record of an SD file. Check that it is one.")
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


def _text(path: Path) -> str:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as handle:
            # Titles written on other systems may not be UTF-8; the structures are ASCII.
            return handle.read().decode("utf-8", errors="replace").replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise FileError(f"'{path}' does not exist. Give the path of an existing SD file.") from error
    except (OSError, EOFError) as error:
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
