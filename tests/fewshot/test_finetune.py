"""Networks tuned per episode: many side by side are what each would be alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn

import phenohit.fewshot.finetune_loop as loop
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, RunError, ShapeError
from phenohit.fewshot.contract import check_scores
from phenohit.fewshot.episodes import Episodes, draw_tasks
from phenohit.fewshot.finetune import MultiTask, SingleTask
from phenohit.fewshot.finetune_loop import Tuning, tune
from phenohit.fewshot.trunk import Layers, begin, bits, episode_keys, mix, network
from phenohit.models.network import Network
from phenohit.tensors import read_tensors, write_tensors

QUICK = {"units": 16, "layers": 1, "epochs": 6, "device": "cpu"}
PRE = {"pretrain_epochs": 3, "held": 0.0}


def screen(n: int = 150, T: int = 6, seed: int = 0) -> tuple[Profiles, Labels]:
    """Simulate tasks that depend on 2 of 20 features; the other 18 are louder and mean nothing."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, 2))
    X = np.hstack([hidden, 1.5 * rng.standard_normal((n, 18))]).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi, T)
    active = hidden @ np.array([np.cos(angle), np.sin(angle)]) > 0.2
    row, column = np.nonzero(rng.random((n, T)) < 0.7)
    Y = sparse.csr_matrix((active[row, column].astype(np.float32), (row, column)), shape=(n, T))
    keys = pd.DataFrame({"compound": np.array([f"C{i}" for i in range(n)], object)})
    names = [f"t{j}" for j in range(T)]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    rows = keys.rename(columns={"compound": "Metadata_compound"})
    return Profiles(X, rows, [f"f{j}" for j in range(20)]), Labels(Y, keys, tasks)


def drawn(data: Profiles, labels: Labels, sizes: tuple[int, ...] = (8, 10), n: int = 4) -> list[Episodes]:
    return draw_tasks(labels, data.compounds, labels.task_names, sizes=sizes, query=16, n=n)[0]


