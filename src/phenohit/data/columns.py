"""Which column of a table is a feature, which is metadata, and why each other one is neither."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.errors import ColumnError, PlateError, nearest, some

__all__ = [
    "ALIASES",
    "METADATA",
    "MISSING",
    "ColumnSplit",
    "Kind",
    "kind_of",
    "left_out",
    "match",
    "metadata_name",
    "normalise_wells",
    "parse_numbers",
    "refuse_text",
    "split_columns",
    "split_names",
]

Kind = Literal["number", "bool", "text", "mixed", "empty"]

# Short names of the settings -> the column of `Profiles.rows`.
METADATA = {
    "plate": "Metadata_Plate",
    "well": "Metadata_Well",
    "batch": "Metadata_Batch",
    "site": "Metadata_Site",
    "compound_id": "Metadata_compound_id",
    "smiles": "Metadata_SMILES",
    "inchikey": "Metadata_InChIKey",
    "pert_type": "Metadata_pert_type",
    "concentration_uM": "Metadata_concentration_uM",
    "cell_count": "Metadata_cell_count",
}

# Other spellings that mean the same thing without doubt; our own short names are understood as well.
# No spelling of a concentration is here: its unit must be stated, never read off a name.
ALIASES = {
    "Metadata_Plate": ["Image_Metadata_Plate", "Metadata_Assay_Plate_Barcode", "Assay_Plate_Barcode", "Plate"],
    "Metadata_Well": ["Image_Metadata_Well", "Metadata_well_position", "well_position", "Well"],
    "Metadata_Site": ["Image_Metadata_Site", "FOV"],
    "Metadata_SMILES": ["Metadata_smiles", "CPD_SMILES", "SMILES"],
    "Metadata_InChIKey": ["Metadata_inchikey", "InChIKey"],
}

# Texts that say "no value", in lower case.
MISSING = frozenset({"", "nan", "na", "n/a", "#n/a", "none", "null", "<na>"})

_REASONS = (
    (r"^(Image|FileName|PathName|URL|MD5Digest|ExecutionTime|ModuleError|Group|Height|Width|Scaling)_",
     "describes an image or the processing, not cells"),
    (r"(^|_)(FileName|PathName)(_|$)", "is a path or file name"),
    (r"^(ImageNumber|TableNumber)$|ObjectNumber|(^|_)Number_", "is a number given to an image or object"),
    (r"(^|_)(Location|Center)_|(^|_)BoundingBox", "is a position, which tells the well rather than the cells"),
    (r"(^|_)(Parent|Children)_", "counts related objects"),
    (r"^(Unnamed: ?\d+|__index_level_\d+__|index|row)$", "is a row number"),
)  # fmt: skip
_NOT_FEATURES = [(re.compile(pattern), reason) for pattern, reason in _REASONS]

_GROUPS = (
    "AreaShape|Intensity|Texture|Granularity|RadialDistribution|RadialIntensityDistribution|Correlation|"
    "Colocalization|Neighbors|ObjectSkeleton"
)
_CELLPROFILER = re.compile(
    rf"^((Mean|Median|StDev|Std|Mad)_)?((Cells?|Cytoplasm|Nuclei|Nucleus)_|[A-Za-z]\w*?_({_GROUPS})_)"
)

_WELL = re.compile(r"^([A-Za-z]{1,2})[-_: ]?0*([1-9]\d?)$")
_ROWS_1536 = [chr(65 + i) for i in range(26)] + ["A" + chr(65 + i) for i in range(6)]


@dataclass(frozen=True, eq=False)
class ColumnSplit:
    """What each column of a table is.

    Attributes
    ----------
    metadata : list of str
        Columns kept as text: ``Metadata_*``, ``Image_Metadata_*`` and text columns.
    features : list of str
        Numeric columns a model may see, in the order of the table.
    ignored : DataFrame
        ``column`` and ``reason`` for every column that is no feature and is not called ``Metadata_*``.
    """

    metadata: list[str]
    features: list[str]
    ignored: pd.DataFrame


def split_columns(table: pd.DataFrame, *, features: Sequence[str] = (), ignore: Sequence[str] = ()) -> ColumnSplit:
    """Decide which columns of `table` are features, and say why each other one is not.

    Parameters
    ----------
    table : DataFrame
    features : sequence of str
        Patterns (``Cells_*``); only matching columns are features. A column named in full is a
        feature even where its name says otherwise (a position, a row number). Empty: the columns
        in CellProfiler's form ``<Compartment>_<Group>_...`` where there are any, else every number.
    ignore : sequence of str
        Patterns of columns to leave out.

    Raises
    ------
    ColumnError
        If a feature column holds text in some cells, or a full name in `features` or `ignore` is
        not a column.

    Notes
    -----
    A column of which less than half are numbers is metadata. Empty cells and ``nan``, ``NA`` and
    the like are missing values, not text.

    Examples
    --------
    >>> wells = pd.DataFrame({"Metadata_Well": ["A01"], "Cells_AreaShape_Area": [1.0], "purity": [99.0]})
    >>> split = split_columns(wells)
    >>> split.metadata, split.features, split.ignored["column"].tolist()
    (['Metadata_Well'], ['Cells_AreaShape_Area'], ['purity'])
    """
    kinds = {str(name): kind_of(table.iloc[:, i]) for i, name in enumerate(table.columns)}
    split = split_names(kinds, features=features, ignore=ignore)
    for name in split.features:
        if kinds[name] == "mixed":
            refuse_text(name, table[name])
    return split


def split_names(kinds: Mapping[str, Kind], *, features: Sequence[str] = (), ignore: Sequence[str] = ()) -> ColumnSplit:
    """Do the work of `split_columns` from the names and kinds alone; ``mixed`` columns may come out as features."""
    wanted = match(kinds, features, "profiles.features")
    unwanted = match(kinds, ignore, "profiles.ignore")
    exact = set(features) & set(kinds)
    cellprofiler = not features and any(_CELLPROFILER.match(n) and _why_not(n) is None for n in kinds)
    metadata, chosen, ignored = [], [], []
    for name, kind in kinds.items():
        if name.startswith(("Metadata_", "Image_Metadata_")):
            metadata.append(name)
            continue
        reason = None
        if name in unwanted:
            reason = "left out by profiles.ignore"
        elif name not in exact and (odd := _why_not(name)):
            reason = odd
        elif kind in ("text", "bool") and name not in exact:
            reason = "holds text" if kind == "text" else "holds true or false"
            reason += f": kept as {metadata_name(name)}"
            metadata.append(name)
        elif features and name not in wanted:
            reason = "matches no pattern of profiles.features"
        elif cellprofiler and not _CELLPROFILER.match(name):
            reason = "is a number, but not named <Compartment>_<Group>_... as the features of this table are"
        elif kind in ("text", "bool"):
            reason = "holds no numbers"
        if reason is None:
            chosen.append(name)
        else:
            ignored.append((name, reason))
    return ColumnSplit(metadata, chosen, pd.DataFrame(ignored, columns=["column", "reason"], dtype=str))


def left_out(split: ColumnSplit, features: Sequence[str] = ()) -> pd.DataFrame:
    """Return the ignored columns without those that text makes metadata, unless they are called as features are.

    Parameters
    ----------
    split : ColumnSplit
    features : sequence of str
        Patterns of the settings.

    Returns
    -------
    DataFrame
        ``column`` and ``reason``.
    """
    kept = split.ignored["reason"].str.contains(": kept as ", regex=False).to_numpy(dtype=bool)
    names = split.ignored["column"]
    like = [bool(_CELLPROFILER.match(n)) or any(fnmatch.fnmatchcase(n, p) for p in features) for n in names]
    found = split.ignored[~kept | np.array(like, dtype=bool)]
    hint = "; it is called as a feature: write its numbers with a decimal point and nothing else"
    return found.assign(reason=found["reason"].mask(kept[found.index], found["reason"] + hint))


def _why_not(name: str) -> str | None:
    return next((reason for pattern, reason in _NOT_FEATURES if pattern.search(name)), None)


def metadata_name(column: str) -> str:
    """Return the name under which a column is kept in ``Profiles.rows``."""
    if column.startswith("Image_Metadata_"):
        return column.removeprefix("Image_")
    return column if column.startswith("Metadata_") else f"Metadata_{column}"


def match(names: Iterable[str], patterns: Sequence[str], setting: str) -> set[str]:
    """Return the names that match one of the patterns (``*``, ``?``, ``[abc]``; capitals count).

    Raises
    ------
    ColumnError
        If a pattern without wildcards names nothing: most likely a slip.
    """
    names = list(names)
    known = set(names)
    found: set[str] = set()
    for pattern in map(str, patterns):
        hit = {pattern} if pattern in known else set(fnmatch.filter(names, pattern))
        # fnmatch.filter folds case on some systems; the same setting must mean the same everywhere.
        hit = {n for n in hit if n == pattern or fnmatch.fnmatchcase(n, pattern)}
        if not hit and not re.search(r"[*?\[]", pattern):
            raise ColumnError(f"{setting} names '{pattern}', which is not there. {nearest(pattern, names)}")
        found |= hit
    return found


def parse_numbers(values: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Read a column as numbers.

    Returns
    -------
    numbers : float64 array, shape (P,)
        NaN where there is no number.
    text : bool array, shape (P,)
        True where the cell holds something that is neither a number nor a missing value.
    """
    if pd.api.types.is_numeric_dtype(values.dtype):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        return numbers, np.zeros(len(values), dtype=bool)
    codes, unique = pd.factorize(values)  # text repeats: parse each spelling once
    text = pd.Series(unique).astype(str).str.strip()
    parsed = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    odd = np.isnan(parsed) & ~text.str.lower().isin(MISSING).to_numpy(dtype=bool)
    parsed, odd = np.append(parsed, np.nan), np.append(odd, False)  # code -1: missing
    return parsed[codes], odd[codes]


