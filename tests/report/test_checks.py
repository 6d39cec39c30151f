"""The section on plates, against the tables it is made from."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.errors import FileError
from phenohit.files import write_json
from phenohit.profiles.checks import Checks
from phenohit.profiles.checks_flags import RULES
from phenohit.report.build import build_report
from phenohit.report.checks import ADVICE, checks_facts
from phenohit.report.heatmaps import CELL_BOUNDS, SHAPES, plate_map, plate_shape, row_name, scale_key, well_name
from phenohit.report.platemaps import choose_plates, mean_maps


@pytest.fixture(scope="module")
def tables(run_folder) -> Checks:
    return Checks.load(run_folder / "checks")


@pytest.fixture(scope="module")
def facts(run_folder) -> dict:
    found = checks_facts(run_folder, nothing_dropped())
    assert found is not None
    return found


def saved(checks: Checks, folder) -> dict:
    checks.save(folder / "checks")
    found = checks_facts(folder, nothing_dropped())
    assert found is not None
    return found


def test_nothing_is_shown_where_plates_were_not_checked(tmp_path):
    assert checks_facts(tmp_path, nothing_dropped()) is None
    write_json(tmp_path / "manifest.json", {"name": "begun"})
    text = build_report(tmp_path).read_text(encoding="utf-8")
    assert 'href="#plates"' not in text
    assert 'id="plates"' not in text


def test_the_section_and_its_link_are_on_the_page(report):
    text = report.read_text(encoding="utf-8")
    assert text.count('href="#plates"') == text.count('id="plates"') == 1
    assert text.index('id="inputs"') < text.index('id="plates"') < text.index('id="splits"')


def test_the_planted_problems_are_told(facts):
    found = {row["plate"]: row["rules"] for row in facts["rows"] if row["rules"]}
    assert found["BR117007"] == ["few cells"]
    assert found["BR117011"] == ["no controls"]
    assert "position effect" in found["BR117002"]
    n = len(found)
    assert facts["told"][0].startswith(f"14 plates checked; {n} are flagged. The worst is BR117002: position effect")
    assert facts["told"][1].startswith("Every flagged well is still in.")
    assert facts["tiles"][0]["value"] == str(n)


def test_wells_that_were_left_out_are_counted(run_folder):
    lost = pd.concat([dropped("plate checks", "well", ["a", "b"], "few_cells: x"), dropped("read", "well", ["c"], "y")])
    found = checks_facts(run_folder, lost)
    assert found["told"][1] == "2 wells were left out for their flags (checks.drop); they are listed above."


def test_a_clean_screen_is_called_clean(checks, tmp_path):
    clean = replace(checks, flags=checks.flags.iloc[:0], plates=checks.plates.assign(rules=""))
    found = saved(clean, tmp_path)
    assert found["told"] == ["14 plates checked; none is flagged, and no control well is."]
    assert found["rows"][0]["plate"] == "BR117000"  # in the screen's own order
    write_json(tmp_path / "manifest.json", {"name": "clean"})
    assert "Every flag, one by one" not in build_report(tmp_path).read_text(encoding="utf-8")


def test_rules_are_counted_once_per_plate_and_well(facts, tables):
    assert set(ADVICE) == set(RULES)
    for rule in facts["rules"]:
        here = tables.flags[tables.flags["rule"] == rule["rule"]]
        assert rule["plate"] == here.loc[here["what"] == "plate", "plate"].nunique()
        wells = here.loc[here["what"] == "well", ["plate", "well"]]
        assert rule["well"] == len(wells.drop_duplicates())
        assert rule["means"]
        assert rule["act"]


def test_a_rule_of_a_later_version_is_shown_by_its_name(checks, tmp_path):
    flags = checks.flags.assign(rule="new_rule")
    found = saved(replace(checks, flags=flags), tmp_path)
    assert found["rules"][-1]["name"] == "new rule"
    assert found["rules"][-1]["well"] == (flags["what"] == "well").sum()


def test_flagged_plates_come_first_then_the_order_of_the_screen(facts):
    bad = [bool(row["rules"]) for row in facts["rows"]]
    assert bad == sorted(bad, reverse=True)
    rest = [row["plate"] for row in facts["rows"] if not row["rules"]]
    assert rest == sorted(rest)


def test_dots_stand_in_the_order_of_the_screen(facts, tables):
    chart = facts["cells"]
    assert chart["names"] == tables.plates["plate"].tolist()
    np.testing.assert_allclose(np.array(chart["values"], float), tables.plates["control_cells"])
    assert chart["typical"] == pytest.approx(tables.plates["control_cells"].median())
    assert chart["values"][11] is None  # no controls
    runs = [(name, tables.plates["batch"].eq(name).sum()) for name in tables.plates["batch"].unique()]
    assert [(name, last - first + 1) for name, first, last in chart["batches"]] == runs


def test_histograms_hold_every_treatment(facts, tables):
    chart = facts["replicates"]
    assert sum(chart["n"]) + sum(chart["more"]) == len(tables.replicates)
    assert sum(chart["more"]) == tables.replicates["replicating"].sum() == chart["n_above"]
    assert sum(facts["map"]["more"]) == (tables.map["corrected_p_value"] < 0.05).sum()
    assert facts["map"]["rows"][0]["map"] == pytest.approx(tables.map["map"].max())


def test_separation_compares_with_chance(facts, tables):
    assert len(facts["separation"]) == len(tables.separation)
    first = facts["separation"][0]
    row = tables.separation[tables.separation["what"] == "plate"].iloc[0]
    assert first["times"] == pytest.approx(row["share"] / row["expected"])
    assert sum(r["span"] for r in facts["separation"] if r["first"]) == len(facts["separation"])


def test_every_well_has_the_colour_of_its_count(facts, tables):
    drawn = next(m for m in facts["maps"] if m["plate"] == "BR117004")
    cells = tables.cells[tables.cells["plate"] == "BR117004"]
    usual = tables.plates.set_index("plate")["control_cells"]["BR117004"]
    for i, row in enumerate(cells.to_dict("records")):
        ratio = row["cell_count"] / usual
        expected = -1 if np.isnan(ratio) else sum(ratio >= bound for bound in CELL_BOUNDS)
        assert drawn["level"][i] == expected
        assert (drawn["row"][i], drawn["column"][i]) == (row["row"], row["column"])
    assert drawn["shape"] == (8, 12)
    assert drawn["level"].count(-1) == 3
    flagged = tables.flags[(tables.flags["what"] == "well") & (tables.flags["plate"] == "BR117004")]
    assert sum(drawn["flagged"]) == flagged["well"].nunique() > 0
    svg = str(plate_map(drawn))
    assert svg.count("<title>") == 96
    assert "no count" in svg
    assert 'class="frame"' in svg
    lean = str(plate_map(drawn | {"text": []}))
    assert "<title>" not in lean
    assert len(re.findall(r"M\d", lean)) == len(re.findall(r"M\d", svg))
    assert len(lean) < len(svg) / 2


def test_names_are_escaped_in_drawings(facts):
    drawn = facts["maps"][0] | {"label": '"><img src=x>', "text": ["<b>"] * len(facts["maps"][0]["row"])}
    svg = str(plate_map(drawn))
    assert "<img" not in svg
    assert "<b>" not in svg
    assert "<b>" not in str(scale_key(CELL_BOUNDS, low="<b>", high="<b>"))


def test_plates_to_draw():
    few = pd.DataFrame({"plate": list("abc"), "rules": ["position", "", ""], "order": [2, 0, 1]})
    chosen, n_open = choose_plates(few)
    assert chosen["plate"].tolist() == ["b", "c", "a"]
    assert n_open == 3
    rules = np.where(np.arange(100) < 30, "position", "")
    many = pd.DataFrame({"plate": np.arange(100), "rules": rules, "order": np.arange(100)})
    chosen, n_open = choose_plates(many)
    assert n_open == 8
    assert (chosen["rules"] != "").sum() == 20
    assert (chosen.head(n_open)["rules"] == "").sum() == 1  # one to compare with
    assert chosen.loc[chosen["rules"] == "", "plate"].tolist() == [30, 53, 76, 99]
    calm, n_open = choose_plates(many.assign(rules=""))
    assert len(calm) == 4


@given(st.integers(1, 32), st.integers(1, 48))
def test_shapes_and_names(rows, columns):
    shape = plate_shape(rows, columns)
    assert shape[0] >= rows
    assert shape[1] >= columns
    assert all(s[0] < rows or s[1] < columns for s in SHAPES if s < shape)
    letters, number = re.fullmatch(r"([A-Z]+)(\d\d)", well_name(rows, columns)).groups()
    assert sum((ord(c) - 64) * 26**i for i, c in enumerate(reversed(letters))) == rows
    assert int(number) == columns
    assert row_name(26) + row_name(27) == "ZAA"


def test_mean_maps_have_an_even_scale(tables):
    found = {m["title"]: m for m in mean_maps(tables.positions)}
    assert set(found) == {"Cells, all wells", "Cells, controls only", "Profiles of controls"}
    for title, centre, column in (("Cells, all wells", 1.0, "cells"), ("Profiles of controls", 0.0, "control_pc1")):
        bounds = np.array(found[title]["bounds"])
        np.testing.assert_allclose(bounds + bounds[::-1], 2 * centre, atol=1e-9)
        np.testing.assert_allclose(np.diff(bounds), bounds[1] - bounds[0], atol=1e-9)
        np.testing.assert_allclose(np.round(bounds, found[title]["digits"]), bounds)
        values = tables.positions[column].dropna().to_numpy()
        assert found[title]["level"] == [int((v >= bounds).sum()) for v in values]
    assert mean_maps(tables.positions.assign(cells=np.nan, control_cells=np.nan, control_pc1=np.nan)) == []


def test_a_damaged_table_is_named(checks, tmp_path):
    checks.save(tmp_path / "checks")
    (tmp_path / "checks" / "positions.parquet").write_bytes(b"PAR1")
    with pytest.raises(FileError, match=r"positions\.parquet"):
        checks_facts(tmp_path, nothing_dropped())


@pytest.mark.parametrize("shape", [(16, 24), (32, 48)])
def test_a_large_screen_makes_a_small_section(checks, tmp_path, shape):
    """1,639 plates; the rest of the page is measured without them."""
    write_json(tmp_path / "manifest.json", {"name": "large"})
    without = build_report(tmp_path).stat().st_size
    n, size, rng = 1639, shape[0] * shape[1], np.random.default_rng(0)
    plates = pd.concat([checks.plates] * (n // 14 + 1), ignore_index=True).head(n)
    plates = plates.assign(plate=[f"BR{i:08d}" for i in range(n)], rules=np.where(np.arange(n) % 9, "", "position"))
    row, column = np.divmod(np.arange(size), shape[1])
    wells = [well_name(r + 1, c + 1) for r, c in zip(row, column, strict=True)]
    # Only plates that may be drawn need wells here; a file for all of them takes longer to write than to read.
    kept = plates["plate"].iloc[np.r_[0:300, 1500:n]].to_numpy(object)
    cells = pd.DataFrame({"plate": np.repeat(kept, size), "well": wells * len(kept), "pert_type": "trt"})
    cells["row"], cells["column"] = np.tile(row + 1, len(kept)), np.tile(column + 1, len(kept))
    cells["cell_count"] = rng.lognormal(6.5, 0.6, len(cells))
    flags = pd.DataFrame({"what": "well", "plate": plates["plate"], "well": "A01", "rule": "few_cells"})
    flags = pd.concat([flags] * 3).assign(value=0.2, limit=0.5, text="control well has 200 cells; the median 900")
    mean = pd.DataFrame({"row": row + 1, "column": column + 1, "n_wells": n, "n_control": 1})
    mean = mean.assign(cells=rng.normal(1, 0.1, size), control_cells=1.0, control_pc1=rng.normal(size=size))
    replace(checks, plates=plates, cells=cells, flags=flags, positions=mean).save(tmp_path / "checks")
    path = build_report(tmp_path)
    print(f"{shape}: {path.stat().st_size - without:,} bytes")
    assert path.stat().st_size - without < 1_500_000
    text = path.read_text(encoding="utf-8")
    assert "200 of 1,639 plates" in text
    assert f"The first 200 of {3 * n:,} flags" in text
