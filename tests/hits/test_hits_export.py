from __future__ import annotations

import csv
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenohit.errors import FileError
from phenohit.files import write_table
from phenohit.hits.export import neutralise, plain


def test_formulas_are_made_harmless_and_numbers_are_left_alone():
    table = pd.DataFrame(
        {
            "id": ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", " =1", "－1+2x", "ok", "a=b", "", None],
            "text": ["-5.2", "+3", "-1e-5", "1", "-", "--1", "'=1", "BRD-1", "[Na+]", "C=C", "x"],
            "number": np.linspace(-1, 1, 11).astype(np.float32),
            "flag": [True] * 11,
        }
    )
    before = table.copy()
    safe = neutralise(table)
    pd.testing.assert_frame_equal(table, before)  # the input is left alone
    risky = [f"'{v}" for v in table["id"][:7]]
    assert safe["id"].tolist()[:10] == [*risky, "ok", "a=b", ""]
    assert pd.isna(safe["id"][10])
    expected = ["-5.2", "+3", "-1e-5", "1", "'-", "'--1", "'=1", "BRD-1", "[Na+]", "C=C", "x"]
    assert safe["text"].tolist() == expected
    pd.testing.assert_frame_equal(safe[["number", "flag"]], table[["number", "flag"]])


@given(st.lists(st.text(alphabet="=+-@\t\n ,\"'Aé1.", max_size=6), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_no_cell_of_a_csv_file_begins_like_a_formula(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    write_table(path, neutralise(pd.DataFrame({"id": cells, "n": range(len(cells))})))
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle))[1:]
    for (text, _), cell in zip(rows, cells, strict=True):
        assert text in (cell, f"'{cell}")
        try:
            float(text)
        except ValueError:
            assert not text.lstrip(" \n\t\r").startswith(("=", "+", "-", "@"))


def test_json_holds_no_nan():
    value = {"a": np.float32("nan"), "b": [np.int64(3), (math.inf, "x")], 5: np.bool_(True)}
    made = plain(value)
    assert json.loads(json.dumps(made, allow_nan=False)) == {"a": None, "b": [3, [None, "x"]], "5": True}


def test_writing_into_a_file_is_refused(tmp_path, small_hits):
    (tmp_path / "hits").write_text("")
    with pytest.raises(FileError, match="Cannot write"):
        small_hits.write(tmp_path / "hits")
