"""Settings of the models that learn from images: what each was published with, and mirror images and turns besides."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from phenohit.models.contract import require
from phenohit.models.vision import PRESETS

__all__ = ["SETTINGS", "ImageSettings"]


@dataclass(frozen=True)
class ImageSettings:
    """Settings of a model that learns from images.

    Parameters
    ----------
    network : dict[str, Any]
        Settings of the network itself, e.g. {units: 512}, or {backbone: convnext_base} for timm.
    weights : str
        Saved model of the same network to begin from, e.g. one of another screen; its last layer begins anew.
    learning_rate : float
        Of stochastic gradient descent.
    momentum : float
        Share of the last step that the next one keeps.
    weight_decay : float
        L2 penalty on weights, not on biases.
    clip : float | None
        Longest gradient (L2 norm over all parameters) that is followed; empty: any.
    batch : int
        Images per step.
    epochs : int
        Epochs at most.
    warm_up : int
        Epochs in which the learning rate rises from 0.
    cosine : int
        Epoch at which the learning rate, falling as a cosine, has reached 0; 0: it stays. Ha's reproduction: warm-up
        for 10 epochs, then a cosine to epoch 20.
    select : {"auroc", "loss", "last"}
        The epoch that counts: the best mean AUROC over tasks on validation rows, their lowest loss, or the last one
        (then validation rows are trained on).
    patience : int
        Stop after this many epochs that were not better; 0: train all epochs.
    subset : float
        Share of the images that an epoch sees, drawn anew each time.
    flips, rotations : bool
        Show images mirrored, and turned by 90 degrees where they are square, while training. Hofmarcher 2019 did not.
    resize, crop : list[int]
        Height and width that every image is brought to, and that are then cut out of it: anywhere while training, from
        the middle otherwise. Empty: as it is.
    passes : int
        Answers per image with dropout left on (Monte-Carlo dropout), whose spread tells how sure the network is; 0:
        one answer without dropout.
    device : {"auto", "cpu", "cuda"}
        Auto is cuda where there is one.
    devices : int
        Devices to train on at once; each takes its share of every batch. Needs lightning-fabric; a script that calls
        `fit` must be guarded by ``if __name__ == "__main__":``.
    dtype : {"float32", "bfloat16"}
        Bfloat16 is faster on cuda; on the processor it is float32 all the same.
    compile : bool
        Let torch compile the network first: minutes at the start, faster steps after.
    """

    network: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    learning_rate: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: float | None = 5.0
    batch: int = 64
    epochs: int = 100
    warm_up: int = 0
    cosine: int = 0
    select: Literal["auroc", "loss", "last"] = "auroc"
    patience: int = 0
    subset: float = 1.0
    flips: bool = True
    rotations: bool = True
    resize: list[int] = field(default_factory=list)
    crop: list[int] = field(default_factory=list)
    passes: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "epochs", "devices"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("warm_up", "cosine", "patience", "passes"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or above")
        require(0 < self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "above 0")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "from 0 to below 1")
        require(0 <= self.weight_decay < float("inf"), "weight_decay", self.weight_decay, "0 or above")
        require(self.clip is None or self.clip > 0, "clip", self.clip, "above 0, or empty")
        require(0 < self.subset <= 1, "subset", self.subset, "above 0 and at most 1")
        for name in ("resize", "crop"):
            size = getattr(self, name)
            fine = len(size) in (0, 2) and all(type(n) is int and n >= 1 for n in size)
            require(fine, name, size, "height and width in pixels, e.g. [384, 384], or empty")
        require(self.cosine == 0 or self.cosine > self.warm_up, "cosine", self.cosine, "0, or later than warm_up")


def _published(name: str) -> type[ImageSettings]:
    """Make the settings class of a network, with the defaults it was published with."""
    preset = PRESETS[name]
    known = {f.name for f in fields(ImageSettings)} & set(vars(preset))
    given = {key: getattr(preset, key) for key in known - {"network"}}
    kinds = {key: ImageSettings.__annotations__[key] for key in given}
    # The text stays that of the base class: every setting means the same.
    made = type(
        f"{name.capitalize()}Settings", (ImageSettings,),
        {**given, "__annotations__": kinds, "__doc__": ImageSettings.__doc__},
    )  # fmt: skip
    return dataclass(frozen=True)(made)


SETTINGS: dict[str, type[ImageSettings]] = {name: _published(name) for name in PRESETS if name != "fnn"}
SETTINGS["timm"] = ImageSettings
