"""What was picked for each task, with drawings."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import yaml

from phenohit.chem.draw import draw
from phenohit.evaluate.reading import READINGS
from phenohit.files import read_json, read_table
from phenohit.report.gallery import add_galleries
from phenohit.report.tables import number, read_csv, records

__all__ = ["DRAWN", "hits_facts", "replaceable_facts", "reviews_facts"]

DRAWN = 60  # picks drawn per task; all are in hits.csv
FIRST = 12  # of these, cards that are open from the start
SHOWN = 50  # rows of replaceable.csv set into the page
_NUMBERS = (
    "auroc", "auroc_low", "auroc_high", "chance_high", "cell_count_auroc", "plate_auroc", "n_active", "n_inactive",
)  # fmt: skip
_FILES = {
    "hits.csv": "the ranking with all picks",
    "hits.sdf": "the picks with structures",
    "hits.parquet": "every candidate, for scripts",
    "picklist.csv": "pick list, generic",
    "echo.csv": "pick list for Echo liquid handlers",
}


def hits_facts(folder: Path, split: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Gather the picks of every task.

    Parameters
    ----------
    folder : Path
        The run folder; reads ``hits/<task>/hits.parquet`` and ``summary.json``.
    split : dict, optional
        Facts of the first split, from which the task's own AUROC and reading are quoted.

    Returns
    -------
    list of dict
        ``task, n_candidates, n_picked, first`` and ``more`` (cards), ``files, trust, notes, warnings``, ``recipe``
        (in words), ``filters`` (``title, n, alone, unknown`` of each in use) and ``gallery``; most predictable task
        first.
    """
    found = []
    plan = read_json(folder / "hits" / "plan.json") if (folder / "hits" / "plan.json").is_file() else {}
    for path in sorted((folder / "hits").glob("*/hits.parquet")):
        table, _ = read_table(path)
        summary = read_json(path.with_name("summary.json")) if path.with_name("summary.json").is_file() else {}
        task = str(summary.get("task") or (table["task"].iloc[0] if len(table) else path.parent.name))
        picked = table[table["picked"].astype(bool)].sort_values("rank")
        cards = _cards(picked.head(DRAWN))
        method = str(summary.get("method") or plan.get("method") or "")
        found.append(
            {
                "task": task,
                "slug": path.parent.name,
                "n_candidates": len(table),
                "n_picked": len(picked),
                "n_clusters": int(picked["cluster"].nunique()),
                "first": cards[:FIRST],
                "more": cards[FIRST:],
                "n_new": _scaffold(picked).count("new"),
                "files": _files(path.parent),
                "trust": _trust(task, method, split),
                "notes": [str(note) for note in summary.get("notes", [])],
                "warnings": [str(note) for note in summary.get("warnings", [])],
                "recipe": _recipe(summary),
                "filters": [_filter(one) for one in summary.get("filters", [])],
                "n_pains": number(summary.get("n_pains")),
                "n_actives": number(summary.get("n_known_actives")),
            }
        )
    found.sort(key=lambda hit: -(hit["trust"].get("auroc") or 0.0))
    add_galleries(folder, found)
    return found


def replaceable_facts(folder: Path) -> dict[str, Any] | None:
    """Gather the tasks that images could stand in for, from ``replaceable.csv``; None where there is no such file.

    Returns
    -------
    dict or None
        ``bar`` (what the lower end of the interval had to exceed; None if not known) and ``rows``: dicts with
        ``task, method, auroc, auroc_low, auroc_high, chance_high, cell_count_auroc, plate_auroc, n_active,
        n_inactive, reading, tone``; ``more``: rows not among these.
    """
    path = folder / "replaceable.csv"
    if not path.is_file():
        return None
    table = read_csv(path)
    tones = {reading["name"]: reading["tone"] for reading in READINGS}
    rows = [
        {
            "task": row["task"],
            "method": row["method"],
            "reading": row["reading"],
            "tone": tones.get(row["reading"], "none"),
        }
        | {name: number(row[name]) for name in _NUMBERS}
        for row in records(table.head(SHOWN))
    ]
    return {"bar": _bar(folder), "rows": rows, "more": max(0, len(table) - SHOWN)}


