"""MIL-Net: a map of every class, pooled by noisy-AND, so that a share of the cells decides (Kraus 2016)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from phenohit.models.contract import require
from phenohit.models.vision import check_images, check_size
from phenohit.models.vision_maps import Tapped, leaf, placed

__all__ = ["MilNet", "MilNetSettings", "noisy_and_logits"]

_MAPS = 1000  # before the class maps
_CLOSEST = 1e-6  # a mean of probabilities is kept this far from 0 and 1, where log odds end


@dataclass(frozen=True)
class MilNetSettings:
    """Settings of `MilNet`.

    Parameters
    ----------
    a : float
        Steepness of noisy-AND; 10 in Kraus 2016 and Hofmarcher 2019.
    threshold : float
        Share of active positions at which a class begins to count, before it is learned.
    dropout_maps, dropout_dense : float
        Shares left out while training: after each pooling, and of the 1,000 maps before the classes.
    pool_loss : {"probability", "released"}
        The pooled values are probabilities and enter their loss as such. `released` takes them for log odds, as
        the released code does by mistake.
    """

    a: float = 10.0
    threshold: float = 0.1
    dropout_maps: float = 0.2
    dropout_dense: float = 0.5
    pool_loss: Literal["probability", "released"] = "probability"

    def __post_init__(self) -> None:
        require(0 < self.a < float("inf"), "a", self.a, "above 0")
        require(0 <= self.threshold <= 1, "threshold", self.threshold, "from 0 to 1")
        for name in ("dropout_maps", "dropout_dense"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")


class MilNet(nn.Module):
    """Convolutions to one map per task, noisy-AND over each map, and a linear layer (Kraus 2016).

    Parameters
    ----------
    channels, tasks : int
    size : (int, int)
        Height and width in pixels; images of another size are taken as well.
    settings : MilNetSettings

    Notes
    -----
    No padding anywhere: 520 x 692 pixels end in maps of 13 x 18. 726,180 parameters with 5 channels and 209 tasks.
    """

    Settings: ClassVar[type] = MilNetSettings
    NAME: ClassVar[str] = "MIL-Net"
    SMALLEST: ClassVar[int] = 135  # pixels, of which the last pooling leaves one

    def __init__(self, channels: int, tasks: int, size: tuple[int, int], settings: MilNetSettings) -> None:
        super().__init__()
        check_size(size, self.SMALLEST, self.NAME)
        self.channels, self.a, self.pool_loss = channels, settings.a, settings.pool_loss
        layers: list[nn.Module] = [nn.AvgPool2d(3, 2), nn.Conv2d(channels, 32, 3), nn.ReLU(inplace=True)]
        for inputs, maps, kernel in ((32, 64, 3), (64, 64, 5), (64, 128, 3), (128, 128, 3)):
            layers += [nn.Conv2d(inputs, maps, kernel), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)]
            layers.append(nn.Dropout(settings.dropout_maps))
        self.n_features = _MAPS
        layers += [nn.Conv2d(128, _MAPS, 1), nn.ReLU(inplace=True), nn.Dropout(settings.dropout_dense)]
        layers.append(nn.Conv2d(_MAPS, tasks, 1))
        self.layers = nn.Sequential(*layers)
        self.thresholds = nn.Parameter(torch.full((tasks,), settings.threshold))
        self.head = nn.Linear(tasks, tasks)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> Tensor:
        """Return the means (B, 1000) of the maps before the class maps, of images (B, C, H, W).

        They know of no task, and tell more images apart than the T pooled values, which are nearly 0 or 1.
        """
        check_images(x, self.channels, self.SMALLEST, self.NAME)
        return self.layers[:-1](x).mean((2, 3))

    def maps(self, x: Tensor) -> Tensor:
        """Return the probability of every task at every position, float (B, T, h, w): where in an image it is seen."""
        check_images(x, self.channels, self.SMALLEST, self.NAME)
        return torch.sigmoid(self.layers(x))

    def pooled(self, x: Tensor) -> Tensor:
        """Return the log odds (B, T), float32, of the pooled maps of images (B, C, H, W)."""
        return self._pool(self.maps(x))

    def _pool(self, maps: Tensor) -> Tensor:
        share = maps.float().mean((2, 3))
        return noisy_and_logits(share, self.thresholds.float(), self.a)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, T) of images (B, C, H, W)."""
        return self.head(torch.sigmoid(self.pooled(x)))

    def tapped(self, x: Tensor) -> Tapped:
        """Return the class maps and the logits from them; see `phenohit.models.saliency`."""
        with torch.no_grad():
            maps = self.maps(x)
        maps = leaf(maps)
        return Tapped(self.head(torch.sigmoid(self._pool(maps))), (maps,), (placed(self.layers),))

    def training_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the linear layer and of the pooled maps, both (B, T); their losses are added."""
        pooled = self.pooled(x)
        share = torch.sigmoid(pooled)
        return self.head(share), share if self.pool_loss == "released" else pooled


def noisy_and_logits(share: Tensor, threshold: Tensor, a: float) -> Tensor:
    """Return the log odds of noisy-AND pooling.

    Parameters
    ----------
    share : float tensor (..., T)
        Mean m of each class map, from 0 to 1.
    threshold : float tensor (T,)
        Learned b.
    a : float
        Steepness.

    Returns
    -------
    logits : tensor like `share`
        log(P / (1 - P)) of P = [s(a(m - b)) - s(-ab)] / [s(a(1 - b)) - s(-ab)] with s the logistic function
        (Kraus 2016, equation of noisy-AND).

    Notes
    -----
    With s(x) - s(y) = sinh((x - y)/2) / (2 cosh(x/2) cosh(y/2)) the odds become
    sinh(am/2) cosh(a(1 - b)/2) / [sinh(a(1 - m)/2) cosh(ab/2)]: nothing cancels, wherever b is led by training.
    """
    m = share.clamp(_CLOSEST, 1 - _CLOSEST)
    half = a / 2
    sinh = _log_sinh(half * m) - _log_sinh(half * (1 - m))
    return sinh + _log_cosh(half * (1 - threshold)) - _log_cosh(half * threshold)


def _log_sinh(x: Tensor) -> Tensor:
    """Logarithm of sinh(x), x > 0."""
    return x + torch.log(-torch.expm1(-2 * x)) - math.log(2)


def _log_cosh(x: Tensor) -> Tensor:
    """Logarithm of cosh(x)."""
    return x + functional.softplus(-2 * x) - math.log(2)
