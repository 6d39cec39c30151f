"""MAML: the inner loop in closed form, the meta-gradient against plain loops and differences, learning across tasks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

import phenohit.fewshot.maml as maml
import phenohit.fewshot.maml_loop as loop
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, LabelError, RunError, ShapeError
from phenohit.fewshot.contract import check_scores
from phenohit.fewshot.episodes import Episodes, draw_tasks
from phenohit.fewshot.maml import Maml, adapted_logits, first_weights
from phenohit.fewshot.maml_loop import draw_batch, inner_loop
from phenohit.fewshot.pools import Pools, episode_auroc

QUICK: dict[str, Any] = {"units": 12, "tasks": 6, "meta_steps": 4, "check": 2, "inner_rate": 0.1, "device": "cpu"}
SHAPES = {"w0": (6, 5), "b0": (6,), "w1": (4, 6), "b1": (4,), "w2": (1, 4), "b2": (1,)}


def screen(N: int = 120, F: int = 6, T: int = 12, seed: int = 0, hidden: int = 2) -> tuple[Profiles, Labels]:
    """Tasks that are halves of one hidden plane of the feature space; 60 % of the entries are measured."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, F)).astype(np.float32)
    plane = np.linalg.qr(rng.normal(size=(F, hidden)))[0]
    Y = (X @ plane @ rng.normal(size=(hidden, T)) > 0).astype(np.float32)
    row, column = np.nonzero(rng.random((N, T)) < 0.6)
    compounds = [f"C{i:04d}" for i in range(N)]
    data = Profiles(X, pd.DataFrame({"Metadata_compound": compounds}), [f"f{i}" for i in range(F)], ())
    names = [f"t{i}" for i in range(T)]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    Y = sparse.csr_matrix((Y[row, column], (row, column)), shape=(N, T))
    return data, Labels(Y, pd.DataFrame({"compound": compounds}), tasks)


def draws(data: Profiles, labels: Labels, sizes: tuple[int, ...] = (8,), n: int = 4) -> list[Episodes]:
    return draw_tasks(labels, data.compounds, labels.task_names, sizes=sizes, query=8, n=n, seed=5)[0]


