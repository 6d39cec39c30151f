"""What to pick for and with which method; the last fit on everything known; the picks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.errors import ConfigError, nearest
from phenohit.evaluate.crossval import fit_all, predict
from phenohit.evaluate.reading import READINGS, read_tasks
from phenohit.files import read_table, write_table
from phenohit.hits.build import build_hits
from phenohit.hits.filter import evidence_in
from phenohit.hits.recipes import decide
from phenohit.hits.replaceable import replaceable
from phenohit.models import find_model
from phenohit.models.contract import Followed
from phenohit.profiles.prepare import Prepare
from phenohit.runs import slug
from phenohit.study import Method, Study
from phenohit.tuning import final_settings

__all__ = ["final_outputs", "final_scores", "list_replaceable", "make_plan", "pick"]

log = logging.getLogger("phenohit")

SEE_IMAGES = ("profiles", "views", "crops")  # inputs that come from the images
_FOLLOWED = ("models/final/progress.parquet", "models/final/diagnostics.csv")  # of a model that was followed


def make_plan(study: Study) -> dict[str, Any]:
    """Choose the method and the tasks from the cross-validated results of the first split.

    The method is the one named in the settings, or the one on the main features with the best mean
    AUROC over the tasks. Tasks that are not named are those with the highest lower end of the AUROC
    interval among the tasks above chance; those that cell count or plate alone explains come last.

    Returns
    -------
    dict
        ``method``, ``model``, ``input``, ``settings``, ``tasks``, ``off_targets`` and ``why``.
    """
    metrics = _metrics(study)
    wanted = study.config.hits
    method = _choose_method(study, metrics)
    mine = metrics[metrics["method"] == method.name].set_index("task")
    for name in ("tasks", "off_targets"):
        for task in getattr(wanted, name):
            if task not in mine.index:
                raise ConfigError(f"hits.{name}: '{task}' is not a task of this run. {nearest(task, mine.index)}")
    tasks = list(wanted.tasks) or _best_tasks(metrics, method.name, study.labels)[: wanted.best]
    why = "named in the settings" if wanted.tasks else "highest lower end of the cross-validated AUROC interval"
    if not tasks:
        why = (
            f"no task that {method.name} predicts above chance has imaged compounds left to measure; "
            "name `hits.tasks` to pick all the same"
        )
        log.warning("No hits are picked: %s", why)
    off = list(dict.fromkeys(wanted.off_targets))
    chosen = {**method._asdict(), "settings": final_settings(study, method), "method": method.name}
    return {**chosen, "tasks": tasks, "off_targets": off, "why": why}


def _choose_method(study: Study, metrics: pd.DataFrame) -> Method:
    name = study.config.hits.model
    usable = [m for m in study.methods if m.input in (*SEE_IMAGES, "ecfp")]
    if name:
        named = [m for m in usable if name in (m.name, m.model)]
        if not named:
            raise ConfigError(f"hits.model: '{name}' was not run. {nearest(name, [m.name for m in usable])}")
        return named[0]
    main = [m for m in usable if m.input in (SEE_IMAGES if study.has_images else ("ecfp",))]
    mean = metrics.groupby("method")["auroc"].mean().fillna(-1.0)
    return max(main, key=lambda m: mean[m.name])


def _best_tasks(metrics: pd.DataFrame, method: str, labels: Labels) -> list[str]:
    by_method = {name: table.reset_index(drop=True) for name, table in metrics.groupby("method")}
    mine = by_method[method]
    codes = read_tasks(mine, by_method.get("logistic-cell_count"), by_method.get("rate-plate"))
    reading = np.array([READINGS[code]["name"] for code in codes])
    chance = np.isin(reading, ["not above chance", "too few labels", "undefined"])
    explained = np.char.startswith(reading, "explained")
    left = mine["assay"].map(_unmeasured(labels)).to_numpy()
    low = mine["auroc_low"].fillna(mine["auroc"]).to_numpy()
    order = np.lexsort((-low, explained))
    return [mine["task"].iloc[i] for i in order if not chance[i] and left[i]]


def _unmeasured(labels: Labels) -> dict[str, int]:
    """Count the compounds that have no measurement in any task of an assay."""
    assay = labels.tasks["assay"].astype(str)
    return {
        name: int((labels.take_tasks(tasks).Y.getnnz(axis=1) == 0).sum())
        for name, tasks in assay.groupby(assay).indices.items()
    }


def _metrics(study: Study) -> pd.DataFrame:
    split = study.splits()[0][0]
    return read_table(study.run.path("splits", slug(split), "metrics.parquet"))[0]


def final_outputs(model: str) -> list[str]:
    """Name the files that `final_scores` writes, relative to the run folder."""
    return ["predictions/final.parquet", *(_FOLLOWED if issubclass(find_model(model), Followed) else ())]


def final_scores(study: Study, plan: dict[str, Any]) -> dict[str, Any]:
    """Fit the chosen method on every label and score all imaged compounds in the chosen tasks and off-targets."""
    data = study.input(plan["input"])
    at = study.row_compound(data)
    labels = study.labels.take(at)
    folder = study.folder("models/final")
    fitted, prepare = fit_all(
        plan["model"],
        plan["settings"],
        data,
        labels,
        study.folds(study.splits()[0][0], plan["input"]),
        **study.preparing(plan["input"]),
        seed=study.config.seed,
        jobs=study.jobs,
        folder=folder / "checkpoint",
    )
    fitted.save(folder / "model")
    if isinstance(prepare, Prepare):  # models that see images prepare them themselves
        prepare.save(folder / "prepare")
    for name in _FOLLOWED:  # an earlier fit by another model may have left them
        study.run.path(name).unlink(missing_ok=True)
    if isinstance(fitted, Followed):
        write_table(study.run.path(_FOLLOWED[0]), fitted.progress())
        write_table(study.run.path(_FOLLOWED[1]), fitted.diagnostics())
    tasks = list(dict.fromkeys([*plan["tasks"], *plan["off_targets"]]))
    scored = predict(fitted, prepare, data, np.arange(len(data)), labels, tasks)
    # Wells become compounds: the mean of a compound's scores.
    score = pd.DataFrame(scored.score).groupby(at).mean().reindex(range(len(study.compounds)))
    compounds = study.compounds["compound"].to_numpy(object)
    spread = None
    if scored.spread is not None:  # as if the errors of a compound's wells were one error: they mostly are
        square = pd.DataFrame(np.square(scored.spread)).groupby(at).mean().reindex(range(len(study.compounds)))
        spread = np.sqrt(square.to_numpy(np.float32))
    final = Predictions(score.to_numpy(np.float32), compounds, tasks, plan["method"], spread, kind=scored.kind)
    final.save(study.run.path("predictions", "final.parquet"))
    return {"method": plan["method"]}


def pick(study: Study, plan: dict[str, Any], task: str, folder: Path) -> dict[str, Any]:
    """Rank, filter, cluster, choose and export for one task."""
    scored = Predictions.load(study.run.path("predictions", "final.parquet"))
    recipe = decide(study.config.hits)
    if recipe.min_score is not None and recipe.preset_bar and scored.kind != "probability":
        raise ConfigError(
            f"The bar of the recipe '{recipe.recipe}' is a probability of {recipe.min_score:g}, but {plan['method']} "
            f"gives scores of kind {scored.kind}. Set hits.min_score to a {scored.kind}, e.g. 6 for submicromolar."
        )
    metrics = _metrics(study)
    of_task = metrics[metrics["task"] == task].set_index("method")
    row = {**of_task.loc[plan["method"]].to_dict(), "method": plan["method"]}
    if "logistic-cell_count" in of_task.index:
        row["cell_count_auroc"] = of_task.loc["logistic-cell_count", "auroc"]
    wells, _ = read_table(study.run.path("wells.parquet"))
    hits = build_hits(
        task,
        np.asarray(scored.score[:, scored.tasks.index(task)]),
        study.labels,
        study.compounds,
        study.fingerprints,
        wells if wells["plate"].astype(bool).to_numpy().any() else None,
        row,
        study.config.hits,
        seed=study.config.seed,
        jobs=study.jobs,
        evidence=evidence_in(study.run.folder, scored, plan["off_targets"]),
    )
    hits.write(folder)
    write_table(folder / "dropped.csv", hits.dropped)
    return {k: v for k, v in hits.summary.items() if isinstance(v, int | float | str | bool)}


def list_replaceable(study: Study, plan: dict[str, Any]) -> None:
    """Write ``replaceable.csv``: the tasks that the images could stand in for; nothing where there are no images."""
    path = study.run.path("replaceable.csv")
    if not study.has_images:
        path.unlink(missing_ok=True)
        return
    metrics = _metrics(study)
    method = plan["method"]
    if plan["input"] not in SEE_IMAGES:  # picks follow another input: the best method on the images speaks for them
        seen = metrics[metrics["input"].isin(SEE_IMAGES)]
        method = seen.groupby("method")["auroc"].mean().fillna(-1.0).idxmax()
    write_table(path, replaceable(metrics, str(method), bar=study.config.hits.replaceable))
