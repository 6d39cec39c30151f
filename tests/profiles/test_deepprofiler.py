from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phenohit.errors import ColumnError, FileError
from phenohit.profiles.deepprofiler import read_deepprofiler
from phenohit.sources import ProfileSource


def source(path: Path, **settings) -> ProfileSource:
    return ProfileSource(path=str(path), format="deepprofiler", **settings)


def embeddings(n_wells: int = 3, n_sites: int = 2, width: int = 5, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = rng.integers(2, 9, n_wells * n_sites)
    frame = pd.DataFrame(rng.normal(size=(n.sum(), width)), columns=[f"DP_{j}" for j in range(width)])
    site = np.repeat(np.arange(n_wells * n_sites), n)
    frame["well"] = [f"B{s // n_sites + 1:02d}" for s in site]
    frame["site"] = site % n_sites + 1
    return frame.astype({f"DP_{j}": np.float32 for j in range(width)})


def save(path: Path, cells: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = cells.filter(like="DP_")
    if path.suffix == ".parquet":
        features.to_parquet(path)
        return
    # As DeepProfiler writes it: the metadata is a pickled dict.
    about = np.array({"Metadata_Plate": "somewhere else", "Metadata_Model": "efficientnet"}, dtype=object)
    np.savez_compressed(path, features=features.to_numpy(), metadata=about, locations=np.zeros((len(cells), 2)))


@pytest.mark.parametrize(
    ("form", "batch"),
    [
        ("{plate}/{well}/{site}.npz", ""),
        ("{plate}/{well}/s{site}.npz", ""),
        ("{plate}/{well}_{site}.npz", ""),
        ("{plate}_{well}_{site}.npz", ""),
        ("batch/{plate}/{well}-{site}/embedding.parquet", "batch"),
        ("net/batch/{plate}/{well}/{site}/embedding.npz", "batch"),
    ],
)
def test_every_layout_gives_the_same_wells(tmp_path, form, batch):
    frame = embeddings()
    frame.loc[4, "DP_1"] = np.nan
    for (well, site), cells in frame.groupby(["well", "site"]):
        save(tmp_path / form.format(plate="BR-1", well=well, site=site), cells)
    profiles, lost = read_deepprofiler(source(tmp_path, cells=["median", "sd"]))
    expected = frame.groupby("well").median(numeric_only=True).drop(columns="site")
    assert profiles.features == [f"DP_{j}" for j in range(5)] + [f"DP_{j}__sd" for j in range(5)]
    np.testing.assert_allclose(profiles.X[:, :5], expected, rtol=1e-6)
    assert profiles.rows["Metadata_Well"].tolist() == ["B01", "B02", "B03"]
    assert set(profiles.rows["Metadata_Plate"]) == {"BR-1"}
    assert set(profiles.rows.get("Metadata_Batch", [""])) == {batch}
    assert profiles.rows["Metadata_cell_count"].tolist() == frame.groupby("well").size().astype(str).tolist()
    assert not lost["what"].isin(["well", "site"]).any()


def test_a_pickle_is_refused(tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return (monkeypatch.setenv, ("OPENED", "1"))

    (tmp_path / "P" / "A01").mkdir(parents=True)
    np.savez(tmp_path / "P" / "A01" / "1.npz", features=np.array([[1.0, "x"]], dtype=object))
    with pytest.raises(FileError, match=r"1\.npz' holds Python objects \(a pickle\).*refused"):
        read_deepprofiler(source(tmp_path))
    pd.to_pickle([1.0], tmp_path / "P" / "A01" / "1.npz", compression=None)
    with pytest.raises(FileError, match=r"1\.npz'.*(pickle|cannot be read)"):
        read_deepprofiler(source(tmp_path))


def test_damage_and_mistakes_name_the_file(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        read_deepprofiler(source(tmp_path / "none"))
    with pytest.raises(FileError, match=r"no \.npz"):
        read_deepprofiler(source(tmp_path))
    frame = embeddings(2, 1)
    for well, cells in frame.groupby("well"):
        save(tmp_path / "P" / well / "1.npz", cells)
    good = (tmp_path / "P" / "B02" / "1.npz").read_bytes()
    (tmp_path / "P" / "B02" / "1.npz").write_bytes(good[: len(good) // 2])
    with pytest.raises(FileError, match=r"B02/1\.npz' cannot be read"):
        read_deepprofiler(source(tmp_path))
    np.savez(tmp_path / "P" / "B02" / "1.npz", features=np.zeros((3, 9)))
    with pytest.raises(FileError, match=r"has 9 features per cell, others have 5"):
        read_deepprofiler(source(tmp_path))
    np.savez(tmp_path / "P" / "B02" / "1.npz", other=np.zeros((3, 9)))
    with pytest.raises(FileError, match=r"holds 'other'. Expected an array called 'features'"):
        read_deepprofiler(source(tmp_path))
    np.savez(tmp_path / "P" / "B02" / "1.npz", features=np.zeros((3, 9, 2)))
    with pytest.raises(FileError, match="3-D array"):
        read_deepprofiler(source(tmp_path))
    (tmp_path / "P" / "B02" / "1.npz").write_bytes(good)
    (tmp_path / "P" / "B02" / "1.npz").rename(tmp_path / "cells.npz")
    with pytest.raises(ColumnError, match=r"cells\.npz': 1 of 2 images have no (plate|well)"):
        read_deepprofiler(source(tmp_path))


def test_empty_sites_are_listed_and_settings_apply(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="phenohit")
    frame = embeddings()
    for plate in ("P1", "P2"):
        for (well, site), cells in frame.groupby(["well", "site"]):
            save(tmp_path / plate / well / f"{site}.npz", cells)
    np.savez(tmp_path / "P1" / "B01" / "9.npz", features=np.zeros((0, 5), dtype=np.float32))
    np.savez(tmp_path / "P1" / "C01.npz", f=np.zeros((1, 5), dtype=np.float32))
    profiles, lost = read_deepprofiler(source(tmp_path, plates=["P1"], features=["DP_0", "DP_3"], min_cells=3))
    assert profiles.features == ["DP_0", "DP_3"]
    expected = frame.groupby("well")[["DP_0", "DP_3"]].median()
    np.testing.assert_allclose(profiles.X, expected, rtol=1e-6)
    assert lost[lost["what"] == "site"]["id"].item().endswith("9.npz")
    assert lost[lost["what"] == "well"]["reason"].item() == "1 cells, fewer than 3"
    assert lost[lost["what"] == "plate"]["id"].item() == "P2"
    assert "plate or well of" in caplog.text
