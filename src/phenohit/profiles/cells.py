"""Single cells become wells: exact statistics over cells that arrive in blocks, in any order.

A well's cells are held until the well is complete, then summarised and forgotten. Where cells arrive so
mixed that too many wells are open at once, what is held goes to a temporary file: memory stays bounded
by `HOLD`, one block and the largest well, whatever the order and the number of cells.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable, Sequence
from typing import IO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, FileError, PlateError, some

__all__ = ["HOLD", "STAGE", "Collector", "WellTable", "check_statistics", "summarise"]

log = logging.getLogger("phenohit")

HOLD = 1 << 28  # bytes of cells held in memory for wells that are not complete yet
STAGE = "read cells"
_COLUMNS = 128  # features summarised at once
_GAPS = 0.05  # share of cells without a value above which a feature is listed

_QUANTILE = re.compile(r"q(\d{1,2}(?:\.\d+)?)")


def check_statistics(names: Sequence[str]) -> list[str]:
    """Return the statistics of the settings, or say which is unknown.

    Raises
    ------
    ConfigError
    """
    known = "median, mean, sd, mad or a quantile from q1 to q99, such as q10"
    if not names:
        raise ConfigError(f"profiles.cells is empty. Give at least one of {known}.")
    for name in names:
        quantile = _QUANTILE.fullmatch(name)
        if name not in ("median", "mean", "sd", "mad") and not (quantile and float(quantile[1]) > 0):
            raise ConfigError(f"profiles.cells: '{name}' is not known. Expected {known}.")
    if len(set(names)) < len(names):
        raise ConfigError(f"profiles.cells names a statistic twice: {some(names)}. Name each once.")
    return list(names)


def summarise(cells: NDArray[np.float32], statistics: Sequence[str]) -> NDArray[np.float32]:
    """Summarise the cells of one well.

    Parameters
    ----------
    cells : float32 array, shape (cells, F)
        NaN is no value.
    statistics : sequence of str, length S
        ``median``, ``mean``, ``sd`` (divisor n - 1; NaN for one cell), ``mad`` (median distance from the
        median, not scaled), ``q10`` (linear between neighbouring values, as numpy and pandas do).

    Returns
    -------
    float32 array, shape (S, F)
        Over the cells that have a value, in float64; NaN where none has.
    """
    out = np.full((len(statistics), cells.shape[1]), np.nan, dtype=np.float32)
    if not len(cells):
        return out
    for left in range(0, cells.shape[1], _COLUMNS):
        part = slice(left, left + _COLUMNS)
        block = np.sort(cells[:, part].T, axis=1)  # NaN sort to the end
        count = block.shape[1] - np.isnan(block).sum(axis=1)
        for s, name in enumerate(statistics):
            with np.errstate(over="ignore"):
                out[s, part] = _statistic(block, count, name)
    return out


def _statistic(block: NDArray[np.float32], count: NDArray[np.intp], name: str) -> NDArray[np.float64]:
    """One statistic of sorted rows that begin with `count` values each."""
    if name in ("mean", "sd"):
        n = np.maximum(count, 1)
        mean = np.nansum(block, axis=1, dtype=np.float64) / n
        if name == "mean":
            return np.where(count > 0, mean, np.nan)
        square = np.nansum((block - mean[:, None]) ** 2, axis=1, dtype=np.float64)
        return np.where(count > 1, np.sqrt(square / np.maximum(n - 1, 1)), np.nan)
    if name == "mad":
        distance = np.abs(block - _quantile(block, count, 0.5)[:, None])
        return _quantile(np.sort(distance, axis=1), count, 0.5)
    found = _QUANTILE.fullmatch(name)
    return _quantile(block, count, float(found[1]) / 100 if found else 0.5)


def _quantile(block: NDArray, count: NDArray[np.intp], share: float) -> NDArray[np.float64]:
    place = share * np.maximum(count - 1, 0)
    low = np.floor(place).astype(np.intp)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    below = np.take_along_axis(block, low[:, None], axis=1)[:, 0].astype(np.float64)
    above = np.take_along_axis(block, high[:, None], axis=1)[:, 0].astype(np.float64)
    return np.where(count > 0, below + (above - below) * (place - low), np.nan)


class WellTable:
    """Wells under construction.

    Parameters
    ----------
    n_wells : int
    features : sequence of str, length F
    statistics : sequence of str, length S
    hold : int
        Bytes of cells that may wait in memory.

    Attributes
    ----------
    X : float32 array, shape (n_wells, S, F)
    n_cells : int64 array, shape (n_wells,)
        Cells summarised; kept by `count`.
    n_values, n_gaps : int64 arrays, shape (F,)
        Cells with and without a value; infinite counts as without, and in `n_infinite` too.
    """

    def __init__(self, n_wells: int, features: Sequence[str], statistics: Sequence[str], hold: int = HOLD) -> None:
        self.features = list(features)
        self.statistics = check_statistics(statistics)
        self.X = np.full((n_wells, len(self.statistics), len(self.features)), np.nan, dtype=np.float32)
        self.n_cells = np.zeros(n_wells, dtype=np.int64)
        self.n_values, self.n_gaps, self.n_infinite = np.zeros((3, len(self.features)), dtype=np.int64)
        self.hold, self.held = hold, 0

    def count(self, wells: NDArray[np.intp]) -> None:
        """Count cells; `wells` is the well of each, shape (cells,)."""
        self.n_cells += np.bincount(wells, minlength=len(self.n_cells))

    def collector(self, columns: slice | None = None) -> Collector:
        """Return what takes the cells' values of some features (all, or a slice of them)."""
        return Collector(self, columns or slice(0, len(self.features)))

    def names(self) -> list[str]:
        """Names of the S x F columns: the first statistic keeps the feature's name."""
        rest = [f"{f}__{s}" for s in self.statistics[1:] for f in self.features]
        return self.features + rest

    def finish(self, rows: pd.DataFrame, min_cells: int) -> tuple[Profiles, pd.DataFrame]:
        """Return the wells that have enough cells, and what was left out.

        Parameters
        ----------
        rows : DataFrame, n_wells rows
            ``Metadata_Plate``, ``Metadata_Well`` and more.
        min_cells : int

        Raises
        ------
        PlateError
            If no well has enough cells.
        ColumnError
            If no feature has a value in any cell.
        """
        least = max(min_cells, 1)
        few = self.n_cells < least
        place = rows["Metadata_Plate"].str.cat(rows["Metadata_Well"], sep=" ").to_numpy(object)
        lost = [dropped(STAGE, "well", place[few], [f"{n} cells, fewer than {least}" for n in self.n_cells[few]])]
        if few.all():
            raise PlateError(
                f"None of the {len(rows)} wells has {least} cells: the fullest has {self.n_cells.max(initial=0)}. "
                "Lower profiles.min_cells, or check that the object tables belong to the images."
            )
        never = self.n_values == 0
        if never.all():
            shown = some(self.features, 3)
            raise ColumnError(f"None of the {len(never)} features has a value in any cell, e.g. {shown}.")
        gone = [self.features[j] for j in np.flatnonzero(never)]
        lost += [dropped(STAGE, "feature", gone, "no value in any cell"), self._gappy(never)]
        keep = np.tile(~never, len(self.statistics))
        flat = self.X.reshape(len(rows), -1)
        X = flat if keep.all() and not few.any() else flat[np.ix_(~few, keep)]
        names = [f for f, k in zip(self.names(), keep, strict=True) if k]
        kept = rows.loc[~few].reset_index(drop=True)
        history = (f"{'+'.join(self.statistics)}[cells]",)
        return Profiles(np.ascontiguousarray(X), kept, names, history), pd.concat(lost, ignore_index=True)

    def _gappy(self, never: NDArray[np.bool_]) -> pd.DataFrame:
        """List features that many cells lack, or that were infinite somewhere; they are kept."""
        total = self.n_values + self.n_gaps
        many = ~never & (self.n_gaps > _GAPS * total)
        hit = np.flatnonzero((many | (self.n_infinite > 0)) & ~never)
        text = "{:,} of {:,} cells have no value ({:,} infinite); the feature is kept"
        reasons = [text.format(self.n_gaps[j], total[j], self.n_infinite[j]) for j in hit]
        return dropped(STAGE, "feature", [self.features[j] for j in hit], reasons)


