"""Damaged and odd profile tables, plate maps and joined tables: refused by name, or every loss listed."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

N, PLATE = 8, "00117035"  # leading zeros: it is no number
FEATURES = [f"Cells_Texture_F{k}" for k in range(4)]
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


def zipped(text: str) -> bytes:
    with io.BytesIO() as out:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("table.csv", text)
        return out.getvalue()


# --- profile tables in text --------------------------------------------------------------------

_BAD_TABLES: list[tuple[str, str, Callable[[str], str | bytes], tuple[str, ...]]] = [
    ("gz truncated", "profiles.csv.gz", lambda x: gz(x)[: len(gz(x)) // 2], ("truncated", "copy")),
    ("gz end missing", "profiles.csv.gz", lambda x: gz(x)[:-6], ("truncated",)),
    ("gz empty file", "profiles.csv.gz", lambda _: b"", ("is empty",)),
    ("gz of nothing", "profiles.csv.gz", lambda _: gz(""), ("is empty",)),
    ("gz that is not", "profiles.csv.gz", lambda x: x, ("Not a gzipped file",)),
    ("gz trailing garbage", "profiles.csv.gz", lambda x: gz(x) + b"garbage!" * 20, ("Not a gzipped file",)),
    ("gz padded with zeros", "profiles.csv.gz", lambda x: gz(x) + b"\0" * 512, ("copy",)),
    ("gz wrong checksum", "profiles.csv.gz", lambda x: gz(x)[:-8] + b"\1\2\3\4" + gz(x)[-4:], ("CRC",)),
    ("gz damaged inside", "profiles.csv.gz", lambda x: gz(x)[:60] + b"\xff" * 40 + gz(x)[100:], ("copy",)),
    ("csv empty file", "profiles.csv", lambda _: "", ("is empty",)),
    ("csv only line ends", "profiles.csv", lambda _: "\n\r\n\n", ("is empty",)),
    ("csv header only", "profiles.csv", lambda x: x.split("\n")[0] + "\n", ("no rows",)),
    ("wrong delimiter |", "profiles.csv", lambda x: x.replace(",", "|"), ("commas, semicolons or tabs",)),
    ("utf-16", "profiles.csv", lambda x: x.encode("utf-16"), ("UTF-16", "UTF-8")),
    ("utf-16 unmarked", "profiles.csv", lambda x: x.encode("utf-16-le"), ("zero bytes", "UTF-8")),
    ("latin-1", "profiles.csv", lambda x: x.replace("C3,", "Cé,").encode("latin-1"), ("Line 5", "Cé", "UTF-8")),
    ("mixed encodings", "profiles.csv",
     lambda x: x.replace("C2,", "Cé,").encode() + b"P,A09,C\xf6,CCO,1,2,3,4\n", ("Line 10", "Cö", "UTF-8")),
    ("latin-1 in the header", "profiles.csv", lambda x: x.replace("F1", "Ü").encode("latin-1"), ("Line 1",)),
    ("zero byte in a number", "profiles.csv", lambda x: x.replace("0.", "0\0.", 1), ("zero bytes", "row 0")),
    ("zero byte in an id", "profiles.csv", lambda x: x.replace("C3,", "C\x003,"), ("zero bytes", "row 3")),
    ("zero bytes at the end", "profiles.csv", lambda x: x[:-30] + "\0" * 4096, ("zero bytes",)),
    ("quote never closed", "profiles.csv", lambda x: x.replace("C3,", '"C3,'), ("quotes", "Expected 8 columns")),
    ("quote that swallows a row", "profiles.csv",
     lambda x: "Metadata_n," + x.replace("\n00", '\n"n",00').replace('"n",00117035,A03', '"n,00117035,A03'),
     ("quote that is not closed", "row 2")),
    ("more fields in a row", "profiles.csv", lambda x: x.replace("C3,", "C3,,,"), ("Expected 8 columns, got 10",)),
    ("fewer fields in a row", "profiles.csv", lambda x: x.replace("C3,", ""), ("Expected 8 columns, got 7",)),
    ("cut in the last row", "profiles.csv", lambda x: x[:-25], ("truncated",)),
    ("duplicate features", "profiles.csv", lambda x: x.replace("F1", "F2"), ("same name", "Cells_Texture_F2")),
    ("zip renamed .csv", "profiles.csv", zipped, ("zip archive",)),
    ("gz renamed .csv", "profiles.csv", gz, ("gzipped", ".gz")),
    ("Parquet renamed .csv", "profiles.csv", lambda _: b"PAR1\x15\x04", ("Parquet",)),
    ("spreadsheet", "profiles.xlsx", zipped, ("unknown kind", "convert")),
    ("Parquet that is text", "profiles.parquet", lambda x: x, ("Parquet magic bytes",)),
    ("Parquet empty file", "profiles.parquet", lambda _: b"", ("0 bytes",)),
]  # fmt: skip
for _name, _file, _make, _words in _BAD_TABLES:
    refuse(_name, _file, *_words)(lambda s, file=_file, make=_make: s.profiles(file, make(s.csv)))

for _name, _cut in {
    "Parquet truncated footer": lambda b: b[:-100],
    "Parquet wrong footer length": lambda b: b[:-8] + b"\xff\xff\xff\x7f" + b[-4:],
    "Parquet damaged data": lambda b: b[:30] + b"\xff" * 200 + b[230:],
    "Parquet damaged footer": lambda b: b[:-400] + b"\xff" * 200 + b[-200:],
}.items():
    refuse(_name, "profiles.parquet", "copy or make it again")(lambda s, cut=_cut: s.parquet(cut))

refuse("thousands separator", "profiles.csv", "row 0", "1,234.5")(lambda s: s.column(["1,234.5", *"2345678"]))
refuse("spreadsheet error", "profiles.csv", "#DIV/0!")(lambda s: s.column(["#DIV/0!", *"2345678"]))
refuse("well twice", "profiles.csv", "A01 (2 times)")(
    lambda s: s.column(["a1", *WELLS[:1], *WELLS[2:]], "Metadata_Well")
)
refuse("impossible well", "profiles.csv", "Z99")(lambda s: s.column([*WELLS[:-1], "Z99"], "Metadata_Well"))
refuse("zero byte in a path", "no name of a file")(lambda s: s.config["profiles"].update(path="a\0b.csv"))
refuse("path too long", "too long")(lambda s: s.config["profiles"].update(path="a" * 5000 + ".csv"))


@refuse("folder instead of a table", "profiles.csv", "is a folder")
def _(s: Any) -> None:
    (s.folder / "profiles.csv").unlink()
    (s.folder / "profiles.csv").mkdir()


@refuse("link to itself", "profiles.csv", "leads back to itself")
def _(s: Any) -> None:
    (s.folder / "profiles.csv").unlink()
    (s.folder / "profiles.csv").symlink_to(s.folder / "profiles.csv")


take("byte order mark")(lambda s: s.profiles("profiles.csv", "\ufeff" + s.csv))
take("mixed line ends")(lambda s: s.profiles("profiles.csv", s.csv.replace("\n", "\r\n", 4)))
take("line ends of old computers")(lambda s: s.profiles("profiles.csv", s.csv.replace("\n", "\r")))
take("tabs in a .csv")(lambda s: s.profiles("profiles.csv", s.csv.replace(",", "\t")))
take("gz of two parts")(lambda s: s.profiles("p.csv.gz", gz(s.csv[:300]) + gz(s.csv[300:])))
take("line break in a value")(lambda s: s.column(["a\nb"] * N, "Metadata_note"))
take("NaN as text")(lambda s: s.column(["nan", "NaN", "NA", "N/A", "#N/A", "null", "None", "1.5"]))
take("infinite", "F1.*6 infinite values")(
    lambda s: s.column(["inf", "-inf", "Inf", "Infinity", "-Infinity", "+inf", "1", "2"])
)
take("1e400", "F1.*2 infinite values")(lambda s: s.column(["1e400", "-1e400", "1e-400", *"12345"]))
take("thousands separators throughout", "F1.*called as a feature")(lambda s: s.column([f"{i},234.5" for i in range(N)]))
take("decimal commas in a comma file", "F1.*called as a feature")(lambda s: s.column([f"{i},5" for i in range(N)]))
take("decimal commas")(lambda s: s.profiles("profiles.csv", s.table.to_csv(index=False, sep=";", decimal=",")))
take("feature without a value", "F1.*no value in any row")(lambda s: s.column([""] * N))
take("lists in a feature", "F1.*called as a feature")(
    lambda s: (s.table.__setitem__(FEATURES[1], [[1.0]] * N), s.parquet())
)
take("bytes that are no text")(lambda s: (s.table.__setitem__("Metadata_x", [b"\xff"] * N), s.parquet()))
take("wells without a value", "row 1 00117035 A02", "row 2 00117035 A03", wells=6)(
    lambda s: (s.table.loc.__setitem__(([1, 2], FEATURES), np.nan), s.profiles("profiles.csv", s.csv))
)

# --- plate maps, joined tables, galleries ------------------------------------------------------


def gallery(s: Any, plate_map: str = "M1") -> tuple[list[Path], Path]:
    """Write a project of two plates with their map; return the plates' files and the folder of the maps."""
    work = s.folder / "project" / "workspace"
    maps = work / "metadata" / "platemaps" / "b1"
    (maps / "platemap").mkdir(parents=True)
    plates, files = ("1053597806", PLATE), []
    for plate in plates:
        files.append(work / "profiles" / "b1" / plate / f"{plate}.csv.gz")
        files[-1].parent.mkdir(parents=True)
        table = s.table[["Metadata_Well", *FEATURES]].assign(Metadata_Plate=plate)
        files[-1].write_bytes(gz(table.to_csv(index=False)))
    barcodes = pd.DataFrame({"Assay_Plate_Barcode": plates, "Plate_Map_Name": plate_map})
    barcodes.to_csv(maps / "barcode_platemap.csv", index=False)
    layout = pd.DataFrame(
        {"plate_map_name": "M1", "well_position": WELLS, "compound_id": IDS, "SMILES": s.table["Metadata_SMILES"]}
    )
    layout.to_csv(maps / "platemap" / "M1.txt", index=False, sep="\t")
    s.config["profiles"] = {"path": str(s.folder / "project")}
    return files, maps


