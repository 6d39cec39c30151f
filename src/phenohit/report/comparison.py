"""Which assays each method predicts: what ``agreement.json`` of a split says, ready to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.evaluate.agreement import UNITS, intersections, unit_of
from phenohit.files import read_json
from phenohit.report.tables import number
from phenohit.report.upset import COLUMNS, SETS, VENN_SETS, venn_counts

__all__ = ["NAMED", "comparison_facts"]

NAMED = 40  # assays of one intersection named in the table; assays.csv has all of them

_ENSEMBLES = {"all": "mean of ranks, all", "image": "mean of ranks, images", "chemistry": "mean of ranks, structures"}
_OF = {"all": "methods", "image": "methods on images", "chemistry": "methods on structures"}
_MOSTLY = 2 / 3  # share of what any method reaches, from which on all reach mostly the same
_PLURAL = {"assay": "assays", "task": "tasks"}


def comparison_facts(path: Path, methods: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Gather what ``agreement.json`` of one split says.

    Parameters
    ----------
    path : Path
    methods : list of dict
        The split's methods, as in `report.results.split_facts`.

    Returns
    -------
    dict or None
        ``methods`` (list of dict name, label, kind, counts: of every unit and level), ``shown`` and ``circles`` (names
        of those drawn first), ``joined`` (rows of unions and of what is common), ``sizes`` (items of each unit),
        ``unit`` (shown first), ``variants`` (list of dict unit, level, upset, venn, rows), ``pairs`` (rows of the
        matrix), ``ensembles``, ``told`` (sentences), ``page`` (what the script needs). None where the file is absent
        or fewer than two methods were run.
    """
    if not path.is_file():
        return None
    given = read_json(path)
    there = {m["name"] for m in given["methods"]}
    singles = [{key: m[key] for key in ("name", "label", "kind")} for m in methods if m["name"] in there]
    if len(singles) < 2:
        return None
    found = singles + [
        {"name": e["name"], "label": _ENSEMBLES.get(e["group"], e["name"]), "kind": "ensemble"}
        for e in given["ensembles"]
    ]
    tables = {unit: _table(given["items"][unit], [m["name"] for m in found]) for unit in UNITS}
    sets = {(s["unit"], s["above"]): s for s in given["sets"]}
    unit = unit_of(len(tables["assay"]), len(tables["task"]))
    shown, circles = _chosen(given["groups"]["all"], [m["name"] for m in singles])
    return {
        "simm_min": given["simm_min"],
        "methods": [
            m | {"counts": [_count(s, s["counts"][m["name"]], "union", 1) for s in sets.values()]} for m in found
        ],
        "shown": shown,
        "circles": circles,
        "sizes": {name: len(table) for name, table in tables.items()},
        "unit": unit,
        "joined": _joined(sets, given["groups"]),
        "variants": [_variant(tables[s["unit"]], s, found, shown, circles) for s in sets.values()],
        "pairs": _matrix(given["pairs"], singles),
        "ensembles": [_ensemble(e, found) for e in given["ensembles"]],
        "told": _told(sets, given, found, unit),
        "page": _page(tables, sets, found, shown, circles),
    }


def _table(items: dict[str, Any], names: list[str]) -> pd.DataFrame:
    """AUROC by item and method; what is undefined in JSON is NaN here."""
    columns = {name: np.array(items["auroc"].get(name) or [], dtype=np.float64) for name in names}
    return pd.DataFrame(columns, index=pd.Index(items["names"], dtype=object))


def _chosen(best: list[str], order: list[str]) -> tuple[list[str], list[str]]:
    """Methods of the two charts: the best that are no baseline, and baselines only where it is alone."""
    usable = [name for name in best if name in order]
    if len(usable) < 2:
        usable = (usable + [name for name in order if name not in usable])[:VENN_SETS]
    return sorted(usable[:SETS], key=order.index), sorted(usable[:VENN_SETS], key=order.index)


def _count(found: dict[str, Any], count: int, kind: str, n_methods: int) -> dict[str, float | None]:
    """Put a count beside what chance gives to the union of, or in common to, so many methods."""
    chance = (found["chance"] or {}).get(kind) or []
    row = chance[n_methods - 1] if n_methods and n_methods <= len(chance) else {}
    return {"count": count} | {key: number(row.get(key)) for key in ("expected", "low", "high")}


