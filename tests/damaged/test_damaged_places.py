"""Files that would fill a memory, names that lead out of their folder, files that vanish, ids like numbers."""

from __future__ import annotations

import gzip
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from phenohit import files

GIB = 1 << 30

# Runs a command line and tells how much memory the process had at most, in bytes.
_MEASURED = """
import sys
from pathlib import Path
from phenohit.cli import main
code = main(sys.argv[1:])
# Not what getrusage says: on Linux that begins with the memory of the process that started this one.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print("peak", int(peak.split()[1]) * 1024)
sys.exit(code)
"""


def measured(screen) -> tuple[int, int, str]:
    """Run the step `data` in a process of its own; return exit code, peak memory in bytes, and what it said."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    screen.write("c.yaml", yaml.safe_dump(screen.config))
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, "data", str(screen.folder / "c.yaml")],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, int(done.stdout.split("peak ")[1]), done.stderr


def bomb(path: Path, header: str, row: str, size: int = 20 * GIB) -> None:
    """Write a gzipped file of `size` bytes of the same row; it takes a thousandth of that."""
    block = gzip.compress((row * (1 + (1 << 24) // len(row))).encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        out.write(gzip.compress(header.encode()))
        for _ in range(size >> 24):
            out.write(block)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["rows", "one line", "SDF", "image table"])
def test_a_gzipped_file_that_would_fill_the_memory_is_refused(screen, what):
    header, row = screen.csv.split("\n")[0] + "\n", "0,0,0,0,0,0,0,0\n"
    path = screen.folder / {"SDF": "bomb.sdf.gz", "image table": "cells/Image.csv.gz"}.get(what, "bomb.csv.gz")
    if what == "image table":
        header, row = "ImageNumber,Metadata_Plate,Metadata_Well\n", "1,P,A01\n"
        screen.write("cells/Cells.csv", "ImageNumber,ObjectNumber,AreaShape_Area\n1,1,3\n")
        screen.config["profiles"]["path"] = str(path.parent)
    elif what == "SDF":
        screen.config["structures"] = {"path": str(path)}
    else:
        screen.config["profiles"]["path"] = str(path)
    bomb(path, header, "0," * 1000 if what == "one line" else row)
    assert path.stat().st_size < 100e6
    code, peak, said = measured(screen)
    path.unlink()
    assert code == 2
    assert path.name in said
    assert "unpack it yourself" in said or "too long to be one" in said or "rows. Expected one per image" in said
    assert peak < 1e9


@pytest.mark.slow
def test_a_line_of_a_gibibyte_is_refused(screen):
    path = screen.folder / "profiles.csv"
    block = b"1," * (1 << 23)
    with path.open("wb") as out:
        out.write(b"Metadata_Plate,Metadata_Well\n")
        for _ in range(GIB // len(block)):
            out.write(block)
    code, peak, said = measured(screen)  # the second line
    assert code == 2
    assert "profiles.csv" in said
    assert "too long" in said
    assert peak < 0.9e9
    with path.open("r+b") as out:
        out.write(b"1," * 20)
    code, peak, said = measured(screen)  # the first
    path.unlink()
    assert code == 2
    assert "profiles.csv" in said
    assert "line ends were not lost" in said
    assert peak < 0.9e9


def test_a_table_that_shrinks_well_is_read(screen, monkeypatch):
    """Refused is only what is both large and far larger than its file."""
    packed = gzip.compress(screen.csv.encode())
    monkeypatch.setattr(files, "_GROWTH", 1)  # everything is far larger than its file
    screen.profiles("small.csv.gz", packed)
    screen.taken()
    monkeypatch.undo()
    monkeypatch.setattr(files, "_LEAST", 1)  # everything is large
    monkeypatch.setattr(files, "_MOST", 1)
    screen.profiles("dense.csv.gz", packed)
    screen.taken()
    monkeypatch.setattr(files, "_GROWTH", 1)
    screen.profiles("both.csv.gz", packed)
    screen.refused("both.csv.gz", "unpack it yourself")


@pytest.mark.slow
def test_a_process_ends_where_a_large_file_is_damaged(tmp_path):
    """Arrow's threads must be done with the blocks before the process ends; else, at 26, it never does."""
    block = gzip.compress(b"0,0,0,0,0,0,0,0\n" * (1 << 20))
    path = tmp_path / "padded.csv.gz"  # only Arrow minds what comes after the end
    path.write_bytes(gzip.compress(b"a,b,c,d,e,f,g,h\n") + block * 16 + b"\0" * 64)
    code = (
        "import sys; from phenohit.data.read import read_any\ntry: read_any(sys.argv[1])\nexcept OSError as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=90
    )
    assert "padded.csv.gz" in done.stdout


# --- names that lead out of their folder -------------------------------------------------------

_OPENED: list[str] = []
_WATCHING = [False]


def _watch(event: str, arguments: tuple) -> None:
    if _WATCHING[0] and event == "open":
        _OPENED.append(str(arguments[0]))


sys.addaudithook(_watch)


