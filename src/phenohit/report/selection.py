"""Which settings were chosen inside every outer fold, and how much the choice mattered."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup, escape

from phenohit.files import read_json
from phenohit.report.charts import ticks
from phenohit.report.methods import label_of
from phenohit.report.shapes import line, number_text, text
from phenohit.report.tables import number, read_csv

__all__ = ["selection_chart", "selection_facts"]

# Columns of grid.csv that are no settings; one that is named like these is written as `<name> (setting)`.
_OURS = ("cell", "auroc", "sd", "rung", "share", "epochs", "auroc_on_share")
_SETTING = " (setting)"
NAMED = 600  # dots of a chart that can be pointed at; of more, only the chosen ones


def selection_facts(folder: Path, splits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gather what was chosen inside every outer fold.

    Parameters
    ----------
    folder : Path
        A run folder; reads the names of the models with a grid from ``config.yaml``, and
        ``models/<split>/<method>/fold-<name>/grid.csv`` and ``chosen.json``.
    splits : list of dict
        As made by `phenohit.report.results.split_facts`.

    Returns
    -------
    list of dict
        One per split that has such methods: ``name`` and ``methods``, each a dict with ``label``, ``settings`` (names
        of those that the grid varies), ``folds`` (dicts: ``name`` and, None where not computed, ``found``), ``n_tried``
        (settings), ``rounds`` (of successive halving; 1: none), ``stops`` (whether a fold stopped early) and ``told``
        (sentences). Empty where no grid was used.
    """
    grids, inner = _tuned(folder / "config.yaml")
    out = []
    for split in splits if grids else []:
        here = folder / "models" / unquote(split["folder"])
        known = [m["name"] for m in split["methods"]] or sorted(p.name for p in here.glob("*") if p.is_dir())
        names = [n for n in known if n.rpartition("-")[0] in grids]
        labels = {m["name"]: m["label"] for m in split["methods"]}
        folds = [str(part["name"]) for part in split["folds"]["sizes"]]
        methods = []
        for name in names:
            model, _, source = name.rpartition("-")
            label = labels.get(name) or label_of(model, source)
            methods.append({"label": label, **_method({f: _fold(here / name / f"fold-{f}") for f in folds}, inner)})
        if methods:
            out.append({"name": split["name"], "methods": methods})
    return out


def _tuned(path: Path) -> tuple[set[str], int]:
    """Names of the models that the run's settings give a grid, and the number of inner folds."""
    try:
        tune = yaml.safe_load(path.read_text(encoding="utf-8"))["tune"] or {}
        return set(tune.get("grids") or {}), int(tune.get("folds") or 3)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        return set(), 3


def _fold(folder: Path) -> tuple[pd.DataFrame, int] | None:
    """Read the grid of one outer fold and the number of the setting chosen; None where this was not finished."""
    grid, chosen = folder / "grid.csv", folder / "chosen.json"
    if not (grid.is_file() and chosen.is_file()):
        return None
    table, cell = read_csv(grid), number(read_json(chosen).get("cell"))
    if cell is None or not {"cell", "auroc", "sd", "rung"} <= set(table.columns):
        return None
    for column in set(_OURS) & set(table.columns):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    last = table[table["rung"] == table["rung"].max()]
    return (table, int(cell)) if cell in set(last["cell"]) else None


def _method(read: dict[str, tuple[pd.DataFrame, int] | None], inner: int) -> dict[str, Any]:
    """Lay out one method: a row per outer fold, and what they say together."""
    done = [grid[0] for grid in read.values() if grid is not None]
    every = list(dict.fromkeys(c for table in done for c in table))  # a fold of an earlier grid may lack some
    settings = [c for c in every if c not in _OURS]
    columns = [c for c in settings if len({v for t in done for v in (t[c] if c in t.columns else ("",))}) > 1]
    folds = []
    for name, grid in read.items():
        found = None
        if grid is not None:
            table, cell = grid
            found = _found(table.assign(**{c: "" for c in columns if c not in table}), cell, columns, inner)
        folds.append({"name": name, "found": found})
    found = [fold["found"] for fold in folds if fold["found"]]
    return {
        "settings": [c.removesuffix(_SETTING) for c in columns],
        "folds": folds,
        "n_tried": max((one["n_tried"] for one in found), default=0),
        "rounds": max((one["rounds"] for one in found), default=1),
        "stops": any(one["epochs"] for one in found),
        "told": _told(found, len(folds)),
    }


def _found(table: pd.DataFrame, cell: int, columns: list[str], inner: int) -> dict[str, Any]:
    """Summarise one outer fold: what was chosen, and where it lies among all that was tried."""
    last = table[table["rung"] == table["rung"].max()].set_index("cell")
    chosen, auroc = last.loc[cell], last["auroc"].dropna()
    best, sd = number(chosen["auroc"]), number(chosen["sd"])
    middle = number(auroc.median()) if len(auroc) else None
    noise = _noise(last["sd"], sd, len(auroc), inner)
    words = _words(table, columns)
    dots = [{"auroc": float(a), "cell": int(str(c)), "kind": "tried"} for c, a in auroc.items() if c != cell]
    left = table[~table["cell"].isin(last.index)]
    if len(left) and "auroc_on_share" in left:  # where halving left them, on some of the compounds
        left = left.sort_values("rung").drop_duplicates("cell", keep="last").dropna(subset="auroc_on_share")
        share = zip(left["cell"], left["auroc_on_share"], strict=True)
        dots += [{"auroc": float(a), "cell": int(c), "kind": "left"} for c, a in share]
    if best is not None:
        dots.append({"auroc": best, "cell": cell, "kind": "chosen"})
    epochs = number(chosen.get("epochs")) or 0.0
    return {
        "cell": cell,
        "values": [str(v) for v in chosen[columns]],
        "epochs": round(epochs) or None,
        "auroc": best,
        "sd": sd,
        "median": middle,
        "worst": number(auroc.min()) if len(auroc) else None,
        "n_tried": int(table["cell"].nunique()),
        "n_last": len(last),
        "rounds": int(table["rung"].nunique()),
        "gain": None if best is None or middle is None else best - middle,
        "noise": noise,
        "dots": [{**dot, "words": words[dot["cell"]]} for dot in dots],
    }


