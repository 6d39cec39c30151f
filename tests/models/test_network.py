"""The network: its settings, its dropout, its gradient steps, and where training stops."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import phenohit.models.fit as training
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, LabelError, RunError
from phenohit.models.fit import generator
from phenohit.models.fit_rows import Rows
from phenohit.models.network import Network, NetworkSettings, Perceptron, _drop


def screen(n: int = 90, T: int = 4, seed: int = 0, density: float = 0.5) -> tuple[Profiles, Labels]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 6)).astype(np.float32)
    active = X[:, :1] * np.linspace(-1, 1, T) + 0.5 * rng.standard_normal((n, T)) > 0
    row, column = np.nonzero(rng.random((n, T)) < density)
    Y = sparse.csr_matrix((active[row, column].astype(np.float32), (row, column)), shape=(n, T))
    keys = pd.DataFrame({"compound": [f"C{i}" for i in range(n)]})
    names = [f"t{j}" for j in range(T)]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    data = Profiles(X, keys.rename(columns={"compound": "Metadata_compound"}), [f"f{j}" for j in range(6)])
    return data, Labels(Y, keys, tasks)


def test_preset_is_the_paper_and_yields_to_what_is_given() -> None:
    paper = Network(preset="simm2018").settings
    assert (paper.layers, paper.units, paper.learning_rate, paper.momentum, paper.epochs) == (3, 2048, 0.05, 0.0, 63)
    assert (paper.dropout_input, paper.dropout_hidden, paper.dropout_schedule) == (0.1, 0.5, True)
    assert Network(preset="simm2018", units=64).settings.units == 64
    with pytest.raises(ConfigError, match="'preset' of model 'network' is 'simm2019'"):
        Network(preset="simm2019")


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": 4}, {"units": 0}, {"units": "64"}, {"units": True}, {"dropout_hidden": 1.0}, {"learning_rate": 0},
        {"momentum": -0.1}, {"clip": 0.0}, {"batch": 0}, {"device": "tpu"}, {"patience": -1}, {"weight_decay": -1},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Network(**wrong)


def test_dropout_schedule_rises_by_half_a_percent_per_epoch() -> None:
    schedule = NetworkSettings(dropout_schedule=True)
    rates = [schedule.dropout(e) for e in (0, 1, 20, 62, 100, 500)]
    expected = [(0, 0), (0.005, 0.005), (0.1, 0.1), (0.1, 0.31), (0.1, 0.5), (0.1, 0.5)]
    np.testing.assert_allclose(rates, expected)
    assert NetworkSettings(dropout_schedule=False).dropout(0) == (0.1, 0.5)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_share_and_the_mean(rate: float) -> None:
    x = torch.ones(300, 1001)
    out = _drop(x, rate, torch.Generator().manual_seed(1))
    zero = (out == 0).float()
    assert abs(zero.mean() - rate) < 5 * (rate * (1 - rate) / x.numel()) ** 0.5
    assert zero.mean(0).std() < 2 * (rate * (1 - rate) / 300) ** 0.5  # no column is favoured
    np.testing.assert_allclose(out.max(), 1 / (1 - rate), rtol=1e-4)
    assert _drop(x, 0.0, torch.Generator()) is x


def test_entries_are_those_of_the_rows() -> None:
    data, labels = screen(40, density=0.3)
    rows = Rows.of(data.X, labels.Y, torch.device("cpu"))
    kept = np.flatnonzero(np.diff(labels.Y.indptr))
    assert len(rows) == len(kept) < 40
    order = np.random.default_rng(1).permutation(len(kept))[:15]
    entry, y = rows.measured.entries(torch.from_numpy(order), int(rows.count[order].sum()))
    dense = np.full((15, 4), np.nan)
    dense.reshape(-1)[entry.numpy()] = y.numpy()
    expected = np.full((15, 4), np.nan)
    for i, row in enumerate(kept[order]):
        part = slice(labels.Y.indptr[row], labels.Y.indptr[row + 1])
        expected[i, labels.Y.indices[part]] = labels.Y.data[part]
    np.testing.assert_array_equal(dense, expected)


def test_training_is_gradient_descent_on_a_dense_mask() -> None:
    data, labels = screen(30)
    settings = {"layers": 1, "units": 8, "dropout_input": 0.0, "dropout_hidden": 0.0, "clip": None, "batch": 30}
    model = Network(**settings, momentum=0.0, epochs=4, weight_decay=0.1, learning_rate=0.5).fit(data, labels, seed=4)
    share = (labels.counts()["n_active"] + 1) / (labels.counts().sum(axis=1) + 2)
    net = Perceptron(6, 4, model.settings)
    net.begin(share.to_numpy(np.float32), 4)
    mask = sparse.csr_matrix((np.ones(labels.Y.nnz), labels.Y.indices, labels.Y.indptr), labels.Y.shape).toarray()
    measured, y = torch.from_numpy(mask), torch.from_numpy(labels.Y.toarray())
    for _ in range(4):
        net.zero_grad()
        p = torch.sigmoid(net(torch.from_numpy(data.X)))
        each = -(y * torch.log(p) + (1 - y) * torch.log(1 - p))
        ((each * measured).sum() / measured.sum()).backward()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                assert parameter.grad is not None
                shrink = 0.1 if name.startswith("weights") else 0.0
                parameter -= 0.5 * (parameter.grad + shrink * parameter)
    assert model.net is not None
    for ours, plain in zip(model.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_scores_begin_at_the_shares() -> None:
    data, labels = screen(100)
    model = Network(units=16, epochs=1, learning_rate=1e-12, momentum=0.0).fit(data, labels)
    share = (labels.counts()["n_active"] + 1) / (labels.counts().sum(axis=1) + 2)
    np.testing.assert_allclose(model.predict(data).score, np.tile(share, (100, 1)), rtol=1e-5)


def test_early_stopping_restores_the_best_epoch() -> None:
    data, labels = screen(120)
    valid = data.take(np.arange(80, 120)), labels.take(np.arange(80, 120))
    train = data.take(np.arange(80)), labels.take(np.arange(80))
    settings = {"units": 32, "batch": 16, "dropout_hidden": 0.0, "dropout_input": 0.0, "min_valid": 1}
    model = Network(**settings, patience=5, learning_rate=0.1).fit(*train, valid=valid)
    losses = model.state.valid_loss
    assert len(losses) == model.state.best_epoch + 6 < 300
    assert losses[model.state.best_epoch] == min(losses)
    coo = valid[1].Y.tocoo()
    p = model.predict(valid[0]).score[coo.row, coo.col].astype(float)
    loss = -(coo.data * np.log(p) + (1 - coo.data) * np.log(1 - p)).mean()
    np.testing.assert_allclose(loss, min(losses), rtol=1e-4)
    same = Network(**settings, patience=0, epochs=model.state.best_epoch + 1, learning_rate=0.1).fit(*train)
    np.testing.assert_array_equal(same.predict(data).score, model.predict(data).score)


def test_few_validation_entries_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    data, labels = screen(60)
    with caplog.at_level(logging.DEBUG, logger="phenohit"):
        model = Network(units=8, epochs=4).fit(data, labels, valid=(data, labels))
    assert len(model.state.train_loss) == 4
    assert model.state.valid_loss == []
    assert "early stopping needs 100" in caplog.text


def test_validation_labels_of_other_tasks_are_refused() -> None:
    data, labels = screen(30)
    with pytest.raises(LabelError, match="other tasks"):
        Network().fit(data, labels, valid=(data, labels.take_tasks([0, 1])))


def test_divergence_is_named() -> None:
    data, labels = screen(60)
    huge = Profiles(data.X * 1e8, data.rows, data.features)
    with pytest.raises(RunError, match=r"became infinite in epoch \d+. Standardise"):
        Network(units=32, learning_rate=1e6, clip=None, epochs=30).fit(huge, labels)


def test_cuda_must_exist_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device is found"):
        Network(device="cuda").fit(*screen(20))


def test_a_finished_fit_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, labels = screen(60)
    first = Network(units=8, epochs=5).fit(data, labels, seed=2, run=tmp_path)
    monkeypatch.setattr(training._Trainer, "step", lambda *_: pytest.fail("trained again"))
    again = Network(units=8, epochs=5).fit(data, labels, seed=2, run=tmp_path)
    np.testing.assert_array_equal(first.predict(data).score, again.predict(data).score)
    assert again.state.train_loss == first.state.train_loss


@pytest.mark.parametrize("change", ["seed", "settings", "data", "labels", "damage"])
def test_a_checkpoint_of_something_else_is_not_used(change: str, tmp_path: Path) -> None:
    data, labels = screen(60)
    Network(units=8, epochs=5).fit(data, labels, seed=2, run=tmp_path)
    units, seed = 8, 2
    if change == "seed":
        seed = 3
    if change == "settings":
        units = 9
    if change == "data":
        data = Profiles(data.X + np.float32(1e-3), data.rows, data.features)
    if change == "labels":
        flipped = labels.Y.copy()
        flipped.data[0] = 1 - flipped.data[0]
        labels = Labels(flipped, labels.compounds, labels.tasks)
    if change == "damage":
        file = tmp_path / "network.checkpoint.safetensors"
        file.write_bytes(file.read_bytes()[:-50])
    fresh = Network(units=units, epochs=5).fit(data, labels, seed=seed).predict(data).score
    beside = Network(units=units, epochs=5).fit(data, labels, seed=seed, run=tmp_path).predict(data).score
    np.testing.assert_array_equal(fresh, beside)


def test_checkpoints_are_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    monkeypatch.setattr(training, "write_tensors", lambda path, *_: writes.append(path))
    Network(units=8, epochs=10, batch=8).fit(*screen(60), run=tmp_path)
    assert len(writes) == 1  # far less than ten seconds: only at the end


def test_generators_depend_on_every_number() -> None:
    drawn = {torch.rand(1, generator=generator("cpu", *n)).item() for n in [(0, 1, 2), (0, 2, 1), (1, 1, 2), (0, 12)]}
    assert len(drawn) == 4
    again = [torch.rand(3, generator=generator("cpu", 5, 6)).tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_thread_count_is_put_back() -> None:
    before = torch.get_num_threads()
    data, labels = screen(30)
    Network(units=8, epochs=1).fit(data, labels, jobs=1).predict(data)
    assert torch.get_num_threads() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cuda_agrees_with_the_processor(dtype: str) -> None:
    data, labels = screen(300)
    settings = {"units": 32, "epochs": 10, "dropout_input": 0.0, "dropout_hidden": 0.0}
    here = Network(**settings, device="cpu").fit(data, labels).predict(data).score
    there = Network(**settings, device="cuda", dtype=dtype).fit(data, labels).predict(data).score
    np.testing.assert_allclose(there, here, atol=1e-3 if dtype == "float32" else 0.1)


def test_validation_rows_that_cannot_stop_it_are_trained_on():
    data, labels = screen(60)
    head, tail = np.arange(40), np.arange(40, 60)
    settings = {"units": 16, "epochs": 3, "batch": 16, "min_valid": 10_000}
    held = (data.take(tail), labels.take(tail))
    with_rest = Network(**settings).fit(data.take(head), labels.take(head), valid=held, seed=1)
    alone = Network(**settings).fit(data.take(head), labels.take(head), seed=1)
    whole = Network(**settings).fit(data, labels, seed=1)
    assert with_rest.state.valid_loss == []
    assert len(with_rest.state.train_loss) == 3
    # the same rows in the same order: only the output biases, which begin at the training share, differ
    assert abs(with_rest.state.train_loss[0] - whole.state.train_loss[0]) < 0.02
    assert not np.array_equal(with_rest.predict(data).score, alone.predict(data).score)


def test_wells_of_few_compounds_do_not_stop_it():
    data, labels = screen(20, T=8, density=1.0)
    wells = np.repeat(np.arange(20), 30)  # 600 rows and many active entries, but 20 compounds
    valid = (data.take(wells), labels.take(wells))
    for least, stops in ((15, True), (21, False)):
        model = Network(units=8, epochs=2, max_epochs=3, min_valid=least).fit(data, labels, valid=valid)
        assert bool(model.state.valid_loss) is stops
