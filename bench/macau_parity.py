"""Held-out errors and seconds per sweep of Macau against SMURFF 1.1 on whole real matrices with ECFP6 features.

    python bench/macau_parity.py [--bits 1024] [--latent 32] [--sweeps 100 300] [--seeds 3] [NAME ...]

Needs `pip install smurff==1.1` and the folder of real data (PHENOHIT_DATA, or ../shared/data). The problems, splits
and bounds are those of tests/models/test_macau_parity.py: cold is a fifth of the compounds by chemical series, warm a
tenth of the other entries. One thread; seconds are processor seconds and include what comes before the first sweep.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before anything that reads them
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from tests.models import test_macau_parity as parity  # noqa: E402

PROBLEMS = ("broad270", "hti209", "fsmol", "hti209 probit")


def whole(folder: Path, name: str, bits: int) -> parity.Problem:
    """All compounds and assays; with probit also features as the pipeline prepares them."""
    source, _, probit = name.partition(" ")
    given = parity.problem(folder, source, bits=bits, centre="assay" if source == "fsmol" else "global")
    return replace(parity.prepared(given), likelihood="probit", centre="none") if probit else given


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.process_time()
    return work(*arguments), time.process_time() - start


def base(given: parity.Problem) -> dict[str, np.ndarray]:
    """Predict every assay's mean in training."""
    mean = parity.offsets(replace(given, centre="assay"))
    return {part: mean[held.coords[1]] for part, held in given.held.items()}


def lines(given: parity.Problem, found: dict[str, parity.Found]) -> pd.DataFrame:
    """Mean and standard deviation over seeds of all errors, a row each."""
    rows = {}
    for part in given.held:
        for who, seeds in found.items():
            table = pd.DataFrame([parity.errors(given, part, seed[part]) for seed in seeds])
            for what in table:
                sd = "" if len(table) == 1 else f" ± {table[what].std():.4f}"
                rows.setdefault((part, what), {})[who] = f"{table[what].mean():.4f}{sd}"
    return pd.DataFrame.from_dict(rows, orient="index")


def compare(name: str, given: parity.Problem, length: parity.Length, seeds: range) -> None:
    """Print everything about one matrix."""
    sizes = " + ".join(f"{held.nnz:,} {part}" for part, held in given.held.items())
    active = given.train.data > (0.5 if given.binary else parity.SUBMICROMOLAR)
    print(
        f"\n{name}: {given.train.shape[0]:,} compounds x {given.train.shape[1]} assays, {given.likelihood}, "
        f"{given.data.X.shape[1]} bits; {given.train.nnz:,} entries, {active.mean():.1%} active; held out {sizes}"
    )
    found: dict[str, parity.Found] = {"base rate": [base(given)], "ours": [], "smurff": []}
    spent: dict[str, list[float]] = {"ours": [], "smurff": [], "predicting": []}
    for seed in seeds:
        model, seconds = timed(parity.fitted, given, seed, length)
        spent["ours"].append(seconds)
        score, seconds = timed(parity.ours, given, model)
        spent["predicting"].append(seconds)
        found["ours"].append(score)
        score, seconds = timed(parity.theirs, given, seed, length)
        spent["smurff"].append(seconds)
        found["smurff"].append(score)
    print(lines(given, found).to_string())
    if len(seeds) > 1:
        print(parity.compared(given, found["ours"], found["smurff"]).round(4).to_string(index=False))
    sweeps = length.burn_in + length.used
    a, b = (np.mean(spent[who]) / sweeps for who in ("ours", "smurff"))
    print(
        f"seconds per sweep: ours {a:.3f}, smurff {b:.3f}, ratio {b / a:.1f}; ours besides, for predicting all rows: "
        f"{np.mean(spent['predicting']):.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Macau against SMURFF 1.1 on real matrices")
    parser.add_argument("names", nargs="*", default=PROBLEMS, metavar="NAME", help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--bits", type=int, default=1024)
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--sweeps", type=int, nargs=2, default=(100, 300), metavar=("BURN_IN", "USED"))
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    folder = Path(os.environ.get("PHENOHIT_DATA", ROOT.parent / "shared" / "data"))
    length = parity.Length(chosen.latent, *chosen.sweeps)
    print(f"REAL data; K = {length.latent}, {length.burn_in} + {length.used} sweeps, {chosen.seeds} seeds, one thread")
    for name in chosen.names:
        compare(name, whole(folder, name, chosen.bits), length, range(1, chosen.seeds + 1))


if __name__ == "__main__":
    main()
