"""What the labels of a run depend on outside its folder."""

from __future__ import annotations

from collections.abc import Sequence

from phenohit.config import ActivitySource
from phenohit.errors import ConfigError
from phenohit.files import hash_file
from phenohit.labels.database import masked, stamp

__all__ = ["check_format", "fingerprints"]


def check_format(source: ActivitySource) -> None:
    """Refuse the address of a database server where a table is expected.

    Raises
    ------
    ConfigError
    """
    if source.format != "chembl" and source.path.startswith("postgres"):
        address = masked(source.path)
        if "://" in address:
            raise ConfigError(
                f"activities: '{address}' is a server, but format is {source.format}: set format: chembl."
            )


def fingerprints(sources: Sequence[ActivitySource]) -> dict[str, str]:
    """Return what tells whether a file or database has changed, by its path without a password.

    Raises
    ------
    FileError
        If one is not there.
    ConfigError
        As from `check_format`.
    """
    found = {}
    for source in sources:
        check_format(source)
        if source.format == "chembl":
            found[masked(source.path)] = stamp(source.path)
        for path in (source.path if source.format != "chembl" else "", source.rows, source.tasks):
            if path:
                found[path] = hash_file(path)
    return found
