"""What became of raw images: counts, plates that were not measured, pictures in bounds, pictures beside picks."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phenohit.data.views import Views
from phenohit.files import write_json, write_table, write_text
from phenohit.report import images as section
from phenohit.report import pictures
from phenohit.report.build import build_report, environment
from phenohit.report.images import ADVICE, images_facts
from phenohit.report.measured import measured_plates
from phenohit.report.pictures import Album, add_views

CHANNELS = ["DNA", "ER"]
HOSTILE = "<img src=x onerror=alert(1)>\"'{{ 7 * 7 }}"
REJECT = ("blurred", "empty")


def noise(side: int, seed: int = 0, kind: str = "PNG") -> bytes:
    """A picture that does not compress well."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write_plate(folder: Path, plate: str, *, n: int = 20, flagged: dict[int, list[str]] | None = None, seed=0) -> None:
    """Write one plate as the step `images` leaves it: n views, one per well; what is rejected has no cells."""
    flagged = flagged or {}
    wells = [f"{chr(65 + i // 10)}{i % 10 + 1:02d}" for i in range(n)]
    lost = {i for i, rules in flagged.items() if set(rules) & set(REJECT)}
    kept = np.array([i not in lost for i in range(n)])
    table = pd.DataFrame(
        {
            # rows of rejected views come from the table of quality alone
            "Metadata_Plate": np.where(kept, plate, None),
            "Metadata_Well": np.where(kept, wells, None),
            "view": [f"{plate}/{well}/1" for well in wells],
            "cells": np.where(kept, 100.0 + np.arange(n), np.nan),
            "ImageQuality_PowerLogLogSlope_DNA": -2.0 - 0.01 * np.arange(n),
            "ImageQuality_PowerLogLogSlope_ER": -9.0,
        }
    )
    write_table(folder / "views.parquet", table)
    flags = [
        {"view": table["view"][i], "rule": rule, "channel": c, "value": 1, "limit": 2, "rejected": rule in REJECT}
        | {"reason": "why"}
        for i, rules in flagged.items()
        for rule in rules
        for c in CHANNELS  # twice the same rule: one view
    ]
    names = ["view", "rule", "channel", "value", "limit", "rejected", "reason"]
    write_table(folder / "flags.csv", pd.DataFrame(flags, columns=names))
    failures = [("Texture", "Cells", "DNA", "too small", 3), ("Texture", "Nuclei", "DNA", "too small", 4)]
    failures.append(("Zernike", "Cells", "", "a line", 1))
    write_table(
        folder / "failures.csv",
        pd.DataFrame(failures, columns=["family", "compartment", "channel", "reason", "cells"]),
    )
    counts = {"views": n, "measured": int(kept.sum()), "cells": int(np.nansum(table["cells"])), "diameter": 18.5}
    write_json(folder / "plate.json", counts)
    (folder / "overlay.jpg").write_bytes(noise(300, seed, "JPEG"))
    (folder / "illumination.png").write_bytes(noise(120, seed))
    (folder / "illumination").mkdir()
    for k, channel in enumerate(CHANNELS):
        np.save(folder / "illumination" / f"x_Illum{channel}.npy", np.array([[1, 1.5 + k]], np.float32))
    thumbs = [(plate, w, "1", c, noise(64, i)) for i, w in enumerate(wells) for c in (*CHANNELS, "composite")]
    columns = ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "channel", "png"]
    write_table(folder / "thumbnails.parquet", pd.DataFrame(thumbs, columns=columns))


