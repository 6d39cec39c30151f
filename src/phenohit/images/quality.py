"""Quality of views: focus, saturation, debris, emptiness and darkness, and which views to distrust.

Measurements are those of CellProfiler's MeasureImageQuality, under its names and on its scale (intensities in shares of
the full scale), and four of our own: ``PercentSaturated``, ``SignalToNoise``, ``BrightestBlock`` and ``Debris``. That
the slope of the power spectrum tells focus and the share of bright pixels saturation and debris, and that limits belong
to a plate, is from Bray et al. 2012 ("Workflow and metrics for image quality control in large-scale high-content
screens").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import fft
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

from phenohit.errors import ColumnError, ShapeError, nearest, some
from phenohit.imaging import QualityConfig

__all__ = ["FLAG_COLUMNS", "flag_views", "measure_quality", "power_slope"]

FLAG_COLUMNS = ["view", "rule", "channel", "value", "limit", "rejected", "reason"]

# Limits in absolute units. Real fields of four screens, in focus: slope -2.8 to -0.6 in the nuclear channel, signal to
# noise 66 or more (images of noise: 3), debris 3.3 to 5.7 (with debris: 7.3 to 29), at most 0.33 % saturated.
PLATE = 12  # views that a plate's own limits take; with fewer, absolute limits only
SPREAD = 5.0  # times 1.4826 MAD from the plate's median
STEEPEST, STEEPER = -3.0, 0.4  # slope: on its own, and below the plate's median
SATURATED, SATURATION = 5.0, 0.5  # percent of pixels: on its own, and at least to stand out from the plate
DEBRIS, BRIGHTER = 10.0, 2.5  # brightest block: times the view's own cells (nuclei), and times the plate's median
NUCLEI = 6.0  # signal to noise of a channel with nuclei in it
DARK, DARKER = 0.001, 0.1  # brightest pixel as a share of full scale, and contrast as a share of the plate's median
_BLOCKS = 20  # blocks along the shorter side: each a little larger than a nucleus


def measure_quality(view: ArrayLike, channels: Sequence[str], full_scale: float) -> dict[str, float]:
    """Measure the quality of a view.

    Parameters
    ----------
    view : array (C, H, W)
        As the camera gave it, not corrected.
    channels : sequence of str
    full_scale : float
        The largest value that the camera could give.

    Returns
    -------
    dict of float
        ``ImageQuality_<measurement>_<channel>``. As CellProfiler: PowerLogLogSlope, PercentMaximal, PercentMinimal
        (of pixels with the image's own extreme value), MeanIntensity, MedianIntensity, StdIntensity, MADIntensity,
        MinIntensity, MaxIntensity. Our own: PercentSaturated (of pixels at full scale), SignalToNoise (brightest
        0.1 % of a smoothed image above its median, in standard deviations of the background), BrightestBlock (mean
        above the background of the brightest of 20 x 20 blocks) and Debris (that, over the median of blocks with
        cells).

    Raises
    ------
    ShapeError
        If there is not one image per channel.
    """
    view = np.asarray(view)
    if view.ndim != 3 or len(view) != len(channels):
        raise ShapeError(f"{len(channels)} channels, but a view of shape {view.shape}; expected (C, H, W).")
    row: dict[str, float] = {}
    for image, channel in zip(view, channels, strict=True):
        measured = _intensities(image, full_scale)
        measured["PowerLogLogSlope"] = power_slope(image)
        measured["SignalToNoise"] = _signal_to_noise(image)
        measured["Debris"], brightest = _debris(image)
        measured["BrightestBlock"] = brightest / full_scale
        row.update({f"ImageQuality_{name}_{channel}": value for name, value in measured.items()})
    return row


def _intensities(image: np.ndarray, full_scale: float) -> dict[str, float]:
    """Statistics of pixels, on a scale of 0 to 1."""
    low, middle, high = float(image.min()), float(np.median(image)), float(image.max())
    spread = float(np.median(np.abs(image.astype(np.float32) - np.float32(middle))))
    return {
        "PercentMaximal": 100 * float((image == high).mean()),
        "PercentMinimal": 100 * float((image == low).mean()),
        "PercentSaturated": 100 * float((image >= full_scale).mean()),
        "MeanIntensity": float(image.mean(dtype=np.float64)) / full_scale,
        "MedianIntensity": middle / full_scale,
        "StdIntensity": float(image.std(dtype=np.float64)) / full_scale,
        "MADIntensity": spread / full_scale,
        "MinIntensity": low / full_scale,
        "MaxIntensity": high / full_scale,
    }


def power_slope(image: ArrayLike) -> float:
    """Slope of log power over log spatial frequency: steeper (more negative) where an image is blurred.

    As CellProfiler's PowerLogLogSlope: power is summed over rings, so that white noise has a slope of +1; rings from
    the second to an eighth of the shorter side. 0 for an image of one value.

    Parameters
    ----------
    image : array (H, W)

    Returns
    -------
    float
    """
    image = np.asarray(image, np.float32)
    rings = np.arange(2, int(min(image.shape) / 8))
    if len(rings) < 2 or np.ptp(image) == 0:
        return 0.0
    power = np.abs(np.asarray(fft.fft2(image - image.mean(dtype=np.float64)))) ** 2
    total = np.bincount(_rings(image.shape), power.ravel().astype(np.float64))[rings]
    some_power = total > 0
    if some_power.sum() < 2:
        return 0.0
    return float(np.polyfit(np.log(rings[some_power]), np.log(total[some_power]), 1)[0])


@lru_cache(maxsize=4)
def _rings(shape: tuple[int, ...]) -> np.ndarray:
    """Ring of every term of a Fourier transform, numbered as CellProfiler does: distance to the nearest corner + 1."""
    square = np.arange(shape[0])[:, None] ** 2 + np.arange(shape[1]) ** 2
    square = np.minimum(square, square[::-1])
    return (np.sqrt(np.minimum(square, square[:, ::-1])).astype(np.int32) + 1).ravel()


def _signal_to_noise(image: np.ndarray) -> float:
    """Brightest 0.1 % over the median, in standard deviations of the lowest quarter; of white noise about 3."""
    smooth = gaussian_filter(image.astype(np.float32), 2)[::2, ::2]
    floor, quarter, middle, top = np.percentile(smooth, [2.275, 25, 50, 99.9]).tolist()
    noise = (quarter - floor) / 1.3255  # of a normal distribution
    return (top - middle) / max(noise, 1e-3) if top > middle else 0.0


def _debris(image: np.ndarray) -> tuple[float, float]:
    """Mean of the brightest block above the background: over the median of blocks with cells, and as it is."""
    step = max(1, min(image.shape) // _BLOCKS)
    rows, cols = (n // step for n in image.shape)
    blocks = image[: rows * step, : cols * step].reshape(rows, step, cols, step).mean(axis=(1, 3), dtype=np.float64)
    light = blocks - float(np.percentile(image, 5))
    brightest = float(light.max())
    if brightest <= 0:
        return 1.0, 0.0
    logs = np.log(np.clip(light, brightest / 1e3, None))
    cells = light[logs > threshold_otsu(logs)] if np.ptp(logs) > 0 else light
    return brightest / float(np.median(cells)), brightest


def flag_views(table: pd.DataFrame, config: QualityConfig, channels: Sequence[str], nuclei: str) -> pd.DataFrame:
    """Flag views that are blurred, saturated, full of debris, empty or dark.

    Limits are the plate's median and `SPREAD` robust standard deviations where it has 12 views or more, never closer
    to the median than a floor in the measurement's own unit, so that an even plate flags nothing. On smaller plates
    limits are absolute: for blur and debris in the nuclear channel only. Black and empty views, and those with much
    saturation, are flagged on any plate. A plate of which all views are blurred alike is not found out.

    Parameters
    ----------
    table : DataFrame, V rows
        What `measure_quality` returns, one row per view, and ``Metadata_Plate`` if there is more than one plate.
    config : QualityConfig
        Of which `reject` counts.
    channels : sequence of str
    nuclei : str
        The channel that shows nuclei.

    Returns
    -------
    DataFrame
        One row per view, rule and channel at fault: ``view`` (row number in `table`), ``rule``, ``channel``, ``value``,
        ``limit``, ``rejected`` (whether the rule is in `config.reject`), ``reason`` (in words); by view.

    Raises
    ------
    ColumnError
        If a measurement is not in the table, or `nuclei` no channel.
    """
    if nuclei not in channels:
        raise ColumnError(f"No channel is called '{nuclei}'. {nearest(nuclei, channels)} Correct segment.nuclei.")
    names = (
        "PowerLogLogSlope",
        "PercentSaturated",
        "Debris",
        "BrightestBlock",
        "SignalToNoise",
        "MaxIntensity",
        "StdIntensity",
    )
    lacking = [f"ImageQuality_{n}_{c}" for c in channels for n in names if f"ImageQuality_{n}_{c}" not in table]
    if lacking:
        raise ColumnError(f"The table of quality lacks {some(lacking)}. Measure the quality of these views again.")
    plate = table["Metadata_Plate"].to_numpy() if "Metadata_Plate" in table else np.zeros(len(table))
    flags: list[tuple] = []
    for one in pd.unique(plate):
        at = np.flatnonzero(plate == one)
        for channel in channels:
            values = {n: table[f"ImageQuality_{n}_{channel}"].to_numpy(float)[at] for n in names}
            for rule, value, limit, bad, words in _judge(values, channel == nuclei):
                flags += [
                    (at[i], rule, channel, value[i], limit, rule in config.reject, words.format(value[i], limit))
                    for i in np.flatnonzero(bad)
                ]
    found = pd.DataFrame(flags, columns=FLAG_COLUMNS)
    found["reason"] = found["channel"].astype(str) + ": " + found["reason"].astype(str)
    return found.sort_values("view", kind="stable", ignore_index=True)


def _judge(v: dict[str, np.ndarray], nuclear: bool) -> Iterator[tuple[str, np.ndarray, float, np.ndarray, str]]:
    """Rule, value, limit, which views of a plate are at fault, and why in words, of one channel."""
    own = len(v["Debris"]) >= PLATE

    value = v["PowerLogLogSlope"]
    limit = STEEPEST if nuclear else -np.inf
    if own:  # where views of a plate differ much, one that is steep by itself and on the plate is blurred all the same
        limit = max(_beyond(value, -1, STEEPER), min(limit, float(np.median(value)) - 2 * STEEPER))
    yield "blurred", value, limit, value < limit, "slope of the power spectrum {:.2f} is steeper than {:.2f}"

    value = v["PercentSaturated"]
    limit = min(SATURATED, max(SATURATION, _beyond(value, 1, 0))) if own else SATURATED
    yield "saturated", value, limit, value > limit, "{:.2f} % of pixels are saturated, more than {:.2f} %"

    if own:
        value = v["BrightestBlock"]
        limit = _beyond(value, 1, (BRIGHTER - 1) * float(np.median(value)))
        words = "the brightest spot, {:.4f} of full scale, is far brighter than on the plate ({:.4f}): debris"
        yield "debris", value, limit, value > limit, words
    elif nuclear:
        value = v["Debris"]
        words = "the brightest spot is {:.1f} times as bright as cells, more than {:.1f}: debris"
        yield "debris", value, DEBRIS, value > DEBRIS, words

    if nuclear:
        value = v["SignalToNoise"]
        yield "empty", value, NUCLEI, value < NUCLEI, "signal to noise {:.1f} is below {:.1f}: no nuclei to be seen"

    value = v["MaxIntensity"]
    words = "the brightest pixel is {:.4f} of full scale, at most {:.4f}: no light"
    black = (value <= DARK) | (v["StdIntensity"] == 0)
    yield "dark", value, DARK, black, words

    value = v["StdIntensity"]
    limit = DARKER * float(np.median(value)) if own else 0.0
    words = "contrast {:.5f} (standard deviation, of full scale) is below {:.5f}, a tenth of the plate's"
    yield "dark", value, limit, (value < limit) & ~black, words


def _beyond(values: np.ndarray, side: int, floor: float) -> float:
    """Median and `SPREAD` robust standard deviations to one side, but at least `floor` from the median."""
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return middle + side * max(SPREAD * spread, floor)
