"""`Objects`: the label images of a view's nuclei and cells, our own or another program's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from scipy.sparse import coo_array
from skimage.measure import label
from skimage.segmentation import expand_labels

from phenohit.data.remote import Place, is_address
from phenohit.data.views import Views
from phenohit.errors import ConfigError, FileError, ShapeError
from phenohit.files import check_file
from phenohit.imaging import SegmentConfig

__all__ = ["Objects", "at_border", "keep_labels", "mask_files", "read_masks"]


@dataclass(frozen=True, eq=False)
class Objects:
    """The cells of a view.

    Attributes
    ----------
    nuclei, cells, cytoplasm : ndarray of int32, shape (H, W)
        Label images with the same labels 1 to n: 0 is background. Every cell has one nucleus, which lies within it;
        its cytoplasm is the rest and may be empty.
    left_out : dict[str, int]
        Number of nuclei that were found and are not cells, by reason.
    """

    nuclei: np.ndarray
    cells: np.ndarray
    cytoplasm: np.ndarray
    left_out: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.nuclei.shape == self.cells.shape == self.cytoplasm.shape:
            raise ShapeError(
                f"Label images of nuclei {self.nuclei.shape}, cells {self.cells.shape} and cytoplasm "
                f"{self.cytoplasm.shape} differ in size."
            )

    def __len__(self) -> int:
        return int(self.nuclei.max(initial=0))


def at_border(labels: np.ndarray, n: int) -> np.ndarray:
    """Which of labels 1 to n touch the image's border; bool, shape (n,)."""
    found = np.zeros(n + 1, bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        found[side] = True
    return found[1:]


def keep_labels(nuclei: np.ndarray, cells: np.ndarray, out: dict[str, np.ndarray]) -> Objects:
    """Leave out labels, each counted under its first reason, and number the rest 1 to n."""
    reasons = np.stack(list(out.values()))
    first = reasons & (np.cumsum(reasons, axis=0) == 1)
    new = np.append(True, ~reasons.any(axis=0)).cumsum() - 1
    new[1:][reasons.any(axis=0)] = 0
    nuclei, cells = new.astype(np.int32)[nuclei], new.astype(np.int32)[cells]
    left = {reason: int(number) for reason, number in zip(out, first.sum(axis=1), strict=True)}
    return Objects(nuclei, cells, np.where(nuclei > 0, 0, cells), left)


def mask_files(view: Views, config: SegmentConfig) -> dict[str, str]:
    """Return where the label images of one view are, by what they show.

    Raises
    ------
    ConfigError
        If a pattern has a field that is none of plate, well and site.
    """
    place = {c: str(view.rows[f"Metadata_{c.capitalize()}"].iloc[0]) for c in ("plate", "well", "site")}
    try:
        return {what: pattern.format(**place) for what, pattern in config.masks.items()}
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"segment.masks has a field ({error}) that is none of {{plate}}, {{well}}, {{site}}."
        ) from error


