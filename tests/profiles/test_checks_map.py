from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phenohit.config import ChecksConfig
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError
from phenohit.profiles.checks import check_plates


def unit(degrees):
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


@pytest.fixture
def given() -> Profiles:
    """Two plates with a control or two each, in a plane: the angle between wells orders them."""
    table = [
        ("P1", "trt", "a", 0), ("P1", "trt", "b", 90), ("P1", "negcon", "DMSO", 30), ("P1", "negcon", "DMSO", 85),
        ("P2", "trt", "a", 20), ("P2", "trt", "b", 60), ("P2", "negcon", "DMSO", 10), ("P2", "negcon", "DMSO", 200),
    ]  # fmt: skip
    rows = pd.DataFrame(
        {
            "Metadata_Plate": [t[0] for t in table],
            "Metadata_Well": [f"A{i:02d}" for i in range(1, 9)],
            "Metadata_pert_type": [t[1] for t in table],
            "Metadata_compound_id": [t[2] for t in table],
        }
    )
    return Profiles(np.array([unit(t[3]) for t in table], dtype=np.float32), rows, ["Cells_1", "Cells_2"])


def test_by_hand(given):
    """Average precision of one replicate is 1 / its rank among it and the plate's two controls.

    a at 0 on P1: replicate 20 away, controls 30 and 85: rank 1. a at 20 on P2: replicate 20, controls 10 and
    180: rank 2. b at 90 on P1: replicate 30, controls 60 and 5: rank 2. b at 60 on P2: replicate 30, controls 50
    and 140: rank 1.
    """
    pytest.importorskip("copairs")
    found = check_plates(given, given, ChecksConfig(map=True)).map.set_index("compound_id")
    assert found["map"].to_dict() == pytest.approx({"a": 0.75, "b": 0.75})
    assert found["n_wells"].tolist() == [2, 2]
    assert found["p_value"].between(0.1, 1).all()


def test_nothing_to_compare(given):
    pytest.importorskip("copairs")
    single = given.take([0, 1, 2, 3])
    found = check_plates(single, single, ChecksConfig(map=True))
    assert found.map.empty
    assert "no treatment has two wells on plates with controls" in found.summary["text"].tolist()


def test_nothing_is_left_below_the_users_home(given, monkeypatch, tmp_path, capsys):
    pytest.importorskip("copairs")
    monkeypatch.setenv("HOME", str(tmp_path))
    check_plates(given, given, ChecksConfig(map=True))
    assert not list(Path(tmp_path).iterdir())
    assert capsys.readouterr().err == ""


def test_extra_is_named_where_it_is_missing(given, monkeypatch):
    monkeypatch.setitem(sys.modules, "copairs", None)
    with pytest.raises(ConfigError, match=r"pip install 'phenohit\[qc\]'"):
        check_plates(given, given, ChecksConfig(map=True))
