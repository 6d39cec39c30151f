"""What a method is called in the report, and whether it reads images, structures or neither."""

from __future__ import annotations

__all__ = ["BASELINES", "kind_of", "label_of"]

BASELINES = {
    "cell_count": "cell count alone",
    "plate": "plate alone",
    "base": "base rate alone",
}
_CHEMISTRY = {"ecfp", "ecfp4", "ecfp6", "structure", "chemistry"}
_INPUTS = {"profiles": "profiles", "ecfp": "ECFP", "ecfp6": "ECFP6", "ecfp4": "ECFP4"}


def kind_of(source: str, *, images: bool = True) -> str:
    """Say what a method sees.

    Parameters
    ----------
    source : str
        Its input, e.g. ``profiles``, ``ecfp``, ``cell_count``.
    images : bool, default True
        False where the run has no image profiles, so that even ``profiles`` are chemistry.

    Returns
    -------
    {'image', 'chemistry', 'baseline'}
    """
    if source in BASELINES:
        return "baseline"
    if source in _CHEMISTRY or not images:
        return "chemistry"
    return "image"


def label_of(model: str, source: str) -> str:
    """Name a method for people, e.g. ``forest on ECFP`` or ``cell count alone (logistic)``."""
    if source == "base":
        return BASELINES[source]
    if source in BASELINES:
        return f"{BASELINES[source]} ({model})"
    return f"{model} on {_INPUTS.get(source, source)}"
