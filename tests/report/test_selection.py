"""Settings chosen inside each fold: what is shown, what is said of the choice, and what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml

from phenohit.evaluate.nested import best_cell
from phenohit.files import write_json, write_table, write_text
from phenohit.report.build import build_report, environment
from phenohit.report.selection import NAMED, _noise, selection_chart, selection_facts

SPLIT = {
    "name": "series",
    "folder": "series",
    "methods": [{"name": n, "label": n.replace("-", " on ")} for n in ("forest-profiles", "rate-base")],
    "folds": {"sizes": [{"name": str(k)} for k in range(3)]},
}
TRIED = [(leaf, trees) for leaf in (1, 10, 40) for trees in (5, 50)]


def use_grids(folder: Path, grids: dict) -> None:
    write_text(folder / "config.yaml", yaml.safe_dump({"tune": {"grids": grids}}))


def write_grid(
    folder: Path,
    fold: str,
    auroc: list[float],
    sd: float,
    *,
    method: str = "forest-profiles",
    epochs: float = 0,
    **more,
) -> None:
    """Write what the step `select` writes; a setting that is the same everywhere is in the table too."""
    here = folder / "models" / "series" / method / f"fold-{fold}"
    table = pd.DataFrame({"cell": range(len(auroc)), "auroc": auroc, "sd": sd, "rung": 0, "share": 1.0})
    table = table.assign(epochs=epochs, criterion="gini")
    table["leaf"], table["trees"] = zip(*TRIED[: len(auroc)], strict=True)
    best = max(range(len(auroc)), key=lambda c: auroc[c])
    write_table(here / "grid.csv", table.assign(auroc_on_share=float("nan"), **more))
    write_json(here / "chosen.json", {"cell": best, "settings": {"leaf": TRIED[best][0]}, "auroc": auroc[best]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fold 0 and 2 choose the second setting, fold 1 the last; a forest without early stopping."""
    use_grids(tmp_path, {"forest": {"leaf": [1, 10, 40], "trees": [5, 50]}})
    write_grid(tmp_path, "0", [0.70, 0.80, 0.72, 0.71, 0.60, 0.62], 0.02)
    write_grid(tmp_path, "1", [0.70, 0.71, 0.72, 0.71, 0.60, 0.78], 0.03)
    write_grid(tmp_path, "2", [0.66, 0.79, 0.72, 0.70, 0.64, 0.61], 0.04)
    return tmp_path


def only(folder: Path) -> dict:
    (split,) = selection_facts(folder, [SPLIT])
    (method,) = split["methods"]
    return method


def test_what_was_chosen_and_where_it_lies_among_all(folder):
    method = only(folder)
    assert method["label"] == "forest on profiles"
    assert method["settings"] == ["leaf", "trees"]  # not the one that never varies
    assert (method["n_tried"], method["rounds"], method["stops"]) == (6, 1, False)
    first = method["folds"][0]["found"]
    assert first["values"] == ["1", "50"]
    assert (first["auroc"], first["worst"]) == (0.80, 0.60)
    assert first["median"] == pytest.approx((0.70 + 0.71) / 2)
    assert [f["found"]["cell"] for f in method["folds"]] == [1, 5, 1]
    assert method["told"][0] == "2 different settings were chosen in 3 outer folds."
    assert method["told"][1].startswith("The choice matters: on average the chosen one")
    gain = (0.80 - 0.705 + 0.78 - 0.71 + 0.79 - 0.68) / 3
    assert f"is {gain:.3f} above the median setting, where up to 0.051 can be noise" in method["told"][1]


@pytest.mark.parametrize(("sd", "little"), [(0.2, True), (0.06, True), (0.05, False), (0.001, False)])
def test_a_choice_within_the_noise_is_called_one(folder, sd, little):
    """Gains over the median are 0.095, 0.07 and 0.11; noise of six settings reaches 1.69 SD: 0.101, and 0.084."""
    for fold, auroc in (("0", [0.70, 0.80, 0.72, 0.71, 0.60, 0.62]), ("1", [0.70, 0.71, 0.72, 0.71, 0.60, 0.78])):
        write_grid(folder, fold, auroc, sd)
    write_grid(folder, "2", [0.66, 0.79, 0.72, 0.70, 0.64, 0.61], sd)
    assert only(folder)["told"][1].startswith("The choice matters little here") == little