def _noise(sd: pd.Series, chosen: float | None, n: int, inner: int) -> float | None:
    """How far above the median the best of `n` settings may lie although all are alike; None: nothing to compare.

    At least one standard deviation between inner folds; for many settings more, as the highest of `n` normal means
    is below the ``0.95 ** (1 / n)`` quantile in 95 % of cases. Settings share their inner folds, so this is on the
    safe side.
    """
    if chosen is None or n < 2:
        return None
    spread = max(float(np.sqrt(np.nanmean(np.square(sd)))), chosen)
    return spread * max(1.0, NormalDist().inv_cdf(0.95 ** (1 / n)) / math.sqrt(max(inner - 1, 1)))


def _words(table: pd.DataFrame, columns: list[str]) -> dict[int, str]:
    """Write out the settings of every cell."""
    once = table.drop_duplicates("cell")
    names = [c.removesuffix(_SETTING) for c in columns]
    rows = zip(once["cell"], *(once[c] for c in columns), strict=True)
    return {int(c): ", ".join(f"{n} {v}" for n, v in zip(names, v, strict=True) if v) for c, *v in rows}


def _told(found: list[dict[str, Any]], n_folds: int) -> list[str]:
    """Say how often the same was chosen, and whether the choice is more than noise."""
    if not found:
        return []
    n, cells = len(found), len({one["cell"] for one in found})
    said = []
    if n > 1:
        same = f"The same setting was chosen in all {n} outer folds" if cells == 1 else ""
        said.append(f"{same or f'{cells} different settings were chosen in {n} outer folds'}.")
    if n < n_folds:
        said.append(f"{n_folds - n} of {n_folds} outer folds are not computed.")
    judged = [one for one in found if one["noise"] is not None and one["gain"] is not None]
    if judged:
        gain, noise = (float(np.mean([one[key] for one in judged])) for key in ("gain", "noise"))
        numbers = f"on average the chosen one is {gain:.3f} above the median setting, where up to {noise:.3f} can be"
        if gain <= noise:
            said.append(f"The choice matters little here: {numbers} noise between inner folds.")
        else:
            said.append(f"The choice matters: {numbers} noise between inner folds.")
    return said


# --- drawing ----------------------------------------------------------------------------------

WIDE, _ROW = 560, 26
_X0, _X1, _TOP = 74, WIDE - 14, 10


def selection_chart(method: dict[str, Any], label: str) -> Markup:
    """Draw the inner AUROC of every setting, one line per outer fold, the chosen ones marked.

    Parameters
    ----------
    method : dict
        As made by `selection_facts`.
    label : str
        The chart in words.
    """
    folds = method["folds"]
    values = [dot["auroc"] for fold in folds if fold["found"] for dot in fold["found"]["dots"]]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = 0.04 * (high - low) or 0.01
    low, high = low - pad, high + pad
    base = _TOP + _ROW * len(folds)

    def across(value: float) -> float:
        return _X0 + (_X1 - _X0) * (value - low) / (high - low)

    parts = []
    for t in (t for t in ticks(low, high) if low <= t <= high):
        parts.append(f'<path class="grid" d="M{across(t):.1f} {base}V{_TOP}"/>')
        parts.append(text(across(t), base + 15, number_text(t)))
    for i, fold in enumerate(folds):
        y = _TOP + _ROW * (i + 0.5)
        parts.append(text(_X0 - 8, y + 4, f"fold {fold['name']}", "end"))
        if not fold["found"]:
            parts.append(text(_X0 + 8, y + 4, "not computed", "start"))
            continue
        for dot in fold["found"]["dots"]:
            named = dot["kind"] == "chosen" or len(values) <= NAMED
            title = f"<title>{escape(_dot_text(dot))}</title>" if named else ""
            parts.append(f'<path class="dot {dot["kind"]}" d="M{across(dot["auroc"]):.1f} {y:.1f}h0">{title}</path>')
    parts.append(line("axis", _X0, _X1, base))
    parts.append(text((_X0 + _X1) / 2, base + 34, "mean AUROC on the inner folds"))
    return Markup(  # noqa: S704  (numbers, our own words and escaped text)
        f'<svg class="chart selection" viewBox="0 0 {WIDE} {base + 42}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _dot_text(dot: dict[str, Any]) -> str:
    kind = {"chosen": "chosen: ", "left": "left behind, on a share of the compounds: ", "tried": ""}[dot["kind"]]
    return f"{kind}{dot['words']}{': ' if dot['words'] else ''}AUROC {dot['auroc']:.3f}"
