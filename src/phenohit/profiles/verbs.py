"""pycytominer, imported in one place."""

from __future__ import annotations

import warnings
from types import ModuleType

__all__ = ["pycytominer"]


def pycytominer() -> ModuleType:
    """Import pycytominer without the warning that its import raises under pandas 3.

    It sets an option that pandas 3 has retired; nothing of the user's is concerned.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*copy_on_write.*")
        import pycytominer
        import pycytominer.operations
    return pycytominer
