"""Arrays and a few plain values in one file: safetensors, with JSON in its header.

Reading such a file never executes anything. Every reader says which arrays it expects, so that a
damaged or foreign file ends in a `FileError` and not in a crash further on.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from phenohit.errors import FileError, some
from phenohit.files import atomic

__all__ = ["kind_of", "read_tensors", "write_tensors"]


def write_tensors(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
    """Write named arrays and JSON values as one safetensors file, whole or not at all.

    Parameters
    ----------
    path : path
    arrays : mapping of str to array
        Numbers of any fixed width, or bool.
    meta : mapping
        What JSON can hold. ``meta["kind"]`` says what the file is, e.g. ``"model forest"``.

    Raises
    ------
    FileError
        If the disk is full or the folder cannot be written.
    """
    header = {"phenohit": json.dumps(meta, sort_keys=True)}
    with atomic(path) as partial:
        try:
            save_file({name: np.asarray(a, order="C") for name, a in arrays.items()}, partial, metadata=header)
        except SafetensorError as error:  # the library hides the system's error number in its text
            full = "No space left" in str(error) or "os error 28" in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def kind_of(path: str | os.PathLike[str]) -> str:
    """Return what a file written by `write_tensors` is, e.g. ``"model forest"``; empty for other files.

    Raises
    ------
    FileError
        If there is none.
    """
    if not Path(path).is_file():
        raise FileError(f"'{path}' does not exist.")
    try:
        with safe_open(path, framework="np") as handle:
            return str(json.loads((handle.metadata() or {}).get("phenohit", "{}")).get("kind", ""))
    except (SafetensorError, OSError, ValueError, AttributeError):
        return ""


def read_tensors(
    path: str | os.PathLike[str], kind: str, form: Mapping[str, tuple[str, int]] | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a file written by `write_tensors`: its arrays and its values.

    Parameters
    ----------
    path : path
    kind : str
        What ``meta["kind"]`` must be.
    form : mapping of str to (dtype, number of axes), optional
        Arrays that must be there, e.g. ``{"mean": ("float64", 1)}``. None: any.

    Raises
    ------
    FileError
        If the file is absent, damaged, of another kind, or lacks an expected array.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"'{path}' does not exist.")
    try:
        with safe_open(path, framework="np") as handle:
            meta = json.loads((handle.metadata() or {}).get("phenohit", "{}"))
            arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (a handle is no dict)
    except (
        SafetensorError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        MemoryError,
        RecursionError,
    ) as error:
        message = f"'{path}' cannot be read as safetensors ({error}). It may be truncated: copy or make it again."
        raise FileError(message) from error
    if not isinstance(meta, dict) or meta.get("kind") != kind:
        found = meta.get("kind") if isinstance(meta, dict) else None
        raise FileError(f"'{path}' holds {found or 'something not written by PhenoHit'}, not: {kind}.")
    wrong = [
        f"{name} ({dtype}, {axes} axes)"
        for name, (dtype, axes) in (form or {}).items()
        if name not in arrays or arrays[name].dtype != np.dtype(dtype) or arrays[name].ndim != axes
    ]
    if wrong:
        raise FileError(f"'{path}' lacks or garbles the arrays {some(wrong)}. It is damaged: make it again.")
    return arrays, meta
