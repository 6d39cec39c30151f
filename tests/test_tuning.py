"""Nested selection in a run: what is chosen, where it is done, and that nothing is rewarded for knowing the answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import phenohit.models
from phenohit import tuning
from phenohit.cli import main
from phenohit.data import Labels, Predictions, Profiles
from phenohit.evaluate.crossval import fit_split
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import auroc
from phenohit.evaluate.nested import inner_folds
from phenohit.evaluate.splits import TEST, UNUSED, Folds
from phenohit.files import read_json
from phenohit.models.forest import Forest

pytestmark = pytest.mark.xdist_group("tuning")


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("screen") / "simulated"
    flags = ["--settings.n_compounds", "200", "--settings.n_features", "40", "--settings.n_trees", "5"]
    assert main(["simulate", str(folder), *flags]) == 0
    config = yaml.safe_load((folder / "simulated.yaml").read_text())
    config["profiles"]["path"] = str(folder / Path(config["profiles"]["path"]).name)
    for source in config["activities"]:
        source["path"] = str(folder / Path(source["path"]).name)
    return config | {"chemistry": False, "baselines": False, "splits": [{"kind": "series", "folds": 3}]}


def run(config: dict[str, Any], out: Path, until: str = "fit", workers: str = "threads", **tune: Any) -> Path:
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config | {"tune": {"folds": 2, **tune}, "workers": {"kind": workers}}))
    assert main([until, str(file), "--out", str(out)]) == 0
    return out


FOREST = {"models": {"forest": {"n_trees": 5}}}
GRID = {"forest": {"min_samples_leaf": [1, 40], "max_features": [1.0, 2.0]}}


@pytest.fixture(scope="module")
def tuned(screen: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(screen | FOREST, tmp_path_factory.mktemp("tuned") / "run", grids=GRID)


def fold(folder: Path, k: int) -> Path:
    return folder / "models" / "series" / "forest-profiles" / f"fold-{k}"


def test_the_best_setting_of_the_inner_folds_is_used(screen: dict[str, Any], tuned: Path, tmp_path: Path) -> None:
    for k in range(3):
        table = pd.read_csv(fold(tuned, k) / "grid.csv")
        assert len(table) == 4
        best = table.iloc[table["auroc"].astype(float).argmax()]
        chosen = read_json(fold(tuned, k) / "chosen.json")
        assert chosen["cell"] == int(best["cell"])
        assert chosen["settings"]["min_samples_leaf"] == int(best["min_samples_leaf"])
    # The outer fold is what a run with these settings and no grid gives.
    chosen = read_json(fold(tuned, 0) / "chosen.json")["settings"]
    plain = run(screen | {"models": {"forest": chosen}}, tmp_path / "plain")
    a, b = (Predictions.load(fold(f, 0) / "predictions.parquet") for f in (tuned, plain))
    np.testing.assert_array_equal(a.score.toarray(), b.score.toarray())


def test_every_fold_is_scored_on_inner_folds_of_its_own(tuned: Path) -> None:
    """By hand: no test row of the outer fold is in any of them."""
    folds = Folds.load(tuned / "splits" / "series" / "folds.parquet")
    labels, data = Labels.load(tuned / "labels.parquet"), Profiles.load(tuned / "profiles.parquet")
    assert list(labels.compounds["compound"]) == list(data.compounds)  # one row per compound here
    for k in range(3):
        inside = inner_folds(folds, k, 2, labels, seed=0)
        settings = {"n_trees": 5, "min_samples_leaf": 40, "max_features": 2.0}
        found = []
        for s in range(2):
            assert not (inside.part[folds.part[:, k] == TEST, s] < UNUSED).any()
            scored = fit_split("forest", settings, data, labels, inside, s, clip=None, seed=0)
            found.append(auroc(Entries.of(labels, scored), "task"))
        table = pd.read_csv(fold(tuned, k) / "grid.csv").set_index("cell")
        units = [read_json(fold(tuned, k) / "grid" / f"0-3-{s}.json")["auroc"] for s in range(2)]
        np.testing.assert_allclose(np.array(units, dtype=float), np.array(found), rtol=1e-12)
        assert int(table.loc[3, "min_samples_leaf"]) == 40
    tables = [(fold(tuned, k) / "grid.csv").read_text() for k in range(3)]
    assert len(set(tables)) == 3


def test_processes_give_the_same_table(screen: dict[str, Any], tuned: Path, tmp_path: Path) -> None:
    other = run(screen | FOREST, tmp_path / "run", "select", grids=GRID, workers="processes")
    for k in range(3):
        assert (fold(other, k) / "grid.csv").read_text() == (fold(tuned, k) / "grid.csv").read_text()


def test_a_lost_worker_costs_only_what_it_had_not_finished(
    screen: dict[str, Any], tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, done, calls = tuning._work, [], 0

    def work(folder: str, config: Any, unit: tuning.Unit) -> None:
        nonlocal calls
        calls += 1
        if calls in (3, 20):
            raise BrokenProcessPool("killed")
        right(folder, config, unit)
        done.append(unit.path)

    monkeypatch.setattr(tuning, "_work", work)
    other = run(screen | FOREST | {"jobs": 1}, tmp_path / "run", "select", grids=GRID)
    assert len(done) == len(set(done)) == 3 * 4 * 2  # every unit once
    for k in range(3):
        assert (fold(other, k) / "grid.csv").read_text() == (fold(tuned, k) / "grid.csv").read_text()


def test_a_killed_run_keeps_what_was_done(
    screen: dict[str, Any], tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, calls = tuning._work, 0

    def work(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 11:
            raise KeyboardInterrupt
        right(*args)

    monkeypatch.setattr(tuning, "_work", work)
    config = screen | FOREST | {"jobs": 1}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config | {"tune": {"folds": 2, "grids": GRID}, "workers": {"kind": "threads"}}))
    assert main(["select", str(file), "--out", str(tmp_path / "run")]) != 0
    other = run(config, tmp_path / "run", "select", grids=GRID)
    assert calls == 3 * 4 * 2 + 1
    for k in range(3):
        assert (fold(other, k) / "grid.csv").read_text() == (fold(tuned, k) / "grid.csv").read_text()


def test_a_ray_cluster_gives_the_same_table_and_a_killed_worker_costs_only_its_cells(
    screen: dict[str, Any], tmp_path: Path
) -> None:
    """Two worker processes of a real local cluster, one of which is killed while it works."""
    pytest.importorskip("ray")
    grid = {"forest": {"n_trees": [80, 81], "min_samples_leaf": [1, 40]}}
    screen = screen | {"splits": [{"name": "series", "kind": "series", "folds": 2}]}
    here = run(screen | FOREST, tmp_path / "here", "select", grids=grid)
    file = tmp_path / "there.yaml"
    there = {"jobs": 2, "workers": {"kind": "ray"}, "tune": {"folds": 2, "grids": grid}}
    file.write_text(yaml.safe_dump(screen | FOREST | there))
    command = [sys.executable, "-m", "phenohit", "select", str(file), "--out", str(tmp_path / "there")]
    with (tmp_path / "said").open("w") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        cells = fold(tmp_path / "there", 0) / "grid"
        killed: dict[str, int] = {}
        while process.poll() is None and not killed:
            time.sleep(0.02)
            before = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")} if cells.exists() else {}
            if before:
                workers = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _is_worker(p, process.pid)]
                for worker in workers[:1]:
                    os.kill(int(worker.name), signal.SIGKILL)
                    killed = before
        assert process.wait(timeout=300) == 0, (tmp_path / "said").read_text()[-2000:]
    assert killed
    assert "a worker was lost" in (tmp_path / "there" / "log.txt").read_text()
    for name, written in killed.items():
        assert (cells / name).stat().st_mtime_ns == written  # not done again
    for k in range(2):
        assert (fold(tmp_path / "there", k) / "grid.csv").read_text() == (fold(here, k) / "grid.csv").read_text()


def _is_worker(process: Path, driver: int) -> bool:
    """Whether a process is a worker of the cluster that this driver has started."""
    try:
        name = (process / "cmdline").read_bytes()
        environment = (process / "environ").read_bytes()
    except OSError:
        return False
    return (
        name.startswith(b"ray::PoolActor") and f"{driver}".encode() != process.name.encode() and b"RAY" in environment
    )


def test_halving_tries_all_on_few_and_few_on_all(screen: dict[str, Any], tmp_path: Path) -> None:
    out = run(screen | FOREST, tmp_path / "run", "select", grids=GRID, halving=2)
    table = pd.read_csv(fold(out, 0) / "grid.csv")
    assert table.groupby("rung")["share"].agg(["size", "first"]).to_numpy().tolist() == [[4, 0.25], [2, 0.5], [1, 1.0]]
    assert read_json(fold(out, 0) / "chosen.json")["cell"] == int(table.iloc[-1]["cell"])


def test_the_final_fit_has_the_best_setting_of_all_folds(screen: dict[str, Any], tmp_path: Path) -> None:
    settings = screen | FOREST | {"hits": {"best": 1, "n": 5}, "evaluate": {"bootstrap": 50, "chance": 5}}
    out = run(settings, tmp_path / "run", "hits", grids=GRID)
    tables = pd.concat([pd.read_csv(fold(out, k) / "grid.csv") for k in range(3)])
    best = int(tables.groupby("cell")["auroc"].mean().idxmax())
    row = tables[tables["cell"] == best].iloc[0]
    final = Forest.load(out / "models" / "final" / "model").settings
    assert (final.min_samples_leaf, final.max_features) == (row["min_samples_leaf"], row["max_features"])


def test_the_epoch_to_stop_at_is_chosen_inside(screen: dict[str, Any], tmp_path: Path) -> None:
    network = {"units": 16, "layers": 1, "min_valid": 5, "patience": 3, "max_epochs": 15}
    out = run(screen | {"models": {"network": network}}, tmp_path / "run", grids={"network": {"learning_rate": [0.05]}})
    folder = out / "models" / "series" / "network-profiles" / "fold-0"
    inner = [read_json(path)["epochs"] for path in sorted((folder / "grid").glob("*.json"))]
    chosen = read_json(folder / "chosen.json")["settings"]
    assert len(inner) == 2
    assert max(inner) >= 1  # 0: with too few actives set apart, it did not stop early
    assert chosen["epochs"] == round(np.mean([n for n in inner if n]))
    assert chosen["patience"] == 0


class Stopper(Forest):
    """A forest that says that it stopped early, at ten times the epochs that it was given."""

    name = "stopper"

    def __init__(self, *, epochs: int = 1) -> None:
        super().__init__(n_trees=5)
        self.stopped = 10 * epochs


def test_epochs_that_are_tried_stand_beside_those_at_which_a_model_stopped(
    screen: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(phenohit.models.MODELS, "stopper", f"{__name__}:Stopper")
    screen = screen | {"splits": [{"kind": "series", "folds": 2}], "models": {"stopper": {}}}
    out = run(screen, tmp_path / "run", "select", grids={"stopper": {"epochs": [1, 2]}})
    for k in range(2):
        folder = out / "models" / "series" / "stopper-profiles" / f"fold-{k}"
        table = pd.read_csv(folder / "grid.csv")
        assert table["epochs"].tolist() == [10, 20]
        assert table["epochs (setting)"].tolist() == [1, 2]
        chosen = read_json(folder / "chosen.json")
        assert chosen["settings"]["epochs"] == table.set_index("cell").loc[chosen["cell"], "epochs"]


class Peeker(Forest):
    """A forest that, where told to, gives away the labels of the compounds it has the answers for, and noise else."""

    name = "peeker"
    answers: dict[str, np.ndarray] = {}  # noqa: RUF012

    def __init__(self, *, peek: bool = False) -> None:
        super().__init__(n_trees=5)
        self.peek = peek

    def predict(self, data: Any, tasks: list[str] | None = None) -> Predictions:
        found = super().predict(data, tasks)
        if not self.peek:
            return found
        score = np.random.default_rng(len(data)).random(found.score.shape).astype(np.float32)
        for i, compound in enumerate(found.compounds):
            if compound in self.answers:
                score[i] = self.answers[compound]
        return Predictions(score, found.compounds, found.tasks, self.name)


def test_a_setting_that_wins_through_the_outer_fold_is_not_rewarded(
    screen: dict[str, Any], tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(phenohit.models.MODELS, "peeker", f"{__name__}:Peeker")
    folds = Folds.load(tuned / "splits" / "series" / "folds.parquet")
    labels = Labels.load(tuned / "labels.parquet")
    test = folds.rows["compound"][folds.part[:, 0] == TEST]
    row = {c: i for i, c in enumerate(labels.compounds["compound"])}
    monkeypatch.setattr(Peeker, "answers", {c: labels.Y[row[c]].toarray()[0] for c in test})
    leaking = {}
    for peek in (False, True):  # chosen by the outer fold, peeking would win with ease
        plain = run(screen | {"models": {"peeker": {"peek": peek}}}, tmp_path / f"plain-{peek}")
        scored = Predictions.load(plain / "models/series/peeker-profiles/fold-0/predictions.parquet")
        leaking[peek] = np.nanmean(auroc(Entries.of(labels, scored), "task"))
    assert leaking[True] > 0.99 > leaking[False] + 0.1
    out = run(screen | {"models": {"peeker": {}}}, tmp_path / "run", grids={"peeker": {"peek": [True, False]}})
    assert read_json(out / "models/series/peeker-profiles/fold-0/chosen.json")["settings"]["peek"] is False
    scored = Predictions.load(out / "models/series/peeker-profiles/fold-0/predictions.parquet")
    assert np.nanmean(auroc(Entries.of(labels, scored), "task")) == pytest.approx(leaking[False], abs=0.05)
