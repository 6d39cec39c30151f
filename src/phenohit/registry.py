"""Turn a short name into the thing it names, without importing anything before it is asked for.

A table such as ``MODELS = {"forest": "phenohit.models.forest:Forest"}`` is the whole registry: the
reader sees every entry in one place. Outside packages add entries through an entry-point group of
the same name (``phenohit.models``).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from phenohit.errors import ConfigError, nearest

__all__ = ["names", "resolve"]


def _entries(table: Mapping[str, str], group: str) -> dict[str, str]:
    outside = {entry.name: entry.value for entry in entry_points(group=group)}
    return {**outside, **table}  # ours win: a plugin cannot silently replace a built-in


def names(table: Mapping[str, str], group: str) -> list[str]:
    """Return every name that `resolve` accepts: ours first, then the plugins'."""
    return list(table) + sorted(set(_entries(table, group)) - set(table))


def resolve(name: str, table: Mapping[str, str], group: str) -> Any:
    """Import and return what `name` stands for.

    Parameters
    ----------
    name : str
    table : mapping of str to ``"module:attribute"``
    group : str
        Entry-point group searched for names that are not in `table`, e.g. ``"phenohit.models"``.

    Raises
    ------
    ConfigError
        If the name is not known; lists the three nearest.
    """
    entries = _entries(table, group)
    if name not in entries:
        kind = group.rsplit(".", 1)[-1].removesuffix("s")
        raise ConfigError(f"{kind} '{name}' is not known. {nearest(name, entries)} See: phenohit models")
    module, attribute = entries[name].split(":")
    return getattr(import_module(module), attribute)
