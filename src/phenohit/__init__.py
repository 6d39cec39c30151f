"""PhenoHit: an imaging screen in, the next plate out."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public names and where they live. Imported on first use, so that `import phenohit` costs nothing.
_PUBLIC = {
    "Profiles": "data.profiles",
    "Labels": "data.labels",
    "Predictions": "data.predictions",
}

__all__ = ["Labels", "Predictions", "Profiles", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"phenohit.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'phenohit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
