"""What the plate checks found, as facts for the page. Nothing here knows HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.profiles.checks import Checks
from phenohit.profiles.checks_flags import RULES
from phenohit.report.platemaps import choose_plates, drawn_plates, mean_maps
from phenohit.report.tables import number

__all__ = ["ADVICE", "FLAGS_SHOWN", "PLATES_SHOWN", "checks_facts"]

PLATES_SHOWN = 200
FLAGS_SHOWN = 200
TREATMENTS_SHOWN = 10  # of the mAP table
_BINS = 32
# Rule -> short name, what it usually means, what to do.
ADVICE = {
    "few_cells": (
        "few cells",
        "Cells were lost or never seeded: washing, dispensing, a toxic control, a field out of focus.",
        "Look at the images. If the wells are bad, leave them out with checks.drop: [few_cells] or repeat the plate.",
    ),
    "no_controls": (
        "no controls",
        "No well is known as a negative control: the plate cannot be normalised to controls, nor checked.",
        "See how controls are named (profiles.controls, plate map). If there are none, normalise to the whole plate.",
    ),
    "position": (
        "position effect",
        "Controls differ by where they are: evaporation at the edge, a gradient of temperature, a clogged dispenser.",
        "Look at the plate's map. Compare its hits with replicates at other positions; randomise the next layout.",
    ),
    "replicates": (
        "replicates disagree",
        "Its wells resemble their replicates on other plates far less than usual: swapped or turned plate, poor stain.",
        "Check barcode, plate map and orientation. Leave it out with checks.drop: [replicates] if it cannot be mended.",
    ),
    "outlier": (
        "outlying control",
        "A control's profile is far from the plate's other controls: debris, a compound in the wrong well.",
        "Look at its image. checks.drop: [outlier] keeps such wells out of everything that follows.",
    ),
    "reference": (
        "unlike its history",
        "A reference compound looks otherwise than it did before: wrong well, turned plate, old stock, another stain.",
        "Check map and stock. If all plates are flagged, the history is of another assay, time or normalisation.",
    ),
}
_ASKED = {
    "plate": "is on the same plate",
    "batch": "is of the same batch (on another plate)",
    "position": "is at the same position (on another plate)",
}


def checks_facts(folder: Path, losses: pd.DataFrame) -> dict[str, Any] | None:
    """Gather what the section on plates shows.

    Parameters
    ----------
    folder : Path
        The run folder; `phenohit.profiles.checks.Checks` in its folder ``checks``.
    losses : DataFrame
        ``dropped.csv``: tells how many flagged wells were left out.

    Returns
    -------
    dict or None
        None where plates were not checked. Keys ``told`` (sentences), ``tiles``, ``rules``, ``rows``
        (plates, flagged first, at most `PLATES_SHOWN`), ``n``, ``cells`` and ``similarity`` (one dot per plate),
        ``separation``, ``replicates``, ``map``, ``means`` (maps over all plates), ``maps`` (of plates),
        ``flags``, ``n_flags``, ``files``, ``notes``.

    Raises
    ------
    FileError
        If a table is damaged.
    """
    if not (folder / "checks").is_dir():
        return None
    checks = Checks.load(folder / "checks")
    summary = {str(k): number(v) for k, v in zip(checks.summary["name"], checks.summary["value"], strict=True)}
    plates = _ranked(checks)
    flagged = plates[plates["rules"] != ""]
    once = checks.flags.drop_duplicates(["what", "plate", "well", "rule"])  # a plate may break a rule in two ways
    kinds = once.groupby(["rule", "what"]).size() if len(once) else pd.Series(dtype=int)
    shown, n_open = choose_plates(plates)
    return {
        "told": _told(plates, flagged, checks, losses),
        "tiles": _tiles(plates, flagged, checks, summary),
        "rules": _rules(kinds),
        "rows": [_row(row) for row in plates.head(PLATES_SHOWN).to_dict("records")],
        "n": len(plates),
        "n_flagged": len(flagged),
        "batches": bool((plates["batch"].astype(str) != "").any()),
        "cells": _strip(plates, "control_cells", zero=True),
        "similarity": _strip(plates, "replicate_r", zero=True),
        "separation": _separation(checks.separation),
        "everywhere": {k: summary.get(f"position_{k}") for k in ("share", "expected", "p")},
        "components": summary.get("components_share"),
        "replicates": _replicates(checks.replicates, summary),
        "map": _precision(checks.map, checks.replicates),
        "means": mean_maps(checks.positions),
        "maps": [m | {"rules": [rule_name(r) for r in m["rules"]]} for m in drawn_plates(checks, shown)],
        "n_open": n_open,
        "flags": _flags(checks.flags),
        "n_flags": len(checks.flags),
        "files": [name for name in ("flags.csv", "flags.parquet") if (folder / "checks" / name).is_file()],
        "notes": [str(t) for n, t in zip(checks.summary["name"], checks.summary["text"], strict=True) if _note(n)],
    }


def _note(name: object) -> bool:
    return str(name).startswith("note")


def rule_name(rule: str) -> str:
    """Return a rule's short name; its own where we know none."""
    return ADVICE[rule][0] if rule in ADVICE else rule.replace("_", " ")


