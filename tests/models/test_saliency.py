"""Evidence against closed forms and planted spots, on every network, and that reading it changes nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from phenohit.errors import ConfigError, ShapeError
from phenohit.images.convert import normalise, to_uint8
from phenohit.images.read import read_view
from phenohit.models.saliency import _between, evidence, for_display
from phenohit.models.vision import make
from phenohit.models.vision_maps import Place, placed

METHODS = ["gradcam", "hirescam", "gradient"]
# Name: network, size, settings. Tokens: only the class token is classified, or the mean of the patches, or attention.
NETWORKS: dict[str, tuple[str, tuple[int, int], dict[str, Any]]] = {
    "gapnet": ("gapnet", (48, 40), {"units": 16, "dropout": 0.5}),
    "sccnn": ("sccnn", (40, 32), {"units": 16}),
    "milnet": ("milnet", (170, 135), {}),
    "mcnn": ("mcnn", (40, 50), {"scales": 4, "combined": 16, "units": 8}),
    "resnet101": ("resnet101", (40, 70), {}),
    "densenet121": ("densenet121", (40, 70), {}),
    "resnet": ("timm", (64, 80), {"backbone": "test_resnet"}),
    "channels last": ("timm", (64, 80), {"backbone": "test_mambaout"}),
    "class token": ("timm", (64, 80), {"backbone": "test_vit"}),
    "mean of tokens": ("timm", (64, 80), {"backbone": "test_vit2"}),
    "attention over tokens": ("timm", (64, 80), {"backbone": "test_vit3"}),
}
BACKBONES = {name for name, given in NETWORKS.items() if given[0] in ("timm", "resnet101", "densenet121")}


def built(name: str, tasks: int = 3, **more: Any) -> Any:
    if name in BACKBONES:
        pytest.importorskip("timm")
    network, size, settings = NETWORKS[name]
    return make(network, 2, tasks, size, {**settings, **more})


@cache
def evaluated(name: str) -> Any:
    """In evaluation mode, for tests that change nothing."""
    return built(name).eval()


def images(name: str, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 2, *NETWORKS[name][1], generator=torch.Generator().manual_seed(1))


def quarters(maps: torch.Tensor) -> torch.Tensor:
    """Sums (B, 2, 2) over the quarters of an image."""
    rows, columns = maps.shape[1] // 2, maps.shape[2] // 2
    halves = torch.stack([maps[:, :rows].sum(1), maps[:, rows:].sum(1)], 1)
    return torch.stack([halves[..., :columns].sum(2), halves[..., columns:].sum(2)], 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_evidence_is_a_map_of_every_image_and_features_are_as_many_as_said(name: str) -> None:
    net, x = evaluated(name), images(name)
    for method in METHODS:
        maps = evidence(net, x, 1, method=method)  # pyright: ignore
        assert maps.shape == (2, *x.shape[2:])
        assert maps.dtype == torch.float32
        assert not maps.requires_grad
        assert maps.isfinite().all()
        assert (maps >= 0).all()
        assert maps.any() or method != "gradient"  # the others are positive or negative, by the first weights
    maps, alone = evidence(net, x, 1), evidence(net, x[1:], 1)
    torch.testing.assert_close(alone, maps[1:], rtol=1e-3, atol=0.01 * float(maps.max()))
    found = net.features(x)
    assert found.shape == (2, net.n_features)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_of_the_maps_are_those_of_the_network(name: str) -> None:
    net, x = evaluated(name), images(name)
    tapped = net.tapped(x)
    torch.testing.assert_close(tapped.logits, net(x), rtol=1e-4, atol=1e-5)
    assert all(m.is_leaf and m.requires_grad and m.ndim == 4 for m in tapped.maps)
    assert len(tapped.maps) == len(tapped.places)
    parts = torch.autograd.grad(tapped.logits[:, 0].sum(), tapped.maps)
    assert all(p.any() for p in parts)


@pytest.mark.parametrize("name", ["gapnet", "milnet", "class token", "resnet"])
def test_reading_evidence_changes_nothing(name: str) -> None:
    net, x = built(name), images(name)
    torch.manual_seed(0)
    net(x).sum().backward()
    first = next(net.children())
    first.eval()  # a part frozen by the caller
    next(net.parameters()).requires_grad_(False)

    def state() -> list[Any]:
        tensors = [*net.state_dict().values(), *(p.grad for p in net.parameters() if p.grad is not None)]
        return [t.clone() for t in [*tensors, torch.get_rng_state(), x]]

    before, modes = state(), [m.training for m in net.modules()]
    for method in METHODS:
        evidence(net, x, 0, method=method)  # pyright: ignore
        with pytest.raises(ConfigError):
            evidence(net, x, 99, method=method)  # pyright: ignore
    with pytest.raises(ShapeError):
        evidence(net, x[:, :1], 0)
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    assert [m.training for m in net.modules()] == modes
    assert any(modes)
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in net.modules())
    assert not x.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["gapnet", "class token"])
@pytest.mark.parametrize("method", METHODS)
def test_evidence_is_the_same_where_graphs_are_off_and_in_training_mode(name: str, method: Any) -> None:
    net, x = built(name).eval(), images(name)
    expected = evidence(net, x, 2, method=method)
    for off in (torch.no_grad(), torch.inference_mode()):
        with off:
            assert torch.equal(evidence(net, x.clone(), 2, method=method), expected)
            assert not torch.is_grad_enabled()
    assert torch.equal(evidence(net.train(), x, 2, method=method), expected)
    assert net.training


@pytest.mark.parametrize(
    ("name", "layer", "method"),
    [
        ("resnet101", "fc", "gradcam"),
        ("densenet121", "classifier", "gradcam"),
        ("resnet", "fc", "gradcam"),
        ("resnet", "fc", "hirescam"),
    ],
)
@torch.no_grad()
def test_with_a_linear_layer_on_means_it_is_the_class_activation_map(name: str, layer: str, method: Any) -> None:
    net, x = evaluated(name), images(name)
    maps = net.net.forward_features(x)
    weight = getattr(net.net, layer).weight
    # Zhou 2016, equation 2, as a share of the mean.
    cam = torch.einsum("k,bkhw->bhw", weight[1], maps) / maps.shape[2:].numel()
    logit = cam.sum((1, 2)) + getattr(net.net, layer).bias[1]
    torch.testing.assert_close(logit, net(x)[:, 1], rtol=1e-4, atol=1e-5)
    expected = functional.interpolate(cam[:, None], x.shape[2:], mode="bilinear")[:, 0].clamp_min(0)
    tolerance = 1e-4 * float(cam.abs().max())
    torch.testing.assert_close(evidence(net, x, 1, method=method), expected, rtol=1e-4, atol=tolerance)


def first_channel(convolution: nn.Conv2d) -> None:
    """Let a convolution pass on its first input as it is, in its first output alone."""
    with torch.no_grad():
        convolution.weight.zero_()
        centre = convolution.kernel_size[0] // 2
        convolution.weight[0, 0, centre, centre] = 1.0
        if convolution.bias is not None:
            convolution.bias.zero_()


def linear(layer: nn.Linear, weights: dict[tuple[int, int], float]) -> None:
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        for place, value in weights.items():
            layer.weight[place] = value


@pytest.mark.parametrize("tap", [0, 32, 96, 224])  # of the first map of each block
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_gapnet_shows_a_spot_whichever_block_it_is_read_from(tap: int, corner: tuple[int, int]) -> None:
    net = make("gapnet", 1, 2, (256, 320), {"units": 4}).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            first_channel(module)
    linear(net.head[0], {(0, tap): 1.0})  # pyright: ignore
    linear(net.head[3], {(0, 0): 1.0})  # pyright: ignore
    linear(net.head[6], {(0, 0): 1.0, (1, 0): -1.0})  # pyright: ignore
    x = torch.zeros(1, 1, 256, 320)
    row, column = 40 + 170 * corner[0], 50 + 210 * corner[1]
    x[:, :, row : row + 16, column : column + 16] = 1
    maps = evidence(net, x, 0)
    assert quarters(maps)[0][corner] > 0
    assert (quarters(maps) > 0).sum() == 1
    # The centre of all evidence is the spot's own: less than half a position of the coarsest grid away.
    for axis, middle in ((1, row + 7.5), (2, column + 7.5)):
        along = maps.sum(3 - axis)[0]
        assert abs(float((along * torch.arange(len(along))).sum() / along.sum()) - middle) < 16
    assert not evidence(net, x, 1).any()  # against the other task: no positive part


def test_evidence_of_gapnet_adds_up_to_the_logit_over_all_blocks() -> None:
    net = make("gapnet", 2, 1, (64, 96), {"units": 3}).eval()
    net.head = nn.Linear(480, 1, bias=False)
    with torch.no_grad():
        for p in net.parameters():
            p.abs_()  # nothing negative, so that no positive part hides anything
        x = torch.rand(1, 2, 64, 96) + 1
        blocks = net.features(x)[0].split([32, 64, 128, 256])  # pyright: ignore
        net.head.weight.copy_(torch.cat([torch.ones(len(b)) / b.sum() for b in blocks])[None])  # 1 of each
    tapped = net.tapped(x)  # pyright: ignore
    parts = torch.autograd.grad(tapped.logits.sum(), tapped.maps)
    total = sum((m * g).sum() for m, g in zip(tapped.maps, parts, strict=True))
    torch.testing.assert_close(total, net(x).sum())
    # Positions spread unevenly over the image weigh edges more or less: near, not equal.
    per_position = evidence(net, x, 0).mean() * tapped.maps[-1].shape[2:].numel()
    torch.testing.assert_close(per_position, net(x).sum(), rtol=0.1, atol=0)


def test_class_maps_of_milnet_are_the_evidence_where_no_other_task_is_mixed_in() -> None:
    net = make("milnet", 2, 3, (300, 270)).eval()
    x = torch.randn(2, 2, 300, 270)
    linear(net.head, {(0, 0): 1.0, (1, 1): -1.0, (2, 0): 1.0})  # pyright: ignore
    maps = net.maps(x)[:, 0].detach()  # pyright: ignore
    found = evidence(net, x, 0)
    place = net.tapped(x).places[0]  # pyright: ignore
    assert (place.first, place.step) == (67, 32)  # of 135 pixels seen, the middle
    seen = found[:, 67::32, 67::32][:, : maps.shape[1], : maps.shape[2]]
    ratio = seen / maps
    assert ratio.shape[1:] == maps.shape[1:] == (6, 5)
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio), rtol=1e-4, atol=0)
    assert not evidence(net, x, 1).any()
    assert torch.equal(evidence(net, x, 2), found)  # task 2 is decided by the maps of task 0


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_position_by_position_mcnn_shows_only_the_corner_that_it_reads_by_the_mean_of_gradients_all(
    corner: tuple[int, int],
) -> None:
    net = make("mcnn", 1, 1, (128, 128), {"scales": 4, "combined": 2, "units": 2}).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            first_channel(module)
    assert net.grid == (8, 8)
    read = {
        (0, 8 * r + c): 1.0 for r in range(8) for c in range(8) if (r >= 4, c >= 4) == (corner[0] == 1, corner[1] == 1)
    }
    linear(net.head[1], read)  # pyright: ignore
    linear(net.head[3], {(0, 0): 1.0})  # pyright: ignore
    x = torch.zeros(1, 1, 128, 128)
    for row in (20, 92):  # a spot in every corner
        for column in (20, 92):
            x[:, :, row : row + 12, column : column + 12] = 1
    maps = evidence(net, x, 0, method="hirescam")
    assert quarters(maps)[0][corner] > 0
    assert (quarters(maps) > 0).sum() == 1
    assert (quarters(evidence(net, x, 0)) > 0).all()


def test_class_token_shows_the_patches_it_attends_to() -> None:
    pytest.importorskip("timm")
    net: Any = make("timm", 1, 1, (64, 64), {"backbone": "test_vit"}).eval()
    tapped = net.tapped(torch.randn(1, 1, 64, 64))
    assert tapped.maps[0].shape == (1, 64, 4, 4)  # patches of 16 pixels, class token left out
    # In the last block nothing is read but by attention: without its values, patches say nothing.
    values = net.net.blocks[-1].attn.qkv
    with torch.no_grad():
        values.weight[128:] = 0
        values.bias[128:] = 0
    assert not evidence(net, torch.randn(1, 1, 64, 64), 0).any()
    # And a mean over patches shows the patch that was given in the place where it was given.
    net = make("timm", 1, 1, (64, 64), {"backbone": "test_vit2"}).eval()
    maps = net.tapped(torch.randn(1, 1, 64, 64)).maps[0]
    tokens = net.net.forward_features(torch.ones(1, 1, 64, 64))[:, 1:]
    assert torch.equal(net.tapped(torch.ones(1, 1, 64, 64)).maps[0][0, :, 1, 2], tokens[0, 6])
    assert maps.shape == (1, 64, 4, 4)


def test_input_gradient_of_a_linear_network_is_its_weights() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 4, 2))
    weight = net[1].weight[1].reshape(2, 3, 4)  # pyright: ignore
    found = evidence(net, torch.randn(5, 2, 3, 4), 1, method="gradient")
    torch.testing.assert_close(found, weight.abs().amax(0).expand(5, 3, 4))


@given(st.integers(1, 12), st.integers(12, 60))
def test_interpolation_is_torchs_where_positions_are_spread_evenly(positions: int, pixels: int) -> None:
    values = torch.randn(1, 1, positions, dtype=torch.float64)
    expected = functional.interpolate(values, pixels, mode="linear")[0, 0]
    torch.testing.assert_close(_between(positions, pixels, None) @ values[0, 0], expected)
    shifted = _between(positions, pixels, Place(3.0, 2.0))
    torch.testing.assert_close(shifted.sum(1), torch.ones(pixels, dtype=torch.float64))
    for position in range(positions):
        if 3 + 2 * position < pixels:
            assert shifted[3 + 2 * position, position] == 1


def test_places_are_where_pixels_are_seen_from() -> None:
    layers = nn.Sequential(
        nn.Conv2d(1, 1, 3, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2, padding=1), nn.Conv2d(1, 1, 3, dilation=2),
        nn.AvgPool2d(3, 2),
    )  # fmt: skip
    place = placed(layers)
    x = torch.zeros(1, 1, 120, 120, requires_grad=True)
    smooth = [nn.AvgPool2d(2, 2, padding=1) if isinstance(m, nn.MaxPool2d) else m for m in layers]
    for m in smooth:
        if isinstance(m, nn.Conv2d):
            nn.init.ones_(m.weight)
            nn.init.ones_(m.bias)  # pyright: ignore
    nn.Sequential(*smooth)(x)[0, 0, 4, 5].backward()
    assert x.grad is not None
    seen = x.grad[0, 0] / x.grad.sum()
    for axis, position in ((1, 4), (0, 5)):
        assert float((seen.sum(axis) * torch.arange(120)).sum()) == pytest.approx(place.first + place.step * position)


def test_display_is_from_0_to_1_alone_or_together() -> None:
    maps = torch.stack([torch.full((2, 3), 4.0), torch.arange(6.0).reshape(2, 3) / 5, torch.zeros(2, 3)])
    alone, together = for_display(maps), for_display(maps, together=True)
    assert alone.amax((1, 2)).tolist() == [1, 1, 0]
    torch.testing.assert_close(together, maps / 4)
    assert torch.equal(for_display(maps[2:], together=True), maps[2:])
    assert for_display(maps[:0]).shape == (0, 2, 3)
    with pytest.raises(ShapeError, match=r"\(B, H, W\)"):
        for_display(maps[0])


def test_what_cannot_be_read_is_refused() -> None:
    net, x = built("gapnet"), images("gapnet")
    for task in (-1, 3, True):
        with pytest.raises(ConfigError, match=f"no task {task}: expected 0 to 2"):
            evidence(net, x, task)
    with pytest.raises(ConfigError, match=r"no method 'gradcamm'\. Nearest: gradcam"):
        evidence(net, x, 0, method="gradcamm")  # pyright: ignore
    with pytest.raises(ConfigError, match="Fnn shows no maps"):
        evidence(make("fnn", 4, 2, (1, 1), {"units": 3}), torch.randn(2, 4, 1, 1), 0)
    with pytest.raises(ShapeError, match="uint8"):
        evidence(net, x.to(torch.uint8), 0, method="gradient")


def test_backbones_without_readable_maps_say_so() -> None:
    pytest.importorskip("timm")
    with torch.device("meta"):
        for backbone, reason in (("pit_ti_224", "no blocks"), ("hiera_tiny_224", r"shape \(1, 49, 768\)")):
            net: Any = make("timm", 2, 2, (224, 224), {"backbone": backbone})
            with pytest.raises(ConfigError, match=f"{backbone} sees its evidence cannot be read from maps: .*{reason}"):
                evidence(net, torch.empty(1, 2, 224, 224), 0)
            assert net.features(torch.empty(1, 2, 224, 224)).shape == (1, net.n_features)


@pytest.fixture(scope="module")
def view(shared_data: Path) -> torch.Tensor:
    """A real field of five stains, 520 x 696 pixels, as networks take it."""
    folder = shared_data / "raw-images" / "cdrp_cloome_example"
    files = [str(folder / f"{c}.tif") for c in ("ERSyto", "ERSytoBleed", "Hoechst", "Mito", "Ph_golgi")]
    return torch.from_numpy(normalise(to_uint8(read_view(files))))[None]


@pytest.mark.parametrize("name", ["gapnet", "sccnn", "milnet", "mcnn", "resnet101", "densenet121"])
def test_a_real_view_goes_through_every_network_at_its_native_size(name: str, view: torch.Tensor) -> None:
    if name in BACKBONES:
        pytest.importorskip("timm")
    net: Any = make(name, 5, 209, (520, 696)).eval()
    assert view.shape == (1, 5, 520, 696)
    with torch.inference_mode():
        found = net.features(view)
    # These two take seconds for each pass: the whole view once, logits and evidence on a crop.
    x = view[:, :, :224, :256] if name in BACKBONES else view
    with torch.inference_mode():
        logits = net(x)
    maps = evidence(net, x, 208)
    assert found.shape == (1, net.n_features)
    assert logits.shape == (1, 209)
    assert maps.shape == (1, *x.shape[2:])
    assert all(t.isfinite().all() for t in (found, logits, maps))
