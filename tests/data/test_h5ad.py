from __future__ import annotations

import importlib.util
import pickle
import sys

import numpy as np
import pandas as pd
import pytest

from phenohit.data import Profiles
from phenohit.data.h5ad import write_anndata
from phenohit.data.read import find_format, read_profiles
from phenohit.errors import ColumnError, ConfigError, FileError, PlateError
from phenohit.sources import Join, ProfileSource

installed = pytest.mark.skipif(importlib.util.find_spec("anndata") is None, reason="needs the extra interop")


def test_without_anndata_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    (tmp_path / "x.h5ad").write_bytes(b"")
    source = ProfileSource(path=str(tmp_path / "x.h5ad"))
    assert find_format(source) == "anndata"
    with pytest.raises(ConfigError, match=r"pip install 'phenohit\[interop\]'"):
        read_profiles(source)
    with pytest.raises(ConfigError, match="interop"):
        write_anndata(Profiles(np.ones((1, 1), np.float32), pd.DataFrame({"Metadata_a": ["x"]}), ["f"]), tmp_path / "y")


def wells(n: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "plate": pd.Categorical(["P1", "P1", "P1", "0017", "0017", "0017"][:n]),
            "well": ["a1", "a2", "b10"] * 2,
            "sample": pd.array([1, 2, None, 1, 2, 3], dtype="Int64"),
            "dose": [0.5, np.nan, 1.0, 2.0, 3.0, 4.0],
            "is_dmso": [True, False, False, True, False, False],
        },
        index=[f"cell{i}" for i in range(n)],
    )


NAMES = ["Cells_A", "Cells_B", "Cells_Location_Center_X", "Nuclei_C"]


def write(path, X, obs=None, names=NAMES, **kept):
    import warnings

    anndata = pytest.importorskip("anndata")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = anndata.AnnData(X=X, obs=wells() if obs is None else obs, var=pd.DataFrame(index=names), **kept)
        table.write_h5ad(path)
    return ProfileSource(path=str(path))


@installed
@pytest.mark.parametrize("form", ["dense", "float64", "csr", "csc", "int"])
def test_obs_are_metadata_and_vars_are_features(tmp_path, form, monkeypatch):
    from scipy import sparse

    from phenohit.data import h5ad

    monkeypatch.setattr(h5ad, "BATCH", 4)
    X = np.random.default_rng(0).integers(0, 3, size=(6, 4)).astype(np.float32)
    X[0] = [1, 2, 3, 4]
    stored = {"dense": X, "float64": X.astype(float), "csr": sparse.csr_matrix(X), "csc": sparse.csc_matrix(X)}
    source = write(tmp_path / "t.h5ad", stored.get(form, X.astype(int)), layers={"raw": X + 100})
    source.columns = {"compound_id": "sample", "concentration_nM": "dose"}
    source.controls = {"is_dmso": ["True"]}
    source.plates = ["P1"]
    (tmp_path / "j.csv").write_text("sample,smiles\n1,CCO\n2,CCN\n3,C\n")
    source.joins = [Join(str(tmp_path / "j.csv"), "sample")]
    profiles, lost = read_profiles(source)
    assert profiles.features == ["Cells_A", "Cells_B", "Nuclei_C"]
    np.testing.assert_array_equal(profiles.X, X[:3][:, [0, 1, 3]])
    assert profiles.rows.to_dict("list") == {
        "Metadata_Plate": ["P1"] * 3,
        "Metadata_Well": ["A01", "A02", "B10"],
        "Metadata_compound_id": ["1", "2", ""],
        "Metadata_SMILES": ["CCO", "CCN", ""],
        "Metadata_concentration_uM": ["0.0005", "", "0.001"],
        "Metadata_is_dmso": ["true", "false", "false"],
        "Metadata_obs_name": ["cell0", "cell1", "cell2"],
        "Metadata_pert_type": ["negcon", "trt", "trt"],
    }
    reasons = lost.set_index("id")["reason"]
    assert "position" in reasons["Cells_Location_Center_X"]
    assert reasons["0017"].endswith("3 rows")


