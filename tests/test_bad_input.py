"""Every mistake of acceptance, made through the command line as a user would make it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from phenohit.cli import main

SMILES = ["CCO", "CCN", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "CCCCCl", "c1ccncc1", "CC(C)CO", "OCC(O)CO"]


class Screen:
    """A tiny clean screen whose tables a test damages before it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        n = len(SMILES)
        rng = np.random.default_rng(0)
        self.profiles = pd.DataFrame(
            {
                "Metadata_Plate": "P1",
                "Metadata_Well": [f"A{i + 1:02d}" for i in range(n)],
                "Metadata_compound_id": [f"C{i}" for i in range(n)],
                "Metadata_SMILES": SMILES,
                **{f"Cells_Texture_F{k}": rng.normal(size=n) for k in range(4)},
            }
        )
        self.activities = pd.DataFrame(
            {"compound": [f"C{i}" for i in range(n)], "assay": "A", "value": [0, 1] * (n // 2)}
        )
        self.config = {
            "out": str(folder / "run"),
            "profiles": {"path": str(folder / "profiles.csv")},
            "activities": [{"path": str(folder / "activities.csv"), "id": "compound"}],
            "labels": {"min_active": 2, "min_inactive": 2},
            "splits": [{"kind": "compound", "folds": 2}],
            "models": {"logistic": {}},
            "evaluate": {"bootstrap": 20, "chance": 5},
            "hits": {"n": 2},
        }

    def run(self, step: str = "labels") -> int:
        if not (self.folder / "profiles.csv").exists():
            self.profiles.to_csv(self.folder / "profiles.csv", index=False)
        self.activities.to_csv(self.folder / "activities.csv", index=False)
        (self.folder / "c.yaml").write_text(yaml.safe_dump(self.config))
        return main([step, str(self.folder / "c.yaml")])

    def dropped(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / "run" / "dropped" / f"{name}.csv", dtype=str, keep_default_na=False)


@pytest.fixture
def screen(tmp_path):
    return Screen(tmp_path)


def _refused(screen: Screen, capsys, *words: str, step: str = "labels") -> None:
    assert screen.run(step) == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    for word in words:
        assert word in text, text


def test_the_clean_screen_runs_to_its_end(screen):
    screen.profiles["Metadata_cell_count"] = range(10, 18)
    assert screen.run("report") == 0
    assert (screen.folder / "run" / "report.html").exists()


def test_malformed_smiles(screen):
    screen.profiles.loc[2, "Metadata_SMILES"] = "c1ccccc("
    assert screen.run() == 0
    lost = screen.dropped("data")
    assert lost["reason"].str.contains("c1ccccc(", regex=False).any()
    assert lost["id"].str.contains("C2").any()


def test_text_in_a_feature_column(screen, capsys):
    screen.profiles["Cells_Texture_F1"] = screen.profiles["Cells_Texture_F1"].astype(object)
    screen.profiles.loc[3, "Cells_Texture_F1"] = "oops"
    _refused(screen, capsys, "ColumnError", "Cells_Texture_F1", "oops")


def test_all_nan_feature(screen):
    screen.profiles["Cells_Texture_F2"] = np.nan
    assert screen.run() == 0
    lost = screen.dropped("data")
    assert lost.loc[lost["id"] == "Cells_Texture_F2", "what"].tolist() == ["feature"]


def test_duplicate_wells(screen, capsys):
    screen.profiles.loc[1, "Metadata_Well"] = "a1"
    _refused(screen, capsys, "PlateError", "P1", "A01")


def test_assay_with_one_class(screen):
    one = pd.DataFrame({"compound": [f"C{i}" for i in range(8)], "assay": "B", "value": 1})
    screen.activities = pd.concat([screen.activities, one])
    assert screen.run() == 0
    lost = screen.dropped("labels")
    assert lost.loc[lost["what"] == "task", "id"].tolist() == ["B"]


def test_only_assays_with_one_class(screen, capsys):
    screen.activities["value"] = 1
    _refused(screen, capsys, "LabelError")


def test_contradicting_duplicate_labels(screen):
    screen.activities = pd.concat([screen.activities, pd.DataFrame({"compound": ["C0"], "assay": ["A"], "value": [1]})])
    assert screen.run() == 0
    lost = screen.dropped("labels")
    assert lost["id"].str.contains("C0").any()


def test_unknown_config_key(screen, capsys):
    screen.config["profils"] = {}
    _refused(screen, capsys, "'profils' is no setting", "Nearest: profiles")


def test_unknown_model_and_setting(screen, capsys):
    screen.config["models"] = {"forrest": {}}
    _refused(screen, capsys, "'forrest' is not known", "forest")
    screen.config["models"] = {"forest": {"trees": 5}}
    _refused(screen, capsys, "no setting 'trees'", "n_trees")


def test_truncated_parquet(screen, capsys):
    screen.profiles.to_parquet(screen.folder / "p.parquet")
    whole = (screen.folder / "p.parquet").read_bytes()
    (screen.folder / "p.parquet").write_bytes(whole[: len(whole) // 2])
    screen.config["profiles"]["path"] = str(screen.folder / "p.parquet")
    _refused(screen, capsys, "FileError", "p.parquet", "truncated")


def test_absent_column_names_the_nearest(screen, capsys):
    screen.config["activities"][0]["value"] = "valu"
    _refused(screen, capsys, "ColumnError", "valu", "value")


def test_run_folder_in_use(screen, capsys):
    from phenohit.runs import open_run

    with open_run(screen.config["out"], name="other", seed=0, simulated=False):
        _refused(screen, capsys, "RunError", "is in use by", str(os.getpid()))


def test_compound_in_labels_but_not_imaged(screen):
    screen.activities = pd.concat([screen.activities, pd.DataFrame({"compound": ["Z9"], "assay": ["A"], "value": [1]})])
    assert screen.run() == 0
    lost = screen.dropped("labels")
    assert lost.loc[lost["id"].str.contains("Z9"), "reason"].str.contains("not imaged").all()
    assert lost["id"].str.contains("Z9").any()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_disk_full_on_write(screen, capsys, monkeypatch):
    # Every write of a table lands on a device that is always full, as a full disk would.
    import phenohit.files

    plain = phenohit.files.Path.with_name

    def onto_full(self: Path, name: str) -> Path:
        target = plain(self, name)
        if name.endswith(".partial") and "profiles.parquet" in name and not target.is_symlink():
            target.symlink_to("/dev/full")
        return target

    monkeypatch.setattr(phenohit.files.Path, "with_name", onto_full)
    _refused(screen, capsys, "FileError", "Cannot write", "profiles.parquet")
    monkeypatch.undo()
    assert not (screen.folder / "run" / "profiles.parquet").exists()
    assert not list((screen.folder / "run").rglob("*.partial"))
    assert screen.run() == 0
