"""What every few-shot method in the table promises."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, RunError, ShapeError
from phenohit.fewshot import find_method, method_names
from phenohit.fewshot.contract import check_scores
from phenohit.fewshot.episodes import Episodes, draw_tasks
from phenohit.models.contract import model_path

# Small and quick; what is not named here keeps its default.
QUICK: dict[str, dict[str, Any]] = {
    "forest": {"n_trees": 10},
    "xgboost": {"n_trees": 10},
    "logistic": {"device": "cpu"},
    "singletask": {"units": 16, "epochs": 20, "device": "cpu"},
    "multitask": {"units": 32, "pretrain_epochs": 20, "epochs": 20, "device": "cpu"},
    "prototypes": {"units": 32, "embedding": 16, "steps": 60, "episodes": 16, "device": "cpu"},
    "maml": {"units": 32, "meta_steps": 60, "tasks": 8, "learning_rate": 1e-2, "device": "cpu"},
    "macau": {"latent": 4, "sweeps": 80, "burn_in": 40, "keep": 10},
}
NAMES = [name for name in method_names() if find_method(name).sees == "profiles"]
N, F, TRAIN, VALID, SPARE = 160, 12, 14, 4, 20  # the last SPARE compounds are measured in no task
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # rounding of float32 in batches of another size
Tasks = tuple[Profiles, Labels, Labels, list[Episodes]]


def simulated(seed: int = 0) -> Tasks:
    """Tasks that are weighted sums of the same three profile directions; half of the entries is not measured."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, F)).astype(np.float32)
    hidden = X[:, :3] @ rng.standard_normal((3, TRAIN + VALID + 2)) + 0.5 * rng.standard_normal((N, TRAIN + VALID + 2))
    measured = rng.random(hidden.shape) < 0.5
    measured[:, -2:] = True
    measured[-SPARE:] = False
    names = [f"C{i:03d}" for i in range(N)]
    data = Profiles(X, pd.DataFrame({"Metadata_compound": names}), [f"f{j}" for j in range(F)])

    def part(columns: slice) -> Labels:
        row, column = np.nonzero(measured[:, columns])
        y = (hidden[:, columns][row, column] > 0).astype(np.float32)
        tasks = [f"t{j}" for j in range(hidden.shape[1])[columns]]
        table = pd.DataFrame({"task": tasks, "assay": tasks, "kind": "binary", "threshold": np.nan})
        return Labels(
            sparse.csr_matrix((y, (row, column)), shape=(N, len(tasks))),
            data.rows.set_axis(["compound"], axis=1),
            table,
        )

    tests = part(slice(TRAIN + VALID, None))
    episodes, lost = draw_tasks(tests, data.compounds, tests.task_names, sizes=[8, 16], query=12, n=4)
    assert not len(lost)
    return data, part(slice(TRAIN)), part(slice(TRAIN, TRAIN + VALID)), episodes


@pytest.fixture(scope="module")
def tasks() -> Tasks:
    return simulated()


def pretrained(name: str, tasks: Tasks, data: Profiles | None = None) -> Any:
    known, train, valid, _ = tasks
    method = find_method(name)(**QUICK.get(name, {}))
    return method.pretrain(data or known, train, valid=valid, sizes=[8, 16], query=12, seed=1)


@pytest.fixture(scope="module", params=NAMES)
def learned(request: pytest.FixtureRequest, tasks: Tasks) -> tuple[str, Any, list[np.ndarray]]:
    method = pretrained(request.param, tasks)
    return request.param, method, method.score(tasks[0], tasks[3], seed=2)


def test_scores_are_soft_probabilities(learned: tuple[str, Any, list[np.ndarray]], tasks: Tasks) -> None:
    name, method, scores = learned
    check_scores(name, scores, tasks[3])
    assert method.name == name
    for score in scores:
        assert score.dtype == np.float32
        assert ((score > 0) & (score < 1)).all()


