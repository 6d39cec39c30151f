"""Time the chemical series of 16,170 real structures, and check them.

    python bench/series.py [--data FOLDER]

FOLDER (or the environment variable PHENOHIT_DATA) holds ``labels-broad270-subset``. Compared are

* ours: connected components at ECFP6 Tanimoto >= 0.7, from packed fingerprints and from unfolded features;
* RDKit Butina at distance 0.3: BulkTanimoto lists, then `rdkit.ML.Cluster.Butina`. It needs all
  n * (n - 1) / 2 distances as Python numbers (about 4 GB for all structures), so it runs on a subset;
* FPSim2's own `symmetric_distance_matrix`, then scipy's connected components (making its file is not
  counted);
* blocks of matrix products with scipy's connected components.

Correctness: the partition of a random subset must equal brute force over RDKit's BulkTanimoto. Ends
with exit code 1 if it does not. Butina's clusters are no series: the last lines count how many pairs
at or above 0.7 fall into different clusters.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import DataStructs
from rdkit.ML.Cluster import Butina
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from phenohit.chem.fingerprints import ecfp, ecfp_features
from phenohit.chem.series import series
from phenohit.chem.similarity import nearest, tanimoto

SIMILARITY = 0.7


def timed(work: Callable, *args: object) -> tuple[float, object]:
    start = time.perf_counter()
    result = work(*args)
    return time.perf_counter() - start, result


def rdkit_bits(packed: NDArray[np.uint8]) -> list:
    return [DataStructs.CreateFromBitString("".join(map(str, row))) for row in np.unpackbits(packed, axis=1)]


def butina(bits: list) -> NDArray[np.int64]:
    distances: list[float] = []
    for i in range(1, len(bits)):
        distances.extend(1 - s for s in DataStructs.BulkTanimotoSimilarity(bits[i], bits[:i]))
    clusters = Butina.ClusterData(distances, len(bits), 1 - SIMILARITY, isDistData=True)
    label = np.empty(len(bits), dtype=np.int64)
    for k, members in enumerate(clusters):
        label[list(members)] = k
    return label


def brute_force(bits: list) -> NDArray[np.int64]:
    """Return connected components over all of RDKit's similarities."""
    pairs = [
        np.stack([np.full(len(near), i), near])
        for i in range(len(bits))
        for near in [np.flatnonzero(np.array(DataStructs.BulkTanimotoSimilarity(bits[i], bits)) >= SIMILARITY - 1e-9)]
    ]
    i, j = np.concatenate(pairs, axis=1)
    graph = sparse.coo_matrix((np.ones(len(i), dtype=bool), (i, j)), shape=(len(bits), len(bits)))
    return connected_components(graph, directed=False)[1]


