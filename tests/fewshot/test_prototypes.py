"""Prototypical networks: distances, gradients, episodes to train on, resuming, and what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.spatial.distance import mahalanobis
from sklearn.metrics import roc_auc_score

import phenohit.fewshot.prototypes_train as training
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, LabelError, RunError, ShapeError
from phenohit.fewshot.contract import check_scores
from phenohit.fewshot.distances import Distance, class_logits
from phenohit.fewshot.episodes import Episodes, draw_tasks
from phenohit.fewshot.pools import Pools, episode_auroc
from phenohit.fewshot.prototypes import Prototypes
from phenohit.fewshot.prototypes_train import Features, Net, mean_loss
from phenohit.fewshot.trunk import bits, drop, mix, soft
from phenohit.tensors import read_tensors, write_tensors

SMALL = {"units": 32, "embedding": 8, "layers": 1, "episodes": 16, "tasks": 2, "pool": 60, "device": "cpu"}
DISTANCES: list[Distance] = ["euclidean", "squared", "cosine", "mahalanobis"]


def screen(n: int = 150, T: int = 6, wells: int = 1, seed: int = 0) -> tuple[Profiles, Labels]:
    """Simulate tasks that depend on 2 of 20 features; the other 18 are louder and mean nothing."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, 2))
    X = np.hstack([hidden, 1.5 * rng.standard_normal((n, 18))])
    angle = rng.uniform(0, 2 * np.pi, T)
    active = hidden @ np.array([np.cos(angle), np.sin(angle)]) > 0.2
    measured = rng.random((n, T)) < 0.7
    row, column = np.nonzero(np.repeat(measured, wells, axis=0))
    value = np.repeat(active, wells, axis=0)[row, column].astype(np.float32)
    Y = sparse.csr_matrix((value, (row, column)), shape=(n * wells, T))
    keys = pd.DataFrame({"compound": np.repeat([f"C{i}" for i in range(n)], wells).astype(object)})
    names = [f"t{j}" for j in range(T)]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    rows = keys.rename(columns={"compound": "Metadata_compound"})
    X = np.repeat(X, wells, axis=0).astype(np.float32)
    return Profiles(X, rows, [f"f{j}" for j in range(20)]), Labels(Y, keys, tasks)


def drawn(data: Profiles, labels: Labels, sizes: tuple[int, ...] = (8, 16), n: int = 5) -> list[Episodes]:
    return draw_tasks(labels, data.compounds, labels.task_names, sizes=sizes, query=16, n=n)[0]


def plain_logits(z: torch.Tensor, y: torch.Tensor, asked: torch.Tensor, distance: str) -> torch.Tensor:
    """One episode, written the simplest way."""
    columns = []
    for label in (False, True):
        own = z[y == label]
        prototype, n = own.mean(0), len(own)
        if distance == "cosine":
            columns.append(10 * torch.cosine_similarity(asked, prototype[None]))
            continue
        gap = asked - prototype
        if distance == "euclidean":
            columns.append(-(gap**2).sum(1).sqrt())
        elif distance == "squared":
            columns.append(-(gap**2).sum(1))
        else:
            weight = n / (n + 1)
            within = (own - prototype).T @ (own - prototype) / max(n - 1, 1)
            Q = weight * within + (1 - weight) * torch.cov(z.T) + torch.eye(z.shape[1], dtype=z.dtype)
            columns.append(-((gap @ torch.linalg.inv(Q)) * gap).sum(1))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("actives", [1, 4, 11])
def test_distances_are_those_of_one_episode_at_a_time(distance: Distance, actives: int) -> None:
    torch.manual_seed(actives)
    Z = torch.randn(50, 9) * 2 + 1
    order = torch.stack([torch.randperm(50) for _ in range(7)])
    support, query = order[:, :12], order[:, 12:20]
    y = torch.stack([torch.randperm(12) < actives for _ in range(7)])
    ours = class_logits(Z, support, y, query, distance, 10.0)
    plain = [plain_logits(Z[s].double(), t, Z[q].double(), distance) for s, t, q in zip(support, y, query, strict=True)]
    torch.testing.assert_close(ours, torch.stack(plain).float(), rtol=2e-5, atol=2e-5)