def write_images(run: Path, plates: dict[str, dict | None]) -> Path:
    """Write the images of a run; a plate with None was not begun."""
    rows = []
    for i, (plate, how) in enumerate(plates.items()):
        n = (how or {}).get("n", 20)
        rows += [(plate, f"{chr(65 + k // 10)}{k % 10 + 1:02d}", "1") for k in range(n)]
        if how is not None:
            write_plate(run / "images" / f"folder-{i}", plate, seed=i, **how)
    place = pd.DataFrame(rows, columns=["Metadata_Plate", "Metadata_Well", "Metadata_Site"])
    files = pd.DataFrame({c: "a.tif" for c in CHANNELS}, index=place.index)
    Views(place, files).save(run / "images" / "views.parquet")
    write_table(run / "images" / "wells.parquet", place.iloc[:-3])
    lost = pd.DataFrame({"stage": [], "what": [], "id": [], "reason": []})
    write_table(run / "images" / "views_left_out.csv", lost)
    write_text(
        run / "config.yaml",
        "images:\n  quality: {reject: [blurred, empty]}\n  segment: {nuclei: DNA}\n",
    )
    return run


def page_of(run: Path) -> str:
    """Render the section alone."""
    from phenohit.report.charts import share_mark, strip

    pages = environment()
    pages.globals |= {"strip": strip, "share_mark": share_mark}
    return pages.get_template("images.html.j2").render(images=images_facts(run))


def test_no_images_no_section(tmp_path):
    assert measured_plates(tmp_path) == []
    assert images_facts(tmp_path) is None
    (tmp_path / "images").mkdir()
    assert images_facts(tmp_path) is None


def test_counts_are_of_views(tmp_path):
    """Truth by hand: P1 loses 2 of 20 views by 3 flags, P2 none; P3 was not begun."""
    flagged = {3: ["blurred"], 5: ["blurred", "empty"], 7: ["debris"]}
    facts = images_facts(write_images(tmp_path, {"P2": {}, "P1": {"flagged": flagged}, "P3": None}))
    assert facts is not None
    rules = {rule["rule"]: (rule["flagged"], rule["rejected"]) for rule in facts["rules"]}
    assert rules == {"blurred": (2, 2), "saturated": (0, 0), "debris": (1, 0), "empty": (1, 1), "dark": (0, 0)}
    assert facts["columns"] == [("blurred", "rejected"), ("debris", "flagged"), ("empty", "rejected")]
    assert [row["plate"] for row in facts["rows"]] == ["P3", "P1", "P2"]
    assert [row["measured"] for row in facts["rows"]] == [None, 18, 20]
    assert [row["bad"] for row in facts["rows"]] == [True, True, False]
    kept = [100 + i for i in range(20) if i not in (3, 5)]
    first = facts["rows"][1]
    assert first["cells"] == sum(kept)
    assert first["cells_per_view"] == np.median(kept)
    assert first["focus"] == pytest.approx(-2.095)  # of all views, in the nuclear channel
    assert (first["n_rejected"], first["unread"], first["diameter"]) == (2, 0, 18.5)
    tiles = {tile["label"]: tile for tile in facts["tiles"]}
    assert tiles["views"]["value"] == "60"
    assert tiles["of views measured"]["value"] == f"{38 / 60:.1%}"
    assert tiles["views rejected"] | {"label": ""} == {"value": "2", "label": "", "note": "blurred 2, empty 1"}
    assert tiles["wells with a profile"]["value"] == "57"
    assert facts["told"][0] == "38 of 40 views could be measured, on 2 plates."
    assert facts["told"][1] == "P1 lost the largest share: 2 of 20 views (blurred 2, empty 1)."
    assert facts["told"][2].startswith("P3 was not measured")
    assert [(f["family"], f["cells"], f["plates"]) for f in facts["failures"]] == [
        ("Texture", 14, 2),
        ("Zernike", 2, 2),
    ]
    assert facts["failures"][0]["compartment"] == ["Cells", "Nuclei"]
    assert facts["focus"] is None  # two plates are no line


