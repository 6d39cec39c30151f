"""Chemical series from ten thousand to half a million SIMULATED compounds: time, memory, pairs looked at.

    python bench/series_scale.py FOLDER [N ...] [--jobs 1] [--all-pairs 30000] [--peers 17000]

The library (`phenohit.chem.library`, 524,371 compounds in random order; a smaller N takes the first N) and its
features are made once and kept in FOLDER, which takes about half an hour of one core. Every measurement runs in a
process of its own, after a first run on 1,000 compounds that loads the compiled code. Seconds are those of
`phenohit.chem.series.series`, by the clock and of processor time; memory is the peak of the process with everything
it imported and holds. Compared are

* ``unfolded``: the join of unfolded ECFP6 features; ``folded``: of fingerprints of 2,048 bits;
* ``all pairs``: the same fingerprints, all pairs compared by bit counts (up to ``--all-pairs`` compounds);
* FPSim2's `symmetric_distance_matrix` and RDKit's BulkTanimoto with scipy's connected components, one thread each
  (at ``--peers`` compounds; 0: not at all). Making FPSim2's file is not counted.

Ends with exit code 1 if ways that must agree do not: all on folded fingerprints, and, on unfolded features, joining
the last tenth to the series of the rest with doing all at once.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from phenohit.chem import series as chemical
from phenohit.chem.fingerprints import ecfp_features
from phenohit.chem.join import join, sets_of
from phenohit.chem.similarity import Sets

SIMILARITY = 0.7
WHOLE = 524_371
SIZES = (10_000, 30_000, 100_000, 300_000, WHOLE)


def made(folder: Path) -> None:
    """Make library and features once."""
    if not (folder / "library.parquet").exists():
        from phenohit.chem.library import build_library

        library = build_library(WHOLE)[["parent"]]
        library = library.iloc[np.random.default_rng(0).permutation(len(library))]
        library.to_parquet(folder / "library.parquet", index=False)
    if not (folder / "features.npz").exists():
        smiles = pd.read_parquet(folder / "library.parquet")["parent"].tolist()
        sets = ecfp_features(smiles, jobs=1)
        np.savez(folder / "features.npz", start=sets.start, features=sets.features)


def first(folder: Path, n: int) -> Sets:
    with np.load(folder / "features.npz") as file:
        start = file["start"][: n + 1]
        return Sets(start, file["features"][: start[-1]].copy())


def one(folder: Path, n: int, way: str, jobs: int) -> dict[str, Any]:
    """Measure one way at one size, in this process."""
    sets = first(folder, n)
    given: Any = sets if way in ("unfolded", "extend") else sets.packed()
    del sets
    if way == "all pairs":
        chemical._DENSE = 2.0  # never by the join
    small = first(folder, 1_000)
    chemical.series(small if isinstance(given, Sets) else small.packed(), similarity=SIMILARITY, jobs=jobs)
    if way == "extend":
        return extended(given, n, jobs)
    clock, processor = time.perf_counter(), time.process_time()
    label = chemical.series(given, similarity=SIMILARITY, jobs=jobs)
    seconds, processor = time.perf_counter() - clock, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    np.save(folder / f"label-{way.replace(' ', '-')}-{n}.npy", label)
    found = {"seconds": seconds, "processor": processor, "peak": peak, "series": int(label.max()) + 1}
    found["largest"] = int(np.bincount(label)[0])
    if way != "all pairs":
        tally = join(given if isinstance(given, Sets) else sets_of(given), SIMILARITY, jobs=jobs)
        found |= {"entries": tally.entries, "candidates": tally.candidates, "compared": tally.compared}
    return found


def extended(sets: Sets, n: int, jobs: int) -> dict[str, Any]:
    """Join the last tenth to the series of the rest; compare with all at once."""
    cut = n - n // 10
    old = Sets(sets.start[: cut + 1], sets.features[: sets.start[cut]])
    new = Sets(sets.start[cut:] - sets.start[cut], sets.features[sets.start[cut] :])
    known = chemical.series(old, similarity=SIMILARITY, jobs=jobs)
    clock, processor = time.perf_counter(), time.process_time()
    label = chemical.extend(known, old, new, similarity=SIMILARITY, jobs=jobs)
    seconds, processor = time.perf_counter() - clock, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    right = same(label, chemical.series(sets, similarity=SIMILARITY, jobs=jobs))
    found = {"seconds": seconds, "processor": processor, "peak": peak, "equal": bool(right)}
    return found | {"series": len(np.unique(label)), "largest": int(np.bincount(label).max())}


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    both = len(np.unique(a.astype(np.int64) * (int(b.max()) + 1) + b))
    return both == len(np.unique(a)) == len(np.unique(b))


def fpsim2(folder: Path, n: int) -> tuple[float, NDArray[Any]]:
    from FPSim2 import FPSim2Engine
    from FPSim2.io import create_db_file

    smiles = pd.read_parquet(folder / "library.parquet")["parent"].iloc[:n].tolist()
    with tempfile.TemporaryDirectory() as scratch:
        path = str(Path(scratch) / "fingerprints.h5")
        molecules = [[text, row] for row, text in enumerate(smiles)]
        create_db_file(molecules, path, "smiles", "Morgan", {"radius": 3, "fpSize": 2048})
        engine = FPSim2Engine(path)
        start = time.perf_counter()
        links = engine.symmetric_distance_matrix(SIMILARITY, n_workers=1)
        label = np.empty(n, dtype=np.int64)
        label[engine.fps[:, 0].astype(np.int64)] = connected_components(links, directed=False)[1]
    return time.perf_counter() - start, label


def rdkit(folder: Path, n: int) -> tuple[float, NDArray[Any]]:
    from rdkit import DataStructs

    bits = np.unpackbits(first(folder, n).packed(), axis=1)
    vectors = [DataStructs.CreateFromBitString("".join(map(str, row))) for row in bits]
    start = time.perf_counter()
    i, j = [], []
    for row in range(1, n):
        near = np.array(DataStructs.BulkTanimotoSimilarity(vectors[row], vectors[:row])) >= SIMILARITY - 1e-9
        j.append(np.flatnonzero(near))
        i.append(np.full(len(j[-1]), row))
    at = (np.concatenate(i), np.concatenate(j))
    graph = sparse.coo_matrix((np.ones(len(at[0]), dtype=bool), at), shape=(n, n))
    label = connected_components(graph, directed=False)[1]
    return time.perf_counter() - start, label


def measured(folder: Path, n: int, way: str, jobs: int) -> dict[str, Any]:
    command = [sys.executable, __file__, str(folder), str(n), "--jobs", str(jobs), "--way", way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{way} at {n:,}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    row = f"{n:>9,} {way:<10}{jobs:>3}{found['seconds']:>9.1f}{found['processor']:>10.1f}{found['peak']:>7.2f}"
    row += f"{found['series']:>9,}{found['largest']:>8,}"
    for name in ("entries", "candidates", "compared"):
        row += f"{found[name]:>16,}" if name in found else ""
    print(row, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--all-pairs", type=int, default=30_000)
    parser.add_argument("--peers", type=int, nargs="*", default=[17_000])
    parser.add_argument("--way", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(one(given.folder, given.sizes[0], given.way, given.jobs)))
        return 0
    given.folder.mkdir(parents=True, exist_ok=True)
    made(given.folder)
    print(
        f"{'compounds':>9} {'way':<10}{'jobs':>3}{'seconds':>8}{'processor':>10}{'GiB':>7}{'series':>9}{'largest':>8}",
        end="",
    )
    print(f"{'entries':>16}{'candidates':>16}{'compared':>16}")
    right = {}
    for n in given.sizes:
        for way in ("unfolded", "folded", "extend", *(["all pairs"] if n <= given.all_pairs else [])):
            found = measured(given.folder, n, way, given.jobs)
            right |= {f"extended at {n:,}": found["equal"]} if way == "extend" else {}
        if n <= given.all_pairs:
            a, b = (np.load(given.folder / f"label-{way}-{n}.npy") for way in ("folded", "all-pairs"))
            right[f"all pairs at {n:,}"] = same(a, b)
    for n in given.peers:
        ours = [measured(given.folder, n, way, 1) for way in ("unfolded", "folded")]
        label = np.load(given.folder / f"label-folded-{n}.npy")
        for name, work in (("FPSim2", fpsim2), ("RDKit", rdkit))[: 2 if n <= 20_000 else 1]:
            seconds, theirs = work(given.folder, n)
            right[f"{name} at {n:,}"] = same(label, theirs)
            times = ", ".join(
                f"{seconds / o['seconds']:.0f} times {w}" for o, w in zip(ours, ("unfolded", "folded"), strict=True)
            )
            print(f"{n:>9,} {name:<10}{1:>3}{seconds:>9.1f}   {times}", flush=True)
    for name, ok in right.items():
        print(f"equal to {name}: {'yes' if ok else 'NO'}")
    return 0 if all(right.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
