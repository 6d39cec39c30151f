"""Charts of the few-shot page as SVG: curves over support sizes, boxes over tasks, gains by task, tasks alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from phenohit.report.charts import ticks
from phenohit.report.shapes import line, number_text, rect, text

__all__ = ["SHADES", "box_chart", "curve_chart", "gain_chart", "map_wide", "overlap_map", "short"]

Facts = dict[str, Any]

SHADES = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)  # a Jaccard index of at least that much has the next darker colour
_NAME = 30  # characters of a name in a drawing; all of it is in the tooltip


def short(name: str, most: int = _NAME) -> str:
    """Cut a name in its middle, where names of assays differ least."""
    head = (most - 1) * 2 // 3
    return name if len(name) <= most else f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"


def _svg(parts: list[str], wide: float, high: float, name: str, label: str) -> Markup:
    return Markup(  # noqa: S704  (numbers, our own words and escaped text)
        f'<svg class="chart {name}" viewBox="0 0 {wide:g} {high:g}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


# --- curves -----------------------------------------------------------------------------------

_WIDE, _HIGH = 640, 410
_X0, _X1, _Y0, _Y1 = 58, _WIDE - 22, _HIGH - 60, 14


def curve_chart(chart: Facts) -> Markup:
    """Draw the mean of every method over the support sizes, with intervals.

    Parameters
    ----------
    chart : dict
        ``title`` (of the metric), ``sizes`` (ascending), ``n`` (tasks of each), ``chance`` (float or None) and
        ``methods``: dicts with ``label``, ``style`` (classes), ``place`` (0, 1, ...) and one element per size of
        ``value, low, high`` (float or None).
    """
    sizes = chart["sizes"]
    spots = [v for m in chart["methods"] for k in ("value", "low", "high") for v in m[k] if v is not None]
    spots += [] if chart["chance"] is None else [chart["chance"]]
    scale = ticks(min(spots, default=0.0), max(spots, default=1.0), 6)
    scale = scale if len(scale) > 1 else [scale[0] - 0.1, scale[0], scale[0] + 0.1]
    bottom, top = scale[0], scale[-1]

    def up(value: float) -> float:
        return _Y0 - (_Y0 - _Y1) * (value - bottom) / (top - bottom)

    across = _places(sizes)
    parts = [line("grid", _X0, _X1, up(t)) + text(_X0 - 7, up(t) + 4, number_text(t), "end") for t in scale]
    for x, size, n in zip(across, sizes, chart["n"], strict=True):
        parts.append(text(x, _Y0 + 16, f"{size}", name="name") + text(x, _Y0 + 30, f"{n} task{'s' * (n != 1)}"))
    if chart["chance"] is not None:
        parts.append(line("dashed", _X0, _X1, up(chart["chance"])))
        parts.append(text(_X1, up(chart["chance"]) - 5, "guessing", "end"))
    n_methods = len(chart["methods"])
    for i, method in enumerate(chart["methods"]):
        aside = min(34, 5 * n_methods) * ((i + 0.5) / n_methods - 0.5)  # whiskers of several methods beside each other
        parts.append(_curve(method, [x + aside for x in across], sizes, chart["n"], up))
    parts.append(text((_X0 + _X1) / 2, _HIGH - 8, "measured compounds (support size)"))
    parts.append(text(14, (_Y0 + _Y1) / 2, chart["title"], turn=True))
    label = (
        f"{chart['title']} of {n_methods} methods against the number of measured compounds; the table has the numbers"
    )
    return _svg(parts, _WIDE, _HIGH, "lines", label)


def _places(sizes: list[int]) -> list[float]:
    """Positions of the support sizes, on a logarithmic scale."""
    if len(sizes) == 1:
        return [(_X0 + _X1) / 2]
    first, last = math.log(sizes[0]), math.log(sizes[-1])
    return [_X0 + 26 + (_X1 - _X0 - 52) * (math.log(s) - first) / (last - first) for s in sizes]


def _curve(method: Facts, across: list[float], sizes: list[int], n: list[int], up: Any) -> str:
    joined, whiskers, dots = [], [], []
    rows = zip(across, sizes, n, method["value"], method["low"], method["high"], strict=True)
    for x, size, k, value, low, high in rows:
        if value is None:
            continue
        said = f"{method['label']}, {size} compounds: {value:.3f}"
        joined.append(f"{x:.1f} {up(value):.1f}")
        if low is not None and high is not None:
            whiskers.append(f"M{x:.1f} {up(low):.1f}V{up(high):.1f}")
            said += f" [{low:.3f}, {high:.3f}]"
        dots.append(
            f'<circle cx="{x:.1f}" cy="{up(value):.1f}" r="3.6"><title>{escape(said)}, {k} tasks</title></circle>'
        )
    path = f'<path class="joined" d="M{"L".join(joined)}"/>' if joined else ""
    return (
        f'<g class="m{method["place"]} {method["style"]}">{path}'
        f'<path class="whiskers" d="{"".join(whiskers)}"/>{"".join(dots)}</g>'
    )


# --- boxes ------------------------------------------------------------------------------------

_BOX_LEFT, _BOX_ROW = 290, 27


def box_chart(chart: Facts) -> Markup:
    """Draw the spread of a metric over tasks, a box and one dot per task for every method (Ha's thesis, Fig. 2.5B).

    Parameters
    ----------
    chart : dict
        ``title``, ``size``, ``chance`` and ``methods``: dicts with ``label``, ``style``, ``tasks`` and ``values``.

    Notes
    -----
    The box is from the lower to the upper quartile, with the median; whiskers end at the furthest task within 1.5 times
    its length.
    """
    methods = chart["methods"]
    values = [v for m in methods for v in m["values"]] + [chart["chance"]]
    scale = ticks(min(values), max(values), 6)
    scale = scale if len(scale) > 1 else [scale[0] - 0.1, scale[0], scale[0] + 0.1]
    base, x1 = 12 + _BOX_ROW * len(methods), 800

    def at(value: float) -> float:
        return _BOX_LEFT + (x1 - _BOX_LEFT) * (value - scale[0]) / (scale[-1] - scale[0])

    parts = [f'<path class="grid" d="M{at(t):.1f} {base}V8"/>' + text(at(t), base + 16, number_text(t)) for t in scale]
    parts.append(f'<path class="dashed" d="M{at(chart["chance"]):.1f} {base}V8"/>')
    for i, method in enumerate(methods):
        y = 12 + _BOX_ROW * (i + 0.5)
        parts.append(f'<g class="{method["style"]}">{_box(method, y, at)}</g>')
    parts += [line("axis", _BOX_LEFT, x1, base), text((_BOX_LEFT + x1) / 2, base + 36, chart["title"])]
    said = f"{chart['title']} over tasks of {len(methods)} methods with {chart['size']} measured compounds"
    return _svg(parts, x1 + 20, base + 44, "boxes", said)


def _box(method: Facts, y: float, at: Any) -> str:
    values = np.asarray(method["values"], dtype=np.float64)
    words = text(_BOX_LEFT - 12, y + 4, short(method["label"], 48), "end", name="name")
    parts = [f"<g><title>{escape(method['label'])}</title>{words}</g>"]
    if not len(values):
        return parts[0] + text(_BOX_LEFT + 8, y + 4, "no task", "start")
    q1, q2, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    reach = 1.5 * (q3 - q1)
    low, high = values[values >= q1 - reach].min(), values[values <= q3 + reach].max()
    parts.append(
        f'<path class="whiskers" d="M{at(low):.1f} {y:.1f}H{at(q1):.1f}M{at(q3):.1f} {y:.1f}H{at(high):.1f}"/>'
    )
    parts.append(rect("box", at(q1), y - 8, max(at(q3) - at(q1), 0.8), 16))
    parts.append(f'<path class="middle" d="M{at(q2):.1f} {y - 8:.1f}v16"/>')
    for i, (task, value) in enumerate(zip(method["tasks"], values, strict=True)):
        aside = y + 4 * (i % 3 - 1)  # so that equal tasks do not hide each other
        parts.append(
            f'<circle cx="{at(value):.1f}" cy="{aside:.1f}" r="2.6">'
            f"<title>{escape(method['label'])}, {escape(task)}: {value:.3f}</title></circle>"
        )
    return "".join(parts)


# --- gains ------------------------------------------------------------------------------------

_GAIN_LEFT, _GAIN_ROW, _GAIN_RIGHT = 258, 17, 580


def gain_chart(chart: Facts) -> Markup:
    """Draw which tasks gain or lose by a method, as bars with intervals.

    Parameters
    ----------
    chart : dict
        ``label``, ``reference`` (labels), ``size`` and ``rows``, sorted: dicts with ``task, n`` (compounds or None),
        ``gain, low, high`` (None where unknown), ``sure`` (bool).
    """
    rows = chart["rows"]
    spots = [0.0] + [v for r in rows for v in (r["gain"], r["low"], r["high"]) if v is not None]
    scale = ticks(min(spots), max(spots), 5)
    scale = scale if len(scale) > 1 else [-0.1, 0.0, 0.1]
    base = 8 + _GAIN_ROW * len(rows)

    def at(value: float) -> float:
        return _GAIN_LEFT + (_GAIN_RIGHT - _GAIN_LEFT) * (value - scale[0]) / (scale[-1] - scale[0])

    parts = [f'<path class="grid" d="M{at(t):.1f} {base}V4"/>' + text(at(t), base + 15, number_text(t)) for t in scale]
    for i, row in enumerate(rows):
        y = 8 + _GAIN_ROW * (i + 0.5)
        n = "" if row["n"] is None else f" (n {row['n']})"
        said = f"{row['task']}{n}: {row['gain']:+.3f}"
        whisker = ""
        if row["low"] is not None and row["high"] is not None:
            said += f" [{row['low']:+.3f}, {row['high']:+.3f}]"
            whisker = f'<path class="whiskers" d="M{at(row["low"]):.1f} {y:.1f}H{at(row["high"]):.1f}"/>'
        left, right = sorted((at(0), at(row["gain"])))
        name = f"{'gain' if row['gain'] > 0 else 'loss'}{'' if row['sure'] else ' unsure'}"
        words = text(_GAIN_LEFT - 8, y + 4, short(row["task"], 31) + n, "end", name="name")
        bar = rect(name, left, y - 5, right - left, 10)
        parts.append(f"<g><title>{escape(said)}</title>{words}{bar}{whisker}</g>")
    parts.append(f'<path class="axis" d="M{at(0):.1f} {base}V4"/>')
    parts.append(text((_GAIN_LEFT + _GAIN_RIGHT) / 2, base + 33, "difference in AUROC"))
    said = (
        f"Gain in AUROC of {chart['label']} over {chart['reference']} with {chart['size']} compounds, {len(rows)} tasks"
    )
    return _svg(parts, _GAIN_RIGHT + 20, base + 40, "gains", said)


# --- tasks beside tasks -----------------------------------------------------------------------

_MAP_LEFT = 270


def map_wide(chart: Facts | None) -> int:
    """Width of the map in its own units."""
    return 0 if chart is None else _MAP_LEFT + len(chart["tasks"]) * _side(len(chart["tasks"])) + 6


def _side(T: int) -> int:
    return 22 if T <= 16 else 16 if T <= 30 else 12


def overlap_map(chart: Facts) -> Markup:
    """Draw how much tasks share: compounds below the diagonal, equal (compound, label) pairs above it.

    Parameters
    ----------
    chart : dict
        ``tasks`` (names), ``roles``, ``n`` (compounds), ``jaccard`` and ``equal`` (T x T, NaN-free), ``alike`` (T x T
        bool: near duplicates).
    """
    names, T = chart["tasks"], len(chart["tasks"])
    size, left, top = _side(T), _MAP_LEFT, 24
    parts = []
    for i, name in enumerate(names):
        y = top + (i + 0.5) * size
        said = f"{i + 1}. {name} ({chart['roles'][i]}, n {chart['n'][i]})"
        style = "name" if chart["roles"][i] == "test" else ""
        words = text(left - 30, y + 4, short(name, 36), "end", name=style) + text(left - 7, y + 4, f"{i + 1}", "end")
        parts.append(f"<g><title>{escape(said)}</title>{words}</g>")
        if size > 12 or i % 5 == 4 or i == 0:
            parts.append(text(left + (i + 0.5) * size, top - 7, f"{i + 1}"))
    parts += [_cell(chart, i, j, left, top, size) for i in range(T) for j in range(T)]
    n_test = sum(role == "test" for role in chart["roles"])
    if 0 < n_test < T:
        edge = size * n_test
        parts.append(f'<path class="edge" d="M{left} {top + edge}h{size * T}M{left + edge} {top}v{size * T}"/>')
    said = f"Overlap of {T} tasks: Jaccard index of compounds below the diagonal, of equal labels above it"
    return _svg(parts, map_wide(chart), top + size * T + 6, "overlap" + " dense" * (size == 12), said)


def _cell(chart: Facts, i: int, j: int, left: float, top: float, size: float) -> str:
    """One square with its tooltip; nothing where nothing is shared."""
    x, y = left + j * size, top + i * size
    if i == j:
        return f'<path class="self" d="M{x:g} {y:g}h{size}v{size}h-{size}z"/>'
    value = (chart["jaccard"] if i > j else chart["equal"])[i, j]
    shade = int(np.searchsorted(SHADES, value, side="right"))
    alike = bool(chart["alike"][i, j])
    if not shade and not alike:
        return ""
    what = "compounds" if i > j else "equal labels"
    said = f"{chart['tasks'][i]} and {chart['tasks'][j]}: {what} {value:.2f}{', near duplicates' if alike else ''}"
    name = f"o{shade}{' alike' if alike else ''}"
    inner = size - 1
    return f'<path class="{name}" d="M{x:g} {y:g}h{inner}v{inner}h-{inner}z"><title>{escape(said)}</title></path>'
