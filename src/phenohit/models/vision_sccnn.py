"""SC-CNN: GapNet for crops of single cells (Hofmarcher 2019)."""

from __future__ import annotations

from typing import ClassVar

from phenohit.models.vision_gapnet import GapNet

__all__ = ["ScCnn"]


class ScCnn(GapNet):
    """GapNet with plain convolutions in its last block, for 96 x 96 pixel crops around nuclei.

    Notes
    -----
    A wide field of view harms on crops of one cell, hence no dilation (Hofmarcher 2019, Methods). The number of
    parameters is GapNet's. One crop gives one answer: a well's is the mean of its cells' probabilities.
    """

    NAME: ClassVar[str] = "SC-CNN"
    PAD: ClassVar[int] = 0
    DILATION: ClassVar[tuple[int, int, int]] = (1, 1, 1)
    SMALLEST: ClassVar[int] = 27
