"""A user's own assay with a few measured compounds, on a simulated screen whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from phenohit.cli import main
from phenohit.data.simulate_settings import SimulateSettings
from phenohit.own_assay import predict_assay

pytestmark = pytest.mark.xdist_group("fewshot")


class Screen:
    """A run up to its labels, and the truth of one of its assays."""

    def __init__(self, folder):
        from phenohit.simulate import simulate

        settings = SimulateSettings(
            n_compounds=300, n_features=60, n_morphology=5, n_invisible=1, n_chemistry=0, n_cytotoxicity=0, fill=0.6,
            effect=3.0,
        )  # fmt: skip
        simulate(folder / "screen", settings)
        self.run = folder / "run"
        assert main(["labels", str(folder / "screen" / "simulated.yaml"), "--out", str(self.run), "--jobs", "1"]) == 0
        self.truth = pd.read_csv(folder / "screen" / "simulated_answers.csv").set_index("compound_id")

    def table(self, path, assay, n, seed=0, **more):
        """Write a table of n measured compounds: the upper third of the truth is active."""
        values = self.truth[assay]
        picked = values.sample(n, random_state=seed)
        active = picked >= values.quantile(2 / 3)
        table = pd.DataFrame({"compound_id": picked.index, "outcome": np.where(active, "active", "inactive")})
        pd.concat([table, pd.DataFrame(more)], ignore_index=True).to_csv(path, index=False)
        return str(path)


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    return Screen(tmp_path_factory.mktemp("own"))


def visible(screen):
    """An assay that morphology shows."""
    return next(c for c in screen.truth.columns if "morphology" in c.lower() or c.upper().startswith("SIM"))


def test_few_labels_predict_what_nobody_measured(screen, tmp_path):
    assay = visible(screen)
    table = screen.table(tmp_path / "mine.csv", assay, 60)
    answer = predict_assay(table, str(screen.run), methods=["rate", "logistic"], draws=60)
    found = pd.read_csv(answer.folder / "predictions.csv", keep_default_na=False)
    assert len(found) == len(pd.read_parquet(screen.run / "compounds.parquet"))
    assert (found["measured"] != "").sum() == 60
    assert found["score"].is_monotonic_decreasing
    new = found[found["measured"] == ""]
    assert new["rank"].astype(int).tolist() == list(range(1, len(new) + 1))
    values = screen.truth[assay]
    active = values.reindex(new["compound_id"]) >= values.quantile(2 / 3)
    reached = roc_auc_score(active, new["score"])
    assert reached > 0.6
    assert answer.estimate.low - 0.05 <= reached <= answer.estimate.high + 0.05
    methods = pd.read_csv(answer.folder / "methods.csv").set_index("method")
    assert methods.loc["rate", "auroc"] < methods["auroc"].max()
    assert "SIMULATED" in (answer.folder / "summary.md").read_text()


def test_what_was_learned_before_is_loaded(screen, tmp_path):
    table = screen.table(tmp_path / "again.csv", visible(screen), 40, seed=1)
    first = predict_assay(table, str(screen.run), methods=["multitask"], draws=10, out=str(tmp_path / "a"))
    models = {p: p.stat().st_mtime_ns for p in (screen.run / "fewshot-models").rglob("model.safetensors")}
    second = predict_assay(table, str(screen.run), methods=["multitask"], draws=10, out=str(tmp_path / "b"))
    assert models == {p: p.stat().st_mtime_ns for p in (screen.run / "fewshot-models").rglob("model.safetensors")}
    for name in ("predictions.csv", "methods.csv"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()


def test_what_cannot_be_used_is_listed(screen, tmp_path):
    """Unknown compounds, one that is there twice, and one whose rows contradict each other."""
    known = screen.truth.index[:3]
    table = screen.table(
        tmp_path / "odd.csv", visible(screen), 40, seed=2,
        compound_id=["nobody-1", "nobody-2", known[0], known[0], known[1], known[1]],
        outcome=["active", "inactive", "active", "active", "active", "inactive"],
    )  # fmt: skip
    answer = predict_assay(table, str(screen.run), methods=["rate", "neighbours"], draws=10, out=str(tmp_path / "o"))
    lost = pd.read_csv(answer.folder / "dropped.csv", keep_default_na=False)
    assert lost["reason"].str.contains("not imaged").sum() == 2
    assert set(lost["id"][lost["reason"].str.contains("not imaged")]) == {"nobody-1", "nobody-2"}
    assert lost["reason"].str.contains("contradict|active and inactive|tie", case=False).any()


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        ([("SIM-0", "active")] * 3, [], "At least 8 in all and 2 of each class"),
        (None, ["--run", "nowhere"], "holds no labels of a run"),
        (None, ["--methods", "[logistics]"], "logistic"),
        (None, ["--draws", "3"], "At least 10"),
        (None, ["--value", "ic50"], "no column 'ic50'"),
    ],
)
def test_what_cannot_work_is_said(screen, tmp_path, capsys, rows, flags, message):
    path = tmp_path / "t.csv"
    if rows is None:
        screen.table(path, visible(screen), 30)
    else:
        ids = screen.truth.index[: len(rows)]
        pd.DataFrame({"compound_id": ids, "outcome": [r[1] for r in rows]}).to_csv(path, index=False)
    run = [] if "--run" in flags else ["--run", str(screen.run)]
    assert main(["fewshot", str(path), *run, *flags]) == 2
    assert message in capsys.readouterr().err


def test_the_command_says_what_to_expect(screen, tmp_path, capsys):
    table = screen.table(tmp_path / "said.csv", visible(screen), 40, seed=3)
    flags = ["--run", str(screen.run), "--methods", "[rate, logistic]", "--draws", "20", "--out", str(tmp_path / "out")]
    assert main(["fewshot", table, *flags]) == 0
    said = capsys.readouterr().out
    assert "Expected AUROC on compounds of other chemical series" in said
    assert "predictions.csv" in said


def test_the_page_can_be_followed(screen, tmp_path, monkeypatch, capsys):
    """The second command of docs/few-shot.md as it stands."""
    import re
    import shlex
    from pathlib import Path

    page = (Path(__file__).parents[1] / "docs" / "few-shot.md").read_text()
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    line = next(line for line in lines if "--methods" in line)
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/my-screen").symlink_to(screen.run)
    screen.table(Path("my_assay.csv"), visible(screen), 40, seed=4)
    assert main(shlex.split(line)[1:]) == 0
    folder = Path("runs/my-screen/fewshot-assays/my_assay")
    named = set(re.findall(r"\| `(\w+\.\w+)` \|", page.split("To try a few")[0]))
    assert named == {"summary.md", "predictions.csv", "methods.csv", "dropped.csv"}
    assert named <= {p.name for p in folder.iterdir()}
    assert "logistic" in capsys.readouterr().out
