"""A run's results in the form of the tables of Hofmarcher et al. 2019, the published numbers beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.roc_pairs import pair_tests
from phenohit.files import read_json, read_table
from phenohit.studies.hofmarcher2019_paper import COSTS, P_VALUES, RESULTS

__all__ = ["NETWORKS", "costs", "gapnet_against_fnn", "pairs", "performance"]

_LEVELS = (0.9, 0.8, 0.7)
# The paper's methods, in the order of its Table 1, by their names in a run.
NETWORKS = {name: f"{name}-{ {'sccnn': 'crops', 'network': 'profiles'}.get(name, 'views') }" for name in RESULTS}


def performance(split: Path) -> pd.DataFrame:
    """Table 1: how well every method predicts.

    Parameters
    ----------
    split : Path
        ``splits/<split>`` of a run.

    Returns
    -------
    DataFrame
        The paper's methods in its order, whether they were run or not, then those that the paper does not have:
        ``method, model, input, paper`` (name there, or ''), ``tasks`` (with an AUROC), ``auroc, auroc_sd, f1, f1_sd``
        (mean and standard deviation over tasks of the mean over splits), ``above_0.9`` and so on with ``_chance,
        _chance_low, _chance_high`` (the same count for random scores), and each of them as ``paper_<name>``.
    """
    metrics, summary = read_table(split / "metrics.parquet")[0], read_json(split / "summary.json")
    own = {str(name): part for name, part in metrics.groupby("method", sort=False)}
    rows = []
    for model, method in NETWORKS.items():
        row = _ours(method, own.pop(method, None), summary) | {"model": model, "paper": RESULTS[model].name}
        rows.append(row | _printed(model))
    rows += [_ours(method, part, summary) | {"paper": ""} for method, part in own.items()]
    return pd.DataFrame(rows)


def _ours(method: str, part: pd.DataFrame | None, summary: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "model": "", "input": method.rpartition("-")[2], "paper": "", "tasks": 0}
    if part is not None:
        row |= {"model": part["model"].iloc[0], "input": part["input"].iloc[0], "tasks": int(part["auroc"].count())}
    for name in ("auroc", "f1"):
        values = pd.Series(dtype=float) if part is None else part[name].astype(float)
        row |= {name: values.mean(), f"{name}_sd": values.std(ddof=1)}
    for level in _LEVELS:
        found = summary[method]["above"][str(level)] if part is not None else {}
        row |= {f"above_{level}": found.get("count"), f"above_{level}_chance": found.get("expected")}
        row |= {f"above_{level}_chance_low": found.get("low"), f"above_{level}_chance_high": found.get("high")}
    return row


def _printed(model: str) -> dict[str, float]:
    known = RESULTS[model]
    row: dict[str, float] = {f"paper_{name}": getattr(known, name) for name in ("auroc", "auroc_sd", "f1", "f1_sd")}
    return row | {f"paper_above_{level}": n for level, n in zip(_LEVELS, known.above, strict=True)}


def pairs(split: Path) -> pd.DataFrame:
    """Table 2: which method is better than which, over tasks.

    Returns
    -------
    DataFrame, one row per cell of the paper's table
        ``method, other`` (names in the run), ``paper_method, paper_other``, ``n_tasks, mean_difference, p_value,
        p_holm`` (of ``compare.csv``: that `method` is better; NaN where one was not run) and ``paper_p_value``.
    """
    table = pd.read_csv(split / "compare.csv")
    known = table.set_index(["method", "other"])[["n_tasks", "mean_difference", "p_value", "p_holm"]]
    rows = []
    for (a, b), printed in P_VALUES.items():
        pair = (NETWORKS[a], NETWORKS[b])
        ours = known.loc[[pair]].iloc[0].to_dict() if pair in known.index else dict.fromkeys(known.columns, np.nan)
        names = {"paper_method": RESULTS[a].name, "paper_other": RESULTS[b].name}
        rows.append({"method": pair[0], "other": pair[1], **names, **ours, "paper_p_value": printed})
    return pd.DataFrame(rows)


def costs(split: Path) -> pd.DataFrame:
    """Table 3: what the networks cost.

    Returns
    -------
    DataFrame
        ``method, paper``; ``parameters, gmac, seconds_epoch, images_per_s`` of the run, on its own images, tasks and
        machine (NaN where it was not run); ``published_parameters, published_gmac`` of our network as published: 209
        tasks, 5 x 520 x 692 pixels (SC-CNN 96 x 96), multiply-adds of convolutions and linear layers; and
        ``paper_parameters, paper_gmac, paper_seconds_epoch``.
    """
    from phenohit.models.vision import PRESETS, make
    from phenohit.models.vision_count import count

    path = split / "costs.csv"
    columns = ["parameters", "gmac", "seconds_epoch", "images_per_s"]
    table = pd.read_csv(path).set_index("method") if path.is_file() else pd.DataFrame(columns=columns)
    rows = []
    for model, method in NETWORKS.items():
        if model == "network":
            continue
        preset = PRESETS[model]
        net = make(preset.network, preset.channels, 209, preset.size, preset.settings)
        parameters, work = count(net, (preset.channels, *preset.size))
        ours = table.reindex(columns=columns).loc[method].to_dict() if method in table.index else {}
        row = {"method": method, "paper": RESULTS[model].name, **{c: ours.get(c, np.nan) for c in columns}}
        printed = COSTS[model]._asdict() if model in COSTS else {}
        row |= {"published_parameters": parameters, "published_gmac": work / 1e9}
        rows.append(row | {f"paper_{c}": printed.get(c, np.nan) for c in columns[:3]})
    return pd.DataFrame(rows)


def gapnet_against_fnn(run: Path, split: Path, *, permutations: int = 2000, seed: int = 0) -> pd.DataFrame | None:
    """Test GapNet against the network on profiles task by task, on the first repeat, as the paper's Figure 4.

    Parameters
    ----------
    run, split : Path
        Run folder, and ``splits/<split>`` in it.
    permutations, seed : int
        See `phenohit.evaluate.roc_test.roc_tests`.

    Returns
    -------
    DataFrame or None
        See `phenohit.evaluate.roc_pairs.pair_tests`; None where one of the two was not run.
    """
    files = {m: split / "predictions" / f"{m}.parquet" for m in (NETWORKS["gapnet"], NETWORKS["network"])}
    if not all(f.is_file() for f in files.values()) or permutations < 1:
        return None
    labels = Labels.load(run / "labels.parquet")
    entries = {m: Entries.of(labels, Predictions.load(f)) for m, f in files.items()}
    metrics = read_table(split / "metrics.parquet")[0]
    first = int(min(e.fold.min() for e in entries.values())) if "interval_repeat" in metrics else -1
    repeats = dict.fromkeys(files, first)
    return pair_tests(
        [(NETWORKS["gapnet"], NETWORKS["network"])], entries.__getitem__,
        split=split.name, repeat=repeats, permutations=permutations, seed=seed,
    )  # fmt: skip
