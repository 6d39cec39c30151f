"""Where in an image a network saw the evidence for a task: Grad-CAM and its kin, for every network of `vision`."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from phenohit.errors import ConfigError, ShapeError, nearest
from phenohit.models.vision_maps import Place, Tapped

__all__ = ["Method", "evidence", "for_display"]

Method = Literal["gradcam", "hirescam", "gradient"]


def evidence(net: nn.Module, x: Tensor, task: int, *, method: Method = "gradcam") -> Tensor:
    """Return where in each image the evidence for a task is.

    Parameters
    ----------
    net : nn.Module
        A network of `phenohit.models.vision.make`. Weights, their gradients, and training or evaluation mode are left
        as they are; dropout is off and batch normalisation takes its stored values, whatever the mode.
    x : float tensor (B, C, H, W)
        Normalised images, as the network takes them.
    task : int
        Output of the network, from 0.
    method : {"gradcam", "hirescam", "gradient"}
        With y the logit of the task and A the last maps (B, K, h, w) of the network:

        gradcam: sum over k of (mean over ij of dy/dA_kij) A_kij (Selvaraju 2017, equations 1 and 2). hirescam: sum
        over k of dy/dA_kij A_kij (Draelos 2020), what each position adds to the logit in the first order. The two are
        one where maps are averaged before they are classified. M-CNN and class tokens weigh positions differently:
        the mean forgets this, and is the smoother for it. gradient: the largest |dy/dx| over channels, at every pixel
        (Simonyan 2013); slower, as it goes back through the whole network.

    Returns
    -------
    maps : float32 tensor (B, H, W)
        Positive part, interpolated linearly between the places at which the positions of the maps lie. At least 0 and
        not normalised: with gradcam and hirescam in units of the logit per position of the last maps, so that images
        can be compared. See `for_display`.

    Raises
    ------
    ConfigError
        If the network has no such task or no maps, or the method is not known.
    ShapeError
        If the images do not fit the network.

    Notes
    -----
    The maps: GapNet and SC-CNN all four blocks, as their means are all classified (the last block alone sees 677
    pixels); each weighs by its own mean only, as all it does through later blocks is in theirs. MIL-Net its class
    maps, evidence by construction (Kraus 2016), weighed as its last layer mixes them: those of one task by themselves
    are ``net.maps(x)[:, task]``. M-CNN the combined scales before their pooling. Backbones their last maps or patch
    tokens; where only the class token is classified, the patch tokens before the last block, which it reads there.

    Bright on a map says what the network used, not why, and a coarse map (32 pixels and more) shows no single cell.
    """
    if method not in get_args(Method):
        raise ConfigError(f"evidence has no method '{method}'. {nearest(method, get_args(Method))}")
    if method != "gradient" and not hasattr(net, "tapped"):
        raise ConfigError(
            f"{type(net).__name__} shows no maps that evidence could be read from: it has no 'tapped'. "
            "Use a network that sees images, or method 'gradient'."
        )
    # A caller may have switched graphs off, as predictions do; here one is needed.
    with torch.inference_mode(False), torch.enable_grad(), _evaluating(net):
        if method == "gradient":
            return _input_gradient(net, x, task)
        tapped: Tapped = net.tapped(x)  # pyright: ignore[reportCallIssue]
        gradients = torch.autograd.grad(_logit(tapped.logits, task), tapped.maps)
    return _on_image(tapped, gradients, (int(x.shape[2]), int(x.shape[3])), method).clamp_min(0)


def for_display(maps: Tensor, *, together: bool = False) -> Tensor:
    """Scale maps of evidence to 0 to 1.

    Parameters
    ----------
    maps : float tensor (B, H, W)
        Of `evidence`.
    together : bool
        One scale for all images, so that they can be compared; otherwise each by its own brightest pixel.

    Returns
    -------
    float32 tensor (B, H, W)
        A map without evidence stays 0.

    Raises
    ------
    ShapeError
    """
    if maps.ndim != 3:
        raise ShapeError(f"Expected maps of evidence (B, H, W), not {tuple(maps.shape)}.")
    if not maps.numel():
        return maps.float()
    top = maps.float().amax() if together else maps.float().amax((1, 2), keepdim=True)
    return torch.where(top > 0, maps.float() / top, 0.0)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and every part of it back into its own mode afterwards."""
    before = {module: module.training for module in net.modules()}
    try:
        net.eval()
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _logit(logits: Tensor, task: int) -> Tensor:
    """Sum of the task's logits over images, which do not see each other: its gradient holds that of each."""
    tasks = logits.shape[1]
    if isinstance(task, bool) or not 0 <= operator.index(task) < tasks:
        raise ConfigError(f"the network has no task {task}: expected 0 to {tasks - 1}, its outputs.")
    return logits[:, task].sum()


def _input_gradient(net: nn.Module, x: Tensor, task: int) -> Tensor:
    start = x.detach().clone().requires_grad_(x.is_floating_point())  # other images are refused by the network
    (gradient,) = torch.autograd.grad(_logit(net(start), task), start)
    return gradient.float().abs().amax(1)


def _on_image(tapped: Tapped, gradients: tuple[Tensor, ...], size: tuple[int, int], method: Method) -> Tensor:
    """Signed evidence (B, H, W) of all maps together, per position of the last one."""
    total = torch.zeros(len(tapped.logits), *size, device=tapped.logits.device)
    positions = tapped.maps[-1].shape[2:].numel()
    for maps, gradient, place in zip(tapped.maps, gradients, tapped.places, strict=True):
        values, weights = maps.detach().float(), gradient.float()
        if method == "gradcam":
            weights = weights.mean((2, 3), keepdim=True)
        # A finer map has more positions over the same pixels, each with less: as density they can be added.
        signed = (weights * values).sum(1) * (maps.shape[2:].numel() / positions)
        rows, columns = (_between(signed.shape[i + 1], size[i], place).to(signed) for i in (0, 1))
        total += rows @ signed @ columns.T
    return total


def _between(positions: int, pixels: int, place: Place | None) -> Tensor:
    """Weights (pixels, positions) of linear interpolation; outside the outermost positions, theirs."""
    step = pixels / positions
    first, step = place or Place((step - 1) / 2, step)
    at = ((torch.arange(pixels, dtype=torch.float64) - first) / step).clamp(0, positions - 1)
    return (1 - (at[:, None] - torch.arange(positions)).abs()).clamp_min(0)
