"""Damaged and odd structures and activities: refused by name, or every loss listed."""

from __future__ import annotations

import gzip
import re
import sqlite3
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

N, PLATE = 8, "00117035"  # leading zeros: it is no number
IDS = [f"C{i}" for i in range(N)]
WELLS = [f"A{i + 1:02d}" for i in range(N)]

REFUSED: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {}
TAKEN: dict[str, tuple[Callable[[Any], Any], int, tuple[str, ...]]] = {}


def refuse(name: str, *words: str) -> Callable:
    """Case that ends with exit code 2 and a message that holds the words; used on a function that does the damage."""
    return lambda damage: REFUSED.setdefault(name, (damage, words))


def take(name: str, *listed: str, wells: int = 8) -> Callable:
    """Case that is read: so many wells are kept, and of each pattern something is listed, and nothing else."""
    return lambda damage: TAKEN.setdefault(name, (damage, wells, listed))


def gz(text: str | bytes) -> bytes:
    return gzip.compress(text.encode() if isinstance(text, str) else text)


def smiles_csv(s: Any) -> str:
    return "compound_id,smiles\n" + "".join(f"{c},{x}\n" for c, x in zip(IDS, s.smiles, strict=True))


def sdf(s: Any) -> str:
    from rdkit import Chem

    blocks = [Chem.MolToMolBlock(Chem.MolFromSmiles(x)).split("\n", 1)[1] for x in s.smiles]
    return "".join(f"{c}\n{block}$$$$\n" for c, block in zip(IDS, blocks, strict=True))


# --- structures --------------------------------------------------------------------------------

