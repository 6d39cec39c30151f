"""Ask a finished run more: scores of the whole library in every task, and targets behind a phenotype."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import Config
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, RunError, nearest
from phenohit.evaluate.crossval import predict
from phenohit.files import read_json, read_table, write_table
from phenohit.hits.annotate import Sureness, write_annotation
from phenohit.hits.deconvolve import deconvolve
from phenohit.hits.export import neutralise
from phenohit.models import find_model
from phenohit.profiles.prepare import Prepare
from phenohit.runs import Run, slug
from phenohit.settings import read_config
from phenohit.study import Study

__all__ = ["annotate_run", "deconvolve_run"]


class _Finished:
    """A run with a final model, read only."""

    def __init__(self, run: str) -> None:
        self.folder = Path(run)
        self.final = self.folder / "models" / "final"
        if not (self.folder / "hits" / "plan.json").exists() or not (self.final / "model").exists():
            raise RunError(
                f"'{run}' holds no final model. Finish it first: phenohit hits {self.folder / 'config.yaml'}"
            )
        config: Config = read_config([str(self.folder / "config.yaml")], prog="phenohit", description="", kind=Config)
        self.study = Study(Run(self.folder), config)
        self.plan: dict[str, Any] = read_json(self.folder / "hits" / "plan.json")

    @cached_property
    def split(self) -> Path:
        """Folder of the first split."""
        return self.folder / "splits" / slug(self.study.splits()[0][0])

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Cross-validated results of the final model's method, one row per task."""
        table, _ = read_table(self.split / "metrics.parquet")
        return table[table["method"] == self.plan["method"]].reset_index(drop=True)

    @cached_property
    def data(self) -> Profiles:
        """What the final model reads."""
        return self.study.input(self.plan["input"])

    @cached_property
    def model(self) -> tuple[Any, Prepare]:
        """The fitted model and the preparation of its input."""
        return find_model(self.plan["model"]).load(self.final / "model"), Prepare.load(self.final / "prepare")

    def tasks(self, named: list[str], min_auroc: float) -> list[str]:
        """Return the tasks asked for, or all that reach an AUROC."""
        known = self.metrics["task"].astype(str).tolist()
        for task in named:
            if task not in known:
                raise ConfigError(f"'{task}' is not a task of this run. {nearest(task, known)}")
        if named:
            return list(dict.fromkeys(named))
        auroc = self.metrics["auroc"].to_numpy(np.float64)
        kept = [task for task, a in zip(known, auroc, strict=True) if a >= min_auroc]
        if not kept:
            best = np.nanmax(auroc) if np.isfinite(auroc).any() else float("nan")
            raise ConfigError(
                f"No task of '{self.folder}' has a cross-validated AUROC of {min_auroc:g} or more with "
                f"{self.plan['method']}; the best has {best:.2f}. Lower --min_auroc, or name --tasks."
            )
        return kept

    def score(self, rows: NDArray[np.intp], tasks: list[str]) -> NDArray[np.float32]:
        """Score rows of `data`."""
        fitted, prepare = self.model
        return np.asarray(predict(fitted, prepare, self.data, rows, self.study.labels, tasks).score)

    def kind(self, tasks: list[str]) -> str:
        """Return what the scores are."""
        fitted, prepare = self.model
        return predict(fitted, prepare, self.data, np.arange(min(1, len(self.data))), self.study.labels, tasks).kind


def annotate_run(run: str, out: str, tasks: list[str], min_auroc: float, call_at: float) -> dict[str, int]:
    """Write what a run's final model says about every imaged compound; see `phenohit.commands.annotate`.

    Raises
    ------
    RunError
        If the run has no final model.
    ConfigError
        If a task is unknown, none is good enough, or a setting is impossible.
    """
    if not 0 <= call_at <= 1:
        raise ConfigError(f"--call_at is {call_at}; it must be a probability between 0 and 1.")
    done = _Finished(run)
    chosen = done.tasks(tasks, min_auroc)
    study, path = done.study, done.split / "calibration.parquet"
    sureness = None
    if done.kind(chosen) == "probability":
        table = read_table(path)[0] if path.exists() else None
        mine = None if table is None else table[table["method"] == done.plan["method"]]
        counts = study.labels.counts().sum(axis=1).to_numpy()
        names = study.labels.task_names
        n_labels = np.array([counts[names.index(task)] for task in chosen])
        sureness = Sureness(mine, n_labels, call_at)
    return write_annotation(
        out,
        chosen,
        study.compounds,
        study.row_compound(done.data),
        lambda rows: done.score(rows, chosen),
        study.labels,
        sureness,
    )


def deconvolve_run(run: str, task: str, out: str, tasks: list[str], min_auroc: float) -> pd.DataFrame:
    """Rank the assays that may stand behind a task of a run; see `phenohit.commands.deconvolve`.

    Raises
    ------
    RunError, ConfigError, LabelError
    """
    done = _Finished(run)
    study = done.study
    labels = study.labels
    if task not in labels.task_names:
        raise ConfigError(f"'{task}' is not a task of this run. {nearest(task, labels.task_names)}")
    chosen = [name for name in done.tasks(tasks, min_auroc) if name != task]
    at = study.row_compound(done.data)
    column = labels.Y[:, [labels.task_names.index(task)]].tocoo()
    measured = np.isin(at, column.row)
    rows = np.flatnonzero(measured)
    score = pd.DataFrame(done.score(rows, chosen)).groupby(at[rows]).mean()
    of = score.index.to_numpy()
    table = deconvolve(
        labels,
        task,
        study.compounds["compound"].to_numpy(object)[of],
        score.to_numpy(np.float32),
        chosen,
        study.compounds["series"].to_numpy()[of],
    )
    auroc = done.metrics.set_index("task")["auroc"]
    table.insert(3, "predicted_auroc", table["task"].map(auroc))
    write_table(out, neutralise(table) if str(out).endswith(".csv") else table)
    return table
