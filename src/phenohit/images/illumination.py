"""Illumination: one smooth function per plate and channel, estimated from its views, that images are divided by.

This is CellProfiler's CorrectIlluminationCalculate with "Regular", "All", smoothing and "Rescale: Yes", and
CorrectIlluminationApply with "Divide" (see also Singh et al. 2014, "Pipeline for illumination correction of images for
high-throughput microscopy"): the function is divided by its robust minimum (2nd percentile; what is below is set to
it), so that it is 1 or more everywhere, corrected values stay within the scale, and functions from CellProfiler
and our own can be used in place of each other. Three things differ. CellProfiler averages all pixels of all images, so
that chance gatherings of cells show; here, what is averaged is the brightness of those pixels that show cells, which
needs far fewer images, and which pixels those are is judged on corrected images, in a few rounds. What is much
brighter than cells, such as debris, does not count. And smoothing is a local linear fit with Gaussian weights where
CellProfiler takes a Gaussian with reflecting edges: those flatten the function where it falls off most, by 10 % in
corners.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

from phenohit.errors import FileError, ShapeError
from phenohit.files import atomic, check_file

__all__ = ["FEW_VIEWS", "correct", "estimate", "load_functions", "save_functions"]

FEW_VIEWS = 20  # below, single cells show in the mean, and functions are smoothed more
BRIGHT = 99.5  # percentile of a view; its median over views is how bright cells are
DEBRIS = 2.0  # times that, and it is no cell
ROUNDS = 3
LEAST = 0.05  # of the mean: no place is darker
ROBUST = 0.02  # CellProfiler's robust minimum
_GRID = 96  # pixels of the shorter side that functions are estimated at


def estimate(views: Iterable[ArrayLike], smoothing: float = 0.1) -> np.ndarray:
    """Estimate the illumination functions of a plate.

    Parameters
    ----------
    views : iterable of arrays (C, H, W)
        Drawn at random from the plate, all of one size; looked at one by one and kept at about 96 pixels a side.
    smoothing : float
        Width of the Gaussian weights, as a share of the shorter side. With fewer than 20 views it grows with
        ``sqrt(20 / views)``, up to 0.3.

    Returns
    -------
    ndarray of float32, shape (C, H, W)
        1 or more; all 1 for a channel without light.

    Raises
    ------
    ShapeError
        If there are no views, or views differ in shape.

    Warns
    -----
    UserWarning
        If there are fewer than 20 views.
    """
    kept: list[np.ndarray] = []
    shape: tuple[int, ...] = ()
    for number, view in enumerate(views):
        view = np.asarray(view)
        shape = shape or view.shape
        if view.ndim != 3 or view.shape != shape:
            raise ShapeError(
                f"View {number} of the plate is {view.shape}; expected {shape} (C, H, W) like the first. One function "
                "serves images of one size: split the plate by size, or set quality.illumination to none."
            )
        kept.append(_shrink(view))
    if not kept:
        raise ShapeError("No view was given to estimate illumination from.")
    if len(kept) < FEW_VIEWS:
        warnings.warn(
            f"Illumination is estimated from {len(kept)} views only; {FEW_VIEWS} or more are needed for single cells "
            "not to show. It is smoothed more. Set quality.illumination to none to leave pixels as they are.",
            stacklevel=2,
        )
    width = min(0.3, smoothing * max(1.0, (FEW_VIEWS / len(kept)) ** 0.5)) if len(kept) < FEW_VIEWS else smoothing
    sigma = width * min(kept[0].shape[1:])
    return np.stack([_rescale(_enlarge(_fit(c, sigma), shape[1:])) for c in np.stack(kept, axis=1)])


def _fit(stack: np.ndarray, sigma: float) -> np.ndarray:
    """Illumination at reduced size, mean about 1, from the images of one channel (V, h, w)."""
    light = np.ones(stack.shape[1:], np.float32)
    for _ in range(ROUNDS):
        flat = stack / light
        most = np.median(np.percentile(flat, BRIGHT, axis=(1, 2)))
        if not most > 0:
            return light
        logs = np.log(np.clip(flat, most / 1e4, most))
        cells = logs > threshold_otsu(logs) if np.ptp(logs) > 0 else np.ones(stack.shape, bool)
        cells &= flat <= DEBRIS * most
        number = cells.sum(axis=0)
        total = (flat * cells).sum(axis=0) * light
        fitted = _smooth(total, number, sigma)
        light = np.clip(fitted / fitted.mean(), LEAST, None).astype(np.float32)
    return light


def _shrink(view: np.ndarray) -> np.ndarray:
    """Means over blocks, about 96 on the shorter side, (C, h, w) float32."""
    step = max(1, min(view.shape[1:]) // _GRID)
    rows, cols = (np.linspace(0, n, n // step + 1).astype(int) for n in view.shape[1:])
    sums = np.add.reduceat(np.add.reduceat(view, rows[:-1], axis=1, dtype=np.float64), cols[:-1], axis=2)
    return (sums / (np.diff(rows)[:, None] * np.diff(cols))).astype(np.float32)


def _smooth(total: np.ndarray, number: np.ndarray, sigma: float) -> np.ndarray:
    """Fit a plane around every place with Gaussian weights to means (`total` of `number`); its height there.

    In the middle this is Gaussian smoothing; at the edge, where weights are lopsided, the slope is not lost.
    """
    y, x = (g / sigma for g in np.indices(total.shape))
    # every place counts a little with the mean of all, so that planes exist where there are no cells
    little = 1e-3 * number.mean()
    number = number + little
    total = total + little * total.sum() / max(number.sum(), 1e-12)

    def moment(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values.astype(float), sigma, mode="constant", truncate=3)

    terms = np.ones(total.shape), y, x
    left = np.stack([np.stack([moment(number * a * b) for b in terms], -1) for a in terms], -2)
    right = np.stack([moment(total * a) for a in terms], -1)
    plane = np.linalg.solve(left, right[..., None])[..., 0]
    return plane[..., 0] + plane[..., 1] * y + plane[..., 2] * x


def _enlarge(small: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Values between the blocks' centres by straight lines, also beyond the outermost."""
    for axis, (n, full) in enumerate(zip(small.shape, shape, strict=True)):
        if n > 1:
            at = (np.arange(full) + 0.5) * n / full - 0.5
            below = np.clip(np.floor(at).astype(int), 0, n - 2)
            share = (at - below).reshape(-1, *[1] * (1 - axis))
            small = np.take(small, below, axis) * (1 - share) + np.take(small, below + 1, axis) * share
        else:
            small = np.repeat(small, full, axis)
    return small


