"""The arithmetic of the paper's two campaigns, and the table that the documentation shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import binomtest

from phenohit.studies.simm2018_counts import recount, text_table

ROOT = Path(__file__).parents[2]


def test_rates_and_ratios_are_those_of_the_counts():
    table = recount().set_index("campaign")
    kinase, cns, other = (table.iloc[i] for i in range(3))
    assert kinase["rate"] == pytest.approx(0.4123, abs=1e-4)
    assert kinase["fold"] == pytest.approx(56.9, abs=0.05)  # printed: 60
    assert cns["rate"] == pytest.approx(0.2624, abs=1e-4)  # printed: 22.7 %
    assert cns["fold"] == pytest.approx(298.2, abs=0.05)  # printed: 250
    assert round(100 * other["rate"], 1) == 22.7  # what was printed
    assert other["fold"] == pytest.approx(257.9, abs=0.05)
    for row in table.itertuples():
        peer = binomtest(row.hits, row.tested).proportion_ci(0.95, method="exact")
        assert (row.rate_low, row.rate_high) == pytest.approx((peer.low, peer.high))
        assert row.fold_low == pytest.approx(peer.low / row.primary)
    assert not cns["fold_low"] <= 0 <= cns["fold_high"]
    assert kinase["fold_low"] < 60 < kinase["fold_high"]  # the printed ratio is rounded, not wrong beyond the noise


def test_the_page_shows_this_table():
    assert text_table() in (ROOT / "docs" / "review.md").read_text()


def test_the_counts_are_in_the_paper(shared_data):
    text = (shared_data.parent / "papers" / "simm2018.txt").read_text()
    for words in ("342 compounds", "141 submicromolar", "0.725% hit rate", "37 of them", "(0.088%)", "22.7% hit rate"):
        assert words in text, words
