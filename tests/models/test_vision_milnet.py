"""Noisy-AND pooling against its formula, and the two losses it is trained with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phenohit.models.vision import make
from phenohit.models.vision_milnet import noisy_and_logits


def formula(m: torch.Tensor, b: torch.Tensor, a: float) -> torch.Tensor:
    s = torch.sigmoid
    return (s(a * (m - b)) - s(-a * b)) / (s(a * (1 - b)) - s(-a * b))


@settings(max_examples=50)
@given(st.floats(0.001, 0.999), st.floats(-0.2, 1.2), st.floats(0.5, 20))
def test_noisy_and_is_its_formula(m: float, b: float, a: float) -> None:
    share, threshold = (torch.tensor([v], dtype=torch.float64) for v in (m, b))
    torch.testing.assert_close(
        torch.sigmoid(noisy_and_logits(share, threshold, a)), formula(share, threshold, a), rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("b", [-50.0, -3.0, 0.0, 0.1, 1.0, 4.0, 50.0])
def test_noisy_and_rises_from_0_to_1_wherever_its_threshold_went(b: float) -> None:
    share = torch.linspace(0, 1, 101, requires_grad=True)
    threshold = torch.full((1,), b, requires_grad=True)
    logits = noisy_and_logits(share[:, None], threshold, 10.0)
    assert logits.isfinite().all()
    assert (logits.diff(dim=0) > 0).all()
    assert torch.sigmoid(logits[0]) < 0.05 or b < 0
    assert torch.sigmoid(logits[-1]) > 0.95 or b > 1
    logits.sum().backward()
    for tensor in (share, threshold):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_pooled_values_are_noisy_and_of_the_maps_and_feed_the_last_layer() -> None:
    net = make("milnet", 2, 3, (150, 170)).eval()
    x = torch.randn(2, 2, 150, 170)
    maps = net.maps(x)  # pyright: ignore
    assert maps.shape[:2] == (2, 3)
    assert ((maps > 0) & (maps < 1)).all()
    assert torch.equal(net.thresholds, torch.full((3,), 0.1))
    pooled = formula(maps.mean((2, 3)), torch.full((3,), 0.1), 10.0)
    torch.testing.assert_close(torch.sigmoid(net.pooled(x)), pooled, rtol=1e-4, atol=1e-6)  # pyright: ignore
    torch.testing.assert_close(net(x), net.head(pooled), rtol=1e-4, atol=1e-5)  # pyright: ignore


def test_maps_of_a_view_are_13_by_18() -> None:
    with torch.device("meta"):
        assert make("milnet", 5, 209, (520, 692)).maps(torch.empty(1, 5, 520, 692)).shape == (1, 209, 13, 18)  # pyright: ignore


def test_released_loss_takes_probabilities_for_log_odds() -> None:
    x = torch.randn(2, 2, 140, 140)
    usual, released = (make("milnet", 2, 3, (140, 140), {"pool_loss": p}).eval() for p in ("probability", "released"))
    one, other = usual.training_logits(x), released.training_logits(x)  # pyright: ignore
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[0], usual(x))
    assert torch.equal(torch.sigmoid(one[1]), other[1])
