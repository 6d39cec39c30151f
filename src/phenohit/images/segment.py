"""Find nuclei and the cells around them; or take the label images of another program.

Nuclei: background removed, one threshold for the view (Otsu's, of the logarithm), then one of its own for every nucleus
between its surroundings and itself; clumps are parted by watershed on their shape and brightness, and what has no neck
between is joined again. Cells: grown from the nuclei along a cell stain by the propagation of Jones et al. 2005
("Voronoi-based segmentation of cells on image manifolds"), which is CellProfiler's as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from centrosome.propagate import propagate
from numpy.typing import ArrayLike
from scipy import ndimage as ndi
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops_table
from skimage.segmentation import expand_labels, watershed

from phenohit.errors import ColumnError, ConfigError, PlateError, nearest
from phenohit.images.objects import Objects, at_border, keep_labels, read_masks
from phenohit.imaging import SegmentConfig

__all__ = ["Objects", "estimate_diameter", "read_masks", "segment"]

NOISE = 8.0  # a nucleus stands out from the background by at least so many standard deviations of it
RIM, CORE = 0.4, 0.8  # share of its own brightness at which a nucleus ends, and at which clumps are looked at for necks
NECK = 0.9  # touching nuclei are two where the neck is narrower than this share of the smaller one
DIM = 0.2  # a nucleus is at least so bright, as a share of the view's median one
STIFFNESS = (
    0.05  # how much distance counts against differences of intensity when cells grow; CellProfiler's usual value
)
_SMALLEST = 12  # pixels of a first-pass object that may be a nucleus


def segment(view: ArrayLike, channels: Sequence[str], config: SegmentConfig, diameter: float) -> Objects:
    """Find the nuclei and cells of a view.

    Parameters
    ----------
    view : array (C, H, W)
        Intensities in any unit, corrected for illumination or not.
    channels : sequence of str
        Names of the C channels.
    config : SegmentConfig
    diameter : float
        Usual diameter of a nucleus in pixels; see `estimate_diameter`.

    Returns
    -------
    Objects
        With no cells where there are none.

    Raises
    ------
    ConfigError
        If `diameter` is not above 0.
    ColumnError
        If the channel of nuclei or cells is not among `channels`.
    """
    if not (np.isfinite(diameter) and diameter > 0):
        raise ConfigError(f"The usual diameter of a nucleus is {diameter}: it must be above 0 pixels.")
    dna = _channel(view, channels, config.nuclei)
    found, brightness = _find_nuclei(dna, diameter, config.threshold)
    if config.cells:
        cells = _grow(_channel(view, channels, config.cells), found, diameter, config)
    else:
        cells = expand_labels(found, config.reach * diameter)
    return _select(found, cells, brightness, config, diameter)


def _channel(view: ArrayLike, channels: Sequence[str], name: str) -> np.ndarray:
    """One channel as float32."""
    if name not in channels:
        raise ColumnError(f"No channel is called '{name}'. {nearest(name, channels)} Correct segment.nuclei or .cells.")
    return np.asarray(np.asarray(view)[list(channels).index(name)], np.float32)


def _find_nuclei(dna: np.ndarray, diameter: float, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Label everything that looks like a nucleus, of any size; also the brightness of each."""
    smooth = ndi.gaussian_filter(dna, max(0.5, diameter / 20))
    signal, noise = _signal(smooth, diameter)
    limit = max(_otsu_of_logs(signal, noise) * threshold, NOISE * noise)
    area = np.pi / 4 * diameter**2
    mask = _fill(ndi.binary_opening(signal > limit), area)
    clumps = _part(signal, mask, diameter)
    usual = np.append(np.inf, _upper_quartiles(signal, clumps)).astype(np.float32)[clumps]
    outer = _largest_parts(np.where(signal > RIM * threshold * usual, clumps, 0))
    # necks between touching nuclei show once the blurred rim is gone, so what is left is parted anew
    core = ndi.binary_opening(_fill((signal > CORE * usual) & (outer > 0), 0.03 * area))
    seeds = _part(signal, core, diameter)
    seeds[np.bincount(seeds.ravel())[seeds] < 0.08 * area] = 0
    relative = np.where(outer > 0, signal / usual, 0)
    nuclei = _largest_parts(watershed(-relative, seeds, mask=outer > 0).astype(np.int32))
    return nuclei, _upper_quartiles(signal, nuclei)


