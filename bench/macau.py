"""Seconds per sweep, memory and held-out error of Macau against SMURFF 1.1, on one SIMULATED matrix of Simm's shape.

    python bench/macau.py [N ...] [--latent K]    # 20,000 and 100,000 compounds, 150 dimensions unless given

1,200 assays, 1.6 % of the entries measured, 842 features, noise precision 10, two threads; needs `smurff==1.1`.
Both get the same data and the same sweeps, each in a process of its own; SMURFF's direct solver, as its users run it.
Where SMURFF would need more memory than there is, ours runs alone. ``floor`` is the time that our arithmetic takes at
the speed at which this processor, just before, multiplied the features with a link matrix.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import sparse

SIZES = (20_000, 100_000)
T, F, FILL, RANK = 1200, 842, 0.016, 24
BURN_IN, USED = 12, 12  # sweeps; what is compared is their speed, and their error after as many
THREADS = 2


def simulate(n: int) -> tuple[np.ndarray, sparse.csr_matrix, sparse.csr_matrix]:
    """Features, training and held-out values; compounds differ ten-fold in how often they were measured."""
    rng = np.random.default_rng(n)
    X = rng.standard_normal((n, F), dtype=np.float32)
    U = X @ (rng.standard_normal((F, RANK), dtype=np.float32) / F**0.5)
    U += 0.5 * rng.standard_normal(U.shape, dtype=np.float32)
    V = rng.standard_normal((T, RANK), dtype=np.float32) / RANK**0.5
    rate = rng.lognormal(0, 0.8, n) * rng.lognormal(0, 0.8, T)[:, None]
    row, column = [], []
    for task in range(T):  # assay by assay, so that no N x T block is made
        chosen = np.flatnonzero(rng.random(n) < np.minimum(rate[task] * FILL / np.exp(0.64), 1))
        row.append(chosen)
        column.append(np.full(len(chosen), task))
    r, c = np.concatenate(row), np.concatenate(column)
    y = (U[r] * V[c]).sum(1) + 0.32 * rng.standard_normal(len(r), dtype=np.float32)
    held = (rng.random(len(r)) < 0.05) | (r >= n - n // 20)  # some entries, and all of the last compounds
    parts = [sparse.csr_matrix((y[m], (r[m], c[m])), shape=(n, T), dtype=np.float32) for m in (~held, held)]
    return X, parts[0], parts[1]


def ours(n: int, K: int, sweeps: tuple[int, int]) -> dict[str, float]:
    """Seconds per sweep and held-out errors of our sampler."""
    from phenohit.models.macau_cpu import Cpu
    from phenohit.models.macau_sampler import Sampler
    from phenohit.models.macau_side import Side
    from phenohit.models.macau_state import Mode, Noise, Values

    X, train, held = simulate(n)
    offset = np.full(T, train.data.mean(), np.float32)
    start = time.perf_counter()
    values = Values.of(train, offset, np.zeros(T, bool))
    modes = Mode.begin(n, K, Side(X), 5.0), Mode.begin(T, K, None, 5.0)
    chain = Sampler(values, modes, Noise(10.0), Cpu(THREADS))
    ready = time.perf_counter()
    row = np.repeat(np.arange(n), np.diff(held.indptr))
    total, spent = np.zeros(held.nnz), 0.0
    with chain.device:
        for sweep in range(sum(sweeps)):
            begin = time.perf_counter()
            chain.sweep()
            spent += time.perf_counter() - begin
            if sweep >= sweeps[0]:
                for a in range(0, held.nnz, 1 << 20):
                    part = slice(a, a + (1 << 20))
                    U, V = modes[0].latent[row[part]], modes[1].latent[held.indices[part]]
                    total[part] += np.einsum("ek,ek->e", U, V)
    score = total / max(sweeps[1], 1) + offset[0]
    floor = arithmetic(n, K, values) / speed(X, K)
    return {"setup": ready - start, "sweep": spent / sum(sweeps), "floor": floor, **errors(score, held, n)}


def arithmetic(n: int, K: int, values: object) -> float:
    """Additions and multiplications of one sweep."""
    of_row, of_assay = (np.diff(order.start).astype(float) for order in values.orders)
    few = of_row[of_row < K]
    many = np.concatenate([of_row[of_row >= K], of_assay])
    features = 4.0 * n * F * K  # X times the link, X' times the latents
    prior = 4.0 * n * K**2  # their spread, and the scatter of what was drawn
    return features + prior + (few**2 * K + few**3 / 3 + 8 * few * K).sum() + (many * K**2 + K**3 / 3).sum()


def speed(X: np.ndarray, K: int) -> float:
    """Operations a second in products of rows with a link matrix, one thread per core."""
    from threadpoolctl import threadpool_limits

    link = np.ones((F, K), np.float32)
    with threadpool_limits(1), ThreadPoolExecutor(THREADS) as pool:
        blocks = range(0, min(len(X), 65_536), 2048)
        start = time.perf_counter()
        rows = sum(pool.map(lambda a: len(X[a : a + 2048] @ link), [*blocks, *blocks]))
        return 2.0 * rows * F * K / (time.perf_counter() - start)


def smurff(n: int, K: int, sweeps: tuple[int, int]) -> dict[str, float]:
    """Return the same of SMURFF."""
    import smurff as peer

    X, train, held = simulate(n)
    mean = train.data.mean()  # SMURFF does not centre
    shifted = [sparse.coo_matrix((m.data - mean, m.nonzero()), shape=m.shape) for m in (train.tocoo(), held.tocoo())]
    start = time.perf_counter()
    session = peer.TrainSession(
        priors=["macau", "normal"], num_latent=K, burnin=sweeps[0], nsamples=sweeps[1], seed=1,
        num_threads=THREADS, verbose=0, save_freq=0,
    )  # fmt: skip
    session.addTrainAndTest(shifted[0], shifted[1], peer.FixedNoise(10.0), is_scarce=True)
    session.addSideInfo(0, X.astype(float), peer.SampledNoise(5.0), direct=True)
    session.init()
    ready = time.perf_counter()
    while session.step() is not None:
        pass
    spent = time.perf_counter() - ready
    found = {p.coords: p.pred_avg for p in session.getTestPredictions()}
    row = np.repeat(np.arange(n), np.diff(held.indptr))
    score = np.array([found[(i, j)] for i, j in zip(row, held.indices, strict=True)]) + mean
    return {"setup": ready - start, "sweep": spent / sum(sweeps), **errors(score, held, n)}


def errors(score: np.ndarray, held: sparse.csr_matrix, n: int) -> dict[str, float]:
    """RMSE of held-out entries of known and of new compounds."""
    new = np.repeat(np.arange(n), np.diff(held.indptr)) >= n - n // 20
    square = (score - held.data) ** 2
    return {"warm": float(square[~new].mean() ** 0.5), "cold": float(square[new].mean() ** 0.5)}


def measured(who: str, n: int, K: int, sweeps: tuple[int, int]) -> dict[str, float]:
    """Run one of them in a process of its own, and add its peak memory."""
    command = [sys.executable, __file__, "--run", who, str(n), "--latent", str(K), "--sweeps", *map(str, sweeps)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            text = Path(f"/proc/{process.pid}/status").read_text()
            lines = [line for line in text.splitlines() if line.startswith("VmHWM")]
            peak = max([peak, *(int(line.split()[1]) / 2**20 for line in lines)])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    out, _ = process.communicate()
    done.set()
    if process.returncode:
        sys.exit(f"{who} at {n:,} ended with {process.returncode}")
    return {**json.loads(out.splitlines()[-1]), "GiB": peak}


def room() -> float:
    """GiB of memory that are free."""
    text = Path("/proc/meminfo").read_text()
    return next(int(line.split()[1]) / 2**20 for line in text.splitlines() if line.startswith("MemAvailable"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--latent", type=int, default=150)
    parser.add_argument("--run", choices=("ours", "smurff"), help=argparse.SUPPRESS)
    parser.add_argument("--sweeps", type=int, nargs=2, help="burn-in and used; 12 12, above 100,000 compounds 3 3")
    given = parser.parse_args()
    K = given.latent
    if given.run:
        print(json.dumps({"ours": ours, "smurff": smurff}[given.run](given.sizes[0], K, given.sweeps)))
        return
    print(f"SIMULATED matrix, {T} assays, {FILL:.1%} measured, {F} features, K = {K}, {THREADS} threads")
    for n in given.sizes:
        sweeps = tuple(given.sweeps or ((BURN_IN, USED) if n <= 100_000 else (3, 3)))
        need = n * (8 * K**2 + 32 * F) / 2**30 + 0.5  # K x K numbers for each compound, found by measuring
        fits = need < room()
        results = {who: measured(who, n, K, sweeps) for who in ("ours", *(["smurff"] if fits else []))}
        for who, found in results.items():
            print(f"{n:>9,} {who:<7}" + "".join(f"  {name} {value:8.3f}" for name, value in found.items()), flush=True)
        if fits:
            print(f"{n:>9,} ratio    {results['smurff']['sweep'] / results['ours']['sweep']:.1f}x", flush=True)
        else:
            print(f"{n:>9,} smurff   not run: it needs about {need:.0f} GiB, {room():.0f} are free", flush=True)


if __name__ == "__main__":
    main()
