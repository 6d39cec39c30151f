from __future__ import annotations

import os

import pytest

from phenohit.data.inputs import profile_inputs
from phenohit.errors import FileError
from phenohit.sources import Join, ProfileSource


def test_every_file_that_is_read_counts_and_no_other(tmp_path):
    workspace = tmp_path / "workspace"
    maps = workspace / "metadata" / "platemaps" / "b1"
    (maps / "platemap").mkdir(parents=True)
    (maps / "barcode_platemap.csv").write_text("x")
    (maps / "platemap" / "M.txt").write_text("x")
    for plate in ("P1", "P2"):
        for level in ("", "_norm"):
            (workspace / "profiles" / "b1" / plate).mkdir(parents=True, exist_ok=True)
            (workspace / "profiles" / "b1" / plate / f"{plate}{level}.csv").write_text("x")
    (tmp_path / "j.csv").write_text("x")
    source = ProfileSource(
        path=str(tmp_path), level="norm", plates=["P1"], joins=[Join(str(tmp_path / "j.csv"), "x")], format="gallery"
    )
    first = profile_inputs(source)
    assert set(first) == {str(tmp_path), str(workspace / "metadata" / "platemaps"), str(tmp_path / "j.csv")}
    profiles = workspace / "profiles" / "b1"
    for other in (profiles / "P2" / "P2_norm.csv", profiles / "P1" / "P1.csv"):
        other.write_text("changed")
        assert profile_inputs(source) == first
    os.utime(profiles / "P1" / "P1_norm.csv", (5, 5))
    assert profile_inputs(source) == first  # the same content
    for used in (profiles / "P1" / "P1_norm.csv", maps / "platemap" / "M.txt", tmp_path / "j.csv"):
        used.write_text("changed")
        again = profile_inputs(source)
        assert again != first
        first = again


def test_a_table_a_folder_and_nothing(tmp_path):
    (tmp_path / "t.csv").write_text("x")
    (tmp_path / "cells" / "a").mkdir(parents=True)
    (tmp_path / "cells" / "a" / "Cells.csv").write_text("x")
    assert list(profile_inputs(ProfileSource(path=str(tmp_path / "t.csv")))) == [str(tmp_path / "t.csv")]
    cells = ProfileSource(path=str(tmp_path / "cells"), format="cellprofiler")
    first = profile_inputs(cells)
    (tmp_path / "cells" / "a" / "Nuclei.csv").write_text("x")
    assert profile_inputs(cells) != first
    assert profile_inputs(ProfileSource()) == {}
    with pytest.raises(FileError, match="does not exist"):
        profile_inputs(ProfileSource(path=str(tmp_path / "absent.csv")))
    with pytest.raises(FileError, match="is no folder"):
        profile_inputs(ProfileSource(path=str(tmp_path / "t.csv"), platemaps=str(tmp_path / "t.csv")))
