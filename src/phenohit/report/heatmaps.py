"""Plate maps as static SVG: one square per well, nine steps of colour, a tooltip where there is room for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

__all__ = ["CELL_BOUNDS", "SHAPES", "plate_map", "plate_shape", "row_name", "scale_key", "well_name"]

# Cell count over the plate's median control; steps are symmetric on a log scale.
CELL_BOUNDS = (0.25, 0.5, 0.7, 0.87, 1.15, 1.43, 2.0, 4.0)
SHAPES = ((2, 3), (4, 6), (8, 12), (16, 24), (32, 48))  # 6 to 1536 wells
_WIDE = 240  # of the wells, in units of the drawing
_LEFT, _TOP, _EDGE = 18, 13, 2
_KEY = 34  # width of one step in the key


def row_name(row: int) -> str:
    """Return the letters of a row that counts from 1: A, Z, AA."""
    return ("" if row <= 26 else chr(64 + (row - 1) // 26)) + chr(65 + (row - 1) % 26)


def well_name(row: int, column: int) -> str:
    """Return e.g. ``B07``."""
    return f"{row_name(row)}{column:02d}"


def plate_shape(rows: int, columns: int) -> tuple[int, int]:
    """Return the smallest usual plate that has this row and column, or just these where none has."""
    return next((s for s in SHAPES if s[0] >= rows and s[1] >= columns), (rows, columns))


def plate_map(plate: dict[str, Any]) -> Markup:
    """Draw one plate.

    Parameters
    ----------
    plate : dict
        ``label`` (said to those who cannot see it), ``shape`` (rows, columns) and, one element per well,
        ``row``, ``column`` (from 1), ``level`` (0 to 8, -1 for no value), ``mark`` ('negcon', 'poscon'
        or ''), ``flagged`` (bool) and ``text`` (tooltip; empty list for none, which needs a quarter of
        the space).

    Notes
    -----
    Controls carry a dot (negative) or a cross (positive), flagged wells a frame and wells without a value
    a stroke, so that nothing is told by colour alone.
    """
    rows, columns = plate["shape"]
    size = _WIDE / columns
    unit = int(size) if size == int(size) else round(size, 2)
    wide, high = _LEFT + columns * unit + _EDGE, _TOP + rows * unit + _EDGE
    label = escape(plate["label"])
    body = "".join([*_axes(rows, columns, unit), *_wells(plate, unit), *_marks(plate, unit)])
    return Markup(  # noqa: S704  (numbers, our own words and escaped text)
        f'<svg class="plate" viewBox="0 0 {wide:g} {high:g}" role="img" aria-label="{label}">{body}</svg>'
    )


def scale_key(bounds: Sequence[float], *, low: str, high: str, digits: int = 2) -> Markup:
    """Draw the nine steps with the eight values between them.

    Parameters
    ----------
    bounds : sequence of 8 floats
    low, high : str
        What lies beyond the ends, e.g. "fewer cells".
    digits : int
        Decimals at most.
    """
    n = len(bounds) + 1
    wide = _KEY * n
    parts = [f'<rect class="q{i}" x="{i * _KEY}" y="0" width="{_KEY - 1}" height="12"/>' for i in range(n)]
    texts = [f"{v:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{v:.0f}" for v in bounds]
    texts = [("0" if text in ("-0", "") else text).replace("-", "−") for text in texts]
    every = 2 if max(map(len, texts)) > 5 else 1  # longer ones would run into each other
    for i, text in list(enumerate(texts, start=1))[::every]:
        parts.append(f'<text x="{i * _KEY}" y="25" text-anchor="middle">{text}</text>')
    parts.append(f'<text x="0" y="39">{escape(low)}</text>')
    parts.append(f'<text x="{wide}" y="39" text-anchor="end">{escape(high)}</text>')
    said = escape(f"colour scale in nine steps, from {low} to {high}")
    return Markup(  # noqa: S704
        f'<svg class="scalekey" viewBox="0 0 {wide} 42" width="{wide}" height="42" role="img" aria-label="{said}">'
        f"{''.join(parts)}</svg>"
    )


def _axes(rows: int, columns: int, unit: float) -> list[str]:
    """Names of some rows and columns."""
    every_row = max(1, rows // 8)
    every = {48: 12, 24: 6, 12: 3}.get(columns, max(1, columns // 4))
    shown = [1, *(c for c in range(every, columns + 1, every) if c > 1)]
    names = [
        f'<text x="{_LEFT - 4}" y="{_TOP + (r - 0.5) * unit + 3:.1f}" text-anchor="end">{row_name(r)}</text>'
        for r in range(1, rows + 1, every_row)
    ]
    return names + [
        f'<text x="{_LEFT + (c - 0.5) * unit:.1f}" y="{_TOP - 4}" text-anchor="middle">{c}</text>' for c in shown
    ]


def _wells(plate: dict[str, Any], unit: float) -> list[str]:
    """Squares, those of one colour together."""
    by_level: dict[int, list[int]] = {}
    for i, level in enumerate(plate["level"]):
        by_level.setdefault(level, []).append(i)
    texts, parts = plate["text"], []
    for level, wells in sorted(by_level.items()):
        squares = [_square(plate, i, unit) for i in wells]
        name = "none" if level < 0 else f"q{level}"
        if not texts:
            parts.append(f'<path class="{name}" d="{"".join(squares)}"/>')
            continue
        drawn = (
            f'<path d="{square}"><title>{escape(texts[i])}</title></path>'
            for i, square in zip(wells, squares, strict=True)
        )
        parts.append(f'<g class="{name}">{"".join(drawn)}</g>')
    return parts


def _square(plate: dict[str, Any], i: int, unit: float) -> str:
    x, y = _corner(plate, i, unit)
    if plate["level"][i] < 0:  # no value: an empty square with a stroke through it
        return f"M{x:g} {y:g}h{unit:g}v{unit:g}h-{unit:g}zM{x:g} {y + unit:g}l{unit:g}-{unit:g}"
    return f"M{x:g} {y:g}h{unit:g}v{unit:g}h-{unit:g}z"


def _marks(plate: dict[str, Any], unit: float) -> list[str]:
    """Dots on negative controls, crosses on positive ones, frames around flagged wells."""
    dots, crosses, frames, half = [], [], [], unit / 2
    for i, mark in enumerate(plate["mark"]):
        x, y = _corner(plate, i, unit)
        if mark == "negcon":
            dots.append(f"M{x + half:g} {y + half:g}h0")
        elif mark == "poscon":
            arm = round(unit * 0.32, 2)
            crosses.append(f"M{x + half - arm:g} {y + half:g}h{2 * arm:g}M{x + half:g} {y + half - arm:g}v{2 * arm:g}")
        if plate["flagged"][i]:
            frames.append(f"M{x:g} {y:g}h{unit:g}v{unit:g}h-{unit:g}z")
    thin = max(unit * 0.14, 0.8)
    parts = []
    for name, drawn, wide in (("dot", dots, unit * 0.28), ("cross", crosses, thin)):
        if drawn:  # on a rim of the page's colour, so that they show on light and dark squares
            path = "".join(drawn)
            parts.append(f'<path class="{name} rim" stroke-width="{wide + 1.2:g}" d="{path}"/>')
            parts.append(f'<path class="{name}" stroke-width="{wide:g}" d="{path}"/>')
    if frames:
        parts.append(f'<path class="frame" stroke-width="{max(unit * 0.17, 1.1):g}" d="{"".join(frames)}"/>')
    return parts


def _corner(plate: dict[str, Any], i: int, unit: float) -> tuple[float, float]:
    return _LEFT + (plate["column"][i] - 1) * unit, _TOP + (plate["row"][i] - 1) * unit
