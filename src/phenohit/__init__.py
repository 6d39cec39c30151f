"""PhenoHit: an imaging screen in, the next plate out."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public names and where they live. Imported on first use, so that `import phenohit` costs nothing.
_PUBLIC = {
    "Config": "config",
    "Folds": "evaluate.splits",
    "Labels": "data.labels",
    "Predictions": "data.predictions",
    "Profiles": "data.profiles",
    "Prepare": "profiles.prepare",
    "assemble": "labels.join",
    "build_hits": "hits.build",
    "build_report": "report.build",
    "check_leaks": "evaluate.leaks:check",
    "compare": "evaluate.compare",
    "ecfp": "chem.fingerprints",
    "find_model": "models",
    "group_folds": "evaluate.splits",
    "identify": "profiles.identify",
    "leave_plates_out": "evaluate.splits",
    "model_names": "models",
    "read_profiles": "data.read",
    "read_structures": "data.read",
    "run_study": "pipeline",
    "score_table": "evaluate.scores",
    "series": "chem.series:series",
    "standardise": "chem.standardise:standardise",
    "summarise": "evaluate.summary",
    "to_compounds": "profiles.aggregate",
}

__all__ = ["__version__", *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, _, attribute = _PUBLIC[name].partition(":")
        return getattr(import_module(f"phenohit.{module}"), attribute or name)
    raise AttributeError(f"module 'phenohit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
