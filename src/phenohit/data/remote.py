"""A place that holds files: a local path, or an address in an object store.

Nothing here touches the network unless the path is an address (``s3://...``). What is read from an address is first
copied, whole, into a cache folder (``PHENOHIT_CACHE``, else ``~/.cache/phenohit``) and read from there.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from phenohit.errors import ConfigError, FileError, some
from phenohit.files import atomic, hash_file, unreadable
from phenohit.progress import track

__all__ = ["Place", "cache_folder", "is_address", "safe_name"]

log = logging.getLogger("phenohit")

_BLOCK = 1 << 23  # bytes fetched at a time
_HASHED = 1 << 26  # larger local files are told apart by size and time, not by content
# What each kind of address needs beyond the core. Others (chained addresses, code repositories) are not taken:
# an address in a settings file must not be a way to run something.
_KINDS = {"s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp", "gs": "gcsfs", "gcs": "gcsfs",
          "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}  # fmt: skip
_CREDENTIALS = ("anon", "key", "secret", "token", "profile", "session")


def is_address(path: object) -> bool:
    """Tell an address (``s3://bucket/folder``) from a local path."""
    return "://" in str(path)


def cache_folder() -> Path:
    """Return the folder that keeps copies of what was read from addresses."""
    given = os.environ.get("PHENOHIT_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "phenohit"


def safe_name(name: object, where: str = "") -> str:
    """Return a relative path as it may be put behind a folder.

    Parameters
    ----------
    name : str
        One or more parts, divided by ``/``.
    where : str
        The file that holds the name, for the error.

    Raises
    ------
    FileError
        If the name leads out of the folder: it is absolute, holds ``..`` or is an address.
    """
    text = str(name)
    parts = text.split("/")
    bad = text.startswith(("/", "~")) or "\\" in text or "\0" in text or "://" in text or ".." in parts
    if bad or (len(text) > 1 and text[1] == ":"):
        origin = f" (from '{where}')" if where else ""
        raise FileError(
            f"'{text}'{origin} leads out of its folder. Expected a name below the folder, without '..', a leading "
            "'/' or '\\'. Correct the file that holds this name."
        )
    return "/".join(part for part in parts if part not in ("", "."))


class Place:
    """A file or folder, local or in an object store.

    Parameters
    ----------
    path : path or str
        Local path, or address: s3://bucket/folder, https://..., gs://..., abfs://...
    storage : mapping
        Options of the file system, such as ``endpoint_url``, ``key``, ``profile``. An s3 address without any
        of anon, key, secret, token, profile is read anonymously.

    Attributes
    ----------
    path : str
    remote : bool

    Raises
    ------
    ConfigError
        If the kind of address is not known, or what it needs is not installed.
    FileError
        By every method, if the store cannot be reached, refuses, or has no such file.
    """

    def __init__(self, path: str | os.PathLike[str], storage: Mapping[str, Any] | None = None) -> None:
        text = os.fspath(path)
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        self.remote = is_address(text)
        self.path = text.rstrip("/") if self.remote else text
        self.storage = dict(storage or {})
        self._fs: Any = None
        if self.remote:
            kind = text.split("://")[0].lower()
            if kind not in _KINDS:
                raise ConfigError(f"'{text}': addresses of kind '{kind}' are not read. Expected one of {some(_KINDS)}.")
            self._fs = _file_system(kind, self.storage)

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:  # never the options: they may hold a password
        return f"Place({self.path!r})"

    @property
    def name(self) -> str:
        """Last part of the path."""
        return PurePosixPath(self.path).name if self.remote else Path(self.path).absolute().name

    def join(self, *parts: str, where: str = "") -> Place:
        """Return a place below this one; FileError if a part leads out of it (`where`: the file that names it)."""
        below = [safe_name(part, where) for part in parts]
        found = object.__new__(Place)
        found.remote, found.storage, found._fs = self.remote, self.storage, self._fs
        found.path = "/".join([self.path, *filter(None, below)]) if self.remote else str(Path(self.path, *below))
        return found

    def parent(self) -> Place:
        """Return the folder that holds this place."""
        found = self.join()
        found.path = self.path.rpartition("/")[0] if self.remote else str(Path(self.path).absolute().parent)
        return found

    def exists(self) -> bool:
        """Tell whether there is a file or folder."""
        if not self.remote:
            with suppress(OSError, ValueError):  # a name that is too long, or holds a zero byte
                return Path(self.path).exists()
            return False
        with _store(self.path):
            return bool(self._fs.exists(self.path))

    def is_dir(self) -> bool:
        """Tell whether this is a folder."""
        if not self.remote:
            with suppress(OSError, ValueError):
                return Path(self.path).is_dir()
            return False
        with _store(self.path):
            return bool(self._fs.isdir(self.path))

    def glob(self, pattern: str) -> list[str]:
        """Return files and folders below that match `pattern` (``*``, ``?``, ``**``): relative, sorted, with ``/``."""
        pattern = safe_name(pattern)
        if not self.remote:
            root = Path(self.path)
            return sorted(p.relative_to(root).as_posix() for p in root.glob(pattern))
        with _store(self.path):
            root = self._fs._strip_protocol(self.path).rstrip("/") + "/"
            found = self._fs.glob(glob.escape(root) + pattern)
        names = {str(p).rstrip("/") for p in found}
        return sorted(p.removeprefix(root) for p in names if p.startswith(root))

    def folders(self) -> list[str]:
        """Return the names of the folders directly below, sorted."""
        if not self.remote:
            return sorted(p.name for p in Path(self.path).iterdir() if p.is_dir())
        with _store(self.path):
            found = self._fs.ls(self.path, detail=True)
        return sorted(str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in found if _is_folder(entry))

    def local(self, relative: str = "") -> Path:
        """Return a local path to this place, or to one file below it.

        A file of a store is copied once into the cache folder, whole or not at all, and used again while its
        size and its ETag (or time of change) in the store are the same.

        Parameters
        ----------
        relative : str
            File below this place; empty: the place itself.

        Raises
        ------
        FileError
            If the file is not there, cannot be fetched, or arrives with another size.
        """
        place = self.join(relative) if relative else self
        if not place.remote:
            return Path(place.path)
        size, version = place._version()
        endpoint = str(self.storage.get("endpoint_url") or self.storage.get("client_kwargs", {}).get("endpoint_url"))
        folder = cache_folder() / _short(place.path, endpoint)
        target = folder / _short(str(size), version) / place.name
        if target.is_file() and (size is None or target.stat().st_size == size):
            return target
        place._fetch(target, size)
        for old in folder.iterdir():  # one version of a file is kept
            if old != target.parent:
                with suppress(OSError):
                    shutil.rmtree(old)
        return target

    def identity(self, relative: Iterable[str] = ("",)) -> dict[str, str]:
        """Return what tells one state of files from another, for the stamps of a run.

        Parameters
        ----------
        relative : iterable of str
            Files below this place; ``""`` is the place itself.

        Returns
        -------
        dict
            Path or address -> content hash of a local file up to 64 MiB; size and time of a larger one; size
            and ETag (or time) of a file in a store.
        """
        found = {}
        for name in relative:
            place = self.join(name) if name else self
            if place.remote:
                size, version = place._version()
                found[place.path] = f"size {size}, version {version}"
                continue
            try:
                state = Path(place.path).stat()
            except (OSError, ValueError) as error:
                raise unreadable(place.path, error) from error
            small = state.st_size <= _HASHED
            found[place.path] = (
                hash_file(place.path) if small else f"size {state.st_size}, time {state.st_mtime_ns / 1e9:.6f}"
            )
        return found

    def _version(self) -> tuple[int | None, str]:
        """Size of a file in a store, and what changes when its content does."""
        with _store(self.path):
            found = self._fs.info(self.path)
        if _is_folder(found):
            raise FileError(f"'{self.path}' is a folder in the store. Expected a file.")
        marks = (found.get(k) for k in ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime"))
        size = found.get("size")
        return None if size is None else int(size), str(next((m for m in marks if m), "")).strip('"')

    def _fetch(self, target: Path, size: int | None) -> None:
        """Copy a file of the store to `target`, whole or not at all."""
        log.info("fetching '%s'%s", self.path, "" if size is None else f" ({size / 1e6:,.1f} MB)")
        total = None if size is None else -(-size // _BLOCK)
        with atomic(target) as partial, partial.open("wb") as out:
            with _store(self.path), self._fs.open(self.path, "rb", block_size=_BLOCK) as handle:
                for block in track(_blocks(handle), f"fetch {self.name}", total):
                    out.write(block)
            out.flush()
            if size is not None and partial.stat().st_size != size:
                raise FileError(
                    f"'{self.path}' has {size:,} bytes in the store, but {partial.stat().st_size:,} arrived. Nothing "
                    "was kept: run again."
                )


def _is_folder(entry: Mapping[str, Any]) -> bool:
    return entry.get("type") == "directory"


def _blocks(handle: Any) -> Iterator[bytes]:
    while block := handle.read(_BLOCK):
        yield block


def _short(*texts: str) -> str:
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=10).hexdigest()


def _file_system(kind: str, storage: dict[str, Any]) -> Any:
    """Return the file system of an address; anonymous for s3 unless credentials are stated."""
    import fsspec

    options = dict(storage)
    if kind in ("s3", "s3a") and not any(options.get(name) is not None for name in _CREDENTIALS):
        options["anon"] = True
    try:
        fs = fsspec.filesystem(kind, **options)
    except ImportError as error:
        wanted = "'phenohit[cloud]'" if _KINDS[kind] in ("s3fs", "aiohttp") else _KINDS[kind]
        message = f"{kind}:// addresses need {_KINDS[kind]}, which is not installed: pip install {wanted}"
        raise ConfigError(message) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"profiles.storage does not fit {kind}:// addresses ({error}).") from error
    fs.invalidate_cache()  # a listing from earlier in this process may be out of date
    return fs


@contextmanager
def _store(address: str) -> Iterator[None]:
    """Turn what a store raises into a FileError that names the address and what to do.

    Everything is caught: each kind of store raises errors of its own libraries.
    """
    try:
        yield
    except FileError:
        raise
    except FileNotFoundError as error:
        if isinstance(error.__cause__, OSError):  # how a web address reports that there is no connection
            raise FileError(_unreachable(address, error.__cause__)) from error
        message = (
            f"'{address}' is not there: the store has no such file, folder or bucket ({_said(error)}). Check the "
            "spelling (capitals count) and profiles.storage: endpoint_url."
        )
        raise FileError(message) from error
    except PermissionError as error:
        message = (
            f"'{address}' may not be read ({_said(error)}). Without credentials in profiles.storage it was asked for "
            "anonymously: state them (anon: false for those of this computer, or profile, or key and secret), or check "
            "the name of the bucket."
        )
        raise FileError(message) from error
    except OSError as error:
        if error.filename:  # a local file: the disk, not the store
            raise
        raise FileError(_unreachable(address, error)) from error
    except Exception as error:
        raise FileError(_unreachable(address, error)) from error


def _unreachable(address: str, error: Exception) -> str:
    return (
        f"'{address}' cannot be fetched ({_said(error)}). Check the connection and profiles.storage: endpoint_url, or "
        "copy the files to a disk and give that folder."
    )


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
