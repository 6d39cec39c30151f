from __future__ import annotations

import gzip

import pyarrow as pa
import pytest

from phenohit.data.delimited import header_of, quotes_in, read_delimited
from phenohit.errors import FileError


@pytest.mark.parametrize(("text", "separator"), [("a,b;c,d\n1", ","), ("a;b\n", ";"), ("\ufeffa\tb\r1\t2", "\t")])
def test_the_first_line_and_what_separates_it(tmp_path, text, separator):
    (tmp_path / "t.csv").write_bytes(text.encode())
    header, found = header_of(tmp_path / "t.csv")
    assert found == separator
    assert header == text.lstrip("\ufeff").splitlines()[0]


def test_text_far_below_numbers_leaves_the_other_columns_numbers(tmp_path):
    """The kinds are guessed on the first block; text below it makes one column text, and a short row is seen."""
    rows = "".join(f"{i}, {i / 4}\n" for i in range(200_000))
    (tmp_path / "t.csv").write_text("a,b\n" + rows + "oops,1\n")
    table, point = read_delimited(tmp_path / "t.csv", (), pa.float32())
    assert [str(t) for t in table.schema.types] == ["string", "float"]
    assert (table.num_rows, point) == (200_001, ".")
    assert table["a"][-1].as_py() == "oops"
    assert table["b"][3].as_py() == 0.75
    (tmp_path / "t.csv").write_text("a,b\n" + rows + "oops,1\n1\n")
    with pytest.raises(FileError, match="Expected 2 columns, got 1"):
        read_delimited(tmp_path / "t.csv", (), pa.float32())


def test_decimal_commas_below_text(tmp_path):
    rows = "".join(f"{i};{i},5\n" for i in range(200_000))
    (tmp_path / "t.csv").write_text("a;b\n" + rows + "oops;1,5\n")
    table, point = read_delimited(tmp_path / "t.csv", (), pa.float64())
    assert (point, table["b"][-1].as_py(), str(table.schema.types[0])) == (",", 1.5, "string")


def test_line_breaks_and_lone_quotes_in_values_are_kept(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n5" plate,1\n"two\nlines",2\n"said ""so""\nand left",3\nlast,4\n')
    table, _ = read_delimited(tmp_path / "t.csv", (), pa.float64())
    assert table["a"].to_pylist() == ['5" plate', "two\nlines", 'said "so"\nand left', "last"]
    assert quotes_in(tmp_path / "t.csv") == 9


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_quote_that_swallows_the_rest_is_refused(tmp_path, end):
    text = b'id,smiles\nC0,CCO\nC1,"CCN\nC2,CCC\nC3,CCCC\n'
    (tmp_path / f"t.csv{end}").write_bytes(gzip.compress(text) if end else text)
    with pytest.raises(FileError, match="column 'smiles' of row 1 goes on over 4 lines"):
        read_delimited(tmp_path / f"t.csv{end}", None, pa.float64())
