"""Backbones from timm: published sizes, first weights, and weights from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from phenohit.errors import ConfigError, FileError, ShapeError
from phenohit.models.vision import make
from phenohit.models.vision_count import count

timm = pytest.importorskip("timm")

TINY = {"backbone": "test_resnet"}


@pytest.mark.parametrize(
    ("name", "parameters", "giga"), [("resnet101", 42_934_673, 58.091), ("densenet121", 7_174_353, 20.717)]
)
def test_parameters_and_multiply_adds_are_the_published_ones(name: str, parameters: int, giga: float) -> None:
    with torch.device("meta"):
        net = make(name, 5, 209, (520, 692))
    counted = count(net, (5, 520, 692))
    assert counted[0] == parameters
    assert counted[1] / 1e9 == pytest.approx(giga, rel=1e-3)


@pytest.mark.parametrize("name", ["resnet101", "densenet121"])
def test_gradients_reach_every_parameter_and_evaluation_is_deterministic(name: str) -> None:
    net = make(name, 4, 3, (40, 48))
    x = torch.randn(2, 4, 40, 48, generator=torch.Generator().manual_seed(0))
    logits = net(x)
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()
    (logits.square().sum() + logits.sum()).backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key
    net.eval()
    assert torch.equal(net(x), net(x))


def test_resnet_begins_with_open_branches_and_weights_by_outputs() -> None:
    state = torch.get_rng_state()
    net = make("resnet101", 5, 7, (64, 64), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in net.named_parameters():
        if value.ndim == 4 and value.numel() > 100_000:
            fan_out = value.shape[0] * value[0, 0].numel()
            assert value.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02), key
        elif ".bn" in key:
            assert (value == (1 if key.endswith("weight") else 0)).all(), key
    net.eval()
    assert net(torch.randn(1, 5, 40, 56)).isfinite().all()


def test_the_seed_decides_the_weights() -> None:
    one, same, other = (make("timm", 5, 2, (64, 64), TINY, seed=s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_vit3", "test_mambaout", "test_efficientnet"])
def test_features_are_what_the_last_layer_sees(backbone: str) -> None:
    net: Any = make("timm", 5, 2, (64, 80), {"backbone": backbone, "dropout": 0.5}).eval()
    x = torch.randn(3, 5, 64, 80)
    found = net.features(x)
    assert found.shape == (3, net.n_features)
    torch.testing.assert_close(net.net.get_classifier()(found), net(x))
    with pytest.raises(ShapeError, match=r"\(B, 5, H, W\)"):
        net.features(x[:, :3])


def test_transformers_are_built_for_one_size() -> None:
    net = make("timm", 5, 2, (64, 80), {"backbone": "test_vit"}).eval()
    assert net(torch.randn(1, 5, 64, 80)).shape == (1, 2)
    with pytest.raises(ShapeError, match="built for images of 64 x 80 pixels, these have 64 x 64"):
        net(torch.randn(1, 5, 64, 64))
    with pytest.raises(ShapeError, match=r"\(B, 5, H, W\)"):
        net(torch.randn(1, 3, 64, 80))


def test_weights_from_a_file_are_adapted_to_channels_and_tasks(tmp_path: Path) -> None:
    rgb = make("timm", 3, 10, (64, 64), TINY, seed=5).eval()
    file = tmp_path / "weights.safetensors"
    save_file(rgb.net.state_dict(), file)  # pyright: ignore
    same = make("timm", 3, 10, (64, 64), {**TINY, "pretrained": str(file)}).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(same(x), rgb(x))
    five = make("timm", 5, 4, (64, 64), {**TINY, "pretrained": str(file)}).eval()
    assert five(torch.randn(1, 5, 64, 64)).shape == (1, 4)
    # One picture in every channel is seen as it was: kernels are repeated, then scaled by 3/5 of their number.
    first = rgb.net.pretrained_cfg["first_conv"] + ".weight"  # pyright: ignore
    had, has = rgb.net.state_dict()[first], five.net.state_dict()[first]  # pyright: ignore
    assert torch.allclose(has[:, :3], had * 0.6)
    assert torch.allclose(has[:, 3:], had[:, :2] * 0.6)
    again = tmp_path / "five.safetensors"  # and weights trained with five channels serve as they are
    save_file(five.net.state_dict(), again)  # pyright: ignore
    assert torch.equal(
        make("timm", 5, 2, (64, 64), {**TINY, "pretrained": str(again)}).net.state_dict()[first],  # pyright: ignore
        has,
    )


def test_wrong_files_and_names_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(2)}, file)
    for path, text in ((tmp_path / "none.safetensors", "must be empty, hub"), (file, "of another network")):
        with pytest.raises(FileError, match=text):
            make("timm", 3, 2, (64, 64), {**TINY, "pretrained": str(path)})
    file.write_bytes(b"no weights")
    with pytest.raises(FileError, match="is not a safetensors file"):
        make("timm", 3, 2, (64, 64), {**TINY, "pretrained": str(file)})
    with pytest.raises(ConfigError, match=r"timm has no backbone 'convnext_bse'\. Nearest: .*convnext_base"):
        make("timm", 3, 2, (64, 64), {"backbone": "convnext_bse"})
    with pytest.raises(ShapeError, match="no patch of test_vit fits into images of 8 x 64 pixels"):
        make("timm", 3, 2, (8, 64), {"backbone": "test_vit"})
    with pytest.raises(ShapeError, match="at least 29 x 29 pixels"):
        make("densenet121", 3, 2, (28, 64))


def test_the_smallest_image_of_densenet_is_the_smallest_that_leaves_a_pixel() -> None:
    with torch.device("meta"):
        net = make("densenet121", 1, 2, (29, 29)).eval()
        assert net(torch.empty(1, 1, 29, 29)).shape == (1, 2)
        with pytest.raises(RuntimeError):
            net.net(torch.empty(1, 1, 28, 29))  # pyright: ignore
        with pytest.raises(ShapeError, match="at least 29"):
            net(torch.empty(1, 1, 28, 29))


def test_weights_are_fetched_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    create = timm.create_model

    def watched(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        asked.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", watched)
    for given in ("", "hub"):
        make("timm", 3, 2, (64, 64), {**TINY, "pretrained": given})
    assert asked == [False, True]

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConfigError, match="64 x 64 pixels with weights from the hub: no route"):
        make("timm", 3, 2, (64, 64), {**TINY, "pretrained": "hub"})


@pytest.mark.parametrize("name", ["convnext_base", "vit_base_r50_s16_384", "vit_small_r26_s32_384"])
def test_backbones_of_the_later_reproduction_build_at_its_size(name: str) -> None:
    with torch.device("meta"):
        net = make("timm", 5, 209, (384, 384), {"backbone": name}).eval()
        assert net(torch.empty(1, 5, 384, 384)).shape == (1, 209)
