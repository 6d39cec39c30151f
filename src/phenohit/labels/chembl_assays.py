"""Assays of a ChEMBL database: which are left out by the settings, and what is known about each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from phenohit.config import ActivitySource
from phenohit.data.columns import match
from phenohit.errors import LabelError, nearest
from phenohit.labels.database import masked
from phenohit.labels.records import ABOUT
from phenohit.labels.rules import code
from phenohit.labels.statements import floats, integers, light, stream, texts

__all__ = ["Assays", "assay_rules", "describe", "excluded", "read_assays"]


class Assays(NamedTuple):
    """Assays in the order of their number: `number` (int64), `name`, `type`, `confidence`, `target` (tid)."""

    number: NDArray[np.int64]
    name: NDArray
    type: NDArray
    confidence: NDArray[np.float64]
    target: NDArray[np.int64]


def read_assays(connection: Any) -> Assays:
    """Read number, name, type, confidence and target of every assay."""
    from sqlalchemy import select

    a = light("assays")
    parts = [
        (integers(n), texts(names), texts(kinds), floats(scores), integers(targets))
        for n, names, kinds, scores, targets in stream(
            connection, select(a.c.assay_id, a.c.chembl_id, a.c.assay_type, a.c.confidence_score, a.c.tid)
        )
    ]
    if not parts:
        return Assays(*(np.zeros(0, dtype=d) for d in (np.int64, object, object, np.float64, np.int64)))
    number, name, kind, score, target = zip(*parts, strict=True)
    order = np.argsort(np.concatenate(number))
    names = pa.chunked_array(name).to_pandas().to_numpy(object)[order]
    return Assays(
        np.concatenate(number)[order], names, pa.chunked_array(kind).to_pandas().to_numpy(object)[order],
        np.concatenate(score)[order], np.concatenate(target)[order],
    )  # fmt: skip


def assay_rules(connection: Any, source: ActivitySource, assays: Assays) -> tuple[NDArray[np.int8], Any]:
    """Return the rule that leaves each assay out (-1: none), and the same as a condition of SQL (None: none)."""
    from sqlalchemy import and_, func

    how, a = source.curate, light("assays")
    rule, conditions = np.full(len(assays.number), -1, dtype=np.int8), []
    named = pd.Index(assays.name)
    if how.assays:
        for name in how.assays:
            if name not in named:
                known = [n for n in named[:100_000]]
                raise LabelError(
                    f"curate.assays names '{name}', which '{masked(source.path)}' has not. {nearest(name, known)}"
                )
        rule[~named.isin(how.assays)] = code("assay")
        conditions.append(a.c.chembl_id.in_(how.assays))
    if source.assays or source.ignore:  # patterns: decided here alone
        names = [str(n) for n in named]
        kept = match(names, source.assays, "activities.assays") if source.assays else set(names)
        kept -= match(names, source.ignore, "activities.ignore")
        rule[~named.isin(list(kept))] = code("assay")
    steps: list[tuple[NDArray[np.bool_], str]] = []
    if how.targets:
        tids = _targets(connection, source)
        steps.append((~np.isin(assays.target, tids), "target"))
        conditions.append(func.coalesce(a.c.tid, -1).in_(tids))
    if how.assay_types:
        steps.append((~pd.Series(assays.type).isin(how.assay_types).to_numpy(), "assay type"))
        conditions.append(func.coalesce(a.c.assay_type, "").in_(how.assay_types))
    if how.min_confidence > 0:
        steps.append((~(assays.confidence >= how.min_confidence), "confidence"))
        conditions.append(func.coalesce(a.c.confidence_score, -1) >= how.min_confidence)
    for out, name in steps:
        rule[out & (rule < 0)] = code(name)
    if (rule >= 0).all():
        raise LabelError(
            f"No assay of '{masked(source.path)}' passes curate.assays, targets, assay_types and min_confidence "
            f"(there are {len(rule):,}). Loosen them."
        )
    return rule, and_(*conditions) if conditions else None


def _targets(connection: Any, source: ActivitySource) -> list[int]:
    """Return the numbers of the targets that the settings name by id or name."""
    from sqlalchemy import select

    t = light("target_dictionary")
    table = pd.DataFrame(
        connection.execute(select(t.c.tid, t.c.chembl_id, t.c.pref_name)).fetchall(), columns=["tid", "id", "name"]
    )
    chosen: list[int] = []
    for target in source.curate.targets:
        hit = (table["id"] == target) | (table["name"].str.casefold() == target.casefold())
        if not hit.any():
            known = [*table["name"].dropna(), *table["id"]]
            raise LabelError(
                f"curate.targets names '{target}', which '{masked(source.path)}' has not. {nearest(target, known)}"
            )
        chosen += table["tid"][hit].tolist()
    return sorted(set(map(int, chosen)))


def excluded(connection: Any, assays: Assays, rule: NDArray[np.int8], condition: Any) -> dict[int, int]:
    """Count the records that the condition leaves out, by rule."""
    from sqlalchemy import func, not_, select

    if condition is None:
        return {}
    act, a = light("activities"), light("assays")
    statement = (
        select(act.c.assay_id, func.count())
        .select_from(act.join(a, act.c.assay_id == a.c.assay_id))
        .where(not_(condition))
        .group_by(act.c.assay_id)
    )
    rows = connection.execute(statement).fetchall()
    if not rows:
        return {}
    number, n = (np.array(c, dtype=np.int64) for c in zip(*rows, strict=True))
    rules = rule[np.searchsorted(assays.number, number)]
    return {int(r): int(n[rules == r].sum()) for r in np.unique(rules)}


def describe(connection: Any, assays: Assays, positions: NDArray[np.integer]) -> pd.DataFrame:
    """Read what the table of tasks says about some assays."""
    from sqlalchemy import select

    a, t = light("assays"), light("target_dictionary")
    statement = select(
        a.c.assay_id, t.c.chembl_id, t.c.pref_name, t.c.target_type, t.c.organism, a.c.assay_type,
        a.c.confidence_score, a.c.description,
    ).select_from(a.outerjoin(t, a.c.tid == t.c.tid))  # fmt: skip
    asked = assays.number[positions]
    if len(asked) <= 10_000:
        parts = [asked[i : i + 500].tolist() for i in range(0, len(asked), 500)]
        rows = [r for p in parts for r in connection.execute(statement.where(a.c.assay_id.in_(p))).fetchall()]
    else:
        chosen = set(asked.tolist())
        rows = [r for block in stream(connection, statement) for r in zip(*block, strict=True) if r[0] in chosen]
    table = pd.DataFrame(rows, columns=["number", *ABOUT]).set_index("number").reindex(asked)
    table["confidence"] = [f"{c:g}" if c == c and c is not None else "" for c in table["confidence"]]
    return table.astype(object).where(table.notna(), "").astype(str).reset_index(drop=True)
