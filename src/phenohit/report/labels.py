"""How full the label matrix is, what became of every record, and which tasks repeat each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.files import read_table
from phenohit.labels.overlap import near_duplicates
from phenohit.report.tables import number

__all__ = ["PAIRS_SHOWN", "labels_facts"]

PAIRS_SHOWN = 25
_RANKS = 400  # steps of the drawing of labels per task
_GROUPS = 8  # rows of each small table; rarer ones are counted together
_SOURCES = 12  # sources whose records are traced one by one
_SHARES = 20
_REPEATS = 10  # so many measurements or more are one bar
_LEVELS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # first number of each bar
_USES = {
    "value": "exact value, averaged with its repeats",
    "value and comment": "exact value, and a vote by its comment",
    "bound": "bound that settles a threshold",
    "bound and comment": "bound that settles a threshold, and a vote by its comment",
    "comment": "vote by its comment",
    "kept": "used",
    "used": "used",
}
_WORDS = {
    "kind": {
        "binary": "active / inactive as given",
        "threshold": "value at or above a threshold",
        "comment": "the record's comment",
        "value": "number (regression)",
    },
    "assay_type": {  # the letters are ChEMBL's
        "B": "B: binding", "F": "F: functional", "A": "A: ADME", "T": "T: toxicity", "P": "P: physicochemical",
        "U": "U: unclassified",
    },
}  # fmt: skip


def labels_facts(folder: Path) -> dict[str, Any] | None:
    """Gather what the section on labels shows.

    Parameters
    ----------
    folder : Path
        The run folder: ``statistics/*.parquet`` from `phenohit.labels.overlap.label_statistics` and
        ``fates.parquet`` beside them (or ``labels.fates.csv``), ``tasks.overlap.parquet``,
        ``labels.tasks.parquet``.

    Returns
    -------
    dict or None
        None without statistics. Keys ``told``, ``tiles``, ``sizes`` (labels per task), ``shares`` (active share
        per task), ``repeats``, ``compounds``, ``groups`` (tasks by kind and so on), ``flows`` (fates per
        source), ``n_flows``, ``overlap``.

    Raises
    ------
    FileError
        If a table is damaged.
    """
    tasks = _table(folder / "statistics" / "tasks.parquet")
    fates, overlap = _fates(folder), _table(folder / "tasks.overlap.parquet")
    if not (folder / "statistics").is_dir():
        return None
    matrix, repeats = (
        _table(folder / "statistics" / "matrix.parquet"),
        _table(folder / "statistics" / "repeats.parquet"),
    )
    per_compound = _table(folder / "statistics" / "per_compound.parquet")
    about = _table(folder / "labels.tasks.parquet")
    flows = _flows(fates)
    facts = {
        "sizes": _sizes(tasks),
        "shares": _shares(tasks),
        "repeats": _repeats(repeats),
        "compounds": _per_compound(per_compound),
        "groups": _groups(tasks if about is None else about),
        "flows": flows[:_SOURCES],
        "n_flows": len(flows),
        "overlap": _overlap(overlap),
    }
    return facts | {"told": _told(facts, matrix), "tiles": _tiles(facts, matrix)}


def _table(path: Path) -> pd.DataFrame | None:
    return read_table(path)[0] if path.is_file() else None


def _fates(folder: Path) -> pd.DataFrame | None:
    """Read the records per source and rule: columns source, fate, used, reason, n."""
    table = _table(folder / "statistics" / "fates.parquet")
    if table is None and (folder / "labels.fates.csv").is_file():
        table = pd.read_csv(folder / "labels.fates.csv", keep_default_na=False)
    if table is None or not len(table):
        return None
    table = table.rename(columns={"rule": "fate"})
    if "used" not in table:
        table["used"] = table["fate"].astype(str).isin(list(_USES))
    if "reason" not in table:
        table["reason"] = table["fate"].astype(str).map(_USES).fillna("")
    table["used"] = table["used"].astype(str).str.lower().isin(["true", "1"])
    return table.assign(n=table["n"].astype(int))


def _told(facts: dict[str, Any], matrix: pd.DataFrame | None) -> list[str]:
    told = []
    if matrix is not None and len(matrix):
        row = matrix.iloc[0]
        filled = 1 - float(row["missing"])
        told.append(
            f"{int(row['n_labels']):,} labels on {int(row['n_compounds']):,} compounds and "
            f"{int(row['n_tasks']):,} tasks: "
            f"{_share(filled)} of the matrix is measured, {_share(float(row['active']))} is active."
        )
    sizes, shares = facts["sizes"], facts["shares"]
    if sizes:
        text = f"Half of the tasks have {sizes['median']:,.0f} labels or more; the largest has {sizes['largest']:,}"
        text += f", the smallest {sizes['smallest']:,}."
        if shares:
            text += f" In the median task {shares['median']:.0%} of the labels are active."
        told.append(text)
    return told


def _share(value: float) -> str:
    """Write a share; small ones with more digits."""
    return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}" if value >= 0.001 else f"{value:.2g}"


def _tiles(facts: dict[str, Any], matrix: pd.DataFrame | None) -> list[dict[str, str]]:
    tiles = []

    def add(value: str, label: str, note: str) -> None:
        tiles.append({"value": value, "label": label, "note": note})

    sizes, shares = facts["sizes"], facts["shares"]
    if sizes:
        add(f"{sizes['median']:,.0f}", "labels in the median task", f"{sizes['smallest']:,} to {sizes['largest']:,}")
    if shares:
        note = f"{shares['n_rare']:,} of {shares['n_tasks']:,} tasks are below 5%"
        add(f"{shares['median']:.0%}", "active in the median task", note)
    if matrix is not None and len(matrix):
        add(_share(1 - float(matrix.iloc[0]["missing"])), "of the matrix is measured", "compounds with a label × tasks")
    if facts["repeats"]:
        found = facts["repeats"]
        add(
            f"{found['several']:.0%}", "of pairs were measured repeatedly", f"{found['n_pairs']:,} compound–assay pairs"
        )
    if facts["overlap"]:
        found = facts["overlap"]
        add(f"{found['n_alike']:,}", "pairs of near-duplicate tasks", f"of {found['n']:,} pairs that share compounds")
    return tiles


def _sizes(tasks: pd.DataFrame | None) -> dict[str, Any] | None:
    """Labels per task, largest first; many tasks are put together in groups of neighbours."""
    if tasks is None or not len(tasks):
        return None
    table = tasks.sort_values("n_labels", ascending=False, kind="stable")
    n, active = table["n_labels"].to_numpy(dtype=np.float64), table["n_active"].to_numpy(dtype=np.float64)
    values = (table["kind"] == "value").to_numpy() if "kind" in table else np.zeros(len(table), dtype=bool)
    active = np.where(values, 0.0, active)
    parts = np.array_split(np.arange(len(n)), min(len(n), _RANKS))
    return {
        "n": [float(np.median(n[p])) for p in parts],
        "active": [float(np.median(active[p])) for p in parts],
        "total": len(n),
        "median": float(np.median(n)),
        "largest": int(n[0]),
        "smallest": int(n[-1]),
        "largest_task": str(table["task"].iloc[0]),
    }


def _shares(tasks: pd.DataFrame | None) -> dict[str, Any] | None:
    if tasks is None:
        return None
    share = tasks["active_share"].to_numpy(dtype=np.float64)
    share = share[np.isfinite(share)]
    if not len(share):
        return None
    edges = np.linspace(0, 1, _SHARES + 1)
    n, _ = np.histogram(share, edges)
    texts = [f"{edges[i]:.0%} to {edges[i + 1]:.0%} active: {n[i]:,} tasks" for i in range(_SHARES)]
    median = float(np.median(share))
    return {
        "edges": edges.tolist(),
        "n": n.tolist(),
        "texts": texts,
        "lines": [(median, f"median {median:.0%}", True)],
        "median": median,
        "n_tasks": len(share),
        "n_rare": int((share < 0.05).sum()),
    }


def _repeats(table: pd.DataFrame | None) -> dict[str, Any] | None:
    """Measurements per compound and assay; spread in the log units of the values."""
    if table is None or not len(table):
        return None
    n = table["n"].to_numpy(dtype=np.int64)
    pairs, spread = table["n_pairs"].to_numpy(dtype=np.int64), table["mean_spread"].to_numpy(dtype=np.float64)
    counts, names, texts = [], [], []
    for k in range(1, min(int(n.max()), _REPEATS) + 1):
        here = n == k if k < _REPEATS else n >= k
        counts.append(int(pairs[here].sum()))
        names.append(f"{k}" if k < _REPEATS else f"{k}+")
        wide = (
            f"; on average {np.average(spread[here], weights=pairs[here]):.2f} log units apart"
            if k > 1 and counts[-1]
            else ""
        )
        texts.append(f"{names[-1]} measurement{'s' * (k > 1)}: {counts[-1]:,} pairs{wide}")
    several = n > 1
    apart = float(np.average(spread[several], weights=pairs[several])) if several.any() else None
    return {
        "names": names, "n": counts, "texts": texts, "n_pairs": int(pairs.sum()),
        "several": float(pairs[several].sum() / max(pairs.sum(), 1)), "apart": apart,
    }  # fmt: skip


def _per_compound(table: pd.DataFrame | None) -> dict[str, Any] | None:
    if table is None or not len(table):
        return None
    n, count = table["n_labels"].to_numpy(dtype=np.int64), table["n_compounds"].to_numpy(dtype=np.int64)
    starts = [s for s in _LEVELS if s <= n.max()]
    ends = [*starts[1:], max(_LEVELS[-1], int(n.max())) + 1 if starts[-1] == _LEVELS[-1] else _next(starts[-1])]
    names = [str(a) if b == a + 1 else f"{a}–{b - 1}" for a, b in zip(starts, ends, strict=True)]
    counts = [int(count[(n >= a) & (n < b)].sum()) for a, b in zip(starts, ends, strict=True)]
    labelled = n > 0
    return {
        "names": names,
        "n": counts,
        "texts": [f"{name} labels: {k:,} compounds" for name, k in zip(names, counts, strict=True)],
        "n_compounds": int(count.sum()),
        "without": int(count[~labelled].sum()),
        "median": _weighted_median(n[labelled], count[labelled]),
    }


def _next(level: int) -> int:
    return _LEVELS[_LEVELS.index(level) + 1]


def _weighted_median(values: NDArray[np.int64], weights: NDArray[np.int64]) -> int | None:
    if not weights.sum():
        return None
    order = np.argsort(values)
    return int(values[order][np.searchsorted(weights[order].cumsum(), weights.sum() / 2)])


def _groups(tasks: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Count tasks by kind, threshold, target type, assay type and source."""
    if tasks is None:
        return []
    found = []
    for column, title in (
        ("kind", "Kind of label"), ("threshold", "Threshold"), ("target_type", "Target type"),
        ("assay_type", "Assay type"), ("source", "Source"),
    ):  # fmt: skip
        if column not in tasks:
            continue
        texts = _names(tasks[column], column)
        counts = texts[texts != ""].value_counts()
        if not len(counts) or (len(counts) < 2 and column != "kind"):
            continue
        if column == "threshold" and len(counts) <= _GROUPS:  # numbers in their own order
            counts = counts.loc[sorted(counts.index, key=lambda name: float(str(name).removeprefix("≥ ")))]
        rows = [{"name": str(name), "n": int(n)} for name, n in counts.head(_GROUPS).items()]
        rest = counts.iloc[_GROUPS:]
        if len(rest):
            rows.append({"name": f"{len(rest):,} others", "n": int(rest.sum())})
        if (missing := int((texts == "").sum())) and column != "threshold":
            rows.append({"name": "not stated", "n": missing})
        found.append({"title": title, "rows": rows, "largest": max(row["n"] for row in rows)})
    return found


def _names(values: pd.Series, column: str) -> pd.Series:
    if column == "threshold":
        numbers = np.asarray(pd.to_numeric(values, errors="coerce"), dtype=np.float64)
        return pd.Series([f"≥ {v:g}" if np.isfinite(v) else "" for v in numbers], dtype=str)
    texts = values.fillna("").astype(str).reset_index(drop=True)
    if column in _WORDS:
        return texts.map(lambda text: _WORDS[column].get(text, text))
    return texts.str.replace("\\", "/").str.rsplit("/", n=1).str[-1] if column == "source" else texts


def _flows(fates: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Follow the records of every source: read, left out rule by rule, used; largest source first."""
    if fates is None:
        return []
    found = []
    for source, part in fates.groupby("source", sort=False):
        total = left = int(part["n"].sum())
        out = []
        for row in part[~part["used"]].to_dict("records"):
            left -= row["n"]
            out.append({"fate": str(row["fate"]), "reason": str(row["reason"]), "n": row["n"], "left": left})
        uses = part[part["used"]].to_dict("records")
        found.append(
            {
                "source": str(source).replace("\\", "/").rsplit("/", 1)[-1],
                "n": total,
                "out": out,
                "used": left,
                "uses": [{"fate": str(r["fate"]), "reason": str(r["reason"]), "n": r["n"]} for r in uses],
            }
        )
    return sorted(found, key=lambda flow: -flow["n"])


def _overlap(table: pd.DataFrame | None) -> dict[str, Any] | None:
    """Pairs of tasks that are most alike; thresholds of one assay are left aside where others are to be shown."""
    if table is None or not len(table):
        return None
    same = table["same_assay"].astype(bool)
    alike = near_duplicates(table)
    chosen = pd.concat([table[alike], table[~same & ~alike]]).head(PAIRS_SHOWN)
    numbers = ("n_a", "n_b", "n_both", "n_equal", "jaccard", "equal_share", "equal_jaccard", "hits_iou")
    rows = [
        {"a": str(row["task_a"]), "b": str(row["task_b"]), "alike": bool(alike[i])}
        | {name: number(row[name]) for name in numbers}
        for i, row in chosen.to_dict("index").items()
    ]
    return {"n": int((~same).sum()), "n_same": int(same.sum()), "n_alike": int(alike.sum()), "rows": rows}
