"""The three objects that carry everything, the readers of tables, and the simulated screen."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {"Labels": "labels", "Predictions": "predictions", "Profiles": "profiles"}

__all__ = ["Labels", "Predictions", "Profiles"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:  # on first use, so that settings can be read without pandas
        return getattr(import_module(f"phenohit.data.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'phenohit.data' has no attribute '{name}'")
