"""Read pixels: TIFF, OME-TIFF, PNG, JPEG, hti-cnn's .npz, zarr; every channel of a view, or one image.

What cannot be read as it was taken is refused by name: an image is never black because its file is damaged.
"""

from __future__ import annotations

import json
import logging
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from phenohit.data.remote import Place, is_address
from phenohit.errors import ConfigError, FileError, ShapeError, some
from phenohit.files import check_file

__all__ = ["full_scale", "npz_shape", "read_image", "read_view", "split_address"]

_AGAIN = "Copy it again, or make it again."
_KEY = "sample"  # the array of an .npz of hti-cnn
_DECODERS = {".png": "png_decode", ".jpg": "jpeg_decode", ".jpeg": "jpeg_decode"}
_MOST_PACKED = 2000  # times that an image may be larger than its file; deflate reaches 1032, LZW 1365

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs about a damaged file, we raise


def split_address(file: str) -> tuple[str, int | None]:
    """Split ``plate.ome.tif#2`` into the file and the number of the channel in it; None where there is no number."""
    found = re.fullmatch(r"(.+)#(\d+)", file, re.DOTALL)
    return (found[1], int(found[2])) if found else (file, None)


def read_image(file: str, storage: Mapping[str, Any] | None = None) -> NDArray[Any]:
    """Read one channel of one view.

    Parameters
    ----------
    file : str
        Path or address; ``#n``: page of a TIFF, channel (last axis) of an .npz, plane of a zarr array, from 0.
    storage : mapping, optional
        Options of the file system of an address.

    Returns
    -------
    ndarray, shape (H, W), uint8 or uint16

    Raises
    ------
    FileError
        If the file is missing, truncated, in colour, of more dimensions or of another type; names it.
    """
    return _images([file], storage)[0]


def read_view(files: Sequence[str], *, storage: Mapping[str, Any] | None = None, bits: int = 0) -> NDArray[Any]:
    """Read all channels of one view.

    Parameters
    ----------
    files : sequence of str
        One for each channel, as for `read_image`.
    storage : mapping, optional
    bits : int
        Bits that the camera used, e.g. 12 in 16-bit files; brighter pixels are refused. 0: those of the file.

    Returns
    -------
    ndarray, shape (C, H, W), uint8 or uint16

    Raises
    ------
    FileError
        As `read_image`; also if a pixel is brighter than `bits` allow, or channels have different types.
    ShapeError
        If channels have different sizes.
    """
    if not files:
        raise ShapeError("A view has no channels.")
    images = _images(files, storage)
    shapes, kinds = {i.shape for i in images}, {i.dtype for i in images}
    if len(shapes) > 1:
        shown = some([f"{f}: {i.shape[0]} x {i.shape[1]}" for f, i in zip(files, images, strict=True)])
        raise ShapeError(f"The channels of a view have different sizes: {shown}. Expected one size.")
    if len(kinds) > 1:
        shown = some([f"{f}: {i.dtype}" for f, i in zip(files, images, strict=True)])
        raise FileError(f"The channels of a view have different types: {shown}. Convert them to one.")
    view = np.stack(images)
    if bits:
        _check_bits(view, files, bits)
    return view


def full_scale(view: NDArray[Any], bits: int = 0) -> float:
    """Return the largest value that the camera could give: 2**bits - 1, or that of the type.

    Raises
    ------
    ConfigError
        If the type has fewer bits.
    """
    most = float(np.iinfo(view.dtype).max)
    if not bits:
        return most
    if not 0 < bits <= 8 * view.dtype.itemsize:
        raise ConfigError(
            f"images.bits is {bits}, but the images have {8 * view.dtype.itemsize}. Set 0 for all of them."
        )
    return float(2**bits - 1)


def _check_bits(view: NDArray[Any], files: Sequence[str], bits: int) -> None:
    limit = full_scale(view, bits)
    brightest = view.max(axis=(1, 2))
    for file, value in zip(files, brightest, strict=True):
        if value > limit:
            raise FileError(
                f"'{file}' has a pixel of {value}, but {bits} bits (images.bits) reach {limit:.0f}. Correct "
                "images.bits; 0 takes all bits of the files."
            )


def _images(files: Sequence[str], storage: Mapping[str, Any] | None) -> list[NDArray[Any]]:
    """Read images; a file that holds several is opened once."""
    found: dict[int, NDArray[Any]] = {}
    split = [split_address(f) for f in files]
    for path in dict.fromkeys(p for p, _ in split):
        at = [i for i, (p, _) in enumerate(split) if p == path]
        found |= dict(zip(at, _of_file(path, [split[i][1] for i in at], storage), strict=True))
    return [_greyscale(found[i], files[i]) for i in range(len(files))]


