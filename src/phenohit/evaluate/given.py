"""Splits made elsewhere: which compounds train, validate and test is read from tables."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import SplitConfig
from phenohit.data.columns import normalise_wells
from phenohit.data.dropped import listed, nothing_dropped
from phenohit.data.labels import Labels
from phenohit.data.tables import read_text
from phenohit.errors import ColumnError, ConfigError, FileError, nearest, some
from phenohit.evaluate.balance import group_counts
from phenohit.evaluate.splits import TEST, TRAIN, UNUSED, VALID, Folds, set_apart
from phenohit.files import hash_file

__all__ = ["SplitFile", "given_folds", "split_files", "split_inputs"]

log = logging.getLogger("phenohit")

_STAGE = "split"
_PARTS = {
    "train": TRAIN, "training": TRAIN, "val": VALID, "valid": VALID, "validation": VALID, "test": TEST,
    "testing": TEST,
}  # fmt: skip
_NAMES = {TRAIN: "train", VALID: "valid", TEST: "test"}
# Our name -> usual names of a column, in lower case and without Metadata_. SAMPLE_KEY, PLATE_ID and WELL_POSITION are
# those of Hofmarcher 2019 (hti-cnn).
_COLUMNS = {
    "compound": ("compound", "compound_id"),
    "inchikey": ("inchikey", "inchi_key"),
    "smiles": ("smiles", "cpd_smiles"),
    "sample": ("sample_key", "sample"),
    "plate": ("plate", "plate_id", "assay_plate_barcode"),
    "well": ("well", "well_position"),
    "part": ("part", "split", "subset", "set"),
    "fold": ("fold",),
}
_SAMPLE = r"^(?P<plate>.+)-(?P<well>[A-Za-z]{1,2}\d{1,2})(?:-[^-]+)?$"


class SplitFile(NamedTuple):
    """A file of a given split: for which repeat, and for which part where the name of the file tells."""

    path: str
    repeat: str
    part: int | None


def split_files(split: SplitConfig) -> list[SplitFile]:
    """Find the files of a given split.

    Parameters
    ----------
    split : SplitConfig
        Of kind ``given``.

    Returns
    -------
    list of SplitFile
        Repeat by repeat, numbers in their order.

    Raises
    ------
    ConfigError
        If no path is given.
    FileError
        If there is no such file, or a repeat has no file for train or test, or two for one part.
    """
    if not split.path:
        raise ConfigError(
            "A split of kind given is read from files: set splits.path, e.g. datasplit{repeat}-{part}.csv or folds.csv."
        )
    marks = [m for m in ("{repeat}", "{part}") if m in split.path]
    if not marks:
        return [SplitFile(split.path, "", None)]
    whole = Path(split.path)
    fixed = next(i for i, p in enumerate(whole.parts) if any(m in p for m in marks))
    wild, pattern = glob.escape(str(Path(*whole.parts[fixed:]))), re.escape(str(whole))
    meant = {"{repeat}": r"[^/\\]+?", "{part}": "|".join(sorted(_PARTS, key=len, reverse=True))}
    for mark in marks:
        name = mark.strip("{}")
        wild = wild.replace(mark, "*")
        pattern = pattern.replace(re.escape(mark), f"(?P<{name}>{meant[mark]})", 1)
        pattern = pattern.replace(re.escape(mark), f"(?P={name})")
    found = []
    for path in sorted(map(str, Path(*whole.parts[:fixed]).glob(wild))):
        match = re.fullmatch(pattern, path, re.IGNORECASE)
        if match:
            named = match.groupdict()
            part = named.get("part")
            found.append(SplitFile(path, named.get("repeat") or "", None if part is None else _PARTS[part.lower()]))
    if not found:
        raise FileError(
            f"No file is called as splits.path says: '{split.path}'. {{part}} stands for train, valid (or val) or test."
        )
    found.sort(key=lambda f: (not f.repeat.isdigit(), int(f.repeat) if f.repeat.isdigit() else 0, f.repeat))
    _check_parts(found, split.path)
    return found


def split_inputs(split: SplitConfig) -> dict[str, str]:
    """Return path and content hash of the files that a split is read from; none where it is not given.

    Raises
    ------
    ConfigError, FileError
        As from `split_files`; or if a file is absent.
    """
    return {f.path: hash_file(f.path) for f in split_files(split)} if split.kind == "given" else {}


def _check_parts(files: list[SplitFile], path: str) -> None:
    for repeat in dict.fromkeys(f.repeat for f in files):
        parts = [f.part for f in files if f.repeat == repeat and f.part is not None]
        where = f"repeat '{repeat}' of '{path}'" if repeat else f"'{path}'"
        doubled = [_NAMES[p] for p in set(parts) if parts.count(p) > 1]
        if doubled:
            raise FileError(f"There are two files of {where} for {some(doubled)}. Keep one.")
        lacking = [_NAMES[p] for p in (TRAIN, TEST) if p not in parts]
        if parts and lacking:
            raise FileError(f"There is no file of {where} for {some(lacking)}. A split needs train and test.")


def given_folds(
    split: SplitConfig,
    rows: pd.DataFrame,
    compounds: pd.DataFrame,
    labels: Labels,
    *,
    wells: pd.DataFrame,
    seed: int,
) -> Folds:
    """Split rows as tables say that were made elsewhere.

    Parameters
    ----------
    split : SplitConfig
        ``path``, ``columns`` and ``valid`` are used.
    rows : DataFrame, R rows
        ``compound``, ``group`` (for validation rows, where the tables name none), ``plate``.
    compounds : DataFrame, R rows
        ``compound``, ``compound_id`` (several joined by ';'), ``inchikey``.
    labels : Labels, R rows
    wells : DataFrame
        ``compound, plate, well``.
    seed : int

    Returns
    -------
    Folds
        One split per repeat, or per fold number and repeat. A compound is where its table has it, with all its rows;
        one that no table has is UNUSED. ``left_out`` lists both sides' compounds that the other has not.

    Raises
    ------
    ConfigError, FileError
        As from `split_files`; or if no row of the run trains or is tested.
    ColumnError
        If a table has no column of compounds or of parts, a part is not known, or a compound is in two parts.

    Notes
    -----
    A row of a table is matched to a compound of the run by plate and well, else by the compound's name, else by
    InChIKey, else by the InChIKey of its standardised SMILES. Compounds are not merged: stereoisomers that the tables
    keep in different parts stay there, and the leak check tells.
    """
    files = split_files(split)
    names = pd.Index(pd.unique(rows["compound"]))
    code = names.get_indexer(pd.Index(rows["compound"]))
    match = _Matcher(compounds, wells)
    columns: list[NDArray[np.int8]] = []
    titles: list[str] = []
    lost = [nothing_dropped()]
    in_no_part = pd.Series(0, index=names)
    repeats = list(dict.fromkeys(f.repeat for f in files))
    for repeat in repeats:
        own = [f for f in files if f.repeat == repeat]
        table = pd.concat([_read(f, split.columns) for f in own], ignore_index=True)
        table["match"] = match(table)
        lost.append(_unknown(table, repeat))
        part = _parts(table[table["match"] != ""], names, repeat)
        in_no_part += (part == UNUSED).all(axis=1)
        columns += [part[name].to_numpy(np.int8) for name in part]
        titles += [".".join(t for t in (repeat, name) if t) or "0" for name in part]
    lost.append(_absent(in_no_part, len(repeats)))
    part = np.stack(columns, axis=1)[code]
    _fill_valid(part, rows["group"].to_numpy(), labels, split.valid, seed)
    _check_roles(part, titles, split.path, names)
    return Folds(part, rows, titles, list(range(len(titles))), "given", pd.concat(lost, ignore_index=True))


def _check_roles(part: NDArray[np.int8], titles: list[str], path: str, names: pd.Index) -> None:
    for column, title in zip(part.T, titles, strict=True):
        lacking = [_NAMES[role] for role in (TRAIN, TEST) if not (column == role).any()]
        if lacking:
            raise ConfigError(
                f"Split '{title}' of '{path}' leaves nothing to {some(lacking)}: none of its compounds for that is in "
                f"the run, which has {some(names, 3)}. Check which columns name compounds (splits.columns)."
            )


def _read(file: SplitFile, given: Mapping[str, str]) -> pd.DataFrame:
    """Read one table: what identifies each row, ``part`` (a number) or ``fold`` (text), and a ``label`` to show."""
    table = read_text(file.path)
    named = _named(table, given, file)
    if file.part is None and ("part" in named) == ("fold" in named):
        which = "both a part and a fold" if "part" in named else "neither a part (train, valid, test) nor a fold"
        raise ColumnError(
            f"'{file.path}' says {which} for its rows; its columns are {some(table.columns)}. Name the one that counts "
            "in splits.columns, e.g. {part: set}."
        )
    if {"plate", "well"} <= set(named):
        named.pop("sample", None)  # it would tell the six views of a well apart, which say the same
    found = table[list(named.values())].drop_duplicates().set_axis(list(named), axis=1)
    found["fold"] = found["fold"].str.strip() if "fold" in found and file.part is None else ""
    found["part"] = _codes(found["part"].str.strip(), file.path) if file.part is None and "part" in found else file.part
    if "sample" in found:
        found[["plate", "well"]] = found["sample"].str.extract(_SAMPLE).fillna("")
    if {"plate", "well"} <= set(found):
        found["well"] = normalise_wells(found["well"], file.path)
    label = np.full(len(found), "", dtype=object)
    for key in ("compound", "inchikey", "smiles", "sample", "plate"):
        if key in found and (key != "plate" or "well" in found):
            found[key] = found[key].str.strip()
            shown = found[key] + (" " + found["well"] if key == "plate" else "")
            label = np.where(label == "", shown.to_numpy(object), label)
    return found.assign(label=label, file=file.path).reset_index(drop=True)


def _named(table: pd.DataFrame, given: Mapping[str, str], file: SplitFile) -> dict[str, str]:
    """Our name -> column, as the settings say, else by the usual names."""
    for name, column in given.items():
        if name not in _COLUMNS:
            raise ConfigError(f"splits.columns: '{name}' is not known. {nearest(name, _COLUMNS)}")
        if column not in table:
            raise ColumnError(
                f"'{file.path}' has no column '{column}' (splits.columns: {name}). {nearest(column, table.columns)}"
            )
    plain = {str(c).lower().removeprefix("metadata_"): str(c) for c in reversed(table.columns)}
    named = dict(given)
    for name, usual in _COLUMNS.items():
        rival = {"part": "fold", "fold": "part"}.get(name)
        column = next((plain[u] for u in usual if u in plain and plain[u] not in named.values()), None)
        if column is not None and name not in named and rival not in given:
            named[name] = column
    if not {"compound", "inchikey", "smiles", "sample"} & set(named) and not {"plate", "well"} <= set(named):
        raise ColumnError(
            f"'{file.path}' names no compounds: its columns are {some(table.columns)}. Name one in splits.columns, as "
            "compound, inchikey, smiles, sample (PLATE-WELL-SITE), or plate and well."
        )
    return named


def _codes(words: pd.Series, path: str) -> pd.Series:
    known = words.str.lower().map(_PARTS)
    odd = words[known.isna() & (words != "")]
    if len(odd):
        raise ColumnError(
            f"'{path}' puts rows into parts that are not known: {some(odd.unique())} (row {odd.index[0]}). Expected "
            "train, valid (or val, validation) or test; empty: not used."
        )
    return known.fillna(UNUSED).astype(np.int8)


class _Matcher:
    """Finds the compound of the run that a row of a table means."""

    def __init__(self, compounds: pd.DataFrame, wells: pd.DataFrame) -> None:
        unique = compounds.drop_duplicates("compound")
        self.place = {(p, w): c for c, p, w in wells[["compound", "plate", "well"]].astype(str).itertuples(index=False)}
        ids = unique.assign(id=unique["compound_id"].astype(str).str.split(";")).explode("id")
        self.name = dict(zip(ids["id"], ids["compound"], strict=True))
        self.name |= dict(zip(unique["compound"], unique["compound"], strict=True))
        full = unique[unique["inchikey"].astype(str) != ""]
        self.key = {k: c for c, k in zip(full["compound"], full["inchikey"], strict=True)}
        for known in (self.name, self.key):
            known.pop("", None)
        self.smiles: dict[str, str] = {}

    def __call__(self, table: pd.DataFrame) -> pd.Series:
        found = pd.Series("", index=table.index, dtype=object)
        if {"plate", "well"} <= set(table):
            places = zip(table["plate"].fillna(""), table["well"].fillna(""), strict=True)
            found = pd.Series([self.place.get(p, "") for p in places], index=table.index, dtype=object)
        for column, known in (("compound", self.name), ("inchikey", self.key), ("inchikey", self.name)):
            if column in table:
                found = found.mask(found == "", table[column].map(known).fillna(""))
        left = (
            (found == "") & (table["smiles"].fillna("") != "") if "smiles" in table else pd.Series(False, table.index)
        )
        if left.any():
            from phenohit.chem.standardise import standardise

            read = standardise(table.loc[left, "smiles"].tolist()).set_axis(table.index[left])
            found[left] = read["inchikey"].map(self.key).fillna("")
        return found


def _parts(table: pd.DataFrame, names: pd.Index, repeat: str) -> pd.DataFrame:
    """Return the part of every compound of the run (index `names`), one column per split of a repeat."""
    said = table[["match", "part", "fold"]].astype({"fold": str})
    said = said[(said["fold"] != "") | (said["part"].notna() & said["part"].ne(UNUSED))].drop_duplicates()
    twice = said["match"][said["match"].duplicated(keep=False)]
    if len(twice):
        first = said[said["match"] == twice.iloc[0]]
        places = [fold or _NAMES[int(part)] for part, fold in zip(first["part"], first["fold"], strict=True)]
        where = f"'{table['file'].iloc[0]}'{f' (repeat {repeat})' if repeat else ''}"
        raise ColumnError(
            f"{twice.nunique()} compounds of the run are in more than one part of the split in {where}: "
            f"{some(twice.unique())}; the first in {some(places)}. Keep each in one."
        )
    given = said.set_index("match")
    if not set(given["fold"]) - {""}:
        return pd.DataFrame({"": given["part"].reindex(names).fillna(UNUSED).astype(np.int8)}, index=names)
    fold = given["fold"].reindex(names).fillna("")
    numbers = sorted({f for f in fold if f and not f.startswith("-")}, key=lambda f: (not f.isdigit(), len(f), f))
    used = fold.isin(numbers)
    return pd.DataFrame({f: np.where(fold == f, TEST, np.where(used, TRAIN, UNUSED)) for f in numbers}, index=names)


def _fill_valid(part: NDArray[np.int8], group: NDArray[np.integer], labels: Labels, valid: float, seed: int) -> None:
    """Set validation rows apart where a split has none, by group."""
    unique, code = np.unique(group, return_inverse=True)
    counts = group_counts(code, len(unique), labels)
    for number, column in enumerate(part.T):
        if VALID not in column:
            train = np.unique(code[column == TRAIN])
            chosen = set_apart(counts, train, valid, np.random.default_rng([seed, number]))
            column[chosen[code] & (column == TRAIN)] = VALID


def _unknown(table: pd.DataFrame, repeat: str) -> pd.DataFrame:
    """List the compounds that the tables name and the run has not."""
    where = f" (repeat {repeat})" if repeat else ""
    absent = table.loc[table["match"] == "", "label"].drop_duplicates()
    log.info("given split%s: %d compounds of the run, %d others", where, table["match"].nunique() - bool(len(absent)),
             len(absent))  # fmt: skip
    return listed(_STAGE, "compound", absent, f"in the given split{where}, not in the run")


def _absent(missing: pd.Series, repeats: int) -> pd.DataFrame:
    """List compounds of the run that the tables lack, or leave without a part."""
    gone = missing[missing > 0]
    log.info("given split: %d compounds of the run are in no part of it", len(gone))
    often = [f" ({n} of {repeats} repeats)" if repeats > 1 else "" for n in gone]
    return listed(
        _STAGE, "compound", gone.index,
        [f"in no part of the given split{n}: neither trained on nor tested there" for n in often],
    )  # fmt: skip