@pytest.mark.parametrize(("n", "inner"), [(4, 2), (6, 3), (108, 3), (40, 10)])
def test_the_luckiest_of_equal_settings_is_not_praised(n, inner):
    """All settings alike: in simulated grids the best is above the noise in about 5 % of outer folds."""
    rng, praised = np.random.default_rng(0), 0
    for _ in range(200):
        scores = rng.normal(0.7, 0.03, (n, inner))
        _, table = best_cell(scores[:, :, None])
        chosen = table.loc[table["auroc"].idxmax()]
        noise = _noise(table["sd"], chosen["sd"], n, inner)
        praised += chosen["auroc"] - table["auroc"].median() > noise
    assert praised / 200 < 0.1
    # One that is better by five standard deviations is found in nearly all.
    scores = rng.normal(0.7, 0.03, (100, n, inner))
    scores[:, 0] += 0.15
    tables = [best_cell(one[:, :, None])[1] for one in scores]
    found = [t["auroc"].max() - t["auroc"].median() > _noise(t["sd"], t["sd"][0], n, inner) for t in tables]
    assert np.mean(found) > 0.9


def test_equal_settings_matter_little(folder):
    for fold in "012":
        write_grid(folder, fold, [0.5] * 6, 0.0)
    told = only(folder)["told"]
    assert told[0] == "The same setting was chosen in all 3 outer folds."
    assert "matters little here: on average the chosen one is 0.000 above" in told[1]


def test_early_stopping_is_told_apart_from_a_setting_of_that_name(folder):
    for fold, stop in (("0", 12.5), ("1", 7.0), ("2", 0.0)):
        write_grid(folder, fold, [0.7, 0.8, 0.6], 0.01, epochs=stop, **{"epochs (setting)": ["50", "80", "50"]})
    method = only(folder)
    assert method["stops"]
    assert [f["found"]["epochs"] for f in method["folds"]] == [12, 7, None]
    assert method["settings"] == ["leaf", "trees", "epochs"]
    assert method["folds"][0]["found"]["values"] == ["1", "50", "80"]


def test_halving(folder):
    """All on a quarter, three on a half, one on everything: what was left behind is drawn, but not compared."""
    here = folder / "models/series/forest-profiles/fold-0"
    rows = [(c, None, 0.02, 0, 0.25, a) for c, a in enumerate([0.6, 0.7, 0.5, 0.65, 0.4, 0.3])]
    rows += [(c, None, 0.02, 1, 0.5, a) for c, a in [(0, 0.66), (1, 0.64), (3, 0.61)]]
    rows += [(0, 0.71, 0.02, 2, 1.0, None)]
    table = pd.DataFrame(rows, columns=["cell", "auroc", "sd", "rung", "share", "auroc_on_share"])
    table["leaf"] = [TRIED[c][0] for c in table["cell"]]
    write_table(here / "grid.csv", table)
    write_json(here / "chosen.json", {"cell": 0, "settings": {}, "auroc": 0.71})
    for fold in "12":
        shutil.rmtree(here.with_name(f"fold-{fold}"))
    method = only(folder)
    found = method["folds"][0]["found"]
    assert (found["n_tried"], found["n_last"], found["rounds"], found["worst"]) == (6, 1, 3, 0.71)
    kinds = {dot["cell"]: (dot["kind"], dot["auroc"]) for dot in found["dots"]}
    assert kinds == {
        0: ("chosen", 0.71), 1: ("left", 0.64), 2: ("left", 0.5), 3: ("left", 0.61), 4: ("left", 0.4), 5: ("left", 0.3)
    }  # fmt: skip
    assert found["noise"] is None  # one setting is no spread
    assert not any("choice" in sentence for sentence in method["told"])
    assert "successive halving in 3 rounds" in shown(folder)


def test_undefined_everywhere(folder):
    """No inner fold had a task with both classes: the first setting is taken, and nothing is claimed."""
    _, table = best_cell(pd.DataFrame([[float("nan")]] * 2).to_numpy()[:, :, None])
    for fold in "012":
        here = folder / "models/series/forest-profiles" / f"fold-{fold}"
        write_table(here / "grid.csv", table.assign(rung=0, epochs=0.0, leaf=[1, 10]))
        write_json(here / "chosen.json", {"cell": 0, "settings": {"leaf": 1}, "auroc": None})
    method = only(folder)
    for fold in method["folds"]:
        assert (fold["found"]["auroc"], fold["found"]["noise"], fold["found"]["dots"]) == (None, None, [])
    assert "undefined" in shown(folder)
    assert not any("choice" in sentence for sentence in method["told"])
    ElementTree.fromstring(str(selection_chart(method, "x")))


