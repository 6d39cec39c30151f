"""Which files a source of profiles is made of, and in which state they are: what a run's stamp depends on."""

from __future__ import annotations

import hashlib

from phenohit.data.gallery import chosen_files
from phenohit.data.read import find_format
from phenohit.data.remote import Place
from phenohit.errors import FileError
from phenohit.sources import ProfileSource

__all__ = ["profile_inputs"]


def profile_inputs(source: ProfileSource) -> dict[str, str]:
    """Return the state of everything that `phenohit.data.read.read_profiles` would read.

    Parameters
    ----------
    source : ProfileSource
        Nothing is fetched from an address; its files are asked for their size and ETag.

    Returns
    -------
    dict
        Path or address -> content hash, or size and time; of a folder with many files one digest.

    Raises
    ------
    FileError, ConfigError, PlateError
        If a file is absent, or a gallery has no such level, batch or plate.
    """
    found: dict[str, str] = {}
    if source.path:
        place = Place(source.path, source.storage)
        if find_format(source) == "gallery":
            files, maps = chosen_files(source)
            found[place.path] = _together([file.place.identity() for file in files])
            if maps is not None and not source.platemaps:
                batches = {file.batch for file in files}
                found[maps.path] = _together([_folder(maps.join(b)) for b in sorted(batches) if maps.join(b).exists()])
        elif place.is_dir():
            found[place.path] = _together([_folder(place)])
        else:
            found |= place.identity()
    if source.platemaps:
        maps = Place(source.platemaps, source.storage)
        if not maps.is_dir():
            raise FileError(f"'{maps}' is no folder. Give the folder with barcode_platemap.csv as profiles.platemaps.")
        found[maps.path] = _together([_folder(maps)])
    for join in source.joins:
        found |= Place(join.path, source.storage).identity()
    return found


def _folder(place: Place) -> dict[str, str]:
    """State of every file below a folder."""
    return place.identity(f for f in place.glob("**/*") if not place.join(f).is_dir())


def _together(states: list[dict[str, str]]) -> str:
    digest, n = hashlib.blake2b(digest_size=16), 0
    for state in states:
        for path, what in sorted(state.items()):
            digest.update(f"{path}\t{what}\n".encode())
            n += 1
    return f"{n} files, {digest.hexdigest()}"