def kind_of(values: pd.Series) -> Kind:
    """Tell what a column holds; ``mixed`` is numbers with text in up to half of the filled cells."""
    if pd.api.types.is_bool_dtype(values.dtype):
        return "bool"
    if pd.api.types.is_numeric_dtype(values.dtype):
        return "number"
    numbers, odd = parse_numbers(values)
    n_numbers, n_text = int((~np.isnan(numbers)).sum()), int(odd.sum())
    if n_numbers == n_text == 0:
        return "empty"
    if n_text == 0:
        return "number"
    return "mixed" if n_numbers >= n_text else "text"


def refuse_text(name: str, values: pd.Series, path: str = "") -> None:
    """Raise the error for text in a feature column, naming the file, the column, the rows and what they hold.

    Raises
    ------
    ColumnError
    """
    odd = np.flatnonzero(parse_numbers(values)[1])
    shown = some(f"row {i}: {str(values.iloc[i])!r}" for i in odd).replace('"', "")
    where = f"'{path}': feature" if path else "Feature"
    message = (
        f"{where} column '{name}' holds text in {len(odd)} of {len(values)} rows ({shown}). Features must be numbers "
        "or empty. Correct these cells, or name the column in profiles.ignore or profiles.columns."
    )
    raise ColumnError(message)


def normalise_wells(wells: pd.Series, path: str = "") -> pd.Series:
    """Write wells as A01; rows run from A to AF (1536 wells), columns from 1 to 48; `path` is for the error.

    Raises
    ------
    PlateError
        If a well cannot be read; names the first ten.
    """
    codes, unique = pd.factorize(wells.astype(str).str.strip())
    written, bad = [], []
    for text in unique:
        found = _WELL.match(text)
        ok = found is not None and found[1].upper() in _ROWS_1536 and int(found[2]) <= 48
        if text and not ok:
            bad.append(text)
        written.append(f"{found[1].upper()}{int(found[2]):02d}" if found and ok else "")
    if bad:
        where = f"'{path}': " if path else ""
        message = (
            f"{where}{len(bad)} wells cannot be read: {some(bad)}. Expected a row A to AF and a column 1 to 48, such "
            "as A01, b7 or AF48. Check profiles.columns: well."
        )
        raise PlateError(message)
    return pd.Series(np.array(written, dtype=object)[codes] if written else [], index=wells.index, dtype=object).astype(
        str
    )
