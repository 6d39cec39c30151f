"""Say in one plain sentence why a compound was picked or not, and what to be careful about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.hits.filter import findings, rejected

__all__ = ["NEW_CHEMOTYPE", "cautions", "performance", "reasons"]

NEW_CHEMOTYPE = 0.4  # ECFP6 Tanimoto below which two compounds are rarely called analogues


def _value(metrics: Mapping[str, Any], key: str) -> float:
    """Return a metric, NaN where it is missing."""
    value = metrics.get(key)
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError):
        return math.nan


def cautions(metrics: Mapping[str, Any]) -> list[str]:
    """List what a reader must know before trusting the ranking of a task.

    Parameters
    ----------
    metrics : mapping
        Any of ``auroc``, ``auroc_low``, ``auroc_high``, ``chance_high``, ``cell_count_auroc``;
        missing or NaN means not known.

    Returns
    -------
    list of str
        Clauses, the gravest first; empty where nothing speaks against the ranking.
    """
    auroc, low = _value(metrics, "auroc"), _value(metrics, "auroc_low")
    chance_high, count = _value(metrics, "chance_high"), _value(metrics, "cell_count_auroc")
    if math.isnan(auroc):
        return ["the task could not be evaluated, so nothing is known about this ranking"]
    reached = 0.5 if math.isnan(chance_high) else max(chance_high, 0.5)
    out = []
    if low <= 0.5:
        out.append("the AUROC interval includes chance (0.5), so this ranking may be no better than random")
    elif auroc <= reached:
        out.append(f"random scores reach an AUROC of {reached:.2f} on the same labels")
    elif math.isnan(low):
        out.append("the AUROC has no interval")
    if count >= auroc:
        out.append(f"cell count alone ranks as well (AUROC {count:.2f}), so hits may merely be cytotoxic")
    return out


def performance(metrics: Mapping[str, Any]) -> str:
    """Describe how well the task is predicted, e.g. ``task AUROC 0.86 [0.80, 0.91] (chance 0.5, cell count 0.61)``."""
    auroc, low, high = (_value(metrics, k) for k in ("auroc", "auroc_low", "auroc_high"))
    if math.isnan(auroc):
        return "task AUROC unknown"
    interval = "" if math.isnan(low) or math.isnan(high) else f" [{low:.2f}, {high:.2f}]"
    count = _value(metrics, "cell_count_auroc")
    beside = "chance 0.5" if math.isnan(count) else f"chance 0.5, cell count {count:.2f}"
    return f"task AUROC {auroc:.2f}{interval} ({beside})"


def _share(percent: float) -> str:
    """Write a percentage with as many digits as it deserves."""
    if percent >= 10:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent >= 1 else f"{percent:.2g} %"


def _novelty(similarity: float, active: str, new_scaffold: bool | None, smiles: str, linked: float) -> str:
    """Describe the nearest known active and what that makes of the hit."""
    if math.isnan(similarity):
        return "no known active to compare with" if smiles else "no structure to compare with known actives"
    if similarity >= linked - 1e-6:  # float32 against the decimal of the settings
        kind = f"close analogue of {active}"
    elif new_scaffold is False:
        kind = "known scaffold"
    elif similarity < NEW_CHEMOTYPE:
        kind = "new chemotype"
    else:
        kind = "new scaffold" if new_scaffold else "no ring system"
    return f"nearest known active is {similarity:.2f} similar: {kind}"


def reasons(
    table: pd.DataFrame,
    metrics: Mapping[str, Any],
    *,
    similarity: float = 0.7,
    filters: Sequence[str] = ("pains",),
    min_score: float | None = None,
) -> NDArray[np.object_]:
    """Write one sentence or more for every ranked candidate, shape (N,).

    Parameters
    ----------
    table : DataFrame
        The full hit table: score, percentile, pains, cluster, picked, nearest_similarity,
        nearest_active, new_scaffold, smiles.
    metrics : mapping
        See `cautions`.
    similarity : float
        At or above it two compounds are close analogues.
    filters : sequence of str
        Filters that rejected rows.
    min_score : float, optional
        The bar that scores had to reach.
    """
    picked = table["picked"].to_numpy(dtype=bool)
    cluster = table["cluster"].to_numpy()
    full = "Not picked: the list was full before its cluster had its turn."
    out = np.where(np.isin(cluster, cluster[picked]), "Not picked: others of its cluster were drawn.", full)
    out = out.astype(object)
    out[cluster < 0] = "Not picked: ranked below the compounds that were clustered."
    if min_score is not None:
        low = table["score"].to_numpy() < min_score
        out[low] = [f"Not picked: its score {s:.3g} is below the bar of {min_score:g}." for s in table["score"][low]]
    bad = np.zeros(len(table), dtype=bool)
    for name in filters:
        bad |= rejected(table[name].to_numpy(dtype=object))
    bad &= ~picked
    out[bad] = [f"Not picked: {text}." for text in findings(table[bad], filters)]

    care = cautions(metrics)
    end = f"; caution: {', and '.join(care)}." if care else "."
    middle, total = performance(metrics), f"{len(table):,}"
    wanted = ["score", "percentile", "nearest_similarity", "nearest_active", "new_scaffold", "smiles", "pains"]
    rows = table.loc[picked, wanted].itertuples(index=False)
    out[picked] = [
        f"Score {row.score:.2f}, top {_share(100 - row.percentile)} of {total} candidates; {middle}; "
        f"{_novelty(row.nearest_similarity, row.nearest_active, row.new_scaffold, row.smiles, similarity)}"
        f"{_alerted(row.pains)}{end}"
        for row in rows
    ]
    return out


def _alerted(found: str) -> str:
    """Mention an alert that was allowed to pass."""
    return f"; PAINS alert {found}" if rejected(np.array([found], dtype=object))[0] else ""