@pytest.mark.parametrize(
    "name",
    ["../../../../../../../../../../etc/passwd", "/etc/passwd", "../secret", "..\\secret", "{secret}", "s3://bucket/x"],
)
def test_a_plate_map_never_leads_out_of_its_folder(screen, name):
    """The file it points to is there and would do as a map: it is not opened, and nothing of it is kept."""
    secret = screen.folder / "maps" / "secret"
    layout = "well_position\tcompound_id\tword\n" + "".join(f"A{i + 1:02d}\tC{i}\thush\n" for i in range(8))
    for path in (f"{secret}.txt", secret):
        screen.write(str(Path(path).relative_to(screen.folder)), layout)
    barcodes = "Assay_Plate_Barcode,Plate_Map_Name\n00117035," + name.replace("{secret}", str(secret)) + "\n"
    screen.write("maps/b1/barcode_platemap.csv", barcodes)
    screen.write("maps/b1/platemap/M1.txt", layout)
    screen.config["profiles"]["platemaps"] = str(screen.folder / "maps" / "b1")
    _OPENED.clear()
    _WATCHING[0] = True
    try:
        screen.refused("barcode_platemap.csv", "leads out of its folder", "Correct the file")
    finally:
        _WATCHING[0] = False
    assert any(path.endswith("barcode_platemap.csv") for path in _OPENED)  # the watch sees what is read
    assert not [path for path in _OPENED if "passwd" in path or "secret" in path]
    written = [p for p in (screen.folder / "run").rglob("*") if p.is_file()]
    assert not [p for p in written if b"hush" in p.read_bytes() or b"root:" in p.read_bytes()]


def test_an_archive_never_writes_out_of_its_folder(screen):
    import zipfile

    path = screen.folder / "dp" / "P" / "A01" / "1.npz"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../features.npy", b"x")
    screen.config["profiles"] = {"path": str(screen.folder / "dp")}
    screen.refused("1.npz", "Expected an array called 'features'")
    assert not list(screen.folder.rglob("features.npy"))


# --- ids that look like numbers ----------------------------------------------------------------


@pytest.mark.parametrize(
    "plate", ["1053597806", "00117035", str(2**53 + 1), "184467440737095516171", "1e5", "0x10", "True", "2020-01-02"]
)
def test_a_plate_keeps_its_name(screen, plate):
    screen.table["Metadata_Plate"] = plate
    screen.profiles("profiles.csv", screen.csv)
    screen.taken(plates=(plate,))


@pytest.mark.parametrize("plate", [1053597806, 2**53 + 1, np.uint64(2**64 - 1), 1053597806.0])
def test_a_plate_that_parquet_holds_as_a_number_keeps_its_digits(screen, plate):
    screen.table["Metadata_Plate"] = plate
    screen.parquet()
    screen.taken(plates=(str(int(plate)),))


# --- files that come and go --------------------------------------------------------------------


def test_a_file_that_vanishes(screen, monkeypatch):
    import phenohit.data.inputs

    looked = phenohit.data.inputs.profile_inputs

    def then_gone(source):
        found = looked(source)
        (screen.folder / "profiles.csv").unlink()
        return found

    monkeypatch.setattr(phenohit.data.inputs, "profile_inputs", then_gone)
    screen.refused("profiles.csv", "does not exist")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read(screen):
    (screen.folder / "profiles.csv").chmod(0)
    screen.refused("profiles.csv", "may not be read by you", "permissions")


@pytest.mark.parametrize("what", ["structures", "activities"])
def test_a_link_to_itself_and_a_folder(screen, what):
    path = screen.folder / "x.csv"
    path.symlink_to(path)
    screen.config[what] = {"path": str(path)} if what == "structures" else [{"path": str(path), "id": "compound"}]
    screen.refused("x.csv", "leads back to itself", step="labels")
    path.unlink()
    path.mkdir()
    screen.refused("x.csv", "is a folder", step="labels")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_is_not_waited_for(screen):
    os.mkfifo(screen.folder / "pipe.csv")
    screen.config["structures"] = {"path": str(screen.folder / "pipe.csv")}
    screen.refused("pipe.csv", "a device or a pipe")


# --- AnnData -----------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("anndata") is None, reason="needs the extra interop")
@pytest.mark.parametrize("damage", ["text", "empty", "half"])
def test_a_damaged_anndata_file(screen, damage):
    import anndata

    path = screen.folder / "p.h5ad"
    obs = screen.table.filter(like="Metadata_").set_index(pd.Index([f"w{i}" for i in range(8)]))
    features = screen.table.filter(like="Cells_")
    var = pd.DataFrame(index=features.columns)
    anndata.AnnData(X=features.to_numpy(np.float32), obs=obs.astype(object), var=var).write_h5ad(path)
    whole = path.read_bytes()
    path.write_bytes({"text": b"hello" * 99, "empty": b"", "half": whole[: len(whole) // 2]}[damage])
    screen.config["profiles"]["path"] = str(path)
    screen.refused("p.h5ad", "copy or write it again")
