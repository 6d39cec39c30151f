from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phenohit.data.read import read_profiles
from phenohit.data.read_table import steps_of_name
from phenohit.data.tables import TableFile
from phenohit.errors import ColumnError, FileError, PlateError
from phenohit.sources import Join, ProfileSource


def plates(n_plates: int = 4, n_wells: int = 24) -> pd.DataFrame:
    n = n_plates * n_wells
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "Metadata_Plate": np.repeat([f"BR{i}" for i in range(n_plates)], n_wells),
            "Metadata_Batch": np.repeat([f"b{i // 2}" for i in range(n_plates)], n_wells),
            "Metadata_Well": [f"A{w + 1:02d}" for w in range(n_wells)] * n_plates,
            "Cells_A": rng.normal(size=n).astype(np.float32),
            "Nuclei_B": rng.normal(size=n).astype(np.float32),
        }
    )


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_only_plates_and_batches_that_are_asked_for(tmp_path, name):
    table = plates()
    path = tmp_path / name
    if name == "t.csv":
        table.to_csv(path, index=False)
    else:
        pq.write_table(pa.Table.from_pandas(table), path, row_group_size=7)  # plates across row groups
    profiles, lost = read_profiles(ProfileSource(path=str(path), plates=["BR1", "BR3"]))
    expected = table[table["Metadata_Plate"].isin(["BR1", "BR3"])]
    np.testing.assert_array_equal(profiles.X, expected[["Cells_A", "Nuclei_B"]].to_numpy())
    assert profiles.rows["Metadata_Plate"].tolist() == expected["Metadata_Plate"].tolist()
    out = lost[lost["what"] == "plate"].set_index("id")["reason"]
    assert set(out.index) == {"BR0", "BR2"}
    assert out["BR0"].endswith("; 24 rows")
    profiles, lost = read_profiles(ProfileSource(path=str(path), batches=["b1"], plates=["*2"]))
    assert set(profiles.rows["Metadata_Plate"]) == {"BR2"}
    assert set(lost["id"]) == {"b0", "BR3"}
    with pytest.raises(PlateError, match=r"profiles.plates has 'BR9', which matches none of 4"):
        read_profiles(ProfileSource(path=str(path), plates=["BR1", "BR9"]))


