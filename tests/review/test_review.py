"""The loop closed on a simulated screen: results in, rates, labels and the next round out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml

from phenohit.cli import main
from phenohit.data.labels import Labels
from phenohit.errors import ColumnError, ConfigError, LabelError, RunError
from phenohit.files import read_json, read_table, write_json, write_table
from phenohit.report.build import build_report
from phenohit.review.build import review_run
from phenohit.review.finished import Finished
from phenohit.review.results import Columns
from phenohit.runs import slug

pytestmark = pytest.mark.xdist_group("review")


@pytest.fixture(scope="session")
def reviewed(screen):
    """Numbers for all picks but two, one compound that was not picked, one measured before, two not imaged."""
    labels = Labels.load(screen.run / "labels.parquet")
    column = labels.task_names.index(screen.task)
    known = labels.Y[:, [column]].tocoo()
    ids = screen.compounds["compound_id"]
    before = ids.iloc[known.row[known.data == 0]].tolist()
    again = min(before, key=lambda i: -screen.truth[i])  # retested, and now active
    left = sorted(set(ids) - set(screen.picks) - set(ids.iloc[known.row]))[0]
    tested = [*screen.picks[2:], left, again]
    values = screen.values(tested).round(2)
    values[-1] = 7.5
    table = pd.DataFrame({"Compound ID": tested, "pIC50": values})
    table = pd.concat([table, pd.DataFrame({"Compound ID": ["X-1", "X-2"], "pIC50": [7.0, 4.0]})])
    table.to_csv(screen.folder / "lab.csv", index=False)
    folder = review_run(str(screen.run), str(screen.folder / "lab.csv"), task=screen.task, primary="45/6200", n=10)
    return folder, table.set_index("Compound ID")["pIC50"], left, again


def test_rates_are_those_of_the_table(screen, reviewed):
    folder, values, *_ = reviewed
    facts = read_json(folder / "review.json")
    picks = values.loc[screen.picks[2:]]
    head = facts["groups"]["picks"]
    assert facts["headline"] == "picks"
    assert (head["hits"], head["tested"]) == (int((picks >= 6).sum()), len(picks))
    assert facts["groups"]["others"]["tested"] == 1
    assert [facts["groups"]["again"][key] for key in ("hits", "tested")] == [1, 1]
    assert (facts["picked"], facts["picks_tested"]) == (20, 18)
    assert facts["matched"]["id"] == 20
    assert facts["matched"]["unmatched"] == 2
    assert head["enrichment"]["fold"] == pytest.approx(head["rate"] * 6200 / 45)
    table = pd.read_csv(folder / "results.csv").set_index("compound_id")
    assert table["outcome"].to_dict() == (values.drop(["X-1", "X-2"]) >= 6).astype(int).to_dict()
    np.testing.assert_allclose(table["value"], values.loc[table.index], rtol=1e-6)
    assert facts["promised"]["expected"] == pytest.approx(table.loc[table["group"] == "picks", "score"].sum(), rel=1e-5)


def test_everything_left_out_is_listed(screen, reviewed):
    lost = pd.read_csv(reviewed[0] / "dropped.csv")
    assert set(lost.loc[lost["reason"] == "was not imaged in this run", "id"]) == {"X-1", "X-2"}
    assert set(lost.loc[lost["reason"] == "picked, but there is no result", "id"]) == set(screen.picks[:2])
    assert lost["reason"].str.contains("inactive in .* before, active now").sum() == 1


def test_the_labels_hold_the_results_and_the_settings_read_them(screen, reviewed):
    folder, values, *_ = reviewed
    out = screen.folder / "next"
    assert main(["labels", str(folder / "refit.yaml"), "--out", str(out)]) == 0
    old, new = Labels.load(screen.run / "labels.parquet"), Labels.load(out / "labels.parquet")
    assert new.compounds["compound"].tolist() == old.compounds["compound"].tolist()
    expected = {}
    for labels in (old, new):
        Y = labels.Y.tocoo()
        names = labels.compounds["compound_id"].to_numpy()[Y.row], np.array(labels.task_names)[Y.col]
        expected[id(labels)] = dict(zip(zip(*names, strict=True), Y.data.tolist(), strict=True))
    wanted = expected[id(old)] | {(i, screen.task): float(v >= 6) for i, v in values.items() if not i.startswith("X-")}
    assert expected[id(new)] == wanted
    assert set(new.task_names) == set(old.task_names)
    of = new.tasks.set_index("task")["assay"]
    assert of[screen.task] == screen.assay
    config = (folder / "refit.yaml").read_text()
    assert "images" not in yaml.safe_load(config)  # measured already; the wells are read
    assert screen.task in config


def test_the_next_round_was_never_measured(screen, reviewed):
    folder, values, *_ = reviewed
    labels = Labels.load(screen.run / "labels.parquet")
    measured = np.flatnonzero(np.diff(labels.Y[:, [labels.task_names.index(screen.task)]].indptr))
    done = set(screen.compounds["compound_id"].iloc[measured]) | set(values.index)
    for mode in ("exploit", "diversify", "widen"):
        table = pd.read_csv(folder / f"next_{mode}.csv")
        assert len(table) == 10
        assert not set(table["compound_id"]) & done
        assert (table["pains"].isna()).all()
    scores = pd.read_csv(folder / "next_exploit.csv")["score"]
    assert (np.diff(scores) <= 0).all()


class _Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "i", "img", "path", "rect", "circle", "line"):
            self.open.append(tag)
        if tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def test_the_page_says_what_the_rate_refers_to(reviewed, screen):
    text = (reviewed[0] / "review.html").read_text()
    assert "were not drawn at random" in text
    assert "Simulated data" in text
    assert "as they were before these results" in text
    assert "refit.yaml" in text
    assert "2 have no result" in text
    page = _Balanced()
    page.feed(text)
    for link in page.links:
        assert link.startswith("#") or (reviewed[0] / link).is_file(), link
    assert "<script" not in text


def write(second, name, text):
    (second.folder / name).write_text(text)
    return str(second.folder / name)


def test_outcomes_as_words_by_structure_and_by_key(second):
    """One compound by SMILES, one by InChIKey, one inconclusive; a salt form is found by its parent."""
    some = second.compounds.set_index("compound_id").loc[second.picks[:3]]
    a, b, c = some.itertuples()
    rows = f"{a.smiles}.Cl,,active\n,{b.inchikey},Inactive\n{c.smiles},,inconclusive\n"
    path = write(second, "w.csv", "smiles,inchikey,outcome\n" + rows)
    folder = review_run(str(second.run), path, task=second.task, n=2)
    facts = read_json(folder / "review.json")
    assert facts["groups"]["picks"] | {"low": 0, "high": 0, "enrichment": 0} == {
        "what": "picked by this run", "hits": 1, "tested": 2, "rate": 0.5, "low": 0, "high": 0, "enrichment": 0
    }  # fmt: skip
    assert facts["threshold"] is None
    assert "run's labels" in facts["primary"]["source"]
    assert "no assay has a value" in (folder / "dropped.csv").read_text()


def test_only_actives_is_no_obstacle(second):
    path = write(second, "o.csv", "compound_id,hit\n" + "".join(f"{i},1\n" for i in second.picks[:4]))
    folder = review_run(str(second.run), path, task=second.task, n=2)
    head = read_json(folder / "review.json")["groups"]["picks"]
    assert (head["hits"], head["tested"], head["high"]) == (4, 4, 1)
    path = write(second, "z.csv", "compound_id,hit\n" + "".join(f"{i},0\n" for i in second.picks[:4]))
    assert main(["review", str(second.run), path, "--task", second.task, "--n", "2"]) == 0
    assert (folder / "review.html").is_file()


def test_a_table_of_several_tasks(second):
    rows = "".join(f"{i},{t},1\n" for i in second.picks[:3] for t in (second.task, "another >= 5"))
    folder = review_run(str(second.run), write(second, "t.csv", "id,task,value\n" + rows), task=second.task, n=2)
    assert read_json(folder / "review.json")["groups"]["picks"]["tested"] == 3
    assert "3 rows of another task" in (folder / "dropped.csv").read_text()
    with pytest.raises(ColumnError, match="no row of task"):
        review_run(str(second.run), write(second, "u.csv", "id,task,value\na,other,1\n"), task=second.task)


def test_mistakes_say_how_to_mend_them(second, tmp_path, capsys):
    run, task = str(second.run), second.task
    pick = second.picks[0]
    cases = [
        ("name it", ColumnError, "compund,outcome\nA,1\n", {}, "--id, --smiles or --inchikey"),
        ("no value", ColumnError, f"compound_id,x\n{pick},1\n", {}, "Say --value"),
        (
            "wrong column",
            ColumnError,
            f"compound_id,outcome\n{pick},1\n",
            {"columns": Columns(value="outcom")},
            "Nearest: outcome",
        ),
        ("nobody imaged", LabelError, "compound_id,outcome\nZ9,1\n", {}, "No measured compound was imaged"),
        ("impossible", LabelError, f"compound_id,outcome\n{pick},maybe\n", {}, "impossible"),
    ]
    for name, kind, text, flags, message in cases:
        with pytest.raises(kind, match=message):
            review_run(run, write(second, f"{slug(name)}.csv", text), task=task, **flags)
    good = write(second, "g.csv", f"compound_id,outcome\n{pick},1\n")
    with pytest.raises(ConfigError, match="picked for 2 tasks"):
        review_run(run, good)
    with pytest.raises(ConfigError, match="Nearest"):
        review_run(run, good, task="sim_morphology")
    unscored = next(t for t in Labels.load(second.run / "labels.parquet").task_names if "invisible" in t)
    with pytest.raises(RunError, match="no final scores for task"):
        review_run(run, good, task=unscored)
    with pytest.raises(RunError, match="holds no run"):
        review_run(str(tmp_path), good)
    assert main(["review", run, good, "--task", task, "--primary", "many"]) == 2
    assert "--primary is 'many'" in capsys.readouterr().err
    assert main(["review", run, good, "--task", task, "--n", "2"]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 active, 100.0%" in out
    assert "phenohit run" in out


@pytest.fixture
def copied(second, tmp_path):
    """A copy of the run, and results of four picks."""
    run = tmp_path / "run"
    shutil.copytree(second.run, run, ignore=shutil.ignore_patterns("review"))
    lab = tmp_path / "lab.csv"
    lab.write_text("compound_id,hit\n" + "".join(f"{i},{k % 2}\n" for k, i in enumerate(second.picks[:4])))
    return run, str(lab)


def test_the_next_round_is_filtered_as_the_hits_are(second, copied):
    """Compounds planted at the top of the ranking, one for each of four filters of the run's settings."""
    run, lab = copied
    config = yaml.safe_load((run / "config.yaml").read_text())
    plan = read_json(run / "hits" / "plan.json")
    off = next(t for t in plan["tasks"] if t != second.task)  # scored as well: it can be an off-target
    config["hits"] |= {
        "filters": ["pains", "reactive", "autofluorescent"],
        "off_targets": [off],
        "off_target_max": 0.999,
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(run / "hits" / "plan.json", plan | {"off_targets": [off]})
    free = review_run(str(second.run), lab, task=second.task, n=4)
    top = pd.read_csv(free / "next_exploit.csv")["compound_id"].tolist()

    compounds, meta = read_table(run / "compounds.parquet")
    at = {i: int(np.flatnonzero(compounds["compound_id"] == i)[0]) for i in top}
    compounds.loc[at[top[0]], "smiles"] = "O=C1C=CC(=O)C=C1"
    compounds.loc[at[top[1]], "smiles"] = "CCCCC(=O)Cl"
    write_table(run / "compounds.parquet", compounds, meta=meta)
    keys = compounds["compound"]
    here = {"plate": "P1", "well": "A01"}
    write_table(run / "wells.parquet", pd.DataFrame([{"compound": keys[at[top[2]]], **here}]))
    shining = pd.DataFrame([{**here, "channel": "DNA", "z": 8.0, "reference": "DMSO"}])
    write_table(run / "background.parquet", shining)
    final = Finished.open(str(run)).final
    score = np.array(final.score)
    score[list(final.compounds).index(keys[at[top[3]]]), final.tasks.index(off)] = 0.9999
    replace(final, score=score).save(run / "predictions" / "final.parquet")

    folder = review_run(str(run), lab, task=second.task, n=4)
    lost = pd.read_csv(folder / "dropped.csv")
    lost = lost[lost["stage"] == "filter the next round"].set_index("id")["reason"]
    words = [
        "PAINS alert: quinone_A",
        "reactive or unwanted group: ",
        "autofluorescence: measured",
        f"off-target: {off}",
    ]
    for compound, reason in zip(top, words, strict=True):
        assert reason in lost[compound]
    for mode in ("exploit", "diversify", "widen"):
        table = pd.read_csv(folder / f"next_{mode}.csv")
        assert not set(top) & set(table["compound_id"])
        assert {"pains", "reactive", "autofluorescent", "off_targets"} <= set(table.columns)
    facts = read_json(folder / "review.json")
    assert facts["n_filtered"] == len(lost) >= 4
    assert "autofluorescence" in (folder / "review.html").read_text()


def test_the_report_links_to_the_review_and_no_step_is_disturbed(second, copied, caplog):
    run, lab = copied
    stamps = {p: p.read_bytes() for p in [*(run / "stamps").rglob("*.json"), run / "manifest.json"]}
    folder = review_run(str(run), lab, task=second.task, n=2)
    assert not (run / "report.html").exists()  # there was none to write anew
    assert "../../report.html" not in (folder / "review.html").read_text()
    build_report(run)
    link = f"review/{folder.name}/review.html"
    shown = (run / "report.html").read_text()
    assert f'href="{link}"' in shown
    assert "2 of 4 tested compounds were active (picked by this run)" in shown
    (folder / "review.json").unlink()
    (folder / "review.html").unlink()
    assert link not in build_report(run).read_text()
    folder = review_run(str(run), lab, task=second.task, n=2)
    assert link in (run / "report.html").read_text()
    assert "../../report.html" in (folder / "review.html").read_text()
    assert {p: p.read_bytes() for p in stamps} == stamps
    # A report that cannot be written does not take the review with it.
    (run / "dropped.csv").write_bytes(b"stage,what\n\xff,\xfe\n")
    assert review_run(str(run), lab, task=second.task, n=2) == folder
    assert "could not be written anew" in caplog.text
