from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.config import ProfileSource, StructureSource
from phenohit.data.read import read_profiles, read_structures
from phenohit.errors import ColumnError, ConfigError, PlateError


def screen(n: int = 4) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Metadata_Plate": ["1053597806"] * n,
            "Metadata_Well": [f"a{i + 1}" for i in range(n)],
            "treatment": ["DMSO", "x", "y", "y"][:n],
            "dose": [np.nan, 1.0, 2.5, 3.0][:n],
            "Cells_AreaShape_Area": np.arange(n, dtype=float),
            "Nuclei_Texture_Variance": np.arange(n, dtype=float) / 3,
            "purity": [99.0] * n,
        }
    )


def read(tmp_path, table: pd.DataFrame, name: str = "t.parquet", **settings):
    path = tmp_path / name
    if name.endswith("parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return read_profiles(ProfileSource(path=str(path), **settings))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz", "t.tsv"])
def test_reads_features_and_text_metadata(tmp_path, name):
    table = screen()
    if name == "t.tsv":
        table.to_csv(tmp_path / name, index=False, sep="\t")
        profiles, lost = read_profiles(ProfileSource(path=str(tmp_path / name), columns={"compound_id": "treatment"}))
    else:
        profiles, lost = read(tmp_path, table, name, columns={"compound_id": "treatment"})
    assert profiles.features == ["Cells_AreaShape_Area", "Nuclei_Texture_Variance"]
    np.testing.assert_allclose(profiles.X, table[profiles.features].to_numpy(), rtol=1e-6)
    assert profiles.rows["Metadata_Well"].tolist() == ["A01", "A02", "A03", "A04"]
    assert profiles.rows["Metadata_Plate"].tolist() == ["1053597806"] * 4
    assert profiles.rows["Metadata_compound_id"].tolist() == table["treatment"].tolist()
    assert profiles.rows["Metadata_pert_type"].tolist() == ["trt"] * 4
    assert set(lost["id"]) == {"dose", "purity"}


def test_metadata_stays_text(tmp_path):
    profiles, _ = read(tmp_path, screen(), columns={"concentration_uM": "dose", "batch": "purity"})
    assert profiles.rows["Metadata_concentration_uM"].tolist() == ["", "1", "2.5", "3"]
    assert profiles.rows["Metadata_Batch"].tolist() == ["99"] * 4


def test_controls_are_marked_by_the_rule_and_by_nothing_else(tmp_path):
    table = screen()
    table["id"] = ["", "b", None, "d"]  # a missing id marks no control
    columns = {"compound_id": "id"}
    profiles, _ = read(tmp_path, table, columns=columns, controls={"treatment": ["DMSO", "solvent"]})
    assert profiles.rows["Metadata_pert_type"].tolist() == ["negcon", "trt", "trt", "trt"]


def test_controls_by_true_and_by_number(tmp_path):
    table = screen().assign(is_dmso=[True, False, False, False], code=[0, 1, 2, 3])
    for controls in ({"is_dmso": [True]}, {"code": [0]}, {"is_dmso": ["True"]}):
        profiles, _ = read(tmp_path, table, controls=controls)
        assert profiles.rows["Metadata_pert_type"].tolist() == ["negcon", "trt", "trt", "trt"]


def test_pert_type_of_the_file_is_used(tmp_path):
    table = screen().assign(Metadata_pert_type=["negcon", "poscon_cp", "", "empty"])
    profiles, _ = read(tmp_path, table)
    assert profiles.rows["Metadata_pert_type"].tolist() == ["negcon", "poscon", "trt", "empty"]


def test_control_value_that_never_occurs_is_a_slip(tmp_path):
    with pytest.raises(ColumnError, match=r"none of 'DMS0'.*'DMSO'"):
        read(tmp_path, screen(), controls={"treatment": ["DMS0"]})
    with pytest.raises(ColumnError, match=r"'treatmnt'.*Nearest: treatment"):
        read(tmp_path, screen(), controls={"treatmnt": ["DMSO"]})
    with pytest.raises(ColumnError, match=r"pert_type holds 'dmso'.*controls"):
        read(tmp_path, screen(), columns={"pert_type": "treatment"}, ignore=[])


def test_doubled_wells_are_named(tmp_path):
    table = screen()
    table.loc[3, "Metadata_Well"] = "A02"
    with pytest.raises(PlateError, match=r"1053597806 A02 \(2 times\)"):
        read(tmp_path, table)
    table["Metadata_Plate"] = ["p", "p", "p", "q"]
    assert len(read(tmp_path, table)[0]) == 4


