"""`phenohit labels` on a ChEMBL database: what the run folder says, resuming, --explain, no password anywhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from phenohit.cli import main
from phenohit.files import read_json

pytestmark = pytest.mark.xdist_group("postgres")


@pytest.fixture
def config(chembl, tmp_path):
    """Profiles of the first 30 molecules, and the YAML of a run on a path."""
    structures = chembl["compound_structures"].iloc[:30]
    rng = np.random.default_rng(0)
    profiles = pd.DataFrame({
        "Metadata_Plate": "p1", "Metadata_Well": [f"{r}{k:02d}" for r in "AB" for k in range(1, 16)],
        "Metadata_compound_id": [f"x{m}" for m in structures["molregno"]],
        "Metadata_SMILES": structures["canonical_smiles"].to_numpy(),
    })  # fmt: skip
    for k in range(3):
        profiles[f"Cells_AreaShape_F{k}"] = rng.normal(size=30).astype(np.float32)
    profiles.to_parquet(tmp_path / "profiles.parquet")

    def write(path):
        settings = {
            "profiles": {"path": str(tmp_path / "profiles.parquet")}, "out": str(tmp_path / "run"),
            "activities": [{"path": str(path), "format": "chembl", "thresholds": [6.0]}],
            "labels": {"min_active": 2, "min_inactive": 2, "max_overlap": 0.9, "max_active_tasks": 11}, "jobs": 1,
        }  # fmt: skip
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
        return str(tmp_path / "c.yaml")

    return write


def test_labels_from_a_file_explained_and_resumed(config, chembl_file, tmp_path, capsys):
    path = config(chembl_file)
    assert main(["labels", path]) == 0
    step = read_json(tmp_path / "run" / "manifest.json")["steps"]["labels"]
    assert step["releases"] == ["ChEMBL_99"]
    run = tmp_path / "run"
    fates = pd.read_csv(run / "labels.fates.csv")
    assert fates["n"].sum() == 3000
    labels = pd.read_parquet(run / "labels.parquet").iloc[0]
    name = pd.read_parquet(run / "labels.compounds.parquet").set_index("compound")["compound_id"][labels["compound"]]
    capsys.readouterr()
    stamp = (run / "stamps" / "labels.json").stat().st_mtime_ns
    assert main(["labels", path, "--explain", f"{name} in {labels['task']}"]) == 0
    out = capsys.readouterr().out
    assert f"{labels['task']}: {'active' if labels['value'] else 'inactive'}" in out
    assert "matched by inchikey" in out
    assert (run / "stamps" / "labels.json").stat().st_mtime_ns == stamp  # nothing was read again
    assert main(["labels", path, "--explain", "nobody in CHEMBL9001"]) == 2
    assert {"labels.values.parquet", "tasks.overlap.parquet", "labels.records.parquet"} <= {
        p.name for p in run.iterdir()
    }


def test_no_file_of_a_run_holds_the_password(config, chembl_server, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    address = chembl_server[0].replace("reader@", "reader:s3cret%2Fpw%40x@")
    assert main(["labels", config(address)]) == 0
    shown = capsys.readouterr()
    assert "s3cret" not in shown.out + shown.err
    files = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert len(files) > 10
    assert not [p.name for p in files if b"s3cret" in p.read_bytes()]
    assert "reader:***@127.0.0.1" in (tmp_path / "run" / "config.yaml").read_text()


def test_mistakes_end_without_a_traceback(config, tmp_path, capsys):
    assert main(["labels", config("postgresql://reader:hidden@127.0.0.1:1/chembl")]) == 2
    error = capsys.readouterr().err
    assert "FileError: The server of 'postgresql://reader:***@127.0.0.1:1/chembl' cannot be used" in error
    assert "hidden" not in error
    path = config("postgresql://reader:hidden@127.0.0.1:1/chembl")
    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text.replace("format: chembl", "format: long"))
    assert main(["labels", path]) == 2
    error = capsys.readouterr().err
    assert "set format: chembl" in error
    assert "hidden" not in error
    assert main(["labels", config("/nowhere/chembl_33.db")]) == 2
    assert "'/nowhere/chembl_33.db' does not exist" in capsys.readouterr().err
