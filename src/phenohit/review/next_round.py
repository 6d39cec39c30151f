"""What to test next, in three moods: more of the same, something else, and where the model knows nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped
from phenohit.errors import ShapeError
from phenohit.hits.filter import NOT_CHECKED, Evidence, findings, flag, rejected

__all__ = [
    "MODES",
    "Sieve",
    "Space",
    "chemical_space",
    "farthest_first",
    "image_space",
    "isolation",
    "suggest",
    "to_nearest",
]

MODES = {
    "exploit": "highest score",
    "diversify": "high scores, one per chemical series, as unlike as can be to all that was measured",
    "widen": "where the model knows least: unlike anything measured in the assay, but amid the imaged compounds",
}
COLUMNS = ["order", "compound_id", "smiles", "score", "score_rank", "series", "scaffold", "pains", "distance", "reason"]
_AHEAD = 64  # rows judged together: one call of a filter has a fixed cost
POOL, TOP = 5, 0.2  # diversify chooses among this many times the picks, or the best fifth where that is fewer
ISOLATED = 0.95  # widen leaves out the compounds that lie further from their neighbours than this share
NEIGHBOURS = 5
REFERENCE = 10_000  # compounds that neighbours are sought among; a seeded sample of more
_VARIANCE, _COMPONENTS = 0.95, 50
_BLOCK = 1_024

Distances = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float32]]
Judge = Callable[[NDArray[np.intp]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Space:
    """Where compounds lie, as distances.

    Attributes
    ----------
    distances : callable
        Rows (n,) and rows (m,) to a float32 block (n, m).
    known : bool array, shape (N,)
        False for compounds that have no place.
    name : str
        What is near in it, in words.
    """

    distances: Distances
    known: NDArray[np.bool_]
    name: str


def chemical_space(fingerprints: NDArray[np.uint8]) -> Space:
    """Make a space of Tanimoto distances."""
    from phenohit.chem.similarity import tanimoto

    def distances(a: NDArray[np.intp], b: NDArray[np.intp]) -> NDArray[np.float32]:
        return 1 - tanimoto(fingerprints[a], fingerprints[b])

    return Space(distances, fingerprints.any(axis=1), "structure (ECFP6 Tanimoto)")


def image_space(X: NDArray[np.floating], known: NDArray[np.bool_]) -> Space:
    """Make a space of Euclidean distances between standardised profiles, in their main components.

    Parameters
    ----------
    X : float array, shape (N, F)
        Profiles of compounds; rows that are not `known` are not looked at. NaN counts as the mean.
    known : bool array, shape (N,)
    """
    Z = np.array(X[known], dtype=np.float32)
    if not Z.size:
        raise ShapeError("There are no profiles to measure distances in.")
    with np.errstate(invalid="ignore"):
        Z -= np.nan_to_num(np.nanmean(Z, axis=0))
    Z = np.nan_to_num(Z)
    spread = Z.std(axis=0)
    Z = np.clip(Z[:, spread > 0] / spread[spread > 0], -10, 10)
    values, vectors = np.linalg.eigh((Z.T @ Z).astype(np.float64) / len(Z))
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    kept = 1 + int(np.searchsorted(np.cumsum(values) / max(values.sum(), 1e-300), _VARIANCE))
    place = np.zeros((len(X), min(kept, _COMPONENTS, Z.shape[1])), dtype=np.float32)
    place[known] = Z @ vectors[:, : place.shape[1]].astype(np.float32)
    square = np.einsum("ij,ij->i", place, place)

    def distances(a: NDArray[np.intp], b: NDArray[np.intp]) -> NDArray[np.float32]:
        return np.sqrt(np.maximum(square[a][:, None] + square[b][None, :] - 2 * place[a] @ place[b].T, 0))

    return Space(distances, known, "profile (main components of the features)")


def to_nearest(space: Space, rows: NDArray[np.intp], targets: NDArray[np.intp]) -> NDArray[np.float32]:
    """Distance of each row to the nearest target, infinite where there is none; (n,)."""
    best = np.full(len(rows), np.inf, dtype=np.float32)
    for a in range(0, len(rows), _BLOCK):
        for b in range(0, len(targets), 4 * _BLOCK):
            block = space.distances(rows[a : a + _BLOCK], targets[b : b + 4 * _BLOCK])
            np.minimum(best[a : a + _BLOCK], block.min(axis=1), out=best[a : a + _BLOCK])
    return best


def isolation(space: Space, rows: NDArray[np.intp], reference: NDArray[np.intp]) -> NDArray[np.float32]:
    """Distance of each row to its fifth nearest neighbour in the reference, itself not counted; (n,)."""
    out = np.full(len(rows), np.inf, dtype=np.float32)
    for a in range(0, len(rows), _BLOCK):
        part = rows[a : a + _BLOCK]
        block = space.distances(part, reference)
        block[part[:, None] == reference[None, :]] = np.inf
        k = min(NEIGHBOURS, block.shape[1]) - 1
        if k >= 0:
            out[a : a + _BLOCK] = np.partition(block, k, axis=1)[:, k]
    return out


class Sieve:
    """Which candidates the filters of a run let through; each is judged once, and not before it is asked for.

    Parameters
    ----------
    table : DataFrame, M rows
        Candidates; columns ``compound``, ``compound_id`` and ``smiles``.
    filters : sequence of str
        Names in `phenohit.hits.filter.FILTERS` whose finding rejects. PAINS are marked in any case.
    evidence : Evidence

    Attributes
    ----------
    found : dict of str to object array, shape (M,)
        What each filter found; ``not checked`` where nobody asked.
    """

    def __init__(self, table: pd.DataFrame, filters: Sequence[str], evidence: Evidence) -> None:
        self.table, self.filters, self.evidence = table, tuple(filters), evidence
        names = dict.fromkeys(("pains", *filters))
        self.found = {name: np.full(len(table), NOT_CHECKED, dtype=object) for name in names}
        self._judged = np.zeros(len(table), dtype=bool)
        self._out = np.zeros(len(table), dtype=bool)

    def passes(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Say which of the rows no filter speaks against, shape (n,)."""
        new = rows[~self._judged[rows]]
        if len(new):
            for name, column in self.found.items():
                column[new] = flag(self.table.iloc[new], name, self.evidence)
                if name in self.filters:
                    self._out[new] |= rejected(column[new])
            self._judged[new] = True
        return ~self._out[rows]

    def first(self, rows: NDArray[np.intp], n: int) -> NDArray[np.intp]:
        """Return the first `n` of the rows that pass, looking no further than needed."""
        start, kept = 0, np.zeros(0, dtype=np.intp)
        while len(kept) < n and start < len(rows):
            block = rows[start : start + max(_AHEAD, n - len(kept))]
            kept = np.concatenate([kept, block[self.passes(block)]])
            start += len(block)
        return kept[:n]

    def dropped(self) -> pd.DataFrame:
        """List the rejected rows with all that was found (see `phenohit.data.dropped`)."""
        lost = self.table.assign(**self.found)[self._out]
        return dropped("filter the next round", "compound", lost["compound_id"], findings(lost, self.filters))


