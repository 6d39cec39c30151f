"""Damaged and odd single cells (CellProfiler, SQLite, npz): refused by name, or every loss listed."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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


def cells(s: Any) -> dict[str, pd.DataFrame]:
    """Tables of CellProfiler: one image and three cells per well."""
    image = pd.DataFrame({"ImageNumber": range(1, N + 1), "Metadata_Plate": PLATE, "Metadata_Well": WELLS})
    image = image.assign(Metadata_compound_id=IDS, Metadata_SMILES=s.table["Metadata_SMILES"], FileName_DNA="x.tif")
    tables, rng = {"Image": image}, np.random.default_rng(1)
    for part in ("Cells", "Nuclei"):
        table = pd.DataFrame({"ImageNumber": np.repeat(image["ImageNumber"], 3), "ObjectNumber": [1, 2, 3] * N})
        tables[part] = table.assign(AreaShape_Area=rng.normal(9, 1, 3 * N), Children_Count=1).reset_index(drop=True)
    return tables


def of_csv(file: str, change: Callable[[str], str | bytes], end: str = "") -> Callable:
    def damage(s: Any) -> None:
        for name, table in cells(s).items():
            text = table.to_csv(index=False)
            text = change(text) if name == file else text
            s.write(f"cells/{name}.csv{end if name == file else ''}", text)
        s.config["profiles"] = {"path": str(s.folder / "cells")}

    return damage


def of_sqlite(*statements: str, file: Callable[[Path], Any] = lambda _: None) -> Callable:
    def damage(s: Any) -> None:
        path = s.folder / "cells" / "P.sqlite"
        path.parent.mkdir()
        connection = sqlite3.connect(path)
        for name, table in cells(s).items():
            keys = ("ImageNumber", "ObjectNumber")
            table.rename(columns={c: c if c in keys else f"{name}_{c}" for c in table}).to_sql(
                name, connection, index=False
            )
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        file(path)
        s.config["profiles"] = {"path": str(path)}

    return damage


def garbled(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    for page in range(4096, len(whole), 4096):
        whole[page : page + 64] = b"\xa5" * 64
    path.write_bytes(bytes(whole))


def interrupted(path: Path) -> None:
    """Leave the database as a program that was killed while it wrote: half of it, and a journal to undo that."""
    copy = path.with_name("copy")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.execute("UPDATE Cells SET Cells_AreaShape_Area = -1")
    connection.execute("UPDATE Nuclei SET Nuclei_AreaShape_Area = -1")
    shutil.copy(path, copy)
    shutil.copy(f"{path}-journal", f"{copy}-journal")
    connection.rollback()
    connection.close()
    copy.replace(path)
    Path(f"{copy}-journal").replace(f"{path}-journal")


for _name, _file, _change, _words in [
    ("ragged image table", "Image", lambda t: t.replace("A02,", "A02,,"), ("Image.csv", "row 2 has 7 of 6")),
    ("image table without rows", "Image", lambda t: t.split("\n")[0] + "\n", ("Image", "no rows")),
    ("image table with an open quote", "Image", lambda t: t.replace("A02", '"A02'), ("Image.csv", "quote", "close")),
    ("image table in latin-1", "Image", lambda t: t.replace("C3", "Cé").encode("latin-1"), ("Image.csv", "Line 5")),
    ("cells ragged", "Cells", lambda t: t.replace("\n2,1,", "\n2,1,1,"), ("Cells.csv", "Expected 4 columns, got 5")),
    ("cells with an open quote", "Cells", lambda t: t.replace(",1\n2,1,", ',"1\n2,1,'), ("Cells.csv", "quote")),
    ("cells in utf-16", "Cells", lambda t: t.encode("utf-16"), ("Cells.csv", "UTF-16")),
    ("cells without a key", "Cells", lambda t: t.replace("ObjectNumber", "Obj"), ("Cells.csv", "ObjectNumber")),
    ("cells twice", "Cells", lambda t: t + t.splitlines()[1] + "\n", ("Cells.csv", "2 rows that share")),
    ("object number inf", "Cells", lambda t: t.replace("\n1,1,", "\n1,inf,"), ("Cells.csv", "'inf'", "whole")),
    ("text in cells", "Cells", lambda t: t.replace("\n1,3,", "\n1,3,oops"), ("Cells.csv", "row 2", "oops")),
    ("empty nuclei", "Nuclei", lambda _: "", ("Nuclei.csv", "is empty")),
]:  # fmt: skip
    refuse(f"CellProfiler: {_name}", *_words)(of_csv(_file, _change))
refuse("CellProfiler: gz truncated", "Cells.csv.gz", "truncated")(of_csv("Cells", lambda t: gz(t)[:200], ".gz"))
take("CellProfiler: infinite", "Cells_AreaShape_Area.*1 of 24 cells have no value .1 infinite")(
    of_csv("Cells", lambda t: re.sub(r"\n1,1,[^,]*", "\n1,1,1e400", t))
)
take(
    "CellProfiler: cells of no image",
    "Cells: 3 objects of images that the Image table .* does not have",
    "Nuclei: 3 objects without the other parts of their cell .A01: 3.",
    "00117035 A01: 0 cells",
    wells=7,
)(of_csv("Cells", lambda t: t.replace("\n1,", "\n99,")))
take("CellProfiler: old line ends")(of_csv("Image", lambda t: t.replace("\n", "\r")))

refuse("SQLite: empty file", "P.sqlite", "has none")(of_sqlite(file=lambda p: p.write_bytes(b"")))
refuse("SQLite: truncated", "P.sqlite", "malformed")(of_sqlite(file=lambda p: p.write_bytes(p.read_bytes()[:5000])))
refuse("SQLite: not one", "P.sqlite", "not a database")(of_sqlite(file=lambda p: p.write_text("hello" * 999)))
refuse("SQLite: damaged pages", "P.sqlite", "malformed")(of_sqlite(file=garbled))
refuse("SQLite: interrupted write", "P.sqlite", "stopped while it wrote")(of_sqlite(file=interrupted))
refuse("SQLite: no key", "P.sqlite", "ObjectNumber")(of_sqlite("ALTER TABLE Cells RENAME COLUMN ObjectNumber TO Obj"))
refuse("SQLite: image without number", "P.sqlite", "ImageNumber")(
    of_sqlite("ALTER TABLE Image RENAME COLUMN ImageNumber TO I")
)
refuse("SQLite: no images", "P.sqlite", "no rows")(of_sqlite("DELETE FROM Image"))
refuse("SQLite: bytes in a feature", "P.sqlite", "Cells_AreaShape_Area")(
    of_sqlite("UPDATE Cells SET Cells_AreaShape_Area = x'00ff' WHERE rowid = 4")
)


def embeddings(s: Any) -> Path:
    rng = np.random.default_rng(0)
    for well in WELLS:
        path = s.folder / "dp" / PLATE / well / "1.npz"
        path.parent.mkdir(parents=True)
        np.savez_compressed(path, features=rng.normal(size=(5, 6)).astype(np.float32))
    about = pd.DataFrame({"well": WELLS, "compound_id": IDS, "smiles": s.table["Metadata_SMILES"]}).to_csv(index=False)
    s.config["profiles"] = {
        "path": str(s.folder / "dp"),
        "joins": [{"path": s.write("wells.csv", about), "by": "well"}],
    }
    return s.folder / "dp" / PLATE / "A04" / "1.npz"


def member(shape: str, data: bytes) -> bytes:
    """Write an archive whose member says that its array has a shape."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with io.BytesIO() as out:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(
                "features.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + data
            )
        return out.getvalue()


