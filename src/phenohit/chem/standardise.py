"""One structure per compound: parent fragment, neutral, canonical SMILES, InChIKey."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

from phenohit.chem.parallel import over_unique
from phenohit.errors import StructureError, some

__all__ = ["require_readable", "standardise"]

_COLUMNS = ["smiles", "inchikey", "skeleton", "problem"]


def standardise(smiles: Sequence[str], *, jobs: int = 1) -> pd.DataFrame:
    """Reduce structures to their neutral parent, the unit by which compounds are told apart.

    Steps, all of ``rdkit.Chem.MolStandardize``: clean-up (hydrogens, metals, functional groups,
    acid order), largest fragment (an organic one before an inorganic one), neutralise where a
    proton can be moved. Stereo and isotopes are kept; tautomers are not merged.

    Parameters
    ----------
    smiles : sequence of str, length N
        As the user wrote them; '' or a missing value where there is none.
    jobs : int, default 1
        Processes; 0 or less: all cores. Used above 2,000 different structures.

    Returns
    -------
    DataFrame, N rows in the given order
        ``smiles`` (canonical, of the parent), ``inchikey``, ``skeleton`` (the key's first block,
        which ignores stereo, isotopes and protonation) and ``problem`` ('' or what is wrong; the
        other three are '' then).

    Examples
    --------
    >>> standardise(["CC(=O)[O-].[Na+]", "C1CC"])["problem"].tolist()
    ['', "the SMILES 'C1CC' cannot be read"]
    """
    parts = over_unique(_standardise_all, smiles, jobs=jobs, title="standardise structures")
    return pd.DataFrame(parts, columns=_COLUMNS, dtype=object).astype(str)


def require_readable(table: pd.DataFrame, ids: Sequence[object]) -> None:
    """Raise where `standardise` found a problem.

    Parameters
    ----------
    table : DataFrame, N rows
        From `standardise`.
    ids : sequence, length N
        What the user calls each row.

    Raises
    ------
    StructureError
        Naming the first ten.
    """
    bad = np.flatnonzero((table["problem"] != "").to_numpy())
    if len(bad):
        shown = some(f"{ids[i]}: {table['problem'].iloc[i]}" for i in bad)
        message = (
            f"{len(bad)} of {len(table)} structures cannot be used: {shown}. Every compound needs a readable "
            "SMILES here: correct these or leave the rows out."
        )
        raise StructureError(message)


_LONGEST = 10_000  # signs: no InChI has more than 1,023 atoms, and some 20,000 in a row crash RDKit
_ORGANIC = frozenset({5, 6, 7, 8, 9, 15, 16, 17, 35, 53})  # B C N O F P S Cl Br I; hydrogen only where it is written


@cache
def _parameters() -> rdMolStandardize.CleanupParameters:
    parameters = rdMolStandardize.CleanupParameters()
    # A drug with a large inorganic counter-ion (hexafluorophosphate, a metal cluster) is the drug.
    parameters.preferOrganic = True
    return parameters


def _standardise_all(smiles: list[str]) -> NDArray[np.object_]:
    """Return (n, 4) text for n SMILES."""
    out = np.full((len(smiles), len(_COLUMNS)), "", dtype=object)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            out[row] = _standardise_one(text)
    return out


def _has_parts(mol: Any, text: str) -> bool:
    """Whether there may be a fragment, a charge, a metal or an isotope of hydrogen to deal with.

    Where there is none, all that `ChargeParent` would do, three times over, is to normalise groups; most
    structures of a library are of this kind and take a third of the time.
    """
    return "." in text or any(
        atom.GetFormalCharge() or atom.GetAtomicNum() not in _ORGANIC or atom.GetNumRadicalElectrons()
        for atom in mol.GetAtoms()
    )


def _normal(mol: Any) -> Any:
    """Return a molecule with its functional groups in normal form; the long way if that charged an atom."""
    done = _normalizer().normalize(mol)
    if any(atom.GetFormalCharge() for atom in done.GetAtoms()):
        return rdMolStandardize.ChargeParent(mol, _parameters())
    return done


@cache
def _normalizer() -> Any:
    return rdMolStandardize.Normalizer()


def _standardise_one(text: str) -> tuple[str, str, str, str]:
    """Return smiles, inchikey, skeleton, problem of one structure."""
    if not text:
        return "", "", "", "no structure"
    if len(text) > _LONGEST:
        return "", "", "", f"the SMILES '{text[:40]}...' has {len(text):,} signs; up to {_LONGEST:,} are read"
    try:
        mol = Chem.MolFromSmiles(text)
        if mol is None:
            return "", "", "", f"the SMILES '{text}' cannot be read"
        if mol.GetNumAtoms() == 0:
            return "", "", "", "no structure"
        parent: Any = rdMolStandardize.ChargeParent(mol, _parameters()) if _has_parts(mol, text) else _normal(mol)
        smiles, key = Chem.MolToSmiles(parent), Chem.MolToInchiKey(parent)
    except (ValueError, RuntimeError):  # RDKit raises both for what it cannot sanitise
        return "", "", "", f"the SMILES '{text}' cannot be standardised"
    if not key:
        return "", "", "", f"the SMILES '{text}' has no InChIKey"
    return smiles, key, key[:14], ""
