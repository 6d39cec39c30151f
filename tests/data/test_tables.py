from __future__ import annotations

import gzip

import pandas as pd
import pytest

from phenohit.data.read import read_any
from phenohit.errors import ColumnError, FileError


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"Metadata_Plate": ["0017", "0018"], "x": [1.5, 2.0], "name": ["a,b", 'say "c"\nd']})


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.parquet"])
def test_same_table_from_every_kind_of_file(tmp_path, frame, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    read = read_any(path)
    assert read.to_dict("list") == frame.to_dict("list")
    assert list(read_any(path, ["x"])) == ["x"]


def test_plates_keep_their_zeros_and_semicolons_separate(tmp_path, frame):
    frame.to_csv(tmp_path / "t.csv", index=False, sep=";")
    assert read_any(tmp_path / "t.csv")["Metadata_Plate"].tolist() == ["0017", "0018"]


def test_integers_that_turn_into_fractions_after_the_first_block(tmp_path):
    values = [1] * 400_000 + [2.5]
    pd.DataFrame({"x": values}).map(lambda v: f"{v:g}").to_csv(tmp_path / "t.csv", index=False)
    assert read_any(tmp_path / "t.csv")["x"].iloc[-1] == 2.5


def test_text_after_the_first_block_is_kept(tmp_path):
    pd.DataFrame({"x": ["1"] * 400_000 + ["late"]}).to_csv(tmp_path / "t.csv", index=False)
    assert read_any(tmp_path / "t.csv")["x"].iloc[-1] == "late"


def test_unknown_column_lists_the_nearest(tmp_path, frame):
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ColumnError, match=r"'nmae'.*Nearest: name"):
        read_any(tmp_path / "t.csv", ["nmae"])


def test_columns_of_the_same_name_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(ColumnError, match="same name: 'a'"):
        read_any(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("ragged.csv", b"a,b\n1,2\n3\n"),
        ("cut.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 5000, mtime=0)[:40]),
        ("notgz.csv.gz", b"a,b\n1,2\n"),
        ("cut.parquet", b"PAR1 and then nothing"),
        ("latin.csv", "name\nMüller\n".encode("latin-1")),
        ("table.xlsx", b"PK"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileError, match=name.replace(".", r"\.")):
        read_any(path)


def test_truncated_parquet_of_another_program_is_named(tmp_path, frame):
    path = tmp_path / "profiles.parquet"
    frame.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FileError, match=r"profiles\.parquet.*truncated"):
        read_any(path)


def test_absent_file_is_named(tmp_path):
    with pytest.raises(FileError, match=r"nowhere\.csv' does not exist"):
        read_any(tmp_path / "nowhere.csv")