def test_mahalanobis_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((30, 5)).astype(np.float32)
    y = np.arange(20) < 8
    ours = class_logits(
        torch.from_numpy(Z), torch.arange(20)[None], torch.from_numpy(y)[None], torch.tensor([[25]]), "mahalanobis"
    )
    for label in (0, 1):
        own = Z[:20][y == label]
        weight = len(own) / (len(own) + 1)
        Q = weight * np.cov(own.T) + (1 - weight) * np.cov(Z[:20].T) + np.eye(5)
        expected = mahalanobis(Z[25], own.mean(0), np.linalg.inv(Q)) ** 2
        np.testing.assert_allclose(-ours[0, 0, label].item(), expected, rtol=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradient_of_a_step_is_the_mean_of_the_episodes(distance: Distance) -> None:
    data, labels = screen(80, T=3)
    pools = Pools.of(labels, data.compounds, [6, 12], 16)
    groups = pools.draw(np.random.default_rng(1), [6, 12], tasks=3, episodes=11, pool=40)
    assert sum(len(g.support) for g in groups) == 11
    settings = Prototypes(**SMALL, distance=distance).settings
    net = Net.begin(20, settings, 0, torch.device("cpu"))
    parameters = [t.requires_grad_(True) for t in net.named().values()]
    loss = mean_loss(net, Features.of(data.X, labels.Y, torch.device("cpu")), groups, distance)
    ours = torch.autograd.grad(loss, parameters, allow_unused=True)
    total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    value = 0.0
    for group in groups:
        for s, q, y, wanted in zip(group.support, group.query, group.y_support, group.y_query, strict=True):
            copies = [p.detach().double().requires_grad_(True) for p in parameters]
            w0, b0, w1, b1, scale = copies
            x = torch.from_numpy(data.X[group.rows[np.concatenate([s, q])]]).double()
            z = torch.relu(x @ w0.T + b0) @ w1.T + b1
            logits = plain_logits(z[: len(s)], torch.from_numpy(y), z[len(s) :], distance)
            if distance == "cosine":
                logits = logits / 10 * scale.exp()
            one = torch.nn.functional.cross_entropy(logits, torch.from_numpy(wanted).long())
            value += one.item() / 11
            for sum_, g in zip(total, torch.autograd.grad(one, copies, allow_unused=True), strict=True):
                sum_ += 0 if g is None else g / 11
    np.testing.assert_allclose(loss.item(), value, rtol=1e-5)
    assert total[0].abs().max() > 1e-3
    for mine, plain in zip(ours, total, strict=True):
        mine = torch.zeros_like(plain) if mine is None else mine.double()
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=2e-5)


def test_episodes_to_train_on_are_stratified_by_compound() -> None:
    data, labels = screen(60, wells=3)
    pools = Pools.of(labels, data.compounds, [8], 16)
    Y, compounds = labels.Y.toarray(), data.compounds
    for step in range(20):
        for group in pools.draw(np.random.default_rng(step), [8], tasks=2, episodes=6, pool=30):
            assert len(set(compounds[group.rows])) == len(group.rows)
            for s, q, y, wanted in zip(group.support, group.query, group.y_support, group.y_query, strict=True):
                assert len(set(s) | set(q)) == 24
                right = (Y[group.rows[s]] == y[:, None]).all(0) & (Y[group.rows[q]] == wanted[:, None]).all(0)
                assert right.any()
                assert abs(y.mean() - wanted.mean()) < 0.13


def test_small_tasks_take_part_or_are_listed() -> None:
    data, labels = screen(40, T=3)
    for limit, kept in ((12, False), (40, True)):
        coo = labels.Y.tocoo()
        chosen = (coo.col > 0) | (coo.row < limit)
        cut = sparse.csr_matrix((coo.data[chosen], (coo.row[chosen], coo.col[chosen])), shape=coo.shape)
        pools = Pools.of(Labels(cut, labels.compounds, labels.tasks), data.compounds, [8], 32)
        assert len(pools.pools) == 2 + kept
        assert pools.dropped["id"].tolist() == ([] if kept else ["t0"])
        group = pools.draw(np.random.default_rng(0), [8], tasks=1, episodes=1, pool=0)[0]
        assert 8 <= group.query.shape[1] <= 32
    with pytest.raises(LabelError, match="None of the 3 training tasks has the compounds for a support of 64"):
        Pools.of(labels, data.compounds, [64], 32)
    twice = Profiles(data.X, data.rows.assign(Metadata_compound="C0"), data.features)
    with pytest.raises(ShapeError, match="different labels"):
        Pools.of(labels, twice.compounds, [8], 32)