def test_text_in_a_feature_column_is_named(tmp_path):
    table = screen().astype({"Cells_AreaShape_Area": object})
    table.loc[2, "Cells_AreaShape_Area"] = "overflow"
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(
            ColumnError, match=r"'Cells_AreaShape_Area' holds text in 1 of 4 rows \(row 2: 'overflow'\)"
        ):
            read(tmp_path, table.astype({"Cells_AreaShape_Area": str}), name)
    profiles, _ = read(tmp_path, table.astype({"Cells_AreaShape_Area": str}), ignore=["Cells_AreaShape_Area"])
    assert profiles.features == ["Nuclei_Texture_Variance"]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_features_and_wells_without_any_value_are_dropped_and_listed(tmp_path, name):
    table = screen().assign(Cells_Empty=np.nan, Cells_Text=["nan", "NA", "", "none"])
    table.loc[1, ["Cells_AreaShape_Area", "Nuclei_Texture_Variance"]] = np.nan
    profiles, lost = read(tmp_path, table, name)
    assert profiles.X.shape == (3, 2)
    assert profiles.rows["Metadata_Well"].tolist() == ["A01", "A03", "A04"]
    assert set(lost["id"]) == {"dose", "purity", "Cells_Empty", "Cells_Text", "row 1 1053597806 A02"}
    assert lost.set_index("id")["reason"]["Cells_Empty"] == "no value in any row"


def test_infinite_values_are_missing_and_counted(tmp_path):
    table = screen()
    table["Cells_AreaShape_Area"] = [np.inf, -np.inf, 1e300, 4.0]  # 1e300 is beyond float32
    profiles, lost = read(tmp_path, table)
    assert np.isnan(profiles.X[:3, 0]).all()
    assert profiles.X[3, 0] == 4
    assert lost.set_index("id")["reason"]["Cells_AreaShape_Area"].startswith("3 infinite values")


def test_table_without_features_is_refused(tmp_path):
    with pytest.raises(ColumnError, match="no feature column"):
        read(tmp_path, screen()[["Metadata_Plate", "Metadata_Well", "treatment"]])
    with pytest.raises(ColumnError, match="holds a number"):
        read(tmp_path, screen().assign(Cells_AreaShape_Area=np.nan, Nuclei_Texture_Variance=np.nan))


def test_slips_in_the_column_map(tmp_path):
    with pytest.raises(ColumnError, match=r"'treatmen' \(profiles.columns: smiles\).*Nearest: treatment"):
        read(tmp_path, screen(), columns={"smiles": "treatmen"})
    with pytest.raises(ConfigError, match=r"'smile' is not known.*smiles"):
        read(tmp_path, screen(), columns={"smile": "treatment"})
    with pytest.raises(ConfigError, match="path is empty"):
        read_profiles(ProfileSource())


def test_many_rows_and_columns_keep_their_places(tmp_path):
    X = np.random.default_rng(0).normal(size=(20_000, 70)).astype(np.float32)
    table = pd.DataFrame(X, columns=[f"Cells_F{j}" for j in range(70)]).assign(
        compound_id=np.arange(20_000).astype(str)
    )
    for name in ("t.parquet", "t.csv"):
        profiles, _ = read(tmp_path, table, name)
        np.testing.assert_array_equal(profiles.X, X)
        assert profiles.rows["Metadata_compound_id"].iloc[-1] == "19999"


def test_structures_from_a_table(tmp_path):
    (tmp_path / "s.csv").write_text("cid,smi\n01,CCO\n2,\n,C\n")
    found = read_structures(StructureSource(path=str(tmp_path / "s.csv"), id="cid", smiles="smi"))
    assert found.to_dict("list") == {"id": ["01", "2"], "smiles": ["CCO", ""]}
    with pytest.raises(ColumnError, match=r"'smiles' \(structures.smiles\).*Nearest: smi"):
        read_structures(StructureSource(path=str(tmp_path / "s.csv"), id="cid"))


def test_structures_from_an_sd_file(tmp_path):
    from rdkit import Chem

    mol = Chem.MolFromSmiles("CCO")
    mol.SetProp("_Name", "title")
    mol.SetProp("ID", "c1")
    with Chem.SDWriter(str(tmp_path / "s.sdf")) as writer:
        writer.write(mol)
    assert read_structures(StructureSource(path=str(tmp_path / "s.sdf"), id="ID"))["id"].tolist() == ["c1"]
    assert read_structures(StructureSource(path=str(tmp_path / "s.sdf"))).to_dict("list") == {
        "id": ["title"],
        "smiles": ["CCO"],
    }


def test_real_screen(shared_data):
    source = ProfileSource(
        path=str(shared_data / "cell-injury-u2os" / "profiles.parquet"),
        columns={"compound_id": "broad_id", "cell_count": "relative_cell_count"},
        controls={"injury_type": ["Control"]},
    )
    profiles, lost = read_profiles(source)
    assert profiles.X.shape == (6925, 344)  # 346 less two positions of cells
    assert not np.isnan(profiles.X).any()
    assert (profiles.rows["Metadata_pert_type"] == "negcon").sum() == 3312
    positions = lost[lost["reason"].str.contains("position")]["id"]
    assert set(positions) == {"Cells_AreaShape_Center_Y", "Cytoplasm_AreaShape_Center_X"}
    assert {"mahalanobis_distance", "injury_code", "pubchem_cid"} <= set(lost["id"])
    assert profiles.numbers("Metadata_cell_count").max() < 3
