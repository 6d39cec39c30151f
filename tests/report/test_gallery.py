"""Galleries under the picks: shown where pictures are, absent otherwise, in bounds, names as text."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phenohit.files import write_table
from phenohit.report import gallery
from phenohit.report.build import build_report
from phenohit.report.gallery import add_galleries

HOSTILE = "<img src=x onerror=alert(1)>\"'{{ 7 * 7 }}"
ROWS = [("predicted active", "active", "right"), ("predicted active", "inactive", "wrong")]
ROWS += [("predicted inactive", "inactive", "right"), ("control", "", ""), ("montage", "", ""), ("evidence", "", "")]


def write_gallery(folder: Path, *, name: str = "K", side: int = 64) -> Path:
    """Write pictures and their table as the step leaves them."""
    folder.mkdir(parents=True)
    table = pd.DataFrame(ROWS, columns=["part", "label", "verdict"])
    table["file"] = [f"SIMULATED-{part.replace(' ', '-')}-{i:02d}.jpg" for i, part in enumerate(table["part"])]
    table[["compound", "compound_id", "plate", "well"]] = name
    table["site"], table["score"] = "2", 0.875
    table["view_score"] = np.where(table["part"] == "evidence", 0.25, np.nan)
    for i, file in enumerate(table["file"]):
        pixels = np.random.default_rng(i).integers(0, 255, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / file)
    write_table(folder / "gallery.csv", table)
    return folder


def gallery_of(folder: Path, slug: str = "t") -> dict | None:
    hits = [{"slug": slug}]
    add_galleries(folder, hits)
    return hits[0]["gallery"]


def test_tiles_hold_what_the_table_says(tmp_path):
    write_gallery(tmp_path / "hits" / "t" / "gallery")
    found = gallery_of(tmp_path)
    assert {part: len(found[part]) for part in ("active", "inactive", "controls", "montage", "evidence")} == {
        "active": 2, "inactive": 1, "controls": 1, "montage": 1, "evidence": 1,
    }  # fmt: skip
    assert found["right"] == [1, 1]
    assert found["beyond"] == 0
    tile = found["evidence"][0]
    assert (tile["name"], tile["place"], tile["score"], tile["view_score"]) == ("K", "K K site 2", 0.875, 0.25)
    assert tile["href"] == "hits/t/gallery/SIMULATED-evidence-05.jpg"


def test_no_pictures_no_gallery(tmp_path):
    assert gallery_of(tmp_path) is None
    folder = write_gallery(tmp_path / "hits" / "t" / "gallery")
    for path in folder.glob("*.jpg"):
        path.unlink()
    assert gallery_of(tmp_path) is None
    (folder / "gallery.csv").write_bytes(b"\xff\xfe\x00")
    assert gallery_of(tmp_path) is None


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/secret.jpg", "gallery.csv", ""])
def test_only_pictures_of_the_folder_are_shown(tmp_path, name):
    folder = write_gallery(tmp_path / "hits" / "t" / "gallery")
    Image.new("RGB", (9, 9)).save(tmp_path / "hits" / "secret.jpg")
    write_table(folder / "gallery.csv", pd.read_csv(folder / "gallery.csv").assign(file=name))
    assert gallery_of(tmp_path) is None


def test_pictures_are_bounded_and_what_finds_no_room_is_counted(tmp_path, monkeypatch):
    write_gallery(tmp_path / "hits" / "t" / "gallery")
    size = len(gallery_of(tmp_path)["active"][0]["src"])
    monkeypatch.setattr(gallery, "GALLERY_BYTES", int(2.5 * size))
    found = gallery_of(tmp_path)
    assert (len(found["active"]), len(found["inactive"]), found["beyond"]) == (2, 0, 4)


def test_the_page_shows_it_under_the_picks_and_only_there(run_folder, report, tmp_path):
    assert 'class="gallery"' not in report.read_text(encoding="utf-8")
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    write_gallery(run / "hits" / "task-0" / "gallery", name=HOSTILE)
    text = build_report(run).read_text(encoding="utf-8")
    assert text.count('class="gallery"') == 1
    assert "Simulated data." in text
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "7 * 7" in text
    assert "1 of 2 right" in text
    shown = text[text.index('class="gallery"') :]
    assert re.search(r'class="state fail">wrong:</span> measured inactive', shown)
    assert re.search(r'class="state pass">right:</span> measured active', shown)
    assert "this view 0.25" in shown
    links = re.findall(r'href="(hits/[^"]*/gallery/[^"]*)"', text)
    assert len(links) == 7
    for link in links:
        assert (run / link).is_file(), link
    sources = re.findall(r'<img src="([^"]*)"', shown)
    assert len(sources) == 6
    assert all(src.startswith("data:image/jpeg;base64,") for src in sources)
