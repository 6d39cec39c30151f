"""Fit on the training rows of a split, score its test rows; nothing else is ever seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.data.profiles import Profiles
from phenohit.errors import ShapeError
from phenohit.evaluate.splits import TEST, TRAIN, VALID, Folds
from phenohit.models import find_model
from phenohit.profiles.prepare import Prepare

__all__ = ["concatenate", "fit_all", "fit_split", "fit_split_model", "predict"]

Scaling = Literal["each", "common", "none"]
_ROWS = 32_768  # rows predicted at a time, so that no dense N x T block is ever made


class AsIs:
    """What stands for `Prepare` where images come in: a model that sees them prepares them itself."""

    def apply(self, data: Any) -> Any:
        """Return the rows as they are."""
        return data


def fit_split_model(
    model: str,
    settings: dict[str, Any],
    data: Any,
    labels: Labels,
    folds: Folds,
    split: int,
    *,
    scale: Scaling = "each",
    clip: float | None = None,
    seed: int = 0,
    jobs: int = 1,
    folder: Path | None = None,
) -> tuple[Predictions, Any]:
    """Fit one model on one split and score the measured entries of its test rows.

    Parameters
    ----------
    model : str
        Name in the MODELS table.
    settings : dict
        Its settings.
    data, labels : Profiles (or `phenohit.images.samples.ImageRows`) and Labels with the same N rows
    folds : Folds over those rows
    split : int
        Column of ``folds.part``.
    scale : {'each', 'common', 'none'}
        For models that need scaling, on the training rows: prune and standardise every feature;
        centre all and divide by one common scale (fingerprint bits); or leave them as they are.
    clip : float, optional
        Features beyond +-`clip` are set to it before scaling.
    folder : Path, optional
        Where a long fit keeps checkpoints.

    Returns
    -------
    predictions : Predictions
        CSR scores of the measured entries, rows = test rows with any, `fold` = the split's fold number.
    fitted : model

    Raises
    ------
    ShapeError
        If the folds are those of other rows: a test compound would be trained on.
    """
    _check_rows(data, folds)
    train, valid, test = (folds.rows_of(split, part) for part in (TRAIN, VALID, TEST))
    fitted, prepare = _fit(model, settings, data, labels, train, valid, scale, clip, (seed, split), jobs, folder)
    test = test[np.diff(labels.Y.indptr)[test] > 0]  # only measured entries can be compared
    scored = predict(fitted, prepare, data, test, labels)
    fold = np.full(len(test), folds.fold[split], dtype=np.int32)
    found = Predictions(scored.score, scored.compounds, scored.tasks, scored.model, scored.spread, fold, scored.kind)
    return found, fitted


def fit_split(*args: Any, **kwargs: Any) -> Predictions:
    """Return the predictions of `fit_split_model` alone."""
    return fit_split_model(*args, **kwargs)[0]


def fit_all(
    model: str,
    settings: dict[str, Any],
    data: Any,
    labels: Labels,
    folds: Folds,
    *,
    scale: Scaling = "each",
    clip: float | None = None,
    seed: int = 0,
    jobs: int = 1,
    folder: Path | None = None,
) -> tuple[Any, Any]:
    """Fit one model on every labelled row, for the compounds that nobody has measured.

    A model that stops early still needs rows it does not train on: it gets the validation rows of
    the first split, as in cross-validation.
    """
    _check_rows(data, folds)
    valid = folds.rows_of(0, VALID)
    train = np.setdiff1d(np.arange(len(data)), valid)
    return _fit(model, settings, data, labels, train, valid, scale, clip, (seed, len(folds.names)), jobs, folder)


def _check_rows(data: Any, folds: Folds) -> None:
    if not np.array_equal(folds.rows["compound"].to_numpy(object), data.compounds):
        raise ShapeError(
            f"The folds are not over these rows: {len(folds.rows)} rows of folds and {len(data)} of profiles must name "
            "the same compounds in the same order."
        )


def _fit(
    model: str,
    settings: dict[str, Any],
    data: Any,
    labels: Labels,
    train: np.ndarray,
    valid: np.ndarray,
    scale: Scaling,
    clip: float | None,
    seed: tuple[int, int],
    jobs: int,
    folder: Path | None,
) -> tuple[Any, Any]:
    learner = find_model(model)(**settings)
    if not learner.uses_valid:  # rows set apart for early stopping are training rows like any other
        train, valid = np.union1d(train, valid), valid[:0]
    # Rows without any label teach a supervised model nothing; they must not shape its scaling either.
    train = train[np.diff(labels.Y.indptr)[train] > 0]
    seen = data.take(train)
    how = scale if learner.needs_scaling else "none"
    prepare: Any = AsIs()
    if isinstance(data, Profiles):
        prepare = Prepare.fit(seen, prune=how == "each", scale=how != "none", common=how == "common", clip=clip)
    seen = prepare.apply(seen)  # the raw rows are let go: at half a million compounds each copy is gigabytes
    held = (prepare.apply(data.take(valid)), labels.take(valid)) if len(valid) else None
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    fitted = learner.fit(seen, labels.take(train), valid=held, seed=number, run=folder, jobs=jobs)
    return fitted, prepare


def predict(
    fitted: Any, prepare: Any, data: Any, rows: np.ndarray, labels: Labels, tasks: list[str] | None = None
) -> Predictions:
    """Score rows in blocks: the measured entries only, or every row in the given `tasks`.

    Parameters
    ----------
    rows : int array
        Rows of `data` to score.
    labels : Labels
        Row-aligned with `data`; where `tasks` is None its stored entries are the ones kept.
    tasks : list of str, optional
        Score all rows in these tasks and keep every entry (a dense block).
    """
    parts = []
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        scored = fitted.predict(prepare.apply(data.take(block)), tasks)
        parts.append(scored if tasks is not None else scored.at(labels.take(block).Y))
    if not parts:
        kept = labels.task_names if tasks is None else tasks
        empty = sparse.csr_matrix((0, len(kept)), dtype=np.float32)
        return Predictions(empty, np.empty(0, dtype=object), kept, type(fitted).__name__.lower())
    return concatenate(parts)


def concatenate(parts: list[Predictions]) -> Predictions:
    """Stack predictions of the same tasks by one model, in the order given."""
    first = parts[0]

    def stack(blocks: list[Any]) -> Any:
        if blocks[0] is None:
            return None
        return sparse.vstack(blocks, format="csr") if sparse.issparse(blocks[0]) else np.concatenate(blocks)

    fold = None if first.fold is None else np.concatenate([p.fold for p in parts])
    return Predictions(
        stack([p.score for p in parts]),
        np.concatenate([p.compounds for p in parts]),
        first.tasks,
        first.model,
        stack([p.spread for p in parts]),
        fold,
        first.kind,
    )