class Collector:
    """Take cells of some features, block by block; write a well's row when it is closed."""

    def __init__(self, table: WellTable, columns: slice) -> None:
        self.table, self.columns = table, columns
        self._width = columns.stop - columns.start
        self._held: dict[int, list[NDArray[np.float32]]] = {}
        self._in_memory = 0
        self._file: IO[bytes] | None = None
        self._written: dict[int, list[tuple[int, int]]] = {}  # well -> offset in the file, cells

    def add(self, wells: NDArray[np.intp], block: NDArray[np.float32]) -> None:
        """Add cells.

        Parameters
        ----------
        wells : int array, shape (n,)
            Well of each cell.
        block : float32 array, shape (n, columns)
            It is kept, and its infinite values become NaN in place.
        """
        if not len(wells):
            return
        table = self.table
        infinite = np.isinf(block)
        if infinite.any():
            table.n_infinite[self.columns] += infinite.sum(axis=0)
            block[infinite] = np.nan
        gaps = np.isnan(block).sum(axis=0)
        table.n_gaps[self.columns] += gaps
        table.n_values[self.columns] += len(block) - gaps
        if wells[0] == wells[-1] and (wells == wells[0]).all():
            self._held.setdefault(int(wells[0]), []).append(block)
        else:
            order = np.argsort(wells, kind="stable")
            starts = np.flatnonzero(np.diff(wells[order], prepend=-1))
            for rows in np.split(order, starts[1:]):
                self._held.setdefault(int(wells[rows[0]]), []).append(block[rows])
        self._in_memory += block.nbytes
        table.held += block.nbytes
        if table.held > table.hold:
            self._spill()

    def close(self, wells: Iterable[int]) -> None:
        """Summarise wells of which all cells have been added."""
        for well in wells:
            parts = self._held.pop(int(well), [])
            freed = sum(p.nbytes for p in parts)
            self._in_memory -= freed
            self.table.held -= freed
            parts += [self._read(*place) for place in self._written.pop(int(well), [])]
            if parts:
                cells = parts[0] if len(parts) == 1 else np.concatenate(parts)
                self.table.X[well, :, self.columns] = summarise(cells, self.table.statistics)

    def finish(self) -> None:
        """Summarise all wells that are still open, and remove the temporary file."""
        self.close([*dict.fromkeys([*self._held, *self._written])])
        if self._file is not None:
            self._file.close()
            self._file = None

    def _spill(self) -> None:
        """Move what waits in memory to a temporary file."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="phenohit-cells-")  # noqa: SIM115 - closed by finish
                log.info("read cells: wells are so mixed in the files that a temporary file is used")
            offset = self._file.seek(0, 2)
            for well, parts in self._held.items():
                for part in parts:
                    self._file.write(np.ascontiguousarray(part).data)
                    self._written.setdefault(well, []).append((offset, len(part)))
                    offset += part.nbytes
        except OSError as error:
            raise FileError(
                f"Cells cannot be kept in a temporary file in '{tempfile.gettempdir()}' ({error.strerror or error}). "
                "Free some space there, or set TMPDIR to a larger disk."
            ) from error
        self.table.held -= self._in_memory
        self._in_memory = 0
        self._held.clear()

    def _read(self, offset: int, n: int) -> NDArray[np.float32]:
        assert self._file is not None
        self._file.seek(offset)
        return np.frombuffer(self._file.read(n * self._width * 4), dtype=np.float32).reshape(n, self._width)
