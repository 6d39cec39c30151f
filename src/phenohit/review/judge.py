"""Tell whether what was promised was found, and whether what was found is new."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["GROUPS", "density", "novelty", "poisson_binomial", "promised", "scaffold_table"]

RADIUS = 4  # of the ECFP that Simm et al. 2018 measure the novelty of hits with
SAMPLE = 2_000  # random imaged compounds compared
GROUPS = ("initial hits", "new hits", "random imaged compounds")


def poisson_binomial(p: NDArray[np.floating]) -> NDArray[np.float64]:
    """Distribution of the number of successes of independent trials, shape (n + 1,).

    Parameters
    ----------
    p : float array, shape (n,)
        Probability of each.

    Examples
    --------
    >>> poisson_binomial(np.array([0.5, 0.5])).tolist()
    [0.25, 0.5, 0.25]
    """
    out = np.zeros(len(p) + 1)
    out[0] = 1.0
    for i, q in enumerate(np.asarray(p, np.float64), start=1):
        out[1 : i + 1] = out[1 : i + 1] * (1 - q) + out[:i] * q
        out[0] *= 1 - q
    return out


def promised(
    score: NDArray[np.floating], outcome: NDArray[np.floating], base: float, confidence: float = 0.95
) -> dict[str, Any]:
    """Compare predicted probabilities of tested compounds with what was found.

    Parameters
    ----------
    score : float array, shape (n,)
        Probabilities, 0 to 1.
    outcome : float array, shape (n,)
        0 or 1.
    base : float
        Active share among the compounds known before: what one would say without a model.
    confidence : float

    Returns
    -------
    dict
        ``found``; ``expected`` (sum of the probabilities), ``low, high`` (central range of the number of hits if
        every probability were right and compounds independent), ``within`` (found lies in it), ``share_above``
        (chance of that many or more); ``brier``, ``brier_base`` (of saying `base`).
    """
    p, y = np.asarray(score, np.float64), np.asarray(outcome, np.float64)
    spread = np.cumsum(poisson_binomial(p))
    side = (1 - confidence) / 2
    low, high = (int(np.searchsorted(spread, q - 1e-12)) for q in (side, 1 - side))
    high = min(high, len(p))
    found = int(y.sum())
    return {
        "found": found,
        "expected": float(p.sum()),
        "low": low,
        "high": high,
        "within": bool(low <= found <= high),
        "share_above": float(1 - (spread[found - 1] if found else 0.0)),
        "brier": float(np.mean((p - y) ** 2)) if len(p) else None,
        "brier_base": float(np.mean((base - y) ** 2)) if len(p) else None,
    }


def novelty(
    smiles: NDArray[np.object_],
    initial: NDArray[np.bool_],
    new: NDArray[np.bool_],
    *,
    seed: int = 0,
    sample: int = SAMPLE,
    jobs: int = 1,
) -> pd.DataFrame:
    """Similarity of three groups of compounds to the nearest initial hit.

    Parameters
    ----------
    smiles : array of str, shape (N,)
        Standardised structures of the imaged compounds; '' where unknown.
    initial : bool array, shape (N,)
        Hits known before.
    new : bool array, shape (N,)
        Hits found now; none of them is an initial one.
    seed : int
        Of the random sample.
    sample : int
        Random imaged compounds, neither initial nor new hits.
    jobs : int

    Returns
    -------
    DataFrame
        ``group`` (of `GROUPS`), ``row`` (of `smiles`), ``nearest`` (row of the nearest initial hit, -1: none) and
        ``similarity`` (Tanimoto of ECFP with radius 4, 2,048 bits). Initial hits are compared with each other, not
        with themselves. Compounds without a structure are left out.

    References
    ----------
    Simm et al. 2018, doi:10.1016/j.chembiol.2018.01.015, figure 2.
    """
    from phenohit.chem.fingerprints import ecfp
    from phenohit.chem.similarity import nearest

    known = np.asarray(smiles, object) != ""
    others = np.flatnonzero(known & ~initial & ~new)
    drawn = np.random.default_rng([seed, 1]).permutation(len(others))[:sample]
    rows = [np.flatnonzero(known & initial), np.flatnonzero(known & new), np.sort(others[drawn])]
    packed = [ecfp([str(s) for s in smiles[r]], radius=RADIUS, jobs=jobs) for r in rows]
    parts = []
    for i, (name, at, prints) in enumerate(zip(GROUPS, rows, packed, strict=True)):
        index, similarity = nearest(prints, packed[0], exclude_self=i == 0)
        if i == 0 and len(at) == 1:  # nothing to compare with but itself
            index, similarity = np.array([-1]), np.array([np.nan], np.float32)
        where = np.where(index < 0, -1, rows[0][np.maximum(index, 0)] if len(rows[0]) else -1)
        parts.append(pd.DataFrame({"group": name, "row": at, "nearest": where, "similarity": similarity}))
    return pd.concat(parts, ignore_index=True)


def density(values: NDArray[np.floating], n: int = 101) -> NDArray[np.float64]:
    """Kernel density of similarities at `n` even places from 0 to 1, shape (n,).

    Gaussian kernel, Silverman's width but at least 0.02; what would leak beyond 0 and 1 is reflected, so that
    the curve has area 1.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    grid = np.linspace(0, 1, n)
    if not len(values):
        return np.zeros(n)
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = min(values.std(), (quartiles[1] - quartiles[0]) / 1.34) or values.std()
    width = max(0.9 * spread * len(values) ** -0.2, 0.02)
    total = np.zeros(n)
    for mirrored in (values, -values, 2 - values):
        total += np.exp(-0.5 * ((grid[:, None] - mirrored[None, :]) / width) ** 2).sum(1)
    return total / (len(values) * width * np.sqrt(2 * np.pi))


def scaffold_table(compounds: pd.DataFrame, initial: NDArray[np.bool_], new: NDArray[np.bool_]) -> pd.DataFrame:
    """Count the Murcko scaffolds of the new hits.

    Parameters
    ----------
    compounds : DataFrame, N rows
        ``compound_id`` and ``scaffold`` ('' without a ring).
    initial, new : bool arrays, shape (N,)

    Returns
    -------
    DataFrame, most hits first
        ``scaffold``, ``hits``, ``new`` (no initial hit has it) and ``examples`` (ids, at most five).
    """
    scaffold = compounds["scaffold"].fillna("").astype(str)
    found = compounds[new & (scaffold != "").to_numpy()]
    known = set(scaffold[initial]) - {""}
    grouped = found.groupby(scaffold[found.index], sort=True)["compound_id"]
    rows = [
        {"scaffold": name, "hits": len(ids), "new": name not in known, "examples": "; ".join(map(str, ids[:5]))}
        for name, ids in ((str(k), list(v)) for k, v in grouped)
    ]
    table = pd.DataFrame(rows, columns=["scaffold", "hits", "new", "examples"])
    return table.sort_values(["hits", "scaffold"], ascending=[False, True], ignore_index=True)
