"""The whole way from scores of one task to a hit list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import HitsConfig
from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.errors import ShapeError
from phenohit.hits.choose import choose
from phenohit.hits.export import HIT_COLUMNS, LIST_COLUMNS, Hits, plain
from phenohit.hits.filter import NOT_CHECKED, Evidence, list_dropped, survivors
from phenohit.hits.novelty import novelty
from phenohit.hits.off_targets import highest
from phenohit.hits.picklist import Layout, pick_list, source_wells, to_echo
from phenohit.hits.rank import active_in, candidates, excluded
from phenohit.hits.reasons import cautions, reasons
from phenohit.hits.recipes import Recipe, decide
from phenohit.hits.summary import counted, notes

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
    evidence: Evidence | None = None,
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
    evidence : Evidence, optional
        What filters know besides labels and structures: the wells' background and scores in off-target tasks.

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
    recipe = decide(config)
    if fingerprints is None:
        fingerprints = np.zeros((len(compounds), 1), dtype=np.uint8)
    if len(fingerprints) != len(compounds):
        raise ShapeError(f"There are {len(compounds)} compounds, but {len(fingerprints)} fingerprints.")
    score = np.asarray(score)
    known = {"task": task, "labels": labels, "cns": recipe.cns, "off_target_max": recipe.off_target_max, "jobs": jobs}
    evidence = replace(evidence or Evidence(), **known)

    table = candidates(labels, task, score, compounds)
    out = [excluded(labels, task, score, compounds)]
    table, passed, lost = _eligible(table, recipe, sources, evidence)
    out.append(lost)
    table = _chosen(table, passed, fingerprints, recipe, seed)
    actives = _actives(labels, task, compounds)
    table = _novel(table, fingerprints, actives, jobs)

    home = wells if sources is None else sources
    table[["plate", "well"]] = source_wells(table, home)[["plate", "well"]]
    table["task"] = task
    how = {"filters": recipe.filters, "min_score": recipe.min_score}
    table["reason"] = reasons(table, metrics, similarity=recipe.similarity, **how)
    placed, lost = pick_list(table, home, volume_nl=recipe.volume_nl, layout=layout, seed=seed)
    echo = to_echo(placed)
    picked = table[table["picked"]]
    flat = picked["compound_id"][picked["smiles"] == ""]
    out += [lost, dropped("SD file", "hit", flat, "picked, but has no structure: not in hits.sdf")]

    summary = counted(table, labels, task, recipe, passed, echo)
    summary |= {"n_compounds": len(compounds), "n_known_actives": len(actives), "n_without_source": len(lost)}
    summary |= {"seed": seed, "metrics": plain(dict(metrics))}
    summary |= {"method": str(metrics.get("method", "")), "warnings": cautions(metrics)}
    summary["notes"] = notes(summary, echo, sources is not None)
    left_out = pd.concat(out, ignore_index=True)
    table = table[_columns(recipe)].reset_index(drop=True)
    return Hits(table, placed[LIST_COLUMNS], echo, left_out, plain(summary))


def _columns(recipe: Recipe) -> list[str]:
    """Return the columns of the hit table: those of the filters in use follow `pains`."""
    at = HIT_COLUMNS.index("pains") + 1
    more = [name for name in recipe.filters if name != "pains"]
    return [*HIT_COLUMNS[:at], *more, *(["off_target_score"] if recipe.off_targets else []), *HIT_COLUMNS[at:]]


def _eligible(
    table: pd.DataFrame, recipe: Recipe, sources: pd.DataFrame | None, evidence: Evidence
) -> tuple[pd.DataFrame, NDArray[np.bool_], pd.DataFrame]:
    """Filter down the ranking; returns the table, who makes up the pool, and what was left out."""
    lost, here = [], np.ones(len(table), dtype=bool)
    if sources is not None:
        here = (source_wells(table, sources)["plate"] != "").to_numpy()
        reason = "not in the compound store's table of source wells"
        lost.append(dropped(f"filter hits for {evidence.task}", "hit", table["compound_id"][~here], reason))
    if recipe.min_score is not None:  # the reason of each is in the hit table: there may be half a million
        here &= table["score"].to_numpy() >= recipe.min_score
    looked, ok = survivors(table[here], recipe.pool * recipe.n, evidence, drop=recipe.filters, mark=("pains",))
    passed = np.zeros(len(table), dtype=bool)
    passed[here] = ok
    for name in dict.fromkeys(("pains", *recipe.filters)):
        table[name] = NOT_CHECKED
        table.loc[here, name] = looked[name]
    if recipe.off_targets:
        table["off_target_score"] = highest(table, evidence)
    lost.append(list_dropped(table, recipe.filters, evidence.task))
    return table, passed, pd.concat(lost, ignore_index=True)


def _chosen(
    table: pd.DataFrame, passed: NDArray[np.bool_], fingerprints: NDArray[np.uint8], recipe: Recipe, seed: int
) -> pd.DataFrame:
    """Choose among the pool; the others get cluster -1 and are not picked."""
    pool = table[passed]
    pool = choose(
        pool,
        fingerprints[pool["row"].to_numpy()],
        n=recipe.n,
        pool=recipe.pool,
        similarity=recipe.similarity,
        per_cluster=recipe.per_cluster,
        fill=recipe.fill,
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
