"""Whether the probabilities are right: what each split's calibration table says, and its diagram."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from phenohit.evaluate.calibration import ALL, GROUPS
from phenohit.files import read_table
from phenohit.report.shapes import line, rect, text
from phenohit.report.tables import number

__all__ = ["read_bins", "reliability_chart", "reliability_facts"]

CLOSE = 0.02  # error below which probabilities are called right whatever the number of entries
TOLD = 30  # scores a bin needs to be read out
JOINED = 10  # and to be joined to its neighbours by a line

_READINGS = {
    "right": ("right", "good"),
    "high": ("too high", "warn"),
    "low": ("too low", "warn"),
    "extreme": ("over-confident", "warn"),
    "timid": ("too cautious", "fair"),
}


def reliability_facts(path: Path, methods: list[dict[str, Any]], lead: str) -> dict[str, Any] | None:
    """Gather what ``calibration.parquet`` of one split says.

    Parameters
    ----------
    path : Path
    methods : list of dict
        The split's methods, as in `report.results.split_facts`.
    lead : str
        Method read out.

    Returns
    -------
    dict or None
        ``methods`` (list of dict name, label, kind, bins, numbers, groups, reading, tone), ``chosen`` (the one drawn
        in full), ``groups`` (names of those that occur), ``tasks`` and ``entries`` (of each), ``grouped_by``,
        ``reference``, ``told`` (sentences), ``skipped`` (list of dict label, why). None where the file is absent.
    """
    if not path.is_file():
        return None
    table, _ = read_table(path)
    found, skipped = [], []
    for method in methods:
        mine = table[table["method"] == method["name"]]
        if mine.empty:
            continue
        why = str(mine["skipped"].iloc[0])
        if why:
            skipped.append({"label": method["label"], "why": why})
            continue
        kept = {key: method[key] for key in ("name", "label", "kind")}
        found.append(kept | _method(mine))
    names = [m["name"] for m in found]
    chosen = lead if lead in names else (names or [""])[0]
    first = next((m for m in found if m["name"] == chosen), None)
    return {
        "methods": found,
        "chosen": chosen,
        "groups": [g for g in GROUPS if any(g in m["groups"] for m in found)],
        "tasks": {} if first is None else {g: row["n_tasks"] for g, row in first["groups"].items()},
        "entries": {} if first is None else {g: row["n_entries"] for g, row in first["groups"].items()},
        "grouped_by": str(table["grouped_by"].iloc[0]) if len(table) else "",
        "reference": str(table["reference"].iloc[0]) if len(table) else "",
        "told": "" if first is None else _told(first),
        "skipped": skipped,
    }


def _method(table: pd.DataFrame) -> dict[str, Any]:
    """Numbers and bins of one method, and its numbers by group of tasks."""
    every = table[table["group"] == ALL]
    reading, tone = _READINGS[read_bins(every)]
    groups = {str(g): _numbers(part.iloc[0]) for g, part in table[table["group"] != ALL].groupby("group")}
    columns = ("low", "high", "score_mean", "share", "share_low", "share_high")
    bins = [
        {column: number(row[column]) for column in columns} | {"n": int(row["n"]), "n_active": int(row["n_active"])}
        for row in every.to_dict("records")
    ]
    return {"bins": bins, "groups": groups, "reading": reading, "tone": tone, **_numbers(every.iloc[0])}


def _numbers(row: pd.Series) -> dict[str, Any]:
    numbers = {key: number(row[key]) for key in ("brier", "brier_reference", "brier_skill", "ece", "ece_calibrated")}
    return numbers | {"n_tasks": int(row["n_tasks"]), "n_entries": int(row["n_entries"])}


def read_bins(bins: pd.DataFrame) -> str:
    """Read in which way a method's probabilities are off.

    Parameters
    ----------
    bins : DataFrame
        Rows of one method and group of `evaluate.calibration`.

    Returns
    -------
    {'right', 'high', 'low', 'extreme', 'timid'}
        Right: the expected calibration error is below 0.02 or twice what right probabilities would give. High or low:
        most of it is to one side. Extreme or timid: observed shares rise less, or more, than the scores.
    """
    row, filled = bins.iloc[0], bins[bins["n"] > 0]
    if row["ece"] <= max(CLOSE, 2 * row["ece_calibrated"]):
        return "right"
    n, score, share = (filled[c].to_numpy(np.float64) for c in ("n", "score_mean", "share"))
    lean = np.average(score - share, weights=n)
    if abs(lean) >= 0.6 * row["ece"]:
        return "high" if lean > 0 else "low"
    middle = np.average(score, weights=n)
    rise = np.sum(n * (score - middle) * (share - np.average(share, weights=n)))
    return "extreme" if rise < np.sum(n * (score - middle) ** 2) else "timid"


def _told(method: dict[str, Any]) -> str:
    """Read out the bin that matters most for choosing compounds, and what is off in general."""
    bins = [b for b in method["bins"] if b["n"] >= TOLD] or [b for b in method["bins"] if b["n"]]
    bins = [b for b in bins if b["low"] >= 0.5] or bins[-1:]  # from one half on, if any is as likely as that
    b = max(bins, key=lambda b: b["n"] * abs(b["share"] - b["score_mean"]))
    said = (
        f"Where {method['label']} gives a probability of {b['low']:.0%} to {b['high']:.0%}, {b['n_active']:,} of "
        f"{b['n']:,} held-out labels were active: {b['share']:.0%}, where {b['score_mean']:.0%} were expected. "
    )
    general = {
        "right": "Over all its scores, probabilities and shares agree as well as these labels can tell.",
        "too high": "Its probabilities are too high: expect fewer actives than they promise.",
        "too low": "Its probabilities are too low: expect more actives than they promise.",
        "over-confident": "Over all its scores it is over-confident: high probabilities are too high, low ones too "
        "low. Its ranking (AUROC) may be good all the same, but do not read its scores as chances of success.",
        "too cautious": "Over all its scores it is too cautious: high probabilities are too low, low ones too "
        "high. Its ranking (AUROC) is not touched by that.",
    }
    return said + general[method["reading"]]


# --- drawing ----------------------------------------------------------------------------------

WIDE = 500
_X0, _X1 = 56, WIDE - 12
_TOP, _BASE = 12, 12 + 400  # the diagram
_CROWN, _FOOT = _BASE + 16, _BASE + 16 + 76  # the histogram below it
HIGH = _FOOT + 44


def reliability_chart(facts: dict[str, Any], label: str) -> Markup:
    """Draw observed shares against probabilities, one method in full and the others as thin lines.

    Parameters
    ----------
    facts : dict
        As made by `reliability_facts`.
    label : str
        The chart in words.
    """
    most = max((b["n"] for m in facts["methods"] for b in m["bins"]), default=1)
    top = max(math.ceil(math.log10(max(most, 1))), 1)
    parts = [rect("panel", _X0, _TOP, _X1 - _X0, _BASE - _TOP)]
    for k in range(0, 11, 2):
        parts.append(line("grid", _X0, _X1, _y(k / 10)) + text(_X0 - 7, _y(k / 10) + 4, f"{k * 10}%", "end"))
        parts.append(f'<path class="grid" d="M{_x(k / 10):.1f} {_BASE}V{_TOP}"/>')
        parts.append(text(_x(k / 10), _FOOT + 15, f"{k * 10}%"))
    parts.append(f'<path class="dashed" d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}"/>')
    parts.append(text(_x(0.03), _y(0.95), "more active than predicted", "start"))
    parts.append(text(_x(0.97), _y(0.035), "fewer active than predicted", "end"))
    for k in sorted({0, top // 2, top}) if top > 1 else (0, 1):
        parts.append(line("grid", _X0, _X1, _count(10.0**k, top)))
        parts.append(text(_X0 - 7, _count(10.0**k, top) + 4, f"{10**k:,}", "end"))
    parts.append(line("axis", _X0, _X1, _FOOT))
    others = [m for m in facts["methods"] if m["name"] != facts["chosen"]]
    chosen = [m for m in facts["methods"] if m["name"] == facts["chosen"]]
    parts += [_drawn(m, top, full=m["name"] == facts["chosen"]) for m in (*others, *chosen)]
    parts.append(text(12, (_TOP + _BASE) / 2, "observed share of actives", turn=True))
    parts.append(text(12, (_CROWN + _FOOT) / 2, "scores (log)", turn=True))
    parts.append(text((_X0 + _X1) / 2, HIGH - 8, "predicted probability of being active"))
    return Markup(  # noqa: S704  (numbers, our own words and escaped text)
        f'<svg class="chart reliability" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _drawn(method: dict[str, Any], top: int, *, full: bool) -> str:
    """Draw one method; the style sheet hides all but the line of those that are not chosen."""
    filled = [b for b in method["bins"] if b["n"]]
    points = [(_x(b["score_mean"]), _y(b["share"])) for b in filled]
    joined = "L".join(f"{x:.1f} {y:.1f}" for b, (x, y) in zip(filled, points, strict=True) if b["n"] >= JOINED)
    joined = f"M{joined}" if joined else ""
    whiskers = "".join(
        f"M{x:.1f} {_y(b['share_low']):.1f}V{_y(b['share_high']):.1f}" for b, (x, _) in zip(filled, points, strict=True)
    )
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
    bars = [
        rect(
            "count",
            _x(b["low"]) + 1,
            _count(b["n"], top),
            _x(b["high"]) - _x(b["low"]) - 2,
            _FOOT - _count(b["n"], top),
        )
        for b in filled
    ]
    hits = [
        f"<g>{rect('hit', _x(b['low']), _TOP, _x(b['high']) - _x(b['low']), _FOOT - _TOP)}"
        f"<title>{escape(_bin_text(method['label'], b))}</title></g>"
        for b in filled
    ]
    return (
        f'<g class="method {method["kind"]}{" chosen" * full}" data-method="{escape(method["name"])}">'
        f'{"".join(hits)}<path class="joined" d="{joined}"><title>{escape(method["label"])}</title></path>'
        f'<path class="whiskers" d="{whiskers}"/><path class="dots" d="{dots}"/>{"".join(bars)}</g>'
    )


def _bin_text(label: str, b: dict[str, Any]) -> str:
    return (
        f"{label}, {b['low']:.0%} to {b['high']:.0%}: {b['n']:,} scores, {b['score_mean']:.1%} on average; "
        f"{b['n_active']:,} active, {b['share']:.1%} ({b['share_low']:.1%} to {b['share_high']:.1%})"
    )


def _x(value: float) -> float:
    return _X0 + (_X1 - _X0) * value


def _y(value: float) -> float:
    return _BASE - (_BASE - _TOP) * value


def _count(n: float, top: int) -> float:
    """Height of a count in the histogram, logarithmic; one can be seen."""
    return _FOOT - (_FOOT - _CROWN) * (math.log10(max(n, 1)) + 0.12) / (top + 0.12)
