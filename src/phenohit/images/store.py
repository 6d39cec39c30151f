"""Views as 8-bit images in one zarr store, for image models: written plate by plate, read by the batch.

``plates.zarr/<plate>`` is a Zarr 3 array (V, C, H, W) of uint8, one chunk per view. ``index/<plate>.parquet`` says what
is in it and from which files it was made, and is written last (until then ``index/<plate>.begun`` has a line for every
view that is there); ``views.parquet`` is the index of all. Chunks are packed
by Blosc (lz4 behind a bit shuffle): measured on Cell Painting fields, 0.74 of the size and unpacked three to four times
faster than by zstd, which reaches 0.63; on larger fields the ratio of times is 2.6.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import ArrayLike, NDArray

from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.views import Views
from phenohit.errors import FileError, PhenoHitError, ShapeError, some
from phenohit.files import read_json, read_table, write_table
from phenohit.images.convert import to_uint8
from phenohit.images.read import read_view, split_address
from phenohit.images.state import files_state
from phenohit.imaging import ImageSource
from phenohit.progress import track

__all__ = ["Store", "is_store", "open_store", "read_chunk", "write_store"]

log = logging.getLogger("phenohit")

_STAGE = "write store"
_FORMAT = 1  # raise it when the same settings give other bytes
_ARRAYS, _INDEX, _ALL = "plates.zarr", "index", "views.parquet"
_AGAIN = "Write the store again: only what is not finished is made anew."


def write_store(views: Views, source: ImageSource, folder: str | os.PathLike[str], jobs: int = 1) -> pd.DataFrame:
    """Write views as uint8, each channel image scaled by the 0.0028 % rule (`phenohit.images.convert.to_uint8`).

    A plate whose files (size, time) and settings are the same as when it was finished is left as it is; one that was
    not finished goes on after its last view, with the same bytes. uint8 images are kept as they are.

    Parameters
    ----------
    views : Views
    source : ImageSource
        ``clip``, ``bits``, ``missing`` and ``storage`` are used.
    folder : path
        The store: ``plates.zarr``, ``index`` and ``views.parquet`` come into it.
    jobs : int
        Threads that read and convert; -1: one per core.

    Returns
    -------
    DataFrame
        Views that could not be read, with the reason (under images.missing: skip).

    Raises
    ------
    FileError
        If a view cannot be read (images.missing: fail), or none can; if the disk is full.
    ShapeError
        If views of a plate have different sizes.
    """
    import zarr

    folder = Path(folder)
    keys = {plate: _key(plate) for plate in views.plates}
    lost, tables = [nothing_dropped()], []
    try:
        zarr.open_group(folder / _ARRAYS, mode="a", zarr_format=3)
        (folder / _INDEX).mkdir(exist_ok=True)
        _remove_others(folder, set(keys.values()))
        for plate, key in keys.items():
            part = views.of_plate(plate)
            stamp = _stamp(part, source)
            if not _finished(folder, key, stamp):
                _write_plate(part, source, folder, key, stamp, effective_n_jobs(jobs))
            table, meta = read_table(folder / _INDEX / f"{key}.parquet")
            tables.append(table)
            lost.append(pd.DataFrame(json.loads(meta["dropped"]), columns=lost[0].columns, dtype=str))
    except OSError as error:
        if isinstance(error, PhenoHitError):
            raise
        raise FileError(
            f"Cannot write '{folder}': {error.strerror or error}. Check the disk, then run again."
        ) from error
    every, gone = pd.concat(tables, ignore_index=True), pd.concat(lost, ignore_index=True)
    if every.empty:
        raise FileError(f"None of {len(views)} views can be read. The first: {gone['reason'].iloc[0]}")
    write_table(folder / _ALL, every)
    log.info("store: %d plates, %d views, %d left out", len(keys), len(every), len(gone))
    return gone


def _key(plate: str) -> str:
    """Name of a plate's array: any name becomes one that every file system takes."""
    name = quote(plate, safe=" +,@()[]")
    taken = name.startswith(".") or name == "zarr.json"
    return f"%{ord(name[0]):02X}{name[1:]}" if taken else name