def _rescale(function: np.ndarray) -> np.ndarray:
    """Divide by the robust minimum of what is above 0."""
    light = np.sort(function[function > 0])
    if not len(light):
        return np.ones(function.shape, np.float32)
    least = light[int(ROBUST * len(light))]
    return (np.maximum(function, least) / least).astype(np.float32)


def correct(view: ArrayLike, functions: np.ndarray) -> np.ndarray:
    """Divide a view by its illumination functions.

    Parameters
    ----------
    view : array (C, H, W)
    functions : ndarray (C, H, W)

    Returns
    -------
    ndarray of float32, shape (C, H, W)

    Raises
    ------
    ShapeError
        If shapes differ.
    """
    view = np.asarray(view, np.float32)
    if view.shape != functions.shape:
        raise ShapeError(
            f"The view is {view.shape}, its illumination functions are {functions.shape} (C, H, W). "
            "Make functions from images of the same size."
        )
    return view / functions


def save_functions(folder: Path, functions: np.ndarray, channels: Sequence[str], plate: str) -> list[Path]:
    """Write one function per channel, ``<plate>_Illum<channel>.npy``, as CellProfiler names and writes them.

    Parameters
    ----------
    folder : path
    functions : ndarray (C, H, W)
    channels : sequence of str
    plate : str

    Returns
    -------
    list of path

    Raises
    ------
    FileError
        If the folder cannot be written.
    """
    paths = [Path(folder) / f"{plate}_Illum{channel}.npy" for channel in channels]
    for path, function in zip(paths, functions, strict=True):
        with atomic(path) as partial, partial.open("wb") as handle:
            np.save(handle, np.asarray(function, np.float32), allow_pickle=False)
    return paths


def load_functions(files: Sequence[str | Path]) -> np.ndarray:
    """Read one function per channel, written by us or by CellProfiler.

    Parameters
    ----------
    files : sequence of path
        ``.npy``, each (H, W) of one size.

    Returns
    -------
    ndarray of float32, shape (C, H, W)

    Raises
    ------
    FileError
        If a file is absent, no ``.npy``, not (H, W), of another size than the first, or holds values that images
        cannot be divided by.
    """
    functions: list[np.ndarray] = []
    for file in files:
        check_file(file)
        try:
            function = np.asarray(np.load(file, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise FileError(f"'{file}' cannot be read as .npy ({error}). Make or copy it again.") from error
        if function.ndim != 2 or function.dtype.kind not in "fiu":
            raise FileError(f"'{file}' is {function.shape} of {function.dtype}; expected numbers of shape (H, W).")
        if functions and function.shape != functions[0].shape:
            raise FileError(f"'{file}' is {function.shape}, but '{files[0]}' is {functions[0].shape} (H, W).")
        if not (np.isfinite(function).all() and (function > 0).all()):
            raise FileError(f"'{file}' holds values of 0, below or not finite: images cannot be divided by them.")
        functions.append(function.astype(np.float32))
    return np.stack(functions) if functions else np.zeros((0, 0, 0), np.float32)
