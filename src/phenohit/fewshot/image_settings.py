"""Settings of the few-shot methods that learn from images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from phenohit.fewshot.distances import Distance
from phenohit.models.contract import read_settings, require
from phenohit.models.vision import VISION
from phenohit.registry import resolve

__all__ = ["EncoderSettings", "ImageMamlSettings", "ImagePrototypesSettings"]


@dataclass(frozen=True)
class EncoderSettings:
    """Settings of a backbone and of what it is shown.

    Parameters
    ----------
    network : str
        Key of `phenohit.models.vision.VISION`: gapnet, or timm for any backbone of timm.
    options : dict[str, Any]
        Settings of the network itself, e.g. {units: 512}, or {backbone: resnet50} for timm.
    resize, crop : list[int]
        Height and width that every view is brought to, and that are then cut out of it: anywhere while training, from
        the middle when scoring. Empty: as it is. What is smaller than the crop is taken whole.
    flips, rotations : bool
        Show views mirrored, and turned by 90 degrees where they are square, while training.
    device : {"auto", "cpu", "cuda"}
        Auto is cuda where there is one.
    """

    network: str = "gapnet"
    options: dict[str, Any] = field(default_factory=dict)
    resize: list[int] = field(default_factory=list)
    crop: list[int] = field(default_factory=lambda: [128, 128])
    flips: bool = True
    rotations: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            size = getattr(self, name)
            fine = len(size) in (0, 2) and all(type(n) is int and n >= 1 for n in size)
            require(fine, name, size, "height and width in pixels, e.g. [128, 128], or empty")
        read_settings(resolve(self.network, VISION, "phenohit.networks").Settings, self.options, self.network)


@dataclass(frozen=True)
class ImagePrototypesSettings(EncoderSettings):
    """Settings of `ImagePrototypes`: those of `EncoderSettings`, and how to train.

    Parameters
    ----------
    preset : {"", "fslcp"}
        `fslcp` stands for protonet_img of Ha's thesis, chapter 2: ResNet-50 with 1,600 outputs, cosines, 30,000
        episodes. Its crop of 300 pixels brought to 200 is here one of 200 from views of 520 x 692 brought to two
        thirds, which is the same. The defaults are for two processor cores.
    outputs : int
        Numbers that a view is embedded as.
    distance : {"euclidean", "squared", "cosine", "mahalanobis"}
        Of a query to a prototype; see `phenohit.fewshot.prototypes.PrototypesSettings`.
    temperature : float
        What cosines are multiplied by; 1, as published, leaves probabilities near one half.
    steps : int
        Optimiser steps.
    episodes, tasks, pool : int
        Episodes of a step, draws of a task among which they are divided, and compounds of each draw (at least those of
        one episode): tasks x pool views are embedded in a step.
    learning_rate : float
        Of Adam.
    decay_every : int
        Steps after which the rate is multiplied by `decay`, again and again; 0: never.
    decay : float
    weight_decay : float
        L2 penalty.
    clip : float | None
        Longest gradient that is followed; empty: any.
    check_every : int
        With validation tasks: steps between checks, of which the best counts. 0: the last step does.
    patience : int
        Checks without a better one after which training ends; 0: never before `steps`.
    views : int
        Views of a row that are averaged when scoring, the first ones; 0: all.
    batch : int
        Views embedded at a time when scoring.
    """

    preset: Literal["", "fslcp"] = ""
    outputs: int = 128
    distance: Distance = "euclidean"
    temperature: float = 1.0
    steps: int = 500
    episodes: int = 32
    tasks: int = 2
    pool: int = 0
    learning_rate: float = 1e-3
    decay_every: int = 200
    decay: float = 0.3
    weight_decay: float = 1e-4
    clip: float | None = 5.0
    check_every: int = 50
    patience: int = 5
    views: int = 0
    batch: int = 64

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "fslcp": {
            "network": "timm", "options": {"backbone": "resnet50"}, "outputs": 1600, "distance": "cosine",
            "temperature": 1.0, "resize": [347, 461], "crop": [200, 200], "flips": False, "rotations": False,
            "steps": 30_000, "episodes": 1, "tasks": 1, "pool": 0, "learning_rate": 1e-3, "decay_every": 10_000,
            "decay": 0.1, "weight_decay": 1e-4, "clip": None, "check_every": 1000, "patience": 0,
        }
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("outputs", "steps", "episodes", "tasks", "batch"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.tasks <= self.episodes, "tasks", self.tasks, f"at most episodes ({self.episodes})")
        for name in ("temperature", "learning_rate", "decay"):
            require(0 < getattr(self, name) < float("inf"), name, getattr(self, name), "above 0")
        for name in ("pool", "decay_every", "weight_decay", "check_every", "patience", "views"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or above")
        require(self.clip is None or self.clip > 0, "clip", self.clip, "above 0, or empty")


@dataclass(frozen=True)
class ImageMamlSettings(EncoderSettings):
    """Settings of `ImageMaml`: those of `EncoderSettings`, and how to train.

    Parameters
    ----------
    preset : {"", "fslcp"}
        `fslcp` stands for maml_img of Ha's thesis, chapter 2: ResNet-50, 32 tasks, 1,000 meta-steps. Its crop of 100
        pixels brought to 85 is here one of 85 from views of 520 x 692 brought to 85 %, which is the same.
    inner_rate, inner_steps, test_steps, order, learning_rate, tasks, meta_steps, check, patience
        See `phenohit.fewshot.maml.MamlSettings`.
    clip : float | None
        Longest meta-gradient that is followed; empty: any.
    views : int
        Views of a row when scoring: all count in a support, and a query's probabilities are averaged.
    """

    preset: Literal["", "fslcp"] = ""
    crop: list[int] = field(default_factory=lambda: [64, 64])
    inner_rate: float = 0.01
    clip: float | None = 10.0
    inner_steps: int = 3
    test_steps: int = 0
    order: Literal[1, 2] = 2
    learning_rate: float = 1e-3
    tasks: int = 4
    meta_steps: int = 200
    check: int = 25
    patience: int = 4
    views: int = 1

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "fslcp": {
            "network": "timm", "options": {"backbone": "resnet50"}, "resize": [442, 588], "crop": [85, 85],
            "flips": False, "rotations": False, "inner_rate": 0.01, "inner_steps": 3, "order": 2,
            "learning_rate": 1e-3, "tasks": 32, "meta_steps": 1000, "patience": 0, "clip": None,
        }
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("inner_steps", "tasks", "meta_steps", "check", "views"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.clip is None or self.clip > 0, "clip", self.clip, "above 0, or empty")
        for name in ("inner_rate", "learning_rate"):
            require(0 < getattr(self, name) < float("inf"), name, getattr(self, name), "above 0")
        for name in ("test_steps", "patience"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or above")