def of_plate(change: Callable[[bytes], bytes]) -> Callable:
    def damage(s: Any) -> None:
        file = gallery(s)[0][1]
        file.write_bytes(change(gzip.decompress(file.read_bytes())))

    return damage


def of_map(change: Callable[[str], str | bytes], file: str = "platemap/M1.txt") -> Callable:
    def damage(s: Any) -> None:
        path = gallery(s)[1] / file
        s.write(str(path.relative_to(s.folder)), change(path.read_text()))

    return damage


refuse("gallery: plate truncated", "00117035.csv.gz", "Plate '00117035'", "truncated")(of_plate(lambda t: gz(t)[:100]))
refuse("gallery: open quote", "00117035.csv.gz", "Expected 6 columns")(
    of_plate(lambda t: gz(t.replace(b"A03", b'"A03')))
)
refuse("gallery: text in a plate", "00117035.csv.gz", "row 0", "x0")(
    of_plate(lambda t: gz(t.replace(b"A01,", b"A01,x")))
)
refuse("map: well twice", "M1.txt", "'A01'", "Keep one row")(of_map(lambda t: t + "M1\tA01\tC7\tCCC\n"))
refuse("map: empty", "M1.txt", "is empty")(of_map(lambda _: ""))
refuse("map: utf-16", "M1.txt", "UTF-16")(of_map(lambda t: t.encode("utf-16")))
refuse("map: plate twice", "barcode_platemap.csv", PLATE)(of_map(lambda t: f"{t}{PLATE},M2\n", "barcode_platemap.csv"))
refuse("map: absent", "barcode_platemap.csv", "M7")(lambda s: gallery(s, "M7"))
take("gallery: plate without rows", "00117035: *its file holds no wells")(
    of_plate(lambda t: gz(t.split(b"\n")[0] + b"\n"))
)
take("gallery: other features", "F1.*only 1 of 2", "G1.*only 1 of 2", wells=16)(
    of_plate(lambda t: gz(t.replace(b"F1", b"G1")))
)
take("gallery: old line ends", wells=16)(of_plate(lambda t: gz(t.replace(b"\n", b"\r"))))
take("map: same row twice", "1 rows repeat", wells=16)(of_map(lambda t: t + t.splitlines()[1] + "\n"))
take("map: plate without its zeros", "00117035.*no plate map", *(f"treated row .* {PLATE} {w}" for w in WELLS))(
    of_map(lambda t: t.replace(PLATE, "117035"), "barcode_platemap.csv")
)
refuse("join: key twice", "join.csv", "C0", "Keep one row")(lambda s: s.join("compound_id,dose\nC0,1\nC0,2\n"))
refuse("join: open quote", "join.csv", "quote that is not closed", "4 lines")(
    lambda s: s.join('compound_id,dose\nC0,"1\nC1,2\nC2,3\n')
)
refuse("join: truncated", "j.csv.gz", "truncated")(
    lambda s: s.join(gz("compound_id,dose\nC0,1\n" * 9)[:30], "j.csv.gz")
)
take("join: rows without a key", "row 8: *no compound_id", "1 of its 9 keys")(
    lambda s: s.join("compound_id,dose\n" + "".join(f"{c},1\n" for c in IDS) + ",5\nC9,1\n")
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