def _fill(mask: np.ndarray, area: float) -> np.ndarray:
    """Fill holes smaller than `area`; larger ones are gaps between cells."""
    holes = label(~mask, connectivity=1)
    sizes = np.bincount(holes.ravel())
    return mask | ((sizes < area)[holes] & (holes > 0))


def _signal(smooth: np.ndarray, diameter: float) -> tuple[np.ndarray, float]:
    """Intensity above the background, and the background's standard deviation.

    The background is a grey opening over three diameters, done on every n-th pixel and smoothed: it follows uneven
    light and the glow of what is out of focus, but not nuclei.
    """
    step = max(1, round(diameter / 6))
    small = ndi.minimum_filter(smooth, step)[::step, ::step] if step > 1 else smooth
    window = 2 * round(1.5 * diameter / step) + 1
    low = np.asarray(ndi.gaussian_filter(ndi.grey_opening(small, window), window / 4))
    rows = np.clip(np.arange(smooth.shape[0]) / step, 0, low.shape[0] - 1)
    cols = np.clip(np.arange(smooth.shape[1]) / step, 0, low.shape[1] - 1)
    signal = smooth - _bilinear(low, rows, cols)
    middle, under, base = np.percentile(signal, [50, 16, 25]).tolist()
    signal -= np.float32(base)
    return signal, max(float(middle - under), 1e-6 * float(np.abs(smooth).max(initial=0)), 1e-12)


def _bilinear(small: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Values of a small image at every pair of (fractional) rows and columns."""
    at = np.arange(small.shape[0]), np.arange(small.shape[1])
    by_rows = np.apply_along_axis(lambda v: np.interp(rows, at[0], v), 0, small)
    return np.apply_along_axis(lambda v: np.interp(cols, at[1], v), 1, by_rows).astype(np.float32)


def _otsu_of_logs(signal: np.ndarray, noise: float) -> float:
    """Otsu's threshold of the logarithm, so that a few very bright nuclei do not hide the others."""
    logs = np.log(np.maximum(signal[::2, ::2], noise))
    if np.ptp(logs) == 0:
        return float(np.inf)
    return float(np.exp(threshold_otsu(logs)))


def _part(signal: np.ndarray, mask: np.ndarray, diameter: float) -> np.ndarray:
    """Part clumps by watershed on distance to the edge, weighted with brightness; join what has no neck between."""
    depth = ndi.gaussian_filter(np.asarray(ndi.distance_transform_edt(mask), np.float32), diameter / 20)
    bright = ndi.gaussian_filter(signal, diameter / 10)
    local = ndi.maximum_filter(bright, int(diameter) | 1)
    height = depth * (0.5 + 0.5 * bright / np.maximum(local, 1e-12))
    peaks = (height == ndi.maximum_filter(height, int(max(3, 0.3 * diameter)) | 1)) & mask
    seeds = label(peaks, connectivity=2)
    return _join(watershed(-height, seeds, mask=mask).astype(np.int32), height, NECK)


def _join(labels: np.ndarray, height: np.ndarray, neck: float) -> np.ndarray:
    """Join neighbours where the pass between them is higher than `neck` times the lower of their peaks."""
    n = int(labels.max(initial=0))
    peak = np.zeros(n + 1, height.dtype)
    np.maximum.at(peak, labels[labels > 0], height[labels > 0])
    first, second, saddle = [], [], []
    for one, two in (np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:]):
        a, b = labels[one], labels[two]
        meet = (a != b) & (a > 0) & (b > 0)
        first.append(np.minimum(a[meet], b[meet]))
        second.append(np.maximum(a[meet], b[meet]))
        saddle.append(np.minimum(height[one][meet], height[two][meet]))
    a, b, h = (np.concatenate(x) for x in (first, second, saddle))
    joined = h > neck * np.minimum(peak[a], peak[b])
    graph = coo_array((np.ones(joined.sum(), bool), (a[joined], b[joined])), shape=(n + 1, n + 1))
    return connected_components(graph, directed=False)[1].astype(np.int32)[labels]


