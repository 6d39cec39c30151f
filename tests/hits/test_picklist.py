from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenohit.errors import ColumnError, ConfigError, PlateError
from phenohit.hits.picklist import ECHO_COLUMNS, Layout, check_volume, echo, pick_list, source_wells, to_echo


def picks(n, extra=2) -> pd.DataFrame:
    """n picks and some candidates that are not."""
    keys = [f"K{i:04d}" for i in range(n + extra)]
    order = np.r_[np.arange(1, n + 1), np.zeros(extra, int)]
    return pd.DataFrame(
        {"compound": keys, "compound_id": [f"id{k}" for k in keys], "smiles": "CCO", "picked": order > 0}
    ).assign(pick_order=order)


def wells_of(table) -> pd.DataFrame:
    names = [f"{chr(65 + i // 24 % 16)}{i % 24 + 1:02d}" for i in range(len(table))]
    plates = [f"P{i // 384 + 1}" for i in range(len(table))]
    return pd.DataFrame({"compound": table["compound"], "plate": plates, "well": names})


def test_342_fit_one_plate_and_the_outer_columns_stay_free():
    free = Layout().free()
    assert len(free) == 352 == 16 * 22
    assert not {w for w in free if w[1:] in ("01", "24")}
    table = picks(342)
    made, lost = pick_list(table, wells_of(table))
    assert set(made["destination_plate"]) == {"DEST-001"}
    assert set(made["destination_well"]) == set(free[:342])
    assert len(lost) == 0
    assert set(made["compound"]) == set(table["compound"][:342])


def test_four_free_columns_need_a_second_plate():
    table = picks(342)
    layout = Layout(control_columns=(1, 2, 23, 24))
    assert len(layout.free()) == 320
    made, _ = pick_list(table, wells_of(table), layout=layout)
    assert made["destination_plate"].value_counts().to_dict() == {"DEST-001": 320, "DEST-002": 22}
    assert set(made.loc[made["destination_plate"] == "DEST-002", "pick_order"]) == set(range(321, 343))


@given(st.integers(0, 900), st.sampled_from([96, 384, 1536]), st.one_of(st.none(), st.integers(0, 5)))
@settings(max_examples=30, deadline=None)
def test_every_pick_has_one_well_of_its_own(n, size, seed):
    table = picks(n)
    made, lost = pick_list(table, wells_of(table), layout=Layout(wells=size), seed=seed)
    assert sorted(made["pick_order"]) == list(range(1, n + 1))
    assert not made.duplicated(["destination_plate", "destination_well"]).any()
    assert len(made) + len(lost) == n
    if seed is None:
        assert made["pick_order"].is_monotonic_increasing


def test_wells_are_shuffled_by_the_seed_and_not_by_the_input_order():
    table = picks(100)
    wells = wells_of(table)
    one, _ = pick_list(table, wells, seed=1)
    mixed, _ = pick_list(table.sample(frac=1, random_state=0), wells.sample(frac=1, random_state=1), seed=1)
    pd.testing.assert_frame_equal(one, mixed)
    assert abs(np.corrcoef(one["pick_order"], np.arange(100))[0, 1]) < 0.35
    other, _ = pick_list(table, wells, seed=2)
    assert (other["compound"] != one["compound"]).any()


def test_the_first_source_well_by_plate_then_well_is_used():
    table = picks(1, extra=0)
    wells = pd.DataFrame(
        {
            "compound": "K0000",
            "plate": ["P2", "P1", "P1", "P1", ""],
            "well": ["A01", "AA01", "B02", "B10", "A01"],
            "concentration_uM": ["9", "8", "7", "6", "5"],
        }
    )
    made, _ = pick_list(table, wells)
    assert made.loc[0, ["source_plate", "source_well", "concentration_uM"]].tolist() == ["P1", "B02", "7"]


def test_echo_columns_and_unpadded_wells():
    table = picks(3)
    made = echo(table, wells_of(table), volume_nl=27.5, seed=None)
    assert made.columns.tolist() == ECHO_COLUMNS
    assert made.to_numpy().tolist() == [
        ["P1", "384PP_DMSO2", "A1", "DEST-001", "A2", 27.5],
        ["P1", "384PP_DMSO2", "A2", "DEST-001", "A3", 27.5],
        ["P1", "384PP_DMSO2", "A3", "DEST-001", "A4", 27.5],
    ]


def test_1536_well_plates():
    table = picks(2, extra=0)
    wells = pd.DataFrame({"compound": ["K0000", "K0001"], "plate": "BIG", "well": ["af48", "A001"]})
    made = echo(table, wells, layout=Layout(wells=1536), seed=None)
    assert made["Source Well"].tolist() == ["A1", "AF48"]  # by source well
    assert set(made["Source Plate Type"]) == {"1536LDV_DMSO"}
    free = Layout(wells=1536).free()
    assert len(free) == 32 * 46
    assert free[0] == "A02"
    assert free[-1] == "AF47"


def test_the_stores_own_wells_replace_those_of_the_screen():
    table = picks(3, extra=0)
    store = pd.DataFrame(
        {
            "compound_id": ["idK0002", "idK0000"],
            "plate": "STORE",
            "well": ["C3", "B2"],
            "plate_type": ["384LDV_DMSO", ""],
        }
    )
    made, lost = pick_list(table, store)
    assert dict(zip(made["compound"], made["source_well"], strict=True)) == {"K0002": "C03", "K0000": "B02"}
    assert lost["id"].tolist() == ["idK0001"]
    assert "no source well" in lost["reason"].iloc[0]
    assert to_echo(made)["Source Plate Type"].tolist() == ["384PP_DMSO2", "384LDV_DMSO"]
    assert set(to_echo(made, source_type="mine")["Source Plate Type"]) == {"mine"}


def test_without_any_wells_every_pick_is_listed_and_the_lists_are_empty():
    made, lost = pick_list(picks(4), None)
    assert len(made) == 0
    assert len(lost) == 4
    assert to_echo(made).columns.tolist() == ECHO_COLUMNS


@pytest.mark.parametrize("volume", [2.5, 25, 25.0, 1002.5, 2.5 * 7])
def test_whole_droplets_pass(volume):
    check_volume(volume)


@pytest.mark.parametrize(
    ("volume", "near"),
    [(26, "25 nL, 27.5 nL"), (1, "2.5 nL"), (0, "2.5 nL"), (-5, "2.5 nL"), (math.nan, "2.5 nL"), (2.6, "2.5 nL, 5 nL")],
)
def test_other_volumes_name_the_nearest(volume, near):
    with pytest.raises(ConfigError, match=rf"Nearest: {near}\."):
        check_volume(volume)


def test_bad_plates_and_wells_are_named():
    table = picks(2, extra=0)
    bad = wells_of(table).assign(well=["A01", "Z99"])
    with pytest.raises(PlateError, match="no wells: 'Z99'"):
        pick_list(table, bad)
    for text in ("AG01", "A0", "A49", "1A", "BB1"):
        with pytest.raises(PlateError, match=text):
            pick_list(table, wells_of(table).assign(well=text))
    with pytest.raises(ColumnError, match="lacks 'well'"):
        source_wells(table, wells_of(table).drop(columns="well"))
    with pytest.raises(ConfigError, match="385 wells is not known; take one of 96, 384, 1536"):
        Layout(wells=385).free()
    with pytest.raises(ConfigError, match="25 do not exist"):
        Layout(control_columns=(25,)).free()
    with pytest.raises(ConfigError, match="All 24 columns"):
        Layout(control_columns=tuple(range(1, 25))).free()