def _remove_others(folder: Path, keys: set[str]) -> None:
    """Remove plates that this store held and that are no longer asked for."""
    for path in [p for end in ("parquet", "begun") for p in (folder / _INDEX).glob(f"*.{end}")]:
        if path.stem not in keys:
            path.unlink()
            shutil.rmtree(folder / _ARRAYS / path.stem, ignore_errors=True)


def _stamp(views: Views, source: ImageSource) -> str:
    """Return what tells one state of files and settings from another."""
    text = json.dumps([
        _FORMAT, source.clip, source.bits, source.missing, views.channels, views.rows.to_dict("list"),
        views.files.to_dict("list"), files_state(views, source.storage),
    ])  # fmt: skip
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _finished(folder: Path, key: str, stamp: str) -> bool:
    path = folder / _INDEX / f"{key}.parquet"
    if not path.is_file():
        return False
    try:
        done = read_table(path)[1].get("stamp") == stamp
    except FileError:
        return False
    log.info("store: plate '%s' is %s", key, "there already" if done else "made anew: files or settings changed")
    return done


def _write_plate(views: Views, source: ImageSource, folder: Path, key: str, stamp: str, jobs: int) -> None:
    """Write the array of one plate, then its index; views that cannot be read take no place in it."""
    index = folder / _INDEX / f"{key}.parquet"
    index.unlink(missing_ok=True)
    array, begun = folder / _ARRAYS / key, index.with_suffix(".begun")
    done = _begun(begun, array, stamp)
    names, files = views.names().tolist(), views.files.to_numpy(object).tolist()
    work = (delayed(_made)(f, source) for f in files[len(done) :])
    made: Any = Parallel(n_jobs=jobs, prefer="threads", return_as="generator")(work)
    kept: list[int] = []
    sums, gone, reasons, shape = [], [], [], ()
    with begun.open("w", encoding="utf-8") as journal:
        journal.write(f"{stamp}\n")
        for i, one in enumerate(track(chain(done, made), f"plate {views.plates[0]}: views to 8 bits", len(files))):
            if isinstance(one, str):
                gone.append(names[i])
                reasons.append(one)
            else:
                shape = shape or one.shape
                if one.shape != shape:
                    raise ShapeError(
                        f"Views of a plate have different sizes: '{names[kept[0]]}' is {_size(shape)}, '{names[i]}' is "
                        f"{_size(one.shape)}. Expected one size; leave the others out."
                    )
                if one.packed:
                    _chunk(array, len(kept), len(shape)).write_bytes(one.packed)
                kept.append(i)
                sums.append(one.checksum)
            journal.write(json.dumps(one if isinstance(one, str) else [one.shape, one.checksum]) + "\n")
            journal.flush()
    if kept:
        _describe_array(array, (len(kept), *shape))
    lost = dropped(_STAGE, "view", gone, reasons)
    rows = views.rows.iloc[kept].assign(Metadata_Checksum=sums).reset_index(drop=True)
    n = len(views.channels)
    at = {f"File_{c}": [f"{_ARRAYS}/{key}#{i * n + j}" for i in range(len(kept))] for j, c in enumerate(views.channels)}
    meta = {"stamp": stamp, "dropped": json.dumps(lost.to_numpy(object).tolist())}
    write_table(index, pd.concat([rows, pd.DataFrame(at, index=rows.index, dtype=str)], axis=1), meta=meta)
    begun.unlink()


