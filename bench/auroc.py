"""AUROC of 10 million measured values: 1,200 assays, four activity thresholds each.

Ours (one sort for everything) against a loop of scikit-learn's ``roc_auc_score``. The loop gets its
entries already grouped by assay, free of charge; ours gets them in random order.

    python bench/auroc.py [entries] [assays]
"""

from __future__ import annotations

import sys
import time

import numpy as np
from sklearn.metrics import roc_auc_score

from phenohit.evaluate.ranks import auroc_at_thresholds

THRESHOLDS = [5.5, 6.5, 7.5, 8.5]  # pIC50, Simm 2018


def main(n: int = 10_000_000, n_tasks: int = 1_200) -> None:
    stream = np.random.default_rng(0)
    task = stream.integers(0, n_tasks, n, dtype=np.int32)
    value = stream.normal(6.0, 1.2, n).astype(np.float32)
    score = (value + stream.normal(0, 1.5, n)).astype(np.float32).round(2)  # rounded: with ties

    taken = []
    for _ in range(3):
        start = time.perf_counter()
        ours = auroc_at_thresholds(value, score, task, THRESHOLDS, n_tasks)
        taken.append(time.perf_counter() - start)
    seconds = sorted(taken)[1]
    print(f"{n:,} entries, {n_tasks:,} tasks x {len(THRESHOLDS)} thresholds")
    print(f"ours: {seconds:.2f} s (median of {', '.join(f'{t:.2f}' for t in taken)})")

    order = np.argsort(task, kind="stable")
    values, scores = value[order], score[order]
    edges = np.searchsorted(task[order], np.arange(n_tasks + 1))
    theirs = np.full_like(ours, np.nan)
    start = time.perf_counter()
    for t in range(n_tasks):
        part = slice(edges[t], edges[t + 1])
        for k, threshold in enumerate(THRESHOLDS):
            y = values[part] >= np.float32(threshold)
            if 0 < y.sum() < len(y):
                theirs[k, t] = roc_auc_score(y, scores[part])
    loop = time.perf_counter() - start
    print(f"scikit-learn {n_tasks * len(THRESHOLDS):,} calls: {loop:.2f} s")

    difference = np.nanmax(np.abs(ours - theirs))
    assert np.array_equal(np.isnan(ours), np.isnan(theirs)), "different entries are undefined"
    assert difference < 1e-9, f"results differ by {difference}"
    print(f"largest difference {difference:.1e}; ratio {loop / seconds:.0f}x")


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
