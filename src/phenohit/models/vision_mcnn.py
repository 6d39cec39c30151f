"""M-CNN: one image at seven scales side by side (Godinez 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from phenohit.errors import ShapeError
from phenohit.models.contract import require
from phenohit.models.vision import check_images, check_size
from phenohit.models.vision_maps import Place, Tapped, leaf

__all__ = ["MCnn", "MCnnSettings"]

_MAPS = (16, 16, 16, 32, 32, 32, 64)  # of the scales 1, 1/2, ... 1/64


@dataclass(frozen=True)
class MCnnSettings:
    """Settings of `MCnn`.

    Parameters
    ----------
    scales : int
        1 to 7; 7 in Godinez 2017 and Hofmarcher 2019, which needs images of 128 pixels. Every scale less halves that.
    combined : int
        Maps after the scales are put together.
    units : int
        Units of the fully connected layer.
    """

    scales: int = 7
    combined: int = 1024
    units: int = 512

    def __post_init__(self) -> None:
        require(1 <= self.scales <= len(_MAPS), "scales", self.scales, f"from 1 to {len(_MAPS)}")
        for name in ("combined", "units"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")


class MCnn(nn.Module):
    """Three convolutions at every scale, brought to one size, combined, and two linear layers (Godinez 2017).

    Parameters
    ----------
    channels, tasks : int
    size : (int, int)
        Height and width in pixels. The linear layer sees positions, so that its weights depend on it: other images
        must come out on the same grid (520 x 692 and 520 x 696 do).
    settings : MCnnSettings

    Notes
    -----
    ReLU, no dropout. 11,230,929 parameters with 5 channels, 209 tasks and 520 x 692 pixels.
    """

    Settings: ClassVar[type] = MCnnSettings
    NAME: ClassVar[str] = "M-CNN"

    def __init__(self, channels: int, tasks: int, size: tuple[int, int], settings: MCnnSettings) -> None:
        super().__init__()
        maps = _MAPS[: settings.scales]
        self.channels, self.built, self.n_features = channels, size, settings.units
        self.pooling = 2 ** (settings.scales - 1)  # of every scale in all
        self.smallest = 2 * self.pooling
        check_size(size, self.smallest, f"{self.NAME} with {settings.scales} scales")
        self.grid = self._grid(size)
        self.scales = nn.ModuleList(nn.Sequential(*_convolutions(channels, n)) for n in maps)
        self.combine = nn.Sequential(nn.Conv2d(sum(maps), settings.combined, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(settings.combined * self.grid[0] * self.grid[1], settings.units),
            nn.ReLU(inplace=True),
            nn.Linear(settings.units, tasks),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] // self.smallest, size[1] // self.smallest

    def features(self, x: Tensor) -> Tensor:
        """Return the units (B, 512) after their ReLU, which the last layer classifies, of images (B, C, H, W).

        Raises
        ------
        ShapeError
            As `forward`.
        """
        return self.head[:-1](self.combine(self._scales(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, T) of images (B, C, H, W).

        Raises
        ------
        ShapeError
            If the images have other channels, or a size that ends in another grid.
        """
        return self.head[-1](self.features(x))

    def tapped(self, x: Tensor) -> Tapped:
        """Return the combined maps before pooling and the logits from them; see `phenohit.models.saliency`."""
        with torch.no_grad():
            maps = self.combine[:-1](self._scales(x))
        maps = leaf(maps)
        place = Place((self.pooling - 1) / 2, self.pooling)
        return Tapped(self.head(self.combine[-1](maps)), (maps,), (place,))

    def _scales(self, x: Tensor) -> Tensor:
        """All scales at the size of the smallest, side by side."""
        check_images(x, self.channels, self.smallest, self.NAME)
        size = (int(x.shape[2]), int(x.shape[3]))
        if self._grid(size) != self.grid:
            raise ShapeError(
                f"{self.NAME} was built for images of {self.built[0]} x {self.built[1]} pixels, these have "
                f"{size[0]} x {size[1]}. Crop or resize them, or build the network for their size."
            )
        scales, left = [], self.pooling
        for convolutions in self.scales:
            y = convolutions(x)
            scales.append(functional.max_pool2d(y, left) if left > 1 else y)
            if left > 1:  # pooling by 2 again and again is pooling by 4, 8, ...: the windows are the same
                x = functional.max_pool2d(x, 2)
            left //= 2
        return torch.cat(scales, 1)


def _convolutions(channels: int, maps: int) -> list[nn.Module]:
    """Three 5 x 5 convolutions that keep the size, each with ReLU."""
    layers: list[nn.Module] = []
    for inputs in (channels, maps, maps):
        layers += [nn.Conv2d(inputs, maps, 5, padding=2), nn.ReLU(inplace=True)]
    return layers
