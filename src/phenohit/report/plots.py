"""The drawing parts of the report: plotly's code, set in once, and small static bars as SVG."""

from __future__ import annotations

from functools import cache
from typing import Any

from markupsafe import Markup

__all__ = ["fold_bar", "interval_bar", "plotly_code", "share_bar"]

LOW, HIGH = 0.3, 1.0  # AUROC range of the bars; what lies outside is drawn at the edge
_PARTS = ("train", "validation", "test", "unused")


@cache
def plotly_code() -> str:
    """Return plotly.js as text (4.8 MB), to be set into one script element."""
    from plotly.offline import get_plotlyjs

    code = get_plotlyjs()
    if "</script" in code.lower():  # would end the element early
        code = code.replace("</script", "<\\/script")
    return code


def interval_bar(value: float | None, low: float | None, high: float | None, *, kind: str = "image") -> Markup:
    """Draw a mean AUROC with its interval between 0.3 and 1.

    Parameters
    ----------
    value, low, high : float or None
        None draws nothing in its place.
    kind : {'image', 'chemistry', 'baseline'}
        Sets the colour through a class.
    """
    width, height = 160, 18
    parts = [f'<line class="half" x1="{_x(0.5, width):.1f}" x2="{_x(0.5, width):.1f}" y1="1" y2="{height - 1}"/>']
    parts.insert(0, f'<line class="axis" x1="0" x2="{width}" y1="9" y2="9"/>')
    if low is not None and high is not None:
        parts.append(f'<line class="interval" x1="{_x(low, width):.1f}" x2="{_x(high, width):.1f}" y1="9" y2="9"/>')
    if value is not None:
        parts.append(f'<circle class="value" cx="{_x(value, width):.1f}" cy="9" r="4"/>')
    body = "".join(parts)
    return Markup(  # noqa: S704  (only numbers and our own words)
        f'<svg class="bar {kind}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
        f"{body}</svg>"
    )


def _x(value: float, width: int) -> float:
    """Position of an AUROC on a bar."""
    return 4 + (width - 8) * (min(max(value, LOW), HIGH) - LOW) / (HIGH - LOW)


def fold_bar(sizes: dict[str, Any], largest: float) -> Markup:
    """Draw the parts of one fold as a stacked bar, on a scale shared by all folds.

    Parameters
    ----------
    sizes : dict
        Rows in ``train, validation, test, unused``.
    largest : float
        Rows of a full bar.
    """
    x, parts = 0.0, []
    for name in _PARTS:
        width = 100 * sizes.get(name, 0) / max(largest, 1)
        if width:
            parts.append(f'<rect class="{name}" x="{x:.2f}" y="0" width="{width:.2f}" height="10"/>')
        x += width
    body = "".join(parts)
    return Markup(  # noqa: S704  (only numbers and our own words)
        f'<svg class="folds" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{body}</svg>'
    )


def share_bar(value: float, largest: float) -> Markup:
    """Draw one number as a bar on a scale that ends at `largest`."""
    return fold_bar({"train": value}, largest)
