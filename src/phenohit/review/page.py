"""Write review.html: what was found, what it means, what to do next, on one page that opens anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from phenohit import __version__
from phenohit.chem.draw import draw
from phenohit.files import write_text
from phenohit.report.build import environment, policy, style_sheet
from phenohit.report.facts import losses
from phenohit.report.methods import kind_of, label_of
from phenohit.report.reliability import JOINED, reliability_chart, reliability_facts
from phenohit.report.shapes import line, text
from phenohit.report.tables import number
from phenohit.review.judge import GROUPS

__all__ = ["curves", "write_page"]

HITS_SHOWN = 24  # hits drawn
ROWS_SHOWN = 8  # of each list for the next round
SCAFFOLDS_SHOWN = 12
_CLASSES = ("initial", "new", "random")


def write_page(
    folder: Path,
    facts: dict[str, Any],
    table: pd.DataFrame,
    frames: pd.DataFrame,
    lists: dict[str, pd.DataFrame],
    lost: pd.DataFrame,
) -> Path:
    """Write ``review.html`` into the folder of a review.

    Parameters
    ----------
    folder : Path
        Holds ``calibration.parquet`` where scores are probabilities.
    facts : dict
        What ``review.json`` holds.
    table, frames : DataFrame
        ``results.csv`` and ``scaffolds.csv``.
    lists : dict of str to DataFrame
        Suggestions by mode.
    lost : DataFrame
        What could not be used.

    Returns
    -------
    Path
    """
    model, _, source = facts["method"].rpartition("-")
    method = {"name": facts["method"], "label": label_of(model, source), "kind": kind_of(source)}
    reliable = reliability_facts(folder / "calibration.parquet", [method], facts["method"])
    if reliable and reliable["methods"]:
        reliable["chart"] = reliability_chart(reliable, "Share of actives among tested compounds against probability")
    hits = table[(table["outcome"] == 1) & (table["group"] != "again")]
    pages = environment()
    pages.globals |= {"curves": curves}
    words = pages.get_template("review.html.j2").render(
        facts | {"label": method["label"]},
        version=__version__,
        style=style_sheet(),
        policy=policy([]),
        reliable=reliable,
        joined=JOINED,
        head=facts["groups"].get(facts["headline"]),
        hits=_cards(hits.head(HITS_SHOWN)),
        n_hits=len(hits),
        frames=_frames(frames),
        lists={mode: _rows(part) for mode, part in lists.items()},
        losses=losses(lost),
        order=GROUPS,
        classes=_CLASSES,
    )
    write_text(folder / "review.html", words)
    return folder / "review.html"


def _cards(hits: pd.DataFrame) -> list[dict[str, Any]]:
    """One dict per hit, with drawings."""
    size = (190, 130)
    structures = draw(hits["smiles"].tolist(), size=size)
    nearest = draw(hits["nearest_hit_smiles"].tolist(), size=size)
    rows = hits.to_dict("records")
    return [
        {
            "id": row["compound_id"] or row["compound"],
            "structure": structure,
            "nearest_structure": near if row["nearest_hit"] else "",
            "nearest": row["nearest_hit"],
            "similarity": number(row["similarity"]),
            "score": number(row["score"]),
            "value": number(row["value"]),
            "pick": int(row["pick_order"]),
            "scaffold": "–" if pd.isna(row["new_scaffold"]) else ("new" if row["new_scaffold"] else "known"),
        }
        for row, structure, near in zip(rows, structures, nearest, strict=True)
    ]


def _frames(frames: pd.DataFrame) -> dict[str, Any]:
    """Draw the most frequent new scaffolds."""
    new = frames[frames["new"].astype(bool)]
    shown = new.head(SCAFFOLDS_SHOWN)
    drawn = draw(shown["scaffold"].tolist(), size=(170, 110))
    rows = [
        {"structure": d, "hits": int(h), "examples": e}
        for d, h, e in zip(drawn, shown["hits"], shown["examples"], strict=True)
    ]
    return {"rows": rows, "n": len(new)}


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    shown = table.head(ROWS_SHOWN)
    drawn = draw(shown["smiles"].tolist(), size=(120, 78))
    return [
        {"structure": d, "id": i, "score": number(s), "rank": int(r), "distance": number(f)}
        for d, i, s, r, f in zip(
            drawn, shown["compound_id"], shown["score"], shown["score_rank"], shown["distance"], strict=True
        )
    ]


# --- drawing ----------------------------------------------------------------------------------

WIDE, HIGH = 620, 270
_X0, _X1, _Y0, _Y1 = 44, WIDE - 12, HIGH - 44, 12


def curves(novelty: dict[str, Any]) -> Markup:
    """Draw the density of similarities to the nearest initial hit, one curve per group.

    Parameters
    ----------
    novelty : dict
        As in ``review.json``.
    """
    most = max((max(novelty[g]["density"]) for g in GROUPS), default=0) or 1.0

    def at(x: float, y: float) -> str:
        return f"{_X0 + (_X1 - _X0) * x:.1f} {_Y0 - (_Y0 - _Y1) * y / most:.1f}"

    parts = [line("axis", _X0, _X1, _Y0)]
    for k in range(0, 11, 2):
        x = _X0 + (_X1 - _X0) * k / 10
        parts.append(f'<path class="grid" d="M{x:.1f} {_Y0}V{_Y1}"/>' + text(x, _Y0 + 15, f"{k / 10:g}"))
    told = []
    for group, name in zip(GROUPS, _CLASSES, strict=True):
        facts = novelty[group]
        if not facts["n"]:
            continue
        places = np.linspace(0, 1, len(facts["density"]))
        points = "L".join(at(x, y) for x, y in zip(places, facts["density"], strict=True))
        parts.append(f'<path class="curve {name}" d="M{points}"><title>{escape(group)}</title></path>')
        x = _X0 + (_X1 - _X0) * facts["median"]
        parts.append(f'<path class="curve {name}" d="M{x:.1f} {_Y0 + 5}V{_Y0 - 5}"/>')
        told.append(f"{group}: median {facts['median']:.2f}")
    parts.append(text((_X0 + _X1) / 2, HIGH - 8, "Tanimoto similarity to the nearest initial hit (ECFP, radius 4)"))
    parts.append(text(14, (_Y0 + _Y1) / 2, "density", turn=True))
    label = "Density of the similarity to the nearest initial hit; " + ", ".join(told)
    return Markup(  # noqa: S704  (numbers, our own words and escaped text)
        f'<svg class="chart novelty" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