def matrix_products(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return connected components over blocks of all similarities (no size bounds, repeats kept)."""
    rows, columns = [], []
    for start in range(0, len(packed), 2_000):
        i, j = np.nonzero(tanimoto(packed[start : start + 2_000], packed) >= np.float32(SIMILARITY))
        rows.append(i + start)
        columns.append(j)
    i, j = np.concatenate(rows), np.concatenate(columns)
    graph = sparse.coo_matrix((np.ones(len(i), dtype=bool), (i, j)), shape=(len(packed), len(packed)))
    return connected_components(graph, directed=False)[1]


def fpsim2(smiles: list[str], folder: str) -> tuple[float, NDArray[np.int64]]:
    """Go FPSim2's own way; return the seconds after its file was made and loaded, and the labels."""
    from FPSim2 import FPSim2Engine
    from FPSim2.io import create_db_file

    path = str(Path(folder) / "fingerprints.h5")
    molecules = [[text, row] for row, text in enumerate(smiles)]
    create_db_file(molecules, path, "smiles", "Morgan", {"radius": 3, "fpSize": 2048})
    engine = FPSim2Engine(path)
    start = time.perf_counter()
    distances = engine.symmetric_distance_matrix(SIMILARITY, n_workers=os.cpu_count() or 1)
    label = np.empty(len(smiles), dtype=np.int64)
    # Its rows are sorted by bit count; column 0 of `fps` is the row we gave.
    label[engine.fps[:, 0].astype(np.int64)] = connected_components(distances, directed=False)[1]
    return time.perf_counter() - start, label


def words_nearest(queries: NDArray[np.uint8], targets: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find nearest targets by AND and bit count of 64-bit words, one query at a time."""
    words, n_targets = targets.view(np.uint64), np.bitwise_count(targets).sum(axis=1, dtype=np.int32)
    out = np.empty(len(queries), dtype=np.int64)
    for i, query in enumerate(queries.view(np.uint64)):
        common = np.bitwise_count(words & query).sum(axis=1, dtype=np.int32)
        out[i] = (common / np.maximum(np.bitwise_count(query).sum() + n_targets - common, 1)).argmax()
    return out


def same(a: NDArray, b: NDArray) -> bool:
    return len({*zip(a.tolist(), b.tolist(), strict=True)}) == len(set(a.tolist())) == len(set(b.tolist()))


def split_pairs(label: NDArray, bits: list) -> tuple[int, int]:
    """Count pairs at or above the similarity, and those whose ends lie in different groups."""
    near = apart = 0
    for i in range(1, len(bits)):
        j = np.flatnonzero(np.array(DataStructs.BulkTanimotoSimilarity(bits[i], bits[:i])) >= SIMILARITY - 1e-9)
        near += len(j)
        apart += int((label[j] != label[i]).sum())
    return near, apart


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default=os.environ.get("PHENOHIT_DATA", ""))
    parser.add_argument("--butina", type=int, default=4_000, help="structures in the comparison with Butina")
    parser.add_argument("--brute", type=int, default=3_000, help="structures checked by brute force")
    given = parser.parse_args()
    path = Path(given.data) / "labels-broad270-subset" / "label_matrix_81.parquet"
    if not given.data or not path.exists():
        print(f"'{path}' does not exist: give --data FOLDER or set PHENOHIT_DATA.", file=sys.stderr)
        return 2
    smiles = pd.read_parquet(path, columns=["smiles"])["smiles"].tolist()
    seconds, packed = timed(ecfp, smiles)
    assert isinstance(packed, np.ndarray)
    print(f"{len(smiles):,} structures, ECFP6 in {seconds:.2f} s, {len(np.unique(packed, axis=0)):,} different")
    series(packed[:100])  # compiles
    rng = np.random.default_rng(0)
    subset = rng.choice(len(packed), given.butina, replace=False)
    bits = rdkit_bits(packed[subset])

    rows = []
    ours_all, label_all = min((timed(series, packed) for _ in range(3)), key=lambda pair: pair[0])
    sets = ecfp_features(smiles)
    unfolded, label_sets = min((timed(series, sets) for _ in range(3)), key=lambda pair: pair[0])
    products, by_products = timed(matrix_products, packed)
    with tempfile.TemporaryDirectory() as folder:
        search, by_fpsim2 = fpsim2(smiles, folder)
    rows += [("ours", len(packed), ours_all, 1.0), ("ours, unfolded", len(packed), unfolded, unfolded / ours_all)]
    rows += [
        ("matrix products", len(packed), products, products / ours_all),
        ("FPSim2 distance matrix", len(packed), search, search / ours_all),
    ]
    ours, label = min((timed(series, packed[subset]) for _ in range(3)), key=lambda pair: pair[0])
    theirs, clusters = timed(butina, bits)
    rows += [("ours", len(subset), ours, 1.0), ("RDKit Butina", len(subset), theirs, theirs / ours)]
    print(f"\n{'method':<26}{'structures':>12}{'seconds':>10}{'times ours':>12}")
    for name, n, seconds, ratio in rows:
        print(f"{name:<26}{n:>12,}{seconds:>10.2f}{ratio:>12.1f}")

    n = min(10_000, len(packed))
    blas, found = timed(nearest, packed[:n], packed[-n:])
    words, expected = timed(words_nearest, packed[: n // 10], packed[-n:])
    print(
        f"\nnearest, {n:,} x {n:,}: matrix products {blas:.2f} s; bit counts of words {10 * words:.2f} s (from a tenth)"
    )

    check = rng.choice(len(packed), given.brute, replace=False)
    right = {
        f"brute force on {given.brute:,}": same(series(packed[check]), brute_force(rdkit_bits(packed[check]))),
        "matrix products on all": same(label_all, by_products),
        "FPSim2 on all": same(label_all, by_fpsim2),
        "nearest of both ways": bool((found[0][: n // 10] == expected).all()),
    }
    print(f"\nseries: {label_all.max() + 1:,}, the largest with {np.bincount(label_all)[0]:,} structures")
    print(f"of unfolded features: {label_sets.max() + 1:,}, the largest with {np.bincount(label_sets)[0]:,} structures")
    for name, ok in right.items():
        print(f"equal to {name}: {'yes' if ok else 'NO'}")
    for name, groups in (("ours", label), ("RDKit Butina", clusters)):
        near, apart = split_pairs(groups, bits)
        print(f"pairs at >= {SIMILARITY} torn apart by {name}: {apart:,} of {near:,}")
    return 0 if all(right.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
