"""Drawings say what they were given, and nothing in a name acts."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenohit.report.charts import HIGH, WIDE, flow_bar, histogram, rank_chart, share_mark, strip, ticks

numbers = st.floats(-1e6, 1e6)


@given(numbers, st.floats(1e-3, 1e6))
def test_ticks_reach_over_the_values(low, span):
    found = ticks(low, low + span)
    step = found[1] - found[0]
    assert found[0] <= low + step * 1e-3
    assert found[-1] >= low + span - step * 1e-3
    assert 2 <= len(found) <= 8


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=40), st.booleans())
def test_bars_are_as_high_as_their_counts(counts, log):
    chart = {"names": [str(i) for i in range(len(counts))], "n": counts}
    drawn = ElementTree.fromstring(histogram(chart, x="x", y="y", label="l", log=log))
    bars = [float(r.get("height")) for r in drawn.iter("rect") if r.get("class") == "main"]
    shown = [n for n in counts if n]
    assert len(bars) == len(shown)
    assert all(1 <= b <= HIGH for b in bars)  # one in a million can still be seen
    if not log and shown:
        assert bars == pytest.approx([max(n * max(bars) / max(shown), 1.0) for n in shown], abs=0.11)


def test_parts_stand_on_each_other():
    chart = {
        "edges": [0.0, 0.5, 1.0],
        "n": [3, 0],
        "more": [1, 2],
        "texts": ["<b>", "&"],
        "lines": [(0.7, "<i>", True)],
    }
    text = str(histogram(chart, x="r", y="n", label='"quoted"'))
    assert "<b>" not in text
    assert "<i>" not in text
    drawn = ElementTree.fromstring(text)
    assert drawn.get("aria-label") == '"quoted"'
    rest = [r for r in drawn.iter("rect") if r.get("class") == "rest"]
    main = next(r for r in drawn.iter("rect") if r.get("class") == "main")
    assert float(rest[0].get("y")) + float(rest[0].get("height")) == pytest.approx(float(main.get("y")), abs=0.11)


def test_an_empty_chart_is_drawn():
    ElementTree.fromstring(histogram({"names": [], "n": []}, x="", y="", label=""))
    ElementTree.fromstring(rank_chart([], [], 0, x="", y="", label=""))


def dots(n: int, flagged: list[int], names: str = "P{}") -> str:
    chart = {
        "values": [None if i == 1 else float(i % 7) for i in range(n)], "flagged": [i in flagged for i in range(n)],
        "names": [names.format(i) for i in range(n)], "texts": ["<b>"] * n,
        "batches": [("<i>", 0, n // 2), ("b", n // 2 + 1, n - 1)], "typical": 3.0, "zero": True,
    }  # fmt: skip
    return str(strip(chart, x="x", y="y", label="l"))


def test_every_plate_is_a_dot():
    text = dots(20, [4, 5])
    drawn = ElementTree.fromstring(text)
    marks = next(p for p in drawn.iter("path") if p.get("class") == "dots")
    assert marks.get("d").count("M") == 20 - 1 - 2  # one has no value, two are diamonds
    assert [p.get("class") for p in drawn.iter("path")].count("diamond") == 2
    places = [float(x) for x in re.findall(r"M([\d.]+) ", marks.get("d"))]
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < WIDE
    assert ">P4<" in text
    assert "<b>" not in text
    assert "<i>" not in text


def test_names_are_left_out_where_there_are_many():
    assert "P4<" not in dots(400, list(range(4, 40)))
    assert len(dots(1639, list(range(160)))) < 60_000


@given(st.one_of(st.none(), st.floats(-1, 2)), st.one_of(st.none(), st.floats(0, 1)))
def test_shares_stay_in_their_bar(share, expected):
    text = str(share_mark(share, expected))
    assert (text == "") == (share is None)
    for x, wide in re.findall(r'x="([\d.-]+)" width="([\d.-]+)"', text):
        assert 0 <= float(x) <= float(x) + float(wide) <= 100


def test_a_step_of_a_waterfall_begins_where_it_should():
    assert 'class="lost" x="25.00" width="50.00"' in flow_bar(25, 50, 100, kept=False)
    assert 'width="0.30"' in flow_bar(0, 0, 10**9, kept=True)  # still to be seen
