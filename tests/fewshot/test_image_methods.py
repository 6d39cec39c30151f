"""Prototypes and MAML on tiny simulated views."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

import phenohit.fewshot.image_methods as methods
import phenohit.fewshot.maml_loop as maml_loop
import phenohit.fewshot.prototypes_train as training
from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, FileError, LabelError, RunError, ShapeError
from phenohit.fewshot.contract import check_scores
from phenohit.fewshot.episodes import Episodes, draw_tasks
from phenohit.fewshot.image_encoder import augment_of, build, embed_rows, one_view, seen_labels, without_batch_norm
from phenohit.fewshot.image_methods import ImageMaml, ImagePrototypes
from phenohit.fewshot.image_settings import EncoderSettings, ImageMamlSettings, ImagePrototypesSettings
from phenohit.fewshot.maml_loop import draw_batch
from phenohit.fewshot.pools import Pools, episode_auroc
from phenohit.images.samples import ImageRows

SIDE = 16
QUICK: dict[type, dict[str, Any]] = {
    ImagePrototypes: {"outputs": 8, "options": {"units": 8}, "steps": 3, "episodes": 4, "check_every": 1},
    ImageMaml: {"options": {"units": 8}, "tasks": 2, "meta_steps": 3, "inner_steps": 2, "check": 1, "crop": [12, 12]},
}
NOISY: dict[type, dict[str, Any]] = {  # with dropout, and averages of batch normalisation
    ImagePrototypes: {**QUICK[ImagePrototypes], "network": "timm",
                      "options": {"backbone": "resnet10t", "dropout": 0.2}},
    ImageMaml: {**QUICK[ImageMaml], "options": {"units": 8, "dropout": 0.2}},
}  # fmt: skip
HOW: dict[str, Any] = {"sizes": [6], "query": 6}
each = pytest.mark.parametrize("method", [ImagePrototypes, ImageMaml])


@pytest.fixture(autouse=True)
def few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "_LOOKS", 2)


def screen(
    folder: Path, n: int = 40, views: int = 2, T: int = 10, side: int = SIDE, seed: int = 0
) -> tuple[ImageRows, Labels]:
    """Rows whose two channels are fine or coarse in texture, more or less; a task is a half of that plane."""
    rng = np.random.default_rng(seed)
    trait = rng.normal(size=(n, 2))
    angle = (np.arctan(trait) / 2 + np.pi / 4)[:, None, :, None, None]
    coarse = rng.normal(size=(n, views, 2, side // 4, side // 4)).repeat(4, -1).repeat(4, -2)
    fine = rng.normal(size=(n, views, 2, side, side))
    pixels = np.cos(angle) * coarse + np.sin(angle) * fine
    array = zarr.create_array(folder / f"{n}-{seed}.zarr", shape=(n * views, 2, side, side), chunks=(8, 2, side, side),
                              dtype="uint8")  # fmt: skip
    array[:] = np.clip(128 + 40 * pixels, 0, 255).astype(np.uint8).reshape(-1, 2, side, side)
    keys = [f"C{i:04d}" for i in range(n)]
    place = np.arange(n * views)
    data = ImageRows(
        pd.DataFrame({"Metadata_compound": keys}), ["a", "b"], (2, side, side), np.arange(n + 1) * views,
        np.zeros(len(place), np.int16), place, (place // views).astype(np.int32), [str(folder / f"{n}-{seed}.zarr")], 8,
    )  # fmt: skip
    Y = (trait @ rng.normal(size=(2, T)) > 0).astype(np.float32)
    row, column = np.nonzero(rng.random((n, T)) < 0.8)
    names = [f"t{i}" for i in range(T)]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    return data, Labels(
        sparse.csr_matrix((Y[row, column], (row, column)), shape=(n, T)), pd.DataFrame({"compound": keys}), tasks
    )


def draws(data: ImageRows, labels: Labels, size: int = 6, query: int = 6, n: int = 2) -> list[Episodes]:
    return draw_tasks(labels, data.compounds, labels.task_names, sizes=[size], query=query, n=n, seed=5)[0]


@each
def test_pretrains_scores_saves_and_loads(method: Any, tmp_path: Path) -> None:
    data, labels = screen(tmp_path)
    before = torch.get_rng_state()
    train, valid = labels.take_tasks(np.arange(8)), labels.take_tasks(np.arange(8, 10))
    fitted = method(**NOISY[method]).pretrain(data, train, valid=valid, **HOW)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(fitted.auroc) == 3
    episodes = draws(data, valid)
    scores = fitted.score(data, episodes)
    check_scores(method.name, scores, episodes)
    assert all(s.dtype == np.float32 and s.std() > 0 for s in scores)
    few = fitted.score(data, [episodes[1].take(slice(1, 2))], seed=7)
    np.testing.assert_allclose(few[0], scores[1][1:2], atol=1e-5)  # an episode's scores are its own
    one = dataclasses.replace(episodes[0], query=episodes[0].query[:, :1], y_query=episodes[0].y_query[:, :1])
    np.testing.assert_allclose(fitted.score(data, [one])[0], scores[0][:, :1], atol=1e-5)  # and so is a compound's
    fitted.save(tmp_path)
    again = method.load(tmp_path)
    assert again.settings == fitted.settings
    assert again.auroc == fitted.auroc
    for a, b in zip(again.score(data, episodes), scores, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert fitted.score(data, []) == []


@each
def test_a_resumed_training_ends_as_a_straight_one(
    method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, labels = screen(tmp_path)
    how = {**HOW, "valid": labels.take_tasks(np.arange(8, 10)), "seed": 3}
    train = labels.take_tasks(np.arange(8))
    straight = method(**NOISY[method]).pretrain(data, train, **how)
    monkeypatch.setattr(maml_loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    calls = 0
    part = "_gradient" if method is ImageMaml else "_scores"
    real = getattr(method, part)

    def interrupted(self: Any, *given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(self, *given, **more)

    monkeypatch.setattr(method, part, interrupted)
    with pytest.raises(KeyboardInterrupt):
        method(**NOISY[method]).pretrain(data, train, **how, run=tmp_path)
    resumed = method(**NOISY[method]).pretrain(data, train, **how, run=tmp_path)
    assert calls == 4  # it did not begin anew
    assert resumed.auroc == straight.auroc
    for name, tensor in straight.net.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(resumed.net.state_dict()[name], tensor), name


def test_prototypes_learn_what_only_images_tell(tmp_path: Path) -> None:
    data, labels = screen(tmp_path, n=90, T=30, side=32, views=1)
    train, test = labels.take_tasks(np.arange(24)), labels.take_tasks(np.arange(24, 30))
    given = {"outputs": 16, "options": {"units": 32}, "episodes": 16, "device": "cpu"}
    fitted = ImagePrototypes(**given, steps=30).pretrain(data, train, sizes=[16], query=16)
    begun = ImagePrototypes(**given, steps=1, learning_rate=1e-12).pretrain(data, train, sizes=[16], query=16)
    episodes = draws(data, test, size=16, query=32, n=20)
    learned, random = (episode_auroc(m.score(data, episodes), episodes) for m in (fitted, begun))
    assert learned > 0.8  # chance: 0.5, with a deviation of 0.01
    assert learned > random + 0.08


def test_embeddings_are_means_of_views_then_of_wells(tmp_path: Path) -> None:
    data, _ = screen(tmp_path, n=4, views=3)
    data = dataclasses.replace(data, well=np.array([0, 0, 9, *data.well[3:]], np.int32))
    settings = EncoderSettings(options={"units": 8})
    net = build(settings, data.shape, 5).eval()
    augment, cpu = augment_of(settings, data.shape), torch.device("cpu")
    x = methods.read_views(data, np.arange(12), augment, cpu)
    with torch.no_grad():
        every = net(x)
    rows = np.array([2, 0])
    found = embed_rows(net, data, rows, augment, cpu, batch=2, threads=1)
    expected = torch.stack([every[6:9].mean(0), (every[:2].mean(0) + every[2]) / 2])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    first = embed_rows(net, data, rows, augment, cpu, batch=2, threads=1, views=1)
    torch.testing.assert_close(first, every[[6, 0]], atol=1e-5, rtol=1e-4)


def test_one_random_view_of_each_row(tmp_path: Path) -> None:
    data, _ = screen(tmp_path, n=5, views=3)
    rows = np.repeat(np.arange(5), 200)
    images = one_view(data, rows, np.random.default_rng(0))
    np.testing.assert_array_equal(data.row[images], rows)
    assert set(images.tolist()) == set(range(15))


def test_views_are_cut_by_chance_or_from_the_middle(tmp_path: Path) -> None:
    data, _ = screen(tmp_path)
    augment, cpu = augment_of(EncoderSettings(crop=[8, 99]), data.shape), torch.device("cpu")
    assert augment.size(data.shape[1:]) == (8, SIDE)  # what is smaller is taken whole
    plain, again = (methods.read_views(data, np.arange(70), augment, cpu) for _ in range(2))
    first, same, other = (methods.read_views(data, np.arange(70), augment, cpu, 0, n) for n in (1, 1, 2))
    assert plain.shape == (70, 2, 8, SIDE)
    assert torch.equal(plain, again)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.last = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(functional.silu(self.norm(self.convolution(x))).mean((2, 3)))


def test_the_meta_gradient_of_a_backbone_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    data, labels = screen(tmp_path)
    net = without_batch_norm(Small())
    method = ImageMaml(inner_rate=0.5, inner_steps=2, crop=[12, 12], tasks=2)
    method.net, method.shape = net, data.shape
    drawn = draw_batch(Pools.of(labels, data.compounds, [6], 6), [6], 2, seed=1, step=0)
    total, slope = method._gradient(data, drawn, 1, 0)
    names, losses = list(slope), []
    augment = augment_of(method.settings, data.shape)
    for task in range(2):
        images = one_view(
            data, np.hstack([drawn.support[task], drawn.query[task]]), np.random.default_rng([1, 0, task, 4])
        )
        x = methods.read_views(data, images, augment, method.device, 1, 0, task)
        y, y_query = (torch.from_numpy(a[task]).float() for a in (drawn.y_support, drawn.y_query))
        p = list(net.parameters())
        for _ in range(2):
            logits = torch.func.functional_call(net, dict(zip(names, p, strict=True)), (x[:6],))[:, 0]
            inner = functional.binary_cross_entropy_with_logits(logits, y)
            p = [w - 0.5 * g for w, g in zip(p, torch.autograd.grad(inner, p, create_graph=True), strict=True)]
        logits = torch.func.functional_call(net, dict(zip(names, p, strict=True)), (x[6:],))[:, 0]
        losses.append(functional.binary_cross_entropy_with_logits(logits, y_query))
    loss = torch.stack(losses).mean()
    assert total == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, g in zip(names, torch.autograd.grad(loss, list(net.parameters())), strict=True):
        torch.testing.assert_close(slope[name], g, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["resnet10t", "densenet121"])
def test_no_view_has_a_part_in_anothers_answer_without_batch_norm(backbone: str) -> None:
    settings = EncoderSettings(network="timm", options={"backbone": backbone}, crop=[])
    net = build(settings, (2, 32, 32), 1, batch_norm=False).train()
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    x = torch.randn(3, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x)[:1], net(x[:1]), atol=1e-4, rtol=1e-3)
    kept = sum(isinstance(m, (nn.ReLU, nn.Identity)) for m in net.modules())
    assert kept >= sum(isinstance(m, nn.GroupNorm) for m in net.modules()) - 5  # activations within norms stay


def test_a_backbone_of_timm_takes_meta_steps(tmp_path: Path) -> None:
    data, labels = screen(tmp_path)
    given = {**QUICK[ImageMaml], "network": "timm", "options": {"backbone": "resnet10t"}, "meta_steps": 1}
    fitted = ImageMaml(**given).pretrain(data, labels, **HOW)
    fitted.save(tmp_path)
    episodes = [draws(data, labels)[0].take(slice(0, 1))]
    (score,) = fitted.score(data, episodes)
    np.testing.assert_allclose(ImageMaml.load(tmp_path).score(data, episodes)[0], score, atol=1e-6)


@each
def test_rows_without_views_take_no_part(method: Any, tmp_path: Path) -> None:
    data, labels = screen(tmp_path)
    start = data.start.copy()
    start[1:] -= 2  # row 0 has none
    bare = dataclasses.replace(data, start=start, array=data.array[2:], place=data.place[2:], well=data.well[2:])
    left, lost = seen_labels(bare, labels)
    assert left.Y[0].nnz == 0
    assert left.Y.nnz == labels.Y.nnz - labels.Y[0].nnz
    assert lost["id"].tolist() == ["C0000"]
    with_bare = method(**QUICK[method]).pretrain(bare, labels, **HOW)
    without = method(**QUICK[method]).pretrain(bare, left, **HOW)
    for a, b in zip(with_bare.net.parameters(), without.net.parameters(), strict=True):
        assert torch.equal(a, b)
    assert len(with_bare.dropped) == len(without.dropped) + 1
    episodes = draws(data, labels)
    with pytest.raises(ShapeError, match=r"1 of \d+ rows of the episodes have no view \('C0000'\)"):
        with_bare.score(bare, episodes)


@each
def test_damaged_files_and_wrong_input_are_refused(method: Any, tmp_path: Path) -> None:
    data, labels = screen(tmp_path)
    with pytest.raises(RunError, match="has not been fitted"):
        method().score(data, [])
    with pytest.raises(ShapeError, match="learns from images"):
        method().pretrain(object(), labels)
    with pytest.raises(LabelError, match="training tasks"):
        method(**QUICK[method]).pretrain(data, labels, sizes=[400])
    fitted = method(**QUICK[method]).pretrain(data, labels, **HOW)
    with pytest.raises(ShapeError, match="Not known: 'c'"):
        fitted.score(dataclasses.replace(data, channels=["a", "c"]), [])
    fitted.save(tmp_path)
    path = tmp_path / f"{method.name}.safetensors"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for cut in (0, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError):
            method.load(path)
    for _ in range(10):  # changed bytes are refused or harmless, never a crash
        broken = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 4000), size=10):
            broken[place] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            method.load(path)
        except FileError:
            continue


def test_settings_are_described_and_checked() -> None:
    for cls in (ImagePrototypesSettings, ImageMamlSettings):
        text = f"{cls.__doc__}{EncoderSettings.__doc__}"
        for setting in (f.name for f in dataclasses.fields(cls)):
            assert any(form in text for form in (f"{setting} :", f"{setting}, ", f", {setting} :", f", {setting}\n"))
    published = ImagePrototypes(preset="fslcp").settings
    assert (published.outputs, published.distance, published.steps) == (1600, "cosine", 30_000)
    published = ImageMaml(preset="fslcp").settings
    assert (published.options, published.tasks, published.crop) == ({"backbone": "resnet50"}, 32, [85, 85])
    wrong: list[tuple[Any, dict[str, Any]]] = [
        (ImagePrototypes, {"crop": [3]}), (ImagePrototypes, {"tasks": 64}), (ImagePrototypes, {"outputsx": 1}),
        (ImageMaml, {"views": 0}), (ImageMaml, {"order": 3}), (ImageMaml, {"network": "gapnet2"}),
    ]  # fmt: skip
    for method, given in wrong:
        with pytest.raises(ConfigError, match=next(iter(given))):
            method(**given)
    with pytest.raises(ConfigError, match="unitsx"):
        ImageMaml(options={"unitsx": 3})
