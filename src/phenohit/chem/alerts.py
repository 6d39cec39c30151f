"""Structural alerts: PAINS."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import FilterCatalog

from phenohit.chem.parallel import over_unique

__all__ = ["pains"]


def pains(smiles: Sequence[str], *, jobs: int = 1) -> NDArray[np.object_]:
    """Name the pan-assay interference alerts (PAINS A, B and C) each structure carries.

    Parameters
    ----------
    smiles : sequence of str, length N
        Standardised structures; '' or unreadable ones carry no alert.
    jobs : int, default 1
        Processes; 0 or less: all cores. Used above 1,000 different structures (about 1 ms each).

    Returns
    -------
    array of str, shape (N,)
        Names joined by '; ', such as ``quinone_A(370)``; '' where there is none.

    Notes
    -----
    Baell and Holloway, 2010, J. Med. Chem. 53, 2719; the 480 patterns are those of RDKit's
    FilterCatalog. They flag, they do not prove: many marketed drugs carry one.
    """
    return over_unique(_pains_all, smiles, jobs=jobs, title="PAINS alerts", few=1_000)


@cache
def _catalog() -> FilterCatalog.FilterCatalog:
    parameters = FilterCatalog.FilterCatalogParams()
    sets = FilterCatalog.FilterCatalogParams.FilterCatalogs
    for part in (sets.PAINS_A, sets.PAINS_B, sets.PAINS_C):
        parameters.AddCatalog(part)
    return FilterCatalog.FilterCatalog(parameters)


def _pains_all(smiles: list[str]) -> NDArray[np.object_]:
    """Return joined alert names of n structures."""
    out = np.full(len(smiles), "", dtype=object)
    catalog = _catalog()
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            mol = Chem.MolFromSmiles(text) if text else None
            if mol is not None:
                out[row] = "; ".join(entry.GetDescription() for entry in catalog.GetMatches(mol))
    return out