def _of_file(path: str, numbers: list[int | None], storage: Mapping[str, Any] | None) -> list[NDArray[Any]]:
    if not path:
        raise FileError("A channel of a view has no file. Leave the view out, or name the file.")
    low = path.lower()
    suffix = Path(low).suffix
    if suffix not in (".tif", ".tiff", ".npz", *_DECODERS):
        if any(n is None for n in numbers) or re.search(r"\.[a-z]{2,4}$", low.rpartition("/")[2]):
            raise FileError(f"'{path}' is no image that is read. Expected .tif, .tiff, .png, .jpg, .npz or zarr.")
        return _of_zarr(path, numbers, storage)
    local = Place(path, storage).local() if is_address(path) else Path(path)
    check_file(local)
    try:
        if suffix in _DECODERS:
            return [_decode(local, suffix, n) for n in numbers]
        if suffix == ".npz":
            return _of_npz(local, path, numbers)
        return _of_tiff(local, path, numbers)
    except Exception as error:  # damaged files make their readers raise anything
        if isinstance(error, FileError):
            raise
        size = local.stat().st_size
        said = str(error).strip().splitlines()
        raise FileError(
            f"'{path}' cannot be read ({(said[0] if said else type(error).__name__)[:200]}). It is {size:,} bytes long "
            f"and may be truncated or of another kind. {_AGAIN}"
        ) from error


def _decode(path: Path, suffix: str, number: int | None) -> NDArray[Any]:
    import imagecodecs

    if number:
        raise FileError(f"'{path}' holds one image, so there is no #{number}.")
    data = path.read_bytes()
    _check_end(data, suffix)
    return getattr(imagecodecs, _DECODERS[suffix])(data)


def _check_end(data: bytes, suffix: str) -> None:
    """Refuse what decoders accept with a warning: PNG with wrong checksums, JPEG without its end (filled with grey)."""
    if suffix != ".png":
        if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise ValueError("its end is missing")
        return
    at = 8
    while True:
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 4 : at + 8 + length]
        if data[at + 8 + length : at + 12 + length] != zlib.crc32(body).to_bytes(4, "big"):
            raise ValueError("a checksum is wrong")
        if kind == b"IEND":
            return
        at += 12 + length


def _of_tiff(local: Path, path: str, numbers: list[int | None]) -> list[NDArray[Any]]:
    with tifffile.TiffFile(local) as tif:
        n_pages, size = len(tif.pages), local.stat().st_size
        found = []
        for number in numbers:
            if number is None and n_pages > 1:
                raise FileError(
                    f"'{path}' holds {n_pages} images. Expected one: put # and the number of the page behind its name, "
                    "or use images.layout: ome_tiff."
                )
            if (number or 0) >= n_pages:
                raise FileError(f"'{path}' holds {n_pages} images, so there is no #{number}.")
            page = tif.pages[number or 0]
            _check_page(page, path, size)
            found.append(page.asarray(maxworkers=1))
        return found


def _check_page(page: Any, path: str, size: int) -> None:
    """Refuse what would be read as black or as something else: strips beyond the end or absent, colour, negatives."""
    offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    if not len(offsets) or (counts == 0).any() or (offsets == 0).any():
        raise FileError(f"'{path}' has parts without pixels; they would be black. {_AGAIN}")
    end = int((offsets + counts).max())
    if end > size:
        raise FileError(f"'{path}' is truncated: it has {size:,} bytes of at least {end:,}. {_AGAIN}")
    if page.size * page.dtype.itemsize > _MOST_PACKED * size:
        raise FileError(f"'{path}' says that it holds {page.shape} pixels, in {size:,} bytes. It is damaged. {_AGAIN}")
    photometric = int(page.keyframe.photometric)
    if photometric == 0:  # MINISWHITE
        raise FileError(f"'{path}' is a negative (white is 0). Convert it to greyscale where black is 0.")


def npz_shape(path: Path) -> tuple[int, int, int]:
    """Return (H, W, C) of an .npz of hti-cnn.

    Raises
    ------
    FileError
    """
    return _array_of_npz(path, str(path)).shape


