"""The page in a real browser, offline: it fits, it works, it asks for nothing, nothing in the data acts.

Set PHENOHIT_SCREENSHOTS to a folder to keep the pictures.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phenohit.files import read_table, write_json, write_table
from phenohit.report.build import build_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = (1400, 800)


pytestmark = pytest.mark.xdist_group("browser")  # what all of them need is made once


@pytest.fixture(scope="module")
def chromium():
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(
            "browser tests need Chromium or Chrome, and none is on the PATH. "
            "To enable them: apt-get install chromium (Debian, Ubuntu) or brew install --cask chromium (macOS)"
        )
    sync_api = pytest.importorskip("playwright.sync_api", reason="to enable browser tests: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open a report offline and watch what it does; complaints and requests are checked at the end."""
    contexts, complaints, requests = [], [], []

    def go(path: Path, width: int = 1400, scheme: str = "light"):
        context = chromium.new_context(
            viewport={"width": width, "height": 1000}, color_scheme=scheme, offline=True, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#tasks tbody tr")
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url.split(":", 1)[0] for url in requests} <= {"file", "data", "blob"}


def pictures(tmp_path: Path) -> Path:
    kept = os.environ.get("PHENOHIT_SCREENSHOTS")
    folder = Path(kept) if kept else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def column(page, number: int) -> list[str]:
    """First line of every cell of a column, read in one go."""
    return page.eval_on_selector_all(
        f"#tasks tbody tr:not(.more) > :nth-child({number})",
        "cells => cells.map((cell) => (cell.querySelector('button, strong') || cell).textContent.trim())",
    )