def farthest_first(
    space: Space,
    rows: NDArray[np.intp],
    start: NDArray[np.floating],
    n: int,
    group: NDArray[np.integer] | None = None,
    passes: Judge | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Take, again and again, the row farthest from all that was measured or taken (MaxMin).

    Parameters
    ----------
    space : Space
    rows : int array, shape (m,)
        Candidates, best first: the first of equally far ones is taken.
    start : float array, shape (m,)
        Distance of each to the nearest measured compound.
    n : int
    group : int array, shape (m,), optional
        At most one row of a group is taken; below 0: a group of its own.
    passes : callable, optional
        Positions in `rows` -> whether each may be taken. Asked only about the farthest: others cost nothing.

    Returns
    -------
    taken : int array, shape (up to n,)
        Positions in `rows`, in the order taken.
    distance : float32 array
        To the nearest compound measured or taken before.

    Notes
    -----
    Ashton et al. 2002, Quant. Struct.-Act. Relat. 21, 598; a 2-approximation of the best cover (Gonzalez 1985).
    """
    left = np.array(start, dtype=np.float32)
    judged = np.full(len(rows), passes is None)
    taken, far = [], []
    while len(taken) < min(n, len(rows)):
        i = int(left.argmax())
        if left[i] < 0:
            break
        if passes is not None and not judged[i]:
            ahead = np.union1d(np.argpartition(-left, min(_AHEAD, len(left)) - 1)[:_AHEAD], [i])
            ahead = ahead[~judged[ahead] & (left[ahead] >= 0)]
            judged[ahead] = True
            left[ahead[~passes(ahead)]] = -1
            continue
        taken.append(i)
        far.append(float(left[i]))
        np.minimum(left, space.distances(rows, rows[i : i + 1])[:, 0], out=left)
        left[i] = -1  # distances are not negative, so this stays the least
        if group is not None and group[i] >= 0:
            left[group == group[i]] = -1
    return np.array(taken, dtype=np.intp), np.array(far, dtype=np.float32)


def suggest(
    candidates: pd.DataFrame,
    measured: NDArray[np.bool_],
    fingerprints: NDArray[np.uint8],
    images: Space | None,
    *,
    n: int,
    filters: Sequence[str] = ("pains",),
    evidence: Evidence | None = None,
    seed: int = 0,
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Choose compounds for the next round in each mode.

    Parameters
    ----------
    candidates : DataFrame, best first
        ``row`` (of the imaged compounds), ``compound, compound_id, smiles, score, series, scaffold``; none measured.
    measured : bool array, shape (N,)
        Imaged compounds measured in the assay, these results included.
    fingerprints : uint8 array, shape (N, B)
        Packed ECFP6.
    images : Space or None
        For `widen`; None: structures are used.
    n : int
        Compounds of each list.
    filters : sequence of str
        Those of the run's hits (`phenohit.hits.recipes.Recipe.filters`): what they speak against is on no list.
    evidence : Evidence, optional
        What the filters may look at besides structures.
    seed : int
        Of the sample that neighbours are sought in.

    Returns
    -------
    lists : dict of str to DataFrame
        For each of `MODES`: ``order, compound_id, smiles, score, score_rank, series, scaffold, pains``, one column per
        other filter with what it found, ``distance`` (to the nearest compound measured or named before it; NaN for
        exploit) and ``reason``.
    dropped : DataFrame
        Compounds that a filter kept out, of those that were looked at, each once with all that was found.
    """
    candidates = candidates.reset_index(drop=True)
    sieve = Sieve(candidates, filters, evidence or Evidence())
    best = sieve.first(np.arange(len(candidates)), n)
    found = {"exploit": (best, np.full(len(best), np.nan))}
    pool = min(POOL * n, max(2 * n, int(TOP * len(candidates))))
    found["diversify"] = _diverse(candidates, measured, chemical_space(fingerprints), n, pool, sieve)
    space = images or chemical_space(fingerprints)
    found["widen"] = _wide(candidates, measured, space, n, seed, sieve)
    at = COLUMNS.index("pains") + 1
    columns = [*COLUMNS[:at], *(name for name in sieve.found if name != "pains"), *COLUMNS[at:]]
    lists = {}
    for mode in MODES:
        rows, far = found[mode]
        table = _listed(candidates, rows, far, mode, space.name)
        lists[mode] = table.assign(**{name: texts[rows] for name, texts in sieve.found.items()})[columns]
    return lists, sieve.dropped()


def _diverse(
    candidates: pd.DataFrame, measured: NDArray[np.bool_], space: Space, n: int, pool: int, sieve: Sieve
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Go farthest first among the best-scoring candidates that pass, one per series."""
    at, done = candidates["row"].to_numpy(np.intp), np.flatnonzero(measured & space.known)
    high = sieve.first(np.flatnonzero(space.known[at]), pool)
    start = to_nearest(space, at[high], done)
    start = np.where(np.isinf(start), 1, start)
    taken, far = farthest_first(space, at[high], start, n, candidates["series"].to_numpy()[high])
    return high[taken], far


def _wide(
    candidates: pd.DataFrame, measured: NDArray[np.bool_], space: Space, n: int, seed: int, sieve: Sieve
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Go farthest first among all candidates that have neighbours; only what would be named is filtered."""
    at, done = candidates["row"].to_numpy(np.intp), np.flatnonzero(measured & space.known)
    reference = np.random.default_rng([seed, 2]).permutation(np.flatnonzero(space.known))[:REFERENCE]
    here = np.flatnonzero(space.known[at])
    if not len(here):
        return here, np.zeros(0, np.float32)
    limit = np.quantile(isolation(space, reference, reference), ISOLATED)
    here = here[isolation(space, at[here], reference) <= limit]
    start = to_nearest(space, at[here], done)
    start = np.where(np.isinf(start), np.finfo(np.float32).max, start)
    taken, far = farthest_first(space, at[here], start, n, passes=lambda rows: sieve.passes(here[rows]))
    return here[taken], far


def _listed(
    candidates: pd.DataFrame, rows: NDArray[np.intp], far: NDArray[np.floating], mode: str, space: str
) -> pd.DataFrame:
    columns = ["compound_id", "smiles", "score", "series", "scaffold"]
    table = candidates.loc[rows, columns].reset_index(drop=True)
    table.insert(0, "order", np.arange(1, len(table) + 1))
    table.insert(4, "score_rank", rows + 1)
    table["distance"] = far
    words = {
        "exploit": "score {s:.3f}, rank {r:,} of {n:,}",
        "diversify": "{d:.2f} away (1 - ECFP6 Tanimoto) from all measured or named before; score {s:.3f}, rank {r:,}",
        "widen": "{d:.3g} away in " + space + " from all measured or named before; score {s:.3f}, rank {r:,}",
    }[mode]
    table["reason"] = [
        words.format(s=s, r=r, d=d, n=len(candidates))
        for s, r, d in zip(table["score"], table["score_rank"], table["distance"], strict=True)
    ]
    return table
