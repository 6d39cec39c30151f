"""Small static charts as SVG, drawn in the colours of the page: histograms, ranks, one dot per plate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from phenohit.report.shapes import line, number_text, rect, text

__all__ = ["flow_bar", "histogram", "rank_chart", "share_mark", "strip", "ticks"]

WIDE, HIGH = 560, 244
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 24, 44
_X0, _X1, _Y0, _Y1 = _LEFT, WIDE - _RIGHT, HIGH - _BOTTOM, _TOP
_NAMED = 12  # with more flagged plates none is named in the drawing
_CHARACTER = 6.2  # width of one at the charts' text size


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Return about `n` round numbers from low to high, both within them."""
    if not high > low:
        return [low]
    raw = (high - low) / n
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * f for f in (1, 2, 2.5, 5, 10) if size * f >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def histogram(chart: dict[str, Any], *, x: str, y: str, label: str, log: bool = False, share: bool = False) -> Markup:
    """Draw bars, each in two parts.

    Parameters
    ----------
    chart : dict
        ``names`` (below the bars; empty ones are not written) or ``edges`` (numbers, one more than bars),
        ``n`` (counts of the lower part), optionally ``more`` (of the part above it), ``texts`` (tooltips)
        and ``lines`` (list of (value, text, dashed), only with edges).
    x, y : str
        Axis titles, with units.
    label : str
        The chart in words.
    log : bool
        Logarithmic counts; such a chart has one part only.
    share : bool
        Write the edges as percentages.
    """
    n = [float(v) for v in chart["n"]]
    more = [float(v) for v in chart.get("more") or [0] * len(n)]
    most = max([a + b for a, b in zip(n, more, strict=True)], default=0.0)
    height, parts = _y_axis(most, y, log=log)
    step = (_X1 - _X0) / max(len(n), 1)
    gap = min(2.0, step * 0.12)
    for i, (low, high) in enumerate(zip(n, more, strict=True)):
        at = _X0 + i * step + gap / 2
        bars = [rect("main", at, height(low), step - gap, _Y0 - height(low))] if low else []
        if high:
            bars.append(rect("rest", at, height(low + high), step - gap, height(low) - height(low + high)))
        hit = rect("hit", _X0 + i * step, _Y1, step, _Y0 - _Y1)
        title = f"<title>{escape(chart['texts'][i])}</title>" if chart.get("texts") else ""
        parts.append(f"<g>{hit}{''.join(bars)}{title}</g>")
    if "edges" in chart:
        parts += _edges(chart["edges"], share=share) + _lines(chart.get("lines", []), chart["edges"])
    else:
        parts += [text(_X0 + (i + 0.5) * step, _Y0 + 15, name) for i, name in enumerate(chart["names"]) if name]
    return _svg(parts, x, label)


def rank_chart(n: Sequence[float], part: Sequence[float], total: int, *, x: str, y: str, label: str) -> Markup:
    """Draw counts from the largest to the smallest on a logarithmic scale, with a part of each.

    Parameters
    ----------
    n : sequence of number, descending
    part : sequence of number
        At most `n`; drawn as the darker area.
    total : int
        Ranks that these stand for, at least as many.
    """
    height, parts = _y_axis(max(n, default=0), y, log=True)
    step = (_X1 - _X0) / max(len(n), 1)
    for name, values in (("main", n), ("rest", part)):
        points, last = [f"M{_X0} {_Y0}"], None
        for i, value in enumerate(values):
            if i and height(value) == last:
                continue
            points.append(f"H{_X0 + i * step:.1f}V{(last := height(value)):.1f}")
        parts.append(f'<path class="{name}" d="{"".join(points)}H{_X1}V{_Y0}z"/>')
    one = (_X1 - _X0) / max(total, 1)
    parts += [text(_X0 + (t - 0.5) * one, _Y0 + 15, f"{t:,.0f}") for t in _counted(total)]
    return _svg(parts, x, label)


def strip(chart: dict[str, Any], *, x: str, y: str, label: str) -> Markup:
    """Draw one dot per plate in their order, flagged ones as diamonds with their names.

    Parameters
    ----------
    chart : dict
        ``values`` (float or None), ``flagged`` (bool), ``names``, ``texts`` (tooltips of flagged plates),
        ``batches`` (list of (name, first, last) in the same order; empty for none), ``typical`` (median),
        ``zero`` (bool: the axis starts at 0).
    """
    known = [v for v in chart["values"] if v is not None]
    scale = ticks(min(known + [0.0] * chart["zero"], default=0), max(known, default=1) or 1, 4)
    low, high = scale[0], scale[-1] if scale[-1] > scale[0] else scale[0] + 1
    n = len(chart["values"])
    across = [_X0 + (i + 0.5) * (_X1 - _X0) / max(n, 1) for i in range(n)]

    def up(value: float) -> float:
        return _Y0 - (_Y0 - _Y1) * (value - low) / (high - low)

    parts = _bands(chart["batches"], n)
    parts += [line("grid", _X0, _X1, up(t)) + text(_X0 - 7, up(t) + 4, number_text(t), "end") for t in scale]
    parts.append(text(_LEFT - 46, (_Y0 + _Y1) / 2, y, "middle", turn=True))
    if chart["typical"] is not None:
        parts.append(line("median", _X0, _X1, up(chart["typical"])))
    calm = [(i, v) for i, v in enumerate(chart["values"]) if v is not None and not chart["flagged"][i]]
    size = 6 if n <= 200 else 4 if n <= 600 else 2.6
    dots = "".join(f"M{across[i]:.1f} {up(v):.1f}h0" for i, v in calm)
    parts.append(f'<path class="dots" stroke-width="{size}" d="{dots}"/>')
    arm = 5 if n <= 200 else 3.4
    free = -math.inf if sum(chart["flagged"]) <= _NAMED else math.inf  # names that would overlap are left to tooltips
    for i, value in enumerate(chart["values"]):
        if value is None or not chart["flagged"][i]:
            continue
        a, b = across[i], up(value)
        title = f"<title>{escape(chart['texts'][i])}</title>"
        parts.append(
            f'<path class="diamond" d="M{a:.1f} {b - arm:.1f}l{arm} {arm}-{arm} {arm}-{arm}-{arm}z">{title}</path>'
        )
        name = str(chart["names"][i])
        half = len(name) * _CHARACTER / 2
        middle = min(max(a, _X0 + half), _X1 - half)
        if len(name) <= 24 and middle - half > free:
            parts.append(text(middle, b - 9 if b > _Y1 + 12 else b + 18, name))
            free = middle + half + 6
    parts += [text(across[t - 1], _Y0 + 15, f"{t:,}") for t in _counted(n)]
    return _svg(parts, x, label)