def _upper_quartiles(signal: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """75th percentile of the intensity of objects 1 to n (the pixel below it)."""
    within = labels > 0
    owner, value = labels[within], signal[within]
    order = np.lexsort((value, owner))
    number = np.bincount(owner, minlength=int(labels.max(initial=0)) + 1)
    start = np.cumsum(number) - number
    return value[order][(start + 3 * (number - 1) // 4)[1:]]


def _largest_parts(labels: np.ndarray) -> np.ndarray:
    """Keep of every label its largest connected part, without holes, and number labels anew."""
    parts = label(labels, connectivity=1, background=0)
    sizes = np.bincount(parts.ravel())
    owner = np.zeros(len(sizes), np.int64)
    owner[parts.ravel()] = labels.ravel()
    order = np.lexsort((sizes, owner))
    last = np.append(owner[order][1:] != owner[order][:-1], True)
    new = np.zeros(len(sizes), np.int32)
    best = order[last & (owner[order] > 0)]
    new[best] = np.arange(1, len(best) + 1)
    kept = new[parts]
    return kept


def _grow(image: np.ndarray, seeds: np.ndarray, diameter: float, config: SegmentConfig) -> np.ndarray:
    """Grow nuclei to the edges of cells; on every n-th pixel, for the propagation is slow and cells are large."""
    step = max(1, int(diameter / 12))
    smooth = ndi.gaussian_filter(image, max(0.5, diameter / 20))[::step, ::step]
    small = seeds[::step, ::step]
    low, high = np.percentile(smooth, [0.5, 99.8]).tolist()
    scaled = np.clip((smooth - low) / max(high - low, 1e-12), 0, 1)
    limit = _otsu_of_logs(scaled, 0.01) * config.cell_threshold
    near = np.asarray(ndi.distance_transform_edt(small == 0)) * step <= config.reach * diameter
    mask = near & _fill(scaled > limit, (diameter / step) ** 2) | (small > 0)
    grown, _ = propagate(scaled, small, mask, STIFFNESS)
    cells = np.kron(grown, np.ones((step, step), np.int32))[: seeds.shape[0], : seeds.shape[1]].astype(np.int32)
    return np.where(seeds > 0, seeds, cells)


def _select(
    nuclei: np.ndarray, cells: np.ndarray, bright: np.ndarray, config: SegmentConfig, diameter: float
) -> Objects:
    """Leave out nuclei by size, brightness and place, and number the rest."""
    area = np.bincount(nuclei.ravel(), minlength=len(bright) + 1)[1:]
    usual = np.pi / 4 * diameter**2
    out = {"too small": area < config.min_area * usual, "too large": area > config.max_area * usual}
    fit = ~(out["too small"] | out["too large"])
    out["too dim"] = bright < DIM * config.threshold * (np.median(bright[fit]) if fit.any() else 0)
    if config.border == "drop":
        out["touching the border"] = at_border(nuclei, len(bright))
    return keep_labels(nuclei, cells, out)


def estimate_diameter(views: Iterable[ArrayLike], channels: Sequence[str], nuclei: str) -> float:
    """Usual diameter of a nucleus: the median by area over single, rounded objects of some views.

    Parameters
    ----------
    views : iterable of arrays (C, H, W)
        A few views of a plate, five or more if there are; looked at one by one.
    channels : sequence of str
        Names of the C channels.
    nuclei : str
        The channel that shows nuclei.

    Returns
    -------
    float
        In pixels.

    Raises
    ------
    PlateError
        If there are fewer than three such objects in all views.
    """
    found = [_first_pass(_channel(view, channels, nuclei)) for view in views]
    sizes = np.sort(np.concatenate([*found, np.zeros(0)]))
    if len(sizes) < 3:
        raise PlateError(
            f"Only {len(sizes)} nuclei were found in channel '{nuclei}' of {len(found)} views, too few to tell their "
            "usual size. Check that it is the channel of nuclei, or give segment.diameter in pixels."
        )
    weight = np.cumsum(sizes**2)
    return float(sizes[np.searchsorted(weight, weight[-1] / 2)])


def _first_pass(dna: np.ndarray) -> np.ndarray:
    """Equivalent diameters of single, rounded objects, found without knowing their size."""
    smooth = ndi.gaussian_filter(dna, 1)
    low, middle, noise = np.percentile(smooth, [10, 50, 16]).tolist()
    root = np.sqrt(np.maximum(smooth - low, 0))
    limit = max(threshold_otsu(root), np.sqrt(max(middle - low + NOISE * (middle - noise), 0)))
    mask = ndi.binary_fill_holes(ndi.binary_opening(root > limit))
    props = regionprops_table(label(mask), properties=("area", "solidity", "eccentricity"))
    good = (props["area"] >= _SMALLEST) & (props["solidity"] > 0.93) & (props["eccentricity"] < 0.9)
    return np.sqrt(4 / np.pi * props["area"][good])