def test_views_that_cannot_be_read_are_told_apart(tmp_path):
    run = write_images(tmp_path, {"P1": {"flagged": {0: ["blurred"]}}})
    write_json(run / "images/folder-0/plate.json", {"views": 23, "measured": 19, "cells": 5, "diameter": 9})
    facts = images_facts(run)
    assert facts["rows"][0]["unread"] == 3
    assert {key: facts["rules"][-1][key] for key in ("rule", "flagged", "rejected")} == {
        "rule": "unread",
        "flagged": 3,
        "rejected": 3,
    }
    assert "Cannot<br>be read" in page_of(run)


def test_a_plate_without_controls_is_marked(tmp_path):
    run = write_images(tmp_path, {"P1": {}, "P2": {}, "P3": {}})
    assert "Control<br>wells" not in page_of(run)  # what wells are is not known
    counts = pd.DataFrame({"plate": ["P1", "P2"], "n_negcon": [4, 0]})
    write_table(run / "checks" / "plates.parquet", counts)
    facts = images_facts(run)
    assert {row["plate"]: row["controls"] for row in facts["rows"]} == {"P1": 4, "P2": 0, "P3": None}
    page = page_of(run)
    assert "Control<br>wells" in page
    assert page.count('<td class="n"><strong class="flagged">0</strong></td>') == 1


def test_strips_follow_the_order_of_the_images(tmp_path):
    plates = {f"P{i}": {"n": 10, "flagged": {0: ["blurred"]} if i == 2 else {}} for i in range(4)}
    facts = images_facts(write_images(tmp_path, plates))
    assert facts["focus"]["names"] == list(plates)
    assert facts["focus"]["flagged"] == [False, False, True, False]
    assert facts["cells"]["values"] == pytest.approx([104.5, 104.5, 105, 104.5])


@pytest.mark.parametrize(
    ("file", "content", "word"),
    [
        ("plate.json", None, "plate.json is missing"),
        ("plate.json", b"{", "damaged"),
        ("plate.json", b'{"views": 20}', "damaged"),
        ("flags.csv", None, "flags.csv is missing"),
        ("views.parquet", b"PAR1 and no more", "no table of views"),
        ("views.parquet", None, "no table of views"),
    ],
)
def test_an_incomplete_plate_is_not_measured(tmp_path, file, content, word):
    run = write_images(tmp_path, {"P1": {}, "P2": {}})
    path = run / "images" / "folder-1" / file
    path.unlink() if content is None else path.write_bytes(content)
    rows = images_facts(run)["rows"]
    assert [(row["plate"], row["measured"]) for row in rows] == [("P2", None), ("P1", 20)]
    assert word in rows[0]["trouble"]
    assert f"not measured: {rows[0]['trouble']}" in page_of(run)


@pytest.mark.parametrize("file", ["overlay.jpg", "illumination.png", "failures.csv", "thumbnails.parquet"])
def test_what_is_only_to_be_seen_may_be_missing(tmp_path, file):
    run = write_images(tmp_path, {"P1": {}})
    (run / "images/folder-0" / file).unlink()
    assert images_facts(run)["rows"][0]["measured"] == 20
    (run / "images/folder-0" / file).write_bytes(b"")
    assert ("overlay.jpg" in page_of(run)) == (file != "overlay.jpg")


def test_without_an_index_the_folders_tell(tmp_path):
    run = write_images(tmp_path, {"P1": {}})
    (run / "images" / "views.parquet").unlink()
    facts = images_facts(run)
    assert [(row["plate"], row["views"]) for row in facts["rows"]] == [("P1", 20)]
    assert "wells with a profile" not in [tile["label"] for tile in facts["tiles"]]


def test_quality_that_was_not_measured_is_said(tmp_path):
    run = write_images(tmp_path, {"P1": {}})
    path = run / "images/folder-0/views.parquet"
    write_table(path, pd.read_parquet(path, columns=["Metadata_Plate", "view", "cells"]))
    assert images_facts(run)["checked"] is False
    assert "were not looked at" in page_of(run)


