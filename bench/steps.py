"""Per-plate normalisation to controls: ours against pycytominer called plate by plate, on simulated wells.

Each way runs in its own process, so that peak memory is its own; both start from the same float32 matrix. The plain
way is the one of the pycytominer tutorials: a data frame of all wells, ``normalize`` for each plate, ``concat``.
On a machine that others use, the ratio of processor time is the one to read.

    python bench/steps.py                     # 100,000 wells x 1,800 features
    python bench/steps.py --wells 20000 --features 500
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd

from phenohit.config import Step
from phenohit.data.profiles import Profiles
from phenohit.profiles.normalise import normalise
from phenohit.profiles.verbs import pycytominer


def simulate(wells: int, features: int) -> Profiles:
    """Simulate plates of 384 wells, 32 of them controls."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((wells, features), dtype=np.float32)
    plate = np.arange(wells) // 384
    rows = pd.DataFrame({"Metadata_Plate": [f"P{p:04d}" for p in plate]})
    rows["Metadata_pert_type"] = np.where(np.arange(wells) % 384 < 32, "negcon", "trt")
    return Profiles(X, rows, [f"Cells_{j}" for j in range(features)])


def ours(given: Profiles, method: str) -> np.ndarray:
    return normalise(given, Step("normalise", method))[0].X


def plain(given: Profiles, method: str) -> np.ndarray:
    frame = pd.concat([given.rows, pd.DataFrame(given.X, columns=given.features)], axis=1)
    parts = [
        pycytominer().normalize(
            part, features=given.features, meta_features=list(given.rows),
            samples="Metadata_pert_type == 'negcon'", method=method, mad_robustize_epsilon=1e-6,
        )
        for _, part in frame.groupby("Metadata_Plate", sort=False)
    ]  # fmt: skip
    return pd.concat(parts)[given.features].to_numpy()


def one(way: str, method: str, wells: int, features: int) -> None:
    given = simulate(wells, features)
    pycytominer()
    normalise(given.take(np.arange(384)), Step("normalise", method))  # libraries load
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    out = {"ours": ours, "plain": plain}[way](given, method)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{seconds:.3f} {cpu:.3f} {before / 2**20:.3f} {peak / 2**20:.3f} {float(np.abs(out[::97]).mean()):.6f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wells", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1_800)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        one(*chosen.one, chosen.wells, chosen.features)
        return
    size = chosen.wells * chosen.features * 4 / 2**30
    load = os.getloadavg()[0]
    print(f"simulated: {chosen.wells:,} wells x {chosen.features:,} features, {size:.2f} GiB, load {load:.1f}")
    for method in ("mad_robustize", "standardize"):
        found = {}
        for way in ("ours", "plain"):
            command = [sys.executable, __file__, "--one", way, method]
            command += ["--wells", str(chosen.wells), "--features", str(chosen.features)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way] = [float(v) for v in done.stdout.split()]
        for way, (seconds, cpu, before, peak, mean) in found.items():
            print(f"  {method:14s} {way:6s} {seconds:7.1f} s, {cpu:.1f} s of processor, "
                  f"peak {peak:.2f} GiB (input and libraries {before:.2f}), mean |z| {mean:.4f}")  # fmt: skip
        wall, cpu, peak = (found["plain"][i] / found["ours"][i] for i in (0, 1, 3))
        print(f"  {method:14s} ratio  time {wall:.2f}, processor {cpu:.2f}, peak {peak:.2f} (plain / ours)")


if __name__ == "__main__":
    main()