def test_what_other_tasks_have_in_common_is_learned() -> None:
    data, labels = screen(400, T=14)
    train, valid, test = (labels.take_tasks(np.arange(*r)) for r in ((0, 10), (10, 12), (12, 14)))
    episodes = drawn(data, test, (16,), n=20)
    method = Prototypes(**SMALL, steps=120, check_every=20, learning_rate=3e-3, decay_every=0)
    method.pretrain(data, train, valid=valid, sizes=[16], query=16)
    scores = method.score(data, episodes)
    check_scores("prototypes", scores, episodes)
    checks = method.auroc[0]
    assert [step for step, _ in checks] == [20, 40, 60, 80, 100, 120]
    fixed = draw_tasks(valid, data.compounds, valid.task_names, sizes=[16], query=16, n=20)[0]
    assert episode_auroc(method.score(data, fixed), fixed) == max(v for _, v in checks)  # the best one is kept
    fresh = Prototypes(**SMALL, steps=1, learning_rate=1e-9).pretrain(data, train, sizes=[16], query=16)
    before, after = (episode_auroc(s, episodes) for s in (fresh.score(data, episodes), scores))
    assert before < 0.7 < 0.8 < after, (before, after)
    one, score = episodes[0], scores[0]
    each = [roc_auc_score(y, s) for y, s in zip(one.y_query, score, strict=True)]
    np.testing.assert_allclose(episode_auroc([score], [one]), np.mean(each))


@pytest.mark.parametrize("distance", DISTANCES)
def test_episodes_are_independent_and_files_complete(tmp_path: Path, distance: Distance) -> None:
    data, labels = screen(90, T=4)
    method = Prototypes(**SMALL, distance=distance, steps=3).pretrain(data, labels, sizes=[8, 16], query=16)
    episodes = drawn(data, labels)
    scores = method.score(data, episodes)
    assert [s.shape for s in scores] == [(5, 16)] * 8
    alone = method.score(data, [episodes[5].take(np.array([3, 1]))])[0]
    np.testing.assert_allclose(alone, scores[5][[3, 1]], rtol=1e-4, atol=1e-6)
    method.save(tmp_path)
    again = Prototypes.load(tmp_path)
    assert again.settings == method.settings
    for a, b in zip(again.score(data, episodes), scores, strict=True):
        np.testing.assert_array_equal(a, b)
    path = tmp_path / "prototypes.safetensors"
    arrays, meta = read_tensors(path, "few-shot prototypes")
    write_tensors(path, {**arrays, "net 0 weight 0": arrays["net 0 weight 0"][:, 1:]}, meta)
    with pytest.raises(FileError, match="'net 0 weight 0' is not 32 x 20 finite"):
        Prototypes.load(path)
    arrays["net 0 bias 1"][2] = np.nan
    write_tensors(path, arrays, meta)
    with pytest.raises(FileError, match="net 0 bias 1"):
        Prototypes.load(path)


