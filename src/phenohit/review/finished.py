"""A finished run, opened for a review of what was measured for its picks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import Config
from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, RunError, nearest, some
from phenohit.files import read_json, read_table
from phenohit.hits.filter import Evidence, evidence_in
from phenohit.hits.recipes import Recipe
from phenohit.report.facts import has_images
from phenohit.review.next_round import Space, image_space
from phenohit.runs import slug
from phenohit.settings import read_config

__all__ = ["Finished"]


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished run, as far as a review reads it; get one from `Finished.open`."""

    folder: Path
    config: Config
    labels: Labels
    compounds: pd.DataFrame
    fingerprints: NDArray[np.uint8]
    final: Predictions
    plan: dict[str, Any]

    @classmethod
    def open(cls, folder: str) -> Finished:
        """Open a run folder.

        Raises
        ------
        RunError, FileError
            If it holds no run, or one that has no final scores.
        """
        path = Path(folder)
        if not (path / "manifest.json").is_file():
            raise RunError(f"'{folder}' holds no run (there is no manifest.json). Give the folder of a finished run.")
        if not (path / "predictions" / "final.parquet").is_file():
            raise RunError(f"'{folder}' has no final scores. Finish it first: phenohit hits {path / 'config.yaml'}")
        config = read_config([str(path / "config.yaml")], prog="phenohit review", description="", kind=Config)
        compounds, _ = read_table(path / "compounds.parquet")
        return cls(
            path, config, Labels.load(path / "labels.parquet"), compounds,
            np.load(path / "fingerprints.npy", allow_pickle=False),
            Predictions.load(path / "predictions" / "final.parquet"), read_json(path / "hits" / "plan.json"),
        )  # fmt: skip

    def task(self, asked: str) -> str:
        """Return the task to review: the one asked for, or the only one that was picked for."""
        tasks = self.final.tasks
        if asked in tasks:
            return asked
        if asked and asked in self.labels.task_names:
            raise RunError(
                f"The run has no final scores for task '{asked}', only for {some(tasks)}. Name it in `hits.tasks` and "
                f"run: phenohit hits {self.folder / 'config.yaml'}"
            )
        if asked:
            raise ConfigError(f"--task: '{asked}' is not a task of this run. {nearest(asked, tasks)}")
        if len(tasks) != 1:
            raise ConfigError(f"The run picked for {len(tasks)} tasks: {some(tasks)}. Say which: --task")
        return tasks[0]

    def score(self, task: str) -> NDArray[np.float64]:
        """Return the final score of every compound, NaN where there is none."""
        at = pd.Index(self.final.compounds).get_indexer(pd.Index(self.compounds["compound"]))
        column = np.asarray(self.final.score[:, self.final.tasks.index(task)], dtype=np.float64)
        return np.where(at < 0, np.nan, column[at])

    def space(self) -> Space | None:
        """Where compounds lie by their images; None where there are none."""
        if not has_images(self.folder):
            return None
        data = Profiles.load(self.folder / "profiles.parquet")
        at = pd.Index(self.compounds["compound"]).get_indexer(pd.Index(data.compounds))
        n = np.bincount(at[at >= 0], minlength=len(self.compounds))
        if n.max(initial=0) > 1:  # wells: their mean
            from phenohit.profiles.aggregate import to_compounds

            data = to_compounds(data, how="mean")
            at = pd.Index(self.compounds["compound"]).get_indexer(pd.Index(data.compounds))
        X = np.zeros((len(self.compounds), data.X.shape[1]), dtype=np.float32)
        X[at[at >= 0]] = data.X[at >= 0]
        return image_space(X, n > 0)

    def evidence(self, task: str, recipe: Recipe) -> Evidence:
        """Return what the filters of hits for a task may look at, as the run itself had it."""
        known = evidence_in(self.folder, self.final, self.plan.get("off_targets", []))
        return replace(
            known, task=task, labels=self.labels, cns=recipe.cns, off_target_max=recipe.off_target_max,
            jobs=self.config.jobs,
        )  # fmt: skip

    def picks(self, task: str) -> pd.DataFrame:
        """Return ``compound, compound_id, pick_order`` of the picks of a task, in pick order."""
        path = self.folder / "hits" / slug(task) / "hits.parquet"
        if not path.is_file():
            return pd.DataFrame({c: pd.Series(dtype=str) for c in ("compound", "compound_id")} | {"pick_order": []})
        table, _ = read_table(path, ["compound", "compound_id", "picked", "pick_order"])
        return table[table["picked"].astype(bool)].sort_values("pick_order", ignore_index=True)
