"""How the final model was fitted: what was followed from step to step, as small charts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from numpy.typing import NDArray

from phenohit.files import read_json, read_table
from phenohit.report.charts import ticks
from phenohit.report.methods import label_of
from phenohit.report.shapes import line, number_text, rect, text
from phenohit.report.tables import number, read_csv

__all__ = ["SERIES_SHOWN", "thin", "trace_chart", "traces_facts"]

POINTS = 400  # of a line; a longer one is thinned
SERIES_SHOWN = 4  # lines in a panel
ERRORS_SHOWN, PRECISIONS_SHOWN, ENTRIES_SHOWN = 2, 3, 4  # panels
RHAT, ESS = 1.05, 100  # below, and above: more steps would not change much
_COLUMNS = ("series", "step", "what", "value", "used")


def traces_facts(folder: Path) -> dict[str, Any] | None:
    """Gather how the fit on all labels went.

    Parameters
    ----------
    folder : Path
        A run folder; reads ``models/final/progress.parquet`` and ``diagnostics.csv``, and the model's name from
        ``hits/plan.json``.

    Returns
    -------
    dict or None
        ``label`` (method), ``panels`` (list of dict title, kind, lines, low, high, rhat, ess), ``n_series``,
        ``n_steps``, ``n_burn`` (steps not used), ``step`` and ``series`` (what these are called), ``told`` (sentences),
        ``settled`` (bool, None where nothing was diagnosed), ``advice`` (a setting to change, '' for none),
        ``problem`` ('' or why nothing is drawn). None where the model was not followed.
    """
    path = folder / "models" / "final" / "progress.parquet"
    if not path.is_file():
        return None
    plan = read_json(folder / "hits" / "plan.json") if (folder / "hits" / "plan.json").is_file() else {}
    if plan and not plan.get("tasks"):  # a fit of an earlier plan
        return None
    table, _ = read_table(path, dictionary=["what"])
    facts = {"label": _label(plan), "panels": [], "problem": "", "advice": ""}
    absent = [c for c in _COLUMNS if c not in table]
    if absent:
        problem = f"progress.parquet lacks the columns {', '.join(absent)}."
        return facts | {"problem": problem, "told": [], "settled": None, "n_series": 0}
    table = table[np.isfinite(table["value"].to_numpy(np.float64, na_value=np.nan))]
    if table.empty:
        return None
    diagnosed = _diagnosed(folder / "models" / "final" / "diagnostics.csv")
    unused = table.loc[~table["used"].astype(bool), "step"]
    facts |= {
        "n_series": int(table["series"].nunique()),
        "n_steps": int(table["step"].max()),
        "n_burn": 0 if unused.empty else int(unused.max()),
    }
    facts["panels"] = [_panel(table, what, kind, diagnosed, facts) for what, kind in _chosen(table, diagnosed)]
    _name_compounds(folder / "compounds.parquet", facts["panels"])
    return facts | _told(diagnosed, facts, str(plan.get("model") or ""))


def _label(plan: dict[str, Any]) -> str:
    """Name the method for people."""
    if plan.get("model") and plan.get("input"):
        return label_of(str(plan["model"]), str(plan["input"]))
    return "The final model"


def kind_of_trace(what: str) -> str:
    """Tell a 'precision' and a held-out 'error' from an 'entry'."""
    if what.startswith("held-out"):
        return "error"
    return "precision" if "precision" in what and " in " not in what else "entry"


def _diagnosed(path: Path) -> pd.DataFrame:
    """Return R-hat and ESS by what was followed; numbers that are none are NaN."""
    table = read_csv(path)
    if not {"what", "rhat", "ess"} <= set(table.columns):
        return pd.DataFrame({"rhat": [], "ess": []}, dtype=np.float64)
    numbers = table[["rhat", "ess"]].apply(pd.to_numeric, errors="coerce")
    return numbers.set_index(table["what"].astype(str))


def _chosen(table: pd.DataFrame, diagnosed: pd.DataFrame) -> list[tuple[str, str]]:
    """Choose the panels: held-out errors, precisions, and entries from the most to the least settled."""
    names = [str(w) for w in pd.unique(table["what"].astype(object))]
    kinds = {w: kind_of_trace(w) for w in names}
    entries = [w for w in names if kinds[w] == "entry"]
    rhat = diagnosed["rhat"][~diagnosed.index.duplicated()]
    known = sorted((w for w in entries if np.isfinite(rhat.get(w, np.nan))), key=lambda w: -rhat[w])
    entries = known or entries
    places = np.unique(np.linspace(0, len(entries) - 1, min(len(entries), ENTRIES_SHOWN)).round().astype(int))
    chosen = [(w, "error") for w in names if kinds[w] == "error"][:ERRORS_SHOWN]
    chosen += [(w, "precision") for w in names if kinds[w] == "precision"][:PRECISIONS_SHOWN]
    return chosen + [(entries[i], "entry") for i in places]


def _panel(table: pd.DataFrame, what: str, kind: str, diagnosed: pd.DataFrame, facts: dict[str, Any]) -> dict[str, Any]:
    """Return one panel: a thinned line per series, the range of values, and what was diagnosed."""
    mine = table[table["what"] == what]
    value = mine["value"].to_numpy(np.float64)
    used = value[mine["used"].to_numpy(bool)]
    low, high = _range(value, used, kind)
    lines = []
    for series, part in list(mine.groupby("series", sort=True))[:SERIES_SHOWN]:
        part = part.sort_values("step")
        step, value = thin(part["step"].to_numpy(np.float64), part["value"].to_numpy(np.float64))
        lines.append({"series": int(str(series)), "step": step.tolist(), "value": value.tolist()})
    row = diagnosed.loc[[what]].iloc[0] if what in diagnosed.index else {"rhat": None, "ess": None}
    panel = {"title": what, "kind": kind, "lines": lines, "low": low, "high": high}
    return panel | {
        "rhat": number(row["rhat"]),
        "ess": number(row["ess"]),
        "n_steps": facts["n_steps"],
        "n_burn": facts["n_burn"],
    }


def _name_compounds(path: Path, panels: list[dict[str, Any]]) -> None:
    """Put the user's own names in the place of the keys that compounds have inside a run."""
    keys = {p["title"].split(" in ", 1)[0] for p in panels if p["kind"] == "entry"}
    if not keys or not path.is_file():
        return
    compounds, _ = read_table(path, ["compound", "compound_id"], where=("compound", sorted(keys)))
    names = dict(zip(compounds["compound"].astype(str), compounds["compound_id"].astype(str), strict=True))
    for panel in panels:
        key, *rest = panel["title"].split(" in ", 1)
        if panel["kind"] == "entry" and rest and names.get(key):
            panel["title"] = f"{names[key]} in {rest[0]}"


