"""Settings of images: where they are, which of them are usable, what is a cell, and what is measured of it.

Part of `phenohit.config`, which says how settings work. Nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ImageSource", "MeasureConfig", "QualityConfig", "SegmentConfig"]


@dataclass
class QualityConfig:
    """Which views are fit to be measured; what is flagged is listed with its reason.

    Parameters
    ----------
    enabled : bool
        Measure focus, saturation, debris and emptiness of every view.
    reject : list[str]
        Rules whose views are not measured: any of blurred, saturated, debris, empty, dark; see the docs.
    min_views : int
        Wells with fewer views left are left out and listed.
    illumination : {"estimate", "files", "none"}
        Estimate makes one function per plate and channel from its own images; files takes those that the
        image list names (``.npy``, as CellProfiler writes them); none leaves pixels as they are.
    smoothing : float
        Width of the Gaussian that smooths an estimated function, as a share of the image's shorter side.
    illumination_views : int
        Views of a plate that its function is estimated from, at most; drawn by seed.
    """

    enabled: bool = True
    reject: list[str] = field(default_factory=lambda: ["blurred", "saturated", "empty", "dark"])
    min_views: int = 1
    illumination: Literal["estimate", "files", "none"] = "estimate"
    smoothing: float = 0.1
    illumination_views: int = 200


@dataclass
class SegmentConfig:
    """What is a nucleus and what is a cell.

    Parameters
    ----------
    nuclei : str
        Channel that shows nuclei.
    cells : str
        Channel whose edges cells are grown to; empty: cells are nuclei grown by `reach`.
    diameter : float
        Usual diameter of a nucleus in pixels; 0: estimated from the images of each plate.
    threshold : float
        Factor on the threshold of nuclei: below 1 finds dimmer ones.
    cell_threshold : float
        The same for cells.
    min_area, max_area : float
        Nuclei smaller or larger than this many times the area of a disk of the usual diameter are not cells.
    reach : float
        Cells grow at most this many nuclear diameters from the nucleus.
    border : {"drop", "keep"}
        What becomes of cells whose nucleus touches the image's border.
    masks : dict[str, str]
        Instead of our own: label images (any program's, e.g. Cellpose) for nuclei and cells, as paths or
        addresses with {plate}, {well} and {site}.
    """

    nuclei: str = "DNA"
    cells: str = ""
    diameter: float = 0.0
    threshold: float = 1.0
    cell_threshold: float = 1.0
    min_area: float = 0.25
    max_area: float = 6.0
    reach: float = 1.5
    border: Literal["drop", "keep"] = "drop"
    masks: dict[str, str] = field(default_factory=dict)


@dataclass
class MeasureConfig:
    """What is measured of every cell, under CellProfiler's names.

    Parameters
    ----------
    features : {"fast", "standard", "full"}
        Fast (shape, intensity, radial distribution, neighbours), standard (also texture at 3 pixels, granularity
        and correlation of channels), full (also texture at 5 and 10 pixels, Zernike moments of intensity and
        Costes' correlation, which takes most of the time).
    channels : list[str]
        Channels to measure; empty: all.
    crops : int
        Side in pixels of the square images of single cells that are kept; 0: none.
    thumbnails : bool
        Keep a small picture of one view per well, for the report.
    """

    features: Literal["fast", "standard", "full"] = "standard"
    channels: list[str] = field(default_factory=list)
    crops: int = 0
    thumbnails: bool = True


@dataclass
class ImageSource:
    """The images of a screen.

    Parameters
    ----------
    path : str
        Folder, list of images or store, here or at an address (s3://...). Empty: the run begins with profiles.
    layout : str
        How plate, well, site and channel are found: one of load_data, bbbc021, imagexpress, phenix, yokogawa, npz,
        ome_tiff, ome_zarr; or pattern. Empty: by what is found at `path`.
    pattern : str
        For layout pattern: path below `path` with {plate}, {well}, {site}, {channel} and * , e.g.
        ``{plate}/{well}_s{site}_w{channel}.tif``.
    channels : dict[str, str]
        Our name -> name or number in the files, in the order in which channels are kept, e.g. {DNA: ch5, ER: ch2};
        empty: all, under the files' own names.
    plate : str
        Plate of all images where the layout does not tell it.
    plates : list[str]
        Only plates that match one of these patterns; empty: all.
    missing : {"skip", "fail"}
        What becomes of views with a missing or damaged channel: skip lists and leaves them out.
    bits : int
        Bits per pixel that the camera used, e.g. 12 in 16-bit files; 0: those of the file.
    store : bool
        Also write views as uint8 into the folder ``images/store``, for image models.
    clip : float
        For that: share of the brightest pixels of a channel image that become 255 (0.0028 %).
    quality : QualityConfig
    segment : SegmentConfig
    measure : MeasureConfig
    storage : dict[str, Any]
        For addresses: options of the file system, e.g. {anon: true, endpoint_url: "http://..."}.
    """

    path: str = ""
    layout: str = ""
    pattern: str = ""
    channels: dict[str, str] = field(default_factory=dict)
    plate: str = ""
    plates: list[str] = field(default_factory=list)
    missing: Literal["skip", "fail"] = "skip"
    bits: int = 0
    store: bool = False
    clip: float = 2.8e-5
    quality: QualityConfig = field(default_factory=QualityConfig)
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    storage: dict[str, Any] = field(default_factory=dict)