def read_masks(
    files: dict[str, str],
    config: SegmentConfig,
    shape: tuple[int, int] | None = None,
    *,
    storage: Mapping[str, Any] | None = None,
) -> Objects:
    """Take the label images of another program.

    Parameters
    ----------
    files : dict of str
        Paths or addresses of ``nuclei`` and, if there is one, ``cells``: whole numbers, 0 is background. TIFF, PNG or
        ``.npy``. An image with one value besides 0 is a mask, whose connected parts are the objects.
    config : SegmentConfig
        Of which `border`, `reach` and `diameter` count: without cells, nuclei are grown by `reach` diameters (0: the
        median of this image).
    shape : pair of int, optional
        Height and width that the images must have.
    storage : mapping, optional
        Options of the file system of addresses.

    Returns
    -------
    Objects
        A nucleus belongs to the cell that holds most of it, and of several nuclei in a cell the one with most pixels
        within is kept. Nuclei without a cell and cells without a nucleus are counted in `left_out`.

    Raises
    ------
    ConfigError
        If `files` names no nuclei.
    FileError
        If an image is absent or no label image.
    ShapeError
        If sizes differ.
    """
    if not files.get("nuclei"):
        raise ConfigError("segment.masks names no label image of nuclei. Give one under 'nuclei', or no masks at all.")
    nuclei = _read_labels(files["nuclei"], storage)
    cells = _read_labels(files["cells"], storage) if files.get("cells") else None
    for name, image in (("nuclei", nuclei), ("cells", cells)):
        wanted = shape or nuclei.shape
        if image is not None and image.shape != tuple(wanted):
            raise ShapeError(f"The label image '{files[name]}' is {image.shape}; expected {tuple(wanted)} (H, W).")
    nuclei, n = _renumber(nuclei)
    if cells is None:
        area = np.bincount(nuclei.ravel(), minlength=n + 1)[1:]
        diameter = config.diameter or float(np.sqrt(4 / np.pi * np.median(area)) if n else 0)
        cells, out, left = expand_labels(nuclei, config.reach * diameter), {}, {}
    else:
        cells, out, left = _match(nuclei, n, *_renumber(cells))
    if config.border == "drop":
        out["touching the border"] = at_border(nuclei, n)
    objects = keep_labels(nuclei, cells, out) if out else Objects(nuclei, cells, np.where(nuclei > 0, 0, cells))
    objects.left_out.update(left)
    return objects


def _read_labels(file: str, storage: Mapping[str, Any] | None) -> np.ndarray:
    """Whole numbers of a two-dimensional image."""
    local = Place(file, storage).local() if is_address(file) else Path(file)
    check_file(local)
    try:
        kind = file.lower().rpartition(".")[2]
        if kind == "npy":
            image = np.load(local, allow_pickle=False)
        elif kind in ("tif", "tiff"):
            image = tifffile.imread(local)
        else:
            image = np.asarray(Image.open(local))
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise FileError(f"'{file}' cannot be read as a label image ({error}). Expected TIFF, PNG or .npy.") from error
    image = np.squeeze(image)
    if image.ndim != 2 or image.dtype.kind not in "iub":
        raise FileError(
            f"'{file}' is no label image: its shape is {image.shape} and its type {image.dtype}. Expected (H, W) "
            "whole numbers, 0 for background. Save labels, not outlines or colours."
        )
    if image.min(initial=0) < 0:
        raise FileError(f"'{file}' holds negative labels ({image.min()}). Expected 0 for background and 1 to n.")
    values = np.unique(image[image > 0])
    return label(image > 0, connectivity=2) if len(values) == 1 else image


def _renumber(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Give labels the numbers 1 to n, in their order."""
    values, at = np.unique(np.append(0, labels), return_inverse=True)
    return at[1:].reshape(labels.shape).astype(np.int32), len(values) - 1


def _match(
    nuclei: np.ndarray, n: int, cells: np.ndarray, m: int
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, int]]:
    """Give cells the numbers of their nuclei; also which nuclei have none, and how many cells have none."""
    shared = coo_array((np.ones(nuclei.size, np.int64), (nuclei.ravel(), cells.ravel())), shape=(n + 1, m + 1))
    pair = shared.tocsr().tocoo()  # adds up
    size, nucleus, cell = pair.data, *pair.coords
    true = (nucleus > 0) & (cell > 0)
    size, nucleus, cell = size[true], nucleus[true], cell[true]
    order = np.argsort(-size, kind="stable")
    best = order[np.sort(np.unique(nucleus[order], return_index=True)[1])]  # the cell of every nucleus
    best = best[np.unique(cell[best], return_index=True)[1]]  # the nucleus of every cell
    owner = np.zeros(m + 1, np.int32)
    owner[cell[best]] = nucleus[best]
    lone = np.ones(n, bool)
    lone[nucleus[best] - 1] = False
    grown = owner[cells]
    inside = (nuclei > 0) & ~np.append(True, lone)[nuclei]
    grown[inside] = nuclei[inside]
    return grown, {"nuclei without a cell of their own": lone}, {"cells without a nucleus": m - len(best)}
