"""What a finished run can be asked for, on a small simulated screen with the potency recipe."""

from __future__ import annotations

import shutil
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phenohit.cli import main
from phenohit.data import Labels, Predictions
from phenohit.files import read_json, read_table

pytestmark = pytest.mark.xdist_group("annotating")

OFF = "sim_cytotoxicity_01 >= 6"


@pytest.fixture(scope="session")
def potent(tmp_path_factory) -> Path:
    """A finished run; its wells are rows, so that scores are averaged."""
    folder = tmp_path_factory.mktemp("potent")
    screen, out = folder / "simulated", folder / "run"
    flags = ["--settings.n_compounds", "240", "--settings.n_features", "400", "--settings.n_trees", "25"]
    assert main(["simulate", str(screen), *flags]) == 0
    flags = [
        "--out", str(out), "--jobs", "1", "--models", "{forest: {n_trees: 25}}", "--chemistry", "false",
        "--profiles.unit", "well", "--evaluate.bootstrap", "50", "--evaluate.chance", "10",
        "--hits.recipe", "potency", "--hits.min_score", "0.3", "--hits.n", "50", "--hits.cns", "reject",
        "--hits.off_targets", f'["{OFF}"]', "--hits.replaceable", "0.6", "--hits.best", "2",
    ]  # fmt: skip
    assert main(["run", str(screen / "simulated.yaml"), *flags]) == 0
    return out


def test_the_recipe_reaches_the_picks(potent):
    plan = read_json(potent / "hits" / "plan.json")
    final = Predictions.load(potent / "predictions" / "final.parquet")
    assert final.tasks == [*plan["tasks"], *([] if OFF in plan["tasks"] else [OFF])]
    assert len(read_table(potent / "background.parquet")[0]) > 240
    for path in potent.glob("hits/*/hits.parquet"):
        table, _ = read_table(path)
        picked = table[table["picked"]]
        assert len(picked)
        assert picked["score"].min() >= 0.3
        off = pd.Series(final.score[:, final.tasks.index(OFF)], index=final.compounds)
        np.testing.assert_allclose(table["off_target_score"], off[table["compound"]], rtol=1e-6)
        assert table["cns"].str.startswith("likely to enter the brain").any()
        summary = read_json(path.with_name("summary.json"))
        assert [one["name"] for one in summary["filters"]] == [
            "pains", "reactive", "promiscuous", "autofluorescent", "cns", "off_targets",
        ]  # fmt: skip


def test_the_report_shows_filters_and_replaceable_assays(potent):
    page = (potent / "report.html").read_text()
    for text in ("Recipe “potency”", "reactive or unwanted group", "Assays that the images could replace"):
        assert text in page
    table = pd.read_csv(potent / "replaceable.csv")
    assert (table["auroc_low"] > 0.6).all()
    assert len(table)
    assert all(escape(task) in page for task in table["task"])
    assert not table["task"].str.startswith("sim_noise").any()


def test_another_filter_does_not_fit_again(potent, tmp_path, caplog):
    copy = tmp_path / "run"
    shutil.copytree(potent, copy)
    flags = ["--out", str(copy), "--hits.filters", "[pains]", "--hits.n", "50"]
    with caplog.at_level("DEBUG", "phenohit"):
        assert main(["hits", str(copy / "config.yaml"), *flags]) == 0
    assert "final: already done" in caplog.text
    assert "hits/sim" in caplog.text


def test_a_library_is_annotated(potent, tmp_path, capsys):
    out = tmp_path / "library.parquet"
    assert main(["annotate", str(potent), str(out), "--min_auroc", "0.6"]) == 0
    table = pd.read_parquet(out).astype({"task": str, "compound": str, "call": str, "measured": str})
    metrics, _ = read_table(potent / "splits" / "series" / "metrics.parquet")
    mine = metrics[(metrics["method"] == "forest-profiles") & (metrics["auroc"] >= 0.6)]
    assert set(table["task"]) == set(mine["task"])
    assert len(table) == 240 * len(mine)
    assert f"{len(table):,} rows" in capsys.readouterr().out
    # The same scores as the run's own.
    final = Predictions.load(potent / "predictions" / "final.parquet")
    task = final.tasks[0]
    own = pd.Series(final.score[:, 0], index=final.compounds)
    part = table[table["task"] == task].set_index("compound")
    np.testing.assert_allclose(part["score"], own[part.index], rtol=1e-5)
    labels = Labels.load(potent / "labels.parquet")
    Y = labels.Y[:, [labels.task_names.index(task)]].toarray().ravel()
    known = part["measured"][labels.compounds["compound"]]
    assert (known == "active").sum() == Y.sum()
    # Sureness is the calibration of that bin.
    held, _ = read_table(potent / "splits" / "series" / "calibration.parquet")
    row = table[table["sureness"].notna()].iloc[0]
    bins = held[(held["method"] == "forest-profiles") & (held["low"] < row["score"]) & (row["score"] <= held["high"])]
    right = bins["share"] if row["call"] == "active" else 1 - bins["share"]
    assert np.isclose(right, row["sureness"], atol=1e-6).any()


def test_a_phenotype_is_deconvolved(potent, tmp_path, capsys):
    task = read_json(potent / "hits" / "plan.json")["tasks"][0]
    out = tmp_path / "targets.csv"
    assert main(["deconvolve", str(potent), task, "--out", str(out), "--min_auroc", "0.6"]) == 0
    table = pd.read_csv(out)
    assert task not in set(table["task"])
    assert table["p"].is_monotonic_increasing
    assert f"{len(table)} candidates" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["annotate", "{run}", "a.txt"], "must end in .parquet or .csv"),
        (["annotate", "{run}", "a.csv", "--min_auroc", "1.1"], "No task of"),
        (["annotate", "{run}", "a.csv", "--tasks", "[sim]"], "'sim' is not a task of this run. Nearest"),
        (["annotate", "{run}", "a.csv", "--call_at", "2"], "--call_at is 2"),
        (["annotate", "nowhere", "a.csv"], "holds no final model"),
        (["deconvolve", "{run}", "sim"], "'sim' is not a task of this run. Nearest"),
    ],
)
def test_mistakes_are_told(potent, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main([text.format(run=potent) for text in arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_unknown_off_targets_are_refused(potent, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(potent, copy)
    assert main(["hits", str(copy / "config.yaml"), "--out", str(copy), "--hits.off_targets", "[hERG]"]) == 2
    assert "hits.off_targets: 'hERG' is not a task of this run" in capsys.readouterr().err