def test_one_plate_of_a_parquet_file_needs_only_its_row_groups_and_columns(tmp_path):
    table = plates()
    path = tmp_path / "profiles_var_mad_int_featselect_harmony.parquet"
    pq.write_table(pa.Table.from_pandas(table), path, row_group_size=24, compression="none", use_dictionary=False)
    found = pq.ParquetFile(path).metadata
    spoiled = bytearray(path.read_bytes())
    names = {found.row_group(0).column(j).path_in_schema: j for j in range(found.num_columns)}
    harmed = [(g, "Cells_A") for g in (0, 1, 3)] + [(2, "Nuclei_B")]  # all but what is asked for
    for group, name in harmed:
        chunk = found.row_group(group).column(names[name])
        start = chunk.data_page_offset
        spoiled[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(spoiled)
    source = ProfileSource(path=str(path), plates=["BR2"], features=["Cells_*"])
    profiles, _ = read_profiles(source)
    np.testing.assert_array_equal(profiles.X[:, 0], table["Cells_A"].to_numpy()[48:72])
    assert profiles.history == tuple(f"{s}[upstream]" for s in ("var", "mad", "int", "featselect", "harmony"))
    with pytest.raises(FileError, match="cannot be read"):
        read_profiles(ProfileSource(path=str(path)))


def test_a_long_file_is_never_held_whole(tmp_path):
    path = tmp_path / "t.parquet"
    block = pa.table({f"Cells_F{j}": np.random.default_rng(j).normal(size=1000).astype("f4") for j in range(100)})
    with pq.ParquetWriter(path, block.schema) as writer:
        for _ in range(100):
            writer.write_table(block)
    before, most = pa.total_allocated_bytes(), 0
    for _ in TableFile(path).batches(block.column_names):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < path.stat().st_size / 3  # a batch of 8,192 of 100,000 rows, and what decoding it takes


def test_rows_can_be_narrowed_again_and_again(tmp_path):
    pd.DataFrame({"x": range(100)}).to_parquet(tmp_path / "t.parquet", row_group_size=9)
    table = TableFile(tmp_path / "t.parquet")
    expected = np.arange(100)
    rng = np.random.default_rng(1)
    for share in (0.5, 0.9, 0.1, 0.0):
        keep = rng.random(len(expected)) < share
        table.keep(keep)
        expected = expected[keep]
        assert table.read(["x"])["x"].to_pylist() == expected.tolist()
        assert [v for b in table.batches(["x"]) for v in b.column(0).to_pylist()] == expected.tolist()
        assert table.n_rows == len(expected)


def test_names_that_spell_steps():
    assert steps_of_name("a/profiles_wellpos_cc_var.parquet") == ("wellpos[upstream]", "cc[upstream]", "var[upstream]")
    assert steps_of_name("s3://b/profiles_assembled/ORF/v1/profiles_new.parquet") == ("new[upstream]",)
    assert steps_of_name("profiles_final_2.parquet") == steps_of_name("profiles.parquet") == ()


# --- tables of other programs ---------------------------------------------------------------------


def vendor(tmp_path, text: str, name: str = "harmony.txt", encoding: str = "utf-8", **settings):
    (tmp_path / name).write_bytes(text.encode(encoding))
    return read_profiles(ProfileSource(path=str(tmp_path / name), **settings))


HARMONY = "Row\tColumn\tBarcode\tCompound\tDose\tNuclei - Number of Objects\tNuclei Area [µm²]\n"


def test_row_and_column_make_a_well_and_numbers_may_have_commas(tmp_path):
    text = HARMONY + "2\t3\t0017\tDMSO\t\t812\t105,5\n16\t24\t0017\tX\t2,5\t1020\t98,25\n"
    profiles, lost = vendor(
        tmp_path,
        text,
        columns={
            "well": "Row+Column",
            "plate": "Barcode",
            "compound_id": "Compound",
            "concentration_nM": "Dose",
            "cell_count": "Nuclei - Number of Objects",
        },
        controls={"Compound": ["DMSO"]},
    )
    assert profiles.features == ["Nuclei Area [µm²]"]
    np.testing.assert_array_equal(profiles.X[:, 0], np.float32([105.5, 98.25]))
    assert profiles.rows.to_dict("list") == {
        "Metadata_Plate": ["0017"] * 2,
        "Metadata_Well": ["B03", "P24"],
        "Metadata_compound_id": ["DMSO", "X"],
        "Metadata_concentration_uM": ["", "0.0025"],
        "Metadata_cell_count": ["812", "1020"],
        "Metadata_pert_type": ["negcon", "trt"],
    }
    assert lost.empty


@pytest.mark.parametrize("separator", [";", ",", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_every_separator_with_and_without_a_byte_order_mark(tmp_path, separator, bom):
    text = bom + "Plate;Well;Area\n1053597806;b7;1.5\n1053597806;AF48;2\n".replace(";", separator)
    profiles, _ = vendor(tmp_path, text, "t.csv")
    assert profiles.rows["Metadata_Plate"].tolist() == ["1053597806"] * 2  # a float32 would say 1053597824
    assert profiles.rows["Metadata_Well"].tolist() == ["B07", "AF48"]
    assert profiles.X[:, 0].tolist() == [1.5, 2.0]


def test_a_number_that_marks_controls_or_joins_is_no_feature(tmp_path):
    (tmp_path / "j.csv").write_text("lot,smiles\n7,CCO\n8,CCN\n")
    text = "Plate,Well,code,lot,Area\nP,A1,0,7,1\nP,A2,1,8,2\n"
    join = Join(path=str(tmp_path / "j.csv"), by="lot")
    profiles, _ = vendor(tmp_path, text, "t.csv", controls={"code": ["0"]}, joins=[join])
    assert profiles.features == ["Area"]
    assert profiles.rows["Metadata_pert_type"].tolist() == ["negcon", "trt"]
    assert profiles.rows["Metadata_SMILES"].tolist() == ["CCO", "CCN"]


def test_row_numbers_that_are_none_are_named(tmp_path):
    with pytest.raises(PlateError, match=r"1 wells cannot be read: '401'"):
        vendor(tmp_path, "Row,Column,Area\n40,1,1\n2,1,2\n", "t.csv", columns={"well": "Row+Column"})
    with pytest.raises(ColumnError, match=r"no column 'Row\+Colum' \(profiles.columns: well\)"):
        vendor(tmp_path, "Row,Column,Area\n4,1,1\n", "t.csv", columns={"well": "Row+Colum"})


def test_a_table_with_a_preamble_says_so(tmp_path):
    with pytest.raises(FileError, match=r"harmony.txt.*Remove lines before the header"):
        vendor(tmp_path, "Database\tX\n\n[Data]\n" + HARMONY + "2\t3\t0017\tDMSO\t\t812\t105\n")


@pytest.mark.parametrize(
    ("encoding", "said"), [("latin-1", r"Line 1.*Latin-1.*Save it as UTF-8"), ("utf-16", "UTF-16")]
)
def test_other_encodings_are_named(tmp_path, encoding, said):
    with pytest.raises(FileError, match=said):
        vendor(tmp_path, HARMONY + "2\t3\t0017\tDMSO\t\t812\t105\n", encoding=encoding)


def test_a_separator_that_is_none_is_named(tmp_path):
    with pytest.raises(ColumnError, match=r"Plate\|Well\|Area.*commas, semicolons or tabs"):
        vendor(tmp_path, "Plate|Well|Area\nP|A1|1\n", "t.csv")


def test_cut_off_and_corrupt_gzip(tmp_path):
    text = "Plate,Well,Area\n" + "".join(f"P,A{i % 24 + 1},{i}.25\n" for i in range(20_000))
    whole = gzip.compress(text.encode())
    (tmp_path / "t.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"t.csv.gz' cannot be read"):
        read_profiles(ProfileSource(path=str(tmp_path / "t.csv.gz")))
    spoiled = bytearray(whole)
    spoiled[len(whole) // 2 : len(whole) // 2 + 50] = bytes(50)
    (tmp_path / "t.csv.gz").write_bytes(spoiled)
    with pytest.raises(FileError, match=r"t.csv.gz' cannot be read"):
        read_profiles(ProfileSource(path=str(tmp_path / "t.csv.gz")))


def test_a_readout_that_is_also_the_cell_count(tmp_path):
    text = "Plate,Well,cell_count\nP,A1,100\nP,A2,0\n"
    profiles, _ = vendor(tmp_path, text, "t.csv", features=["cell_count"])
    assert profiles.X[:, 0].tolist() == [100, 0]
    assert profiles.numbers("Metadata_cell_count").tolist() == [100, 0]
    with pytest.raises(ColumnError, match="no feature column"):
        vendor(tmp_path, text, "t.csv")


def test_our_own_table_keeps_its_history(tmp_path):
    from phenohit.data import Profiles

    rows = pd.DataFrame({"Metadata_Plate": ["P"], "Metadata_Well": ["A01"], "Metadata_pert_type": ["trt"]})
    Profiles(np.ones((1, 1), np.float32), rows, ["Cells_A"], ("mad[plate]",)).save(tmp_path / "p.parquet")
    assert read_profiles(ProfileSource(path=str(tmp_path / "p.parquet")))[0].history == ("mad[plate]",)