for _name, _file, _make, _words in [
    ("empty", "library.csv", lambda s: "", ("is empty",)),
    ("latin-1", "library.csv", lambda s: smiles_csv(s).replace("C3", "Cé").encode("latin-1"), ("Line 5", "UTF-8")),
    (
        "open quote",
        "library.csv",
        lambda s: smiles_csv(s).replace("C2,", 'C2,"'),
        ("quote", "column 'smiles' of row 2"),
    ),
    ("more fields", "library.csv", lambda s: smiles_csv(s).replace("C1,", "C1,x,"), ("Expected 2 columns, got 3",)),
    ("truncated", "library.csv.gz", lambda s: gz(smiles_csv(s))[:60], ("truncated",)),
    ("SDF cut in a record", "library.sdf", lambda s: sdf(s)[: len(sdf(s)) // 2], ("within record 3", "truncated")),
    ("SDF without an end of record", "library.sdf", lambda s: sdf(s).replace("$$$$\n", "", 1), ("2 structures",)),
    ("SDF of bytes", "library.sdf", lambda s: bytes(range(256)) * 9, ("no record of an SD file",)),
    ("SDF empty", "library.sdf", lambda s: "", ("no record of an SD file",)),
    ("SDF gz truncated", "library.sdf.gz", lambda s: gz(sdf(s))[:200], ("truncated",)),
    ("SDF gz damaged", "library.sdf.gz", lambda s: gz(sdf(s))[:90] + b"\xff" * 40 + gz(sdf(s))[130:], ("copy",)),
    ("SDF that is a table", "library.sdf", smiles_csv, ("no record of an SD file",)),
]:
    refuse(f"structures: {_name}", _file, *_words)(lambda s, make=_make, file=_file: s.structures(make(s), file))
take("structures: rows without an id", *(f"library.csv: row {i}: no compound id" for i in range(3)))(
    lambda s: s.structures(re.sub("C[012],", ",", smiles_csv(s)))
)
take("structures: SDF record without a title", "row 3: no compound id")(
    lambda s: s.structures(sdf(s).replace("C3\n", "\n", 1), "library.sdf")
)
take("structures: SDF record that is damaged", "C0: no readable structure")(
    lambda s: s.structures(sdf(s).replace("  3  2  0", "999999  0", 1), "library.sdf")
)
take("structures: no SMILES", "C2: the SMILES 'c1ccccc.' cannot be read", wells=7)(
    lambda s: s.structures(smiles_csv(s).replace("c1ccccc1O", "c1ccccc("))
)
take("structures: 30,000 atoms in a row", "C7: the SMILES 'CCCC.* has 30,000 signs", wells=7)(
    lambda s: s.structures(smiles_csv(s).replace("OCC(O)CO", "C" * 30_000))
)

# --- activities --------------------------------------------------------------------------------

LONG = "compound,assay,value\n" + "".join(f"{c},A,{7.5 if i % 2 else 4.5}\n" for i, c in enumerate(IDS))
WIDE = "compound,A1,A2\n" + "".join(f"{c},{i % 2},{1 - i % 2}\n" for i, c in enumerate(IDS))
MATRIX = "%%MatrixMarket matrix coordinate real general\n8 2 16\n" + "".join(
    f"{i + 1} {j + 1} {(-1) ** (i + j)}\n" for i in range(N) for j in range(2)
)
VALUES = {"kind": "value", "thresholds": [6]}


def records(s: Any) -> str:
    table = pd.DataFrame({"activity_id": range(N), "molecule_chembl_id": IDS, "canonical_smiles": s.smiles})
    table = table.assign(assay_chembl_id="A", standard_type="IC50", standard_relation="=", standard_units="nM")
    return table.assign(standard_value=[100.0, 10000.0] * 4, pchembl_value=[7.0, 5.0] * 4).to_csv(index=False)


def long(change: Callable[[str], str | bytes], name: str = "a.csv") -> Callable:
    return lambda s: s.activities(change(LONG), name, **VALUES)


def wide(change: Callable[[str], str]) -> Callable:
    return lambda s: s.activities(change(WIDE), format="wide")


def matrix(change: Callable[[str], str | bytes], name: str = "a.mtx") -> Callable:
    def damage(s: Any) -> None:
        rows = s.write("rows.csv", "compound\n" + "".join(f"{c}\n" for c in IDS))
        s.activities(change(MATRIX), name, format="matrix_market", rows=rows, kind="plus_minus")

    return damage


def export(change: Callable[[str], str]) -> Callable:
    return lambda s: s.activities(change(records(s)), format="records", id="")


for _name, _change, _words in [
    ("empty", lambda t: "", ("is empty",)),
    ("header only", lambda t: t.split("\n")[0] + "\n", ("no rows",)),
    ("infinite", lambda t: t.replace("7.5", "inf", 1), ("row 1: inf", "finite number")),
    ("1e400", lambda t: t.replace("7.5", "1e400", 1), ("row 1: inf",)),
    ("unit in a value", lambda t: t.replace("7.5", "7.5 nM", 1), ("row 1: 7.5 nM",)),
    ("thousands separator", lambda t: t.replace("7.5", '"7,500"', 1), ("row 1: 7,500",)),
    ("utf-16", lambda t: t.encode("utf-16"), ("UTF-16",)),
    ("open quote", lambda t: t.replace("C3", '"C3'), ("quotes",)),
    ("column twice", lambda t: t.replace("assay", "value"), ("same name", "value")),
    ("wrong delimiter", lambda t: t.replace(",", "|"), ("no column 'compound'", "compound|assay|value")),
]:
    refuse(f"long: {_name}", "a.csv", *_words)(long(_change))
refuse("wide: column twice", "a.csv", "same name")(wide(lambda t: t.replace("A2", "A1")))
refuse("wide: impossible value", "a.csv", "row 3: 7")(wide(lambda t: t.replace("C3,1", "C3,7")))
for _name, _text, _words in [
    ("cut", MATRIX[:100], ("truncated",)),
    ("more than it says", MATRIX + "1 1 1\n", ("too long",)),
    ("outside", MATRIX.replace("8 2 1\n", "9 2 1\n"), ("out of bounds",)),
    ("petabytes", MATRIX.replace("8 2 16", "8 2 99999999999999"), ("more than the memory",)),
    ("no matrix", "hello", ("banner",)),
]:
    refuse(f"matrix: {_name}", "a.mtx", *_words)(matrix(lambda _, text=_text: text))
refuse("matrix: gz truncated", "a.mtx.gz", "ended before")(matrix(lambda t: gz(t)[:50], "a.mtx.gz"))
refuse("records: no export", "a.csv", "standard_type", "activities.columns")(export(lambda _: LONG))
refuse("records: cut", "a.csv", "Expected 9 columns")(export(lambda t: t[:-10]))
refuse("records: no row", "a.csv", "names no assay")(export(lambda t: t.split("\n")[0] + "\n"))

# Labels that are left, and what is listed. Labels in the table and labels listed add up to those in the file.
LEFT: dict[str, tuple[Callable[[Any], Any], int, tuple[str, ...]]] = {
    "long: decimal commas": (long(lambda t: t.replace(",", ";").replace(".", ",")), 8, ()),
    "long: no value": (long(lambda t: t.replace("7.5", "nan", 1)), 7, ("A: rows without a decided value: 1",)),
    "long: no id": (long(lambda t: re.sub("C[34]", "", t)), 6, ("row 3: no compound", "row 4: no compound")),
    "wide: no id": (wide(lambda t: t.replace("C3", "")), 14, ("row 3: no compound is named",)),
    "wide: text": (wide(lambda t: t.replace(",0,", ",x,").replace(",1,", ",y,")), 8, ("A1: holds no activities",)),
    "matrix: NaN": (matrix(lambda t: t.replace("1 1 1\n", "1 1 nan\n")), 15, ("assay_1: .*decided value: 1",)),
    "records: text": (
        export(lambda t: t.replace("7.0", "seven", 1)), 14, ("^1 records .*no pchembl", "A >= 7.5: one class only")
    ),
    "records: no assay": (
        export(lambda t: t.replace(",A,", ",,", 2)), 12, ("^2 records .*not named", "A >= 7.5: one class only")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_labels_left_and_labels_listed_add_up(screen, name):
    damage, left, listed = LEFT[name]
    damage(screen)
    screen.taken(*listed, step="labels")
    assert len(pd.read_parquet(screen.folder / "run" / "labels.parquet")) == left


# --- a ChEMBL database -------------------------------------------------------------------------


def chembl(*statements: str, file: Callable[[Any], Any] = lambda _: None) -> Callable:
    def damage(s: Any) -> None:
        path = s.folder / "chembl.db"
        connection = sqlite3.connect(path)
        for table, columns in {
            "activities": "activity_id, assay_id, doc_id, molregno, standard_type, standard_relation, standard_value, "
            "standard_units, pchembl_value, activity_comment, data_validity_comment, potential_duplicate",
            "assays": "assay_id, chembl_id, assay_type, confidence_score, tid, description",
            "target_dictionary": "tid, chembl_id, pref_name, target_type, organism",
            "molecule_dictionary": "molregno, chembl_id",
            "molecule_hierarchy": "molregno, parent_molregno",
            "compound_structures": "molregno, standard_inchi_key, canonical_smiles",
            "docs": "doc_id, chembl_id",
        }.items():
            connection.execute(f"CREATE TABLE {table} ({columns})")
        connection.execute("INSERT INTO assays VALUES (1, 'CHEMBL1', 'B', 9, 1, '')")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        s.keep = file(path)  # a connection that locks it stays open until the test ends
        s.config["activities"] = [{"path": str(path), "format": "chembl"}]

    return damage


def locked(path: Any) -> sqlite3.Connection:
    """Hold a database with a write-ahead log as a program does that writes to it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("DELETE FROM docs")
    connection.commit()
    connection.execute("BEGIN EXCLUSIVE")
    return connection


for _name, _word, _how in [
    ("truncated", "is truncated", {"file": lambda p: p.write_bytes(p.read_bytes()[:20_000])}),
    ("not a database", "no SQLite database", {"file": lambda p: p.write_text("x" * 9999)}),
    ("empty file", "(0 bytes)", {"file": lambda p: p.write_bytes(b"")}),
    ("gz", "unpack it first", {"file": lambda p: p.write_bytes(gz(p.read_bytes()))}),
    ("folder", "is a folder", {"file": lambda p: (p.unlink(), p.mkdir())}),
    ("locked log", "Another program is writing", {"file": locked}),
    ("no molecules", "holds no molecules", {}),
]:
    refuse(f"ChEMBL: {_name}", "chembl.db", _word)(chembl(**_how))
refuse("ChEMBL: no records", "chembl.db", "holds no activity record")(
    chembl("INSERT INTO molecule_dictionary VALUES (1, 'CHEMBL25')")
)
refuse("ChEMBL: no table", "chembl.db", "no table 'assays'")(chembl("DROP TABLE assays"))
refuse("ChEMBL: no column", "standard_type", "newer")(
    chembl("ALTER TABLE activities RENAME COLUMN standard_type TO st")
)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_with_a_mend(screen, name):
    damage, words = REFUSED[name]
    damage(screen)
    screen.keep = getattr(screen, "keep", None)
    screen.refused(*words, step="data" if name.startswith("structures") else "labels")
    if screen.keep is not None and hasattr(screen.keep, "close"):
        screen.keep.close()


@pytest.mark.parametrize("name", TAKEN)
def test_taken_with_every_loss_listed(screen, name):
    damage, wells, listed = TAKEN[name]
    damage(screen)
    screen.taken(*listed, wells=wells)