def _ranked(checks: Checks) -> pd.DataFrame:
    """Plates, the worst first: most rules, then most flagged wells; others in their own order (``order``)."""
    plates = checks.plates.assign(order=np.arange(len(checks.plates)))
    plates["rules"] = plates["rules"].astype(str)
    wells = checks.flags.loc[checks.flags["what"] == "well", "plate"].value_counts()
    plates["n_flags"] = plates["plate"].map(wells).fillna(0).astype(int)
    plates["n_rules"] = plates["rules"].str.split(";").map(lambda r: sum(bool(part) for part in r))
    # Without a rule against the plate itself the order is the screen's own.
    worst = np.where(plates["n_rules"] > 0, plates["n_flags"], 0)
    return plates.iloc[np.lexsort([plates["order"], -worst, -plates["n_rules"]])].reset_index(drop=True)


def _told(plates: pd.DataFrame, flagged: pd.DataFrame, checks: Checks, losses: pd.DataFrame) -> list[str]:
    n, n_bad = len(plates), len(flagged)
    wells = int((checks.flags["what"] == "well").sum())
    kind = "control or reference wells" if _n_reference(plates) else "control wells"
    first = f"{n:,} plate{'s' * (n != 1)} checked; "
    if not n_bad:
        first += "none is flagged" + (f", {wells:,} {kind} are." if wells else f", and no {kind.removesuffix('s')} is.")
    else:
        worst = flagged.iloc[0]
        why = ", ".join(rule_name(rule) for rule in worst["rules"].split(";"))
        first += f"{n_bad:,} {'is' if n_bad == 1 else 'are'} flagged. "
        first += f"{'It is' if n_bad == 1 else 'The worst is'} {worst['plate']}: {why}"
        first += f", and {worst['n_flags']:,} of its {kind}." if worst["n_flags"] else "."
    left_out = int((losses["stage"] == "plate checks").sum()) if "stage" in losses else 0
    if not len(checks.flags):
        return [first]
    if left_out:
        return [first, f"{left_out:,} wells were left out for their flags (checks.drop); they are listed above."]
    return [first, "Every flagged well is still in. Rules named under checks.drop leave wells out."]


