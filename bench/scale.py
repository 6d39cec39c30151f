"""Time and memory of every step of a run, from ten thousand to half a million compounds. SIMULATED screens.

    python bench/scale.py FOLDER [N ...]

Each size is simulated once into FOLDER (842 features, 1,200 assays, 1.6 % measured: the size of Simm et al. 2018
is N = 524371), then every sub-command is run in a process of its own. Memory is the proportional set size of that
process and all its workers together, read four times a second; pages of files that the system caches are not in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import yaml

SIZES = (10_000, 30_000, 100_000, 300_000, 524_371)
STEPS = ("data", "chemistry", "labels", "split", "fit", "evaluate", "hits", "report")
SCREEN = {
    "n_features": 842, "n_mechanisms": 24, "n_replicates": 1, "dose_series_share": 0, "n_morphology": 600,
    "n_invisible": 200, "n_cytotoxicity": 100, "n_chemistry": 300, "fill": 0.016, "repeats": 0.05, "n_batches": 8,
}  # fmt: skip
CHANGES = {
    "splits": [{"name": "series", "kind": "series", "folds": 1, "fractions": [0.7, 0.1, 0.2]}],
    "models": {
        "forest": {"n_trees": 2, "min_samples_leaf": 3},  # what a forest costs beside its trees; those come on top
        "network": {"units": 512, "layers": 1, "epochs": 1, "max_epochs": 1, "patience": 0, "batch": 512},
    },
    "hits": {"model": "network-profiles"},
    "chemistry": True,
    "evaluate": {"bootstrap": 100, "chance": 20},
}


def _tree(pid: int) -> list[int]:
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [p for child in path.read_text().split() for p in _tree(int(child))]
        except OSError:  # ended while we looked
            continue
    return found


def _pss_gib(pid: int) -> float:
    total = 0
    for one in _tree(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 2**20


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and peak GiB of a command with all its processes."""
    peak, done = 0.0, threading.Event()
    start = time.perf_counter()
    process = subprocess.Popen(command)

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.25):
            peak = max(peak, _pss_gib(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}")
    return seconds, peak


def main() -> None:
    root = Path(sys.argv[1])
    table: dict[int, dict[str, tuple[float, float]]] = {}
    for n in [int(a) for a in sys.argv[2:]] or SIZES:
        folder, out = root / f"s{n}", root / f"run{n}"
        phenohit = [sys.executable, "-m", "phenohit"]
        table[n] = {}
        if not (folder / "simulated.yaml").exists():
            options = [part for key, value in SCREEN.items() for part in (f"--settings.{key}", str(value))]
            simulate = [*phenohit, "simulate", str(folder), "--settings.n_compounds", str(n), *options]
            table[n]["simulate"] = measured(simulate)
        config = yaml.safe_load((folder / "simulated.yaml").read_text()) | CHANGES | {"out": str(out)}
        settings = root / f"scale{n}.yaml"
        settings.write_text(yaml.safe_dump(config))
        for step in STEPS:
            table[n][step] = measured([*phenohit, step, str(settings)])
            seconds, peak = table[n][step]
            print(f"{n:>9,} {step:<10} {seconds:8.1f} s  {peak:6.2f} GiB", flush=True)
        parts = json.loads((out / "manifest.json").read_text())["steps"]
        table[n]["parts"] = {name: step["seconds"] for name, step in parts.items()}
        (root / f"scale{n}.json").write_text(json.dumps(table[n], indent=1))


if __name__ == "__main__":
    main()
