"""A small clean screen that the tests of this folder damage, and how they check what became of it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from phenohit.cli import main

SMILES = ["CCO", "CCN", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "CCCCCl", "c1ccncc1", "CC(C)CO", "OCC(O)CO"]
N = len(SMILES)

# What a message may never show: names of errors and libraries that only a programmer knows.
INTERNAL = re.compile(
    r"Traceback|\b(pyarrow|pandas\.|numpy\.|Arrow[A-Z]\w+|zlib\.error|sqlite3\.|csv\.Error|BadZipFile|Unicode\w+Error|"
    r"KeyError|ValueError|TypeError|IndexError|MemoryError|AttributeError|Errno)\b|object at 0x"
)
MEND = re.compile(
    r"(?i)\b(copy|give|save|make|unpack|rename|remove|correct|expected|check|keep|close|open|wait|write|let|put|load|"
    r"leave|set|say|use|need)\b"
)


class Screen:
    """A small clean screen whose files a case replaces before it runs."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        rng = np.random.default_rng(0)
        self.table = pd.DataFrame({"Metadata_Plate": "00117035", "Metadata_Well": [f"A{i + 1:02d}" for i in range(N)]})
        self.table["Metadata_compound_id"] = [f"C{i}" for i in range(N)]
        self.table["Metadata_SMILES"] = SMILES
        for k in range(4):
            self.table[f"Cells_Texture_F{k}"] = rng.normal(size=N).round(6)
        self.config: dict[str, Any] = {
            "out": str(folder / "run"),
            "profiles": {"path": str(folder / "profiles.csv")},
            "activities": [{"path": str(folder / "activities.csv"), "id": "compound"}],
            "labels": {"min_active": 1, "min_inactive": 1},
            "models": {"logistic": {}},
        }
        self.write("profiles.csv", self.csv)
        self.write("activities.csv", "compound,assay,value\n" + "".join(f"C{i},A,{i % 2}\n" for i in range(N)))

    smiles = SMILES

    @property
    def csv(self) -> str:
        return self.table.to_csv(index=False)

    def write(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def profiles(self, name: str, content: str | bytes) -> None:
        self.config["profiles"]["path"] = self.write(name, content)

    def column(self, values: list[str], name: str = "Cells_Texture_F1") -> None:
        self.table[name] = values
        self.profiles("profiles.csv", self.csv)

    def parquet(self, damage: Callable[[bytes], bytes] = lambda whole: whole) -> None:
        with io.BytesIO() as out:
            self.table.to_parquet(out)
            self.profiles("profiles.parquet", damage(out.getvalue()))

    def join(self, content: str | bytes, name: str = "join.csv") -> None:
        self.config["profiles"]["joins"] = [{"path": self.write(name, content), "by": "compound_id"}]

    def structures(self, content: str | bytes, name: str = "library.csv") -> None:
        self.config["structures"] = {"path": self.write(name, content)}
        self.table = self.table.drop(columns="Metadata_SMILES", errors="ignore")
        self.write("profiles.csv", self.csv)

    def activities(self, content: str | bytes, name: str = "a.csv", **more: Any) -> None:
        self.config["activities"] = [{"path": self.write(name, content), "id": "compound", **more}]

    def run(self, step: str) -> int:
        self.write("c.yaml", yaml.safe_dump(self.config))
        return main([step, str(self.folder / "c.yaml")])

    def lost(self, step: str = "data") -> pd.DataFrame:
        return pd.read_csv(self.folder / "run" / "dropped" / f"{step}.csv", dtype=str, keep_default_na=False)

    def refused(self, *words: str, step: str = "data") -> None:
        """Run, and demand exit code 2 with a message that holds the words, a mend and nothing internal."""
        assert self.run(step) == 2
        said = self.capsys.readouterr().err
        for word in words:
            assert word in said, said
        assert not INTERNAL.search(said), said
        assert MEND.search(said), said

    def taken(self, *listed: str, wells: int = N, step: str = "data", plates: tuple[str, ...] = ()) -> None:
        """Run, and demand that so many wells are kept, and that these patterns, and no other loss, are listed."""
        assert self.run(step) == 0, self.capsys.readouterr().err
        assert "Traceback" not in self.capsys.readouterr().err
        kept = pd.read_parquet(self.folder / "run" / "wells.parquet")
        assert len(kept) == wells
        if plates:
            assert sorted(set(kept["plate"])) == sorted(plates)
        lost = self.lost(step)
        lines = (lost["id"] + ": " + lost["reason"]).tolist()
        for pattern in listed:
            assert any(re.search(pattern, line) for line in lines), (pattern, lines)
        odd = [line for line in lines if not any(re.search(p, line) for p in (*listed, *EXPECTED))]
        assert not odd


# Columns of single cells that are no features, which every such table has.
EXPECTED = ("^ImageNumber: ", "ObjectNumber: ", "_Children_Count: ")


@pytest.fixture
def screen(tmp_path, capsys) -> Screen:
    return Screen(tmp_path, capsys)
