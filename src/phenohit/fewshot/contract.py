"""What every few-shot method promises."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from phenohit.data.labels import Labels
from phenohit.errors import ShapeError
from phenohit.fewshot.episodes import Episodes

__all__ = ["Method", "check_scores"]


class Method(Protocol):
    """Learns an assay from a few labelled compounds (the support) and scores others (the query).

    ``Method(**settings)`` raises `ConfigError` for a setting that is unknown or has an impossible value.

    Attributes
    ----------
    name : str
        Its key in ``METHODS``.
    sees : {"profiles", "views"}
        What it learns from.
    pretrains : bool
        Whether it learns from other tasks first; if not, `pretrain` only remembers the features.
    settings : dataclass
    """

    name: ClassVar[str]
    sees: ClassVar[str]
    pretrains: ClassVar[bool]
    settings: Any

    def pretrain(
        self,
        data: Any,
        labels: Labels,
        *,
        valid: Labels | None = None,
        sizes: Sequence[int] = (16,),
        query: int = 32,
        seed: int = 0,
        run: Path | None = None,
        jobs: int = 1,
    ) -> Self:
        """Learn from other tasks.

        Parameters
        ----------
        data : Profiles, N rows
            Finite features, prepared; `phenohit.images.samples.ImageRows` for a method that sees views.
        labels : Labels, N rows
            The training tasks, and no task that is scored later.
        valid : Labels, N rows, optional
            Tasks to stop or choose by.
        sizes : sequence of int
            Support sizes that will be asked for.
        query : int
            Compounds of a query.
        seed : int
        run : path, optional
            Folder for checkpoints: the same call goes on where it was interrupted.
        jobs : int
            Processor cores; 0: all.
        """
        ...

    def score(
        self, data: Any, episodes: Sequence[Episodes], *, seed: int = 0, jobs: int = 1
    ) -> list[NDArray[np.float32]]:
        """Return the probability of being active of every query row of every episode.

        Parameters
        ----------
        data : Profiles, N rows
            What the rows of the episodes number; features as at `pretrain`.
        episodes : sequence of Episodes
            Of any tasks and support sizes. What is learned in one episode has no part in another.

        Returns
        -------
        list of float32 array, shape (E, Q)
            One per item of `episodes`.
        """
        ...

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; a folder gets ``<name>.safetensors``."""
        ...

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; raises FileError for a file that is damaged or of another method."""
        ...


def check_scores(method: str, scores: Sequence[NDArray[np.floating]], episodes: Sequence[Episodes]) -> None:
    """Refuse scores that are not probabilities, or that are calls in the place of probabilities.

    Parameters
    ----------
    method : str
        Named in the message.
    scores : sequence of float array, shape (E, Q)
    episodes : sequence of Episodes

    Raises
    ------
    ShapeError
        If a shape differs from the query's, a value is not within 0 to 1, or all values are 0 or 1.

    Notes
    -----
    An AUROC of hard calls is the balanced accuracy at one cut and lies well below that of the scores behind them; the
    published few-shot table of Cell Painting compares both kinds in one column.
    """
    for score, one in zip(scores, episodes, strict=True):
        if score.shape != one.query.shape:
            raise ShapeError(
                f"Method '{method}' gave scores of shape {score.shape} for {one.query.shape} queries of '{one.task}'."
            )
        if not (np.isfinite(score).all() and (score >= 0).all() and (score <= 1).all()):
            raise ShapeError(f"Method '{method}' gave scores for '{one.task}' that are no probabilities (0 to 1).")
    if scores and all(np.isin(score, (0.0, 1.0)).all() for score in scores):
        raise ShapeError(
            f"Method '{method}' gave calls (0 or 1) where probabilities are expected: ranks need soft scores. "
            "Return predict_proba, not predict."
        )
