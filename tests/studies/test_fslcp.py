"""The few-shot benchmark as one command, on a simulated screen of wells."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from phenohit.cli import main
from phenohit.config import Config
from phenohit.files import read_json, read_table
from phenohit.studies.fslcp import learners

pytestmark = pytest.mark.xdist_group("fewshot")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fslcp")
    from phenohit.data.simulate_settings import SimulateSettings
    from phenohit.simulate import simulate

    settings = SimulateSettings(
        n_compounds=240, n_features=40, n_morphology=6, n_invisible=1, n_chemistry=1, n_cytotoxicity=0, fill=0.7
    )
    simulate(folder / "screen", settings)
    config = yaml.safe_load((folder / "screen" / "simulated.yaml").read_text())
    config["profiles"]["unit"] = "well"
    config |= {
        "out": str(folder / "run"),
        "jobs": 1,
        "fewshot": {
            "methods": {"rate": {}, "logistic": {}, "quick": {"method": "multitask", "units": 16, "layers": 1}},
            "sizes": [8, 16], "query": 16, "episodes": 10, "n_tests": 3, "min_compounds": 40, "share": [0.1, 0.9],
            "leak": True, "reference": "logistic",
        },
    }  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    assert main(["fslcp", str(folder / "study.yaml")]) == 0
    return folder


def test_every_method_scores_the_same_episodes(study):
    folder = study / "run" / "fewshot"
    table = pd.read_csv(folder / "table.csv")
    assert set(table["method"]) == {"rate-profiles", "logistic-profiles", "quick-profiles"}
    base = table[(table["method"] == "rate-profiles") & (table["tasks"] == "all")]
    np.testing.assert_allclose(base["auroc"], 0.5)  # one score for all compounds
    assert base["n_tasks"].tolist() == [3, 3]
    metrics = [read_table(folder / "methods" / f"{m}-profiles" / "compound.parquet")[0] for m in ("rate", "logistic")]
    assert metrics[0][["task", "size", "episode"]].equals(metrics[1][["task", "size", "episode"]])
    means = pd.read_csv(folder / "task_means.csv")
    one = means[(means["method"] == "logistic-profiles") & (means["size"] == 16)].iloc[0]
    part = metrics[1][(metrics[1]["task"] == one["task"]) & (metrics[1]["size"] == 16)]
    assert len(part) == 10
    assert one["auroc"] == pytest.approx(part["auroc"].mean())


def test_test_tasks_are_not_learned_from(study):
    tasks = pd.read_csv(study / "run" / "fewshot" / "tasks.csv", keep_default_na=False)
    assert (tasks["role"] == "test").sum() == 3
    assert (tasks["role"] == "train").sum() >= 1
    assays = tasks["task"].str.split(" >=").str[0]
    assert not set(assays[tasks["role"] == "test"]) & set(assays[tasks["role"].isin(["train", "valid"])])


def test_the_leak_of_wells_is_measured(study):
    leak = pd.read_csv(study / "run" / "fewshot" / "leak.csv")
    row = leak[(leak["method"] == "logistic-profiles") & (leak["metric"] == "auroc")]
    assert row["size"].tolist() == [8, 16]
    np.testing.assert_allclose(row["difference"], row["wells"] - row["compounds"])
    assert ((row["low"] <= row["difference"]) & (row["difference"] <= row["high"])).all()


def test_what_a_person_reads(study):
    text = (study / "run" / "fewshot" / "study.md").read_text()
    assert "SIMULATED" in text
    assert "| logistic-profiles | 0." in text
    page = (study / "run" / "fewshot" / "report.html").read_text()
    assert "SIMULATED" in page.upper()


def test_a_second_run_does_nothing_and_another_method_is_added(study, capsys):
    before = {p: p.stat().st_mtime_ns for p in (study / "run" / "fewshot" / "methods").rglob("*.parquet")}
    flags = ["--fewshot.methods", "{rate: {}, logistic: {}, neighbours: {}}"]
    assert main(["fslcp", str(study / "study.yaml"), *flags]) == 0
    after = {p: p.stat().st_mtime_ns for p in before}
    assert before == after
    assert "neighbours-profiles" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fewshot.methods", "{prototype: {}}"], "prototypes"),
        (["--fewshot.methods", "{logistic: {depth: 3}}"], "depth"),
        (["--fewshot.methods", "{}"], "fewshot.methods is empty"),
        (["--fewshot.inputs", "[pixels]"], "'pixels'"),
        (["--fewshot.inputs", "[profiles+embedding]"], "fewshot.embedding"),
        (["--fewshot.min_compounds", "9999"], "can be a test"),
        (["--fewshot.sizes", "[500]"], "No episode can be drawn"),
        (["--fewshot.tests", "[no such task]"], "'no such task'"),
    ],
)
def test_what_cannot_work_is_said(study, tmp_path, capsys, flags, message):
    shutil.copytree(study / "run", tmp_path / "run")
    assert main(["fslcp", str(study / "study.yaml"), "--out", str(tmp_path / "run"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_features_can_be_joined(study, tmp_path):
    """Structures beside profiles, one well a row."""
    flags = [
        "--fewshot.inputs",
        "[profiles+ecfp]",
        "--fewshot.methods",
        "{neighbours: {}}",
        "--out",
        str(tmp_path / "r"),
    ]
    shutil.copytree(study / "run", tmp_path / "r")
    assert main(["fslcp", str(study / "study.yaml"), *flags]) == 0
    folder = tmp_path / "r" / "fewshot" / "methods"
    cost = read_json(next(folder.glob("neighbours-profiles_ecfp*/cost.json")))
    assert cost["features"] > 100


def test_learners_are_every_method_on_every_input():
    config = Config()
    config.fewshot.methods = {"a": {"method": "logistic"}, "rate": {}}
    config.fewshot.inputs = ["ecfp"]
    assert [(one.name, one.method) for one in learners(config)] == [("a-ecfp", "logistic"), ("rate-ecfp", "rate")]