def share_mark(share: float | None, expected: float | None) -> Markup:
    """Draw a share of 1 as a bar, and what is expected as a tick across it."""
    if share is None:
        return Markup("")
    parts = ['<rect class="ground" width="100" height="10"/>']
    parts.append(f'<rect class="main" width="{100 * min(max(share, 0.0), 1.0):.1f}" height="10"/>')
    if expected is not None:
        parts.append(f'<rect class="expected" x="{min(max(100 * expected - 1, 0), 98):.1f}" width="2" height="10"/>')
    return Markup(  # noqa: S704
        '<svg class="sharemark" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )


def flow_bar(start: float, n: float, total: float, *, kept: bool) -> Markup:
    """Draw one step of a waterfall: `n` of `total`, beginning at `start`."""
    scale = 100 / max(total, 1)
    return Markup(  # noqa: S704
        '<svg class="flow" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="{"kept" if kept else "lost"}" x="{start * scale:.2f}" width="{max(n * scale, 0.3):.2f}" '
        'height="10"/></svg>'
    )


# --- parts ------------------------------------------------------------------------------------


def _svg(parts: list[str], x: str, label: str) -> Markup:
    body = "".join([*parts, line("axis", _X0, _X1, _Y0), text((_X0 + _X1) / 2, HIGH - 8, x)])
    return Markup(  # noqa: S704  (numbers, our own words and escaped text)
        f'<svg class="chart" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def _y_axis(most: float, title: str, *, log: bool) -> tuple[Any, list[str]]:
    """Return the height of a count, and the axis with its title."""
    if log:
        top = max(math.ceil(math.log10(max(most, 1))), 1)
        marks = [10.0**k for k in range(top + 1)]

        def height(value: float) -> float:  # one thing can be seen; none is nothing
            return _Y0 - (_Y0 - _Y1) * (math.log10(value) + 0.12) / (top + 0.12) if value >= 1 else _Y0

    else:
        marks = [t for t in ticks(0, max(most, 1), 4) if t == int(t)]

        def height(value: float) -> float:
            return _Y0 - max((_Y0 - _Y1) * value / marks[-1], 1.0 if value else 0.0)

    parts = [line("grid", _X0, _X1, height(m)) + text(_X0 - 7, height(m) + 4, f"{m:,.0f}", "end") for m in marks]
    return height, [*parts, text(_LEFT - 46, (_Y0 + _Y1) / 2, title, turn=True)]


def _counted(n: int) -> list[int]:
    """Return 1 and some round numbers up to n."""
    return [1, *(int(t) for t in ticks(0, n) if 1 < t <= n and t == int(t))] if n else []


def _edges(edges: Sequence[float], *, share: bool) -> list[str]:
    low, high = edges[0], edges[-1]
    found = []
    for t in ticks(low, high):
        if low - 1e-9 <= t <= high + 1e-9:
            at = _X0 + (_X1 - _X0) * (t - low) / (high - low)
            found.append(text(at, _Y0 + 15, f"{t:.0%}" if share else number_text(t)))
    return found


def _lines(lines: Sequence[tuple[float, str, bool]], edges: Sequence[float]) -> list[str]:
    """Upright lines, their texts one below the other."""
    parts = []
    for i, (value, words, dashed) in enumerate(lines):
        at = _X0 + (_X1 - _X0) * min(max((value - edges[0]) / (edges[-1] - edges[0]), 0), 1)
        parts.append(f'<path class="{"dashed" if dashed else "solid"}" d="M{at:.1f} {_Y0}V{_Y1 - 18}"/>')
        right = at + 6 + len(words) * _CHARACTER < WIDE
        parts.append(text(at + 6 if right else at - 6, _Y1 - 9 + 15 * i, words, "start" if right else "end"))
    return parts


def _bands(batches: Sequence[tuple[str, int, int]], n: int) -> list[str]:
    """Shade every second batch and name those that are wide enough."""
    step, parts = (_X1 - _X0) / max(n, 1), []
    for k, (name, first, last) in enumerate(batches):
        at, wide = _X0 + first * step, (last - first + 1) * step
        if k % 2 == 0:
            parts.append(rect("band", at, _Y1 - 20, wide, _Y0 - _Y1 + 20))
        if len(str(name)) * _CHARACTER < wide - 4:
            parts.append(text(at + wide / 2, _Y1 - 7, str(name)))
    return parts
