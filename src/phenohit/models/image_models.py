"""The models that learn from images, one per network; what they share is `phenohit.models.image_model.ImageModel`."""

from __future__ import annotations

from phenohit.models.image_model import ImageModel

__all__ = ["DenseNet121", "GapNet", "MCnn", "MilNet", "ResNet101", "ScCnn", "Timm"]


class GapNet(ImageModel):
    """GapNet on whole views (Hofmarcher 2019)."""

    name = "gapnet"


class MilNet(ImageModel):
    """MIL-Net on whole views: class maps pooled by noisy-AND (Kraus 2016; Hofmarcher 2019)."""

    name = "milnet"


class MCnn(ImageModel):
    """M-CNN on whole views: seven scales side by side (Godinez 2017; Hofmarcher 2019)."""

    name = "mcnn"


class ScCnn(ImageModel):
    """SC-CNN on crops of single cells (Hofmarcher 2019)."""

    name = "sccnn"
    sees = "crops"


class ResNet101(ImageModel):
    """ResNet-101 on whole views (He 2016; Hofmarcher 2019)."""

    name = "resnet101"


class DenseNet121(ImageModel):
    """DenseNet-121 on whole views (Huang 2017; Hofmarcher 2019)."""

    name = "densenet121"


class Timm(ImageModel):
    """Any backbone of timm on whole views, e.g. network: {backbone: convnext_base, pretrained: hub}."""

    name = "timm"
