"""Features whose geometry or order is shared by channels, worked out once: rings, pairs of channels, granularity.

Definitions are CellProfiler's. cp_measure has them too, one channel and one compartment at a time; here what does
not depend on the channel (distances within a cell, ranks of its pixels, opened images) is not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from centrosome.propagate import propagate
from scipy import ndimage, sparse

__all__ = ["Pixels", "correlations", "granularity", "pixels_of", "radial"]

_RINGS, _WEDGES = 4, 8
_THRESHOLD = 0.15  # of the brightest pixel of the cell: CellProfiler's default for what counts as stained


@dataclass(frozen=True)
class Pixels:
    """Pixels of all objects of a label image, object by object.

    Attributes
    ----------
    at : int64, shape (P,)
        Place in the flattened image.
    owner : int64, shape (P,)
        Object, from 0; does not fall.
    starts : int64, shape (n,)
        Where an object's pixels begin.
    """

    at: np.ndarray
    owner: np.ndarray
    starts: np.ndarray

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum over the pixels of each object: (..., P) to (..., n)."""
        return np.add.reduceat(values, self.starts, axis=-1)


def pixels_of(labels: np.ndarray) -> Pixels:
    """List the pixels of labels 1..n, none of which may be absent; labels int (H, W)."""
    flat = labels.ravel()
    inside = np.flatnonzero(flat)
    at = inside[np.argsort(flat[inside], kind="stable")]
    owner = flat[at].astype(np.int64) - 1
    return Pixels(at, owner, np.searchsorted(owner, np.arange(labels.max())))


def correlations(view: np.ndarray, pixels: Pixels, channels: Sequence[str]) -> dict[str, np.ndarray]:
    """Correlate pairs of channels within objects, as CellProfiler's MeasureColocalization does.

    Parameters
    ----------
    view : float64, shape (C, H, W)
    pixels : Pixels
    channels : sequence of str

    Returns
    -------
    dict of str to float64, shape (n,)
        ``Correlation_Correlation_A_B``, ``_Overlap_A_B``, and both ways ``_K_``, ``_Manders_`` and ``_RWC_`` (Singan
        et al. 2011, BMC Bioinformatics 12:407). NaN where a channel has one value only (Correlation) or none above 0.
    """
    order = [channels.index(c) for c in sorted(channels)]
    names = [channels[c] for c in order]
    x = view.reshape(len(view), -1)[order][:, pixels.at]
    owner = pixels.owner
    most = np.maximum.reduceat(x, pixels.starts, axis=1)
    varied = most > np.minimum.reduceat(x, pixels.starts, axis=1)
    stained = x >= _THRESHOLD * most[:, owner]
    rank, ranks = _ranks(x, pixels)
    size = np.diff(np.append(pixels.starts, len(owner)))
    centred = x - (pixels.total(x) / size)[:, owner]
    spread, amount = pixels.total(centred**2), pixels.total(x * stained)
    found: dict[str, np.ndarray] = {}
    for i, j in combinations(range(len(names)), 2):
        a, b = names[i], names[j]
        both = stained[i] & stained[j]
        first, second = x[i] * both, x[j] * both
        weight = 1 - np.abs(rank[i] - rank[j]) / (np.maximum(ranks[i], ranks[j]) + 1)[owner]
        product, squares, other = pixels.total(np.stack([first * second, first**2, second**2]))
        common, shared, weighted, reweighted = pixels.total(np.stack([first, second, first * weight, second * weight]))
        with np.errstate(invalid="ignore", divide="ignore"):  # no stain, or one value only: not defined, NaN
            r = pixels.total(centred[i] * centred[j]) / np.sqrt(spread[i] * spread[j])
            met = pixels.total(both.astype(np.int64)) > 0  # CellProfiler gives 0 where no pixel is stained by both
            values = {
                f"Overlap_{a}_{b}": product / np.sqrt(squares * other),
                f"K_{a}_{b}": product / squares,
                f"K_{b}_{a}": product / other,
                f"Manders_{a}_{b}": common / amount[i],
                f"Manders_{b}_{a}": shared / amount[j],
                f"RWC_{a}_{b}": weighted / amount[i],
                f"RWC_{b}_{a}": reweighted / amount[j],
            }
        found[f"Correlation_Correlation_{a}_{b}"] = np.where(varied[i] & varied[j], r, np.nan)
        found |= {f"Correlation_{name}": np.where(met, value, 0.0) for name, value in values.items()}
    return found