def _tiles(
    plates: pd.DataFrame, flagged: pd.DataFrame, checks: Checks, summary: dict[str, float | None]
) -> list[dict[str, str]]:
    wells = checks.flags[(checks.flags["what"] == "well") & (checks.flags["rule"] != "reference")]
    of_plates = flagged["rules"].str.split(";").explode().value_counts()
    controls = int(plates["n_negcon"].sum())
    tiles = [
        _tile(f"{len(flagged):,}", f"of {len(plates):,} plates flagged", _counts(of_plates)),
        _tile(f"{len(wells):,}", f"of {controls:,} control wells flagged", _counts(wells["rule"].value_counts())),
    ]
    if n_reference := _n_reference(plates):
        off = int(plates["n_reference_off"].sum())
        note = f"{n_reference / 1000:,.1f} expected by chance"
        tiles.append(_tile(f"{off:,}", f"of {n_reference:,} reference wells unlike their history", note))
    cells = plates["control_cells"].dropna()
    if len(cells):
        note = f"{cells.min():,.0f} to {cells.max():,.0f} over the plates"
        tiles.append(_tile(f"{cells.median():,.0f}", "cells in a plate's median control", note))
    share, expected = summary.get("position_share"), summary.get("position_expected")
    if share is not None and expected is not None:
        note = f"{expected:.1%} expected by chance; p {_p(summary.get('position_p'))}"
        tiles.append(_tile(f"{share:.1%}", "of the controls' variance follows row and column", note))
    percent = summary.get("percent_replicating")
    if percent is not None:
        note = f"5% expected by chance; {len(checks.replicates):,} treatments"
        tiles.append(_tile(f"{percent:.0f}%", "of treatments replicate", note))
    return tiles


def _n_reference(plates: pd.DataFrame) -> int:
    """Count reference wells that were judged; 0 also in runs that knew no such rule."""
    return int(plates["n_reference"].sum()) if "n_reference" in plates else 0


def _tile(value: str, label: str, note: str) -> dict[str, str]:
    return {"value": value, "label": label, "note": note}


def _counts(by_rule: pd.Series) -> str:
    return ", ".join(f"{rule_name(str(rule))} {n:,}" for rule, n in by_rule.items()) or "no rule applies"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _rules(kinds: pd.Series) -> list[dict[str, Any]]:
    """Every rule with what it found; rules of a newer run that we do not know are told by their name."""
    seen = [str(rule) for rule in kinds.index.get_level_values(0)] if len(kinds) else []
    found = []
    for rule in [*RULES, *dict.fromkeys(r for r in seen if r not in RULES)]:
        _, means, act = ADVICE.get(rule, ("", "", ""))
        counts = {what: int(kinds.get((rule, what), 0)) for what in ("plate", "well")}
        found.append({"rule": rule, "name": rule_name(rule), "means": means, "act": act} | counts)
    return found


_NUMBERS = (
    "n_wells", "n_negcon", "control_cells", "control_cells_cv", "position_share", "position_expected",
    "cells_position_share", "cells_position_expected", "replicate_r", "n_outliers", "n_reference",
    "n_reference_off", "n_flags",
)  # fmt: skip


def _row(row: dict[str, Any]) -> dict[str, Any]:
    rules = [rule_name(rule) for rule in str(row["rules"]).split(";") if rule]
    return {"plate": str(row["plate"]), "batch": str(row["batch"]), "rules": rules} | {
        name: number(row.get(name)) for name in _NUMBERS
    }


def _strip(plates: pd.DataFrame, column: str, *, zero: bool) -> dict[str, Any] | None:
    """One number per plate in the screen's order."""
    table = plates.sort_values("order")
    values = [number(v) for v in table[column]]
    known = [v for v in values if v is not None]
    if not known:
        return None
    rules = table["rules"].tolist()
    batch = table["batch"].astype(str)
    runs = (batch != batch.shift()).cumsum().to_numpy()
    batches = []
    if len(np.unique(batch.to_numpy(str))) > 1:
        for run in np.unique(runs):
            at = np.flatnonzero(runs == run)
            batches.append((str(batch.iloc[at[0]]), int(at[0]), int(at[-1])))
    names = table["plate"].astype(str).tolist()
    told = (
        f"{name}: {', '.join(rule_name(r) for r in rule.split(';'))}" for name, rule in zip(names, rules, strict=True)
    )
    return {
        "values": values,
        "flagged": [rule != "" for rule in rules],
        "names": names,
        "texts": list(told),
        "batches": batches,
        "typical": float(np.median(known)),
        "low": min(known),
        "high": max(known),
        "n_flagged": sum(bool(rule) for rule in rules),
        "zero": zero,
    }


