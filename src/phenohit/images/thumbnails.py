"""Small pictures of views for the report, with one contrast per plate and channel, so that wells can be compared."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import chain, cycle

import numpy as np
from PIL import Image

from phenohit.errors import ShapeError

__all__ = ["COMPOSITE", "channel_colors", "contrast_limits", "pair", "thumbnails"]

COMPOSITE = "composite"

# Okabe & Ito's palette, which colour-blind people tell apart, given to the stains of Cell Painting by hue.
_COLORS = {
    "DNA": (0x00, 0x72, 0xB2),
    "ER": (0x00, 0x9E, 0x73),
    "RNA": (0xF0, 0xE4, 0x42),
    "AGP": (0xD5, 0x5E, 0x00),
    "Mito": (0xCC, 0x79, 0xA7),
}
_OTHERS = ((0x56, 0xB4, 0xE9), (0xE6, 0x9F, 0x00), (0xFF, 0xFF, 0xFF))
_SAMPLE = 1 << 14  # pixels per view and channel that limits are taken from
_GAP = 4  # white pixels between two pictures


def channel_colors(channels: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Return the colour of every channel, red, green and blue of 0-255: fixed by name for the stains of Cell Painting.

    Other names take what is left, in order.
    """
    spare = cycle(chain((v for k, v in _COLORS.items() if k not in channels), _OTHERS))
    return {c: _COLORS[c] if c in _COLORS else next(spare) for c in channels}


def contrast_limits(views: Iterable[np.ndarray], low: float = 1.0, high: float = 99.7) -> np.ndarray:
    """Find what is black and what is full colour, per channel, over views of a plate.

    Parameters
    ----------
    views : iterable of arrays (C, H, W)
        Views of one plate, of controls and compounds: a few dozen are enough.
    low, high : float
        Percentiles of the pixels of all views together.

    Returns
    -------
    float32, shape (C, 2)

    Raises
    ------
    ShapeError
        If there is no view.
    """
    samples = []
    for view in views:
        flat = np.reshape(view, (len(view), -1))
        samples.append(flat[:, :: max(flat.shape[1] // _SAMPLE, 1)])
    if not samples:
        raise ShapeError("Limits of contrast need at least one view of the plate.")
    return np.percentile(np.concatenate(samples, 1), [low, high], axis=1).T.astype(np.float32)


def thumbnails(view: np.ndarray, limits: np.ndarray, channels: Sequence[str], side: int = 160) -> dict[str, bytes]:
    """Make a small picture of every channel and one of all together.

    Parameters
    ----------
    view : number, shape (C, H, W)
    limits : float, shape (C, 2)
        Of the view's plate, by `contrast_limits`.
    channels : sequence of str
    side : int
        Pixels of the longer side.

    Returns
    -------
    dict of str to bytes
        PNG by channel, and ``composite``: the sum of the channels in their colours.
    """
    small = _shrink(view, limits, side)
    colors = channel_colors(channels)
    pictures = {c: _png(_tinted(s, colors[c])) for c, s in zip(channels, small, strict=True)}
    return pictures | {COMPOSITE: _png(_composite(small, list(colors.values())))}


def pair(
    control: np.ndarray, compound: np.ndarray, limits: np.ndarray, channels: Sequence[str], side: int = 160
) -> bytes:
    """Make one picture of two views side by side, control to the left, all channels together in the same contrast.

    Parameters
    ----------
    control, compound : number, shape (C, H, W)
        Of the same plate.
    limits : float, shape (C, 2)
    channels : sequence of str
    side : int
        Pixels of the longer side of each.

    Returns
    -------
    bytes
        PNG.
    """
    colors = list(channel_colors(channels).values())
    left, right = (np.asarray(_composite(_shrink(v, limits, side), colors)) for v in (control, compound))
    height = max(len(left), len(right))
    picture = np.full((height, left.shape[1] + _GAP + right.shape[1], 3), 255, np.uint8)
    picture[: len(left), : left.shape[1]] = left
    picture[: len(right), left.shape[1] + _GAP :] = right
    return _png(Image.fromarray(picture))


def _shrink(view: np.ndarray, limits: np.ndarray, side: int) -> np.ndarray:
    """Average over pixels and scale to 0-1: float32, shape (C, h, w)."""
    if view.ndim != 3 or np.shape(limits) != (len(view), 2):
        raise ShapeError(f"A view {view.shape} needs limits of the shape ({len(view)}, 2), not {np.shape(limits)}.")
    height, width = view.shape[1:]
    scale = min(side / max(height, width), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = np.stack(
        [np.asarray(Image.fromarray(np.asarray(c, np.float32)).resize(size, Image.Resampling.BOX)) for c in view]
    )
    low, high = np.asarray(limits, np.float32).T[:, :, None, None]
    return np.clip((small - low) / np.maximum(high - low, np.finfo(np.float32).tiny), 0.0, 1.0)


def _tinted(small: np.ndarray, color: tuple[int, int, int]) -> Image.Image:
    """One channel from black to its colour: a picture of 256 colours, a third of the size of a true-colour one."""
    picture = Image.fromarray(np.rint(small * 255).astype(np.uint8)).convert("P")
    picture.putpalette((np.arange(256)[:, None] * np.array(color) / 255).round().astype(np.uint8).tobytes())
    return picture


def _composite(small: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> Image.Image:
    # divided by the root of their number: stains that share their place turn bright, not all of the picture white
    total = np.einsum("chw,cr->hwr", small, np.asarray(colors, np.float32)) / np.sqrt(len(colors))
    return Image.fromarray(np.minimum(total, 255).round().astype(np.uint8))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
