"""What the simulated microscope makes of the light: focus, uneven lighting, noise; and what can go wrong.

A pixel is an offset, plus gain times a Poisson number of photons, plus read noise: the usual model of a scientific
camera. Photons are what stain, haze and background give off, times the illumination function.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from phenohit.data.simulate_settings import SimulateSettings
from phenohit.images.draw_shapes import smooth_noise, stretch

__all__ = ["FAULTS", "OFFSET", "add_debris", "illumination", "take_picture"]

FAULTS = ("blurred", "saturated", "debris", "empty", "dark")
"""What is planted in bad views; named as the rules of quality control are."""

OFFSET = 200.0
"""Counts of a pixel that no light reaches."""

_FULL = 65535
_GAIN = 3.0  # counts per photon
_READ_NOISE = 9.0  # counts
_BACKGROUND = 180.0  # counts of light that no cell gives off
_FOCUS, _BLUR = 0.9, 6.0  # width of a point in and out of focus, pixels
_HAZE, _HAZE_WIDTH = 0.18, 12.0  # share of the light from above and below the focus, and how wide it spreads
_SATURATED = 0.95  # quantile of the light that fills the camera in a saturated channel
_DARK = 0.01

Image = NDArray[np.float32]


def illumination(settings: SimulateSettings, plate: int) -> Image:
    """Return the illumination functions of a plate.

    Parameters
    ----------
    settings : SimulateSettings
    plate : int
        Its number, from 0.

    Returns
    -------
    float32 array, shape (C, H, W)
        Factor on the light of each pixel; the median of each channel is 1. Smooth: falls off as the square of the
        distance from a centre somewhere in the middle, by about `settings.shading` towards the corners.
    """
    rng = np.random.default_rng([settings.seed, 13, plate])
    C = settings.image_channels
    strength = settings.shading * rng.uniform(0.7, 1.3, C)
    centre = rng.uniform(-0.35, 0.35, (C, 2))
    at = np.linspace(-1, 1, settings.image_size)
    y, x = at[None, :, None] - centre[:, 0, None, None], at[None, None, :] - centre[:, 1, None, None]
    function = np.maximum(1 - strength[:, None, None] * (x**2 + y**2) / 2, 0.05)
    return (function / np.median(function, axis=(1, 2), keepdims=True)).astype(np.float32)


def add_debris(rng: np.random.Generator, light: Image, channel: int) -> Image:
    """Put a bright clump and a fibre into one channel, and faintly into the others.

    Parameters
    ----------
    rng : Generator
    light : float32 array, shape (C, H, W)
        From `phenohit.images.draw_stains.draw_stains`.
    channel : int
        The channel that shows it most.
    """
    size = light.shape[1]
    pixel = np.arange(size, dtype=np.float32)
    x, y = rng.uniform(0.2, 0.8, 2) * size
    bent = smooth_noise(rng, size, 7.0) * 6
    radius = rng.uniform(0.06, 0.10) * size
    clump = np.hypot(pixel - x + bent, pixel[:, None] - y + bent.T) < radius
    # A fibre is a bent line from one side to another: a cubic through four random points.
    t = np.linspace(0, 1, 6 * size)[:, None]
    p = rng.uniform(0.0, 1.0, (4, 2)) * size
    line = (1 - t) ** 3 * p[0] + 3 * (1 - t) ** 2 * t * p[1] + 3 * (1 - t) * t**2 * p[2] + t**3 * p[3]
    at = np.clip(np.rint(line), 0, size - 1).astype(np.intp)
    fibre = np.zeros((size, size), np.float32)
    fibre[at[:, 1], at[:, 0]] = 1
    glow = gaussian_filter(clump * (1 + 0.3 * smooth_noise(rng, size, 3.0)), 2.0) + 1.5 * gaussian_filter(fibre, 1.5)
    share = np.full(len(light), 0.12, np.float32)
    share[channel] = 1
    bright = max(float(light[channel].max()), 5000.0) * rng.uniform(3.0, 5.0)
    return light + share[:, None, None] * np.float32(bright) * glow.astype(np.float32)


def take_picture(
    rng: np.random.Generator, light: Image, lamp: Image, fault: str = "none", channel: int = 0
) -> NDArray[np.uint16]:
    """Turn light into pixels.

    Parameters
    ----------
    rng : Generator
    light : float32 array, shape (C, H, W)
    lamp : float32 array, shape (C, H, W)
        Illumination functions times the brightness of each channel.
    fault : str
        ``none`` or one of `FAULTS`; empty is up to the one who draws cells.
    channel : int
        The one that is saturated, or shows debris most.

    Returns
    -------
    uint16 array, shape (C, H, W)
    """
    if fault == "debris":
        light = add_debris(rng, light, channel)
    seen = np.stack([_focus(image, _BLUR if fault == "blurred" else _FOCUS) for image in light])
    counts = np.maximum(seen + np.float32(_BACKGROUND), 0) * lamp
    if fault == "saturated":
        counts[channel] *= 1.2 * _FULL / max(float(np.quantile(counts[channel], _SATURATED)), 1.0)
    elif fault == "dark":
        counts *= np.float32(_DARK)
    # Sixty photons and more: Poisson numbers are as good as normal ones of the same variance, which cost a fifth.
    noise = np.sqrt(np.float32(_GAIN) * counts + np.float32(_READ_NOISE**2))
    pixels = counts + np.float32(OFFSET) + noise * rng.standard_normal(counts.shape, dtype=np.float32)
    return np.clip(np.rint(pixels), 0, _FULL).astype(np.uint16)


def _focus(image: Image, sigma: float) -> Image:
    """Blur as the objective does: a sharp part, and haze from outside the focus."""
    sharp = gaussian_filter(image, sigma, truncate=3.0)
    return (1 - _HAZE) * sharp + _HAZE * _haze(image)


def _haze(image: Image) -> Image:
    """Blur widely, at a quarter of the pixels."""
    size, step = len(image), 4
    small = -(-size // step)
    padded = np.pad(image, (0, small * step - size), mode="edge")
    coarse = padded.reshape(small, step, small, step).mean(axis=(1, 3))
    return stretch(gaussian_filter(coarse, _HAZE_WIDTH / step, mode="nearest"), size, step)
