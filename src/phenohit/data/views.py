"""`Views`: which file holds which channel of which site of which well; never pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from phenohit.errors import ColumnError, PlateError, ShapeError, some
from phenohit.files import read_table, write_table

__all__ = ["Views"]

_KEY = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
_FILE = "File_"  # column prefix on disk


@dataclass(frozen=True, eq=False)
class Views:
    """Images of sites: one row per view, one file per channel.

    Attributes
    ----------
    rows : DataFrame, V rows
        Columns ``Metadata_*``, all text; ``Metadata_Plate``, ``Metadata_Well`` (A01) and ``Metadata_Site`` always.
    files : DataFrame, V rows and C columns
        Where each channel is: a path or an address, with ``#`` and a number where a file holds several channels, e.g.
        ``plate1/A01.ome.tif#2``. Empty text: missing. Columns are channels in their order.

    Raises
    ------
    ShapeError, ColumnError
        If the parts do not fit together.
    PlateError
        If a site of a well of a plate occurs twice.
    """

    rows: pd.DataFrame
    files: pd.DataFrame

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.files):
            raise ShapeError(f"There are {len(self.rows)} views, but files of {len(self.files)}.")
        lacking = [c for c in _KEY if c not in self.rows]
        if lacking:
            raise ColumnError(f"Views need the columns {', '.join(_KEY)}; absent: {', '.join(lacking)}.")
        odd = [c for c in self.rows.columns if not str(c).startswith("Metadata_")]
        if odd:
            raise ColumnError(f"Row columns must begin with 'Metadata_', unlike {some(odd)}.")
        doubled = self.rows.duplicated(_KEY).to_numpy()
        if doubled.any():
            names = self.rows.loc[doubled, _KEY].agg("/".join, axis=1)
            raise PlateError(
                f"{int(doubled.sum())} views occur more than once (plate/well/site): {some(names)}. Each site of a "
                "well needs one file per channel: name plates apart, or leave the copies out."
            )
        object.__setattr__(self, "rows", self.rows.reset_index(drop=True))
        object.__setattr__(self, "files", self.files.reset_index(drop=True))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def channels(self) -> list[str]:
        """Names of the channels, in order."""
        return [str(c) for c in self.files.columns]

    @property
    def plates(self) -> list[str]:
        """Names of the plates, in order of first appearance."""
        return self.rows["Metadata_Plate"].astype(str).unique().tolist()

    def names(self) -> pd.Series:
        """Plate/well/site of every view, shape (V,)."""
        return self.rows[_KEY[0]].str.cat([self.rows[c] for c in _KEY[1:]], sep="/")

    def complete(self) -> np.ndarray:
        """Whether every channel of a view has a file; bool, shape (V,)."""
        return self.files.ne("").all(axis=1).to_numpy(bool)

    def take(self, rows: ArrayLike) -> Views:
        """Keep these rows (indices or a mask), in this order."""
        at = np.arange(len(self))[np.asarray(rows)]
        return Views(self.rows.iloc[at], self.files.iloc[at])

    def of_plate(self, plate: str) -> Views:
        """Keep the views of one plate."""
        return self.take(self.rows["Metadata_Plate"].eq(plate).to_numpy(bool))

    def with_channels(self, channels: Sequence[str]) -> Views:
        """Keep these channels, in this order."""
        lacking = [c for c in channels if c not in self.files]
        if lacking:
            raise ColumnError(f"No channel is called {some(lacking)}. There are {', '.join(self.channels)}.")
        return Views(self.rows, self.files[list(channels)])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one table: ``Metadata_*`` and ``File_<channel>``."""
        write_table(path, pd.concat([self.rows, self.files.add_prefix(_FILE)], axis=1))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Views:
        """Read what `save` wrote.

        Raises
        ------
        FileError, ColumnError
        """
        table: Any = read_table(path)[0]
        files = [c for c in table.columns if str(c).startswith(_FILE)]
        rows = table[[c for c in table.columns if c not in files]]
        return cls(rows.astype(str), table[files].rename(columns=lambda c: str(c).removeprefix(_FILE)))
