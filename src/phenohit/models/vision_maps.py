"""What a network shows of its way from maps to logits, for `phenohit.models.saliency`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["Place", "Tapped", "leaf", "placed"]


class Place(NamedTuple):
    """Where the positions of a map lie in the image: centres at ``first + step * i``, in pixels from the first one's.

    Attributes
    ----------
    first, step : float
    """

    first: float = 0.0
    step: float = 1.0


class Tapped(NamedTuple):
    """Maps of a batch, and the logits that were worked out from them.

    Attributes
    ----------
    logits : float tensor (B, T)
        With a graph that ends at `maps`.
    maps : tuple of float tensors (B, K, h, w)
        Leaves. The logits depend on the image through them alone, and on none through another.
    places : tuple of Place or None
        Of each map; None: its positions are spread evenly over the image.
    """

    logits: Tensor
    maps: tuple[Tensor, ...]
    places: tuple[Place | None, ...]


def leaf(x: Tensor) -> Tensor:
    """Return a tensor of the same values at which a graph begins."""
    return x.detach().requires_grad_()


def placed(layers: Iterable[nn.Module], before: Place | None = None) -> Place:
    """Return where the positions lie after convolutions and poolings, from kernel, stride, padding and dilation.

    Parameters
    ----------
    layers : iterable of nn.Module
        One after the other, square; those without a kernel change nothing.
    before : Place, optional
        Of their input; by default the image itself.
    """
    first, step = before or Place()
    for layer in layers:
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
            reach = (_side(layer.kernel_size) - 1) * _side(getattr(layer, "dilation", 1)) / 2
            first += (reach - _side(layer.padding)) * step
            step *= _side(layer.stride)
    return Place(first, step)


def _side(value: object) -> int:
    """Height of what torch keeps as one number or two."""
    side = value[0] if isinstance(value, tuple) else value
    assert isinstance(side, int)
    return side