def _joined(sets: dict[Any, dict[str, Any]], groups: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Rows of the table: what any of some methods reaches, and what all of them reach."""
    rows = []
    for group, members in groups.items():
        if len(members) < 2:
            continue
        for kind, words in (("union", "any of the"), ("common", "all")):
            counts = [_count(s, s["groups"][group][kind], kind, len(members)) for s in sets.values()]
            rows.append({"label": f"{words} {len(members)} {_OF[group]}", "counts": counts})
    return rows


# --- the two charts ---------------------------------------------------------------------------


def _variant(
    auroc: pd.DataFrame, given: dict[str, Any], methods: list[dict[str, Any]], shown: list[str], circles: list[str]
) -> dict[str, Any]:
    """Prepare both charts and the table of one unit and level."""
    unit, above = given["unit"], given["above"]
    by_name = {m["name"]: m for m in methods}
    drawn = [by_name[name] for name in shown]
    member = auroc[shown].to_numpy(np.float64) > above
    chance = given["chance"]
    columns, rows = [], []
    for which, items in intersections(member):
        inside = [drawn[k] for k in which]
        words = exactly([m["label"] for m in inside], len(shown), len(items), unit)
        columns.append({"sets": list(which), "n": len(items), "kind": _kind(inside), "text": words})
        expected = None if chance is None else chance["exclusive"][len(shown) - 1][len(which) - 1]
        names = auroc.index[items[:NAMED]].tolist()
        labels = [m["label"] for m in inside]
        rows.append({"labels": labels, "n": len(items), "expected": expected, "names": names})
    upset = {
        "names": [m["label"] for m in drawn],
        "kinds": [m["kind"] for m in drawn],
        "sizes": member.sum(0).tolist(),
        "columns": columns,
        "y": _PLURAL[unit],
        "x": f"{_PLURAL[unit]} above {above:g} for exactly these methods",
    }
    return {
        "unit": unit,
        "level": f"{above:g}",
        "n": len(auroc),
        "upset": upset,
        "hidden": {"n": len(columns[COLUMNS:]), "items": sum(c["n"] for c in columns[COLUMNS:])},
        "venn": _venn(auroc, [by_name[name] for name in circles], above, unit),
        "rows": rows,
    }


def _venn(auroc: pd.DataFrame, circles: list[dict[str, Any]], above: float, unit: str) -> dict[str, Any]:
    member: NDArray[np.bool_] = auroc[[m["name"] for m in circles]].to_numpy(np.float64) > above
    counts = dict.fromkeys(range(2 ** len(circles)), 0) | venn_counts(member.tolist())
    texts = {}
    for region in range(1, 2 ** len(circles)):
        inside = [m["label"] for k, m in enumerate(circles) if region >> k & 1]
        texts[region] = exactly(inside, len(circles), counts[region], unit)
    return {
        "names": [m["label"] for m in circles],
        "kinds": [m["kind"] for m in circles],
        "sizes": member.sum(0).tolist(),
        "counts": counts,
        "texts": texts,
        "outside": f"in none: {counts[0]:,} of {len(auroc):,}",
    }


def exactly(labels: Sequence[str], n_methods: int, n: int, unit: str) -> str:
    """Put an exclusive intersection into words; `comparison.js` uses the same."""
    who = " and ".join([", ".join(labels[:-1]), labels[-1]]) if len(labels) > 1 else labels[0]
    others = "" if len(labels) == n_methods else ", no other of these"
    return f"{who}{others}: {n:,} {unit if n == 1 else _PLURAL[unit]}"


def _kind(methods: list[dict[str, Any]]) -> str:
    kinds = {m["kind"] for m in methods}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _page(
    tables: dict[str, pd.DataFrame],
    sets: dict[Any, dict[str, Any]],
    methods: list[dict[str, Any]],
    shown: list[str],
    circles: list[str],
) -> dict[str, Any]:
    """Return what the script needs: for every unit the items that any method brings above the lowest level."""
    names = [m["name"] for m in methods]
    units = {}
    for unit, table in tables.items():
        levels = [level for u, level in sets if u == unit]
        value = table[names].to_numpy(np.float64)
        kept = np.flatnonzero((value > min(levels)).any(1)) if len(value) else np.zeros(0, np.int64)
        # Whether an item is above is decided here, from unrounded values.
        above = {f"{v:g}": [np.flatnonzero(value[kept, k] > v).tolist() for k in range(len(names))] for v in levels}
        rounded = [[round(v, 3) if np.isfinite(v) else None for v in row] for row in value[kept].tolist()]
        units[unit] = {"n": len(table), "names": table.index[kept].tolist(), "auroc": rounded, "above": above}
    kinds = [{key: m[key] for key in ("name", "label", "kind")} for m in methods]
    return {"methods": kinds, "shown": shown, "circles": circles, "units": units, "most": [SETS, VENN_SETS]}


# --- agreement and means of ranks -------------------------------------------------------------


def _matrix(pairs: list[dict[str, Any]], methods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the matrix: above the diagonal whether tasks agree, below whether compounds are ranked alike."""
    known = {frozenset((p["method"], p["other"])): p for p in pairs}
    rows = []
    for i, one in enumerate(methods):
        cells = []
        for j, other in enumerate(methods):
            if i == j:
                cells.append({"part": "same"})
                continue
            p = known.get(frozenset((one["name"], other["name"])), {})
            which = "auroc_spearman" if j > i else "score_spearman"
            value = number(p.get(which))
            cells.append(
                {
                    "part": "upper" if j > i else "lower",
                    "value": value if value is None else round(value, 2) + 0.0,  # no -0.00
                    "kappa": None if (kappa := number(p.get("kappa"))) is None else round(kappa, 2) + 0.0,
                    "n": p.get("n_tasks" if j > i else "n_score_tasks", 0),
                    "shade": 0 if value is None else round(42 * min(abs(value), 1.0)),
                    "negative": value is not None and value < 0,
                }
            )
        rows.append({"label": one["label"], "kind": one["kind"], "cells": cells})
    return rows


def _ensemble(given: dict[str, Any], methods: list[dict[str, Any]]) -> dict[str, Any]:
    """One row: a mean of ranks beside the best of its members."""
    labels = {m["name"]: m["label"] for m in methods}
    best = given["against"][0]
    summary, left = given["summary"], [n for n in given["left_out"].values() if n]
    return {
        "label": f"{len(given['members'])} {_OF[given['group']]}",
        "mean": number(summary["auroc_mean"]),
        "low": number(summary["auroc_mean_low"]),
        "high": number(summary["auroc_mean_high"]),
        "best": labels.get(best["method"], best["method"]),
        "best_mean": number(best["mean"]),
        "left_out": max(left, default=0),
        "sets": [
            {"count": s["count"], "gained": s["gained"], "lost": s["lost"], "best": labels.get(s["best"], s["best"])}
            for s in given["sets"]
        ],
    } | {key: number(best[key]) for key in ("n_tasks", "difference", "share_better", "p_value", "p_worse")}


# --- in words ---------------------------------------------------------------------------------


def _told(
    sets: dict[Any, dict[str, Any]], given: dict[str, Any], methods: list[dict[str, Any]], unit: str
) -> list[str]:
    """Read out the union, whether the method matters, what images and structures add, and the mean of ranks."""
    groups, labels = given["groups"], {m["name"]: m["label"] for m in methods}
    if len(groups["all"]) < 2:
        return []
    moderate, plural = sets[unit, 0.7], _PLURAL[unit]
    every = moderate["groups"]["all"]
    most = _count(moderate, every["best_count"], "union", 1)
    union = _count(moderate, every["union"], "union", len(every["methods"]))
    told = (
        f"{every['union']:,} of {moderate['n']:,} {plural} are above 0.7 for at least one of {len(every['methods'])} "
        f"methods that are no baseline{_by_chance(union)}, {every['common']:,} for all of them. The most that one "
        f"method reaches is {every['best_count']:,} ({labels[every['best']]}{_by_chance(most, '; ', '')})."
    )
    sentences = [told]
    if unit == "task" and sets["assay", 0.7]["n"]:
        least = given["simm_min"]
        counted = f"{sets['assay', 0.7]['n']:,} of the assays have"
        sentences.insert(0, f"Tasks are counted: only {counted} {least} actives and {least} inactives.")
    for kind in ("image", "chemistry") if "image" in groups else ("all",):
        own = moderate["groups"][kind]
        if len(own["methods"]) > 1 and own["union"]:
            mostly = own["common"] >= _MOSTLY * own["union"]
            said = "mostly the same whatever the method" if mostly else "not the same for each method"
            sentences.append(
                f"What {_OF[kind]} reach is {said}: of {own['union']:,} that any of them brings above 0.7, all "
                f"{len(own['methods'])} bring {own['common']:,}."
            )
    if "image" in groups:
        sentences.append(_complement(given["items"][unit], groups, unit))
    return sentences + [_added(e, labels) for e in given["ensembles"][:1]]


def _complement(items: dict[str, Any], groups: dict[str, list[str]], unit: str) -> str:
    """Count what images reach and structures do not, and the other way round."""
    value = {kind: _table(items, groups[kind]).to_numpy(np.float64) > 0.7 for kind in ("image", "chemistry")}
    image, structure = value["image"].any(1), value["chemistry"].any(1)
    alone, other, both = (int(v.sum()) for v in (image & ~structure, structure & ~image, image & structure))
    return (
        f"Images reach {alone:,} {unit if alone == 1 else _PLURAL[unit]} that no method on structures does, structures "
        f"{other:,} that no method on images does, and both reach {both:,}."
    )


def _by_chance(count: dict[str, float | None], before: str = " (", after: str = ")") -> str:
    expected = count["expected"]
    if expected is None:
        return ""
    return f"{before}chance {'< 0.1' if 0 < expected < 0.05 else f'{expected:.1f}'}{after}"


def _added(ensemble: dict[str, Any], labels: dict[str, str]) -> str:
    """Say what the mean of ranks adds to its best member."""
    best, mean = ensemble["against"][0], number(ensemble["summary"]["auroc_mean"])
    difference, better, worse = (number(best[key]) for key in ("difference", "p_value", "p_worse"))
    if mean is None or difference is None:
        return "The mean of ranks could not be compared."
    says = "no clear difference from"
    if better is not None and better < 0.05 and difference > 0:
        says = "better than"
    elif worse is not None and worse < 0.05 and difference < 0:
        says = "worse than"
    size = f"{abs(difference):.3f} {'above' if difference >= 0 else 'below'}"
    return (
        f"The mean of their ranks has a mean AUROC of {mean:.3f}: {says} the best of them alone "
        f"({labels[best['method']]}; {size} it)."
    )
