"""What was left out, and why: one row per well, compound, feature, activity, task or structure."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

__all__ = ["DROPPED_COLUMNS", "dropped", "nothing_dropped"]

DROPPED_COLUMNS = ["stage", "what", "id", "reason"]


def dropped(stage: str, what: str, ids: Iterable[object], reason: str | Iterable[str]) -> pd.DataFrame:
    """List things left out.

    Parameters
    ----------
    stage : str
        Step that left them out, e.g. ``"read profiles"``.
    what : {'well', 'compound', 'feature', 'activity', 'task', 'structure', 'hit'}
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
