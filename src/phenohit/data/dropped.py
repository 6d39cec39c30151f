"""What was left out, and why: one row per well, compound, feature, activity, task or structure."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from phenohit.errors import some

__all__ = ["DROPPED_COLUMNS", "dropped", "listed", "nothing_dropped"]

DROPPED_COLUMNS = ["stage", "what", "id", "reason"]


def dropped(stage: str, what: str, ids: Iterable[object], reason: str | Iterable[str]) -> pd.DataFrame:
    """List things left out.

    Parameters
    ----------
    stage : str
        Step that left them out, e.g. ``"read profiles"``.
    what : str
        One of well, plate, compound, feature, column, row, key, activity, task, structure, hit.
    ids : iterable
        What identifies each thing to the user: file and row, well, compound id, column name.
    reason : str or iterable of str
        One for all or one for each.

    Returns
    -------
    DataFrame
        Columns ``stage, what, id, reason``, all text.
    """
    ids = [str(i) for i in ids]
    reasons = [reason] * len(ids) if isinstance(reason, str) else list(reason)
    return pd.DataFrame({"stage": stage, "what": what, "id": ids, "reason": reasons}, dtype=str)[DROPPED_COLUMNS]


def nothing_dropped() -> pd.DataFrame:
    """Return an empty table of the same form."""
    return pd.DataFrame({c: pd.Series(dtype=str) for c in DROPPED_COLUMNS})


def listed(stage: str, what: str, ids: Iterable[object], reason: str | Iterable[str], most: int = 1000) -> pd.DataFrame:
    """List things one by one, or with their number and the first ten where they are more than `most`."""
    ids = [str(i) for i in ids]
    reasons = [reason] * len(ids) if isinstance(reason, str) else list(reason)
    if len(ids) <= most:
        return dropped(stage, what, ids, reasons)
    return dropped(stage, what, [f"{len(ids)} of them"], f"such as {some(ids)}: {reasons[0]}")
