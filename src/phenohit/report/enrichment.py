"""The replayed campaign: what picking by held-out scores would have found, as facts and small bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from phenohit.evaluate.enrichment import MEASURES
from phenohit.evaluate.replay import average
from phenohit.files import read_table
from phenohit.report.tables import number

__all__ = ["enrichment_bar", "enrichment_facts"]

_TOLD = "top 5 %"  # measure read out: 1 % of a task with 200 compounds is two of them
_WIDE, _HIGH = 120, 16


def enrichment_facts(path: Path, methods: list[dict[str, Any]], lead: str) -> dict[str, Any] | None:
    """Gather what ``enrichment.parquet`` of one split says.

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
        ``methods`` (list of dict name, label, kind and ``cells`` by measure: n_tasks, mean, low, high, random, best,
        found, expected, difference, difference_low, difference_high, n_better, n_worse, reference), ``scales``
        (largest value of each measure), ``measures`` (those with a value), ``n_tasks``, ``top`` (picks), ``told``,
        ``compared`` (list of dict label, other, text). None where the file is absent.
    """
    if not path.is_file():
        return None
    table, _ = read_table(path)
    means = average(table)
    found = []
    for method in methods:
        mine = means[means["method"] == method["name"]].set_index("measure")
        if not mine.empty:
            cells = {m: _cell(mine.loc[m]) for m in MEASURES if m in mine.index}
            found.append({key: method[key] for key in ("name", "label", "kind")} | {"cells": cells})
    measures = [m for m in MEASURES if any(f["cells"].get(m, {}).get("n_tasks") for f in found)]
    labels = {f["name"]: f["label"] for f in found}
    first = next((f for f in found if f["name"] == lead), found[0] if found else None)
    return {
        "methods": found,
        "measures": measures,
        "scales": {m: _largest(found, m) for m in measures},
        "n_tasks": int(table["task"].nunique()),
        "top": int(table.loc[table["measure"] == "top n", "n_taken"].max()) if len(table) else 0,
        "told": _told(first, found, labels),
        "compared": [c for f in found if (c := _compared(f, labels))],
    }


def _cell(row: pd.Series) -> dict[str, Any]:
    numbers = (
        "mean", "low", "high", "random", "best", "found", "expected", "difference", "difference_low", "difference_high",
    )  # fmt: skip
    counts = {key: int(row[key]) for key in ("n_tasks", "n_better", "n_worse")}
    return {key: number(row[key]) for key in numbers} | counts | {"reference": str(row["reference"])}


def _largest(found: list[dict[str, Any]], measure: str) -> float:
    """Return the end of the scale that the bars of one measure share."""
    values = [f["cells"][measure][key] for f in found for key in ("mean", "high") if measure in f["cells"]]
    least = 1.0 if measure == "bedroc" else 2.0
    return max([least, *(v for v in values if v is not None)])


def _told(first: dict[str, Any] | None, found: list[dict[str, Any]], labels: dict[str, str]) -> str:
    """Read out what the leading method would have found, beside random picks and chemistry."""
    cell = first["cells"].get(_TOLD) if first else None
    if not first or not cell or not cell["n_tasks"] or not cell["expected"]:
        return ""
    said = (
        f"The best 5 % of each task’s held-out compounds by {first['label']} hold {cell['found']:,.0f} actives, where "
        f"random picks find {cell['expected']:,.0f}: {cell['found'] / cell['expected']:.1f} times as many, over "
        f"{cell['n_tasks']:,} tasks."
    )
    other = next((f for f in found if f["name"] == cell["reference"]), None)
    if other and other["cells"][_TOLD]["found"] is not None:
        said += f" Picked by {labels[other['name']]} it is {other['cells'][_TOLD]['found']:,.0f}."
    return said


def _compared(method: dict[str, Any], labels: dict[str, str]) -> dict[str, Any] | None:
    """Say how a method stands to the same model on chemistry, task by task."""
    cells = {m: c for m, c in method["cells"].items() if c["reference"] and c["difference"] is not None}
    if not cells:
        return None
    reference = next(iter(cells.values()))["reference"]
    return {"label": method["label"], "other": labels.get(reference, reference), "cells": cells}


def enrichment_bar(cell: dict[str, Any], largest: float, kind: str) -> Markup:
    """Draw a mean with its interval from 0 to `largest`; the line is what random order gives.

    Parameters
    ----------
    cell : dict
        One of ``cells`` of `enrichment_facts`.
    largest : float
        End of the scale.
    kind : {'image', 'chemistry', 'baseline'}
        Sets the colour through a class.
    """

    def x(value: float) -> float:
        return 3 + (_WIDE - 8) * min(max(value, 0.0), largest) / largest

    middle = _HIGH / 2
    parts = [f'<line class="axis" x1="0" x2="{_WIDE}" y1="{middle}" y2="{middle}"/>']
    if cell["random"] is not None:
        at = x(cell["random"])
        parts.append(f'<line class="half" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{_HIGH}"/>')
    if cell["low"] is not None and cell["high"] is not None:
        ends = f'x1="{x(cell["low"]):.1f}" x2="{x(cell["high"]):.1f}"'
        parts.append(f'<line class="interval" {ends} y1="{middle}" y2="{middle}"/>')
    if cell["mean"] is not None:
        parts.append(f'<circle class="value" cx="{x(cell["mean"]):.1f}" cy="{middle}" r="3.5"/>')
    return Markup(  # noqa: S704  (only numbers and our own words)
        f'<svg class="bar {kind}" viewBox="0 0 {_WIDE} {_HIGH}" width="{_WIDE}" height="{_HIGH}" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )
