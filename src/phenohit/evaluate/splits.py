"""Which rows train, validate and test: whole groups of compounds, balanced in size and labels."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from phenohit.data.dropped import nothing_dropped
from phenohit.data.labels import Labels
from phenohit.errors import ColumnError, ConfigError, FileError, ShapeError, some
from phenohit.evaluate.balance import balance, group_counts
from phenohit.files import read_table, write_table

__all__ = ["TEST", "TRAIN", "UNUSED", "VALID", "Folds", "group_folds", "holdout", "leave_plates_out", "set_apart"]

TRAIN, VALID, TEST, UNUSED = 0, 1, 2, 3
_SPLIT = "split "  # prefix of a split's column on disk


@dataclass(frozen=True, eq=False)
class Folds:
    """Splits of the same rows into training, validation and test rows.

    Attributes
    ----------
    part : int8 array, shape (R, S)
        One column per split: TRAIN, VALID, TEST or UNUSED for each row (compound or well).
    rows : DataFrame, R rows
        ``compound`` (text), ``group`` (int: what is kept whole), ``plate`` (text, '' if unknown).
    names : list of str, length S
        Unique, e.g. ``'0'``, or ``'0.p1'`` for fold 0 with the second part of the plates held out.
    fold : list of int, length S
        Number under which a split's test rows are evaluated: ``'0.p0'`` and ``'0.p1'`` share one.
    kind : str
        How the split was made. The words series, scaffold and plate in it say which of the leak
        checks must pass (see `phenohit.evaluate.leaks.check`).
    left_out : DataFrame
        What a split made elsewhere and the run do not share (columns of `phenohit.data.dropped.dropped`).

    Raises
    ------
    ShapeError, ColumnError, ConfigError
        If the parts do not fit together.
    """

    part: NDArray[np.int8]
    rows: pd.DataFrame
    names: list[str]
    fold: list[int]
    kind: str = ""
    left_out: pd.DataFrame = field(default_factory=nothing_dropped)

    def __post_init__(self) -> None:
        if self.part.ndim != 2 or self.part.dtype != np.int8:
            raise ShapeError(f"Folds.part must be a 2-D int8 array, not {self.part.ndim}-D {self.part.dtype}.")
        R, S = self.part.shape
        if (len(self.rows), len(self.names), len(self.fold)) != (R, S, S):
            raise ShapeError(
                f"Folds.part has shape {self.part.shape}, but there are {len(self.rows)} rows, {len(self.names)} "
                f"names and {len(self.fold)} fold numbers."
            )
        absent = [c for c in ("compound", "group", "plate") if c not in self.rows]
        if absent:
            raise ColumnError(f"Rows of folds lack the columns {some(absent)}; they have {some(self.rows.columns)}.")
        if len(set(self.names)) < S:
            raise ConfigError(f"Split names must be unique, not {some(self.names)}.")
        odd = np.setdiff1d(self.part, [TRAIN, VALID, TEST, UNUSED])
        if len(odd):
            raise ConfigError(
                f"Folds.part holds {some(odd.tolist())}. Use {TRAIN} (train), {VALID} (validation), {TEST} (test) "
                f"and {UNUSED} (unused)."
            )
        object.__setattr__(self, "rows", self.rows.reset_index(drop=True))

    def __len__(self) -> int:
        return len(self.names)

    def rows_of(self, split: int, part: int) -> NDArray[np.int64]:
        """Return the row positions of one part (e.g. `TEST`) of split number `split`, ascending."""
        return np.flatnonzero(self.part[:, split] == part)

    @classmethod
    def from_numbers(
        cls, number: NDArray[Any], rows: pd.DataFrame, *, kind: str = "", group: NDArray[Any] | None = None
    ) -> Folds:
        """Take folds made elsewhere: row i is tested in fold ``number[i]`` and trains the others.

        Parameters
        ----------
        number : int array, shape (R,)
            Fold of each row; negative: the row is not used.
        rows : DataFrame, R rows
            Column ``compound``; ``plate`` if known.
        kind : str
        group : int array, shape (R,), optional
            What was kept whole; by default the compound.
        """
        number = np.asarray(number)
        table = _rows(rows, pd.factorize(rows["compound"])[0] if group is None else group)
        ks = np.unique(number[number >= 0])
        part = np.where(number[:, None] == ks[None, :], TEST, TRAIN).astype(np.int8)
        part[number < 0] = UNUSED
        return cls(part, table, [str(k) for k in ks], [int(k) for k in ks], kind)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one Parquet file: compound, group, plate, then a column of parts for every split.

        What was left out is written beside it, as ``<name>.left_out.csv``.
        """
        columns = {_SPLIT + name: self.part[:, s] for s, name in enumerate(self.names)}
        table = pd.concat([self.rows[["compound", "group", "plate"]], pd.DataFrame(columns)], axis=1)
        meta = {"kind": "folds", "how": self.kind, "names": json.dumps(self.names), "fold": json.dumps(self.fold)}
        beside = Path(path).with_suffix(".left_out.csv")
        beside.unlink(missing_ok=True)  # of an earlier split
        if len(self.left_out):
            write_table(beside, self.left_out)
        write_table(path, table, meta=meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Folds:
        """Read what `save` wrote.

        Raises
        ------
        FileError
            If the file is absent, damaged or not ours.
        """
        table, meta = read_table(path)
        if meta.get("kind") != "folds":
            raise FileError(f"'{path}' holds no folds written by PhenoHit. Use Folds.from_numbers for others.")
        names = [str(n) for n in json.loads(meta["names"])]
        part = table[[_SPLIT + n for n in names]].to_numpy(dtype=np.int8)
        rows = table[["compound", "group", "plate"]]
        return cls(np.ascontiguousarray(part), rows, names, [int(f) for f in json.loads(meta["fold"])], meta["how"])


def group_folds(
    groups: NDArray[Any],
    n_folds: int,
    *,
    labels: Labels | None = None,
    rows: pd.DataFrame,
    valid: float = 0.1,
    seed: int = 0,
    kind: str = "",
) -> Folds:
    """Make k folds for cross-validation in which every group stays whole.

    Groups go one by one, the largest first, to the fold that leaves size and labels (actives and
    inactives of every task separately) best balanced; see `phenohit.evaluate.balance.balance`.

    Parameters
    ----------
    groups : int array, shape (R,)
        Series, scaffold or compound number of every row.
    n_folds : int
        At least 2, at most the number of groups.
    labels : Labels, R rows, optional
        Row-aligned; without it only sizes are balanced.
    rows : DataFrame, R rows
        Column ``compound``; ``plate`` if known.
    valid : float in [0, 1), default 0.1
        Share of each fold's training rows set apart for early stopping, by group.
    seed : int
        Same seed, same folds. The partition of groups does not depend on the order of rows.
    kind : str
        Kept in the result.

    Returns
    -------
    Folds
        S = n_folds; every row is tested exactly once.

    Raises
    ------
    ConfigError
        If there are fewer groups than folds, or a number is out of range.
    """
    unique, code, labels = _ready(groups, rows, labels)
    if n_folds < 2:
        raise ConfigError(f"folds is {n_folds}; cross-validation needs at least 2. For one hold-out use fractions.")
    if len(unique) < n_folds:
        raise ConfigError(
            f"There are only {len(unique)} groups ({kind or 'as given'}) for {n_folds} folds, and a group stays whole. "
            f"Set folds to {max(len(unique), 2)} or fewer, or split by a finer unit such as kind: compound."
        )
    if not 0 <= valid < 1:
        raise ConfigError(f"valid is {valid}; it is a share of the training groups, at least 0 and below 1.")
    counts = group_counts(code, len(unique), labels)
    rng = np.random.default_rng(seed)
    fold_of = balance(counts, np.full(n_folds, 1 / n_folds), rng)
    part = np.full((len(code), n_folds), TRAIN, dtype=np.int8)
    for k in range(n_folds):
        part[fold_of[code] == k, k] = TEST
        part[set_apart(counts, np.flatnonzero(fold_of != k), valid, rng)[code], k] = VALID
    names = [str(k) for k in range(n_folds)]
    return Folds(part, _rows(rows, groups), names, list(range(n_folds)), kind)


def set_apart(
    counts: sparse.csr_matrix, train: NDArray[np.int64], valid: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose the validation groups among those that train.

    Parameters
    ----------
    counts : CSR matrix, G rows
        From `phenohit.evaluate.balance.group_counts`.
    train : int array
        The groups that train.
    valid : float in [0, 1)
        Share of them to choose.
    rng : Generator

    Returns
    -------
    bool array, shape (G,)
    """
    chosen = np.zeros(len(counts.indptr) - 1, dtype=bool)
    if valid > 0 and len(train) > 1:
        chosen[train] = balance(counts[train], np.array([1 - valid, valid]), rng) == 1
    return chosen


def holdout(
    groups: NDArray[Any],
    *,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    repeats: int = 1,
    labels: Labels | None = None,
    rows: pd.DataFrame,
    seed: int = 0,
    kind: str = "",
) -> Folds:
    """Split once, or several times, into train, validation and test, every group whole.

    Parameters
    ----------
    groups, labels, rows, seed, kind
        As in `group_folds`.
    fractions : three floats
        Share of rows for train, validation (may be 0) and test; they add up to 1. Hofmarcher 2019
        uses 0.7, 0.1, 0.2.
    repeats : int, default 1
        Independent draws; each is one split with its own fold number. A group larger than the
        test share is always in training.

    Returns
    -------
    Folds
        S = repeats.

    Raises
    ------
    ConfigError
        If the fractions are impossible or there are fewer than two groups.
    """
    unique, code, labels = _ready(groups, rows, labels)
    share = np.array(fractions, dtype=float)
    if len(share) != 3 or (share < 0).any() or abs(share.sum() - 1) > 1e-6 or share[0] <= 0 or share[2] <= 0:
        raise ConfigError(
            f"fractions are {tuple(fractions)}; expected train, validation and test shares that add up to 1, with "
            "train and test above 0, such as (0.7, 0.1, 0.2)."
        )
    if len(unique) < 2:
        raise ConfigError(
            f"There is only {len(unique)} group ({kind or 'as given'}), and a group stays whole. Split by a finer unit "
            "such as kind: compound."
        )
    if repeats < 1:
        raise ConfigError(f"repeats is {repeats}; it must be at least 1.")
    counts = group_counts(code, len(unique), labels)
    part = np.empty((len(code), repeats), dtype=np.int8)
    for r in range(repeats):
        rng = np.random.default_rng([seed, r])
        part[:, r] = balance(counts, share, rng, must=(TEST, TRAIN))[code]
    names = [str(r) for r in range(repeats)]
    return Folds(part, _rows(rows, groups), names, list(range(repeats)), kind)


def leave_plates_out(
    folds: Folds,
    plates: Sequence[str] | NDArray[Any],
    n_plate_folds: int,
    *,
    labels: Labels | None = None,
    seed: int = 0,
) -> Folds:
    """Combine a split with plates: no test row's plate is seen in training or validation.

    Parameters
    ----------
    folds : Folds
        Any split whose rows are wells.
    plates : text, shape (R,)
        Plate of every row.
    n_plate_folds : int
        Parts of the plates; each is held out in turn, balanced as in `group_folds`.
    labels : Labels, R rows, optional
    seed : int

    Returns
    -------
    Folds
        For every split s and plate part p one split ``s.pp``: tested are the test rows of s on plates
        of p; train and validation rows are those of s on other plates; the rest is UNUSED. A
        combination without any test row is left out. A row tested in `folds` is tested once here.

    Raises
    ------
    ConfigError
        If a plate is unknown or there are fewer plates than parts.
    """
    plate = np.array([str(p) for p in plates], dtype=object)
    if len(plate) != len(folds.rows):
        raise ShapeError(f"There are {len(plate)} plates for {len(folds.rows)} rows of folds.")
    unknown = np.flatnonzero(plate == "")
    if len(unknown):
        raise ConfigError(
            f"{len(unknown)} rows have no plate: {some(f'row {i}' for i in unknown)}. Plates can be held out only "
            "where every well's plate is known: fill Metadata_Plate or set plate_folds to 0."
        )
    joined = sorted({p for p in plate.tolist() if ";" in p})
    if joined:
        raise ConfigError(
            f"Some rows lie on several plates: {some(joined)}. Set profiles.unit to well, so that each row has one "
            "plate, or set plate_folds to 0."
        )
    names = np.unique(plate)
    if not 2 <= n_plate_folds <= len(names):
        raise ConfigError(
            f"plate_folds is {n_plate_folds}, but there are {len(names)} plates: {some(names.tolist())}. Set it to "
            f"between 2 and {len(names)}, or to 0 for none."
        )
    code = np.searchsorted(names, plate)
    counts = group_counts(code, len(names), labels)
    held = balance(counts, np.full(n_plate_folds, 1 / n_plate_folds), np.random.default_rng(seed))[code]
    columns, new_names, numbers = [], [], []
    for s, name in enumerate(folds.names):
        for p in range(n_plate_folds):
            old = folds.part[:, s]
            keep = np.where(held == p, old == TEST, (old == TRAIN) | (old == VALID))
            part = np.where(keep, old, UNUSED).astype(np.int8)
            if (part == TEST).any():
                columns.append(part)
                new_names.append(f"{name}.p{p}")
                numbers.append(folds.fold[s])
    rows = folds.rows.assign(plate=plate)
    kind = f"{folds.kind}, plates held out".strip(", ")
    return Folds(np.stack(columns, axis=1), rows, new_names, numbers, kind, folds.left_out)


def _ready(
    groups: NDArray[Any], rows: pd.DataFrame, labels: Labels | None
) -> tuple[NDArray[Any], NDArray[np.int64], Labels | None]:
    """Check lengths; return the different groups in their own order and the position of every row's."""
    for what, n in (("rows", len(rows)), ("labels", len(rows) if labels is None else len(labels))):
        if n != len(groups):
            raise ShapeError(f"There are {len(groups)} groups but {n} {what}: one of each per row is needed.")
    unique, code = np.unique(np.asarray(groups), return_inverse=True)
    return unique, code.reshape(-1), labels


def _rows(rows: pd.DataFrame, groups: NDArray[Any]) -> pd.DataFrame:
    """Return the columns that folds carry."""
    if "compound" not in rows:
        raise ColumnError(f"Rows of folds need a column 'compound'; there are {some(rows.columns)}.")
    plate = rows["plate"].astype(str).to_numpy() if "plate" in rows else np.full(len(rows), "", dtype=object)
    compound = rows["compound"].astype(str).to_numpy()
    return pd.DataFrame({"compound": compound, "group": np.asarray(groups), "plate": plate})
