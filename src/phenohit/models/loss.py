"""Losses over the measured entries of a sparse label matrix."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["masked_cross_entropy"]


def masked_cross_entropy(logits: Tensor, entry: Tensor, y: Tensor, *, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of the measured entries of a batch.

    Parameters
    ----------
    logits : float tensor, shape (B, T)
        Log odds of being active.
    entry : int64 tensor, shape (E,)
        Position ``row * T + task`` of every measured entry. What is not listed has no influence,
        on the loss or on any gradient.
    y : float32 tensor, shape (E,)
        1 active, 0 inactive.
    reduction : {'mean', 'sum'}
        mean divides by E: one mean over all measured entries of the batch, not a mean of task
        means. Without entries, both are 0.

    Returns
    -------
    loss : float32 tensor, no axes

    Notes
    -----
    Simm 2018, Online Methods, "Objective Function", computed from log odds so that it cannot
    overflow. That text calls the mask zero where a measurement is present; its formula needs the
    opposite, which is used here.
    """
    # Entries are unique, so that the gradient's scatter adds once per place: the same in any order.
    picked = logits.float().reshape(-1).index_select(0, entry)
    total = functional.binary_cross_entropy_with_logits(picked, y, reduction="sum")
    return total / max(len(y), 1) if reduction == "mean" else total
