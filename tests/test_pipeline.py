"""The whole way on a small simulated screen: what comes out, resuming, killing, planted truth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phenohit.cli import main
from phenohit.data import Labels, Predictions
from phenohit.evaluate.splits import TEST, Folds
from phenohit.files import read_json, read_table
from phenohit.runs import slug

pytestmark = pytest.mark.xdist_group("pipeline")

RESULTS = [
    "labels.parquet",
    "compounds.parquet",
    "splits/series/folds.parquet",
    "splits/series/metrics.parquet",
    "splits/series/calibration.parquet",
    "splits/series/enrichment.parquet",
    "splits/series/predictions/forest-profiles.parquet",
    "splits/series/predictions/network-profiles.parquet",
    "predictions/final.parquet",
]
FAST = ["--evaluate.bootstrap", "100", "--evaluate.chance", "20"]


@pytest.fixture(scope="session")
def screen(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("screen") / "simulated"
    flags = ["--settings.n_compounds", "240", "--settings.n_features", "60", "--settings.n_trees", "25"]
    assert main(["simulate", str(folder), *flags]) == 0
    return folder


@pytest.fixture(scope="session")
def finished(screen, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["run", str(screen / "simulated.yaml"), "--out", str(out), *FAST]) == 0
    return out


def _same(a: Path, b: Path) -> None:
    for name in RESULTS:
        pd.testing.assert_frame_equal(read_table(a / name)[0], read_table(b / name)[0], obj=name)
    hits = sorted(p.relative_to(a) for p in a.glob("hits/*/hits.parquet"))
    assert hits
    assert hits == sorted(p.relative_to(b) for p in b.glob("hits/*/hits.parquet"))
    for name in hits:
        pd.testing.assert_frame_equal(read_table(a / name)[0], read_table(b / name)[0], obj=str(name))


def test_a_run_leaves_what_it_promises(finished):
    for name in [*RESULTS, "report.html", "manifest.json", "dropped.csv", "match.csv", "config.yaml", "log.txt"]:
        assert (finished / name).stat().st_size > 0, name
    assert not list(finished.rglob("*.partial"))
    manifest = read_json(finished / "manifest.json")
    assert manifest["simulated"] is True
    assert manifest["versions"]["numpy"] == np.__version__
    assert "SIMULATED" in (finished / "report.html").read_text()


def test_no_leak_check_fails_and_series_stay_whole(finished):
    leaks = pd.read_csv(finished / "splits" / "series" / "leaks.csv")
    assert not leaks["passed"].eq(False).any()
    compounds, _ = read_table(finished / "compounds.parquet")
    folds = Folds.load(finished / "splits" / "series" / "folds.parquet")
    assert len(folds.rows) == len(compounds)
    assert ((folds.part == TEST).sum(axis=1) == 1).all()
    series = compounds.set_index("compound")["series"].loc[folds.rows["compound"]].to_numpy()
    table = pd.DataFrame({"series": series, "fold": (folds.part == TEST).argmax(axis=1)})
    assert table.groupby("series")["fold"].nunique().max() == 1
    assert table["series"].nunique() < len(table)


def test_no_test_compound_has_a_training_neighbour_by_brute_force(finished):
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    compounds, _ = read_table(finished / "compounds.parquet")
    make = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=2048)
    prints = [make.GetFingerprint(Chem.MolFromSmiles(s)) for s in compounds["smiles"]]
    folds = Folds.load(finished / "splits" / "series" / "folds.parquet")
    assert folds.rows["compound"].tolist() == compounds["compound"].tolist()
    of = (folds.part == TEST).argmax(axis=1)
    largest = 0.0
    for i, mine in enumerate(prints):
        others = [p for p, f in zip(prints, of, strict=True) if f != of[i]]
        largest = max(largest, max(DataStructs.BulkTanimotoSimilarity(mine, others)))
    assert 0.2 < largest < 0.7


def test_every_measured_entry_is_scored_once_and_nothing_else(finished):
    labels = Labels.load(finished / "labels.parquet")
    for path in (finished / "splits" / "series" / "predictions").glob("*.parquet"):
        scored = Predictions.load(path)
        assert scored.score.nnz == labels.Y.nnz, path.name
        long, _ = read_table(path)
        assert not long.duplicated(["compound", "task"]).any()


def test_hits_are_unmeasured_unique_and_free_of_pains(finished):
    labels = Labels.load(finished / "labels.parquet")
    for path in finished.glob("hits/*/hits.parquet"):
        table, _ = read_table(path)
        assay = labels.tasks.set_index("task").loc[table["task"].iloc[0], "assay"]
        siblings = (labels.tasks["assay"] == assay).to_numpy()
        measured = np.diff(labels.take_tasks(siblings).Y.indptr) > 0
        assert not set(table["compound"]) & set(labels.compounds["compound"][measured])
        picked = table[table["picked"]]
        assert len(picked) > 0
        assert (picked["pains"] == "").all()
        assert table["compound"].is_unique


def test_running_again_does_nothing_and_changes_nothing(finished, screen, caplog):
    before = (finished / "splits" / "series" / "metrics.parquet").stat().st_mtime_ns
    with caplog.at_level("DEBUG", "phenohit"):
        assert main(["run", str(screen / "simulated.yaml"), "--out", str(finished), *FAST]) == 0
    assert "forest-profiles/0: already done" in caplog.text
    assert "done in" not in caplog.text
    assert (finished / "splits" / "series" / "metrics.parquet").stat().st_mtime_ns == before


def test_a_changed_setting_redoes_only_what_depends_on_it(finished, screen, caplog):
    with caplog.at_level("DEBUG", "phenohit"):
        flags = ["--evaluate.bootstrap", "101", "--evaluate.chance", "20"]
        assert main(["run", str(screen / "simulated.yaml"), "--out", str(finished), *flags]) == 0
    assert "evaluate/series: redone because of a change in settings" in caplog.text
    assert "forest-profiles/0: already done" in caplog.text
    (finished / "hits" / "of-another-plan").mkdir()
    assert main(["run", str(screen / "simulated.yaml"), "--out", str(finished), *FAST]) == 0
    plan = read_json(finished / "hits" / "plan.json")
    assert {p.name for p in (finished / "hits").iterdir() if p.is_dir()} == {slug(task) for task in plan["tasks"]}


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_a_run_killed_twice_resumes_to_the_same_result(finished, screen, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "phenohit", "run", str(screen / "simulated.yaml"), "--out", str(out), *FAST]
    for when in (0.25, 0.7):
        enough = when * len(list((finished / "stamps").rglob("*.json")))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, start_new_session=True, **quiet)
        deadline = time.monotonic() + 300
        while len(list(out.glob("stamps/**/*.json"))) < enough and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (out / "report.html").exists()
        for path in out.rglob("*.parquet"):  # whatever bears its real name is whole
            read_table(path)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    _same(finished, out)
    assert not list(out.rglob("*.partial"))


def test_final_model_scores_new_profiles(finished, screen, tmp_path):
    out = tmp_path / "new.parquet"
    assert main(["predict", str(finished), str(screen / "simulated_profiles.parquet"), "--out", str(out)]) == 0
    assert (tmp_path / "new.dropped.csv").read_text().startswith("stage,what,id,reason")
    scored = Predictions.load(out)
    final = Predictions.load(finished / "predictions" / "final.parquet")
    order = pd.Index(scored.compounds).get_indexer(pd.Index(final.compounds))
    where = [scored.tasks.index(t) for t in final.tasks]
    np.testing.assert_allclose(scored.score[order][:, where], final.score, rtol=1e-5)  # blocks of other sizes


def test_truth_is_found(finished, screen):
    truth = pd.read_csv(screen / "simulated_truth.csv")
    metrics, _ = read_table(finished / "splits" / "series" / "metrics.parquet")
    table = metrics.merge(truth[["assay", "kind", "ceiling_auroc"]], on="assay", suffixes=("", "_truth"))
    mean = table.groupby(["kind_truth", "method"])["auroc"].mean().unstack()
    assert mean.loc["morphology", "forest-profiles"] > 0.65
    assert abs(mean.loc["invisible", "forest-profiles"] - 0.5) < 0.12
    assert mean.loc["cytotoxicity", "logistic-cell_count"] > mean.loc["cytotoxicity", "forest-profiles"] - 0.08
    assert mean.loc["chemistry", "forest-ecfp"] > mean.loc["chemistry", "forest-profiles"]


def test_wells_plates_scaffolds_and_holdouts_go_the_same_way(screen, tmp_path):
    out = tmp_path / "run"
    splits = (
        "[{kind: series, folds: 2, plate_folds: 2}, {kind: scaffold, folds: 2},"
        " {name: repeated, kind: compound, folds: 1, repeats: 2}]"
    )
    flags = ["--profiles.unit", "well", "--models", "{logistic: {}}", "--splits", splits, *FAST]
    assert main(["run", str(screen / "simulated.yaml"), "--out", str(out), *flags]) == 0
    for name in ("series-plates", "scaffold", "repeated"):
        leaks = pd.read_csv(out / "splits" / name / "leaks.csv")
        assert not leaks["passed"].eq(False).any(), name
    plates = pd.read_csv(out / "splits" / "series-plates" / "leaks.csv")
    assert plates.loc[plates["check"] == "shared plate", "passed"].astype(bool).all()
    assert (plates["check"] == "shared plate").sum() == 4
    folds = Folds.load(out / "splits" / "repeated" / "folds.parquet")
    assert folds.part.shape[1] == 2
    assert abs((folds.part == TEST).mean() - 0.2) < 0.05
    labels = Labels.load(out / "labels.parquet")
    wells = Predictions.load(out / "splits" / "series-plates" / "predictions" / "logistic-profiles.parquet")
    chemistry = Predictions.load(out / "splits" / "series-plates" / "predictions" / "logistic-ecfp.parquet")
    assert len(wells) > len(chemistry)  # chemistry has no wells: one row per compound
    assert chemistry.score.nnz == labels.Y.nnz
    # every compound is tested in the same series fold, whether by its wells or by its structure
    by_well = pd.Series(wells.fold, index=wells.compounds).groupby(level=0).agg(["min", "max"])
    assert (by_well["min"] == by_well["max"]).all()
    by_compound = pd.Series(chemistry.fold, index=chemistry.compounds)
    assert (by_well["min"] == by_compound.loc[by_well.index]).all()


def test_macau_goes_the_same_way_and_its_final_scores_have_a_spread(screen, tmp_path):
    out = tmp_path / "run"
    flags = ["--models", "{macau: {latent: 8, sweeps: 60, burn_in: 20}}", "--chemistry", "false", *FAST]
    assert main(["hits", str(screen / "simulated.yaml"), "--out", str(out), *flags]) == 0
    final = Predictions.load(out / "predictions" / "final.parquet")
    assert final.model == "macau-profiles"
    assert final.spread.shape == final.score.shape
    assert (final.spread > 0).all()