def test_pictures_are_bounded(tmp_path, monkeypatch):
    run = write_images(tmp_path, {f"P{i}": {"n": 10, "flagged": {0: ["empty"]} if i == 8 else {}} for i in range(9)})
    facts = images_facts(run)
    assert [p["plate"] for p in facts["pictures"]] == ["P8", "P0", "P1", "P2", "P3", "P4"]
    assert facts["pictures"][0]["ranges"][1] == {"channel": "ER", "low": 1.0, "high": 2.5}
    assert facts["beyond"] == 0
    text = page_of(run)
    assert text.count("<img ") == 12
    assert all("alt=" in tag for tag in re.findall(r"<img [^>]*>", text))
    monkeypatch.setattr(section, "_BYTES", 100_000)
    facts = images_facts(run)
    assert 1 <= len(facts["pictures"]) < 6
    assert facts["beyond"] >= 1
    text = page_of(run)
    assert sum(map(len, re.findall(r"data:[^\"]*", text))) <= 100_000
    assert "would make this page too large" in text


def test_plates_in_the_table_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(section, "IMAGES_SHOWN", 2)
    run = write_images(tmp_path, {f"P{i}": {"n": 10} for i in range(3)})
    assert (len(images_facts(run)["rows"]), images_facts(run)["n"]) == (2, 3)
    assert "2 of 3 plates" in page_of(run)


def test_every_rule_has_advice():
    from phenohit.imaging import QualityConfig

    assert set(QualityConfig().reject) | {"debris"} <= set(ADVICE)
    assert all(means and act for means, act in ADVICE.values())


def test_names_and_reasons_are_text(tmp_path):
    run = write_images(tmp_path, {HOSTILE: {"flagged": {0: [HOSTILE]}}, "P1": {}, "P2": {}})
    path = run / "images/folder-0/failures.csv"
    row = {"family": HOSTILE, "compartment": HOSTILE, "channel": HOSTILE, "reason": HOSTILE, "cells": "many"}
    write_table(path, pd.DataFrame([row]))
    write_table(
        run / "images" / "views.parquet",
        pd.read_parquet(run / "images/views.parquet").rename(columns={"File_DNA": f"File_{HOSTILE}"}),
    )
    text = page_of(run)
    assert "onerror=" in text
    assert "<img src=x" not in text
    assert "{{ 7 * 7 }}" in text
    assert all(tag.startswith('<img src="data:') or "shading" in tag for tag in re.findall(r"<img [^>]*>", text))


def test_an_album_takes_pictures_only():
    album = Album(10_000)
    assert album.add(b"no picture", 100) is None
    assert album.add(b"<svg onload=alert(1)></svg>", 100) is None
    assert album.add(noise(64)[:500], 100) is None
    assert (album.left, album.n_beyond) == (10_000, 0)
    small = album.add(noise(64), 32)
    assert small is not None
    assert (small.width, small.height) == (32, 32)
    assert album.left == 10_000 - len(small.src)
    assert album.add(noise(400), 400) is None
    assert album.n_beyond == 1


# --- beside the picks -------------------------------------------------------------------------


def card(compound: str, plate: str = "", well: str = "") -> dict:
    return {"compound": compound, "plate": plate, "well": well, "views": None}


@pytest.fixture
def imaged(tmp_path: Path) -> Path:
    run = write_images(tmp_path, {"P1": {}, "P2": {}})
    wells = [("K1", "P1", "A05"), ("K1", "P2", "A06"), ("K2", "P2", "A07"), ("K3", "P2", "C01"), ("K4", "P9", "A01")]
    write_table(run / "wells.parquet", pd.DataFrame(wells, columns=["compound", "plate", "well"]))
    control = [
        ("P2", "A01", 90.0),
        ("P2", "A02", 50.0),
        ("P2", "A03", 70.0),
        ("P2", "H12", 71.0),
        ("P2", "A04", np.nan),
    ]
    cells = pd.DataFrame(control, columns=["plate", "well", "cell_count"]).assign(pert_type="negcon")
    other = pd.DataFrame({"plate": ["P1"], "well": ["A05"], "cell_count": [5.0], "pert_type": ["trt"]})
    write_table(run / "checks" / "cells.parquet", pd.concat([cells, other], ignore_index=True))
    return run


