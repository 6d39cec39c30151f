"""What the few-shot page tells: who leads and how surely, who gains, which tasks are alike, what wells flatter."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from phenohit.labels.overlap import near_duplicates
from phenohit.report.facts import losses
from phenohit.report.tables import number

__all__ = [
    "cost_facts", "gain_facts", "headline", "leak_facts", "matrix_facts", "overlap_facts", "task_facts",
]  # fmt: skip

LEVEL = 0.05  # p at or below which, after correction, a difference is called more than noise
GAIN_TASKS = 40  # tasks of a chart of gains
MAP_TASKS = 60  # tasks of the overlap map
LISTED = 500  # rows of a folded list

Facts = dict[str, Any]


# --- who leads --------------------------------------------------------------------------------


def headline(table: pd.DataFrame, compared: pd.DataFrame, methods: list[Facts]) -> Facts:
    """Say which method leads at each support size, and whether by more than noise.

    Parameters
    ----------
    table, compared : DataFrame
        ``table.csv`` and ``compare.csv``.
    methods : list of dict
        ``name, method, label`` of each.

    Returns
    -------
    dict
        ``told`` (list of sentences) and ``rows``, one per size: ``size, n, label, value, low, high``; ``plain`` (the
        best logistic regression) and ``second`` (the runner-up): None or a dict of ``label, value, p, holm, n``;
        ``rate`` (float or None) and ``verdict`` (its code and words).

    Notes
    -----
    The p-values are those of one-sided Wilcoxon tests over tasks that the leader is better, corrected (Holm) for all
    ordered pairs of methods of the size. The leader is chosen on the tasks that it is tested on, which favours it.
    """
    known = {m["name"]: m for m in methods}
    part = table[(table["tasks"] == "all") & table["auroc"].notna() & table["method"].isin(list(known))]
    tests = compared[compared["metric"] == "auroc"] if len(compared) else compared
    rows = [_leader(int(size), at, tests, known) for size, at in part.groupby("size")]  # type: ignore[call-overload]
    return {"rows": rows, "told": [*_who(rows), _how_sure(rows)] if rows else []}


def _leader(size: int, at: pd.DataFrame, tests: pd.DataFrame, known: dict[str, Facts]) -> Facts:
    order = at.sort_values("auroc", ascending=False, kind="stable")
    first = order.iloc[0]
    of = {name: order[[known[m]["method"] == name for m in order["method"]]] for name in ("logistic", "rate")}
    lead = known[first["method"]]
    row: Facts = {"size": size, "n": int(first["n_tasks"]), "name": lead["name"], "label": lead["label"]}
    row |= {key: number(first[f"auroc{end}"]) for key, end in (("value", ""), ("low", "_low"), ("high", "_high"))}
    row["rate"] = number(of["rate"]["auroc"].iloc[0]) if len(of["rate"]) else None
    row["plain"] = _against(lead["name"], of["logistic"], tests, known, size)
    row["second"] = _against(lead["name"], order.iloc[1:], tests, known, size)
    row["verdict"] = _verdict(row, lead)
    return row


def _against(lead: str, others: pd.DataFrame, tests: pd.DataFrame, known: dict[str, Facts], size: int) -> Facts | None:
    """Find the best of some other methods, and the test that the leader is better than it."""
    if not len(others):
        return None
    other = others.iloc[0]
    found: Facts = {"label": known[other["method"]]["label"], "value": number(other["auroc"])}
    found |= {"same": other["method"] == lead, "p": None, "holm": None, "n": 0}
    if len(tests):
        at = (tests["size"] == size) & (tests["method"] == lead) & (tests["other"] == other["method"])
        for test in tests[at].to_dict("records"):
            found |= {"p": number(test["p_value"]), "holm": number(test["p_holm"]), "n": int(test["n_tasks"])}
    return found


def _verdict(row: Facts, lead: Facts) -> tuple[str, str]:
    if row["low"] is not None and row["low"] <= 0.5:
        return "guessing", "cannot be told from guessing"
    if row["plain"] is None:
        return "unknown", "logistic regression was not run"
    if row["plain"]["same"]:
        return "plain", "logistic regression itself leads"
    if row["plain"]["holm"] is None:
        return "untested", "too few tasks to test"
    if row["plain"]["holm"] <= LEVEL:
        return "sure", "more than noise"
    return "noise", "may be noise"


def _counted(sizes: list[int]) -> str:
    words = [str(s) for s in sizes]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _at(sizes: list[int], rows: list[Facts]) -> str:
    return "at every support size" if len(sizes) == len(rows) > 1 else f"with {_counted(sizes)} compounds"


def _who(rows: list[Facts]) -> list[str]:
    """One sentence for every run of sizes with the same leader."""
    told = []
    for label, group in groupby(rows, key=lambda r: r["label"]):
        same = list(group)
        sizes, ends = _counted([r["size"] for r in same]), [same[0], same[-1]][: len(same)]
        scores = " to ".join(_score(r, len(same) > 1) for r in ends)
        others = []
        if ends[0]["plain"] and not ends[0]["plain"]["same"]:
            others.append(f"logistic regression reaches {_range([r['plain']['value'] for r in ends])}")
        if ends[0]["rate"] is not None:
            others.append(f"the base rate {_range([r['rate'] for r in ends])}")
        more = f"; {', '.join(others)}" if others else ""
        told.append(f"With {sizes} measured compounds {label} leads: mean AUROC {scores}{more}.")
    return told


def _score(row: Facts, several: bool) -> str:
    """Write a mean with its interval and its number of tasks."""
    span = "" if row["low"] is None else f"95 % interval {row['low']:.3f} to {row['high']:.3f}, "
    at = f" at {row['size']}" if several else ""
    return f"{row['value']:.3f}{at} ({span}{row['n']} test task{'s' * (row['n'] != 1)})"


def _range(values: list[float]) -> str:
    words = [f"{v:.3f}" for v in values]
    return words[0] if len(set(words)) == 1 else f"{words[0]} to {words[-1]}"


def _how_sure(rows: list[Facts]) -> str:
    """Say at which sizes the lead is more than noise, and what to do."""
    at: dict[str, list[int]] = {}
    for row in rows:
        at.setdefault(row["verdict"][0], []).append(row["size"])
    words = {
        "guessing": "{} even the best cannot be told from guessing: its interval reaches 0.5.",
        "sure": "{} the lead over logistic regression is more than noise.",
        "noise": "{} the lead over logistic regression may be noise: nothing here speaks against the plainer method.",
        "plain": "{} nothing is better on average than logistic regression: use it.",
        "untested": "{} there are too few tasks to test the lead over logistic regression (5 that differ are needed): "
        "take it as a hint.",
        "unknown": "{} logistic regression was not run, so nothing tells whether a plainer method would do as well.",
    }
    told = [sentence.format(_at(at[code], rows)) for code, sentence in words.items() if code in at]
    tested = [r for r in rows if r["second"] and r["second"]["holm"] is not None]
    alike = [r["size"] for r in tested if r["second"]["holm"] > LEVEL]
    if alike:
        told.append(f"{_at(alike, rows)} leader and runner-up cannot be told apart: either may be the better one.")
    elif tested:
        told.append("The lead over the runner-up is more than noise wherever it could be tested.")
    if tested:
        told.append(f"(Paired Wilcoxon tests over tasks; noise: p above {LEVEL:g} after Holm’s correction.)")
    return " ".join(t[0].upper() + t[1:] for t in told)


# --- who gains, and tests ---------------------------------------------------------------------


def gain_facts(
    gains: pd.DataFrame, tasks: pd.DataFrame, methods: list[Facts], sizes: list[int], reference: str
) -> Facts:
    """Gains of the methods that learn from other tasks.

    Returns
    -------
    dict
        ``lines`` (one per method and size: tasks that surely gain and lose), ``charts`` for
        `phenohit.fewshot.drawings.gain_chart`, ``pretrained`` and ``ran`` (bool: is there such a method, was the
        reference run).
    """
    labels = {m["name"]: m["label"] for m in methods}
    n = dict(zip(tasks["task"], (tasks["n_active"] + tasks["n_inactive"]).astype(int), strict=True))
    pretrained = [m["name"] for m in methods if m["pretrains"]]
    lines, charts, missing = [], [], []
    for name in pretrained:
        mine = gains[gains["method"] == name].dropna(subset=["gain"]) if len(gains) else gains
        if not len(mine):
            missing.append(labels[name])
            continue
        base = str(mine["reference"].iloc[0])
        for k, size in enumerate(sizes):
            part = mine[mine["size"] == size]
            if not len(part):
                continue
            facts = {"label": labels[name], "reference": labels.get(base, base), "size": size, "n": len(part), "a": k}
            part = part.assign(sure=part["p_holm"] <= LEVEL)
            won, lost = (int((part["sure"] & way).sum()) for way in (part["gain"] > 0, part["gain"] < 0))
            lines.append(facts | {"won": won, "lost": lost, "mean": number(part["gain"].mean())})
            charts.append(facts | {"rows": _gain_rows(part, n)})
    ran = any(m["name"].rpartition("-")[0] == reference for m in methods)
    return {"lines": lines, "charts": charts, "missing": missing, "reference": reference,
            "pretrained": bool(pretrained), "ran": ran}  # fmt: skip


def _gain_rows(part: pd.DataFrame, n: dict[str, int]) -> list[Facts]:
    order = part.sort_values("gain", ascending=False, kind="stable")
    if len(order) > GAIN_TASKS:
        order = pd.concat([order.head(GAIN_TASKS // 2), order.tail(GAIN_TASKS // 2)])
    return [
        {"task": r["task"], "n": n.get(r["task"]), "gain": r["gain"], "low": number(r["low"]),
         "high": number(r["high"]), "sure": bool(r["sure"])} for r in order.to_dict("records")
    ]  # fmt: skip


def matrix_facts(compared: pd.DataFrame, methods: list[Facts], sizes: list[int], titles: dict[str, str]) -> list[Facts]:
    """Arrange the p-values of every metric and size as a matrix (Ha's thesis, Table 2.1).

    Returns
    -------
    list of dict
        ``title, size, a, b`` (numbers of metric and size), ``n`` (fewest and most tasks) and ``rows``: ``method`` and
        ``cells``, None on the diagonal, else ``p, holm, n, shade`` (2: sure after correction; 1: before it; 0).
    """
    if compared.empty or len(methods) < 2:
        return []
    found = []
    for i, metric in enumerate(m for m in titles if m in set(compared["metric"])):
        for j, size in enumerate(sizes):
            part = compared[(compared["metric"] == metric) & (compared["size"] == size)]
            known = {(r["method"], r["other"]): r for r in part.to_dict("records")}
            rows = [
                {"method": one, "cells": [_cell(known.get((one["name"], m["name"])), one is m) for m in methods]}
                for one in methods
            ]
            n = part["n_tasks"].astype(int)
            span = (int(n.min()), int(n.max())) if len(n) else (0, 0)
            found.append({"a": i, "b": j, "title": titles[metric], "size": size, "rows": rows, "n": span})
    return found


def _cell(row: dict[Any, Any] | None, same: bool) -> Facts | None:
    if same:
        return None
    p, holm = (None, None) if row is None else (number(row["p_value"]), number(row["p_holm"]))
    shade = 2 if holm is not None and holm <= LEVEL else 1 if p is not None and p <= LEVEL else 0
    return {"p": p, "holm": holm, "n": 0 if row is None else int(row["n_tasks"]), "shade": shade}


# --- tasks ------------------------------------------------------------------------------------


def overlap_facts(overlap: pd.DataFrame, tasks: pd.DataFrame) -> Facts:
    """Choose tasks for the overlap map and list near duplicates.

    Parameters
    ----------
    overlap : DataFrame
        ``overlap.parquet``: pairs of tasks that share compounds.
    tasks : DataFrame
        ``tasks.csv``.

    Returns
    -------
    dict
        ``map`` (for `phenohit.fewshot.drawings.overlap_map`; None where fewer than two tasks are there), ``total``
        tasks, ``rows`` (near duplicates, those with a test task first), ``n_alike`` and ``n_test_alike`` (pairs of
        two test tasks) and ``n_told`` (of a test task and one that is learned from).
    """
    role = dict(zip(tasks["task"], tasks["role"], strict=True))
    n = dict(zip(tasks["task"], (tasks["n_active"] + tasks["n_inactive"]).astype(int), strict=True))
    overlap = overlap.assign(alike=near_duplicates(overlap)) if len(overlap) else overlap.assign(alike=False)
    shown = _mapped(overlap, tasks)
    grid = {"jaccard": np.zeros((len(shown),) * 2), "equal": np.zeros((len(shown),) * 2)}
    alike = np.zeros((len(shown),) * 2, bool)
    place = {task: i for i, task in enumerate(shown)}
    inside = overlap[overlap["task_a"].isin(shown) & overlap["task_b"].isin(shown)]
    i, j = (inside[c].map(place).to_numpy(np.intp) for c in ("task_a", "task_b"))
    pairs = (("jaccard", grid["jaccard"]), ("equal_jaccard", grid["equal"]), ("alike", alike))
    for column, square in pairs:
        square[i, j] = square[j, i] = inside[column].to_numpy(square.dtype)
    same = overlap[overlap["alike"].astype(bool)].copy()
    same["role_a"], same["role_b"] = same["task_a"].map(role), same["task_b"].map(role)
    tested = (same[["role_a", "role_b"]] == "test").sum(axis=1)
    told = (tested == 1) & same[["role_a", "role_b"]].isin(["train", "valid"]).any(axis=1)
    same = same.iloc[np.lexsort((-same["equal_jaccard"].to_numpy(np.float64), -tested.to_numpy()))]
    drawn = {"tasks": shown, "roles": [role[t] for t in shown], "n": [n[t] for t in shown], **grid, "alike": alike}
    return {"map": drawn if len(shown) > 1 else None, "total": len(tasks), "n_alike": len(same),
            "n_test": sum(r == "test" for r in drawn["roles"]), "n_tests": int((tasks["role"] == "test").sum()),
            "n_test_alike": int((tested == 2).sum()), "n_told": int(told.sum()),
            "rows": same.head(LISTED).to_dict("records")}  # fmt: skip


def _mapped(overlap: pd.DataFrame, tasks: pd.DataFrame) -> list[str]:
    """Test tasks first, then those that share most with one of them, up to `MAP_TASKS`."""
    test = tasks["task"][tasks["role"] == "test"].tolist()[:MAP_TASKS]
    tested = set(test)
    closest = pd.concat(
        overlap[[a, b, "equal_jaccard"]].set_axis(["one", "task", "share"], axis=1)
        for a, b in (("task_a", "task_b"), ("task_b", "task_a"))
    )
    closest = closest[closest["one"].isin(tested)].groupby("task")["share"].max()
    rest = tasks["task"][~tasks["task"].isin(tested)]
    order = rest.map(closest).fillna(0.0).sort_values(ascending=False, kind="stable").index
    return test + rest.loc[order].tolist()[: MAP_TASKS - len(test)]


def task_facts(tasks: pd.DataFrame) -> Facts:
    """Count tasks by role and reason and list them, tests first.

    Returns
    -------
    dict
        ``n`` in all, ``roles`` (role -> number), ``reasons`` (as `phenohit.report.facts.losses`, a stage per role),
        ``tests`` and ``others``: rows of ``task, role, reason, active, inactive``.
    """
    rows = [
        {"task": r["task"], "role": r["role"], "reason": r["reason"], "active": int(r["n_active"]),
         "inactive": int(r["n_inactive"])} for r in tasks.to_dict("records")
    ]  # fmt: skip
    said = tasks.assign(stage=tasks["role"], what="task", id=tasks["task"])[["stage", "what", "id", "reason"]]
    others = [r for r in rows if r["role"] != "test"]
    return {"n": len(rows), "roles": {str(k): int(v) for k, v in tasks["role"].value_counts().items()},
            "reasons": losses(said[said["reason"] != ""]), "tests": [r for r in rows if r["role"] == "test"],
            "others": others[:LISTED], "n_others": len(others)}  # fmt: skip


# --- costs and the leak -----------------------------------------------------------------------


def cost_facts(costs: pd.DataFrame, methods: list[Facts]) -> list[Facts]:
    """Seconds of every method, in the order of `methods`."""
    by = {r["method"]: r for r in costs.to_dict("records")}
    return [
        {"label": m["label"], "features": int(by[m["name"]]["features"]), "episodes": int(by[m["name"]]["episodes"]),
         "pretrain": number(by[m["name"]]["pretrain_s"]), "score": number(by[m["name"]]["score_s"])}
        for m in methods if m["name"] in by
    ]  # fmt: skip


def leak_facts(leak: pd.DataFrame, methods: list[Facts]) -> Facts | None:
    """Tell what it would flatter to draw wells; None where they were not drawn.

    Returns
    -------
    dict
        ``rows`` (AUROC by method and size) and ``told`` (sentences).
    """
    if leak.empty:
        return None
    labels = {m["name"]: m["label"] for m in methods}
    part = leak[(leak["metric"] == "auroc") & leak["method"].isin(list(labels))]
    rows = [
        {"label": labels[r["method"]], "size": int(r["size"]), "n": int(r["n_tasks"])}
        | {k: number(r[k]) for k in ("wells", "compounds", "difference", "low", "high")}
        for r in part.to_dict("records")
    ]
    known = part.dropna(subset=["difference", "low", "high"])
    if not len(known):
        return {"rows": rows, "told": ["No task could be drawn both ways."]}
    up, down = int((known["low"] > 0).sum()), int((known["high"] < 0).sum())
    most = known.loc[known["difference"].idxmax()]
    n = int(most["n_tasks"])
    told = [
        f"Of {len(known)} pairs of method and support size, AUROC is higher on wells than on compounds in {up}, lower "
        f"in {down}, and not told apart in {len(known) - up - down} (95 % intervals over tasks).",
        f"The largest difference is that of {labels[most['method']]} with {int(most['size'])}: {most['wells']:.3f} on "
        f"wells, {most['compounds']:.3f} on compounds, {_signed(most['difference'])} [{_signed(most['low'])}, "
        f"{_signed(most['high'])}], {n} task{'s' * (n != 1)}.",
    ]
    if up:
        told.append(
            "Such a gain is not there for a compound that is not measured yet: the method has recognised the compound."
        )
    return {"rows": rows, "told": told}


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
