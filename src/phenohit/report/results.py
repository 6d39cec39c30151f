"""The results of one split: leak check, methods and tasks, as plain values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from phenohit.evaluate.reading import read_tasks
from phenohit.evaluate.splits import TEST, TRAIN, UNUSED, VALID, Folds
from phenohit.files import read_json, read_table
from phenohit.report.comparison import comparison_facts
from phenohit.report.enrichment import enrichment_facts
from phenohit.report.methods import kind_of, label_of
from phenohit.report.paired import cost_facts, dependence_facts, matrix_facts, roc_facts
from phenohit.report.reliability import reliability_facts
from phenohit.report.tables import number, read_csv

__all__ = ["LEVELS", "METRICS", "split_facts"]

LEVELS = ("0.9", "0.8", "0.7")
DETAIL = 180  # characters of a leak's offenders set into the page; leaks.csv has all
# Columns of metrics.parquet that travel into the page, and the decimals they keep there.
METRICS = {
    "auroc": 4,
    "auroc_low": 3,
    "auroc_high": 3,
    "chance_low": 3,
    "chance_high": 3,
    "average_precision": 3,
    "delta_auprc": 3,
    "riptop_auprc": 3,
    "f1": 3,
    "balanced_accuracy": 3,
    "adjusted_balanced_accuracy": 3,
    "kappa": 3,
    "n_folds": 0,
}
_ORDER = {"image": 0, "chemistry": 1, "baseline": 2}


def split_facts(folder: Path, *, images: bool = True) -> dict[str, Any]:
    """Gather what one split folder holds.

    Parameters
    ----------
    folder : Path
        ``splits/<split>`` of a run.
    images : bool, default True
        Whether the profiles come from images.

    Returns
    -------
    dict
        ``name, folder, kind, folds, leaks, methods`` (list, best first within its kind), ``tasks`` (columns for
        the page), ``lead`` (the method read out: best mean AUROC among images, else chemistry), ``reliability`` (of the
        probabilities; None where it was not computed), ``enrichment`` (of a replayed campaign; likewise),
        ``comparison`` (of the sets of assays; likewise); ``compare``, ``matrix``, ``roc``, ``costs``, ``dependence``
        (see `report.paired`); ``repeats`` (of hold-outs drawn anew; None for folds).
    """
    folds = _folds(folder / "folds.parquet")
    metrics = _metrics(folder / "metrics.parquet")
    summary = read_json(folder / "summary.json") if (folder / "summary.json").is_file() else {}
    methods = _methods(metrics, summary, images)
    lead = _lead(methods)
    tasks = task_columns(metrics, methods, lead)
    return {
        "name": str(metrics["split"].iloc[0]) if len(metrics) and "split" in metrics else folder.name,
        "kind": folds["kind"],
        "folder": quote(folder.name),
        "folds": folds,
        "leaks": leak_facts(folder / "leaks.csv"),
        "methods": methods,
        "lead": lead,
        "confidence": next((number(s.get("confidence")) for s in summary.values()), None) or 0.95,
        "repeats": _repeats(metrics, methods, folds["n_folds"]),
        "compare": _compare(folder / "compare.csv", methods),
        "matrix": matrix_facts(folder / "compare.csv", methods),
        "roc": roc_facts(folder / "roc_tests.csv", methods, tasks["task"]),
        "costs": cost_facts(folder, methods),
        "dependence": dependence_facts(tasks, methods, lead),
        "reliability": reliability_facts(folder / "calibration.parquet", methods, lead),
        "enrichment": enrichment_facts(folder / "enrichment.parquet", methods, lead),
        "comparison": comparison_facts(folder / "agreement.json", methods),
        "tasks": tasks,
    }


def leak_facts(path: Path) -> list[dict[str, Any]]:
    """One row per check over all folds, its worst value first read; the rows of each fold below it.

    Returns
    -------
    list of dict
        ``check``, ``state`` ('pass', 'fail', 'information'), ``value`` (range over folds as text),
        ``n``, ``failed`` (folds), ``folds`` (number), ``detail`` (of the first failed fold, else first;
        cut to `DETAIL` characters).
    """
    table = read_csv(path)
    rows = []
    for check, part in table.groupby("check", sort=False) if not table.empty else []:
        passed = part["passed"].str.strip().str.lower().map({"true": True, "1": True, "false": False, "0": False})
        failed = (passed == False).to_numpy()  # noqa: E712  (None is information, neither passed nor failed)
        state = "fail" if failed.any() else ("information" if passed.isna().all() else "pass")
        first = int(np.argmax(failed)) if failed.any() else 0
        detail = part["detail"].fillna("")
        shown = detail.iloc[first] or next((d for d in detail if d), "")
        shown = shown if len(shown) <= DETAIL else shown[: DETAIL - 1].rstrip() + "…"
        rows.append(
            {
                "check": check,
                "state": state,
                "value": _range(part["value"]),
                "folds": len(part),
                "failed": int(failed.sum()),
                "n": int(pd.to_numeric(part["n"], errors="coerce").fillna(0).sum()),
                "detail": shown,
            }
        )
    return sorted(rows, key=lambda row: {"fail": 0, "pass": 1, "information": 2}[row["state"]])


def _range(values: pd.Series) -> str:
    """Smallest to largest value over folds."""
    numbers = pd.to_numeric(values, errors="coerce").dropna()
    if numbers.empty:
        return ""
    low, high = (f"{v:,.0f}" if float(v).is_integer() else f"{v:.3f}" for v in (numbers.min(), numbers.max()))
    return low if low == high else f"{low} to {high}"


def _folds(path: Path) -> dict[str, Any]:
    """Sizes of the parts of every fold, in rows."""
    if not path.is_file():
        return {"kind": "", "sizes": [], "n": 0, "n_folds": 0}
    folds = Folds.load(path)
    sizes = []
    for s, name in enumerate(folds.names):
        count = np.bincount(folds.part[:, s], minlength=4)
        parts = {"train": TRAIN, "validation": VALID, "test": TEST, "unused": UNUSED}
        sizes.append({"name": str(name)} | {part: int(count[code]) for part, code in parts.items()})
    return {"kind": str(folds.kind), "sizes": sizes, "n": len(folds.part), "n_folds": len(set(folds.fold))}


def _metrics(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame(
            columns=["method", "model", "input", "task", "assay", "threshold", "n_active", "n_inactive"]
        )
    table, _ = read_table(path)
    return table


def _methods(metrics: pd.DataFrame, summary: dict[str, Any], images: bool) -> list[dict[str, Any]]:
    """Every method with its counts; best mean AUROC first within its kind."""
    found = []
    for name, part in metrics.groupby("method", sort=False):
        model, source = str(part["model"].iloc[0]), str(part["input"].iloc[0])
        auroc = part["auroc"].to_numpy(dtype=np.float64)
        given = summary.get(name, {})
        mean = number(given.get("auroc_mean"))
        if mean is None and np.isfinite(auroc).any():
            mean = float(np.nanmean(auroc))
        counts, simm = given.get("above", {}), given.get("simm", {})
        found.append(
            {
                "name": str(name),
                "label": label_of(model, source),
                "kind": (kind := kind_of(source, images=images)),
                "rank": _ORDER[kind],
                "input": source,
                "n_tasks": int(np.isfinite(auroc).sum()),
                "n_undefined": int(np.isnan(auroc).sum()),
                "mean": mean,
                "sd": number(given.get("auroc_sd")),
                "low": number(given.get("auroc_mean_low")),
                "high": number(given.get("auroc_mean_high")),
                **_f1(part),
                "counts": [_count(counts.get(level), int(np.nansum(auroc > float(level)))) for level in LEVELS],
                "beyond": _count(given.get("beyond_chance")),
                "n_assays": number(simm.get("n_assays")),
                "simm": [_count(simm.get("high")), _count(simm.get("moderate"))],
                "simm_min": simm.get("minimum", 25),
            }
        )
    return sorted(found, key=lambda m: (m["rank"], -(m["mean"] if m["mean"] is not None else -1.0)))


def _f1(part: pd.DataFrame) -> dict[str, float | None]:
    """Mean F1 score over tasks, and its standard deviation."""
    values = part["f1"].dropna().to_numpy(np.float64) if "f1" in part else np.zeros(0)
    mean, sd = values.mean() if len(values) else None, values.std(ddof=1) if len(values) > 1 else None
    return {"f1": number(mean), "f1_sd": number(sd)}


def _repeats(metrics: pd.DataFrame, methods: list[dict[str, Any]], n: int) -> dict[str, Any] | None:
    """Say how often a hold-out was drawn, and of which repeat every method's intervals are."""
    if "interval_repeat" not in metrics:
        return None
    of = metrics.groupby("method", sort=False)["interval_repeat"].first()
    return {"n": n, "median": [{"label": m["label"], "repeat": int(of[m["name"]])} for m in methods]}