def fits(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


CONTRAST = """() => {
      const part = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      const light = (rgb) => {
        const [r, g, b] = rgb.match(/[\\d.]+/g).map((v) => part(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const page = light(getComputedStyle(document.body).backgroundColor);
      const texts = "main p, main .muted, main dd, main .reading, main .state, main a, small";
      return [...document.querySelectorAll(texts)].map((found) => {
        const text = light(getComputedStyle(found).color);
        return (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
      });
    }"""


@pytest.mark.parametrize("width", WIDTHS)
def test_fits_its_window_and_reads_well(visit, report, tmp_path, width):
    """No sideways scrolling; text against the page at least 4.5 to 1 (WCAG AA), light and dark."""
    page = visit(report, width)
    page.wait_for_selector("#scatter .points path.point")
    assert fits(page)
    page.locator("#tasks tbody th button").first.click()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ratio = page.evaluate(CONTRAST)
        assert len(ratio) > 100
        assert min(ratio) >= 4.5
        path = pictures(tmp_path) / f"report-{width}-{scheme}.png"
        page.screenshot(path=path, full_page=True)
        assert path.stat().st_size > 100_000
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert fits(page)


def test_sorting(visit, report, run_folder):
    page = visit(report)
    table, _ = read_table(run_folder / "splits/series/metrics.parquet")
    lead = page.locator("#method").input_value()
    auroc = table[table["method"] == lead].set_index("task")["auroc"].dropna().sort_values(ascending=False)
    assert column(page, 1)[:-1] == auroc.index.tolist()  # the undefined task comes last
    assert page.locator("#tasks th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.click("#tasks [data-sort=auroc]")
    assert column(page, 1)[:-1] == auroc.index.tolist()[::-1]
    page.click("#tasks [data-sort=task]")
    assert column(page, 1) == sorted(column(page, 1), key=str.lower)
    assert page.locator("#tasks th[aria-sort]").get_attribute("aria-sort") == "ascending"


def test_sorting_by_keyboard(visit, report):
    page = visit(report)
    page.locator("#tasks [data-sort=active]").focus()
    page.keyboard.press("Enter")
    active = [int(v) for v in column(page, 10)]
    assert active == sorted(active, reverse=True)
    page.keyboard.press("Space")
    assert [int(v) for v in column(page, 10)] == sorted(active)
    page.keyboard.press("Enter")
    assert [int(v) for v in column(page, 10)] == sorted(active, reverse=True)


def test_filters(visit, report, run_folder):
    page = visit(report)
    table, _ = read_table(run_folder / "splits/series/metrics.parquet")
    of_lead = table[table["method"] == page.locator("#method").input_value()]
    page.fill("#search", "kinase")
    assert sorted(column(page, 1)) == ["Aurora kinase B pIC50 6", "Aurora kinase B pIC50 7"]
    page.fill("#search", "explained by cell count")
    assert set(column(page, 2)) == {"explained by cell count"}
    page.fill("#search", "")
    page.select_option("#minimum", "0.8")
    assert len(column(page, 1)) == (of_lead["auroc"] > 0.8).sum()
    page.select_option("#minimum", "")
    page.select_option("#reading", label="undefined")
    assert column(page, 1) == ["single fold only"]
    page.fill("#search", "nothing is called so")
    assert "No task fits these filters." in page.inner_text("#tasks")
    assert page.inner_text("#status").startswith("0 of 26 tasks")


def test_splits_and_methods(visit, report, run_folder):
    page = visit(report)
    for index, split in enumerate(["series", "compound"]):
        page.select_option("#split", str(index))
        assert page.locator("#split option:checked").inner_text() == split
        table, _ = read_table(run_folder / f"splits/{split}/metrics.parquet")
        for method in ("forest-profiles", "forest-ecfp"):
            page.select_option("#method", method)
            best = table[table["method"] == method].sort_values("auroc", ascending=False).iloc[0]
            assert column(page, 1)[0] == best["task"]
            assert column(page, 3)[0] == f"{best['auroc']:.2f}"


def test_a_task_opens_to_all_methods(visit, report):
    page = visit(report)
    button = page.locator("#tasks tbody th button").first
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert page.locator("#tasks tr.more tbody tr").count() == 7
    button.press("Enter")
    assert page.locator("#tasks tr.more").count() == 0


def test_the_scatter_has_a_dot_per_task(visit, report):
    page = visit(report)
    page.wait_for_selector("#scatter .points path.point")
    assert page.locator("#scatter .points path.point").count() == 25  # 26 tasks, one undefined
    assert "of 25 tasks" in page.inner_text("#scatter-text")
    page.select_option("#scatter-x", "network-profiles")
    page.select_option("#scatter-y", "forest-profiles")
    assert page.inner_text("#scatter-text").startswith("forest on profiles is better than network on profiles in ")
    page.select_option("#scatter-split", "1")
    page.wait_for_function("document.querySelectorAll('#scatter .points path.point').length === 25")


def test_the_scatter_shows_verdicts_where_curves_were_tested(visit, report, run_folder):
    page = visit(report)
    table = pd.read_csv(run_folder / "splits/series/roc_tests.csv", keep_default_na=False)
    a, b = table[["method_a", "method_b"]].iloc[0]
    counts = table[(table["method_a"] == a) & (table["method_b"] == b)]["verdict"].value_counts()
    better, worse, same = (counts.get(v, 0) for v in ("better", "worse", "same"))
    for x, y, up, down in ((b, a, better, worse), (a, b, worse, better)):
        page.select_option("#scatter-x", x)
        page.select_option("#scatter-y", y)
        said = page.inner_text("#scatter-text")
        assert said.endswith(f"it is better in {up} tasks, worse in {down}, and not significantly different in {same}.")
        legend = page.locator("#scatter .legendtext")
        assert legend.count() == sum(n > 0 for n in (up, down, same))
        assert page.locator("#scatter .points path.point").count() == 25
    page.select_option("#scatter-y", "rate-base")
    assert "were not tested against each other" in page.inner_text("#scatter-text")


def test_the_scatter_against_the_size_of_tasks(visit, report):
    page = visit(report)
    for what, words in (("#labels", "against labels of the task, 25 tasks"), ("#share", "share of actives, 25 tasks")):
        page.select_option("#scatter-x", what)
        assert words in page.inner_text("#scatter-text")
        assert page.locator("#scatter .points path.point").count() == 25
    page.select_option("#scatter-split", "1")
    assert page.input_value("#scatter-x") == "#share"
    page.select_option("#scatter-x", "forest-ecfp")
    assert "Pearson’s r" in page.inner_text("#scatter-text")


def test_a_method_of_the_reliability_diagram_can_be_chosen(visit, report):
    page = visit(report)
    box = page.locator("#probabilities .reliable").first
    assert box.locator("g.method.chosen").get_attribute("data-method") == page.locator("#method").input_value()
    assert box.locator("g.method .whiskers:visible").count() == 1
    box.get_by_label("forest on ECFP").click()
    assert box.locator("g.method.chosen").get_attribute("data-method") == "forest-ecfp"
    assert box.locator("g.method").last.get_attribute("data-method") == "forest-ecfp"
    assert box.locator("g.method .whiskers:visible").count() == 1
    page.keyboard.press("ArrowUp")
    assert box.locator("g.method.chosen").get_attribute("data-method") != "forest-ecfp"


def test_the_table_can_be_saved(visit, report, tmp_path):
    page = visit(report)
    page.fill("#search", "hERG")
    with page.expect_download() as waiting:
        page.click("#download")
    path = tmp_path / "tasks.csv"
    waiting.value.save_as(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("split,method,task,assay,threshold,n_active")
    assert len(lines) == 3


def test_attacks_in_the_data_do_nothing(visit, hostile_report):
    page = visit(hostile_report)
    page.wait_for_selector("#scatter .points path.point")
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    for button in page.locator("#tasks tbody th button").all()[:3]:
        button.click()
    page.select_option("#split", "1")
    page.locator("#scatter .points path.point").first.hover(force=True)
    page.wait_for_timeout(200)
    assert page.locator("img, b, iframe").count() == 0
    assert any(name.startswith("<script>alert(1)</script>") for name in column(page, 1))
    assert fits(page)


def test_twelve_hundred_tasks(visit, run_folder, tmp_path):
    table, _ = read_table(run_folder / "splits/series/metrics.parquet")
    names = pd.factorize(table["task"])[0]
    many = [table.assign(task=[f"task {26 * i + n}" for n in names]) for i in range(47)]
    write_table(tmp_path / "splits/series/metrics.parquet", pd.concat(many, ignore_index=True))
    write_json(tmp_path / "manifest.json", {"name": "large"})
    page = visit(build_report(tmp_path))
    assert page.locator("#tasks tbody tr").count() == 47 * 26
    spent = page.evaluate(
        "() => { const start = performance.now(); document.querySelector('#tasks [data-sort=task]').click();"
        " document.body.offsetHeight; return performance.now() - start; }"
    )
    assert column(page, 1)[:3] == ["task 0", "task 1", "task 2"]  # numbers in names sort as numbers
    print(f"sorting 1,222 rows: {spent:.0f} ms")
    assert spent < 5000
    assert fits(page)


# --- which assays each method predicts ---------------------------------------------------------

SHAPES = """(svg) => [...svg.querySelectorAll("rect, circle, path, text")].map((found) => [
    found.tagName, found.getAttribute("class") || "",
    found.tagName === "text" ? found.textContent : "",
    ["x", "y", "width", "height", "cx", "cy", "r"].map((key) => Number(found.getAttribute(key) || 0)),
    (found.getAttribute("d") || "").match(/[-\\d.]+/g)?.map(Number) || []])"""


def test_the_script_draws_what_the_page_had(visit, chromium, report):
    """Charts of sets are drawn by Python for the page and by the script for other choices: both are the same."""
    still = chromium.new_context(java_script_enabled=False, offline=True).new_page()
    still.goto(report.as_uri())
    charts = "#assays .variant svg.chart"
    before = [svg.evaluate(SHAPES) for svg in still.locator(charts).all()]
    still.context.close()
    page = visit(report)
    after = [svg.evaluate(SHAPES) for svg in page.locator(charts).all()]
    assert before[0][0][0] == "path"
    assert len(before) == len(after) == 16
    for old, new in zip(before, after, strict=True):
        assert len(old) == len(new) > 10
        key = lambda shape: (shape[0], shape[1], shape[2], shape[3], shape[4])  # noqa: E731  (regions may be in another order)
        for a, b in zip(sorted(old, key=key), sorted(new, key=key), strict=True):
            assert a[:3] == b[:3]
            assert a[3] == pytest.approx(b[3], abs=0.11)
            assert a[4] == pytest.approx(b[4], abs=0.11)


def test_levels_methods_and_assays_of_a_part(visit, report, run_folder):
    page = visit(report)
    table = pd.read_csv(run_folder / "splits/series/assays.csv").set_index("task")
    box = page.locator("#assays .comparison").first
    box.locator('input[value="task"]').check()
    box.locator('input[value="0.9"]').check()
    assert box.locator("svg.upset:visible").count() == 1
    for name in ("network on profiles", "network on ECFP"):
        box.get_by_label(f"{name} in the UpSet chart").uncheck()
    box.get_by_label("cell count alone (logistic) in the UpSet chart").check()
    shown = box.locator("svg.upset:visible .name")
    names = shown.evaluate_all("all => all.map((one) => one.textContent)")
    assert names == ["forest on profiles", "forest on ECFP", "cell count alone (logistic)"]
    chosen = [f"{m}.auroc" for m in ("forest-profiles", "forest-ecfp", "logistic-cell_count")]
    member = table[chosen] > 0.9
    part = box.locator("svg.upset:visible .part").first
    part.focus()
    page.keyboard.press("Enter")
    assert part.get_attribute("aria-pressed") == "true"
    said = part.get_attribute("aria-label")
    exact = np.array([name in said for name in names])
    only = (member.to_numpy() == exact).all(axis=1)
    assert 0 < only.sum() == int(said.rsplit(": ")[1].split()[0])
    assert sorted(box.locator(".listed tbody th").all_inner_texts()) == sorted(table.index[only])
    page.keyboard.press("Space")
    assert part.get_attribute("aria-pressed") == "false"
    assert not box.locator(".listed").is_visible()
    # three circles are the most: a fourth box is locked until one is freed
    fourth = box.get_by_label("network on ECFP in the Venn diagram")
    assert fourth.is_disabled()
    box.locator('input[data-chart="circles"]:checked').first.uncheck()
    assert fourth.is_enabled()
    assert box.locator("svg.venn:visible circle:not(.hit)").count() == 2
    box.locator("svg.venn:visible .part").last.click()
    assert "AUROC above 0.9 for" in box.locator(".listed").inner_text()
    assert fits(page)


def test_sets_fit_a_narrow_window(visit, report, tmp_path):
    page = visit(report, 700)
    assert fits(page)
    page.locator("#assays details").first.evaluate("(part) => { part.open = true; }")
    page.locator("#assays svg.upset:visible .part").first.click()
    assert fits(page)
    page.locator("#assays").screenshot(path=pictures(tmp_path) / "assays-700.png")
