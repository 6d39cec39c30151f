"""Activity records in tables: exports of ChEMBL's web pages and web services as they are, in-house tables by a map."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import ActivitySource
from phenohit.data.columns import match, parse_numbers
from phenohit.data.dropped import dropped
from phenohit.data.tables import TableFile, as_text
from phenohit.errors import ColumnError, ConfigError, LabelError, StructureError, nearest, some
from phenohit.labels.records import ABOUT, NO_COMPOUND, NOT_IMAGED, TEXTS, Block, Records, Wanted, Words
from phenohit.labels.rules import code

__all__ = ["read_export"]

BLOCK = 100_000

# Our name -> column, for the two exports of ChEMBL; the columns of the first line recognise them.
_API = {
    "record": "activity_id", "compound": "molecule_chembl_id", "smiles": "canonical_smiles",
    "assay": "assay_chembl_id", "type": "standard_type", "relation": "standard_relation",
    "value": "standard_value", "units": "standard_units", "pchembl": "pchembl_value", "comment": "activity_comment",
    "validity": "data_validity_comment", "potential_duplicate": "potential_duplicate", "assay_type": "assay_type",
    "target": "target_chembl_id", "target_name": "target_pref_name", "target_type": "target_type",
    "organism": "target_organism", "document": "document_chembl_id", "description": "assay_description",
}  # fmt: skip
_WEB = {
    "compound": "Molecule ChEMBL ID", "smiles": "Smiles", "assay": "Assay ChEMBL ID", "type": "Standard Type",
    "relation": "Standard Relation", "value": "Standard Value", "units": "Standard Units",
    "pchembl": "pChEMBL Value", "comment": "Comment", "validity": "Data Validity Comment",
    "potential_duplicate": "Potential Duplicate", "assay_type": "Assay Type", "target": "Target ChEMBL ID",
    "target_name": "Target Name", "target_type": "Target Type", "organism": "Target Organism",
    "document": "Document ChEMBL ID", "description": "Assay Description",
}  # fmt: skip
_NEEDED = ("compound", "smiles", "assay", "type", "relation", "value", "units", "pchembl")
_OURS = (*_API, "inchikey")
_TRUE = frozenset({"true", "1", "1.0", "yes", "t", "y"})
_INCHIKEY = r"[A-Z]{14}-[A-Z]{10}-[A-Z]"
_STAGE = "read records"


def read_export(source: ActivitySource, wanted: Wanted | None, *, jobs: int = 1) -> Records:
    """Read a table with one row per activity record.

    Parameters
    ----------
    source : ActivitySource
        Without `columns` the table must be an export of ChEMBL.
    wanted : Wanted or None
        Compounds that labels are wanted for; None: all.
    jobs : int
        Processes for standardising structures.

    Returns
    -------
    Records
        Compounds of the exports are told apart by the InChIKey of their standardised structure, so
        that salts fall to their parents; those of in-house tables by their id where there is one.

    Raises
    ------
    FileError, ColumnError
        If the file cannot be read, or a column of the map is not there.
    ConfigError
        If the map names something unknown or too little.
    LabelError, StructureError
        If a column that must hold numbers holds text throughout, or most structures are unreadable.
    """
    header = TableFile(source.path).names
    columns, molar = _columns(source, header)
    file = TableFile(source.path, text=[c for c in columns.values() if c])
    text = {name: as_text(file.read([column])[column]) for name, column in columns.items()}
    n = len(next(iter(text.values())))
    relation = text.get("relation", pd.Series([""] * n, dtype=str)).str.strip("'\" ")
    value, sign = _numbers(source, text, "value", columns)
    pchembl, sign_p = _numbers(source, text, "pchembl", columns)
    for written in (sign, sign_p):
        relation = relation.mask((relation == "") & (written != ""), written)
    if molar:  # in-house an empty relation is how an exact number is written
        relation = relation.mask(relation == "", "=")
    words = {name: Words() for name in TEXTS}
    compounds, of_row, lost = _compounds(source, text, n, wanted, jobs, by_id=molar)
    codes, names = pd.factorize(text["assay"].mask(text["assay"] == ""))
    rule, about = _assays(source, text, codes, np.asarray(names, dtype=object))
    codes_of = {name: words[name].codes(text[name]) for name in TEXTS if name in text}
    codes_of["relation"] = words["relation"].codes(relation)
    block = Block(
        record=text["record"].to_numpy(object) if "record" in text else np.full(n, "", dtype=object),
        row=np.arange(n, dtype=np.int64),
        compound=of_row,
        assay=codes.astype(np.int32),
        value=value,
        pchembl=pchembl,
        duplicate=_true(text, "potential_duplicate", n),
        salt=np.zeros(n, dtype=bool),
        **{name: codes_of.get(name, np.zeros(n, dtype=np.int32)) for name in TEXTS},
    )
    return Records(
        str(source.path), "", compounds, np.asarray(names, dtype=object), rule, _cut(block, n), words=words,
        describe=lambda positions: about.iloc[positions].reset_index(drop=True), molar=molar, dropped=lost,
    )  # fmt: skip


def _cut(block: Block, n: int) -> Iterator[Block]:
    for start in range(0, n, BLOCK):
        yield Block(*(field[start : start + BLOCK] for field in block))


def _columns(source: ActivitySource, header: list[str]) -> tuple[dict[str, str], bool]:
    """Return our name -> column, and whether the table is an in-house one."""
    if source.columns:
        return _in_house(source, header), True
    for known in (_API, _WEB):
        if all(known[name] in header for name in _NEEDED):
            return {name: column for name, column in known.items() if column in header}, False
    missing = [known[n] for known in (_API, _WEB) for n in _NEEDED if known[n] not in header]
    raise ColumnError(
        f"'{source.path}' is no export of ChEMBL's web pages or web services: columns such as {some(missing, 4)} are "
        f"missing; there are {some(header, 6)}. For a table of your own, say what its columns mean in "
        "activities.columns."
    )


def _in_house(source: ActivitySource, header: list[str]) -> dict[str, str]:
    for name, column in source.columns.items():
        if name not in _OURS:
            raise ConfigError(f"activities.columns: '{name}' is not known. {nearest(name, _OURS)}")
        if column not in header:
            raise ColumnError(
                f"'{source.path}' has no column '{column}' (activities.columns.{name}). {nearest(column, header)}"
            )
    has = set(source.columns)
    if "assay" not in has:
        raise ConfigError(f"activities.columns: nothing says which column of '{source.path}' names the assay.")
    if not has & {"compound", "smiles", "inchikey"}:
        raise ConfigError(f"activities.columns: '{source.path}' needs compound, smiles or inchikey.")
    if not has & {"value", "pchembl", "comment"}:
        raise ConfigError(f"activities.columns: '{source.path}' needs value, pchembl or comment.")
    if "value" in has and not has & {"units", "type"}:
        raise ConfigError(
            f"activities.columns: the numbers in '{source.columns['value']}' may be nM or pIC50. Name the column of "
            "their units (or of their type: pIC50, pEC50), or name the column as pchembl if it holds -log10 of molar."
        )
    return dict(source.columns)


def _numbers(
    source: ActivitySource, text: dict[str, pd.Series], name: str, columns: dict[str, str]
) -> tuple[NDArray[np.float64], pd.Series]:
    """Read numbers such as ``12``, ``> 10000``; return them and the sign before each ('' : none)."""
    n = len(next(iter(text.values())))
    if name not in text:
        return np.full(n, np.nan), pd.Series([""] * n, dtype=str)
    codes, unique = pd.factorize(text[name])
    parts = pd.Series(unique, dtype=str).str.extract(r"^\s*(<=|>=|<<|>>|[<>~=])?\s*(.*)$").fillna("").astype(str)
    numbers, odd = parse_numbers(parts[1])
    numbers = np.where(np.isinf(numbers), np.nan, numbers)
    if odd.any() and not np.isfinite(numbers).any():
        raise LabelError(
            f"Column '{columns[name]}' of '{source.path}' (activities.columns.{name}) holds no number but "
            f"{some(unique[odd], 3)}."
        )
    return numbers[codes], parts[0].iloc[codes].reset_index(drop=True)


def _true(text: dict[str, pd.Series], name: str, n: int) -> NDArray[np.bool_]:
    return text[name].str.casefold().isin(_TRUE).to_numpy(dtype=bool) if name in text else np.zeros(n, dtype=bool)


def _assays(
    source: ActivitySource, text: dict[str, pd.Series], codes: NDArray[np.intp], names: NDArray
) -> tuple[NDArray[np.int8], pd.DataFrame]:
    """Return the rule that leaves each assay out (-1: none), and what is known about each."""
    first = pd.Series(np.arange(len(codes)))[codes >= 0].groupby(codes[codes >= 0]).first().to_numpy()
    if not len(names):
        raise LabelError(f"'{source.path}' names no assay in any row. Check that it is whole.")
    told = {c: text[c].to_numpy(object)[first] if c in text else "" for c in ABOUT}
    about = pd.DataFrame(told, index=range(len(names)), dtype=str)
    how, rule = source.curate, np.full(len(names), -1, dtype=np.int8)
    listed = [str(n) for n in names]
    if how.assays:
        rule[~np.isin(names, list(match(listed, how.assays, "curate.assays")))] = code("assay")
    kept = match(listed, source.assays, "activities.assays") if source.assays else set(listed)
    kept -= match(listed, source.ignore, "activities.ignore")
    rule[~np.isin(names, list(kept))] = code("assay")
    if how.targets:
        asked = {t.casefold() for t in how.targets}
        hit = about["target"].str.casefold().isin(asked) | about["target_name"].str.casefold().isin(asked)
        if not hit.any():
            known = [t for t in [*about["target_name"].unique(), *about["target"].unique()] if t]
            raise LabelError(
                f"curate.targets names {some(how.targets)}, which '{source.path}' has not. "
                f"{nearest(how.targets[0], known)}"
            )
        rule[~hit.to_numpy() & (rule < 0)] = code("target")
    if how.assay_types:
        rule[~about["assay_type"].isin(how.assay_types).to_numpy() & (rule < 0)] = code("assay type")
    if how.min_confidence > 0:  # neither export tells it: what is not known to pass does not
        score, _ = parse_numbers(about["confidence"])
        rule[~(score >= how.min_confidence) & (rule < 0)] = code("confidence")
    return rule, about


def _compounds(
    source: ActivitySource, text: dict[str, pd.Series], n: int, wanted: Wanted | None, jobs: int, *, by_id: bool
) -> tuple[pd.DataFrame, NDArray[np.int32], pd.DataFrame]:
    """Return the compounds, the compound of every row, and structures that cannot be read."""
    none = pd.Series([""] * n, dtype=str)
    keys = pd.DataFrame({
        "id": text.get("compound", none), "smiles": text.get("smiles", none), "inchikey": text.get("inchikey", none),
    })  # fmt: skip
    codes, _ = pd.factorize(pd.MultiIndex.from_frame(keys))
    keys = keys.iloc[np.unique(codes, return_index=True)[1]].reset_index(drop=True)
    full = keys["inchikey"].str.fullmatch(_INCHIKEY)
    found = keys.assign(inchikey=keys["inchikey"].where(full, ""))
    found["skeleton"] = found["inchikey"].str[:14]
    has = (keys["smiles"] != "").to_numpy(dtype=bool)
    lost = dropped(_STAGE, "structure", [], "")
    if has.any():
        from phenohit.chem.standardise import standardise

        read = standardise(keys["smiles"][has].tolist(), jobs=jobs).set_axis(keys.index[has])
        bad = read["problem"] != ""
        if 2 * int(bad.sum()) > len(read):
            shown = some(keys.loc[read.index[bad], "smiles"])
            raise StructureError(
                f"{bad.sum()} of {len(read)} SMILES of '{source.path}' cannot be read, such as {shown}."
            )
        good = read.index[~bad]
        found.loc[good, ["inchikey", "skeleton"]] = read.loc[good, ["inchikey", "skeleton"]]
        named = keys.loc[read.index[bad], "id"].where(lambda i: i != "", keys["smiles"])
        lost = dropped(_STAGE, "structure", named, read.loc[read.index[bad], "problem"].tolist())
    first, second = ("id", "inchikey") if by_id else ("inchikey", "")
    name = found[first].mask(found[first] == "", found[second] if second else "")
    compounds = found.assign(compound=name)[name != ""]
    # Of several spellings of one compound the first that has a structure speaks for it.
    compounds = compounds.assign(bare=compounds["inchikey"] == "").sort_values("bare", kind="stable")
    compounds = compounds.drop_duplicates("compound").sort_index()
    number = pd.Series(np.arange(len(compounds)), index=compounds["compound"])
    of_key = name.map(number).fillna(NO_COMPOUND).to_numpy(np.int32)
    compounds = compounds[["compound", "id", "smiles", "inchikey", "skeleton"]].reset_index(drop=True)
    if wanted is not None:
        near = wanted.match(compounds)
        number = np.where(near, np.cumsum(near) - 1, NOT_IMAGED)
        of_key = np.where(of_key >= 0, np.append(number, 0)[of_key], of_key).astype(np.int32)
        compounds = compounds[near].reset_index(drop=True)
    return compounds, of_key[codes].astype(np.int32), lost
