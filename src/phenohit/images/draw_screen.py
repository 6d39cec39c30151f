"""A simulated screen of images: the files, where the wells stand, and the truth of every view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.simulate import Latents
from phenohit.data.simulate_layout import barcodes
from phenohit.data.simulate_settings import SimulateSettings
from phenohit.errors import ConfigError
from phenohit.files import atomic, write_table
from phenohit.images.draw import FAULTS, DrawnView, draw_view, usual_cells
from phenohit.images.draw_camera import illumination
from phenohit.images.draw_traits import channel_names, look_of_plates
from phenohit.progress import track

__all__ = ["ScreenView", "draw_screen", "plant_faults", "write_images"]

_FULL = 65535
_NOTE = "SIMULATED: drawn by a program, never seen by a microscope."


@dataclass(frozen=True, eq=False)
class ScreenView:
    """One view of the screen.

    Attributes
    ----------
    plate, well : str
        Such as SIM-P001 and A01.
    site : int
        From 1.
    drawn : DrawnView
    lamp : float32 array, shape (C, H, W)
        Illumination functions of the plate.
    """

    plate: str
    well: str
    site: int
    drawn: DrawnView
    lamp: NDArray[np.float32]


def plant_faults(settings: SimulateSettings, n_views: int) -> NDArray[np.str_]:
    """Choose the views in which something is wrong: a share of them, each fault equally often.

    Returns
    -------
    text array, shape (n_views,)
        ``none`` or one of `phenohit.images.draw.FAULTS`.
    """
    rng = np.random.default_rng([settings.seed, 14])
    faults = np.full(n_views, "none", dtype="<U9")
    bad = rng.permutation(n_views)[: round(settings.bad_views * n_views)]
    faults[bad] = np.array(FAULTS)[np.arange(len(bad)) % len(FAULTS)]
    return faults


def draw_screen(settings: SimulateSettings, latents: Latents, wells: pd.DataFrame) -> Iterator[ScreenView]:
    """Draw view after view, plate by plate.

    Parameters
    ----------
    settings : SimulateSettings
        ``images`` views of every well.
    latents : Latents of N compounds
    wells : DataFrame, P rows
        From `phenohit.data.simulate_layout.plan_wells`.

    Notes
    -----
    Every view has random numbers of its own, so that what is drawn does not depend on what was drawn before. Cells
    are Poisson around the usual density times what death, position and plate leave of it.
    """
    faults = plant_faults(settings, len(wells) * settings.images).reshape(len(wells), settings.images)
    plates, names = barcodes(wells).to_numpy(), wells["well"].to_numpy()
    for look in look_of_plates(settings, latents, wells):
        function = illumination(settings, look.number)
        lamp = function * look.brightness[:, None, None].astype(np.float32)
        for i in range(len(look.cells)):
            at = look.rows.start + i
            for site in range(settings.images):
                rng = np.random.default_rng([settings.seed, 15, at, site])
                n = int(rng.poisson(usual_cells(settings.image_size) * look.cells[i]))
                drawn = draw_view(rng, settings, n, shift=look.shift[i], lamp=lamp, fault=str(faults[at, site]))
                yield ScreenView(str(plates[at]), str(names[at]), site + 1, drawn, function)


def write_images(folder: Path, settings: SimulateSettings, latents: Latents, wells: pd.DataFrame) -> dict[str, int]:
    """Draw a screen and write its images and the truth about them.

    Parameters
    ----------
    folder : Path
        Made if absent. ``simulated_images`` in it is filled with ``{plate}/{well}_s{site}_w{channel}.tif`` (16 bits,
        deflate), channels numbered from 1; images of an earlier simulation are removed first.
    settings : SimulateSettings
    latents : Latents of N compounds
    wells : DataFrame, P rows
        From `phenohit.data.simulate_layout.plan_wells`.

    Returns
    -------
    dict of str to int
        Counts: views, channels, nuclei, bad_views.

    Raises
    ------
    ConfigError
        If tifffile is not installed.
    FileError
        If the folder cannot be written.

    Notes
    -----
    Also writes ``simulated_images.csv`` (one row per view: nuclei drawn, planted fault and its channel, share of
    saturated pixels in the worst channel, and per channel by how much the darkest pixel is lit less than the
    brightest) and ``simulated_nuclei.parquet`` (centre and area of every nucleus drawn).
    """
    if find_spec("tifffile") is None:
        raise ConfigError("Images need tifffile, which is not installed: pip install 'phenohit[images]'")
    _clear(folder / "simulated_images")
    views, nuclei = [], []
    total = len(wells) * settings.images
    for view in track(draw_screen(settings, latents, wells), "simulate images", total):
        _write_view(folder / "simulated_images" / view.plate, view)
        key = {"Metadata_Plate": view.plate, "Metadata_Well": view.well, "Metadata_Site": str(view.site)}
        views.append({**key, **_truth(settings, view)})
        nuclei.append(view.drawn.objects.assign(**key)[[*key, *view.drawn.objects.columns]])
    table = pd.DataFrame(views)
    write_table(folder / "simulated_images.csv", table)
    write_table(folder / "simulated_nuclei.parquet", pd.concat(nuclei, ignore_index=True))
    return {
        "views": len(table),
        "channels": settings.image_channels,
        "nuclei": int(table["n_nuclei"].sum()),
        "bad_views": int((table["fault"] != "none").sum()),
    }


def _clear(images: Path) -> None:
    """Remove images of an earlier simulation, which may have had more wells, and nothing else."""
    for path in images.glob("SIM-P*/???_s*_w?.tif"):
        path.unlink()


def _write_view(folder: Path, view: ScreenView) -> None:
    """Write the channels of one view as TIFF files."""
    from tifffile import imwrite

    for number, image in enumerate(view.drawn.pixels, start=1):
        with atomic(folder / f"{view.well}_s{view.site}_w{number}.tif") as partial:
            # The predictor stores differences of neighbours; with it, the lowest level is as small as any, and fast.
            imwrite(
                partial,
                image,
                compression="zlib",
                compressionargs={"level": 1},
                predictor=True,
                description=_NOTE,
                metadata=None,
            )


def _truth(settings: SimulateSettings, view: ScreenView) -> dict[str, object]:
    """One row of ``simulated_images.csv``, without its key."""
    drawn = view.drawn
    saturated = (drawn.pixels == _FULL).mean(axis=(1, 2)).max()
    fall = 1 - view.lamp.min(axis=(1, 2)) / view.lamp.max(axis=(1, 2))
    return {
        "n_nuclei": len(drawn.objects),
        "n_cut": int(drawn.objects["cut"].sum()),
        "fault": drawn.fault,
        "fault_channel": drawn.fault_channel,
        "saturated_share": round(float(saturated), 5),
        **{f"shading_{channel}": round(float(f), 4) for channel, f in zip(channel_names(settings), fall, strict=True)},
    }
