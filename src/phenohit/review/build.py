"""Review one task of a run: read results, judge them, fold them in, suggest the next round, write it all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.errors import PhenoHitError
from phenohit.evaluate.calibration import calibration
from phenohit.files import write_json, write_table
from phenohit.hits.export import neutralise, plain
from phenohit.hits.filter import TITLES
from phenohit.hits.rank import active_in, candidates, measured_in
from phenohit.hits.recipes import decide
from phenohit.review.finished import Finished
from phenohit.review.fold_in import fold_in, refit_settings, write_activities
from phenohit.review.judge import GROUPS, density, novelty, promised, scaffold_table
from phenohit.review.next_round import MODES, suggest
from phenohit.review.rates import Primary, enrichment_interval, rate
from phenohit.review.results import Columns, Results, read_results
from phenohit.runs import slug

__all__ = ["review_run"]

log = logging.getLogger("phenohit")

_GROUPS = {
    "picks": "picked by this run",
    "others": "not picked, never measured before",
    "again": "measured in this assay before",
}


def review_run(
    run: str,
    results: str,
    *,
    task: str = "",
    primary: str = "",
    columns: Columns | None = None,
    threshold: float | None = None,
    n: int = 0,
    seed: int | None = None,
) -> Path:
    """Review what the lab measured for a task.

    Parameters
    ----------
    run : path
        Folder of a run that ended with hits.
    results : path
        Table with compounds and outcomes or values.
    task : str
        Of the run; '' where it picked for one task only.
    primary : str
        Actives and tested compounds of the primary screen (``34/4690``), or its rate (``0.725%``); '': the run's
        labels of the task.
    columns : Columns, optional
        Of the results; usual names are found.
    threshold : float, optional
        At or above it a measured number is active; default: the task's own.
    n : int
        Compounds suggested in each mode; 0: as many as the run picked (``hits.n``).
    seed : int, optional
        Of the random sample; default: the run's.

    Returns
    -------
    Path
        The folder ``<run>/review/<task>``. The report of the run, if there is one, is written anew with a link to it.

    Raises
    ------
    PhenoHitError
        For anything the user can mend.
    """
    opened = Finished.open(run)
    name = opened.task(task)
    labels, compounds = opened.labels, opened.compounds
    seed = opened.config.seed if seed is None else seed
    row = labels.tasks.iloc[labels.task_names.index(name)]
    before = measured_in(labels, name, compounds)
    given = Primary(primary) if primary else _from_labels(labels, name)
    found = read_results(
        results, name, compounds, columns=columns, threshold=threshold, task_threshold=float(row["threshold"]),
        join=opened.config.labels.join, jobs=1,
    )  # fmt: skip
    score, picks = opened.score(name), opened.picks(name)
    table = _table(opened, found, score, picks, before)
    initial = active_in(labels, name, compounds)
    new = (found.outcome == 1) & ~initial

    folder = opened.folder / "review" / slug(name)
    near = novelty(compounds["smiles"].astype(str).to_numpy(object), initial, new, seed=seed)
    frames = scaffold_table(compounds, initial, new)
    table = _with_novelty(table, near, frames, compounds)
    facts = _facts(opened, name, results, found, table, picks, given)
    facts |= {"novelty": _novel(near), "scaffolds": _framed(frames, compounds, initial, new)}
    facts["promised"] = _promise(folder, opened, name, table, facts["headline"], given)

    activities, replaced = fold_in(labels, name, found.outcome, found.value)
    write_activities(folder, activities, labels, name)
    facts["notes"] += refit_settings(opened.folder, folder, labels, name)
    facts["refit"] = f"phenohit run {(folder / 'refit.yaml').as_posix()}"
    lists, filtered = _next(opened, name, score, found, before, n or opened.config.hits.n, seed)
    for mode, suggested in lists.items():
        write_table(folder / f"next_{mode}.csv", neutralise(suggested))
    facts["next"] = {mode: {"n": len(t), "what": MODES[mode]} for mode, t in lists.items()}
    facts["filters"] = {name: TITLES.get(name, name) for name in decide(opened.config.hits).filters}
    facts["n_filtered"] = len(filtered)

    untested = picks["compound_id"][~picks["compound"].isin(table["compound"])]
    lost = [
        found.dropped,
        dropped("review results", "hit", untested, "picked, but there is no result"),
        replaced,
        filtered,
    ]
    lost = pd.concat(lost, ignore_index=True)
    write_table(folder / "dropped.csv", lost)
    write_table(folder / "results.csv", neutralise(table.drop(columns="row")))
    write_table(folder / "novelty.parquet", near)
    write_table(folder / "scaffolds.csv", frames)
    write_json(folder / "review.json", plain(facts))

    from phenohit.review.page import write_page

    write_page(folder, plain(facts), table, frames, lists, lost)
    _link(opened.folder)
    return folder


def _link(folder: Path) -> None:
    """Write the report of the run anew, where it has one: it links to the reviews. No step is touched or redone."""
    if not (folder / "report.html").is_file():
        return
    from phenohit.report.build import build_report

    try:
        build_report(folder)
    except PhenoHitError as error:
        log.warning("The review is written, but report.html could not be written anew to link to it: %s", error)


def _from_labels(labels: Labels, task: str) -> Primary:
    """Take the primary screen from the labels the run had of the task."""
    counts = labels.counts().iloc[labels.task_names.index(task)]
    active, inactive = int(counts["n_active"]), int(counts["n_inactive"])
    return Primary(f"{active}/{active + inactive}", "the run's labels of this task, imaged compounds only")


def _table(
    run: Finished, found: Results, score: NDArray[np.float64], picks: pd.DataFrame, before: NDArray[np.bool_]
) -> pd.DataFrame:
    """Lay out one row per measured compound, best score first."""
    rows = np.flatnonzero(~np.isnan(found.outcome))
    part = run.compounds.iloc[rows]
    order = picks.set_index("compound")["pick_order"].reindex(part["compound"]).to_numpy(np.float64)
    group = np.where(before[rows], "again", np.where(np.isnan(order), "others", "picks"))
    table = pd.DataFrame(
        {
            "compound": part["compound"].astype(str).to_numpy(object),
            "compound_id": part["compound_id"].astype(str).to_numpy(object),
            "smiles": part["smiles"].astype(str).to_numpy(object),
            "group": group,
            "pick_order": pd.array(np.nan_to_num(order).astype(int), dtype="Int64"),
            "score": score[rows],
            "outcome": found.outcome[rows].astype(int),
            "value": found.value[rows],
            "series": part["series"].to_numpy(),
            "scaffold": part["scaffold"].astype(str).to_numpy(object),
            "row": rows,
        }
    )
    return table.sort_values(["score", "compound"], ascending=[False, True], ignore_index=True)


def _with_novelty(
    table: pd.DataFrame, near: pd.DataFrame, frames: pd.DataFrame, compounds: pd.DataFrame
) -> pd.DataFrame:
    """Add to every new hit its nearest initial hit, and whether its scaffold is new."""
    mine = near[near["group"] == GROUPS[1]].set_index("row").reindex(table["row"])
    where = mine["nearest"].fillna(-1).to_numpy(int)
    ids = np.append(compounds["compound_id"].astype(str).to_numpy(object), "")
    smiles = np.append(compounds["smiles"].astype(str).to_numpy(object), "")
    known = frames.set_index("scaffold")["new"].to_dict()
    hit = (table["outcome"] == 1).to_numpy()
    new = [known.get(s) if h else None for s, h in zip(table["scaffold"], hit, strict=True)]
    return table.assign(
        nearest_hit=ids[where], nearest_hit_smiles=smiles[where], similarity=mine["similarity"].to_numpy(),
        new_scaffold=pd.array(new, dtype="boolean"),
    )  # fmt: skip


def _facts(
    run: Finished, task: str, path: str, found: Results, table: pd.DataFrame, picks: pd.DataFrame, primary: Primary
) -> dict[str, Any]:
    """Count hits in each group of compounds and compare the rate with the primary screen."""
    groups = {}
    for group, words in _GROUPS.items():
        mine = table[table["group"] == group]
        if len(mine):
            numbers = rate(int(mine["outcome"].sum()), len(mine))
            fold = enrichment_interval(numbers["hits"], numbers["tested"], primary)
            groups[group] = {"what": words, **numbers, "enrichment": fold}
    headline = next((g for g in groups if g != "again"), "")
    tested = int((table["group"] == "picks").sum())
    notes = []
    n_lab = sum(n for how, n in found.matched.items() if how != "unmatched")
    if n_lab != len(table):
        notes.append(
            f"{n_lab:,} measured compounds belong to {len(table):,} imaged ones (stereoisomers and repeats); "
            "rates count imaged compounds."
        )
    if not headline:
        notes.append("Every measured compound had been measured in this assay before: there is no new hit rate.")
    return {
        "task": task,
        "run": run.folder.as_posix(),
        "name": run.config.name,
        "simulated": bool(run.config.simulated),
        "method": str(run.plan.get("method", run.final.model)),
        "report": (run.folder / "report.html").is_file(),
        "results": path,
        "threshold": found.threshold,
        "columns": vars(found.columns),
        "matched": found.matched,
        "picked": len(picks),
        "picks_tested": tested,
        "primary": {"source": primary.source, "rate": primary.rate, "hits": primary.hits, "tested": primary.tested},
        "groups": groups,
        "headline": headline,
        "notes": notes,
    }


def _promise(
    folder: Path, run: Finished, task: str, table: pd.DataFrame, headline: str, primary: Primary
) -> dict[str, Any] | None:
    """Compare what the scores promised with what was found; None where they promise nothing."""
    mine = table[(table["group"] == headline) & table["score"].notna()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calibration.parquet").unlink(missing_ok=True)
    if run.final.kind != "probability" or mine.empty or not mine["score"].between(0, 1).all():
        return None
    score = mine[["score"]].to_numpy(np.float32)
    fold = np.zeros(len(mine), np.int32)
    scored = Predictions(score, mine["compound"].to_numpy(object), [task], run.final.model, fold=fold)
    write_table(
        folder / "calibration.parquet",
        calibration(_stored(mine, task), scored).assign(method=str(run.plan.get("method", ""))),
    )
    return promised(mine["score"].to_numpy(), mine["outcome"].to_numpy(), primary.rate)


def _stored(mine: pd.DataFrame, task: str) -> Labels:
    """Labels of one task with every outcome stored, inactive ones too."""
    from scipy import sparse

    n = len(mine)
    Y = sparse.csr_matrix((mine["outcome"].to_numpy(np.float32), np.zeros(n, int), np.arange(n + 1)), shape=(n, 1))
    tasks = pd.DataFrame({"task": [task], "assay": task, "kind": "binary", "threshold": np.nan})
    return Labels(Y, mine[["compound"]].reset_index(drop=True), tasks)


def _novel(near: pd.DataFrame) -> dict[str, Any]:
    """Summarise similarities to the nearest initial hit by group, with their density curves."""
    out = {}
    for group in GROUPS:
        values = near.loc[near["group"] == group, "similarity"].dropna().to_numpy(np.float64)
        out[group] = {
            "n": len(values),
            "median": float(np.median(values)) if len(values) else None,
            "below_0.4": float((values < 0.4).mean()) if len(values) else None,
            "density": [round(float(v), 5) for v in density(values)],
        }
    return out


def _framed(
    frames: pd.DataFrame, compounds: pd.DataFrame, initial: NDArray[np.bool_], new: NDArray[np.bool_]
) -> dict[str, int]:
    """Count scaffolds and series of the new hits, and those that no initial hit has."""
    series = compounds["series"].to_numpy()
    fresh = np.setdiff1d(series[new], series[initial])
    return {
        "hits": int(new.sum()),
        "hits_without_ring": int(new.sum() - frames["hits"].sum()),
        "scaffolds": len(frames),
        "new_scaffolds": int(frames["new"].sum()),
        "hits_with_new_scaffold": int(frames.loc[frames["new"].astype(bool), "hits"].sum()),
        "series": len(np.unique(series[new])),
        "new_series": len(fresh[fresh >= 0]),
    }


def _next(
    run: Finished, task: str, score: NDArray[np.float64], found: Results, before: NDArray[np.bool_], n: int, seed: int
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Suggest compounds that neither the run's labels nor the results hold."""
    ranked = candidates(run.labels, task, score, run.compounds)
    measured = before | ~np.isnan(found.outcome)
    ranked = ranked[~measured[ranked["row"].to_numpy()]]
    recipe = decide(run.config.hits)
    how = {"filters": recipe.filters, "evidence": run.evidence(task, recipe), "seed": seed}
    return suggest(ranked, measured, run.fingerprints, run.space(), n=n, **how)