def _count(given: dict[str, Any] | None, observed: int | None = None) -> dict[str, float | None]:
    """Return a count with what chance gives; `observed` stands in where the summary has none."""
    given = given or {}
    found = {key: number(given.get(key)) for key in ("count", "expected", "low", "high")}
    if found["count"] is None:
        found["count"] = observed
    return found


def _lead(methods: list[dict[str, Any]]) -> str:
    """Choose the method that is read out. One for the whole split: the best of each task would favour luck."""
    for kind in ("image", "chemistry", "baseline"):
        for method in methods:
            if method["kind"] == kind:
                return str(method["name"])
    return ""


def _best(methods: list[dict[str, Any]], **having: str) -> str:
    """Return the first, hence best, method with the given properties; '' if there is none."""
    return next((str(m["name"]) for m in methods if all(m[k] == v for k, v in having.items())), "")


def task_columns(metrics: pd.DataFrame, methods: list[dict[str, Any]], lead: str) -> dict[str, Any]:
    """Columns of the per-task table, T values each; undefined values are None.

    Returns
    -------
    dict
        ``task, assay, threshold, n_active, n_inactive`` (lists), ``values``: method -> metric -> list,
        ``readings``: method -> list of codes for every method that is no baseline; ``chemistry``,
        ``cell_count``, ``plate``: names of the methods compared with, '' where absent.
    """
    tasks = metrics.drop_duplicates("task").reset_index(drop=True)
    index = pd.Index(tasks["task"])
    tables = {m["name"]: metrics[metrics["method"] == m["name"]].set_index("task").reindex(index) for m in methods}
    marks = {
        "chemistry": _best([m for m in methods if m["name"] != lead], kind="chemistry"),
        "cell_count": _best(methods, input="cell_count"),
        "plate": _best(methods, input="plate"),
    }
    cell, plate = tables.get(marks["cell_count"]), tables.get(marks["plate"])
    readings = {
        m["name"]: read_tasks(tables[m["name"]], cell, plate).tolist()
        for m in methods
        if m["kind"] != "baseline" or m["name"] == lead
    }
    return {
        "task": tasks["task"].astype(str).tolist(),
        "assay": tasks["assay"].astype(str).tolist(),
        "threshold": _rounded(tasks["threshold"], 4),
        "n_active": _rounded(tasks["n_active"], 0),
        "n_inactive": _rounded(tasks["n_inactive"], 0),
        "values": {
            name: {metric: _rounded(table[metric], digits) for metric, digits in METRICS.items() if metric in table}
            for name, table in tables.items()
        },
        "readings": readings,
        **marks,
    }


