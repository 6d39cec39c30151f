"""In which state the files of views are: what is made of them depends on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from phenohit.data.remote import Place, is_address
from phenohit.data.views import Views
from phenohit.errors import FileError
from phenohit.images.read import split_address

__all__ = ["files_state"]


def files_state(views: Views, storage: Mapping[str, Any] | None = None, also: Iterable[str] = ()) -> str:
    """Return a digest of size and time of every file (of an address: what its store says), without reading any.

    Parameters
    ----------
    views : Views
    storage : mapping, optional
        Options of the file system.
    also : iterable of str
        Further files that count, such as masks.

    Notes
    -----
    Of a zarr array it is the metadata that counts; chunks that change under it are not noticed.
    """
    named = {split_address(f)[0] for f in views.files.to_numpy(object).ravel() if f}
    paths = sorted(named | set(also))
    far = [p for p in paths if is_address(p) and not p.lower().rstrip("/").endswith(".zarr")]
    with ThreadPoolExecutor(16) as pool:
        states = dict(zip(far, pool.map(lambda p: _far(p, storage), far), strict=True))
    for path in set(paths) - set(far):
        states[path] = _near(path)
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(f"{path}\t{states[path]}\n".encode())
    return f"{len(paths)} files, {digest.hexdigest()}"


def _near(path: str) -> str:
    if Path(path).is_dir():  # a zarr array: its metadata
        path = next((str(p) for n in ("zarr.json", ".zarray") if (p := Path(path, n)).is_file()), path)
    try:
        state = Path(path).stat()
    except OSError:
        return "absent"
    return f"{state.st_size} {state.st_mtime_ns}"


def _far(path: str, storage: Mapping[str, Any] | None) -> str:
    try:
        return next(iter(Place(path, dict(storage or {})).identity().values()))
    except FileError:  # absent, or a folder; reading it will say so
        return "absent"
