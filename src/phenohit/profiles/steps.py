"""The steps of `profiles.steps`, in their order."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import pandas as pd

from phenohit.config import Step
from phenohit.data.dropped import nothing_dropped
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, FileError, nearest, some
from phenohit.files import read_json, write_json
from phenohit.profiles.normalise import Normalise
from phenohit.profiles.sphere import Sphere
from phenohit.profiles.tvn import Tvn

__all__ = ["Steps", "do_steps"]

log = logging.getLogger("phenohit")

_LEARNS = {"sphere": Sphere, "tvn": Tvn}


def do_steps(profiles: Profiles, steps: Sequence[Step]) -> tuple[Profiles, pd.DataFrame]:
    """Do steps one after another, each learned from the reference wells among these rows.

    Parameters
    ----------
    profiles : Profiles, P rows
        Wells, controls included.
    steps : sequence of Step

    Returns
    -------
    profiles : Profiles
        With one line of history per step, e.g. ``mad_robustize[plate, negcon]``.
    dropped : DataFrame
        Features and wells left out by any step.

    Raises
    ------
    PlateError, ColumnError, ConfigError
    """
    out, lost, _ = Steps.fit_apply(profiles, steps)
    return out, lost


@dataclass(frozen=True, eq=False)
class Steps:
    """Steps with what they learned, for wells that are imaged later.

    Attributes
    ----------
    steps : list of Step
    learned : list
        For each step, a `Sphere` or a `Tvn`; None for normalise, which has nothing to carry over: each
        plate is normalised on its own controls.
    features : list of list of str
        For each step, the features that came out.
    """

    steps: list[Step]
    learned: list[Sphere | Tvn | None]
    features: list[list[str]]

    @classmethod
    def fit_apply(cls, profiles: Profiles, steps: Sequence[Step]) -> tuple[Profiles, pd.DataFrame, Self]:
        """Do the steps and keep what they learned; see `do_steps`."""
        learned: list[Sphere | Tvn | None] = []
        lists, features = [nothing_dropped()], []
        for step in steps:
            if step.step == "normalise":
                kept, fitted = None, Normalise.fit(profiles, step)
            elif step.step in _LEARNS:
                kept = fitted = _LEARNS[step.step].fit(profiles, step)
            else:
                raise ConfigError(f"step '{step.step}' is not known. {nearest(step.step, ['normalise', *_LEARNS])}")
            profiles, lost = fitted.apply(profiles)
            learned.append(kept)
            lists.append(lost)
            features.append(list(profiles.features))
            log.info("%s: %d wells, %d features", profiles.history[-1], len(profiles), len(profiles.features))
        return profiles, pd.concat(lists, ignore_index=True), cls(list(steps), learned, features)

    def apply(self, profiles: Profiles) -> tuple[Profiles, pd.DataFrame]:
        """Do the same steps to other wells, so that a model fitted on the first ones can read them.

        Plates (and, for tvn, batches) are brought to scale on their own controls; sphering and
        components are those already learned. The columns are those of the first wells: a feature
        that normalise left out then is left out, one that it refuses only now is missing here.

        Raises
        ------
        PlateError
        ColumnError
            If features are absent; names them.
        """
        lists = [nothing_dropped()]
        for step, known, features in zip(self.steps, self.learned, self.features, strict=True):
            if known is None:
                profiles = _only(profiles, features)
                profiles, lost = Normalise.fit(profiles, step).apply(profiles, everywhere=False)
            else:
                profiles, lost = known.apply(_only(profiles, known.features))
            lists.append(lost)
        return profiles, pd.concat(lists, ignore_index=True)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``steps.json`` and one safetensors file per step that learned something."""
        folder = Path(folder)
        for i, known in enumerate(self.learned):
            if known is not None:
                known.save(folder / f"step-{i}.safetensors")
        write_json(folder / "steps.json", {"steps": [asdict(s) for s in self.steps], "features": self.features})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileError
            If a file is absent, damaged or of another kind.
        """
        folder = Path(folder)
        try:
            known = read_json(folder / "steps.json")
            steps, features = [Step(**s) for s in known["steps"]], [list(f) for f in known["features"]]
            if len(steps) != len(features):
                raise ValueError("a step is missing")
        except (TypeError, KeyError, ValueError) as error:
            raise FileError(f"'{folder / 'steps.json'}' is damaged ({error}). Do the steps again.") from error
        learned = [
            _LEARNS[s.step].load(folder / f"step-{i}.safetensors") if s.step in _LEARNS else None
            for i, s in enumerate(steps)
        ]
        return cls(steps, learned, features)


def _only(profiles: Profiles, features: list[str]) -> Profiles:
    """Return the profiles with these features, in this order."""
    if list(profiles.features) == features:
        return profiles
    place = {f: j for j, f in enumerate(profiles.features)}
    absent = [f for f in features if f not in place]
    if absent:
        raise ColumnError(
            f"These wells lack {len(absent)} of the {len(features)} features that the steps were fitted on: "
            f"{some(absent)}. Measure them with the same program and settings."
        )
    return replace(profiles, X=profiles.X[:, [place[f] for f in features]], features=features)
