"""What a few-shot benchmark found, in words and tables, beside what was published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from phenohit.config import Config

__all__ = ["PUBLISHED", "study_text"]

# Mean AUROC over 18 tasks at supports of 8, 16, 32, 64, 96 (Ha et al. 2025, released result files). The released scores
# of the other methods of the paper are calls, whose AUROC is not comparable, and are not shown.
PUBLISHED = {
    "protonet_cp": (0.572, 0.608, 0.643, 0.663, 0.680),
    "protonet_cp+": (0.573, 0.619, 0.649, 0.666, 0.680),
    "multitask_cp": (0.580, 0.608, 0.631, 0.662, 0.676),
    "singletask_cp": (0.559, 0.575, 0.598, 0.637, 0.662),
    "maml_cp": (0.567, 0.584, 0.586, 0.609, 0.604),
}
_SIZES = (8, 16, 32, 64, 96)


def study_text(folder: Path, config: Config) -> str:
    """Write the tables of a benchmark as Markdown.

    Parameters
    ----------
    folder : Path
        With ``table.csv``, ``compare.csv``, ``costs.csv``, ``tasks.csv`` and ``dropped.csv``.
    config : Config

    Returns
    -------
    str
    """
    table, compared, costs, tasks = (
        pd.read_csv(folder / f"{name}.csv", keep_default_na=name != "tasks", dtype={"task": str})
        for name in ("table", "compare", "costs", "tasks")
    )
    dropped = pd.read_csv(folder / "dropped.csv", keep_default_na=False)
    roles = tasks["role"].value_counts()
    how = config.fewshot
    lines = [f"# {config.name}: few labels", ""]
    if config.simulated:
        lines += ["SIMULATED data: these figures say nothing about a real screen.", ""]
    drawn = f"{how.episodes} episodes a task, {how.query} compounds scored in each"
    lines += [
        f"{roles.get('test', 0)} test tasks, {roles.get('train', 0)} to learn from, "
        f"{roles.get('valid', 0)} to stop by, {roles.get('left out', 0)} left out; {drawn}.",
        "",
    ]
    for metric, title in (("auroc", "AUROC"), ("delta_auprc", "Average precision above the active share")):
        lines += [f"## {title}", "", *_by_size(table, metric), ""]
    lines += ["## Best at each support size", "", *_best(table, compared), ""]
    if (folder / "leak.csv").exists():
        lines += ["## What drawing wells in the place of compounds would flatter", "", *_leak(folder), ""]
    lines += ["## Seconds", "", *_costs(costs), ""]
    lines += ["## Published (other screens, other tasks: for the size of the numbers only)", "", *_published(), ""]
    lines += [f"{len(dropped)} tasks, or tasks at a support size, are left out; dropped.csv tells why.", ""]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(cells: list[str]) -> list[str]:
    return [_row(cells), _row(["---"] * len(cells))]


def _by_size(table: pd.DataFrame, metric: str) -> list[str]:
    lines = []
    for which in ("all", "every size"):
        part = table[table["tasks"] == which]
        counts = [t.groupby("size")["n_tasks"].first().to_dict() for t in (table[table["tasks"] == "all"], part)]
        if which == "every size" and counts[0] == counts[1]:
            continue
        if not len(part):
            lines += ["No task has compounds enough for every support size.", ""]
            continue
        n = part.groupby("size")["n_tasks"].first()
        label = "all tasks drawn at a size" if which == "all" else "tasks drawn at every size"
        lines += _head([f"mean [95 % interval], {label}", *(f"{size} ({k} tasks)" for size, k in n.items())])
        for method, rows in part.groupby("method", sort=False):
            by = rows.set_index("size")
            cells = [
                f"{by.loc[s, metric]:.3f} [{by.loc[s, metric + '_low']:.3f}, {by.loc[s, metric + '_high']:.3f}]"
                for s in n.index
            ]
            lines.append(_row([str(method), *cells]))
        lines.append("")
    return lines


def _best(table: pd.DataFrame, compared: pd.DataFrame) -> list[str]:
    lines = _head(["support", "highest mean AUROC", "methods that it beats at p <= 0.05 (Wilcoxon over tasks, Holm)"])
    part, tests = table[table["tasks"] == "all"], compared[compared["metric"] == "auroc"]
    for size, rows in part.groupby("size"):
        best = rows.loc[rows["auroc"].idxmax()]
        won = tests[(tests["size"] == size) & (tests["method"] == best["method"]) & (tests["p_holm"] <= 0.05)]
        beaten = ", ".join(won["other"]) or "none"
        lines.append(_row([str(size), f"{best['method']} ({best['auroc']:.3f})", beaten]))
    return lines


def _leak(folder: Path) -> list[str]:
    leak = pd.read_csv(folder / "leak.csv")
    leak = leak[leak["metric"] == "auroc"]
    lines = _head(["AUROC", "support", "wells", "compounds", "difference [95 % interval]", "tasks"])
    for r in leak.itertuples():
        shown = f"{r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}]"
        lines.append(_row([str(r.method), str(r.size), f"{r.wells:.3f}", f"{r.compounds:.3f}", shown, str(r.n_tasks)]))
    return lines


def _costs(costs: pd.DataFrame) -> list[str]:
    lines = _head(["method", "features", "learning from other tasks", "all episodes", "ms an episode"])
    for r in costs.itertuples():
        each = 1000 * np.asarray(r.score_s) / np.asarray(r.episodes)
        lines.append(_row([str(r.method), str(r.features), f"{r.pretrain_s:.1f}", f"{r.score_s:.1f}", f"{each:.1f}"]))
    return lines


def _published() -> list[str]:
    lines = _head(["AUROC", *map(str, _SIZES)])
    return [*lines, *(_row([name, *(f"{v:.3f}" for v in values)]) for name, values in PUBLISHED.items())]
