"""Choosing settings inside each outer fold: every setting on every inner fold, here or on a cluster."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd

from phenohit.config import Config
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import FileError, RunError
from phenohit.evaluate.crossval import fit_split_model
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import auroc
from phenohit.evaluate.nested import best_cell, grid_cells, inner_folds, share_of_groups
from phenohit.evaluate.splits import Folds
from phenohit.files import read_json, write_json, write_table
from phenohit.progress import track
from phenohit.runs import Run, slug
from phenohit.study import Method, Study
from phenohit.workers import Workers, lost_worker

__all__ = ["chosen_settings", "final_settings", "step_select", "steps_of"]

log = logging.getLogger("phenohit")
_ATTEMPTS = 3  # rounds over the units that a lost worker left undone


class Unit(NamedTuple):
    """One setting on one inner fold of one outer fold: the piece of work that is sent away and can be redone."""

    split: str
    method: Method
    number: int  # outer fold
    cell: int
    settings: dict[str, Any]
    inner: int
    share: float  # of the training rows
    path: str  # of its result, in the run folder
    key: str  # what the result depends on


def step_select(study: Study) -> None:
    """Choose the settings of every method that has a grid, anew within every outer fold."""
    workers = Workers(study.config.workers, study.jobs)
    try:
        for split, _ in study.splits():
            for method in study.methods:
                if method.model in study.config.tune.grids:
                    _step_of(study, split, method, workers)
    finally:
        workers.close()


def _step_of(study: Study, split: str, method: Method, workers: Workers) -> None:
    for number, name in enumerate(study.folds(split, method.input).names):
        study.run.step(
            _step(split, method, name),
            partial(_select, study, split, method, number, name, workers),
            settings=[method, study.config.tune.choice(method.model), study.config.seed, study.preparing(method.input)],
            after=(f"split/{split}", *study.joined(method.input)),
            outputs=[f"{_folder(split, method, name)}/{file}" for file in ("grid.csv", "chosen.json")],
        )


def _step(split: str, method: Method, fold: str) -> str:
    return f"select/{split}/{method.name}/{fold}"


def _folder(split: str, method: Method, fold: str) -> str:
    return f"models/{slug(split)}/{method.name}/fold-{slug(fold)}"


def steps_of(study: Study, split: str, method: Method, fold: str) -> tuple[str, ...]:
    """Name the step that chose the settings of a method for one outer fold, if any did."""
    return (_step(split, method, fold),) if method.model in study.config.tune.grids else ()


def chosen_settings(study: Study, split: str, method: Method, fold: str) -> dict[str, Any]:
    """Return the settings of a method for one outer fold."""
    if method.model not in study.config.tune.grids:
        return method.settings
    return read_json(study.run.path(_folder(split, method, fold), "chosen.json"))["settings"]


def final_settings(study: Study, method: Method) -> dict[str, Any]:
    """Return the settings for the fit on everything: the best over the inner folds of all outer folds of a split."""
    if method.model not in study.config.tune.grids:
        return method.settings
    split = study.splits()[0][0]
    names = study.folds(split, method.input).names
    tables = [pd.read_csv(study.run.path(_folder(split, method, n), "grid.csv")) for n in names]
    last = pd.concat(tables).astype({"auroc": float}).dropna(subset="auroc")  # without what halving left behind
    if last.empty:
        return chosen_settings(study, split, method, names[0])
    by_cell = last.groupby("cell")
    often = by_cell.size()
    mean = by_cell["auroc"].mean()[often == often.max()]  # not one that did well in the few folds it was left in
    best = int(mean.index[mean.to_numpy().argmax()])
    cells = grid_cells(method.model, method.settings, study.config.tune.grids[method.model])
    epochs = last.loc[(last["cell"] == best) & (last["epochs"] > 0), "epochs"]
    return _stopping(cells[best], float(epochs.mean()) if len(epochs) else 0.0)


def _stopping(settings: dict[str, Any], epochs: float) -> dict[str, Any]:
    """Stop after so many epochs, where inner folds stopped early: when to stop is chosen inside like the rest."""
    return {**settings, "epochs": round(epochs), "patience": 0} if epochs else settings


def _select(study: Study, split: str, method: Method, number: int, name: str, workers: Workers) -> dict[str, Any]:
    """Try the grid on the inner folds of one outer fold, and write what was found and chosen."""
    how, folder = study.config.tune, _folder(split, method, name)
    cells = grid_cells(method.model, method.settings, how.grids[method.model])
    key = f"{study.run.key(_step(split, method, name))} {number}"  # the folds of a split share what they depend on
    left, tables, shares, winner = np.arange(len(cells)), [], how.shares(len(cells)), 0
    for rung, share in enumerate(shares):
        units = [
            Unit(split, method, number, int(c), cells[c], i, share, f"{folder}/grid/{rung}-{c}-{i}.json", key)
            for c in left
            for i in range(how.folds)
        ]
        results = _do(study, units, workers, f"select: {method.name}, fold {name}")
        scores = np.array([r["auroc"] for r in results], dtype=float).reshape(len(left), how.folds, -1)
        best, table = best_cell(scores)
        epochs = np.array([r["epochs"] for r in results], dtype=float).reshape(len(left), how.folds)
        stopped = epochs.sum(axis=1) / np.maximum((epochs > 0).sum(axis=1), 1)  # of the folds that stopped early
        tables.append(table.assign(cell=left, rung=rung, share=share, epochs=stopped))
        order = np.argsort(-table["auroc"].to_numpy(), kind="stable")
        keep = max(-(-len(left) // how.halving), 1) if how.halving and rung + 1 < len(shares) else 1
        winner, left = int(left[best]), np.sort(left[order[:keep]])
    last = tables[-1].set_index("cell").loc[winner]
    settings = _stopping(cells[winner], float(last["epochs"]))
    grid = pd.concat(tables, ignore_index=True)
    for setting in sorted({k for c in cells for k in c}):
        column = f"{setting} (setting)" if setting in grid else setting  # a network's epochs are not when it stopped
        grid[column] = [str(cells[c].get(setting, "")) for c in grid["cell"]]
    grid.loc[grid["rung"] < len(shares) - 1, "auroc_on_share"] = grid["auroc"]
    grid.loc[grid["rung"] < len(shares) - 1, "auroc"] = np.nan  # of few rows: not comparable with the last rung
    write_table(study.run.path(folder, "grid.csv"), grid)
    found = {"cell": winner, "settings": settings, "auroc": float(last["auroc"])}
    write_json(study.run.path(folder, "chosen.json"), found)
    return {"chosen": settings, "inner_auroc": float(last["auroc"])}


def _do(study: Study, units: list[Unit], workers: Workers, title: str) -> list[dict[str, Any]]:
    """Do the units that are not done yet, and return the results of all."""
    for attempt in range(_ATTEMPTS):
        left = [unit for unit in units if _done(study.run.folder, unit) is None]
        if not left:
            break
        log.info("%s: %d of %d settings on inner folds to do", title, len(left), len(units))
        folder = str(study.run.folder.resolve())
        try:
            work = (joblib.delayed(_work)(folder, study.config, unit) for unit in left)
            for _ in track(workers.do(work), title, len(left)):
                pass
        except Exception as error:
            workers.close()
            if attempt + 1 == _ATTEMPTS or not lost_worker(error):
                raise
            said = (str(error).splitlines() or [type(error).__name__])[0]
            log.warning("%s: a worker was lost (%s); what it had not finished is done again", title, said)
    results = [_done(study.run.folder, unit) for unit in units]
    if any(r is None for r in results):
        raise RunError(f"{title}: {sum(r is None for r in results)} results are missing after {_ATTEMPTS} rounds.")
    return [r for r in results if r is not None]


_open: dict[tuple[str, str, str, str], Any] = {}  # what this worker read last


def _work(folder: str, config: Config, unit: Unit) -> None:
    """Fit and score one unit; its result is a file, so that nothing is lost with the worker."""
    if _done(Path(folder), unit) is not None:
        return
    study, data, labels, inside = _opened(folder, config, unit)
    some = share_of_groups(inside, unit.share, labels, seed=config.seed)
    scored, fitted = fit_split_model(
        unit.method.model, unit.settings, data, labels, some, unit.inner,
        **study.preparing(unit.method.input), seed=config.seed, jobs=1,
    )  # fmt: skip
    found = auroc(Entries.of(study.labels, scored), "task")
    score = [None if np.isnan(a) else float(a) for a in found]
    epochs = getattr(fitted, "stopped", 0)  # the best epoch, of a model that stopped early
    write_json(Path(folder) / unit.path, {"key": unit.key, "auroc": score, "epochs": epochs})


def _opened(folder: str, config: Config, unit: Unit) -> tuple[Study, Profiles, Labels, Folds]:
    """Return the study, the rows and labels of a method, and the inner folds of one outer fold."""
    place = (folder, unit.split, unit.method.name, unit.key)
    found = _open.get(place)
    if found is None:
        study = Study(Run(Path(folder)), config)
        data = study.input(unit.method.input)
        labels = study.labels.take(study.row_compound(data))
        folds = study.folds(unit.split, unit.method.input)
        found = study, data, labels, inner_folds(folds, unit.number, config.tune.folds, labels, seed=config.seed)
        _open.clear()
        _open[place] = found
    return found


def _done(folder: Path, unit: Unit) -> dict[str, Any] | None:
    """Return a unit's result, if it is there and of this data, code and settings."""
    path = folder / unit.path
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return None
    try:
        found = read_json(path)
    except FileError:
        return None
    return found if found.get("key") == unit.key else None
