"""Which wells are references, what they hold, and the earlier wells that they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import ChecksConfig, ProfileSource
from phenohit.data.joins import find_column
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, FileError, nearest, some

__all__ = [
    "KEPT",
    "control_rows",
    "history_file",
    "history_of",
    "medians",
    "reference_groups",
    "reference_wells",
    "shared_history",
]

KEPT = "reference_wells.parquet"  # in the folder `checks` of a run: history for later runs
_SCALE = 5.0  # spreads that differ by more than this factor in most features: other units
_LEAST = 10  # wells to tell a spread from


def reference_wells(
    rows: pd.DataFrame, references: Mapping[str, Sequence[str]], *, strict: bool = True
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which wells are references, shape (P,), and notes on values that mark none.

    Parameters
    ----------
    rows : DataFrame
        Columns ``Metadata_*``.
    references : dict of str to list of str
        Column (as written, or without ``Metadata_``) -> values.
    strict : bool
        Raise where a column is absent or no well is a reference.

    Raises
    ------
    ColumnError
        For an absent column.
    ConfigError
        If no value marks a well.
    """
    found, notes = np.zeros(len(rows), dtype=bool), []
    for name, values in references.items():
        column = find_column(rows, name)
        if column is None:
            if strict:
                raise ColumnError(f"checks.references: there is no column '{name}'. {nearest(name, rows.columns)}")
            continue
        text, marks = rows[column].astype(str).str.strip(), {str(v).strip() for v in values} - {""}
        hit = text.isin(list(marks)).to_numpy()
        if strict and not hit.any():
            raise ConfigError(
                f"checks.references: column '{name}' holds none of {some(sorted(marks))}. It holds "
                f"{some(text.value_counts().index)}. Give the values that mark reference wells."
            )
        absent = sorted(marks - set(text[hit]))
        if strict and absent:
            notes.append(f"no well has {name} {some(absent)}")
        found |= hit
    return found, notes


def history_file(path: str) -> Path:
    """Return the file that `checks.history` means: itself, or what a run kept of its reference wells.

    Raises
    ------
    FileError
        If a run kept no reference wells.
    """
    if not Path(path).is_dir():
        return Path(path)
    kept = Path(path) / "checks" / KEPT
    if not kept.is_file():
        raise FileError(
            f"checks.history: '{path}' has no 'checks/{KEPT}'. A run keeps one if its checks.references name "
            "wells: run it again with them, or give a table of wells."
        )
    return kept


def history_of(path: str) -> Profiles:
    """Read earlier wells: what a run kept, or any table of wells."""
    file = history_file(path)
    if file.name == KEPT:
        return Profiles.load(file)
    from phenohit.data.read import read_profiles

    return read_profiles(ProfileSource(path=str(file)))[0]


def shared_history(
    after: Profiles, controls: NDArray[np.float32], X: NDArray[np.float32], config: ChecksConfig
) -> tuple[Profiles, NDArray[np.intp], list[str]]:
    """Return the history on the shared features, which of our features these are, and notes."""
    past = history_of(config.history)
    if past.history and after.history and past.history != after.history:
        raise ConfigError(
            f"checks.history: '{config.history}' was made by the steps {some(past.history)}, these wells by "
            f"{some(after.history)}: their numbers cannot be compared. Normalise both in the same way."
        )
    own = {name: j for j, name in enumerate(past.features)}
    shared = np.array([j for j, name in enumerate(after.features) if name in own], dtype=np.intp)
    if not len(shared):
        raise ColumnError(
            f"checks.history: '{config.history}' has none of the features of these wells, such as "
            f"{some(after.features, 3)}. It has {some(past.features, 3)}. Give wells measured in the same way."
        )
    notes = [f"{len(past.features):,} features in the history, {len(after.features):,} here, {len(shared):,} in both"]
    there = past.take(np.ones(len(past), dtype=bool))
    if "Metadata_Plate" in past.rows:
        again = past.rows["Metadata_Plate"].isin(set(after.rows["Metadata_Plate"])).to_numpy()
        there = past.take(~again)
        if again.any():
            notes.append(f"{again.sum():,} wells of the history are on plates judged here and have no part")
    features = [after.features[j] for j in shared]
    past = there.with_features(there.X[:, [own[name] for name in features]], features, "shared features")
    old = past.X[control_rows(past)]
    if min(len(old), len(controls)) < _LEAST:  # no controls to tell the scale by
        old, controls = past.X[reference_wells(past.rows, config.references, strict=False)[0]], X
    _same_scale(old, controls[:, shared], config.history)
    return past, shared, notes


def _same_scale(old: NDArray[np.float32], new: NDArray[np.float32], path: str) -> None:
    if min(len(old), len(new)) < _LEAST:
        return
    spreads = [medians(np.abs(block - medians(block))) for block in (old, new)]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.abs(np.log(spreads[1] / spreads[0]))
    ratio = ratio[np.isfinite(ratio)]
    if len(ratio) and np.median(ratio) > np.log(_SCALE):
        raise ConfigError(
            f"checks.history: wells of the same kind spread {np.exp(np.median(ratio)):.3g} times more or less in "
            f"'{path}' than here, on the median feature: it is on another scale. Normalise both in the same way."
        )


def reference_groups(rows: pd.DataFrame, references: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Plate, compound and dose of reference wells; the column that marks them where no id is known."""
    name = pd.Series("", index=rows.index, dtype=str)
    columns = [find_column(rows, c) for c in references]
    for column in ("Metadata_compound_id", "Metadata_InChIKey", "Metadata_SMILES", *columns):
        if column is not None and column in rows:
            name = name.mask(name == "", rows[column].astype(str).str.strip())
    known = "Metadata_concentration_uM" in rows
    dose = rows["Metadata_concentration_uM"].astype(str).str.strip() if known else pd.Series("", index=rows.index)
    number = pd.to_numeric(dose, errors="coerce")
    dose = dose.mask(number.notna(), number.map(lambda v: f"{v:.4g}"))  # 0.30 and 0.3 are one dose
    alone = pd.Series([f"row {i}" for i in range(len(rows))], index=rows.index)  # no plates: every well its own
    plate = rows["Metadata_Plate"].astype(str) if "Metadata_Plate" in rows else alone
    table = pd.DataFrame({"plate": plate, "reference": name, "concentration": dose})
    return table.reset_index(drop=True)


def control_rows(profiles: Profiles) -> NDArray[np.intp]:
    """Positions of the negative controls; none where they are not known."""
    if "Metadata_pert_type" not in profiles.rows:
        return np.zeros(0, dtype=np.intp)
    return np.flatnonzero((profiles.rows["Metadata_pert_type"] == "negcon").to_numpy(dtype=bool))


def medians(X: NDArray) -> NDArray[np.float64]:
    """Median of every feature over the rows that have it, shape (F,)."""
    return pd.DataFrame(X).median().to_numpy(dtype=np.float64)
