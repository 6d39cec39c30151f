"""Structural alerts: pan-assay interference, reactive groups, fluorophores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import FilterCatalog

from phenohit.chem.fluorophores import FLUOROPHORES
from phenohit.chem.parallel import over_unique

__all__ = ["fluorophores", "pains", "reactive"]

_FEW = 1_000  # a structure costs 1 to 8 ms: worker processes pay off early


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
    return over_unique(_pains_all, smiles, jobs=jobs, title="PAINS alerts", few=_FEW)


def reactive(smiles: Sequence[str], *, jobs: int = 1) -> NDArray[np.object_]:
    """Name the reactive and otherwise unwanted groups each structure carries; as `pains` otherwise.

    Notes
    -----
    Two of RDKit's catalogues: rules R1 to R31 of Hann et al. 1999 (doi:10.1021/ci990423o), the
    reactive groups among the 55 rules of the set CHEMBL_Glaxo; and the 180 patterns of the set NIH
    (Jadhav et al. 2010, doi:10.1021/jm901070c; the same as CHEMBL_BMS), which add Michael acceptors,
    aldehydes and quinones, and some groups that are unwanted rather than reactive. BRENK is left out:
    it flags more than a third of a screening library.
    """
    return over_unique(_reactive_all, smiles, jobs=jobs, title="reactive groups", few=_FEW)


def fluorophores(smiles: Sequence[str], *, jobs: int = 1) -> NDArray[np.object_]:
    """Name the fluorophores each structure holds; as `pains` otherwise.

    See Also
    --------
    phenohit.chem.fluorophores : the patterns and their source.
    """
    return over_unique(_fluorophores_all, smiles, jobs=jobs, title="fluorophores", few=_FEW)


@cache
def _catalog() -> FilterCatalog.FilterCatalog:
    parameters = FilterCatalog.FilterCatalogParams()
    sets = FilterCatalog.FilterCatalogParams.FilterCatalogs
    for part in (sets.PAINS_A, sets.PAINS_B, sets.PAINS_C):
        parameters.AddCatalog(part)
    return FilterCatalog.FilterCatalog(parameters)


@cache
def _reactive_catalog() -> FilterCatalog.FilterCatalog:
    sets = FilterCatalog.FilterCatalogParams.FilterCatalogs
    out = FilterCatalog.FilterCatalog()
    for part in (sets.CHEMBL_Glaxo, sets.NIH):
        parameters = FilterCatalog.FilterCatalogParams()
        parameters.AddCatalog(part)
        whole = FilterCatalog.FilterCatalog(parameters)
        for index in range(whole.GetNumEntries()):
            entry = whole.GetEntryWithIdx(index)
            # Of the Glaxo rules R are reactive groups; I are unsuitable leads, N unsuitable natural products.
            if part != sets.CHEMBL_Glaxo or entry.GetDescription().startswith("R"):
                out.AddEntry(entry)
    return out


@cache
def _fluorophore_patterns() -> list[tuple[str, Chem.Mol]]:
    return [(name, Chem.MolFromSmarts(smarts)) for name, smarts in FLUOROPHORES.items()]


def _pains_all(smiles: list[str]) -> NDArray[np.object_]:
    """Return joined alert names of n structures."""
    return _named(smiles, lambda mol: (entry.GetDescription() for entry in _catalog().GetMatches(mol)))


def _reactive_all(smiles: list[str]) -> NDArray[np.object_]:
    """Return joined names of the reactive groups of n structures."""
    return _named(smiles, lambda mol: (entry.GetDescription() for entry in _reactive_catalog().GetMatches(mol)))


def _named(smiles: list[str], names: Callable[[Chem.Mol], Iterable[str]]) -> NDArray[np.object_]:
    out = np.full(len(smiles), "", dtype=object)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            mol = Chem.MolFromSmiles(text) if text else None
            if mol is not None:
                out[row] = "; ".join(names(mol))
    return out


def _fluorophores_all(smiles: list[str]) -> NDArray[np.object_]:
    """Return joined fluorophore names of n structures."""
    patterns = _fluorophore_patterns()
    return _named(smiles, lambda mol: (name for name, pattern in patterns if mol.HasSubstructMatch(pattern)))
