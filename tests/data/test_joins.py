from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenohit.data.joins import join_tables
from phenohit.errors import ColumnError, FileError
from phenohit.sources import Join


def rows(**columns) -> pd.DataFrame:
    return pd.DataFrame({"Metadata_broad_sample": ["a", "b", "", "a", "z"], **columns}, dtype=str)


def joined(tmp_path, text: str, frame=None, **join):
    (tmp_path / "j.tsv").write_text(text)
    frame = rows() if frame is None else frame
    return join_tables(frame, [Join(path=str(tmp_path / "j.tsv"), **{"by": "broad_sample", **join})])


def test_values_arrive_and_everything_that_did_not_match_is_listed(tmp_path):
    out, lost = joined(tmp_path, "broad_sample\tmoa\ttarget\na\tx\t1\nb\t\t2\nunused\ty\t3\n")
    assert out["moa"].tolist() == ["x", "", "", "x", ""]
    assert out["target"].tolist() == ["1", "2", "", "1", ""]
    assert len(out) == 5
    said = lost.set_index("id")["reason"]
    assert said["z"].startswith("not in")
    assert "1 rows" in said["z"]
    assert any("1 rows have no broad_sample" in r for r in lost["reason"])
    assert any("1 of its 3 keys occur in no row" in r for r in lost["reason"])


def test_keys_described_twice(tmp_path):
    with pytest.raises(ColumnError, match=r"1 keys \(broad_sample\).*different values in 'moa': 'a'"):
        joined(tmp_path, "broad_sample\tmoa\na\tx\na\ty\nb\tz\n")
    out, lost = joined(tmp_path, "broad_sample\tmoa\na\tx\na\tx\n\tq\n")
    assert out["moa"].tolist() == ["x", "", "", "x", ""]
    assert lost["reason"].str.contains("1 rows repeat another one exactly").any()
    assert lost["id"].str.endswith("row 2").any()  # no key


def test_what_the_rows_hold_already_stays(tmp_path):
    frame = rows(Metadata_moa=["old", "", "", "x", "q"])
    out, lost = joined(tmp_path, "broad_sample\tmoa\na\tx\nb\ty\n", frame)
    assert out["Metadata_moa"].tolist() == ["old", "y", "", "x", "q"]
    assert "moa" not in out
    said = lost[lost["what"] == "column"]
    assert said["id"].tolist() == ["moa"]
    assert "1 rows hold another value" in said["reason"].iloc[0]
    assert "row 0: 'old', there 'x'" in said["reason"].iloc[0]


def test_one_join_may_use_what_another_brought(tmp_path):
    (tmp_path / "a.csv").write_text("id,cid\na,007\nb,8\n")
    (tmp_path / "b.csv").write_text("compound;smiles\n007;CCO\n8;C\n")
    joins = [Join(str(tmp_path / "a.csv"), "broad_sample", "id"), Join(str(tmp_path / "b.csv"), "cid", "compound")]
    out, _ = join_tables(rows(), joins)
    assert out["smiles"].tolist() == ["CCO", "C", "", "CCO", ""]


def test_slips(tmp_path):
    with pytest.raises(ColumnError, match=r"joined on 'broad_sampl', which the profiles do not have. Nearest"):
        joined(tmp_path, "broad_sample\tmoa\n", by="broad_sampl")
    with pytest.raises(ColumnError, match=r"no column 'idd' \(profiles.joins: key\). Nearest: id"):
        joined(tmp_path, "id\tmoa\n", key="idd")
    with pytest.raises(FileError, match=r"nowhere.csv' does not exist"):
        join_tables(rows(), [Join(str(tmp_path / "nowhere.csv"), "broad_sample")])


@given(
    st.lists(st.sampled_from("abcdef"), max_size=30),
    st.dictionaries(st.sampled_from("abcdefgh"), st.text("xyz", max_size=2), min_size=1),
)
def test_a_join_is_a_look_up(tmp_path_factory, keys, table):
    path = tmp_path_factory.mktemp("j") / "j.csv"
    path.write_text("k,v\n" + "".join(f"{k},{v}\n" for k, v in table.items()))
    frame = pd.DataFrame({"k": keys}, dtype=str)
    out, lost = join_tables(frame, [Join(str(path), "k")])
    assert out["v"].tolist() == [table.get(k, "") for k in keys]
    assert set(lost[lost["reason"].str.startswith("not in")]["id"]) == set(keys) - set(table)
