"""The evaluate step of one split, on predictions made here: what it writes agrees with itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import wilcoxon

from phenohit.config import Config, EvaluateConfig, SplitConfig
from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.errors import ConfigError
from phenohit.evaluate.roc_test import VERDICTS, roc_test
from phenohit.evaluate.splits import TEST, TRAIN, Folds
from phenohit.files import read_json, read_table
from phenohit.scoring import OUTPUTS, evaluate_split, is_repeated
from phenohit.study import Method

N, T = 150, 8
METHODS = {"gapnet-views": 1.6, "forest-profiles": 0.8, "forest-ecfp": 0.5, "rate-base": 0.0}


class Here:
    """Paths of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, *parts: str) -> Path:
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def study_of(folder: Path, *, repeats: int, permutations: int) -> SimpleNamespace:
    stream = np.random.default_rng(5)
    Y = (stream.random((N, T)) < 0.35).astype(np.float32)
    row, column = np.nonzero(np.ones_like(Y))
    tasks = pd.DataFrame({"task": [f"t{t}" for t in range(T)], "assay": [f"a{t}" for t in range(T)]})
    names = np.array([f"c{i:03d}" for i in range(N)], dtype=object)
    compounds = pd.DataFrame({"compound": names})
    labels = Labels(
        sparse.csr_matrix((Y[row, column], (row, column)), (N, T)),
        compounds,
        tasks.assign(kind="binary", threshold=0.0),
    )
    k = repeats if repeats > 1 else 3
    part = np.full((N, k), TRAIN, np.int8)
    for s in range(k):
        tested = stream.permutation(N)[: N // 2] if repeats > 1 else np.arange(N) % 3 == s
        part[tested, s] = TEST
    folds = Folds(part, compounds.assign(group=np.arange(N), plate=""), [str(s) for s in range(k)], list(range(k)))
    run = Here(folder)
    common = stream.normal(size=(N, T))
    for method, signal in METHODS.items():
        at, fold = np.nonzero(part == TEST)
        score = 1 / (1 + np.exp(-(common + stream.normal(size=(N, T)) + signal * Y)))[at]
        score = np.full_like(score, 0.35) if method == "rate-base" else score
        scored = Predictions(score.astype(np.float32), names[at], labels.task_names, method, fold=fold.astype(np.int32))
        scored.save(run.path("splits/s/predictions", f"{method}.parquet"))
    split = SplitConfig(name="s", folds=1 if repeats > 1 else 3, repeats=repeats)
    how = EvaluateConfig(bootstrap=50, chance=10, simm_min=5, roc_permutations=permutations)
    return SimpleNamespace(
        config=Config(splits=[split], evaluate=how, seed=3), labels=labels, run=run,
        compounds=compounds.assign(series=np.arange(N)), splits=lambda: [("s", split)], folds=lambda *_: folds,
        methods=[Method(m, *m.split("-", 1), {}) for m in METHODS],
    )  # fmt: skip


@pytest.mark.parametrize("repeats", [1, 3])
def test_files_agree(tmp_path, repeats):
    study = study_of(tmp_path, repeats=repeats, permutations=199)
    evaluate_split(study, "s", "splits/s")
    here = tmp_path / "splits" / "s"
    assert all((here / name).is_file() for name in OUTPUTS)
    metrics, _ = read_table(here / "metrics.parquet")
    tested = pd.read_csv(here / "roc_tests.csv")
    pairs = list(dict.fromkeys(zip(tested["method_a"], tested["method_b"], strict=True)))
    assert pairs == [("gapnet-views", "forest-profiles"), ("gapnet-views", "forest-ecfp")]
    assert tested["verdict"].isin(VERDICTS).all()
    assert tested["verdict"].eq("better").any()
    auroc = metrics.set_index(["method", "task"])["auroc"]
    compare = pd.read_csv(here / "compare.csv").set_index(["method", "other"])
    a, b = auroc["gapnet-views"], auroc["forest-ecfp"]
    expected = wilcoxon(a, b, alternative="greater").pvalue
    assert compare.loc[("gapnet-views", "forest-ecfp"), "p_value"] == pytest.approx(expected)
    groups = {m["name"]: m["group"] for m in read_json(here / "agreement.json")["methods"]}
    assert groups["gapnet-views"] == groups["forest-profiles"] == "image"
    if repeats == 1:
        assert (tested["repeat"] == -1).all()
        assert "interval_repeat" not in metrics
        for row in tested.itertuples():
            assert row.auroc_a == pytest.approx(auroc[row.method_a, row.task])
        return
    chosen = metrics.groupby("method")["interval_repeat"].agg(["min", "max"])
    assert (chosen["min"] == chosen["max"]).all()
    median = chosen.loc["gapnet-views", "min"]
    assert (tested["repeat"] == median).all()
    # One test again, from the predictions of that repeat.
    y = study.labels.Y.toarray()[:, 2] != 0
    known = [Predictions.load(here / "predictions" / f"{m}.parquet") for m in pairs[0]]
    scores = [dict(zip(p.compounds[p.fold == median], p.score[p.fold == median, 2], strict=True)) for p in known]
    names = sorted(scores[0])
    at = [int(name[1:]) for name in names]
    again = roc_test(y[at], *([s[name] for name in names] for s in scores), permutations=1)
    assert tested.loc[(tested["task"] == "t2"), "statistic"].iloc[0] == again.statistic
    mean = metrics.set_index(["method", "task"])
    assert mean.loc[("gapnet-views", "t2"), "interval_auroc"] == pytest.approx(
        tested.set_index("task")["auroc_a"]["t2"].iloc[0]
    )


def test_the_tests_can_be_left_out(tmp_path):
    study = study_of(tmp_path, repeats=1, permutations=0)
    evaluate_split(study, "s", "splits/s")
    assert len(pd.read_csv(tmp_path / "splits/s/roc_tests.csv")) == 0
    study.config.evaluate.roc_permutations = -1
    with pytest.raises(ConfigError, match="permutations is -1"):
        evaluate_split(study, "s", "splits/s")


def test_what_a_repeated_split_is():
    assert is_repeated(SplitConfig(folds=1, repeats=3))
    assert not is_repeated(SplitConfig(folds=1))
    assert not is_repeated(SplitConfig(folds=5, repeats=3))