def _range(value: NDArray[np.float64], used: NDArray[np.float64], kind: str) -> tuple[float, float]:
    """Return the range that is drawn: steps that count take a third of it or more, however far off the first lie."""
    low, high = np.quantile(value, (0.02, 0.98))
    if len(used):
        least, most = used.min(), used.max()
        reach = np.inf if kind == "error" else most - least  # of errors, it is worth seeing where they came from
        low, high = min(max(low, least - reach), least), max(min(high, most + reach), most)
    pad = 0.04 * (high - low) or 0.5
    return float(low - pad), float(high + pad)


def thin(
    step: NDArray[np.float64], value: NDArray[np.float64], most: int = POINTS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Keep at most `most` points: the lowest and the highest of equal stretches, so that no excursion is lost."""
    n = len(step)
    if n <= most:
        return step, value
    edges = np.linspace(0, n, most // 2 + 1).astype(int)[:-1]
    stretch = np.searchsorted(edges, np.arange(n), side="right") - 1
    order = np.lexsort((value, stretch))
    first = np.searchsorted(stretch[order], np.arange(len(edges)))
    last = np.r_[first[1:], n] - 1
    kept = np.unique(np.r_[order[first], order[last]])
    return step[kept], value[kept]


def _told(diagnosed: pd.DataFrame, facts: dict[str, Any], model: str) -> dict[str, Any]:
    """Say in two sentences whether the fit has settled, and by which numbers; and what to do if not."""
    rhat, ess = (diagnosed[c].dropna() for c in ("rhat", "ess"))
    macau = model in ("macau", "")
    n, steps, burn = facts["n_series"], facts["n_steps"], facts["n_burn"]
    series, step = ("chain", "sweeps") if macau else ("series", "steps")
    length = f"{n:,} {series}{'s' if n != 1 and macau else ''} of {steps:,} {step}"
    length += f", of which the first {burn:,} are not used." if burn else "."
    found = {"step": step, "series": series, "advice": "", "settled": None}
    if rhat.empty or ess.empty:
        return found | {"told": ["Nothing was diagnosed: look whether the lines drift or stay apart.", length]}
    share, middle = float((rhat < RHAT).mean()), float(ess.median())
    numbers = (
        f"{length} Of {len(rhat):,} quantities that were followed, {share:.0%} have an R-hat below {RHAT}; the median "
        f"effective sample size is {middle:,.0f}."
    )
    if share >= 0.95 and middle >= ESS:
        return found | {"told": [f"More {step} would not change much.", numbers], "settled": True}
    verdict = (
        f"With another seed, or with more {step}, the scores of single compounds would come out differently. Take more "
        f"{step} before you rely on them{':' if macau else '.'}"
    )
    times = min(max(2, math.ceil(ESS / max(middle, 1))), 10)
    advice = f"models: {{macau: {{sweeps: {times * steps}, burn_in: {times * burn}}}}}" if macau else ""
    return found | {"told": [verdict, numbers], "settled": False, "advice": advice}


# --- drawing ----------------------------------------------------------------------------------

WIDE, HIGH = 360, 176
_X0, _X1, _Y0, _Y1 = 46, WIDE - 18, HIGH - 30, 10


def trace_chart(panel: dict[str, Any]) -> Markup:
    """Draw one panel: a line per series, the steps that are not used shaded; what is beyond the range, at its edge."""
    low, high = panel["low"], panel["high"]
    scale = [t for t in ticks(low, high, 4) if low <= t <= high]
    last = max(panel["n_steps"], 2)

    def across(step: float) -> float:
        return _X0 + (_X1 - _X0) * (step - 1) / (last - 1)

    def up(value: float) -> float:
        return _Y0 - (_Y0 - _Y1) * (min(max(value, low), high) - low) / (high - low)

    parts = [rect("band", _X0, _Y1, across(panel["n_burn"]) - _X0, _Y0 - _Y1)] if panel["n_burn"] > 1 else []
    parts += [line("grid", _X0, _X1, up(t)) + text(_X0 - 6, up(t) + 4, number_text(t), "end") for t in scale]
    marks = [t for t in ticks(0, last, 4) if 0 < t <= last and t == int(t)]
    parts += [text(across(t), _Y0 + 15, f"{t:,.0f}") for t in marks]
    for i, one in enumerate(panel["lines"]):
        points = "L".join(f"{across(s):.1f} {up(v):.1f}" for s, v in zip(one["step"], one["value"], strict=True))
        parts.append(f'<path class="trace t{i % 4}" d="M{points}"/>')
    label = f"{panel['title']} from step to step"
    return Markup(  # noqa: S704  (numbers, our own words and escaped text)
        f'<svg class="chart" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}{line('axis', _X0, _X1, _Y0)}</svg>"
    )
