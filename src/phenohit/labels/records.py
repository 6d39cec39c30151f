"""Activity records in one form, whatever they were read from: blocks of numbers, texts told apart by a code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["NOT_IMAGED", "NO_COMPOUND", "TEXTS", "Block", "Records", "Wanted", "Words", "no_description"]

NO_COMPOUND = -1  # the record names no compound that can be identified
NOT_IMAGED = -2  # it does, and that compound is not among the wanted ones

# Columns of a block whose texts are kept in `Words`.
TEXTS = ("type", "relation", "units", "comment", "validity", "document")

# What the table of tasks says about an assay besides its name.
ABOUT = ("target", "target_name", "target_type", "organism", "assay_type", "confidence", "description")


class Words:
    """The different texts of a column, each with a number; '' (also for a missing value) is 0."""

    def __init__(self) -> None:
        self.texts: list[str] = [""]
        self._code: dict[str, int] = {"": 0}
        self._judged: dict[str, NDArray[np.int8]] = {}

    def codes(self, values: Iterable[object]) -> NDArray[np.int32]:
        """Return the number of every value; texts are stripped, new ones are added."""
        codes, unique = pd.factorize(np.asarray(values, dtype=object))
        new = np.zeros(len(unique) + 1, dtype=np.int32)  # the last serves code -1: missing
        for i, value in enumerate(unique):
            text = str(value).strip()
            new[i] = self._code.setdefault(text, len(self.texts))
            if new[i] == len(self.texts):
                self.texts.append(text)
        return new[codes]

    def judged(self, name: str, judge: Callable[[str], int]) -> NDArray[np.int8]:
        """Return ``judge(text)`` of every text so far; each text is judged once."""
        done = self._judged.get(name, np.zeros(0, dtype=np.int8))
        if len(done) < len(self.texts):
            more = np.array([judge(t) for t in self.texts[len(done) :]], dtype=np.int8)
            done = self._judged[name] = np.concatenate([done, more])
        return done


class Block(NamedTuple):
    """Some thousand records; every field has one element per record.

    `record` is the record's own id (int64, or text as object), `row` the row of the file from 0 (int64; -1 in a
    database), `compound` and `assay` are positions in the tables of `Records` (int32; negative: see
    `NO_COMPOUND`, `NOT_IMAGED`; -1: no assay), `value` and `pchembl` float64 with NaN where absent,
    `duplicate` and `salt` bool, the others codes of `Words` (int32).
    """

    record: NDArray
    row: NDArray[np.int64]
    compound: NDArray[np.int32]
    assay: NDArray[np.int32]
    value: NDArray[np.float64]
    pchembl: NDArray[np.float64]
    duplicate: NDArray[np.bool_]
    salt: NDArray[np.bool_]
    type: NDArray[np.int32]
    relation: NDArray[np.int32]
    units: NDArray[np.int32]
    comment: NDArray[np.int32]
    validity: NDArray[np.int32]
    document: NDArray[np.int32]


def no_description(positions: NDArray[np.integer]) -> pd.DataFrame:
    """Describe assays of which nothing is known."""
    return pd.DataFrame({c: [""] * len(positions) for c in ABOUT}, dtype=str)


@dataclass
class Records:
    """One source of activity records.

    Attributes
    ----------
    source : str
        Path or address, without a password.
    release : str
        Of ChEMBL, where the source tells.
    compounds : DataFrame
        ``compound`` (unique), ``id``, ``smiles``, ``inchikey``, ``skeleton``.
    assays : ndarray of str, shape (A,)
        Unique names.
    assay_rule : int8 array, shape (A,)
        Why all records of an assay are left out: number of a rule in `phenohit.labels.rules`, or -1.
    blocks : iterator of Block
        Can be gone through once.
    describe : callable
        Positions in `assays` -> DataFrame with the columns of `ABOUT`, all text.
    excluded : dict of int to int
        Rule -> records that the source left out itself (in its WHERE clause) and counted.
    words : dict of str to Words
        Texts of the columns of `TEXTS`.
    molar : bool
        Concentrations without a pChEMBL value are converted (in-house tables).
    dropped : DataFrame or None
        What could not be read.
    """

    source: str
    release: str
    compounds: pd.DataFrame
    assays: NDArray
    assay_rule: NDArray[np.int8]
    blocks: Iterator[Block]
    describe: Callable[[NDArray[np.integer]], pd.DataFrame] = no_description
    excluded: dict[int, int] = field(default_factory=dict)
    words: dict[str, Words] = field(default_factory=lambda: {name: Words() for name in TEXTS})
    molar: bool = False
    dropped: pd.DataFrame | None = None


class Wanted:
    """The compounds that labels are wanted for: by id, InChIKey and its first block.

    Parameters
    ----------
    compounds : DataFrame
        ``compound``, ``compound_id`` (several joined by ';'), ``inchikey``, ``skeleton``: what
        `phenohit.labels.join` joins to.
    """

    def __init__(self, compounds: pd.DataFrame) -> None:
        ids = compounds["compound_id"].astype(str)
        known = pd.concat([ids, ids.str.split(";").explode(), compounds["compound"].astype(str)])
        self.ids = pd.Index(known[known != ""].unique())
        keys, skeletons = compounds["inchikey"].astype(str), compounds["skeleton"].astype(str)
        self.keys = pd.Index(keys[keys != ""].unique())
        self.skeletons = pd.Index(skeletons[skeletons != ""].unique())

    def match(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Tell which rows (``id``, ``inchikey``, ``skeleton``) may be one of the wanted compounds."""
        found = table["id"].isin(self.ids) | table["inchikey"].isin(self.keys) | table["skeleton"].isin(self.skeletons)
        return found.to_numpy(dtype=bool)
