"""Where simulated cells are and what shape they have: label images of nuclei and cells.

Shapes are ellipses bent by a smooth random displacement of the plane, so that no outline is a perfect ellipse. Pixels
that several cells claim go to the nearest one, measured in that cell's own radii.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

__all__ = ["Shapes", "draw_shapes", "place_cells", "smooth_noise", "stretch"]

_TOUCHING = 0.15  # share of the cells whose nuclei stand in touching pairs
_GAP = 1.35  # least distance between the centres of other nuclei, as a multiple of the sum of their radii
_ROUNDS = 400
_ANGLES = 24


@dataclass(frozen=True, eq=False)
class Shapes:
    """Label images of the nuclei and cells of a view, and how deep inside each pixel lies.

    Attributes
    ----------
    nuclei, cells : int32 array, shape (H, W)
        0 is background; nucleus and cell of the same number belong together.
    in_nucleus, in_cell : float32 array, shape (H, W)
        0 at the centre, 1 at the edge and outside.
    nucleus_xy : float64 array, shape (n, 2)
        Where nuclei were placed: column and row.
    angle : float64 array, shape (n,)
        Of the cells' long axes, radians.
    """

    nuclei: NDArray[np.int32]
    cells: NDArray[np.int32]
    in_nucleus: NDArray[np.float32]
    in_cell: NDArray[np.float32]
    nucleus_xy: NDArray[np.float64]
    angle: NDArray[np.float64]


def smooth_noise(rng: np.random.Generator, size: int, sigma: float) -> NDArray[np.float32]:
    """Draw Gaussian noise blurred by a Gaussian of `sigma` pixels, of variance about 1, shape (size, size).

    Wide noise is drawn on a coarser grid and interpolated, which is much cheaper and looks the same.
    """
    step = max(1, int(sigma / 1.5))
    coarse = math.ceil(size / step) + 1
    white = rng.standard_normal((coarse, coarse), dtype=np.float32)
    fine = sigma / step
    field = gaussian_filter(white, fine, mode="wrap", truncate=3.0) * np.float32(2 * math.sqrt(math.pi) * fine)
    return field if step == 1 and coarse == size else stretch(field, size, step)


def stretch(field: NDArray[np.float32], size: int, step: int) -> NDArray[np.float32]:
    """Interpolate linearly between pixels that are `step` apart, to shape (size, size)."""
    at, part = np.divmod(np.arange(size, dtype=np.float32) / step, 1)
    low, part = at.astype(np.intp), part.astype(np.float32)
    high = np.minimum(low + 1, len(field) - 1)
    rows = field[low] * (1 - part)[:, None] + field[high] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


def place_cells(rng: np.random.Generator, radius: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Place nuclei at random so that they do not overlap, some in touching pairs.

    Parameters
    ----------
    rng : Generator
    radius : float array, shape (n,)
        Of the nuclei, pixels.
    size : int
        Side of the view; every centre is inside.

    Returns
    -------
    float64 array, shape (n, 2)
        Column and row. Where there are more nuclei than fit, they stand closer.
    """
    n = len(radius)
    n_pairs = round(_TOUCHING * n / 2)
    centre = np.empty((n, 2))
    done, gap = 0, _GAP
    for _ in range(_ROUNDS):
        wanted = n - n_pairs - done
        if wanted <= 0:
            break
        new = rng.uniform(0, size - 1, (4 * wanted, 2))
        reach = gap * (radius[done : n - n_pairs].max() + radius.max())
        clear = (_distances(new, centre[:done]) > reach).all(axis=1)
        crowd = np.tril(_distances(new, new) < reach, k=-1)  # an earlier candidate stands there
        taken = new[clear & ~crowd.any(axis=1)][:wanted]
        centre[done : done + len(taken)] = taken
        done += len(taken)
        if 4 * len(taken) < wanted:
            gap *= 0.9
    for i in range(done, n):  # few: the second nuclei of pairs; each must know where the others are
        first = i - done
        turn = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
        away = 0.97 * (radius[i] + radius[first])
        new = centre[first] + away * np.column_stack([np.cos(turn), np.sin(turn)])
        room = np.delete(_distances(new, centre[:i]), first, axis=1).min(axis=1, initial=size)
        room[((new < 0) | (new > size - 1)).any(axis=1)] -= 4 * size
        centre[i] = np.clip(new[room.argmax()], 0, size - 1)
    return centre


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of every point of `a` from every point of `b`."""
    return np.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1])


def draw_shapes(rng: np.random.Generator, traits: Mapping[str, NDArray[np.float64]], size: int) -> Shapes:
    """Place n cells and draw their outlines.

    Parameters
    ----------
    rng : Generator
    traits : mapping of str to float array, shape (n,)
        ``nucleus_size`` and ``cell_size`` (radii, pixels), ``nucleus_elongation`` and ``cell_elongation``.
    size : int
        Side of the view, pixels.
    """
    radius, reach = traits["nucleus_size"], traits["cell_size"]
    n = len(radius)
    xy = place_cells(rng, radius, size)
    # Neighbours lie alike, as cells in a dish do.
    at = np.clip(np.rint(xy).astype(int), 0, size - 1)
    angle = 2.0 * smooth_noise(rng, size, 60.0)[at[:, 1], at[:, 0]] + rng.normal(0, 0.4, n)
    bent = np.stack([smooth_noise(rng, size, 11.0) for _ in range(2)])
    middle = xy + 0.18 * reach[:, None] * rng.normal(size=(n, 2))  # nuclei are not in the middle of cells
    middle = np.clip(middle, 0, size - 1)
    cells, in_cell = _ellipses(middle, reach, traits["cell_elongation"], angle, np.float32(4.0) * bent)
    turned = angle + rng.normal(0, 0.3, n)
    nuclei, in_nucleus = _ellipses(xy, radius, traits["nucleus_elongation"], turned, np.float32(0.9) * bent)
    inside = nuclei > 0
    cells[inside] = nuclei[inside]
    return Shapes(nuclei, cells, in_nucleus, np.where(inside & (in_cell > 0.7), 0.7, in_cell), xy, angle)


def _ellipses(
    centre: NDArray[np.float64],
    radius: NDArray[np.float64],
    elongation: NDArray[np.float64],
    angle: NDArray[np.float64],
    bent: NDArray[np.float32],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Label image (H, W) of bent ellipses, and the distance from each centre in radii (1 outside)."""
    size = bent.shape[1]
    if not len(centre):
        return np.zeros((size, size), np.int32), np.ones((size, size), np.float32)
    long, short = (radius * np.sqrt(elongation)).astype(np.float32), (radius / np.sqrt(elongation)).astype(np.float32)
    # A window of the same size around every cell, in a plane with a margin so that none sticks out.
    half = math.ceil(long.max() + np.abs(bent).max())
    wide = size + 2 * half
    below, right = (at.ravel() for at in np.indices((2 * half + 1, 2 * half + 1), dtype=np.int32) - half)
    disk = below**2 + right**2 <= half**2
    below, right = below[disk], right[disk]
    corner = np.rint(centre).astype(np.int32)
    part = (corner - centre).astype(np.float32)
    flat = ((corner[:, 1] + half) * wide + corner[:, 0] + half)[:, None] + (below * wide + right)
    margin = np.pad(bent, ((0, 0), (half, half), (half, half))).reshape(2, -1)
    x = margin[0][flat] + right.astype(np.float32) + part[:, :1]
    y = margin[1][flat] + below.astype(np.float32) + part[:, 1:]
    cos, sin = np.cos(angle).astype(np.float32)[:, None], np.sin(angle).astype(np.float32)[:, None]
    distance = ((x * cos + y * sin) / long[:, None]) ** 2 + ((y * cos - x * sin) / short[:, None]) ** 2
    near = distance < 1
    flat, distance, owner = flat[near], np.sqrt(distance[near]), np.nonzero(near)[0].astype(np.int32)
    labels, best = np.zeros(wide * wide, np.int32), np.ones(wide * wide, np.float32)
    np.minimum.at(best, flat, distance)
    won = distance == best[flat]
    labels[flat[won]] = owner[won] + 1
    view = (slice(half, half + size),) * 2
    return labels.reshape(wide, wide)[view], best.reshape(wide, wide)[view]
