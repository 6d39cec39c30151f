"""The whole way from scores of one task to a hit list."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import HitsConfig
from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.errors import ShapeError
from phenohit.hits.choose import check_choice, choose
from phenohit.hits.export import CSV_ROWS, HIT_COLUMNS, LIST_COLUMNS, Hits, neutralise, plain
from phenohit.hits.filter import FILTERS, NO_STRUCTURE, NOT_CHECKED, list_dropped, survivors
from phenohit.hits.novelty import novelty
from phenohit.hits.picklist import Layout, check_volume, pick_list, source_wells, to_echo
from phenohit.hits.rank import active_in, candidates, excluded
from phenohit.hits.reasons import cautions, reasons

__all__ = ["build_hits"]


def build_hits(
    task: str,
    score: NDArray[np.floating],
    labels: Labels,
    compounds: pd.DataFrame,
    fingerprints: NDArray[np.uint8] | None,
    wells: pd.DataFrame | None,
    metrics: Mapping[str, Any],
    config: HitsConfig,
    *,
    seed: int = 0,
    jobs: int = 1,
    sources: pd.DataFrame | None = None,
    layout: Layout | None = None,
) -> Hits:
    """Rank, filter, choose and place the compounds to test for one task.

    Parameters
    ----------
    task : str
        A binary task of `labels`.
    score : float array, shape (N,)
        Predicted activity of each compound in `task`; higher is more active.
    labels : Labels
        One row per compound, matched by key.
    compounds : DataFrame, N rows
        The imaged compounds: ``compound``, and where known ``compound_id``, ``smiles``, ``series``,
        ``scaffold``.
    fingerprints : uint8 array, shape (N, B), or None
        Packed ECFP6; a row without any bit stands for an unknown structure. None: no structures.
    wells : DataFrame or None
        Where the compounds were imaged: ``compound``, ``plate``, ``well``, where known
        ``concentration_uM``. Source wells of the pick lists, unless `sources` is given.
    metrics : mapping
        How well the task is predicted: its row of the score table, with ``cell_count_auroc`` and
        ``method`` where known. Used for the reasons, the warnings and the summary only.
    config : HitsConfig
    seed : int
        Same seed, same hits, whatever the order of `compounds` and `wells`.
    jobs : int
        Processes for the chemistry.
    sources : DataFrame, optional
        The compound store's own wells (``compound`` or ``compound_id``, ``plate``, ``well``; where
        known ``plate_type``, ``concentration_uM``). Candidates that are not in it are not picked.
    layout : Layout, optional
        Of the destination plates.

    Returns
    -------
    Hits

    Raises
    ------
    ConfigError, LabelError, ShapeError, ColumnError, PlateError

    Notes
    -----
    The procedure is that of Simm et al. 2018: rank the unmeasured compounds, drop PAINS, cluster
    the best, draw a random handful of each cluster until a plate is full.
    """
    check_choice(config.n, config.pool, config.similarity, config.per_cluster)
    check_volume(config.volume_nl)
    if fingerprints is None:
        fingerprints = np.zeros((len(compounds), 1), dtype=np.uint8)
    if len(fingerprints) != len(compounds):
        raise ShapeError(f"There are {len(compounds)} compounds, but {len(fingerprints)} fingerprints.")
    score = np.asarray(score)
    drop = [name for name in FILTERS if getattr(config, name, False)]

    table = candidates(labels, task, score, compounds)
    out = [excluded(labels, task, score, compounds)]
    table, passed, lost = _eligible(table, task, config, drop, sources, jobs)
    out.append(lost)
    table = _chosen(table, passed, fingerprints, config, seed)
    actives = _actives(labels, task, compounds)
    table = _novel(table, fingerprints, actives, jobs)

    home = wells if sources is None else sources
    table[["plate", "well"]] = source_wells(table, home)[["plate", "well"]]
    table["task"] = task
    table["reason"] = reasons(table, metrics, similarity=config.similarity, filters=drop)
    placed, lost = pick_list(table, home, volume_nl=config.volume_nl, layout=layout, seed=seed)
    echo = to_echo(placed)
    picked = table[table["picked"]]
    flat = picked["compound_id"][picked["smiles"] == ""]
    out += [lost, dropped("SD file", "hit", flat, "picked, but has no structure: not in hits.sdf")]

    summary = _summary(table, labels, task, compounds, actives, config, passed, echo)
    summary |= {"seed": seed, "metrics": plain(dict(metrics)), "n_without_source": len(lost)}
    summary |= {"method": str(metrics.get("method", "")), "warnings": cautions(metrics)}
    summary["notes"] = _notes(summary, echo, sources is not None)
    left_out = pd.concat(out, ignore_index=True)
    return Hits(table[HIT_COLUMNS].reset_index(drop=True), placed[LIST_COLUMNS], echo, left_out, plain(summary))


def _eligible(
    table: pd.DataFrame, task: str, config: HitsConfig, drop: list[str], sources: pd.DataFrame | None, jobs: int
) -> tuple[pd.DataFrame, NDArray[np.bool_], pd.DataFrame]:
    """Filter down the ranking; returns the table, who makes up the pool, and what was left out."""
    lost, here = [], np.ones(len(table), dtype=bool)
    if sources is not None:
        here = (source_wells(table, sources)["plate"] != "").to_numpy()
        stage, reason = f"filter hits for {task}", "not in the compound store's table of source wells"
        lost.append(dropped(stage, "hit", table["compound_id"][~here], reason))
    looked, ok = survivors(table[here], math.ceil(config.pool * config.n), drop=drop, jobs=jobs)
    passed = np.zeros(len(table), dtype=bool)
    passed[here] = ok
    for name in FILTERS:
        table[name] = NOT_CHECKED
        table.loc[here, name] = looked[name]
        if name in drop:
            found = table[name].to_numpy(dtype=object)
            rejected = ~np.isin(found, ["", NO_STRUCTURE, NOT_CHECKED])
            lost.append(list_dropped(table[rejected], name, found[rejected], task))
    return table, passed, pd.concat(lost, ignore_index=True) if lost else dropped("filter hits", "hit", [], "")


def _chosen(
    table: pd.DataFrame, passed: NDArray[np.bool_], fingerprints: NDArray[np.uint8], config: HitsConfig, seed: int
) -> pd.DataFrame:
    """Choose among the pool; the others get cluster -1 and are not picked."""
    pool = table[passed]
    pool = choose(
        pool,
        fingerprints[pool["row"].to_numpy()],
        n=config.n,
        pool=config.pool,
        similarity=config.similarity,
        per_cluster=config.per_cluster,
        seed=seed,
    )
    new = table.assign(cluster=np.int32(-1), picked=False, pick_order=np.int32(0))
    for column in ("cluster", "picked", "pick_order"):
        new.loc[passed, column] = pool[column]
    return new


def _actives(labels: Labels, task: str, compounds: pd.DataFrame) -> pd.DataFrame:
    """Return the imaged compounds known to be active in the task, with their row in `compounds`."""
    rows = np.flatnonzero(active_in(labels, task, compounds))
    text = {c: compounds[c].fillna("").astype(str) for c in ("compound_id", "smiles", "scaffold") if c in compounds}
    table = pd.DataFrame({"compound": compounds["compound"].astype(str), "compound_id": "", "smiles": ""} | text)
    table = table.astype(object).iloc[rows].assign(row=rows)
    return table.assign(compound_id=table["compound_id"].where(table["compound_id"] != "", table["compound"]))


def _novel(table: pd.DataFrame, fingerprints: NDArray[np.uint8], actives: pd.DataFrame, jobs: int) -> pd.DataFrame:
    """Compare the clustered candidates with the known actives; the others stay open."""
    pool = (table["cluster"] >= 0).to_numpy()
    columns = ["scaffold", "new_scaffold", "nearest_active", "nearest_active_smiles", "nearest_similarity"]
    part = table[pool]
    targets = fingerprints[actives["row"].to_numpy()]
    part = novelty(part, fingerprints[part["row"].to_numpy()], actives, targets, jobs=jobs)
    new = table.assign(
        new_scaffold=None, nearest_active="", nearest_active_smiles="", nearest_similarity=np.float32("nan")
    )
    new["new_scaffold"] = new["new_scaffold"].astype(object)
    for column in columns:
        new.loc[pool, column] = part[column]
    return new


def _summary(
    table: pd.DataFrame, labels: Labels, task: str, compounds: pd.DataFrame, actives: pd.DataFrame,
    config: HitsConfig, passed: NDArray[np.bool_], echo: pd.DataFrame,
) -> dict[str, Any]:  # fmt: skip
    """Count what happened."""
    picked = table[table["picked"]]
    sizes = picked["cluster"].value_counts()
    checked = table["pains"] != NOT_CHECKED
    alerts = checked & ~table["pains"].isin(["", NO_STRUCTURE])
    touched = {
        side: echo[f"{side} Plate Barcode"].value_counts().sort_index().to_dict() for side in ("Source", "Destination")
    }
    return {
        "task": task,
        "assay": str(labels.tasks["assay"].iloc[labels.task_names.index(task)]),
        "settings": asdict(config),
        "n_compounds": len(compounds),
        "n_candidates": len(table),
        "n_known_actives": len(actives),
        "n_checked": int(checked.sum()),
        "n_pains": int(alerts.sum()),
        "n_pool": int(passed.sum()),
        "n_pool_clusters": table["cluster"][passed].nunique(),
        "n_asked": config.n,
        "n_picked": len(picked),
        "n_picked_clusters": len(sizes),
        "n_no_structure": int((picked["smiles"] == "").sum()),
        "n_new_scaffold": int(sum(v is True for v in picked["new_scaffold"])),
        "n_with_scaffold": int((picked["scaffold"] != "").sum()),
        "lowest_score": picked["score"].min() if len(picked) else None,
        "most_of_one_cluster": int(sizes.max()) if len(sizes) else 0,
        "cap_lifted": bool(len(sizes) and sizes.max() > config.per_cluster),
        "source_plates": touched["Source"],
        "destination_plates": touched["Destination"],
    }


def _notes(summary: dict[str, Any], echo: pd.DataFrame, from_store: bool) -> list[str]:
    """Say in words what a reader of the list should know."""
    out = []
    asked, picked, cap = summary["n_asked"], summary["n_picked"], summary["settings"]["per_cluster"]
    if picked < asked:
        out.append(f"Only {picked} of {asked} compounds could be picked: no more candidates passed the filters.")
    if summary["cap_lifted"]:
        out.append(
            f"The clusters ran out before {asked} compounds were picked, so the cap of {cap} per cluster was lifted; "
            f"the most from one cluster is {summary['most_of_one_cluster']}."
        )
    if summary["n_no_structure"]:
        out.append(f"{summary['n_no_structure']} picks have no structure: alerts and similarity could not be checked.")
    if summary["n_without_source"]:
        out.append(f"{summary['n_without_source']} picks have no source well and are not in the pick lists.")
    if len(echo) and not from_store:
        out.append(
            "Source wells are those of the imaged plates: replace them by the compound store's own where these differ."
        )
    if not neutralise(echo).equals(echo):
        out.append("Plate names that a spreadsheet would run as a formula carry an apostrophe in the CSV files.")
    out.append(f"hits.csv holds the top {CSV_ROWS * asked:,} of the ranking and all picks; hits.parquet holds all.")
    return out
