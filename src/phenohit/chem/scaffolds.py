"""Murcko scaffolds, and the groups they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold

from phenohit.chem.parallel import over_unique
from phenohit.chem.series import link

__all__ = ["scaffold_groups", "scaffolds"]


def scaffolds(smiles: Sequence[str], *, jobs: int = 1) -> NDArray[np.object_]:
    """Return the Murcko scaffold (rings and the chains between them) of every compound.

    Parameters
    ----------
    smiles : sequence of str, length N
    jobs : int, default 1
        Processes; 0 or less: all cores. Used above 10,000 different structures.

    Returns
    -------
    array of str, shape (N,)
        Canonical SMILES without stereo. '' for acyclic, missing and unreadable structures: they
        share no scaffold (see `scaffold_groups`).

    Notes
    -----
    Bemis and Murcko, 1996, J. Med. Chem. 39, 2887; RDKit's variant keeps atoms double-bonded to the
    scaffold.

    Examples
    --------
    >>> scaffolds(["CCO", "Cc1ccccc1"]).tolist()
    ['', 'c1ccccc1']
    """
    return over_unique(_scaffold_all, smiles, jobs=jobs, title="Murcko scaffolds", few=10_000)


def scaffold_groups(
    scaffolds: Sequence[str] | NDArray[np.object_], *, also: Sequence[NDArray[Any]] = ()
) -> NDArray[np.int32]:
    """Group compounds by scaffold; every compound without one is a group of its own.

    Parameters
    ----------
    scaffolds : sequence of str, length N
        '' where there is no ring. Acyclic compounds are not one scaffold: putting them all into one
        fold would unbalance the folds without keeping anything apart.
    also : sequence of arrays, each of shape (N,)
        Further labels whose equal values join groups: with InChIKey skeletons, stereoisomers of an
        acyclic compound stay together.

    Returns
    -------
    int32 array, shape (N,)
        0 = largest group, ties in order of first member.

    Examples
    --------
    >>> scaffold_groups(["", "c1ccccc1", "", "c1ccccc1"])
    array([1, 0, 2, 0], dtype=int32)
    """
    names = np.asarray(scaffolds, dtype=object)
    return link([names, *also], len(names))


def _scaffold_all(smiles: list[str]) -> NDArray[Any]:
    """Return scaffold SMILES of n structures."""
    out = np.full(len(smiles), "", dtype=object)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            mol = Chem.MolFromSmiles(text) if text else None
            if mol is not None:
                out[row] = MurckoScaffold.MurckoScaffoldSmiles(mol=mol, includeChirality=False)
    return out
