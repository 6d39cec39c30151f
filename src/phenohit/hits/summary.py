"""What happened on the way to a hit list: counts for machines, notes for readers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.labels import Labels
from phenohit.hits.export import CSV_ROWS, neutralise
from phenohit.hits.filter import NO_STRUCTURE, NOT_CHECKED, NOT_KNOWN, TITLES, rejected
from phenohit.hits.recipes import Recipe

__all__ = ["counted", "notes"]


def counted(
    table: pd.DataFrame,
    labels: Labels,
    task: str,
    recipe: Recipe,
    passed: NDArray[np.bool_],
    echo: pd.DataFrame,
) -> dict[str, Any]:
    """Count what happened.

    Parameters
    ----------
    table : DataFrame
        The hit table, with the columns of the filters.
    labels : Labels
    task : str
    recipe : Recipe
    passed : bool array
        Rows of `table` that were clustered.
    echo : DataFrame
        Transfers.

    Returns
    -------
    dict
        Plain values; ``filters`` holds one dict per filter: ``name, title, n`` (compounds it speaks against),
        ``alone`` (that no other filter in use speaks against) and ``unknown`` (that it could not judge).
    """
    picked = table[table["picked"]]
    sizes = picked["cluster"].value_counts()
    checked = table["pains"] != NOT_CHECKED
    touched = {
        side: echo[f"{side} Plate Barcode"].value_counts().sort_index().to_dict() for side in ("Source", "Destination")
    }
    bar = recipe.min_score
    return {
        "task": task,
        "assay": str(labels.tasks["assay"].iloc[labels.task_names.index(task)]),
        "settings": recipe.settings,
        "n_candidates": len(table),
        "n_below_bar": 0 if bar is None else int((table["score"] < bar).sum()),
        "highest_score": table["score"].max() if len(table) else None,
        "n_checked": int(checked.sum()),
        "n_pains": int(rejected(table["pains"].to_numpy(dtype=object)).sum()),
        "filters": _filters(table, recipe),
        "n_pool": int(passed.sum()),
        "n_pool_clusters": table["cluster"][passed].nunique(),
        "n_asked": recipe.n,
        "n_picked": len(picked),
        "n_picked_clusters": len(sizes),
        "n_no_structure": int((picked["smiles"] == "").sum()),
        "n_new_scaffold": int(sum(v is True for v in picked["new_scaffold"])),
        "n_with_scaffold": int((picked["scaffold"] != "").sum()),
        "lowest_score": picked["score"].min() if len(picked) else None,
        "most_of_one_cluster": int(sizes.max()) if len(sizes) else 0,
        "cap_lifted": bool(len(sizes) and sizes.max() > recipe.per_cluster),
        "source_plates": touched["Source"],
        "destination_plates": touched["Destination"],
    }


def _filters(table: pd.DataFrame, recipe: Recipe) -> list[dict[str, Any]]:
    """Count what each filter found."""
    found = {name: table[name].to_numpy(dtype=object) for name in recipe.filters}
    against = {name: rejected(texts) for name, texts in found.items()}
    total = sum((mask.astype(int) for mask in against.values()), np.zeros(len(table), dtype=int))
    return [
        {
            "name": name,
            "title": TITLES.get(name, name) + (f" ({recipe.cns})" if name == "cns" else ""),
            "n": int(mask.sum()),
            "alone": int((mask & (total == 1)).sum()),
            "unknown": int(np.isin(found[name], [NO_STRUCTURE, NOT_KNOWN]).sum()),
        }
        for name, mask in against.items()
    ]


def notes(summary: dict[str, Any], echo: pd.DataFrame, from_store: bool) -> list[str]:
    """Say in words what a reader of the list should know."""
    out = []
    asked, picked, cap = summary["n_asked"], summary["n_picked"], summary["settings"]["per_cluster"]
    bar = summary["settings"]["min_score"]
    if bar is not None:
        above = summary["n_candidates"] - summary["n_below_bar"]
        highest = summary["highest_score"]
        out.append(
            f"{above:,} of {summary['n_candidates']:,} candidates score at least {bar:g}"
            + (f"; the highest score is {highest:.2f}." if not above and highest is not None else ".")
        )
    if picked < asked:
        held = not summary["settings"]["fill"] and summary["n_pool"] > picked
        why = f"each cluster gave {cap} at most" if held else "no more candidates passed the filters"
        out.append(f"Only {picked} of {asked} compounds could be picked: {why}.")
    if summary["cap_lifted"]:
        out.append(
            f"The clusters ran out before {asked} compounds were picked, so the cap of {cap} per cluster was lifted; "
            f"the most from one cluster is {summary['most_of_one_cluster']}."
        )
    out += [
        f"{one['unknown']:,} of the compounds checked were measured in too few assays to tell frequent hitters."
        for one in summary["filters"]
        if one["name"] == "promiscuous" and one["unknown"]
    ]
    if summary["n_no_structure"]:
        out.append(f"{summary['n_no_structure']} picks have no structure: alerts and similarity could not be checked.")
    if summary["n_without_source"]:
        out.append(f"{summary['n_without_source']} picks have no source well and are not in the pick lists.")
    if len(echo) and not from_store:
        out.append(
            "Source wells are those of the imaged plates: replace them by the compound store's own where these differ."
        )
    if not neutralise(echo).equals(echo):
        out.append("Plate names that a spreadsheet would run as a formula carry an apostrophe in the CSV files.")
    out.append(f"hits.csv holds the top {CSV_ROWS * asked:,} of the ranking and all picks; hits.parquet holds all.")
    return out
