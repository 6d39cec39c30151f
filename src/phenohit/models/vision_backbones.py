"""Backbones from timm with any number of channels: ResNet-101 and DenseNet-121 of Hofmarcher 2019, and all others.

Weights are never fetched unless `pretrained` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from phenohit.errors import ConfigError, FileError, ShapeError, nearest, some
from phenohit.models.contract import require
from phenohit.models.vision import check_images, check_size
from phenohit.models.vision_maps import Tapped, leaf

__all__ = ["Backbone", "BackboneSettings", "DenseNet121", "PublishedSettings", "ResNet101"]


@dataclass(frozen=True)
class PublishedSettings:
    """Settings of `ResNet101` and `DenseNet121`.

    Parameters
    ----------
    dropout : float
        Share of the pooled features left out while training; 0 in Hofmarcher 2019.
    pretrained : str
        Empty: random weights, as in Hofmarcher 2019. A path: weights from that safetensors file. ``hub``: the
        weights timm names, fetched over the network.
    """

    dropout: float = 0.0
    pretrained: str = ""

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, "dropout", self.dropout, "from 0 to below 1")


@dataclass(frozen=True)
class BackboneSettings(PublishedSettings):
    """Settings of `Backbone`: those of `PublishedSettings`, and which backbone.

    Parameters
    ----------
    backbone : str
        Its name in timm, e.g. ``convnext_base``, ``vit_small_r26_s32_384``.
    """

    backbone: str = "resnet50"


class Backbone(nn.Module):
    """A backbone of timm.

    Parameters
    ----------
    channels, tasks : int
    size : (int, int)
        Height and width in pixels. Transformers are built for it and take no other.
    settings : PublishedSettings

    Raises
    ------
    ConfigError
        If timm is not installed or has no such backbone.
    FileError
        If the file of weights is absent or of another network.
    ShapeError
        If the images are too small for it.

    Notes
    -----
    First kernels of weights trained with another number of channels are repeated over ours and scaled so that their
    sum stays. Weights of the last layer are taken only where they fit the number of tasks.
    """

    Settings: ClassVar[type] = BackboneSettings
    FIXED: ClassVar[dict[str, Any]] = {}  # options of timm that a published network fixes
    SMALLEST: ClassVar[int] = 1  # pixels; what other backbones need, only they know

    def __init__(self, channels: int, tasks: int, size: tuple[int, int], settings: PublishedSettings) -> None:
        super().__init__()
        self.channels = channels
        self.name = self._backbone(settings)
        check_size(size, self.SMALLEST, self.name)
        self.size = size if _one_size(self.name) else None
        options = {"in_chans": channels, "num_classes": tasks, "drop_rate": settings.dropout, **self.FIXED}
        if self.size is not None:
            options["img_size"] = size
        import timm

        hub = settings.pretrained == "hub"
        try:
            self.net = timm.create_model(self.name, pretrained=hub, **options)
        except (AssertionError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"timm cannot build '{self.name}' for {channels} channels of {size[0]} x {size[1]} pixels"
                f"{' with weights from the hub' if hub else ''}: {error}. Try another size or backbone"
                f"{', or weights from a file' if hub else ''}."
            ) from error
        if 0 in (getattr(getattr(self.net, "patch_embed", None), "grid_size", None) or ()):
            raise ShapeError(
                f"no patch of {self.name} fits into images of {size[0]} x {size[1]} pixels: use larger ones."
            )
        if settings.pretrained not in ("", "hub"):
            _load(self.net, Path(settings.pretrained), self.name)

    def _backbone(self, settings: Any) -> str:
        return settings.backbone

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, T) of images (B, C, H, W).

        Raises
        ------
        ShapeError
            If the images have other channels, or a size a transformer was not built for.
        """
        self._check(x)
        return self.net(x)

    @property
    def n_features(self) -> int:
        """Features of an image, that is inputs of the last layer."""
        return int(getattr(self.net, "head_hidden_size", None) or self.net.num_features)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled features (B, n_features), which the last layer classifies, of images (B, C, H, W).

        Raises
        ------
        ShapeError
            As `forward`.
        """
        self._check(x)
        return self.net.forward_head(self.net.forward_features(x), pre_logits=True).flatten(1)

    def tapped(self, x: Tensor) -> Tapped:
        """Return the last maps or patch tokens and the logits from them; see `phenohit.models.saliency`.

        Raises
        ------
        ConfigError
            If the backbone's last layers are of a kind this cannot read.
        ShapeError
            As `forward`.
        """
        self._check(x)
        if getattr(self.net, "global_pool", None) == "token":
            return self._before_class_token(x)
        with torch.no_grad():
            found = self.net.forward_features(x)
        maps, again = self._as_maps(found)
        return Tapped(self.net.forward_head(again), (maps,), (None,))

    def _before_class_token(self, x: Tensor) -> Tapped:
        """Patch tokens as the last block gets them: after it, the class token alone goes on to the logits."""
        maps: list[Tensor] = []

        def tap(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            torch.set_grad_enabled(True)  # from here on, until `no_grad` below ends
            kept, again = self._as_maps(given[0])
            maps.append(kept)
            return again, *given[1:]

        blocks: Any = getattr(self.net, "blocks", None)
        if not blocks:
            raise self._no_maps("its class token is classified, but it has no blocks")
        handle = blocks[-1].register_forward_pre_hook(tap)
        try:
            with torch.no_grad():
                logits = self.net(x)
        finally:
            handle.remove()
        return Tapped(logits, (maps[0],), (None,))

    def _as_maps(self, found: Any) -> tuple[Tensor, Tensor]:
        """Return a leaf (B, K, h, w) and, made from it, what was given: maps, maps with channels last, or tokens."""
        if isinstance(found, Tensor) and found.ndim == 4:
            if getattr(self.net, "output_fmt", "NCHW") == "NHWC":
                maps = leaf(found.permute(0, 3, 1, 2))
                return maps, maps.permute(0, 2, 3, 1)
            maps = leaf(found)
            return maps, maps
        grid = getattr(getattr(self.net, "patch_embed", None), "grid_size", None)
        if not isinstance(found, Tensor) or found.ndim != 3 or grid is None or found.shape[1] < grid[0] * grid[1]:
            raise self._no_maps(f"its last layers pass on {_kind(found)}")
        first = found.shape[1] - grid[0] * grid[1]  # class and register tokens stand before the patches
        maps = leaf(found[:, first:].transpose(1, 2).unflatten(2, tuple(grid)))
        return maps, torch.cat([found[:, :first].detach(), maps.flatten(2).transpose(1, 2)], 1)

    def _no_maps(self, why: str) -> ConfigError:
        return ConfigError(
            f"where {self.name} sees its evidence cannot be read from maps: {why}. Use another backbone, or method "
            "'gradient'."
        )

    def _check(self, x: Tensor) -> None:
        check_images(x, self.channels, self.SMALLEST, self.name)
        if self.size is not None and tuple(x.shape[2:]) != self.size:
            raise ShapeError(
                f"{self.name} was built for images of {self.size[0]} x {self.size[1]} pixels, these have "
                f"{x.shape[2]} x {x.shape[3]}. Crop or resize them, or build the network for their size."
            )


class ResNet101(Backbone):
    """ResNet-101 as in Hofmarcher 2019: 42,934,673 parameters with 5 channels and 209 tasks.

    Notes
    -----
    First weights: normal by the outputs of each convolution (He 2015); batch normalisation begins as identity in every
    block, where timm by itself silences the residual branches at first.
    """

    Settings: ClassVar[type] = PublishedSettings
    FIXED: ClassVar[dict[str, Any]] = {"zero_init_last": False}

    def _backbone(self, settings: Any) -> str:
        return "resnet101"


class DenseNet121(Backbone):
    """DenseNet-121 as in Hofmarcher 2019: 7,174,353 parameters with 5 channels and 209 tasks."""

    Settings: ClassVar[type] = PublishedSettings
    SMALLEST: ClassVar[int] = 29  # of which the last pooling leaves one

    def _backbone(self, settings: Any) -> str:
        return "densenet121"


def _kind(found: Any) -> str:
    return f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"


def _one_size(name: str) -> bool:
    """Whether a backbone of timm is built for one size of image; refuses one that timm does not have."""
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            "Backbones come from timm, which is not installed: pip install 'phenohit[vision]'."
        ) from error
    if not timm.is_model(name):
        raise ConfigError(f"timm has no backbone '{name}'. {nearest(name, timm.list_models())}")
    config = timm.models.get_pretrained_cfg(name)
    return bool(config is not None and config.fixed_input_size)


def _load(net: nn.Module, path: Path, name: str) -> None:
    """Take weights from a safetensors file, adapted to the network's channels and tasks."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors" or not path.is_file():
        raise FileError(
            f"setting 'pretrained' is '{path}', but must be empty, hub, or a .safetensors file that is there."
        )
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise FileError(f"'{path}' is not a safetensors file: {error}") from error
    wanted = net.state_dict()
    config: Any = getattr(net, "pretrained_cfg", None) or {}
    first = f"{config.get('first_conv')}.weight"
    last = [n for n in wanted if n.startswith(f"{config.get('classifier')}.")]
    if any(n in found and found[n].shape != wanted[n].shape for n in last) or not set(last) <= set(found):
        found.update({n: wanted[n] for n in last})  # other tasks: the last layer begins anew
    if first in found and first in wanted and found[first].ndim == 4:
        found[first] = _channels(found[first], wanted[first].shape[1])
    differ = sorted(set(found) ^ set(wanted))
    differ += [n for n in wanted if n in found and found[n].shape != wanted[n].shape]
    if differ:
        raise FileError(
            f"'{path}' holds weights of another network or image size than {name}: {len(differ)} of {len(wanted)} "
            f"tensors do not fit ({some(differ, 3)}). Give the weights of this backbone."
        )
    net.load_state_dict(found)


@torch.no_grad()
def _channels(kernel: Tensor, channels: int) -> Tensor:
    """Repeat first kernels (maps, C, h, w) over `channels` channels; a constant image gives what it gave."""
    had = kernel.shape[1]
    if had == channels:
        return kernel
    return kernel.repeat(1, -(-channels // had), 1, 1)[:, :channels] * (had / channels)
