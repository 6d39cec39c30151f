"""Methods against each other: the matrix of paired tests, tests of ROC curves task by task, and what methods cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from phenohit.evaluate.roc_test import VERDICTS, verdicts
from phenohit.report.tables import number, read_csv

__all__ = ["COSTS", "cost_facts", "dependence_facts", "matrix_facts", "roc_facts"]

LEVEL = 0.01  # p at or below which a cell of the matrix is shaded, as Hofmarcher 2019 reads Table 2
_FEWEST = 3  # tasks from which a correlation is given
_HARDLY = 0.1  # a rank correlation below this is none to speak of

# Columns of costs.csv, what they are called, and the decimals shown.
COSTS = {
    "parameters": ("Parameters", 0),
    "gmac": ("GMAC", 3),
    "seconds_fit": ("Seconds per fit", 1),
    "seconds_epoch": ("Seconds per epoch", 1),
    "images_per_s": ("Images per second", 0),
}

Facts = dict[str, Any]


def matrix_facts(path: Path, methods: list[Facts]) -> list[Facts]:
    """Arrange the p-values of ``compare.csv`` as a matrix (Hofmarcher 2019, Table 2, turned).

    Parameters
    ----------
    path : Path
    methods : list of dict
        The split's methods, as in `report.results.split_facts`; rows and columns are in their order.

    Returns
    -------
    list of dict
        A row per method: ``label, kind, cells``; a cell is None on the diagonal, else ``p`` (that the method of the row
        is better than that of the column; None if there are too few tasks), ``holm``, ``n`` (tasks) and ``shade``
        (2: at most 0.01 after correction; 1: before it; 0). Empty where nothing was compared.
    """
    table = read_csv(path)
    if table.empty:
        return []
    known = {(str(row["method"]), str(row["other"])): row for row in table.to_dict("records")}
    names = [m for m in methods if any(m["name"] in pair for pair in known)]
    rows = []
    for one in names:
        cells = [None if one is other else _cell(known.get((one["name"], other["name"]), {})) for other in names]
        rows.append({"label": one["label"], "kind": one["kind"], "cells": cells})
    return rows


def _cell(row: Facts) -> Facts:
    p, holm = number(row.get("p_value")), number(row.get("p_holm"))
    shade = 2 if holm is not None and holm <= LEVEL else 1 if p is not None and p <= LEVEL else 0
    return {"p": p, "holm": holm, "n": int(number(row.get("n_tasks")) or 0), "shade": shade}


def roc_facts(path: Path, methods: list[Facts], tasks: list[str]) -> list[Facts]:
    """Count the verdicts of ``roc_tests.csv``, pair by pair (Hofmarcher 2019, Figure 4).

    Parameters
    ----------
    path : Path
    methods : list of dict
    tasks : list of str
        Tasks of the page, in its order.

    Returns
    -------
    list of dict
        ``a, b`` (names), ``label_a, label_b``; ``counts`` and ``holm`` (tasks by verdict about a, at p of at most
        0.05 without and with correction over tasks); ``r`` (Pearson correlation of the two AUROCs), ``n`` (tasks
        tested), ``expected`` (tasks that would differ by chance alone), ``sampled`` (tasks of which a part was
        tested), ``repeat`` (None: all folds), ``permutations``, and ``verdict`` (code of every task of the page).
    """
    table = read_csv(path)
    if table.empty:
        return []
    labels = {m["name"]: m["label"] for m in methods}
    found = []
    for pair, given in table.groupby(["method_a", "method_b"], sort=False):
        a, b = (str(name) for name in tuple(pair))  # pyright: ignore[reportGeneralTypeIssues]
        numbers = ["auroc_a", "auroc_b", "difference", "p_holm", "n_active", "n_inactive", "n_tested", "repeat"]
        part = given.assign(**{c: pd.to_numeric(given[c], errors="coerce") for c in numbers})
        counts = part["verdict"].value_counts()
        holm = verdicts(part, column="p_holm").value_counts()
        tested = len(part) - int(counts.get("undefined", 0))
        code = dict(zip(part["task"], part["verdict"], strict=True))
        repeat = int(part["repeat"].fillna(-1).iloc[0])
        found.append(
            {
                "a": a,
                "b": b,
                "label_a": labels.get(a, a),
                "label_b": labels.get(b, b),
                "counts": {v: int(counts.get(v, 0)) for v in VERDICTS},
                "holm": {v: int(holm.get(v, 0)) for v in VERDICTS},
                "r": _pearson(part["auroc_a"], part["auroc_b"]),
                "n": tested,
                "expected": 0.05 * tested,
                "sampled": int((part["n_tested"] < part["n_active"] + part["n_inactive"]).sum()),
                "repeat": repeat if repeat >= 0 else None,
                "permutations": number(part["permutations"].iloc[0]),
                "verdict": [VERDICTS.index(code[t]) if code.get(t) in VERDICTS else None for t in tasks],
            }
        )
    return found


def _pearson(a: pd.Series, b: pd.Series) -> float | None:
    both = (a.notna() & b.notna()).to_numpy()
    x, y = a.to_numpy(np.float64)[both], b.to_numpy(np.float64)[both]
    if len(x) < _FEWEST or not np.ptp(x) or not np.ptp(y):
        return None
    return number(np.corrcoef(x, y)[0, 1])


def cost_facts(folder: Path, methods: list[Facts]) -> Facts | None:
    """Read what methods cost, from ``costs.csv`` of a split, or else of its run (Hofmarcher 2019, Table 3).

    Parameters
    ----------
    folder : Path
        ``splits/<split>`` of a run.
    methods : list of dict

    Returns
    -------
    dict or None
        ``columns`` (list of (title, decimals), those with a number) and ``rows`` (list of dict ``label, values``):
        methods of the split in their order, then others. Several rows of one method, e.g. folds, are averaged.
        None where there is no such file or nothing in it.
    """
    table = next((t for place in (folder, folder.parents[1]) if len(t := read_csv(place / "costs.csv"))), None)
    if table is None or "method" not in table:
        return None
    values = table[[c for c in COSTS if c in table]].apply(pd.to_numeric, errors="coerce")
    values = values.dropna(axis=1, how="all").groupby(table["method"], sort=False).mean().dropna(how="all")
    if values.empty:
        return None
    labels = {m["name"]: m["label"] for m in methods}
    order = [name for name in labels if name in values.index]
    order += [name for name in values.index if name not in labels]
    return {
        "columns": [COSTS[str(c)] for c in values],
        "rows": [
            {"label": labels.get(name, name), "values": [number(v) for v in values.loc[name].tolist()]}
            for name in order
        ],
    }


def dependence_facts(tasks: Facts, methods: list[Facts], lead: str) -> Facts:
    """Rank correlation of a method's AUROC with the size and the balance of the tasks.

    Parameters
    ----------
    tasks : dict
        Columns of the page, as from `report.results.task_columns`.
    methods : list of dict
    lead : str
        Method that is read out.

    Returns
    -------
    dict
        ``of``: method -> {``labels``, ``share``: Spearman's rho or None, ``n`` tasks}; ``told``: a sentence, or ''.
    """
    active, inactive = (np.array(tasks[k], dtype=np.float64) for k in ("n_active", "n_inactive"))
    with np.errstate(invalid="ignore", divide="ignore"):
        size, share = active + inactive, active / (active + inactive)
    of = {}
    for name, values in tasks["values"].items():
        auroc = np.array(values["auroc"], dtype=np.float64)
        known = ~np.isnan(auroc) & ~np.isnan(share)
        of[name] = {"n": int(known.sum())} | {
            what: _spearman(auroc[known], x[known]) for what, x in (("labels", size), ("share", share))
        }
    label = next((m["label"] for m in methods if m["name"] == lead), lead)
    mine = of.get(lead, {})
    if mine.get("labels") is None or mine.get("share") is None:
        return {"of": of, "told": ""}
    told = (
        f"The AUROC of {label} {_goes(mine['labels'], 'the number of labels')} and "
        f"{_goes(mine['share'], 'the share of actives')}, over {mine['n']:,} tasks."
    )
    return {"of": of, "told": told}


def _goes(rho: float, what: str) -> str:
    way = "hardly depends on" if abs(rho) < _HARDLY else "rises with" if rho > 0 else "falls with"
    return f"{way} {what} (Spearman’s ρ {rho:+.2f})".replace("-", "−")


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < _FEWEST or not np.ptp(a) or not np.ptp(b):
        return None
    return number(spearmanr(a, b)[0])
