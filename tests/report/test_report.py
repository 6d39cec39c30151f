"""The page is whole, needs nothing from outside, and nothing in the data can act in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenohit.files import read_table, write_json
from phenohit.report.build import build_report, script_json


class Page(HTMLParser):
    """Elements with their attributes, texts by element, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.open.append(tag)
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag):
        if self.open and tag == self.open[-1]:
            self.open.pop()

    def handle_data(self, data):
        if not self.open:
            self.text.append(data)
        elif self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.styles[-1] += data


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page(report.read_text(encoding="utf-8"))


def data_of(page: Page) -> dict:
    return json.loads(page.scripts[0])


def test_needs_nothing_from_outside(page):
    own = {"tasks-box", "results"}
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            value = attributes.get(name) or ""
            assert not re.match(r"(?i)\s*([a-z][a-z0-9+.-]*:|//)", value), f"<{tag} {name}={value!r}>"
        assert tag not in {"link", "iframe", "object", "embed", "base", "img"}
    for style in page.styles:
        assert "@import" not in style
        assert "url(" not in style
    assert own <= {a.get("id") for _, a in page.elements}


def test_plotly_is_inlined_once(page):
    assert sum(len(s) > 3_000_000 for s in page.scripts) == 1
    assert len(page.scripts) == 6


def test_only_our_scripts_may_run(page):
    policy = next(a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv"))
    assert "default-src 'none'" in policy
    allowed = re.search(r"script-src ([^;]*)", policy).group(1).split()
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in page.scripts[1:]]
    assert allowed == hashes


def test_links_point_to_files_that_are_there(page, report):
    links = [a["href"] for t, a in page.elements if t == "a" and not a["href"].startswith("#")]
    assert any("hits/" in link for link in links)
    for link in links:
        assert (report.parent / link).is_file(), link


def test_anchors_exist(page):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        if tag == "a" and attributes["href"].startswith("#"):
            assert attributes["href"][1:] in ids


def test_simulated_data_are_called_simulated(page, hostile_report):
    assert "SIMULATED: Demo screen, U2OS, 640 compounds" in page.text
    assert any(a.get("class") == "simulated" for _, a in page.elements)
    real = Page(hostile_report.read_text(encoding="utf-8"))
    assert not any(a.get("class") == "simulated" for _, a in real.elements)


def test_the_table_holds_what_was_measured(page, run_folder):
    table, _ = read_table(run_folder / "splits/series/metrics.parquet")
    split = data_of(page)["splits"][0]
    for method in ("forest-profiles", "logistic-cell_count"):
        truth = table[table["method"] == method].set_index("task")["auroc"]
        for task, value in zip(split["task"], split["values"][method]["auroc"], strict=True):
            assert value is None if truth.isna()[task] else value == pytest.approx(truth[task], abs=1e-4)


def test_hits_are_drawn_up_to_sixty(page, report):
    cards = [a for _, a in page.elements if a.get("class") == "card"]
    assert len(cards) == 120
    drawings = [a for t, a in page.elements if t == "svg" and a.get("class") == "mol"]
    assert len(drawings) == 240
    assert {a["aria-label"] for a in drawings} == {"structure"}


def test_size_beyond_plotly_is_small(page, report):
    plotly = max(len(s.encode()) for s in page.scripts)
    assert report.stat().st_size - plotly < 1_500_000


def test_names_from_data_are_inert(hostile_report, attacks):
    text = hostile_report.read_text(encoding="utf-8")
    hostile = Page(text)
    assert len(hostile.scripts) == 6  # not one more than ours
    tags = {tag for tag, _ in hostile.elements}
    assert not tags & {"img", "b", "iframe"}
    for tag, attributes in hostile.elements:
        assert not [a for a in attributes if a.startswith("on")], (tag, attributes)
        assert not (attributes.get("href") or "").lower().startswith("javascript")
    shown = "".join(hostile.text)
    for attack in attacks:
        assert attack in shown  # shown to the reader as it was written
    assert data_of(hostile)["splits"][0]["task"][0].startswith(attacks[0])


def test_a_report_without_hits_or_splits(tmp_path):
    write_json(tmp_path / "manifest.json", {"name": "begun", "simulated": False})
    page = Page(build_report(tmp_path).read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert "Not computed." in text
    assert "No compounds were picked in this run." in text


def test_the_same_run_gives_the_same_page(run_folder, report):
    before = report.read_bytes()
    assert build_report(run_folder) == report
    assert report.read_bytes() == before
    assert not list(run_folder.glob(".*.partial"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_cannot_end_its_element(value):
    text = str(script_json(value))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


def test_json_refuses_nan():
    with pytest.raises(ValueError, match="JSON"):
        script_json({"auroc": float("nan")})
