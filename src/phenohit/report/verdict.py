"""The answer in a few plain sentences and numbers."""

from __future__ import annotations

from typing import Any

from phenohit.evaluate.reading import PREDICTABLE, READINGS
from phenohit.report.results import LEVELS

__all__ = ["verdict"]

_SEES = {"image": "morphology", "chemistry": "chemical structure", "baseline": "a baseline"}


def verdict(splits: list[dict[str, Any]], hits: list[dict[str, Any]], *, images: bool = True) -> dict[str, Any]:
    """Say what came out.

    Parameters
    ----------
    splits : list of dict
        As made by `report.results.split_facts`; the first one is read out in full.
    hits : list of dict
        As made by `report.picks.hits_facts`.
    images : bool
        Whether the run had image profiles.

    Returns
    -------
    dict
        ``sentences`` (list of str), ``alarm`` (str, empty where all is well) and ``tiles`` (list of dict value,
        label, note).
    """
    sentences, tiles = [], []
    if not images:
        sentences.append("This run had no images: its profiles are fingerprints of the structures.")
    for i, split in enumerate(splits):
        told = _split(split)
        if told is None:
            continue
        sentences.append(told["first"] if i == 0 else told["other"])
        tiles += told["tiles"] if i == 0 else []
    if not any(split["lead"] for split in splits):
        sentences.append("No results have been computed yet.")
    alarm, calm = _leaks(splits)
    sentences += [calm] if calm else []
    n_picked = sum(hit["n_picked"] for hit in hits)
    if hits:
        sentences.append(f"{n_picked:,} picks for {_count(len(hits), 'task')} are listed below and in the hits folder.")
        tiles.append({"value": f"{n_picked:,}", "label": "compounds picked", "note": _count(len(hits), "task")})
    return {"sentences": sentences, "alarm": alarm, "tiles": tiles}


def _leaks(splits: list[dict[str, Any]]) -> tuple[str, str]:
    """Read the leak checks: an alarm, or a calm sentence; '' for the other."""
    failed = [
        f"{leak['check']} (split '{s['name']}')" for s in splits for leak in s["leaks"] if leak["state"] == "fail"
    ]
    if failed:
        shown = "; ".join(failed[:4]) + (f" and {len(failed) - 4} more" if len(failed) > 4 else "")
        return f"The leak check failed: {shown}. Do not trust the results before this is understood.", ""
    unchecked = [f"'{split['name']}'" for split in splits if not split["leaks"]]
    if unchecked:
        return f"Not checked for leaks: split {', '.join(unchecked)}.", ""
    return "", "Every split passed its leak check." if splits else ""


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _split(split: dict[str, Any]) -> dict[str, Any] | None:
    """Sentences and tiles of one split."""
    method = next((m for m in split["methods"] if m["name"] == split["lead"]), None)
    if method is None:
        return None
    level = method["counts"][LEVELS.index("0.7")]
    readings, auroc = split["tasks"]["readings"][split["lead"]], split["tasks"]["values"][split["lead"]]["auroc"]
    above = [
        READINGS[code]["name"] for code, value in zip(readings, auroc, strict=True) if value is not None and value > 0.7
    ]
    kept = sum(name == READINGS[PREDICTABLE]["name"] for name in above)
    total = len(auroc)
    seen = _SEES[method["kind"]]
    chance = "" if level["expected"] is None else f" (chance: {level['expected']:.1f})"
    first = (
        f"Of {_count(total, 'task')}, {level['count']:,.0f} {'is' if level['count'] == 1 else 'are'} predicted above "
        f"AUROC 0.7 from {seen}{chance}, by {method['label']} under the split '{split['name']}'."
    )
    compared = bool(split["tasks"]["cell_count"] or split["tasks"]["plate"])
    if above and compared:
        first += " " + _parts(above, split["tasks"])
    other = (
        f"Under the split '{split['name']}' it is {level['count']:,.0f} of {total:,}{chance}, "
        f"{kept:,} of them beyond every baseline (best method: {method['label']})."
    )
    range_ = "" if level["low"] is None else f"; 95 % range {level['low']:.0f} to {level['high']:.0f}"
    tiles = [
        {
            "value": f"{level['count']:,.0f}",
            "label": "tasks above AUROC 0.7",
            "note": f"of {total:,}"
            + ("" if level["expected"] is None else f"; chance {level['expected']:.1f}{range_}"),
        },
        {
            "value": f"{kept:,}",
            "label": "of these beyond every baseline" if compared else "of these above their own chance range",
            "note": "not explained by cell count or plate" if compared else "no cell count or plate to compare with",
        },
        {
            "value": "not computed" if method["mean"] is None else f"{method['mean']:.3f}",
            "label": "mean AUROC",
            "note": method["label"] + _interval(method),
        },
    ]
    return {"first": first, "other": other, "tiles": tiles}


def _interval(method: dict[str, Any]) -> str:
    if method["low"] is None or method["high"] is None:
        return ""
    return f"; {method['low']:.2f} to {method['high']:.2f}"


def _parts(above: list[str], marks: dict[str, Any]) -> str:
    """Say what the tasks above 0.7 owe to the baselines and to luck."""
    kept, close = above.count(READINGS[PREDICTABLE]["name"]), above.count("baseline comes close")
    explained = {name: above.count(name) for name in ("explained by cell count", "explained by plate")}
    lucky = above.count("too few labels") + above.count("not above chance")
    baselines = " or ".join(text for key, text in (("cell_count", "cell count"), ("plate", "plate")) if marks[key])
    parts = [f"{n:,} {'is' if n == 1 else 'are'} {name}" for name, n in explained.items() if n]
    if close:
        parts.append(f"for {close:,} a baseline comes close")
    if lucky:
        parts.append(f"{lucky:,} {'has' if lucky == 1 else 'have'} so few labels that random scores reach as much")
    told = f"{kept:,} of these {'is' if kept == 1 else 'are'} not explained by {baselines}"
    return told + (f"; {', '.join(parts)}." if parts else ".")