def test_queries_are_ranked(learned: tuple[str, Any, list[np.ndarray]], tasks: Tasks) -> None:
    name, _, scores = learned
    pairs = [(y, p) for e, s in zip(tasks[3], scores, strict=True) for y, p in zip(e.y_query, s, strict=True)]
    auroc = np.mean([roc_auc_score(y, p) for y, p in pairs])
    assert auroc == 0.5 if name == "rate" else auroc > 0.55


def test_same_seed_same_scores(learned: tuple[str, Any, list[np.ndarray]], tasks: Tasks) -> None:
    name, _, scores = learned
    again = pretrained(name, tasks).score(tasks[0], tasks[3], seed=2)
    for a, b in zip(scores, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_episodes_scored_alone_have_the_same_scores(learned: tuple[str, Any, list[np.ndarray]], tasks: Tasks) -> None:
    _, method, scores = learned
    at = np.array([2, 0])
    for i in (3, 0):
        (alone,) = method.score(tasks[0], [tasks[3][i].take(at)], seed=2)
        np.testing.assert_allclose(alone, scores[i][at], **CLOSE)


def test_labels_of_one_episode_have_no_part_in_another(
    learned: tuple[str, Any, list[np.ndarray]], tasks: Tasks
) -> None:
    name, method, scores = learned
    first = tasks[3][0]
    flipped = first.y_support.copy()
    flipped[1] = ~flipped[1]
    changed = [dataclasses.replace(e, y_query=~e.y_query) for e in tasks[3]]
    changed[0] = dataclasses.replace(changed[0], y_support=flipped)
    after = method.score(tasks[0], changed, seed=2)
    if name != "rate":  # half are active either way
        assert not np.allclose(after[0][1], scores[0][1], atol=1e-3)
    others = np.arange(len(first)) != 1
    np.testing.assert_allclose(after[0][others], scores[0][others], **CLOSE)
    for a, b in zip(after[1:], scores[1:], strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def test_rows_without_labels_teach_nothing(learned: tuple[str, Any, list[np.ndarray]], tasks: Tasks) -> None:
    name, _, scores = learned
    X = tasks[0].X.copy()
    X[-SPARE:] = 3 * X[-SPARE:] + 1
    data = dataclasses.replace(tasks[0], X=X)
    for a, b in zip(scores, pretrained(name, tasks, data).score(data, tasks[3], seed=2), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def test_a_saved_method_scores_the_same(
    learned: tuple[str, Any, list[np.ndarray]], tasks: Tasks, tmp_path: Path
) -> None:
    name, method, scores = learned
    method.save(tmp_path)
    again = find_method(name).load(tmp_path)
    assert again.settings == method.settings
    for a, b in zip(scores, again.score(tasks[0], tasks[3], seed=2), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def test_damaged_and_foreign_files_are_told(learned: tuple[str, Any, list[np.ndarray]], tmp_path: Path) -> None:
    name, method, _ = learned
    method.save(tmp_path)
    path = model_path(tmp_path, name)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:-1], b"\xff" * len(whole)):
        path.write_bytes(damaged)
        with pytest.raises(FileError, match=name):
            find_method(name).load(path)
    with pytest.raises(FileError, match="does not exist"):
        find_method(name).load(tmp_path / "nowhere")
    other = "rate" if name != "rate" else "neighbours"
    path.write_bytes(whole)
    with pytest.raises(FileError, match=other):
        find_method(other).load(path)


def test_mistakes_are_explained(learned: tuple[str, Any, list[np.ndarray]], tasks: Tasks) -> None:
    name, method, _ = learned
    data, train, _, episodes = tasks
    with pytest.raises(ConfigError, match="no setting 'tres'"):
        find_method(name)(tres=3)
    with pytest.raises(RunError, match=name):
        find_method(name)(**QUICK.get(name, {})).score(data, episodes)
    fewer = Profiles(data.X[:, 1:].copy(), data.rows, data.features[1:])
    with pytest.raises(ShapeError):
        method.score(fewer, episodes)
    with pytest.raises(ShapeError):
        find_method(name)(**QUICK.get(name, {})).pretrain(data.take(np.arange(9)), train)
