"""The errors a user can cause, each saying what is wrong, what was expected and what to do.

Messages name the value and its place. At most ten offenders are shown (see `some`); the caller
writes the rest to a file. The command line turns these into exit code 2 without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ColumnError",
    "ConfigError",
    "FileError",
    "LabelError",
    "PhenoHitError",
    "PlateError",
    "RunError",
    "ShapeError",
    "StructureError",
    "nearest",
    "some",
]


class PhenoHitError(Exception):
    """Any mistake in the input or the settings that the user can mend."""


class ColumnError(PhenoHitError, ValueError):
    """A table lacks a column, or a column holds what it should not."""


class PlateError(PhenoHitError, ValueError):
    """A plate or well is missing, doubled or without controls."""


class StructureError(PhenoHitError, ValueError):
    """A chemical structure cannot be read."""


class LabelError(PhenoHitError, ValueError):
    """An activity table contradicts itself or holds impossible values."""


class ShapeError(PhenoHitError, ValueError):
    """Two arrays or tables do not fit together."""


class ConfigError(PhenoHitError, ValueError):
    """A setting is unknown or has an impossible value."""


class FileError(PhenoHitError, OSError):
    """A file is absent, damaged, of the wrong kind, or cannot be written."""


class RunError(PhenoHitError, RuntimeError):
    """A run folder is in use or does not hold what a step needs."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """Return a sentence that lists the known names closest to `name`."""
    known = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), known, n=n, cutoff=0.3) or sorted(known)[:n]
    return f"Nearest: {', '.join(close)}." if close else "None are known."


def some(values: Iterable[object], n: int = 10) -> str:
    """Return at most `n` values as text, with the number left out."""
    values = list(values)
    text = ", ".join(repr(v) if isinstance(v, str) else str(v) for v in values[:n])
    return text if len(values) <= n else f"{text} and {len(values) - n} more"