def _begun(journal: Path, array: Path, stamp: str) -> list[_Chunk | str]:
    """Return what a write that was killed left, up to the first view that is not whole; remove what lies behind."""
    lines, done, row = journal.read_text("utf-8", "replace").splitlines() if journal.is_file() else [], [], 0
    for line in lines[1:] if lines[:1] == [stamp] else []:
        try:
            one = json.loads(line)
            if not isinstance(one, str):
                image = np.empty(one[0], np.uint8)
                read_chunk(array, row, image)
                if _checksum(image) != one[1]:
                    break
                one, row = _Chunk(b"", image.shape, one[1]), row + 1
        except (FileError, ValueError):  # a line or a chunk that was cut off
            break
        done.append(one)
    array.mkdir(exist_ok=True)
    for path in array.iterdir():
        if not path.name.startswith("c.") or int(path.name.split(".")[1]) >= row:
            path.unlink()
    return done


@dataclass(frozen=True)
class _Chunk:
    """One view as it is written."""

    packed: bytes  # none: it is there already
    shape: tuple[int, ...]
    checksum: str


def _made(files: Sequence[str], source: ImageSource) -> _Chunk | str:
    """Read, convert and pack a view; or say why it cannot be."""
    import imagecodecs

    try:
        view = read_view(files, storage=source.storage, bits=source.bits)
    except (FileError, ShapeError) as error:
        if source.missing == "fail":
            raise
        return str(error)
    image = view if view.dtype == np.uint8 else to_uint8(view, source.clip)
    packed = imagecodecs.blosc_encode(image, level=5, compressor="lz4", shuffle="bitshuffle", typesize=1, numthreads=1)
    return _Chunk(bytes(packed), image.shape, _checksum(image))


def _checksum(image: NDArray[np.uint8]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=8).hexdigest()


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _chunk(array: Path, row: int, n_axes: int) -> Path:
    """Return the file of one view. zarr would take an absent one for black, so we read and write them ourselves."""
    return array / ".".join(["c", str(row), *["0"] * n_axes])


def _describe_array(path: Path, shape: tuple[int, ...]) -> None:
    """Write the metadata of the array whose chunks are there, one per view."""
    import zarr
    from zarr.codecs import BloscCodec

    zarr.create_array(
        path, shape=shape, chunks=(1, *shape[1:]), dtype="uint8", zarr_format=3, filters=None,
        compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=1),
        chunk_key_encoding={"name": "default", "separator": "."}, attributes={"axes": ["view", "channel", "y", "x"]},
    )  # fmt: skip


