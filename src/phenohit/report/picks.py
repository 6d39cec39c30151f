"""What was picked for each task, with drawings."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from phenohit.chem.draw import draw
from phenohit.evaluate.reading import READINGS
from phenohit.files import read_json, read_table
from phenohit.report.tables import number

__all__ = ["DRAWN", "hits_facts"]

DRAWN = 60  # picks drawn per task; all are in hits.csv
FIRST = 12  # of these, cards that are open from the start
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
        ``task, n_candidates, n_picked, first`` and ``more`` (cards), ``files, trust, notes, warnings``;
        most predictable task first.
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
                "n_pains": number(summary.get("n_pains")),
                "n_actives": number(summary.get("n_known_actives")),
            }
        )
    return sorted(found, key=lambda hit: -(hit["trust"].get("auroc") or 0.0))


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
        card["pains"] = pains[i] or "none"
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
