"""Write report.html of a few-shot benchmark: who predicts an assay from a few compounds, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenohit import __version__
from phenohit.config import Config
from phenohit.fewshot import find_method
from phenohit.fewshot.benchmark import SHOWN
from phenohit.fewshot.drawings import SHADES, box_chart, curve_chart, gain_chart, map_wide, overlap_map
from phenohit.fewshot.findings import (
    cost_facts,
    gain_facts,
    headline,
    leak_facts,
    matrix_facts,
    overlap_facts,
    task_facts,
)
from phenohit.files import read_table, write_text
from phenohit.report.build import environment, policy, style_sheet
from phenohit.report.facts import losses
from phenohit.report.methods import kind_of
from phenohit.report.tables import number, read_csv

__all__ = ["METRICS", "write_page"]

METRICS = {  # name, and what guessing reaches where that does not depend on the task
    "auroc": ("AUROC", 0.5),
    "delta_auprc": ("ΔAUPRC", 0.0),
    "f1": ("F1", None),
    "balanced_accuracy": ("Balanced accuracy", 0.5),
    "kappa": ("Cohen’s κ", 0.0),
}
TITLES = {
    "rate": "Base rate",
    "neighbours": "Nearest neighbours",
    "logistic": "Logistic regression",
    "forest": "Random forest",
    "xgboost": "Gradient boosting",
    "singletask": "Network from scratch",
    "multitask": "Multitask network",
    "prototypes": "Prototypical network",
    "maml": "MAML",
    "macau": "Macau",
    "prototypes_images": "Prototypical network",
    "maml_images": "MAML",
}
BOX_SIZE = 64  # support size of the box plot (Ha's thesis, Fig. 2.5B)
_COLOURS, _DASHES = 10, 4
_CURVES = 6  # methods drawn in full at first
_ROLES = {
    "test": "tested",
    "train": "learned from",
    "valid": "set apart to stop by",
    "left out": "left out",
}

Facts = dict[str, Any]


def write_page(folder: Path, config: Config, *, dropped: pd.DataFrame) -> Path:
    """Write ``report.html`` into the folder of a benchmark.

    Parameters
    ----------
    folder : Path
        With ``table.csv``, ``task_means.csv``, ``compare.csv``, ``gains.csv``, ``costs.csv``, ``tasks.csv``,
        ``overlap.parquet`` and, where wells were drawn as well, ``leak.csv``.
    config : Config
        Its methods name what is in the tables.
    dropped : DataFrame
        ``stage, what, id, reason`` of every task, or task at a support size, that was left out.

    Returns
    -------
    Path

    Raises
    ------
    FileError
        If a table is damaged.
    """
    how = config.fewshot
    table, tasks = _read(folder / "table.csv"), _read(folder / "tasks.csv")
    compared, means, gains = (_read(folder / f"{name}.csv") for name in ("compare", "task_means", "gains"))
    methods = _methods(table, config)
    sizes = sorted(int(s) for s in table["size"].unique())
    shown = [("all", "drawn at each size")]
    if _differs(table):
        shown.append(("every size", "drawn at every size"))
    overlap, _ = read_table(folder / "overlap.parquet")
    near, boxes = overlap_facts(overlap, tasks), _boxes(means, methods, sizes)
    pages = environment()
    pages.globals |= {draw.__name__: draw for draw in (curve_chart, box_chart, gain_chart, overlap_map)}
    words = pages.get_template("fewshot.html.j2").render(
        name=config.name, simulated=config.simulated, how=how, version=__version__, style=style_sheet(),
        policy=policy([]), methods=methods, sizes=sizes, metrics=METRICS, shown=shown, roles=_ROLES, shades=SHADES,
        head=headline(table, compared, methods), charts=_curves(table, methods, sizes, shown),
        last=_last(table, sizes[-1]), tables=_tables(table, methods, shown), boxes=boxes,
        at_box=sizes.index(boxes["size"]), most=max(len(sizes), len(METRICS)),
        gains=gain_facts(gains, tasks, methods, sizes, how.reference),
        matrices=matrix_facts(compared, methods, sizes, {m: METRICS[m][0] for m in SHOWN}),
        overlap=near, map_wide=map_wide(near["map"]), tasks=task_facts(tasks), losses=losses(dropped),
        costs=cost_facts(_read(folder / "costs.csv"), methods), leak=leak_facts(_read(folder / "leak.csv"), methods),
    )  # fmt: skip
    write_text(folder / "report.html", words)
    return folder / "report.html"


_TEXT = {"method", "other", "reference", "task", "tasks", "role", "reason", "metric", "every_size"}


def _read(path: Path) -> pd.DataFrame:
    """Read a table; names stay text ('007', 'NA'), all else are numbers."""
    table = read_csv(path)
    return table.assign(**{c: pd.to_numeric(table[c], errors="coerce") for c in table.columns if c not in _TEXT})


# --- methods ----------------------------------------------------------------------------------


def _methods(table: pd.DataFrame, config: Config) -> list[Facts]:
    """Methods from the highest mean AUROC to the lowest, with what they are called and how they are drawn."""
    names = [str(m) for m in pd.unique(table["method"])]
    given = [name.rpartition("-")[0] for name in names]
    inputs = [name.rpartition("-")[2] for name in names]
    colours = [g for g in pd.unique(pd.Series(given)) if _method_of(g, config) != "rate"]
    dashes = list(pd.unique(pd.Series(inputs)))
    found = []
    for name, one, source in zip(names, given, inputs, strict=True):
        method = _method_of(one, config)
        title = TITLES.get(method, method) + (f" ({one})" if one != method else "")
        colour = "kb" if method == "rate" else f"k{colours.index(one) % _COLOURS}"
        found.append(
            {
                "name": name, "method": method, "input": source,
                "label": f"{title}, {source.replace('ecfp', 'ECFP').replace('+', ' + ')}",
                "kind": "baseline" if method == "rate" else kind_of(source),
                "style": f"{colour} d{dashes.index(source) % _DASHES}",
                "pretrains": bool(getattr(find_method(method), "pretrains", True)),
            }
        )  # fmt: skip
    mean = table[table["tasks"] == "all"].groupby("method")["auroc"].mean()
    found.sort(key=lambda m: float(np.nan_to_num(mean.get(m["name"], 0.0))), reverse=True)
    plain = [next((m["name"] for m in found if m["method"] == k), "") for k in ("logistic", "rate")]
    for i, one in enumerate(found):
        one["place"] = i
        one["first"] = len(found) <= _CURVES or i < _CURVES - 2 or one["name"] in plain
    return found


def _method_of(given: str, config: Config) -> str:
    return str((config.fewshot.methods.get(given) or {}).get("method", given))


# --- curves, tables, boxes --------------------------------------------------------------------


def _differs(table: pd.DataFrame) -> bool:
    """Tell whether some tasks could not be drawn at every support size."""
    every = table[table["tasks"] == "every size"]
    n = table[table["tasks"] == "all"].groupby("size")["n_tasks"].first()
    return bool(len(every)) and not n.equals(every.groupby("size")["n_tasks"].first())


def _of(table: pd.DataFrame, which: str, method: str) -> pd.DataFrame:
    return table[(table["tasks"] == which) & (table["method"] == method)].set_index("size")


def _last(table: pd.DataFrame, size: int) -> dict[str, float | None]:
    """AUROC of every method at the largest size."""
    part = table[(table["tasks"] == "all") & (table["size"] == size)]
    none: dict[str, float | None] = dict.fromkeys(table["method"])
    return none | {str(m): number(v) for m, v in zip(part["method"], part["auroc"], strict=True)}


def _counts(table: pd.DataFrame, which: str) -> dict[int, int]:
    n = table[table["tasks"] == which].groupby("size")["n_tasks"].first()
    return {int(size): int(k) for size, k in n.items()}  # type: ignore[call-overload]


def _cells(rows: pd.DataFrame, metric: str, sizes: list[int], what: str) -> list[float | None]:
    column = f"{metric}{what}"
    return [number(rows.loc[size, column]) if size in rows.index else None for size in sizes]


def _curves(table: pd.DataFrame, methods: list[Facts], sizes: list[int], shown: list[tuple[str, str]]) -> list[Facts]:
    charts = []
    for i, metric in enumerate(SHOWN):
        for j, (which, _) in enumerate(shown):
            n = _counts(table, which)
            chart: Facts = {"a": i, "b": j, "title": METRICS[metric][0], "chance": METRICS[metric][1], "methods": []}
            chart |= {"sizes": [s for s in sizes if s in n], "n": [n[s] for s in sizes if s in n]}
            for one in methods:
                rows = _of(table, which, one["name"])
                values = {w: _cells(rows, metric, chart["sizes"], c) for w, c in _COLUMNS.items() if w != "sd"}
                chart["methods"].append({**{k: one[k] for k in ("label", "style", "place")}, **values})
            charts.append(chart)
    return charts


_COLUMNS = {"value": "", "low": "_low", "high": "_high", "sd": "_sd"}


def _tables(table: pd.DataFrame, methods: list[Facts], shown: list[tuple[str, str]]) -> list[Facts]:
    """Methods x sizes for every metric; the first two over all tasks are open."""
    found = []
    for which, told in shown:
        n = _counts(table, which)
        for metric in SHOWN:
            rows = []
            for one in methods:
                part = _of(table, which, one["name"])
                parts = [_cells(part, metric, list(n), c) for c in _COLUMNS.values()]
                cells = [dict(zip(_COLUMNS, values, strict=True)) for values in zip(*parts, strict=True)]
                rows.append({"method": one, "cells": cells})
            best = [
                max((v for r in rows if (v := r["cells"][i]["value"]) is not None), default=0) for i in range(len(n))
            ]
            title = METRICS[metric][0]
            open_ = which == "all" and metric in SHOWN[:2]
            found.append({"title": title, "told": told, "n": n, "rows": rows, "best": best, "open": open_})
    return found


def _boxes(means: pd.DataFrame, methods: list[Facts], sizes: list[int]) -> Facts:
    size = max((s for s in sizes if s <= BOX_SIZE), default=sizes[0])
    part = means[(means["size"] == size) & means["auroc"].notna()]
    rows = []
    for one in methods:
        mine = part[part["method"] == one["name"]]
        rows.append({**one, "tasks": mine["task"].tolist(), "values": mine["auroc"].tolist()})
    return {"title": "AUROC", "chance": 0.5, "size": size, "methods": rows, "n": int(part["task"].nunique())}