@dataclass(frozen=True)
class Store:
    """A store of 8-bit views.

    Attributes
    ----------
    folder : Path
    views : Views
        Its files point into the store; ``Metadata_Checksum`` of each view.
    shapes : dict of str to tuple
        (C, H, W) of each plate.
    """

    folder: Path
    views: Views
    shapes: dict[str, tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.views)

    def _at(self, rows: ArrayLike) -> NDArray[np.int64]:
        wanted = np.asarray(rows)
        return np.arange(len(self))[wanted if wanted.size else wanted.astype(np.int64)].ravel()

    def read(self, rows: ArrayLike, threads: int = 0) -> NDArray[np.uint8]:
        """Read views.

        Parameters
        ----------
        rows : indices or mask of `views`
        threads : int
            0: one per core.

        Returns
        -------
        ndarray, shape (n, C, H, W), uint8

        Raises
        ------
        FileError
            If a view is missing or damaged in the store.
        ShapeError
            If the views are of plates with different sizes.
        """
        at = self._at(rows)
        plates = self.views.rows["Metadata_Plate"].iloc[at].unique().tolist()
        shapes = {self.shapes[p] for p in plates}
        if len(shapes) > 1:
            raise ShapeError(f"Plates have different sizes: {some([f'{p}: {_size(self.shapes[p])}' for p in plates])}.")
        found = np.empty((len(at), *(shapes.pop() if shapes else (len(self.views.channels), 0, 0))), dtype=np.uint8)
        firsts = self.views.files.iloc[:, 0].to_numpy(object)[at]
        with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
            list(pool.map(_read_view, firsts, found))
        return found

    def batches(
        self, rows: ArrayLike, size: int, threads: int = 0
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Yield indices (n,) and views (n, C, H, W), `size` at a time, while the next ones are read."""
        at = self._at(rows)
        parts = [at[i : i + size] for i in range(0, len(at), size)]
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(self.read, part, threads) for part in parts[:1]]
            for i, part in enumerate(parts):
                ready = ahead.pop().result()
                if i + 1 < len(parts):
                    ahead.append(pool.submit(self.read, parts[i + 1], threads))
                yield part, ready

    def check(self, threads: int = 0) -> pd.DataFrame:
        """Read everything and compare checksums; return the views that are damaged (columns of `dropped`)."""
        firsts, sums = self.views.files.iloc[:, 0].tolist(), self.views.rows["Metadata_Checksum"].tolist()
        shapes = [self.shapes[p] for p in self.views.rows["Metadata_Plate"]]

        def said(file: str, shape: tuple[int, ...], expected: str) -> str:
            image = np.empty(shape, dtype=np.uint8)
            try:
                _read_view(file, image)
            except FileError as error:
                return str(error)
            return "" if _checksum(image) == expected else f"its pixels are not those that were written. {_AGAIN}"

        with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
            every = track(pool.map(said, firsts, shapes, sums), "check store", len(self))
            bad = {n: text for n, text in zip(self.views.names(), every, strict=True) if text}
        return dropped("check store", "view", bad, list(bad.values()))


def _read_view(file: str, out: NDArray[np.uint8]) -> None:
    """Read the view that a file of `Views` names, such as ``plates.zarr/P1#10``."""
    array, number = split_address(file)
    read_chunk(Path(array), (number or 0) // len(out), out)


def read_chunk(array: Path, row: int, out: NDArray[np.uint8]) -> None:
    """Read one view of a plate's array into `out` (C, H, W).

    Raises
    ------
    FileError
        If it is damaged, or absent: an absent chunk is not black.
    """
    import imagecodecs

    try:
        packed = _chunk(array, row, out.ndim).read_bytes()
        # Blosc does not look where its input ends: what the header says is compared with what is there.
        n_pixels, _, n_bytes = struct.unpack("<3I", packed[4:16])
        if n_pixels != out.size or n_bytes != len(packed):
            raise ValueError(f"it is {len(packed):,} bytes of {n_bytes:,}, {n_pixels:,} pixels of {out.size:,}")
        imagecodecs.blosc_decode(packed, numthreads=1, out=out.reshape(-1))
    except (OSError, RuntimeError, ValueError, struct.error) as error:
        said = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({str(error)[:200]})"
        raise FileError(f"View {row} of the store '{array}' {said}. {_AGAIN}") from error


def is_store(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder is what `write_store` wrote, or was writing."""
    return Path(folder, _ALL).is_file() or Path(folder, _ARRAYS, "zarr.json").is_file()


def open_store(folder: str | os.PathLike[str]) -> Store:
    """Open what `write_store` wrote.

    Raises
    ------
    FileError
        If it is no such store, or was not finished.
    """
    folder = Path(folder).absolute()
    if not (folder / _ALL).is_file():
        said = "was not finished" if is_store(folder) else "is no store of views"
        raise FileError(f"'{folder}' {said}: there is no {_ALL} in it. Write it first (images.store: true).")
    views = Views.load(folder / _ALL)
    files = views.files.apply(lambda c: f"{folder}/" + c)
    shapes = {}
    for plate in views.plates:
        about = read_json(folder / _ARRAYS / _key(plate) / "zarr.json")
        shapes[plate] = tuple(about["shape"][1:])
        codec = about["codecs"][-1]
        if about["chunk_grid"]["configuration"]["chunk_shape"] != [1, *shapes[plate]] or codec["name"] != "blosc":
            raise FileError(f"'{folder / _ARRAYS / _key(plate)}' was not written by this program. {_AGAIN}")
    return Store(folder, Views(views.rows, files), shapes)
