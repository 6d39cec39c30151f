"""ECFP fingerprints, packed eight bits to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import rdFingerprintGenerator

from phenohit.chem.parallel import clean, over_unique
from phenohit.chem.similarity import Sets
from phenohit.errors import ConfigError, StructureError, some

__all__ = ["ecfp", "ecfp_features", "unpack"]


def ecfp(smiles: Sequence[str], *, radius: int = 3, n_bits: int = 2048, jobs: int = 1) -> NDArray[np.uint8]:
    """Compute extended-connectivity (Morgan) fingerprints.

    Parameters
    ----------
    smiles : sequence of str, length N
        Standardised structures. '' (a compound without a structure) gives a row without any bit,
        which `phenohit.chem.series` links to nothing.
    radius : int, default 3
        3 is ECFP6, the fingerprint of [1]_ and of the series of Simm 2018.
    n_bits : int, default 2048
        Length after folding; a multiple of 8.
    jobs : int, default 1
        Processes; 0 or less: all cores. Used above 20,000 different structures (one core makes
        about 6,000 a second).

    Returns
    -------
    uint8 array, shape (N, n_bits // 8)
        As `numpy.packbits` packs them. Stereo is not encoded: stereoisomers are equal.

    Raises
    ------
    StructureError
        If a SMILES cannot be read; names the first ten.
    ConfigError
        If `n_bits` is not a positive multiple of 8 or `radius` is negative.

    References
    ----------
    .. [1] Rogers and Hahn, 2010, J. Chem. Inf. Model. 50, 742.
    """
    if n_bits <= 0 or n_bits % 8:
        raise ConfigError(f"n_bits is {n_bits}; it must be a positive multiple of 8, such as 2048.")
    _check_radius(radius)
    text = clean(smiles)
    work = partial(_pack_all, radius=radius, n_bits=n_bits)
    flagged = over_unique(work, text, jobs=jobs, title="ECFP fingerprints", few=20_000)
    _require_readable(flagged[:, -1], text)
    return np.ascontiguousarray(flagged[:, :-1])


def ecfp_features(smiles: Sequence[str], *, radius: int = 3, jobs: int = 1) -> Sets:
    """Compute the features of extended-connectivity fingerprints without folding them.

    Parameters
    ----------
    smiles : sequence of str, length N
        Standardised structures. '' (a compound without a structure) gives an empty set.
    radius : int, default 3
        3 is ECFP6.
    jobs : int, default 1
        Processes, as for `ecfp`.

    Returns
    -------
    Sets, N rows
        Atom environments that occur, as RDKit's 32-bit numbers (uint32). ``.packed(n_bits)`` folds them to
        what `ecfp` returns; between folded fingerprints of 2,048 bits, different environments count as common
        where their numbers agree in the last 11 bits.

    Raises
    ------
    StructureError
        If a SMILES cannot be read; names the first ten.
    ConfigError
        If `radius` is negative.
    """
    _check_radius(radius)
    text = clean(smiles)
    found = over_unique(partial(_features_of_all, radius=radius), text, jobs=jobs, title="ECFP features", few=20_000)
    _require_readable(np.array([one is None for one in found], dtype=bool), text)
    start = np.zeros(len(found) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in found], out=start[1:])
    return Sets(start, np.concatenate([np.empty(0, np.uint32), *found]))


def unpack(packed: NDArray[np.uint8], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Return packed fingerprints (N, B) as zeros and ones, shape (N, 8 * B)."""
    return np.unpackbits(packed, axis=1).astype(dtype, copy=False)


def _check_radius(radius: int) -> None:
    if radius < 0:
        raise ConfigError(f"radius is {radius}; it must be 0 or more (3 is ECFP6).")


def _require_readable(unread: NDArray[Any], text: list[str]) -> None:
    bad = np.flatnonzero(unread)
    if len(bad):
        shown = some(f"row {i}: {text[i]}" for i in bad)
        message = (
            f"{len(bad)} of {len(text)} SMILES cannot be read: {shown}. Standardise structures first and leave "
            "out those with a problem."
        )
        raise StructureError(message)


@cache
def _generator(radius: int, n_bits: int) -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=n_bits)


def _pack_all(smiles: list[str], *, radius: int, n_bits: int) -> NDArray[np.uint8]:
    """Return (n, n_bits // 8 + 1): the packed bits, then 1 where the SMILES cannot be read."""
    out = np.zeros((len(smiles), n_bits // 8 + 1), dtype=np.uint8)
    generator = _generator(radius, n_bits)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            mol = Chem.MolFromSmiles(text) if text else None
            if mol is not None:
                out[row, :-1] = np.packbits(generator.GetFingerprintAsNumPy(mol))
            out[row, -1] = bool(text) and mol is None
    return out


def _features_of_all(smiles: list[str], *, radius: int) -> NDArray[Any]:
    """Return an object array (n,) of rising uint32 arrays, None where the SMILES cannot be read."""
    out = np.empty(len(smiles), dtype=object)
    generator = _generator(radius, 2048)  # the length is not used
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            mol = Chem.MolFromSmiles(text) if text else None
            if mol is not None:
                found = generator.GetSparseCountFingerprint(mol).GetNonzeroElements()
                out[row] = np.sort(np.fromiter(found, dtype=np.uint32, count=len(found)))
            elif not text:
                out[row] = np.empty(0, dtype=np.uint32)
    return out
