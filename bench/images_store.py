"""Views a second: TIFF -> store, store -> memory, and hti-cnn's route (one compressed .npz per view) beside it.

    python bench/images_store.py FIELD FOLDER [N]

FIELD is a folder with the single-channel TIFFs of one real field (one file per channel); N copies of it (default 96)
are written below FOLDER as one plate, each shifted by some pixels so that no two are the same. Nothing is simulated.
Files are read from the cache of the system, and the fastest of three runs counts: this measures work, not disks.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from joblib import Parallel, delayed

from phenohit.data.views import Views
from phenohit.images.convert import to_uint8
from phenohit.images.read import read_view
from phenohit.images.store import open_store, write_store
from phenohit.imaging import ImageSource


def copies(field: Path, folder: Path, n: int) -> Views:
    files = sorted(field.glob("*.tif*"))
    view, rows, names = read_view([str(f) for f in files]), [], []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        rows.append(
            {
                "Metadata_Plate": "P1",
                "Metadata_Well": f"{chr(65 + i // 24 % 16)}{i % 24 + 1:02d}",
                "Metadata_Site": str(i // 384 + 1),
            }
        )
        names.append({f.stem: f"{folder}/{i}_{f.stem}.tif" for f in files})
        for path, image in zip(names[-1].values(), view, strict=True):
            tifffile.imwrite(path, np.roll(image, 7 * i, axis=1))
    return Views(pd.DataFrame(rows), pd.DataFrame(names))


def timed(run: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of several runs: what else the machine does only adds to them."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _write_anew(views: Views, folder: Path, jobs: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    write_store(views, ImageSource(), folder, jobs)


def _read_npz(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as held:
        return np.moveaxis(held["sample"], -1, 0)


def _write_npz(path: Path, files: list[str]) -> None:
    np.savez_compressed(path, sample=np.moveaxis(to_uint8(read_view(files)), 0, -1))


def _size(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def compare(field: Path, folder: Path, n: int = 96) -> None:
    views = copies(field, folder / "tif", n)
    lists, table = views.files.to_numpy(object).tolist(), []

    def note(what: str, jobs: int, seconds: float, mb: float | str = "") -> None:
        table.append({"what": what, "workers": jobs, "views/s": f"{n / seconds:.1f}", "MB": mb and f"{mb:.0f}"})

    table.append({"what": "the TIFFs", "workers": "", "views/s": "", "MB": f"{_size(folder / 'tif'):.0f}"})
    for jobs in (1, 2):
        for kind in ("threads", "processes"):
            with Parallel(n_jobs=jobs, prefer=kind) as parallel:
                parallel(delayed(int)(1) for _ in range(jobs))  # started before the clock
                run = lambda p=parallel: p(delayed(_converted)(f) for f in lists)  # noqa: E731
                note(f"TIFF -> 8 bits, {kind}", jobs, timed(run))
        note(
            "TIFF -> store",
            jobs,
            timed(lambda j=jobs: _write_anew(views, folder / "store", j)),
            _size(folder / "store"),
        )
    store = open_store(folder / "store")
    npz = [folder / f"P1-{i}.npz" for i in range(n)]
    note("TIFF -> .npz", 1, timed(lambda: [_write_npz(p, f) for p, f in zip(npz, lists, strict=True)]),
         sum(p.stat().st_size for p in npz) / 1e6)  # fmt: skip
    order = np.random.default_rng(0).permutation(n)
    for jobs in (1, 2):
        note("store -> memory", jobs, timed(lambda j=jobs: [b for b in store.batches(order, 16, j)]))
        with Parallel(n_jobs=jobs, prefer="threads") as parallel:
            run = lambda p=parallel: p(delayed(_read_npz)(npz[i]) for i in order)  # noqa: E731
            note(".npz -> memory", jobs, timed(run))
    note("check of the store", 2, timed(lambda: store.check(2)))
    assert store.check().empty
    assert all(np.array_equal(store.read([i])[0], _read_npz(npz[i])) for i in range(0, n, 17))
    print(f"{n} views of {' x '.join(map(str, store.shapes['P1']))}")
    print(pd.DataFrame(table).to_string(index=False))


def _converted(files: list[str]) -> int:
    return int(to_uint8(read_view(files)).max())


if __name__ == "__main__":
    compare(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:4]))
