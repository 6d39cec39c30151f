"""The masked cross-entropy and its gradient against plain formulas."""

from __future__ import annotations

import numpy as np
import torch

from phenohit.models.loss import masked_cross_entropy


def problem(seed: int = 0) -> tuple[torch.Tensor, np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.standard_normal((6, 4)) * 3, dtype=torch.float32, requires_grad=True)
    measured = rng.random((6, 4)) < 0.4
    Y = (rng.random((6, 4)) < 0.5).astype(np.float32)
    entry = torch.from_numpy(np.flatnonzero(measured))
    return logits, measured, Y, entry, torch.from_numpy(Y[measured])


def test_it_is_the_mean_over_measured_entries() -> None:
    logits, measured, Y, entry, y = problem()
    p = 1 / (1 + np.exp(-logits.detach().numpy().astype(np.float64)))
    each = -(Y * np.log(p) + (1 - Y) * np.log(1 - p))
    np.testing.assert_allclose(masked_cross_entropy(logits, entry, y).item(), each[measured].mean(), rtol=1e-6)
    total = masked_cross_entropy(logits, entry, y, reduction="sum").item()
    np.testing.assert_allclose(total, each[measured].sum(), rtol=1e-6)


def test_gradient_is_residual_where_measured_and_zero_elsewhere() -> None:
    logits, measured, Y, entry, y = problem(1)
    masked_cross_entropy(logits, entry, y).backward()
    expected = np.where(measured, 1 / (1 + np.exp(-logits.detach().numpy())) - Y, 0) / measured.sum()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=1e-7)
    assert (logits.grad.numpy()[~measured] == 0).all()


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4]])
    loss = masked_cross_entropy(logits, torch.tensor([0, 1]), torch.tensor([0.0, 1.0]))
    assert loss.item() == 1e4


def test_nothing_measured_is_no_loss() -> None:
    logits = torch.zeros((3, 2), requires_grad=True)
    loss = masked_cross_entropy(logits, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()
