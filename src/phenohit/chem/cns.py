"""Whether a compound is likely to reach the brain, from its structure alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import Crippen, Descriptors, rdMolDescriptors

from phenohit.chem.parallel import over_unique

__all__ = ["cns_properties", "in_yolk"]

# The ellipse through points of the yolk's outline in the supporting information of Daina and Zoete 2016: a conic
# fitted to 15 of them passes through all. Centre and half axes in polar surface area (A^2) and logP.
_CENTRE = (38.06865, 3.184948)
_HALF_AXES = (41.03182, 2.777643)
_TILT = -0.158538  # degrees
_ACIDS = (
    "[CX3](=O)[OX1H0-,OX2H1]",  # carboxylic
    "S(=O)(=O)[OX1H0-,OX2H1]",  # sulfonic, sulfate
    "P(=O)[OX1H0-,OX2H1]",  # phosphonic, phosphate
    "c1[nH]nnn1",  # tetrazole, and its other tautomer
    "c1n[nH]nn1",
)


def in_yolk(logp: NDArray[np.float64], tpsa: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which points lie in the yolk of the BOILED-Egg: likely to enter the brain by diffusion, shape (N,).

    Parameters
    ----------
    logp : float array, shape (N,)
        Wildman-Crippen logP.
    tpsa : float array, shape (N,)
        Polar surface area in square angstrom, with sulfur and phosphorus.

    Notes
    -----
    Daina and Zoete 2016, doi:10.1002/cmdc.201600182. A coarse model: caffeine, which enters, lies outside. NaN is
    outside.
    """
    tilt = np.radians(_TILT)
    x, y = np.asarray(tpsa, np.float64) - _CENTRE[0], np.asarray(logp, np.float64) - _CENTRE[1]
    along, across = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    return (along / _HALF_AXES[0]) ** 2 + (across / _HALF_AXES[1]) ** 2 <= 1


def cns_properties(smiles: Sequence[str], *, jobs: int = 1) -> pd.DataFrame:
    """Compute what decides whether compounds reach the brain.

    Parameters
    ----------
    smiles : sequence of str, length N
        Neutral parents; '' or unreadable ones get NaN and False.
    jobs : int, default 1
        Processes; 0 or less: all cores.

    Returns
    -------
    DataFrame, N rows
        ``logp`` (Wildman-Crippen), ``tpsa`` (square angstrom, with sulfur and phosphorus), ``n_o`` (nitrogen
        and oxygen atoms), ``weight`` (g/mol), ``acid`` (has an acidic group), ``yolk`` (diffuses into the
        brain) and ``pgp`` (likely a substrate of P-glycoprotein, which pumps it out again).

    Notes
    -----
    ``yolk`` is that of `in_yolk`. ``pgp`` is the rule of fours of Didziapetris et al. 2003
    (doi:10.1080/10611860310001648248): at least 8 N and O, weight above 400, and no acid with a pKa of 4 or
    less. Simplified: pKa is not computed, any carboxylic, sulfonic or phosphorus acid or tetrazole counts as
    such an acid. It is a coarse rule: it misses small substrates such as loperamide.
    """
    made = over_unique(_properties_all, smiles, jobs=jobs, title="properties")
    columns = ["logp", "tpsa", "n_o", "weight", "acid"]
    table = pd.DataFrame(made.reshape(-1, len(columns)), columns=pd.Index(columns))
    table["acid"] = table["acid"].eq(1.0)
    table["yolk"] = in_yolk(table["logp"].to_numpy(), table["tpsa"].to_numpy())
    table["pgp"] = (table["n_o"] >= 8) & (table["weight"] > 400) & ~table["acid"]
    return table


@cache
def _acids() -> list[Chem.Mol]:
    return [Chem.MolFromSmarts(smarts) for smarts in _ACIDS]


def _properties_all(smiles: list[str]) -> NDArray[np.float64]:
    """Return logP, polar surface, N + O, weight and acid of n structures, shape (n, 5)."""
    out = np.full((len(smiles), 5), np.nan)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            mol = Chem.MolFromSmiles(text) if text else None
            if mol is not None:
                polar = sum(atom.GetAtomicNum() in (7, 8) for atom in mol.GetAtoms())
                acid = any(mol.HasSubstructMatch(pattern) for pattern in _acids())
                tpsa = rdMolDescriptors.CalcTPSA(mol, includeSandP=True)
                out[row] = Crippen.MolLogP(mol), tpsa, polar, Descriptors.MolWt(mol), acid
    return out