def test_rows_without_labels_have_no_influence() -> None:
    data, labels = screen(90, T=4)
    mask = np.arange(90) < 70
    coo = labels.Y.tocoo()
    chosen = mask[coo.row]
    cut = sparse.csr_matrix((coo.data[chosen], (coo.row[chosen], coo.col[chosen])), shape=coo.shape)
    other = data.X.copy()
    other[~mask] = 77
    nets = []
    for X in (data.X, other):
        part = Profiles(X, data.rows, data.features)
        method = Prototypes(**SMALL, steps=4)
        nets.append(method.pretrain(part, Labels(cut, labels.compounds, labels.tasks), sizes=[8], query=16).nets[0])
    for a, b in zip(nets[0].named().values(), nets[1].named().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_an_interrupted_run_ends_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distance: Distance
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    data, labels = screen(120, T=6)
    train, valid = labels.take_tasks(np.arange(4)), labels.take_tasks(np.arange(4, 6))
    given: dict[str, Any] = {"valid": valid, "sizes": [8, 16], "query": 16, "seed": 3}
    settings = {**SMALL, "distance": distance, "steps": 12, "check_every": 3, "decay_every": 5, "learning_rate": 0.01}
    whole = Prototypes(**settings).pretrain(data, train, **given)
    descend = training.Pretraining.descend

    def killed(self: training.Pretraining) -> None:
        if self.step == 7:
            raise KeyboardInterrupt
        descend(self)

    monkeypatch.setattr(training.Pretraining, "descend", killed)
    with pytest.raises(KeyboardInterrupt):
        Prototypes(**settings).pretrain(data, train, **given, run=tmp_path)
    steps: list[int] = []
    monkeypatch.setattr(training.Pretraining, "descend", lambda self: (steps.append(self.step), descend(self))[1])
    resumed = Prototypes(**settings).pretrain(data, train, **given, run=tmp_path)
    assert steps == [7, 8, 9, 10, 11]
    assert resumed.auroc == whole.auroc
    for a, b in zip(resumed.nets[0].named().values(), whole.nets[0].named().values(), strict=True):
        assert torch.equal(a, b)
    steps.clear()
    Prototypes(**{**settings, "dropout_input": 0.2}).pretrain(data, train, **given, run=tmp_path)
    assert len(steps) == 12  # other settings begin anew


def test_one_network_per_size_serves_these_sizes() -> None:
    data, labels = screen(90, T=4)
    method = Prototypes(**SMALL, per_size=True, steps=2).pretrain(data, labels, sizes=[16, 8], query=16)
    assert sorted(method.nets) == [8, 16]
    assert len(method.score(data, drawn(data, labels))) == 8
    with pytest.raises(ConfigError, match=r"pretrained for supports of \[8, 16\], not \[12\]"):
        method.score(data, drawn(data, labels, (12,)))
    with pytest.raises(LabelError, match="support of 80"):
        Prototypes(**SMALL, per_size=True, steps=2).pretrain(data, labels, sizes=[8, 80], query=16)


def test_settings_and_preset() -> None:
    paper = Prototypes(preset="fslcp").settings
    assert (paper.layers, paper.units, paper.embedding, paper.steps, paper.episodes) == (3, 2048, 512, 50_000, 1)
    assert (paper.learning_rate, paper.decay_every, paper.decay, paper.per_size) == (1e-4, 20_000, 0.1, True)
    for wrong in ({"units": 0}, {"distance": "manhattan"}, {"tasks": 9, "episodes": 8}, {"decay": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Prototypes(**wrong)
    with pytest.raises(RunError, match="has not been fitted"):
        Prototypes().score(*screen(20)[:1], [])


def test_probabilities_keep_their_order_and_are_never_0_or_1() -> None:
    logit = torch.tensor([-1e6, -300.0, -40.0, -8.0, 0.0, 2.0, 8.0, 9.0, 17.0, 40.0, 300.0])
    p = soft(logit)
    assert (np.diff(p) > 0).all()
    assert 0 < p.min() < p.max() < 1
    np.testing.assert_allclose(p[3:7], torch.sigmoid(logit[3:7]).numpy())


def test_random_numbers_belong_to_their_key() -> None:
    keys = mix(torch.arange(40))
    drawn = bits(keys, 5001).float()
    assert torch.equal(bits(keys[7:9], 5001), bits(keys, 5001)[7:9])
    assert abs(drawn.mean() / 65536) < 5 / (12 * drawn.numel()) ** 0.5
    np.testing.assert_allclose(drawn.std().item() / 65536, 12**-0.5, rtol=0.01)
    apart = np.corrcoef(drawn.numpy())[np.triu_indices(40, 1)]
    assert abs(apart).max() < 5 / 5001**0.5
    lagged = (drawn[:, 1:] * drawn[:, :-1]).mean() / drawn.var()
    assert abs(lagged) < 5 / drawn.numel() ** 0.5
    x = torch.ones(40, 3, 500)
    out = drop(x, 0.3, keys)
    assert abs((out == 0).float().mean() - 0.3) < 5 * (0.21 / x.numel()) ** 0.5
    np.testing.assert_allclose(out.max(), 1 / 0.7, rtol=1e-4)


def test_training_ends_where_checks_find_nothing_better() -> None:
    data, labels = screen(200, T=5)
    few = {**SMALL, "steps": 60, "check_every": 1, "learning_rate": 0.3, "decay_every": 0}  # too fast to learn for long
    train, valid = labels.take_tasks([0, 1, 2]), labels.take_tasks([3, 4])
    long, short = (
        Prototypes(**few, patience=p).pretrain(data, train, valid=valid, sizes=[8], query=16) for p in (0, 3)
    )
    values = [value for _, value in short.auroc[0]]
    assert len(values) < len(long.auroc[0]) == 60
    assert values == [value for _, value in long.auroc[0]][: len(values)]
    assert int(np.argmax(values)) == len(values) - 1 - 3