def reviews_facts(folder: Path) -> list[dict[str, Any]]:
    """List the reviews of measured picks that the run folder holds.

    Returns
    -------
    list of dict
        ``task``, ``href`` (relative to the report), ``hits`` and ``tested`` (compounds of the headline; 0 tested:
        none that was new) and ``what`` these are.
    """
    found = []
    for page in sorted((folder / "review").glob("*/review.html")):
        path = page.with_name("review.json")
        facts = read_json(path) if path.is_file() else {}
        head = (facts.get("groups") or {}).get(facts.get("headline")) or {}
        found.append(
            {
                "task": str(facts.get("task") or page.parent.name),
                "href": f"review/{quote(page.parent.name)}/{page.name}",
                "hits": number(head.get("hits")) or 0,
                "tested": number(head.get("tested")) or 0,
                "what": str(head.get("what") or ""),
            }
        )
    return found


def _bar(folder: Path) -> float | None:
    """Return `hits.replaceable` of the run's settings."""
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return number(settings["hits"]["replaceable"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None


def _filter(one: dict[str, Any]) -> dict[str, Any]:
    """One filter's counts, from the summary."""
    return {"title": str(one.get("title", ""))} | {k: number(one.get(k)) or 0 for k in ("n", "alone", "unknown")}


def _recipe(summary: dict[str, Any]) -> str:
    """Say how the picks were chosen; '' where the summary does not tell."""
    settings = summary.get("settings") or {}
    name = str(settings.get("recipe") or "")
    if "recipe" not in settings:
        return ""
    bar, cap = number(settings.get("min_score")), number(settings.get("per_cluster"))
    parts = ["every candidate" if bar is None else f"candidates that score at least {bar:g}"]
    parts.append("filtered as below" if summary.get("filters") else "unfiltered")
    capped = cap is not None and cap < (number(settings.get("n")) or 0)
    parts.append(f"at most {cap:.0f} of each cluster, drawn at random" if capped else "the highest of the ranking")
    return (f"Recipe “{name}”: " if name else "") + ", ".join(parts) + "."


def _files(folder: Path) -> list[dict[str, str]]:
    """Links to the files beside the report; relative, so that the folder can be moved as a whole."""
    return [
        {"name": name, "what": what, "href": f"hits/{quote(folder.name)}/{name}"}
        for name, what in _FILES.items()
        if (folder / name).is_file()
    ]


def _scaffold(table: pd.DataFrame) -> list[str]:
    """Whether each scaffold occurs among known actives: 'new', 'known', or '–' where that is not known."""
    if "new_scaffold" not in table:
        return ["–"] * len(table)
    return ["–" if pd.isna(value) else ("new" if value else "known") for value in table["new_scaffold"]]


def _text(table: pd.DataFrame, column: str) -> list[str]:
    if column not in table:
        return [""] * len(table)
    return table[column].astype(object).where(table[column].notna(), "").astype(str).tolist()


def _cards(picked: pd.DataFrame) -> list[dict[str, Any]]:
    """One dict per pick, ready for the page."""
    size = (190, 130)
    structures = draw(_text(picked, "smiles"), size=size)
    nearest = draw(_text(picked, "nearest_active_smiles"), size=size)
    pains = _text(picked, "pains")
    off = picked["off_target_score"].map(number).tolist() if "off_target_score" in picked else [None] * len(picked)
    columns = {
        name: _text(picked, name) for name in ("compound_id", "compound", "nearest_active", "reason", "plate", "well")
    }
    scaffold = _scaffold(picked)
    cards = []
    for i, (_, row) in enumerate(picked.iterrows()):
        card = {name: values[i] for name, values in columns.items()}
        card |= {
            name: number(row.get(name)) for name in ("rank", "score", "percentile", "cluster", "nearest_similarity")
        }
        card |= {"structure": structures[i], "nearest_structure": nearest[i], "scaffold": scaffold[i]}
        card["id"] = card["compound_id"] or card["compound"]
        card["views"] = None  # pictures, where the run has images
        card["pains"] = pains[i] or "none"
        card["off_target"] = off[i]
        card["place"] = " ".join(part for part in (card["plate"], card["well"]) if part)
        cards.append(card)
    return cards


def _trust(task: str, method: str, split: dict[str, Any] | None) -> dict[str, Any]:
    """How well the ranking's own task was predicted in cross-validation."""
    if split is None or task not in split["tasks"]["task"]:
        return {}
    columns = split["tasks"]
    name = method if method in columns["values"] else split["lead"]
    if name not in columns["values"]:
        return {}
    i, values = columns["task"].index(task), columns["values"][name]
    label = next(m["label"] for m in split["methods"] if m["name"] == name)
    found = {key: values[key][i] for key in ("auroc", "auroc_low", "auroc_high", "chance_high") if key in values}
    if name in columns["readings"]:
        found["reading"] = READINGS[columns["readings"][name][i]]
    return found | {"method": label, "n_active": columns["n_active"][i], "n_inactive": columns["n_inactive"][i]}
