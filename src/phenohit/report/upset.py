"""Sets and what they share as SVG: an UpSet chart of up to six methods, a Venn diagram of up to three.

``comparison.js`` draws the same two charts when other methods are chosen: change both together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from phenohit.report.charts import ticks
from phenohit.report.shapes import line, number_text, rect, text

__all__ = ["COLUMNS", "SETS", "VENN_SETS", "upset", "venn", "venn_counts"]

SETS, VENN_SETS = 6, 3  # methods in each chart
COLUMNS = 20  # exclusive intersections drawn; the table lists all

WIDE = 640
_TOP, _BASE = 18, 162  # the bars
_FIRST, _STEP = 186, 25  # middle of the first row of dots, and from row to row
_NAME, _BAR, _BAR_WIDE = 168, 178, 56  # right end of names; set sizes
_X0, _X1 = 268, WIDE - 4  # the columns
_BROADEST = 40

VENN_WIDE, VENN_HIGH = 420, 348
# Middle and radius of the circles; place of each count by the sets it lies in; place and anchor of the names.
_CIRCLES = {
    1: [(210, 168, 112)],
    2: [(150, 168, 106), (270, 168, 106)],
    3: [(155, 130, 92), (265, 130, 92), (210, 216, 92)],
}
_REGIONS = {
    1: {1: (210, 168)},
    2: {1: (98, 168), 2: (322, 168), 3: (210, 168)},
    3: {1: (118, 112), 2: (302, 112), 4: (210, 262), 3: (210, 92), 5: (153, 190), 6: (267, 190), 7: (210, 158)},
}
_NAMES = {
    1: [(210, 40, "middle")],
    2: [(4, 34, "start"), (416, 34, "end")],
    3: [(4, 16, "start"), (416, 16, "end"), (210, 322, "middle")],
}


def upset(chart: dict[str, Any], *, label: str) -> Markup:
    """Draw exclusive intersections as columns: a bar for the count, filled dots for the sets.

    Parameters
    ----------
    chart : dict
        ``names`` and ``kinds`` of the sets, ``sizes`` (items in each), ``columns`` (list of dict ``sets``: positions,
        ``n``, ``kind``: image, chemistry, baseline or mixed, ``text``: in words), ``y`` (title of the axis), ``x``.
        At most `COLUMNS` columns are drawn.
    label : str
        The chart in words.
    """
    columns = chart["columns"][:COLUMNS]
    rows = len(chart["names"])
    high = _FIRST + _STEP * rows + 18
    marks = [t for t in ticks(0, max([c["n"] for c in columns], default=0) or 1, 4) if t == int(t)]
    parts = []
    for t in marks:
        y = _height(t, marks[-1])
        parts.append(line("grid", _X0, _X1, y) + text(_X0 - 7, y + 4, number_text(t), "end"))
    parts.append(text(_X0 - 44, (_TOP + _BASE) / 2, chart["y"], turn=True))
    largest = max(chart["sizes"], default=0) or 1
    for i, (name, kind, size) in enumerate(zip(chart["names"], chart["kinds"], chart["sizes"], strict=True)):
        y = _FIRST + _STEP * i
        if i % 2 == 0:
            parts.append(rect("band", 0, y - _STEP / 2, WIDE, _STEP))
        bar = _BAR_WIDE * size / largest
        parts.append(text(_NAME, y + 4, name, "end", name="name") + rect(kind, _BAR, y - 6, bar, 12))
        parts.append(text(_BAR + bar + 4, y + 4, f"{size:,}", "start"))
    step = min((_X1 - _X0) / max(len(columns), 1), _BROADEST)
    for i, column in enumerate(columns):
        parts.append(_column(i, column, _X0 + (i + 0.5) * step, step, rows, marks[-1]))
    parts.append(text((_X0 + _X1) / 2, high - 6, chart["x"]))
    return Markup(  # noqa: S704  (numbers, our own words and escaped text)
        f'<svg class="chart upset" viewBox="0 0 {WIDE} {high}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _height(n: float, top: float) -> float:
    return _BASE - (_BASE - _TOP) * n / top


def _column(i: int, column: dict[str, Any], x: float, step: float, rows: int, top: float) -> str:
    """Draw one intersection: what can be pointed at, bar, count, line from the first to the last dot, dots."""
    y, wide = _height(column["n"], top), min(step * 0.62, 20)
    dots = [(k, _FIRST + _STEP * k) for k in range(rows)]
    inside = [at for k, at in dots if k in column["sets"]]
    last = _FIRST + _STEP * (rows - 1)
    parts = [rect("hit", x - step / 2, 2, step, last + 12 - 2)]
    parts.append(rect(column["kind"], x - wide / 2, y, wide, _BASE - y) + text(x, y - 5, f"{column['n']:,}"))
    parts.append(f'<path class="off" d="{"".join(f"M{x:.1f} {at}h0" for k, at in dots if at not in inside)}"/>')
    parts.append(f'<path class="link" d="M{x:.1f} {inside[0]}V{inside[-1]}"/>')
    parts.append(f'<path class="on" d="{"".join(f"M{x:.1f} {at}h0" for at in inside)}"/>')
    return f'<g class="part" data-part="{i}">{"".join(parts)}<title>{escape(column["text"])}</title></g>'


def venn_counts(member: Sequence[Sequence[bool]]) -> dict[int, int]:
    """Count items by the sets they lie in, as the sum of 1, 2 and 4 for the first, second and third.

    Parameters
    ----------
    member : sequence of n items, each one bool per set
    """
    n_sets = len(member[0]) if len(member) else 0
    found = dict.fromkeys(range(2**n_sets), 0)
    for item in member:
        found[sum(1 << k for k, held in enumerate(item) if held)] += 1
    return found


def venn(chart: dict[str, Any], *, label: str) -> Markup:
    """Draw one to three overlapping circles with the count of every region; areas mean nothing.

    Parameters
    ----------
    chart : dict
        ``names``, ``kinds``, ``sizes`` of the sets, ``counts`` (of `venn_counts`), ``texts``: region -> words,
        ``outside`` (words for what lies in no set).
    label : str
        The chart in words.
    """
    n = len(chart["names"])
    parts = []
    for (x, y, r), kind in zip(_CIRCLES[n], chart["kinds"], strict=True):
        parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="{r}"/>')
    for (x, y, anchor), name, size in zip(_NAMES[n], chart["names"], chart["sizes"], strict=True):
        parts.append(text(x, y, f"{name}: {size:,}", anchor, name="name"))
    for region, (x, y) in _REGIONS[n].items():
        words = escape(chart["texts"][region])
        count = chart["counts"].get(region, 0)
        parts.append(
            f'<g class="part" data-part="{region}"><circle class="hit" cx="{x}" cy="{y}" r="23"/>'
            f"{text(x, y + 5, f'{count:,}', name='count')}<title>{words}</title></g>"
        )
    parts.append(text(VENN_WIDE - 4, VENN_HIGH - 2, chart["outside"], "end"))
    return Markup(  # noqa: S704  (numbers, our own words and escaped text)
        f'<svg class="chart venn" viewBox="0 0 {VENN_WIDE} {VENN_HIGH}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
