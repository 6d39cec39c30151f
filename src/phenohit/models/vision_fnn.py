"""The baseline of the image networks: fully connected layers on measured features (Simm 2018, Hofmarcher 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from phenohit.errors import ShapeError
from phenohit.models.contract import require

__all__ = ["Fnn", "FnnSettings"]


@dataclass(frozen=True)
class FnnSettings:
    """Settings of `Fnn`.

    Parameters
    ----------
    layers, units : int
        Hidden layers, and units of each.
    dropout_input, dropout_hidden : float
        Shares of features and of hidden units left out while training; constant in Hofmarcher 2019.
    """

    layers: int = 3
    units: int = 2048
    dropout_input: float = 0.1
    dropout_hidden: float = 0.5

    def __post_init__(self) -> None:
        for name in ("layers", "units"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("dropout_input", "dropout_hidden"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")


class Fnn(nn.Module):
    """Linear layers with ReLU and dropout between them, built as Hofmarcher 2019 did.

    Parameters
    ----------
    channels, tasks : int
    size : (int, int)
        There are channels x height x width features: 1,783 channels of (1, 1) in the paper.
    settings : FnnSettings

    Notes
    -----
    12,474,577 parameters with 1,783 features and 209 tasks. `phenohit.models.network.Network` is the model to use on
    features; this is the same net with the first weights of the released code (Xavier), trained as image networks are.
    """

    Settings: ClassVar[type] = FnnSettings
    NAME: ClassVar[str] = "FNN"

    def __init__(self, channels: int, tasks: int, size: tuple[int, int], settings: FnnSettings) -> None:
        super().__init__()
        self.inputs, self.n_features = channels * size[0] * size[1], settings.units
        layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(settings.dropout_input)]
        inputs = self.inputs
        for _ in range(settings.layers):
            layers += [nn.Linear(inputs, settings.units), nn.ReLU(inplace=True), nn.Dropout(settings.dropout_hidden)]
            inputs = settings.units
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, tasks))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> Tensor:
        """Return the last hidden units (B, units) of measured features, float (B, F) or (B, C, H, W).

        Raises
        ------
        ShapeError
            As `forward`.
        """
        self._check(x)
        return self.layers[:-1](x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, T) of features, float (B, F) or (B, C, H, W).

        Raises
        ------
        ShapeError
            If the number of features is another one.
        """
        return self.layers[-1](self.features(x))

    def _check(self, x: Tensor) -> None:
        if x.ndim < 2 or x.shape[1:].numel() != self.inputs or not x.is_floating_point():
            raise ShapeError(
                f"{self.NAME} was built for {self.inputs} float features per row, but got {x.dtype} of shape "
                f"{tuple(x.shape)}. Give it the features it was built for."
            )