@installed
def test_there_and_back(tmp_path):
    rng = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "Metadata_Plate": ["1053597806"] * 5,
            "Metadata_Well": [f"A{i:02d}" for i in range(1, 6)],
            "Metadata_pert_type": ["negcon", "trt", "trt", "poscon", "empty"],
            "Metadata_compound_id": ["", "007", "x", "é", "x"],
        }
    )
    first = Profiles(rng.normal(size=(5, 3)).astype(np.float32), rows, ["Cells_A", "f/g", "z µm"], ("mad[plate]",))
    write_anndata(first, tmp_path / "t.h5ad")
    second, _ = read_profiles(ProfileSource(path=str(tmp_path / "t.h5ad"), features=["*"]))
    np.testing.assert_array_equal(first.X, second.X)
    assert second.features == first.features
    assert second.history == first.history
    assert {c: second.rows[c].tolist() for c in rows} == rows.to_dict("list")
    assert set(second.rows) == set(rows)


@installed
def test_missing_infinite_and_empty(tmp_path):
    X = np.ones((6, 4))
    X[0, 0], X[1, 1], X[2] = np.inf, 1e300, np.nan
    X[:, 3] = np.nan
    profiles, lost = read_profiles(write(tmp_path / "t.h5ad", X))
    assert profiles.X.shape == (5, 2)
    reasons = lost.set_index("id")["reason"]
    assert reasons["Cells_A"].startswith("1 infinite")
    assert reasons["Cells_B"].startswith("1 infinite")
    assert reasons["Nuclei_C"] == "no value in any row"
    assert "row 2 P1 B10" in reasons


@installed
def test_damaged_files(tmp_path):
    path = tmp_path / "t.h5ad"
    source = write(path, np.random.default_rng(0).normal(size=(6, 4)))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no HDF5 at all", b""):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"t.h5ad' cannot be read as AnnData"):
            read_profiles(source)
    import h5py

    with h5py.File(path, "w") as file:
        file["X"] = np.ones((2, 2))
    with pytest.raises(FileError, match=r"has no 'obs', 'var'"):
        read_profiles(source)
    with pytest.raises(FileError, match="does not exist"):
        read_profiles(ProfileSource(path=str(tmp_path / "absent.h5ad")))


@installed
@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_mistakes_in_the_content(tmp_path):
    X = np.ones((6, 4), np.float32)
    with pytest.raises(ColumnError, match="same name: 'Cells_A'"):
        read_profiles(write(tmp_path / "t.h5ad", X, names=["Cells_A", "Cells_A", "Cells_B", "Cells_C"]))
    with pytest.raises(PlateError, match=r"P1 A01 \(2 times\)"):
        read_profiles(write(tmp_path / "t.h5ad", X, obs=wells().assign(well=["a1", "A01", "b1"] * 2)))
    with pytest.raises(ColumnError, match="no feature among its 4 var_names"):
        read_profiles(write(tmp_path / "t.h5ad", X, names=[f"Cells_Location_Center_{i}" for i in range(4)]))


class _Spring:
    def __reduce__(self):
        return (open, ("/tmp/phenohit-was-executed", "w"))


@installed
def test_reading_executes_nothing(tmp_path):
    """Bytes that would run on unpickling lie in every part that is opened, and are text to us."""
    trap = np.void(pickle.dumps(_Spring()))
    obs = wells().assign(note=[pickle.dumps(_Spring(), protocol=0).decode()] * 6)
    source = write(tmp_path / "t.h5ad", np.ones((6, 4), np.float32), obs=obs)
    import h5py

    with h5py.File(tmp_path / "t.h5ad", "a") as file:
        file["uns"].create_dataset("trap", data=trap)
        file["obs"].attrs["trap"] = trap
    import pathlib

    profiles, _ = read_profiles(source)
    assert len(profiles) == 6
    assert not pathlib.Path("/tmp/phenohit-was-executed").exists()
