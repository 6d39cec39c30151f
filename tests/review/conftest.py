"""A small finished run on a simulated screen, and results for its picks from the simulation's truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phenohit.cli import main
from phenohit.files import read_json, read_table
from phenohit.runs import slug


class Screen:
    """Where things are, and what is true."""

    def __init__(self, folder: Path, number: int = 0) -> None:
        self.folder, self.run = folder, folder / "run"
        self.task = str(read_json(self.run / "hits" / "plan.json")["tasks"][number])
        self.assay = self.task.split(" >=")[0]
        self.truth = pd.read_csv(folder / "simulated_answers.csv").set_index("compound_id")[self.assay]
        self.compounds = read_table(self.run / "compounds.parquet")[0]

    @property
    def picks(self) -> list[str]:
        table, _ = read_table(self.run / "hits" / slug(self.task) / "hits.parquet")
        return table.loc[table["picked"], "compound_id"].tolist()

    def values(self, ids: list[str]) -> np.ndarray:
        return self.truth.loc[ids].to_numpy()


@pytest.fixture(scope="session")
def screen(tmp_path_factory) -> Screen:
    folder = tmp_path_factory.mktemp("review") / "simulated"
    flags = ["--settings.n_compounds", "240", "--settings.n_features", "60", "--settings.n_hits", "20"]
    assert main(["simulate", str(folder), *flags]) == 0
    few = ["--models", "{logistic: {}}", "--chemistry", "false", "--baselines", "false", "--jobs", "1"]
    few += ["--evaluate.bootstrap", "20", "--evaluate.chance", "5", "--hits.best", "2"]
    assert main(["hits", str(folder / "simulated.yaml"), *few]) == 0
    return Screen(folder)


@pytest.fixture(scope="session")
def second(screen) -> Screen:
    """The second task of the same run: its reviews do not overwrite those of the first."""
    return Screen(screen.folder, 1)
