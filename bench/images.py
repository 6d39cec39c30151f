"""Views a second for every step from TIFF to features, on one and two processes, and what a large screen would take.

    python bench/images.py FIELD FOLDER [--views 48] [--full]

FIELD is a folder with the single-channel TIFFs of one real field: `cdrp_cloome_example` of the raw images (520 x 696,
five channels, 12 bits). Copies of it, each shifted, are written below FOLDER. First the store and the route of hti-cnn
(`bench/images_store.py`), then each step by itself on one thread, then whole plates on one and two processes. The
hours for 919,265 views (Bray et al. 2017) are EXTRAPOLATED: views over views a second, and linear in cores.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import replace
from pathlib import Path

import images_store
import numpy as np
from threadpoolctl import threadpool_limits

from phenohit.config import WorkersConfig
from phenohit.data.views import Views
from phenohit.images.illumination import correct, estimate
from phenohit.images.measure import measure
from phenohit.images.plate import measure_plate
from phenohit.images.quality import measure_quality
from phenohit.images.read import read_view
from phenohit.images.segment import estimate_diameter, segment
from phenohit.imaging import ImageSource, MeasureConfig, QualityConfig, SegmentConfig
from phenohit.workers import Workers

BRAY = 919_265  # views: six of each well of 406 plates, as far as they are there
CORES = (1, 16, 256)
SEGMENT = SegmentConfig(nuclei="Hoechst", cells="ERSytoBleed")  # the diameter of nuclei is estimated
SOURCE = ImageSource(
    bits=12, segment=SEGMENT, quality=QualityConfig(reject=[]), measure=MeasureConfig(thumbnails=False)
)


def steps(views: Views, sets: list[str]) -> None:
    """Time every step on one thread."""
    files = views.files.iloc[0].tolist()
    channels = views.channels
    view = read_view(files, bits=12)
    flat = correct(view, estimate([np.roll(view, 31 * i, axis=1) for i in range(20)]))
    diameter = estimate_diameter([flat], channels, SEGMENT.nuclei)
    objects = segment(flat, channels, SEGMENT, diameter)
    found = f"{len(objects)} cells, nuclei of {diameter:.1f} pixels"
    print(f"one view, one thread: {view.shape}, {found}\n  {'step':<22} {'s a view':>9} {'views/s':>9}")
    calls = {
        "read TIFF": lambda: read_view(files, bits=12),
        "quality": lambda: measure_quality(view, channels, 4095),
        "correct illumination": lambda: correct(view, np.ones(view.shape, np.float32)),
        "segment": lambda: segment(flat, channels, SEGMENT, diameter),
    }
    for name in sets:
        config = MeasureConfig(features=name)
        calls[f"measure, {name}"] = lambda config=config: measure(flat, channels, objects, config, 4095)
    with threadpool_limits(1):
        for name, call in calls.items():
            call()
            seconds = images_store.timed(call, 1 if name.endswith("full") else 3)
            print(f"  {name:<22} {seconds:9.3f} {1 / seconds:9.2f}", flush=True)


def plates(views: Views, folder: Path, sets: list[str]) -> None:
    """Time whole plates: reading twice, quality, illumination, cells, features, tables."""
    print(f"a plate of {len(views)} views, from TIFF to a table of cells; hours for {BRAY:,} views extrapolated")
    print(f"  {'features':<10} {'processes':>9} {'views/s':>8}  hours on {', '.join(map(str, CORES))} cores")
    for name in sets:
        source = replace(SOURCE, measure=replace(SOURCE.measure, features=name))
        for jobs in (1, 2):
            workers = Workers(WorkersConfig(), jobs)
            shutil.rmtree(folder / "plate", ignore_errors=True)
            list(workers.do([]))
            start = time.perf_counter()
            measure_plate(views, source, folder / "plate", do=workers.do)
            rate = len(views) / (time.perf_counter() - start)
            workers.close()
            hours = ", ".join(f"{BRAY / (rate / jobs) / cores / 3600:,.1f}" for cores in CORES)
            print(f"  {name:<10} {jobs:>9} {rate:8.2f}  {hours}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("field", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--views", type=int, default=48)
    parser.add_argument("--full", action="store_true", help="also whole plates with every feature: minutes")
    chosen = parser.parse_args()
    images_store.compare(chosen.field, chosen.folder / "store", chosen.views)
    views = images_store.copies(chosen.field, chosen.folder / "tiff", chosen.views)
    steps(views, ["fast", "standard", "full"])
    plates(views, chosen.folder, ["fast", "standard", *(["full"] if chosen.full else [])])


if __name__ == "__main__":
    main()