def _rounded(column: pd.Series, digits: int) -> list[float | int | None]:
    """Values for JSON: rounded, None where not finite."""
    numbers = [float(v) for v in np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)]
    if digits == 0:
        return [int(v) if math.isfinite(v) else None for v in numbers]
    return [round(v, digits) if math.isfinite(v) else None for v in numbers]


def _compare(path: Path, methods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paired comparisons as `evaluate.compare` wrote them, each pair once: the better method first."""
    labels = {m["name"]: m["label"] for m in methods}
    order = {m["name"]: i for i, m in enumerate(methods)}
    rows = []
    for row in read_csv(path).to_dict("records"):
        difference = number(row.get("mean_difference"))
        method, other = str(row.get("method", "")), str(row.get("other", ""))
        tie = difference == 0 and order.get(method, 0) < order.get(other, 0)
        if difference is None or not (difference > 0 or tie):
            continue
        columns = ("n_tasks", "share_better", "p_value", "p_holm", "pearson_r")
        rows.append(
            {
                "method": labels.get(method, method),
                "other": labels.get(other, other),
                "difference": difference,
                "place": (order.get(method, 99), order.get(other, 99)),
            }
            | {column: number(row.get(column)) for column in columns}
        )
    return sorted(rows, key=lambda row: row["place"])