def _separation(table: pd.DataFrame) -> list[dict[str, Any]]:
    found = []
    for what in [w for w in _ASKED if w in set(table["what"])]:
        for row in table[table["what"] == what].to_dict("records"):
            share, expected = number(row["share"]), number(row["expected"])
            times = share / expected if share is not None and expected else None
            stage = {"before": "before the steps", "after": "after the steps"}.get(str(row["stage"]), str(row["stage"]))
            found.append(
                {"what": _ASKED[what], "first": not found or found[-1]["what"] != _ASKED[what], "stage": stage}
                | {"share": share, "expected": expected, "times": times}
                | {"n": int(row["n"]), "n_plates": int(row["n_plates"])}
            )
    for row in found:
        row["span"] = sum(other["what"] == row["what"] for other in found)
    return found


def _histogram(values: NDArray[np.float64], above: NDArray[np.bool_], low: float, high: float) -> dict[str, Any]:
    """Count between low and high, those that are `above` on top."""
    edges = np.linspace(low, high, _BINS + 1)
    calm, _ = np.histogram(values[~above], edges)
    more, _ = np.histogram(values[above], edges)
    texts = [
        f"{edges[i]:.2f} to {edges[i + 1]:.2f}: {calm[i] + more[i]:,} treatments, {more[i]:,} above the limit"
        for i in range(_BINS)
    ]
    return {"edges": edges.tolist(), "n": calm.tolist(), "more": more.tolist(), "texts": texts}


def _replicates(table: pd.DataFrame, summary: dict[str, float | None]) -> dict[str, Any] | None:
    r = table["median_r"].to_numpy(dtype=np.float64)
    known = np.isfinite(r)
    if not known.any():
        return None
    above = table["replicating"].astype(bool).to_numpy()
    limits = table["null_q95"].to_numpy(dtype=np.float64)
    limits = limits[np.isfinite(limits)]
    low = min(np.floor(float(r[known].min()) * 10) / 10, 0.0)
    chart = _histogram(r[known], above[known], float(max(low, -1.0)), 1.0)
    lines = []
    if len(limits):
        usual = float(np.median(limits))
        lines.append((usual, f"95% of unrelated wells are below {usual:.2f}", True))
    null = summary.get("null_r")
    return chart | {
        "lines": lines,
        "n_treatments": int(known.sum()),
        "n_above": int(above.sum()),
        "percent": summary.get("percent_replicating"),
        "typical": summary.get("replicate_r"),
        "null": null,
        "limits": (float(limits.min()), float(limits.max())) if len(limits) else None,
        "same_position": summary.get("same_position"),
    }


def _precision(table: pd.DataFrame, replicates: pd.DataFrame) -> dict[str, Any] | None:
    """Mean average precision; those whose corrected p is below 0.05 on top."""
    values = pd.to_numeric(table["map"], errors="coerce").to_numpy(dtype=np.float64) if len(table) else np.zeros(0)
    known = np.isfinite(values)
    if not known.any():
        return None
    p = pd.to_numeric(table["corrected_p_value"], errors="coerce").to_numpy(dtype=np.float64)
    both = ["compound_id", "concentration"]
    best = table[known].merge(replicates[[*both, "median_r"]].drop_duplicates(both), on=both, how="left")
    best = best.sort_values(["map", "median_r"], ascending=False, kind="stable").head(TREATMENTS_SHOWN)
    rows = [
        {"compound": str(row["compound_id"]), "dose": str(row["concentration"])}
        | {k: number(row[k]) for k in ("n_wells", "map", "median_r", "corrected_p_value")}
        for row in best.to_dict("records")
    ]
    chart = _histogram(values[known], (p < 0.05)[known], 0.0, 1.0)
    return chart | {"n_treatments": int(known.sum()), "n_above": int((p < 0.05).sum()), "rows": rows}


def _flags(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the first `FLAGS_SHOWN` flags: those of plates, then those of wells."""
    first = table.iloc[np.argsort((table["what"] != "plate").to_numpy(), kind="stable")].head(FLAGS_SHOWN)
    return [
        {key: str(row[key]) for key in ("what", "plate", "well", "text")}
        | {"rule": rule_name(str(row["rule"])), "value": number(row["value"]), "limit": number(row["limit"])}
        for row in first.to_dict("records")
    ]
