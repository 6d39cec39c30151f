"""16-bit images as 8-bit ones, and images of mean 0 and standard deviation 1, as the image models take them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phenohit.errors import ConfigError, ShapeError

__all__ = ["normalise", "to_uint8"]


def to_uint8(
    images: NDArray[Any], clip: float = 2.8e-5, rule: Literal["count", "percentile"] = "count"
) -> NDArray[np.uint8]:
    """Scale every channel image by its own brightest pixels: a share `clip` of them becomes 255, 0 stays 0.

    Parameters
    ----------
    images : ndarray, shape (..., H, W), uint8 or uint16
        Each (H, W) is scaled by itself. uint8 images are scaled as well: leave them out where they were before.
    clip : float
        Share of the brightest pixels; 0.0028 % in the papers.
    rule : {"count", "percentile"}
        Count: with n = round(H W clip), at least 1, the threshold t is the n-th brightest pixel and a pixel v becomes
        floor(256 v / t), at most 255 (10 pixels at 520 x 696). Percentile: t is the percentile 100 (1 - clip),
        interpolated, and v becomes floor(255 min(v / t, 1)). Where t is 0, all that is not black becomes 255.

    Returns
    -------
    ndarray, shape (..., H, W), uint8

    Raises
    ------
    ShapeError
        If an image is empty, or these are no images.
    ConfigError
        If `clip` is no share or the rule is not known.

    Notes
    -----
    Count is the rule of ml-jku/cloome, from the laboratory of Hofmarcher et al. (2019); percentile that of
    FSL_CP_DataPrep. By the first rule a pixel at the threshold, and a constant image, become 255.
    """
    if not 0 <= clip < 1:
        raise ConfigError(f"images.clip is {clip}. Expected a share of the pixels between 0 and 1, such as 2.8e-5.")
    if rule not in ("count", "percentile"):
        raise ConfigError(f"The rule of 8-bit images is '{rule}'. Expected count or percentile.")
    if images.dtype not in (np.uint8, np.uint16) or images.ndim < 2 or not images.size:
        raise ShapeError(f"Expected images (..., H, W) of uint8 or uint16, not {images.shape} of {images.dtype}.")
    found = np.empty(images.shape, dtype=np.uint8)
    flat, out = images.reshape(-1, *images.shape[-2:]), found.reshape(-1, *images.shape[-2:])
    values = np.arange(np.iinfo(images.dtype).max + 1, dtype=np.uint32)  # 256 times the largest fits
    for i in range(len(flat)):
        # Every value is converted once, then looked up: whole numbers, so exact at ties.
        counts = np.bincount(flat[i].ravel(), minlength=len(values))
        table = (_by_count if rule == "count" else _by_percentile)(values, counts, clip)
        np.take(table, flat[i], out=out[i], mode="clip")  # no value is outside; "raise" would copy
    return found


def _by_count(values: NDArray[Any], counts: NDArray[Any], clip: float) -> NDArray[np.uint8]:
    n = max(1, round(int(counts.sum()) * clip))
    brighter = np.cumsum(counts[::-1])  # pixels of at least max, max - 1, ...
    threshold = len(values) - 1 - int(np.searchsorted(brighter, n))
    if threshold == 0:
        return np.where(values > 0, 255, 0).astype(np.uint8)
    return np.minimum(values * 256 // threshold, 255).astype(np.uint8)


def _by_percentile(values: NDArray[Any], counts: NDArray[Any], clip: float) -> NDArray[np.uint8]:
    place = (int(counts.sum()) - 1) * (1 - clip)  # as numpy.percentile interpolates
    below = np.cumsum(counts)
    low, high = (int(np.searchsorted(below, int(at) + 1)) for at in (np.floor(place), np.ceil(place)))
    part = place - np.floor(place)
    threshold = low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)  # to the last bit
    if threshold == 0:
        return np.where(values > 0, 255, 0).astype(np.uint8)
    return (np.minimum(values / threshold, 1.0) * 255).astype(np.uint8)


def normalise(images: NDArray[Any]) -> NDArray[np.float32]:
    """Give every channel of every image mean 0 and standard deviation 1.

    Parameters
    ----------
    images : ndarray, shape (..., H, W)
        One view (C, H, W) or a batch (B, C, H, W).

    Returns
    -------
    ndarray, same shape, float32
        (x - mean) / (sd + 1e-7) with the unbiased standard deviation; a constant image becomes 0.

    Raises
    ------
    ShapeError
        If images have fewer than two pixels.

    Notes
    -----
    As ml-jku/hti-cnn (Hofmarcher et al. 2019): by image and channel, not by data set.
    """
    n = int(np.prod(images.shape[-2:])) if images.ndim >= 2 else 0
    if n < 2:
        raise ShapeError(f"Expected images (..., H, W) of at least two pixels, not {images.shape}.")
    mean = images.mean(axis=(-2, -1), keepdims=True, dtype=np.float64)
    # Whole numbers are taken off first, which float32 does exactly: little spread far from 0 keeps its digits.
    found = np.subtract(images, np.round(mean), dtype=np.float32, casting="unsafe")
    found -= (mean - np.round(mean)).astype(np.float32)
    square = np.einsum("...hw,...hw->...", found, found, dtype=np.float64)
    sd = np.sqrt(square / (n - 1))[..., None, None]
    found /= (sd + 1e-7).astype(np.float32)
    return found
