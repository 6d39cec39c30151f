"""The whole way once: tables -> labels -> folds -> models -> predictability -> hits -> report.

Each step is a function on the open study; `STEPS` is their order. What a step reads it loads from
the run folder, so that it gives the same answer whether the steps before it ran now or last week.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from phenohit import campaign, gallery, measuring, scoring, tuning
from phenohit.config import Config, SplitConfig
from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.evaluate.crossval import concatenate, fit_split_model
from phenohit.evaluate.given import split_inputs
from phenohit.evaluate.splits import Folds
from phenohit.files import atomic, read_json, read_table, write_json, write_table, write_text
from phenohit.labels.database import masked
from phenohit.progress import track
from phenohit.runs import open_run, slug
from phenohit.screen import read_screen
from phenohit.study import Method, Study, check_config
from phenohit.viewing import join_images

__all__ = ["STEPS", "run_study"]

log = logging.getLogger("phenohit")


def run_study(config: Config, until: str = "report", then: Callable[[Study], None] | None = None) -> Path:
    """Do every step up to `until` that is not done yet.

    Parameters
    ----------
    config : Config
    until : str
        Last step: one of `STEPS`.
    then : callable, optional
        Steps of its own that a study adds, on the open run.

    Returns
    -------
    Path
        The run folder.

    Raises
    ------
    PhenoHitError
        For anything the user can mend.
    """
    config = measuring.with_images(config)
    check_config(config, labels=until not in ("images", "data", "join", "chemistry"))
    with open_run(config.out, name=config.name, seed=config.seed, simulated=config.simulated) as run:
        write_text(run.path("config.yaml"), yaml.safe_dump(_public(config), sort_keys=False))
        study = Study(run, config)
        run.manifest["splits"] = [split for split, _ in study.splits()]
        for name, step in STEPS.items():
            step(study)
            if name == until:
                break
        if then is not None:
            then(study)
        run.write_manifest()
        if run.skipped:
            log.info("%d of %d steps were already done and stand as they are", run.skipped, len(run.manifest["steps"]))
    return Path(config.out)


_SECRET = ("key", "secret", "token", "password", "credential")


def _public(config: Config) -> dict[str, Any]:
    """Return the settings as they may be shown to others: without what opens a store."""
    shown = _plain(asdict(config))
    for activities in shown["activities"]:
        activities["path"] = masked(activities["path"])
    storage = shown["profiles"]["storage"]
    shown["profiles"]["storage"] = {
        k: "(not shown)" if any(word in k.lower() for word in _SECRET) or isinstance(v, dict) else v
        for k, v in storage.items()
    }
    return shown


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


# --- chemistry: series and scaffolds ----------------------------------------------------------


def step_chemistry(study: Study) -> None:
    """Make fingerprints, series at every similarity that is asked for, and scaffolds."""
    config = study.config
    similarities = sorted({s.similarity for s in config.splits} | {config.hits.similarity})
    primary = config.splits[0].similarity
    study.run.step(
        "chemistry",
        partial(_relate, study, similarities, primary),
        settings=[similarities, primary],
        after=("data",),
        outputs=["fingerprints.npy", "compounds.parquet"],
    )


def _relate(study: Study, similarities: list[float], primary: float) -> dict[str, Any]:
    from phenohit.chem.fingerprints import ecfp
    from phenohit.chem.scaffolds import scaffolds
    from phenohit.chem.series import series

    compounds, _ = read_table(study.run.path("identified.parquet"))
    smiles = compounds["smiles"].astype(str).to_numpy(object)
    known = smiles != ""
    packed = np.zeros((len(compounds), 256), dtype=np.uint8)
    framework = np.full(len(compounds), "", dtype=object)
    if known.any():
        packed[known] = ecfp(smiles[known].tolist(), jobs=study.jobs)
        framework[known] = scaffolds(smiles[known].tolist(), jobs=study.jobs)
    # Stereo and charge forms share the first InChIKey block; they never count as two series.
    skeletons = compounds["skeleton"].astype(str).to_numpy(object)
    for similarity in similarities:
        compounds[f"series_{similarity:g}"] = series(packed, similarity=similarity, also=(skeletons,))
    compounds["series"] = compounds[f"series_{primary:g}"]
    compounds["scaffold"] = framework
    with atomic(study.run.path("fingerprints.npy")) as partial_file, partial_file.open("wb") as handle:
        np.save(handle, packed, allow_pickle=False)
    write_table(study.run.path("compounds.parquet"), compounds)
    return {
        "series": int(compounds["series"].nunique()),
        "largest_series": int(compounds["series"].value_counts().iloc[0]),
        "scaffolds": int(pd.Series(framework[framework != ""]).nunique()),
        "without_structure": int((~known).sum()),
    }


# --- labels: activities become tasks ----------------------------------------------------------


def step_labels(study: Study) -> None:
    """Turn activities into tasks and join them to the imaged compounds."""
    from phenohit.labels.sources import fingerprints

    config = study.config
    tables = ["labels.parquet", "labels.tasks.parquet", "labels.compounds.parquet", "labels.records.parquet"]
    tables += ["labels.records.compounds.parquet", "labels.values.parquet", "labels.fates.csv", "tasks.overlap.parquet"]
    tables += [f"statistics/{name}.parquet" for name in ("tasks", "per_compound", "repeats", "matrix")]
    study.run.step(
        "labels",
        partial(_label, study),
        settings=[[asdict(s) for s in config.activities], asdict(config.labels)],
        after=("data",),
        inputs=fingerprints(config.activities),
        outputs=[*tables, "match.csv", "dropped/labels.csv"],
    )


def _label(study: Study) -> dict[str, Any]:
    from phenohit.labels.join import assemble
    from phenohit.labels.overlap import label_statistics

    config, run = study.config, study.run
    compounds, _ = read_table(run.path("identified.parquet"))
    path = run.path("labels.parquet")
    labels, report, lost = assemble(config.activities, compounds, config.labels, jobs=study.jobs, trace=path)
    labels.save(path)
    write_table(run.path("match.csv"), report)
    write_table(run.path("dropped", "labels.csv"), lost)
    values, _ = read_table(run.path("labels.values.parquet"))
    for name, table in label_statistics(labels, values).items():
        write_table(run.path("statistics", f"{name}.parquet"), table)
    counts = labels.counts()
    releases = sorted(set(labels.tasks["release"].astype(str)) - {""}) if "release" in labels.tasks else []
    return {
        "releases": releases,
        "tasks": len(labels.tasks),
        "labels": int(labels.Y.nnz),
        "labelled_compounds": int((np.diff(labels.Y.indptr) > 0).sum()),
        "active": int(counts["n_active"].sum()),
        "inactive": int(counts["n_inactive"].sum()),
    }


# --- split: folds that leak nothing -----------------------------------------------------------


def step_split(study: Study) -> None:
    """Make the folds of every split and check them for leaks."""
    for name, split in study.splits():
        folder = f"splits/{slug(name)}"
        study.run.step(
            f"split/{name}",
            partial(_split, study, split, folder),
            settings=[asdict(split), study.config.seed],
            inputs=split_inputs(split),
            after=("data", "chemistry", "labels"),
            outputs=[f"{folder}/folds.parquet", f"{folder}/leaks.csv"],
        )


def _split(study: Study, split: SplitConfig, folder: str) -> dict[str, Any]:
    from phenohit.evaluate import leaks
    from phenohit.evaluate.splitting import make_folds

    data, wells = study.rows, read_table(study.run.path("wells.parquet"))[0]
    at = study.row_compound(data)
    compounds = study.compounds.iloc[at]
    folds = make_folds(split, data, compounds, study.labels.take(at), seed=study.config.seed, wells=wells)
    folds.save(study.run.path(folder, "folds.parquet"))
    table = leaks.check(
        folds,
        skeletons=compounds["skeleton"].to_numpy(object),
        scaffolds=compounds["scaffold"].to_numpy(object),
        fingerprints=study.fingerprints[at],
        series=compounds[f"series_{split.similarity:g}"].to_numpy(),
        similarity=split.similarity,
        tasks=study.labels.tasks,
    )
    write_table(study.run.path(folder, "leaks.csv"), table)
    return {"splits": len(folds.names), "failed_leak_checks": int(table["passed"].eq(False).sum())}


# --- fit: every method on every fold ----------------------------------------------------------


def step_fit(study: Study) -> None:
    """Cross-validate every method on every split; each fold is a step of its own."""
    jobs = [(split, method) for split, _ in study.splits() for method in study.methods]
    for split, method in track(jobs, "fit: methods"):
        folds = study.folds(split, method.input)
        inputs = cache(partial(_inputs, study, method))  # read once, and not at all where every fold is done
        parts = {}
        for number, name in enumerate(folds.names):
            step = f"fit/{split}/{method.name}/{name}"
            folder = f"models/{slug(split)}/{method.name}/fold-{slug(name)}"
            parts[step] = f"{folder}/predictions.parquet"
            study.run.step(
                step,
                partial(_fit, study, split, method, inputs, folds, number, folder),
                settings=[method, study.config.seed, study.preparing(method.input)],
                after=(f"split/{split}", *study.joined(method.input), *tuning.steps_of(study, split, method, name)),
                outputs=[parts[step]],
            )
        joined = f"splits/{slug(split)}/predictions/{method.name}.parquet"
        gather = partial(_gather, study, list(parts.values()), joined)
        study.run.step(f"gather/{split}/{method.name}", gather, after=tuple(parts), outputs=[joined])


def _inputs(study: Study, method: Method) -> tuple[Any, Labels]:
    data = study.input(method.input)
    return data, study.labels.take(study.row_compound(data))


def _fit(
    study: Study,
    split: str,
    method: Method,
    inputs: Callable[[], tuple[Any, Labels]],
    folds: Folds,
    number: int,
    folder: str,
) -> None:
    checkpoint = study.folder(f"{folder}/checkpoint")
    settings = tuning.chosen_settings(study, split, method, folds.names[number])
    scored, fitted = fit_split_model(
        method.model, settings, *inputs(), folds, number,
        **study.preparing(method.input), seed=study.config.seed, jobs=study.jobs, folder=checkpoint,
    )  # fmt: skip
    scored.save(study.run.path(folder, "predictions.parquet"))
    if hasattr(fitted, "cost"):
        write_json(study.run.path(folder, "cost.json"), fitted.cost())
    shutil.rmtree(checkpoint)  # it served to resume; the scores are what is kept


def _gather(study: Study, parts: list[str], joined: str) -> None:
    concatenate([Predictions.load(study.run.path(part)) for part in parts]).save(study.run.path(joined))


# --- evaluate: what can be predicted ----------------------------------------------------------


def step_evaluate(study: Study) -> None:
    """Score every method per task, with intervals and chance levels, and its probabilities over all tasks."""
    for name, _ in study.splits():
        folder = f"splits/{slug(name)}"
        study.run.step(
            f"evaluate/{name}",
            partial(scoring.evaluate_split, study, name, folder),
            settings=[asdict(study.config.evaluate), study.config.hits.n, study.config.seed],
            after=tuple(f"gather/{name}/{m.name}" for m in study.methods),
            outputs=[f"{folder}/{f}" for f in scoring.OUTPUTS],
        )
        _list_costs(study, name, folder)


def _list_costs(study: Study, split: str, folder: str) -> None:
    """Write what methods with a network on images cost, as means over folds (Hofmarcher 2019, Table 3)."""
    rows = []
    for method in study.methods:
        costs = sorted(study.run.folder.glob(f"models/{slug(split)}/{method.name}/fold-*/cost.json"))
        if costs:
            rows.append({"method": method.name, **pd.DataFrame([read_json(c) for c in costs]).mean().to_dict()})
    path = study.run.path(folder, "costs.csv")
    path.unlink(missing_ok=True)
    if rows:
        write_table(path, pd.DataFrame(rows))


# --- hits: what to test next ------------------------------------------------------------------


def step_hits(study: Study) -> None:
    """Refit the chosen method on everything known, score what nobody measured, pick a plate's worth."""
    split = study.splits()[0][0]
    plan = campaign.make_plan(study)
    write_json(study.run.path("hits", "plan.json"), plan)
    campaign.list_replaceable(study, plan)
    wanted = {slug(task) for task in plan["tasks"]}
    for folder in study.run.folder.glob("hits/*/"):  # picks of an earlier plan would pass for picks of this one
        if folder.name not in wanted:
            shutil.rmtree(folder)
    if not plan["tasks"]:
        return
    score = partial(campaign.final_scores, study, plan)
    study.run.step(
        "final",
        score,
        settings=[plan, study.config.seed],  # another filter or number of picks needs no other fit
        after=(f"evaluate/{split}",),
        outputs=campaign.final_outputs(plan["model"]),
    )
    for task in plan["tasks"]:
        folder = f"hits/{slug(task)}"
        files = ("hits.parquet", "hits.csv", "hits.sdf", "picklist.csv", "echo.csv", "summary.json", "dropped.csv")
        study.run.step(
            f"hits/{task}",
            partial(campaign.pick, study, plan, task, study.folder(folder)),
            settings=[plan, asdict(replace(study.config.hits, gallery=True)), study.config.seed],  # no pick hangs on it
            after=("final",),
            outputs=[f"{folder}/{f}" for f in files],
        )
        gallery.step_gallery(study, plan, task)


