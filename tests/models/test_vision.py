"""The networks that see images: sizes and costs as published, first weights, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from phenohit.errors import ConfigError, ShapeError
from phenohit.models.vision import PRESETS, RELEASED, VISION, make, vision_names
from phenohit.models.vision_count import count

OURS = ["gapnet", "milnet", "mcnn", "sccnn", "fnn"]
VIEW = (520, 692)
# Parameters: Hofmarcher 2019, Table 3, and the reference networks for the two that it leaves out. Multiply-adds of
# convolutions and linear layers, in 1e9: the reference networks at 5 x 520 x 692.
PUBLISHED = {"gapnet": (3_694_545, 1.707), "milnet": (726_180, 4.395), "mcnn": (11_230_929, 7.438)}
TINY = {
    "gapnet": (48, 40), "milnet": (140, 135), "mcnn": (130, 140), "sccnn": (40, 32), "fnn": (3, 2)
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "gapnet": {"units": 16}, "sccnn": {"units": 16}, "milnet": {}, "mcnn": {"combined": 16, "units": 8},
    "fnn": {"units": 16},
}  # fmt: skip


def tiny(name: str, channels: int = 3, tasks: int = 4, seed: int = 0, **more: Any) -> nn.Module:
    return make(name, channels, tasks, TINY[name], {**SMALL[name], **more}, seed=seed)


def images(name: str, n: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.randn(n, channels, *TINY[name], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        net = make(name, 5, 209, VIEW)
    parameters, multiply_adds = count(net, (5, *VIEW))
    assert parameters == PUBLISHED[name][0]
    assert multiply_adds / 1e9 == pytest.approx(PUBLISHED[name][1], rel=1e-3)


def test_single_cell_network_and_baseline_match_their_layers_counted_by_hand() -> None:
    with torch.device("meta"):
        cells, baseline = make("sccnn", 5, 209, (96, 96)), make("fnn", 1783, 209, (1, 1))
    maps = 48**2 * 32 * 45 + 12**2 * 64 * (288 + 2 * 576) + 6**2 * 128 * (576 + 2 * 1152)
    maps += 3**2 * 256 * (1152 + 2 * 2304)
    assert count(cells, (5, 96, 96)) == (3_694_545, maps + 480 * 1024 + 1024**2 + 1024 * 209)
    assert count(baseline, (1783, 1, 1)) == (12_474_577, 1783 * 2048 + 2 * 2048**2 + 2048 * 209)


def test_counting_changes_nothing() -> None:
    net = tiny("gapnet", dropout=0.5)
    net.blocks[1].eval()  # pyright: ignore
    before = [m.training for m in net.modules()]
    count(net, (3, 64, 64))
    assert [m.training for m in net.modules()] == before
    assert not any(m._forward_hooks for m in net.modules())
    assert all(p.device.type == "cpu" for p in net.parameters())


@pytest.mark.parametrize("name", OURS)
def test_logits_are_finite_and_gradients_reach_every_parameter(name: str) -> None:
    net = tiny(name)
    both = getattr(net, "training_logits", lambda x: (net(x),))
    torch.manual_seed(0)  # dropout
    logits = both(images(name, 4))
    assert all(out.shape == (4, 4) and out.dtype == torch.float32 and out.isfinite().all() for out in logits)
    sum(out.square().sum() + out.sum() for out in logits).backward()  # pyright: ignore
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", OURS)
def test_the_seed_decides_the_weights_and_nothing_else_is_touched(name: str) -> None:
    state = torch.get_rng_state()
    one, same, other, far = (tiny(name, seed=s).state_dict() for s in (3, 3, 4, 3 + 2**32))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    assert any(not torch.equal(one[key], far[key]) for key in one)


@pytest.mark.parametrize("name", OURS)
def test_evaluation_is_deterministic_and_rows_do_not_see_each_other(name: str) -> None:
    net = tiny(name, **({"dropout": 0.5} if name == "gapnet" else {}))
    x = images(name, 3)
    if name in ("gapnet", "milnet", "fnn"):  # these have dropout
        assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
    assert torch.allclose(net(x)[1:2], net(x[1:2]), atol=1e-5)


@pytest.mark.parametrize("name", ["gapnet", "sccnn", "milnet"])
def test_networks_without_fixed_grids_take_other_sizes_and_channels(name: str) -> None:
    net = tiny(name, channels=7, tasks=1).eval()
    height, width = TINY[name]
    assert net(torch.randn(2, 7, height + 13, width + 31)).shape == (2, 1)


@pytest.mark.parametrize("name", ["gapnet", "sccnn", "milnet"])
def test_the_smallest_image_is_the_smallest_that_leaves_a_pixel(name: str) -> None:
    with torch.device("meta"):
        smallest = make(name, 1, 2, TINY[name]).SMALLEST
        net = make(name, 1, 2, (smallest, smallest))
        net(torch.empty(1, 1, smallest, smallest))
        with pytest.raises(ShapeError, match=f"at least {smallest} x {smallest} pixels, these have {smallest - 1} x"):
            net(torch.empty(1, 1, smallest - 1, smallest))
        with pytest.raises(ShapeError, match="at least"):
            make(name, 1, 2, (smallest, smallest - 1))
        stages = net.layers if name == "milnet" else nn.Sequential(*net.blocks)  # pyright: ignore
        with pytest.raises(RuntimeError):
            stages(torch.empty(1, 1, smallest - 1, smallest))


@pytest.mark.parametrize("name", OURS)
def test_wrong_batches_are_refused(name: str) -> None:
    net, x = tiny(name), images(name)
    for wrong in (torch.cat([x, x], 1), x[0], x.to(torch.uint8)):
        with pytest.raises(ShapeError, match="was built for"):
            net(wrong)


@pytest.mark.parametrize("name", OURS)
def test_features_are_what_the_last_layers_see(name: str) -> None:
    net: Any = tiny(name).eval()
    x = images(name)
    found = net.features(x)
    assert found.shape == (2, net.n_features)
    if name == "milnet":  # a 1 x 1 convolution and a mean may change places
        found, expected = found @ net.layers[-1].weight[:, :, 0, 0].T + net.layers[-1].bias, net.layers(x).mean((2, 3))
    else:
        last = {"mcnn": lambda: net.head[-1], "fnn": lambda: net.layers[-1]}.get(name, lambda: net.head)()
        found, expected = last(found), net(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match="was built for"):
        net.features(torch.cat([x, x], 1))


def test_unknown_names_and_impossible_values_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'gapnett' is not known\. Nearest: gapnet"):
        make("gapnett", 5, 2, (64, 64))
    with pytest.raises(ConfigError, match="model 'gapnet' has no setting 'unit'"):
        make("gapnet", 5, 2, (64, 64), {"unit": 3})
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("gapnet", {"dropout": 1.0}), ("milnet", {"a": 0.0}), ("milnet", {"threshold": 1.5}), ("mcnn", {"scales": 8}),
        ("mcnn", {"units": 0}), ("fnn", {"layers": 0}), ("sccnn", {"linear_init": "both"}),
    ]  # fmt: skip
    for name, settings in wrong:
        with pytest.raises(ConfigError, match=next(iter(settings))):
            make(name, 5, 2, VIEW, settings)
    sizes: list[Any] = [(0, 64), (64,), (5, 64, 64)]
    for size in sizes:
        with pytest.raises(ConfigError, match="size"):
            make("gapnet", 5, 2, size)
    with pytest.raises(ConfigError, match="channels 0"):
        make("gapnet", 0, 2, (64, 64))


def test_gapnet_sees_as_far_as_published() -> None:
    field, jump, seen = 1, 1, []
    for block in make("gapnet", 5, 1, (64, 64), {"units": 1}).blocks:  # pyright: ignore
        for layer in block:
            if isinstance(layer, nn.Conv2d):
                field, jump = field + 2 * layer.dilation[0] * jump, jump * layer.stride[0]
            elif isinstance(layer, nn.MaxPool2d):
                field, jump = field + jump, jump * 2
        seen.append((field, jump))
    assert seen == [(5, 4), (53, 16), (165, 32), (677, 32)]


@pytest.mark.parametrize("name", ["gapnet", "sccnn"])
def test_selu_networks_begin_with_variance_one_over_fan_in(name: str) -> None:
    usual, released = (make(name, 5, 64, (64, 64), {"units": 256, "linear_init": i}) for i in ("fan_in", "fan_out"))
    for net, last in ((usual, 256), (released, 64)):
        assert net.head[-1].weight.std().item() * last**0.5 == pytest.approx(1, rel=0.03)  # pyright: ignore
        for key, weight in net.named_parameters():
            if weight.ndim == 4:
                assert weight.std().item() * weight[0].numel() ** 0.5 == pytest.approx(1, rel=0.06)
            elif weight.ndim == 1:
                assert not weight.any(), key


def test_scales_pooled_step_by_step_are_those_pooled_at_once() -> None:
    x = torch.randn(2, 3, 139, 190)
    net = make("mcnn", 3, 4, (139, 190), SMALL["mcnn"]).eval()
    parts = [
        functional.max_pool2d(scale(functional.max_pool2d(x, 2**n)), 2 ** (6 - n))
        for n, scale in enumerate(net.scales)  # pyright: ignore
    ]
    assert sum(p.shape[1] for p in parts) == 208
    assert torch.equal(net(x), net.head(net.combine(torch.cat(parts, 1))))  # pyright: ignore


def test_mcnn_is_built_for_one_grid_and_takes_fewer_scales_for_small_images() -> None:
    net = tiny("mcnn")
    with pytest.raises(ShapeError, match="built for images of 130 x 140 pixels, these have 130 x 256"):
        net(torch.randn(1, 3, 130, 256))
    with pytest.raises(ShapeError, match="with 7 scales needs images of at least 128"):
        make("mcnn", 3, 4, (96, 96))
    assert make("mcnn", 3, 4, (96, 96), {"scales": 5, "units": 4})(torch.randn(1, 3, 96, 96)).shape == (1, 4)


def test_baseline_takes_rows_of_features() -> None:
    net = make("fnn", 12, 3, (1, 1), {"units": 8}).eval()
    x = torch.randn(5, 12)
    assert torch.equal(net(x), net(x[:, :, None, None]))


def test_presets_are_the_papers_and_build() -> None:
    text = {
        "gapnet": (0.01, 0.9, 1e-4, 128), "milnet": (0.01, 0.9, 1e-4, 64), "mcnn": (0.001, 0.9, 5e-4, 100),
        "resnet101": (0.001, 0.9, 1e-4, 24), "densenet121": (0.01, 0.9, 1e-4, 12), "sccnn": (0.01, 0.2, 1e-4, 2048),
        "fnn": (0.05, 0.0, 0.0, 256),
    }  # fmt: skip
    given = {n: (p.learning_rate, p.momentum, p.weight_decay, p.batch) for n, p in PRESETS.items()}
    assert given == text
    assert vision_names()[: len(VISION)] == list(VISION)
    for preset in [*PRESETS.values(), *RELEASED.values()]:
        assert preset.network in VISION
        assert preset.source
        if preset.network in OURS:
            with torch.device("meta"):
                make(preset.network, preset.channels, 209, preset.size, preset.settings)