def plainly(x: torch.Tensor, y: torch.Tensor, layers: Layers, key: torch.Tensor, how: Tuning, e: int) -> nn.Sequential:
    """Episode `e` alone: torch.nn and torch.optim."""
    modules: list[nn.Module] = []
    for w, b in layers:
        linear = nn.Linear(w.shape[2], w.shape[1])
        linear.load_state_dict({"weight": w[e].clone(), "bias": b[e].clone()})
        modules += [linear, nn.ReLU()]
    net = nn.Sequential(*modules[:-1])
    weights = [m.weight for m in net if isinstance(m, nn.Linear)]
    biases = [m.bias for m in net if isinstance(m, nn.Linear)]
    groups = [{"params": weights, "weight_decay": how.weight_decay}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.Adam(groups, lr=how.learning_rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, how.decay_every, how.decay) if how.decay_every else None
    for epoch in range(how.epochs):
        order = bits(mix(key[e : e + 1] + (epoch + 1)), len(y))[0].int().argsort(stable=True)
        for batch in order.split(max(len(y) // how.batches, 1)):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(net(x[batch])[:, 0], y[batch]).backward()
            if how.clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), how.clip)
            optimizer.step()
            if schedule is not None:
                schedule.step()
    return net


@pytest.mark.parametrize(
    "how",
    [
        Tuning(5, 4, 3e-3, 0, 0.1, 0.0, None, (0.0, 0.0)),
        Tuning(5, 4, 3e-3, 7, 0.1, 0.05, 0.3, (0.0, 0.0)),
        Tuning(5, 1, 3e-3, 0, 0.1, 0.0, 5.0, (0.0, 0.0)),
    ],
)
@pytest.mark.parametrize("sizes", [[9, 1], [9, 12, 7, 1]])
def test_a_stack_is_as_many_networks_trained_alone(how: Tuning, sizes: list[int]) -> None:
    torch.manual_seed(0)
    x, support = torch.randn(40, 9), torch.stack([torch.randperm(40)[:10] for _ in range(5)])
    y = (torch.rand(5, 10) < 0.5).float()
    keys = mix(torch.arange(5))
    layers = begin(sizes, keys)
    before = [(w.clone(), b.clone()) for w, b in layers]
    alone = [plainly(x[support[e]], y[e], before, keys, how, e) for e in range(5)]
    tune(x, support, y, layers, keys, how)
    for e, net in enumerate(alone):
        plain = [p.detach() for p in net.parameters()]
        stacked = [t[e] for pair in layers for t in pair]
        assert not torch.equal(plain[0], before[0][0][e])
        for a, b in zip(stacked, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
        torch.testing.assert_close(network(x.expand(5, 40, 9), layers)[e], net(x).detach(), rtol=1e-4, atol=1e-5)


def test_a_head_converges_to_the_minimum_of_scikit_learn() -> None:
    data, labels = screen(120, T=3)
    one = drawn(data, labels, (32,))[0]
    decay = 0.1
    how = Tuning(900, 1, 0.05, 250, 0.2, decay, None, (0.0, 0.0))
    x, y = torch.from_numpy(data.X), torch.from_numpy(one.y_support).float()
    layers = begin([20, 1], torch.arange(4))
    tune(x, torch.from_numpy(one.support), y, layers, torch.arange(4), how)
    for e in range(4):
        exact = LogisticRegression(C=1 / (decay * 32), tol=1e-10).fit(data.X[one.support[e]], one.y_support[e])
        np.testing.assert_allclose(layers[0][0][e, 0], exact.coef_[0], atol=1e-3)
        np.testing.assert_allclose(layers[0][1][e], exact.intercept_, atol=1e-3)


def test_dropout_of_an_episode_does_not_know_the_others() -> None:
    x, keys = torch.randn(6, 30, 200), mix(torch.arange(6))
    layers = begin([200, 300, 4], keys)
    some = [(w[[4, 1]], b[[4, 1]]) for w, b in layers]
    every = network(x, layers, (0.2, 0.5), keys)
    torch.testing.assert_close(network(x[[4, 1]], some, (0.2, 0.5), keys[[4, 1]]), every[[4, 1]], rtol=1e-4, atol=1e-5)
    alone = [(w[2], b[2]) for w, b in layers]
    torch.testing.assert_close(network(x[2], alone, (0.2, 0.5), keys[2:3]), every[2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(every, network(x, layers), atol=1e-2)
    # He's bound: as much passes a layer as comes in
    for (w, b), a in zip(layers, (200, 300), strict=True):
        np.testing.assert_allclose(w.std(), (2 / a) ** 0.5, rtol=0.03)
        assert not b.any()


def test_keys_follow_the_support_and_not_the_number() -> None:
    data, labels = screen()
    one = drawn(data, labels, (8,), n=30)[0]
    keys = episode_keys(one, "singletask", 0)
    assert len(set(keys)) == 30
    np.testing.assert_array_equal(episode_keys(one.take(np.array([7, 2])), "singletask", 0), keys[[7, 2]])
    renamed = Episodes("other", one.support, one.query, one.y_support, one.y_query)
    for given in ((one, "multitask", 0), (one, "singletask", 1), (renamed, "singletask", 0)):
        assert not set(episode_keys(*given)) & set(keys)


@pytest.mark.parametrize(
    ("method", "settings"),
    [(SingleTask, {}), (MultiTask, {"tune": "head", **PRE}), (MultiTask, {"tune": "all", "clip": 1.0, **PRE})],
)
def test_episodes_are_independent_and_files_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any, settings: dict[str, Any]
) -> None:
    data, labels = screen(T=3)
    episodes = drawn(data, labels)
    fitted = method(**QUICK, **settings).pretrain(data, labels, sizes=[8, 10], query=16)
    scores = fitted.score(data, episodes, seed=5)
    check_scores(fitted.name, scores, episodes)
    assert [s.shape for s in scores] == [(4, 16)] * 6
    alone = fitted.score(data, [episodes[3].take(np.array([2, 0]))], seed=5)[0]
    np.testing.assert_allclose(alone, scores[3][[2, 0]], atol=1e-5)
    monkeypatch.setattr(loop, "_MOST", 3)  # another division into parts
    for a, b in zip(fitted.score(data, episodes[::-1], seed=5), scores[::-1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    fitted.save(tmp_path)
    again = method.load(tmp_path)
    assert again.settings == fitted.settings
    for a, b in zip(again.score(data, episodes, seed=5), scores, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    with pytest.raises(ShapeError, match="these rows have 19"):
        again.score(Profiles(data.X[:, 1:], data.rows, data.features[1:]), episodes)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    data, labels = screen()
    path = tmp_path / "multitask.safetensors"
    MultiTask(**QUICK, **PRE).pretrain(data, labels).save(path)
    arrays, meta = read_tensors(path, "few-shot multitask")
    assert [name for name in arrays if name.startswith("weight")] == ["weight 0"]
    arrays["weight 0"][0, 0] = np.inf
    write_tensors(path, arrays, meta)
    with pytest.raises(FileError, match="'weight 0' is not 16 x 20 finite"):
        MultiTask.load(path)
    with pytest.raises(FileError, match="not: few-shot singletask"):
        SingleTask.load(path)


def test_other_tasks_help() -> None:
    data, labels = screen(600, T=14)
    episodes = drawn(data, labels.take_tasks(np.arange(11, 14)), (16,), n=6)
    train = labels.take_tasks(np.arange(11))
    mean = {}
    for name, method in (
        ("single", SingleTask(device="cpu", epochs=30)),
        ("head", MultiTask(units=64, device="cpu", pretrain_epochs=15, held=0.0)),
        ("all", MultiTask(units=64, device="cpu", pretrain_epochs=15, held=0.0, tune="all", epochs=30)),
    ):
        scores = method.pretrain(data, train).score(data, episodes)
        pairs = [(y, s) for e, p in zip(episodes, scores, strict=True) for y, s in zip(e.y_query, p, strict=True)]
        mean[name] = np.mean([roc_auc_score(y, s) for y, s in pairs])
    assert 0.55 < mean["single"] < min(mean["head"], mean["all"]) - 0.1, mean


def test_held_compounds_stop_pretraining_and_checkpoints_are_kept(tmp_path: Path) -> None:
    data, labels = screen(600, T=3)
    method = MultiTask(units=64, layers=1, device="cpu", held=0.25).pretrain(data, labels, run=tmp_path)
    assert 0 < method.stopped < 300
    assert (tmp_path / "network.checkpoint.safetensors").exists()
    fixed = MultiTask(**QUICK, **PRE).pretrain(data, labels)
    assert fixed.stopped == 0


def test_hidden_layers_are_those_of_the_multitask_network() -> None:
    data, labels = screen()
    method = MultiTask(**QUICK, **PRE).pretrain(data, labels, seed=3)
    model = Network(units=16, layers=1, epochs=3, patience=0, device="cpu").fit(data, labels, seed=3)
    assert model.net is not None
    torch.testing.assert_close(method.trunk[0][0], model.net.weights[0].detach())


def test_settings_and_presets() -> None:
    single, multi = SingleTask(preset="fslcp").settings, MultiTask(preset="fslcp").settings
    for paper in (single, multi):
        assert (paper.layers, paper.units, paper.epochs, paper.batches) == (3, 2048, 50, 4)
        assert (paper.learning_rate, paper.decay_every, paper.decay, paper.clip) == (1e-4, 100, 0.1, 5.0)
    assert (multi.tune, multi.pretrain_epochs, multi.pretrain_batch, multi.pretrain_rate) == ("all", 50, 256, 0.01)
    assert MultiTask(preset="fslcp", tune="head").settings.tune == "head"
    for wrong in ({"units": 0}, {"learning_rate": 0.0}, {"clip": 0.0}, {"batches": 0}):
        for method in (SingleTask, MultiTask):
            with pytest.raises(ConfigError, match=next(iter(wrong))):
                method(**wrong)
    with pytest.raises(ConfigError, match="held"):
        MultiTask(held=1.0)
    with pytest.raises(RunError, match="has not been fitted"):
        SingleTask().score(*screen(20)[:1], [])


def test_a_batch_is_a_quarter_of_the_support(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = loop.network
    monkeypatch.setattr(loop, "network", lambda x, *rest: (seen.append(x.shape[1]), real(x, *rest))[1])
    how, keys = Tuning(1, 4, 1e-3, 0, 0.1, 0.0, None, (0.0, 0.0)), torch.zeros(1, dtype=torch.int64)
    for M, expected in ((8, [2, 2, 2, 2]), (10, [2, 2, 2, 2, 2]), (3, [1, 1, 1])):
        seen.clear()
        tune(torch.randn(M, 2), torch.arange(M)[None], torch.ones(1, M), begin([2, 1], keys), keys, how)
        assert seen == expected
