"""Pictures to judge by eye: outlines of nuclei and cells over a view, and illumination functions."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from skimage.segmentation import find_boundaries

from phenohit.errors import ShapeError
from phenohit.images.objects import Objects

__all__ = ["composite", "draw_functions", "draw_outlines", "png"]

CELL, NUCLEUS = (255, 90, 230), (255, 225, 40)  # magenta and yellow: told apart by any eye, on blue and green
# blue, green, red and so on, told apart when laid over each other; more channels begin anew
_COLOURS = np.array([[0.2, 0.4, 1], [0.1, 0.9, 0.2], [1, 0.2, 0.1], [0.9, 0.8, 0.1], [0.9, 0.1, 0.9]], np.float32)


def composite(view: ArrayLike, *, low: float = 1.0, high: float = 99.8) -> np.ndarray:
    """Lay channels over each other in colours, each stretched to its own contrast.

    Parameters
    ----------
    view : array (C, H, W)
        One channel is shown in grey.
    low, high : float
        Percentiles that become black and full colour.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
    """
    view = np.asarray(view, np.float32)
    if view.ndim != 3 or not len(view):
        raise ShapeError(f"A view is (C, H, W) with at least one channel; this array is {view.shape}.")
    colours = np.ones((1, 3), np.float32) if len(view) == 1 else _COLOURS[np.arange(len(view)) % len(_COLOURS)]
    picture = np.zeros((*view.shape[1:], 3), np.float32)
    for channel, colour in zip(view, colours, strict=True):
        bottom, top = np.percentile(channel, [low, high]).tolist()
        bright = np.sqrt(np.clip((channel - bottom) / max(top - bottom, 1e-12), 0, 1))
        picture += bright[..., None] * colour
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def draw_outlines(view: ArrayLike, objects: Objects, *, zoom: int = 1) -> np.ndarray:
    """Draw the outlines of nuclei (yellow) and cells (magenta) over a view.

    Parameters
    ----------
    view : array (C, H, W)
        The channels to show, in their order.
    objects : Objects
    zoom : int
        Every pixel becomes so many in each direction; lines stay one pixel wide.

    Returns
    -------
    ndarray of uint8, shape (zoom H, zoom W, 3)

    Raises
    ------
    ShapeError
        If view and objects differ in size.
    """
    picture = composite(view)
    if picture.shape[:2] != objects.nuclei.shape:
        raise ShapeError(f"The view is {picture.shape[:2]}, its objects are {objects.nuclei.shape} (H, W).")
    picture = picture.repeat(zoom, 0).repeat(zoom, 1)
    for labels, colour in ((objects.cells, CELL), (objects.nuclei, NUCLEUS)):
        picture[find_boundaries(labels.repeat(zoom, 0).repeat(zoom, 1), mode="inner")] = colour
    return picture


def draw_functions(functions: ArrayLike, channels: Sequence[str], *, width: int = 240) -> np.ndarray:
    """Draw illumination functions side by side: black is 1, white the brightest place of all channels.

    Parameters
    ----------
    functions : array (C, H, W)
    channels : sequence of str
        Names, for the check that there is one for each function; the pictures come in this order.
    width : int
        Of each picture, in pixels.

    Returns
    -------
    ndarray of uint8, shape (about width H / W, C (width + 4) - 4)
    """
    functions = np.asarray(functions, np.float32)
    if functions.ndim != 3 or len(functions) != len(channels):
        raise ShapeError(f"{len(channels)} channels, but illumination functions of shape {functions.shape}.")
    top = max(float(functions.max()), 1 + 1e-6)
    grey = (np.clip((functions - 1) / (top - 1), 0, 1) * 255).astype(np.uint8)
    height = max(1, round(width * functions.shape[1] / functions.shape[2]))
    small = [np.asarray(Image.fromarray(g).resize((width, height))) for g in grey]
    return np.concatenate([np.pad(g, ((0, 0), (0, 4)), constant_values=255) for g in small], axis=1)[:, :-4]


def png(picture: np.ndarray) -> bytes:
    """Return a picture, (H, W) or (H, W, 3) uint8, as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