def test_a_pick_is_shown_beside_a_typical_control_of_its_plate(imaged):
    """P1 has no control; A02, A03, A01, A04 of P2 have pictures: A03 is in the middle; K3's well has no picture."""
    cards = [card("K1", "P1", "A05"), card("K2"), card("K3", "P2", "C01"), card("K4")]
    add_views(imaged, [{"first": cards}], measured_plates(imaged))
    shown = [c["views"] and (c["views"]["plate"], c["views"]["well"], c["views"]["control"]) for c in cards]
    assert shown == [("P2", "A06", "A03"), ("P2", "A07", "A03"), None, None]
    control, compound = cards[0]["views"]["pair"]
    assert control.src != compound.src
    assert control == cards[1]["views"]["pair"][0]
    assert [name for name, *_ in cards[0]["views"]["channels"]] == CHANNELS


@pytest.mark.parametrize("file", ["checks/cells.parquet", "images/folder-1/thumbnails.parquet", "wells.parquet"])
def test_none_is_shown_where_none_is_known(imaged, file):
    (imaged / file).unlink()
    cards = [card("K1")]
    add_views(imaged, [{"first": cards}], measured_plates(imaged))
    assert cards[0]["views"] is None


def test_pictures_of_picks_are_bounded(imaged, monkeypatch):
    cards = [card("K1") for _ in range(8)]
    monkeypatch.setattr(pictures, "PAIRS", 5)
    add_views(imaged, [{"first": cards[:4]}, {"first": cards[4:]}], measured_plates(imaged))
    assert [c["views"] is not None for c in cards] == [True] * 5 + [False] * 3
    size = sum(len(p.src) for p in cards[0]["views"]["pair"])
    cards = [card("K1") for _ in range(5)]
    monkeypatch.setattr(pictures, "HITS_BYTES", int(3.5 * size))
    add_views(imaged, [{"first": cards}], measured_plates(imaged))
    assert [c["views"] is not None for c in cards] == [True] * 3 + [False] * 2
    assert cards[2]["views"]["channels"] == []  # every pick comes before any channel


def test_the_whole_page(run_folder, tmp_path):
    """Section before plates, pictures in cards, simulated data labelled, nothing fetched."""
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    cells = pd.read_parquet(run / "checks" / "cells.parquet")
    plate = cells.loc[cells["pert_type"] == "negcon", "plate"].iloc[0]
    settings = (run / "config.yaml").read_text()
    write_images(run, {plate: {"n": 80}, "<b>bold</b>": None})
    write_text(run / "config.yaml", settings)
    picked = pd.read_parquet(sorted(run.glob("hits/*/hits.parquet"))[0]).query("picked")["compound"]
    wells = cells.loc[(cells["plate"] == plate) & (cells["pert_type"] == "trt"), ["plate", "well"]].head(60)
    write_table(run / "wells.parquet", wells.assign(compound=picked.head(len(wells)).tolist()))
    text = build_report(run).read_text(encoding="utf-8")
    assert text.index('<section id="images"') < text.index('<section id="plates"')
    assert "Simulated data." in text
    assert "<b>bold" not in text
    sources = re.findall(r'<img [^>]*src="([^"]*)"', text)
    assert len(sources) > 10
    assert all(src.startswith("data:image/jpeg;base64,") for src in sources)
    assert "Channel by channel" in text
    assert "of a negative control, plate " + plate in text
    for href in re.findall(r'href="(images/[^"]*)"', text):
        assert (run / href).is_file(), href
    assert json.loads((run / "manifest.json").read_text())["simulated"] is True
    assert sum(map(len, sources)) <= 3_000_000
