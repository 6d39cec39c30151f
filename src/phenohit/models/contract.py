"""What every model promises, and the checks that all of them share.

A model is a class in a file of its own, named in ``phenohit.models.MODELS``. It need not inherit
from anything: it has the attributes and methods of `Model`.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar, runtime_checkable

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, LabelError, RunError, ShapeError, nearest, some

__all__ = [
    "Followed",
    "Known",
    "Model",
    "check_finite",
    "check_pair",
    "cores",
    "model_path",
    "not_fitted",
    "read_settings",
    "require",
    "restore_settings",
    "stored_settings",
]

S = TypeVar("S")


class Model(Protocol):
    """Learns binary tasks from the measured entries of sparse labels and scores every row in every task.

    ``Model(**settings)`` raises `ConfigError` for a setting that is unknown or has an impossible
    value. What is not measured never influences anything: a row without labels, a task without
    measurements and a task with one class leave all other tasks as they would be without them.

    Attributes
    ----------
    name : str
        Its key in ``MODELS``.
    sees : str
        What it learns from: profiles (where it does not say), views or crops.
    needs_scaling : bool
        Whether features should be standardised first (`phenohit.profiles.prepare`).
    uses_valid : bool
        Whether these settings stop early; if not, rows set apart for that are better trained on.
    settings : dataclass
        Its settings, each described in the docstring of their class.
    """

    name: ClassVar[str]
    needs_scaling: ClassVar[bool]
    settings: Any

    @property
    def uses_valid(self) -> bool: ...  # noqa: D102

    def fit(
        self,
        data: Profiles,
        labels: Labels,
        *,
        valid: tuple[Profiles, Labels] | None = None,
        seed: int = 0,
        run: Path | None = None,
        jobs: int = 1,
    ) -> Self:
        """Learn; `labels` has the rows of `data`, in the same order.

        Parameters
        ----------
        data : Profiles, N rows
            Finite features. A model whose ``sees`` is views or crops takes `phenohit.images.samples.ImageRows`.
        labels : Labels, N rows
            Binary tasks. A task that lacks one of its classes is not learned: its score is the
            smoothed active share of `Known`.
        valid : pair of Profiles and Labels, optional
            Rows for early stopping; models that need none ignore them.
        seed : int
            Same seed, same scores, whatever `jobs` is.
        run : path, optional
            Folder for checkpoints. Fitting again with the same folder, data and settings goes on
            where it was interrupted, with the same result.
        jobs : int
            Processor cores to use; 0: all.

        Raises
        ------
        ShapeError, LabelError
            If the two do not fit together, features are not finite, or a task holds values.
        """
        ...

    def predict(self, data: Profiles, tasks: list[str] | None = None) -> Predictions:
        """Score every row of `data` in the given tasks (all), in row order: a dense block of probabilities.

        Raises
        ------
        ShapeError
            If `data` has other features than the model was fitted on.
        """
        ...

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; a folder gets ``<name>.safetensors``."""
        ...

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; predictions are the same as before.

        Raises
        ------
        FileError
            If the file is absent, damaged or of another model. Nothing in it is executed.
        """
        ...


@runtime_checkable
class Followed(Protocol):
    """A model that can also tell how its fit went; a run keeps both tables and the report draws them."""

    def progress(self) -> pd.DataFrame:
        """Return what was followed, one row per value.

        Returns
        -------
        DataFrame
            ``series`` (int, e.g. number of the chain, from 1), ``step`` (int, e.g. sweep, from 1), ``what`` (text, e.g.
            "held-out RMSE", "link precision", "compound X in assay Y"), ``value`` (float), ``used`` (bool: not
            of the beginning that is thrown away).
        """
        ...

    def diagnostics(self) -> pd.DataFrame:
        """Return how settled each ``what`` is: columns ``what``, ``rhat``, ``ess`` (NaN where undefined)."""
        ...


@dataclass(frozen=True, eq=False)
class Known:
    """What every fitted model remembers of its training data.

    Attributes
    ----------
    features : list of str, length F
    tasks : list of str, length T
    share : float32 array, shape (T,)
        Smoothed active share, (active + 1) / (measured + 2): Laplace's rule of succession, which is
        defined, and neither 0 nor 1, even for a task that was never measured.
    fitted : bool array, shape (T,)
        True where the task has both classes in training. Elsewhere `share` is the score.
    """

    features: list[str]
    tasks: list[str]
    share: NDArray[np.float32]
    fitted: NDArray[np.bool_]

    @classmethod
    def of(cls, data: Any, labels: Labels, *, values: bool = False) -> Known:
        """Check that `data` and `labels` can be learned from, and remember what is needed.

        Parameters
        ----------
        data, labels : Profiles (or ImageRows) and Labels, N rows
        values : bool
            Whether tasks may hold values; one with any counts as fitted, and its share means nothing.

        Raises
        ------
        ShapeError
            If rows differ or features are not finite.
        LabelError
            If a task holds values instead of two classes.
        """
        check_pair(data, labels, values=values)
        counts = labels.counts()
        active, inactive = counts["n_active"].to_numpy(), counts["n_inactive"].to_numpy()
        share = ((active + 1) / (active + inactive + 2)).astype(np.float32)
        of_values = (labels.tasks["kind"] == "value").to_numpy()
        fitted = (active > 0) & ((inactive > 0) | of_values) & (len(data.features) > 0)
        return cls(list(data.features), labels.task_names, share, fitted)

    def require(self, data: Any) -> None:
        """Refuse rows that have other features, another order of them, or gaps."""
        if list(data.features) != self.features:
            fewer = [f for f in self.features if f not in set(data.features)]
            more = [f for f in data.features if f not in set(self.features)]
            why = f"Missing: {some(fewer)}. " if fewer else ""
            why += f"Not known: {some(more)}. " if more else ""
            raise ShapeError(
                f"The model was fitted on {len(self.features)} features; these rows have {len(data.features)}. "
                f"{why or 'The names are the same, their order is not. '}Prepare them as the training rows were."
            )
        check_finite(data)

    def check_valid(self, data: Any, labels: Labels) -> None:
        """Refuse validation rows that are not of the same features and tasks.

        Raises
        ------
        ShapeError, LabelError
        """
        check_pair(data, labels)
        self.require(data)
        if labels.task_names != self.tasks:
            raise LabelError("Validation labels have other tasks than the training labels: take both of one table.")

    def where(self, tasks: Sequence[str] | None) -> NDArray[np.intp]:
        """Return positions of the given tasks (all where None).

        Raises
        ------
        LabelError
            If a task is not known; lists the nearest.
        """
        if tasks is None:
            return np.arange(len(self.tasks))
        place = {task: i for i, task in enumerate(self.tasks)}
        for task in tasks:
            if task not in place:
                raise LabelError(f"task '{task}' is not one the model was fitted on. {nearest(task, self.tasks)}")
        return np.array([place[task] for task in tasks], dtype=np.intp)

    def block(self, n: int, where: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return an (n, tasks) block that holds each task's share, to be overwritten where fitted."""
        return np.repeat(self.share[where][None, :], n, axis=0)

    def meta(self) -> dict[str, list[str]]:
        """Return the names to save."""
        return {"features": self.features, "tasks": self.tasks}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to save; `FORM` says what they look like."""
        return {"share": self.share, "fitted": self.fitted}

    FORM: ClassVar[dict[str, tuple[str, int]]] = {"share": ("float32", 1), "fitted": ("bool", 1)}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], path: object) -> Known:
        """Rebuild from a file's arrays and values, trusting neither.

        Raises
        ------
        FileError
            If they contradict each other.
        """
        features, tasks = meta.get("features"), meta.get("tasks")
        share, fitted = arrays["share"], arrays["fitted"]
        text = all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in (features, tasks))
        if not text or len(share) != len(tasks) or len(fitted) != len(tasks) or not ((share > 0) & (share < 1)).all():
            raise FileError(f"'{path}' is damaged: its task list and its shares do not fit. Make it again.")
        return cls(features, tasks, share, fitted)


def check_finite(data: Any) -> None:
    """Refuse features that are NaN or infinite, naming the first of them; images have none."""
    if not isinstance(data, Profiles):
        return
    step = max(1, (1 << 24) // max(len(data.features), 1))  # blocks, so that no mask as large as X is made
    for start in range(0, len(data), step):
        bad = ~np.isfinite(data.X[start : start + step])
        if bad.any():
            row, column = np.argwhere(bad)[0]
            name, value = data.features[column], data.X[start + row, column]
            raise ShapeError(
                f"Feature '{name}' is not finite in row {start + row} ({value}). "
                "Models need a number everywhere: run phenohit.profiles.prepare first, which fills gaps."
            )


def check_pair(data: Any, labels: Labels, *, values: bool = False) -> None:
    """Refuse labels that are not those of the rows of `data`, or that hold values where `values` is False."""
    if len(data) != len(labels):
        raise ShapeError(f"There are {len(data)} rows of features but {len(labels)} rows of labels: align them first.")
    keys = labels.compounds["compound"].to_numpy(dtype=object)
    differ = np.flatnonzero(keys != data.compounds)
    if len(differ):
        shown = some((f"row {i}: {data.compounds[i]} / {keys[i]}" for i in differ[:11]), 3)
        raise ShapeError(
            f"Rows of features and labels are of different compounds ({shown}). Align with Labels.to_rows."
        )
    of_values = labels.tasks["task"][labels.tasks["kind"] == "value"]
    if len(of_values) and not values:
        raise LabelError(
            f"This model learns active against inactive, but these tasks hold values: {some(of_values)}. "
            "Give them thresholds (activities: thresholds)."
        )
    check_finite(data)


def cores(jobs: int) -> int:
    """Return how many cores `jobs` asks for; 0 or less: all that this process may use."""
    return jobs if jobs > 0 else joblib.cpu_count()


def require(fine: bool, setting: str, value: object, expected: str) -> None:
    """Raise `ConfigError` unless `fine`."""
    if not fine:
        raise ConfigError(f"setting '{setting}' is {value!r}, but must be {expected}.")


def _suits(value: object, kind: Any) -> bool:
    """Whether a value is of an annotated type; whole numbers pass as floats, bools as nothing else."""
    if typing.get_origin(kind) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(kind))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_suits(value, one) for one in typing.get_args(kind))
    if kind in (int, float) and isinstance(value, bool):
        return False
    kind = typing.get_origin(kind) or kind  # of a list or dict, what it holds is the model's to check
    return isinstance(value, (int, float) if kind is float else kind)


def read_settings(cls: type[S], given: Mapping[str, Any], model: str) -> S:
    """Build the settings of a model from what the user wrote.

    Parameters
    ----------
    cls : frozen dataclass
        With a field ``preset`` and a class attribute ``PRESETS``, the preset's values stand in for
        settings that are not given.
    given : mapping
    model : str
        Named in messages.

    Raises
    ------
    ConfigError
        For a setting that is unknown (lists the nearest) or of the wrong type or range.
    """
    kinds = typing.get_type_hints(cls)
    fields = [f.name for f in dataclasses.fields(cls)]  # pyright: ignore[reportArgumentType]
    for name, value in given.items():
        if name not in fields:
            raise ConfigError(f"model '{model}' has no setting '{name}'. {nearest(name, fields)} See: phenohit models")
        if not _suits(value, kinds[name]):
            kind = str(kinds[name]).replace("typing.", "").removeprefix("<class '").removesuffix("'>")
            raise ConfigError(f"setting '{name}' of model '{model}' is {value!r}, but must be {kind}.")
    presets = getattr(cls, "PRESETS", {})
    preset = given.get("preset") or ""
    return cls(**{**presets.get(preset, {}), **given})


def stored_settings(settings: Any) -> dict[str, Any]:
    """Return settings as JSON values."""
    return dataclasses.asdict(settings)


def restore_settings(cls: type[S], meta: Mapping[str, Any], model: str, path: object) -> S:
    """Rebuild settings from a file; a file with impossible ones is damaged or newer than this version."""
    given = meta.get("settings")
    try:
        return read_settings(cls, given if isinstance(given, dict) else {"": given}, model)
    except ConfigError as error:
        raise FileError(f"'{path}' holds settings this version cannot use: {error}") from error


def model_path(path: str | os.PathLike[str], name: str) -> Path:
    """Return the file a model is kept in: `path` itself, or ``<name>.safetensors`` in a folder."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / f"{name}.safetensors"


def not_fitted(model: str) -> RunError:
    """Return the error of a model that was asked for scores before it learned anything."""
    return RunError(f"model '{model}' has not been fitted: call fit, or load a fitted one.")
