"""What a review found, in a few plain lines for the terminal."""

from __future__ import annotations

from pathlib import Path

from phenohit.files import read_json

__all__ = ["headline"]


def headline(folder: Path) -> str:
    """Return the numbers of a review and what to do next."""
    facts = read_json(folder / "review.json")
    lines = ["", f"{facts['task']}: what the lab found"]
    if facts["simulated"]:
        lines.append("SIMULATED data: these figures say nothing about real compounds.")
    for group in facts["groups"].values():
        line = (
            f"  {group['what']}: {group['hits']:,} of {group['tested']:,} active, {group['rate']:.1%} "
            f"[{group['low']:.1%}, {group['high']:.1%}]"
        )
        fold = group["enrichment"]
        if fold["fold"] is not None:
            low, high = (f"{v:.1f}" if v is not None else e for v, e in ((fold["low"], "0"), (fold["high"], "inf")))
            line += f", {fold['fold']:.1f} times the primary rate of {facts['primary']['rate']:.3%} [{low}, {high}]"
        lines.append(line)
    if facts["promised"]:
        p = facts["promised"]
        lines.append(f"  promised: {p['expected']:.1f} hits [{p['low']}, {p['high']}]; found: {p['found']}")
    found = facts["scaffolds"]
    lines.append(f"  {found['scaffolds']:,} scaffolds on new hits, {found['new_scaffolds']:,} of them new")
    lines += [f"  Note: {note}" for note in facts["notes"]]
    lines += [
        "  The rate is that of this selection; it is no estimate for other compounds.",
        f"Review: {folder / 'review.html'}",
        f"Next round, by the scores as they were: {folder / 'next_*.csv'}",
        f"Fit with the results: {facts['refit']}",
        "",
    ]
    return "\n".join(lines)
