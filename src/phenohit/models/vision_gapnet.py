"""GapNet: averages over whole feature maps of four depths, so that images of any size fit (Hofmarcher 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from phenohit.models.contract import require
from phenohit.models.vision import check_images, check_size
from phenohit.models.vision_maps import Place, Tapped, leaf, placed

__all__ = ["GapNet", "GapNetSettings"]


@dataclass(frozen=True)
class GapNetSettings:
    """Settings of `GapNet` and of `phenohit.models.vision_sccnn.ScCnn`.

    Parameters
    ----------
    units : int
        Units of the two fully connected layers.
    dropout : float
        Share of their outputs left out while training, by alpha dropout; 0 in the published networks.
    linear_init : {"fan_in", "fan_out"}
        Variance of the first weights of linear layers is 1 over the inputs, as SELU asks for, or over the outputs,
        as the released code has it by mistake.
    """

    units: int = 1024
    dropout: float = 0.0
    linear_init: Literal["fan_in", "fan_out"] = "fan_in"

    def __post_init__(self) -> None:
        require(self.units >= 1, "units", self.units, "at least 1")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "from 0 to below 1")


class GapNet(nn.Module):
    """Four blocks of convolutions, the mean of each block's maps, and three linear layers (Hofmarcher 2019, Fig. 3).

    Parameters
    ----------
    channels, tasks : int
    size : (int, int)
        Height and width in pixels; images of another size are taken as well.
    settings : GapNetSettings

    Notes
    -----
    SELU throughout, no batch normalisation. The dilated convolutions of the last block see 677 pixels, about the
    width of a view. 3,694,545 parameters with 5 channels and 209 tasks, whatever the size.
    """

    Settings: ClassVar[type] = GapNetSettings
    NAME: ClassVar[str] = "GapNet"
    PAD: ClassVar[int] = 1  # of the second block's pooling
    DILATION: ClassVar[tuple[int, int, int]] = (2, 2, 4)  # of the last block's convolutions
    SMALLEST: ClassVar[int] = 11  # pixels, of which the third pooling leaves one

    def __init__(self, channels: int, tasks: int, size: tuple[int, int], settings: GapNetSettings) -> None:
        super().__init__()
        check_size(size, self.SMALLEST, self.NAME)
        self.channels = channels
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(*_convolutions(channels, 32, stride=2, dilations=(1,)), nn.MaxPool2d(2)),
                nn.Sequential(*_convolutions(32, 64, stride=2), nn.MaxPool2d(2, padding=self.PAD)),
                nn.Sequential(*_convolutions(64, 128), nn.MaxPool2d(2)),
                nn.Sequential(*_convolutions(128, 256, dilations=self.DILATION)),
            ]
        )
        self.n_features = 32 + 64 + 128 + 256
        units, rate = settings.units, settings.dropout
        self.head = nn.Sequential(
            nn.Linear(self.n_features, units),
            nn.SELU(inplace=True),
            nn.AlphaDropout(rate),
            nn.Linear(units, units),
            nn.SELU(inplace=True),
            nn.AlphaDropout(rate),
            nn.Linear(units, tasks),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                reverse = isinstance(module, nn.Linear) and settings.linear_init == "fan_out"
                fan = module.weight.shape[0] if reverse else module.weight[0].numel()
                nn.init.normal_(module.weight, 0.0, fan**-0.5)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled features (B, 480) of images (B, C, H, W): means of 32, 64, 128 and 256 maps."""
        return _means(self._maps(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, T) of images (B, C, H, W)."""
        return self.head(self.features(x))

    def tapped(self, x: Tensor) -> Tapped:
        """Return the maps of all four blocks and the logits of their means; see `phenohit.models.saliency`."""
        with torch.no_grad():
            maps = self._maps(x)
        # Cut between blocks: a block's maps act on the logits through their own mean, not through later blocks.
        maps = tuple(leaf(m) for m in maps)
        places: list[Place] = []
        for block in self.blocks:
            places.append(placed(block.children(), places[-1] if places else None))
        return Tapped(self.head(_means(maps)), maps, tuple(places))

    def _maps(self, x: Tensor) -> tuple[Tensor, ...]:
        check_images(x, self.channels, self.SMALLEST, self.NAME)
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return tuple(maps)


def _means(maps: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([m.mean((2, 3)) for m in maps], 1)


def _convolutions(
    inputs: int, maps: int, *, stride: int = 1, dilations: tuple[int, ...] = (1, 1, 1)
) -> list[nn.Module]:
    """3 x 3 convolutions that keep the size but for the first one's stride, each with SELU."""
    layers: list[nn.Module] = []
    for i, dilation in enumerate(dilations):
        convolution = nn.Conv2d(
            inputs if i == 0 else maps, maps, 3, stride if i == 0 else 1, padding=dilation, dilation=dilation
        )
        layers += [convolution, nn.SELU(inplace=True)]
    return layers
