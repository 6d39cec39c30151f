"""Cells and views measured per second, by set of features, on one real field.

Usage: python bench/images_measure.py <folder of the CDRP field> [--processes 1 2] [--repeats 2]

The field (520 x 696, five channels, 12 bits) is `cdrp_cloome_example` of the raw images. Cells are nuclei by Otsu and
watershed, grown by 15 pixels: the bench is of measuring, not of finding cells.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tifffile
from joblib import Parallel, delayed
from scipy import ndimage
from skimage import feature, filters, measure, segmentation

from phenohit.images import measure as cells
from phenohit.imaging import MeasureConfig

CHANNELS = {"DNA": "Hoechst", "ER": "ERSyto", "RNA": "ERSytoBleed", "AGP": "Ph_golgi", "Mito": "Mito"}


def field(folder: Path):
    view = np.stack([tifffile.imread(folder / f"{name}.tif") for name in CHANNELS.values()])
    smooth = filters.gaussian(view[0].astype(float), 1.5, preserve_range=True)
    mask = ndimage.binary_fill_holes(smooth > filters.threshold_otsu(smooth))
    depth = filters.gaussian(ndimage.distance_transform_edt(mask), 1.0)
    peaks = feature.peak_local_max(depth, min_distance=7, labels=measure.label(mask), exclude_border=False)
    seeds = np.zeros(mask.shape, int)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    nuclei = segmentation.clear_border(segmentation.watershed(-depth, seeds, mask=mask))
    nuclei = segmentation.relabel_sequential(nuclei)[0].astype(np.int32)
    grown = segmentation.expand_labels(nuclei, 15).astype(np.int32)
    return view, SimpleNamespace(nuclei=nuclei, cells=grown, cytoplasm=np.where(nuclei == 0, grown, 0).astype(np.int32))


def seconds(view, objects, config):
    """Time on the processor, which other work on the machine does not change."""
    began = time.process_time()
    table, _ = cells.measure(view, list(CHANNELS), objects, config, 4095.0)
    return time.process_time() - began, table.shape


def by_family(view, objects, config) -> Counter:
    """Time within each function that measures, of one view."""
    spent: Counter = Counter()

    def timed(name, function):
        def call(*args, **kwargs):
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.process_time() - began

        return call

    functions, ours = cells._functions(), {n: getattr(cells, n) for n in ("radial", "correlations", "granularity")}
    original = dict(functions)
    functions.update({name: timed(name, f) for name, f in original.items() if name != "granularity"})
    for name, function in ours.items():
        setattr(cells, name, timed(name, function))
    try:
        seconds(view, objects, config)
    finally:
        functions.update(original)
        for name, function in ours.items():
            setattr(cells, name, function)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sets", nargs="+", default=["fast", "standard", "full"])
    args = parser.parse_args()
    view, objects = field(args.folder)
    for features in args.sets:
        config = MeasureConfig(features=features)
        for jobs in args.processes:
            repeats = 1 if features == "full" else args.repeats
            with Parallel(n_jobs=jobs) as pool:
                # compiled and imported before the clock starts
                pool(delayed(seconds)(view, objects, MeasureConfig("standard")) for _ in range(jobs))
                began = time.perf_counter()
                results = pool(delayed(seconds)(view, objects, config) for _ in range(jobs * repeats))
                whole = time.perf_counter() - began
            n = len(results)
            rows, columns = results[0][1]
            cpu = float(np.mean([r[0] for r in results]))
            print(
                f"{features:9s} {jobs} processes: {columns - 1} features, {rows} cells, "
                f"{cpu:.2f} s of processor per view, {n / whole:.2f} views/s, {n * rows / whole:.0f} cells/s",
                flush=True,
            )
        spent = by_family(view, objects, config)
        print("   ", ", ".join(f"{name} {s:.2f} s" for name, s in spent.most_common()), flush=True)


if __name__ == "__main__":
    main()