def _of_npz(local: Path, path: str, numbers: list[int | None]) -> list[NDArray[Any]]:
    array = _array_of_npz(local, path)
    for number in numbers:
        if number is None or number >= array.shape[2]:
            said = "no number of a channel was given" if number is None else f"there is no #{number}"
            raise FileError(f"'{path}' holds {array.shape[2]} channels; {said}.")
    return [np.ascontiguousarray(array[:, :, n]) for n in numbers]


def _array_of_npz(local: Path, path: str) -> NDArray[Any]:
    """Read the array ``sample`` (H, W, C), or the only one; pickled objects are never loaded."""
    try:
        # zipfile tells what is no archive; numpy would leave the file open.
        with local.open("rb") as handle, zipfile.ZipFile(handle), np.load(handle, allow_pickle=False) as held:
            name = _KEY if _KEY in held.files else held.files[0] if len(held.files) == 1 else ""
            if not name:
                raise FileError(f"'{path}' holds arrays {some(held.files)}. Expected one called '{_KEY}' (H, W, C).")
            array = held[name]
    except Exception as error:  # as above
        if isinstance(error, FileError):
            raise
        raise FileError(f"'{path}' cannot be read as .npz ({str(error)[:200]}). {_AGAIN}") from error
    if array.ndim != 3:
        raise FileError(f"'{path}' holds an array of shape {array.shape}. Expected (H, W, C).")
    return array


def _of_zarr(path: str, numbers: list[int | None], storage: Mapping[str, Any] | None) -> list[NDArray[Any]]:
    array = _open_zarr(path, json.dumps(dict(storage or {}), sort_keys=True), _zarr_time(path))
    found, lead = [], array.shape[:-2]
    n_planes = int(np.prod(lead))
    for number in numbers:
        assert number is not None
        if number >= n_planes:
            raise FileError(f"'{path}' holds {n_planes} images, so there is no #{number}.")
        try:
            image = np.asarray(array[tuple(map(int, np.unravel_index(number, lead)))])
        except Exception as error:  # codecs and stores raise errors of their own libraries
            raise FileError(f"'{path}#{number}' cannot be read ({str(error)[:200]}). {_AGAIN}") from error
        if image.size and (image == array.fill_value).all():  # zarr gives this where a chunk is missing
            raise FileError(
                f"'{path}#{number}' is {array.fill_value} everywhere: its chunk is missing, or it was never written. "
                f"{_AGAIN}"
            )
        found.append(image)
    return found


def _zarr_time(path: str) -> int:
    """Time of change of an array's metadata: an array that was written again is opened again."""
    if is_address(path):
        return 0
    for name in ("zarr.json", ".zarray"):
        if Path(path, name).is_file():
            return Path(path, name).stat().st_mtime_ns
    raise FileError(
        f"'{path}' is no zarr array: there is no zarr.json or .zarray. Check where the list of images points."
    )


@lru_cache(maxsize=64)
def _open_zarr(path: str, storage: str, _time: int) -> Any:
    import zarr

    options = json.loads(storage)
    if is_address(path):
        Place(path, options)  # refuses addresses of other kinds
        if path.startswith("s3") and not {"anon", "key", "secret", "token", "profile", "session"} & set(options):
            options["anon"] = True
    try:
        array = zarr.open_array(path, mode="r", storage_options=options if is_address(path) else None)
    except Exception as error:
        raise FileError(f"'{path}' cannot be opened as zarr ({str(error)[:200]}). {_AGAIN}") from error
    if array.ndim < 2:
        raise FileError(f"'{path}' has {array.ndim} dimensions. Expected at least (H, W).")
    return array


def _greyscale(image: NDArray[Any], file: str) -> NDArray[Any]:
    """Refuse what is no greyscale image of 8 or 16 bits."""
    if image.ndim != 2:
        colour = image.ndim == 3 and image.shape[-1] in (3, 4)
        what = "in colour" if colour else f"of {image.ndim} dimensions"
        raise FileError(
            f"'{file}' is {what}, shape {image.shape}. Expected one greyscale channel (H, W): export channels as "
            "separate greyscale images."
        )
    if not image.size:
        raise FileError(f"'{file}' is empty, shape {image.shape}. {_AGAIN}")
    if image.dtype.kind == "f":
        raise FileError(
            f"'{file}' has {image.dtype} pixels. Expected 8 or 16-bit whole numbers as cameras give them: export the "
            "raw images, or scale these to 0..65535 and save them as uint16."
        )
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        raise FileError(f"'{file}' has {image.dtype} pixels. Expected uint8 or uint16: convert it.")
    return image.astype(image.dtype.newbyteorder("="), copy=False)