def npz(**arrays: Any) -> bytes:
    with io.BytesIO() as out:
        np.savez_compressed(out, **arrays)
        return out.getvalue()


for _name, _content, _words in [
    ("pickle inside", npz(features=np.array([{"a": 1}], dtype=object)), ("pickle", "refused")),
    ("truncated", npz(features=np.ones((5, 6)))[:100], ("no zip archive", "truncated")),
    ("member truncated", member("(5, 6)", b"\0" * 40), ("expected 120 bytes got 40",)),
    ("member that is too large", member("(1000000000, 6400)", b"\0" * 40), ("more than the memory",)),
    ("program as a shape", member("(__import__('os').getpid(), 6)", b""), ("malformed", "make it again")),
    ("not a zip", b"hello", ("no zip archive",)),
    ("no features", npz(emb=np.ones((5, 6))), ("'emb'", "'features'")),
    ("other width", npz(features=np.ones((5, 3))), ("3 features per cell, others have 6",)),
]:
    refuse(f"npz: {_name}", "A04/1.npz", *_words)(lambda s, content=_content: embeddings(s).write_bytes(content))
take("npz: no cells", "1.npz: *no cell in the file", "00117035 A04: *0 cells", wells=7)(
    lambda s: embeddings(s).write_bytes(npz(features=np.ones((0, 6))))
)
take("npz: infinite", *(f"DP_{j}.*3 infinite" for j in range(6)))(
    lambda s: embeddings(s).write_bytes(npz(features=np.full((3, 6), np.inf)))
)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_with_a_mend(screen, name):
    damage, words = REFUSED[name]
    damage(screen)
    screen.refused(*words)


@pytest.mark.parametrize("name", TAKEN)
def test_taken_with_every_loss_listed(screen, name):
    damage, wells, listed = TAKEN[name]
    damage(screen)
    screen.taken(*listed, wells=wells)