def batch(E: int = 3, M: int = 4, Q: int = 3, F: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    noise = torch.Generator().manual_seed(3)
    x = torch.randn(E, M + Q, F, generator=noise, dtype=torch.float64)
    y = (torch.arange(M) % 2).double().expand(E, M).contiguous()
    return x, y, (torch.arange(Q) % 2).double().expand(E, Q).contiguous()


def weights() -> dict[str, Tensor]:
    made = first_weights(SHAPES, 7)
    noise = torch.Generator().manual_seed(9)
    return {n: p.double() + 0.1 * torch.randn(p.shape, generator=noise, dtype=torch.float64) for n, p in made.items()}


def plain_logits(p: dict[str, Tensor], x: Tensor) -> Tensor:
    for depth in range(3):
        x = functional.linear(torch.relu(x) if depth else x, p[f"w{depth}"], p[f"b{depth}"])
    return x[:, 0]


def plain_meta_loss(p: dict[str, Tensor], parts: tuple[Tensor, ...], *, steps: int, rate: float, order: int) -> Tensor:
    """Finn et al. 2017, algorithm 1: task by task, every weight moved, by torch.autograd."""
    losses = []
    for x, y, y_query in zip(*parts, strict=True):
        adapted = dict(p)
        for _ in range(steps):
            inner = functional.binary_cross_entropy_with_logits(plain_logits(adapted, x[: len(y)]), y)
            slope = torch.autograd.grad(inner, list(adapted.values()), create_graph=order == 2)
            adapted = {n: w - rate * g for (n, w), g in zip(adapted.items(), slope, strict=True)}
        losses.append(functional.binary_cross_entropy_with_logits(plain_logits(adapted, x[len(y) :]), y_query))
    return torch.stack(losses).mean()


def meta_loss(p: dict[str, Tensor], parts: tuple[Tensor, ...], *, steps: int, rate: float, order: int) -> Tensor:
    def episode(x: Tensor, y: Tensor, y_query: Tensor) -> Tensor:
        logits = adapted_logits(p, x, y, steps=steps, rate=rate, order=order)
        return functional.binary_cross_entropy_with_logits(logits, y_query)

    return torch.func.vmap(episode)(*parts).mean()


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_inner_loop_of_a_quadratic_is_its_closed_form(steps: int) -> None:
    # f(w) = (w - c)' A (w - c) / 2: after k steps w = c + (1 - rate A)^k (w0 - c), so dw/dw0 = (1 - rate A)^k.
    noise = torch.Generator().manual_seed(1)
    root = torch.randn(4, 4, generator=noise, dtype=torch.float64)
    A, c, w0 = root @ root.T / 4, *torch.randn(2, 4, generator=noise, dtype=torch.float64)
    power = torch.linalg.matrix_power(torch.eye(4, dtype=torch.float64) - 0.2 * A, steps)

    def adapted(w: Tensor, order: int = 2) -> Tensor:
        def loss(p: dict[str, Tensor]) -> Tensor:
            return (p["w"] - c) @ A @ (p["w"] - c) / 2

        return inner_loop(loss, {"w": w}, rate=0.2, steps=steps, order=order)["w"]

    torch.testing.assert_close(adapted(w0), c + power @ (w0 - c))
    torch.testing.assert_close(torch.func.jacrev(adapted)(w0), power)
    # First order: the same place, but the way there counts as a shift.
    torch.testing.assert_close(adapted(w0, 1), adapted(w0))
    jacobian = torch.func.jacrev(lambda w: adapted(w, 1))(w0)
    torch.testing.assert_close(jacobian, torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("order", [1, 2])
def test_loss_and_meta_gradient_are_those_of_a_plain_loop_over_tasks(order: int) -> None:
    parts, p = batch(), {n: w.requires_grad_() for n, w in weights().items()}
    how = {"steps": 3, "rate": 0.3, "order": order}
    expected = plain_meta_loss(p, parts, **how)
    slope = dict(zip(p, torch.autograd.grad(expected, list(p.values())), strict=True))
    found, value = torch.func.grad_and_value(lambda q: meta_loss(q, parts, **how))(p)
    torch.testing.assert_close(value, expected)
    for name in p:
        torch.testing.assert_close(found[name], slope[name])
    other = torch.func.grad(lambda q: meta_loss(q, parts, **{**how, "order": 3 - order}))(p)
    assert any((found[n] - other[n]).abs().max() > 1e-3 for n in p)  # the orders differ where it matters


def test_the_second_order_gradient_is_that_of_finite_differences() -> None:
    parts, p = batch(), weights()
    how = {"steps": 3, "rate": 0.3, "order": 2}
    slope = torch.func.grad(lambda q: meta_loss(q, parts, **how))(p)
    for name, w in p.items():
        for i in range(0, w.numel(), 5):
            by = torch.zeros_like(w)
            by.view(-1)[i] = 1e-6
            up, down = (meta_loss({**p, name: w + sign * by}, parts, **how) for sign in (1, -1))
            assert float(slope[name].view(-1)[i]) == pytest.approx(float(up - down) / 2e-6, abs=1e-7, rel=1e-5)


def test_tasks_side_by_side_are_tasks_one_by_one() -> None:
    (x, y, _), p = batch(), weights()
    together = torch.func.vmap(lambda a, b: adapted_logits(p, a, b, steps=4, rate=0.3, order=1))(x, y)
    for i in range(len(x)):
        torch.testing.assert_close(adapted_logits(p, x[i], y[i], steps=4, rate=0.3, order=1), together[i])


def test_a_query_does_not_take_part_in_the_adaptation() -> None:
    (x, y, _), p = batch(), weights()
    whole = adapted_logits(p, x[0], y[0], steps=3, rate=0.3, order=1)
    alone = adapted_logits(p, x[0, :5], y[0], steps=3, rate=0.3, order=1)
    torch.testing.assert_close(alone, whole[:1])


def test_a_hidden_plane_is_learned_across_tasks() -> None:
    data, labels = screen(N=240, F=40, T=60, seed=2)
    train, valid, test = (labels.take_tasks(np.arange(*ends)) for ends in ((0, 48), (48, 52), (52, 60)))
    given = {"units": 32, "tasks": 16, "meta_steps": 100, "inner_rate": 0.1, "device": "cpu"}
    method = Maml(**given).pretrain(data, train, valid=valid, sizes=[16], query=16)
    scratch = Maml(**given)
    scratch.known, scratch.parameters = method.known, first_weights(
        {n: tuple(p.shape) for n, p in method.parameters.items()}, 0
    )  # fmt: skip
    episodes = draw_tasks(test, data.compounds, test.task_names, sizes=[16], query=32, n=25, seed=1)[0]
    learned, plain = (episode_auroc(m.score(data, episodes), episodes) for m in (method, scratch))
    # Of 40 directions 2 matter, which 16 labels alone do not tell; chance is 0.5, with a deviation near 0.01.
    assert plain < 0.62
    assert learned > plain + 0.12
    assert method.state.auroc[-1] > method.state.auroc[0]


def test_scores_are_probabilities_of_each_episode_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    data, labels = screen()
    method = Maml(**QUICK, test_steps=5).pretrain(data, labels, sizes=[8, 16], query=8)
    episodes = draws(data, labels, (8, 16))
    scores = method.score(data, episodes)
    check_scores("maml", scores, episodes)
    assert all(s.dtype == np.float32 for s in scores)
    few = method.score(data, [episodes[3].take(slice(1, 3)), episodes[0]], seed=8)
    np.testing.assert_allclose(few[0], scores[3][1:3], atol=1e-6)
    np.testing.assert_allclose(few[1], scores[0], atol=1e-6)
    monkeypatch.setitem(maml._MEMORY, "cpu", 1)  # one episode at a time
    for one, whole in zip(method.score(data, episodes), scores, strict=True):
        np.testing.assert_allclose(one, whole, atol=1e-6)
    assert method.score(data, [episodes[0].take(slice(0, 0))])[0].shape == (0, 8)
    fewer = Maml(**QUICK)
    fewer.known, fewer.parameters = method.known, method.parameters
    assert np.abs(fewer.score(data, episodes)[0] - scores[0]).max() > 1e-4  # more steps at the test matter


def test_memory_for_few_tasks_changes_only_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    data, labels = screen()
    whole = Maml(**QUICK).pretrain(data, labels, sizes=[8], query=8)
    monkeypatch.setitem(maml._MEMORY, "cpu", 1)
    parts = Maml(**QUICK).pretrain(data, labels, sizes=[8], query=8)
    for name, p in whole.parameters.items():
        torch.testing.assert_close(parts.parameters[name], p, atol=1e-5, rtol=1e-4)


def test_same_seed_same_weights_and_torch_is_left_as_it_was() -> None:
    data, labels = screen(seed=1)
    before = torch.get_rng_state()
    first, again, other = (
        Maml(**QUICK, dropout_input=0.1, dropout_hidden=0.3).pretrain(data, labels, sizes=[8], query=8, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    for name, p in first.parameters.items():
        assert torch.equal(again.parameters[name], p)
    assert not torch.equal(other.parameters["w0"], first.parameters["w0"])
    episodes = draws(data, labels)
    for a, b in zip(first.score(data, episodes), first.score(data, episodes, seed=3), strict=True):
        np.testing.assert_array_equal(a, b)  # no dropout when scoring


def test_rows_without_labels_change_nothing() -> None:
    data, labels = screen(seed=1)
    part = labels.take(np.arange(90))
    alone = Maml(**QUICK).pretrain(data.take(np.arange(90)), part, sizes=[8], query=8)
    wide = sparse.vstack([part.Y, sparse.csr_matrix((30, part.Y.shape[1]), dtype=np.float32)], format="csr")
    beside = Maml(**QUICK).pretrain(data, Labels(wide, labels.compounds, labels.tasks), sizes=[8], query=8)
    for name, p in alone.parameters.items():
        assert torch.equal(beside.parameters[name], p)


def test_batches_are_stratified_by_compound_and_fill_up_small_queries() -> None:
    data, labels = screen(N=60)
    pools = Pools.of(labels, data.compounds, [8], 32)
    drawn = draw_batch(pools, [8], 6, seed=0, step=3)
    assert drawn.support.shape == (6, 8)
    assert all(np.array_equal(a, b) for a, b in zip(drawn, draw_batch(pools, [8], 6, seed=0, step=3), strict=True))
    np.testing.assert_allclose(drawn.weight.sum(1), 1, rtol=1e-6)
    Y = labels.Y.toarray()
    for support, query, weight, y, y_query in zip(
        drawn.support, drawn.query, drawn.weight, drawn.y_support, drawn.y_query, strict=True
    ):
        used = query[weight > 0]
        assert len(np.unique(np.concatenate([support, used]))) == 8 + len(used)
        assert any((Y[support, t] == y).all() and (Y[query, t] == y_query).all() for t in range(12))
        assert 0 < y.sum() < 8
    assert len(np.unique((drawn.weight > 0).sum(1))) > 1  # queries of several sizes were filled up
    assert draw_batch(pools, [8], 40, seed=0, step=0).support.shape == (40, 8)  # more than there are tasks


def test_a_filled_up_query_counts_once() -> None:
    data, labels = screen()
    method = Maml(**QUICK).pretrain(data, labels, sizes=[8], query=8)
    drawn = draw_batch(Pools.of(labels, data.compounds, [8], 8), [8], 2, seed=0, step=0)
    loss, slope = method._gradient(data.X, drawn, 0, 0)
    more = drawn._replace(
        query=np.hstack([drawn.query, drawn.query[:, :3]]),
        y_query=np.hstack([drawn.y_query, drawn.y_query[:, :3]]),
        weight=np.hstack([drawn.weight, np.zeros((2, 3), np.float32)]),
    )
    again, same = method._gradient(data.X, more, 0, 0)
    assert again == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(same["w0"], slope["w0"], atol=1e-6, rtol=1e-4)


def test_a_resumed_training_ends_as_a_straight_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, labels = screen()
    train, valid = labels.take_tasks(np.arange(9)), labels.take_tasks(np.arange(9, 12))
    given = {**QUICK, "dropout_hidden": 0.2, "meta_steps": 8}
    how: dict[str, Any] = {"valid": valid, "sizes": [8, 16], "query": 8, "seed": 4}
    straight = Maml(**given).pretrain(data, train, **how)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    step, calls = loop._MetaTraining.step, 0

    def interrupted(self: Any, *parts: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in (4, 7):
            raise KeyboardInterrupt
        step(self, *parts)

    monkeypatch.setattr(loop._MetaTraining, "step", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Maml(**given).pretrain(data, train, **how, run=tmp_path)
    resumed = Maml(**given).pretrain(data, train, **how, run=tmp_path)
    assert calls == 8 + 2
    assert (resumed.state.loss, resumed.state.auroc) == (straight.state.loss, straight.state.auroc)
    for name, p in straight.parameters.items():
        assert torch.equal(resumed.parameters[name], p)
    Maml(**given).pretrain(data, train, **how, run=tmp_path)
    assert calls == 10  # finished already
    Maml(**{**given, "inner_rate": 0.2}).pretrain(data, train, **how, run=tmp_path)
    assert calls == 18  # other settings begin anew
    file = next(tmp_path.glob("*.checkpoint.safetensors"))
    file.write_bytes(file.read_bytes()[:200])
    Maml(**given).pretrain(data, train, **how, run=tmp_path)
    assert calls == 26


def test_the_best_look_is_kept_and_ends_training(monkeypatch: pytest.MonkeyPatch) -> None:
    data, labels = screen()
    told = iter([0.5, 0.7, 0.6, 0.6, 0.9])
    kept: list[Tensor] = []

    def auroc(*_: Any) -> float:
        return next(told)

    step = loop._MetaTraining.step

    def watched(self: Any, *parts: Any) -> None:
        step(self, *parts)
        kept.append(self.parameters["w0"].detach().clone())

    monkeypatch.setattr(maml, "episode_auroc", auroc)
    monkeypatch.setattr(loop._MetaTraining, "step", watched)
    method = Maml(**{**QUICK, "meta_steps": 20, "patience": 2}).pretrain(data, labels, valid=labels, sizes=[8], query=8)
    assert (method.state.step, method.state.best_step) == (8, 4)
    assert torch.equal(method.parameters["w0"], kept[3])


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    data, labels = screen()
    method = Maml(**QUICK).pretrain(data, labels, sizes=[8], query=8)
    method.save(tmp_path)
    again, episodes = Maml.load(tmp_path), draws(data, labels)
    assert again.settings == method.settings
    assert again.state.loss == method.state.loss
    for a, b in zip(again.score(data, episodes), method.score(data, episodes), strict=True):
        np.testing.assert_array_equal(a, b)
    path, rng = tmp_path / "maml.safetensors", np.random.default_rng(0)
    whole = path.read_bytes()
    for cut in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError):
            Maml.load(path)
    for _ in range(10):  # changed bytes are refused or harmless, never a crash
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), size=20):
            broken[place] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            Maml.load(path)
        except FileError:
            continue


def test_settings_are_described_and_checked() -> None:
    for setting in (f.name for f in dataclasses.fields(maml.MamlSettings)):
        assert any(form in maml.MamlSettings.__doc__ for form in (f"{setting} :", f"{setting}, ", f", {setting} :"))
    published = Maml(preset="fslcp").settings
    assert (published.layers, published.units, published.order, published.meta_steps) == (3, 2048, 2, 1000)
    assert (published.inner_rate, published.inner_steps, published.tasks) == (0.01, 3, 32)
    for wrong in ({"order": 3}, {"units": 0}, {"inner_rate": 0.0}, {"dropout_hidden": 1.0}, {"unitsx": 1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Maml(**wrong)


def test_what_cannot_be_learned_from_is_refused() -> None:
    data, labels = screen()
    with pytest.raises(RunError, match="has not been fitted"):
        Maml().score(data, [])
    with pytest.raises(LabelError, match="None of the 12 training tasks"):
        Maml(**QUICK).pretrain(data, labels, sizes=[500])
    with pytest.raises(ShapeError, match="different compounds"):
        Maml(**QUICK).pretrain(data, labels.take(np.arange(120)[::-1]))
    method = Maml(**QUICK).pretrain(data, labels, sizes=[8], query=8)
    with pytest.raises(ShapeError, match="these rows have 5"):
        method.score(data.with_features(data.X[:, :5], data.features[:5], "cut[none]"), [])
    huge = data.with_features(data.X * 1e18, data.features, "scale[none]")
    with pytest.raises(RunError, match="meta-training loss became infinite"):
        Maml(**{**QUICK, "inner_rate": 1e20}).pretrain(huge, labels, sizes=[8], query=8)