def shown(folder: Path, name: str = "series") -> str:
    """Render the section alone."""
    pages = environment()
    pages.globals["selection_chart"] = selection_chart
    return pages.get_template("selection.html.j2").render(selection=selection_facts(folder, [SPLIT | {"name": name}]))


@pytest.mark.parametrize("missing", ["grid.csv", "chosen.json"])
def test_an_interrupted_run(folder, missing):
    (folder / "models/series/forest-profiles/fold-1" / missing).unlink()
    method = only(folder)
    assert [bool(f["found"]) for f in method["folds"]] == [True, False, True]
    assert "1 of 3 outer folds are not computed." in method["told"]
    text = shown(folder)
    assert text.count("not computed</td>") == 1
    assert text.count("not computed</text>") == 1
    shutil.rmtree(folder / "models")
    assert only(folder)["n_tried"] == 0
    assert "Not computed." in shown(folder)


def test_no_section_without_grids(folder):
    """Not even where an earlier run with grids left its files."""
    use_grids(folder, {})
    assert selection_facts(folder, [SPLIT]) == []
    use_grids(folder, {"network": "simm2018"})
    assert selection_facts(folder, [SPLIT]) == []
    for text in ("[", "tune: 3", "- a", ""):
        write_text(folder / "config.yaml", text)
        assert selection_facts(folder, [SPLIT]) == []
    (folder / "config.yaml").unlink()
    assert selection_facts(folder, [SPLIT]) == []


def test_the_chart_marks_the_chosen(folder):
    method = only(folder)
    drawing = ElementTree.fromstring(str(selection_chart(method, 'a "label" <b>')))
    assert drawing.get("aria-label") == 'a "label" <b>'
    dots = [p for p in drawing.iter("path") if (p.get("class") or "").startswith("dot")]
    assert [d.get("class") for d in dots].count("dot chosen") == 3
    assert len(dots) == 18
    titles = [d.findtext("title") for d in dots if d.get("class") == "dot chosen"]
    assert titles[0] == "chosen: leaf 1, trees 50: AUROC 0.800"
    # Further right is better: the order of places is that of the AUROCs.
    first = {d.findtext("title")[-5:]: float(d.get("d")[1:].split()[0]) for d in dots[:6]}
    assert [a for a, _ in sorted(first.items(), key=lambda item: item[1])] == sorted(first)


def test_of_very_many_settings_only_the_chosen_can_be_pointed_at(folder):
    method = only(folder)
    dots = method["folds"][0]["found"]["dots"]
    method["folds"][0]["found"]["dots"] = [d for d in dots if d["kind"] == "tried"] * NAMED + dots[-1:]
    assert str(selection_chart(method, "x")).count("<title>") == 3


def test_names_from_data_are_inert(folder, attacks):
    for attack in attacks:
        write_grid(folder, "0", [0.7, 0.8], 0.01, **{attack: [attack, attack + "2"]})
        text = shown(folder, attack)
        assert "<script" not in text
        assert "<img" not in text
        assert "<b>" not in text
        figure = text[text.index("<svg") : text.index("</svg>") + 6]
        assert attack in "".join(ElementTree.fromstring(figure).itertext())


def test_in_the_whole_page(run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder / "splits" / "series", run / "splits" / "series")
    shutil.copy(run_folder / "manifest.json", run / "manifest.json")
    write_grid(run, "0", [0.7, 0.8, 0.75], 0.01)
    write_grid(run, "1", [0.7, 0.8, 0.75], 0.01, method="logistic-cell_count")
    assert "settings-title" not in build_report(run).read_text(encoding="utf-8")
    use_grids(run, {"forest": {"leaf": [1, 10, 40]}, "logistic": {"C": [1, 10]}})
    text = build_report(run).read_text(encoding="utf-8")
    assert '<a href="#settings">Settings</a>' in text
    assert text.count('class="chart selection"') == 2
    section = text[text.index('<section id="settings"') : text.index('<section id="results"')]
    names = ["forest on profiles", "forest on ECFP", "cell count alone (logistic)"]
    assert [h.split("</h4>")[0] for h in section.split("<h4>")[1:]] == names
    assert section.count("Not computed.") == 1
