"""A run is a folder of plain files; a finished step leaves a stamp and is not done twice.

A stamp holds what the step's result depends on: its settings, the content of its input files, the
stamps of the steps before it and PhenoHit's own code. Where one of these changed, the step is
redone and the log says which. `kill -9` at any moment leaves whole files only.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from phenohit import __version__
from phenohit.errors import FileError, RunError
from phenohit.files import read_json, write_json

__all__ = ["Run", "open_run", "peak_memory_gib", "slug"]

log = logging.getLogger("phenohit")

_LIBRARIES = ("numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "torch", "rdkit", "numba", "pycytominer")


class Run:
    """An open run folder; get one from `open_run`.

    Attributes
    ----------
    folder : Path
    manifest : dict
        What was run, when, with which versions; written after every step.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = {"phenohit_run": 1, "steps": {}, "counts": {}}
        self.skipped = 0  # steps that an earlier run had finished
        self._keys: dict[str, str] = {}

    def path(self, *parts: str) -> Path:
        """Return a path inside the run folder; its parent exists afterwards."""
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def step(
        self,
        name: str,
        make: Callable[[], Any],
        *,
        outputs: list[str],
        settings: Any = None,
        after: tuple[str, ...] = (),
        inputs: Mapping[str, str] | None = None,
    ) -> bool:
        """Do a step unless its stamp says that it is done.

        Parameters
        ----------
        name : str
            E.g. ``fit/series/forest-profiles/0``.
        make : callable
            Does the work and writes every file of `outputs`. What it returns (a dict of plain
            values, or nothing) is kept in the manifest.
        outputs : list of str
            Files it makes, relative to the run folder.
        settings : any JSON value or dataclass
            The settings that the result depends on.
        after : tuple of str
            Names of the steps whose results it reads.
        inputs : mapping of path to content hash, optional
            Files from outside the run folder that it reads.

        Returns
        -------
        bool
            True if the work was done now, False if an earlier result stands.
        """
        parts = {"settings": _hash(settings), "version of PhenoHit": _code()}
        parts |= {f"file '{path}'": digest for path, digest in (inputs or {}).items()}
        parts |= {f"step '{before}'": self._keys[before] for before in after}
        stamp_path = self.path("stamps", f"{slug(name, keep='/')}.json")
        self._keys[name] = _hash(parts)
        why = self._why(stamp_path, parts, outputs)
        if why is None:
            stamp = read_json(stamp_path)
            self._note(name, stamp["seconds"], stamp["kept"])
            self.skipped += 1
            log.debug("%s: already done", name)
            return False
        if why:
            log.info("%s: redone because %s", name, why)
        stamp_path.unlink(missing_ok=True)
        start = time.perf_counter()
        kept = make() or {}
        seconds = time.perf_counter() - start
        absent = [o for o in outputs if not (self.folder / o).exists()]
        if absent:
            raise RunError(f"Step '{name}' ended without writing {absent}.")
        sizes = {o: (self.folder / o).stat().st_size for o in outputs}
        write_json(stamp_path, {"parts": parts, "outputs": sizes, "seconds": seconds, "kept": kept})
        self._note(name, seconds, kept)
        self.write_manifest()
        log.log(logging.INFO if seconds >= 1 else logging.DEBUG, "%s: done in %.1f s", name, seconds)
        return True

    def key(self, name: str) -> str:
        """Return what the result of a step depends on, as a hash; of a step that was begun."""
        return self._keys[name]

    def _why(self, stamp_path: Path, parts: dict[str, str], outputs: list[str]) -> str | None:
        """Why a step must be done: None = it need not, '' = it was never finished."""
        if not stamp_path.exists():
            return ""
        try:
            stamp = read_json(stamp_path)
        except FileError:
            return "its stamp is damaged"
        if stamp["parts"] != parts:
            changed = [k for k in {**stamp["parts"], **parts} if stamp["parts"].get(k) != parts.get(k)]
            return "of a change in " + ", ".join(sorted(changed))
        for output in outputs:
            path = self.folder / output
            if not path.exists() or path.stat().st_size != stamp["outputs"].get(output):
                return f"'{output}' is missing or not the file it wrote"
        return None

    def _note(self, name: str, seconds: float, kept: dict[str, Any]) -> None:
        self.manifest["steps"][name] = {"seconds": round(seconds, 3), **kept}

    def write_manifest(self) -> None:
        """Write manifest.json; every later reader finds it whole."""
        self.manifest["peak_memory_gib"] = max(peak_memory_gib(), self.manifest.get("peak_memory_gib", 0.0))
        write_json(self.folder / "manifest.json", self.manifest)


@contextmanager
def open_run(folder: str | os.PathLike[str], *, name: str, seed: int, simulated: bool) -> Iterator[Run]:
    """Open a run folder for this process alone.

    Raises
    ------
    RunError
        If another process owns it (says which), or the folder holds something else than a run.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"'{folder}' is a file; a run needs a folder. Set `out` to another name.")
    ours = (folder / ".lock").exists() or (folder / "manifest.json").exists()
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise RunError(f"'{folder}' is not empty and was not made by PhenoHit. Set `out` to a new folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            f"'{folder}' is in use by {_owner(folder)}. Wait for it, or set `out` to another folder."
        ) from error
    except OSError as error:
        raise FileError(
            f"Cannot use '{folder}' as a run folder: {error.strerror}. Set `out` to another one."
        ) from error
    with lock:
        handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        write_json(folder / "owner.json", _myself())
        run = Run(folder)
        run.manifest |= {
            "name": name, "seed": seed, "simulated": simulated, "versions": _versions(),
            "platform": platform.platform(), "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        try:
            _sweep(folder)
            yield run
        finally:
            (folder / "owner.json").unlink(missing_ok=True)
            log.removeHandler(handler)
            handler.close()


def _sweep(folder: Path) -> None:
    """Remove what a killed process left under temporary names; we hold the lock, so none is in use."""
    for partial in folder.rglob(".*.partial"):
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink()


def _myself() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a user entry
        user = "unknown user"
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"user": user, "host": platform.node(), "process": os.getpid(), "started": started}


def _owner(folder: Path) -> str:
    try:
        who = read_json(folder / "owner.json")
    except FileError:
        return "another process"
    return f"{who['user']} on {who['host']} (process {who['process']}, since {who['started']})"


def _versions() -> dict[str, str]:
    found = {"phenohit": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "absent"
    return found


@cache
def _code() -> str:
    """Version and content of the package: a result of other code is another result, released or not."""
    digest = hashlib.blake2b(digest_size=8)
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return f"{__version__} {digest.hexdigest()}"


def _hash(value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def slug(text: str, *, keep: str = "") -> str:
    """Turn a name into one that is safe for a file; different names stay different."""
    safe = "".join(c if c.isalnum() or c in "-_." + keep else "_" for c in text).strip(".")[:80]
    if safe == text and safe:
        return safe
    return f"{safe}-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"


def peak_memory_gib() -> float:
    """Return the largest resident memory so far of this process or of one of its workers, in GiB."""
    if sys.platform == "win32":
        return 0.0
    import resource

    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB elsewhere
    usage = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(max(usage) / unit, 3)