def _ranks(x: np.ndarray, pixels: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Rank each channel's pixels within their object, equal values alike, from 0: (C, P), and the highest: (C, n)."""
    rank = np.empty(x.shape, np.int64)
    for c, values in enumerate(x):
        order = np.lexsort((values, pixels.owner))
        ordered = values[order]
        risen = np.r_[0, np.cumsum(ordered[1:] != ordered[:-1])]
        rank[c, order] = risen - risen[pixels.starts][pixels.owner]
    return rank, np.maximum.reduceat(rank, pixels.starts, axis=1)


def radial(view: np.ndarray, labels: np.ndarray, channels: Sequence[str]) -> dict[str, np.ndarray]:
    """Distribute intensity over four rings from the middle of an object to its edge, as CellProfiler does.

    Parameters
    ----------
    view : float64, shape (C, H, W)
    labels : int32, shape (H, W)
        1..n, none absent.
    channels : sequence of str

    Returns
    -------
    dict of str to float64, shape (n,)
        ``RadialDistribution_FracAtD_DNA_1of4`` (share of the intensity), ``_MeanFrac_`` (that over the share of the
        pixels) and ``_RadialCV_`` (variation over eight wedges of a ring; 0 for a ring without pixels).
    """
    n = int(labels.max())
    at, owner, ring, wedge = _rings(labels)
    cell = (owner * _RINGS + ring) * _WEDGES + wedge
    shape = (n, _RINGS, _WEDGES)
    count = np.bincount(cell, minlength=n * _RINGS * _WEDGES).reshape(shape)
    share = count.sum(2) / count.sum((1, 2))[:, None]
    found: dict[str, np.ndarray] = {}
    for channel, image in zip(channels, view, strict=True):
        amount = np.bincount(cell, image.ravel()[at], minlength=count.size).reshape(shape)
        with np.errstate(invalid="ignore", divide="ignore"):  # a dark cell has no distribution, NaN
            part = amount.sum(2) / amount.sum((1, 2))[:, None]
            means = np.where(count > 0, amount / count, 0.0)
            wedges = (count > 0).sum(2)
            mean = means.sum(2) / wedges
            spread = np.sqrt((((means - mean[..., None]) ** 2) * (count > 0)).sum(2) / wedges)
            variation = np.where(wedges > 0, spread / mean, 0.0)
        for k in range(_RINGS):
            place = f"{channel}_{k + 1}of{_RINGS}"
            found[f"RadialDistribution_FracAtD_{place}"] = part[:, k]
            found[f"RadialDistribution_MeanFrac_{place}"] = part[:, k] / (share[:, k] + np.finfo(float).eps)
            found[f"RadialDistribution_RadialCV_{place}"] = variation[:, k]
    return found


def _rings(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Place in the flattened image, object, ring and wedge of every pixel that the object's middle is connected to.

    The middle is the first of the pixels farthest from the edge; a pixel's ring is its distance from there, within
    the object, over the sum of that and its distance from the edge. One box per object, with a pixel around it.
    """
    height, width = labels.shape
    parts = []
    for k, (rows, cols) in enumerate(ndimage.find_objects(labels)):
        top, left = max(rows.start - 1, 0), max(cols.start - 1, 0)
        mine = labels[top : min(rows.stop + 1, height), left : min(cols.stop + 1, width)] == k + 1
        # an object that fills the whole image has no edge: CellProfiler's distance is then that to a far corner
        edge = ndimage.distance_transform_edt(mine) * mine
        y, x = np.unravel_index(edge.argmax(), mine.shape)
        seed = np.zeros(mine.shape, int)
        seed[y, x] = 1
        reached, distance = propagate(np.zeros(mine.shape), seed, mine, 1)
        i, j = np.nonzero((reached > 0) & mine)
        far = distance[i, j]
        ring = (far / (far + edge[i, j] + 0.001) * _RINGS).astype(np.int64)
        wedge = (i > y) + (j > x) * 2 + (abs(i - y) > abs(j - x)) * 4
        parts.append(((i + top) * width + j + left, np.full(len(i), k), ring, wedge))
    at, owner, ring, wedge = (np.concatenate(p) for p in zip(*parts, strict=True))
    return at, owner, ring, wedge


def granularity(
    measure: Callable[..., dict[str, np.ndarray]], view: np.ndarray, compartments: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Measure granularity of all compartments from one pass over the image per channel.

    The spectrum is a difference of mean intensities, so it is measured in the pieces of image that belong to the same
    object of every compartment, and summed over those that make up an object.

    Parameters
    ----------
    measure : function of labels and image to dict
        cp_measure's.
    view : float64, shape (C, H, W)
    compartments : sequence of int32, shape (H, W)
        Labels 1..n each, none absent.

    Returns
    -------
    list of float64, shape (C, 16, n)
        One per compartment.
    """
    stack = np.stack([c.ravel() for c in compartments])
    inside = np.flatnonzero(stack.any(0))
    base = stack.max(1).astype(np.int64) + 1
    _, one, piece = np.unique(np.ravel_multi_index(stack[:, inside], base), return_index=True, return_inverse=True)
    owners = stack[:, inside[one]]
    labels = np.zeros(stack.shape[1], np.int32)
    labels[inside] = piece + 1
    size = np.bincount(piece)
    eps = np.finfo(float).eps
    spectra = [np.zeros((len(view), 16, int(c.max()))) for c in compartments]
    for c, image in enumerate(view):
        start = np.bincount(piece, image.ravel()[inside]) / size
        steps = np.stack(list(measure(labels.reshape(image.shape), image).values()))
        lost = steps / 100 * np.maximum(start, eps) * size  # summed intensity that each step took away, per piece
        for owner, out in zip(owners, spectra, strict=True):
            n = out.shape[2]
            kept = np.flatnonzero(owner)
            gather = sparse.csr_array((np.ones(len(kept)), (kept, owner[kept] - 1)), shape=(len(size), n))
            area = size @ gather
            out[c] = (lost @ gather) / area * 100 / np.maximum((start * size) @ gather / area, eps)
    return spectra
