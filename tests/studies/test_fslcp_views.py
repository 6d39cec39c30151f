"""Few-shot methods on views beside one on profiles: the same episodes, without the well that has no view."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from phenohit.cli import main
from phenohit.files import read_table

SMILES = ["C" * n + head for head in ("O", "N", "S", "Cl", "Br", "F", "C#N", "C(=O)O") for n in range(3, 18)]


@pytest.fixture
def screen(tmp_path):
    """Simulated views in the published form: actives are coarse in one channel; profiles know nothing."""
    rng, folder = np.random.default_rng(0), tmp_path
    active = rng.random(len(SMILES)) < 0.5
    (folder / "npzs").mkdir()
    wells = []
    for i, smiles in enumerate(SMILES):
        plate, well = ("24294", "24295")[i % 2], f"{'ABCDEFGHIJ'[i // 12]}{i % 12 + 1:02d}"
        wells.append({"Metadata_Plate": plate, "Metadata_Well": well, "Metadata_SMILES": smiles,
                      "Metadata_compound_id": f"c{i}",
                      **dict(zip("abcd", rng.normal(size=4), strict=True))})  # fmt: skip
        if i:
            pixels = rng.integers(1, 200, (24, 24, 5), dtype=np.uint8)
            if active[i]:
                pixels[..., 1] = np.kron(pixels[::4, ::4, 1], np.ones((4, 4), np.uint8))
            np.savez_compressed(folder / "npzs" / f"{plate}-{well}-1.npz", sample=pixels)
    pd.DataFrame(wells).to_csv(folder / "wells.csv", index=False)
    # Every assay has compounds of its own: none repeats another's labels.
    long = [{"id": f"c{i}", "assay": f"assay {i % 3}", "value": int(active[i])} for i in range(len(SMILES))]
    pd.DataFrame(long).to_csv(folder / "activities.csv", index=False)
    config = {
        "name": "SIMULATED views", "out": str(folder / "run"), "simulated": True, "jobs": 1,
        "images": {"path": str(folder / "npzs"), "layout": "npz", "store": True},
        "profiles": {"path": str(folder / "wells.csv"), "unit": "well"},
        "activities": [{"path": str(folder / "activities.csv"), "format": "long", "id": "id", "assay": "assay",
                        "value": "value"}],
        "labels": {"min_active": 5, "min_inactive": 5},
        "fewshot": {
            "methods": {
                "neighbours": {},
                "prototypes_images": {"outputs": 8, "options": {"units": 8}, "steps": 40, "episodes": 8, "tasks": 4,
                                      "crop": [24, 24], "check_every": 20},
            },
            "sizes": [16], "query": 16, "episodes": 20, "n_tests": 1, "min_compounds": 30, "share": [0.2, 0.8],
            "valid": 0,
        },
    }  # fmt: skip
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_views_tell_what_profiles_do_not(screen):
    assert main(["fslcp", str(screen / "c.yaml")]) == 0
    folder = screen / "run" / "fewshot"
    metrics = {p.parent.name: read_table(p)[0] for p in folder.glob("methods/*/compound.parquet")}
    assert set(metrics) == {"neighbours-profiles", "prototypes_images-views"}
    keys = [t[["task", "size", "episode"]] for t in metrics.values()]
    assert keys[0].equals(keys[1])
    lost = pd.read_csv(folder / "dropped.csv", keep_default_na=False)
    assert lost["reason"].tolist() == ["no view of it"]
    mean = pd.read_csv(folder / "table.csv").query("tasks == 'all'").set_index("method")["auroc"]
    assert mean["prototypes_images-views"] > 0.75
    assert mean["neighbours-profiles"] < 0.65


def test_without_views_it_is_said(screen, capsys):
    assert main(["fslcp", str(screen / "c.yaml"), "--images.store", "false"]) == 2
    assert "learns from views. Set images.path and images.store: true" in capsys.readouterr().err
