"""Pick a plate's worth: many chemical series, a random handful of each, best series first."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.errors import ConfigError, ShapeError

__all__ = ["check_choice", "choose", "cluster", "lottery"]


def check_choice(n: int, pool: float, similarity: float, per_cluster: int) -> None:
    """Refuse settings under which a choice makes no sense.

    Raises
    ------
    ConfigError
        Naming the setting, its value and the allowed range.
    """
    rules = [
        ("n", n, n >= 1 and n == int(n), "a whole number from 1 up"),
        ("pool", pool, pool >= 1, "1 or more: picks come out of pool * n compounds (.inf: all)"),
        ("similarity", similarity, 0 < similarity <= 1, "above 0 and at most 1"),
        ("per_cluster", per_cluster, per_cluster >= 1 and per_cluster == int(per_cluster), "a whole number from 1 up"),
    ]
    for name, value, allowed, expected in rules:
        if not allowed:
            raise ConfigError(f"hits.{name} is {value}; it must be {expected}.")


def lottery(keys: NDArray[np.object_], seed: int) -> NDArray[np.uint64]:
    """Draw one number per compound from the seed and the key alone, shape (N,).

    The draw of a compound is the same whatever else is in the table and in whatever order, and on
    every platform and library version.
    """
    digests = (hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def cluster(fingerprints: NDArray[np.uint8], similarity: float) -> NDArray[np.int64]:
    """Group compounds, given best first, into numbered series, shape (N,); 0 holds the best.

    Parameters
    ----------
    fingerprints : uint8 array, shape (N, B)
        Packed. A row without any bit stands for an unknown structure and is a cluster of its own.
    similarity : float
        Tanimoto similarity at or above which two compounds are linked.
    """
    from phenohit.chem.series import series

    label = -1 - np.arange(len(fingerprints), dtype=np.int64)
    known = np.flatnonzero(fingerprints.any(axis=1))
    if len(known):
        label[known] = series(fingerprints[known], similarity=similarity)
    return pd.factorize(label)[0].astype(np.int64)


def choose(
    table: pd.DataFrame,
    fingerprints: NDArray[np.uint8],
    *,
    n: int = 342,
    pool: float = 3.0,
    similarity: float = 0.7,
    per_cluster: int = 5,
    fill: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Choose `n` diverse compounds from the top of a ranking.

    The best ``pool * n`` compounds are clustered. Clusters take their turn in the order of their
    best member; each gives at most `per_cluster` compounds, drawn at random. If the clusters run
    out first and `fill` is True, the cap is lifted by one at a time, again in the order of the clusters,
    until `n` are picked.

    Parameters
    ----------
    table : DataFrame, N rows
        Compounds that passed the filters: columns ``compound`` (unique) and ``score``, any order.
    fingerprints : uint8 array, shape (N, B)
        Packed ECFP6 of the rows of `table`.
    n : int, default 342
        About the non-control wells of a 384-well plate (Simm et al. 2018).
    pool : float, default 3
        At least 1; inf: all. The larger, the more diverse and the lower the scores.
    similarity : float, default 0.7
        Tanimoto similarity that links two compounds, as in series splits.
    per_cluster : int, default 5
        Most picks of one cluster.
    fill : bool
        Lift the cap where the clusters run out.
    seed : int
        Same seed, same picks, whatever the order of the rows.

    Returns
    -------
    DataFrame
        `table` in its own order with ``cluster`` (0 holds the best compound; -1 below the pool),
        ``picked`` (bool) and ``pick_order`` (1 = first; 0 where not picked). Exactly
        ``min(n, N)`` rows are picked with `fill`, at most as many without.

    Raises
    ------
    ConfigError, ShapeError

    Notes
    -----
    Simm et al. 2018 clustered their top-ranked compounds and drew a random handful per cluster.
    Clusters here are connected components (single linkage), not leader clusters: they do not depend
    on the order of the input, they mean the same as a series in the splits, and two picks of
    different clusters are never `similarity` or more alike, which leader clusters cannot promise.
    Linkage can chain; a long chain counts as one cluster and then gives only `per_cluster` picks.
    """
    check_choice(n, pool, similarity, per_cluster)
    if len(fingerprints) != len(table):
        raise ShapeError(f"There are {len(table)} compounds, but {len(fingerprints)} fingerprints.")
    keys, score = table["compound"].astype(str).to_numpy(dtype=object), table["score"].to_numpy()
    best_first = np.lexsort((keys, -score))[: math.ceil(min(pool * n, len(table)))]

    label = cluster(fingerprints[best_first], similarity)
    turn = _turns(label, lottery(keys[best_first], seed))
    # Within the cap: cluster by cluster. Beyond it: one more of every cluster in each round.
    over = np.maximum(turn - per_cluster + 1, 0)
    order = np.lexsort((turn, label, over))[: n if fill else min(n, int((over == 0).sum()))]

    cluster_of = np.full(len(table), -1, dtype=np.int32)
    cluster_of[best_first] = label
    pick_order = np.zeros(len(table), dtype=np.int32)
    pick_order[best_first[order]] = np.arange(1, len(order) + 1)
    return table.assign(cluster=cluster_of, picked=pick_order > 0, pick_order=pick_order)


def _turns(label: NDArray[np.int64], draw: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return each row's place (0 first) within its cluster in the order of the draw, shape (N,)."""
    order = np.lexsort((draw, label))
    ordered = label[order]
    first = np.searchsorted(ordered, ordered, side="left")
    turn = np.empty(len(label), dtype=np.int64)
    turn[order] = np.arange(len(label)) - first
    return turn
