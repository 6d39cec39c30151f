"""Networks that see images: one table, one way to make them, and the papers' training settings as data.

Each network is one file and takes views (B, C, H, W) that are normalised already; it answers with
the log odds (B, T) of being active. What a network is trained with is in `PRESETS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from phenohit.errors import ConfigError, ShapeError
from phenohit.models.contract import read_settings
from phenohit.models.fit import generator
from phenohit.registry import names, resolve

__all__ = ["PRESETS", "RELEASED", "VISION", "Preset", "check_images", "check_size", "make", "vision_names"]

VISION = {
    "gapnet": "phenohit.models.vision_gapnet:GapNet",  # four pooled blocks, SELU (Hofmarcher 2019)
    "milnet": "phenohit.models.vision_milnet:MilNet",  # class maps pooled by noisy-AND (Kraus 2016)
    "mcnn": "phenohit.models.vision_mcnn:MCnn",  # seven scales side by side (Godinez 2017)
    "sccnn": "phenohit.models.vision_sccnn:ScCnn",  # GapNet without dilation, for crops of single cells
    "resnet101": "phenohit.models.vision_backbones:ResNet101",  # He 2016, any number of channels
    "densenet121": "phenohit.models.vision_backbones:DenseNet121",  # Huang 2017, any number of channels
    "timm": "phenohit.models.vision_backbones:Backbone",  # any backbone of timm by its name
    "fnn": "phenohit.models.vision_fnn:Fnn",  # baseline on measured features (Simm 2018)
}
_GROUP = "phenohit.networks"  # entry points of outside packages


def vision_names() -> list[str]:
    """Return the names of all networks, plugins included."""
    return names(VISION, _GROUP)


def make(
    name: str,
    channels: int,
    tasks: int,
    size: tuple[int, int],
    settings: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> nn.Module:
    """Build a network with its first weights.

    Parameters
    ----------
    name : str
        One of `vision_names`.
    channels : int
        Channels C of the images; for `fnn` the number of features, with `size` (1, 1).
    tasks : int
        Outputs T.
    size : (int, int)
        Height and width of the images in pixels. M-CNN and transformers are built for one size; the others
        also take images of another one later.
    settings : mapping, optional
        See the network's own `Settings`.
    seed : int
        Decides the first weights. Torch's global generators are left as they were.

    Returns
    -------
    net : nn.Module
        Takes a float tensor (B, C, H, W), gives logits (B, T). A network with more than one loss (`milnet`) also
        has ``training_logits(x)``, a tuple of logits (B, T) whose cross-entropies are added. All have ``features(x)``,
        the embedding (B, ``n_features``) before the last layers, to be taken in evaluation mode; where in an image
        the evidence for a task is: `phenohit.models.saliency`.

    Raises
    ------
    ConfigError
        For an unknown network or setting, or an impossible value.
    ShapeError
        If the images are too small for the network.

    Notes
    -----
    Dropout draws from torch's global generator while training: who trains seeds it.
    """
    network = resolve(name, VISION, _GROUP)
    if channels < 1 or tasks < 1 or len(size) != 2 or min(size) < 1:
        raise ConfigError(
            f"network '{name}' was asked for with channels {channels}, tasks {tasks} and size {tuple(size)}, but must "
            "have at least one channel and task, and a size (height, width) in pixels."
        )
    given = read_settings(network.Settings, settings or {}, name)
    with torch.random.fork_rng(devices=[]):
        # The processor's generator alone: torch.manual_seed would also reset those of the devices.
        torch.default_generator.manual_seed(generator("cpu", seed).initial_seed())
        return network(channels, tasks, (int(size[0]), int(size[1])), given)


def check_size(size: tuple[int, int], smallest: int, network: str) -> None:
    """Refuse images of which a network would leave nothing.

    Raises
    ------
    ShapeError
    """
    if min(size) < smallest:
        raise ShapeError(
            f"{network} needs images of at least {smallest} x {smallest} pixels, these have {size[0]} x {size[1]}. "
            "Use larger crops or whole views, or another network."
        )


def check_images(x: Tensor, channels: int, smallest: int, network: str) -> None:
    """Refuse a batch that is not floats of shape (B, channels, H, W), or too small.

    Raises
    ------
    ShapeError
    """
    if x.ndim != 4 or x.shape[1] != channels or not x.is_floating_point():
        raise ShapeError(
            f"{network} was built for floats of shape (B, {channels}, H, W), but got {x.dtype} of shape "
            f"{tuple(x.shape)}. Normalise the images, and build the network for their channels."
        )
    check_size((int(x.shape[2]), int(x.shape[3])), smallest, network)


@dataclass(frozen=True)
class Preset:
    """What a published network was trained with. Data only: nothing here trains.

    Attributes
    ----------
    network : str
        Name in `VISION`.
    learning_rate, momentum, weight_decay : float
        Of stochastic gradient descent. The rate is constant: the released configurations switch their schedule off.
    batch, epochs : int
    clip : float | None
        Longest gradient, L2 norm over all parameters; None: any.
    channels : int
    size : (int, int)
        Height and width in pixels.
    subset : float
        Share of the training images drawn anew each epoch.
    settings : dict
        Settings of the network.
    source : str
        Where the values are from.
    """

    network: str
    learning_rate: float
    batch: int
    momentum: float = 0.9
    weight_decay: float = 1e-4
    epochs: int = 100
    clip: float | None = 5.0
    channels: int = 5
    size: tuple[int, int] = (520, 692)
    subset: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)
    source: str = "Hofmarcher 2019, Methods; epochs and clip: released configurations (hti-cnn)"


# Hofmarcher 2019: rate, momentum, decay and batch are in the text, epochs and clipping only in the configurations.
PRESETS: dict[str, Preset] = {
    "gapnet": Preset("gapnet", 1e-2, 128, settings={"units": 1024, "dropout": 0.0}),
    "milnet": Preset("milnet", 1e-2, 64, settings={"a": 10.0}),
    "mcnn": Preset("mcnn", 1e-3, 100, weight_decay=5e-4),
    "sccnn": Preset("sccnn", 1e-2, 2048, momentum=0.2, size=(96, 96), subset=0.2, settings={"units": 1024}),
    "resnet101": Preset("resnet101", 1e-3, 24),
    "densenet121": Preset("densenet121", 1e-2, 12),
    # "We used parameters given by the authors, without dropout schedule": those of Simm 2018.
    "fnn": Preset(
        "fnn", 0.05, 256, momentum=0.0, weight_decay=0.0, epochs=63, clip=None, channels=1783, size=(1, 1),
        source="Hofmarcher 2019, Methods, which points to Simm 2018, Table S1; batch: released configuration (hti-cnn)",
    ),
}  # fmt: skip

# Where the released configurations differ from the paper. Everywhere else they agree.
RELEASED: dict[str, Preset] = {
    # Its random fifth of the crops is never read by the released loader, hence all of them.
    "sccnn": replace(PRESETS["sccnn"], momentum=0.9, subset=1.0, source="hti-cnn, configs/sc-cnn.json"),
    "fnn": replace(
        PRESETS["fnn"], learning_rate=1e-2, momentum=0.9, weight_decay=1e-4, epochs=100, clip=5.0,
        source="hti-cnn, configs/fnn.json",
    ),
}  # fmt: skip
