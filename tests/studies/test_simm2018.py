"""The study as one command: paper's settings where nothing is said, both campaigns, one table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from phenohit.cli import main
from phenohit.config import Config, HitsConfig, SplitConfig, TuneConfig
from phenohit.data.simulate_settings import SimulateSettings
from phenohit.files import read_json, read_table
from phenohit.studies.simm2018 import _of_recipe, presets


def test_what_is_left_open_is_set_as_in_the_paper_and_what_is_said_stands():
    filled = presets(Config())
    assert [(s.kind, s.folds) for s in filled.splits] == [("series", 3)]
    assert filled.models == {
        "forest": {"n_trees": 250},
        "network": {"preset": "simm2018"},
        "macau": {"preset": "simm2018"},
    }
    assert filled.tune.grids == {"forest": "simm2018", "network": "simm2018"}
    own = Config(
        splits=[SplitConfig(folds=4)], models={"forest": {"n_trees": 9}}, tune=TuneConfig(grids={"forest": {"a": [1]}})
    )
    assert presets(own) == own
    assert presets(replace(own, tune=TuneConfig(folds=2))).tune == TuneConfig(folds=2, grids={"forest": "simm2018"})


def test_the_other_campaign_does_not_inherit_the_bar_of_the_first():
    hits = HitsConfig(recipe="potency", min_score=0.3, filters=["pains"], n=20)
    assert _of_recipe(hits, "potency") == hits
    other = _of_recipe(hits, "expansion")
    assert (other.min_score, other.filters, other.n, other.recipe) == (None, None, 20, "expansion")
    assert _of_recipe(HitsConfig(min_score=0.3), "expansion").min_score == 0.3


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simm2018")
    from phenohit.simulate import simulate

    settings = SimulateSettings(n_compounds=240, n_features=40, n_morphology=3, n_invisible=1, n_chemistry=1, fill=0.6)
    simulate(folder / "screen", settings)
    config = yaml.safe_load((folder / "screen" / "simulated.yaml").read_text())
    config |= {
        "out": str(folder / "run"),
        "splits": [{"kind": "series", "folds": 3}],
        "models": {"forest": {"n_trees": 10}},
        "tune": {"folds": 2, "grids": {"forest": {"max_features": [1.0, 2.0]}}},
        "chemistry": False,
        "hits": {"recipe": "potency", "min_score": 0.3, "n": 12, "best": 1},
        "jobs": 1,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    assert main(["simm2018", str(folder / "study.yaml")]) == 0
    return folder / "run"


def test_both_campaigns_are_kept_and_the_run_ends_with_its_own(study):
    picks = {}
    for recipe in ("expansion", "potency"):
        (hits,) = (study / "simm2018" / recipe).glob("*/hits.parquet")
        table = read_table(hits)[0]
        picks[recipe] = table[table["picked"]]
        assert read_json(hits.parent / "summary.json")["settings"]["recipe"] == recipe
    assert len(picks["expansion"]) == 12
    assert picks["potency"]["score"].min() >= 0.3
    task = read_json(study / "hits" / "plan.json")["tasks"][0]
    found = pd.read_csv(study / "simm2018" / "campaigns.csv").set_index("recipe")
    assert found["task"].eq(task).all()
    for recipe, table in picks.items():
        assert found.loc[recipe, "picked"] == len(table)
        assert found.loc[recipe, "promised"] == pytest.approx(table["score"].sum())
    (own,) = (study / "hits").glob("*/summary.json")
    assert read_json(own)["settings"]["recipe"] == "potency"
    assert (study / "report.html").exists()


def test_the_table_counts_what_the_metrics_say(study):
    counted = pd.read_csv(study / "simm2018" / "assays.csv").set_index(["methods", "above"])
    metrics = read_table(study / "splits" / "series" / "metrics.parquet")[0]
    assert counted["unit"].eq("task").all()  # five assays are too few to count them by the paper's rule
    for method, table in metrics.groupby("method"):
        for above in (0.7, 0.9):
            assert counted.loc[(method, above), "count"] == (table["auroc"] > above).sum()
    assert np.isfinite(counted["chance"]).all()
    text = (study / "simm2018" / "study.md").read_text()
    assert "SIMULATED" in text
    assert "37 measured" in text
    assert "| *the paper, all three* | 11 | 182 |" in text
