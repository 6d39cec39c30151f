"""What each stain of the Cell Painting assay shows of simulated cells, before the microscope.

DNA: nuclei with grainy chromatin and dark nucleoli. ER: speckled cytoplasm, densest around the nucleus. RNA: cytoplasm
and bright nucleoli. AGP: actin at the edges and in fibres along the cell, Golgi as granules beside the nucleus. Mito: a
network of threads around the nucleus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from phenohit.images.draw_shapes import Shapes, smooth_noise

__all__ = ["draw_stains"]

_FINE, _COARSE = 0.9, 2.4  # speckles of the ER, pixels
_MOST_NUCLEOLI = 6
_GRANULES = 14

Image = NDArray[np.float32]
Traits = Mapping[str, NDArray[np.float64]]


class _Painter:
    """Shapes and traits of one view, with what several stains need."""

    def __init__(self, rng: np.random.Generator, shapes: Shapes, traits: Traits) -> None:
        self.rng, self.shapes, self.traits = rng, shapes, traits
        self.size = len(shapes.cells)
        self.depth = shapes.in_cell
        self.nucleus = gaussian_filter((shapes.nuclei > 0).astype(np.float32), 1.0)
        self.thickness = np.sqrt(np.maximum(1 - self.depth, 0)) * (shapes.cells > 0)
        self.nucleoli = self._nucleoli()

    def of(self, name: str) -> Image:
        """Give each pixel the trait of its cell; 0 outside cells."""
        return np.concatenate([[0.0], self.traits[name]]).astype(np.float32)[self.shapes.cells]

    def noise(self, sigma: float) -> Image:
        return smooth_noise(self.rng, self.size, sigma)

    def spots(self, xy: NDArray[np.float64], height: NDArray[np.float64], sigma: float) -> Image:
        """Draw round spots of these heights; those outside the view are left out."""
        plane = np.zeros((self.size, self.size), np.float32)
        at = np.rint(xy).astype(np.intp)
        inside = ((at >= 0) & (at < self.size)).all(axis=1)
        np.add.at(plane, (at[inside, 1], at[inside, 0]), height[inside].astype(np.float32))
        return gaussian_filter(plane, sigma) * np.float32(2 * np.pi * sigma**2)

    def _nucleoli(self) -> Image:
        """Spots of height about 1 inside nuclei."""
        number = np.minimum(self.rng.poisson(self.traits["nucleoli"]), _MOST_NUCLEOLI)
        owner = np.repeat(np.arange(len(number)), number)
        far = 0.6 * np.sqrt(self.rng.random(len(owner))) * self.traits["nucleus_size"][owner]
        turn = self.rng.uniform(0, 2 * np.pi, len(owner))
        xy = self.shapes.nucleus_xy[owner] + far[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
        return np.minimum(self.spots(xy, self.rng.uniform(0.6, 1.2, len(owner)), 1.4), 1.5) * self.nucleus

    def dna(self) -> Image:
        dome = np.maximum(1 - self.shapes.in_nucleus**2, 0) ** 0.25
        chromatin = np.maximum(1 + self.of("chromatin_grain") * self.noise(1.5), 0.2)
        nuclei = self.of("nucleus_brightness") * dome * chromatin * (1 - 0.35 * self.nucleoli)
        return nuclei * (self.shapes.nuclei > 0) + np.float32(120) * self.thickness

    def er(self) -> Image:
        part = np.clip(np.log(np.maximum(self.of("er_grain"), 0.1) / _FINE) / np.log(_COARSE / _FINE), 0, 1)
        grain = np.cos(part * np.pi / 2) * self.noise(_FINE) + np.sin(part * np.pi / 2) * self.noise(_COARSE)
        fall = np.exp(-self.of("er_gathering") * self.depth)
        body = self.of("er_brightness") * self.thickness * fall * np.maximum(1 + 0.2 * grain, 0.1)
        return body * (1 - 0.55 * self.nucleus)

    def rna(self) -> Image:
        body = self.of("rna_brightness") * self.thickness * np.exp(-0.8 * self.depth)
        return body * np.maximum(1 + 0.16 * self.noise(1.2), 0.2) * (1 - 0.3 * self.nucleus + 1.6 * self.nucleoli)

    def agp(self) -> Image:
        cells = self.shapes.cells
        edge = np.zeros_like(self.depth)
        for axis in (0, 1):  # where neighbouring pixels belong to different cells, or to none
            differs = np.diff(cells, axis=axis, append=np.take(cells, [-1], axis=axis)) != 0
            edge += differs | np.roll(differs, 1, axis=axis)
        edge = gaussian_filter(np.minimum(edge, 1), 1.1) * (0.7 + 0.3 * np.abs(self.noise(4.0)))
        image = self.of("actin_edge") * edge + self.of("actin_fibres") * self._fibres() * np.sqrt(self.thickness)
        return image + np.float32(1100) * self.thickness + self._golgi()

    def _fibres(self) -> Image:
        """Thin lines along each cell's long axis, of height about 1."""
        # Along the fibre every fourth pixel is enough: it changes slowly there.
        tile = gaussian_filter(self.rng.standard_normal((256, 64), dtype=np.float32), (1.0, 2.75), mode="wrap")
        tile = np.maximum(tile / tile.std(), 0) ** 2 / 2
        angle = np.concatenate([[0.0], self.shapes.angle]).astype(np.float32)
        cos, sin = np.cos(angle)[self.shapes.cells], np.sin(angle)[self.shapes.cells]
        pixel = np.arange(self.size, dtype=np.float32)
        bent = 3 * self.noise(16.0)
        along = np.rint(pixel * cos + pixel[:, None] * sin).astype(np.int32) // 4 % 64
        across = np.rint(pixel[:, None] * cos - pixel * sin + bent).astype(np.int32) + 37 * self.shapes.cells
        return tile[across % 256, along]

    def _golgi(self) -> Image:
        """Granules in a cluster on one side of each nucleus."""
        n, radius = len(self.shapes.angle), self.traits["nucleus_size"]
        side = self.rng.uniform(0, 2 * np.pi, n)
        cluster = self.shapes.nucleus_xy + 1.25 * radius[:, None] * np.column_stack([np.cos(side), np.sin(side)])
        owner = np.repeat(np.arange(n), _GRANULES)
        xy = cluster[owner] + 0.33 * radius[owner, None] * self.rng.normal(size=(len(owner), 2))
        height = self.traits["golgi_granules"][owner] * self.rng.uniform(0.1, 0.45, len(owner))
        return self.spots(xy, height, 1.1) * np.minimum(4 * self.thickness, 1)

    def mito(self) -> Image:
        threads = np.exp(-((self.noise(2.6) / np.float32(0.5)) ** 2)) + np.exp(-((self.noise(1.7) / 0.5) ** 2))
        fall = np.exp(-self.of("mito_gathering") * self.depth)
        body = self.of("mito_brightness") * self.thickness * fall * (0.25 + 0.4 * threads)
        return body * (1 - 0.75 * self.nucleus)


_STAINS = {"DNA": _Painter.dna, "ER": _Painter.er, "RNA": _Painter.rna, "AGP": _Painter.agp, "Mito": _Painter.mito}


def draw_stains(rng: np.random.Generator, shapes: Shapes, traits: Traits, channels: Sequence[str]) -> Image:
    """Draw the light that each stain gives off.

    Parameters
    ----------
    rng : Generator
    shapes : Shapes of n cells
    traits : mapping of str to float array, shape (n,)
        Every trait of `phenohit.images.draw_traits`.
    channels : sequence of str
        Of DNA, ER, RNA, AGP and Mito.

    Returns
    -------
    float32 array, shape (C, H, W)
        Camera counts above background, in focus and evenly lit.
    """
    painter = _Painter(rng, shapes, traits)
    return np.stack([_STAINS[channel](painter) for channel in channels]).astype(np.float32, copy=False)