# --- report: everything on one page -----------------------------------------------------------


def step_report(study: Study) -> None:
    """Gather what was left out and build the page."""
    from phenohit.report.build import build_report

    run = study.run
    # What a hit list leaves out stays beside it: for each task that is every compound measured before.
    beside = [run.folder / "splits" / slug(name) / "folds.left_out.csv" for name, _ in study.splits()]
    files = [*sorted(run.folder.glob("dropped/*.csv")), *filter(Path.exists, beside)]
    lost = [pd.read_csv(p, dtype=str, keep_default_na=False) for p in files]
    lost += [_undefined(study, name) for name, _ in study.splits()]
    write_table(run.path("dropped.csv"), pd.concat(lost, ignore_index=True))
    steps = run.manifest["steps"]
    run.manifest["counts"] = {name: steps[name] for name in ("data", "chemistry", "labels")}
    run.write_manifest()
    build_report(run.folder)


def _undefined(study: Study, split: str) -> pd.DataFrame:
    """List the tasks whose AUROC no method could be given in a split."""
    table, _ = read_table(study.run.path("splits", slug(split), "metrics.parquet"), ["task", "auroc"])
    undefined = table.groupby("task", sort=False)["auroc"].apply(lambda auroc: auroc.isna().all())
    reason = "no fold holds both an active and an inactive test compound"
    return dropped(f"evaluate on {split}", "task", undefined.index[undefined], reason)


STEPS: dict[str, Callable[[Study], None]] = {
    "images": measuring.read_images,
    "data": read_screen,
    "join": join_images,
    "chemistry": step_chemistry,
    "labels": step_labels,
    "split": step_split,
    "select": tuning.step_select,
    "fit": step_fit,
    "evaluate": step_evaluate,
    "hits": step_hits,
    "report": step_report,
}
