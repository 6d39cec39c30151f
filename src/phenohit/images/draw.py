"""Simulated views: fields of cells as a fluorescence microscope would show them, with everything in them known.

For tests, demos and scaling, never as evidence. `draw_view` draws one view; `phenohit.images.draw_screen` a screen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.simulate_settings import SimulateSettings
from phenohit.images.draw_camera import FAULTS, illumination, take_picture
from phenohit.images.draw_shapes import Shapes, draw_shapes
from phenohit.images.draw_stains import draw_stains
from phenohit.images.draw_traits import TRAITS, channel_names

__all__ = ["FAULTS", "DrawnView", "draw_view", "illumination", "usual_cells"]

_CELLS = 28 / 256**2  # per pixel, untreated


@dataclass(frozen=True, eq=False)
class DrawnView:
    """One simulated view and what is in it.

    Attributes
    ----------
    pixels : uint16 array, shape (C, H, W)
    nuclei, cells : int32 array, shape (H, W)
        Label images as drawn, before the microscope; nucleus and cell of the same number belong together.
    objects : DataFrame, n rows
        ``object`` (its label), ``x``, ``y`` (centre of the nucleus: column and row, pixels), ``area``, ``cell_area``
        (pixels), ``cut`` (the nucleus touches the border of the view), ``touching`` (it touches another nucleus).
    fault : str
        ``none`` or one of `FAULTS`.
    fault_channel : str
        The channel that is saturated or shows debris most; empty for faults of all channels.
    """

    pixels: NDArray[np.uint16]
    nuclei: NDArray[np.int32]
    cells: NDArray[np.int32]
    objects: pd.DataFrame
    fault: str
    fault_channel: str


def usual_cells(size: int) -> float:
    """Cells expected in an untreated view whose side is `size` pixels."""
    return _CELLS * size**2


def draw_view(
    rng: np.random.Generator,
    settings: SimulateSettings,
    n_cells: int,
    *,
    shift: NDArray[np.float64] | None = None,
    lamp: NDArray[np.float32] | None = None,
    fault: str = "none",
) -> DrawnView:
    """Draw one view.

    Parameters
    ----------
    rng : Generator
    settings : SimulateSettings
        ``image_size`` and ``image_channels`` count.
    n_cells : int
        Nuclei to draw; 0 is drawn where the fault is empty.
    shift : float array, shape (traits,), optional
        Departure of each of `phenohit.images.draw_traits.TRAITS` from the usual, in units of ``effect``; 0 if absent.
    lamp : float32 array, shape (C, H, W), optional
        Factor on the light of each pixel, e.g. from `illumination`; even if absent.
    fault : str
        ``none`` or one of `FAULTS`.
    """
    channels, size = channel_names(settings), settings.image_size
    if lamp is None:
        lamp = np.ones((len(channels), size, size), np.float32)
    n = 0 if fault == "empty" else n_cells
    shift = np.zeros(len(TRAITS)) if shift is None else shift
    varied = rng.normal(size=(len(TRAITS), n))
    traits = {
        trait.name: trait.usual * np.exp(trait.span * shift[i] + trait.spread * varied[i])
        for i, trait in enumerate(TRAITS)
    }
    for name in ("nucleus_elongation", "cell_elongation"):
        traits[name] = np.maximum(traits[name], 1.0)
    shapes = draw_shapes(rng, traits, size)
    at = int(rng.integers(len(channels)))
    pixels = take_picture(rng, draw_stains(rng, shapes, traits, channels), lamp, fault, at)
    fault_channel = channels[at] if fault in ("saturated", "debris") else ""
    return DrawnView(pixels, shapes.nuclei, shapes.cells, _objects(shapes), fault, fault_channel)


def _objects(shapes: Shapes) -> pd.DataFrame:
    """Centres and areas of what was drawn."""
    labels, n = shapes.nuclei, len(shapes.nucleus_xy)
    area = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    row, column = np.indices(labels.shape)
    x, y = (np.bincount(labels.ravel(), at.ravel(), minlength=n + 1)[1:] for at in (column, row))
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    across = [(labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])]
    beside = [side[(a != b) & (a > 0) & (b > 0)] for a, b in across for side in (a, b)]
    number = np.arange(1, n + 1)
    objects = pd.DataFrame(
        {
            "object": number.astype(np.int32),
            "x": (x / np.maximum(area, 1)).astype(np.float32),
            "y": (y / np.maximum(area, 1)).astype(np.float32),
            "area": area.astype(np.int32),
            "cell_area": np.bincount(shapes.cells.ravel(), minlength=n + 1)[1:].astype(np.int32),
            "cut": np.isin(number, border),
            "touching": np.isin(number, np.concatenate(beside)),
        }
    )
    return objects[area > 0].reset_index(drop=True)
