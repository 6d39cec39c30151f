"""Rows per second of network training: our loop against a plain torch loop, in the same run.

Both train the same network (sizes, batch, dropout, plain gradient descent) on the same simulated,
sparse labels. The plain loop is what a torch tutorial leads to: a Dataset of rows, a DataLoader,
labels and mask as dense B x T blocks, ``nn.Dropout``. Ours keeps the matrix on the device, batches by
index and gathers only measured entries.

The floor is the same products of matrices and nothing else: forward, gradients of weights and of hidden units, at
the speed that torch has for exactly these sizes in this run.

    python bench/network.py                  # 20,000 rows on cuda, fewer on a processor
    python bench/network.py --rows 4096 --threads 1
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from phenohit.models.fit import Plan, threads, train
from phenohit.models.fit_rows import Rows
from phenohit.models.network import NetworkSettings, Perceptron

F, T, FILL, BATCH = 842, 1200, 0.016, 128
SIMM = 524_371  # compounds of Simm et al. 2018


def simulate(n: int) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Simulate features, and labels of which 1.6 % are measured."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, F), dtype=np.float32)
    Y = sparse.random(n, T, density=FILL, format="csr", dtype=np.float32, rng=rng)
    Y.data = (rng.random(Y.nnz) < 0.3).astype(np.float32)
    return X, Y


def ours(X: np.ndarray, Y: sparse.csr_matrix, settings: NetworkSettings, device: torch.device, epochs: int) -> float:
    net = Perceptron(F, T, settings)
    net.begin(np.full(T, 0.3, dtype=np.float32), 0)
    net.to(device)
    plan = Plan(epochs, BATCH, 0.05, 0.0, 0.0, None, 0)
    rows = Rows.of(X, Y, device)
    start = time.perf_counter()
    train(net, rows, None, plan, seed=0)
    finish(device)
    return epochs * len(rows) / (time.perf_counter() - start)


def plain(X: np.ndarray, Y: sparse.csr_matrix, settings: NetworkSettings, device: torch.device, epochs: int) -> float:
    layers: list[nn.Module] = [nn.Dropout(settings.dropout_input)]
    width = F
    for _ in range(settings.layers):
        layers += [nn.Linear(width, settings.units), nn.ReLU(), nn.Dropout(settings.dropout_hidden)]
        width = settings.units
    net = nn.Sequential(*layers, nn.Linear(width, T)).to(device)
    mask = sparse.csr_matrix((np.ones_like(Y.data), Y.indices, Y.indptr), shape=Y.shape)
    data = TensorDataset(*(torch.from_numpy(a) for a in (X, Y.toarray(), mask.toarray())))
    loader = DataLoader(data, batch_size=BATCH, shuffle=True, pin_memory=device.type == "cuda")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    start = time.perf_counter()
    for _ in range(epochs):
        for x, y, measured in loader:
            x, y, measured = x.to(device), y.to(device), measured.to(device)
            each = nn.functional.binary_cross_entropy_with_logits(net(x), y, reduction="none")
            loss = (each * measured).sum() / measured.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finish(device)
    return epochs * len(X) / (time.perf_counter() - start)


def floor(settings: NetworkSettings, device: torch.device, rows: int) -> tuple[float, float]:
    """Rows per second of the products alone, and multiply-adds per row in millions."""
    sizes = [F, *[settings.units] * settings.layers, T]
    h = [torch.randn(BATCH, width, device=device) for width in sizes]
    W = [torch.randn(b, a, device=device) for a, b in pairwise(sizes)]
    steps = max(rows // BATCH, 1)
    start = time.perf_counter()
    for _ in range(steps):
        for k, w in enumerate(W):
            h[k] @ w.T
            h[k + 1].T @ h[k]
            if k:
                h[k + 1] @ w
    finish(device)
    products = 3 * sum(w.numel() for w in W) - W[0].numel()
    return steps * BATCH / (time.perf_counter() - start), products / 1e6


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    for layers, units in ((2, 512), (3, 2048)):
        few = 2560 if units == 2048 else 20_000
        n = chosen.rows or (20_000 if device.type == "cuda" else few)
        settings = NetworkSettings(layers=layers, units=units, dropout_schedule=False)
        X, Y = simulate(n)
        print(
            f"{layers} x {units}, {n:,} rows x {F} -> {T} tasks, {FILL:.1%} measured, batch {BATCH}, {device.type}",
            end="",
        )
        print(f", {chosen.threads} threads, load {os.getloadavg()[0]:.1f}")
        with threads(chosen.threads):
            for loop in (ours, plain):  # warm up: libraries load and memory is taken
                loop(X[:BATCH], Y[:BATCH], settings, device, 1)
            rates = {loop.__name__: [] for loop in (ours, plain)}
            floor(settings, device, BATCH)
            alone, products = floor(settings, device, n)
            for _ in range(2):  # in turns, so that a busy machine slows both
                for loop in (ours, plain):
                    rates[loop.__name__].append(loop(X, Y, settings, device, chosen.epochs))
        for name, values in rates.items():
            print(f"  {name:6s} {' and '.join(f'{v:,.0f}' for v in values)} rows/s")
        best = max(rates["ours"])
        speed = 2e-3 * products * alone
        print(f"  floor  {alone:,.0f} rows/s: {products:.1f} M multiply-adds a row at {speed:,.0f} GFLOP/s")
        print(f"  ours   {alone / best:.2f} times the floor; an epoch of {SIMM:,} rows {SIMM / best:,.0f} s", end="")
        print(f", 63 epochs {63 * SIMM / best / 3600:.2f} h (extrapolated from {n:,} rows)")
        print(f"  ratio  {' and '.join(f'{a / b:.2f}' for a, b in zip(rates['ours'], rates['plain'], strict=True))}")


if __name__ == "__main__":
    main()
